/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * "Hardware" reads memory through what mirrors hold, while the guest changes its tables: once an
 * invalidation has completed, the page that an address led to before is poisoned, and the hardware
 * must never read poison. Mirrors come and go meanwhile, and so does some of the memory: once its
 * removal is complete nobody can touch it.
 *
 * A *port* is one mirror and the table that its callback publishes, under the port's own lock; the
 * hardware reads with that lock held. So what is tested is the library's order only. Some calls are
 * answered later, by a thread of their own, which changes the table before it completes them.
 */
#include "crew.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define BASE 0x1ff000ull /* across a 2 MiB border */
#define PAGES 64         /* that the guest rewrites */
#define EXTRA_PAGES 8    /* behind them: they lead to memory that comes and goes */
#define ALL_PAGES (PAGES + EXTRA_PAGES)
#define TARGETS (PAGES * 2)
#define EXTRA_FIRST 0x10000000ull
#define PORTS 4
#define POISON 0xdeadbeefdeadbeefull

struct mirrors;

struct port {
    struct mirrors *mirrors;
    struct viommu_device *device;
    struct viommu_subscriber *subscriber;
    bool comes_and_goes;
    bool pow2;
    pthread_mutex_t lock;
    bool off;                    /* being unsubscribed: its calls do nothing any more */
    uint8_t *pages[ALL_PAGES];   /* host memory, or NULL */
    bool pending;
    struct viommu_change change; /* that is pending */
    unsigned calls;
};

struct mirrors {
    struct guest guest;
    struct crew crew;
    struct port ports[PORTS];
    uint64_t table;
    uint64_t entries[ALL_PAGES]; /* guest addresses of the leaf entries */
    uint64_t targets[TARGETS];   /* pages of RAM */
    int leads_to[PAGES];         /* index of a target, or -1 */
    bool in_use[TARGETS];
    uint8_t *extra;
    _Atomic uint64_t reads;
    _Atomic uint64_t misses;
    _Atomic uint64_t completed;
    _Atomic uint64_t subscriptions;
    _Atomic uint64_t removals;
};

/* Ports. */

static void publish(struct port *port, const struct viommu_change *change)
{
    for (uint64_t at = change->first; at < change->last; at += GUEST_PAGE) {
        uint8_t **page = &port->pages[(at - BASE) / GUEST_PAGE];
        bool map = change->kind == VIOMMU_CHANGE_MAP;

        if (map == !!*page) {
            guest_die("%s of %#llx: it is %smapped", map ? "MAP" : "UNMAP",
                      (unsigned long long)at, *page ? "" : "not ");
        }
        *page = map ? (uint8_t *)change->host + (at - change->first) : NULL;
    }
}

static int on_change(void *opaque, const struct viommu_change *change)
{
    struct port *port = opaque;
    int answer = 0;

    if (change->first < BASE || change->last >= BASE + ALL_PAGES * GUEST_PAGE) {
        guest_die("a change of [%#llx, %#llx]", (unsigned long long)change->first,
                  (unsigned long long)change->last);
    }
    pthread_mutex_lock(&port->lock);
    if (port->off) {
        answer = 0;
    } else if (port->pending) {
        guest_die("a second call while one is outstanding");
    } else if (++port->calls % 5 == 0) {
        port->change = *change;
        port->pending = true;
        answer = VIOMMU_PENDING;
    } else {
        publish(port, change);
    }
    pthread_mutex_unlock(&port->lock);
    return answer;
}

static int on_fence(void *opaque)
{
    (void)opaque;
    guest_die("a mirror is fenced");
}

static void subscribe(struct port *port)
{
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
        .form = port->pow2 ? VIOMMU_FORM_POW2 : VIOMMU_FORM_RANGE,
        .role = VIOMMU_ROLE_MIRROR,
        .range = {BASE, BASE + ALL_PAGES * GUEST_PAGE - 1},
        .change = on_change,
        .fence = on_fence,
        .opaque = port,
        .unmap_spans = !port->pow2 && port->comes_and_goes,
    };

    pthread_mutex_lock(&port->lock);
    memset(port->pages, 0, sizeof(port->pages));
    port->off = false;
    pthread_mutex_unlock(&port->lock);
    guest_ok(viommu_device_subscribe(port->device, &what, &port->subscriber), "subscribe");
}

/* The hardware stops before its mirror goes, as the mappings of a mirror that went are nobody's. */
static void unsubscribe(struct port *port)
{
    pthread_mutex_lock(&port->lock);
    port->off = true;
    port->pending = false;
    memset(port->pages, 0, sizeof(port->pages));
    pthread_mutex_unlock(&port->lock);
    guest_ok(viommu_subscriber_destroy(port->subscriber), "unsubscribe");
}

/* Threads. */

static void *hardware(void *arg)
{
    struct mirrors *mirrors = arg;
    struct random random = {(uintptr_t)&random};

    while (crew_working(&mirrors->crew)) {
        struct port *port = &mirrors->ports[random_below(&random, PORTS)];
        unsigned page = random_below(&random, ALL_PAGES);

        pthread_mutex_lock(&port->lock);
        if (!port->pages[page]) {
            atomic_fetch_add_explicit(&mirrors->misses, 1, memory_order_relaxed);
        } else if (atomic_load_explicit((_Atomic uint64_t *)port->pages[page],
                                        memory_order_relaxed) == POISON) {
            guest_die("address %#llx leads to a page that the guest took away",
                      (unsigned long long)(BASE + page * GUEST_PAGE));
        } else {
            atomic_fetch_add_explicit(&mirrors->reads, 1, memory_order_relaxed);
        }
        pthread_mutex_unlock(&port->lock);
        if (random_percent(&random, 2)) {
            sched_yield();
        }
    }
    return NULL;
}

/* Completes what was answered with PENDING. */
static void *completer(void *arg)
{
    struct mirrors *mirrors = arg;

    while (crew_working(&mirrors->crew)) {
        for (unsigned i = 0; i < PORTS; i++) {
            struct port *port = &mirrors->ports[i];
            uint64_t token = 0;
            int error;

            pthread_mutex_lock(&port->lock);
            if (port->pending) {
                publish(port, &port->change);
                port->pending = false;
                token = port->change.token;
            }
            pthread_mutex_unlock(&port->lock);
            if (!token) {
                continue;
            }
            error = viommu_change_complete(mirrors->guest.iommu, token, 0);
            if (error && (error != -ENOENT || !port->comes_and_goes)) {
                guest_die("complete: %d", error);
            }
            atomic_fetch_add(&mirrors->completed, 1);
        }
        crew_sleep(20);
    }
    return NULL;
}

static void *subscribers(void *arg)
{
    struct mirrors *mirrors = arg;
    struct random random = {7};

    for (unsigned i = 0; crew_working(&mirrors->crew); i++) {
        struct port *port = &mirrors->ports[2 + i % 2];

        if (port->subscriber) {
            unsubscribe(port);
            port->subscriber = NULL;
        } else {
            subscribe(port);
            atomic_fetch_add(&mirrors->subscriptions, 1);
        }
        crew_sleep(100 + random_below(&random, 2000));
    }
    return NULL;
}

/* Returns false when the end came before it was done. */
static bool change_memory(struct mirrors *mirrors, bool add)
{
    struct viommu_memory *memory = mirrors->guest.memory;
    struct viommu_memory_batch *batch;
    struct viommu_memory_slot slot = {
        .first = EXTRA_FIRST,
        .last = EXTRA_FIRST + EXTRA_PAGES * GUEST_PAGE - 1,
        .host = mirrors->extra,
        .fd = -1,
    };
    int result;

    guest_ok(viommu_memory_batch_begin(memory, &batch), "batch");
    guest_ok(add ? viommu_memory_batch_add(batch, &slot)
                 : viommu_memory_batch_remove(batch, slot.first, slot.last),
             "batch item");
    result = viommu_memory_batch_commit(batch, NULL, NULL);
    while (result == VIOMMU_PENDING && crew_working(&mirrors->crew)) {
        crew_sleep(20);
        result = viommu_memory_process(memory);
    }
    if (result != VIOMMU_PENDING) {
        guest_ok(result, "memory change");
    }
    return !result;
}

static void *memory_changer(void *arg)
{
    struct mirrors *mirrors = arg;

    while (crew_working(&mirrors->crew)) {
        if (!change_memory(mirrors, true)) {
            break;
        }
        crew_sleep(500);
        if (!change_memory(mirrors, false)) {
            break;
        }
        mprotect(mirrors->extra, EXTRA_PAGES * GUEST_PAGE, PROT_NONE);
        crew_sleep(100);
        mprotect(mirrors->extra, EXTRA_PAGES * GUEST_PAGE, PROT_READ | PROT_WRITE);
        atomic_fetch_add(&mirrors->removals, 1);
    }
    return NULL;
}

/* The guest. */

static void set_value(struct mirrors *mirrors, int target, uint64_t value)
{
    atomic_store_explicit((_Atomic uint64_t *)guest_host(&mirrors->guest,
                                                         mirrors->targets[target]),
                          value, memory_order_relaxed);
}

static int any_target(struct mirrors *mirrors, struct random *random, unsigned page)
{
    unsigned target = random_percent(random, 50) ? page : random_below(random, TARGETS);

    while (mirrors->in_use[target]) {
        target = (target + 1) % TARGETS;
    }
    mirrors->in_use[target] = true;
    return (int)target;
}

/* Changes some pages, invalidates, and poisons what they led to. */
static void rewrite(struct mirrors *mirrors, struct random *random)
{
    unsigned first = random_below(random, PAGES);
    unsigned count = 1 + random_below(random, random_percent(random, 70) ? 3 : PAGES);
    bool domain = random_percent(random, 30);
    int old[PAGES];
    unsigned done = 0;

    for (unsigned i = first; i < PAGES && done < count; i++) {
        bool map = random_percent(random, 70);

        old[done++] = mirrors->leads_to[i];
        mirrors->leads_to[i] = map ? any_target(mirrors, random, i) : -1;
        guest_store(&mirrors->guest, mirrors->entries[i],
                    map ? mirrors->targets[mirrors->leads_to[i]] | 3 : 0);
        guest_queue_put(&mirrors->guest,
                        domain ? spec_interrupt_cache_invalidate(false, 0, 0)
                               : spec_iotlb_invalidate(SPEC_SELECTIVE, 1, BASE + i * GUEST_PAGE, 0,
                                                       false));
    }
    if (domain) {
        guest_queue_put(&mirrors->guest, spec_iotlb_invalidate(SPEC_DOMAIN, 1, 0, 0, false));
    }
    guest_queue_wait(&mirrors->guest);
    for (unsigned i = 0; i < done; i++) {
        if (old[i] >= 0) {
            set_value(mirrors, old[i], POISON);
        }
    }
    if (random_percent(random, 30)) {
        sched_yield();
    }
    for (unsigned i = 0; i < done; i++) {
        if (old[i] >= 0) {
            set_value(mirrors, old[i], 1);
            mirrors->in_use[old[i]] = false;
        }
    }
}

static void prepare(struct mirrors *mirrors)
{
    struct guest *guest = &mirrors->guest;
    /* Who completes may be late: what that leads to is not what is tested here. */
    struct guest_config config = {
        .iotlb_entries = 256, .vtd = {.caching_mode = true}, .ack_timeout_ms = 60000};
    static const uint16_t requesters[2] = {0x10, 0x18};
    struct viommu_device *devices[2];

    guest_ok(guest_init(guest, &config), "guest");
    mirrors->extra = mmap(NULL, EXTRA_PAGES * GUEST_PAGE, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mirrors->table = guest_page(guest);
    for (unsigned i = 0; i < ALL_PAGES; i++) {
        uint64_t extra = EXTRA_FIRST + (i - PAGES) * GUEST_PAGE;

        mirrors->entries[i] = guest_map(guest, mirrors->table, 4, BASE + i * GUEST_PAGE,
                                        i < PAGES ? 0 : extra, 1, i < PAGES ? 0 : 3);
    }
    for (unsigned i = 0; i < TARGETS; i++) {
        mirrors->targets[i] = guest_page(guest);
    }
    for (unsigned i = 0; i < PAGES; i++) {
        mirrors->leads_to[i] = -1;
    }
    for (unsigned i = 0; i < 2; i++) {
        struct viommu_device_config device = {.requester = requesters[i]};

        guest_ok(viommu_device_add(guest->iommu, &device, &devices[i]), "device");
        guest_attach(guest, requesters[i], 1, mirrors->table, 4, SPEC_TT_UNTRANSLATED);
    }
    guest_set_root(guest);
    guest_queue_on(guest);
    guest_command(guest, SPEC_TE, true);
    for (unsigned i = 0; i < PORTS; i++) {
        struct port *port = &mirrors->ports[i];

        port->mirrors = mirrors;
        port->device = devices[i % 2];
        port->comes_and_goes = i >= 2;
        port->pow2 = i == 1 || i == 2;
        pthread_mutex_init(&port->lock, NULL);
        if (!port->comes_and_goes) {
            subscribe(port);
        }
    }
    guest->processed_elsewhere = true;
}

static bool shows_something(struct mirrors *mirrors)
{
    return mirrors->reads && mirrors->misses && mirrors->completed && mirrors->subscriptions &&
           mirrors->removals;
}

int main(void)
{
    static struct mirrors mirrors;
    struct crew_processor processor = {.crew = &mirrors.crew, .guest = &mirrors.guest, .budget = 7};
    struct random random = {1};
    struct crew_time time;
    unsigned rounds = 0;

    prepare(&mirrors);
    crew_start(&mirrors.crew, crew_process, &processor);
    crew_start(&mirrors.crew, crew_process, &processor);
    crew_start(&mirrors.crew, completer, &mirrors);
    crew_start(&mirrors.crew, hardware, &mirrors);
    crew_start(&mirrors.crew, hardware, &mirrors);
    crew_start(&mirrors.crew, subscribers, &mirrors);
    crew_start(&mirrors.crew, memory_changer, &mirrors);
    time = crew_begin();
    while (crew_more(&time, shows_something(&mirrors))) {
        rewrite(&mirrors, &random);
        rounds++;
    }
    crew_stop(&mirrors.crew);
    printf("mirror: %u rounds, %llu reads, %llu misses, %llu answered later, %llu subscriptions, "
           "%llu removals of memory\n",
           rounds, (unsigned long long)mirrors.reads, (unsigned long long)mirrors.misses,
           (unsigned long long)mirrors.completed, (unsigned long long)mirrors.subscriptions,
           (unsigned long long)mirrors.removals);
    if (!shows_something(&mirrors)) {
        guest_die("the test shows nothing");
    }
    for (unsigned i = 0; i < PORTS; i++) {
        if (mirrors.ports[i].subscriber) {
            unsubscribe(&mirrors.ports[i]);
        }
        pthread_mutex_destroy(&mirrors.ports[i].lock);
    }
    guest_fini(&mirrors.guest);
    munmap(mirrors.extra, EXTRA_PAGES * GUEST_PAGE);
    printf("mirror: ok\n");
    return 0;
}
