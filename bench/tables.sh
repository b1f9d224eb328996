#!/usr/bin/env bash
# The finished runs of each table below runs/results (or runs/results-N-epochs: EPOCHS=N) in Markdown, for docs/results.md: make results-tables.
# RECORDED=1: of those that docs/results.md tells. Argument: the program. Rows as in bench/results/NAME.txt; accuracies are those after the
# last epoch, mean and sample standard deviation over the seeds. Minutes are of whatever else the machine did. Needs jq.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=bench/runs.sh
. bench/runs.sh
lines=$(measured "$1")
[ -n "$lines" ] || no_runs
by_row <<<"$lines" | awk -F '\t' '
    $1 != table {
        printf "%s## %s\n\n| row | bits | seeds | epochs | top-1 %% | minutes | packed bytes |\n|---|---|---|---|---|---|---|\n", between, $1
        table = $1
        between = "\n"
    }
    { printf "| %s | %s | %s | %.0f | %.2f%s | %.0f | %.0f |\n", $2, $3, $4, $5, $6, $7 == "-" ? "" : sprintf(" ± %.2f", $7), $8, $9 }'
