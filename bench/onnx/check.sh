#!/usr/bin/env bash
# make check-onnx: exports a run in every format, has each file checked by the ONNX checker (python3-onnx) and run by
# ONNX Runtime (npm's onnxruntime-node, installed into the build folder) on every test image. Arguments: build folder, run.
set -euo pipefail
build=$(realpath "$1") run=$2 here=$(dirname "$(realpath "$0")")
work=$build/check-onnx
mkdir -p "$work"

[ -e "$run/recipe.yaml" ] || {
    echo "$run: not a run directory; make check-onnx RUN=DIR, e.g. after make quickstart" >&2
    exit 1
}
models=()
while read -r name options; do
    # shellcheck disable=SC2086
    "$build/lowbit" export "$run" -q -o "$work/$name.onnx" $options
    models+=("$work/$name.onnx")
done <<END
qdq-21
qdq-25 --opset 25
qdq-13 --opset 13
qcdq-13 --format qcdq
float-13 --format float
qonnx-13 --format qonnx
END

# Debian 12's checker knows opsets up to 17, so not qdq-21 and qdq-25.
if /usr/bin/python3 -c 'import onnx' 2>/dev/null; then
    for model in "${models[@]}"; do
        case $model in *-2?.onnx) continue ;; esac
        /usr/bin/python3 -c 'import sys, onnx; onnx.checker.check_model(onnx.load(sys.argv[1]), full_check=True)' "$model"
        echo "$model: valid, says the ONNX checker"
    done
else
    echo "SKIPPED: the ONNX checker (apt-get install python3-onnx)"
fi

if ! command -v npm >/dev/null; then
    echo "SKIPPED: ONNX Runtime (needs node and npm)"
    exit 0
fi
[ -d "$work/node_modules/onnxruntime-node" ] || npm install --silent --ignore-scripts --prefix "$work" onnxruntime-node >/dev/null
"$build/onnx_reference" "$run" "$work/reference"
# QONNX's operators are not ONNX Runtime's.
export NODE_PATH=$work/node_modules
echo "ONNX Runtime $(node -p 'require("onnxruntime-node/package.json").version'):"
node "$here/check.js" "$work/reference" "${models[@]/*qonnx*/}"
