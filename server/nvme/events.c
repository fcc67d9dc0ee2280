/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Asynchronous events: the guest leaves requests, and one is completed for each event. After an
 * event of a type, others of that type wait until its log page was read. An event that comes twice
 * before it is told is one.
 */
#include "device.h"

#include <string.h>

/* Which log page has more about an event of this type. */
static uint32_t log_page(enum nvme_event_type type)
{
    static const uint8_t pages[NVME_EVENT_TYPES] = {
        [NVME_EVENT_ERROR] = NVME_LOG_ERROR,
        [NVME_EVENT_SMART] = NVME_LOG_SMART,
        [NVME_EVENT_NOTICE] = NVME_LOG_CHANGED_NAMESPACES,
    };

    return pages[type];
}

void nvme_event(struct nvme *nvme, enum nvme_event_type type, enum nvme_event_info info)
{
    nvme->state.events_pending[type] |= UINT32_C(1) << info;
}

void nvme_events_seen(struct nvme *nvme, enum nvme_event_type type)
{
    nvme->state.events_masked[type] = false;
    /* The page is about now: what happened before it was read needs no telling. */
    if (type == NVME_EVENT_NOTICE) {
        nvme->state.events_pending[type] = 0;
    }
}

/* Complete the oldest request with an event. */
static void tell(struct nvme *nvme, enum nvme_event_type type)
{
    struct nvme_state *state = &nvme->state;
    uint32_t info = (uint32_t)__builtin_ctz(state->events_pending[type]);
    uint16_t cid = state->async_cid[0];

    state->events_pending[type] &= state->events_pending[type] - 1;
    state->events_masked[type] = true;
    state->async_count--;
    memmove(state->async_cid, state->async_cid + 1,
            state->async_count * sizeof(state->async_cid[0]));
    nvme->stats.events++;
    nvme_post(nvme, 0, cid, NVME_OK, (uint32_t)type | info << 8 | log_page(type) << 16);
}

/* A request holds no room in the completion queue while it waits: others could not use it. So an
 * event waits, too, while there is none. */
void nvme_events_deliver(struct nvme *nvme)
{
    struct nvme_state *state = &nvme->state;

    for (unsigned type = 0; type < NVME_EVENT_TYPES; type++) {
        if (state->async_count > 0 && state->events_pending[type] && !state->events_masked[type] &&
            nvme_running(nvme) && nvme_cq_has_room(nvme, 0)) {
            tell(nvme, (enum nvme_event_type)type);
        }
    }
}

void nvme_async_request(struct nvme *nvme, const struct nvme_request *request)
{
    struct nvme_state *state = &nvme->state;

    if (state->async_count == NVME_ASYNC_REQUESTS_MAX) {
        nvme_complete(nvme, request, NVME_ASYNC_EVENT_LIMIT | NVME_DNR, 0);
        return;
    }
    nvme_cq_unreserve(nvme, request->sqid);
    state->async_cid[state->async_count++] = request->cid;
}

bool nvme_async_abort(struct nvme *nvme, uint16_t cid)
{
    struct nvme_state *state = &nvme->state;

    for (unsigned i = 0; i < state->async_count; i++) {
        if (state->async_cid[i] == cid && nvme_cq_has_room(nvme, 0)) {
            state->async_count--;
            memmove(&state->async_cid[i], &state->async_cid[i + 1],
                    (state->async_count - i) * sizeof(state->async_cid[0]));
            nvme_post(nvme, 0, cid, NVME_ABORT_REQUESTED, 0);
            return true;
        }
    }
    return false;
}

void nvme_check_temperature(struct nvme *nvme)
{
    uint8_t wanted = (uint8_t)(nvme->state.features.async_events & NVME_ASYNC_SMART);

    if (nvme_critical_warning(nvme) & wanted) {
        nvme_event(nvme, NVME_EVENT_SMART, NVME_EVENT_SMART_TEMPERATURE);
    }
}
