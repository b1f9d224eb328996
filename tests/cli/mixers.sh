#!/usr/bin/env bash
# Mixers from the user's side: what a scheduled method trained is packed and verified, repeats from its resolved recipe, and keys
# that have no effect are refused.
. "$(dirname "$0")/lib.sh"
"$HELPER" idx data4 64 32
tiny data4
weights() { tail -c +$((9 + $(od -An -t u8 -N 8 "$1"))) "$1" | cksum; }
one_bit=()
for side in weights activations; do
    for key in method=sign bits=1 mixer=mask mix_refresh=2; do
        one_bit+=(--set "quant.$side.$key")
    done
done

succeed train tiny.yaml "${one_bit[@]}" --out mask
succeed pack mask
succeed verify mask --json
check "the packed model computes what was trained" "$(value equal)" = true
succeed train mask/recipe.yaml --out again
check "the resolved recipe repeats the run" "$(weights again/last.safetensors)" = "$(weights mask/last.safetensors)"
succeed train tiny.yaml "${one_bit[@]}" --set quant.weights.estimator=ste --out ste
check "the estimator is heeded" "$(weights ste/last.safetensors)" != "$(weights mask/last.safetensors)"

blend=(--set quant.weights.mixer=alpha --set train.steps=1)
succeed train tiny.yaml "${blend[@]}" --out adam
complains 'warning.*alpha.*adam.*sgd'
for other in train.optimizer.name=sgd quant.weights.estimator=ste; do
    succeed train tiny.yaml "${blend[@]}" --set "$other" --out "${other##*.}"
    check "$other: no warning" -z "$(grep -i warning "$work/err")"
done

refuse 1 'quant\.weights\.mix_ramp.*(cubic|quadratic)' train tiny.yaml "${one_bit[@]}" --set quant.weights.mix_ramp=cubc
refuse 1 'quant\.weights\.mix_refresh.*1001' train tiny.yaml "${one_bit[@]}" --set quant.weights.mix_refresh=1001
refuse 1 'quant\.weights\.mix_order.*read only with.*mask' train tiny.yaml --set quant.weights.mix_order=global
refuse 1 'quant\.weights\.mix .*read only with.*constant' train tiny.yaml "${one_bit[@]}" --set quant.weights.mix=0.5
finish
