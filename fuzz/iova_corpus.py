# SPDX-License-Identifier: BSD-2-Clause
"""Seeds of the iova_state and sources targets: saved IOVA spaces (lib/iova/save.c), and what a host
says of reserved addresses (backends/sources/). Each is right, or wrong in one way that is refused
at a place of its own."""
import struct

TOP = 2 ** 64 - 1


# Saved spaces

def stream(*sections, version=1, instance=0, flags=0, application=3):
    """Sections are (kind, bytes); version, instance and flags are those of all."""
    body = b"".join(struct.pack("<IIHHIQ", kind, instance, version, flags, 0, len(data)) + data
                    for kind, data in sections)
    return b"vIOMMU\r\n" + struct.pack("<IIQII", 1, len(sections), 32 + len(body), application, 0) + body


def space(identity=0, granule=0x1000):
    return struct.pack("<BQQ", identity, granule, 9)


def owner(name, *holes, limited=1, count=None):
    return bytes([len(name)]) + name + struct.pack("<BI", limited, len(holes) if count is None else count) + \
        b"".join(struct.pack("<QQ", *hole) for hole in holes)


def reservation(who, kind, first, last, bounds=None, doorbells=(), align=0x1000):
    text = struct.pack("<IBQQ", who, kind, first, last)
    text += struct.pack("<BQQQ", 1, *bounds, align) if bounds else b"\0"
    return text + struct.pack("<I", len(doorbells)) + b"".join(struct.pack("<QQQ", *d) for d in doorbells)


def memory(who, first, last, declared=0):
    return struct.pack("<IBQQ", who, declared, first, last)


def mapping(who, first, last):
    return struct.pack("<IQQ", who, first, last)


def whole(owners=b"", reserved=b"", memories=b"", mappings=b"", first=None, **head):
    parts = (space() if first is None else first, owners, reserved, memories, mappings)
    return stream(*((kind + 1, part) for kind, part in enumerate(parts)), **head)


OWNERS = owner(b"a", (1 << 32, TOP)) + owner(b"b" * 63, limited=0) + owner(b"c")
BELLS = ((0x90000000, 0x2ff000, 3), (0x90001000, 0x200000, 1))


def right_spaces():
    reserved = b"".join(reservation(i % 3, i % 6, 0x10000 * i, 0x10000 * i + 0xffff) for i in range(12))
    bell = reservation(1, 4, 0x200000, 0x2fffff, doorbells=BELLS)
    loose = reservation(2, 4, 0x300000, 0x3fffff, bounds=(0, TOP))
    memories = memory(0, 0x40000000, 0x7fffffff) + memory(1, 0x40000000, 0x7fffffff, 1)
    mappings = b"".join(mapping(i % 3, 0x500000 + 0x1000 * i, 0x500fff + 0x1000 * i) for i in range(8))
    return {
        "empty": (b"", b"", b"", b""),
        "owners": (OWNERS, b"", b"", b""),
        "reserved": (OWNERS, reserved, b"", b""),
        "bell": (OWNERS, bell, b"", b""),
        "loose": (OWNERS, loose, b"", b""),
        "memory": (OWNERS, b"", memories, b""),
        "mapped": (OWNERS, b"", b"", mappings),
        "all": (OWNERS, reserved + bell + loose, memories, mappings),
        "twice": (OWNERS, bell + bell, b"", b""),
        "mets": (OWNERS, reserved, memory(0, 0x20000, 0x20fff), mapping(0, 0x20000, 0x20fff)),
    }


def wrong_spaces():
    def bells(*doorbells, kind=4, bounds=None):
        return whole(OWNERS, reservation(1, kind, 0x200000, 0x2fffff, bounds, doorbells))

    def loose(first, last, bounds, others=b"", align=0x1000, kind=4):
        return whole(OWNERS, others + reservation(2, kind, first, last, bounds, align=align))

    good = (0x90000000, 0x2ff000, 3)
    return {
        "flag": whole(first=space(identity=2)),
        "granule-0": whole(first=space(granule=0)),
        "granule-3": whole(first=space(granule=3)),
        "version": whole(version=2),
        "version-0": whole(version=0),
        "instance": whole(instance=1),
        "flags": whole(flags=1),
        "kind-0": stream((0, b"")),
        "optional": stream((1, space()), (9, b"x"), flags=1),
        "few": stream((1, space()), (2, OWNERS)),
        "space-long": whole(first=space() + b"x"),
        "name-cut": whole(b"\x05ab"),
        "name-long": whole(owner(b"n" * 64)),
        "name-nul": whole(owner(b"a\0b")),
        "name-none": whole(owner(b"")),
        "owner-cut": whole(owner(b"a")[:-2]),
        "holes": whole(owner(b"a", (0, 0xfff), (0x2000, 0x2fff), (0x4000, TOP))),
        "holes-unlimited": whole(owner(b"a", (0, 0xfff), limited=0)),
        "holes-many": whole(owner(b"a", count=9)),
        "holes-touch": whole(owner(b"a", (0, 0xfff), (0x1000, 0x1fff))),
        "holes-after-top": whole(owner(b"a", (0x1000, TOP), (0, 0xff))),
        "holes-whole": whole(owner(b"a", (0, TOP))),
        "hole-backwards": whole(owner(b"a", (5, 4))),
        "doorbell-there-odd": bells((0x90000001, 0x2ff000, 3)),
        "doorbell-back-odd": bells((0x90000000, 0x2ff001, 3)),
        "doorbell-untagged": bells((0x90000000, 0x2ff000, 0)),
        "doorbell-tagged": bells((0x90000000, 0x2ff000, 1 << 63)),
        "doorbell-below": bells((0x90000000, 0x1ff000, 3)),
        "doorbell-above": bells((0x90000000, 0x300000, 3)),
        "doorbell-again": bells(good, good),
        "doorbell-same-place": bells(good, (0x90001000, 0x2ff000, 3)),
        "doorbell-of-msi": bells(good, kind=3),
        "doorbell-movable": bells(good, bounds=(0, TOP)),
        "doorbell-cut": whole(OWNERS, reservation(1, 4, 0x200000, 0x2fffff)[:-2]),
        "doorbells-cut": whole(OWNERS, reservation(1, 4, 0x200000, 0x2fffff, doorbells=BELLS)[:-2]),
        "doorbell-taken": whole(OWNERS, reservation(1, 4, 0x200000, 0x2fffff, doorbells=BELLS) +
                                reservation(0, 2, 0x200000, 0x200fff)),
        "owner-none": whole(OWNERS, reservation(3, 1, 0, 9)),
        "kind-9": whole(OWNERS, reservation(0, 9, 0, 9)),
        "backwards": whole(OWNERS, reservation(0, 1, 9, 8)),
        "reservation-cut": whole(OWNERS, reservation(0, 1, 0, 9)[:9]),
        "bounds-0": loose(0x300000, 0x3fffff, (0, 0)),
        "align-0": loose(0x300000, 0x3fffff, (0, TOP), align=0),
        "align-odd": loose(0x300000, 0x3fffff, (0, TOP), align=0x3000),
        "align-not": loose(0x300000, 0x3fffff, (0, TOP), align=0x800000),
        "loose-msi": loose(0x300000, 0x3fffff, (0, TOP), kind=3),
        "below-bounds": loose(0x300000, 0x3fffff, (0x301000, TOP)),
        "above-bounds": loose(0x300000, 0x3fffff, (0, 0x3fefff)),
        "loose-on-one": loose(0x300000, 0x3fffff, (0, TOP), reservation(0, 1, 0x300000, 0x3fffff)),
        "loose-on-part": loose(0x300000, 0x3fffff, (0, TOP), reservation(0, 1, 0x380000, 0x38ffff)),
        "memory-cut": whole(OWNERS, b"", memory(0, 0, 9)[:6]),
        "memory-met": whole(OWNERS, reservation(0, 2, 0, 0xffff), memory(0, 0, 9), first=space(1)),
        "mapping-odd": whole(OWNERS, mappings=mapping(0, 8, 0xfff)),
        "mapping-end-odd": whole(OWNERS, mappings=mapping(0, 0, 0xffe)),
        "mapping-again": whole(OWNERS, mappings=mapping(0, 0, 0xfff) + mapping(1, 0, 0xfff)),
        "mapping-over": whole(OWNERS, mappings=mapping(0, 0x1000, 0x1fff) + mapping(1, 0, 0x1fff)),
        "mapping-met": whole(OWNERS, reservation(0, 2, 0, 0xffff), mappings=mapping(0, 0, 0xfff)),
        "mapping-on-memory": whole(OWNERS, b"", memory(0, 0, 0xfff), mapping(0, 0, 0xfff), first=space(1)),
        "mapping-cut": whole(OWNERS, mappings=mapping(0, 0, 0xfff)[:7]),
    }


def state_seeds():
    """The first byte: 1, as it is; else 2 n, the n-th allocation fails."""
    seeds = {"raw": b"\1" + stream(), "order": b"\0" + stream((2, OWNERS), (1, space())),
             "unknown": b"\0" + stream((1, space()), (9, b"x"))}
    for identity in (0, 1):
        for name, parts in right_spaces().items():
            seeds[f"{name}-{identity}"] = b"\0" + whole(*parts, first=space(identity))
    for name, state in wrong_spaces().items():
        seeds["wrong-" + name] = b"\0" + state
    # Each of these fails in a place of its own.
    for name, identity, numbers in (("owners", 0, range(1, 6)), ("memory", 0, (10,)), ("memory", 1, (10, 13)),
                                    ("mapped", 1, (10, 11)), ("all", 0, (14, 28))):
        for n in numbers:
            seeds[f"fail-{name}-{identity}-{n}"] = \
                bytes([2 * n]) + whole(*right_spaces()[name], first=space(identity))
    return seeds


# What a host says

REGIONS = b"0x000000007c800000 0x000000007effffff direct-relaxable\n" \
          b"0x00000000fee00000 0x00000000feefffff msi\n0x0 0xffffffffffffffff reserved\n"
IOMEM = b"000a0000-000bffff : PCI Bus 0000:00\n  000a0000-000a0fff : x\n" \
        b"100000000-17fffffff : System RAM\n8000000000-ffffffffff : PCI Bus 0000:00\n"


def region_texts():
    return [b"\n0xABCDEF\t0xfffffff \t direct \r\n", b"0", b"0x", b"1x0 0x1 msi\n", b"00 0x1 msi\n", b"0xg 0x1 msi\n",
            b"0xG 0x1 msi\n", b"0x@ 0x1 msi\n", b"0x00000000000000001 0x1 msi\n", b"0x0 1\n", b"0x0 0x12", b"0x0 0x1\n",
            b"0x0 0x1 \r\n", b"0x0 0x1 msi", b"0x2 0x1 msi\n", b"0x0 0x1 another\n", b"0x0 0x1 msi\n" * 9]


def iomem_texts():
    return [b"", b"  \n\n", b"0-1f : PCI Bus 0000:00", b"0-1F : x\n", b"0-1g : x\n", b"-1 : x\n", b"0:1 : x\n", b"0",
            b"0-", b"0-1", b"0-1 ", b"2-1 : x\n", b"00000000000000001-2 : x\n", b"0-00000000000000001 : x\n",
            b"00000000-00000000 : PCI Bus 0000:00\n00000000-00000000 : System RAM\n", b"0-1 : PCI Bus 0000:00\n" * 9,
            b"0-ff : Reserved\n  0-1f : PCI Bus 0000:00\n    0-f : PCI Bus 0000:01\n"]


def bridges():
    """A root port, and ones that differ from it: {offset: bytes} and how much of it there is."""
    port = {0x04: b"\x07\x05", 0x0e: b"\x81", 0x18: bytes([0, 1, 3]),
            0x20: struct.pack("<HHHHII", 0xfe40, 0xfe50, 1, 0xfff1, 8, 8),
            0x100: struct.pack("<I", 0x14820001), 0x148: struct.pack("<IHH", 0x0001000d, 0x1f, 0x1d)}
    listed = {0x06: b"\x10\x00", 0x34: b"\x43", 0x40: b"\x01\x50", 0x50: b"\x10\x00\x52\x00"}
    changes = {
        "port": ({}, 0x180), "port-short": ({}, 64), "port-loop": ({0x102: b"\x02\x10"}, 0x180),
        "port-cut": ({}, 63), "port-gone": ({0: b"\xff\xff"}, 0x180), "port-none": ({0x0e: b"\x00"}, 0x180),
        "port-upstream": (listed, 0x180), "port-downstream": ({**listed, 0x52: b"\x62"}, 0x180),
        "port-listed-short": (listed, 64), "port-list-ends": ({**listed, 0x50: b"\x05\x00"}, 0x180),
        "port-list-none": ({0x06: b"\x10\x00"}, 0x180), "port-list-low": ({**listed, 0x41: b"\x20"}, 0x180),
        "port-list-loop": ({**listed, 0x50: b"\x05\x40"}, 0x180),
        "port-plain": ({}, 0x100), "port-extended-none": ({0x100: bytes(4)}, 0x180),
        "port-extended-gone": ({0x100: b"\xff" * 4}, 0x180), "port-extended-odd": ({0x102: b"\x22\x14"}, 0x180),
        "port-extended-far": ({0x102: b"\xf2\xff"}, 0x180), "port-extended-cut": ({}, 0x14a),
        "port-extended-low": ({0x102: b"\x02\x08"}, 0x180), "port-extended-ends": ({0x102: b"\x02\x00"}, 0x180),
        "port-off": ({0x04: b"\x00\x00"}, 0x180), "port-one-window": ({0x24: bytes(4)}, 0x180),
        "port-32": ({0x24: b"\x00\x10\xf0\x1f"}, 0x180), "port-no-window": ({0x20: b"\x50\xfe\x40\xfe"}, 0x180),
        "port-acs-part": ({0x14e: b"\x04\x00"}, 0x180),
    }
    for name, (change, size) in changes.items():
        config = bytearray(0x180)
        for at, data in {**port, **change}.items():
            config[at:at + len(data)] = data
        yield name, bytes(config[:size])


def vfio_ranges(*ranges, count=None, version=1, cap=1, following=0):
    """A capability of VFIO's answer: ranges that may be mapped."""
    body = b"".join(struct.pack("<QQ", first, last) for first, last in ranges)
    return struct.pack("<HHIII", cap, version, following, len(ranges) if count is None else count, 0) + body


def vfio_info(*capabilities, flags=3, sizes=0x40201000, offset=24):
    return struct.pack("<IIQII", 24, flags, sizes, offset, 0) + b"".join(capabilities)


def vfio_answers():
    top, page = 2**64 - 1, 0x1000
    usual = vfio_ranges((0, 0xfedfffff), (0xfef00000, 0x7fffffffff))
    many = vfio_ranges((9 * page, 10 * page - 1), (page, 5 * page - 1), (2 * page, 3 * page - 1), (5 * page, 6 * page - 1),
                       (page, page + 7), (top - 0xfff, top))
    parts = vfio_ranges((1, 0x1fff), (0x3000, 0x3ffe), (0x4001, 0x5ffe), (0x7800, 0x87ff), (0x9800, 0xa7ff), (0xa800, 0xb800))
    available = struct.pack("<HHII", 3, 1, 0, 65535)
    return {
        "vfio": vfio_info(usual), "vfio-order": vfio_info(many), "vfio-parts": vfio_info(parts),
        "vfio-all": vfio_info(vfio_ranges((0, top))), "vfio-top": vfio_info(vfio_ranges((0x2000, 0x2fff), (0x1000, top), (top, top))),
        "vfio-none": vfio_info(vfio_ranges()), "vfio-nothing-whole": vfio_info(vfio_ranges((1, 0xffe))),
        "vfio-backwards": vfio_info(vfio_ranges((0x3000, 0x2fff))), "vfio-one-page": vfio_info(vfio_ranges((0x1000, 0x1fff))),
        "vfio-more-than-there": vfio_info(vfio_ranges((0, top), count=2)), "vfio-cut": vfio_info(usual[:12]),
        "vfio-header-cut": vfio_info(usual[:7]), "vfio-version": vfio_info(vfio_ranges((0, top), version=2)),
        "vfio-other": vfio_info(vfio_ranges((0, top), cap=9)), "vfio-available": vfio_info(available),
        "vfio-available-cut": vfio_info(available[:9]),
        "vfio-both": vfio_info(vfio_ranges((0, top), following=24 + 32), available),
        "vfio-twice": vfio_info(vfio_ranges((0, top), following=24 + 32), usual),
        "vfio-loop": vfio_info(vfio_ranges((0, top), following=24)), "vfio-into-the-head": vfio_info(usual, offset=8),
        "vfio-out": vfio_info(usual, offset=4096), "vfio-no-chain": vfio_info(offset=0), "vfio-plain": vfio_info(flags=0)[:16],
        "vfio-no-offset": vfio_info()[:18], "vfio-no-sizes": vfio_info(usual, sizes=0), "vfio-short": vfio_info()[:12], "vfio-empty": b"",
    }


def sources_seeds():
    """The first byte: 0 a bridge, 1 a group's regions, 3 /proc/iomem, 4 an answer of VFIO's."""
    seeds = {"regions": b"\x01" + REGIONS, "regions-cut": b"\x01" + REGIONS[:70], "iomem": b"\x03" + IOMEM}
    seeds.update((f"regions-{i}", b"\x01" + text) for i, text in enumerate(region_texts()))
    seeds.update((f"iomem-{i}", b"\x03" + text) for i, text in enumerate(iomem_texts()))
    seeds.update((name, b"\x00" + config) for name, config in bridges())
    seeds.update((name, b"\x04\x00" + answer) for name, answer in vfio_answers().items())
    seeds["vfio-no-memory"] = b"\x04\x01" + vfio_answers()["vfio"]
    seeds["vfio-no-byte"] = b"\x04"
    return seeds
