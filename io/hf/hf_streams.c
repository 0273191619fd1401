/* hf_streams.c: what an exported model with hyper-connections needs besides weights: a config.json that names a kind of
 * its own, so that nobody takes it for Qwen3, and the code by which Transformers loads it.  See hf_export.c. */
#include "io/hf/hf_streams.h"
#include "src/base/files.h"

#include <stdlib.h>

/* modeling_moai.py, as it lies beside this file. */
__asm__(".pushsection .rodata\n"
        ".global moai_modeling, moai_modeling_end\n"
        "moai_modeling: .incbin \"io/hf/" HF_STREAMS_CODE "\"\n"
        "moai_modeling_end: .byte 0\n"
        ".popsection\n");
extern const char moai_modeling[] __attribute__((visibility("hidden")));
extern const char moai_modeling_end[] __attribute__((visibility("hidden")));

json_t *hf_streams_config(void)
{
    return json_pack("{s:s, s:[s], s:{s:s, s:s}}", "model_type", "moai", "architectures", "MoaiForCausalLM", "auto_map",
                     "AutoConfig", "modeling_moai.MoaiConfig", "AutoModelForCausalLM", "modeling_moai.MoaiForCausalLM");
}

int hf_streams_write_code(const char *dir, moai_error *err)
{
    char *path = xasprintf("%s/" HF_STREAMS_CODE, dir);
    const int rc = file_write(path, moai_modeling, (size_t)(moai_modeling_end - moai_modeling), err);

    free(path);
    return rc;
}
