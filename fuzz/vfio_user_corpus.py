# SPDX-License-Identifier: BSD-2-Clause
"""Seeds of the vfio_user fuzz target: clients of a function that does all that functions may."""
import struct

RAW, RAW_EDU, FEW = 1, 2, 64
VERSION, MAP, UNMAP, INFO, REGION, IO_FDS, IRQ, SET_IRQS, READ, WRITE, DMA_READ, DMA_WRITE, RESET = range(1, 14)
OWN = 0x40
EDU, NO_REPLY, MEMORY, EVENTFDS, UNREAD = 1, 2, 4, 8, 16
UNDER_WAY, BUS, TWIN, UPDATE, ALLOC, STARVE, LEAVE, AGAIN, TAKE, EVENTFD_KIND, RAW_BYTES, MSIX = \
    (0xfe - number for number in range(12))
MESSAGE, LINE, WRITE_MESSAGE, READ_MEMORY, WRITE_MEMORY = range(5)
CONFIG, ROM, NO_REGION = 7, 6, 9
INTX, MSI, MSIX_INDEX, ERROR = range(4)
NONE, BOOL, EVENTFD, MASK, UNMASK, TRIGGER = 1, 2, 4, 8, 16, 32
BUSABLE = b'{"capabilities":{"twin_socket":{"supported":true}%s}}\0'


def record(what, flags=0, data=b""):
    return struct.pack("<BBH", what, flags, len(data)) + data


def own(command, data=b"", flags=0):
    return record(command | OWN, flags, data)


def edu(command, data=b"", flags=0):
    return record(command, flags | EDU, data)


def bus(*operands):
    return record(BUS, 0, bytes(operands))


def hello(text=b"", major=0):
    return own(VERSION, struct.pack("<HH", major, 0) + text)


def dma_map(address, size, flags=3, offset=0, how=0):
    return own(MAP, struct.pack("<IIQQQ", 32, flags, offset, address, size), how)


def unmap(address, size, flags=0, how=0):
    return own(UNMAP, struct.pack("<IIQQ", 24, flags, address, size), how)


def read(region, offset, count, how=0, to=own):
    return to(READ, struct.pack("<QII", offset, region, count), how)


def write(region, offset, data, how=0, count=None, to=own):
    return to(WRITE, struct.pack("<QII", offset, region, len(data) if count is None else count) + data, how)


def irqs(flags, index, start=0, count=0, how=0, data=b"", argsz=20):
    return own(SET_IRQS, struct.pack("<IIIII", argsz, flags, index, start, count) + data, how)


def eventfds(count, index=MSI, start=0, flags=EVENTFD | TRIGGER, vectors=None):
    return irqs(flags, index, start, count if vectors is None else vectors, EVENTFDS | (count - 1) << 5)


def reply(number, command, size, error=0, address=0x1000):
    data = b"\x11" * size if command == DMA_READ else b""
    return struct.pack("<HHIIIQQ", number, command, 32 + len(data), 0x21 if error else 1, error, address, size) + data


update = record(UPDATE) + record(UPDATE, 1) + record(UPDATE, 2)
ring = b"".join(bus(MESSAGE, vector) for vector in (0, 1, 3, 7, 200)) + bus(LINE, 1) + bus(LINE, 0)


def version_seeds():
    out = {}
    texts = {
        "defaults": b"{}\0", "numbers": b'{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":65536,"pgsizes":4096}}\0',
        "negative": b'{"capabilities":{"max_msg_fds":-1,"max_data_xfer_size":"a","pgsizes":1.5}}\0', "array": b"[]\0",
        "cut": b'{"capabilities":', "none": b"\0", "words": b'{"capabilities":{"twin_socket":true}}\0',
    }
    for name, text in texts.items():
        out["version-" + name] = b"\0" + hello(text) + hello(text) + read(0, 0, 4)
    whole = b"\0\0\0\0" + b" " * 17000
    out["version-long"] = b"\0" + b"".join(record(RAW_BYTES, 0, part) for part in (
        struct.pack("<HHIII", 1, 1, 16 + len(whole), 0, 0), whole[:4000], whole[4000:8000], whole[8000:12000], whole[12000:16000],
        whole[16000:])) + update
    out["version-major"] = b"\0" + hello(major=1) + own(INFO, struct.pack("<IIII", 16, 0, 0, 0)) + bus(WRITE_MESSAGE, 1) + hello()
    for number in range(1, 5):
        out["version-fails-%d" % number] = b"\0" + record(ALLOC, number) + hello(BUSABLE % b"") + hello()
        out["version-starved-%d" % number] = b"\0" + record(STARVE, number - 1) + hello(BUSABLE % b"") + hello()
    return out


def twin_seeds():
    out = {}
    for name, text in (("whole", BUSABLE % b""), ("small", BUSABLE % b',"max_data_xfer_size":16'),
                       ("nothing", BUSABLE % b',"max_data_xfer_size":0')):
        up = b"\0" + hello(text) + dma_map(0x1000, 0x8000)
        good = record(TWIN, 0, reply(0, DMA_READ, 16)) + bus(READ_MEMORY, 0, 16) + record(TWIN, 0, reply(1, DMA_WRITE, 16)) + \
            bus(WRITE_MEMORY, 0, 16)
        out["twin-" + name] = up + good + bus(WRITE_MESSAGE, 1) + update + read(0, 0, 4)
        out["twin-refused-" + name] = up + record(TWIN, 0, reply(0, DMA_READ, 0, 14)) + bus(READ_MEMORY, 0, 16) + update
        out["twin-wrong-" + name] = up + record(TWIN, 0, reply(9, DMA_READ, 16)) + bus(READ_MEMORY, 0, 16) * 2 + update + \
            bus(WRITE_MESSAGE, 1) + read(0, 0, 4) + hello()
        out["twin-late-" + name] = up + bus(READ_MEMORY, 0, 16) + bus(WRITE_MESSAGE, 1) + bus(READ_MEMORY, 0, 16) + update + \
            record(RAW_BYTES, 0, bytes(4)) + hello()
        out["twin-left-" + name] = up + record(TWIN, 1) + update + bus(WRITE_MESSAGE, 1) + update + bus(WRITE_MEMORY, 0, 16) + \
            read(0, 0, 4) + hello()
        out["twin-messages-" + name] = up + bus(WRITE_MESSAGE, 1) * 340 + update + record(TWIN, 1) + update + read(0, 0, 4)
    out["twin-none"] = b"\0" + hello() + bus(READ_MEMORY, 0, 16) + bus(WRITE_MEMORY, 0, 16) + bus(WRITE_MESSAGE, 1) + read(0, 0, 4)
    return out


def memory_seeds():
    out = {}
    begin = hello()
    odd = [dma_map(0x1000, 0), dma_map(2**64 - 0x1000, 0x2000), dma_map(0x1000, 0x1000, 4), dma_map(0x1000, 0x1000, 3, 0, MEMORY | EVENTFDS),
           dma_map(0x1000, 0x1000, 3, 0xbad000, MEMORY), dma_map(2**64 - 0x1000, 0x1000)]
    out["maps-odd"] = b"\0" + begin + b"".join(odd) + unmap(0, 0, 2)
    maps = b"".join(dma_map(0x1000 * (2 * n + 1), 0x1000, n & 3, 0, MEMORY if n & 1 else 0) for n in range(20))
    for mode in (0, FEW):
        out["maps-%d" % mode] = bytes([mode]) + begin + maps + dma_map(0x1000, 0x4000) + dma_map(0, 0x1001) + unmap(0x1000, 0x2000) + \
            unmap(0x800, 0x1000) + unmap(0x1000, 0x1000) + unmap(0x200000, 0x1000) + unmap(0, 0) + unmap(0, 0, 4) + unmap(1, 0, 2) + \
            unmap(0, 1, 2) + unmap(2**64 - 1, 2) + unmap(0, 0, 2) + dma_map(0x1000, 0x1000)
    for number in range(1, 5):
        out["maps-fail-%d" % number] = b"\0" + begin + b"".join(
            record(ALLOC, number) + dma_map(0x1000 * (n + 1), 0x1000, 3, 0, MEMORY) for n in range(18)) + unmap(0, 0, 2)
        out["maps-starved-%d" % number] = b"\0" + begin + record(STARVE, number - 1) + dma_map(0x1000, 0x1000, 3, 0, MEMORY) + \
            unmap(0x1000, 0x1000)
    busy, idle = record(UNDER_WAY, 3), record(UNDER_WAY, 0)
    for how in (0, NO_REPLY):
        out["unmap-waits-%d" % how] = b"\0" + begin + maps + busy + unmap(0x1000, 0x1000, 0, how) + read(0, 0, 4) + update + idle + update + \
            read(0, 0, 4) + busy + unmap(0, 0, 2, how) + update + idle + read(0, 0, 4) + update
        out["reset-waits-%d" % how] = b"\0" + begin + busy + own(RESET, b"", how) + update + read(0, 0, 4) + idle + update + \
            busy + own(RESET, b"", how) + record(LEAVE, 16) + idle + update + read(0, 0, 4)
    out["waits-left"] = b"\0" + begin + maps + busy + unmap(0x1000, 0x1000) + record(LEAVE) + idle + begin + read(0, 0, 4)
    out["edu-memory"] = b"\0" + edu(MAP, struct.pack("<IIQQQ", 32, 3, 0, 0x1000, 0x1000)) + \
        edu(UNMAP, struct.pack("<IIQQ", 24, 0, 0x1000, 0x1000)) + edu(MAP, struct.pack("<IIQQQ", 32, 3, 0, 0x1000, 0x1000)) + \
        edu(UNMAP, struct.pack("<IIQQ", 24, 2, 0, 0)) + edu(RESET)
    return out


def command_seeds():
    out = {}
    begin = hello()
    regions = b"".join(own(REGION, struct.pack("<IIIIQQ", argsz, 0, index, 0, 0, 0)) for argsz in (32, 31) for index in (0, 1, 7, 8, 9))
    irq_infos = b"".join(own(IRQ, struct.pack("<IIII", argsz, 0, index, 0)) for argsz in (16, 15) for index in range(6))
    out["infos"] = b"\0" + begin + own(INFO, struct.pack("<IIII", 16, 0, 0, 0)) + own(INFO, struct.pack("<IIII", 15, 0, 0, 0)) + regions + \
        irq_infos + own(IO_FDS, bytes(16)) + own(14) + own(63) + own(DMA_READ, bytes(16)) + own(INFO, bytes(8)) + own(RESET, b"", MEMORY | EVENTFDS | 7 << 5)
    out["before-version"] = b"\0" + own(INFO, struct.pack("<IIII", 16, 0, 0, 0)) + bus(WRITE_MESSAGE, 1) + own(RESET) + begin
    accesses = b"".join(read(region, offset, count, 0, to) for to in (own, edu) for region, offset, count in (
        (0, 0, 4), (0, 4096, 0), (0, 4096, 1), (0, 4097, 0), (0, 2**64 - 1, 2), (1, 0, 0), (1, 0, 1), (2, 5, 2**20), (2, 0, 2**20 + 1),
        (ROM, 0, 1), (CONFIG, 0, 256), (CONFIG, 0, 257), (CONFIG, 255, 1), (CONFIG, 0, 0), (8, 0, 0), (NO_REGION, 0, 0), (2**32 - 1, 0, 0)))
    writes = b"".join(write(region, offset, b"\x01" * size, 0, count, to) for to in (own, edu) for region, offset, size, count in (
        (0, 0, 4, None), (0, 0, 4, 3), (0, 0, 4, 5), (0, 4096, 0, None), (0, 4095, 2, None), (CONFIG, 4, 4, None), (CONFIG, 0, 0, None),
        (CONFIG, 254, 4, None), (NO_REGION, 0, 1, None), (2, 77, 3000, None)))
    out["accesses"] = b"\0" + begin + accesses + writes
    out["accesses-quiet"] = b"\0" + begin + read(0, 0, 4, NO_REPLY) + read(9, 0, 4, NO_REPLY) * 12 + write(0, 0, b"1234", NO_REPLY)
    for number in range(1, 4):
        out["accesses-fail-%d" % number] = b"\0" + begin + record(ALLOC, number) + read(2, 0, 300000) + read(2, 0, 4) + \
            record(ALLOC, number) + write(2, 0, bytes(3500)) + read(2, 0, 4)
        # The socket is full: what is kept may find no room.
        out["replies-fail-%d" % number] = b"\0" + begin + read(2, 0, 60000, UNREAD) * 3 + \
            (record(ALLOC, number) + read(2, 0, 60000, UNREAD)) * 3 + update + read(0, 0, 4)
    out["replies-unread"] = b"\0" + begin + read(2, 0, 60000, UNREAD) * 5 + update + bus(WRITE_MESSAGE, 1) + read(2, 0, 60000, UNREAD) * 3 + \
        bus(WRITE_MESSAGE, 2) + update + record(TAKE, 250) + record(UPDATE) + read(0, 0, 4)
    out["replies-in-part"] = b"\0" + begin + read(2, 0, 60000, UNREAD) * 4 + \
        b"".join(record(TAKE, n) + read(0, 0, 4, UNREAD) + record(TAKE, 7) + bus(WRITE_MESSAGE, 1) for n in (20, 5, 64, 9, 40)) + \
        record(TAKE, 250) * 5 + read(0, 0, 4)
    out["replies-left"] = b"\0" + begin + read(2, 0, 60000, UNREAD) * 5 + record(LEAVE, 16) + update + bus(WRITE_MESSAGE, 1) + update + begin
    out["twin-offered-to-who-does-not-read"] = b"\0" + own(14, b"", UNREAD) * 300 + own(VERSION, b"\0\0\0\0" + BUSABLE % b"", UNREAD) + begin
    out["left"] = b"\0" + begin + record(LEAVE, 16) + bus(WRITE_MESSAGE, 1) + update + record(UPDATE) + begin + record(LEAVE) + begin + \
        record(AGAIN) + own(RESET) + begin + own(RESET)
    many = b"".join(struct.pack("<HHIII", n, RESET, 16, 0, 0) for n in range(200))
    out["many"] = b"\0" + begin + record(RAW_BYTES, 0, many) + update + own(RESET)
    types = b"".join(struct.pack("<HHIII", 1, RESET, 16, flags, 0) for flags in range(16))
    out["types"] = b"\0" + begin + record(RAW_BYTES, 0, types) + own(RESET)
    for size in (0, 15, 2**20 + 33, 2**32 - 1):
        out["size-%d" % size] = b"\0" + begin + record(RAW_BYTES, 0, struct.pack("<HHIII", 1, RESET, size, 0, 0)) + begin
    out["halves"] = b"\0" + begin + b"".join(record(RAW_BYTES, 0, struct.pack("<HHIIIQII", 1, READ, 32, 0, 0, 0, 0, 4)[at:at + 5])
                                             for at in range(0, 32, 5)) + own(RESET)
    return out


def irq_seeds():
    out = {}
    begin = hello()
    sets = [irqs(0, MSI), irqs(NONE, MSI), irqs(TRIGGER, MSI), irqs(NONE | BOOL | TRIGGER, MSI), irqs(NONE | TRIGGER | MASK, MSI),
            irqs(0x100 | NONE | TRIGGER, MSI), irqs(NONE | TRIGGER, 5), irqs(NONE | TRIGGER, MSI, 17), irqs(NONE | MASK, INTX), irqs(NONE | TRIGGER, MSI, 0, 17),
            irqs(NONE | TRIGGER, MSI, 2, 2**32 - 1), irqs(BOOL | TRIGGER, MSI, 0, 2, 0, b"\1"), irqs(BOOL | TRIGGER, MSI, 0, 2, 0, b"\1\0"),
            irqs(NONE | TRIGGER, MSI, 0, 1, EVENTFDS), irqs(NONE | MASK, MSI, 0, 1), irqs(EVENTFD | MASK, INTX, 0, 1, EVENTFDS),
            irqs(EVENTFD | TRIGGER, MSI), irqs(EVENTFD | TRIGGER, MSI, 0, 2, EVENTFDS), irqs(NONE | TRIGGER, MSI, 0, 0, 0, b"", 19),
            irqs(NONE | TRIGGER, MSI, 1), irqs(NONE | TRIGGER, MSI, 0, 2), irqs(BOOL | TRIGGER, MSI), irqs(EVENTFD | TRIGGER, ERROR, 0, 1, EVENTFDS),
            irqs(EVENTFD | TRIGGER, MSI, 0, 1, MEMORY), irqs(NONE | TRIGGER, MSI), irqs(BOOL | MASK, INTX)]
    out["irqs-odd"] = b"\0" + begin + eventfds(4) + b"".join(one + bus(MESSAGE, 0) for one in sets) + ring
    for kind in range(5):
        chosen = record(EVENTFD_KIND, kind)
        out["irqs-kind-%d" % kind] = b"\0" + begin + chosen + ring + eventfds(4) + ring + eventfds(4, MSI, 0, EVENTFD | TRIGGER) + \
            eventfds(1, INTX) + ring + irqs(NONE | UNMASK, INTX, 0, 1) + bus(LINE, 1) + irqs(NONE | UNMASK, INTX, 0, 1) + \
            irqs(NONE | MASK, INTX, 0, 1) + bus(LINE, 1) + irqs(BOOL | UNMASK, INTX, 0, 1, 0, b"\1") + irqs(NONE | TRIGGER, INTX, 0, 1) + \
            record(MSIX) + ring + eventfds(8, MSIX_INDEX) + ring + irqs(EVENTFD | TRIGGER, MSIX_INDEX, 2, 3) + ring + \
            irqs(NONE | TRIGGER, INTX) + irqs(NONE | TRIGGER, INTX, 0, 1) + ring + eventfds(1, INTX) + own(RESET) + irqs(NONE | TRIGGER, MSIX_INDEX) + ring
    return out


def seeds():
    return version_seeds() | twin_seeds() | memory_seeds() | command_seeds() | irq_seeds()
