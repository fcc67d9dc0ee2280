/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Threads that run jobs; see workers.h.
 */
#include "workers.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* Jobs in a row, first in first out. */
struct row {
    struct nvme_job *first;
    struct nvme_job **end; /* where the next one is linked */
};

struct nvme_workers {
    pthread_mutex_t lock;
    pthread_cond_t wake; /* a job was queued, or stop */
    pthread_cond_t gone; /* a thread ended */
    struct row queued;
    struct row done;
    struct nvme_store *store;
    int event_fd;
    pthread_t *threads;
    unsigned started;
    unsigned alive; /* threads that have not ended */
    bool stop;
};

static void row_init(struct row *row)
{
    row->first = NULL;
    row->end = &row->first;
}

static void row_add(struct row *row, struct nvme_job *job)
{
    job->next = NULL;
    *row->end = job;
    row->end = &job->next;
}

static bool row_remove(struct row *row, struct nvme_job *job)
{
    for (struct nvme_job **at = &row->first; *at; at = &(*at)->next) {
        if (*at == job) {
            *at = job->next;
            if (!*at) {
                row->end = at;
            }
            return true;
        }
    }
    return false;
}

/* The lock is held, and is let go of while the job runs. */
static void run_first(struct nvme_workers *workers)
{
    struct nvme_job *job = workers->queued.first;
    uint64_t one = 1;

    row_remove(&workers->queued, job);
    job->progress = NVME_JOB_RUNNING;
    pthread_mutex_unlock(&workers->lock);
    nvme_store_run(workers->store, job);
    pthread_mutex_lock(&workers->lock);
    row_add(&workers->done, job);
    if (workers->done.first == job) {
        /* It cannot be full: it is read before the list is taken. */
        (void)!write(workers->event_fd, &one, sizeof(one));
    }
}

static void *work(void *opaque)
{
    struct nvme_workers *workers = opaque;

    pthread_mutex_lock(&workers->lock);
    while (!workers->stop) {
        if (workers->queued.first) {
            run_first(workers);
        } else {
            pthread_cond_wait(&workers->wake, &workers->lock);
        }
    }
    workers->alive--;
    pthread_cond_signal(&workers->gone);
    pthread_mutex_unlock(&workers->lock);
    return NULL;
}

/* Start one thread, which takes no signals: those are the server's. */
static int start_thread(struct nvme_workers *workers)
{
    sigset_t all, old;
    int error;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    error = pthread_create(&workers->threads[workers->started], NULL, work, workers);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error == 0) {
        workers->started++;
        workers->alive++;
    }
    return -error;
}

int nvme_workers_start(unsigned count, struct nvme_store *store, int event_fd,
                       struct nvme_workers **out)
{
    struct nvme_workers *workers = calloc(1, sizeof(*workers));
    pthread_condattr_t monotonic;
    int ret = 0;

    if (!workers) {
        return -ENOMEM;
    }
    workers->threads = calloc(count + 1, sizeof(*workers->threads));
    if (!workers->threads) {
        free(workers);
        return -ENOMEM;
    }
    workers->store = store;
    workers->event_fd = event_fd;
    row_init(&workers->queued);
    row_init(&workers->done);
    pthread_mutex_init(&workers->lock, NULL);
    pthread_cond_init(&workers->wake, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&workers->gone, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_lock(&workers->lock);
    while (ret == 0 && workers->started < count) {
        ret = start_thread(workers);
    }
    pthread_mutex_unlock(&workers->lock);
    if (ret < 0) {
        nvme_workers_stop(workers, UINT32_MAX);
        return ret;
    }
    *out = workers;
    return 0;
}

void nvme_workers_submit(struct nvme_workers *workers, struct nvme_job *job)
{
    pthread_mutex_lock(&workers->lock);
    job->progress = NVME_JOB_QUEUED;
    row_add(&workers->queued, job);
    pthread_cond_signal(&workers->wake);
    pthread_mutex_unlock(&workers->lock);
}

bool nvme_workers_cancel(struct nvme_workers *workers, struct nvme_job *job)
{
    bool queued;

    pthread_mutex_lock(&workers->lock);
    queued = job->progress == NVME_JOB_QUEUED;
    if (queued) {
        row_remove(&workers->queued, job);
        job->progress = NVME_JOB_IDLE;
    }
    pthread_mutex_unlock(&workers->lock);
    return queued;
}

struct nvme_job *nvme_workers_collect(struct nvme_workers *workers)
{
    struct nvme_job *first;

    pthread_mutex_lock(&workers->lock);
    first = workers->done.first;
    row_init(&workers->done);
    for (struct nvme_job *job = first; job; job = job->next) {
        job->progress = NVME_JOB_IDLE;
    }
    pthread_mutex_unlock(&workers->lock);
    return first;
}

static struct timespec time_after(unsigned ms)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += (long)(ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

int nvme_workers_stop(struct nvme_workers *workers, unsigned timeout_ms)
{
    struct timespec deadline = time_after(timeout_ms);
    int error = 0;

    atomic_store(&workers->store->stop, true);
    pthread_mutex_lock(&workers->lock);
    workers->stop = true;
    pthread_cond_broadcast(&workers->wake);
    while (workers->alive > 0 && error == 0) {
        error = pthread_cond_timedwait(&workers->gone, &workers->lock, &deadline);
    }
    error = workers->alive > 0 ? -ETIMEDOUT : 0;
    pthread_mutex_unlock(&workers->lock);
    for (unsigned i = 0; i < workers->started; i++) {
        if (error == 0) {
            pthread_join(workers->threads[i], NULL);
        } else {
            pthread_detach(workers->threads[i]);
        }
    }
    if (error == 0) {
        pthread_cond_destroy(&workers->gone);
        pthread_cond_destroy(&workers->wake);
        pthread_mutex_destroy(&workers->lock);
        free(workers->threads);
        free(workers);
    }
    return error;
}

bool nvme_workers_run_one(struct nvme_workers *workers)
{
    bool found;

    pthread_mutex_lock(&workers->lock);
    found = workers->queued.first != NULL;
    if (found) {
        run_first(workers);
    }
    pthread_mutex_unlock(&workers->lock);
    return found;
}
