/* generate_flags.h: the command line of moai_generate. */
#ifndef MOAI_GENERATE_FLAGS_H
#define MOAI_GENERATE_FLAGS_H

#include "src/base/tensor.h"
#include "src/chat/chat_template.h"
#include "src/config/model_config.h"

/* One field per flag; the table in generate_flags.c holds names, defaults, ranges and help. */
typedef struct generate_flags {
    char *source; /* the argument without a flag: checkpoint, run directory or Hugging Face directory */
    char *prompt, *prompt_file, *input_ids, *messages;
    char *system;           /* of a conversation; "": none */
    chat_template chat_template;
    bool chat, enable_thinking;
    bool has_prompt;        /* --prompt was given; it may be "" */
    int64_t max_new_tokens; /* 0: not given */
    double temperature, top_p;
    int64_t top_k, seed, num_return_sequences;
    bool ignore_eos, echo, jsonl;
    int64_t batch_size, num_threads;
    dtype dtype;
    weight_quantization quantization;
    bool double_quantization;
    char *device, *tokenizer, *adapter, *logits_out;
} generate_flags;

/* Strings are never NULL and belong to the struct.  --help prints the table and leaves with 0.  Not collective:
 * every rank reads the same words and comes to the same end. */
int generate_flags_read(generate_flags *, int argc, char **argv, moai_error *err);
void generate_flags_free(generate_flags *);

#endif
