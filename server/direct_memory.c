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
    bool readable;
    bool writable;
    bool gone; /* unmapped */
    struct client_mapping *mapping; /* NULL: it is reached by messages */
    unsigned pins;
    uint64_t deadline_ms; /* leaving: when its pins are overdue; a reset excuses them */
};

/* What a pin has of one region. */
struct stretch {
    struct direct_region *region;
    uint64_t address;
    size_t size;
    uint8_t *bounce; /* memory of our own that stands for it; NULL: it is the client's itself */
};

struct device_dma_pin {
    struct device_dma_pin *next;
    void (*revoke)(void *opaque);
    void *opaque;
    bool revoked;
    uint8_t *bounce; /* of all stretches */
    size_t bounce_size;
    size_t count;
    struct stretch stretches[];
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

/* A region as it is offered, without its place in the table. */
static int create_region(const struct pci_dma_region *what, int fd, struct direct_region **out)
{
    struct direct_region *region = calloc(1, sizeof(*region));
    int ret = 0;

    if (!region) {
        return -ENOMEM;
    }
    region->first = what->first;
    region->last = what->last;
    region->readable = what->readable;
    region->writable = what->writable;
    if (fd >= 0) {
        ret = client_mapping_create(fd, what->file_offset, what->last - what->first + 1,
                                    what->writable, &region->mapping);
    }
    if (ret < 0) {
        free(region);
        return ret;
    }
    *out = region;
    return 0;
}

static int map(void *opaque, const struct pci_dma_region *what, int fd, void **cookie)
{
    struct direct_memory *memory = opaque;
    size_t place = find(memory, what->first);
    struct direct_region *region;
    int ret;

    *cookie = NULL;
    /* The region that is the whole address space has no size that a mapping could have. */
    if (what->last - what->first == UINT64_MAX) {
        return -EINVAL;
    }
    ret = reserve(memory);
    if (ret == 0) {
        ret = create_region(what, fd, &region);
    }
    if (ret < 0) {
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
        if (pin->stretches[i].region == region) {
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
    place = find(memory, first);
    memory->count--;
    memmove(&memory->regions[place], &memory->regions[place + 1],
            (memory->count - place) * sizeof(memory->regions[0]));
    region->gone = true;
    if (region->pins == 0) {
        release(region);
        return;
    }
    if (!region->mapping) {
        return; /* its pins are not the client's memory: it goes with the last of them */
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

/* The memory at an address: its region, how much of `size` lies in it, and where it is here (NULL:
 * nowhere, it is reached by messages). */
static int look_up(const struct direct_memory *memory, uint64_t address, size_t size, bool write,
                   struct direct_region **out, struct iovec *here)
{
    size_t place = find(memory, address);
    struct direct_region *region = place < memory->count ? memory->regions[place] : NULL;
    uint64_t room;

    if (!region || region->first > address) {
        return -ENXIO;
    }
    if (write ? !region->writable : !region->readable) {
        return write ? -EROFS : -EACCES;
    }
    room = region->last - address + 1;
    here->iov_base = region->mapping ? (uint8_t *)client_mapping_address(region->mapping) +
                                           (address - region->first)
                                     : NULL;
    here->iov_len = size < room ? size : (size_t)room;
    *out = region;
    return 0;
}

/* What a range, or several, lies in. */
struct extent {
    size_t stretches;
    size_t bounce; /* bytes of them in regions that are reached by messages */
};

/* Is all of the range there? Adds what it lies in. */
static int check(const struct direct_memory *memory, uint64_t address, size_t size, bool write,
                 struct extent *extent)
{
    struct direct_region *region;
    struct iovec here;

    if (size > 0 && address + (size - 1) < address) {
        return -EINVAL;
    }
    while (size > 0) {
        int ret = look_up(memory, address, size, write, &region, &here);

        if (ret < 0) {
            return ret;
        }
        if (!region->mapping && here.iov_len > SIZE_MAX - extent->bounce) {
            return -EINVAL;
        }
        extent->stretches++;
        extent->bounce += region->mapping ? 0 : here.iov_len;
        address += here.iov_len;
        size -= here.iov_len;
    }
    return 0;
}

/* Ask the client. */
static int exchange(const struct direct_memory *memory, uint64_t address, uint8_t *data,
                    size_t size, bool write, uint64_t deadline_ms)
{
    const struct pci_function *function = memory->function;
    const struct pci_bus_ops *bus = function ? function->bus : NULL;

    if (!bus) {
        return -ENOTCONN;
    }
    return write ? bus->write_memory(function->bus_opaque, address, data, size, deadline_ms)
                 : bus->read_memory(function->bus_opaque, address, data, size, deadline_ms);
}

/* The access is checked whole before the first byte moves. */
static int copy(struct direct_memory *memory, uint64_t address, uint8_t *data, size_t size,
                bool write)
{
    const uint64_t deadline_ms = clock_ms() + DIRECT_MEMORY_ANSWER_MS;
    struct direct_region *region;
    struct extent extent = {0};
    struct iovec here;
    int ret = admit(memory);

    if (ret == 0) {
        ret = check(memory, address, size, write, &extent);
    }
    while (ret == 0 && size > 0) {
        ret = look_up(memory, address, size, write, &region, &here);
        if (ret == 0 && !region->mapping) {
            ret = exchange(memory, address, data, here.iov_len, write, deadline_ms);
        } else if (ret == 0) {
            memcpy(write ? here.iov_base : data, write ? data : here.iov_base, here.iov_len);
        }
        data += here.iov_len;
        address += here.iov_len;
        size -= here.iov_len;
    }
    return ret;
}

static int dma_read(void *opaque, uint64_t iova, void *data, size_t size)
{
    return copy(opaque, iova, data, size, false);
}

static int dma_write(void *opaque, uint64_t iova, const void *data, size_t size)
{
    return copy(opaque, iova, (uint8_t *)data, size, true);
}

static int measure(const struct direct_memory *memory, const struct device_dma_request *request,
                   struct extent *extent)
{
    int ret = 0;

    for (size_t i = 0; i < request->count && ret == 0; i++) {
        ret = check(memory, request->ranges[i].iova, request->ranges[i].size, request->to_memory,
                    extent);
    }
    return ret;
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

/* Fill iov, and the stretches of the pin, without counting in their regions yet. */
static int gather(const struct direct_memory *memory, const struct device_dma_request *request,
                  struct iovec *iov, size_t *iov_count, struct device_dma_pin *pin)
{
    size_t used = 0, bounced = 0;

    for (size_t i = 0; i < request->count; i++) {
        uint64_t address = request->ranges[i].iova;
        size_t left = request->ranges[i].size;

        while (left > 0) {
            struct stretch *stretch = &pin->stretches[pin->count];
            struct iovec here;
            int ret = look_up(memory, address, left, request->to_memory, &stretch->region, &here);

            if (ret == 0 && !here.iov_base) {
                here.iov_base = stretch->bounce = pin->bounce + bounced;
                bounced += here.iov_len;
            }
            if (ret == 0) {
                ret = add_iov(iov, &used, *iov_count, &here);
            }
            if (ret < 0) {
                return ret;
            }
            stretch->address = address;
            stretch->size = here.iov_len;
            pin->count++;
            address += here.iov_len;
            left -= here.iov_len;
        }
    }
    *iov_count = used;
    return 0;
}

static void destroy_pin(struct device_dma_pin *pin)
{
    free(pin->bounce);
    free(pin);
}

/* With room for what it touches. Memory of our own is zeroed: it may reach a client as it is. */
static int create_pin(const struct direct_memory *memory, const struct extent *extent,
                      struct device_dma_pin **out)
{
    struct device_dma_pin *pin;

    if (extent->bounce > DIRECT_MEMORY_BOUNCE_MAX - memory->bounced) {
        return -ENOBUFS;
    }
    pin = calloc(1, sizeof(*pin) + extent->stretches * sizeof(struct stretch));
    if (!pin) {
        return -ENOMEM;
    }
    pin->bounce_size = extent->bounce;
    pin->bounce = extent->bounce > 0 ? calloc(1, extent->bounce) : NULL;
    if (extent->bounce > 0 && !pin->bounce) {
        free(pin);
        return -ENOMEM;
    }
    *out = pin;
    return 0;
}

/* Copy between the pin's memory of our own and the client's. */
static int exchange_pin(const struct direct_memory *memory, const struct device_dma_pin *pin,
                        bool write)
{
    const uint64_t deadline_ms = clock_ms() + DIRECT_MEMORY_ANSWER_MS;
    int ret = 0;

    for (size_t i = 0; i < pin->count && ret == 0; i++) {
        const struct stretch *stretch = &pin->stretches[i];

        if (stretch->bounce && stretch->region->gone) {
            ret = -EFAULT;
        } else if (stretch->bounce) {
            ret = exchange(memory, stretch->address, stretch->bounce, stretch->size, write,
                           deadline_ms);
        }
    }
    return ret;
}

static void enlist(struct direct_memory *memory, const struct device_dma_request *request,
                   struct device_dma_pin *pin)
{
    for (size_t i = 0; i < pin->count; i++) {
        pin->stretches[i].region->pins++;
    }
    memory->bounced += pin->bounce_size;
    pin->revoke = request->revoke;
    pin->opaque = request->opaque;
    pin->next = memory->pins;
    memory->pins = pin;
    memory->pinned++;
}

static int dma_pin(void *opaque, const struct device_dma_request *request, struct iovec *iov,
                   size_t *iov_count, struct device_dma_pin **out)
{
    struct direct_memory *memory = opaque;
    struct device_dma_pin *pin;
    struct extent extent = {0};
    int ret = admit(memory);

    if (ret == 0) {
        ret = measure(memory, request, &extent);
    }
    if (ret == 0) {
        ret = create_pin(memory, &extent, &pin);
    }
    if (ret != 0) {
        return ret;
    }
    ret = gather(memory, request, iov, iov_count, pin);
    if (ret == 0 && !request->to_memory) {
        ret = exchange_pin(memory, pin, false);
    }
    if (ret < 0) {
        destroy_pin(pin);
        return ret;
    }
    enlist(memory, request, pin);
    *out = pin;
    return 0;
}

static int dma_commit(void *opaque, struct device_dma_pin *pin)
{
    struct direct_memory *memory = opaque;
    int ret = pin->bounce ? admit(memory) : 0;

    return ret < 0 ? ret : exchange_pin(memory, pin, true);
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
    memory->bounced -= pin->bounce_size;
    for (size_t i = 0; i < pin->count; i++) {
        struct direct_region *region = pin->stretches[i].region;

        if (--region->pins == 0 && region->gone && !region->mapping) {
            release(region);
        }
    }
    destroy_pin(pin);
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

const struct pci_memory_ops direct_memory_ops = {
    .map = map, .unmap = unmap, .unmapping = unmapping};

const struct device_dma direct_memory_dma = {
    .read = dma_read,
    .write = dma_write,
    .pin = dma_pin,
    .commit = dma_commit,
    .unpin = dma_unpin,
    .reset = dma_reset,
};

int direct_memory_init(struct direct_memory *memory)
{
    memset(memory, 0, sizeof(*memory));
    return client_memory_guard();
}

void direct_memory_attach(struct direct_memory *memory, struct pci_function *function)
{
    function->memory = &direct_memory_ops;
    function->memory_opaque = memory;
    memory->function = function;
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
