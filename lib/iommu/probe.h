/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * USDT probes: places that bpftrace, perf and others can hook into. Each is one instruction that
 * does nothing, and a note in the file that says where its arguments are. They have to be macros,
 * because the note holds the name. Without sys/sdt.h there are none.
 */
#ifndef VIOMMU_IOMMU_PROBE_H
#define VIOMMU_IOMMU_PROBE_H

#ifdef VIOMMU_USDT
#include <sys/sdt.h>
#ifdef __clang__
/* It says so of the header's macros where they are used, as if they were ours. */
#pragma clang diagnostic ignored "-Wgnu-zero-variadic-macro-arguments"
#endif
#define PROBE1(name, a) STAP_PROBE1(viommu, name, a)
#define PROBE2(name, a, b) STAP_PROBE2(viommu, name, a, b)
#define PROBE3(name, a, b, c) STAP_PROBE3(viommu, name, a, b, c)
#define PROBE4(name, a, b, c, d) STAP_PROBE4(viommu, name, a, b, c, d)
#define PROBE5(name, a, b, c, d, e) STAP_PROBE5(viommu, name, a, b, c, d, e)
#define PROBE7(name, a, b, c, d, e, f, g) STAP_PROBE7(viommu, name, a, b, c, d, e, f, g)
#else
#define PROBE1(name, a) ((void)(a))
#define PROBE2(name, a, b) ((void)(a), (void)(b))
#define PROBE3(name, a, b, c) ((void)(a), (void)(b), (void)(c))
#define PROBE4(name, a, b, c, d) ((void)(a), (void)(b), (void)(c), (void)(d))
#define PROBE5(name, a, b, c, d, e) ((void)(a), (void)(b), (void)(c), (void)(d), (void)(e))
#define PROBE7(name, a, b, c, d, e, f, g)                                                          \
    ((void)(a), (void)(b), (void)(c), (void)(d), (void)(e), (void)(f), (void)(g))
#endif

#endif
