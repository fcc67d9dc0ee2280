/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Commands: GCMD (11.4.4), and invalidation through CCMD and IOTLB (11.4.6, 11.4.5).
 *
 * A command takes effect at once for requests that begin after it; its status bit changes (or its
 * command bit clears) only when the requests that began before have ended and the invalidations
 * that were started before have retired. The bits of one GCMD write are carried out one after
 * another: root pointer, queue, translation.
 */
#include "vtd/unit.h"

#include "iommu/watch.h"

void vtd_commands_reset(struct vtd *vtd)
{
    notify_forget(&vtd->iommu, &vtd->command.operation.wait);
    notify_forget(&vtd->iommu, &vtd->context_command.operation.wait);
    notify_forget(&vtd->iommu, &vtd->iotlb_command.operation.wait);
    vtd->command = (struct vtd_command){0};
    vtd->command_bit = 0;
    vtd->set_root_again = false;
    vtd->context_command = (struct vtd_command){0};
    vtd->iotlb_command = (struct vtd_command){0};
}

void vtd_command_written(struct vtd *vtd, uint32_t value, uint32_t covered)
{
    struct vtd_state *state = &vtd->state;
    uint32_t lasting = GCMD_TE | (vtd->ecap & ECAP_QI ? GCMD_QIE : 0);

    state->wanted = (state->wanted & ~covered) | (value & covered & lasting);
    if (value & covered & GCMD_SRTP) {
        state->set_root = GCMD_SRTP;
        state->reg[REG_GSTS] &= ~(uint64_t)GCMD_SRTP;
        vtd->set_root_again = vtd->command_bit == GCMD_SRTP;
    }
}

static void command_begin(struct vtd *vtd, struct vtd_command *command, uint64_t low, uint64_t high)
{
    command->operation = (struct vtd_operation){.low = low, .high = high};
    command->after = vtd->queue.started + vtd->queue.again;
    command->active = true;
}

/*
 * After a restore it waits for descriptors that are yet to be fetched again, as far as they are
 * there to be.
 */
static bool command_over(const struct vtd *vtd, const struct vtd_command *command)
{
    uint64_t started = vtd->queue.started + vtd->queue.again;
    uint64_t after = command->after < started ? command->after : started;

    return command->operation.phase == PHASE_DONE && vtd->queue.retired >= after;
}

static uint32_t next_bit(const struct vtd_state *state)
{
    uint32_t differs = state->wanted ^ (uint32_t)state->reg[REG_GSTS];

    if (state->set_root) {
        return GCMD_SRTP;
    }
    return differs & GCMD_QIE ? GCMD_QIE : differs & GCMD_TE;
}

static void bit_begin(struct vtd *vtd, uint32_t bit)
{
    struct vtd_state *state = &vtd->state;

    command_begin(vtd, &vtd->command, 0, 0);
    vtd->command_bit = bit;
    watch_command(&vtd->iommu, VTD_GCMD_OFFSET, bit, 0, 0);
    if (bit == GCMD_QIE) {
        vtd->command.operation.phase = PHASE_DONE;
        return;
    }
    if (bit == GCMD_SRTP) {
        state->root = state->reg[REG_RTADDR];
    } else {
        state->translating = state->wanted & GCMD_TE;
    }
    vtd_operation_start_over(vtd, &vtd->command.operation);
}

void vtd_commands_resume(struct vtd *vtd, uint32_t bit, bool set_root_again)
{
    if (!bit) {
        return;
    }
    command_begin(vtd, &vtd->command, 0, 0);
    vtd->command_bit = bit;
    vtd->set_root_again = set_root_again;
    if (bit == GCMD_QIE) {
        vtd->command.operation.phase = PHASE_DONE;
    } else {
        vtd_operation_start_over(vtd, &vtd->command.operation);
    }
}

static void bit_end(struct vtd *vtd)
{
    struct vtd_state *state = &vtd->state;
    uint64_t *status = &state->reg[REG_GSTS];

    switch (vtd->command_bit) {
    case GCMD_SRTP:
        if (!vtd->set_root_again) {
            state->set_root = 0;
            *status |= GCMD_SRTP;
        }
        vtd->set_root_again = false;
        break;
    case GCMD_QIE:
        *status ^= GCMD_QIE;
        state->reg[REG_IQH] = 0;
        vtd->queue.fetch = 0;
        break;
    case GCMD_TE:
        *status = (*status & ~(uint64_t)GCMD_TE) | state->translating;
        if (!state->translating) {
            state->fault_index = 0;
        }
        break;
    }
    vtd->command.active = false;
    watch_completed(&vtd->iommu, VTD_GCMD_OFFSET, vtd->command_bit);
    vtd->command_bit = 0;
}

static bool global_step(struct vtd *vtd)
{
    uint32_t bit;

    if (vtd->command.active) {
        bool moved = vtd_operation_advance(vtd, &vtd->command.operation);

        if (!command_over(vtd, &vtd->command)) {
            return moved;
        }
        bit_end(vtd);
        return true;
    }
    bit = next_bit(&vtd->state);
    if (bit) {
        bit_begin(vtd, bit);
    }
    return bit != 0;
}

/* Registers may invalidate only in legacy mode and while the queue is off (6.5.1). */
static bool registers_allowed(const struct vtd *vtd)
{
    return !(vtd->state.reg[REG_GSTS] & GCMD_QIE) && !(vtd->state.root & RTADDR_TTM);
}

/* A register whose top bit asks for an invalidation and clears when it is complete. */
struct invalidation_register {
    enum vtd_register reg;
    uint64_t offset;
    uint64_t busy;           /* the bit that asks */
    uint64_t actual;         /* where the granularity carried out is reported */
    unsigned actual_shift;
    unsigned requested_shift;
};

static const struct invalidation_register context_register = {
    REG_CCMD, VTD_CCMD_OFFSET, CCMD_ICC, CCMD_CAIG, CCMD_CAIG_SHIFT, CCMD_CIRG_SHIFT,
};
static const struct invalidation_register iotlb_register = {
    REG_IOTLB, VTD_IRO + 8, IOTLB_IVT, IOTLB_IAIG, IOTLB_IAIG_SHIFT, IOTLB_IIRG_SHIFT,
};

/* The request as a descriptor. Returns false for one that is not correct. */
static bool request_decode(const struct vtd *vtd, const struct invalidation_register *info,
                           uint64_t granularity, uint64_t *low, uint64_t *high)
{
    uint64_t value = vtd->state.reg[info->reg];

    if (!granularity || !registers_allowed(vtd)) {
        return false;
    }
    if (info->reg == REG_CCMD) {
        *low = VTD_DESC_CONTEXT | granularity << 4 | (value & 0xffff) << 16 |
               (value >> 16 & 0xffff) << 32 | (value >> 32 & 3) << 48;
        *high = 0;
        return true;
    }
    *low = VTD_DESC_IOTLB | granularity << 4 | (value >> 32 & 0xffff) << 16;
    *high = vtd->state.reg[REG_IVA];
    return granularity != VTD_SELECTIVE || (*high & 0x3f) <= VTD_MAMV;
}

static void request_end(struct vtd *vtd, const struct invalidation_register *info,
                        struct vtd_command *command, uint64_t granularity)
{
    uint64_t *value = &vtd->state.reg[info->reg];

    command->active = false;
    *value = (*value & ~(info->busy | info->actual)) | granularity << info->actual_shift;
    watch_completed(&vtd->iommu, info->offset, *value);
}

static bool request_step(struct vtd *vtd, const struct invalidation_register *info,
                         struct vtd_command *command)
{
    uint64_t granularity = vtd->state.reg[info->reg] >> info->requested_shift & 3;
    uint64_t low;
    uint64_t high;
    bool moved;

    if (!(vtd->state.reg[info->reg] & info->busy)) {
        return false;
    }
    if (command->active) {
        moved = vtd_operation_advance(vtd, &command->operation);
        if (!command_over(vtd, command)) {
            return moved;
        }
        request_end(vtd, info, command, granularity);
    } else if (request_decode(vtd, info, granularity, &low, &high)) {
        command_begin(vtd, command, low, high);
        watch_command(&vtd->iommu, info->offset, vtd->state.reg[info->reg], low, high);
        vtd_operation_start(vtd, &command->operation);
    } else {
        request_end(vtd, info, command, 0);
    }
    return true;
}

bool vtd_commands_step(struct vtd *vtd)
{
    bool moved = global_step(vtd);

    moved |= request_step(vtd, &context_register, &vtd->context_command);
    moved |= request_step(vtd, &iotlb_register, &vtd->iotlb_command);
    return moved;
}

static bool command_draining(const struct vtd *vtd, const struct vtd_command *command)
{
    return command->active && vtd_operation_draining(vtd, &command->operation);
}

bool vtd_commands_draining(const struct vtd *vtd)
{
    return command_draining(vtd, &vtd->command) || command_draining(vtd, &vtd->context_command) ||
           command_draining(vtd, &vtd->iotlb_command);
}
