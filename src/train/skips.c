/* skips.c: see skips.h */
#include "src/train/skips.h"

void skip_row_add(skip_row *r, int64_t step, bool counts)
{
    if (r->n++ == 0) r->since = step;
    r->n_counted += counts;
}

char *skip_row_text(const skip_row *r)
{
    return xasprintf("%lld steps in a row, since step %lld, have left the weights as they were", (long long)r->n,
                     (long long)r->since);
}

json_t *skip_row_json(const skip_row *r)
{
    return json_pack("{s:I, s:I, s:I}", "since", (json_int_t)r->since, "steps", (json_int_t)r->n, "counted",
                     (json_int_t)r->n_counted);
}

int skip_row_read(skip_row *r, const json_t *object, moai_error *err)
{
    const json_t *since = json_object_get(object, "since"), *n = json_object_get(object, "steps"),
                 *counted = json_object_get(object, "counted");
    const skip_row read = {json_integer_value(since), json_integer_value(n), json_integer_value(counted)};

    if (!json_is_integer(since) || !json_is_integer(n) || !json_is_integer(counted) || read.since < 1 || read.n < 1 ||
        read.n_counted < 0 || read.n_counted > read.n)
        return error_set(err, "skips: not the steps of a row");
    *r = read;
    return 0;
}
