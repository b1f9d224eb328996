#!/bin/sh
# The runtime on AArch64: cross-compiled, its kernels against ref under QEMU, with and without the dot product instructions.
# usage: run.sh BUILD-DIRECTORY
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=$1
packages=
command -v aarch64-linux-gnu-gcc >/dev/null || packages="$packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
command -v qemu-aarch64 >/dev/null || packages="$packages qemu-user"
if [ -n "$packages" ]; then
    echo "SKIPPED: the NEON kernels are not tested; that needs apt-get install$packages"
    exit 77
fi

toolchain=$here/../../cmake/aarch64.cmake
if ! { cmake -S "$here" -B "$build" -DCMAKE_TOOLCHAIN_FILE="$toolchain" -DCMAKE_BUILD_TYPE=Release &&
    cmake --build "$build"; } >"$build.log" 2>&1; then
    cat "$build.log"
    exit 1
fi
# Needs nothing but memcpy and memset here too.
find "$build/CMakeFiles" -path '*runtime*' -name '*.o' -exec sh "$here/../runtime/symbols.sh" aarch64-linux-gnu-nm {} +
for machine in "cortex-a53 neon" "max dotprod"; do
    # shellcheck disable=SC2086
    set -- $machine
    isa=$(qemu-aarch64 -cpu "$1" "$build/best_isa")
    if [ "$isa" != "$2" ]; then
        echo "found $isa on $1, not $2"
        exit 1
    fi
done
qemu-aarch64 -cpu max "$build/test_kernels"
