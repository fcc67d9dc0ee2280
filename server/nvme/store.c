/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Jobs on the backing file; see store.h.
 */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    HOLD_LOOK_MS = 5, /* how often it is looked whether the file at hold_path is still there */
    ZEROES_SIZE = 65536,
};

/* Drop from the front of *iov what was transferred. */
static void advance(struct iovec **iov, size_t *count, size_t done)
{
    while (*count > 0 && done >= (*iov)->iov_len) {
        done -= (*iov)->iov_len;
        (*iov)++;
        (*count)--;
    }
    if (done > 0) {
        (*iov)->iov_base = (char *)(*iov)->iov_base + done;
        (*iov)->iov_len -= done;
    }
}

/* Read or write all of it, however small the pieces are that the file takes. */
static int transfer(int fd, bool write, struct iovec *iov, size_t count, uint64_t offset)
{
    while (count > 0) {
        int n = count < IOV_MAX ? (int)count : IOV_MAX;
        ssize_t done = write ? pwritev(fd, iov, n, (off_t)offset) : preadv(fd, iov, n,
                                                                           (off_t)offset);

        if (done < 0) {
            if (errno == EINTR) {
                continue;
            }
            return -errno;
        }
        if (done == 0) {
            return write ? -EIO : -ENODATA;
        }
        offset += (uint64_t)done;
        advance(&iov, &count, (size_t)done);
    }
    return 0;
}

static int write_zeroes(int fd, uint64_t offset, uint64_t size)
{
    static const char zeroes[ZEROES_SIZE];

    while (size > 0) {
        size_t piece = size < ZEROES_SIZE ? (size_t)size : ZEROES_SIZE;
        struct iovec iov = {.iov_base = (void *)zeroes, .iov_len = piece};
        int ret = transfer(fd, true, &iov, 1, offset);

        if (ret < 0) {
            return ret;
        }
        offset += piece;
        size -= piece;
    }
    return 0;
}

/* Have the file system make zeroes of it. -EOPNOTSUPP where it cannot. */
static int make_zeroes(int fd, int mode, uint64_t offset, uint64_t size)
{
    int ret;

    do {
        ret = fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : 0;
}

static bool unsupported(int error)
{
    return error == -EOPNOTSUPP || error == -ENOSYS || error == -EINVAL || error == -ENODEV;
}

static int zero(int fd, const struct nvme_job *job)
{
    int mode = job->holes ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    int ret = make_zeroes(fd, mode, job->offset, job->size);

    return unsupported(ret) ? write_zeroes(fd, job->offset, job->size) : ret;
}

/* Deallocating is advice: where the file system cannot, the blocks stay as they are. */
static int deallocate(int fd, const struct nvme_job *job)
{
    for (size_t i = 0; i < job->extent_count; i++) {
        const struct nvme_extent *extent = &job->extents[i];
        int ret = extent->size == 0 ? 0
                                    : make_zeroes(fd, FALLOC_FL_PUNCH_HOLE, extent->offset,
                                                  extent->size);

        if (ret < 0 && !unsupported(ret)) {
            return ret;
        }
    }
    return 0;
}

/* How large a regular file is; UINT64_MAX for what does not grow when it is written past its
   end. */
static int size_now(int fd, uint64_t *size)
{
    struct stat status;

    if (fstat(fd, &status) < 0) {
        return -errno;
    }
    *size = S_ISREG(status.st_mode) ? (uint64_t)status.st_size : UINT64_MAX;
    return 0;
}

/* Writes, or makes zeroes; see store.h for a file that somebody cuts. */
static int change(int fd, const struct nvme_job *job)
{
    uint64_t end = job->offset + job->size, before, after;
    int ret = size_now(fd, &before);

    if (ret == 0 && end > before) {
        ret = -ENODATA;
    }
    if (ret == 0) {
        ret = job->op == NVME_STORE_WRITE
                  ? transfer(fd, true, job->iov, job->iov_count, job->offset)
                  : zero(fd, job);
    }
    if (ret == 0) {
        ret = size_now(fd, &after);
    }
    return ret == 0 && after < before && after <= end ? -ENODATA : ret;
}

static int run(const struct nvme_store *store, const struct nvme_job *job)
{
    switch (job->op) {
    case NVME_STORE_READ:
        return transfer(store->fd, false, job->iov, job->iov_count, job->offset);
    case NVME_STORE_WRITE:
    case NVME_STORE_WRITE_ZEROES:
        return change(store->fd, job);
    case NVME_STORE_DEALLOCATE:
        return deallocate(store->fd, job);
    case NVME_STORE_FLUSH:
        break;
    }
    return 0;
}

static bool exists(const char *path)
{
    return path && access(path, F_OK) == 0;
}

static void hold(struct nvme_store *store)
{
    const struct timespec pause = {.tv_nsec = HOLD_LOOK_MS * 1000000L};

    while (!atomic_load(&store->stop) && exists(store->hold_path)) {
        nanosleep(&pause, NULL);
    }
}

void nvme_store_run(struct nvme_store *store, struct nvme_job *job)
{
    job->result = exists(store->fail_path) ? -EIO : run(store, job);
    if (job->result == 0 && (job->durable || job->op == NVME_STORE_FLUSH) &&
        fdatasync(store->fd) < 0) {
        job->result = -errno;
    }
    hold(store);
}

int nvme_store_size(const struct nvme_store *store, uint64_t *size)
{
    off_t end = lseek(store->fd, 0, SEEK_END);

    if (end < 0) {
        return -errno;
    }
    *size = (uint64_t)end;
    return 0;
}
