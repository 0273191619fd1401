/* comm.c: blocking conveniences over any backend; see comm.h */
#include "parallel/comm/comm.h"

#include <stdlib.h>
#include <string.h>

void comm_all_reduce(const comm *c, void *buf, size_t n_elem, dtype dt, reduce_op op)
{
    comm_request r = all_reduce_begin(c, buf, n_elem, dt, op);
    comm_end(&r);
}

void comm_broadcast(const comm *c, void *buf, size_t n_elem, dtype dt, int root)
{
    comm_request r = broadcast_begin(c, buf, n_elem, dt, root);
    comm_end(&r);
}

void comm_broadcast_bytes(const comm *c, char **bytes, size_t *n_bytes, int root)
{
    uint64_t n = c->rank == root ? *n_bytes : 0;

    comm_broadcast(c, &n, sizeof n, DT_U8, root);
    if (c->rank != root) *bytes = xmalloc((size_t)n + 1), *n_bytes = (size_t)n;
    comm_broadcast(c, *bytes, (size_t)n, DT_U8, root);
}

static void send_bytes(const comm *c, const char *bytes, size_t n_bytes, int to)
{
    uint64_t n = n_bytes;
    comm_request r = send_begin(c, &n, sizeof n, DT_U8, to, 0);

    comm_end(&r);
    r = send_begin(c, bytes, n_bytes, DT_U8, to, 0);
    comm_end(&r);
}

/* Behind what is there. */
static void receive_bytes(const comm *c, char **bytes, size_t *n_bytes, int from)
{
    uint64_t n = 0;
    comm_request r = recv_begin(c, &n, sizeof n, DT_U8, from, 0);

    comm_end(&r);
    CHECK(*bytes = realloc(*bytes, *n_bytes + n + 1), "out of host memory: %zu bytes", *n_bytes + (size_t)n);
    r = recv_begin(c, *bytes + *n_bytes, n, DT_U8, from, 0);
    comm_end(&r);
    *n_bytes += n;
}

/* In the round of a distance, 1, 2, 4 and so on, every second of the ranks that are left gives what it has gathered,
 * its own and that of the ranks behind it, to the one at that distance before it. */
char *comm_gather_bytes(const comm *c, const char *bytes, size_t n_bytes, size_t *n_all)
{
    char *all = xmalloc(n_bytes + 1);

    if (n_bytes) memcpy(all, bytes, n_bytes);
    *n_all = n_bytes;
    for (int distance = 1; distance < c->size; distance *= 2) {
        if (c->rank & distance) {
            send_bytes(c, all, *n_all, c->rank - distance);
            free(all);
            return NULL;
        }
        if (c->rank + distance < c->size) receive_bytes(c, &all, n_all, c->rank + distance);
    }
    return all;
}

void comm_barrier(const comm *c)
{
    int32_t one = 1;
    comm_all_reduce(c, &one, 1, DT_I32, REDUCE_SUM);
}

int comm_agree(const comm *c, bool failed, moai_error *err)
{
    int32_t last = failed ? c->size - c->rank : 0;    /* greatest on the lowest failing rank, 0 when all are well */

    comm_all_reduce(c, &last, 1, DT_I32, REDUCE_MAX);
    if (last == 0) return 0;
    int teller = c->size - last;
    if (c->rank == teller && c->size > 1 && base_process.identity[0])
        format_elided(err->text, sizeof err->text, "%s: %s", base_process.identity, err->text);
    comm_broadcast(c, err, sizeof *err, DT_U8, teller);
    return -1;
}
