#!/usr/bin/env bash
# The examples do what they say.
. "$(dirname "$0")/lib.sh"
expect 0 "$BUILD/example_train" trained 60
says 'of 10000 test images right; packed into trained/model\.lbm'
check "packed" -s trained/model.lbm
succeed verify trained -q
says 'equal on 10,000 images'
expect 2 "$BUILD/example_train"
expect 1 "$BUILD/example_train" trained many
complains 'train\.steps'
if [ -x "$BUILD/example_classify" ]; then
    expect 2 "$BUILD/example_classify"
    complains 'usage'
fi
finish
