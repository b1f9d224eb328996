#!/usr/bin/env bash
# make quickstart: trains, evaluates, packs, verifies and runs a 2-bit network. Arguments: the program, the run directory.
# A run that was interrupted is resumed; a finished one is trained again from the start.
set -euo pipefail
lowbit=$1 run=$2
recipe=recipes/fashion-mnist/quickstart.yaml

say() { printf '\n== %s\n' "$*"; }
show() {
    say "$*"
    "$lowbit" "${@:2}"
}

resume=()
if [ -e "$run/last.safetensors" ]; then
    if grep -qs '"event": *"done"' "$run/metrics.jsonl"; then
        rm -rf "$run"
    else
        resume=(--resume)
    fi
fi
status=0
show lowbit train "$recipe" --out "$run" "${resume[@]}" || status=$?
if [ $status -ne 0 ]; then # by Ctrl-C, too: what was trained stays
    [ ${#resume[@]} -eq 0 ] || say "to train from the start: rm -r $run"
    exit $status
fi
show lowbit eval "$run"
show lowbit pack "$run" -o "$run/model.lbm"
show lowbit inspect "$run/model.lbm"
show lowbit verify "$run"
show lowbit run "$run/model.lbm" --test 4 --draw
cat <<END

Next: train with 1-bit weights:  $lowbit train $recipe --set quant.weights.bits=1 --out runs/w1a2
      your own images:           see README.md, "Your own images"
      every verb:                $lowbit --help
END
