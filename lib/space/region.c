/* SPDX-License-Identifier: BSD-2-Clause */
/* The tree of regions, which nobody sees until a commit; see private.h. */
#include "space/private.h"
#include "space/space.h"

#include "base/alloc.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static bool config_valid(const struct viommu_bus *bus, const struct viommu_region_config *config)
{
    uintptr_t host = (uintptr_t)config->host;

    switch (config->kind) {
    case VIOMMU_REGION_CONTAINER:
        return true;
    case VIOMMU_REGION_RAM:
    case VIOMMU_REGION_ROM:
        return host && config->last <= UINTPTR_MAX - host;
    case VIOMMU_REGION_MMIO:
        return config->ops && config->ops->read && config->ops->write &&
               config->ops->max_size <= 8 &&
               !(config->ops->max_size & (config->ops->max_size - 1));
    case VIOMMU_REGION_ALIAS:
        return config->target && config->target->bus == bus &&
               config->last <= UINT64_MAX - config->offset;
    case VIOMMU_REGION_IOMMU:
        return config->iommu && config->iommu->index_of && config->iommu->translate &&
               config->iommu->index_count && config->iommu->index_count <= INDEXES_MAX;
    }
    return false;
}

static char *copy_name(const char *name)
{
    size_t size = strlen(name ? name : "") + 1;
    char *copy = base_alloc(size);

    if (copy) {
        memcpy(copy, name ? name : "", size);
    }
    return copy;
}

static struct viommu_region *region_alloc(const struct viommu_region_config *config)
{
    struct viommu_region *region = base_alloc(sizeof(*region));
    bool iommu = config->kind == VIOMMU_REGION_IOMMU;

    if (!region) {
        return NULL;
    }
    region->name = copy_name(config->name);
    if (iommu) {
        region->armed = base_alloc_array(config->iommu->index_count, sizeof(struct pair *));
    }
    if (!region->name || (iommu && !region->armed)) {
        base_free(region->armed);
        base_free(region->name);
        base_free(region);
        return NULL;
    }
    region->kind = config->kind;
    region->last = config->last;
    if (config->kind == VIOMMU_REGION_RAM || config->kind == VIOMMU_REGION_ROM) {
        region->host = config->host; /* what has one is cached by CPUs */
    }
    region->ops = config->ops;
    region->iommu = config->iommu;
    region->opaque = config->opaque;
    region->released = config->released;
    region->owner = config->owner;
    region->references = 1;
    return region;
}

int viommu_region_create(struct viommu_bus *bus, const struct viommu_region_config *config,
                         struct viommu_region **out)
{
    struct viommu_region *region;

    if (!config_valid(bus, config)) {
        return -EINVAL;
    }
    region = region_alloc(config);
    if (!region) {
        return -ENOMEM;
    }
    region->bus = bus;
    pthread_mutex_lock(&bus->lock);
    region->id = ++bus->last_id;
    region_touch(region); /* a view of what lay at this address before knows nothing of it */
    if (config->kind == VIOMMU_REGION_ALIAS) {
        region->target = config->target;
        region->offset = config->offset;
        region_get(region->target);
    }
    region->next = bus->regions;
    if (region->next) {
        region->next->prev = region;
    }
    bus->regions = region;
    pthread_mutex_unlock(&bus->lock);
    *out = region;
    return 0;
}

void region_touch(struct viommu_region *region)
{
    region->changed = ++region->bus->changes;
}

void region_get(struct viommu_region *region)
{
    region->references++;
}

void region_free(struct viommu_region *region)
{
    if (region->armed) {
        pthread_mutex_lock(&region->bus->told);
        pairs_forget(region);
        pthread_mutex_unlock(&region->bus->told);
    }
    if (region->released) {
        region->released(region->opaque);
    }
    base_free(region->armed);
    base_free(region->name);
    base_free(region);
}

static void free_deferred(struct epoch_deferred *deferred)
{
    region_free((struct viommu_region *)((char *)deferred -
                                         offsetof(struct viommu_region, deferred)));
}

static void unlink_from_bus(struct viommu_region *region)
{
    if (region->prev) {
        region->prev->next = region->next;
    } else {
        region->bus->regions = region->next;
    }
    if (region->next) {
        region->next->prev = region->prev;
    }
}

static void leave_container(struct viommu_region *region)
{
    struct viommu_region *container = region->container;

    if (region->sibling_prev) {
        region->sibling_prev->sibling = region->sibling;
    } else {
        container->children = region->sibling;
    }
    if (region->sibling) {
        region->sibling->sibling_prev = region->sibling_prev;
    }
    region->container = NULL;
    region->sibling = NULL;
    region->sibling_prev = NULL;
    region_touch(container);
}

/*
 * What goes with a region may be the last reference of what it is an alias of, and so on: a chain.
 * What it contained it let go when it was destroyed.
 */
void region_put(struct viommu_region *region)
{
    while (region && --region->references == 0) {
        struct viommu_region *target = region->target;

        assert(!region->children);
        unlink_from_bus(region);
        epoch_defer(&region->bus->calls, &region->deferred, free_deferred);
        region = target;
    }
}

void viommu_region_destroy(struct viommu_region *region)
{
    struct viommu_bus *bus;

    if (!region) {
        return;
    }
    bus = region->bus;
    pthread_mutex_lock(&bus->lock);
    while (region->children) {
        struct viommu_region *child = region->children;

        leave_container(child);
        region_put(child);
    }
    if (region->container) {
        leave_container(region);
        region_put(region);
    }
    region_put(region);
    pthread_mutex_unlock(&bus->lock);
}

int viommu_region_add(struct viommu_region *container, struct viommu_region *region, uint64_t at,
                      int32_t priority)
{
    struct viommu_region **place = &container->children;
    struct viommu_region *before = NULL;
    int error = 0;

    if (container->kind != VIOMMU_REGION_CONTAINER || container->bus != region->bus ||
        at > UINT64_MAX - region->last) {
        return -EINVAL;
    }
    pthread_mutex_lock(&container->bus->lock);
    if (region->container) {
        error = -EBUSY;
    } else {
        while (*place && (*place)->priority > priority) {
            before = *place;
            place = &before->sibling;
        }
        region->at = at;
        region->priority = priority;
        region->container = container;
        region->sibling = *place;
        region->sibling_prev = before;
        if (region->sibling) {
            region->sibling->sibling_prev = region;
        }
        *place = region;
        region_get(region);
        region_touch(container);
    }
    pthread_mutex_unlock(&container->bus->lock);
    return error;
}

int viommu_region_remove(struct viommu_region *region)
{
    int error = -ENOENT;

    pthread_mutex_lock(&region->bus->lock);
    if (region->container) {
        leave_container(region);
        region_put(region);
        error = 0;
    }
    pthread_mutex_unlock(&region->bus->lock);
    return error;
}

void viommu_region_enable(struct viommu_region *region, bool on)
{
    pthread_mutex_lock(&region->bus->lock);
    if (region->off == on) {
        region->off = !on;
        region_touch(region);
    }
    pthread_mutex_unlock(&region->bus->lock);
}

const char *viommu_region_name(const struct viommu_region *region)
{
    return region->name;
}

enum viommu_region_kind viommu_region_kind(const struct viommu_region *region)
{
    return region->kind;
}

void *region_opaque(const struct viommu_region *region)
{
    return region->opaque;
}
