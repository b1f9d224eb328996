#!/bin/sh
# No line of C is longer than 132 characters, docs/style.md: lines.sh SOURCE_DIR.
cd "$1" || exit 1
long=$(find src include runtime cli tests bench examples -name '*.[ch]' -exec env LC_ALL=C.UTF-8 grep -nHE '^.{133}' {} +)
[ -z "$long" ] && exit 0
printf 'longer than 132 characters:\n%s\n' "$long"
exit 1
