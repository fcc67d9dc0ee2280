/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line of `viommu serve`, by argp; see options.h. */
#include "options.h"

#include <argp.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache.h"
#include "kind.h"
#include "log.h"
#include "parse.h"
#include "tools.h"

enum option_key {
    OPTION_VTD = 'v',
    OPTION_DEVICE = 'd',
    OPTION_IOMMU = 'i',
    OPTION_WIDTH = 'w',
    OPTION_CACHING_MODE = 'c',
    OPTION_NO_SUPER_PAGES = 0x100, /* up to the next comment: of VT-d */
    OPTION_NO_PASS_THROUGH,
    OPTION_NO_QUEUE,
    OPTION_NO_SNOOP,
    OPTION_DEVICE_TLB,
    OPTION_DOMAIN_BITS,
    OPTION_FAULT_RECORDS,
    /* Of the virtio-iommu. */
    OPTION_VIRTIO,
    OPTION_BYPASS,
    OPTION_PAGE_SIZES,
    OPTION_DOMAINS,
    OPTION_MAPPINGS,
    OPTION_PROBE_SIZE,
    /* Of both. */
    OPTION_HOST_WIDTH,
    OPTION_ACK_TIMEOUT,
    OPTION_CACHE_MODE,
    OPTION_IOTLB,
    OPTION_TRACE,
    OPTION_ISOLATE,
    OPTION_HANDOVER,
    OPTION_TAKEOVER,
};

static const char help_text[] =
    "Serve a VT-d unit or a virtio-iommu, and devices behind it, each on its own Unix socket, to a "
    "virtual machine monitor that speaks vfio-user (QEMU 10.1 or later). Or devices alone, without "
    "a unit."
    "\v"
    "Devices, after --device. Every kind takes at=[BUS:]DEV.FN, its requester id, and "
    "socket=PATH. A value ends at a comma. A kind that is in another process is followed by a "
    "colon and that one's socket.\n"
    "\n"
    "  edu       1234:11e8, a device for driver writers\n"
    "    mirror=FILE  write into FILE, a JSON line a call, what a mirror of its\n"
    "                 mappings is told; a VT-d unit needs --caching-mode\n"
    "\n"
    "  nvme      an NVMe controller with one namespace\n"
    "    file=FILE    what is on it: a file or block device; needed\n"
    "    readonly     it is not written to\n"
    "    lba=SIZE     bytes of a block, 512 or 4096 (512)\n"
    "    queues=N     pairs of I/O queues, 1 to 63 (8)\n"
    "    workers=N    threads that read and write the file, 1 to 64 (4)\n"
    "    serial=TEXT  1 to 20 printable characters (what --device calls it)\n"
    "    hold=PATH    for tests: while a file is there, I/O does not end\n"
    "    fail=PATH    for tests: while a file is there, I/O fails\n"
    "\n"
    "  vhost-user-net:SOCKET  virtio-net; a vhost-user back-end works on its rings\n"
    "    mac=ADDRESS  (02:76:69:6f and the requester id)\n"
    "    timeout=MS   that it may take to answer (1000)\n"
    "\n"
    "  vfio-user:SOCKET  the device of a vfio-user server (SPDK, anything that\n"
    "            libvfio-user serves, `viommu serve --iommu none`), put behind the\n"
    "            unit; a VT-d unit needs --caching-mode, but with isolate\n"
    "    isolate      give that server no memory of the guest, but carry out what\n"
    "                 it asks for: slower, and safe from a hostile one\n"
    "\n"
    "A server that was started with --handover can be replaced while its virtual machine goes on, "
    "best with the guest paused: `viommu serve --takeover SOCKET`. What fails leaves the first "
    "server serving.\n"
    "\n"
    "Ctrl-C ends the server with a summary. When the virtual machine goes, the next may connect.\n"
    "\n"
    "A complete example; the server wants a terminal of its own:\n"
    "\n"
    "  viommu serve --vtd vtd.sock --device edu,at=05.0,socket=edu.sock\n"
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
    "The memory has to be shared (share=on). A device has the same address on QEMU's command line, "
    "after --device here, and after --device of `viommu acpi dmar`. The guest's firmware places "
    "the unit's registers; the server prints where, and the table must say the same "
    "(`viommu acpi dmar --base`).\n"
    "\n"
    "With a virtio-iommu the first two commands, and the table, are others; so are the kernel's "
    "words: none is needed but iommu.strict=1, if an UNMAP is to come at once:\n"
    "\n"
    "  viommu serve --virtio virtio.sock --device edu,at=05.0,socket=edu.sock\n"
    "\n"
    "  viommu acpi viot --iommu 04.0 --device 05.0 --output viot.bin\n"
    "\n"
    "  qemu-system-x86_64 -accel tcg,thread=multi \\\n"
    "    -machine q35,memory-backend=mem -m 512 \\\n"
    "    -object memory-backend-memfd,id=mem,size=512M,share=on \\\n"
    "    -nographic -no-reboot -net none -vga none \\\n"
    "    -kernel vmlinuz -initrd initrd.img -acpitable file=viot.bin \\\n"
    "    -append \"console=ttyS0 iommu.strict=1\" \\\n"
    "    -device '{\"driver\":\"vfio-user-pci\",\"addr\":\"04.0\",\n"
    "      \"socket\":{\"type\":\"unix\",\"path\":\"virtio.sock\"}}' \\\n"
    "    -device '{\"driver\":\"vfio-user-pci\",\"addr\":\"05.0\",\n"
    "      \"socket\":{\"type\":\"unix\",\"path\":\"edu.sock\"}}'\n"
    "\n"
    "The guest's kernel needs the driver (Debian's, from 6.12 on, has it as a module, "
    "virtio_iommu), before it looks at the devices behind.\n"
    "\n"
    "Exit status: 0 it was ended, or another process has taken over; 1 something failed; 2 wrong "
    "usage.";

static const struct argp_option options[] = {
    {"vtd", OPTION_VTD, "SOCKET", 0, "Serve a VT-d unit here", 1},
    {"virtio", OPTION_VIRTIO, "SOCKET", 0, "Serve a virtio-iommu here, instead", 1},
    {"iommu", OPTION_IOMMU, "vtd|virtio|none", 0,
     "What stands between devices and memory, where --vtd or --virtio does not say it; with none, "
     "device addresses are guest-physical, and no option of a unit makes sense",
     1},
    {"device", OPTION_DEVICE, "KIND[:SOCKET],KEY=VALUE,...", 0,
     "Serve a device of this kind (see below); may be given several times", 1},
    {"isolate", OPTION_ISOLATE, NULL, 0,
     "Give no other process memory of the guest: each vfio-user device has the key isolate, and "
     "what works in that memory by itself is refused",
     1},
    {"trace", OPTION_TRACE, "FILE", 0,
     "Write into FILE, a JSON line each, what the unit does; `viommu run --replay` reads it", 1},
    {"handover", OPTION_HANDOVER, "SOCKET", 0,
     "Let a successor, which is another `viommu serve` of the same user, take over here", 1},
    {"takeover", OPTION_TAKEOVER, "SOCKET", 0,
     "Take over from the server that offers it there: all other options, but --handover and "
     "--trace, are those of that server",
     1},
    {NULL, 0, NULL, 0, "Of both:", 2},
    {"width", OPTION_WIDTH, "BITS", 0,
     "Widest device address (48): 39, 48 or 57; of the virtio-iommu 32 to 64", 2},
    {"host-width", OPTION_HOST_WIDTH, "BITS", 0,
     "Guest-physical address width: 36 to 52 (48); of the virtio-iommu 32 to 64 (52)", 2},
    {"iotlb-entries", OPTION_IOTLB, "N", 0,
     "Entries of the translation cache, a power of two from 256 to 16m (16k)", 2},
    {"ack-timeout", OPTION_ACK_TIMEOUT, "MS", 0,
     "How long a mirror, another process, or a device that has memory pinned may keep an "
     "invalidation waiting before it is cut off: 10 to 60000 (500). A vfio-user server that is "
     "joined may take as long for any answer, and 2000 at least",
     2},
    {"cache-mode", OPTION_CACHE_MODE, "MODE[,quota=N][,seed=N]", 0,
     "For tests of drivers: a faithful cache keeps all until the guest invalidates it, up to a "
     "quota of pages (64k); a hostile one loses things and invalidates late, by a seed (0). Normal "
     "otherwise",
     2},
    {NULL, 0, NULL, 0, "Of VT-d:", 3},
    {"caching-mode", OPTION_CACHING_MODE, NULL, 0, "The guest must invalidate when it maps, too",
     3},
    {"device-tlb", OPTION_DEVICE_TLB, NULL, 0, "Device-TLBs (ATS) are supported", 3},
    {"no-super-pages", OPTION_NO_SUPER_PAGES, NULL, 0, "4 KiB pages only", 3},
    {"no-pass-through", OPTION_NO_PASS_THROUGH, NULL, 0, "No pass-through translation type", 3},
    {"no-queued-invalidation", OPTION_NO_QUEUE, NULL, 0, "Invalidation by registers only", 3},
    {"no-snoop-control", OPTION_NO_SNOOP, NULL, 0, "No snoop bit in page-table entries", 3},
    {"domain-bits", OPTION_DOMAIN_BITS, "N", 0, "Width of domain ids: 4, 6 ... 16 (16)", 3},
    {"fault-records", OPTION_FAULT_RECORDS, "N", 0, "Fault recording registers, 1 to 256 (8)", 3},
    {NULL, 0, NULL, 0, "Of the virtio-iommu:", 4},
    {"bypass", OPTION_BYPASS, "on|off", 0,
     "Whether devices reach memory one to one while the guest has not attached them, after a reset "
     "of the machine (on)",
     4},
    {"page-sizes", OPTION_PAGE_SIZES, "SIZE:...", 0,
     "Sizes of pages; mappings are of the least, 4k to 1g, the others are hints (4k:2m:1g)", 4},
    {"domains-max", OPTION_DOMAINS, "N", 0, "Domains that a guest may make (64k)", 4},
    {"mappings-max", OPTION_MAPPINGS, "N", 0, "Mappings that it may make in all (1m)", 4},
    {"probe-size", OPTION_PROBE_SIZE, "BYTES", 0, "Room for what PROBE tells, 24 to 64k (512)", 4},
    {0},
};

/* Says what is wrong with the options, and ends the program. Another server's are no mistake of who
 * has started this one: then nothing more is looked at, and that one is told (state.h). */
__attribute__((format(printf, 2, 3))) static void refuse(struct argp_state *state,
                                                         const char *format, ...)
{
    struct serve_options *request = state->input;
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (!request->taken) {
        argp_error(state, "%s", text);
    } else if (!request->refused) {
        server_log("the other server's options are none for this one: %s", text);
        request->refused = true;
    }
}

/* The number that the text is, 0 when it is none: no option takes 0. */
static uint64_t number(const char *text)
{
    uint64_t value = 0;

    return parse_number(text, &value) ? value : 0;
}

static void add_device(struct serve_options *request, const char *text, struct argp_state *state)
{
    char wrong[256];

    if (request->device_count == SERVE_DEVICES_MAX) {
        refuse(state, "--device: more than %d", SERVE_DEVICES_MAX);
        return;
    }
    if (!serve_device_options_parse(&request->devices[request->device_count++], text, wrong,
                                    sizeof(wrong))) {
        refuse(state, "--device: %s", wrong);
    }
}

/* Widths that each unit has. */
static void check_widths(struct serve_options *request, struct argp_state *state)
{
    unsigned width = request->width, host = request->host_width;

    if (request->iommu == SERVE_VIRTIO) {
        if (width && (width < 32 || width > 64)) {
            refuse(state, "--width: '%u' is not 32 to 64", width);
        }
        if (host && (host < 32 || host > 64)) {
            refuse(state, "--host-width: '%u' is not 32 to 64", host);
        }
        request->virtio.input.last = width ? UINT64_MAX >> (64 - width) : 0;
        request->virtio.host_address_width = (uint8_t)host;
        return;
    }
    if (width && width != 39 && width != 48 && width != 57) {
        refuse(state, "--width: '%u' is not 39, 48 or 57", width);
    }
    if (host && (host < 36 || host > 52)) {
        refuse(state, "--host-width: '%u' is not 36 to 52", host);
    }
    request->vtd.address_width = (uint8_t)width;
    request->vtd.host_address_width = (uint8_t)host;
}

/* Which unit there is, and that the options are its own. */
static void check_unit(const struct serve_options *request, struct argp_state *state)
{
    const char *vtd = request->vtd_option, *virtio = request->virtio_option;
    const char *any = vtd ? vtd : virtio ? virtio : request->unit_option;

    if (request->iommu == SERVE_NONE && any) {
        refuse(state, "--%s is of a unit, and --iommu none has none", any);
    }
    if (request->iommu == SERVE_NONE && request->device_count == 0) {
        refuse(state, "--iommu none needs a --device");
    }
    if (request->iommu == SERVE_VTD && virtio) {
        refuse(state, "--%s is of the virtio-iommu, and this is a VT-d unit", virtio);
    }
    if (request->iommu == SERVE_VIRTIO && vtd) {
        refuse(state, "--%s is of VT-d, and this is a virtio-iommu", vtd);
    }
    if (request->iommu != SERVE_NONE && !request->unit_socket) {
        refuse(state, "%s is needed",
               request->iommu == SERVE_VIRTIO ? "--virtio SOCKET"
               : request->iommu_given         ? "--vtd SOCKET"
                                              : "--vtd SOCKET or --virtio SOCKET");
    }
}

/* The other process of a device cannot be this one. */
static void check_far(const struct serve_options *request,
                      const struct serve_device_options *device, struct argp_state *state)
{
    bool own = request->unit_socket && strcmp(device->far, request->unit_socket) == 0;

    for (unsigned i = 0; i < request->device_count; i++) {
        own |= strcmp(device->far, request->devices[i].socket) == 0;
    }
    if (own) {
        refuse(state, "--device: %s:%s: that is served here, and not by another process",
               device->kind->name, device->far);
    }
}

/* Nobody else is to have memory of the guest, this device's far process neither. */
static void isolate(struct serve_device_options *device, struct argp_state *state)
{
    if (device->kind == &serve_kind_vfio_user) {
        device->vfio_user.isolate = true;
    } else if (device->far) {
        refuse(state, "--isolate: %s works in the guest's memory by itself", device->kind->name);
    }
}

/* That a device can be what it is to be where it is to be. */
static void check_device(const struct serve_options *request,
                         const struct serve_device_options *device, struct argp_state *state)
{
    const struct serve_kind *kind = device->kind;
    bool mirrors = request->iommu == SERVE_VIRTIO ||
                   (request->iommu == SERVE_VTD && request->vtd.caching_mode);

    if (request->iommu == SERVE_NONE && kind->needs_unit) {
        refuse(state, "--device: %s is put behind a unit, and --iommu none has none", kind->name);
    }
    if (kind == &serve_kind_edu && device->edu.mirror && !mirrors) {
        refuse(state, "--device: edu: mirror needs --caching-mode");
    }
    if (kind == &serve_kind_vfio_user && !device->vfio_user.isolate && !mirrors) {
        refuse(state, "--device: vfio-user needs --caching-mode (or isolate), for the far server "
                      "has to hear of what the guest maps");
    }
    if (device->far) {
        check_far(request, device, state);
    }
    if ((request->handover || request->taken) && !kind->save) {
        refuse(state, "--handover: a server with a %s cannot be handed over", kind->name);
    }
}

/* An invalidation waits for an answer: who says for how long means both. */
static void be_patient(const struct serve_options *request, struct serve_device_options *device)
{
    if (device->kind == &serve_kind_vfio_user) {
        device->vfio_user.answer_ms = request->caches.ack_timeout_ms;
    }
}

/* What can be judged only when all is known. */
static void check_all(struct serve_options *request, struct argp_state *state)
{
    if (request->takeover) {
        if (request->argument_count > 0) {
            refuse(state, "%s: with --takeover it is the other server's to say",
                   request->arguments[0]);
        }
        return;
    }
    check_unit(request, state);
    check_widths(request, state);
    for (unsigned i = 0; i < request->device_count; i++) {
        if (request->isolate) {
            isolate(&request->devices[i], state);
        }
        be_patient(request, &request->devices[i]);
        check_device(request, &request->devices[i], state);
    }
}

/* Ends the command, naming the option and what it takes, unless the value is right. */
static void insist(bool right, struct argp_state *state, const char *option, const char *value,
                   const char *takes)
{
    if (!right) {
        refuse(state, "%s: '%s' is not %s", option, value, takes);
    }
}

/* What can be said once only. */
static const char *once(const char *before, struct argp_state *state, const char *option,
                        const char *value, const char *takes)
{
    insist(*value && strcmp(value, "-") != 0, state, option, value, takes);
    if (before) {
        refuse(state, "%s is given twice", option);
    }
    return value;
}

/* Where it is noted that an option of this kind was given; NULL: it is of no unit. */
static const char **place_of(struct serve_options *request, int key)
{
    if (key == OPTION_VTD || key == OPTION_CACHING_MODE ||
        (key >= OPTION_NO_SUPER_PAGES && key <= OPTION_FAULT_RECORDS)) {
        return &request->vtd_option;
    }
    if (key >= OPTION_VIRTIO && key <= OPTION_PROBE_SIZE) {
        return &request->virtio_option;
    }
    if (key == OPTION_WIDTH || key == OPTION_TRACE ||
        (key >= OPTION_HOST_WIDTH && key <= OPTION_IOTLB)) {
        return &request->unit_option;
    }
    return NULL;
}

/* The name of an option; NULL: it is none of ours. */
static const char *name_of(int key)
{
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        if (options[i].name && options[i].key == key) {
            return options[i].name;
        }
    }
    return NULL;
}

/* Whether a successor is to have it, too: of some each server has its own. */
static bool is_handed_on(int key)
{
    return key != OPTION_HANDOVER && key != OPTION_TAKEOVER && key != OPTION_TRACE;
}

/* Remembers an option for a successor. */
static void note_argument(struct serve_options *request, int key, const char *arg,
                          struct argp_state *state)
{
    const char *name = name_of(key);

    if (!name || !is_handed_on(key)) {
        return;
    }
    if (request->argument_count == SERVE_ARGUMENTS_MAX ||
        asprintf(&request->arguments[request->argument_count], "--%s%s%s", name, arg ? "=" : "",
                 arg ? arg : "") < 0) {
        refuse(state, "too many options");
        return;
    }
    request->argument_count++;
}

static void note_unit_option(struct serve_options *request, int key)
{
    const char **place = place_of(request, key);

    if (place) {
        *place = name_of(key);
    }
}

/* SIZE[:SIZE...]: a bit for each. */
static bool page_sizes(const char *text, uint64_t *mask)
{
    uint64_t size;

    *mask = 0;
    do {
        if (!parse_number_part(&text, &size) || !size || (size & (size - 1))) {
            return false;
        }
        *mask |= size;
    } while (*text++ == ':');
    return !text[-1] && (*mask & -*mask) >= 4096 && (*mask & -*mask) <= 1 << 30;
}

static void parse_iommu(struct serve_options *request, const char *arg, struct argp_state *state)
{
    static const char *const names[] = {
        [SERVE_VTD] = "vtd", [SERVE_VIRTIO] = "virtio", [SERVE_NONE] = "none"};

    for (unsigned i = SERVE_VTD; i <= SERVE_NONE; i++) {
        if (!strcmp(arg, names[i])) {
            request->iommu = (enum serve_iommu)i;
            request->iommu_given = true;
            return;
        }
    }
    insist(false, state, "--iommu", arg, "vtd, virtio or none");
}

static void set_unit_socket(struct serve_options *request, const char *option, const char *arg,
                            struct argp_state *state)
{
    if (request->socket_option && strcmp(request->socket_option, option)) {
        refuse(state, "%s and %s: there is one unit", request->socket_option, option);
    }
    request->socket_option = option;
    request->unit_socket = once(request->unit_socket, state, option, arg, "the name of a socket");
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    static const char socket_name[] = "the name of a socket";
    struct serve_options *request = state->input;
    uint64_t value = arg ? number(arg) : 0;

    note_unit_option(request, key);
    note_argument(request, key, arg, state);
    switch (key) {
    case OPTION_VTD:
        set_unit_socket(request, "--vtd", arg, state);
        break;
    case OPTION_VIRTIO:
        set_unit_socket(request, "--virtio", arg, state);
        if (!request->iommu_given) {
            request->iommu = SERVE_VIRTIO;
        }
        break;
    case OPTION_IOMMU:
        parse_iommu(request, arg, state);
        break;
    case OPTION_TRACE:
        request->trace = once(request->trace, state, "--trace", arg, "the name of a file");
        break;
    case OPTION_ISOLATE:
        request->isolate = true;
        break;
    case OPTION_HANDOVER:
        request->handover = once(request->handover, state, "--handover", arg, socket_name);
        break;
    case OPTION_TAKEOVER:
        request->takeover = once(request->takeover, state, "--takeover", arg, socket_name);
        break;
    case OPTION_DEVICE:
        add_device(request, arg, state);
        break;
    case OPTION_WIDTH:
        insist(value >= 1 && value <= 64, state, "--width", arg, "39, 48 or 57");
        request->width = (unsigned)value;
        break;
    case OPTION_HOST_WIDTH:
        insist(value >= 1 && value <= 64, state, "--host-width", arg, "36 to 52");
        request->host_width = (unsigned)value;
        break;
    case OPTION_BYPASS:
        insist(!strcmp(arg, "on") || !strcmp(arg, "off"), state, "--bypass", arg, "on or off");
        request->virtio.bypass = !strcmp(arg, "on");
        break;
    case OPTION_PAGE_SIZES:
        insist(page_sizes(arg, &request->virtio.page_size_mask), state, "--page-sizes", arg,
               "powers of two, the least from 4k to 1g");
        break;
    case OPTION_DOMAINS:
        insist(value >= 1 && value <= 1u << 24, state, "--domains-max", arg, "1 to 16m");
        request->virtio.domains_max = (uint32_t)value;
        break;
    case OPTION_MAPPINGS:
        insist(value >= 1 && value <= 1u << 31, state, "--mappings-max", arg, "1 to 2g");
        request->virtio.mappings_max = (uint32_t)value;
        break;
    case OPTION_PROBE_SIZE:
        insist(value >= 24 && value <= 65536, state, "--probe-size", arg, "24 to 64k");
        request->virtio.probe_size = (uint32_t)value;
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
    case OPTION_ACK_TIMEOUT:
        insist(value >= 10 && value <= 60000, state, "--ack-timeout", arg, "10 to 60000");
        request->caches.ack_timeout_ms = (uint32_t)value;
        break;
    case OPTION_CACHE_MODE:
        insist(cache_mode_parse(arg, &request->caches), state, "--cache-mode", arg,
               "normal, faithful or hostile, with ,quota= (1 to 16m) and ,seed=");
        break;
    case ARGP_KEY_ARG:
        refuse(state, "what is '%s'?", arg);
        break;
    case ARGP_KEY_END:
        check_all(request, state);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return request->refused ? EINVAL : 0;
}

static const struct argp argp = {.options = options, .parser = parse_option, .doc = help_text};

static void parse(struct serve_options *request, int argc, char **argv, bool taken)
{
    static char name[] = "viommu serve";

    memset(request, 0, sizeof(*request));
    request->taken = taken;
    request->virtio.bypass = true;
    argp_err_exit_status = TOOL_USAGE;
    argv[0] = name;
    argp_parse(&argp, argc, argv, 0, NULL, request);
}

void serve_options_parse(struct serve_options *request, int argc, char **argv)
{
    parse(request, argc, argv, false);
}

/* Whether it is as note_argument makes them: nothing else may come to argp, which has options of
 * its own. */
static bool is_noted(const char *argument)
{
    size_t length;

    if (strncmp(argument, "--", 2) != 0) {
        return false;
    }
    argument += 2;
    length = strcspn(argument, "=");
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        const char *name = options[i].name;

        if (name && strlen(name) == length && !memcmp(argument, name, length)) {
            return is_handed_on(options[i].key) && !argument[length] == !options[i].arg;
        }
    }
    return false;
}

int serve_options_take(struct serve_options *request, unsigned count, const char *const *arguments)
{
    const char *handover = request->handover, *trace = request->trace;
    char *words[SERVE_ARGUMENTS_MAX + 2] = {NULL};

    for (unsigned i = 0; i < count; i++) {
        if (!is_noted(arguments[i])) {
            server_log("the other server has an option that this one does not know: %s",
                       arguments[i]);
            return -EBADMSG;
        }
    }
    for (unsigned i = 1; i <= count; i++) {
        words[i] = strdup(arguments[i - 1]);
        if (!words[i]) {
            return -ENOMEM;
        }
    }
    serve_options_fini(request);
    parse(request, (int)count + 1, words, true);
    memcpy(request->words, words, sizeof(words));
    request->handover = handover;
    request->trace = trace;
    return request->refused ? -EBADMSG : 0;
}

void serve_options_fini(struct serve_options *request)
{
    for (unsigned i = 0; i < request->device_count; i++) {
        serve_device_options_fini(&request->devices[i]);
    }
    for (unsigned i = 0; i < request->argument_count; i++) {
        free(request->arguments[i]);
    }
    for (unsigned i = 1; i < SERVE_ARGUMENTS_MAX + 2; i++) {
        free(request->words[i]);
    }
}
