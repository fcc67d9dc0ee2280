/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of this room share: the object.
 *
 * vhost.c has the object, its lock and its work; front.c what a vhost-user back-end is told but for
 * translations (negotiation, memory table, rings); iotlb.c the conversation about translations,
 * which holds for the kernel, too; kernel.c the kernel's messages; table.c guest memory as the far
 * side knows it; ring.c a ring's eventfds; channel.c a socket.
 *
 * Vocabulary. What the far side may *hold* are pieces of device addresses that an UPDATE told it
 * of, and no INVALIDATE took back. It may hold less: it forgets when it likes. A *wait* is a
 * message that it has still to answer.
 *
 * Invariants:
 * - `held` covers all that the far side may hold, or `all_held` is set. No piece overlaps another:
 *   what it has is never told it otherwise before it was told to drop it.
 * - Messages are worked on in their order, so what was put last holds. An UPDATE is put in the
 *   section of its look at the tables; an INVALIDATE of the guest's comes after the sections that
 *   saw the old. So it is put later than each UPDATE of the old.
 * - What the far side was told to drop, and has not acknowledged, lies in [dropped_first,
 *   dropped_last] while `dropping` is not 0. A guest's invalidation is over at once only where it
 *   meets neither that nor what is held.
 * - Whatever goes wrong with the far side sets `error`; viommu_vhost_process then cuts it off.
 *   Nothing is put after that.
 * - When the subscriber is fenced, on whatever thread, the connection is shut down there and then
 *   (`fenced` says why): the guest's invalidation is over, and nobody may have called
 *   viommu_vhost_process, nor ever do so.
 *
 * Threads that come to viommu_vhost_process and to what starts a ring have had a section
 * (epoch_prepare): epoch_enter does not fail.
 *
 * Locking. `lock` guards everything; changes of translations and of memory come on threads of
 * their own. It is taken before the IOMMU's lock and the memory's. `drop_wanted` and `fenced` are
 * set under the IOMMU's lock, so without this one; and `open_fd` is that lock's. No callback of the
 * embedder's is made under it.
 */
#ifndef VIOMMU_VHOST_PRIVATE_H
#define VIOMMU_VHOST_PRIVATE_H

#include <viommu/vhost.h>

#include "base/wake.h"
#include "iommu/iommu.h"
#include "range/range_map.h"
#include "vhost/channel.h"
#include "vhost/table.h"

/* What waits to be sent to a back-end. While it is more than the second it is asked nothing new. */
#define VHOST_OUT_ROOM     (256u << 10)
#define VHOST_OUT_MUCH     (64u << 10)
#define VHOST_REPLIES_ROOM (16u << 10)
#define VHOST_WAITS_MAX    4096u
/* Pieces that are remembered to be held; refusals that are remembered. */
#define VHOST_HELD_MAX   4096u
#define VHOST_DENIED_MAX 128u
/* Pages that are looked at to either side of one that is asked for. */
#define VHOST_LOOK_PAGES 64u
/* Messages that one call of viommu_vhost_process takes of each socket. */
#define VHOST_BUDGET 64u
/* How long until refusals are looked at again: at first, and at most. */
#define VHOST_RETRY_FIRST_NS UINT64_C(1000000)
#define VHOST_RETRY_LAST_NS  UINT64_C(1000000000)

#define VHOST_LAST (UINT64_MAX - 1) /* of device addresses: so iova + size never wraps */

enum vhost_wait_kind {
    VHOST_WAIT_ACK,       /* that it was done */
    VHOST_WAIT_FEATURES,  /* its device features */
    VHOST_WAIT_PROTOCOL,  /* its protocol features */
    VHOST_WAIT_QUEUES,    /* how many rings it has */
    VHOST_WAIT_CONNECTED, /* the last step of negotiation */
    VHOST_WAIT_TABLE,     /* a memory table */
    VHOST_WAIT_STOPPED,   /* where a ring has stopped */
    VHOST_WAIT_DROP,      /* an INVALIDATE of our own */
    VHOST_WAIT_CHANGE,    /* an INVALIDATE of the guest's */
};

struct vhost_wait {
    uint8_t kind;
    uint8_t ring;
    uint16_t request;
    uint64_t token;
    uint64_t deadline;
};

enum vhost_ring_state {
    VHOST_RING_OFF = 0,
    VHOST_RING_ON,
    VHOST_RING_STOPPING,
    VHOST_RING_CUT, /* ran when the far side failed; goes on with another one */
};

struct vhost_ring {
    enum vhost_ring_state state;
    struct viommu_vhost_ring setup; /* descriptors are our copies, or -1 */
    bool resend;                    /* its memory is to be told anew */
    bool tell_stopped;
    uint16_t stopped_at;
};

struct vhost_denied {
    uint64_t iova;
    uint32_t perm;
};

struct viommu_vhost {
    struct notify_follower follower; /* first */
    struct viommu_vhost_config config;
    struct viommu *iommu;
    struct viommu_subscriber *subscriber;
    struct viommu_memory_listener *listener;
    struct wake wake;
    int poll_fd;
    _Atomic bool drop_wanted; /* the device is another, or denied: nothing old may be held */
    _Atomic int fenced;       /* with this error: the far side is cut off, by halves as yet; or 0 */
    int open_fd;              /* of the connection, while it is open; or -1 */

    pthread_mutex_t lock;
    enum viommu_vhost_state state;
    int error; /* why it failed, or is about to */
    bool tell_ready;
    bool tell_failed;
    uint64_t features; /* of both sides */
    uint64_t accepted;
    uint64_t protocol;
    bool features_told;
    bool table_told;

    int fd;                        /* the kernel */
    struct vhost_channel main;     /* or a back-end */
    struct vhost_channel requests; /* what it asks */
    bool questions_left; /* some may have come, and are not taken in while it is busy */
    int requests_fd;               /* its end of that, until it is sent */
    uint32_t watched[2];           /* what is polled for, of both */

    struct vhost_wait waits[VHOST_WAITS_MAX];
    unsigned wait_first;
    unsigned wait_count;

    struct vhost_table table;
    unsigned tables_out; /* memory tables that are not acknowledged */
    bool table_due;      /* another one is to follow */
    bool memory_lost;    /* what there is could not be remembered */
    bool memory_waits;   /* a removal of memory, with this token: */
    uint64_t memory_token;

    struct range_map held; /* iova -> key, tag as held_tag() makes it */
    bool all_held;
    unsigned held_level; /* the largest level of what is held, or was */
    unsigned dropping;   /* INVALIDATEs that are not acknowledged */
    uint64_t dropped_first;
    uint64_t dropped_last;

    struct vhost_denied denied[VHOST_DENIED_MAX];
    unsigned denied_count;
    unsigned denied_next; /* the one that has to go when there are too many */
    uint64_t retry_at;    /* 0: nothing is to be tried again */
    uint64_t retry_pause;
    uint64_t late_at;  /* no answer is late before; 0: none is waited for */
    uint64_t timer_at; /* what the timer is set to, or a time before; 0: it is not set */

    struct vhost_ring rings[VIOMMU_VHOST_RINGS_MAX];
    bool rings_due; /* some are to be told anew, now */
    struct viommu_vhost_statistics statistics;
};

/* ---- vhost.c ---- */

/* The IOMMU's time. Without its lock. */
uint64_t vhost_now(const struct viommu_vhost *vhost);

/* A descriptor is about to be closed; who has a copy of it keeps it, but not what is polled. */
void vhost_unwatch(struct viommu_vhost *vhost, int fd);

/* A connection begins, with this descriptor (the kernel's, too), or is about to be closed: -1. */
void vhost_opened(struct viommu_vhost *vhost, int fd);

/* It is to be cut off. The first reason counts. */
void vhost_break(struct viommu_vhost *vhost, int error);

/* Whether it can be told something. */
static inline bool vhost_alive(const struct viommu_vhost *vhost)
{
    return vhost->state != VIOMMU_VHOST_FAILED && !vhost->error;
}

/* Whether so much waits, to be sent or to be answered, that it is asked nothing new. */
static inline bool vhost_is_busy(const struct viommu_vhost *vhost)
{
    return vhost_channel_waiting(&vhost->main) > VHOST_OUT_MUCH ||
           vhost->wait_count > VHOST_WAITS_MAX / 2;
}

/* ---- front.c ---- */

/* Opens a connection, whose descriptor is `fd`; what begins then. Returns 0 or a negative errno,
   and the descriptor is the caller's still. */
int vhost_front_open(struct viommu_vhost *vhost, int fd);
void vhost_front_close(struct viommu_vhost *vhost);

/* Takes answers and questions. */
void vhost_front_receive(struct viommu_vhost *vhost);

/* Puts a message, and what is waited for if it is to be answered. */
void vhost_front_put(struct viommu_vhost *vhost, uint32_t request, const void *payload, size_t size,
                     const struct vhost_wait *wait);

/* Tells it of memory as it is now, after it has dropped everything. */
void vhost_front_send_table(struct viommu_vhost *vhost);

/* Tells it of a ring that is set up. */
void vhost_front_start_ring(struct viommu_vhost *vhost, unsigned ring);
void vhost_front_stop_ring(struct viommu_vhost *vhost, unsigned ring);

/* ---- ring.c ---- */

/* Puts copies of its descriptors in their place: of both, or none. Returns 0 or a negative
   errno. */
int vhost_ring_copy(struct viommu_vhost_ring *setup);
/* It is off, and its descriptors are closed. */
void vhost_ring_close(struct vhost_ring *ring);

/* ---- kernel.c ---- */

/* Returns 0, -ENOTSUP or another errno. */
int vhost_kernel_begin(int fd);
void vhost_kernel_receive(struct viommu_vhost *vhost);
void vhost_kernel_put(struct viommu_vhost *vhost, const struct vhost_iotlb_msg *message);
/* The last thing that it is told: to drop everything. */
void vhost_kernel_end(int fd);

/* ---- iotlb.c ---- */

/* The far side asks. */
void vhost_iotlb_asked(struct viommu_vhost *vhost, const struct vhost_iotlb_msg *message);

/* The guest's change. Returns what its subscriber answers. */
int vhost_iotlb_changed(struct viommu_vhost *vhost, const struct viommu_change *change);

/* Nothing is to be held any more. */
void vhost_iotlb_drop(struct viommu_vhost *vhost);

/* No ring runs: what was refused is not waited for any more. */
void vhost_iotlb_idle(struct viommu_vhost *vhost);

/* The far side is gone. */
void vhost_iotlb_forget(struct viommu_vhost *vhost);

/* An INVALIDATE was acknowledged. */
void vhost_iotlb_dropped(struct viommu_vhost *vhost);

/* Does what is due: rings told anew, refusals looked at again. */
void vhost_iotlb_work(struct viommu_vhost *vhost, uint64_t now);

/* Reads 16 bits as the device, silently. */
bool vhost_iotlb_load16(struct viommu_vhost *vhost, uint64_t iova, uint16_t *value);

#endif
