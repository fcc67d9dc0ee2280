/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: what a client may answer on its twin socket to DMA_READ and DMA_WRITE.
 *
 * The first byte chooses how much the client takes in one message. The rest is records, each a
 * 6-byte head and then bytes: what is done (READ, WRITE, POST, NOTHING), how the client answers
 * (GOOD, PIECES, FD), the size of the access in 16 bits, the number of the bytes in 16 bits.
 *   GOOD      right answers to all messages of the access are made here; the bytes are changes of
 *             them, three each: an offset in 16 bits, and what is toggled there
 *   otherwise the bytes are all that the client sends
 *   PIECES    it is sent in small pieces
 *   FD        a descriptor goes along
 * All of it is in the socket before the access begins, which waits for a millisecond at most.
 *
 * Checked: an access that went wrong ends the connection, or was refused, and nothing is done after
 * that; right answers are taken; no descriptor is left.
 */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "support/fds.h"
#include "vfio_user/client_dma.h"

enum {
    READ,
    WRITE,
    POST,
    NOTHING,
    OPERATIONS,

    GOOD = 1,
    PIECES = 2,
    FD = 4,

    HEAD = 6,
    ANSWERS_MAX = 160000, /* bytes: what a socket holds */
    ADDRESS = 0x7ffff000,
};

struct record {
    unsigned what;
    unsigned how;
    size_t access;
    const uint8_t *bytes;
    size_t size;
};

static uint8_t data[65536], answers[ANSWERS_MAX];
static int file = -1;

static void check(bool condition)
{
    if (!condition) {
        abort();
    }
}

/* The right answers to all messages of an access. Returns their size, or 0 when it is too large. */
static size_t good_answers(const struct vfio_user_client_dma *dma, const struct record *record)
{
    const bool reads = record->what == READ;
    size_t done = 0, used = 0;
    uint16_t id = dma->next_id;

    while (done < record->access) {
        size_t left = record->access - done;
        size_t count = left < dma->transfer_max ? left : dma->transfer_max;
        const struct {
            struct vfio_user_header header;
            struct vfio_user_dma_access access;
        } head = {
            .header = {.id = id++,
                       .command = reads ? VFIO_USER_DMA_READ : VFIO_USER_DMA_WRITE,
                       .size = (uint32_t)(sizeof(head) + (reads ? count : 0)),
                       .flags = VFIO_USER_TYPE_REPLY},
            .access = {.address = ADDRESS + done, .count = count},
        };

        if (head.header.size > sizeof(answers) - used) {
            return 0;
        }
        memcpy(answers + used, &head, sizeof(head));
        memset(answers + used + sizeof(head), 0xda, head.header.size - sizeof(head));
        used += head.header.size;
        done += count;
    }
    return used;
}

/* What the client sends. Returns its size; *changed: it is not just right answers. */
static size_t make_answers(const struct vfio_user_client_dma *dma, const struct record *record,
                           bool *changed)
{
    size_t size;

    *changed = true;
    if (!(record->how & GOOD)) {
        size = record->size < sizeof(answers) ? record->size : sizeof(answers);
        memcpy(answers, record->bytes, size);
        return size;
    }
    size = good_answers(dma, record);
    *changed = size == 0;
    for (size_t i = 0; i + 3 <= record->size && size > 0; i += 3) {
        size_t at = (size_t)(record->bytes[i] | record->bytes[i + 1] << 8);

        answers[at % size] ^= record->bytes[i + 2];
        *changed = true;
    }
    return size;
}

static void send_answers(int fd, size_t size, unsigned how)
{
    size_t piece = how & PIECES ? size / 8 + 1 : size;

    for (size_t done = 0; done < size; done += piece) {
        (void)!support_send_fds(fd, answers + done, size - done < piece ? size - done : piece, &file,
                                how & FD ? 1 : 0);
    }
}

static int access_memory(struct vfio_user_client_dma *dma, const struct record *record)
{
    const uint64_t deadline_ms = clock_ms() + 1;

    switch (record->what) {
    case READ:
        return vfio_user_client_dma_read(dma, ADDRESS, data, record->access, deadline_ms);
    case WRITE:
        return vfio_user_client_dma_write(dma, ADDRESS, data, record->access, deadline_ms);
    case POST:
        return vfio_user_client_dma_post(dma, ADDRESS, data, 4);
    default:
        return vfio_user_client_dma_flush(dma);
    }
}

/* stray: bytes were sent before that nobody asked for. */
static void play(struct vfio_user_client_dma *dma, int theirs, const struct record *record,
                 bool *stray)
{
    static uint8_t scrap[65536];
    const int before = dma->error;
    const uint64_t answered = dma->reads + dma->writes;
    bool changed, waits = (record->what == READ || record->what == WRITE) && record->access > 0;
    size_t size = make_answers(dma, record, &changed);
    int ret;

    send_answers(theirs, size, record->how);
    ret = access_memory(dma, record);
    check(dma->error == 0 || before == 0 || dma->error == before);
    if (before < 0) {
        check(ret == before || record->what == NOTHING);
        check(dma->reads + dma->writes == answered);
    } else {
        check(ret == 0 || ret == -EFAULT || ret == -ENOBUFS || dma->error == ret);
        check(ret != -ENOBUFS || record->what == POST);
        /* A machine that stands still may let a millisecond pass. */
        check(!waits || changed || *stray || ret == 0 || ret == -ETIMEDOUT);
    }
    if (ret == 0 && record->what == READ && record->access > 0 && !changed && !*stray) {
        check(data[0] == 0xda && data[record->access - 1] == 0xda);
    }
    *stray |= size > 0 && (!waits || changed);
    while (recv(theirs, scrap, sizeof(scrap), MSG_DONTWAIT) > 0) {
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    static const uint64_t most[] = {1 << 20, 4096, 100, UINT64_MAX};
    struct vfio_user_client_dma dma;
    bool stray = false;
    unsigned fds;
    int theirs;

    if (size == 0) {
        return 0;
    }
    if (file < 0) {
        file = memfd_create("fuzz", MFD_CLOEXEC);
        check(file >= 0);
    }
    fds = support_open_fds();
    check(vfio_user_client_dma_open(&dma, most[input[0] % 4], &theirs) == 0);
    for (input++, size--; size >= HEAD;) {
        struct record record = {
            .what = input[0] % OPERATIONS,
            .how = input[1],
            .access = (size_t)(input[2] | input[3] << 8),
            .bytes = input + HEAD,
            .size = (size_t)(input[4] | input[5] << 8),
        };

        size -= HEAD;
        record.size = record.size < size ? record.size : size;
        play(&dma, theirs, &record, &stray);
        input = record.bytes + record.size;
        size -= record.size;
    }
    vfio_user_client_dma_close(&dma);
    close(theirs);
    check(support_open_fds() == fds);
    return 0;
}
