#!/bin/sh
# Two encodes at once 50 times, an encode killed 100 times, the disk filled at 40 places: see tests/lib/replace.sh.
# needs: perl
. tests/lib/replace.sh
replace_test "${TWICE:-50}" "${KILLS:-100}" "${FULL:-40}"
done_testing
