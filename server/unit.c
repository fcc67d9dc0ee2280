/* SPDX-License-Identifier: BSD-2-Clause */
/* See unit.h. */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "client_memory.h"
#include "log.h"
#include "pci_function.h"

enum {
    PROCESS_BUDGET = 4096,
    /* Events that are printed: a guest can cause them at will. */
    LINES_MAX = 100,
    /* Regions that leave, beyond which no more are taken in. */
    LEAVING_MAX = 4096,
};

/* Apply a batch of one change. The batch is ended whatever happens. */
static int commit(struct viommu_memory_batch *batch, int ret, viommu_memory_done *done,
                  void *opaque)
{
    if (ret < 0) {
        viommu_memory_batch_abort(batch);
        return ret;
    }
    return viommu_memory_batch_commit(batch, done, opaque);
}

static int dma_map(void *opaque, const struct pci_dma_region *region, int fd, void **cookie)
{
    struct unit *unit = opaque;
    struct viommu_memory_slot slot = {.first = region->first, .last = region->last};
    struct viommu_memory_batch *batch;
    struct client_mapping *mapping;
    int ret;

    *cookie = NULL;
    /* What cannot be mapped (ROM of the client's own) is not memory that devices may reach. */
    if (fd < 0 || !region->readable) {
        return 0;
    }
    /* The region that is the whole address space has no size that a mapping could have. */
    if (region->last - region->first == UINT64_MAX) {
        return -EINVAL;
    }
    /* While something cannot leave, all that comes later cannot, either. */
    if (unit->leaving_count >= LEAVING_MAX) {
        return -EBUSY;
    }
    ret = client_mapping_create(fd, region->file_offset, region->last - region->first + 1,
                                region->writable, &mapping);
    if (ret < 0) {
        return ret;
    }
    slot.host = client_mapping_address(mapping);
    slot.fd = client_mapping_fd(mapping);
    slot.fd_offset = region->file_offset;
    slot.flags = region->writable ? 0 : VIOMMU_MEMORY_READONLY;
    ret = viommu_memory_batch_begin(unit->memory, &batch);
    if (ret == 0) {
        ret = commit(batch, viommu_memory_batch_add(batch, &slot), NULL, NULL);
    }
    if (ret < 0) {
        client_mapping_destroy(mapping);
        return ret;
    }
    *cookie = mapping;
    return 0;
}

/* A region that was unmapped, until nothing uses it any more. */
struct leaving_region {
    struct leaving_region *next;
    struct leaving_region **link; /* what leads to it */
    struct unit *unit;
    struct client_mapping *mapping;
};

static void enlist(struct leaving_region *region)
{
    struct unit *unit = region->unit;

    region->next = unit->leaving;
    region->link = &unit->leaving;
    if (region->next) {
        region->next->link = &region->next;
    }
    unit->leaving = region;
    unit->leaving_count++;
}

static void delist(struct leaving_region *region)
{
    *region->link = region->next;
    if (region->next) {
        region->next->link = region->link;
    }
    region->unit->leaving_count--;
}

static void unmapped(void *opaque)
{
    struct leaving_region *region = opaque;

    delist(region);
    client_mapping_destroy(region->mapping);
    free(region);
}

static void dma_unmap(void *opaque, uint64_t first, uint64_t last, void *cookie)
{
    struct unit *unit = opaque;
    struct viommu_memory_batch *batch;
    struct leaving_region *region;
    int ret = -ENOMEM;

    if (!cookie) {
        return;
    }
    region = malloc(sizeof(*region));
    if (region) {
        *region = (struct leaving_region){.unit = unit, .mapping = cookie};
        enlist(region);
        ret = viommu_memory_batch_begin(unit->memory, &batch);
    }
    if (ret == 0) {
        ret = commit(batch, viommu_memory_batch_remove(batch, first, last), unmapped, region);
    }
    if (ret == 0) {
        unmapped(region);
    } else if (ret < 0) {
        /* Memory is used up. The mapping has to stay, for the unit still knows it. */
        server_log("%s: cannot remove guest memory: %s", unit->function->name, strerror(-ret));
        if (region) {
            delist(region);
            free(region);
        }
    }
}

static bool unmapping(void *opaque)
{
    return ((const struct unit *)opaque)->leaving != NULL;
}

const struct pci_memory_ops unit_memory_ops = {
    .map = dma_map,
    .unmap = dma_unmap,
    .unmapping = unmapping,
};

static void interrupt(void *opaque, const struct viommu_interrupt *message)
{
    struct unit *unit = opaque;
    const struct pci_function *function = unit->function;

    if (function->bus &&
        function->bus->write_message(function->bus_opaque, message->address, message->data) == 0) {
        unit->messages_sent++;
    } else {
        unit->messages_lost++;
    }
}

static void event(void *opaque, const struct viommu_event *event)
{
    struct unit *unit = opaque;

    if (unit->events++ >= LINES_MAX) {
        return;
    }
    server_log("%s: %s (requester %02x:%02x.%x, addresses 0x%llx to 0x%llx, error %d)",
               unit->function->name, event->text ? event->text : "event", event->requester >> 8,
               event->requester >> 3 & 0x1f, event->requester & 7, (unsigned long long)event->first,
               (unsigned long long)event->last, event->error);
}

/* Under the instance's lock: no more than this. */
static void wake(void *opaque)
{
    struct unit *unit = opaque;
    uint64_t one = 1;

    atomic_store(&unit->due, true);
    if (!pthread_equal(pthread_self(), unit->thread)) {
        (void)!write(unit->work_fd, &one, sizeof(one));
    }
}

int unit_init(struct unit *unit, const struct pci_function *function,
              const struct viommu_config *caches, struct viommu_config *config)
{
    int ret = client_memory_guard();

    *unit = (struct unit){
        .function = function,
        .thread = pthread_self(),
        .work_fd = -1,
        .losses_logged = client_memory_losses(),
    };
    if (ret == 0) {
        unit->work_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        ret = unit->work_fd < 0 ? -errno : viommu_memory_create(&unit->memory);
    }
    if (ret < 0) {
        return ret;
    }
    *config = caches ? *caches : (struct viommu_config){0};
    config->callbacks =
        (struct viommu_callbacks){.interrupt = interrupt, .event = event, .wake = wake};
    config->opaque = unit;
    config->memory = unit->memory;
    return 0;
}

void unit_fini(struct unit *unit)
{
    viommu_destroy(unit->iommu);
    viommu_memory_destroy(unit->memory);
    while (unit->leaving) {
        unmapped(unit->leaving);
    }
    if (unit->work_fd >= 0) {
        close(unit->work_fd);
    }
    unit->iommu = NULL;
    unit->memory = NULL;
    unit->work_fd = -1;
}

void unit_go_on_later(struct unit *unit)
{
    atomic_store(&unit->due, true);
}

void unit_process(struct unit *unit)
{
    atomic_store(&unit->due, false);
    viommu_process(unit->iommu, PROCESS_BUDGET);
    viommu_memory_process(unit->memory);
}

void unit_report(struct unit *unit)
{
    uint64_t losses = client_memory_losses();

    if (losses != unit->losses_logged) {
        server_log("%s: part of the client's memory is gone; zeros stand in for it",
                   unit->function->name);
        unit->losses_logged = losses;
    }
}
