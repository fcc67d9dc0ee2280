/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A space, saved and loaded (the format: save/stream.h).
 *
 * Structure of a stream, in this order:
 *   SPACE         kind, granule and generation
 *   OWNERS        names, and what limits leave out
 *   RESERVATIONS  with their owners' numbers; those of windows that can move with their bounds;
 *   with
 *                 the doorbells that are mapped in them
 *   MEMORIES      with their owners' numbers
 *   MAPPINGS      the same, in the order of addresses
 * Lists are written as they are kept, the newest first, and come out in the same order.
 *
 * Loading builds a space of the parts, with the cover of all claims. Then what may not meet is
 * judged, for all at once: each kind against a second cover, of what it conflicts with. So time is
 * O(n log n) where few claims lie over one another; a state with more than that is none (WORK_MAX).
 */
#include "iova/space.h"

#include "base/alloc.h"
#include "iova/cover.h"
#include "save/stream.h"

#include <errno.h>
#include <string.h>

enum kind {
    KIND_SPACE = 1,
    KIND_OWNERS,
    KIND_RESERVATIONS,
    KIND_MEMORIES,
    KIND_MAPPINGS,
};

#define VERSION 1u /* of every section */
/*
 * A claim touches each piece of those below it. So much is a fraction of a second, and more than
 * any machine's: thousands of reservations, each over thousands of others.
 */
#define WORK_MAX (UINT64_C(1) << 24)

/* ---- saved ---- */

static void put_range(struct save_writer *writer, const struct viommu_range *range)
{
    save_put64(writer, range->first);
    save_put64(writer, range->last);
}

static void begin(struct save_writer *writer, enum kind kind)
{
    save_begin(writer, kind, 0, VERSION, 0);
}

/* Owners are known by their numbers in the list; while a space is saved they have them. */
static void number_owners(const struct viommu_iova *space)
{
    uint32_t count = 0;

    for (struct viommu_iova_owner *owner = space->owners; owner; owner = owner->next) {
        owner->number = count++;
    }
}

static void owners_save(const struct viommu_iova *space, struct save_writer *writer)
{
    begin(writer, KIND_OWNERS);
    for (const struct viommu_iova_owner *owner = space->owners; owner; owner = owner->next) {
        size_t length = strlen(owner->name);

        save_put8(writer, (uint8_t)length);
        save_put_bytes(writer, owner->name, length);
        save_put8(writer, owner->limited);
        save_put32(writer, (uint32_t)owner->hole_count);
        for (size_t i = 0; i < owner->hole_count; i++) {
            put_range(writer, &owner->holes[i]);
        }
    }
    save_end(writer);
}

static void doorbells_save(const struct viommu_iova_reservation *window,
                           struct save_writer *writer)
{
    struct range_cursor cursor;
    struct range_run run;

    save_put32(writer, (uint32_t)window->doorbells.count);
    range_cursor_seek(&cursor, &window->doorbells, 0);
    while (range_cursor_next(&cursor, UINT64_MAX, &run)) {
        save_put64(writer, run.first);
        save_put64(writer, run.target);
        save_put64(writer, run.tag);
    }
}

static void reservations_save(const struct viommu_iova *space, struct save_writer *writer)
{
    begin(writer, KIND_RESERVATIONS);
    for (const struct viommu_iova_reservation *r = space->reservations; r; r = r->next) {
        save_put32(writer, r->owner->number);
        save_put8(writer, (uint8_t)r->type);
        put_range(writer, &r->range);
        save_put8(writer, r->movable);
        if (r->movable) {
            put_range(writer, &r->bounds);
            save_put64(writer, r->align);
        }
        doorbells_save(r, writer);
    }
    save_end(writer);
}

static void memories_save(const struct viommu_iova *space, struct save_writer *writer)
{
    begin(writer, KIND_MEMORIES);
    for (const struct viommu_iova_memory *m = space->memories; m; m = m->next) {
        save_put32(writer, m->owner->number);
        save_put8(writer, m->declared);
        put_range(writer, &m->range);
    }
    save_end(writer);
}

static void mappings_save(const struct viommu_iova *space, struct save_writer *writer)
{
    struct range_cursor cursor;
    struct range_run run;

    begin(writer, KIND_MAPPINGS);
    range_cursor_seek(&cursor, &space->mappings, 0);
    while (range_cursor_next(&cursor, UINT64_MAX, &run)) {
        save_put32(writer, space_mapping_owner(&run)->number);
        save_put64(writer, run.first);
        save_put64(writer, run.last);
    }
    save_end(writer);
}

int viommu_iova_save(const struct viommu_iova *space, void **data, size_t *size)
{
    struct save_writer writer;

    if (!space || !data || !size) {
        return -EINVAL;
    }
    number_owners(space);
    save_writer_init(&writer, SAVE_IOVA);
    begin(&writer, KIND_SPACE);
    save_put8(&writer, space->identity);
    save_put64(&writer, space->granule);
    save_put64(&writer, space->generation);
    save_end(&writer);
    owners_save(space, &writer);
    reservations_save(space, &writer);
    memories_save(space, &writer);
    mappings_save(space, &writer);
    return save_finish(&writer, data, size);
}

/* ---- loaded ---- */

/* What is being built. */
struct loading {
    struct viommu_iova *space;
    struct viommu_iova_owner **owners; /* by their numbers */
    size_t owner_count;
    uint64_t work; /* pieces of covers that were touched */
    struct range_map fixed; /* a cover: limits, and fixed reservations that conflict; then memory */
};

static struct viommu_range get_range(struct save_section *section)
{
    struct viommu_range range;

    range.first = save_get64(section);
    range.last = save_get64(section);
    if (range.first > range.last) {
        save_spoil(section);
    }
    return range;
}

static bool get_flag(struct save_section *section)
{
    uint8_t value = save_get8(section);

    if (value > 1) {
        save_spoil(section);
    }
    return value;
}

static struct viommu_iova_owner *get_owner(const struct loading *loading,
                                           struct save_section *section)
{
    uint32_t number = save_get32(section);

    if (number >= loading->owner_count) {
        save_spoil(section);
    }
    return section->error ? NULL : loading->owners[number];
}

static int add(struct loading *loading, struct range_map *cover, const struct viommu_range *range)
{
    size_t need = cover_need(cover, range->first, range->last);
    int error;

    loading->work += need;
    if (loading->work > WORK_MAX) {
        return -EBADMSG;
    }
    error = range_map_reserve(cover, need);
    if (!error) {
        cover_add(cover, range->first, range->last);
        range_map_release(cover);
    }
    return error;
}

/* A claim of the space, which `conflicts` with what comes, or does not. */
static int add_claim(struct loading *loading, const struct viommu_range *range, bool conflicts)
{
    if (loading->space->claims == SPACE_CLAIMS_MAX) {
        return -EBADMSG;
    }
    loading->space->claims++;
    return conflicts ? add(loading, &loading->fixed, range) : 0;
}

static bool meets_fixed(const struct loading *loading, const struct viommu_range *range)
{
    return cover_meets(&loading->fixed, range->first, range->last);
}

static int space_load(struct loading *loading, struct save_section *section)
{
    struct viommu_iova_config config;
    uint64_t generation;
    int error;

    config.identity = get_flag(section);
    config.granule = save_get64(section);
    generation = save_get64(section);
    if (!config.granule) {
        save_spoil(section);
    }
    error = save_close(section);
    error = error ? error : viommu_iova_create(&config, &loading->space);
    if (!error) {
        loading->space->generation = generation;
    }
    return error == -EINVAL ? -EBADMSG : error;
}

/* What an owner's limits leave out: in order, not touching, and not everything. */
static int holes_load(struct loading *loading, struct viommu_iova_owner *owner,
                      struct save_section *section)
{
    uint32_t count = save_get32(section);
    const struct viommu_range *before = NULL;
    int error = section->error;

    if (error || !count) {
        return error;
    }
    if (!owner->limited || count > section->left / 16) {
        return -EBADMSG;
    }
    owner->holes = base_alloc_array(count, sizeof(*owner->holes));
    if (!owner->holes) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < count && !error; i++) {
        struct viommu_range hole = get_range(section);

        if (section->error || (before && (before->last == UINT64_MAX ||
                                          hole.first <= before->last + 1)) ||
            (!hole.first && hole.last == UINT64_MAX)) {
            return -EBADMSG;
        }
        error = add_claim(loading, &hole, true);
        error = error ? error : add(loading, &loading->space->cover, &hole);
        owner->holes[i] = hole;
        owner->hole_count += !error; /* what is in the cover */
        before = &owner->holes[i];
    }
    return error;
}

static int owner_load(struct loading *loading, struct save_section *section)
{
    char name[VIOMMU_IOVA_NAME_MAX] = {0};
    uint8_t length = save_get8(section);
    const void *text = save_get_bytes(section, length);
    struct viommu_iova_owner *owner;
    int error;

    if (!text || length >= sizeof(name) || memchr(text, 0, length)) {
        return -EBADMSG;
    }
    memcpy(name, text, length);
    error = viommu_iova_owner_create(loading->space, name, &owner);
    if (error) {
        return error == -EINVAL ? -EBADMSG : error;
    }
    loading->owners[loading->owner_count++] = owner;
    owner->limited = get_flag(section);
    return holes_load(loading, owner, section);
}

static int owners_load(struct loading *loading, struct save_section *section)
{
    int error = 0;

    /* One takes seven bytes at least. */
    loading->owners = base_alloc_array(section->left / 7 + 1, sizeof(loading->owners[0]));
    if (!loading->owners) {
        return -ENOMEM;
    }
    while (section->left && !error) {
        error = owner_load(loading, section);
    }
    return error ? error : save_close(section);
}

static int doorbell_load(struct viommu_iova_reservation *window, struct save_section *section)
{
    uint64_t less_one = window->owner->space->granule - 1;
    struct range_run there = {.first = save_get64(section)};
    struct range_run back = {.target = there.first};
    struct range_run behind;
    int error;

    there.target = back.first = save_get64(section);
    there.tag = save_get64(section);
    there.last = there.first + less_one;
    back.last = back.first + less_one;
    if (section->error || ((there.first | back.first) & less_one) || !there.tag ||
        (there.tag & RANGE_NO_TARGET) || back.first < window->range.first ||
        back.last > window->range.last ||
        range_map_from(&window->doorbells, there.first, &behind)) {
        return -EBADMSG;
    }
    error = range_map_insert(&window->doorbells, &there);
    error = error ? error : range_map_insert(&window->inside, &back);
    return error && error != -ENOMEM ? -EBADMSG : error;
}

static int doorbells_load(struct viommu_iova_reservation *window, struct save_section *section)
{
    uint32_t count = save_get32(section);
    int error = section->error;

    if (!error && count && (window->type != VIOMMU_IOVA_SW_MSI || window->movable)) {
        return -EBADMSG;
    }
    for (uint32_t i = 0; i < count && !error; i++) {
        error = doorbell_load(window, section);
    }
    return error;
}

/* It is the list's when it is in the cover; until then it is freed here. */
static int reservation_load(struct loading *loading, struct save_section *section)
{
    struct viommu_iova *space = loading->space;
    struct viommu_iova_owner *owner = get_owner(loading, section);
    struct viommu_iova_request request = {.type = (enum viommu_iova_type)save_get8(section)};
    struct viommu_iova_reservation *reservation;
    int error;

    request.range = get_range(section);
    request.movable = get_flag(section);
    if (request.movable) {
        request.bounds = get_range(section);
        request.align = save_get64(section);
    }
    /* Zeroes stand for something else only in a request. */
    if (section->error || (request.movable && (!request.bounds.last || !request.align))) {
        return -EBADMSG;
    }
    reservation = base_alloc(sizeof(*reservation));
    if (!reservation) {
        return -ENOMEM;
    }
    error = space_decode(owner, &request, reservation);
    error = error ? error : add_claim(loading, &request.range,
                                      !request.movable && space_type_conflicts(request.type));
    error = error ? error : doorbells_load(reservation, section);
    error = error ? error : add(loading, &space->cover, &request.range);
    if (error) {
        window_fini(reservation);
        base_free(reservation);
        return error == -EINVAL ? -EBADMSG : error;
    }
    reservation->placed = true;
    reservation->next = space->reservations;
    space->reservations = reservation;
    return 0;
}

static int reservations_load(struct loading *loading, struct save_section *section)
{
    int error = 0;

    while (section->left && !error) {
        error = reservation_load(loading, section);
    }
    return error ? error : save_close(section);
}

static int memory_load(struct loading *loading, struct save_section *section)
{
    struct viommu_iova *space = loading->space;
    struct viommu_iova_owner *owner = get_owner(loading, section);
    bool declared = get_flag(section);
    struct viommu_range range = get_range(section);
    struct viommu_iova_memory *memory;
    int error = section->error;

    if (error || (space->identity && meets_fixed(loading, &range))) {
        return -EBADMSG;
    }
    memory = base_alloc(sizeof(*memory));
    if (!memory) {
        return -ENOMEM;
    }
    error = add_claim(loading, &range, false);
    error = error || !space->identity ? error : add(loading, &space->cover, &range);
    if (error) {
        base_free(memory);
        return error;
    }
    *memory = (struct viommu_iova_memory){
        .next = space->memories, .owner = owner, .range = range, .declared = declared};
    space->memories = memory;
    return 0;
}

static int memories_load(struct loading *loading, struct save_section *section)
{
    int error = 0;

    while (section->left && !error) {
        error = memory_load(loading, section);
    }
    return error ? error : save_close(section);
}

static int mapping_load(struct loading *loading, struct save_section *section)
{
    struct viommu_iova *space = loading->space;
    struct viommu_iova_owner *owner = get_owner(loading, section);
    struct viommu_range range = get_range(section);
    struct range_run run = {range.first, range.last, 0, RANGE_NO_TARGET | (uintptr_t)owner};
    struct range_run behind;
    int error = section->error;

    if (error || ((range.first | (range.last + 1)) & (space->granule - 1)) ||
        range_map_from(&space->mappings, range.first, &behind) || meets_fixed(loading, &range)) {
        return -EBADMSG;
    }
    error = add(loading, &space->cover, &range);
    if (error) {
        return error;
    }
    error = range_map_insert(&space->mappings, &run);
    if (error) {
        cover_remove(&space->cover, range.first, range.last);
        return error;
    }
    owner->mappings++;
    return 0;
}

/* Identity: with memory a mapping conflicts, too; memory does not with other memory. */
static int mappings_load(struct loading *loading, struct save_section *section)
{
    const struct viommu_iova_memory *memory = loading->space->identity ? loading->space->memories
                                                                       : NULL;
    int error = 0;

    for (; memory && !error; memory = memory->next) {
        error = add(loading, &loading->fixed, &memory->range);
    }
    while (section->left && !error) {
        error = mapping_load(loading, section);
    }
    return error ? error : save_close(section);
}

/* Whether nothing but the window itself is where a doorbell of it is. */
static bool doorbell_is_alone(const struct loading *loading, const struct range_run *inside)
{
    struct range_cursor cursor;
    struct range_run run;

    range_cursor_seek(&cursor, &loading->fixed, inside->first);
    while (range_cursor_next(&cursor, inside->last, &run)) {
        if (cover_tag(&run).claims != 1) {
            return false;
        }
    }
    return true;
}

static int windows_judge(const struct loading *loading)
{
    const struct viommu_iova *space = loading->space;
    struct range_cursor cursor;
    struct range_run run;

    for (const struct viommu_iova_reservation *r = space->reservations; r; r = r->next) {
        if (r->movable && (r->range.first < r->bounds.first || r->range.last > r->bounds.last ||
                           !range_map_find(&space->cover, r->range.first, &run) ||
                           run.last != r->range.last || cover_tag(&run).claims != 1)) {
            return -EBADMSG;
        }
        range_cursor_seek(&cursor, &r->inside, 0);
        while (range_cursor_next(&cursor, UINT64_MAX, &run)) {
            if (!doorbell_is_alone(loading, &run)) {
                return -EBADMSG;
            }
        }
    }
    return 0;
}

/* Lists were built by putting each before the last one. */
static void turn_round(struct viommu_iova *space)
{
    struct viommu_iova_reservation *reservation = space->reservations;
    struct viommu_iova_memory *memory = space->memories;
    struct viommu_iova_owner *owner = space->owners;
    void *next;

    for (space->reservations = NULL; reservation; reservation = next) {
        next = reservation->next;
        reservation->next = space->reservations;
        space->reservations = reservation;
    }
    for (space->memories = NULL; memory; memory = next) {
        next = memory->next;
        memory->next = space->memories;
        space->memories = memory;
    }
    for (space->owners = NULL; owner; owner = next) {
        next = owner->next;
        owner->next = space->owners;
        space->owners = owner;
    }
}

static int sections_load(struct loading *loading, struct save_reader *reader)
{
    static int (*const loads[])(struct loading *loading, struct save_section *section) = {
        space_load, owners_load, reservations_load, memories_load, mappings_load,
    };
    struct save_section section;
    size_t next = 0;
    int error = 0;

    while (!error && save_next(reader, &section)) {
        if (section.kind < KIND_SPACE || section.kind > KIND_MAPPINGS) {
            error = save_unknown(&section);
        } else if (section.kind != KIND_SPACE + next || section.instance || section.flags) {
            error = -EBADMSG;
        } else {
            error = save_accept(&section, VERSION);
            error = error ? error : loads[next++](loading, &section);
            if (loading->space) {
                loading->space->loading = true;
            }
        }
    }
    return error || next == sizeof(loads) / sizeof(loads[0]) ? error : -EBADMSG;
}

int viommu_iova_load(const void *data, size_t size, struct viommu_iova **out)
{
    struct loading loading = {0};
    struct save_reader reader;
    int error;

    if (!data || !out) {
        return -EINVAL;
    }
    range_map_init(&loading.fixed);
    error = save_open(&reader, SAVE_IOVA, data, size);
    error = error ? error : sections_load(&loading, &reader);
    error = error ? error : windows_judge(&loading);
    range_map_fini(&loading.fixed);
    base_free(loading.owners);
    if (error) {
        viommu_iova_destroy(loading.space);
        return error;
    }
    turn_round(loading.space);
    loading.space->loading = false;
    space_check(loading.space);
    *out = loading.space;
    return 0;
}

/* ---- what is in a space ---- */

struct viommu_iova_owner *viommu_iova_owner_next(const struct viommu_iova *space,
                                                 const struct viommu_iova_owner *after)
{
    return after ? after->next : space->owners;
}

const char *viommu_iova_owner_name(const struct viommu_iova_owner *owner)
{
    return owner->name;
}

struct viommu_iova_reservation *viommu_iova_reservation_next(
    const struct viommu_iova_owner *owner, const struct viommu_iova_reservation *after)
{
    struct viommu_iova_reservation *next = after ? after->next : owner->space->reservations;

    while (next && next->owner != owner) {
        next = next->next;
    }
    return next;
}

enum viommu_iova_type viommu_iova_reservation_type(
    const struct viommu_iova_reservation *reservation)
{
    return reservation->type;
}

struct viommu_iova_memory *viommu_iova_memory_next(const struct viommu_iova_owner *owner,
                                                   const struct viommu_iova_memory *after)
{
    struct viommu_iova_memory *next = after ? after->next : owner->space->memories;

    while (next && next->owner != owner) {
        next = next->next;
    }
    return next;
}

struct viommu_range viommu_iova_memory_range(const struct viommu_iova_memory *memory,
                                             bool *declared)
{
    if (declared) {
        *declared = memory->declared;
    }
    return memory->range;
}
