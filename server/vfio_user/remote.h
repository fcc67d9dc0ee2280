/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A function that is in another process, as an endpoint sees it.
 *
 * The endpoint still keeps the connection, agrees on a version, and keeps the table of client
 * memory (which nobody here wants). Every other command is handed over as it came, its size
 * checked; the answer may come at once or later, from outside the endpoint's own calls, and in any
 * order.
 *
 * Of a pci_function that has these, only the name and they count: configuration space, registers
 * and interrupts are the other process's.
 */
#ifndef VIOMMU_SERVER_VFIO_USER_REMOTE_H
#define VIOMMU_SERVER_VFIO_USER_REMOTE_H

#include <stdbool.h>
#include <stddef.h>

#include "vfio_user/connection.h"

struct vfio_user_endpoint;

/* What a command is answered with; sizes may be 0. Descriptors stay whose they are. */
struct vfio_user_remote_answer {
    const void *head;
    size_t head_size;
    const void *tail;
    size_t tail_size;
    const int *fds;
    unsigned n_fds;
};

/* opaque is the function's own. */
struct vfio_user_remote_ops {
    /* A client has come, and will be told by this endpoint; and it has gone. */
    void (*attach)(void *opaque, struct vfio_user_endpoint *endpoint);
    void (*detach)(void *opaque);
    /* A command. vfio_user_endpoint_answer() follows, once, perhaps from inside this call. */
    void (*command)(void *opaque, struct vfio_user_message *message);
    /* Are no more commands to be taken in now? */
    bool (*full)(const void *opaque);
};

/* Answer a command by its header. error is 0, or a negative errno: then there is nothing else. */
void vfio_user_endpoint_answer(struct vfio_user_endpoint *endpoint,
                               const struct vfio_user_header *command, int error,
                               const struct vfio_user_remote_answer *answer);

#endif
