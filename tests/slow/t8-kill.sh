#!/bin/sh
# A hundred times SIGKILL of a rank or of all, thirty of them into a save: see tests/lib/kill.sh.
# needs: perl:Time::HiRes perl:POSIX
. tests/lib/kill.sh
JOBS=${JOBS:-2}
kill_test "${RANKS:-4}" "${KILLS:-100}" "${AIMED:-30}" --tensor_parallel 2
