/* resume_keys.c: see resume_keys.h */
#include "src/train/resume_keys.h"

#include "src/config/keys.h"

#include <stdlib.h>
#include <string.h>

bool resume_key_allowed(const char *list, const char *key)
{
    size_t n;

    for (const char *name; (name = names_next(&list, &n));)
        if (n == strlen(key) && memcmp(name, key, n) == 0) return true;
    return false;
}

static bool same_value(const key_spec *k, const run_config *a, const run_config *b)
{
    json_t *x = key_get_json(k, a), *y = key_get_json(k, b);
    const bool same = json_equal(x, y);

    json_decref(x);
    json_decref(y);
    return same;
}

static int refuse(const key_spec *k, const run_config *then, const run_config *now, const char *why, moai_error *err)
{
    json_t *x = key_get_json(k, then), *y = key_get_json(k, now);
    char *was = json_text(x, 0), *is = json_text(y, 0);

    error_set(err, "%s was %s when it was saved, this run has %s%s (--resume_allow %s goes on all the same)", k->name,
              was, is, why, k->name);
    free(was);
    free(is);
    json_decref(x);
    json_decref(y);
    return -1;
}

static bool same_rates(const run_config *a, const run_config *b, int64_t done)
{
    const key_table keys = run_config_keys();
    bool same = true;

    for (int i = 0; i < keys.n; i++)
        if (keys.list[i].on_resume == RESUME_SCHEDULE) same = same && same_value(&keys.list[i], a, b);
    if (same) return true;
    for (int64_t step = 0; step < done; step++)
        if (learning_rate(&a->schedule, step) != learning_rate(&b->schedule, step)) return false;
    return true;
}

static int check(const run_config *then, const run_config *now, int64_t done, moai_error *err)
{
    const key_table keys = run_config_keys();
    const bool rates = same_rates(then, now, done);

    for (int i = 0; i < keys.n; i++) {
        const key_spec *k = &keys.list[i];
        const bool fixed = k->on_resume == RESUME_FIXED, schedule = !rates && k->on_resume == RESUME_SCHEDULE;
        if ((!fixed && !schedule) || same_value(k, then, now) || resume_key_allowed(now->resume_allow, k->name))
            continue;
        return refuse(k, then, now, fixed ? "" : ", with other learning rates for steps already done", err);
    }
    return 0;
}

/* A key that the checkpoint does not know counts as unchanged.  Paths may change, and no saved one is expanded
 * again. */
int resume_keys_check(const run_config *now, const char *saved, int64_t done, moai_error *err)
{
    const key_table keys = run_config_keys();
    json_t *object = json_loads(saved, 0, NULL);
    run_config then = {0};
    int status = 0;

    keys_defaults(keys, &then);
    for (int i = 0; i < keys.n && status == 0; i++) {
        const key_spec *k = &keys.list[i];
        if (k->type == KEY_PATH) continue;
        json_t *own = key_get_json(k, now);
        const json_t *value = json_object_get(object, k->name);
        status = key_set_json(k, &then, k->name, value ? value : own, err);
        json_decref(own);
    }
    if (status == 0) status = check(&then, now, done, err);
    keys_free(keys, &then);
    json_decref(object);
    return status;
}
