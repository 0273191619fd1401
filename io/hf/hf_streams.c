/* hf_streams.c: what an exported model with hyper-connections needs besides weights: a config.json that names a kind of
 * its own, so that nobody takes it for Qwen3, and the code by which Transformers loads it.  See hf_export.c. */
#include "io/hf/hf_streams.h"
#include "src/base/files.h"
#include "src/config/keys.h"

#include <stdlib.h>

/* modeling_moai.py, as it lies beside this file. */
__asm__(".pushsection .rodata\n"
        ".global moai_modeling, moai_modeling_end\n"
        "moai_modeling: .incbin \"io/hf/" HF_STREAMS_CODE "\"\n"
        "moai_modeling_end: .byte 0\n"
        ".popsection\n");
extern const char moai_modeling[] __attribute__((visibility("hidden")));
extern const char moai_modeling_end[] __attribute__((visibility("hidden")));

int hf_write_streams(const char *dir, moai_error *err)
{
    char *code = xasprintf("%s/" HF_STREAMS_CODE, dir), *config = xasprintf("%s/config.json", dir);
    json_t *o = json_read_object(config, err);
    int rc = o ? 0 : -1;

    if (o) {
        json_object_set_new(o, "model_type", json_string("moai"));
        json_object_set_new(o, "architectures", json_pack("[s]", "MoaiForCausalLM"));
        json_object_set_new(o, "auto_map", json_pack("{s:s, s:s}", "AutoConfig", "modeling_moai.MoaiConfig",
                                                     "AutoModelForCausalLM", "modeling_moai.MoaiForCausalLM"));
        rc = json_write_file(o, config, err);
        json_decref(o);
    }
    if (rc == 0) rc = file_write(code, moai_modeling, (size_t)(moai_modeling_end - moai_modeling), err);
    free(code);
    free(config);
    return rc;
}
