/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the backends that talk to another process over a Unix stream socket have in common.
 */
#ifndef VIOMMU_BACKENDS_COMMON_SOCKET_H
#define VIOMMU_BACKENDS_COMMON_SOCKET_H

#include <sys/types.h>
#include <sys/uio.h>

enum {
    SOCKET_FDS_MAX = 8, /* descriptors with one write */
};

/* One write; descriptors, SOCKET_FDS_MAX at most, go with its first byte. Returns the number of bytes
 * taken, 0 for "not now", or a negative errno. */
ssize_t socket_send(int fd, struct iovec *iov, int n_iov, const int *fds, unsigned n_fds);

#endif
