/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The register room: reads and writes at any offset in any size, by number or by name, and the
 * global commands as an operating system gives them.
 *
 * A register's name may be followed by +N, bytes into it. A named register that is read whole is
 * told field by field, as the specification names them. A field of kind ADDRESS holds the upper
 * bits of an address and is told as that address.
 */
#include "run.h"

#include <stdlib.h>
#include <string.h>

enum {
    CAP = 0x08,
    ECAP = 0x10,
    GCMD = 0x18,
    GSTS = 0x1c,
    RTADDR = 0x20,
    FIELDS_MAX = 24,
    RECORD_SIZE = 16,
};

/* What software writes back of GSTS with each command: one-shot bits are not repeated. */
static const uint32_t gsts_kept = 0x96ffffff;

enum place { FIXED, IOTLB_BASED, FAULT_BASED };

enum field_form { NUMBER, ADDRESS };

struct register_field {
    const char *name;
    uint8_t high;
    uint8_t low;
    enum field_form form;
};

struct register_name {
    const char *name;
    uint16_t offset;
    uint8_t size;
    enum place place;
    struct register_field fields[FIELDS_MAX];
};

static const struct register_name registers[] = {
    {"VER", 0x00, 4, FIXED, {{"MIN", 3, 0, NUMBER}, {"MAX", 7, 4, NUMBER}}},
    {"CAP", CAP, 8, FIXED,
     {{"ND", 2, 0, NUMBER}, {"AFL", 3, 3, NUMBER}, {"RWBF", 4, 4, NUMBER}, {"PLMR", 5, 5, NUMBER},
      {"PHMR", 6, 6, NUMBER}, {"CM", 7, 7, NUMBER}, {"SAGAW", 12, 8, NUMBER},
      {"MGAW", 21, 16, NUMBER}, {"ZLR", 22, 22, NUMBER}, {"FRO", 33, 24, NUMBER},
      {"SLLPS", 37, 34, NUMBER}, {"PSI", 39, 39, NUMBER}, {"NFR", 47, 40, NUMBER},
      {"MAMV", 53, 48, NUMBER}, {"DWD", 54, 54, NUMBER}, {"DRD", 55, 55, NUMBER},
      {"FL1GP", 56, 56, NUMBER}, {"PI", 59, 59, NUMBER}, {"FL5LP", 60, 60, NUMBER},
      {"ESIRTPS", 62, 62, NUMBER}, {"ESRTPS", 63, 63, NUMBER}}},
    {"ECAP", ECAP, 8, FIXED,
     {{"C", 0, 0, NUMBER}, {"QI", 1, 1, NUMBER}, {"DT", 2, 2, NUMBER}, {"IR", 3, 3, NUMBER},
      {"EIM", 4, 4, NUMBER}, {"PT", 6, 6, NUMBER}, {"SC", 7, 7, NUMBER}, {"IRO", 17, 8, NUMBER},
      {"MHMV", 23, 20, NUMBER}, {"MTS", 25, 25, NUMBER}, {"NEST", 26, 26, NUMBER},
      {"PRS", 29, 29, NUMBER}, {"ERS", 30, 30, NUMBER}, {"SRS", 31, 31, NUMBER},
      {"NWFS", 33, 33, NUMBER}, {"EAFS", 34, 34, NUMBER}, {"PSS", 39, 35, NUMBER},
      {"PASID", 40, 40, NUMBER}, {"DIT", 41, 41, NUMBER}, {"PDS", 42, 42, NUMBER},
      {"SMTS", 43, 43, NUMBER}, {"SSTS", 46, 46, NUMBER}, {"FSTS", 47, 47, NUMBER},
      {"ADMS", 52, 52, NUMBER}}},
    {"GCMD", GCMD, 4, FIXED,
     {{"TE", 31, 31, NUMBER}, {"SRTP", 30, 30, NUMBER}, {"SFL", 29, 29, NUMBER},
      {"EAFL", 28, 28, NUMBER}, {"WBF", 27, 27, NUMBER}, {"QIE", 26, 26, NUMBER},
      {"IRE", 25, 25, NUMBER}, {"SIRTP", 24, 24, NUMBER}, {"CFI", 23, 23, NUMBER}}},
    {"GSTS", GSTS, 4, FIXED,
     {{"TES", 31, 31, NUMBER}, {"RTPS", 30, 30, NUMBER}, {"FLS", 29, 29, NUMBER},
      {"AFLS", 28, 28, NUMBER}, {"WBFS", 27, 27, NUMBER}, {"QIES", 26, 26, NUMBER},
      {"IRES", 25, 25, NUMBER}, {"IRTPS", 24, 24, NUMBER}, {"CFIS", 23, 23, NUMBER}}},
    {"RTADDR", RTADDR, 8, FIXED, {{"RTA", 63, 12, ADDRESS}, {"TTM", 11, 10, NUMBER}}},
    {"CCMD", 0x28, 8, FIXED,
     {{"ICC", 63, 63, NUMBER}, {"CIRG", 62, 61, NUMBER}, {"CAIG", 60, 59, NUMBER},
      {"FM", 33, 32, NUMBER}, {"SID", 31, 16, NUMBER}, {"DID", 15, 0, NUMBER}}},
    {"FSTS", 0x34, 4, FIXED,
     {{"PFO", 0, 0, NUMBER}, {"PPF", 1, 1, NUMBER}, {"AFO", 2, 2, NUMBER}, {"APF", 3, 3, NUMBER},
      {"IQE", 4, 4, NUMBER}, {"ICE", 5, 5, NUMBER}, {"ITE", 6, 6, NUMBER}, {"PRO", 7, 7, NUMBER},
      {"FRI", 15, 8, NUMBER}}},
    {"FECTL", 0x38, 4, FIXED, {{"IM", 31, 31, NUMBER}, {"IP", 30, 30, NUMBER}}},
    {"FEDATA", 0x3c, 4, FIXED, {{"IMD", 15, 0, NUMBER}, {"EIMD", 31, 16, NUMBER}}},
    {"FEADDR", 0x40, 4, FIXED, {{"MA", 31, 2, ADDRESS}}},
    {"FEUADDR", 0x44, 4, FIXED, {{"MUA", 31, 0, NUMBER}}},
    {"AFLOG", 0x58, 8, FIXED, {{0}}},
    {"PMEN", 0x64, 4, FIXED, {{"EPM", 31, 31, NUMBER}, {"PRS", 0, 0, NUMBER}}},
    {"PLMBASE", 0x68, 4, FIXED, {{0}}},
    {"PLMLIMIT", 0x6c, 4, FIXED, {{0}}},
    {"PHMBASE", 0x70, 8, FIXED, {{0}}},
    {"PHMLIMIT", 0x78, 8, FIXED, {{0}}},
    {"IQH", 0x80, 8, FIXED, {{"QH", 18, 4, NUMBER}}},
    {"IQT", 0x88, 8, FIXED, {{"QT", 18, 4, NUMBER}}},
    {"IQA", 0x90, 8, FIXED,
     {{"IQA", 63, 12, ADDRESS}, {"DW", 11, 11, NUMBER}, {"QS", 2, 0, NUMBER}}},
    {"ICS", 0x9c, 4, FIXED, {{"IWC", 0, 0, NUMBER}}},
    {"IECTL", 0xa0, 4, FIXED, {{"IM", 31, 31, NUMBER}, {"IP", 30, 30, NUMBER}}},
    {"IEDATA", 0xa4, 4, FIXED, {{"IMD", 15, 0, NUMBER}, {"EIMD", 31, 16, NUMBER}}},
    {"IEADDR", 0xa8, 4, FIXED, {{"MA", 31, 2, ADDRESS}}},
    {"IEUADDR", 0xac, 4, FIXED, {{"MUA", 31, 0, NUMBER}}},
    {"IQERCD", 0xb0, 8, FIXED,
     {{"IQEI", 3, 0, NUMBER}, {"ITESID", 47, 32, NUMBER}, {"ICESID", 63, 48, NUMBER}}},
    {"IRTA", 0xb8, 8, FIXED, {{0}}},
    {"PQH", 0xc0, 8, FIXED, {{0}}},
    {"PQT", 0xc8, 8, FIXED, {{0}}},
    {"PQA", 0xd0, 8, FIXED, {{0}}},
    {"PRS", 0xdc, 4, FIXED, {{0}}},
    {"PECTL", 0xe0, 4, FIXED, {{0}}},
    {"IVA", 0, 8, IOTLB_BASED,
     {{"ADDR", 63, 12, ADDRESS}, {"IH", 6, 6, NUMBER}, {"AM", 5, 0, NUMBER}}},
    {"IOTLB", 8, 8, IOTLB_BASED,
     {{"IVT", 63, 63, NUMBER}, {"IIRG", 61, 60, NUMBER}, {"IAIG", 58, 57, NUMBER},
      {"DR", 49, 49, NUMBER}, {"DW", 48, 48, NUMBER}, {"DID", 47, 32, NUMBER}}},
    /* FRCDn is the lower half of record n, FRCDnH the upper one. */
    {"FRCD", 0, 8, FAULT_BASED, {{"FI", 63, 12, ADDRESS}}},
    {"FRCDH", 8, 8, FAULT_BASED,
     {{"F", 63, 63, NUMBER}, {"T1", 62, 62, NUMBER}, {"AT", 61, 60, NUMBER}, {"PV", 59, 40, NUMBER},
      {"FR", 39, 32, NUMBER}, {"PP", 31, 31, NUMBER}, {"EXE", 30, 30, NUMBER},
      {"PRIV", 29, 29, NUMBER}, {"T2", 28, 28, NUMBER}, {"SID", 15, 0, NUMBER}}},
};

enum { REGISTERS = sizeof(registers) / sizeof(registers[0]) };

/* Where an access goes: an offset, and the register when it has a name. */
struct target {
    const struct register_name *name; /* NULL: by number */
    uint64_t offset;
    uint64_t within; /* bytes past the register's first */
};

uint64_t register_get(struct run *run, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    viommu_mmio_read(run->unit->iommu, offset, size, &value);
    return value;
}

void register_set(struct run *run, uint64_t offset, unsigned size, uint64_t value)
{
    viommu_mmio_write(run->unit->iommu, offset, size, value);
}

uint64_t register_fault_offset(struct run *run)
{
    return (register_get(run, CAP, 8) >> 24 & 0x3ff) * 16;
}

unsigned register_fault_count(struct run *run)
{
    return (unsigned)(register_get(run, CAP, 8) >> 40 & 0xff) + 1;
}

uint64_t register_iotlb_offset(struct run *run)
{
    return (register_get(run, ECAP, 8) >> 8 & 0x3ff) * 16;
}

static const struct register_name *find_register(const char *name, size_t length)
{
    for (unsigned i = 0; i < REGISTERS; i++) {
        if (strlen(registers[i].name) == length && !strncmp(registers[i].name, name, length)) {
            return &registers[i];
        }
    }
    return NULL;
}

/* FRCDn or FRCDnH at the start of a text; moves *text behind it. */
static bool fault_target(struct run *run, const char **text, struct target *target)
{
    unsigned long n;
    char *end;

    if (strncmp(*text, "FRCD", 4) || (*text)[4] < '0' || (*text)[4] > '9') {
        return false;
    }
    n = strtoul(*text + 4, &end, 10);
    target->name = find_register(*end == 'H' ? "FRCDH" : "FRCD", *end == 'H' ? 5 : 4);
    target->offset = register_fault_offset(run) + n * RECORD_SIZE + target->name->offset;
    *text = end + (*end == 'H');
    return true;
}

static bool named_target(struct run *run, const char **text, struct target *target)
{
    size_t length = strspn(*text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");

    if (fault_target(run, text, target)) {
        return true;
    }
    target->name = find_register(*text, length);
    if (!length || !target->name || target->name->place == FAULT_BASED) {
        return false;
    }
    target->offset = target->name->offset;
    if (target->name->place == IOTLB_BASED) {
        target->offset += register_iotlb_offset(run);
    }
    *text += length;
    return true;
}

static const char *next_register(void *opaque)
{
    unsigned *index = opaque;

    return *index < REGISTERS ? registers[(*index)++].name : NULL;
}

static bool unknown_register(struct run *run, const char *text)
{
    unsigned first = 0;
    const char *near = nearest(text, next_register, &first);

    run_error(run, text, "no such register%s%s", near ? "; did you mean " : "", near ? near : "");
    return false;
}

/* The arguments `register` and `size`. */
static bool target_arguments(struct run *run, struct target *target, unsigned *size)
{
    const char *text = line_argument(&run->line, "register")->value;
    const char *at = text;
    uint64_t bytes;

    *target = (struct target){0};
    if (number_value(text, &target->offset)) {
        bytes = 4;
    } else {
        if (!named_target(run, &at, target)) {
            return unknown_register(run, text);
        }
        if (*at && (*at != '+' || !number_value(at + 1, &target->within))) {
            return unknown_register(run, text);
        }
        target->offset += target->within;
        bytes = target->within < target->name->size ? target->name->size - target->within : 4;
    }
    if (!arg_number_max(run, "size", 64, &bytes)) {
        return false;
    }
    *size = (unsigned)bytes;
    return true;
}

static uint64_t field_mask(const struct register_field *field)
{
    return (UINT64_MAX >> (63 - (field->high - field->low))) << field->low;
}

static void result_fields(struct run *run, const struct register_name *name, uint64_t value)
{
    for (unsigned i = 0; i < FIELDS_MAX && name->fields[i].name; i++) {
        const struct register_field *field = &name->fields[i];
        uint64_t masked = value & field_mask(field);

        if (field->form == ADDRESS) {
            result_hex(&run->result, field->name, masked);
        } else if (field->high - field->low >= 8) {
            result_hex(&run->result, field->name, masked >> field->low);
        } else {
            result_decimal(&run->result, field->name, masked >> field->low);
        }
    }
}

static void do_reg_read(struct run *run)
{
    struct unit *unit = run_unit(run);
    struct target target;
    unsigned size;
    uint64_t value = 0;
    int error;

    if (!unit || !target_arguments(run, &target, &size)) {
        return;
    }
    error = viommu_mmio_read(unit->iommu, target.offset, size, &value);
    result_errno(&run->result, error);
    if (error) {
        return;
    }
    result_hex(&run->result, "value", value);
    if (target.name && !target.within && size == target.name->size) {
        result_fields(run, target.name, value);
    }
}

static const struct register_field *find_field(const struct register_name *name, const char *key)
{
    for (unsigned i = 0; i < FIELDS_MAX && name->fields[i].name; i++) {
        if (!strcmp(name->fields[i].name, key)) {
            return &name->fields[i];
        }
    }
    return NULL;
}

/* Puts FIELD=value, a further word of the line, into the value to write. */
static bool add_field(struct run *run, const struct target *target, const struct word *word,
                      uint64_t *value)
{
    const struct register_field *field;
    uint64_t number;

    if (!word->key || !target->name || target->within) {
        run_error(run, word->key ? word->key : word->value, "a field goes with a register's name");
        return false;
    }
    field = find_field(target->name, word->key);
    if (!field) {
        run_error(run, word->key, "%s has no such field", target->name->name);
        return false;
    }
    if (!number_value(word->value, &number)) {
        run_error(run, word->value, "this is not a number");
        return false;
    }
    if (field->form == NUMBER) {
        number <<= field->low;
    }
    if (number & ~field_mask(field)) {
        run_error(run, word->value, "this does not fit %s", field->name);
        return false;
    }
    *value |= number;
    return true;
}

static void do_reg_write(struct run *run)
{
    struct unit *unit = run_unit(run);
    const struct line *line = &run->line;
    struct target target;
    unsigned size;
    uint64_t value = 0;

    if (!unit || !target_arguments(run, &target, &size) || !arg_number(run, "value", &value)) {
        return;
    }
    for (unsigned i = line->first_argument; i < line->word_count; i++) {
        if (!line->words[i].argument[0] && !add_field(run, &target, &line->words[i], &value)) {
            return;
        }
    }
    result_errno(&run->result, viommu_mmio_write(unit->iommu, target.offset, size, value));
}

/* What a global command is in GCMD. */
static const struct {
    const char *name;
    unsigned bit;
    bool once; /* a one-shot command, neither on nor off */
} commands[] = {
    {"translation", 31, false},
    {"queue", 26, false},
    {"interrupt-remapping", 25, false},
    {"compatibility-interrupts", 23, false},
    {"set-root", 30, true},
    {"write-buffer-flush", 27, true},
    {"set-interrupt-root", 24, true},
};

static void give_command(struct run *run, unsigned bit, bool on)
{
    uint32_t value = (uint32_t)register_get(run, GSTS, 4) & gsts_kept;

    value = on ? value | 1u << bit : value & ~(1u << bit);
    register_set(run, GCMD, 4, value);
    run_settle(run);
    result_hex(&run->result, "GSTS", register_get(run, GSTS, 4));
    result_status(&run->result, (register_get(run, GSTS, 4) >> bit & 1) == on ? "done" : "waiting");
}

static void do_command(struct run *run)
{
    const char *names[sizeof(commands) / sizeof(commands[0]) + 1] = {0};
    unsigned which = 0;
    bool on = true;

    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        names[i] = commands[i].name;
    }
    if (!run_unit(run) || !arg_choice(run, "command", names, &which) ||
        !arg_switch(run, "switch", &on)) {
        return;
    }
    if (commands[which].once == arg_given(run, "switch")) {
        run_error(run, names[which], commands[which].once ? "this command is neither on nor off"
                                                          : "on or off?");
        return;
    }
    give_command(run, commands[which].bit, on);
    if (!strcmp(names[which], "write-buffer-flush")) {
        result_status(&run->result, register_get(run, GSTS, 4) >> 27 & 1 ? "waiting" : "done");
    }
}

static void do_set_root(struct run *run)
{
    uint64_t at;

    if (!run_unit(run)) {
        return;
    }
    at = arg_given(run, "at") ? 0 : tables_root(run);
    if (run->failed || !arg_number(run, "at", &at)) {
        return;
    }
    register_set(run, RTADDR, 8, at);
    give_command(run, 30, true);
}

const struct command register_commands[] = {
    {"reg read", "register [size]",
     "Reads a register, by offset or name; a named one field by field.", do_reg_read},
    {"reg write", "register [value] [size] ...",
     "Writes a register: a value, or FIELD=value words of a named one.", do_reg_write},
    {"command", "command [switch]",
     "Gives a global command (GCMD) as an operating system does: translation on, set-root, ...",
     do_command},
    {"set-root", "[at]",
     "Writes RTADDR (the built root table, or an address), then gives set-root.", do_set_root},
    {0},
};
