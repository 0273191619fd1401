/* pack.c: see pack.h */
#include "src/base/pack.h"

#include <stdlib.h>
#include <string.h>

void pack_bytes(pack *p, const void *data, size_t n_bytes)
{
    if (n_bytes > p->room - p->n_bytes) {
        p->room = 2 * (p->n_bytes + n_bytes) + 256;
        CHECK(p->bytes = realloc(p->bytes, p->room), "out of host memory: %zu bytes", p->room);
    }
    if (n_bytes) memcpy(p->bytes + p->n_bytes, data, n_bytes);
    p->n_bytes += n_bytes;
}

void pack_int(pack *p, int64_t value) { pack_bytes(p, &value, sizeof value); }

void pack_text(pack *p, const char *text)
{
    const int64_t length = text ? (int64_t)strlen(text) : -1;

    pack_int(p, length);
    if (text) pack_bytes(p, text, (size_t)length);
}

unpack unpack_of(const void *bytes, size_t n_bytes)
{
    return (unpack){(const char *)bytes, (const char *)bytes + n_bytes};
}

void unpack_bytes(unpack *u, void *data, size_t n_bytes)
{
    CHECK(n_bytes <= (size_t)(u->end - u->at), "a packed message ends %zu bytes too early", n_bytes);
    if (n_bytes) memcpy(data, u->at, n_bytes);
    u->at += n_bytes;
}

int64_t unpack_int(unpack *u)
{
    int64_t value;

    unpack_bytes(u, &value, sizeof value);
    return value;
}

char *unpack_text(unpack *u)
{
    const int64_t length = unpack_int(u);

    if (length < 0) return NULL;
    CHECK(length <= u->end - u->at, "a packed text of %lld bytes ends too early", (long long)length);
    char *text = xmalloc((size_t)length + 1);
    unpack_bytes(u, text, (size_t)length);
    return text;
}
