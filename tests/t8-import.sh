#!/bin/sh
# What is said of a model's positions when it is read and exported.
. tests/small.sh
checkpoint=$MOAI_BIN/moai_checkpoint

# variant NAME FROM TO: tests/golden/yarn with one thing changed in its config.json, exported; what is said is in $dir/out
variant() {
    mkdir "$dir/$1" && cp tests/golden/yarn/config.json tests/golden/yarn/model.safetensors "$dir/$1" && sed -i "s/$2/$3/" "$dir/$1/config.json"
    "$checkpoint" export "$dir/$1" "$dir/$1-hf" > "$dir/out" 2>&1
    [ -e "$dir/$1-hf/config.json" ] && ! cmp -s tests/golden/yarn/config.json "$dir/$1/config.json"
    check $? "a model with $3 is exported"
}
says() { grep -q -F -- "$1" "$dir/out"; check $? "says: $1"; }
silent() { ! grep -q warning "$dir/out"; check $? "without a warning"; }

variant same '"use_cache": true' '"use_cache": false'
silent
variant ratio '"max_position_embeddings": 96' '"max_position_embeddings": 120'
says "$dir/ratio: yarn's factor 4 x original_max_position_embeddings 24 is 96, not max_position_embeddings 120: Transformers 4.51 to 4.55"
variant truncate '"factor": 4.0' '"factor": 4.0, "truncate": false'
says "$dir/truncate: yarn with truncate false: Transformers 4.51 to 4.54"
variant original '"original_max_position_embeddings": 24,' ''
says "$dir/original/config.json: yarn without original_max_position_embeddings: the length that it stretches is max_position_embeddings, 96"
variant default '"rope_type": "yarn"' '"rope_type": "default"'
says "$dir/default/config.json: factor 4 of the rope keys has no effect: rope_type is \"default\""
variant one '"factor": 4.0' '"factor": 1.0'
says "$dir/one/config.json: rope_type \"yarn\" has no effect: its factor is 1"
done_testing
