/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Commands on their way: they wait, are pinned and given to the workers, and end.
 *
 * Memory is pinned as late as possible: only when a worker will soon need it. So what others want
 * back is either used by a worker right now, or given back at once; the command then waits in front
 * of all others, and its memory is pinned again, or refused.
 */
#include "device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int nvme_commands_init(struct nvme *nvme)
{
    nvme->commands = calloc(NVME_COMMANDS, sizeof(*nvme->commands));
    if (!nvme->commands) {
        return -ENOMEM;
    }
    nvme->waiting_end = &nvme->waiting;
    for (unsigned i = NVME_COMMANDS; i-- > 0;) {
        nvme->commands[i].nvme = nvme;
        nvme->commands[i].next = nvme->free;
        nvme->free = &nvme->commands[i];
    }
    return 0;
}

struct nvme_command *nvme_command_take(struct nvme *nvme)
{
    struct nvme_command *command = nvme->free;

    if (command) {
        nvme->free = command->next;
        command->epoch = nvme->epoch;
        command->shutdown = false;
        command->wanted_back = false;
        command->bytes = 0;
        command->range_count = 0;
        command->pin = NULL;
        memset(&command->job, 0, sizeof(command->job));
    }
    return command;
}

void nvme_command_free(struct nvme *nvme, struct nvme_command *command)
{
    command->state = NVME_COMMAND_FREE;
    command->next = nvme->free;
    nvme->free = command;
}

/* Last among those that wait. */
static void wait_last(struct nvme *nvme, struct nvme_command *command)
{
    command->state = NVME_COMMAND_WAITING;
    command->next = NULL;
    *nvme->waiting_end = command;
    nvme->waiting_end = &command->next;
}

static void wait_first(struct nvme *nvme, struct nvme_command *command)
{
    command->state = NVME_COMMAND_WAITING;
    command->next = nvme->waiting;
    if (!nvme->waiting) {
        nvme->waiting_end = &command->next;
    }
    nvme->waiting = command;
}

static void wait_no_more(struct nvme *nvme, struct nvme_command *command)
{
    struct nvme_command **at = &nvme->waiting;

    while (*at != command) {
        at = &(*at)->next;
    }
    *at = command->next;
    if (!*at) {
        nvme->waiting_end = at;
    }
}

void nvme_command_start(struct nvme *nvme, struct nvme_command *command)
{
    if (!command->shutdown) {
        nvme->sq_work[command->request.sqid].commands++;
    }
    wait_last(nvme, command);
}

static void unpin(struct nvme *nvme, struct nvme_command *command)
{
    if (command->pin) {
        nvme->dma.unpin(nvme->dma.opaque, command->pin);
        command->pin = NULL;
    }
}

/* Data that was read from the disk is in the guest's memory when this returns NVME_OK. */
static uint16_t commit(struct nvme *nvme, const struct nvme_command *command)
{
    int ret = 0;

    if (command->pin && command->job.op == NVME_STORE_READ && nvme->dma.commit) {
        ret = nvme->dma.commit(nvme->dma.opaque, command->pin);
    }
    nvme->stats.dma_errors += ret < 0;
    return ret < 0 ? NVME_DATA_TRANSFER_ERROR : NVME_OK;
}

/* What a failed job means to the guest. */
static uint16_t job_status(const struct nvme_job *job)
{
    switch (job->result) {
    case 0:
        return NVME_OK;
    case -ENOSPC:
    case -EDQUOT:
    case -EFBIG:
        return NVME_CAPACITY_EXCEEDED;
    case -EFAULT:
        return NVME_DATA_TRANSFER_ERROR; /* the memory behind the pins is gone */
    case -EIO:
    case -ENODATA:
        return job->op == NVME_STORE_READ ? NVME_UNRECOVERED_READ_ERROR : NVME_WRITE_FAULT;
    default:
        return NVME_INTERNAL_ERROR;
    }
}

static void count_transfer(struct nvme *nvme, const struct nvme_command *command)
{
    if (command->job.op == NVME_STORE_READ) {
        nvme->stats.bytes_read += command->bytes;
        nvme->state.bytes_read += command->bytes;
    } else if (command->job.op == NVME_STORE_WRITE) {
        nvme->stats.bytes_written += command->bytes;
        nvme->state.bytes_written += command->bytes;
    }
}

/* Tell the guest, and forget the command. It neither waits nor is it at work. */
static void end(struct nvme *nvme, struct nvme_command *command, uint16_t status)
{
    struct nvme_request request = command->request;
    bool shutdown = command->shutdown;

    nvme_command_free(nvme, command);
    if (shutdown) {
        nvme_shutdown_done(nvme);
    } else {
        nvme_complete(nvme, &request, status, 0);
        nvme->sq_work[request.sqid].commands--;
        nvme_sq_command_ended(nvme, request.sqid);
    }
}

/* A job came back from its worker. */
static void ended(struct nvme *nvme, struct nvme_command *command)
{
    uint16_t status = job_status(&command->job);

    if (status == NVME_OK && command->epoch == nvme->epoch) {
        status = commit(nvme, command);
    }
    unpin(nvme, command);
    nvme->at_work--;
    if (command->epoch != nvme->epoch) {
        nvme->stale--;
        nvme->stats.dropped++;
        nvme_command_free(nvme, command);
    } else {
        if (status == NVME_OK) {
            count_transfer(nvme, command);
        }
        end(nvme, command, status);
    }
}

void nvme_collect(struct nvme *nvme)
{
    struct nvme_job *job = nvme_workers_collect(nvme->workers);
    bool any = job != NULL, short_read = false;

    while (job) {
        struct nvme_job *next = job->next;

        short_read |= job->result == -ENODATA;
        ended(nvme, (struct nvme_command *)((char *)job - offsetof(struct nvme_command, job)));
        job = next;
    }
    if (short_read) {
        nvme_rescan(nvme);
    }
    if (any) {
        nvme_reset_progress(nvme);
    }
}

/* Take a command back from the workers, if none has begun it. It is unpinned, and nowhere. */
static bool take_back(struct nvme *nvme, struct nvme_command *command)
{
    if (!nvme_workers_cancel(nvme->workers, &command->job)) {
        return false;
    }
    unpin(nvme, command);
    nvme->at_work--;
    return true;
}

void nvme_take_back_all(struct nvme *nvme)
{
    for (unsigned i = 0; i < NVME_COMMANDS; i++) {
        struct nvme_command *command = &nvme->commands[i];

        if (command->state == NVME_COMMAND_AT_WORK && take_back(nvme, command)) {
            wait_first(nvme, command);
        }
    }
}

/* The memory of a command at work is wanted back. */
static void revoke(void *opaque)
{
    struct nvme_command *command = opaque;
    struct nvme *nvme = command->nvme;

    nvme->stats.revoked += !command->wanted_back;
    command->wanted_back = true;
    if (command->state == NVME_COMMAND_AT_WORK && take_back(nvme, command)) {
        nvme->stats.put_back++;
        wait_first(nvme, command);
        nvme_kick(nvme);
    }
}

static int pin(struct nvme *nvme, struct nvme_command *command)
{
    const struct device_dma_request request = {
        .ranges = command->ranges,
        .count = command->range_count,
        .to_memory = command->job.op == NVME_STORE_READ,
        .revoke = revoke,
        .opaque = command,
    };
    size_t count = NVME_IOV_MAX;
    int ret;

    if (!pci_config_bus_master(&nvme->function.config)) {
        return -EACCES;
    }
    command->wanted_back = false;
    ret = nvme->dma.pin(nvme->dma.opaque, &request, command->iov, &count, &command->pin);
    if (ret == 0) {
        command->job.iov = command->iov;
        command->job.iov_count = count;
        nvme->stats.pins++;
    } else {
        command->pin = NULL;
        nvme->stats.pins_refused++;
    }
    return ret;
}

void nvme_dispatch(struct nvme *nvme)
{
    while (nvme->waiting && nvme->at_work < nvme->at_work_max) {
        struct nvme_command *command = nvme->waiting;
        bool transfers = command->job.op == NVME_STORE_READ || command->job.op == NVME_STORE_WRITE;

        wait_no_more(nvme, command);
        if (transfers && pin(nvme, command) < 0) {
            end(nvme, command, NVME_DATA_TRANSFER_ERROR);
            continue;
        }
        command->state = NVME_COMMAND_AT_WORK;
        nvme->at_work++;
        nvme_workers_submit(nvme->workers, &command->job);
    }
}

struct nvme_command *nvme_command_find(struct nvme *nvme, uint16_t sqid, uint16_t cid)
{
    if (nvme->sq_work[sqid].commands == 0) {
        return NULL;
    }
    for (unsigned i = 0; i < NVME_COMMANDS; i++) {
        struct nvme_command *command = &nvme->commands[i];

        if (command->state != NVME_COMMAND_FREE && command->epoch == nvme->epoch &&
            !command->shutdown && command->request.sqid == sqid && command->request.cid == cid) {
            return command;
        }
    }
    return NULL;
}

/* Make a command that no worker has begun be nowhere. Returns whether that could be done. */
static bool stop(struct nvme *nvme, struct nvme_command *command)
{
    if (command->state == NVME_COMMAND_WAITING) {
        wait_no_more(nvme, command);
        return true;
    }
    return command->state == NVME_COMMAND_AT_WORK && take_back(nvme, command);
}

bool nvme_command_abort(struct nvme *nvme, struct nvme_command *command, uint16_t status)
{
    if (!stop(nvme, command)) {
        return false;
    }
    end(nvme, command, status);
    return true;
}

void nvme_abort_queue(struct nvme *nvme, uint16_t sqid)
{
    for (unsigned i = 0; i < NVME_COMMANDS; i++) {
        struct nvme_command *command = &nvme->commands[i];

        if (command->state != NVME_COMMAND_FREE && command->epoch == nvme->epoch &&
            !command->shutdown && command->request.sqid == sqid) {
            nvme_command_abort(nvme, command, NVME_ABORTED_SQ_DELETION);
        }
    }
}

/* A new epoch: nothing of the old one is told any more. */
void nvme_drop_commands(struct nvme *nvme)
{
    nvme->stale = 0;
    for (unsigned i = 0; i < NVME_COMMANDS; i++) {
        struct nvme_command *command = &nvme->commands[i];

        if (stop(nvme, command)) {
            nvme_command_free(nvme, command);
        }
        nvme->stale += command->state == NVME_COMMAND_AT_WORK;
    }
    nvme->epoch++;
    memset(nvme->sq_work, 0, sizeof(nvme->sq_work));
    memset(nvme->cq_work, 0, sizeof(nvme->cq_work));
}

void nvme_unpin_all(struct nvme *nvme)
{
    for (unsigned i = 0; i < NVME_COMMANDS; i++) {
        unpin(nvme, &nvme->commands[i]);
    }
}
