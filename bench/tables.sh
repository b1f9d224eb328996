#!/usr/bin/env bash
# The finished runs of each table below runs/results (or runs/results-N-epochs: EPOCHS=N) in Markdown, for docs/results.md: make results-tables.
# Argument: the program. Rows as in bench/results/NAME.txt; accuracies are those after the last epoch, mean and sample standard deviation over
# the seeds. Minutes are of whatever else the machine did. Needs jq.
set -euo pipefail
cd "$(dirname "$0")/.."
lowbit=$1
# shellcheck source=bench/runs.sh
. bench/runs.sh
command -v jq >/dev/null || {
    echo "lowbit: error: jq is not there; apt-get install jq" >&2
    exit 1
}
for table in bench/results/*.txt; do
    name=$(basename "$table" .txt)
    rows=$(sed 's/#.*//' "$table" | awk 'NF { print $1 }')
    directories=()
    for row in $rows; do directories+=("$root/$name/$row"-seed*); done
    mapfile -t runs < <(finished "${directories[@]}")
    [ ${#runs[@]} -gt 0 ] || continue
    printf '## %s\n\n| row | bits | seeds | epochs | top-1 %% | minutes | packed bytes |\n|---|---|---|---|---|---|---|\n' "$name"
    "$lowbit" compare "${runs[@]}" --json | jq -r --arg rows "$rows" '
        ($rows | split("\n")) as $order
        | [.runs[] | .row = (.run | split("/")[-1] | sub("-seed[0-9]+$"; ""))]
        | group_by(.row) | sort_by(.[0].row as $row | $order | index($row))[]
        | (map(.last_top1) | add / length) as $mean
        | (map((.last_top1 - $mean) * (.last_top1 - $mean)) | add) as $squares
        | def fixed($n): . * pow(10; $n) | round | tostring
              | (if length <= $n then "0" * ($n + 1 - length) + . else . end) | .[:-$n] + "." + .[-$n:];
          "| \(.[0].row) | \(.[0].bits) | \(map(.seed | tostring) | join(", ")) | \(.[0].epochs) | \($mean | fixed(2))"
          + (if length > 1 then " ± \($squares / (length - 1) | sqrt | fixed(2))" else "" end)
          + " | \(map(.minutes) | add / length | round) | \(map(.packed_bytes) | add / length | round) |"'
    echo
done
