/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * viommu serve: a VT-d unit, and edu devices behind it, as vfio-user devices for a virtual machine.
 *
 * The command line becomes a struct request; run() makes a unit, a device for each edu and a port
 * for each function, and lets the loop run until a signal ends it. A summary of the unit's counters
 * goes to standard output at the end; what happens meanwhile goes to standard error.
 */
#include "tools.h"

#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include <viommu/device.h>
#include <viommu/iommu.h>
#include <viommu/vtd.h>

#include "edu.h"
#include "log.h"
#include "loop.h"
#include "parse.h"
#include "port.h"
#include "serve_cache.h"
#include "serve_mirror.h"
#include "vtd_function.h"

enum {
    EDUS_MAX = 32,
};

enum option_key {
    OPTION_VTD = 'v',
    OPTION_EDU = 'e',
    OPTION_WIDTH = 'w',
    OPTION_CACHING_MODE = 'c',
    OPTION_MIRROR = 'm',
    OPTION_HOST_WIDTH = 0x100,
    OPTION_NO_SUPER_PAGES,
    OPTION_NO_PASS_THROUGH,
    OPTION_NO_QUEUE,
    OPTION_NO_SNOOP,
    OPTION_DEVICE_TLB,
    OPTION_DOMAIN_BITS,
    OPTION_FAULT_RECORDS,
    OPTION_IOTLB,
    OPTION_CACHE_MODE,
};

/* An edu device that was asked for. */
struct edu_request {
    uint16_t requester;
    const char *path;
    const char *mirror_path; /* NULL: nobody mirrors it */
};

struct request {
    const char *vtd_path;
    struct viommu_vtd_config vtd;
    struct viommu_config caches; /* what it says of these, and nothing else */
    struct edu_request edus[EDUS_MAX];
    unsigned edu_count;
    bool mirrors; /* there are some */
};

/* An edu device that is served. */
struct served_edu {
    struct edu edu;
    struct port port;
    char name[16];
    bool mirrored;
    struct serve_mirror mirror;
};

struct service {
    struct loop loop;
    struct vtd_function vtd;
    struct port vtd_port;
    struct loop_source unit_work;
    struct loop_source memory_work;
    struct served_edu *edus;
    unsigned edu_count;
};

static const char help_text[] =
    "Serve a VT-d unit, and edu devices (1234:11e8) behind it, each on its own Unix socket, to a "
    "virtual machine monitor that speaks vfio-user (QEMU 10.1 or later)."
    "\v"
    "Ctrl-C ends the server with a summary. When the virtual machine goes, the next may connect.\n"
    "\n"
    "A complete example; the server wants a terminal of its own:\n"
    "\n"
    "  viommu serve --vtd vtd.sock --edu 05.0=edu.sock\n"
    "\n"
    "  viommu acpi dmar --device 05.0 --output dmar.bin\n"
    "\n"
    "  qemu-system-x86_64 -accel tcg,thread=multi \\\n"
    "    -machine q35,memory-backend=mem -m 512 \\\n"
    "    -object memory-backend-memfd,id=mem,size=512M,share=on \\\n"
    "    -nographic -no-reboot -net none -vga none \\\n"
    "    -kernel vmlinuz -initrd initrd.img -acpitable file=dmar.bin \\\n"
    "    -append \"console=ttyS0 intel_iommu=on iommu.strict=1\" \\\n"
    "    -device '{\"driver\":\"vfio-user-pci\",\"addr\":\"04.0\",\n"
    "      \"socket\":{\"type\":\"unix\",\"path\":\"vtd.sock\"}}' \\\n"
    "    -device '{\"driver\":\"vfio-user-pci\",\"addr\":\"05.0\",\n"
    "      \"socket\":{\"type\":\"unix\",\"path\":\"edu.sock\"}}'\n"
    "\n"
    "The memory has to be shared (share=on). An edu has the same device address on QEMU's command "
    "line, after --edu, and after --device of `viommu acpi dmar`. The guest's firmware places the "
    "unit's registers; the server prints where, and the table must say the same "
    "(`viommu acpi dmar --base`).";

static const struct argp_option options[] = {
    {"vtd", OPTION_VTD, "SOCKET", 0, "Serve the VT-d unit here", 1},
    {"edu", OPTION_EDU, "[BUS:]DEV.FN=SOCKET", 0,
     "Serve an edu device with this requester id here; may be given several times", 1},
    {"mirror", OPTION_MIRROR, "[BUS:]DEV.FN=FILE", 0,
     "Write into FILE, a JSON line a call, what a mirror of this edu device's mappings is told; "
     "with --caching-mode, for an edu named before; may be given several times", 1},
    {"width", OPTION_WIDTH, "BITS", 0, "Widest device address: 39, 48 or 57 (48)", 2},
    {"host-width", OPTION_HOST_WIDTH, "BITS", 0, "Guest-physical address width, 36 to 52 (48)", 2},
    {"caching-mode", OPTION_CACHING_MODE, NULL, 0, "The guest must invalidate when it maps, too",
     2},
    {"device-tlb", OPTION_DEVICE_TLB, NULL, 0, "Device-TLBs (ATS) are supported", 2},
    {"no-super-pages", OPTION_NO_SUPER_PAGES, NULL, 0, "4 KiB pages only", 2},
    {"no-pass-through", OPTION_NO_PASS_THROUGH, NULL, 0, "No pass-through translation type", 2},
    {"no-queued-invalidation", OPTION_NO_QUEUE, NULL, 0, "Invalidation by registers only", 2},
    {"no-snoop-control", OPTION_NO_SNOOP, NULL, 0, "No snoop bit in page-table entries", 2},
    {"domain-bits", OPTION_DOMAIN_BITS, "N", 0, "Width of domain ids: 4, 6 ... 16 (16)", 2},
    {"fault-records", OPTION_FAULT_RECORDS, "N", 0, "Fault recording registers, 1 to 256 (8)", 2},
    {"iotlb-entries", OPTION_IOTLB, "N", 0,
     "Entries of the translation cache, a power of two from 256 to 16m (16k)", 2},
    {"cache-mode", OPTION_CACHE_MODE, "MODE[,quota=N][,seed=N]", 0,
     "For tests of drivers: a faithful cache keeps all until the guest invalidates it, up to a "
     "quota of pages (64k); a hostile one loses things and invalidates late, by a seed (0). Normal "
     "otherwise", 2},
    {0},
};

/* The number that the text is, 0 when it is none: no option takes 0. */
static uint64_t number(const char *text)
{
    uint64_t value = 0;

    return parse_number(text, &value) ? value : 0;
}

/* [BUS:]DEV.FN=`what`; returns what follows the equals sign, or NULL with the command ended. */
static const char *parse_place(const char *text, const char *what, uint16_t *requester,
                               struct argp_state *state)
{
    const char *at = text;
    uint8_t bus = 0, device, function;

    parse_bus_part(&at, &bus);
    if (!parse_function_part(&at, &device, &function) || *at != '=' || at[1] == '\0') {
        argp_error(state, "'%s' is not of the form [BUS:]DEVICE.FUNCTION=%s", text, what);
        return NULL;
    }
    *requester = viommu_requester(bus, device, function);
    return at + 1;
}

static void add_edu(struct request *request, const char *text, struct argp_state *state)
{
    struct edu_request *edu = &request->edus[request->edu_count];

    if (request->edu_count == EDUS_MAX) {
        argp_error(state, "more than %d devices", EDUS_MAX);
        return;
    }
    edu->path = parse_place(text, "SOCKET", &edu->requester, state);
    request->edu_count++;
}

static void add_mirror(struct request *request, const char *text, struct argp_state *state)
{
    uint16_t requester = 0;
    const char *path = parse_place(text, "FILE", &requester, state);

    for (unsigned i = 0; i < request->edu_count; i++) {
        if (request->edus[i].requester == requester) {
            request->edus[i].mirror_path = path;
            request->mirrors = true;
            return;
        }
    }
    argp_error(state, "--mirror: no --edu before it is the device of '%s'", text);
}

/* Ends the command, naming the option and what it takes, unless the value is right. */
static void insist(bool right, struct argp_state *state, const char *option, const char *value,
                   const char *takes)
{
    if (!right) {
        argp_error(state, "%s: '%s' is not %s", option, value, takes);
    }
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct request *request = state->input;
    uint64_t value = arg ? number(arg) : 0;

    switch (key) {
    case OPTION_VTD:
        insist(*arg, state, "--vtd", arg, "the name of a socket");
        request->vtd_path = arg;
        break;
    case OPTION_EDU:
        add_edu(request, arg, state);
        break;
    case OPTION_MIRROR:
        add_mirror(request, arg, state);
        break;
    case OPTION_WIDTH:
        insist(value == 39 || value == 48 || value == 57, state, "--width", arg, "39, 48 or 57");
        request->vtd.address_width = (uint8_t)value;
        break;
    case OPTION_HOST_WIDTH:
        insist(value >= 36 && value <= 52, state, "--host-width", arg, "36 to 52");
        request->vtd.host_address_width = (uint8_t)value;
        break;
    case OPTION_CACHING_MODE:
        request->vtd.caching_mode = true;
        break;
    case OPTION_DEVICE_TLB:
        request->vtd.device_tlb = true;
        break;
    case OPTION_NO_SUPER_PAGES:
        request->vtd.no_super_pages = true;
        break;
    case OPTION_NO_PASS_THROUGH:
        request->vtd.no_pass_through = true;
        break;
    case OPTION_NO_QUEUE:
        request->vtd.no_queued_invalidation = true;
        break;
    case OPTION_NO_SNOOP:
        request->vtd.no_snoop_control = true;
        break;
    case OPTION_DOMAIN_BITS:
        insist(value >= 4 && value <= 16 && value % 2 == 0, state, "--domain-bits", arg,
               "4, 6 ... 16");
        request->vtd.domain_bits = (uint8_t)value;
        break;
    case OPTION_FAULT_RECORDS:
        insist(value >= 1 && value <= 256, state, "--fault-records", arg, "1 to 256");
        request->vtd.fault_records = (uint16_t)value;
        break;
    case OPTION_IOTLB:
        insist(value >= 256 && value <= 1u << 24 && !(value & (value - 1)), state,
               "--iotlb-entries", arg, "a power of two from 256 to 16m");
        request->caches.iotlb_entries = (uint32_t)value;
        break;
    case OPTION_CACHE_MODE:
        insist(cache_mode_parse(arg, &request->caches), state, "--cache-mode", arg,
               "normal, faithful or hostile, with ,quota= (1 to 16m) and ,seed=");
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "what is '%s'?", arg);
        break;
    case ARGP_KEY_END:
        if (!request->vtd_path) {
            argp_error(state, "--vtd SOCKET is needed");
        }
        if (request->mirrors && !request->vtd.caching_mode) {
            argp_error(state, "--mirror needs --caching-mode");
        }
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const char *explain(int error)
{
    return error == -EADDRINUSE ? "it is served already"
           : error == -EEXIST   ? "it exists and is no socket"
                                : strerror(-error);
}

static void unit_ready(void *opaque, uint32_t events)
{
    struct service *service = opaque;

    (void)events;
    vtd_function_process(&service->vtd);
}

/* After each event: the unit may have sent messages on its port, or met memory that is gone. */
static void after_event(void *opaque)
{
    struct service *service = opaque;

    port_update(&service->vtd_port);
    for (unsigned i = 0; i < service->edu_count; i++) {
        port_update(&service->edus[i].port);
    }
    vtd_function_report(&service->vtd);
}

/* An edu device was reset: so is its place behind the unit. */
static void reset_device(void *opaque)
{
    viommu_device_reset(opaque);
}

static int watch(struct service *service, struct loop_source *source, int fd)
{
    *source = (struct loop_source){
        .fd = fd,
        .events = EPOLLIN,
        .ready = unit_ready,
        .opaque = service,
    };
    return loop_add(&service->loop, source);
}

static int open_vtd(struct service *service, const struct request *request)
{
    int ret = vtd_function_init(&service->vtd, "vtd", &request->vtd, &request->caches);

    if (ret < 0) {
        server_log("cannot make a VT-d unit of this configuration: %s", strerror(-ret));
        return ret;
    }
    ret = watch(service, &service->unit_work, viommu_event_fd(service->vtd.iommu));
    if (ret == 0) {
        ret = watch(service, &service->memory_work, viommu_memory_event_fd(service->vtd.memory));
    }
    if (ret == 0) {
        ret = port_open(&service->vtd_port, &service->loop, &service->vtd.function,
                        request->vtd_path);
    }
    if (ret < 0) {
        server_log("cannot serve the VT-d unit on %s: %s", request->vtd_path, explain(ret));
        vtd_function_fini(&service->vtd);
    }
    return ret;
}

static int open_mirror(struct served_edu *served, struct viommu_device *device, const char *path)
{
    int ret = path ? serve_mirror_open(&served->mirror, device, path) : 0;

    if (ret < 0) {
        server_log("cannot mirror %s into %s: %s", served->name, path, strerror(-ret));
    }
    served->mirrored = path && ret == 0;
    return ret;
}

static void close_mirror(struct served_edu *served)
{
    int ret = served->mirrored ? serve_mirror_close(&served->mirror) : 0;

    if (ret < 0) {
        server_log("%s: the mirror's file is not complete: %s", served->name, strerror(-ret));
    }
}

static int open_edu(struct service *service, const struct edu_request *request)
{
    struct served_edu *served = &service->edus[service->edu_count];
    struct viommu_device_config config = {.requester = request->requester};
    struct device_dma dma = vtd_function_dma;
    struct viommu_device *device;
    int ret;

    snprintf(served->name, sizeof(served->name), "edu %02x:%02x.%x", request->requester >> 8,
             request->requester >> 3 & 0x1f, request->requester & 7);
    ret = viommu_device_add(service->vtd.iommu, &config, &device);
    if (ret < 0) {
        server_log("%s: %s", served->name,
                   ret == -EEXIST ? "two devices cannot have one requester id" : strerror(-ret));
        return ret;
    }
    dma.opaque = device;
    edu_init(&served->edu, served->name, &dma);
    served->edu.reset_hook = reset_device;
    ret = open_mirror(served, device, request->mirror_path);
    if (ret < 0) {
        viommu_device_remove(device);
        return ret;
    }
    ret = port_open(&served->port, &service->loop, &served->edu.function, request->path);
    if (ret < 0) {
        server_log("cannot serve %s on %s: %s", served->name, request->path, explain(ret));
        close_mirror(served);
        viommu_device_remove(device);
        return ret;
    }
    service->edu_count++;
    return 0;
}

static void print_line(const char *what, uint64_t n)
{
    printf("  %-32s %" PRIu64 "\n", what, n);
}

static void print_summary(const struct service *service)
{
    struct viommu_stats stats;
    uint64_t transfers = 0, refusals = 0;

    for (unsigned i = 0; i < service->edu_count; i++) {
        transfers += service->edus[i].edu.transfers;
        refusals += service->edus[i].edu.refusals;
    }
    viommu_stats_get(service->vtd.iommu, &stats, sizeof(stats));
    puts("viommu serve: summary");
    print_line("clients of the unit", service->vtd_port.clients);
    print_line("device transfers done", transfers);
    print_line("device transfers refused", refusals);
    print_line("translations", stats.translations);
    print_line("IOTLB hits", stats.iotlb_hits);
    print_line("page walks", stats.walks);
    print_line("bytes read by devices", stats.bytes_read);
    print_line("bytes written by devices", stats.bytes_written);
    print_line("requests refused", stats.refused);
    print_line("faults recorded", stats.faults_recorded);
    print_line("faults without room", stats.faults_lost);
    print_line("context invalidations, global", stats.context_invalidations[0]);
    print_line("context invalidations, domain", stats.context_invalidations[1]);
    print_line("context invalidations, device", stats.context_invalidations[2]);
    print_line("IOTLB invalidations, global", stats.iotlb_invalidations[0]);
    print_line("IOTLB invalidations, domain", stats.iotlb_invalidations[1]);
    print_line("IOTLB invalidations, page", stats.iotlb_invalidations[2]);
    print_line("device-TLB invalidations", stats.device_tlb_invalidations);
    print_line("interrupt-cache invalidations", stats.interrupt_cache_invalidations);
    print_line("wait descriptors completed", stats.waits_completed);
    print_line("queue errors", stats.queue_errors);
    print_line("mappings made by mirrors", stats.calls_map);
    print_line("mappings taken away by mirrors", stats.calls_unmap);
    print_line("pages interrupted in mirrors", stats.pages_interrupted);
    print_line("interrupts of the unit", stats.interrupts_sent);
    print_line("interrupt messages delivered", service->vtd.messages_sent);
    print_line("interrupt messages lost", service->vtd.messages_lost);
    fflush(stdout);
}

static void close_all(struct service *service)
{
    for (unsigned i = 0; i < service->edu_count; i++) {
        struct served_edu *served = &service->edus[i];

        port_close(&served->port);
        close_mirror(served);
        viommu_device_remove(served->edu.dma.opaque);
    }
    port_close(&service->vtd_port);
    vtd_function_fini(&service->vtd);
}

/* With the unit open: the devices, then the loop, then the summary. */
static int serve(struct service *service, const struct request *request)
{
    int ret = 0;

    for (unsigned i = 0; ret == 0 && i < request->edu_count; i++) {
        ret = open_edu(service, &request->edus[i]);
    }
    if (ret == 0) {
        service->loop.after = after_event;
        service->loop.after_opaque = service;
        server_log("serving a VT-d unit on %s, %u devices behind it; Ctrl-C ends",
                   request->vtd_path, service->edu_count);
        ret = loop_run(&service->loop);
        print_summary(service);
    }
    close_all(service);
    return ret;
}

static int run(const struct request *request)
{
    struct service *service = calloc(1, sizeof(*service));
    int ret = -ENOMEM;

    if (service) {
        service->edus = calloc(EDUS_MAX, sizeof(*service->edus));
    }
    if (service && service->edus) {
        ret = loop_init(&service->loop);
        if (ret == 0) {
            ret = loop_stop_on_signals(&service->loop);
            if (ret == 0) {
                ret = open_vtd(service, request);
            }
            if (ret == 0) {
                ret = serve(service, request);
            }
            loop_fini(&service->loop);
        }
        free(service->edus);
    }
    free(service);
    return ret;
}

int viommu_tool_serve(int argc, char **argv)
{
    static const struct argp argp = {.options = options, .parser = parse_option, .doc = help_text};
    static char name[] = "viommu serve";
    struct request request = {.vtd_path = NULL};

    argp_err_exit_status = TOOL_USAGE;
    argv[0] = name;
    if (argp_parse(&argp, argc, argv, 0, NULL, &request) != 0) {
        return TOOL_USAGE;
    }
    signal(SIGPIPE, SIG_IGN);
    return run(&request) < 0 ? TOOL_FAILED : TOOL_OK;
}
