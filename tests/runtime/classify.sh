#!/bin/sh
# examples/classify.c on a model and images written by hand: classify.sh TEST_FORMAT EXAMPLE
set -e
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$1" "$dir"
[ "$("$2" "$dir/tiny.lbm" "$dir/image.pgm")" = "0 no 1.0898" ]
[ "$("$2" "$dir/tiny.lbm" "$dir/image.raw")" = "0 no 1.0898" ]
[ "$("$2" "$dir/tiny.lbm" "$dir/comment.pgm")" = "0 no 1.0898" ]
"$2" "$dir/tiny.lbm" "$dir/mark.raw" >"$dir/out" # the pixels of an image without a header may be anything
fails() { # STATUS TEXT ARGUMENT...
    want=$1 text=$2 got=0
    shift 2
    "$@" >"$dir/out" 2>"$dir/err" || got=$?
    [ "$got" = "$want" ] && [ ! -s "$dir/out" ] && grep -q "$text" "$dir/err" || { echo "$*: status $got"; cat "$dir/err"; exit 1; }
}
fails 2 usage "$2" "$dir/tiny.lbm"
fails 1 "wants an image of 2x2" "$2" "$dir/tiny.lbm" "$dir/wide.pgm"
fails 1 "missing.pgm: No such file" "$2" "$dir/tiny.lbm" "$dir/missing.pgm"
fails 1 "missing.lbm: No such file" "$2" "$dir/missing.lbm" "$dir/image.pgm"
fails 1 magic "$2" "$dir/image.pgm" "$dir/image.pgm"
fails 1 "wants an image of 2x2" "$2" "$dir/tiny.lbm" "$dir/empty.pgm"
fails 1 "largest value is 65535" "$2" "$dir/tiny.lbm" "$dir/word.pgm"
fails 1 "3 bytes of pixels, not 4" "$2" "$dir/tiny.lbm" "$dir/short.pgm"
fails 1 "5 bytes of pixels, not 4" "$2" "$dir/tiny.lbm" "$dir/long.pgm"
head -c 17000000 /dev/zero >"$dir/large"
fails 1 "larger than the 16777216 bytes" "$2" "$dir/large" "$dir/image.pgm"
fails 1 "larger than the 1048576 bytes" "$2" "$dir/tiny.lbm" "$dir/large"
head -c 60 "$dir/tiny.lbm" >"$dir/short.lbm"
fails 1 truncated "$2" "$dir/short.lbm" "$dir/image.pgm"
