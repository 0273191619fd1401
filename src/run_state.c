/* run_state.c: see run_state.h */
#include "run_state.h"
#include "keys.h"

run_state run_state_start(const run_config *run) { return (run_state){.scale = loss_scale_start(run)}; }

char *run_state_json(const run_state *s, const run_config *run)
{
    json_t *object = json_object();

    if (run->fp16) json_object_set_new(object, "loss_scale", loss_scale_json(&s->scale));
    char *text = json_text(object, JSON_COMPACT);
    json_decref(object);
    return text;
}

int run_state_read(run_state *s, const run_config *run, const char *text, const char *label, moai_error *err)
{
    json_t *object = json_loads(text ? text : "{}", 0, NULL);
    const json_t *scale = json_object_get(object, "loss_scale");
    moai_error why;
    int status = 0;

    if (scale && run->fp16) status = loss_scale_read(&s->scale, scale, &why);
    json_decref(object);
    return status ? error_set(err, "%s: %s", label, why.text) : 0;
}
