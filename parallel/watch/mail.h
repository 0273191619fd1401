/* mail.h: datagrams between the ranks' watching threads, beside MPI: UDP to addresses that MPI has told at the start.
 *
 * A message of at most MAIL_BYTES may be lost, doubled or overtaken, and none is ever waited for by MPI.  Strangers'
 * datagrams, and those meant for another rank, are dropped.  One process has one mailbox; but for mail_open, nothing
 * is collective, and one thread at a time uses it. */
#ifndef MOAI_MAIL_H
#define MOAI_MAIL_H

#include "parallel/comm/grid.h"

enum { MAIL_BYTES = 256 };

/* Who runs a rank. */
typedef struct mail_peer {
    char host[64];
    int32_t pid;
    uint16_t port, n_addresses;
    uint32_t addresses[8];                    /* IPv4 of its host, network order; none of them the loopback */
} mail_peer;

/* Without `send` the ranks only learn who runs the others.  Collective over all ranks, of which each gets its own 0 or
 * -1. */
int mail_open(bool send, moai_error *err);
void mail_close(void);
const mail_peer *mail_of(int rank);           /* valid until mail_close */
/* "rank 3 tp1 cp0 pp0 dp1 host node7 pid 4242"; caller frees. */
char *mail_peer_name(const moai_grid *, int rank);
bool mail_same_host(int a, int b);
void mail_send(int to, const void *data, size_t n_bytes);
/* The next message, waited for at most so long: the rank that sent it, or -1. */
int mail_receive(void *data, size_t n_bytes, double seconds);

#endif
