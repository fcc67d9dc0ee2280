/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tests of the range map once more, with nodes of fifteen entries: a thousand runs make a
 * tree as high as a million do otherwise, so that splits, merges and gaps of every level are met.
 */
#define RANGE_LEAF 15
#define RANGE_INNER 15

#include "range/check.c"
#include "range/gap.c"
#include "range/peek.c"
#include "range/range_map.c"
#include "range/tree.c"

#include "range/range_map_test.c"
