/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: a whole service that is taken over (tools/serve/takeover.h, state.h).
 *
 * A server is made, with clients; then a successor, in this process, too, takes over from it what
 * the input makes of what it has saved. The input:
 *   1 byte   what is served: enum shape
 *   1 byte   what is said to the successor: enum word; UNSEALED: the checksum stays as it was
 *   1 byte   which allocation of the successor's fails; 0: none does
 *   1 byte   how many descriptors it may open, and one; 0: as many as it likes
 *   the rest changes to the saved stream (pieces.h), or, with one more number, to a descriptor that
 *   goes along: its place, and enum other_fd
 *
 * A stream that nothing was done to is taken over, and the client is served on. One that is refused
 * leaves everything as it was: the other server is told, and its client is served by it; files,
 * sockets and the process are the same; and nothing stays open.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <viommu/device.h>

#include "bytes.h"
#include "failing.h"
#include "handover/channel.h"
#include "log.h"
#include "pieces.h"
#include "save/stream.h"
#include "serve/kind.h"
#include "serve/options.h"
#include "serve/service.h"
#include "serve/state.h"
#include "serve/takeover.h"
#include "support/fds.h"
#include "unix_socket.h"
#include "vfio_user/endpoint_state.h"

enum shape {
    SHAPE_UNIT = 3, /* 0: none; 1: VT-d; 2: virtio-iommu; 3: VT-d in caching mode, and a mirror */
    SHAPE_DISK = 4,
    SHAPE_CLIENTS = 8,
    SHAPE_TABLES = 16,  /* the clients' guest has VT-d translate */
    SHAPE_OFFERS = 32,  /* the successor offers a handover itself, and traces */
    SHAPE_NAMES = 64,   /* their names are relative */
    SHAPE_WRONG = 128,  /* and cannot be made */
};

enum word {
    WORD_GO,
    WORD_HANGS_UP,
    WORD_NO,        /* a refusal */
    WORD_OTHER,     /* something else in place of GO */
    WORD_NO_STATE,  /* a refusal in place of the state */
    WORD_HELLO,     /* something else in place of it */
    WORD_NOTHING,   /* it hangs up at once */
    WORD_NOBODY,    /* there is no server; why, the next byte says */
    WORDS,
    UNSEALED = 8,   /* WORD_NOTHING: it is of another version */
    DEAF = 16,      /* it does not hear */
};

/* What a descriptor becomes. */
enum other_fd {
    FD_NONE, /* the list is shorter */
    FD_NULL,
    FD_FILE,
    FD_SOCKET,
    FD_LISTENER,
    FD_PIPE,
    FD_FOLDER,
    FD_FIRST, /* the first one again */
    FD_OTHERS,
};

enum {
    FOLDER = 900, /* the descriptor of the folder that all is in */
    RAM_SIZE = 1 << 16,
    DISK_SIZE = 1 << 13,
    FDS_MAX = 64,
    CHANGES_MAX = 64,
    STREAM_MAX = 120000, /* so much goes through a socket at once */
    ROOT = 0x1000,
    CONTEXT = 0x2000,
    TABLE = 0x3000,
};

#define AT "/proc/self/fd/900/"
#define RELATIVE "../../../../../../../.." AT

/* Everything of one run. */
struct run {
    unsigned shape;
    unsigned word;
    bool unsealed;
    bool deaf;
    bool starved; /* something of the host's fails */
    int ram;
    int clients[3]; /* of the edu, the unit, the disk; -1: none */
    struct pieces pieces; /* what was saved */
    struct piece heads[PIECES_MAX]; /* as it was, with the bytes of the first one, the options */
    unsigned n_heads;
    bool changed;
    int fds[FDS_MAX]; /* that go along */
    size_t n_fds;
    int own[FDS_MAX]; /* of them, those that were made here */
    unsigned n_own;
};

/* What is not to change. */
struct world {
    struct stat sockets[3];
    char disk[DISK_SIZE];
    char mirror[4096];
    ssize_t mirror_size;
    sigset_t signals;
    mode_t mask;
};

static struct service from, to;
static struct serve_options from_options, to_options;
static int connection; /* the successor's end; or a negative errno */
static bool keep_limit;
static int home = -1; /* the folder that this process is in */

int __wrap_handover_connect(const char *path);
int __wrap_setrlimit64(int what, const struct rlimit *limit);
int __real_setrlimit64(int what, const struct rlimit *limit);

int __wrap_handover_connect(const char *path)
{
    (void)path;
    return connection;
}

int __wrap_setrlimit64(int what, const struct rlimit *limit)
{
    return keep_limit ? 0 : __real_setrlimit64(what, limit);
}

static void check(bool condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

/* ---- the server that is taken over ---- */

static void pump(struct service *service)
{
    service->loop.again = true;
    for (unsigned i = 0; i < 200 && loop_step(&service->loop, 0) > 0; i++) {
    }
}

/* A file that holds something. */
static void make_file(const char *path, size_t size)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);

    check(fd >= 0 && ftruncate(fd, (off_t)size) == 0 && pwrite(fd, "whole", 5, 0) == 5, "no file");
    close(fd);
}

static void open_server(unsigned shape)
{
    static char mirrored[] = "--device=edu,at=05.0,socket=" AT "edu,mirror=" AT "mirror";
    static char edu[] = "--device=edu,at=05.0,socket=" AT "edu";
    static char disk[] =
        "--device=nvme,at=06.0,socket=" AT "disk,file=" AT "image,queues=1,workers=1";
    static char vtd[] = "--vtd=" AT "unit", virtio[] = "--virtio=" AT "unit";
    static char none[] = "--iommu=none", few[] = "--iotlb-entries=256";
    static char caching[] = "--caching-mode";
    unsigned unit = shape & SHAPE_UNIT;
    char *arguments[8] = {edu, unit == 3 ? mirrored : edu};
    int count = 2;

    arguments[count++] = unit == 0 ? none : unit == 2 ? virtio : vtd;
    if (unit != 0) {
        arguments[count++] = few;
    }
    if (unit == 3) {
        arguments[count++] = caching;
    }
    if (shape & SHAPE_DISK) {
        arguments[count++] = disk;
        make_file(AT "image", DISK_SIZE);
    }
    serve_options_parse(&from_options, count, arguments);
    check(service_open(&from, &from_options) == 0, "no server");
}

/* A command, and what it brings; the answer is for the caller to read. */
static void command(int fd, unsigned number, const void *body, size_t size, int with)
{
    uint8_t bytes[64];
    struct vfio_user_header header = {
        .command = (uint16_t)number, .size = (uint32_t)(sizeof(header) + size)};

    check(sizeof(header) + size <= sizeof(bytes), "too long");
    memcpy(bytes, &header, sizeof(header));
    memcpy(bytes + sizeof(header), body, size);
    (void)support_send_fds(fd, bytes, sizeof(header) + size, &with, with >= 0);
}

static void write_register(int fd, uint64_t offset, uint64_t value, uint32_t size)
{
    struct {
        struct vfio_user_region_access access;
        uint64_t value;
    } body = {{.offset = offset, .count = size}, value};

    command(fd, VFIO_USER_REGION_WRITE, &body, sizeof(body.access) + size, -1);
}

static void forget_answers(int fd)
{
    char bytes[4096];

    while (recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0) {
    }
}

static int connect_client(const struct run *run, const char *path)
{
    static const struct vfio_user_version version = {0};
    static const struct vfio_user_dma_map map = {.argsz = 32, .flags = 3, .size = RAM_SIZE};
    int fd = unix_socket_connect(path);

    check(fd >= 0, "nobody listens");
    pump(&from);
    command(fd, VFIO_USER_VERSION, &version, 4, -1);
    command(fd, VFIO_USER_DMA_MAP, &map, sizeof(map), run->ram);
    pump(&from);
    forget_answers(fd);
    return fd;
}

static void put64(const struct run *run, off_t at, uint64_t value)
{
    check(pwrite(run->ram, &value, sizeof(value), at) == sizeof(value), "no memory");
}

/* The first 32 KiB of the guest's, one to one, by tables of four levels. */
static void translate(const struct run *run)
{
    put64(run, ROOT, CONTEXT | 1);
    put64(run, CONTEXT + 16 * 0x28, TABLE | 1);
    put64(run, CONTEXT + 16 * 0x28 + 8, 0x102);
    for (unsigned level = 0; level < 3; level++) {
        put64(run, TABLE + 0x1000 * level, (TABLE + 0x1000 * (level + 1)) | 3);
    }
    for (unsigned page = 0; page < 8; page++) {
        put64(run, TABLE + 0x3000 + 8 * page, page << 12 | 3);
    }
    write_register(run->clients[1], 0x20, ROOT, 8);
    write_register(run->clients[1], 0x18, 1u << 30, 4);
    write_register(run->clients[1], 0x18, 1u << 31, 4);
    pump(&from);
    forget_answers(run->clients[1]);
}

static void connect_clients(struct run *run)
{
    run->ram = memfd_create("ram", MFD_CLOEXEC);
    check(run->ram >= 0 && ftruncate(run->ram, RAM_SIZE) == 0, "no memory");
    if (run->shape & SHAPE_CLIENTS) {
        run->clients[0] = connect_client(run, AT "edu");
        if (run->shape & SHAPE_UNIT) {
            run->clients[1] = connect_client(run, AT "unit");
        }
        if (run->shape & SHAPE_DISK) {
            run->clients[2] = connect_client(run, AT "disk");
        }
        if ((run->shape & SHAPE_TABLES) && (run->shape & 1)) {
            translate(run);
        }
    }
}

/* Whether the edu's client is answered by a server, and right, or not at all. */
static bool is_served(const struct run *run, struct service *service)
{
    static const struct vfio_user_region_access access = {.count = 4};
    struct {
        struct vfio_user_header header;
        struct vfio_user_region_access access;
        uint32_t value;
    } __attribute__((packed)) answer;

    if (run->clients[0] < 0) {
        return true;
    }
    command(run->clients[0], VFIO_USER_REGION_READ, &access, sizeof(access), -1);
    pump(service);
    return recv(run->clients[0], &answer, sizeof(answer), MSG_DONTWAIT) == sizeof(answer) &&
           answer.header.command == VFIO_USER_REGION_READ && answer.value == EDU_IDENTIFICATION;
}

/* ---- what it says ---- */

static void take_apart(struct run *run, const struct service_state *state)
{
    check(state->fds.count <= FDS_MAX, "too many descriptors");
    pieces_take(&run->pieces, state->data, state->size);
    memcpy(run->heads, run->pieces.pieces, sizeof(run->heads));
    run->n_heads = run->pieces.count;
    run->heads[0].body = pieces_copy(run->heads[0].body, run->heads[0].size);
    run->n_fds = state->fds.count;
    memcpy(run->fds, state->fds.fds, run->n_fds * sizeof(int));
}

static int own(struct run *run, int fd)
{
    check(fd >= 0 && run->n_own < FDS_MAX, "no descriptor");
    return run->own[run->n_own++] = fd;
}

static int other_fd(struct run *run, enum other_fd what)
{
    const struct sockaddr no_name = {.sa_family = AF_UNIX}; /* the kernel finds one */
    int fd, ends[2];

    switch (what) {
    case FD_NULL:
        return own(run, open("/dev/null", O_RDWR | O_CLOEXEC));
    case FD_FILE:
        fd = own(run, memfd_create("file", MFD_CLOEXEC));
        check(ftruncate(fd, 3000) == 0, "no file");
        return fd;
    case FD_SOCKET:
        return own(run, socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    case FD_LISTENER:
        fd = own(run, socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        check(bind(fd, &no_name, sizeof(no_name.sa_family)) == 0 && listen(fd, 1) == 0,
              "no socket");
        return fd;
    case FD_PIPE:
        check(pipe2(ends, O_CLOEXEC) == 0, "no pipe");
        own(run, ends[1]);
        return own(run, ends[0]);
    case FD_FOLDER:
        return FOLDER;
    default:
        return run->fds[0];
    }
}

static void change_fd(struct run *run, struct fuzz_input *input)
{
    size_t place = fuzz_byte(input);
    enum other_fd what = fuzz_byte(input) % FD_OTHERS;

    if (run->n_fds == 0 || run->n_own + 2 > FDS_MAX) {
        return;
    }
    place %= run->n_fds;
    if (what == FD_NONE) {
        run->n_fds--;
        memmove(&run->fds[place], &run->fds[place + 1], (run->n_fds - place) * sizeof(int));
    } else {
        run->fds[place] = other_fd(run, what);
    }
}

static void change(struct run *run, struct fuzz_input *input)
{
    while (fuzz_more(input) && input->steps < CHANGES_MAX) {
        unsigned what = fuzz_byte(input) % (PIECES_CHANGES + 1);

        run->changed = true;
        if (what == PIECES_CHANGES) {
            change_fd(run, input);
        } else {
            pieces_change(&run->pieces, what, input);
        }
    }
}

/* Whether other sections are there than those that the options tell of, or in another order, or of
 * other versions. */
static bool is_out_of_order(const struct run *run)
{
    const struct piece *now = run->pieces.pieces, *before = run->heads;

    if (run->pieces.count == 0) {
        return true;
    }
    if (now[0].size != before[0].size || memcmp(now[0].body, before[0].body, now[0].size) != 0) {
        return false; /* who knows */
    }
    if (run->pieces.count != run->n_heads) {
        return true;
    }
    for (unsigned i = 0; i < run->n_heads; i++) {
        if (memcmp(now[i].head, before[i].head, PIECES_FLAGS_AT) != 0) {
            return true;
        }
    }
    return false;
}

/* Options that are good, but take gigabytes, or years. */
static bool is_too_much(const uint8_t *bytes, size_t size)
{
    static const char *const names[] = {"iotlb-entries=", "quota=", "hold=", "workers="};

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        size_t length = strlen(names[i]);
        const uint8_t *at = bytes, *found;

        while ((found = memmem(at, size - (size_t)(at - bytes), names[i], length))) {
            at = found + length;
            if (strcspn((const char *)at, ",") > 4 || strpbrk((const char *)at, "kmgKMG")) {
                return true;
            }
        }
    }
    return false;
}

/* All that the successor will hear. False: it cannot be said. */
static bool say(const struct run *run, int fd)
{
    static const enum handover_what states[] = {
        [WORD_NO_STATE] = HANDOVER_REFUSAL, [WORD_HELLO] = HANDOVER_HELLO};
    static const enum handover_what words[] = {
        [WORD_GO] = HANDOVER_GO, [WORD_NO] = HANDOVER_REFUSAL, [WORD_OTHER] = HANDOVER_READY};
    static const uint8_t newer[32] = "viommuHO\x03\0\0\0\x02";
    struct handover_fds fds = {(int *)run->fds, run->n_fds, run->n_fds};
    int ret = 0;

    if (run->word < WORD_NO_STATE) {
        size_t size;
        uint8_t *bytes = pieces_join(&run->pieces, !run->unsealed, &size);

        if (size > STREAM_MAX || is_too_much(bytes, size)) {
            free(bytes);
            return false;
        }
        ret = handover_send(fd, HANDOVER_STATE, bytes, size, &fds, handover_deadline(5000));
        free(bytes);
        if (ret == 0 && run->word != WORD_HANGS_UP) {
            ret = handover_send(fd, words[run->word], "no", run->word == WORD_NO ? 2 : 0, NULL,
                                handover_deadline(5000));
        }
    } else if (run->word == WORD_NOTHING && run->unsealed) {
        ret = send(fd, newer, sizeof(newer), MSG_DONTWAIT) == sizeof(newer) ? 0 : -1;
    } else if (run->word < WORD_NOTHING) {
        ret = handover_send(fd, states[run->word], "no", 2, NULL, handover_deadline(5000));
    }
    check(ret == 0, "it cannot be said");
    shutdown(fd, run->deaf ? SHUT_RDWR : SHUT_WR);
    return true;
}

/* ---- the successor ---- */

/* What it said to the other server: its last word, or 0. */
static unsigned heard(int fd)
{
    struct handover_message message;
    unsigned last = 0, count = 0;

    while (handover_receive(fd, &message, handover_deadline(0)) == 0) {
        check((last == 0) == (message.what == HANDOVER_HELLO), "it does not begin with HELLO");
        check(message.what == HANDOVER_HELLO || message.what == HANDOVER_READY ||
                  message.what == HANDOVER_REFUSAL,
              "it says what is not its to say");
        last = message.what;
        count++;
        handover_message_fini(&message);
    }
    check(count <= 2, "it says too much");
    return last;
}

static void look(struct world *world)
{
    static const char *const sockets[] = {AT "edu", AT "unit", AT "disk"};
    int image = open(AT "image", O_RDONLY | O_CLOEXEC);
    int mirror = open(AT "mirror", O_RDONLY | O_CLOEXEC);

    memset(world, 0, sizeof(*world));
    for (unsigned i = 0; i < 3; i++) {
        (void)lstat(sockets[i], &world->sockets[i]);
    }
    world->mirror_size = read(mirror, world->mirror, sizeof(world->mirror));
    (void)!read(image, world->disk, sizeof(world->disk));
    sigprocmask(SIG_SETMASK, NULL, &world->signals);
    world->mask = umask(0);
    umask(world->mask);
    if (image >= 0) {
        close(image);
    }
    if (mirror >= 0) {
        close(mirror);
    }
}

static bool is_the_same(const struct world *one, const struct world *other)
{
    for (unsigned i = 0; i < 3; i++) {
        if (one->sockets[i].st_ino != other->sockets[i].st_ino) {
            return false;
        }
    }
    return one->mirror_size == other->mirror_size && one->mask == other->mask &&
           !memcmp(one->mirror, other->mirror, sizeof(one->mirror)) &&
           !memcmp(one->disk, other->disk, sizeof(one->disk)) &&
           !memcmp(&one->signals, &other->signals, sizeof(one->signals));
}

static void discard_device(struct served_device *served)
{
    if (served->port.loop) {
        port_discard(&served->port);
    }
    if (served->kind == &serve_kind_edu && served->edu.mirrored) {
        (void)serve_mirror_close(&served->edu.mirror);
    } else if (served->kind == &serve_kind_nvme && served->nvme) {
        (void)nvme_destroy(served->nvme);
    }
    if (served->behind) {
        viommu_device_remove(served->behind);
    } else {
        direct_memory_fini(&served->direct);
    }
}

/* What the end of its process does to a successor that came to nothing. */
static void discard(struct service *service)
{
    if (service->folder >= 0) {
        close(service->folder);
    }
    if (!service->loop.after) {
        return; /* it did not get that far */
    }
    for (unsigned i = 0; i <= service->device_count && i < SERVE_DEVICES_MAX; i++) {
        discard_device(&service->devices[i]);
    }
    if (service->unit_port.loop) {
        port_discard(&service->unit_port);
    }
    if (service->unit && service->options->iommu == SERVE_VIRTIO) {
        virtio_iommu_fini(&service->virtio);
    } else if (service->unit) {
        vtd_function_fini(&service->vtd);
    }
    loop_fini(&service->loop);
    free(service->devices);
}

/* A name that was made to stay good: its folder is open until the process ends. */
static void give_back_name(const char *name, const char *given)
{
    int fd;

    if (name && name != given && sscanf(name, "/proc/self/fd/%d/", &fd) == 1) {
        close(fd);
        free((char *)name);
    }
}

static void take_over(struct run *run, unsigned fail_at, unsigned left)
{
    const char *handover = run->shape & SHAPE_WRONG   ? RELATIVE "none/none"
                           : run->shape & SHAPE_NAMES ? RELATIVE "next"
                                                      : AT "next";
    const char *trace = run->shape & SHAPE_WRONG   ? RELATIVE "none/none"
                        : run->shape & SHAPE_NAMES ? RELATIVE "trace"
                                                   : AT "trace";
    static const int nobody[] = {-ECONNREFUSED, -EPERM, -ENAMETOOLONG, -ENOENT};
    struct world before, after;
    unsigned last;
    int pair[2], ret;

    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0,
          "no socket");
    connection = pair[1];
    if (!say(run, pair[0])) {
        close(pair[0]);
        close(pair[1]);
        service_close(&from);
        return;
    }
    if (run->word == WORD_NOBODY) {
        close(pair[1]);
        connection = nobody[fail_at % 4];
    }
    memset(&to, 0, sizeof(to));
    memset(&to_options, 0, sizeof(to_options));
    to.folder = -1;
    to_options.takeover = "there";
    if (run->shape & SHAPE_OFFERS) {
        to_options.handover = handover;
        to_options.trace = trace;
    }
    look(&before);
    run->starved = fail_at > 0 || left > 0 || run->deaf;
    if (left > 0) {
        support_starve_fds(pair[0], left - 1);
        keep_limit = true;
    }
    failing_alloc_at(fail_at);
    ret = takeover_run(&to, &to_options);
    failing_alloc_at(0);
    keep_limit = false;
    support_feed_fds();
    (void)!fchdir(home);
    last = heard(pair[0]);
    if (ret == 0) {
        check(last == HANDOVER_READY && run->word == WORD_GO, "it serves without being told to");
        check(!is_out_of_order(run), "what makes no sense is taken");
        check(is_served(run, &to) || run->changed || run->starved, "nobody serves on");
        service_close(&to);
        service_close(&from);
    } else {
        look(&after);
        check(is_the_same(&before, &after), "a refused stream has done something");
        check(run->starved || run->word > WORD_OTHER || last > HANDOVER_HELLO,
              "the other server is not told");
        check(run->starved || run->changed || run->unsealed || run->word != WORD_GO,
              "what is whole is refused");
        check(service_resume(&from) == 0 && is_served(run, &from), "the first server is disturbed");
        discard(&to);
        service_close(&from);
    }
    give_back_name(to_options.handover, handover);
    give_back_name(to_options.trace, trace);
    serve_options_fini(&to_options);
    close(pair[0]);
}

/* ---- one run ---- */

/* The descriptor of the folder has a high number, for its name to be a constant. */
static void make_room(void)
{
    struct rlimit limit;

    check(getrlimit(RLIMIT_NOFILE, &limit) == 0, "no limit");
    if (limit.rlim_cur <= FOLDER) {
        limit.rlim_cur = limit.rlim_max;
        check(limit.rlim_max > FOLDER && setrlimit(RLIMIT_NOFILE, &limit) == 0,
              "this process may not have so many descriptors");
    }
}

static void enter(char *folder)
{
    int fd;

    if (home < 0) {
        make_room();
        server_log_to(NULL);
        signal(SIGPIPE, SIG_IGN);
        home = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
        check(home >= 0, "no folder");
    }
    check(mkdtemp(folder) != NULL, "no folder");
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    check(fd >= 0 && dup3(fd, FOLDER, O_CLOEXEC) == FOLDER, "no folder");
    close(fd);
}

static void leave(const char *folder)
{
    (void)unlink(AT "image");
    (void)unlink(AT "mirror");
    (void)unlink(AT "trace");
    close(FOLDER);
    check(rmdir(folder) == 0, "something is left in the folder");
}

static void play(struct fuzz_input *input)
{
    struct run run = {.clients = {-1, -1, -1}};
    struct service_state state;
    unsigned fail_at, left;

    run.shape = fuzz_byte(input);
    run.word = fuzz_byte(input);
    run.unsealed = run.word & UNSEALED;
    run.deaf = run.word & DEAF;
    run.word %= WORDS;
    fail_at = fuzz_byte(input);
    left = fuzz_byte(input);
    open_server(run.shape);
    connect_clients(&run);
    service_pause(&from);
    check(!service_busy(&from) && service_save(&from, &state) == 0, "it cannot be saved");
    take_apart(&run, &state);
    service_state_fini(&state);
    change(&run, input);
    take_over(&run, fail_at, left);
    free(run.heads[0].body);
    pieces_fini(&run.pieces);
    for (unsigned i = 0; i < run.n_own; i++) {
        close(run.own[i]);
    }
    for (unsigned i = 0; i < 3; i++) {
        if (run.clients[i] >= 0) {
            close(run.clients[i]);
        }
    }
    close(run.ram);
    serve_options_fini(&from_options);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size, 0};
    char folder[] = "/tmp/viommu-fuzz-XXXXXX";
    sigset_t signals;
    unsigned fds;

    if (size == 0 || size > 20000) {
        return 0;
    }
    if (home < 0) {
        enter(folder);
        leave(folder);
        memcpy(folder, "/tmp/viommu-fuzz-XXXXXX", sizeof(folder));
    }
    sigprocmask(SIG_SETMASK, NULL, &signals);
    fds = support_open_fds();
    enter(folder);
    play(&input);
    leave(folder);
    sigprocmask(SIG_SETMASK, &signals, NULL);
    check(support_open_fds() == fds, "descriptors are left");
    return 0;
}
