# shellcheck shell=sh
# has.sh: has TOOL: is there a program, a module of Perl (perl:JSON::PP) or of $PYTHON (python:h5py)?
#
# A test that can do nothing without a tool names it in one of its first lines, "needs: perl:JSON::PP zstd"; tests/run skips it where
# the tool is missing.  One that can do the rest says `lacks TEXT TOOL` (check.sh).
has() {
    case $1 in
    perl:*) perl "-M${1#perl:}" -e 1 ;;
    python:*) "${PYTHON:-python3}" -c "import ${1#python:}" ;;
    *) command -v "$1" ;;
    esac > /dev/null 2>&1
}
