#!/usr/bin/env bash
# Training speed of the CIFAR-10 recipes beside PyTorch's, in one run: make bench-train. Arguments: the program.
# The peer is ../shared/peers/torch_train.py under Debian's python3-torch; without it only our own figures are printed.
set -euo pipefail
cd "$(dirname "$0")/.."
lowbit=$1
peer=${LOWBIT_PEERS:-../shared/peers}/torch_train.py
steps=${STEPS:-30}
recipes=recipes/cifar10

rate() { "$lowbit" bench "$1" --steps "$steps" --json 2>/dev/null | sed -n 's/.*"images_per_s": *\([0-9]*\).*/\1/p'; }
field() { "$lowbit" bench "$1" --steps 5 --json 2>/dev/null | sed -n "s/.*\"$2\": *\"\{0,1\}\([^,\"}]*\).*/\1/p"; }
torch_rate() { /usr/bin/python3 "$peer" speed --bits "$1" 2>/dev/null | sed -n 's/^best //p'; }

have_peer=no
if [ -e "$peer" ] && /usr/bin/python3 -c 'import torch' 2>/dev/null; then have_peer=yes; fi
printf '%-26s %10s %10s %8s\n' 'ResNet-20, batch 128' 'lowbit' 'PyTorch' 'ratio'
for row in "float resnet20-float 0" "W2A2_DoReFa resnet20-dorefa-w2a2 2" "W2A2_LSQ resnet20-lsq-w2a2 2"; do
    read -r name recipe bits <<<"$row"
    ours=$(rate "$recipes/$recipe.yaml")
    if [ $have_peer = yes ]; then
        theirs=$(torch_rate "$bits")
        awk -v n="${name//_/ }" -v a="$ours" -v b="$theirs" 'BEGIN { printf "%-26s %10d %10d %8.2f\n", n, a, b, a / b }'
    else
        printf '%-26s %10d %10s %8s\n' "${name//_/ }" "$ours" - -
    fi
done
echo "images/s; precision $(field $recipes/resnet20-float.yaml precision), $(nproc) processors"
[ $have_peer = yes ] || echo "no peer: install python3-torch and put torch_train.py into $(dirname "$peer")"
