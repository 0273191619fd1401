/* What a timeline notes and how it is read, on a clock that the test sets: streams, lanes, growth.  The table of timed
 * ops is whole. */
#include "src/observe/ops_timed.h"
#include "src/observe/timeline.h"
#include "tests/lib/tap.h"

#include <stdlib.h>
#include <string.h>

static double now, stamps[256];
static int reserved;

static device_clock *open_test(moai_device *dev) { return (void)dev, (device_clock *)stamps; }
static void close_test(device_clock *c) { (void)c; }
static void reserve_test(device_clock *c, int n) { (void)c, reserved = n; }
static void stamp_test(device_clock *c, int i, void *stream) { (void)c, (void)stream, stamps[i] = now; }
static double seconds_test(device_clock *c, int i) { return (void)c, stamps[i] - stamps[0]; }
static void range_test(const char *name) { (void)name; }
static const clock_ops clock_test = {true, open_test, close_test, reserve_test, stamp_test, seconds_test, range_test};

/* Another field than a function pointer would be `name` alone, the first. */
static void check_table(void)
{
    const size_t n = sizeof(moai_ops) / sizeof(void *);
    void *timed[sizeof(moai_ops) / sizeof(void *)], *cpu[sizeof(moai_ops) / sizeof(void *)];
    int missing = 0;

    memcpy(timed, &ops_timed, sizeof timed);
    memcpy(cpu, &ops_cpu, sizeof cpu);
    for (size_t i = 0; i < n; i++) missing += cpu[i] && !timed[i];
    ok(missing == 0, "every op of the CPU has a timed one: %d missing", missing);
}

static int note(timeline *t, const char *name, event_family family, double at)
{
    now = at;
    return timeline_begin(t, (timed_event){.name = name, .axis = family == FAMILY_COLLECTIVE ? "tp" : NULL,
                                           .family = family, .shape = {2, 3}, .dt = DT_BF16, .work = 1e9});
}

static void finish(timeline *t, int event, double at, void *stream)
{
    now = at;
    timeline_end(t, event, stream);
}

/* Two gathers queued on one stream, a message on another that outlasts the step, an op. */
static void fill(timeline *t)
{
    static char one, other;

    now = 100;
    timeline_start(t);
    timeline_phase(t, "forward", 7);
    const int a = note(t, "all_gather", FAMILY_COLLECTIVE, 101);
    finish(t, a, 104, &one);
    const int b = note(t, "all_gather", FAMILY_COLLECTIVE, 102);
    finish(t, b, 106, &one);
    const int c = note(t, "send", FAMILY_COLLECTIVE, 103);
    finish(t, c, 120, &other);
    const int d = note(t, "matmul", FAMILY_PRODUCTS, 104);
    finish(t, d, 108, NULL);
    note(t, "recv", FAMILY_COLLECTIVE, 109);
    now = 110;
    timeline_stop(t);
    timeline_read(t);
}

static void check_reading(const timeline *t)
{
    const timed_event *e = t->list;

    ok(t->seconds == 10 && t->n == 6, "a step of %g s with %d events", t->seconds, t->n);
    ok(e[0].family == FAMILY_PHASE && e[0].begin == 0 && e[0].end == 10, "the phase lasts from %g to %g", e[0].begin,
       e[0].end);
    ok(e[1].begin == 1 && e[1].end == 4, "the first gather from %g to %g", e[1].begin, e[1].end);
    ok(e[2].begin == 4 && e[2].end == 6, "the second waits for its stream: from %g to %g", e[2].begin, e[2].end);
    ok(e[3].begin == 3 && e[3].end == 10, "what outlasts the step ends with it: from %g to %g", e[3].begin, e[3].end);
    ok(e[5].begin == 9 && e[5].end == 10, "what nobody has ended, too: from %g to %g", e[5].begin, e[5].end);
    ok(e[4].micro_batch == 7 && strcmp(e[4].phase, "forward") == 0, "the op is of %s %d", e[4].phase, e[4].micro_batch);
}

/* Written text, from the begin of the file. */
static char *text_of(const timeline *t, void (*write)(const timeline *, FILE *))
{
    FILE *f = tmpfile();
    CHECK(f, "no temporary file");
    write(t, f);
    const size_t n = (size_t)ftell(f);
    char *text = xmalloc(n + 1);
    rewind(f);
    CHECK(fread(text, 1, n, f) == n, "the temporary file is short");
    fclose(f);
    return text;
}

static void write_trace(const timeline *t, FILE *f) { timeline_write(t, f, 5); }

static void check_writing(const timeline *t)
{
    char *trace = text_of(t, write_trace), *table = text_of(t, timeline_print);

    ok(strstr(trace, "\"name\":\"tp (2)\"") && !strstr(trace, "\"name\":\"tp (3)\""),
       "two collectives at once take two lanes of their axis, and no third");
    ok(strstr(trace, "\"pid\":5,\"tid\":1,\"ts\":4000000.000,\"dur\":4000000.000,\"name\":\"matmul\",\"cat\":\"op\","
                     "\"args\":{\"shape\":\"2 x 3\",\"dtype\":\"bf16\",\"phase\":\"forward\",\"micro_batch\":7}}"),
       "an op in microseconds with its shape");
    ok(strstr(table, "matmul                         1 x    4000.000 ms  40.00 %      0.2 GFLOP/s"),
       "its row in the table");
    ok(strstr(table, "6000.000 ms  60.00 %\n"), "the rest is nothing");
    free(trace);
    free(table);
}

int main(void)
{
    timeline t;

    check_table();
    timeline_open(&t, &clock_test, NULL, 1);
    ok(timeline_begin(&t, (timed_event){.name = "add"}) == -1 && t.n == 0, "before the step nothing is noted");
    fill(&t);
    ok(t.reserved >= t.n && reserved >= t.n_stamps, "it has grown: to %d events, %d stamps", t.reserved, reserved);
    check_reading(&t);
    ok(timeline_begin(&t, (timed_event){.name = "add"}) == -1 && t.n == 6, "nor after it");
    check_writing(&t);
    timeline_close(&t);
    return tap_done();
}
