/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The other side of a vfio-user connection, for tests: a client that says anything, right or wrong,
 * to an endpoint in the same process over a socket pair. Only for unit tests.
 */
#ifndef VIOMMU_SERVER_VFIO_USER_TEST_CLIENT_H
#define VIOMMU_SERVER_VFIO_USER_TEST_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#include "endpoint.h"
#include "support/fds.h"

struct test_client {
    int fd;
    struct vfio_user_endpoint *endpoint;
    uint16_t next_id;
    struct vfio_user_header header; /* of the last message received */
    uint8_t *payload;
    size_t payload_size;
};

/* Connect an endpoint that serves the function. */
void test_client_open(struct test_client *client, struct vfio_user_endpoint *endpoint,
                      struct pci_function *function);
void test_client_close(struct test_client *client);

/* Send bytes with descriptors attached to the first of them; they must fit the socket. */
void test_client_send_raw(struct test_client *client, const void *data, size_t size, const int *fds,
                          unsigned n_fds);

/* Send a command without waiting for anything. */
void test_client_send(struct test_client *client, uint16_t command, uint32_t flags,
                      const void *payload, size_t size, const int *fds, unsigned n_fds);

/* Receive one message into header and payload. Returns 1, or 0 when there is none. */
int test_client_receive(struct test_client *client);

/* Send a command, let the endpoint handle it, and receive the reply. Returns 0 or minus the errno
 * in the reply; a missing or wrong reply fails the test. */
int test_client_command_fds(struct test_client *client, uint16_t command, const void *payload,
                            size_t size, const int *fds, unsigned n_fds);
int test_client_command(struct test_client *client, uint16_t command, const void *payload,
                        size_t size);

/* The usual commands. */
void test_client_negotiate(struct test_client *client);
int test_client_read(struct test_client *client, uint32_t region, uint64_t offset, void *data,
                     uint32_t count);
int test_client_write(struct test_client *client, uint32_t region, uint64_t offset,
                      const void *data, uint32_t count);
int test_client_map(struct test_client *client, uint64_t address, uint64_t size, uint64_t offset,
                    uint32_t flags, int fd);
int test_client_unmap(struct test_client *client, uint64_t address, uint64_t size, uint32_t flags);
int test_client_set_irqs(struct test_client *client, uint32_t flags, uint32_t index, uint32_t start,
                         uint32_t count, const uint8_t *data, size_t data_size, const int *fds,
                         unsigned n_fds);

/* Open n eventfds that do not block; close n descriptors. */
void test_open_eventfds(int *fds, unsigned n);
void test_close_all(const int *fds, unsigned n);

/* How many times an eventfd was signalled since the last call. */
uint64_t test_eventfd_count(int eventfd);

#endif
