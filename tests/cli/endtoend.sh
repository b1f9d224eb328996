#!/usr/bin/env bash
# The main job on part of Fashion-MNIST: train, stop, resume, evaluate, pack, verify, run, inspect, compare, bench.
. "$(dirname "$0")/lib.sh"
# Checksum of all tensors: what follows a safetensors file's length and header (which tells the time spent).
weights() { tail -c +$((9 + $(od -An -t u8 -N 8 "$1"))) "$1" | cksum; }

cat >small.yaml <<END
model: {name: lenet5}
data: {name: fashion-mnist, train_limit: 1280, test_limit: 500}
train:
  epochs: 3
  batch: 64
  eval_batch: 100
  optimizer: {name: adam, lr: 0.002}
quant:
  weights: {method: dorefa, bits: 2}
  activations: {method: dorefa, bits: 2}
END

succeed train small.yaml
says '^runs/small: best [0-9.]+ % top-1 \(epoch [1-3] of 3\), last [0-9.]+ %$'
for file in recipe.yaml last.safetensors best.safetensors metrics.jsonl; do
    check "the run has $file" -s runs/small/$file
done
check "three epochs are logged" "$(grep -c '"event": *"epoch"' runs/small/metrics.jsonl)" -eq 3
check "TensorBoard events" -n "$(ls runs/small | grep tfevents)"
check "no bar off the terminal" -z "$(tr -cd '\r\033' <err)"

# The same again, stopped by a signal, and resumed: the same bits. So is a run of the resolved recipe.
"$LOWBIT" train small.yaml --out stopped >out 2>err &
child=$!
for i in $(seq 600); do
    [ -s stopped/metrics.jsonl ] && grep -q epoch stopped/metrics.jsonl && break
    sleep 0.05
done
kill -TERM $child
status=0
wait $child || status=$?
if [ $status -ne 0 ]; then # it may have been faster than the signal
    last="train, stopped"
    check "it ended by the signal, having saved" $status -eq $((128 + 15))
    complains '^lowbit: error: interrupted.*continue with: [^ ]*lowbit train stopped --resume$'
    check "a checkpoint was saved" -s stopped/last.safetensors
    succeed train stopped --resume -q
fi
check "resumed to the same bits" "$(weights stopped/last.safetensors)" = "$(weights runs/small/last.safetensors)"
succeed train runs/small/recipe.yaml --out again -q
check "the resolved recipe repeats the run" "$(weights again/best.safetensors)" = "$(weights runs/small/best.safetensors)"
# A run's own recipe never makes a run called "recipe".
refuse 1 'runs/small/recipe.yaml: the recipe of a run; `lowbit train runs/small --resume` continues it, --out' train runs/small/recipe.yaml
expect 1 bash -c 'cd runs/small && "$LOWBIT" train recipe.yaml'
complains 'error: recipe.yaml: the recipe of a run; `lowbit train \. --resume`'
check "nothing was made" ! -e runs/recipe -a ! -e runs/small/runs
succeed train again/recipe.yaml --resume
complains "again: trained to its end already"
cp runs/small/recipe.yaml recipe.yaml # but one that lies in no run is a recipe like others
succeed train recipe.yaml --set train.epochs=0.1 -q
check "the run is called after the file" -s runs/recipe/last.safetensors
succeed train small.yaml --out runs/small --resume # a finished run has nothing left to do
complains "runs/small: trained to its end already"
check "nothing was trained again" "$(grep -c '"event": *"epoch"' runs/small/metrics.jsonl)" -eq 3

succeed eval runs/small
says '^top-1 [0-9.]+ %  top-5 [0-9.]+ %  loss [0-9.]+  on 500 images$'
succeed eval runs/small --json
json top1 top5 loss images
check "500 images" "$(value images)" -eq 500
top1=$(value top1)
check "better than chance by far" "${top1%.*}" -gt 40

succeed pack runs/small -o model.lbm
says '^model\.lbm: [0-9,]+ bytes; in float [0-9,]+ bytes; [0-9.]+ times smaller$'
succeed pack runs/small
check "the default place" "$(cksum <runs/small/model.lbm)" = "$(cksum <model.lbm)"
succeed eval model.lbm --json
json top1 top5 loss images
check "the packed model is as accurate" "$(value top1)" = "$top1"
succeed eval model.lbm --data fashion-mnist

# Packing needs the run alone, not its data.
mkdir elsewhere
cp runs/small/best.safetensors elsewhere
sed 's/fashion-mnist/mnist/' runs/small/recipe.yaml >elsewhere/recipe.yaml
succeed pack elsewhere -o elsewhere/model.lbm
check "as many bytes as with the data" "$(stat -c %s elsewhere/model.lbm)" -eq "$(($(stat -c %s model.lbm) - 8))" # name: 8 letters less
refuse 1 'data set mnist not found' eval elsewhere

for path in runs/small runs/small/model.lbm; do
    succeed verify $path --json
    json images equal paths
    check "equal" "$(value equal)" = true
    check "every image" "$(value images)" -eq 500
    json paths.ref.equal paths.ref.predictions_equal paths.ref.max_abs_diff
    check "ref predicts what the trainer does" "$(value paths.ref.predictions_equal)" -eq 500
    check "generated C too" "$(value paths.c.equal)" -eq 500
done
succeed verify runs/small
says '^ref '
says '^c  *500 '
says '^equal on 500 images$'
expect 0 env CC=/nowhere/cc "$LOWBIT" verify runs/small
complains '^lowbit: warning: generated C is not verified: there is no C compiler'
check "the table does without" -z "$(grep '^c ' out)"
expect 1 env CC=false "$LOWBIT" verify runs/small
complains '^lowbit: error: compiling the generated C failed'

for path in runs/small model.lbm small.yaml; do
    succeed inspect $path --json
    json layers bytes float_bytes layers.0.name layers.0.op layers.0.weight_bits layers.0.activation_bits layers.0.weights \
        layers.0.macs layers.0.bytes
    check "smaller than float" "$(value bytes)" -lt "$(value float_bytes)"
    succeed inspect $path
    says '^total '
done
succeed inspect model.lbm --json
check "the packed model's bytes" "$(value bytes)" -eq "$(stat -c %s model.lbm)"

succeed run model.lbm --test 3
says '^test image 2: .* [0-9.]+ % \((right|wrong), it is '
says '^[0-3] of 3 right$'
succeed run model.lbm --test 2 --draw
says '[@%#*+=]{3}'
succeed run model.lbm --test 3 --json
json images.2.class images.2.name images.2.score images.2.scores.9 images.2.truth
"$HELPER" folder images 8 4
succeed run model.lbm images/train/*/*.png
check "a line per image" "$(wc -l <out)" -eq 8
# One output is a number.
mkdir -p number/train number/test
cp -r images/train/level number/train
cp -r images/test/level number/test
cat >number.yaml <<'END'
model: {name: lenet5}
data: {name: folder, path: number, size: 16}
train: {steps: 1, batch: 2}
quant: {weights: {method: lsq, bits: 4}, activations: {method: lsq, bits: 4}}
END
succeed train number.yaml --out number-run
succeed pack number-run -o number.lbm
succeed run number.lbm number/test/level/*.png
says '^number/test/level/[^ ]*: -?[0-9][0-9.e-]*$'

succeed bench model.lbm --runs 5
says '^inference: median [0-9.]+ ms'
succeed bench model.lbm --runs 5 --batch 3 --json
json latency_ms.min latency_ms.median cpu_ms images_per_s threads batch
check "the batch" "$(value batch)" -eq 3
succeed bench model.lbm --profile --runs 3 --isa ref
says '^layer +op +kernel +ms'
says ' conv +ref '
succeed bench model.lbm --profile --runs 3 --json
json ms gops peak_gops layers.0.name layers.0.op layers.0.kernel layers.0.ms layers.0.gops
succeed bench small.yaml --steps 5
says '^training: [0-9,]+ images/s'
succeed bench small.yaml --steps 5 --threads 1 --json
json images_per_s step_ms peak_rss_mb precision eval_images_per_s eval_cpu_ms start_s threads batch
succeed bench small.yaml --steps 5 --profile
says '^convolutions +[0-9.]+'
says '^evaluation: [0-9,]+ images/s; first step done after [0-9.]+ s'
succeed bench small.yaml --steps 5 --profile --json
json profile.peak_gflops profile.copy_gb_per_s profile.operators.0.name profile.operators.5.forward.bound_ms

succeed train small.yaml --out seed2 --seed 2 --set train.epochs=1 -q
succeed train small.yaml --out seed3 --seed 3 --set train.epochs=1 -q
succeed compare runs/small stopped seed2 seed3
says '^runs/small +lenet5 +dorefa +W2A2 +1 +3 '
says '^[^ ]+ \.\.\.: lenet5 dorefa W2A2: [0-9.]+ ± [0-9.]+ % over 2 seeds$'
succeed compare runs/small seed2 seed3 --json
json runs.0.best_top1 runs.0.packed_bytes groups.0.mean_top1 groups.0.spread groups.0.seeds
finish
