#!/usr/bin/env bash
# Checkpoints and packed models that are missing, truncated, altered or of something else; places that cannot be written.
. "$(dirname "$0")/lib.sh"
"$HELPER" idx good 64 32
tiny good
succeed train tiny.yaml --out run --set train.epochs=1 -q
succeed pack run -q
cp -r run kept
whole=$(fingerprint run)
intact() { check "$1 left the run as it was" "$(fingerprint run)" = "$whole"; }

# ---- Runs -----------------------------------------------------------------------------------------------------------
refuse 1 'run: .*there already.*--resume.*--out' train tiny.yaml --out run
intact "a second train"
mkdir bare
refuse 1 'other: nothing to resume' train tiny.yaml --out other --resume
refuse 1 'run: a directory, not a recipe; --resume' train run
refuse 1 'bare: no training to resume, recipe.yaml is missing' train bare --resume
refuse 1 'bare: a directory without a run' train bare
refuse 2 'run goes on where it is' train run --resume --out other
intact "wrong ways to resume"
for verb in eval verify inspect; do
    refuse 1 'nothere' $verb nothere
    mkdir -p hollow
    refuse 1 'hollow' $verb hollow
done
refuse 1 'nothere: no such run' pack nothere
refuse 1 'tiny\.yaml: not a run' pack tiny.yaml
refuse 1 'hollow' pack hollow
expect 1 lowbit compare nothere run hollow
complains '^lowbit: error: nothere: no such run'
complains '^lowbit: error: hollow/recipe.yaml'
says '^run  *resnet20 '
expect 1 lowbit compare nothere run --json
json runs.0.run
refuse 1 'hollow' compare hollow
refuse 1 'run: a directory' bench run
refuse 1 'hollow: a directory.*lowbit pack' codegen hollow -o c

# Nothing in them: what they are called decides.
: >empty.yaml
: >empty.lbm
refuse 1 'empty\.yaml: the recipe is empty' inspect empty.yaml
for verb in inspect eval bench; do refuse 1 'empty\.lbm: an empty file' $verb empty.lbm; done
refuse 1 'empty\.yaml: an empty file, not a packed model' eval empty.yaml
refuse 1 'empty\.yaml: neither a packed model nor a run' verify empty.yaml
echo 'model: {name: lenet5}' >named.lbm
refuse 1 'named\.lbm: not a packed model' inspect named.lbm

# spoil PATTERN: the run in `bad`, whose checkpoints were spoilt, is refused by all that read it.
spoil() {
    rm -f bad.lbm
    refuse 1 "$1" eval bad
    refuse 1 "$1" pack bad -o bad.lbm
    check "no packed model came of it" ! -e bad.lbm
    refuse 1 "$1" train tiny.yaml --set train.epochs=1 --out bad --resume
}
fresh() { rm -rf bad && cp -r kept bad; }
each() { for file in bad/last.safetensors bad/best.safetensors; do "$@" $file; done; }
fresh; each truncate -s 4;    spoil 'safetensors'
fresh; each truncate -s 0;    spoil 'safetensors'
fresh; each truncate -s 5000; spoil 'safetensors'
flip_header() { "$HELPER" flip "$1" 3; }
fresh; each flip_header;      spoil 'safetensors'
flip_brace() { "$HELPER" flip "$1" 8; }
fresh; each flip_brace;       spoil 'safetensors'
flip_weight() { "$HELPER" flip "$1" -2000; }
fresh; each flip_weight;      spoil 'safetensors.*(alter|checksum|crc|damaged|corrupt)'
grow() { echo x >>"$1"; }
fresh; each grow;             spoil 'safetensors'

# A checkpoint of another network.
succeed train tiny.yaml --out wide --set train.epochs=1 --set model.width=0.5 -q
fresh; cp wide/*.safetensors bad/; spoil 'safetensors'
refuse 1 'wide' train tiny.yaml --out mixed --set train.init=wide/best.safetensors
refuse 1 '^lowbit: error: train\.init: nothere' train tiny.yaml --out mixed --set train.init=nothere

# Resuming with another budget; a budget of nothing.
fresh
cp bad/metrics.jsonl lines
echo '{"step": 1, broken' >bad/metrics.jsonl
refuse 1 'metrics\.jsonl:1: not a line of JSON.*move the file away' train bad --resume --set train.epochs=1.5
rm bad/metrics.jsonl # as it says
refuse 1 'bad/recipe.yaml: the recipe of a run; `lowbit train bad --resume`' train bad/recipe.yaml
succeed train bad --resume -q
succeed train bad --resume --set train.epochs=1.5 -q
fresh
succeed train tiny.yaml --out counted --set train.steps=2 -q
succeed train counted --resume
complains 'trained to its end already; a larger train\.steps continues it'
refuse 1 'has done 2 steps.* only 1; was train\.steps, ' train counted --resume --set train.steps=1
succeed train bad --resume
complains 'trained to its end already; a larger train\.epochs continues it'
refuse 1 'bad/last\.safetensors: has done 2 steps.* only 1; .*train\.epochs' train tiny.yaml --set train.epochs=0.5 --out bad --resume
refuse 1 'bad/recipe\.yaml says train\.batch: 32, but the recipe to resume with 16; only the budget and' train tiny.yaml --set train.batch=16 --set train.epochs=2 --out bad --resume
succeed train tiny.yaml --set train.epochs=2 --out bad --resume -q
succeed train tiny.yaml --set train.epochs=0 --out idle
says '^idle: no training'
check "there is nothing to evaluate" "$(grep -c next: err)" = 0
succeed train tiny.yaml --output seeded --seed 7 --set train.seed=8 --set train.epochs=0
expect 0 grep -q '^  seed: 8$' seeded/recipe.yaml # the last of them counts
succeed train tiny.yaml --out seeded --set train.seed=8 --seed 7 --set train.epochs=0
expect 0 grep -q '^  seed: 7$' seeded/recipe.yaml
(cat tiny.yaml && echo 'stages: [{name: a, train: {steps: 1}}, {name: b, train: {epochs: 0}, quant: {weights: {bits: 1}}}]') >skip.yaml
succeed train skip.yaml --out skip
complains 'warning: stage b: its budget is 0 steps'
check "only what is trained is told" "$(grep -c ^quantization: err)" = 1

# What a later stage cannot do is said before the first one is trained, by what looks at the recipe too.
later() {
    (cat tiny.yaml && printf 'stages: [{name: a}, {name: low, %s}, {name: d}]\n' "$2") >later.yaml
    refuse 1 "stage low: .*$1" train later.yaml --out later
    check "nothing was begun ($1)" ! -e later
}
later 'twn.* bits' 'quant: {weights: {method: twn, bits: 3}}'
refuse 1 'stage low: .*twn.* bits' inspect later.yaml
refuse 1 'stage low: .*twn.* bits' bench later.yaml
later 'layer9.*matches no' 'quant: {layers: [{match: layer9.*, weights: {bits: 4}}]}'
refuse 1 'stage low: .*layer9.*matches no' inspect later.yaml
later 'only 64 training images' 'train: {batch: 65}'
later 'train\.init: nowhere: no such run' 'train: {init: nowhere}'
later 'distill\.teacher: nowhere: no such run' 'distill: {from: teacher, teacher: nowhere}'
later 'network 3bit: .*twn' 'quant: {weights: {method: twn}}, distill: {from: twin, students: [3]}'
later 'students: 4 bits are given twice' 'distill: {from: twin, students: [4, 4]}'
later 'features: .*matches no' 'distill: {from: twin, features: layer9.*}'
(cat tiny.yaml && echo 'stages: [{name: a, train: {epochs: 1}}, {name: b, train: {epochs: 1, init: own/best.safetensors}}]') >own.yaml
succeed train own.yaml --out ./own -q # which the first stage writes

# ---- Packed models --------------------------------------------------------------------------------------------------
readers() {
    refuse 1 "$1" eval "$2"
    refuse 1 "$1" inspect "$2"
    refuse 1 "$1" bench "$2"
    refuse 1 "$1" run "$2" --test 1
}
readers 'nothere\.lbm' nothere.lbm
head -c 2000 /dev/urandom >noise.lbm
readers 'noise\.lbm' noise.lbm
: >zero.lbm
readers 'zero\.lbm' zero.lbm
refuse 1 'run: a directory; its packed model is run/model\.lbm' run run --test 1
refuse 1 'run: a directory; its packed model is run/model\.lbm' codegen run -o nothing
cp noise.lbm net.onnx
readers 'net\.onnx: .*lowbit import' net.onnx
refuse 1 'net\.onnx: .*lowbit import' verify net.onnx
refuse 1 '/dev/zero: not a packed model' eval /dev/zero
OMP_STACKSIZE=8192G refuse 1 'cannot start 64 threads: .*; ask for fewer' bench kept/model.lbm --threads 64
OMP_STACKSIZE=8192G refuse 1 'cannot start 64 threads: .*; ask for fewer' train tiny.yaml --threads 64 --out threads -q
size=$(stat -c %s kept/model.lbm)
for keep in 3 8 64 $((size / 2)) $((size - 1)); do
    head -c $keep kept/model.lbm >cut.lbm
    refuse 1 'cut\.lbm' eval cut.lbm
done
for at in 0 4 8 16 40 $((size / 3)) $((size / 2)) -1; do
    cp kept/model.lbm altered.lbm
    "$HELPER" flip altered.lbm $at
    refuse 1 'altered\.lbm' eval altered.lbm
done
refuse 1 'altered\.lbm' verify altered.lbm
mkdir apart # no run is there: what is wrong with the file comes first
cp altered.lbm cut.lbm apart/ && : >apart/empty.lbm && cp kept/model.lbm apart/
refuse 1 'apart/altered\.lbm: .*(checksum|altered|damaged)' verify apart/altered.lbm
refuse 1 'apart/cut\.lbm: .*truncated' verify apart/cut.lbm
refuse 1 'apart/empty\.lbm: an empty file' verify apart/empty.lbm
refuse 1 'apart/model\.lbm: verifying compares with the trained weights, but apart is not a run' verify apart/model.lbm

# ---- Images ---------------------------------------------------------------------------------------------------------
"$HELPER" folder images 4 4
refuse 1 'nothere\.png' run run/model.lbm nothere.png
succeed run <(cat run/model.lbm) images/train/level/0000.png
refuse 1 'tiny\.yaml' run run/model.lbm tiny.yaml
head -c 60 images/train/level/0000.png >cut.png
refuse 1 'cut\.png' run run/model.lbm cut.png
expect 1 lowbit run run/model.lbm cut.png images/train/level/0000.png # the good one is classified
says '0000\.png'
expect 1 lowbit run run/model.lbm --test 100000
complains 'no test image ([0-9]+): the \1 in use of .* counted from 0'
expect 1 lowbit run run/model.lbm cut.png images/train/level/0000.png --json
json images.0.name
cp images/train/level/0000.png $'caf\xe9.png' # a name that is not UTF-8
succeed run run/model.lbm $'caf\xe9.png' --json
json images.0.name
says '"caf\?\.png"'
cp -r run $'run\xe9'
succeed compare $'run\xe9' --json
says '"run\?"'

# On a terminal images are drawn, in characters where there are no colours.
if command -v script >/dev/null; then
    for plain in NO_COLOR=1 "NO_COLOR= TERM=dumb"; do
        expect 0 script -qec "env $plain '$LOWBIT' run run/model.lbm --test 1" /dev/null
        check "lines of a drawing ($plain)" "$(wc -l <out)" -ge 7
        check "no colours ($plain)" "$(grep -c $'\033\\[' out)" -eq 0
    done
else
    echo "skipped: drawing on a terminal (there is no script)"
fi
succeed run run/model.lbm --test 1
check "no drawing elsewhere" "$(wc -l <out)" -eq 2
succeed compare run --json
check "the seed is a number" "$("$HELPER" json out runs.0.seed)" = 1
says '"seed": ?1[,}]'
refuse 1 "its images have 3 channels, but .* takes 1; pass data with 1" eval run --data images
expect 1 "$BUILD/example_classify" nothere.lbm image
complains 'nothere\.lbm: No such file'

# ---- Disks ----------------------------------------------------------------------------------------------------------
echo old >file
refuse 1 'file' train tiny.yaml --out file
refuse 1 'file/sub' train tiny.yaml --out file/sub
refuse 1 'file/model\.lbm' pack run -o file/model.lbm
refuse 1 'nodir/model\.lbm' pack run -o nodir/model.lbm
refuse 1 'file: .*not a packed model; .*-o' pack run -o file
refuse 1 'run/recipe\.yaml: .*not a packed model' pack run -o run/recipe.yaml
refuse 1 '/dev/full' pack run -o /dev/full/model.lbm
for verb in pack export; do # nothing is read back from them, and what is printed does not follow the file in them
    for device in /dev/null /dev/full; do
        refuse 1 "$device: not a file but a pipe or a device; name a file" $verb run -o $device
    done
    expect 1 timeout 60 bash -c "\"\$LOWBIT\" $verb run -o /dev/stdout | cat; exit \${PIPESTATUS[0]}"
    complains '/dev/stdout: not a file but a pipe'
    check "nothing was printed" ! -s out
    refuse 1 'run: a directory; name a file in it' $verb run -o run
done
check "the file is intact" "$(cat file)" = old
for verb in eval verify inspect; do
    expect 1 bash -c "\"\$LOWBIT\" $verb run -q >/dev/full"
    complains 'lowbit: error: standard output: .*No space left'
done
mkdir other-files other-files/kernels
refuse 1 'other-files: has files that lowbit codegen did not make' codegen run/model.lbm -o other-files
# A disk that fills up: generated C can be written again once there is room.
expect 0 bash -c 'trap "" XFSZ; (ulimit -f 0; "$LOWBIT" codegen run/model.lbm -o c -q) 2>&1 | cat'
says '^lowbit: error: c/model\.h'
succeed codegen run/model.lbm -o c -q
# A disk that fills up: files may not grow beyond 4 blocks of 1024 bytes.
cp kept/model.lbm old.lbm
expect 1 bash -c 'trap "" XFSZ; ulimit -f 4; "$LOWBIT" pack run -q -o old.lbm'
complains '^lowbit: error: .*old\.lbm'
check "the old model is intact" "$(cksum <old.lbm)" = "$(cksum <kept/model.lbm)"
expect 1 bash -c 'trap "" XFSZ; ulimit -f 4; "$LOWBIT" train tiny.yaml --out full --set train.epochs=1 -q'
complains '^lowbit: error: .*full'
# Memory that runs out, in the code generator too: an error line or success, never a crash.
if ! grep -q __asan_init "$LOWBIT"; then
    for limit in 100000 120000 140000; do
        rm -rf scarce
        (ulimit -v $limit; "$LOWBIT" list models) >out 2>&1 || continue # not even enough to be loaded
        (ulimit -v $limit; "$LOWBIT" train tiny.yaml --out scarce --threads 1 --set train.steps=1 -q) >out 2>err
        check "the exit status at $limit KB is not a signal's" $? -le 1
    done
fi
if [ "$(id -u)" -ne 0 ]; then
    mkdir locked && chmod 555 locked
    refuse 1 'locked.*permission' train tiny.yaml --out locked/run
    refuse 1 'locked.*permission' pack run -o locked/model.lbm
fi
intact "all this"
finish
