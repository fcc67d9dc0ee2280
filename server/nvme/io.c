/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * I/O commands: each is decoded and checked completely, and becomes a job that waits for a worker,
 * or ends at once with what is wrong with it.
 */
#include "device.h"

#include <string.h>

/* Does the namespace have all these blocks? */
static bool in_range(const struct nvme *nvme, uint64_t lba, uint64_t blocks)
{
    return lba <= nvme->state.blocks && blocks <= nvme->state.blocks - lba;
}

static uint64_t slba(const struct nvme_sqe *sqe)
{
    return (uint64_t)sqe->dw11 << 32 | sqe->dw10;
}

static bool writes(const struct nvme_sqe *sqe)
{
    return sqe->opcode == NVME_IO_WRITE || sqe->opcode == NVME_IO_WRITE_ZEROES ||
           sqe->opcode == NVME_IO_DATASET_MANAGEMENT;
}

/* What reading, writing and writing zeroes have in common. */
static uint16_t decode_blocks(const struct nvme *nvme, const struct nvme_sqe *sqe,
                              struct nvme_job *job)
{
    uint64_t blocks = NVME_RW_BLOCKS(sqe->dw12);

    /* There is no protection information to check or to insert. */
    if (sqe->dw12 & NVME_RW_PRINFO) {
        return NVME_INVALID_FIELD | NVME_DNR;
    }
    if (!in_range(nvme, slba(sqe), blocks)) {
        return NVME_LBA_OUT_OF_RANGE | NVME_DNR;
    }
    job->offset = slba(sqe) << nvme->config.lba_shift;
    job->size = blocks << nvme->config.lba_shift;
    return NVME_OK;
}

static uint16_t decode_transfer(struct nvme *nvme, const struct nvme_sqe *sqe,
                                struct nvme_command *command)
{
    struct nvme_job *job = &command->job;
    uint16_t status;

    if (NVME_RW_BLOCKS(sqe->dw12) << nvme->config.lba_shift > NVME_TRANSFER_MAX) {
        return NVME_INVALID_FIELD | NVME_DNR;
    }
    status = decode_blocks(nvme, sqe, job);
    if (status != NVME_OK) {
        return status;
    }
    command->bytes = job->size;
    if (sqe->opcode == NVME_IO_READ) {
        job->op = NVME_STORE_READ;
        /* What is read must be stable when the guest asks for that, if it could be written. */
        job->durable = (sqe->dw12 & NVME_RW_FUA) && !nvme->config.read_only;
        nvme->state.read_commands++;
    } else {
        job->op = NVME_STORE_WRITE;
        job->durable = (sqe->dw12 & NVME_RW_FUA) || !nvme->state.features.write_cache;
        nvme->state.write_commands++;
    }
    return nvme_ranges(nvme, sqe, job->size, command->ranges, &command->range_count);
}

static uint16_t decode_write_zeroes(const struct nvme *nvme, const struct nvme_sqe *sqe,
                                    struct nvme_job *job)
{
    job->op = NVME_STORE_WRITE_ZEROES;
    job->holes = sqe->dw12 & NVME_RW_DEALLOCATE;
    job->durable = (sqe->dw12 & NVME_RW_FUA) || !nvme->state.features.write_cache;
    return decode_blocks(nvme, sqe, job);
}

/* Ranges are only looked at, and must be right, when they are to be deallocated; all else is
 * advice that needs no following. */
static uint16_t decode_dataset(struct nvme *nvme, const struct nvme_sqe *sqe,
                               struct nvme_command *command)
{
    struct nvme_dsm_range ranges[NVME_EXTENTS_MAX];
    size_t count = (sqe->dw10 & 0xff) + 1;
    unsigned shift = nvme->config.lba_shift;
    uint16_t status;

    command->job.op = NVME_STORE_DEALLOCATE;
    command->job.extents = command->extents;
    if (!(sqe->dw11 & NVME_DSM_DEALLOCATE)) {
        return NVME_OK;
    }
    status = nvme_copy_in(nvme, sqe, ranges, count * sizeof(ranges[0]));
    for (size_t i = 0; status == NVME_OK && i < count; i++) {
        if (!in_range(nvme, ranges[i].lba, ranges[i].blocks)) {
            command->request.lba = ranges[i].lba;
            return NVME_LBA_OUT_OF_RANGE | NVME_DNR;
        }
        command->extents[i] = (struct nvme_extent){
            .offset = ranges[i].lba << shift,
            .size = (uint64_t)ranges[i].blocks << shift,
        };
    }
    command->job.extent_count = count;
    command->job.durable = !nvme->state.features.write_cache;
    return status;
}

static uint16_t decode(struct nvme *nvme, const struct nvme_sqe *sqe, struct nvme_command *command)
{
    bool flush = sqe->opcode == NVME_IO_FLUSH;

    switch (sqe->opcode) {
    case NVME_IO_FLUSH:
    case NVME_IO_READ:
    case NVME_IO_WRITE:
    case NVME_IO_WRITE_ZEROES:
    case NVME_IO_DATASET_MANAGEMENT:
        break;
    default:
        return NVME_INVALID_OPCODE | NVME_DNR;
    }
    if (sqe->flags & (NVME_FLAGS_FUSED | NVME_FLAGS_PSDT)) {
        return NVME_INVALID_FIELD | NVME_DNR;
    }
    if (sqe->nsid != 1 && !(flush && sqe->nsid == NVME_NSID_ALL)) {
        return NVME_INVALID_NAMESPACE | NVME_DNR;
    }
    if (writes(sqe) && nvme->config.read_only) {
        return NVME_NAMESPACE_WRITE_PROTECTED | NVME_DNR;
    }
    switch (sqe->opcode) {
    case NVME_IO_FLUSH:
        command->job.op = NVME_STORE_FLUSH;
        return NVME_OK;
    case NVME_IO_WRITE_ZEROES:
        return decode_write_zeroes(nvme, sqe, &command->job);
    case NVME_IO_DATASET_MANAGEMENT:
        return decode_dataset(nvme, sqe, command);
    default:
        return decode_transfer(nvme, sqe, command);
    }
}

void nvme_io_command(struct nvme *nvme, const struct nvme_request *request,
                     const struct nvme_sqe *sqe)
{
    struct nvme_command *command;
    uint16_t status;

    if (nvme_command_find(nvme, request->sqid, request->cid)) {
        nvme_complete(nvme, request, NVME_COMMAND_ID_CONFLICT | NVME_DNR, 0);
        return;
    }
    command = nvme_command_take(nvme);
    command->request = *request;
    command->request.lba = sqe->opcode == NVME_IO_FLUSH ? 0 : slba(sqe);
    status = decode(nvme, sqe, command);
    if (status != NVME_OK) {
        struct nvme_request failed = command->request;

        nvme_command_free(nvme, command);
        nvme_complete(nvme, &failed, status, 0);
        return;
    }
    nvme_command_start(nvme, command);
}
