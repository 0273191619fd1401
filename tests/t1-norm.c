/* RMSNorm, the residual sum before it, and QK-norm with the rotation, forward and backward, against fp64;
 * -d names the device. */
#include "tests/lib/battery.h"

static const double eps = 1e-6;

/* -- RMSNorm of rows -- */

typedef struct norm_problem {
    int64_t rows, cols;
    const double *x, *w, *dn;
} norm_problem;

static double reciprocal(const double *x, int64_t n)
{
    double squares = 0.0;
    for (int64_t j = 0; j < n; j++) squares += x[j] * x[j];
    return 1.0 / sqrt(squares / (double)n + eps);
}

static void norm_row(double *n, const double *x, const double *w, int64_t cols)
{
    double r = reciprocal(x, cols);
    for (int64_t j = 0; j < cols; j++) n[j] = w[j] * x[j] * r;
}

/* dx = , dw += */
static void norm_row_backward(double *dx, double *dw, const double *dn, const double *x, const double *w, int64_t cols)
{
    double r = reciprocal(x, cols), mean = 0.0;
    for (int64_t j = 0; j < cols; j++) mean += dn[j] * w[j] * x[j] / (double)cols;
    for (int64_t j = 0; j < cols; j++) {
        dw[j] += dn[j] * x[j] * r;
        dx[j] = r * (dn[j] * w[j] - x[j] * r * r * mean);
    }
}

static double norm_loss(const void *problem)
{
    const norm_problem *p = problem;
    double *n = doubles(p->cols), sum = 0.0;
    for (int64_t i = 0; i < p->rows; i++) {
        norm_row(n, p->x + i * p->cols, p->w, p->cols);
        for (int64_t j = 0; j < p->cols; j++) sum += n[j] * p->dn[i * p->cols + j];
    }
    free(n);
    return sum;
}

static void check_forward(dtype dt, int64_t rows, int64_t cols, bool strided)
{
    field x = field_random("x", dt, rows, cols, strided), o = field_random("o", dt, rows, cols, strided),
          w = field_random("w", dt, 1, cols, false);
    field n = field_output("n", dt, rows, cols, strided), h = field_output("h", dt, rows, cols, strided),
          r = field_output("r", DT_F32, 1, rows, false);
    double *ref = doubles(rows * cols), *ref_r = doubles(rows), *sum = doubles(rows * cols);

    for (int64_t i = 0; i < rows; i++)
        norm_row(ref + i * cols, x.v + i * cols, w.v, cols), ref_r[i] = reciprocal(x.v + i * cols, cols);
    TWICE(dut.ops->rmsnorm(dut.dev, n.t, r.t.data, x.t, w.t, (float)eps), &n, &r);
    ok_field(&n, ref, 1e-6, "rmsnorm");
    ok_field(&r, ref_r, 5e-7, "rmsnorm");

    for (int64_t i = 0; i < rows * cols; i++) sum[i] = x.v[i] + o.v[i];
    TWICE(dut.ops->residual_rmsnorm(dut.dev, h.t, n.t, r.t.data, x.t, o.t, w.t, (float)eps), &h, &n, &r);
    ok_field(&h, sum, 1e-7, "residual_rmsnorm");
    for (int64_t i = 0; i < rows; i++) {                      /* the norm is that of h as stored */
        for (int64_t j = 0; j < cols; j++) sum[i * cols + j] = field_at(&h, i, j);
        norm_row(ref + i * cols, sum + i * cols, w.v, cols), ref_r[i] = reciprocal(sum + i * cols, cols);
    }
    ok_field(&n, ref, 1e-6, "residual_rmsnorm");
    ok_field(&r, ref_r, 5e-7, "residual_rmsnorm");

    /* recomputation counts on it: the norm of h alone has the same bits */
    for (int64_t i = 0; i < rows * cols; i++) ref[i] = field_at(&n, i / cols, i % cols);
    for (int64_t i = 0; i < rows; i++) ref_r[i] = field_at(&r, 0, i);
    TWICE(dut.ops->rmsnorm(dut.dev, n.t, r.t.data, h.t, w.t, (float)eps), &n, &r);
    ok_field(&n, ref, 0.0, "rmsnorm of what residual_rmsnorm left");
    ok_field(&r, ref_r, 0.0, "rmsnorm of what residual_rmsnorm left");
    FREE(&x, &o, &w, &n, &h, &r);
    free(ref), free(ref_r), free(sum);
}

static void check_backward(dtype dt, int64_t rows, int64_t cols, bool strided)
{
    field x = field_random("x", dt, rows, cols, strided), w = field_random("w", dt, 1, cols, false);
    field dn = field_random("dn", dt, rows, cols, strided), dres = field_random("dres", dt, rows, cols, strided);
    field dx = field_output("dx", dt, rows, cols, strided), dw = field_random("dw", DT_F32, 1, cols, false);
    double *ref = doubles(rows * cols), *ref_res = doubles(rows * cols), *ref_dw = doubles(cols), *r64 = doubles(rows);
    norm_problem p = {rows, cols, x.v, w.v, dn.v};

    for (int64_t i = 0; i < rows; i++) {
        norm_row_backward(ref + i * cols, ref_dw, dn.v + i * cols, x.v + i * cols, w.v, cols);
        r64[i] = reciprocal(x.v + i * cols, cols);
    }
    ok_gradient(norm_loss, &p, x.v, rows * cols, ref, "RMSNorm's reference dx");
    ok_gradient(norm_loss, &p, w.v, cols, ref_dw, "RMSNorm's reference dw");
    for (int64_t i = 0; i < rows * cols; i++) ref_res[i] = ref[i] + dres.v[i];
    for (int64_t j = 0; j < cols; j++) ref_dw[j] += dw.v[j];
    field r = field_make("r", DT_F32, 1, rows, false, r64);
    tensor none = {0};

    TWICE(dut.ops->rmsnorm_backward(dut.dev, dx.t, dw.t, dn.t, none, x.t, r.t.data, w.t), &dx, &dw);
    ok_field(&dx, ref, 1e-6, "rmsnorm_backward");
    ok_field(&dw, ref_dw, 3e-6, "rmsnorm_backward");
    TWICE(dut.ops->rmsnorm_backward(dut.dev, dx.t, none, dn.t, none, x.t, r.t.data, w.t), &dx);
    ok_field(&dx, ref, 1e-6, "rmsnorm_backward of a weight that is not trained");
    field_restart(&dw);
    TWICE(dut.ops->rmsnorm_backward(dut.dev, dx.t, dw.t, dn.t, dres.t, x.t, r.t.data, w.t), &dx, &dw);
    ok_field(&dx, ref_res, 1e-6, "rmsnorm_backward plus the residual's");
    ok_field(&dw, ref_dw, 3e-6, "rmsnorm_backward plus the residual's");
    TWICE(dut.ops->rmsnorm_backward(dut.dev, dres.t, dw.t, dn.t, dres.t, x.t, r.t.data, w.t), &dres);
    ok_field(&dres, ref_res, 1e-6, "rmsnorm_backward, dx is dres");
    TWICE(dut.ops->rmsnorm_backward(dut.dev, dn.t, dw.t, dn.t, none, x.t, r.t.data, w.t), &dn);
    ok_field(&dn, ref, 1e-6, "rmsnorm_backward, dx is dn");
    FREE(&x, &w, &dn, &dres, &dx, &dw, &r);
    free(ref), free(ref_res), free(ref_dw), free(r64);
}

/* -- QK-norm and rotation -- */

typedef struct qk_problem {
    head_shape s;
    int64_t rows;
    const double *qkv, *q_norm, *k_norm, *cos, *sin, *dqk;
    const int32_t *positions;
} qk_problem;

static int64_t qk_heads(const qk_problem *p) { return p->s.n_heads + p->s.n_kv_heads; }
static const double *head_of(const qk_problem *p, int64_t row, int64_t h)
{
    return p->qkv + (row * (qk_heads(p) + p->s.n_kv_heads) + h) * p->s.head_dim;
}

/* y = R(position) x, or R^T x */
static void rotate(double *y, const double *x, const qk_problem *p, int64_t row, double direction)
{
    int64_t half = p->s.head_dim / 2;
    for (int64_t j = 0; j < half; j++) {
        double c = p->cos[p->positions[row] * half + j], s = direction * p->sin[p->positions[row] * half + j];
        y[j] = x[j] * c - x[half + j] * s;
        y[half + j] = x[half + j] * c + x[j] * s;
    }
}

static void qk_reference(const qk_problem *p, double *qk, double *r)
{
    int64_t d = p->s.head_dim;
    double *n = doubles(d);
    for (int64_t i = 0; i < p->rows; i++) {
        for (int64_t h = 0; h < qk_heads(p); h++) {
            norm_row(n, head_of(p, i, h), h < p->s.n_heads ? p->q_norm : p->k_norm, d);
            rotate(qk + (i * qk_heads(p) + h) * d, n, p, i, 1.0);
            if (r) r[i * qk_heads(p) + h] = reciprocal(head_of(p, i, h), d);
        }
    }
    free(n);
}

/* dqkv (its v columns stay), dq_norm, dk_norm += */
static void qk_backward_reference(const qk_problem *p, double *dqkv, double *dq_norm, double *dk_norm)
{
    int64_t d = p->s.head_dim;
    double *dn = doubles(d);
    for (int64_t i = 0; i < p->rows; i++) {
        for (int64_t h = 0; h < qk_heads(p); h++) {
            bool is_q = h < p->s.n_heads;
            rotate(dn, p->dqk + (i * qk_heads(p) + h) * d, p, i, -1.0);
            norm_row_backward(dqkv + (head_of(p, i, h) - p->qkv), is_q ? dq_norm : dk_norm, dn, head_of(p, i, h),
                              is_q ? p->q_norm : p->k_norm, d);
        }
    }
    free(dn);
}

static double qk_loss(const void *problem)
{
    const qk_problem *p = problem;
    int64_t n = p->rows * qk_heads(p) * p->s.head_dim;
    double *qk = doubles(n), sum = 0.0;
    qk_reference(p, qk, NULL);
    for (int64_t i = 0; i < n; i++) sum += qk[i] * p->dqk[i];
    free(qk);
    return sum;
}

static void check_qknorm(dtype dt, int64_t rows, int64_t n_heads, int64_t n_kv_heads, int64_t d, bool strided)
{
    enum { N_POSITIONS = 50 };
    int64_t n_qk = n_heads + n_kv_heads, width = (n_qk + n_kv_heads) * d, half = d / 2;
    head_shape s = {.n_heads = n_heads, .n_kv_heads = n_kv_heads, .head_dim = d, .scale = 1.0f};
    int32_t *positions = xmalloc((size_t)rows * sizeof *positions);
    double *angle = random_doubles(N_POSITIONS * half), *cosines = doubles(N_POSITIONS * half),
           *sines = doubles(N_POSITIONS * half);

    for (int64_t i = 0; i < rows; i++) positions[i] = (int32_t)((i * 7 + 3) % N_POSITIONS);
    for (int64_t i = 0; i < N_POSITIONS * half; i++)
        cosines[i] = 1.1 * cos(3.0 * angle[i]), sines[i] = 1.1 * sin(3.0 * angle[i]);
    field cos_f = field_make("cos", DT_F32, N_POSITIONS, half, false, cosines),
          sin_f = field_make("sin", DT_F32, N_POSITIONS, half, false, sines);
    field qkv = field_random("qkv", dt, rows, width, strided), q_norm = field_random("q_norm", dt, 1, d, false),
          k_norm = field_random("k_norm", dt, 1, d, false);
    field dqk = field_random("dqk", dt, rows, n_qk * d, strided), qk = field_output("qk", dt, rows, n_qk * d, strided);
    field r = field_output("r", DT_F32, rows, n_qk, false), dqkv = field_random("dqkv", dt, rows, width, strided);
    field dq_norm = field_random("dq_norm", DT_F32, 1, d, false),
          dk_norm = field_random("dk_norm", DT_F32, 1, d, false);
    int32_t *positions_d = to_device(positions, (size_t)rows * sizeof *positions);
    rope_table rope = {cos_f.t, sin_f.t};
    qk_problem p = {s, rows, qkv.v, q_norm.v, k_norm.v, cos_f.v, sin_f.v, dqk.v, positions};
    double *ref = doubles(rows * n_qk * d), *ref_r = doubles(rows * n_qk), *ref_dq = doubles(d), *ref_dk = doubles(d),
           *ref_dqkv = doubles(rows * width);

    qk_reference(&p, ref, ref_r);
    qk_backward_reference(&p, ref_dqkv, ref_dq, ref_dk);
    ok_gradient(qk_loss, &p, qkv.v, rows * width, ref_dqkv, "QK-norm's reference dqkv");
    ok_gradient(qk_loss, &p, q_norm.v, d, ref_dq, "QK-norm's reference dq_norm");
    ok_gradient(qk_loss, &p, k_norm.v, d, ref_dk, "QK-norm's reference dk_norm");
    for (int64_t i = 0; i < rows; i++)                        /* the v columns are another op's */
        memcpy(ref_dqkv + i * width + n_qk * d, dqkv.v + i * width + n_qk * d,
               (size_t)(n_kv_heads * d) * sizeof(double));
    for (int64_t j = 0; j < d; j++) ref_dq[j] += dq_norm.v[j], ref_dk[j] += dk_norm.v[j];

    TWICE(dut.ops->qknorm_rope(dut.dev, qk.t, r.t.data, qkv.t, q_norm.t, k_norm.t, rope, positions_d, s, (float)eps),
          &qk, &r);
    ok_field(&qk, ref, 5e-7, "qknorm_rope");
    ok_field(&r, ref_r, 1e-6, "qknorm_rope");
    TWICE(dut.ops->qknorm_rope_backward(dut.dev, dqkv.t, dq_norm.t, dk_norm.t, dqk.t, qkv.t, r.t.data, q_norm.t,
                                        k_norm.t, rope, positions_d, s),
          &dqkv, &dq_norm, &dk_norm);
    ok_field(&dqkv, ref_dqkv, 1e-6, "qknorm_rope_backward");
    ok_field(&dq_norm, ref_dq, 3e-6, "qknorm_rope_backward");
    ok_field(&dk_norm, ref_dk, 3e-6, "qknorm_rope_backward");
    FREE(&cos_f, &sin_f, &qkv, &q_norm, &k_norm, &dqk, &qk, &r, &dqkv, &dq_norm, &dk_norm);
    dut.ops->free(dut.dev, positions_d);
    free(positions), free(angle), free(cosines), free(sines), free(ref), free(ref_r), free(ref_dq), free(ref_dk),
        free(ref_dqkv);
}

int main(int argc, char **argv)
{
    static const dtype three[] = {DT_F32, DT_BF16, DT_F16};

    battery_open(argc, argv);
    for (int strided = 0; strided < 2; strided++) {
        for (int i = 0; i < 3; i++) {
            check_forward(three[i], 5, 67, strided);
            check_forward(three[i], 130, 256, strided);
            check_forward(three[i], 3, 3840, strided);
            check_backward(three[i], 3, 67, strided);
            check_backward(three[i], 150, 96, strided);
            check_backward(three[i], 9, 3840, strided);
            check_forward(three[i], 2, 5120, strided);
            check_forward(three[i], 2, 10240, strided);
            check_forward(three[i], 3, 1027, strided);
            check_forward(three[i], 2, 3001, strided);
            check_backward(three[i], 2, 10240, strided);
            check_backward(three[i], 3, 1027, strided);
            check_backward(three[i], 3, 3001, strided);
            check_forward(three[i], 9000, 40, strided);       /* blocks of a GPU take many rows, some one more */
            check_forward(three[i], 9000, 37, strided);
            check_backward(three[i], 9000, 40, strided);
            check_backward(three[i], 9000, 37, strided);
            check_backward(three[i], 450, 3840, strided);
            check_backward(three[i], 200, 4104, strided);
            check_qknorm(three[i], 70, 7, 1, 16, strided);
            check_qknorm(three[i], 9, 4, 2, 10, strided);
            check_qknorm(three[i], 3, 3, 1, 64, strided);
            check_qknorm(three[i], 11, 28, 4, 128, strided);
            check_qknorm(three[i], 2, 2, 1, 256, strided);
            check_qknorm(three[i], 300, 28, 4, 128, strided);
            check_qknorm(three[i], 20000, 1, 1, 16, strided);
            check_qknorm(three[i], 500, 63, 3, 16, strided);  /* blocks share a row */
            check_qknorm(three[i], 1500, 4, 2, 10, strided);
            check_qknorm(three[i], 70, 5, 1, 80, strided);
            check_qknorm(three[i], 300, 15, 1, 144, strided);
            check_qknorm(three[i], 3, 1, 1, 512, strided);
        }
    }
    return battery_done();
}
