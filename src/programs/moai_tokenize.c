/* moai_tokenize: text to tokens: train a tokenizer, encode text to shards, look at shards, and what a bigram model
 * makes of them. */
#include "io/checkpoint/place.h"
#include "io/text/tokenizer.h"
#include "parallel/comm/grid.h"
#include "src/base/files.h"
#include "src/config/flags.h"
#include "src/config/paths.h"
#include "src/corpus/audit.h"
#include "src/corpus/encode.h"
#include "src/corpus/input_names.h"
#include "src/host/signals.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct tokenize_options {
    input_source *inputs;                     /* of --input and --input_list, or what stands alone; owned */
    int n_inputs;
    const char *word;                         /* what messages call a path that stands alone */
    char *tokenizer, *output, *document_separator, *text_key;
    int64_t vocab_size, input_sentence_size, num_threads, seed, shard_tokens, validation_documents, tokens, seq_length;
    double character_coverage, validation_fraction;
    int invalid_utf8, format, bad_lines, chat_template;
    bool overwrite, progress, truncate, train_on_prompt, train_newline, last_turn_only;
} tokenize_options;

#define KEYS_OF tokenize_options
#include "src/config/key_rows.h"

enum { INVALID_ERROR, INVALID_REPLACE };
static const key_choice invalid_words[] = {{"error", INVALID_ERROR}, {"replace", INVALID_REPLACE}, {NULL, 0}};

static const key_choice format_words[] = {
    {"auto", CONTENT_AUTO}, {"jsonl", CONTENT_JSONL}, {"txt", CONTENT_TXT}, {NULL, 0}};
enum { BAD_STOP, BAD_SKIP };
static const key_choice bad_words[] = {{"stop", BAD_STOP}, {"skip", BAD_SKIP}, {NULL, 0}};

#define FORMAT                                                                                                         \
    ROW(KEY_CHOICE, format, "auto", .choices = format_words,                                                           \
        .help = "of every FILE: jsonl (JSON lines, each a document), txt, or auto: as its name says")
#define BAD_LINES                                                                                                      \
    ROW(KEY_CHOICE, bad_lines, "stop", .choices = bad_words,                                                           \
        .help = "JSON lines without a text that can be read: stop, or skip: they are counted, some named")
#define TEXT_KEY TEXT(text_key, "text", "key of the text in a line of JSON")
#define INVALID_UTF8                                                                                                   \
    ROW(KEY_CHOICE, invalid_utf8, "error", .choices = invalid_words,                                                   \
        .help = "error, or replace: U+FFFD for what is not UTF-8, or NUL")

static const key_spec train_rows[] = {
    PATH(output, NULL, "PREFIX of the files PREFIX.model and PREFIX.vocab"),
    INT(vocab_size, "32000", 1, INT32_MAX, "pieces, with 5 special symbols and 256 bytes among them"),
    REAL(character_coverage, "0.9995", 0, 1,
         "part of the text's characters that get a piece; the others go by their bytes"),
    FORMAT,
    TEXT_KEY,
    BAD_LINES,
    INVALID_UTF8,
    INT(input_sentence_size, "0", 0, INT32_MAX, "lines sampled to train on; 0: all"),
    INT(num_threads, "0", 0, 1024, "0: OMP_NUM_THREADS, or as many as cores"),
    INT(seed, "42", 0, 1ll << 31, "of the sample of lines"),
    BOOL(overwrite, "false", "replace an earlier model, once the new one is whole"),
};
static const key_spec encode_rows[] = {
    PATH(tokenizer, NULL, "tokenizer.model, of moai_tokenize train or another SentencePiece model, or tokenizer.json"),
    PATH(output, NULL, "directory for the shards, the tokenizer and manifest.json"),
    INT(shard_tokens, "100000000", 1, 1ll << 40, "tokens of a shard; the last document goes beyond it"),
    TEXT(document_separator, "file",
         "of a .txt: file (all is one document), line (each line one), blank_line, or any other text: lines equal to "
         "it, but for blanks at the end"),
    FORMAT,
    TEXT_KEY,
    BAD_LINES,
    INVALID_UTF8,
    REAL(validation_fraction, "0.01", 0, 1,
         "part of the documents for validation, each chosen by a hash of its number"),
    INT(validation_documents, "0", 0, 1ll << 40, "exactly so many documents for validation instead"),
    INT(seed, "42", 0, 1ll << 52, "of the validation split"),
    INT(num_threads, "0", 0, 1024, "threads of a rank; 0: OMP_NUM_THREADS, or its share of the host's cores"),
    BOOL(overwrite, "false", "replace the shards of an earlier run, once the new ones are whole"),
    BOOL(progress, "true", "show how far it is"),
};
static const key_choice template_words[] = {{"auto", TEMPLATE_AUTO},     {"qwen3", TEMPLATE_QWEN3},
                                            {"qwen3-instruct", TEMPLATE_QWEN3_INSTRUCT},
                                            {"qwen2.5", TEMPLATE_QWEN25}, {"chatml", TEMPLATE_CHATML}, {NULL, 0}};
static const key_spec chat_rows[] = {
    PATH(tokenizer, NULL, "tokenizer.json or tokenizer.model, with its chat template beside it"),
    PATH(output, NULL, "directory for the shards, the tokenizer and manifest.json"),
    ROW(KEY_CHOICE, chat_template, "auto", .choices = template_words,
        .help = "qwen3, qwen3-instruct, qwen2.5, chatml, or auto: the tokenizer's"),
    INT(seq_length, "2048", 1, INT32_MAX,
        "of the run that trains on them: an example of more than this + 1 tokens is left out"),
    BOOL(truncate, "false", "cut it at its end instead"),
    BOOL(train_on_prompt, "false", "train on all tokens; else on the answers, with the end of each"),
    BOOL(train_newline, "true", "train on the newline behind an answer's end, too"),
    BOOL(last_turn_only, "false", "train on the last answer alone"),
    INT(shard_tokens, "100000000", 1, 1ll << 40, "tokens of a shard; the last example goes beyond it"),
    BAD_LINES,
    INVALID_UTF8,
    REAL(validation_fraction, "0.01", 0, 1, "part of the examples for validation, each chosen by a hash of its number"),
    INT(validation_documents, "0", 0, 1ll << 40, "exactly so many examples for validation instead"),
    INT(seed, "42", 0, 1ll << 52, "of the validation split"),
    INT(num_threads, "0", 0, 1024, "threads of a rank; 0: OMP_NUM_THREADS, or its share of the host's cores"),
    BOOL(overwrite, "false", "replace the shards of an earlier run, once the new ones are whole"),
    BOOL(progress, "true", "show how far it is"),
};
static const key_spec inspect_rows[] = {INT(tokens, "32", 0, 1 << 20, "tokens shown of each shard")};

typedef struct command {
    const char *name, *arguments, *help;
    key_table keys;
    bool one_path;                            /* takes a path standing alone; else --input FILE... */
    int (*run)(const tokenize_options *, moai_error *);
} command;

static int world_size = 1;

static int fail(const moai_error *err)
{
    if (base_process.printer) fprintf(stderr, "moai_tokenize: %s\n", err->text);
    return STATUS_FAILED;
}

static int run_train(const tokenize_options *o, moai_error *err)
{
    const tokenizer_train_options options = {
        .vocab_size = o->vocab_size,
        .character_coverage = o->character_coverage,
        .input_sentence_size = o->input_sentence_size,
        .seed = (uint64_t)o->seed,
        .text_key = o->text_key,
        .replace_invalid = o->invalid_utf8 == INVALID_REPLACE,
        .content = (text_content)o->format,
        .skip_bad_lines = o->bad_lines == BAD_SKIP,
        .overwrite = o->overwrite,
        .n_threads = (int)o->num_threads};
    double begin = now_seconds();
    input_names names;

    int status = input_names_read(&names, o->inputs, o->n_inputs, options.content, err);
    if (status == 0) status = place_check("--output", o->output, err);
    if (status == 0)
        status = tokenizer_train((const char *const *)names.list, names.n, o->output, &options, err);
    input_names_free(&names);
    if (status != 0) {
        fail(err);
        return error_status(err);
    }
    say("train: %lld pieces in %.1f s to %s.model and %s.vocab", (long long)o->vocab_size, now_seconds() - begin,
        o->output, o->output);
    return STATUS_OK;
}

static int encode(const tokenize_options *o, const chat_making *chat, moai_error *err)
{
    encode_options options = {.chat = chat,
                              .tokenizer = o->tokenizer,
                              .output = o->output,
                              .shard_tokens = o->shard_tokens,
                              .validation_fraction = o->validation_fraction,
                              .validation_documents = o->validation_documents,
                              .seed = (uint64_t)o->seed,
                              .n_threads = (int)o->num_threads,
                              .overwrite = o->overwrite,
                              .progress = o->progress};
    grid_shape shape = {1, 1, 0, 1};
    input_names names;
    moai_grid grid;

    text_format_parse(&options.format, chat ? "line" : o->document_separator);
    options.format.text_key = chat ? NULL : o->text_key;
    options.format.replace_invalid = o->invalid_utf8 == INVALID_REPLACE;
    options.format.content = chat ? CONTENT_JSONL : (text_content)o->format;
    options.format.skip_bad_lines = o->bad_lines == BAD_SKIP;
    CHECK(grid_factor(&shape, world_size, err) == 0, "%s", err->text);
    grid_init(&grid, shape, 1);
    int status = input_names_share(&names, o->inputs, o->n_inputs, options.format.content, &grid.host_world, err);
    options.inputs = (const char *const *)names.list;
    options.n_inputs = names.n;
    if (status == 0) status = encode_run(&options, &grid.host_world, err);
    input_names_free(&names);
    grid_free(&grid);
    if (status == 0) return STATUS_OK;
    fail(err);
    return error_status(err);
}

static int run_encode(const tokenize_options *o, moai_error *err) { return encode(o, NULL, err); }

static int run_chat(const tokenize_options *o, moai_error *err)
{
    const chat_making chat = {.template = (chat_template)o->chat_template, .most_tokens = o->seq_length + 1,
                              .truncates = o->truncate,
                              .options = {.training = true, .leaves_newline = !o->train_newline,
                                          .last_turn_only = o->last_turn_only, .prompts_too = o->train_on_prompt}};

    return encode(o, &chat, err);
}

static int run_inspect(const tokenize_options *o, moai_error *err)
{
    return shards_inspect(o->inputs[0].path, o->tokens, err) == 0 ? STATUS_OK : fail(err);
}

static int run_audit(const tokenize_options *o, moai_error *err)
{
    int64_t n_faults = shards_audit(o->inputs[0].path, err);
    return n_faults < 0 ? fail(err) : n_faults > 0 ? STATUS_FAILED : STATUS_OK;
}

static int run_bigram(const tokenize_options *o, moai_error *err)
{
    double loss;
    int64_t n_train, n_validation, n_pairs;

    if (shards_bigram(o->inputs[0].path, &loss, &n_train, &n_validation, &n_pairs, err) != 0) return fail(err);
    printf("bigram loss %.6f perplexity %.3f (nats per token over %lld validation tokens; interpolated modified "
           "Kneser-Ney, fitted to %lld "
           "train tokens, %lld kinds of pairs)\n",
           loss, exp(loss), (long long)n_validation, (long long)n_train, (long long)n_pairs);
    return STATUS_OK;
}

static const command commands[] = {
    {"train", "--input FILE|DIR... --vocab_size N --output PREFIX",
     "train a tokenizer: SentencePiece BPE with byte fallback", KEY_TABLE(train_rows), false, run_train},
    {"encode", "--tokenizer MODEL --input FILE|DIR... --output DIR",
     "text to token shards; mpirun -np N shares the work among ranks", KEY_TABLE(encode_rows), false, run_encode},
    {"chat", "--tokenizer FILE --input FILE|DIR... --output DIR",
     "conversations in lines of JSON to shards to tune on (moai_train --mode sft): messages, ShareGPT, Alpaca,\n"
     "prompt and completion, text; mpirun -np N shares the work among ranks",
     KEY_TABLE(chat_rows), false, run_chat},
    {"inspect", "PATH", "header, counts and first tokens of a shard or of a manifest's shards", KEY_TABLE(inspect_rows),
     true, run_inspect},
    {"audit",
     "PATH",
     "check every token, document and hash of a shard or manifest; status 1 on any fault",
     {NULL, 0},
     true,
     run_audit},
    {"bigram", "MANIFEST", "validation loss of a bigram model fitted to the train split", {NULL, 0}, true, run_bigram},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_help(FILE *out)
{
    fputs("usage: moai_tokenize COMMAND ...      moai_tokenize COMMAND --help tells more\n\n", out);
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-8s %-53s %s\n", commands[i].name, commands[i].arguments, commands[i].help);
    fputs("\nText files are text, or JSON lines (.jsonl .ndjson .jsonlines), plain or packed by zstd, gzip, xz or "
          "bzip2.\nStatus: 0 well, 1 failed or damaged, 2 usage.\n",
          out);
}

static void print_command_help(const command *c)
{
    printf("usage: moai_tokenize %s %s\n%s\n", c->name, c->arguments, c->help);
    if (!c->one_path)
        printf("  --input FILE|DIR...            text, or JSON lines (.jsonl .ndjson .jsonlines), plain or packed; - "
               "is standard\n"
               "                                 input; a directory: the files of such names below it (with --format "
               "jsonl of\n"
               "                                 JSON lines alone), in the order of their bytes\n"
               "  --input_list FILE...           files of such names, one a line or behind each a NUL; -: standard "
               "input\n");
    for (int i = 0; i < c->keys.n; i++) {
        const key_spec *k = &c->keys.list[i];
        const char *kind = k->type == KEY_STRING || k->type == KEY_CHOICE ? "TEXT"
                           : k->type == KEY_PATH                          ? "PATH"
                           : k->type == KEY_BOOL                          ? ""
                                                                          : "N";
        char left[64];
        snprintf(left, sizeof left, "--%s %s", k->name, kind);
        printf("  %-30s %s", left, k->help);
        printf(k->initial ? " [%s]\n" : " (needed)\n", k->initial);
    }
}

static int add_input(tokenize_options *o, const char *label, const char *text, bool is_list, moai_error *err)
{
    char *path = path_expand(label, text, err);

    if (path) o->inputs[o->n_inputs++] = (input_source){path, is_list};
    return path ? 0 : -1;
}

static int take_input(void *to, const char *label, const char *value, moai_error *err)
{
    return add_input(to, label, value, false, err);
}

static int take_list(void *to, const char *label, const char *value, moai_error *err)
{
    return add_input(to, label, value, true, err);
}

static int take_path(void *to, const char *word, moai_error *err)
{
    return add_input(to, ((tokenize_options *)to)->word, word, false, err);
}

static int read_arguments(const command *c, tokenize_options *o, int argc, char **argv, moai_error *err)
{
    static const flag_own inputs[] = {
        {"input", true, take_input}, {"input_list", true, take_list}, {NULL, false, NULL}};
    const flag_rules rules = {.arg = o,
                              .own = c->one_path ? NULL : inputs,
                              .word = c->one_path ? take_path : NULL,
                              .no_word = "text files follow --input or --input_list"};
    bool given[32] = {false};

    o->word = c->arguments;
    if (flags_read(c->keys, o, argc, argv, &rules, given, err) != 0) return -1;
    if (c->one_path && o->n_inputs != 1) return error_set(err, "takes one path, %d given", o->n_inputs);
    if (o->n_inputs == 0) return error_set(err, "--input or --input_list is needed");
    const key_spec *fraction = keys_find(c->keys, "validation_fraction"),
                   *documents = keys_find(c->keys, "validation_documents");
    if (fraction && documents && given[fraction - c->keys.list] && given[documents - c->keys.list])
        return error_set(err, "--validation_fraction and --validation_documents exclude each other");
    return 0;
}

/* num_threads 0 becomes the number that is meant. */
static int settle_threads(const command *c, tokenize_options *o, moai_error *err)
{
    const char *from;

    if (!keys_find(c->keys, "num_threads")) return 0;
    const int n = process_threads(o->num_threads, &from, err);
    if (n < 0) return -1;
    if (*from) say("threads    %d a rank (%s)", n, from);
    o->num_threads = n;
    return 0;
}

static int run_command(const command *c, int argc, char **argv)
{
    tokenize_options o = {.inputs = xmalloc((size_t)(argc + 1) * sizeof *o.inputs)};
    moai_error err;
    int status;

    if (flags_ask_help(argc, argv)) {
        if (base_process.printer) print_command_help(c);
        free(o.inputs);
        return STATUS_OK;
    }
    keys_defaults(c->keys, &o);
    const int wrong = read_arguments(c, &o, argc, argv, &err) || settle_threads(c, &o, &err);
    if (process_agree(wrong, &err)) {
        if (base_process.printer) fprintf(stderr, "moai_tokenize %s: %s (--help tells more)\n", c->name, err.text);
        status = STATUS_CONFIG;
    } else {
        status = c->run(&o, &err);
    }
    keys_free(c->keys, &o);
    for (int i = 0; i < o.n_inputs; i++) free(o.inputs[i].path);
    free(o.inputs);
    return status;
}

static int run(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";

    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(name, commands[i].name) == 0) {
            bool parallel = commands[i].run == run_encode || commands[i].run == run_chat;
            if (parallel || commands[i].run == run_train) signals_ignore_pipe();
            if (parallel)
                world_size = process_start(&argc, &argv);
            else
                process_alone(name);
            int status = run_command(&commands[i], argc - 2, argv + 2);
            if (parallel) process_finish();
            return status;
        }
    bool help = strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0;
    if (!help && name[0]) fprintf(stderr, "moai_tokenize: unknown command \"%s\"\n", name);
    print_help(help ? stdout : stderr);
    return help ? STATUS_OK : STATUS_CONFIG;
}

int main(int argc, char **argv)
{
    base_start();
    return output_end(run(argc, argv));
}
