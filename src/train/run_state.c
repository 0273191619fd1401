/* run_state.c: see run_state.h */
#include "src/train/run_state.h"
#include "src/config/keys.h"

run_state run_state_start(const run_config *run)
{
    return (run_state){.scale = loss_scale_start(&run->loss_scale, run->fp16),
                       .spikes = spike_watch_start(&run->spike), .left_out = left_out_start()};
}

void run_state_free(run_state *s)
{
    spike_watch_free(&s->spikes);
    left_out_free(&s->left_out);
}

void run_state_reset(run_state *s, const run_config *run)
{
    s->scale = loss_scale_start(&run->loss_scale, run->fp16);
    s->spikes.n = 0;
    s->skips = (skip_row){0};
}

char *run_state_json(const run_state *s, const run_config *run)
{
    json_t *object = json_object();

    if (run->fp16) json_object_set_new(object, "loss_scale", loss_scale_json(&s->scale));
    if (s->spikes.window) json_object_set_new(object, "spikes", spike_watch_json(&s->spikes));
    if (s->skips.n) json_object_set_new(object, "skips", skip_row_json(&s->skips));
    if (s->left_out.n) json_object_set(object, "left_out", s->left_out.decisions);
    char *text = json_text(object, JSON_COMPACT);
    json_decref(object);
    return text;
}

int run_state_read(run_state *s, const run_config *run, const char *text, const char *label, moai_error *err)
{
    json_t *object = json_loads(text ? text : "{}", 0, NULL);
    const json_t *scale = json_object_get(object, "loss_scale"), *spikes = json_object_get(object, "spikes"),
                 *skips = json_object_get(object, "skips"), *decisions = json_object_get(object, "left_out");
    moai_error why;
    int status = 0;

    if (scale && run->fp16) status = loss_scale_read(&s->scale, scale, &why);
    if (!status && spikes && s->spikes.window) status = spike_watch_read(&s->spikes, spikes, &why);
    if (!status && skips) status = skip_row_read(&s->skips, skips, &why);
    if (!status && decisions) status = left_out_merge(&s->left_out, decisions, &why);
    json_decref(object);
    return status ? error_set(err, "%s: %s", label, why.text) : 0;
}
