#!/usr/bin/env bash
# Networks from ONNX files: what comes in is what went out, it trains, packs and verifies, and nothing is destroyed.
. "$(dirname "$0")/lib.sh"
"$HELPER" idx good 64 32
tiny good
succeed train tiny.yaml --out floats --set train.epochs=1 --set quant.weights.method=none --set quant.activations.method=none -q
succeed export floats -o net.onnx --format float
succeed import net.onnx -o in --data good
says '^in: 22 layers, [0-9,]+ parameters, images of 12x12x1, 4 classes$'
complains 'next: [^ ]*lowbit eval in'
for file in net.onnx recipe.yaml last.safetensors; do check "in/$file" -s in/$file; done
expect 0 grep -q '^  size: 12$' in/recipe.yaml # what images of other sizes become
check "the graph has no weights" "$(stat -c %s in/net.onnx)" -lt 40000

succeed import net.onnx --out seeded --data good --seed 7 --json
json run parameters channels added_norms
check "what came in" "$(value layers) $(value height) $(value width) $(value classes)" = "22 12 12 4"
expect 0 grep -q '^  seed: 7$' seeded/recipe.yaml

# The same accuracy; the normalisation came along.
succeed eval floats --json
top1=$(value top1)
succeed eval in --json
check "the same accuracy" "$(value top1)" = "$top1"
expect 0 grep -q 'init: in$' in/recipe.yaml
succeed compare in
says '^in +onnx +none +float +1 +0 +0.0 +- '

# Another method, from these weights.
refuse 1 'in/recipe.yaml: the recipe of a run that is not trained yet; --out DIR' train in/recipe.yaml
refuse 1 'in/last.safetensors: no training to resume, .*recipe.yaml with another --out' train in/recipe.yaml --resume
refuse 1 'in/last.safetensors: no training to resume' train in --resume
succeed train in/recipe.yaml --out low --set train.epochs=1 --set train.batch=32 --set quant.weights.method=lsq --set quant.activations.method=lsq -q
check "its own graph" -s low/net.onnx
succeed pack low
succeed verify low
says 'equal on 32 images'
succeed train in/recipe.yaml --out low --resume --set train.epochs=2 --set train.batch=32 --set quant.weights.method=lsq --set quant.activations.method=lsq -q
succeed train in/recipe.yaml --out pair --set train.epochs=1 --set train.batch=32 --set quant.weights.method=lsq \
    --set quant.activations.method=lsq --set distill.from=twin --set distill.students=[4] -q
mkdir moved && mv low in moved/
succeed eval moved/low
mkdir alone && mv pair/4bit pair/twin alone/ && rm -r pair # what was trained beside a run has graphs of its own, too
succeed pack alone/4bit
succeed verify alone/4bit
succeed eval alone/twin
succeed train moved/low --resume --set train.epochs=3 -q
succeed train moved/low --resume --set train.total_epochs=4 -q # a budget too
succeed eval moved/in
refuse 1 'moved/low/net.onnx: .*choose another name' export moved/low -o moved/low/net.onnx
succeed export floats -o floats/net.onnx # but this run has no graph
succeed eval floats
succeed train floats --resume --set train.epochs=2 -q
succeed export moved/low -o again.onnx
succeed import again.onnx -o unrounded --data good # the float network in a quantized one
complains 'a quantized network; import takes the float one'
succeed eval unrounded
succeed train unrounded/recipe.yaml --out lower --set train.steps=2 --set train.batch=32 --set quant.weights.method=lsq --set quant.activations.method=lsq -q
succeed list models
says '^onnx '

# Nothing is overwritten, and what is wrong is said.
before=$(fingerprint moved/in)
refuse 1 'moved/in: a run is there already' import net.onnx -o moved/in
check "nothing changed" "$(fingerprint moved/in)" = "$before"
refuse 2 '-o RUN is missing' import net.onnx
refuse 2 'NET.onnx is missing' import -o new
refuse 1 'net.onnx: 1 channel and 4 classes are of no data set.*--data PATH' import net.onnx -o new
succeed train tiny.yaml --out ten --set data.name=fashion-mnist --set data.path= --set data.train_limit=64 \
    --set data.test_limit=32 --set train.steps=1 --set quant.weights.method=none --set quant.activations.method=none -q
succeed export ten -o ten.onnx --format float
succeed import ten.onnx -o guessed
complains 'fashion-mnist guessed from 1 channel and 10 classes'
printf 'PK\003\004 what torch.save writes' >net.pt
refuse 1 'net.pt: a zip archive.*torch.onnx.export' import net.pt -o new
refuse 1 'nothere.onnx' import nothere.onnx -o new
refuse 1 'tiny.yaml: not an ONNX model' import tiny.yaml -o new
refuse 1 'has no data' import moved/in/net.onnx -o new
refuse 1 'train.schedule.gamma.* read only with train.schedule.name step or multistep' import net.onnx -o new --data good --set train.schedule.gamma=0.5
check "nothing was made of it" ! -e new
succeed import net.onnx -o stepped --data good --set train.schedule.gamma=0.5 --set train.schedule.name=step --set train.steps=7
expect 0 grep -q '^    gamma: 0.5$' stepped/recipe.yaml
expect 0 grep -q '^  steps: 7$' stepped/recipe.yaml # instead of import's own epochs
refuse 1 'data.nome' import net.onnx -o new --set data.nome=cifar10
refuse 1 'data.name: the images of cifar10 have 3 channels, but the network takes 1' import net.onnx -o new --data cifar10
refuse 1 "'cifar11' is neither a known data set" import net.onnx -o new --data cifar11
head -c 1000 net.onnx >cut.onnx
refuse 1 'cut.onnx: .*(cut off|damaged)' import cut.onnx -o new
succeed export moved/low -o rounded.onnx --format float
succeed export moved/low -o qonnx.onnx --format qonnx
refuse 1 "Round.*only quantized networks" import rounded.onnx -o new
refuse 1 "Quant.*only quantized networks" import qonnx.onnx -o new
check "no directory is left" ! -e new
mkdir own
for blocks in 0 4 40; do # a disk that fills up
    for dir in new new/deep/er own; do
        expect 1 bash -c "trap '' XFSZ; (ulimit -f $blocks; \"\$LOWBIT\" import net.onnx -o $dir --data good -q) 2>&1 | cat; exit \${PIPESTATUS[0]}"
        says "^lowbit: error: $dir/.*: cannot write: File too large"
    done
    check "no directory is left ($blocks blocks)" ! -e new
    check "nothing is left ($blocks blocks)" -d own -a -z "$(ls -A own)"
done
refuse 1 'model.path' train tiny.yaml --out new --set model.name=onnx --set model.width=1
refuse 1 'nothere' train tiny.yaml --out new --set model.name=onnx --set model.width=1 --set model.path=nothere
refuse 1 'width' train moved/in/recipe.yaml --out new --set model.path=net.onnx --set model.width=2 --set train.init=
finish
