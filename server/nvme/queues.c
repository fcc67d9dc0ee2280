/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Submission queues are fetched from, completions are posted, interrupts raised.
 *
 * Entries are read in small batches, each entry once. All queues have their turn, and one call
 * fetches a limited number: a guest that fills its queues as fast as they are emptied leaves the
 * server time for others.
 */
#include "device.h"

#include <stdatomic.h>
#include <string.h>

enum {
    FETCH_BATCH = 8,   /* entries read at once */
    FETCH_BUDGET = 64, /* commands in one call */
};

static uint32_t cq_used(const struct nvme_cq *cq)
{
    return cq->tail >= cq->head ? cq->tail - cq->head : cq->entries - cq->head + cq->tail;
}

/* Entries that are neither waiting for the guest nor reserved. A full queue has one free. */
static uint32_t cq_room(const struct nvme *nvme, unsigned cqid)
{
    const struct nvme_cq *cq = &nvme->state.cq[cqid];
    uint32_t taken = cq_used(cq) + nvme->cq_work[cqid].reserved;

    return taken < cq->entries - 1 ? cq->entries - 1 - taken : 0;
}

bool nvme_cq_has_room(const struct nvme *nvme, unsigned cqid)
{
    return cq_room(nvme, cqid) > 0;
}

void nvme_cq_unreserve(struct nvme *nvme, unsigned sqid)
{
    nvme->cq_work[nvme->state.sq[sqid].cqid].reserved--;
}

/* The half with the phase bit is written last, and in one piece: a guest that sees the new phase
 * sees the rest. */
static int write_entry(struct nvme *nvme, uint64_t iova, const struct nvme_cqe *cqe)
{
    const size_t half = sizeof(*cqe) / 2;
    int ret = nvme_write_memory(nvme, iova, cqe, half);

    if (ret == 0) {
        atomic_thread_fence(memory_order_release);
        ret = nvme_write_memory(nvme, iova + half, (const char *)cqe + half, half);
    }
    return ret;
}

void nvme_post(struct nvme *nvme, unsigned sqid, uint16_t cid, uint16_t status, uint32_t result)
{
    const struct nvme_sq *sq = &nvme->state.sq[sqid];
    struct nvme_cq *cq = &nvme->state.cq[sq->cqid];
    const struct nvme_cqe cqe = {
        .result = result,
        .sq_head = (uint16_t)sq->head,
        .sqid = (uint16_t)sqid,
        .cid = cid,
        .status = (uint16_t)(status << 1 | cq->phase),
    };
    int ret;

    if (nvme->state.csts & NVME_CSTS_CFS) {
        return;
    }
    ret = write_entry(nvme, cq->base + cq->tail * sizeof(cqe), &cqe);
    if (ret < 0) {
        nvme_fatal(nvme, "a completion queue cannot be written", ret);
        return;
    }
    if (++cq->tail == cq->entries) {
        cq->tail = 0;
        cq->phase = !cq->phase;
    }
    nvme->cq_work[sq->cqid].signal = true;
}

void nvme_complete(struct nvme *nvme, const struct nvme_request *request, uint16_t status,
                   uint32_t result)
{
    nvme_cq_unreserve(nvme, request->sqid);
    if (status != NVME_OK) {
        nvme->stats.errors++;
        nvme_log_error(nvme, request, status);
        status |= NVME_STATUS_MORE;
    }
    nvme_post(nvme, request->sqid, request->cid, status, result);
}

/* The INTx line: entries wait in a queue with interrupts, vector 0 is not masked, no MSI-X. */
void nvme_update_line(struct nvme *nvme)
{
    bool wanted = false;

    if (!pci_config_msix_enabled(&nvme->function.config) && !(nvme->state.interrupt_mask & 1)) {
        for (unsigned i = 0; i <= nvme->config.queues && !wanted; i++) {
            const struct nvme_cq *cq = &nvme->state.cq[i];

            wanted = cq->exists && cq->interrupts && cq->head != cq->tail;
        }
    }
    pci_function_line_interrupt(&nvme->function, wanted);
}

void nvme_raise_interrupts(struct nvme *nvme)
{
    uint64_t vectors = 0;

    for (unsigned i = 0; i <= nvme->config.queues; i++) {
        const struct nvme_cq *cq = &nvme->state.cq[i];

        if (nvme->cq_work[i].signal && cq->exists && cq->interrupts) {
            vectors |= UINT64_C(1) << cq->vector;
        }
        nvme->cq_work[i].signal = false;
    }
    if (pci_config_msix_enabled(&nvme->function.config)) {
        while (vectors) {
            unsigned vector = (unsigned)__builtin_ctzll(vectors);

            vectors &= vectors - 1;
            nvme->stats.interrupts++;
            pci_function_message_interrupt(&nvme->function, vector);
        }
    }
    nvme_update_line(nvme);
}

static void execute(struct nvme *nvme, unsigned sqid, const struct nvme_sqe *sqe)
{
    const struct nvme_request request = {
        .sqid = (uint16_t)sqid,
        .cid = sqe->cid,
        .nsid = sqe->nsid,
    };

    nvme->cq_work[nvme->state.sq[sqid].cqid].reserved++;
    if (sqid == 0) {
        nvme->stats.admin_commands++;
        nvme_admin_command(nvme, &request, sqe);
    } else {
        nvme->stats.io_commands++;
        nvme_io_command(nvme, &request, sqe);
    }
}

/* Is there a command for another entry of a queue for I/O? One is left for a shutdown. */
static bool command_free(const struct nvme *nvme)
{
    return nvme->free && nvme->free->next;
}

/* How many entries can be fetched from a queue now, and read at once. */
static unsigned fetchable(const struct nvme *nvme, unsigned sqid)
{
    const struct nvme_sq *sq = &nvme->state.sq[sqid];
    uint32_t n, room;

    if (!sq->exists || sq->head == sq->tail || nvme->sq_work[sqid].deleting ||
        (sqid != 0 && !command_free(nvme))) {
        return 0;
    }
    n = (sq->tail > sq->head ? sq->tail : sq->entries) - sq->head;
    room = cq_room(nvme, sq->cqid);
    n = n < room ? n : room;
    return n < FETCH_BATCH ? n : FETCH_BATCH;
}

/* Fetch some entries of a queue and carry them out. Returns how many. */
static unsigned fetch_some(struct nvme *nvme, unsigned sqid)
{
    struct nvme_sq *sq = &nvme->state.sq[sqid];
    struct nvme_sqe batch[FETCH_BATCH];
    unsigned n = fetchable(nvme, sqid), done = 0;
    int ret;

    if (n == 0) {
        return 0;
    }
    ret = nvme_read_memory(nvme, sq->base + sq->head * sizeof(batch[0]), batch,
                           n * sizeof(batch[0]));
    if (ret < 0) {
        nvme_fatal(nvme, "a submission queue cannot be read", ret);
        return 0;
    }
    /* What is carried out may stop the controller, or use up what the rest needs. */
    while (done < n && nvme_running(nvme) && fetchable(nvme, sqid) > 0) {
        sq->head = sq->head + 1 == sq->entries ? 0 : sq->head + 1;
        execute(nvme, sqid, &batch[done]);
        done++;
    }
    return done;
}

void nvme_fetch(struct nvme *nvme)
{
    unsigned queues = nvme->config.queues + 1;
    unsigned fetched = 0, idle = 0;

    while (idle < queues && nvme_running(nvme)) {
        unsigned n = fetch_some(nvme, nvme->next_sq);

        nvme->next_sq = (nvme->next_sq + 1) % queues;
        idle = n > 0 ? 0 : idle + 1;
        fetched += n;
        if (fetched >= FETCH_BUDGET) {
            nvme_kick(nvme);
            break;
        }
    }
}

/* May the guest say that it has consumed up to here? */
static bool cq_head_possible(const struct nvme_cq *cq, uint32_t head)
{
    uint32_t ahead;

    if (head >= cq->entries) {
        return false;
    }
    ahead = head >= cq->head ? head - cq->head : cq->entries - cq->head + head;
    return ahead <= cq_used(cq);
}

static void refuse_doorbell(struct nvme *nvme, enum nvme_event_info info)
{
    nvme->stats.doorbells_refused++;
    nvme_event(nvme, NVME_EVENT_ERROR, info);
}

static void sq_doorbell(struct nvme *nvme, struct nvme_sq *sq, uint32_t tail)
{
    if (!sq->exists) {
        refuse_doorbell(nvme, NVME_EVENT_INVALID_DOORBELL);
    } else if (tail >= sq->entries) {
        refuse_doorbell(nvme, NVME_EVENT_INVALID_DOORBELL_VALUE);
    } else {
        sq->tail = tail;
    }
}

static void cq_doorbell(struct nvme *nvme, struct nvme_cq *cq, uint32_t head)
{
    if (!cq->exists) {
        refuse_doorbell(nvme, NVME_EVENT_INVALID_DOORBELL);
    } else if (!cq_head_possible(cq, head)) {
        refuse_doorbell(nvme, NVME_EVENT_INVALID_DOORBELL_VALUE);
    } else {
        cq->head = head;
    }
}

/* offset is that from the first doorbell, a multiple of 4. */
void nvme_doorbell(struct nvme *nvme, uint64_t offset, uint32_t value)
{
    uint64_t pair = offset / 8;

    if (!nvme_enabled(nvme)) {
        return;
    }
    /* The upper half of a doorbell is reserved. */
    value &= 0xffff;
    if (pair > nvme->config.queues) {
        refuse_doorbell(nvme, NVME_EVENT_INVALID_DOORBELL);
    } else if (offset % 8 == 0) {
        sq_doorbell(nvme, &nvme->state.sq[pair], value);
    } else {
        cq_doorbell(nvme, &nvme->state.cq[pair], value);
    }
    nvme_process(nvme);
}
