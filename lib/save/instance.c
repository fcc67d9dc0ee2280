/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An instance, saved and loaded.
 *
 * Structure of a stream, in this order:
 *   INSTANCE  which model it is of, and how many devices it has
 *   MODEL     what the model says of itself
 *   DEVICE    one for each device: its ids and flags; `instance` counts them from 0
 *   MIRROR    one for each mirror: its device's number, its key, and what adopt.c says
 *
 * Loading reads all of it into a *loaded* first, aside; when every check has passed that is put in
 * place, which cannot fail.
 *
 * Locking: the IOMMU's lock, from the first check to the last change.
 */
#include "iommu/iommu.h"

#include "base/alloc.h"
#include "save/stream.h"

#include <errno.h>
#include <viommu/save.h>

enum kind {
    KIND_INSTANCE = 1,
    KIND_MODEL,
    KIND_DEVICE,
    KIND_MIRROR,
};

/* Versions of the sections that are written, and the newest that are read. */
#define INSTANCE_VERSION 1u
#define DEVICE_VERSION 1u
#define MIRROR_VERSION 1u

/* A device's flags in a stream. */
#define DEVICE_SHARED 1u
#define DEVICE_ATS 2u
#define DEVICE_DENIED 4u
#define DEVICE_FLAGS 7u

/* ---- saved ---------------------------------------------------------------------------------- */

static uint32_t device_count(const struct viommu *iommu)
{
    uint32_t count = 0;

    for (const struct viommu_device *d = iommu->devices; d; d = d->next) {
        count++;
    }
    return count;
}

static const struct requester *own_requester(const struct viommu_device *device)
{
    return atomic_load(&device->requesters[0]);
}

static uint8_t device_flags(const struct viommu_device *device)
{
    return (uint8_t)((own_requester(device)->shared ? DEVICE_SHARED : 0) |
                     (device->ats ? DEVICE_ATS : 0) |
                     (atomic_load(&device->denied) ? DEVICE_DENIED : 0));
}

static void device_save(const struct viommu_device *device, uint32_t number,
                        struct save_writer *writer)
{
    uint32_t count = atomic_load(&device->requester_count);

    save_begin(writer, KIND_DEVICE, number, DEVICE_VERSION, 0);
    save_put8(writer, device_flags(device));
    save_put8(writer, (uint8_t)count);
    for (uint32_t i = 0; i < count; i++) {
        save_put16(writer, atomic_load(&device->requesters[i])->id);
    }
    save_end(writer);
}

static void mirrors_save(const struct viommu *iommu, const struct viommu_device *device,
                         uint32_t number, struct save_writer *writer)
{
    for (const struct viommu_subscriber *s = device->subscribers; s; s = s->next) {
        if (s->mirror) {
            save_begin(writer, KIND_MIRROR, number, MIRROR_VERSION, 0);
            save_put32(writer, s->what.key);
            mirror_save(iommu, s->mirror, writer);
            save_end(writer);
        }
    }
}

static void instance_save(struct viommu *iommu, struct save_writer *writer)
{
    uint32_t number = 0;

    save_begin(writer, KIND_INSTANCE, 0, INSTANCE_VERSION, 0);
    save_put32(writer, iommu->model->id);
    save_put32(writer, device_count(iommu));
    save_end(writer);
    save_begin(writer, KIND_MODEL, 0, iommu->model->save_version, 0);
    iommu->model->save(iommu, writer);
    save_end(writer);
    for (const struct viommu_device *d = iommu->devices; d; d = d->next) {
        device_save(d, number++, writer);
    }
    number = 0;
    for (const struct viommu_device *d = iommu->devices; d; d = d->next) {
        mirrors_save(iommu, d, number++, writer);
    }
}

int viommu_save(struct viommu *iommu, void **data, size_t *size)
{
    struct save_writer writer;
    int ret = -EBUSY;

    if (!atomic_load(&iommu->started)) {
        return -EAGAIN;
    }
    if (iommu_reentered(iommu)) {
        return -EDEADLK;
    }
    save_writer_init(&writer, SAVE_INSTANCE);
    iommu_lock(iommu);
    if (follow_quiet(iommu) && (!iommu->model->quiet || iommu->model->quiet(iommu))) {
        instance_save(iommu, &writer);
        ret = 0;
    }
    iommu_unlock(iommu);
    if (ret) {
        save_writer_fini(&writer);
        return ret;
    }
    return save_finish(&writer, data, size);
}

void viommu_save_free(void *data)
{
    save_free(data);
}

/* ---- loaded --------------------------------------------------------------------------------- */

struct loaded_device {
    struct viommu_device *device;
    bool denied;
};

struct loaded {
    void *model;
    struct loaded_device *devices; /* as many as the instance has */
    uint32_t device_count;         /* that were read */
    struct adoption *adoptions;    /* room for every mirror that waits */
    uint32_t adoption_count;
};

static void loaded_fini(const struct viommu *iommu, struct loaded *loaded)
{
    for (uint32_t i = 0; i < loaded->adoption_count; i++) {
        adoption_fini(&loaded->adoptions[i]);
    }
    base_free(loaded->adoptions);
    base_free(loaded->devices);
    if (iommu->model->discard) {
        iommu->model->discard(loaded->model);
    } else {
        base_free(loaded->model);
    }
}

static uint32_t waiting_count(const struct viommu *iommu)
{
    uint32_t count = 0;

    for (const struct mirror *mirror = iommu->follow.mirrors; mirror; mirror = mirror->next) {
        count += mirror->waits;
    }
    return count;
}

static int instance_load(const struct viommu *iommu, struct save_section *section,
                         struct loaded *loaded)
{
    uint32_t model = save_get32(section);
    uint32_t devices = save_get32(section);
    int ret = save_close(section);

    if (ret) {
        return ret;
    }
    if (model != iommu->model->id) {
        return -EINVAL;
    }
    if (devices != device_count(iommu)) {
        return -ENODEV;
    }
    loaded->devices = base_alloc_array(devices + 1, sizeof(*loaded->devices));
    loaded->adoptions = base_alloc_array(waiting_count(iommu) + 1, sizeof(*loaded->adoptions));
    return loaded->devices && loaded->adoptions ? 0 : -ENOMEM;
}

static bool device_is_taken(const struct loaded *loaded, const struct viommu_device *device)
{
    for (uint32_t i = 0; i < loaded->device_count; i++) {
        if (loaded->devices[i].device == device) {
            return true;
        }
    }
    return false;
}

/* The first device with an id that was not read yet. */
static struct viommu_device *device_find(const struct viommu *iommu, const struct loaded *loaded,
                                         uint16_t id)
{
    struct viommu_device *device = iommu->devices;

    while (device && (own_requester(device)->id != id || device_is_taken(loaded, device))) {
        device = device->next;
    }
    return device;
}

static bool aliases_equal(const struct viommu_device *device, const uint16_t *ids, uint32_t count)
{
    if (atomic_load(&device->requester_count) != count) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (atomic_load(&device->requesters[i])->id != ids[i]) {
            return false;
        }
    }
    return true;
}

static int device_load(const struct viommu *iommu, struct save_section *section,
                       struct loaded *loaded)
{
    uint16_t ids[1 + VIOMMU_ALIASES_MAX] = {0};
    uint8_t flags = save_get8(section);
    uint8_t count = save_get8(section);
    struct viommu_device *device;
    int ret;

    if ((flags & ~DEVICE_FLAGS) || !count || count > 1 + VIOMMU_ALIASES_MAX) {
        save_spoil(section);
        count = 0;
    }
    for (uint8_t i = 0; i < count; i++) {
        ids[i] = save_get16(section);
    }
    ret = save_close(section);
    if (ret) {
        return ret;
    }
    device = device_find(iommu, loaded, ids[0]);
    if (!device || ((device_flags(device) ^ flags) & (DEVICE_SHARED | DEVICE_ATS)) ||
        !aliases_equal(device, ids, count)) {
        return -ENODEV;
    }
    loaded->devices[loaded->device_count++] = (struct loaded_device){
        .device = device,
        .denied = flags & DEVICE_DENIED,
    };
    return 0;
}

static bool mirror_is_taken(const struct loaded *loaded, const struct mirror *mirror)
{
    for (uint32_t i = 0; i < loaded->adoption_count; i++) {
        if (loaded->adoptions[i].mirror == mirror) {
            return true;
        }
    }
    return false;
}

/* The next of a device's mirrors that waits for what was saved under a key, or NULL. */
static struct mirror *mirror_find(const struct loaded *loaded, const struct viommu_device *device,
                                  uint32_t key)
{
    for (const struct viommu_subscriber *s = device->subscribers; s; s = s->next) {
        if (s->mirror && s->mirror->waits && s->what.key == key &&
            !mirror_is_taken(loaded, s->mirror)) {
            return s->mirror;
        }
    }
    return NULL;
}

static int mirror_load(struct save_section *section, struct loaded *loaded)
{
    uint32_t key = save_get32(section);
    struct mirror *mirror;
    int ret;

    if (section->error || section->instance >= loaded->device_count) {
        return -EBADMSG;
    }
    mirror = mirror_find(loaded, loaded->devices[section->instance].device, key);
    if (!mirror) {
        return 0; /* nobody adopts it */
    }
    ret = adoption_read(&loaded->adoptions[loaded->adoption_count++], mirror, section);
    return ret ? ret : save_close(section);
}

/* Whether a section is of a kind that this library does not know. */
static bool is_unknown(const struct save_section *section)
{
    return section->kind < KIND_INSTANCE || section->kind > KIND_MIRROR;
}

/* One section that has to come next, but for those that may be passed over. */
static int required_load(struct viommu *iommu, struct save_reader *reader, enum kind kind,
                         uint32_t number, struct loaded *loaded)
{
    uint16_t newest = kind == KIND_INSTANCE ? INSTANCE_VERSION
                      : kind == KIND_MODEL  ? iommu->model->save_version
                                            : DEVICE_VERSION;
    struct save_section section;
    int ret;

    do {
        if (!save_next(reader, &section)) {
            return -EBADMSG;
        }
        ret = is_unknown(&section) ? save_unknown(&section) : 0;
    } while (!ret && is_unknown(&section));
    if (!ret && (section.kind != (uint32_t)kind || section.instance != number)) {
        ret = -EBADMSG;
    }
    ret = ret ? ret : save_accept(&section, newest);
    if (ret) {
        return ret;
    }
    switch (kind) {
    case KIND_INSTANCE:
        return instance_load(iommu, &section, loaded);
    case KIND_MODEL:
        return iommu->model->decode(iommu, &section, &loaded->model);
    default:
        return device_load(iommu, &section, loaded);
    }
}

/* Mirrors, and what may be passed over. */
static int rest_load(struct save_reader *reader, struct loaded *loaded)
{
    struct save_section section;
    int ret = 0;

    while (!ret && save_next(reader, &section)) {
        if (section.kind == KIND_MIRROR) {
            ret = save_accept(&section, MIRROR_VERSION);
            ret = ret ? ret : mirror_load(&section, loaded);
        } else {
            ret = is_unknown(&section) ? save_unknown(&section) : -EBADMSG;
        }
    }
    return ret;
}

static int decode(struct viommu *iommu, struct save_reader *reader, struct loaded *loaded)
{
    int ret = required_load(iommu, reader, KIND_INSTANCE, 0, loaded);

    ret = ret ? ret : required_load(iommu, reader, KIND_MODEL, 0, loaded);
    for (uint32_t i = 0; !ret && i < device_count(iommu); i++) {
        ret = required_load(iommu, reader, KIND_DEVICE, i, loaded);
    }
    ret = ret ? ret : rest_load(reader, loaded);
    if (!ret && loaded->adoption_count != waiting_count(iommu)) {
        ret = -ENODEV;
    }
    return ret;
}

/* Those who cache for a denied device hear nothing until it is let in again. */
static void deny(struct viommu_device *device)
{
    atomic_store(&device->denied, true);
    for (struct viommu_subscriber *s = device->subscribers; s; s = s->next) {
        s->fenced |= !s->mirror;
    }
}

/* Puts it in place. Cannot fail. */
static void restore(struct viommu *iommu, struct loaded *loaded)
{
    iommu->model->reset(iommu);
    iommu->model->restore(iommu, loaded->model);
    for (uint32_t i = 0; i < loaded->device_count; i++) {
        if (loaded->devices[i].denied) {
            deny(loaded->devices[i].device);
        }
    }
    follow_review(iommu, NULL, NULL, NULL, VIOMMU_CAUSE_REPLAY);
    for (uint32_t i = 0; i < loaded->adoption_count; i++) {
        mirror_adopt(iommu, &loaded->adoptions[i]);
    }
    atomic_store(&iommu->started, true);
    wake_remind(&iommu->wake);
    iommu_kick(iommu);
}

static int load(struct viommu *iommu, struct save_reader *reader)
{
    struct loaded loaded = {0};
    int ret = decode(iommu, reader, &loaded);

    if (!ret && iommu->follow.listener) {
        ret = follow_memory_settle(iommu);
    }
    if (!ret) {
        restore(iommu, &loaded);
    }
    loaded_fini(iommu, &loaded);
    return ret;
}

int viommu_load(struct viommu *iommu, const void *data, size_t size)
{
    struct save_reader reader;
    int ret;

    if (iommu_reentered(iommu)) {
        return -EDEADLK;
    }
    ret = save_open(&reader, SAVE_INSTANCE, data, size);
    if (ret) {
        return atomic_load(&iommu->started) ? -EALREADY : ret;
    }
    iommu_lock(iommu);
    ret = atomic_load(&iommu->started) ? -EALREADY : load(iommu, &reader);
    iommu_unlock(iommu);
    return ret;
}
