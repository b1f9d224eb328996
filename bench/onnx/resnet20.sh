#!/usr/bin/env bash
# make onnx-resnet20: a float ResNet-20 that PyTorch trains on CIFAR-10 (../shared/peers/torch_train.py, python3-torch) is exported,
# imported, compared, fine-tuned to 2-bit weights and activations by LSQ, exported as QDQ and run in ONNX Runtime. Argument: the build
# folder. What is done lies in runs/onnx-resnet20 and is not done again; lowbit's training is resumed where it was interrupted, PyTorch's
# begins again. FLOAT_EPOCHS=N (10) and EPOCHS=N (15) say how long each is trained, SET="key=value ..." gives more settings for lowbit's
# (SET="train.steps=6 data.test_limit=100" with FLOAT_EPOCHS=1 tries everything out), ROOT=DIR another place.
set -euo pipefail
build=$(realpath "$1") here=$(dirname "$(realpath "$0")")
# shellcheck source=bench/onnx/lib.sh
. "$here/lib.sh"
root=${ROOT:-runs/onnx-resnet20}
peer=../shared/peers/torch_train.py archive=../shared/data/cifar10-jpeg.tar.gz
for file in "$peer" "$archive"; do
    [ -e "$file" ] || {
        echo "$file is missing: it has the other side of the comparison" >&2
        exit 1
    }
done
python() { /usr/bin/python3 "$here/resnet20.py" "$@"; }
show() { echo "$1: $(cat "$2")"; }
mkdir -p "$root"

once "$root/unpacked" tar -xzf "$archive" -C "$root"
once "$root/trained" python train "$peer" "$root" "${FLOAT_EPOCHS:-10}" "$root/net"
once "$root/exported" python export "$peer" "$root/net"
once "$root/imported" "$build/lowbit" import "$root/net.onnx" -o "$root/float" --data cifar10 -q \
    --set "data.mean=[0.4914, 0.4822, 0.4465]" --set "data.std=[0.2470, 0.2435, 0.2616]"
once "$root/float-eval" "$build/lowbit" eval "$root/float" -q
once "$root/float-written" "$build/onnx_reference" "$root/float" "$root/float-reference"
once "$root/compared" python compare "$peer" "$root" "$root/net" "$root/float-reference"
show "float, imported" "$root/float-eval"
show "float, compared" "$root/compared"

settings=(train.epochs="${EPOCHS:-15}" train.optimizer.lr=0.04 data.augment.pad=4 data.augment.fill=mean data.augment.flip=true)
case " ${SET:-} " in *" train.steps="*) unset 'settings[0]' ;; esac
options=()
for setting in "${settings[@]}" quant.{weights,activations}.method=lsq quant.{weights,activations}.bits=2 ${SET:-}; do
    options+=(--set "$setting")
done
train_once "$root/float/recipe.yaml" "$root/w2a2" "${options[@]}"
once "$root/w2a2-eval" "$build/lowbit" eval "$root/w2a2" -q
show "W2A2" "$root/w2a2-eval"
if have_runtime; then
    once "$root/equal" as_qdq "$root/w2a2"
    once "$root/equal-exact" as_qdq "$root/w2a2" --exact
    show "as QDQ" "$root/equal"
    show "as QDQ with --exact" "$root/equal-exact"
fi
