/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The far server of the vfio_user_client fuzz target; far_server.h describes it.
 */
#include "far_server.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/fds.h"
#include "support/guest.h"

struct far_server far = {
    .fd = -1, .twin = -1, .memory_fd = -1, .event_fd = -1, .datagram_fd = -1, .inet_fd = -1};

static uint8_t message[FAR_MESSAGE_MAX];

void far_check(bool condition, const char *what)
{
    if (!condition) {
        guest_die("%s", what);
    }
}

void far_begin(uint8_t mode)
{
    far.mode = mode;
    far.fd = far.twin = -1;
    memset(&far.last, 0, sizeof(far.last));
    memset(&far.last_unmap, 0, sizeof(far.last_unmap));
    memset(far.past, 0, sizeof(far.past));
    memset(far.past_unmap, 0, sizeof(far.past_unmap));
    far.received = 0;
}

void far_close_end(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

static void send_bytes(int fd, const void *data, size_t size, const int *fds, unsigned n_fds)
{
    /* A socket that is full takes nothing, or a part: both are fine. */
    if (fd >= 0) {
        (void)!support_send_fds(fd, data, size, fds, n_fds);
    }
}

/* So much of `message`, with descriptors of every kind. */
static void send_with(int fd, size_t size, unsigned n_fds)
{
    const int some[] = {far.memory_fd, far.event_fd, far.datagram_fd,
                        far.inet_fd < 0 ? far.event_fd : far.inet_fd};
    int fds[32];

    for (unsigned i = 0; i < n_fds; i++) {
        fds[i] = some[i % 4];
    }
    send_bytes(fd, message, size, fds, n_fds);
}

/* A message of which the input gives the payload, in front of it what is given. */
static void send_message(int fd, struct vfio_user_header header, const void *first,
                         size_t first_size, struct fuzz_input *input, size_t size, unsigned n_fds)
{
    size = size < input->size ? size : input->size;
    size = size < FAR_MESSAGE_MAX - 1024 ? size : FAR_MESSAGE_MAX - 1024;
    header.size = (uint32_t)(sizeof(header) + first_size + size);
    memcpy(message, &header, sizeof(header));
    if (first_size) {
        memcpy(message + sizeof(header), first, first_size);
    }
    memcpy(message + sizeof(header) + first_size, input->data, size);
    input->data += size;
    input->size -= size;
    send_with(fd, header.size, n_fds);
}

/*
 * Looks through what came for what nobody may know; byte by byte: what is given to memmem the
 * fuzzer sees, and puts into its inputs, and so a server may know it.
 */
static void look_for_secret(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i + FAR_SECRET_SIZE <= size; i++) {
        size_t same = 0;

        while (same < FAR_SECRET_SIZE && data[i + same] == far.secret[same]) {
            same++;
        }
        far_check(same < FAR_SECRET_SIZE, "the secret page was read");
    }
}

bool far_receive(int fd)
{
    union {
        char room[CMSG_SPACE(VFIO_USER_MAX_FDS * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct vfio_user_header header;
    struct iovec iov = {.iov_base = &header, .iov_len = sizeof(header)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.room,
                         .msg_controllen = sizeof(control.room)};
    size_t left;

    if (fd < 0 || recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != sizeof(header)) {
        return false;
    }
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg)) {
        for (size_t i = 0; i < (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int got;

            memcpy(&got, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(got));
            close(got);
            far_check(!(far.mode & FAR_ISOLATE) || header.command == VFIO_USER_DEVICE_SET_IRQS,
                      "a file was passed in spite of isolation");
        }
    }
    far_check(header.size >= sizeof(header), "our own header");
    left = header.size - sizeof(header);
    if ((header.flags & VFIO_USER_TYPE_MASK) == VFIO_USER_TYPE_COMMAND) {
        far.last = header;
        far.past[far.received++ % FAR_PAST] = header;
    }
    while (left) {
        ssize_t n =
            recv(fd, message, left < sizeof(message) ? left : sizeof(message), MSG_DONTWAIT);

        if (n <= 0) {
            if (far.process() < 0) {
                /* It was cut off in the middle of a message: what came of it is no header. */
                far_close_end(fd == far.fd ? &far.fd : &far.twin);
                return false;
            }
            continue;
        }
        look_for_secret(message, (size_t)n);
        if (header.command == VFIO_USER_DMA_UNMAP && (size_t)n >= sizeof(far.last_unmap)) {
            memcpy(&far.last_unmap, message, sizeof(far.last_unmap));
            far.past_unmap[(far.received - 1) % FAR_PAST] = far.last_unmap;
        }
        left -= (size_t)n;
    }
    return true;
}

static void answer_version(struct fuzz_input *input)
{
    static const char usual[] =
        "\0\0\0\0{\"capabilities\":{\"max_msg_fds\":8,\"max_dma_maps\":50}}";
    static const char with_twin[] =
        "\0\0\0\0{\"capabilities\":{\"twin_socket\":{\"supported\":true,\"fd_index\":0}}}";
    struct vfio_user_header header = far.last;
    bool twin = far.mode & FAR_TWIN;
    const char *text = twin ? with_twin : usual;
    size_t size = twin ? sizeof(with_twin) : sizeof(usual);
    int pair[2];

    header.flags = VFIO_USER_TYPE_REPLY;
    if (far.mode & FAR_TEXT) {
        send_message(far.fd, header, "\0\0\0", 4, input, fuzz_number(input, 2), 0);
        return;
    }
    header.size = (uint32_t)(sizeof(header) + size);
    memcpy(message, &header, sizeof(header));
    memcpy(message + sizeof(header), text, size);
    if (twin && far.twin < 0) {
        far_check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0,
                  "pair");
        far.twin = pair[0];
        send_bytes(far.fd, message, header.size, &pair[1], 1);
        close(pair[1]);
    } else {
        send_bytes(far.fd, message, header.size, NULL, 0);
    }
}

/* Answers the last command as it should be. */
static void answer_well(struct fuzz_input *input)
{
    struct vfio_user_header header = far.last;

    if (header.command == VFIO_USER_VERSION) {
        answer_version(input);
        return;
    }
    header.flags = VFIO_USER_TYPE_REPLY;
    header.error = 0;
    send_message(far.fd, header, &far.last_unmap,
                 header.command == VFIO_USER_DMA_UNMAP ? sizeof(far.last_unmap) : 0, input, 0, 0);
}

void far_behave(struct fuzz_input *input)
{
    for (unsigned i = 0; i < 100; i++) {
        far.last.flags = VFIO_USER_NO_REPLY;
        if (!far_receive(far.fd)) {
            break;
        }
        if (!(far.last.flags & VFIO_USER_NO_REPLY)) {
            answer_well(input);
        }
    }
    while (far_receive(far.twin)) {
    }
}

void far_answer_one(unsigned n, uint8_t how, uint32_t error, size_t size)
{
    unsigned at = (far.received - 1 - n) % FAR_PAST;
    struct vfio_user_header header = far.past[at];

    memset(message, 0, sizeof(header) + size);
    header.flags = VFIO_USER_TYPE_REPLY | (how & 1 ? VFIO_USER_ERROR : 0);
    header.error = error;
    header.command = how & 4 ? 0 : header.command;
    if (how & 2 && header.command == VFIO_USER_DMA_UNMAP) {
        size = sizeof(far.past_unmap[at]);
        memcpy(message + sizeof(header), &far.past_unmap[at], size);
    }
    header.size = (uint32_t)(sizeof(header) + size);
    memcpy(message, &header, sizeof(header));
    send_with(far.fd, header.size, how >> 3);
}

void far_say_with(struct fuzz_input *input, size_t size, unsigned n_fds)
{
    size = size < input->size ? size : input->size;
    memcpy(message, input->data, size);
    input->data += size;
    input->size -= size;
    send_with(far.fd, size, n_fds);
}

void far_answer_earlier(struct fuzz_input *input)
{
    uint8_t n = fuzz_byte(input);
    uint8_t how = fuzz_byte(input);
    uint32_t error = how & 1 ? (uint32_t)fuzz_number(input, 4) : 0;

    far_answer_one(n, how, error, fuzz_number(input, 3) % (FAR_MESSAGE_MAX - 1024));
}

void far_say(struct fuzz_input *input, uint8_t kind)
{
    int fd = kind & 8 ? far.twin : far.fd;
    struct vfio_user_header header = {.id = kind};
    struct vfio_user_dma_access access;
    size_t size;

    switch (kind & 7) {
    case 0: /* bytes */
        size = fuzz_byte(input);
        size = size < input->size ? size : input->size;
        send_bytes(fd, input->data, size, &far.event_fd, kind >> 7);
        input->data += size;
        input->size -= size;
        break;
    case 1: /* a message of any kind; its number may be the last command's */
        header.id = kind & 128 ? far.last.id : kind;
        header.command = fuzz_byte(input);
        header.flags = fuzz_byte(input);
        header.error = fuzz_byte(input);
        send_message(fd, header, NULL, 0, input, fuzz_byte(input), kind >> 4);
        break;
    case 2: /* an answer to the last command, of any content */
        header = far.last;
        header.flags = VFIO_USER_TYPE_REPLY | (kind & 16 ? VFIO_USER_ERROR : 0);
        header.error = kind & 16 ? fuzz_byte(input) : 0;
        send_message(fd, header, NULL, 0, input, fuzz_byte(input), kind >> 5);
        break;
    case 3: /* or a good one */
        answer_well(input);
        break;
    default: /* DMA */
        header.command = kind & 1 ? VFIO_USER_DMA_READ : VFIO_USER_DMA_WRITE;
        header.flags = kind & 16 ? VFIO_USER_NO_REPLY : 0;
        access.address =
            kind & 32 ? fuzz_number(input, 8) : FAR_BASE + fuzz_number(input, 3) % 0x18000;
        access.count = kind & 64 ? fuzz_number(input, 8) : fuzz_number(input, 2);
        size = kind & 1 ? 0 : kind & 128 ? fuzz_byte(input) : access.count;
        send_message(fd, header, &access, sizeof(access), input, size < 60000 ? size : 60000, 0);
        break;
    }
}
