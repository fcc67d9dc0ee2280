/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A far device server for tests of the relay, in the same process and on the same thread: it does
 * something when a test lets it (test_far_step), right or wrong. Around it: a VT-d unit in caching
 * mode whose translation is off, so that a device reaches all of the guest's memory; the relay; and
 * a client of it. Only for unit tests.
 */
#ifndef VIOMMU_SERVER_RELAY_TEST_FAR_H
#define VIOMMU_SERVER_RELAY_TEST_FAR_H

#include "loop.h"
#include "relay.h"
#include "vfio_user/connection.h"
#include "vfio_user/endpoint.h"
#include "vtd_function.h"

enum {
    TEST_BAR_SIZE = 0x4000,
    TEST_VECTORS = 40,
    /* Long enough for a machine that has much else to do. */
    TEST_ANSWER_MS = 600,
    TEST_JOIN_MS = 1500,
    TEST_LOG_MAX = 256,
};

/* How it answers a command that is named by `odd_command`. */
enum test_odd {
    TEST_ODD_NONE,
    TEST_ODD_SILENT, /* not */
    TEST_ODD_LEAVE,  /* it closes the connection instead */
    TEST_ODD_SHORT,  /* two bytes too few */
    TEST_ODD_LONG,   /* two bytes too many */
    TEST_ODD_OTHER,  /* bytes that differ */
    TEST_ODD_FRAME,  /* a header that cannot be */
    TEST_ODD_NUMBER, /* to a command that nobody sent */
    TEST_ODD_REFUSE, /* with an error */
};

struct test_far {
    const char *path;
    int listener; /* -1: it is not there */
    bool connected;
    struct vfio_user_connection connection;
    unsigned connections; /* ever */
    uint16_t odd_command;
    enum test_odd odd;
    unsigned odd_skip;        /* answer so many of them as one should */
    unsigned odd_times;       /* and then so many as they should not be; 0: all */
    const char *capabilities; /* more that it names, a comma first; or NULL */
    bool hold;                /* take nothing in */

    /* The device. */
    uint8_t bar[TEST_BAR_SIZE];
    uint8_t config[256];
    uint32_t vectors;
    int file;       /* -1: BAR0 cannot be mapped */
    unsigned areas; /* of it, that can; 0: all */
    bool no_reset;
    unsigned max_fds;           /* it takes with one message */
    int eventfds[TEST_VECTORS]; /* of MSI-X, on this connection */

    unsigned count[16];         /* commands, by number, on this connection */
    unsigned mapped_files;      /* DMA_MAP with a descriptor, ever */
    uint16_t log[TEST_LOG_MAX]; /* commands, on this connection */
    unsigned log_count;
};

/* A message that the client got. */
struct test_answer {
    int error; /* 0, or minus the errno in it */
    uint16_t id;
    uint8_t data[4096];
    size_t size;
    int fd; /* that came along, or -1 */
};

struct test_relay {
    struct loop loop;
    struct vtd_function vtd;
    struct viommu_device *device;
    struct test_far far;
    struct relay relay;
    struct vfio_user_endpoint endpoint;
    bool attached;
    struct vfio_user_connection client; /* its end */
    uint16_t next_id;
    int memory_fd;
    void *memory_cookie;
    uint64_t memory_last;
    char path[96];
    unsigned fds_at_start;
};

void test_far_listen(struct test_far *far);
void test_far_leave(struct test_far *far); /* and is gone, as a process that was killed */
void test_far_step(struct test_far *far);

void test_relay_open(struct test_relay *test, bool isolate);
void test_relay_close(struct test_relay *test);

/* A client comes and says hello; goes. */
void test_relay_attach(struct test_relay *test);
void test_relay_detach(struct test_relay *test);

/* All that can be done now. */
void test_relay_step(struct test_relay *test);

/* Goes on until the relay is in a state, or something else has come about; fails the test when that
 * takes long. Or for so long. */
void test_relay_until(struct test_relay *test, enum relay_state state);
void test_relay_wait(struct test_relay *test, bool (*condition)(const struct test_relay *test));
void test_relay_for(struct test_relay *test, unsigned ms);

/* Sends a command of the client; waits for an answer; both. */
uint16_t test_relay_send(struct test_relay *test, uint16_t command, uint32_t flags,
                         const void *data, size_t size, const int *fds, unsigned n_fds);
bool test_relay_receive(struct test_relay *test, struct test_answer *answer);
int test_relay_command(struct test_relay *test, uint16_t command, const void *data, size_t size,
                       struct test_answer *answer);

int test_relay_read32(struct test_relay *test, uint32_t region, uint64_t offset, uint32_t *value);
int test_relay_write32(struct test_relay *test, uint32_t region, uint64_t offset, uint32_t value);

/* SET_IRQS, of eventfds or otherwise. */
int test_relay_set_eventfds(struct test_relay *test, uint32_t index, uint32_t start, uint32_t count,
                            const int *fds, unsigned n_fds);
int test_relay_set_irqs(struct test_relay *test, uint32_t flags, uint32_t index, uint32_t start,
                        uint32_t count, const char *data, size_t size);

/* GET_REGION_INFO of BAR0, with this room. */
void test_relay_ask_for_bar(struct test_relay *test, uint32_t argsz, struct test_answer *answer);

/* While the far server is there, and no good. */
void test_relay_stays_away(struct test_relay *test);

/* Memory of the guest, of this many pages, over the unit's own connection. */
void test_relay_map(struct test_relay *test, unsigned pages);
void test_relay_unmap(struct test_relay *test);

#endif
