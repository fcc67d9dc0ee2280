/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Arm's TrustZone memory protection controller (MPC) of CoreLink SIE-200: it stands in front of a
 * memory, and lets secure accesses through to secure blocks and non-secure ones to non-secure
 * blocks, as a table of one bit a block says that secure software writes.
 *
 * It has two regions: the memory as masters see it, an IOMMU region with two attribute indexes; and
 * its registers, of 4 KiB. docs/spaces.md has the registers and what is done where the
 * architecture leaves a choice.
 *
 * Threads: every function may be called from any thread.
 */
#ifndef VIOMMU_TZMPC_H
#define VIOMMU_TZMPC_H

#include <viommu/space.h>

#ifdef __cplusplus
extern "C" {
#endif

struct viommu_tzmpc;

/* Its attribute indexes. An access of which nothing is known is secure. */
enum {
    VIOMMU_TZMPC_SECURE,
    VIOMMU_TZMPC_NON_SECURE,
};

struct viommu_tzmpc_config {
    const char *name;           /* of its regions; may be NULL */
    uint64_t size;              /* bytes of memory: whole blocks, at most 33,554,432 of them */
    unsigned block_bits;        /* a block has 2^block_bits bytes: 5 to 20; 0 is 12 */
    struct viommu_space *space; /* where the memory lies, ... */
    uint64_t address;           /* ... from here on */
    uint32_t base;              /* what masters call its first byte, for INT_INFO1 */
    void *opaque;
    /*
     * The interrupt line changes its level. Called without a lock, on the thread of the access. Two
     * calls of two threads may come in either order: viommu_tzmpc_interrupt says how it stands. May
     * be NULL.
     */
    void (*interrupt)(void *opaque, bool level);
};

/* Creates an MPC, all blocks secure. Returns 0; -EINVAL, also for a space of another bus;
   -ENOMEM. */
int viommu_tzmpc_create(struct viommu_bus *bus, const struct viommu_tzmpc_config *config,
                        struct viommu_tzmpc **out);

/*
 * Destroys its regions (viommu_region_destroy), and the MPC itself when nobody uses them any more:
 * until a commit and viommu_bus_wait it may still be accessed, and call `interrupt`. NULL is
 * accepted.
 */
void viommu_tzmpc_destroy(struct viommu_tzmpc *mpc);

/* The memory as masters see it, and the registers: to be put into containers. */
struct viommu_region *viommu_tzmpc_memory(struct viommu_tzmpc *mpc);
struct viommu_region *viommu_tzmpc_registers(struct viommu_tzmpc *mpc);

/* The reset line: all blocks secure, unlocked, no interrupt. Tells CPUs; does not wait for them. */
void viommu_tzmpc_reset(struct viommu_tzmpc *mpc);

/* The level of the interrupt line. */
bool viommu_tzmpc_interrupt(struct viommu_tzmpc *mpc);

/*
 * Saved state: the registers and the table. *data is given back by viommu_save_free
 * (viommu/save.h). Returns 0 or -ENOMEM.
 */
int viommu_tzmpc_save(struct viommu_tzmpc *mpc, void **data, size_t *size);

/*
 * Brings an MPC to a saved state, whatever it was in; its memory and blocks are of the same sizes.
 * Tells CPUs, and of the interrupt line where its level changes; does not wait. `data` need not be
 * trusted, but nobody changes it meanwhile. Where it fails nothing has changed. Returns 0; -EBADMSG
 * when this is no saved MPC, was cut short or changed, or makes no sense; -ENOTSUP when it is newer
 * than this library; -EINVAL when it is of other sizes.
 */
int viommu_tzmpc_load(struct viommu_tzmpc *mpc, const void *data, size_t size);

#ifdef __cplusplus
}
#endif

#endif
