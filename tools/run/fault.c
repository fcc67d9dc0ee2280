/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The fault room: fault records, read the way an operating system's handler reads them.
 *
 * The records are a ring; while faults are pending FSTS.FRI is the first of them. A record is
 * cleared by writing one to its highest bit.
 */
#include "run.h"

enum {
    FSTS = 0x34,
    FSTS_PFO = 1 << 0,
    FSTS_PPF = 1 << 1,
    RECORD_SIZE = 16,
    RECORD_F = 31,
};

/* Fault reasons of legacy mode, in words (specification: DMA-remapping fault conditions). */
static const struct {
    unsigned code;
    const char *word;
} reasons[] = {
    {0x1, "root-not-present"},
    {0x2, "context-not-present"},
    {0x3, "context-invalid"},
    {0x4, "address-too-wide"},
    {0x5, "no-write-permission"},
    {0x6, "no-read-permission"},
    {0x7, "table-unreachable"},
    {0x8, "root-unreachable"},
    {0x9, "context-unreachable"},
    {0xa, "root-reserved"},
    {0xb, "context-reserved"},
    {0xc, "entry-reserved"},
    {0xd, "request-type-blocked"},
    {0xe, "interrupt-range"},
    {0x29, "interrupt-access"},
    {0x30, "mode-invalid"},
};

static const char *reason_word(unsigned code)
{
    for (unsigned i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
        if (reasons[i].code == code) {
            return reasons[i].word;
        }
    }
    return "unknown";
}

/* One record: two halves, as the guest reads them. */
struct record {
    unsigned index;
    uint64_t at;
    uint64_t low;
    uint64_t high;
};

static struct record read_record(struct run *run, unsigned index)
{
    struct record record = {.index = index};

    record.at = register_fault_offset(run) + (uint64_t)index * RECORD_SIZE;
    record.low = register_get(run, record.at, 8);
    record.high = register_get(run, record.at + 8, 8);
    return record;
}

static bool record_used(const struct record *record)
{
    return record->high >> 63;
}

/* Bits T1 and T2 together. */
static const char *access_word(const struct record *record)
{
    static const char *const words[] = {"write", "page-request", "read", "atomic"};

    return words[(record->high >> 62 & 1) << 1 | (record->high >> 28 & 1)];
}

static const char *type_word(const struct record *record)
{
    static const char *const words[] = {"untranslated", "translation", "translated", "reserved"};

    return words[record->high >> 60 & 3];
}

static void result_record(struct run *run, const struct record *record)
{
    unsigned reason = (unsigned)(record->high >> 32 & 0xff);

    result_hex(&run->result, "reason", reason);
    result_word(&run->result, "why", reason_word(reason));
    result_word(&run->result, "access", access_word(record));
    result_word(&run->result, "type", type_word(record));
    result_hex(&run->result, "address", record->low);
    result_requester(&run->result, "requester", (uint16_t)record->high);
    result_decimal(&run->result, "record", record->index);
}

static void clear_record(struct run *run, const struct record *record)
{
    register_set(run, record->at + 12, 4, 1u << RECORD_F);
}

/* The first pending record from FSTS.FRI on; false, with the status none, when none is pending. */
static bool first_pending(struct run *run, struct record *record)
{
    uint64_t status = register_get(run, FSTS, 4);
    unsigned count = register_fault_count(run);
    unsigned first = (unsigned)(status >> 8 & 0xff);

    for (unsigned i = 0; i < count && status & FSTS_PPF; i++) {
        *record = read_record(run, (first + i) % count);
        if (record_used(record)) {
            return true;
        }
    }
    result_status(&run->result, "none");
    return false;
}

static void do_fault(struct run *run)
{
    struct record record;

    if (!run_unit(run) || !first_pending(run, &record)) {
        return;
    }
    result_record(run, &record);
    clear_record(run, &record);
}

static void do_fault_record(struct run *run)
{
    struct record record;
    uint64_t index;

    if (!run_unit(run) || !arg_number_max(run, "index", register_fault_count(run) - 1, &index)) {
        return;
    }
    record = read_record(run, (unsigned)index);
    if (!record_used(&record)) {
        result_status(&run->result, "empty");
    }
    result_record(run, &record);
}

static void do_fault_clear(struct run *run)
{
    uint64_t index;

    if (!run_unit(run) || !arg_number_max(run, "index", register_fault_count(run) - 1, &index)) {
        return;
    }
    clear_record(run, &(struct record){.at = register_fault_offset(run) + index * RECORD_SIZE});
}

static void do_faults(struct run *run)
{
    uint64_t status;
    unsigned pending = 0;

    if (!run_unit(run)) {
        return;
    }
    status = register_get(run, FSTS, 4);
    for (unsigned i = 0; i < register_fault_count(run); i++) {
        struct record record = read_record(run, i);

        pending += record_used(&record);
    }
    result_decimal(&run->result, "pending", pending);
    result_decimal(&run->result, "records", register_fault_count(run));
    result_word(&run->result, "overflow", status & FSTS_PFO ? "yes" : "no");
    if (status & FSTS_PPF) {
        result_decimal(&run->result, "first", status >> 8 & 0xff);
    }
}

const struct command fault_commands[] = {
    {"fault", "", "Takes the first pending fault, as a handler does, and clears its record.",
     do_fault},
    {"faults", "", "Counts the pending faults.", do_faults},
    {"fault-record", "index", "Tells what is in one fault record.", do_fault_record},
    {"fault-clear", "index", "Clears one fault record.", do_fault_clear},
    {0},
};
