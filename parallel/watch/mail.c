/* mail.c: see mail.h */
#include "parallel/watch/mail.h"

#include "parallel/comm/mpi_check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <mpi.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

/* The job tells its own letters from all others. */
typedef struct letter {
    uint64_t job[2];
    int32_t from, to;
    char data[MAIL_BYTES];
} letter;

static struct mailbox {
    int socket, rank, world;
    uint64_t job[2];
    mail_peer *peers;                         /* (world) */
} box = {.socket = -1};

/* Networks inside a host: their addresses are the same on every host, and lead nowhere from another. */
static bool is_inner(const char *name)
{
    static const char *const inner[] = {"docker", "veth", "br-", "virbr", "cni"};

    for (size_t i = 0; i < sizeof inner / sizeof *inner; i++)
        if (strncmp(name, inner[i], strlen(inner[i])) == 0) return true;
    return false;
}

static void add_addresses(mail_peer *p, const struct ifaddrs *list, bool inner)
{
    enum { MOST = sizeof p->addresses / sizeof *p->addresses };

    for (const struct ifaddrs *i = list; i && p->n_addresses < MOST; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || is_inner(i->ifa_name) != inner) continue;
        if (!(i->ifa_flags & IFF_UP) || i->ifa_flags & IFF_LOOPBACK) continue;
        p->addresses[p->n_addresses++] = ((const struct sockaddr_in *)(const void *)i->ifa_addr)->sin_addr.s_addr;
    }
}

static void find_addresses(mail_peer *p)
{
    struct ifaddrs *list;

    if (getifaddrs(&list)) return;
    add_addresses(p, list, false);
    if (p->n_addresses == 0) add_addresses(p, list, true);
    freeifaddrs(list);
}

static int open_socket(mail_peer *own, moai_error *err)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
    socklen_t n = sizeof at;
    const int room = 4 << 20;                 /* bytes of answers that may come at once */

    box.socket = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (box.socket < 0 || bind(box.socket, (struct sockaddr *)&at, sizeof at) ||
        getsockname(box.socket, (struct sockaddr *)&at, &n))
        return error_set(err, "hang_timeout: no UDP socket: %s; --hang_timeout 0 runs without", strerror(errno));
    setsockopt(box.socket, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    own->port = at.sin_port;
    return 0;
}

int mail_open(bool send, moai_error *err)
{
    mail_peer own = {.pid = (int32_t)getpid()};

    gethostname(own.host, sizeof own.host - 1);
    if (send) find_addresses(&own);
    const int status = send ? open_socket(&own, err) : 0;
    CHECK_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &box.rank));
    CHECK_MPI(MPI_Comm_size(MPI_COMM_WORLD, &box.world));
    if (box.rank == 0 && getrandom(box.job, sizeof box.job, 0) != sizeof box.job)
        box.job[0] = (uint64_t)getpid(), box.job[1] = (uint64_t)(now_seconds() * 1e9);
    CHECK_MPI(MPI_Bcast(box.job, sizeof box.job, MPI_BYTE, 0, MPI_COMM_WORLD));
    box.peers = xmalloc((size_t)box.world * sizeof *box.peers);
    CHECK_MPI(MPI_Allgather(&own, sizeof own, MPI_BYTE, box.peers, sizeof own, MPI_BYTE, MPI_COMM_WORLD));
    return status;
}

void mail_close(void)
{
    if (box.socket >= 0) close(box.socket);
    free(box.peers);
    box = (struct mailbox){.socket = -1};
}

const mail_peer *mail_of(int rank) { return &box.peers[rank]; }
bool mail_same_host(int a, int b) { return strcmp(box.peers[a].host, box.peers[b].host) == 0; }

/* To every address of the host: which of them leads there is not known, and a second copy does no harm. */
void mail_send(int to, const void *data, size_t n_bytes)
{
    const mail_peer *p = &box.peers[to];
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = p->port};
    letter l = {.job = {box.job[0], box.job[1]}, .from = box.rank, .to = to};

    CHECK(n_bytes <= MAIL_BYTES, "a message of %zu bytes", n_bytes);
    memcpy(l.data, data, n_bytes);
    if (mail_same_host(to, box.rank) || p->n_addresses == 0) {
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        sendto(box.socket, &l, sizeof l, 0, (struct sockaddr *)&at, sizeof at);
    }
    for (int i = 0; i < p->n_addresses; i++) {
        at.sin_addr.s_addr = p->addresses[i];
        sendto(box.socket, &l, sizeof l, 0, (struct sockaddr *)&at, sizeof at);
    }
}

int mail_receive(void *data, size_t n_bytes, double seconds)
{
    const double until = now_seconds() + seconds;
    struct pollfd ready = {.fd = box.socket, .events = POLLIN};
    letter l;

    for (;;) {
        const ssize_t n = recv(box.socket, &l, sizeof l, 0);
        if (n == sizeof l && memcmp(l.job, box.job, sizeof l.job) == 0 && l.to == box.rank && l.from >= 0 &&
            l.from < box.world) {
            memcpy(data, l.data, n_bytes);
            return l.from;
        }
        if (n >= 0) continue;                 /* not for us */
        const double left = until - now_seconds();
        if (left <= 0) return -1;
        poll(&ready, 1, (int)(1000 * left) + 1);
    }
}

char *mail_peer_name(const moai_grid *grid, int rank)
{
    const grid_shape at = grid_coordinates(grid->size, rank);
    const mail_peer *p = mail_of(rank);

    return xasprintf("rank %d tp%d cp%d pp%d dp%d host %s pid %d", rank, at.tp, at.cp, at.pp, at.dp, p->host,
                     (int)p->pid);
}
