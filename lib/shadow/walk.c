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
 * a walk can stop anywhere. It goes in small steps, each of which looks at a bounded number of
 * extents, however many a mapping spans. The odd mappings of a cluster change when the rest of it
 * is done.
 */
#include "iommu/iommu.h"

/* Steps that one call of walk_next takes. */
#define WALK_STEPS 64
/* Mappings that one UNMAP takes at most. */
#define SPAN_MAX 512
/* What an odd mapping takes, about: a run in a tree that is three quarters full. */
#define ODD_BYTES (sizeof(struct range_run) * 4 / 3)

/* Cuts what was given at the border of what was walked over: no mapping crosses that. */
static void given_cut(const struct mirror *mirror, struct shadow_extent *given)
{
    uint64_t border = mirror->walk.border;

    if (given->first < border) {
        given->gpa += border - given->first;
        given->first = border;
    }
}

/*
 * What the mirror was given, behind what was walked over: there the odd mappings have changed
 * already.
 */
static enum answer next_given(const struct mirror *mirror, uint64_t from, uint64_t last,
                              struct shadow_extent *given, uint64_t *later)
{
    enum answer answer =
        layout_look_given(mirror, &mirror->walk.from, from, last, given, later);

    if (answer == ANSWER_YES) {
        given_cut(mirror, given);
    }
    return answer;
}

/* The mapping that it was given at an address. */
static bool given_at(const struct mirror *mirror, uint64_t address, struct shadow_extent *given)
{
    if (!layout_given(mirror, &mirror->walk.from, address, address, given)) {
        return false;
    }
    given_cut(mirror, given);
    return true;
}

static bool piece_at(const struct mirror *mirror, uint64_t address, struct shadow_extent *piece)
{
    return layout_piece(mirror, &mirror->walk.to, address, address, piece);
}

/* Whether something of the new layout lies in a range, or may. */
static bool is_replaced(const struct mirror *mirror, uint64_t first, uint64_t last)
{
    struct shadow_extent piece;
    uint64_t later;

    return layout_look(mirror, &mirror->walk.to, first, last, &piece, &later) != ANSWER_NO;
}

static bool equal(const struct shadow_extent *a, const struct shadow_extent *b)
{
    return a->first == b->first && a->last == b->last && a->gpa == b->gpa && a->perm == b->perm;
}

/* Whether a mapping is a piece of the new layout as it is. */
static bool is_piece(const struct mirror *mirror, const struct shadow_extent *given)
{
    struct shadow_extent piece;

    return piece_at(mirror, given->first, &piece) && equal(&piece, given);
}

/* Whether it is odd as it is. */
static bool is_odd(const struct mirror *mirror, const struct shadow_extent *given)
{
    struct range_run run;

    return mirror->odd.count && range_map_find(&mirror->odd, given->first, &run) &&
           run.first == given->first && run.last == given->last;
}

/* Whether the piece that it lies in has grown over its borders in this patch. */
static bool outgrown(const struct mirror *mirror, const struct shadow_extent *given)
{
    const struct walk *walk = &mirror->walk;
    struct shadow_extent piece;

    return walk->merge && given->first >= walk->to.patch->first &&
           given->last <= walk->to.patch->last && piece_at(mirror, given->first, &piece) &&
           piece.first <= given->first && piece.last >= given->last &&
           piece.last - piece.first > given->last - given->first;
}

/* Whether a mapping that was given is kept. ANSWER_LATER: ask again. */
static enum answer judge(struct mirror *mirror, const struct shadow_extent *given)
{
    struct walk *walk = &mirror->walk;

    if (walk->keep_none) {
        return is_piece(mirror, given) ? ANSWER_YES : ANSWER_NO;
    }
    if (!walk->judging || walk->judged_first != given->first) {
        walk->judging = true;
        walk->judged_first = given->first;
        walk->judged_at = given->first;
        walk->judged = ANSWER_LATER;
    }
    if (walk->judged == ANSWER_LATER) {
        walk->judged = layout_agrees(mirror, &walk->to, given, &walk->judged_at);
        if (walk->judged == ANSWER_YES && outgrown(mirror, given)) {
            walk->judged = ANSWER_NO;
        }
    }
    return walk->judged;
}

/* Widens [*first, *last] until no mapping, old or new, crosses its borders. */
static void close_over(const struct mirror *mirror, uint64_t *first, uint64_t *last)
{
    struct shadow_extent p;
    bool wider;

    do {
        wider = false;
        if ((given_at(mirror, *first, &p) && p.first < *first) ||
            (piece_at(mirror, *first, &p) && p.first < *first)) {
            *first = p.first;
            wider = true;
        }
        if ((given_at(mirror, *last, &p) && p.last > *last) ||
            (piece_at(mirror, *last, &p) && p.last > *last)) {
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

/* ---- what is told --------------------------------------------------------------------------- */

static bool wants(const struct mirror *mirror, enum viommu_change_kind kind)
{
    return (mirror->subscriber->what.kinds & kind) != 0;
}

static bool takes_ranges(const struct mirror *mirror)
{
    return mirror->subscriber->what.form == VIOMMU_FORM_RANGE;
}

static bool spans(const struct mirror *mirror)
{
    return mirror->subscriber->what.unmap_spans && takes_ranges(mirror);
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

/* The same of a mapping that it holds. */
static bool skip_given(const struct mirror *mirror, const struct shadow_extent *given,
                       struct mirror_op *op)
{
    return !is_missing(mirror, given) && skip(mirror, *given, op);
}

/* The same of a gap from `at` up to an address. */
static bool skip_gap(const struct mirror *mirror, uint64_t last, struct mirror_op *op)
{
    struct shadow_extent gap = {.first = mirror->walk.at, .last = last};

    return skip(mirror, gap, op);
}

/* ---- from cluster to cluster ---------------------------------------------------------------- */

/* Moves the border of what was walked over behind an address. */
static void walk_over(struct walk *walk, uint64_t address)
{
    walk->over = !move_behind(&walk->at, address, walk->last);
    walk->border = walk->at;
}

static void odd_forget(struct mirror *mirror, uint64_t first, uint64_t last)
{
    (void)range_map_erase(&mirror->odd, first, last, NULL);
}

static void to_phase(struct walk *walk, enum walk_phase phase)
{
    walk->phase = phase;
    walk->at = walk->cluster_first;
    walk->at_end = false;
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
    for (unsigned i = 1; i < SPAN_MAX; i++) {
        if (!move_behind(&at, at, walk->last) || !given_at(mirror, at, &next) ||
            is_replaced(mirror, next.first, next.last)) {
            return;
        }
        walk->cluster_last = next.last;
        at = next.last;
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
    walk->judging = false;
    walk->odd = 0;
    walk->opened = 0;
    walk->closed = false;
    extend_over_gone(mirror);
    to_phase(walk, WALK_COUNT);
}

/* The same before and after. */
static bool pass_over(struct mirror *mirror, const struct shadow_extent *given,
                      struct mirror_op *op)
{
    if (mirror->odd.count) {
        odd_forget(mirror, given->first, given->last); /* it is a piece now */
    }
    walk_over(&mirror->walk, given->last);
    return skip_given(mirror, given, op);
}

/* Nothing, old or new, begins at `last` or below. */
static bool pass_gap(struct mirror *mirror, uint64_t last, struct mirror_op *op)
{
    bool told = skip_gap(mirror, last, op);

    walk_over(&mirror->walk, last);
    return told;
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
    uint64_t given_later = UINT64_MAX;
    uint64_t piece_later = UINT64_MAX;
    enum answer has_given = next_given(mirror, walk->at, walk->last, &given, &given_later);
    enum answer has_piece =
        layout_look(mirror, &walk->to, walk->at, walk->last, &piece, &piece_later);
    bool given_first = has_given == ANSWER_YES &&
                       (has_piece != ANSWER_YES || given.first <= piece.first);
    uint64_t known = given_later < piece_later ? given_later : piece_later;

    lower = given_first ? &given : has_piece == ANSWER_YES ? &piece : NULL;
    if ((!lower || lower->first >= known) && known != UINT64_MAX) {
        return pass_gap(mirror, known - 1, op);
    }
    if (!lower) {
        return pass_gap(mirror, walk->last, op);
    }
    if (lower->first > walk->at) {
        return pass_gap(mirror, lower->first - 1, op);
    }
    if (has_given == ANSWER_YES && has_piece == ANSWER_YES && equal(&given, &piece)) {
        return pass_over(mirror, &given, op);
    }
    if (lower == &piece && piece.last < known &&
        (has_given != ANSWER_YES || given.first > piece.last)) {
        op_set(mirror, op, VIOMMU_CHANGE_MAP, &piece);
        walk_over(walk, piece.last);
        return true;
    }
    cluster_begin(mirror, lower->first, lower->last);
    return false;
}

/* ---- in a cluster --------------------------------------------------------------------------- */

static void move_in_cluster(struct walk *walk, uint64_t address)
{
    walk->at_end = !move_behind(&walk->at, address, walk->cluster_last);
}

/*
 * The next mapping of the cluster that was given, and whether it is kept: ANSWER_LATER when that is
 * not known yet. False at the end of the cluster.
 */
static bool judge_next(struct mirror *mirror, struct shadow_extent *given, enum answer *kept)
{
    struct walk *walk = &mirror->walk;
    uint64_t later;
    enum answer found;

    *kept = ANSWER_LATER;
    if (walk->at_end) {
        return false;
    }
    found = next_given(mirror, walk->at, walk->cluster_last, given, &later);
    if (found == ANSWER_LATER) {
        walk->at = later;
        return true;
    }
    if (found == ANSWER_YES) {
        *kept = judge(mirror, given);
    }
    return found == ANSWER_YES;
}

/* Room for those that will be odd; where there is none, or no quota, none is kept. */
static void odd_reserve(struct viommu *iommu, struct mirror *mirror)
{
    struct walk *walk = &mirror->walk;

    if (walk->odd && (follow_bytes(iommu) + walk->odd * ODD_BYTES > follow_quota(iommu) ||
                      range_map_reserve(&mirror->odd, walk->odd))) {
        walk->keep_none = true;
    }
    to_phase(walk, WALK_UNMAP);
}

static bool count_step(struct viommu *iommu, struct mirror *mirror)
{
    struct walk *walk = &mirror->walk;
    struct shadow_extent given;
    enum answer kept;

    if (!judge_next(mirror, &given, &kept)) {
        odd_reserve(iommu, mirror);
    } else if (kept != ANSWER_LATER) {
        walk->odd += kept == ANSWER_YES && !is_piece(mirror, &given) && !is_odd(mirror, &given);
        move_in_cluster(walk, given.last);
    }
    return false;
}

/* The cluster is one mapping that becomes another in the same place. */
static bool replace_whole(struct mirror *mirror, const struct shadow_extent *given,
                          struct mirror_op *op)
{
    const struct walk *walk = &mirror->walk;
    struct shadow_extent piece;

    /* Blocks of another target have other borders. */
    if (!wants(mirror, VIOMMU_CHANGE_REPLACE) || !takes_ranges(mirror) ||
        given->first != walk->cluster_first || given->last != walk->cluster_last ||
        !piece_at(mirror, given->first, &piece) || piece.first != given->first ||
        piece.last != given->last) {
        return false;
    }
    op_set(mirror, op, VIOMMU_CHANGE_REPLACE, &piece);
    return true;
}

/* Adds those that follow to an UNMAP of several. */
static void gather(struct mirror *mirror, struct mirror_op *op)
{
    struct walk *walk = &mirror->walk;
    struct shadow_extent next;

    while (!walk->at_end && op->pieces < SPAN_MAX && given_at(mirror, walk->at, &next) &&
           judge(mirror, &next) == ANSWER_NO && !is_missing(mirror, &next)) {
        op->extent.last = next.last;
        op->pieces++;
        move_in_cluster(walk, next.last);
    }
}

static bool unmap_step(struct viommu *iommu, struct mirror *mirror, struct mirror_op *op)
{
    struct walk *walk = &mirror->walk;
    struct shadow_extent given;
    enum answer kept;

    if (!judge_next(mirror, &given, &kept)) {
        to_phase(walk, WALK_MAP);
        return false;
    }
    if (kept == ANSWER_LATER) {
        return false;
    }
    move_in_cluster(walk, given.last);
    if (kept == ANSWER_YES) {
        return skip_given(mirror, &given, op);
    }
    op_set(mirror, op, VIOMMU_CHANGE_UNMAP, &given);
    if (is_missing(mirror, &given)) {
        return true;
    }
    if (replace_whole(mirror, &given, op)) {
        walk->replaced = true;
        return true;
    }
    if (!walk->opened) {
        walk->opened = iommu_now(iommu) | 1;
    }
    if (spans(mirror)) {
        gather(mirror, op);
    }
    return true;
}

/* Looks for what is missing of the new pieces. */
static bool map_step(struct mirror *mirror)
{
    struct walk *walk = &mirror->walk;
    struct shadow_extent piece;
    struct shadow_extent given;
    enum answer answer = ANSWER_NO;

    if (!walk->replaced && !walk->at_end) {
        answer = layout_look(mirror, &walk->to, walk->at, walk->cluster_last, &piece, &walk->at);
    }
    if (answer == ANSWER_NO) {
        to_phase(walk, WALK_KEEP);
    }
    if (answer != ANSWER_YES) {
        return false;
    }
    if (piece.first > walk->at) {
        walk->at = piece.first;
    }
    if (given_at(mirror, walk->at, &given)) {
        answer = judge(mirror, &given);
        if (answer == ANSWER_YES) {
            move_in_cluster(walk, given.last);
        }
        if (answer != ANSWER_NO) {
            return false;
        }
    }
    walk->part = piece;
    walk->part.gpa += walk->at - piece.first;
    walk->part.first = walk->at;
    walk->part_at = walk->at;
    walk->phase = WALK_PART;
    return false;
}

/* Tells to map the part; its end is found. */
static bool part_map(struct mirror *mirror, struct mirror_op *op)
{
    struct walk *walk = &mirror->walk;

    walk->closed = true;
    walk->phase = WALK_MAP;
    op_set(mirror, op, VIOMMU_CHANGE_MAP, &walk->part);
    move_in_cluster(walk, walk->part.last);
    return true;
}

/* Counts pages of the part that a mapping that went had, too: they were there, and come back. */
static void count_interrupted(struct viommu *iommu, const struct mirror *mirror,
                              const struct shadow_extent *given)
{
    const struct shadow_extent *part = &mirror->walk.part;
    uint64_t first = part->first > given->first ? part->first : given->first;
    uint64_t bytes = layout_common(part, given);
    struct range_cursor cursor;
    struct range_run run;

    if (!bytes) {
        return;
    }
    range_cursor_seek(&cursor, &mirror->unmade.map, first);
    while (range_set_next_clipped(&cursor, first, first + bytes - 1, &run)) {
        iommu->stats.pages_interrupted -= (run.last - run.first + 1) >> 12;
    }
    iommu->stats.pages_interrupted += bytes >> 12;
}

/*
 * Looks at one mapping that the part to be mapped meets: a kept one ends it; of one that went,
 * pages may come back as they were.
 */
static bool part_step(struct viommu *iommu, struct mirror *mirror, struct mirror_op *op)
{
    struct walk *walk = &mirror->walk;
    struct shadow_extent given;
    uint64_t later;
    enum answer answer = next_given(mirror, walk->part_at, walk->part.last, &given, &later);

    if (answer == ANSWER_LATER) {
        walk->part_at = later;
        return false;
    }
    if (answer == ANSWER_NO) {
        return part_map(mirror, op);
    }
    answer = judge(mirror, &given);
    if (answer == ANSWER_LATER) {
        return false;
    }
    if (answer == ANSWER_YES) {
        walk->part.last = given.first - 1;
        return part_map(mirror, op);
    }
    count_interrupted(iommu, mirror, &given);
    return !move_behind(&walk->part_at, given.last, walk->part.last) && part_map(mirror, op);
}

/* Kept mappings that are no pieces of the new layout become odd. There is room for them. */
static bool keep_step(struct mirror *mirror)
{
    struct walk *walk = &mirror->walk;
    struct shadow_extent given;
    enum answer kept;

    if (!walk->odd || walk->keep_none || !judge_next(mirror, &given, &kept)) {
        range_map_release(&mirror->odd);
        to_phase(walk, WALK_DROP);
        return false;
    }
    if (kept == ANSWER_YES && !is_piece(mirror, &given)) {
        struct range_run run = {given.first, given.last, given.gpa, given.perm};

        (void)range_map_insert(&mirror->odd, &run); /* -EEXIST: it is odd already */
    }
    if (kept != ANSWER_LATER) {
        move_in_cluster(walk, given.last);
    }
    return false;
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

    mirror_count(iommu, mirror);
    range_set_fini(&mirror->unmade);
    if (walk->opened && walk->closed) {
        count_window(iommu, walk->opened);
    }
    walk->phase = WALK_NEXT;
    walk_over(walk, walk->cluster_last);
}

/* Odd mappings that went, or that are pieces now, are odd no more. */
static bool drop_step(struct viommu *iommu, struct mirror *mirror)
{
    struct walk *walk = &mirror->walk;
    struct range_run run;
    struct shadow_extent given;
    enum answer kept;

    if (walk->at_end || !range_map_from(&mirror->odd, walk->at, &run) ||
        run.first > walk->cluster_last) {
        cluster_end(iommu, mirror);
        return false;
    }
    given = (struct shadow_extent){run.first, run.last, run.target, (uint32_t)run.tag};
    kept = judge(mirror, &given);
    if (kept == ANSWER_LATER) {
        return false;
    }
    if (kept == ANSWER_NO || is_piece(mirror, &given)) {
        odd_forget(mirror, run.first, run.last);
    }
    move_in_cluster(walk, run.last);
    return false;
}

static bool step(struct viommu *iommu, struct mirror *mirror, struct mirror_op *op)
{
    switch (mirror->walk.phase) {
    case WALK_NEXT:
        return next_cluster(mirror, op);
    case WALK_COUNT:
        return count_step(iommu, mirror);
    case WALK_UNMAP:
        return unmap_step(iommu, mirror, op);
    case WALK_MAP:
        return map_step(mirror);
    case WALK_PART:
        return part_step(iommu, mirror, op);
    case WALK_KEEP:
        return keep_step(mirror);
    case WALK_DROP:
        return drop_step(iommu, mirror);
    }
    return false;
}

/*
 * Whether it may stop here and be walked back. Not inside a piece of the layout that it had: where
 * it holds that in odd mappings, some of them would still be there when the piece is mapped again.
 * Nothing new is mapped until the piece ends, so that nothing can fail on the way.
 */
static bool may_stop(const struct mirror *mirror)
{
    const struct walk *walk = &mirror->walk;
    struct shadow_extent piece;
    uint64_t later;

    switch (layout_look(mirror, &walk->from, walk->border, walk->border, &piece, &later)) {
    case ANSWER_NO:
        return true;
    case ANSWER_YES:
        return piece.first >= walk->border;
    default:
        return false;
    }
}

static bool is_over(const struct mirror *mirror)
{
    const struct walk *walk = &mirror->walk;

    return walk->phase == WALK_NEXT && (walk->over || (walk->stop && may_stop(mirror)));
}

enum walk_result walk_next(struct viommu *iommu, struct mirror *mirror, struct mirror_op *op)
{
    struct walk *walk = &mirror->walk;

    for (unsigned i = 0; i < WALK_STEPS; i++) {
        if (!walk->active || is_over(mirror)) {
            walk->active = false;
            return WALK_OVER;
        }
        if (step(iommu, mirror, op)) {
            return WALK_TELL;
        }
    }
    return WALK_MORE;
}
