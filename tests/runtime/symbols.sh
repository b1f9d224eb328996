#!/bin/sh
# The runtime needs nothing but memcpy and memset: symbols.sh NM OBJECT...
nm=$1
shift
defined=$("$nm" -g "$@" | awk 'NF == 3 && $2 != "U" { print $3 }' | sort -u)
needed=$("$nm" -u "$@" | awk '$1 == "U" { print $2 }' | sort -u)
status=0
for symbol in $needed; do
    case $symbol in memcpy | memset | _GLOBAL_OFFSET_TABLE_) continue ;; esac
    if ! echo "$defined" | grep -qx "$symbol"; then
        echo "the runtime needs $symbol"
        status=1
    fi
done
for symbol in $defined; do
    case $symbol in lbrt_*) ;; *) echo "the runtime defines $symbol, which is not lbrt_"; status=1 ;; esac
done
[ -n "$defined" ] || status=1
exit $status
