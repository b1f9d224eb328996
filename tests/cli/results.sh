#!/usr/bin/env bash
# docs/results.md tells what is recorded, in its tables and in its plot.
source=$(cd "$(dirname "$0")/../.." && pwd)
. "$(dirname "$0")/lib.sh"
for epochs in "" 10 40; do
    expect 0 env RECORDED=1 EPOCHS=$epochs "$source/bench/tables.sh" "$LOWBIT"
    grep -E '^\| [^ ]+ \| [^ ]+ \| [0-9, ]+ \|' "$work/out" >>"$work/rows"
done
checks=$((checks + $(wc -l <"$work/rows")))
[ "$(wc -l <"$work/rows")" -ge 60 ] || fail "only $(wc -l <"$work/rows") rows are recorded"
while IFS= read -r row; do
    grep -Fxq -- "$row" "$source/docs/results.md" || fail "docs/results.md does not have: $row" "make results-record makes its tables"
done <"$work/rows"
finish
