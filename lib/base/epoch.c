/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Epochs: thread records, sections, drains and deferred frees.
 *
 * Why a drain cannot miss a section: entering stores the word and then fences; beginning a drain
 * unpublishes, advances `now` and then fences; so either the drain's scan sees the word, or the
 * section's reads see what was unpublished. ThreadSanitizer does not know fences: under it (and on
 * x86, where it is the fastest fence there is) the store is an exchange.
 */
#include "base/epoch.h"

#include "base/alloc.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>

#define TIME_MASK ((1ULL << EPOCH_ID_SHIFT) - 1)
#define ID_COUNT 0x8000u

static _Atomic(struct epoch_thread *) registry;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool key_made;

/* Ids in use, so that two live epochs never share one. Taken and returned at creation only. */
static pthread_mutex_t id_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t ids_used[ID_COUNT / 64];

/* No epoch has the id 0 of its words. */
static struct epoch_thread nobody = {.depth = {1, 1, 1, 1}};

_Thread_local struct epoch_thread *epoch_self = &nobody;

static int id_take(uint64_t *id)
{
    int ret = -ENOSPC;

    pthread_mutex_lock(&id_lock);
    ids_used[0] |= 1; /* no id is 0 */
    for (unsigned i = 0; i < ID_COUNT / 64; i++) {
        if (~ids_used[i]) {
            unsigned bit = (unsigned)__builtin_ctzll(~ids_used[i]);

            ids_used[i] |= 1ULL << bit;
            *id = (uint64_t)(i * 64 + bit) << EPOCH_ID_SHIFT;
            ret = 0;
            break;
        }
    }
    pthread_mutex_unlock(&id_lock);
    return ret;
}

static void id_return(uint64_t id)
{
    unsigned i = (unsigned)(id >> EPOCH_ID_SHIFT);

    pthread_mutex_lock(&id_lock);
    ids_used[i / 64] &= ~(1ULL << i % 64);
    pthread_mutex_unlock(&id_lock);
}

int epoch_init(struct epoch *epoch)
{
    int ret = id_take(&epoch->id);

    if (ret) {
        return ret;
    }
    atomic_init(&epoch->now, 1);
    atomic_init(&epoch->quiet, 0);
    atomic_init(&epoch->deferred, NULL);
    atomic_flag_clear(&epoch->reaping);
    return 0;
}

void epoch_fini(struct epoch *epoch)
{
    struct epoch_deferred *list = atomic_exchange(&epoch->deferred, NULL);

    while (list) {
        struct epoch_deferred *next = list->next;

        list->free(list);
        list = next;
    }
    id_return(epoch->id);
}

static void record_return(void *arg)
{
    struct epoch_thread *record = arg;

    epoch_self = &nobody;
    atomic_store_explicit(&record->used, false, memory_order_release);
}

static void key_make(void)
{
    key_made = pthread_key_create(&key, record_return) == 0;
}

/* A record that an ended thread returned, or NULL. */
static struct epoch_thread *record_reuse(void)
{
    struct epoch_thread *record = atomic_load_explicit(&registry, memory_order_acquire);

    for (; record; record = record->next) {
        bool used = false;

        if (atomic_compare_exchange_strong(&record->used, &used, true)) {
            return record;
        }
    }
    return NULL;
}

/*
 * Drains look at one line of every record. Each thread allocates its own, and malloc gives each
 * thread a heap of its own, at addresses that differ in high bits only: all lines would fall into
 * one set of the first-level cache. So records are moved by their number.
 */
static struct epoch_thread *record_new(void)
{
    static _Atomic unsigned made;
    size_t spread = 32;
    struct epoch_thread *record = base_alloc_aligned(128, sizeof(*record) * spread);

    if (!record) {
        return NULL;
    }
    record += atomic_fetch_add(&made, 1) % spread;
    atomic_init(&record->used, true);
    record->next = atomic_load_explicit(&registry, memory_order_relaxed);
    while (!atomic_compare_exchange_weak(&registry, &record->next, record)) {
        /* another thread came first: next was reloaded */
    }
    return record;
}

static __attribute__((noinline)) struct epoch_thread *record_take(void)
{
    struct epoch_thread *record;

    pthread_once(&key_once, key_make);
    record = record_reuse();
    if (!record) {
        record = record_new();
    }
    if (!record) {
        return NULL;
    }
    /* Without the key the record is merely not reused after this thread. */
    if (key_made) {
        (void)pthread_setspecific(key, record);
    }
    epoch_self = record;
    return record;
}

/* All words belong to other epochs: one that holds back every epoch. */
static void wildcard_open(struct epoch_thread *thread)
{
    if (thread->wildcard_depth++) {
        return;
    }
    if (EPOCH_STORE_IS_FENCE) {
        (void)atomic_exchange(&thread->wildcard, 1);
    } else {
        atomic_store_explicit(&thread->wildcard, 1, memory_order_release);
        atomic_thread_fence(memory_order_seq_cst);
    }
}

bool epoch_enter_slow(struct epoch *epoch)
{
    struct epoch_thread *thread = epoch_self != &nobody ? epoch_self : record_take();
    unsigned i;

    if (!thread) {
        return false;
    }
    for (i = 0; i < EPOCH_NEST; i++) {
        if (thread->depth[i] && epoch_word_is(thread, i, epoch)) {
            thread->depth[i]++;
            return true;
        }
    }
    for (i = 0; i < EPOCH_NEST; i++) {
        if (!thread->depth[i]) {
            epoch_open_word(thread, i, epoch);
            return true;
        }
    }
    wildcard_open(thread);
    return true;
}

bool epoch_prepare(void)
{
    return epoch_self != &nobody || record_take();
}

void epoch_leave_slow(struct epoch *epoch)
{
    struct epoch_thread *thread = epoch_self;

    for (unsigned i = 0; i < EPOCH_NEST; i++) {
        if (thread->depth[i] && epoch_word_is(thread, i, epoch)) {
            if (--thread->depth[i] == 0) {
                atomic_store_explicit(&thread->words[i], 0, memory_order_release);
            }
            return;
        }
    }
    if (thread->wildcard_depth && --thread->wildcard_depth == 0) {
        atomic_store_explicit(&thread->wildcard, 0, memory_order_release);
    }
}

#ifdef VIOMMU_TESTING
bool epoch_inside(const struct epoch *epoch)
{
    struct epoch_thread *record = epoch_self;

    for (unsigned i = 0; i < EPOCH_NEST; i++) {
        if (record->depth[i] && epoch_word_is(record, i, epoch)) {
            return true;
        }
    }
    return record->wildcard_depth != 0;
}
#endif

uint64_t epoch_begin_drain(struct epoch *epoch)
{
    uint64_t target = atomic_fetch_add_explicit(&epoch->now, 1, memory_order_seq_cst) + 1;

    if (!EPOCH_STORE_IS_FENCE) {
        atomic_thread_fence(memory_order_seq_cst);
    }
    return target;
}

static inline uint64_t word_of(const struct epoch_thread *record, unsigned i)
{
    return atomic_load_explicit(&record->words[i], memory_order_acquire);
}

/*
 * When the oldest section of the epoch that the record has open began; UINT64_MAX without one. The
 * wildcard is as old as can be.
 */
static __attribute__((noinline)) uint64_t oldest_open(const struct epoch_thread *record,
                                                      const struct epoch *epoch)
{
    uint64_t oldest = UINT64_MAX;

    if (atomic_load_explicit(&record->wildcard, memory_order_acquire)) {
        return 0;
    }
    for (unsigned i = 0; i < EPOCH_NEST; i++) {
        uint64_t word = word_of(record, i);

        if (word && (word & ~TIME_MASK) == epoch->id && (word & TIME_MASK) < oldest) {
            oldest = word & TIME_MASK;
        }
    }
    return oldest;
}

/* Whether anything is open at all. Drains ask every record, and the answer is nearly always no. */
static inline bool something_open(const struct epoch_thread *record)
{
    _Static_assert(EPOCH_NEST == 4, "all words are looked at here");

    return word_of(record, 0) | word_of(record, 1) | word_of(record, 2) | word_of(record, 3) |
           atomic_load_explicit(&record->wildcard, memory_order_acquire);
}

/* Notes that drains with a target up to this are over. */
static void quiet_note(struct epoch *epoch, uint64_t time)
{
    uint64_t quiet = atomic_load_explicit(&epoch->quiet, memory_order_relaxed);

    while (quiet < time &&
           !atomic_compare_exchange_weak_explicit(&epoch->quiet, &quiet, time,
                                                  memory_order_acq_rel, memory_order_acquire)) {
        /* another thread noted a drain: quiet was reloaded */
    }
}

bool epoch_drained(struct epoch *epoch, uint64_t target)
{
    struct epoch_thread *record;
    uint64_t over;

    if (atomic_load_explicit(&epoch->quiet, memory_order_acquire) >= target) {
        return true;
    }
    /* One scan answers for all drains that began before it. */
    over = atomic_load_explicit(&epoch->now, memory_order_acquire);
    for (record = atomic_load_explicit(&registry, memory_order_acquire); record;
         record = record->next) {
        if (something_open(record)) {
            uint64_t oldest = oldest_open(record, epoch);

            over = oldest < over ? oldest : over;
        }
    }
    quiet_note(epoch, over);
    return over >= target;
}

static void deferred_push(struct epoch *epoch, struct epoch_deferred *deferred)
{
    deferred->next = atomic_load_explicit(&epoch->deferred, memory_order_relaxed);
    while (!atomic_compare_exchange_weak(&epoch->deferred, &deferred->next, deferred)) {
        /* next was reloaded */
    }
}

void epoch_defer(struct epoch *epoch, struct epoch_deferred *deferred,
                 void (*free)(struct epoch_deferred *deferred))
{
    deferred->free = free;
    deferred->target = epoch_begin_drain(epoch);
    deferred_push(epoch, deferred);
}

void epoch_reap(struct epoch *epoch)
{
    struct epoch_deferred *list;
    uint64_t quiet;

    if (!atomic_load_explicit(&epoch->deferred, memory_order_relaxed) ||
        atomic_flag_test_and_set(&epoch->reaping)) {
        return;
    }
    list = atomic_exchange(&epoch->deferred, NULL);
    /* One scan for all of them. */
    (void)epoch_drained(epoch, atomic_load_explicit(&epoch->now, memory_order_acquire));
    quiet = atomic_load_explicit(&epoch->quiet, memory_order_acquire);
    while (list) {
        struct epoch_deferred *next = list->next;

        if (list->target <= quiet) {
            list->free(list);
        } else {
            deferred_push(epoch, list);
        }
        list = next;
    }
    atomic_flag_clear(&epoch->reaping);
}
