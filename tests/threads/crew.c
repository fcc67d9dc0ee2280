/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Threads for tests: see crew.h.
 */
#include "crew.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

void crew_start(struct crew *crew, void *(*work)(void *arg), void *arg)
{
    pthread_t thread;
    int error = crew->count == CREW_MAX ? EAGAIN : pthread_create(&thread, NULL, work, arg);

    if (error) {
        guest_die("thread: %s", strerror(error));
    }
    crew->threads[crew->count++] = (unsigned long)thread;
}

void crew_stop(struct crew *crew)
{
    atomic_store(&crew->stopped, true);
    for (unsigned i = 0; i < crew->count; i++) {
        pthread_join((pthread_t)crew->threads[i], NULL);
    }
    crew->count = 0;
    atomic_store(&crew->stopped, false);
}

struct crew_time crew_begin(void)
{
    const char *text = getenv("VIOMMU_TEST_SCALE");
    double scale = text ? atof(text) : 1;
    uint64_t end = now() + (uint64_t)(scale * 1.5e9);

    return (struct crew_time){end, end + CREW_PATIENCE * 1000000000ull};
}

bool crew_more(const struct crew_time *time, bool shown)
{
    return now() < (shown ? time->end : time->last);
}

void crew_sleep(unsigned microseconds)
{
    struct timespec time = {.tv_nsec = (long)microseconds * 1000};

    nanosleep(&time, NULL);
}

void *crew_process(void *arg)
{
    struct crew_processor *processor = arg;
    struct pollfd poll_fd = {
        .fd = viommu_event_fd(processor->guest->iommu),
        .events = POLLIN,
    };

    while (crew_working(processor->crew)) {
        int result;

        if (poll(&poll_fd, 1, 20) <= 0) {
            continue;
        }
        result = viommu_process(processor->guest->iommu, processor->budget);
        if (result != 0 && result != VIOMMU_PENDING) {
            guest_die("viommu_process: %d", result);
        }
        atomic_fetch_add(&processor->rounds, 1);
    }
    return NULL;
}

uint64_t crew_pages(struct guest *guest, unsigned count, uint64_t first_iova, uint64_t *pages,
                    uint64_t *entries)
{
    uint64_t table = guest_page(guest);

    for (unsigned i = 0; i < count; i++) {
        pages[i] = guest_page(guest);
        entries[i] = guest_map(guest, table, 4, first_iova + i * GUEST_PAGE, 0, 1, 0);
    }
    return table;
}

void crew_check_page(const uint8_t *host, uint8_t byte, const char *text)
{
    for (unsigned i = 0; i < GUEST_PAGE; i++) {
        if (host[i] != byte) {
            guest_die("%s", text);
        }
    }
}
