/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of kinds; see kind.h. */
#include "kind.h"

#include <stddef.h>
#include <string.h>

static const struct serve_kind *const kinds[] = {
    &serve_kind_edu,
    &serve_kind_nvme,
    &serve_kind_vhost_user_net,
    &serve_kind_vfio_user,
};

enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

const struct serve_kind *serve_kind_at(unsigned n)
{
    return n < KINDS ? kinds[n] : NULL;
}

const struct serve_kind *serve_kind_find(const char *name)
{
    for (unsigned i = 0; i < KINDS; i++) {
        if (!strcmp(kinds[i]->name, name)) {
            return kinds[i];
        }
    }
    return NULL;
}
