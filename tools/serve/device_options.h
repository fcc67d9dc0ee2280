/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One device of `viommu serve`'s command line: KIND[:WHERE],key=value,...
 *
 * WHERE is the socket of another process that the device is in, for kinds that are such (kind.h),
 * and only for these. Each kind lists the keys that it takes; at, where the guest sees the device,
 * and socket are every kind's. A value, and WHERE, ends at a comma, so none can have one in it.
 */
#ifndef VIOMMU_TOOLS_SERVE_DEVICE_OPTIONS_H
#define VIOMMU_TOOLS_SERVE_DEVICE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct serve_kind;

struct serve_edu_options {
    const char *mirror; /* NULL: nobody mirrors it */
};

struct serve_nvme_options {
    const char *file;
    bool read_only;
    unsigned lba_shift; /* here and below 0 and NULL are the defaults of nvme/nvme.h */
    unsigned queues;
    unsigned workers;
    const char *serial;
    const char *hold;
    const char *fail;
};

struct serve_net_options {
    bool mac_given;
    uint8_t mac[6];
    unsigned timeout_ms; /* 0: the default */
};

struct serve_vfio_user_options {
    bool isolate;
    unsigned answer_ms; /* it may take at least so long to answer; 0: the default of relay.h */
};

/* All zero, and what the command line said. Names point into text. */
struct serve_device_options {
    char *text;
    const struct serve_kind *kind;
    const char *far; /* the other process's socket, or NULL: the kind has none */
    uint16_t requester;
    const char *socket;
    union {
        struct serve_edu_options edu;
        struct serve_nvme_options nvme;
        struct serve_net_options net;
        struct serve_vfio_user_options vfio_user;
    };
};

/* Returns whether the text is right; else what is wrong was written down. Either way _fini gives
 * back what it took. */
bool serve_device_options_parse(struct serve_device_options *device, const char *text, char *wrong,
                                size_t wrong_size);
void serve_device_options_fini(struct serve_device_options *device);

#endif
