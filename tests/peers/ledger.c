/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ledger of ledger.h: one entry a page of the window.
 */
#include "ledger.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096ull

void ledger_init(struct ledger *ledger, uint64_t first, unsigned count)
{
    memset(ledger, 0, sizeof(*ledger));
    pthread_mutex_init(&ledger->lock, NULL);
    ledger->first = first;
    ledger->count = count;
    ledger->pages = calloc(count, sizeof(*ledger->pages));
    if (!ledger->pages) {
        abort();
    }
}

void ledger_fini(struct ledger *ledger)
{
    free(ledger->pages);
    pthread_mutex_destroy(&ledger->lock);
}

static void __attribute__((format(printf, 2, 0)))
note_wrong(struct ledger *ledger, const char *format, va_list args)
{
    if (!ledger->wrong++) {
        vsnprintf(ledger->what, sizeof(ledger->what), format, args);
    }
}

/* With the lock held. */
static void __attribute__((format(printf, 2, 3)))
wrong(struct ledger *ledger, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    note_wrong(ledger, format, args);
    va_end(args);
}

void ledger_wrong(struct ledger *ledger, const char *format, ...)
{
    va_list args;

    pthread_mutex_lock(&ledger->lock);
    va_start(args, format);
    note_wrong(ledger, format, args);
    va_end(args);
    pthread_mutex_unlock(&ledger->lock);
}

static bool allows(const struct ledger *ledger, const struct ledger_entry *entry,
                   const struct ledger_entry *given)
{
    uint8_t perm = entry->perm;

    if (ledger->writable_is_readable && perm & LEDGER_WRITE) {
        perm |= LEDGER_READ;
    }
    return perm && entry->gpa == given->gpa && !(given->perm & ~perm);
}

void ledger_change(struct ledger *ledger, unsigned page, uint64_t gpa, uint8_t perm)
{
    struct ledger_page *at = &ledger->pages[page];

    pthread_mutex_lock(&ledger->lock);
    at->next = (struct ledger_entry){gpa, perm};
    at->changing = true;
    pthread_mutex_unlock(&ledger->lock);
}

static void check_not_held(struct ledger *ledger, unsigned page, const struct ledger_entry *entry,
                           const char *how)
{
    struct ledger_page *at = &ledger->pages[page];

    if (entry->perm && !allows(ledger, &at->now, entry) &&
        !(ledger->is_cut_off && ledger->is_cut_off(ledger->opaque))) {
        wrong(ledger, "page %u: invalidated, but %#llx perm %u is %s", page,
              (unsigned long long)entry->gpa, entry->perm, how);
    }
}

void ledger_complete(struct ledger *ledger, unsigned page)
{
    struct ledger_page *at = &ledger->pages[page];

    pthread_mutex_lock(&ledger->lock);
    if (at->changing) {
        at->now = at->next;
        at->changing = false;
    }
    check_not_held(ledger, page, &at->held, "held");
    check_not_held(ledger, page, &at->leaving, "not yet dropped");
    pthread_mutex_unlock(&ledger->lock);
}

/* The pages of a range, those of the window; false where some of it is outside. */
static bool pages_of(const struct ledger *ledger, uint64_t iova, uint64_t size, unsigned *first,
                     unsigned *end)
{
    uint64_t window_last = ledger->first + ledger->count * PAGE - 1;
    uint64_t last = size && iova + (size - 1) >= iova ? iova + (size - 1) : UINT64_MAX;
    uint64_t from = iova > ledger->first ? iova : ledger->first;
    uint64_t to = last < window_last ? last : window_last;

    *first = *end = 0;
    if (from <= to) {
        *first = (unsigned)((from - ledger->first) / PAGE);
        *end = (unsigned)((to - ledger->first) / PAGE) + 1;
    }
    return iova >= ledger->first && last <= window_last;
}

static void update_page(struct ledger *ledger, unsigned page, const struct ledger_entry *given)
{
    struct ledger_page *at = &ledger->pages[page];

    ledger->updates++;
    if (!allows(ledger, &at->now, given) &&
        !(at->changing && allows(ledger, &at->next, given))) {
        wrong(ledger, "page %u: UPDATE to %#llx perm %u, but the tables say %#llx perm %u%s", page,
              (unsigned long long)given->gpa, given->perm, (unsigned long long)at->now.gpa,
              at->now.perm, at->changing ? " (changing)" : "");
    }
    if (at->held.perm && (at->held.gpa != given->gpa || at->held.perm != given->perm)) {
        wrong(ledger, "page %u: UPDATE to %#llx perm %u while %#llx perm %u is held", page,
              (unsigned long long)given->gpa, given->perm, (unsigned long long)at->held.gpa,
              at->held.perm);
    }
    at->held = *given;
}

void ledger_update(struct ledger *ledger, uint64_t iova, uint64_t size, uint64_t gpa, uint8_t perm)
{
    unsigned first;
    unsigned end;

    pthread_mutex_lock(&ledger->lock);
    if (!size || (iova | size) % PAGE || !pages_of(ledger, iova, size, &first, &end)) {
        wrong(ledger, "UPDATE of %#llx bytes at %#llx", (unsigned long long)size,
              (unsigned long long)iova);
    } else {
        for (unsigned page = first; page < end; page++) {
            update_page(ledger, page, &(struct ledger_entry){gpa + (page - first) * PAGE, perm});
        }
    }
    pthread_mutex_unlock(&ledger->lock);
}

void ledger_invalidate(struct ledger *ledger, uint64_t id, uint64_t iova, uint64_t size)
{
    unsigned first;
    unsigned end;

    pthread_mutex_lock(&ledger->lock);
    pages_of(ledger, iova, size, &first, &end);
    for (unsigned page = first; page < end; page++) {
        struct ledger_page *at = &ledger->pages[page];

        if (at->held.perm) {
            at->leaving = at->held;
            at->held.perm = 0;
        }
        at->leaving_id = id; /* answers come in order, so the last is enough */
    }
    pthread_mutex_unlock(&ledger->lock);
}

void ledger_acknowledged(struct ledger *ledger, uint64_t id, uint64_t iova, uint64_t size)
{
    unsigned first;
    unsigned end;

    pthread_mutex_lock(&ledger->lock);
    pages_of(ledger, iova, size, &first, &end);
    for (unsigned page = first; page < end; page++) {
        struct ledger_page *at = &ledger->pages[page];

        if (at->leaving.perm && at->leaving_id == id) {
            at->leaving.perm = 0;
            ledger->drops++;
        }
    }
    pthread_mutex_unlock(&ledger->lock);
}

void ledger_gone(struct ledger *ledger)
{
    pthread_mutex_lock(&ledger->lock);
    for (unsigned page = 0; page < ledger->count; page++) {
        ledger->pages[page].held.perm = 0;
        ledger->pages[page].leaving.perm = 0;
    }
    pthread_mutex_unlock(&ledger->lock);
}

const char *ledger_why(struct ledger *ledger)
{
    const char *why;

    pthread_mutex_lock(&ledger->lock);
    why = ledger->wrong ? ledger->what : NULL; /* the first is not changed by those that follow */
    pthread_mutex_unlock(&ledger->lock);
    return why;
}

uint64_t ledger_drops(struct ledger *ledger)
{
    uint64_t drops;

    pthread_mutex_lock(&ledger->lock);
    drops = ledger->drops;
    pthread_mutex_unlock(&ledger->lock);
    return drops;
}
