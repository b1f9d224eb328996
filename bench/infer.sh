#!/usr/bin/env bash
# Latency of one image on one thread, W2A2 networks with random weights: ref, the best kernels of this machine and, if its files are
# there, ONNX Runtime int8. make bench-infer. Arguments: the program, the tool that packs random networks.
# The peer is onnxruntime-node with ort_models.py's *_int8_b1.onnx in ../shared/peers (or $LOWBIT_PEERS). The three take turns, the
# least time counts. PIN may hold a command that pins a program, e.g. "taskset -c 1 chrt -f 10".
set -euo pipefail
cd "$(dirname "$0")/.."
lowbit=$1
random_model=$2
peers=${LOWBIT_PEERS:-../shared/peers}
rounds=${ROUNDS:-5}
pin=${PIN:-}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

cat >"$dir/ort.js" <<'JS'
const [modules, file, side, runs] = process.argv.slice(2);
const ort = require(modules + '/onnxruntime-node');
(async () => {
    const options = {intraOpNumThreads: 1, interOpNumThreads: 1, graphOptimizationLevel: 'all'};
    const session = await ort.InferenceSession.create(file, options);
    const x = new ort.Tensor('float32', Float32Array.from({length: 3 * side * side}, Math.random), [1, 3, +side, +side]);
    let least = Infinity;
    for (let i = 0; i < runs; i++) {
        const start = process.hrtime.bigint();
        await session.run({[session.inputNames[0]]: x});
        least = Math.min(least, Number(process.hrtime.bigint() - start) / 1e6);
    }
    console.log(least.toFixed(4));
})();
JS

ours() { $pin "$lowbit" bench "$1" --threads 1 --runs "$2" --json "${@:3}" | sed -n 's/.*"min": *\([0-9.e-]*\).*/\1/p'; }
theirs() { $pin node "$dir/ort.js" "$(realpath "$peers")/node_modules" "$1" "$2" "$3" 2>/dev/null || true; }
least() { sort -g "$1" 2>/dev/null | head -n 1; }

printf '%-12s %10s %10s %10s %10s %10s\n' 'ms, W2A2' ref best 'ORT int8' ref/best ORT/best
for row in "resnet20 32 10 r20 200" "vgg-small 32 10 vgg 40" "resnet18 224 1000 r18 15"; do
    read -r name side classes peer runs <<<"$row"
    "$random_model" "$name" "$side" "$classes" dorefa 2 dorefa 2 "$dir/$name.lbm" >/dev/null
    onnx=$peers/${peer}_int8_b1.onnx
    for ((i = 0; i < rounds; i++)); do
        ours "$dir/$name.lbm" "$((runs / 5))" --isa ref >>"$dir/$name.ref"
        ours "$dir/$name.lbm" "$runs" >>"$dir/$name.best"
        if [ -e "$onnx" ] && [ -d "$peers/node_modules/onnxruntime-node" ]; then theirs "$onnx" "$side" "$runs" >>"$dir/$name.ort"; fi
    done
    awk -v n="$name" -v r="$(least "$dir/$name.ref")" -v b="$(least "$dir/$name.best")" -v o="$(least "$dir/$name.ort" || true)" 'BEGIN {
        printf "%-12s %10.3f %10.3f %10s %10.2f %10s\n", n, r, b, o == "" ? "-" : sprintf("%.3f", o), r / b,
               o == "" ? "-" : sprintf("%.2f", o / b) }'
done
echo "best: $("$lowbit" bench "$dir/resnet20.lbm" --runs 1 --json | sed -n 's/.*"isa": *"\([a-z0-9]*\)".*/\1/p')"
