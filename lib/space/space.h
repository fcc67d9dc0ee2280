/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Spaces as other rooms use them: an access made piece by piece, and drains of a bus.
 *
 * A *step* is one piece of an access whose address is a translation that the caller has looked up
 * in a section of its own (another epoch's). The caller's section is kept until the piece is done,
 * or a callback is about to run: so what was translated is not used after an invalidation of it is
 * complete, and a callback holds no invalidation back.
 */
#ifndef VIOMMU_SPACE_SPACE_H
#define VIOMMU_SPACE_SPACE_H

#include "base/epoch.h"

#include <viommu/space.h>

/* Times that a refusal is taken back in one access. */
#define SPACE_REFUSALS_MAX 16u

struct space_step {
    struct viommu_space *space;
    uint64_t address;
    void *buf;
    size_t len;  /* 1 or more; what was done of it, where the step succeeds */
    bool write;
    struct viommu_bus_attrs attrs;
    const void *owner;     /* of the IOMMU that was crossed before: its registers are refused */
    struct epoch *section; /* open; it is left in any case */
};

/*
 * Makes one piece. Returns 0, or an error of an access; -EAGAIN: nothing was done, an IOMMU allows
 * by now what it had refused: translate again, SPACE_REFUSALS_MAX times at most.
 */
int space_step(struct space_step *step);

/* What it was configured with. */
void *region_opaque(const struct viommu_region *region);
struct viommu_bus *space_bus(const struct viommu_space *space);

/* Whether this thread may call viommu_bus_wait: it is in no callback, section, or running CPU. */
bool bus_may_wait(void);

/*
 * A drain of the bus: begun after viommu_region_iommu_changed, it is over when no access and no CPU
 * uses what was so before. CPUs are asked for a safe point each time. Never blocks.
 */
uint64_t bus_drain_begin(struct viommu_bus *bus);
bool bus_drained(struct viommu_bus *bus, uint64_t target);

#endif
