/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A few threads that run jobs (store.h), so that the server's one thread never waits for a disk.
 *
 * A job is idle, queued, running, and then on the list of those that are done, until it is
 * collected: it is idle again then. The eventfd is readable while there are some to collect. A job
 * that is queued can be taken back; one that runs cannot.
 *
 * Locking: one lock over both lists, the progress of jobs, and the counts. It is never held while a
 * job runs. All functions but the threads' own are called on the server's thread.
 *
 * Without threads (count 0), for tests that have to repeat themselves exactly, jobs stay queued
 * until workers_run_one.
 */
#ifndef VIOMMU_SERVER_NVME_WORKERS_H
#define VIOMMU_SERVER_NVME_WORKERS_H

#include <stdbool.h>

#include "store.h"

struct nvme_workers;

/* store must outlive the workers; event_fd is written to when jobs are done. Returns 0 or a
 * negative errno. */
int nvme_workers_start(unsigned count, struct nvme_store *store, int event_fd,
                       struct nvme_workers **out);

void nvme_workers_submit(struct nvme_workers *workers, struct nvme_job *job);

/* Take a job back if it is queued. Returns whether it was. */
bool nvme_workers_cancel(struct nvme_workers *workers, struct nvme_job *job);

/* The jobs that are done, linked by next, in the order in which they ended; NULL: none. */
struct nvme_job *nvme_workers_collect(struct nvme_workers *workers);

/*
 * No job may be queued. Ends the threads, and frees all if they end within timeout_ms. Else returns
 * -ETIMEDOUT: they hang in a job, and what they use must stay for ever.
 */
int nvme_workers_stop(struct nvme_workers *workers, unsigned timeout_ms);

/* Without threads: run the job that waits longest. Returns whether there was one. */
bool nvme_workers_run_one(struct nvme_workers *workers);

#endif
