/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A subscriber of the scenario, as the rooms for subscribers and for mirrors see it.
 *
 * What it hears is kept until an operation takes it. Its answers are set in advance: ok, pending,
 * or a failure, for all that comes or for the n-th call from now; what it answered pending it
 * completes later.
 */
#ifndef VIOMMU_TOOLS_RUN_SUBSCRIBER_H
#define VIOMMU_TOOLS_RUN_SUBSCRIBER_H

#include "notify.h"

struct mirror;

/* Some calls fail: of `kinds`, after `skip` of them, `times` in a row. */
struct failure {
    uint32_t kinds;
    uint64_t skip;
    uint64_t times;
    int answer;
};

struct subscriber {
    struct subscriber *next;
    struct run *run;
    char *name;
    struct device *device;
    struct viommu_subscriber *handle;
    struct viommu_subscriber *copied; /* in another instance; see subscribers_copy */
    struct viommu_subscription subscription;
    struct mirror *mirror; /* NULL: a cache */
    int answer;
    int fence_answer;
    struct failure failure;
    bool touch;
    uint64_t touch_iova;
    unsigned heard;
    struct messages changes; /* not yet taken */
    struct messages pending; /* not yet completed */
};

/* subscriber.c: the subscriber that the argument names; NULL with an error said. */
struct subscriber *arg_subscriber(struct run *run);
const char *change_word(unsigned kind);

/* mirror.c. The arguments of `subscribe` that are for mirrors. */
#define MIRROR_ARGUMENTS                                                                           \
    "[mirror!] [allowed=] [mappings-max=] [differences-max=] [page-sizes=] [unmap-spans!] "        \
    "[replace!] [skips!] [device-tlb!] [trace=]"

/*
 * Completes the subscription of a mirror from the arguments. Returns false with an error said.
 * subscriber->mirror is the subscriber's from then on, even when subscribing fails.
 */
bool mirror_create(struct run *run, struct subscriber *subscriber,
                   struct viommu_subscription *subscription);
/* What it holds is let go of: it goes on with nothing mapped. */
void mirror_begin_anew(struct mirror *mirror);
/* NULL is accepted. */
void mirror_destroy(struct mirror *mirror);
/* Judges a change that comes now: what is wrong with it is a violation. False: leave it. */
bool mirror_judge(struct subscriber *subscriber, const struct viommu_change *change);
/* The change is done in the host. */
void mirror_apply(struct subscriber *subscriber, const struct viommu_change *change);
/* A sentence about a mirror, that makes the run fail. */
void mirror_violation(const struct subscriber *subscriber, const char *what, uint64_t first,
                      uint64_t last);

#endif
