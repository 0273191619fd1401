/* encode_shards.c: steps 2 and 3 of encode.h: numbers, splits and places of documents from the counts of blocks;
 * parts to shards */
#include "io/file/hash.h"
#include "src/base/files.h"
#include "src/base/rng.h"
#include "src/corpus/encode_output.h"
#include "src/corpus/encode_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TRAIN, VALIDATION, N_SPLITS };
static const char *const split_names[] = {"train", "validation"};

/* A block as every rank knows it.  Counts travel as doubles, exact up to 2^53. */
typedef struct placed_block {
    int owner;
    double offset, n_documents, n_tokens;     /* in the owner's part */
    double first_document;                    /* number of its first document among all */
    double begin[N_SPLITS], tokens[N_SPLITS]; /* place of its first token in each split, and how many it has there */
} placed_block;

typedef struct layout {
    const encode_options *options;
    const encode_parts *parts;
    uint64_t key;                             /* of the validation hash */
    int64_t *first_block;                     /* (n_inputs + 1) of each file, among all blocks */
    int64_t n_blocks, n_documents;
    placed_block *blocks;
    int64_t tokens[N_SPLITS];
} layout;

static int split_of(const layout *l, int64_t document)
{
    const encode_options *o = l->options;

    if (o->validation_documents > 0)
        return rng_permute(l->key, (uint64_t)l->n_documents, (uint64_t)document) < (uint64_t)o->validation_documents
                   ? VALIDATION
                   : TRAIN;
    return rng_uniform(l->key, (uint64_t)document) < o->validation_fraction ? VALIDATION : TRAIN;
}

/* Every rank's blocks onto every rank. */
static void share_blocks(layout *l, const comm *world)
{
    size_t n = (size_t)l->n_blocks;
    double *own = xmalloc(3 * n * sizeof *own);

    for (int64_t i = 0; i < l->parts->n_own; i++) {
        const encoded_block *b = &l->parts->own[i];
        double *at = own + 3 * (l->first_block[b->file] + b->number);
        at[0] = (double)b->offset, at[1] = (double)b->n_documents, at[2] = (double)b->n_tokens;
    }
    comm_all_reduce(world, own, 3 * n, DT_F64, REDUCE_SUM);
    double documents = 0;
    for (int file = 0; file < l->options->n_inputs; file++)
        for (int64_t i = l->first_block[file]; i < l->first_block[file + 1]; i++) {
            l->blocks[i] = (placed_block){.owner = encode_owner(file, i - l->first_block[file], world->size),
                                          .offset = own[3 * i],
                                          .n_documents = own[3 * i + 1],
                                          .n_tokens = own[3 * i + 2],
                                          .first_document = documents};
            documents += l->blocks[i].n_documents;
        }
    l->n_documents = (int64_t)documents;
    free(own);
}

/* How the tokens of each block fall to the splits, and from that every block's place. */
static void share_splits(layout *l, const comm *world)
{
    size_t n = (size_t)l->n_blocks;
    double *validation = xmalloc(n * sizeof *validation), begin[N_SPLITS] = {0};

    for (int64_t i = 0; i < l->parts->n_own; i++) {
        const encoded_block *b = &l->parts->own[i];
        int64_t at = l->first_block[b->file] + b->number, first = (int64_t)l->blocks[at].first_document;
        for (int64_t d = 0; d < b->n_documents; d++)
            if (split_of(l, first + d) == VALIDATION) validation[at] += (double)b->lengths[d];
    }
    comm_all_reduce(world, validation, n, DT_F64, REDUCE_SUM);
    for (size_t i = 0; i < n; i++) {
        placed_block *b = &l->blocks[i];
        b->tokens[VALIDATION] = validation[i];
        b->tokens[TRAIN] = b->n_tokens - validation[i];
        for (int s = 0; s < N_SPLITS; s++) {
            b->begin[s] = begin[s];
            begin[s] += b->tokens[s];
        }
    }
    for (int s = 0; s < N_SPLITS; s++) l->tokens[s] = (int64_t)begin[s];
    free(validation);
}

static void layout_make(layout *l, const encode_options *o, const encode_parts *parts, const comm *world)
{
    *l = (layout){.options = o, .parts = parts, .key = rng_key(o->seed, "validation split")};
    l->first_block = xmalloc((size_t)(o->n_inputs + 1) * sizeof *l->first_block);
    for (int file = 0; file < o->n_inputs; file++)
        l->first_block[file + 1] = l->first_block[file] + parts->n_blocks[file];
    l->n_blocks = l->first_block[o->n_inputs];
    l->blocks = xmalloc((size_t)l->n_blocks * sizeof *l->blocks);
    share_blocks(l, world);
    share_splits(l, world);
}

static void layout_free(layout *l)
{
    free(l->first_block);
    free(l->blocks);
}

/* One shard while it is written. */
typedef struct shard_job {
    const layout *layout;
    int split;
    int64_t begin, end;                       /* documents that start at these tokens of the split */
    int *parts;                               /* (world) file descriptors of the parts, -1: not open yet */
    shard_writer *writer;
    int64_t n_documents;
    char *room;                               /* one block as it lies in its part */
    size_t room_bytes;
    int32_t *ids;
    int64_t ids_capacity;
} shard_job;

static int read_block(shard_job *j, const placed_block *b, moai_error *err)
{
    const encode_parts *parts = j->layout->parts;
    size_t n = (size_t)b->n_documents * sizeof(int64_t) +
               (size_t)b->n_tokens * (size_t)(parts->width + parts->is_marked);
    char *path = encode_part_path(parts, b->owner);
    int status = 0;

    if (n > j->room_bytes) {
        free(j->room);
        j->room = xmalloc(n);
        j->room_bytes = n;
    }
    if (j->parts[b->owner] < 0 && (j->parts[b->owner] = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        status = error_set(err, "%s: %s (all ranks must see the output directory)", path, strerror(errno));
    if (status == 0) status = file_read_at(j->parts[b->owner], path, j->room, n, (int64_t)b->offset, err);
    free(path);
    return status;
}

static int append_document(shard_job *j, const char *tokens, const uint8_t *trained, int64_t n, moai_error *err)
{
    if (n > j->ids_capacity) {
        free(j->ids);
        j->ids_capacity = n + n / 2;
        j->ids = xmalloc((size_t)j->ids_capacity * sizeof *j->ids);
    }
    if (j->layout->parts->width == 2)
        for (int64_t i = 0; i < n; i++) {
            uint16_t id;
            memcpy(&id, tokens + 2 * i, 2);
            j->ids[i] = id;
        }
    else
        memcpy(j->ids, tokens, (size_t)n * sizeof *j->ids);
    j->n_documents++;
    return shard_append(j->writer, j->ids, trained, n, err);
}

/* The block's documents that belong to the shard. */
static int append_block(shard_job *j, const placed_block *b, moai_error *err)
{
    const layout *l = j->layout;
    int64_t first = (int64_t)b->first_document, n = (int64_t)b->n_documents, at = (int64_t)b->begin[j->split];

    if (read_block(j, b, err) != 0) return -1;
    const char *tokens = j->room + (size_t)n * sizeof(int64_t);
    const uint8_t *trained = (const uint8_t *)tokens + (int64_t)b->n_tokens * l->parts->width;
    for (int64_t d = 0; d < n; d++) {
        int64_t length;
        memcpy(&length, j->room + (size_t)d * sizeof length, sizeof length);
        if (split_of(l, first + d) == j->split) {
            if (at >= j->begin && at < j->end &&
                append_document(j, tokens, l->parts->is_marked ? trained : NULL, length, err) != 0)
                return -1;
            at += length;
        }
        tokens += length * l->parts->width;
        trained += length;
    }
    return 0;
}

/* The first block of the split that ends behind token `at`. */
static int64_t first_block_behind(const layout *l, int split, int64_t at)
{
    int64_t low = 0, high = l->n_blocks;

    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        const placed_block *b = &l->blocks[middle];
        if (b->begin[split] + b->tokens[split] > (double)at)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static int close_shard(shard_job *j, const char *path, manifest_shard *s, moai_error *err)
{
    s->tokens = shard_n_tokens(j->writer);
    s->documents = j->n_documents;
    s->counted = shard_n_counted(j->writer);
    return shard_close(j->writer, err) == 0 ? file_xxh3(path, s->xxh3, &s->bytes, err) : -1;
}

/* Writes one shard and fills *s; a shard in which no document begins gets tokens 0 and no file. */
static int write_shard(shard_job *j, const shard_info *info, manifest_shard *s, moai_error *err)
{
    const layout *l = j->layout;
    char *path = encode_unfinished_path(l->parts->directory, s->path);
    int status = 0;

    j->n_documents = 0;
    j->writer = shard_create(path, info, err);
    if (!j->writer) status = -1;
    for (int64_t i = first_block_behind(l, j->split, j->begin); status == 0 && i < l->n_blocks; i++) {
        const placed_block *b = &l->blocks[i];
        if (b->begin[j->split] >= (double)j->end) break;
        if (b->tokens[j->split] > 0) status = append_block(j, b, err);
    }
    if (status != 0 || j->n_documents == 0)
        shard_discard(j->writer);
    else
        status = close_shard(j, path, s, err);
    free(path);
    return status;
}

static int64_t count_shards(const layout *l, int split)
{
    return (l->tokens[split] + l->options->shard_tokens - 1) / l->options->shard_tokens;
}

/* This rank's share of all shards, dealt out in turn; list holds both splits, one behind the other. */
static int write_shards(const layout *l, const shard_info *info, const comm *world, manifest_shard *list,
                        moai_error *err)
{
    int64_t n_train = count_shards(l, TRAIN), n = n_train + count_shards(l, VALIDATION);
    shard_job j = {.layout = l, .parts = xmalloc((size_t)world->size * sizeof *j.parts)};
    int status = 0;

    for (int r = 0; r < world->size; r++) j.parts[r] = -1;
    for (int64_t i = world->rank; status == 0 && i < n; i += world->size) {
        j.split = i < n_train ? TRAIN : VALIDATION;
        j.begin = (j.split == TRAIN ? i : i - n_train) * l->options->shard_tokens;
        j.end = j.begin + l->options->shard_tokens;
        status = write_shard(&j, info, &list[i], err);
    }
    for (int r = 0; r < world->size; r++)
        if (j.parts[r] >= 0) close(j.parts[r]);
    free(j.parts);
    free(j.room);
    free(j.ids);
    return status;
}

/* What each rank knows of its shards onto every rank. */
static void share_shards(manifest_shard *list, int64_t n, const comm *world)
{
    enum { ROW = 4 + 32 };
    double *rows = xmalloc((size_t)(n * ROW) * sizeof *rows);

    for (int64_t i = world->rank; i < n; i += world->size) {
        double *row = rows + i * ROW;
        row[0] = (double)list[i].tokens, row[1] = (double)list[i].documents, row[2] = (double)list[i].bytes;
        row[3] = (double)list[i].counted;
        for (int k = 0; k < 32; k++) row[4 + k] = list[i].xxh3[k];
    }
    comm_all_reduce(world, rows, (size_t)(n * ROW), DT_F64, REDUCE_SUM);
    for (int64_t i = 0; i < n; i++) {
        const double *row = rows + i * ROW;
        list[i].tokens = (int64_t)row[0], list[i].documents = (int64_t)row[1], list[i].bytes = (int64_t)row[2];
        list[i].counted = (int64_t)row[3];
        for (int k = 0; k < 32; k++) list[i].xxh3[k] = (char)row[4 + k];
    }
    free(rows);
}

/* Moves the shards that exist into the manifest. */
static void fill_manifest(manifest *m, const layout *l, manifest_shard *list)
{
    m->splits = xmalloc(N_SPLITS * sizeof *m->splits);
    m->n_splits = N_SPLITS;
    for (int s = 0; s < N_SPLITS; s++) {
        int64_t n = count_shards(l, s);
        struct manifest_split *split = &m->splits[s];
        *split = (struct manifest_split){.name = xstrdup(split_names[s])};
        split->list = xmalloc((size_t)n * sizeof *split->list);
        for (int64_t i = 0; i < n; i++, list++) {
            if (list->tokens == 0) {
                free(list->path);
                continue;
            }
            split->list[split->n++] = *list;
            split->tokens += list->tokens;
        }
    }
}

static int check_counts(const layout *l, moai_error *err)
{
    const encode_options *o = l->options;

    if (l->n_documents == 0 && o->chat)
        return error_config(err, "%s%s: no example with a trained token is left", o->inputs[0],
                            o->n_inputs > 1 ? " and the other inputs" : "");
    if (l->n_documents == 0)
        return error_set(err, "%s%s: no text in it", o->inputs[0], o->n_inputs > 1 ? " and the other inputs" : "");
    if (l->tokens[TRAIN] == 0)
        return error_set(
            err,
            "none of %lld documents is left to train on: %lld for validation; a .txt is one document unless "
            "--document_separator divides it",
            (long long)l->n_documents, (long long)l->n_documents);
    return 0;
}

int encode_shards(const encode_options *o, const encode_parts *parts, const comm *world, manifest *m, moai_error *err)
{
    layout l;

    layout_make(&l, o, parts, world);
    int status = check_counts(&l, err);       /* the same on every rank */
    if (status == 0) {
        int64_t n_train = count_shards(&l, TRAIN), n = n_train + count_shards(&l, VALIDATION);
        manifest_shard *list = xmalloc((size_t)n * sizeof *list);
        for (int64_t i = 0; i < n; i++)
            list[i].path = encode_shard_path(o->output, split_names[i >= n_train], i < n_train ? i : i - n_train,
                                             parts->generation);
        status = write_shards(&l, &m->info, world, list, err);
        status = comm_agree(world, status != 0, err);
        if (status == 0) {
            share_shards(list, n, world);
            fill_manifest(m, &l, list);
        } else {
            for (int64_t i = 0; i < n; i++) free(list[i].path);
        }
        free(list);
    }
    layout_free(&l);
    return status;
}
