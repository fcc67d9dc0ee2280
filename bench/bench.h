/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The bench: what is measured, and against what.
 *
 * Vocabulary. A *row* is one piece of work. Its *sides* are the ways to do it: the library's, and
 * baselines. A *ratio* compares two sides of one row, measured in the same run and in turns, so
 * that what the machine does meanwhile falls on both. A *goal* is for a ratio, never for a time. A
 * side's *work* is a number of *operations*; it also leaves something that can be checked, and is,
 * outside the timed part: a fast wrong answer is an error. A *figure* is what is counted and not
 * timed: bytes, calls.
 *
 * Rows are constant tables; their state is made before a row is measured and freed after it.
 */
#ifndef VIOMMU_BENCH_BENCH_H
#define VIOMMU_BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_SIDES_MAX 8
#define BENCH_RATIOS_MAX 6
#define BENCH_ROUNDS_MAX 32
#define BENCH_FIGURES_MAX 16
#define BENCH_NOTE_MAX 160

struct side {
    const char *name;
    void (*begin)(void *state); /* before each timed part, or NULL */
    /* The timed part: `count` operations; false: it failed. */
    bool (*run)(void *state, uint64_t count);
    void (*end)(void *state);    /* after each timed part, or NULL */
    bool (*check)(void *state);  /* whether what the last run left is right, or NULL */
};

enum ratio_kind {
    RATIO_SPEEDUP, /* baseline / subject: more is better */
    RATIO_COST,    /* subject / baseline: less is better */
};

struct ratio {
    unsigned subject; /* indexes of sides */
    unsigned baseline;
    enum ratio_kind kind;
    double goal; /* at least (speed-up) or at most (cost); 0: only recorded */
};

struct figure {
    char name[64];
    const char *unit;
    double value;
    double goal; /* at most; 0: only recorded */
};

struct row {
    const char *name;
    const char *text; /* what is measured, in a line */
    const char *unit; /* one operation */
    uint64_t step;    /* runs are multiples of it; 0 is 1 */
    /* The same where only the state knows it, or NULL. */
    uint64_t (*step_of)(void *state);
    bool single;      /* a run is one step, however short: `begin` is needed before each */
    unsigned rounds;  /* at most so many, where a round takes long; 0: as many as are asked for */
    bool wall;        /* time by the clock on the wall: several threads do the work */
    /* `quick`: no figures are wanted, only that it works. NULL when it failed. */
    void *(*setup)(bool quick);
    void (*teardown)(void *state);
    /* More to say about the runs, after them, or NULL. Returns whether there is something. */
    bool (*note)(void *state, char *text, size_t size);
    /*
     * Fills in figures, BENCH_FIGURES_MAX at most, after the runs; NULL: there are none. Returns
     * how many, or -1 when something was wrong.
     */
    int (*figures)(void *state, struct figure *figures);
    struct side sides[BENCH_SIDES_MAX];
    struct ratio ratios[BENCH_RATIOS_MAX];
    unsigned side_count;
    unsigned ratio_count;
};

/* Every file of rows offers some. */
struct row_list {
    const struct row *rows;
    unsigned count;
};
extern const struct row_list translate_rows;
extern const struct row_list threads_rows;
extern const struct row_list walk_rows;
extern const struct row_list section_rows;
extern const struct row_list invalidate_rows;
extern const struct row_list disturbed_rows;
extern const struct row_list range_rows;
extern const struct row_list sync_rows;
extern const struct row_list sync_page_rows;
extern const struct row_list sync_first_rows;
extern const struct row_list watch_rows;
extern const struct row_list space_rows;
extern const struct row_list virtio_rows;
extern const struct row_list virtio_translate_rows;
extern const struct row_list virtio_queue_rows; /* where the server is built */
extern const struct row_list iova_rows;
extern const struct row_list pv_rows;
extern const struct row_list vfio_user_rows;

#endif
