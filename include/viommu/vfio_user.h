/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The vfio-user backend: a client of a device server in another process (SPDK, anything built on
 * libvfio-user, `viommu serve`), which puts that device behind an IOMMU.
 *
 * To the far server it is the client that maps guest memory: DMA_MAP and DMA_UNMAP follow what the
 * device may reach, with a file and offset, so that the server maps the same pages; and the
 * server's DMA_READ and DMA_WRITE are carried out as requests of the device. All other commands
 * (regions, interrupts, reset) are the embedder's to send, over the same connection.
 *
 *     viommu_vfio_user_create(&config, &far);
 *     viommu_vfio_user_subscription(far, &what);      (after `ready`; not with `isolate`)
 *     viommu_device_subscribe(device, &what, &subscriber);
 *
 * What it is worth. A server that is given a file of guest memory can map all of that file, and
 * keep what it has mapped: that protects against mistakes, not against malice. The guest's
 * invalidation completes when the server has answered that it unmapped. When it does not answer it
 * is asked to drop everything, and disconnected if that is not answered, either; or there and then,
 * where so much waits that it cannot even be asked. An event of the unit says that it may still
 * reach what it should not, because nobody can take mapped pages of a file away from a process.
 * With `isolate` no file is passed at all, and every DMA is a message that is translated and
 * checked when it comes: after an invalidation nothing old is reached, whatever the server does.
 * (Servers that only work on memory that they have mapped do not work so.)
 *
 * Nothing here blocks, and there is no hidden thread. Threads: calls on one object by one thread at
 * a time; the subscription's change callback may come on another.
 */
#ifndef VIOMMU_VFIO_USER_H
#define VIOMMU_VFIO_USER_H

#include <viommu/notify.h>

#ifdef __cplusplus
extern "C" {
#endif

struct viommu_vfio_user;

/* Descriptors with one message, either way. */
enum { VIOMMU_VFIO_USER_FDS_MAX = 8 };

/* An answer of the far server. What it points to is good until the function returns. */
struct viommu_vfio_user_reply {
    int error; /* 0, or a negative errno: the server's own, or why there is no answer */
    const void *data;
    size_t size;
    int *fds; /* take one by replacing it with -1; the rest are closed */
    unsigned fd_count;
};

struct viommu_vfio_user_config {
    struct viommu_device *device; /* whose translations it uses; it outlives the object */
    int fd;                       /* a connected stream socket; taken over when creating succeeds */
    bool isolate; /* pass no file of guest memory; nor is one taken: answers have no descriptors */
    uint64_t mappings_max;        /* regions at most; 0: as many as the server says it takes */
    uint32_t timeout_ms;          /* for an answer to anything; 0: 1000 */
    /* Any may be NULL. Called from viommu_vfio_user_process() with nothing locked; they may call
       everything here but viommu_vfio_user_destroy. */
    void (*ready)(void *opaque); /* versions are agreed on: commands can be sent */
    /* The connection is over, `error` says why: -ECONNRESET it left; -ETIMEDOUT; -EPROTO it said
       what makes no sense; ... Commands without an answer got one, with this error, before. */
    void (*failed)(void *opaque, int error);
    /*
     * Who hears how a change of the subscription ended that was PENDING, where that is not the
     * device's IOMMU: viommu_pv_backend_complete() say (viommu/pv.h). Of a mapping that the
     * connection's end left without an answer the status is -EIO: it may have been made. Nobody
     * hears of what viommu_vfio_user_destroy() leaves without an answer.
     */
    void (*answered)(void *opaque, uint64_t token, int status);
    void *opaque;
};

/* Begins to agree on a version. Returns 0; -EINVAL for a configuration that makes no sense; -EBADF
   or -EPERM for a descriptor that is no socket; -ENOMEM, -EMFILE, -ENFILE, -ENOSPC when the host
   has nothing left. */
int viommu_vfio_user_create(const struct viommu_vfio_user_config *config,
                            struct viommu_vfio_user **out);

/* Disconnects; unsubscribe first. NULL is accepted. No function of the configuration is called, and
   no `reply` of a command that has no answer yet. */
void viommu_vfio_user_destroy(struct viommu_vfio_user *far);

/* Polls readable when viommu_vfio_user_process() has work, time-outs included. The object owns
   it. */
int viommu_vfio_user_event_fd(struct viommu_vfio_user *far);

/* Reads and answers, a bounded amount; sends what is waiting. Never blocks. Returns 0, or the error
   that `failed` was told. */
int viommu_vfio_user_process(struct viommu_vfio_user *far);

/* Fills in a subscription of this backend, once it is ready. What it points to lives as long as the
   backend. Returns 0; -EAGAIN before; -ENOTSUP with `isolate`: there is nothing to subscribe to,
   and no caching mode is needed. The far server asks for every access, and is answered by what the
   tables say then. */
int viommu_vfio_user_subscription(struct viommu_vfio_user *far, struct viommu_subscription *out);

/* The largest amount of data in one region access that the server takes; 0 before it is ready. */
size_t viommu_vfio_user_transfer_max(const struct viommu_vfio_user *far);

/* The largest number of descriptors that the server takes with one command; 0 before it is ready,
   and of one that takes none. */
size_t viommu_vfio_user_fds_max(const struct viommu_vfio_user *far);

/*
 * Sends a command: its number (of the protocol), and a payload in two parts, either may be empty;
 * descriptors are copied. `reply` is called once, from viommu_vfio_user_process(), when the answer
 * is there or there will be none; NULL: no answer is asked for. Commands are sent in order.
 *
 * Returns 0; -EAGAIN before it is ready; -EPIPE after it failed; -ENOBUFS when too much is waiting
 * already; -EINVAL for a command that is the backend's own (VERSION, DMA_MAP, DMA_UNMAP) or the
 * server's (DMA_READ, DMA_WRITE), a payload that is too long or nowhere, or more descriptors than
 * the server takes; -EBADF for one that is none; -ENOMEM; -EMFILE or -ENFILE, when they have to
 * wait. After all but -EPIPE nothing was sent, and all is as it was.
 */
int viommu_vfio_user_send(struct viommu_vfio_user *far, uint16_t command, const void *first,
                          size_t first_size, const void *second, size_t second_size, const int *fds,
                          unsigned fd_count,
                          void (*reply)(void *opaque, const struct viommu_vfio_user_reply *reply),
                          void *opaque);

/* Since it was created. Members are only ever added, at the end. */
struct viommu_vfio_user_statistics {
    uint64_t maps; /* DMA_MAP and DMA_UNMAP that were sent */
    uint64_t unmaps;
    uint64_t mappings; /* that the server has now */
    uint64_t reads;    /* DMA_READ and DMA_WRITE that were carried out */
    uint64_t writes;
    uint64_t refused; /* and those that were not */
};

/* `size` bytes at most. Returns 0. */
int viommu_vfio_user_statistics(const struct viommu_vfio_user *far,
                                struct viommu_vfio_user_statistics *statistics, size_t size);

#ifdef __cplusplus
}
#endif

#endif
