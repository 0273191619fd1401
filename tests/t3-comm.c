/* run: mpirun -np 4 %s */
/* Every collective against what plain arithmetic says, for dtypes, sizes, in place, overlapping, and in pieces. */
#include "parallel/comm/comm_mpi.h"
#include "parallel/comm/grid.h"
#include "tests/lib/tap.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static moai_grid grid;

static bool agree(bool holds)
{
    moai_error err = {.text = "t3-comm"};
    return comm_agree(&grid.host_world, !holds, &err) == 0;
}

/* Small whole numbers and quarters, exact in every dtype, sums of 4 of them too. */
static double value_at(int rank, size_t i) { return (double)((i * 7 + (size_t)rank * 5) % 13) + (double)(rank + 1); }

static void put(void *buf, dtype dt, size_t i, double x)
{
    float f = (float)x;
    uint32_t bits;

    memcpy(&bits, &f, 4);
    switch (dt) {
    case DT_F32: ((float *)buf)[i] = f; break;
    case DT_BF16: ((uint16_t *)buf)[i] = (uint16_t)(bits >> 16); break;       /* exact for what is put here */
    case DT_F16: ((_Float16 *)buf)[i] = (_Float16)x; break;
    case DT_F64: ((double *)buf)[i] = x; break;
    case DT_I32: ((int32_t *)buf)[i] = (int32_t)x; break;
    case DT_U8: ((uint8_t *)buf)[i] = (uint8_t)x; break;
    }
}

static double get(const void *buf, dtype dt, size_t i)
{
    float f;
    uint32_t bits;

    switch (dt) {
    case DT_F32: return ((const float *)buf)[i];
    case DT_BF16: bits = (uint32_t)((const uint16_t *)buf)[i] << 16; memcpy(&f, &bits, 4); return f;
    case DT_F16: return (double)((const _Float16 *)buf)[i];
    case DT_F64: return ((const double *)buf)[i];
    case DT_I32: return ((const int32_t *)buf)[i];
    case DT_U8: return ((const uint8_t *)buf)[i];
    }
    return NAN;
}

static void fill(void *buf, dtype dt, size_t n, int rank)
{
    for (size_t i = 0; i < n; i++) put(buf, dt, i, value_at(rank, i));
}

static double sum_at(int size, size_t i)
{
    double sum = 0;
    for (int r = 0; r < size; r++) sum += value_at(r, i);
    return sum;
}

static double max_at(int size, size_t i)
{
    double max = -1;
    for (int r = 0; r < size; r++) max = fmax(max, value_at(r, i));
    return max;
}

static bool gathers(const comm *c, dtype dt, size_t n, bool in_place)
{
    size_t whole = n * (size_t)c->size, bytes = dtype_size(dt);
    char *out = xmalloc(whole * bytes), *apart = xmalloc(n * bytes);
    void *in = in_place ? out + (size_t)c->rank * n * bytes : apart;
    bool good = true;

    fill(in, dt, n, c->rank);
    comm_request r = all_gather_begin(c, out, in, n, dt);
    comm_end(&r);
    for (size_t i = 0; i < whole; i++) good &= get(out, dt, i) == value_at((int)(i / n), i % n);
    free(out);
    free(apart);
    return good && !r.on;
}

static bool scatters(const comm *c, dtype dt, size_t n, bool in_place)
{
    size_t whole = n * (size_t)c->size, bytes = dtype_size(dt), own = (size_t)c->rank * n;
    char *in = xmalloc(whole * bytes), *apart = xmalloc(n * bytes);
    void *out = in_place ? in + own * bytes : apart;
    bool good = true;

    fill(in, dt, whole, c->rank);
    comm_request r = reduce_scatter_begin(c, out, in, n, dt);
    comm_end(&r);
    for (size_t i = 0; i < n; i++) good &= get(out, dt, i) == sum_at(c->size, own + i);
    free(in);
    free(apart);
    return good;
}

static bool reduces(const comm *c, dtype dt, size_t n, reduce_op op)
{
    void *buf = xmalloc(n * dtype_size(dt));
    bool good = true;

    fill(buf, dt, n, c->rank);
    comm_request r = all_reduce_begin(c, buf, n, dt, op);
    comm_end(&r);
    for (size_t i = 0; i < n; i++)
        good &= get(buf, dt, i) == (op == REDUCE_SUM ? sum_at(c->size, i) : max_at(c->size, i));
    free(buf);
    return good;
}

static bool broadcasts(const comm *c, dtype dt, size_t n, int root)
{
    void *buf = xmalloc(n * dtype_size(dt));
    bool good = true;

    fill(buf, dt, n, c->rank);
    comm_request r = broadcast_begin(c, buf, n, dt, root);
    comm_end(&r);
    for (size_t i = 0; i < n; i++) good &= get(buf, dt, i) == value_at(root, i);
    free(buf);
    return good;
}

static bool passes_around(const comm *c, dtype dt, size_t n)
{
    int next = (c->rank + 1) % c->size, last = (c->rank + c->size - 1) % c->size;
    void *out = xmalloc(n * dtype_size(dt)), *in = xmalloc(n * dtype_size(dt));
    bool good = true;

    fill(out, dt, n, c->rank);
    comm_request s = send_begin(c, out, n, dt, next, 0), r = recv_begin(c, in, n, dt, last, 0);
    comm_end(&r);
    comm_end(&s);
    for (size_t i = 0; i < n; i++) good &= get(in, dt, i) == value_at(last, i);
    free(out);
    free(in);
    return good;
}

static void test_sizes(const comm *c, size_t max_count)
{
    static const size_t sizes[] = {0, 1, 3, 257, 4096, 100003};
    static const dtype types[] = {DT_F32, DT_BF16, DT_F16, DT_F64, DT_I32, DT_U8};

    comm_mpi_max_count = max_count;
    for (int t = 0; t < 6; t++) {
        dtype dt = types[t];
        bool gather = true, scatter = true, sum = true, max = true, cast = true, pass = true;
        for (int s = 0; s < 6; s++) {
            size_t n = sizes[s];
            gather &= gathers(c, dt, n, false) && gathers(c, dt, n, true);
            scatter &= scatters(c, dt, n, false) && scatters(c, dt, n, true);
            sum &= reduces(c, dt, n, REDUCE_SUM);
            max &= reduces(c, dt, n, REDUCE_MAX);
            for (int root = 0; root < c->size; root++) cast &= broadcasts(c, dt, n, root);
            if (c->size > 1) pass &= passes_around(c, dt, n);
        }
        const char *name = dtype_name(dt), *calls = max_count < INT_MAX ? ", in pieces" : "";
        ok(gather, "all_gather over %s, %s%s", c->axis, name, calls);
        ok(scatter, "reduce_scatter over %s, %s%s", c->axis, name, calls);
        ok(sum, "all_reduce sum over %s, %s%s", c->axis, name, calls);
        ok(max, "all_reduce max over %s, %s%s", c->axis, name, calls);
        ok(cast, "broadcast over %s from every root, %s%s", c->axis, name, calls);
        ok(pass, "send and recv around %s, %s%s", c->axis, name, calls);
    }
    comm_mpi_max_count = INT_MAX;
}

/* 256 + 1 + 1 + 1 needs the sum in fp32: in bf16 (8 bits) each single addition would round back to 256. */
static void test_rounding(const comm *c)
{
    uint16_t in[4], out;
    for (int i = 0; i < 4; i++) put(in, DT_BF16, (size_t)i, c->rank == 0 ? 256 : 1);
    comm_request r = reduce_scatter_begin(c, &out, in, 1, DT_BF16);
    comm_end(&r);
    ok(get(&out, DT_BF16, 0) == 260, "bf16 reduce_scatter adds in fp32: 256 + 1 + 1 + 1 = 259, to even 260");

    float nan = c->rank == 2 ? NAN : 1;
    comm_all_reduce(c, &nan, 1, DT_F32, REDUCE_SUM);
    ok(isnan(nan), "a NaN of one rank reaches all");
    uint16_t half_nan = c->rank == 2 ? 0x7fff : 0x3f80;
    comm_all_reduce(c, &half_nan, 1, DT_BF16, REDUCE_SUM);
    ok((half_nan & 0x7fff) > 0x7f80, "and in bf16, of the greatest payload");
}

/* Sums whose order matters: the same on every rank and every time. */
static void test_same_bits(const comm *c)
{
    enum { N = 50021 };
    float *x = xmalloc(N * sizeof *x), *y = xmalloc(N * sizeof *y), *all = xmalloc(4 * N * sizeof *all);
    bool again = true, everywhere = true;

    for (int turn = 0; turn < 3; turn++) {
        for (int i = 0; i < N; i++) y[i] = sinf((float)(i * 4 + c->rank)) * expf((float)(i % 23 - 11));
        comm_all_reduce(c, y, N, DT_F32, REDUCE_SUM);
        if (turn == 0) memcpy(x, y, N * sizeof *x);
        again &= memcmp(x, y, N * sizeof *x) == 0;
    }
    comm_request r = all_gather_begin(c, all, x, N, DT_F32);
    comm_end(&r);
    for (int rank = 0; rank < c->size; rank++) everywhere &= memcmp(all + (size_t)rank * N, x, N * sizeof *x) == 0;
    ok(again, "an fp32 sum is the same bits every time");
    ok(everywhere, "an fp32 sum is the same bits on every rank");
    free(x);
    free(y);
    free(all);
}

static void test_overlap(const comm *c)
{
    enum { N = 30000, DEEP = 5 };
    static float in[DEEP][4 * N], scattered[DEEP][N], gathered[DEEP][4 * N], summed[DEEP][N];
    comm_request s[DEEP], g[DEEP], a[DEEP];
    bool good = true;

    for (int k = 0; k < DEEP; k++) {
        for (size_t i = 0; i < 4 * N; i++) in[k][i] = (float)(value_at(c->rank, i) * (k + 1));
        memcpy(summed[k], in[k], sizeof summed[k]);
        s[k] = reduce_scatter_begin(c, scattered[k], in[k], N, DT_F32);
        g[k] = all_gather_begin(c, gathered[k], in[k], N, DT_F32);
        a[k] = all_reduce_begin(c, summed[k], N, DT_F32, REDUCE_SUM);
    }
    for (int k = DEEP - 1; k >= 0; k--) {     /* ended from the last, then in a mix */
        comm_end(&a[k]);
        comm_end(&s[k]);
    }
    for (int k = 0; k < DEEP; k++) comm_end(&g[k]);
    for (int k = 0; k < DEEP; k++) {
        for (size_t i = 0; i < N; i++) {
            good &= scattered[k][i] == (float)(sum_at(4, (size_t)c->rank * N + i) * (k + 1));
            good &= summed[k][i] == (float)(sum_at(4, i) * (k + 1));
            for (size_t r = 0; r < 4; r++) good &= gathered[k][r * N + i] == (float)(value_at((int)r, i) * (k + 1));
        }
    }
    ok(good, "15 outstanding collectives, ended in another order");
}

/* Messages of every size class between one pair come in the order they were sent; both directions at once. */
static void test_order(const comm *c)
{
    enum { MESSAGES = 24 };
    int peer = c->rank ^ 1;
    int32_t *out[MESSAGES], *in[MESSAGES];
    comm_request s[MESSAGES], r[MESSAGES];
    bool good = true;

    for (int k = 0; k < MESSAGES; k++) {
        size_t n = k % 3 == 0 ? 1 : k % 3 == 1 ? 3000 : 90000;
        out[k] = xmalloc(n * 4);
        in[k] = xmalloc(90000 * 4);
        for (size_t i = 0; i < n; i++) out[k][i] = c->rank * 1000 + k;
        r[k] = recv_begin(c, in[k], n, DT_I32, peer, 0);
        s[k] = send_begin(c, out[k], n, DT_I32, peer, 0);
    }
    for (int k = MESSAGES - 1; k >= 0; k--) {
        comm_end(&r[k]);
        comm_end(&s[k]);
        good &= in[k][0] == peer * 1000 + k;
    }
    ok(good, "point to point: messages of a pair arrive in order");
    for (int k = 0; k < MESSAGES; k++) free(out[k]), free(in[k]);
}

static void test_agree(const comm *c)
{
    moai_error err = {.text = ""};

    ok(comm_agree(c, false, &err) == 0 && err.text[0] == '\0', "agree: all are well");
    if (c->rank >= 2) error_set(&err, "shard %d unreadable", c->rank);
    ok(comm_agree(c, c->rank >= 2, &err) == -1, "agree: two failures fail everybody");
    ok(strncmp(err.text, "rank 2 ", 7) == 0 && strstr(err.text, ": shard 2 unreadable"),
       "agree: every rank has the lowest one's words: %s", err.text);
    memset(err.text, 0, sizeof err.text);
    if (c->rank == 0) memset(err.text, 'x', sizeof err.text - 1);
    ok(comm_agree(c, c->rank == 0, &err) == -1 && memchr(err.text, 0, sizeof err.text),
       "agree: a text of full length stays within bounds");

    comm alone = comm_mpi_split(-1, 0, "alone");
    error_set(&err, "as it is");
    ok(comm_agree(&alone, true, &err) == -1 && strcmp(err.text, "as it is") == 0, "agree: one rank adds no prefix");
    alone.ops->free(&alone);
}

/* Rank r of `size` has length(r, round) bytes; some have none. */
static size_t length(int rank, int round) { return round == 0 ? 0 : (size_t)(rank * 5 + round) % 7 * (size_t)round * 900; }

static bool bytes_arrive(const comm *c, int round)
{
    size_t n_own = length(c->rank, round), n_all = 0, n_root = c->rank == c->size - 1 ? n_own : 0, at = 0;
    char *own = xmalloc(n_own + 1), *root = c->rank == c->size - 1 ? own : NULL;

    memset(own, 'a' + c->rank, n_own);
    char *all = comm_gather_bytes(c, own, n_own, &n_all);
    bool right = (all != NULL) == (c->rank == 0);
    for (int r = 0; all && r < c->size; r++)
        for (size_t i = 0; i < length(r, round); i++, at++) right = right && at < n_all && all[at] == 'a' + r;
    right = right && (!all || at == n_all);
    comm_broadcast_bytes(c, &root, &n_root, c->size - 1);
    right = right && n_root == length(c->size - 1, round);
    for (size_t i = 0; right && i < n_root; i++) right = root[i] == 'a' + c->size - 1;
    if (root != own) free(root);
    free(own);
    free(all);
    return right;
}

static void test_bytes(void)
{
    for (int size = 1; size <= 4; size++) {
        comm c = comm_mpi_split(grid.rank < size ? 0 : -1, grid.rank, "part");
        bool right = true;
        for (int round = 0; round < 5; round++) right = bytes_arrive(&c, round) && right;
        ok(right, "%d ranks: bytes of any number are gathered, and told to all", size);
        c.ops->free(&c);
    }
}

static void test_alone(void)
{
    comm c = comm_mpi_split(-1, 0, "alone");
    test_sizes(&c, INT_MAX);
    float x[3] = {1, 2, 3};
    comm_request r = all_gather_begin(&c, x, x, 3, DT_F32);
    ok(!r.on && x[2] == 3, "alone: in place is nothing to do, and the request is a finished one");
    comm_barrier(&c);
    c.ops->free(&c);
}

int main(int argc, char **argv)
{
    int world = process_start(&argc, &argv);
    CHECK(world == 4, "run me on 4 ranks, not %d", world);
    grid_init(&grid, (grid_shape){4, 1, 1, 1}, 4);
    tap_agree = agree;

    test_sizes(&grid.tp, INT_MAX);
    test_sizes(&grid.tp, 1000);
    test_alone();
    test_bytes();
    test_rounding(&grid.tp);
    test_same_bits(&grid.tp);
    test_overlap(&grid.tp);
    test_order(&grid.tp);
    test_agree(&grid.host_world);
    comm_barrier(&grid.host_world);

    grid_free(&grid);
    tap_agree = NULL;
    int status = tap_done();
    process_finish();
    return status;
}
