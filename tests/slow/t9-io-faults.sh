#!/bin/sh
# All faults of tests/t9-io-faults.sh, one after another.
ALL_FAULTS=1
. tests/t9-io-faults.sh
