/* encode_parts.h: the tokens of blocks between encoding and shards; the two halves of encode.h meet here. A part, for
 * each block: n_documents int64 lengths, then n_tokens uint16 (uint32 when the vocabulary is larger than 65536), then
 * n_tokens uint8 flags where they are of examples. */
#ifndef MOAI_ENCODE_PARTS_H
#define MOAI_ENCODE_PARTS_H

#include "io/data/shard.h"
#include "io/text/tokenizer.h"
#include "src/corpus/encode.h"

typedef struct encoded_block {
    int file;
    int64_t number;                           /* in the file */
    int64_t offset;                           /* in the part */
    int64_t n_documents, n_tokens;
    int64_t *lengths;                         /* (n_documents), eos counted */
} encoded_block;

/* What is known of an input before it is read. */
typedef struct encode_input {
    int64_t n_bytes;                          /* of the file */
    bool is_sequential, is_undivided;         /* as text.h says */
    bool is_jsonl;
    bool is_copied;                           /* a pipe or the like: its copy in .parts is read */
} encode_input;

/* Where a token of a block is the first that is unknown to the tokenizer, and what stood there. */
typedef struct encode_unknown {
    int file;
    int64_t number;                           /* of the block */
    int64_t offset, line;                     /* of the block in the text; its first line, 0: not counted */
    int64_t line_in_block;                    /* from 0 */
    char found[32];                           /* what stands for it in the text, "" if that is not to be told */
} encode_unknown;

typedef struct encode_parts {
    char *directory;
    int64_t generation;                       /* of the shards' names: encode_output.h */
    encode_input *inputs;                     /* (n_inputs) known to every rank, as are n_blocks */
    int width;                                /* bytes per token */
    bool is_marked;                           /* with flags */
    chat_counts chat;                         /* on this rank */
    int64_t *n_blocks;                        /* (n_inputs) of each file */
    encoded_block *own;                       /* this rank's, in no order */
    int64_t n_own, capacity;
    int64_t n_bytes;                          /* of text encoded on this rank */
    text_counts counts;                       /* on this rank */
    int64_t n_unknown;                        /* tokens on this rank */
    encode_unknown unknown;                   /* the first of them; of file INT_MAX: there are none */
    moai_error bad_lines[5];                  /* some of counts.bad_lines, in words */
    int n_bad_lines;
} encode_parts;

static inline int encode_owner(int file, int64_t number, int world) { return (int)((file + number) % world); }
char *encode_part_path(const encode_parts *, int rank);                  /* caller frees */

/* Opens and judges each input once, on rank 0, but for those that must be copied first.  Collective. */
int encode_look(const encode_options *, const comm *world, encode_parts *, moai_error *err);
/* Copies these to p->directory, and judges them.  Collective. */
int encode_copy(const encode_options *, const comm *world, encode_parts *p, moai_error *err);
char *encode_input_path(const encode_options *, const encode_parts *, int i);    /* where its bytes lie; caller frees */
/* Step 1: all blocks of this rank.  Not collective. */
int encode_blocks(const encode_options *, const tokenizer *, int rank, int world, encode_parts *, moai_error *err);
void encode_parts_free(encode_parts *);

/* The first unknown token of block `number`, in the document that text_next gave last. */
encode_unknown encode_find_unknown(const tokenizer *, int file, int64_t number, const text_block *, const char *text,
                                   size_t n_bytes);
bool encode_unknown_before(const encode_unknown *, const encode_unknown *);
/* Tells of all ranks' unknown tokens, `n_tokens` being all; warns when they are many.  Collective. */
void encode_report_unknown(const encode_options *, const encode_parts *, const comm *world, int64_t n_tokens);
/* Steps 2 and 3.  Collective; fills the manifest's splits `train` and `validation` on every rank. */
int encode_shards(const encode_options *, const encode_parts *, const comm *world, manifest *, moai_error *err);

#endif
