/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A mirror of a served device that writes down what it is told: every mapping that a real device in
 * its place would have, as it comes and goes (the lines of viommu/trace.h).
 */
#ifndef VIOMMU_TOOLS_SERVE_MIRROR_H
#define VIOMMU_TOOLS_SERVE_MIRROR_H

#include <viommu/device.h>

struct viommu_subscriber;
struct viommu_trace;

struct serve_mirror {
    int fd; /* of the file */
    struct viommu_trace *trace;
    struct viommu_subscriber *subscriber;
};

/* Subscribes to the device; the file is emptied first. Returns 0 or a negative errno (see
 * serve_file_error). */
int serve_mirror_open(struct serve_mirror *mirror, struct viommu_device *device, const char *path);

/* Goes on with a mirror that another process had, and with its file, which becomes the mirror's: it
 * is told only what differs from what it was told there. Returns 0 or a negative errno. */
int serve_mirror_adopt(struct serve_mirror *mirror, struct viommu_device *device, int fd);

/* Returns 0, or the error of the last line that could not be written. */
int serve_mirror_close(struct serve_mirror *mirror);

#endif
