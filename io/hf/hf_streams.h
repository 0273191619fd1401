/* hf_streams.h: Hugging Face directories of models with hyper-connections (hc_mult > 1), which Transformers loads with
 * trust_remote_code. */
#ifndef MOAI_HF_STREAMS_H
#define MOAI_HF_STREAMS_H

#include "src/base/base.h"

#define HF_STREAMS_CODE "modeling_moai.py"

/* Makes the config.json in `dir` that of such a model, and writes HF_STREAMS_CODE beside it. */
int hf_write_streams(const char *dir, moai_error *err);

#endif
