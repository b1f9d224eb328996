#!/usr/bin/env bash
# Runs as ONNX files: what is written and refused, that nothing is destroyed, and what the ONNX checker says where there is one.
. "$(dirname "$0")/lib.sh"
"$HELPER" idx good 64 32
tiny good
succeed train tiny.yaml --out run --set train.epochs=1 -q
succeed train tiny.yaml --out floats --set train.epochs=1 --set quant.weights.method=none --set quant.activations.method=none -q

succeed export run
says '^run/model\.onnx: [0-9,]+ bytes, qdq$'
check "the default file" -s run/model.onnx
succeed export run -o again.onnx
check "the same bytes twice" "$(cksum <run/model.onnx)" = "$(cksum <again.onnx)"
succeed export run --out json.onnx --json
check "the file's name" "$(value file)" = json.onnx
check "the format" "$(value format)" = qdq
check "the file's bytes" "$(value bytes)" -eq "$(stat -c %s json.onnx)"
for format in qdq qcdq qonnx float; do
    for run in run floats; do
        succeed export $run -o $run-$format.onnx --format $format
        says "$format\$"
    done
done
succeed export run -o run-13.onnx --opset 13
succeed export run -o run-exact.onnx --exact --opset 13
succeed export floats -o floats-exact.onnx --exact --format float
refuse 1 "qonnx.*exact" export run --format qonnx --exact
for opset in 14 18 20 21 22 24 25; do
    succeed export run -o opset.onnx --opset $opset
done
check "4-bit weights are smaller than 8-bit ones" "$(stat -c %s run-qdq.onnx)" -lt "$(stat -c %s run-13.onnx)"

expect 0 grep -aq 'classes' run-qdq.onnx # the metadata
refuse 2 'format.*qdcq.*qdq, qcdq, qonnx, float' export run --format qdcq
refuse 2 "opset: 12 is none of 13 to 25 .*export --help" export run --opset 12
refuse 2 'opset: 26 is none of' export run --opset 26
refuse 2 'opset' export run --opset none
refuse 2 'RUN is missing' export
refuse 1 'nothere: no such run directory' export nothere
refuse 1 'tiny\.yaml: not a run directory' export tiny.yaml
refuse 1 'tiny\.yaml: .*not an ONNX model' export run -o tiny.yaml
refuse 1 'safetensors: .*not an ONNX model' export run -o run/last.safetensors
refuse 1 'nowhere/net\.onnx' export run -o nowhere/net.onnx

# A failure leaves what was there.
cp -r run bad
succeed export bad
before=$(cksum <bad/model.onnx)
for file in bad/*.safetensors; do truncate -s 4 "$file"; done
refuse 1 'safetensors' export bad
check "the old file stays" "$(cksum <bad/model.onnx)" = "$before"

if /usr/bin/python3 -c 'import onnx' 2>/dev/null; then
    for model in run-13 run-exact floats-exact run-qcdq run-qonnx run-float floats-qcdq floats-float; do
        expect 0 /usr/bin/python3 -c 'import sys, onnx; onnx.checker.check_model(onnx.load(sys.argv[1]), full_check=True)' $model.onnx
    done
else
    echo "SKIPPED: the ONNX checker (apt-get install python3-onnx)"
fi
finish
