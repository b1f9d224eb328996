#!/usr/bin/env bash
# Latency on one thread, networks with random weights: ref, the kernels of each instruction set and, if their files are there,
# ONNX Runtime int8 and the bound, oneDNN's int8 convolutions without anything around them. Before that the peaks of the
# instruction sets, after it the speed of the scalar kernels by kind of layer. make bench-infer. Arguments: the program, the
# folder of the tools random_model and peak.
# The peers are onnxruntime-node with ort_models.py's *_int8_bN.onnx, and conv_bound_int8.cpp, in ../shared/peers (or
# $LOWBIT_PEERS). The programs take turns; of each turn the least processor time of a run counts, so that other work on the machine
# does not (the bound is a program of the peers, which takes wall time), and of the turns the second least, because the process's
# clock reads too little now and then. PIN may hold a command that pins a program, e.g. "taskset
# -c 1"; ROUNDS the number of turns; BATCH the batch; NETWORKS and FORMATS some of those below.
set -euo pipefail
cd "$(dirname "$0")/.."
lowbit=$1
random_model=$2/random_model
peak=$2/peak
peers=${LOWBIT_PEERS:-../shared/peers}
rounds=${ROUNDS:-5}
pin=${PIN:-}
batch=${BATCH:-1}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

cat >"$dir/ort.js" <<'JS'
const [modules, file, side, runs, batch] = process.argv.slice(2);
const ort = require(modules + '/onnxruntime-node');
(async () => {
    const options = {intraOpNumThreads: 1, interOpNumThreads: 1, graphOptimizationLevel: 'all'};
    const session = await ort.InferenceSession.create(file, options);
    const x = new ort.Tensor('float32', Float32Array.from({length: batch * 3 * side * side}, Math.random), [+batch, 3, +side, +side]);
    let least = Infinity;
    for (let i = 0; i < runs; i++) {
        const start = process.cpuUsage();
        await session.run({[session.inputNames[0]]: x});
        const used = process.cpuUsage(start);
        least = Math.min(least, (used.user + used.system) / 1e3);
    }
    console.log(least.toFixed(4));
})();
JS

ours() { $pin "$lowbit" bench "$1" --threads 1 --batch "$batch" --runs "$2" --isa "$3" --json | sed -n 's/.*"cpu_ms": *\([0-9.e-]*\).*/\1/p'; }
theirs() { $pin node "$dir/ort.js" "$(realpath "$peers")/node_modules" "$1" "$2" "$3" "$batch" 2>/dev/null || true; }
# Milliseconds of a network's convolutions, one line of the file "bound" each; larger batches follow and are not waited for.
bound() {
    [ -x "$dir/conv_bound" ] || return 0
    OMP_NUM_THREADS=1 $pin stdbuf -oL "$dir/conv_bound" | sed "/^$last_bound N=$batch /q" |
        sed -n "s/^\([a-z0-9-]*\) N=$batch .* \([0-9.]*\) ms.*/\1 \2/p" >>"$dir/bound" || true
}
# least FILE: the second least of its numbers; of one, that.
least() { sort -g "$1" 2>/dev/null | awk 'NR <= 2 { v = $1 } END { if (NR) print v }'; }

last_bound=r18
[ "$batch" = 1 ] || last_bound=vgg-small
if [ -e "$peers/conv_bound_int8.cpp" ]; then
    g++ -O2 -std=c++17 "$peers/conv_bound_int8.cpp" -o "$dir/conv_bound" -ldnnl 2>"$dir/log" ||
        echo "no bound: $(tail -n 1 "$dir/log")"
fi
: >"$dir/bound"

$pin "$peak"
echo
"$random_model" lenet5 28 10 sign 1 sign 1 "$dir/any.lbm" >/dev/null
isas=()
for isa in ref avx2 avx512 avx512vbmi amx; do
    if "$lowbit" bench "$dir/any.lbm" --isa $isa --runs 1 >/dev/null 2>&1; then isas+=("$isa"); fi
done

printf '%-12s %-6s' "ms, batch $batch" bits
printf ' %10s' "${isas[@]}" 'ORT int8' 'ORT/best' 'ORT/avx2' bound 'bound %'
echo
for row in "resnet20 32 10 r20 r20 200" "vgg-small 32 10 vgg vgg-small 40" "resnet18 224 1000 r18 r18 40"; do
    read -r name side classes peer bound_name runs <<<"$row"
    [[ " ${NETWORKS:-$name} " == *" $name "* ]] || continue
    runs=$((runs / batch + 3))
    onnx=$peers/${peer}_int8_b$batch.onnx
    for format in "w2a2 dorefa 2 dorefa 2" "wta2 twn 2 dorefa 2" "w1a1 sign 1 sign 1" "w4a4 dorefa 4 dorefa 4" \
        "w8a8 dorefa 8 dorefa 8"; do
        read -r bits method <<<"$format"
        [[ " ${FORMATS:-$bits} " == *" $bits "* ]] || continue
        model=$dir/$name-$bits
        # shellcheck disable=SC2086
        "$random_model" "$name" "$side" "$classes" $method "$model.lbm" >/dev/null
        bound
        for ((i = 0; i < rounds; i++)); do
            for isa in "${isas[@]}"; do # the slow ones less often
                case $isa in ref | avx2) ours "$model.lbm" "$((runs / 5 + 1))" "$isa" ;; *) ours "$model.lbm" "$runs" "$isa" ;; esac >>"$model.$isa"
            done
            if [ -e "$onnx" ] && [ -d "$peers/node_modules/onnxruntime-node" ]; then theirs "$onnx" "$side" "$runs" >>"$model.ort"; fi
        done
        printf '%-12s %-6s' "$name" "$bits"
        for isa in "${isas[@]}"; do printf ' %10.3f' "$(least "$model.$isa")"; done
        sed -n "s/^$bound_name //p" "$dir/bound" >"$model.bound"
        : >>"$model.ort"
        awk -v best="$(least "$model.$isa")" -v avx2="$(least "$model.avx2")" -v ort="$(least "$model.ort")" \
            -v bound="$(least "$model.bound")" 'function show(v, fmt) { printf " %10s", (v > 0 ? sprintf(fmt, v) : "-") } BEGIN {
                show(ort, "%.3f"); show(ort / best, "%.2f"); show((avx2 > 0 ? ort / avx2 : 0), "%.2f")
                show(bound, "%.3f"); show(100 * bound / best, "%.0f"); printf "\n" }'
    done
done

# The scalar kernels, layer by layer: reference LAYERS (a regular expression) NETWORK SIDE METHOD BITS METHOD BITS.
reference() {
    local layers=$1
    shift
    "$random_model" "$1" "$2" 10 "$3" "$4" "$5" "$6" "$dir/reference.lbm" >/dev/null
    $pin "$lowbit" bench "$dir/reference.lbm" --isa ref --profile --runs 10 -q |
        awk -v layers="^($layers)\$" '$1 ~ layers { x = $6 / 2; if (!n++ || x < lo) lo = x; if (x > hi) hi = x }
            END { if (n > 1) printf "%.1f to ", lo; printf "%.1f\n", hi }'
}
echo
echo "the reference runtime, GMAC/s"
row() { printf '%-40s %s\n' "$1" "$(reference "${@:2}")"; }
row "3x3 integer convolutions of ResNet-20" 'layer.*conv[12]' resnet20 32 dorefa 2 dorefa 2
row "first convolution (3 to 16 channels)" conv1 resnet20 32 dorefa 2 dorefa 2
row "1x1 integer, 256 to 256 channels" block5.pointwise.conv mobilenet-v1 224 dorefa 2 dorefa 2
row "depthwise integer" 'block.*depthwise.conv' mobilenet-v1 224 dorefa 2 dorefa 2
row "3x3 float" 'layer1.*conv[12]' resnet20 32 none 2 none 2
