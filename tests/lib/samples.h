/* samples.h: a micro-batch of whole samples, as the loader gives them. */
#ifndef SAMPLES_H
#define SAMPLES_H

#include "src/model/model.h"

/* samples (micro_batch, seq_len + 1), all of which count. */
static inline void set_samples(moai_model *m, int slot, const int32_t *samples)
{
    batch_samples(&m->batch, samples, m->opt.micro_batch, m->opt.micro_batch, m->opt.seq_len);
    model_set_batch(m, 0, slot, &m->batch);
}

#endif
