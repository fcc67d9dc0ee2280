/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of jobs and of the threads that run them.
 */
#include "workers.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <signal.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    FILE_SIZE = 1 << 20,
};

static char directory[] = "/tmp/viommu-workers-XXXXXX";
static char hold_path[64], fail_path[64];
static struct nvme_store store;
static uint8_t bytes[FILE_SIZE], back[FILE_SIZE];
static off_t cut_to; /* the file is cut, once, just before it is written; 0: it is not */

/* In place of libc's. */
ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
    if (cut_to > 0) {
        assert_int_equal(ftruncate(fd, cut_to), 0);
        cut_to = 0;
    }
    return syscall(SYS_pwritev, fd, iov, (long)count, offset, 0L);
}

static int setup(void **state)
{
    (void)state;
    store = (struct nvme_store){
        .fd = memfd_create("disk", MFD_CLOEXEC),
        .hold_path = hold_path,
        .fail_path = fail_path,
    };
    assert_true(store.fd >= 0);
    assert_int_equal(ftruncate(store.fd, FILE_SIZE), 0);
    for (unsigned i = 0; i < FILE_SIZE; i++) {
        bytes[i] = (uint8_t)(i * 31 + i / 4096);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(hold_path);
    unlink(fail_path);
    close(store.fd);
    return 0;
}

static void create(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    close(fd);
}

static int run(struct nvme_job *job)
{
    nvme_store_run(&store, job);
    return job->result;
}

static int transfer(enum nvme_store_op op, uint8_t *data, size_t size, uint64_t offset)
{
    struct iovec iov = {.iov_base = data, .iov_len = size};
    struct nvme_job job = {.op = op, .iov = &iov, .iov_count = 1, .offset = offset, .size = size};

    return run(&job);
}

/* More pieces than one call takes. */
static void many_pieces(void **state)
{
    enum { PIECE = 64, PIECES = FILE_SIZE / PIECE };
    struct iovec *iov = calloc(PIECES, sizeof(*iov));
    struct nvme_job job = {.op = NVME_STORE_WRITE, .iov = iov, .iov_count = PIECES};

    (void)state;
    assert_true(PIECES > IOV_MAX);
    for (unsigned i = 0; i < PIECES; i++) {
        iov[i] = (struct iovec){.iov_base = bytes + i * PIECE, .iov_len = PIECE};
    }
    assert_int_equal(run(&job), 0);
    assert_int_equal(transfer(NVME_STORE_READ, back, FILE_SIZE, 0), 0);
    assert_memory_equal(bytes, back, FILE_SIZE);
    free(iov);
}

static void the_end_of_the_file_is_an_error(void **state)
{
    (void)state;
    assert_int_equal(transfer(NVME_STORE_READ, back, 4096, FILE_SIZE - 4096), 0);
    assert_int_equal(transfer(NVME_STORE_READ, back, 4096, FILE_SIZE - 512), -ENODATA);
    assert_int_equal(transfer(NVME_STORE_READ, back, 4096, FILE_SIZE), -ENODATA);
}

static void memory_that_is_gone_is_an_error(void **state)
{
    uint8_t *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)state;
    assert_int_equal(transfer(NVME_STORE_READ, page, 4096, 0), -EFAULT);
    assert_int_equal(transfer(NVME_STORE_WRITE, page, 4096, 0), -EFAULT);
    munmap(page, 4096);
}

static off_t file_size(void)
{
    return lseek(store.fd, 0, SEEK_END);
}

static void a_file_that_was_cut_does_not_grow(void **state)
{
    struct nvme_job zeroes = {.op = NVME_STORE_WRITE_ZEROES, .offset = 8192, .size = 4096};

    (void)state;
    assert_int_equal(ftruncate(store.fd, 8192), 0);
    assert_int_equal(transfer(NVME_STORE_WRITE, bytes, 4096, FILE_SIZE - 4096), -ENODATA);
    assert_int_equal(transfer(NVME_STORE_WRITE, bytes, 4096, 8192 - 512), -ENODATA);
    assert_int_equal(run(&zeroes), -ENODATA);
    assert_int_equal(file_size(), 8192);
    assert_int_equal(transfer(NVME_STORE_WRITE, bytes, 4096, 4096), 0);
}

static void a_file_that_is_cut_while_it_is_written(void **state)
{
    (void)state;
    /* The write makes it grow again, which must not go unseen. */
    cut_to = 4096;
    assert_int_equal(transfer(NVME_STORE_WRITE, bytes, 4096, 65536), -ENODATA);
    assert_int_equal(ftruncate(store.fd, FILE_SIZE), 0);
    /* It is cut behind the write: that does not harm it. */
    cut_to = 65536;
    assert_int_equal(transfer(NVME_STORE_WRITE, bytes, 4096, 4096), 0);
    assert_int_equal(cut_to, 0);
    assert_int_equal(file_size(), 65536);
    assert_int_equal(transfer(NVME_STORE_WRITE, bytes, 4096, 65536 - 4096), 0);
}

/* A transfer that is cut short half way goes on, and then meets the limit. */
static void a_file_that_may_not_grow(void **state)
{
    struct rlimit old, small;
    char path[96];
    int fd;

    (void)state;
    snprintf(path, sizeof(path), "%s/file", directory);
    fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 8192), 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 6144;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    dup2(fd, store.fd);
    assert_int_equal(transfer(NVME_STORE_WRITE, bytes, 8192, 0), -EFBIG);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(transfer(NVME_STORE_READ, back, 8192, 0), 0);
    assert_memory_equal(back, bytes, 6144);
    assert_int_equal(back[6145], 0);
    close(fd);
    unlink(path);
}

static void zeroes_and_holes(void **state)
{
    struct nvme_extent extents[3] = {{4096, 4096}, {0, 0}, {16384, 8192}};
    struct nvme_job zeroes = {.op = NVME_STORE_WRITE_ZEROES, .offset = 512, .size = 1536};
    struct nvme_job holes = {.op = NVME_STORE_DEALLOCATE, .extents = extents, .extent_count = 3};
    uint64_t size;

    (void)state;
    assert_int_equal(transfer(NVME_STORE_WRITE, bytes, FILE_SIZE, 0), 0);
    assert_int_equal(run(&zeroes), 0);
    zeroes.holes = true;
    zeroes.offset = 65536;
    zeroes.size = 200000;
    assert_int_equal(run(&zeroes), 0);
    assert_int_equal(run(&holes), 0);
    memset(bytes + 512, 0, 1536);
    memset(bytes + 65536, 0, 200000);
    memset(bytes + 4096, 0, 4096);
    memset(bytes + 16384, 0, 8192);
    assert_int_equal(transfer(NVME_STORE_READ, back, FILE_SIZE, 0), 0);
    assert_memory_equal(bytes, back, FILE_SIZE);
    assert_int_equal(nvme_store_size(&store, &size), 0);
    assert_int_equal(size, FILE_SIZE);
}

/* A file that takes no holes: /dev/zero and pipes are such. */
static void what_a_file_cannot_do(void **state)
{
    struct nvme_extent extent = {0, 4096};
    struct nvme_job holes = {.op = NVME_STORE_DEALLOCATE, .extents = &extent, .extent_count = 1};
    struct nvme_job zeroes = {.op = NVME_STORE_WRITE_ZEROES, .size = 200000};
    struct nvme_job flush = {.op = NVME_STORE_FLUSH};
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    (void)state;
    dup2(fd, store.fd);
    close(fd);
    assert_int_equal(run(&holes), 0);
    assert_int_equal(run(&zeroes), 0);
    assert_int_equal(run(&flush), -EINVAL);
    flush.op = NVME_STORE_WRITE_ZEROES;
    flush.durable = true;
    assert_int_equal(run(&flush), -EINVAL);
    fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    dup2(fd, store.fd);
    close(fd);
    assert_int_equal(run(&holes), -EBADF);
    assert_int_equal(run(&zeroes), -EBADF);
}

static void failing_for_tests(void **state)
{
    (void)state;
    create(fail_path);
    assert_int_equal(transfer(NVME_STORE_WRITE, bytes, 4096, 0), -EIO);
    unlink(fail_path);
    assert_int_equal(transfer(NVME_STORE_READ, back, 1, 0), 0);
    assert_int_equal(back[0], 0);
}

/* ---- threads ------------------------------------------------------------------------------- */

static void wait_for(int event_fd)
{
    struct pollfd pollfd = {.fd = event_fd, .events = POLLIN};
    uint64_t n;

    assert_int_equal(poll(&pollfd, 1, 10000), 1);
    assert_int_equal(read(event_fd, &n, sizeof(n)), sizeof(n));
}

static void threads_do_all_jobs(void **state)
{
    enum { JOBS = 500 };
    static struct nvme_job jobs[JOBS];
    static struct iovec iov[JOBS];
    int event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct nvme_workers *workers;
    unsigned done = 0;

    (void)state;
    assert_int_equal(nvme_workers_start(8, &store, event_fd, &workers), 0);
    for (unsigned i = 0; i < JOBS; i++) {
        iov[i] = (struct iovec){.iov_base = bytes + i * 1024, .iov_len = 1024};
        jobs[i] = (struct nvme_job){
            .op = NVME_STORE_WRITE, .iov = &iov[i], .iov_count = 1, .offset = i * 1024,
            .result = 1,
        };
        nvme_workers_submit(workers, &jobs[i]);
    }
    while (done < JOBS) {
        wait_for(event_fd);
        for (struct nvme_job *job = nvme_workers_collect(workers); job; job = job->next) {
            assert_int_equal(job->result, 0);
            assert_int_equal(job->progress, NVME_JOB_IDLE);
            done++;
        }
    }
    assert_null(nvme_workers_collect(workers));
    assert_int_equal(nvme_workers_stop(workers, 10000), 0);
    assert_int_equal(transfer(NVME_STORE_READ, back, JOBS * 1024, 0), 0);
    assert_memory_equal(bytes, back, JOBS * 1024);
    close(event_fd);
}

static void jobs_are_taken_back_until_they_begin(void **state)
{
    struct nvme_job a = {.op = NVME_STORE_FLUSH}, b = a, c = a;
    int event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct nvme_workers *workers;

    (void)state;
    assert_int_equal(nvme_workers_start(0, &store, event_fd, &workers), 0);
    assert_false(nvme_workers_run_one(workers));
    nvme_workers_submit(workers, &a);
    nvme_workers_submit(workers, &b);
    assert_true(nvme_workers_cancel(workers, &b));
    assert_false(nvme_workers_cancel(workers, &b));
    nvme_workers_submit(workers, &c);
    nvme_workers_submit(workers, &b);
    assert_true(nvme_workers_run_one(workers));
    assert_false(nvme_workers_cancel(workers, &a));
    assert_true(nvme_workers_cancel(workers, &c));
    assert_true(nvme_workers_run_one(workers));
    assert_false(nvme_workers_run_one(workers));
    assert_ptr_equal(nvme_workers_collect(workers), &a);
    assert_ptr_equal(a.next, &b);
    assert_null(b.next);
    assert_int_equal(nvme_workers_stop(workers, 0), 0);
    close(event_fd);
}

static void held_jobs_do_not_end(void **state)
{
    struct nvme_job job = {.op = NVME_STORE_FLUSH};
    int event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct pollfd pollfd = {.fd = event_fd, .events = POLLIN};
    struct nvme_workers *workers;

    (void)state;
    create(hold_path);
    assert_int_equal(nvme_workers_start(1, &store, event_fd, &workers), 0);
    do { /* until a thread has begun it */
        nvme_workers_submit(workers, &job);
        assert_int_equal(poll(&pollfd, 1, 50), 0);
        assert_null(nvme_workers_collect(workers));
    } while (nvme_workers_cancel(workers, &job));
    unlink(hold_path);
    wait_for(event_fd);
    assert_ptr_equal(nvme_workers_collect(workers), &job);
    /* Stopping does not wait for what is held. */
    create(hold_path);
    nvme_workers_submit(workers, &job);
    assert_int_equal(poll(&pollfd, 1, 20), 0);
    assert_int_equal(nvme_workers_stop(workers, 10000), 0);
    close(event_fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(many_pieces, setup, teardown),
        cmocka_unit_test_setup_teardown(the_end_of_the_file_is_an_error, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_that_is_gone_is_an_error, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_that_was_cut_does_not_grow, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_that_is_cut_while_it_is_written, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_that_may_not_grow, setup, teardown),
        cmocka_unit_test_setup_teardown(zeroes_and_holes, setup, teardown),
        cmocka_unit_test_setup_teardown(what_a_file_cannot_do, setup, teardown),
        cmocka_unit_test_setup_teardown(failing_for_tests, setup, teardown),
        cmocka_unit_test_setup_teardown(threads_do_all_jobs, setup, teardown),
        cmocka_unit_test_setup_teardown(jobs_are_taken_back_until_they_begin, setup, teardown),
        cmocka_unit_test_setup_teardown(held_jobs_do_not_end, setup, teardown),
    };
    int failed;

    if (!mkdtemp(directory)) {
        return 1;
    }
    snprintf(hold_path, sizeof(hold_path), "%s/hold", directory);
    snprintf(fail_path, sizeof(fail_path), "%s/fail", directory);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(directory);
    return failed;
}
