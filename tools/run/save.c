/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The save room: states of units, and units that go on from them.
 *
 * `load` puts a second instance in the place of a unit: with its configuration, its devices and its
 * subscribers, as a process does that takes over. Where the library refuses the state, the unit
 * stays what it was. A trace ends with the instance that it is of.
 */
#include "run.h"
#include "trace.h"
#include "virtio.h"

#include <save/stream.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Of the header of a saved state: where its version is, and its checksum. */
enum {
    VERSION_AT = 8,
    CHECKSUM_AT = 28,
    HEADER_SIZE = 32,
};

struct saved {
    struct saved *next;
    char *name;
    uint8_t *data;
    size_t size;
};

static struct saved *find_saved(struct run *run, const char *name)
{
    struct saved *saved = run->saved;

    while (saved && strcmp(saved->name, name)) {
        saved = saved->next;
    }
    return saved;
}

static struct saved *arg_saved(struct run *run)
{
    const char *name = line_argument(&run->line, "name")->value;
    struct saved *saved = find_saved(run, name);

    if (!saved) {
        run_error(run, name, "nothing was saved under this name");
    }
    return saved;
}

void saved_destroy(struct run *run)
{
    while (run->saved) {
        struct saved *saved = run->saved;

        run->saved = saved->next;
        viommu_save_free(saved->data);
        free(saved->name);
        free(saved);
    }
}

static void do_save(struct run *run)
{
    struct unit *unit = run_unit(run);
    const char *name;
    struct saved *saved;
    void *data;
    size_t size;
    int error;

    if (!unit || !arg_text(run, "name", &name)) {
        return;
    }
    error = viommu_save(unit->iommu, &data, &size);
    result_errno(&run->result, error);
    if (error) {
        return;
    }
    saved = find_saved(run, name);
    if (!saved) {
        saved = run_alloc(sizeof(*saved));
        saved->name = run_copy_text(name);
        saved->next = run->saved;
        run->saved = saved;
    }
    viommu_save_free(saved->data);
    saved->data = data;
    saved->size = size;
    result_size(&run->result, "size", size);
}

/* An instance as the unit's, with its devices and subscribers, not started. */
static int second_create(struct run *run, const struct unit *unit,
                         const struct viommu_vtd_config *vtd, bool adopt, struct viommu **second)
{
    int error = unit->virtio ? virtio_unit_create(unit, second)
                             : viommu_vtd_create(&unit->config, vtd, second);

    if (error) {
        *second = NULL;
        return error;
    }
    error = devices_copy(run, unit, *second);
    return error ? error : subscribers_copy(run, unit, adopt);
}

static void change_place(struct run *run, struct unit *unit, struct viommu *second, bool adopt)
{
    trace_end(run, unit);
    viommu_destroy(unit->iommu);
    unit->iommu = second;
    devices_move(run, unit);
    subscribers_move(run, unit, adopt);
}

static void seal(uint8_t *data, size_t size)
{
    uint32_t crc = save_crc32c(0, data, CHECKSUM_AT);

    crc = save_crc32c(crc, data + HEADER_SIZE, size - HEADER_SIZE);
    for (unsigned i = 0; i < 4; i++) {
        data[CHECKSUM_AT + i] = (uint8_t)(crc >> 8 * i);
    }
}

/* A copy of the state, with the damage that the arguments ask for. */
static uint8_t *damaged(struct run *run, const struct saved *saved, size_t *size)
{
    uint8_t *copy = run_alloc(saved->size);
    uint64_t cut = saved->size;
    uint64_t flip = 0;

    memcpy(copy, saved->data, saved->size);
    if (!arg_number_max(run, "cut", saved->size, &cut) ||
        !arg_number_max(run, "flip", saved->size - 1, &flip)) {
        free(copy);
        return NULL;
    }
    if (arg_given(run, "flip")) {
        copy[flip] ^= 1;
    }
    if (arg_flag(run, "newer")) {
        copy[VERSION_AT]++;
        seal(copy, saved->size);
    }
    *size = (size_t)cut;
    return copy;
}

static bool can_load(struct run *run)
{
    if (run->holds) {
        run_error(run, NULL, "a translation is still held: `release` it first");
    } else if (run->pins) {
        run_error(run, NULL, "a window is still pinned: `unpin` it first");
    }
    return !run->holds && !run->pins;
}

static void do_load(struct run *run)
{
    struct unit *unit = run_unit(run);
    struct saved *saved = unit ? arg_saved(run) : NULL;
    bool adopt = !arg_flag(run, "fresh");
    struct viommu_vtd_config vtd;
    struct viommu *second;
    uint8_t *data;
    size_t size;
    int error;

    if (!unit || !saved || !can_load(run)) {
        return;
    }
    vtd = unit->vtd;
    data = unit_arguments(run, &vtd) ? damaged(run, saved, &size) : NULL;
    if (!data) {
        return;
    }
    error = second_create(run, unit, &vtd, adopt, &second);
    error = error ? error : viommu_load(second, data, size);
    free(data);
    result_errno(&run->result, error);
    if (error) {
        viommu_destroy(second);
    } else {
        change_place(run, unit, second, adopt);
    }
}

/* Loads all that is left of the state when it is cut, and when a byte of it is another. */
static void do_load_damaged(struct run *run)
{
    struct unit *unit = run_unit(run);
    struct saved *saved = unit ? arg_saved(run) : NULL;
    struct viommu *second = NULL;
    uint64_t tried = 0;
    int error;

    if (!unit || !saved || !can_load(run)) {
        return;
    }
    error = second_create(run, unit, &unit->vtd, true, &second);
    for (size_t i = 0; !error && i < saved->size; i++, tried += 2) {
        int cut = viommu_load(second, saved->data, i);
        int flipped;

        saved->data[i] ^= 0x10;
        flipped = viommu_load(second, saved->data, saved->size);
        saved->data[i] ^= 0x10;
        error = cut == -EBADMSG && flipped == -EBADMSG ? 0 : -EPROTO;
    }
    result_errno(&run->result, error ? error : viommu_load(second, saved->data, saved->size));
    result_decimal(&run->result, "tried", tried);
    viommu_destroy(second);
}

const struct command save_commands[] = {
    {"save", "name", "Saves the unit's state under a name.", do_save},
    {"load", "name [fresh!] [cut=] [flip=] [newer!] " CONFIGURATION,
     "Puts a new instance in the unit's place, which goes on from a saved state. Its mirrors are "
     "adopted, or fresh.",
     do_load},
    {"load-damaged", "name",
     "Tries to load the state cut at each length, and with each byte changed: all are refused.",
     do_load_damaged},
    {0},
};
