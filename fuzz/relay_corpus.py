# SPDX-License-Identifier: BSD-2-Clause
"""The seeds of the relay fuzz target: clients and far servers that get far, and what goes wrong.

The bytes are what relay_fuzz.c reads.
"""
import struct

ANSWER, SAY, COMMAND, LEAVE, GO, HOLD, TIME, CLIENT, MEMORY, RAW, WAIT, LACK, DIE, BUSY, SIGNAL = range(0xff, 0xf0, -1)
ISOLATED, QUICK, ALONE, LACKS = 1, 2, 4, 8
NO_REPLY, FDS, UNREAD = 1, 2, 4
ERROR, NUMBER, FD, NONE = 0x10, 0x20, 0x40, 0x80
GET_INFO, REGION_INFO, IO_FDS, IRQ_INFO, SET_IRQS, READ, WRITE = range(4, 11)
DMA_MAP, DMA_READ, DMA_WRITE, RESET = 2, 11, 12, 13
# Far answers before it is up: VERSION, GET_INFO, 9 regions, 5 interrupt indices, RESET.
REGIONS_AT, IRQS_AT = 2, 11


def record(what, flags=0, data=b""):
    return struct.pack("<BBH", what, flags, len(data)) + data


def after(skip, flags=0, data=b""):
    """Another answer, to the command after so many of joining; a plan skips 15 at most, so it takes two for
    more: the first is the right one about the last interrupt index."""
    if skip <= 15:
        return record(ANSWER, skip | flags, data)
    return record(ANSWER, 15, struct.pack("<IIII", 16, 1, 4, 8)) + record(ANSWER, (skip - 16) | flags, data)


def read(offset=0, region=0, count=4, flags=0):
    return record(READ, flags, struct.pack("<QII", offset, region, count))


def write(offset=0, region=0, data=b"\1\2\3\4", flags=0):
    return record(WRITE, flags, struct.pack("<QII", offset, region, len(data)) + data)


def irqs(kind, index=2, start=0, count=1, fds=0, data=b""):
    flags = FDS | (fds - 1) << 5 if fds else 0
    return record(SET_IRQS, flags, struct.pack("<IIIII", 20, kind, index, start, count) + data)


def region(index, flags, size=0x2000, caps=b"", argsz=None, cap_offset=32):
    argsz = 32 + len(caps) if argsz is None else argsz
    return struct.pack("<IIIIQQ", argsz, flags, index, cap_offset if caps else 0, size, 0) + caps


def sparse(areas, following=0, number=1, count=None):
    return struct.pack("<HHIII", number, 1, following, len(areas) if count is None else count, 0) + \
        b"".join(struct.pack("<QQ", *area) for area in areas)


# A turn in which it joins; the look at what it was told of memory. After it left: the next try, and that look.
UP = record(RAW) + record(TIME) + record(TIME)
INFOS = record(GET_INFO, 0, struct.pack("<IIII", 16, 0, 0, 0)) + \
    b"".join(record(REGION_INFO, 0, struct.pack("<IIIIQQ", argsz, 0, index, 0, 0, 0))
             for index in (0, 7, 9) for argsz in (32, 4096)) + \
    b"".join(record(IRQ_INFO, 0, struct.pack("<IIII", 16, 0, index, 0)) for index in (0, 2, 5))
TRIGGER = 0x24
ALL = INFOS + irqs(TRIGGER, 2, 1, 3, 3) + read() + write(flags=NO_REPLY) + read(4, 7) + irqs(TRIGGER, 2, 2, 1) + \
    irqs(0x21, 2, 0, 0) + irqs(0x09, 0) + irqs(0x22, 2, 0, 2, 0, b"\1\0") + record(RESET) + \
    record(IO_FDS, 0, struct.pack("<IIII", 64, 0, 0, 0)) + record(MEMORY) + record(MEMORY)


def seeds():
    whole = {}
    for isolate in 0, 1:
        first = bytes([isolate])
        name = "isolate-" if isolate else ""
        whole[name + "all"] = first + UP + ALL
        whole[name + "back"] = first + UP + ALL + record(LEAVE) + read() + write() + UP + ALL
        whole[name + "gone"] = first + UP + INFOS + irqs(TRIGGER, 2, 0, 4, 4) + record(GO) + read() + \
            irqs(TRIGGER, 2, 1, 2, 2) + irqs(TRIGGER, 2, 3, 1) + record(RESET) + record(GO) + record(RESET) + UP + read()
        whole[name + "clients"] = first + UP + ALL + record(CLIENT) + UP + ALL + record(GO) + record(CLIENT) + ALL
        whole[name + "dma"] = first + UP + b"".join(
            record(COMMAND, 0, bytes([number]) + struct.pack("<QQ", address, 8) + data)
            for number, data in ((DMA_READ, b""), (DMA_WRITE, b"12345678"), (5, b"")) for address in (0, 1 << 40))
        whole[name + "hold"] = first + UP + INFOS + record(HOLD) + write(flags=NO_REPLY) * 40 + read(count=4096) + \
            record(RESET) + record(MEMORY) + record(HOLD) + read() + UP + read()
        whole[name + "unread"] = first + UP + INFOS + read(count=0x1000, flags=UNREAD) * 100 + \
            record(REGION_INFO, UNREAD, struct.pack("<IIIIQQ", 32, 0, 0, 0, 0, 0)) * 20 + \
            record(IO_FDS, 0, struct.pack("<IIII", 64, 0, 0, 0)) + read()
    for skip in range(19):
        for kind, flags, data in (("none", NONE, b""), ("error", ERROR, b"\x16"), ("number", NUMBER, b""),
                                  ("odd", 0, b"\xa5" * 40), ("fd", FD, b"\0" * 16)):
            whole["join-%s-%d" % (kind, skip)] = b"\0" + after(skip, flags, data) + UP + read() + record(TIME) + UP + read()
    mmap = 3 | 4 | 8
    for name, answer in {
            "sparse": region(0, mmap, caps=sparse([(0, 0x1000), (0x1000, 0x1000)])),
            "chain": region(0, mmap, caps=sparse([], 48, 9) + sparse([(0, 0x1000)])),
            "loop": region(0, mmap, caps=sparse([], 32, 9)),
            "outside": region(0, mmap, caps=sparse([(0x1000, 0x2000)])),
            "many": region(0, mmap, caps=sparse([(0, 0x1000)] * 64)),
            "too-many": region(0, mmap, caps=sparse([(0, 0x1000)] * 65)),
            "lies": region(0, mmap, caps=sparse([(0, 0x1000)], count=0xffffffff)),
            "argsz": region(0, mmap, caps=sparse([(0, 0x1000)]), argsz=8192),
            "far-cap": region(0, mmap, caps=sparse([(0, 0x1000)]), cap_offset=0xfffffff0),
            "huge": region(0, 3, 2**64 - 1)}.items():
        whole["region-" + name] = b"\0" + after(REGIONS_AT, FD, answer) + UP + INFOS + read(2**64 - 16) + \
            record(LEAVE) + UP + read() + record(TIME) + UP + read()
    whole["irqs-many"] = b"\0" + after(IRQS_AT + 2, 0, struct.pack("<IIII", 16, 1, 2, 2048)) + UP + \
        irqs(TRIGGER, 2, 2040, 8, 8) + record(LEAVE) + UP + read()
    whole["irqs-too-many"] = b"\0" + after(IRQS_AT + 2, 0, struct.pack("<IIII", 16, 1, 2, 2049)) + UP + read()
    for flags, data in ((0, b"\0" * 16), (0, b"\0" * 21), (ERROR, b"\x05"), (NUMBER, b""), (NONE, b""), (FD, b"\0" * 20)):
        for name, asked in (("read", read()), ("write", write()), ("reset", record(RESET)),
                            ("irqs", irqs(TRIGGER, 2, 0, 1, 1)),
                            ("io-fds", record(IO_FDS, 0, struct.pack("<IIII", 64, 0, 0, 0)))):
            whole["answer-%s-%d-%d" % (name, flags, len(data))] = b"\0" + UP + read() + after(0, flags, data) + asked + \
                read() + record(LEAVE) + UP + read()
    whole["odd-commands"] = b"\0" + UP + read(0x2000) + read(2**64 - 1) + read(region=99) + read(count=2**32 - 1) + \
        record(READ, 0, b"\0" * 15) + record(READ, FDS, b"\0" * 16) + record(WRITE, 0, b"\0" * 20) + \
        irqs(0, 0) + irqs(0xff, 2) + irqs(TRIGGER, 9, 0, 1, 1) + irqs(TRIGGER, 2, 2**32 - 1, 2, 2) + \
        irqs(TRIGGER, 2, 0, 3, 2) + irqs(0x14, 0, 0, 1, 1) + record(RESET, 0, b"1") + record(14) + record(0) + \
        record(IO_FDS, 0, struct.pack("<IIII", 8, 0, 0, 0)) + record(RAW, 0, b"\0" * 16) + UP + read()
    whole["say"] = b"\0" + UP + record(SAY, 0, b"\xee" * 64) + UP + read() + record(SAY, 0, struct.pack("<HHIII", 1, 9, 16, 1, 0)) + \
        UP + read()
    whole.update(odd_seeds())
    whole.update(other_seeds())
    whole.update(late_seeds())
    return whole


def odd_seeds():
    """Commands that are wrong in one way; and what is allowed, but empty."""
    odd = [record(GET_INFO, 0, struct.pack("<IIII", 8, 0, 0, 0)),
           record(REGION_INFO, 0, struct.pack("<IIIIQQ", 16, 0, 0, 0, 0, 0)),
           record(IRQ_INFO, 0, struct.pack("<IIII", 8, 0, 0, 0)),
           record(IO_FDS, 0, struct.pack("<IIIII", 64, 0, 0, 0, 0)),
           record(IO_FDS, FDS, struct.pack("<IIII", 64, 0, 0, 0)),
           record(IO_FDS, 0, struct.pack("<IIII", 64, 0, 99, 0)),
           record(SET_IRQS, 0, struct.pack("<IIIII", 8, 0x21, 2, 0, 0)),
           irqs(0x23), irqs(0x19), irqs(0x01), irqs(TRIGGER, 2, 7, 2, 2), irqs(TRIGGER, 2, 0, 0), irqs(0x21, 2, 0, 1, 1),
           irqs(0x22, 2, 0, 2, 0, b"\1"), irqs(0x21, 2, 1, 0), irqs(0x22, 2, 0, 0), irqs(0x09, 2, 0, 0),
           read(count=0), write(data=b""), record(READ, 0, struct.pack("<QII", 0, 0, 4) + b"\0"),
           record(READ, FDS, struct.pack("<QII", 0, 0, 4)), record(WRITE, FDS, struct.pack("<QII", 0, 0, 4) + b"1234"),
           record(RESET, FDS), record(3), record(15), record(50)]
    small = b"\0\0\0\0" + b'{"capabilities":{"max_data_xfer_size":8}}\0'
    io = struct.pack("<IIII", 64, 0, 0, 0)
    return {
        "odd-each": b"\0" + UP + INFOS + b"".join(odd) + read(),
        "odd-isolated": b"\1" + UP + INFOS + b"".join(odd) + read(),
        "odd-down": b"\0" + UP + INFOS + irqs(TRIGGER, 2, 0, 4, 4) + record(GO) + b"".join(odd) + record(GO) + UP + read(),
        "small-transfers": b"\0" + after(0, 0, small) + UP + read() + read(count=9) + write(data=b"1" * 9) + read(count=8),
        "io-fds-large": b"\0" + UP + INFOS + after(0, FD, io + bytes(80)) + record(IO_FDS, 0, io) + read(),
        "io-fds-small": b"\0" + UP + INFOS + after(0, FD, io) + record(IO_FDS, 0, io) + record(LEAVE) + UP + read(),
        "held": b"\0" + UP + INFOS + record(HOLD) + read() * 200 + record(CLIENT) + record(HOLD) + UP + read(),
        "held-bytes": b"\0" + UP + INFOS + record(HOLD) + read(count=0x2000) * 200 + record(HOLD) + UP + read(),
        "held-reset": b"\0" + UP + INFOS + record(HOLD) + read() + record(RESET) + record(LEAVE) + record(HOLD) + UP + read(),
        "come-and-go": b"\0" + (UP + read() + record(LEAVE)) * 110,
        "answer-late": b"\0" + UP + read() + after(0, NONE) + read() + record(LEAVE) + UP + read(),
    }


def other_seeds():
    """Far servers that come back, or come at first, as something else."""
    info = struct.pack("<IIII", 16, 3, 9, 5)
    whole = {}
    for name, skip, flags, answer in (
            ("short", 1, 0, info[:12]), ("long", 1, 0, info + b"1"), ("no-pci", 1, 0, struct.pack("<IIII", 16, 1, 9, 5)),
            ("few-regions", 1, 0, struct.pack("<IIII", 16, 3, 7, 5)), ("no-vga", 1, 0, struct.pack("<IIII", 16, 3, 8, 5)),
            ("few-irqs", 1, 0, struct.pack("<IIII", 16, 3, 9, 4)), ("no-reset", 1, 0, struct.pack("<IIII", 16, 2, 9, 5)),
            ("irq-flags", 11, 0, struct.pack("<IIII", 16, 3, 0, 8)), ("irq-count", 13, 0, struct.pack("<IIII", 16, 1, 2, 7)),
            ("no-irqs", 13, 0, struct.pack("<IIII", 16, 1, 2, 0)), ("irq-index", 11, 0, struct.pack("<IIII", 16, 1, 1, 8)),
            ("region-size", 3, 0, region(1, 3, 0x3000)), ("region-none", 3, 0, region(1, 3, 0)),
            ("region-short", 3, 0, region(1, 3)[:31]), ("region-index", 3, 0, region(2, 3)),
            ("write-only", 3, 0, region(1, 2)), ("mmap-no-file", 2, 0, region(0, 7)),
            ("offset", 2, FD, region(0, 7)[:24] + struct.pack("<Q", 4096)),
            ("areas", 2, FD, region(0, 15, caps=sparse([(0, 0x1000)]))),
            ("other-file", 2, FD | NONE, region(0, 7)), ("other-file-system", 2, FD | NONE | ERROR, region(0, 7)), ("area-empty", 2, FD, region(0, 15, caps=sparse([(0, 0)]))),
            ("area-beyond", 2, FD, region(0, 15, caps=sparse([(0x4000, 0x1000)]))),
            ("area-odd", 2, FD, region(0, 15, caps=sparse([(0x10, 0x1000)]))),
            ("area-none", 2, FD, region(0, 15, caps=sparse([]))),
            ("cap-cut", 2, FD, region(0, 15, caps=sparse([])[:6])),
            ("cap-short", 2, FD, region(0, 15, caps=sparse([])[:12]))):
        use = INFOS + read() + read(region=1) + write(region=1) + irqs(TRIGGER, 2, 0, 1, 1) + irqs(0x21, 2, 0, 0)
        whole["first-" + name] = b"\0" + after(skip, flags, answer) + UP + use + record(LEAVE) + UP + read()
        whole["then-" + name] = b"\0" + UP + read() + record(LEAVE) + after(skip, flags, answer) + UP + use + UP + read()
    one, two = (region(0, 15, caps=sparse([area])) for area in ((0, 0x1000), (0x1000, 0x1000)))
    whole["then-other-areas"] = b"\0" + after(REGIONS_AT, FD, one) + UP + INFOS + record(LEAVE) + \
        after(REGIONS_AT, FD, two) + UP + read()
    return whole


def late_seeds():
    """Far servers that take too long, or can do little; a host that lacks something."""
    io = struct.pack("<IIII", 64, 0, 0, 0)
    give = irqs(TRIGGER, 2, 0, 3, 3)
    each = (("read", read()), ("write", write()), ("irqs", irqs(TRIGGER, 2, 4, 1, 1)), ("reset", record(RESET)),
            ("io-fds", record(IO_FDS, 0, io)))
    again = record(LEAVE) + UP + read()

    def version(what):
        return b"\0\0\0\0" + b'{"capabilities":{%s}}\0' % what

    whole = {
        "quick": bytes([QUICK]) + UP + ALL + again,
        "alone": bytes([ALONE]),
        "dies": b"\0" + UP + INFOS + record(DIE) + read() + record(TIME) * 3 + record(DIE) + UP + read(),
        "dies-alone": b"\0" + record(DIE) + record(TIME) * 9 + record(DIE) + UP + INFOS + read(),
        "busy": b"\0" + UP + INFOS + record(BUSY) + record(LEAVE) + record(TIME) * 9 + read() + record(RESET) +
        record(BUSY) + record(TIME) + UP + read(),
        "steady": b"\0" + (UP + read() + record(LEAVE)) * 3 + UP + record(WAIT, 200) + again + again,
        "no-fds": b"\0" + after(0, 0, version(b'"max_msg_fds":0')) + UP + INFOS + give + read() + record(RESET),
        "no-fds-then": b"\0" + UP + INFOS + give + record(LEAVE) + after(0, 0, version(b'"max_msg_fds":0')) + UP + read() + UP,
        "large-pages": b"\0" + after(0, 0, version(b'"pgsizes":65536')) + UP + read() + UP + INFOS,
        "behind": bytes([QUICK]) + after(17, NONE) + record(RAW) + record(WAIT, 5) + INFOS + read() + record(WAIT, 9) + UP + read(),
        "hangs": b"\0" + UP + INFOS + record(HOLD) + read() + record(WAIT, 20) + record(TIME) * 4 + record(HOLD) + UP + read(),
        "let-go-late": b"\0" + UP + INFOS + record(HOLD) + record(MEMORY) + record(WAIT, 11) + record(HOLD) + read() + UP +
        record(MEMORY) + read(),
        "not-let-go": bytes([QUICK]) + UP + INFOS + record(HOLD) + record(MEMORY) + (record(WAIT, 1) + read()) * 30 +
        record(HOLD) + UP + record(MEMORY) + read(),
        "full-and-held": b"\0" + UP + INFOS + record(HOLD) + write(data=b"x" * 4000) * 16 + record(MEMORY) + record(WAIT, 11) +
        read() + record(RESET) + record(WAIT, 5) + UP + record(HOLD) + UP + read(),
    }
    for name, asked in each:
        whole["hears-last-" + name] = b"\0" + UP + INFOS + give + record(LEAVE, 1) + asked + UP + read()
        whole["late-" + name] = bytes([QUICK]) + UP + INFOS + give + record(HOLD) + asked + record(WAIT, 9) + record(HOLD) + UP + read()
        whole["half-%s" % name] = b"\0" + UP + INFOS + after(0, 0, bytes(8)) + asked + UP + read()
    few = after(0, 0, version(b'"max_msg_fds":3'))
    all_irqs = irqs(TRIGGER, 2, 0, 8, 8)
    for isolated in 0, 1:
        whole["signals-%d" % isolated] = bytes([isolated]) + UP + INFOS + give + record(SIGNAL) + record(SIGNAL, 1) + give + \
            record(SIGNAL) + record(LEAVE) + record(SIGNAL) + UP + record(SIGNAL) + irqs(TRIGGER, 2, 0, 3) + record(SIGNAL)
        whole["parts-%d" % isolated] = bytes([isolated]) + few + UP + INFOS + all_irqs + record(SIGNAL) + again
        for refused in range(3):
            whole["parts-refused-%d-%d" % (refused, isolated)] = bytes([isolated]) + few + UP + INFOS + \
                after(refused, ERROR, b"\x10") + all_irqs + read() + again
        for lacking in range(1, 9):
            whole["parts-lack-%d-%d" % (lacking, isolated)] = bytes([isolated]) + few + UP + INFOS + record(LACK, lacking) + \
                all_irqs + read() + again
    for lacking in range(1, 12):
        whole["isolate-lacks-then-%d" % lacking] = bytes([ISOLATED]) + UP + INFOS + give + record(LEAVE, 1) + \
            record(LACK, lacking) + record(RAW) + UP + record(RESET) + UP + read() + record(SIGNAL)
        whole["lacks-%d" % lacking] = bytes([LACKS * lacking]) + UP + read()
        whole["lacks-then-%d" % lacking] = b"\0" + UP + INFOS + give + record(LEAVE, 1) + record(LACK, lacking) + \
            record(RAW) + UP + record(RESET) + UP + read()
    return whole
