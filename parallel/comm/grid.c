/* grid.c: see grid.h */
#include "parallel/comm/grid.h"

#include "parallel/comm/comm_mpi.h"

#include <stdio.h>
#include <string.h>

static int too_many(grid_shape size, moai_error *err)
{
    return error_set(err, "more than %d ranks in a process grid of tensor_parallel %d x context_parallel %d x "
                     "data_parallel %d x pipeline_parallel %d", GRID_RANKS, size.tp, size.cp, size.dp, size.pp);
}

int grid_ranks(grid_shape size)
{
    const int extent[] = {size.tp, size.cp, size.dp, size.pp};
    int64_t product = 1;

    for (int i = 0; i < 4 && product <= GRID_RANKS; i++) product *= extent[i];
    return product <= GRID_RANKS ? (int)product : -1;
}

int grid_factor(grid_shape *size, int world, moai_error *err)
{
    int *const extent[] = {&size->tp, &size->cp, &size->dp, &size->pp};
    int *open = NULL;
    int64_t product = 1;

    for (int i = 0; i < 4; i++) {
        if (*extent[i] < 0) return error_set(err, "an axis of %d ranks in the process grid", *extent[i]);
        if (*extent[i] > 0) {
            product *= *extent[i];            /* of at most GRID_RANKS and an int */
            if (product > GRID_RANKS) return too_many(*size, err);
        } else {
            if (open) return error_set(err, "only one extent of the process grid may be left to be found");
            open = extent[i];
        }
    }
    if (open && product <= world && world % product == 0) {
        *open = (int)(world / product);
        return 0;
    }
    if (!open && product == world) return 0;

    char data[32] = "any";
    if (size->dp) snprintf(data, sizeof data, "%d", size->dp);
    return error_set(
        err, "world size %d is not tensor_parallel %d x context_parallel %d x data_parallel %s x pipeline_parallel %d",
        world, size->tp, size->cp, data, size->pp);
}

grid_shape grid_coordinates(grid_shape n, int rank)
{
    return (grid_shape){
        .tp = rank % n.tp,
        .cp = rank / n.tp % n.cp,
        .dp = rank / (n.tp * n.cp) % n.dp,
        .pp = rank / (n.tp * n.cp * n.dp),
    };
}

static int rank_at(grid_shape n, grid_shape at) { return at.tp + n.tp * (at.cp + n.cp * (at.dp + n.dp * at.pp)); }

/* The comm of the ranks that name the same origin: the one that stands first in it. */
static comm split(const moai_grid *g, grid_shape origin, int key, const char *axis)
{
    return comm_mpi_split(rank_at(g->size, origin), key, axis);
}

/* The TP / n_kv_heads neighbours on the tensor axis that hold a copy of the same KV head. */
static comm split_kv(const moai_grid *g, int n_kv_heads)
{
    grid_shape first = g->at;

    if (g->size.tp <= n_kv_heads) return comm_mpi_split(-1, 0, "kv");
    CHECK(g->size.tp % n_kv_heads == 0, "tensor_parallel %d is no multiple of %d KV heads", g->size.tp, n_kv_heads);
    int copies = g->size.tp / n_kv_heads;
    first.tp -= first.tp % copies;
    return split(g, first, g->at.tp, "kv");
}

static comm split_embed(const moai_grid *g)
{
    grid_shape first = g->at;

    if (!grid_first_stage(g) && !grid_last_stage(g)) return comm_mpi_split(-1, 0, "embed");
    first.pp = 0;
    return split(g, first, g->at.pp, "embed");
}

static void set_identity(const moai_grid *g)
{
    const char *host = strstr(base_process.identity, "host ");
    char name[80];

    if (g->world == 1) return;
    snprintf(name, sizeof name, "%s", host ? host : "");
    snprintf(base_process.identity, sizeof base_process.identity, "rank %d tp%d cp%d pp%d dp%d %s", g->rank, g->at.tp,
             g->at.cp, g->at.pp, g->at.dp, name);
}

void grid_init(moai_grid *g, grid_shape size, int n_kv_heads)
{
    comm world = comm_mpi_split(0, process_rank(), "world");

    CHECK(size.tp * size.cp * size.dp * size.pp == world.size, "a grid of %d x %d x %d x %d on %d ranks", size.tp,
          size.cp, size.dp, size.pp, world.size);
    *g = (moai_grid){.size = size, .rank = world.rank, .world = world.size, .host_world = world};
    g->at = grid_coordinates(size, g->rank);
    set_identity(g);
    const grid_shape at = g->at;
    const grid_shape tp0 = {0, at.cp, at.dp, at.pp}, cp0 = {at.tp, 0, at.dp, at.pp}, dp0 = {at.tp, at.cp, 0, at.pp},
                     pp0 = {at.tp, at.cp, at.dp, 0}, data0 = {at.tp, 0, 0, at.pp}, samples0 = {0, 0, at.dp, at.pp};
    g->tp = split(g, tp0, at.tp, "tp");
    g->cp = split(g, cp0, at.cp, "cp");
    g->data = split(g, data0, grid_data_rank(size, at), size.cp > 1 ? "data" : "dp");
    g->pp = split(g, pp0, at.pp, "pp");
    g->kv = split_kv(g, n_kv_heads);
    g->embed = split_embed(g);
    g->host_dp = split(g, dp0, at.dp, "dp");
    g->host_samples = split(g, samples0, at.tp + size.tp * at.cp, size.cp > 1 ? "samples" : "tp");
}

void grid_free(moai_grid *g)
{
    comm *const all[] = {&g->tp, &g->cp,    &g->data,    &g->pp,          &g->kv,
                         &g->embed, &g->host_dp, &g->host_samples, &g->host_world};

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i]->ops) all[i]->ops->free(all[i]);
}
