/* SPDX-License-Identifier: BSD-2-Clause */
/* --device edu: the edu device, and the mirror that writes down its mappings. */
#include <stddef.h>
#include <string.h>

#include "file.h"
#include "kind.h"
#include "log.h"
#include "service.h"
#include "summary.h"

static bool set_mirror(struct serve_device_options *device, const char *value)
{
    device->edu.mirror = value;
    return true;
}

static const struct serve_key keys[] = {
    {"mirror", "the name of a file", false, set_mirror},
    {0},
};

static int open_edu(struct served_device *served, const struct serve_device_options *options)
{
    struct served_edu *own = &served->edu;
    int ret = 0;

    edu_init(&own->edu, served->name, &served->dma);
    served->function = &own->edu.function;
    if (options->edu.mirror) {
        ret = serve_mirror_open(&own->mirror, served->behind, options->edu.mirror);
        own->mirrored = ret == 0;
    }
    if (ret < 0) {
        server_log("%s: cannot mirror into %s: %s", served->name, options->edu.mirror,
                   serve_file_error(ret));
    }
    return ret;
}

static void close_edu(struct served_device *served)
{
    int ret = served->edu.mirrored ? serve_mirror_close(&served->edu.mirror) : 0;

    if (ret < 0) {
        server_log("%s: the mirror's file is not complete: %s", served->name, strerror(-ret));
    }
}

static void count(const struct served_device *served, struct summary *summary)
{
    summary->transfers += served->edu.edu.transfers;
    summary->refusals += served->edu.edu.refusals;
}

const struct serve_kind serve_kind_edu = {
    .name = "edu",
    .keys = keys,
    .open = open_edu,
    .close = close_edu,
    .count = count,
};
