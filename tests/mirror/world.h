/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The world of the mirrors' model test: a guest with memory that comes and goes, tables, contexts,
 * devices and their mirrors, and a slow model of what each mirror may hold.
 *
 * Vocabulary.
 * The *universe* is the pages that are looked at one by one: WORLD_BLOCKS blocks of 2 MiB at low
 * addresses, around the 1 GiB border, at the interrupt range and at the ends of the 39-bit and the
 * 48-bit space. Tables are edited only at the indices that lead there, so that nothing else is
 * mapped (but for the rest of a super page).
 * A *space* is a root table with a number of levels. Tables are of fixed levels (a level-1 table is
 * never linked as a level-2 table), and are linked from many places.
 * The *raw* value of a page is what the tables of a space say: target | permissions, 0 for nothing.
 * A *log* holds the raw values that a page had since its last *covered* sync: one that an
 * invalidation certainly made. The same for the *views* of a device (what its context entry says).
 * Time counts changes; an entry of a log has the time at which it ceased to be true.
 *
 * What is right: at the end of each operation a page of a mirror has a value that some logged view
 * of its device gives with some logged raw value, as memory is now (world_check). A covered sync
 * leaves only what was true at the time of its submission or later.
 *
 * Operations change the world at random. world_begin and world_end enclose one; world_note says
 * what is done; world_fail prints the last notes and how to replay, and ends the program.
 */
#ifndef VIOMMU_MIRROR_WORLD_H
#define VIOMMU_MIRROR_WORLD_H

#include "../support/guest.h"
#include "../support/random.h"
#include "../support/recorder.h"

#define WORLD_PAGE 4096ull
#define WORLD_BLOCKS 32
#define WORLD_PAGES (WORLD_BLOCKS * 512)
#define WORLD_SPACES 4
#define WORLD_DEVICES 4
#define WORLD_MIRRORS 7
#define WORLD_NOTES 64
#define WORLD_OLD 5    /* old values of a page that are remembered */
#define WORLD_VIEWS 8  /* of a device */
#define WORLD_NOW UINT64_MAX
#define WORLD_CHANGED 64 /* pages that changed lately */

enum world_slot {
    SLOT_MAIN,
    SLOT_LOW,
    SLOT_MIDDLE,
    SLOT_ROM,
    SLOT_BIG,
    SLOT_HIGH,
    SLOT_END,
    SLOTS,
};

struct memory_slot {
    struct viommu_memory_slot slot; /* as it is, or will be when it comes back */
    uint64_t size;
    uint8_t *hosts[2];
    unsigned which;
    bool present;
};

enum view_kind { VIEW_NONE, VIEW_IDENTITY, VIEW_TABLES };

struct view {
    enum view_kind kind;
    unsigned space;
    uint16_t domain; /* 0 for VIEW_NONE */
};

struct logged_view {
    struct view view;
    uint64_t end;
};

struct page_log {
    uint64_t old[WORLD_OLD];
    uint64_t end[WORLD_OLD];
    uint8_t count;
    bool any; /* it had more values than that */
};

struct space {
    uint64_t root;
    unsigned levels;
};

struct device {
    struct viommu_device *device;
    uint16_t requester;
    bool denied;
    struct logged_view views[WORLD_VIEWS]; /* the last one is true now */
    unsigned view_count;
    bool any_view;
};

enum mirror_answer { /* of a mirror that answered PENDING */
    ANSWER_DONE,
    ANSWER_FAIL,
    ANSWER_NEVER,
};

struct mirror {
    struct world *world;
    char name[8];
    unsigned device;
    struct viommu_subscriber *subscriber; /* NULL: none */
    struct recorder recorder;
    enum mirror_answer answer;
    bool expect_fence; /* a failure was injected that must fence it */
    bool may_fence;
    bool differs; /* its subscriber has differences */
};

/* What goes wrong in a world. */
struct trouble {
    unsigned pending;     /* percent of calls that answer PENDING */
    unsigned map_fails;   /* percent */
    unsigned other_fails; /* per thousand */
    unsigned never;       /* percent of those PENDING */
    unsigned late_fails;  /* percent of those PENDING */
    bool alloc;           /* allocations may fail: see alloc_test.c */
    unsigned long at;     /* the n-th call: 0: none; */
    bool every;           /* and each n-th after it */
    bool at_is_pending;   /* it answers PENDING, and then as late_fails and never say */
};

struct world {
    uint64_t seed;
    uint64_t step;
    struct random random;
    struct viommu_vtd_config vtd;
    enum viommu_rewrite_policy policy;
    struct guest guest;
    struct memory_slot slots[SLOTS];
    struct recorder_memory memory; /* what recorders know */
    uint64_t clock;
    uint64_t time;
    struct trouble trouble;
    bool trace;
    bool healing; /* nothing goes wrong for now */

    bool translating;
    bool queue_on;
    unsigned root; /* of the two root tables, the one in force */
    struct space spaces[WORLD_SPACES];
    struct device devices[WORLD_DEVICES];
    struct mirror mirrors[WORLD_MIRRORS];
    uint64_t *now;         /* raw values, [space][page] */
    struct page_log *logs; /* and those before */
    unsigned changed[WORLD_CHANGED]; /* [space][page] */
    unsigned changed_count;
    bool dirty;            /* tables, memory or contexts changed since the last refresh */

    /* Of the operation. */
    bool interleaved;  /* the guest changed something between submission and completion */
    bool one_sync;     /* it is one invalidation of the IOTLB */
    bool taken_over;   /* another instance went on in it */
    bool stale[WORLD_PAGES]; /* the views of devices may change, and the page has old values */
    uint32_t causes;   /* that may be given */
    uint64_t interrupted_before;
    uint64_t failures; /* injected, in all */
    unsigned long calls; /* that could fail */
    uint64_t fenced_events;
    uint64_t denied_events;
    uint64_t rewritten_events; /* or some were lost */
    uint64_t stop_events;
    uint64_t rewritten_before;
    uint64_t stop_before;

    uint64_t mapped_pages; /* looked at and found mapped, in all: for the summary */
    uint64_t interrupted;
    uint64_t quiet; /* repeated invalidations */
    uint64_t takeovers;
    unsigned long alloc_failed_at; /* for the message */

    char notes[WORLD_NOTES][160];
    unsigned note_count;
};

void world_init(struct world *world, uint64_t seed, const struct trouble *trouble);
void world_fini(struct world *world);

void world_note(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));
_Noreturn void world_fail(struct world *world, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void world_ok(struct world *world, int error, const char *what);

static inline unsigned world_below(struct world *world, unsigned bound)
{
    return random_below(&world->random, bound);
}

static inline bool world_percent(struct world *world, unsigned percent)
{
    return random_percent(&world->random, percent);
}

/* Opens an operation in which mirrors may be told something for one of `causes` (bits). */
void world_begin(struct world *world, uint32_t causes);

/* Lets everything finish that can, and checks everything. */
void world_end(struct world *world);

/* Calls viommu_process until it has nothing to do; PENDING calls stay so. */
void world_process(struct world *world);

/* Answers one call that is PENDING, if there is one. */
bool world_answer(struct world *world);

/* Processes and answers until `done` says so. */
void world_finish(struct world *world, bool (*done)(struct world *world), const char *what);

/* No failures from here on, and time passes until every mirror is exact again. */
void world_heal(struct world *world);

/* memory.c */
void memory_init(struct world *world);
void memory_add_all(struct world *world); /* before the start */
void memory_fini(struct world *world);
uint64_t *memory_word(struct world *world, uint64_t gpa); /* NULL: no memory */
bool memory_load(struct world *world, uint64_t gpa, uint64_t *value);
void memory_store(struct world *world, uint64_t gpa, uint64_t value);
uint64_t memory_any_page(struct world *world); /* mostly of memory */
/* What a page that leads to `raw` is to a mirror: target | permissions, or 0. */
uint64_t memory_effective(struct world *world, uint64_t raw);
void memory_change(struct world *world); /* operation */

/* tables.c */
void tables_init(struct world *world);
uint64_t tables_page_address(unsigned page); /* of the universe */
int tables_page_index(uint64_t address);
/* Raw values of a block, as the tables are now. */
void tables_read_block(struct world *world, unsigned space, unsigned block, uint64_t *values);
void tables_edit(struct world *world); /* no operation: a part of one */

/* context.c */
struct view context_read(struct world *world, uint16_t requester);
void context_edit(struct world *world); /* a part of an operation */
void context_attach(struct world *world, unsigned device, unsigned space, uint16_t domain);

/* model.c */
void model_init(struct world *world);
void model_fini(struct world *world);
/* Logs what changed. */
void model_refresh(struct world *world);
/* The time of a submission. */
uint64_t model_submit(struct world *world);
void model_context_synced(struct world *world, uint64_t time, enum spec_granularity granularity,
                          uint16_t domain, uint16_t requester, unsigned function_mask);
/* Before an operation: world.stale. */
void model_note_stale(struct world *world);
/* The device's view is looked at anew. */
void model_view_synced(struct world *world, uint64_t time, unsigned device);
void model_pages_synced(struct world *world, uint64_t time, enum spec_granularity granularity,
                        uint16_t domain, uint64_t first, uint64_t last);
/* Spaces that no mirror can use are not remembered: who comes to them reads them anew. */
void model_unused(struct world *world);
void model_check(struct world *world, struct mirror *mirror);
/* Whether the device may have its memory mapped one to one. */
bool model_maybe_identity(const struct world *world, unsigned device);

/* mirrors.c */
void mirrors_subscribe(struct world *world); /* operations */
void mirrors_unsubscribe(struct world *world);
struct mirror *mirrors_any(struct world *world);
void mirrors_remove(struct world *world, struct mirror *mirror);

/* invalidate.c: operations */
void invalidate_some(struct world *world);
void invalidate_twice(struct world *world);
void invalidate_all(struct world *world);

/* takeover.c */
void takeover(struct world *world); /* operation */
/* The same, sometimes, whenever the unit is given time to work. */
void takeover_sometimes(struct world *world);

/* life.c */
void life_run(struct world *world);
/* After a failure: those that were fenced are let in again, and all is well. */
void life_recover(struct world *world);

/* command.c: operations */
void command_translation(struct world *world);
void command_root(struct world *world);
void command_device(struct world *world);
void command_renumber(struct world *world);
void command_reset(struct world *world);
void command_queue(struct world *world);
void command_time(struct world *world);
void command_start(struct world *world); /* queue, root, translation on: not checked */

#endif
