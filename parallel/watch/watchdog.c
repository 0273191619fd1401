/* watchdog.c: see watchdog.h
 *
 * Only the thread touches `dog` between start and stop, but for `stopping`. */
#include "parallel/watch/watchdog.h"

#include "parallel/comm/mpi_check.h"
#include "parallel/watch/mail.h"
#include "parallel/watch/watchdog_report.h"

#include <mpi.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool (*_Atomic watchdog_device)(watch_note *oldest, moai_error *error);

enum { WINDOW = 16 };                         /* ranks below that one asks at a time whether they are there */
#define ELECTION_SECONDS 0.6
#define ANSWER_SECONDS 1.0                    /* that a thread may take to answer on a busy machine */
#define NEIGHBOUR_SECONDS 0.4
#define AGAIN_SECONDS 0.2                     /* a message that is not answered is sent again */
#define REACH_SECONDS 3.0                     /* for the first message between two hosts */

typedef enum { ASK, ANSWER, REPORT } message_kind;
typedef struct message {
    int32_t kind, about;                      /* about: the rank that is asked for, or whose note this is */
    double seconds;
    watch_note note;
    char error[128];                          /* REPORT: that came before the timeout; "": none */
} message;
_Static_assert(sizeof(message) <= MAIL_BYTES, "a message fits");

static struct watchdog {
    const moai_grid *grid;
    double timeout, tick;
    MPI_Win window;
    watch_record **records;                   /* (world): NULL where the rank's host is another */
    watch_answer *answers;                    /* (world), of the last questions */
    bool *apart;                              /* (world): on a host that no message comes from, and not asked */
    pthread_t thread;
    bool open, running;
    atomic_bool stopping;

    watch_note note;                          /* of this rank, as the last look found it */
    double looked, still;                     /* when that was; seconds since it changed, own stops left out */
    double no_alarm_before;                   /* by now_seconds(): a report was made, or asked for */
    bool must_report;                         /* another rank has asked this one to */
    char error[128];
} dog;

/* ---- this rank's own state -------------------------------------------------------------------------------------- */
static void look(void)
{
    const double now = now_seconds(), most = 4 * dog.tick + 1;
    moai_error error = {.text = ""};
    watch_record *own = dog.records[dog.grid->rank];
    watch_note note = watch_read(own), device;
    bool (*const ask_device)(watch_note *, moai_error *) = watchdog_device;

    if (ask_device && ask_device(&device, &error) && note.state != WATCH_WAITS) note = device;
    if (error.text[0] && !dog.error[0]) {
        format_elided(dog.error, sizeof dog.error, "%s: %s", base_process.identity, error.text);
        fprintf(stderr, "[%s] %s\n", base_process.identity, error.text);
    }
    dog.still += now - dog.looked < most ? now - dog.looked : 0;  /* else this process itself had been stopped */
    if (memcmp(&note, &dog.note, sizeof note) != 0) {
        dog.note = note;
        dog.still = 0;
        atomic_store_explicit(&own->changed, now, memory_order_relaxed);
    }
    dog.looked = now;
}

static bool is_overdue(void) { return dog.note.state == WATCH_WAITS && dog.still >= dog.timeout; }

/* ---- questions and answers -------------------------------------------------------------------------------------- */
static void answer(int to, int about)
{
    message m = {.kind = ANSWER, .about = about, .seconds = dog.still, .note = dog.note};

    if (about != dog.grid->rank) {
        const watch_record *r = about >= 0 && about < dog.grid->world ? dog.records[about] : NULL;
        if (!r) return;
        m.note = watch_read(r);
        m.seconds = now_seconds() - atomic_load_explicit(&r->changed, memory_order_relaxed);
    }
    mail_send(to, &m, sizeof m);
}

/* One message, waited for until then at most. */
static bool take_message(double until)
{
    const double left = until - now_seconds();
    message m;
    const int from = mail_receive(&m, sizeof m, left > 0 ? left : 0);

    if (from < 0) return false;
    if (m.kind == ASK) answer(from, m.about);
    if (m.kind == ANSWER && m.about >= 0 && m.about < dog.grid->world) {
        watch_answer *a = &dog.answers[m.about];
        const bool alive = m.about == from;
        if (!a->alive)
            *a = (watch_answer){.known = true, .alive = alive, .note = watch_sound(m.note), .seconds = m.seconds};
    }
    if (m.kind == REPORT && !dog.must_report && (m.error[0] || now_seconds() >= dog.no_alarm_before)) {
        dog.must_report = true;
        if (m.error[0]) memcpy(dog.error, m.error, sizeof dog.error - 1);
    }
    return true;
}

static bool is_silent(int rank)
{
    return rank != dog.grid->rank && !dog.answers[rank].alive && !dog.apart[rank];
}

static int next_silent(int first, int end)
{
    while (first < end && !is_silent(first)) first++;
    return first;
}

/* Asks ranks [first, end) about themselves, again and again, until all have answered. */
static void ask(int first, int end, double seconds)
{
    const double until = now_seconds() + seconds;

    for (int r = first; r < end; r++) dog.answers[r] = (watch_answer){0};
    while ((first = next_silent(first, end)) < end && now_seconds() < until) {
        const double again = now_seconds() + AGAIN_SECONDS;
        for (int r = first; r < end; r = next_silent(r + 1, end))
            mail_send(r, &(message){.kind = ASK, .about = r}, sizeof(message));
        while ((first = next_silent(first, end)) < end && take_message(again)) {}
    }
}

/* What a silent rank did last is told by those on its host that answer, this rank among them. */
static void ask_neighbours(int silent)
{
    enum { NEIGHBOURS = 3 };
    const double until = now_seconds() + NEIGHBOUR_SECONDS;
    int asked = 0;

    for (int r = 0; r < dog.grid->world && asked < NEIGHBOURS; r++) {
        if (is_silent(r) || !mail_same_host(r, silent)) continue;
        mail_send(r, &(message){.kind = ASK, .about = silent}, sizeof(message));
        asked++;
    }
    while (asked > 0 && !dog.answers[silent].known && take_message(until)) {}
}

/* ---- the report ------------------------------------------------------------------------------------------------- */
/* The lowest rank that answers. */
static int find_reporter(void)
{
    const int own = dog.grid->rank;

    for (int first = 0; first < own; first += WINDOW) {
        const int end = first + WINDOW < own ? first + WINDOW : own;
        ask(first, end, ELECTION_SECONDS);
        for (int r = first; r < end; r++)
            if (dog.answers[r].alive) return r;
    }
    return own;
}

static void ask_all(void)
{
    enum { MOST = 16 };                       /* more silent ones than that are hosts that died */
    const int own = dog.grid->rank, world = dog.grid->world;
    int n = 0;

    ask(0, world, ANSWER_SECONDS);
    for (int r = next_silent(0, world); r < world && n < MOST; r = next_silent(r + 1, world), n++) ask_neighbours(r);
    look();
    for (int r = 0; r < world; r++) dog.answers[r].apart = dog.apart[r];
    dog.answers[own] = (watch_answer){.known = true, .alive = true, .note = dog.note, .seconds = dog.still};
}

/* Prints the report and ends the job, unless the ranks go on meanwhile. */
static void report(void)
{
    ask_all();
    char *text = watchdog_report(dog.grid, dog.answers, dog.timeout, dog.error);
    dog.must_report = false;
    dog.no_alarm_before = now_seconds() + dog.timeout / 4;
    if (!text) return;
    exit_soon();
    fputs(text, stderr);
    free(text);
    base_process.abort_all(STATUS_FAILED);
}

static void raise_alarm(void)
{
    message m = {.kind = REPORT};
    const int reporter = dog.must_report ? dog.grid->rank : find_reporter();

    if (dog.must_report || reporter == dog.grid->rank) {
        report();
        return;
    }
    memcpy(m.error, dog.error, sizeof m.error);
    mail_send(reporter, &m, sizeof m);
    dog.no_alarm_before = now_seconds() + ELECTION_SECONDS + 2 * ANSWER_SECONDS;
}

static void *watch(void *arg)
{
    (void)arg;
    dog.looked = now_seconds();
    while (!dog.stopping) {
        take_message(dog.looked + dog.tick);
        if (now_seconds() - dog.looked >= dog.tick) look();
        if (dog.must_report || ((is_overdue() || dog.error[0]) && now_seconds() >= dog.no_alarm_before)) raise_alarm();
    }
    return NULL;
}

/* ---- start and stop --------------------------------------------------------------------------------------------- */
/* The records of the ranks of this host, in memory that they share. */
static void share_records(void)
{
    MPI_Comm host;
    MPI_Aint bytes;
    watch_record *own = NULL;
    int n, unit;

    dog.records = xmalloc((size_t)dog.grid->world * sizeof *dog.records);
    CHECK_MPI(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host));
    CHECK_MPI(MPI_Comm_size(host, &n));
    CHECK_MPI(MPI_Win_allocate_shared(sizeof *own, 1, MPI_INFO_NULL, host, &own, &dog.window));
    memset(own, 0, sizeof *own);
    atomic_store_explicit(&own->changed, now_seconds(), memory_order_relaxed);
    watch_move(own);
    int *ranks = xmalloc((size_t)n * sizeof *ranks);
    CHECK_MPI(MPI_Allgather(&dog.grid->rank, 1, MPI_INT, ranks, 1, MPI_INT, host));
    for (int i = 0; i < n; i++)
        CHECK_MPI(MPI_Win_shared_query(dog.window, i, &bytes, &unit, &dog.records[ranks[i]]));
    free(ranks);
    CHECK_MPI(MPI_Comm_free(&host));
}

/* Asks one rank of each other host, before there is a thread: a host that does not answer now, as behind a firewall,
 * says nothing later about its ranks. */
static void reach_hosts(void)
{
    const int own = dog.grid->rank, world = dog.grid->world;
    int *first = xmalloc((size_t)world * sizeof *first), n = 0, one = -1;

    for (int r = 0; r < world; r++) {
        while (!mail_same_host(first[r], r)) first[r]++;
        dog.apart[r] = first[r] != r || mail_same_host(r, own);
    }
    ask(0, world, REACH_SECONDS);
    for (int r = 0; r < world; r++) {
        dog.apart[r] = !mail_same_host(r, own) && !dog.answers[first[r]].alive;
        if (dog.apart[r]) n++, one = r;
    }
    free(first);
    if (process_least(n ? own : world) == own)
        fprintf(stderr,
                "warning: hang_timeout: no UDP comes to host %s from %d ranks on others, as of host %s: a report of a "
                "hang will be about one host's ranks only\n",
                mail_of(own)->host, n, mail_of(one)->host);
}

/* Signals are the main thread's. */
static int start_thread(moai_error *err)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    const int failed = pthread_create(&dog.thread, NULL, watch, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) return error_set(err, "hang_timeout: a thread cannot be started: %s", strerror(failed));
    dog.running = true;
    return 0;
}

int watchdog_start(const moai_grid *g, double hang_timeout, moai_error *err)
{
    const double tick = hang_timeout / 12;

    if (g->world == 1) return 0;
    dog = (struct watchdog){.grid = g, .timeout = hang_timeout, .tick = tick < 1 ? tick : 1, .open = true};
    dog.answers = xmalloc((size_t)g->world * sizeof *dog.answers);
    dog.apart = xmalloc((size_t)g->world * sizeof *dog.apart);
    int failed = comm_agree(&g->host_world, mail_open(hang_timeout > 0, err) != 0, err);
    if (!failed && hang_timeout > 0) {
        share_records();
        reach_hosts();
        failed = comm_agree(&g->host_world, start_thread(err) != 0, err);
    }
    if (failed) watchdog_stop();
    return failed;
}

void watchdog_stop(void)
{
    if (!dog.open) return;
    dog.stopping = true;
    if (dog.running) {
        mail_send(dog.grid->rank, &(message){.kind = -1}, sizeof(message));   /* wakes it */
        pthread_join(dog.thread, NULL);
    }
    mail_close();
    if (dog.records) {
        watch_move(NULL);
        CHECK_MPI(MPI_Win_free(&dog.window));
    }
    free(dog.records);
    free(dog.answers);
    free(dog.apart);
    dog.open = dog.running = false;
}
