/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading a PCI bridge's configuration space: the windows that it forwards, and whether requests
 * from below can go to a neighbour (the PCI-to-PCI Bridge specification; PCI Express, access
 * control services).
 */
#include <viommu/iova_source.h>

#include <errno.h>

enum {
    HEADER_SIZE = 64,
    VENDOR = 0x00,
    VENDOR_NONE = 0xffff,
    COMMAND = 0x04,
    COMMAND_MEMORY = 1 << 1,
    STATUS = 0x06,
    STATUS_CAPABILITIES = 1 << 4,
    CAPABILITIES = 0x34,
    CAPABILITIES_END = 0x100,
    CAPABILITY_EXPRESS = 0x10,
    EXPRESS_FLAGS = 2,
    EXPRESS_UPSTREAM = 5, /* bits 7 to 4 of the flags: an upstream port of a switch */
    HEADER_TYPE = 0x0e,
    HEADER_TYPE_MASK = 0x7f,
    HEADER_TYPE_BRIDGE = 1,
    SECONDARY = 0x19,
    SUBORDINATE = 0x1a,
    MEMORY_BASE = 0x20,
    MEMORY_LIMIT = 0x22,
    PREFETCH_BASE = 0x24,
    PREFETCH_LIMIT = 0x26,
    PREFETCH_BASE_UPPER = 0x28,
    PREFETCH_LIMIT_UPPER = 0x2c,
    PREFETCH_64 = 1,    /* in the low four bits of base and limit */
    EXTENDED = 0x100,   /* the first extended capability */
    EXTENDED_END = 0x1000,
    CAPABILITY_ACS = 0x0d,
    ACS_CONTROL = 6,
    ACS_REQUEST_REDIRECT = 1 << 2,
    ACS_UPSTREAM_FORWARDING = 1 << 4,
};

#define WINDOW_GRANULE UINT64_C(0xfffff) /* 1 MiB, less one */

/* Configuration space, and how much of it there is. */
struct config {
    const uint8_t *bytes;
    size_t size;
};

static uint16_t get16(const struct config *config, size_t at)
{
    return (uint16_t)(config->bytes[at] | config->bytes[at + 1] << 8);
}

static uint32_t get32(const struct config *config, size_t at)
{
    return get16(config, at) | (uint32_t)get16(config, at + 2) << 16;
}

/* The upper twelve of sixteen bits are bits 31 to 20 of an address. */
static uint64_t window_address(const struct config *config, size_t at)
{
    return (uint64_t)(get16(config, at) & 0xfff0) << 16;
}

/* A window whose base is above its limit is none. */
static void add_window(struct viommu_pci_bridge *bridge, uint64_t base, uint64_t limit)
{
    limit |= WINDOW_GRANULE;
    if (base <= limit) {
        bridge->windows[bridge->window_count++] = (struct viommu_range){base, limit};
    }
}

static void read_windows(const struct config *config, struct viommu_pci_bridge *bridge)
{
    uint64_t base = window_address(config, PREFETCH_BASE);
    uint64_t limit = window_address(config, PREFETCH_LIMIT);

    if (!(get16(config, COMMAND) & COMMAND_MEMORY)) {
        return;
    }
    add_window(bridge, window_address(config, MEMORY_BASE), window_address(config, MEMORY_LIMIT));
    if (!get32(config, PREFETCH_BASE)) {
        return; /* a bridge without the window has zeroes in its registers */
    }
    if ((get16(config, PREFETCH_BASE) & 0xf) == PREFETCH_64) {
        base |= (uint64_t)get32(config, PREFETCH_BASE_UPPER) << 32;
        limit |= (uint64_t)get32(config, PREFETCH_LIMIT_UPPER) << 32;
    }
    add_window(bridge, base, limit);
}

/* Whether PCI Express calls it an upstream port. With 64 bytes only nothing is known. */
static int read_upstream(const struct config *config, bool *upstream)
{
    size_t here = config->bytes[CAPABILITIES] & 0xfc;

    *upstream = false;
    if (!(get16(config, STATUS) & STATUS_CAPABILITIES) || config->size < CAPABILITIES_END) {
        return 0;
    }
    /* Each has four bytes at least. */
    for (unsigned i = 0; here && i < CAPABILITIES_END / 4; i++) {
        if (here < HEADER_SIZE) {
            return -EIO;
        }
        if (config->bytes[here] == CAPABILITY_EXPRESS) {
            *upstream = (get16(config, here + EXPRESS_FLAGS) >> 4 & 0xf) == EXPRESS_UPSTREAM;
            return 0;
        }
        here = config->bytes[here + 1] & 0xfc;
    }
    return here ? -EIO : 0;
}

/* Finds an extended capability; *at is 0 when there is none. */
static int find_extended(const struct config *config, uint16_t id, size_t *at)
{
    size_t here = EXTENDED;

    *at = 0;
    if (config->size < EXTENDED + 4 || !get32(config, EXTENDED) ||
        get32(config, EXTENDED) == UINT32_MAX) {
        return 0;
    }
    /* Each has eight bytes at least: so many are all that fit. */
    for (unsigned i = 0; i < (EXTENDED_END - EXTENDED) / 8; i++) {
        uint32_t header;

        if (here % 4 || config->size < 8 || here > config->size - 8) {
            return -EIO;
        }
        header = get32(config, here);
        if ((header & 0xffff) == id) {
            *at = here;
            return 0;
        }
        here = header >> 20;
        if (!here) {
            return 0;
        }
        if (here < EXTENDED) {
            return -EIO;
        }
    }
    return -EIO;
}

int viommu_pci_bridge_read(const void *bytes, size_t size, struct viommu_pci_bridge *bridge)
{
    const uint16_t both = ACS_REQUEST_REDIRECT | ACS_UPSTREAM_FORWARDING;
    struct config config = {bytes, size};
    bool upstream;
    size_t acs;
    int error;

    *bridge = (struct viommu_pci_bridge){0};
    if (size < HEADER_SIZE || get16(&config, VENDOR) == VENDOR_NONE) {
        return -EIO; /* nobody answers: what it forwards is not known */
    }
    if ((config.bytes[HEADER_TYPE] & HEADER_TYPE_MASK) != HEADER_TYPE_BRIDGE) {
        return -ENODEV;
    }
    error = read_upstream(&config, &upstream);
    error = error ? error : find_extended(&config, CAPABILITY_ACS, &acs);
    if (error) {
        return error;
    }
    bridge->secondary = config.bytes[SECONDARY];
    bridge->subordinate = config.bytes[SUBORDINATE];
    bridge->upstream = upstream;
    bridge->redirects = acs && (get16(&config, acs + ACS_CONTROL) & both) == both;
    read_windows(&config, bridge);
    return 0;
}
