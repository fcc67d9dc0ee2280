#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""recorded_sources.py - what a guest's kernel said of reserved addresses, as data of a unit test.

    run.py --backend vfio --append viommu.dump --verbose >LOG
    recorded_sources.py LOG >../../backends/sources/test_recorded.h

Takes the lines "# source: PATH HEX" (sources_checks.h).  Of configuration space the rows of 16
bytes that are not all zero are kept.
"""

import re
import sys

CONFIG_SIZE = 4096
ROW = 16
HEAD = """/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What Linux said of reserved addresses in a guest of QEMU, behind QEMU's own VT-d unit, with two
 * root ports, a switch, and windows of at least 32 MiB and 1 GiB at the first port. Made by
 * tests/guest/recorded_sources.py.
 */
#ifndef VIOMMU_BACKENDS_SOURCES_TEST_RECORDED_H
#define VIOMMU_BACKENDS_SOURCES_TEST_RECORDED_H

#include <stddef.h>
#include <stdint.h>

/* 16 bytes of configuration space, which is zero where there are none. */
struct recorded_row {
    uint16_t at;
    uint8_t bytes[16];
};

struct recorded_bridge {
    const char *name;
    const struct recorded_row *rows;
    size_t count;
};
"""


def text(name, data):
    lines = data.decode("ascii").splitlines(keepends=True)
    body = "\n".join('    "%s"' % line.replace("\n", "\\n") for line in lines)
    return "static const char %s[] =\n%s;\n" % (name, body)


def rows(name, data):
    out = ["static const struct recorded_row %s[] = {" % name]
    for at in range(0, len(data), ROW):
        row = data[at:at + ROW]
        if any(row):
            numbers = ["0x%02x" % b for b in row]
            out.append("    {0x%03x, {%s,\n             %s}}," % (
                at, ", ".join(numbers[:8]), ", ".join(numbers[8:])))
    return "\n".join(out + ["};\n"])


def main():
    with open(sys.argv[1], encoding="utf-8", errors="replace") as f:
        found = re.findall(r"# source: (\S+) ([0-9a-f]*)$", f.read(), re.M)
    sources = {path: bytes.fromhex(data) for path, data in found}
    regions = sorted({data for path, data in sources.items() if path.endswith("reserved_regions")})
    bridges = sorted(path for path in sources if path.endswith("/config"))
    print(HEAD)
    print(text("recorded_iomem", sources["/proc/iomem"]))
    for number, data in enumerate(regions):
        print(text("recorded_regions_%d" % number, data))
    for number, path in enumerate(bridges):
        if len(sources[path]) != CONFIG_SIZE:
            sys.exit("recorded_sources.py: %s is short" % path)
        print(rows("recorded_rows_%d" % number, sources[path]))
    print("static const struct recorded_bridge recorded_bridges[] = {")
    for number, path in enumerate(bridges):
        rows_name = "recorded_rows_%d" % number
        print('    {"%s", %s, sizeof(%s) / sizeof(%s[0])},'
              % (path.split("/")[-2], rows_name, rows_name, rows_name))
    print("};\n\n#endif")


if __name__ == "__main__":
    main()
