/* samples.h: a micro-batch of whole samples, as the loader gives them. */
#ifndef SAMPLES_H
#define SAMPLES_H

#include "src/model/model.h"

/* samples (micro_batch, seq_len + 1), all of which count. */
static inline void set_samples(moai_model *m, int slot, const int32_t *samples)
{
    token_batch b;

    batch_init(&b, m->ctx.n_tokens);
    batch_samples(&b, samples, m->opt.micro_batch, m->opt.micro_batch, m->opt.seq_len);
    model_set_batch(m, slot, &b);
    batch_free(&b);
}

#endif
