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

#define EPOCH_NEST 4
#define ID_SHIFT 48
#define TIME_MASK ((1ULL << ID_SHIFT) - 1)
#define ID_COUNT 0x8000u

#if defined(__x86_64__) || defined(__SANITIZE_THREAD__)
#define STORE_IS_FENCE 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define STORE_IS_FENCE 1
#endif
#endif
#ifndef STORE_IS_FENCE
#define STORE_IS_FENCE 0
#endif

/* One a thread; never freed, used again by later threads. */
struct thread_record {
    _Alignas(128) _Atomic uint64_t words[EPOCH_NEST]; /* id and time; 0: free */
    _Atomic uint64_t wildcard;                        /* not 0: holds back every epoch */
    uint32_t depth[EPOCH_NEST];                       /* the owner's: how deep each word is nested */
    uint32_t wildcard_depth;
    _Atomic bool used;
    struct thread_record *next; /* in the registry; set once */
};

static _Atomic(struct thread_record *) registry;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool key_made;

/* Ids in use, so that two live epochs never share one. Taken and returned at creation only. */
static pthread_mutex_t id_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t ids_used[ID_COUNT / 64];

static _Thread_local struct thread_record *self __attribute__((tls_model("initial-exec")));

static int id_take(uint64_t *id)
{
    int ret = -ENOSPC;

    pthread_mutex_lock(&id_lock);
    ids_used[0] |= 1; /* no id is 0 */
    for (unsigned i = 0; i < ID_COUNT / 64; i++) {
        if (~ids_used[i]) {
            unsigned bit = (unsigned)__builtin_ctzll(~ids_used[i]);

            ids_used[i] |= 1ULL << bit;
            *id = (uint64_t)(i * 64 + bit) << ID_SHIFT;
            ret = 0;
            break;
        }
    }
    pthread_mutex_unlock(&id_lock);
    return ret;
}

static void id_return(uint64_t id)
{
    unsigned i = (unsigned)(id >> ID_SHIFT);

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
    struct thread_record *record = arg;

    self = NULL;
    atomic_store_explicit(&record->used, false, memory_order_release);
}

static void key_make(void)
{
    key_made = pthread_key_create(&key, record_return) == 0;
}

/* A record that an ended thread returned, or NULL. */
static struct thread_record *record_reuse(void)
{
    struct thread_record *record = atomic_load_explicit(&registry, memory_order_acquire);

    for (; record; record = record->next) {
        bool used = false;

        if (atomic_compare_exchange_strong(&record->used, &used, true)) {
            return record;
        }
    }
    return NULL;
}

static struct thread_record *record_new(void)
{
    struct thread_record *record = base_alloc_aligned(128, sizeof(*record));

    if (!record) {
        return NULL;
    }
    atomic_init(&record->used, true);
    record->next = atomic_load_explicit(&registry, memory_order_relaxed);
    while (!atomic_compare_exchange_weak(&registry, &record->next, record)) {
        /* another thread came first: next was reloaded */
    }
    return record;
}

static __attribute__((noinline)) struct thread_record *record_take(void)
{
    struct thread_record *record;

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
    self = record;
    return record;
}

/* The store of the word and a full fence after it. */
static inline void store_and_fence(_Atomic uint64_t *word, uint64_t value)
{
    if (STORE_IS_FENCE) {
        (void)atomic_exchange_explicit(word, value, memory_order_seq_cst);
    } else {
        /* Release: a drain that sees this word has seen the end of the section before it. */
        atomic_store_explicit(word, value, memory_order_release);
        atomic_thread_fence(memory_order_seq_cst);
    }
}

static inline void section_open(struct thread_record *record, unsigned i, struct epoch *epoch)
{
    uint64_t now = atomic_load_explicit(&epoch->now, memory_order_acquire);

    record->depth[i] = 1;
    store_and_fence(&record->words[i], epoch->id | now);
}

static inline bool word_is(struct thread_record *record, unsigned i, const struct epoch *epoch)
{
    uint64_t word = atomic_load_explicit(&record->words[i], memory_order_relaxed);

    return record->depth[i] && (word & ~TIME_MASK) == epoch->id;
}

static __attribute__((noinline)) bool section_open_nested(struct thread_record *record,
                                                          struct epoch *epoch)
{
    for (unsigned i = 0; i < EPOCH_NEST; i++) {
        if (word_is(record, i, epoch)) {
            record->depth[i]++;
            return true;
        }
    }
    for (unsigned i = 0; i < EPOCH_NEST; i++) {
        if (!record->depth[i]) {
            section_open(record, i, epoch);
            return true;
        }
    }
    if (record->wildcard_depth++ == 0) {
        store_and_fence(&record->wildcard, 1);
    }
    return true;
}

bool epoch_enter(struct epoch *epoch)
{
    struct thread_record *record = self;

    if (!record) {
        record = record_take();
        if (!record) {
            return false;
        }
    }
    if (record->depth[0] == 0) {
        section_open(record, 0, epoch);
        return true;
    }
    return section_open_nested(record, epoch);
}

static __attribute__((noinline)) void section_close_nested(struct thread_record *record,
                                                           const struct epoch *epoch)
{
    for (unsigned i = 0; i < EPOCH_NEST; i++) {
        if (word_is(record, i, epoch)) {
            if (--record->depth[i] == 0) {
                atomic_store_explicit(&record->words[i], 0, memory_order_release);
            }
            return;
        }
    }
    if (record->wildcard_depth && --record->wildcard_depth == 0) {
        atomic_store_explicit(&record->wildcard, 0, memory_order_release);
    }
}

void epoch_leave(struct epoch *epoch)
{
    struct thread_record *record = self;

    if (record->depth[0] == 1 && word_is(record, 0, epoch)) {
        record->depth[0] = 0;
        atomic_store_explicit(&record->words[0], 0, memory_order_release);
        return;
    }
    section_close_nested(record, epoch);
}

#ifdef VIOMMU_TESTING
bool epoch_inside(const struct epoch *epoch)
{
    struct thread_record *record = self;

    if (!record) {
        return false;
    }
    for (unsigned i = 0; i < EPOCH_NEST; i++) {
        if (word_is(record, i, epoch)) {
            return true;
        }
    }
    return record->wildcard_depth != 0;
}
#endif

uint64_t epoch_begin_drain(struct epoch *epoch)
{
    uint64_t target = atomic_fetch_add_explicit(&epoch->now, 1, memory_order_seq_cst) + 1;

    if (!STORE_IS_FENCE) {
        atomic_thread_fence(memory_order_seq_cst);
    }
    return target;
}

/* Whether the record holds back a drain of the epoch to the target. */
static bool record_holds(struct thread_record *record, const struct epoch *epoch, uint64_t target)
{
    for (unsigned i = 0; i < EPOCH_NEST; i++) {
        uint64_t word = atomic_load_explicit(&record->words[i], memory_order_acquire);

        if (word && (word & ~TIME_MASK) == epoch->id && (word & TIME_MASK) < target) {
            return true;
        }
    }
    return atomic_load_explicit(&record->wildcard, memory_order_acquire) != 0;
}

bool epoch_drained(struct epoch *epoch, uint64_t target)
{
    struct thread_record *record;
    uint64_t quiet = atomic_load_explicit(&epoch->quiet, memory_order_acquire);

    if (quiet >= target) {
        return true;
    }
    for (record = atomic_load_explicit(&registry, memory_order_acquire); record;
         record = record->next) {
        if (record_holds(record, epoch, target)) {
            return false;
        }
    }
    while (quiet < target &&
           !atomic_compare_exchange_weak_explicit(&epoch->quiet, &quiet, target,
                                                  memory_order_acq_rel, memory_order_acquire)) {
        /* another thread noted a drain: quiet was reloaded */
    }
    return true;
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

    if (!atomic_load_explicit(&epoch->deferred, memory_order_relaxed) ||
        atomic_flag_test_and_set(&epoch->reaping)) {
        return;
    }
    list = atomic_exchange(&epoch->deferred, NULL);
    while (list) {
        struct epoch_deferred *next = list->next;

        if (epoch_drained(epoch, list->target)) {
            list->free(list);
        } else {
            deferred_push(epoch, list);
        }
        list = next;
    }
    atomic_flag_clear(&epoch->reaping);
}
