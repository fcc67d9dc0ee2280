/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Everything of a controller that its guest can see, as plain data: what is saved, and what a
 * reset clears. What is in flight is not here: it is over before state is saved.
 *
 * Invariants, which hold whatever the guest does and which state that is loaded is checked for:
 * head and tail are below entries, which is 2 to NVME_QUEUE_ENTRIES_MAX, where a queue exists; the
 * completion queue of each submission queue exists; queue 0 exists exactly while CSTS.RDY is set
 * and CC.EN, too.
 */
#ifndef VIOMMU_SERVER_NVME_STATE_H
#define VIOMMU_SERVER_NVME_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "nvme.h"
#include "spec.h"

enum {
    NVME_QUEUE_ENTRIES_MAX = 1024,      /* of queues for I/O */
    NVME_ADMIN_QUEUE_ENTRIES_MAX = 4096, /* what AQA can say */
    NVME_ASYNC_REQUESTS_MAX = 4,
    NVME_ERRORS_MAX = 64,
    NVME_ABORTS_MAX = 4,
};

/* A submission queue. What lies from head up to tail was not fetched yet. */
struct nvme_sq {
    uint64_t base;
    uint32_t entries;
    uint32_t head;
    uint32_t tail;
    uint16_t cqid;
    bool exists;
};

/* A completion queue. What lies from head up to tail was not consumed by the guest yet. */
struct nvme_cq {
    uint64_t base;
    uint32_t entries;
    uint32_t head;
    uint32_t tail;
    uint16_t vector;
    bool interrupts;
    bool phase; /* of the next entry */
    bool exists;
};

/* What the guest set by Set Features. */
struct nvme_features {
    uint32_t arbitration;
    uint32_t power;
    uint32_t temperature_over;
    uint32_t temperature_under;
    uint32_t error_recovery;
    uint32_t write_cache;
    uint32_t coalescing;
    uint32_t atomicity;
    uint32_t async_events;
    uint64_t vector_uncoalesced; /* a bit for each interrupt vector */
};

/* An entry of the error log. */
struct nvme_error {
    uint64_t count;
    uint64_t lba;
    uint32_t nsid;
    uint16_t sqid;
    uint16_t cid;
    uint16_t status;
};

struct nvme_state {
    uint32_t interrupt_mask;
    uint32_t cc;
    uint32_t csts;
    uint32_t aqa;
    uint64_t asq;
    uint64_t acq;

    struct nvme_sq sq[NVME_QUEUES_MAX + 1];
    struct nvme_cq cq[NVME_QUEUES_MAX + 1];
    struct nvme_features features;

    /* Requests for asynchronous events that wait, and events that wait for a request: for each
     * type a bit for each info; a type that was told is masked until its log page is read. */
    uint16_t async_cid[NVME_ASYNC_REQUESTS_MAX];
    uint32_t async_count;
    uint32_t events_pending[NVME_EVENT_TYPES];
    bool events_masked[NVME_EVENT_TYPES];
    bool namespace_changed; /* what log page 4 says */

    uint64_t blocks; /* of the namespace */

    /* These survive resets. */
    struct nvme_error errors[NVME_ERRORS_MAX]; /* entry count % NVME_ERRORS_MAX */
    uint64_t error_count;
    uint64_t read_commands, write_commands;
    uint64_t bytes_read, bytes_written;
};

#endif
