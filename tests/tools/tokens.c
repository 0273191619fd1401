/* tokens TOKENIZER [--special]: the ids of texts that come on standard input, each behind it a NUL, a line of numbers
 * each; a text whose tokens do not give it back in its normal form is named.  --special: names of special tokens are
 * found in it.  tokens TOKENIZER --rate FILE: the seconds that one thread takes for the file's lines. */
#include "io/text/tokenizer.h"
#include "src/base/files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static moai_error err;

static char *read_all(FILE *f, size_t *n)
{
    size_t room = 1 << 20;
    char *text = malloc(room);

    for (*n = 0;;) {
        CHECK(text, "out of host memory");
        const size_t got = fread(text + *n, 1, room - *n, f);
        if (got == 0) return text;
        *n += got;
        if (*n == room) text = realloc(text, room *= 2);
    }
}

static void print_rate(const tokenizer *t, const char *path)
{
    size_t n;
    char *text = file_read(path, (size_t)1 << 31, &n, &err);
    int32_t *ids = NULL;
    int64_t n_ids = 0, capacity = 0, n_tokens = 0;

    CHECK(text, "%s", err.text);
    const double begin = now_seconds();
    for (char *line = text, *end; line < text + n; line = end) {
        end = memchr(line, '\n', (size_t)(text + n - line));
        end = end ? end + 1 : text + n;
        n_ids = 0;
        CHECK(tokenizer_encode(t, line, (size_t)(end - line), &ids, &n_ids, &capacity, &err) == 0, "%s", err.text);
        n_tokens += n_ids;
    }
    printf("%.4f %lld\n", now_seconds() - begin, (long long)n_tokens);
    free(text);
    free(ids);
}

int main(int argc, char **argv)
{
    tokenizer *t = argc > 1 ? tokenizer_open(argv[1], &err) : NULL;
    const bool special = argc > 2 && strcmp(argv[2], "--special") == 0;
    int32_t *ids = NULL;
    int64_t n_ids, capacity = 0;
    size_t n = 0, n_back, n_normal;

    if (!t) return fprintf(stderr, "%s\n", err.text), 1;
    if (argc > 3 && strcmp(argv[2], "--rate") == 0) return print_rate(t, argv[3]), 0;
    char *all = read_all(stdin, &n);
    for (size_t at = 0; at < n; at += strlen(all + at) + 1) {
        const char *text = all + at;
        n_ids = 0;
        CHECK((special ? tokenizer_encode_special : tokenizer_encode)(t, text, strlen(text), &ids, &n_ids, &capacity,
                                                                      &err) == 0,
              "%s", err.text);
        for (int64_t i = 0; i < n_ids; i++) printf("%d ", ids[i]);
        char *normal, *back = tokenizer_decode(t, ids, n_ids, &n_back);
        CHECK(tokenizer_normalize(t, text, strlen(text), &normal, &n_normal, &err) == 0, "%s", err.text);
        if (!special && tokenizer_gives_back(t) && (n_back != n_normal || memcmp(back, normal, n_back) != 0))
            printf("LOST");
        printf("\n");
        free(normal);
        free(back);
    }
    tokenizer_free(t);
    free(all);
    free(ids);
    return 0;
}
