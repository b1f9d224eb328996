# shellcheck shell=bash
# What the scripts beside it share.
: "${build:?the build folder}" "${here:?the folder of the scripts}"
# shellcheck source=bench/runs.sh
. "$here/../runs.sh"

# once FILE COMMAND...: makes FILE of what the command prints, unless it is there; an interrupted command leaves nothing.
once() {
    local file=$1
    shift
    [ -e "$file" ] && return
    "$@" >"$file.part"
    mv "$file.part" "$file"
}

# train_once RECIPE RUN OPTION...: trains unless that was done; an interrupted run goes on.
train_once() {
    local recipe=$1 run=$2 resume=()
    shift 2
    if [ -e "$run/last.safetensors" ]; then resume=(--resume); else rm -rf "$run"; fi
    done_training "$run" || "$build/lowbit" train "$recipe" --out "$run" "$@" "${resume[@]}"
}

# ONNX Runtime: npm's onnxruntime-node, installed into the build folder, for these checks only. Status 1, and a line, without npm.
have_runtime() {
    if ! command -v npm >/dev/null; then
        echo "SKIPPED: ONNX Runtime (needs node and npm)" >&2
        return 1
    fi
    export NODE_PATH=$build/onnxruntime/node_modules
    [ -d "$NODE_PATH/onnxruntime-node" ] ||
        npm install --silent --ignore-scripts --prefix "$build/onnxruntime" onnxruntime-node >/dev/null
}

# count_equal RUN MODEL.onnx...: how many predictions ONNX Runtime gives like `lowbit eval`, over all test images.
count_equal() {
    local reference=$build/onnxruntime/reference
    "$build/onnx_reference" "$1" "$reference" || return 1
    echo "ONNX Runtime $(node -p 'require("onnxruntime-node/package.json").version')"
    node "$here/check.js" "$reference" "${@:2}" || return 1
    rm "$reference"
}

# as_qdq RUN OPTION...: the same for RUN as QDQ.
as_qdq() {
    "$build/lowbit" export "$1" -q -o "$1/qdq.onnx" "${@:2}" >&2 || return 1
    count_equal "$1" "$1/qdq.onnx"
}
