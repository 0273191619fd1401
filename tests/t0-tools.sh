#!/bin/sh
# Without a tool the tests that need it are skipped by name; without network or root the rest runs, unless the build lacks something.
set -u
. tests/lib/check.sh
shown="$TMPDIR/out"
t=$TMPDIR
one_test() { # one_test NAME NEEDS LINE
    printf '#!/bin/sh\n# %s\n%s\n' "${2:+needs: $2}" "$3" > "$t/$1.sh"
    chmod +x "$t/$1.sh"
}
said() { grep -q -e "$1" "$t/out"; }
one_test good '' 'echo "ok 1 - $1"; echo 1..1'
one_test bad '' 'echo "not ok 1 - this"; echo 1..1; exit 1'
one_test short '' 'echo "ok 1 - this"; echo 1..2'
one_test there 'sh perl:strict' 'echo "ok 1 - this"; echo 1..1'
for tool in no-such-tool perl:No::Such python:no_such; do
    one_test lacking "sh $tool" 'exit 1'
    tests/run "$t/lacking.sh" > "$t/out" 2>&1 && said "^1\.\.0 # SKIP $tool is missing$"; check $? "a test that needs $tool is skipped"
done
(lacks "all of it" sh no-such-tool) > "$t/out" && said '^ok .* - all of it # SKIP no-such-tool is missing$'; check $? "so is a check"
(! lacks "all of it" sh) > "$t/out"; check $? "unless all is there"
tests/prove -j1 --exec tests/run "$t/good.sh" "$t/lacking.sh" :: an-argument > "$t/out" 2>&1
[ $? = 0 ] && said '/good.sh \.\. ok$' && said '/lacking.sh \.\. skipped: python:no_such is missing$' && said '^Result: PASS$'
check $? "tests/prove stands in for prove"
for kind in bad short; do
    tests/prove --exec tests/run "$t/good.sh" "$t/$kind.sh" > "$t/out" 2>&1
    [ $? = 1 ] && said "/$kind.sh \.\. FAILED" && said '^Result: FAIL$'; check $? "it fails as prove does: $kind"
done
lacks "perl's modules" perl:strict || { tests/run "$t/there.sh" > "$t/out" 2>&1 && said '^ok 1'; check $? "what is there is found"; }

case ${MAKEFLAGS:-} in *PREFIXES=* | *MPICC=*) done_testing; exit ;; esac        # where a build finds what it needs is no matter here
# a machine with these programs alone, where apt-get is there and fails
mkdir "$t/bin"
for p in sh make gcc g++ as ld uname id env cat pkg-config mpicc mpirun nproc sed python3 git; do
    found=$(command -v $p) && ln -s "$found" "$t/bin/$p"
done
printf '#!/bin/sh\necho "E: no network"; exit 100\n' > "$t/bin/apt-get"
chmod +x "$t/bin/apt-get"
deps() { env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL PATH="$t/bin" MPICC=mpicc make deps > "$t/out" 2>&1; }
deps
status=$?
[ $status = 0 ] && said '^missing .* hdf5-tools perl' && said 'tests that need one are skipped'; check $? "test tools that cannot be installed stop nothing, status $status"
rm "$t/bin/apt-get"
deps
status=$?
[ $status = 0 ] && said '^missing .* hdf5-tools perl'; check $? "nor where there is no apt-get, status $status"
rm "$t/bin/mpirun"
deps
status=$?
[ $status != 0 ] && said '^missing .* openmpi-bin'; check $? "what the build lacks stops it, by name"
done_testing
