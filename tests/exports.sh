#!/bin/sh
# A program's names are safe from the library's: a shared library exports the functions that the public headers declare and nothing
# else, and all that a static one shares among its objects begins with lb_ or lbrt_. exports.sh NM CC LIBRARY MAP HEADER...
set -eu
nm=$1 cc=$2 library=$3 map=$4
shift 4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

case $library in
*.a)
    if "$nm" -g "$library" | awk 'NF == 3 && $2 != "U" { print $3 }' | grep -Ev '^(lb|lbrt)_'; then
        echo "$library defines these, which are neither lb_ nor lbrt_"
        exit 1
    fi
    "$cc" -shared -nostdlib -o "$work/library.so" -Wl,--whole-archive "$library" -Wl,--no-whole-archive \
        -Wl,--version-script="$map"
    library=$work/library.so ;;
esac
"$nm" -D --defined-only "$library" | awk '{ print $3 }' | sort >"$work/exported"
for header in "$@"; do
    "$cc" -E -P "$header"
done | grep -Eo '\b(lb|lbrt)_[a-z0-9_]+\(' | tr -d '(' | sort -u >"$work/declared"
[ -s "$work/declared" ]
diff "$work/declared" "$work/exported" || {
    echo "<: declared in a public header, but not exported; >: exported, but in no public header"
    exit 1
}
