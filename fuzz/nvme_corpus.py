# SPDX-License-Identifier: BSD-2-Clause
"""The seeds of the nvme fuzz target: drivers that get far, and what goes wrong for them.

The bytes are what nvme_fuzz.c reads.
"""
import struct

(WRITE, COMMAND, RUN, PROCESS, DOORBELL, POKE, LIST, CONSUME, ENABLE, RIGHTS, REVOKE, CONFIG, RESET,
 MOVE, FILE, READ) = range(16)

DATA = 32           # the first page that no queue has
LISTS = 16
ALL = 0xff          # every namespace
DELETE_SQ, CREATE_SQ, LOG, DELETE_CQ, CREATE_CQ, IDENTIFY, ABORT = 0, 1, 2, 4, 5, 6, 8
SET_FEATURES, GET_FEATURES, EVENT = 9, 10, 12
FLUSH, IO_WRITE, IO_READ, ZEROES, DSM = 0, 1, 2, 8, 9


def op(what, operand=0, more=b""):
    return bytes([what | operand << 4]) + more


def page(n, offset=0):
    if offset:
        return struct.pack("<HH", n | 0x4000, offset)
    return struct.pack("<H", n)


def address(value):
    return struct.pack("<HQ", 0x8000, value)


def command(queue, opcode, cid=1, nsid=1, prp1=page(DATA), prp2=page(DATA + 1), dw10=0, dw11=0,
            dw12=0, dw13=0, flags=0, ring=True):
    return op(COMMAND, queue | (0 if ring else 8),
              bytes([opcode, flags, cid, nsid]) + prp1 + prp2 +
              struct.pack("<IIIB", dw10 & 0xffffffff, dw11, dw12, dw13))


def register(offset, value, size=4):
    return op(WRITE, 0, struct.pack("<HBQ", offset, size - 1, value))


def doorbell(place, value):
    return op(DOORBELL, 0, struct.pack("<BH", place, value))


def create(queue, entries=16, cq=None, vector=None):
    return (command(0, CREATE_CQ, nsid=0, prp1=page(queue * 2 + 1),
                    dw10=entries - 1 << 16 | queue,
                    dw11=(queue if vector is None else vector) << 16 | 3) +
            command(0, CREATE_SQ, nsid=0, prp1=page(queue * 2), dw10=entries - 1 << 16 | queue,
                    dw11=(queue if cq is None else cq) << 16 | 1) + consume(0))


def delete(queue):
    return (command(0, DELETE_CQ, dw10=queue) + command(0, DELETE_SQ, dw10=queue) +
            command(0, DELETE_CQ, dw10=queue) + consume(0))


def consume(queue):
    return op(CONSUME, queue)


def settle():
    return (op(RUN, 15) + op(PROCESS)) * 2 + b"".join(consume(n) for n in range(5))


def entries(place, count, first, chained=False):
    return op(LIST, 0, struct.pack("<HBH", place // 8, count // 4 | (0x80 if chained else 0), first))


def rw(queue, opcode, cid, lba, blocks, prp1=page(DATA), prp2=page(DATA + 1), high=0, bits=0):
    return command(queue, opcode, cid, 1, prp1, prp2, lba, high, blocks - 1 | bits)


def admin():
    out = b""
    for cns in range(5):
        for nsid in (0, 1, 2, ALL):
            out += command(0, IDENTIFY, nsid=nsid, dw10=cns) + consume(0)
    for log in range(7):
        for dw12 in (0, 64, 2, 4096, 5000):
            out += command(0, LOG, nsid=ALL, dw10=127 << 16 | log, dw12=dw12) + consume(0)
        out += command(0, LOG, nsid=1, dw10=0x8000 | 127 << 16 | log) + consume(0)
    out += command(0, LOG, nsid=0, dw10=0xffff << 16 | 1, dw11=0xffff) + consume(0)
    out += command(0, IDENTIFY, dw10=1, prp1=page(DATA, 2)) + consume(0)
    out += command(0, IDENTIFY, dw10=1, prp1=page(DATA, 4), prp2=page(DATA, 4)) + consume(0)
    out += command(0, IDENTIFY, dw10=1, prp1=address(0)) + command(0, IDENTIFY, flags=0x40)
    return out + b"".join(command(0, opcode) + consume(0) for opcode in (3, 7, 13, 0x80, 0xff))


def features():
    out = b""
    for feature in range(13):
        for select in range(5):
            for nsid in (0, 1):
                out += command(0, GET_FEATURES, nsid=nsid, dw10=select << 8 | feature) + consume(0)
        for nsid in (0, 1, 2, ALL):
            for dw11 in (0, 2, 0x10003, 0xffff, 0x10012f, 0xffff0000):
                out += command(0, SET_FEATURES, nsid=nsid, dw10=feature, dw11=dw11) + consume(0)
        out += command(0, SET_FEATURES, nsid=0, dw10=1 << 31 | feature) + consume(0)
    return out


def queues():
    out = create(1) + create(2, 8, 1) + create(5) + create(0) + create(3, 1) + create(3, 2000)
    out += create(4, vector=9) + create(4, cq=0) + create(4, cq=3) + create(4, cq=9)
    out += command(0, CREATE_CQ, prp1=page(9, 8), dw10=15 << 16 | 4, dw11=4 << 16 | 1) + consume(0)
    out += command(0, CREATE_CQ, prp1=page(9), dw10=15 << 16 | 4, dw11=4 << 16 | 2) + consume(0)
    out += delete(1) + delete(2) + delete(1) + delete(0) + delete(7)
    return out + register(0x14, 5 << 20 | 7 << 16 | 1) + create(3)


def transfers():
    out = create(1) + create(2)
    for cid, (blocks, prp2) in enumerate(((1, page(0)), (8, page(0)), (16, page(DATA + 3)),
                                          (16, page(DATA, 8)), (17, page(LISTS)),
                                          (80, page(LISTS, 8)), (600, page(LISTS, 4088)),
                                          (600, page(LISTS, 4)), (2048, page(LISTS, 2048)),
                                          (2049, page(0)), (65536, page(0)))):
        start = entries(LISTS * 4096, 0x1fc, DATA, True) + entries(LISTS * 4096 + 2032, 0x1fc, DATA)
        start += entries(LISTS * 4096 + 4064, 0x1fc, DATA, True)
        for opcode in (IO_READ, IO_WRITE):
            for offset in (0, 4, 2048, 4092, 2):
                out += start + rw(1 + opcode % 2, opcode, cid, 3, blocks, page(DATA, offset), prp2)
            out += settle()
    return out


def refusals():
    out = create(1)
    for opcode in (FLUSH, IO_WRITE, IO_READ, 4, 5, ZEROES, DSM, 0xff):
        for nsid in (0, 1, 2, ALL):
            out += command(1, opcode, nsid=nsid) + settle()
        out += command(1, opcode, flags=0x40) + command(1, opcode, flags=1) + settle()
        out += rw(1, opcode, 3, 0xffffffff, 2, high=0xffffffff) + rw(1, opcode, 4, 2928, 8) + settle()
        out += rw(1, opcode, 5, 0, 1, bits=1 << 26) + rw(1, opcode, 6, 0, 1, bits=1 << 30) + settle()
        out += rw(1, opcode, 7, 0, 1, bits=1 << 25) + rw(1, opcode, 8, 0, 65536) + settle()
        out += rw(1, opcode, 9, 0, 1) + rw(1, opcode, 9, 0, 1) + settle()
    ranges = b"".join(op(POKE, 0, struct.pack("<H", DATA * 512 + at) + address(value))
                      for at, value in ((0, 8 << 32), (1, 8), (2, 0), (3, 0xffffffffffffffff)))
    return out + ranges + b"".join(
        command(1, DSM, dw10=count, dw11=dw11, prp1=where) + settle()
        for count in (0, 1, 255) for dw11 in (4, 0, 7) for where in (page(DATA), address(0)))


def trouble():
    busy = b"".join(rw(1, IO_READ + n % 2 * -1, n, n, 8, page(DATA + n)) for n in range(14))
    out = create(1) + busy + op(REVOKE, 0, struct.pack("<HB", DATA, 20)) + op(PROCESS) + settle()
    out += busy + op(RUN, 1) + op(REVOKE, 0, struct.pack("<HB", DATA, 20))
    out += op(RIGHTS, 3, struct.pack("<HB", DATA + 3, 4)) + settle()
    out += op(RIGHTS, 0, struct.pack("<HB", 0, 255)) + busy
    for cid in range(0, 16, 3):
        out += command(0, ABORT, dw10=cid << 16 | 1) + consume(0)
    out += command(0, ABORT, dw10=1 << 16 | 9) + settle() + busy + delete(1) + settle() + create(1)
    out += busy + op(FILE, 3) + settle() + op(FILE, 1) + op(FILE, 4, b"\0\x10\0") + busy + settle()
    out += op(FILE, 4, b"\0\0\x20") + busy + register(0x14, 0) + op(READ, 0, b"\x1c\3") + op(ENABLE)
    out += create(1) + busy + op(RESET) + op(CONFIG, 0, struct.pack("<BH", 4, 6)) + op(ENABLE)
    out += create(1) + busy + op(CONFIG, 0, struct.pack("<BH", 4, 2)) + settle() + op(ENABLE)
    out += op(CONFIG, 0, struct.pack("<BH", 4, 6)) + op(ENABLE) + create(1) + busy
    for rights, place in ((2, 3), (3, 2), (2, 1), (1, 0)):
        out += op(RIGHTS, rights, struct.pack("<HB", place, 0)) + busy + settle() + admin()[:40]
        out += op(RIGHTS, 0, struct.pack("<HB", 0, 255)) + op(ENABLE) + create(1)
    return out


def events():
    out = create(1) + command(0, EVENT, 1) * 6 + consume(0)
    out += doorbell(2, 99) + doorbell(3, 99) + doorbell(3, 5) + doorbell(9, 1) + doorbell(200, 1)
    out += doorbell(1, 99) + doorbell(0, 99) + op(PROCESS) + consume(0)
    for log in (1, 2, 4):
        out += command(0, LOG, nsid=ALL, dw10=15 << 16 | log) + consume(0)
    out += command(0, SET_FEATURES, nsid=0, dw10=11, dw11=0x11f) + consume(0)
    out += command(0, SET_FEATURES, nsid=0, dw10=4, dw11=300) + consume(0)
    out += op(FILE, 4, b"\0\0\x10") + op(PROCESS) + consume(0)
    out += command(0, ABORT, dw10=1 << 16) * 3 + consume(0)
    for log in (1, 2, 4):
        out += command(0, LOG, nsid=ALL, dw10=15 << 16 | log) + consume(0)
    return out + command(0, IDENTIFY, dw10=1) * 20 + consume(0)


def registers():
    out = b"".join(op(READ, 0, bytes([offset, 15])) for offset in range(0, 72, 4))
    out += b"".join(register(offset, value, size) for offset in range(0, 0x40, 2)
                    for value in (0, 1) for size in (1, 4, 8))
    out += b"".join(op(ENABLE, shift) for shift in range(8))
    for cc in (1 | 1 << 4, 1 | 1 << 11, 1 | 15 << 7, 1, 1 | 1 << 14, 1 | 2 << 14, 0, 1 << 14):
        out += register(0x14, cc) + op(PROCESS) + op(RUN) + op(PROCESS) + op(READ, 0, b"\x1c\3")
    out += op(ENABLE) + op(CONFIG, 0, struct.pack("<BH", 0x42, 0)) + command(0, 0xff)
    out += register(0x0c, 1) + register(0x10, 1) + create(1, vector=1) + create(1, vector=0)
    for aqa in (0, 0xf0000, 0xf):
        out += register(0x14, 0) + register(0x24, aqa) + register(0x14, 1)
    return out + register(0x2000, 1) + register(0x3ff8, 1, 8)


def moves():
    busy = b"".join(rw(1, IO_READ, n, n, 8, page(DATA + n)) for n in range(9))
    out = op(MOVE) + create(1) + command(0, EVENT) + busy + op(MOVE) + settle() + busy + settle()
    out += register(0x14, 4 << 20 | 6 << 16 | 1 << 14 | 1) + op(MOVE)
    for at in range(0, 2200, 7):
        out += op(MOVE, 1, struct.pack("<HB", at, 1 << at % 8))
        if at % 35 == 0:
            out += op(MOVE, 3, struct.pack("<HBB", at, 0, at % 251)) + busy + settle()
    return out


# Where things are in saved state, in bytes: nvme_save() in server/nvme/state.c.
STATE_REGISTERS = 256 + 2
STATE_QUEUES = STATE_REGISTERS + 32
STATE_QUEUE = 48
STATE_EVENTS = STATE_QUEUES + 5 * STATE_QUEUE + 44
STATE_BLOCKS = STATE_EVENTS + 4 + 8 + 3 * 5 + 1


def damage(at, bits):
    return op(MOVE, 1, struct.pack("<HB", at, bits)) + op(ENABLE) + create(1)


def damaged():
    out = create(1) + damage(256, 1) + damage(257, 1)
    for at, bits in ((4, 0x0e), (5, 7), (8, 1), (8, 0x20), (8, 2), (8, 4)):
        out += damage(STATE_REGISTERS + at, bits)
    for queue in (0, 1):
        first = STATE_QUEUES + queue * STATE_QUEUE
        for at in (0, 10, 12, 14, 18, 22, 23, 33, 35, 37, 41, 43, 44, 45, 46, 47):
            for bits in (1, 0x10, 0x80):
                out += damage(first + at, bits)
        for at in (9, 32):
            out += damage(first + at, 0x0e) + damage(first + at, 0x0f)
        out += damage(first + 21, 1) + damage(first + 21, 2)
    return out + damage(STATE_EVENTS, 0x40) + damage(STATE_BLOCKS + 7, 0x7f)


def many():
    # More commands than can be in flight; then two queues that are full when their turn comes.
    out = create(1, 64) + create(2, 64) + create(3, 64)
    for queue in (1, 2, 3):
        out += b"".join(command(queue, FLUSH, cid) for cid in range(60))
    out += (op(RUN, 15) + op(PROCESS)) * 20 + consume(1) + consume(2) + consume(3) + op(PROCESS)
    out += op(CONFIG, 0, struct.pack("<BH", 4, 2)) + doorbell(2, 50) + doorbell(4, 50)
    return out + op(CONFIG, 0, struct.pack("<BH", 4, 6)) + op(PROCESS) + settle() * 8


def aborted_requests():
    out = b"".join(command(0, EVENT, cid) for cid in range(4))
    out += b"".join(command(0, ABORT, dw10=cid << 16) for cid in (2, 0, 7, 2)) + consume(0)
    # A completion queue without room, and an event that finds none.
    out += command(0, 0xff) * 20 + doorbell(9, 1) + op(PROCESS) + consume(0) + op(PROCESS)
    return out + command(0, EVENT, 9) + command(0, 0xff) * 14 + command(0, ABORT, dw10=9 << 16)


def host_errors():
    """Commits that fail, memory that is gone behind its pins, a file that may not be so large."""
    busy = b"".join(rw(1, IO_READ if n % 2 else IO_WRITE, n, 3 * n, 8, page(DATA + n)) for n in range(14))
    out = create(1) + busy + settle() + op(FILE, 11) + busy + settle() + op(FILE, 9) + busy + settle()
    out += op(RIGHTS, 4, struct.pack("<HB", DATA, 20)) + busy + settle() + op(RIGHTS, 0, struct.pack("<HB", DATA, 20))
    return out + op(FILE, 10) + busy + settle() + op(FILE, 8) + busy + settle()


def uncollected():
    """Jobs that have ended and were not collected, when something comes to their commands."""
    busy = b"".join(rw(1, IO_READ, n, n, 8, page(DATA + n)) for n in range(14))
    master = [op(CONFIG, 0, struct.pack("<BH", 4, bits)) for bits in (2, 6)]
    aborts = b"".join(command(0, ABORT, dw10=cid << 16 | 1) for cid in range(7))
    out = create(1) + busy + op(RUN, 3) + master[0] + settle() + master[1] + op(ENABLE)
    out += create(1) + busy + op(RUN, 3) + aborts + settle()
    out += busy + op(RUN, 3) + command(0, DELETE_SQ, dw10=1) + settle() + create(1)
    out += busy + op(RUN, 3) + op(ENABLE) + create(1) + busy + aborts + command(0, DELETE_SQ, dw10=1) + settle()
    out += op(ENABLE) + create(1) + busy + op(RUN, 3) + register(0x14, 4 << 20 | 6 << 16 | 1 << 14 | 1) + aborts
    return out + command(0, DELETE_SQ, dw10=1) + settle()


def events_stopped():
    """An event for a controller that has stopped, with requests for it outstanding."""
    out = command(0, SET_FEATURES, nsid=0, dw10=11, dw11=0x11f) + command(0, EVENT, 1) * 2 + consume(0)
    out += op(RIGHTS, 2, struct.pack("<HB", 1, 0)) + command(0, IDENTIFY, dw10=1) + op(PROCESS)
    return out + op(FILE, 4, b"\0\0\x10") + op(PROCESS) + command(0, SET_FEATURES, nsid=0, dw10=4, dw11=1) + op(PROCESS)


def abort_without_room(count):
    return command(0, EVENT, 9) + consume(0) + command(0, 0xff) * count + command(0, ABORT, dw10=9 << 16) + consume(0)


def seeds():
    parts = {"admin": admin, "features": features, "queues": queues, "transfers": transfers,
             "refusals": refusals, "trouble": trouble, "events": events, "registers": registers,
             "moves": moves, "damaged": damaged, "many": many,
             "aborted-requests": aborted_requests}
    out = {}
    for name, make in parts.items():
        body = make()
        for mode in (0, 1, 6, 0x80):
            if mode == 0 or name in ("admin", "refusals", "registers"):
                out["%s-%d" % (name, mode)] = bytes([mode]) + body
    out["host-errors"] = b"\x08" + host_errors()
    out["uncollected"] = b"\0" + uncollected()
    out["events-stopped"] = b"\0" + events_stopped()
    for count in range(8, 16):
        out["abort-without-room-%d" % count] = b"\0" + abort_without_room(count)
    return out
