/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The room of held translations: a device translates, and uses the translation only later, while
 * the guest does something else.
 *
 * Sections belong to threads. So each held translation has a thread of its own, that opens a
 * section, does one job after another that the main thread gives it, and closes the section in the
 * end. The main thread waits for each job; so one thread acts at a time and runs are deterministic.
 *
 * Locking: `mutex` protects all but `name` of a hold; `job` says whose turn it is (not NULL: the
 * thread's).
 */
#include "run.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct hold {
    struct hold *next;
    char *name;
    struct viommu *iommu;
    struct viommu_translation translation;
    bool translated;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t turn;
    void (*job)(struct hold *hold, void *opaque);
    void *opaque;
    bool ending;
};

static void *hold_thread(void *opaque)
{
    struct hold *hold = opaque;

    pthread_mutex_lock(&hold->mutex);
    viommu_dma_begin(hold->iommu);
    while (!hold->ending) {
        if (!hold->job) {
            pthread_cond_wait(&hold->turn, &hold->mutex);
            continue;
        }
        hold->job(hold, hold->opaque);
        hold->job = NULL;
        pthread_cond_broadcast(&hold->turn);
    }
    viommu_dma_end(hold->iommu);
    pthread_mutex_unlock(&hold->mutex);
    return NULL;
}

/* Has a job done inside the section. */
static void hold_do(struct hold *hold, void (*job)(struct hold *hold, void *opaque), void *opaque)
{
    pthread_mutex_lock(&hold->mutex);
    hold->job = job;
    hold->opaque = opaque;
    pthread_cond_broadcast(&hold->turn);
    while (hold->job) {
        pthread_cond_wait(&hold->turn, &hold->mutex);
    }
    pthread_mutex_unlock(&hold->mutex);
}

/* Ends the section and forgets the hold, which is in no list any more. */
static void hold_end(struct hold *hold)
{
    pthread_mutex_lock(&hold->mutex);
    hold->ending = true;
    pthread_cond_broadcast(&hold->turn);
    pthread_mutex_unlock(&hold->mutex);
    pthread_join(hold->thread, NULL);
    pthread_cond_destroy(&hold->turn);
    pthread_mutex_destroy(&hold->mutex);
    free(hold->name);
    free(hold);
}

static struct hold *hold_begin(struct run *run, const char *name, struct viommu *iommu)
{
    struct hold *hold = run_alloc(sizeof(*hold));

    hold->iommu = iommu;
    pthread_mutex_init(&hold->mutex, NULL);
    pthread_cond_init(&hold->turn, NULL);
    if (pthread_create(&hold->thread, NULL, hold_thread, hold)) {
        run_error(run, name, "no thread for it");
        free(hold);
        return NULL;
    }
    hold->name = run_copy_text(name);
    return hold;
}

void holds_destroy(struct run *run)
{
    while (run->holds) {
        struct hold *hold = run->holds;

        run->holds = hold->next;
        hold_end(hold);
    }
}

static struct hold *find_hold(struct run *run, const char *name)
{
    struct hold *hold = run->holds;

    while (hold && strcmp(hold->name, name)) {
        hold = hold->next;
    }
    return hold;
}

/* The hold that the argument names. */
static struct hold *arg_hold(struct run *run)
{
    const char *name = line_argument(&run->line, "name")->value;
    struct hold *hold = find_hold(run, name);

    if (!hold) {
        run_error(run, name, "nothing of this name is held");
    }
    return hold;
}

/* A request that the thread makes. */
struct request {
    struct viommu_device *device;
    struct viommu_dma_attrs attrs;
    uint64_t iova;
    uint32_t perm;
    int status;
};

static void job_nothing(struct hold *hold, void *opaque)
{
    (void)hold;
    (void)opaque;
}

static void job_translate(struct hold *hold, void *opaque)
{
    struct request *request = opaque;

    request->status = viommu_device_translate(request->device, &request->attrs, request->iova,
                                              request->perm, &hold->translation);
}

static bool request_arguments(struct run *run, struct request *request, struct device *device)
{
    *request = (struct request){.device = device_handle(device), .perm = VIOMMU_READ};
    return arg_number(run, "iova", &request->iova) && arg_perm(run, "perm", &request->perm) &&
           arg_attributes(run, &request->attrs);
}

/* A translation that is refused is not held. */
static void do_hold(struct run *run)
{
    struct device *device = arg_device(run, "dev");
    const char *name;
    struct request request;
    struct hold *hold;

    if (!device || !arg_text(run, "name", &name) || !request_arguments(run, &request, device)) {
        return;
    }
    if (find_hold(run, name)) {
        run_error(run, name, "something of this name is held already");
        return;
    }
    hold = hold_begin(run, name, device_unit(device)->iommu);
    if (!hold) {
        return;
    }
    hold_do(hold, job_translate, &request);
    result_errno(&run->result, request.status);
    if (request.status) {
        hold_end(hold);
        return;
    }
    device_result_translation(run, &hold->translation);
    hold->translated = true;
    hold->next = run->holds;
    run->holds = hold;
}

/* A section without a translation. */
static void do_hold_section(struct run *run)
{
    struct unit *unit = run_unit(run);
    struct hold *hold;
    const char *name;

    if (!unit || !arg_text(run, "name", &name)) {
        return;
    }
    if (find_hold(run, name)) {
        run_error(run, name, "something of this name is held already");
        return;
    }
    hold = hold_begin(run, name, unit->iommu);
    if (!hold) {
        return;
    }
    hold_do(hold, job_nothing, NULL);
    hold->next = run->holds;
    run->holds = hold;
}

/* An access by the held translation. */
struct access {
    struct viommu_memory *memory;
    uint64_t offset;
    uint8_t *bytes;
    size_t size;
    bool write;
    int status;
};

static void job_access(struct hold *hold, void *opaque)
{
    struct access *access = opaque;
    uint64_t gpa = hold->translation.gpa + access->offset;

    access->status = access->write
                         ? viommu_memory_write(access->memory, gpa, access->bytes, access->size)
                         : viommu_memory_read(access->memory, gpa, access->bytes, access->size);
}

/* The hold, when it has a translation that reaches the bytes from the offset on. */
static struct hold *access_arguments(struct run *run, struct access *access)
{
    struct hold *hold = arg_hold(run);
    uint64_t room;

    if (!hold || !arg_number(run, "offset", &access->offset)) {
        return NULL;
    }
    room = hold->translation.mask - (hold->translation.gpa & hold->translation.mask);
    if (!hold->translated || access->offset > room ||
        (access->size && access->size - 1 > room - access->offset)) {
        run_error(run, hold->name, "the held translation does not reach there");
        return NULL;
    }
    return hold;
}

static void do_held_read(struct run *run)
{
    struct access access = {.memory = run->memory};
    struct hold *hold;
    uint64_t size;

    if (!arg_number_max(run, "len", 4096, &size)) {
        return;
    }
    access.size = (size_t)size;
    hold = access_arguments(run, &access);
    if (!hold) {
        return;
    }
    access.bytes = run_alloc(access.size);
    hold_do(hold, job_access, &access);
    result_errno(&run->result, access.status);
    if (!access.status) {
        memory_result_bytes(run, access.bytes, access.size);
    }
    free(access.bytes);
}

static void do_held_write(struct run *run)
{
    struct access access = {.memory = run->memory, .write = true};
    struct hold *hold;

    if (!arg_data(run, &access.bytes, &access.size)) {
        return;
    }
    hold = access_arguments(run, &access);
    if (hold) {
        hold_do(hold, job_access, &access);
        result_errno(&run->result, access.status);
    }
    free(access.bytes);
}

/* Another request inside the same section. */
static void do_held_translate(struct run *run)
{
    struct device *device = arg_device(run, "dev");
    struct hold *hold = device ? arg_hold(run) : NULL;
    struct request request;

    if (!hold || !request_arguments(run, &request, device)) {
        return;
    }
    hold_do(hold, job_translate, &request);
    result_errno(&run->result, request.status);
    hold->translated = !request.status;
    if (!request.status) {
        device_result_translation(run, &hold->translation);
    }
}

static void do_release(struct run *run)
{
    struct hold *hold = arg_hold(run);
    struct hold **at = &run->holds;

    if (!hold) {
        return;
    }
    while (*at != hold) {
        at = &(*at)->next;
    }
    *at = hold->next;
    hold_end(hold);
}

const struct command hold_commands[] = {
    {"hold", "name dev iova [perm] " ATTRIBUTE_ARGUMENTS,
     "Translates in a section that stays open: a DMA under way.", do_hold},
    {"hold-section", "name", "Opens a section without a translation.", do_hold_section},
    {"held read", "name len [offset=]", "Reads by the held translation.", do_held_read},
    {"held write", "name [offset=] " DATA_ARGUMENTS, "Writes by the held translation.",
     do_held_write},
    {"held translate", "name dev iova [perm] " ATTRIBUTE_ARGUMENTS,
     "Translates once more in the same section.", do_held_translate},
    {"release", "name", "Closes the section: the DMA under way is over.", do_release},
    {0},
};
