/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A client's end of a twin socket; see test_twin.h.
 */
#include "test_twin.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "vfio_user/protocol.h"

enum {
    MESSAGE_MAX = sizeof(struct vfio_user_header) + VFIO_USER_MAX_PAYLOAD + 64,
};

struct message {
    struct vfio_user_header header;
    struct vfio_user_dma_access access;
    uint8_t data[MESSAGE_MAX];
};

static bool receive(int fd, void *data, size_t size)
{
    return size == 0 || recv(fd, data, size, MSG_WAITALL) == (ssize_t)size;
}

static void send_all(int fd, const void *data, size_t size, size_t piece)
{
    for (size_t done = 0; done < size; done += piece) {
        size_t n = size - done < piece ? size - done : piece;

        if (send(fd, (const uint8_t *)data + done, n, MSG_NOSIGNAL) != (ssize_t)n) {
            return;
        }
    }
}

static void spoil(enum test_twin_how how, struct message *message)
{
    struct vfio_user_header *header = &message->header;

    switch (how) {
    case TWIN_OTHER_ID:
        header->id++;
        break;
    case TWIN_OTHER_COMMAND:
        header->command ^= VFIO_USER_DMA_READ ^ VFIO_USER_DMA_WRITE;
        break;
    case TWIN_ASKS_BACK:
        header->flags = VFIO_USER_TYPE_COMMAND;
        break;
    case TWIN_TOO_SHORT:
        header->size--;
        break;
    case TWIN_TOO_LONG:
        header->size++;
        break;
    case TWIN_NO_PAYLOAD:
        header->size = sizeof(*header);
        break;
    case TWIN_OTHER_ADDRESS:
        message->access.address ^= 0x1000;
        break;
    case TWIN_OTHER_COUNT:
        message->access.count++;
        break;
    default:
        break;
    }
}

/* Make an answer of a request. */
static void answer(struct test_twin *twin, struct message *message)
{
    const enum test_twin_how how = twin->how;
    const bool reads = message->header.command == VFIO_USER_DMA_READ;
    uint64_t address = message->access.address, count = message->access.count;
    bool inside = address >= TEST_TWIN_BASE && count <= TEST_TWIN_SIZE &&
                  address - TEST_TWIN_BASE <= TEST_TWIN_SIZE - count;
    size_t size = sizeof(message->header) + sizeof(message->access) + (reads ? (size_t)count : 0);

    if (inside && reads) {
        memcpy(message->data, twin->memory + (address - TEST_TWIN_BASE), (size_t)count);
    } else if (inside && how == TWIN_ANSWERS) {
        memcpy(twin->memory + (address - TEST_TWIN_BASE), message->data, (size_t)count);
    }
    message->header.flags = VFIO_USER_TYPE_REPLY;
    message->header.size = (uint32_t)size;
    if (!inside || how == TWIN_REFUSES || how == TWIN_REFUSES_ODDLY) {
        message->header.flags |= VFIO_USER_ERROR;
        message->header.error = how == TWIN_REFUSES_ODDLY ? 0 : EFAULT;
        message->header.size = how == TWIN_REFUSES_ODDLY ? 40 : sizeof(message->header);
    }
    spoil(how, message);
    if (how == TWIN_TINY_SIZE || how == TWIN_HUGE_SIZE) {
        message->header.size = how == TWIN_TINY_SIZE ? 15 : UINT32_MAX;
        size = 64;
    } else if (how == TWIN_STOPS_MIDWAY || how == TWIN_CLOSES_MIDWAY) {
        size -= 1 + (reads ? (size_t)count / 2 : 0);
    } else {
        size = message->header.size;
    }
    send_all(twin->fd, message, size, how == TWIN_TRICKLES ? 1 : size);
}

/* Returns whether there is more to come. */
static bool serve(struct test_twin *twin, struct message *message)
{
    size_t data;

    if (!receive(twin->fd, &message->header, sizeof(message->header)) ||
        !receive(twin->fd, &message->access, sizeof(message->access))) {
        return false;
    }
    data = message->header.size - sizeof(message->header) - sizeof(message->access);
    if (!receive(twin->fd, message->data, data)) {
        return false;
    }
    twin->reads += message->header.command == VFIO_USER_DMA_READ;
    twin->writes += message->header.command == VFIO_USER_DMA_WRITE;
    twin->last_address = message->access.address;
    if (message->access.count > twin->largest) {
        twin->largest = message->access.count;
    }
    if (message->header.flags & VFIO_USER_NO_REPLY) {
        twin->posted++;
    } else if (twin->how != TWIN_SILENT && twin->how != TWIN_CLOSES) {
        answer(twin, message);
    }
    return twin->how != TWIN_CLOSES && twin->how != TWIN_CLOSES_MIDWAY;
}

static void *run(void *opaque)
{
    struct test_twin *twin = opaque;
    struct message *message = malloc(sizeof(*message));

    while (message && serve(twin, message)) {
    }
    shutdown(twin->fd, SHUT_RDWR);
    free(message);
    return NULL;
}

int test_twin_negotiate(struct test_client *client, const char *text)
{
    union {
        char room[CMSG_SPACE(4 * sizeof(int))];
        struct cmsghdr align;
    } control;
    uint8_t bytes[512] = {0};
    struct iovec iov = {.iov_base = bytes, .iov_len = sizeof(bytes)};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.room,
        .msg_controllen = sizeof(control.room),
    };
    const struct cmsghdr *cmsg;
    int fd = -1;

    memcpy(bytes + sizeof(struct vfio_user_version), text, strlen(text));
    test_client_send(client, VFIO_USER_VERSION, VFIO_USER_TYPE_COMMAND, bytes,
                     sizeof(struct vfio_user_version) + strlen(text) + 1, NULL, 0);
    assert_int_equal(vfio_user_endpoint_ready(client->endpoint), 0);
    assert_true(recvmsg(client->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) > 20);
    cmsg = CMSG_FIRSTHDR(&msg);
    if (cmsg) {
        assert_int_equal(cmsg->cmsg_len, CMSG_LEN(sizeof(int)));
        memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
    }
    assert_int_equal(strstr((char *)bytes + 20,
                            "\"twin_socket\":{\"supported\":true,\"fd_index\":0}") != NULL,
                     fd >= 0);
    return fd;
}

void test_twin_start(struct test_twin *twin, int fd)
{
    memset(twin, 0, sizeof(*twin));
    twin->fd = fd;
    twin->memory = malloc(TEST_TWIN_SIZE);
    assert_non_null(twin->memory);
    for (size_t i = 0; i < TEST_TWIN_SIZE; i++) {
        twin->memory[i] = (uint8_t)(i ^ i >> 12);
    }
    assert_int_equal(pthread_create(&twin->thread, NULL, run, twin), 0);
}

void test_twin_stop(struct test_twin *twin)
{
    shutdown(twin->fd, SHUT_RDWR);
    assert_int_equal(pthread_join(twin->thread, NULL), 0);
    close(twin->fd);
    free(twin->memory);
}
