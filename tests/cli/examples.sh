#!/usr/bin/env bash
# The examples do what they say.
. "$(dirname "$0")/lib.sh"
expect 0 "$BUILD/example_train" trained 60
says 'of 10000 test images right; packed into trained/model\.lbm'
check "packed" -s trained/model.lbm
trained=$(sed 's/ %.*//' out)
expect 0 grep -q '^  name: "\?two-convs"\?$' trained/recipe.yaml # its own name, not that of a recipe's default
refuse 1 'two-convs.*built by hand' eval trained
succeed eval trained/model.lbm
says "^top-1 $trained %"
expect 2 "$BUILD/example_train"
expect 1 "$BUILD/example_train" trained many
complains 'train\.steps'
# The runtime alone, on the first test image (raw pixels follow 16 bytes of header), says what the program says.
zcat /usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz | tail -c +17 | head -c 784 >image
expect 0 "$BUILD/example_classify" trained/model.lbm image
answer=$(cat out)
succeed run trained/model.lbm --test 1 --json
case $answer in
*"$(value images.0.name)"*) ;;
*) fail "example_classify says '$answer', lowbit run says '$(value images.0.name)'" ;;
esac
expect 2 "$BUILD/example_classify"
expect 1 "$BUILD/example_classify" trained/recipe.yaml image
expect 1 "$BUILD/example_classify" trained/model.lbm trained/recipe.yaml
finish
