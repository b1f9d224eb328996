# Builds a generated network for a machine and runs it there, in QEMU; source it. MCU is this folder.
# A machine is cortex-m3, cortex-m4, cortex-m7 or aarch64.

# missing MACHINE: the Debian packages that are needed for it and not there.
missing() {
    case $1 in
    aarch64)
        command -v aarch64-linux-gnu-gcc >/dev/null || echo gcc-aarch64-linux-gnu
        command -v qemu-aarch64 >/dev/null || echo qemu-user
        ;;
    *)
        command -v arm-none-eabi-gcc >/dev/null || echo gcc-arm-none-eabi
        command -v qemu-system-arm >/dev/null || echo qemu-system-arm
        [ -n "$(echo | arm-none-eabi-gcc -specs=rdimon.specs -E - 2>/dev/null)" ] || echo libnewlib-arm-none-eabi
        ;;
    esac
}

# build MACHINE DIR PROGRAM FLAG...: the network in DIR, compiled with these flags too, and main.c (or MAIN).
build() {
    local machine=$1 dir=$2 program=$3 main=${MAIN:-$MCU/main.c} strict="-std=c99 -Wall -Wextra -Werror -pedantic"
    shift 3
    case $machine in
    aarch64) aarch64-linux-gnu-gcc $strict -O2 "$@" -static -I"$dir" -I"$MCU" "$main" "$MCU/uncounted.c" "$dir/model.c" -o "$program" ;;
    *)
        arm-none-eabi-gcc $strict -ffreestanding -O2 "$@" -mcpu=$machine -mthumb -c "$dir/model.c" -o "$program.o" &&
            arm-none-eabi-gcc -O2 -mcpu=$machine -mthumb -I"$dir" -I"$MCU" --specs=rdimon.specs -T "$MCU/board.ld" "$main" "$MCU/board.c" \
                "$program.o" -o "$program"
        ;;
    esac
}

# emulate MACHINE PROGRAM OPTION...: runs it in this folder, on the file `images`.
emulate() {
    local machine=$1 program=$2 board=mps2-an500
    shift 2
    [ "$machine" != cortex-m3 ] || board=mps2-an385
    [ "$machine" != cortex-m4 ] || board=mps2-an386
    case $machine in
    aarch64) qemu-aarch64 "$program" ;;
    *) timeout 500 qemu-system-arm -M $board -nographic -semihosting-config enable=on,target=native "$@" -kernel "$program" ;;
    esac
}
