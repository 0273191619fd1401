/* encode_blocks.c: step 1 of encode.h, blocks of text to parts */
#include "src/corpus/encode_parts.h"
#include "src/host/progress.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What the threads of a rank share. */
typedef struct encoder {
    const encode_options *options;
    const tokenizer *tokenizer;
    int rank, world, part;                    /* part: file descriptor */
    char *part_path, *failed_path;            /* failed_path exists once some rank has failed */
    int64_t block_bytes;
    encode_parts *out;
    atomic_bool stop;
    pthread_mutex_t lock;                     /* over all below, and out */
    pthread_cond_t finished;
    int n_running;
    int status;
    moai_error err;
    /* where the next block is: all ranks walk over all blocks in the same order */
    int file;
    int64_t number;
    text_file *open;                          /* of `file` where it is sequential and divided, or NULL */
    int64_t part_bytes, input_bytes, input_done, text_done;
} encoder;

/* A block to encode: read already when its file is sequential. */
typedef struct task {
    int file;
    int64_t number;
    bool is_read;
    text_block block;
} task;

/* What a thread keeps from block to block. */
typedef struct worker_room {
    int32_t *ids;
    uint8_t *trained;                         /* flags of the ids, of examples */
    int64_t n_ids, ids_capacity, n_unknown;   /* of the block under way */
    chat_counts chat;                         /* likewise */
    int64_t *lengths, lengths_capacity;
} worker_room;

char *encode_part_path(const encode_parts *p, int rank) { return xasprintf("%s/rank-%05d", p->directory, rank); }

void encode_parts_free(encode_parts *p)
{
    for (int64_t i = 0; i < p->n_own; i++) free(p->own[i].lengths);
    free(p->own);
    free(p->n_blocks);
    free(p->inputs);
    free(p->directory);
    *p = (encode_parts){0};
}

static text_file *open_input(const encoder *e, int file, moai_error *err)
{
    char *path = encode_input_path(e->options, e->out, file);
    text_file *f = text_open_as(path, e->options->inputs[file], &e->options->format, err);

    free(path);
    if (!f || text_bytes(f) == e->out->inputs[file].n_bytes) return f;
    error_set(err, "%s: has %lld bytes now, and had %lld when the work began", e->options->inputs[file],
              (long long)text_bytes(f), (long long)e->out->inputs[file].n_bytes);
    text_close(f);
    return NULL;
}

/* Ends the file; lock held. */
static void finish_file(encoder *e, int64_t n_blocks)
{
    e->out->n_blocks[e->file] = n_blocks;
    text_close(e->open);
    e->open = NULL;
    e->file++;
    e->number = 0;
}

/* Moves on by one block.  1: it is this rank's and in *t; 0: it is not, or a file has ended; -1.  Lock held. */
static int step_on(encoder *e, task *t, moai_error *err)
{
    const encode_input *in = &e->out->inputs[e->file];
    const bool whole = in->is_undivided, own = encode_owner(e->file, e->number, e->world) == e->rank;
    const int64_t begin = e->number * e->block_bytes, size = in->n_bytes;

    if (whole ? e->number > 0 : !in->is_sequential && begin >= size) {
        finish_file(e, e->number);
        return 0;
    }
    *t = (task){.file = e->file, .number = e->number};
    if (in->is_sequential && !whole) {
        if (!e->open && !(e->open = open_input(e, e->file, err))) return -1;
        int64_t before = text_position(e->open);
        int got = text_read_block(e->open, begin, e->block_bytes, own ? &t->block : NULL, err);
        e->input_done += text_position(e->open) - before;
        if (got == 0) finish_file(e, e->number);
        if (got <= 0) return got;
        e->text_done += e->block_bytes;
        t->is_read = own;
    } else {
        int64_t n = whole ? size : min_i64(e->block_bytes, size - begin);
        e->input_done += n;
        e->text_done += n;
    }
    e->number++;
    return own;
}

/* The next block of this rank: 1; 0 when there is none; -1.  Takes the lock. */
static int next_task(encoder *e, task *t, moai_error *err)
{
    int got = 0;

    pthread_mutex_lock(&e->lock);
    while (got == 0 && !e->stop && e->file < e->options->n_inputs) got = step_on(e, t, err);
    pthread_mutex_unlock(&e->lock);
    return got;
}

/* The first unknown token of the block has been found; is it the first of the rank's so far? */
static void note_unknown(encoder *e, const encoded_block *b, const text_block *read, const char *text, size_t n_bytes)
{
    encode_unknown u = {.file = b->file, .number = b->number};
    encode_parts *out = e->out;

    pthread_mutex_lock(&e->lock);
    const bool is_first = encode_unknown_before(&u, &out->unknown);
    pthread_mutex_unlock(&e->lock);
    if (!is_first) return;
    u = encode_find_unknown(e->tokenizer, b->file, b->number, read, text, n_bytes);
    pthread_mutex_lock(&e->lock);
    if (encode_unknown_before(&u, &out->unknown)) out->unknown = u;
    pthread_mutex_unlock(&e->lock);
}

static int append_text(worker_room *r, const tokenizer *tok, const char *text, size_t n_bytes, moai_error *err)
{
    if (tokenizer_encode(tok, text, n_bytes, &r->ids, &r->n_ids, &r->ids_capacity, err) != 0) return -1;
    if (r->n_ids == r->ids_capacity) {
        r->ids_capacity += 1024;
        r->ids = realloc(r->ids, (size_t)r->ids_capacity * sizeof *r->ids);
        CHECK(r->ids, "out of host memory: %lld tokens", (long long)r->ids_capacity);
    }
    r->ids[r->n_ids++] = tokenizer_eos(tok);
    return 1;
}

/* 1, or 0: it is none, or left out, and counted. */
static int append_example(const encoder *e, worker_room *r, text_block *read, const char *line, size_t n_bytes,
                          moai_error *err)
{
    moai_error why;
    const int made = chat_make(e->options->chat, e->tokenizer, line, n_bytes, &r->ids, &r->trained, &r->n_ids,
                               &r->ids_capacity, &r->chat, &why);

    if (made >= 0) return made;
    char *place = text_place(read);
    error_set(err, "%s: %s", place, why.text);
    err->config = why.config;
    free(place);
    return text_pass_over(read, err);
}

static int append_document(const encoder *e, worker_room *r, encoded_block *b, text_block *read, const char *text,
                           size_t n_bytes, moai_error *err)
{
    const int32_t unknown = tokenizer_unknown(e->tokenizer);
    const int64_t before = r->n_ids;
    const int made = e->options->chat ? append_example(e, r, read, text, n_bytes, err)
                                      : append_text(r, e->tokenizer, text, n_bytes, err);

    if (made <= 0) return made;
    for (int64_t i = before; i < r->n_ids; i++) r->n_unknown += r->ids[i] == unknown;
    if (b->n_documents == r->lengths_capacity) {
        r->lengths_capacity = 2 * r->lengths_capacity + 64;
        r->lengths = realloc(r->lengths, (size_t)r->lengths_capacity * sizeof *r->lengths);
        CHECK(r->lengths, "out of host memory: %lld documents", (long long)r->lengths_capacity);
    }
    r->lengths[b->n_documents++] = r->n_ids - before;
    return 0;
}

static int write_at(int fd, const char *path, const void *data, size_t n, int64_t offset, moai_error *err)
{
    for (size_t done = 0; done < n;) {
        ssize_t wrote = pwrite(fd, (const char *)data + done, n - done, (off_t)(offset + (int64_t)done));
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0) return error_set(err, "%s: cannot write: %s", path, strerror(errno));
        done += (size_t)wrote;
    }
    return 0;
}

/* Puts an encoded block behind the others in the part and on the list. */
static int keep_block(encoder *e, worker_room *r, encoded_block *b, int64_t n_bytes, const text_block *read,
                      moai_error *err)
{
    encode_parts *out = e->out;
    const size_t lengths_bytes = (size_t)b->n_documents * sizeof *r->lengths,
                 tokens_bytes = (size_t)r->n_ids * (size_t)out->width,
                 flags_bytes = out->is_marked ? (size_t)r->n_ids : 0;
    const int64_t tokens_at = (int64_t)lengths_bytes, flags_at = tokens_at + (int64_t)tokens_bytes;

    pthread_mutex_lock(&e->lock);
    b->offset = e->part_bytes;
    e->part_bytes += flags_at + (int64_t)flags_bytes;
    pthread_mutex_unlock(&e->lock);
    if (out->width == 2)                      /* narrowed in place: the write position never passes the read position */
        for (int64_t i = 0; i < r->n_ids; i++) {
            uint16_t id = (uint16_t)r->ids[i];
            memcpy((char *)r->ids + 2 * i, &id, 2);
        }
    if (write_at(e->part, e->part_path, r->lengths, lengths_bytes, b->offset, err) != 0 ||
        write_at(e->part, e->part_path, r->ids, tokens_bytes, b->offset + tokens_at, err) != 0 ||
        write_at(e->part, e->part_path, r->trained, flags_bytes, b->offset + flags_at, err) != 0)
        return -1;
    b->n_tokens = r->n_ids;
    b->lengths = xmalloc(lengths_bytes);
    if (lengths_bytes) memcpy(b->lengths, r->lengths, lengths_bytes);
    pthread_mutex_lock(&e->lock);
    if (out->n_own == out->capacity) {
        out->capacity = 2 * out->capacity + 64;
        out->own = realloc(out->own, (size_t)out->capacity * sizeof *out->own);
        CHECK(out->own, "out of host memory: %lld blocks", (long long)out->capacity);
    }
    out->own[out->n_own++] = *b;
    out->n_bytes += n_bytes;
    out->n_unknown += r->n_unknown;
    chat_counts_add(&out->chat, &r->chat);
    text_counts_add(&out->counts, &read->counts);
    if (read->counts.bad_lines > 0 && out->n_bad_lines < (int)(sizeof out->bad_lines / sizeof *out->bad_lines))
        out->bad_lines[out->n_bad_lines++] = read->first_bad;
    pthread_mutex_unlock(&e->lock);
    return 0;
}

static int read_task(const encoder *e, task *t, moai_error *err)
{
    text_file *f = open_input(e, t->file, err);

    if (!f) return -1;
    int got = text_undivided(f) ? text_read_block(f, 0, INT64_MAX, &t->block, err)
                                : text_read_block(f, t->number * e->block_bytes, e->block_bytes, &t->block, err);
    if (got == 0) t->block.counts.empty = text_undivided(f);  /* an empty file */
    text_close(f);
    return got < 0 ? -1 : 0;
}

static int encode_task(encoder *e, task *t, worker_room *r, moai_error *err)
{
    encoded_block b = {.file = t->file, .number = t->number};
    const char *text;
    size_t n;
    int64_t n_bytes = 0;
    int got;

    r->n_ids = r->n_unknown = 0;
    r->chat = (chat_counts){0};
    if (!t->is_read && read_task(e, t, err) != 0) return -1;
    while ((got = t->block.data ? text_next(&t->block, &text, &n, err) : 0) > 0) {
        const bool none_yet = r->n_unknown == 0;
        n_bytes += (int64_t)n;
        if (append_document(e, r, &b, &t->block, text, n, err) != 0) return -1;
        if (none_yet && r->n_unknown > 0) note_unknown(e, &b, &t->block, text, n);
    }
    return got < 0 ? -1 : keep_block(e, r, &b, n_bytes, &t->block, err);
}

/* Notes the first failure and lets the threads of all ranks know. */
static void fail(encoder *e, const moai_error *err)
{
    pthread_mutex_lock(&e->lock);
    if (e->status == 0) {
        int fd = open(e->failed_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
        if (fd >= 0) close(fd);
        e->err = *err;
    }
    e->status = -1;
    e->stop = true;
    pthread_mutex_unlock(&e->lock);
}

static void *work(void *arg)
{
    encoder *e = arg;
    worker_room room = {0};
    moai_error err;
    task t;
    int got;

    while ((got = next_task(e, &t, &err)) > 0) {
        int status = encode_task(e, &t, &room, &err);
        text_block_free(&t.block);
        if (status != 0) fail(e, &err);
        if (access(e->failed_path, F_OK) == 0) e->stop = true;
    }
    if (got < 0) fail(e, &err);
    free(room.ids);
    free(room.trained);
    free(room.lengths);
    pthread_mutex_lock(&e->lock);
    e->n_running--;
    pthread_cond_signal(&e->finished);
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

/* Starts the threads, shows how far they are, and waits for them. */
static void run_threads(encoder *e)
{
    pthread_t *threads = xmalloc((size_t)e->options->n_threads * sizeof *threads);
    progress bar;

    progress_start(&bar, "encode");
    e->n_running = e->options->n_threads;
    for (int i = 0; i < e->options->n_threads; i++) {
        int failed = pthread_create(&threads[i], NULL, work, e);
        CHECK(failed == 0, "cannot start thread %d of %d: %s", i + 1, e->options->n_threads, strerror(failed));
    }
    pthread_mutex_lock(&e->lock);
    while (e->n_running > 0) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 200000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&e->finished, &e->lock, &until);
        if (e->options->progress) progress_show(&bar, e->input_done, e->input_bytes, e->text_done);
    }
    pthread_mutex_unlock(&e->lock);
    progress_end(&bar);
    for (int i = 0; i < e->options->n_threads; i++) pthread_join(threads[i], NULL);
    free(threads);
}

int encode_blocks(const encode_options *o, const tokenizer *tok, int rank, int world, encode_parts *out,
                  moai_error *err)
{
    enum { SMALLEST = 1 << 16, LARGEST = 1 << 24, BLOCKS = 1024 };
    encoder e = {.options = o, .tokenizer = tok, .rank = rank, .world = world, .out = out};

    for (int i = 0; i < o->n_inputs; i++) e.input_bytes += out->inputs[i].n_bytes;
    e.block_bytes = max_i64(SMALLEST, min_i64(LARGEST, e.input_bytes / BLOCKS));
    out->width = tokenizer_vocab_size(tok) <= 65536 ? 2 : 4;
    out->is_marked = o->chat;
    out->unknown.file = INT_MAX;
    out->n_blocks = xmalloc((size_t)o->n_inputs * sizeof *out->n_blocks);
    e.failed_path = xasprintf("%s/failed", out->directory);
    e.part_path = encode_part_path(out, rank);
    e.part = open(e.part_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (e.part < 0) {
        e.status = error_set(&e.err, "%s: %s", e.part_path, strerror(errno));
    } else {
        pthread_mutex_init(&e.lock, NULL);
        pthread_cond_init(&e.finished, NULL);
        run_threads(&e);
        pthread_cond_destroy(&e.finished);
        pthread_mutex_destroy(&e.lock);
        text_close(e.open);
        if (close(e.part) != 0 && e.status == 0) e.status = error_set(&e.err, "%s: %s", e.part_path, strerror(errno));
    }
    free(e.failed_path);
    free(e.part_path);
    if (e.status != 0) *err = e.err;
    return e.status;
}
