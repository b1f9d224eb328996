#!/usr/bin/env bash
# Recipes that are wrong: one line each, with file:line, the nearest key or the choices, and nothing written.
. "$(dirname "$0")/lib.sh"
"$HELPER" idx data4 64 32
tiny data4

# bad LINE PATTERN: the recipe with this flow-style line appended is refused at its line.
bad() {
    cp tiny.yaml bad.yaml
    printf '%s\n' "$1" >>bad.yaml
    refuse 1 "bad\.yaml:$(wc -l <bad.yaml): .*$2" train bad.yaml
}
# reset KEY=VALUE PATTERN: the same through --set.
reset() { refuse 1 "$2" train tiny.yaml --set "$1"; }

refuse 1 'missing\.yaml.*(no such file|cannot)' train missing.yaml
mkdir folder.yaml
refuse 1 'folder\.yaml' train folder.yaml
: >empty.yaml
expect 1 lowbit train empty.yaml --set data.path=nowhere
bad 'trian: {epochs: 3}' 'trian.*did you mean .*train'
bad 'distil: 3' 'distil'
bad '  a: [1' ''
bad $'\tx: 1' ''
printf 'model: {name: resnet20}\nmodel: {name: lenet5}\n' >twice.yaml
refuse 1 'twice\.yaml:2: .*model' train twice.yaml
printf 'just a text\n' >text.yaml
refuse 1 'text\.yaml' train text.yaml
head -c 3000 /dev/urandom >binary.yaml
refuse 1 'binary\.yaml' train binary.yaml

reset train.epoch=3 'train\.epoch.*did you mean .*epochs'
reset quant.weight.bits=2 'quant\.weight.*did you mean .*weights'
reset train.epochs=many 'train\.epochs.*(number|many)'
reset train.epochs=-1 'train\.epochs.*-1'
reset train.batch=1.5 'train\.batch.*1\.5'
reset train.batch=0 'train\.batch'
reset data.augment.flip=perhaps 'flip.*(true|false)'
reset quant.weights.bits=9 'bits.*9'
reset quant.weights.method=dorefaa 'method.*dorefa'
reset train.optimizer.name=sdg 'optimizer\.name.*sgd'
reset model.name=resnet21 'resnet21.*did you mean .*resnet20'
reset quant.weights.threshold=0.5 'threshold'
reset train.optimizer.momentum=0.8 'momentum'
reset train=3 'train'

# Combinations that make no sense, and shapes that do not fit (both layers are named).
reset quant.activations.method=twn 'twn'
refuse 1 '[0-9]+ ?x ?[0-9]+' train tiny.yaml --set model.name=lenet5 --set model.width=1 --set model.input_size=4

for verb in inspect bench; do
    refuse 1 'missing\.yaml' $verb missing.yaml
    cp tiny.yaml bad.yaml
    printf 'trian: 3\n' >>bad.yaml
    refuse 1 'bad\.yaml:[0-9]+: .*trian' $verb bad.yaml
done
# What ready recipes start or learn from is where another one leaves it, and an error says how to make it.
grep -rhoE '(init|teacher): runs/[^ ]+' "$SOURCE/recipes" | sed 's,.*runs/,,' | sort -u >starts
while read -r run; do
    check "a recipe leaves runs/$run" -e "$SOURCE/recipes/cifar10/$run.yaml"
done <starts
check "some recipes start from others" -s starts
reset train.init=runs/none 'train\.init: runs/none: .*lowbit train RECIPE --out runs/none'

check "no run directory came of it" ! -e runs
finish
