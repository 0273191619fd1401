/* rope.c: see rope.h.  Frequencies and angles round to fp32 where Transformers rounds, so that long positions agree. */
#include "src/model/rope.h"

#include <math.h>
#include <stdlib.h>

/* base^(2i/dim), the reciprocal of frequency i */
static float power(double base, int64_t i, int64_t dim)
{
    float exponent = (float)(2 * i) / (float)dim;
    return (float)pow((double)(float)base, (double)exponent);
}

/* The base that stretches the longest wavelength to seq_len (dynamic NTK, r/LocalLLaMA 14mrgpr, as in Transformers). */
static double dynamic_base(int64_t seq_len, const model_config *cfg)
{
    double trained = (double)cfg->max_position_embeddings, factor = cfg->rope.factor, dim = (double)cfg->head_dim;
    double length = fmax((double)seq_len, trained);

    return cfg->rope_theta * pow(factor * length / trained - (factor - 1.0), dim / (dim - 2.0));
}

static double mscale(double factor, double weight) { return factor <= 1.0 ? 1.0 : 0.1 * weight * log(factor) + 1.0; }

/* YaRN's growth of the logits (arXiv 2309.00071, eq. 22), as a factor on cos and sin. */
static double yarn_attention_factor(const model_config *cfg)
{
    double factor = cfg->rope.factor;

    if (cfg->rope.attention_factor != 0.0) return cfg->rope.attention_factor;
    if (cfg->rope.mscale != 0.0 && cfg->rope.mscale_all_dim != 0.0)
        return mscale(factor, cfg->rope.mscale) / mscale(factor, cfg->rope.mscale_all_dim);
    return mscale(factor, 1.0);
}

/* The (fractional) frequency index that turns `rotations` times over the original length. */
static double yarn_index(double rotations, const model_config *cfg)
{
    int64_t original = cfg->rope.original_max_position_embeddings;
    double length = (double)(original ? original : cfg->max_position_embeddings);

    return (double)cfg->head_dim * log(length / (rotations * 2.0 * M_PI)) / (2.0 * log(cfg->rope_theta));
}

/* Frequencies below `low` stay, those above `high` are divided by factor, with a ramp between (NTK-by-parts). */
static float yarn_frequency(int64_t i, const model_config *cfg)
{
    double low = yarn_index(cfg->rope.beta_fast, cfg), high = yarn_index(cfg->rope.beta_slow, cfg);

    if (cfg->rope.truncate) low = floor(low), high = ceil(high);
    low = fmax(low, 0.0);
    high = fmin(high, (double)cfg->head_dim - 1.0);
    if (low == high) high += 0.001;
    float ramp = ((float)i - (float)low) / (float)(high - low);
    float keep = 1.0f - (ramp < 0.0f   ? 0.0f
                         : ramp > 1.0f ? 1.0f
                                       : ramp),
          wavelength = power(cfg->rope_theta, i, cfg->head_dim);
    return 1.0f / ((float)cfg->rope.factor * wavelength) * (1.0f - keep) + 1.0f / wavelength * keep;
}

void rope_fill(float *cos_out, float *sin_out, int64_t n_positions, int64_t seq_len, const model_config *cfg)
{
    int64_t half = cfg->head_dim / 2;
    double base = cfg->rope.kind == ROPE_DYNAMIC ? dynamic_base(seq_len, cfg) : cfg->rope_theta;
    double amplitude = cfg->rope.kind == ROPE_YARN ? yarn_attention_factor(cfg) : 1.0;

    for (int64_t i = 0; i < half; i++) {
        float f = cfg->rope.kind == ROPE_YARN ? yarn_frequency(i, cfg) : 1.0f / power(base, i, cfg->head_dim);
        if (cfg->rope.kind == ROPE_LINEAR) f /= (float)cfg->rope.factor;
        for (int64_t p = 0; p < n_positions; p++) {
            float angle = (float)p * f;
            cos_out[p * half + i] = (float)(amplitude * cos(angle));
            sin_out[p * half + i] = (float)(amplitude * sin(angle));
        }
    }
}

void rope_load(const moai_ctx *c, int64_t n)
{
    const size_t bytes = (size_t)(n * c->cfg->head_dim / 2) * sizeof(float);
    float *cosines = xmalloc(bytes), *sines = xmalloc(bytes);

    rope_fill(cosines, sines, n, n, c->cfg);
    c->ops->copy(c->dev, c->rope.cos.data, cosines, bytes, COPY_TO_DEVICE);
    c->ops->copy(c->dev, c->rope.sin.data, sines, bytes, COPY_TO_DEVICE);
    c->ops->sync(c->dev);
    free(cosines);
    free(sines);
}
