/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Messages on their way out of a vfio-user socket, with their descriptors.
 *
 * A message is written at once where the socket takes it. What it does not take is kept, message by
 * message and in order, with descriptors of our own, and written when the socket takes more. Every
 * write begins where a message does, or goes on with the one that was begun: some servers want a
 * header whole from one read, and descriptors belong to the first byte of theirs.
 *
 * How much may wait is the caller's to bound: `bytes` tells.
 *
 * Invariants: bytes counts what is still to be written of all in the list; only the first message
 * can be sent in part, and then has no descriptors any more. Nothing here blocks. The caller locks.
 */
#ifndef VIOMMU_BACKENDS_VFIO_USER_OUTPUT_H
#define VIOMMU_BACKENDS_VFIO_USER_OUTPUT_H

#include <stddef.h>

#include "vfio_user/protocol.h"

struct vfio_user_kept;

struct vfio_user_output {
    int fd; /* not owned */
    struct vfio_user_kept *first;
    struct vfio_user_kept *last;
    size_t bytes;
};

void vfio_user_output_init(struct vfio_user_output *output, int fd);

/* Drop what is kept. */
void vfio_user_output_fini(struct vfio_user_output *output);

/*
 * Send a message whose payload is in two parts (either may be empty), with n_fds descriptors
 * (VFIO_USER_MAX_FDS at most), which stay the caller's. header.size is filled in here. Returns 0
 * (sent or kept) or a negative errno. After -ENOMEM, -EMFILE, -ENFILE, -EBADF (of a descriptor to
 * go along), -ETOOMANYREFS and -ENOBUFS nothing was sent, and the connection is as it was; after
 * another it is to be closed.
 */
int vfio_user_output_send(struct vfio_user_output *output, struct vfio_user_header header,
                          const void *first, size_t first_size, const void *second,
                          size_t second_size, const int *fds, unsigned n_fds);

/* Write what is kept. Returns 0 or a negative errno, after which the connection is to be closed. */
int vfio_user_output_flush(struct vfio_user_output *output);

#endif
