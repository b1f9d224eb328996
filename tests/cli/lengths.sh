#!/usr/bin/env bash
# Learned bit-lengths from the user's side: chosen, kept, shown, packed, and the same from the start.
. "$(dirname "$0")/lib.sh"
"$HELPER" idx data4 64 32
quant() {
    cat <<END
quant:
  edges: {first: same, last: same, shortcut: same}
  activations: {method: cpq, bits: 3}
  weights: {method: cpq, bits: 4}
END
}
tiny data4
sed -n '/^quant:/q; p' tiny.yaml >common.yaml
{
    cat common.yaml
    echo 'stages:'
    echo '  - {name: learn, train: {steps: 20, optimizer: {lr_gates: 60}}, quant: {weights: {bit_lengths: learned, bits_penalty: 4}}}'
    echo '  - {name: tune, train: {epochs: 2}, quant: {weights: {bit_lengths: kept}}}'
    quant
} >learned.yaml

succeed train learned.yaml --out learned
complains 'bits of weights: conv1 [2-4], '
succeed inspect learned --json
bits() { "$HELPER" json "$work/out" "layers.$1.weight_bits"; }
lengths=$(for ((i = 0; i < 30; i++)); do bits $i 2>/dev/null; done | grep -v '^0$' | tr '\n' ' ')
check "some layer has fewer than 4 bits" "$(grep -c '[23]' <<<"$lengths")" = 1
succeed inspect learned --rules
says '^  layers:$'
says '^    - \{match: "conv1", weights: \{bits: [2-4], bit_lengths: fixed\}\}$'
rules=$(cat "$work/out")
succeed pack learned
succeed verify learned --json
check "the packed model computes what was trained" "$(value equal)" = true
sizes=$(wc -c <learned/model.lbm)
succeed train learned.yaml --set train.epochs=3 --out learned --resume
succeed inspect learned --rules
check "a run that goes on keeps its bits" "$(cat "$work/out")" = "$rules"

{
    cat common.yaml
    quant
    echo "$rules"
} >fixed.yaml
succeed train fixed.yaml --out fixed
succeed inspect fixed --json
check "the rules give the same bits" "$(for ((i = 0; i < 30; i++)); do bits $i 2>/dev/null; done | grep -v '^0$' | tr '\n' ' ')" = "$lengths"
succeed pack fixed
check "and the same size" $(($(wc -c <fixed/model.lbm) / 1000)) -eq $((sizes / 1000))
last() { tail -n 2 "$1/metrics.jsonl" | grep -o '"weight_bits": [0-9.]*' | tail -n 1; }
check "metrics know the bits" "$(last fixed)" = "$(last learned)"
succeed compare learned fixed --json
mean=$(last fixed | awk '{ printf "W%.1fA3", $2 }')
check "compare tells their mean" "$(value runs.0.bits) $(value runs.1.bits)" = "$mean $mean"
refuse 1 'no layer has learned' inspect fixed --rules
refuse 1 'read only with.*learned' train fixed.yaml --set quant.weights.bits_penalty=1 --out bad
# A recipe with other settings; a packed model that is no smaller.
succeed inspect tiny.yaml --json
two=$(value bytes)
succeed inspect tiny.yaml --set quant.weights.bits=1 --json
check "fewer bits, fewer bytes" "$(value bytes)" -lt "$two"
refuse 1 'quant\.weights\.bitz' inspect tiny.yaml --set quant.weights.bitz=1
refuse 1 'weight has more than .* elements; make model\.width' inspect tiny.yaml --set model.width=64 --set model.name=vgg7
refuse 1 'it has plain, sq$' inspect tiny.yaml --set model.variant=square
succeed inspect tiny.yaml --set quant.weights.method=none --set quant.activations.method=none --set model.width=0.1
says 'packed [0-9,]+ bytes, in float [0-9,]+ bytes, [0-9.]+ % larger$'
finish
