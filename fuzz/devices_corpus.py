# SPDX-License-Identifier: BSD-2-Clause
"""Seeds of the fuzz target of the server's small devices; make_corpus.py writes them. See devices_fuzz.c."""
import struct

VTD, EDU, FUNCTION, NO_RESET = 0, 1, 3, 4
BAR, CONFIG, MOVE, REFUSE, RESET = 0, 3, 5, 6, 7
SIZES = [1, 2, 4, 8, 3, 12, 64, 0]
FAR, WRITE, LAST = 8, 16, 32
ADD_BAR, CAPABILITY, MSI, MSIX, ALLOW, HARDWIRE, STATUS, AGAIN = range(8)


def access(what, at, size, data=None, more=0):
    kind = SIZES.index(size) | (FAR if at > 0xffff else 0) | (0 if data is None else WRITE) | more
    out = bytes([what, kind]) + struct.pack("<L" if at > 0xffff else "<H", at)
    return out if data is None else out + (data % (1 << 8 * size)).to_bytes(size, "little")


def write(at, value, size=4):
    return access(BAR, at, size, value)


def config(at, value, size=4):
    return access(CONFIG, at, size, value)


def dma(source, target, count, command):
    return write(0x80, source, 8) + write(0x88, target, 8) + write(0x90, count, 8) + write(0x98, command, 8)


def move(*changes, cut=None):
    out = bytes([MOVE, 7 if cut is not None else len(changes)])
    out += b"" if cut is None else struct.pack("<H", cut)
    padded = list(changes) + ([(0, 0)] * (6 - len(changes)) if cut is not None else [])
    return out + b"".join(struct.pack("<HB", at, value) for at, value in padded)


def part(what, kind=0, more=0):
    return bytes([what | kind << 3, more]) + (bytes(8) if more >= 0xc0 else b"")


def bar(number, log2, wide=False, prefetch=False):
    return bytes([ADD_BAR | number << 3 | wide << 6 | prefetch << 7, log2])


def bar_of(number, size, wide=False):
    return bytes([ADD_BAR | number << 3 | wide << 6, 0xc0]) + struct.pack("<Q", size)


def msix(vectors, number, table, pending):
    return bytes([MSIX | number << 3, 0]) + struct.pack("<H", vectors) + struct.pack("<L", table)[:3] + \
        struct.pack("<L", pending)[:3]


def seeds():
    out = {}
    on = config(4, 0x0406, 2)
    every = b"".join(access(BAR, at, size) for at in (0, 4, 8, 0x10, 0x20, 0x24, 0x60, 0x64, 0x80, 0x84, 0x88, 0x90,
                                                      0x98, 0xa0, 0x82, 0x81, 0x40000) for size in SIZES)
    out["edu-read"] = bytes([EDU]) + every
    out["edu-write"] = bytes([EDU]) + b"".join(
        write(at, 0x1234567890abcdef1234 & ((1 << 8 * size) - 1), size)
        for at in (0, 4, 8, 0x10, 0x20, 0x24, 0x60, 0x64, 0x80, 0x84, 0x88, 0x9c, 0x98, 0xa0, 0x81, 0x40000)
        for size in (1, 2, 4, 8, 3))
    factorials = b"".join(write(8, n) for n in (0, 1, 5, 33, 34, 0xffffffff))
    out["edu-factorial"] = bytes([EDU]) + factorials + write(0x20, 0x80) + factorials + write(0x64, 1) + write(0x20, 0xff)
    irq = write(0x60, 1) + config(0x42, 1, 2) + write(0x60, 2) + write(0x64, 3) + config(0x42, 0, 2) + write(0x60, 0)
    out["edu-interrupts"] = bytes([EDU]) + irq + bytes([RESET]) + irq
    transfers = b"".join(dma(*one) for one in (
        (0x40000, 0x100, 64, 7), (0x100, 0x40000, 64, 5), (0x40000, 0x100, 4096, 3), (0x40001, 0x100, 4096, 3),
        (0x3ffff, 0x100, 1, 3), (0x41001, 0x100, 0, 3), (0x41000, 0, 0, 3), (0x100, 0x3ffff, 8, 1),
        (0xfffff, 0x40000, 8, 1), (0, 2**64 - 1, 8, 1), (0x40000, 0xfffff, 8, 3), (0, 0x40ff0, 2**64 - 1, 5), (0, 0, 0, 0),
        (0, 0, 0, 4)))
    out["edu-dma-off"] = bytes([EDU]) + transfers
    out["edu-dma"] = bytes([EDU]) + on + transfers + bytes([REFUSE | 8]) + transfers + bytes([RESET]) + transfers
    out["edu-halves"] = bytes([EDU]) + on + b"".join(write(at, 1) for at in range(0x80, 0xa0, 4))
    out["edu-end"] = bytes([EDU]) + b"".join(access(BAR, 0, size, None, LAST) + access(BAR, 0, size, 0, LAST)
                                            for size in SIZES)
    out["edu-no-reset"] = bytes([EDU | NO_RESET, RESET]) + on + transfers + bytes([RESET])
    for device in (EDU, VTD):
        out["config-%d" % device] = bytes([device]) + b"".join(
            access(CONFIG, at, size) + access(CONFIG, at, size, (1 << 8 * size) - 1)
            for at in (0, 4, 6, 0x0c, 0x10, 0x14, 0x3c, 0x40, 0xfe, 0xff, 0x100, 0x1000, 0xffffffff) for size in (1, 2, 4, 8, 64, 0))
        out["move-%d" % device] = bytes([device]) + on + irq + move() + b"".join(
            move((at, 0xff)) for at in (0, 4, 5, 6, 7, 0x10, 0x13, 0x34, 0x42, 0x100, 0x104, 0x108, 0x109, 0x10c, 0x10d, 0x110,
                                        0x130, 0x131, 0x138)) + b"".join(move(cut=cut) for cut in (1, 9, 200, 4096, 4300))
    place = config(0x10, 0xfed00000) + config(4, 6, 2)
    out["vtd-placed"] = bytes([VTD]) + place + place + config(0x10, 0xffffffff) + config(0x10, 0xf0000000) + \
        b"".join(config(0x13, n, 1) for n in range(0x10, 0x10 + 110)) + bytes([RESET]) + place
    out["vtd-bar"] = bytes([VTD]) + b"".join(
        access(BAR, at, size) + access(BAR, at, size, 0x5a) for at in
        (0, 4, 8, 0x10, 0x18, 0x1c, 0x34, 0x38, 0x100, 0xfff, 0x1ff0, 0x10000, 0xffeff0, 0xffeff8, 0xfff000, 0xffffc0)
        for size in SIZES) + b"".join(access(BAR, 0, size, None, LAST) for size in SIZES)
    out["vtd-command"] = bytes([VTD]) + write(0x20, 0x1000, 8) + write(0x18, 1 << 30) + write(0x18, 1 << 31) + \
        write(0x18, 1 << 26) + move() + bytes([RESET]) + move()
    bars = [bar(n, log2, wide, prefetch) for log2 in (3, 4, 12, 31, 32, 40) for n in range(8) for wide in (0, 1) for prefetch in (0,)]
    out["function-bars"] = bytes([FUNCTION, 1]) + b"".join(bars)
    out["function-bars-wide"] = bytes([FUNCTION, 1]) + bar(0, 40, True, True) + bar(1, 12) + bar(2, 63, True) + bar(5, 12, True) + \
        bar_of(4, 24) + bar_of(4, 0) + bar(4, 12) + bar(4, 12) + bar(3, 4, True) + part(STATUS, 0x1c, 0x10) + part(STATUS, 0x1c, 0x18)
    out["function-capabilities"] = bytes([FUNCTION, 0]) + b"".join(part(CAPABILITY, 1, n) for n in (0, 1, 2, 9, 64, 100)) + \
        part(CAPABILITY, 1, 100) + part(CAPABILITY, 1, 2) * 60
    out["function-full"] = bytes([FUNCTION, 0]) + part(CAPABILITY, 1, 192) + part(CAPABILITY, 1, 2) + part(MSI, 0, 0) + \
        bar(0, 12) + msix(1, 0, 0, 0x800)
    for log2 in range(8):
        out["function-msi-%d" % log2] = bytes([FUNCTION, 0]) + part(MSI, 0, log2) + part(MSI, 0, log2) + \
            part(STATUS, 0x1c, 0x40) + part(STATUS, 1, 4)
    table = [msix(*one) for one in ((0, 0, 0, 0x800), (2049, 0, 0, 0x800), (4, 6, 0, 0x800), (4, 1, 0, 0x800), (4, 0, 4, 0x800),
                                    (4, 0, 0, 0x804), (4, 0, 0xfff000, 0), (4, 0, 0, 0xfff000), (4, 0, 0, 0x20), (4, 0, 0x20, 0),
                                    (4, 0, 0x20, 0x60), (64, 0, 0, 0x400), (64, 0, 0, 0x400))]
    out["function-msix"] = bytes([FUNCTION, 0]) + bar(0, 12) + b"".join(table)
    out["function-msix-on"] = bytes([FUNCTION, 0]) + bar(0, 12) + part(CAPABILITY, 1, 2) + msix(64, 0, 0, 0x400) + \
        part(STATUS, 4, 0x47)
    out["vtd-not-started"] = bytes([VTD | 8 | 16]) + move() + write(0x18, 1 << 31)
    out["function-bits"] = bytes([FUNCTION, 0]) + b"".join(part(what, far, at) for what in (ALLOW, HARDWIRE) for far in (0, 1)
                                                          for at in (0, 4, 0x10, 0x40, 0xfc, 0xfd, 0xff)) + part(AGAIN)
    # What is allowed in a BAR's words, before and after there is one, and where a capability will be.
    bits = b"".join(part(what, 0, at) for what in (ALLOW, HARDWIRE) for at in range(0x0d, 0x28))
    touch = b"".join(part(STATUS, 0x1c, at) for at in range(0x10, 0x28))
    out["function-bars-allowed"] = bytes([FUNCTION, 0]) + bits + bar(0, 31) + bar(2, 40, True) + bits + touch
    out["function-msi-allowed"] = bytes([FUNCTION, 0]) + b"".join(
        part(ALLOW, 0, at) + part(STATUS, 0x1c, at) for at in range(0x40, 0x50)) + part(MSI, 0, 0)
    return out
