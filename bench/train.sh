#!/usr/bin/env bash
# Training speed beside PyTorch's and beside what the convolutions alone cost: make bench-train. Arguments: the program.
#
# Programs take turns; every figure is the median of ROUNDS rounds, every ratio the median of the rounds' ratios.
#   PARTS    which of: speed f32 networks memory threads data evaluation methods (default: all)
#   ROUNDS   turns (3), STEPS: timed steps a turn (20), THREADS (one per processor)
#   PIN      a command that pins every program alike, e.g. "taskset -c 1"
#   CLOCK    wall, or cpu: processor time instead, for THREADS=1 on a machine that others use. The peer is bench/peer.py then
#            throughout, and there is no bound.
# The peer is ../shared/peers/torch_train.py (ResNet-20) and bench/peer.py (the others) under Debian's python3-torch, the bound
# conv_bound.cpp (g++ and oneDNN) from the same folder, or from $LOWBIT_PEERS. What is missing is said, and its column is empty.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
lowbit=$1
peers=${LOWBIT_PEERS:-../shared/peers}
parts=${PARTS:-speed f32 networks memory threads data evaluation methods}
rounds=${ROUNDS:-3}
steps=${STEPS:-20}
threads=${THREADS:-$(nproc)}
clock=${CLOCK:-wall}
pin=${PIN:-}
python=/usr/bin/python3
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

for part in $parts; do
    case $part in speed | f32 | networks | memory | threads | data | evaluation | methods) ;; *)
        echo "lowbit: error: PARTS: no part '$part'; there are speed f32 networks memory threads data evaluation methods" >&2
        exit 2
        ;;
    esac
done
if [ "$clock" != wall ] && { [ "$clock" != cpu ] || [ "$threads" != 1 ]; }; then
    echo "lowbit: error: CLOCK is wall, or cpu together with THREADS=1" >&2
    exit 2
fi

cat >"$dir/w2a2.yaml" <<'END'
model: {name: resnet20}
data: {name: cifar10, augment: {pad: 4, fill: mean, flip: true}}
train: {batch: 128, optimizer: {lr: 0.1}, schedule: {name: cosine}}
quant:
  weights: {method: dorefa, bits: 2}
  activations: {method: dorefa, bits: 2}
  edges: {first: float, last: float, shortcut: same}
END
sed '/^quant:/,$d' "$dir/w2a2.yaml" >"$dir/float.yaml"

# ---- What is there -----------------------------------------------------------------------------------------------------------

have_peer=no
if $python -c 'import torch' 2>/dev/null; then have_peer=yes; else echo "NO PEER: apt-get install python3-torch" >&2; fi
script=$peers/torch_train.py
[ -e "$script" ] || { [ $have_peer = no ] || echo "no $script: bench/peer.py is ResNet-20's peer too" >&2; }
bound=
if [ ! -e "$peers/conv_bound.cpp" ]; then
    echo "NO BOUND: $peers/conv_bound.cpp is not there" >&2
elif [ "$clock" = cpu ]; then
    echo "NO BOUND: conv_bound.cpp measures wall time; lowbit bench RECIPE --profile tells what convolutions take" >&2
elif [[ " $parts " == *" speed "* || " $parts " == *" f32 "* ]]; then
    if g++ -O2 -std=c++17 "$peers/conv_bound.cpp" -o "$dir/conv_bound" -ldnnl 2>"$dir/err"; then bound=$dir/conv_bound; else
        echo "NO BOUND: conv_bound.cpp does not compile: $(head -n 1 "$dir/err")" >&2
    fi
fi

# ---- Measuring ---------------------------------------------------------------------------------------------------------------

say() { [ ! -t 2 ] || printf '\r\033[K%s' "$*" >&2; }
median() { sort -g "$1" | awk '{ v[NR] = $1 } END { if (NR) print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
field() { sed -n "s/.*\"$1\": *\"\{0,1\}\([^,\"}]*\).*/\1/p" "$dir/ours.json" | head -n 1; }
# ours RECIPE [KEY=VALUE...]: prints images/s of w2a2, float or a recipe in recipes/; everything else is in ours.json.
ours() {
    local recipe=$1 sets=() s
    shift
    for s in "$@"; do sets+=(--set "$s"); done
    case $recipe in */*) recipe=recipes/$recipe ;; *) recipe=$dir/$recipe ;; esac
    $pin "$lowbit" bench "$recipe.yaml" --steps "$steps" --threads "$threads" --json -q "${sets[@]}" >"$dir/ours.json"
    if [ "$clock" = wall ]; then
        field images_per_s
    else
        awk -v ms="$(field cpu_ms)" -v b="$(field batch)" 'BEGIN { print 1e3 * b / ms }'
    fi
}
# Images/s of the evaluation after the last `ours`.
evaluated() {
    if [ "$clock" = wall ]; then field eval_images_per_s; else awk -v ms="$(field eval_cpu_ms)" 'BEGIN { print 1e3 / ms }'; fi
}
# theirs BITS NET [OPTION...]: images/s of the peer, the best of its ways; nothing if it is not there or fails.
theirs() {
    local bits=$1 net=$2 key given
    shift 2
    [ $have_peer = yes ] || return 0
    given=(--bits "$bits" --threads "$threads" "$@")
    if [ "$net" = resnet20 ] && [ "$clock" = wall ] && [ -e "$script" ]; then
        run_peer "$script" speed "${given[@]}" --steps "$steps" || return 0
        sed -n 's/^best //p' "$dir/peer.out"
        return
    fi
    key=$dir/way-$(echo "$bits $net $* ${ONEDNN_MAX_CPU_ISA:-}" | tr -c 'a-z0-9\n' -) # the fastest way is looked for once
    [ ! -s "$key" ] || given+=(--config "$(cat "$key")")
    run_peer bench/peer.py "$net" "${given[@]}" --steps "$((steps / 3 + 1))" --clock "$clock" || return 0
    sed -n 's/^best [^ ]* //p' "$dir/peer.out" >"$key"
    sed -n 's/^best \([^ ]*\).*/\1/p' "$dir/peer.out"
}
run_peer() {
    OMP_NUM_THREADS=$threads $pin $python "$@" >"$dir/peer.out" 2>"$dir/err" && return
    say
    echo "the peer failed: $* ($(tail -n 1 "$dir/err"))" >&2
    return 1
}
# The bound for width 16 or 64, f32 or bf16, from this round's run.
convolutions() { sed -n "s,^w=$1 $2 .* \([0-9]*\) img/s\$,\1,p" "$dir/bound.out" 2>/dev/null || true; }

head_printed=no
# row NAME GOAL-OF-PEER GOAL-OF-BOUND: medians of $dir/{ours,peer,bound,peer-ratio,bound-ratio}.
row() {
    local column values=()
    say
    [ $head_printed = yes ] || printf '%-30s %9s %9s %7s %6s %9s %7s %6s\n' "images/s" lowbit PyTorch ratio goal bound share goal
    head_printed=yes
    for column in ours peer peer-ratio bound bound-ratio; do values+=("$(median "$dir/$column" 2>/dev/null || true)"); done
    awk -v n="$1" -v g="$2" -v h="$3" -v o="${values[0]}" -v p="${values[1]}" -v r="${values[2]}" -v b="${values[3]}" \
        -v s="${values[4]}" 'function number(format, x) { return x == "" ? "-" : sprintf(format, x) }
        BEGIN { printf "%-30s %9.0f %9s %7s %6s %9s %7s %6s\n", n, o, number("%.0f", p), number("%.2f", r), g, number("%.0f", b),
                       number("%.0f%%", s == "" ? s : 100 * s), h }'
    rm -f "$dir"/{ours,peer,bound,peer-ratio,bound-ratio}
}
# note WHAT NUMBER: adds to a column; ratio OURS OTHER COLUMN.
note() { [ -z "$2" ] || echo "$2" >>"$dir/$1"; }
ratio() { [ -z "$2" ] || awk -v a="$1" -v b="$2" 'BEGIN { print a / b }' >>"$dir/$3"; }
# turn NAME RECIPE BITS NET "PEER OPTIONS" BOUND-WIDTH BOUND-TYPE [KEY=VALUE...]: one round of a row.
turn() {
    local name=$1 recipe=$2 bits=$3 net=$4 options=$5 width=$6 type=$7 o p b=
    shift 7
    say "$name: lowbit, round $round of $rounds"
    o=$(ours "$recipe" "$@")
    say "$name: PyTorch, round $round of $rounds"
    # shellcheck disable=SC2086
    p=$(theirs "$bits" "$net" $options)
    [ "$width" = - ] || b=$(convolutions "$width" "$type")
    note ours "$o"
    note peer "$p"
    note bound "$b"
    ratio "$o" "$p" peer-ratio
    ratio "$o" "$b" bound-ratio
}
run_bound() {
    [ -n "$bound" ] || return 0
    say "convolutions alone"
    OMP_NUM_THREADS=$threads $pin "$bound" >"$dir/bound.out" # its own least of several runs: once is enough
}
# measure NAME PEER-GOAL BOUND-GOAL and turn's other arguments: all rounds, one row.
measure() {
    local name=$1 peer_goal=$2 bound_goal=$3
    shift 3
    for ((round = 1; round <= rounds; round++)); do turn "$name" "$@"; done
    row "$name" "$peer_goal" "$bound_goal"
}

# ---- The parts ---------------------------------------------------------------------------------------------------------------

part_speed() {
    local type=bf16
    ours w2a2 train.steps=1 >/dev/null
    type=$(field precision)
    run_bound
    measure "ResNet-20 W2A2" 5.0 75% w2a2 2 resnet20 "" 16 "$type"
    measure "ResNet-20 float" 2.6 - float 0 resnet20 "" 16 "$type"
    steps=$((steps / 4 + 1)) measure "ResNet-20, width 64, W2A2" 3.0 85% w2a2 2 resnet20 "--width 64" 64 "$type" model.width=4
}

part_f32() {
    export ONEDNN_MAX_CPU_ISA=AVX512_CORE
    run_bound
    measure "ResNet-20 W2A2, no bf16" 1.6 75% w2a2 2 resnet20 "" 16 f32
    unset ONEDNN_MAX_CPU_ISA
}

part_networks() {
    measure "VGG-9 W2A2" 2.0 - w2a2 2 vgg9 "" - - model.name=vgg9
    measure "ResNet-56 W2A2" 2.0 - w2a2 2 resnet56 "" - - model.name=resnet56
    local big=(train.batch=16 train.eval_batch=16 data.size=224 data.train_limit=320 data.test_limit=16 data.augment.pad=0)
    local options="--size 224 --batch 16" steps=$((steps / 4 + 1))
    measure "MobileNet v2, 224 x 224, W2A2" 2.0 - w2a2 2 mobilenet-v2 "$options" - - model.name=mobilenet-v2 "${big[@]}"
    measure "ResNet-18, 224 x 224, W2A2" 2.0 - w2a2 2 resnet18 "$options" - - model.name=resnet18 "${big[@]}"
}

part_memory() {
    local whole mine other=- way
    say "memory"
    ours w2a2 >/dev/null
    whole=$(field peak_rss_mb)
    ours w2a2 data.train_limit=128 data.test_limit=128 >/dev/null
    mine=$(field peak_rss_mb)
    if [ $have_peer = yes ]; then
        run_peer bench/peer.py resnet20 --threads "$threads" --steps 1
        way=$(sed -n 's/^best [^ ]* //p' "$dir/peer.out")
        run_peer bench/peer.py resnet20 --threads "$threads" --steps 3 --config "$way"
        other=$(sed -n 's/^peak_rss_mb //p' "$dir/peer.out")
    fi
    say
    awk -v w="$whole" -v a="$mine" -v b="$other" 'BEGIN {
        printf "peak memory in MB, ResNet-20 W2A2, batch 128: lowbit %.0f, PyTorch %s, both with one batch of data", a, b
        if (b != "-") printf ": share %.2f (goal 0.50)", a / b
        printf "; lowbit with the whole data set %.0f\n", w }'
}

part_threads() {
    if [ "$threads" -lt 2 ]; then
        echo "1 -> 2 threads: not measured, THREADS is 1"
        return
    fi
    local one two
    for ((round = 1; round <= rounds; round++)); do
        say "1 and 2 threads, round $round of $rounds"
        one=$(threads=1 ours w2a2)
        two=$(threads=2 ours w2a2)
        ratio "$two" "$one" scaling
    done
    say
    printf '1 -> 2 threads, ResNet-20 W2A2: %.2f times as fast (goal 1.80)\n' "$(median "$dir/scaling")"
}

part_data() {
    local jpeg memory rate
    for ((round = 1; round <= rounds; round++)); do
        say "data, round $round of $rounds"
        jpeg=$(ours w2a2 data.cache=false data.train_limit=12800 data.test_limit=2000)
        memory=$(ours w2a2 data.train_limit=12800 data.test_limit=2000)
        ratio "$jpeg" "$memory" data-ratio
        rate=$(evaluated)
        ratio "$rate" "$memory" eval-ratio
        note evaluation "$rate"
        note start "$(field start_s)"
        [ "$round" -gt 1 ] || rm "$dir/start" # its cache may have been cold
        note start "$(ours w2a2 >/dev/null; field start_s)"
    done
    say
    printf 'training from JPEG files just decoded / from the decoded copy: %.2f (goal 1.00)\n' "$(median "$dir/data-ratio")"
    printf 'evaluation: %.0f images/s, %.2f times those of training (goal 3.00)\n' "$(median "$dir/evaluation")" \
        "$(median "$dir/eval-ratio")"
    printf 'start to the end of the first step, all images, warm cache: %.2f s (goal 2.00)\n' "$(median "$dir/start")"
}

# What training evaluates with, beside training itself.
part_evaluation() {
    local name recipe training rate
    printf '%-34s %9s %11s %6s %6s\n' "images/s" training evaluation ratio goal
    while read -r name recipe; do
        for ((round = 1; round <= rounds; round++)); do
            say "$name, round $round of $rounds"
            training=$(ours "$recipe")
            rate=$(evaluated)
            note training "$training"
            note evaluated "$rate"
            ratio "$rate" "$training" evaluated-ratio
        done
        say
        printf '%-34s %9.0f %11.0f %6.2f %6s\n' "${name//_/ }" "$(median "$dir/training")" "$(median "$dir/evaluated")" \
            "$(median "$dir/evaluated-ratio")" 3.00
        rm "$dir"/{training,evaluated,evaluated-ratio}
    done <<'END'
ResNet-20_W2A2                      w2a2
ResNet-20_W2A2,_a_float_layer_first cifar10/resnet20-plain-w2a2
ResNet-20_W1A1,_masks               cifar10/resnet20-stompp-w1a1
MobileNet_v1_W4                     cifar10/mobilenet-v1-ab-w4
VGG-9_W1                            cifar10/vgg9-bwn
ResNet-20_W1                        cifar10/resnet20-bwn
BinaryNet_W1                        cifar10/binarynet-ab-w1
ResNet-20_float                     float
END
}

# Weights and activations, mixers: a quantized step in float steps of the same network.
part_methods() {
    local name goal settings plain quantized s sets
    printf '%-34s %12s %6s\n' "step / float step, ResNet-20" ratio goal
    while read -r name goal settings; do
        case ${name:-#} in '#'*) continue ;; esac
        sets=()
        for s in $settings; do
            case $s in both.*) sets+=("quant.weights.${s#both.}" "quant.activations.${s#both.}") ;; *) sets+=("quant.$s") ;; esac
        done
        for ((round = 1; round <= rounds; round++)); do
            say "$name, round $round of $rounds"
            plain=$(ours float)
            quantized=$(ours float quant.edges.first=float quant.edges.last=float "${sets[@]}")
            ratio "$plain" "$quantized" method
        done
        say
        printf '%-34s %12.3f %6s\n' "${name//_/ }" "$(median "$dir/method")" "$goal"
        rm "$dir/method"
    done <<'END'
sign_1/1            1.06 both.method=sign both.bits=1
bwn_1/32            1.06 weights.method=bwn weights.bits=1
xnor_1/2            1.06 weights.method=xnor weights.bits=1 activations.method=dorefa activations.bits=2
twn_2/32            1.06 weights.method=twn weights.bits=2
dorefa_2/2          1.06 both.method=dorefa both.bits=2
uniform_2/2         1.06 both.method=uniform both.bits=2
dorefa_2,_pact_2    1.06 weights.method=dorefa weights.bits=2 activations.method=pact activations.bits=2
lsq_2/2             1.06 both.method=lsq both.bits=2
dorefa_2/2,_alpha   1.06 both.method=dorefa both.bits=2 both.mixer=alpha
bwn_1,_roulette     1.06 weights.method=bwn weights.bits=1 weights.mixer=roulette
sign_1/1,_mask,_all_layers_at_once 1.06 both.method=sign both.bits=1 both.mixer=mask both.mix_order=global
sign_1/1,_alpha     1.06 both.method=sign both.bits=1 both.mixer=alpha
xnor_1/2,_roulette  1.06 weights.method=xnor weights.bits=1 weights.mixer=roulette activations.method=dorefa activations.bits=2
lsq_2/2,_mask,_all_layers_at_once 1.06 both.method=lsq both.bits=2 both.mixer=mask both.mix_order=global
sign_1/1,_mask      1.06 both.method=sign both.bits=1 both.mixer=mask
dorefa_2/2,_stochastic 1.06 both.method=dorefa both.bits=2 both.mixer=stochastic
cpq_2/2             1.25 both.method=cpq both.bits=2
cpq_4/4             1.25 both.method=cpq both.bits=4
cpq_4/4,_alpha      1.25 both.method=cpq both.bits=4 both.mixer=alpha
cpq_4/4,_mask,_all_layers_at_once 1.25 both.method=cpq both.bits=4 both.mixer=mask both.mix_order=global
cpq_2,_lsq_2        1.25 weights.method=cpq weights.bits=2 activations.method=lsq activations.bits=2
cpq_4/4,_mode       -    both.method=cpq both.bits=4 both.cpq_backward=mode
rq_2/2              -    both.method=rq both.bits=2
rq_2,_lsq_2         -    weights.method=rq weights.bits=2 activations.method=lsq activations.bits=2
END
}

for part in $parts; do "part_$part"; done
echo "median of $rounds rounds, $threads thread$([ "$threads" = 1 ] || echo s), $clock time; batch 128, 16 at 224 x 224, recipes their own"
echo "the peer is the best of f32 and bf16, contiguous and channels-last"
