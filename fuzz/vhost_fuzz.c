/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes what a vhost-user back-end may send, on both of its sockets, and what the kernel's vhost
 * may: raw bytes, in pieces and with descriptors; answers that are right, or nearly; floods of
 * questions; sockets that are closed. Behind it is a small guest, which maps, unmaps, invalidates,
 * starts and stops rings; memory comes and goes, time passes, devices are reset, allocations and
 * calls of the host's fail. The embedder calls what it may whenever it may: from callbacks, too,
 * and from a listener of memory and a subscriber of its own.
 *
 * Held: what is sent is well formed and of a bounded amount, and keys lead into the memory that the
 * far side was told of; no descriptor is left open; when all is over no invalidation is left that
 * waits, and no removal of memory.
 *
 * The first byte, and one after it if that says so, tell how it begins; then each operation is a
 * byte: the low four bits say what, and the next three, where the highest is set, which allocation
 * fails in it; else, where they are 1, it is one of the second sort.
 */
#include "bytes.h"
#include "vhost_guest.h"

#include <base/alloc.h>
#include <poll.h>
#include <pthread.h>
#include <viommu/vhost.h>

#define PIECES     16
#define FILES      10
#define FDS_MAX    128

/* The first byte. */
enum {
    START_KERNEL = 1,
    START_RINGS = 2,  /* negotiated, with two rings that run */
    START_SMALL = 4,  /* it lacks features */
    START_WRITES = 8, /* who may write may read */
    START_FILES = 16, /* memory lies in many pieces of its file; the last is read-only */
    START_MANY = 32,  /* four rings are wanted */
    START_FAILS = 64, /* a byte after: what fails when it is created */
    START_MORE = 128, /* another byte follows this one: */
};

enum {
    MORE_QUIET = 1,    /* no callbacks */
    MORE_NO_CLOCK = 2, /* the host's */
    MORE_TIGHT = 4,    /* sockets that take little at once */
    MORE_EAGER = 8,    /* callbacks do something */
    MORE_BESIDE = 16,  /* a listener and a subscriber that do */
    MORE_NO_MQ = 32,   /* the far side has few rings */
    MORE_NAMED = 64,   /* the socket says who sends */
    MORE_ZERO = 128,   /* time begins at 0 */
};

enum operation {
    OP_RAW = 0,
    OP_ANSWER,
    OP_LIE,
    OP_MISS,
    OP_FDS,
    OP_MAP,
    OP_FLUSH,
    OP_RING,
    OP_PROCESS,
    OP_TIME,
    OP_MEMORY,
    OP_RECONNECT,
    OP_DEVICE,
    OP_READ,
    OP_CLOSE,
    OP_TABLES,
    OP_FAULT,
    OP_CREATE,
    OP_ASK,
    OP_SETUP,
    OP_FLOOD,
    OP_FLIP,
    OP_SLOT,
    OP_FAR,
    OP_LOOK,
    OP_THREAD,
    OP_BACK,
    OP_STOP,
    OP_ALIAS,
    OP_WINDOW,
    OP_RENEW,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int other_fd = -1;
static int files[FILES]; /* and not all of one file system */

static unsigned open_fds(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < FDS_MAX; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

static uint64_t on_clock(void *opaque)
{
    return ((struct bed *)opaque)->clock;
}

/* ---- connections ---- */

/* One end of a connection; the other one is far[0]. */
static int connect_far(struct bed *bed)
{
    int ends[2];

    close_far(bed);
    make_pair(bed, ends);
    bed->far[0] = ends[1];
    return ends[0];
}

/* With this end of a pair, or any other descriptor; what is there now stays where it is refused. */
static void reconnect(struct bed *bed, bool pair)
{
    int ends[2] = {ram_fd, -1};

    if (pair) {
        make_pair(bed, ends);
    }
    if (!viommu_vhost_reconnect(bed->vhost, ends[0])) {
        close_far(bed);
        bed->far[0] = ends[1];
    } else if (pair) {
        close(ends[0]);
        close(ends[1]);
    }
}

static void reset_and_reconnect(struct bed *bed)
{
    if (viommu_vhost_state(bed->vhost) == VIOMMU_VHOST_FAILED && !bed->kernel) {
        (void)viommu_device_reset(bed->device); /* it may be denied */
        reconnect(bed, true);
    }
}

static void process(struct bed *bed)
{
    (void)viommu_vhost_process(bed->vhost);
    if (vhost_channel_waiting(&bed->vhost->main) > VHOST_OUT_ROOM) {
        guest_die("too much is waiting");
    }
    guest_process(&bed->guest);
    (void)viommu_memory_process(bed->guest.memory);
}

/* ---- the second sort of operations ---- */

/* Creating another one, with a configuration that is right or wrong; and ending none. */
static void create_another(struct bed *bed, uint8_t what)
{
    struct viommu_vhost_config config = {.device = what & 1 ? NULL : bed->device,
                                         .memory = what & 2 ? NULL : bed->guest.memory,
                                         .fd = -1,
                                         .rings = what & 8 ? 0 : what & 16 ? 65 : 1,
                                         .kind = what & 32 ? 2 : what & 64 ? VIOMMU_VHOST_KERNEL
                                                                           : VIOMMU_VHOST_USER};
    struct viommu_memory *other = NULL;
    struct viommu_vhost *another = NULL;
    int ends[2];

    make_pair(bed, ends);
    config.fd = what & 4 ? -1 : ends[0];
    if (what & 128 && !viommu_memory_create(&other)) {
        config.memory = other;
    }
    if (viommu_vhost_create(&config, &another)) {
        close(ends[0]);
    }
    viommu_vhost_destroy(another);
    viommu_memory_destroy(other);
    close(ends[1]);
}

static void set_up(struct bed *bed, uint8_t number, struct fuzz_input *input)
{
    struct viommu_vhost_ring setup = {.size = (uint16_t)fuzz_number(input, 2),
                                      .next = (uint16_t)fuzz_number(input, 2)};
    uint8_t fds;

    setup.descriptors = fuzz_number(input, 8);
    setup.available = fuzz_number(input, 8);
    setup.used = fuzz_number(input, 8);
    fds = fuzz_byte(input);
    setup.kick = fds & 1 ? FDS_MAX + 1 : fds & 2 ? -1 : fds & 4 ? -2 : ram_fd;
    setup.call = fds & 16 ? FDS_MAX + 1 : fds & 32 ? -1 : fds & 64 ? -2 : ram_fd;
    (void)viommu_vhost_ring_start(bed->vhost, number, &setup);
}

/* It asks, and asks: 64 times before anybody listens. What is new each time takes longer. */
static void flood(struct bed *bed, uint8_t rounds, uint8_t how)
{
    const unsigned cost = how & 8 ? 2 : 1;

    for (unsigned i = 0; i <= rounds % 80u && bed->rounds >= cost; i++, bed->rounds -= cost) {
        for (unsigned j = 0; j < 64; j++) {
            uint64_t other = MANY + (bed->asked++ % 8192) * 0x1000ull;

            miss(bed, how & 8 ? other : BASE, 1, how & 1 ? VHOST_USER_NEED_REPLY : 0);
        }
        process(bed);
        while ((how & 2) && !bed->kernel && read_message(bed)) {
            /* but no replies */
        }
        if ((how & 2) && bed->kernel) {
            read_all(bed);
        }
        if (how & 4) {
            answer(bed, OWED_MAX);
        }
    }
}

/* Pages lead elsewhere than before whenever they are asked for. */
static void flip(struct bed *bed, uint8_t rounds)
{
    for (unsigned i = 0; i <= rounds % 80u && bed->rounds; i++, bed->rounds--) {
        for (unsigned j = 0; j < 64; j++) {
            uint64_t at = MANY + (j + i % 8 * 64) * 0x2000ull;

            (void)guest_map(&bed->guest, bed->table, LEVELS, at, (40 + (i / 8 & 1)) * 4096ull, 1,
                            3);
            miss(bed, at, 1, 0);
        }
        process(bed);
        read_all(bed);
    }
}

/* A table that is met at many places, whose pages are one. */
static void alias(struct bed *bed)
{
    struct guest *guest = &bed->guest;
    uint64_t leaf = guest_map(guest, bed->table, LEVELS, MANY, 50 * 4096, 1, 3) & ~UINT64_C(0xfff);

    for (unsigned i = 0; i < 512; i++) {
        guest_store(guest, leaf + i * 8, (50 * 4096) | 3);
    }
    for (uint64_t at = MANY + LARGE; at < MANY + 16 * LARGE; at += LARGE) {
        guest_store(guest, guest_map(guest, bed->table, LEVELS, at, 0, 2, 0), leaf | 3);
    }
}

/* Memory of some file, at some place of it: it comes, or goes. */
static void change_slot(struct bed *bed, uint8_t which, struct fuzz_input *input)
{
    uint8_t file = fuzz_byte(input);
    uint8_t place = fuzz_byte(input);
    uint8_t kind = fuzz_byte(input);
    struct viommu_memory_slot it = slot(SLOTS + which % SLOT_COUNT * 0x4000ull, 64, kind % 4 + 1u);
    struct viommu_memory_batch *batch;

    it.fd = file < FILES ? files[file] : file == FILES ? -1 : file & 1 ? FDS_MAX + 1 : ram_fd;
    it.fd_offset = place & 0x80 ? INT64_MAX - 0xfff - (place & 7) * 4096ull : place * 4096ull;
    it.fd_offset = place == 0xff ? UINT64_MAX - 0xfff : it.fd_offset;
    it.flags = kind & 0x80 ? VIOMMU_MEMORY_READONLY : 0;
    if (viommu_memory_batch_begin(bed->guest.memory, &batch)) {
        return;
    }
    if (which & 0x80 ? viommu_memory_batch_remove(batch, it.first, it.first + 0x3fff)
                     : viommu_memory_batch_add(batch, &it)) {
        viommu_memory_batch_abort(batch);
        return;
    }
    (void)viommu_memory_batch_commit(batch, NULL, NULL);
}

static void map_wide(struct bed *bed, uint8_t to, struct fuzz_input *input)
{
    uint64_t iova = BASE + (fuzz_number(input, 2) % 512) * 0x1000;
    uint64_t gpa = to & 0x80 ? (to & 0x7f) * 0x1000ull : SLOTS + (to & 63) * 0x1000ull;

    if (iova < LARGE || !bed->large_outside) {
        (void)guest_map(&bed->guest, bed->table, LEVELS, iova, gpa, 1, fuzz_byte(input) & 3);
    }
}

static void renew(struct bed *bed, uint8_t number, uint8_t fds)
{
    (void)viommu_vhost_ring_renew(bed->vhost, number,
                                  fds & 1   ? FDS_MAX + 1
                                  : fds & 2 ? -1
                                  : fds & 4 ? -2
                                            : ram_fd,
                                  fds & 16   ? FDS_MAX + 1
                                  : fds & 32 ? -1
                                  : fds & 64 ? -2
                                             : ram_fd);
}

static void look(const struct bed *bed, uint8_t size)
{
    uint8_t bytes[256];

    memset(bytes, 0xee, sizeof(bytes));
    (void)viommu_vhost_statistics(bed->vhost, (struct viommu_vhost_statistics *)(void *)bytes,
                                  size);
    if (bytes[size] != 0xee) {
        guest_die("statistics of %u bytes went further", size);
    }
}

/* A thread's first call, without memory. */
static void *first_call(void *opaque)
{
    const struct viommu_vhost_ring setup = {
        .size = 4, .descriptors = BASE, .available = BASE, .used = BASE, .kick = -1, .call = -1};
    struct bed *bed = opaque;

    base_alloc_fail_at(1);
    if (viommu_vhost_process(bed->vhost) != -ENOMEM) {
        return NULL; /* it took the place of another one that has ended */
    }
    base_alloc_fail_at(1);
    (void)viommu_vhost_ring_start(bed->vhost, 0, &setup);
    return NULL;
}

static void call_on_a_thread(struct bed *bed)
{
    pthread_t thread;

    if (!pthread_create(&thread, NULL, first_call, bed)) {
        pthread_join(thread, NULL);
    }
    base_alloc_fail_at(0);
}

static void operate_more(struct bed *bed, enum operation what, uint8_t a, struct fuzz_input *input)
{
    uint8_t b = 0;

    switch (what) {
    case OP_FAULT: /* of the operation that follows */
        b = fuzz_byte(input);
        fault_set(a, 1 + (b & 15), fuzz_byte(input));
        base_alloc_fail_at(a % FAULT_CALLS == FAULT_NONE ? 1 + (b & 15) : 0);
        break;
    case OP_CREATE:
        create_another(bed, a);
        break;
    case OP_ASK:
        b = fuzz_byte(input);
        miss(bed, fuzz_number(input, 8), a, b & VHOST_USER_NEED_REPLY);
        break;
    case OP_SETUP:
        set_up(bed, a, input);
        break;
    case OP_FLOOD:
        flood(bed, a, fuzz_byte(input));
        break;
    case OP_FLIP:
        flip(bed, a);
        break;
    case OP_SLOT:
        change_slot(bed, a, input);
        break;
    case OP_FAR:
        bed->features = a;
        break;
    case OP_LOOK:
        look(bed, a & 0x7f);
        break;
    case OP_THREAD:
        call_on_a_thread(bed);
        break;
    case OP_BACK:
        reconnect(bed, !(a & 1));
        break;
    case OP_STOP:
        (void)viommu_vhost_ring_stop(bed->vhost, a);
        break;
    case OP_ALIAS:
        alias(bed);
        break;
    case OP_RENEW:
        renew(bed, a, fuzz_byte(input));
        break;
    default:
        map_wide(bed, a, input);
        break;
    }
}

static void raw(struct bed *bed, struct fuzz_input *input)
{
    uint8_t bytes[256];
    uint8_t what = fuzz_byte(input);
    unsigned count = what & 0x7f;

    for (unsigned i = 0; i < count; i++) {
        bytes[i] = fuzz_byte(input);
    }
    send_bytes(bed, what >> 7, bytes, count);
}

static void operate(struct bed *bed, struct fuzz_input *input)
{
    uint8_t what = fuzz_byte(input);
    uint8_t a = fuzz_byte(input);
    uint8_t b = 0;

    if (what & 0x80) {
        base_alloc_fail_at(1 + (what >> 4 & 7));
    } else if (what >> 4 == 1) {
        operate_more(bed, (enum operation)what, a, input);
        if (what != OP_FAULT) {
            fault_set(FAULT_NONE, 0, 0);
            base_alloc_fail_at(0);
        }
        return;
    }
    switch ((enum operation)(what & 15)) {
    case OP_RAW:
        raw(bed, input);
        break;
    case OP_ANSWER:
        read_all(bed);
        answer(bed, a == 255 ? OWED_MAX : 1 + a);
        break;
    case OP_LIE:
        b = fuzz_byte(input);
        send_answer(bed, bed->owed_count && !(a & 1) ? bed->owed[0].request : b, a & 2 ? a >> 2 : 5,
                    fuzz_number(input, 8));
        break;
    case OP_MISS:
        b = fuzz_byte(input);
        for (unsigned i = 0; i <= (b >> 4); i++) {
            uint64_t base = !(b & 8) ? BASE : a & 0x80 ? UINT64_MAX - 0xff * 1024 : LARGE;

            miss(bed, base + a * 1024ull + i * 4096, b & 7 ? b & 3 : 3,
                 b & 4 ? VHOST_USER_NEED_REPLY : 0);
        }
        break;
    case OP_FDS:
        send_fds(bed, a & 1, 1 + (a >> 1) % 16);
        break;
    case OP_MAP:
        b = fuzz_byte(input);
        map(bed, a, b, fuzz_byte(input));
        break;
    case OP_FLUSH:
        flush(bed, a, fuzz_byte(input));
        break;
    case OP_RING:
        ring(bed, a);
        break;
    case OP_PROCESS:
        process(bed);
        break;
    case OP_TIME:
        bed->clock += a * 10 * MS;
        process(bed);
        break;
    case OP_MEMORY:
        change_memory(bed);
        break;
    case OP_RECONNECT:
        reset_and_reconnect(bed);
        break;
    case OP_DEVICE:
        device(bed, a);
        break;
    case OP_READ:
        read_all(bed);
        break;
    case OP_CLOSE:
        if (bed->far[a & 1] >= 0) {
            close(bed->far[a & 1]);
            bed->far[a & 1] = -1;
        }
        break;
    case OP_TABLES:
        /* All pages follow one another. */
        for (uint8_t i = 0; i < 32; i++) {
            map(bed, i, (uint8_t)(a + i) & 0x7f, 3);
        }
        break;
    default:
        break;
    }
    base_alloc_fail_at(0);
    fault_set(FAULT_NONE, 0, 0);
}

/* ---- callbacks ---- */

static void on_ready(void *opaque)
{
    struct bed *bed = opaque;

    if (viommu_vhost_state(bed->vhost) != VIOMMU_VHOST_READY) {
        guest_die("ready, and is not");
    }
    if (bed->eager) {
        (void)viommu_vhost_accept(bed->vhost, viommu_vhost_features(bed->vhost));
        ring(bed, 0x40);
        ring(bed, 0x49);
        ring(bed, 0x42);
    }
}

static void on_stopped(void *opaque, unsigned number, uint16_t next)
{
    struct bed *bed = opaque;

    (void)next;
    if (number >= VIOMMU_VHOST_RINGS_MAX) {
        guest_die("ring %u stopped", number);
    }
    if (bed->eager) {
        ring(bed, (uint8_t)(0x40 | number));
    }
}

static void on_failed(void *opaque, int error)
{
    struct bed *bed = opaque;

    if (error >= 0 || viommu_vhost_state(bed->vhost) != VIOMMU_VHOST_FAILED) {
        guest_die("failed with %d", error);
    }
    if (bed->eager && bed->reconnects) {
        bed->reconnects--;
        reconnect(bed, true);
        reset_and_reconnect(bed);
    }
}

/* Who is beside it when changes are told. */
static int on_change(void *opaque, const struct viommu_change *change)
{
    struct bed *bed = opaque;

    (void)change;
    if (viommu_vhost_process(bed->vhost) != -EDEADLK) {
        guest_die("processed from a change");
    }
    ring(bed, 0x40);
    ring(bed, 0x43);
    return 0;
}

static int on_memory(void *opaque, const struct viommu_memory_change *change)
{
    struct bed *bed = opaque;

    (void)change;
    (void)viommu_vhost_process(bed->vhost);
    if (viommu_vhost_state(bed->vhost) == VIOMMU_VHOST_FAILED) {
        reconnect(bed, true);
    }
    ring(bed, 0x40);
    return 0;
}

static void on_memory_changed(void *opaque, const struct viommu_memory_change *change)
{
    (void)on_memory(opaque, change);
}

static void enter_beside(struct bed *bed)
{
    static const struct viommu_memory_listener_ops ops = {.changing = on_memory,
                                                          .changed = on_memory_changed};
    const struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_UNMAP, .change = on_change, .opaque = bed};

    guest_ok(viommu_device_subscribe(bed->device, &what, &bed->beside), "a subscriber");
    guest_ok(viommu_memory_listener_add(bed->guest.memory, &ops, bed, &bed->listener),
             "a listener");
}

/* ---- all together ---- */

/* In one piece, or in many: pages of the file in another order, the last of them read-only. */
static void add_memory(struct viommu_memory *memory, bool pieces)
{
    struct viommu_memory_slot all = slot(0, 0, PAGES);
    struct viommu_memory_batch *batch;

    guest_ok(viommu_memory_batch_begin(memory, &batch), "batch");
    if (!pieces) {
        guest_ok(viommu_memory_batch_add(batch, &all), "slot");
    }
    for (unsigned i = 0; pieces && i < PIECES; i++) {
        const unsigned pages = PAGES / PIECES;
        struct viommu_memory_slot piece = slot(i * pages * 4096ull, i * pages, pages);

        /* The file of an even one is the file; of an odd one no file at all, or another. */
        piece.fd = i == 3 ? -1 : i == 5 ? other_fd : ram_fd;
        piece.fd_offset = i % 2 && i != 5 ? (PIECES - i) * pages * 4096ull : piece.fd_offset;
        piece.flags = i == PIECES - 1 ? VIOMMU_MEMORY_READONLY : 0;
        guest_ok(viommu_memory_batch_add(batch, &piece), "piece");
    }
    guest_ok(viommu_memory_batch_commit(batch, NULL, NULL), "commit");
}

/* Creates it, with allocations or calls that fail, and then again. */
static void create(struct bed *bed, const struct viommu_vhost_config *config, uint8_t fail,
                   struct fuzz_input *input)
{
    bool faulty = fail >> 4;
    int ret;

    if (faulty) {
        uint8_t more = fuzz_byte(input);

        fault_set(fail >> 4, 1 + (more & 7), more & 0x80 ? 0x80 : more >> 3);
    }
    base_alloc_fail_at(fail % 16);
    ret = viommu_vhost_create(config, &bed->vhost);
    base_alloc_fail_at(0);
    fault_set(FAULT_NONE, 0, 0);
    if (ret && (!fail || (!faulty && ret != -ENOMEM))) {
        guest_die("created: %d", ret);
    }
    if (ret) {
        guest_ok(viommu_vhost_create(config, &bed->vhost), "vhost");
    }
}

/* Runs until it is ready, with two rings. */
static void start_rings(struct bed *bed)
{
    for (unsigned i = 0; i < 20; i++) {
        read_all(bed);
        answer(bed, OWED_MAX);
        process(bed);
        if (i == 10) {
            for (uint8_t page = 0; page < 16; page++) {
                map(bed, page, (uint8_t)(page + 40), 3);
            }
            ring(bed, 0x40);
            ring(bed, 0x49);
        }
    }
}

static void begin(struct bed *bed, struct fuzz_input *input)
{
    uint8_t start = fuzz_byte(input);
    uint8_t more = start & START_MORE ? fuzz_byte(input) : 0;
    struct guest_config config = {.clock = more & MORE_NO_CLOCK ? NULL : on_clock,
                                  .opaque = bed,
                                  .ack_timeout_ms = 100,
                                  .iotlb_entries = 256,
                                  .ram_pages = PAGES,
                                  .ram = ram};
    struct viommu_device_config device_config = {.requester = REQUESTER};
    struct viommu_vhost_config vhost = {.features = UINT64_MAX,
                                        .rings = start & START_MANY ? 4 : 2,
                                        .timeout_ms = start & START_MANY ? 500 : 0,
                                        .writable_is_readable = start & START_WRITES,
                                        .ready = more & MORE_QUIET ? NULL : on_ready,
                                        .stopped = more & MORE_QUIET ? NULL : on_stopped,
                                        .failed = more & MORE_QUIET ? NULL : on_failed,
                                        .opaque = bed};
    const int yes = 1;

    *bed = (struct bed){.clock = more & MORE_ZERO ? 0 : MS,
                        .far = {-1, -1},
                        .kernel = start & START_KERNEL,
                        .small = start & START_SMALL,
                        .no_mq = more & MORE_NO_MQ,
                        .tight = more & MORE_TIGHT,
                        .eager = more & MORE_EAGER,
                        .reconnects = 4,
                        .rounds = 320};
    virtual_time = more & MORE_NO_CLOCK ? &bed->clock : NULL;
    fault_shortened = false;
    guest_ok(viommu_memory_create(&config.memory), "memory");
    add_memory(config.memory, start & START_FILES);
    memset(ram, 0, PAGES * 4096);
    guest_ok(guest_init(&bed->guest, &config), "guest");
    guest_set_root(&bed->guest);
    bed->table = guest_page(&bed->guest);
    guest_attach(&bed->guest, REQUESTER, 1, bed->table, LEVELS, SPEC_TT_UNTRANSLATED);
    guest_queue_on(&bed->guest);
    guest_command(&bed->guest, SPEC_TE, true);
    guest_ok(viommu_device_add(bed->guest.iommu, &device_config, &bed->device), "device");
    vhost.kind = bed->kernel ? VIOMMU_VHOST_KERNEL : VIOMMU_VHOST_USER;
    vhost.device = bed->device;
    vhost.memory = bed->guest.memory;
    vhost.fd = connect_far(bed);
    if (more & MORE_NAMED) {
        (void)setsockopt(vhost.fd, SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes));
    }
    create(bed, &vhost, start & START_FAILS ? fuzz_byte(input) : 0, input);
    if (more & MORE_BESIDE) {
        enter_beside(bed);
    }
    if (start & START_RINGS) {
        start_rings(bed);
    }
}

/* Time runs out for the far side: nothing waits for it then. */
static void end(struct bed *bed)
{
    struct viommu_memory *memory = bed->guest.memory;
    uint32_t status;

    /* What was to fail in an operation that did not come. */
    base_alloc_fail_at(0);
    fault_set(FAULT_NONE, 0, 0);
    bed->eager = false;
    (void)viommu_subscriber_destroy(bed->beside);
    if (bed->listener) {
        (void)viommu_memory_listener_remove(bed->listener);
    }
    for (unsigned i = 0; i < 3; i++) {
        bed->clock += 2000 * MS;
        process(bed);
    }
    for (unsigned i = 0; i < 1000 && viommu_memory_process(memory) == VIOMMU_PENDING; i++) {
        process(bed);
    }
    status = (uint32_t)guest_load(&bed->guest, bed->guest.status);
    if (guest_read(&bed->guest, SPEC_FSTS, 4) & SPEC_IQE) {
        status = bed->guest.status_value; /* a map of the guest's went over its own queue */
    }
    if (status != bed->guest.status_value || bed->extra_leaves) {
        guest_die("something waits: status %u of %u, memory %d", status, bed->guest.status_value,
                  bed->extra_leaves);
    }
    viommu_vhost_destroy(bed->vhost);
    close_far(bed);
    guest_fini(&bed->guest);
    viommu_memory_destroy(memory);
    virtual_time = NULL;
}

/* What lasts from one input to the next. */
static void open_files(void)
{
    other_fd = memfd_create("other", MFD_CLOEXEC);
    ram_fd = memfd_create("ram", MFD_CLOEXEC);
    if (ram_fd < 0 || ftruncate(ram_fd, (PAGES + 4) * 4096)) {
        guest_die("memory of the guest");
    }
    ram = mmap(NULL, (PAGES + 4) * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ram_fd, 0);
    if (ram == MAP_FAILED) {
        guest_die("memory of the guest");
    }
    for (unsigned i = 0; i < FILES; i++) {
        files[i] = i == 3   ? open("/dev/null", O_RDWR | O_CLOEXEC)
                   : i == 6 ? open("/", O_PATH | O_CLOEXEC)
                            : memfd_create("file", MFD_CLOEXEC);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {.data = data, .size = size};
    static struct bed bed;
    unsigned fds;

    if (ram_fd < 0) {
        open_files();
    }
    fds = open_fds();
    begin(&bed, &input);
    while (fuzz_more(&input)) {
        operate(&bed, &input);
    }
    end(&bed);
    if (open_fds() != fds) {
        guest_die("%u descriptors are open, before %u", open_fds(), fds);
    }
    return 0;
}
