/* timeline_trace.c: a timeline as a Chrome trace ("Trace Event Format", complete events), which Perfetto and
 * chrome://tracing show */
#include "src/observe/timeline.h"

#include <math.h>
#include <string.h>

/* A row of the picture.  Events of an axis that overlap in time (two gathers under way) take several lanes. */
typedef struct lane {
    const char *axis;
    int number;                               /* among those of the axis, from 1 */
    int64_t busy_until;                       /* ns */
} lane;

enum { LANE_PHASES, LANE_COMPUTE, N_FIXED_LANES, MOST_LANES = 64 };

static int64_t nanoseconds(double seconds) { return llround(seconds * 1e9); }

/* Of the axis, the first lane that is free; the last one when all are taken. */
static int lane_of(lane *lanes, int *n, const char *axis, int64_t begin)
{
    int number = 1, last = MOST_LANES - 1;

    for (int i = N_FIXED_LANES; i < *n; i++) {
        if (strcmp(lanes[i].axis, axis) != 0) continue;
        if (lanes[i].busy_until <= begin) return i;
        last = i;
        number++;
    }
    if (*n == MOST_LANES) return last;
    lanes[*n] = (lane){.axis = axis, .number = number};
    return (*n)++;
}

static void write_args(const timed_event *e, FILE *f)
{
    const char *comma = "";

    fprintf(f, "\"args\":{");
    if (e->shape[0]) {
        fprintf(f, "\"shape\":\"%lld", (long long)e->shape[0]);
        for (int i = 1; i < 3 && e->shape[i]; i++) fprintf(f, " x %lld", (long long)e->shape[i]);
        fprintf(f, "\",\"dtype\":\"%s\"", dtype_name(e->dt));
        comma = ",";
    }
    if (e->phase && e->family != FAMILY_PHASE) fprintf(f, "%s\"phase\":\"%s\"", comma, e->phase), comma = ",";
    if (e->micro_batch >= 0) fprintf(f, "%s\"micro_batch\":%d", comma, e->micro_batch);
    fprintf(f, "}");
}

static void write_name(const timed_event *e, FILE *f)
{
    if (e->family == FAMILY_EXPOSED)
        fprintf(f, "\"name\":\"%s %s %s\",\"cat\":\"exposed\"", e->wait ? "wait" : "start", e->axis, e->name);
    else if (e->family == FAMILY_COLLECTIVE)
        fprintf(f, "\"name\":\"%s\",\"cat\":\"%s\"", e->name, e->axis);
    else if (e->family == FAMILY_PHASE && e->micro_batch >= 0)
        fprintf(f, "\"name\":\"%s %d\",\"cat\":\"phase\"", e->name, e->micro_batch);
    else
        fprintf(f, "\"name\":\"%s\",\"cat\":\"%s\"", e->name, e->family == FAMILY_PHASE ? "phase" : "op");
}

static void write_lane_names(const lane *lanes, int n, FILE *f, int rank)
{
    static const char *const fixed[] = {"phases", "compute"};

    for (int i = 0; i < n; i++) {
        fprintf(f, ",\n{\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"name\":\"thread_name\",\"args\":{\"name\":\"", rank, i);
        if (i < N_FIXED_LANES)
            fprintf(f, "%s\"}}", fixed[i]);
        else if (lanes[i].number == 1)
            fprintf(f, "%s\"}}", lanes[i].axis);
        else
            fprintf(f, "%s (%d)\"}}", lanes[i].axis, lanes[i].number);
        fprintf(f, ",\n{\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"name\":\"thread_sort_index\",", rank, i);
        fprintf(f, "\"args\":{\"sort_index\":%d}}", i);
    }
}

void timeline_write(const timeline *t, FILE *f, int rank)
{
    lane lanes[MOST_LANES];
    int n = N_FIXED_LANES;

    fprintf(f, "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n");
    fprintf(f, "{\"ph\":\"M\",\"pid\":%d,\"name\":\"process_name\",\"args\":{\"name\":\"%s\"}}", rank,
            base_process.identity[0] ? base_process.identity : "rank 0");
    for (int i = 0; i < t->n; i++) {
        const timed_event *e = &t->list[i];
        const int64_t begin = nanoseconds(e->begin), length = nanoseconds(e->end) - begin;
        int tid = e->family == FAMILY_PHASE ? LANE_PHASES : LANE_COMPUTE;
        if (e->family == FAMILY_COLLECTIVE) {
            tid = lane_of(lanes, &n, e->axis, begin);
            lanes[tid].busy_until = begin + length;
        }
        fprintf(f, ",\n{\"ph\":\"X\",\"pid\":%d,\"tid\":%d,\"ts\":%lld.%03lld,\"dur\":%lld.%03lld,", rank, tid,
                (long long)(begin / 1000), (long long)(begin % 1000), (long long)(length / 1000),
                (long long)(length % 1000));
        write_name(e, f);
        fprintf(f, ",");
        write_args(e, f);
        fprintf(f, "}");
    }
    write_lane_names(lanes, n, f, rank);
    fprintf(f, "\n]}\n");
}
