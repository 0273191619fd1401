/* comm.c: blocking conveniences over any backend; see comm.h */
#include "comm.h"

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
