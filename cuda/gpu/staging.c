/* staging.c: copies between pageable host memory and the device through a ring of pinned slots
 *
 * To the device: the bytes are in a slot when the call returns, so the caller may reuse its memory at once; the host
 * waits only when all slots are still under way.  To the host: slots are filled ahead of the one being emptied; the
 * data is there at return.
 *
 * Why a ring.  The GPU copies beside the host only from pinned memory, and callers' memory is not; one pinned buffer
 * would make the host wait for each copy before the next.  A slot's event tells when its copy is done.  The host,
 * before it writes a slot, waits for the event of the copy that was N_SLOTS slots ago.  The device needs no such wait
 * before it writes one: all copies are queued on one stream, in the order in which slots are given out, so the earlier
 * copy from that slot comes first.  On the way to the host a slot is emptied N_AHEAD chunks after its copy was queued,
 * and as N_AHEAD is less than N_SLOTS nothing has been queued over it meanwhile. */
#include "cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

enum { N_SLOTS = 32, N_AHEAD = 8, SLOT_BYTES = 512 << 10 };

struct staging {
    char *memory;                             /* N_SLOTS * SLOT_BYTES, pinned */
    cudaEvent_t done[N_SLOTS];                /* the copy from or to the slot */
    uint64_t next;                            /* counts slots given out */
};

staging *staging_open(void)
{
    staging *s = xmalloc(sizeof *s);

    CUDA_CHECK(cudaMallocHost((void **)&s->memory, (size_t)N_SLOTS * SLOT_BYTES));
    for (int i = 0; i < N_SLOTS; i++) CUDA_CHECK(cudaEventCreateWithFlags(&s->done[i], cudaEventDisableTiming));
    return s;
}

void staging_close(staging *s)
{
    if (!s) return;
    for (int i = 0; i < N_SLOTS; i++) CUDA_CHECK(cudaEventDestroy(s->done[i]));
    CUDA_CHECK(cudaFreeHost(s->memory));
    free(s);
}

static char *slot_memory(staging *s, uint64_t slot) { return s->memory + slot % N_SLOTS * SLOT_BYTES; }
static void slot_wait(staging *s, uint64_t slot) { CUDA_CHECK(cudaEventSynchronize(s->done[slot % N_SLOTS])); }

void staging_to_device(staging *s, cudaStream_t stream, void *dst, const void *src, size_t n_bytes)
{
    for (size_t at = 0; at < n_bytes; at += SLOT_BYTES) {
        size_t n = n_bytes - at < SLOT_BYTES ? n_bytes - at : SLOT_BYTES;
        uint64_t slot = s->next++;
        slot_wait(s, slot);
        memcpy(slot_memory(s, slot), (const char *)src + at, n);
        CUDA_CHECK(cudaMemcpyAsync((char *)dst + at, slot_memory(s, slot), n, cudaMemcpyHostToDevice, stream));
        CUDA_CHECK(cudaEventRecord(s->done[slot % N_SLOTS], stream));
    }
}

void staging_to_host(staging *s, cudaStream_t stream, void *dst, const void *src, size_t n_bytes)
{
    size_t n_chunks = (n_bytes + SLOT_BYTES - 1) / SLOT_BYTES;
    uint64_t first = s->next;

    s->next += n_chunks;
    for (size_t i = 0; i < n_chunks + N_AHEAD; i++) {
        if (i < n_chunks) {
            size_t at = i * SLOT_BYTES, n = n_bytes - at < SLOT_BYTES ? n_bytes - at : SLOT_BYTES;
            CUDA_CHECK(
                cudaMemcpyAsync(slot_memory(s, first + i), (const char *)src + at, n, cudaMemcpyDeviceToHost, stream));
            CUDA_CHECK(cudaEventRecord(s->done[(first + i) % N_SLOTS], stream));
        }
        if (i >= N_AHEAD && i - N_AHEAD < n_chunks) {
            size_t at = (i - N_AHEAD) * SLOT_BYTES, n = n_bytes - at < SLOT_BYTES ? n_bytes - at : SLOT_BYTES;
            slot_wait(s, first + i - N_AHEAD);
            memcpy((char *)dst + at, slot_memory(s, first + i - N_AHEAD), n);
        }
    }
}
