/* grid_dry.c: see grid_dry in grid.h */
#include "parallel/comm/grid.h"

static comm_request gather(const comm *, void *, const void *, size_t, dtype) { return (comm_request){0}; }
static comm_request reduce(const comm *, void *, size_t, dtype, reduce_op) { return (comm_request){0}; }
static comm_request broadcast(const comm *, void *, size_t, dtype, int) { return (comm_request){0}; }
static comm_request send(const comm *, const void *, size_t, dtype, int, int) { return (comm_request){0}; }
static comm_request recv(const comm *, void *, size_t, dtype, int, int) { return (comm_request){0}; }
static void end(comm_request *) {}
static void free_(comm *) {}

static const comm_ops comm_dry = {.name = "dry", .all_gather = gather, .reduce_scatter = gather, .all_reduce = reduce,
                                  .broadcast = broadcast, .send = send, .recv = recv, .end = end, .free = free_};

const comm comm_alone = {.ops = &comm_dry, .axis = "alone", .size = 1};

static comm axis(const char *name, int rank, int size)
{
    return (comm){.ops = &comm_dry, .axis = name, .rank = rank, .size = size};
}

void grid_dry(moai_grid *g, grid_shape size, grid_shape at, int n_kv_heads)
{
    const int copies = size.tp > n_kv_heads ? size.tp / n_kv_heads : 1;
    const bool edge = size.pp > 1 && (at.pp == 0 || at.pp == size.pp - 1);

    *g = (moai_grid){.size = size, .at = at, .world = size.tp * size.cp * size.dp * size.pp,
                     .rank = at.tp + size.tp * (at.cp + size.cp * (at.dp + size.dp * at.pp)),
                     .tp = axis("tp", at.tp, size.tp), .cp = axis("cp", at.cp, size.cp),
                     .data = axis("dp", grid_data_rank(size, at), grid_data_size(size)),
                     .pp = axis("pp", at.pp, size.pp),
                     .kv = axis("kv", at.tp % copies, copies),
                     .embed = axis("embed", edge && at.pp ? 1 : 0, edge ? 2 : 1)};
    g->host_world = axis("world", g->rank, g->world);
    g->host_dp = axis("dp", at.dp, size.dp);
    g->host_samples = axis("tp", at.tp + size.tp * at.cp, size.tp * size.cp);
}
