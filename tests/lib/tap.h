/* tap.h: the Test Anything Protocol for small C mains.  Rank 0 prints; a check holds only if it holds on every rank
 * (tests under mpirun set tap_agree to an all-reduce).  The exit code is the verdict. */
#ifndef TAP_H
#define TAP_H

#include "src/base/base.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

static int tap_count, tap_failed;
static bool (*tap_agree)(bool) = NULL;

__attribute__((format(printf, 2, 3))) static inline bool ok(bool holds, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    if (tap_agree) holds = tap_agree(holds);
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    tap_count++;
    if (!holds) tap_failed++;
    if (base_process.printer) printf("%sok %d - %s\n", holds ? "" : "not ", tap_count, text), fflush(stdout);
    return holds;
}

/* |a - b| <= tolerance * max(|b|, floor), both numbers shown on failure */
static inline bool ok_close(double a, double b, double tolerance, double floor, const char *what)
{
    double scale = fmax(fabs(b), floor);
    bool holds = fabs(a - b) <= tolerance * scale;        /* NaN fails */

    return ok(holds, "%s: %.9g against %.9g (relative %.2g, allowed %.2g)", what, a, b, fabs(a - b) / scale, tolerance);
}

static inline int tap_done(void)
{
    if (base_process.printer) printf("1..%d\n", tap_count), fflush(stdout);
    return tap_failed ? 1 : 0;
}

#endif
