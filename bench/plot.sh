#!/usr/bin/env bash
# Accuracy against packed size of all finished runs below runs/results (or runs/results-N-epochs: EPOCHS=N), as SVG there: make results-plot.
# RECORDED=1: of those that docs/results.md tells, as docs/results.svg. Argument: the program.
# A point is the mean over a row's seeds, with its sample standard deviation; a colour is a table. Needs gnuplot-nox and jq.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=bench/runs.sh
. bench/runs.sh
needs gnuplot-nox
svg=$root/plot.svg
[ -z "${RECORDED:-}" ] || svg=docs/results.svg
lines=$(measured "$1")
[ -n "$lines" ] || no_runs

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Column 10: the height of the name, from the top down as near to its point as those to the left and right let it.
by_row <<<"$lines" | sort -t "$(printf '\t')" -g -r -k 6 | awk -F '\t' -v OFS='\t' '
    {
        height = $6
        for (moved = 1; moved;) {
            moved = 0
            for (i = 1; i < NR; i++) {
                away = log($9) - at[i]
                if (away < 0.34 && away > -0.34 && height < placed[i] + 1.15 && height > placed[i] - 1.15) {
                    height = placed[i] - 1.16
                    moved = 1
                }
            }
        }
        at[NR] = log($9)
        placed[NR] = height
        print $1, $2, $3, $4, $5, $6, $7 == "-" ? 0 : $7, $8, $9, height
    }' >"$work/points"

{
    cat <<END
set terminal svg size 1000,1000 font "sans,12" background "white"
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
set offsets graph 0.03, graph 0.15, graph 0.02, graph 0.02
END
    printf 'plot '
    separator=
    colour=0
    cut -f 1 "$work/points" | sort -u >"$work/tables"
    while read -r table; do
        awk -F '\t' -v table="$table" '$1 == table' "$work/points" >"$work/$table.tsv"
        colour=$((colour + 1))
        printf '%s"%s" using 9:6:7 with yerrorbars linetype %d pointtype 7 pointsize 0.6 title "%s"' \
            "$separator" "$work/$table.tsv" $colour "$table"
        printf ', "" using 9:10:2 with labels left offset 0.6,0 font "sans,9" noenhanced notitle'
        separator=', '
    done <"$work/tables"
    echo
} >"$work/plot.gp"
gnuplot "$work/plot.gp"
mv "$work/plot.svg" "$svg"
echo "$svg: $(wc -l <"$work/points") rows of $(wc -l <"$work/tables") tables"
