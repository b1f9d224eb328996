#!/usr/bin/env bash
# Generated C on microcontrollers: flash, RAM and instructions per inference of ResNet-20 (32 x 32 x 3, 10 classes) with random weights,
# in 1, 2, 4 and 8 bits; first and last layer 8 bits. Flash is code and constants, RAM all static memory, of model.c compiled with -O2;
# instructions are counted by QEMU. Cortex-M7 executes those of Cortex-M4; Cortex-M3 has no SMLAD.
# usage: mcu.sh LOWBIT RANDOM_MODEL
set -euo pipefail
lowbit=$(realpath "$1")
random_model=$(realpath "$2")
MCU=$(cd "$(dirname "$0")/../tests/mcu" && pwd)
. "$MCU/boards.sh"
packages=$(missing cortex-m4)
[ -z "$packages" ] || {
    echo "bench-mcu needs apt-get install" $packages >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
for ((i = 0; i < 3072; i++)); do printf "\\x$(printf %02x $((i * 2654435761 >> 16 & 255)))"; done >images # some image

count() { # MACHINE
    build "$1" net "$1.elf"
    emulate "$1" "$1.elf" -icount shift=0 </dev/null
}

printf '| bits | flash | RAM | instructions, Cortex-M4 and M7 | Cortex-M3 |\n|---|---:|---:|---:|---:|\n'
while read -r name weights wbits activations abits; do
    "$random_model" resnet20 32 10 $weights $wbits $activations $abits net.lbm
    "$lowbit" codegen net.lbm -o net -q >out 2>&1
    m4=$(count cortex-m4)
    m3=$(count cortex-m3)
    read -r text data bss _ < <(arm-none-eabi-size cortex-m4.elf.o | tail -n 1)
    printf '| %s | %d | %d | %s | %s |\n' "$name" $((text + data)) $((data + bss)) "${m4:--}" "${m3:--}"
done <<END
W1A1 sign 1 sign 1
W1A2 xnor 1 dorefa 2
W2A2 lsq 2 lsq 2
W4A4 lsq 4 lsq 4
W8A8 lsq 8 lsq 8
END
