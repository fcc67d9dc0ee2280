/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Replays a trace of a virtio-iommu; see replay.h.
 *
 * Nothing holds a request back here, so each is complete when it has been sent and the unit has
 * worked; what it was answered is kept under its number until the trace says the answer. In the
 * trace that may come much later: how long a request was pending is not compared.
 */
#include "replay.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <viommu/device.h>
#include <viommu/memory.h>

enum {
    BYPASS_OFFSET = 36,
    ROOM_MAX = 1 << 17, /* more than the largest answer */
    IDS = 1 << 16,
};

/* What a request was answered. */
struct answer {
    uint64_t number;
    uint32_t status;
    uint32_t written;
};

/* The IOVA space of an id. */
struct place {
    struct place *next;
    uint16_t id;
    struct viommu_iova *space;
    struct viommu_iova_owner *owner;
};

struct replay {
    const struct trace *trace;
    struct replay_end end;
    FILE *out;
    struct viommu_memory *memory;
    struct viommu *iommu;
    uint8_t *answer;                       /* ROOM_MAX */
    struct viommu_device *devices[IDS];    /* by their ids */
    struct place *places;                  /* their IOVA spaces, the newest first */
    struct answer *answers; /* that the trace has not said, in order */
    size_t first;
    size_t count;
    size_t room;
    bool completed; /* the request under way, which was pending */
    uint8_t status;
};

static void on_completed(void *opaque, uint64_t token, uint8_t status)
{
    struct replay *replay = opaque;

    (void)token; /* one at a time */
    replay->completed = true;
    replay->status = status;
}

static void settle(struct replay *replay)
{
    while (viommu_process(replay->iommu, 0) == VIOMMU_PENDING) {
    }
}

/* ---- answers ---- */

static void keep_answer(struct replay *replay, const struct answer *answer)
{
    if (replay->first == replay->count) {
        replay->first = replay->count = 0;
    }
    if (replay->count == replay->room) {
        size_t room = replay->room ? 2 * replay->room : 64;
        struct answer *answers = reallocarray(replay->answers, room, sizeof(*answers));

        if (!answers) {
            replay_stop(&replay->end, REPLAY_FAILED, 0, "there is not enough memory");
            return;
        }
        replay->answers = answers;
        replay->room = room;
    }
    replay->answers[replay->count++] = *answer;
}

/* Takes the answer of a request out. Nearly always it is the first. */
static bool take_answer(struct replay *replay, uint64_t number, struct answer *out)
{
    for (size_t i = replay->first; i < replay->count; i++) {
        if (replay->answers[i].number == number) {
            *out = replay->answers[i];
            memmove(&replay->answers[replay->first + 1], &replay->answers[replay->first],
                    (i - replay->first) * sizeof(*replay->answers));
            replay->first++;
            return true;
        }
    }
    return false;
}

/* ---- what the driver does ---- */

static void send(struct replay *replay, const struct trace_record *record)
{
    uint8_t bytes[TRACE_REQUEST_MAX] = {0};
    size_t size = record->size < sizeof(bytes) ? record->size : sizeof(bytes);
    size_t room = record->high < ROOM_MAX ? (size_t)record->high : ROOM_MAX;
    struct answer answer = {.number = record->value, .status = VIOMMU_OBSERVED_SILENCE};
    size_t written = 0;
    int ret;

    memcpy(bytes, replay->trace->bytes + record->low, record->slot);
    replay->completed = false;
    ret = viommu_virtio_request(replay->iommu, bytes, size, replay->answer, room, 0,
                                &written);
    settle(replay);
    if (ret == VIOMMU_PENDING && replay->completed) {
        answer.status = replay->status;
        answer.written = 4;
    } else if (ret) {
        replay_stop(&replay->end, REPLAY_DIFFERS, record->line,
                    "the request is not taken, or not completed");
        return;
    } else if (written) {
        answer.status = replay->answer[written - 4];
        answer.written = (uint32_t)written;
    }
    keep_answer(replay, &answer);
}

static void restart(struct replay *replay, const struct trace_record *record)
{
    struct answer answer = {.number = record->value};
    int ret;

    replay->completed = false;
    ret = viommu_virtio_reset(replay->iommu, 0);
    settle(replay);
    if (ret && !(ret == VIOMMU_PENDING && replay->completed)) {
        replay_stop(&replay->end, REPLAY_DIFFERS, record->line,
                    "the reset is not taken, or not completed");
        return;
    }
    keep_answer(replay, &answer);
}

static void accept(struct replay *replay, const struct trace_record *record)
{
    int ret = viommu_virtio_accept(replay->iommu, record->value);

    if (ret) {
        replay_stop(&replay->end, REPLAY_DIFFERS, record->line,
                    "the features 0x%" PRIx64 " are not offered", record->value);
    }
    settle(replay);
}

static void expect(struct replay *replay, const struct trace_record *record)
{
    struct answer answer;

    if (!take_answer(replay, record->value, &answer)) {
        replay_stop(&replay->end, REPLAY_DIFFERS, record->line,
                    "an answer to request %" PRIu64 ", which was not sent, or was answered before",
                    record->value);
    } else if (answer.status != record->reason || answer.written != record->size) {
        replay_stop(&replay->end, REPLAY_DIFFERS, record->line,
                    "traced: %s, %" PRIu32 " bytes written; now: %s, %" PRIu32,
                    trace_status_word(record->reason), record->size,
                    trace_status_word(answer.status), answer.written);
    }
}

static struct place *place_of(struct replay *replay, uint16_t id)
{
    const struct viommu_iova_config config = {0};
    struct place *place = replay->places;

    while (place && place->id != id) {
        place = place->next;
    }
    if (place) {
        return place;
    }
    place = calloc(1, sizeof(*place));
    if (place && viommu_iova_create(&config, &place->space)) {
        free(place);
        place = NULL;
    }
    if (place) {
        place->id = id;
        place->next = replay->places;
        replay->places = place;
    }
    return place;
}

static void places_free(struct replay *replay)
{
    while (replay->places) {
        struct place *place = replay->places;

        replay->places = place->next;
        viommu_iova_destroy(place->space);
        free(place);
    }
}

/* The first range of a list takes the place of all that came before. */
static void closed(struct replay *replay, const struct trace_record *record)
{
    struct place *place = place_of(replay, (uint16_t)record->slot);
    struct viommu_iova_request request = {
        .type = VIOMMU_IOVA_RESERVED, .range = {record->low, record->high}};
    struct viommu_iova_reservation *reservation;
    int ret = place ? 0 : -ENOMEM;

    if (!ret && (!record->size || !place->owner)) {
        viommu_iova_owner_destroy(place->owner);
        place->owner = NULL;
        ret = viommu_iova_owner_create(place->space, "trace", &place->owner);
    }
    if (!ret && record->low <= record->high) {
        ret = viommu_iova_reserve(place->owner, &request, 1, &reservation, NULL);
    }
    if (ret == -ENOMEM) {
        replay_stop(&replay->end, REPLAY_FAILED, record->line, "%s", strerror(ENOMEM));
    } else if (ret) {
        replay_stop(&replay->end, REPLAY_DIFFERS, record->line, "this range cannot be closed: %s",
                    strerror(-ret));
    }
}

/* A device for each id: an alias is not told from a device's own. */
static void requester(struct replay *replay, const struct trace_record *record)
{
    struct viommu_device_config config = {.requester = (uint16_t)record->slot};
    struct viommu_device **device = &replay->devices[config.requester];
    int ret = 0;

    if (record->value && !*device) {
        struct place *place = place_of(replay, config.requester);

        if (place) {
            viommu_iova_owner_destroy(place->owner); /* of one that had the id before */
            place->owner = NULL;
            config.space = place->space;
        }
        ret = viommu_device_add(replay->iommu, &config, device);
    } else if (!record->value) {
        (void)viommu_device_remove(*device);
        *device = NULL;
        settle(replay);
    }
    if (ret) {
        replay_stop(&replay->end, REPLAY_FAILED, record->line, "%s", strerror(-ret));
    }
}

static void play(struct replay *replay, const struct trace_record *record,
                 struct replay_counts *counts)
{
    switch (record->kind) {
    case VIOMMU_OBSERVED_WRITE:
        viommu_mmio_write(replay->iommu, record->offset, record->size, record->value);
        settle(replay);
        counts->writes++;
        break;
    case VIOMMU_OBSERVED_RESET:
        viommu_reset(replay->iommu);
        settle(replay);
        replay->first = replay->count = 0; /* what was pending is not answered */
        break;
    case VIOMMU_OBSERVED_ACCEPTED:
        accept(replay, record);
        break;
    case VIOMMU_OBSERVED_REQUEST:
        send(replay, record);
        counts->requests++;
        break;
    case VIOMMU_OBSERVED_RESTART:
        restart(replay, record);
        counts->requests++;
        break;
    case VIOMMU_OBSERVED_ANSWERED:
        expect(replay, record);
        break;
    case VIOMMU_OBSERVED_REQUESTER:
        requester(replay, record);
        break;
    case VIOMMU_OBSERVED_CLOSED:
        closed(replay, record);
        break;
    default:
        break; /* a VT-d unit's */
    }
}

static void print(const struct replay *replay, const struct trace_record *record)
{
    const char *verdict = replay->end.verdict == REPLAY_SAME ? "ok" : "differs";

    if (!replay->out) {
        return;
    }
    fprintf(replay->out, "%u: %s", record->line, trace_kind_words[record->kind]);
    if (record->kind == VIOMMU_OBSERVED_REQUEST) {
        unsigned type = record->slot ? replay->trace->bytes[record->low] : 0;

        fprintf(replay->out, " %" PRIu64 " %s", record->value, trace_request_word(type));
    } else if (record->kind == VIOMMU_OBSERVED_ANSWERED) {
        fprintf(replay->out, " %" PRIu64 " %s", record->value, trace_status_word(record->reason));
    } else if (record->kind == VIOMMU_OBSERVED_WRITE) {
        fprintf(replay->out, " 0x%" PRIx64 " value=0x%" PRIx64, record->offset, record->value);
    }
    fprintf(replay->out, "  => %s\n", verdict);
}

/* ---- the beginning and the end ---- */

static void make_unit(struct replay *replay)
{
    struct viommu_virtio_config virtio = replay->trace->virtio;
    struct viommu_config config = {.iotlb_entries = 256, .opaque = replay};
    int ret = viommu_memory_create(&replay->memory);

    virtio.completed = on_completed;
    config.memory = replay->memory;
    replay->answer = malloc(ROOM_MAX);
    if (!replay->answer) {
        ret = -ENOMEM;
    }
    if (!ret) {
        ret = viommu_virtio_create(&config, &virtio, &replay->iommu);
    }
    if (!ret) {
        ret = viommu_start(replay->iommu);
    }
    if (ret) {
        replay_stop(&replay->end, REPLAY_FAILED, 1, "cannot make a unit like that: %s",
                    strerror(-ret));
    }
}

static void compare(struct replay *replay, const struct trace_state *traced,
                    enum replay_verdict verdict, unsigned line, const char *when)
{
    const struct trace_state now = trace_state_of(replay->iommu);

    if (traced->features != now.features || traced->domains != now.domains ||
        traced->endpoints != now.endpoints || traced->mappings != now.mappings ||
        traced->bypass != now.bypass) {
        replay_stop(&replay->end, verdict, line,
                    "%s: features 0x%" PRIx64 ", %" PRIu64 " domains, %" PRIu64
                    " endpoints, %" PRIu64 " mappings, bypass %" PRIu64 "; not so now",
                    when, traced->features, traced->domains, traced->endpoints, traced->mappings,
                    traced->bypass);
    }
}

static void drop(struct replay *replay)
{
    viommu_destroy(replay->iommu);
    places_free(replay);
    viommu_memory_destroy(replay->memory);
    free(replay->answers);
    free(replay->answer);
}

enum replay_verdict trace_replay_virtio(const struct trace *trace, FILE *out,
                                        struct replay_counts *counts, struct trace_error *error)
{
    struct replay *replay = calloc(1, sizeof(*replay));
    enum replay_verdict verdict;

    if (!replay) {
        snprintf(error->text, sizeof(error->text), "there is not enough memory");
        return REPLAY_FAILED;
    }
    replay->trace = trace;
    replay->end.error = error;
    replay->out = out;
    make_unit(replay);
    if (replay->end.verdict == REPLAY_SAME && trace->has_start) {
        compare(replay, &trace->start_state, REPLAY_FAILED, 1,
                "the trace begins in the middle of a unit's life");
    }
    for (size_t i = 0; i < trace->count && replay->end.verdict == REPLAY_SAME; i++) {
        play(replay, &trace->records[i], counts);
        print(replay, &trace->records[i]);
    }
    if (replay->end.verdict == REPLAY_SAME && trace->ended) {
        compare(replay, &trace->end_state, REPLAY_DIFFERS, trace->end_line, "in the end");
    }
    verdict = replay->end.verdict;
    drop(replay);
    free(replay);
    return verdict;
}
