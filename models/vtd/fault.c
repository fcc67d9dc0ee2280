/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fault recording and the unit's two events (chapter 7 and 6.5.2.10).
 *
 * An event is a message with three bits around it: pending (IP), mask (IM), and the status bits that
 * software clears. A new condition raises the event only when no status bit was set before; the
 * message goes out, or stays pending while masked; it is forgotten when all status bits are clear.
 */
#include "vtd/unit.h"

static void message_send(struct vtd *vtd, enum vtd_register data, enum vtd_register address,
                         enum vtd_register upper)
{
    struct viommu_interrupt interrupt = {
        .address = vtd->state.reg[upper] << 32 | vtd->state.reg[address],
        .data = (uint32_t)vtd->state.reg[data],
        .requester = vtd->config.unit_requester,
        .from_unit = true,
    };

    iommu_post_interrupt(&vtd->iommu, &interrupt);
}

/* Sends what is pending and not masked. */
static void fault_message(struct vtd *vtd)
{
    uint64_t *control = &vtd->state.reg[REG_FECTL];

    if ((*control & (ECTL_IP | ECTL_IM)) == ECTL_IP) {
        *control &= ~(uint64_t)ECTL_IP;
        message_send(vtd, REG_FEDATA, REG_FEADDR, REG_FEUADDR);
    }
}

static void completion_message(struct vtd *vtd)
{
    uint64_t *control = &vtd->state.reg[REG_IECTL];

    if ((*control & (ECTL_IP | ECTL_IM)) == ECTL_IP) {
        *control &= ~(uint64_t)ECTL_IP;
        message_send(vtd, REG_IEDATA, REG_IEADDR, REG_IEUADDR);
    }
}

void vtd_fault_event(struct vtd *vtd, uint32_t bits)
{
    uint64_t *status = &vtd->state.reg[REG_FSTS];
    bool quiet = !(*status & FSTS_EVENTS);

    *status |= bits;
    if (quiet) {
        vtd->state.reg[REG_FECTL] |= ECTL_IP;
        fault_message(vtd);
    }
}

void vtd_fault_status_changed(struct vtd *vtd)
{
    uint64_t *status = &vtd->state.reg[REG_FSTS];
    bool pending = false;

    for (unsigned i = 0; i < vtd->config.fault_records; i++) {
        pending |= (vtd->state.fault[i].high & FRCD_F) != 0;
    }
    if (!pending) {
        *status &= ~(uint64_t)FSTS_PPF;
    }
    if (!(*status & FSTS_EVENTS)) {
        vtd->state.reg[REG_FECTL] &= ~(uint64_t)ECTL_IP;
    }
}

void vtd_fault_control_written(struct vtd *vtd)
{
    fault_message(vtd);
}

void vtd_completion_event(struct vtd *vtd)
{
    if (vtd->state.reg[REG_ICS] & ICS_IWC) {
        return;
    }
    vtd->state.reg[REG_ICS] |= ICS_IWC;
    vtd->state.reg[REG_IECTL] |= ECTL_IP;
    completion_message(vtd);
}

void vtd_completion_status_changed(struct vtd *vtd)
{
    if (!(vtd->state.reg[REG_ICS] & ICS_IWC)) {
        vtd->state.reg[REG_IECTL] &= ~(uint64_t)ECTL_IP;
    }
}

void vtd_completion_control_written(struct vtd *vtd)
{
    completion_message(vtd);
}

/* The address is cut at the widest address that the unit's tables translate (11.4.7.6). */
static void record_fill(const struct vtd *vtd, struct vtd_fault_record *record,
                        const struct dma_request *request, enum vtd_reason reason)
{
    bool write = (request->perm & VIOMMU_WRITE) && request->type != VIOMMU_DMA_TRANSLATION;

    record->low = request->iova & ~0xfffULL & ((1ULL << vtd->config.address_width) - 1);
    record->high = FRCD_F | (write ? 0 : FRCD_READ) |
                   (uint64_t)request->type << FRCD_AT_SHIFT |
                   (uint64_t)reason << FRCD_REASON_SHIFT | request->requester->id;
}

void vtd_fault_record(struct vtd *vtd, const struct dma_request *request, enum vtd_reason reason)
{
    struct vtd_state *state = &vtd->state;
    struct vtd_fault_record *record = &state->fault[state->fault_index];

    if (state->reg[REG_FSTS] & FSTS_PFO) {
        vtd->iommu.stats.faults_lost++;
        return;
    }
    if (record->high & FRCD_F) {
        /* An overflow by itself raises no event (7.3), and holds back later ones until cleared. */
        state->reg[REG_FSTS] |= FSTS_PFO;
        vtd->iommu.stats.faults_lost++;
        return;
    }
    record_fill(vtd, record, request, reason);
    vtd->iommu.stats.faults_recorded++;
    if (!(state->reg[REG_FSTS] & FSTS_PPF)) {
        state->reg[REG_FSTS] &= ~(0xffULL << FSTS_FRI_SHIFT);
        state->reg[REG_FSTS] |= (uint64_t)state->fault_index << FSTS_FRI_SHIFT;
        vtd_fault_event(vtd, FSTS_PPF);
    }
    state->fault_index = (state->fault_index + 1) % vtd->config.fault_records;
}
