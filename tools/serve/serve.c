/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * viommu serve: an IOMMU, and devices behind it, as vfio-user devices for a virtual machine.
 *
 * The command line (options.h) tells what the service (service.h) is; its loop runs until a signal
 * ends it. A summary goes to standard output then; what happens meanwhile goes to standard error.
 */
#include "tools.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "options.h"
#include "service.h"
#include "summary.h"
#include "takeover.h"

static void announce(const struct service *service, const struct serve_options *options)
{
    const char *plural = service->device_count == 1 ? "" : "s";

    if (service->unit) {
        server_log("serving a %s on %s, %u device%s behind it; Ctrl-C ends",
                   service_unit_name(service), options->unit_socket, service->device_count, plural);
    } else {
        server_log("serving %u device%s without an IOMMU; Ctrl-C ends", service->device_count,
                   plural);
    }
}

static int run(struct serve_options *options)
{
    static struct service service;
    int ret = options->takeover ? takeover_run(&service, options)
                                : service_open(&service, options);

    if (ret < 0) {
        return ret;
    }
    announce(&service, options);
    ret = loop_run(&service.loop);
    if (ret < 0) {
        server_log("cannot go on: %s", strerror(-ret));
    }
    summary_print(&service);
    if (service.handed_over) {
        serve_trace_close(&service.trace);
        server_log("process %d has taken over", (int)service.handover.peer);
        exit(TOOL_OK); /* all that is open is that process's, too, and nothing may happen to it */
    }
    service_close(&service);
    return ret;
}

int viommu_tool_serve(int argc, char **argv)
{
    static struct serve_options options;
    int ret;

    serve_options_parse(&options, argc, argv);
    signal(SIGPIPE, SIG_IGN);
    ret = run(&options);
    serve_options_fini(&options);
    return ret < 0 ? TOOL_FAILED : TOOL_OK;
}
