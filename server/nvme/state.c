/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A controller's state in a stream, for another process that goes on with its guest.
 *
 * It is saved while the controller is quiet: nothing is in flight, so the state and the
 * configuration space are all there is. What is loaded is checked against every invariant of
 * state.h before any of it is used: the stream may be damaged, or made by somebody else.
 */
#include "save/stream.h"

#include "device.h"

#include <errno.h>

enum {
    /* What CSTS can be: the rest is ours to compute. */
    CSTS_KNOWN = NVME_CSTS_RDY | NVME_CSTS_CFS | NVME_CSTS_SHST,
};

static void save_queues(const struct nvme *nvme, struct save_writer *writer)
{
    for (unsigned i = 0; i <= nvme->config.queues; i++) {
        const struct nvme_sq *sq = &nvme->state.sq[i];
        const struct nvme_cq *cq = &nvme->state.cq[i];

        save_put8(writer, sq->exists);
        save_put64(writer, sq->base);
        save_put32(writer, sq->entries);
        save_put32(writer, sq->head);
        save_put32(writer, sq->tail);
        save_put16(writer, sq->cqid);
        save_put8(writer, cq->exists);
        save_put64(writer, cq->base);
        save_put32(writer, cq->entries);
        save_put32(writer, cq->head);
        save_put32(writer, cq->tail);
        save_put16(writer, cq->vector);
        save_put8(writer, cq->interrupts);
        save_put8(writer, cq->phase);
    }
}

/* 0 or 1. */
static bool get_bool(struct save_section *section)
{
    uint8_t value = save_get8(section);

    if (value > 1) {
        save_spoil(section);
    }
    return value == 1;
}

static bool queue_makes_sense(unsigned id, uint32_t entries, uint32_t head, uint32_t tail)
{
    uint32_t most = id == 0 ? NVME_ADMIN_QUEUE_ENTRIES_MAX : NVME_QUEUE_ENTRIES_MAX;

    return entries >= 2 && entries <= most && head < entries && tail < entries;
}

static void check_queues(const struct nvme *nvme, const struct nvme_state *state,
                         struct save_section *section)
{
    bool enabled = (state->cc & NVME_CC_EN) && (state->csts & NVME_CSTS_RDY);

    if (state->sq[0].exists != enabled || state->cq[0].exists != enabled) {
        save_spoil(section);
    }
    for (unsigned i = 0; i <= nvme->config.queues; i++) {
        const struct nvme_sq *sq = &state->sq[i];
        const struct nvme_cq *cq = &state->cq[i];

        if ((sq->exists || cq->exists) && !enabled) {
            save_spoil(section);
        }
        if (sq->exists && (!queue_makes_sense(i, sq->entries, sq->head, sq->tail) ||
                           sq->cqid > nvme->config.queues || !state->cq[sq->cqid].exists ||
                           (sq->cqid == 0) != (i == 0))) {
            save_spoil(section);
        }
        if (cq->exists && (!queue_makes_sense(i, cq->entries, cq->head, cq->tail) ||
                           cq->vector > nvme->config.queues)) {
            save_spoil(section);
        }
    }
}

static void load_queues(const struct nvme *nvme, struct nvme_state *state,
                        struct save_section *section)
{
    for (unsigned i = 0; i <= nvme->config.queues; i++) {
        struct nvme_sq *sq = &state->sq[i];
        struct nvme_cq *cq = &state->cq[i];

        sq->exists = get_bool(section);
        sq->base = save_get64(section);
        sq->entries = save_get32(section);
        sq->head = save_get32(section);
        sq->tail = save_get32(section);
        sq->cqid = save_get16(section);
        cq->exists = get_bool(section);
        cq->base = save_get64(section);
        cq->entries = save_get32(section);
        cq->head = save_get32(section);
        cq->tail = save_get32(section);
        cq->vector = save_get16(section);
        cq->interrupts = get_bool(section);
        cq->phase = get_bool(section);
    }
    check_queues(nvme, state, section);
}

static void save_features(const struct nvme_features *features, struct save_writer *writer)
{
    save_put32(writer, features->arbitration);
    save_put32(writer, features->power);
    save_put32(writer, features->temperature_over);
    save_put32(writer, features->temperature_under);
    save_put32(writer, features->error_recovery);
    save_put32(writer, features->write_cache);
    save_put32(writer, features->coalescing);
    save_put32(writer, features->atomicity);
    save_put32(writer, features->async_events);
    save_put64(writer, features->vector_uncoalesced);
}

static void load_features(struct nvme_features *features, struct save_section *section)
{
    features->arbitration = save_get32(section);
    features->power = save_get32(section);
    features->temperature_over = save_get32(section);
    features->temperature_under = save_get32(section);
    features->error_recovery = save_get32(section);
    features->write_cache = save_get32(section);
    features->coalescing = save_get32(section);
    features->atomicity = save_get32(section);
    features->async_events = save_get32(section);
    features->vector_uncoalesced = save_get64(section);
}

static void save_events(const struct nvme_state *state, struct save_writer *writer)
{
    save_put32(writer, state->async_count);
    for (unsigned i = 0; i < NVME_ASYNC_REQUESTS_MAX; i++) {
        save_put16(writer, state->async_cid[i]);
    }
    for (unsigned i = 0; i < NVME_EVENT_TYPES; i++) {
        save_put32(writer, state->events_pending[i]);
        save_put8(writer, state->events_masked[i]);
    }
    save_put8(writer, state->namespace_changed);
}

static void load_events(struct nvme_state *state, struct save_section *section)
{
    state->async_count = save_get32(section);
    if (state->async_count > NVME_ASYNC_REQUESTS_MAX) {
        save_spoil(section);
    }
    for (unsigned i = 0; i < NVME_ASYNC_REQUESTS_MAX; i++) {
        state->async_cid[i] = save_get16(section);
    }
    for (unsigned i = 0; i < NVME_EVENT_TYPES; i++) {
        state->events_pending[i] = save_get32(section);
        state->events_masked[i] = get_bool(section);
    }
    state->namespace_changed = get_bool(section);
}

static void save_errors(const struct nvme_state *state, struct save_writer *writer)
{
    save_put64(writer, state->error_count);
    for (unsigned i = 0; i < NVME_ERRORS_MAX; i++) {
        const struct nvme_error *error = &state->errors[i];

        save_put64(writer, error->count);
        save_put64(writer, error->lba);
        save_put32(writer, error->nsid);
        save_put16(writer, error->sqid);
        save_put16(writer, error->cid);
        save_put16(writer, error->status);
    }
}

static void load_errors(struct nvme_state *state, struct save_section *section)
{
    state->error_count = save_get64(section);
    for (unsigned i = 0; i < NVME_ERRORS_MAX; i++) {
        struct nvme_error *error = &state->errors[i];

        error->count = save_get64(section);
        error->lba = save_get64(section);
        error->nsid = save_get32(section);
        error->sqid = save_get16(section);
        error->cid = save_get16(section);
        error->status = save_get16(section);
    }
}

void nvme_save(const struct nvme *nvme, struct save_writer *writer)
{
    const struct nvme_state *state = &nvme->state;

    pci_config_save(&nvme->function.config, writer);
    save_put8(writer, (uint8_t)nvme->config.lba_shift);
    save_put8(writer, (uint8_t)nvme->config.queues);
    save_put32(writer, state->interrupt_mask);
    save_put32(writer, state->cc);
    save_put32(writer, state->csts);
    save_put32(writer, state->aqa);
    save_put64(writer, state->asq);
    save_put64(writer, state->acq);
    save_queues(nvme, writer);
    save_features(&state->features, writer);
    save_events(state, writer);
    save_put64(writer, state->blocks);
    save_errors(state, writer);
    save_put64(writer, state->read_commands);
    save_put64(writer, state->write_commands);
    save_put64(writer, state->bytes_read);
    save_put64(writer, state->bytes_written);
}

static void load_registers(struct nvme_state *state, struct save_section *section)
{
    state->interrupt_mask = save_get32(section);
    state->cc = save_get32(section);
    state->csts = save_get32(section);
    state->aqa = save_get32(section);
    state->asq = save_get64(section);
    state->acq = save_get64(section);
    if ((state->cc & ~NVME_CC_WRITABLE) || (state->csts & ~CSTS_KNOWN) ||
        ((state->csts & NVME_CSTS_RDY) && !nvme_page_size_known(state->cc))) {
        save_spoil(section);
    }
}

int nvme_load(struct nvme *nvme, struct save_section *section)
{
    struct pci_config config = nvme->function.config;
    struct nvme_state state = {0};

    pci_config_load(&config, section);
    if (save_get8(section) != nvme->config.lba_shift || save_get8(section) != nvme->config.queues) {
        save_spoil(section);
        return section->error;
    }
    load_registers(&state, section);
    load_queues(nvme, &state, section);
    load_features(&state.features, section);
    load_events(&state, section);
    state.blocks = save_get64(section);
    if (state.blocks > (uint64_t)INT64_MAX >> nvme->config.lba_shift) {
        save_spoil(section);
    }
    load_errors(&state, section);
    state.read_commands = save_get64(section);
    state.write_commands = save_get64(section);
    state.bytes_read = save_get64(section);
    state.bytes_written = save_get64(section);
    if (section->error == 0) {
        nvme->function.config = config;
        nvme->state = state;
        /* A shutdown's flush is not saved, and a reset had nothing to wait for. */
        nvme_state_loaded(nvme);
    }
    return section->error;
}
