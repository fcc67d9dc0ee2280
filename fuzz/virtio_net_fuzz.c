/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: the virtio-net function whose rings a far process works on (server/virtio/net.h):
 * what a guest does to its registers and configuration space, and what the far process does at any
 * time: it comes, offers this or that, lets go of rings late, interrupts, fails, leaves.
 *
 * The conversation with the far process is the library's, and has a target of its own (vhost). Its
 * functions are this target's here: they do what viommu/vhost.h says, and what the input says where
 * that leaves a choice. Time is the input's, too (host.h).
 *
 * The first byte: enum START_*. Then operations: a byte each, the low four bits what, the high ones
 * an operand.
 *
 * Held: only what viommu/vhost.h allows is asked for; no ring runs for a driver that does not; a
 * reset is complete when all rings are idle; nothing leaks.
 */
#include "bytes.h"
#include "host.h"

#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_pci.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <viommu/vhost.h>

#include "log.h"
#include "loop.h"
#include "support/fds.h"
#include "unix_socket.h"
#include "virtio/net.h"
#include "virtio/pci.h"
#include "vtd_function.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    START_LISTENS = 1, /* somebody does */
    START_LACKS = 2,   /* the next bits: the how many-th thing cannot be made */
    START_LACKS_MAX = 15,
    START_MEMORY = 32, /* the rings are in guest memory */

    RINGS = 2,
    REQUESTER = 0x28,
    NOTIFY = 0x3000, /* in the BAR */
    BAR_SIZE = 0x4000,
    RAM_SIZE = 0x1000,
};

#define TRANSPORT (UINT64_C(1) << VIRTIO_F_VERSION_1 | UINT64_C(1) << VIRTIO_F_ACCESS_PLATFORM)

/* The far process, as the library shows it. */
struct viommu_vhost {
    bool there;
    struct viommu_vhost_config config;
    enum viommu_vhost_state state;
    int event;
    uint64_t offers;
    bool accepted;
    struct {
        bool runs, stopping, cut;
        int call;
    } rings[RINGS];
};

struct bed {
    struct loop loop;
    struct vtd_function vtd;
    struct viommu_device *device;
    struct virtio_net *net;
    int listener;
    void *cookie;
    bool mapped;
};

static struct viommu_vhost far;
static struct bed bed;
static char path[64];
static unsigned errors_left; /* as many calls of the library's fail that may */
static int ram_fd = -1;

static const struct pci_dma_region ram = {.last = RAM_SIZE - 1, .readable = true, .writable = true};

static void check(bool right, const char *what)
{
    if (!right) {
        fprintf(stderr, "virtio_net: %s\n", what);
        abort();
    }
}

/* ---- the library's ---- */

static bool fails(void)
{
    errors_left -= errors_left > 0;
    return errors_left > 0;
}

int viommu_vhost_create(const struct viommu_vhost_config *config, struct viommu_vhost **out)
{
    check(!far.there && config->fd >= 0 && config->rings == RINGS, "created in a wrong way");
    if (fails()) {
        return -ENOMEM;
    }
    far = (struct viommu_vhost){.there = true, .config = *config};
    far.event = (int)syscall(SYS_eventfd2, 0, EFD_NONBLOCK | EFD_CLOEXEC);
    *out = &far;
    return 0;
}

static void far_close_calls(void)
{
    for (unsigned i = 0; i < RINGS; i++) {
        if (far.rings[i].runs || far.rings[i].stopping || far.rings[i].cut) {
            close(far.rings[i].call);
        }
    }
}

void viommu_vhost_destroy(struct viommu_vhost *vhost)
{
    if (vhost) {
        far_close_calls();
        close(vhost->event);
        close(vhost->config.fd);
        vhost->there = false;
    }
}

int viommu_vhost_event_fd(struct viommu_vhost *vhost)
{
    return vhost->event;
}

int viommu_vhost_process(struct viommu_vhost *vhost)
{
    uint64_t count;

    (void)!read(vhost->event, &count, sizeof(count));
    return 0;
}

enum viommu_vhost_state viommu_vhost_state(const struct viommu_vhost *vhost)
{
    return vhost->state;
}

uint64_t viommu_vhost_features(const struct viommu_vhost *vhost)
{
    return vhost->state == VIOMMU_VHOST_READY ? vhost->offers & (vhost->config.features | TRANSPORT)
                                              : 0;
}

int viommu_vhost_accept(struct viommu_vhost *vhost, uint64_t features)
{
    check(vhost->state == VIOMMU_VHOST_READY, "accepted before it is ready");
    check(!(features & ~viommu_vhost_features(vhost)), "accepted what is not offered");
    check(features & UINT64_C(1) << VIRTIO_F_ACCESS_PLATFORM, "accepted without translation");
    for (unsigned i = 0; i < RINGS; i++) {
        check(!vhost->rings[i].runs && !vhost->rings[i].stopping, "accepted while a ring runs");
    }
    vhost->accepted = true;
    return 0;
}

int viommu_vhost_ring_start(struct viommu_vhost *vhost, unsigned ring,
                            const struct viommu_vhost_ring *setup)
{
    check(ring < RINGS && vhost->state == VIOMMU_VHOST_READY, "a ring of nobody's");
    check(vhost->accepted, "a ring before it is settled what is in it");
    check(!vhost->rings[ring].runs && !vhost->rings[ring].stopping && !vhost->rings[ring].cut,
          "a ring that is not idle");
    check(setup->size && !(setup->size & (setup->size - 1)), "a ring that makes no sense");
    check(setup->kick >= 0 && setup->call >= 0, "a ring without eventfds");
    if (fails()) {
        return -EMFILE;
    }
    vhost->rings[ring].runs = true;
    vhost->rings[ring].call = dup(setup->call);
    return 0;
}

int viommu_vhost_ring_stop(struct viommu_vhost *vhost, unsigned ring)
{
    if (vhost->rings[ring].cut) {
        close(vhost->rings[ring].call);
        vhost->rings[ring].cut = false;
        return 0;
    }
    if (!vhost->rings[ring].runs) {
        return -EINVAL;
    }
    vhost->rings[ring].runs = false;
    vhost->rings[ring].stopping = true;
    return 0;
}

int viommu_vhost_ring_renew(struct viommu_vhost *vhost, unsigned ring, int kick, int call)
{
    check(vhost->state == VIOMMU_VHOST_FAILED && vhost->rings[ring].cut, "renewed without need");
    check(kick >= 0 && call >= 0, "renewed without eventfds");
    if (fails()) {
        return -EMFILE;
    }
    close(vhost->rings[ring].call);
    vhost->rings[ring].call = dup(call);
    return 0;
}

int viommu_vhost_reconnect(struct viommu_vhost *vhost, int fd)
{
    check(vhost->state == VIOMMU_VHOST_FAILED, "reconnected without need");
    if (fails()) {
        return -EMFILE;
    }
    close(vhost->config.fd);
    vhost->config.fd = fd;
    vhost->state = VIOMMU_VHOST_NEGOTIATING;
    return 0;
}

int viommu_vhost_statistics(const struct viommu_vhost *vhost,
                            struct viommu_vhost_statistics *statistics, size_t size)
{
    (void)vhost;
    memset(statistics, 0, size);
    return 0;
}

/* ---- the far process ---- */

static void far_ready(uint64_t offers)
{
    if (!far.there || far.state != VIOMMU_VHOST_NEGOTIATING) {
        return;
    }
    far.offers = offers | TRANSPORT;
    far.state = VIOMMU_VHOST_READY;
    far.accepted = false;
    for (unsigned i = 0; i < RINGS; i++) {
        far.rings[i].runs = far.rings[i].cut;
        far.accepted |= far.rings[i].cut;
        far.rings[i].cut = false;
    }
    far.config.ready(far.config.opaque);
}

static void far_stopped(unsigned ring, uint16_t next)
{
    if (far.there && far.rings[ring].stopping) {
        far.rings[ring].stopping = false;
        close(far.rings[ring].call);
        far.config.stopped(far.config.opaque, ring, next);
    }
}

static void far_failed(uint8_t why)
{
    static const int errors[] = {-ECONNRESET, -ETIMEDOUT, -EPROTO, -ENOTSUP, -EIO};

    if (!far.there || far.state == VIOMMU_VHOST_FAILED) {
        return;
    }
    far.state = VIOMMU_VHOST_FAILED;
    for (unsigned i = 0; i < RINGS; i++) {
        if (far.rings[i].stopping) {
            close(far.rings[i].call);
        }
        far.rings[i].cut |= far.rings[i].runs;
        far.rings[i].runs = far.rings[i].stopping = false;
    }
    far.config.failed(far.config.opaque, errors[why % 5]);
}

static void far_calls(unsigned ring, bool takes_back)
{
    const uint64_t one = 1;

    if (far.there && (far.rings[ring].runs || far.rings[ring].stopping)) {
        host_signal_taken = takes_back;
        (void)!write(far.rings[ring].call, &one, sizeof(one));
    }
}

static void far_listens(void)
{
    bed.listener = unix_socket_listen(path, 0600);
    check(bed.listener >= 0, "no socket");
}

static void far_leaves(void)
{
    close(bed.listener);
    unlink(path);
    bed.listener = -1;
}

/* ---- the function ---- */

static void message(void *opaque, unsigned vector)
{
    (void)opaque;
    check(vector < RINGS + 1, "a vector that is none");
}

static void line(void *opaque, bool level)
{
    (void)opaque;
    (void)level;
}

static int write_message(void *opaque, uint64_t address, uint32_t data)
{
    (void)opaque;
    (void)address;
    (void)data;
    return 0;
}

static const struct pci_bus_ops bus = {
    .message_interrupt = message,
    .line_interrupt = line,
    .write_message = write_message,
};

static void step(void)
{
    int fd = bed.listener < 0 ? -1 : accept4(bed.listener, NULL, NULL, SOCK_CLOEXEC);

    if (fd >= 0) {
        close(fd);
    }
    for (int i = 0; i < 16 && loop_step(&bed.loop, 0) == 1; i++) {
    }
    host_signal_taken = false;
}

/* So many seconds, or what the next timer waits for. */
static void time_passes(unsigned seconds)
{
    if (seconds > 0) {
        host_wait(seconds * UINT64_C(1000000000));
    } else {
        host_wait_for_any();
    }
    step();
}

/* Returns false where the host lacked something. */
static bool make_net(void)
{
    const struct virtio_net_setup setup = {
        .far = path,
        .mac = {2, 4, 6, 8, 10, 12},
        .device = bed.device,
        .memory = bed.vtd.unit.memory,
        .loop = &bed.loop,
    };
    bool lacks = host_left > 0;
    int ret = virtio_net_create(&setup, "net", &bed.net);

    check(ret == 0 || (lacks && (ret == -EMFILE || ret == -ENOSPC)), "no function");
    if (ret == 0) {
        virtio_net_function(bed.net)->bus = &bus;
    }
    return ret == 0;
}

static void remove_net(void)
{
    virtio_net_destroy(bed.net);
    bed.net = NULL;
    virtio_net_destroy(bed.net); /* there is none */
    check(!far.there, "the far process was not cut off");
}

static void put(uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_function *function = virtio_net_function(bed.net);

    function->ops->bar_write(function->opaque, 0, offset, &value, size);
}

static uint8_t status(void)
{
    struct pci_function *function = virtio_net_function(bed.net);
    uint8_t value = 0;

    function->ops->bar_read(function->opaque, 0, VIRTIO_PCI_COMMON_STATUS, &value, 1);
    return value;
}

static void access_bar(bool write, struct fuzz_input *input)
{
    struct pci_function *function = virtio_net_function(bed.net);
    uint8_t data[16] = {0};
    uint64_t offset = fuzz_number(input, 2) % BAR_SIZE;
    uint8_t choice = fuzz_byte(input);
    size_t size = 1 + choice % sizeof(data);

    size = size < BAR_SIZE - offset ? size : (size_t)(BAR_SIZE - offset);
    if (write) {
        for (size_t i = 0; i < size; i++) {
            data[i] = fuzz_byte(input);
        }
        function->ops->bar_write(function->opaque, choice >> 7, offset, data, size);
    } else {
        function->ops->bar_read(function->opaque, choice >> 7, offset, data, size);
    }
}

static void access_config(uint8_t operand, struct fuzz_input *input)
{
    struct pci_function *function = virtio_net_function(bed.net);
    uint64_t offset = fuzz_byte(input), value = 0;
    unsigned size = 1u << (operand & 3);

    if (operand & 4) {
        function->ops->config_reading(function->opaque, offset, size);
        pci_config_read(&function->config, offset, &value, size);
    } else {
        value = fuzz_number(input, size);
        pci_config_write(&function->config, offset, &value, size);
        function->ops->config_written(function->opaque, offset, size);
    }
}

static void set_master(bool on)
{
    struct pci_function *function = virtio_net_function(bed.net);
    uint16_t command = on ? PCI_COMMAND_MASTER : 0;

    pci_config_write(&function->config, PCI_COMMAND, &command, sizeof(command));
    function->ops->config_written(function->opaque, PCI_COMMAND, sizeof(command));
}

/* A driver's start, right but for what it settles on, which queues it has, and how far it goes. */
static void begin(uint8_t operand, struct fuzz_input *input)
{
    uint8_t more = fuzz_byte(input);

    set_master(true);
    put(VIRTIO_PCI_COMMON_STATUS, 1, 0);
    put(VIRTIO_PCI_COMMON_STATUS, 1, 3);
    put(VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
    put(VIRTIO_PCI_COMMON_GF, 4,
        (operand & 1 ? UINT32_C(1) << VIRTIO_NET_F_MRG_RXBUF : 0) |
            (operand & 2 ? UINT32_C(1) << VIRTIO_NET_F_MAC : 0));
    put(VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
    put(VIRTIO_PCI_COMMON_GF, 4, more & 1 ? 1 : 3);
    put(VIRTIO_PCI_COMMON_STATUS, 1, 11);
    for (unsigned i = 0; i < RINGS; i++) {
        put(VIRTIO_PCI_COMMON_Q_SELECT, 2, i);
        put(VIRTIO_PCI_COMMON_Q_SIZE, 2, more & 2 ? 8 : 256);
        put(VIRTIO_PCI_COMMON_Q_MSIX, 2, i + 1);
        put(VIRTIO_PCI_COMMON_Q_DESCLO, 8, 0x1000);
        put(VIRTIO_PCI_COMMON_Q_ENABLE, 2, !(more & 4u << i));
    }
    if (!(operand & 4)) {
        put(VIRTIO_PCI_COMMON_STATUS, 1, 15);
    }
}

static void no_line(const char *name, uint64_t value)
{
    (void)name;
    (void)value;
}

static void reset_by_platform(void)
{
    struct pci_function *function = virtio_net_function(bed.net);

    pci_config_reset(&function->config);
    function->ops->reset(function->opaque);
}

/* ---- all together ---- */

static void check_all(void)
{
    struct pci_function *function = virtio_net_function(bed.net);
    bool resetting = function->ops->resetting(function->opaque), idle = true;
    uint8_t now = status();

    for (unsigned i = 0; i < RINGS; i++) {
        check(!far.there || !far.rings[i].runs ||
                  ((now & VIRTIO_CONFIG_S_DRIVER_OK) && !(now & VIRTIO_CONFIG_S_FAILED)),
              "a ring runs, and no driver");
        idle &= !far.there || !(far.rings[i].runs || far.rings[i].stopping);
    }
    check(!idle || !resetting, "a reset of idle rings");
}

static void operation(struct fuzz_input *input)
{
    uint8_t choice = fuzz_byte(input), operand = choice >> 4;

    switch (choice & 15) {
    case 0:
        access_bar(true, input);
        break;
    case 1:
        access_bar(false, input);
        break;
    case 2:
        access_config(operand, input);
        break;
    case 3:
        begin(operand, input);
        break;
    case 4:
        put(NOTIFY + 4 * (operand & 1), 2, operand & 1);
        break;
    case 5:
        far_ready(operand & 1 ? fuzz_number(input, 8) : operand & 2 ? 0 : UINT64_MAX);
        break;
    case 6:
        far_stopped(operand & 1, (uint16_t)fuzz_number(input, 2));
        break;
    case 7:
        far_failed(operand);
        break;
    case 8:
        far_calls(operand & 1, operand & 2);
        step();
        break;
    case 9:
        time_passes(operand);
        break;
    case 10:
        bed.listener < 0 ? far_listens() : far_leaves();
        break;
    case 11:
        errors_left = 1u + operand;
        break;
    case 12:
        reset_by_platform();
        break;
    case 13:
        put(VIRTIO_PCI_COMMON_STATUS, 1, operand & 8 ? VIRTIO_CONFIG_S_FAILED : operand);
        break;
    case 14:
        set_master(operand & 1);
        break;
    default:
        virtio_net_summary(bed.net, no_line);
        if (far.there) {
            const uint64_t one = 1;

            (void)!write(far.event, &one, sizeof(one));
        }
        step();
        break;
    }
}

static void remove_socket(void)
{
    unlink(path);
}

static void open_bed(uint8_t start)
{
    static const struct viommu_vtd_config config = {.caching_mode = true};
    static const struct viommu_config caches = {.iotlb_entries = 256};
    const struct viommu_device_config device = {.requester = REQUESTER};

    memset(&bed, 0, sizeof(bed));
    memset(&far, 0, sizeof(far));
    bed.listener = -1;
    host_reset();
    errors_left = 0;
    check(loop_init(&bed.loop) == 0, "no loop");
    check(vtd_function_init(&bed.vtd, "vtd", &config, &caches) == 0, "no unit");
    check(viommu_start(bed.vtd.unit.iommu) == 0, "no start");
    check(viommu_device_add(bed.vtd.unit.iommu, &device, &bed.device) == 0, "no device");
    if (start & START_LISTENS) {
        far_listens();
    }
    if (start & START_MEMORY) {
        bed.mapped = unit_memory_ops.map(&bed.vtd.unit, &ram, ram_fd, &bed.cookie) == 0;
        check(bed.mapped, "no memory");
    }
    host_left = start / START_LACKS & START_LACKS_MAX;
}

static void close_bed(void)
{
    if (bed.listener >= 0) {
        far_leaves();
    }
    if (bed.mapped) {
        unit_memory_ops.unmap(&bed.vtd.unit, ram.first, ram.last, bed.cookie);
    }
    viommu_device_remove(bed.device);
    vtd_function_fini(&bed.vtd);
    loop_fini(&bed.loop);
}

/* The far process leaves: then no reset waits any more. */
static void end(void)
{
    struct pci_function *function = virtio_net_function(bed.net);

    put(VIRTIO_PCI_COMMON_STATUS, 1, 0);
    far_failed(0);
    check(!function->ops->resetting(function->opaque) && status() == 0, "a reset does not end");
    remove_net();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {.data = data, .size = size};
    unsigned fds;

    if (!path[0]) {
        server_log_to(NULL);
        snprintf(path, sizeof(path), "/tmp/viommu-net-fuzz-%d", (int)getpid());
        atexit(remove_socket);
        ram_fd = memfd_create("ram", MFD_CLOEXEC);
        check(ram_fd >= 0 && ftruncate(ram_fd, RAM_SIZE) == 0, "no memory");
        check(pwrite(ram_fd, "\0\0\5\0", 4, 0) == 4, "no memory"); /* a used ring */
    }
    fds = support_open_fds();
    open_bed(fuzz_byte(&input));
    if (make_net()) {
        host_left = 0;
        while (fuzz_more(&input)) {
            operation(&input);
            check_all();
        }
        end();
    }
    close_bed();
    check(support_open_fds() == fds, "descriptors were left open");
    return 0;
}
