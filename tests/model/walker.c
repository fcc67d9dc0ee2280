/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The reference walker: see walker.h.
 */
#include "walker.h"

#include "../support/vtd_spec.h"

#include <string.h>

/* Bits [63:host_width], which no address may have. */
static uint64_t beyond(const struct walker_config *config)
{
    return ~((1ull << config->host_width) - 1);
}

static bool load(struct ram *ram, const struct walker_config *config, uint64_t gpa, uint64_t *value)
{
    return !(gpa & beyond(config)) && ram_load64(ram, gpa, value);
}

static uint8_t check_context(const struct walker_config *config, uint64_t lo, uint64_t hi)
{
    unsigned type = lo >> 2 & 3;
    unsigned width = hi & 7;

    if (lo & 0xff0) {
        return SPEC_CONTEXT_RESERVED;
    }
    if (type != SPEC_TT_PASS && (lo & beyond(config))) {
        return SPEC_CONTEXT_RESERVED;
    }
    if (hi & (1u << 7) || hi >> 24) {
        return SPEC_CONTEXT_RESERVED;
    }
    if (hi >> 8 & 0xffff & ~((1ul << config->domain_bits) - 1)) {
        return SPEC_CONTEXT_RESERVED;
    }
    if (!(config->sagaw >> width & 1)) {
        return SPEC_CONTEXT_INVALID;
    }
    if (type == 3 || (type == SPEC_TT_PASS && !config->pass_through) ||
        (type == SPEC_TT_ALL && !config->device_tlb)) {
        return SPEC_CONTEXT_INVALID;
    }
    return 0;
}

struct context_value walker_context(struct ram *ram, const struct walker_config *config,
                                    uint64_t root, uint16_t requester)
{
    struct context_value value;
    uint64_t at;
    uint64_t lo;
    uint64_t hi;

    memset(&value, 0, sizeof(value));
    if (root >> 10 & 3) {
        value.reason = SPEC_ROOT_MODE;
        return value;
    }
    at = (root & ~0xfffull) + (requester >> 8) * 16u;
    if (!load(ram, config, at, &lo) || !load(ram, config, at + 8, &hi)) {
        value.reason = SPEC_ROOT_ACCESS;
        return value;
    }
    if (!(lo & 1)) {
        value.reason = SPEC_ROOT_NOT_PRESENT;
        return value;
    }
    if ((lo & 0xffe) || (lo & beyond(config)) || hi) {
        value.reason = SPEC_ROOT_RESERVED;
        return value;
    }
    at = (lo & ~0xfffull) + (requester & 0xff) * 16u;
    if (!load(ram, config, at, &lo) || !load(ram, config, at + 8, &hi)) {
        value.reason = SPEC_CONTEXT_ACCESS;
        return value;
    }
    value.silent = lo & 2;
    if (!(lo & 1)) {
        value.reason = SPEC_CONTEXT_NOT_PRESENT;
        return value;
    }
    value.reason = check_context(config, lo, hi);
    if (value.reason) {
        return value;
    }
    value.type = lo >> 2 & 3;
    value.table = value.type == SPEC_TT_PASS ? 0 : lo & ~0xfffull;
    value.levels = (uint8_t)((hi & 7) + 2);
    value.domain = (uint16_t)(hi >> 8);
    return value;
}

/* Bits that must be zero in an entry of this level; `leaf` when it maps a page. */
static uint64_t reserved_bits(const struct walker_config *config, unsigned level, bool leaf)
{
    uint64_t reserved = (1ull << 62) | (beyond(config) & ((1ull << 52) - 1));

    if (level >= 4) {
        reserved |= SPEC_PS;
    }
    if (!leaf || !config->snoop_control) {
        reserved |= SPEC_SNP;
    }
    if (leaf && level > 1) {
        reserved |= ((1ull << (12 + 9 * (level - 1))) - 1) & ~0xfffull;
        if (!config->super_pages) {
            reserved |= SPEC_PS;
        }
    }
    return reserved;
}

struct page_value walker_page(struct ram *ram, const struct walker_config *config, uint64_t table,
                              unsigned levels, uint64_t iova)
{
    uint8_t perm = SPEC_R | SPEC_W;
    struct page_value value;

    memset(&value, 0, sizeof(value));
    for (unsigned level = levels; level; level--) {
        uint64_t mask = (1ull << (12 + 9 * (level - 1))) - 1;
        uint64_t entry;
        bool leaf;

        if (!load(ram, config, table + (iova >> (12 + 9 * (level - 1)) & 511) * 8, &entry)) {
            value.reason = level == levels ? SPEC_CONTEXT_INVALID : SPEC_TABLE_ACCESS;
            return value;
        }
        if (!(entry & (SPEC_R | SPEC_W))) {
            return value;
        }
        leaf = level == 1 || ((level == 2 || level == 3) && (entry & SPEC_PS));
        if (entry & reserved_bits(config, level, leaf)) {
            value.reason = SPEC_TABLE_RESERVED;
            return value;
        }
        perm &= (uint8_t)(entry & 3);
        table = entry & 0x000ffffffffff000ull;
        if (leaf) {
            value.perm = perm;
            value.gpa = perm ? table | (iova & mask & ~0xfffull) : 0;
            value.mask = perm ? mask : 0;
            return value;
        }
    }
    return value;
}
