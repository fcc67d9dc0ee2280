/* SPDX-License-Identifier: BSD-2-Clause */
/* --device nvme: the NVMe controller and its file. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "file.h"
#include "handover/fds.h"
#include "kind.h"
#include "log.h"
#include "nvme/nvme.h"
#include "parse.h"
#include "service.h"
#include "summary.h"

enum {
    SERIAL_MAX = 20,
};

static bool set_file(struct serve_device_options *device, const char *value)
{
    device->nvme.file = value;
    return true;
}

static bool set_readonly(struct serve_device_options *device, const char *value)
{
    (void)value;
    device->nvme.read_only = true;
    return true;
}

static bool set_lba(struct serve_device_options *device, const char *value)
{
    device->nvme.lba_shift = !strcmp(value, "512") ? 9 : !strcmp(value, "4096") ? 12 : 0;
    return device->nvme.lba_shift != 0;
}

static bool set_number(const char *value, unsigned most, unsigned *out)
{
    uint64_t number;

    if (!parse_number(value, &number) || number == 0 || number > most) {
        return false;
    }
    *out = (unsigned)number;
    return true;
}

static bool set_queues(struct serve_device_options *device, const char *value)
{
    return set_number(value, NVME_QUEUES_MAX, &device->nvme.queues);
}

static bool set_workers(struct serve_device_options *device, const char *value)
{
    return set_number(value, NVME_WORKERS_MAX, &device->nvme.workers);
}

static bool set_serial(struct serve_device_options *device, const char *value)
{
    for (const char *at = value; *at; at++) {
        if (*at < ' ' || *at > '~') {
            return false;
        }
    }
    device->nvme.serial = value;
    return strlen(value) <= SERIAL_MAX;
}

static bool set_hold(struct serve_device_options *device, const char *value)
{
    device->nvme.hold = value;
    return true;
}

static bool set_fail(struct serve_device_options *device, const char *value)
{
    device->nvme.fail = value;
    return true;
}

static const struct serve_key keys[] = {
    {"file", "the name of a file", true, set_file},
    {"readonly", NULL, false, set_readonly},
    {"lba", "512 or 4096", false, set_lba},
    {"queues", "1 to 63", false, set_queues},
    {"workers", "1 to 64", false, set_workers},
    {"serial", "1 to 20 printable characters", false, set_serial},
    {"hold", "the name of a file", false, set_hold},
    {"fail", "the name of a file", false, set_fail},
    {0},
};
_Static_assert(NVME_QUEUES_MAX == 63 && NVME_WORKERS_MAX == 64, "what the keys say they take");

/* With its file, which is given up when that fails. */
static int make_nvme(struct served_device *served, const struct serve_device_options *options,
                     int fd)
{
    const struct serve_nvme_options *own = &options->nvme;
    const struct nvme_config config = {
        .fd = fd,
        .read_only = own->read_only,
        .lba_shift = own->lba_shift,
        .queues = own->queues,
        .workers = own->workers,
        .serial = own->serial,
        .hold_path = own->hold,
        .fail_path = own->fail,
    };
    int ret = nvme_create(&config, served->name, &served->dma, served->loop, &served->nvme);

    if (ret < 0) {
        close(fd);
        server_log("%s: cannot serve %s: %s", served->name, own->file,
                   ret == -EINVAL ? "it does not hold one block" : strerror(-ret));
        return ret;
    }
    served->function = nvme_function(served->nvme);
    return 0;
}

static int open_nvme(struct served_device *served, const struct serve_device_options *options)
{
    int fd = serve_file_open(options->nvme.file, options->nvme.read_only ? O_RDONLY : O_RDWR);

    if (fd < 0) {
        server_log("%s: cannot open %s: %s", served->name, options->nvme.file,
                   serve_file_error(fd));
        return fd;
    }
    if (!serve_file_is_disk(fd)) {
        close(fd);
        server_log("%s: cannot serve %s: it is neither a file nor a block device", served->name,
                   options->nvme.file);
        return -ENOTBLK;
    }
    return make_nvme(served, options, fd);
}

static int close_nvme(struct served_device *served)
{
    return nvme_destroy(served->nvme);
}

static void quiesce(struct served_device *served)
{
    nvme_quiesce(served->nvme, NULL, NULL);
}

static bool quiet(const struct served_device *served)
{
    return nvme_quiet(served->nvme);
}

static void resume(struct served_device *served)
{
    nvme_resume(served->nvme);
}

/* The file goes along: its lock belongs to the open file, and so to whoever has it. */
static void save(const struct served_device *served, struct save_writer *writer,
                 struct handover_fds *fds)
{
    handover_put_fd(writer, fds, nvme_file(served->nvme));
    nvme_save(served->nvme, writer);
}

static int load(struct served_device *served, const struct serve_device_options *options,
                struct save_section *section, struct handover_fds *fds)
{
    int fd = handover_take_fd(section, fds), ret;

    if (fd < 0) {
        save_spoil(section);
        return section->error;
    }
    ret = make_nvme(served, options, fd);
    if (ret < 0) {
        return ret;
    }
    nvme_quiesce(served->nvme, NULL, NULL);
    return nvme_load(served->nvme, section);
}

static void summarize(const struct served_device *served)
{
    nvme_summary(served->nvme, summary_print_line);
}

const struct serve_kind serve_kind_nvme = {
    .name = "nvme",
    .keys = keys,
    .open = open_nvme,
    .close = close_nvme,
    .summarize = summarize,
    .quiesce = quiesce,
    .quiet = quiet,
    .resume = resume,
    .save = save,
    .load = load,
};
