/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * disk_test.c - /init of the test guest that has a disk: a stock Linux kernel and its own NVMe
 * driver, behind VT-d, a virtio-iommu, or behind nothing.
 *
 * Words of the kernel command line:
 *   viommu.part=WHAT  disk, failures, killed, takeover, far, or bench (disk_checks.h)
 *   viommu.threads=N  threads that use the disk at once (default 8)
 *   viommu.edu=N      an edu that is used meanwhile is there (0: none)
 *   viommu.virtio     the unit is a virtio-iommu, not VT-d
 *   viommu.qemu-unit  unit and disk are QEMU's own, not ours
 *   viommu.off        there is no unit, or the kernel leaves it off
 *   iommu.strict=1    checked against what the kernel made of it
 */
#include <string.h>

#include "device_checks.h"
#include "disk.h"
#include "disk_checks.h"
#include "init.h"
#include "kmsg.h"
#include "load.h"
#include "report.h"
#include "unit_checks.h"

/* The other device; false when there is none, or it cannot be used. */
static bool open_neighbour(struct edu *edu, struct station *station)
{
    if (!init_number("viommu.edu=", 0)) {
        return false;
    }
    if (!check(edu_find(edu, 1) == 1, "an edu device")) {
        return false;
    }
    if (init_word("viommu.off")) {
        return false;
    }
    check_edu_group(edu);
    return station_open(station, edu);
}

static void check_part(struct disk *disk, const struct disk_plan *plan)
{
    static const struct {
        const char *name;
        void (*run)(struct disk *disk, const struct disk_plan *plan);
    } parts[] = {
        {"disk", check_disk}, {"failures", check_disk_failures},
        {"killed", check_disk_killed},
        {"takeover", check_disk_takeover}, {"far", check_disk_far}, {"bench", measure_disk},
    };
    const char *wanted = init_word("viommu.part=");

    for (unsigned i = 0; wanted && i < sizeof(parts) / sizeof(parts[0]); i++) {
        size_t len = strlen(parts[i].name);

        if (strncmp(wanted, parts[i].name, len) == 0 && (!wanted[len] || wanted[len] == ' ')) {
            parts[i].run(disk, plan);
            return;
        }
    }
    report_detail("it is none of mine");
    check(false, "viommu.part");
}

int main(void)
{
    struct disk_plan plan = {.threads = 8};
    struct station station;
    struct disk disk;
    struct edu edu;

    init_set_up();
    if (kmsg_open(false, init_word("viommu.virtio") != NULL)) {
        check(false, "open /dev/kmsg");
    }
    init_load_modules();
    plan.threads = init_number("viommu.threads=", 8);
    plan.threads = plan.threads < LOAD_THREADS_MAX ? plan.threads : LOAD_THREADS_MAX;
    plan.translated = !init_word("viommu.off");
    if (plan.translated) {
        check_unit();
    }
    if (disk_open(&disk)) {
        if (plan.translated) {
            check_behind_unit(disk.bdf);
        }
        if (open_neighbour(&edu, &station)) {
            plan.edu = &station;
        }
        check_part(&disk, &plan);
        disk_show_marks(&disk);
        if (plan.edu) {
            station_close(&station);
        }
        disk_close(&disk);
    }
    check_log();
    init_finish();
}
