/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The scenario runner: what its rooms share.
 *
 * A scenario is a text file; a line is an operation with its arguments, and may end in an
 * expectation:
 *
 *     dma read disk 0x1000 len=16   => ok hash=0x5c3a
 *
 * Each room (memory, unit, virtio, save, register, table, queue, device, hold, window, notify,
 * subscriber, mirror, iova, space, cpu, pv, fault, time) has one table of commands. A command takes
 * its arguments with the arg_* functions, acts, and says what came of it: a status word
 * (result_status) and fields (result_number, ...). The main loop compares those with the
 * expectation and prints them.
 *
 * Three outcomes of a line are kept apart: an answer of the library, good or bad, is a result; a
 * result other than the expected one is a mismatch (exit status 1), and so is a call of the library
 * that a mirror could not follow (mirror.c); a line that makes no sense is
 * an error (run_error, exit status 2) and ends the run.
 *
 * Everything is deterministic: time stands still but for the `time` operation, and one thread acts
 * at a time (see hold.c).
 */
#ifndef VIOMMU_TOOLS_RUN_RUN_H
#define VIOMMU_TOOLS_RUN_RUN_H

#include "line.h"
#include "result.h"

#include <stdio.h>

#include <viommu/viommu.h>

struct run;

/* One operation. A table of commands ends with a NULL name. */
struct command {
    const char *name;      /* one word or two */
    const char *arguments; /* see line.h */
    const char *help;      /* one sentence */
    void (*run)(struct run *run);
};

/* The commands of one room. */
struct room {
    const char *name;
    const struct command *commands;
};

extern const struct command memory_commands[];
extern const struct command unit_commands[];
extern const struct command virtio_commands[];
extern const struct command save_commands[];
extern const struct command register_commands[];
extern const struct command table_commands[];
extern const struct command queue_commands[];
extern const struct command device_commands[];
extern const struct command hold_commands[];
extern const struct command window_commands[];
extern const struct command notify_commands[];
extern const struct command subscriber_commands[];
extern const struct command mirror_commands[];
extern const struct command iova_commands[];
extern const struct command space_commands[];
extern const struct command cpu_commands[];
extern const struct command pv_commands[];
extern const struct command pv_call_commands[];
extern const struct command fault_commands[];
extern const struct command time_commands[];

struct memory_room;
struct tables;
struct queue;
struct device;
struct hold;
struct pin;
struct subscriber;
struct saved;
struct iova_room;
struct space_room;
struct pv_room;
struct message;
struct virtio_room;

/* One IOMMU instance; several may share the memory. */
struct unit {
    struct unit *next;
    struct run *run;
    char *name;
    struct viommu *iommu;
    struct viommu_config config;
    struct viommu_vtd_config vtd;
    struct tables *tables; /* what the table builder knows, or NULL; see table.c */
    struct queue *queue;   /* what the queue operations know, or NULL; see queue.c */
    struct trace_writer *tracer; /* or NULL */
    struct virtio_room *virtio;  /* of a virtio-iommu; NULL: it is a VT-d unit */
};

/* A first-in first-out list of what the library told; see notify.h. */
struct messages {
    struct message *first;
    struct message **end;
};

struct run {
    const char *file;
    unsigned line_number;
    struct line line;
    struct symbols symbols;
    struct result result;
    bool failed; /* an error: the run ends */
    bool violated; /* the current line is a mismatch, whatever it expects */
    struct viommu_memory *memory;
    struct memory_room *memory_room;
    struct unit *units;
    struct unit *unit; /* that operations are about */
    struct device *devices;
    struct hold *holds;
    struct pin *pins;
    struct subscriber *subscribers;
    struct saved *saved;
    struct iova_room *iova; /* or NULL */
    struct space_room *space; /* or NULL */
    struct pv_room *pv;     /* or NULL */
    struct messages interrupts;
    struct messages events;
    const char *trace_file; /* where to trace the next unit that starts, or NULL */
    uint64_t now; /* nanoseconds */
    bool autoprocess;
};

/* Says what is wrong with the current line, at the word (NULL: the whole line). Ends the run. */
__attribute__((format(printf, 3, 4))) void run_error(struct run *run, const char *word,
                                                     const char *format, ...);

/* unit.c: the configuration of a unit as arguments, and what they make of one. */
#define CONFIGURATION                                                                              \
    "[width=] [host-width=] [caching-mode=] [super-pages=] [pass-through=] [queue=] "             \
    "[snoop-control=] [device-tlb=] [domain-bits=] [fault-records=] [requester=]"
bool unit_arguments(struct run *run, struct viommu_vtd_config *vtd);

/* What units of all models are configured with. */
#define COMMON_CONFIGURATION                                                                       \
    "[ack-timeout=] [iotlb=] [rewrite-policy=] [shadow-quota=] [cache=] [cache-quota=] "          \
    "[cache-seed=]"
/*
 * unit.c: a unit with this name, and the configuration that the arguments say, to be created; NULL,
 * with an error said. unit_add takes it among the units, when `error` (of its creation) is 0, or
 * frees it; and says which.
 */
struct unit *unit_begin(struct run *run, const char *name);
bool unit_add(struct run *run, struct unit *unit, int error);

/*
 * device.c, subscriber.c: adds what a unit has to another instance, in the order in which it came,
 * and gives the first error; then it is there instead of here, or not.
 */
int devices_copy(struct run *run, const struct unit *unit, struct viommu *iommu);
void devices_move(struct run *run, const struct unit *unit);
struct viommu_device *device_copied(const struct device *device);
int subscribers_copy(struct run *run, const struct unit *unit, bool adopt);
void subscribers_move(struct run *run, const struct unit *unit, bool adopt);

/* unit.c: whether the unit's event descriptor is readable. */
bool unit_ready(const struct unit *unit);

/* Unless autoprocess is off: lets every unit and the memory work until nothing more can be done. */
void run_settle(struct run *run);

/* The current unit; NULL, with an error said, when there is none. */
struct unit *run_unit(struct run *run);

/*
 * Arguments of the current line. Each function returns false after it has said what is wrong. An
 * optional argument that is absent leaves *out alone and is no error.
 */
bool arg_given(const struct run *run, const char *name);
bool arg_flag(const struct run *run, const char *name);
bool arg_text(struct run *run, const char *name, const char **out);
bool arg_number(struct run *run, const char *name, uint64_t *out);
/* The same with an upper limit. */
bool arg_number_max(struct run *run, const char *name, uint64_t max, uint64_t *out);
/* on or off. */
bool arg_switch(struct run *run, const char *name, bool *out);
/* r, w, rw or none, as enum viommu_perm. */
bool arg_perm(struct run *run, const char *name, uint32_t *out);
/* A requester id: BUS:DEV.FN, a device's name, or a number. */
bool arg_requester(struct run *run, const char *name, uint16_t *out);
/* One of the words, a NULL-terminated list; *out is its index. */
bool arg_choice(struct run *run, const char *name, const char *const *words, unsigned *out);
/* Milliseconds and the like: a number and ns, us, ms or s. */
bool arg_duration(struct run *run, const char *name, uint64_t *out);

/*
 * Bytes, as DATA_ARGUMENTS say them: text=, data= (hexadecimal), fill= or pattern= with len=, u8=
 * to u64=; repeat= says how many times over. *out is the caller's to free. False, with an error
 * said, when there is none or more than one.
 */
#define DATA_ARGUMENTS                                                                             \
    "[text=] [data=] [fill=] [pattern=] [u8=] [u16=] [u32=] [u64=] [len=] [repeat=]"
bool arg_data(struct run *run, uint8_t **out, size_t *size);

/* Memory of the runner's own; a failure ends the program. */
void *run_alloc(size_t size);
char *run_copy_text(const char *text);

/* device.c: a device by name; NULL when there is none. */
struct device *device_find(struct run *run, const char *name);
/* The same for the argument; says what is wrong. */
struct device *arg_device(struct run *run, const char *name);
struct viommu_device *device_handle(const struct device *device);
struct unit *device_unit(const struct device *device);
/* Fills attrs from the arguments alias= and type=. */
#define ATTRIBUTE_ARGUMENTS "[alias=] [type=]"
bool arg_attributes(struct run *run, struct viommu_dma_attrs *attrs);
void device_result_translation(struct run *run, const struct viommu_translation *translation);
/* What arrived: data=, text= and uN= when short, hash= when long. */
void memory_result_bytes(struct run *run, const uint8_t *bytes, size_t size);

/* Guest memory in this process: one slot, which may be about to go. */
struct memory_place {
    uint64_t gpa;
    uint64_t size;
    const void *host;
    bool readonly; /* an answer */
};

/* Whether the guest's memory at an address lies there. */
bool memory_is_at(const struct run *run, struct memory_place *place);

/* Guest memory, for rooms that act as the guest: says an error when it is not there. */
bool guest_read(struct run *run, uint64_t gpa, void *buffer, size_t size);
bool guest_write(struct run *run, uint64_t gpa, const void *buffer, size_t size);
uint64_t guest_read64(struct run *run, uint64_t gpa);
void guest_write64(struct run *run, uint64_t gpa, uint64_t value);

/* table.c: the built root table of the current unit; says an error when there can be none. */
uint64_t tables_root(struct run *run);

/* register.c: one register of the current unit, which is there. */
uint64_t register_get(struct run *run, uint64_t offset, unsigned size);
void register_set(struct run *run, uint64_t offset, unsigned size, uint64_t value);
/* Offsets that CAP and ECAP give. */
uint64_t register_fault_offset(struct run *run);
unsigned register_fault_count(struct run *run);
uint64_t register_iotlb_offset(struct run *run);

/* Room-wide beginnings and ends. */
bool memory_room_init(struct run *run);
void memory_room_process(struct run *run);
void memory_room_fini(struct run *run);
void tables_destroy(struct tables *tables);
void queue_destroy(struct queue *queue);
void devices_destroy(struct run *run, const struct unit *unit); /* NULL: all */
/* Forgets the subscribers of a device that the library has removed. */
void subscribers_free(struct run *run, const struct device *device);
/* mirror.c: judges how the mirrors stand after a line. */
void mirrors_check(struct run *run);
/* Memory of this process is about to be given up: no mirror maps it any more. */
void mirrors_lose_memory(struct run *run, const void *host, uint64_t size);
void holds_destroy(struct run *run);
void pins_destroy(struct run *run);
/* The same of pinned windows as mirrors_lose_memory. */
void pins_lose_memory(struct run *run, const void *host, uint64_t size);
void saved_destroy(struct run *run);
void iova_destroy(struct run *run);
/* The space that there is, or NULL. */
struct viommu_iova *iova_space(const struct run *run);

/* A batch was refused by a space that follows: the two sides, into the result. */
void iova_result_refused(struct run *run);
void spaces_destroy(struct run *run);
void pv_destroy(struct run *run);
void units_destroy(struct run *run);
void messages_init(struct messages *messages);
void messages_destroy(struct messages *messages);
void notify_interrupt(void *opaque, const struct viommu_interrupt *interrupt);
void notify_event(void *opaque, const struct viommu_event *event);

#endif
