/* SPDX-License-Identifier: BSD-2-Clause */
/* The argument of --cache-mode: see cache.h. */
#include "cache.h"

#include "parse.h"

#include <string.h>

enum { QUOTA_MAX = 1 << 24 };

/* Whether the word of so many bytes is this one. */
static bool is_word(const char *text, size_t length, const char *word)
{
    return strlen(word) == length && !memcmp(text, word, length);
}

static bool parse_mode(const char *text, size_t length, enum viommu_cache_mode *mode)
{
    static const char *const words[] = {
        [VIOMMU_CACHE_NORMAL] = "normal",
        [VIOMMU_CACHE_FAITHFUL] = "faithful",
        [VIOMMU_CACHE_HOSTILE] = "hostile",
    };

    for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (is_word(text, length, words[i])) {
            *mode = (enum viommu_cache_mode)i;
            return true;
        }
    }
    return false;
}

/* KEY=NUMBER of so many bytes. */
static bool parse_setting(const char *text, size_t length, struct viommu_config *config)
{
    const char *equals = memchr(text, '=', length);
    char number[32] = "";
    uint64_t value;
    size_t digits;

    if (!equals) {
        return false;
    }
    digits = length - (size_t)(equals + 1 - text);
    if (digits >= sizeof(number)) {
        return false;
    }
    memcpy(number, equals + 1, digits);
    if (!parse_number(number, &value)) {
        return false;
    }
    if (is_word(text, (size_t)(equals - text), "seed")) {
        config->cache_seed = value;
        return true;
    }
    config->cache_quota = (uint32_t)value;
    return is_word(text, (size_t)(equals - text), "quota") && value >= 1 && value <= QUOTA_MAX;
}

bool cache_mode_parse(const char *text, struct viommu_config *config)
{
    struct viommu_config parsed = *config;
    size_t length = strcspn(text, ",");

    if (!parse_mode(text, length, &parsed.cache_mode)) {
        return false;
    }
    for (text += length; *text; text += length) {
        text++;
        length = strcspn(text, ",");
        if (!parse_setting(text, length, &parsed)) {
            return false;
        }
    }
    *config = parsed;
    return true;
}
