/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The room of pinned windows: a device holds pointers into guest memory, and uses them, while the
 * guest does something else.
 *
 * A window has a name here. What its holder does when it is asked for it back is said in advance.
 * A use of the pointers after their memory was given up would be the library's fault: that is a
 * mismatch of the line at which the memory goes.
 */
#include "run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    PIN_RANGES_MAX = 2,
    PIN_IOV_MAX = 1024,
};

struct pin {
    struct pin *next;
    char *name;
    struct viommu_window *window; /* NULL: released, from inside revoke or fence */
    struct iovec iov[PIN_IOV_MAX];
    size_t iov_count;
    uint64_t size;
    bool yields;         /* releases it when it is asked */
    bool yields_late;    /* when it is fenced */
    int fence_answer;
    unsigned revoked;
    unsigned fenced;
};

static struct pin *find_pin(struct run *run, const char *name)
{
    struct pin *pin = run->pins;

    while (pin && strcmp(pin->name, name)) {
        pin = pin->next;
    }
    return pin;
}

static struct pin *arg_pin(struct run *run)
{
    const char *name = line_argument(&run->line, "name")->value;
    struct pin *pin = find_pin(run, name);

    if (!pin) {
        run_error(run, name, "nothing of this name is pinned");
    }
    return pin;
}

static void pin_release(struct pin *pin)
{
    viommu_window_release(pin->window);
    pin->window = NULL;
}

static void on_revoke(void *opaque)
{
    struct pin *pin = opaque;

    pin->revoked++;
    if (pin->yields) {
        pin_release(pin);
    }
}

static int on_fence(void *opaque)
{
    struct pin *pin = opaque;

    pin->fenced++;
    if (pin->yields_late) {
        pin_release(pin);
    }
    return pin->fence_answer;
}

static void pin_free(struct pin *pin)
{
    pin_release(pin);
    free(pin->name);
    free(pin);
}

void pins_destroy(struct run *run)
{
    while (run->pins) {
        struct pin *pin = run->pins;

        run->pins = pin->next;
        pin_free(pin);
    }
}

void pins_lose_memory(struct run *run, const void *host, uint64_t size)
{
    const uint8_t *begin = host;

    for (const struct pin *pin = run->pins; pin; pin = pin->next) {
        for (size_t i = 0; pin->window && i < pin->iov_count; i++) {
            const uint8_t *at = pin->iov[i].iov_base;

            if (at + pin->iov[i].iov_len > begin && at < begin + size) {
                fprintf(stderr, "%s:%u: %s\n  memory that %s has pinned was given up\n",
                        run->file, run->line_number, run->line.text, pin->name);
                run->violated = true;
                break;
            }
        }
    }
}

/* One range or two. */
static bool arg_ranges(struct run *run, struct viommu_range *ranges, size_t *count,
                       uint64_t *size)
{
    static const char *const names[PIN_RANGES_MAX][2] = {{"iova", "len"}, {"then", "then-len"}};

    *count = 0;
    *size = 0;
    for (unsigned i = 0; i < PIN_RANGES_MAX && (!i || arg_given(run, names[i][0])); i++) {
        uint64_t len = 4;

        if (!arg_number(run, names[i][0], &ranges[i].first) ||
            !arg_number(run, names[i][1], &len)) {
            return false;
        }
        ranges[i].last = ranges[i].first + len - 1;
        *size += len;
        (*count)++;
    }
    return true;
}

/* What happens when time is up: nothing can be done (none), or the answer of the holder. */
static bool arg_fence(struct run *run, struct pin *pin, struct viommu_window_request *request)
{
    const char *text = "ok";

    if (arg_given(run, "fence") && !arg_text(run, "fence", &text)) {
        return false;
    }
    request->fence = strcmp(text, "none") ? on_fence : NULL;
    pin->yields_late = !strcmp(text, "release");
    pin->fence_answer = errno_of_word(text);
    if (!request->fence || pin->yields_late || pin->fence_answer || !strcmp(text, "ok")) {
        return true;
    }
    run_error(run, text, "fence is ok, none, release, or a failure as io-error");
    return false;
}

static void result_pinned(struct run *run, const struct pin *pin)
{
    result_decimal(&run->result, "parts", pin->iov_count);
    result_size(&run->result, "bytes", pin->size);
}

/* The window of the line's arguments. Returns whether they make sense. */
static bool pin_make(struct run *run, struct pin *pin, struct viommu_device *device)
{
    struct viommu_range ranges[PIN_RANGES_MAX];
    struct viommu_window_request request = {
        .ranges = ranges,
        .perm = VIOMMU_READ,
        .revoke = on_revoke,
        .opaque = pin,
    };
    struct viommu_dma_attrs attrs;
    uint64_t room = PIN_IOV_MAX;
    int error;

    if (!arg_ranges(run, ranges, &request.count, &pin->size) ||
        !arg_perm(run, "perm", &request.perm) || !arg_attributes(run, &attrs) ||
        !arg_number_max(run, "room", PIN_IOV_MAX, &room) || !arg_fence(run, pin, &request)) {
        return false;
    }
    pin->yields = arg_flag(run, "yields");
    pin->iov_count = (size_t)room;
    error = viommu_device_pin(device, &attrs, &request, pin->iov, &pin->iov_count, &pin->window);
    result_errno(&run->result, error);
    if (!error) {
        result_pinned(run, pin);
    }
    return true;
}

static void do_pin(struct run *run)
{
    struct device *device = arg_device(run, "dev");
    struct pin *pin;
    const char *name;

    if (!device || !arg_text(run, "name", &name)) {
        return;
    }
    if (find_pin(run, name)) {
        run_error(run, name, "something of this name is pinned already");
        return;
    }
    pin = run_alloc(sizeof(*pin));
    pin->name = run_copy_text(name);
    if (!pin_make(run, pin, device_handle(device)) || !pin->window) {
        pin_free(pin);
        return;
    }
    pin->next = run->pins;
    run->pins = pin;
}

static void do_unpin(struct run *run)
{
    struct pin *pin = arg_pin(run);
    struct pin **at = &run->pins;

    if (!pin) {
        return;
    }
    while (*at != pin) {
        at = &(*at)->next;
    }
    *at = pin->next;
    pin_free(pin);
}

static void do_pinned(struct run *run)
{
    const struct pin *pin = arg_pin(run);

    if (!pin) {
        return;
    }
    result_pinned(run, pin);
    result_word(&run->result, "open", pin->window ? "yes" : "no");
    result_decimal(&run->result, "revoked", pin->revoked);
    result_decimal(&run->result, "fenced", pin->fenced);
}

/* Copies through the pointers, in the order of the ranges. */
static void pin_copy(const struct pin *pin, uint64_t offset, uint8_t *bytes, size_t size,
                     bool write)
{
    for (size_t i = 0; i < pin->iov_count && size; i++) {
        uint8_t *at = pin->iov[i].iov_base;
        size_t len = pin->iov[i].iov_len;
        size_t piece;

        if (offset >= len) {
            offset -= len;
            continue;
        }
        piece = len - offset < size ? len - (size_t)offset : size;
        if (write) {
            memcpy(at + offset, bytes, piece);
        } else {
            memcpy(bytes, at + offset, piece);
        }
        bytes += piece;
        size -= piece;
        offset = 0;
    }
}

/* The window, when it has these bytes. */
static struct pin *arg_bytes(struct run *run, uint64_t *offset, uint64_t size)
{
    struct pin *pin = arg_pin(run);

    if (!pin || !arg_number(run, "offset", offset)) {
        return NULL;
    }
    if (!pin->window || *offset > pin->size || size > pin->size - *offset) {
        run_error(run, pin->name, "there are no such bytes in the window, or it is released");
        return NULL;
    }
    return pin;
}

static void do_pinned_read(struct run *run)
{
    uint64_t offset = 0;
    uint64_t size = 0;
    struct pin *pin;
    uint8_t *bytes;

    if (!arg_number_max(run, "len", VIOMMU_WINDOW_BYTES_MAX, &size)) {
        return;
    }
    pin = arg_bytes(run, &offset, size);
    if (!pin) {
        return;
    }
    bytes = run_alloc((size_t)size);
    pin_copy(pin, offset, bytes, (size_t)size, false);
    memory_result_bytes(run, bytes, (size_t)size);
    free(bytes);
}

static void do_pinned_write(struct run *run)
{
    uint64_t offset = 0;
    struct pin *pin;
    uint8_t *bytes;
    size_t size;

    if (!arg_data(run, &bytes, &size)) {
        return;
    }
    pin = arg_bytes(run, &offset, size);
    if (pin) {
        pin_copy(pin, offset, bytes, size, true);
    }
    free(bytes);
}

const struct command window_commands[] = {
    {"pin", "name dev iova len [perm] [then=] [then-len=] [room=] [fence=] [yields!] "
            ATTRIBUTE_ARGUMENTS,
     "Pins a window, of one range or two, as the device.", do_pin},
    {"unpin", "name", "Releases it.", do_unpin},
    {"pinned", "name", "Tells what its holder was told.", do_pinned},
    {"pinned-read", "name len [offset=]", "Reads through the pointers of a window.",
     do_pinned_read},
    {"pinned-write", "name [offset=] " DATA_ARGUMENTS, "Writes through them.", do_pinned_write},
    {0},
};
