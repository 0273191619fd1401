#!/bin/sh
# The bars of whole programs on a terminal of 20 columns, under mpirun too; t0-terminal.c has other widths.
# needs: script
. tests/lib/small.sh
export TERM=xterm
# on_terminal COLUMNS COMMAND: what a terminal of so many columns gets to see, one drawn line a line; $status
on_terminal() {
    script -qec "stty cols $1; $2" "$dir/typescript" > /dev/null 2>&1 < /dev/null
    status=$?
    tr '\r' '\n' < "$dir/typescript" | tr '\033' '\n' | grep -e '^ *[0-9]*% \[' -e '^encode *[0-9]* % |' > "$dir/out"
}
widest() { awk '{ if (length > most) most = length } END { print most + 0 }' "$dir/out"; }
train="$MOAI_BIN/moai_train --model $dir/model.json --data $dir/data --device cpu --num_threads 1 --seq_length 32 --max_steps 20
    --save_steps 0 --no_save_on_exit --no_tensorboard"
train=$(echo "$train" | tr '\n' ' ')
for start in "" "mpirun -np 2 "; do
    on_terminal 20 "$start$train --output_dir $dir/${start:+mpi}run"
    [ $status = 0 ] && [ "$(wc -l < "$dir/out")" = 20 ] && [ "$(widest)" = 19 ]
    check $? "${start}moai_train on 20 columns takes $(widest), $(wc -l < "$dir/out") times"
done
export TERM=dumb
on_terminal 20 "$train --output_dir $dir/dumb"
[ $status = 0 ] && ! grep -q . "$dir/out" && grep -q '^step 20/20 ' "$dir/typescript"; check $? "TERM=dumb: lines"
done_testing
