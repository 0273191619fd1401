#!/bin/sh
# t0-arrows.sh: the rooms of the tree, and which of them a room may include.  A line of the table names a room and then
# those above it that it may know, so that no circle is possible; a room's README.md says the same.  Looked at are the
# includes of every file, and which file uses what another defines.
# needs: awk
. tests/lib/check.sh

table='
src/base
src/host            src/base
src/json            src/base
src/config          src/base src/json
src/ops             src/base
src/cpu             src/base src/ops
cuda                src/ops
cuda/attend         cuda
cuda/gpu            src/ops cuda
cuda/bench          cuda
parallel/comm       src/base src/host
parallel/watch      src/base parallel/comm
parallel/nccl       src/ops cuda parallel/comm parallel/watch
src/device          src/host src/ops cuda parallel/comm parallel/nccl
src/observe         src/ops parallel/comm
src/params          src/base src/config src/ops parallel/comm
parallel/axes       src/params parallel/comm
parallel/pipeline   parallel/comm
src/model           src/base src/config src/ops src/params parallel/axes parallel/pipeline
io/file             src/base
io/text             src/base src/json
src/chat            src/base src/json io/text
io/data             src/base parallel/comm io/file
io/metrics          src/base src/host src/config
io/checkpoint       src/base src/config src/ops src/params parallel/comm io/file
io/hf               src/base src/json src/config src/ops src/params io/file io/text io/checkpoint
src/serve           src/base src/json src/config src/ops src/model parallel/comm parallel/axes io/text io/hf src/chat
src/corpus          src/base src/host src/config parallel/comm io/file io/text io/data io/checkpoint src/chat
src/train           src/base src/host src/json src/config src/device src/observe src/params src/model
src/train           parallel/comm parallel/watch parallel/pipeline
src/train           io/file io/text io/data io/metrics io/checkpoint io/hf
src/programs        src/base src/host src/config src/device src/serve src/corpus src/train parallel/comm
src/programs        io/file io/text io/checkpoint io/hf
'
# header:who may include it
foreign='mpi.h:parallel/ nccl.h:parallel/nccl hdf5.h:io/ cuda_runtime.h:cuda cublasLt.h:cuda cudnn.h:cuda
         cudnn_frontend.h:cuda'

# empty WHAT: nothing was found to be wrong
empty() { [ ! -s "$TMPDIR/wrong" ]; check $? "$1"; }
shown=$TMPDIR/wrong

echo "$table" | awk '
    { for (i = 2; i <= NF; i++) if (!($i in seen)) print $1 " names " $i ", which does not stand above it" }
    { seen[$1] = 1 }' > "$TMPDIR/wrong"
empty "in the table a room names only rooms above it"

find src parallel io cuda \( -name '*.[ch]' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' \) > "$TMPDIR/files"
# FILE HEADER, an include a line
xargs grep -H '^#include' < "$TMPDIR/files" | sed -E 's/^([^:]*):#include *[<"]([^>"]*)[>"].*/\1 \2/' \
    > "$TMPDIR/includes"
counts="$(wc -l < "$TMPDIR/includes") includes of $(wc -l < "$TMPDIR/files") files"

{ echo "$table"; cat "$TMPDIR/includes"; } | awk '
    function room(file) { sub("/[^/]*$", "", file); return file }
    $1 !~ /\./ { for (i = 1; i <= NF; i++) may[$1, $i] = 1; if (NF) known[$1] = 1; next }
    !(room($1) in known) { if (!said[room($1)]++) print $1 " is in no room of the table"; next }
    $2 ~ /^(src|parallel|io|cuda)\// && !((room($1), room($2)) in may) { print $1 " includes " $2 }' > "$TMPDIR/wrong"
empty "$counts go where the table lets them"

{ cat "$TMPDIR/includes"; echo "$table"; } | awk '
    function room(file) { sub("/[^/]*$", "", file); return file }
    $1 ~ /\./ { used[room($1), room($2)] = 1; next }
    { for (i = 2; i <= NF; i++) if (!(($1, $i) in used)) print $1 " includes nothing of " $i }' > "$TMPDIR/wrong"
empty "all that the table allows is used"

for pair in $foreign; do
    awk -v header="${pair%%:*}" -v room="${pair#*:}" \
        '$2 == header && index($1, room) != 1 { print $1 " includes " $2 }' "$TMPDIR/includes"
done > "$TMPDIR/wrong"
empty "MPI, NCCL, HDF5, CUDA and cuDNN are included by the rooms that are for them"

awk 'NR == FNR { name = $1; sub(".*/", "", name); ours[name] = 1; next } $2 in ours { print $1 " includes " $2 }' \
    "$TMPDIR/files" "$TMPDIR/includes" > "$TMPDIR/wrong"
empty "an include of ours names the room"

# a set of rooms, in one order
rooms() { tr -s ' ' '\n' | sed '/^$/d' | sort -u | tr '\n' ' '; }
for room in $(echo "$table" | awk 'NF { print $1 }' | sort -u); do
    may=$(echo "$table" | awk -v room="$room" '$1 == room { $1 = ""; print }' | rooms)
    line=$(grep '^May include: .*\.$' "$room/README.md" 2> /dev/null)
    told=$(echo "$line" | sed 's/^May include: //; s/nothing of ours//; s/\.$//' | tr -d '`,' | rooms)
    [ -n "$line" ] && [ "$may" = "$told" ] || echo "$room/README.md: \"$line\"; the table: $may"
done > "$TMPDIR/wrong"
empty "each room's README.md says what the table does"

# USER DEFINER, a pair a line, of the objects whose sources are there
lacks "files that need each other" nm tsort || {
    grep -v 'h$' "$TMPDIR/files" | while read -r source; do
        object=$MOAI_BIN/${source%.*}.o
        [ ! -e "$object" ] || nm "$object" |
            awk -v file="$source" '$(NF - 1) ~ /^[TDBRVU]$/ { print $(NF - 1), $NF, file }'
    done | sort -u > "$TMPDIR/symbols"
    awk '$1 != "U" { by[$2] = $3; next } { use[++n] = $2; user[n] = $3 }
         END { for (i = 1; i <= n; i++) if (use[i] in by && by[use[i]] != user[i]) print user[i], by[use[i]] }' \
        "$TMPDIR/symbols" | sort -u > "$TMPDIR/pairs"
    tsort "$TMPDIR/pairs" 2> "$TMPDIR/wrong" > "$TMPDIR/order"
    [ -s "$TMPDIR/order" ] || echo "no symbols in $MOAI_BIN" >> "$TMPDIR/wrong"
    empty "no circle among $(wc -l < "$TMPDIR/pairs") pairs of files of which one uses what the other defines"
}
done_testing
