/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What may come of one request: see outcome.h.
 */
#include "outcome.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void add(struct world *world, struct outcomes *outcomes, struct outcome outcome)
{
    for (unsigned i = 0; i < outcomes->count; i++) {
        struct outcome *other = &outcomes->list[i];

        if (other->refused == outcome.refused && other->silent == outcome.silent &&
            other->interrupt == outcome.interrupt && other->reason == outcome.reason &&
            other->perm == outcome.perm && other->gpa == outcome.gpa &&
            other->untranslated_only == outcome.untranslated_only) {
            if (outcome.mask > other->mask) {
                other->mask = outcome.mask;
            }
            return;
        }
    }
    if (outcomes->count == OUTCOMES_MAX) {
        world_fail(world, "too many outcomes for the test");
    }
    outcomes->list[outcomes->count++] = outcome;
}

static void refuse(struct world *world, struct outcomes *outcomes, uint8_t reason, bool silent)
{
    add(world, outcomes, (struct outcome){.refused = true, .reason = reason, .silent = silent});
}

static void identity(struct world *world, struct outcomes *outcomes)
{
    add(world, outcomes, (struct outcome){
                             .perm = SPEC_R | SPEC_W,
                             .gpa = outcomes->request.iova,
                             .mask = ~0ull,
                         });
}

static bool beyond_host(const struct world *world, uint64_t address)
{
    return address >> world->vtd.host_address_width;
}

static bool beyond_levels(const struct world *world, uint64_t address, unsigned levels)
{
    return address >> world->vtd.address_width || address >> (12 + 9 * levels);
}

/* Translation requests: what is lacking is answered, not refused. */
static void answer_entry(struct world *world, struct outcomes *outcomes,
                         const struct page_value *value)
{
    uint8_t perm = value->perm;

    if (outcomes->request.no_write && world->guest.ecap >> 33 & 1) {
        perm &= (uint8_t)~SPEC_W;
    }
    add(world, outcomes, (struct outcome){
                             .perm = perm,
                             .gpa = perm ? value->gpa : 0,
                             .mask = value->mask,
                         });
}

static void from_page(struct world *world, struct outcomes *outcomes,
                      const struct page_value *value, bool silent)
{
    const struct request *request = &outcomes->request;
    bool ats = request->type == VIOMMU_DMA_TRANSLATION;
    uint32_t need = request->need;
    bool allowed = true;

    if (value->reason) {
        refuse(world, outcomes, value->reason, silent);
        return;
    }
    if (ats) {
        if (value->perm && spec_in_interrupt_range(value->gpa)) {
            refuse(world, outcomes, SPEC_INTERRUPT_RANGE, silent);
        } else {
            answer_entry(world, outcomes, value);
        }
        return;
    }
    if (!need && !(world->guest.cap >> 22 & 1)) {
        need = SPEC_R;
    }
    if (need & SPEC_W & ~value->perm || (request->zero_write && !value->perm)) {
        refuse(world, outcomes, SPEC_WRITE, silent);
        allowed = false;
    }
    if (need & SPEC_R & ~value->perm || (!need && !value->perm)) {
        refuse(world, outcomes, SPEC_READ, silent);
        allowed = false;
    }
    if (request->zero_write && !(value->perm & SPEC_W)) {
        refuse(world, outcomes, SPEC_WRITE, silent); /* a zero-length write may be a write */
    }
    if (value->perm && spec_in_interrupt_range(value->gpa)) {
        refuse(world, outcomes, SPEC_INTERRUPT_RANGE, silent);
    } else if (allowed) {
        add(world, outcomes, (struct outcome){
                                 .perm = value->perm,
                                 .gpa = value->gpa,
                                 .mask = value->mask,
                             });
    }
}

static void add_note(struct world *world, struct outcomes *outcomes, const struct note *note)
{
    if (outcomes->note_count == NOTES_MAX) {
        world_fail(world, "too many look-ups for the test");
    }
    outcomes->notes[outcomes->note_count++] = *note;
}

/* From what is kept of the domain's pages, and where the cache may not have it from the tables. */
static void from_kept_pages(struct world *world, struct outcomes *outcomes,
                            const struct context_value *context)
{
    struct note note = {.page = true, .domain = context->domain};
    bool found = false;
    unsigned at = 0;

    while (kept_next_page(&world->kept, context->domain, outcomes->request.iova, &at,
                          &note.value)) {
        from_page(world, outcomes, &note.value, context->silent);
        found = true;
    }
    if (!found || world->kept.mode == VIOMMU_CACHE_HOSTILE) {
        note.value = walker_page(&world->ram, &world->walker, context->table, context->levels,
                                 outcomes->request.iova);
        from_page(world, outcomes, &note.value, context->silent);
        add_note(world, outcomes, &note);
    }
}

void outcomes_note(struct world *world, const struct outcomes *outcomes)
{
    const struct request *request = &outcomes->request;
    uint64_t now = world->history.now;

    for (unsigned i = 0; i < outcomes->note_count; i++) {
        const struct note *note = &outcomes->notes[i];

        if (note->page) {
            kept_note_page(&world->kept, now, note->domain, request->iova, &note->value);
        } else {
            kept_note_context(&world->kept, now, request->requester, &note->context);
        }
    }
}

static void from_tables(struct world *world, struct outcomes *outcomes,
                        const struct context_value *context)
{
    const struct request *request = &outcomes->request;
    int page = history_page_index(&world->history, request->iova);
    const struct history_page_log *log;

    if (beyond_levels(world, request->iova, context->levels)) {
        if (request->type == VIOMMU_DMA_TRANSLATION) {
            add(world, outcomes, (struct outcome){.perm = 0, .mask = ~0ull});
        } else {
            refuse(world, outcomes, SPEC_BEYOND_WIDTH, context->silent);
        }
        return;
    }
    if (world_keeps(world)) {
        from_kept_pages(world, outcomes, context);
        return;
    }
    log = history_log(&world->history, context, page);
    if (page < 0 || !log) {
        world_fail(world, "the test asks for %#llx under %#llx, which it does not follow",
                   (unsigned long long)request->iova, (unsigned long long)context->table);
    }
    for (unsigned i = 0; i < log->count; i++) {
        if (history_page_allowed(&world->history, context->domain, request->iova,
                                 &log->values[i])) {
            from_page(world, outcomes, &log->values[i].value, context->silent);
        }
    }
}

static void from_context(struct world *world, struct outcomes *outcomes,
                         const struct context_value *context)
{
    const struct request *request = &outcomes->request;

    if (context->reason) {
        refuse(world, outcomes, context->reason, context->silent);
    } else if (request->type != VIOMMU_DMA_UNTRANSLATED && context->type != SPEC_TT_ALL) {
        refuse(world, outcomes, SPEC_BLOCKED, context->silent);
    } else if (request->type == VIOMMU_DMA_TRANSLATED || context->type == SPEC_TT_PASS) {
        if (beyond_host(world, request->iova)) {
            refuse(world, outcomes, SPEC_BEYOND_WIDTH, context->silent);
        } else if (spec_in_interrupt_range(request->iova)) {
            refuse(world, outcomes, SPEC_INTERRUPT_RANGE, context->silent);
        } else {
            identity(world, outcomes);
        }
    } else if (request->type == VIOMMU_DMA_TRANSLATION && spec_in_interrupt_range(request->iova)) {
        add(world, outcomes, (struct outcome){
                                 .perm = request->no_write ? 0 : SPEC_W,
                                 .untranslated_only = !request->no_write,
                                 .gpa = request->iova,
                                 .mask = 0xfffff,
                             });
    } else {
        from_tables(world, outcomes, context);
    }
}

/* From what is kept of the requester, and where the cache may not have it from the tables. */
static void from_kept_contexts(struct world *world, struct outcomes *outcomes)
{
    uint16_t requester = outcomes->request.requester;
    const struct context_value *known;
    bool found = false;
    unsigned at = 0;

    while ((known = kept_next_context(&world->kept, requester, &at)) != NULL) {
        from_context(world, outcomes, known);
        found = true;
    }
    if (!found || world->kept.mode == VIOMMU_CACHE_HOSTILE) {
        struct note note = {.page = false};

        note.context = walker_context(&world->ram, &world->walker, world->history.root, requester);
        from_context(world, outcomes, &note.context);
        add_note(world, outcomes, &note);
    }
}

static void from_interrupt_range(struct world *world, struct outcomes *outcomes)
{
    const struct request *request = &outcomes->request;

    if (!request->need) {
        identity(world, outcomes);
        if (request->zero_write) { /* a write that is no double word */
            refuse(world, outcomes, SPEC_INTERRUPT_REQUEST, false);
            refuse(world, outcomes, SPEC_INTERRUPT_RANGE, false);
        }
    } else if (request->need == SPEC_W && request->dword) {
        add(world, outcomes, (struct outcome){
                                 .interrupt = true,
                                 .perm = SPEC_W,
                                 .gpa = request->iova,
                                 .mask = 0xfffff,
                             });
    } else {
        /* Revisions of the specification differ in the reason. */
        refuse(world, outcomes, SPEC_INTERRUPT_REQUEST, false);
        refuse(world, outcomes, SPEC_INTERRUPT_RANGE, false);
    }
}

void outcomes_collect(struct world *world, const struct request *request,
                      struct outcomes *outcomes)
{
    int index = history_requester_index(&world->history, request->requester);
    const struct history_context_log *log = &world->history.contexts[index];

    outcomes->request = *request;
    outcomes->count = 0;
    outcomes->note_count = 0;
    if (request->type == VIOMMU_DMA_UNTRANSLATED && spec_in_interrupt_range(request->iova)) {
        from_interrupt_range(world, outcomes);
        return;
    }
    if (!world->translating) {
        if (request->type == VIOMMU_DMA_UNTRANSLATED && !beyond_host(world, request->iova)) {
            identity(world, outcomes);
        } else {
            refuse(world, outcomes, 0, true);
        }
        return;
    }
    if (world_keeps(world)) {
        from_kept_contexts(world, outcomes);
        return;
    }
    for (unsigned i = 0; i < log->count; i++) {
        if (history_context_allowed(&world->history, request->requester, &log->values[i])) {
            from_context(world, outcomes, &log->values[i].value);
        }
    }
}

/* The record that a fault leaves. */
static void record(struct world *world, struct faults *faults, const struct request *request,
                   const struct outcome *outcome, uint64_t kind)
{
    uint64_t lo = request->iova & ~0xfffull & ((1ull << world->vtd.address_width) - 1);

    faults_record(faults, lo,
                  kind | (uint64_t)request->type << 60 |
                      (uint64_t)outcome->reason << 32 | request->requester);
}

const struct outcome *outcomes_refused(struct world *world, const struct outcomes *outcomes)
{
    const struct request *request = &outcomes->request;
    /* T1 and T2: a write, a read, and, for what reads and writes at once, an atomic operation. */
    static const uint64_t kinds[] = {0, SPEC_T1, SPEC_T1 | SPEC_T2};
    bool both = request->need == (SPEC_R | SPEC_W);
    bool may[3] = {
        request->need & SPEC_W || request->zero_write,
        both || (request->need != SPEC_W && !request->zero_write),
        both,
    };

    if (request->type == VIOMMU_DMA_TRANSLATION) {
        may[0] = false;
        may[1] = true;
    }
    for (unsigned i = 0; i < outcomes->count; i++) {
        const struct outcome *outcome = &outcomes->list[i];

        for (int kind = 0; outcome->refused && kind < 3; kind++) {
            struct faults faults = world->faults;

            if (!may[kind]) {
                continue;
            }
            if (!outcome->silent) {
                record(world, &faults, request, outcome, kinds[kind]);
            }
            if (world_faults_equal(world, &faults)) {
                world->faults = faults;
                return outcome;
            }
        }
    }
    return NULL;
}

static void print_faults(struct world *world)
{
    fprintf(stderr, "FSTS %#llx, expected before this request %#x\n",
            (unsigned long long)guest_read(&world->guest, SPEC_FSTS, 4),
            faults_status(&world->faults));
    for (unsigned i = 0; i < world->faults.count; i++) {
        uint64_t at = world->guest.fault_offset + 16 * i;

        fprintf(stderr, "record %u: %#llx %#llx, expected before %#llx %#llx\n", i,
                (unsigned long long)guest_read(&world->guest, at + 8, 8),
                (unsigned long long)guest_read(&world->guest, at, 8),
                (unsigned long long)world->faults.records[i].hi,
                (unsigned long long)world->faults.records[i].lo);
    }
}

void outcomes_fail(struct world *world, const struct outcomes *outcomes, const char *format, ...)
{
    const struct request *request = &outcomes->request;
    char text[256];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    print_faults(world);
    for (unsigned i = 0; i < outcomes->count; i++) {
        const struct outcome *outcome = &outcomes->list[i];

        fprintf(stderr, "right would be: %s%s reason %#x gpa %#llx mask %#llx perm %u%s%s\n",
                outcome->refused ? "refused" : "allowed", outcome->silent ? " (no record)" : "",
                outcome->reason, (unsigned long long)outcome->gpa,
                (unsigned long long)outcome->mask, outcome->perm,
                outcome->interrupt ? " interrupt" : "",
                outcome->untranslated_only ? " untranslated-only" : "");
    }
    world_fail(world, "%s (requester %04x, type %d, page %#llx, needs %u)", text,
               request->requester, request->type, (unsigned long long)request->iova,
               request->need);
}
