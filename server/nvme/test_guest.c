/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest of the tests; see test_guest.h.
 */
#include "test_guest.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "../log.h"

uint64_t guest_iova(uint64_t offset)
{
    return GUEST_RAM_FIRST + offset;
}

void *guest_at(struct guest *guest, uint64_t offset)
{
    return guest->ram + offset;
}

/* ---- memory -------------------------------------------------------------------------------- */

static int check(struct guest *guest, uint64_t iova, size_t size, uint8_t rights)
{
    uint64_t first = iova - GUEST_RAM_FIRST;

    if (first >= GUEST_RAM_SIZE || size == 0 || size > GUEST_RAM_SIZE - first) {
        return -EFAULT;
    }
    for (uint64_t page = first / 4096; page <= (first + size - 1) / 4096; page++) {
        if (!(guest->rights[page] & rights)) {
            return -EPERM;
        }
    }
    return 0;
}

static int dma_read(void *opaque, uint64_t iova, void *data, size_t size)
{
    struct guest *guest = opaque;
    int ret = check(guest, iova, size, GUEST_READABLE);

    if (ret == 0) {
        memcpy(data, guest->ram + (iova - GUEST_RAM_FIRST), size);
    }
    return ret;
}

static int dma_write(void *opaque, uint64_t iova, const void *data, size_t size)
{
    struct guest *guest = opaque;
    int ret = check(guest, iova, size, GUEST_WRITABLE);

    if (ret == 0) {
        memcpy(guest->ram + (iova - GUEST_RAM_FIRST), data, size);
    }
    return ret;
}

static struct device_dma_pin *free_pin(struct guest *guest)
{
    for (unsigned i = 0; i < GUEST_PINS_MAX; i++) {
        if (!guest->pins[i].used) {
            return &guest->pins[i];
        }
    }
    fail_msg("more pins than the controller may have");
    return NULL;
}

/* Fill in an iov, with a piece for each page at least if the guest's memory is scattered. */
static int fill_iov(struct guest *guest, const struct device_dma_request *request,
                    struct iovec *iov, size_t *count)
{
    size_t n = 0;

    for (size_t i = 0; i < request->count; i++) {
        uint8_t *at = guest->ram + (request->ranges[i].iova - GUEST_RAM_FIRST);
        size_t left = request->ranges[i].size;

        while (left > 0) {
            size_t size = left;

            if (guest->iov_max) {
                size_t room = 4096 - (size_t)(at - guest->ram) % 4096;

                size = left < room ? left : room;
            }
            if (n == *count) {
                return -ENOSPC;
            }
            iov[n++] = (struct iovec){.iov_base = at, .iov_len = size};
            at += size;
            left -= size;
        }
    }
    *count = n;
    return 0;
}

static int dma_pin(void *opaque, const struct device_dma_request *request, struct iovec *iov,
                   size_t *iov_count, struct device_dma_pin **out)
{
    struct guest *guest = opaque;
    int ret = guest->pin_error;

    assert_true(request->count > 0);
    for (size_t i = 0; ret == 0 && i < request->count; i++) {
        ret = check(guest, request->ranges[i].iova, request->ranges[i].size,
                    request->to_memory ? GUEST_WRITABLE : GUEST_READABLE);
    }
    if (ret == 0) {
        ret = fill_iov(guest, request, iov, iov_count);
    }
    if (ret < 0) {
        return ret;
    }
    *out = free_pin(guest);
    (*out)->used = true;
    (*out)->request = *request;
    guest->pinned++;
    return 0;
}

static void dma_unpin(void *opaque, struct device_dma_pin *pin)
{
    struct guest *guest = opaque;

    assert_true(pin->used);
    pin->used = false;
    guest->pinned--;
}

void guest_set_rights(struct guest *guest, uint64_t offset, size_t size, uint8_t rights)
{
    memset(&guest->rights[offset / 4096], rights, size / 4096);
}

static bool overlaps(const struct device_dma_pin *pin, uint64_t first, uint64_t last)
{
    for (size_t i = 0; i < pin->request.count; i++) {
        const struct device_dma_range *range = &pin->request.ranges[i];

        if (range->iova <= last && first <= range->iova + (range->size - 1)) {
            return true;
        }
    }
    return false;
}

void guest_revoke(struct guest *guest, uint64_t offset, size_t size)
{
    for (unsigned i = 0; i < GUEST_PINS_MAX; i++) {
        struct device_dma_pin *pin = &guest->pins[i];

        if (pin->used && overlaps(pin, guest_iova(offset), guest_iova(offset) + size - 1)) {
            pin->request.revoke(pin->request.opaque);
        }
    }
}

static int dma_commit(void *opaque, struct device_dma_pin *pin)
{
    struct guest *guest = opaque;

    assert_true(pin->used && pin->request.to_memory);
    guest->commits++;
    return guest->commit_error;
}

/* ---- the bus and the registers ------------------------------------------------------------- */

static void count_reset(void *opaque)
{
    ((struct guest *)opaque)->resets++;
}

static void bus_message(void *opaque, unsigned vector)
{
    struct guest *guest = opaque;

    assert_true(vector <= NVME_QUEUES_MAX);
    guest->messages[vector]++;
}

static void bus_line(void *opaque, bool level)
{
    ((struct guest *)opaque)->line = level;
}

static const struct pci_bus_ops bus = {
    .message_interrupt = bus_message,
    .line_interrupt = bus_line,
};

uint32_t guest_read32(struct guest *guest, uint64_t offset)
{
    struct pci_function *function = nvme_function(guest->nvme);
    uint32_t value;

    function->ops->bar_read(function->opaque, 0, offset, &value, sizeof(value));
    return value;
}

void guest_write32(struct guest *guest, uint64_t offset, uint32_t value)
{
    struct pci_function *function = nvme_function(guest->nvme);

    function->ops->bar_write(function->opaque, 0, offset, &value, sizeof(value));
}

void guest_write64(struct guest *guest, uint64_t offset, uint64_t value)
{
    struct pci_function *function = nvme_function(guest->nvme);

    function->ops->bar_write(function->opaque, 0, offset, &value, sizeof(value));
}

void guest_set_config(struct guest *guest, unsigned offset, uint16_t value)
{
    struct pci_function *function = nvme_function(guest->nvme);

    pci_config_write(&function->config, offset, &value, sizeof(value));
    function->ops->config_written(function->opaque, offset, sizeof(value));
}

/* ---- life ---------------------------------------------------------------------------------- */

static int make_file(void)
{
    int fd = memfd_create("disk", MFD_CLOEXEC);
    uint32_t word = 1;

    assert_true(fd >= 0);
    for (unsigned at = 0; at < GUEST_FILE_SIZE; at += 65536) {
        uint32_t block[65536 / 4];

        for (unsigned i = 0; i < 65536 / 4; i++) {
            word = word * 1664525 + 1013904223;
            block[i] = word;
        }
        assert_int_equal(pwrite(fd, block, sizeof(block), at), sizeof(block));
    }
    return fd;
}

void guest_open(struct guest *guest, const struct nvme_config *config)
{
    const struct device_dma dma = {
        .read = dma_read,
        .write = dma_write,
        .pin = dma_pin,
        .commit = dma_commit,
        .unpin = dma_unpin,
        .reset = count_reset,
        .opaque = guest,
    };
    struct nvme_config own = *config;

    memset(guest, 0, sizeof(*guest));
    server_log_to(NULL);
    guest->ram = calloc(1, GUEST_RAM_SIZE);
    assert_non_null(guest->ram);
    memset(guest->rights, GUEST_READABLE | GUEST_WRITABLE, sizeof(guest->rights));
    guest->fd = make_file();
    own.fd = dup(guest->fd);
    assert_int_equal(nvme_create(&own, "disk", &dma, NULL, &guest->nvme), 0);
    nvme_function(guest->nvme)->bus = &bus;
    nvme_function(guest->nvme)->bus_opaque = guest;
}

void guest_close(struct guest *guest)
{
    assert_int_equal(nvme_destroy(guest->nvme), 0);
    assert_int_equal(guest->pinned, 0);
    close(guest->fd);
    free(guest->ram);
}

/* ---- queues -------------------------------------------------------------------------------- */

static uint64_t sq_place(unsigned queue)
{
    return (uint64_t)queue * 2 * GUEST_QUEUE_ROOM;
}

static uint64_t cq_place(unsigned queue)
{
    return sq_place(queue) + GUEST_QUEUE_ROOM;
}

static void start_queue(struct guest *guest, unsigned queue, uint32_t entries)
{
    guest->queues[queue] = (struct guest_queue){
        .entries = entries,
        .phase = true,
        .next_cid = (uint16_t)(queue << 12),
    };
    memset(guest_at(guest, cq_place(queue)), 0, GUEST_QUEUE_ROOM);
}

void guest_enable(struct guest *guest, uint32_t admin_entries)
{
    unsigned msix = nvme_function(guest->nvme)->config.msix;

    guest_set_config(guest, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    guest_set_config(guest, msix + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE);
    start_queue(guest, 0, admin_entries);
    guest_write32(guest, NVME_REG_AQA, (admin_entries - 1) << 16 | (admin_entries - 1));
    guest_write64(guest, NVME_REG_ASQ, guest_iova(sq_place(0)));
    guest_write64(guest, NVME_REG_ACQ, guest_iova(cq_place(0)));
    guest_write32(guest, NVME_REG_CC, 4u << 20 | 6u << 16 | NVME_CC_EN);
    assert_int_equal(guest_read32(guest, NVME_REG_CSTS), NVME_CSTS_RDY);
}

struct nvme_sqe guest_create_cq(unsigned id, uint32_t entries, unsigned vector)
{
    return (struct nvme_sqe){
        .opcode = NVME_ADMIN_CREATE_CQ,
        .prp1 = guest_iova(cq_place(id)),
        .dw10 = (entries - 1) << 16 | id,
        .dw11 = vector << 16 | 3,
    };
}

struct nvme_sqe guest_create_sq(unsigned id, uint32_t entries, unsigned cqid)
{
    return (struct nvme_sqe){
        .opcode = NVME_ADMIN_CREATE_SQ,
        .prp1 = guest_iova(sq_place(id)),
        .dw10 = (entries - 1) << 16 | id,
        .dw11 = cqid << 16 | 1,
    };
}

void guest_create_queues(struct guest *guest, unsigned id, uint32_t entries)
{
    start_queue(guest, id, entries);
    assert_int_equal(guest_do(guest, 0, guest_create_cq(id, entries, id), NULL), NVME_OK);
    assert_int_equal(guest_do(guest, 0, guest_create_sq(id, entries, id), NULL), NVME_OK);
}

uint16_t guest_put(struct guest *guest, unsigned queue, struct nvme_sqe sqe)
{
    struct guest_queue *q = &guest->queues[queue];

    sqe.cid = q->next_cid++;
    memcpy(guest_at(guest, sq_place(queue) + q->tail * sizeof(sqe)), &sqe, sizeof(sqe));
    q->tail = (q->tail + 1) % q->entries;
    return sqe.cid;
}

void guest_ring(struct guest *guest, unsigned queue)
{
    guest_write32(guest, NVME_REG_DOORBELLS + queue * 8, guest->queues[queue].tail);
}

uint16_t guest_submit(struct guest *guest, unsigned queue, struct nvme_sqe sqe)
{
    uint16_t cid = guest_put(guest, queue, sqe);

    guest_ring(guest, queue);
    return cid;
}

bool guest_poll(struct guest *guest, unsigned queue, struct nvme_cqe *cqe)
{
    struct guest_queue *q = &guest->queues[queue];

    memcpy(cqe, guest_at(guest, cq_place(queue) + q->head * sizeof(*cqe)), sizeof(*cqe));
    if ((cqe->status & 1) != q->phase) {
        return false;
    }
    q->head++;
    if (q->head == q->entries) {
        q->head = 0;
        q->phase = !q->phase;
    }
    guest_write32(guest, NVME_REG_DOORBELLS + queue * 8 + 4, q->head);
    return true;
}

void guest_settle(struct guest *guest)
{
    nvme_process(guest->nvme);
    while (nvme_run_job(guest->nvme)) {
        nvme_process(guest->nvme);
    }
    nvme_process(guest->nvme);
}

uint16_t guest_expect(struct guest *guest, unsigned queue, uint16_t cid, struct nvme_cqe *cqe)
{
    struct nvme_cqe own;

    cqe = cqe ? cqe : &own;
    guest_settle(guest);
    assert_true(guest_poll(guest, queue, cqe));
    assert_int_equal(cqe->cid, cid);
    assert_int_equal(cqe->reserved, 0);
    assert_int_equal((cqe->status >> 1 & NVME_STATUS_MORE) != 0, cqe->status >> 1 != 0);
    return (uint16_t)(cqe->status >> 1 & ~NVME_STATUS_MORE);
}

uint16_t guest_do(struct guest *guest, unsigned queue, struct nvme_sqe sqe, uint32_t *result)
{
    struct nvme_cqe cqe;
    uint16_t cid = guest_submit(guest, queue, sqe);
    uint16_t status = guest_expect(guest, queue, cid, &cqe);

    if (result) {
        *result = cqe.result;
    }
    return status;
}

struct nvme_sqe guest_rw(bool write, uint64_t lba, uint32_t blocks, uint64_t offset)
{
    return (struct nvme_sqe){
        .opcode = write ? NVME_IO_WRITE : NVME_IO_READ,
        .nsid = 1,
        .prp1 = guest_iova(offset),
        .prp2 = guest_iova((offset & ~UINT64_C(4095)) + 4096),
        .dw10 = (uint32_t)lba,
        .dw11 = (uint32_t)(lba >> 32),
        .dw12 = blocks - 1,
    };
}
