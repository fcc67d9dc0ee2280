/* SPDX-License-Identifier: BSD-2-Clause */
/* --device edu: the edu device, and the mirror that writes down its mappings. */
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "file.h"
#include "handover/fds.h"
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

static void make_edu(struct served_device *served)
{
    edu_init(&served->edu.edu, served->name, &served->dma);
    served->function = &served->edu.edu.function;
}

static int open_edu(struct served_device *served, const struct serve_device_options *options)
{
    struct served_edu *own = &served->edu;
    int ret = 0;

    make_edu(served);
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

static int close_edu(struct served_device *served)
{
    int ret = served->edu.mirrored ? serve_mirror_close(&served->edu.mirror) : 0;

    if (ret < 0) {
        server_log("%s: the mirror's file is not complete: %s", served->name, strerror(-ret));
    }
    return 0;
}

static void summarize(const struct served_device *served)
{
    summary_print_line("device transfers done", served->edu.edu.transfers);
    summary_print_line("device transfers refused", served->edu.edu.refusals);
}

static void save_edu(const struct served_device *served, struct save_writer *writer,
                     struct handover_fds *fds)
{
    handover_put_fd(writer, fds, served->edu.mirrored ? served->edu.mirror.fd : -1);
    edu_save(&served->edu.edu, writer);
}

static int load_edu(struct served_device *served, const struct serve_device_options *options,
                    struct save_section *section, struct handover_fds *fds)
{
    struct served_edu *own = &served->edu;
    int fd = handover_take_fd(section, fds), ret = 0;

    make_edu(served);
    if ((fd >= 0) != (options->edu.mirror != NULL)) {
        save_spoil(section);
        if (fd >= 0) {
            close(fd);
        }
    } else if (fd >= 0) {
        ret = serve_mirror_adopt(&own->mirror, served->behind, fd);
        own->mirrored = ret == 0;
    }
    return ret < 0 ? ret : edu_load(&own->edu, section);
}

const struct serve_kind serve_kind_edu = {
    .name = "edu",
    .keys = keys,
    .open = open_edu,
    .close = close_edu,
    .summarize = summarize,
    .save = save_edu,
    .load = load_edu,
};
