/* encode.c: the steps of encode.h in order, and what is told of them */
#include "io/file/hash.h"
#include "src/base/files.h"
#include "src/corpus/encode_output.h"
#include "src/corpus/encode_parts.h"

#include <stdlib.h>

/* Some of the lines left out, of whichever ranks. */
static void report_bad_lines(const encode_parts *parts, const comm *world)
{
    for (int i = 0; i < (int)(sizeof parts->bad_lines / sizeof *parts->bad_lines); i++) {
        moai_error one = parts->bad_lines[i];
        if (comm_agree(world, i < parts->n_bad_lines, &one) != 0) warn("left out: %s", one.text);
    }
}

/* A separator that is nowhere: misspelt, or the texts are divided otherwise. */
static void report_undivided(const encode_options *o, const encode_parts *parts)
{
    const text_separation s = o->format.separation;
    int n_texts = 0;

    for (int i = 0; i < o->n_inputs; i++) n_texts += !parts->inputs[i].is_jsonl;
    if (n_texts > 0 && (s == SEPARATE_BLANK_LINE || s == SEPARATE_LITERAL))
        warn("--document_separator %s: there is no such line in the %d texts: each is one document", o->format.literal,
             n_texts);
}

static void report_chat(const encode_options *o, const encode_parts *parts, const comm *world)
{
    const chat_counts *c = &parts->chat;
    double sums[] = {(double)c->n_long, (double)c->n_cut, (double)c->n_untrained, (double)c->n_trained,
                     (double)c->n_lost_thoughts};

    comm_all_reduce(world, sums, sizeof sums / sizeof *sums, DT_F64, REDUCE_SUM);
    say("chat: template %s; %.0f trained tokens", chat_template_name(o->chat->template), sums[3]);
    if (sums[0] > 0)
        warn("%.0f examples of more than %lld tokens (--seq_length) were left out; --truncate cuts them", sums[0],
             (long long)o->chat->most_tokens);
    if (sums[1] > 0) warn("%.0f examples were cut to %lld tokens", sums[1], (long long)o->chat->most_tokens);
    if (sums[2] > 0) warn("%.0f examples without a trained token were left out", sums[2]);
    if (sums[4] > 0)
        warn("the reasoning of %.0f answers was left out: the template %s has no place for it", sums[4],
             chat_template_name(o->chat->template));
}

static void report(const encode_options *o, const manifest *m, const encode_parts *parts, const comm *world,
                   double seconds)
{
    const text_counts *c = &parts->counts;
    double sums[] = {(double)parts->n_bytes, (double)c->empty,     (double)c->null, (double)c->replaced,
                     (double)c->repaired,    (double)c->bad_lines, (double)c->nul,  (double)c->separators};

    comm_all_reduce(world, sums, sizeof sums / sizeof *sums, DT_F64, REDUCE_SUM);
    int64_t documents[2] = {0}, tokens = 0;
    for (int i = 0; i < m->n_splits; i++) {
        for (int k = 0; k < m->splits[i].n; k++) documents[i] += m->splits[i].list[k].documents;
        tokens += m->splits[i].tokens;
    }
    if (o->chat) report_chat(o, parts, world);
    say("encode: %.2f MB in %lld + %lld documents (train + validation), %lld tokens, %.2f bytes each, in %.2f s: %.1f "
        "MB/s to %s",
        sums[0] / 1e6, (long long)documents[0], (long long)documents[1], (long long)tokens, sums[0] / (double)tokens,
        seconds, sums[0] / 1e6 / seconds, o->output);
    if (sums[1] > 0) warn("%.0f documents without text were left out, %.0f of them null", sums[1], sums[2]);
    if (sums[3] > 0)
        warn("%.0f characters that are not UTF-8, in %.0f documents, were replaced by U+FFFD (%.0f of them NUL)",
             sums[3], sums[4], sums[6]);
    if (sums[5] > 0) {
        warn("%.0f lines of JSON were left out, as --bad_lines skip has it", sums[5]);
        report_bad_lines(parts, world);
    }
    if (sums[7] == 0) report_undivided(o, parts);
    encode_report_unknown(o, parts, world, tokens);
    if (documents[1] == 0 && (o->validation_fraction > 0 || o->validation_documents > 0))
        warn("no document fell to the validation split: --validation_documents N takes N of them, "
             "--document_separator makes more of a file");
}

static int open_tokenizer(const encode_options *o, tokenizer **tok, manifest *m, moai_error *err)
{
    *tok = file_given("tokenizer", o->tokenizer, err) == 0 ? tokenizer_open(o->tokenizer, err) : NULL;
    if (!*tok || file_sha256(o->tokenizer, m->info.tokenizer_sha256, err) != 0) return -1;
    m->info.vocab_size = tokenizer_vocab_size(*tok);
    m->info.eos = tokenizer_eos(*tok);
    m->info.pad = tokenizer_pad(*tok);
    m->dir = xstrdup(o->output);
    m->info.is_marked = o->chat;
    if (m->info.eos < 0 && o->chat) m->info.eos = 0;          /* examples end with any token */
    return m->info.eos < 0 ? error_set(err, "%s: the tokenizer has no eos to end documents with", o->tokenizer) : 0;
}

/* Rank 0 keeps the directory; what the others must know of it. */
static int begin_output(const encode_options *o, encode_output *out, encode_parts *parts, const comm *world,
                        moai_error *err)
{
    int status = world->rank == 0 ? encode_output_begin(out, o->output, o->overwrite, err) : 0;

    parts->directory = xasprintf("%s/.parts", o->output);
    parts->generation = out->generation;
    status = comm_agree(world, status != 0, err);
    if (status == 0) comm_broadcast(world, &parts->generation, sizeof parts->generation, DT_U8, 0);
    return status;
}

/* The template that is meant, which every rank finds. */
static int settle_template(encode_options *o, chat_making *chat, const tokenizer *tok, moai_error *err)
{
    if (!o->chat) return 0;
    *chat = *o->chat;
    o->chat = chat;
    return chat->template == TEMPLATE_AUTO ? chat_template_find(&chat->template, o->tokenizer, tok, err) : 0;
}

int encode_run(const encode_options *given, const comm *world, moai_error *err)
{
    encode_options own = *given, *o = &own;
    chat_making chat;
    encode_parts parts = {0};
    encode_output out = {0};
    manifest m = {0};
    tokenizer *tok = NULL;
    double begin = now_seconds();
    int status = open_tokenizer(o, &tok, &m, err);

    if (status == 0) status = settle_template(o, &chat, tok, err);
    status = comm_agree(world, status != 0, err);
    if (status == 0) status = encode_look(o, world, &parts, err);
    if (status == 0) status = begin_output(o, &out, &parts, world, err);
    if (status == 0) status = encode_copy(o, world, &parts, err);
    if (status == 0) {
        status = encode_blocks(o, tok, world->rank, world->size, &parts, err);
        status = comm_agree(world, status != 0, err);
    }
    if (status == 0) status = encode_shards(o, &parts, world, &m, err);
    if (status == 0) {
        if (world->rank == 0) status = encode_output_commit(&out, &m, o->tokenizer, tokenizer_is_json(tok), err);
        status = comm_agree(world, status != 0, err);
    }
    if (status == 0) report(o, &m, &parts, world, now_seconds() - begin);
    encode_output_end(&out);
    manifest_free(&m);
    encode_parts_free(&parts);
    tokenizer_free(tok);
    return status;
}
