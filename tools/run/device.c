/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The device room: devices come, go, change their ids, and do DMA.
 *
 * A device has a name in the scenario; wherever a requester id may stand, so may the name.
 */
#include "run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    DMA_MAX = 16 << 20,
    ATS_ENTRIES_MAX = 8,
};

struct device {
    struct device *next;
    char *name;
    struct unit *unit;
    struct viommu_device *handle;
    struct viommu_device *copied; /* in another instance; see devices_copy */
    struct viommu_device_config config;
    uint16_t aliases[VIOMMU_ALIASES_MAX];
    unsigned alias_count;
};

struct device *device_find(struct run *run, const char *name)
{
    struct device *device = run->devices;

    while (device && strcmp(device->name, name)) {
        device = device->next;
    }
    return device;
}

struct viommu_device *device_handle(const struct device *device)
{
    return device->handle;
}

struct unit *device_unit(const struct device *device)
{
    return device->unit;
}

struct name_list {
    const struct device *device;
};

static const char *next_device(void *opaque)
{
    struct name_list *list = opaque;
    const char *name = list->device ? list->device->name : NULL;

    if (list->device) {
        list->device = list->device->next;
    }
    return name;
}

struct device *arg_device(struct run *run, const char *name)
{
    const char *text = line_argument(&run->line, name)->value;
    struct device *device = device_find(run, text);
    struct name_list list = {run->devices};
    const char *near;

    if (device) {
        return device;
    }
    near = nearest(text, next_device, &list);
    run_error(run, text, "no such device%s%s", near ? "; did you mean " : "", near ? near : "");
    return NULL;
}

bool arg_attributes(struct run *run, struct viommu_dma_attrs *attrs)
{
    static const char *const types[] = {"untranslated", "translation", "translated", NULL};
    unsigned type = 0;
    uint64_t alias = 0;

    if (!arg_choice(run, "type", types, &type) || !arg_number_max(run, "alias", 0xffff, &alias)) {
        return false;
    }
    *attrs = (struct viommu_dma_attrs){(enum viommu_dma_type)type, (unsigned)alias};
    return true;
}

static void do_device(struct run *run)
{
    struct unit *unit = run_unit(run);
    struct viommu_device_config config = {
        .shared = arg_flag(run, "shared"),
        .ats = arg_flag(run, "ats"),
        .space = arg_flag(run, "space") ? iova_space(run) : NULL,
    };
    struct viommu_device *handle;
    struct device *device;
    const char *name;
    int error;

    if (!unit || !arg_text(run, "name", &name) ||
        !arg_requester(run, "requester", &config.requester)) {
        return;
    }
    if (arg_flag(run, "space") && !config.space) {
        run_error(run, NULL, "there is no space yet; `iova space` makes one");
        return;
    }
    if (device_find(run, name)) {
        run_error(run, name, "there is a device of this name");
        return;
    }
    error = viommu_device_add(unit->iommu, &config, &handle);
    result_errno(&run->result, error);
    if (error) {
        return;
    }
    device = run_alloc(sizeof(*device));
    *device = (struct device){
        .next = run->devices,
        .name = run_copy_text(name),
        .unit = unit,
        .handle = handle,
        .config = config,
    };
    run->devices = device;
}

static int device_free(struct run *run, struct device *device)
{
    struct device **at = &run->devices;
    int error;

    while (*at != device) {
        at = &(*at)->next;
    }
    spaces_leave(run, device->handle);
    error = viommu_device_remove(device->handle);
    subscribers_free(run, device);
    *at = device->next;
    free(device->name);
    free(device);
    return error;
}

void devices_destroy(struct run *run, const struct unit *unit)
{
    struct device *next;

    for (struct device *device = run->devices; device; device = next) {
        next = device->next;
        if (!unit || device->unit == unit) {
            device_free(run, device);
        }
    }
}

static int device_copy(struct device *device, struct viommu *iommu)
{
    struct viommu_device_config config = device->config;
    int error;

    config.requester = viommu_device_requester(device->handle);
    error = viommu_device_add(iommu, &config, &device->copied);
    for (unsigned i = 0; !error && i < device->alias_count; i++) {
        error = viommu_device_add_alias(device->copied, device->aliases[i]);
        error = error < 0 ? error : 0;
    }
    return error;
}

/* The list has the newest first. */
static int copy_from(struct device *device, const struct unit *unit, struct viommu *iommu)
{
    int error = device ? copy_from(device->next, unit, iommu) : 0;

    return error || !device || device->unit != unit ? error : device_copy(device, iommu);
}

int devices_copy(struct run *run, const struct unit *unit, struct viommu *iommu)
{
    return copy_from(run->devices, unit, iommu);
}

void devices_move(struct run *run, const struct unit *unit)
{
    for (struct device *device = run->devices; device; device = device->next) {
        if (device->unit == unit) {
            spaces_leave(run, device->handle);
            device->handle = device->copied;
        }
    }
}

struct viommu_device *device_copied(const struct device *device)
{
    return device->copied;
}

static void do_device_remove(struct run *run)
{
    struct device *device = arg_device(run, "dev");

    if (device && run->holds) {
        run_error(run, NULL, "a translation is still held: `release` it first");
    } else if (device) {
        result_errno(&run->result, device_free(run, device));
    }
}

static void do_device_renumber(struct run *run)
{
    struct device *device = arg_device(run, "dev");
    uint16_t requester;

    if (device && arg_requester(run, "requester", &requester)) {
        result_errno(&run->result, viommu_device_set_requester(device->handle, requester));
    }
}

static void do_alias(struct run *run)
{
    struct device *device = arg_device(run, "dev");
    uint16_t requester;
    int number;

    if (!device || !arg_requester(run, "requester", &requester)) {
        return;
    }
    number = viommu_device_add_alias(device->handle, requester);
    result_errno(&run->result, number < 0 ? number : 0);
    if (number > 0) {
        device->aliases[device->alias_count++] = requester;
        result_decimal(&run->result, "alias", (unsigned)number);
    }
}

static void do_aliases_remove(struct run *run)
{
    struct device *device = arg_device(run, "dev");

    if (device) {
        result_errno(&run->result, viommu_device_remove_aliases(device->handle));
        device->alias_count = 0;
    }
}

static void do_device_reset(struct run *run)
{
    struct device *device = arg_device(run, "dev");

    if (device) {
        result_errno(&run->result, viommu_device_reset(device->handle));
    }
}

static void do_device_id(struct run *run)
{
    struct device *device = arg_device(run, "dev");

    if (device) {
        result_requester(&run->result, "requester", viommu_device_requester(device->handle));
    }
}

static void do_dma_read(struct run *run)
{
    struct device *device = arg_device(run, "dev");
    struct viommu_dma_attrs attrs;
    uint64_t iova;
    uint64_t size;
    uint8_t *bytes;
    int error;

    if (!device || !arg_number(run, "iova", &iova) ||
        !arg_number_max(run, "len", DMA_MAX, &size) || !arg_attributes(run, &attrs)) {
        return;
    }
    bytes = run_alloc((size_t)size);
    error = viommu_device_read(device->handle, &attrs, iova, bytes, (size_t)size);
    result_errno(&run->result, error);
    if (!error) {
        memory_result_bytes(run, bytes, (size_t)size);
    }
    free(bytes);
}

static void do_dma_write(struct run *run)
{
    struct device *device = arg_device(run, "dev");
    struct viommu_dma_attrs attrs;
    uint64_t iova;
    uint8_t *bytes;
    size_t size;

    if (!device || !arg_number(run, "iova", &iova) || !arg_attributes(run, &attrs) ||
        !arg_data(run, &bytes, &size)) {
        return;
    }
    result_errno(&run->result, viommu_device_write(device->handle, &attrs, iova, bytes, size));
    free(bytes);
}

void device_result_translation(struct run *run, const struct viommu_translation *translation)
{
    result_hex(&run->result, "gpa", translation->gpa);
    result_size(&run->result, "page", translation->mask + 1);
    result_perm(&run->result, "perm", translation->perm);
    if (translation->interrupt) {
        result_word(&run->result, "interrupt", "yes");
    }
}

static void do_translate(struct run *run)
{
    struct device *device = arg_device(run, "dev");
    struct viommu_translation translation;
    struct viommu_dma_attrs attrs;
    uint32_t perm = VIOMMU_READ;
    uint64_t iova;
    int error;

    if (!device || !arg_number(run, "iova", &iova) || !arg_perm(run, "perm", &perm) ||
        !arg_attributes(run, &attrs)) {
        return;
    }
    error = viommu_device_translate(device->handle, &attrs, iova, perm, &translation);
    result_errno(&run->result, error);
    if (!error) {
        device_result_translation(run, &translation);
    }
}

/* The fields of entry 0 have their plain names, of entry n the names with n + 1 behind. */
static void result_ats_entry(struct run *run, const struct viommu_ats_entry *entry, unsigned index)
{
    static const char *const names[] = {"iova", "gpa",  "page",
                                        "perm", "untranslated-only", "snoop"};
    char name[6][LINE_NAME_MAX];

    for (unsigned i = 0; i < 6; i++) {
        if (index) {
            snprintf(name[i], sizeof(name[i]), "%s%u", names[i], index + 1);
        } else {
            snprintf(name[i], sizeof(name[i]), "%s", names[i]);
        }
    }
    result_hex(&run->result, name[0], entry->iova);
    if (entry->perm) {
        result_hex(&run->result, name[1], entry->gpa);
    }
    result_size(&run->result, name[2], entry->mask + 1);
    result_perm(&run->result, name[3], entry->perm);
    result_word(&run->result, name[4], entry->untranslated_only ? "yes" : "no");
    result_word(&run->result, name[5], entry->snoop ? "yes" : "no");
}

static void do_ats(struct run *run)
{
    struct device *device = arg_device(run, "dev");
    struct viommu_ats_entry entries[ATS_ENTRIES_MAX] = {0};
    struct viommu_dma_attrs attrs;
    uint64_t count = 1;
    uint64_t size = 4096;
    uint64_t iova;
    int status;

    if (!device || !arg_number(run, "iova", &iova) || !arg_number(run, "len", &size) ||
        !arg_number_max(run, "count", ATS_ENTRIES_MAX, &count) || !arg_attributes(run, &attrs)) {
        return;
    }
    attrs.type = VIOMMU_DMA_TRANSLATION;
    status = viommu_device_ats_translate(device->handle, &attrs, iova, size,
                                         arg_flag(run, "no-write"), entries, (unsigned)count);
    result_errno(&run->result, status < 0 ? status : 0);
    if (status < 0) {
        return;
    }
    result_decimal(&run->result, "entries", (unsigned)status);
    for (unsigned i = 0; i < (unsigned)status && i < ATS_ENTRIES_MAX; i++) {
        result_ats_entry(run, &entries[i], i);
    }
}

const struct command device_commands[] = {
    {"device", "name requester [shared!] [ats!] [space!]", "Adds a device to the unit.", do_device},
    {"device-remove", "dev", "Removes a device, even with changes it has not acknowledged.",
     do_device_remove},
    {"device-renumber", "dev requester", "Gives a device another requester id.",
     do_device_renumber},
    {"device-id", "dev", "Tells the requester id a device has now.", do_device_id},
    {"device-reset", "dev", "Resets a device: when it was denied it is admitted again.",
     do_device_reset},
    {"alias", "dev requester", "Gives a device one more id to issue requests under.", do_alias},
    {"aliases-remove", "dev", "Takes a device's aliases back.", do_aliases_remove},
    {"dma read", "dev iova len " ATTRIBUTE_ARGUMENTS, "Reads guest memory as the device.",
     do_dma_read},
    {"dma write", "dev iova " DATA_ARGUMENTS " " ATTRIBUTE_ARGUMENTS,
     "Writes guest memory as the device.", do_dma_write},
    {"translate", "dev iova [perm] " ATTRIBUTE_ARGUMENTS,
     "Translates an address for an access (perm none: a zero-length read) and touches no memory.",
     do_translate},
    {"ats", "dev iova [len] [count=] [no-write!] [alias=]",
     "Sends a translation request (PCI ATS) as the device.", do_ats},
    {0},
};
