/* run: mpirun -np 8 %s */
/* Who shares an axis with whom, on several shapes; factoring of the world. */
#include "parallel/comm/comm_mpi.h"
#include "parallel/comm/grid.h"
#include "tests/lib/tap.h"

#include <stdlib.h>
#include <string.h>

static const comm *world;

static bool agree(bool holds)
{
    int32_t bad = !holds;
    comm_all_reduce(world, &bad, 1, DT_I32, REDUCE_MAX);
    return !bad;
}

static int rank_of(grid_shape n, int tp, int cp, int dp, int pp) { return tp + n.tp * (cp + n.cp * (dp + n.dp * pp)); }

/* The comm holds exactly `n` ranks, first, first + stride, ..., in this order. */
static bool holds_ranks(const comm *c, int n, int first, int stride)
{
    int32_t own = process_rank(), members[16] = {0};

    if (c->size != n) return false;
    comm_request r = all_gather_begin(c, members, &own, 1, DT_I32);
    comm_end(&r);
    for (int i = 0; i < n; i++)
        if (members[i] != first + i * stride) return false;
    return members[c->rank] == own;
}

static void test_axes(grid_shape n, int n_kv_heads)
{
    moai_grid g;
    char shape[64];
    bool good;

    snprintf(shape, sizeof shape, "tp%d cp%d dp%d pp%d, %d kv heads", n.tp, n.cp, n.dp, n.pp, n_kv_heads);
    grid_init(&g, n, n_kv_heads);
    grid_shape at = g.at;
    ok(g.rank == process_rank() && g.world == 8 && rank_of(n, at.tp, at.cp, at.dp, at.pp) == g.rank, "%s: coordinates",
       shape);

    int strides[] = {1, n.tp, n.tp * n.cp, n.tp * n.cp * n.dp};
    ok(holds_ranks(&g.tp, n.tp, rank_of(n, 0, at.cp, at.dp, at.pp), strides[0]), "%s: tensor axis", shape);
    ok(holds_ranks(&g.cp, n.cp, rank_of(n, at.tp, 0, at.dp, at.pp), strides[1]), "%s: context axis", shape);
    good = holds_ranks(&g.data, n.cp * n.dp, rank_of(n, at.tp, 0, 0, at.pp), n.tp);
    good &= holds_ranks(&g.host_samples, n.tp * n.cp, rank_of(n, 0, 0, at.dp, at.pp), 1);
    good &= holds_ranks(&g.host_dp, n.dp, rank_of(n, at.tp, at.cp, 0, at.pp), strides[2]);
    ok(good, "%s: data axis", shape);
    ok(holds_ranks(&g.pp, n.pp, rank_of(n, at.tp, at.cp, at.dp, 0), strides[3]), "%s: pipeline axis", shape);
    ok(holds_ranks(&g.host_world, 8, 0, 1), "%s: world", shape);

    int copies = n.tp > n_kv_heads ? n.tp / n_kv_heads : 1;
    good = holds_ranks(&g.kv, copies, rank_of(n, at.tp / copies * copies, at.cp, at.dp, at.pp), 1);
    ok(good, "%s: %d copies of a KV head", shape, copies);
    bool ends = n.pp > 1 && (grid_first_stage(&g) || grid_last_stage(&g));
    good = ends ? holds_ranks(&g.embed, 2, rank_of(n, at.tp, at.cp, at.dp, 0), strides[3] * (n.pp - 1))
                : g.embed.size == 1;
    ok(good, "%s: first and last stage meet", shape);

    char identity[160];
    snprintf(identity, sizeof identity, "rank %d tp%d cp%d pp%d dp%d host ", g.rank, at.tp, at.cp, at.pp, at.dp);
    ok(strncmp(base_process.identity, identity, strlen(identity)) == 0, "%s: identity %s", shape,
       base_process.identity);
    grid_free(&g);
    ok(!g.tp.ops && !g.host_world.ops, "%s: freed", shape);
}

static void test_factor(void)
{
    moai_error huge;
    grid_shape absurd = {4096, 4096, 65536, 1024};

    ok(grid_ranks(absurd) == -1 && grid_factor(&absurd, 8, &huge) == -1 && strstr(huge.text, "more than 16777216 ranks"),
       "a grid beyond any int: %s", huge.text);
    absurd = (grid_shape){INT32_MAX, INT32_MAX, 0, INT32_MAX};
    ok(grid_factor(&absurd, 8, &huge) == -1 && strstr(huge.text, "more than"), "three times INT32_MAX");

    moai_error err;
    grid_shape s = {2, 1, 0, 2};

    ok(grid_factor(&s, 8, &err) == 0 && s.dp == 2, "8 ranks, tp2 pp2: dp is 2");
    s = (grid_shape){4, 1, 2, 4};
    ok(grid_factor(&s, 32, &err) == 0, "32 = 4 x 2 x 4");
    s = (grid_shape){4, 1, 0, 1};
    ok(grid_factor(&s, 6, &err) == -1 && strstr(err.text, "world size 6 is not tensor_parallel 4"), "refused: %s",
       err.text);
    s = (grid_shape){2, 1, 2, 1};
    ok(grid_factor(&s, 8, &err) == -1 && strstr(err.text, "data_parallel 2"), "refused: %s", err.text);
    s = (grid_shape){16, 1, 0, 1};
    ok(grid_factor(&s, 8, &err) == -1 && strstr(err.text, "tensor_parallel 16"), "refused: %s", err.text);
    s = (grid_shape){-2, 1, 0, 1};
    ok(grid_factor(&s, 8, &err) == -1 && strstr(err.text, "-2"), "refused: %s", err.text);
    s = (grid_shape){65536, 65536, 0, 65536};
    ok(grid_factor(&s, 8, &err) == -1, "refused without overflow: %s", err.text);
    s = (grid_shape){0, 1, 0, 1};
    ok(grid_factor(&s, 8, &err) == -1, "refused: %s", err.text);
}

int main(int argc, char **argv)
{
    int n = process_start(&argc, &argv);
    CHECK(n == 8, "run me on 8 ranks, not %d", n);
    comm all = comm_mpi_split(0, process_rank(), "world");
    world = &all;
    tap_agree = agree;

    test_axes((grid_shape){8, 1, 1, 1}, 2);
    test_axes((grid_shape){1, 1, 8, 1}, 4);
    test_axes((grid_shape){1, 1, 1, 8}, 4);
    test_axes((grid_shape){2, 1, 2, 2}, 1);
    test_axes((grid_shape){4, 1, 2, 1}, 2);
    test_axes((grid_shape){2, 2, 1, 2}, 4);
    test_axes((grid_shape){1, 2, 1, 4}, 4);
    test_axes((grid_shape){2, 2, 2, 1}, 4);
    test_factor();

    const char *from;
    moai_error err;
    unsetenv("OMP_NUM_THREADS");
    ok(process_threads(0, &from, &err) >= 1, "every rank may use a core");
    tap_agree = NULL;
    all.ops->free(&all);
    int status = tap_done();
    process_finish();
    return status;
}
