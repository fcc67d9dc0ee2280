/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A far device server for tests of the client: in the same process, at the other end of a socket
 * pair, and only as far as a test lets it (test_far_step). It keeps the exact set of regions that
 * it was given, and fails the test when one overlaps another, or an UNMAP is not exactly one.
 *
 * The rest is the world around the client: a guest with a VT-d unit in caching mode, whose memory
 * is a file; a device; the client; and a mirror of the device, if it is wanted. Only for unit
 * tests.
 */
#ifndef VIOMMU_VFIO_USER_TEST_FAR_H
#define VIOMMU_VFIO_USER_TEST_FAR_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/fds.h"
#include "support/guest.h"
#include "vfio_user/protocol.h"

#define REQUESTER   0x28
#define DOMAIN      7
#define LEVELS      3
#define REGIONS_MAX 1100

#define USUAL_CAPABILITIES "{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":1048576}}"
#define TWIN_CAPABILITIES                                                                          \
    "{\"capabilities\":{\"max_msg_fds\":8,\"twin_socket\":{\"supported\":true,\"fd_index\":0}}}"

struct test_region {
    struct vfio_user_dma_map map;
    bool file;
};

struct test_far {
    int fd;
    int twin; /* its end of the other socket, or -1 */
    const char *capabilities;
    uint64_t region_size_max; /* larger ones are refused; 0: none is */
    unsigned regions_max;     /* more are refused */
    int refuse;               /* the next DMA_MAP or DMA_UNMAP is answered with this errno */
    int refuse_map;           /* the same, of DMA_MAPs only */
    bool hold;                /* commands are carried out, but not answered yet */

    struct test_region regions[REGIONS_MAX];
    unsigned region_count;
    unsigned most; /* there ever were */
    unsigned maps;
    unsigned unmaps;
    unsigned unmap_alls;
    unsigned files;   /* that came, ever */
    unsigned answers; /* to commands of the server, that nobody looked at */

    /* The last message that came, of any kind. */
    struct vfio_user_header header;
    uint8_t *payload;
    size_t payload_size;
    int fds[VFIO_USER_MAX_FDS];
    unsigned n_fds;

    /* The last answer that was held back, to go with test_far_release. */
    struct vfio_user_header held;
    struct vfio_user_dma_unmap held_unmap;
    bool holds;
};

struct test_world {
    struct guest guest;
    int memory_fd;
    struct viommu_memory *memory;
    void *ram;
    uint64_t table;
    struct viommu_device *device;
    struct test_far far;
    struct viommu_vfio_user *client;
    struct viommu_subscriber *mirror;
    unsigned ready; /* calls of the functions */
    unsigned failed;
    int error;           /* the last that `failed` was told */
    unsigned events[32]; /* of the unit, by kind */
    unsigned interrupts;
    struct viommu_interrupt interrupt;
    uint64_t clock;
    unsigned fds_at_start;
};

/* What a test wants otherwise than usual. */
struct test_wanted {
    struct viommu_vfio_user_config client; /* device, fd and functions are filled in */
    bool no_caching_mode;
    bool no_client;
    bool memory_without_file;
    size_t ram_pages;
};

/* ---- the server ------------------------------------------------------------------------------ */

void test_far_send_raw(int fd, const void *data, size_t size, const int *fds, unsigned n_fds);

/* A message; descriptors go with it. `fd` is far.fd or far.twin. */
void test_far_send(int fd, struct vfio_user_header header, const void *first, size_t first_size,
                   const void *second, size_t second_size, const int *fds, unsigned n_fds);

/* Receives one message. Returns 1, or 0 when there is none. */
int test_far_receive(struct test_far *far, int fd);

/* Closes and frees what came with the last message. */
void test_far_forget(struct test_far *far);

/* Carries out all that came. */
void test_far_step(struct test_far *far);

/* Answers what was held back. */
void test_far_release(struct test_far *far);

/* Sends a DMA command; there is no answer yet. */
void test_far_dma(int fd, uint16_t command, uint32_t flags, uint16_t id, uint64_t address,
                  uint64_t count, const void *data, size_t size);

const struct test_region *test_far_find(const struct test_far *far, uint64_t address);

/* ---- the world ------------------------------------------------------------------------------- */

void test_world_open(struct test_world *world, const struct test_wanted *wanted);
void test_world_close(struct test_world *world);

/* Another client and server, in place of those that are there. */
void test_world_connect(struct test_world *world, const struct test_wanted *wanted);
void test_world_disconnect(struct test_world *world);

/* The same, but VERSION is received and not answered: then with test_far_answer_version, as
 * far.header is that of VERSION. An error is answered where flags say so. */
void test_world_connect_silently(struct test_world *world, uint32_t timeout_ms);
void test_far_answer_version(struct test_far *far, uint16_t major, uint16_t minor, const char *text,
                             uint32_t flags, const int *fds, unsigned n_fds);

/* The usual client and server, again. */
void test_world_reconnect(struct test_world *world);

/* The client finds the connection to be over, for this reason, and says so once. */
void test_world_expect_failed(struct test_world *world, int error);

/* Does the client's descriptor poll readable? */
bool test_world_is_readable(struct test_world *world);

/* All that can be done now, on every side. */
void test_world_settle(struct test_world *world);

/* Subscribes, and settles. */
void test_world_subscribe(struct test_world *world);

/* Maps pages of the guest's, and invalidates; unmaps. Nothing is settled. */
void test_world_map(struct test_world *world, uint64_t iova, uint64_t gpa, unsigned pages,
                    uint64_t flags);
void test_world_unmap(struct test_world *world, uint64_t iova, unsigned pages);

/* Begins an invalidation of all, and tells whether the last one is complete. */
void test_world_invalidate(struct test_world *world);
bool test_world_invalidated(struct test_world *world);

/* A DMA command by message, and its answer: 0, or the negative errno in it. */
int test_world_read(struct test_world *world, int fd, uint64_t address, void *data, size_t size);
int test_world_write(struct test_world *world, int fd, uint64_t address, const void *data,
                     size_t size);

struct viommu_vfio_user_statistics test_world_statistics(const struct test_world *world);

#endif
