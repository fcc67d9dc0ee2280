/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mirror.h - a small guest inside the test guest: the library's own VT-d unit, memory and page
 * tables, and one real device whose real mappings follow them.
 *
 * Vocabulary.  "Inner": of the guest in this process; its driver's side is tests/support/guest.h.
 * "Host": the kernel that this program runs on (host.h).  "Call": what the backend was told; all
 * are counted, the first MIRROR_CALLS since mirror_forget() are kept.
 *
 * Inner memory is four pieces of ours:
 *   0          RAM: to 4 MiB tables and small pages (guest_page), then POOL and BIG
 *   WINDOW_IOVA (iova.h)  the station's window, mapped one to one in the tables
 *   PLUG       memory that goes and comes
 * One thread only.
 */
#ifndef VIOMMU_GUEST_MIRROR_H
#define VIOMMU_GUEST_MIRROR_H

#include "device_checks.h"
#include "host.h"
#include "../support/guest.h"

enum {
    MIRROR_CALLS = 1024,
    MIRROR_DOMAIN = 7,
    MIRROR_EVENT_KINDS = 32,
    RAM_SIZE = 12 << 20,
    POOL = 4 << 20,             /* pages that scattered mappings share */
    POOL_PAGES = 1021,          /* a prime: walked with a stride, neighbours are never beside */
    BIG = 8 << 20,              /* 2 MiB in one piece */
    WINDOW_SIZE = 64 << 10,
    PLUG = 256 << 20,
    PLUG_SIZE = 64 << 10,
};

struct mirror_call {
    enum viommu_change_kind kind;
    uint64_t first;
    uint64_t last;
    uint64_t gpa;
    uint32_t perm;
    int answer;
};

struct mirror {
    struct station station;     /* edu and window only */
    struct host host;
    struct guest guest;
    struct viommu_memory *memory;
    uint8_t *ram;
    uint8_t *window;            /* WINDOW_SIZE */
    uint8_t *plug;
    uint64_t table;             /* the device's top table, 4 levels */
    struct viommu_device *device;
    struct viommu_subscriber *subscriber;
    struct viommu_subscription backend; /* to which calls are handed on */

    struct mirror_call calls[MIRROR_CALLS];
    unsigned maps;
    unsigned unmaps;
    unsigned refused;           /* of both, calls that failed */
    unsigned fences;
    unsigned events[MIRROR_EVENT_KINDS];
    struct viommu_event last_event[MIRROR_EVENT_KINDS];
};

/* Open all but the subscription; what fails is reported.  limit: see host_attach(). */
bool mirror_open(struct mirror *m, struct edu *edu, bool iommufd, unsigned limit);
void mirror_close(struct mirror *m);

/*
 * Subscribe the backend, and wait until it has all that is mapped.  0s: as many mappings as the
 * backend says, and as many differences as the library remembers by itself.
 */
bool mirror_subscribe(struct mirror *m, uint64_t mappings_max, uint32_t differences_max);
bool mirror_unsubscribe(struct mirror *m);

/* Forget calls and events so far. */
void mirror_forget(struct mirror *m);

/* Put memory at PLUG, or take it away, and wait until that is complete. */
bool mirror_plug(struct mirror *m, bool in);

/*
 * Write entries of the inner tables.  Nobody is told.  `perm` is SPEC_R and SPEC_W; a big page has
 * 2 MiB and both.  mirror_split() puts a table of small pages with the same targets in its place.
 */
void mirror_map(struct mirror *m, uint64_t iova, uint64_t gpa, uint32_t perm);
void mirror_map_big(struct mirror *m, uint64_t iova, uint64_t gpa);
void mirror_split(struct mirror *m, uint64_t iova, uint64_t gpa);
void mirror_unmap(struct mirror *m, uint64_t iova);

/* Invalidate 2^order pages, or all of the domain, and wait until the unit says that it is done. */
void mirror_invalidate(struct mirror *m, uint64_t iova, unsigned order);
void mirror_invalidate_domain(struct mirror *m);

/* Let the unit work until this many mappings are missing, or the seconds are over. */
bool mirror_wait_differences(struct mirror *m, uint64_t differences, unsigned seconds);

struct viommu_subscriber_status mirror_status(struct mirror *m);

/* Did calls of this kind meet the range?  How many, and how many of all. */
unsigned mirror_calls_at(const struct mirror *m, enum viommu_change_kind kind, uint64_t first,
                         uint64_t last);
static inline unsigned mirror_calls(const struct mirror *m)
{
    return m->maps + m->unmaps;
}

/* Print the calls that are kept, for a failure. */
void mirror_show_calls(const struct mirror *m);

/* The device reads a page, shows it in the window, and writes it back: is it this memory? */
bool mirror_reaches(struct mirror *m, uint64_t iova, uint8_t *memory);

/* Where an inner address lies. */
static inline uint8_t *mirror_host(struct mirror *m, uint64_t gpa)
{
    return m->ram + gpa;
}

#endif
