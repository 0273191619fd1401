/* loss_scale.c: see loss_scale.h */
#include "src/train/loss_scale.h"

#include <math.h>

#define KEYS_OF loss_scale_options
#include "src/config/key_rows.h"

static const key_spec rows[] = {
    REAL(initial_loss_scale, "65536", 1, 1e18, "fp16: the loss's gradient is multiplied by this at the start"),
    INT(loss_scale_window, "1000", 1, 1ll << 40, "fp16: steps without overflow until the scale doubles"),
    REAL(min_loss_scale, "1", 1, 1e18, "fp16: each overflow halves the scale, to no less than this"),
};
const key_table loss_scale_keys = KEY_TABLE(rows);

int loss_scale_check(const loss_scale_options *o, moai_error *err)
{
    if (o->min_loss_scale <= o->initial_loss_scale) return 0;
    return error_set(err, "min_loss_scale is %g, must not exceed initial_loss_scale %g", o->min_loss_scale,
                     o->initial_loss_scale);
}

/* Doubling ends here: no fp16 gradient lives at such a scale, and fp32 products with it stay far from overflow. */
#define LARGEST 0x1p40

loss_scale loss_scale_start(const loss_scale_options *o, bool fp16)
{
    return (loss_scale){.value = fp16 ? o->initial_loss_scale : 1};
}

void loss_scale_update(loss_scale *s, const loss_scale_options *o, bool fp16, bool overflowed)
{
    if (!fp16) return;
    if (overflowed)
        *s = (loss_scale){.value = fmax(s->value / 2, o->min_loss_scale)};
    else if (++s->clean_steps >= o->loss_scale_window)
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
