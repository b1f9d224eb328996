#!/usr/bin/env bash
# Generated C on microcontrollers: flash, RAM and instructions per inference of ResNet-20 (32 x 32 x 3, 10 classes) with random
# weights, first and last layer 8 bits. Flash is code and constants, RAM all static memory, of model.c compiled with -O2;
# instructions are counted by QEMU. Cortex-M7 executes those of Cortex-M4; Cortex-M3 has no SMLAD.
# Then of MobileNet v1 (64 x 64 x 3) and LeNet-5 (28 x 28 x 3) at 2 bits, and of the packed models that MODELS="FILE ..." names. Then the instructions of each kind of layer on Cortex-M4, beside CMSIS-NN's functions if CMSIS_NN names a checkout of it
# (https://github.com/ARM-software/CMSIS-NN), compiled with -O2 as well.
# usage: mcu.sh LOWBIT RANDOM_MODEL
set -euo pipefail
lowbit=$(realpath "$1")
random_model=$(realpath "$2")
start=$PWD
# shellcheck disable=SC2086,SC2206
models=(${MODELS:+$(realpath $MODELS)})
BENCH=$(cd "$(dirname "$0")" && pwd)
MCU=$(cd "$BENCH/../tests/mcu" && pwd)
. "$MCU/boards.sh"
packages=$(missing cortex-m4)
[ -z "$packages" ] || {
    echo "bench-mcu needs apt-get install" $packages >&2
    exit 1
}
cmsis=${CMSIS_NN:+$(realpath "$CMSIS_NN")}
[ -z "$cmsis" ] || [ -e "$cmsis/Include/arm_nnfunctions.h" ] || {
    echo "CMSIS_NN=$CMSIS_NN is no checkout of CMSIS-NN: it has no Include/arm_nnfunctions.h" >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# some_image: for the network in net/.
some_image() {
    local i bytes=$(($(awk '/#define MODEL_(HEIGHT|WIDTH|CHANNELS)/ {printf "%s%s", times, $3; times = "*"}' net/model.h)))
    for ((i = 0; i < bytes; i++)); do printf "\\x$(printf %02x $((i * 2654435761 >> 16 & 255)))"; done
}

count() { # MACHINE
    build "$1" net "$1.elf"
    emulate "$1" "$1.elf" -icount shift=0 </dev/null
}

# count_layers NAME: lines "LAYER INSTRUCTIONS" of the network in net/ into NAME.layers.
count_layers() {
    MAIN=$BENCH/mcu_layers.c build cortex-m4 net layers.elf -DMODEL_AFTER_LAYER=after_layer
    emulate cortex-m4 layers.elf -icount shift=0 </dev/null |
        awk 'NR == FNR {if (/^\/\* [0-9]+: /) name[$2 + 0] = substr($3, 1, length($3) - 1); next} {print name[$1], $2}' \
            net/model.c - >"$1.layers"
}

# count_cmsis NAME FLAG...: the same by CMSIS-NN.
count_cmsis() {
    local name=$1 flags="-O2 -mcpu=cortex-m4 -mthumb -I$cmsis/Include"
    shift
    rm -rf objects && mkdir objects
    (cd objects &&
        arm-none-eabi-gcc $flags -ffunction-sections -c $(ls "$cmsis"/Source/*Functions/*.c | grep -v '_f16\|_f32\|_flt'))
    arm-none-eabi-gcc $flags "$@" -I"$MCU" --specs=rdimon.specs -Wl,--gc-sections -T "$MCU/board.ld" \
        "$BENCH/cmsis_nn.c" "$MCU/board.c" objects/*.o -o cmsis.elf
    emulate cortex-m4 cmsis.elf -icount shift=0 </dev/null >"$name.layers"
}

# Sums of several .layers files by kind of layer, in thousands.
compare_layers() {
    awk '
    function kind(name) {
        if (name ~ /add$/) return "residual additions (ours: in the second convolutions)"
        if (name ~ /shortcut/) return "2 of 1x1, stride 2"
        if (name == "conv1") return "3x3, 3 to 16 channels, 32 x 32"
        if (name ~ /^layer1.*conv1/) return "3 of 3x3, 16 channels, 32 x 32"
        if (name ~ /^layer1/) return "3 of the same (ours: with a residual addition)"
        if (name ~ /^layer[23].0.conv1/) return "2 of 3x3, stride 2"
        if (name ~ /^layer2/) return "5 of 3x3, 32 channels, 16 x 16"
        if (name ~ /^layer3/) return "5 of 3x3, 64 channels, 8 x 8"
        return "image, pool, classifier"
    }
    FNR == 1 {file++; names[file] = FILENAME; sub(/\.layers$/, "", names[file])}
    {k = kind($1); if (!(k in seen)) {seen[k] = 1; kinds[++n] = k} sum[k, file] += $2; total[file] += $2}
    END {
        printf "\n| thousands of instructions, Cortex-M4 |"
        for (f = 1; f <= file; f++) printf " %s |", names[f]
        printf "\n|---|"
        for (f = 1; f <= file; f++) printf "---:|"
        for (i = 1; i <= n; i++) {
            printf "\n| %s |", kinds[i]
            for (f = 1; f <= file; f++) printf " %s |", (kinds[i], f) in sum ? sprintf("%.0f", sum[kinds[i], f] / 1000) : ""
        }
        printf "\n| all |"
        for (f = 1; f <= file; f++) printf " %.0f |", total[f] / 1000
        print ""
    }' "$@"
}

# measure MODEL NAME: its row of the table; the network is left in net/.
measure() {
    local m4 m3 text data bss
    rm -rf net
    "$lowbit" codegen "$1" -o net -q >out 2>&1
    some_image >images
    m4=$(count cortex-m4)
    m3=$(count cortex-m3)
    read -r text data bss _ < <(arm-none-eabi-size cortex-m4.elf.o | tail -n 1)
    printf '| %s | %d | %d | %s | %s |\n' "$2" $((text + data)) $((data + bss)) "${m4:--}" "${m3:--}"
}

printf '| bits | flash | RAM | instructions, Cortex-M4 and M7 | Cortex-M3 |\n|---|---:|---:|---:|---:|\n'
while read -r name weights wbits activations abits; do
    "$random_model" resnet20 32 10 $weights $wbits $activations $abits net.lbm
    measure net.lbm "$name"
    count_layers "$name"
done <<END
W1A1 sign 1 sign 1
W1A2 xnor 1 dorefa 2
W2A2 lsq 2 lsq 2
W3A3 lsq 3 lsq 3
W4A4 lsq 4 lsq 4
W5A5 lsq 5 lsq 5
W8A8 lsq 8 lsq 8
END
while read -r network size name; do
    "$random_model" $network $size 10 lsq 2 lsq 2 net.lbm
    measure net.lbm "$name"
done <<END
mobilenet-v1 64 MobileNet v1, W2A2
lenet5 28 LeNet-5, W2A2
END
for model in ${models[@]+"${models[@]}"}; do measure "$model" "${model#"$start/"}"; done
if [ -n "$cmsis" ]; then
    count_cmsis "CMSIS-NN int8"
    count_cmsis "CMSIS-NN int4 weights" -DWEIGHTS_4
fi
IFS=$'\n'
compare_layers $(ls -tr -- *.layers)
[ -z "$cmsis" ] || echo "CMSIS-NN: $(git -C "$cmsis" log -1 --format='%h, %cs' 2>/dev/null || echo "of an unknown commit")"
