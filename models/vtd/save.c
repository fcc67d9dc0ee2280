/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The unit's part of a saved state.
 *
 * Structure, version 1: the configuration as a guest sees it (CAP, ECAP, the width of addresses of
 * memory, the id of the unit's messages); registers, by their place in enum vtd_register; fault
 * records, as many as there are; the rest of vtd_state; and what is under way besides.
 *
 * What is read is checked against everything that the rest of the unit takes for granted, and
 * against what its own steps can lead to: a state that no guest could have brought about is
 * refused.
 */
#include "base/alloc.h"
#include "vtd/unit.h"

#include <errno.h>

struct vtd_saved {
    struct vtd_state state;
    uint32_t command_bit;
    uint8_t set_root_again;
    uint32_t again; /* descriptors under way */
};

void vtd_save(struct viommu *iommu, struct save_writer *writer)
{
    const struct vtd *vtd = vtd_of(iommu);
    const struct vtd_state *state = &vtd->state;

    save_put64(writer, vtd->cap);
    save_put64(writer, vtd->ecap);
    save_put8(writer, vtd->config.host_address_width);
    save_put16(writer, vtd->config.unit_requester);
    for (unsigned i = REG_GCMD; i < VTD_REGISTER_COUNT; i++) {
        save_put64(writer, state->reg[i]);
    }
    for (unsigned i = 0; i < vtd->config.fault_records; i++) {
        save_put64(writer, state->fault[i].low);
        save_put64(writer, state->fault[i].high);
    }
    save_put64(writer, state->root);
    save_put32(writer, state->fault_index);
    save_put32(writer, state->wanted);
    save_put32(writer, state->set_root);
    save_put32(writer, state->translating);
    for (unsigned i = 0; i < 2; i++) {
        save_put64(writer, state->message[i].address);
        save_put32(writer, state->message[i].data);
        save_put32(writer, state->message[i].due);
    }
    save_put32(writer, vtd->command_bit);
    save_put8(writer, vtd->set_root_again);
    save_put32(writer, vtd->queue.count + vtd->queue.again);
}

/* Whether it is of a unit that a guest cannot tell from this one. */
static bool config_read(const struct vtd *vtd, struct save_section *section)
{
    uint64_t cap = save_get64(section);
    uint64_t ecap = save_get64(section);
    uint8_t host_address_width = save_get8(section);
    uint16_t unit_requester = save_get16(section);

    return cap == vtd->cap && ecap == vtd->ecap &&
           host_address_width == vtd->config.host_address_width &&
           unit_requester == vtd->config.unit_requester;
}

static void saved_read(const struct vtd *vtd, struct save_section *section,
                       struct vtd_saved *saved)
{
    struct vtd_state *state = &saved->state;

    state->reg[REG_VER] = VTD_VER_VALUE;
    state->reg[REG_CAP] = vtd->cap;
    state->reg[REG_ECAP] = vtd->ecap;
    for (unsigned i = REG_GCMD; i < VTD_REGISTER_COUNT; i++) {
        state->reg[i] = save_get64(section);
    }
    for (unsigned i = 0; i < vtd->config.fault_records; i++) {
        state->fault[i].low = save_get64(section);
        state->fault[i].high = save_get64(section);
    }
    state->root = save_get64(section);
    state->fault_index = save_get32(section);
    state->wanted = save_get32(section);
    state->set_root = save_get32(section);
    state->translating = save_get32(section);
    for (unsigned i = 0; i < 2; i++) {
        state->message[i].address = save_get64(section);
        state->message[i].data = save_get32(section);
        state->message[i].due = save_get32(section);
    }
    saved->command_bit = save_get32(section);
    saved->set_root_again = save_get8(section);
    saved->again = save_get32(section);
}

static bool records_valid(const struct vtd *vtd, const struct vtd_state *state)
{
    uint64_t outside = ~((1ULL << vtd->config.address_width) - 1) | 0xfff;
    uint64_t status = state->reg[REG_FSTS];
    bool pending = false;

    for (unsigned i = 0; i < vtd->config.fault_records; i++) {
        if ((state->fault[i].low & outside) || (state->fault[i].high & FRCD_RESERVED)) {
            return false;
        }
        pending |= (state->fault[i].high & FRCD_F) != 0;
    }
    return pending == ((status & FSTS_PPF) != 0) &&
           (status & FSTS_FRI) >> FSTS_FRI_SHIFT < vtd->config.fault_records &&
           state->fault_index < vtd->config.fault_records;
}

/* A message waits only while it is masked, and while there is a reason for it. */
static bool event_valid(uint64_t control, bool reason)
{
    return !(control & ECTL_IP) || ((control & ECTL_IM) && reason);
}

static bool messages_valid(const struct vtd_state *state)
{
    for (unsigned i = 0; i < 2; i++) {
        const struct vtd_message *message = &state->message[i];

        if ((message->address & 3) || message->data > 0xffff || message->due > 1) {
            return false;
        }
    }
    return event_valid(state->reg[REG_FECTL], state->reg[REG_FSTS] & FSTS_EVENTS) &&
           event_valid(state->reg[REG_IECTL], state->reg[REG_ICS] & ICS_IWC);
}

static bool commands_valid(const struct vtd *vtd, const struct vtd_saved *saved)
{
    const struct vtd_state *state = &saved->state;
    uint32_t status = (uint32_t)state->reg[REG_GSTS];
    uint32_t lasting = GCMD_TE | (vtd->ecap & ECAP_QI ? GCMD_QIE : 0);
    bool enabling = (state->translating ^ status) & GCMD_TE;

    if ((status & ~(lasting | GCMD_SRTP)) || (state->wanted & ~lasting) ||
        (state->translating & ~GCMD_TE) || (state->set_root & ~GCMD_SRTP) ||
        (state->root & ~(RTADDR_ADDRESS | RTADDR_TTM))) {
        return false;
    }
    /* A set-root-pointer shows in GSTS when it is complete. */
    if ((state->set_root && (status & GCMD_SRTP)) ||
        saved->set_root_again > (saved->command_bit == GCMD_SRTP)) {
        return false;
    }
    switch (saved->command_bit) {
    case 0:
        return !enabling;
    case GCMD_SRTP:
        return !enabling && state->set_root;
    case GCMD_QIE:
        return !enabling && (vtd->ecap & ECAP_QI);
    case GCMD_TE:
        return enabling;
    default:
        return false;
    }
}

/* The unit does not fetch while there is an error, nor before the queue is on. */
static bool queue_valid(const struct vtd_saved *saved)
{
    const uint64_t *reg = saved->state.reg;

    return !saved->again ||
           (saved->again <= VTD_OPERATIONS && (reg[REG_GSTS] & GCMD_QIE) &&
            !(reg[REG_FSTS] & (FSTS_IQE | FSTS_ITE)));
}

int vtd_decode(struct viommu *iommu, struct save_section *section, void **state)
{
    const struct vtd *vtd = vtd_of(iommu);
    struct vtd_saved *saved;
    int ret;

    if (!config_read(vtd, section)) {
        return section->error ? section->error : -EINVAL;
    }
    saved = base_alloc(sizeof(*saved));
    if (!saved) {
        return -ENOMEM;
    }
    *state = saved;
    saved_read(vtd, section, saved);
    ret = save_close(section);
    if (ret) {
        return ret;
    }
    return vtd_registers_valid(vtd, saved->state.reg) && records_valid(vtd, &saved->state) &&
                   messages_valid(&saved->state) && commands_valid(vtd, saved) &&
                   queue_valid(saved)
               ? 0
               : -EBADMSG;
}

void vtd_restore(struct viommu *iommu, const void *state)
{
    struct vtd *vtd = vtd_of(iommu);
    const struct vtd_saved *saved = state;

    vtd->state = saved->state;
    vtd_queue_resume(vtd, saved->again);
    vtd_commands_resume(vtd, saved->command_bit, saved->set_root_again != 0);
}
