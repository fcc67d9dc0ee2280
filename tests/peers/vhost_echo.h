/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vhost_echo.h - what the two halves of vhost-echo know of each other: its rings, and how addresses
 * are looked up. See vhost_echo.c.
 */
#ifndef VIOMMU_PEERS_VHOST_ECHO_H
#define VIOMMU_PEERS_VHOST_ECHO_H

#include <stdbool.h>
#include <stdint.h>

enum { ECHO_RINGS = 2 }; /* 0: the driver receives; 1: it sends */

struct echo_ring {
    unsigned size;
    uint64_t descriptors, available, used; /* IOVAs */
    uint16_t next, returned;
    bool placed; /* `returned` is known */
    bool runs, enabled;
    int kick, call;
};

/* Where an address leads, and how far. NULL: the front-end was asked. */
uint8_t *echo_look_up(uint64_t iova, uint8_t perm, uint64_t *length);

/* The front-end, or the driver, does what it must not. */
void echo_violation(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Sends some frames back. Returns whether there may be more to do at once. */
bool echo_frames(struct echo_ring *rings);

extern uint64_t echo_count; /* of frames sent back */

#endif
