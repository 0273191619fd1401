/* Rotation angles of every scaling against Transformers' (tests/golden/rope.py). */
#include "src/model/rope.h"
#include "tests/lib/tap.h"

#include <stdlib.h>

#include "tests/golden/rope.h"

enum { HEAD_DIM = 16, HALF = HEAD_DIM / 2 };

static model_config config_of(const struct rope_golden *g)
{
    model_config cfg = {
        .head_dim = HEAD_DIM, .max_position_embeddings = g->max_position_embeddings, .rope_theta = g->rope_theta};

    cfg.rope.kind = g->kind, cfg.rope.factor = g->factor;
    cfg.rope.beta_fast = g->beta_fast, cfg.rope.beta_slow = g->beta_slow;
    cfg.rope.attention_factor = g->attention_factor, cfg.rope.mscale = g->mscale,
    cfg.rope.mscale_all_dim = g->mscale_all_dim;
    cfg.rope.original_max_position_embeddings = g->original_max_position_embeddings, cfg.rope.truncate = g->truncate;
    return cfg;
}

int main(void)
{
    for (size_t i = 0; i < sizeof rope_golden / sizeof *rope_golden; i++) {
        const struct rope_golden *g = &rope_golden[i];
        model_config cfg = config_of(g);
        float *cosines = xmalloc((size_t)(g->n_positions * HALF) * sizeof(float)),
              *sines = xmalloc((size_t)(g->n_positions * HALF) * sizeof(float));

        rope_fill(cosines, sines, g->n_positions, g->n_positions, &cfg);
        for (int k = 0; k < 4; k++) {
            int64_t p = g->at[k].position;
            double worst = 0.0;
            for (int j = 0; j < HALF; j++) {
                worst = fmax(worst, fabs(cosines[p * HALF + j] - g->at[k].cos[j]));
                worst = fmax(worst, fabs(sines[p * HALF + j] - g->at[k].sin[j]));
            }
            ok(worst <= 5e-7, "%s: position %lld differs by %.2g", g->name, (long long)p, worst);
        }
        free(cosines), free(sines);
    }
    return tap_done();
}
