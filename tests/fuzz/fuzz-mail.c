/* fuzz-mail.c: datagrams that come to the watchdog: of strangers, and such as tell the job's number and come from a
 * rank.  What they say goes into the answers and the report. */
#include "parallel/watch/mail.c"
#include "parallel/watch/watchdog.c"

#include "tests/fuzz/fuzz.h"

enum { WORLD = 8 };
static int stranger; /* our end of the mailbox's socket */
static moai_grid grid;

void fuzz_start(void)
{
    int ends[2];

    CHECK(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends) == 0, "socketpair");
    stranger = ends[1];
    box = (struct mailbox){.socket = ends[0], .rank = 1, .world = WORLD, .job = {1, 2}};
    box.peers = xmalloc(WORLD * sizeof *box.peers);
    for (int r = 0; r < WORLD; r++) {
        box.peers[r].pid = r;
        strcpy(box.peers[r].host, r < 4 ? "node1" : "node2");
    }
    grid = (moai_grid){.world = WORLD, .rank = 1, .size = {2, 1, 2, 2}};
    grid.kv.size = 1;
}

void fuzz_seeds(void)
{
    letter l = {.job = {1, 2}, .from = 2, .to = 1};
    message m = {.kind = ANSWER,
                 .about = 2,
                 .seconds = 700,
                 .note = {.what = "all_gather",
                          .axis = "tp",
                          .phase = "forward",
                          .number = 3,
                          .n_elem = 4,
                          .step = 5,
                          .micro_batch = 1,
                          .state = WATCH_WAITS,
                          .peer = -1}};
    message report = {.kind = REPORT, .error = "rank 3: NCCL"}, question = {.kind = ASK, .about = 1};

    memcpy(l.data, &m, sizeof m);
    fuzz_seed("answer", &l, sizeof l);
    memcpy(l.data, &report, sizeof report);
    fuzz_seed("report", &l, sizeof l);
    memcpy(l.data, &question, sizeof question);
    fuzz_seed("question", &l, sizeof l);
}

/* Mostly it is addressed as it must be. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    size = LLVMFuzzerMutate(data, size, max_size);
    if (fuzz_draw(&seed, 8)) {
        for (size_t at = 0; at + sizeof(letter) <= size; at += sizeof(letter)) {
            letter l;
            memcpy(&l, data + at, sizeof l);
            l.job[0] = 1, l.job[1] = 2, l.to = 1, l.from &= WORLD - 1;
            memcpy(data + at, &l, sizeof l);
        }
    }
    return size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    watch_record own = {.version = 0};
    watch_record *records[WORLD] = {[1] = &own};
    watch_answer answers[WORLD] = {0};
    bool apart[WORLD] = {0};

    dog = (struct watchdog){
        .grid = &grid, .timeout = 600, .tick = 1, .records = records, .answers = answers, .apart = apart, .open = true};
    for (size_t at = 0; at < size; at += sizeof(letter)) {
        const size_t n = size - at < sizeof(letter) ? size - at : sizeof(letter);
        send(stranger, data + at, n, 0);
        while (take_message(0)) {}
    }
    answers[1] = (watch_answer){.known = true, .alive = true, .note = {.state = WATCH_WAITS}, .seconds = 1e4};
    free(watchdog_report(&grid, answers, dog.timeout, dog.error));
    free(watchdog_report(&grid, answers, 0, dog.error));
    return 0;
}
