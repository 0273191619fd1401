#!/bin/sh
# A data set that is written or replaced by two encodes at once, by one that is killed, on a disk that fills: see tests/lib/replace.sh.
# needs: perl
. tests/lib/replace.sh
replace_test "${TWICE:-3}" "${KILLS:-8}" "${FULL:-5}"
done_testing
