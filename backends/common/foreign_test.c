/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of descriptors that another process gave. One is a file of a file system that is a process:
 * a thread of the test, which answers until the file is open, and from then on counts what it is
 * asked. Where the test may not mount such a thing that part is skipped.
 */
#include "common/foreign.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/mount.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/fds.h"

/* ---- a file system that is a process --------------------------------------------------------- */

enum {
    FILE_NODE = 2,
    WAITS_MAX = 100, /* of 100 ms */
};

static struct {
    int device; /* /dev/fuse, or -1 */
    int mount;
    int file;
    pthread_t thread;
    pthread_t askers[2]; /* who waits for it */
    unsigned asker_count;
    atomic_bool silent;
    atomic_bool stop;
    atomic_uint asked; /* since it is silent */
} fs;

static void answer(uint64_t unique, int error, const void *data, size_t size)
{
    uint8_t message[512] = {0};
    struct fuse_out_header head = {
        .len = (uint32_t)(sizeof(head) + size), .error = error, .unique = unique};

    memcpy(message, &head, sizeof(head));
    if (size > 0) {
        memcpy(message + sizeof(head), data, size);
    }
    (void)!write(fs.device, message, sizeof(head) + size);
}

static void answer_request(const struct fuse_in_header *head)
{
    const struct fuse_attr file = {
        .ino = FILE_NODE, .size = 4096, .mode = S_IFREG | 0600, .nlink = 1};
    const struct fuse_attr root = {.ino = FUSE_ROOT_ID, .mode = S_IFDIR | 0700, .nlink = 2};

    switch (head->opcode) {
    case FUSE_INIT:
        answer(head->unique, 0,
               &(struct fuse_init_out){.major = FUSE_KERNEL_VERSION,
                                       .minor = FUSE_KERNEL_MINOR_VERSION,
                                       .max_write = 4096},
               sizeof(struct fuse_init_out));
        break;
    case FUSE_LOOKUP:
        answer(head->unique, 0,
               &(struct fuse_entry_out){.nodeid = FILE_NODE, .generation = 1, .attr = file},
               sizeof(struct fuse_entry_out));
        break;
    case FUSE_GETATTR:
        answer(head->unique, 0,
               &(struct fuse_attr_out){.attr = head->nodeid == FILE_NODE ? file : root},
               sizeof(struct fuse_attr_out));
        break;
    case FUSE_OPEN:
        answer(head->unique, 0, &(struct fuse_open_out){.fh = 1}, sizeof(struct fuse_open_out));
        break;
    default:
        answer(head->unique, -ENOSYS, NULL, 0);
    }
}

/* Until it is to stop, or has kept somebody waiting for long: nobody else could end that, as even
 * who is killed waits. */
static void *serve(void *unused)
{
    static uint8_t request[65536 + 4096];
    struct pollfd device = {.fd = fs.device, .events = POLLIN};
    struct fuse_in_header head;
    unsigned waits = 0;

    (void)unused;
    while (!fs.stop && waits < WAITS_MAX) {
        if (poll(&device, 1, 100) == 0) {
            waits += fs.asked > 0;
        } else if (read(fs.device, request, sizeof(request)) < (ssize_t)sizeof(head)) {
            break;
        } else if (fs.silent) {
            fs.asked++;
        } else {
            memcpy(&head, request, sizeof(head));
            answer_request(&head);
        }
    }
    close(fs.device);
    return NULL;
}

/* Returns a mount that is nowhere yet, or -1. */
static int mount_it(void)
{
    int context = (int)syscall(SYS_fsopen, "fuse", FSOPEN_CLOEXEC), ret = 0;
    char number[16];
    int mount = -1;

    snprintf(number, sizeof(number), "%d", fs.device);
    ret |= (int)syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "fd", number, 0);
    ret |= (int)syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "rootmode", "40000", 0);
    ret |= (int)syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "user_id", "0", 0);
    ret |= (int)syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "group_id", "0", 0);
    ret |= (int)syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
    if (ret == 0) {
        mount = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0);
    }
    if (context >= 0) {
        close(context);
    }
    return mount;
}

static int begin_fs(void **state)
{
    (void)state;
    fs.file = fs.mount = -1;
    fs.silent = fs.stop = false;
    fs.asked = 0;
    fs.asker_count = 0;
    fs.device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fs.device >= 0) {
        fs.mount = mount_it();
    }
    if (fs.mount < 0) {
        if (fs.device >= 0) {
            close(fs.device);
        }
        return 0;
    }
    if (pthread_create(&fs.thread, NULL, serve, NULL) != 0) {
        return -1;
    }
    fs.file = openat(fs.mount, "file", O_RDWR | O_CLOEXEC);
    fs.silent = true;
    return fs.file >= 0 ? 0 : -1;
}

/* Whoever waits for it is told that it is over. */
static int end_fs(void **state)
{
    (void)state;
    if (fs.mount >= 0) {
        fs.stop = true;
        pthread_join(fs.thread, NULL);
        for (unsigned i = 0; i < fs.asker_count; i++) {
            pthread_join(fs.askers[i], NULL);
        }
        close(fs.file);
        close(fs.mount);
    }
    return 0;
}

static void *ask_for_its_size(void *unused)
{
    struct stat status;

    (void)unused;
    (void)fstat(fs.file, &status);
    return NULL;
}

static void *close_a_copy(void *unused)
{
    (void)unused;
    close(dup(fs.file));
    return NULL;
}

/* That this file system is as bad as it has to be: it is asked, and somebody waits. */
static void it_is_asked(void *(*by)(void *unused))
{
    unsigned before = fs.asked;

    assert_int_equal(pthread_create(&fs.askers[fs.asker_count], NULL, by, NULL), 0);
    fs.asker_count++;
    while (fs.asked == before) {
        usleep(1000);
    }
}

static void nobody_is_asked(void **state)
{
    struct foreign_identity one, other;
    unsigned aside = foreign_aside();
    int copy;

    (void)state;
    if (fs.file < 0) {
        skip();
    }
    copy = fcntl(fs.file, F_DUPFD_CLOEXEC, 0);
    assert_int_equal(foreign_identify(fs.file, &one), 0);
    assert_int_equal(foreign_identify(copy, &other), 0);
    assert_true(one.device == other.device && one.inode == other.inode);
    assert_false(foreign_is_file(copy, NULL));
    foreign_close(copy);
    assert_int_equal(foreign_aside(), aside + 1);
    assert_true(fcntl(copy, F_GETFD) >= 0); /* it is open still */
    assert_int_equal(fs.asked, 0);
    it_is_asked(ask_for_its_size);
    it_is_asked(close_a_copy);
}

/* Its mount is one that we see: its type is known then. */
static void a_mount_that_is_seen(void **state)
{
    char name[] = "/tmp/viommu-foreign-XXXXXX";

    (void)state;
    if (fs.file < 0) {
        skip();
    }
    assert_non_null(mkdtemp(name));
    assert_int_equal(syscall(SYS_move_mount, fs.mount, "", AT_FDCWD, name, MOVE_MOUNT_F_EMPTY_PATH),
                     0);
    assert_false(foreign_is_file(fs.file, NULL));
    assert_int_equal(fs.asked, 0);
    assert_int_equal(syscall(SYS_umount2, name, 2 /* to be detached */), 0);
    assert_int_equal(rmdir(name), 0);
}

/* ---- others ---------------------------------------------------------------------------------- */

static void files(void **state)
{
    char name[] = "/tmp/viommu-foreign-XXXXXX";
    int memory = memfd_create("test", MFD_CLOEXEC), disk = mkstemp(name), pipes[2];
    struct foreign_identity one, other;

    (void)state;
    unlink(name);
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    assert_true(foreign_is_file(memory, NULL));
    assert_true(foreign_is_file(disk, NULL));
    assert_true(foreign_is_file(memory, &one));
    assert_int_equal(foreign_identify(memory, &other), 0);
    assert_true(one.device == other.device && one.inode == other.inode);
    assert_false(foreign_is_file(pipes[0], NULL));
    assert_false(foreign_is_file(-1, NULL));
    assert_int_equal(foreign_identify(memory, &one), 0);
    assert_int_equal(foreign_identify(disk, &other), 0);
    assert_false(one.device == other.device && one.inode == other.inode);
    assert_int_equal(foreign_identify(-1, &one), -EBADF);
    close(memory);
    close(disk);
    close(pipes[0]);
    close(pipes[1]);
}

/* What honest processes send is closed. */
static void what_closes_at_once(void **state)
{
    char name[] = "/tmp/viommu-foreign-XXXXXX";
    unsigned before = support_open_fds(), aside = foreign_aside();
    int sockets[2], pipes[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    foreign_close(sockets[0]);
    foreign_close(sockets[1]);
    foreign_close(pipes[0]);
    foreign_close(pipes[1]);
    foreign_close(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    foreign_close(memfd_create("test", MFD_CLOEXEC));
    foreign_close(eventfd(0, EFD_CLOEXEC));
    foreign_close(epoll_create1(EPOLL_CLOEXEC));
    foreign_close(open("/dev/null", O_RDWR | O_CLOEXEC));
    foreign_close(open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    foreign_close(mkstemp(name));
    unlink(name);
    assert_int_equal(support_open_fds(), before);
    assert_int_equal(foreign_aside(), aside);
}

/* A socket of TCP can be made such that closing it waits. */
static void what_may_wait(void **state)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unsigned aside = foreign_aside();

    (void)state;
    if (fd < 0) {
        skip();
    }
    foreign_close(fd);
    assert_int_equal(foreign_aside(), aside + 1);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files),
        cmocka_unit_test(what_closes_at_once),
        cmocka_unit_test(what_may_wait),
        cmocka_unit_test_setup_teardown(nobody_is_asked, begin_fs, end_fs),
        cmocka_unit_test_setup_teardown(a_mount_that_is_seen, begin_fs, end_fs),
    };

    /* What is mounted here is seen by nobody else. */
    if (unshare(CLONE_NEWNS) == 0) {
        (void)syscall(SYS_mount, "none", "/", NULL, (1 << 14) | (1 << 18) /* private, all */, NULL);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
