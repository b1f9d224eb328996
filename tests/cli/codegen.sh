#!/usr/bin/env bash
# Generated C: what is written and refused, and that it compiles as strictly as promised and computes what the packed model does.
. "$(dirname "$0")/lib.sh"
"$HELPER" idx good 64 32
tiny good
succeed train tiny.yaml --out run --set train.epochs=1 -q
succeed pack run -q
succeed train tiny.yaml --out floats --set train.epochs=1 --set quant.weights.method=none --set quant.activations.method=none -q
succeed pack floats -q

succeed codegen run/model.lbm -o c
says '^c: [0-9,]+ bytes of constants, [0-9,]+ bytes of RAM$'
check "no warning" ! -s err
for file in model.h model.c weights.h test.c test_images.h README.md kernels/packed_conv.h; do check "$file" -s c/$file; done
check "no float kernels" -z "$(ls c/kernels | grep float)"
check "no float arithmetic" -z "$(grep -lE '\b(float|double)\b' c/*.[ch] c/kernels/*.h)"
arena=$(sed -n 's/#define MODEL_ARENA_SIZE \([0-9]*\) .*/\1/p' c/model.h)
check "the README says how much RAM" -n "$(grep "MODEL_ARENA_SIZE.*| $arena |" c/README.md)"
succeed pack run --out same.lbm --json
json file bytes float_bytes ratio
check "the packed file's bytes" "$(value bytes)" -eq "$(stat -c %s same.lbm)"
succeed codegen same.lbm --out same --json
json directory constant_bytes
check "how much RAM" "$(value ram_bytes)" -eq "$arena"
expect 0 cmp c/model.h same/model.h
succeed codegen floats/model.lbm -o f/deep/down
check "float kernels" -s f/deep/down/kernels/float_conv.h

# strict DIR: compiles without a warning under every compiler there is, and the self-test passes.
strict() {
    for cc in "$CC" gcc clang; do
        command -v "$cc" >/dev/null || continue
        for level in -O0 -O2 -Os; do
            for file in model test; do
                expect 0 "$cc" -std=c99 -ffreestanding -Wall -Wextra -Werror -pedantic $level -c "$1/$file.c" -o $file.o
            done
            expect 0 "$cc" -std=c99 -Wall -Wextra -Werror -pedantic -Wconversion -Wshadow -Wcast-align $level "$1/test.c" \
                "$1/model.c" -o selftest
            expect 0 ./selftest
            check "three images" "$(grep -c '^image [012]: class [0-9]* .*, equal$' out)" -eq 3
        done
    done
}
strict c
strict f/deep/down

# A function after each layer: it is called with the numbers of all layers, in order.
cat >after.c <<'END'
#include <stdio.h>
#include "c/model.h"
static int calls;
void after(int layer) { calls += layer == calls; }
int main(void) {
    static uint8_t image[MODEL_HEIGHT * MODEL_WIDTH * MODEL_CHANNELS];
    static int32_t scores[MODEL_CLASSES];
    model_run(image, scores);
    printf("%d layers\n", calls);
    return 0;
}
END
expect 0 "$CC" -DMODEL_AFTER_LAYER=after after.c c/model.c -o after
expect 0 ./after
says "^$(grep -c '^/\* [0-9]*: ' c/model.c) layers$"

# The self-test fails where it should.
cp -r c broken
sed -i '/test_scores/,$s/\([0-9]\),/\17,/' broken/test_images.h
expect 0 "$CC" -std=c99 broken/test.c broken/model.c -o selftest
expect 3 ./selftest
says 'NOT EQUAL'

# A directory of its own is replaced, kernels of another network go away; any other stays as it is.
cp -r c before
succeed codegen run/model.lbm -o c
check "the same bytes twice" "$(fingerprint c)" = "$(fingerprint before)"
succeed codegen floats/model.lbm -o c
check "float kernels came" -s c/kernels/float_conv.h
check "integer kernels went" ! -e c/kernels/packed_conv.h
mkdir empty && succeed codegen run/model.lbm -o empty

# A disk that fills up, at any file (none may have more than so many blocks of 1024 bytes): what was there is there, nothing new.
rm -rf before && cp -r c before
codegen_full() { bash -c "trap '' XFSZ; (ulimit -f $1; \"\$LOWBIT\" codegen run/model.lbm -o $2 -q) 2>&1 | cat; exit \${PIPESTATUS[0]}"; }
for blocks in 0 1 2 4 8; do
    expect 1 codegen_full $blocks c
    says '^lowbit: error: c/.*: cannot write: File too large'
    check "the earlier network is whole ($blocks)" "$(fingerprint c)" = "$(fingerprint before)"
    expect 1 codegen_full $blocks fresh/deep/
    check "no directory is left ($blocks)" ! -e fresh
    mkdir -p kept
    expect 1 codegen_full $blocks kept/fresh
    check "a directory of the user's stays ($blocks)" -d kept -a -z "$(ls -A kept)"
done
mkdir disk
if [ "$(id -u)" -eq 0 ] && mount -t tmpfs -o size=1m lowbit-test disk 2>/dev/null; then
    trap 'umount "$work/disk"; rm -rf "$work"' EXIT
    cp -r before disk/c
    cp -r disk/c full
    head -c 2m /dev/zero >disk/filler 2>/dev/null
    for room in 0 5000 20000; do
        truncate -s -$room disk/filler
        refuse 1 'disk/c/.*the disk is full' codegen run/model.lbm -o disk/c
        check "the earlier network is whole (room $room)" "$(fingerprint disk/c)" = "$(fingerprint full)"
        refuse 1 'disk/new.*the disk is full' codegen run/model.lbm -o disk/new
        check "no directory is left (room $room)" ! -e disk/new
    done
    rm disk/filler
    succeed codegen run/model.lbm -o disk/c
else
    echo "skipped: a disk that is full (only root can mount one)"
fi

# What a process that was killed left: its directory is known by the first file, and cleaned.
mkdir left && cp before/model.h left/model.h.tmp.99999999.0 && cp before/weights.h left/weights.h.tmp.99999999.0
succeed codegen run/model.lbm -o left
check "no temporary file is left" -z "$(ls left | grep tmp)"
whole=$(fingerprint run)
refuse 1 'run: has files that lowbit codegen did not make' codegen run/model.lbm -o run
check "the run is as it was" "$(fingerprint run)" = "$whole"
refuse 1 'tiny\.yaml: a file, but' codegen run/model.lbm -o tiny.yaml
refuse 1 'tiny\.yaml/c' codegen run/model.lbm -o tiny.yaml/c

# Wrong input.
refuse 2 '-o DIR is missing' codegen run/model.lbm
refuse 2 'is missing' codegen -o d
refuse 1 'nothere\.lbm' codegen nothere.lbm -o d
refuse 1 'run: a directory; its packed model is run/model\.lbm' codegen run -o d
refuse 1 'tiny\.yaml: not a packed model' codegen tiny.yaml -o d
head -c 2000 run/model.lbm >cut.lbm
refuse 1 'cut\.lbm: .*truncated' codegen cut.lbm -o d
refuse 1 'nothere' codegen run/model.lbm -o d --data nothere
check "nothing was made" ! -e d

# A model whose data is not there: noise, and a word about it.
mv good gone
succeed codegen run/model.lbm -o noise
complains '^lowbit: warning: the self-test.s images are noise: '
expect 0 "$CC" -std=c99 -O1 noise/test.c noise/model.c -o selftest
expect 0 ./selftest
finish
