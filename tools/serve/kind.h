/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Kinds of devices that `viommu serve` offers: the keys that each takes after --device, and how one
 * is made, counted and taken away. A new kind is one constant in the table, and its file.
 */
#ifndef VIOMMU_TOOLS_SERVE_KIND_H
#define VIOMMU_TOOLS_SERVE_KIND_H

#include <stdbool.h>

#include "device_options.h"

struct served_device;
struct summary;

/* A key of a kind. */
struct serve_key {
    const char *name;
    const char *takes; /* what its value is, for messages; NULL: the key stands alone */
    bool needed;
    /* False: the value is none that the key takes. */
    bool (*set)(struct serve_device_options *device, const char *value);
};

struct serve_kind {
    const char *name;
    const struct serve_key *keys; /* up to one without name */
    /*
     * Makes the device, which does its DMA as served->dma says, and sets served->function. Returns
     * 0, or a negative errno after saying what is wrong.
     */
    int (*open)(struct served_device *served, const struct serve_device_options *options);
    void (*close)(struct served_device *served);
    void (*count)(const struct served_device *served, struct summary *summary);
};

extern const struct serve_kind serve_kind_edu;

/* NULL when there is none. */
const struct serve_kind *serve_kind_find(const char *name);

/* The n-th, from 0; NULL past the last. */
const struct serve_kind *serve_kind_at(unsigned n);

#endif
