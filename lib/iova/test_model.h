/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A plain model of an IOVA space, for a random test and a fuzz target: 128 pages, and for each of
 * them by brute force who claims it. An operation is eight bytes. It is done to the space and
 * judged by the model: what may be, must be, and what may not, must be refused with the right error
 * and sides that meet.
 *
 * Where a movable window goes is not foretold. That it is well placed the space's own checker says,
 * after each call; here, that it moves only where it has to, and that when no place is found there
 * is none.
 */
#ifndef VIOMMU_IOVA_TEST_MODEL_H
#define VIOMMU_IOVA_TEST_MODEL_H

#include <viommu/iova.h>
#include <viommu/save.h>

#include "base/alloc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODEL_PAGES 128u
#define MODEL_PAGE UINT64_C(4096)
#define MODEL_OWNERS 3
#define MODEL_THINGS 24 /* of each kind */

struct model_thing {
    bool used;
    unsigned owner;
    unsigned first; /* pages */
    unsigned last;
    enum viommu_iova_type type;
    bool loose; /* a movable window: where it is, the space says */
    unsigned bound_first;
    unsigned bound_last;
    unsigned doorbells;
    union {
        struct viommu_iova_reservation *reservation;
        struct viommu_iova_memory *memory;
    };
};

struct model {
    struct viommu_iova *space;
    struct viommu_iova_owner *owners[MODEL_OWNERS];
    bool identity;
    uint64_t base;
    struct model_thing reservations[MODEL_THINGS];
    struct model_thing memories[MODEL_THINGS];
    struct model_thing mappings[MODEL_THINGS];
    bool limited[MODEL_OWNERS];
    bool hole[MODEL_OWNERS][MODEL_PAGES];
};

static inline void model_expect(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "iova model: %s\n", what);
        abort();
    }
}

static inline struct viommu_range model_range(const struct model *model, unsigned first,
                                              unsigned last)
{
    return (struct viommu_range){model->base + first * MODEL_PAGE,
                                 model->base + last * MODEL_PAGE + MODEL_PAGE - 1};
}

static inline void model_owner(struct model *model, unsigned i)
{
    char name[2] = {(char)('a' + i), 0};

    model_expect(!viommu_iova_owner_create(model->space, name, &model->owners[i]), "an owner");
}

/* `place`: at the bottom, in the middle, or at the top of the address space. */
static inline void model_begin(struct model *model, bool identity, unsigned place)
{
    static const uint64_t bases[] = {0, 0xfffc0000, -(MODEL_PAGES * MODEL_PAGE)};
    const struct viommu_iova_config config = {.identity = identity};

    base_alloc_fail_at(0);
    memset(model, 0, sizeof(*model));
    model->identity = identity;
    model->base = bases[place % 3];
    model_expect(!viommu_iova_create(&config, &model->space), "a space");
    for (unsigned i = 0; i < MODEL_OWNERS; i++) {
        model_owner(model, i);
    }
}

static inline void model_end(struct model *model)
{
    base_alloc_fail_at(0);
    viommu_iova_destroy(model->space);
}

/* Takes over where movable windows are now. */
static inline void model_follow(struct model *model)
{
    for (unsigned i = 0; i < MODEL_THINGS; i++) {
        struct model_thing *thing = &model->reservations[i];
        struct viommu_range range;

        if (!thing->used) {
            continue;
        }
        range = viommu_iova_reservation_range(thing->reservation);
        if (!thing->loose) {
            struct viommu_range fixed = model_range(model, thing->first, thing->last);

            model_expect(range.first == fixed.first && range.last == fixed.last,
                         "a fixed reservation moved");
            continue;
        }
        model_expect((range.last - range.first) / MODEL_PAGE == thing->last - thing->first,
                     "a window has another size");
        thing->last += (unsigned)((range.first - model->base) / MODEL_PAGE) - thing->first;
        thing->first = (unsigned)((range.first - model->base) / MODEL_PAGE);
    }
}

static inline bool model_meets(const struct model_thing *thing, unsigned first, unsigned last)
{
    return thing->used && thing->first <= last && first <= thing->last;
}

static inline bool model_any(const struct model_thing *things, unsigned first, unsigned last)
{
    for (unsigned i = 0; i < MODEL_THINGS; i++) {
        if (model_meets(&things[i], first, last)) {
            return true;
        }
    }
    return false;
}

static inline bool model_reserved(const struct model *model, unsigned first, unsigned last)
{
    for (unsigned i = 0; i < MODEL_THINGS; i++) {
        const struct model_thing *thing = &model->reservations[i];

        if (model_meets(thing, first, last) && !thing->loose &&
            thing->type != VIOMMU_IOVA_DIRECT_RELAXABLE) {
            return true;
        }
    }
    return false;
}

static inline bool model_limited(const struct model *model, unsigned first, unsigned last)
{
    for (unsigned i = 0; i < MODEL_OWNERS; i++) {
        for (unsigned page = first; page <= last; page++) {
            if (model->hole[i][page]) {
                return true;
            }
        }
    }
    return false;
}

/* Whether a doorbell may lie there: where in its window each is, the model does not know. */
static inline bool model_doorbells(const struct model *model, unsigned first, unsigned last)
{
    for (unsigned i = 0; i < MODEL_THINGS; i++) {
        if (model_meets(&model->reservations[i], first, last) &&
            model->reservations[i].doorbells) {
            return true;
        }
    }
    return false;
}

/* Whether no claim at all lies there, loose windows aside where `windows` is false. */
static inline bool model_free(const struct model *model, unsigned first, unsigned last,
                              bool windows)
{
    if (model_limited(model, first, last) || model_any(model->mappings, first, last) ||
        (model->identity && model_any(model->memories, first, last))) {
        return false;
    }
    for (unsigned i = 0; i < MODEL_THINGS; i++) {
        const struct model_thing *thing = &model->reservations[i];

        if (model_meets(thing, first, last) && (windows || !thing->loose)) {
            return false;
        }
    }
    return true;
}

/* What must come of something fixed: 0 or the error, doorbells and loose windows aside. */
static inline int model_judge(const struct model *model, enum viommu_iova_kind kind,
                              enum viommu_iova_type type, unsigned first, unsigned last)
{
    bool uses = kind == VIOMMU_IOVA_MAPPING || kind == VIOMMU_IOVA_MEMORY;

    if ((kind == VIOMMU_IOVA_MEMORY && !model->identity) ||
        (kind == VIOMMU_IOVA_RESERVATION && type == VIOMMU_IOVA_DIRECT_RELAXABLE)) {
        return 0;
    }
    if (uses && model_limited(model, first, last)) {
        return -ERANGE;
    }
    if (uses && model_reserved(model, first, last)) {
        return -EADDRNOTAVAIL;
    }
    if (model_any(model->mappings, first, last)) {
        return -EEXIST;
    }
    if (kind != VIOMMU_IOVA_MEMORY && model->identity &&
        model_any(model->memories, first, last)) {
        return -EADDRINUSE;
    }
    return 0;
}

/* Whether a loose window lies there: it may be that it cannot give way. */
static inline bool model_loose(const struct model *model, unsigned first, unsigned last)
{
    for (unsigned i = 0; i < MODEL_THINGS; i++) {
        if (model_meets(&model->reservations[i], first, last) && model->reservations[i].loose) {
            return true;
        }
    }
    return false;
}

static inline bool model_sides_meet(const struct viommu_iova_conflict *conflict)
{
    return conflict->asked.range.first <= conflict->holder.range.last &&
           conflict->holder.range.first <= conflict->asked.range.last &&
           *conflict->asked.owner && *conflict->holder.owner;
}

/* Judges what came of something fixed. Returns the error. */
static inline int model_outcome(struct model *model, int error, int judged,
                                enum viommu_iova_kind kind, enum viommu_iova_type type,
                                unsigned first, unsigned last,
                                const struct viommu_iova_conflict *conflict)
{
    bool failed = base_alloc_failed();
    bool doorbells = kind == VIOMMU_IOVA_RESERVATION && type != VIOMMU_IOVA_DIRECT_RELAXABLE &&
                     model_doorbells(model, first, last);

    base_alloc_fail_at(0);
    if (error == -ENOMEM) {
        model_expect(failed, "memory that did not fail");
        return error;
    }
    if (error) {
        model_expect(model_sides_meet(conflict), "sides that do not meet");
        model_expect(conflict->asked.kind == kind, "another kind was asked");
    }
    if (error == judged) {
        return error;
    }
    if (doorbells && error == -EEXIST) {
        model_expect(conflict->holder.kind == VIOMMU_IOVA_DOORBELL, "no doorbell");
        return error;
    }
    model_expect(!judged && error == -EADDRNOTAVAIL && model_loose(model, first, last) &&
                 conflict->holder.type == VIOMMU_IOVA_SW_MSI, "another error");
    return error;
}

static inline struct model_thing *model_room(struct model_thing *things)
{
    for (unsigned i = 0; i < MODEL_THINGS; i++) {
        if (!things[i].used) {
            return &things[i];
        }
    }
    return NULL;
}

static inline int model_reserve(struct model *model, unsigned owner, enum viommu_iova_type type,
                                unsigned first, unsigned last)
{
    struct model_thing *thing = model_room(model->reservations);
    struct viommu_iova_request request = {.type = type, .range = model_range(model, first, last)};
    struct viommu_iova_conflict conflict;
    struct viommu_iova_reservation *out;
    int judged = model_judge(model, VIOMMU_IOVA_RESERVATION, type, first, last);
    int error;

    if (!thing) {
        return 0;
    }
    error = viommu_iova_reserve(model->owners[owner], &request, 1, &out, &conflict);
    error = model_outcome(model, error, judged, VIOMMU_IOVA_RESERVATION, type, first, last,
                          &conflict);
    if (!error) {
        *thing = (struct model_thing){.used = true, .owner = owner, .first = first, .last = last,
                                      .type = type, .reservation = out};
    }
    return error;
}

/* A window that comes finds the place that it wants when that is free, else one if there is one. */
static inline int model_window(struct model *model, unsigned owner, unsigned first, unsigned pages,
                               unsigned bound_first, unsigned bound_last)
{
    struct model_thing *thing = model_room(model->reservations);
    struct viommu_iova_request request = {
        .type = VIOMMU_IOVA_SW_MSI,
        .range = model_range(model, first, first + pages - 1),
        .movable = true,
        .bounds = model_range(model, bound_first, bound_last),
    };
    struct viommu_iova_reservation *out;
    bool any = false;
    bool wanted = false;
    int error;

    if (!thing || first + pages > MODEL_PAGES) {
        return 0;
    }
    for (unsigned at = bound_first; at + pages - 1 <= bound_last; at++) {
        bool fits = model_free(model, at, at + pages - 1, true) &&
                    !model_any(model->memories, at, at + pages - 1);

        any = any || fits;
        wanted = wanted || (fits && at == first);
    }
    error = viommu_iova_reserve(model->owners[owner], &request, 1, &out, NULL);
    if (error == -ENOMEM) {
        model_expect(base_alloc_failed(), "memory that did not fail");
        base_alloc_fail_at(0);
        return error;
    }
    base_alloc_fail_at(0);
    model_expect(any ? !error : error == -EADDRNOTAVAIL, "a window, or none");
    if (!error) {
        *thing = (struct model_thing){.used = true, .owner = owner, .first = first,
                                      .last = first + pages - 1, .type = VIOMMU_IOVA_SW_MSI,
                                      .loose = true, .reservation = out};
        model_follow(model);
        model_expect(!wanted || thing->first == first, "a window elsewhere without need");
        model_expect(thing->first >= bound_first && thing->last <= bound_last, "out of bounds");
    }
    return error;
}

static inline int model_memory(struct model *model, unsigned owner, unsigned first, unsigned last)
{
    struct model_thing *thing = model_room(model->memories);
    struct viommu_range range = model_range(model, first, last);
    struct viommu_iova_conflict conflict;
    struct viommu_iova_memory *out;
    int judged = model_judge(model, VIOMMU_IOVA_MEMORY, VIOMMU_IOVA_RESERVED, first, last);
    int error;

    if (!thing) {
        return 0;
    }
    error = viommu_iova_memory_add(model->owners[owner], &range, first & 1, &out, &conflict);
    error = model_outcome(model, error, judged, VIOMMU_IOVA_MEMORY, VIOMMU_IOVA_RESERVED, first,
                          last, &conflict);
    if (!error) {
        *thing = (struct model_thing){.used = true, .owner = owner, .first = first, .last = last,
                                      .memory = out};
    }
    return error;
}

static inline int model_map(struct model *model, unsigned owner, unsigned first, unsigned last)
{
    struct model_thing *thing = model_room(model->mappings);
    struct viommu_range range = model_range(model, first, last);
    struct viommu_iova_conflict conflict;
    int judged = model_judge(model, VIOMMU_IOVA_MAPPING, VIOMMU_IOVA_RESERVED, first, last);
    int error;

    if (!thing) {
        return 0;
    }
    error = viommu_iova_map(model->owners[owner], &range, &conflict);
    error = model_outcome(model, error, judged, VIOMMU_IOVA_MAPPING, VIOMMU_IOVA_RESERVED, first,
                          last, &conflict);
    if (!error) {
        *thing = (struct model_thing){.used = true, .owner = owner, .first = first, .last = last};
    }
    return error;
}

static inline int model_alloc(struct model *model, unsigned owner, unsigned first, unsigned last,
                              unsigned pages, unsigned order)
{
    struct model_thing *thing = model_room(model->mappings);
    struct viommu_range range = model_range(model, first, last);
    uint64_t align = MODEL_PAGE << order;
    uint64_t at;
    bool any = false;
    int error;

    if (!thing) {
        return 0;
    }
    for (unsigned p = first; p + pages - 1 <= last; p++) {
        any = any || ((model->base + p * MODEL_PAGE) % align == 0 &&
                      model_free(model, p, p + pages - 1, true));
    }
    error = viommu_iova_alloc(model->owners[owner], pages * MODEL_PAGE, align, &range, &at);
    if (error == -ENOMEM) {
        model_expect(base_alloc_failed(), "memory that did not fail");
    }
    base_alloc_fail_at(0);
    if (error == -ENOMEM) {
        return error;
    }
    model_expect(any ? !error : error == -ENOSPC, "a place, or none");
    if (!error) {
        unsigned found = (unsigned)((at - model->base) / MODEL_PAGE);

        model_expect(at % align == 0 && found >= first && found + pages - 1 <= last &&
                     model_free(model, found, found + pages - 1, true), "a bad place");
        *thing = (struct model_thing){.used = true, .owner = owner, .first = found,
                                      .last = found + pages - 1};
    }
    return error;
}

static inline int model_limit(struct model *model, unsigned owner, unsigned first, unsigned last)
{
    struct viommu_range range = model_range(model, first, last);
    bool hole[MODEL_PAGES];
    int judged = 0;
    bool maybe = false;
    int error;

    for (unsigned page = 0; page < MODEL_PAGES; page++) {
        hole[page] = page < first || page > last;
        if (hole[page]) {
            int bad = model_judge(model, VIOMMU_IOVA_LIMIT, VIOMMU_IOVA_RESERVED, page, page);

            judged = judged ? judged : bad;
            maybe = maybe || model_loose(model, page, page) || model_doorbells(model, page, page);
        }
    }
    error = viommu_iova_limit(model->owners[owner], &range, 1, NULL);
    if (error == -ENOMEM) {
        model_expect(base_alloc_failed(), "memory that did not fail");
    }
    base_alloc_fail_at(0);
    if (error == -ENOMEM) {
        return error;
    }
    if (model->limited[owner]) {
        model_expect(error == -EALREADY, "limits twice");
    } else if (judged) {
        model_expect(error == -EEXIST || error == -EADDRINUSE, "limits over something");
    } else {
        model_expect(!error || maybe, "limits refused");
    }
    if (!error) {
        model->limited[owner] = true;
        memcpy(model->hole[owner], hole, sizeof(hole));
    }
    return error;
}

static inline int model_doorbell(struct model *model, unsigned i, unsigned number, bool unmap)
{
    struct model_thing *thing = &model->reservations[i % MODEL_THINGS];
    uint64_t doorbell = 0xfee00000 + (number % 8) * MODEL_PAGE;
    uint64_t iova = 0;
    bool flag = false;
    int error;

    if (!thing->used) {
        return 0;
    }
    if (unmap) {
        error = viommu_iova_doorbell_unmap(thing->reservation, doorbell, &flag);
        thing->doorbells -= !error && flag;
    } else {
        error = viommu_iova_doorbell_map(thing->reservation, doorbell + 4, &iova, &flag);
        model_expect(error != -EINVAL || thing->type != VIOMMU_IOVA_SW_MSI, "it is a window");
    }
    base_alloc_fail_at(0);
    if (!error && !unmap) {
        struct viommu_range range = model_range(model, thing->first, thing->last);

        model_expect(iova >= range.first && iova <= range.last && iova % MODEL_PAGE == 4,
                     "a doorbell outside its window");
        thing->doorbells += flag;
        thing->loose = false;
    }
    return error;
}

static inline void model_forget(struct model_thing *things, unsigned owner)
{
    for (unsigned i = 0; i < MODEL_THINGS; i++) {
        if (things[i].owner == owner) {
            things[i].used = false;
        }
    }
}

/* What goes, goes whatever fails. */
static inline int model_drop(struct model *model, unsigned kind, unsigned i)
{
    struct model_thing *thing;
    struct viommu_range range;

    i %= MODEL_THINGS;
    switch (kind % 4) {
    case 0:
        thing = &model->reservations[i];
        if (thing->used) {
            viommu_iova_release(thing->reservation);
        }
        thing->used = false;
        return 0;
    case 1:
        thing = &model->memories[i];
        if (thing->used) {
            viommu_iova_memory_remove(thing->memory);
        }
        thing->used = false;
        return 0;
    case 2:
        thing = &model->mappings[i];
        range = model_range(model, thing->first, thing->last);
        model_expect(!thing->used || !viommu_iova_unmap(model->owners[thing->owner], &range),
                     "unmapping");
        thing->used = false;
        return 0;
    default:
        i %= MODEL_OWNERS;
        base_alloc_fail_at(0);
        viommu_iova_owner_destroy(model->owners[i]);
        model_forget(model->reservations, i);
        model_forget(model->memories, i);
        model_forget(model->mappings, i);
        model->limited[i] = false;
        memset(model->hole[i], 0, sizeof(model->hole[i]));
        model_owner(model, i);
        return 0;
    }
}

/* The list of what is usable, page by page. */
static inline void model_compare(const struct model *model)
{
    struct viommu_range ranges[MODEL_PAGES + 2];
    size_t count = MODEL_PAGES + 2;

    model_expect(!viommu_iova_usable(model->space, ranges, &count, NULL), "the usable list");
    for (unsigned page = 0; page < MODEL_PAGES; page++) {
        struct viommu_range at = model_range(model, page, page);
        bool expected = !model_limited(model, page, page) && !model_reserved(model, page, page) &&
                        !model_loose(model, page, page);
        bool found = false;

        for (size_t i = 0; i < count; i++) {
            found = found || (ranges[i].first <= at.first && ranges[i].last >= at.last);
        }
        model_expect(found == expected, "a page is usable, or not");
    }
}

/* A thing of a space has another handle in the space that was loaded: the one at the same place. */
static inline void model_take(struct model *model, const struct viommu_iova_owner *old,
                              const struct viommu_iova_owner *new)
{
    struct viommu_iova_reservation *r = NULL;
    struct viommu_iova_reservation *s = NULL;
    struct viommu_iova_memory *m = NULL;
    struct viommu_iova_memory *n = NULL;
    struct model_thing *taken[2 * MODEL_THINGS];
    void *handles[2 * MODEL_THINGS];
    unsigned count = 0;

    while ((r = viommu_iova_reservation_next(old, r))) {
        s = viommu_iova_reservation_next(new, s);
        model_expect(s, "a reservation is lost");
        for (unsigned i = 0; i < MODEL_THINGS; i++) {
            if (model->reservations[i].used && model->reservations[i].reservation == r) {
                taken[count] = &model->reservations[i];
                handles[count++] = s;
            }
        }
    }
    while ((m = viommu_iova_memory_next(old, m))) {
        n = viommu_iova_memory_next(new, n);
        model_expect(n, "memory is lost");
        for (unsigned i = 0; i < MODEL_THINGS; i++) {
            if (model->memories[i].used && model->memories[i].memory == m) {
                taken[count] = &model->memories[i];
                handles[count++] = n;
            }
        }
    }
    for (unsigned i = 0; i < count; i++) {
        taken[i]->reservation = handles[i]; /* or memory: they share their place */
    }
}

/* Goes on in another space. */
static inline int model_move(struct model *model)
{
    const struct viommu_iova_owner *old = NULL;
    struct viommu_iova_owner *new = NULL;
    struct viommu_iova_owner *owners[MODEL_OWNERS];
    struct viommu_iova *loaded;
    void *data;
    size_t size;
    int error = viommu_iova_save(model->space, &data, &size);

    if (!error) {
        error = viommu_iova_load(data, size, &loaded);
        viommu_save_free(data);
    }
    if (error) {
        model_expect(error == -ENOMEM && base_alloc_failed(), "a space is not loaded");
        return error;
    }
    while ((old = viommu_iova_owner_next(model->space, old))) {
        new = viommu_iova_owner_next(loaded, new);
        model_expect(new && !strcmp(viommu_iova_owner_name(old), viommu_iova_owner_name(new)),
                     "an owner is lost");
        owners[viommu_iova_owner_name(new)[0] - 'a'] = new;
        model_take(model, old, new);
    }
    memcpy(model->owners, owners, sizeof(owners));
    viommu_iova_destroy(model->space);
    model->space = loaded;
    return 0;
}

/* One operation. Returns what came of it. */
static inline int model_operate(struct model *model, const uint8_t bytes[8])
{
    unsigned owner = bytes[1] % MODEL_OWNERS;
    unsigned first = bytes[2] % MODEL_PAGES;
    unsigned length = bytes[3] & 0x80 ? bytes[3] & 0x7f : bytes[3] & 7;
    unsigned last = first + length < MODEL_PAGES ? first + length : MODEL_PAGES - 1;
    int error;

    switch (bytes[0] % 12) {
    case 0:
    case 1:
        error = model_reserve(model, owner, (enum viommu_iova_type)(bytes[4] % VIOMMU_IOVA_TYPES),
                              first, last);
        break;
    case 2:
        error = model_window(model, owner, first, 1 + bytes[4] % 6, bytes[5] % 64,
                             64 + bytes[6] % 64);
        break;
    case 3:
        error = model_memory(model, owner, first, last);
        break;
    case 4:
    case 5:
        error = model_map(model, owner, first, last);
        break;
    case 6:
        error = model_alloc(model, owner, bytes[5] % 64, 64 + bytes[6] % 64, 1 + bytes[3] % 9,
                            bytes[4] % 4);
        break;
    case 7:
        error = bytes[7] % 8 ? 0 : model_limit(model, owner, bytes[2] % 16,
                                               MODEL_PAGES - 1 - bytes[3] % 16);
        break;
    case 8:
        error = model_doorbell(model, bytes[2], bytes[3], bytes[4] % 3 == 0);
        break;
    case 9:
        if (bytes[7] % 16 == 1) {
            error = model_move(model);
            break;
        }
        /* fall through */
    default:
        error = model_drop(model, bytes[4] % 32 == 3 ? 3 : bytes[4] % 3, bytes[2]);
        break;
    }
    base_alloc_fail_at(0);
    model_follow(model);
    return error;
}

#endif
