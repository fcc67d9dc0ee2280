/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * init.h - what every /init of the test guest does: mounts, words of the kernel command line,
 * modules, and the end.
 *
 * Words that init_finish() takes from the command line:
 *   viommu.reboot     ask on the console what to do at the end: a line "reboot" (in order), "reset"
 *                     (at once, translation and mappings still active) or "off"
 */
#ifndef VIOMMU_GUEST_INIT_H
#define VIOMMU_GUEST_INIT_H

#include <stdbool.h>
#include <stddef.h>

/* Mount /proc, /sys and /dev, read the command line; failures are reported. */
void init_set_up(void);

/* Load what /modules.order names. */
void init_load_modules(void);

/* Is this word on the command line?  Returns what follows it, or NULL. */
const char *init_word(const char *name);

/* The number after such a word, or another when there is none. */
unsigned init_number(const char *name, unsigned otherwise);

/* The first line of a small file. */
bool init_read_file(const char *path, char *to, size_t size);

/*
 * Have the harness outside do something: a line "guest: ask: WHAT"; it answers "done" when it has.
 * Otherwise this is a failed check.
 */
bool init_ask(const char *what);

/* Print "guest: ok" or "guest: FAILED n", then power off or start again. */
void init_finish(void) __attribute__((noreturn));

#endif
