/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The main job as a story, in one process: a guest that is a few functions, a VT-d unit, one
 * device. Each step is told in a sentence, and checked; the first that is not as told ends the
 * program with status 1.
 *
 * The guest's side does what a driver does: it writes page tables into guest memory, and programs
 * the unit through its registers and its invalidation queue (layouts: VT-d specification). The
 * device's side calls viommu_device_read and viommu_device_write. Only public headers are used.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <viommu/viommu.h>

/* ---- the machine ---- */

enum {
    PAGE = 4096,
    RAM_SIZE = 1 << 20,
    /* Where the guest keeps what: guest-physical addresses. */
    ROOT_TABLE = 0x1000,
    CONTEXT_TABLE = 0x2000,
    TOP_TABLE = 0x3000, /* tables of the levels below follow */
    QUEUE = 0x10000,
    STATUS = 0x11000,
    BUFFER = 0x50000,
    DOMAIN = 1,
    INTERRUPT_DATA = 0x31,
};

#define IOVA 0x40000000ull
#define INTERRUPT_ADDRESS 0xfee00000u

enum vtd_register {
    CAP = 0x08,
    GCMD = 0x18,
    GSTS = 0x1c,
    RTADDR = 0x20,
    FSTS = 0x34,
    FECTL = 0x38,
    FEDATA = 0x3c,
    FEADDR = 0x40,
    IQT = 0x88,
    IQA = 0x90,
};

#define GCMD_TRANSLATION (1u << 31)
#define GCMD_ROOT (1u << 30)
#define GCMD_QUEUE (1u << 26)
#define GSTS_KEPT 0x96ffffffu /* what a driver keeps of GSTS when it gives one command */

static uint8_t ram[RAM_SIZE] __attribute__((aligned(PAGE)));
static struct viommu_memory *memory;
static struct viommu *iommu;
static struct viommu_device *device;
static unsigned interrupts;

/* ---- telling ---- */

__attribute__((format(printf, 1, 2))) static void tell(const char *format, ...)
{
    static unsigned number;
    va_list arguments;

    printf("%3u. ", ++number);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

static void check(bool as_told, const char *what)
{
    if (as_told)
        return;
    printf("     but it was not so: %s\nstory: failed\n", what);
    exit(1);
}

/* ---- the guest ---- */

static uint64_t load(uint64_t gpa)
{
    uint64_t value;

    memcpy(&value, ram + gpa, sizeof(value));
    return value;
}

static void store(uint64_t gpa, uint64_t value)
{
    memcpy(ram + gpa, &value, sizeof(value));
}

static uint64_t read_register(uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    check(!viommu_mmio_read(iommu, offset, size, &value), "a register read is answered");
    return value;
}

static void write_register(uint64_t offset, unsigned size, uint64_t value)
{
    check(!viommu_mmio_write(iommu, offset, size, value), "a register write is taken");
    while (viommu_process(iommu, 0) == VIOMMU_PENDING)
        ;
}

static void command(uint32_t bit)
{
    write_register(GCMD, 4, (read_register(GSTS, 4) & GSTS_KEPT) | bit);
    check(read_register(GSTS, 4) & bit, "the unit reports the command as done");
}

/* The place of the last-level entry of an IOVA; tables on the way are made as needed. */
static uint64_t leaf_entry(uint64_t iova)
{
    static uint64_t next_table = TOP_TABLE + PAGE;
    uint64_t table = TOP_TABLE;

    for (unsigned shift = 39; shift > 12; shift -= 9) {
        uint64_t entry = table + (iova >> shift & 511) * 8;

        if (!load(entry)) {
            store(entry, next_table | VIOMMU_READ | VIOMMU_WRITE);
            next_table += PAGE;
        }
        table = load(entry) & ~(uint64_t)(PAGE - 1);
    }
    return table + (iova >> 12 & 511) * 8;
}

static void map(uint64_t iova, uint64_t gpa, unsigned perm)
{
    store(leaf_entry(iova), gpa | perm);
}

static void unmap(uint64_t iova)
{
    store(leaf_entry(iova), 0);
}

/* Root and context table: bus 0, device 5, function 0 has domain 1 and four levels of tables. */
static void build_tables(void)
{
    const uint64_t context = CONTEXT_TABLE + viommu_requester(0, 5, 0) * 16u;

    store(ROOT_TABLE, CONTEXT_TABLE | 1);
    store(context, TOP_TABLE | 1);
    store(context + 8, DOMAIN << 8 | 2);
}

static void queue(uint64_t low, uint64_t high)
{
    uint64_t tail = read_register(IQT, 8);

    store(QUEUE + tail, low);
    store(QUEUE + tail + 8, high);
    write_register(IQT, 8, (tail + 16) % PAGE);
}

/* Invalidates one page of the domain, then waits, as drivers do: the unit writes 1 to STATUS. */
static void invalidate(uint64_t iova)
{
    store(STATUS, 0);
    queue(0x2 | 3 << 4 | 1 << 6 | 1 << 7 | DOMAIN << 16, iova);
    queue(0x5 | 1 << 5 | 1ull << 32, STATUS);
}

struct fault {
    uint64_t address;
    unsigned reason;
    unsigned requester;
    bool read;
};

/* Takes the oldest fault out of the unit's records. */
static bool take_fault(struct fault *fault)
{
    const uint64_t records = (read_register(CAP, 8) >> 24 & 0x3ff) * 16;
    const uint64_t at = records + (read_register(FSTS, 4) >> 8 & 0xff) * 16;
    const uint64_t low = read_register(at, 8);
    const uint64_t high = read_register(at + 8, 8);

    fault->address = low & ~(uint64_t)(PAGE - 1);
    fault->reason = high >> 32 & 0xff;
    fault->requester = high & 0xffff;
    fault->read = high >> 62 & 1;
    write_register(at + 8, 8, 1ull << 63);
    return high >> 63;
}

/* ---- the device, and what the embedder is told ---- */

static int dma_write(uint64_t iova, const char *text)
{
    int status = viommu_device_write(device, NULL, iova, text, strlen(text) + 1);

    while (viommu_process(iommu, 0) == VIOMMU_PENDING)
        ;
    return status;
}

static void on_interrupt(void *opaque, const struct viommu_interrupt *interrupt)
{
    (void)opaque;
    check(interrupt->address == INTERRUPT_ADDRESS && interrupt->data == INTERRUPT_DATA,
          "the interrupt is the message that the guest chose");
    interrupts++;
}

static void make_machine(void)
{
    const struct viommu_memory_slot slot = {.last = RAM_SIZE - 1, .host = ram, .fd = -1};
    const struct viommu_device_config where = {.requester = viommu_requester(0, 5, 0)};
    const struct viommu_vtd_config vtd = {0};
    struct viommu_config config = {.callbacks = {.interrupt = on_interrupt}};
    struct viommu_memory_batch *batch;

    check(!viommu_memory_create(&memory) && !viommu_memory_batch_begin(memory, &batch) &&
              !viommu_memory_batch_add(batch, &slot) &&
              !viommu_memory_batch_commit(batch, NULL, NULL),
          "there is memory");
    config.memory = memory;
    check(!viommu_vtd_create(&config, &vtd, &iommu) && !viommu_start(iommu) &&
              !viommu_device_add(iommu, &where, &device), "there is a unit, and a device");
    tell("A machine: %u KiB of guest memory, an Intel VT-d unit, and the device 00:05.0 behind it.",
         RAM_SIZE / 1024u);
}

/* ---- the story ---- */

static void expect_refused(const char *text, bool read)
{
    struct fault fault;

    check(take_fault(&fault), "the unit has recorded a fault");
    check(fault.address == IOVA && fault.requester == viommu_requester(0, 5, 0) &&
              fault.read == read,
          "the fault names the device and the address");
    tell("%s Refused. The fault record says: device 00:05.0, address 0x%" PRIx64 ", reason %u.",
         text, fault.address, fault.reason);
}

static void set_up(void)
{
    check(!dma_write(BUFFER, "raw") && !strcmp((char *)ram + BUFFER, "raw"), "DMA arrives");
    tell("Nobody has programmed the unit yet: DMA to 0x%x goes to guest memory 0x%x as it is.",
         BUFFER, BUFFER);
    build_tables();
    tell("The guest writes a root table, a context entry for 00:05.0 and empty page tables.");
    write_register(RTADDR, 8, ROOT_TABLE);
    command(GCMD_ROOT);
    write_register(FEDATA, 4, INTERRUPT_DATA);
    write_register(FEADDR, 4, INTERRUPT_ADDRESS);
    write_register(FECTL, 4, 0);
    write_register(IQT, 8, 0);
    write_register(IQA, 8, QUEUE);
    command(GCMD_QUEUE);
    command(GCMD_TRANSLATION);
    tell("It gives them to the unit, sets up the fault interrupt and the invalidation queue, and "
         "turns translation on.");
}

static void map_and_use(void)
{
    char back[6] = "";

    check(dma_write(IOVA, "early") == -EFAULT, "DMA to nowhere is refused");
    expect_refused("The device writes to 0x40000000, where nothing is mapped.", false);
    check(interrupts == 1, "one interrupt was sent");
    tell("The unit sent its fault interrupt: data 0x%x to address 0x%x.", INTERRUPT_DATA,
         INTERRUPT_ADDRESS);
    map(IOVA, BUFFER, VIOMMU_READ | VIOMMU_WRITE);
    check(!dma_write(IOVA, "hello") && !strcmp((char *)ram + BUFFER, "hello"), "the DMA arrives");
    tell("The guest maps 0x40000000 to its page 0x%x; the device writes \"hello\", and the guest "
         "reads \"%s\" there.", BUFFER, (char *)ram + BUFFER);
    check(!viommu_device_read(device, NULL, IOVA, back, sizeof(back)) && !strcmp(back, "hello"),
          "the device reads what is there");
    tell("The device reads it back: \"%s\".", back);
}

static void unmap_and_refuse(void)
{
    unmap(IOVA);
    check(!dma_write(IOVA, "stale") && !strcmp((char *)ram + BUFFER, "stale"), "the cache answers");
    tell("The guest unmaps the page but does not invalidate: as on hardware, the cached "
         "translation still serves, and \"stale\" arrives.");
    invalidate(IOVA);
    check(load(STATUS) == 1, "the wait descriptor's status is written");
    tell("It queues an invalidation of the page and a wait descriptor; the unit writes the status "
         "word: complete.");
    check(dma_write(IOVA, "rogue") == -EFAULT, "DMA by the old translation is refused");
    expect_refused("The device writes \"rogue\" to the same address.", false);
    check(!strcmp((char *)ram + BUFFER, "stale"), "the page is unchanged");
    tell("The page that the guest took back is unchanged.");
    map(IOVA, BUFFER, VIOMMU_READ);
    check(dma_write(IOVA, "again") == -EFAULT, "a write to a read-only page is refused");
    expect_refused("The guest maps the page read-only; the device writes to it.", false);
}

static void print_counters(void)
{
    struct viommu_stats stats;

    check(!viommu_stats_get(iommu, &stats, sizeof(stats)), "there are counters");
    check(stats.refused == 3 && stats.faults_recorded == 3, "three requests were refused");
    tell("In all: %" PRIu64 " translations, %" PRIu64 " from the cache, %" PRIu64
         " page-table walks, %" PRIu64 " refused.",
         stats.translations, stats.iotlb_hits, stats.walks, stats.refused);
}

int main(void)
{
    make_machine();
    set_up();
    map_and_use();
    unmap_and_refuse();
    print_counters();
    viommu_destroy(iommu);
    viommu_memory_destroy(memory);
    return 0;
}
