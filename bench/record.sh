#!/usr/bin/env bash
# Adds the finished runs below runs/results (or runs/results-N-epochs: EPOCHS=N) to what docs/results.md tells, bench/results/record*.tsv, in
# the place of older ones of the same row and seed, and makes its tables "## NAME, N epochs" anew: make results-record. Argument: the
# program. Needs jq.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=bench/runs.sh
. bench/runs.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
measured "$1" >"$work/new"
[ -s "$work/new" ] || no_runs
touch "$record"
for table in bench/results/*.txt; do
    name=$(basename "$table" .txt)
    for row in $(rows_of "$table"); do
        awk -F '\t' -v table="$name" -v row="$row" '$1 == table && $2 == row { run[$3] = $0 } END { for (s in run) print run[s] }' \
            "$record" "$work/new" | sort -t "$(printf '\t')" -n -k 3
    done
done >"$work/all"
mv "$work/all" "$record"
RECORDED=1 bench/tables.sh "$1" >"$work/tables"
awk -v epochs="${EPOCHS:-30}" '
    /^## / { table = $2; sub(",.*", "", table) }
    NR == FNR { if (/^\|/) lines[table] = lines[table] $0 "\n"; next }
    /^## / {
        made = $0 ~ ", " epochs " epochs$" && table in lines
        if (made) {
            printf "%s\n\n%s\n", $0, lines[table]
            next
        }
    }
    made && /^(\||$)/ { next }
    { made = 0 }
    { print }' "$work/tables" docs/results.md >"$work/docs"
mv "$work/docs" docs/results.md
echo "$record: $(wc -l <"$record") runs, $(wc -l <"$work/new") of them from $root"
