/* json_shape.h: whether a text is JSON rather than prose, and in which shape: what data sets are found as, where their
 * names do not say it.
 *
 * A text is JSON where all of it, as far as the head goes, is a row of JSON values, with at least one object that has a
 * key, or an array of objects, arrays or strings: "[1] see", "{{Infobox" and "{ x = 1; }" are none.  Between the values
 * there may be white space, commas and the record separators of RFC 7464; before them {}, null and comment lines. */
#ifndef MOAI_JSON_SHAPE_H
#define MOAI_JSON_SHAPE_H

#include "src/base/base.h"

typedef enum {
    JSON_NONE,
    JSON_LINES, /* each object on a line of its own */
    JSON_ARRAY,
    JSON_SPREAD,   /* an object over several lines */
    JSON_NOTEBOOK, /* Jupyter's, which is one */
    JSON_JOINED,   /* several on a line */
    JSON_COMMAS,   /* between or behind objects */
    JSON_RECORDS,  /* with record separators, 0x1e */
    JSON_CR        /* lines, whose ends are CR alone */
} json_shape;

/* Of the first n_bytes of a text, which may end anywhere.  `by_first`: the first object or array tells, whatever may
 * follow on later lines; else a text of which some lines are no JSON is none, unless they are less than a fourth. */
json_shape json_shape_of(const char *head, size_t n_bytes, bool by_first);

#endif
