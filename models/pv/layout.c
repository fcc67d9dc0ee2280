/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paravirtual operations: the layout of calls and answers, member by member. It is the same on each
 * machine, as members lie at multiples of their sizes and padding has names; here a compiler for
 * any of them says so. Nothing is compiled.
 */
#include <viommu/pv_abi.h>

#include <stddef.h>

#define MEMBER(type, member, offset, size)                                                         \
    _Static_assert(offsetof(struct type, member) == (offset) &&                                    \
                       sizeof(((struct type *)0)->member) == (size),                               \
                   #type "." #member)
#define WHOLE(type, size)                                                                          \
    _Static_assert(sizeof(struct type) == (size) && _Alignof(struct type) <= 8, #type)

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are little-endian");
_Static_assert(VIOMMU_PV_CAPS == 1 && VIOMMU_PV_RESERVED == 2 && VIOMMU_PV_ENABLE == 3 &&
                   VIOMMU_PV_CONTEXT_ALLOC == 4 && VIOMMU_PV_CONTEXT_FREE == 5 &&
                   VIOMMU_PV_ATTACH == 6 && VIOMMU_PV_MAP == 7 && VIOMMU_PV_UNMAP == 8 &&
                   VIOMMU_PV_FLUSH == 9 && VIOMMU_PV_LOOKUP == 10 && VIOMMU_PV_FIND == 11 &&
                   VIOMMU_PV_MAP_FOREIGN == 12 && VIOMMU_PV_ACKNOWLEDGE == 13,
               "operations");
_Static_assert(VIOMMU_PV_READ == 1 && VIOMMU_PV_WRITE == 2 && VIOMMU_PV_MMIO == 1 &&
                   VIOMMU_PV_DEFER == 1 && VIOMMU_PV_WHOLE == 1 && VIOMMU_PV_VERSION == 1,
               "flags");

MEMBER(viommu_pv_head, version, 0, 2);
MEMBER(viommu_pv_head, operation, 2, 2);
MEMBER(viommu_pv_head, size, 4, 4);
WHOLE(viommu_pv_head, 8);

MEMBER(viommu_pv_answer, version, 0, 2);
MEMBER(viommu_pv_answer, operation, 2, 2);
MEMBER(viommu_pv_answer, size, 4, 4);
MEMBER(viommu_pv_answer, status, 8, 4);
MEMBER(viommu_pv_answer, zero, 12, 4);
MEMBER(viommu_pv_answer, done, 16, 8);
MEMBER(viommu_pv_answer, stopped, 24, 8);
WHOLE(viommu_pv_answer, 32);

MEMBER(viommu_pv_caps, answer, 0, 32);
MEMBER(viommu_pv_caps, frame_max, 32, 8);
MEMBER(viommu_pv_caps, device_frame_max, 40, 8);
MEMBER(viommu_pv_caps, orders, 48, 8);
MEMBER(viommu_pv_caps, count_max, 56, 8);
MEMBER(viommu_pv_caps, mappings_max, 64, 8);
MEMBER(viommu_pv_caps, tables_max, 72, 8);
MEMBER(viommu_pv_caps, contexts_max, 80, 4);
MEMBER(viommu_pv_caps, items_max, 84, 4);
MEMBER(viommu_pv_caps, deferred_max, 88, 4);
MEMBER(viommu_pv_caps, zero, 92, 4);
WHOLE(viommu_pv_caps, 96);

MEMBER(viommu_pv_reserved_call, head, 0, 8);
MEMBER(viommu_pv_reserved_call, device, 8, 4);
MEMBER(viommu_pv_reserved_call, room, 12, 4);
WHOLE(viommu_pv_reserved_call, 16);

MEMBER(viommu_pv_frames, first, 0, 8);
MEMBER(viommu_pv_frames, last, 8, 8);
WHOLE(viommu_pv_frames, 16);

MEMBER(viommu_pv_reserved, answer, 0, 32);
MEMBER(viommu_pv_reserved, generation, 32, 8);
MEMBER(viommu_pv_reserved, count, 40, 4);
MEMBER(viommu_pv_reserved, zero, 44, 4);
WHOLE(viommu_pv_reserved, 48);

MEMBER(viommu_pv_alloc_call, head, 0, 8);
MEMBER(viommu_pv_alloc_call, flags, 8, 4);
MEMBER(viommu_pv_alloc_call, zero, 12, 4);
WHOLE(viommu_pv_alloc_call, 16);

MEMBER(viommu_pv_alloc, answer, 0, 32);
MEMBER(viommu_pv_alloc, context, 32, 4);
MEMBER(viommu_pv_alloc, zero, 36, 4);
WHOLE(viommu_pv_alloc, 40);

MEMBER(viommu_pv_free_call, head, 0, 8);
MEMBER(viommu_pv_free_call, context, 8, 4);
MEMBER(viommu_pv_free_call, zero, 12, 4);
WHOLE(viommu_pv_free_call, 16);

MEMBER(viommu_pv_attach_call, head, 0, 8);
MEMBER(viommu_pv_attach_call, device, 8, 4);
MEMBER(viommu_pv_attach_call, context, 12, 4);
WHOLE(viommu_pv_attach_call, 16);

MEMBER(viommu_pv_map_call, head, 0, 8);
MEMBER(viommu_pv_map_call, context, 8, 4);
MEMBER(viommu_pv_map_call, vm, 12, 4);
MEMBER(viommu_pv_map_call, frame, 16, 8);
MEMBER(viommu_pv_map_call, device_frame, 24, 8);
MEMBER(viommu_pv_map_call, count, 32, 8);
MEMBER(viommu_pv_map_call, order, 40, 4);
MEMBER(viommu_pv_map_call, perm, 44, 4);
MEMBER(viommu_pv_map_call, flags, 48, 4);
MEMBER(viommu_pv_map_call, zero, 52, 4);
WHOLE(viommu_pv_map_call, 56);

MEMBER(viommu_pv_flush_call, head, 0, 8);
MEMBER(viommu_pv_flush_call, context, 8, 4);
MEMBER(viommu_pv_flush_call, flags, 12, 4);
MEMBER(viommu_pv_flush_call, first, 16, 8);
MEMBER(viommu_pv_flush_call, last, 24, 8);
WHOLE(viommu_pv_flush_call, 32);

MEMBER(viommu_pv_lookup_call, head, 0, 8);
MEMBER(viommu_pv_lookup_call, context, 8, 4);
MEMBER(viommu_pv_lookup_call, zero, 12, 4);
MEMBER(viommu_pv_lookup_call, device_frame, 16, 8);
WHOLE(viommu_pv_lookup_call, 24);

MEMBER(viommu_pv_lookup, answer, 0, 32);
MEMBER(viommu_pv_lookup, frame, 32, 8);
MEMBER(viommu_pv_lookup, vm, 40, 4);
MEMBER(viommu_pv_lookup, perm, 44, 4);
MEMBER(viommu_pv_lookup, order, 48, 4);
MEMBER(viommu_pv_lookup, zero, 52, 4);
WHOLE(viommu_pv_lookup, 56);

MEMBER(viommu_pv_find_call, head, 0, 8);
MEMBER(viommu_pv_find_call, vm, 8, 4);
MEMBER(viommu_pv_find_call, room, 12, 4);
MEMBER(viommu_pv_find_call, frame, 16, 8);
WHOLE(viommu_pv_find_call, 24);

MEMBER(viommu_pv_place, device_frame, 0, 8);
MEMBER(viommu_pv_place, context, 8, 4);
MEMBER(viommu_pv_place, perm, 12, 4);
WHOLE(viommu_pv_place, 16);

MEMBER(viommu_pv_find, answer, 0, 32);
MEMBER(viommu_pv_find, count, 32, 8);
WHOLE(viommu_pv_find, 40);

MEMBER(viommu_pv_foreign_call, head, 0, 8);
MEMBER(viommu_pv_foreign_call, context, 8, 4);
MEMBER(viommu_pv_foreign_call, vm, 12, 4);
MEMBER(viommu_pv_foreign_call, device_frame_max, 16, 8);
MEMBER(viommu_pv_foreign_call, perm, 24, 4);
MEMBER(viommu_pv_foreign_call, flags, 28, 4);
MEMBER(viommu_pv_foreign_call, count, 32, 4);
MEMBER(viommu_pv_foreign_call, zero, 36, 4);
WHOLE(viommu_pv_foreign_call, 40);

MEMBER(viommu_pv_item, device_frame, 0, 8);
MEMBER(viommu_pv_item, status, 8, 4);
MEMBER(viommu_pv_item, zero, 12, 4);
WHOLE(viommu_pv_item, 16);

MEMBER(viommu_pv_acknowledge_call, head, 0, 8);
MEMBER(viommu_pv_acknowledge_call, vm, 8, 4);
MEMBER(viommu_pv_acknowledge_call, zero, 12, 4);
MEMBER(viommu_pv_acknowledge_call, frame, 16, 8);
WHOLE(viommu_pv_acknowledge_call, 24);

MEMBER(viommu_pv_acknowledged, answer, 0, 32);
MEMBER(viommu_pv_acknowledged, remaining, 32, 8);
WHOLE(viommu_pv_acknowledged, 40);
