/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A small hypervisor around the paravirtual operations (viommu/pv.h): this process, and one for
 * each of three VMs, with real memory that they share.
 *
 *     guest       has pages; gives one away (a balloon)
 *     mapper      models a device for it: maps the guest's pages for the device by calls, and is
 *                 asked to give one back
 *     newcomer    gets the page that became free, and sees whether anybody writes to it
 *
 * The device (iommu.h) runs all the time, and never forgets a page that it could reach once. So
 * when the newcomer's bytes are as it left them, nobody wrote to the page after it was reused.
 *
 *     hypervisor                  the mapper gives the page back when it is asked
 *     hypervisor --refuses        it does not, and the page is taken away by force
 *     hypervisor --dies           its process ends instead
 *     hypervisor --dies-in-call   it ends while it gives the page back: it takes no answer any more
 *     hypervisor --guest-dies     the guest ends while it gives the page away: all its pages go
 *     hypervisor --careless       the hypervisor does not flush: the newcomer has to notice
 *
 * A process that ends, at whatever it was, ends its VM and nothing else. Exit status 0: all was as
 * told. Only public headers of the library are used. One thread answers the VMs; the other one is
 * the device's.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <viommu/pv.h>

#include "iommu.h"
#include "machine.h"
#include "wire.h"

enum {
    DEVICE = 7,
    TRUST_MS = 300,            /* so long one that refuses may take to give a page back */
    ROUNDS = 3000,             /* of the device, while the newcomer has its page */
    GUEST_FIRST = IOMMU_PAGES, /* machine pages */
    MAPPER_FIRST = GUEST_FIRST + GUEST_PAGES,
};

/* A VM's process, as seen from here. */
struct vm {
    pid_t pid; /* 0: it has been waited for */
    int calls; /* -1: closed */
    int events;
    bool there; /* the engine has it */
};

static enum manner manner;
static struct viommu_pv *pv;
static struct vm vms[VM_COUNT + 1]; /* by number; 0 is none */
static bool waits;                  /* the guest waits for its balloon to be done */
static bool look_again;             /* the page may have drained */
static struct timespec asked_at;
static bool was_forced;
static bool newcomer_ready;
static bool newcomer_untouched;
static bool newcomer_done;
static bool guest_done;

/* ---- telling ---- */

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

static void end_children(void)
{
    for (unsigned vm = 1; vm <= VM_COUNT; vm++) {
        if (vms[vm].pid > 0) {
            (void)kill(vms[vm].pid, SIGKILL);
            (void)waitpid(vms[vm].pid, NULL, 0);
            vms[vm].pid = 0;
        }
    }
}

static void check(bool as_told, const char *what)
{
    if (!as_told) {
        say("hypervisor: failed: %s", what);
        end_children();
        _exit(1); /* the device's thread still runs */
    }
}

/* ---- processes ---- */

static void run_child(unsigned vm, struct process *process)
{
    bool ok = true;
    int status = 1;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)alarm(4 * PATIENCE);
    if (vm == GUEST && (ok = process_map(process, GUEST_FIRST, GUEST_PAGES))) {
        status = guest_main(process);
    } else if (vm == MAPPER && (ok = process_map(process, MAPPER_FIRST, MAPPER_PAGES))) {
        status = mapper_main(process);
    } else if (ok && vm == NEWCOMER) {
        status = newcomer_main(process);
    }
    _exit(status);
}

/* Before anything else is there that a child would have, too. */
static void start(unsigned vm, int machine)
{
    int calls[2];
    int events[2];
    pid_t pid;

    check(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, calls) &&
              !socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, events),
          "there are sockets");
    pid = fork();
    if (pid == 0) {
        struct process process = {
            .calls = calls[1], .events = events[1], .machine = machine, .manner = manner};

        for (unsigned other = 1; other < vm; other++) {
            (void)close(vms[other].calls);
            (void)close(vms[other].events);
        }
        (void)close(calls[0]);
        (void)close(events[0]);
        run_child(vm, &process);
    }
    (void)close(calls[1]);
    (void)close(events[1]);
    vms[vm] = (struct vm){.pid = pid, .calls = calls[0], .events = events[0]};
    check(pid > 0, "there is a process");
}

static void tell(unsigned vm, enum kind kind, uint64_t value)
{
    const struct message message = {.kind = kind, .value = value};

    (void)wire_send(vms[vm].events, &message); /* who does not read is late, and found so */
}

/* Who is gone takes no answer, and is found to be gone by serve(). */
static void answer(unsigned vm, uint64_t value)
{
    const struct message message = {.kind = ANSWER, .value = value};

    (void)wire_send(vms[vm].calls, &message);
}

/* ---- the balloon ---- */

static void on_give_back(uint64_t device_frame)
{
    say("hypervisor: mapper, give device frame %" PRIu64 " back", device_frame);
    tell(MAPPER, EVENT_GIVE_BACK, device_frame);
}

static void on_acknowledged(void)
{
    say("mapper: given back");
    look_again = true;
}

static int64_t waited_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - asked_at.tv_sec) * 1000 + (now.tv_nsec - asked_at.tv_nsec) / 1000000;
}

/* The page has drained: it is free, and the newcomer's. */
static void reuse(void)
{
    int64_t page = machine_page(GUEST, BALLOONED);

    check(machine_take(GUEST, BALLOONED), "nobody refers to a page that has drained");
    check(!vms[GUEST].there || !viommu_pv_page_settle(pv, GUEST, BALLOONED), "its removal is over");
    say("hypervisor: machine page %" PRId64 " is free; the newcomer gets it", page);
    machine_give(NEWCOMER, (uint64_t)page, 1);
    tell(NEWCOMER, EVENT_BEGIN, (uint64_t)page);
    waits = false;
    if (vms[GUEST].there) {
        answer(GUEST, 0);
    }
}

/*
 * Asks for the page, or looks whether it has drained, when there is a reason to; takes it by force
 * when that takes too long.
 */
static void drain(void)
{
    bool is_late = waited_ms() > (manner == REFUSES ? TRUST_MS : PATIENCE * 1000);
    int error =
        look_again || is_late ? viommu_pv_page_remove(pv, GUEST, BALLOONED) : VIOMMU_PENDING;

    look_again = false;
    if (error == VIOMMU_PENDING && is_late) {
        was_forced = true;
        say("hypervisor: no answer; the page is taken away by force");
        do {
            error = viommu_pv_page_revoke(pv, GUEST, BALLOONED);
        } while (error == VIOMMU_PENDING); /* nobody else is in the middle of anything */
    }
    check(error == 0 || error == VIOMMU_PENDING, "a page can be removed");
    if (error == 0) {
        reuse();
    }
}

static uint64_t balloon(uint64_t frame)
{
    if (frame != BALLOONED || waits || machine_page(GUEST, frame) < 0) {
        return EINVAL;
    }
    say("guest: gives its frame %" PRIu64 " away", frame);
    waits = true;
    look_again = true;
    (void)clock_gettime(CLOCK_MONOTONIC, &asked_at);
    return 0;
}

/* ---- calls ---- */

static void pv_call(unsigned vm, const struct message *in)
{
    struct message out = {.kind = ANSWER};
    size_t written = 0;

    if (viommu_pv_call(pv, vm, in->body, in->size, out.body, sizeof(out.body), &written, NULL)) {
        out.value = EINVAL;
    }
    out.size = (uint32_t)written;
    (void)wire_send(vms[vm].calls, &out);
}

static uint64_t doorbell(unsigned vm, uint64_t ring)
{
    if (vm != MAPPER || !device_start(ring)) {
        say("hypervisor: refuses VM %u the doorbell", vm);
        return EPERM;
    }
    say("mapper: has mapped the guest's pages; the device works on them");
    return 0;
}

static void on_ready(unsigned vm)
{
    if (vm == GUEST) {
        tell(MAPPER, EVENT_BEGIN, 0);
    } else if (vm == NEWCOMER) {
        newcomer_ready = true;
    }
}

static void on_done(unsigned vm, bool good)
{
    if (vm == GUEST) {
        check(good, "the guest saw what it should");
        guest_done = true;
    } else if (vm == NEWCOMER) {
        newcomer_untouched = good;
        newcomer_done = true;
    }
}

static void on_message(unsigned vm, const struct message *in)
{
    uint64_t value = 0;

    switch (in->kind) {
    case CALL_PV:
        pv_call(vm, in);
        return;
    case CALL_READY:
        on_ready(vm);
        break;
    case CALL_DOORBELL:
        value = doorbell(vm, in->value);
        break;
    case CALL_BALLOON:
        value = vm == GUEST ? balloon(in->value) : EPERM;
        if (value == 0) {
            return; /* the answer comes when the page is free */
        }
        break;
    case CALL_DONE:
        on_done(vm, in->value == 1);
        break;
    default:
        value = EINVAL;
        break;
    }
    answer(vm, value);
}

static void destroy_vm(unsigned vm)
{
    int error = 0;

    if (vms[vm].there) {
        do {
            error = viommu_pv_vm_destroy(pv, vm);
        } while (error == VIOMMU_PENDING);
        vms[vm].there = false;
    }
    check(error == 0, "a VM can be destroyed");
}

/* A process is gone; its VM goes, unless it has done its part. */
static void on_end(unsigned vm)
{
    (void)close(vms[vm].calls);
    vms[vm].calls = -1;
    if ((vm == GUEST && guest_done) || (vm == NEWCOMER && newcomer_done)) {
        return;
    }
    say("hypervisor: %s has died; all that it mapped goes, and what others mapped of its pages",
        vm == GUEST    ? "the guest"
        : vm == MAPPER ? "the mapper"
                       : "the newcomer");
    destroy_vm(vm);
    look_again = true;
    check((vm == MAPPER && (manner == DIES || manner == DIES_IN_CALL)) ||
              (vm == GUEST && manner == GUEST_DIES),
          "a process stays as long as it is needed");
    if (vm == GUEST) {
        guest_done = true;
        if (waits) {
            reuse();
        }
    }
}

/* Answers what is there, or comes within 20 ms. */
static void serve(void)
{
    struct pollfd ready[VM_COUNT];

    for (unsigned i = 0; i < VM_COUNT; i++) {
        ready[i] = (struct pollfd){.fd = vms[i + 1].calls, .events = POLLIN};
    }
    if (poll(ready, VM_COUNT, 20) <= 0) {
        return;
    }
    for (unsigned i = 0; i < VM_COUNT; i++) {
        struct message message;

        if (!ready[i].revents) {
            continue;
        }
        if (wire_receive(ready[i].fd, &message, false)) {
            on_message(i + 1, &message);
        } else {
            on_end(i + 1);
        }
    }
}

/* ---- the story ---- */

static void make_machine(int machine)
{
    const struct machine_events events = {on_give_back, on_acknowledged};
    const struct viommu_pv_config config = {.ops = &machine_ops,
                                            .frame_max = 255,
                                            .device_frame_max = IOMMU_DEVICE_FRAMES - 1,
                                            .orders = 1};
    void *ram =
        mmap(NULL, (size_t)MACHINE_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, machine, 0);

    check(ram != MAP_FAILED, "there is memory");
    check(iommu_create(ram, (uint64_t)MACHINE_PAGES * PAGE), "there is an IOMMU");
    machine_create(&events, manner == CARELESS);
    machine_give(GUEST, GUEST_FIRST, GUEST_PAGES);
    machine_give(MAPPER, MAPPER_FIRST, MAPPER_PAGES);
    check(!viommu_pv_create(&config, &pv), "there is an engine");
    for (unsigned vm = 1; vm <= VM_COUNT; vm++) {
        check(!viommu_pv_vm_add(pv, vm, true), "there is a VM");
        vms[vm].there = true;
    }
    check(!viommu_pv_device_add(pv, MAPPER, DEVICE), "the mapper has the device");
}

static void run(void)
{
    time_t end = time(NULL) + 2 * PATIENCE;
    bool looked = false;

    while (!guest_done || !newcomer_done) {
        check(time(NULL) < end, "nobody is late");
        serve();
        if (waits) {
            drain();
        }
        if (newcomer_ready && !looked) {
            uint64_t refused = device_refused();

            looked = true;
            check(device_wait(ROUNDS), "the device works");
            say("hypervisor: the device went round %d times meanwhile, and was refused %" PRIu64
                " times",
                ROUNDS, device_refused() - refused);
            check(manner == CARELESS || device_refused() - refused >= ROUNDS,
                  "the device tries the page each time, and is refused");
            tell(NEWCOMER, EVENT_LOOK, 0);
        }
    }
}

/*
 * Waits for a process to end; its exit status, or -1. What it still asks is answered, because it
 * waits for that: it may be about to give a page back.
 */
static int end_of(unsigned vm)
{
    time_t end = time(NULL) + PATIENCE;
    int status = 0;

    while (time(NULL) < end) {
        struct pollfd ready = {.fd = vms[vm].calls, .events = POLLIN};
        struct message message;

        if (waitpid(vms[vm].pid, &status, WNOHANG) == vms[vm].pid) {
            vms[vm].pid = 0;
            return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        }
        if (poll(&ready, 1, 5) == 1 && wire_receive(ready.fd, &message, false)) {
            on_message(vm, &message);
        }
    }
    return -1;
}

static void finish(void)
{
    say("newcomer: the page is %s", newcomer_untouched ? "as I left it" : "NOT as I left it");
    check(vms[GUEST].there == (manner != GUEST_DIES), "the guest is there, if it did not die");
    check(newcomer_untouched == (manner != CARELESS), "nobody wrote, unless nobody flushed");
    check(was_forced == (manner == REFUSES), "force is used where it is needed, and only there");
    tell(MAPPER, EVENT_END, 0);
    for (unsigned vm = 1; vm <= VM_COUNT; vm++) {
        check(end_of(vm) == 0, "a process ends well");
        destroy_vm(vm);
    }
    check(!viommu_pv_destroy(pv), "the engine has no VM");
    check(machine_is_quiet(), "nobody refers to any page");
    device_stop();
    iommu_destroy();
    say("hypervisor: all VMs are gone, and no page is referred to");
}

static bool read_manner(int argc, char **argv)
{
    static const char *const names[] = {[REFUSES] = "--refuses",
                                        [DIES] = "--dies",
                                        [DIES_IN_CALL] = "--dies-in-call",
                                        [GUEST_DIES] = "--guest-dies",
                                        [CARELESS] = "--careless"};

    for (unsigned i = REFUSES; argc == 2 && i <= CARELESS; i++) {
        if (strcmp(argv[1], names[i]) == 0) {
            manner = i;
            return true;
        }
    }
    return argc == 1;
}

int main(int argc, char **argv)
{
    int machine;

    if (!read_manner(argc, argv)) {
        fprintf(stderr, "usage: hypervisor [--refuses | --dies | --dies-in-call | --guest-dies | "
                        "--careless]\n");
        return 2;
    }
    machine = memfd_create("machine", MFD_CLOEXEC);
    check(machine >= 0 && !ftruncate(machine, (off_t)MACHINE_PAGES * PAGE), "there is memory");
    for (unsigned vm = 1; vm <= VM_COUNT; vm++) {
        start(vm, machine);
    }
    make_machine(machine);
    run();
    finish();
    return 0;
}
