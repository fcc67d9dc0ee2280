/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * All at once, with each cache: devices that pin windows, translate lists, read and write; a mirror
 * and its hardware; a guest that maps, rewrites and unmaps pages and invalidates by queue; memory
 * that comes and goes; states that are saved while all of that runs, and loaded into another unit;
 * a watcher that comes and goes.
 *
 * When the guest's wait is over, or memory is gone, the page is the guest's: it fills it with a
 * poison and looks whether anybody touches it. Each user has a part of the pages that nobody else
 * has, and uses it by ordinary instructions: what the library leaves unordered is a data race that
 * ThreadSanitizer sees.
 */
#include "crew.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGES 8    /* of device addresses; each leads to one of two pages of memory */
#define RAM_PAGES 5 /* the others lead into the slot that comes and goes */
#define TARGETS 2
#define EXTRA 0x10000000ull
#define EXTRA_PAGES ((PAGES - RAM_PAGES) * TARGETS)
#define FIRST_IOVA 0x40000000ull
#define PART 256u
#define DOMAIN 7
#define POISON 0xa5
#define CLEAN 0x11
#define TIMEOUT_MS 20
#define ROUNDS 150 /* of the driver, with one cache */
#define ROUNDS_MAX 100000 /* while some thread has had no turn: the machine is busy */

/* Who uses pages, each as a device of its own. */
enum user { PINS, PINS_TOO, LISTS, COPIES, MIRRORED, USERS };

struct world {
    struct guest guest;
    struct crew crew;
    int wake; /* an eventfd, where the callback is used */
    struct viommu_device *devices[USERS];
    uint64_t entries[PAGES];
    uint64_t targets[PAGES][TARGETS];
    unsigned target[PAGES]; /* what the entry leads to, while it is mapped */
    bool mapped[PAGES];
    uint8_t *extra;
    _Atomic bool gone;             /* a removal is complete */
    pthread_mutex_t memory_steady; /* held while memory changes, and by who needs it not to */
    pthread_mutex_t mirror_lock; /* guards what follows, but for `mirror_fenced` */
    uint8_t *mirror[PAGES];      /* what the mirror holds */
    struct viommu_change pending; /* that it answered so; kind 0: none */
    struct random answers;
    _Atomic bool mirror_fenced;
    /* Of who watches. */
    bool watching;
    uint64_t last; /* observation */
    _Atomic uint64_t uses[USERS];
    _Atomic uint64_t saved;
    _Atomic uint64_t busy;
    _Atomic uint64_t told;
};

struct worker {
    struct world *world;
    enum user user;
    struct random random;
};

/* Who calls viommu_process: the driver that waits, or a thread that hears of work in one of two
   ways. */
enum processing { BY_DRIVER, BY_DESCRIPTOR, BY_WAKE };

static const char *const processing_names[] = {"driver", "descriptor", "wake"};
static const char *const cache_names[] = {"normal", "faithful", "hostile"};

static uint64_t iova_of(unsigned page)
{
    return FIRST_IOVA + page * GUEST_PAGE;
}

static uint8_t *host_of(struct world *world, uint64_t gpa)
{
    return gpa < EXTRA ? guest_host(&world->guest, gpa) : world->extra + (gpa - EXTRA);
}

/* Somebody's part of a page, by pointer. */
static void use(struct world *world, enum user user, uint8_t *part, struct random *random)
{
    if (random_percent(random, 50)) {
        memset(part, CLEAN + 1, PART);
    } else {
        for (unsigned i = 0; i < PART; i++) {
            if (part[i] == POISON) {
                guest_die("user %d saw a page after its invalidation had completed", user);
            }
        }
    }
    atomic_fetch_add_explicit(&world->uses[user], 1, memory_order_relaxed);
}

/* An answer that a device may get while pages and memory come and go. */
static void check_answer(struct world *world, enum user user, int error)
{
    if (error == -EPERM) {
        guest_ok(viommu_device_reset(world->devices[user]), "reset");
    } else if (error && error != -EFAULT && error != -ENXIO) {
        guest_die("user %d: %d", user, error);
    }
}

/* ---- devices ---- */

struct holder {
    pthread_mutex_t lock; /* held while the pointers are used; guards `stopped` */
    bool stopped;
    _Atomic bool revoked;
};

static void on_revoke(void *opaque)
{
    struct holder *holder = opaque;

    atomic_store(&holder->revoked, true);
}

static int on_fence(void *opaque)
{
    struct holder *holder = opaque;

    pthread_mutex_lock(&holder->lock);
    holder->stopped = true;
    pthread_mutex_unlock(&holder->lock);
    return 0;
}

/* One window: pinned, used for a while, released. */
static void pin(struct worker *worker, struct holder *holder)
{
    struct world *world = worker->world;
    struct viommu_range ranges[2];
    struct viommu_window_request request = {
        .ranges = ranges,
        .count = 1 + random_below(&worker->random, 2),
        .perm = VIOMMU_READ | VIOMMU_WRITE,
        .revoke = on_revoke,
        .fence = on_fence,
        .opaque = holder,
    };
    unsigned times = random_below(&worker->random, 20);
    bool lazy = random_percent(&worker->random, 1); /* does not hear revoke */
    struct viommu_window *window;
    struct iovec iov[2];
    size_t count = 2;
    int error;

    for (size_t i = 0; i < request.count; i++) {
        ranges[i].first = iova_of(random_below(&worker->random, PAGES)) + worker->user * PART;
        ranges[i].last = ranges[i].first + PART - 1;
    }
    holder->stopped = false;
    atomic_store(&holder->revoked, false);
    error = viommu_device_pin(world->devices[worker->user], NULL, &request, iov, &count, &window);
    if (error) {
        check_answer(world, worker->user, error);
        return;
    }
    while (lazy || (times-- > 0 && !atomic_load(&holder->revoked))) {
        pthread_mutex_lock(&holder->lock);
        if (!holder->stopped) {
            use(world, worker->user, iov[random_below(&worker->random, (unsigned)count)].iov_base,
                &worker->random);
        }
        lazy = lazy && !holder->stopped && crew_working(&world->crew);
        pthread_mutex_unlock(&holder->lock);
        if (random_percent(&worker->random, 20)) {
            crew_sleep(20);
        }
    }
    viommu_window_release(window);
}

/* A list of pages, translated and used in one section. */
static void use_list(struct worker *worker)
{
    struct world *world = worker->world;
    uint64_t list[3];
    size_t translated;
    int error;

    for (unsigned i = 0; i < 3; i++) {
        list[i] = iova_of(random_below(&worker->random, PAGES)) + worker->user * PART;
    }
    guest_ok(viommu_dma_begin(world->guest.iommu), "section");
    error = viommu_device_translate_many(world->devices[worker->user], NULL, list, 3,
                                         VIOMMU_READ | VIOMMU_WRITE, list, &translated);
    /* A gpa may lead into the slot that is gone: only who asks the memory may go there. */
    for (size_t i = 0; i < translated; i++) {
        if (list[i] < EXTRA) {
            use(world, worker->user, host_of(world, list[i]), &worker->random);
        }
    }
    viommu_dma_end(world->guest.iommu);
    check_answer(world, worker->user, error);
}

static void copy(struct worker *worker)
{
    struct viommu_device *device = worker->world->devices[worker->user];
    uint64_t iova = iova_of(random_below(&worker->random, PAGES)) + worker->user * PART;
    uint8_t buffer[PART];
    int error;

    if (random_percent(&worker->random, 50)) {
        memset(buffer, CLEAN + 1, sizeof(buffer));
        error = viommu_device_write(device, NULL, iova, buffer, sizeof(buffer));
    } else {
        error = viommu_device_read(device, NULL, iova, buffer, sizeof(buffer));
        if (!error && memchr(buffer, POISON, sizeof(buffer))) {
            guest_die("a device read a page after its invalidation had completed");
        }
    }
    check_answer(worker->world, worker->user, error);
    if (!error) {
        atomic_fetch_add_explicit(&worker->world->uses[worker->user], 1, memory_order_relaxed);
    }
}

/* With mirror_lock. */
static void mirror_apply(struct world *world, const struct viommu_change *change)
{
    bool map = change->kind == VIOMMU_CHANGE_MAP;

    for (unsigned i = 0; i < PAGES; i++) {
        if (iova_of(i) < change->first || iova_of(i) > change->last) {
            continue;
        }
        if (map != !world->mirror[i]) {
            guest_die("the mirror was told to map or unmap what it has or has not");
        }
        world->mirror[i] = map ? (uint8_t *)change->host + (iova_of(i) - change->first) : NULL;
    }
}

static int on_change(void *opaque, const struct viommu_change *change)
{
    struct world *world = opaque;
    int ret = 0;

    pthread_mutex_lock(&world->mirror_lock);
    if (world->pending.kind) {
        guest_die("the mirror was told something while it had not answered");
    }
    if (random_percent(&world->answers, 30)) {
        world->pending = *change;
        ret = VIOMMU_PENDING;
    } else {
        mirror_apply(world, change);
    }
    pthread_mutex_unlock(&world->mirror_lock);
    return ret;
}

/* It was late: on a machine with much to do that happens. */
static int on_mirror_fence(void *opaque)
{
    struct world *world = opaque;

    pthread_mutex_lock(&world->mirror_lock);
    memset(world->mirror, 0, sizeof(world->mirror));
    world->pending.kind = 0;
    pthread_mutex_unlock(&world->mirror_lock);
    atomic_store(&world->mirror_fenced, true);
    return 0;
}

/* Does what was asked for, now and then, and says so. */
static void mirror_answer(struct worker *worker)
{
    struct world *world = worker->world;
    struct viommu_change change;
    int error;

    pthread_mutex_lock(&world->mirror_lock);
    change = world->pending;
    if (!change.kind || random_percent(&worker->random, 90)) {
        pthread_mutex_unlock(&world->mirror_lock);
        return;
    }
    mirror_apply(world, &change);
    world->pending.kind = 0;
    pthread_mutex_unlock(&world->mirror_lock);
    error = viommu_change_complete(world->guest.iommu, change.token, 0);
    if (error && error != -ENOENT) { /* it was too late */
        guest_die("complete: %d", error);
    }
}

/* What the hardware behind the mirror does. */
static void use_mirror(struct worker *worker)
{
    struct world *world = worker->world;
    uint8_t *host;

    pthread_mutex_lock(&world->mirror_lock);
    host = world->mirror[random_below(&worker->random, PAGES)];
    if (host) {
        use(world, worker->user, host + worker->user * PART, &worker->random);
    }
    pthread_mutex_unlock(&world->mirror_lock);
    mirror_answer(worker);
    if (atomic_exchange(&world->mirror_fenced, false)) {
        guest_ok(viommu_device_reset(world->devices[MIRRORED]), "reset");
    }
}

static void *work(void *arg)
{
    struct worker *worker = arg;
    struct holder holder = {.lock = PTHREAD_MUTEX_INITIALIZER};

    while (crew_working(&worker->world->crew)) {
        switch (worker->user) {
        case PINS:
        case PINS_TOO:
            pin(worker, &holder);
            break;
        case LISTS:
            use_list(worker);
            break;
        case COPIES:
            copy(worker);
            break;
        default:
            use_mirror(worker);
            break;
        }
        if (random_percent(&worker->random, 5)) {
            crew_sleep(20);
        }
    }
    pthread_mutex_destroy(&holder.lock);
    return NULL;
}

/* ---- watchers and states ---- */

static void observe(void *opaque, const struct viommu_observation *observation)
{
    struct world *world = opaque;

    if (!world->watching || observation->index != ++world->last) {
        guest_die("a watcher was told out of turn");
    }
    atomic_fetch_add_explicit(&world->told, 1, memory_order_relaxed);
}

static void *watch(void *arg)
{
    struct worker *worker = arg;
    struct world *world = worker->world;
    struct viommu_watcher watcher = {.observe = observe, .opaque = world};

    while (crew_working(&world->crew)) {
        world->last = 0;
        world->watching = true;
        guest_ok(viommu_watch(world->guest.iommu, &watcher), "watch");
        crew_sleep(random_below(&worker->random, 500));
        guest_ok(viommu_watch(world->guest.iommu, NULL), "watch");
        world->watching = false;
        crew_sleep(random_below(&worker->random, 500));
    }
    return NULL;
}

/* Another unit, brought to the state, asked, and given up. It is never processed: the first goes
   on. */
static void load(struct world *world, const void *data, size_t size)
{
    struct viommu *second;
    struct viommu_device *devices[USERS];
    uint64_t status;
    uint64_t gpa;
    size_t translated;

    guest_ok(guest_second(&world->guest, &second), "second unit");
    for (unsigned i = 0; i < USERS; i++) {
        struct viommu_device_config config = {.requester = (uint16_t)(8 + i)};

        guest_ok(viommu_device_add(second, &config, &devices[i]), "device of the second");
    }
    pthread_mutex_lock(&world->memory_steady);
    guest_ok(viommu_load(second, data, size), "load");
    pthread_mutex_unlock(&world->memory_steady);
    guest_ok(viommu_mmio_read(second, SPEC_GSTS, 4, &status), "GSTS");
    if (!(status & SPEC_TE) || !(status & SPEC_QIE)) {
        guest_die("the second unit's status is %#llx", (unsigned long long)status);
    }
    for (unsigned i = 0; i < PAGES; i++) {
        uint64_t iova = iova_of(i);
        int error = viommu_device_translate_many(devices[i % USERS], NULL, &iova, 1, VIOMMU_READ,
                                                 &gpa, &translated);

        if (error == 0 && gpa != world->targets[i][0] && gpa != world->targets[i][1]) {
            guest_die("the second unit translates to %#llx", (unsigned long long)gpa);
        } else if (error && error != -EFAULT && error != -EPERM) {
            guest_die("the second unit translates: %d", error);
        }
    }
    viommu_destroy(second);
}

static void *save(void *arg)
{
    struct worker *worker = arg;
    struct world *world = worker->world;

    while (crew_working(&world->crew)) {
        void *data;
        size_t size;
        int error = viommu_save(world->guest.iommu, &data, &size);

        if (error == -EBUSY) {
            atomic_fetch_add(&world->busy, 1);
            sched_yield();
            continue;
        }
        guest_ok(error, "save");
        load(world, data, size);
        viommu_save_free(data);
        atomic_fetch_add(&world->saved, 1);
        crew_sleep(random_below(&worker->random, 1000));
    }
    return NULL;
}

/* ---- the unit's work ---- */

/* With a lock of the library held. */
static void on_wake(void *opaque)
{
    struct world *world = opaque;
    uint64_t one = 1;

    if (write(world->wake, &one, sizeof(one)) != sizeof(one)) {
        guest_die("eventfd");
    }
}

/* As crew_process, but woken by the callback; the unit's descriptor tells of times only. */
static void *process(void *arg)
{
    struct world *world = arg;
    struct pollfd fds[] = {
        {.fd = world->wake, .events = POLLIN},
        {.fd = viommu_event_fd(world->guest.iommu), .events = POLLIN},
    };

    while (crew_working(&world->crew)) {
        uint64_t count;
        int ret;

        if (poll(fds, 2, 20) <= 0) {
            continue;
        }
        if ((fds[0].revents & POLLIN) && read(world->wake, &count, sizeof(count)) < 0) {
            guest_die("eventfd: %d", errno);
        }
        ret = viommu_process(world->guest.iommu, 2);
        if (ret && ret != VIOMMU_PENDING) {
            guest_die("viommu_process: %d", ret);
        }
    }
    return NULL;
}

/* ---- the guest ---- */

/* The page is the driver's own. */
static void use_page(struct world *world, struct random *random, uint64_t gpa)
{
    uint8_t *host = host_of(world, gpa);

    memset(host, POISON, GUEST_PAGE);
    if (random_percent(random, 30)) {
        crew_sleep(random_below(random, 100));
    }
    crew_check_page(host, POISON, "a page was written that its user had lost");
}

static void invalidate(struct world *world, struct random *random, unsigned page)
{
    static const enum spec_granularity kinds[] = {SPEC_SELECTIVE, SPEC_SELECTIVE, SPEC_DOMAIN,
                                                  SPEC_GLOBAL};

    guest_queue_put(&world->guest, spec_iotlb_invalidate(kinds[random_below(random, 4)], DOMAIN,
                                                         iova_of(page), 0, false));
    guest_queue_wait(&world->guest);
}

/* Maps what is not mapped; else unmaps it, or gives it its other target. */
static void change_page(struct world *world, struct random *random, unsigned page)
{
    uint64_t old = world->targets[page][world->target[page]];
    bool was_mapped = world->mapped[page];

    world->target[page] ^= 1;
    world->mapped[page] = !was_mapped || random_percent(random, 50);
    if (world->mapped[page]) {
        uint64_t target = world->targets[page][world->target[page]];

        memset(host_of(world, target), CLEAN, GUEST_PAGE);
        guest_store(&world->guest, world->entries[page], target | SPEC_R | SPEC_W);
    } else {
        guest_store(&world->guest, world->entries[page], 0);
    }
    invalidate(world, random, page);
    if (was_mapped) {
        use_page(world, random, old);
    }
}

static void on_gone(void *opaque)
{
    struct world *world = opaque;

    atomic_store(&world->gone, true);
}

static void change_memory(struct world *world, bool add)
{
    struct viommu_memory_slot slot = {
        .first = EXTRA,
        .last = EXTRA + EXTRA_PAGES * GUEST_PAGE - 1,
        .host = world->extra,
        .fd = -1,
    };
    struct viommu_memory_batch *batch;
    int ret;

    pthread_mutex_lock(&world->memory_steady);
    guest_ok(viommu_memory_batch_begin(world->guest.memory, &batch), "batch");
    if (add) {
        guest_ok(viommu_memory_batch_add(batch, &slot), "slot");
    } else {
        guest_ok(viommu_memory_batch_remove(batch, slot.first, slot.last), "removal");
    }
    atomic_store(&world->gone, false);
    ret = viommu_memory_batch_commit(batch, on_gone, world);
    while (ret == VIOMMU_PENDING && !atomic_load(&world->gone)) {
        if (!world->guest.processed_elsewhere) {
            guest_process(&world->guest);
        }
        viommu_memory_process(world->guest.memory);
    }
    guest_ok(ret == VIOMMU_PENDING ? 0 : ret, "commit");
    pthread_mutex_unlock(&world->memory_steady);
}

static void unplug(struct world *world, struct random *random)
{
    change_memory(world, false);
    for (unsigned i = 0; i < EXTRA_PAGES; i++) {
        use_page(world, random, EXTRA + i * GUEST_PAGE);
    }
    for (unsigned page = RAM_PAGES; page < PAGES; page++) {
        memset(host_of(world, world->targets[page][world->target[page]]), CLEAN, GUEST_PAGE);
    }
    change_memory(world, true);
}

static void prepare(struct world *world, enum viommu_cache_mode mode, enum processing processing,
                    uint64_t seed)
{
    struct guest *guest = &world->guest;
    struct guest_config config = {
        .vtd = {.caching_mode = true},
        .cache_mode = mode,
        .cache_seed = seed,
        .iotlb_entries = 256,
        .ack_timeout_ms = TIMEOUT_MS,
        .callbacks.wake = processing == BY_WAKE ? on_wake : NULL,
        .opaque = world,
    };
    struct viommu_subscription mirror = {
        .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
        .form = VIOMMU_FORM_RANGE,
        .role = VIOMMU_ROLE_MIRROR,
        .change = on_change,
        .fence = on_mirror_fence,
        .opaque = world,
    };
    struct viommu_subscriber *subscriber;
    uint64_t pages[PAGES];
    uint64_t table;

    world->wake = eventfd(0, EFD_NONBLOCK);
    guest_ok(world->wake < 0 ? -errno : 0, "eventfd");
    guest_ok(guest_init(guest, &config), "guest");
    pthread_mutex_init(&world->memory_steady, NULL);
    pthread_mutex_init(&world->mirror_lock, NULL);
    world->extra = mmap(NULL, EXTRA_PAGES * GUEST_PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    guest_ok(world->extra == MAP_FAILED ? -errno : 0, "mmap");
    change_memory(world, true);
    table = crew_pages(guest, PAGES, FIRST_IOVA, pages, world->entries);
    for (unsigned i = 0; i < PAGES; i++) {
        uint64_t extra = EXTRA + (i - RAM_PAGES) * TARGETS * GUEST_PAGE;

        world->targets[i][0] = i < RAM_PAGES ? pages[i] : extra;
        world->targets[i][1] = i < RAM_PAGES ? guest_page(guest) : extra + GUEST_PAGE;
    }
    guest_set_root(guest);
    for (unsigned i = 0; i < USERS; i++) {
        struct viommu_device_config device = {.requester = (uint16_t)(8 + i)};

        guest_ok(viommu_device_add(guest->iommu, &device, &world->devices[i]), "device");
        guest_attach(guest, device.requester, DOMAIN, table, 4, SPEC_TT_UNTRANSLATED);
    }
    guest_ok(viommu_device_subscribe(world->devices[MIRRORED], &mirror, &subscriber), "mirror");
    guest_flush_context(guest, SPEC_GLOBAL, 0, 0, 0);
    guest_flush_iotlb(guest, SPEC_GLOBAL, 0, 0, 0);
    guest_queue_on(guest);
    guest_command(guest, SPEC_TE, true);
}

static void finish(struct world *world)
{
    guest_fini(&world->guest);
    pthread_mutex_destroy(&world->memory_steady);
    pthread_mutex_destroy(&world->mirror_lock);
    munmap(world->extra, EXTRA_PAGES * GUEST_PAGE);
    close(world->wake);
}

/* Whether each thread has had its turn, which takes long where others want the processors, too. */
static bool all_did_something(struct world *world)
{
    struct viommu_stats stats;
    bool all = world->saved && world->told;

    for (unsigned i = 0; i < USERS; i++) {
        all = all && world->uses[i];
    }
    viommu_stats_get(world->guest.iommu, &stats, sizeof(stats));
    return all && stats.windows_pinned;
}

static void run(enum viommu_cache_mode mode, enum processing processing, uint64_t seed)
{
    static struct world world;
    struct random random = {seed};
    struct worker workers[USERS + 2];
    struct crew_processor processor = {&world.crew, &world.guest, 3, 0};
    struct viommu_stats stats;
    unsigned removals = 0;

    memset(&world, 0, sizeof(world));
    world.answers.state = seed;
    prepare(&world, mode, processing, seed);
    for (unsigned i = 0; i < USERS + 2; i++) {
        workers[i] = (struct worker){&world, i, {seed * 100 + i}};
        crew_start(&world.crew, i < USERS ? work : i == USERS ? watch : save, &workers[i]);
    }
    world.guest.processed_elsewhere = processing != BY_DRIVER;
    if (processing == BY_DESCRIPTOR) {
        crew_start(&world.crew, crew_process, &processor);
    } else if (processing == BY_WAKE) {
        crew_start(&world.crew, process, &world);
    }
    for (unsigned round = 0; round < ROUNDS || (round < ROUNDS_MAX && !all_did_something(&world));
         round++) {
        if (random_percent(&random, 5)) {
            unplug(&world, &random);
            removals++;
        } else {
            change_page(&world, &random, random_below(&random, PAGES));
        }
        guest_write(&world.guest, SPEC_FSTS, 4, SPEC_PFO);
    }
    crew_stop(&world.crew);
    viommu_stats_get(world.guest.iommu, &stats, sizeof(stats));
    printf("%s, %s: %u removals, uses", cache_names[mode], processing_names[processing], removals);
    for (unsigned i = 0; i < USERS; i++) {
        printf(" %llu", (unsigned long long)world.uses[i]);
    }
    printf(", %llu windows, %llu asked back, %llu overdue, %llu states (%llu busy), %llu told\n",
           (unsigned long long)stats.windows_pinned, (unsigned long long)stats.windows_revoked,
           (unsigned long long)stats.windows_overdue, (unsigned long long)world.saved,
           (unsigned long long)world.busy, (unsigned long long)world.told);
    if (stats.windows_open || !stats.windows_pinned || !world.saved || !world.told) {
        guest_die("nothing was pinned, saved or told, or a window is still open");
    }
    for (unsigned i = 0; i < USERS; i++) {
        if (!world.uses[i]) {
            guest_die("user %u never had a page: the test shows nothing", i);
        }
    }
    finish(&world);
}

int main(void)
{
    struct crew_time time = crew_begin();
    uint64_t seed = 1;

    do {
        for (unsigned mode = VIOMMU_CACHE_NORMAL; mode <= VIOMMU_CACHE_HOSTILE; mode++) {
            run(mode, (seed + seed / 3) % 3, seed);
            seed++;
        }
    } while (crew_more(&time, true));
    printf("together: ok\n");
    return 0;
}
