/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For tests: a guest of one NVMe controller, with memory, rights to it, queues, and a bus.
 *
 * Memory is one buffer at RAM_FIRST. Each page of it may be read and written by the device or not;
 * pins are remembered: a test asks how many there are, and wants memory back. The queues are those
 * of a driver: the guest keeps tails, heads and phases itself, and checks every entry it consumes.
 *
 * The controller has no threads unless a test asks for them: jobs run when the test says so.
 */
#ifndef VIOMMU_SERVER_NVME_TEST_GUEST_H
#define VIOMMU_SERVER_NVME_TEST_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "device.h"

#define GUEST_RAM_FIRST UINT64_C(0x7000100000)

enum {
    GUEST_RAM_PAGES = 1024,
    GUEST_RAM_SIZE = GUEST_RAM_PAGES * 4096,
    GUEST_PINS_MAX = 256,
    GUEST_READABLE = 1,
    GUEST_WRITABLE = 2,
    GUEST_QUEUES = 5, /* the admin pair, and four */
    GUEST_FILE_SIZE = 4 << 20,

    /* Where things are, as offsets in RAM: 16 KiB for each queue, then data. */
    GUEST_QUEUE_ROOM = 0x4000,
    GUEST_DATA = GUEST_QUEUES * 2 * GUEST_QUEUE_ROOM,
};

struct guest_queue {
    uint32_t entries;
    uint32_t tail;  /* of the submission queue */
    uint32_t head;  /* of the completion queue */
    uint32_t seen;  /* the SQ head of the last completion */
    bool phase;
    uint16_t next_cid;
};

struct device_dma_pin {
    bool used;
    bool held; /* its memory is wanted back */
    struct device_dma_request request;
    uint64_t first, last;
};

struct guest {
    struct nvme *nvme;
    int fd; /* a second descriptor of the backing file */
    uint8_t *ram;
    uint8_t rights[GUEST_RAM_PAGES];
    struct device_dma_pin pins[GUEST_PINS_MAX];
    unsigned pinned;
    unsigned iov_max; /* pieces that pin makes of memory at most; 0: as few as can be */
    int pin_error;    /* what pin returns, if not 0 */
    int commit_error; /* likewise */
    unsigned commits;
    struct guest_queue queues[GUEST_QUEUES];
    unsigned messages[NVME_QUEUES_MAX + 1];
    bool line;
    unsigned resets;
};

/* Makes a controller with a file of GUEST_FILE_SIZE bytes of a pattern. config->fd is ignored. */
void guest_open(struct guest *guest, const struct nvme_config *config);
void guest_close(struct guest *guest);

uint32_t guest_read32(struct guest *guest, uint64_t offset);
void guest_write32(struct guest *guest, uint64_t offset, uint32_t value);
void guest_write64(struct guest *guest, uint64_t offset, uint64_t value);
void guest_set_config(struct guest *guest, unsigned offset, uint16_t value);

/* A device address of a place in RAM, and the place itself. */
uint64_t guest_iova(uint64_t offset);
void *guest_at(struct guest *guest, uint64_t offset);
void guest_set_rights(struct guest *guest, uint64_t offset, size_t size, uint8_t rights);

/* Want back what is pinned of [offset, offset + size). */
void guest_revoke(struct guest *guest, uint64_t offset, size_t size);

/* MSI-X and bus master on, admin queues of so many entries, CC.EN. */
void guest_enable(struct guest *guest, uint32_t admin_entries);
/* Queue pair `id` with its own vector, or -1 for none; its submission queue uses the completion
 * queue `cqid`. The test fails if the controller refuses. */
void guest_create_queues(struct guest *guest, unsigned id, uint32_t entries);

struct nvme_sqe guest_create_cq(unsigned id, uint32_t entries, unsigned vector);
struct nvme_sqe guest_create_sq(unsigned id, uint32_t entries, unsigned cqid);

/* Put a command into a queue and ring. Returns its id. */
uint16_t guest_submit(struct guest *guest, unsigned queue, struct nvme_sqe sqe);
uint16_t guest_put(struct guest *guest, unsigned queue, struct nvme_sqe sqe); /* do not ring */
void guest_ring(struct guest *guest, unsigned queue);

/* Is there a completion? It is consumed. */
bool guest_poll(struct guest *guest, unsigned queue, struct nvme_cqe *cqe);

/* Let all jobs run; there must be a completion for this command. Returns its status, without
 * "more"; the entry, if wanted. */
uint16_t guest_expect(struct guest *guest, unsigned queue, uint16_t cid, struct nvme_cqe *cqe);
/* Submit and expect. */
uint16_t guest_do(struct guest *guest, unsigned queue, struct nvme_sqe sqe, uint32_t *result);

/* Run jobs until there are none, and let the controller see it. */
void guest_settle(struct guest *guest);

/* A read or write of blocks, with its data at a place in RAM, in one page or two. */
struct nvme_sqe guest_rw(bool write, uint64_t lba, uint32_t blocks, uint64_t offset);

#endif
