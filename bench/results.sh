#!/usr/bin/env bash
# Trains, packs and compares every run of one table of accuracies: make results-NAME. Arguments: the program, the table.
# A table is bench/results/NAME.txt: a line "run recipe [key=value]..." each; "@run" in a value is that run's directory of the same seed, and
# "lengths=@run" gives the layers the bits that run has learned.
# Runs lie in runs/results/NAME/RUN-seedN. Finished ones are skipped, interrupted ones resumed, so that a table can be continued at any time.
# SEEDS="1 2" chooses the seeds, RUNS="a b" some of the rows, EPOCHS=10 another number of epochs for every row, all its stages together
# (the runs lie in runs/results-10-epochs), THREADS=1 the threads, ROOT=DIR another place, SET="key=value ..." more settings for every row.
set -euo pipefail
cd "$(dirname "$0")/.."
lowbit=$1
name=$2
table=bench/results/$name.txt
# shellcheck source=bench/runs.sh
. bench/runs.sh
root=$root/$name
fail() {
    echo "lowbit: error: $*" >&2
    exit 1
}
if [ ! -e "$table" ]; then
    fail "there is no table '$name'; there are: $(cd bench/results && ls ./*.txt | sed 's,^\./,,; s/\.txt$//' | tr '\n' ' ')"
fi
rows=$(sed 's/#.*//' "$table" | awk 'NF { print $1 }' | tr '\n' ' ')
for run in ${RUNS:-}; do
    case " $rows" in *" $run "*) ;; *) fail "$table has no row '$run'; it has: $rows" ;; esac
done

# directory_of ROW SEED RUN: where the row's run lies that another one starts or learns from.
directory_of() {
    [ -e "$root/$1-seed$2/last.safetensors" ] ||
        fail "row '$3' needs row '$1' with the same seed, which has not been trained: RUNS=\"$1 $3\""
    echo "$root/$1-seed$2"
}

directories=()
one_run() {
    local run=$1 recipe=$2 seed=$3 setting other dir file=recipes/$2.yaml options=()
    shift 3
    [ -z "${THREADS:-}" ] || options+=(--threads "$THREADS")
    [ -z "${EPOCHS:-}" ] || options+=(--set "train.total_epochs=$EPOCHS")
    dir=$root/$run-seed$seed
    directories+=("$dir")
    for setting in "$@"; do
        case $setting in
        lengths=@*) # the recipe ends with its quant section
            other=$(directory_of "${setting#*=@}" "$seed" "$run")
            { cat "recipes/$recipe.yaml" && "$lowbit" inspect --rules "$other"; } >"$dir.yaml"
            file=$dir.yaml
            ;;
        *=@*)
            other=$(directory_of "${setting#*=@}" "$seed" "$run")
            options+=(--set "${setting%%=@*}=$other")
            ;;
        *) options+=(--set "$setting") ;;
        esac
    done
    [ ! -e "$dir/last.safetensors" ] || options+=(--resume)
    if ! done_training "$dir"; then
        [ -e "$dir/last.safetensors" ] || rm -f "$dir/recipe.yaml" "$dir/metrics.jsonl" # stopped before its first checkpoint
        echo "== $dir"
        "$lowbit" train "$file" --seed "$seed" --out "$dir" "${options[@]}"
    fi
    [ -e "$dir/model.lbm" ] || "$lowbit" pack "$dir" -o "$dir/model.lbm" --quiet
}

while read -r run recipe settings; do
    case ${run:-#} in '#'*) continue ;; esac
    case " ${RUNS:-$run} " in *" $run "*) ;; *) continue ;; esac
    for seed in ${SEEDS:-1 2}; do
        # shellcheck disable=SC2086
        one_run "$run" "$recipe" "$seed" $settings ${SET:-} </dev/null
    done
done <"$table"
"$lowbit" compare "${directories[@]}"
