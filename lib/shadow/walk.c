/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Walks: from what a mirror was given to what it is to have.
 *
 * A mapping that was given is *kept* when the new layout leads where it does in all of it; so what
 * did not change is never touched, whatever the borders of the new layout's pieces are. Where those
 * differ, the kept mapping becomes odd. Everything else of the old goes, and what the kept ones
 * leave open of the new pieces is mapped.
 *
 * That is decided anew from the two layouts, which do not change meanwhile, each time it is asked:
 * a walk can stop after every call. The odd mappings of a cluster change when the cluster is done.
 */
#include "iommu/iommu.h"

/*
 * What the mirror was given, behind what was walked over: the odd mappings there have changed
 * already, and no mapping crosses the border.
 */
static bool given_from(const struct mirror *mirror, uint64_t from, uint64_t last,
                       struct shadow_extent *given)
{
    const struct walk *walk = &mirror->walk;

    if (!layout_given(mirror, &walk->from, from, last, given)) {
        return false;
    }
    if (given->first < walk->border) {
        given->gpa += walk->border - given->first;
        given->first = walk->border;
    }
    return true;
}

static bool equal(const struct shadow_extent *a, const struct shadow_extent *b)
{
    return a->first == b->first && a->last == b->last && a->gpa == b->gpa && a->perm == b->perm;
}

/* Whether a mapping is a piece of the new layout as it is. */
static bool is_piece(const struct mirror *mirror, const struct shadow_extent *given)
{
    struct shadow_extent piece;

    return layout_piece(mirror, &mirror->walk.to, given->first, given->first, &piece) &&
           equal(&piece, given);
}

/* Whether the piece that it lies in has grown over its borders in this patch. */
static bool outgrown(const struct mirror *mirror, const struct shadow_extent *given)
{
    const struct walk *walk = &mirror->walk;
    struct shadow_extent piece;

    return walk->merge && given->first >= walk->to.patch->first && given->last <= walk->to.patch->last &&
           layout_piece(mirror, &walk->to, given->first, given->first, &piece) &&
           piece.first <= given->first && piece.last >= given->last &&
           piece.last - piece.first > given->last - given->first;
}

static bool is_kept(const struct mirror *mirror, const struct shadow_extent *given)
{
    if (mirror->walk.keep_none) {
        return is_piece(mirror, given);
    }
    return layout_agrees(mirror, &mirror->walk.to, given) && !outgrown(mirror, given);
}

/* Widens [*first, *last] until no mapping, old or new, crosses its borders. */
static void close_over(const struct mirror *mirror, uint64_t *first, uint64_t *last)
{
    const struct walk *walk = &mirror->walk;
    struct shadow_extent p;
    bool wider;

    do {
        wider = false;
        if ((given_from(mirror, *first, *first, &p) && p.first < *first) ||
            (layout_piece(mirror, &walk->to, *first, *first, &p) && p.first < *first)) {
            *first = p.first;
            wider = true;
        }
        if ((given_from(mirror, *last, *last, &p) && p.last > *last) ||
            (layout_piece(mirror, &walk->to, *last, *last, &p) && p.last > *last)) {
            *last = p.last;
            wider = true;
        }
    } while (wider);
}

void walk_begin(struct mirror *mirror, const struct layout *from, const struct layout *to,
                uint64_t first, uint64_t last, enum viommu_cause cause)
{
    struct walk *walk = &mirror->walk;

    *walk = (struct walk){
        .active = true,
        .looked = mirror->subscriber->what.range,
        .cause = cause,
        .from = *from,
        .to = *to,
    };
    close_over(mirror, &first, &last);
    walk->at = first;
    walk->border = first;
    walk->last = last;
}

void walk_limit_skips(struct mirror *mirror, uint64_t first, uint64_t last)
{
    struct viommu_range *looked = &mirror->walk.looked;

    looked->first = looked->first > first ? looked->first : first;
    looked->last = looked->last < last ? looked->last : last;
}

/* Moves `at` behind an address; false at the end of what is walked over. */
static bool move_behind(uint64_t *at, uint64_t address, uint64_t last)
{
    if (address >= last) {
        return false;
    }
    *at = address + 1;
    return true;
}

static void odd_forget(struct mirror *mirror, const struct shadow_extent *mapping)
{
    (void)range_map_erase(&mirror->odd, mapping->first, mapping->last, NULL);
}

static bool wants(const struct mirror *mirror, enum viommu_change_kind kind)
{
    return (mirror->subscriber->what.kinds & kind) != 0;
}

static void op_set(const struct mirror *mirror, struct mirror_op *op, enum viommu_change_kind kind,
                   const struct shadow_extent *extent)
{
    *op = (struct mirror_op){
        .kind = kind,
        .cause = mirror->walk.cause,
        .extent = *extent,
        .pieces = 1,
    };
}

/* Whether a mapping failed and was never made. */
static bool is_missing(const struct mirror *mirror, const struct shadow_extent *given)
{
    struct range_run run;

    return mirror->missing.count && range_map_from(&mirror->missing, given->first, &run) &&
           run.first <= given->last;
}

/* Has it told that a stretch is as it was, as far as it was looked at, where it wants to know. */
static bool skip(const struct mirror *mirror, struct shadow_extent stretch, struct mirror_op *op)
{
    const struct viommu_range *looked = &mirror->walk.looked;

    if (!wants(mirror, VIOMMU_CHANGE_SKIPPED) || looked->first > looked->last ||
        stretch.first > looked->last || stretch.last < looked->first) {
        return false;
    }
    if (stretch.first < looked->first) {
        stretch.gpa += looked->first - stretch.first;
        stretch.first = looked->first;
    }
    if (stretch.last > looked->last) {
        stretch.last = looked->last;
    }
    op_set(mirror, op, VIOMMU_CHANGE_SKIPPED, &stretch);
    return true;
}

/* The same of a gap from `at` up to an address. */
static bool skip_gap(const struct mirror *mirror, uint64_t last, struct mirror_op *op)
{
    struct shadow_extent gap = {.first = mirror->walk.at, .last = last};

    return skip(mirror, gap, op);
}

/* Whether something of the new layout lies in a range. */
static bool is_replaced(const struct mirror *mirror, uint64_t first, uint64_t last)
{
    struct shadow_extent piece;

    return layout_piece(mirror, &mirror->walk.to, first, last, &piece);
}

static bool spans(const struct mirror *mirror)
{
    const struct viommu_subscription *what = &mirror->subscriber->what;

    return what->unmap_spans && what->form == VIOMMU_FORM_RANGE;
}

/* Where one UNMAP can take several mappings: those that follow and just go are in the cluster. */
static void extend_over_gone(struct mirror *mirror)
{
    struct walk *walk = &mirror->walk;
    struct shadow_extent next;
    uint64_t at = walk->cluster_last;

    if (!spans(mirror) || is_replaced(mirror, walk->cluster_first, walk->cluster_last)) {
        return;
    }
    while (move_behind(&at, at, walk->last) &&
           given_from(mirror, at, at, &next) && next.first == at &&
           !is_replaced(mirror, next.first, next.last)) {
        walk->cluster_last = next.last;
        at = next.last;
    }
}

/* So many mappings of the cluster will be odd: room for them, or none is kept. */
static void reserve_odd(struct mirror *mirror)
{
    struct walk *walk = &mirror->walk;
    struct shadow_extent given;
    uint64_t at = walk->cluster_first;
    size_t count = 0;

    while (given_from(mirror, at, walk->cluster_last, &given)) {
        count += is_kept(mirror, &given) && !is_piece(mirror, &given);
        if (!move_behind(&at, given.last, walk->cluster_last)) {
            break;
        }
    }
    if (count && range_map_reserve(&mirror->odd, count)) {
        walk->keep_none = true;
    }
}

static void cluster_begin(struct mirror *mirror, uint64_t first, uint64_t last)
{
    struct walk *walk = &mirror->walk;

    close_over(mirror, &first, &last);
    walk->cluster_first = first;
    walk->cluster_last = last;
    walk->merge = walk->to.patch && mirror_crowded(mirror);
    walk->keep_none = false;
    walk->replaced = false;
    walk->opened = 0;
    extend_over_gone(mirror);
    reserve_odd(mirror);
    walk->at = first;
    walk->at_end = false;
    walk->phase = WALK_UNMAP;
}

/* The cluster is one mapping that becomes another in the same place. */
static bool replace_whole(struct mirror *mirror, const struct shadow_extent *given,
                          struct mirror_op *op)
{
    const struct walk *walk = &mirror->walk;
    struct shadow_extent piece;

    if (!wants(mirror, VIOMMU_CHANGE_REPLACE) || given->first != walk->cluster_first ||
        given->last != walk->cluster_last ||
        !layout_piece(mirror, &walk->to, given->first, given->first, &piece) ||
        piece.first != given->first || piece.last != given->last) {
        return false;
    }
    op_set(mirror, op, VIOMMU_CHANGE_REPLACE, &piece);
    return true;
}

/* Moves the border of what was walked over behind an address. */
static void walk_over(struct walk *walk, uint64_t address)
{
    walk->over = !move_behind(&walk->at, address, walk->last);
    walk->border = walk->at;
}

/* The same before and after. */
static bool pass_over(struct mirror *mirror, const struct shadow_extent *given,
                      struct mirror_op *op)
{
    if (mirror->odd.count) {
        odd_forget(mirror, given); /* it is a piece now */
    }
    walk_over(&mirror->walk, given->last);
    return !is_missing(mirror, given) && skip(mirror, *given, op);
}

/*
 * Looks for the next cluster. What is the same before and after is passed over; what is only new is
 * mapped at once. Returns true when there is something to tell.
 */
static bool next_cluster(struct mirror *mirror, struct mirror_op *op)
{
    struct walk *walk = &mirror->walk;
    struct shadow_extent given = {0};
    struct shadow_extent piece = {0};
    const struct shadow_extent *lower;
    bool has_given;
    bool has_piece;

    if (walk->over) {
        walk->active = false;
        return false;
    }
    has_given = given_from(mirror, walk->at, walk->last, &given);
    has_piece = layout_piece(mirror, &walk->to, walk->at, walk->last, &piece);
    if (!has_given && !has_piece) {
        walk->over = true;
        return skip_gap(mirror, walk->last, op);
    }
    lower = has_given && (!has_piece || given.first <= piece.first) ? &given : &piece;
    if (lower->first > walk->at && skip_gap(mirror, lower->first - 1, op)) {
        walk->at = lower->first;
        return true;
    }
    if (has_given && has_piece && equal(&given, &piece)) {
        return pass_over(mirror, &given, op);
    }
    if (lower == &piece && (!has_given || given.first > piece.last)) {
        op_set(mirror, op, VIOMMU_CHANGE_MAP, &piece);
        walk_over(walk, piece.last);
        return true;
    }
    cluster_begin(mirror, lower->first, lower->last);
    return false;
}

static void move_in_cluster(struct walk *walk, uint64_t address)
{
    walk->at_end = !move_behind(&walk->at, address, walk->cluster_last);
}

static void to_phase(struct walk *walk, enum walk_phase phase)
{
    walk->phase = phase;
    walk->at = walk->cluster_first;
    walk->at_end = false;
}

/* Counts what goes though it did not change, and when. */
static void count_interrupted(struct viommu *iommu, struct mirror *mirror,
                              const struct shadow_extent *given)
{
    struct walk *walk = &mirror->walk;

    iommu->stats.pages_interrupted += layout_unchanged(mirror, &walk->to, given) >> 12;
    if (!walk->opened && is_replaced(mirror, given->first, given->last)) {
        walk->opened = iommu_now(iommu) | 1;
    }
}

/* Adds those that follow to an UNMAP of several. */
static void gather(struct viommu *iommu, struct mirror *mirror, struct mirror_op *op)
{
    struct walk *walk = &mirror->walk;
    struct shadow_extent next;

    while (!walk->at_end &&
           given_from(mirror, walk->at, walk->at, &next) &&
           next.first == op->extent.last + 1 && !is_kept(mirror, &next) &&
           !is_missing(mirror, &next)) {
        count_interrupted(iommu, mirror, &next);
        op->extent.last = next.last;
        op->pieces++;
        move_in_cluster(walk, next.last);
    }
}

static bool next_unmap(struct viommu *iommu, struct mirror *mirror, struct mirror_op *op)
{
    struct walk *walk = &mirror->walk;
    struct shadow_extent given;

    if (walk->at_end ||
        !given_from(mirror, walk->at, walk->cluster_last, &given)) {
        to_phase(walk, WALK_MAP);
        return false;
    }
    move_in_cluster(walk, given.last);
    if (is_kept(mirror, &given)) {
        return !is_missing(mirror, &given) && skip(mirror, given, op);
    }
    if (!is_missing(mirror, &given) && replace_whole(mirror, &given, op)) {
        walk->replaced = true;
        return true;
    }
    op_set(mirror, op, VIOMMU_CHANGE_UNMAP, &given);
    if (is_missing(mirror, &given)) {
        return true;
    }
    count_interrupted(iommu, mirror, &given);
    if (spans(mirror)) {
        gather(iommu, mirror, op);
    }
    return true;
}

/* The end of what is free from `at` on in a piece: up to the next mapping that was kept. */
static uint64_t free_last(const struct mirror *mirror, const struct shadow_extent *piece)
{
    const struct walk *walk = &mirror->walk;
    struct shadow_extent given;
    uint64_t at = walk->at;

    while (given_from(mirror, at, piece->last, &given)) {
        if (is_kept(mirror, &given)) {
            return given.first - 1;
        }
        if (!move_behind(&at, given.last, piece->last)) {
            break;
        }
    }
    return piece->last;
}

static bool next_map(struct mirror *mirror, struct mirror_op *op)
{
    struct walk *walk = &mirror->walk;
    struct shadow_extent piece;
    struct shadow_extent given;

    if (walk->replaced || walk->at_end ||
        !layout_piece(mirror, &walk->to, walk->at, walk->cluster_last, &piece)) {
        to_phase(walk, WALK_END);
        return false;
    }
    if (piece.first > walk->at) {
        walk->at = piece.first;
    }
    if (given_from(mirror, walk->at, walk->at, &given) &&
        is_kept(mirror, &given)) {
        move_in_cluster(walk, given.last);
        return false;
    }
    piece.gpa += walk->at - piece.first;
    piece.first = walk->at;
    piece.last = free_last(mirror, &piece);
    op_set(mirror, op, VIOMMU_CHANGE_MAP, &piece);
    move_in_cluster(walk, piece.last);
    return true;
}

/* Kept mappings that are no pieces of the new layout become odd. There is room for them. */
static void odd_add(struct mirror *mirror)
{
    struct walk *walk = &mirror->walk;
    struct shadow_extent given;
    uint64_t at = walk->cluster_first;

    while (given_from(mirror, at, walk->cluster_last, &given)) {
        if (is_kept(mirror, &given) && !is_piece(mirror, &given)) {
            struct range_run run = {given.first, given.last, given.gpa, given.perm};

            (void)range_map_insert(&mirror->odd, &run); /* -EEXIST: it is odd already */
        }
        if (!move_behind(&at, given.last, walk->cluster_last)) {
            break;
        }
    }
    range_map_release(&mirror->odd);
}

/* Odd mappings that went, or that are pieces now, are odd no more. */
static void odd_remove(struct mirror *mirror)
{
    struct walk *walk = &mirror->walk;
    struct range_run run;
    uint64_t at = walk->cluster_first;

    while (range_map_from(&mirror->odd, at, &run) && run.first <= walk->cluster_last) {
        struct shadow_extent given = {run.first, run.last, run.target, (uint32_t)run.tag};

        if (!is_kept(mirror, &given) || is_piece(mirror, &given)) {
            odd_forget(mirror, &given);
        }
        if (!move_behind(&at, run.last, walk->cluster_last)) {
            break;
        }
    }
}

static void count_window(struct viommu *iommu, uint64_t opened)
{
    uint64_t now = iommu_now(iommu);
    uint64_t ns = now > opened ? now - opened : 0;

    iommu->stats.windows++;
    iommu->stats.window_ns += ns;
    if (ns > iommu->stats.window_ns_max) {
        iommu->stats.window_ns_max = ns;
    }
}

static void cluster_end(struct viommu *iommu, struct mirror *mirror)
{
    struct walk *walk = &mirror->walk;

    odd_add(mirror);
    odd_remove(mirror);
    mirror_count(iommu, mirror);
    if (walk->opened) {
        count_window(iommu, walk->opened);
    }
    walk->phase = WALK_NEXT;
    walk_over(walk, walk->cluster_last);
}

bool walk_next(struct viommu *iommu, struct mirror *mirror, struct mirror_op *op)
{
    struct walk *walk = &mirror->walk;
    bool found = false;

    while (walk->active && !found) {
        switch (walk->phase) {
        case WALK_NEXT:
            found = next_cluster(mirror, op);
            break;
        case WALK_UNMAP:
            found = next_unmap(iommu, mirror, op);
            break;
        case WALK_MAP:
            found = next_map(mirror, op);
            break;
        case WALK_END:
            cluster_end(iommu, mirror);
            break;
        }
    }
    return found;
}
