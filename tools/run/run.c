/* SPDX-License-Identifier: BSD-2-Clause */
/* viommu run: reads scenarios and plays them; see run.h. */
#include "trace.h"

#include "../tools.h"

#include <argp.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

enum {
    SETTLE_ROUNDS_MAX = 1 << 20,
    MEMORY_ROUNDS_MAX = 100,
    WORD_SHOWN_MAX = 120, /* characters, in messages */
    LINE_BYTES = 1 << 20, /* of the longest line, with what ends it */
};

static const struct room rooms[] = {
    {"memory", memory_commands},     {"unit", unit_commands},   {"virtio", virtio_commands},
    {"saved states", save_commands},
    {"registers", register_commands},
    {"tables", table_commands},      {"queue", queue_commands}, {"devices", device_commands},
    {"held translations", hold_commands}, {"pinned windows", window_commands},
    {"notify", notify_commands},
    {"subscribers", subscriber_commands}, {"mirrors", mirror_commands},
    {"addresses", iova_commands},    {"spaces", space_commands},
    {"devices of spaces", bus_device_commands},
    {"CPUs", cpu_commands},          {"a hypervisor", pv_commands},
    {"paravirtual calls", pv_call_commands},
    {"faults", fault_commands},
    {"time", time_commands},
};

enum { ROOMS = sizeof(rooms) / sizeof(rooms[0]) };

struct options {
    bool json;
    bool quiet;
    bool list;
    bool replay;            /* the files are traces */
    const char *trace_file; /* or NULL */
};

void run_error(struct run *run, const char *word, const char *format, ...)
{
    va_list list;

    fprintf(stderr, "%s:%u: ", run->file, run->line_number);
    if (word) {
        bool whole = strlen(word) <= WORD_SHOWN_MAX;

        fprintf(stderr, "'%.*s%s': ", WORD_SHOWN_MAX, word, whole ? "" : "...");
    }
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    run->failed = true;
}

/* Lets every unit work until nothing more can be done. */
static void settle_units(struct run *run)
{
    unsigned rounds = 0;
    bool more = true;

    while (more && rounds++ < SETTLE_ROUNDS_MAX) {
        more = false;
        for (struct unit *unit = run->units; unit; unit = unit->next) {
            if (viommu_process(unit->iommu, 0) == VIOMMU_PENDING) {
                more = true;
            }
        }
    }
    if (more) {
        run_error(run, NULL, "the unit never comes to rest");
    }
}

static bool some_unit_ready(const struct run *run)
{
    for (const struct unit *unit = run->units; unit; unit = unit->next) {
        if (unit_ready(unit)) {
            return true;
        }
    }
    return false;
}

/* Memory waits for units that let go of it, and units for memory that comes. */
void run_settle(struct run *run)
{
    unsigned rounds = 0;

    if (!run->autoprocess) {
        return;
    }
    do {
        settle_units(run);
        memory_room_process(run);
    } while (!run->failed && ++rounds < MEMORY_ROUNDS_MAX && some_unit_ready(run));
}

struct unit *run_unit(struct run *run)
{
    if (!run->unit) {
        run_error(run, NULL, "there is no unit yet: `unit` makes one");
    }
    return run->unit;
}

/* Goes through the names of all commands. */
struct command_names {
    unsigned room;
    unsigned index;
};

static const struct command *next_command(struct command_names *names)
{
    while (names->room < ROOMS) {
        const struct command *command = &rooms[names->room].commands[names->index++];

        if (command->name) {
            return command;
        }
        names->room++;
        names->index = 0;
    }
    return NULL;
}

static const char *next_command_name(void *opaque)
{
    const struct command *command = next_command(opaque);

    return command ? command->name : NULL;
}

static const struct command *find_command(const char *name)
{
    struct command_names names = {0};
    const struct command *command;

    while ((command = next_command(&names))) {
        if (!strcmp(command->name, name)) {
            break;
        }
    }
    return command;
}

/* The line's operation is its first two words, or the first one. */
static const struct command *line_command(struct run *run)
{
    struct line *line = &run->line;
    const struct command *command = NULL;
    struct command_names names = {0};
    char two[128];
    const char *near;

    snprintf(two, sizeof(two), "%s", line->words[0].value);
    if (!line->words[0].key && line->word_count > 1 && !line->words[1].key) {
        snprintf(two, sizeof(two), "%s %s", line->words[0].value, line->words[1].value);
        command = find_command(two);
        line->first_argument = 2;
    }
    if (!command && !line->words[0].key) {
        command = find_command(line->words[0].value);
        line->first_argument = 1;
    }
    if (command) {
        return command;
    }
    near = nearest(two, next_command_name, &names);
    if (!near) {
        names = (struct command_names){0};
        near = nearest(line->words[0].value, next_command_name, &names);
    }
    if (near) {
        run_error(run, line->words[0].value, "no such operation; did you mean '%s'?", near);
    } else {
        run_error(run, line->words[0].value, "no such operation; --list-operations names them all");
    }
    return NULL;
}

/* For expectations: a device's name stands for its requester id. */
static bool device_requester(void *opaque, const char *name, uint16_t *out)
{
    const struct device *device = device_find(opaque, name);

    if (device) {
        *out = viommu_device_requester(device_handle(device));
    }
    return device != NULL;
}

/* Compares, and says a mismatch. */
static bool check(struct run *run)
{
    struct complaint complaint;
    bool wrong;

    if (result_check(&run->result, &run->line, &run->symbols, device_requester, run, &complaint,
                     &wrong)) {
        return true;
    }
    if (wrong) {
        run_error(run, complaint.word, "%s", complaint.text);
        return false;
    }
    fprintf(stderr, "%s:%u: %s\n  expected %s, but it came to %s\n  in full: ", run->file,
            run->line_number, run->line.text, complaint.word, complaint.text);
    result_print(&run->result, stderr);
    fputc('\n', stderr);
    return false;
}

/* The line without its expectation, then the result, then the symbols that the line set. */
static void print(const struct run *run, const struct options *options,
                  const struct command *command, bool passed)
{
    size_t length = run->line.has_expectation ? run->line.arrow : strlen(run->line.text);

    if (options->json) {
        result_print_json(&run->result, &run->line, run->line_number, command->name, passed,
                          stdout);
        return;
    }
    while (length && isspace((unsigned char)run->line.text[length - 1])) {
        length--;
    }
    printf("%.*s  => ", (int)length, run->line.text);
    result_print(&run->result, stdout);
    fputc('\n', stdout);
    result_print_symbols(&run->result, &run->line, stdout);
}

/* Plays one line. Returns false for a mismatch; an error sets run->failed. */
static bool play_line(struct run *run, const struct options *options, const char *text)
{
    struct complaint complaint;
    const struct command *command;
    bool passed = true;

    if (!line_parse(&run->line, text, &run->symbols, &complaint)) {
        run_error(run, complaint.word, "%s", complaint.text);
        return true;
    }
    if (!run->line.word_count) {
        if (run->line.text[0] && !options->quiet && !options->json) {
            puts(run->line.text);
        }
        return true;
    }
    command = line_command(run);
    if (!command) {
        return true;
    }
    if (!line_bind(&run->line, command->arguments, &complaint)) {
        run_error(run, complaint.word, "%s: %s", command->name, complaint.text);
        return true;
    }
    result_reset(&run->result);
    run->violated = false;
    command->run(run);
    if (run->failed) {
        return true;
    }
    run_settle(run);
    mirrors_check(run);
    if (run->line.has_expectation) {
        passed = check(run);
    }
    passed = passed && !run->violated;
    if (!options->quiet && !run->failed) {
        print(run, options, command, passed);
    }
    return passed;
}

static bool run_init(struct run *run, const char *name)
{
    *run = (struct run){.file = name, .autoprocess = true, .result.status = "ok"};
    messages_init(&run->interrupts);
    messages_init(&run->events);
    return memory_room_init(run);
}

static void run_fini(struct run *run)
{
    holds_destroy(run);
    pins_destroy(run);
    traces_end_virtio(run);
    spaces_leave(run, NULL);
    devices_destroy(run, NULL);
    units_destroy(run);
    memory_room_fini(run);
    saved_destroy(run);
    iova_destroy(run);
    spaces_destroy(run);
    pv_destroy(run);
    messages_destroy(&run->interrupts);
    messages_destroy(&run->events);
    symbols_destroy(&run->symbols);
    result_reset(&run->result);
}

/*
 * Reads a line into room for LINE_BYTES. Returns its length with the line's end, 0 at the end of
 * the file or where it cannot be read, LINE_BYTES where it is longer: something that is no scenario
 * would be read until memory is used up.
 */
static size_t read_line(FILE *file, char *text)
{
    size_t length = 0;
    int c = 0;

    while (c != '\n' && length < LINE_BYTES && (c = getc_unlocked(file)) != EOF) {
        text[length++] = (char)c;
    }
    text[length < LINE_BYTES ? length : LINE_BYTES - 1] = '\0';
    return length;
}

static int play_file(FILE *file, const char *name, const struct options *options)
{
    struct run *run = run_alloc(sizeof(*run));
    char *text = run_alloc(LINE_BYTES);
    size_t length;
    bool passed = true;
    bool failed;
    int error;

    if (!run_init(run, name)) {
        free(run);
        free(text);
        fprintf(stderr, "viommu run: no memory object\n");
        return TOOL_FAILED;
    }
    run->trace_file = options->trace_file;
    while (!run->failed && (length = read_line(file, text)) > 0) {
        run->line_number++;
        if (length == LINE_BYTES) {
            run_error(run, NULL, "this line is too long");
        } else if (strlen(text) != length) {
            run_error(run, NULL, "there is a NUL character in this line");
        } else if (!play_line(run, options, text)) {
            passed = false;
        }
        line_fini(&run->line);
        fflush(stdout);
    }
    error = errno;
    if (!run->failed && !feof(file)) {
        fprintf(stderr, "viommu run: %s: %s\n", name, strerror(error));
        run->failed = true;
    }
    if (run->trace_file && !run->failed) {
        fprintf(stderr, "viommu run: %s starts no unit, so there is no trace\n", name);
        passed = false;
    }
    free(text);
    run_fini(run);
    failed = run->failed; /* a trace may have failed at its end */
    free(run);
    return failed ? TOOL_USAGE : passed ? TOOL_OK : TOOL_FAILED;
}

static int play(const char *name, const struct options *options)
{
    FILE *file = strcmp(name, "-") ? fopen(name, "r") : stdin;
    int status;

    if (!file) {
        fprintf(stderr, "viommu run: %s: %s\n", name, strerror(errno));
        return TOOL_USAGE;
    }
    if (options->trace_file) {
        (void)flock(fileno(file), LOCK_SH | LOCK_NB); /* it does not become the trace by mistake */
    }
    status = play_file(file, strcmp(name, "-") ? name : "standard input", options);
    if (file != stdin) {
        fclose(file);
    }
    return status;
}

static void list_operations(void)
{
    struct command_names names = {0};
    const struct command *command;

    while ((command = next_command(&names))) {
        puts(command->name);
    }
}

/* The arguments of a command; those that say bytes, which many take, as DATA. */
static void print_arguments(const char *arguments, FILE *out)
{
    const char *data = strstr(arguments, DATA_ARGUMENTS);

    if (data) {
        fprintf(out, "%.*sDATA%s", (int)(data - arguments), arguments,
                data + strlen(DATA_ARGUMENTS));
    } else {
        fputs(arguments, out);
    }
}

/* The operations, for --help; freed by argp. */
static char *operations_help(void)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    if (!out) {
        return NULL;
    }
    fputs("Operations (docs/scenario.md tells more). [argument] may be left out, [argument=] is "
          "written with its name, [flag!] is the bare word; DATA is one of text= data= u8= u16= "
          "u32= u64=, or fill= or pattern= with len=, and repeat= how often.\n", out);
    for (unsigned i = 0; i < ROOMS; i++) {
        fprintf(out, "\n%s\n", rooms[i].name);
        for (const struct command *command = rooms[i].commands; command->name; command++) {
            fprintf(out, "  %s ", command->name);
            print_arguments(command->arguments, out);
            fprintf(out, "\n      %s\n", command->help);
        }
    }
    fclose(out);
    return text;
}

static char *filter_help(int key, const char *text, void *input)
{
    (void)input;
    return key == ARGP_KEY_HELP_EXTRA ? operations_help() : (char *)text;
}

enum { OPTION_LIST = 0x100, OPTION_TRACE, OPTION_REPLAY };

struct invocation {
    struct options options;
    char **files;
    unsigned count;
};

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    struct invocation *invocation = state->input;

    switch (key) {
    case 'j':
        invocation->options.json = true;
        return 0;
    case 'q':
        invocation->options.quiet = true;
        return 0;
    case OPTION_LIST:
        invocation->options.list = true;
        return 0;
    case OPTION_TRACE:
        if (!*text || !strcmp(text, "-")) {
            argp_error(state, "--trace: '%s' is not the name of a file", text);
        }
        invocation->options.trace_file = text;
        return 0;
    case OPTION_REPLAY:
        invocation->options.replay = true;
        return 0;
    case ARGP_KEY_ARGS:
        invocation->files = state->argv + state->next;
        invocation->count = (unsigned)(state->argc - state->next);
        return 0;
    case ARGP_KEY_END:
        if (!invocation->count && !invocation->options.list) {
            argp_error(state, "which scenario? (- is standard input)");
        }
        if (invocation->options.trace_file &&
            (invocation->count > 1 || invocation->options.replay)) {
            argp_error(state, "--trace is for one scenario");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int viommu_tool_run(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"json", 'j', NULL, 0, "print one JSON object a line", 0},
        {"quiet", 'q', NULL, 0, "print mismatches only", 0},
        {"list-operations", OPTION_LIST, NULL, 0, "print the names of all operations", 0},
        {"trace", OPTION_TRACE, "TRACE", 0,
         "write down, as lines of JSON, what the first unit does", 0},
        {"replay", OPTION_REPLAY, NULL, 0,
         "each FILE is a trace: a unit does again what the guest asked for, and is compared", 0},
        {0},
    };
    static const struct argp argp = {
        .options = options,
        .parser = parse_option,
        .args_doc = "FILE...",
        .doc = "Plays scenarios: one operation a line, one result a line. What stands behind => is "
               "expected of the result.\v"
               "Exit status: 0 all was as expected or as traced, 1 something was not, 2 a scenario "
               "is wrong, or a file cannot be read.",
        .help_filter = filter_help,
    };
    struct invocation invocation = {0};
    char name[] = "viommu run";
    int status = TOOL_OK;

    argp_err_exit_status = TOOL_USAGE;
    argv[0] = name;
    if (argp_parse(&argp, argc, argv, 0, NULL, &invocation)) {
        return TOOL_USAGE;
    }
    if (invocation.options.list) {
        list_operations();
    }
    for (unsigned i = 0; i < invocation.count; i++) {
        const struct options *how = &invocation.options;
        const char *file = invocation.files[i];
        int one = how->replay ? trace_play(file, how->quiet, how->json) : play(file, how);

        status = one > status ? one : status;
    }
    return status;
}
