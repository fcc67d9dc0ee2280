/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The checker of a space's invariants; in test builds only. It gathers all claims from the lists,
 * sorts their borders, and walks along these and the cover side by side. It aborts: what it finds
 * is a mistake of ours.
 */
#include "iova/space.h"

#ifdef VIOMMU_TESTING

#include "iova/cover.h"

#include <stdio.h>
#include <stdlib.h>

/* A space of more claims than this is not checked. */
#define CHECKED_MAX 1000

struct claims {
    struct viommu_range *ranges;
    size_t count;
};

static void expect(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "iova space: %s\n", what);
        abort();
    }
}

static void gather(struct claims *claims, const struct viommu_range *range)
{
    claims->ranges[claims->count++] = *range;
}

static void gather_all(const struct viommu_iova *space, struct claims *claims)
{
    struct range_cursor cursor;
    struct range_run run;
    size_t others = 0;

    for (const struct viommu_iova_reservation *r = space->reservations; r; r = r->next) {
        expect(r->placed && !r->moving, "a reservation without a place");
        gather(claims, &r->range);
        others++;
    }
    for (const struct viommu_iova_owner *o = space->owners; o; o = o->next) {
        for (size_t i = 0; i < o->hole_count; i++) {
            gather(claims, &o->holes[i]);
            others++;
        }
    }
    for (const struct viommu_iova_memory *m = space->memories; m; m = m->next) {
        if (space->identity) {
            gather(claims, &m->range);
        }
        others++;
    }
    expect(others == space->claims, "claims are miscounted");
    range_cursor_seek(&cursor, &space->mappings, 0);
    while (range_cursor_next(&cursor, UINT64_MAX, &run)) {
        struct viommu_range range = {run.first, run.last};

        gather(claims, &range);
    }
}

/* How many claims cover a run, and begin and end at its borders; and none has a border inside. */
static void check_run(const struct claims *claims, const struct range_run *run)
{
    struct cover_tag tag = cover_tag(run);
    struct cover_tag found = {0, 0, 0};

    for (size_t i = 0; i < claims->count; i++) {
        const struct viommu_range *claim = &claims->ranges[i];

        if (claim->last < run->first || claim->first > run->last) {
            continue;
        }
        expect(claim->first <= run->first && claim->last >= run->last,
               "a claim has its border inside a run");
        found.claims++;
        found.begin += claim->first == run->first;
        found.end += claim->last == run->last;
    }
    expect(tag.claims && tag.claims == found.claims && tag.begin == found.begin &&
           tag.end == found.end, "a run is miscounted");
}

static void check_cover(const struct viommu_iova *space, const struct claims *claims)
{
    struct range_cursor cursor;
    struct range_run run;
    struct range_run before = {0};
    bool any = false;

    range_cursor_seek(&cursor, &space->cover, 0);
    while (range_cursor_next(&cursor, UINT64_MAX, &run)) {
        if (any && before.last + 1 == run.first) {
            expect(cover_tag(&before).end || cover_tag(&run).begin, "runs that should be one");
        }
        check_run(claims, &run);
        before = run;
        any = true;
    }
    /* Nothing of a claim is left out. */
    for (size_t i = 0; i < claims->count; i++) {
        uint64_t from = claims->ranges[i].first;

        do {
            expect(range_map_find(&space->cover, from, &run), "a claim that is not covered");
            from = run.last + 1;
        } while (run.last < claims->ranges[i].last);
    }
}

/* Whether a window's doorbells are inside it, each in both maps, and a loose one is alone. */
static void check_window(const struct viommu_iova *space,
                         const struct viommu_iova_reservation *window)
{
    struct range_cursor cursor;
    struct range_run run;
    struct range_run back;

    expect(window->doorbells.count == window->inside.count, "doorbells are miscounted");
    range_cursor_seek(&cursor, &window->doorbells, 0);
    while (range_cursor_next(&cursor, UINT64_MAX, &run)) {
        uint64_t end = range_run_target(&run, run.last);

        expect(run.tag, "a doorbell without a use");
        expect(run.target >= window->range.first && end <= window->range.last,
               "a doorbell outside its window");
        expect(range_map_find(&window->inside, run.target, &back) && back.target == run.first &&
               back.last == end, "a doorbell that is not noted");
        expect(!window->movable, "a window that is in use can move");
    }
    if (space_is_loose(window)) {
        expect(range_map_find(&space->cover, window->range.first, &run) &&
               run.last == window->range.last && cover_tag(&run).claims == 1,
               "a loose window that meets something");
        expect(window->range.first >= window->bounds.first &&
               window->range.last <= window->bounds.last, "a window outside its bounds");
    }
}

/* What must not meet does not: nothing that is fixed conflicts with what is there. */
static void check_mappings(const struct viommu_iova *space)
{
    struct range_cursor cursor;
    struct range_run run;
    size_t count = 0;

    range_cursor_seek(&cursor, &space->mappings, 0);
    while (range_cursor_next(&cursor, UINT64_MAX, &run)) {
        struct viommu_range range = {run.first, run.last};

        for (const struct viommu_iova_reservation *r = space->reservations; r; r = r->next) {
            expect(!space_type_conflicts(r->type) || !space_meets(&r->range, &range),
                   "a mapping meets a reservation");
        }
        for (const struct viommu_iova_owner *o = space->owners; o; o = o->next) {
            for (size_t i = 0; i < o->hole_count; i++) {
                expect(!space_meets(&o->holes[i], &range), "a mapping outside the limits");
            }
        }
        for (const struct viommu_iova_memory *m = space->memories; m; m = m->next) {
            expect(!space->identity || !space_meets(&m->range, &range),
                   "a mapping meets memory");
        }
    }
    for (const struct viommu_iova_owner *o = space->owners; o; o = o->next) {
        count += o->mappings;
    }
    expect(count == space->mappings.count, "mappings are miscounted");
}

void space_check(const struct viommu_iova *space)
{
    struct claims claims = {NULL, 0};
    size_t most = space->claims + space->mappings.count;

    if (space->loading || most > CHECKED_MAX) {
        return;
    }
    /* Not base_alloc: failures that a test asked for are not for us. */
    claims.ranges = malloc((most + 1) * sizeof(*claims.ranges));
    expect(claims.ranges, "no memory for the check");
    gather_all(space, &claims);
    check_cover(space, &claims);
    for (const struct viommu_iova_reservation *r = space->reservations; r; r = r->next) {
        check_window(space, r);
    }
    check_mappings(space);
    free(claims.ranges);
}

#endif
