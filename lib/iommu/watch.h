/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The places that a watcher is told of (viommu/watch.h): one function each, with its probe. While
 * nobody watches, they come to a load and a branch.
 *
 * `watched` may be read without the lock and then is a hint; it is looked at again under the lock.
 *
 * Locking: the IOMMU's lock is held, but for watch_miss, which takes it.
 */
#ifndef VIOMMU_IOMMU_WATCH_H
#define VIOMMU_IOMMU_WATCH_H

#include "iommu/iommu.h"
#include "iommu/probe.h"

#include <viommu/watch.h>

static inline bool watch_is_on(const struct viommu *iommu)
{
    return __builtin_expect(atomic_load_explicit(&iommu->watched, memory_order_relaxed), false);
}

/* Numbers an observation and tells it. Under the lock. */
void watch_tell(struct viommu *iommu, struct viommu_observation observation);
/* What follows from watch_miss when somebody watches. Takes the lock. */
void watch_tell_miss(const struct dma_request *request, struct viommu_observation observation);

static inline void watch_reset(struct viommu *iommu)
{
    PROBE1(reset, iommu);
    if (watch_is_on(iommu)) {
        watch_tell(iommu, (struct viommu_observation){.kind = VIOMMU_OBSERVED_RESET});
    }
}

static inline void watch_write(struct viommu *iommu, uint64_t offset, unsigned size, uint64_t value)
{
    PROBE4(write, iommu, offset, size, value);
    if (watch_is_on(iommu)) {
        watch_tell(iommu, (struct viommu_observation){
                              .kind = VIOMMU_OBSERVED_WRITE,
                              .offset = offset,
                              .size = size,
                              .value = size < 8 ? value & ((1ULL << size * 8) - 1) : value,
                          });
    }
}

static inline void watch_command(struct viommu *iommu, uint64_t offset, uint64_t value,
                                 uint64_t low, uint64_t high)
{
    PROBE5(command, iommu, offset, value, low, high);
    if (watch_is_on(iommu)) {
        watch_tell(iommu, (struct viommu_observation){
                              .kind = VIOMMU_OBSERVED_COMMAND,
                              .offset = offset,
                              .value = value,
                              .low = low,
                              .high = high,
                          });
    }
}

static inline void watch_completed(struct viommu *iommu, uint64_t offset, uint64_t value)
{
    PROBE3(completed, iommu, offset, value);
    if (watch_is_on(iommu)) {
        watch_tell(iommu, (struct viommu_observation){
                              .kind = VIOMMU_OBSERVED_COMPLETED, .offset = offset, .value = value});
    }
}

static inline void watch_descriptor(struct viommu *iommu, uint32_t slot, uint64_t low,
                                    uint64_t high)
{
    PROBE4(descriptor, iommu, slot, low, high);
    if (watch_is_on(iommu)) {
        watch_tell(iommu, (struct viommu_observation){
                              .kind = VIOMMU_OBSERVED_DESCRIPTOR,
                              .slot = slot,
                              .low = low,
                              .high = high,
                          });
    }
}

static inline void watch_refused(struct viommu *iommu, uint32_t slot, uint64_t low, uint64_t high,
                                 uint32_t reason)
{
    PROBE5(refused, iommu, slot, low, high, reason);
    if (watch_is_on(iommu)) {
        watch_tell(iommu, (struct viommu_observation){
                              .kind = VIOMMU_OBSERVED_REFUSED,
                              .slot = slot,
                              .low = low,
                              .high = high,
                              .reason = reason,
                          });
    }
}

static inline void watch_retired(struct viommu *iommu, uint32_t slot, uint64_t low, uint64_t high,
                                 int error)
{
    PROBE5(retired, iommu, slot, low, high, error);
    if (watch_is_on(iommu)) {
        watch_tell(iommu, (struct viommu_observation){
                              .kind = VIOMMU_OBSERVED_RETIRED,
                              .slot = slot,
                              .low = low,
                              .high = high,
                              .error = error,
                          });
    }
}

/* A request that the cache did not answer, when it has been answered. Without the lock. */
static inline void watch_miss(const struct dma_request *request, int error, uint64_t gpa,
                              uint64_t mask, uint32_t perm)
{
    PROBE7(miss, request->device->iommu, request->requester->id, request->iova, request->perm,
           error, gpa, perm);
    if (watch_is_on(request->device->iommu)) {
        watch_tell_miss(request, (struct viommu_observation){
                                     .kind = VIOMMU_OBSERVED_MISS,
                                     .gpa = gpa,
                                     .mask = mask,
                                     .perm = perm,
                                     .error = error,
                                 });
    }
}

/* `record` is where it was recorded, if `error` is 0. */
static inline void watch_fault(struct viommu *iommu, const struct dma_request *request,
                               uint32_t reason, uint32_t record, int error)
{
    PROBE7(fault, iommu, request->requester->id, request->iova, request->perm, reason, record,
           error);
    if (watch_is_on(iommu)) {
        watch_tell(iommu, (struct viommu_observation){
                              .kind = VIOMMU_OBSERVED_FAULT,
                              .requester = request->requester->id,
                              .type = request->type,
                              .iova = request->iova,
                              .wanted = request->perm,
                              .reason = reason,
                              .slot = record,
                              .error = error,
                          });
    }
}

static inline void watch_message(struct viommu *iommu, uint64_t offset, uint64_t address,
                                 uint32_t data)
{
    PROBE4(message, iommu, offset, address, data);
    if (watch_is_on(iommu)) {
        watch_tell(iommu, (struct viommu_observation){
                              .kind = VIOMMU_OBSERVED_MESSAGE,
                              .offset = offset,
                              .gpa = address,
                              .value = data,
                          });
    }
}

static inline void watch_event(struct viommu *iommu, const struct viommu_event *event)
{
    PROBE5(event, iommu, (int)event->kind, event->requester, event->error, event->text);
    if (watch_is_on(iommu)) {
        watch_tell(iommu,
                   (struct viommu_observation){.kind = VIOMMU_OBSERVED_EVENT,
                                               .requester = event->requester,
                                               .error = event->error,
                                               .event = event});
    }
}

/* ---- of a virtio-iommu ---- */

static inline void watch_accepted(struct viommu *iommu, uint64_t features)
{
    PROBE2(accepted, iommu, features);
    if (watch_is_on(iommu)) {
        watch_tell(iommu, (struct viommu_observation){.kind = VIOMMU_OBSERVED_ACCEPTED,
                                                      .value = features});
    }
}

/* `bytes`: `count` of them; the request has `size`. */
static inline void watch_request(struct viommu *iommu, uint64_t number, const uint8_t *bytes,
                                 size_t count, size_t size, size_t room)
{
    PROBE5(request, iommu, number, bytes, size, room);
    if (watch_is_on(iommu)) {
        watch_tell(iommu, (struct viommu_observation){
                              .kind = VIOMMU_OBSERVED_REQUEST,
                              .number = number,
                              .bytes = bytes,
                              .slot = (uint32_t)count,
                              .size = size < UINT32_MAX ? (uint32_t)size : UINT32_MAX,
                              .room = room,
                          });
    }
}

static inline void watch_restart(struct viommu *iommu, uint64_t number)
{
    PROBE2(restart, iommu, number);
    if (watch_is_on(iommu)) {
        watch_tell(iommu, (struct viommu_observation){.kind = VIOMMU_OBSERVED_RESTART,
                                                      .number = number});
    }
}

static inline void watch_answered(struct viommu *iommu, uint64_t number, uint32_t status,
                                  size_t written)
{
    PROBE4(answered, iommu, number, status, written);
    if (watch_is_on(iommu)) {
        watch_tell(iommu, (struct viommu_observation){
                              .kind = VIOMMU_OBSERVED_ANSWERED,
                              .number = number,
                              .status = status,
                              .size = (uint32_t)written,
                          });
    }
}

static inline void watch_requester(struct viommu *iommu, uint16_t id, bool present)
{
    PROBE3(requester, iommu, id, present);
    if (watch_is_on(iommu) && iommu->model->requester_gone) {
        watch_tell(iommu, (struct viommu_observation){.kind = VIOMMU_OBSERVED_REQUESTER,
                                                      .requester = id,
                                                      .value = present});
    }
}

#endif
