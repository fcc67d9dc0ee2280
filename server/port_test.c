/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of ports and the loop: sockets in the file system, clients that come, go and come again.
 */
#include "port.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "edu.h"
#include "log.h"
#include "vfio_user/test_client.h"

static char folder[64], path[96];
static struct loop loop;
static struct port port;
static struct edu edu;

static int no_dma_read(void *opaque, uint64_t iova, void *data, size_t size)
{
    (void)opaque;
    (void)iova;
    (void)data;
    (void)size;
    return -EFAULT;
}

static int setup(void **state)
{
    static const struct device_dma dma = {.read = no_dma_read};

    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/viommu-port-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/socket", folder);
    edu_init(&edu, "edu", &dma);
    assert_int_equal(loop_init(&loop), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    loop_fini(&loop);
    unlink(path);
    assert_int_equal(rmdir(folder), 0);
    return 0;
}

static int connect_to(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strncpy(address.sun_path, name, sizeof(address.sun_path) - 1);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        close(fd);
        return -errno;
    }
    return fd;
}

static void run(void)
{
    int ret;

    do {
        ret = loop_step(&loop, 0);
        assert_true(ret >= 0);
        port_update(&port);
    } while (ret > 0);
}

/* Say hello and ask for a reset, over the real loop. */
static void talk(int fd)
{
    static const struct {
        struct vfio_user_header header;
        struct vfio_user_version version;
    } hello = {.header = {.command = VFIO_USER_VERSION, .size = 20}};
    static const struct vfio_user_header reset = {.command = VFIO_USER_DEVICE_RESET, .size = 16};
    struct vfio_user_header answer;
    uint8_t text[256];

    assert_int_equal(send(fd, &hello, 20, 0), 20);
    assert_int_equal(send(fd, &reset, sizeof(reset), 0), sizeof(reset));
    run();
    assert_int_equal(recv(fd, &answer, sizeof(answer), MSG_DONTWAIT), sizeof(answer));
    assert_int_equal(answer.flags, VFIO_USER_TYPE_REPLY);
    assert_true(answer.size - sizeof(answer) < sizeof(text));
    assert_int_equal(recv(fd, text, answer.size - sizeof(answer), MSG_DONTWAIT),
                     answer.size - sizeof(answer));
    assert_int_equal(recv(fd, &answer, sizeof(answer), MSG_DONTWAIT), sizeof(answer));
    assert_int_equal(answer.flags, VFIO_USER_TYPE_REPLY);
}

static void one_client_after_the_other(void **state)
{
    int first, second;

    (void)state;
    assert_int_equal(port_open(&port, &loop, &edu.function, path), 0);
    first = connect_to(path);
    assert_true(first >= 0);
    talk(first);
    assert_true(port.connected);
    /* A second one waits until the first is gone. */
    second = connect_to(path);
    assert_true(second >= 0);
    run();
    assert_int_equal(port.clients, 1);
    edu.liveness = 5;
    close(first);
    talk(second);
    assert_int_equal(port.clients, 2);
    assert_int_equal(edu.liveness, 0);
    close(second);
    run();
    assert_false(port.connected);
    second = connect_to(path);
    talk(second);
    port_close(&port);
    assert_int_equal(access(path, F_OK), -1);
    close(second);
}

static void a_client_that_talks_nonsense_is_dropped(void **state)
{
    uint8_t nonsense[64];
    int fd;

    (void)state;
    memset(nonsense, 0xee, sizeof(nonsense));
    assert_int_equal(port_open(&port, &loop, &edu.function, path), 0);
    fd = connect_to(path);
    assert_int_equal(send(fd, nonsense, sizeof(nonsense), 0), sizeof(nonsense));
    run();
    assert_false(port.connected);
    close(fd);
    fd = connect_to(path);
    talk(fd);
    close(fd);
    port_close(&port);
}

static void a_stale_socket_is_replaced(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)state;
    memcpy(address.sun_path, path, strlen(path));
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(port_open(&port, &loop, &edu.function, path), 0);
    fd = connect_to(path);
    talk(fd);
    close(fd);
    port_close(&port);
}

static void what_is_in_use_is_left_alone(void **state)
{
    struct port second;
    char name[200];
    int fd;

    (void)state;
    assert_int_equal(port_open(&port, &loop, &edu.function, path), 0);
    assert_int_equal(port_open(&second, &loop, &edu.function, path), -EADDRINUSE);
    run();
    fd = connect_to(path);
    talk(fd);
    assert_int_equal(port_open(&second, &loop, &edu.function, path), -EADDRINUSE);
    close(fd);
    port_close(&port);
    fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    close(fd);
    assert_int_equal(port_open(&second, &loop, &edu.function, path), -EEXIST);
    assert_int_equal(access(path, F_OK), 0);
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    assert_int_equal(port_open(&second, &loop, &edu.function, name), -ENAMETOOLONG);
    snprintf(name, sizeof(name), "%s/none/socket", folder);
    assert_int_equal(port_open(&second, &loop, &edu.function, name), -ENOENT);
    assert_int_equal(port_open(&second, &loop, &edu.function, ""), -ENOENT);
}

static void the_socket_of_a_successor_stays(void **state)
{
    struct port successor;

    (void)state;
    assert_int_equal(port_open(&port, &loop, &edu.function, path), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(port_open(&successor, &loop, &edu.function, path), 0);
    port_close(&port);
    assert_int_equal(access(path, F_OK), 0);
    port_close(&successor);
    assert_int_equal(access(path, F_OK), -1);
}

static void signals_end_the_loop(void **state)
{
    (void)state;
    assert_int_equal(loop_stop_on_signals(&loop), 0);
    assert_int_equal(port_open(&port, &loop, &edu.function, path), 0);
    kill(getpid(), SIGTERM);
    assert_int_equal(loop_run(&loop), 0);
    assert_true(loop.stop);
    port_close(&port);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_client_after_the_other),
        TEST(a_client_that_talks_nonsense_is_dropped),
        TEST(a_stale_socket_is_replaced),
        TEST(what_is_in_use_is_left_alone),
        TEST(the_socket_of_a_successor_stays),
        TEST(signals_end_the_loop),
    };

    server_log_to(NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
