/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The interrupt line of an MPC: one thread's access is blocked, another one looks at the line and
 * clears the interrupt as soon as it sees it, perhaps before the first has told anybody. Each time
 * the line has risen once and fallen once, and both were told, in either order.
 */
#include "crew.h"

#include <sched.h>
#include <stdio.h>

#include <viommu/space.h>
#include <viommu/tzmpc.h>

#define MEMORY 0x10000000u
#define REGISTERS 0x50000000u
#define INT_CLEAR 0x24u
#define SIZE 4096u

static struct viommu_bus *bus;
static struct viommu_space *space;
static struct viommu_tzmpc *mpc;
static _Alignas(4096) uint8_t ram[SIZE];
static atomic_uint raised;
static atomic_uint lowered;
static atomic_uint blocked; /* accesses that have returned */
static atomic_uint cleared;

static void must(int error, const char *what)
{
    if (error) {
        guest_die("%s: %d", what, error);
    }
}

static void on_interrupt(void *opaque, bool level)
{
    (void)opaque;
    atomic_fetch_add(level ? &raised : &lowered, 1);
}

static struct viommu_region *region(enum viommu_region_kind kind, uint64_t last, void *host)
{
    const struct viommu_region_config config = {.kind = kind, .last = last, .host = host};
    struct viommu_region *made;

    must(viommu_region_create(bus, &config, &made), "a region");
    return made;
}

static void build(void)
{
    struct viommu_tzmpc_config config = {.size = SIZE, .base = MEMORY, .interrupt = on_interrupt};
    struct viommu_region *behind;
    struct viommu_region *root;

    must(viommu_bus_create(&bus), "a bus");
    behind = region(VIOMMU_REGION_CONTAINER, UINT32_MAX, NULL);
    must(viommu_region_add(behind, region(VIOMMU_REGION_RAM, SIZE - 1, ram), 0, 0), "RAM");
    must(viommu_space_create(behind, &config.space), "what is behind the MPC");
    must(viommu_tzmpc_create(bus, &config, &mpc), "the MPC");
    root = region(VIOMMU_REGION_CONTAINER, UINT32_MAX, NULL);
    must(viommu_region_add(root, viommu_tzmpc_memory(mpc), MEMORY, 0), "the memory");
    must(viommu_region_add(root, viommu_tzmpc_registers(mpc), REGISTERS, 0), "registers");
    must(viommu_space_create(root, &space), "a space");
    must(viommu_bus_commit(bus), "the commit");
}

/* All blocks are secure. The next access is made when the last one's interrupt is gone. */
static void *intrude(void *opaque)
{
    const struct viommu_bus_attrs attrs = {.secure = false, .requester = 2};
    struct crew *crew = opaque;
    uint32_t word;

    while (crew_working(crew)) {
        if (atomic_load(&cleared) != atomic_load(&blocked)) {
            sched_yield();
            continue;
        }
        (void)viommu_space_read(space, MEMORY, &word, sizeof(word), &attrs);
        atomic_fetch_add(&blocked, 1);
    }
    return NULL;
}

int main(void)
{
    const struct viommu_bus_attrs attrs = {.secure = true, .requester = 1};
    const uint32_t one = 1;
    struct crew_time time;
    struct crew crew = {0};

    build();
    crew_start(&crew, intrude, &crew);
    time = crew_begin();
    while (crew_more(&time, atomic_load(&blocked))) {
        if (viommu_tzmpc_interrupt(mpc)) {
            must(viommu_space_write(space, REGISTERS + INT_CLEAR, &one, sizeof(one), &attrs),
                 "INT_CLEAR");
            atomic_fetch_add(&cleared, 1);
        } else {
            sched_yield();
        }
    }
    crew_stop(&crew);
    if (viommu_tzmpc_interrupt(mpc)) {
        (void)viommu_space_write(space, REGISTERS + INT_CLEAR, &one, sizeof(one), &attrs);
    }
    printf("%u accesses were blocked, %u interrupts raised, %u lowered\n", atomic_load(&blocked),
           atomic_load(&raised), atomic_load(&lowered));
    if (atomic_load(&raised) != atomic_load(&blocked) ||
        atomic_load(&lowered) != atomic_load(&blocked) || !atomic_load(&blocked)) {
        guest_die("each should be told once");
    }
    viommu_tzmpc_destroy(mpc);
    viommu_bus_destroy(bus);
    return 0;
}
