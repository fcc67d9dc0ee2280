/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The register file (chapter 11.4).
 *
 * An access is a run of bytes anywhere in the register space. Each register that it touches gets
 * the bytes that fall into it, as if they had been written one by one and its effect came once,
 * after the last; so odd sizes and offsets need no cases of their own. Bytes of no register read 0
 * and are ignored. Registers of features that are never there are not in the table.
 */
#include "vtd/unit.h"

struct register_info {
    uint16_t offset;
    uint8_t size;
    uint64_t write;       /* bits that take what is written */
    uint64_t write_clear; /* bits that a written 1 clears */
    uint64_t status;      /* bits that the unit sets, besides */
};

static const struct register_info registers[VTD_REGISTER_COUNT] = {
    [REG_VER] = {0x000, 4, 0, 0, 0},
    [REG_CAP] = {0x008, 8, 0, 0, 0},
    [REG_ECAP] = {0x010, 8, 0, 0, 0},
    [REG_GCMD] = {VTD_GCMD_OFFSET, 4, 0, 0, 0},
    [REG_GSTS] = {0x01c, 4, 0, 0, GCMD_TE | GCMD_SRTP | GCMD_QIE},
    [REG_RTADDR] = {0x020, 8, RTADDR_ADDRESS | RTADDR_TTM, 0, 0},
    [REG_CCMD] = {VTD_CCMD_OFFSET, 8, 0xe0000003ffffffffULL, 0, CCMD_CAIG},
    [REG_FSTS] = {0x034, 4, 0, FSTS_PFO | FSTS_IQE | FSTS_ICE | FSTS_ITE,
                  FSTS_PPF | FSTS_FRI},
    [REG_FECTL] = {VTD_FECTL_OFFSET, 4, ECTL_IM, 0, ECTL_IP},
    [REG_FEDATA] = {0x03c, 4, 0xffff, 0, 0},
    [REG_FEADDR] = {0x040, 4, 0xfffffffc, 0, 0},
    [REG_FEUADDR] = {0x044, 4, 0xffffffff, 0, 0},
    [REG_IQH] = {0x080, 8, 0, 0, 0x7fff0},
    [REG_IQT] = {0x088, 8, 0x7fff0, 0, 0},
    [REG_IQA] = {0x090, 8, IQA_ADDRESS | IQA_DW | IQA_QS, 0, 0},
    [REG_ICS] = {0x09c, 4, 0, ICS_IWC, 0},
    [REG_IECTL] = {VTD_IECTL_OFFSET, 4, ECTL_IM, 0, ECTL_IP},
    [REG_IEDATA] = {0x0a4, 4, 0xffff, 0, 0},
    [REG_IEADDR] = {0x0a8, 4, 0xfffffffc, 0, 0},
    [REG_IEUADDR] = {0x0ac, 4, 0xffffffff, 0, 0},
    [REG_IQERCD] = {0x0b0, 8, 0, 0, 0xffffffff0000000fULL},
    [REG_IVA] = {VTD_IRO, 8, 0xfffffffffffff07fULL, 0, 0},
    [REG_IOTLB] = {VTD_IRO + 8, 8, 0xb003ffff00000000ULL, 0, IOTLB_IAIG},
};

void vtd_registers_reset(struct vtd *vtd)
{
    vtd->state = (struct vtd_state){
        .reg =
            {
                [REG_VER] = VTD_VER_VALUE,
                [REG_CAP] = vtd->cap,
                [REG_ECAP] = vtd->ecap,
                [REG_FECTL] = ECTL_IM,
            },
    };
    if (vtd->ecap & ECAP_QI) {
        vtd->state.reg[REG_IECTL] = ECTL_IM;
    }
}

/* Whether the register exists in this configuration. */
static bool register_exists(const struct vtd *vtd, unsigned i)
{
    bool of_queue = i >= REG_IQH && i <= REG_IQERCD;

    return !of_queue || (vtd->ecap & ECAP_QI);
}

bool vtd_registers_valid(const struct vtd *vtd, const uint64_t *reg)
{
    for (unsigned i = REG_GCMD; i < VTD_REGISTER_COUNT; i++) {
        const struct register_info *info = &registers[i];
        uint64_t bits = info->write | info->write_clear | info->status;

        if (reg[i] & ~(register_exists(vtd, i) ? bits : 0)) {
            return false;
        }
    }
    return true;
}

/*
 * The bytes of [offset, offset + size - 1] that fall into [at, at + width - 1]: `mask` has them
 * set, as they lie in the register; `shift` is how far the access's value moves up (or down,
 * negative).
 */
struct overlap {
    uint64_t mask;
    int shift;
};

static bool overlap_find(uint64_t offset, unsigned size, uint64_t at, unsigned width,
                         struct overlap *overlap)
{
    uint64_t first = offset > at ? offset : at;
    uint64_t end = offset + size < at + width ? offset + size : at + width;
    uint64_t bytes;

    if (first >= end) {
        return false;
    }
    bytes = end - first;
    overlap->mask = (bytes == 8 ? UINT64_MAX : (1ULL << bytes * 8) - 1) << (first - at) * 8;
    overlap->shift = ((int)(offset - at)) * 8;
    return true;
}

static uint64_t move(uint64_t value, int shift)
{
    if (shift <= -64 || shift >= 64) {
        return 0;
    }
    return shift >= 0 ? value << shift : value >> -shift;
}

/* The first register that ends behind an address: the table is in order of addresses. */
static unsigned first_behind(uint64_t offset)
{
    unsigned low = 0;
    unsigned high = VTD_REGISTER_COUNT;

    while (low < high) {
        unsigned mid = (low + high) / 2;

        if (registers[mid].offset + registers[mid].size <= offset) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

/* Whether a register begins before the end of an access. */
static bool begins_before(unsigned i, uint64_t end)
{
    return i < VTD_REGISTER_COUNT && registers[i].offset < end;
}

/* What a guest reads: some bits are never shown. */
static uint64_t register_value(const struct vtd *vtd, unsigned i)
{
    return i == REG_GCMD || i == REG_IVA ? 0 : vtd->state.reg[i];
}

/*
 * The half of a record that an access begins in, or before; it ends in the next one at the latest.
 */
static unsigned first_half(uint64_t offset)
{
    return offset > VTD_FRO ? (unsigned)(offset - VTD_FRO) / 8 : 0;
}

static uint64_t record_read(const struct vtd *vtd, uint64_t offset, unsigned size)
{
    uint64_t value = 0;
    struct overlap overlap;
    unsigned end = first_half(offset) + 2;

    for (unsigned i = first_half(offset); i < end && i < 2u * vtd->config.fault_records; i++) {
        const struct vtd_fault_record *record = &vtd->state.fault[i / 2];

        if (overlap_find(offset, size, VTD_FRO + 8 * i, 8, &overlap)) {
            value |= move((i % 2 ? record->high : record->low) & overlap.mask, -overlap.shift);
        }
    }
    return value;
}

/* Whether an access lies where no register is: past the end, or so high that it would wrap. */
static bool outside(uint64_t offset)
{
    return offset >= VTD_REGISTER_SIZE;
}

uint64_t vtd_mmio_read(struct viommu *iommu, uint64_t offset, unsigned size)
{
    struct vtd *vtd = vtd_of(iommu);
    uint64_t value = 0;
    struct overlap overlap;

    if (outside(offset)) {
        return 0;
    }
    for (unsigned i = first_behind(offset); begins_before(i, offset + size); i++) {
        const struct register_info *info = &registers[i];

        if (register_exists(vtd, i) &&
            overlap_find(offset, size, info->offset, info->size, &overlap)) {
            value |= move(register_value(vtd, i) & overlap.mask, -overlap.shift);
        }
    }
    if (offset + size > VTD_FRO) {
        value |= record_read(vtd, offset, size);
    }
    return value;
}

/* What follows from a write, once the register has its new value. */
static void register_effect(struct vtd *vtd, unsigned i, uint64_t written, uint64_t covered)
{
    switch (i) {
    case REG_GCMD:
        vtd_command_written(vtd, (uint32_t)written, (uint32_t)covered);
        break;
    case REG_FSTS:
        vtd_fault_status_changed(vtd);
        break;
    case REG_FECTL:
        vtd_event_control_written(vtd, EVENT_FAULT);
        break;
    case REG_ICS:
        vtd_completion_status_changed(vtd);
        break;
    case REG_IECTL:
        vtd_event_control_written(vtd, EVENT_COMPLETION);
        break;
    default:
        break;
    }
    iommu_kick(&vtd->iommu);
}

/*
 * A command bit at the top of CCMD and IOTLB fires when its byte is written, and while it is set
 * the register belongs to the unit: writes are ignored until it has cleared.
 */
static bool register_busy(const struct vtd *vtd, unsigned i)
{
    return (i == REG_CCMD && (vtd->state.reg[i] & CCMD_ICC)) ||
           (i == REG_IOTLB && (vtd->state.reg[i] & IOTLB_IVT));
}

static void register_write(struct vtd *vtd, unsigned i, uint64_t written, uint64_t covered)
{
    const struct register_info *info = &registers[i];
    uint64_t *value = &vtd->state.reg[i];

    if (register_busy(vtd, i)) {
        return;
    }
    *value = (*value & ~(info->write & covered)) | (written & info->write & covered);
    *value &= ~(written & info->write_clear & covered);
    register_effect(vtd, i, written, covered);
}

/* Only the F bits can be written: 1 clears. */
static void record_write(struct vtd *vtd, uint64_t offset, unsigned size, uint64_t written)
{
    struct overlap overlap;
    unsigned end = first_half(offset) / 2 + 2;

    for (unsigned i = first_half(offset) / 2; i < end && i < vtd->config.fault_records; i++) {
        if (overlap_find(offset, size, VTD_FRO + 16 * i + 8, 8, &overlap) &&
            (move(written, overlap.shift) & overlap.mask & FRCD_F)) {
            vtd->state.fault[i].high &= ~FRCD_F;
            vtd_fault_status_changed(vtd);
        }
    }
}

void vtd_mmio_write(struct viommu *iommu, uint64_t offset, unsigned size, uint64_t value)
{
    struct vtd *vtd = vtd_of(iommu);
    struct overlap overlap;

    if (outside(offset)) {
        return;
    }
    for (unsigned i = first_behind(offset); begins_before(i, offset + size); i++) {
        const struct register_info *info = &registers[i];

        if (register_exists(vtd, i) &&
            overlap_find(offset, size, info->offset, info->size, &overlap)) {
            register_write(vtd, i, move(value, overlap.shift) & overlap.mask, overlap.mask);
        }
    }
    if (offset + size > VTD_FRO) {
        record_write(vtd, offset, size, value);
    }
}
