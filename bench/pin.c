/* SPDX-License-Identifier: BSD-2-Clause */
/* The CPUs of the process, as they were before the first thread was put on one. */
#include "pin.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>

static cpu_set_t allowed;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void allowed_read(void)
{
    if (pthread_getaffinity_np(pthread_self(), sizeof(allowed), &allowed)) {
        CPU_ZERO(&allowed);
    }
}

void pin(unsigned n)
{
    cpu_set_t one;

    pthread_once(&once, allowed_read);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &allowed) && n-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            (void)pthread_setaffinity_np(pthread_self(), sizeof(one), &one);
            return;
        }
    }
}

void unpin(void)
{
    pthread_once(&once, allowed_read);
    if (CPU_COUNT(&allowed)) {
        (void)pthread_setaffinity_np(pthread_self(), sizeof(allowed), &allowed);
    }
}
