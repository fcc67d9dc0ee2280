/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: what a client may answer on its twin socket to DMA_READ and DMA_WRITE.
 *
 * The first byte chooses how much the client takes in one message, and how little our socket takes.
 * The rest is records, each a 6-byte head and then bytes: what is done (READ, WRITE, POST, NOTHING;
 * the client may also LEAVE, and we CLOSE), how the client answers, the size of the access in 16
 * bits, the number of the bytes in 16 bits.
 *   GOOD      right answers to all messages of the access are made here; the bytes are changes of
 *             them, three each: an offset in 16 bits, and what is toggled there
 *   otherwise the bytes are all that the client sends
 *   PIECES    it is sent in small pieces
 *   FD        a descriptor goes along
 *   OVER      there is no time for it
 *   UNREAD    the client does not read what it was sent
 * The top three bits of `how` say what comes when it is waited for (enum waited): `poll` is ours.
 * With none of these all answers are in the socket before the access begins, which then waits for a
 * millisecond at most.
 *
 * Checked: an access that went wrong ends the connection, or was refused, and nothing is done after
 * that; right answers are taken; no descriptor is left.
 */
#include <errno.h>
#include <poll.h>
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
    LEAVE,
    CLOSE,
    OPERATIONS,

    GOOD = 1,
    PIECES = 2,
    FD = 4,
    OVER = 8,
    UNREAD = 16,
    WAITED_SHIFT = 5,

    /* Of the first byte. */
    MOST = 3,
    TAKES_NONE = 4,
    SMALL = 8,
    STARVED = 16,

    LONG_MS = 100000,

    HEAD = 6,
    ANSWERS_MAX = 160000, /* bytes: what a socket holds */
    ADDRESS = 0x7ffff000,
};

/* What happens when the client is waited for. */
enum waited {
    WAITED_TIME, /* time passes */
    WAITED_REST, /* it sends what it has to send only now, a piece each time */
    WAITED_SIGNAL,
    WAITED_FAILURE,
    WAITED_LEAVES,
    WAITED_READS, /* it reads what it was sent, and then the same as REST */
    WAITED_EARLY, /* nothing, and time is not over */
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

static struct {
    enum waited what;
    size_t sent, size; /* of answers[] */
    size_t piece;
    int theirs; /* the client's end, or -1 */
    unsigned how;
} client;

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

static void leave(void)
{
    if (client.theirs >= 0) {
        close(client.theirs);
        client.theirs = -1;
    }
}

static void send_piece(void)
{
    size_t left = client.size - client.sent;
    size_t size = left < client.piece ? left : client.piece;

    if (client.theirs >= 0) {
        (void)!support_send_fds(client.theirs, answers + client.sent, size, &file,
                                client.how & FD ? 1 : 0);
    }
    client.sent += size;
}

static void read_all(void)
{
    static uint8_t scrap[65536];

    while (recv(client.theirs, scrap, sizeof(scrap), MSG_DONTWAIT) > 0) {
    }
}

/* In place of the C library's. */
int poll(struct pollfd *fds, nfds_t n, int timeout)
{
    const struct timespec time = {.tv_sec = timeout / 1000, .tv_nsec = timeout % 1000 * 1000000l};
    enum waited what = client.what;

    switch (what) {
    case WAITED_TIME:
        return ppoll(fds, n, &time, NULL);
    case WAITED_READS:
        read_all();
        /* fallthrough */
    case WAITED_REST:
        if (client.sent < client.size) {
            send_piece();
            return 1;
        }
        break;
    case WAITED_LEAVES:
        leave();
        client.what = WAITED_FAILURE;
        return 1;
    case WAITED_EARLY:
        client.what = WAITED_FAILURE;
        return 0;
    default:
        break;
    }
    client.what = WAITED_FAILURE;
    errno = what == WAITED_SIGNAL ? EINTR : EIO;
    return -1;
}

static int access_memory(struct vfio_user_client_dma *dma, const struct record *record)
{
    const uint64_t deadline_ms = record->how & OVER           ? 0
                                 : client.what == WAITED_TIME ? clock_ms() + 1
                                                              : clock_ms() + LONG_MS;

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

/* What is left of a client that is closed. */
static void play_closed(struct vfio_user_client_dma *dma, const struct record *record)
{
    int ret = access_memory(dma, record);

    check(ret == (record->what < NOTHING ? -ENOTSUP : 0));
    check(dma->error == 0 && dma->reads + dma->writes == 0);
}

/* stray: bytes were sent before that nobody asked for. */
static void play(struct vfio_user_client_dma *dma, const struct record *record, bool *stray)
{
    const int before = dma->error;
    const uint64_t answered = dma->reads + dma->writes;
    bool changed, waits = (record->what == READ || record->what == WRITE) && record->access > 0;
    bool fine;
    int ret;

    client.size = make_answers(dma, record, &changed);
    client.piece = record->how & PIECES ? client.size / 8 + 1 : client.size;
    client.sent = 0;
    while (client.sent < client.size && client.what != WAITED_REST && client.what != WAITED_READS) {
        send_piece();
    }
    fine = waits && !changed && !*stray && client.theirs >= 0 && !(record->how & OVER);
    *stray |= client.sent > 0 && (!waits || changed);
    ret = access_memory(dma, record);
    check(dma->error == 0 || before == 0 || dma->error == before);
    if (before < 0) {
        check(ret == before);
        check(dma->reads + dma->writes == answered);
    } else {
        check(ret == 0 || ret == -EFAULT || ret == -ENOBUFS || dma->error == ret);
        check(ret != -ENOBUFS || record->what == POST);
        /* A machine that stands still may let a millisecond pass. */
        check(!fine || ret == 0 || ret == -ETIMEDOUT || client.what == WAITED_FAILURE);
    }
    if (ret == 0 && record->what == READ && fine) {
        check(data[0] == 0xda && data[record->access - 1] == 0xda);
    }
    *stray |= client.sent > 0 && changed;
    if (!(record->how & UNREAD)) {
        read_all();
    }
}

/* One that cannot be asked, or for whom there are no sockets, is not opened. */
static void open_client(struct vfio_user_client_dma *dma, uint8_t how)
{
    static const uint64_t most[] = {1 << 20, 4096, 100, UINT64_MAX};
    const int least = 1;

    memset(dma, 0, sizeof(*dma));
    client.theirs = -1;
    if (how & TAKES_NONE) {
        check(vfio_user_client_dma_open(dma, 0, &client.theirs) == -ENOTSUP);
        return;
    }
    if (how & STARVED) {
        support_starve_fds(file, 1);
        check(vfio_user_client_dma_open(dma, most[how & MOST], &client.theirs) == -EMFILE);
        support_feed_fds();
        return;
    }
    check(vfio_user_client_dma_open(dma, most[how & MOST], &client.theirs) == 0);
    if (how & SMALL) {
        check(setsockopt(dma->connection.fd, SOL_SOCKET, SO_SNDBUF, &least, sizeof(least)) == 0);
    }
}

static void play_record(struct vfio_user_client_dma *dma, const struct record *record, bool *stray)
{
    client.how = record->how;
    client.what = record->how >> WAITED_SHIFT & 7;
    if (record->what == LEAVE) {
        leave();
    } else if (record->what == CLOSE) {
        vfio_user_client_dma_close(dma);
        check(!dma->open);
    } else if (dma->open) {
        play(dma, record, stray);
    } else {
        play_closed(dma, record);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    struct vfio_user_client_dma dma;
    bool stray = false;
    unsigned fds;

    if (size == 0) {
        return 0;
    }
    if (file < 0) {
        file = memfd_create("fuzz", MFD_CLOEXEC);
        check(file >= 0);
    }
    fds = support_open_fds();
    open_client(&dma, input[0]);
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
        play_record(&dma, &record, &stray);
        input = record.bytes + record.size;
        size -= record.size;
    }
    vfio_user_client_dma_close(&dma);
    leave();
    check(support_open_fds() == fds);
    return 0;
}
