/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A descriptor that tells an event loop "there is work": now (wake_kick), or at a time (wake_at).
 *
 * One epoll descriptor that holds an eventfd and a timerfd, so that an embedder watches a single
 * fd. Who has another way to be told gives a function: it is called in the descriptor's place, but
 * for times, and nothing is written or read then. Kicks are safe from any thread.
 */
#ifndef VIOMMU_BASE_WAKE_H
#define VIOMMU_BASE_WAKE_H

#include <stdatomic.h>
#include <stdint.h>

struct wake {
    int poll_fd;
    int event_fd;
    int timer_fd;
    _Atomic int kicked;         /* and not cleared: what is kicked once more costs nothing */
    uint64_t at;                /* the time that is set, or has come and was not cleared; 0: none */
    void (*tell)(void *opaque); /* instead of the eventfd; or NULL */
    void *opaque;
};

/*
 * `tell`, or NULL, is called with `opaque` by the first wake_kick after a wake_clear, on its
 * thread. Returns 0, -EMFILE, -ENFILE, -ENOSPC (too many watches) or -ENOMEM.
 */
int wake_init(struct wake *wake, void (*tell)(void *opaque), void *opaque);
void wake_fini(struct wake *wake);

/* Readable from now on, or told. */
void wake_kick(struct wake *wake);

/* Tells once more of a kick that was told and not cleared: nothing could be done about it then. */
void wake_remind(struct wake *wake);

/*
 * Readable when the monotonic clock reaches `ns`; 0 forgets the time. Calls that set times, and
 * those that clear, do not overlap: their caller has a lock.
 */
void wake_at(struct wake *wake, uint64_t ns);

/*
 * Readable at `ns`, which is not 0, or earlier: a time before it that was set stays. For times that
 * are most often over before they come: setting one, and forgetting it, costs a system call.
 */
void wake_by(struct wake *wake, uint64_t ns);

/*
 * Not readable any more, until the next kick or time. Call before looking for work. It costs no
 * system call when there was neither.
 */
void wake_clear(struct wake *wake);

/*
 * How long to wait, in nanoseconds, before looking again at something that cannot tell when it is
 * over: doubles from call to call, within limits. *pause 0 begins anew.
 */
uint64_t wake_pause(uint64_t *pause);

/* The host's monotonic clock in nanoseconds. */
uint64_t wake_now(void);

#endif
