/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The recording mirror: see recorder.h.
 */
#include "recorder.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096ull
#define INTERRUPTS_FIRST 0xfee00000ull
#define INTERRUPTS_LAST 0xfeefffffull

static __attribute__((format(printf, 3, 4))) void broken(struct recorder *recorder,
                                                         const struct viommu_change *change,
                                                         const char *format, ...)
{
    char text[512];
    int used = 0;
    va_list args;

    if (change) {
        used = snprintf(text, sizeof(text), "kind %d [%#llx, %#llx] gpa %#llx perm %u cause %d: ",
                        (int)change->kind, (unsigned long long)change->first,
                        (unsigned long long)change->last, (unsigned long long)change->gpa,
                        change->perm, (int)change->cause);
    }
    va_start(args, format);
    vsnprintf(text + used, sizeof(text) - (size_t)used, format, args);
    va_end(args);
    recorder->fail(recorder->opaque, text);
    abort();
}

static uint64_t pages_of(const struct recorder_mapping *mapping)
{
    return (mapping->last - mapping->first) / PAGE + 1;
}

/* Sorted lists of mappings. */

static void *grow(void *list, size_t count, size_t *room, size_t size)
{
    if (count < *room) {
        return list;
    }
    *room = *room ? *room * 2 : 64;
    list = realloc(list, *room * size);
    if (!list) {
        abort();
    }
    return list;
}

/* Index of the first mapping that ends at `address` or above. */
static size_t find(const struct recorder_list *list, uint64_t address)
{
    size_t low = 0;
    size_t high = list->count;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (list->list[middle].last < address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void insert(struct recorder_list *list, size_t at, const struct recorder_mapping *mapping)
{
    list->list = grow(list->list, list->count, &list->room, sizeof(*list->list));
    memmove(list->list + at + 1, list->list + at, (list->count - at) * sizeof(*list->list));
    list->list[at] = *mapping;
    list->count++;
}

const struct recorder_mapping *recorder_find(const struct recorder *recorder, uint64_t address)
{
    size_t at = find(&recorder->mapped, address);

    return at < recorder->mapped.count ? &recorder->mapped.list[at] : NULL;
}

/* Rules. */

static bool inside(const struct viommu_range *range, const struct viommu_change *change)
{
    return range->first <= change->first && change->last <= range->last;
}

static void check_place(struct recorder *recorder, const struct viommu_change *change)
{
    const struct viommu_range *range = &recorder->what.range;
    bool found = !recorder->what.allowed_count;

    if (change->first > change->last || change->first & (PAGE - 1) ||
        ~change->last & (PAGE - 1)) {
        broken(recorder, change, "a range that is no pages");
    }
    if ((range->first || range->last) && !inside(range, change)) {
        broken(recorder, change, "outside of the subscriber's range");
    }
    if (change->kind == VIOMMU_CHANGE_SKIPPED) {
        return;
    }
    for (size_t i = 0; i < recorder->what.allowed_count; i++) {
        found |= inside(&recorder->allowed[i], change);
    }
    if (!found) {
        broken(recorder, change, "outside of what is allowed");
    }
    if (change->first <= INTERRUPTS_LAST && change->last >= INTERRUPTS_FIRST) {
        broken(recorder, change, "in the interrupt range");
    }
}

static void check_block(struct recorder *recorder, const struct viommu_change *change)
{
    uint64_t size = change->last - change->first + 1;

    if (recorder->what.form != VIOMMU_FORM_POW2) {
        return;
    }
    if (size & (size - 1) || change->first & (size - 1)) {
        broken(recorder, change, "no aligned block");
    }
    if (change->kind != VIOMMU_CHANGE_UNMAP && change->gpa & (size - 1)) {
        broken(recorder, change, "the target is not aligned");
    }
}

/* What a mapping leads to is one slot, at the right place of its host memory. */
static void check_target(struct recorder *recorder, const struct viommu_change *change)
{
    uint64_t size = change->last - change->first + 1;

    if (change->gpa & (PAGE - 1) || !change->perm || change->perm & ~3u || !change->host) {
        broken(recorder, change, "target, permissions or host address");
    }
    if (change->gpa <= INTERRUPTS_LAST && change->gpa + (size - 1) >= INTERRUPTS_FIRST) {
        broken(recorder, change, "leads to the interrupt range");
    }
    for (unsigned i = 0; i < recorder->memory->count; i++) {
        const struct viommu_memory_slot *slot = &recorder->memory->slots[i];
        uint64_t offset = change->gpa - slot->first;

        if (change->gpa < slot->first || change->gpa > slot->last ||
            size - 1 > slot->last - change->gpa ||
            (uint8_t *)change->host != (uint8_t *)slot->host + offset) {
            continue;
        }
        if (slot->flags & VIOMMU_MEMORY_READONLY && change->perm & VIOMMU_WRITE) {
            broken(recorder, change, "ROM with write permission");
        }
        if (change->fd != slot->fd || (slot->fd >= 0 && change->fd_offset !=
                                                            slot->fd_offset + offset)) {
            broken(recorder, change, "fd %d offset %#llx", change->fd,
                   (unsigned long long)change->fd_offset);
        }
        return;
    }
    broken(recorder, change, "host address %p is not that of one slot", change->host);
}

/* Whether the mapping is `was`, or a piece of it. */
static bool same(const struct recorder_mapping *was, const struct recorder_mapping *piece)
{
    uint64_t offset = piece->first - was->first;

    return was->perm == piece->perm && was->gpa + offset == piece->gpa &&
           was->host + offset == piece->host;
}

static bool near_limit(const struct recorder *recorder)
{
    uint64_t most = recorder->what.mappings_max;

    return most && recorder->mapped.count > most / 4 * 3; /* rounded in its favour */
}

static void check_map(struct recorder *recorder, const struct viommu_change *change)
{
    const struct recorder_mapping *next = recorder_find(recorder, change->first);

    check_block(recorder, change);
    check_target(recorder, change);
    if (next && next->first <= change->last) {
        broken(recorder, change, "[%#llx, %#llx] is mapped", (unsigned long long)next->first,
               (unsigned long long)next->last);
    }
    if (recorder->what.mappings_max && recorder->mapped.count >= recorder->what.mappings_max) {
        broken(recorder, change, "more mappings than there may be");
    }
}

/* Returns how many mappings it takes. */
static size_t check_unmap(struct recorder *recorder, const struct viommu_change *change)
{
    size_t at = find(&recorder->mapped, change->first);
    const struct recorder_mapping *list = recorder->mapped.list;
    size_t count = 1;

    if (at == recorder->mapped.count || list[at].first != change->first) {
        broken(recorder, change, "does not begin with a mapping");
    }
    while (at + count < recorder->mapped.count && list[at + count - 1].last < change->last &&
           list[at + count].first == list[at + count - 1].last + 1) {
        count++;
    }
    if (list[at + count - 1].last != change->last) {
        broken(recorder, change, "is not whole mappings; it began with [%#llx, %#llx]",
               (unsigned long long)list[at].first, (unsigned long long)list[at].last);
    }
    if (count > 1 && !recorder->what.unmap_spans) {
        broken(recorder, change, "takes %zu mappings", count);
    }
    if (count == 1 && change->gpa != list[at].gpa) {
        broken(recorder, change, "the mapping led to %#llx", (unsigned long long)list[at].gpa);
    }
    if (change->perm) {
        broken(recorder, change, "an UNMAP with permissions");
    }
    return count;
}

static void check_replace(struct recorder *recorder, const struct viommu_change *change)
{
    const struct recorder_mapping *was = recorder_find(recorder, change->first);

    check_block(recorder, change);
    check_target(recorder, change);
    if (!was || was->first != change->first || was->last != change->last) {
        broken(recorder, change, "no such mapping");
    }
    if (was->perm == change->perm && was->gpa == change->gpa && was->host == change->host) {
        broken(recorder, change, "nothing differs");
    }
}

/* What was skipped is as it says: all mapped so, or nothing mapped. */
static void check_skipped(struct recorder *recorder, const struct viommu_change *change)
{
    uint64_t at = change->first;

    for (;;) {
        const struct recorder_mapping *mapping = recorder_find(recorder, at);
        struct recorder_mapping piece;

        if (!change->perm) {
            if (mapping && mapping->first <= change->last) {
                broken(recorder, change, "skipped as not mapped, but [%#llx, %#llx] is",
                       (unsigned long long)mapping->first, (unsigned long long)mapping->last);
            }
            return;
        }
        if (!mapping || mapping->first > at) {
            broken(recorder, change, "skipped as mapped, but %#llx is not", (unsigned long long)at);
        }
        piece = *mapping;
        piece.gpa = mapping->gpa + (at - mapping->first);
        if (piece.gpa != change->gpa + (at - change->first) || piece.perm != change->perm) {
            broken(recorder, change, "skipped, but %#llx is mapped otherwise",
                   (unsigned long long)at);
        }
        if (mapping->last >= change->last) {
            return;
        }
        at = mapping->last + 1;
    }
}

static void check(struct recorder *recorder, const struct viommu_change *change)
{
    if (recorder->fenced) {
        broken(recorder, change, "the mirror is fenced");
    }
    if (recorder->outstanding) {
        broken(recorder, change, "a second call while one is outstanding");
    }
    if (!(recorder->what.kinds & change->kind)) {
        broken(recorder, change, "not asked for");
    }
    if (change->cause < 0 || change->cause >= VIOMMU_CAUSES) {
        broken(recorder, change, "cause");
    }
    if (change->requester != recorder->requester) {
        broken(recorder, change, "requester %04x", change->requester);
    }
    check_place(recorder, change);
    switch (change->kind) {
    case VIOMMU_CHANGE_MAP:
        check_map(recorder, change);
        break;
    case VIOMMU_CHANGE_UNMAP:
        check_unmap(recorder, change);
        break;
    case VIOMMU_CHANGE_REPLACE:
        check_replace(recorder, change);
        break;
    case VIOMMU_CHANGE_SKIPPED:
        check_skipped(recorder, change);
        break;
    default:
        broken(recorder, change, "kind");
    }
}

/* What a call does, once it is done. */

static struct recorder_mapping mapping_of(const struct viommu_change *change)
{
    return (struct recorder_mapping){
        .first = change->first,
        .last = change->last,
        .gpa = change->gpa,
        .host = change->host,
        .perm = change->perm,
    };
}

/* Index of the newest of the first `count` gone mappings that meets one; `count`: none does. */
static size_t newest_gone(const struct recorder *recorder, const struct recorder_mapping *mapping,
                          size_t count)
{
    for (size_t i = count; i--;) {
        if (recorder->gone[i].was.first <= mapping->last &&
            recorder->gone[i].was.last >= mapping->first) {
            return i;
        }
    }
    return count;
}

static struct recorder_mapping piece_of(const struct recorder_mapping *mapping, uint64_t first,
                                        uint64_t last)
{
    struct recorder_mapping piece = *mapping;

    piece.first = first;
    piece.last = last;
    piece.gpa += first - mapping->first;
    piece.host += first - mapping->first;
    return piece;
}

/*
 * What of a new mapping comes back, as it was or otherwise: each page is compared with the newest
 * of the first `count` gone mappings that had it.
 */
static void came_back(struct recorder *recorder, const struct recorder_mapping *mapping,
                      size_t count)
{
    size_t i = newest_gone(recorder, mapping, count);
    struct recorder_gone *gone;
    struct recorder_mapping piece;

    if (i == count) {
        return;
    }
    gone = &recorder->gone[i];
    piece = piece_of(mapping,
                     gone->was.first > mapping->first ? gone->was.first : mapping->first,
                     gone->was.last < mapping->last ? gone->was.last : mapping->last);
    if (same(&gone->was, &piece)) {
        gone->same += pages_of(&piece);
        gone->back = recorder->told_count;
        recorder->interrupted += pages_of(&piece);
    } else {
        recorder->rewritten += pages_of(&piece);
    }
    if (piece.first > mapping->first) {
        struct recorder_mapping before = piece_of(mapping, mapping->first, piece.first - 1);

        came_back(recorder, &before, i);
    }
    if (piece.last < mapping->last) {
        struct recorder_mapping behind = piece_of(mapping, piece.last + 1, mapping->last);

        came_back(recorder, &behind, i);
    }
}

static void do_map(struct recorder *recorder, const struct viommu_change *change)
{
    struct recorder_mapping mapping = mapping_of(change);

    insert(&recorder->mapped, find(&recorder->mapped, change->first), &mapping);
    recorder->pages += pages_of(&mapping);
    if (!recorder->without_periods) {
        insert(&recorder->made, recorder->made.count, &mapping);
        came_back(recorder, &mapping, recorder->gone_count);
    }
}

static void note_gone(struct recorder *recorder, const struct recorder_mapping *mapping)
{
    recorder->gone = grow(recorder->gone, recorder->gone_count, &recorder->gone_room,
                          sizeof(*recorder->gone));
    recorder->gone[recorder->gone_count++] = (struct recorder_gone){
        .was = *mapping,
        .at = recorder->told_count,
    };
}

static void do_unmap(struct recorder *recorder, const struct viommu_change *change)
{
    size_t at = find(&recorder->mapped, change->first);
    struct recorder_mapping *list = recorder->mapped.list;
    size_t count = 0;

    recorder->near_limit |= near_limit(recorder);
    while (at + count < recorder->mapped.count && list[at + count].last <= change->last) {
        if (!recorder->without_periods) {
            note_gone(recorder, &list[at + count]);
        }
        recorder->pages -= pages_of(&list[at + count]);
        count++;
    }
    memmove(list + at, list + at + count, (recorder->mapped.count - at - count) * sizeof(*list));
    recorder->mapped.count -= count;
}

static void apply(struct recorder *recorder, const struct viommu_change *change)
{
    recorder->call_count += change->kind != VIOMMU_CHANGE_SKIPPED;
    if (change->kind == VIOMMU_CHANGE_MAP) {
        do_map(recorder, change);
    } else if (change->kind == VIOMMU_CHANGE_UNMAP) {
        do_unmap(recorder, change);
    } else if (change->kind == VIOMMU_CHANGE_REPLACE) {
        recorder->rewritten++;
        recorder->mapped.list[find(&recorder->mapped, change->first)] = mapping_of(change);
    }
    if (change->kind != VIOMMU_CHANGE_SKIPPED && !recorder->without_periods) {
        recorder->told = grow(recorder->told, recorder->told_count, &recorder->told_room,
                              sizeof(*recorder->told));
        recorder->told[recorder->told_count++] =
            (struct viommu_range){change->first, change->last};
    }
}

static int on_change(void *opaque, const struct viommu_change *change)
{
    struct recorder *recorder = opaque;
    int answer;

    check(recorder, change);
    recorder->calls[change->kind]++;
    if (change->kind != VIOMMU_CHANGE_SKIPPED) {
        recorder->causes |= 1u << change->cause;
    }
    answer = recorder->answer ? recorder->answer(recorder->opaque, change) : 0;
    if (recorder->trace) {
        printf("%s: kind %d [%#llx, %#llx] gpa %#llx perm %u cause %d: %d\n", recorder->trace,
               (int)change->kind, (unsigned long long)change->first,
               (unsigned long long)change->last, (unsigned long long)change->gpa, change->perm,
               (int)change->cause, answer);
    }
    if (answer == VIOMMU_PENDING) {
        recorder->outstanding = true;
        recorder->pending = *change;
    } else if (!answer) {
        apply(recorder, change);
    } else {
        recorder->failed = true;
    }
    return answer;
}

static int on_fence(void *opaque)
{
    struct recorder *recorder = opaque;

    if (recorder->fenced) {
        broken(recorder, NULL, "fenced twice");
    }
    recorder->calls[0]++;
    recorder_drop(recorder);
    recorder->fenced = true;
    return recorder->answer_fence ? recorder->answer_fence(recorder->opaque) : 0;
}

void recorder_complete(struct recorder *recorder, int status)
{
    recorder->outstanding = false;
    if (!status) {
        apply(recorder, &recorder->pending);
    } else {
        recorder->failed = true;
    }
}

void recorder_drop(struct recorder *recorder)
{
    recorder->outstanding = false;
    recorder->mapped.count = 0;
    recorder->pages = 0;
    recorder->gone_count = 0;
    recorder->made.count = 0;
    recorder->told_count = 0;
}

void recorder_no_host(struct recorder *recorder, const void *host, size_t size)
{
    for (size_t i = 0; i < recorder->mapped.count; i++) {
        const struct recorder_mapping *mapping = &recorder->mapped.list[i];

        if (mapping->host < (const uint8_t *)host + size &&
            mapping->host + (mapping->last - mapping->first) >= (const uint8_t *)host) {
            broken(recorder, NULL, "[%#llx, %#llx] leads to memory that is gone",
                   (unsigned long long)mapping->first, (unsigned long long)mapping->last);
        }
    }
}

/* Periods. */

void recorder_begin(struct recorder *recorder)
{
    recorder->gone_count = 0;
    recorder->made.count = 0;
    recorder->told_count = 0;
    recorder->causes = 0;
    recorder->interrupted = 0;
    recorder->rewritten = 0;
    recorder->excused = false;
    recorder->near_limit = near_limit(recorder);
}

static bool follows(const struct recorder_mapping *a, const struct recorder_mapping *b)
{
    return a->last + 1 == b->first && a->gpa + (b->first - a->first) == b->gpa &&
           a->host + (b->first - a->first) == b->host && a->perm == b->perm;
}


/* A mapping was taken away only where a page of it changed. (Blocks of one go in order.) */
static void check_gone(struct recorder *recorder)
{
    size_t group = 0;

    if (recorder->failed && recorder->what.form == VIOMMU_FORM_POW2) {
        return; /* the block that changed may be one that could not be made */
    }
    for (size_t i = 0; i < recorder->gone_count; i++) {
        struct recorder_gone *gone = recorder->gone;
        bool last = i + 1 == recorder->gone_count ||
                    recorder->what.form != VIOMMU_FORM_POW2 ||
                    !follows(&gone[i].was, &gone[i + 1].was);
        bool changed = false;

        if (!last) {
            continue;
        }
        for (; group <= i; group++) {
            changed |= gone[group].same < pages_of(&gone[group].was);
            if (gone[group].same && recorder->excuse &&
                recorder->excuse(recorder->opaque, &gone[group].was)) {
                recorder->excused = changed = true;
            }
        }
        if (!changed && !recorder->near_limit) {
            broken(recorder, NULL, "[%#llx, %#llx] was taken away and mapped again as it was",
                   (unsigned long long)gone[i].was.first, (unsigned long long)gone[i].was.last);
        }
    }
}

static bool was_gone(const struct recorder *recorder, const struct recorder_mapping *mapping)
{
    for (size_t i = 0; i < recorder->gone_count; i++) {
        if (recorder->gone[i].was.first <= mapping->last &&
            recorder->gone[i].was.last >= mapping->first) {
            return true;
        }
    }
    return false;
}

/* Whether two mappings that follow one another ought to be one. */
static bool should_be_one(const struct recorder *recorder, const struct recorder_mapping *a,
                          const struct recorder_mapping *b)
{
    uint64_t size = a->last - a->first + 1;

    if (!follows(a, b) || (a->first ^ b->last) >> 21) {
        return false;
    }
    for (unsigned i = 0; i < recorder->memory->count; i++) {
        const struct viommu_memory_slot *slot = &recorder->memory->slots[i];

        if (slot->first <= a->gpa && a->gpa <= slot->last &&
            slot->flags & VIOMMU_MEMORY_READONLY) {
            return false; /* the guest may have given them different permissions */
        }
    }
    if (recorder->what.form == VIOMMU_FORM_POW2 &&
        (b->last - b->first + 1 != size || (a->first | a->gpa) & (2 * size - 1))) {
        return false;
    }
    return true;
}

/* What came in one sync is in the fewest mappings. */
static void check_fewest(struct recorder *recorder)
{
    for (size_t i = 1; i < recorder->made.count; i++) {
        const struct recorder_mapping *a = &recorder->made.list[i - 1];
        const struct recorder_mapping *b = &recorder->made.list[i];

        if (should_be_one(recorder, a, b) && !was_gone(recorder, a) && !was_gone(recorder, b)) {
            broken(recorder, NULL, "[%#llx, %#llx] and [%#llx, %#llx] were mapped one by one",
                   (unsigned long long)a->first, (unsigned long long)a->last,
                   (unsigned long long)b->first, (unsigned long long)b->last);
        }
    }
}

/*
 * What comes back does so at once: between the two calls nothing is told of another block (2 MiB,
 * or the large page that it was).
 */
static void check_at_once(struct recorder *recorder)
{
    for (size_t i = 0; i < recorder->gone_count; i++) {
        const struct recorder_gone *gone = &recorder->gone[i];
        bool large = recorder->what.form == VIOMMU_FORM_POW2 || /* perhaps a block of one */
                     (gone->was.first ^ gone->was.last) >> 21;
        unsigned shift = large ? 30 : 21;

        for (size_t at = gone->at + 1; gone->same && at < gone->back; at++) {
            if (recorder->told[at].last >> shift < gone->was.first >> shift ||
                recorder->told[at].first >> shift > gone->was.last >> shift) {
                broken(recorder, NULL, "[%#llx, %#llx] comes back only after [%#llx, %#llx]",
                       (unsigned long long)gone->was.first, (unsigned long long)gone->was.last,
                       (unsigned long long)recorder->told[at].first,
                       (unsigned long long)recorder->told[at].last);
            }
        }
    }
}

uint64_t recorder_end(struct recorder *recorder, bool one_sync)
{
    check_gone(recorder);
    if (one_sync && !recorder->what.mappings_max && !recorder->failed) {
        check_fewest(recorder);
        check_at_once(recorder);
    }
    return recorder->interrupted;
}

void recorder_init(struct recorder *recorder, const struct viommu_subscription *what)
{
    memset(recorder, 0, sizeof(*recorder));
    recorder->what = *what;
    if (what->allowed_count) {
        memcpy(recorder->allowed, what->allowed, what->allowed_count * sizeof(*what->allowed));
        recorder->what.allowed = recorder->allowed;
    }
    recorder->what.change = on_change;
    recorder->what.fence = on_fence;
    recorder->what.opaque = recorder;
}

void recorder_fini(struct recorder *recorder)
{
    free(recorder->mapped.list);
    free(recorder->made.list);
    free(recorder->told);
    free(recorder->gone);
    memset(recorder, 0, sizeof(*recorder));
}
