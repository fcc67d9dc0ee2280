/* SPDX-License-Identifier: BSD-2-Clause */
/* Trials: what trial.h says of mappings, and of what mirrors may refuse. */
#include "iommu/iommu.h"

#include "base/alloc.h"

#include <errno.h>

/* ---- mappings ------------------------------------------------------------------------------- */

void mappings_init(struct mappings *mappings, struct epoch *epoch)
{
    *mappings = (struct mappings){.users = 1, .epoch = epoch};
    range_map_init(&mappings->map);
    range_map_keep(&mappings->map);
}

struct mappings *mappings_get(struct mappings *mappings)
{
    mappings->users++;
    return mappings;
}

static void mappings_free(struct epoch_deferred *deferred)
{
    struct mappings *mappings =
        (struct mappings *)((char *)deferred - offsetof(struct mappings, deferred));

    range_map_fini(&mappings->map);
    base_free(mappings);
}

void mappings_put(struct mappings *mappings)
{
    if (mappings && !--mappings->users) {
        epoch_defer(mappings->epoch, &mappings->deferred, mappings_free);
    }
}

/* Whether a layout does not show a run that is in the map. Runs lie in the range or outside. */
static bool is_hidden(const struct mappings *mappings, bool ahead, const struct range_run *run)
{
    return mappings->changes && mappings->adds != ahead && run->first <= mappings->range.last &&
           run->last >= mappings->range.first;
}

bool mappings_next(const struct mappings *mappings, bool ahead, uint64_t from, uint64_t last,
                   struct range_run *run)
{
    if (!range_map_from(&mappings->map, from, run) || run->first > last) {
        return false;
    }
    if (!is_hidden(mappings, ahead, run)) {
        return true;
    }
    return mappings->range.last < last &&
           range_map_from(&mappings->map, mappings->range.last + 1, run) && run->first <= last;
}

/* ---- what may be asked of mirrors ----------------------------------------------------------- */

static uint16_t requester_of(const struct mirror *mirror)
{
    return atomic_load(&mirror->subscriber->device->requesters[0])->id;
}

/* Whether it is about to have another view. */
static bool is_moving(const struct mirror *mirror)
{
    return mirror->review || mirror->review_wanted || mirror->switching;
}

bool follow_shares(const struct viommu *iommu, const struct mappings *mappings)
{
    for (const struct mirror *m = iommu->follow.mirrors; m; m = m->next) {
        if (!m->subscriber->fenced && (m->source == mappings || is_moving(m))) {
            return true;
        }
    }
    return false;
}

bool follow_mirrors(const struct viommu *iommu, uint16_t requester)
{
    for (const struct mirror *m = iommu->follow.mirrors; m; m = m->next) {
        if (!m->subscriber->fenced && requester_of(m) == requester) {
            return true;
        }
    }
    return false;
}

/* The interrupt range and what else is reserved lie in no mapping: an `allowed` cut there fits. */
static bool mirror_allows(const struct mirror *mirror, uint64_t first, uint64_t last)
{
    const struct viommu_range *range = &mirror->subscriber->what.range;
    const struct viommu_range *allowed;

    first = first > range->first ? first : range->first;
    last = last < range->last ? last : range->last;
    if (first > last) {
        return true;
    }
    allowed = mirror_allowed_from(mirror, first);
    return allowed && allowed->first <= first && allowed->last >= last;
}

bool follow_allows(const struct viommu *iommu, notify_match *match, const void *what,
                   uint64_t first, uint64_t last)
{
    for (const struct mirror *m = iommu->follow.mirrors; m; m = m->next) {
        const struct requester *requester = atomic_load(&m->subscriber->device->requesters[0]);

        if (!m->subscriber->fenced && match(requester, what) && !mirror_allows(m, first, last)) {
            return false;
        }
    }
    return true;
}

/* Whether a run that begins in [first, last], or reaches into it, goes where it may not. */
static bool meets(const struct mirror *mirror, const struct mappings *mappings, uint64_t first,
                  uint64_t last)
{
    struct range_run run;

    return first <= last && range_map_from(&mappings->map, first, &run) && run.first <= last &&
           !mirror_allows(mirror, run.first, run.last);
}

/* Looks at what lies between its allowed ranges only: they are few. */
static bool mirror_allows_all(const struct mirror *mirror, const struct mappings *mappings)
{
    uint64_t at = 0;

    for (size_t i = 0; i < mirror->allowed->count; i++) {
        if (mirror->allowed->ranges[i].first > at &&
            meets(mirror, mappings, at, mirror->allowed->ranges[i].first - 1)) {
            return false;
        }
        if (mirror->allowed->ranges[i].last == UINT64_MAX) {
            return true;
        }
        at = mirror->allowed->ranges[i].last + 1;
    }
    return !meets(mirror, mappings, at, UINT64_MAX);
}

bool follow_allows_all(const struct viommu *iommu, uint16_t requester,
                       const struct mappings *mappings)
{
    for (const struct mirror *m = iommu->follow.mirrors; m; m = m->next) {
        if (!m->subscriber->fenced && requester_of(m) == requester &&
            !mirror_allows_all(m, mappings)) {
            return false;
        }
    }
    return true;
}

/* ---- a trial begins ------------------------------------------------------------------------- */

bool follow_trying(const struct viommu *iommu)
{
    return iommu->follow.trial.kind != TRIAL_NONE;
}

static void begin(struct viommu *iommu, struct wait *wait, const struct trial *trial)
{
    iommu->follow.trial = *trial;
    iommu->follow.trial.batch = iommu->follow.batch_open;
    follow_join(iommu, wait);
}

static void begin_change(struct viommu *iommu, struct wait *wait, const struct trial *trial)
{
    struct mappings *mappings = mappings_get(trial->mappings);

    mappings->changes = true;
    mappings->adds = trial->kind == TRIAL_ADD;
    mappings->range = trial->range;
    begin(iommu, wait, trial);
}

void follow_add(struct viommu *iommu, struct wait *wait, struct mappings *mappings, uint64_t first,
                uint64_t last)
{
    struct trial trial = {
        .kind = TRIAL_ADD, .range = {first, last}, .mappings = mappings};

    begin_change(iommu, wait, &trial);
}

void follow_remove(struct viommu *iommu, struct wait *wait, struct mappings *mappings,
                   uint64_t first, uint64_t last)
{
    struct trial trial = {
        .kind = TRIAL_REMOVE, .range = {first, last}, .mappings = mappings};

    begin_change(iommu, wait, &trial);
}

void follow_move(struct viommu *iommu, struct wait *wait, uint16_t requester,
                 const struct shadow_view *view)
{
    struct trial trial = {
        .kind = TRIAL_VIEW,
        .range = {0, UINT64_MAX},
        .requester = requester,
        .view = *view,
    };

    if (view->mappings) {
        (void)mappings_get(view->mappings);
    }
    begin(iommu, wait, &trial);
}

void follow_cancel(struct viommu *iommu)
{
    struct trial *trial = &iommu->follow.trial;

    if ((trial->kind == TRIAL_ADD || trial->kind == TRIAL_VIEW) && !trial->undoing) {
        trial_fail(iommu, -ECANCELED);
        follow_want(iommu);
    }
}

/* ---- its steps ------------------------------------------------------------------------------ */

/* Whether a mirror takes part. */
static bool concerns(const struct trial *trial, const struct mirror *mirror)
{
    if (mirror->subscriber->fenced) {
        return false;
    }
    if (trial->kind == TRIAL_VIEW) {
        return requester_of(mirror) == trial->requester && !view_is(mirror, &trial->view);
    }
    return mirror->source == trial->mappings;
}

/* The layout that it is to have. */
static struct layout wanted(const struct viommu *iommu, const struct mirror *mirror)
{
    const struct trial *trial = &iommu->follow.trial;
    struct layout layout = mirror_layout(iommu, mirror);

    layout.ahead = true;
    if (trial->kind == TRIAL_VIEW) {
        layout = view_layout(iommu, &trial->view);
    }
    return layout;
}

static enum viommu_cause cause_of(const struct trial *trial)
{
    return trial->kind == TRIAL_VIEW ? VIOMMU_CAUSE_CONTEXT : VIOMMU_CAUSE_PAGES;
}

static void walk_there(struct viommu *iommu, struct mirror *mirror)
{
    const struct trial *trial = &iommu->follow.trial;
    struct layout from = mirror_layout(iommu, mirror);
    struct layout to = wanted(iommu, mirror);

    mirror->trying = trial->kind != TRIAL_REMOVE;
    walk_begin(mirror, &from, &to, trial->range.first, trial->range.last, cause_of(trial));
    walk_limit_skips(mirror, trial->range.first, trial->range.last);
    mirror_activate(iommu, mirror);
}

/* Over what it has walked over; behind that it holds what it held. */
static void walk_back(struct viommu *iommu, struct mirror *mirror)
{
    const struct trial *trial = &iommu->follow.trial;
    struct layout from = wanted(iommu, mirror);
    struct layout to = mirror_layout(iommu, mirror);
    uint64_t last = trial->range.last;

    mirror->trying = false;
    if (!mirror->walk.over) {
        if (mirror->walk.border <= trial->range.first) {
            return;
        }
        last = mirror->walk.border - 1;
        from.last = from.last < last ? from.last : last;
    }
    walk_begin(mirror, &from, &to, trial->range.first, last, cause_of(trial));
    mirror_activate(iommu, mirror);
}

static void all_walk(struct viommu *iommu)
{
    struct trial *trial = &iommu->follow.trial;

    trial->undoing = trial->begun;
    trial->begun = true;
    for (struct mirror *m = iommu->follow.mirrors; m; m = m->next) {
        if (trial->undoing && m->trying) {
            walk_back(iommu, m);
        } else if (!trial->undoing && concerns(trial, m)) {
            walk_there(iommu, m);
        }
    }
}

/* Takes runs out of the map, many at a time; counts their pages where a cause is given. */
static void runs_erase(struct viommu *iommu, struct mappings *mappings, bool counted)
{
    struct range_erased erased;
    struct range_cursor cursor;
    struct range_run run;

    range_cursor_seek(&cursor, &mappings->map, mappings->range.first);
    while (counted && range_cursor_next(&cursor, mappings->range.last, &run)) {
        iommu->stats.pages_gone[VIOMMU_CAUSE_PAGES] += ((run.last - run.first) >> 12) + 1;
    }
    /* None reaches over a border (trial.h). */
    (void)range_map_erase_inside(&mappings->map, mappings->range.first, mappings->range.last,
                                 &erased);
}

/* What came is there, or what goes is not. */
static void mappings_settle(struct viommu *iommu, const struct trial *trial)
{
    struct mappings *mappings = trial->mappings;
    uint64_t pages = ((trial->range.last - trial->range.first) >> 12) + 1;

    if (trial->kind == TRIAL_REMOVE) {
        runs_erase(iommu, mappings, true);
    } else if (trial->error) {
        runs_erase(iommu, mappings, false);
    } else {
        iommu->stats.pages_appeared[VIOMMU_CAUSE_PAGES] += pages;
    }
    mappings->changes = false;
}

static void end(struct viommu *iommu)
{
    struct trial trial = iommu->follow.trial;
    struct mirror *next;

    for (struct mirror *m = iommu->follow.mirrors; m; m = next) {
        next = m->next;
        if (m->trying && trial.kind == TRIAL_VIEW) {
            mirror_set_view(iommu, m, &trial.view, NULL);
        }
        m->trying = false;
    }
    if (trial.mappings) {
        mappings_settle(iommu, &trial);
    }
    if (trial.kind == TRIAL_ADD && !trial.error) {
        tell_mappings_unreachable(iommu, trial.mappings, trial.range.first);
    }
    iommu->follow.trial = (struct trial){0};
    iommu->work_came = true;
    if (iommu->model->tried) {
        iommu->model->tried(iommu, trial.kind == TRIAL_REMOVE ? 0 : trial.error);
    }
    mappings_put(trial.mappings);
    mappings_put(trial.view.mappings);
}

bool trial_step(struct viommu *iommu)
{
    struct trial *trial = &iommu->follow.trial;

    if (!trial->kind || trial->batch == iommu->follow.batch_open) {
        return false;
    }
    if ((!trial->begun && !trial->error) || (trial->begun && trial->error && !trial->undoing)) {
        all_walk(iommu);
    } else {
        end(iommu);
    }
    return true;
}

/* ---- it fails ------------------------------------------------------------------------------- */

void trial_fail(struct viommu *iommu, int error)
{
    struct trial *trial = &iommu->follow.trial;

    if (!trial->error) {
        trial->error = error;
    }
    for (struct mirror *m = iommu->follow.mirrors; m; m = m->next) {
        m->walk.stop |= m->trying;
    }
}

bool trial_map_failed(struct viommu *iommu, struct mirror *mirror, int error)
{
    struct walk *walk = &mirror->walk;

    trial_fail(iommu, error);
    if (walk->phase != WALK_NEXT) {
        return false; /* in a cluster: it is finished, and what is missing noted */
    }
    /* A piece where nothing was: the blocks of it that were mapped are what was walked over. */
    walk->border = mirror->block.first;
    walk->over = false;
    mirror->splitting = false;
    return true;
}

void trial_fenced(struct viommu *iommu, struct mirror *mirror, int error)
{
    if (mirror->trying) {
        mirror->trying = false;
        trial_fail(iommu, error);
    }
}

void trial_fini(struct viommu *iommu)
{
    mappings_put(iommu->follow.trial.mappings);
    mappings_put(iommu->follow.trial.view.mappings);
    iommu->follow.trial = (struct trial){0};
}
