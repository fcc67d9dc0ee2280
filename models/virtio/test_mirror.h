/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A mirror for tests of this room. It keeps the exact set of its mappings, and aborts at a call
 * that breaks a rule of viommu/notify.h. What it was told since it was last asked is a line of
 * text: "+first-last>gpa" and permissions for a MAP, "-first-last" for an UNMAP, "!" for its fence;
 * behind a call that failed there is a ?, behind one to be answered later an &.
 */
#ifndef VIOMMU_VIRTIO_TEST_MIRROR_H
#define VIOMMU_VIRTIO_TEST_MIRROR_H

#include "virtio/test_virtio.h"

#include <stdio.h>

#define MIRROR_MAPPINGS 1024u
#define MIRROR_TOLD 8192u

struct held {
    uint64_t first;
    uint64_t last;
    uint64_t gpa;
    uint32_t perm;
};

struct mirror_bed {
    struct viommu_subscriber *subscriber;
    struct viommu_subscription what;
    struct viommu *iommu;
    struct held held[MIRROR_MAPPINGS];
    unsigned count;
    char told[MIRROR_TOLD];
    unsigned calls;
    unsigned fences;
    bool silent; /* nothing is written down */
    /* The call of this kind (0: any) so many from now, 1 being the next, is answered with this. */
    unsigned answer_in;
    int answer;
    enum viommu_change_kind only;
    bool pending;
    struct viommu_change outstanding;
    /* Or who decides. */
    int (*decide)(void *opaque, const struct viommu_change *change);
    void *opaque;
};

static inline void mirror_must(bool holds, const char *text)
{
    if (!holds) {
        fprintf(stderr, "a mirror was told something wrong: %s\n", text);
        abort();
    }
}

static inline void mirror_say(struct mirror_bed *mirror, const char *text)
{
    size_t length = strlen(mirror->told);

    if (!mirror->silent) {
        mirror_must(length + strlen(text) + 2 < MIRROR_TOLD, "too much to write down");
        snprintf(mirror->told + length, MIRROR_TOLD - length, "%s%s", length ? " " : "", text);
    }
}

static inline void mirror_note(struct mirror_bed *mirror, const struct viommu_change *change,
                               int answer)
{
    const char *sign = answer == VIOMMU_PENDING ? "&" : answer ? "?" : "";
    char text[96];

    if (change->kind == VIOMMU_CHANGE_MAP) {
        snprintf(text, sizeof(text), "+%llx-%llx>%llx%s%s%s", (unsigned long long)change->first,
                 (unsigned long long)change->last, (unsigned long long)change->gpa,
                 change->perm & VIOMMU_READ ? "r" : "", change->perm & VIOMMU_WRITE ? "w" : "",
                 sign);
    } else {
        snprintf(text, sizeof(text), "-%llx-%llx%s", (unsigned long long)change->first,
                 (unsigned long long)change->last, sign);
    }
    mirror_say(mirror, text);
}

/* Does what it was told. */
static inline void mirror_do(struct mirror_bed *mirror, const struct viommu_change *change)
{
    unsigned i = 0;

    if (change->kind == VIOMMU_CHANGE_MAP) {
        mirror_must(mirror->count < MIRROR_MAPPINGS, "too many mappings");
        mirror->held[mirror->count++] =
            (struct held){change->first, change->last, change->gpa, change->perm};
        return;
    }
    while (i < mirror->count && mirror->held[i].first != change->first) {
        i++;
    }
    mirror_must(i < mirror->count && mirror->held[i].last == change->last,
                "an UNMAP of what is not a mapping");
    mirror->held[i] = mirror->held[--mirror->count];
}

static inline void mirror_check(const struct mirror_bed *mirror,
                                const struct viommu_change *change)
{
    uint64_t size = change->last - change->first;

    mirror_must(!mirror->pending, "one call at a time");
    mirror_must(change->kind == VIOMMU_CHANGE_MAP || change->kind == VIOMMU_CHANGE_UNMAP, "kind");
    mirror_must(change->last < 0xfee00000 || change->first > 0xfeefffff, "the interrupt range");
    if (mirror->what.form == VIOMMU_FORM_POW2) {
        mirror_must(!(size & (size + 1)) && !(change->first & size) && !(change->gpa & size),
                    "a block");
    }
    for (unsigned i = 0; change->kind == VIOMMU_CHANGE_MAP && i < mirror->count; i++) {
        mirror_must(mirror->held[i].first > change->last || mirror->held[i].last < change->first,
                    "a MAP over a mapping");
    }
}

static inline int mirror_change(void *opaque, const struct viommu_change *change)
{
    struct mirror_bed *mirror = opaque;
    int answer = mirror->decide ? mirror->decide(mirror->opaque, change) : 0;

    mirror_check(mirror, change);
    mirror->calls++;
    if (mirror->answer_in && (!mirror->only || mirror->only == change->kind) &&
        !--mirror->answer_in) {
        answer = mirror->answer;
    }
    mirror_note(mirror, change, answer);
    if (answer == VIOMMU_PENDING) {
        mirror->pending = true;
        mirror->outstanding = *change;
    } else if (!answer) {
        mirror_do(mirror, change);
    }
    return answer;
}

static inline int mirror_fenced(void *opaque)
{
    struct mirror_bed *mirror = opaque;

    mirror->fences++;
    mirror->count = 0;
    mirror->pending = false;
    mirror_say(mirror, "!");
    return 0;
}

static inline void mirror_prepare(struct mirror_bed *mirror)
{
    *mirror = (struct mirror_bed){
        .what = {
            .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
            .form = VIOMMU_FORM_RANGE,
            .role = VIOMMU_ROLE_MIRROR,
            .change = mirror_change,
            .fence = mirror_fenced,
        },
    };
}

static inline int mirror_subscribe(struct bed *bed, unsigned device, struct mirror_bed *mirror)
{
    mirror->what.opaque = mirror;
    mirror->iommu = bed->iommu;
    return viommu_device_subscribe(bed->devices[device], &mirror->what, &mirror->subscriber);
}

static inline void mirror_begin(struct bed *bed, unsigned device, struct mirror_bed *mirror)
{
    mirror_prepare(mirror);
    assert_int_equal(mirror_subscribe(bed, device, mirror), 0);
    bed_process(bed);
}

static inline void mirror_answers(struct mirror_bed *mirror, unsigned in, int answer,
                                  enum viommu_change_kind only)
{
    mirror->answer_in = in;
    mirror->answer = answer;
    mirror->only = only;
}

/* Answers the call that is outstanding. */
static inline void mirror_complete(struct mirror_bed *mirror, int status)
{
    assert_true(mirror->pending);
    mirror->pending = false;
    if (!status) {
        mirror_do(mirror, &mirror->outstanding);
    }
    assert_int_equal(viommu_change_complete(mirror->iommu, mirror->outstanding.token, status), 0);
}

static inline void mirror_told(struct mirror_bed *mirror, const char *expected)
{
    assert_string_equal(mirror->told, expected);
    mirror->told[0] = 0;
}

static inline struct viommu_subscriber_status mirror_status(const struct mirror_bed *mirror)
{
    struct viommu_subscriber_status status;

    assert_int_equal(viommu_subscriber_status(mirror->subscriber, &status, sizeof(status)), 0);
    return status;
}

/* Lets the request that was just made complete; its status. */
static inline uint8_t bed_finish(struct bed *bed, uint8_t status)
{
    unsigned done = bed->done_count;

    if (status != BED_PENDING) {
        return status;
    }
    bed_process(bed);
    if (bed->done_count == done) {
        return BED_PENDING;
    }
    assert_int_equal(bed->done_count, done + 1);
    assert_int_equal(bed->done[done].token, bed->token);
    bed->done_count = done;
    return bed->done[done].status;
}

#endif
