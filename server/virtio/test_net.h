/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A virtio-net function for its test, and what is around it: a loop, a driver, an IOMMU, a socket
 * where somebody listens. Of the C library's functions, the clock, which is ahead at the test's
 * word, and what makes watches, which cannot always. Only for net_test.c.
 */
#ifndef VIOMMU_SERVER_VIRTIO_TEST_NET_H
#define VIOMMU_SERVER_VIRTIO_TEST_NET_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "log.h"
#include "loop.h"
#include "unix_socket.h"
#include "virtio/net.h"
#include "virtio/test_iommu.h"
#include "virtio/test_vhost.h"

enum { PATIENCE_MS = 3000 };

/* ---- the host ---- */

static time_t ahead; /* seconds that went by unnoticed */
static bool no_watches;

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int ret = (int)syscall(SYS_clock_gettime, clock, now);

    now->tv_sec += ahead;
    return ret;
}

int epoll_ctl(int epoll, int what, int fd, struct epoll_event *event)
{
    if (no_watches && what == EPOLL_CTL_ADD) {
        errno = ENOSPC;
        return -1;
    }
    return (int)syscall(SYS_epoll_ctl, epoll, what, fd, event);
}

/* ---- all there is ---- */

static struct {
    char folder[32], path[64];
    int listener;
    struct stat file;
    struct loop loop;
    struct virtio_net *net;
    struct test_driver driver;
    struct pci_function *iommu; /* whose client the memory is of */
} all;

static void listen_there(void)
{
    all.listener = unix_socket_listen(all.path, 0600);
    assert_true(all.listener >= 0);
    assert_int_equal(lstat(all.path, &all.file), 0);
}

static void leave_there(void)
{
    unix_socket_remove(all.path, &all.file);
    close(all.listener);
    all.listener = -1;
}

static void make_net(void)
{
    const struct virtio_net_setup setup = {
        .far = all.path,
        .mac = {2, 4, 6, 8, 10, 12},
        .device = test.device,
        .memory = test.iommu.unit.memory,
        .loop = &all.loop,
    };

    assert_int_equal(virtio_net_create(&setup, "net", &all.net), 0);
    test_driver_attach(&all.driver, virtio_net_function(all.net));
}

static int setup_lonely(void **state)
{
    (void)state;
    server_log_to(NULL);
    memset(&far, 0, sizeof(far));
    memset(&all, 0, sizeof(all));
    memset(&test, 0, sizeof(test));
    strcpy(all.folder, "/tmp/viommu-net-XXXXXX");
    assert_non_null(mkdtemp(all.folder));
    snprintf(all.path, sizeof(all.path), "%s/far", all.folder);
    all.listener = -1;
    assert_int_equal(loop_init(&all.loop), 0);
    test_iommu_make();
    assert_int_equal(viommu_start(test.iommu.unit.iommu), 0);
    all.iommu = &test.iommu.pci.function;
    test_driver_open(&all.driver);
    test_driver_attach(&all.driver, all.iommu);
    return 0;
}

static int setup(void **state)
{
    setup_lonely(state);
    listen_there();
    make_net();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    virtio_net_destroy(all.net);
    assert_false(far.there);
    if (all.listener >= 0) {
        leave_there();
    }
    all.driver.function = all.iommu;
    test_driver_close(&all.driver);
    test_iommu_remove();
    loop_fini(&all.loop);
    rmdir(all.folder);
    return 0;
}

/* Ten milliseconds go by, or something happens. */
static void pass_time(void)
{
    int fd = all.listener < 0 ? -1 : accept4(all.listener, NULL, NULL, SOCK_CLOEXEC);

    if (fd >= 0) {
        close(fd); /* the queue of a socket is short */
    }
    loop_step(&all.loop, 10);
}

/* Lets the loop run until something holds, or it is clear that it never will. */
#define WAIT_UNTIL(what)                                                                           \
    do {                                                                                           \
        for (int rounds = 0; !(what) && rounds < PATIENCE_MS / 10; rounds++) {                     \
            pass_time();                                                                           \
        }                                                                                          \
        assert_true(what);                                                                         \
    } while (0)

static void step(void)
{
    while (loop_step(&all.loop, 0) == 1) {
    }
}

#endif
