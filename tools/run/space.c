/* SPDX-License-Identifier: BSD-2-Clause */
/* Regions and spaces of one bus; see space.h. */
#include "space.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    HOST_MAX = 256 << 20, /* bytes of RAM and ROM */
    PAGES_MAX = 1 << 16,  /* of an array IOMMU */
    READ_MAX = 16 << 20,
};

struct space_room *space_room(struct run *run)
{
    struct space_room *room = run->space;

    if (!room) {
        room = run_alloc(sizeof(*room));
        if (viommu_bus_create(&room->bus)) {
            run_error(run, NULL, "there is no memory for a bus");
            free(room);
            return NULL;
        }
        run->space = room;
    }
    return room;
}

static void free_thing(struct bus_thing *thing)
{
    free(thing->name);
    free(thing->host);
    free(thing->to[0]);
    free(thing->to[1]);
    free(thing);
}

void spaces_destroy(struct run *run)
{
    struct space_room *room = run->space;

    if (!room) {
        return;
    }
    for (struct bus_thing *thing = room->things; thing; thing = thing->next) {
        while (thing->cpu && thing->begun) {
            thing->begun--;
            viommu_cpu_end(thing->cpu);
        }
        viommu_tzmpc_destroy(thing->mpc);
    }
    viommu_bus_destroy(room->bus);
    while (room->things) {
        struct bus_thing *thing = room->things;

        room->things = thing->next;
        free_thing(thing);
    }
    free(room);
    run->space = NULL;
}

static struct bus_thing *find_thing(const struct run *run, const char *name)
{
    struct bus_thing *thing = run->space ? run->space->things : NULL;

    while (thing && (!thing->name || strcmp(thing->name, name))) {
        thing = thing->next;
    }
    return thing;
}

struct bus_thing *bus_thing_add(struct run *run, const char *suffix)
{
    const char *base = line_argument(&run->line, "name")->value;
    struct space_room *room = space_room(run);
    struct bus_thing *thing;
    char name[128];

    snprintf(name, sizeof(name), "%s%s", base, suffix);
    if (!room) {
        return NULL;
    }
    if (find_thing(run, name)) {
        run_error(run, name, "the name is taken");
        return NULL;
    }
    thing = run_alloc(sizeof(*thing));
    thing->name = run_copy_text(name);
    thing->room = room;
    thing->next = room->things;
    room->things = thing;
    return thing;
}

/* It is nothing any more. Its memory stays: a region that goes may still be looked at. */
void bus_thing_forget(struct bus_thing *thing)
{
    free(thing->name);
    thing->name = NULL;
    thing->region = NULL;
    thing->space = NULL;
    thing->cpu = NULL;
    thing->mpc = NULL;
    thing->device = NULL;
}

struct bus_thing *arg_bus_thing(struct run *run, const char *argument)
{
    const char *name = line_argument(&run->line, argument)->value;
    struct bus_thing *thing = find_thing(run, name);

    if (!thing) {
        run_error(run, name, "nothing on the bus has this name");
    }
    return thing;
}

struct bus_thing *arg_bus_region(struct run *run, const char *argument)
{
    struct bus_thing *thing = arg_bus_thing(run, argument);

    if (thing && !thing->region) {
        run_error(run, thing->name, "this is no region");
        return NULL;
    }
    return thing;
}

struct bus_thing *arg_bus_space(struct run *run, const char *argument)
{
    struct bus_thing *thing = arg_bus_thing(run, argument);

    if (thing && !thing->space) {
        run_error(run, thing->name, "this is no space");
        return NULL;
    }
    return thing;
}

bool arg_bus(struct run *run, struct viommu_space **out)
{
    struct bus_thing *thing = arg_given(run, "bus") ? arg_bus_space(run, "bus") : NULL;

    *out = thing ? thing->space : NULL;
    return thing || !arg_given(run, "bus");
}

bool arg_bus_attributes(struct run *run, struct viommu_bus_attrs *attrs)
{
    *attrs = (struct viommu_bus_attrs){
        .secure = arg_flag(run, "secure"),
        .privileged = arg_flag(run, "privileged"),
        .unspecified = arg_flag(run, "unspecified"),
    };
    return arg_requester(run, "requester", &attrs->requester);
}

void bus_result_perm(struct run *run, uint32_t perm)
{
    static const char *const words[] = {"none", "r", "w", "rw", "x", "rx", "wx", "rwx"};

    result_word(&run->result, "perm", words[perm & 7]);
}

/* ---- what answers ---- */

static int on_read(void *opaque, uint64_t offset, unsigned size,
                   const struct viommu_bus_attrs *attrs, uint64_t *value)
{
    struct bus_thing *thing = opaque;

    (void)offset;
    (void)size;
    (void)attrs;
    thing->calls++;
    *value = thing->value;
    return thing->error;
}

static int on_write(void *opaque, uint64_t offset, unsigned size,
                    const struct viommu_bus_attrs *attrs, uint64_t value)
{
    struct bus_thing *thing = opaque;

    (void)offset;
    thing->calls++;
    thing->value = value;
    if (thing->aim) {
        thing->aim_error =
            viommu_space_write(thing->aim->space, thing->aim_at, &value, size, attrs);
    }
    return thing->error;
}

static const struct viommu_region_ops register_ops = {.read = on_read, .write = on_write};

static unsigned on_index(void *opaque, const struct viommu_bus_attrs *attrs)
{
    (void)opaque;
    return !attrs->secure && !attrs->unspecified;
}

static void on_translate(void *opaque, uint64_t address, unsigned index, struct viommu_hop *hop)
{
    const struct bus_thing *thing = opaque;
    uint64_t to = thing->to[index][address / thing->page];

    hop->space = thing->into->space;
    hop->address = (to & ~UINT64_C(3)) + address % thing->page;
    hop->page = thing->page;
    hop->perm = to & 3;
}

static int on_refused(void *opaque, uint64_t address, uint32_t perm, unsigned index,
                      const struct viommu_bus_attrs *attrs)
{
    struct bus_thing *thing = opaque;

    (void)perm;
    (void)index;
    (void)attrs;
    thing->refusals++;
    thing->refused_at = address;
    return -EACCES;
}

static const struct viommu_region_iommu_ops iommu_ops = {
    .index_count = 2,
    .index_of = on_index,
    .translate = on_translate,
    .refused = on_refused,
};

/* ---- regions ---- */

static bool make_memory(struct run *run, struct bus_thing *thing,
                        struct viommu_region_config *config)
{
    uint64_t size = config->last + 1;

    if (!size || size > HOST_MAX - thing->room->host_bytes) {
        run_error(run, thing->name, "memory of more than 256m in all");
        return false;
    }
    thing->room->host_bytes += size;
    thing->host = run_alloc(size);
    config->host = thing->host;
    return true;
}

static bool make_alias(struct run *run, struct viommu_region_config *config)
{
    struct bus_thing *target;

    if (!arg_given(run, "of")) {
        run_error(run, NULL, "of= is missing: an alias is one of a region");
        return false;
    }
    target = arg_bus_region(run, "of");
    config->target = target ? target->region : NULL;
    return target && arg_number(run, "offset", &config->offset);
}

static bool make_iommu(struct run *run, struct bus_thing *thing,
                       struct viommu_region_config *config)
{
    thing->page = 4096;
    if (!arg_given(run, "into")) {
        run_error(run, NULL, "into= is missing: an IOMMU leads into a space");
        return false;
    }
    thing->into = arg_bus_space(run, "into");
    if (!thing->into || !arg_number(run, "page", &thing->page)) {
        return false;
    }
    if (thing->page < 4 || thing->page & (thing->page - 1) ||
        config->last / thing->page >= PAGES_MAX) {
        run_error(run, NULL, "page= is a power of two, and there are at most 65,536 of them");
        return false;
    }
    thing->pages = config->last / thing->page + 1;
    config->iommu = &iommu_ops;
    for (unsigned i = 0; i < 2; i++) {
        thing->to[i] = run_alloc(thing->pages * sizeof(uint64_t));
    }
    return true;
}

static bool make_config(struct run *run, struct bus_thing *thing,
                        struct viommu_region_config *config)
{
    switch (config->kind) {
    case VIOMMU_REGION_RAM:
    case VIOMMU_REGION_ROM:
        return make_memory(run, thing, config);
    case VIOMMU_REGION_MMIO:
        config->ops = &register_ops;
        return true;
    case VIOMMU_REGION_ALIAS:
        return make_alias(run, config);
    case VIOMMU_REGION_IOMMU:
        return make_iommu(run, thing, config);
    default:
        return true;
    }
}

static void do_region(struct run *run)
{
    static const char *const kinds[] = {"container", "ram", "rom", "mmio", "alias", "iommu", NULL};
    struct viommu_region_config config = {.last = UINT64_MAX};
    struct bus_thing *thing;
    uint64_t size = 0;
    unsigned kind = 0;
    int error;

    if (!arg_choice(run, "kind", kinds, &kind) || !arg_number(run, "size", &size)) {
        return;
    }
    thing = bus_thing_add(run, "");
    if (!thing) {
        return;
    }
    config.name = thing->name;
    config.kind = (enum viommu_region_kind)kind;
    config.last = size - 1; /* 0 is all */
    config.opaque = thing;
    if (!make_config(run, thing, &config)) {
        return;
    }
    error = viommu_region_create(thing->room->bus, &config, &thing->region);
    result_errno(&run->result, error);
    if (error) {
        bus_thing_forget(thing);
    }
}

static void do_add(struct run *run)
{
    struct bus_thing *container = arg_bus_region(run, "container");
    struct bus_thing *thing = container ? arg_bus_region(run, "name") : NULL;
    uint64_t priority = 0;
    uint64_t at = 0;

    if (thing && arg_number(run, "at", &at) && arg_number(run, "priority", &priority)) {
        result_errno(&run->result, viommu_region_add(container->region, thing->region, at,
                                                     (int32_t)priority));
    }
}

static void do_remove(struct run *run)
{
    struct bus_thing *thing = arg_bus_region(run, "name");

    if (thing) {
        result_errno(&run->result, viommu_region_remove(thing->region));
    }
}

static void do_enable(struct run *run)
{
    struct bus_thing *thing = arg_bus_region(run, "name");
    bool on = true;

    if (thing && arg_switch(run, "on", &on)) {
        viommu_region_enable(thing->region, on);
    }
}

static void do_destroy(struct run *run)
{
    struct bus_thing *thing = arg_bus_region(run, "name");

    if (thing && (thing->mpc || thing->part)) {
        run_error(run, thing->name, "this is of an MPC: `mpc destroy` takes it away");
    } else if (thing && thing->device) {
        bus_device_destroy(thing);
    } else if (thing) {
        viommu_region_destroy(thing->region);
        bus_thing_forget(thing);
    }
}

static void do_answer(struct run *run)
{
    struct bus_thing *thing = arg_bus_region(run, "name");
    const char *status = "ok";

    if (!thing || !arg_number(run, "value", &thing->value) || !arg_text(run, "status", &status) ||
        !arg_number(run, "at", &thing->aim_at)) {
        return;
    }
    thing->error = errno_of_word(status);
    thing->aim = arg_given(run, "aim") ? arg_bus_space(run, "aim") : NULL;
}

static void do_calls(struct run *run)
{
    struct bus_thing *thing = arg_bus_region(run, "name");

    if (!thing) {
        return;
    }
    if (thing->pages) {
        result_decimal(&run->result, "refusals", thing->refusals);
        result_hex(&run->result, "last", thing->refused_at);
    } else {
        result_decimal(&run->result, "calls", thing->calls);
        result_hex(&run->result, "value", thing->value);
        result_word(&run->result, "aim", errno_word(thing->aim_error));
    }
    thing->refusals = 0;
    thing->calls = 0;
}

/* Whole pages of an array IOMMU, of one index or both. */
static void do_region_map(struct run *run)
{
    static const char *const which[] = {"secure", "normal", "both", NULL};
    struct bus_thing *thing = arg_bus_region(run, "name");
    uint32_t perm = VIOMMU_READ | VIOMMU_WRITE;
    unsigned index = 2;
    uint64_t at = 0;
    uint64_t to = 0;
    uint64_t size;

    if (!thing || !thing->pages) {
        if (thing) {
            run_error(run, thing->name, "this is no IOMMU");
        }
        return;
    }
    size = thing->page;
    if (!arg_number(run, "at", &at) || !arg_number(run, "to", &to) ||
        !arg_number(run, "size", &size) || !arg_perm(run, "perm", &perm) ||
        !arg_choice(run, "index", which, &index)) {
        return;
    }
    if (at % thing->page || size % thing->page || !size || to % 4 ||
        at / thing->page >= thing->pages || size / thing->page > thing->pages - at / thing->page) {
        run_error(run, NULL, "these are no pages of it");
        return;
    }
    for (uint64_t i = 0; i < size / thing->page; i++) {
        for (unsigned j = 0; j < 2; j++) {
            if (index == j || index == 2) {
                thing->to[j][at / thing->page + i] = (to + i * thing->page) | perm;
            }
        }
    }
    viommu_region_iommu_changed(thing->region, index == 2 ? VIOMMU_INDEX_ALL : index, at,
                                at + size - 1);
}

/* ---- spaces ---- */

static void do_space(struct run *run)
{
    struct bus_thing *root = arg_bus_region(run, "root");
    struct bus_thing *thing = root ? bus_thing_add(run, "") : NULL;
    int error;

    if (thing) {
        error = viommu_space_create(root->region, &thing->space);
        result_errno(&run->result, error);
        if (error) {
            bus_thing_forget(thing);
        }
    }
}

static void do_commit(struct run *run)
{
    struct space_room *room = space_room(run);

    if (room) {
        result_errno(&run->result, viommu_bus_commit(room->bus));
    }
}

static void do_wait(struct run *run)
{
    struct space_room *room = space_room(run);

    if (room) {
        if (!arg_flag(run, "again")) {
            viommu_bus_wait_begin(room->bus, &room->ticket);
        }
        result_errno(&run->result, viommu_bus_wait_end(room->bus, &room->ticket));
    }
}

static void do_show(struct run *run)
{
    struct bus_thing *thing = arg_bus_space(run, "name");
    struct viommu_route *routes;
    size_t count = 0;
    char *text = NULL;
    size_t size = 0;
    FILE *out;

    if (!thing) {
        return;
    }
    (void)viommu_space_ranges(thing->space, NULL, &count);
    routes = run_alloc(count * sizeof(*routes));
    result_errno(&run->result, viommu_space_ranges(thing->space, routes, &count));
    out = open_memstream(&text, &size);
    if (!out) {
        run_error(run, NULL, "out of memory");
        free(routes);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        fprintf(out, "%s%s:0x%" PRIx64 "-0x%" PRIx64 "+0x%" PRIx64, i ? "," : "",
                viommu_region_name(routes[i].region), routes[i].first, routes[i].last,
                routes[i].offset);
    }
    fclose(out);
    result_decimal(&run->result, "count", count);
    result_word(&run->result, "list", *text ? text : "none");
    free(text);
    free(routes);
}

static void do_resolve(struct run *run)
{
    struct bus_thing *thing = arg_bus_space(run, "name");
    struct viommu_bus_attrs attrs;
    struct viommu_route route;
    uint64_t at = 0;
    int error;

    if (!thing || !arg_number(run, "at", &at) || !arg_bus_attributes(run, &attrs)) {
        return;
    }
    error = viommu_space_resolve(thing->space, at, &attrs, &route);
    result_errno(&run->result, error);
    if (error) {
        return;
    }
    result_word(&run->result, "region", route.region ? viommu_region_name(route.region) : "none");
    result_hex(&run->result, "offset", route.offset);
    result_hex(&run->result, "first", route.first);
    result_hex(&run->result, "last", route.last);
    bus_result_perm(run, route.perm);
    result_decimal(&run->result, "hops", route.hops);
}

static void do_read(struct run *run)
{
    struct bus_thing *thing = arg_bus_space(run, "name");
    struct viommu_bus_attrs attrs;
    uint64_t length = 0;
    uint64_t at = 0;
    uint8_t *bytes;
    int error;

    if (!thing || !arg_number(run, "at", &at) ||
        !arg_number_max(run, "len", READ_MAX, &length) || !arg_bus_attributes(run, &attrs)) {
        return;
    }
    bytes = run_alloc(length);
    error = viommu_space_read(thing->space, at, bytes, length, &attrs);
    result_errno(&run->result, error);
    if (!error) {
        memory_result_bytes(run, bytes, length);
    }
    free(bytes);
}

static void do_write(struct run *run)
{
    struct bus_thing *thing = arg_bus_space(run, "name");
    struct viommu_bus_attrs attrs;
    uint64_t at = 0;
    uint8_t *bytes;
    size_t size;

    if (!thing || !arg_number(run, "at", &at) || !arg_bus_attributes(run, &attrs) ||
        !arg_data(run, &bytes, &size)) {
        return;
    }
    result_errno(&run->result, viommu_space_write(thing->space, at, bytes, size, &attrs));
    free(bytes);
}

const struct command space_commands[] = {
    {"region", "name kind [size] [of=] [offset=] [into=] [page=]",
     "Makes a region: container, ram, rom, mmio, alias (of=), iommu (into= a space).", do_region},
    {"region add", "container name at [priority=]", "Puts a region into a container.", do_add},
    {"region remove", "name", "Takes a region out of its container.", do_remove},
    {"region enable", "name on", "Whether a region shows anything.", do_enable},
    {"region destroy", "name", "Gives a region back.", do_destroy},
    {"region answer", "name [value=] [status=] [aim=] [at=]",
     "What registers answer; aim= and at=: a space, and where a write is passed on to.", do_answer},
    {"region calls", "name", "Accesses of registers, or refusals of an IOMMU, since the last time.",
     do_calls},
    {"region map", "name at to [size=] [perm=] [index=]",
     "Where pages of an IOMMU lead: for secure, normal, or both.", do_region_map},
    {"space", "name root", "Makes a space that shows a region.", do_space},
    {"space commit", "", "Shows all changes.", do_commit},
    {"space wait", "[again!]", "Whether nobody uses what was taken away; again: of the last time.",
     do_wait},
    {"space show", "name", "Lists the ranges of a space.", do_show},
    {"space resolve", "name at " BUS_ATTRIBUTES, "Where an address leads.", do_resolve},
    {"space read", "name at len " BUS_ATTRIBUTES, "Reads.", do_read},
    {"space write", "name at " DATA_ARGUMENTS " " BUS_ATTRIBUTES, "Writes.", do_write},
    {0},
};
