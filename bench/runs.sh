# shellcheck shell=bash
# Where the runs of the tables lie, for the scripts beside it.

# shellcheck disable=SC2034
root=${ROOT:-runs/results${EPOCHS:+-$EPOCHS-epochs}}

# done_training RUN: its training has come to its end.
done_training() { grep -qs '"event": "done"' "$1/metrics.jsonl"; }

# finished RUN...: those that are trained to their end and packed, a line each.
finished() {
    local run
    for run in "$@"; do
        if [ -e "$run/model.lbm" ] && done_training "$run"; then echo "$run"; fi
    done
}
