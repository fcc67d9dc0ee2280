/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The part of the VT-d specification that a guest's driver needs, written from the specification
 * and independently of the library: register offsets, fields, table entries and queue descriptors.
 */
#ifndef VIOMMU_SUPPORT_VTD_SPEC_H
#define VIOMMU_SUPPORT_VTD_SPEC_H

#include <stdbool.h>
#include <stdint.h>

enum spec_register {
    SPEC_VER = 0x00,
    SPEC_CAP = 0x08,
    SPEC_ECAP = 0x10,
    SPEC_GCMD = 0x18,
    SPEC_GSTS = 0x1c,
    SPEC_RTADDR = 0x20,
    SPEC_CCMD = 0x28,
    SPEC_FSTS = 0x34,
    SPEC_FECTL = 0x38,
    SPEC_FEDATA = 0x3c,
    SPEC_FEADDR = 0x40,
    SPEC_FEUADDR = 0x44,
    SPEC_IQH = 0x80,
    SPEC_IQT = 0x88,
    SPEC_IQA = 0x90,
    SPEC_ICS = 0x9c,
    SPEC_IECTL = 0xa0,
    SPEC_IEDATA = 0xa4,
    SPEC_IEADDR = 0xa8,
    SPEC_IEUADDR = 0xac,
    SPEC_IQERCD = 0xb0,
};

/* GCMD and GSTS. */
#define SPEC_TE (1u << 31)
#define SPEC_SRTP (1u << 30)
#define SPEC_QIE (1u << 26)
#define SPEC_GSTS_STICKY 0x96ffffffu /* what a driver keeps of GSTS when it changes one bit */

/* FSTS. */
#define SPEC_PFO (1u << 0)
#define SPEC_PPF (1u << 1)
#define SPEC_IQE (1u << 4)
#define SPEC_ICE (1u << 5)
#define SPEC_ITE (1u << 6)

/* FECTL and IECTL. */
#define SPEC_IM (1u << 31)
#define SPEC_IP (1u << 30)

/* ICS. */
#define SPEC_IWC (1u << 0)

/* Fault record, upper quadword. */
#define SPEC_F (1ull << 63)
#define SPEC_T1 (1ull << 62)
#define SPEC_T2 (1ull << 28)

/* Granularities, alike for the context-cache and for the IOTLB. */
enum spec_granularity {
    SPEC_GLOBAL = 1,
    SPEC_DOMAIN = 2,
    SPEC_SELECTIVE = 3, /* device, or page */
};

enum spec_fault {
    SPEC_ROOT_NOT_PRESENT = 0x1,
    SPEC_CONTEXT_NOT_PRESENT = 0x2,
    SPEC_CONTEXT_INVALID = 0x3,
    SPEC_BEYOND_WIDTH = 0x4,
    SPEC_WRITE = 0x5,
    SPEC_READ = 0x6,
    SPEC_TABLE_ACCESS = 0x7,
    SPEC_ROOT_ACCESS = 0x8,
    SPEC_CONTEXT_ACCESS = 0x9,
    SPEC_ROOT_RESERVED = 0xa,
    SPEC_CONTEXT_RESERVED = 0xb,
    SPEC_TABLE_RESERVED = 0xc,
    SPEC_BLOCKED = 0xd,
    SPEC_INTERRUPT_RANGE = 0xe,
    SPEC_INTERRUPT_REQUEST = 0x29,
    SPEC_ROOT_MODE = 0x30,
};

enum spec_translation_type {
    SPEC_TT_UNTRANSLATED = 0,
    SPEC_TT_ALL = 1, /* and translation and translated requests */
    SPEC_TT_PASS = 2,
};

/* Second-level entries. */
#define SPEC_R 1ull
#define SPEC_W 2ull
#define SPEC_PS (1ull << 7)
#define SPEC_SNP (1ull << 11)

static inline bool spec_in_interrupt_range(uint64_t address)
{
    return address >> 20 == 0xfee;
}

struct spec_descriptor {
    uint64_t lo;
    uint64_t hi;
};

static inline struct spec_descriptor spec_context_invalidate(enum spec_granularity granularity,
                                                             uint16_t domain, uint16_t requester,
                                                             unsigned function_mask)
{
    return (struct spec_descriptor){
        .lo = 1 | (uint64_t)granularity << 4 | (uint64_t)domain << 16 | (uint64_t)requester << 32 |
              (uint64_t)(function_mask & 3) << 48,
    };
}

static inline struct spec_descriptor spec_iotlb_invalidate(enum spec_granularity granularity,
                                                           uint16_t domain, uint64_t address,
                                                           unsigned address_mask, bool hint)
{
    return (struct spec_descriptor){
        .lo = 2 | (uint64_t)granularity << 4 | (uint64_t)domain << 16 | 3u << 6,
        .hi = (address & ~0xfffull) | (uint64_t)hint << 6 | (address_mask & 63),
    };
}

/* 2^order pages from `address` on, which is aligned to them. */
static inline struct spec_descriptor spec_device_tlb_invalidate(uint16_t requester,
                                                                uint64_t address, unsigned order)
{
    struct spec_descriptor descriptor = {
        .lo = 3 | (uint64_t)requester << 32,
        .hi = address & ~0xfffull,
    };

    if (order) {
        descriptor.hi = (address & ~((1ull << (order + 12)) - 1)) |
                        (((1ull << (order - 1)) - 1) << 12) | 1;
    }
    return descriptor;
}

static inline struct spec_descriptor spec_interrupt_cache_invalidate(bool indexed, uint16_t index,
                                                                     unsigned index_mask)
{
    return (struct spec_descriptor){
        .lo = 4 | (uint64_t)indexed << 4 | (uint64_t)(index_mask & 31) << 27 |
              (uint64_t)index << 32,
    };
}

enum spec_wait_flags {
    SPEC_WAIT_INTERRUPT = 1 << 4,
    SPEC_WAIT_STATUS = 1 << 5,
    SPEC_WAIT_FENCE = 1 << 6,
};

static inline struct spec_descriptor spec_wait(unsigned flags, uint64_t status_address,
                                               uint32_t status)
{
    return (struct spec_descriptor){
        .lo = 5 | flags | (uint64_t)status << 32,
        .hi = status_address & ~3ull,
    };
}

#endif
