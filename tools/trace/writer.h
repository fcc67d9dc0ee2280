/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writes down what a unit does, from now on: the watcher of the unit is a writer, its file a trace.
 *
 * Lines are put into a buffer. It is written out when it is full, and when it is flushed, which
 * the owner does from time to time. When the file cannot be written (a full disk; a pipe whose
 * reader is too slow), the writer stops: nothing is put down any more, the unit goes on, and the
 * next flush says so.
 *
 * Threads: a lock of its own around the buffer, which is taken inside the unit's lock. Flush and
 * close belong to one thread at a time.
 */
#ifndef VIOMMU_TOOLS_TRACE_WRITER_H
#define VIOMMU_TOOLS_TRACE_WRITER_H

#include <viommu/virtio.h>
#include <viommu/vtd.h>

struct trace_writer;

/*
 * Makes the file, empties it if it is there, and watches the unit, which has been started. A
 * symbolic link is not followed, nobody but the owner may read the file, and it is locked (flock)
 * while it is written. Returns 0; -EADDRINUSE when another writer, or a disk, has the file; or
 * another negative errno.
 */
int trace_writer_open(const char *path, struct viommu *iommu,
                      const struct viommu_vtd_config *config, struct trace_writer **out);

/* The same for a virtio-iommu. */
int trace_writer_open_virtio(const char *path, struct viommu *iommu,
                             const struct viommu_virtio_config *config, struct trace_writer **out);

/* The errors of trace_writer_open, for people. */
const char *trace_writer_error(int error);

/* Writes out what there is. Returns 0, or a negative errno: the trace ends here. */
int trace_writer_flush(struct trace_writer *writer);

/* Writes the last line and watches no more; the unit still exists. Returns as flush. */
int trace_writer_close(struct trace_writer *writer);

#endif
