/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TrustZone with real CPUs: two Arm CPUs of the emulator Unicorn, one of the secure world, one of
 * the other, share a memory that an MPC guards. Only public headers are used.
 *
 *     unicorn [--threads] [--rounds N]
 *
 * Each CPU fetches from a RAM of its own, which Unicorn maps. All else is behind Unicorn's MMIO
 * callbacks, which make each load and store an access of a viommu CPU: its soft TLB answers, or the
 * space does, with the MPC in it.
 *
 *     0x10000000  256 KiB behind the MPC, blocks of 4 KiB; the programs use block 37
 *     0x20000000  4 KiB not guarded: words by which the two programs talk
 *     0x50083000  the MPC's registers
 *
 * The secure program opens the block, the other one uses it on and on, the secure one closes it
 * meanwhile, and learns from the MPC's interrupt what was refused; N times. The programs
 * check what they see; this file checks that no access that began after the closing was complete
 * got through, and that the interrupt came each time. Status 0: all is as it should be; 1: it is
 * not; 2: the command line was wrong.
 *
 * Without --threads the CPUs take turns on one thread, else each has its own. Between any two
 * instructions there is a safe point.
 *
 * Exceptions are entered in a simple way: r14 is where the program goes on, and there is no other
 * mode. A load that fails has written 0 to its register.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <unicorn/unicorn.h>
#include <viommu/viommu.h>

enum {
    PAGE = 4096,
    GUARDED = 0x10000000,
    GUARDED_SIZE = 64 * PAGE,
    BLOCK = GUARDED + 37 * PAGE,
    MAILBOX = 0x20000000,
    MPC = 0x50083000,
    MPC_BLK_LUT = 0x1c,
    /* The mailbox's words. */
    STEP = 0, /* 1 closed, 2 open, 3 used, 4 an access failed */
    INTERRUPTS = 4,
    INFO1 = 8,
    INFO2 = 12,
    VECTOR_ABORT = 0x10,
    VECTOR_IRQ = 0x18,
    CPSR_I = 1 << 7,
    SECURE = 0,
    NON_SECURE = 1,
    SLICE = 50,            /* instructions of a turn */
    SLICE_THREADS = 10000, /* until a thread looks at the clock */
    SECONDS_MAX = 240,
    TOLD_FAILURES = 2, /* of the first rounds all is told */
};

/* ---- the programs ---- */

/*
 * Made with an assembler of these sources. Both: r0 the MPC, r1 the block, r2 the mailbox. The
 * secure one: r7 how many rounds, r5 what INT_INFO2 will say, r11 how many interrupts there will
 * have been. It ends with svc and r12: 0, or the number of the check that failed.
 */
static const uint32_t secure_program[] = {
    /* start: */
    0xea000005, /* b begin */
    0xeafffffe, /* b . */
    0xeafffffe, /* b . */
    0xeafffffe, /* b . */
    0xea00003d, /* b abort */
    0xeafffffe, /* b . */
    0xea000030, /* b irq */
    /* begin: */
    0xf1080080, /* cpsie i              ; interrupts are taken from now on */
    0xe3a03010, /* mov r3, #0x10 */
    0xe5803000, /* str r3, [r0, #0x00]  ; CTRL: errors for who is blocked, no auto-increment */
    0xe3a03001, /* mov r3, #1 */
    0xe5803018, /* str r3, [r0, #0x18]  ; BLK_IDX: the word of the block */
    0xe3e06000, /* mvn r6, #0 */
    0xe5816008, /* str r6, [r1, #8]     ; what must not be overwritten */
    0xe3a03001, /* mov r3, #1 */
    0xe5823000, /* str r3, [r2, #0]     ; step: closed */
    /* faulted: */
    0xe5923000, /* ldr r3, [r2, #0] */
    0xe3530004, /* cmp r3, #4 */
    0x1afffffc, /* bne faulted */
    /* told: */
    0xe5923004, /* ldr r3, [r2, #4] */
    0xe153000b, /* cmp r3, r11 */
    0x1afffffc, /* bne told */
    0xe28bb001, /* add r11, r11, #1 */
    0xe3a0c001, /* mov r12, #1 */
    0xe5923008, /* ldr r3, [r2, #8] */
    0xe2814008, /* add r4, r1, #8 */
    0xe1530004, /* cmp r3, r4 */
    0x1f000000, /* svcne #0 */
    0xe3a0c002, /* mov r12, #2 */
    0xe592300c, /* ldr r3, [r2, #12] */
    0xe1530005, /* cmp r3, r5 */
    0x1f000000, /* svcne #0 */
    0xe3a0c003, /* mov r12, #3 */
    0xe5913008, /* ldr r3, [r1, #8] */
    0xe1530006, /* cmp r3, r6 */
    0x1f000000, /* svcne #0 */
    0xe3a0c000, /* mov r12, #0 */
    0xe2577001, /* subs r7, r7, #1      ; the next round */
    0x4f000000, /* svcmi #0             ; none: all is well, r12 is 0 */
    0xe5817000, /* str r7, [r1, #0]     ; for the other world */
    0xe3a03020, /* mov r3, #0x20 */
    0xe580301c, /* str r3, [r0, #0x1c]  ; BLK_LUT: open */
    0xe3a03002, /* mov r3, #2 */
    0xe5823000, /* str r3, [r2, #0]     ; step: open */
    /* used: */
    0xe5923000, /* ldr r3, [r2, #0] */
    0xe3530003, /* cmp r3, #3 */
    0x1afffffc, /* bne used */
    0xe3a03000, /* mov r3, #0 */
    0xe580301c, /* str r3, [r0, #0x1c]  ; BLK_LUT: closed */
    0xe5816008, /* str r6, [r1, #8]     ; what must not be overwritten, at once */
    0xe3a0c004, /* mov r12, #4 */
    0xe5913004, /* ldr r3, [r1, #4] */
    0xe2874001, /* add r4, r7, #1       ; what the other world made of it */
    0xe1530004, /* cmp r3, r4 */
    0x1f000000, /* svcne #0 */
    0xeaffffd7, /* b faulted */
    /* irq: */
    0xe590802c, /* ldr r8, [r0, #0x2c]  ; INT_INFO1 */
    0xe5828008, /* str r8, [r2, #8] */
    0xe5908030, /* ldr r8, [r0, #0x30]  ; INT_INFO2 */
    0xe582800c, /* str r8, [r2, #12] */
    0xe5908020, /* ldr r8, [r0, #0x20]  ; INT_STAT */
    0xe5808024, /* str r8, [r0, #0x24]  ; INT_CLEAR */
    0xe5929004, /* ldr r9, [r2, #4] */
    0xe0899008, /* add r9, r9, r8 */
    0xe5829004, /* str r9, [r2, #4] */
    0xf1080080, /* cpsie i */
    0xe12fff1e, /* bx lr */
    /* abort: */
    0xe3a0c005, /* mov r12, #5 */
    0xef000000, /* svc #0 */
};

static const uint32_t non_secure_program[] = {
    /* start: */
    0xea000003, /* b closed */
    0xeafffffe, /* b . */
    0xeafffffe, /* b . */
    0xeafffffe, /* b . */
    0xea000009, /* b abort */
    /* closed: */
    0xe5923000, /* ldr r3, [r2, #0] */
    0xe3530001, /* cmp r3, #1 */
    0x1afffffc, /* bne closed */
    /* use: */
    0xe2855001, /* add r5, r5, #1 */
    0xe5815008, /* str r5, [r1, #8]     ; on and on, until it fails */
    0xe5916008, /* ldr r6, [r1, #8] */
    0xe1560005, /* cmp r6, r5 */
    0x0afffffa, /* beq use */
    0xe3a0c001, /* mov r12, #1 */
    0xef000000, /* svc #0 */
    /* abort: */
    0xe3a03004, /* mov r3, #4 */
    0xe5823000, /* str r3, [r2, #0]     ; step: failed */
    /* opened: */
    0xe5923000, /* ldr r3, [r2, #0] */
    0xe3530002, /* cmp r3, #2 */
    0x1afffffc, /* bne opened */
    0xe5914000, /* ldr r4, [r1, #0]     ; what the secure world left */
    0xe2844001, /* add r4, r4, #1 */
    0xe5814004, /* str r4, [r1, #4] */
    0xe3a03003, /* mov r3, #3 */
    0xe5823000, /* str r3, [r2, #0]     ; step: used */
    0xeaffffed, /* b use */
};
/* ---- the machine ---- */

struct cpu;

/* Addresses that Unicorn asks us for. */
struct window {
    struct cpu *cpu;
    uint32_t base;
};

struct cpu {
    const char *name;
    unsigned world;
    uint8_t *code; /* a page */
    uc_engine *uc;
    struct viommu_cpu *cpu;
    const struct viommu_cpu_tlb *tlb;
    struct window windows[3];
    uint32_t pc;
    unsigned left;      /* instructions of this slice */
    bool failed;        /* an access: the instruction after it is not begun */
    unsigned failures;  /* accesses that failed */
    uint64_t guarded;   /* accesses to guarded memory that did not */
    bool ended;         /* the program has */
    uint32_t result;    /* with this r12 */
};

static uint8_t ram[GUARDED_SIZE] __attribute__((aligned(PAGE)));
static uint8_t mailbox[PAGE] __attribute__((aligned(PAGE)));
static uint8_t code[2][PAGE] __attribute__((aligned(PAGE)));
static struct viommu_bus *bus;
static struct viommu_space *space;
static struct viommu_tzmpc *mpc;
static struct cpu cpus[2] = {
    [SECURE] = {.name = "secure CPU", .world = SECURE, .code = code[SECURE]},
    [NON_SECURE] = {.name = "non-secure CPU", .world = NON_SECURE, .code = code[NON_SECURE]},
};

static unsigned rounds = 3;
static bool threads;
static struct timespec began;
static atomic_bool over;          /* a program has ended, or the time is up */
static atomic_bool closed = true; /* the block, for the non-secure world, and that is complete */
static atomic_uint leaks;         /* non-secure accesses that began then, and did not fail */
static atomic_uint raised;
static atomic_uint lowered;

/* ---- telling ---- */

__attribute__((format(printf, 1, 2))) static void tell(const char *format, ...)
{
    static unsigned number;
    va_list arguments;

    if (threads || cpus[NON_SECURE].failures > TOLD_FAILURES)
        return;
    printf("%3u. ", ++number);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

__attribute__((format(printf, 1, 2), noreturn)) static void give_up(const char *format, ...)
{
    va_list arguments;

    printf("unicorn: ");
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    exit(1);
}

static void must(int error, const char *what)
{
    if (error)
        give_up("%s: %s", what, strerror(-error));
}

static void must_uc(uc_err error, const char *what)
{
    if (error)
        give_up("%s: %s", what, uc_strerror(error));
}

/* ---- the bus ---- */

static void on_interrupt(void *opaque, bool level)
{
    (void)opaque;
    atomic_fetch_add(level ? &raised : &lowered, 1);
    tell("the MPC %s its interrupt", level ? "raises" : "lowers");
}

static struct viommu_region *make_region(const struct viommu_region_config *config)
{
    struct viommu_region *region;

    must(viommu_region_create(bus, config, &region), "a region");
    return region;
}

static void build_bus(void)
{
    const struct viommu_region_config all = {.kind = VIOMMU_REGION_CONTAINER,
                                             .last = UINT32_MAX};
    struct viommu_tzmpc_config config = {
        .size = GUARDED_SIZE, .base = GUARDED, .interrupt = on_interrupt};
    struct viommu_region *behind;
    struct viommu_region *root;

    must(viommu_bus_create(&bus), "a bus");
    behind = make_region(&all);
    must(viommu_region_add(behind,
                           make_region(&(struct viommu_region_config){.kind = VIOMMU_REGION_RAM,
                                                                      .last = GUARDED_SIZE - 1,
                                                                      .host = ram}),
                           0, 0),
         "the memory behind the MPC");
    must(viommu_space_create(behind, &config.space), "the space behind the MPC");
    must(viommu_tzmpc_create(bus, &config, &mpc), "the MPC");

    root = make_region(&all);
    must(viommu_region_add(root, viommu_tzmpc_memory(mpc), GUARDED, 0), "the guarded memory");
    must(viommu_region_add(root, viommu_tzmpc_registers(mpc), MPC, 0), "the MPC's registers");
    must(viommu_region_add(root,
                           make_region(&(struct viommu_region_config){.kind = VIOMMU_REGION_RAM,
                                                                      .last = PAGE - 1,
                                                                      .host = mailbox}),
                           MAILBOX, 0),
         "the mailbox");
    must(viommu_space_create(root, &space), "the space of the CPUs");
    must(viommu_bus_commit(bus), "the first commit");
}

/* ---- loads and stores ---- */

static bool is_guarded(uint32_t address)
{
    return address - GUARDED < GUARDED_SIZE;
}

/* Of the many only those that show what happens. */
static void tell_access(const struct cpu *cpu, bool is_store, uint32_t address, uint64_t value,
                        int error)
{
    const char *verb = is_store ? "stores to" : "loads from";

    if (error)
        tell("%s %s 0x%" PRIx32 ": fails, %s", cpu->name, verb, address, strerror(-error));
    else if (is_guarded(address) ? address - BLOCK < 8 : address - MPC < PAGE)
        tell("%s %s 0x%" PRIx32 ": 0x%" PRIx64, cpu->name, verb, address, value);
}

static void after_access(struct cpu *cpu, bool is_store, uint32_t address, uint64_t value,
                         bool must_fail, int error)
{
    cpu->failed = error;
    cpu->failures += error != 0;
    cpu->guarded += !error && is_guarded(address);
    if (must_fail && !error)
        atomic_fetch_add(&leaks, 1);
    tell_access(cpu, is_store, address, value, error);
}

static bool must_fail_now(const struct cpu *cpu, uint32_t address)
{
    return cpu->world == NON_SECURE && is_guarded(address) && atomic_load(&closed);
}

static uint64_t on_load(uc_engine *uc, uint64_t offset, unsigned size, void *user_data)
{
    const struct window *window = user_data;
    struct cpu *cpu = window->cpu;
    uint32_t address = window->base + (uint32_t)offset;
    bool must_fail = must_fail_now(cpu, address);
    uint64_t value = 0;
    int error = viommu_cpu_load(cpu->cpu, cpu->tlb, 0, address, size, VIOMMU_CPU_READ, &value);

    (void)uc;
    after_access(cpu, false, address, value, must_fail, error);
    return error ? 0 : value;
}

static void on_store(uc_engine *uc, uint64_t offset, unsigned size, uint64_t value,
                     void *user_data)
{
    const struct window *window = user_data;
    struct cpu *cpu = window->cpu;
    uint32_t address = window->base + (uint32_t)offset;
    bool must_fail = must_fail_now(cpu, address);
    bool moves = address == MPC + MPC_BLK_LUT;
    int error;

    (void)uc;
    if (moves && value)
        atomic_store(&closed, false);
    error = viommu_cpu_store(cpu->cpu, cpu->tlb, 0, address, size, value);
    if (moves && !value)
        atomic_store(&closed, true);
    after_access(cpu, true, address, value, must_fail, error);
}

/* ---- running ---- */

/* The interrupt's line leads to the secure CPU. */
static bool interrupt_due(const struct cpu *cpu)
{
    uint32_t cpsr = CPSR_I;

    if (cpu->world == SECURE && viommu_tzmpc_interrupt(mpc))
        uc_reg_read(cpu->uc, UC_ARM_REG_CPSR, &cpsr);
    return !(cpsr & CPSR_I);
}

static void on_instruction(uc_engine *uc, uint64_t address, uint32_t size, void *user_data)
{
    struct cpu *cpu = user_data;

    (void)size;
    viommu_cpu_safe_point(cpu->cpu, cpu->tlb);
    cpu->pc = (uint32_t)address;
    if (cpu->failed || !cpu->left || atomic_load(&over) || interrupt_due(cpu)) {
        uc_emu_stop(uc);
        return;
    }
    cpu->left--;
}

/* The programs' only one is svc. */
static void on_exception(uc_engine *uc, uint32_t number, void *user_data)
{
    struct cpu *cpu = user_data;

    (void)number;
    uc_reg_read(uc, UC_ARM_REG_R12, &cpu->result);
    cpu->ended = true;
    atomic_store(&over, true);
    uc_emu_stop(uc);
}

static void enter(struct cpu *cpu, uint32_t vector)
{
    uint32_t cpsr;

    uc_reg_write(cpu->uc, UC_ARM_REG_LR, &cpu->pc);
    uc_reg_read(cpu->uc, UC_ARM_REG_CPSR, &cpsr);
    cpsr |= CPSR_I;
    uc_reg_write(cpu->uc, UC_ARM_REG_CPSR, &cpsr);
    cpu->pc = vector;
}

static void run_slice(struct cpu *cpu, unsigned instructions)
{
    cpu->left = instructions;
    must(viommu_cpu_begin(cpu->cpu), "a CPU's beginning");
    must_uc(uc_emu_start(cpu->uc, cpu->pc, PAGE, 0, 0), cpu->name);
    viommu_cpu_end(cpu->cpu);
    if (cpu->failed) {
        cpu->failed = false;
        enter(cpu, VECTOR_ABORT);
    } else if (interrupt_due(cpu)) {
        enter(cpu, VECTOR_IRQ);
    }
}

static void look_at_the_clock(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec - began.tv_sec > SECONDS_MAX)
        atomic_store(&over, true);
}

static void *run_thread(void *opaque)
{
    while (!atomic_load(&over)) {
        run_slice(opaque, SLICE_THREADS);
        look_at_the_clock();
    }
    return NULL;
}

static void run_all(void)
{
    pthread_t thread;

    clock_gettime(CLOCK_MONOTONIC, &began);
    if (threads) {
        must(-pthread_create(&thread, NULL, run_thread, &cpus[NON_SECURE]), "a thread");
        run_thread(&cpus[SECURE]);
        pthread_join(thread, NULL);
        return;
    }
    for (unsigned turn = 0; !atomic_load(&over); turn = !turn) {
        run_slice(&cpus[turn], SLICE);
        look_at_the_clock();
    }
}

/* Unicorn takes functions of all kinds as one pointer. */
static void add_hook(struct cpu *cpu, int type, void (*function)(void))
{
    union {
        void (*function)(void);
        void *pointer;
    } callback = {.function = function};
    uc_hook hook;

    must_uc(uc_hook_add(cpu->uc, &hook, type, callback.pointer, cpu, 1, 0), "a hook");
}

static void build_cpu(struct cpu *cpu, const uint32_t *program, size_t bytes)
{
    static const uint32_t bases[] = {GUARDED, MAILBOX, MPC};
    static const uint32_t sizes[] = {GUARDED_SIZE, PAGE, PAGE};
    const struct viommu_bus_attrs attrs = {.secure = cpu->world == SECURE,
                                           .requester = (uint16_t)(cpu->world + 1)};
    /* What the secure program will see: blocked was requester 2, non-secure, at a secure block. */
    const uint32_t registers[][2] = {
        {UC_ARM_REG_R0, MPC}, {UC_ARM_REG_R1, BLOCK},  {UC_ARM_REG_R2, MAILBOX},
        {UC_ARM_REG_R7, rounds}, {UC_ARM_REG_R11, 1},
        {UC_ARM_REG_R5, cpu->world == SECURE ? 1 << 16 | 2 : 0},
    };

    must(viommu_cpu_create(bus, &(struct viommu_cpu_config){.indexes = 1}, &cpu->cpu), "a CPU");
    must(viommu_cpu_set_space(cpu->cpu, 0, space, &attrs), "a CPU's space");
    cpu->tlb = viommu_cpu_tlb(cpu->cpu);

    must_uc(uc_open(UC_ARCH_ARM, UC_MODE_ARM, &cpu->uc), "an emulator");
    memcpy(cpu->code, program, bytes);
    must_uc(uc_mem_map_ptr(cpu->uc, 0, PAGE, UC_PROT_READ | UC_PROT_EXEC, cpu->code),
            "the memory of a program");
    for (unsigned i = 0; i < 3; i++) {
        cpu->windows[i] = (struct window){.cpu = cpu, .base = bases[i]};
        must_uc(uc_mmio_map(cpu->uc, bases[i], sizes[i], on_load, &cpu->windows[i], on_store,
                            &cpu->windows[i]),
                "addresses of ours");
    }
    add_hook(cpu, UC_HOOK_CODE, (void (*)(void))on_instruction);
    add_hook(cpu, UC_HOOK_INTR, (void (*)(void))on_exception);
    for (size_t i = 0; i < sizeof(registers) / sizeof(registers[0]); i++)
        must_uc(uc_reg_write(cpu->uc, (int)registers[i][0], &registers[i][1]), "a register");
}

/* ---- what came of it ---- */

static bool check(bool good, const char *what)
{
    if (!good)
        printf("but it is not so: %s\n", what);
    return good;
}

static bool judge(void)
{
    const struct cpu *secure = &cpus[SECURE];
    const struct cpu *other = &cpus[NON_SECURE];
    struct viommu_cpu_stats stats;
    bool good;

    viommu_cpu_stats(other->cpu, &stats);
    printf("%u rounds: %" PRIu64 " non-secure accesses succeeded, %u failed; %u interrupts; "
           "the TLB was filled %" PRIu64 " times and lost %" PRIu64 " entries\n",
           rounds, other->guarded, other->failures, atomic_load(&raised), stats.fills,
           stats.entries_dropped);
    if (secure->ended && secure->result)
        printf("the secure program's check %" PRIu32 " has failed\n", secure->result);
    good = check(secure->ended, "the secure program comes to its end");
    good &= check(!secure->result, "the secure program sees what it should");
    good &= check(!other->ended, "the other program reads back what it wrote, or fails");
    good &= check(!atomic_load(&leaks), "no access gets through after the closing");
    good &= check(!secure->failures, "no secure access fails");
    good &= check(other->failures == rounds + 1, "one access fails at first, and one each round");
    good &= check(atomic_load(&raised) == rounds + 1, "the interrupt is raised each time");
    good &= check(atomic_load(&lowered) == rounds + 1, "and lowered");
    good &= check(stats.entries_dropped == rounds, "each closing drops one entry");
    good &= check(stats.fills == rounds + 1, "each opening makes one, and the mailbox one");
    good &= check(other->guarded > 2 * (uint64_t)rounds, "the TLB answers");
    return good;
}

static bool parse(int argc, char **argv)
{
    static const struct option options[] = {
        {"threads", no_argument, NULL, 't'}, {"rounds", required_argument, NULL, 'r'}, {0}};
    int option;
    char *end;
    long number;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 't') {
            threads = true;
        } else if (option == 'r') {
            number = strtol(optarg, &end, 10);
            if (*end || number < 1 || number > 1000000)
                return false;
            rounds = (unsigned)number;
        } else {
            return false;
        }
    }
    return optind == argc;
}

int main(int argc, char **argv)
{
    bool good;

    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: unicorn [--threads] [--rounds N], N up to 1,000,000\n");
        return 2;
    }
    build_bus();
    build_cpu(&cpus[SECURE], secure_program, sizeof(secure_program));
    build_cpu(&cpus[NON_SECURE], non_secure_program, sizeof(non_secure_program));
    run_all();
    good = judge();
    for (unsigned i = 0; i < 2; i++) {
        uc_close(cpus[i].uc);
        viommu_cpu_destroy(cpus[i].cpu);
    }
    viommu_tzmpc_destroy(mpc);
    viommu_bus_destroy(bus);
    puts(good ? "unicorn: all is as it should be" : "unicorn: failed");
    return !good;
}
