#!/usr/bin/env bash
# Wrong usage of every verb, help, version, and where output goes.
. "$(dirname "$0")/lib.sh"

verbs="train eval pack run verify inspect bench compare import export codegen list"

expect 2 lowbit
complains '^usage: lowbit VERB'
check "nothing on standard output" ! -s out
succeed --help
says '^usage: lowbit VERB'
for verb in $verbs; do
    says "^  lowbit $verb "
done
succeed -h
succeed help
succeed --version
says '^lowbit [0-9]+\.[0-9]+\.[0-9]+$'
succeed -V

refuse 2 "unknown verb 'trian'; did you mean 'train'" trian
refuse 2 "unknown verb 'zzzzzz' \(try 'lowbit --help'\)" zzzzzz
refuse 2 "unknown option '--frobnicate'" --frobnicate
refuse 2 "did you mean 'eval'" help evla

for verb in $verbs; do
    succeed $verb --help
    for section in SYNOPSIS DESCRIPTION OPTIONS EXAMPLES 'EXIT STATUS'; do
        says "^$section"
    done
    says '^  -q, --quiet'
    check "lines of $verb --help are at most 120 characters" -z "$(grep -E '^.{121}' out)"
    cp out help
    succeed help $verb
    check "help $verb is $verb --help" "$(cksum <help)" = "$(cksum <out)"
    refuse 2 "is missing .*\(try 'lowbit $verb --help'\)" $verb
    refuse 2 "unknown option '--hepl'; did you mean '--help'" $verb --hepl x
    refuse 2 "unknown option '-Z'" $verb -Z x
done
for verb in train eval pack verify inspect bench codegen list; do
    refuse 2 "unexpected argument 'b'" $verb a b
done

refuse 2 "unknown option '--jsn'; did you mean '--json'" eval --jsn x
refuse 2 "unknown option '--otu=x'; did you mean '--out'" train --otu=x r.yaml
refuse 2 "unknown option '--epochs'; keys of the recipe are changed with --set" train r.yaml --epochs 3
refuse 1 'r.yaml: cannot open' train r.yaml -o x
refuse 2 "option '--re' is|unknown option" run --nothing x
refuse 2 "option '--out' wants a value" train r.yaml --out
refuse 2 "option '-o' wants a value" pack x -o
refuse 2 "option '--json' takes no value" eval x --json=1
refuse 2 "'oops' is not KEY=VALUE" train r.yaml --set oops
refuse 2 "is not KEY=VALUE" train r.yaml --set =3
refuse 2 "empty" train r.yaml --out ''
refuse 2 "empty" train ''
for bad in 0 -1 x 1.5 99999999999 ''; do
    refuse 2 "--threads: '$bad' is not a whole number" train r.yaml --threads "$bad"
done
for bad in -1 x '' 99999999999999999999; do
    refuse 2 "--seed: '$bad' is not a whole number" train r.yaml --seed "$bad"
done
refuse 1 'r.yaml: cannot open' train r.yaml --output x # one option by either name
refuse 1 'x: no such run directory' pack x --out y
refuse 1 'x: no such run directory' export x --out y
refuse 2 "'--output' wants a value" train r.yaml --output
refuse 2 "inspect: --rules .*--json" inspect x --rules --json
refuse 2 "inspect: --set is for a recipe" inspect model.lbm --set model.width=2
refuse 2 "inspect: --set is for a recipe" inspect . --set model.width=2
refuse 2 "run: --draw .*--json" run model.lbm x.png --draw --json
refuse 2 "IMAGE is missing" run model.lbm
refuse 2 "--data is for --test" run model.lbm x.png --data mnist
refuse 2 "--test: 'none' is not" run model.lbm --test none
refuse 2 "'model' is none of methods, models, data; did you mean 'models'" list model
refuse 2 "is none of methods, models, data" list 1
refuse 2 "for a recipe" bench model.lbm --steps 3
refuse 2 "for a packed model" bench r.yaml --batch 3

for kind in methods models data; do
    succeed list $kind
    says '^name '
    succeed list $kind --json
    json "$kind.0.name" "$kind.0.help"
done
succeed list methods
says '^dorefa ' && says '^lsq '
succeed list models
says '^resnet20 '
succeed list data
says '^fashion-mnist '

# Errors go nowhere but to standard error; results that cannot be written are an error; a reader that leaves is not.
expect 1 bash -c '"$LOWBIT" list models >/dev/full'
complains '^lowbit: error: standard output: cannot write the results: No space left'
expect 0 bash -c 'set -o pipefail; { "$LOWBIT" --help; true; } | true'
check "a closed pipe is no error" ! -s err

finish
