/* SPDX-License-Identifier: BSD-2-Clause */
/* See trace.h. */
#include "trace.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "log.h"

/* Ends the trace, and says so if it is not complete. */
static void end(struct serve_trace *trace)
{
    int error = trace_writer_close(trace->writer);

    trace->writer = NULL;
    if (error) {
        server_log("%s: the trace ends here: %s", trace->path, strerror(-error));
    }
}

static void second_passed(void *opaque, uint32_t events)
{
    struct serve_trace *trace = opaque;
    uint64_t expirations;

    (void)events;
    if (read(trace->timer.fd, &expirations, sizeof(expirations)) < 0) {
        return;
    }
    if (trace->writer && trace_writer_flush(trace->writer)) {
        end(trace);
    }
}

static int start_timer(struct serve_trace *trace)
{
    static const struct itimerspec every_second = {.it_interval.tv_sec = 1, .it_value.tv_sec = 1};
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    int ret;

    if (fd < 0) {
        return -errno;
    }
    trace->timer = (struct loop_source){
        .fd = fd, .events = EPOLLIN, .ready = second_passed, .opaque = trace};
    ret = timerfd_settime(fd, 0, &every_second, NULL) < 0 ? -errno
                                                          : loop_add(trace->loop, &trace->timer);
    if (ret < 0) {
        close(fd);
    }
    return ret;
}

int serve_trace_open(struct serve_trace *trace, struct loop *loop, struct viommu *iommu,
                     const struct serve_options *options)
{
    const char *path = options->trace;
    int ret;

    *trace = (struct serve_trace){.path = path, .loop = loop};
    if (options->iommu == SERVE_VIRTIO) {
        ret = trace_writer_open_virtio(path, iommu, &options->virtio, &trace->writer);
    } else {
        ret = trace_writer_open(path, iommu, &options->vtd, &trace->writer);
    }
    if (ret == 0) {
        ret = start_timer(trace);
        if (ret < 0) {
            trace_writer_close(trace->writer);
            trace->writer = NULL;
        }
    }
    if (ret < 0) {
        server_log("cannot trace into %s: %s", path, trace_writer_error(ret));
        trace->path = NULL;
    }
    return ret;
}

void serve_trace_close(struct serve_trace *trace)
{
    if (!trace->path) {
        return;
    }
    loop_remove(trace->loop, &trace->timer);
    close(trace->timer.fd);
    if (trace->writer) {
        end(trace);
    }
    trace->path = NULL;
}
