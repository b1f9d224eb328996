#!/usr/bin/env bash
# Ctrl-C and its relatives: what a stopped verb leaves behind, and how it ends.
. "$(dirname "$0")/lib.sh"
"$HELPER" idx good 64 32
tiny good
succeed train tiny.yaml --out run --set train.epochs=1 -q
succeed pack run -q

# wait_for FILE: until it is there (and then sends the signal), or the child has ended.
wait_for() {
    for _ in $(seq 1200); do
        [ -e "$1" ] && return
        kill -0 $child 2>/dev/null || return
        sleep 0.05
    done
}

# A stopped training says how to continue, in words that a shell takes.
mkdir "it's here"
"$LOWBIT" train tiny.yaml --out "it's here/r" --threads 1 --set train.epochs=100000 >stopped.out 2>stopped.err &
child=$!
wait_for "it's here/r/last.safetensors"
refuse 1 "it's here/r: another process is writing there" train tiny.yaml --out "it's here/r" --resume --set train.epochs=100000
kill -HUP $child # the terminal was closed
status=0
wait $child || status=$?
last="train, stopped by SIGHUP"
mv stopped.err err # those names are the next command's while it runs
check "it ended by the signal, having saved" $status -eq $((128 + 1))
complains "^lowbit: error: interrupted, the state is saved; continue with: [^ ]*lowbit train 'it.*s here/r' --threads 1 --resume\$"
again=$(sed -n "s/.*continue with: [^ ]*lowbit //p" err)
expect 0 bash -c "\"\$LOWBIT\" $again --set train.epochs=0.5 2>&1 | grep -q 'only 1'" # found: it has done more than that

succeed train tiny.yaml --out "it's here/q" --set train.steps=1
complains "^next: [^ ]*lowbit eval 'it.*s here/q', then [^ ]*lowbit pack 'it.*s here/q'\$"

# nohup's wish is respected.
(trap '' HUP; exec "$LOWBIT" train tiny.yaml --out ignored --set train.epochs=100000) >out 2>err &
child=$!
wait_for ignored/last.safetensors
kill -HUP $child
sleep 0.2
check "SIGHUP was ignored" "$(kill -0 $child && echo alive)" = alive
kill -TERM $child
status=0
wait $child || status=$?
last="train, stopped by SIGTERM"
check "it ended by the signal, having saved" $status -eq $((128 + 15))

# Estimating batch norm's statistics, which can take longer than the epoch, stops as well.
"$LOWBIT" train tiny.yaml --out estimate --threads 1 --set train.save_every=1 --set train.bn_estimate=1000000 >out 2>err &
child=$!
wait_for estimate/last.safetensors
sleep 0.3
kill -INT $child
status=0
wait $child || status=$?
last="train, stopped by SIGINT in estimating"
check "it ended by the signal, having saved" $status -eq $((128 + 2))

# A verb without a state ends by the signal, so that a shell's loop ends too, and leaves no temporary files. The compiler tells
# that verifying is under way, and gives it time to be stopped.
mkdir tmp
cat >slow-cc <<'END'
#!/bin/sh
: >"$STARTED"
sleep 1
exec cc "$@"
END
chmod +x slow-cc
STARTED=$work/started CC=$work/slow-cc TMPDIR=$work/tmp "$LOWBIT" verify run >out 2>err &
child=$!
wait_for started
kill -TERM $child
status=0
wait $child || status=$?
last="verify, stopped"
check "it ended by the signal" $status -eq $((128 + 15))
complains '^lowbit: error: interrupted while'
check "nothing temporary is left" -z "$(ls tmp)"
finish
