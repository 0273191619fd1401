/* recent_units.h: units of text met lately and their ids: a table without chains, where a newer unit takes the older
 * one's place.  Each thread that encodes has its own. */
#ifndef MOAI_RECENT_UNITS_H
#define MOAI_RECENT_UNITS_H

#include "src/base/base.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

typedef struct recent_unit {
    uint8_t n_bytes, n_ids;
    char text[30];
    int32_t ids[8];
} recent_unit;
enum { RECENT_UNITS = 1 << 16, RECENT_BYTES = 30, RECENT_IDS = 8 };         /* of 64 bytes: 4 MiB */

static inline recent_unit *recent_units_new(void)
{
    return (recent_unit *)xmalloc(RECENT_UNITS * sizeof(recent_unit));
}

/* Where a unit of at most RECENT_BYTES has its place. */
static inline recent_unit *recent_units_find(recent_unit *table, const char *unit, size_t n_bytes)
{
    return &table[XXH3_64bits(unit, n_bytes) % RECENT_UNITS];
}

static inline bool recent_unit_is(const recent_unit *e, const char *unit, size_t n_bytes)
{
    return e->n_bytes == n_bytes && memcmp(e->text, unit, n_bytes) == 0;
}

static inline void recent_unit_put(recent_unit *e, const char *unit, size_t n_bytes, const int32_t *ids, size_t n)
{
    if (n > RECENT_IDS) return;
    e->n_bytes = (uint8_t)n_bytes;
    e->n_ids = (uint8_t)n;
    memcpy(e->text, unit, n_bytes);
    memcpy(e->ids, ids, n * sizeof *ids);
}

#endif
