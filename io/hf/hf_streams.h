/* hf_streams.h: Hugging Face directories of models with hyper-connections (hc_mult > 1), which Transformers loads with
 * trust_remote_code. */
#ifndef MOAI_HF_STREAMS_H
#define MOAI_HF_STREAMS_H

#include "src/base/base.h"

#include <jansson.h>

#define HF_STREAMS_CODE "modeling_moai.py"

json_t *hf_streams_config(void);              /* what config.json of such a model says in place of Qwen3's, and more */
int hf_streams_write_code(const char *dir, moai_error *err);                /* HF_STREAMS_CODE */

#endif
