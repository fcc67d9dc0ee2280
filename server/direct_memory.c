/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory of a device without a unit; direct_memory.h has the structure. */
#include "direct_memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client_memory.h"
#include "clock.h"
#include "save/stream.h"

struct direct_region {
    struct direct_region *next; /* of those that are leaving */
    uint64_t first;
    uint64_t last;
    bool writable;
    struct client_mapping *mapping;
    unsigned pins;
    uint64_t deadline_ms; /* leaving: when its pins are overdue; a reset excuses them */
};

struct device_dma_pin {
    struct device_dma_pin *next;
    void (*revoke)(void *opaque);
    void *opaque;
    bool revoked;
    size_t count;
    struct direct_region *regions[]; /* one for each stretch inside a region */
};

/* The place of the first region that ends at or after an address. */
static size_t find(const struct direct_memory *memory, uint64_t address)
{
    size_t low = 0, high = memory->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (memory->regions[middle]->last < address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static int reserve(struct direct_memory *memory)
{
    size_t room = memory->room ? 2 * memory->room : 16;
    struct direct_region **regions;

    if (memory->count < memory->room) {
        return 0;
    }
    regions = realloc(memory->regions, room * sizeof(*regions));
    if (!regions) {
        return -ENOMEM;
    }
    memory->regions = regions;
    memory->room = room;
    return 0;
}

static int map(void *opaque, const struct pci_dma_region *what, int fd, void **cookie)
{
    struct direct_memory *memory = opaque;
    size_t place = find(memory, what->first);
    struct direct_region *region;
    int ret;

    *cookie = NULL;
    /* What cannot be mapped (ROM of the client's own) is not memory that the device may reach. */
    if (fd < 0 || !what->readable) {
        return 0;
    }
    /* The region that is the whole address space has no size that a mapping could have. */
    if (what->last - what->first == UINT64_MAX) {
        return -EINVAL;
    }
    ret = reserve(memory);
    if (ret < 0) {
        return ret;
    }
    region = calloc(1, sizeof(*region));
    if (!region) {
        return -ENOMEM;
    }
    region->first = what->first;
    region->last = what->last;
    region->writable = what->writable;
    ret = client_mapping_create(fd, what->file_offset, what->last - what->first + 1,
                                what->writable, &region->mapping);
    if (ret < 0) {
        free(region);
        return ret;
    }
    memmove(&memory->regions[place + 1], &memory->regions[place],
            (memory->count - place) * sizeof(memory->regions[0]));
    memory->regions[place] = region;
    memory->count++;
    *cookie = region;
    return 0;
}

static void release(struct direct_region *region)
{
    client_mapping_destroy(region->mapping);
    free(region);
}

static bool touches(const struct device_dma_pin *pin, const struct direct_region *region)
{
    for (size_t i = 0; i < pin->count; i++) {
        if (pin->regions[i] == region) {
            return true;
        }
    }
    return false;
}

/* A pin of the region whose owner has not heard that it is wanted back, or NULL. */
static struct device_dma_pin *unsuspecting(const struct direct_memory *memory,
                                           const struct direct_region *region)
{
    struct device_dma_pin *pin = memory->pins;

    while (pin && (pin->revoked || !touches(pin, region))) {
        pin = pin->next;
    }
    return pin;
}

/* The region may be gone when this returns: owners may unpin at once. */
static void revoke_pins(struct direct_memory *memory, struct direct_region *region)
{
    struct device_dma_pin *pin;

    /* While there is such a pin the region is there, and each turn leaves one fewer. */
    while ((pin = unsuspecting(memory, region))) {
        pin->revoked = true;
        memory->revoked++;
        if (pin->revoke) {
            pin->revoke(pin->opaque);
        }
    }
}

static void unmap(void *opaque, uint64_t first, uint64_t last, void *cookie)
{
    struct direct_memory *memory = opaque;
    struct direct_region *region = cookie;
    size_t place;

    (void)last;
    if (!region) {
        return;
    }
    place = find(memory, first);
    memory->count--;
    memmove(&memory->regions[place], &memory->regions[place + 1],
            (memory->count - place) * sizeof(memory->regions[0]));
    if (region->pins == 0) {
        release(region);
        return;
    }
    region->deadline_ms = clock_ms() + DIRECT_MEMORY_PATIENCE_MS;
    region->next = memory->leaving;
    memory->leaving = region;
    revoke_pins(memory, region);
}

static bool unmapping(void *opaque)
{
    return ((struct direct_memory *)opaque)->leaving != NULL;
}

/* May the device do DMA? Says no from when it was found to keep what it should have given back. */
static int admit(struct direct_memory *memory)
{
    const struct direct_region *region = memory->denied ? NULL : memory->leaving;
    uint64_t now = region ? clock_ms() : 0;

    for (; region; region = region->next) {
        if (now >= region->deadline_ms) {
            memory->denied = true;
        }
    }
    return memory->denied ? -EPERM : 0;
}

/* The memory at an address: its region, how much of `size` lies in it, and where it is here. */
static int look_up(const struct direct_memory *memory, uint64_t address, size_t size, bool write,
                   struct direct_region **out, struct iovec *here)
{
    size_t place = find(memory, address);
    struct direct_region *region = place < memory->count ? memory->regions[place] : NULL;
    uint64_t room;

    if (!region || region->first > address) {
        return -ENXIO;
    }
    if (write && !region->writable) {
        return -EROFS;
    }
    room = region->last - address + 1;
    here->iov_base = (uint8_t *)client_mapping_address(region->mapping) + (address - region->first);
    here->iov_len = size < room ? size : (size_t)room;
    *out = region;
    return 0;
}

/* Is all of the range there? Returns in how many regions it lies, or a negative errno. */
static int check(const struct direct_memory *memory, uint64_t address, size_t size, bool write)
{
    struct direct_region *region;
    struct iovec here;
    int count = 0;

    if (size > 0 && address + (size - 1) < address) {
        return -EINVAL;
    }
    while (size > 0) {
        int ret = look_up(memory, address, size, write, &region, &here);

        if (ret < 0) {
            return ret;
        }
        address += here.iov_len;
        size -= here.iov_len;
        count++;
    }
    return count;
}

/* The access is checked whole before the first byte moves. */
static int copy(struct direct_memory *memory, uint64_t address, uint8_t *data, size_t size,
                bool write)
{
    struct direct_region *region;
    struct iovec here;
    int ret = admit(memory);

    if (ret == 0) {
        ret = check(memory, address, size, write);
    }
    if (ret < 0) {
        return ret;
    }
    while (size > 0 && look_up(memory, address, size, write, &region, &here) == 0) {
        memcpy(write ? here.iov_base : data, write ? data : here.iov_base, here.iov_len);
        data += here.iov_len;
        address += here.iov_len;
        size -= here.iov_len;
    }
    return 0;
}

static int dma_read(void *opaque, uint64_t iova, void *data, size_t size)
{
    return copy(opaque, iova, data, size, false);
}

static int dma_write(void *opaque, uint64_t iova, const void *data, size_t size)
{
    return copy(opaque, iova, (uint8_t *)data, size, true);
}

/* How many stretches, one in each region that a range touches, a request has. */
static int count_stretches(const struct direct_memory *memory,
                           const struct device_dma_request *request, size_t *out)
{
    *out = 0;
    for (size_t i = 0; i < request->count; i++) {
        int n = check(memory, request->ranges[i].iova, request->ranges[i].size,
                      request->to_memory);

        if (n < 0) {
            return n;
        }
        *out += (size_t)n;
    }
    return 0;
}

/* Add a stretch to iov, of which `used` of `room` are filled. */
static int add_iov(struct iovec *iov, size_t *used, size_t room, const struct iovec *here)
{
    struct iovec *last = *used > 0 ? &iov[*used - 1] : NULL;

    if (last && (uint8_t *)last->iov_base + last->iov_len == here->iov_base) {
        last->iov_len += here->iov_len;
        return 0;
    }
    if (*used == room) {
        return -ENOSPC;
    }
    iov[(*used)++] = *here;
    return 0;
}

/* Fill iov, and the regions of the pin, without counting in them yet. */
static int gather(const struct direct_memory *memory, const struct device_dma_request *request,
                  struct iovec *iov, size_t *iov_count, struct device_dma_pin *pin)
{
    size_t used = 0;

    for (size_t i = 0; i < request->count; i++) {
        uint64_t address = request->ranges[i].iova;
        size_t left = request->ranges[i].size;

        while (left > 0) {
            struct iovec here;
            int ret = look_up(memory, address, left, request->to_memory,
                              &pin->regions[pin->count], &here);

            if (ret == 0) {
                ret = add_iov(iov, &used, *iov_count, &here);
            }
            if (ret < 0) {
                return ret;
            }
            pin->count++;
            address += here.iov_len;
            left -= here.iov_len;
        }
    }
    *iov_count = used;
    return 0;
}

static int dma_pin(void *opaque, const struct device_dma_request *request, struct iovec *iov,
                   size_t *iov_count, struct device_dma_pin **out)
{
    struct direct_memory *memory = opaque;
    struct device_dma_pin *pin;
    size_t stretches = 0;
    int ret = admit(memory);

    if (ret == 0) {
        ret = count_stretches(memory, request, &stretches);
    }
    if (ret < 0) {
        return ret;
    }
    pin = calloc(1, sizeof(*pin) + stretches * sizeof(struct direct_region *));
    if (!pin) {
        return -ENOMEM;
    }
    ret = gather(memory, request, iov, iov_count, pin);
    if (ret < 0) {
        free(pin);
        return ret;
    }
    for (size_t i = 0; i < pin->count; i++) {
        pin->regions[i]->pins++;
    }
    pin->revoke = request->revoke;
    pin->opaque = request->opaque;
    pin->next = memory->pins;
    memory->pins = pin;
    memory->pinned++;
    *out = pin;
    return 0;
}

static void release_leaving(struct direct_memory *memory)
{
    struct direct_region **link = &memory->leaving;

    while (*link) {
        struct direct_region *region = *link;

        if (region->pins > 0) {
            link = &region->next;
            continue;
        }
        *link = region->next;
        release(region);
    }
}

static void dma_unpin(void *opaque, struct device_dma_pin *pin)
{
    struct direct_memory *memory = opaque;
    struct device_dma_pin **link = &memory->pins;

    admit(memory); /* it may be overdue */
    while (*link != pin) {
        link = &(*link)->next;
    }
    *link = pin->next;
    for (size_t i = 0; i < pin->count; i++) {
        pin->regions[i]->pins--;
    }
    free(pin);
    release_leaving(memory);
}

static void dma_reset(void *opaque)
{
    struct direct_memory *memory = opaque;

    memory->denied = false;
    for (struct direct_region *region = memory->leaving; region; region = region->next) {
        region->deadline_ms = UINT64_MAX;
    }
}

const struct pci_memory_ops direct_memory_ops = {.map = map, .unmap = unmap, .unmapping = unmapping};

const struct device_dma direct_memory_dma = {
    .read = dma_read,
    .write = dma_write,
    .pin = dma_pin,
    .unpin = dma_unpin,
    .reset = dma_reset,
};

int direct_memory_init(struct direct_memory *memory)
{
    memset(memory, 0, sizeof(*memory));
    return client_memory_guard();
}

void direct_memory_fini(struct direct_memory *memory)
{
    free(memory->regions);
    memset(memory, 0, sizeof(*memory));
}

void direct_memory_save(const struct direct_memory *memory, struct save_writer *writer)
{
    save_put8(writer, memory->denied);
}

int direct_memory_load(struct direct_memory *memory, struct save_section *section)
{
    memory->denied = save_get8(section) != 0;
    return section->error;
}
