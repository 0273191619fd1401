#!/bin/sh
# t0-ops.sh: every operation of src/ops/ops.def is called by a battery of tests/t1-*.c, which run on each backend; one
# that the others can make is called by t1-default.c as well.
. tests/lib/check.sh

ops=$(sed -n 's/^\(REQUIRED\|OPTIONAL\)(\([a-z_]*\),.*/\2/p' src/ops/ops.def)
missing=
for op in $ops; do grep -q -e "ops->$op(" tests/t1-*.c || missing="$missing $op"; done
[ -n "$ops" ] && [ -z "$missing" ]; check $? "each of $(echo "$ops" | wc -l) operations has its tests; missing:$missing"
missing=
for op in $(sed -n 's/^OPTIONAL(\([a-z_]*\),.*/\1/p' src/ops/ops.def); do
    grep -q -e "ops->$op(" tests/t1-default.c || missing="$missing $op"
done
[ -z "$missing" ]; check $? "each default is held against the operation; missing:$missing"
done_testing
