#!/usr/bin/env bash
# Installs the Debian packages that lowbit needs and that are missing. Arguments: --emulators for the cross compilers and emulators that
# the tests of generated C want, then more packages.
# Quiet when nothing is missing. On another system: prints the list; whether all is there, the build tells.
set -euo pipefail

packages=(gcc cmake ninja-build pkg-config libc6-dev libdnnl-dev librandom123-dev libyaml-dev libjansson-dev libprotobuf-c-dev
    protobuf-c-compiler libturbojpeg0-dev libspng-dev libarchive-dev zlib1g-dev libcmocka-dev libonnx-dev locales
    dataset-fashion-mnist)
if [ "${1:-}" = --emulators ]; then
    shift
    packages+=(gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)
fi
packages+=("$@")

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "lowbit: this is not a Debian system; what these Debian packages hold is needed: ${packages[*]}" >&2
    exit 0
fi

missing=()
for package in "${packages[@]}"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "lowbit: error: not root and no sudo; as root run: apt-get install ${missing[*]}" >&2
        exit 1
    }
    as_root=(sudo)
fi

echo "installing from Debian: ${missing[*]}"
install_missing() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$log" 2>&1
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! install_missing; then
    echo "updating the package lists"
    "${as_root[@]}" apt-get update -qq >"$log" 2>&1 || true
    install_missing || {
        cat "$log" >&2
        echo "lowbit: error: apt-get install failed (above); missing: ${missing[*]}" >&2
        exit 1
    }
fi
