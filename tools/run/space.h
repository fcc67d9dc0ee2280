/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The room of spaces: one bus, and what is on it, by name: regions, spaces (space.c), CPUs and
 * protection controllers (cpu.c), devices and registers of units (bus_device.c).
 */
#ifndef VIOMMU_TOOLS_RUN_SPACE_H
#define VIOMMU_TOOLS_RUN_SPACE_H

#include "run.h"

struct space_room;

/* A thing on the bus. What is NULL it is not. */
struct bus_thing {
    struct bus_thing *next;
    struct space_room *room;
    char *name;
    struct viommu_region *region;
    struct viommu_space *space;
    struct viommu_cpu *cpu;
    struct viommu_tzmpc *mpc;
    struct viommu_device *device; /* whose region it is */
    unsigned char *host; /* RAM and ROM */
    bool part;           /* of another thing, with which it goes */

    /* Registers that remember: a region of the kind mmio. */
    uint64_t value;
    unsigned calls;
    int error;
    struct bus_thing *aim; /* a space that a write is passed on to, ... */
    uint64_t aim_at;
    int aim_error;

    /* An IOMMU that is an array. */
    struct bus_thing *into;
    uint64_t page;
    uint64_t pages;
    uint64_t *to[2]; /* by attribute index, by page: address | perm */
    unsigned refusals;
    uint64_t refused_at;

    /* An MPC; and a CPU that is kicked. */
    bool level;
    unsigned begun;
};

struct space_room {
    struct viommu_bus *bus;
    struct bus_thing *things;
    struct viommu_bus_ticket ticket;
    uint64_t host_bytes;
};

#define BUS_ATTRIBUTES "[secure!] [privileged!] [unspecified!] [requester=]"

/* The room; made when it is asked for. NULL, with an error said, when that fails. */
struct space_room *space_room(struct run *run);

/* A new thing with the name that the argument `name` says, and `suffix`; NULL when it is taken. */
struct bus_thing *bus_thing_add(struct run *run, const char *suffix);
void bus_thing_forget(struct bus_thing *thing);

/* Takes a device's region away, and forgets it. */
void bus_device_destroy(struct bus_thing *thing);

/* The thing of an argument, which has to be of the kind. NULL with an error said. */
struct bus_thing *arg_bus_region(struct run *run, const char *argument);
struct bus_thing *arg_bus_space(struct run *run, const char *argument);
struct bus_thing *arg_bus_thing(struct run *run, const char *argument);

bool arg_bus_attributes(struct run *run, struct viommu_bus_attrs *attrs);
void bus_result_perm(struct run *run, uint32_t perm);

#endif
