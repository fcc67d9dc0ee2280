/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * unit_checks.c - what the guest's kernel says of the IOMMU, before and after all else.  See
 * unit_checks.h.
 */
#include "unit_checks.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "init.h"
#include "kmsg.h"
#include "report.h"
#include "vfio.h"

enum {
    CAP_CACHING_MODE = 1 << 7,
    ECAP_INTERRUPT_REMAPPING = 1 << 3,
};

/* How the lines of that driver begin. */
#define VIRTIO_DRIVER "virtio_iommu virtio"

static bool is_virtio(void)
{
    return init_word("viommu.virtio") != NULL;
}

/* The unit's name under /sys/class/iommu: "dmar0", or the PCI address of a virtio-iommu. */
static const char *unit_name(void)
{
    static char name[64] = "dmar0";
    DIR *directory;
    struct dirent *entry;

    if (!is_virtio() || !(directory = opendir("/sys/class/iommu"))) {
        return name;
    }
    while ((entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] != '.') {
            snprintf(name, sizeof(name), "%.60s", entry->d_name);
        }
    }
    closedir(directory);
    return name;
}

static void check_policy(bool strict)
{
    report_detail("no such line in the log");
    if (strict) {
        check(kmsg_find("TLB invalidation policy: strict mode") != NULL,
              "the kernel invalidates strictly");
    } else {
        check(kmsg_find("TLB invalidation policy: lazy mode") != NULL,
              "the kernel invalidates lazily");
    }
}

static void check_vtd(void)
{
    char cap[32] = "0", ecap[32] = "0", address[32] = "?";
    unsigned long long c, e;

    report_detail("no line \"DMAR: Intel(R) Virtualization Technology for Directed I/O\"");
    check(kmsg_find("DMAR: Intel(R) Virtualization Technology for Directed I/O") != NULL,
          "the kernel's VT-d driver runs");
    kmsg_show("DMAR: DRHD base");
    kmsg_show("DMAR: dmar0");
    report_detail("no /sys/class/iommu/dmar0");
    if (!check(init_read_file("/sys/class/iommu/dmar0/intel-iommu/cap", cap, sizeof(cap)),
               "the unit is there: dmar0")) {
        return;
    }
    init_read_file("/sys/class/iommu/dmar0/intel-iommu/ecap", ecap, sizeof(ecap));
    init_read_file("/sys/class/iommu/dmar0/intel-iommu/address", address, sizeof(address));
    c = strtoull(cap, NULL, 16);
    e = strtoull(ecap, NULL, 16);
    note("guest: unit at %s, cap %s, ecap %s%s%s", address, cap, ecap,
         c & CAP_CACHING_MODE ? ", caching mode" : "",
         e & ECAP_INTERRUPT_REMAPPING ? ", interrupt remapping" : "");
    report_detail("the unit was not reset: %s", "\"Translation already enabled\" in the log");
    check(!kmsg_find("ranslation already enabled") && !kmsg_find("ranslation is enabled"),
          "translation was off when the kernel came");
    /* With caching mode the kernel is strict whatever it was asked for, and does not say so. */
    if (!(c & CAP_CACHING_MODE)) {
        check_policy(init_word("iommu.strict=1") != NULL);
    }
}

static void check_virtio(void)
{
    char path[128];
    struct stat st;

    report_detail("no line of it");
    check(kmsg_find(VIRTIO_DRIVER) != NULL, "the kernel's driver of virtio-iommu runs");
    kmsg_show(VIRTIO_DRIVER);
    snprintf(path, sizeof(path), "/sys/class/iommu/%s/devices", unit_name());
    report_detail("no %s", path);
    if (check(stat(path, &st) == 0, "the unit is there: %s", unit_name())) {
        check_policy(init_word("iommu.strict=1") != NULL);
    }
}

/* What the kernel found, from its log and from /sys. */
void check_unit(void)
{
    if (is_virtio()) {
        check_virtio();
    } else {
        check_vtd();
    }
}

/* How the kernel treats the group of a device that its own driver uses. */
static void group_type(const char *bdf, char *type, size_t size)
{
    char path[128];

    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group/type", bdf);
    type[0] = '\0';
    init_read_file(path, type, size);
}

bool check_behind_unit(const char *bdf)
{
    bool strict = init_word("iommu.strict=1") != NULL;
    char path[128], type[32];
    struct stat st;
    bool behind;

    snprintf(path, sizeof(path), "/sys/class/iommu/%s/devices/%s", unit_name(), bdf);
    report_detail("no %s", path);
    behind = check(stat(path, &st) == 0, "%s: behind %s", bdf, unit_name());
    group_type(bdf, type, sizeof(type));
    report_detail("type is \"%s\"", type);
    /* Strict is what an administrator may ask for; lazily is "DMA-FQ", with a flush queue. */
    return check(strncmp(type, "DMA", 3) == 0 && (!strict || strcmp(type, "DMA") == 0),
                 "%s: has an IOMMU group of type %s", bdf, type) && behind;
}

void check_edu_group(struct edu *edu)
{
    int error = vfio_bind(edu->bdf, &edu->group);

    errno = -error;
    check(error == 0, "%s: bound to vfio-pci, group %u", edu->bdf, edu->group);
    /* Some kernels find the IOMMU of a device only when a driver takes the device. */
    check_behind_unit(edu->bdf);
}

void check_log(void)
{
    static const char *const complaints[] = {
        "DMAR: ERROR", "DMAR: VT-d detected", "DMAR: [Firmware", "BUG:", "WARNING:", "Call Trace",
        "soft lockup", "self-detected stall", "ACPI: VIOT: ", "deferred probe",
    };
    unsigned strays = kmsg_strays();
    const char *line = NULL;

    report_detail("%u of them", strays);
    check(strays == 0, "no fault that was not provoked");
    for (unsigned i = 0; i < sizeof(complaints) / sizeof(complaints[0]) && !line; i++) {
        line = kmsg_find(complaints[i]);
    }
    report_detail("%s", line);
    if (!check(!line, "no complaint in the log")) {
        kmsg_show_around(line);
    }
}
