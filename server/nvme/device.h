/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The controller inside: what its parts share.
 *
 *   controller.c  the PCI function and its registers; enabling, shutdown, reset; life
 *   queues.c      fetching commands, posting completions, interrupts
 *   admin.c       admin commands, queues made and deleted, abort
 *   identify.c, log_pages.c, features.c, events.c: what their names say
 *   io.c          I/O commands: decoded, checked, made into jobs
 *   transfer.c    jobs: pinned, given to workers, ended; taken back when the memory is wanted back
 *   data.c        what is copied: queue entries, lists, identify and log pages
 *   prp.c, store.c, workers.c: apart from all this; they know no controller
 *
 * A *command* is an I/O command from its fetch to its completion; there is a fixed number of them.
 * It waits, with its memory known but not pinned, until one of a few places at the workers is free;
 * then it is pinned and at work. A reset makes a new *epoch*: commands of an older one that a
 * worker has begun are only unpinned when they end. Admin commands are done at once, except the
 * deletion of a queue, which waits for the queue's commands.
 *
 * Room in completion queues is reserved when a command is fetched, so a completion always has room;
 * a command whose completion would have none is not fetched yet.
 *
 * One thread. Functions called with a struct nvme_request complete it, exactly once, or see to it
 * that it is completed later.
 */
#ifndef VIOMMU_SERVER_NVME_DEVICE_H
#define VIOMMU_SERVER_NVME_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nvme.h"
#include "prp.h"
#include "spec.h"
#include "state.h"
#include "store.h"
#include "workers.h"

enum {
    NVME_COMMANDS = 128,      /* I/O commands in flight */
    NVME_IOV_MAX = NVME_RANGES_MAX + 64, /* pages can be cut where guest memory is */
    NVME_EXTENTS_MAX = 256,
    NVME_PAGE_SHIFT_MAX = 16,
    NVME_TEMPERATURE = 303,   /* in kelvin, always */
};
_Static_assert(NVME_COMMANDS > NVME_WORKERS_MAX + 1, "a reset leaves one for a shutdown");

/* What a completion needs to know of its command. */
struct nvme_request {
    uint16_t sqid;
    uint16_t cid;
    uint32_t nsid;
    uint64_t lba;
};

enum nvme_command_state {
    NVME_COMMAND_FREE,
    NVME_COMMAND_WAITING, /* for a place at the workers */
    NVME_COMMAND_AT_WORK,
};

struct nvme_command {
    enum nvme_command_state state;
    struct nvme *nvme;
    struct nvme_command *next; /* among the free or waiting ones */
    struct nvme_request request;
    uint32_t epoch;
    bool shutdown;  /* not a guest's: the flush of a shutdown */
    bool wanted_back; /* its memory is, while a worker uses it */
    size_t bytes;     /* to move */
    struct nvme_job job;
    struct device_dma_pin *pin;
    size_t range_count;
    union {
        struct device_dma_range ranges[NVME_RANGES_MAX];
        struct nvme_extent extents[NVME_EXTENTS_MAX];
    };
    struct iovec iov[NVME_IOV_MAX];
};

/* What is going on in a queue pair, beside what struct nvme_state says. */
struct nvme_sq_work {
    unsigned commands; /* I/O commands of it that have not ended */
    bool deleting;     /* the guest wants it gone: when they have */
    uint16_t delete_cid;
};

struct nvme_cq_work {
    unsigned reserved; /* completions that will come */
    bool signal;       /* entries were added, the interrupt was not raised yet */
};

struct nvme {
    struct pci_function function;
    struct nvme_config config;
    const char *name;
    struct device_dma dma;
    struct loop *loop;
    struct loop_source source;
    int event_fd;
    bool kicked; /* event_fd was written to for our own sake */
    uint64_t (*now_ms)(void);

    struct nvme_state state;
    struct nvme_sq_work sq_work[NVME_QUEUES_MAX + 1];
    struct nvme_cq_work cq_work[NVME_QUEUES_MAX + 1];
    unsigned next_sq; /* where fetching goes on */

    struct nvme_store store;
    struct nvme_workers *workers;
    struct nvme_command *commands;
    struct nvme_command *free;
    struct nvme_command *waiting, **waiting_end;
    unsigned at_work, at_work_max;
    unsigned stale; /* of those at work: of an older epoch */
    uint32_t epoch;
    uint64_t reset_deadline; /* while CC.EN is clear and CSTS.RDY still set */

    bool quiesced;
    void (*quiet)(void *opaque);
    void *quiet_opaque;
    bool fatal_logged;
    struct nvme_stats stats;
};

/* controller.c */
void nvme_function_init(struct nvme *nvme);
unsigned nvme_page_shift(const struct nvme *nvme);
bool nvme_enabled(const struct nvme *nvme); /* there are queues */
bool nvme_running(const struct nvme *nvme); /* they may be fetched from */
void nvme_fatal(struct nvme *nvme, const char *what, int error);
void nvme_kick(struct nvme *nvme); /* call nvme_process again soon */
void nvme_reset_progress(struct nvme *nvme); /* jobs ended: a reset may be over */
void nvme_shutdown_done(struct nvme *nvme);
bool nvme_page_size_known(uint32_t cc);
void nvme_state_loaded(struct nvme *nvme);

/* data.c */
/* A number into a page of data, little endian. */
void nvme_put(uint8_t *data, unsigned offset, unsigned size, uint64_t value);
/* What is copied. Each returns a status, the first two 0 or a negative errno. */
int nvme_read_memory(struct nvme *nvme, uint64_t iova, void *data, size_t size);
int nvme_write_memory(struct nvme *nvme, uint64_t iova, const void *data, size_t size);
uint16_t nvme_ranges(struct nvme *nvme, const struct nvme_sqe *sqe, size_t length,
                     struct device_dma_range ranges[NVME_RANGES_MAX], size_t *count);
uint16_t nvme_copy_in(struct nvme *nvme, const struct nvme_sqe *sqe, void *data, size_t size);
/* `size` bytes of data, then zeroes up to `length`. */
uint16_t nvme_copy_out(struct nvme *nvme, const struct nvme_sqe *sqe, const void *data,
                       size_t size, size_t length);

/* queues.c */
void nvme_fetch(struct nvme *nvme);
void nvme_doorbell(struct nvme *nvme, uint64_t offset, uint32_t value);
void nvme_complete(struct nvme *nvme, const struct nvme_request *request, uint16_t status,
                   uint32_t result);
bool nvme_cq_has_room(const struct nvme *nvme, unsigned cqid);
void nvme_cq_unreserve(struct nvme *nvme, unsigned sqid);
void nvme_post(struct nvme *nvme, unsigned sqid, uint16_t cid, uint16_t status, uint32_t result);
void nvme_raise_interrupts(struct nvme *nvme);
void nvme_update_line(struct nvme *nvme);

/* admin.c */
void nvme_admin_command(struct nvme *nvme, const struct nvme_request *request,
                        const struct nvme_sqe *sqe);
void nvme_sq_command_ended(struct nvme *nvme, unsigned sqid);

/* identify.c */
uint16_t nvme_identify(struct nvme *nvme, const struct nvme_sqe *sqe);

/* log_pages.c */
uint16_t nvme_get_log_page(struct nvme *nvme, const struct nvme_sqe *sqe);
void nvme_log_error(struct nvme *nvme, const struct nvme_request *request, uint16_t status);
uint8_t nvme_critical_warning(const struct nvme *nvme);

/* features.c */
void nvme_features_init(struct nvme *nvme);
uint16_t nvme_get_features(struct nvme *nvme, const struct nvme_sqe *sqe, uint32_t *result);
uint16_t nvme_set_features(struct nvme *nvme, const struct nvme_sqe *sqe, uint32_t *result);

/* events.c */
void nvme_event(struct nvme *nvme, enum nvme_event_type type, enum nvme_event_info info);
void nvme_events_seen(struct nvme *nvme, enum nvme_event_type type);
void nvme_events_deliver(struct nvme *nvme);
void nvme_async_request(struct nvme *nvme, const struct nvme_request *request);
bool nvme_async_abort(struct nvme *nvme, uint16_t cid);
void nvme_check_temperature(struct nvme *nvme);

/* io.c */
void nvme_io_command(struct nvme *nvme, const struct nvme_request *request,
                     const struct nvme_sqe *sqe);

/* transfer.c */
int nvme_commands_init(struct nvme *nvme);
struct nvme_command *nvme_command_take(struct nvme *nvme);
void nvme_command_free(struct nvme *nvme, struct nvme_command *command);
void nvme_command_start(struct nvme *nvme, struct nvme_command *command);
struct nvme_command *nvme_command_find(struct nvme *nvme, uint16_t sqid, uint16_t cid);
/* End a command that no worker has begun. Returns whether that could be done. */
bool nvme_command_abort(struct nvme *nvme, struct nvme_command *command, uint16_t status);
/* What no worker has begun is unpinned, and waits again. */
void nvme_take_back_all(struct nvme *nvme);
void nvme_abort_queue(struct nvme *nvme, uint16_t sqid);
void nvme_drop_commands(struct nvme *nvme);
void nvme_collect(struct nvme *nvme);
void nvme_dispatch(struct nvme *nvme);
void nvme_unpin_all(struct nvme *nvme);

#endif
