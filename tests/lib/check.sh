# shellcheck shell=sh
# check.sh: sourced by the tests that are scripts.
#
#   check STATUS TEXT    a TAP line, and the status again; behind a failure the ends of the files in $shown
#   lacks TEXT TOOL...   is one of the tools missing?  Then a TAP line says that TEXT is skipped for want of it
#   refused STATUS TEXT COMMAND...    the command ends with this status and one line that has the text (a pattern)
#   relay N TEXT COMMAND...           N lines of the command, "ok - ..." or "not ok - ...", as TAP lines with TEXT before them
#   done_testing         prints the plan; the script's status
. tests/lib/has.sh
shown='' tests_run=0 tests_failed=0

check() {
    tests_run=$((tests_run + 1))
    if [ "$1" = 0 ]; then
        echo "ok $tests_run - $2"
    else
        echo "not ok $tests_run - $2"
        tests_failed=$((tests_failed + 1))
        # shellcheck disable=SC2086
        [ -z "$shown" ] || tail -n 15 $shown | sed 's/^/# /'
    fi
    return "$1"
}

lacks() {
    what=$1
    shift
    for tool in "$@"; do
        has "$tool" && continue
        tests_run=$((tests_run + 1))
        echo "ok $tests_run - $what # SKIP $tool is missing"
        return 0
    done
    return 1
}

refused() {
    wanted=$1 text=$2
    shift 2
    "$@" > "$TMPDIR/out" 2>&1
    status=$? said=$(grep -c -e "$text" "$TMPDIR/out")
    [ $status = "$wanted" ] && [ "$said" = 1 ] || sed 's/^/# /' "$TMPDIR/out" | tail -n 15
    [ $status = "$wanted" ] && [ "$said" = 1 ]
    check $? "$text: status $wanted (is $status), said once ($said times)"
}

relay() {
    relayed=$1 before=$2
    shift 2
    "$@" > "$TMPDIR/relayed" 2> "$TMPDIR/relayed.err" || tail -n 5 "$TMPDIR/relayed.err" | sed 's/^/# /'
    while read -r word rest; do
        case $word in ok) check 0 "$before${rest#- }" ;; not) check 1 "$before${rest#ok - }" ;; esac
    done < "$TMPDIR/relayed"
    [ "$(grep -c '^ok\|^not ok' "$TMPDIR/relayed")" = "$relayed" ]
    check $? "$before$relayed things were looked at"
}

done_testing() {
    echo "1..$tests_run"
    [ "$tests_failed" = 0 ] && [ "$tests_run" -gt 0 ]
}
