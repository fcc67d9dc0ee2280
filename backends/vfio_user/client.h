/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The inside of the vfio-user client (viommu/vfio_user.h).
 *
 * Words. A *channel* is a socket to the far server: `main`, where our commands go, and `twin`,
 * where its commands come if it offered that. A *request* is a command of ours that wants an
 * answer; what its kind says is done when the answer is there, or when there will be none.
 *
 * A request has one of requests[] until it is answered, in any order. Its id is the index there,
 * and how often that was used: a late answer of another is seen to be wrong. `waiting` lists them
 * in the order in which they were sent; all have the same time-out, so the first is the first that
 * is overdue. Ids have 15 bits; those with the 16th are of commands that want no answer.
 *
 * Files of guest memory that the far server may have mapped are counted in `exposed`: from when a
 * DMA_MAP is sent, until it is refused, or unmapped by an answer. What was mapped before a fence
 * belongs to an older `generation`, and its answers count no more.
 *
 * Locking. `lock` covers requests, output, `exposed`, statistics and whether it failed. Receiving,
 * and all functions of others, are only in viommu_vfio_user_process(), without the lock. A change
 * callback sends under the lock; where sending fails it leaves that in `broken`, and
 * viommu_vfio_user_process() does the rest.
 *
 * Invariants: a request is in exactly one of the lists `waiting` and `unused`, and has a kind in
 * the first; once `error` is set no channel is open, no request waits, and nothing is sent any
 * more.
 */
#ifndef VIOMMU_BACKENDS_VFIO_USER_CLIENT_H
#define VIOMMU_BACKENDS_VFIO_USER_CLIENT_H

#include <pthread.h>
#include <viommu/vfio_user.h>

#include "base/wake.h"
#include "vfio_user/capabilities.h"
#include "vfio_user/connection.h"
#include "vfio_user/output.h"

enum {
    /* Commands of ours without an answer; a few of them are kept for the backend's own. */
    REQUESTS_MAX = 256,
    REQUESTS_OWN = 8,
    /* With more waiting to be written the embedder's commands are refused... */
    COMMANDS_LIMIT = 1 << 20,
    /* ...and with more than that no command of the far server's is taken in. Larger, so that our
     * own commands alone never keep us from reading what answers them. */
    ANSWERS_LIMIT = 4 << 20,
    /* Regions that stand for everything, where no file is passed: 8 TiB each. */
    REGIONS = 32,
};

/* No region is larger: servers refuse those. */
#define REGION_SIZE_MAX (UINT64_C(1) << 43)

enum request_kind {
    REQUEST_NONE = 0, /* not waiting */
    REQUEST_VERSION,
    REQUEST_MAP,
    REQUEST_UNMAP,
    REQUEST_FENCE,
    REQUEST_REGION,   /* with `isolate`: a part of all addresses */
    REQUEST_EMBEDDER, /* viommu_vfio_user_send */
};

struct request {
    struct request *next; /* of `waiting`, or `unused` */
    struct request *previous;
    enum request_kind kind;
    uint16_t id; /* it has, or had last */
    uint16_t command;
    uint64_t deadline;
    uint64_t token; /* of the change */
    uint64_t generation;
    struct vfio_user_dma_unmap unmap; /* what the answer repeats */
    void (*reply)(void *opaque, const struct viommu_vfio_user_reply *reply);
    void *opaque;
};

struct channel {
    struct vfio_user_connection connection; /* only received from */
    struct vfio_user_output output;
    bool open;
    uint32_t events; /* that the poll descriptor watches for */
};

struct viommu_vfio_user {
    struct viommu_vfio_user_config config;
    struct viommu *iommu;
    uint64_t timeout; /* nanoseconds */
    pthread_mutex_t lock;
    struct wake wake;
    struct channel main, twin;

    struct vfio_user_far_capabilities capabilities;
    bool agreed; /* VERSION is answered */
    bool ready;  /* the embedder may send */
    bool processing;
    int error;  /* it failed, and was told */
    int broken; /* it failed, and is to be told */

    struct request requests[REQUESTS_MAX];
    struct request *unused;
    struct request *waiting, *waiting_last;
    unsigned waiting_count;
    uint16_t next_silent;
    uint64_t timer; /* when the wake descriptor is to tell of the time; 0: it is not */

    uint64_t exposed;         /* mappings that may be there */
    uint64_t exposed_earlier; /* of older generations */
    uint64_t generation;

    unsigned regions_asked;
    unsigned regions_answered;
    unsigned regions_made;

    uint8_t *buffer; /* of DMA reads */
    size_t buffer_room;
    size_t moved; /* bytes that the last command had read: it is as much work as if they had come */
    struct viommu_vfio_user_statistics statistics;
};

/* ---- client.c -------------------------------------------------------------------------------- */

/*
 * Sends a command that wants an answer. The lock is held. Returns 0; -ENOBUFS when too many wait;
 * what vfio_user_output_send returns. When the connection broke, that is noted.
 */
int far_request(struct viommu_vfio_user *far, const struct request *request, const void *first,
                size_t first_size, const void *second, size_t second_size, const int *fds,
                unsigned n_fds);

/* Sends an answer of ours. The lock is not held. Returns 0 or a negative errno: it is over. */
int far_answer(struct viommu_vfio_user *far, struct channel *channel,
               const struct vfio_user_header *command, int error, const void *first,
               size_t first_size, const void *second, size_t second_size);

/* Versions are agreed on, and what else is needed is there. The lock is not held. */
void far_ready(struct viommu_vfio_user *far);

/* ---- mirror.c -------------------------------------------------------------------------------- */

/* Counts what is mapped, by an answer that came. The lock is held. */
void far_count_mapping(struct viommu_vfio_user *far, const struct request *request, int status);

/* With `isolate`: asks for regions that cover everything, and hears of the answers. The lock is not
 * held. Both return 0 or a negative errno: it is over. */
int far_isolate(struct viommu_vfio_user *far);
int far_region_answered(struct viommu_vfio_user *far, int status);

/* ---- dma.c ----------------------------------------------------------------------------------- */

/* Carries out a command of the far server, and answers. The lock is not held. Returns 0, or a
 * negative errno: it is over. */
int far_serve_dma(struct viommu_vfio_user *far, struct channel *channel,
                  const struct vfio_user_message *message);

#endif
