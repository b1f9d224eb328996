# For the scripts of this folder: source it, call the checks, end with `finish`. Each check prints a line only if it fails.
# LOWBIT, HELPER, BUILD, SOURCE, CC and CMAKE come from CMakeLists.txt.
set -u
: "${LOWBIT:?run these through ctest}" "${HELPER:?}"
export LC_ALL=C.UTF-8 NO_COLOR=1
unset LOWBIT_DATA
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
checks=0
failures=0

fail() {
    failures=$((failures + 1))
    printf 'FAIL %s\n' "$1"
    shift
    [ $# -eq 0 ] || printf '     %s\n' "$@"
}

# expect STATUS COMMAND...: runs it, output in files out and err; its exit status must be STATUS.
expect() {
    local want=$1 status=0
    shift
    checks=$((checks + 1))
    last="$*"
    "$@" >"$work/out" 2>"$work/err" </dev/null || status=$?
    [ "$status" -eq "$want" ] || fail "exit status $status instead of $want: $last" "$(head -c 800 "$work/err")"
}

lowbit() { "$LOWBIT" "$@"; }

# succeed ARGUMENT...: lowbit ends with status 0.
succeed() { expect 0 lowbit "$@"; }

# refuse STATUS PATTERN ARGUMENT...: lowbit ends with STATUS, nothing on standard output, and exactly one error line, which
# matches PATTERN (extended, case-insensitive) and starts with "lowbit: error: ".
refuse() {
    local status=$1 pattern=$2 lines
    shift 2
    expect "$status" lowbit "$@"
    lines=$(grep -c '^lowbit: error: ' "$work/err")
    [ "$lines" -eq 1 ] || fail "$lines error lines instead of 1: $last" "$(head -c 800 "$work/err")"
    grep '^lowbit: error: ' "$work/err" | grep -Eiq -- "$pattern" ||
        fail "the error does not say /$pattern/: $last" "$(head -c 800 "$work/err")"
    [ ! -s "$work/out" ] || fail "printed on standard output: $last" "$(head -c 300 "$work/out")"
}

# says PATTERN / complains PATTERN: standard output or error of the last command has a line that matches.
says() {
    checks=$((checks + 1))
    grep -Eiq -- "$1" "$work/out" || fail "standard output lacks /$1/: $last" "$(head -c 800 "$work/out")"
}
complains() {
    checks=$((checks + 1))
    grep -Eiq -- "$1" "$work/err" || fail "standard error lacks /$1/: $last" "$(head -c 800 "$work/err")"
}

# json PATH...: standard output of the last command is one JSON object with these members (a.b.0.c).
json() {
    local path
    for path in "$@"; do
        checks=$((checks + 1))
        "$HELPER" json "$work/out" "$path" >/dev/null || fail "no $path in the JSON of: $last" "$(head -c 800 "$work/out")"
    done
}
value() { "$HELPER" json "$work/out" "$1"; }

# check WHAT TEST...: `test` holds.
check() {
    local what=$1
    shift
    checks=$((checks + 1))
    [ "$@" ] || fail "$what: not [ $* ]"
}

# fingerprint DIR: one line per file, with a checksum of its content.
fingerprint() { (cd "$1" && find . -type f -exec cksum {} + | sort); }

# tiny DATA: writes tiny.yaml, a network that trains in a second or two, on the data at DATA.
tiny() {
    cat >tiny.yaml <<END
model:
  name: resnet20
  width: 0.25
data:
  name: folder
  path: $1
  cache: false
train:
  epochs: 2
  batch: 32
  eval_batch: 32
  optimizer:
    name: adam
    lr: 0.01
quant:
  weights:
    method: dorefa
    bits: 2
  activations:
    method: dorefa
    bits: 2
END
}

finish() {
    echo "$checks checks, $failures failed"
    [ "$failures" -eq 0 ]
}
