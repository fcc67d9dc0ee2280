/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The IOVA room: a space of device addresses, its owners, and what they have in it.
 *
 * There is one space at a time. Owners, reservations (windows among them), memory and followers
 * have names here. A refusal that has two sides tells both: what was asked for, and what is there,
 * each as KIND:OWNER:FIRST-LAST.
 */
#include "run.h"

#include "../parse.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    RANGES_MAX = 32,
    REQUESTS_MAX = 8,
};

struct thing {
    struct thing *next;
    char *name;
    char *owner;
    struct viommu_iova_owner *of; /* an owner */
    struct viommu_iova_reservation *reservation;
    struct viommu_iova_memory *memory;
    struct viommu_iova_follower *follower;
};

struct iova_room {
    struct viommu_iova *space;
    struct thing *things;
};

static void free_thing(struct thing *thing)
{
    free(thing->name);
    free(thing->owner);
    free(thing);
}

void iova_destroy(struct run *run)
{
    if (!run->iova) {
        return;
    }
    while (run->iova->things) {
        struct thing *thing = run->iova->things;

        run->iova->things = thing->next;
        free_thing(thing);
    }
    viommu_iova_destroy(run->iova->space);
    free(run->iova);
    run->iova = NULL;
}

static struct thing *find_thing(const struct run *run, const char *name)
{
    struct thing *thing = run->iova ? run->iova->things : NULL;

    while (thing && strcmp(thing->name, name)) {
        thing = thing->next;
    }
    return thing;
}

static struct thing *add_thing(struct run *run, const char *name, const char *owner)
{
    struct thing *thing = run_alloc(sizeof(*thing));

    thing->name = run_copy_text(name);
    thing->owner = run_copy_text(owner);
    thing->next = run->iova->things;
    run->iova->things = thing;
    return thing;
}

/* Forgets a thing, and all that it has when it is an owner. */
static void forget(struct run *run, const struct thing *gone)
{
    struct thing **at = &run->iova->things;
    char *name = run_copy_text(gone->name); /* it goes before others do */

    while (*at) {
        struct thing *thing = *at;

        if (!strcmp(thing->name, name) || !strcmp(thing->owner, name)) {
            *at = thing->next;
            free_thing(thing);
        } else {
            at = &thing->next;
        }
    }
    free(name);
}

static bool space_is_there(struct run *run)
{
    if (!run->iova) {
        run_error(run, NULL, "there is no space yet; `iova space` makes one");
        return false;
    }
    return true;
}

struct viommu_iova *iova_space(const struct run *run)
{
    return run->iova ? run->iova->space : NULL;
}

/* A name that nothing has. */
static bool arg_new(struct run *run, const char **out)
{
    *out = line_argument(&run->line, "name")->value;
    if (!space_is_there(run)) {
        return false;
    }
    if (find_thing(run, *out)) {
        run_error(run, *out, "the name is taken");
        return false;
    }
    return true;
}

static struct thing *arg_thing(struct run *run, const char *argument)
{
    const char *name = line_argument(&run->line, argument)->value;
    struct thing *thing = find_thing(run, name);

    if (space_is_there(run) && !thing) {
        run_error(run, name, "nothing in the space has this name");
    }
    return thing;
}

static struct thing *arg_owner(struct run *run)
{
    struct thing *thing = arg_thing(run, "owner");

    if (thing && !thing->of) {
        run_error(run, thing->name, "this is no owner");
        return NULL;
    }
    return thing;
}

static struct thing *arg_reservation(struct run *run)
{
    struct thing *thing = arg_thing(run, "name");

    if (thing && !thing->reservation) {
        run_error(run, thing->name, "this is no reservation");
        return NULL;
    }
    return thing;
}

/* FIRST-LAST at the start of *text. */
static bool range_part(const char **text, struct viommu_range *out)
{
    return parse_number_part(text, &out->first) && *(*text)++ == '-' &&
           parse_number_part(text, &out->last);
}

static bool arg_range(struct run *run, const char *name, struct viommu_range *out)
{
    const struct word *word = line_argument(&run->line, name);
    const char *text;

    if (!word) {
        return true;
    }
    text = word->value;
    if (!range_part(&text, out) || *text) {
        run_error(run, word->value, "%s is FIRST-LAST, as 0x1000-0x1fff", name);
        return false;
    }
    return true;
}

/* Ranges, joined by commas. */
static bool arg_ranges(struct run *run, const char *name, struct viommu_range *out, size_t *count)
{
    const char *value = line_argument(&run->line, name)->value;
    const char *text = value;

    for (*count = 0; *count < RANGES_MAX;) {
        if (!range_part(&text, &out[(*count)++])) {
            break;
        }
        if (!*text) {
            return true;
        }
        if (*text++ != ',') {
            break;
        }
    }
    run_error(run, value, "%s is at most %d ranges, as 0x1000-0x1fff,0x8000-0x8fff", name,
              RANGES_MAX);
    return false;
}

/* ---- results ---- */

static void result_side(struct run *run, const char *name, const struct viommu_iova_side *side)
{
    static const char *const kinds[] = {
        [VIOMMU_IOVA_LIMIT] = "limit",
        [VIOMMU_IOVA_MAPPING] = "mapping",
        [VIOMMU_IOVA_DOORBELL] = "doorbell",
        [VIOMMU_IOVA_MEMORY] = "memory",
    };
    char text[160];

    snprintf(text, sizeof(text), "%s:%s:0x%" PRIx64 "-0x%" PRIx64,
             side->kind == VIOMMU_IOVA_RESERVATION ? viommu_iova_type_name(side->type)
                                                   : kinds[side->kind],
             side->owner, side->range.first, side->range.last);
    result_word(&run->result, name, text);
}

static void result_conflict(struct run *run, int error, const struct viommu_iova_conflict *conflict)
{
    result_errno(&run->result, error);
    if (error && *conflict->holder.owner) {
        result_side(run, "asked", &conflict->asked);
        result_side(run, "holder", &conflict->holder);
    }
}

/* ---- operations ---- */

static void do_space(struct run *run)
{
    struct viommu_iova_config config = {.identity = arg_flag(run, "identity")};
    struct viommu_iova *space;
    int error;

    if (!arg_number(run, "granule", &config.granule)) {
        return;
    }
    error = viommu_iova_create(&config, &space);
    result_errno(&run->result, error);
    if (!error) {
        iova_destroy(run);
        run->iova = run_alloc(sizeof(*run->iova));
        run->iova->space = space;
    }
}

static void do_owner(struct run *run)
{
    struct viommu_iova_owner *owner;
    const char *name;
    int error;

    if (!arg_new(run, &name)) {
        return;
    }
    error = viommu_iova_owner_create(run->iova->space, name, &owner);
    result_errno(&run->result, error);
    if (!error) {
        add_thing(run, name, "")->of = owner;
    }
}

static void do_limit(struct run *run)
{
    struct viommu_iova_conflict conflict = {0};
    struct viommu_range ranges[RANGES_MAX];
    struct thing *owner = arg_owner(run);
    size_t count;

    if (owner && arg_ranges(run, "ranges", ranges, &count)) {
        result_conflict(run, viommu_iova_limit(owner->of, ranges, count, &conflict), &conflict);
    }
}

static bool arg_type(struct run *run, enum viommu_iova_type *out)
{
    const char *words[VIOMMU_IOVA_TYPES + 1] = {NULL};
    unsigned type = 0;

    for (unsigned i = 0; i < VIOMMU_IOVA_TYPES; i++) {
        words[i] = viommu_iova_type_name((enum viommu_iova_type)i);
    }
    if (!arg_choice(run, "type", words, &type)) {
        return false;
    }
    *out = (enum viommu_iova_type)type;
    return true;
}

/* Several ranges are several reservations in one call; the name is then of the first. */
static void do_reserve(struct run *run)
{
    struct viommu_iova_request requests[REQUESTS_MAX] = {0};
    struct viommu_iova_reservation *reservations[REQUESTS_MAX];
    struct viommu_iova_conflict conflict = {0};
    struct viommu_range ranges[RANGES_MAX];
    enum viommu_iova_type type;
    const char *name;
    struct thing *owner;
    size_t count;
    int error;

    if (!arg_new(run, &name) || !(owner = arg_owner(run)) || !arg_type(run, &type) ||
        !arg_ranges(run, "ranges", ranges, &count)) {
        return;
    }
    if (count > REQUESTS_MAX) {
        run_error(run, NULL, "at most %d reservations in one call", REQUESTS_MAX);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        requests[i].type = type;
        requests[i].range = ranges[i];
        requests[i].movable = arg_flag(run, "movable");
        if (!arg_range(run, "within", &requests[i].bounds) ||
            !arg_number(run, "align", &requests[i].align)) {
            return;
        }
    }
    error = viommu_iova_reserve(owner->of, requests, count, reservations, &conflict);
    result_conflict(run, error, &conflict);
    for (size_t i = 0; i < count && !error; i++) {
        char each[LINE_NAME_MAX + 8];

        snprintf(each, sizeof(each), i ? "%.31s%zu" : "%.31s", name, i + 1);
        add_thing(run, each, owner->name)->reservation = reservations[i];
    }
}

static void do_release(struct run *run)
{
    struct thing *thing = arg_reservation(run);

    if (thing) {
        viommu_iova_release(thing->reservation);
        forget(run, thing);
    }
}

static void do_where(struct run *run)
{
    struct thing *thing = arg_reservation(run);

    if (thing) {
        struct viommu_range range = viommu_iova_reservation_range(thing->reservation);

        result_hex(&run->result, "first", range.first);
        result_hex(&run->result, "last", range.last);
    }
}

static void do_memory(struct run *run)
{
    struct viommu_iova_conflict conflict = {0};
    struct viommu_iova_memory *memory;
    struct viommu_range range;
    const char *name;
    struct thing *owner;
    int error;

    if (!arg_new(run, &name) || !(owner = arg_owner(run)) || !arg_range(run, "range", &range)) {
        return;
    }
    error = viommu_iova_memory_add(owner->of, &range, arg_flag(run, "declared"), &memory,
                                   &conflict);
    result_conflict(run, error, &conflict);
    if (!error) {
        add_thing(run, name, owner->name)->memory = memory;
    }
}

static void do_follow(struct run *run)
{
    struct viommu_iova_conflict conflict = {0};
    struct viommu_iova_follower *follower;
    struct thing *owner;
    const char *name;
    int error;

    if (!arg_new(run, &name) || !(owner = arg_owner(run))) {
        return;
    }
    error = viommu_iova_follow(owner->of, run->memory, &follower, &conflict);
    result_conflict(run, error, &conflict);
    if (!error) {
        add_thing(run, name, owner->name)->follower = follower;
    }
}

void iova_result_refused(struct run *run)
{
    const struct thing *thing = run->iova ? run->iova->things : NULL;
    struct viommu_iova_conflict conflict;

    while (thing && viommu_iova_follower_refused(thing->follower, &conflict)) {
        thing = thing->next;
    }
    if (thing) {
        result_side(run, "asked", &conflict.asked);
        result_side(run, "holder", &conflict.holder);
    }
}

static void do_fits(struct run *run)
{
    struct viommu_iova_conflict conflict = {0};
    struct viommu_range range;

    if (space_is_there(run) && arg_range(run, "range", &range)) {
        result_conflict(run, viommu_iova_memory_fits(run->iova->space, &range, "guest", &conflict),
                        &conflict);
    }
}

static void do_remove(struct run *run)
{
    struct thing *thing = arg_thing(run, "name");

    if (!thing) {
        return;
    }
    if (thing->reservation) {
        run_error(run, thing->name, "this is a reservation: release it");
        return;
    }
    if (thing->of) {
        viommu_iova_owner_destroy(thing->of);
    }
    viommu_iova_unfollow(thing->follower);
    viommu_iova_memory_remove(thing->memory);
    forget(run, thing);
}

static void do_map(struct run *run)
{
    struct viommu_iova_conflict conflict = {0};
    struct thing *owner = arg_owner(run);
    struct viommu_range range;

    if (owner && arg_range(run, "range", &range)) {
        result_conflict(run, viommu_iova_map(owner->of, &range, &conflict), &conflict);
    }
}

static void do_unmap(struct run *run)
{
    struct thing *owner = arg_owner(run);
    struct viommu_range range;

    if (owner && arg_range(run, "range", &range)) {
        result_errno(&run->result, viommu_iova_unmap(owner->of, &range));
    }
}

static void do_alloc(struct run *run)
{
    struct viommu_range within = {0, UINT64_MAX};
    struct thing *owner = arg_owner(run);
    uint64_t size = 0;
    uint64_t align = 0;
    uint64_t at;
    int error;

    if (!owner || !arg_number(run, "size", &size) || !arg_number(run, "align", &align) ||
        !arg_range(run, "within", &within)) {
        return;
    }
    error = viommu_iova_alloc(owner->of, size, align, &within, &at);
    result_errno(&run->result, error);
    if (!error) {
        result_hex(&run->result, "iova", at);
    }
}

static void do_doorbell(struct run *run)
{
    struct thing *window = arg_reservation(run);
    uint64_t address = 0;
    uint64_t iova;
    bool fresh;
    int error;

    if (!window || !arg_number(run, "address", &address)) {
        return;
    }
    error = viommu_iova_doorbell_map(window->reservation, address, &iova, &fresh);
    result_errno(&run->result, error);
    if (!error) {
        result_hex(&run->result, "iova", iova);
        result_word(&run->result, "new", fresh ? "yes" : "no");
    }
}

static void do_doorbell_end(struct run *run)
{
    struct thing *window = arg_reservation(run);
    uint64_t address = 0;
    bool last;
    int error;

    if (!window || !arg_number(run, "address", &address)) {
        return;
    }
    error = viommu_iova_doorbell_unmap(window->reservation, address, &last);
    result_errno(&run->result, error);
    if (!error) {
        result_word(&run->result, "last", last ? "yes" : "no");
    }
}

/* ---- lists ---- */

static void print_usable(struct run *run, FILE *out)
{
    struct viommu_range *ranges;
    uint64_t generation;
    size_t count = 0;

    (void)viommu_iova_usable(run->iova->space, NULL, &count, NULL);
    ranges = run_alloc(count * sizeof(*ranges));
    result_errno(&run->result,
                 viommu_iova_usable(run->iova->space, ranges, &count, &generation));
    for (size_t i = 0; i < count; i++) {
        fprintf(out, "%s0x%" PRIx64 "-0x%" PRIx64, i ? "," : "", ranges[i].first, ranges[i].last);
    }
    free(ranges);
    result_decimal(&run->result, "count", count);
    result_decimal(&run->result, "generation", generation);
}

static void print_reserved(struct run *run, FILE *out)
{
    struct viommu_iova_reserved *entries;
    uint64_t generation;
    size_t count = 0;

    (void)viommu_iova_reserved(run->iova->space, NULL, &count, NULL);
    entries = run_alloc(count * sizeof(*entries));
    result_errno(&run->result,
                 viommu_iova_reserved(run->iova->space, entries, &count, &generation));
    for (size_t i = 0; i < count; i++) {
        const struct viommu_iova_reserved *entry = &entries[i];

        fprintf(out, "%s%s:%s:0x%" PRIx64 "-0x%" PRIx64 "%s", i ? "," : "",
                viommu_iova_type_name(entry->type), entry->owner, entry->range.first,
                entry->range.last, entry->movable ? ":movable" : "");
    }
    free(entries);
    result_decimal(&run->result, "count", count);
    result_decimal(&run->result, "generation", generation);
}

static void list(struct run *run, void (*print)(struct run *run, FILE *out))
{
    char *text = NULL;
    size_t size = 0;
    FILE *out;

    if (!space_is_there(run)) {
        return;
    }
    out = open_memstream(&text, &size);
    if (!out) {
        run_error(run, NULL, "out of memory");
        return;
    }
    print(run, out);
    fclose(out);
    result_word(&run->result, "list", *text ? text : "none");
    free(text);
}

static void do_usable(struct run *run)
{
    list(run, print_usable);
}

static void do_reserved(struct run *run)
{
    list(run, print_reserved);
}

const struct command iova_commands[] = {
    {"iova space", "[identity!] [granule=]", "Makes a space, in the place of the last one.",
     do_space},
    {"iova owner", "name", "Adds an owner.", do_owner},
    {"iova limit", "owner ranges", "Says which addresses the owner can use.", do_limit},
    {"iova reserve", "name owner type ranges [movable!] [within=] [align=]",
     "Reserves ranges: direct, direct-relaxable, reserved, msi, sw-msi, p2p.", do_reserve},
    {"iova release", "name", "Gives a reservation back.", do_release},
    {"iova where", "name", "Where a reservation is.", do_where},
    {"iova memory", "name owner range [declared!]", "Adds guest memory, or declares it.",
     do_memory},
    {"iova follow", "name owner", "Makes the owner's memory what guest memory is.", do_follow},
    {"iova fits", "range", "Whether guest memory could be there.", do_fits},
    {"iova remove", "name",
     "Removes memory, or an owner with all that it has; ends what follows.", do_remove},
    {"iova map", "owner range", "Notes a mapping.", do_map},
    {"iova unmap", "owner range", "Notes that a mapping is gone.", do_unmap},
    {"iova alloc", "owner size [align=] [within=]", "Finds a free place, and maps it.", do_alloc},
    {"iova doorbell", "name address", "The device address of a doorbell, in a window.",
     do_doorbell},
    {"iova doorbell-end", "name address", "Ends a use of it.", do_doorbell_end},
    {"iova usable", "", "Lists what may be used.", do_usable},
    {"iova reserved", "", "Lists what is reserved.", do_reserved},
    {0},
};
