/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: what a guest may do to the served virtio-iommu: registers, configuration space,
 * rings and descriptors of every kind, requests, memory that goes; DMA and windows of an edu behind
 * it; and the state of it all, whole or changed, in another process.
 *
 * The input is operations, one byte each (low four bits what, high four bits an operand) and then
 * what the operation reads. Guest memory is RAM_SIZE bytes at RAM, and the same once more at the
 * end of the address space where the input wants that; rings are where begin() puts them unless the
 * input puts them elsewhere. The other process may lack something, or be set up otherwise.
 *
 * Held after every operation: what was taken out of a queue is given back, or pending; the model's
 * limits; a state that is loaded is saved again to the byte. One run may not leak anything: memory
 * is watched by the leak checker, descriptors by a count here.
 */
#include "bytes.h"
#include "host.h"

#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_iommu.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <viommu/window.h>

#include "edu.h"
#include "log.h"
#include "save/stream.h"
#include "support/fds.h"
#include "virtio/iommu.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    RAM = 0x100000,
    RAM_SIZE = 0x10000,
    DESCRIPTORS = 0, /* offsets in it; those of the other queue are QUEUE_STRIDE behind */
    AVAILABLE = 0x1000,
    USED = 0x2000,
    QUEUE_STRIDE = 0x3000,
    TABLE = 0x6000,
    DATA = 0x8000,
    SLOT = 0x100,
    SLOTS = 16,

    REQUESTER = 0x28,
    NOTIFY = 0x3000, /* in the BAR */
    BAR_SIZE = 0x4000,
    MAPPINGS_MAX = 64,

    /* What another process is made with, of an operand. */
    MOVE_CHANGED = 1,   /* a byte of the state is another */
    MOVE_LACKS = 2,     /* the next two bits, and this: what cannot be made */
    MOVE_OTHERWISE = 7, /* none lacks: the unit is another */
};

#define TOP (UINT64_MAX - (RAM_SIZE - 1))

struct bed {
    struct virtio_iommu iommu;
    struct viommu_device *device;
    struct edu edu;
    struct viommu_window *window;
    void *cookie, *top_cookie;
    bool mapped, top_mapped;
};

static int ram_fd = -1;
static uint8_t *ram;

static void check(bool right, const char *what)
{
    if (!right) {
        fprintf(stderr, "virtio_ring: %s\n", what);
        abort();
    }
}

static void message(void *opaque, unsigned vector)
{
    (void)opaque;
    check(vector < 3, "a vector that is none");
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

/* ---- a bed ---- */

static void map_at(struct bed *bed, uint64_t first, bool *mapped, void **cookie)
{
    struct pci_function *function = &bed->iommu.pci.function;
    const struct pci_dma_region region = {
        .first = first, .last = first + (RAM_SIZE - 1), .readable = true, .writable = true};

    if (!*mapped) {
        *mapped = function->memory->map(function->memory_opaque, &region, ram_fd, cookie) == 0;
    }
}

static void unmap_at(struct bed *bed, uint64_t first, bool *mapped, void *cookie)
{
    struct pci_function *function = &bed->iommu.pci.function;

    if (*mapped) {
        function->memory->unmap(function->memory_opaque, first, first + (RAM_SIZE - 1), cookie);
        *mapped = false;
    }
}

static void map(struct bed *bed)
{
    map_at(bed, RAM, &bed->mapped, &bed->cookie);
}

static void unmap(struct bed *bed)
{
    unmap_at(bed, RAM, &bed->mapped, bed->cookie);
}

static void change_memory(struct bed *bed, uint8_t operand)
{
    if (!(operand & 2)) {
        operand & 1 ? unmap(bed) : map(bed);
    } else if (operand & 1) {
        unmap_at(bed, TOP, &bed->top_mapped, bed->top_cookie);
    } else {
        map_at(bed, TOP, &bed->top_mapped, &bed->top_cookie);
    }
}

/* Returns false where the host lacked something. */
static bool make(struct bed *bed, bool otherwise)
{
    const struct viommu_virtio_config config = {
        .bypass = true,
        .mappings_max = MAPPINGS_MAX,
        .domains_max = 4,
        .faults_max = 4,
        .probe_size = otherwise ? 0 : 64,
    };
    static const struct viommu_config caches = {.iotlb_entries = 256};
    const struct viommu_device_config device = {.requester = REQUESTER};
    bool lacks = host_left > 0;
    int ret;

    memset(bed, 0, sizeof(*bed));
    ret = virtio_iommu_init(&bed->iommu, "virtio", &config, &caches);
    host_left = 0;
    check(ret == 0 || (lacks && (ret == -EMFILE || ret == -ENOSPC)), "no unit");
    if (ret < 0) {
        return false;
    }
    check(viommu_device_add(bed->iommu.unit.iommu, &device, &bed->device) == 0, "no device");
    bed->iommu.pci.function.bus = &bus;
    return true;
}

static void make_edu(struct bed *bed)
{
    struct device_dma dma = unit_dma;
    uint16_t command = PCI_COMMAND_MASTER;

    dma.opaque = bed->device;
    edu_init(&bed->edu, "edu", &dma);
    pci_config_write(&bed->edu.function.config, PCI_COMMAND, &command, sizeof(command));
}

static void release(struct bed *bed)
{
    if (bed->window) {
        viommu_window_release(bed->window);
        bed->window = NULL;
    }
}

static void close_bed(struct bed *bed)
{
    release(bed);
    change_memory(bed, 1);
    change_memory(bed, 3);
    virtio_iommu_process(&bed->iommu);
    viommu_device_remove(bed->device);
    virtio_iommu_fini(&bed->iommu);
}

/* ---- what holds ---- */

static void check_queue(const struct bed *bed, unsigned queue, unsigned pending)
{
    const struct virtio_ring *ring = &bed->iommu.pci.queues[queue].ring;

    check((uint16_t)(ring->returned + pending) == ring->next, "a chain was lost");
}

static void check_all(const struct bed *bed)
{
    const struct virtio_pci *pci = &bed->iommu.pci;
    struct viommu_virtio_status status;

    check(bed->iommu.pending_count <= VIRTIO_IOMMU_PENDING_MAX, "more pending than there is room");
    if (!pci->resetting && !(pci->status & VIRTIO_CONFIG_S_NEEDS_RESET)) {
        check_queue(bed, 0, bed->iommu.pending_count);
        check_queue(bed, 1, 0);
    }
    check(!(pci->status & VIRTIO_CONFIG_S_DRIVER_OK) || pci->status & VIRTIO_CONFIG_S_FEATURES_OK,
          "it runs without features");
    viommu_virtio_status(bed->iommu.unit.iommu, &status, sizeof(status));
    check(status.mappings <= MAPPINGS_MAX && status.domains <= 4, "past the limits");
}

/* ---- what a guest does ---- */

static void put(struct bed *bed, uint64_t offset, unsigned size, uint64_t value)
{
    bed->iommu.pci.function.ops->bar_write(&bed->iommu.pci, 0, offset, &value, size);
}

static void bar(struct bed *bed, bool write, struct fuzz_input *input)
{
    uint8_t data[16] = {0};
    uint64_t offset = fuzz_number(input, 2) % BAR_SIZE;
    uint8_t choice = fuzz_byte(input);
    unsigned which = choice >> 7;
    size_t size = 1 + choice % sizeof(data);

    size = size < BAR_SIZE - offset ? size : (size_t)(BAR_SIZE - offset);
    if (write) {
        for (size_t i = 0; i < size; i++) {
            data[i] = fuzz_byte(input);
        }
        bed->iommu.pci.function.ops->bar_write(&bed->iommu.pci, which, offset, data, size);
    } else {
        bed->iommu.pci.function.ops->bar_read(&bed->iommu.pci, which, offset, data, size);
    }
}

static void configure(struct bed *bed, uint8_t operand, struct fuzz_input *input)
{
    struct pci_function *function = &bed->iommu.pci.function;
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

/* A right start, with the transport's features as the operand says. */
static void begin(struct bed *bed, uint8_t operand)
{
    uint16_t command = PCI_COMMAND_MASTER;
    uint32_t low = 0x77 | (operand & 1 ? UINT32_C(1) << VIRTIO_RING_F_INDIRECT_DESC : 0) |
                   (operand & 2 ? UINT32_C(1) << VIRTIO_RING_F_EVENT_IDX : 0);

    pci_config_write(&bed->iommu.pci.function.config, PCI_COMMAND, &command, sizeof(command));
    put(bed, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    put(bed, VIRTIO_PCI_COMMON_STATUS, 1, 3);
    put(bed, VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
    put(bed, VIRTIO_PCI_COMMON_GF, 4, low);
    put(bed, VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
    put(bed, VIRTIO_PCI_COMMON_GF, 4, 1);
    put(bed, VIRTIO_PCI_COMMON_STATUS, 1, 11);
    memset(ram, 0, 2 * QUEUE_STRIDE);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t at = RAM + (uint64_t)i * QUEUE_STRIDE;

        put(bed, VIRTIO_PCI_COMMON_Q_SELECT, 2, i);
        put(bed, VIRTIO_PCI_COMMON_Q_SIZE, 2, operand & 4 ? 256 : 32);
        put(bed, VIRTIO_PCI_COMMON_Q_DESCLO, 8, at + DESCRIPTORS);
        put(bed, VIRTIO_PCI_COMMON_Q_AVAILLO, 8, at + AVAILABLE);
        put(bed, VIRTIO_PCI_COMMON_Q_USEDLO, 8, at + USED);
        put(bed, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
    }
    put(bed, VIRTIO_PCI_COMMON_STATUS, 1, 15);
}

static void poke(struct fuzz_input *input)
{
    size_t at = fuzz_number(input, 2) % RAM_SIZE, size = fuzz_byte(input) % 40u;

    for (size_t i = 0; i < size && at + i < RAM_SIZE; i++) {
        ram[at + i] = fuzz_byte(input);
    }
}

static void describe(size_t table, unsigned at, uint64_t gpa, uint32_t length, uint16_t flags,
                     uint16_t next)
{
    const struct vring_desc descriptor = {.addr = gpa, .len = length, .flags = flags, .next = next};
    size_t offset = table + sizeof(descriptor) * at;

    if (offset <= RAM_SIZE - sizeof(descriptor)) {
        memcpy(ram + offset, &descriptor, sizeof(descriptor));
    }
}

static void describe_any(uint8_t operand, struct fuzz_input *input)
{
    size_t table = operand & 1 ? TABLE : DESCRIPTORS + (operand & 2 ? QUEUE_STRIDE : 0);
    unsigned at = fuzz_byte(input);
    uint64_t gpa = RAM + fuzz_number(input, 2);
    uint32_t length = (uint32_t)fuzz_number(input, operand & 4 ? 4 : 1);
    uint16_t flags = fuzz_byte(input);
    uint16_t next = fuzz_byte(input);

    describe(table, at, operand & 8 ? gpa << 40 : gpa, length, flags, next);
}

/* Puts a head into an available ring. */
static void offer(const struct bed *bed, unsigned queue, uint16_t head)
{
    uint8_t *available = ram + AVAILABLE + queue * QUEUE_STRIDE;
    uint16_t index;

    memcpy(&index, available + 2, sizeof(index));
    memcpy(available + 4 + 2 * (index % bed->iommu.pci.queues[queue].ring.size), &head,
           sizeof(head));
    index++;
    memcpy(available + 2, &index, sizeof(index));
}

/* A request that is nearly right. */
static size_t compose(uint8_t *at, uint8_t type, struct fuzz_input *input)
{
    uint8_t choice = fuzz_byte(input);
    uint32_t domain = 1 + (choice & 3u), endpoint = REQUESTER + (choice & 4 ? 1 : 0);
    uint64_t first = (uint64_t)(fuzz_byte(input) & 31) << 12, last = first + 0xfff;

    if (choice & 8) {
        last = UINT64_C(0xffffffffffff);
    }
    switch (type) {
    case VIRTIO_IOMMU_T_ATTACH: {
        struct virtio_iommu_req_attach r = {
            .head.type = type, .domain = domain, .endpoint = endpoint, .flags = choice >> 7};

        memcpy(at, &r, 20);
        return 20;
    }
    case VIRTIO_IOMMU_T_DETACH: {
        struct virtio_iommu_req_detach r = {
            .head.type = type, .domain = domain, .endpoint = endpoint};

        memcpy(at, &r, 20);
        return 20;
    }
    case VIRTIO_IOMMU_T_MAP: {
        struct virtio_iommu_req_map r = {.head.type = type,
                                         .domain = domain,
                                         .virt_start = first,
                                         .virt_end = last,
                                         .phys_start = RAM,
                                         .flags = 3};

        memcpy(at, &r, 36);
        return 36;
    }
    case VIRTIO_IOMMU_T_UNMAP: {
        struct virtio_iommu_req_unmap r = {
            .head.type = type, .domain = domain, .virt_start = first, .virt_end = last};

        memcpy(at, &r, 28);
        return 28;
    }
    default: {
        struct virtio_iommu_req_probe r = {.head.type = type, .endpoint = endpoint};

        memcpy(at, &r, 72);
        return 72;
    }
    }
}

static void request(struct bed *bed, uint8_t type, struct fuzz_input *input)
{
    uint8_t where = fuzz_byte(input);
    unsigned slot = where % SLOTS;
    uint64_t gpa = RAM + DATA + (uint64_t)slot * SLOT;
    size_t size = compose(ram + DATA + slot * SLOT, type, input);
    bool indirect = where & 0x80;
    size_t table = indirect ? TABLE + slot * 64u : DESCRIPTORS;
    unsigned at = indirect ? 0 : 2 * slot;

    describe(table, at, gpa, (uint32_t)size, VRING_DESC_F_NEXT, (uint16_t)(at + 1));
    describe(table, at + 1, gpa + 128, where & 0x40 ? 68 : 4, VRING_DESC_F_WRITE, 0);
    if (indirect) {
        describe(DESCRIPTORS, 2 * slot, RAM + table, 32, VRING_DESC_F_INDIRECT, 0);
    }
    offer(bed, 0, (uint16_t)(2 * slot));
    if (!(where & 0x20)) {
        put(bed, NOTIFY, 2, 0);
    }
}

/* A buffer for a fault. */
static void buffer(struct bed *bed, struct fuzz_input *input)
{
    uint8_t where = fuzz_byte(input);

    describe(QUEUE_STRIDE + DESCRIPTORS, where % SLOTS, RAM + DATA + where % SLOTS * SLOT,
             8 + where / 8u, VRING_DESC_F_WRITE, 0);
    offer(bed, 1, where % SLOTS);
    put(bed, NOTIFY + 4, 2, 1);
}

static void dma(struct bed *bed, struct fuzz_input *input)
{
    uint8_t choice = fuzz_byte(input);
    uint64_t iova = (uint64_t)(choice & 31) << 12;
    const uint64_t values[][2] = {
        {EDU_REG_DMA_SOURCE, choice & 32 ? EDU_BUFFER : iova},
        {EDU_REG_DMA_DESTINATION, choice & 32 ? iova : EDU_BUFFER},
        {EDU_REG_DMA_COUNT, 64},
        {EDU_REG_DMA_COMMAND, EDU_DMA_START | (choice & 32 ? EDU_DMA_TO_MEMORY : 0)},
    };

    for (unsigned i = 0; i < 4; i++) {
        bed->edu.function.ops->bar_write(&bed->edu, 0, values[i][0], &values[i][1], 8);
    }
}

static void on_revoke(void *opaque)
{
    (void)opaque;
}

static void pin(struct bed *bed, struct fuzz_input *input)
{
    const uint64_t first = (uint64_t)(fuzz_byte(input) & 31) << 12;
    const struct viommu_range range = {.first = first, .last = first + 63};
    const struct viommu_window_request wanted = {
        .ranges = &range, .count = 1, .perm = VIOMMU_WRITE, .revoke = on_revoke};
    struct iovec iov[1];
    size_t count = 1;

    if (!bed->window &&
        viommu_device_pin(bed->device, NULL, &wanted, iov, &count, &bed->window) < 0) {
        bed->window = NULL;
    }
}

static void platform_reset(struct bed *bed)
{
    pci_config_reset(&bed->iommu.pci.function.config);
    bed->iommu.pci.function.ops->reset(bed->iommu.pci.function.opaque);
}

/* ---- another process ---- */

static bool save(const struct bed *bed, struct save_writer *writer)
{
    save_writer_init(writer, SAVE_SERVER);
    save_begin(writer, 1, 0, 1, 0);
    writer->section = writer->size;
    return virtio_iommu_save(&bed->iommu, writer) == 0 && writer->error == 0;
}

static struct save_section section_of(const struct save_writer *writer)
{
    return (struct save_section){
        .at = writer->data + writer->section, .left = writer->size - writer->section, .version = 1};
}

/* Whether what was loaded and not processed yet is saved as it was. */
static bool is_same(const struct bed *bed, const struct save_writer *before)
{
    struct save_writer again;
    bool same = save(bed, &again) && again.size == before->size &&
                memcmp(again.data + again.section, before->data + before->section,
                       before->size - before->section) == 0;

    save_writer_fini(&again);
    return same;
}

/* Has *other go on with the state; enum MOVE_* says what is in the way. */
static void move(struct bed **bed, struct bed **other, uint8_t operand, struct fuzz_input *input)
{
    struct bed *from = *bed, *to = *other;
    struct save_writer writer;
    struct save_section section;
    unsigned lacks = operand / MOVE_LACKS;
    bool otherwise = lacks == MOVE_OTHERWISE, changed = (operand & MOVE_CHANGED) || otherwise;

    if (!save(from, &writer)) {
        save_writer_fini(&writer);
        return;
    }
    if (operand & MOVE_CHANGED) {
        size_t body = writer.size - writer.section, at = fuzz_number(input, 2) % body;

        writer.data[writer.section + at] ^= fuzz_byte(input);
    }
    host_left = otherwise || lacks == 0 ? 0 : 2 * lacks - 1;
    if (!make(to, otherwise)) {
        save_writer_fini(&writer);
        return;
    }
    if (from->mapped) {
        map(to);
    }
    if (from->top_mapped) {
        change_memory(to, 2);
    }
    section = section_of(&writer);
    if (virtio_iommu_load(&to->iommu, &section) == 0) {
        check(is_same(to, &writer), "a state that was loaded is another");
        make_edu(to);
        *bed = to;
        *other = from;
    } else {
        check(changed, "a state that was saved cannot be loaded");
    }
    save_writer_fini(&writer);
    close_bed(*other);
}

static void operation(struct bed **current, struct bed **other, struct fuzz_input *input)
{
    struct bed *bed = *current;
    uint8_t choice = fuzz_byte(input), operand = choice >> 4;

    switch (choice & 15) {
    case 0:
        bar(bed, true, input);
        break;
    case 1:
        bar(bed, false, input);
        break;
    case 2:
        configure(bed, operand, input);
        break;
    case 3:
        begin(bed, operand);
        break;
    case 4:
        poke(input);
        break;
    case 5:
        describe_any(operand, input);
        break;
    case 6:
        offer(bed, operand & 1, (uint16_t)fuzz_number(input, operand & 2 ? 2 : 1));
        put(bed, NOTIFY + 4 * (operand & 1), 2, 0);
        break;
    case 7:
        request(bed, operand, input);
        break;
    case 8:
        buffer(bed, input);
        break;
    case 9:
        virtio_iommu_process(&bed->iommu);
        break;
    case 10:
        dma(bed, input);
        break;
    case 11:
        pin(bed, input);
        break;
    case 12:
        release(bed);
        break;
    case 13:
        change_memory(bed, operand);
        break;
    case 14:
        platform_reset(bed);
        break;
    default:
        move(current, other, operand, input);
        break;
    }
}

static void prepare(void)
{
    if (ram) {
        return;
    }
    server_log_to(NULL);
    ram_fd = memfd_create("ram", MFD_CLOEXEC);
    check(ram_fd >= 0 && ftruncate(ram_fd, RAM_SIZE) == 0, "no memory");
    ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, ram_fd, 0);
    check(ram != MAP_FAILED, "no memory");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct bed beds[2];
    struct bed *bed = &beds[0], *other = &beds[1];
    struct fuzz_input input = {.data = data, .size = size};
    unsigned fds;

    prepare();
    memset(ram, 0, RAM_SIZE);
    fds = support_open_fds();
    host_reset();
    check(make(bed, false), "no bed");
    check(viommu_start(bed->iommu.unit.iommu) == 0, "no start");
    make_edu(bed);
    map(bed);
    while (fuzz_more(&input)) {
        operation(&bed, &other, &input);
        check_all(bed);
    }
    release(bed);
    virtio_iommu_process(&bed->iommu);
    check_all(bed);
    close_bed(bed);
    check(support_open_fds() == fds, "descriptors were left open");
    return 0;
}
