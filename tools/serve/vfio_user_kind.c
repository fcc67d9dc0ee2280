/* SPDX-License-Identifier: BSD-2-Clause */
/* --device vfio-user: a device in another process, behind our unit. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "kind.h"
#include "log.h"
#include "service.h"
#include "summary.h"

static bool set_isolate(struct serve_device_options *device, const char *value)
{
    device->vfio_user.isolate = true;
    return value == NULL;
}

static const struct serve_key keys[] = {
    {"isolate", NULL, false, set_isolate},
    {0},
};

static int open_relay(struct served_device *served, const struct serve_device_options *options)
{
    unsigned answer_ms = options->vfio_user.answer_ms;
    const struct relay_config config = {
        .answer_ms = answer_ms > RELAY_ANSWER_MS ? answer_ms : 0,
        .name = served->name,
        .path = options->far,
        .device = served->behind,
        .isolate = options->vfio_user.isolate,
    };
    struct relay *relay = calloc(1, sizeof(*relay));
    int ret = relay ? relay_open(relay, served->loop, &config) : -ENOMEM;

    if (ret < 0) {
        server_log("%s: cannot connect to the far server at %s: %s", served->name, options->far,
                   service_far_error(ret));
        free(relay);
        return ret;
    }
    served->relay = relay;
    served->function = &relay->function;
    return 0;
}

static int close_relay(struct served_device *served)
{
    relay_close(served->relay);
    free(served->relay);
    return 0;
}

static void summarize(const struct served_device *served)
{
    const struct relay *relay = served->relay;
    const struct viommu_vfio_user_statistics statistics = relay_statistics(relay);

    summary_print_line("commands passed on", relay->passed_on);
    summary_print_line("commands answered without it", relay->answered_dead);
    summary_print_line("times that the far server was lost", relay->losses);
    summary_print_line("mappings told to the far server", statistics.maps);
    summary_print_line("mappings taken back from it", statistics.unmaps);
    summary_print_line("reads that it asked for", statistics.reads);
    summary_print_line("writes that it asked for", statistics.writes);
    summary_print_line("of these two, refused", statistics.refused);
}

const struct serve_kind serve_kind_vfio_user = {
    .name = "vfio-user",
    .far = "the socket of the vfio-user server whose device it is",
    .needs_unit = true,
    .keys = keys,
    .open = open_relay,
    .close = close_relay,
    .summarize = summarize,
};
