/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of mapped client memory: files that are cut short under a mapping, and files that cannot be
 * mapped; and a host that fails: the linker leads here what is called of it (server/meson.build).
 */
#include "client_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "client_file.h"

/* What fails next, once. */
enum failing {
    NOTHING,
    CALLOC,
    FSTAT,
    MMAP,
    SIGACTION,
};

static size_t page;
static enum failing failing;
static unsigned passes; /* calls that go well before that */

void *__real_calloc(size_t count, size_t size);
int __real_fstat64(int fd, struct stat *out);
void *__real_mmap64(void *at, size_t size, int prot, int flags, int fd, off_t offset);
int __real_sigaction(int number, const struct sigaction *to, struct sigaction *from);
void *__wrap_calloc(size_t count, size_t size);
int __wrap_fstat64(int fd, struct stat *out);
void *__wrap_mmap64(void *at, size_t size, int prot, int flags, int fd, off_t offset);
int __wrap_sigaction(int number, const struct sigaction *to, struct sigaction *from);

static bool fails(enum failing what, int error)
{
    if (failing != what || passes-- > 0) {
        return false;
    }
    failing = NOTHING;
    errno = error;
    return true;
}

static void let_fail(enum failing what, unsigned after)
{
    failing = what;
    passes = after;
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails(CALLOC, ENOMEM) ? NULL : __real_calloc(count, size);
}

int __wrap_fstat64(int fd, struct stat *out)
{
    return fails(FSTAT, EOVERFLOW) ? -1 : __real_fstat64(fd, out);
}

void *__wrap_mmap64(void *at, size_t size, int prot, int flags, int fd, off_t offset)
{
    return fails(MMAP, ENOMEM) ? MAP_FAILED : __real_mmap64(at, size, prot, flags, fd, offset);
}

int __wrap_sigaction(int number, const struct sigaction *to, struct sigaction *from)
{
    return fails(SIGACTION, EINVAL) ? -1 : __real_sigaction(number, to, from);
}

static int ram(size_t pages)
{
    int fd = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)(pages * page)), 0);
    return fd;
}

static void contents_are_shared(void **state)
{
    struct client_mapping *mapping;
    int fd = ram(4);
    char byte = 0;

    (void)state;
    assert_int_equal(client_mapping_create(fd, page, 2 * page, true, &mapping), 0);
    *(char *)client_mapping_address(mapping) = 'x';
    assert_int_equal(pread(fd, &byte, 1, (off_t)page), 1);
    assert_int_equal(byte, 'x');
    client_mapping_destroy(mapping);
    assert_int_equal(client_mapping_create(fd, page, 2 * page, false, &mapping), 0);
    assert_int_equal(*(char *)client_mapping_address(mapping), 'x');
    client_mapping_destroy(mapping);
    client_mapping_destroy(NULL);
    close(fd);
}

static void the_file_stays_open(void **state)
{
    struct client_mapping *mapping, *other;
    int fd = ram(4), kept;
    struct stat before, now;

    (void)state;
    assert_int_equal(fstat(fd, &before), 0);
    assert_int_equal(client_mapping_create(fd, 0, page, true, &mapping), 0);
    assert_int_equal(client_mapping_create(fd, page, page, true, &other), 0);
    close(fd);
    kept = client_mapping_fd(mapping);
    assert_true(kept >= 0);
    assert_int_equal(client_mapping_fd(other), kept);
    assert_int_equal(fstat(kept, &now), 0);
    assert_true(now.st_ino == before.st_ino && now.st_dev == before.st_dev);
    client_mapping_destroy(mapping);
    assert_int_equal(fstat(kept, &now), 0);
    client_mapping_destroy(other);
    assert_int_equal(fstat(kept, &now), -1);
}

static void what_cannot_be_mapped(void **state)
{
    struct client_mapping *mapping;
    int fd = ram(4), pipe_fds[2], readonly;

    (void)state;
    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(client_mapping_create(fd, 0, 0, true, &mapping), -EINVAL);
    assert_int_equal(client_mapping_create(fd, 0, 4 * page + 1, true, &mapping), -EINVAL);
    assert_int_equal(client_mapping_create(fd, 5 * page, page, true, &mapping), -EINVAL);
    assert_int_equal(client_mapping_create(fd, UINT64_MAX, page, true, &mapping), -EINVAL);
    assert_int_equal(client_mapping_create(fd, UINT64_MAX - page + 1, page, true, &mapping),
                     -EINVAL);
    assert_int_equal(client_mapping_create(fd, page, UINT64_MAX, true, &mapping), -EINVAL);
    assert_int_equal(client_mapping_create(fd, 1, page, true, &mapping), -EINVAL);
    assert_int_equal(client_mapping_create(fd, 0, page + 1, true, &mapping), -EINVAL);
    assert_int_equal(client_mapping_create(pipe_fds[0], 0, page, true, &mapping), -EINVAL);
    assert_int_equal(client_mapping_create(-1, 0, page, true, &mapping), -EBADF);
    readonly = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    assert_int_equal(client_mapping_create(readonly, 0, page, true, &mapping), -EACCES);
    close(readonly);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    close(fd);
}

static void a_file_cut_short_reads_as_zero(void **state)
{
    struct client_mapping *others[3], *mapping;
    uint64_t losses = client_memory_losses();
    int fd = ram(8), other = ram(1);
    uint8_t *bytes;

    (void)state;
    /* The test library has handlers of its own, set anew for each test. */
    assert_int_equal(client_memory_guard(), 0);
    assert_int_equal(client_memory_guard(), 0);
    assert_int_equal(client_mapping_create(other, 0, page, true, &others[0]), 0);
    assert_int_equal(client_mapping_create(fd, 0, 8 * page, true, &mapping), 0);
    assert_int_equal(client_mapping_create(other, 0, page, true, &others[1]), 0);
    assert_int_equal(client_mapping_create(other, 0, page, true, &others[2]), 0);
    client_mapping_destroy(others[1]);
    bytes = client_mapping_address(mapping);
    memset(bytes, 0x55, 8 * page);
    assert_int_equal(ftruncate(fd, (off_t)(3 * page)), 0);
    assert_int_equal(bytes[5 * page], 0);
    assert_int_equal(client_memory_losses(), losses + 1);
    bytes[7 * page] = 1;
    assert_int_equal(client_memory_losses(), losses + 1);
    /* Before the page that was touched the file is still there, as far as it goes. */
    assert_int_equal(bytes[3 * page - 1], 0x55);
    bytes[3 * page] = 1;
    assert_int_equal(client_memory_losses(), losses + 2);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(bytes[0], 0);
    assert_int_equal(bytes[7 * page], 0);
    client_mapping_destroy(mapping);
    client_mapping_destroy(others[0]);
    client_mapping_destroy(others[2]);
    close(fd);
    close(other);
}

/* A file of one huge page, or -1 where the kernel has none or (qemu-user) it cannot be mapped.
 * Nothing need be reserved for it. */
static int huge_ram(size_t *size)
{
    int fd = memfd_create("huge", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);
    struct stat st;
    void *address;

    if (fd < 0) {
        return -1;
    }
    assert_int_equal(fstat(fd, &st), 0);
    *size = (size_t)st.st_blksize;
    assert_int_equal(ftruncate(fd, st.st_blksize), 0);
    address = mmap(NULL, *size, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (address == MAP_FAILED) {
        close(fd);
        return -1;
    }
    munmap(address, *size);
    return fd;
}

static void a_part_of_a_huge_page(void **state)
{
    struct client_mapping *mapping;
    size_t size = 0;
    int fd = huge_ram(&size);
    void *address;

    (void)state;
    if (fd < 0) {
        skip();
    }
    assert_int_equal(client_memory_guard(), 0);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    assert_int_equal(client_mapping_create(fd, 3 * page, 2 * page, true, &mapping), 0);
    address = client_mapping_address(mapping);
    assert_int_equal((uintptr_t)address % size, 3 * page);
    /* There may be no huge page behind it, whatever the seal says: then it is zeros of our own. */
    memset(address, 0x55, 2 * page);
    assert_int_equal(*(uint8_t *)address, 0x55);
    client_mapping_destroy(mapping);
    /* All of it is gone. */
    assert_int_equal(msync((void *)((uintptr_t)address & ~(size - 1)), page, MS_ASYNC), -1);
    assert_int_equal(errno, ENOMEM);
    close(fd);
}

static void so_many_and_no_more(void **state)
{
    static struct client_mapping *many[CLIENT_MAPPINGS_MAX];
    struct client_mapping *mapping;
    uint64_t losses = client_memory_losses();
    int fd = ram(2);

    (void)state;
    assert_int_equal(client_memory_guard(), 0);
    for (unsigned i = 0; i < CLIENT_MAPPINGS_MAX; i++) {
        assert_int_equal(client_mapping_create(fd, 0, 2 * page, true, &many[i]), 0);
    }
    assert_int_equal(client_mapping_create(fd, 0, 2 * page, true, &mapping), -ENOSPC);
    assert_int_equal(ftruncate(fd, (off_t)page), 0);
    for (unsigned i = 0; i < CLIENT_MAPPINGS_MAX; i += 128) {
        ((uint8_t *)client_mapping_address(many[i]))[page] = 1;
    }
    assert_int_equal(client_memory_losses(), losses + CLIENT_MAPPINGS_MAX / 128);
    for (unsigned i = 0; i < CLIENT_MAPPINGS_MAX; i++) {
        client_mapping_destroy(many[i]);
    }
    assert_int_equal(client_mapping_create(fd, 0, page, true, &mapping), 0);
    client_mapping_destroy(mapping);
    close(fd);
}

static void a_sealed_file_cannot_be_cut(void **state)
{
    struct client_mapping *mapping;
    int fd = ram(2);

    (void)state;
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    assert_int_equal(client_mapping_create(fd, 0, 2 * page, true, &mapping), 0);
    assert_int_equal(ftruncate(fd, 0), -1);
    client_mapping_destroy(mapping);
    close(fd);
}

static void other_sigbus_still_kills(void **state)
{
    int status, fd = ram(1);
    uint8_t *bytes = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, 0);
    pid_t pid;

    (void)state;
    assert_int_equal(ftruncate(fd, 0), 0);
    pid = fork();
    if (pid == 0) {
        signal(SIGBUS, SIG_DFL);
        alarm(10);
        if (client_memory_guard() != 0) {
            _exit(0);
        }
        _exit(*(volatile uint8_t *)bytes);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    munmap(bytes, page);
    close(fd);
}

static void a_host_that_fails(void **state)
{
    struct client_mapping *mapping;
    int fd = ram(2);

    (void)state;
    let_fail(FSTAT, 0);
    assert_int_equal(client_mapping_create(fd, 0, page, true, &mapping), -EOVERFLOW);
    let_fail(CALLOC, 0);
    assert_int_equal(client_mapping_create(fd, 0, page, true, &mapping), -ENOMEM);
    let_fail(MMAP, 0);
    assert_int_equal(client_mapping_create(fd, 0, page, true, &mapping), -ENOMEM);
    assert_int_equal(failing, NOTHING);
    assert_int_equal(client_mapping_create(fd, 0, page, true, &mapping), 0);
    client_mapping_destroy(mapping);
    close(fd);
}

static void a_guard_that_cannot_be(void **state)
{
    (void)state;
    let_fail(SIGACTION, 0);
    assert_int_equal(client_memory_guard(), -EINVAL);
    signal(SIGBUS, SIG_DFL);
    let_fail(SIGACTION, 1);
    assert_int_equal(client_memory_guard(), -EINVAL);
    assert_int_equal(failing, NOTHING);
    assert_int_equal(client_memory_guard(), 0);
}

/* Nothing can stand in for what is lost: it is as without the guard. */
static void a_loss_that_stays_one_kills(void **state)
{
    struct client_mapping *mapping;
    int status, fd = ram(1);
    pid_t pid;

    (void)state;
    assert_int_equal(client_mapping_create(fd, 0, page, true, &mapping), 0);
    assert_int_equal(ftruncate(fd, 0), 0);
    pid = fork();
    if (pid == 0) {
        signal(SIGBUS, SIG_DFL);
        alarm(10);
        if (client_memory_guard() != 0) {
            _exit(0);
        }
        let_fail(MMAP, 0);
        _exit(*(volatile uint8_t *)client_mapping_address(mapping));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    client_mapping_destroy(mapping);
    close(fd);
}

/* There are more files than are kept open: the memory is mapped, and has no file to give away. */
static void more_files_than_are_kept(void **state)
{
    static struct client_mapping *many[CLIENT_FILES_MAX];
    struct client_mapping *mapping;
    int fd;

    (void)state;
    for (unsigned i = 0; i < CLIENT_FILES_MAX; i++) {
        fd = ram(1);
        assert_int_equal(client_mapping_create(fd, 0, page, true, &many[i]), 0);
        assert_true(client_mapping_fd(many[i]) >= 0);
        close(fd);
    }
    fd = ram(1);
    assert_int_equal(client_mapping_create(fd, 0, page, true, &mapping), 0);
    assert_int_equal(client_mapping_fd(mapping), -1);
    *(char *)client_mapping_address(mapping) = 'x';
    client_mapping_destroy(mapping);
    client_mapping_destroy(many[0]);
    assert_int_equal(client_mapping_create(fd, 0, page, true, &many[0]), 0);
    assert_true(client_mapping_fd(many[0]) >= 0);
    for (unsigned i = 0; i < CLIENT_FILES_MAX; i++) {
        client_mapping_destroy(many[i]);
    }
    close(fd);
}

/* A file that may only be read is not the one that may be written, though it is the same. */
static void one_file_opened_twice(void **state)
{
    struct client_mapping *mapping, *other;
    char name[32];
    int fd = ram(1), again;

    (void)state;
    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    again = open(name, O_RDONLY | O_CLOEXEC);
    assert_true(again >= 0);
    assert_int_equal(client_mapping_create(fd, 0, page, true, &mapping), 0);
    assert_int_equal(client_mapping_create(again, 0, page, true, &other), -EACCES);
    assert_int_equal(client_mapping_create(again, 0, page, false, &other), 0);
    assert_int_not_equal(client_mapping_fd(other), client_mapping_fd(mapping));
    assert_int_equal(fcntl(client_mapping_fd(other), F_GETFL) & O_ACCMODE, O_RDONLY);
    client_mapping_destroy(other);
    client_mapping_destroy(mapping);
    assert_null(client_file_get(-1));
    close(again);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contents_are_shared),
        cmocka_unit_test(the_file_stays_open),
        cmocka_unit_test(what_cannot_be_mapped),
        cmocka_unit_test(a_file_cut_short_reads_as_zero),
        cmocka_unit_test(a_part_of_a_huge_page),
        cmocka_unit_test(so_many_and_no_more),
        cmocka_unit_test(a_sealed_file_cannot_be_cut),
        cmocka_unit_test(other_sigbus_still_kills),
        cmocka_unit_test(a_host_that_fails),
        cmocka_unit_test(a_guard_that_cannot_be),
        cmocka_unit_test(a_loss_that_stays_one_kills),
        cmocka_unit_test(more_files_than_are_kept),
        cmocka_unit_test(one_file_opened_twice),
    };

    page = (size_t)sysconf(_SC_PAGESIZE);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
