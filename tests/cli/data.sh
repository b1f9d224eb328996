#!/usr/bin/env bash
# Data that is missing, truncated, altered or no data at all.
. "$(dirname "$0")/lib.sh"
"$HELPER" idx good 64 32
"$HELPER" folder images 64 32
tiny bad

# bad_idx PATTERN: the data set in `bad`, made from `good` and then spoilt, is refused.
fresh() { rm -rf bad && cp -r "${1:-good}" bad; }
bad_data() { refuse 1 "$1" train tiny.yaml --out runs/bad; }

refuse 1 'nowhere.*(no such|data\.path)' train tiny.yaml --set data.path=nowhere
expect 1 env LOWBIT_DATA="$work/none" "$LOWBIT" train tiny.yaml --set data.name=cifar100 --set 'data.path=""'
complains "^lowbit: error: .*cifar100.*$work/none.*https?://"

images=bad/train-images-idx3-ubyte labels=bad/train-labels-idx1-ubyte
fresh; rm $labels;                                    bad_data 'train-labels'
fresh; truncate -s 500 $images;                       bad_data 'train-images.*(truncat|end|bytes|short)'
fresh; truncate -s 3 $images;                         bad_data 'train-images'
fresh; truncate -s 0 $labels;                         bad_data 'train-labels'
fresh; "$HELPER" flip $images 2;                      bad_data 'train-images.*magic'
fresh; "$HELPER" flip $labels 2;                      bad_data 'train-labels.*magic'
fresh; "$HELPER" flip $images 4;                      bad_data 'train-images' # 4 thousand million images
fresh; "$HELPER" flip $images 8;                      bad_data 'train-images' # of as many rows
fresh; "$HELPER" flip $labels 7;                      bad_data 'labels'       # images and labels differ in number
fresh; gzip $images; truncate -s 500 $images.gz;      bad_data 'train-images'
fresh; gzip $images; "$HELPER" flip $images.gz -6;    bad_data 'train-images' # checksum
fresh; mkdir x; mv bad/t10k* x; rm -r x;              bad_data 't10k'
fresh; chmod 0 $images; [ -r $images ] || bad_data 'train-images.*permission'

fresh; succeed train tiny.yaml --set data.train_limit=1 --set train.batch=1 --set train.steps=1 --out runs/one -q # still 4 classes
refuse 1 'train\.batch is 1, .*batch norm .*one value per channel.*2 or more' train tiny.yaml --set model.name=lenet5 --set model.input_size=16 \
    --set train.batch=1

fresh images; rm -r bad/*/rising bad/*/falling bad/*/upright
succeed train tiny.yaml --set train.batch=1 --set train.steps=1 --out runs/alone -q
complains 'warning: .*one class, level'
fresh images; rm bad/train/rising/*;                  bad_data 'rising.*no .*image'
fresh images; mkdir bad/test/extra;                   bad_data 'extra'
fresh images; echo "no image" >bad/train/rising/0002.png; bad_data '0002\.png'
fresh images; truncate -s 100 bad/train/level/0004.png; bad_data '0004\.png'
fresh images; : >bad/test/level/0000.png;             bad_data '0000\.png'
fresh images; rm -r bad/train;                        bad_data 'bad.*train'
fresh images; rm -r bad/test;                         bad_data 'bad.*(test|val)'
fresh images; rm -r bad/train/*;                      bad_data 'train'

tar -C images -czf whole.tar.gz train test
for size in 20 2000; do
    head -c $size whole.tar.gz >cut.tar.gz
    refuse 1 'cut\.tar\.gz' train tiny.yaml --set data.path=cut.tar.gz --out runs/bad
done
head -c 5000 /dev/urandom >noise.zip
refuse 1 'noise\.zip' train tiny.yaml --set data.path=noise.zip --out runs/bad

check "no run has begun" ! -e runs/bad/last.safetensors
finish
