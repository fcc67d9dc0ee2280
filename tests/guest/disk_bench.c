/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * disk_bench.c - how many random reads a second the guest reaches, and how often it can map and
 * unmap.  See disk_checks.h.
 *
 * Reads of 4 KiB past the page cache: one at a time, and many at once (Linux's AIO, a context a
 * thread, a thread a CPU).  Each read's memory is mapped before and unmapped after it by the
 * kernel.  The edu's mappings are made and unmade through VFIO, a page at a time.
 *
 * A figure is a line "# figure: NAME VALUE UNIT" for the harness outside.
 */
#include "disk_checks.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "init.h"
#include "iova.h"
#include "load.h"
#include "memory.h"
#include "report.h"
#include "vfio.h"

enum {
    DEPTH = 32,
    BLOCK = 4096,
    WARM_MS = 300,
};

struct reader {
    const struct disk *disk;
    unsigned index, depth;
    double seconds;         /* how long to measure */
    uint8_t *memory;
    uint64_t random;
    pthread_t thread;
    unsigned long reads;
    double took;            /* seconds */
    int error;
};

static double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void prepare(struct reader *r, struct iocb *cb, unsigned slot)
{
    r->random = r->random * 6364136223846793005ull + 1442695040888963407ull;
    memset(cb, 0, sizeof(*cb));
    cb->aio_data = slot;
    cb->aio_lio_opcode = IOCB_CMD_PREAD;
    cb->aio_fildes = (uint32_t)r->disk->direct;
    cb->aio_buf = (uintptr_t)(r->memory + (size_t)slot * BLOCK);
    cb->aio_nbytes = BLOCK;
    cb->aio_offset = (int64_t)((r->random >> 33) % (r->disk->sectors / 8) * BLOCK);
}

static bool submit(struct reader *r, aio_context_t context, struct iocb *cbs, const unsigned *slots,
                   unsigned count)
{
    struct iocb *list[DEPTH];

    for (unsigned i = 0; i < count; i++) {
        prepare(r, &cbs[slots[i]], slots[i]);
        list[i] = &cbs[slots[i]];
    }
    if (syscall(SYS_io_submit, context, (long)count, list) != (long)count) {
        r->error = errno;
        return false;
    }
    return true;
}

static void run_reads(struct reader *r, aio_context_t context)
{
    struct io_event events[DEPTH];
    struct iocb cbs[DEPTH];
    unsigned slots[DEPTH];
    double began = now(), end = began + WARM_MS * 1e-3 + r->seconds, at = began;
    bool warm = false;

    for (unsigned i = 0; i < r->depth; i++) {
        slots[i] = i;
    }
    for (unsigned free = r->depth; at < end && submit(r, context, cbs, slots, free);) {
        long n = syscall(SYS_io_getevents, context, 1L, (long)r->depth, events, NULL);

        free = n > 0 ? (unsigned)n : 0;
        for (unsigned i = 0; i < free; i++) {
            slots[i] = (unsigned)events[i].data;
            r->error = events[i].res == BLOCK ? r->error : EIO;
        }
        if (free == 0 || r->error) {
            r->error = r->error ? r->error : EIO;
            break;
        }
        r->reads += free;
        at = now();
        if (!warm && at >= began + WARM_MS * 1e-3) {
            warm = true;
            began = at;
            r->reads = 0;
        }
    }
    r->took = at - began;
}

static void *read_thread(void *arg)
{
    struct reader *r = arg;
    aio_context_t context = 0;

    if (syscall(SYS_io_setup, (long)DEPTH, &context)) {
        r->error = errno;
        return NULL;
    }
    run_reads(r, context);
    syscall(SYS_io_destroy, context);
    return NULL;
}

static bool start_reader(struct reader *r)
{
    pthread_attr_t attr;
    cpu_set_t cpu;
    bool ok;

    r->memory = memory_get((size_t)r->depth * BLOCK, PAGE);
    CPU_ZERO(&cpu);
    CPU_SET((int)r->index, &cpu);
    pthread_attr_init(&attr);
    pthread_attr_setaffinity_np(&attr, sizeof(cpu), &cpu);
    ok = r->memory && pthread_create(&r->thread, &attr, read_thread, r) == 0;
    pthread_attr_destroy(&attr);
    return ok;
}

static void measure_reads(const struct disk *disk, unsigned threads, unsigned depth,
                          double seconds, const char *name)
{
    struct reader readers[LOAD_THREADS_MAX];
    double rate = 0;
    int error = 0;
    bool ok = true;
    unsigned started = 0;

    memset(readers, 0, sizeof(readers));
    for (; ok && started < threads; started += ok) {
        readers[started] = (struct reader){.disk = disk, .index = started, .depth = depth,
                                           .seconds = seconds, .random = started + 1};
        ok = start_reader(&readers[started]);
    }
    for (unsigned i = 0; i < started; i++) {
        pthread_join(readers[i].thread, NULL);
        memory_put(readers[i].memory, (size_t)depth * BLOCK);
        rate += readers[i].took > 0 ? (double)readers[i].reads / readers[i].took : 0;
        error = readers[i].error ? readers[i].error : error;
    }
    report_detail("%s", strerror(error));
    if (check(ok && !error, "reads: %s", name)) {
        note("figure: %s %.0f a second", name, rate);
    }
}

/* One page, mapped and unmapped again; with a DMA in between, and without. */
static void measure_maps(struct station *s, double seconds, bool dma, const char *name)
{
    uint8_t *page = memory_get(PAGE, PAGE);
    unsigned long cycles = 0;
    double began = now();
    bool ok = page != NULL;

    while (ok && now() < began + seconds) {
        ok = vfio_map(s->container, STORM_IOVA, page, PAGE, DMA_BOTH) == 0 &&
             (!dma || edu_to_ram(s->edu, STORM_IOVA, 0, 64) == 0) &&
             vfio_unmap(s->container, STORM_IOVA, PAGE) == 0;
        cycles++;
    }
    if (check(ok, "mappings: %s", name)) {
        double rate = (double)cycles / (now() - began);

        note("figure: %s %.0f a second", name, rate);
        /* A virtio-iommu is asked twice each time: MAP, UNMAP. */
        if (!dma && init_word("viommu.virtio")) {
            note("figure: requests %.0f a second", 2 * rate);
        }
    }
    memory_put(page, PAGE);
}

void measure_disk(struct disk *disk, const struct disk_plan *plan)
{
    double seconds = init_number("viommu.bench-ms=", 2000) * 1e-3;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    struct load load;

    /* Blocks that were never written may be holes in the file, which read faster. */
    check(load_run(disk, LOAD_WRITE, plan->threads, &load), "the whole disk is written");
    measure_reads(disk, 1, 1, seconds, "reads-one");
    measure_reads(disk, (unsigned)(cpus < LOAD_THREADS_MAX ? cpus : LOAD_THREADS_MAX), DEPTH,
                  seconds, "reads-many");
    if (plan->edu) {
        measure_maps(plan->edu, seconds, false, "map-unmap");
        measure_maps(plan->edu, seconds, true, "map-dma-unmap");
    }
}
