/* SPDX-License-Identifier: BSD-2-Clause */
/* See iommu.h. */
#include "virtio/iommu.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <stdlib.h>
#include <string.h>

#include <viommu/save.h>

#include "handover/fds.h"

enum {
    REQUESTS = 0, /* the queues */
    FAULTS = 1,
    QUEUES,

    BUDGET = 64, /* chains at a time */

    REQUEST_MAX = 128, /* bytes of one that anybody looks at */

    CONFIG_SIZE = 40,
    CONFIG_BYPASS = 36, /* a byte */
};

/* ---- requests ---- */

/* Gives a request back. False: the queue is broken. */
static bool give_back(struct virtio_iommu *iommu, unsigned queue, uint16_t head, size_t length)
{
    int ret = virtio_ring_return(&iommu->pci.queues[queue].ring, head, (uint32_t)length);

    if (ret < 0) {
        virtio_pci_broken(&iommu->pci, queue, ret);
    }
    return ret == 0;
}

/* Remembers where the answer of a chain goes: the first bytes of what is writable. There are so
 * many: without room for an answer none is pending. */
static void remember(struct virtio_iommu *iommu, uint64_t token)
{
    struct virtio_iommu_pending *pending = &iommu->pending[iommu->pending_count++];
    const struct virtio_chain *chain = &iommu->chain;
    uint32_t left = VIRTIO_IOMMU_TAIL_SIZE;

    *pending = (struct virtio_iommu_pending){.token = token, .head = chain->head};
    for (unsigned i = chain->readable; left > 0; i++) {
        struct virtio_segment *piece = &pending->tail[pending->count++];

        *piece = chain->segments[i];
        piece->length = piece->length < left ? piece->length : left;
        left -= piece->length;
    }
    iommu->pended++;
}

/*
 * Has the model carry out the request at hand. Returns 0, and how many bytes its answer has;
 * VIOMMU_PENDING after remembering it; or a negative errno: not now.
 */
static int carry_out(struct virtio_iommu *iommu, size_t *written)
{
    const struct virtio_ring *ring = &iommu->pci.queues[REQUESTS].ring;
    const struct virtio_chain *chain = &iommu->chain;
    uint8_t request[REQUEST_MAX];
    size_t in_size =
        chain->readable_bytes < sizeof(request) ? (size_t)chain->readable_bytes : sizeof(request);
    size_t out_size = chain->writable_bytes < iommu->answer_size ? (size_t)chain->writable_bytes
                                                                 : iommu->answer_size;
    uint64_t token = iommu->last_token + 1;
    int ret;

    *written = 0;
    if (chain->spoilt || virtio_chain_read(ring, chain, request, in_size) < 0) {
        iommu->malformed++;
        return 0;
    }
    ret = viommu_virtio_request(iommu->unit.iommu, request, in_size, iommu->answer, out_size, token,
                                written);
    if (ret == VIOMMU_PENDING) {
        iommu->last_token = token;
        remember(iommu, token);
    } else if (ret == 0 && virtio_chain_write(ring, chain, iommu->answer, *written) < 0) {
        iommu->malformed++;
        *written = 0;
    }
    return ret;
}

/* Carries out the next request. False: there is none, or none can be carried out now. */
static bool next_request(struct virtio_iommu *iommu)
{
    struct virtio_ring *ring = &iommu->pci.queues[REQUESTS].ring;
    size_t written;
    int ret;

    /* Room for one more; when there is none, there is when one is complete. */
    if (iommu->pending_count == VIRTIO_IOMMU_PENDING_MAX) {
        return false;
    }
    ret = virtio_ring_peek(ring, &iommu->chain);
    if (ret < 0) {
        virtio_pci_broken(&iommu->pci, REQUESTS, ret);
    }
    if (ret <= 0) {
        return false;
    }
    ret = carry_out(iommu, &written);
    if (ret < 0) {
        return false; /* the model takes no more until it has processed something */
    }
    iommu->requests++;
    virtio_ring_take(ring);
    return ret == VIOMMU_PENDING || give_back(iommu, REQUESTS, iommu->chain.head, written);
}

static void run_requests(struct virtio_iommu *iommu)
{
    unsigned done = 0;

    while (done < BUDGET && virtio_pci_queue_runs(&iommu->pci, REQUESTS) && next_request(iommu)) {
        done++;
    }
    if (done == BUDGET) {
        unit_go_on_later(&iommu->unit);
    }
    if (done > 0) {
        virtio_pci_returned(&iommu->pci, REQUESTS);
    }
}

/* A request that was pending is done. */
static void answer_pending(struct virtio_iommu *iommu, const struct virtio_iommu_pending *pending)
{
    const uint8_t tail[VIRTIO_IOMMU_TAIL_SIZE] = {pending->status};
    size_t written = 0;
    int ret = 0;

    for (unsigned i = 0; ret == 0 && i < pending->count; i++) {
        ret = viommu_memory_write(iommu->unit.memory, pending->tail[i].gpa, tail + written,
                                  pending->tail[i].length);
        written += pending->tail[i].length;
    }
    if (ret < 0) {
        iommu->malformed++;
    }
    give_back(iommu, REQUESTS, pending->head, ret < 0 ? 0 : written);
}

static struct virtio_iommu *owner(void *opaque)
{
    return (struct virtio_iommu *)((char *)opaque - offsetof(struct virtio_iommu, unit));
}

/* Answers those that are done, in their order, which is the order in which they become so. */
static void answer_done(struct virtio_iommu *iommu)
{
    unsigned count = 0;

    while (count < iommu->pending_count && iommu->pending[count].done &&
           virtio_pci_queue_runs(&iommu->pci, REQUESTS)) {
        answer_pending(iommu, &iommu->pending[count++]);
    }
    iommu->pending_count -= count;
    memmove(iommu->pending, iommu->pending + count,
            iommu->pending_count * sizeof(iommu->pending[0]));
    if (count > 0) {
        virtio_pci_returned(&iommu->pci, REQUESTS);
    }
}

static void completed(void *opaque, uint64_t token, uint8_t status)
{
    struct virtio_iommu *iommu = owner(opaque);

    if (token == iommu->reset_token) {
        iommu->reset_token = 0;
        virtio_pci_reset_done(&iommu->pci);
        return;
    }
    for (unsigned i = 0; i < iommu->pending_count; i++) {
        if (iommu->pending[i].token == token) {
            iommu->pending[i].done = true;
            iommu->pending[i].status = status;
        }
    }
}

/* ---- faults ---- */

/* Gives the next buffer back, with a fault if there is one for it. False: no buffer, or no fault.
 */
static bool next_fault(struct virtio_iommu *iommu)
{
    struct virtio_ring *ring = &iommu->pci.queues[FAULTS].ring;
    uint8_t fault[VIOMMU_VIRTIO_FAULT_SIZE];
    size_t written = 0;
    int ret = virtio_ring_peek(ring, &iommu->chain);

    if (ret < 0) {
        virtio_pci_broken(&iommu->pci, FAULTS, ret);
    }
    if (ret <= 0) {
        return false;
    }
    if (iommu->chain.writable_bytes < sizeof(fault)) {
        iommu->buffers_refused++;
    } else if (viommu_virtio_fault(iommu->unit.iommu, fault, sizeof(fault)) <= 0) {
        return false;
    } else if (virtio_chain_write(ring, &iommu->chain, fault, sizeof(fault)) < 0) {
        iommu->faults_dropped++;
    } else {
        iommu->faults_told++;
        written = sizeof(fault);
    }
    virtio_ring_take(ring);
    return give_back(iommu, FAULTS, iommu->chain.head, written);
}

static void tell_faults(struct virtio_iommu *iommu)
{
    unsigned done = 0;

    while (done < BUDGET && virtio_pci_queue_runs(&iommu->pci, FAULTS) && next_fault(iommu)) {
        done++;
    }
    if (done == BUDGET) {
        unit_go_on_later(&iommu->unit);
    }
    if (done > 0) {
        virtio_pci_returned(&iommu->pci, FAULTS);
    }
}

static void faulted(void *opaque)
{
    tell_faults(owner(opaque));
}

/* ---- the device, for its transport ---- */

static int accept(void *opaque, uint64_t features)
{
    return viommu_virtio_accept(((struct virtio_iommu *)opaque)->unit.iommu, features);
}

static void notified(void *opaque, unsigned queue)
{
    if (queue == REQUESTS) {
        answer_done(opaque);
        run_requests(opaque);
    } else {
        tell_faults(opaque);
    }
}

/* Returns whether the model has still to complete it. What it cannot begin now waits for an
 * operation that is under way, whose end makes the unit due. */
static int begin_reset(struct virtio_iommu *iommu)
{
    uint64_t token = iommu->last_token + 1;
    int ret = viommu_virtio_reset(iommu->unit.iommu, token);

    iommu->reset_again = ret < 0;
    if (ret == VIOMMU_PENDING) {
        iommu->last_token = iommu->reset_token = token;
    }
    return ret != 0;
}

static int reset(void *opaque)
{
    struct virtio_iommu *iommu = opaque;

    iommu->pending_count = 0;
    return begin_reset(iommu);
}

static void power_on(void *opaque)
{
    struct virtio_iommu *iommu = opaque;

    iommu->pending_count = 0;
    iommu->reset_token = 0;
    iommu->reset_again = false;
    viommu_reset(iommu->unit.iommu);
}

static void config_read(void *opaque, uint32_t offset, void *data, uint32_t size)
{
    struct virtio_iommu *iommu = opaque;
    uint8_t *bytes = data;

    for (uint32_t done = 0; done < size; done += 8) {
        unsigned n = size - done < 8 ? size - done : 8;
        uint64_t value = 0;

        viommu_mmio_read(iommu->unit.iommu, offset + done, n, &value);
        memcpy(bytes + done, &value, n);
    }
}

static bool config_write(void *opaque, uint32_t offset, const void *data, uint32_t size)
{
    struct virtio_iommu *iommu = opaque;
    const uint8_t *bytes = data;
    uint64_t before = 0, after = 0;

    viommu_mmio_read(iommu->unit.iommu, CONFIG_BYPASS, 1, &before);
    for (uint32_t done = 0; done < size; done += 8) {
        unsigned n = size - done < 8 ? size - done : 8;
        uint64_t value = 0;

        memcpy(&value, bytes + done, n);
        viommu_mmio_write(iommu->unit.iommu, offset + done, n, value);
    }
    viommu_mmio_read(iommu->unit.iommu, CONFIG_BYPASS, 1, &after);
    return before != after;
}

static const struct virtio_device_ops ops = {
    .accept = accept,
    .notified = notified,
    .reset = reset,
    .power_on = power_on,
    .config_read = config_read,
    .config_write = config_write,
};

/* ---- life ---- */

static int create_unit(struct virtio_iommu *iommu, const struct viommu_virtio_config *config,
                       const struct viommu_config *common)
{
    struct viommu_virtio_config own = *config;
    int ret;

    own.completed = completed;
    own.faulted = faulted;
    ret = viommu_virtio_create(common, &own, &iommu->unit.iommu);
    if (ret < 0) {
        return ret;
    }
    iommu->answer_size = (config->probe_size ? config->probe_size : 512) + VIRTIO_IOMMU_TAIL_SIZE;
    iommu->answer = malloc(iommu->answer_size);
    return iommu->answer ? 0 : -ENOMEM;
}

int virtio_iommu_init(struct virtio_iommu *iommu, const char *name,
                      const struct viommu_virtio_config *config, const struct viommu_config *caches)
{
    struct virtio_device device = {
        .id = 23,
        .class_code = 0x080600,
        .config_size = CONFIG_SIZE,
        .queues = QUEUES,
        .queue_size = VIRTIO_RING_SIZE_MAX,
        .ops = &ops,
        .opaque = iommu,
    };
    struct viommu_config common;
    int ret;

    memset(iommu, 0, sizeof(*iommu));
    ret = unit_init(&iommu->unit, &iommu->pci.function, caches, &common);
    if (ret == 0) {
        ret = create_unit(iommu, config, &common);
    }
    if (ret < 0) {
        virtio_iommu_fini(iommu);
        return ret;
    }
    device.features = viommu_virtio_features(iommu->unit.iommu);
    virtio_pci_init(&iommu->pci, name, &device, iommu->unit.memory);
    iommu->pci.function.memory = &unit_memory_ops;
    iommu->pci.function.memory_opaque = &iommu->unit;
    return 0;
}

void virtio_iommu_fini(struct virtio_iommu *iommu)
{
    unit_fini(&iommu->unit);
    free(iommu->answer);
    iommu->answer = NULL;
}

void virtio_iommu_process(struct virtio_iommu *iommu)
{
    unit_process(&iommu->unit);
    if (iommu->reset_again && !begin_reset(iommu)) {
        virtio_pci_reset_done(&iommu->pci);
    }
    answer_done(iommu);
    run_requests(iommu);
    tell_faults(iommu);
}

/* ---- state for another process ---- */

static void save_pending(const struct virtio_iommu_pending *pending, struct save_writer *writer)
{
    save_put64(writer, pending->token);
    save_put16(writer, pending->head);
    save_put8(writer, pending->done);
    save_put8(writer, pending->status);
    save_put8(writer, pending->count);
    for (unsigned i = 0; i < pending->count; i++) {
        save_put64(writer, pending->tail[i].gpa);
        save_put32(writer, pending->tail[i].length);
    }
}

int virtio_iommu_save(const struct virtio_iommu *iommu, struct save_writer *writer)
{
    void *data;
    size_t size;
    int ret = viommu_save(iommu->unit.iommu, &data, &size);

    if (ret < 0) {
        return ret;
    }
    virtio_pci_save(&iommu->pci, writer);
    save_put64(writer, iommu->last_token);
    save_put64(writer, iommu->reset_token);
    save_put8(writer, iommu->reset_again);
    save_put32(writer, iommu->pending_count);
    for (unsigned i = 0; i < iommu->pending_count; i++) {
        save_pending(&iommu->pending[i], writer);
    }
    handover_put_data(writer, data, size);
    viommu_save_free(data);
    return 0;
}

static void load_pending(struct virtio_iommu *iommu, struct virtio_iommu_pending *pending,
                         struct save_section *section)
{
    uint32_t bytes = 0;
    uint8_t done;

    pending->token = save_get64(section);
    pending->head = save_get16(section);
    done = save_get8(section);
    pending->done = done;
    pending->status = save_get8(section);
    pending->count = save_get8(section);
    if (done > 1 || pending->count > VIRTIO_IOMMU_TAIL_SIZE || pending->token == 0 ||
        pending->token > iommu->last_token || pending->head >= VIRTIO_RING_SIZE_MAX) {
        save_spoil(section);
        return;
    }
    for (unsigned i = 0; i < pending->count; i++) {
        pending->tail[i].gpa = save_get64(section);
        pending->tail[i].length = save_get32(section);
        if (pending->tail[i].length == 0 ||
            pending->tail[i].length > VIRTIO_IOMMU_TAIL_SIZE - bytes) {
            save_spoil(section);
            return;
        }
        bytes += pending->tail[i].length;
    }
}

/* Whether what was taken out of the queues was given back, or is pending. */
static bool is_consistent(const struct virtio_iommu *iommu)
{
    const struct virtio_ring *requests = &iommu->pci.queues[REQUESTS].ring;
    const struct virtio_ring *faults = &iommu->pci.queues[FAULTS].ring;

    return iommu->pci.resetting || (iommu->pci.status & VIRTIO_CONFIG_S_NEEDS_RESET) ||
           ((uint16_t)(requests->returned + iommu->pending_count) == requests->next &&
            faults->returned == faults->next);
}

int virtio_iommu_load(struct virtio_iommu *iommu, struct save_section *section)
{
    uint8_t reset_again;
    const void *data;
    size_t size;
    uint32_t count;

    virtio_pci_load(&iommu->pci, section);
    iommu->last_token = save_get64(section);
    iommu->reset_token = save_get64(section);
    reset_again = save_get8(section);
    iommu->reset_again = reset_again;
    count = save_get32(section);
    /* There will always be another one, and 0 is none. */
    if (iommu->last_token > UINT64_MAX / 2 || iommu->reset_token > iommu->last_token ||
        reset_again > 1 ||
        iommu->pci.resetting != (iommu->reset_token || reset_again) ||
        count > VIRTIO_IOMMU_PENDING_MAX) {
        save_spoil(section);
    }
    while (!section->error && iommu->pending_count < count) {
        load_pending(iommu, &iommu->pending[iommu->pending_count++], section);
    }
    if (!is_consistent(iommu)) {
        save_spoil(section);
    }
    data = handover_get_data(section, SIZE_MAX, &size);
    if (section->error) {
        iommu->pending_count = 0; /* where answers go was not checked */
        return section->error;
    }
    unit_go_on_later(&iommu->unit);
    return viommu_load(iommu->unit.iommu, data, size);
}
