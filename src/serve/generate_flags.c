/* generate_flags.c: see generate_flags.h */
#include "src/serve/generate_flags.h"

#include "src/config/choices.h"
#include "src/config/flags.h"
#include "src/config/paths.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const key_choice dtypes[] = {
    {"fp32", DT_F32},      {"bf16", DT_BF16},    {"fp16", DT_F16}, {"float32", DT_F32},
    {"bfloat16", DT_BF16}, {"float16", DT_F16}, {NULL, 0}};


static const key_choice templates[] = {{"auto", TEMPLATE_AUTO},     {"qwen3", TEMPLATE_QWEN3},
                                       {"qwen3-instruct", TEMPLATE_QWEN3_INSTRUCT},
                                       {"qwen2.5", TEMPLATE_QWEN25}, {"chatml", TEMPLATE_CHATML}, {NULL, 0}};

#define KEYS_OF generate_flags
#include "src/config/key_rows.h"

static const key_spec rows[] = {
    TEXT(prompt, "", "text to go on from; \"\" begins a document"),
    PATH(prompt_file, "", "a file with one prompt a line, - for standard input; empty lines are left out"),
    BOOL(chat, "false", "talk: lines of standard input are what the user says; /new begins anew, /exit ends"),
    PATH(messages, "",
         "answer the conversation in a JSON file (messages as OpenAI has them), or one a line; - for standard input"),
    TEXT(system, "", "with --chat, the system turn"),
    CHOICE(chat_template, "auto", templates,
           "of conversations: qwen3, qwen3-instruct, qwen2.5, chatml, or auto: the tokenizer's"),
    BOOL(enable_thinking, "true", "qwen3: let it think; else an answer begins with an empty thought"),
    TEXT(input_ids, "", "the prompt as token numbers, 1,2,3; needs no tokenizer"),
    INT(max_new_tokens, "0", 0, INT32_MAX, "tokens to write; 0: 128, or what the model's positions leave"),
    REAL(temperature, "0.8", 0, 1e6, "0: always the most probable token"),
    INT(top_k, "0", 0, INT32_MAX, "choose among the k most probable tokens; 0: among all"),
    REAL(top_p, "0.95", 1e-12, 1, "choose among the most probable tokens that make up this probability; 1: among all"),
    INT(seed, "0", 0, 1ll << 52, "the same seed writes the same text"),
    INT(num_return_sequences, "1", 1, 1 << 20, "texts for each prompt"),
    BOOL(ignore_eos, "false", "go on past the end of a document"),
    BOOL(echo, "false", "show the prompt in front of its text"),
    BOOL(jsonl, "false",
         "a line of JSON for each text: prompt, sequence, text, ids, prompt_tokens, finish (stop or length)"),
    INT(batch_size, "16", 1, 65536, "texts written side by side"),
    ROW(KEY_CHOICE, dtype, "fp32", .choices = dtypes, .help = "fp32, bf16 or fp16: weights, activations and cache"),
    CHOICE(quantization, "none", weight_quantizations,
           "of the linear maps of the layers: none, or nf4, 4 bits an element"),
    BOOL(double_quantization, "true", "nf4: the scales of the blocks in 8 bits"),
    TEXT(device, "auto", "cpu, cuda or auto"),
    INT(num_threads, "0", 0, 4096, "OpenMP threads of a rank; 0: OMP_NUM_THREADS, or its share of the node's cores"),
    PATH(tokenizer, "", "tokenizer.model or tokenizer.json, when not the one beside the weights"),
    PATH(adapter, "", "adapters for DIRECTORY: PEFT's, a checkpoint of a run that trains them, or its directory"),
    PATH(logits_out, "", "write the logits after each of --input_ids, (ids, vocab_size) native fp32, and no text"),
};
static const key_table flags = KEY_TABLE(rows);

static void print_help(void)
{
    printf("usage: [mpirun -np TP] moai_generate DIRECTORY --prompt TEXT [--key value ...]\n"
           "DIRECTORY is a checkpoint, a run's output directory (its newest checkpoint is taken) or a Hugging Face\n"
           "directory.  All ranks share the model's tensors.  The prompt is one of --prompt, --prompt_file,\n"
           "--input_ids, --messages and --chat.  Text goes to stdout, all else to stderr; one text is streamed as it\n"
           "comes, of several each is shown when it is done.\n\n");
    for (int i = 0; i < flags.n; i++) {
        const key_spec *k = &flags.list[i];
        key_print_help(k, 32);
        if (*k->initial) printf(" [%s]", k->initial);
        putchar('\n');
    }
}

static int take_source(void *to, const char *word, moai_error *err)
{
    generate_flags *f = to;

    if (*f->source) return error_set(err, "unexpected argument \"%s\" after %s", word, f->source);
    free(f->source);
    f->source = path_expand("DIRECTORY", word, err);
    return f->source ? 0 : -1;
}

static int check_together(const generate_flags *f, moai_error *err)
{
    const int prompts = f->has_prompt + (*f->prompt_file != 0) + (*f->input_ids != 0) + f->chat + (*f->messages != 0);

    if (!*f->source)
        return error_set(err,
                         "no checkpoint: give the directory of one, of a run, or of a Hugging Face model; see --help");
    if (prompts == 0)
        return error_set(
            err, "no prompt: give --prompt TEXT, --prompt_file FILE, --input_ids 1,2,3, --messages FILE or --chat");
    if (prompts > 1)
        return error_set(err, "more than one of --prompt, --prompt_file, --input_ids, --messages and --chat is given");
    if (*f->system && !f->chat) return error_set(err, "--system is for --chat");
    if (f->chat_template != TEMPLATE_AUTO && !f->chat && !*f->messages)
        return error_set(err, "--chat_template is for --chat and --messages");
    if (f->chat && (f->jsonl || f->echo || f->num_return_sequences > 1))
        return error_set(err, "--chat with --jsonl, --echo or --num_return_sequences: it is one text after another");
    if (*f->logits_out && !*f->input_ids) return error_set(err, "--logits_out %s needs --input_ids", f->logits_out);
    return 0;
}

int generate_flags_read(generate_flags *f, int argc, char **argv, moai_error *err)
{
    *f = (generate_flags){.source = xstrdup("")};
    keys_defaults(flags, f);
    if (flags_ask_help(argc - 1, argv + 1)) {
        if (base_process.printer) print_help();
        generate_flags_free(f);
        base_process.leave(STATUS_OK);
    }
    const flag_rules rules = {.arg = f, .word = take_source};
    bool given[sizeof rows / sizeof rows[0]] = {false};
    if (flags_read(flags, f, argc - 1, argv + 1, &rules, given, err)) return -1;
    f->has_prompt = given[keys_find(flags, "prompt") - flags.list];
    return check_together(f, err);
}

void generate_flags_free(generate_flags *f)
{
    keys_free(flags, f);
    free(f->source);
    f->source = NULL;
}
