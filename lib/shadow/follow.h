/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Following: what makes mirrors hold exactly what their devices may reach.
 *
 *   map.c     what guest tables said when they were last looked at
 *   layout.c  the mappings that follow from a view: cut by memory, by what is allowed
 *   walk.c    from one layout to another: which mappings go, which come
 *   sync.c    guest tables looked at block by block; what differs becomes a patch
 *   large.c   blocks of 1 GiB
 *   compare.c one block compared
 *   tell.c    what is counted and told of that
 *   adopt.c   what a mirror holds, saved; and mirrors that take that over from another instance
 *   mirror.c  one mirror: its calls and their answers, what it misses, its end
 *   memory.c  guest memory that comes and goes
 *   trial.c   what a guest asked for that mirrors may refuse (trial.h)
 *   follow.c  batches: in which order all that happens
 *
 * Vocabulary. A *view* is what a device reaches: nothing, guest memory one to one (identity),
 * mappings that a model keeps (trial.h), or what a *shadow* has: the map of one set of tables
 * (root, levels), shared by all devices that use them. A *layout* is a view with the guest memory
 * beneath it, perhaps with a patch; its *pieces* are the mappings that a mirror would be given for
 * it: extents, cut by slots of memory, by what the mirror is allowed, and without the interrupt
 * range. What a mirror was *given* is the pieces of its layout, cut by its *odd* mappings: those
 * that it kept, unchanged, when its layout changed to one whose pieces have other borders.
 *
 * A *walk* takes one mirror from one layout to another over a *window* of addresses, cluster by
 * cluster: a *cluster* is the smallest stretch whose borders no mapping crosses, before or after.
 * In each, what is not the same any more is unmapped, then what is missing is mapped.
 *
 * A mirror is *adopted* when it holds already what another instance gave it. All of that is odd at
 * first: its view is nothing. In its first batch it walks from there to the view that it is to
 * have, as on every change of views, and so it is told only what differs.
 *
 * A *batch* is all that was asked for until it began: views to be looked at again, ranges to be
 * synced, memory that came or went. One runs at a time; what comes meanwhile is in the next one. An
 * operation of the guest waits for the batch that has its request.
 *
 * Invariants:
 * - Between walks, given(mirror) is what the mirror holds, but for its *differences*: pieces whose
 *   MAP failed. Those are mapped nowhere, and tried again.
 * - What all members of a shadow were given agrees with its map; a patch is put into the map when
 *   every member has walked to it.
 * - A fenced mirror holds nothing, belongs to no shadow, and is in no walk.
 * - Nothing here waits: a walk goes on when its mirror has answered.
 *
 * Locking: the IOMMU's lock, for everything; given up only while a mirror is called.
 */
#ifndef VIOMMU_SHADOW_FOLLOW_H
#define VIOMMU_SHADOW_FOLLOW_H

#include "memory/memory.h"
#include "notify/notify.h"
#include "pagetable/pagetable.h"
#include "range/pow2.h"
#include "range/range_set.h"
#include "save/stream.h"
#include "shadow/map.h"
#include "shadow/trial.h"

enum view_kind {
    VIEW_NONE,
    VIEW_IDENTITY,
    VIEW_TABLES,
    VIEW_MAPPINGS,
};

/* What a model says of a requester's device. */
struct shadow_view {
    enum view_kind kind;
    uint16_t domain; /* TABLES: invalidations of this domain concern it */
    uint8_t levels;
    uint64_t root;
    uint64_t last; /* IDENTITY, MAPPINGS: the last address it reaches */
    struct mappings *mappings; /* MAPPINGS */
};

/* Guest memory as mirrors use it: sorted, without the interrupt range. Immutable. */
struct memory_list {
    size_t count;
    uint64_t pages;
    struct viommu_memory_slot slots[];
};

struct shadow {
    struct shadow *next;
    struct shadow_map map;
    uint64_t root;
    unsigned users;          /* mirrors that are members, or about to be */
    struct range_set wanted; /* to be synced, for the next batch */
    struct range_set ranges; /* to be synced in this one */
    bool wanted_all;         /* there was no memory for the ranges: everything */
    enum viommu_cause wanted_cause; /* the widest of those that wanted it */
    enum viommu_cause cause;        /* in this batch */
    bool fill;               /* in this batch: everything, before mirrors switch to it */
    bool sync;               /* in this batch: its ranges, */
    bool all;                /* or everything */
    uint64_t tables;         /* looked at in this sync */
};

struct iova_usable; /* iova/tenant.h */

/* What a mirror may be given: sorted. */
struct allowed_list {
    size_t count;
    struct viommu_range ranges[];
};

struct layout {
    enum view_kind kind;
    const struct shadow *shadow;      /* TABLES */
    const struct shadow_patch *patch; /* or NULL */
    const struct memory_list *memory;
    uint64_t last;                    /* IDENTITY, MAPPINGS: of what it shows */
    const struct mappings *mappings;  /* MAPPINGS */
    bool ahead;                       /* as their trial is to leave them */
    const struct allowed_list *allowed; /* another list than the mirror's, or NULL */
};

enum answer {
    ANSWER_NO,
    ANSWER_YES,
    ANSWER_LATER, /* not up to where it was looked: ask again from there */
};

enum walk_phase {
    WALK_NEXT,  /* looks for the next cluster */
    WALK_COUNT, /* how many of its mappings will be odd */
    WALK_UNMAP,
    WALK_MAP,
    WALK_PART,  /* how far the part of a piece reaches that is to be mapped */
    WALK_KEEP,  /* what was kept becomes odd */
    WALK_DROP,  /* what is odd no more */
};

struct walk {
    bool active;
    bool over;      /* nothing left after this cluster */
    bool stop;      /* nor is it to go on */
    bool merge;     /* pieces that grew replace what they were made of, in this cluster */
    bool keep_none; /* no memory for odd mappings in this cluster */
    bool replaced;  /* the cluster was done by one REPLACE */
    enum walk_phase phase;
    enum viommu_cause cause;
    struct layout from;
    struct layout to;
    uint64_t at;       /* in the window; in a cluster, in that */
    uint64_t border;   /* what lies before it was walked over */
    uint64_t last;     /* of the window */
    struct viommu_range looked; /* what is told as skipped lies in here */
    uint64_t cluster_first;
    uint64_t cluster_last;
    bool at_end;       /* `at` is past the end of the cluster */
    size_t odd;        /* so many will be odd */
    uint64_t opened;   /* when something mapped went away; 0: nothing has */
    bool closed;       /* something came in its place */

    /* Whether one given mapping is kept: found out step by step, and remembered. */
    uint64_t judged_first;
    uint64_t judged_at;
    enum answer judged;
    bool judging;

    /* The part of a piece that is to be mapped, as far as it is known to be free. */
    struct shadow_extent part;
    uint64_t part_at;
};

enum walk_result {
    WALK_OVER,
    WALK_TELL, /* there is something to tell */
    WALK_MORE, /* not yet: it goes on with another call */
};

/* What a mirror is to be told next: a mapping, or several where spans are allowed. */
struct mirror_op {
    enum viommu_change_kind kind;
    enum viommu_cause cause;
    struct shadow_extent extent;
    uint64_t pieces; /* UNMAP: how many mappings it takes */
};

struct mirror {
    struct mirror *next; /* in follow.mirrors */
    struct viommu_subscriber *subscriber;
    struct allowed_list *allowed; /* cut to its range, without the interrupt range */
    /* Other lists: being made, while the space of its device changes; the newest that it is to go
       by; the one that is being walked to. */
    struct allowed_list *allowed_made;
    struct allowed_list *allowed_next;
    struct allowed_list *allowed_walked;

    /* Its view now. */
    enum view_kind kind;
    uint16_t domain;
    uint64_t identity_last;
    struct shadow *shadow;
    struct mappings *source; /* MAPPINGS */

    /* The view that it is to have. */
    struct shadow_view target; /* uses its mappings */
    struct shadow *target_shadow;
    bool review_wanted; /* the model is to be asked, in the next batch */
    bool review;        /* in this one */
    bool switching;     /* it is not the one it has */
    bool switched;      /* the walk to it has begun */
    enum viommu_cause review_cause;
    bool trying;        /* it takes part in an ADD or a VIEW, and has not to walk back */

    struct range_map odd;     /* runs: target gpa, tag perm */
    struct range_map missing; /* differences: the same */
    struct range_set unmade;  /* of what went in this cluster: what was missing */
    uint64_t counted;         /* of odd and missing, in follow.odd_bytes */
    uint64_t mappings;        /* blocks that it holds */

    struct walk walk;
    struct mirror *next_active; /* in follow.active, while it has something to be told */
    bool is_active;

    /* The call that is being made. */
    struct wait wait;         /* counts it */
    struct delivery delivery; /* while it is out */
    bool busy;                /* it is not answered */
    bool splitting;           /* op is made block by block */
    struct mirror_op op;
    struct pow2_split split;
    struct shadow_extent block; /* what the mirror was told of */

    bool waits;    /* to be adopted: told nothing until it is known what it holds */
    bool adopting; /* has not walked yet from what it holds; that is not counted in odd_bytes */

    bool fence_due; /* its fence function is to be called */
    bool fencing;   /* or is being called */
    bool gone;      /* it is being removed */

    /* Differences that are tried again. */
    bool retry_now;
    bool retrying;
    unsigned retry_failed;  /* in a row */
    bool retry_succeeded;
    uint64_t retry_at;      /* address */
    uint64_t retry_time;    /* when; 0: not set */
    uint64_t retry_pause;
};

enum follow_phase {
    FOLLOW_IDLE = 0,
    FOLLOW_MEMORY,
    FOLLOW_REVIEW,
    FOLLOW_FILL,
    FOLLOW_SWITCH,
    FOLLOW_TRIAL,
    FOLLOW_SYNC,
    FOLLOW_RETRY,
};

/* Memory that is going, or has come. */
struct memory_note {
    struct memory_note *next;
    uint64_t token; /* of a removal: the answer that memory waits for */
    bool removal;
    bool rebuild;   /* what is there now, whatever was known */
    size_t count;
    struct viommu_memory_slot slots[];
};

struct trial {
    enum trial_kind kind;
    uint64_t batch; /* in which it is */
    bool begun;
    bool undoing; /* mirrors walk back */
    int error;    /* the first */
    struct viommu_range range; /* that they walk over */
    struct mappings *mappings; /* ADD, REMOVE: it uses them */
    uint16_t requester;        /* VIEW */
    struct shadow_view view;   /* and its mappings */
};

struct follow {
    struct mirror *mirrors;
    struct mirror *active; /* those with a walk or a retry */
    unsigned fences_due;
    struct shadow *shadows;
    struct shadow *dying; /* without users, freed piece by piece */
    uint64_t batch_open;  /* number of the batch that requests join */
    uint64_t batch_done;  /* and of the last one that is complete */
    bool wanted;          /* the open batch has something in it */
    enum follow_phase phase;

    struct trial trial;

    /* The sync that is under way. */
    struct shadow *syncing;
    enum viommu_cause cause_now;
    uint64_t sync_at;
    bool stop_told;           /* in this batch, that the machine should be stopped: once */
    bool patched;             /* `patch` is being walked to */
    struct shadow_patch patch;
    struct viommu_range changed; /* by it: outside, layouts are the same with it and without */
    bool cutting;             /* `patch` is being made of a page of 1 GiB that is a table now */
    bool cut_differs;         /* and is not what the page was */
    unsigned cut_at;          /* the block of 2 MiB that is next */

    /* Memory. */
    struct viommu_memory_listener *listener;
    struct memory_list *memory;
    struct memory_list *memory_next; /* while mirrors walk to it */
    struct memory_note *notes;       /* oldest first */
    bool memory_stale;               /* there was no memory to note a change: the list is empty */
    bool removing;                   /* slots are going: memory has asked and not told of the end */
    uint64_t stale_token;            /* the answer to that, where there is no note of it; or 0 */
    bool memory_failed;              /* the oldest note leads nowhere: every mirror is fenced */

    uint64_t map_bytes; /* of all shadows in use */
    uint64_t odd_bytes; /* and what mirrors keep besides */

    uint64_t quota; /* as configured; 0: the default */
    enum viommu_rewrite_policy policy;
};

/* ---- follow.c ---- */

void follow_init(struct viommu *iommu, const struct viommu_config *config);
void follow_fini(struct viommu *iommu);

/* The domain of a request that concerns all of them. */
#define FOLLOW_ANY_DOMAIN (-1)

/*
 * Mirrors of the domain (or FOLLOW_ANY_DOMAIN) are to be synced in [first, last]; the wait is over
 * when they are.
 */
void follow_invalidate(struct viommu *iommu, struct wait *wait, int domain, uint64_t first,
                       uint64_t last, enum viommu_cause cause);

/* The views of mirrors are to be looked at again, where `match` (NULL: everywhere) says so. */
void follow_review(struct viommu *iommu, struct wait *wait, notify_match *match, const void *what,
                   enum viommu_cause cause);

/* One mirror's is, too. */
void follow_review_mirror(struct viommu *iommu, struct mirror *mirror, enum viommu_cause cause);

/* Whether what a wait asked for is done. */
bool follow_done(const struct viommu *iommu, const struct wait *wait);

/* Works; true when it stopped for the budget. Makes calls of mirrors: gives the lock up. */
bool follow_work(struct viommu *iommu, unsigned *budget);

/* When to come back for what failed; 0: never. */
uint64_t follow_deadline(const struct viommu *iommu);

/* A batch is to begin for what was just asked. */
void follow_want(struct viommu *iommu);
/* The same, and `wait` (or NULL) is over with it. */
void follow_join(struct viommu *iommu, struct wait *wait);

/* Bytes in use, and what they may be. */
uint64_t follow_bytes(const struct viommu *iommu);
uint64_t follow_quota(const struct viommu *iommu);

void follow_stats(const struct viommu *iommu, struct viommu_stats *stats);

/* A mirror does not use a shadow any more. */
void shadow_put(struct viommu *iommu, struct shadow *shadow);

/* Whether a mirror has this view. */
bool view_is(const struct mirror *mirror, const struct shadow_view *view);

/* ---- trial.c (see trial.h, too) ---- */

/* The trial's next step in its batch, while no mirror is active. False: there is none. */
bool trial_step(struct viommu *iommu);

/* It is to fail: mirrors that take part stop. */
void trial_fail(struct viommu *iommu, int error);
/* One of them cannot make a mapping. Returns whether that is all: nothing is to be noted. */
bool trial_map_failed(struct viommu *iommu, struct mirror *mirror, int error);
/* One is fenced. */
void trial_fenced(struct viommu *iommu, struct mirror *mirror, int error);

void trial_fini(struct viommu *iommu);

/* ---- mirror.c ---- */

/* Differences are tried again after so many nanoseconds; then after longer. */
#define MIRROR_RETRY_PAUSE 10000000ULL

/* Makes a subscriber a mirror. Returns 0 or -ENOMEM. It is not followed yet. */
int mirror_attach(struct viommu *iommu, struct viommu_subscriber *subscriber);
/* It takes part from now on. Under the lock. */
void mirror_enter(struct viommu *iommu, struct mirror *mirror);
/* It does not any more. Under the lock. */
void mirror_leave(struct viommu *iommu, struct mirror *mirror);
void mirror_free(struct mirror *mirror);

/* So many blocks a mapping is made of. */
uint64_t mirror_blocks(const struct mirror *mirror, const struct shadow_extent *extent);

/*
 * What its device may use is to be another list: made aside, then gone by (`keep`), or not. Returns
 * 0 or -ENOMEM. Under the lock.
 */
int mirror_restrict(struct viommu *iommu, struct mirror *mirror, const struct iova_usable *usable);
void mirror_restrict_end(struct viommu *iommu, struct mirror *mirror, bool keep);

/* A walk to the newest list begins; it is over. */
void mirror_allowed_walk(struct mirror *mirror);
void mirror_allowed_walked(struct mirror *mirror);

/*
 * Whether it holds something in a range, as far as that is certain: one that is being told of
 * something will follow whatever the lists are. *held is the mapping. Under the lock.
 */
bool mirror_has(const struct viommu *iommu, const struct mirror *mirror,
                const struct viommu_range *range, struct viommu_range *held);

/* The mirror failed, or must not go on: its fence function will be called. */
void mirror_fence(struct viommu *iommu, struct mirror *mirror);

/* The same with its events; `deny` denies its device, too. */
void mirror_fence_for(struct viommu *iommu, struct mirror *mirror, int error, bool deny,
                      const char *text);

/* Counts the memory of what it keeps anew. */
void mirror_count(struct viommu *iommu, struct mirror *mirror);

/* Whether it nears its limit of mappings. */
bool mirror_crowded(const struct mirror *mirror);

/* Answers its call: 0 or a negative errno. */
void mirror_answer(struct viommu *iommu, struct mirror *mirror, int status);

/* It did not answer in time. Whatever it was told of, it may have done or not. */
void mirror_timed_out(struct viommu *iommu, struct mirror *mirror);

/* Has it told something (it is put among the active). */
void mirror_activate(struct viommu *iommu, struct mirror *mirror);

/* Begins to try differences again. */
void mirror_retry_begin(struct viommu *iommu, struct mirror *mirror);

/*
 * Lets active mirrors go on, as far as they answer and the budget lasts. Returns whether some are
 * still active.
 */
bool mirrors_work(struct viommu *iommu, unsigned *budget);

/* Calls the fence functions that are due, as far as the budget lasts. */
void mirrors_fence_due(struct viommu *iommu, unsigned *budget);

/* It has another view from now on; the shadow's use is handed over. */
void mirror_set_view(struct viommu *iommu, struct mirror *mirror, const struct shadow_view *view,
                     struct shadow *shadow);

/* ---- layout.c ---- */

/* The layout of its view now. */
struct layout mirror_layout(const struct viommu *iommu, const struct mirror *mirror);
/* Of a view without tables. */
struct layout view_layout(const struct viommu *iommu, const struct shadow_view *view);

/* The first of the mirror's allowed ranges that ends at the address or above, or NULL. */
const struct viommu_range *mirror_allowed_from(const struct mirror *mirror, uint64_t address);

/* So many extents or pieces are looked at for one question: the rest is for another. */
#define LAYOUT_LOOKS 64

/*
 * The first piece that ends at `from` or above and begins at `last` or below, whole (it may begin
 * before `from`). With ANSWER_LATER there is none before *later.
 */
enum answer layout_look(const struct mirror *mirror, const struct layout *layout, uint64_t from,
                        uint64_t last, struct shadow_extent *piece, uint64_t *later);

/* The same for what the mirror was given. */
enum answer layout_look_given(const struct mirror *mirror, const struct layout *layout,
                              uint64_t from, uint64_t last, struct shadow_extent *piece,
                              uint64_t *later);

/*
 * The same, however long it takes: for what one address lies in, and for stretches of one extent.
 */
bool layout_piece(const struct mirror *mirror, const struct layout *layout, uint64_t from,
                  uint64_t last, struct shadow_extent *piece);
bool layout_given(const struct mirror *mirror, const struct layout *layout, uint64_t from,
                  uint64_t last, struct shadow_extent *piece);

/*
 * Whether the layout's pieces lead exactly where the mapping does, from *at on. With ANSWER_LATER
 * they do up to before *at.
 */
enum answer layout_agrees(const struct mirror *mirror, const struct layout *layout,
                          const struct shadow_extent *mapping, uint64_t *at);

/* How many bytes two mappings have in common: of the same address and target. */
uint64_t layout_common(const struct shadow_extent *a, const struct shadow_extent *b);

/* The slot of guest memory that holds an address, or the first after it, or NULL. */
const struct viommu_memory_slot *memory_list_from(const struct memory_list *memory, uint64_t gpa);

/* ---- walk.c ---- */

/* Begins a walk over [first, last], and what mappings reach out of it. */
void walk_begin(struct mirror *mirror, const struct layout *from, const struct layout *to,
                uint64_t first, uint64_t last, enum viommu_cause cause);

/* What it passes over it tells in [first, last] only. */
void walk_limit_skips(struct mirror *mirror, uint64_t first, uint64_t last);

/* Finds the next thing to tell. Bounded. */
enum walk_result walk_next(struct viommu *iommu, struct mirror *mirror, struct mirror_op *op);

/* ---- sync.c ---- */

/*
 * Looks at the next blocks, up to one that is to be walked over; all but one are taken from the
 * budget. Returns false when the shadow's ranges are through.
 */
bool sync_step(struct viommu *iommu, struct shadow *shadow, unsigned *budget);

/* ---- tell.c ---- */

/* What mirrors are not given of the run that begins at an address. */
void tell_mappings_unreachable(struct viommu *iommu, const struct mappings *mappings,
                               uint64_t first);

/* ---- memory.c ---- */

/* Listens to guest memory, from the first mirror on. Returns 0 or -ENOMEM. Under the lock. */
int follow_memory_listen(struct viommu *iommu);
void follow_memory_stop(struct viommu *iommu);

/* Where track was lost: notes to read what is there, as soon as that is certain. */
void follow_memory_catch_up(struct viommu *iommu);
/*
 * Before the start, while nobody changes memory: reads what is there. Returns 0, -ENOMEM, or -EBUSY
 * while a removal is under way.
 */
int follow_memory_settle(struct viommu *iommu);
/* Answers a removal for which every mirror was fenced. */
void follow_memory_answer_stale(struct viommu *iommu);

/*
 * Begins the oldest note: memory_next is what it leads to. Returns false when there is no memory.
 */
bool follow_memory_begin(struct viommu *iommu);
/* The mirrors have walked there. */
void follow_memory_end(struct viommu *iommu);

/* ---- adopt.c ---- */

/* Whether what mirrors hold is known: none is being told something. */
bool follow_quiet(const struct viommu *iommu);

/* Whether a mirror waits to be adopted. */
bool follow_waits(const struct viommu *iommu);

/* Writes what a mirror holds into an open section. While all is quiet. */
void mirror_save(const struct viommu *iommu, const struct mirror *mirror,
                 struct save_writer *writer);

/* What a mirror is to take over. */
struct adoption {
    struct mirror *mirror;
    bool fenced;
    struct range_map odd;
    struct range_map missing;
    uint64_t mappings;
};

/*
 * Reads what mirror_save wrote, for a mirror that waits. Returns 0; -EBADMSG; -EINVAL when it is of
 * a mirror of another form or range; -ENOMEM. adoption_fini follows, whatever is returned.
 */
int adoption_read(struct adoption *adoption, struct mirror *mirror, struct save_section *section);
void adoption_fini(struct adoption *adoption);

/* The mirror has that from now on. Before the start. */
void mirror_adopt(struct viommu *iommu, struct adoption *adoption);

/* It has walked to the view that it is to have. */
void adoption_over(struct viommu *iommu, struct mirror *mirror);

#endif
