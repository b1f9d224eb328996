#!/usr/bin/env bash
# What compare says of runs: whose accuracy it is, which of them count as seeds, and names that would break a table.
. "$(dirname "$0")/lib.sh"
"$HELPER" idx good 64 32
tiny good

# A last stage without a budget is never evaluated: the accuracy of the stage before is not its.
cat tiny.yaml - >stages.yaml <<'END'
stages:
  - {name: float, quant: {weights: {method: none}, activations: {method: none}}}
  - {name: low, train: {epochs: 0}}
END
succeed train stages.yaml --out stages --threads 1
says '^stages: no evaluation: the last stage.s budget is 0 steps$'
succeed compare stages --json
json runs.0.epochs
check "no accuracy of another network" "$(value runs.0.best_top1)" = null

# Seeds: finished runs, each seed once.
succeed train tiny.yaml --out one --threads 1 -q
succeed train tiny.yaml --out two --threads 1 --seed 2 -q
cp -r one again
succeed compare one again
check "one seed has no spread" "$(grep -c 'over' out)" = 0
succeed compare one again two --json
check "two seeds" "$(value groups.0.seeds)" = 2
check "which they are" "$(value groups.0.runs.0) $(value groups.0.runs.1)" = "one two"
sed -i '/"done"/d' two/metrics.jsonl
succeed compare one two
says '^two .*\(unfinished\)'
check "an unfinished run has no place in a mean" "$(grep -c 'over' out)" = 0

# A name is one cell of the table, whatever it holds.
cp -r one $'a\tb\nc'
succeed compare $'a\tb\nc'
says '^a\?b\?c +resnet20 '
long=$(printf '%0200d/' 0 1 2 3 4 5)
mkdir -p "$long"
mv again "$long/last"
succeed compare "$long/last"
says '/last +resnet20 .*[0-9]$'

# Messages do not go into the files of a run, whatever streams are closed.
for closed in '2>&- >&-' '<&- 2>&-' '<&- >&- 2>&-'; do
    rm -rf quiet
    eval '"$LOWBIT" train tiny.yaml --out quiet --threads 1 '"$closed"
    succeed compare quiet
    check "no words in the log with $closed" "$(grep -L quantization quiet/* | wc -l)" -eq "$(ls quiet | wc -l)"
done
refuse 1 'no such run directory' compare ./-none
succeed train tiny.yaml --out -dash --threads 1
complains '^next: [^ ]*lowbit eval \./-dash, then [^ ]*lowbit pack \./-dash$'

# Temporary files of killed processes go.
touch one/recipe.yaml.tmp.1.0 one/metrics.jsonl.tmp.1.0 one/last.safetensors.tmp.1.0
succeed train one --resume --set train.epochs=3 --threads 1 -q
check "leftovers are gone" "$(ls one | grep -c tmp)" = 0
finish
