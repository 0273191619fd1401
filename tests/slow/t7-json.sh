#!/bin/sh
# io/text/json_line.h against Python's json: the same lines taken, the same text found.  LINES= lines (500000), SEED= other ones.
# needs: python:json
exec "$PYTHON" tests/slow/t7-json.py "$MOAI_BIN/tests/tools/json_text"
