/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mirror_test.c - /init of the guest in which the library's backends drive a real kernel.
 *
 * The library is linked into this program. An inner guest (mirror.h) programs the library's VT-d
 * unit; a backend mirrors its tables into the kernel's VFIO or iommufd, under which is the VT-d
 * unit that QEMU emulates; and an edu device does DMA through all of it.
 *
 * Words of the kernel command line:
 *   viommu.iommufd    iommufd; otherwise VFIO's container
 *   viommu.pages=N    scattered pages of the test of many (default 100000)
 *   viommu.limit=N    mappings that the host takes, less than the pages (default 65535)
 *   viommu.dump       print what the host says of reserved addresses (sources_checks.h)
 *   viommu.log-all    wait wherever the driver's rate limit would keep a fault out of its log
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "init.h"
#include "kmsg.h"
#include "mirror_checks.h"
#include "report.h"
#include "sources_checks.h"
#include "../../tools/iova/kernel.h"
#include "vfio.h"

static struct mirror mirror;

static bool prepare(struct edu *edu, unsigned limit, bool iommufd)
{
    unsigned found = edu_find(edu, 1);
    int error;

    report_detail("none found");
    if (!check(found == 1, "an edu device")) {
        return false;
    }
    error = vfio_bind(edu->bdf, &edu->group);
    errno = -error;
    if (!check(!error, "%s: bound to vfio-pci, group %u", edu->bdf, edu->group)) {
        return false;
    }
    return iommufd || check(host_set_limit(limit), "a limit of %u mappings", limit);
}

/* What `viommu iova` asks the kernel, before a mirror takes the device. */
static void check_asked(const struct edu *edu, bool iommufd)
{
    const struct kernel_paths paths = {"/sys", "/dev"};
    struct kernel_answer answer = {.count = 0};
    unsigned group = 0;
    bool said, apart;

    if (iommufd) {
        said = kernel_ask_iommufd(&paths, edu->bdf, &answer);
    } else {
        said = kernel_find_group(&paths, edu->bdf, &group) && group == edu->group &&
               kernel_ask_vfio(&paths, group, &answer);
    }
    apart = answer.count > 1;
    for (size_t i = 0; i < answer.count; i++) {
        apart =
            apart && (answer.ranges[i].last < 0xfee00000 || answer.ranges[i].first > 0xfeefffff);
    }
    check(said && apart, "%s: %zu ranges can be mapped, the interrupt range is in none", answer.who,
          answer.count);
    free(answer.ranges);
}

static void run(struct mirror *m, const struct mirror_plan *plan)
{
    if (!check_start(m)) {
        return;
    }
    check_three_pages(m);
    check_nothing_changed(m);
    check_permissions(m);
    check_rewrite(m);
    check_big_page(m);
    check_memory_goes(m);
    check_many(m, plan);
    check_too_many(m, plan);
    check_cut_off(m);
}

int main(void)
{
    struct mirror_plan plan;
    struct edu edu;
    bool iommufd;

    init_set_up();
    if (kmsg_open(init_word("viommu.log-all") != NULL, false)) {
        check(false, "open /dev/kmsg");
    }
    init_load_modules();
    check_sources(init_word("viommu.dump") != NULL);
    iommufd = init_word("viommu.iommufd") != NULL;
    plan.limit = init_number("viommu.limit=", 65535);
    plan.pages = init_number("viommu.pages=", 100000);
    if (prepare(&edu, plan.limit, iommufd)) {
        check_asked(&edu, iommufd);
        if (mirror_open(&mirror, &edu, iommufd, plan.limit)) {
            run(&mirror, &plan);
            mirror_close(&mirror);
        }
    }
    report_detail("%u of them", kmsg_strays());
    check(kmsg_strays() == 0, "no fault that was not provoked");
    init_finish();
}
