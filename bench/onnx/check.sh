#!/usr/bin/env bash
# make check-onnx: exports a run in every format, has each file checked by the ONNX checker (python3-onnx) and run by
# ONNX Runtime on every test image. Arguments: build folder, run.
set -euo pipefail
build=$(realpath "$1") run=$2 here=$(dirname "$(realpath "$0")")
work=$build/check-onnx
# shellcheck source=bench/onnx/lib.sh
. "$here/lib.sh"
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

if have_runtime; then # QONNX's operators are not ONNX Runtime's
    count_equal "$run" "${models[@]/*qonnx*/}"
fi
