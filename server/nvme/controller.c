/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Registers, and what they do: enabling, shutdown, reset.
 *
 * States. *Stopped*: CC.EN and CSTS.RDY clear. *Enabled*: both set; there are queues. *Resetting*:
 * CC.EN clear, CSTS.RDY still set: the queues are gone, but workers still use memory of the guest.
 * When they have ended, or reset_ms have passed, the controller is stopped. *Failed*: CSTS.CFS;
 * only a reset leads out of it.
 */
#include "device.h"

#include <linux/pci_regs.h>
#include <string.h>

#include "../log.h"

enum {
    CAP_TIMEOUT = 40, /* in 500 ms: how long drivers wait for CSTS.RDY */
    PAGE_SHIFT_MIN = 12,
    ENTRY_ALIGN = 4096,
    TABLE_OFFSET = 0x2000,
    PENDING_OFFSET = 0x3000,
    REGISTERS_END = 0x1000,
};

unsigned nvme_page_shift(const struct nvme *nvme)
{
    return PAGE_SHIFT_MIN + NVME_CC_MPS(nvme->state.cc);
}

bool nvme_page_size_known(uint32_t cc)
{
    return PAGE_SHIFT_MIN + NVME_CC_MPS(cc) <= NVME_PAGE_SHIFT_MAX;
}

bool nvme_enabled(const struct nvme *nvme)
{
    return (nvme->state.cc & NVME_CC_EN) && (nvme->state.csts & NVME_CSTS_RDY);
}

bool nvme_running(const struct nvme *nvme)
{
    return nvme_enabled(nvme) && !nvme->quiesced &&
           !(nvme->state.csts & (NVME_CSTS_CFS | NVME_CSTS_SHST)) &&
           pci_config_bus_master(&nvme->function.config);
}

void nvme_fatal(struct nvme *nvme, const char *what, int error)
{
    if (nvme->state.csts & NVME_CSTS_CFS) {
        return;
    }
    nvme->state.csts |= NVME_CSTS_CFS;
    nvme->stats.fatal++;
    if (!nvme->fatal_logged) {
        nvme->fatal_logged = true;
        server_log("%s: the controller has failed: %s: %s", nvme->name, what, strerror(-error));
    }
}

/* ---- enabling and reset -------------------------------------------------------------------- */

static uint64_t capabilities(void)
{
    return (uint64_t)(NVME_QUEUE_ENTRIES_MAX - 1) | /* MQES */
           UINT64_C(1) << 16 |                      /* CQR: queues are contiguous */
           (uint64_t)CAP_TIMEOUT << 24 |            /* TO */
           UINT64_C(1) << 37 |                      /* CSS: NVM command set */
           (uint64_t)(NVME_PAGE_SHIFT_MAX - PAGE_SHIFT_MIN) << 52; /* MPSMAX; MPSMIN is 4 KiB */
}

static bool can_enable(const struct nvme_state *state)
{
    uint32_t cc = state->cc;
    uint64_t page = UINT64_C(1) << (PAGE_SHIFT_MIN + NVME_CC_MPS(cc));

    return NVME_CC_CSS(cc) == 0 && NVME_CC_AMS(cc) == 0 &&
           nvme_page_size_known(cc) && (state->aqa & 0xfff) != 0 &&
           (state->aqa >> 16 & 0xfff) != 0 && state->asq % page == 0 && state->acq % page == 0;
}

static void enable(struct nvme *nvme)
{
    struct nvme_state *state = &nvme->state;

    if (!can_enable(state)) {
        state->csts |= NVME_CSTS_CFS;
        nvme->stats.fatal++;
        return;
    }
    state->sq[0] = (struct nvme_sq){
        .base = state->asq,
        .entries = (state->aqa & 0xfff) + 1,
        .exists = true,
    };
    state->cq[0] = (struct nvme_cq){
        .base = state->acq,
        .entries = (state->aqa >> 16 & 0xfff) + 1,
        .interrupts = true,
        .phase = true,
        .exists = true,
    };
    state->csts |= NVME_CSTS_RDY;
}

/* What every reset of the controller does: all queues and all that was in flight are gone. */
static void reset_controller(struct nvme *nvme)
{
    struct nvme_state *state = &nvme->state;

    nvme_drop_commands(nvme);
    memset(state->sq, 0, sizeof(state->sq));
    memset(state->cq, 0, sizeof(state->cq));
    state->interrupt_mask = 0;
    state->async_count = 0;
    memset(state->events_pending, 0, sizeof(state->events_pending));
    memset(state->events_masked, 0, sizeof(state->events_masked));
    state->namespace_changed = false;
    nvme_features_init(nvme);
    nvme->next_sq = 0;
    nvme->stats.resets++;
    nvme_update_line(nvme);
}

void nvme_reset_progress(struct nvme *nvme)
{
    struct nvme_state *state = &nvme->state;

    if (!(state->cc & NVME_CC_EN) && (state->csts & NVME_CSTS_RDY) &&
        (nvme->stale == 0 || nvme->now_ms() >= nvme->reset_deadline)) {
        state->csts &= ~NVME_CSTS_RDY;
    }
}

static void disable(struct nvme *nvme)
{
    bool ready = nvme->state.csts & NVME_CSTS_RDY;

    reset_controller(nvme);
    nvme->state.csts = ready ? NVME_CSTS_RDY : 0;
    nvme->reset_deadline = nvme->now_ms() + nvme->config.reset_ms;
    nvme_reset_progress(nvme);
}

/* ---- shutdown ------------------------------------------------------------------------------ */

/* What the guest wrote is on stable storage before the shutdown is complete. Queues leave a command
 * free for it. */
static void begin_shutdown(struct nvme *nvme)
{
    struct nvme_command *command;

    if (nvme->config.read_only) {
        nvme_shutdown_done(nvme);
        return;
    }
    nvme->state.csts = (nvme->state.csts & ~NVME_CSTS_SHST) | NVME_CSTS_SHST_OCCURRING;
    command = nvme_command_take(nvme);
    command->shutdown = true;
    command->job.op = NVME_STORE_FLUSH;
    nvme_command_start(nvme, command);
    nvme_process(nvme);
}

void nvme_shutdown_done(struct nvme *nvme)
{
    nvme->state.csts = (nvme->state.csts & ~NVME_CSTS_SHST) | NVME_CSTS_SHST_COMPLETE;
}

void nvme_state_loaded(struct nvme *nvme)
{
    nvme_reset_progress(nvme);
    if ((nvme->state.csts & NVME_CSTS_SHST) == NVME_CSTS_SHST_OCCURRING) {
        begin_shutdown(nvme);
    }
}

/* After a reset its DMA is let through again, should it have been cut off. */
static void admit(struct nvme *nvme)
{
    if (nvme->dma.reset) {
        nvme->dma.reset(nvme->dma.opaque);
    }
}

static void write_cc(struct nvme *nvme, uint32_t value)
{
    struct nvme_state *state = &nvme->state;
    uint32_t old = state->cc;

    value &= NVME_CC_WRITABLE;
    if (old & value & NVME_CC_EN) {
        /* These may only change while the controller is stopped. */
        value = (value & ~NVME_CC_WHEN_STOPPED) | (old & NVME_CC_WHEN_STOPPED);
    }
    state->cc = value;
    if (!(old & NVME_CC_EN) && (value & NVME_CC_EN)) {
        /* A guest that does not wait for the end of a reset has it here. */
        state->csts &= ~NVME_CSTS_RDY;
        /* Guests reset a controller by this, and seldom the function. */
        admit(nvme);
        enable(nvme);
    } else if ((old & NVME_CC_EN) && !(value & NVME_CC_EN)) {
        disable(nvme);
    }
    if (NVME_CC_SHN(value) != 0 && NVME_CC_SHN(old) == 0) {
        if ((state->csts & NVME_CSTS_SHST) != NVME_CSTS_SHST_OCCURRING) {
            begin_shutdown(nvme);
        }
    } else if (NVME_CC_SHN(value) == 0 && !(value & NVME_CC_EN)) {
        state->csts &= ~NVME_CSTS_SHST;
    }
}

/* ---- registers ----------------------------------------------------------------------------- */

static uint32_t read_register(struct nvme *nvme, uint64_t offset)
{
    const struct nvme_state *state = &nvme->state;

    switch (offset) {
    case NVME_REG_CAP:
        return (uint32_t)capabilities();
    case NVME_REG_CAP + 4:
        return (uint32_t)(capabilities() >> 32);
    case NVME_REG_VS:
        return NVME_VERSION;
    case NVME_REG_INTMS:
    case NVME_REG_INTMC:
        return state->interrupt_mask;
    case NVME_REG_CC:
        return state->cc;
    case NVME_REG_CSTS:
        nvme_reset_progress(nvme);
        return state->csts;
    case NVME_REG_AQA:
        return state->aqa;
    case NVME_REG_ASQ:
        return (uint32_t)state->asq;
    case NVME_REG_ASQ + 4:
        return (uint32_t)(state->asq >> 32);
    case NVME_REG_ACQ:
        return (uint32_t)state->acq;
    case NVME_REG_ACQ + 4:
        return (uint32_t)(state->acq >> 32);
    default:
        return 0;
    }
}

static void set_low(uint64_t *reg, uint32_t value)
{
    *reg = (*reg & ~(uint64_t)UINT32_MAX) | (value & ~(uint32_t)(ENTRY_ALIGN - 1));
}

static void set_high(uint64_t *reg, uint32_t value)
{
    *reg = (uint32_t)*reg | (uint64_t)value << 32;
}

/* The registers that say where the admin queues are; they have no effect until CC.EN is set. */
static void write_admin_queue(struct nvme_state *state, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case NVME_REG_AQA:
        state->aqa = value & 0x0fff0fff;
        break;
    case NVME_REG_ASQ:
        set_low(&state->asq, value);
        break;
    case NVME_REG_ASQ + 4:
        set_high(&state->asq, value);
        break;
    case NVME_REG_ACQ:
        set_low(&state->acq, value);
        break;
    case NVME_REG_ACQ + 4:
        set_high(&state->acq, value);
        break;
    default:
        break;
    }
}

static void write_register(struct nvme *nvme, uint64_t offset, uint32_t value)
{
    struct nvme_state *state = &nvme->state;

    switch (offset) {
    case NVME_REG_INTMS:
        state->interrupt_mask |= value;
        nvme_update_line(nvme);
        break;
    case NVME_REG_INTMC:
        state->interrupt_mask &= ~value;
        nvme_update_line(nvme);
        break;
    case NVME_REG_CC:
        write_cc(nvme, value);
        break;
    default:
        write_admin_queue(state, offset, value);
        break;
    }
}

/* ---- the PCI function ---------------------------------------------------------------------- */

/* Any access of any size, as bytes of words: drivers read parts of registers, too. */
static void bar_read(void *opaque, unsigned bar, uint64_t offset, void *data, size_t size)
{
    uint8_t *bytes = data;
    uint32_t word = 0;

    (void)bar;
    for (size_t i = 0; i < size; i++) {
        uint64_t at = offset + i;

        if (i == 0 || at % 4 == 0) {
            word = at < REGISTERS_END ? read_register(opaque, at & ~UINT64_C(3)) : 0;
        }
        bytes[i] = (uint8_t)(word >> (8 * (at % 4)));
    }
}

static void write_word(struct nvme *nvme, uint64_t offset, uint32_t value)
{
    if (offset >= NVME_REG_DOORBELLS && offset < TABLE_OFFSET) {
        nvme_doorbell(nvme, offset - NVME_REG_DOORBELLS, value);
    } else {
        write_register(nvme, offset, value);
    }
}

/* Words, or two of them in order; the specification has no other writes. */
static void bar_write(void *opaque, unsigned bar, uint64_t offset, const void *data, size_t size)
{
    uint32_t words[2];

    (void)bar;
    if ((size != 4 && size != 8) || offset % 4 != 0) {
        return;
    }
    memcpy(words, data, size);
    write_word(opaque, offset, words[0]);
    if (size == 8) {
        write_word(opaque, offset + 4, words[1]);
    }
}

/* Bus master or another kind of interrupts may have come, or gone; interrupts may wait. */
static void config_written(void *opaque, uint64_t offset, size_t size)
{
    struct nvme *nvme = opaque;

    (void)offset;
    (void)size;
    if (!pci_config_bus_master(&nvme->function.config)) {
        nvme_take_back_all(nvme);
    }
    nvme_update_line(opaque);
    nvme_process(opaque);
}

static void reset(void *opaque)
{
    struct nvme *nvme = opaque;

    reset_controller(nvme);
    nvme->state.cc = 0;
    nvme->state.csts = 0;
    nvme->state.aqa = 0;
    nvme->state.asq = 0;
    nvme->state.acq = 0;
    nvme->fatal_logged = false;
    admit(nvme);
}

static const struct pci_function_ops ops = {
    .bar_read = bar_read,
    .bar_write = bar_write,
    .config_written = config_written,
    .reset = reset,
};

void nvme_function_init(struct nvme *nvme)
{
    static const struct pci_ids ids = {
        .vendor = 0x1234,
        .device = 0x4e56,
        .subsystem_vendor = 0x1af4,
        .subsystem = 0x1100,
        .revision = 1,
        .interrupt_pin = 1,
        .class_code = 0x010802,
    };
    struct pci_config *config = &nvme->function.config;

    nvme->function =
        (struct pci_function){.name = nvme->name, .ops = &ops, .opaque = nvme};
    pci_config_init(config, &ids);
    pci_config_add_bar(config, 0, NVME_BAR_SIZE, PCI_BAR_MEMORY64, false);
    pci_config_add_msix(config, nvme->config.queues + 1, 0, TABLE_OFFSET, PENDING_OFFSET);
    nvme_features_init(nvme);
}
