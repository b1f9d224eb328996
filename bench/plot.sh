#!/usr/bin/env bash
# Accuracy against packed size of all finished runs below runs/results (or runs/results-N-epochs: EPOCHS=N), as SVG there: make results-plot.
# Argument: the program.
# A point is the mean over a row's seeds, with its sample standard deviation; a colour is a table. Needs gnuplot-nox and jq.
set -euo pipefail
cd "$(dirname "$0")/.."
lowbit=$1
# shellcheck source=bench/runs.sh
. bench/runs.sh
svg=$root/plot.svg
for tool in gnuplot jq; do
    command -v "$tool" >/dev/null || {
        echo "lowbit: error: $tool is not there; apt-get install gnuplot-nox jq" >&2
        exit 1
    }
done

mapfile -t runs < <(finished "$root"/*/*-seed*)
[ ${#runs[@]} -gt 0 ] || {
    echo "lowbit: error: no finished, packed run below $root; make results-NAME trains a table ($(cd bench/results && ls ./*.txt | sed 's,^\./,,; s/\.txt$//' | tr '\n' ' '))" >&2
    exit 1
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# One line a row: table, row, packed bytes, mean accuracy after the last epoch, its standard deviation.
"$lowbit" compare "${runs[@]}" --json | jq -r '
    [.runs[] | select(.last_top1 != null and .packed_bytes != null)
             | (.run | split("/")) as $path
             | {table: $path[-2], row: ($path[-1] | sub("-seed[0-9]+$"; "")), bytes: .packed_bytes, top1: .last_top1}]
    | group_by([.table, .row])[]
    | (map(.top1) | add / length) as $mean
    | [.[0].table, .[0].row, (map(.bytes) | add / length), $mean,
       (if length > 1 then (map((.top1 - $mean) * (.top1 - $mean)) | add / (length - 1) | sqrt) else 0 end)]
    | @tsv' >"$work/points"
[ -s "$work/points" ] || {
    echo "lowbit: error: no finished run below $root was ever evaluated" >&2
    exit 1
}

{
    cat <<END
set terminal svg size 900,600 font "sans,12" background "white"
set output "$work/plot.svg"
set title "Test accuracy against packed size"
set xlabel "packed model, bytes"
set ylabel "top-1 %"
set logscale x
set format x "%.0s %c"
set grid
set key bottom right
set datafile separator "\t"
set autoscale xfix
set offsets graph 0.03, graph 0.2, graph 0.05, graph 0.05
END
    printf 'plot '
    separator=
    cut -f 1 "$work/points" | uniq >"$work/tables"
    while read -r table; do
        awk -F '\t' -v table="$table" '$1 == table' "$work/points" >"$work/$table.tsv"
        printf '%s"%s" using 3:4:5 with yerrorbars pointtype 7 pointsize 0.6 title "%s", "" using 3:4:2 with labels left offset 0.6,0 font "sans,9" noenhanced notitle' \
            "$separator" "$work/$table.tsv" "$table"
        separator=', '
    done <"$work/tables"
    echo
} >"$work/plot.gp"
gnuplot "$work/plot.gp"
mv "$work/plot.svg" "$svg"
echo "$svg: $(wc -l <"$work/points") rows of $(wc -l <"$work/tables") tables"
