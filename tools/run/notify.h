/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the rooms for notifications, subscribers and mirrors share: messages, kept in the order in
 * which the library gave them, until an operation takes them.
 */
#ifndef VIOMMU_TOOLS_RUN_NOTIFY_H
#define VIOMMU_TOOLS_RUN_NOTIFY_H

#include "run.h"

struct message {
    struct message *next;
    union {
        struct viommu_interrupt interrupt;
        struct viommu_event event;
        struct viommu_change change;
    };
    bool fence; /* no change: a mirror was told that it is fenced */
    const struct unit *unit;
    int answer; /* of a change */
    int read_status;
    int control_status;
};

/* Adds a copy at the end. */
void messages_add(struct messages *messages, const struct message *message);

/* Takes the oldest one; false, with the status none, when there is none. */
bool messages_take(struct run *run, struct messages *messages, struct message *out);

unsigned messages_count(const struct messages *messages);

/* Forgets the change of a token; true, with a copy in *out, when it was there. */
bool messages_take_token(struct messages *messages, uint64_t token, struct message *out);

#endif
