/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The invalidation queue (6.5.2).
 *
 * Descriptors are fetched in order, checked whole, and started; several may be under way. They
 * retire in order, and IQH moves when they do, so that a guest that only polls IQH learns of
 * completion too. A bad descriptor is reported when everything before it has retired: IQH then
 * points to it, and it is fetched again when the guest has cleared the error.
 */
#include "vtd/unit.h"

#include "iommu/watch.h"

#include <errno.h>

static uint32_t queue_size(const struct vtd *vtd)
{
    return 256u << (vtd->state.reg[REG_IQA] & IQA_QS);
}

static struct vtd_operation *operation_at(struct vtd_queue *queue, uint32_t i)
{
    return &queue->operations[(queue->first + i) % VTD_OPERATIONS];
}

static bool is_wait(const struct vtd_operation *operation)
{
    return (operation->low & 0xf) == VTD_DESC_WAIT;
}

/*
 * The guest hears of failures of these only: they are between it and its device. Other subscribers
 * are the host's affair; one that failed is fenced, and what it should have done counts as done.
 */
static bool is_device_tlb(const struct vtd_operation *operation)
{
    return (operation->low & 0xf) == VTD_DESC_DEVICE_TLB;
}

void vtd_queue_reset(struct vtd *vtd)
{
    struct vtd_queue *queue = &vtd->queue;

    for (uint32_t i = 0; i < queue->count; i++) {
        notify_forget(&vtd->iommu, &operation_at(queue, i)->wait);
    }
    *queue = (struct vtd_queue){0};
}

void vtd_queue_resume(struct vtd *vtd, uint32_t again)
{
    vtd->queue.fetch = (uint32_t)(vtd->state.reg[REG_IQH] >> 4);
    vtd->queue.again = again;
}

/* A wait descriptor with the fence flag keeps later ones back until it has completed. */
static bool fenced(const struct vtd_queue *queue)
{
    const struct vtd_operation *newest;

    if (!queue->count) {
        return false;
    }
    newest = &queue->operations[(queue->first + queue->count - 1) % VTD_OPERATIONS];
    return is_wait(newest) && (newest->low & DESC_WAIT_FN);
}

/* Whether the guest lets it fetch; what was fetched once is fetched again. */
static bool enabled(const struct vtd *vtd)
{
    const struct vtd_state *state = &vtd->state;

    return vtd->queue.again ||
           ((state->reg[REG_GSTS] & state->wanted & GCMD_QIE) && vtd->command_bit != GCMD_QIE);
}

bool vtd_queue_ready(const struct vtd *vtd)
{
    const struct vtd_state *state = &vtd->state;

    return enabled(vtd) && !(state->reg[REG_FSTS] & (FSTS_IQE | FSTS_ITE)) &&
           !vtd->queue.timed_out && vtd->queue.count < VTD_OPERATIONS &&
           vtd->iommu.notify.outstanding < NOTIFY_OUTSTANDING_MAX &&
           vtd->queue.fetch != state->reg[REG_IQT] >> 4 && !fenced(&vtd->queue);
}

static enum vtd_queue_error check_context(uint64_t low, uint64_t high)
{
    if ((low & (DESC_CONTEXT_RESERVED_LOW | DESC_CONTEXT_RESERVED_TOP)) || high ||
        !(low >> 4 & 3)) {
        return IQEI_RESERVED;
    }
    return IQEI_NONE;
}

static enum vtd_queue_error check_iotlb(uint64_t low, uint64_t high)
{
    if ((low & DESC_IOTLB_RESERVED_LOW) || (high & DESC_IOTLB_RESERVED_HIGH) || !(low >> 4 & 3)) {
        return IQEI_RESERVED;
    }
    /* The specification is silent on a mask that is too large here; in IVA it is an error. */
    if ((low >> 4 & 3) == VTD_SELECTIVE && (high & 0x3f) > VTD_MAMV) {
        return IQEI_RESERVED;
    }
    return IQEI_NONE;
}

static enum vtd_queue_error check_device_tlb(const struct vtd *vtd, uint64_t low, uint64_t high)
{
    if (!vtd->config.device_tlb) {
        return IQEI_TYPE;
    }
    return (low & DESC_DEVICE_TLB_RESERVED_LOW) || (high & DESC_DEVICE_TLB_RESERVED_HIGH)
               ? IQEI_RESERVED
               : IQEI_NONE;
}

static enum vtd_queue_error check_wait(uint64_t low, uint64_t high)
{
    return (low & DESC_WAIT_RESERVED_LOW) || (high & DESC_WAIT_RESERVED_HIGH) ? IQEI_RESERVED
                                                                              : IQEI_NONE;
}

static enum vtd_queue_error descriptor_check(const struct vtd *vtd, uint64_t low, uint64_t high)
{
    switch ((low & 0xf) | (low >> 9 & 7) << 4) {
    case VTD_DESC_CONTEXT:
        return check_context(low, high);
    case VTD_DESC_IOTLB:
        return check_iotlb(low, high);
    case VTD_DESC_DEVICE_TLB:
        return check_device_tlb(vtd, low, high);
    case VTD_DESC_INTERRUPT_CACHE:
        return (low & DESC_INTERRUPT_CACHE_RESERVED_LOW) || high ? IQEI_RESERVED : IQEI_NONE;
    case VTD_DESC_WAIT:
        return check_wait(low, high);
    default:
        return IQEI_TYPE;
    }
}

/* Reads a descriptor, each half once. */
static enum vtd_queue_error descriptor_read(struct vtd *vtd, uint64_t *low, uint64_t *high)
{
    const struct memory_snapshot *memory = memory_snapshot(vtd->iommu.memory);
    uint64_t base = vtd->state.reg[REG_IQA] & IQA_ADDRESS;
    uint64_t gpa = base + vtd->queue.fetch * 16ULL;

    if (base > vtd_host_last(vtd) - (queue_size(vtd) * 16ULL - 1)) {
        return IQEI_FETCH;
    }
    return memory_load64(memory, gpa, low) && memory_load64(memory, gpa + 8, high) ? IQEI_NONE
                                                                                   : IQEI_FETCH;
}

static enum vtd_queue_error fetch(struct vtd *vtd, uint64_t *low, uint64_t *high)
{
    const struct vtd_state *state = &vtd->state;
    enum vtd_queue_error error;

    if (vtd->queue.fetch >= queue_size(vtd) || state->reg[REG_IQT] >> 4 >= queue_size(vtd)) {
        return IQEI_TAIL;
    }
    if (state->reg[REG_IQA] & IQA_DW) {
        return IQEI_WIDTH;
    }
    if (state->root & RTADDR_TTM) {
        return IQEI_TTM;
    }
    error = descriptor_read(vtd, low, high);
    return error ? error : descriptor_check(vtd, *low, *high);
}

static void queue_error(struct vtd *vtd, enum vtd_queue_error error)
{
    uint64_t *record = &vtd->state.reg[REG_IQERCD];

    vtd->queue.again = 0; /* the guest changed what was under way: it goes on from the error */
    *record = (*record & ~IQERCD_IQEI) | (uint64_t)error;
    vtd->iommu.stats.queue_errors++;
    vtd_fault_event(vtd, FSTS_IQE);
}

static void operation_push(struct vtd *vtd, uint64_t low, uint64_t high)
{
    struct vtd_queue *queue = &vtd->queue;
    struct vtd_operation *operation = operation_at(queue, queue->count);

    *operation = (struct vtd_operation){.low = low, .high = high};
    watch_descriptor(&vtd->iommu, queue->fetch, low, high);
    queue->count++;
    queue->started++;
    queue->again -= queue->again > 0;
    queue->fetch = (queue->fetch + 1) % queue_size(vtd);
    vtd_operation_start(vtd, operation);
}

/* Fetches and starts one descriptor. Returns false when that has to wait. */
static bool fetch_step(struct vtd *vtd)
{
    enum vtd_queue_error error;
    uint64_t low = 0;
    uint64_t high = 0;

    (void)epoch_enter(vtd->iommu.epoch); /* cannot fail in model.work */
    error = fetch(vtd, &low, &high);
    epoch_leave(vtd->iommu.epoch);
    if (!error) {
        operation_push(vtd, low, high);
        return true;
    }
    if (vtd->queue.count) {
        return false;
    }
    watch_refused(&vtd->iommu, vtd->queue.fetch, low, high, error);
    queue_error(vtd, error);
    return true;
}

/*
 * A device did not answer in time: waits that are pending are aborted (6.5.2.11). The error shows
 * when IQH has passed them: that is how a guest knows which ones to submit again.
 */
static void timed_out(struct vtd *vtd, const struct vtd_operation *operation)
{
    for (uint32_t i = 0; i < vtd->queue.count; i++) {
        struct vtd_operation *pending = operation_at(&vtd->queue, i);

        pending->aborted |= is_wait(pending);
    }
    if (!vtd->queue.timed_out) {
        vtd->queue.timed_out = true;
        vtd->queue.timed_out_source = operation->wait.requester;
    }
}

/* A device's failure: its source id is kept for the first until the guest clears the bit. */
static void device_error(struct vtd *vtd, uint32_t bit, unsigned source_shift, uint16_t source)
{
    uint64_t *record = &vtd->state.reg[REG_IQERCD];

    if (!(vtd->state.reg[REG_FSTS] & bit)) {
        *record &= ~(0xffffULL << source_shift);
        *record |= (uint64_t)source << source_shift;
    }
    vtd_fault_event(vtd, bit);
}

static bool time_out_report(struct vtd *vtd)
{
    if (!vtd->queue.timed_out || vtd->queue.count) {
        return false;
    }
    vtd->queue.timed_out = false;
    device_error(vtd, FSTS_ITE, IQERCD_ITESID_SHIFT, vtd->queue.timed_out_source);
    return true;
}

static bool operations_advance(struct vtd *vtd)
{
    bool moved = false;

    for (uint32_t i = 0; i < vtd->queue.count; i++) {
        struct vtd_operation *operation = operation_at(&vtd->queue, i);

        moved |= vtd_operation_advance(vtd, operation);
        if (!is_device_tlb(operation)) {
            continue;
        }
        if (operation->wait.timed_out) {
            operation->wait.timed_out = false;
            timed_out(vtd, operation);
        }
        if (operation->wait.failed) {
            operation->wait.failed = false;
            device_error(vtd, FSTS_ICE, IQERCD_ICESID_SHIFT, operation->wait.requester);
        }
    }
    return moved;
}

/* Writes a wait descriptor's status; an address without memory swallows it, as a bus does. */
static void status_write(struct vtd *vtd, const struct vtd_operation *operation)
{
    uint64_t gpa = operation->high & ~3ULL & vtd_host_last(vtd);
    _Atomic uint32_t *host;

    (void)epoch_enter(vtd->iommu.epoch); /* cannot fail in model.work */
    host = memory_host(memory_snapshot(vtd->iommu.memory), gpa, 4, true);
    if (host) {
        atomic_store_explicit(host, htole32((uint32_t)(operation->low >> 32)),
                              memory_order_release);
    }
    epoch_leave(vtd->iommu.epoch);
}

static void wait_complete(struct vtd *vtd, const struct vtd_operation *operation)
{
    if (operation->aborted) {
        return;
    }
    vtd->iommu.stats.waits_completed++;
    if (operation->low & DESC_WAIT_SW) {
        status_write(vtd, operation);
    }
    if (operation->low & DESC_WAIT_IF) {
        vtd_completion_event(vtd);
    }
}

static bool operations_retire(struct vtd *vtd)
{
    struct vtd_queue *queue = &vtd->queue;
    uint64_t head = vtd->state.reg[REG_IQH] >> 4;
    bool moved = false;

    while (queue->count && operation_at(queue, 0)->phase == PHASE_DONE) {
        struct vtd_operation *operation = operation_at(queue, 0);

        if (is_wait(operation)) {
            wait_complete(vtd, operation);
        }
        watch_retired(&vtd->iommu, (uint32_t)head, operation->low, operation->high,
                      operation->aborted ? -ETIMEDOUT : 0);
        queue->first = (queue->first + 1) % VTD_OPERATIONS;
        queue->count--;
        queue->retired++;
        head = (head + 1) % queue_size(vtd);
        moved = true;
    }
    vtd->state.reg[REG_IQH] = (queue->count ? head : queue->fetch) << 4;
    return moved;
}

bool vtd_queue_step(struct vtd *vtd, unsigned *budget)
{
    bool moved = operations_advance(vtd);

    if (vtd->queue.fetch == vtd->state.reg[REG_IQT] >> 4) {
        vtd->queue.again = 0; /* the guest took the tail back */
    }
    moved |= operations_retire(vtd);
    moved |= time_out_report(vtd);
    while (*budget && vtd_queue_ready(vtd) && fetch_step(vtd)) {
        (*budget)--;
        moved = true;
    }
    return moved;
}

bool vtd_queue_draining(const struct vtd *vtd)
{
    for (uint32_t i = 0; i < vtd->queue.count; i++) {
        uint32_t at = (vtd->queue.first + i) % VTD_OPERATIONS;

        if (vtd_operation_draining(vtd, &vtd->queue.operations[at])) {
            return true;
        }
    }
    return false;
}
