/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The example hypervisor: the processes of its VMs. Each has its own pages of the machine's memory
 * mapped, and two sockets; nothing else of the hypervisor's.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

/* ---- messages ---- */

bool wire_send(int fd, const struct message *message)
{
    return send(fd, message, sizeof(*message), MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof(*message);
}

bool wire_receive(int fd, struct message *message, bool wait)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    ssize_t got;

    if (wait && poll(&ready, 1, PATIENCE * 1000) != 1) {
        return false;
    }
    got = recv(fd, message, sizeof(*message), MSG_DONTWAIT);
    return got == sizeof(*message) && message->size <= BODY;
}

/* Asks, and waits for the answer. */
static bool ask(const struct process *process, struct message *message)
{
    return wire_send(process->calls, message) && wire_receive(process->calls, message, true) &&
           message->kind == ANSWER;
}

static bool tell(const struct process *process, enum kind kind, uint64_t value)
{
    struct message message = {.kind = kind, .value = value};

    return ask(process, &message) && message.value == 0;
}

/* Asks, and takes no answer: whoever sends one finds that nobody is there. */
static void ask_and_die(const struct process *process, const struct message *message)
{
    bool ok = shutdown(process->calls, SHUT_RD) == 0 && wire_send(process->calls, message);

    _exit(!ok);
}

static bool wait_for(const struct process *process, enum kind kind)
{
    struct message message;

    return wire_receive(process->events, &message, true) && message.kind == kind;
}

/* A paravirtual call; `out` is the answer. True when its status is 0. */
static bool call(const struct process *process, const void *in, size_t in_size, void *out,
                 size_t out_size)
{
    struct message message = {.kind = CALL_PV, .size = (uint32_t)in_size};

    memcpy(message.body, in, in_size);
    if (!ask(process, &message) || message.value ||
        message.size < sizeof(struct viommu_pv_answer)) {
        return false;
    }
    memcpy(out, message.body, message.size < out_size ? message.size : out_size);
    return ((const struct viommu_pv_answer *)out)->status == VIOMMU_PV_OK;
}

bool process_map(struct process *process, uint64_t first, size_t count)
{
    void *pages = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, process->machine,
                       (off_t)(first * PAGE));

    process->pages = pages;
    return pages != MAP_FAILED;
}

static uint64_t *word(const struct process *process, uint64_t frame, unsigned offset)
{
    return (uint64_t *)(void *)(process->pages + frame * PAGE + offset);
}

static uint64_t load(const uint64_t *at)
{
    return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}

/* ---- the guest ---- */

/* Waits until the device has written to a page, more often than before. */
static bool sees_device(const struct process *process, uint64_t frame)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    uint64_t before = load(word(process, frame, WORD_OUT));
    time_t end = time(NULL) + PATIENCE;

    while (time(NULL) < end) {
        uint64_t now = load(word(process, frame, WORD_OUT));

        if (now > before && now > GREETING * (frame + 1) && now < GREETING * (frame + 2)) {
            return true;
        }
        nanosleep(&pause, NULL);
    }
    fprintf(stderr, "guest: the device does not write to frame %d\n", (int)frame);
    return false;
}

static bool sees_device_everywhere(const struct process *process, uint64_t except)
{
    for (uint64_t frame = 0; frame < GUEST_PAGES; frame++) {
        if (frame != except && !sees_device(process, frame)) {
            return false;
        }
    }
    return true;
}

int guest_main(const struct process *process)
{
    bool ok;

    for (uint64_t frame = 0; frame < GUEST_PAGES; frame++) {
        *word(process, frame, WORD_IN) = GREETING * (frame + 1);
    }
    ok = tell(process, CALL_READY, 0) && sees_device_everywhere(process, GUEST_PAGES) &&
         munmap(process->pages + (size_t)BALLOONED * PAGE, PAGE) == 0;
    if (ok && process->manner == GUEST_DIES) {
        ask_and_die(process, &(struct message){.kind = CALL_BALLOON, .value = BALLOONED});
    }
    ok = ok && tell(process, CALL_BALLOON, BALLOONED);
    /* Its other pages are as before, as long as there is somebody who models the device. */
    if (ok && process->manner != DIES && process->manner != DIES_IN_CALL) {
        ok = sees_device_everywhere(process, BALLOONED);
    }
    (void)tell(process, CALL_DONE, ok);
    return !ok;
}

/* ---- the mapper ---- */

static bool enable(const struct process *process)
{
    struct viommu_pv_head in = {VIOMMU_PV_VERSION, VIOMMU_PV_ENABLE, sizeof(in)};
    struct viommu_pv_answer out;

    return call(process, &in, sizeof(in), &out, sizeof(out));
}

/* Maps its own page, which holds the ring, at device frame 0. */
static bool map_ring(const struct process *process)
{
    struct viommu_pv_map_call in = {
        .head = {VIOMMU_PV_VERSION, VIOMMU_PV_MAP, sizeof(in)},
        .vm = VIOMMU_PV_SELF,
        .count = 1,
        .perm = VIOMMU_PV_READ,
    };
    struct viommu_pv_answer out;

    return call(process, &in, sizeof(in), &out, sizeof(out));
}

/* Maps the guest's pages, and puts the device frames that it gets into the ring. */
static bool map_guest(const struct process *process)
{
    struct {
        struct viommu_pv_foreign_call call;
        uint64_t frames[GUEST_PAGES];
    } in = {
        .call = {.head = {VIOMMU_PV_VERSION, VIOMMU_PV_MAP_FOREIGN, sizeof(in)},
                 .vm = GUEST,
                 .device_frame_max = 255,
                 .perm = VIOMMU_PV_READ | VIOMMU_PV_WRITE,
                 .count = GUEST_PAGES},
    };
    struct {
        struct viommu_pv_answer answer;
        struct viommu_pv_item items[GUEST_PAGES];
    } out;
    struct ring *ring = (struct ring *)(void *)process->pages;

    for (uint64_t i = 0; i < GUEST_PAGES; i++) {
        in.frames[i] = i;
    }
    if (!call(process, &in, sizeof(in), &out, sizeof(out)) || out.answer.done != GUEST_PAGES) {
        return false;
    }
    for (uint64_t i = 0; i < GUEST_PAGES; i++) {
        ring->device_frames[i] = out.items[i].device_frame;
    }
    ring->count = GUEST_PAGES;
    return true;
}

/* Unmaps the frame that is wanted back, which flushes, and says so. */
static bool give_back(const struct process *process, uint64_t device_frame)
{
    struct viommu_pv_map_call unmap = {
        .head = {VIOMMU_PV_VERSION, VIOMMU_PV_UNMAP, sizeof(unmap)},
        .vm = GUEST,
        .frame = BALLOONED,
        .device_frame = device_frame,
        .count = 1,
    };
    struct viommu_pv_acknowledge_call acknowledge = {
        .head = {VIOMMU_PV_VERSION, VIOMMU_PV_ACKNOWLEDGE, sizeof(acknowledge)},
        .vm = GUEST,
        .frame = BALLOONED,
    };
    struct viommu_pv_answer unmapped;
    struct viommu_pv_acknowledged acknowledged;

    if (process->manner == DIES_IN_CALL) {
        struct message message = {.kind = CALL_PV, .size = sizeof(unmap)};

        memcpy(message.body, &unmap, sizeof(unmap));
        ask_and_die(process, &message);
    }
    return call(process, &unmap, sizeof(unmap), &unmapped, sizeof(unmapped)) &&
           call(process, &acknowledge, sizeof(acknowledge), &acknowledged, sizeof(acknowledged)) &&
           acknowledged.remaining == 0;
}

int mapper_main(const struct process *process)
{
    struct message event;
    bool ok = wait_for(process, EVENT_BEGIN) && enable(process) && map_ring(process) &&
              map_guest(process) && tell(process, CALL_DOORBELL, 0);

    while (ok) {
        ok = wire_receive(process->events, &event, true);
        if (ok && event.kind == EVENT_END) {
            return 0;
        }
        if (ok && event.kind == EVENT_GIVE_BACK && process->manner == DIES) {
            return 0;
        }
        if (ok && event.kind == EVENT_GIVE_BACK && process->manner != REFUSES) {
            /* Of a guest that has died meanwhile there is nothing to give back. */
            ok = give_back(process, event.value) || process->manner == GUEST_DIES;
        }
    }
    fprintf(stderr, "mapper: failed\n");
    return 1;
}

/* ---- the newcomer ---- */

int newcomer_main(struct process *process)
{
    struct message event;
    bool untouched = true;
    bool ok = wire_receive(process->events, &event, true);

    if (ok && event.kind == EVENT_END) {
        return 1; /* there was no page to be given */
    }
    ok = ok && event.kind == EVENT_BEGIN && process_map(process, event.value, 1);
    if (ok) {
        memset(process->pages, 0x5a, PAGE);
        ok = tell(process, CALL_READY, 0) && wait_for(process, EVENT_LOOK);
    }
    for (size_t i = 0; ok && i < PAGE; i++) {
        untouched &= ((volatile const uint8_t *)process->pages)[i] == 0x5a;
    }
    return ok && tell(process, CALL_DONE, untouched) ? 0 : 1;
}
