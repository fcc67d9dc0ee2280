/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A host that has nothing left: no descriptor, or (failing.c, in targets that are linked so) no
 * memory.
 */
#ifndef VIOMMU_FUZZ_FAILING_H
#define VIOMMU_FUZZ_FAILING_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

/* The limit as it was found. */
static inline const struct rlimit *failing_usual(void)
{
    static struct rlimit usual;

    if (usual.rlim_cur == 0 && getrlimit(RLIMIT_NOFILE, &usual) < 0) {
        abort();
    }
    return &usual;
}

/* From now on there are so many descriptors left; `fd` is any that is open. */
static inline void failing_starve(int fd, unsigned left)
{
    struct rlimit limit = *failing_usual();
    int lowest = fcntl(fd, F_DUPFD, 0);

    if (lowest < 0 || close(lowest) < 0) {
        abort();
    }
    limit.rlim_cur = (rlim_t)lowest + left;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0) {
        abort();
    }
}

/* The n-th allocation from now fails, once; 0: none does. */
void failing_alloc_at(unsigned n);

/* As many as ever. */
static inline void failing_feed(void)
{
    if (setrlimit(RLIMIT_NOFILE, failing_usual()) < 0) {
        abort();
    }
}

#endif
