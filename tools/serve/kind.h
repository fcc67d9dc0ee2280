/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Kinds of devices that `viommu serve` offers: the keys that each takes after --device, and how one
 * is made, summed up and taken away. A new kind is one constant in the table, and its file.
 */
#ifndef VIOMMU_TOOLS_SERVE_KIND_H
#define VIOMMU_TOOLS_SERVE_KIND_H

#include <stdbool.h>

#include "device_options.h"

struct handover_fds;
struct save_section;
struct save_writer;
struct served_device;

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
    /* It is in another process: whose socket has to follow the kind's name, for messages; else
       NULL. */
    const char *far;
    bool needs_unit;              /* it makes no sense without one */
    const struct serve_key *keys; /* up to one without name */
    /*
     * Makes the device, which does its DMA as served->dma says, and sets served->function. Returns
     * 0, or a negative errno after saying what is wrong.
     */
    int (*open)(struct served_device *served, const struct serve_device_options *options);
    /* Returns 0; or a negative errno: the device, and what it works with, has to stay until the
     * process ends. */
    int (*close)(struct served_device *served);
    /*
     * Handing over. quiesce: begin nothing new; quiet: is nothing under way; resume: go on.
     * All NULL: it is always quiet. No save and load: it cannot be handed over. save writes what it
     * is into the section that is open. load is in place of open: makes the device, quiesced, as it
     * was saved; a negative errno otherwise.
     */
    void (*quiesce)(struct served_device *served);
    bool (*quiet)(const struct served_device *served);
    void (*resume)(struct served_device *served);
    void (*save)(const struct served_device *served, struct save_writer *writer,
                 struct handover_fds *fds);
    int (*load)(struct served_device *served, const struct serve_device_options *options,
                struct save_section *section, struct handover_fds *fds);
    void (*summarize)(const struct served_device *served); /* by summary_print_line */
};

extern const struct serve_kind serve_kind_edu;
extern const struct serve_kind serve_kind_nvme;
extern const struct serve_kind serve_kind_vhost_user_net;
extern const struct serve_kind serve_kind_vfio_user;

/* NULL when there is none. */
const struct serve_kind *serve_kind_find(const char *name);

/* The n-th, from 0; NULL past the last. */
const struct serve_kind *serve_kind_at(unsigned n);

#endif
