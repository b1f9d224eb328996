#!/usr/bin/env bash
# make torchvision: torchvision's networks (python3-torchvision) exported, imported, compared with PyTorch, trained for an epoch with 4-bit weights
# and activations on CIFAR-10, packed, verified, exported as QDQ and run in ONNX Runtime; prints a table. Argument: the build folder.
# What is done lies in runs/torchvision and is not done again; training that was interrupted is resumed, if need be at its last 50th step.
# NETS="resnet18 ..." chooses networks, SET="key=value ..." gives more settings for training (SET="train.steps=6 data.test_limit=100" tries
# everything out), VERIFY=N the number of test images that are verified, ROOT=DIR another place.
set -euo pipefail
build=$(realpath "$1") here=$(dirname "$(realpath "$0")")
# shellcheck source=bench/onnx/lib.sh
. "$here/lib.sh"
lowbit=$build/lowbit root=${ROOT:-runs/torchvision} verify=${VERIFY:-50} threshold=1e-3
mkdir -p "$root"

compare() {
    rm -rf "$1/compared"
    "$lowbit" import "$1/net.onnx" -o "$1/compared" --data cifar10 --set data.test_limit=8 \
        --set "data.mean=[0.5, 0.5, 0.5]" --set "data.std=[0.25, 0.25, 0.25]" -q >&2
    "$build/onnx_reference" "$1/compared" "$1/reference"
    /usr/bin/python3 "$here/networks.py" compare "$1/net" "$1/reference" || {
        echo "$1: more than $threshold away from PyTorch" >&2
        return 1
    }
    rm -rf "$1/compared" "$1/reference"
}

train() {
    local setting options=() own=(train.save_every=50 train.epochs=1)
    case " ${SET:-} " in *" train.steps="*) unset 'own[1]' ;; esac
    case ${1##*/} in
    vgg11_bn) own+=(train.eval_batch=20) ;; # 250 images of 224 x 224 take gigabytes
    # Its batch norms have a momentum of 0.01: after an epoch 2 % of the random variances are left, which is more than its own. Its
    # classifier starts near zero: at a rate of 0.01 PyTorch, too, has learned next to nothing after 60 steps in float.
    mobilenet_v3_small) own+=(train.bn_estimate=40 train.optimizer.lr=0.1) ;;
    esac
    for setting in "${own[@]}" quant.{weights,activations}.method=lsq quant.{weights,activations}.bits=4 ${SET:-}; do
        options+=(--set "$setting")
    done
    train_once "$1/float/recipe.yaml" "$1/w4a4" "${options[@]}" >&2
    "$lowbit" eval "$1/w4a4" -q
}

# The first test images only: every path, ref among them, runs each.
verify_some() {
    rm -rf "$1/verified"
    cp -r "$1/w4a4" "$1/verified"
    sed -i "s/^  test_limit: .*/  test_limit: $verify/" "$1/verified/recipe.yaml"
    "$lowbit" verify "$1/verified"
    rm -rf "$1/verified"
}

# --exact where the network can be written so: the packed model's numbers.
as_exact_qdq() { as_qdq "$1" --exact 2>/dev/null || as_qdq "$1"; }

one_network() {
    local name=$1 size=64 dir=$root/$1
    [ "$name" != vgg11_bn ] || size=224 # its classifier wants 7 x 7 pixels
    mkdir -p "$dir"
    once "$dir/exported" /usr/bin/python3 "$here/networks.py" export "$name" "$size" "$dir/net"
    once "$dir/difference" compare "$dir"
    [ -e "$dir/float/last.safetensors" ] || rm -rf "$dir/float"
    once "$dir/imported" "$lowbit" import "$dir/net.onnx" -o "$dir/float" --data cifar10 -q
    once "$dir/trained" train "$dir"
    once "$dir/packed" "$lowbit" pack "$dir/w4a4"
    once "$dir/equal" verify_some "$dir"
    ! have_runtime || once "$dir/runtime" as_exact_qdq "$dir/w4a4"
    rows+=("$(printf '| %s, %s x %s | %s | %s | %s | %s | %s |' "$name" "$size" "$size" "$(cut -d' ' -f1 "$dir/difference")" \
        "$(sed 's/ *top-5.*//; s/^top-1 //' "$dir/trained")" "$(sed 's/.*lbm: \([0-9,]* bytes\).*; \([0-9.]* times\) .*/\1, \2 smaller/' "$dir/packed")" \
        "$(tail -1 "$dir/equal")" "$(sed -n 's/.*: \([0-9]* of [0-9]*\) predictions equal.*/\1/p' "$dir/runtime" 2>/dev/null)")")
}

rows=()
for name in ${NETS:-resnet18 mobilenet_v2 vgg11_bn squeezenet1_1 shufflenet_v2_x1_0 densenet121 googlenet mobilenet_v3_small}; do
    echo "== $name" >&2
    one_network "$name"
done
echo "| network | largest difference of a score from PyTorch's | top-1 after an epoch of W4A4 | packed | verified | equal in ONNX Runtime |"
echo "|---|---:|---:|---:|---|---:|"
printf '%s\n' "${rows[@]}"
