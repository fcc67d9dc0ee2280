/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fault recording and the unit's two events (chapter 7 and 6.5.2.10).
 *
 * An event is a message with three bits around it: pending (IP), mask (IM), and the status bits
 * that software clears. A new condition raises the event only when no status bit was set before;
 * the message goes out, or stays pending while masked; it is forgotten when all status bits are
 * clear.
 */
#include "vtd/unit.h"

#include "iommu/watch.h"

#include <errno.h>

/* The registers around each event. */
static const struct {
    uint64_t offset; /* of the control register */
    enum vtd_register control;
    enum vtd_register data;
    enum vtd_register address;
    enum vtd_register upper;
} events[] = {
    [EVENT_FAULT] = {VTD_FECTL_OFFSET, REG_FECTL, REG_FEDATA, REG_FEADDR, REG_FEUADDR},
    [EVENT_COMPLETION] = {VTD_IECTL_OFFSET, REG_IECTL, REG_IEDATA, REG_IEADDR, REG_IEUADDR},
};

/* Sends the event's message if it is pending and not masked. */
void vtd_event_control_written(struct vtd *vtd, enum vtd_event event)
{
    uint64_t *reg = vtd->state.reg;
    uint64_t *control = &reg[events[event].control];

    if ((*control & (ECTL_IP | ECTL_IM)) != ECTL_IP) {
        return;
    }
    *control &= ~(uint64_t)ECTL_IP;
    vtd->state.message[event] = (struct vtd_message){
        .address = reg[events[event].upper] << 32 | reg[events[event].address],
        .data = (uint32_t)reg[events[event].data],
        .due = 1,
    };
    watch_message(&vtd->iommu, events[event].offset, vtd->state.message[event].address,
                  vtd->state.message[event].data);
    iommu_kick(&vtd->iommu);
}

static void event_raise(struct vtd *vtd, enum vtd_event event)
{
    vtd->state.reg[events[event].control] |= ECTL_IP;
    vtd_event_control_written(vtd, event);
}

static void event_forget(struct vtd *vtd, enum vtd_event event)
{
    vtd->state.reg[events[event].control] &= ~(uint64_t)ECTL_IP;
}

bool vtd_take_message(struct viommu *iommu, struct viommu_interrupt *out)
{
    struct vtd *vtd = vtd_of(iommu);

    for (unsigned i = 0; i < 2; i++) {
        struct vtd_message *message = &vtd->state.message[i];

        if (message->due) {
            message->due = 0;
            *out = (struct viommu_interrupt){
                .address = message->address,
                .data = message->data,
                .requester = vtd->config.unit_requester,
                .from_unit = true,
            };
            return true;
        }
    }
    return false;
}

void vtd_fault_event(struct vtd *vtd, uint32_t bits)
{
    uint64_t *status = &vtd->state.reg[REG_FSTS];
    bool quiet = !(*status & FSTS_EVENTS);

    *status |= bits;
    if (quiet) {
        event_raise(vtd, EVENT_FAULT);
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
        event_forget(vtd, EVENT_FAULT);
    }
}

void vtd_completion_event(struct vtd *vtd)
{
    if (vtd->state.reg[REG_ICS] & ICS_IWC) {
        return;
    }
    vtd->state.reg[REG_ICS] |= ICS_IWC;
    event_raise(vtd, EVENT_COMPLETION);
}

void vtd_completion_status_changed(struct vtd *vtd)
{
    if (!(vtd->state.reg[REG_ICS] & ICS_IWC)) {
        event_forget(vtd, EVENT_COMPLETION);
    }
}

/*
 * The address is cut at the widest address that the unit's tables translate (11.4.7.6). A request
 * that reads and writes is an atomic one; translation requests are reads on a bus.
 */
static void record_fill(const struct vtd *vtd, struct vtd_fault_record *record,
                        const struct dma_request *request, enum vtd_reason reason)
{
    bool write = (request->perm & VIOMMU_WRITE) && request->type != VIOMMU_DMA_TRANSLATION;
    bool read = !write || (request->perm & VIOMMU_READ);

    record->low = request->iova & ~0xfffULL & ((1ULL << vtd->config.address_width) - 1);
    record->high = FRCD_F | (read ? FRCD_READ : 0) | (read && write ? FRCD_ATOMIC : 0) |
                   (uint64_t)request->type << FRCD_AT_SHIFT |
                   (uint64_t)reason << FRCD_REASON_SHIFT | request->requester->id;
}

void vtd_fault_record(struct vtd *vtd, const struct dma_request *request, enum vtd_reason reason)
{
    struct vtd_state *state = &vtd->state;
    struct vtd_fault_record *record = &state->fault[state->fault_index];

    if ((state->reg[REG_FSTS] & FSTS_PFO) || (record->high & FRCD_F)) {
        /* An overflow by itself raises no event (7.3), and holds back later ones until cleared. */
        state->reg[REG_FSTS] |= FSTS_PFO;
        vtd->iommu.stats.faults_lost++;
        watch_fault(&vtd->iommu, request, reason, 0, -ENOSPC);
        return;
    }
    record_fill(vtd, record, request, reason);
    vtd->iommu.stats.faults_recorded++;
    watch_fault(&vtd->iommu, request, reason, state->fault_index, 0);
    if (!(state->reg[REG_FSTS] & FSTS_PPF)) {
        state->reg[REG_FSTS] &= ~(uint64_t)FSTS_FRI;
        state->reg[REG_FSTS] |= (uint64_t)state->fault_index << FSTS_FRI_SHIFT;
        vtd_fault_event(vtd, FSTS_PPF);
    }
    state->fault_index = (state->fault_index + 1) % vtd->config.fault_records;
}
