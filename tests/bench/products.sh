#!/bin/sh
# rates of the CPU operations: products, attention, rows, optimizer
exec "$MOAI_BIN/tests/bench/bench-products" "${MOAI_BENCH_THREADS:-2}"
