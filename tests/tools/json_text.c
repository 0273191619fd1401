/* json_text.c: what json_line.h finds in each line of standard input, a line each: KIND, and of a string its bytes in
 * hexadecimal; "fault AT WHY".  Usage: json_text KEY [replace].  For tests that compare with other readers. */
#include "io/text/json_line.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void show(const char *line, size_t n, const char *key, bool replace)
{
    json_found m;
    json_fault fault;
    int64_t n_lone = 0;

    if (json_find(line, n, key, &m, &fault) != 0) {
        printf("fault %zu %s\n", fault.at, fault.why ? fault.why : "no object");
    } else if (m.kind == VALUE_STRING) {
        char *text = xmalloc(m.n_bytes);
        size_t n_text;
        const int64_t control = json_find_control(m.value, m.n_bytes);
        if (control >= 0) {
            printf("fault %lld a control character in the text\n", (long long)(m.value - line) + (long long)control);
        } else if (json_unescape(m.value, m.n_bytes, text, &n_text, replace ? &n_lone : NULL, &fault) != 0) {
            printf("fault %zu %s\n", (size_t)(m.value - line) + fault.at, fault.why);
        } else {
            fputs("a string ", stdout);
            for (size_t i = 0; i < n_text; i++) printf("%02x", (unsigned char)text[i]);
            putchar('\n');
        }
        free(text);
    } else {
        puts(json_kind_name(m.kind));
    }
}

int main(int argc, char **argv)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t n;

    while (argc > 1 && (n = getline(&line, &room, stdin)) > 0) {
        if (line[n - 1] == '\n') n--;
        char *exact = xmalloc((size_t)n); /* so that a sanitizer sees what is read behind it */
        memcpy(exact, line, (size_t)n);
        show(exact, (size_t)n, argv[1], argc > 2);
        free(exact);
    }
    free(line);
    return 0;
}
