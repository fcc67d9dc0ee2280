/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How a service is handed to another process, from the side that gives it away.
 *
 * Three states: waiting for a successor; listening to one that has connected, for a short time;
 * and, once it has said what it wants, pausing: the service takes nothing in, and what is under way
 * ends, for HANDOVER_PATIENCE_MS at most. Then, in one go, all is saved, sent and acknowledged
 * (server/handover/channel.h). Whatever goes wrong before the last word leads back to waiting, and
 * the service goes on.
 */
#ifndef VIOMMU_TOOLS_SERVE_HANDOVER_H
#define VIOMMU_TOOLS_SERVE_HANDOVER_H

#include <limits.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "loop.h"

enum {
    HANDOVER_PATIENCE_MS = 3000,
};

struct service;

struct handover {
    struct service *service; /* NULL: there is no handover */
    char path[PATH_MAX];     /* of the socket */
    struct stat file;        /* what path names while it is ours */
    struct loop_source listener;
    struct loop_source successor; /* fd -1: there is none */
    struct loop_source timer;
    bool pausing;
    pid_t peer; /* the successor's process */
};

/* Offers the handover where the service's options say; does nothing when they do not. Returns 0, or
 * a negative errno after saying what is wrong. */
int handover_open(struct handover *handover, struct service *service);
void handover_close(struct handover *handover);

/* After each event: goes on, if what was waited for has come about. */
void handover_step(struct handover *handover);

#endif
