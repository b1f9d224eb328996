#!/bin/sh
# A program's own names are safe from the library's: all that the static library shares among its objects begins with lb_ or lbrt_.
# exports.sh NM LIBRARY
others=$("$1" -g "$2" | awk 'NF == 3 && $2 != "U" { print $3 }' | grep -Ev '^(lb|lbrt)_') && {
    printf '%s defines what is neither lb_ nor lbrt_:\n%s\n' "$2" "$others"
    exit 1
}
"$1" -g "$2" | grep -q ' T lb'
