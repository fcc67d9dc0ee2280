/* SPDX-License-Identifier: BSD-2-Clause */
/* How a service is taken over from another process: the other side of handover.h. */
#ifndef VIOMMU_TOOLS_SERVE_TAKEOVER_H
#define VIOMMU_TOOLS_SERVE_TAKEOVER_H

struct serve_options;
struct service;

/*
 * Takes over from the server at options->takeover. Afterwards *options are those of that service,
 * but for the handover, and this process serves. Returns 0, or a negative errno after saying what
 * is wrong: the other server goes on, and this process ends without touching anything.
 */
int takeover_run(struct service *service, struct serve_options *options);

#endif
