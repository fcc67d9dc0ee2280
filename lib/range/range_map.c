/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The operations on runs: what is asked for is found and judged first, then the tree is changed by
 * calls that cannot fail.
 */
#include "range/range_map.h"

#include "range/tree.h"

#include <errno.h>

/* ---- looking ---- */

/* Where the run at the path begins. */
static uint64_t path_first(const struct range_path *path)
{
    return tree_entries(path->node[0], 0)[path->index[0]].first;
}

bool range_map_from(const struct range_map *map, uint64_t address, struct range_run *run)
{
    struct range_path path;

    tree_seek(map, address, &path);
    if (!tree_at_run(map, &path)) {
        return false;
    }
    *run = tree_run(path.node[0], path.index[0]);
    return true;
}

bool range_map_find(const struct range_map *map, uint64_t address, struct range_run *run)
{
    return range_map_from(map, address, run) && run->first <= address;
}

bool range_map_before(const struct range_map *map, uint64_t address, struct range_run *run)
{
    struct range_path path;
    struct range_node *node;
    unsigned level = 0;
    unsigned index;

    tree_seek(map, address, &path);
    while (level < map->height && !path.index[level]) {
        level++;
    }
    if (level == map->height) {
        return false;
    }
    node = path.node[level];
    index = path.index[level] - 1;
    while (level) {
        node = tree_entries(node, level--)[index].child;
        index = (unsigned)node->count - 1;
    }
    *run = tree_run(node, index);
    return true;
}

void range_cursor_seek(struct range_cursor *cursor, const struct range_map *map, uint64_t first)
{
    cursor->map = map;
    tree_seek(map, first, &cursor->path);
}

/* From the end of a leaf to the beginning of the next. False: it was the last. */
static bool next_leaf(struct range_cursor *cursor)
{
    struct range_path *path = &cursor->path;
    unsigned level = 1;

    while (level < cursor->map->height && path->index[level] + 1 == path->node[level]->count) {
        level++;
    }
    if (level >= cursor->map->height) {
        return false;
    }
    path->index[level]++;
    for (; level; level--) {
        path->node[level - 1] = tree_entries(path->node[level], level)[path->index[level]].child;
        path->index[level - 1] = 0;
    }
    return true;
}

bool range_cursor_next(struct range_cursor *cursor, uint64_t last, struct range_run *run)
{
    struct range_path *path = &cursor->path;

    if (!cursor->map->height || (path->index[0] == path->node[0]->count && !next_leaf(cursor)) ||
        path_first(path) > last) {
        return false;
    }
    *run = tree_run(path->node[0], path->index[0]++);
    return true;
}

/* ---- changing ---- */

static bool is_run(const struct range_run *run)
{
    uint64_t end = run->target + (run->last - run->first);

    return run->first <= run->last && (run->tag & RANGE_NO_TARGET || end >= run->target);
}

int range_map_insert(struct range_map *map, const struct range_run *run)
{
    struct range_run kept = *run;
    struct range_path path;
    int error;

    if (!is_run(run)) {
        return -EINVAL;
    }
    kept.target = range_run_target(run, run->first);
    tree_seek(map, run->first, &path);
    if (tree_at_run(map, &path) && path_first(&path) <= run->last) {
        return -EEXIST;
    }
    error = tree_prepare(map, &path);
    if (!error) {
        tree_change_begin(map);
        tree_insert(map, &path, &kept);
        tree_change_end(map);
        tree_changed(map);
    }
    return error;
}

/* Removes the run at the path. */
static void remove_run(struct range_map *map, struct range_path *path)
{
    tree_change_begin(map);
    tree_remove(map, path);
    tree_change_end(map);
    tree_changed(map);
}

int range_map_erase(struct range_map *map, uint64_t first, uint64_t last, struct range_run *erased)
{
    struct range_path path;
    struct range_run run;

    tree_seek(map, first, &path);
    if (!tree_at_run(map, &path)) {
        return -ENOENT;
    }
    run = tree_run(path.node[0], path.index[0]);
    if (run.first != first || run.last != last) {
        return -ENOENT;
    }
    if (erased) {
        *erased = run;
    }
    remove_run(map, &path);
    return 0;
}

int range_map_erase_run(struct range_map *map, const struct range_run *run)
{
    struct range_path path;
    struct range_run there;

    tree_seek(map, run->first, &path);
    if (!tree_at_run(map, &path)) {
        return -ENOENT;
    }
    there = tree_run(path.node[0], path.index[0]);
    if ((there.first ^ run->first) | (there.last ^ run->last) | (there.target ^ run->target) |
        (there.tag ^ run->tag)) {
        return -ENOENT;
    }
    remove_run(map, &path);
    return 0;
}

/* Whether the run in which a range ends, where there is one, ends there, too. */
static bool ends_whole(const struct range_map *map, uint64_t last)
{
    struct range_run run;

    return !range_map_find(map, last, &run) || run.last == last;
}

/* How many runs of the path's leaf end at `last` or below, from the path's on. */
static unsigned runs_up_to(const struct range_path *path, uint64_t last)
{
    const struct range_node *leaf = path->node[0];
    unsigned end = path->index[0];

    while (end < leaf->count && leaf->last[end] <= last) {
        end++;
    }
    return end - path->index[0];
}

/* Removes so many runs of the path's leaf. */
static void remove_runs(struct range_map *map, struct range_path *path, unsigned count,
                        struct range_erased *erased)
{
    uint64_t last = path->node[0]->last[path->index[0] + count - 1];

    erased->last = last > erased->last ? last : erased->last;
    erased->count += count;
    tree_change_begin(map);
    if (count == 1) {
        tree_remove(map, path);
    } else {
        tree_remove_some(map, path, count);
    }
    tree_change_end(map);
    tree_changed(map);
}

/* Whether a seek went to a leaf of which all ends at `last` or below. */
static bool at_whole_leaf(const struct range_map *map, const struct range_path *path, uint64_t last)
{
    return tree_at_run(map, path) && !path->index[0] &&
           path->node[0]->last[path->node[0]->count - 1] <= last;
}

/*
 * Removes the leaves that are whole inside, behind that of `begin`, where a run begins: those
 * beside them stay as they are, and are not filled up in vain.
 */
static void remove_leaves(struct range_map *map, uint64_t begin, uint64_t last,
                          struct range_erased *erased)
{
    struct range_path path;
    uint64_t from;

    tree_seek(map, begin, &path);
    from = path.node[0]->last[path.node[0]->count - 1];
    while (from < last) {
        tree_seek(map, from + 1, &path);
        if (!at_whole_leaf(map, &path, last)) {
            return;
        }
        remove_runs(map, &path, (unsigned)path.node[0]->count, erased);
    }
}

/*
 * Removes the run at the path, which begins at `begin`, and what comes after it up to `last`, which
 * no run reaches over.
 */
static void erase_up_to(struct range_map *map, struct range_path *path, uint64_t begin,
                        uint64_t last, struct range_erased *erased)
{
    if (path->node[0]->last[path->node[0]->count - 1] < last) {
        remove_leaves(map, begin, last, erased);
        tree_seek(map, begin, path);
    }
    do {
        remove_runs(map, path, runs_up_to(path, last), erased);
        if (erased->last == last) {
            return;
        }
        tree_seek(map, begin, path);
    } while (tree_at_run(map, path) && path_first(path) <= last);
}

int range_map_erase_inside(struct range_map *map, uint64_t first, uint64_t last,
                           struct range_erased *erased)
{
    struct range_path path;
    uint64_t begin;
    uint64_t end;

    *erased = (struct range_erased){0};
    if (first > last) {
        return -EINVAL;
    }
    tree_seek(map, first, &path);
    if (!tree_at_run(map, &path)) {
        return 0;
    }
    begin = path_first(&path);
    if (begin > last) {
        return 0;
    }
    end = path.node[0]->last[path.index[0]];
    if (begin < first || end > last || (end < last && !ends_whole(map, last))) {
        return -ERANGE;
    }
    erased->first = begin;
    erase_up_to(map, &path, begin, last, erased);
    return 0;
}

int range_map_retag(struct range_map *map, uint64_t first, uint64_t last, uint64_t tag)
{
    struct range_path path;
    struct range_entry *entry;

    tree_seek(map, first, &path);
    if (!tree_at_run(map, &path) || path_first(&path) != first ||
        path.node[0]->last[path.index[0]] != last) {
        return -ENOENT;
    }
    entry = &tree_entries(path.node[0], 0)[path.index[0]];
    if ((entry->tag ^ tag) & RANGE_NO_TARGET) {
        return -EINVAL;
    }
    tree_change_begin(map);
    entry->tag = tag;
    tree_change_end(map);
    return 0;
}

/* Gives the run at the path other borders, inside its own. */
static void shorten(struct range_map *map, const struct range_path *path, uint64_t first,
                    uint64_t last)
{
    struct range_node *leaf = path->node[0];
    struct range_run run = tree_run(leaf, path->index[0]);

    tree_is_changing(map);
    range_run_clip(&run, first, last);
    tree_entries(leaf, 0)[path->index[0]].first = run.first;
    tree_entries(leaf, 0)[path->index[0]].target = run.target;
    leaf->last[path->index[0]] = run.last;
    tree_refresh(map, path);
}

/* Makes two runs of the one at the path: up to `head_last`, and from `tail_first` on. */
static int divide(struct range_map *map, struct range_path *path, uint64_t head_last,
                  uint64_t tail_first)
{
    struct range_run tail = tree_run(path->node[0], path->index[0]);
    int error = tree_prepare(map, path);

    if (error) {
        return error;
    }
    shorten(map, path, tail.first, head_last);
    range_run_clip(&tail, tail_first, tail.last);
    path->index[0]++;
    tree_insert(map, path, &tail);
    return 0;
}

int range_map_split(struct range_map *map, uint64_t address)
{
    struct range_path path;
    uint64_t first;
    int error;

    tree_seek(map, address, &path);
    if (!tree_at_run(map, &path)) {
        return -ENOENT;
    }
    first = path_first(&path);
    if (first >= address) {
        return first == address ? 0 : -ENOENT;
    }
    tree_change_begin(map);
    error = divide(map, &path, address - 1, address);
    tree_change_end(map);
    tree_changed(map);
    return error;
}

/* Takes [first, last] away from the run at the path, which meets it. */
static int cut_run(struct range_map *map, struct range_path *path, uint64_t first, uint64_t last)
{
    struct range_run run = tree_run(path->node[0], path->index[0]);

    if (run.first < first && run.last > last) {
        return divide(map, path, first - 1, last + 1);
    }
    if (run.first < first) {
        shorten(map, path, run.first, first - 1);
    } else if (run.last > last) {
        shorten(map, path, last + 1, run.last);
    } else {
        tree_remove(map, path);
    }
    return 0;
}

int range_map_cut(struct range_map *map, uint64_t first, uint64_t last)
{
    int error = first > last ? -EINVAL : 0;

    while (!error) {
        struct range_path path;

        tree_seek(map, first, &path);
        if (!tree_at_run(map, &path) || path_first(&path) > last) {
            return 0;
        }
        /* Fails only where one run crosses both borders, so at once. */
        tree_change_begin(map);
        error = cut_run(map, &path, first, last);
        tree_change_end(map);
        tree_changed(map);
    }
    return error;
}

static bool continues(const struct range_run *left, const struct range_run *right)
{
    if (left->tag != right->tag || left->last == UINT64_MAX || left->last + 1 != right->first) {
        return false;
    }
    if (left->tag & RANGE_NO_TARGET) {
        return true;
    }
    /* The left one ends at UINT64_MAX at most: a right one at 0 would have to wrap. */
    return right->target && right->target == range_run_target(left, right->first);
}

/* Two runs of the map become one. */
static void join(struct range_map *map, const struct range_run *left, const struct range_run *right)
{
    struct range_path path;

    tree_change_begin(map);
    tree_seek(map, right->first, &path);
    tree_remove(map, &path);
    tree_seek(map, left->first, &path);
    path.node[0]->last[path.index[0]] = right->last;
    tree_refresh(map, &path);
    tree_change_end(map);
    tree_changed(map);
}

bool range_map_merge(struct range_map *map, uint64_t address)
{
    struct range_run run;
    struct range_run other;
    bool changed = false;

    if (!range_map_find(map, address, &run)) {
        return false;
    }
    if (run.last != UINT64_MAX && range_map_find(map, run.last + 1, &other) &&
        continues(&run, &other)) {
        join(map, &run, &other);
        run.last = other.last;
        changed = true;
    }
    if (run.first && range_map_find(map, run.first - 1, &other) && continues(&other, &run)) {
        join(map, &other, &run);
        changed = true;
    }
    return changed;
}
