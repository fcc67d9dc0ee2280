/* SPDX-License-Identifier: BSD-2-Clause */
/* See writer.h. */
#include "writer.h"

#include "words.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    BUFFER_SIZE = 64 * 1024,
    LINE_MAX_BYTES = 2048, /* the longest line, the last one, has some 800 */
};

struct trace_writer {
    pthread_mutex_t lock;
    struct viommu *iommu;
    bool virtio; /* the unit is a virtio-iommu */
    int fd;
    int error;      /* of the write that failed: nothing is put down since */
    uint64_t index; /* of the last observation */
    uint64_t time;
    size_t used;
    char buffer[BUFFER_SIZE];
};

/* Writes the buffer out, or loses it with the error remembered. Under the lock. */
static void write_out(struct trace_writer *writer)
{
    size_t done = 0;

    while (done < writer->used && !writer->error) {
        ssize_t written = write(writer->fd, writer->buffer + done, writer->used - done);

        if (written > 0) {
            done += (size_t)written;
        } else if (written == 0 || errno != EINTR) {
            writer->error = written == 0 ? -EIO : -errno;
        }
    }
    writer->used = 0;
}

__attribute__((format(printf, 2, 3))) static void add(struct trace_writer *writer,
                                                      const char *format, ...)
{
    size_t room = BUFFER_SIZE - writer->used;
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(writer->buffer + writer->used, room, format, arguments);
    va_end(arguments);
    if (length > 0) {
        writer->used += (size_t)length < room ? (size_t)length : room - 1;
    }
}

static void add_hex(struct trace_writer *writer, const char *name, uint64_t value)
{
    add(writer, ",\"%s\":\"0x%" PRIx64 "\"", name, value);
}

static void add_perm(struct trace_writer *writer, const char *name, uint32_t perm)
{
    static const char *const words[] = {"none", "r", "w", "rw"};

    add(writer, ",\"%s\":\"%s\"", name, words[perm & (VIOMMU_READ | VIOMMU_WRITE)]);
}

static void add_requester(struct trace_writer *writer, uint16_t requester)
{
    add(writer, ",\"requester\":\"%02x:%02x.%x\"", requester >> 8, requester >> 3 & 0x1f,
        requester & 7);
}

/* A line has room when it is begun, and the buffer goes out when the next has none. */
static void begin_line(struct trace_writer *writer, unsigned kind)
{
    if (BUFFER_SIZE - writer->used < LINE_MAX_BYTES) {
        write_out(writer);
    }
    add(writer, "{\"index\":%" PRIu64 ",\"time\":%" PRIu64 ",\"kind\":\"%s\"", writer->index,
        writer->time, trace_kind_words[kind]);
}

static void add_descriptor(struct trace_writer *writer,
                           const struct viommu_observation *observation)
{
    add(writer, ",\"slot\":%" PRIu32 ",\"type\":\"%s\"", observation->slot,
        trace_descriptor_word(observation->low));
    add_hex(writer, "low", observation->low);
    add_hex(writer, "high", observation->high);
}

static void add_request(struct trace_writer *writer, const struct viommu_observation *observation)
{
    static const char *const words[] = {"untranslated", "translation", "translated"};

    add_requester(writer, observation->requester);
    add(writer, ",\"request\":\"%s\"", words[observation->type % 3]);
    add_hex(writer, "iova", observation->iova);
    add_perm(writer, "wanted", observation->wanted);
}

static void add_miss(struct trace_writer *writer, const struct viommu_observation *observation)
{
    add_request(writer, observation);
    add(writer, ",\"error\":%d", observation->error);
    if (!observation->error) {
        add_hex(writer, "gpa", observation->gpa);
        add_hex(writer, "mask", observation->mask);
        add_perm(writer, "perm", observation->perm);
    }
}

static void add_fault(struct trace_writer *writer, const struct viommu_observation *observation)
{
    add_request(writer, observation);
    add_hex(writer, "reason", observation->reason);
    add(writer, ",\"error\":%d", observation->error);
    if (!observation->error) {
        add(writer, ",\"record\":%" PRIu32, observation->slot);
    }
}

/* The text is a sentence of the library's own. */
static void add_event(struct trace_writer *writer, const struct viommu_event *event)
{
    add(writer, ",\"event\":\"%s\"", trace_event_word(event->kind));
    add_requester(writer, event->requester);
    add(writer, ",\"error\":%d", event->error);
    add_hex(writer, "first", event->first);
    add_hex(writer, "last", event->last);
    add(writer, ",\"text\":\"%s\"", event->text ? event->text : "");
}

static void add_command(struct trace_writer *writer, const struct viommu_observation *observation)
{
    add_hex(writer, "offset", observation->offset);
    add_hex(writer, "value", observation->value);
    if (observation->low) {
        add_hex(writer, "low", observation->low);
        add_hex(writer, "high", observation->high);
    }
}

static uint64_t number_at(const struct viommu_observation *observation, unsigned at,
                          unsigned bytes)
{
    uint64_t value = 0;

    while (bytes--) {
        value = value << 8 | observation->bytes[at + bytes];
    }
    return value;
}

static void add_requested(struct trace_writer *writer, uint64_t endpoint)
{
    if (endpoint <= UINT16_MAX) {
        add_requester(writer, (uint16_t)endpoint);
    }
}

/* What the request asks for, for people: a replay reads its bytes. */
static void add_fields(struct trace_writer *writer, const struct viommu_observation *observation)
{
    enum { ATTACH = 1, DETACH, MAP, UNMAP, PROBE };
    static const uint8_t sizes[] = {[ATTACH] = 20, [DETACH] = 20, [MAP] = 36, [UNMAP] = 28,
                                    [PROBE] = 8};
    unsigned type = observation->slot ? observation->bytes[0] : 0;

    add(writer, ",\"type\":\"%s\"", trace_request_word(type));
    if (type < ATTACH || type > PROBE || observation->slot < sizes[type]) {
        return;
    }
    if (type == PROBE) {
        add_requested(writer, number_at(observation, 4, 4));
        return;
    }
    add(writer, ",\"domain\":%" PRIu64, number_at(observation, 4, 4));
    if (type == ATTACH || type == DETACH) {
        add_requested(writer, number_at(observation, 8, 4));
    } else {
        add_hex(writer, "first", number_at(observation, 8, 8));
        add_hex(writer, "last", number_at(observation, 16, 8));
    }
    if (type == MAP) {
        add_hex(writer, "gpa", number_at(observation, 24, 8));
    }
    if (type == MAP || type == ATTACH) {
        add_hex(writer, "flags", number_at(observation, type == MAP ? 32 : 12, 4));
    }
}

static void add_virtio_request(struct trace_writer *writer,
                               const struct viommu_observation *observation)
{
    add(writer, ",\"number\":%" PRIu64 ",\"size\":%" PRIu32 ",\"room\":%" PRIu64,
        observation->number, observation->size, observation->room);
    add_fields(writer, observation);
    add(writer, ",\"bytes\":\"");
    for (uint32_t i = 0; i < observation->slot && i < TRACE_BYTES_MAX; i++) {
        add(writer, "%02x", observation->bytes[i]);
    }
    add(writer, "\"");
}

/* What an observation says, by its kind. */
static void add_members(struct trace_writer *writer, const struct viommu_observation *observation)
{
    switch (observation->kind) {
    case VIOMMU_OBSERVED_RESET:
        break;
    case VIOMMU_OBSERVED_WRITE:
        add_hex(writer, "offset", observation->offset);
        add(writer, ",\"size\":%" PRIu32, observation->size);
        add_hex(writer, "value", observation->value);
        break;
    case VIOMMU_OBSERVED_COMMAND:
    case VIOMMU_OBSERVED_COMPLETED:
        add_command(writer, observation);
        break;
    case VIOMMU_OBSERVED_DESCRIPTOR:
        add_descriptor(writer, observation);
        break;
    case VIOMMU_OBSERVED_REFUSED:
        add_descriptor(writer, observation);
        add(writer, ",\"reason\":%" PRIu32, observation->reason);
        break;
    case VIOMMU_OBSERVED_RETIRED:
        add_descriptor(writer, observation);
        add(writer, ",\"error\":%d", observation->error);
        break;
    case VIOMMU_OBSERVED_MISS:
        add_miss(writer, observation);
        break;
    case VIOMMU_OBSERVED_FAULT:
        add_fault(writer, observation);
        break;
    case VIOMMU_OBSERVED_MESSAGE:
        add_hex(writer, "offset", observation->offset);
        add_hex(writer, "address", observation->gpa);
        add_hex(writer, "value", observation->value);
        break;
    case VIOMMU_OBSERVED_EVENT:
        add_event(writer, observation->event);
        break;
    case VIOMMU_OBSERVED_ACCEPTED:
        add_hex(writer, "value", observation->value);
        break;
    case VIOMMU_OBSERVED_REQUEST:
        add_virtio_request(writer, observation);
        break;
    case VIOMMU_OBSERVED_RESTART:
        add(writer, ",\"number\":%" PRIu64, observation->number);
        break;
    case VIOMMU_OBSERVED_ANSWERED:
        add(writer, ",\"number\":%" PRIu64 ",\"status\":\"%s\",\"written\":%" PRIu32,
            observation->number, trace_status_word(observation->status), observation->size);
        break;
    case VIOMMU_OBSERVED_REQUESTER:
        add_requester(writer, observation->requester);
        add(writer, ",\"present\":%s", observation->value ? "true" : "false");
        break;
    }
}

static void observe(void *opaque, const struct viommu_observation *observation)
{
    struct trace_writer *writer = opaque;

    pthread_mutex_lock(&writer->lock);
    writer->index = observation->index;
    writer->time = observation->time;
    if (!writer->error) {
        begin_line(writer, observation->kind);
        add_members(writer, observation);
        add(writer, "}\n");
    }
    pthread_mutex_unlock(&writer->lock);
}

/* The registers as they are. */
static void add_registers(struct trace_writer *writer)
{
    add(writer, ",\"registers\":{");
    for (unsigned i = 0; i < TRACE_REGISTERS; i++) {
        const struct trace_register *known = &trace_registers[i];
        uint64_t value = 0;

        viommu_mmio_read(writer->iommu, known->offset, known->size, &value);
        add(writer, "%s\"%s\":\"0x%" PRIx64 "\"", i ? "," : "", known->name, value);
    }
    add(writer, "}");
}

/* The same of a virtio-iommu. */
static void add_state(struct trace_writer *writer)
{
    struct trace_state state = trace_state_of(writer->iommu);
    const uint64_t values[TRACE_STATES] = {state.features, state.domains, state.endpoints,
                                           state.mappings, state.bypass};

    add(writer, ",\"state\":{");
    for (unsigned i = 0; i < TRACE_STATES; i++) {
        add(writer, "%s\"%s\":\"0x%" PRIx64 "\"", i ? "," : "", trace_state_words[i], values[i]);
    }
    add(writer, "}");
}

static void add_format(struct trace_writer *writer)
{
    add(writer, "{\"format\":\"viommu-trace\",\"version\":%d,\"library\":\"%s\"", TRACE_FORMAT,
        viommu_version());
}

static void add_virtio_header(struct trace_writer *writer,
                              const struct viommu_virtio_config *config)
{
    add_format(writer);
    add(writer, ",\"model\":\"virtio\",\"unit\":{\"bypass\":%s",
        config->bypass ? "true" : "false");
    for (unsigned i = 0; i < TRACE_NUMBERS; i++) {
        const struct trace_number *known = &trace_numbers[i];
        uint64_t value = trace_number_get(known, config);

        if (known->bits) {
            add_hex(writer, known->name, value);
        } else {
            add(writer, ",\"%s\":%" PRIu64, known->name, value);
        }
    }
    add(writer, ",\"regions\":[");
    for (size_t i = 0; i < config->region_count; i++) {
        if (BUFFER_SIZE - writer->used < LINE_MAX_BYTES) {
            write_out(writer);
        }
        add(writer, "%s[\"0x%" PRIx64 "\",\"0x%" PRIx64 "\"]", i ? "," : "",
            config->regions[i].first, config->regions[i].last);
    }
    add(writer, "]}");
    add_state(writer);
    add(writer, "}\n");
}

static void add_header(struct trace_writer *writer, const struct viommu_vtd_config *config)
{
    uint64_t cap = 0, ecap = 0;

    viommu_mmio_read(writer->iommu, 8, 8, &cap);
    viommu_mmio_read(writer->iommu, 16, 8, &ecap);
    add_format(writer);
    add_hex(writer, "cap", cap);
    add_hex(writer, "ecap", ecap);
    add(writer, ",\"unit\":{\"width\":%d,\"host-width\":%d,\"domain-bits\":%d,"
                "\"fault-records\":%d",
        config->address_width, config->host_address_width, config->domain_bits,
        config->fault_records);
    for (unsigned i = 0; i < TRACE_SWITCHES; i++) {
        const struct trace_switch *known = &trace_switches[i];
        bool set = *(const bool *)((const char *)config + known->offset);

        add(writer, ",\"%s\":%s", known->name, set != known->inverse ? "true" : "false");
    }
    add_requester(writer, config->unit_requester);
    add(writer, "}");
    add_registers(writer);
    add(writer, "}\n");
}

/* A regular file is emptied when nobody else writes a trace or a disk there. */
static int take_file(int fd)
{
    struct stat st;

    if (fstat(fd, &st) < 0) {
        return -errno;
    }
    if (!S_ISREG(st.st_mode)) {
        return 0;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        return errno == EWOULDBLOCK ? -EADDRINUSE : -errno;
    }
    return fchmod(fd, 0600) < 0 || ftruncate(fd, 0) < 0 ? -errno : 0;
}

/* Waits for nobody, nor do its writes: the unit must not. Returns the descriptor or a negative
 * errno. */
static int open_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK, 0600);
    int ret = fd < 0 ? -errno : take_file(fd);

    if (ret < 0 && fd >= 0) {
        close(fd);
    }
    return ret < 0 ? ret : fd;
}

const char *trace_writer_error(int error)
{
    return error == -EADDRINUSE ? "it is in use"
           : error == -ELOOP    ? "it is a symbolic link"
           : error == -ENXIO    ? "it is a FIFO that nobody reads, or a socket"
                                : strerror(-error);
}

/* Opens the file of a writer that writes nothing yet. */
static int open_writer(const char *path, struct viommu *iommu, struct trace_writer **out)
{
    struct trace_writer *writer = calloc(1, sizeof(*writer));
    int fd;

    if (!writer) {
        return -ENOMEM;
    }
    fd = open_file(path);
    if (fd < 0) {
        free(writer);
        return fd;
    }
    writer->fd = fd;
    pthread_mutex_init(&writer->lock, NULL);
    writer->iommu = iommu;
    *out = writer;
    return 0;
}

/* The first line is there. */
static void watch(struct trace_writer *writer)
{
    struct viommu_watcher watcher = {.observe = observe, .opaque = writer};

    viommu_watch(writer->iommu, &watcher);
}

int trace_writer_open(const char *path, struct viommu *iommu,
                      const struct viommu_vtd_config *config, struct trace_writer **out)
{
    int ret = open_writer(path, iommu, out);

    if (!ret) {
        add_header(*out, config);
        watch(*out);
    }
    return ret;
}

int trace_writer_open_virtio(const char *path, struct viommu *iommu,
                             const struct viommu_virtio_config *config, struct trace_writer **out)
{
    int ret = open_writer(path, iommu, out);

    if (!ret) {
        (*out)->virtio = true;
        add_virtio_header(*out, config);
        watch(*out);
    }
    return ret;
}

int trace_writer_flush(struct trace_writer *writer)
{
    int error;

    pthread_mutex_lock(&writer->lock);
    write_out(writer);
    error = writer->error;
    pthread_mutex_unlock(&writer->lock);
    return error;
}

static void add_end(struct trace_writer *writer)
{
    writer->index++;
    begin_line(writer, TRACE_END);
    if (writer->virtio) {
        add_state(writer);
    } else {
        add_registers(writer);
    }
    add(writer, "}\n");
}

int trace_writer_close(struct trace_writer *writer)
{
    int error;

    viommu_watch(writer->iommu, NULL);
    if (!writer->error) {
        add_end(writer);
    }
    error = trace_writer_flush(writer);
    if (close(writer->fd) < 0 && !error) {
        error = -errno;
    }
    pthread_mutex_destroy(&writer->lock);
    free(writer);
    return error;
}
