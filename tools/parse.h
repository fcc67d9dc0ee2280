/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Numbers and requester ids as people write them, for command lines and scenarios.
 *
 * A number is decimal, or hexadecimal with 0x, and may end in k, m, g or t (times 1024, ...).
 * A requester id is BUS:DEVICE.FUNCTION in hexadecimal, as lspci writes it.
 */
#ifndef VIOMMU_TOOLS_PARSE_H
#define VIOMMU_TOOLS_PARSE_H

#include <stdbool.h>
#include <stdint.h>

/* The whole text is one number that fits 64 bits. */
bool parse_number(const char *text, uint64_t *out);

/*
 * Reads a number at the start of *text and moves *text behind it. False, with *text unchanged, when
 * there is none or it does not fit.
 */
bool parse_number_part(const char **text, uint64_t *out);

/* The whole text is one BUS:DEVICE.FUNCTION. */
bool parse_requester(const char *text, uint16_t *out);

/*
 * Reads DEVICE.FUNCTION at the start of *text and moves *text behind it; false when it is not there
 * or out of range (device 0 to 1f, function 0 to 7).
 */
bool parse_function_part(const char **text, uint8_t *device, uint8_t *function);

/* Reads a BUS and its colon at the start of *text and moves *text behind it. */
bool parse_bus_part(const char **text, uint8_t *bus);

#endif
