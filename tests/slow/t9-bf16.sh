#!/bin/sh
# 200 steps of the demo in bf16 and in fp32: the loss curves stay within 1 % of each other.
# needs: bible
set -u
configs/demo/demo.sh --data-only > "$TMPDIR/data.log" 2>&1 || { echo "Bail out! no data"; tail -n 5 "$TMPDIR/data.log"; exit 1; }
for numbers in bf16 no_bf16; do
    mpirun -np 2 "$MOAI_BIN/moai_train" --config configs/demo/run.json --stop_at_step 200 --logging_steps 1 --eval_steps 0 --no_save_on_exit \
        --no_tensorboard --output_dir "$TMPDIR/$numbers" --$numbers > "$TMPDIR/log" 2>&1 ||
        { echo "not ok 1 - $numbers trains"; echo 1..1; tail -n 15 "$TMPDIR/log" | sed 's/^/# /'; exit 1; }
    sed -n 's/^{"step":\([0-9]*\),"loss":\([^,]*\),.*/\1 \2/p' "$TMPDIR/$numbers/metrics.jsonl" > "$TMPDIR/$numbers.loss"
done
echo 1..1
paste -d ' ' "$TMPDIR/bf16.loss" "$TMPDIR/no_bf16.loss" | awk '
    $1 == $3 { n++; d = ($2 - $4) / $4; if (d < 0) d = -d; if (d > worst) { worst = d; at = $1; a = $2; b = $4 } }
    END { good = n == 200 && worst <= 0.01
          printf "%sok 1 - %d steps, farthest apart at step %d: bf16 %.5f, fp32 %.5f, %.2f %%\n", good ? "" : "not ", n, at, a, b, 100 * worst
          exit !good }'
