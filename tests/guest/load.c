/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * load.c - many threads that use the disk at once.  See load.h.
 *
 * No sector belongs to two pieces, and no piece to two threads at a time: LOAD_WRITE and LOAD_READ
 * hand each out once; with LOAD_MIXED thread t owns every piece whose number is t modulo the number
 * of threads.
 */
#include "load.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "memory.h"
#include "report.h"

enum {
    SMALL = 16,         /* sectors */
    MEDIUM = 256,
    LARGE = DISK_TRANSFER_MAX / SECTOR,
    POLL_US = 5000,
    STILL_LOOKS = 50,
    AFTER_ERROR_US = 20000,
    STACK_BYTES = 64 << 10,
};

struct load_piece {
    unsigned first, count;
};

static atomic_uint generations;

/* One that was not written for a long time. */
static uint16_t new_generation(void)
{
    return (uint16_t)(1 + atomic_fetch_add(&generations, 1) % (MARK_UNKNOWN - 1));
}

static uint64_t draw(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return x * 0x2545f4914f6cdd1dull >> 16;
}

static uint64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* How many sectors the next piece has: many of one block, few large ones. */
static unsigned draw_count(const struct disk *disk, uint64_t *state)
{
    static const unsigned most[8] = {1, 1, 1, SMALL, SMALL, MEDIUM, MEDIUM, LARGE};
    unsigned limit = most[draw(state) % 8];
    unsigned blocks = limit / disk->block ? limit / disk->block : 1;

    return (unsigned)(draw(state) % blocks + 1) * disk->block;
}

static bool cut(struct load *load, uint64_t *state)
{
    unsigned room = 0, at = 0;
    struct load_piece *p = NULL;

    load->piece_count = 0;
    while (at < load->disk->sectors) {
        unsigned count = draw_count(load->disk, state);

        if (load->piece_count == room) {
            struct load_piece *more;

            room = room ? 2 * room : 1024;
            more = realloc(p, room * sizeof(*p));
            if (!more) {
                free(p);
                return false;
            }
            p = more;
        }
        count = count < load->disk->sectors - at ? count : load->disk->sectors - at;
        p[load->piece_count++] = (struct load_piece){at, count};
        at += count;
    }
    for (unsigned i = load->piece_count - 1; i > 0; i--) {
        unsigned j = (unsigned)(draw(state) % (i + 1));
        struct load_piece other = p[j];

        p[j] = p[i];
        p[i] = other;
    }
    load->pieces = p;
    return true;
}

static void count_end(struct load *load, int error, uint64_t began_ms)
{
    unsigned took = (unsigned)(now_ms() - began_ms);
    unsigned slowest = atomic_load(&load->slowest_ms);

    while (took > slowest && !atomic_compare_exchange_weak(&load->slowest_ms, &slowest, took)) {
    }
    if (error) {
        atomic_store(&load->error, -error);
        atomic_fetch_add(&load->failed, 1);
        usleep(AFTER_ERROR_US);
    } else {
        atomic_fetch_add(&load->done, 1);
    }
}

static void write_piece(struct load_worker *w, const struct load_piece *p, uint8_t *data)
{
    struct disk *disk = w->load->disk;
    uint16_t generation = w->load->kind == LOAD_MIXED ? new_generation() : w->load->generation;
    uint64_t began_ms;
    int error;

    disk_fill(data, p->first, p->count, generation);
    disk_mark(disk, p->first, p->count, MARK_UNKNOWN);
    began_ms = now_ms();
    error = disk_write(disk->direct, data, p->first, p->count);
    if (!error) {
        disk_mark(disk, p->first, p->count, generation);
    }
    count_end(w->load, error, began_ms);
}

static void read_piece(struct load_worker *w, const struct load_piece *p, uint8_t *data)
{
    struct disk *disk = w->load->disk;
    uint64_t began_ms;
    int error;

    memset(data, 0xa5, (size_t)p->count * SECTOR);
    began_ms = now_ms();
    error = disk_read(disk->direct, data, p->first, p->count);
    if (!error) {
        unsigned good = disk_matching(disk, data, p->first, p->count);

        if (good < p->count) {
            atomic_store(&w->load->wrong_sector, p->first + good);
            atomic_fetch_add(&w->load->wrong, 1);
        }
    }
    count_end(w->load, error, began_ms);
}

static void use_piece(struct load_worker *w, const struct load_piece *p, bool write)
{
    unsigned align = w->load->disk->align;
    uint8_t *data = w->buffer + draw(&w->random) % (PAGE / align) * align;

    if (write) {
        write_piece(w, p, data);
    } else {
        read_piece(w, p, data);
    }
}

/* A piece that this thread owns. */
static const struct load_piece *own_piece(struct load_worker *w)
{
    unsigned threads = w->load->threads;
    unsigned mine = (w->load->piece_count - w->index + threads - 1) / threads;

    return &w->load->pieces[draw(&w->random) % mine * threads + w->index];
}

static void *work(void *arg)
{
    struct load_worker *w = arg;
    struct load *load = w->load;

    while (load->kind == LOAD_MIXED && !atomic_load(&load->stop)) {
        use_piece(w, own_piece(w), draw(&w->random) & 1);
    }
    while (load->kind != LOAD_MIXED) {
        unsigned i = atomic_fetch_add(&load->next, 1);

        if (i >= load->piece_count) {
            break;
        }
        use_piece(w, &load->pieces[i], load->kind == LOAD_WRITE);
    }
    return NULL;
}

static bool start_worker(struct load *load, unsigned index)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    struct load_worker *w = &load->workers[index];
    pthread_attr_t attr;
    cpu_set_t cpu;
    bool ok;

    w->load = load;
    w->index = index;
    w->random = 0x1234567ull * (index + 1) + load->generation;
    w->buffer = memory_get(DISK_TRANSFER_MAX + PAGE, PAGE);
    if (!w->buffer) {
        return false;
    }
    CPU_ZERO(&cpu);
    CPU_SET((int)(index % (unsigned long)cpus), &cpu);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    pthread_attr_setaffinity_np(&attr, sizeof(cpu), &cpu);
    ok = pthread_create(&w->thread, &attr, work, w) == 0;
    pthread_attr_destroy(&attr);
    if (!ok) {
        memory_put(w->buffer, DISK_TRANSFER_MAX + PAGE);
    }
    return ok;
}

bool load_begin(struct load *load, struct disk *disk, enum load_kind kind, unsigned threads)
{
    uint64_t state;

    memset(load, 0, sizeof(*load));
    load->disk = disk;
    load->kind = kind;
    load->generation = new_generation();
    state = 0x9e3779b97f4a7c15ull * load->generation;
    if (!cut(load, &state)) {
        return check(false, "memory for a load");
    }
    /* Known before the first starts: which pieces a thread owns depends on it. */
    load->threads = threads;
    for (unsigned i = 0; i < threads; i++) {
        if (!start_worker(load, i)) {
            load->threads = i;
            load_end(load);
            return check(false, "threads for a load");
        }
    }
    return true;
}

bool load_end(struct load *load)
{
    atomic_store(&load->stop, true);
    for (unsigned i = 0; i < load->threads; i++) {
        pthread_join(load->workers[i].thread, NULL);
        memory_put(load->workers[i].buffer, DISK_TRANSFER_MAX + PAGE);
    }
    free(load->pieces);
    load->pieces = NULL;
    load_detail(load);
    return !atomic_load(&load->failed) && !atomic_load(&load->wrong);
}

bool load_run(struct disk *disk, enum load_kind kind, unsigned threads, struct load *load)
{
    return load_begin(load, disk, kind, threads) && load_end(load);
}

static bool wait_counter(atomic_uint *counter, unsigned more, unsigned seconds)
{
    uint64_t end = now_ms() + (uint64_t)seconds * 1000;
    unsigned before = atomic_load(counter);

    while (atomic_load(counter) - before < more) {
        if (now_ms() > end) {
            return false;
        }
        usleep(POLL_US);
    }
    return true;
}

bool load_wait_done(struct load *load, unsigned more, unsigned seconds)
{
    return wait_counter(&load->done, more, seconds);
}

bool load_wait_failed(struct load *load, unsigned more, unsigned seconds)
{
    return wait_counter(&load->failed, more, seconds);
}

bool load_wait_still(struct load *load, unsigned seconds)
{
    uint64_t end = now_ms() + (uint64_t)seconds * 1000;
    unsigned before = 0, looks = 0;

    /* Looks are counted, not time: on a busy machine there may be none for a while. */
    while (looks < STILL_LOOKS) {
        unsigned ended = atomic_load(&load->done) + atomic_load(&load->failed);

        looks = ended == before ? looks + 1 : 0;
        before = ended;
        if (now_ms() > end) {
            return false;
        }
        usleep(POLL_US);
    }
    return true;
}

void load_detail(const struct load *load)
{
    if (atomic_load(&load->wrong)) {
        report_detail("%u reads brought something else, the last at sector %u",
                      atomic_load(&load->wrong), atomic_load(&load->wrong_sector));
    } else {
        report_detail("%u calls done, %u failed (%s), the slowest took %u ms",
                      atomic_load(&load->done), atomic_load(&load->failed),
                      strerror(atomic_load(&load->error)), atomic_load(&load->slowest_ms));
    }
}
