#!/bin/sh
# What a save costs training: asynchronous against waiting, the same state; SAVE_DIR=/somewhere names another disk than TMPDIR's.
# And what the manifest of a checkpoint of 4096 ranks costs.
"$MOAI_BIN/tests/bench/bench-save" configs/bench.json cpu "${SAVE_DIR:-$TMPDIR}" && exec "$MOAI_BIN/tests/bench/bench-manifest"
