/* SPDX-License-Identifier: BSD-2-Clause */
/* Calibration, rounds, medians. */
#include "measure.h"

#include <stdlib.h>
#include <time.h>

/* One row under measurement. */
struct measurement {
    const struct row *row;
    const struct measure_options *options;
    void *state;
    uint64_t step;
    unsigned rounds;
    uint64_t count[BENCH_SIDES_MAX]; /* operations of one run */
    double ns[BENCH_ROUNDS_MAX][BENCH_SIDES_MAX];
};

static uint64_t clock_read(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

uint64_t bench_now(void)
{
    return clock_read(CLOCK_MONOTONIC);
}

bool goal_met(const struct ratio *ratio, double value)
{
    if (ratio->goal == 0) {
        return true;
    }
    return ratio->kind == RATIO_SPEEDUP ? value >= ratio->goal : value <= ratio->goal;
}

bool figure_met(const struct figure *figure)
{
    return figure->goal == 0 || figure->value <= figure->goal;
}

/*
 * Runs a side once. Returns nanoseconds (at least 1), or 0 when it failed or left a wrong result.
 */
static uint64_t run_once(const struct measurement *m, unsigned i, uint64_t count)
{
    const struct side *side = &m->row->sides[i];
    clockid_t clock = m->row->wall ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID;
    void *state = m->state;
    uint64_t start;
    uint64_t time;
    bool ok;

    if (side->begin) {
        side->begin(state);
    }
    start = clock_read(clock);
    ok = side->run(state, count);
    time = clock_read(clock) - start;
    if (side->end) {
        side->end(state);
    }
    if (!ok || (side->check && !side->check(state))) {
        return 0;
    }
    return time ? time : 1;
}

static uint64_t round_up(uint64_t count, uint64_t step)
{
    return (count + step - 1) / step * step;
}

/* How many operations fill a round. The runs that find out are the warm-up. */
static bool calibrate(struct measurement *m, unsigned side)
{
    uint64_t step = m->step;
    uint64_t count = step;
    uint64_t time;

    for (;;) {
        time = run_once(m, side, count);
        if (!time) {
            return false;
        }
        if (m->row->single) {
            m->count[side] = step;
            return true;
        }
        if (time >= m->options->round_ns / 4) {
            break;
        }
        count = round_up(count * 2, step);
    }
    count = (uint64_t)((double)count * (double)m->options->round_ns / (double)time);
    m->count[side] = round_up(count ? count : 1, step);
    return true;
}

/* Each side once. Every round begins with another one. */
static bool run_round(struct measurement *m, unsigned round)
{
    unsigned n = m->row->side_count;

    for (unsigned i = 0; i < n; i++) {
        unsigned side = (round + i) % n;
        uint64_t time = run_once(m, side, m->count[side]);

        if (!time) {
            return false;
        }
        m->ns[round][side] = (double)time / (double)m->count[side];
    }
    return true;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

static struct ratio_result spread(double *values, unsigned count)
{
    qsort(values, count, sizeof(*values), compare);
    return (struct ratio_result){
        .median = values[count / 2],
        .low = values[count / 4],
        .high = values[count - 1 - count / 4],
    };
}

static struct ratio_result ratio_of(const struct measurement *m, const struct ratio *ratio)
{
    double values[BENCH_ROUNDS_MAX];

    for (unsigned i = 0; i < m->rounds; i++) {
        double subject = m->ns[i][ratio->subject];
        double baseline = m->ns[i][ratio->baseline];

        values[i] = ratio->kind == RATIO_SPEEDUP ? baseline / subject : subject / baseline;
    }
    return spread(values, m->rounds);
}

static double median_ns(const struct measurement *m, unsigned side)
{
    double values[BENCH_ROUNDS_MAX];

    for (unsigned i = 0; i < m->rounds; i++) {
        values[i] = m->ns[i][side];
    }
    return spread(values, m->rounds).median;
}

/* False: what the row counted was wrong. */
static bool count_figures(const struct measurement *m, struct result *result)
{
    int count = m->row->figures ? m->row->figures(m->state, result->figures) : 0;

    result->figure_count = count > 0 ? (unsigned)count : 0;
    return count >= 0;
}

static const char *summarize(const struct measurement *m, struct result *result)
{
    const struct row *row = m->row;

    for (unsigned i = 0; i < row->side_count; i++) {
        result->ns[i] = median_ns(m, i);
    }
    for (unsigned i = 0; i < row->ratio_count; i++) {
        result->ratios[i] = ratio_of(m, &row->ratios[i]);
    }
    result->has_note = row->note && row->note(m->state, result->note, sizeof(result->note));
    return count_figures(m, result) ? NULL : "its figures";
}

static const char *run_all(struct measurement *m)
{
    for (unsigned i = 0; i < m->row->side_count; i++) {
        if (!calibrate(m, i)) {
            return m->row->sides[i].name;
        }
    }
    for (unsigned i = 0; i < m->rounds; i++) {
        if (!run_round(m, i)) {
            return "a side failed, or its result was wrong";
        }
    }
    return NULL;
}

const char *measure_row(const struct row *row, const struct measure_options *options,
                        struct result *result)
{
    struct measurement m = {.row = row, .options = options};
    const char *broken;

    *result = (struct result){.has_note = false};
    m.state = row->setup(options->quick);
    if (!m.state) {
        return "it could not be set up";
    }
    m.step = row->step_of ? row->step_of(m.state) : row->step;
    m.step = m.step ? m.step : 1;
    m.rounds = row->rounds && row->rounds < options->rounds ? row->rounds : options->rounds;
    broken = run_all(&m);
    if (!broken) {
        broken = summarize(&m, result);
    }
    row->teardown(m.state);
    return broken;
}
