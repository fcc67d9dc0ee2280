/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * viommu iova: which device addresses a set of host devices can use, what is reserved, and which
 * layouts of a guest's memory fit where the guest sees no IOMMU.
 *
 * The command line is gathered into a struct request; an identity space is made of what sysfs, the
 * kernel's drivers and the command line say; then it is printed, and asked about each layout.
 */
#include "../parse.h"
#include "../tools.h"
#include "kernel.h"
#include "sysfs.h"

#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEVICES_MAX = 64,
    MANUAL_MAX = 64,
    LAYOUTS_MAX = 16,
    PARTS_MAX = 8,
    ANSWERS_MAX = 1 + 2 * DEVICES_MAX,
};

#define GIB (UINT64_C(1) << 30)
#define VGA UINT64_C(0xa0000)
#define VGA_END UINT64_C(0xc0000)

struct layout {
    const char *name;
    struct viommu_range parts[PARTS_MAX];
    size_t count;
};

struct request {
    struct kernel_paths paths;
    bool vfio;
    bool iommufd;
    const char *iomem; /* or NULL */
    const char *devices[DEVICES_MAX];
    size_t device_count;
    struct viommu_iova_request reserved[MANUAL_MAX];
    size_t reserved_count;
    struct viommu_range limits[MANUAL_MAX];
    size_t limit_count;
    struct layout layouts[LAYOUTS_MAX];
    size_t layout_count;
    bool json;
};

enum option_key {
    OPTION_DEVICE = 'd',
    OPTION_MEMORY = 'm',
    OPTION_LAYOUT = 'l',
    OPTION_RESERVE = 'r',
    OPTION_JSON = 'j',
    OPTION_LIMIT = 0x100,
    OPTION_SYSFS,
    OPTION_IOMEM,
    OPTION_VFIO,
    OPTION_IOMMUFD,
    OPTION_DEV,
};

static const struct argp_option options[] = {
    {"device", OPTION_DEVICE, "SEGMENT:BUS:DEV.FN", 0,
     "a device of the host, as 0000:01:00.0. May be given many times", 0},
    {"vfio", OPTION_VFIO, NULL, 0,
     "ask VFIO what it can map for the devices' groups. The devices are bound to VFIO's driver, "
     "and not in use", 0},
    {"iommufd", OPTION_IOMMUFD, NULL, 0,
     "ask iommufd what it can map for the devices, which are as for --vfio", 0},
    {"reserve", OPTION_RESERVE, "TYPE:FIRST-LAST", 0,
     "reserve more: direct, direct-relaxable, reserved, msi, sw-msi or p2p", 0},
    {"limit", OPTION_LIMIT, "FIRST-LAST", 0,
     "only these addresses can be used (several: any of them)", 0},
    {"host-bridges", OPTION_IOMEM, "FILE", 0,
     "reserve the windows of host bridges, as /proc/iomem (to be read by root) has them", 0},
    {"memory", OPTION_MEMORY, "SIZE", 0,
     "try the layouts that are common for a guest with so much memory: pc (2 GiB below 4 GiB, the "
     "rest from 4 GiB), pc-high (the rest from 1 TiB), virt (from 1 GiB)", 1},
    {"layout", OPTION_LAYOUT, "FIRST-LAST[,FIRST-LAST...]", 0, "try this layout", 1},
    {"json", OPTION_JSON, NULL, 0, "print one JSON object", 2},
    {"sysfs", OPTION_SYSFS, "DIR", 0, "where sysfs is (/sys)", 2},
    {"dev", OPTION_DEV, "DIR", 0, "where device files are (/dev)", 2},
    {0},
};

/* FIRST-LAST at the start of *text. */
static bool parse_range_part(const char **text, struct viommu_range *range)
{
    return parse_number_part(text, &range->first) && *(*text)++ == '-' &&
           parse_number_part(text, &range->last) && range->first <= range->last;
}

static void reserve_option(struct argp_state *state, struct request *request, const char *text)
{
    struct viommu_iova_request *reserved = &request->reserved[request->reserved_count];
    const char *colon = strchr(text, ':');
    const char *at = colon ? colon + 1 : text;

    if (request->reserved_count++ == MANUAL_MAX) {
        argp_error(state, "--reserve: more than %d", MANUAL_MAX);
    }
    for (unsigned i = 0; colon && i < VIOMMU_IOVA_TYPES; i++) {
        const char *name = viommu_iova_type_name((enum viommu_iova_type)i);

        if (strlen(name) == (size_t)(colon - text) && !strncmp(name, text, strlen(name))) {
            reserved->type = (enum viommu_iova_type)i;
            if (parse_range_part(&at, &reserved->range) && !*at) {
                return;
            }
        }
    }
    argp_error(state, "--reserve: '%s' is not TYPE:FIRST-LAST, as p2p:0xc0000000-0xcfffffff", text);
}

static void limit_option(struct argp_state *state, struct request *request, const char *text)
{
    const char *at = text;

    if (request->limit_count == MANUAL_MAX) {
        argp_error(state, "--limit: more than %d", MANUAL_MAX);
    }
    if (!parse_range_part(&at, &request->limits[request->limit_count++]) || *at) {
        argp_error(state, "--limit: '%s' is not FIRST-LAST, as 0x0-0x7fffffffff", text);
    }
}

static struct layout *new_layout(struct argp_state *state, struct request *request,
                                 const char *name)
{
    struct layout *layout = &request->layouts[request->layout_count];

    if (request->layout_count++ >= LAYOUTS_MAX) {
        argp_error(state, "more than %d layouts", LAYOUTS_MAX);
    }
    layout->name = name;
    return layout;
}

static void layout_option(struct argp_state *state, struct request *request, const char *text)
{
    struct layout *layout = new_layout(state, request, text);
    const char *at = text;

    while (layout->count < PARTS_MAX && parse_range_part(&at, &layout->parts[layout->count])) {
        layout->count++;
        if (!*at) {
            return;
        }
        if (*at++ != ',') {
            break;
        }
    }
    argp_error(state, "--layout: '%s' is not at most %d times FIRST-LAST, as 0x0-0x7fffffff", text,
               PARTS_MAX);
}

/* A layout of a PC: up to 2 GiB at 0, but for where the VGA memory is, the rest from `high` on. */
static void add_pc(struct argp_state *state, struct request *request, const char *name,
                   uint64_t size, uint64_t high)
{
    struct layout *layout = new_layout(state, request, name);
    uint64_t low = size < 2 * GIB ? size : 2 * GIB;

    layout->parts[layout->count++] = (struct viommu_range){0, (low < VGA ? low : VGA) - 1};
    if (low > VGA_END) {
        layout->parts[layout->count++] = (struct viommu_range){VGA_END, low - 1};
    }
    if (size > low) {
        layout->parts[layout->count++] = (struct viommu_range){high, high + (size - low) - 1};
    }
}

static void memory_option(struct argp_state *state, struct request *request, const char *text)
{
    uint64_t size = 0;

    if (!parse_number(text, &size) || !size || size > GIB << 24) {
        argp_error(state, "--memory: '%s' is no size up to 16 PiB, as 16g", text);
    }
    add_pc(state, request, "pc", size, 4 * GIB);
    add_pc(state, request, "pc-high", size, GIB << 10);
    new_layout(state, request, "virt");
    request->layouts[request->layout_count - 1].parts[0] =
        (struct viommu_range){GIB, GIB + size - 1};
    request->layouts[request->layout_count - 1].count = 1;
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    struct request *request = state->input;

    switch (key) {
    case OPTION_DEVICE:
        if (request->device_count == DEVICES_MAX) {
            argp_error(state, "--device: more than %d", DEVICES_MAX);
        }
        request->devices[request->device_count++] = text;
        return 0;
    case OPTION_RESERVE:
        reserve_option(state, request, text);
        return 0;
    case OPTION_LIMIT:
        limit_option(state, request, text);
        return 0;
    case OPTION_MEMORY:
        memory_option(state, request, text);
        return 0;
    case OPTION_LAYOUT:
        layout_option(state, request, text);
        return 0;
    case OPTION_JSON:
        request->json = true;
        return 0;
    case OPTION_IOMEM:
        request->iomem = text;
        return 0;
    case OPTION_VFIO:
        request->vfio = true;
        return 0;
    case OPTION_IOMMUFD:
        request->iommufd = true;
        return 0;
    case OPTION_SYSFS:
        request->paths.sysfs = text;
        return 0;
    case OPTION_DEV:
        request->paths.dev = text;
        return 0;
    case ARGP_KEY_END:
        if (!request->device_count && !request->reserved_count && !request->limit_count &&
            !request->iomem) {
            argp_error(state, "of what? give --device, --host-bridges, --reserve or --limit");
        }
        if ((request->vfio || request->iommufd) && !request->device_count) {
            argp_error(state, "--vfio and --iommufd ask about devices: give --device");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- the space ---- */

/* What was said of all that can be used: limits. */
struct answers {
    struct kernel_answer all[ANSWERS_MAX];
    size_t count;
};

static bool fail(const char *who, int error)
{
    fprintf(stderr, "viommu iova: %s: %s\n", who, strerror(-error));
    return false;
}

/* Adds what the last answer says, which is counted by that. */
static bool add_answer(struct viommu_iova *space, struct answers *answers)
{
    const struct kernel_answer *answer = &answers->all[answers->count++];
    struct viommu_iova_owner *owner;
    int error = viommu_iova_owner_create(space, answer->who, &owner);

    error = error ? error : viommu_iova_limit(owner, answer->ranges, answer->count, NULL);
    return error ? fail(answer->who, error) : true;
}

/* The limits of the command line are an answer, too. */
static bool add_limits(struct viommu_iova *space, const struct request *request,
                       struct answers *answers)
{
    struct kernel_answer *answer = &answers->all[answers->count];

    if (!request->limit_count) {
        return true;
    }
    strcpy(answer->who, "manual");
    answer->ranges = calloc(request->limit_count, sizeof(*answer->ranges));
    if (!answer->ranges) {
        return fail(answer->who, -ENOMEM);
    }
    answer->count = request->limit_count;
    memcpy(answer->ranges, request->limits, answer->count * sizeof(*answer->ranges));
    return add_answer(space, answers);
}

static bool fill(struct viommu_iova *space, const struct request *request)
{
    struct viommu_iova_reservation *reservations[MANUAL_MAX];
    struct viommu_iova_owner *manual;
    int error = viommu_iova_owner_create(space, "manual", &manual);

    if (!error) {
        error = viommu_iova_reserve(manual, request->reserved, request->reserved_count,
                                    reservations, NULL);
    }
    if (error) {
        return fail("manual", error);
    }
    for (size_t i = 0; i < request->device_count; i++) {
        if (!sysfs_add_device(space, request->paths.sysfs, request->devices[i])) {
            return false;
        }
    }
    return !request->iomem || sysfs_add_host_bridges(space, request->iomem);
}

/* Asks once for each group. */
static bool ask_vfio(struct viommu_iova *space, const struct request *request,
                     struct answers *answers)
{
    unsigned groups[DEVICES_MAX];

    for (size_t i = 0; i < request->device_count; i++) {
        bool asked = false;

        if (!kernel_find_group(&request->paths, request->devices[i], &groups[i])) {
            return false;
        }
        for (size_t j = 0; j < i; j++) {
            asked = asked || groups[j] == groups[i];
        }
        if (!asked &&
            !(kernel_ask_vfio(&request->paths, groups[i], &answers->all[answers->count]) &&
              add_answer(space, answers))) {
            return false;
        }
    }
    return true;
}

static bool ask_kernel(struct viommu_iova *space, const struct request *request,
                       struct answers *answers)
{
    if (request->vfio && !ask_vfio(space, request, answers)) {
        return false;
    }
    for (size_t i = 0; request->iommufd && i < request->device_count; i++) {
        if (!kernel_ask_iommufd(&request->paths, request->devices[i],
                                &answers->all[answers->count]) ||
            !add_answer(space, answers)) {
            return false;
        }
    }
    return true;
}

static void free_answers(struct answers *answers)
{
    for (size_t i = 0; i < answers->count; i++) {
        free(answers->all[i].ranges);
    }
}

struct lists {
    struct viommu_range *usable;
    size_t usable_count;
    struct viommu_iova_reserved *reserved;
    size_t reserved_count;
};

static bool get_lists(const struct viommu_iova *space, struct lists *lists)
{
    (void)viommu_iova_usable(space, NULL, &lists->usable_count, NULL);
    (void)viommu_iova_reserved(space, NULL, &lists->reserved_count, NULL);
    lists->usable = calloc(lists->usable_count + 1, sizeof(*lists->usable));
    lists->reserved = calloc(lists->reserved_count + 1, sizeof(*lists->reserved));
    return lists->usable && lists->reserved &&
           !viommu_iova_usable(space, lists->usable, &lists->usable_count, NULL) &&
           !viommu_iova_reserved(space, lists->reserved, &lists->reserved_count, NULL);
}

/* The first part of a layout that does not fit; false when all do. */
static bool layout_conflicts(const struct viommu_iova *space, const struct layout *layout,
                             struct viommu_iova_conflict *conflict)
{
    for (size_t i = 0; i < layout->count; i++) {
        if (viommu_iova_memory_fits(space, &layout->parts[i], "guest", conflict)) {
            return true;
        }
    }
    return false;
}

static const char *side_name(const struct viommu_iova_side *side)
{
    return side->kind == VIOMMU_IOVA_LIMIT ? "limit" : viommu_iova_type_name(side->type);
}

/* ---- as a table ---- */

static void print_lists(const struct lists *lists, const struct answers *answers)
{
    for (size_t i = 0; i < answers->count; i++) {
        const struct kernel_answer *answer = &answers->all[i];

        if (!i) {
            puts("can be mapped");
        }
        for (size_t j = 0; j < answer->count; j++) {
            printf("  0x%016" PRIx64 "  0x%016" PRIx64 "  %s\n", answer->ranges[j].first,
                   answer->ranges[j].last, answer->who);
        }
    }
    puts("reserved");
    for (size_t i = 0; i < lists->reserved_count; i++) {
        const struct viommu_iova_reserved *entry = &lists->reserved[i];

        printf("  0x%016" PRIx64 "  0x%016" PRIx64 "  %-16s  %s\n", entry->range.first,
               entry->range.last, viommu_iova_type_name(entry->type), entry->owner);
    }
    puts("usable");
    for (size_t i = 0; i < lists->usable_count; i++) {
        printf("  0x%016" PRIx64 "  0x%016" PRIx64 "\n", lists->usable[i].first,
               lists->usable[i].last);
    }
}

/* Returns how many layouts fit. */
static size_t print_layouts(const struct viommu_iova *space, const struct request *request)
{
    size_t fit = 0;

    for (size_t i = 0; i < request->layout_count; i++) {
        struct viommu_iova_conflict c;

        if (!i) {
            puts("layouts");
        }
        if (layout_conflicts(space, &request->layouts[i], &c)) {
            printf("  %s does not fit: memory 0x%" PRIx64 "-0x%" PRIx64 " meets %s 0x%" PRIx64
                   "-0x%" PRIx64 " of %s\n", request->layouts[i].name, c.asked.range.first,
                   c.asked.range.last, side_name(&c.holder), c.holder.range.first,
                   c.holder.range.last, c.holder.owner);
        } else {
            printf("  %s fits\n", request->layouts[i].name);
            fit++;
        }
    }
    return fit;
}

/* ---- as JSON: addresses are text, since many readers have no 64-bit numbers ---- */

static json_t *json_range(const struct viommu_range *range)
{
    char first[32];
    char last[32];

    snprintf(first, sizeof(first), "0x%" PRIx64, range->first);
    snprintf(last, sizeof(last), "0x%" PRIx64, range->last);
    return json_pack("{s:s, s:s}", "first", first, "last", last);
}

static json_t *json_held(const struct viommu_range *range, const char *type, const char *owner)
{
    json_t *object = json_range(range);

    json_object_set_new(object, "type", json_string(type));
    json_object_set_new(object, "owner", json_string(owner));
    return object;
}

static json_t *json_layouts(const struct viommu_iova *space, const struct request *request,
                            size_t *fit)
{
    json_t *array = json_array();

    for (size_t i = 0; i < request->layout_count; i++) {
        struct viommu_iova_conflict c;
        bool conflicts = layout_conflicts(space, &request->layouts[i], &c);
        json_t *object = json_pack("{s:s, s:b}", "name", request->layouts[i].name, "fits",
                                   (int)!conflicts);

        if (conflicts) {
            json_object_set_new(object, "memory", json_range(&c.asked.range));
            json_object_set_new(object, "meets", json_held(&c.holder.range, side_name(&c.holder),
                                                           c.holder.owner));
        }
        *fit += !conflicts;
        json_array_append_new(array, object);
    }
    return array;
}

static json_t *json_answers(const struct answers *answers)
{
    json_t *array = json_array();

    for (size_t i = 0; i < answers->count; i++) {
        json_t *ranges = json_array();

        for (size_t j = 0; j < answers->all[i].count; j++) {
            json_array_append_new(ranges, json_range(&answers->all[i].ranges[j]));
        }
        json_array_append_new(array, json_pack("{s:s, s:o}", "owner", answers->all[i].who,
                                               "ranges", ranges));
    }
    return array;
}

static size_t print_json(const struct viommu_iova *space, const struct request *request,
                         const struct lists *lists, const struct answers *answers)
{
    json_t *reserved = json_array();
    json_t *usable = json_array();
    json_t *all;
    size_t fit = 0;

    for (size_t i = 0; i < lists->reserved_count; i++) {
        const struct viommu_iova_reserved *entry = &lists->reserved[i];

        json_array_append_new(reserved, json_held(&entry->range,
                                                  viommu_iova_type_name(entry->type),
                                                  entry->owner));
    }
    for (size_t i = 0; i < lists->usable_count; i++) {
        json_array_append_new(usable, json_range(&lists->usable[i]));
    }
    all = json_pack("{s:o, s:o, s:o, s:o}", "can_be_mapped", json_answers(answers), "reserved",
                    reserved, "usable", usable, "layouts", json_layouts(space, request, &fit));
    json_dumpf(all, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(all);
    return fit;
}

static int show(const struct viommu_iova *space, const struct request *request,
                const struct answers *answers)
{
    struct lists lists = {0};
    size_t fit = 0;
    int status = TOOL_FAILED;

    if (!get_lists(space, &lists)) {
        fputs("viommu iova: out of memory\n", stderr);
    } else {
        if (request->json) {
            fit = print_json(space, request, &lists, answers);
        } else {
            print_lists(&lists, answers);
            fit = print_layouts(space, request);
        }
        status = request->layout_count && !fit ? TOOL_FAILED : TOOL_OK;
    }
    free(lists.usable);
    free(lists.reserved);
    return status;
}

int viommu_tool_iova(int argc, char **argv)
{
    static const struct argp argp = {
        .options = options,
        .parser = parse_option,
        .doc = "Tells which device addresses a set of host devices can use, and which are "
               "reserved, by what; and whether a guest's memory can be where its layout has it, "
               "when the guest's drivers use guest-physical addresses (no IOMMU that the guest "
               "sees).\v"
               "Reserved are the regions of the devices' IOMMU groups, and windows of bridges to "
               "which a request can be turned aside before it reaches the IOMMU, where access "
               "control services do not forbid it (to see that takes root: without, they are "
               "taken for absent). With --vfio and --iommufd also what the kernel's drivers can "
               "map: nothing is mapped, and all is given back again.\n\n"
               "Exit status 1: no layout fits, or something could not be read.\n\n"
               "Example:\n"
               "  viommu iova --device 0000:01:00.0 --memory 64g",
    };
    const struct viommu_iova_config config = {.identity = true};
    struct request request = {.paths = {"/sys", "/dev"}};
    static struct answers answers;
    struct viommu_iova *space;
    char name[] = "viommu iova";
    int status;

    argp_err_exit_status = TOOL_USAGE;
    argv[0] = name;
    if (argp_parse(&argp, argc, argv, 0, NULL, &request)) {
        return TOOL_USAGE;
    }
    if (viommu_iova_create(&config, &space)) {
        fputs("viommu iova: out of memory\n", stderr);
        return TOOL_FAILED;
    }
    status = TOOL_FAILED;
    if (add_limits(space, &request, &answers) && fill(space, &request) &&
        ask_kernel(space, &request, &answers)) {
        status = show(space, &request, &answers);
    }
    free_answers(&answers);
    viommu_iova_destroy(space);
    return status;
}
