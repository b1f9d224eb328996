# shellcheck shell=bash
# Where the runs of the tables lie and what came of them, for the scripts beside it.

# shellcheck disable=SC2034
root=${ROOT:-runs/results${EPOCHS:+-$EPOCHS-epochs}}
# What docs/results.md tells, a line a run, as measured() prints them: make results-record adds finished runs.
# shellcheck disable=SC2034
record=bench/results/record${EPOCHS:+-$EPOCHS-epochs}.tsv

# done_training RUN: its training has come to its end.
done_training() { grep -qs '"event": "done"' "$1/metrics.jsonl"; }

# finished RUN...: those that are trained to their end and packed, a line each.
finished() {
    local run
    for run in "$@"; do
        if [ -e "$run/model.lbm" ] && done_training "$run"; then echo "$run"; fi
    done
}

# needs TOOL...: says which packages have what is not there.
needs() {
    local tool
    for tool in "$@"; do
        command -v "${tool%-nox}" >/dev/null || {
            echo "lowbit: error: ${tool%-nox} is not there; apt-get install $*" >&2
            exit 1
        }
    done
}

# measured LOWBIT: a line for each finished run below $root, of tables in the order of their names, rows in that of the table, seeds; by tabs:
# table, row, seed, bits, epochs, top-1 % after the last epoch, minutes, packed bytes. With RECORDED=1 the lines of $record instead.
measured() {
    local lowbit=$1 table name rows row runs
    if [ -n "${RECORDED:-}" ]; then
        [ -e "$record" ] || {
            echo "lowbit: error: there is no $record; RECORDED=1 goes with EPOCHS=10 or no EPOCHS" >&2
            return 1
        }
        cat "$record"
        return
    fi
    needs jq
    for table in bench/results/*.txt; do
        name=$(basename "$table" .txt)
        rows=$(rows_of "$table")
        mapfile -t runs < <(for row in $rows; do finished "$root/$name/$row"-seed*; done)
        [ ${#runs[@]} -gt 0 ] || continue
        "$lowbit" compare "${runs[@]}" --json | jq -r --arg table "$name" '
            .runs[] | select(.last_top1 != null and .packed_bytes != null)
            | [$table, (.run | split("/")[-1] | sub("-seed[0-9]+$"; "")), .seed, .bits, .epochs, .last_top1,
               (.minutes * 10 | round / 10), .packed_bytes] | @tsv'
    done
}

# by_row: the runs of measured() as rows, by tabs: table, row, bits, seeds, epochs, mean top-1 %, its sample standard deviation (- for one
# seed), mean minutes, mean packed bytes.
by_row() {
    awk -F '\t' -v OFS='\t' '
        function row() {
            if (n == 0) return
            mean = sum / n
            for (i = 1; i <= n; i++) squares += (top1[i] - mean) ^ 2
            print table, name, bits, seeds, epochs, mean, (n > 1 ? sqrt(squares / (n - 1)) : "-"), minutes / n, bytes / n
            n = sum = squares = minutes = bytes = 0
        }
        $1 != table || $2 != name { row(); seeds = "" }
        {
            table = $1; name = $2; seeds = seeds (n ? ", " : "") $3; bits = $4; epochs = $5
            top1[++n] = $6; sum += $6; minutes += $7; bytes += $8
        }
        END { row() }'
}

# rows_of TABLE: the names of its rows, a line each.
rows_of() { sed 's/#.*//' "$1" | awk 'NF { print $1 }'; }

# no_runs: what to do where nothing has been measured.
no_runs() {
    echo "lowbit: error: no finished, packed run below $root; make results-NAME trains a table ($(cd bench/results && ls ./*.txt | sed 's,^\./,,; s/\.txt$//' | tr '\n' ' '))" >&2
    exit 1
}
