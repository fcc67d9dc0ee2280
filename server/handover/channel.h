/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a server and its successor say to each other over a Unix stream socket.
 *
 *   successor: HELLO                       I would take over
 *   server:    STATE, or REFUSAL           saved state, and the descriptors that it names
 *   successor: READY, or REFUSAL           all of it is loaded; nothing is served yet
 *   server:    GO, or it hangs up          from here on the successor serves
 *
 * GO is the border: before it only the server serves, after it only the successor. The server
 * waits for READY for a time and then hangs up; the successor waits for GO as long as it takes,
 * and hanging up means no. So there is no moment at which both may believe that they serve.
 *
 * A message is a header, so many bytes, and so many descriptors in batches, each with a byte of its
 * own. A refusal's bytes are a sentence for people. Numbers are in the byte order of the host: both
 * are on it.
 *
 * Nothing here blocks for longer than a deadline, on the clock of CLOCK_MONOTONIC.
 */
#ifndef VIOMMU_SERVER_HANDOVER_CHANNEL_H
#define VIOMMU_SERVER_HANDOVER_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "handover/fds.h"

enum {
    HANDOVER_VERSION = 2,
    HANDOVER_TEXT_MAX = 512,
};

/* The most that a state may have. */
#define HANDOVER_SIZE_MAX (UINT64_C(1) << 30)

enum handover_what {
    HANDOVER_HELLO = 1,
    HANDOVER_STATE,
    HANDOVER_REFUSAL,
    HANDOVER_READY,
    HANDOVER_GO,
};

struct handover_message {
    enum handover_what what;
    void *data; /* from malloc */
    size_t size;
    struct handover_fds fds;
};

/* The time that is `ms` from now. */
uint64_t handover_deadline(unsigned ms);

#define HANDOVER_FOREVER UINT64_MAX

/* Listens at a path for those of the same user. Returns the descriptor or a negative errno. */
int handover_listen(const char *path);

/* Returns a connected descriptor or a negative errno; -EPERM when another user serves there. */
int handover_connect(const char *path);

/* Is the peer of the same user? */
bool handover_trusts(int fd);

/* Sends a message. Returns 0, -ETIMEDOUT, or another negative errno: the connection is lost. */
int handover_send(int fd, enum handover_what what, const void *data, size_t size,
                  const struct handover_fds *fds, uint64_t deadline);

/*
 * Receives one. Returns 0; -ETIMEDOUT; -ECONNRESET when the peer hung up; -EPROTO when it does not
 * speak this; -EPROTONOSUPPORT when it speaks another version; or another negative errno. After
 * success, give the message back.
 */
int handover_receive(int fd, struct handover_message *message, uint64_t deadline);
void handover_message_fini(struct handover_message *message);

#endif
