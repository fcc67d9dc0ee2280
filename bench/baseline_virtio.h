/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The baseline of the rows `virtio-*`: a virtio-iommu the way common systems write it.
 *
 * A mutex around everything; domains, endpoints and the mappings of a domain in GTrees, which are
 * AVL trees. A mapping's key is an interval, and what overlaps is equal to the comparison function;
 * key and value are allocated one by one. MAP looks for an overlap, then inserts. UNMAP looks for
 * what overlaps and removes it, again and again, until nothing does. A translation looks the
 * endpoint up, then the address.
 *
 * It is kept as fast as that design allows, and does the same work as the library for its guest:
 * requests are copied, decoded and checked (flags, alignment, input range, guest addresses, the
 * interrupt window), and answered with a status. It tells nobody of an UNMAP, and waits for nobody.
 */
#ifndef VIOMMU_BENCH_BASELINE_VIRTIO_H
#define VIOMMU_BENCH_BASELINE_VIRTIO_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct baseline_virtio {
    GMutex lock;
    GTree *domains;   /* by id */
    GTree *endpoints; /* by id */
    uint64_t granule; /* bytes - 1 */
    uint64_t input_last;
    uint64_t host_last;
    uint64_t mappings;
    uint64_t mappings_max;
};

void baseline_virtio_init(struct baseline_virtio *baseline, uint64_t mappings_max);
void baseline_virtio_fini(struct baseline_virtio *baseline);

/* ATTACH, MAP or UNMAP. Returns how many bytes of `out` hold the answer: 4, or 0. */
size_t baseline_virtio_request(struct baseline_virtio *baseline, const void *in, size_t in_size,
                               void *out, size_t out_size);

/* Where an endpoint's address leads. False: nowhere, or not with this permission. */
bool baseline_virtio_translate(struct baseline_virtio *baseline, uint32_t endpoint, uint64_t iova,
                               uint32_t perm, uint64_t *gpa);

#endif
