/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Eventfds that another process has, too: a client's for interrupts, those of a far process's
 * rings.
 *
 * What a write and a read of an eventfd do depends on its counter and on a flag, O_NONBLOCK, and
 * whoever has the eventfd shares both: it can fill the counter, or empty it, and turn the flag off,
 * between any two steps of ours. So a plain write or read may wait for ever, whatever was asked
 * before. These two never wait.
 *
 * Threads: any.
 */
#ifndef VIOMMU_SERVER_SHARED_EVENTFD_H
#define VIOMMU_SERVER_SHARED_EVENTFD_H

#include <stdbool.h>

/* Add one to the counter; one that is full is readable as it is, and stays full. Returns whether it
 * was an eventfd, and is readable now as far as it is on us. */
bool shared_eventfd_signal(int fd);

/* Was it signalled? The counter is 0 then. */
bool shared_eventfd_take(int fd);

#endif
