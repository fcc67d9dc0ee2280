/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The backing file, and what can be done with it: one *job* at a time, by whichever thread.
 *
 * A job is all that a worker knows. Its owner fills it in and leaves it alone until it is done. A
 * transfer goes on until it is whole; what reaches past the end of the file ends with -ENODATA.
 *
 * Somebody else may cut the file at any time. A write must not make it grow again, for what was cut
 * off would be zeroes then, and no error. So it is looked at before: a write past the end is not
 * begun. And after: a file that became smaller meanwhile, and ends where the write does or earlier,
 * may have been cut and then extended by this very write, which fails with -ENODATA, too. (A write
 * of the last byte in the moment between the look and the cut goes unseen: there is no system call
 * that writes and does not extend.)
 *
 * For tests, two paths: while a file is at `fail_path`, jobs fail with -EIO and do nothing; while
 * one is at `hold_path`, a job that is done does not return (until `stop` is set).
 */
#ifndef VIOMMU_SERVER_NVME_STORE_H
#define VIOMMU_SERVER_NVME_STORE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum nvme_store_op {
    NVME_STORE_READ,
    NVME_STORE_WRITE,
    NVME_STORE_FLUSH,
    NVME_STORE_WRITE_ZEROES,
    NVME_STORE_DEALLOCATE,
};

struct nvme_extent {
    uint64_t offset; /* in bytes, as all here */
    uint64_t size;
};

struct nvme_job {
    enum nvme_store_op op;
    bool durable;                      /* on stable storage when it is done */
    bool holes;                        /* WRITE_ZEROES: may deallocate */
    uint64_t offset, size;             /* READ, WRITE, WRITE_ZEROES */
    struct iovec *iov;                 /* READ, WRITE: changed on the way */
    size_t iov_count;
    const struct nvme_extent *extents; /* DEALLOCATE */
    size_t extent_count;
    int result;                        /* 0 or a negative errno */

    /* Of the workers. */
    struct nvme_job *next;
    enum { NVME_JOB_IDLE, NVME_JOB_QUEUED, NVME_JOB_RUNNING } progress;
};

struct nvme_store {
    int fd;
    const char *hold_path;
    const char *fail_path;
    atomic_bool stop;
};

/* Do the job, and set its result. Blocks. */
void nvme_store_run(struct nvme_store *store, struct nvme_job *job);

/* How large the file or block device is now. Returns 0 or a negative errno. */
int nvme_store_size(const struct nvme_store *store, uint64_t *size);

#endif
