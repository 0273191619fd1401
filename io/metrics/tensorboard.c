/* tensorboard.c: see tensorboard.h */
#include "io/metrics/tensorboard.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MESSAGE_BYTES = 2048 };

struct tensorboard {
    FILE *file;
    char *path;
};

/* A protobuf message under construction (protobuf.dev/programming-guides/encoding). */
typedef struct message {
    unsigned char bytes[MESSAGE_BYTES];
    size_t n;
} message;

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

static void put_bytes(message *m, const void *bytes, size_t n)
{
    CHECK(m->n + n <= MESSAGE_BYTES, "TensorBoard event of more than %d bytes", MESSAGE_BYTES);
    memcpy(m->bytes + m->n, bytes, n);
    m->n += n;
}

static void put_little_endian(message *m, uint64_t value, int n_bytes)
{
    for (int i = 0; i < n_bytes; i++) put_bytes(m, &(unsigned char){(unsigned char)(value >> 8 * i)}, 1);
}

static void put_varint(message *m, uint64_t value)
{
    for (; value >= 128; value >>= 7) put_bytes(m, &(unsigned char){(unsigned char)(value | 128)}, 1);
    put_bytes(m, &(unsigned char){(unsigned char)value}, 1);
}

static void put_key(message *m, int field, int wire) { put_varint(m, (uint64_t)(field << 3 | wire)); }

static void put_double(message *m, int field, double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof bits);
    put_key(m, field, WIRE_FIXED64);
    put_little_endian(m, bits, 8);
}

static void put_float(message *m, int field, float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    put_key(m, field, WIRE_FIXED32);
    put_little_endian(m, bits, 4);
}

static void put_field(message *m, int field, const void *bytes, size_t n)
{
    put_key(m, field, WIRE_BYTES);
    put_varint(m, n);
    put_bytes(m, bytes, n);
}

/* CRC-32C (Castagnoli, reflected 0x82F63B78), masked as TFRecord wants it. */
static uint32_t masked_crc(const unsigned char *bytes, size_t n)
{
    uint32_t crc = ~0u;

    for (size_t i = 0; i < n; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
    }
    crc = ~crc;
    return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

/* frame: u64 length, masked crc of the length, the message, masked crc of the message */
static int write_record(tensorboard *t, const message *m, moai_error *err)
{
    message head = {.n = 0}, tail = {.n = 0};

    put_little_endian(&head, m->n, 8);
    put_little_endian(&head, masked_crc(head.bytes, 8), 4);
    put_little_endian(&tail, masked_crc(m->bytes, m->n), 4);
    if (fwrite(head.bytes, 1, head.n, t->file) == head.n && fwrite(m->bytes, 1, m->n, t->file) == m->n &&
        fwrite(tail.bytes, 1, tail.n, t->file) == tail.n && !fflush(t->file))
        return 0;
    return error_set(err, "%s: %s", t->path, strerror(errno));
}

/* Event: 1 wall_time, 2 step, 3 file_version, 5 summary, 7 session_log */
static message event_at(int64_t step)
{
    message m = {.n = 0};
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    put_double(&m, 1, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec);
    put_key(&m, 2, WIRE_VARINT);
    put_varint(&m, (uint64_t)step);
    return m;
}

/* SessionLog: 1 status, START = 1: steps from here on are told anew */
static int write_session_start(tensorboard *t, int64_t step, moai_error *err)
{
    message event = event_at(step), log = {.n = 0};

    put_key(&log, 1, WIRE_VARINT);
    put_varint(&log, 1);
    put_field(&event, 7, log.bytes, log.n);
    return write_record(t, &event, err);
}

tensorboard *tensorboard_open(const char *dir, int64_t resume_step, moai_error *err)
{
    static const char version[] = "brain.Event:2";
    static int n_opened;                                                 /* tells the files of one process apart */
    tensorboard *t = xmalloc(sizeof *t);
    message event = event_at(0);
    char host[128] = "localhost";

    gethostname(host, sizeof host - 1);
    t->path = xasprintf("%s/events.out.tfevents.%010lld.%s.%d.%d", dir, (long long)time(NULL), host, (int)getpid(),
                        n_opened++);
    t->file = fopen(t->path, "ab");
    if (!t->file) error_set(err, "%s: %s", t->path, strerror(errno));
    put_field(&event, 3, version, sizeof version - 1);
    if (!t->file || write_record(t, &event, err) || write_session_start(t, resume_step + 1, err)) {
        tensorboard_close(t);
        return NULL;
    }
    return t;
}

/* Summary: 1 value; Summary.Value: 1 tag, 2 simple_value */
int tensorboard_write(tensorboard *t, int64_t step, const tensorboard_scalar *scalars, int n, moai_error *err)
{
    message event = event_at(step), summary = {.n = 0};

    for (int i = 0; i < n; i++) {
        message value = {.n = 0};
        put_field(&value, 1, scalars[i].tag, strlen(scalars[i].tag));
        put_float(&value, 2, (float)scalars[i].value);
        put_field(&summary, 1, value.bytes, value.n);
    }
    put_field(&event, 5, summary.bytes, summary.n);
    return write_record(t, &event, err);
}

void tensorboard_close(tensorboard *t)
{
    if (!t) return;
    if (t->file) fclose(t->file);
    free(t->path);
    free(t);
}
