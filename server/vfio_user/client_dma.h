/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory that a client keeps to itself: read and written by messages, DMA_READ and DMA_WRITE.
 *
 * They go over a second connection, the *twin socket*, made when both sides agree on a version: the
 * server keeps one end and the client gets the other, with the reply to VERSION. So there is an
 * answer to wait for in the middle of a command of the client's own: the client waits for that on
 * its first connection, and answers here meanwhile. A client that offers no twin socket cannot be
 * asked: it might answer only after the reply that it waits for, which waits for its answer.
 *
 * One request is under way at a time, and whoever asks waits for its end: for what time, the caller
 * says. An answer that is not exactly what was asked for, or does not come in time, ends it for
 * good: `error` is set, nothing is asked any more, and the client is to be given up. A request that
 * the client refuses is -EFAULT, and ends nothing.
 *
 * Invariant: between requests no part of an answer has been taken in. One thread at a time.
 */
#ifndef VIOMMU_SERVER_VFIO_USER_CLIENT_DMA_H
#define VIOMMU_SERVER_VFIO_USER_CLIENT_DMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vfio_user/connection.h"

struct vfio_user_client_dma {
    bool open; /* a client with a twin socket */
    struct vfio_user_connection connection;
    size_t transfer_max; /* in one message */
    uint16_t next_id;
    int error;       /* 0, or why the client cannot be asked any more */
    uint64_t reads;  /* messages that were answered well */
    uint64_t writes;
    uint64_t refused; /* messages that the client refused */
};

/*
 * Makes a pair of sockets; *theirs is the client's end, the caller's to send and close. The client
 * takes transfer_max bytes in one message. Returns 0; -ENOTSUP if that is none; or a negative
 * errno.
 */
int vfio_user_client_dma_open(struct vfio_user_client_dma *dma, uint64_t transfer_max, int *theirs);

/* All zero is closed: nothing is done. */
void vfio_user_client_dma_close(struct vfio_user_client_dma *dma);

/*
 * Copy, in messages of transfer_max at most. deadline_ms is on the clock of clock_ms(). Return 0;
 * -ENOTSUP without a twin socket; -EFAULT when the client refuses, a part may be copied then;
 * -ETIMEDOUT, -ECONNRESET, -EPROTO or another negative errno when the client is to be given up.
 */
int vfio_user_client_dma_read(struct vfio_user_client_dma *dma, uint64_t address, void *data,
                              size_t size, uint64_t deadline_ms);
int vfio_user_client_dma_write(struct vfio_user_client_dma *dma, uint64_t address,
                               const void *data, size_t size, uint64_t deadline_ms);

/* A write that wants no answer and is not waited for. Returns 0; -ENOTSUP without a twin socket;
 * -ENOBUFS when the client does not take what was sent before; or a negative errno when it is to be
 * given up. */
int vfio_user_client_dma_post(struct vfio_user_client_dma *dma, uint64_t address, const void *data,
                              size_t size);

/* Send on what a post left. Returns 0 or a negative errno, and then the client is to be given
   up. */
int vfio_user_client_dma_flush(struct vfio_user_client_dma *dma);

#endif
