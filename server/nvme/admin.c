/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Admin commands: queues made and deleted, abort, and where the others are done.
 *
 * All are done at once but two: a request for an asynchronous event stays until there is one, and
 * a submission queue is deleted when its commands have ended: those that no worker has begun are
 * aborted, the others are waited for.
 */
#include "device.h"

#include <string.h>

static uint16_t refuse(enum nvme_status status)
{
    return (uint16_t)status | NVME_DNR;
}

/* What is wrong with the size and place of a queue that is to be made. */
static uint16_t check_queue(const struct nvme *nvme, const struct nvme_sqe *sqe, bool exists,
                            unsigned entry_size_log2, unsigned wanted_log2)
{
    uint32_t id = sqe->dw10 & 0xffff, last = sqe->dw10 >> 16;

    if (id == 0 || id > nvme->config.queues || exists) {
        return refuse(NVME_INVALID_QUEUE_ID);
    }
    if (last == 0 || last >= NVME_QUEUE_ENTRIES_MAX || entry_size_log2 != wanted_log2) {
        return refuse(NVME_INVALID_QUEUE_SIZE);
    }
    if (!(sqe->dw11 & 1)) {
        return refuse(NVME_INVALID_FIELD); /* only queues that are contiguous */
    }
    if (sqe->prp1 & ((UINT64_C(1) << nvme_page_shift(nvme)) - 1)) {
        return refuse(NVME_PRP_OFFSET_INVALID);
    }
    return NVME_OK;
}

static bool id_in_range(const struct nvme *nvme, uint32_t id)
{
    return id != 0 && id <= nvme->config.queues;
}

static uint16_t create_cq(struct nvme *nvme, const struct nvme_sqe *sqe)
{
    uint32_t id = sqe->dw10 & 0xffff, vector = sqe->dw11 >> 16;
    bool exists = id_in_range(nvme, id) && nvme->state.cq[id].exists;
    uint16_t status = check_queue(nvme, sqe, exists, NVME_CC_IOCQES(nvme->state.cc), 4);

    if (status != NVME_OK) {
        return status;
    }
    if (vector >= pci_config_msix_vectors(&nvme->function.config) ||
        (vector != 0 && !pci_config_msix_enabled(&nvme->function.config))) {
        return refuse(NVME_INVALID_INTERRUPT_VECTOR);
    }
    nvme->state.cq[id] = (struct nvme_cq){
        .base = sqe->prp1,
        .entries = (sqe->dw10 >> 16) + 1,
        .vector = (uint16_t)vector,
        .interrupts = sqe->dw11 & 2,
        .phase = true,
        .exists = true,
    };
    nvme->cq_work[id] = (struct nvme_cq_work){0};
    return NVME_OK;
}

static uint16_t create_sq(struct nvme *nvme, const struct nvme_sqe *sqe)
{
    uint32_t id = sqe->dw10 & 0xffff, cqid = sqe->dw11 >> 16;
    bool exists = id_in_range(nvme, id) && nvme->state.sq[id].exists;
    uint16_t status = check_queue(nvme, sqe, exists, NVME_CC_IOSQES(nvme->state.cc), 6);

    if (!id_in_range(nvme, cqid)) {
        return refuse(NVME_INVALID_QUEUE_ID);
    }
    if (!nvme->state.cq[cqid].exists) {
        return refuse(NVME_COMPLETION_QUEUE_INVALID);
    }
    if (status != NVME_OK) {
        return status;
    }
    nvme->state.sq[id] = (struct nvme_sq){
        .base = sqe->prp1,
        .entries = (sqe->dw10 >> 16) + 1,
        .cqid = (uint16_t)cqid,
        .exists = true,
    };
    nvme->sq_work[id] = (struct nvme_sq_work){0};
    return NVME_OK;
}

static uint16_t delete_cq(struct nvme *nvme, const struct nvme_sqe *sqe)
{
    uint32_t id = sqe->dw10 & 0xffff;

    if (!id_in_range(nvme, id) || !nvme->state.cq[id].exists) {
        return refuse(NVME_INVALID_QUEUE_ID);
    }
    for (unsigned i = 1; i <= nvme->config.queues; i++) {
        if (nvme->state.sq[i].exists && nvme->state.sq[i].cqid == id) {
            return refuse(NVME_INVALID_QUEUE_DELETION);
        }
    }
    nvme->state.cq[id] = (struct nvme_cq){0};
    nvme->cq_work[id] = (struct nvme_cq_work){0};
    return NVME_OK;
}

/* A command of the queue has ended; if the queue is to be deleted, that may have been the last. */
void nvme_sq_command_ended(struct nvme *nvme, unsigned sqid)
{
    struct nvme_sq_work *work = &nvme->sq_work[sqid];
    const struct nvme_request request = {.sqid = 0, .cid = work->delete_cid};

    if (work->deleting && work->commands == 0) {
        nvme->state.sq[sqid] = (struct nvme_sq){0};
        *work = (struct nvme_sq_work){0};
        nvme_complete(nvme, &request, NVME_OK, 0);
    }
}

static void delete_sq(struct nvme *nvme, const struct nvme_request *request,
                      const struct nvme_sqe *sqe)
{
    uint32_t id = sqe->dw10 & 0xffff;

    if (!id_in_range(nvme, id) || !nvme->state.sq[id].exists || nvme->sq_work[id].deleting) {
        nvme_complete(nvme, request, refuse(NVME_INVALID_QUEUE_ID), 0);
        return;
    }
    /* Aborting ends commands, and the last to end must not delete the queue below our hands. */
    nvme_abort_queue(nvme, (uint16_t)id);
    nvme->sq_work[id].deleting = true;
    nvme->sq_work[id].delete_cid = request->cid;
    nvme_sq_command_ended(nvme, id);
}

/* Bit 0 of the result: the command was not aborted. */
static uint32_t abort_command(struct nvme *nvme, const struct nvme_sqe *sqe)
{
    uint16_t sqid = (uint16_t)sqe->dw10, cid = (uint16_t)(sqe->dw10 >> 16);
    struct nvme_command *command;

    if (sqid == 0) {
        return !nvme_async_abort(nvme, cid);
    }
    if (sqid > nvme->config.queues) {
        return 1;
    }
    command = nvme_command_find(nvme, sqid, cid);
    return !(command && nvme_command_abort(nvme, command, NVME_ABORT_REQUESTED));
}

static uint16_t carry_out(struct nvme *nvme, const struct nvme_sqe *sqe, uint32_t *result)
{
    switch (sqe->opcode) {
    case NVME_ADMIN_CREATE_SQ:
        return create_sq(nvme, sqe);
    case NVME_ADMIN_CREATE_CQ:
        return create_cq(nvme, sqe);
    case NVME_ADMIN_DELETE_CQ:
        return delete_cq(nvme, sqe);
    case NVME_ADMIN_GET_LOG_PAGE:
        return nvme_get_log_page(nvme, sqe);
    case NVME_ADMIN_IDENTIFY:
        return nvme_identify(nvme, sqe);
    case NVME_ADMIN_ABORT:
        *result = abort_command(nvme, sqe);
        return NVME_OK;
    case NVME_ADMIN_SET_FEATURES:
        return nvme_set_features(nvme, sqe, result);
    case NVME_ADMIN_GET_FEATURES:
        return nvme_get_features(nvme, sqe, result);
    default:
        return refuse(NVME_INVALID_OPCODE);
    }
}

void nvme_admin_command(struct nvme *nvme, const struct nvme_request *request,
                        const struct nvme_sqe *sqe)
{
    uint32_t result = 0;
    uint16_t status;

    if (sqe->flags & (NVME_FLAGS_FUSED | NVME_FLAGS_PSDT)) {
        nvme_complete(nvme, request, refuse(NVME_INVALID_FIELD), 0);
    } else if (sqe->opcode == NVME_ADMIN_ASYNC_EVENT) {
        nvme_async_request(nvme, request);
    } else if (sqe->opcode == NVME_ADMIN_DELETE_SQ) {
        delete_sq(nvme, request, sqe);
    } else {
        status = carry_out(nvme, sqe, &result);
        nvme_complete(nvme, request, status, result);
    }
}
