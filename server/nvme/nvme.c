/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A controller's life, and its turns; nvme.h says how they are used, device.h how it is built.
 */
#include "device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../clock.h"
#include "../log.h"

enum {
    RESET_MS = 2000,
    DESTROY_MS = 5000,
    /* Jobs given to the workers, for each of them: one runs, one is ready. */
    PLACES_PER_WORKER = 2,
};

/* Put defaults in, and look whether it makes sense. */
static int complete_config(struct nvme_config *config)
{
    config->lba_shift = config->lba_shift ? config->lba_shift : 9;
    config->queues = config->queues ? config->queues : NVME_QUEUES_DEFAULT;
    config->workers = config->workers ? config->workers : NVME_WORKERS_DEFAULT;
    config->reset_ms = config->reset_ms ? config->reset_ms : RESET_MS;
    config->destroy_ms = config->destroy_ms ? config->destroy_ms : DESTROY_MS;
    return (config->lba_shift != 9 && config->lba_shift != 12) ||
                   config->queues > NVME_QUEUES_MAX || config->workers > NVME_WORKERS_MAX
               ? -EINVAL
               : 0;
}

static int count_blocks(struct nvme *nvme)
{
    uint64_t size;
    int ret = nvme_store_size(&nvme->store, &size);

    if (ret == 0) {
        nvme->state.blocks = size >> nvme->config.lba_shift;
        ret = nvme->state.blocks == 0 ? -EINVAL : 0;
    }
    return ret;
}

static void ready(void *opaque, uint32_t events)
{
    (void)events;
    nvme_process(opaque);
}

static int start(struct nvme *nvme)
{
    int ret = count_blocks(nvme);

    if (ret == 0) {
        ret = nvme_commands_init(nvme);
    }
    if (ret == 0) {
        nvme->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        ret = nvme->event_fd < 0 ? -errno : 0;
    }
    if (ret == 0 && nvme->loop) {
        nvme->source = (struct loop_source){
            .fd = nvme->event_fd,
            .events = EPOLLIN,
            .ready = ready,
            .opaque = nvme,
        };
        ret = loop_add(nvme->loop, &nvme->source);
    }
    if (ret == 0) {
        ret = nvme_workers_start(nvme->config.no_threads ? 0 : nvme->config.workers, &nvme->store,
                                 nvme->event_fd, &nvme->workers);
    }
    return ret;
}

/* Free what does not depend on the workers. */
static void forget(struct nvme *nvme)
{
    if (nvme->event_fd >= 0) {
        if (nvme->loop) {
            loop_remove(nvme->loop, &nvme->source);
        }
        close(nvme->event_fd);
    }
    free(nvme->commands);
    free(nvme);
}

int nvme_create(const struct nvme_config *config, const char *name, const struct device_dma *dma,
                struct loop *loop, struct nvme **out)
{
    struct nvme *nvme;
    int ret;

    if (!dma->read || !dma->write || !dma->pin || !dma->unpin) {
        return -EINVAL;
    }
    nvme = calloc(1, sizeof(*nvme));
    if (!nvme) {
        return -ENOMEM;
    }
    nvme->config = *config;
    nvme->name = name;
    nvme->dma = *dma;
    nvme->loop = loop;
    nvme->event_fd = -1;
    nvme->now_ms = clock_ms;
    ret = complete_config(&nvme->config);
    if (ret == 0) {
        nvme->store.fd = config->fd;
        nvme->store.hold_path = config->hold_path;
        nvme->store.fail_path = config->fail_path;
        nvme->at_work_max = nvme->config.workers * PLACES_PER_WORKER;
        ret = start(nvme);
    }
    if (ret < 0) {
        forget(nvme);
        return ret;
    }
    nvme_function_init(nvme);
    *out = nvme;
    return 0;
}

int nvme_destroy(struct nvme *nvme)
{
    unsigned begun;
    int ret;

    nvme_drop_commands(nvme);
    begun = nvme->at_work;
    ret = nvme_workers_stop(nvme->workers, nvme->config.destroy_ms);
    if (ret < 0) {
        server_log("%s: %u requests to its file do not end; what they use is left as it is",
                   nvme->name, begun);
        if (nvme->loop) {
            loop_remove(nvme->loop, &nvme->source);
        }
        return ret;
    }
    nvme_unpin_all(nvme);
    close(nvme->store.fd);
    forget(nvme);
    return 0;
}

struct pci_function *nvme_function(struct nvme *nvme)
{
    return &nvme->function;
}

int nvme_file(const struct nvme *nvme)
{
    return nvme->store.fd;
}

int nvme_event_fd(const struct nvme *nvme)
{
    return nvme->event_fd;
}

void nvme_kick(struct nvme *nvme)
{
    uint64_t one = 1;

    if (!nvme->kicked) {
        nvme->kicked = true;
        (void)!write(nvme->event_fd, &one, sizeof(one));
    }
}

static void look_whether_quiet(struct nvme *nvme)
{
    void (*quiet)(void *opaque) = nvme->quiet;

    if (quiet && nvme_quiet(nvme)) {
        nvme->quiet = NULL;
        quiet(nvme->quiet_opaque);
    }
}

void nvme_process(struct nvme *nvme)
{
    uint64_t ignored;

    /* Before the list of jobs that are done is taken: what is added later is seen next time. */
    nvme->kicked = false;
    (void)!read(nvme->event_fd, &ignored, sizeof(ignored));
    nvme_collect(nvme);
    nvme_fetch(nvme);
    nvme_dispatch(nvme);
    nvme_events_deliver(nvme);
    nvme_raise_interrupts(nvme);
    look_whether_quiet(nvme);
}

void nvme_quiesce(struct nvme *nvme, void (*quiet)(void *opaque), void *opaque)
{
    nvme->quiesced = true;
    nvme->quiet = quiet;
    nvme->quiet_opaque = opaque;
    look_whether_quiet(nvme);
}

bool nvme_quiet(const struct nvme *nvme)
{
    return nvme->quiesced && !nvme->waiting && nvme->at_work == 0;
}

void nvme_resume(struct nvme *nvme)
{
    nvme->quiesced = false;
    nvme->quiet = NULL;
    nvme_rescan(nvme);
    nvme_process(nvme);
}

void nvme_rescan(struct nvme *nvme)
{
    uint64_t size, blocks;

    if (nvme_store_size(&nvme->store, &size) < 0) {
        return;
    }
    blocks = size >> nvme->config.lba_shift;
    if (blocks == nvme->state.blocks) {
        return;
    }
    nvme->state.blocks = blocks;
    nvme->state.namespace_changed = true;
    if (nvme->state.features.async_events & NVME_ASYNC_NAMESPACES) {
        nvme_event(nvme, NVME_EVENT_NOTICE, NVME_EVENT_NAMESPACE_CHANGED);
        nvme_kick(nvme);
    }
}

void nvme_stats_get(const struct nvme *nvme, struct nvme_stats *stats)
{
    *stats = nvme->stats;
}

void nvme_summary(const struct nvme *nvme, void (*print)(const char *what, uint64_t n))
{
    const struct nvme_stats *stats = &nvme->stats;

    print("disk commands", stats->io_commands);
    print("disk admin commands", stats->admin_commands);
    print("disk commands with errors", stats->errors);
    print("disk bytes read without a copy", stats->bytes_read);
    print("disk bytes written without a copy", stats->bytes_written);
    print("disk bytes copied", stats->bytes_copied);
    print("disk windows pinned", stats->pins);
    print("disk windows refused", stats->pins_refused);
    print("disk windows wanted back", stats->revoked);
    print("disk windows given back at once", stats->put_back);
    print("disk queue and list accesses refused", stats->dma_errors);
    print("disk interrupts", stats->interrupts);
    print("disk events told", stats->events);
    print("disk resets", stats->resets);
    print("disk requests dropped by a reset", stats->dropped);
    print("disk controller failures", stats->fatal);
    print("disk doorbells refused", stats->doorbells_refused);
}

bool nvme_run_job(struct nvme *nvme)
{
    return nvme_workers_run_one(nvme->workers);
}
