/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A vfio-user client for tests; see test_client.h.
 */
#include "test_client.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

void test_client_open(struct test_client *client, struct vfio_user_endpoint *endpoint,
                      struct pci_function *function)
{
    int pair[2];

    memset(client, 0, sizeof(*client));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(vfio_user_endpoint_init(endpoint, function, pair[1]), 0);
    client->fd = pair[0];
    client->endpoint = endpoint;
}

void test_client_close(struct test_client *client)
{
    if (client->fd >= 0) {
        close(client->fd);
    }
    free(client->payload);
    vfio_user_endpoint_fini(client->endpoint);
}

void test_client_send_raw(struct test_client *client, const void *data, size_t size, const int *fds,
                          unsigned n_fds)
{
    assert_int_equal(support_send_fds(client->fd, data, size, fds, n_fds), size);
}

void test_client_send(struct test_client *client, uint16_t command, uint32_t flags,
                      const void *payload, size_t size, const int *fds, unsigned n_fds)
{
    struct vfio_user_header header = {
        .id = ++client->next_id,
        .command = command,
        .size = (uint32_t)(sizeof(header) + size),
        .flags = flags,
    };
    uint8_t *message = malloc(header.size);

    assert_non_null(message);
    memcpy(message, &header, sizeof(header));
    if (size > 0) {
        memcpy(message + sizeof(header), payload, size);
    }
    test_client_send_raw(client, message, header.size, fds, n_fds);
    free(message);
}

int test_client_receive(struct test_client *client)
{
    size_t have = 0;
    ssize_t n = recv(client->fd, &client->header, sizeof(client->header), MSG_DONTWAIT);

    if (n < 0) {
        assert_int_equal(errno, EAGAIN);
        return 0;
    }
    assert_int_equal(n, sizeof(client->header));
    assert_true(client->header.size >= sizeof(client->header));
    client->payload_size = client->header.size - sizeof(client->header);
    free(client->payload);
    client->payload = malloc(client->payload_size + 1);
    assert_non_null(client->payload);
    while (have < client->payload_size) {
        n = recv(client->fd, client->payload + have, client->payload_size - have, MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) {
            /* A long reply: the endpoint still holds some of it. */
            assert_int_equal(vfio_user_endpoint_ready(client->endpoint), 0);
            continue;
        }
        assert_true(n > 0);
        have += (size_t)n;
    }
    return 1;
}

int test_client_command_fds(struct test_client *client, uint16_t command, const void *payload,
                            size_t size, const int *fds, unsigned n_fds)
{
    test_client_send(client, command, VFIO_USER_TYPE_COMMAND, payload, size, fds, n_fds);
    assert_int_equal(vfio_user_endpoint_ready(client->endpoint), 0);
    assert_int_equal(test_client_receive(client), 1);
    assert_int_equal(client->header.id, client->next_id);
    assert_int_equal(client->header.command, command);
    assert_int_equal(client->header.flags & VFIO_USER_TYPE_MASK, VFIO_USER_TYPE_REPLY);
    if (client->header.flags & VFIO_USER_ERROR) {
        assert_int_equal(client->payload_size, 0);
        assert_true(client->header.error > 0);
        return -(int)client->header.error;
    }
    assert_int_equal(client->header.error, 0);
    return 0;
}

int test_client_command(struct test_client *client, uint16_t command, const void *payload,
                        size_t size)
{
    return test_client_command_fds(client, command, payload, size, NULL, 0);
}

void test_client_negotiate(struct test_client *client)
{
    static const char version[] = "\0\0\0\0{\"capabilities\":{\"max_msg_fds\":8}}";

    assert_int_equal(test_client_command(client, VFIO_USER_VERSION, version, sizeof(version)), 0);
}

int test_client_read(struct test_client *client, uint32_t region, uint64_t offset, void *data,
                     uint32_t count)
{
    struct vfio_user_region_access access = {.offset = offset, .region = region, .count = count};
    int ret = test_client_command(client, VFIO_USER_REGION_READ, &access, sizeof(access));

    if (ret == 0) {
        assert_int_equal(client->payload_size, sizeof(access) + count);
        assert_memory_equal(client->payload, &access, sizeof(access));
        memcpy(data, client->payload + sizeof(access), count);
    }
    return ret;
}

int test_client_write(struct test_client *client, uint32_t region, uint64_t offset,
                      const void *data, uint32_t count)
{
    struct vfio_user_region_access access = {.offset = offset, .region = region, .count = count};
    uint8_t *payload = malloc(sizeof(access) + count);
    int ret;

    assert_non_null(payload);
    memcpy(payload, &access, sizeof(access));
    memcpy(payload + sizeof(access), data, count);
    ret = test_client_command(client, VFIO_USER_REGION_WRITE, payload, sizeof(access) + count);
    free(payload);
    if (ret == 0) {
        assert_int_equal(client->payload_size, sizeof(access));
        assert_memory_equal(client->payload, &access, sizeof(access));
    }
    return ret;
}

int test_client_map(struct test_client *client, uint64_t address, uint64_t size, uint64_t offset,
                    uint32_t flags, int fd)
{
    struct vfio_user_dma_map map = {
        .argsz = sizeof(map), .flags = flags, .offset = offset, .address = address, .size = size};

    return test_client_command_fds(client, VFIO_USER_DMA_MAP, &map, sizeof(map), &fd, fd >= 0);
}

int test_client_unmap(struct test_client *client, uint64_t address, uint64_t size, uint32_t flags)
{
    struct vfio_user_dma_unmap unmap = {
        .argsz = sizeof(unmap), .flags = flags, .address = address, .size = size};
    int ret = test_client_command(client, VFIO_USER_DMA_UNMAP, &unmap, sizeof(unmap));

    if (ret == 0) {
        assert_int_equal(client->payload_size, sizeof(unmap));
        assert_memory_equal(client->payload, &unmap, sizeof(unmap));
    }
    return ret;
}

int test_client_set_irqs(struct test_client *client, uint32_t flags, uint32_t index, uint32_t start,
                         uint32_t count, const uint8_t *data, size_t data_size, const int *fds,
                         unsigned n_fds)
{
    uint8_t payload[sizeof(struct vfio_irq_set) + 256];
    struct vfio_irq_set set = {.argsz = (uint32_t)(sizeof(set) + data_size),
                               .flags = flags,
                               .index = index,
                               .start = start,
                               .count = count};

    assert_true(data_size <= 256);
    memcpy(payload, &set, sizeof(set));
    if (data_size > 0) {
        memcpy(payload + sizeof(set), data, data_size);
    }
    return test_client_command_fds(client, VFIO_USER_DEVICE_SET_IRQS, payload,
                                   sizeof(set) + data_size, fds, n_fds);
}

void test_open_eventfds(int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        assert_true(fds[i] >= 0);
    }
}

void test_close_all(const int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        close(fds[i]);
    }
}

uint64_t test_eventfd_count(int eventfd)
{
    uint64_t count = 0;

    if (read(eventfd, &count, sizeof(count)) < 0) {
        assert_int_equal(errno, EAGAIN);
        return 0;
    }
    return count;
}
