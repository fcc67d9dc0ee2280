/* SPDX-License-Identifier: BSD-2-Clause */
/* What follows --device; see options.h. */
#include "device_options.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <viommu/iommu.h>

#include "kind.h"
#include "parse.h"

static bool set_at(struct serve_device_options *device, const char *value)
{
    const char *at = value;
    uint8_t bus = 0, slot, function;

    parse_bus_part(&at, &bus);
    if (!parse_function_part(&at, &slot, &function) || *at) {
        return false;
    }
    device->requester = viommu_requester(bus, slot, function);
    return true;
}

static bool set_socket(struct serve_device_options *device, const char *value)
{
    device->socket = value;
    return true;
}

/* The keys of every kind. */
static const struct serve_key common_keys[] = {
    {"at", "[BUS:]DEVICE.FUNCTION in hexadecimal, up to ff:1f.7", true, set_at},
    {"socket", "the name of a socket", true, set_socket},
    {0},
};

/* What is known while one --device is taken apart. */
struct parse {
    struct serve_device_options *device;
    const struct serve_key *keys[32]; /* of the kind, the common ones first */
    unsigned key_count;
    uint32_t given; /* which of them were */
    char *wrong;
    size_t wrong_size;
};

static void list_keys(struct parse *parse, const struct serve_key *keys)
{
    for (; keys->name && parse->key_count < 32; keys++) {
        parse->keys[parse->key_count++] = keys;
    }
}

static bool say_kinds(struct parse *parse, const char *name)
{
    int n =
        snprintf(parse->wrong, parse->wrong_size, "'%s' is no kind of device; there are:", name);

    for (unsigned i = 0; serve_kind_at(i) && n > 0 && (size_t)n < parse->wrong_size; i++) {
        n += snprintf(parse->wrong + n, parse->wrong_size - (size_t)n, " %s",
                      serve_kind_at(i)->name);
    }
    return false;
}

static bool say_keys(struct parse *parse, const char *key)
{
    int n = snprintf(parse->wrong, parse->wrong_size, "%s has no key '%s'; it takes:",
                     parse->device->kind->name, key);

    for (unsigned i = 0; i < parse->key_count && n > 0 && (size_t)n < parse->wrong_size; i++) {
        n += snprintf(parse->wrong + n, parse->wrong_size - (size_t)n, " %s",
                      parse->keys[i]->name);
    }
    return false;
}

static bool say(struct parse *parse, const char *key, const char *what)
{
    snprintf(parse->wrong, parse->wrong_size, "%s: %s %s", parse->device->kind->name, key, what);
    return false;
}

static bool say_value(struct parse *parse, const struct serve_key *key, const char *value)
{
    snprintf(parse->wrong, parse->wrong_size, "%s: %s: '%s' is not %s", parse->device->kind->name,
             key->name, value ? value : "", key->takes);
    return false;
}

/* KIND, or KIND:WHERE. */
static bool parse_kind(struct parse *parse, char *text)
{
    struct serve_device_options *device = parse->device;
    char *where = strchr(text, ':');

    if (where) {
        *where++ = '\0';
    }
    device->kind = serve_kind_find(text);
    if (!device->kind) {
        return say_kinds(parse, text);
    }
    if (where && !device->kind->far) {
        snprintf(parse->wrong, parse->wrong_size,
                 "%s: ':%s': this kind is in no other process, and takes no socket after a colon",
                 text, where);
        return false;
    }
    if (device->kind->far && (!where || !*where)) {
        snprintf(parse->wrong, parse->wrong_size, "%s:SOCKET is needed: %s", text,
                 device->kind->far);
        return false;
    }
    device->far = where;
    return true;
}

/* One key=value, or key. */
static bool parse_key(struct parse *parse, char *text)
{
    char *value = strchr(text, '=');
    const struct serve_key *key;
    unsigned i = 0;

    if (value) {
        *value++ = '\0';
    }
    while (i < parse->key_count && strcmp(parse->keys[i]->name, text) != 0) {
        i++;
    }
    if (i == parse->key_count) {
        return say_keys(parse, text);
    }
    key = parse->keys[i];
    if (parse->given & UINT32_C(1) << i) {
        return say(parse, text, "is given twice");
    }
    parse->given |= UINT32_C(1) << i;
    if (!key->takes && value) {
        return say(parse, text, "takes no value");
    }
    if (key->takes && (!value || !*value || !key->set(parse->device, value))) {
        return say_value(parse, key, value);
    }
    return key->takes || key->set(parse->device, NULL);
}

static bool parse_keys(struct parse *parse, char *text)
{
    char *word;

    while ((word = strsep(&text, ","))) {
        if (!parse_key(parse, word)) {
            return false;
        }
    }
    for (unsigned i = 0; i < parse->key_count; i++) {
        if (parse->keys[i]->needed && !(parse->given & UINT32_C(1) << i)) {
            return say(parse, parse->keys[i]->name, "is needed");
        }
    }
    return true;
}

bool serve_device_options_parse(struct serve_device_options *device, const char *text, char *wrong,
                                size_t wrong_size)
{
    struct parse parse = {.device = device, .wrong = wrong, .wrong_size = wrong_size};
    char *rest, *kind;

    memset(device, 0, sizeof(*device));
    rest = device->text = strdup(text);
    if (!rest) {
        snprintf(wrong, wrong_size, "%s", "memory is used up");
        return false;
    }
    kind = strsep(&rest, ",");
    if (!parse_kind(&parse, kind)) {
        return false;
    }
    list_keys(&parse, common_keys);
    list_keys(&parse, device->kind->keys);
    return parse_keys(&parse, rest);
}

void serve_device_options_fini(struct serve_device_options *device)
{
    free(device->text);
    device->text = NULL;
}
