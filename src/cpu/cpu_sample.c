/* cpu_sample.c: the next token of each row of logits */
#include "src/cpu/cpu.h"

void sample_cpu(moai_device *dev, int32_t *ids, tensor logits, const double *u, sample_options how)
{
    const int64_t n = logits.cols;
    const size_t list = (size_t)n * sizeof(candidate), room = list + (size_t)n * sizeof(float);
    char *all = device_scratch(dev, (size_t)dev->n_threads * (size_t)round_up((int64_t)room, 64));

    CHECK(logits.dt == DT_F32, "sample: logits are fp32, not %s", dtype_name(logits.dt));
    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < logits.rows; i++) {
        char *mine = all + (size_t)omp_get_thread_num() * (size_t)round_up((int64_t)room, 64);
        sampler s = {.opt = how, .n_vocab = n, .list = (candidate *)mine, .spare = (float *)(mine + list)};
        ids[i] = sampler_draw(&s, tensor_at(logits, i, 0), u[i]);
    }
}
