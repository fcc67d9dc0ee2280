/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Epochs: the one way in which readers without locks are protected.
 *
 * A *section* is a stretch of a thread's work between epoch_enter and epoch_leave. A *drain* asks:
 * have all sections that began before now ended? What was unpublished before the drain began cannot
 * be reached by anyone once the answer is yes: it may be freed, reused, or reported gone.
 *
 * An *epoch* here is a clock of its own (one for each guest memory), so that a long section in one
 * guest does not delay another's drains. Each thread has one record, taken on its first section and
 * returned when it ends, with a few words: one for each epoch it has a section open in. A word
 * holds the epoch's id and the time the section began, so entering is one store and one full fence.
 *
 * Invariants:
 * - `now` only grows. A section that began at time t may see what was published before t or later,
 *   never what was unpublished before a drain that returned a target <= t.
 * - A drain with target T is over when no word with the epoch's id holds a time below T.
 * - Sections nest. Those that find no free word (more than EPOCH_NEST epochs at once) open the
 *   wildcard, which holds back every epoch: safe, only slower.
 *
 * Time has 48 bits: at a million drains a second it lasts nine years. A forked child inherits
 * sections of threads that it does not have: no epoch survives a fork.
 *
 * Nothing here blocks. A section must be left on the thread that entered it.
 */
#ifndef VIOMMU_BASE_EPOCH_H
#define VIOMMU_BASE_EPOCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define EPOCH_NEST 4      /* epochs that a thread can have sections of at once */
#define EPOCH_ID_SHIFT 48 /* the time lies below, the id above */

#if defined(__x86_64__) || defined(__SANITIZE_THREAD__)
#define EPOCH_STORE_IS_FENCE 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define EPOCH_STORE_IS_FENCE 1
#endif
#endif
#ifndef EPOCH_STORE_IS_FENCE
#define EPOCH_STORE_IS_FENCE 0
#endif

/* A thread's record. One a thread; never freed, used again by later threads. */
struct epoch_thread {
    _Alignas(128) _Atomic uint64_t words[EPOCH_NEST]; /* id and time; 0: free */
    _Atomic uint64_t wildcard;                        /* not 0: holds back every epoch */
    uint32_t depth[EPOCH_NEST];                       /* the owner's: how deep words nest */
    uint32_t wildcard_depth;
    _Atomic bool used;
    struct epoch_thread *next; /* in the registry; set once */
};

struct epoch_deferred {
    struct epoch_deferred *next;
    void (*free)(struct epoch_deferred *deferred);
    uint64_t target;
};

struct epoch {
    uint64_t id;            /* shifted to its place in a word */
    _Atomic uint64_t now;   /* time; starts at 1 */
    _Atomic uint64_t quiet; /* drains with a target up to this are known to be over */
    /* What waits to be freed, newest first. */
    _Atomic(struct epoch_deferred *) deferred;
    atomic_flag reaping;
};

/* Returns 0, or -ENOSPC when too many epochs live in this process. */
int epoch_init(struct epoch *epoch);

/* No section may be open. Frees everything deferred. */
void epoch_fini(struct epoch *epoch);

/*
 * This thread's record; before its first section the one of nobody, in which a section of no epoch
 * is open: so the inline parts below need not ask. That one is never written.
 */
extern _Thread_local struct epoch_thread *epoch_self
    __attribute__((visibility("hidden"), tls_model("initial-exec")));

/* Sees to it that this thread can open sections, from now on. False without memory. */
bool epoch_prepare(void);

/* What the inline parts below leave: first sections and nested ones. */
bool epoch_enter_slow(struct epoch *epoch);
void epoch_leave_slow(struct epoch *epoch);

/* Opens word `i` of the thread's record: a store, and a full fence after it. */
static inline void epoch_open_word(struct epoch_thread *thread, unsigned i, struct epoch *epoch)
{
    uint64_t now = atomic_load_explicit(&epoch->now, memory_order_acquire);

    thread->depth[i] = 1;
    if (EPOCH_STORE_IS_FENCE) {
        (void)atomic_exchange_explicit(&thread->words[i], epoch->id | now, memory_order_seq_cst);
    } else {
        /* Release: a drain that sees this word sees that the word's last section has ended. */
        atomic_store_explicit(&thread->words[i], epoch->id | now, memory_order_release);
        atomic_thread_fence(memory_order_seq_cst);
    }
}

/* Whether word `i` of the thread, which is open, belongs to the epoch. */
static inline bool epoch_word_is(const struct epoch_thread *thread, unsigned i,
                                 const struct epoch *epoch)
{
    uint64_t word = atomic_load_explicit(&thread->words[i], memory_order_relaxed);

    return (word ^ epoch->id) >> EPOCH_ID_SHIFT == 0;
}

/*
 * Opens a section. Returns false when there is no memory for the record of a thread that opens its
 * first: the section is then not open and the caller must not read.
 */
static inline bool epoch_enter(struct epoch *epoch)
{
    struct epoch_thread *thread = epoch_self;

    if (!thread->depth[0]) {
        epoch_open_word(thread, 0, epoch);
        return true;
    }
    if (epoch_word_is(thread, 0, epoch)) {
        thread->depth[0]++;
        return true;
    }
    return epoch_enter_slow(epoch);
}

static inline void epoch_leave(struct epoch *epoch)
{
    struct epoch_thread *thread = epoch_self;

    if (!thread->depth[0] || !epoch_word_is(thread, 0, epoch)) {
        epoch_leave_slow(epoch);
    } else if (--thread->depth[0] == 0) {
        atomic_store_explicit(&thread->words[0], 0, memory_order_release);
    }
}

/*
 * Whether the thread's first word says that it is inside a section of the epoch. False decides
 * nothing. For readers that need a section only if there is none: nesting writes to the record,
 * this does not.
 */
static inline bool epoch_inside_first(const struct epoch *epoch)
{
    return epoch_word_is(epoch_self, 0, epoch);
}

#ifdef VIOMMU_TESTING
/* Whether this thread has a section of the epoch open, or one of every epoch (the wildcard). */
bool epoch_inside(const struct epoch *epoch);
#endif

/*
 * What time it is. Read inside a section: a drain whose target is later than this waits for the
 * section; what was unpublished before one with this target, or an earlier one, the reader does not
 * see from here on.
 */
static inline uint64_t epoch_time(const struct epoch *epoch)
{
    return atomic_load_explicit(&epoch->now, memory_order_seq_cst);
}

/*
 * Begins a drain: what the caller unpublished before is covered by it. Returns its target, for
 * epoch_drained. The call itself is a full fence.
 */
uint64_t epoch_begin_drain(struct epoch *epoch);

/* Whether every section that began before the drain has ended. Cheap when asked again. */
bool epoch_drained(struct epoch *epoch, uint64_t target);

/*
 * Frees something that was just unpublished when no section can see it any more: by epoch_reap or
 * epoch_fini, through deferred->free. Needs no memory.
 */
void epoch_defer(struct epoch *epoch, struct epoch_deferred *deferred,
                 void (*free)(struct epoch_deferred *deferred));

/* Frees what can be freed. Any thread; no lock that `free` might take may be held. */
void epoch_reap(struct epoch *epoch);

#endif
