/* loss_scale.c: see loss_scale.h */
#include "src/train/loss_scale.h"

#include <math.h>

/* Doubling ends here: no fp16 gradient lives at such a scale, and fp32 products with it stay far from overflow. */
#define LARGEST 0x1p40

loss_scale loss_scale_start(const run_config *run)
{
    return (loss_scale){.value = run->fp16 ? run->initial_loss_scale : 1};
}

void loss_scale_update(loss_scale *s, const run_config *run, bool overflowed)
{
    if (!run->fp16) return;
    if (overflowed)
        *s = (loss_scale){.value = fmax(s->value / 2, run->min_loss_scale)};
    else if (++s->clean_steps >= run->loss_scale_window)
        *s = (loss_scale){.value = fmax(s->value, fmin(2 * s->value, LARGEST))};
}

json_t *loss_scale_json(const loss_scale *s)
{
    return json_pack("{s:f, s:I}", "value", s->value, "clean_steps", (json_int_t)s->clean_steps);
}

int loss_scale_read(loss_scale *s, const json_t *object, moai_error *err)
{
    const json_t *value = json_object_get(object, "value"), *clean = json_object_get(object, "clean_steps");

    if (!json_is_number(value) || !(json_number_value(value) > 0) || !isfinite(json_number_value(value)))
        return error_set(err, "loss_scale: value is not a positive number");
    if (!json_is_integer(clean) || json_integer_value(clean) < 0)
        return error_set(err, "loss_scale: clean_steps is not a count");
    *s = (loss_scale){.value = json_number_value(value), .clean_steps = json_integer_value(clean)};
    return 0;
}
