/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A mirror for tests: keeps the exact set of its mappings and checks every call against the rules
 * of viommu/notify.h. It fails (recorder.fail) when one is broken.
 *
 * Vocabulary. A *mapping* is what one MAP made. A *period* is what lies between recorder_begin and
 * recorder_end: usually one invalidation from submission to completion. In a period each mapping
 * that was taken away is *gone*; its pages that come back as they were are *interrupted*, and at
 * the end of the period a gone mapping without any changed page is a mistake, unless the mirror is
 * near its limit of mappings. (A mapping of a POW2 mirror is a block of what the library takes for
 * one mapping: there a changed page in a neighbour that follows counts, too.)
 *
 * Threads: the caller sees to it that one thread at a time is in here.
 */
#ifndef VIOMMU_SUPPORT_RECORDER_H
#define VIOMMU_SUPPORT_RECORDER_H

#include <viommu/viommu.h>

#define RECORDER_SLOTS 16
#define RECORDER_ALLOWED 4

/* Guest memory as it is now, and, while a change of it is under way, as it was, too. */
struct recorder_memory {
    unsigned count;
    struct viommu_memory_slot slots[RECORDER_SLOTS];
};

struct recorder_mapping {
    uint64_t first;
    uint64_t last;
    uint64_t gpa;
    uint8_t *host;
    uint32_t perm;
};

struct recorder_list {
    struct recorder_mapping *list;
    size_t count;
    size_t room;
};

struct recorder_gone {
    struct recorder_mapping was;
    uint64_t same; /* pages that came back as they were */
    size_t at;     /* index of the call that took it away, in `told` */
    size_t back;   /* and of the last that brought a page back */
};

struct recorder {
    struct viommu_subscription what; /* give it to viommu_device_subscribe */
    struct viommu_range allowed[RECORDER_ALLOWED];
    const struct recorder_memory *memory;
    uint16_t requester; /* of the device */
    bool without_periods; /* only the calls are checked: cheaper */
    const char *trace;  /* prints every call, with this name in front; or NULL */

    /*
     * What a call is answered with; NULL: 0. 0, VIOMMU_PENDING (then recorder_complete follows) or
     * a negative errno.
     */
    int (*answer)(void *opaque, const struct viommu_change *change);
    int (*answer_fence)(void *opaque);
    /*
     * Whether a mapping that was taken away and came back as it was may have been something else in
     * between; NULL: no.
     */
    bool (*excuse)(void *opaque, const struct recorder_mapping *was);
    /* A rule is broken; does not return. */
    void (*fail)(void *opaque, const char *text);
    void *opaque;

    struct recorder_list mapped; /* sorted */
    uint64_t pages;              /* mapped */
    bool fenced;
    bool failed;      /* a call failed, ever */
    bool outstanding; /* a call was answered with VIOMMU_PENDING */
    struct viommu_change pending;

    uint64_t calls[32];  /* by kind; [0]: fence */
    uint64_t call_count; /* of those that change something */
    uint32_t causes;     /* of this period: 1 << enum viommu_cause */
    struct recorder_gone *gone;
    size_t gone_count;
    size_t gone_room;
    uint64_t interrupted;  /* pages, in this period */
    uint64_t rewritten;    /* pages that came back otherwise, and REPLACEs */
    bool near_limit;       /* at some time of it */
    bool excused;          /* something of it was */
    struct recorder_list made; /* in this period, in order */
    struct viommu_range *told; /* of all calls of this period */
    size_t told_count;
    size_t told_room;
};

/* What to subscribe to: `what` without functions and opaque; `allowed` is copied. */
void recorder_init(struct recorder *recorder, const struct viommu_subscription *what);
void recorder_fini(struct recorder *recorder);

void recorder_begin(struct recorder *recorder);

/* Checks the period. `one_sync`: all that came, came in one sync. Returns pages interrupted. */
uint64_t recorder_end(struct recorder *recorder, bool one_sync);

/* The answer to the outstanding call: 0, then it is done, or a negative errno. */
void recorder_complete(struct recorder *recorder, int status);

/* Forgets the outstanding call, and drops everything: what a fence does. */
void recorder_drop(struct recorder *recorder);

/* The mapping that holds an address or, where there is none, the next one; or NULL. */
const struct recorder_mapping *recorder_find(const struct recorder *recorder, uint64_t address);

/* Fails when something leads to this host memory. */
void recorder_no_host(struct recorder *recorder, const void *host, size_t size);

#endif
