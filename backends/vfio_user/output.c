/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Messages on their way out; output.h describes the data and its invariants.
 */
#include "vfio_user/output.h"

#include "base/alloc.h"
#include "common/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

struct vfio_user_kept {
    struct vfio_user_kept *next;
    size_t size;
    size_t sent;
    unsigned n_fds;
    int fds[VFIO_USER_MAX_FDS];
    uint8_t data[];
};

void vfio_user_output_init(struct vfio_user_output *output, int fd)
{
    *output = (struct vfio_user_output){.fd = fd};
}

static void close_fds(struct vfio_user_kept *kept)
{
    for (unsigned i = 0; i < kept->n_fds; i++) {
        close(kept->fds[i]);
    }
    kept->n_fds = 0;
}

static void drop_first(struct vfio_user_output *output)
{
    struct vfio_user_kept *kept = output->first;

    output->first = kept->next;
    if (!output->first) {
        output->last = NULL;
    }
    output->bytes -= kept->size - kept->sent;
    close_fds(kept);
    base_free(kept);
}

void vfio_user_output_fini(struct vfio_user_output *output)
{
    while (output->first) {
        drop_first(output);
    }
    output->fd = -1;
}

/* Copies the bytes of iov[] from the skip-th on. */
static void gather(uint8_t *to, const struct iovec *iov, int n_iov, size_t skip)
{
    for (int i = 0; i < n_iov; i++) {
        size_t n = iov[i].iov_len;
        size_t skipped = skip < n ? skip : n;

        skip -= skipped;
        if (n > skipped) {
            memcpy(to, (const uint8_t *)iov[i].iov_base + skipped, n - skipped);
            to += n - skipped;
        }
    }
}

/* Keeps what is left of a message, with descriptors of our own. */
static int keep(struct vfio_user_output *output, const struct iovec *iov, int n_iov, size_t size,
                size_t skip, const int *fds, unsigned n_fds)
{
    size_t left = size - skip;
    struct vfio_user_kept *kept = base_realloc_array(NULL, sizeof(*kept) + left, 1);

    if (!kept) {
        return -ENOMEM;
    }
    *kept = (struct vfio_user_kept){.size = left};
    for (unsigned i = 0; i < n_fds; i++) {
        int fd = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);

        if (fd < 0) {
            int error = -errno;

            close_fds(kept);
            base_free(kept);
            return error;
        }
        kept->fds[kept->n_fds++] = fd;
    }
    gather(kept->data, iov, n_iov, skip);
    if (output->last) {
        output->last->next = kept;
    } else {
        output->first = kept;
    }
    output->last = kept;
    output->bytes += left;
    return 0;
}

int vfio_user_output_send(struct vfio_user_output *output, struct vfio_user_header header,
                          const void *first, size_t first_size, const void *second,
                          size_t second_size, const int *fds, unsigned n_fds)
{
    struct iovec iov[3] = {
        {.iov_base = &header, .iov_len = sizeof(header)},
        {.iov_base = (void *)first, .iov_len = first_size},
        {.iov_base = (void *)second, .iov_len = second_size},
    };
    size_t size = sizeof(header) + first_size + second_size;
    ssize_t sent = 0;
    int ret;

    header.size = (uint32_t)size;
    if (!output->first) {
        sent = socket_send(output->fd, iov, 3, fds, n_fds);
        if (sent < 0) {
            return (int)sent;
        }
    }
    if ((size_t)sent == size) {
        return 0;
    }
    ret = keep(output, iov, 3, size, (size_t)sent, fds, sent ? 0 : n_fds);
    /* Half a message, and no room for the other half: nothing can follow it. */
    return ret < 0 && sent ? -EPIPE : ret;
}

int vfio_user_output_flush(struct vfio_user_output *output)
{
    while (output->first) {
        struct vfio_user_kept *kept = output->first;
        struct iovec iov = {.iov_base = kept->data + kept->sent,
                            .iov_len = kept->size - kept->sent};
        ssize_t n = socket_send(output->fd, &iov, 1, kept->fds, kept->n_fds);

        if (n <= 0) {
            return (int)n;
        }
        close_fds(kept);
        kept->sent += (size_t)n;
        output->bytes -= (size_t)n;
        if (kept->sent == kept->size) {
            drop_first(output);
        }
    }
    return 0;
}
