/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The client's end of a twin socket, for tests: a thread that answers DMA_READ and DMA_WRITE from
 * memory of its own, rightly or in one of many wrong ways. Only for unit tests.
 *
 * Threads: `how` may be changed at any time, the rest is looked at after test_twin_stop, or while
 * no request is under way.
 */
#ifndef VIOMMU_SERVER_VFIO_USER_TEST_TWIN_H
#define VIOMMU_SERVER_VFIO_USER_TEST_TWIN_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "test_client.h"

enum test_twin_how {
    TWIN_ANSWERS,
    TWIN_TRICKLES, /* a right answer, byte by byte */
    TWIN_REFUSES,
    TWIN_REFUSES_ODDLY, /* with errno 0 and a payload */
    /* From here on what it does ends the connection. */
    TWIN_OTHER_ID,
    TWIN_OTHER_COMMAND,
    TWIN_ASKS_BACK, /* sends it as a command */
    TWIN_TOO_SHORT,
    TWIN_TOO_LONG,
    TWIN_NO_PAYLOAD,
    TWIN_OTHER_ADDRESS,
    TWIN_OTHER_COUNT,
    TWIN_TINY_SIZE, /* a header that says less than its own size */
    TWIN_HUGE_SIZE,
    TWIN_SILENT,
    TWIN_STOPS_MIDWAY,
    TWIN_CLOSES,
    TWIN_CLOSES_MIDWAY,
    TWIN_ENDS,
};

enum {
    TEST_TWIN_BASE = 0x100000,
    TEST_TWIN_SIZE = 3 << 20,
};

struct test_twin {
    int fd;
    pthread_t thread;
    _Atomic enum test_twin_how how;
    uint8_t *memory; /* TEST_TWIN_SIZE bytes at TEST_TWIN_BASE; other addresses are refused */
    unsigned reads;
    unsigned writes;
    unsigned posted; /* writes that want no answer */
    uint64_t largest; /* count */
    uint64_t last_address;
};

#define TEST_TWIN_WANTED "{\"capabilities\":{\"twin_socket\":{\"supported\":true}}}"

/* Let a client say VERSION with this text. Returns the descriptor that came with the reply, or -1;
 * it comes where the reply says so. */
int test_twin_negotiate(struct test_client *client, const char *text);

/* Take over the client's end. */
void test_twin_start(struct test_twin *twin, int fd);

/* The server's end was closed, or is now of no use. */
void test_twin_stop(struct test_twin *twin);

#endif
