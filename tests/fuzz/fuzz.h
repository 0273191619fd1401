/* fuzz.h: what the fuzz targets share.  A target is tests/fuzz/fuzz-NAME.c: fuzz_start, fuzz_seeds,
 * LLVMFuzzerTestOneInput, and where plain bytes would not get past a checksum or a parser, LLVMFuzzerCustomMutator.
 *
 * What counts as a crash: whatever the sanitizers say, die() and config_error() (input is answered with an error),
 * more memory or time than tests/fuzz/run allows, and what a target says itself with CHECK. */
#ifndef FUZZ_H
#define FUZZ_H

#include "src/base/base.h"

/* A target's own part, called once: what the inputs need around them, in the scratch directory, which is the working
 * directory. */
void fuzz_start(void);
/* Calls fuzz_seed for each file of the corpus to begin with. */
void fuzz_seeds(void);

void fuzz_seed(const char *name, const void *data, size_t n_bytes);
void fuzz_seed_text(const char *name, const char *text);
void fuzz_seed_file(const char *name, const char *path);

/* From libFuzzer. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

void fuzz_write(const char *path, const void *data, size_t n_bytes);
void *fuzz_read(const char *path, size_t *n_bytes); /* caller frees */

/* Changes JSON text: mostly as a tree (a value, key or element becomes another, goes, comes twice), else as bytes.
 * Returns the new size. */
size_t fuzz_mutate_json(uint8_t *data, size_t size, size_t max_size, unsigned seed);
/* Jansson's reading of a member of an object, for comparison: of a string the text (caller frees).  NULL and n_text 0
 * for others, with the first letter of the kind: s(tring) i(nteger) r(eal) t(rue) f(alse) n(ull) o(bject) a(rray);
 * '-': no such key; 0: it takes no such text, or no object. */
char *fuzz_jansson(const char *text, size_t n, const char *key, size_t *n_text, char *kind);
void fuzz_json_seeds(void);                       /* objects of every kind, odd and deep ones */
uint64_t fuzz_draw(unsigned *seed, uint64_t n); /* of [0, n), n > 0 */

/* A model of a few hundred weights: config.json and model.safetensors in `dir`, which is made. */
void fuzz_model(const char *dir);
/* A byte-pair model with byte fallback of 384 pieces as PATH. */
void fuzz_tokenizer(const char *path);
/* A tokenizer.json of the bytes, two merges and ChatML's tokens as PATH. */
void fuzz_tokenizer_json(const char *path);
/* A sealed JSON object (files.h): the body without its seal, and with a new one. */
size_t fuzz_unseal(uint8_t *data, size_t size);
size_t fuzz_seal(uint8_t *data, size_t size, size_t max_size);

#endif
