/* moai_generate: text from a checkpoint.  [mpirun -np TP] moai_generate DIRECTORY --prompt TEXT [--key value ...] */
#include "io/checkpoint/checkpoint.h"
#include "io/file/hash.h"
#include "src/base/files.h"
#include "src/device/device.h"
#include "src/serve/generate.h"
#include "src/serve/generate_flags.h"
#include "src/serve/prompt_file.h"
#include "src/serve/talk.h"
#include "src/serve/text_stream.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_NEW_TOKENS = 128, PROMPT_ROWS_CPU = 512, PROMPT_ROWS_GPU = 4096, LOGITS_ROWS = 64 };
enum { CHAT_TOKENS = 4096, CHAT_NEW_TOKENS = 512 };   /* of a whole conversation, of an answer */

typedef struct prompt {
    char *name; /* "--prompt", "prompts.txt:3" */
    int32_t *ids;
    int64_t n, capacity;
} prompt;

/* What becomes of one text on the printing rank. */
typedef struct output {
    text_stream stream;
    char *text; /* so far, unless it is shown as it comes */
} output;

typedef struct session {
    const generate_flags *flags;
    moai_grid grid;
    device device;
    weights *weights, *adapters; /* adapters: NULL without any */
    model_config cfg;            /* with them, and as it is stored here */
    tokenizer *tokenizer; /* NULL: ids in, ids out */
    const char *tokenizer_path;
    char *file_text; /* of --prompt_file */
    size_t n_file_bytes;
    decoder decoder;
    prompt *prompts;
    int64_t n_prompts;
    struct {
        int64_t n_tokens, n_prompts;
        char first[256]; /* "prompts.txt:3 ("¿")" */
    } unknown;           /* <unk> in the prompts */
    talk_options talk;               /* of --messages and --chat */
    int64_t max_new_tokens, longest; /* longest prompt */
    sequence *list;                  /* (n_prompts * num_return_sequences), sequences of a prompt together */
    output *outputs;
    int64_t n;
} session;

static bool is_streamed(const session *s) { return s->n == 1 && !s->flags->jsonl; }

/* -- what is read -- */

/* The directory to read, decided by rank 0 alone, since a training run may add checkpoints meanwhile.  Caller frees. */
static char *find_source(const session *s, const char *given)
{
    char path[4096] = "";

    if (s->grid.rank == 0) {
        char *newest = *given ? checkpoint_latest(given) : NULL;
        snprintf(path, sizeof path, "%s", newest ? newest : given);
        free(newest);
    }
    comm_broadcast(&s->grid.host_world, path, sizeof path, DT_U8, 0);
    return xstrdup(path);
}

static int open_weights(session *s, const char *dir, const char *adapter, moai_error *err)
{
    const grid_shape size = {.tp = s->grid.world, .cp = 1, .dp = 1, .pp = 1};

    s->weights = weights_open(dir, err);
    if (!s->weights) return -1;
    if (*adapter && !(s->adapters = weights_open_adapter(adapter, weights_config(s->weights), err))) return -1;
    s->cfg = *weights_config(s->adapters ? s->adapters : s->weights);
    s->cfg.quantization.nf4 = s->flags->quantization == QUANTIZATION_NF4;
    s->cfg.quantization.nested = s->cfg.quantization.nf4 && s->flags->double_quantization;
    if (params_check(&s->cfg, size, err) == 0) return 0;
    err->config = true;
    return -1;
}

/* Another than the model was trained with may be meant, but seldom is. */
static int check_tokenizer(const session *s, const char *dir, moai_error *err)
{
    char given[65], own[65];

    if (file_sha256(s->flags->tokenizer, given, err) || weights_tokenizer_sha256(s->weights, own, err)) return -1;
    if (own[0] && strcmp(given, own) != 0)
        warn("--tokenizer %s (SHA-256 %.12s...) is another than that of %s (%.12s...): its tokens are not those that "
             "the model was trained on", s->flags->tokenizer, given, dir, own);
    return 0;
}

static int open_tokenizer(session *s, const char *dir, moai_error *err)
{
    const generate_flags *f = s->flags;
    moai_error why;
    const char *path = *f->tokenizer ? f->tokenizer : weights_tokenizer(s->weights, &why);

    if (!path && *f->input_ids) return 0;
    if (!path) return error_config(err, "%s: give --tokenizer FILE, or --input_ids", why.text);
    if (*f->tokenizer && file_given("tokenizer", path, err)) return -1;
    s->tokenizer = tokenizer_open(path, err);
    if (!s->tokenizer) return -1;
    s->tokenizer_path = path;
    if (*f->tokenizer && check_tokenizer(s, dir, err)) return -1;
    if (tokenizer_vocab_size(s->tokenizer) > s->cfg.vocab_size)
        return error_config(err, "%s has %lld tokens, more than vocab_size %lld of %s: not this model's tokenizer",
                            path, (long long)tokenizer_vocab_size(s->tokenizer),
                            (long long)s->cfg.vocab_size, dir);
    return 0;
}

static prompt *add_prompt(session *s, char *name)
{
    s->prompts = realloc(s->prompts, (size_t)(s->n_prompts + 1) * sizeof *s->prompts);
    CHECK(s->prompts, "out of host memory: %lld prompts", (long long)s->n_prompts + 1);
    s->prompts[s->n_prompts] = (prompt){.name = name};
    return &s->prompts[s->n_prompts++];
}

static void count_unknown(session *s, const prompt *p, const char *text, size_t n_bytes)
{
    const int32_t unknown = tokenizer_unknown(s->tokenizer);
    int64_t n = 0;
    char found[64] = "";

    for (int64_t i = 0; i < p->n; i++) n += p->ids[i] == unknown;
    s->unknown.n_tokens += n;
    if (n == 0 || s->unknown.n_prompts++ > 0) return;
    tokenizer_find_unknown(s->tokenizer, text, n_bytes, found, sizeof found);
    format_elided(s->unknown.first, sizeof s->unknown.first, "%s%s%s%s", p->name, found[0] ? " (\"" : "", found,
                  found[0] ? "\")" : "");
}

static void report_unknown(const session *s)
{
    if (s->unknown.n_tokens > 0)
        warn("%lld of the tokens, in %lld of the %lld prompts, are <unk>: %s has no piece for what stood there, and it "
             "is lost; the first: %s", (long long)s->unknown.n_tokens, (long long)s->unknown.n_prompts,
             (long long)s->n_prompts, s->tokenizer_path, s->unknown.first);
}

/* An empty text is the beginning of a document, where the model has always seen the end of another. */
static int add_text(session *s, char *name, const char *text, size_t n_bytes, moai_error *err)
{
    prompt *p = add_prompt(s, name);
    moai_error why;

    if (tokenizer_encode(s->tokenizer, text, n_bytes, &p->ids, &p->n, &p->capacity, &why))
        return error_config(err, "%s: %s", name, why.text);
    count_unknown(s, p, text, n_bytes);
    if (p->n > 0) return 0;
    const int32_t eos = tokenizer_eos(s->tokenizer);
    if (eos < 0)
        return error_config(err, "%s is empty, and the tokenizer has no end-of-document token to begin with", name);
    p->ids = xmalloc(sizeof *p->ids);
    p->ids[p->n++] = eos;
    return 0;
}

static int add_line(session *s, char *name, const char *line, size_t n, moai_error *err)
{
    const char *nul = memchr(line, 0, n);

    if (!nul) return add_text(s, name, line, n, err);
    add_prompt(s, name);
    return error_config(err, "%s: byte %zu is NUL: this is no text", name, (size_t)(nul - line));
}

static int add_conversation(void *arg, const char *name, const conversation *c, moai_error *err)
{
    session *s = arg;
    prompt *p = add_prompt(s, xstrdup(name));

    return talk_ask(c, &s->talk, s->tokenizer, &p->ids, &p->n, &p->capacity, err);
}

static bool talks(const session *s) { return s->flags->chat || *s->flags->messages; }

static int find_template(session *s, moai_error *err)
{
    const generate_flags *f = s->flags;

    s->talk = (talk_options){.template = f->chat_template, .thinks = f->enable_thinking, .system = f->system};
    if (!talks(s) || f->chat_template != TEMPLATE_AUTO) return 0;
    return chat_template_find(&s->talk.template, s->tokenizer_path, s->tokenizer, err);
}

/* Rank 0 alone has standard input. */
static int share_prompt_file(session *s, moai_error *err)
{
    const comm *world = &s->grid.host_world;
    const bool asks = *s->flags->messages;
    const char *path = asks ? s->flags->messages : s->flags->prompt_file;
    int failed = 0;

    if (!*path) return 0;
    if (world->rank == 0)
        failed = prompt_file_read(asks ? "messages" : "prompt_file", path, &s->file_text, &s->n_file_bytes, err);
    if (comm_agree(world, failed, err)) return -1;
    comm_broadcast_bytes(world, &s->file_text, &s->n_file_bytes, 0);
    return 0;
}

static int add_lines(session *s, const char *path, moai_error *err)
{
    const char *name = strcmp(path, "-") == 0 ? "standard input" : path, *line;
    prompt_lines lines = {s->file_text, s->file_text + s->n_file_bytes, 0};
    int status = 0;
    size_t n;

    while (!status && prompt_lines_next(&lines, &line, &n))
        status = add_line(s, xasprintf("%s:%lld", name, (long long)lines.number), line, n, err);
    if (!status && s->n_prompts == 0) status = error_config(err, "--prompt_file %s holds no prompt", path);
    return status;
}

static int add_numbers(session *s, const char *text, moai_error *err)
{
    const int64_t vocab = s->cfg.vocab_size;
    prompt *p = add_prompt(s, xstrdup("--input_ids"));
    const char *at = text;

    p->ids = xmalloc((strlen(text) / 2 + 1) * sizeof *p->ids);
    for (;; at++) {
        char *end;
        errno = 0;
        const long long id = strtoll(at, &end, 10);
        if (end == at || errno || (*end && *end != ','))
            return error_config(err, "--input_ids is \"%s\", must be token numbers like 1,2,3", text);
        if (id < 0 || id >= vocab)
            return error_config(err, "--input_ids has %lld, the vocabulary is [0, %lld)", id, (long long)vocab);
        p->ids[p->n++] = (int32_t)id;
        at = end;
        if (!*at) return 0;
    }
}

static int read_prompts(session *s, moai_error *err)
{
    const generate_flags *f = s->flags;

    if (find_template(s, err)) return -1;
    if (f->chat) return 0;
    if (*f->messages) return talk_each(f->messages, s->file_text, s->n_file_bytes, add_conversation, s, err);
    if (*f->input_ids) return add_numbers(s, f->input_ids, err);
    if (*f->prompt_file) return add_lines(s, f->prompt_file, err);
    return add_text(s, xstrdup("--prompt"), f->prompt, strlen(f->prompt), err);
}

/* How many tokens are written, against how far the model's positions reach. */
static int settle_lengths(session *s, moai_error *err)
{
    const int64_t reach = decoder_reach(&s->cfg);
    const int64_t to_write = *s->flags->logits_out ? 0 : max_i64(1, s->flags->max_new_tokens);
    const prompt *longest = &s->prompts[0];

    if (s->flags->chat) {
        const int64_t all = min_i64(reach, CHAT_TOKENS);
        s->max_new_tokens = s->flags->max_new_tokens ? to_write : min_i64(CHAT_NEW_TOKENS, all / 2);
        s->longest = all - s->max_new_tokens;
        if (s->longest > 0) return 0;
        return error_config(err, "max_new_tokens %lld leaves nothing of %lld tokens of a conversation",
                            (long long)to_write, (long long)all);
    }
    for (int64_t i = 1; i < s->n_prompts; i++)
        if (s->prompts[i].n > longest->n) longest = &s->prompts[i];
    if (longest->n + to_write > reach)
        return error_config(
            err, "%s has %lld tokens, and %lld to write: together more than the model's %lld positions", longest->name,
            (long long)longest->n, (long long)to_write, (long long)reach);
    s->longest = longest->n;
    s->max_new_tokens = s->flags->max_new_tokens ? to_write : min_i64(DEFAULT_NEW_TOKENS, reach - longest->n);
    return 0;
}

static int open_decoder(session *s, moai_error *err)
{
    const generate_flags *f = s->flags;
    const bool logits_only = *f->logits_out;
    int64_t n_tokens = 0;

    for (int64_t i = 0; i < s->n_prompts; i++) n_tokens += s->prompts[i].n;
    s->n = f->chat ? 1 : s->n_prompts * f->num_return_sequences;
    n_tokens = f->chat ? s->longest : n_tokens * f->num_return_sequences;
    const int64_t places = logits_only ? 1 : min_i64(f->batch_size, s->n);
    const int64_t prompt_rows = s->device.ops == &ops_cpu ? PROMPT_ROWS_CPU : PROMPT_ROWS_GPU;
    const int64_t rows = min_i64(logits_only ? LOGITS_ROWS : prompt_rows, n_tokens);
    const decoder_options opt = {.dt = f->dtype,
                                 .n_sequences = places,
                                 .max_len = s->longest + (logits_only ? 0 : s->max_new_tokens),
                                 .max_rows = max_i64(places, rows),
                                 .max_wanted = logits_only ? LOGITS_ROWS : places};
    return decoder_init(&s->decoder, &s->cfg, &opt, s->device.ops, s->device.dev, &s->grid, err);
}

/* Transformers' base follows the text as it grows. */
static void say_dynamic(const decoder *d)
{
    if (d->cfg.rope.kind == ROPE_DYNAMIC && d->opt.max_len > d->cfg.max_position_embeddings)
        say("positions  dynamic NTK with the base of %lld tokens, the planned length (configs/README.md)",
            (long long)d->opt.max_len);
}

/* One part after another, each agreed by all ranks before the next. */
static int session_open(session *s, moai_error *err)
{
    const comm *world = &s->grid.host_world;
    const device_options on = {.name = s->flags->device,
                               .num_threads = s->flags->num_threads,
                               .deterministic = true, /* the same seed writes the same text */
                               .decoding = true};
    int failed = comm_agree(world, device_open(&s->device, &on, err), err);

    if (failed) return -1;
    device_connect(&s->device, &s->grid);
    char *dir = find_source(s, s->flags->source), *adapter = find_source(s, s->flags->adapter);
    const double begin = now_seconds();
    failed = comm_agree(world, open_weights(s, dir, adapter, err), err);
    if (!failed) failed = comm_agree(world, open_tokenizer(s, dir, err), err);
    if (!failed) failed = share_prompt_file(s, err);
    if (!failed) failed = comm_agree(world, read_prompts(s, err), err);
    if (!failed) report_unknown(s);
    if (!failed) failed = comm_agree(world, settle_lengths(s, err), err);
    if (!failed) failed = comm_agree(world, open_decoder(s, err), err);
    if (!failed) failed = comm_agree(world, decoder_load(&s->decoder, s->weights, s->adapters, err), err);
    if (!failed)
        say("weights    %s: %lld parameters as %s on %d rank%s in %.2f s; %s", dir,
            (long long)model_n_params(&s->decoder.cfg), dtype_name(s->flags->dtype), s->grid.world,
            s->grid.world == 1 ? "" : "s", now_seconds() - begin, s->device.text);
    if (!failed && s->adapters)
        say("adapters   %s: rank %lld, scale %g", adapter, (long long)s->decoder.cfg.lora.rank,
            lora_scale(&s->decoder.cfg.lora));
    if (!failed) say_dynamic(&s->decoder);
    free(dir);
    free(adapter);
    return failed;
}

static void session_close(session *s)
{
    if (s->decoder.layers) decoder_free(&s->decoder);
    weights_free(s->weights);
    weights_free(s->adapters);
    if (s->tokenizer) tokenizer_free(s->tokenizer);
    for (int64_t i = 0; i < s->n_prompts; i++) {
        free(s->prompts[i].name);
        free(s->prompts[i].ids);
    }
    for (int64_t i = 0; s->list && i < s->n; i++) {
        free(s->list[i].ids);
        free(s->outputs[i].text);
    }
    free(s->prompts);
    free(s->file_text);
    free(s->list);
    free(s->outputs);
    grid_free(&s->grid);
    if (s->device.dev) device_close(&s->device);
}

/* -- what is written -- */

static void print_json(const session *s, int64_t i)
{
    const int64_t per_prompt = s->flags->num_return_sequences;
    const sequence *q = &s->list[i];
    json_t *object = json_object(), *ids = json_array();

    for (int64_t t = q->n_prompt; t < q->n; t++) json_array_append_new(ids, json_integer(q->ids[t]));
    json_object_set_new(object, "prompt", json_integer(i / per_prompt));
    json_object_set_new(object, "sequence", json_integer(i % per_prompt));
    json_object_set_new(object, "text", json_string(s->outputs[i].text));
    json_object_set_new(object, "ids", ids);
    json_object_set_new(object, "prompt_tokens", json_integer(q->n_prompt));
    json_object_set_new(object, "finish", json_string(q->stopped ? "stop" : "length"));
    json_dumpf(object, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(object);
}

static void print_finished(const session *s, int64_t i)
{
    const int64_t per_prompt = s->flags->num_return_sequences;

    if (is_streamed(s)) {
        putchar('\n');
    } else if (s->flags->jsonl) {
        print_json(s, i);
    } else {
        printf("--- prompt %lld", (long long)(i / per_prompt + 1));
        if (per_prompt > 1) printf(", text %lld", (long long)(i % per_prompt + 1));
        printf("\n%s\n", s->outputs[i].text);
    }
}

/* generate_sink of the printing rank */
static void show(void *arg, const sequence *list, int64_t i, bool finished)
{
    session *s = arg;
    output *o = &s->outputs[i];
    char *added = text_stream_next(&o->stream, list[i].ids, list[i].n, finished);

    if (is_streamed(s)) {
        fputs(added, stdout);
    } else {
        char *longer = xasprintf("%s%s", o->text, added);
        free(o->text);
        o->text = longer;
    }
    if (finished) print_finished(s, i);
    free(added);
    /* nobody gets what comes; where there are other ranks they go on, and the status tells */
    if (output_flush() && s->grid.world == 1) base_process.leave(STATUS_FAILED);
}

static void show_nothing(void *arg, const sequence *list, int64_t i, bool finished)
{
    (void)arg, (void)list, (void)i, (void)finished;
}

static void lay_out_sequences(session *s)
{
    s->list = xmalloc((size_t)s->n * sizeof *s->list);
    s->outputs = xmalloc((size_t)s->n * sizeof *s->outputs);
    for (int64_t i = 0; i < s->n; i++) {
        const prompt *p = &s->prompts[i / s->flags->num_return_sequences];
        sequence *q = &s->list[i];
        *q = (sequence){
            .ids = xmalloc((size_t)(p->n + s->max_new_tokens) * sizeof *q->ids), .n_prompt = p->n, .n = p->n};
        memcpy(q->ids, p->ids, (size_t)p->n * sizeof *q->ids);
        s->outputs[i] = (output){.stream = {.tokenizer = s->tokenizer, .shown = p->n}, .text = xstrdup("")};
        if (!s->flags->echo) continue;
        free(s->outputs[i].text);
        s->outputs[i].stream.shown = 0;
        s->outputs[i].text = text_stream_next(&s->outputs[i].stream, q->ids, q->n, true);
    }
}

static void add_end(token_list *ends, int32_t id)
{
    if (id >= 0 && !token_list_has(ends, id)) ends->id[ends->n++] = id;
}

/* Those of the model, the tokenizer's, with which documents were encoded, and that of a turn. */
static token_list ends_of(const session *s)
{
    token_list ends = *weights_ends(s->weights);

    if (s->tokenizer) add_end(&ends, tokenizer_eos(s->tokenizer));
    if (talks(s)) add_end(&ends, talk_end(s->tokenizer));
    return ends;
}

static generate_options options_of(const session *s)
{
    const generate_flags *f = s->flags;
    const int64_t n_rows = s->decoder.cfg.vocab_size;

    return (generate_options){.sample = {f->temperature, f->top_k, f->top_p},
                              .seed = (uint64_t)f->seed,
                              .max_new_tokens = s->max_new_tokens,
                              .n_vocab = s->tokenizer ? tokenizer_vocab_size(s->tokenizer) : n_rows,
                              .stop = f->ignore_eos ? (token_list){.n = 0} : ends_of(s)};
}

static int talk_with(session *s, moai_error *err)
{
    s->talk.generate = options_of(s);
    return talk_on(&s->decoder, s->tokenizer, &s->talk, s->longest + s->max_new_tokens, &s->grid.host_world, err);
}

static int write_texts(session *s)
{
    const generate_options opt = options_of(s);
    generate_rates r;
    int64_t n_written = 0;

    lay_out_sequences(s);
    if (is_streamed(s) && base_process.printer) fputs(s->outputs[0].text, stdout), output_flush();
    generate(&s->decoder, s->list, s->n, &opt, base_process.printer ? show : show_nothing, s, &r);
    say("read       %lld tokens in %.3f s, %.1f tokens/s", (long long)r.read_tokens, r.read_seconds,
        (double)r.read_tokens / r.read_seconds);
    for (int64_t i = 0; i < s->n; i++) n_written += s->list[i].n - s->list[i].n_prompt;
    if (r.written_tokens)
        say("wrote      %lld tokens, those after each text's first in %.3f s, %.1f tokens/s", (long long)n_written,
            r.written_seconds, (double)r.written_tokens / r.written_seconds);
    return 0;
}

static int file_error(const char *path, moai_error *err)
{
    return error_set(err, "--logits_out %s: %s", path, strerror(errno));
}

/* --logits_out: (ids, vocab_size) fp32, by the printing rank */
static int write_logits(session *s, moai_error *err)
{
    const prompt *p = &s->prompts[0];
    const char *path = s->flags->logits_out;
    const size_t vocab = (size_t)s->decoder.cfg.vocab_size;
    float *logits = xmalloc(LOGITS_ROWS * vocab * sizeof *logits);
    int32_t pos[LOGITS_ROWS], wanted[LOGITS_ROWS];
    static const int32_t seq[LOGITS_ROWS];
    FILE *f = base_process.printer ? fopen(path, "wb") : NULL;
    int failed = comm_agree(&s->grid.host_world, base_process.printer && !f && file_error(path, err), err);

    for (int64_t first = 0, n; !failed && first < p->n; first += n) {
        n = min_i64(s->decoder.opt.max_rows, p->n - first);
        for (int32_t i = 0; i < n; i++) pos[i] = (int32_t)first + i, wanted[i] = i;
        decoder_forward(&s->decoder, (decode_rows){n, p->ids + first, seq, pos, n, wanted}, logits);
        const bool lost =
            f && fwrite(logits, vocab * sizeof *logits, (size_t)n, f) != (size_t)n && file_error(path, err);
        failed = comm_agree(&s->grid.host_world, lost, err);
    }
    const bool lost = f && fclose(f) && !failed && file_error(path, err);
    if (!failed) failed = comm_agree(&s->grid.host_world, lost, err);
    free(logits);
    return failed;
}

int main(int argc, char **argv)
{
    base_start();
    const int world = process_start(&argc, &argv);
    generate_flags flags;
    session s = {.flags = &flags};
    moai_error err;

    if (generate_flags_read(&flags, argc, argv, &err)) config_error("%s", err.text);
    /* the last argument only forms the groups that sum gradients: none are wanted */
    grid_init(&s.grid, (grid_shape){.tp = world, .cp = 1, .dp = 1, .pp = 1}, world);
    int failed = session_open(&s, &err);
    if (!failed)
        failed = *flags.logits_out ? write_logits(&s, &err) : flags.chat ? talk_with(&s, &err) : write_texts(&s);
    if (failed && base_process.printer) fprintf(stderr, "moai: %s\n", err.text);
    session_close(&s);
    generate_flags_free(&flags);
    process_finish();
    return output_end(failed ? error_status(&err) : STATUS_OK);
}
