/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The far server of the vfio_user_client fuzz target: what the input has it say on its two sockets,
 * and what came of the client's.
 *
 * It sends bytes as they are, messages with a header that is half right, answers to the last
 * command or to an earlier one, right or wrong, with descriptors of every kind; or it does for once
 * what it is asked. What came it looks through for what the client must not tell.
 */
#ifndef VIOMMU_FUZZ_FAR_SERVER_H
#define VIOMMU_FUZZ_FAR_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"
#include "vfio_user/protocol.h"

enum {
    /* The first byte of an input. */
    FAR_ISOLATE = 1,
    FAR_MIRROR = 2,
    FAR_TWIN = 4,      /* the server has one, and says so */
    FAR_SILENT = 8,    /* VERSION is not answered but by the input */
    FAR_TEXT = 16,     /* what the server says of itself is the input's */
    FAR_FEW = 32,      /* few mappings */
    FAR_HASTY = 64,    /* a few milliseconds are all that it may take to answer */
    FAR_NO_FILE = 128, /* guest memory is in no file */

    FAR_SECRET_SIZE = 16,
    FAR_MESSAGE_MAX = 1 << 18,
    FAR_PAST = 64, /* commands that are remembered */
};

/* Where what the guest maps begins. */
#define FAR_BASE UINT64_C(0x40000000)

struct far_server {
    uint8_t mode;
    int fd; /* its ends, or -1 */
    int twin;
    /* What it can send: memory, an eventfd, and sockets of other kinds than the twin's. */
    int memory_fd, event_fd, datagram_fd, inet_fd;
    uint8_t secret[FAR_SECRET_SIZE];
    int (*process)(void);         /* the client works; negative: it failed */
    struct vfio_user_header last; /* the last command that came */
    struct vfio_user_dma_unmap last_unmap;
    struct vfio_user_header past[FAR_PAST]; /* and those before it */
    struct vfio_user_dma_unmap past_unmap[FAR_PAST];
    unsigned received;
};

/* There is one. */
extern struct far_server far;

/* Ends the run, and says why. */
void far_check(bool condition, const char *what);

/* A new one, which nobody is connected to. */
void far_begin(uint8_t mode);

void far_close_end(int *fd);

/* Takes a message in; descriptors are dropped. False when there is none. */
bool far_receive(int fd);

/* Does all that it is asked. */
void far_behave(struct fuzz_input *input);

/* Says something, of the kind that a byte chooses. */
void far_say(struct fuzz_input *input, uint8_t kind);

/* So many bytes of the input, with descriptors. */
void far_say_with(struct fuzz_input *input, size_t size, unsigned n_fds);

/*
 * Answers the n-th command before the last, with so many bytes. `how`: 1 with this error; 2 with as
 * many bytes as is right; 4 without the command's name; above, the number of descriptors.
 */
void far_answer_one(unsigned n, uint8_t how, uint32_t error, size_t size);

/* The same, as the input says. */
void far_answer_earlier(struct fuzz_input *input);

#endif
