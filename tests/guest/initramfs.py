#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""initramfs.py - build the test guest's initial RAM disk.

    initramfs.py -o OUT --init PROGRAM --modules DIR [--module NAME ...] [--file SRC=DST ...]

PROGRAM becomes /init (static; it needs nothing else in the guest).  The named modules (default:
what VFIO needs) and those they depend on, out of DIR, land in /modules, and /modules.order names
them in the order to load.  A dependency that is not in DIR must be built in; the list of those is
DIR/../modules.builtin.

The output is a "newc" cpio archive, not compressed (an emulated CPU would only decompress it
again), and the same input gives the same bytes: no times, no owners, numbered in order.
"""

import argparse
import os
import re
import stat
import sys

DEFAULT_MODULES = ["vfio_iommu_type1", "vfio-pci"]
# Devices behind a virtio-iommu wait for its driver: it comes first.
VIRTIO_MODULES = ["virtio-iommu"] + DEFAULT_MODULES
NET_MODULES = ["virtio_pci", "virtio_net"]


class Cpio:
    """A newc archive being written; entries in the order of the calls."""

    def __init__(self):
        self.parts = []
        self.count = 0

    def add(self, name, mode, data=b"", device=(0, 0)):
        self.count += 1
        self.entry(self.count, name, mode, data, device)

    def entry(self, number, name, mode, data=b"", device=(0, 0)):
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, device[0], device[1], len(path), 0)
        header = b"070701" + b"".join(b"%08x" % f for f in fields)
        self.parts += [pad(header + path), pad(data)]

    def finish(self):
        self.entry(0, "TRAILER!!!", 0)
        return b"".join(self.parts)


def pad(data):
    return data + bytes(-len(data) % 4)


def canonical(name):
    """The kernel takes '-' and '_' in module names for the same."""
    return name.replace("-", "_")


def depends(path):
    """What the module says it depends on, from its .modinfo strings."""
    with open(path, "rb") as f:
        found = re.search(rb"\0depends=([^\0]*)\0", f.read())
    names = found.group(1).decode() if found else ""
    return [n for n in names.split(",") if n]


def load_order(directory, wanted):
    """Paths of the wanted modules and all they need, dependencies first."""
    there = {canonical(f[:-3]): os.path.join(directory, f)
             for f in sorted(os.listdir(directory)) if f.endswith(".ko")}
    builtin = set()
    try:
        with open(os.path.join(directory, "..", "modules.builtin"), encoding="ascii") as f:
            builtin = {canonical(os.path.basename(line.strip())[:-3]) for line in f}
    except OSError:
        pass
    order, seen = [], set()

    def visit(name):
        name = canonical(name)
        if name in seen or name in builtin:
            return
        seen.add(name)
        if name not in there:
            raise ValueError("no module %s in %s" % (name, directory))
        for needed in depends(there[name]):
            visit(needed)
        order.append(there[name])

    for name in wanted:
        visit(name)
    return order


def build(init, modules, extra=()):
    """The archive's bytes.  extra: pairs (source path, path in the guest)."""
    cpio = Cpio()
    for d in ("dev", "proc", "sys", "modules", "bin"):
        cpio.add(d, stat.S_IFDIR | 0o755)
    cpio.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    names = []
    for path in modules:
        name = "modules/" + os.path.basename(path)
        with open(path, "rb") as f:
            cpio.add(name, stat.S_IFREG | 0o644, f.read())
        names.append("/" + name + "\n")
    cpio.add("modules.order", stat.S_IFREG | 0o644, "".join(names).encode())
    for source, target in extra:
        with open(source, "rb") as f:
            cpio.add(target.lstrip("/"), stat.S_IFREG | 0o755, f.read())
    with open(init, "rb") as f:
        cpio.add("init", stat.S_IFREG | 0o755, f.read())
    return cpio.finish()


def main():
    p = argparse.ArgumentParser(description="build the test guest's initial RAM disk")
    p.add_argument("-o", required=True, metavar="OUT")
    p.add_argument("--init", required=True, metavar="PROGRAM")
    p.add_argument("--modules", required=True, metavar="DIR")
    p.add_argument("--module", action="append", metavar="NAME")
    p.add_argument("--file", action="append", default=[], metavar="SRC=DST")
    a = p.parse_args()
    try:
        extra = [tuple(f.split("=", 1)) for f in a.file]
        if any(len(e) != 2 for e in extra):
            raise ValueError("--file wants SRC=DST")
        image = build(a.init, load_order(a.modules, a.module or DEFAULT_MODULES), extra)
        with open(a.o, "wb") as f:
            f.write(image)
    except (OSError, ValueError) as e:
        sys.exit("initramfs.py: %s" % e)


if __name__ == "__main__":
    main()
