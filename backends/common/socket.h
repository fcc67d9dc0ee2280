/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the backends that talk to another process over a Unix stream socket have in common.
 */
#ifndef VIOMMU_BACKENDS_COMMON_SOCKET_H
#define VIOMMU_BACKENDS_COMMON_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

enum {
    SOCKET_FDS_MAX = 8,      /* descriptors with one write */
    SOCKET_FDS_IN_MAX = 253, /* with one read: the kernel's limit of one message */
};

/* Descriptors that came with a read; they are the reader's to close. */
struct socket_fds {
    int fds[SOCKET_FDS_IN_MAX];
    unsigned count;
    bool lost; /* more came than there was room for, or than could be opened */
};

/* It does not wait from here on, and nothing but descriptors comes with what is read: who asked to
 * be told who sends (SO_PASSCRED) is not any more, so that where there is no room for anything only
 * descriptors are lost. Returns 0 or a negative errno. */
int socket_begin(int fd);

/* Descriptors are refused where they are sent, if the kernel can (Linux 6.16). */
void socket_refuse_fds(int fd);

/* One write; descriptors, SOCKET_FDS_MAX at most, go with its first byte. Returns the number of
 * bytes taken, 0 for "not now", or a negative errno. */
ssize_t socket_send(int fd, struct iovec *iov, int n_iov, const int *fds, unsigned n_fds);

/* One read of at most `size` bytes, which is not 0, with room for `fds_room` descriptors. Returns
 * the number of bytes, 0 for "not now", or a negative errno: -ECONNRESET at the end of all. *fds is
 * always set. Descriptors that find no room are dropped by the kernel (foreign.h). */
ssize_t socket_receive(int fd, void *data, size_t size, struct socket_fds *fds, unsigned fds_room);

#endif
