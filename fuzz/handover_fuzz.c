/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes how a server is handed over: messages in any pieces, with any descriptors; a sender and a
 * receiver that hang up, wait, or may not have so many descriptors; the descriptors and data that a
 * state names; sockets at paths where something else is.
 *
 * The low bits of the first byte say what. Held: what is sent is received, whole; everything else
 * is an error; nothing waits longer than it may; no descriptor is left open.
 */
#include "bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "handover/channel.h"
#include "save/stream.h"
#include "support/fds.h"
#include "unix_socket.h"

#define PIECE_MAX 4096u
#define SENT_MAX  65536u
#define FDS_MAX   600u /* more than go in one message of the kernel's */
#define FILES     3u
#define QUEUE     8u /* connections that nobody accepts */

enum what { RECEIVE, TALK, NAMES, PATHS };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int files[FILES] = {-1, -1, -1};

static void check(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "handover: %s\n", what);
        abort();
    }
}

static void prepare(void)
{
    for (unsigned i = 0; i < FILES && files[i] < 0; i++) {
        files[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        check(files[i] >= 0, "no file");
    }
}

static void make_pair(int pair[2])
{
    check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), "no sockets");
}

static bool is_error(int ret)
{
    return ret == -ETIMEDOUT || ret == -ECONNRESET || ret == -EPROTO || ret == -EPROTONOSUPPORT ||
           ret == -EMFILE || ret == -ENOMEM || ret == -EBADF || ret == -ENOSPC;
}

static void on_signal(int number)
{
    (void)number;
}

/* A signal comes, once, after so many microseconds; 0: none. What waits is interrupted by it. Not
 * SIGALRM: the fuzzer's own, which ends an input that takes too long. */
static void interrupt_after(long us)
{
    static timer_t timer;
    static bool made;
    const struct itimerspec when = {.it_value = {.tv_nsec = us * 1000}};
    const struct sigaction action = {.sa_handler = on_signal};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};

    if (!made) {
        check(!sigaction(SIGUSR2, &action, NULL) && !timer_create(CLOCK_MONOTONIC, &event, &timer),
              "no signal");
        made = true;
    }
    check(!timer_settime(timer, 0, &when, NULL), "no signal");
}

/* ---- what comes, in pieces ---- */

/* The pieces: how many descriptors go with each, how long it is (2 bytes), its bytes. */
static void send_pieces(int fd, struct fuzz_input *input)
{
    while (fuzz_more(input)) {
        uint8_t bytes[PIECE_MAX];
        int fds[SUPPORT_FDS_MAX];
        unsigned n_fds = fuzz_byte(input);
        size_t size = fuzz_number(input, 2) % PIECE_MAX;

        n_fds = n_fds < SUPPORT_FDS_MAX ? n_fds : SUPPORT_FDS_MAX;
        for (unsigned i = 0; i < n_fds; i++) {
            fds[i] = files[i % FILES];
        }
        for (size_t i = 0; i < size; i++) {
            bytes[i] = fuzz_byte(input);
        }
        if (size && support_send_fds(fd, bytes, size, fds, n_fds) < 0) {
            break;
        }
    }
}

/* This process may not have more descriptors than it has, and `more`. */
static void limit_fds(struct rlimit *before, unsigned more)
{
    struct rlimit limit;

    check(!getrlimit(RLIMIT_NOFILE, before), "no limit");
    limit = *before;
    limit.rlim_cur = support_open_fds() + more;
    check(!setrlimit(RLIMIT_NOFILE, &limit), "no limit");
}

static void receive(struct fuzz_input *input)
{
    struct handover_message message;
    uint8_t kind = fuzz_byte(input);
    struct rlimit limit;
    int pair[2];
    int ret;

    make_pair(pair);
    if (kind & 0x80) { /* more than descriptors come along */
        check(!setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &(int){1}, sizeof(int)), "no names");
    }
    send_pieces(pair[0], input);
    if (kind & 1) {
        shutdown(pair[0], SHUT_WR);
    }
    if (kind & 2) {
        limit_fds(&limit, kind >> 4 & 7);
    }
    interrupt_after(kind & 1 ? 0 : 1000);
    do {
        ret = handover_receive(kind & 4 ? -1 : pair[1], &message,
                               handover_deadline(kind & 1   ? 100
                                                 : kind & 8 ? 0
                                                            : 3));
        check(ret == 0 || is_error(ret), "an error of another kind");
        if (!ret) {
            check(message.what >= HANDOVER_HELLO && message.what <= HANDOVER_GO &&
                      ((char *)message.data)[message.size] == 0,
                  "a message that is none");
            handover_message_fini(&message);
        }
    } while (!ret);
    interrupt_after(0);
    if (kind & 2) {
        check(!setrlimit(RLIMIT_NOFILE, &limit), "no limit");
    }
    close(pair[0]);
    close(pair[1]);
}

/* ---- two that talk ---- */

struct talk {
    int fd;
    enum handover_what what;
    uint8_t bytes[SENT_MAX];
    size_t size;
    int fds[FDS_MAX];
    unsigned n_fds;
    uint64_t deadline;
    int ret;
};

static void *send_all(void *opaque)
{
    struct talk *talk = opaque;
    struct handover_fds fds = {.fds = talk->fds, .count = talk->n_fds};

    talk->ret = handover_send(talk->fd, talk->what, talk->bytes, talk->size,
                              talk->n_fds ? &fds : NULL, talk->deadline);
    if (talk->ret) {
        shutdown(talk->fd, SHUT_WR); /* as a process that gives up */
    }
    return NULL;
}

/* As somebody who may have no more descriptors on their way than a process has. */
static void *send_humbly(void *opaque)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}};

    (void)syscall(SYS_capset, &header, none); /* of this thread only */
    return send_all(opaque);
}

static void compare(const struct talk *talk, const struct handover_message *message)
{
    check(message->what == talk->what && message->size == talk->size &&
              !memcmp(message->data, talk->bytes, talk->size) && message->fds.count == talk->n_fds,
          "what is received is not what was sent");
}

static void talk(struct fuzz_input *input)
{
    static struct talk talk;
    struct handover_message message;
    uint8_t kind = fuzz_byte(input);
    int small = 1;
    pthread_t thread;
    int pair[2];
    int ret;

    make_pair(pair);
    talk.fd = pair[0];
    talk.what = (enum handover_what)(1 + fuzz_byte(input) % 5);
    talk.size = fuzz_number(input, 2);
    talk.n_fds = fuzz_number(input, 2) % (FDS_MAX + 1);
    talk.deadline = kind & 2   ? handover_deadline(0)
                    : kind & 4 ? handover_deadline(3)
                    : kind & 1 ? HANDOVER_FOREVER /* somebody takes it in */
                               : handover_deadline(100000);
    memset(talk.bytes, (int)talk.size, talk.size);
    for (unsigned i = 0; i < talk.n_fds; i++) {
        talk.fds[i] = kind & 0x10 && i == 300 ? -1 : files[i % FILES];
    }
    if (kind & 8) {
        check(!setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), "no buffer");
    }
    if (kind & 0x80) {
        struct rlimit limit;

        talk.deadline = handover_deadline(12);
        limit_fds(&limit, 10);
        check(!pthread_create(&thread, NULL, send_humbly, &talk), "no thread");
        (void)pthread_join(thread, NULL);
        check(!setrlimit(RLIMIT_NOFILE, &limit), "no limit");
        check(!talk.ret || talk.ret == -ETIMEDOUT || talk.ret == -EBADF, "it is lost");
        close(pair[1]);
    } else if (kind & 0x20) {
        close(pair[1]);
        (void)send_all(&talk);
        check(talk.ret == -EPIPE, "it talks to nobody");
    } else if (kind & 6) { /* nobody takes it in */
        (void)send_all(&talk);
        check(!talk.ret || talk.ret == -ETIMEDOUT || talk.ret == -EBADF, "it is lost");
        close(pair[1]);
    } else {
        check(!pthread_create(&thread, NULL, send_all, &talk), "no thread");
        ret = handover_receive(pair[1], &message,
                               kind & 0x40 ? HANDOVER_FOREVER : handover_deadline(100000));
        if (!ret) {
            compare(&talk, &message);
            handover_message_fini(&message);
        }
        close(pair[1]);
        (void)pthread_join(thread, NULL);
        check(ret == 0 || is_error(ret), "an error of another kind");
        check(ret || !talk.ret, "it was received, but not sent");
    }
    close(pair[0]);
}

/* ---- what a state names ---- */

/* As many as there may be. */
static void fill(struct handover_fds *fds)
{
    int *all = realloc(fds->fds, HANDOVER_FDS_MAX * sizeof(*all));

    check(all, "no memory");
    fds->fds = all;
    fds->room = HANDOVER_FDS_MAX;
    while (fds->count < HANDOVER_FDS_MAX) {
        all[fds->count++] = -2;
    }
}

static void names(struct fuzz_input *input)
{
    struct save_section section = {.kind = 1, .version = 1};
    struct handover_fds fds = {0};
    struct save_writer writer;
    uint8_t kind = fuzz_byte(input);
    unsigned count = fuzz_byte(input);
    size_t size;
    void *data;

    save_writer_init(&writer, SAVE_SERVER);
    save_begin(&writer, 1, 0, 1, 0);
    for (unsigned i = 0; i < count; i++) {
        uint8_t which = fuzz_byte(input);

        handover_put_fd(&writer, &fds,
                        which & 0x80 ? -1
                        : kind & 1   ? 1000 + (int)i
                                     : files[which % FILES]);
    }
    if (kind & 2) { /* more than there may be: a place that is taken is looked for among all */
        fill(&fds);
        handover_put_fd(&writer, &fds, 5000);
        handover_put_fd(&writer, &fds, 5001);
    }
    handover_put_data(&writer, "data", 4);
    save_end(&writer);
    if (!save_finish(&writer, &data, &size)) {
        uint8_t *bytes = (uint8_t *)data + 32 + 24;
        uint8_t *copy;

        size -= 32 + 24;
        copy = malloc(size + 1);
        check(copy, "no memory");
        memcpy(copy, bytes, size);
        save_free(data);
        for (unsigned i = 0; i < (kind >> 4 & 7u); i++) {
            size_t at = fuzz_number(input, 2) % size;

            copy[at] = fuzz_byte(input);
        }
        section.at = copy;
        section.left = size - (kind & 8 ? fuzz_byte(input) % size : 0);
        for (unsigned i = 0; i < count + (kind & 2 ? 1 : 0); i++) {
            int fd = i & 1 ? handover_take_fd(&section, &fds) : handover_look_fd(&section, &fds);

            check(fd >= -1, "a descriptor that is none");
        }
        (void)handover_get_data(&section, kind & 4 ? 2 : SIZE_MAX, &size);
        free(copy);
    }
    handover_fds_fini(&fds);
}

/* ---- paths ---- */

static void put_socket(const char *path, bool listening, int *fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    strcpy(address.sun_path, path);
    *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(*fd >= 0, "no socket");
    (void)unlink(path);
    check(!bind(*fd, (struct sockaddr *)&address, sizeof(address)), "no name");
    check(!listening || !listen(*fd, 0), "nobody listens");
}

/* Listens as another user, where this process may become one. */
static void *listen_as_another(void *opaque)
{
    int fd = *(int *)opaque;

    (void)syscall(SYS_setresuid, 65534, 65534, 65534); /* this thread only */
    check(!listen(fd, 1), "nobody listens");
    return NULL;
}

static void other_user(const char *path, int *beside)
{
    pthread_t thread;
    int fd;

    if (*beside >= 0) {
        close(*beside);
    }
    put_socket(path, false, beside);
    check(!pthread_create(&thread, NULL, listen_as_another, beside), "no thread");
    (void)pthread_join(thread, NULL);
    fd = handover_connect(path);
    check(geteuid() || fd == -EPERM, "another user is trusted");
    if (fd >= 0) {
        close(fd);
    }
}

static void paths(struct fuzz_input *input)
{
    char folder[] = "/tmp/viommu-fuzz-XXXXXX";
    char path[64];
    char longer[256];
    int queue[QUEUE];
    int listening = -1;
    int beside = -1;
    bool shown = false; /* `listening` is what is at the path */
    struct stat st;

    check(mkdtemp(folder) != NULL, "no folder");
    (void)snprintf(path, sizeof(path), "%s/s", folder);
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    for (unsigned i = 0; i < QUEUE; i++) {
        queue[i] = -1;
    }
    for (unsigned steps = 0; steps < 16 && fuzz_more(input); steps++) {
        uint8_t kind = fuzz_byte(input);
        int fd = -1;

        if ((1u << (kind & 15)) & (1u << 2 | 1u << 3 | 1u << 4 | 1u << 7 | 1u << 10)) {
            shown = false; /* it may be removed, or closed */
        }
        switch (kind & 15) {
        case 0:
            fd = handover_listen(path);
            if (fd >= 0) {
                check(!shown, "two listen at one path");
                if (listening >= 0) {
                    close(listening);
                }
                listening = fd;
                shown = true;
                fd = -1;
            }
            break;
        case 1:
            fd = handover_connect(path);
            check(fd < 0 || handover_trusts(fd), "a peer that is another");
            break;
        case 2:
            if (beside >= 0) {
                close(beside);
            }
            put_socket(path, kind & 16, &beside);
            break;
        case 3: /* it is left behind */
            if (listening >= 0) {
                close(listening);
                listening = -1;
            }
            if (beside >= 0) {
                close(beside);
                beside = -1;
            }
            break;
        case 4:
            (void)unlink(path);
            fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
            break;
        case 5:
            fd = unix_socket_listen(kind & 16 ? longer : "", 0600);
            check(fd < 0, "a socket without a name");
            break;
        case 6:
            fd = handover_connect(kind & 16 ? longer : "/tmp");
            check(fd < 0, "a connection to nobody");
            break;
        case 7:
            if (!lstat(path, &st)) {
                st.st_ino += kind >> 4 & 1;
                st.st_dev += kind >> 5 & 1;
                unix_socket_remove(path, &st);
            }
            break;
        case 8:
            memset(&st, 0, sizeof(st));
            unix_socket_remove("/nothing/is/here", &st);
            fd = unix_socket_listen("/nothing/is/here", 0600);
            check(fd < 0, "a socket nowhere");
            break;
        case 9:
            fd = handover_trusts(-1) ? 0 : -1;
            check(fd < 0, "nobody is trusted");
            break;
        case 10:
            other_user(path, &beside);
            break;
        default:
            for (unsigned i = 0; i < QUEUE; i++) {
                if (queue[i] < 0) {
                    queue[i] = unix_socket_connect(path);
                }
            }
            break;
        }
        if (fd >= 0) {
            close(fd);
        }
    }
    for (unsigned i = 0; i < QUEUE; i++) {
        if (queue[i] >= 0) {
            close(queue[i]);
        }
    }
    if (listening >= 0) {
        close(listening);
    }
    if (beside >= 0) {
        close(beside);
    }
    (void)unlink(path);
    check(!rmdir(folder), "something is left in the folder");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size, 0};
    unsigned fds;

    if (!size) {
        return 0;
    }
    prepare();
    fds = support_open_fds();
    switch (fuzz_byte(&input) & 3) {
    case RECEIVE:
        receive(&input);
        break;
    case TALK:
        talk(&input);
        break;
    case NAMES:
        names(&input);
        break;
    default:
        paths(&input);
        break;
    }
    check(support_open_fds() == fds, "descriptors are left");
    return 0;
}
