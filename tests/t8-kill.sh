#!/bin/sh
# Eight times SIGKILL, three of them into a save: see tests/lib/kill.sh; tests/slow/t8-kill.sh does it a hundred times.
# needs: perl:Time::HiRes perl:POSIX
. tests/lib/kill.sh
kill_test 2 "${KILLS:-8}" "${AIMED:-3}"
