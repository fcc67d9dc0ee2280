/* SPDX-License-Identifier: BSD-2-Clause */
/* Claims counted; see cover.h. */
#include "iova/cover.h"

#include <assert.h>

#define FIELD ((UINT64_C(1) << COVER_BITS) - 1)

/* No run has this tag but for a moment: no number of a run is as large. */
#define JOINING UINT64_MAX

struct cover_tag cover_tag(const struct range_run *run)
{
    return (struct cover_tag){
        .claims = (uint32_t)(run->tag & FIELD),
        .begin = (uint32_t)(run->tag >> COVER_BITS & FIELD),
        .end = (uint32_t)(run->tag >> 2 * COVER_BITS & FIELD),
    };
}

static uint64_t pack(struct cover_tag tag)
{
    return RANGE_NO_TARGET | tag.claims | (uint64_t)tag.begin << COVER_BITS |
           (uint64_t)tag.end << 2 * COVER_BITS;
}

/* What is called here cannot fail: it was reserved, or needs no memory. */
static void must(int error)
{
    assert(!error);
    (void)error;
}

static void retag(struct range_map *cover, const struct range_run *run, struct cover_tag tag)
{
    must(range_map_retag(cover, run->first, run->last, pack(tag)));
}

size_t cover_need(const struct range_map *cover, uint64_t first, uint64_t last)
{
    struct range_cursor cursor;
    struct range_run run;
    size_t runs = 0;

    range_cursor_seek(&cursor, cover, first);
    while (range_cursor_next(&cursor, last, &run)) {
        runs++;
    }
    /* Cut at both ends; and the gaps between. */
    return runs + 3;
}

bool cover_meets(const struct range_map *cover, uint64_t first, uint64_t last)
{
    struct range_run run;

    return range_map_from(cover, first, &run) && run.first <= last;
}

/* Makes the address the beginning of a run, if it is in one. */
static void cut_at(struct range_map *cover, uint64_t address)
{
    struct range_run left;
    struct range_run right;
    struct cover_tag tag;

    if (!range_map_find(cover, address, &left) || left.first == address) {
        return;
    }
    tag = cover_tag(&left);
    must(range_map_split(cover, address));
    right = left;
    left.last = address - 1;
    right.first = address;
    retag(cover, &left, (struct cover_tag){tag.claims, tag.begin, 0});
    retag(cover, &right, (struct cover_tag){tag.claims, 0, tag.end});
}

/* The reverse, where no claim has its border there. */
static void join_at(struct range_map *cover, uint64_t address)
{
    struct range_run left;
    struct range_run right;
    struct cover_tag before;
    struct cover_tag after;

    if (!address || !range_map_find(cover, address - 1, &left) ||
        !range_map_find(cover, address, &right) || left.first == right.first) {
        return;
    }
    before = cover_tag(&left);
    after = cover_tag(&right);
    if (before.end || after.begin) {
        return;
    }
    must(range_map_retag(cover, left.first, left.last, JOINING));
    must(range_map_retag(cover, right.first, right.last, JOINING));
    range_map_merge(cover, address);
    left.last = right.last;
    retag(cover, &left, (struct cover_tag){before.claims, before.begin, after.end});
}

static void count_begin(struct range_map *cover, uint64_t first, uint32_t more)
{
    struct range_run run;
    struct cover_tag tag;
    bool found = range_map_find(cover, first, &run);

    assert(found && run.first == first);
    (void)found;
    tag = cover_tag(&run);
    tag.begin += more;
    retag(cover, &run, tag);
}

static void count_end(struct range_map *cover, uint64_t last, uint32_t more)
{
    struct range_run run;
    struct cover_tag tag;
    bool found = range_map_find(cover, last, &run);

    assert(found && run.last == last);
    (void)found;
    tag = cover_tag(&run);
    tag.end += more;
    retag(cover, &run, tag);
}

void cover_add(struct range_map *cover, uint64_t first, uint64_t last)
{
    uint64_t from = first;

    cut_at(cover, first);
    if (last != UINT64_MAX) {
        cut_at(cover, last + 1);
    }
    for (;;) {
        struct range_run run;

        bool more = range_map_from(cover, from, &run) && run.first <= last;

        if (more && run.first <= from) {
            struct cover_tag tag = cover_tag(&run);

            tag.claims++;
            retag(cover, &run, tag);
        } else {
            run = (struct range_run){
                .first = from,
                .last = more ? run.first - 1 : last,
                .tag = pack((struct cover_tag){1, 0, 0}),
            };
            must(range_map_insert(cover, &run));
        }
        if (run.last >= last) {
            break;
        }
        from = run.last + 1;
    }
    count_begin(cover, first, 1);
    count_end(cover, last, 1);
}

/* One claim less in each of its runs. */
static void remove_slowly(struct range_map *cover, uint64_t first, uint64_t last)
{
    uint64_t from = first;

    count_begin(cover, first, UINT32_MAX);
    count_end(cover, last, UINT32_MAX);
    for (;;) {
        struct range_run run;
        struct cover_tag tag;
        bool found = range_map_find(cover, from, &run);

        assert(found && run.last <= last);
        (void)found;
        tag = cover_tag(&run);
        if (!--tag.claims) {
            must(range_map_erase(cover, run.first, run.last, NULL));
        } else {
            retag(cover, &run, tag);
        }
        if (run.last == last) {
            break;
        }
        from = run.last + 1;
    }
    join_at(cover, first);
    if (last != UINT64_MAX) {
        join_at(cover, last + 1);
    }
}

/* The run of a claim that no other meets. */
static struct range_run alone(uint64_t first, uint64_t last)
{
    return (struct range_run){
        .first = first, .last = last, .tag = pack((struct cover_tag){1, 1, 1})};
}

int cover_add_free(struct range_map *cover, uint64_t first, uint64_t last)
{
    struct range_run run = alone(first, last);

    return range_map_insert(cover, &run);
}

void cover_remove(struct range_map *cover, uint64_t first, uint64_t last)
{
    struct range_run run = alone(first, last);

    /* Usually it is a run by itself; and where one has gone there is no border to be joined at. */
    if (range_map_erase_run(cover, &run)) {
        remove_slowly(cover, first, last);
    }
}
