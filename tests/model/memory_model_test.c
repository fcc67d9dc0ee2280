/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory against a model: random batches of slots, right and wrong, some with a listener that
 * answers later, and after each one reads and writes across all borders.
 *
 * The model is a list of slots, searched page by page. All of it is PAGES pages from BASE on. Host
 * memory is one buffer in which slots that are neighbours in guest memory lie apart.
 */
#include "../support/guest.h"
#include "../support/random.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BASE 0x7ffff000ull
#define PAGES 16u
#define SLOT_PAGES_MAX 6u
#define HOST_SIZE (PAGES * (SLOT_PAGES_MAX + 1) * GUEST_PAGE)
#define SLOTS 16
#define OPERATIONS 4

struct slot {
    bool there;
    bool rom;
    unsigned first; /* page numbers from BASE */
    unsigned last;
};

struct model {
    struct random random;
    uint64_t seed;
    struct viommu_memory *memory;
    struct viommu_memory_listener *listener;
    uint8_t *host;
    uint8_t *before; /* a copy */
    struct slot slots[SLOTS];
    bool answer_later;
    uint64_t token;
    unsigned changing;
    unsigned changed;
    size_t removed;
    size_t added;
    bool done;
};

static uint64_t gpa_of(unsigned page)
{
    return BASE + page * GUEST_PAGE;
}

/* Where a slot lies: as many pages on for each page of the guest that no two slots meet. */
static uint8_t *host_of(struct model *model, unsigned first)
{
    return model->host + first * (SLOT_PAGES_MAX + 1) * GUEST_PAGE;
}

static const struct slot *slot_at(const struct slot *slots, unsigned page)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        if (slots[i].there && slots[i].first <= page && page <= slots[i].last) {
            return &slots[i];
        }
    }
    return NULL;
}

static int on_changing(void *opaque, const struct viommu_memory_change *change)
{
    struct model *model = opaque;

    model->changing++;
    model->removed = change->removed_count;
    model->added = change->added_count;
    model->token = change->token;
    return model->answer_later ? VIOMMU_PENDING : 0;
}

static void on_changed(void *opaque, const struct viommu_memory_change *change)
{
    struct model *model = opaque;

    model->changed++;
    if (change->removed_count != model->removed || change->added_count != model->added) {
        guest_die("--seed %llu: a listener hears of two different changes",
                  (unsigned long long)model->seed);
    }
}

static void on_done(void *opaque)
{
    ((struct model *)opaque)->done = true;
}

/* What a removal makes of the slots. Returns 0 or the error that it deserves. */
static int model_remove(struct slot *slots, unsigned first, unsigned last, size_t *removed)
{
    bool any = false;

    for (unsigned i = 0; i < SLOTS; i++) {
        if (!slots[i].there || slots[i].first > last || slots[i].last < first) {
            continue;
        }
        if (slots[i].first < first || slots[i].last > last) {
            return -EINVAL;
        }
        slots[i].there = false;
        any = true;
        ++*removed;
    }
    return any ? 0 : -ENOENT;
}

static int model_add(struct slot *slots, const struct slot *slot)
{
    for (unsigned page = slot->first; page <= slot->last; page++) {
        if (slot_at(slots, page)) {
            return -EEXIST;
        }
    }
    for (unsigned i = 0; i < SLOTS; i++) {
        if (!slots[i].there) {
            slots[i] = *slot;
            return 0;
        }
    }
    return -ENOSPC;
}

struct plan {
    bool add;
    struct slot slot;
};

static struct plan any_plan(struct model *model)
{
    struct plan plan = {.add = random_percent(&model->random, 60)};
    unsigned first = random_below(&model->random, PAGES);
    unsigned pages = 1 + random_below(&model->random, SLOT_PAGES_MAX);

    plan.slot = (struct slot){
        .there = true,
        .rom = random_percent(&model->random, 20),
        .first = first,
        .last = first + pages - 1 < PAGES ? first + pages - 1 : PAGES - 1,
    };
    return plan;
}

/* Removals come before additions. Fills `errors` with what may be returned; none: success. */
static unsigned apply(struct slot *slots, const struct plan *plans, unsigned count, int *errors,
                      size_t *removed)
{
    unsigned error_count = 0;

    for (int adding = 0; adding < 2; adding++) {
        for (unsigned i = 0; i < count; i++) {
            int error = 0;

            if (plans[i].add != adding) {
                continue;
            }
            if (adding) {
                error = model_add(slots, &plans[i].slot);
            } else {
                error = model_remove(slots, plans[i].slot.first, plans[i].slot.last, removed);
            }
            if (error) {
                errors[error_count++] = error;
            }
        }
    }
    return error_count;
}

static bool plans_overlap(const struct plan *plans, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        for (unsigned j = 0; j < i; j++) {
            if (!plans[i].add && !plans[j].add && plans[i].slot.first <= plans[j].slot.last &&
                plans[j].slot.first <= plans[i].slot.last) {
                return true;
            }
        }
    }
    return false;
}

static int commit(struct model *model, const struct plan *plans, unsigned count)
{
    struct viommu_memory_batch *batch;
    int result;

    guest_ok(viommu_memory_batch_begin(model->memory, &batch), "batch");
    for (unsigned i = 0; i < count; i++) {
        const struct slot *slot = &plans[i].slot;
        uint64_t first = gpa_of(slot->first);
        uint64_t last = gpa_of(slot->last) + GUEST_PAGE - 1;

        if (plans[i].add) {
            guest_ok(viommu_memory_batch_add(batch, &(struct viommu_memory_slot){
                                                        .first = first,
                                                        .last = last,
                                                        .host = host_of(model, slot->first),
                                                        .fd = -1,
                                                        .flags = slot->rom,
                                                    }),
                     "add");
        } else {
            guest_ok(viommu_memory_batch_remove(batch, first, last), "remove");
        }
    }
    model->done = false;
    result = viommu_memory_batch_commit(batch, on_done, model);
    for (unsigned i = 0; result == VIOMMU_PENDING && !model->done; i++) {
        if (i == 3 && model->answer_later) {
            guest_ok(viommu_memory_listener_complete(model->listener, model->token), "answer");
        }
        viommu_memory_process(model->memory);
        if (i > 1000) {
            guest_die("--seed %llu: a batch never completes", (unsigned long long)model->seed);
        }
    }
    return result;
}

static void change(struct model *model)
{
    struct plan plans[OPERATIONS];
    unsigned count = 1 + random_below(&model->random, OPERATIONS);
    struct slot after[SLOTS];
    int errors[OPERATIONS];
    unsigned error_count;
    size_t removed = 0;
    unsigned changed = model->changed;
    int result;

    for (unsigned i = 0; i < count; i++) {
        plans[i] = any_plan(model);
    }
    if (plans_overlap(plans, count)) {
        return;
    }
    memcpy(after, model->slots, sizeof(after));
    error_count = apply(after, plans, count, errors, &removed);
    model->answer_later = random_percent(&model->random, 30);
    result = commit(model, plans, count);
    for (unsigned i = 0; i < error_count; i++) {
        if (result == errors[i]) {
            return; /* nothing changed */
        }
    }
    if (error_count || result < 0 || (result == VIOMMU_PENDING) != model->answer_later) {
        guest_die("--seed %llu: commit returned %d", (unsigned long long)model->seed, result);
    }
    memcpy(model->slots, after, sizeof(after));
    if (model->changed != changed + 1 || model->removed != removed) {
        guest_die("--seed %llu: a listener heard of %u changes, %zu removals",
                  (unsigned long long)model->seed, model->changed - changed, model->removed);
    }
}

/* What an access to pages [first, last] deserves; 0 or up to two errors. */
static bool deserves(const struct model *model, unsigned first, unsigned last, bool write,
                     int result)
{
    bool absent = false;
    bool rom = false;

    for (unsigned page = first; page <= last; page++) {
        const struct slot *slot = page < PAGES ? slot_at(model->slots, page) : NULL;

        absent |= !slot;
        rom |= slot && slot->rom && write;
    }
    return result == 0 ? !absent && !rom
                       : (result == -ENXIO && absent) || (result == -EROFS && rom);
}

/*
 * Copies between a buffer and guest memory, page by page; `host` is the model's or the copy of it.
 */
static void copy(struct model *model, uint8_t *host, unsigned page, unsigned offset, uint8_t *buf,
                 size_t len, bool write)
{
    while (len) {
        const struct slot *slot = slot_at(model->slots, page);
        uint8_t *at = host + (host_of(model, slot->first) - model->host) +
                      (page - slot->first) * GUEST_PAGE + offset;
        size_t part = len < GUEST_PAGE - offset ? len : GUEST_PAGE - offset;

        memcpy(write ? at : buf, write ? buf : at, part);
        buf += part;
        len -= part;
        offset = 0;
        page++;
    }
}

static void access(struct model *model)
{
    static uint8_t buf[4 * GUEST_PAGE];
    static uint8_t expected[4 * GUEST_PAGE];
    unsigned first = random_below(&model->random, PAGES);
    unsigned offset = random_below(&model->random, GUEST_PAGE);
    size_t len = 1 + random_below(&model->random,
                                  random_percent(&model->random, 50) ? 64 : sizeof(buf) - 1);
    unsigned last = first + (unsigned)((offset + len - 1) / GUEST_PAGE);
    bool write = random_percent(&model->random, 50);
    int result;

    for (size_t i = 0; i < len; i++) {
        buf[i] = (uint8_t)random_u64(&model->random);
    }
    memcpy(model->before, model->host, HOST_SIZE);
    if (write) {
        result = viommu_memory_write(model->memory, gpa_of(first) + offset, buf, len);
    } else {
        result = viommu_memory_read(model->memory, gpa_of(first) + offset, buf, len);
    }
    if (!deserves(model, first, last, write, result)) {
        guest_die("--seed %llu: %s of %zu bytes at page %u: %d", (unsigned long long)model->seed,
                  write ? "write" : "read", len, first, result);
    }
    if (!result) {
        memcpy(expected, buf, len);
        copy(model, model->before, first, offset, expected, len, write);
        if (memcmp(expected, buf, len)) {
            guest_die("--seed %llu: read something else", (unsigned long long)model->seed);
        }
    }
    if (memcmp(model->before, model->host, HOST_SIZE)) {
        guest_die("--seed %llu: memory changed", (unsigned long long)model->seed);
    }
}

static void run(uint64_t seed, unsigned steps)
{
    static const struct viommu_memory_listener_ops ops = {.changing = on_changing,
                                                          .changed = on_changed};
    struct model model = {.random = {seed}, .seed = seed};

    model.host = calloc(1, HOST_SIZE);
    model.before = malloc(HOST_SIZE);
    guest_ok(!model.host || !model.before, "host memory");
    guest_ok(viommu_memory_create(&model.memory), "memory");
    guest_ok(viommu_memory_listener_add(model.memory, &ops, &model, &model.listener), "listener");
    for (unsigned i = 0; i < steps; i++) {
        if (random_percent(&model.random, 30)) {
            change(&model);
        } else {
            access(&model);
        }
    }
    if (!model.changed) {
        guest_die("--seed %llu: nothing changed", (unsigned long long)seed);
    }
    guest_ok(viommu_memory_listener_remove(model.listener), "listener");
    viommu_memory_destroy(model.memory);
    free(model.before);
    free(model.host);
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 2 && !strcmp(argv[1], "--seed") ? strtoull(argv[2], NULL, 0) : 1;
    uint64_t seeds = argc > 2 ? 1 : 50;

    for (uint64_t i = 0; i < seeds; i++) {
        run(seed + i, 400);
    }
    printf("memory model: ok\n");
    return 0;
}
