/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: an NVMe controller and a guest that knows how to drive it and does not always want
 * to. Registers, queue entries, PRP lists, memory that is refused and wanted back, jobs that end in
 * between, a file that fails and shrinks, resets, and state that is saved and loaded.
 *
 * Input. One byte of configuration, then operations (bytes.h): one byte that chooses (its low four
 * bits; the high four are an operand), and operands. There are no threads: jobs run where the input
 * says. What check() looks at holds after every operation.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bytes.h"
#include "log.h"
#include "nvme/device.h"
#include "save/stream.h"

enum {
    RAM_PAGES = 320,
    RAM_SIZE = RAM_PAGES * 4096,
    FILE_SIZE = 1500000,
    QUEUES = 4,
    QUEUE_ENTRIES = 16,
    PINS = 128,
    OPERATIONS_MAX = 2000,
    FILE_LIMIT = 8192,

    CONFIG_READ_ONLY = 1,
    CONFIG_LARGE_BLOCKS = 2,
    CONFIG_SERIAL = 4,
    CONFIG_COMMITS = 8, /* what is in memory is so after a commit only */
};

#define RAM_FIRST UINT64_C(0xffff0000)

enum operation {
    OP_WRITE,    /* the BAR: two bytes of offset, a byte of size, 8 of value */
    OP_COMMAND,  /* a queue entry; the operand is the queue and bit 3 "do not ring" */
    OP_RUN,      /* so many jobs */
    OP_PROCESS,
    OP_DOORBELL, /* a byte of place, two of value */
    OP_POKE,     /* guest memory: two bytes of place in units of 8, a value */
    OP_LIST,     /* a list of entries: two bytes of place, a count, a page */
    OP_CONSUME,  /* all completions of a queue */
    OP_ENABLE,   /* admin queues and CC.EN; the operand is the size of memory pages */
    OP_RIGHTS,   /* of a page and those after it, as the operand says (enum right) */
    OP_REVOKE,   /* what is pinned of a page and those after it */
    OP_CONFIG,   /* configuration space */
    OP_RESET,
    OP_MOVE,     /* state is saved and loaded, perhaps damaged */
    OP_FILE,     /* fails or not, is larger or smaller, may not be so large; or commits fail */
    OP_READ,     /* the BAR */
};

enum right {
    NOT_READ = 1,
    NOT_WRITTEN = 2,
    GONE = 4, /* it can be pinned, and nothing is there */
};

struct device_dma_pin {
    bool used;
    struct device_dma_request request;
};

static uint8_t *ram;
static uint8_t rights[RAM_PAGES]; /* enum right */
static uint8_t *nothing; /* as large as the memory, and not to be touched */
static int commit_error;
static struct device_dma_pin pins[PINS];
static unsigned pinned;
static int file = -1;
static struct nvme *nvme;

/* The input that broke it, and what is said of it, may be longer than files may be just then. */
static void insist(bool condition)
{
    struct rlimit limit;

    if (!condition) {
        if (getrlimit(RLIMIT_FSIZE, &limit) == 0) {
            limit.rlim_cur = limit.rlim_max;
            (void)setrlimit(RLIMIT_FSIZE, &limit);
        }
        abort();
    }
}

/* ---- memory -------------------------------------------------------------------------------- */

static int look(uint64_t iova, size_t size, uint8_t wrong)
{
    uint64_t first = iova - RAM_FIRST;

    insist(size > 0);
    if (first >= RAM_SIZE || size > RAM_SIZE - first) {
        return -EFAULT;
    }
    for (uint64_t page = first / 4096; page <= (first + size - 1) / 4096; page++) {
        if (rights[page] & wrong) {
            return -EPERM;
        }
    }
    return 0;
}

static int ram_read(void *opaque, uint64_t iova, void *data, size_t size)
{
    int ret = look(iova, size, NOT_READ);

    (void)opaque;
    if (ret == 0) {
        memcpy(data, ram + (iova - RAM_FIRST), size);
    }
    return ret;
}

static int ram_write(void *opaque, uint64_t iova, const void *data, size_t size)
{
    int ret = look(iova, size, NOT_WRITTEN);

    (void)opaque;
    if (ret == 0) {
        memcpy(ram + (iova - RAM_FIRST), data, size);
    }
    return ret;
}

static uint8_t *place_of(uint64_t iova)
{
    uint64_t at = iova - RAM_FIRST;

    return (rights[at / 4096] & GONE ? nothing : ram) + at;
}

static int ram_pin(void *opaque, const struct device_dma_request *request, struct iovec *iov,
                   size_t *iov_count, struct device_dma_pin **out)
{
    unsigned free_pin = 0;

    (void)opaque;
    insist(request->count > 0);
    for (size_t i = 0; i < request->count; i++) {
        int ret = look(request->ranges[i].iova, request->ranges[i].size,
                       request->to_memory ? NOT_WRITTEN : NOT_READ);

        if (ret < 0 || i == *iov_count) {
            return ret < 0 ? ret : -ENOSPC;
        }
        iov[i] = (struct iovec){
            .iov_base = place_of(request->ranges[i].iova),
            .iov_len = request->ranges[i].size,
        };
    }
    while (pins[free_pin].used) {
        free_pin++;
        insist(free_pin < PINS);
    }
    *iov_count = request->count;
    pins[free_pin] = (struct device_dma_pin){.used = true, .request = *request};
    *out = &pins[free_pin];
    pinned++;
    return 0;
}

static void ram_unpin(void *opaque, struct device_dma_pin *pin)
{
    (void)opaque;
    insist(pin->used);
    pin->used = false;
    pinned--;
}

static int ram_commit(void *opaque, struct device_dma_pin *pin)
{
    (void)opaque;
    insist(pin->used);
    return commit_error;
}

static struct device_dma dma = {
    .read = ram_read,
    .write = ram_write,
    .pin = ram_pin,
    .unpin = ram_unpin,
};

static void revoke_pages(uint64_t first, uint64_t last)
{
    for (unsigned i = 0; i < PINS; i++) {
        bool concerned = false;

        for (size_t n = 0; pins[i].used && n < pins[i].request.count; n++) {
            const struct device_dma_range *range = &pins[i].request.ranges[n];

            concerned |= range->iova <= last && first <= range->iova + (range->size - 1);
        }
        if (concerned) {
            pins[i].request.revoke(pins[i].request.opaque);
        }
    }
}

/* ---- what has to hold ---------------------------------------------------------------------- */

static void check_queues(void)
{
    for (unsigned i = 0; i <= QUEUES; i++) {
        const struct nvme_sq *sq = &nvme->state.sq[i];
        const struct nvme_cq *cq = &nvme->state.cq[i];

        insist(!sq->exists || (sq->head < sq->entries && sq->tail < sq->entries));
        insist(!sq->exists || nvme->state.cq[sq->cqid].exists);
        insist(!cq->exists || (cq->head < cq->entries && cq->tail < cq->entries));
        insist(!cq->exists || nvme->cq_work[i].reserved < cq->entries);
        insist(sq->exists || nvme->sq_work[i].commands == 0);
    }
}

static void check(void)
{
    unsigned waiting = 0, at_work = 0, stale = 0, free_commands = 0, of_queues = 0, with_pin = 0;
    unsigned guests = 0;

    for (const struct nvme_command *c = nvme->free; c; c = c->next) {
        insist(c->state == NVME_COMMAND_FREE && !c->pin);
        free_commands++;
    }
    for (const struct nvme_command *c = nvme->waiting; c; c = c->next) {
        insist(c->state == NVME_COMMAND_WAITING && c->epoch == nvme->epoch && !c->pin);
        waiting++;
    }
    for (unsigned i = 0; i < NVME_COMMANDS; i++) {
        const struct nvme_command *c = &nvme->commands[i];

        at_work += c->state == NVME_COMMAND_AT_WORK;
        with_pin += c->pin != NULL;
        stale += c->state == NVME_COMMAND_AT_WORK && c->epoch != nvme->epoch;
        guests += c->state != NVME_COMMAND_FREE && !c->shutdown && c->epoch == nvme->epoch;
    }
    for (unsigned i = 0; i <= QUEUES; i++) {
        of_queues += nvme->sq_work[i].commands;
    }
    /* What is stale has ended and was not collected: nothing runs between operations. */
    insist(at_work == nvme->at_work && stale == nvme->stale && of_queues == guests);
    insist(free_commands + waiting + at_work == NVME_COMMANDS);
    insist(with_pin == pinned && pinned <= at_work);
    insist(nvme->state.async_count <= NVME_ASYNC_REQUESTS_MAX);
    check_queues();
}

/* ---- operations ---------------------------------------------------------------------------- */

static void bar_write(uint64_t offset, uint64_t value, size_t size)
{
    struct pci_function *function = nvme_function(nvme);

    function->ops->bar_write(function->opaque, 0, offset, &value, size);
}

static void any_write(struct fuzz_input *input)
{
    uint64_t offset = fuzz_number(input, 2) % NVME_BAR_SIZE;
    size_t size = 1 + fuzz_byte(input) % 8;

    bar_write(offset, fuzz_number(input, 8), offset + size <= NVME_BAR_SIZE ? size : 1);
}

static void any_read(struct fuzz_input *input)
{
    struct pci_function *function = nvme_function(nvme);
    uint64_t offset = fuzz_byte(input);
    size_t size = 1 + fuzz_byte(input) % 16;
    uint8_t data[16];

    function->ops->bar_read(function->opaque, 0, offset, data, size);
}

/* Queue n: a page for submission, the next one for completion. */
static uint64_t queue_place(unsigned n, bool completion)
{
    return RAM_FIRST + (n * 2 + completion) * 4096;
}

/* A page and an offset into it; or, with the highest bit, any address. */
static uint64_t any_address(struct fuzz_input *input)
{
    uint16_t choice = (uint16_t)fuzz_number(input, 2);

    if (choice & 0x8000) {
        return fuzz_number(input, 8);
    }
    return RAM_FIRST + (uint64_t)(choice & 0x1ff) * 4096 +
           (choice & 0x4000 ? fuzz_number(input, 2) : 0);
}

static void any_command(struct fuzz_input *input, unsigned operand)
{
    unsigned queue = (operand & 7) % (QUEUES + 1);
    struct nvme_sq *sq = &nvme->state.sq[queue];
    struct nvme_sqe sqe = {0};
    uint32_t entries = sq->exists ? sq->entries : QUEUE_ENTRIES;

    sqe.opcode = fuzz_byte(input);
    sqe.flags = fuzz_byte(input);
    sqe.cid = fuzz_byte(input);
    sqe.nsid = fuzz_byte(input);
    sqe.nsid = sqe.nsid == 0xff ? NVME_NSID_ALL : sqe.nsid;
    sqe.prp1 = any_address(input);
    sqe.prp2 = any_address(input);
    sqe.dw10 = (uint32_t)fuzz_number(input, 4);
    sqe.dw11 = (uint32_t)fuzz_number(input, 4);
    sqe.dw12 = (uint32_t)fuzz_number(input, 4);
    sqe.dw13 = fuzz_byte(input);
    memcpy(ram + (queue_place(queue, false) - RAM_FIRST) + sq->tail % 64 * sizeof(sqe), &sqe,
           sizeof(sqe));
    if (!(operand & 8)) {
        bar_write(NVME_REG_DOORBELLS + queue * 8, (sq->tail + 1) % entries, 4);
    }
}

static void any_doorbell(struct fuzz_input *input)
{
    uint64_t place = fuzz_byte(input);

    bar_write(NVME_REG_DOORBELLS + place * 4, fuzz_number(input, 2), 4);
}

static void any_poke(struct fuzz_input *input)
{
    uint64_t at = fuzz_number(input, 2) * 8 % RAM_SIZE, value = any_address(input);

    memcpy(ram + at, &value, sizeof(value));
}

/* Entries for pages that follow one another; with bit 7 of the count, the last entry of each page
 * leads to the next page of the list. */
static void any_list(struct fuzz_input *input)
{
    uint64_t at = fuzz_number(input, 2) * 8 % RAM_SIZE, count = fuzz_byte(input);
    uint64_t page = fuzz_number(input, 2) % RAM_PAGES;
    bool chained = count & 0x80;

    for (uint64_t i = 0; i < (count & 0x7f) * 4 && at + 8 <= RAM_SIZE; i++, at += 8) {
        bool leads = chained && at % 4096 == 4088;
        uint64_t value = RAM_FIRST + (leads ? at + 8 : (page + i) % RAM_PAGES * 4096);

        memcpy(ram + at, &value, sizeof(value));
    }
}

static void consume(unsigned operand)
{
    unsigned queue = operand % (QUEUES + 1);

    bar_write(NVME_REG_DOORBELLS + queue * 8 + 4, nvme->state.cq[queue].tail, 4);
}

static void config_write(uint64_t offset, uint16_t value)
{
    struct pci_function *function = nvme_function(nvme);

    pci_config_write(&function->config, offset, &value, sizeof(value));
    function->ops->config_written(function->opaque, offset, sizeof(value));
}

static void enable(unsigned operand)
{
    bar_write(NVME_REG_CC, 0, 4);
    bar_write(NVME_REG_AQA, (QUEUE_ENTRIES - 1) << 16 | (QUEUE_ENTRIES - 1), 4);
    bar_write(NVME_REG_ASQ, queue_place(0, false), 8);
    bar_write(NVME_REG_ACQ, queue_place(0, true), 8);
    bar_write(NVME_REG_CC, 4u << 20 | 6u << 16 | (operand & 7) << 7 | NVME_CC_EN, 4);
}

static void any_rights(struct fuzz_input *input, unsigned operand)
{
    unsigned page = (unsigned)fuzz_number(input, 2) % RAM_PAGES;
    unsigned count = 1 + fuzz_byte(input);

    for (unsigned i = 0; i < count && page + i < RAM_PAGES; i++) {
        rights[page + i] = operand & 7;
    }
}

static void any_revoke(struct fuzz_input *input)
{
    uint64_t first = RAM_FIRST + fuzz_number(input, 2) % RAM_PAGES * 4096;

    revoke_pages(first, first + fuzz_byte(input) * UINT64_C(4096) + 4095);
}

static void reset(void)
{
    struct pci_function *function = nvme_function(nvme);

    pci_config_reset(&function->config);
    function->ops->reset(function->opaque);
}

static void settle(void)
{
    nvme_process(nvme);
    while (nvme_run_job(nvme)) {
        nvme_process(nvme);
    }
}

/* Save what is there, and load it again; with bit 0, one byte of it is another one. */
static void move(struct fuzz_input *input, unsigned operand)
{
    struct save_writer writer;
    struct save_reader reader;
    struct save_section section = {0};
    uint8_t *body;
    size_t size;
    void *data;

    nvme_quiesce(nvme, NULL, NULL);
    settle();
    insist(nvme_quiet(nvme) && pinned == 0);
    save_writer_init(&writer, SAVE_SERVER);
    save_begin(&writer, 1, 0, 1, 0);
    nvme_save(nvme, &writer);
    save_end(&writer);
    insist(save_finish(&writer, &data, &size) == 0);
    insist(save_open(&reader, SAVE_SERVER, data, size) == 0 && save_next(&reader, &section));
    body = malloc(section.left);
    insist(body != NULL);
    memcpy(body, section.at, section.left);
    if (operand & 1) {
        size_t at = fuzz_number(input, 2) % section.left;

        body[at] ^= fuzz_byte(input);
        section.left -= operand & 2 ? fuzz_byte(input) % section.left : 0;
    }
    section.at = body;
    if (nvme_load(nvme, &section) == 0) {
        insist((operand & 1) || save_close(&section) == 0);
    } else {
        insist(operand & 1);
    }
    free(body);
    save_free(data);
    nvme_resume(nvme);
}

/* How large a file may become. */
static void limit_files(bool limited)
{
    struct rlimit limit;

    insist(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    limit.rlim_cur = limited ? FILE_LIMIT : limit.rlim_max;
    insist(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

static void change_file(struct fuzz_input *input, unsigned operand)
{
    if (operand & 8) {
        if (operand & 1) {
            commit_error = operand & 2 ? -EFAULT : 0;
        } else {
            limit_files(operand & 2);
        }
        return;
    }
    if (operand & 1) {
        nvme->store.fail_path = operand & 2 ? "/" : NULL;
    } else {
        limit_files(false);
        insist(ftruncate(file, (off_t)(fuzz_number(input, 3) % (2 * FILE_SIZE))) == 0);
    }
    if (operand & 4) {
        nvme_rescan(nvme);
    }
}

static void operate(struct fuzz_input *input)
{
    uint8_t choice = fuzz_byte(input);
    unsigned operand = choice >> 4, place;

    switch ((enum operation)(choice & 15)) {
    case OP_WRITE:
        any_write(input);
        break;
    case OP_COMMAND:
        any_command(input, operand);
        break;
    case OP_RUN:
        for (unsigned i = 0; i <= operand && nvme_run_job(nvme); i++) {
        }
        break;
    case OP_PROCESS:
        nvme_process(nvme);
        break;
    case OP_DOORBELL:
        any_doorbell(input);
        break;
    case OP_POKE:
        any_poke(input);
        break;
    case OP_LIST:
        any_list(input);
        break;
    case OP_CONSUME:
        consume(operand);
        break;
    case OP_ENABLE:
        enable(operand);
        break;
    case OP_RIGHTS:
        any_rights(input, operand);
        break;
    case OP_REVOKE:
        any_revoke(input);
        break;
    case OP_CONFIG:
        place = fuzz_byte(input);
        config_write(place, (uint16_t)fuzz_number(input, 2));
        break;
    case OP_RESET:
        reset();
        break;
    case OP_MOVE:
        move(input, operand);
        break;
    case OP_FILE:
        change_file(input, operand);
        break;
    case OP_READ:
        any_read(input);
        break;
    }
}

static void prepare(void)
{
    server_log_to(NULL);
    file = memfd_create("fuzz", MFD_CLOEXEC);
    ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    nothing = mmap(NULL, RAM_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    insist(file >= 0 && ram != MAP_FAILED && nothing != MAP_FAILED);
    signal(SIGXFSZ, SIG_IGN);
}

static void begin(uint8_t mode)
{
    const struct nvme_config config = {
        .read_only = mode & CONFIG_READ_ONLY,
        .lba_shift = mode & CONFIG_LARGE_BLOCKS ? 12 : 9,
        .queues = QUEUES,
        .serial = mode & CONFIG_SERIAL ? "with\ta tab, and too long" : NULL,
        .no_threads = true,
        .fd = dup(file),
    };

    /* Zeroes again, at the price of the pages that were used. */
    insist(madvise(ram, RAM_SIZE, MADV_DONTNEED) == 0);
    memset(rights, 0, sizeof(rights));
    dma.commit = mode & CONFIG_COMMITS ? ram_commit : NULL;
    commit_error = 0;
    insist(ftruncate(file, 0) == 0 && ftruncate(file, FILE_SIZE) == 0);
    insist(nvme_create(&config, "fuzz", &dma, NULL, &nvme) == 0);
    config_write(PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    config_write(nvme_function(nvme)->config.msix + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE);
    if (!(mode & 0x80)) {
        enable(0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {.data = data, .size = size};

    if (file < 0) {
        prepare();
    }
    begin(fuzz_byte(&input));
    /* Each is small: features alone take several hundred. */
    while (input.size > 0 && input.steps++ < OPERATIONS_MAX) {
        operate(&input);
        check();
    }
    limit_files(false);
    insist(nvme_destroy(nvme) == 0);
    insist(pinned == 0);
    return 0;
}
