/* encode_parts.h: the tokens of blocks between encoding and shards; the two halves of encode.h meet here. A part, for
 * each block: n_documents int64 lengths, then n_tokens uint16 (uint32 when the vocabulary is larger than 65536). */
#ifndef MOAI_ENCODE_PARTS_H
#define MOAI_ENCODE_PARTS_H

#include "encode.h"
#include "shard.h"
#include "tokenizer.h"

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
    bool is_copied;                           /* a pipe or the like: its copy in .parts is read */
} encode_input;

typedef struct encode_parts {
    char *directory;
    int64_t generation;                       /* of the shards' names: encode_output.h */
    encode_input *inputs;                     /* (n_inputs) known to every rank, as are n_blocks */
    int width;                                /* bytes per token */
    int64_t *n_blocks;                        /* (n_inputs) of each file */
    encoded_block *own;                       /* this rank's, in no order */
    int64_t n_own, capacity;
    int64_t n_bytes;                          /* of text encoded on this rank */
    text_counts counts;                       /* on this rank */
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
/* Steps 2 and 3.  Collective; fills the manifest's splits `train` and `validation` on every rank. */
int encode_shards(const encode_options *, const encode_parts *, const comm *world, manifest *, moai_error *err);

#endif
