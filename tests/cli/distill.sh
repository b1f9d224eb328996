#!/usr/bin/env bash
# Distillation from the user's side: from a finished run, and beside a float twin; every low-bit network packs and verifies.
. "$(dirname "$0")/lib.sh"
"$HELPER" idx data4 64 32
tiny data4

succeed train tiny.yaml --set quant.weights.method=none --set quant.activations.method=none --out teacher
succeed train tiny.yaml --set distill.from=teacher --set distill.teacher=teacher --set 'distill.features=layer2.*.conv2' --out student
complains 'quantization of teacher: weights: float'
succeed pack student
succeed verify student --json
check "the student's packed model computes what was trained" "$(value equal)" = true
mv teacher elsewhere
succeed eval student

for precision in f32 bf16; do
    succeed train tiny.yaml --set "train.precision=$precision" --set distill.from=twin --set distill.students=[4] --out "both-$precision"
    complains '4bit +[0-9.]+ %  twin +[0-9.]+ %'
    for run in "both-$precision" "both-$precision/4bit"; do
        succeed pack "$run"
        succeed verify "$run" --json
        check "$run packed computes what was trained" "$(value equal)" = true
    done
    succeed eval "both-$precision/twin"
done
check "further students have their own bits" "$(stat -c %s both-f32/4bit/model.lbm)" -gt "$(stat -c %s both-f32/model.lbm)"

# Stages, of which the first leaves activations in float: a student's own recipe has its bits all the same.
(cat tiny.yaml && printf '%s\n' 'stages:' '  - {name: weights, quant: {activations: {method: none}}}' '  - {name: both}') >stages.yaml
succeed train stages.yaml --set train.epochs=1 --set distill.from=twin --set distill.students=[4] --out staged -q
succeed compare staged/4bit --json
check "the student's activations have its bits" "$(value runs.0.bits)" = W4A4
succeed eval staged/4bit

# Runs that differ in the seed alone, their own and in the path of what they learn from, are a group; the others are rows of their own.
for seed in 1 2; do
    cp -r student "from-seed$seed"
    sed -i "s/^  seed: .*/  seed: $seed/; s/^  teacher: .*/  teacher: runs\/teacher-seed$seed/" "from-seed$seed/recipe.yaml"
done
succeed compare from-seed1 from-seed2 both-f32/4bit --json
check "two seeds are one group" "$(value groups.0.seeds)" = 2
check "a student can be compared" "$(value runs.2.bits)" = W4A4
sed -i 's/teacher-seed2/teacher-seed3/' from-seed2/recipe.yaml
succeed compare from-seed1 from-seed2 ./from-seed1/ --json
check "a run that is named twice counts once" "$(value runs)" = 2
check "another teacher is another recipe" "$(value groups)" = 0

refuse 1 'distill\.teacher.*read only with distill\.from teacher' train tiny.yaml --set distill.teacher=x
refuse 1 'a teacher needs distill\.teacher' train tiny.yaml --set distill.from=teacher
refuse 1 'no such run directory' train tiny.yaml --set distill.from=teacher --set distill.teacher=nowhere --out x
refuse 1 'whole numbers of bits' train tiny.yaml --set distill.from=twin --set distill.students=[2.5]
refuse 1 'must be 1 to 8, not 9' train tiny.yaml --set distill.from=twin --set distill.students=[9]
finish
