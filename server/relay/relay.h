/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A device in another process, put behind a unit: to our client we are the device, to the far
 * device server we are its client.
 *
 * What the client asks of registers, interrupts and resets is checked against what the far server
 * said of its device, passed on, and answered when the far server has answered (commands.c). What
 * the device may reach of the guest's memory is the unit's to say: the far server is told of
 * mappings as they are made and taken away, by the vfio-user backend (viommu/vfio_user.h). Memory
 * that the client offers on the device's own connection is nobody's: the unit has its own. A far
 * server that is isolated does not get the client's eventfds either, but others (vectors.h).
 *
 * States.
 *
 * - down: there is no far server, or it failed. Registers read as all ones, writes go nowhere, as
 *   of a device that has left the bus.
 * - joining: connected. It is asked what it has, reset, given the client's eventfds, and told of
 *   mappings, one step after the other.
 * - up: commands are passed on.
 *
 * A far server that leaves, takes too long, or says what makes no sense is dropped: the connection
 * is closed, what was under way is answered as by a device that is down, and no invalidation waits
 * for it any more. So is one that did not let go of memory in time and was fenced, though it may
 * live: the unit tells it nothing more, and denies the device. It is joined again when the client
 * resets the device, when another client comes, and by a timer in between; the device is then as
 * after power-on. What it has must be what the client was told; else it stays down, for a client
 * cannot be told anew.
 *
 * One client of ours is one connection there: when the client leaves, the far server is left, and
 * joined again for the next one.
 *
 * Invariants: `far` and `watch` exist outside of `down`; a command under way, but for a reset that
 * waits, exists in `up` only. One thread. Nothing waits.
 */
#ifndef VIOMMU_SERVER_RELAY_RELAY_H
#define VIOMMU_SERVER_RELAY_RELAY_H

#include <stdbool.h>
#include <stdint.h>

#include <viommu/vfio_user.h>

#include "far_info.h"
#include "loop.h"
#include "pci_function.h"
#include "vectors.h"

enum {
    /* Commands under way, and bytes of theirs: with so much no more are taken in. */
    RELAY_COMMANDS_MAX = 32,
    RELAY_BYTES_MAX = 65536,
    /* What the far server may take for an answer, and all of joining. A client waits 5 s (QEMU),
     * and a reset may have to wait for both. */
    RELAY_ANSWER_MS = 2000,
    RELAY_JOIN_MS = 2000,
};

enum relay_state {
    RELAY_DOWN,
    RELAY_JOINING,
    RELAY_UP,
};

/* Of joining. */
enum relay_step {
    RELAY_STEP_VERSION,
    RELAY_STEP_DEVICE,
    RELAY_STEP_REGIONS,
    RELAY_STEP_IRQS,
    RELAY_STEP_RESET,
    RELAY_STEP_VECTORS,
    RELAY_STEP_MEMORY,
};

/* A command of the client that is under way. */
struct relay_command {
    struct relay *relay;
    bool used;
    bool refused; /* the far server answered with an error, or there was no answer */
    int error;
    struct vfio_user_header header;
    struct vfio_user_region_access access;
    bool eventfds;  /* of SET_IRQS: it gives eventfds to these, or takes them away */
    unsigned parts; /* of that: commands in its place that are not answered yet */
    uint32_t index;
    uint32_t start;
    uint32_t count;
    uint32_t room; /* of GET_REGION_IO_FDS: of the answer */
    size_t bytes;  /* what it counts */
};

struct relay_config {
    const char *name;             /* this and the next one outlive the relay */
    const char *path;             /* the far server's socket */
    struct viommu_device *device; /* its place behind the unit */
    bool isolate;                 /* pass no files, neither way */
    uint32_t answer_ms;           /* 0: RELAY_ANSWER_MS, RELAY_JOIN_MS */
    uint32_t join_ms;
};

struct relay {
    struct pci_function function; /* to be served */
    struct relay_config config;
    struct loop *loop;
    struct vfio_user_endpoint *endpoint; /* of the client, or NULL */
    enum relay_state state;

    struct viommu_vfio_user *far;
    struct viommu_subscriber *subscriber; /* NULL before it can be told of mappings */
    struct viommu_subscription mirror;    /* of the backend's, what it wants */
    struct loop_source watch;             /* of far */
    int broken; /* a negative errno: it is to be dropped when its process function has returned */

    struct loop_source timer; /* the next try; of joining, its end and looks at its last step */
    uint64_t deadline;
    unsigned pause_ms; /* before the next try */
    uint64_t up_since;
    int told_error; /* that people were told of, since it was up */
    unsigned lines; /* that were printed */

    enum relay_step step;
    uint32_t index; /* in a step: a region, an interrupt index, and a vector of that */
    uint32_t vector;
    struct far_info fresh; /* what is being learnt */
    struct far_info info;  /* what it has, once it was up */
    bool told;             /* this client knows `info` */
    bool io_fds; /* and was given descriptors of the far server's that cannot be replaced */

    struct relay_vectors vectors;
    struct relay_command commands[RELAY_COMMANDS_MAX];
    unsigned command_count;
    size_t command_bytes;
    bool giving; /* one of them gives eventfds, or takes them away: the next has to wait for it */

    uint64_t passed_on; /* commands */
    uint64_t answered_dead;
    uint64_t joins;
    uint64_t losses;
    struct viommu_vfio_user_statistics past; /* of connections that are over */
};

/*
 * Connects to the far server. Returns 0: joining goes on in the loop, and what fails from now on
 * makes the device one that is down; or a negative errno of connecting, with nothing open.
 */
int relay_open(struct relay *relay, struct loop *loop, const struct relay_config *config);

/* With the port closed. */
void relay_close(struct relay *relay);

/* What went over all connections; `mappings` is of the one that there is. */
struct viommu_vfio_user_statistics relay_statistics(const struct relay *relay);

/* For commands.c: the client wants the device back at once. */
void relay_join_now(struct relay *relay);

#endif
