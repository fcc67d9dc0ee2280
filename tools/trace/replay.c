/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See replay.h.
 *
 * The unit is only let work when the trace has something that it has not done yet, one descriptor a
 * call. What it does is observed, and put into a line for each *class* of things that come in an
 * order of their own; the trace takes from there. So it may run ahead of the trace a little, but
 * not change an order.
 *
 * While no completion is due a section is open: no invalidation completes then, as it would not
 * while a device's DMA is under way. That matters, because an invalidation register ignores writes
 * until it is done.
 *
 * Memory is made a page at a time where a descriptor, or the status of a wait, lies.
 */
#include "replay.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <viommu/device.h>
#include <viommu/memory.h>

enum {
    PAGE = 4096,
    PAGES_MAX = 4096,
    TURNS_MAX = 64, /* calls that it may take to do the next thing */
    IQA = 0x90,
    IECTL = 0xa0,
    FETCH_FAILED = 2, /* reason of a descriptor that could not be read */
    WAIT_STATUS = 1 << 5,
};

enum thing {
    THING_COMMAND,
    THING_COMPLETED,
    THING_DESCRIPTOR, /* or one that was refused */
    THING_RETIRED,
    THING_MESSAGE,
    THINGS,
};

/* What the unit did, first in first out. */
struct done {
    struct trace_record *records;
    size_t first;
    size_t count;
    size_t room;
};

struct replay {
    const struct trace *trace;
    struct replay_end end;
    FILE *out;
    struct viommu_memory *memory;
    struct viommu *iommu;
    bool in_section;
    bool out_of_memory;
    void *pages[PAGES_MAX];
    unsigned page_count;
    struct done done[THINGS];
    size_t next_descriptor; /* in the trace: the first that the unit has not read */
    uint64_t status_address; /* of the last wait that retired and has a status; 0: none */
    uint32_t status;
};

void replay_stop(struct replay_end *end, enum replay_verdict verdict, unsigned line,
                 const char *format, ...)
{
    va_list arguments;

    if (end->verdict != REPLAY_SAME) {
        return;
    }
    end->verdict = verdict;
    end->error->line = line;
    va_start(arguments, format);
    vsnprintf(end->error->text, sizeof(end->error->text), format, arguments);
    va_end(arguments);
}

/* The class of a kind; THINGS: none, it is not something that the unit does by itself. */
static enum thing thing_of(unsigned kind, uint64_t offset)
{
    switch (kind) {
    case VIOMMU_OBSERVED_COMMAND:
        return THING_COMMAND;
    case VIOMMU_OBSERVED_COMPLETED:
        return THING_COMPLETED;
    case VIOMMU_OBSERVED_DESCRIPTOR:
    case VIOMMU_OBSERVED_REFUSED:
        return THING_DESCRIPTOR;
    case VIOMMU_OBSERVED_RETIRED:
        return THING_RETIRED;
    case VIOMMU_OBSERVED_MESSAGE:
        /* Those of the fault event come from devices' faults, too. */
        return offset == IECTL ? THING_MESSAGE : THINGS;
    default:
        return THINGS;
    }
}

/* ---- what the unit does */

static bool done_add(struct done *done, const struct trace_record *record)
{
    if (done->first && done->first == done->count) {
        done->first = done->count = 0;
    }
    if (done->count == done->room) {
        size_t room = done->room ? 2 * done->room : 64;
        struct trace_record *records = reallocarray(done->records, room, sizeof(*records));

        if (!records) {
            return false;
        }
        done->records = records;
        done->room = room;
    }
    done->records[done->count++] = *record;
    return true;
}

static bool done_empty(const struct done *done)
{
    return done->first == done->count;
}

/* Passes over the descriptor in the trace that the unit has just read. */
static void descriptor_read(struct replay *replay)
{
    const struct trace *trace = replay->trace;

    while (replay->next_descriptor < trace->count) {
        unsigned kind = trace->records[replay->next_descriptor++].kind;

        if (thing_of(kind, 0) == THING_DESCRIPTOR) {
            break;
        }
    }
}

static void observe(void *opaque, const struct viommu_observation *observation)
{
    struct replay *replay = opaque;
    enum thing thing = thing_of(observation->kind, observation->offset);
    struct trace_record record = {
        .kind = observation->kind,
        .offset = observation->offset,
        .value = observation->value,
        .low = observation->low,
        .high = observation->high,
        .address = observation->gpa,
        .slot = observation->slot,
        .reason = observation->reason,
        .error = observation->error,
    };

    if (thing == THING_DESCRIPTOR) {
        descriptor_read(replay);
    }
    if (thing != THINGS && !done_add(&replay->done[thing], &record)) {
        replay->out_of_memory = true;
    }
}

/* ---- its memory */

static int add_page(struct replay *replay, uint64_t gpa)
{
    void *host = replay->page_count < PAGES_MAX ? aligned_alloc(PAGE, PAGE) : NULL;
    struct viommu_memory_slot slot = {
        .first = gpa & ~(uint64_t)(PAGE - 1), .last = gpa | (PAGE - 1), .host = host, .fd = -1};
    struct viommu_memory_batch *batch;
    int ret;

    if (!host) {
        return -ENOMEM;
    }
    memset(host, 0, PAGE);
    ret = viommu_memory_batch_begin(replay->memory, &batch);
    if (!ret) {
        ret = viommu_memory_batch_add(batch, &slot);
        if (ret) {
            viommu_memory_batch_abort(batch);
        } else {
            ret = viommu_memory_batch_commit(batch, NULL, NULL);
        }
    }
    if (ret < 0) {
        free(host);
        return ret;
    }
    replay->pages[replay->page_count++] = host;
    return 0;
}

/* Makes the page of an address, if it is not there. */
static bool need_page(struct replay *replay, uint64_t gpa, unsigned line)
{
    uint8_t byte;
    int ret;

    if (!viommu_memory_read(replay->memory, gpa, &byte, 1)) {
        return true;
    }
    ret = add_page(replay, gpa);
    if (ret) {
        replay_stop(&replay->end, REPLAY_FAILED, line, "no memory at 0x%" PRIx64 " for it: %s", gpa,
                    replay->page_count == PAGES_MAX ? "the trace needs too much" : strerror(-ret));
    }
    return !ret;
}

static uint64_t host_last(const struct replay *replay)
{
    unsigned width = replay->trace->config.host_address_width;

    return (1ULL << (width ? width : 48)) - 1;
}

static uint64_t status_address(const struct replay *replay, uint64_t high)
{
    return high & ~3ULL & host_last(replay);
}

static bool has_status(uint64_t low)
{
    return (low & 0xf) == 5 && (low & WAIT_STATUS);
}

/* Puts the descriptor that the unit reads next where it reads it. */
static void prepare_descriptor(struct replay *replay)
{
    const struct trace *trace = replay->trace;
    size_t i = replay->next_descriptor;
    const struct trace_record *record;
    uint64_t queue = 0, gpa;

    while (i < trace->count && thing_of(trace->records[i].kind, 0) != THING_DESCRIPTOR) {
        i++;
    }
    replay->next_descriptor = i;
    if (i == trace->count) {
        return;
    }
    record = &trace->records[i];
    viommu_mmio_read(replay->iommu, IQA, 8, &queue);
    gpa = (queue & ~(uint64_t)(PAGE - 1)) + record->slot * 16ULL;
    if (record->reason == FETCH_FAILED || gpa > host_last(replay)) {
        return;
    }
    if (need_page(replay, gpa, record->line) &&
        (!has_status(record->low) ||
         need_page(replay, status_address(replay, record->high), record->line))) {
        uint64_t halves[2] = {htole64(record->low), htole64(record->high)};

        viommu_memory_write(replay->memory, gpa, halves, sizeof(halves));
    }
}

/* ---- its work */

static void enter(struct replay *replay)
{
    if (!replay->in_section && viommu_dma_begin(replay->iommu)) {
        replay_stop(&replay->end, REPLAY_FAILED, 0, "there is not enough memory");
        return;
    }
    replay->in_section = true;
}

static void leave(struct replay *replay)
{
    if (replay->in_section) {
        viommu_dma_end(replay->iommu);
        replay->in_section = false;
    }
}

/* Lets the unit work until it has done such a thing, or has nothing to do. */
static void work(struct replay *replay, enum thing thing)
{
    bool more = true;

    for (unsigned i = 0; more && i < TURNS_MAX && done_empty(&replay->done[thing]); i++) {
        prepare_descriptor(replay);
        if (replay->end.verdict != REPLAY_SAME) {
            return;
        }
        more = viommu_process(replay->iommu, 1) == VIOMMU_PENDING;
    }
    if (replay->out_of_memory) {
        replay_stop(&replay->end, REPLAY_FAILED, 0, "there is not enough memory");
    }
}

static void describe(const struct trace_record *record, char *text, size_t size)
{
    switch (thing_of(record->kind, record->offset)) {
    case THING_COMMAND:
    case THING_COMPLETED:
        snprintf(text, size, "%s 0x%" PRIx64 " value=0x%" PRIx64, trace_kind_words[record->kind],
                 record->offset, record->value);
        break;
    case THING_DESCRIPTOR:
    case THING_RETIRED:
        snprintf(text, size, "%s %" PRIu32 " %s low=0x%" PRIx64 " high=0x%" PRIx64,
                 trace_kind_words[record->kind], record->slot,
                 trace_descriptor_word(record->low), record->low, record->high);
        break;
    case THING_MESSAGE:
        snprintf(text, size, "message 0x%" PRIx64 " value=0x%" PRIx64, record->address,
                 record->value);
        break;
    default:
        snprintf(text, size, "%s", trace_kind_words[record->kind]);
        break;
    }
}

static bool same(const struct trace_record *a, const struct trace_record *b)
{
    return a->kind == b->kind && a->offset == b->offset && a->value == b->value &&
           a->low == b->low && a->high == b->high && a->address == b->address &&
           a->slot == b->slot && a->reason == b->reason && a->error == b->error;
}

/* Whether it comes at the end of something, for which sections have to be over. */
static bool is_end(enum thing thing)
{
    return thing == THING_COMPLETED || thing == THING_RETIRED || thing == THING_MESSAGE;
}

/* The unit must do what the record says, next of its class. */
static void expect(struct replay *replay, enum thing thing, const struct trace_record *record)
{
    struct done *done = &replay->done[thing];
    char wanted[96], got[96];

    if (done_empty(done) && is_end(thing)) {
        leave(replay);
        work(replay, thing);
        enter(replay);
    } else if (done_empty(done)) {
        work(replay, thing);
    }
    if (replay->end.verdict != REPLAY_SAME) {
        return;
    }
    describe(record, wanted, sizeof(wanted));
    if (done_empty(done)) {
        replay_stop(&replay->end, REPLAY_DIFFERS, record->line, "the unit does not do it: %s",
                    wanted);
        return;
    }
    if (!same(&done->records[done->first], record)) {
        describe(&done->records[done->first], got, sizeof(got));
        if (record->error) {
            snprintf(wanted, sizeof(wanted), "given up, for a device did not answer; "
                     "devices are not replayed");
        }
        replay_stop(&replay->end, REPLAY_DIFFERS, record->line, "traced: %s; now: %s", wanted, got);
        return;
    }
    done->first++;
    if (record->kind == VIOMMU_OBSERVED_RETIRED && has_status(record->low)) {
        replay->status_address = status_address(replay, record->high);
        replay->status = (uint32_t)(record->low >> 32);
    }
}

static void play_reset(struct replay *replay)
{
    leave(replay);
    viommu_reset(replay->iommu);
    enter(replay);
    for (unsigned i = 0; i < THINGS; i++) {
        replay->done[i].first = replay->done[i].count = 0;
    }
}

static void play(struct replay *replay, const struct trace_record *record,
                 struct replay_counts *counts)
{
    enum thing thing = thing_of(record->kind, record->offset);

    if (record->kind == VIOMMU_OBSERVED_WRITE) {
        viommu_mmio_write(replay->iommu, record->offset, record->size, record->value);
        counts->writes++;
    } else if (record->kind == VIOMMU_OBSERVED_RESET) {
        play_reset(replay);
    } else if (thing != THINGS) {
        expect(replay, thing, record);
        counts->commands += thing == THING_COMMAND;
        counts->descriptors += thing == THING_DESCRIPTOR;
        counts->retired += thing == THING_RETIRED;
    }
}

static void print(const struct replay *replay, const struct trace_record *record)
{
    char text[96];

    if (!replay->out) {
        return;
    }
    if (record->kind == VIOMMU_OBSERVED_WRITE) {
        fprintf(replay->out, "%u: write 0x%" PRIx64 " size=%" PRIu32 " value=0x%" PRIx64 "\n",
                record->line, record->offset, record->size, record->value);
        return;
    }
    describe(record, text, sizeof(text));
    fprintf(replay->out, "%u:   %s  => %s\n", record->line, text,
            replay->end.verdict == REPLAY_SAME ? "ok" : "differs");
}

/* ---- the end */

static void check_registers(struct replay *replay)
{
    const struct trace *trace = replay->trace;

    for (unsigned i = 0; i < TRACE_REGISTERS; i++) {
        const struct trace_register *known = &trace_registers[i];
        uint64_t value = 0;

        viommu_mmio_read(replay->iommu, known->offset, known->size, &value);
        if ((value ^ trace->registers[i]) & known->mask) {
            replay_stop(&replay->end, REPLAY_DIFFERS, trace->end_line,
                        "%s was 0x%" PRIx64 " in the end; now: 0x%" PRIx64, known->name,
                        trace->registers[i], value);
        }
    }
}

static void check_status(struct replay *replay)
{
    uint32_t status = 0;

    if (replay->status_address &&
        !viommu_memory_read(replay->memory, replay->status_address, &status, sizeof(status)) &&
        le32toh(status) != replay->status) {
        replay_stop(&replay->end, REPLAY_DIFFERS, replay->trace->end_line,
                    "the last wait should have written 0x%" PRIx32 "; it is 0x%" PRIx32,
                    replay->status, le32toh(status));
    }
}

/*
 * A trace that was cut off ends anywhere: then the unit may have run ahead, and there is nothing to
 * compare its state with.
 */
static void check_end(struct replay *replay)
{
    char text[96];

    if (!replay->trace->ended) {
        return;
    }
    for (unsigned i = 0; i < THINGS; i++) {
        const struct done *done = &replay->done[i];

        if (!done_empty(done)) {
            describe(&done->records[done->first], text, sizeof(text));
            replay_stop(&replay->end, REPLAY_DIFFERS, replay->trace->end_line,
                        "not traced; now: %s", text);
            return;
        }
    }
    check_status(replay);
    check_registers(replay);
}

/* ---- a unit as the trace says */

/*
 * Address widths and page sizes are left out: mirrors may have narrowed them, and they concern
 * devices only.
 */
static void check_capabilities(struct replay *replay)
{
    uint64_t compared = ~(0x1fULL << 8 | 0x3fULL << 16 | 0xfULL << 34);
    uint64_t cap = 0, ecap = 0;

    viommu_mmio_read(replay->iommu, 8, 8, &cap);
    viommu_mmio_read(replay->iommu, 16, 8, &ecap);
    if (replay->trace->has_capabilities &&
        (((cap ^ replay->trace->cap) & compared) || ecap != replay->trace->ecap)) {
        replay_stop(&replay->end, REPLAY_FAILED, 1,
                    "the unit had other capabilities: CAP 0x%" PRIx64 " ECAP 0x%" PRIx64
                    "; now: 0x%" PRIx64 " 0x%" PRIx64,
                    replay->trace->cap, replay->trace->ecap, cap, ecap);
    }
}

/* A unit cannot be brought into the middle of its life by what a guest does. */
static void check_start(struct replay *replay)
{
    for (unsigned i = 0; replay->trace->has_start && i < TRACE_REGISTERS; i++) {
        const struct trace_register *known = &trace_registers[i];
        uint64_t value = 0;

        viommu_mmio_read(replay->iommu, known->offset, known->size, &value);
        if ((value ^ replay->trace->start[i]) & known->mask) {
            replay_stop(&replay->end, REPLAY_FAILED, 1,
                        "the trace begins in the middle of a unit's life: %s is 0x%" PRIx64,
                        known->name, replay->trace->start[i]);
        }
    }
}

static void make_unit(struct replay *replay)
{
    struct viommu_watcher watcher = {.observe = observe, .opaque = replay};
    struct viommu_config config = {.iotlb_entries = 256};
    int ret = viommu_memory_create(&replay->memory);

    config.memory = replay->memory;
    if (!ret) {
        ret = viommu_vtd_create(&config, &replay->trace->config, &replay->iommu);
    }
    if (!ret) {
        ret = viommu_start(replay->iommu);
    }
    if (ret) {
        replay_stop(&replay->end, REPLAY_FAILED, 1, "cannot make a unit like that: %s",
                    strerror(-ret));
        return;
    }
    check_capabilities(replay);
    check_start(replay);
    viommu_watch(replay->iommu, &watcher);
}

static void drop(struct replay *replay)
{
    if (replay->iommu) {
        leave(replay);
    }
    viommu_destroy(replay->iommu);
    viommu_memory_destroy(replay->memory);
    for (unsigned i = 0; i < replay->page_count; i++) {
        free(replay->pages[i]);
    }
    for (unsigned i = 0; i < THINGS; i++) {
        free(replay->done[i].records);
    }
}

enum replay_verdict trace_replay(const struct trace *trace, FILE *out,
                                 struct replay_counts *counts, struct trace_error *error)
{
    struct replay *replay;
    enum replay_verdict verdict;

    *counts = (struct replay_counts){0};
    *error = (struct trace_error){0};
    if (trace->is_virtio) {
        return trace_replay_virtio(trace, out, counts, error);
    }
    replay = calloc(1, sizeof(*replay));
    if (!replay) {
        snprintf(error->text, sizeof(error->text), "there is not enough memory");
        return REPLAY_FAILED;
    }
    replay->trace = trace;
    replay->end.error = error;
    replay->out = out;
    make_unit(replay);
    if (replay->end.verdict == REPLAY_SAME) {
        enter(replay);
    }
    for (size_t i = 0; i < trace->count && replay->end.verdict == REPLAY_SAME; i++) {
        play(replay, &trace->records[i], counts);
        print(replay, &trace->records[i]);
    }
    if (replay->end.verdict == REPLAY_SAME) {
        check_end(replay);
    }
    verdict = replay->end.verdict;
    drop(replay);
    free(replay);
    return verdict;
}
