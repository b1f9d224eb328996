#!/bin/sh
# No line of C is longer than 132 characters, docs/style.md: lines.sh SOURCE_DIR. Those of generated code are in src/deploy/codegen.
cd "$1" || exit 1
long=$(find src include cli tests bench examples -name '*.[ch]' ! -path 'src/deploy/codegen/*' -exec env LC_ALL=C.UTF-8 grep -nHE '^.{133}' {} +)
[ -z "$long" ] && exit 0
printf 'longer than 132 characters:\n%s\n' "$long"
exit 1
