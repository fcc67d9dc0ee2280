/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An NVM Express controller (specification 1.4, NVM command set) with one namespace, which is a
 * file. docs/nvme.md says what it has and what it has not.
 *
 * Data moves without a copy: the memory that a command names is pinned (device_dma.h), and given to
 * preadv or pwritev in one of a few worker threads. Only queue entries, PRP lists, ranges of
 * dataset management, and what identify and log pages return are copied.
 *
 * All functions are called on the server's one thread. The workers see nothing but their job.
 *
 * A controller reset drops everything that was in flight: what a worker has begun goes on, but its
 * end is no longer told to the guest; its memory stays pinned until then. The controller stays
 * "ready" for the guest until that has ended, or reset_ms have passed.
 */
#ifndef VIOMMU_SERVER_NVME_NVME_H
#define VIOMMU_SERVER_NVME_NVME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../device_dma.h"
#include "../loop.h"
#include "../pci_function.h"

enum {
    NVME_QUEUES_MAX = 63,
    NVME_QUEUES_DEFAULT = 8,
    NVME_WORKERS_MAX = 64,
    NVME_WORKERS_DEFAULT = 4,
    NVME_BAR_SIZE = 0x4000,
};

struct nvme_config {
    int fd; /* the backing file or block device; the controller's once nvme_create succeeded */
    bool read_only;
    unsigned lba_shift;    /* a block has 2^lba_shift bytes: 9 or 12; 0: 9 */
    unsigned queues;       /* pairs for I/O, 1 to NVME_QUEUES_MAX; 0: NVME_QUEUES_DEFAULT */
    unsigned workers;      /* threads, 1 to NVME_WORKERS_MAX; 0: NVME_WORKERS_DEFAULT */
    const char *serial;    /* up to 20 printable characters; NULL: the device's name */
    const char *hold_path; /* while this file exists, I/O that is done does not end; NULL: none */
    const char *fail_path; /* while this file exists, I/O fails with EIO; NULL: none */
    unsigned reset_ms;     /* how long a reset waits for I/O that has begun; 0: 2000 */
    unsigned destroy_ms;   /* the same for nvme_destroy; 0: 5000 */
    bool no_threads;       /* for tests: jobs run only in nvme_run_job */
};

/* What it did since it was created. */
struct nvme_stats {
    uint64_t admin_commands;   /* fetched */
    uint64_t io_commands;      /* fetched */
    uint64_t errors;           /* commands completed with a status other than success */
    uint64_t bytes_read;       /* from the file straight into guest memory */
    uint64_t bytes_written;    /* from guest memory straight into the file */
    uint64_t bytes_copied;     /* queue entries, PRP lists, ranges, identify and log pages */
    uint64_t pins;             /* windows of guest memory opened */
    uint64_t pins_refused;     /* could not be opened */
    uint64_t revoked;          /* windows wanted back while in use */
    uint64_t put_back;         /* of these, given back at once; their command waits again */
    uint64_t dma_errors;       /* queue entries and lists that could not be read or written */
    uint64_t interrupts;       /* messages sent */
    uint64_t events;           /* asynchronous events told */
    uint64_t resets;           /* of the controller or the function */
    uint64_t dropped;          /* jobs that ended after a reset, and were not told */
    uint64_t fatal;            /* times the controller stopped: its queues could not be reached */
    uint64_t doorbells_refused;
};

struct nvme;
struct save_section;
struct save_writer;

/*
 * Makes a controller; *config and *dma are copied, name and the strings must outlive it. It watches
 * its workers in `loop`; with NULL the caller does: nvme_event_fd, nvme_process. Returns 0; -EINVAL
 * for a configuration that makes no sense, or a file that holds no block; or another negative
 * errno. fd is then still the caller's.
 */
int nvme_create(const struct nvme_config *config, const char *name, const struct device_dma *dma,
                struct loop *loop, struct nvme **out);

/*
 * Waits for I/O that has begun, for destroy_ms at most, unpins, closes the file and frees. Returns
 * 0; or -ETIMEDOUT: workers hang, which is logged; what they use (the file, pinned memory) stays as
 * it is, and must not be freed until the process ends. Nobody may serve the function any more.
 */
int nvme_destroy(struct nvme *nvme);

struct pci_function *nvme_function(struct nvme *nvme);

/* The descriptor of its file, which stays the controller's. */
int nvme_file(const struct nvme *nvme);

/* Readable when there is something to do. */
int nvme_event_fd(const struct nvme *nvme);

/* Do what there is to do, for a bounded time. */
void nvme_process(struct nvme *nvme);

/*
 * Fetch no more commands, and call `quiet` once, from nvme_process or from here, when all that was
 * fetched has ended. Commands in queues stay there; requests for asynchronous events are kept.
 * `quiet` may be NULL: ask nvme_quiet. nvme_resume goes on.
 */
void nvme_quiesce(struct nvme *nvme, void (*quiet)(void *opaque), void *opaque);
bool nvme_quiet(const struct nvme *nvme);
void nvme_resume(struct nvme *nvme);

/*
 * The state of a controller that is quiet, configuration space included, into the section that is
 * open; and from there, into a controller that was just made, of the same queues and block size,
 * and is quiesced. nvme_load returns 0, or -EBADMSG (the section is spoiled) with nothing changed.
 * After nvme_resume it fetches where the other one stopped, and looks whether the file has changed.
 */
void nvme_save(const struct nvme *nvme, struct save_writer *writer);
int nvme_load(struct nvme *nvme, struct save_section *section);

/* Look at the file's size again; a guest that wants to know is told when it changed. */
void nvme_rescan(struct nvme *nvme);

void nvme_stats_get(const struct nvme *nvme, struct nvme_stats *stats);

/* Calls print for each line of a summary: what it is, and how many. */
void nvme_summary(const struct nvme *nvme, void (*print)(const char *what, uint64_t n));

/* no_threads: run the job that waits longest. Returns whether there was one. */
bool nvme_run_job(struct nvme *nvme);

#endif
