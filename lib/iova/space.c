/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Owners, and what they have: limits, reservations, memory. Each change is judged against what is
 * fixed (space_conflict), then claimed (space_claim), then noted; only the first two can fail.
 */
#include "iova/space.h"

#include "base/alloc.h"
#include "iova/cover.h"
#include "range/range_set.h"

#include <errno.h>
#include <string.h>

/* ---- the space ---- */

const char *viommu_iova_type_name(enum viommu_iova_type type)
{
    static const char *const names[] = {
        [VIOMMU_IOVA_DIRECT] = "direct",     [VIOMMU_IOVA_DIRECT_RELAXABLE] = "direct-relaxable",
        [VIOMMU_IOVA_RESERVED] = "reserved", [VIOMMU_IOVA_MSI] = "msi",
        [VIOMMU_IOVA_SW_MSI] = "sw-msi",     [VIOMMU_IOVA_P2P] = "p2p",
    };

    return (unsigned)type < VIOMMU_IOVA_TYPES ? names[type] : NULL;
}

int viommu_iova_create(const struct viommu_iova_config *config, struct viommu_iova **out)
{
    struct viommu_iova *space;
    uint64_t granule;

    if (!config || !out) {
        return -EINVAL;
    }
    granule = config->granule ? config->granule : SPACE_GRANULE;
    if (granule & (granule - 1)) {
        return -EINVAL;
    }
    space = base_alloc(sizeof(*space));
    if (!space) {
        return -ENOMEM;
    }
    space->identity = config->identity;
    space->granule = granule;
    range_map_init(&space->cover);
    range_map_init(&space->mappings);
    *out = space;
    return 0;
}

void viommu_iova_destroy(struct viommu_iova *space)
{
    if (!space) {
        return;
    }
    tenants_evict(space);
    while (space->owners) {
        viommu_iova_owner_destroy(space->owners);
    }
    range_map_fini(&space->cover);
    range_map_fini(&space->mappings);
    base_free(space);
}

uint64_t viommu_iova_generation(const struct viommu_iova *space)
{
    return space->generation;
}

/* ---- owners ---- */

int viommu_iova_owner_create(struct viommu_iova *space, const char *name,
                             struct viommu_iova_owner **out)
{
    struct viommu_iova_owner *owner;

    if (!space || !name || !*name || strlen(name) >= VIOMMU_IOVA_NAME_MAX || !out) {
        return -EINVAL;
    }
    owner = base_alloc(sizeof(*owner));
    if (!owner) {
        return -ENOMEM;
    }
    strcpy(owner->name, name);
    owner->space = space;
    owner->next = space->owners;
    space->owners = owner;
    *out = owner;
    return 0;
}

static void drop_mappings(struct viommu_iova_owner *owner)
{
    struct viommu_iova *space = owner->space;
    struct range_run run;
    uint64_t from = 0;

    while (owner->mappings && range_map_from(&space->mappings, from, &run)) {
        if (space_mapping_owner(&run) == owner) {
            range_map_erase(&space->mappings, run.first, run.last, NULL);
            cover_remove(&space->cover, run.first, run.last);
            owner->mappings--;
        }
        from = run.last + 1; /* after the top: there is none of the owner's left */
    }
}

static void drop_limits(struct viommu_iova_owner *owner)
{
    struct viommu_iova *space = owner->space;

    for (size_t i = 0; i < owner->hole_count; i++) {
        cover_remove(&space->cover, owner->holes[i].first, owner->holes[i].last);
    }
    space->claims -= owner->hole_count;
    space->generation += owner->limited;
    base_free(owner->holes);
}

/* Takes a reservation out, without a word to anyone. */
static void drop_reservation(struct viommu_iova_reservation *reservation)
{
    struct viommu_iova_reservation **at = &reservation->owner->space->reservations;
    struct viommu_iova *space = reservation->owner->space;

    while (*at != reservation) {
        at = &(*at)->next;
    }
    *at = reservation->next;
    cover_remove(&space->cover, reservation->range.first, reservation->range.last);
    space->claims--;
    space->generation++;
    window_fini(reservation);
    base_free(reservation);
}

void viommu_iova_owner_destroy(struct viommu_iova_owner *owner)
{
    struct viommu_iova_owner **at;
    struct viommu_iova *space;
    uint64_t generation;

    if (!owner) {
        return;
    }
    space = owner->space;
    generation = space->generation;
    followers_end(owner);
    for (struct viommu_iova_reservation **r = &space->reservations; *r;) {
        if ((*r)->owner == owner) {
            drop_reservation(*r);
        } else {
            r = &(*r)->next;
        }
    }
    for (struct viommu_iova_memory **m = &space->memories; *m;) {
        if ((*m)->owner == owner) {
            viommu_iova_memory_remove(*m);
        } else {
            m = &(*m)->next;
        }
    }
    drop_mappings(owner);
    drop_limits(owner);
    for (at = &space->owners; *at != owner; at = &(*at)->next) {
    }
    *at = owner->next;
    base_free(owner);
    if (space->generation != generation) {
        tenants_widen(space);
    }
    space_check(space);
}

/* ---- limits ---- */

/* What the ranges leave out. */
static int find_holes(const struct viommu_range *ranges, size_t count, struct viommu_range **holes,
                      size_t *hole_count)
{
    struct range_set set;
    struct range_cursor cursor;
    struct range_run run;
    int error;

    range_set_init(&set);
    error = range_set_add(&set, 0, UINT64_MAX);
    for (size_t i = 0; i < count && !error; i++) {
        error = range_set_subtract(&set, ranges[i].first, ranges[i].last);
    }
    *hole_count = set.map.count;
    *holes = error ? NULL : base_alloc_array(set.map.count + 1, sizeof(**holes));
    if (*holes) {
        size_t n = 0;

        range_cursor_seek(&cursor, &set.map, 0);
        while (range_cursor_next(&cursor, UINT64_MAX, &run)) {
            (*holes)[n++] = (struct viommu_range){run.first, run.last};
        }
    } else if (!error) {
        error = -ENOMEM;
    }
    range_set_fini(&set);
    return error;
}

/* Judges what the limits leave out, and claims it; it is the owner's then. */
static int claim_holes(struct viommu_iova_owner *owner, struct viommu_range *holes, size_t count,
                       struct viommu_iova_conflict *conflict)
{
    struct viommu_iova *space = owner->space;
    int error;

    if (count > SPACE_CLAIMS_MAX - space->claims) {
        return -ENOSPC;
    }
    for (size_t i = 0; i < count; i++) {
        space_side(&conflict->asked, VIOMMU_IOVA_LIMIT, &holes[i], owner);
        error = space_conflict(space, conflict);
        if (error) {
            return error;
        }
    }
    owner->holes = holes;
    owner->hole_count = count;
    error = space_claim(space, holes, count, true, conflict);
    if (error) {
        owner->holes = NULL;
        owner->hole_count = 0;
    }
    return error;
}

int viommu_iova_limit(struct viommu_iova_owner *owner, const struct viommu_range *ranges,
                      size_t count, struct viommu_iova_conflict *conflict)
{
    struct viommu_iova_conflict found = {0};
    struct viommu_range *holes;
    size_t hole_count;
    int error;

    if (!owner || !count) {
        return -EINVAL;
    }
    for (size_t i = 0; i < count; i++) {
        if (ranges[i].first > ranges[i].last) {
            return -EINVAL;
        }
    }
    if (owner->limited) {
        return -EALREADY;
    }
    error = find_holes(ranges, count, &holes, &hole_count);
    error = error ? error : claim_holes(owner, holes, hole_count, &found);
    if (conflict) {
        *conflict = found;
    }
    if (error) {
        base_free(holes);
    } else {
        owner->limited = true;
        owner->space->claims += hole_count;
        owner->space->generation++;
    }
    space_check(owner->space);
    return error;
}

/* ---- reservations ---- */

static bool is_power_of_two(uint64_t value)
{
    return value && !(value & (value - 1));
}

int space_decode(struct viommu_iova_owner *owner, const struct viommu_iova_request *request,
                 struct viommu_iova_reservation *out)
{
    uint64_t granule = owner->space->granule;

    *out = (struct viommu_iova_reservation){
        .owner = owner,
        .type = request->type,
        .range = request->range,
        .movable = request->movable,
        .bounds = request->bounds,
        .align = request->align ? request->align : granule,
    };
    range_map_init(&out->doorbells);
    range_map_init(&out->inside);
    if ((unsigned)request->type >= VIOMMU_IOVA_TYPES || out->range.first > out->range.last) {
        return -EINVAL;
    }
    if (!request->movable) {
        return 0;
    }
    if (!out->bounds.first && !out->bounds.last) {
        out->bounds.last = UINT64_MAX;
    }
    if (request->type != VIOMMU_IOVA_SW_MSI || out->bounds.first > out->bounds.last ||
        !is_power_of_two(out->align) || out->align < granule || out->range.first % out->align ||
        (out->range.last - out->range.first) % granule != granule - 1) {
        return -EINVAL;
    }
    return 0;
}

static void free_all(struct viommu_iova_reservation **reservations, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        base_free(reservations[i]);
        reservations[i] = NULL;
    }
}

/* Makes what was asked for, in no list yet. */
static int make_all(struct viommu_iova_owner *owner, const struct viommu_iova_request *requests,
                    size_t count, struct viommu_iova_reservation **out)
{
    int error = 0;

    for (size_t i = 0; i < count; i++) {
        out[i] = NULL;
    }
    for (size_t i = 0; i < count && !error; i++) {
        out[i] = base_alloc(sizeof(*out[i]));
        error = out[i] ? space_decode(owner, &requests[i], out[i]) : -ENOMEM;
    }
    if (error) {
        free_all(out, count);
    }
    return error;
}

/* Judges those that are fixed; their ranges go into an array. */
static int judge(struct viommu_iova_reservation **reservations, size_t count,
                 struct viommu_range *fixed, size_t *fixed_count,
                 struct viommu_iova_conflict *conflict)
{
    *fixed_count = 0;
    for (size_t i = 0; i < count; i++) {
        const struct viommu_iova_reservation *reservation = reservations[i];
        int error;

        if (reservation->movable) {
            continue;
        }
        space_side(&conflict->asked, VIOMMU_IOVA_RESERVATION, &reservation->range,
                   reservation->owner);
        conflict->asked.type = reservation->type;
        error = space_conflict(reservation->owner->space, conflict);
        if (error) {
            return error;
        }
        fixed[(*fixed_count)++] = reservation->range;
    }
    return 0;
}

static void link_all(struct viommu_iova *space, struct viommu_iova_reservation **reservations,
                     size_t count)
{
    for (size_t i = 0; i < count; i++) {
        /* A fixed one is claimed as a range, a movable one looks for its place. */
        reservations[i]->placed = !reservations[i]->movable;
        reservations[i]->next = space->reservations;
        space->reservations = reservations[i];
    }
}

static void unlink_reservation(struct viommu_iova_reservation *reservation)
{
    struct viommu_iova_reservation **at = &reservation->owner->space->reservations;

    while (*at != reservation) {
        at = &(*at)->next;
    }
    *at = reservation->next;
}

/* Of what was asked for in one call: which type the range is that a window cannot give way to. */
static void find_type(struct viommu_iova_reservation **reservations, size_t count,
                      struct viommu_iova_side *side)
{
    for (size_t i = 0; i < count; i++) {
        if (reservations[i]->range.first == side->range.first &&
            reservations[i]->range.last == side->range.last) {
            side->type = reservations[i]->type;
        }
    }
}

static int reserve_all(struct viommu_iova *space, struct viommu_iova_reservation **reservations,
                       size_t count, struct viommu_iova_conflict *conflict)
{
    struct viommu_range *fixed;
    size_t fixed_count;
    int error;

    if (count > SPACE_CLAIMS_MAX - space->claims) {
        return -ENOSPC;
    }
    fixed = base_alloc_array(count, sizeof(*fixed));
    if (!fixed) {
        return -ENOMEM;
    }
    error = judge(reservations, count, fixed, &fixed_count, conflict);
    if (!error) {
        link_all(space, reservations, count);
        error = space_claim(space, fixed, fixed_count, true, conflict);
        if (error) {
            find_type(reservations, count, &conflict->asked);
            for (size_t i = 0; i < count; i++) {
                unlink_reservation(reservations[i]);
            }
        }
    }
    base_free(fixed);
    return error;
}

int viommu_iova_reserve(struct viommu_iova_owner *owner, const struct viommu_iova_request *requests,
                        size_t count, struct viommu_iova_reservation **out,
                        struct viommu_iova_conflict *conflict)
{
    struct viommu_iova_conflict found = {0};
    int error;

    if (!owner || (count && (!requests || !out))) {
        return -EINVAL;
    }
    if (!count) {
        return 0;
    }
    error = make_all(owner, requests, count, out);
    if (!error) {
        error = reserve_all(owner->space, out, count, &found);
        if (error) {
            free_all(out, count);
        }
    }
    if (conflict) {
        *conflict = found;
    }
    if (!error) {
        owner->space->claims += count;
        owner->space->generation++;
    }
    space_check(owner->space);
    return error;
}

void viommu_iova_release(struct viommu_iova_reservation *reservation)
{
    struct viommu_iova *space;

    if (!reservation) {
        return;
    }
    space = reservation->owner->space;
    drop_reservation(reservation);
    tenants_widen(space);
    space_check(space);
}

struct viommu_range viommu_iova_reservation_range(
    const struct viommu_iova_reservation *reservation)
{
    return reservation->range;
}

/* ---- memory ---- */

int viommu_iova_memory_fits(const struct viommu_iova *space, const struct viommu_range *range,
                            const char *name, struct viommu_iova_conflict *conflict)
{
    struct viommu_iova_conflict found = {0};
    int error;

    if (!space || !range || range->first > range->last || !name ||
        strlen(name) >= VIOMMU_IOVA_NAME_MAX) {
        return -EINVAL;
    }
    found.asked.kind = VIOMMU_IOVA_MEMORY;
    found.asked.range = *range;
    strcpy(found.asked.owner, name);
    error = space_conflict(space, &found);
    if (conflict) {
        *conflict = found;
    }
    return error;
}

/* Judges what comes, and makes an object of each range, in no list yet: *out. */
static int make_memory(struct viommu_iova_owner *owner, const struct viommu_range *ranges,
                       size_t count, bool declared, struct viommu_iova_memory **out,
                       struct viommu_iova_conflict *conflict)
{
    struct viommu_iova *space = owner->space;
    int error = count > SPACE_CLAIMS_MAX - space->claims ? -ENOSPC : 0;

    *out = NULL;
    for (size_t i = 0; i < count && !error; i++) {
        struct viommu_iova_memory *memory;

        error = viommu_iova_memory_fits(space, &ranges[i], owner->name, conflict);
        memory = error ? NULL : base_alloc(sizeof(*memory));
        if (!memory) {
            return error ? error : -ENOMEM;
        }
        *memory = (struct viommu_iova_memory){
            .next = *out, .owner = owner, .range = ranges[i], .declared = declared};
        *out = memory;
    }
    return error;
}

static void free_memory(struct viommu_iova_memory *memory)
{
    while (memory) {
        struct viommu_iova_memory *next = memory->next;

        base_free(memory);
        memory = next;
    }
}

int space_add_memory(struct viommu_iova_owner *owner, const struct viommu_range *ranges,
                     size_t count, bool declared, struct viommu_iova_memory **out,
                     struct viommu_iova_conflict *conflict)
{
    struct viommu_iova *space = owner->space;
    struct viommu_iova_memory **end = out;
    int error = make_memory(owner, ranges, count, declared, out, conflict);

    if (!error && space->identity) {
        error = space_claim(space, ranges, count, false, conflict);
    }
    if (error) {
        free_memory(*out);
        *out = NULL;
        return error;
    }
    while (*end) {
        end = &(*end)->next;
    }
    *end = space->memories;
    space->memories = *out;
    space->claims += count;
    space_check(space);
    return 0;
}

int viommu_iova_memory_add(struct viommu_iova_owner *owner, const struct viommu_range *range,
                           bool declared, struct viommu_iova_memory **out,
                           struct viommu_iova_conflict *conflict)
{
    struct viommu_iova_conflict found = {0};
    struct viommu_iova_memory *memory;
    int error;

    if (!owner || !range || !out) {
        return -EINVAL;
    }
    error = space_add_memory(owner, range, 1, declared, &memory, &found);
    if (conflict) {
        *conflict = found;
    }
    if (!error) {
        *out = memory;
    }
    return error;
}

void space_remove_memory(struct viommu_iova_memory *memory)
{
    struct viommu_iova *space = memory->owner->space;
    struct viommu_iova_memory **at;

    for (at = &space->memories; *at != memory; at = &(*at)->next) {
    }
    *at = memory->next;
    if (space->identity) {
        cover_remove(&space->cover, memory->range.first, memory->range.last);
    }
    space->claims--;
    base_free(memory);
    space_check(space);
}

void viommu_iova_memory_remove(struct viommu_iova_memory *memory)
{
    /* What follows a slot goes with it. */
    if (memory && !memory->follower) {
        space_remove_memory(memory);
    }
}
