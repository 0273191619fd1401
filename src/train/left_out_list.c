/* left_out_list.c: see left_out_list.h */
#include "src/train/left_out_list.h"
#include "src/base/files.h"
#include "src/config/keys.h"

#include <stdlib.h>
#include <string.h>

left_out_list left_out_start(void) { return (left_out_list){.decisions = json_array()}; }

void left_out_free(left_out_list *l)
{
    json_decref(l->decisions);
    free(l->list);
    *l = (left_out_list){0};
}

static int64_t number(const json_t *decision, const char *key)
{
    return json_integer_value(json_object_get(decision, key));
}

static int by_sample(const void *a, const void *b)
{
    const left_out *x = a, *y = b;

    if (x->sample != y->sample) return x->sample < y->sample ? -1 : 1;
    return (x->from > y->from) - (x->from < y->from);
}

/* out[] anew: a sample that is named twice is out from the earlier count on. */
static void sort_out(left_out_list *l)
{
    size_t room = 0, n = 0, d, i;
    const json_t *decision, *sample;

    json_array_foreach(l->decisions, d, decision) room += json_array_size(json_object_get(decision, "samples"));
    free(l->list);
    l->list = xmalloc(room * sizeof *l->list);
    json_array_foreach(l->decisions, d, decision)
        json_array_foreach(json_object_get(decision, "samples"), i, sample)
            l->list[n++] = (left_out){json_integer_value(sample), number(decision, "from")};
    qsort(l->list, n, sizeof *l->list, by_sample);
    l->n = 0;
    for (i = 0; i < n; i++)
        if (l->n == 0 || l->list[l->n - 1].sample != l->list[i].sample) l->list[l->n++] = l->list[i];
}

void left_out_add(left_out_list *l, const left_out_decision *d)
{
    json_t *samples = json_array();

    for (int64_t i = 0; i < d->n_samples; i++) json_array_append_new(samples, json_integer(d->samples[i]));
    json_array_append_new(l->decisions,
                          json_pack("{s:I, s:s, s:f, s:f, s:f, s:I, s:I, s:o}", "step", (json_int_t)d->step, "measure",
                                    d->why.measure, "value", d->why.value, "mean", d->why.mean, "zscore", d->why.zscore,
                                    "back_to", (json_int_t)d->back_to, "from", (json_int_t)d->from, "samples",
                                    samples));
    sort_out(l);
}

int left_out_times(const left_out_list *l, int64_t from)
{
    const json_t *decision;
    size_t i;
    int n = 0;

    json_array_foreach(l->decisions, i, decision) n += number(decision, "from") == from;
    return n;
}

static bool well_formed(const json_t *decision)
{
    const json_t *samples = json_object_get(decision, "samples"), *sample;
    bool well = json_is_array(samples) && json_is_integer(json_object_get(decision, "from")) &&
                number(decision, "from") >= 0;
    size_t i;

    json_array_foreach(samples, i, sample) well = well && json_is_integer(sample) && json_integer_value(sample) >= 0;
    return well;
}

static bool knows(const left_out_list *l, const json_t *wanted)
{
    const json_t *decision;
    size_t i;

    json_array_foreach(l->decisions, i, decision)
        if (number(decision, "from") == number(wanted, "from") &&
            json_equal(json_object_get(decision, "samples"), json_object_get(wanted, "samples")))
            return true;
    return false;
}

int left_out_merge(left_out_list *l, const json_t *decisions, moai_error *err)
{
    json_t *decision;
    size_t i;

    if (!json_is_array(decisions)) return error_set(err, "decisions: not a list");
    json_array_foreach(decisions, i, decision)
        if (!well_formed(decision)) return error_set(err, "decisions: number %zu names no samples and count", i);
    json_array_foreach(decisions, i, decision)
        if (!knows(l, decision)) json_array_append(l->decisions, decision);
    sort_out(l);
    return 0;
}

int left_out_write(const left_out_list *l, const left_out_data *data, const char *path, moai_error *err)
{
    json_t *root = json_pack("{s:I, s:I, s:I, s:O}", "seed", (json_int_t)data->seed, "seq_length",
                             (json_int_t)data->seq_length, "n_samples", (json_int_t)data->n_samples, "decisions",
                             l->decisions);
    const int status = json_write_file(root, path, err);

    json_decref(root);
    return status;
}

int left_out_read(left_out_list *l, const left_out_data *data, const char *path, moai_error *err)
{
    if (file_missing(path)) return 0;
    json_t *root = json_read_object(path, err);
    moai_error why;
    int status = root ? 0 : -1;

    if (root && (number(root, "seed") != data->seed || number(root, "seq_length") != data->seq_length ||
                 number(root, "n_samples") != data->n_samples))
        status = error_set(err,
                           "%s leaves out samples of other data: seed %lld, seq_length %lld, %lld samples; "
                           "this run has seed %lld, seq_length %lld, %lld samples",
                           path, (long long)number(root, "seed"), (long long)number(root, "seq_length"),
                           (long long)number(root, "n_samples"), (long long)data->seed, (long long)data->seq_length,
                           (long long)data->n_samples);
    if (status == 0 && left_out_merge(l, json_object_get(root, "decisions"), &why))
        status = error_set(err, "%s: %s", path, why.text);
    json_decref(root);
    return status;
}
