#!/usr/bin/env bash
# Generated C on microcontrollers: trained networks, cross-compiled, run in QEMU on 100 test images; scores equal to the reference's.
MCU=$(cd "$(dirname "$0")" && pwd)
. "$MCU/../cli/lib.sh"
. "$MCU/boards.sh"
root=$MCU/../..

machines=
for machine in cortex-m4 cortex-m7 aarch64; do
    packages=$(missing $machine)
    if [ -n "$packages" ]; then
        echo "SKIPPED: $machine needs apt-get install" $packages
    else
        machines="$machines $machine"
    fi
done

[ -n "$machines" ] || exit 77

# network NAME RECIPE IMAGES SETTING...: trains for a few steps, which is enough to have real weights, packs, generates, runs.
network() {
    local name=$1 recipe=$2 images=$3
    shift 3
    succeed train "$root/recipes/$recipe.yaml" --out $name -q --set train.epochs=1 --set data.train_limit=512 "$@"
    succeed pack $name -q
    succeed codegen $name/model.lbm -o $name-c
    expect 0 "$REFERENCE" $name/model.lbm $images
    for machine in $machines; do
        expect 0 build $machine $name-c $name-$machine.elf
        rm -f scores
        expect 0 emulate $machine $PWD/$name-$machine.elf
        check "$name on $machine: scores of $images images" "$(stat -c %s scores)" -eq $((40 * images))
        check "$name on $machine: equal to ref" "$(cksum <scores)" = "$(cksum <wanted)"
    done
}

network quickstart fashion-mnist/quickstart 100
# First and last layer in 8 bits, so that all arithmetic is of integers.
edges="--set quant.edges.first=8 --set quant.edges.last=8"
if [ -e "$root/../shared/data/cifar10-jpeg.tar.gz" ]; then
    network resnet20 cifar10/resnet20-dorefa-w2a2 100 $edges --set data.path="$root/../shared/data"
else
    echo "CIFAR-10 is not there: ResNet-20 is trained on Fashion-MNIST instead"
    network resnet20 cifar10/resnet20-dorefa-w2a2 100 $edges --set data.name=fashion-mnist
fi
# First and last layer in float, which Cortex-M4 and M7 without a floating-point unit compute in software.
network floats fashion-mnist/lenet5-cpq-w3a3 10 --set quant.edges.first=float --set quant.edges.last=float
finish
