/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A whole service as saved state: what was asked for, its ports with their clients, its devices,
 * the unit.
 *
 * Sections, in the order in which they are loaded (lib/save/stream.h has the frame):
 *   SERVICE  the options, and the folder that names in them are relative to
 *   PORT 0   the unit's, where there is one: it brings guest memory
 *   DEVICE i, PORT i + 1   for each device
 *   UNIT     last: it wants its memory and devices to be there
 *
 * Not in it: counters of the unit, and what is cached.
 */
#ifndef VIOMMU_TOOLS_SERVE_STATE_H
#define VIOMMU_TOOLS_SERVE_STATE_H

#include <stddef.h>

#include "handover/fds.h"

struct serve_options;
struct service;

struct service_state {
    void *data;
    size_t size;
    struct handover_fds fds; /* the service's own */
};

/* Saves a paused service that is not busy. Returns 0; -EBUSY when the unit is in the middle of
 * something; or another negative errno. The service stays as it is and may go on. */
int service_save(struct service *service, struct service_state *state);
void service_state_fini(struct service_state *state);

/*
 * Makes a paused service of what was saved; `fds` are those that came with it. The working folder
 * becomes that of the service saved, and *options its options. Returns 0, or a negative errno after
 * saying what is wrong: then only the end of this process gives everything up so that clients and
 * files notice nothing.
 */
int service_load(struct service *service, struct serve_options *options, const void *data,
                 size_t size, struct handover_fds *fds);

#endif
