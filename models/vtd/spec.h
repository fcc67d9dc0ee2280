/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Numbers of the VT-d architecture that this model uses: registers, entries, descriptors, fault
 * reasons. Names and chapters are those of the specification, revision 5.
 */
#ifndef VIOMMU_VTD_SPEC_H
#define VIOMMU_VTD_SPEC_H

#include <stdint.h>

/* Where the registers lie (chapter 11.4). Offsets of IVA, IOTLB and FRCD are this unit's choice. */
#define VTD_GCMD_OFFSET 0x018u
#define VTD_CCMD_OFFSET 0x028u
#define VTD_FECTL_OFFSET 0x038u
#define VTD_IECTL_OFFSET 0x0a0u
#define VTD_IRO 0x0f0u   /* IVA; IOTLB follows */
#define VTD_FRO 0x400u   /* fault records, 16 bytes each */
#define VTD_FAULT_RECORDS_MAX 256u
#define VTD_REGISTER_SIZE 0x2000u

/* VER: 1.0. From major version 6 on, registers could not invalidate any more. */
#define VTD_VER_VALUE 0x10u

/* CAP */
#define CAP_CM (1ULL << 7)
#define CAP_SAGAW_39 (1ULL << 9)
#define CAP_SAGAW_48 (1ULL << 10)
#define CAP_MGAW_SHIFT 16
#define CAP_ZLR (1ULL << 22)
#define CAP_FRO_SHIFT 24
#define CAP_SLLPS_2M (1ULL << 34)
#define CAP_SLLPS_1G (1ULL << 35)
#define CAP_PSI (1ULL << 39)
#define CAP_NFR_SHIFT 40
#define CAP_MAMV_SHIFT 48
#define CAP_DWD (1ULL << 54)
#define CAP_DRD (1ULL << 55)
#define VTD_MAMV 18u

/* ECAP */
#define ECAP_C (1ULL << 0)
#define ECAP_QI (1ULL << 1)
#define ECAP_DT (1ULL << 2)
#define ECAP_PT (1ULL << 6)
#define ECAP_SC (1ULL << 7)
#define ECAP_IRO_SHIFT 8

/* GCMD and GSTS have the same places for command and status. */
#define GCMD_TE (1u << 31)
#define GCMD_SRTP (1u << 30)
#define GCMD_QIE (1u << 26)

/* RTADDR */
#define RTADDR_ADDRESS 0xfffffffffffff000ULL
#define RTADDR_TTM 0xc00ULL

/* CCMD */
#define CCMD_ICC (1ULL << 63)
#define CCMD_CIRG_SHIFT 61
#define CCMD_CAIG (3ULL << 59)
#define CCMD_CAIG_SHIFT 59

/* IOTLB and IVA */
#define IOTLB_IVT (1ULL << 63)
#define IOTLB_IIRG_SHIFT 60
#define IOTLB_IAIG (3ULL << 57)
#define IOTLB_IAIG_SHIFT 57

/* Granularities have the same numbers in both registers and in descriptors. */
enum vtd_granularity {
    VTD_GLOBAL = 1,
    VTD_DOMAIN = 2,
    VTD_SELECTIVE = 3, /* a device's contexts, or pages */
};

/* FSTS */
#define FSTS_PFO (1u << 0)
#define FSTS_PPF (1u << 1)
#define FSTS_IQE (1u << 4)
#define FSTS_ICE (1u << 5)
#define FSTS_ITE (1u << 6)
#define FSTS_FRI (0xffu << FSTS_FRI_SHIFT)
#define FSTS_FRI_SHIFT 8
#define FSTS_EVENTS (FSTS_PFO | FSTS_PPF | FSTS_IQE | FSTS_ICE | FSTS_ITE)

/* FECTL and IECTL */
#define ECTL_IM (1u << 31)
#define ECTL_IP (1u << 30)

/* ICS */
#define ICS_IWC 1u

/* IQA */
#define IQA_QS 7ULL
#define IQA_DW (1ULL << 11)
#define IQA_ADDRESS 0xfffffffffffff000ULL

/* IQERCD */
#define IQERCD_IQEI 0xfULL
#define IQERCD_ITESID_SHIFT 32
#define IQERCD_ICESID_SHIFT 48

/* Reasons for an invalidation queue error (IQEI). */
enum vtd_queue_error {
    IQEI_NONE = 0,
    IQEI_TAIL = 1,     /* the tail lies outside the queue */
    IQEI_FETCH = 2,    /* a descriptor cannot be read */
    IQEI_TYPE = 3,     /* its type is not one of this unit's */
    IQEI_RESERVED = 4, /* a reserved field is set, or a field has a reserved value */
    IQEI_WIDTH = 5,    /* IQA asks for 256-bit descriptors */
    IQEI_TTM = 7,      /* the root table's mode is not legacy */
};

/* Fault records: the upper quadword. */
#define FRCD_F (1ULL << 63)
#define FRCD_READ (1ULL << 62)   /* T1: a read or an atomic request */
#define FRCD_ATOMIC (1ULL << 28) /* T2, where T1 is set */
#define FRCD_AT_SHIFT 60
#define FRCD_REASON_SHIFT 32
#define FRCD_RESERVED 0x0fffff00efff0000ULL /* no bits of a record of this unit's */

/* Fault reasons of legacy mode (table 30). */
enum vtd_reason {
    VTD_OK = 0,
    VTD_ROOT_NOT_PRESENT = 0x1,
    VTD_CONTEXT_NOT_PRESENT = 0x2,
    VTD_CONTEXT_INVALID = 0x3, /* width or type unsupported, or first table unreadable */
    VTD_ADDRESS_TOO_LARGE = 0x4,
    VTD_NO_WRITE = 0x5,
    VTD_NO_READ = 0x6,
    VTD_TABLE_UNREADABLE = 0x7,
    VTD_ROOT_UNREADABLE = 0x8,
    VTD_CONTEXT_UNREADABLE = 0x9,
    VTD_ROOT_RESERVED = 0xa,
    VTD_CONTEXT_RESERVED = 0xb,
    VTD_ENTRY_RESERVED = 0xc,
    VTD_TYPE_BLOCKS = 0xd, /* the translation type forbids (translation or translated) requests */
    VTD_INTERRUPT_OUTPUT = 0xe,
    VTD_INTERRUPT_ACCESS = 0x29, /* not a 32-bit store to the interrupt address range */
    VTD_MODE_INVALID = 0x30,     /* RTADDR.TTM is not legacy */
};

/* Root and context entries (9.1, 9.3): the lower and the upper quadword. */
#define ROOT_PRESENT 1ULL
#define ROOT_RESERVED 0xffeULL
#define CONTEXT_PRESENT 1ULL
#define CONTEXT_FPD 2ULL
#define CONTEXT_TT_SHIFT 2
#define CONTEXT_RESERVED 0xff0ULL
#define CONTEXT_HIGH_AW 7ULL
#define CONTEXT_HIGH_DID_SHIFT 8
#define CONTEXT_HIGH_RESERVED 0xffffffffff000080ULL

enum vtd_translation_type {
    VTD_TT_UNTRANSLATED = 0,
    VTD_TT_DEVICE_TLB = 1,
    VTD_TT_PASS_THROUGH = 2,
};

/* Second-level paging entries in legacy mode (9.8). */
#define ENTRY_READ (1ULL << 0)
#define ENTRY_WRITE (1ULL << 1)
#define ENTRY_LARGE (1ULL << 7)
#define ENTRY_SNOOP (1ULL << 11)
#define ENTRY_RESERVED_62 (1ULL << 62)

/* Invalidation descriptors (6.5.2): type is bits 3:0 with 11:9 above them. */
enum vtd_descriptor {
    VTD_DESC_CONTEXT = 1,
    VTD_DESC_IOTLB = 2,
    VTD_DESC_DEVICE_TLB = 3,
    VTD_DESC_INTERRUPT_CACHE = 4,
    VTD_DESC_WAIT = 5,
};

#define DESC_CONTEXT_RESERVED_LOW 0x000000000000f1c0ULL
#define DESC_CONTEXT_RESERVED_TOP 0xfffc000000000000ULL
#define DESC_IOTLB_RESERVED_LOW 0xffffffff0000f100ULL
#define DESC_IOTLB_RESERVED_HIGH 0x0000000000000f80ULL
#define DESC_DEVICE_TLB_RESERVED_LOW 0xffff0000ffe0f1f0ULL
#define DESC_DEVICE_TLB_RESERVED_HIGH 0x0000000000000ffeULL
#define DESC_INTERRUPT_CACHE_RESERVED_LOW 0xffff000007fff1e0ULL
#define DESC_WAIT_RESERVED_LOW 0x00000000fffff180ULL
#define DESC_WAIT_RESERVED_HIGH 0x0000000000000003ULL
#define DESC_WAIT_IF (1ULL << 4)
#define DESC_WAIT_SW (1ULL << 5)
#define DESC_WAIT_FN (1ULL << 6)

/* The interrupt address range: 0xFEExxxxx. */
#define VTD_INTERRUPT_FIRST 0xfee00000ULL
#define VTD_INTERRUPT_LAST 0xfeefffffULL

#endif
