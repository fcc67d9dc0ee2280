#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Writes the hand-made seeds of the registers, queue, mirror, tables, range, IOVA space, sources, address
spaces, buses, saved instances, handovers, small devices, units of any
configuration, pinned windows, MPC, shadow map, save, trace, takeover, client_dma, virtio, virtio_ring, virtio_net, vhost, nvme,
pv, relay, serve, vfio_user and vfio_user_client fuzz targets into corpus/.

Each seed is a guest that gets far: translation on, mappings of every level, a queue with every
descriptor, errors and repairs; or a range map that grows high, or a shadow map with every form of a
block. The bytes are what bytes.h and the targets read. Run it after a change of those formats.
"""
import json
import os
import struct
import sys

sys.dont_write_bytecode = True  # leave no __pycache__ beside the sources
import bus_corpus  # noqa: E402
import devices_corpus  # noqa: E402
import far_corpus  # noqa: E402
import handover_corpus  # noqa: E402
import instance_corpus  # noqa: E402
import iova_corpus  # noqa: E402
import mirror_corpus  # noqa: E402
import net_corpus  # noqa: E402
import nvme_corpus  # noqa: E402
import pv_corpus  # noqa: E402
import relay_corpus  # noqa: E402
import serve_corpus  # noqa: E402
import takeover_corpus  # noqa: E402
import units_corpus  # noqa: E402
import vfio_user_corpus  # noqa: E402
import vhost_corpus  # noqa: E402
import window_corpus  # noqa: E402

here = os.path.dirname(os.path.abspath(__file__))

# Configuration bytes: defaults; 39 bits and small; caching mode; all features off; no queue; 57 bits and
# a hostile cache in caching mode; a faithful cache likewise; 57 bits and a faithful cache.
CONFIGS = [b"\x00\x08", b"\x03\x01", b"\x0c\x04", b"\x78\x80", b"\x00\x10",
           b"\x08\x68", b"\x48\x48", b"\x40\x68"]


def write(target, name, data):
    folder = os.path.join(here, "corpus", target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as file:
        file.write(data)


# Operands that the bench reads.

def address(base, page=0, offset=0):
    """One of the bases of any_address()."""
    return bytes([base | page << 4]) + struct.pack("<H", offset)


def address_raw(value):
    return b"\x08" + struct.pack("<Q", value)


def dma(kind, where, length, device=0, at=0, alias=0):
    return bytes([kind | device << 3 | at << 5 | alias << 7]) + where + struct.pack("<H", length)


READ, WRITE, WRITE4, TRANSLATE, ATS, ATS_NO_WRITE = 0, 2, 3, 4, 6, 7


def every_dma(op):
    out = b""
    for base in range(8):
        for kind in (READ, WRITE, WRITE4, TRANSLATE, ATS, ATS_NO_WRITE):
            for at in (0, 2):
                out += op + dma(kind, address(base, base & 3, 0), 4 if kind else 9, base % 3, at)
    return out


# Embedder operations: low bits the kind, high bits the argument.
def embedder(kind, argument=0):
    return bytes([kind | argument << 3])


PROCESS, CLOCK, SECTION, ANSWER, COMPLETE, DEVICE, RESET = 0, 2, 3, 4, 5, 6, 7


# Windows are among the arguments of RESET.
def pin(number, *ranges, perm=1, fence=True, policy=0):
    """policy: 1 releases when asked, 2 when fenced, 4 cannot be stopped. It chooses the device,
    too: of two ranges 1 and 4 are of the first."""
    kind = perm | fence << 2 | policy << 3 | (len(ranges) - 1) << 6
    out = embedder(RESET, 24 | number) + bytes([kind])
    for where, length in ranges:
        out += where + struct.pack("<H", length - 1)
    return out


def unpin(number):
    return embedder(RESET, 16 | number)


# Registers

REG = {name: i for i, name in enumerate(
    "GCMD GCMD2 GSTS RTADDR RTADDRH CCMD CCMDH FSTS FECTL FEDATA FEADDR FEUADDR IQH IQHH IQT IQTH "
    "IQA IQAH ICSBEFORE ICS IECTL IEDATA IEADDR IEUADDR IQERCD IQERCDH VER CAP".split())}


def reg_write(name, size, value):
    return bytes([0, REG[name], size - 1]) + value.to_bytes(size, "little")


def reg_at(kind, size, value):
    return bytes([0, kind, size - 1]) + value.to_bytes(size, "little")


def reg_store(gpa, value):
    return bytes([4 | 7 << 5]) + struct.pack("<HQ", gpa // 8, value)


def reg_embedder(kind, argument=0):
    return b"\x06" + embedder(kind, argument)


def reg_dma(*args, **kw):
    return b"\x05" + dma(*args, **kw)


TE, SRTP, QIE = 1 << 31, 1 << 30, 1 << 26


def reg_tables(levels=4):
    """Root 1000h, context 2000h, tables from 3000h; address 0 and 200000h mapped."""
    out = reg_store(0x1000, 0x2001)
    out += reg_store(0x2000 + 8 * 16 + 8, levels - 2 | 1 << 8) + reg_store(0x2000 + 8 * 16, 0x3005)
    for level in range(levels, 1, -1):
        page = 0x3000 + (levels - level) * 0x1000
        out += reg_store(page, page + 0x1000 | 3)
    out += reg_store(0x3000 + (levels - 1) * 0x1000, 0x8003)
    out += reg_store(0x3000 + (levels - 2) * 0x1000 + 8, 0x83)
    return out


def registers_seeds():
    on = (reg_write("RTADDR", 8, 0x1000) + reg_write("GCMD", 4, SRTP) + reg_embedder(PROCESS, 8) +
          reg_write("GCMD", 4, TE) + reg_embedder(PROCESS, 8))
    messages = (reg_write("FEDATA", 4, 0x31) + reg_write("FEADDR", 8, 0xfee00000) +
                reg_write("FECTL", 4, 0) + reg_write("IEDATA", 4, 0x32) +
                reg_write("IEADDR", 8, 0xfee00000) + reg_write("IECTL", 4, 0))
    flush = b""
    for granularity in range(4):
        flush += reg_write("CCMD", 8, 1 << 63 | granularity << 61 | 8 << 16 | 1 | granularity << 32)
        flush += reg_embedder(PROCESS, 4)
        flush += reg_at(32, 8, granularity * 20)
        flush += reg_at(32 | 8, 8, 1 << 63 | granularity << 60 | 1 << 32)
        flush += reg_embedder(PROCESS, 4)
    clear = reg_write("FSTS", 4, 0x71)
    for record in range(4):
        clear += reg_at(64 + 16 * record + 12, 4, 1 << 31)
    queue = (reg_store(0x4000, 0x31 | 0x10) + reg_store(0x4010, 1 << 32 | 0x75) +
             reg_store(0x4018, 0x7000) + reg_store(0x4020, 0x0) +
             reg_write("IQA", 8, 0x4000) + reg_write("IQT", 8, 0x30) +
             reg_write("GCMD", 4, QIE | TE) + reg_embedder(PROCESS, 16) +
             reg_store(0x4020, 5) + reg_write("FSTS", 4, 0x10) + reg_embedder(PROCESS, 16) +
             reg_write("ICS", 4, 1) + reg_write("GCMD", 4, TE) + reg_embedder(PROCESS, 16))
    odd = b""
    for name in ("GCMD", "CCMD", "FSTS", "IQT", "IQA", "ICS", "IECTL"):
        for size in (1, 2, 3, 5, 7):
            odd += reg_write(name, size, (1 << 8 * size) - 1)
    reads = b"".join(bytes([3, i, 7]) for i in range(28)) + bytes([3, 33, 7, 3, 70, 3])
    reads += bytes([3, 192]) + struct.pack("<Q", 2**64 - 3) + bytes([7])
    for i, config in enumerate(CONFIGS):
        levels = 3 if config[0] & 1 else 5 if config[1] & 32 else 4
        start = config + reg_tables(levels) + messages + on
        write("registers", f"life-{i}", start + every_dma(b"\x05") + clear + flush)
        write("registers", f"queue-{i}", start + queue + clear + every_dma(b"\x05"))
        write("registers", f"odd-{i}", config + odd + reads + b"\x07")
    section = (CONFIGS[0] + reg_tables() + on + reg_embedder(SECTION, 1) + flush +
               reg_write("GCMD", 4, 0) + reg_embedder(PROCESS, 8) + reg_embedder(SECTION, 0) +
               reg_embedder(PROCESS, 8) + reg_embedder(RESET, 31))
    write("registers", "section", section)


# Queue

def put(descriptor, kick=True):
    return bytes([0 | (8 if kick else 0)]) + descriptor


def q_context(granularity, domain, mask=0):
    return bytes([0 | granularity << 3 | mask << 6, domain])


def q_iotlb(granularity, page, mask, hint=0, domain=1):
    return bytes([1 | granularity << 3 | domain << 5 | hint << 7]) + struct.pack("<IB", page, mask)


def q_device(page, order, requester=0):
    return bytes([2 | requester << 3]) + struct.pack("<IB", page, order)


def q_device_raw(high, requester=0):
    return bytes([3 | requester << 3]) + struct.pack("<Q", high)


def q_interrupt(indexed):
    return bytes([4 | indexed << 3]) + struct.pack("<H", 7)


def q_wait(flags, value=1):
    """flags: 1 interrupt, 2 status, 4 fence."""
    return bytes([5 | flags << 3, value])


def q_raw(lo, hi=0):
    return b"\x07" + struct.pack("<QQ", lo, hi)


def q_register(kind, argument=0, more=b""):
    return bytes([3, kind | argument << 3]) + more


def q_embedder(kind, argument=0):
    return b"\x05" + embedder(kind, argument)


def queue_seeds():
    good = b""
    for granularity in (1, 2, 3):
        good += put(q_context(granularity, 1, granularity))
        good += put(q_iotlb(granularity, 0x200, granularity * 9, granularity & 1))
    good += put(q_device(0x200, 0)) + put(q_device(0x200, 9)) + put(q_device(0, 51))
    good += put(q_device_raw(0x7ffffffffffff001)) + put(q_device_raw(2**64 - 4096 + 1))
    good += put(q_device(1, 0, 3)) + put(q_device(1, 0, 1))
    good += put(q_interrupt(0)) + put(q_interrupt(1))
    good += b"".join(put(q_wait(flags, flags)) for flags in range(8))
    unmask = q_register(5)
    answers = b""
    for answer in (2, 3, 2, 2):
        answers += (q_embedder(ANSWER, answer) + put(q_device(1, 0), False) +
                    put(q_wait(6, 9)) + q_embedder(PROCESS, 20) + q_embedder(COMPLETE, answer & 1) +
                    q_embedder(PROCESS, 20) + q_embedder(DEVICE, 0) + q_register(0))
    late = (q_embedder(ANSWER, 2) + put(q_device(1, 3), False) + put(q_device(8, 0, 2), False) +
            put(q_wait(2)) + q_embedder(PROCESS, 31) + q_embedder(CLOCK, 20) +
            q_embedder(PROCESS, 31) + q_register(0) + q_embedder(PROCESS, 31) + b"\x07")
    gone = (q_embedder(ANSWER, 2) + put(q_device(1, 0)) + put(q_wait(2)) + q_embedder(PROCESS, 31) +
            q_embedder(DEVICE, 3) + q_embedder(PROCESS, 31) + q_embedder(COMPLETE, 0))
    bad = [0, 6, 15, 0x205, 1, 2, 1 | 1 << 6, 2 | 0x110, 0x1002, 4 | 1 << 5, 5 | 1 << 8, 3 | 1 << 4,
           2 | 3 << 4, 5, 4, 0x11, 0x12, 3]
    highs = {0x32: 63, 5: 3, 4: 1, 0x11: 1, 0x12: 1 << 8, 3: 2}
    errors = b"".join(put(q_raw(lo, highs.get(lo, 0)), False) + put(q_wait(3)) +
                      q_embedder(PROCESS, 8) + q_register(1, 0, b"\x00\x00\x00") +
                      q_register(2, 0) + q_embedder(PROCESS, 4) + q_register(0) +
                      q_register(2, 1) for lo in bad)
    shapes = (q_register(1, 0, b"\xf0\xff\x07") + q_embedder(PROCESS, 8) + q_register(0) +
              q_register(3, 7) + q_register(1, 0, b"\x00\x20\x00") + b"\x07" +
              q_register(4, 0, struct.pack("<Q", 1 << 45)) + q_register(2, 0) + b"\x07" +
              q_register(2, 1) + q_register(1, 0, b"\x20\x00\x00") + b"\x07" + q_register(0) +
              q_register(4, 0, struct.pack("<Q", 0x2800)) + b"\x07" + q_register(6, 1) + b"\x07")
    held = (q_embedder(SECTION, 1) + good + q_embedder(PROCESS, 31) + q_embedder(SECTION, 0) +
            q_embedder(PROCESS, 31))
    off = (q_embedder(SECTION, 1) + good + q_register(2, 0) + q_embedder(PROCESS, 31) +
           q_embedder(SECTION, 0) + b"\x07")
    windows = b""
    for policy in range(8):
        windows += (b"\x05" + pin(0, (address(0, 3), 4096), policy=policy) +
                    b"\x05" + pin(policy, (address(0, 4), 9), (address(0, 9), 8193), perm=3,
                                  fence=policy & 1, policy=policy) +
                    put(q_iotlb(1, 0, 0)) + put(q_wait(2, policy)) + q_embedder(PROCESS, 20) +
                    (q_embedder(CLOCK, 11) if policy & 2 else b"\x05" + unpin(0)) +
                    q_embedder(PROCESS, 20) + put(q_context(3, 0, 1)) + q_embedder(PROCESS, 20) +
                    b"\x05" + unpin(policy) + q_embedder(DEVICE, policy))
    windows += (b"\x05" + pin(1, (address(0), 4)) + b"\x05" + pin(2, (address(0), 4)) + good +
                q_embedder(RESET, 31) + q_register(7, 1) + q_embedder(PROCESS, 20) + b"\x07")
    for i, config in enumerate(CONFIGS):
        write("queue", f"good-{i}", config + unmask + good + b"\x07" + every_dma(b"\x04")[:400])
        write("queue", f"errors-{i}", config + unmask + errors)
    for name, body in (("answers", answers), ("late", late), ("gone", gone), ("shapes", shapes),
                       ("held", held), ("off", off), ("windows", windows),
                       ("reset", good + q_embedder(RESET, 31) + good)):
        write("queue", name, CONFIGS[0] + unmask + body)


# Tables

def t_store(gpa, entry):
    return b"\x00" + struct.pack("<H", gpa // 8) + b"\xf0" + struct.pack("<Q", entry)


def t_dma(*args, **kw):
    return b"\x08" + dma(*args, **kw)


def t_context(type_, levels, slot=0, domain=1, table=0):
    return bytes([2, slot | type_ << 2 | (levels > 3) << 4 | table << 5, domain])


def t_tables(levels, leaf, extra=0, table=0x3000):
    out = b""
    page = table
    for level in range(levels, leaf, -1):
        out += t_store(page, page + 0x1000 | 3)
        page += 0x1000
    return out + t_store(page, (0x8003 if leaf == 1 else 0x83) | extra)


def tables_seeds():
    invalidations = b""
    for granularity in range(4):
        invalidations += bytes([4, 1 | granularity << 1])
        invalidations += bytes([4, granularity << 1]) + b"\x00\x00\x00\x00\x00"
    clear = b"\x07"
    for i, config in enumerate(CONFIGS):
        for levels in (3, 5) if config[1] & 32 else (3, 4):
            for leaf in (1, 2, 3):
                body = t_context(1, levels) + t_context(0, levels, 1) + t_tables(levels, leaf)
                write("tables", f"map-{i}-{levels}-{leaf}",
                      config + body + every_dma(b"\x08") + clear + invalidations +
                      every_dma(b"\x08")[:300])
    ask = t_dma(READ, address(0), 8) + t_dma(ATS, address(0), 4096) + clear
    reserved = b""
    for bit in list(range(2, 12)) + [12, 20, 29, 36, 51, 52, 62, 63]:
        for leaf in (1, 2, 3):
            reserved += t_tables(4, leaf, 1 << bit) + ask
    write("tables", "reserved", CONFIGS[1][1:2] + b"\x00" + t_context(1, 4) + reserved)
    contexts = b""
    for type_ in range(4):
        contexts += (t_context(type_, 4) + ask + t_dma(READ, address(0), 8, at=2) +
                     t_dma(READ, address_raw(1 << 60), 8) + clear)
    lo_bits = [1, 4, 11, 50, 63]
    for bit in lo_bits:
        contexts += t_store(0x2000 + 8 * 16, 0x3001 | 1 << bit) + ask
    for bit in (2, 7, 24, 63):
        contexts += (t_store(0x2000 + 8 * 16, 0x3001) +
                     t_store(0x2000 + 8 * 16 + 8, 0x102 ^ 1 << bit) + ask)
    roots = b""
    for entry in (0, 0x2003, 0x2001 | 1 << 51, 0x70000001, 1 << 40 | 1):
        roots += t_store(0x1000, entry) + ask
    roots += t_store(0x1000, 0x2001) + t_store(0x1008, 1) + ask
    modes = b""
    for mode in range(4):
        modes += bytes([5, 1 | mode << 4]) + ask
    modes += bytes([5, 3]) + struct.pack("<Q", 1 << 50) + ask
    modes += bytes([5, 4]) + ask + bytes([5, 1]) + ask
    windows = t_context(1, 4)
    for leaf in (1, 2, 3):
        windows += t_tables(4, leaf)
        for base in (0, 1, 2):
            for perm in (1, 2, 3):
                windows += b"\x06" + pin(perm, (address(base, 0, 8), 4000), (address(base), 1),
                                         perm=perm, policy=4 if base else 1)
            windows += (invalidations + b"\x06" + embedder(PROCESS, 9) + clear +
                        b"\x06" + unpin(base) + b"\x06" + embedder(CLOCK, base * 8))
    write("tables", "windows", CONFIGS[0] + windows)
    write("tables", "contexts", CONFIGS[0] + t_tables(4, 1) + contexts)
    write("tables", "roots", CONFIGS[0] + t_context(1, 4) + roots + modes)
    loop = t_context(1, 4) + t_store(0x3000, 0x3003) + ask + t_store(0x3000, 0x70000003) + ask
    loop += t_store(0x3000, 0x4001) + t_store(0x4000, 0x5002) + ask
    write("tables", "loops", CONFIGS[0] + loop)
    # Pages that lead into the interrupt range, or reach into it.
    messages = t_context(1, 4) + t_tables(4, 1)
    for entry in (0xfee00003, 0xfedff003, 0xfef00003):
        messages += t_store(0x6000, entry) + b"\x05\x00" + ask
    messages += t_tables(4, 2)
    for entry in (0xfee00083, 0xfec00083, 0x83):
        messages += t_store(0x5000, entry) + b"\x05\x00" + ask
        messages += t_dma(READ, address(0, 15), 8) + t_dma(ATS, address(0, 15), 4096)
        messages += t_dma(ATS, address_raw(0x100000), 4096) + clear
    messages += t_store(0x4000 + 3 * 8, 0xc0000083)
    for where in (0xfed00000, 0xfef00000, 0xc0000000):
        messages += t_dma(READ, address_raw(where), 8) + t_dma(ATS, address_raw(where), 4096)
        messages += t_dma(TRANSLATE, address_raw(where), 1)
    write("tables", "messages", CONFIGS[0] + messages)
    # Caches that keep all until it is invalidated: more than there is room for, and what is not kept.
    write("tables", "messages-kept", b"\x40\x48" + messages)
    many = b"".join(t_dma(READ, address(base, page), 4) for base in range(5) for page in range(16))
    write("tables", "kept-full", CONFIGS[6] + t_context(1, 4) + t_tables(4, 1) + many)


# Range

ERASE, CUT, SPLIT, MERGE, FIND, GAP, RESERVED, ADD, SUBTRACT, POW2, FAIL, INSERT = range(12)


def anywhere(value):
    return b"\xff" + struct.pack("<Q", value)


def r_run(first, length, tag=0, nowhere=0):
    """Of 1 to 16 addresses, which lead to themselves."""
    return bytes([INSERT, 3 | nowhere << 2 | tag << 3 | (length - 1) << 4 & 0xf0]) + anywhere(first)


def i_operation(kind, owner=0, first=0, length=0, a=0, b=0, c=0, d=0, fail=0):
    return bytes([fail, kind, owner, first, length, a, b, c, d])


def iova_seeds():
    """Every kind of claim over every other, in each kind of space; windows that are pushed about."""
    claims = [i_operation(0, 0, 8, 3, kind) for kind in range(6)] + \
             [i_operation(3, 1, 8, 3), i_operation(4, 2, 8, 3), i_operation(7, 1, 8, 8)]
    # A space of its own, which is asked for what is wrong: what lacks something; odd, turned and small ranges.
    for told in (0, 0x40):
        wrong = b"".join(i_operation(first, last, first_2, last_2, kind, align, size, odd, fail=0x80 | told | fail)
                         for first, last, first_2, last_2 in ((2, 4, 2, 4), (2, 4, 8, 12), (4, 2, 3, 5), (0, 0, 8, 4), (1, 9, 2, 4))
                         for kind in (0, 2, 5, 6, 0x14, 0x1c, 0x32, 0x3c) for align, size, odd in ((0, 8, 8), (16, 0, 9), (3, 8, 0))
                         for fail in (0, told >> 4 and 3))
        for number in range(0, len(wrong), 720):
            write("iova", "wrong-%02x-%d" % (told, number // 720), b"\0" + wrong[number:number + 720])
        write("iova", "lacking-%02x" % told, b"\0" + i_operation(2, 4, 8, 12, 0, 0, 0, 0xff, fail=0x80 | told))
    for space in range(6):
        for number, one in enumerate(claims):
            write("iova", "meet-%d-%d" % (space, number), bytes([space]) + one + b"".join(claims))
        windows = b"".join(i_operation(2, 0, 16 + 4 * i, 0, 3, 8, 8) for i in range(3))
        push = b"".join(i_operation(kind, 1, 16, 20) for kind in (3, 4, 0))
        bells = b"".join(i_operation(8, 0, i, bell, 1) for i in range(3) for bell in range(5))
        gone = b"".join(i_operation(8, 0, i, bell, 3) for i in range(3) for bell in range(5))
        places = b"".join(i_operation(6, 2, 0, n, n, 0, 63) for n in range(9))
        drops = b"".join(i_operation(9, 0, i, 0, kind) for i in range(3) for kind in (0, 1, 2, 3))
        write("iova", "windows-%d" % space,
              bytes([space]) + windows + push + bells + push + gone + places + drops)
        write("iova", "fail-%d" % space,
              bytes([space]) + b"".join(i_operation(kind, 0, 4 * n, 2, 4, 1, 9, fail=n)
                                        for kind in range(9) for n in range(1, 5)))


SP_CREATE, SP_ARRANGE, SP_COMMIT, SP_ACCESS, SP_REGISTERS, SP_LIVE, SP_COMPARE = range(7)


def sp_create(slot, kind, last, target=None, offset=0, fail=0):
    out = bytes([SP_CREATE | fail << 3, slot | kind << 4]) + struct.pack("<H", last)
    return out if target is None else out + bytes([target]) + struct.pack("<H", offset)


def sp_add(slot, where, at, fail=0):
    return bytes([SP_ARRANGE | fail << 3, slot, where]) + struct.pack("<H", at)


def sp_register(mpc, offset, value, size=2, read=0):
    return bytes([SP_REGISTERS, size | mpc << 2 | read << 3, offset]) + struct.pack("<L", value)


def sp_compare(address, index):
    return bytes([SP_COMPARE]) + struct.pack("<H", address) + bytes([index | 2 << 1])


def space_seeds():
    """Memory behind both controllers; overlaps of every kind; containers that contain themselves."""
    commit = bytes([SP_COMMIT])
    ram = sp_create(0, 1, 0x2fff) + sp_add(0, 2, 0x8000) + sp_create(1, 3, 0xfff) + sp_add(1, 0, 0x3000)
    # Seen through the second controller: space 0 -> space 1 -> space 2.
    ram += sp_create(2, 1, 0x2fff) + sp_add(2, 1, 0) + commit
    both = b"".join(sp_compare(0x8000 + page * 0x400 + odd, index)
                    for page in range(12) for odd in (0, 0x3fe) for index in (0, 1))
    table = b"".join(sp_register(mpc, 0x1c, value) + sp_register(mpc, 0x18, index)
                     for mpc in (0, 1) for index in (0, 1) for value in (0xffffffff, 5, 0x80000001))
    every = b"".join(sp_register(mpc, offset, 0xffffffff, size, read) for mpc in (0, 1)
                     for offset in range(0, 0x40, 4) for size in range(4) for read in (0, 1))
    accesses = b"".join(bytes([SP_ACCESS, kind]) + struct.pack("<HB", at, length)
                        for kind in range(0, 64, 3) for at in (0x8000, 0xbff8, 0x2ff9, 0xefff)
                        for length in (1, 8, 31))
    layers = b"".join(sp_create(3 + i, kind, 0x700 * (i + 1), 0x80 | i if kind == 4 else None, 0x300)
                      + sp_add(3 + i, i % 3 | (i % 4) << 2, 0x500 * i) + commit
                      for i, kind in enumerate((0, 1, 2, 3, 4, 4, 1, 0, 2)))
    box = sp_create(8, 0, 0xffff) + sp_create(9, 0, 0xffff)
    loop = box + sp_add(8, 0x89, 0) + sp_add(9, 0x88, 0) + sp_create(10, 4, 0xffff, 8) + \
        sp_add(10, 0, 0) + commit
    double = b"".join(sp_create(i, 0, 0xfff) + sp_create(i + 1, 4, 0xfff, i) +
                      sp_create(i + 2, 4, 0xfff, i) + sp_add(i + 1, 0x80 | i + 3, 0) +
                      sp_add(i + 2, 0x80 | i + 3, 0) for i in (0, 3, 6, 9))
    lives = b"".join(bytes([SP_LIVE, kind, 0, 0x80]) for kind in range(0, 256, 5))
    # Blocked accesses with the interrupt on; and attributes that say nothing.
    blocked = b"".join(sp_register(mpc, 0x28, 1) + sp_register(mpc, 0x00, bits) + sp_register(mpc, 0x24, 1) +
                       bytes([SP_ACCESS, 8 | mpc << 2]) + struct.pack("<HB", 0x8000, 4) +
                       sp_register(mpc, 0x20, 0, 2, 1) + sp_register(mpc, 0x24, 1) +
                       bytes([SP_ACCESS, 0xf0 | mpc << 2]) + struct.pack("<HB", 0x8000, 4) +
                       bytes([SP_REGISTERS, 0xf0 | 2 | mpc << 2, 0x28]) + struct.pack("<L", 0) +
                       bytes([SP_ACCESS, 8 | mpc << 2]) + struct.pack("<HB", 0x8800, 4)
                       for mpc in (0, 1) for bits in (0, 0x10, 0x50, 0x100, 0x140, 0x80000110))
    write("space", "blocked", b"\0" + ram + blocked + blocked)
    for kind in (0x00, 0x05, 0x3a, 0x7f, 0x42):
        head = bytes([kind]) + ram
        write("space", "table-%02x" % kind, head + both + table + both)
        write("space", "registers-%02x" % kind, head + every[:1400] + both)
        write("space", "accesses-%02x" % kind, head + accesses[:1600])
        write("space", "layers-%02x" % kind, head + layers + both + lives)
        write("space", "loop-%02x" % kind, head + loop + both)
        write("space", "double-%02x" % kind, head + double + commit + lives + both)
    # Pages 0 to 11 of the device lead to those of space 2, change, and go.
    maps = b"".join(bytes([SP_LIVE, 0x16]) + struct.pack("<H", page | perm << 12 | (page & 3) << 8)
                    for page in range(12) for perm in (3 - page % 2,))
    gone = b"".join(bytes([SP_LIVE, 0x06]) + struct.pack("<H", page | 1 << 4)
                    for page in range(0, 12, 3))
    write("space", "device", b"\0" + ram + table + maps + both + gone + both + maps + both +
          bytes([SP_LIVE, 0x85]) + commit + both + bytes([SP_LIVE, 0x05, 0, 0x10]))
    write("space", "device-dma", b"\0" + ram + table + maps +
          b"".join(bytes([SP_LIVE, kind]) + struct.pack("<H", page * 0x1000 + 0xff8)
                   for kind in (0x05, 0x45) for page in range(12)))
    # Two aliases of memory that continue each other are one range.
    write("space", "one-of-two", b"\0" + ram + sp_create(5, 4, 0xfff, 0, 0) + sp_add(5, 0, 0x4000) +
          sp_create(6, 4, 0xfff, 0, 0x1000) + sp_add(6, 0, 0x5000) + commit +
          b"".join(sp_compare(at, 0) for at in (0x4000, 0x4ffc, 0x5000, 0x5ffc)))
    for fail in range(1, 8):
        write("space", "fail-%d" % fail, b"\0" + ram + sp_create(5, 1, 0x1000, fail=fail) +
              sp_create(5, 4, 0x1000, 0, fail=fail) + sp_add(5, 0, 0x100, fail) +
              bytes([SP_COMMIT | fail << 3]) + commit + both)


def range_seeds():
    top = 2**64 - 1
    order = list(range(0, 1200, 4))
    mixed = sorted(order, key=lambda i: i * 7919 % 1201)
    for name, firsts in (("up", order), ("down", order[::-1]), ("mixed", mixed)):
        grow = b"".join(r_run(i, 2, i & 8 != 0) for i in firsts)
        gaps = b"".join(bytes([GAP, k]) + anywhere(k * 9) + anywhere(top - k) for k in range(0, 128, 5))
        look = b"".join(bytes([FIND]) + anywhere(i) for i in range(0, 1200, 31))
        holes = b"".join(bytes([CUT]) + anywhere(i * 16) + anywhere(i * 16 + 5) for i in mixed[:60])
        gone = b"".join(bytes([ERASE]) + anywhere(i) for i in mixed)
        write("range", "grow-" + name, grow + gaps + look + holes + gaps + gone + gaps)
    whole = bytes([INSERT, 0]) + anywhere(0) + anywhere(top) + anywhere(0)
    cuts = b"".join(bytes([SPLIT]) + anywhere(2**i) for i in range(64))
    merges = b"".join(bytes([MERGE]) + anywhere(2**i) for i in range(0, 64, 2))
    write("range", "whole", whole + cuts + merges + bytes([CUT]) + anywhere(5) + anywhere(top - 5))
    fail = b"".join(bytes([FAIL | n << 6]) + r_run(i, 1) for i, n in zip(mixed, [0, 1, 2, 3] * 99))
    write("range", "fail", fail + b"".join(bytes([RESERVED, 40]) + bytes(range(k, k + 40))
                                           for k in range(0, 80, 20)))
    sets = b""
    for i in mixed[:100]:
        sets += bytes([ADD]) + anywhere(i) + anywhere(i + i % 13)
        sets += bytes([SUBTRACT]) + anywhere(i + 3) + anywhere(i + 3 + i % 5)
    write("range", "sets", sets + bytes([ADD, 0, 0x9f, SUBTRACT, 1, 0x9e]))
    split = b""
    for first, last, to in ((0, top, 0), (1, top - 1, 1), (0x201000, 0x3fffff, 0x11000),
                            (0, top - 4096, 4096), (2**63, top, 0), (5, 5, 6)):
        split += bytes([POW2]) + anywhere(first) + anywhere(last) + anywhere(to)
    write("range", "split", split)


# Shadow map

LOOK, REGION, BREAK, RESERVE, FAIL_MAP, CHANGE = range(6)
LINEAR, SCATTERED, REVERSED, BAD, CLEAR, CUT_EACH, JOIN = range(7)


def m_block(region, block, from_end=False):
    return bytes([region | from_end << 2 | block << 3])


def m_shape(shape, at=0, count=512, to=0, perm=3):
    return bytes([shape | (perm - 1) << 3]) + struct.pack("<HHB", at, count - 1, to)


def m_change(where, *shapes):
    return bytes([CHANGE | len(shapes) - 1 << 6]) + where + b"".join(shapes)


def m_region(region, perm, gib=5):
    return bytes([REGION | perm << 6, region]) + struct.pack("<I", gib)[:3]


def shadow_map_seeds():
    forms = [m_shape(CLEAR), m_shape(LINEAR, 0, 512, 3), m_shape(LINEAR, 7, 100, 70, 1),
             m_shape(SCATTERED, 30, 127), m_shape(SCATTERED, 30, 129), m_shape(REVERSED, 0, 512, 1),
             m_shape(BAD, 5, 2), m_shape(BAD)]
    borders = [(0, False), (1, False), (31, False), (0, True), (1, True), (31, True)]
    looks = b"".join(bytes([LOOK, region | last << 2, 255, 0]) + b"\xff" * 9
                     for region in range(4) for last in (0, 1))
    for levels in range(4):
        changes = b""
        for i, (block, last) in enumerate(borders):
            where = m_block(i & 3, block, last)
            for k, form in enumerate(forms):
                changes += m_change(where, m_shape(CLEAR), form) + m_change(where, forms[k * 3 % 8])
        write("shadow_map", f"forms-{levels}", bytes([levels]) + changes + looks)
        runs = b"".join(m_region(i & 3, perm, i) + looks + bytes([BREAK, i + 1 & 3]) +
                        m_change(m_block(i & 3, i, i & 1), forms[i])
                        for i, perm in enumerate((3, 1, 0, 2, 3, 3, 0, 0)))
        write("shadow_map", f"runs-{levels}", bytes([levels]) + runs)
    cuts = m_change(m_block(0, 0), m_shape(LINEAR), m_shape(CUT_EACH, 9, 40))
    cuts += m_change(m_block(0, 0), m_shape(CUT_EACH)) + m_change(m_block(0, 0), m_shape(JOIN))
    cuts += m_change(m_block(1, 0), m_shape(LINEAR, 0, 9, 66), m_shape(LINEAR, 2, 1), m_shape(JOIN))
    write("shadow_map", "cuts", b"\x02" + cuts + looks)
    fail = b""
    for n in range(6):
        for i, form in enumerate(forms):
            fail += bytes([FAIL_MAP | n << 3]) + m_change(m_block(i & 3, n), form)
        fail += bytes([FAIL_MAP | n << 3, RESERVE, n]) + m_block(n & 3, 20 + n) + bytes([n, n])
        fail += m_region(3, 3) + bytes([FAIL_MAP]) + bytes([BREAK, 3, BREAK, 3]) + m_region(3, 0)
    write("shadow_map", "fail", b"\x03" + fail + looks)


# ---- trace

def trace_seeds():
    """Traces as `viommu run --trace` writes them, without capabilities: they need not be compared."""
    switches = {"caching-mode": False, "super-pages": True, "pass-through": True, "queue": True,
                "snoop-control": True, "device-tlb": True}
    unit = {"width": 0, "host-width": 0, "domain-bits": 0, "fault-records": 0, **switches}
    header = {"format": "viommu-trace", "version": 1, "library": "0.1.0", "unit": unit}
    made = {}

    def trace(name, lines, first=header, end=""):
        numbered = [{"index": i, "time": i, **line} for i, line in enumerate(lines, 1)]
        text = "".join(json.dumps(line) + "\n" for line in [first] + numbered)
        made[name] = (text + end).encode()
        write("trace", name, made[name])

    def hexes(kind, **members):
        return {"kind": kind, **{k: v if k in ("size", "slot", "reason", "error") else hex(v)
                                 for k, v in members.items()}}

    def store(offset, value, size=4):
        return hexes("write", offset=offset, size=size, value=value)

    def command(bit):
        return [hexes("command", offset=0x18, value=bit), hexes("completed", offset=0x18, value=bit)]

    def queued(*descriptors, first=0):
        """The tail moves, all is begun and retires."""
        each = [{"slot": first + i, "low": low, "high": high} for i, (low, high) in enumerate(descriptors)]
        return ([store(0x88, (first + len(each)) << 4, 8)] + [hexes("descriptor", **d) for d in each] +
                [hexes("retired", **d, error=0) for d in each])

    root = [store(0x20, 0x5000, 8), store(0x18, 1 << 30)] + command(1 << 30)
    queue = [store(0x90, 0x2000, 8), store(0x18, 1 << 26)] + command(1 << 26)
    on = [store(0x18, 1 << 31 | 1 << 26)] + command(1 << 31)
    every = queued((0x11, 0), (0x1_0031, 0), (0x12, 0), (0x1_0032, 0x40003), (0x8_0000_0003, 0x1000), (0x4, 0),
                   (0x7_0000_0025, 0x9000))
    bad = [store(0x88, 8 << 4, 8), hexes("refused", slot=7, low=0xf, high=9, reason=3), store(0x34, 1 << 4),
           hexes("descriptor", slot=7, low=0x4, high=0), hexes("retired", slot=7, low=0x4, high=0, error=0)]
    message = [store(0xa4, 0x41), store(0xa8, 0xfee00000), store(0xa0, 0), store(0x88, 0x90, 8),
               hexes("descriptor", slot=8, low=0x15, high=0),
               hexes("message", offset=0xa0, address=0xfee00000, value=0x41),
               hexes("retired", slot=8, low=0x15, high=0, error=0)]
    iotlb = 1 << 63 | 1 << 60
    registers = [store(0xf8, iotlb, 8), hexes("command", offset=0xf8, value=iotlb, low=0x12, high=0),
                 hexes("completed", offset=0xf8, value=1 << 60 | 1 << 57)]
    ends = {"kind": "end", "registers": {name: "0x0" for name in (
        "GSTS", "RTADDR", "CCMD", "FSTS", "FECTL", "FEDATA", "FEADDR", "FEUADDR", "IQH", "IQT", "IQA", "ICS",
        "IECTL", "IEDATA", "IEADDR", "IEUADDR", "IQERCD", "IOTLB")}}
    trace("all", root + queue + on + every + bad + message + [{"kind": "reset"}] + root)
    trace("registers", root + registers)
    trace("end", [{"kind": "miss"}, {"kind": "fault"}, {"kind": "event"}, ends])
    trace("middle", root, {**header, "registers": ends["registers"]})
    trace("torn", queue + every[:5], end='{"index":')
    trace("differs", queue + [hexes("descriptor", slot=3, low=1, high=1)])
    trace("configured", root, {**header, "cap": "0x0", "ecap": "0x0",
                               "unit": {**unit, "width": 39, "host-width": 36, "domain-bits": 4, "queue": False,
                                        "device-tlb": False, "fault-records": 256}})
    trace("far", [store(0x90, 0xfffffffff007, 8), store(0x18, 1 << 26)] + command(1 << 26) +
          [store(0x88, 0x7fff0), hexes("refused", slot=0, low=0, high=0, reason=2)])

    # With capabilities: right ones, and others. A unit like that of `viommu run`.
    four = {**unit, "fault-records": 4, "device-tlb": False}
    for name, cap, ecap in (("same", 0xd2038c406f0606, 0xfc3), ("other-ecap", 0xd2038c406f0606, 0xfc7)):
        trace("cap-" + name, root, {**header, "cap": hex(cap), "ecap": hex(ecap), "unit": four})
    wait = (0x7_0000_0025, 0x9000)
    trace("end-waited", queue + queued(wait) + [ends])
    trace("end-more", root[:2] + queue + queued(wait) + [ends])
    trace("end-more-queued", queue + [store(0x88, 0x20, 8)] + queued(wait)[1:2] + [ends])
    trace("end-twice", [ends, ends])
    trace("failed", queue + queued(wait)[:-1] + [hexes("retired", slot=0, low=wait[0], high=wait[1], error=-5)])
    trace("queue-far", [store(0x90, 0xfffffffff000, 8), store(0x18, 1 << 26)] + command(1 << 26) + queued(wait),
          {**header, "unit": {**unit, "host-width": 36}})
    twice = queued(*[wait] * 40)[1:]
    trace("many", queue + [store(0x88, 0x280, 8)] + twice + [store(0x88, 0x780, 8)] +
          queued(*[wait] * 80, first=40)[1:])

    # Of a virtio-iommu.
    state = {name: "0x0" for name in ("features", "domains", "endpoints", "mappings", "bypass")}
    small = {name: 0 for name in ("domain-first", "domain-last", "host-width", "probe-size", "domains-max",
                                  "endpoints-max", "mappings-max", "faults-max")}
    unit = {"bypass": True, **{name: "0x0" for name in ("features", "page-sizes", "input-first", "input-last")},
            **small}
    header = {**header, "model": "virtio", "unit": unit, "state": {**state, "bypass": "0x1"}}

    def request(number, status, parts, room=4, written=4):
        bytes_ = b"".join(value.to_bytes(size, "little") for value, size in parts)
        return [{"kind": "request", "number": number, "size": len(bytes_), "room": room,
                 "bytes": bytes_[:36].hex()},
                {"kind": "answered", "number": number, "status": status, "written": written}]

    begin = [{"kind": "accepted", "value": "0x77"}, {"kind": "requester", "requester": "00:03.0", "present": True},
             {"kind": "closed", "requester": "00:03.0", "number": 0, "first": "0x8000", "last": "0x8fff"}]
    attach = request(1, "ok", [(1, 4), (1, 4), (0x18, 4), (0, 4), (0, 4)])
    some = attach + request(2, "ok", [(3, 4), (1, 4), (0x1000, 8), (0x1fff, 8), (0x5000, 8), (3, 4)])
    some += request(3, "inval", [(3, 4), (1, 4), (0x8000, 8), (0x8fff, 8), (0x5000, 8), (3, 4)])
    some += request(4, "ok", [(4, 4), (1, 4), (0, 8), (0xffff, 8), (0, 4)])
    some += request(5, "ok", [(5, 4), (0x18, 4), (0, 64)], 516, 516) + request(6, "none", [(9, 4)], 4, 0)
    gone = [{"kind": "requester", "requester": "00:03.0", "present": False}]
    gone += request(7, "noent", [(2, 4), (1, 4), (0x18, 4), (0, 8)])
    restart = [store(36, 0, 1), {"kind": "restart", "number": 8},
               {"kind": "answered", "number": 8, "status": "ok", "written": 0}, {"kind": "reset"}]
    finish = [{"kind": "end", "state": {**state, "bypass": "0x1"}}]
    trace("virtio", begin + some + gone + restart + finish, header)
    trace("virtio-late", begin + attach[:1] + some[2:] + attach[1:] + [{"kind": "event"}], header)
    silent = [request(number, "none", [(9, 4)], 4, 0) for number in range(1, 71)]
    trace("virtio-many", begin + [lines[0] for lines in silent] + [lines[1] for lines in silent], header)
    trace("virtio-differs", begin + request(1, "range", [(1, 4)]), header)
    for name, of_reader, of_replay in (("end-waited", range(1, 9), range(1, 64)), ("virtio-late", (), range(1, 80)), ("many", range(1, 9), range(30, 70, 5))):
        for bit, numbers in ((0x8000, of_reader), (0, of_replay)):
            for number in numbers:
                write("trace", "fails-%s-%d" % (name, number | bit), b"\0" + struct.pack("<H", number | bit) + made[name])
    trace("virtio-configured", [{"kind": "accepted", "value": "0xc"}] + begin[1:] + some,
          {**header, "state": state, "unit": {**unit, "features": "0x0c", "bypass": False, "mappings-max": 2,
                                              "domains-max": 1, "faults-max": 9, "probe-size": 64}})
    for i, line in enumerate((
            {"kind": "requester", "requester": "00:03.8", "present": True},
            {"kind": "requester", "requester": "00:20.0", "present": True},
            {"kind": "requester", "requester": "00:3.0", "present": True},
            {"kind": "requester", "requester": "00:03.0x", "present": True},
            {"kind": "requester", "requester": "bus", "present": True}, {"kind": "requester", "present": True},
            {"kind": "requester", "requester": "00:03.0"}, {"kind": "accepted", "value": "77"},
            {"kind": "accepted", "value": "0x"}, {"kind": "accepted", "value": "0x10000000000000000"},
            {"kind": "accepted", "value": "0x1g"}, {"kind": "answered", "number": 1, "status": "bad", "written": 4},
            {"kind": "answered", "number": 1, "written": 4}, {"kind": "answered", "number": -1, "status": "ok"},
            {"kind": "request", "number": 1, "size": 4, "room": 4, "bytes": "000"},
            {"kind": "request", "number": 1, "size": 4, "room": 4, "bytes": "0g"},
            {"kind": "request", "number": 1, "size": 4, "room": 4, "bytes": "g0"},
            {"kind": "request", "number": 1, "size": 99, "room": 4, "bytes": "00" * 200},
            {"kind": "request", "number": 1, "size": 4, "room": 4}, {"kind": "unknown"}, {"number": 1},
            {"kind": "reset", "index": 0}, {"kind": "request", "number": 1, "size": 0, "room": 1 << 40, "bytes": ""},
            {"kind": "closed", "requester": "00:03.0", "number": 1, "first": "0x8000", "last": "0x8fff"},
            {"kind": "closed", "requester": "00:03.0", "number": 0, "first": "0x9", "last": "0x8"})):
        trace(f"virtio-line-{i}", begin + [line], header)
    for i, text in enumerate(("", "x\n", "[]\n", '{"format": "x"}\n', '{"format": "viommu-trace"}\n',
                              '{"format": "viommu-trace", "version": 2}\n')):
        write("trace", f"first-{i}", text.encode())
    trace("virtio-overlap", begin + begin[2:] + [dict(begin[2], number=1)], header)
    trace("virtio-mapped", begin + some[:4] + [{"kind": "closed", "requester": "00:03.0", "number": 0,
                                                "first": "0x1000", "last": "0x1fff"}], header)
    for name in ("bypass", "features", "faults-max"):
        trace("virtio-without-" + name, begin, {**header, "unit": {k: v for k, v in unit.items() if k != name}})
    trace("virtio-middle", some, {**header, "state": {**state, "domains": "0x1"}})


# Saved states

S_RAW, S_FRAMED, S_CHANGED = 0, 1, 2
S_BODY = 32 + 24 + 8 + 24  # of the model's section; see models/vtd/save.c
S_REGISTERS = S_BODY + 19


def s_register(offset, value):
    return bytes([offset // 4 << 3] if offset < 0x80 else [(offset - 0x80) // 4 << 3 | 1]) + \
        struct.pack("<I", value)


def s_put(low, high=0):
    return b"\x03" + struct.pack("<QH", low, high)


def s_embedder(kind, argument=0):
    return b"\x06" + embedder(kind, argument)


def s_number(at, value, from_end=False):
    return bytes([1 << 1 | from_end]) + struct.pack("<HQ", at, value)


def s_short(at, value, from_end=False):
    return bytes([2 << 1 | from_end]) + struct.pack("<HI", at, value)


def s_byte(at, value, from_end=False):
    return bytes([4 << 1 | from_end]) + struct.pack("<HB", at, value)


def s_changes(*changes):
    return bytes([len(changes) - 1]) + b"".join(changes)


def save_seeds():
    queue_on = s_register(0x18, TE | QIE) + s_embedder(PROCESS, 16)
    pending = (s_embedder(ANSWER, 2) + s_put(0x21) + s_put(1 << 32 | 0x25, 0x9000) +
               s_put(8 << 32 | 3, 0x1000) + s_put(0x15))
    after = s_embedder(PROCESS, 31) + s_embedder(COMPLETE, 0) + s_embedder(PROCESS, 31) + \
        s_register(0x34, 0x71) + every_dma(b"\x05")[:600] + s_put(0x15) + s_embedder(PROCESS, 31)
    same = s_changes(s_byte(8, 1))
    for i, config in enumerate(CONFIGS):
        for name, before in (("idle", b""), ("queue", queue_on), ("pending", queue_on + pending),
                             ("new", s_register(0x18, TE | QIE) + s_put(0x21)),
                             ("off", queue_on + pending + s_register(0x18, 0)),
                             ("faults", every_dma(b"\x05")[:31 * 7])):
            steps = {"idle": 0, "queue": 2, "pending": 7, "new": 2, "off": 8, "faults": 31}[name]
            start = config + bytes([S_CHANGED | steps << 3]) + before
            write("save", f"{name}-{i}", start + same + after)
    start = CONFIGS[2] + bytes([S_CHANGED])
    registers = [s_number(S_REGISTERS + 8 * i, (1 << 64) - 1) for i in range(20)]
    tails = [s_short(at, value, True) for at in (40, 60, 66, 91) for value in (0, 0x1000, 1 << 31)]
    for i in range(20):
        write("save", f"register-{i}", start + s_changes(registers[i]) + after)
    for i, tail in enumerate(tails):
        write("save", f"mirror-{i}", start + s_changes(tail) + after)
    # Translation on behind GSTS, a command under way, descriptors that were fetched.
    model = {"gsts": S_REGISTERS + 8, "fsts": S_REGISTERS + 32}
    for status in (0, TE, QIE, TE | SRTP | QIE):
        for at in range(0, 48, 4):
            changes = (s_number(model["gsts"], status),
                       s_short(S_REGISTERS + 160 + 16 * 3 + 8 + at, status))
            write("save", f"command-{status >> 26}-{at}", start + s_changes(*changes) + after)
    write("save", "raw", CONFIGS[2] + bytes([S_RAW]) + b"vIOMMU\r\n" + b"\1\0\0\0" * 8)
    section = struct.pack("<IIHHIQ", 1, 0, 1, 0, 0, 8) + struct.pack("<II", 1, 3)
    optional = struct.pack("<IIHHIQ", 99, 0, 1, 1, 0, 3) + b"abc"
    write("save", "framed", CONFIGS[2] + bytes([S_FRAMED, 2]) + section + optional)
    write("save", "empty", CONFIGS[2] + bytes([S_FRAMED, 0]))


# ---- client_dma

def client_dma_seeds():
    def record(what, how, access, data=b""):
        return struct.pack("<BBHH", what, how, access, len(data)) + data

    def change(*changes):
        return b"".join(struct.pack("<HB", at, bits) for at, bits in changes)

    def reply(number, command, flags=1, address=0x7ffff000, count=4, error=0, data=b"\xda" * 4):
        return struct.pack("<HHIIIQQ", number, command, 32 + len(data), flags, error, address, count) + data

    for most in range(4):
        write("client_dma", "good-%d" % most, bytes([most]) + b"".join(
            record(what, how, access) for what in (0, 1) for how in (1, 3, 7) for access in (0, 1, 4096, 9000)))
    # In the header: id, command, size, flags, error; in the payload: address, count, data.
    for at in (0, 2, 4, 5, 7, 8, 9, 12, 16, 24, 28, 32):
        for bits in (1, 0x20, 0xff):
            write("client_dma", "wrong-%d-%d" % (at, bits), b"\0" + b"".join(
                record(what, 1, 64, change((at, bits))) + record(what, 1, 64) for what in (0, 1)))
    write("client_dma", "late-error", b"\2" + record(0, 1, 300, change((2 * 132 + 8, 0x20))) + record(1, 1, 4))
    write("client_dma", "refusals", b"\0" + b"".join(
        record(0, 0, 4, reply(n, 11, 0x21, error=14, data=b"")) for n in range(3)) + record(0, 0, 4, reply(3, 11)))
    write("client_dma", "posts", b"\0" + record(2, 0, 4) * 30 + record(0, 1, 4) + record(3, 0, 0))
    write("client_dma", "silence", b"\0" + record(0, 0, 4) + record(1, 1, 4))
    write("client_dma", "half", b"\0" + record(0, 0, 4, reply(0, 11)[:20]) + record(1, 1, 4))
    # How it is answered: GOOD, PIECES, OVER, UNREAD; and what comes when it is waited for.
    good, pieces, over, unread = 1, 2, 8, 16
    rest, signal, failure, leaves, reads, early = (1 << 5, 2 << 5, 3 << 5, 4 << 5, 5 << 5, 6 << 5)
    small, post, nothing, leave, close = b"\x08", record(2, unread, 4), record(3, 0, 0), record(4, 0, 0), record(5, 0, 0)
    for name, how in (("rest", good | pieces | rest), ("signal", signal), ("failure", failure), ("leaves", leaves),
                      ("reads", good | reads), ("early", early), ("over", over), ("over-good", over | good)):
        for first in (b"\0", small):
            write("client_dma", "waited-%s-%d" % (name, first[0]), first + b"".join(
                record(what, how, access) for what in (0, 1) for access in (64, 60000)) + nothing + post)
            write("client_dma", "waited-write-%s-%d" % (name, first[0]), first + record(1, how, 60000) + nothing + post)
    write("client_dma", "posts-full", small + post * 40 + record(1, good | reads, 64) + post * 40 + leave + nothing + post +
          nothing)
    write("client_dma", "posts-full-read", small + post * 40 + record(0, good, 64) + nothing)
    write("client_dma", "left", b"\0" + leave + post + nothing + record(0, good, 4))
    write("client_dma", "left-write", b"\0" + record(1, good, 4) + leave + record(1, good, 4) + nothing)
    write("client_dma", "closed", b"\0" + record(0, good, 4) + close + b"".join(record(what, good, 4) for what in range(6)))
    for first in (4, 16):
        write("client_dma", "none-%d" % first, bytes([first]) + b"".join(record(what, good, 4) for what in range(6)))
    write("client_dma", "unasked", b"\0" + record(3, 4, 0, reply(0, 11)) + record(0, 0, 4) + record(1, 1, 4))


# ---- takeover

def takeover_seeds():
    def message(what, data=b"", fds=0, version=2):
        return struct.pack("<B8sIIQII", 0, b"viommuHO", version, what, len(data), fds, 0) + data

    write("takeover", "hello", message(1))
    write("takeover", "refusal", message(3, b"no room"))
    write("takeover", "state", message(2, b"12345678", 1) + b"+")
    write("takeover", "newer", message(2, b"", version=3))
    for kind, name in ((1, "endpoint"), (2, "edu"), (3, "unit")):
        write("takeover", name, bytes([kind]))
        write("takeover", name + "-cut", bytes([kind, 9]))
        write("takeover", name + "-changed", bytes([kind, 40, 0, 1, 60, 0, 2]))
        write("takeover", name + "-raw", bytes([kind | 0x80]) + bytes(300))
    for name, content in takeover_corpus.seeds().items():
        write("takeover", name, content)


# ---- virtio

V_SEND, V_DMA, V_MOVE, V_EMBEDDER = 0, 3, 5, 6


def v_attach(domain, endpoint, bypass=0):
    return bytes([V_SEND, domain << 3 | endpoint << 5 | bypass << 7])


def v_detach(domain, endpoint):
    return bytes([V_SEND, 1 | domain << 3 | endpoint << 5])


def v_map(domain, page, more, target, flags=3):
    return bytes([V_SEND, 2 | domain << 3 | flags << 5, page, more, target])


def v_unmap(domain, page, more):
    return bytes([V_SEND, 4 | domain << 3, page, more])


def v_dma(device, page, write=0):
    return bytes([V_DMA, device | write << 6, page])


def v_embedder(what, high=0):
    return bytes([V_EMBEDDER, what | high << 4])


def virtio_seeds():
    process = v_embedder(14, 15)
    many = b"".join(v_map(1, page, 0, page & 15) for page in range(0, 64))
    life = (v_attach(1, 0) + v_map(1, 1, 2, 3) + v_dma(0, 1) + v_dma(0, 2, 1) + v_dma(1, 1) +
            v_attach(1, 1) + v_unmap(1, 1, 1) + v_unmap(1, 1, 2) + v_dma(0, 1) + v_detach(1, 0) +
            bytes([V_SEND, 6, 68, V_SEND, 6 | 7 << 5, 68, V_SEND, 6, 3]) + process)
    held = (v_attach(1, 0) + v_map(1, 1, 2, 3) + v_dma(0, 1) + v_embedder(4, 1) + v_embedder(0) +
            v_unmap(1, 1, 2) + v_map(1, 1, 0, 4) + v_attach(2, 0) + v_attach(1, 1) + v_embedder(6) +
            process + v_embedder(1) + process + v_embedder(2) + process + v_embedder(2, 1) + process)
    bypass = b"".join(bytes([V_EMBEDDER, 5 | 16, on]) + bytes(7) + v_dma(2, 5) for on in (1, 0, 1, 2))
    bypass += v_attach(3, 2, 1) + v_map(3, 1, 1, 1) + v_unmap(3, 1, 1) + v_dma(2, 5) + v_embedder(7, 1)
    moves = v_attach(1, 0) + many[:60] + held[:18] + bytes([V_MOVE, 1, 0])
    # The same with mirrors, and some that fail, or answer late.
    late = (v_attach(1, 0) + v_attach(1, 1) + process + v_embedder(4, 1) + v_map(1, 1, 2, 3) +
            process + v_map(1, 9, 1, 4) + v_unmap(1, 1, 2) + v_embedder(2) + process +
            v_embedder(2, 1) + process + v_embedder(6) + process + v_embedder(2) + process)
    fails = (v_attach(1, 0) + v_attach(1, 1) + process + v_map(1, 1, 2, 3) + process +
             v_embedder(4, 2) + v_map(1, 9, 1, 4) + process + v_embedder(4) + v_map(1, 9, 1, 4) +
             v_attach(2, 0, 1) + process + v_embedder(4, 9) + v_unmap(1, 1, 2) + process)
    for kind in range(64, 96):
        head = bytes([kind])
        write("virtio", f"mirror-{kind}", head + life + process + bypass + bytes([V_MOVE, 1, 0]))
        if kind % 8 == 5:
            write("virtio", f"mirror-hostile-{kind}", bytes([kind + 32]) + fails + late + life)
        write("virtio", f"mirror-late-{kind}", head + late + bytes([V_MOVE, 0]) + life)
        write("virtio", f"mirror-fails-{kind}", head + fails + bytes([V_MOVE, 1, 0]) + life)
    for kind in list(range(32)) + [33, 37, 49]:
        head = bytes([kind])
        write("virtio", f"life-{kind}", head + life + bypass)
        write("virtio", f"held-{kind}", head + held + v_embedder(8, 1) + life)
    for i in range(48):
        change = bytes([V_MOVE, 1, 1]) + struct.pack("<HB", i * 7, 1 << i % 8)
        write("virtio", f"state-{i}", bytes([i % 32]) + moves + change + life)
        mirrors = bytes([64 + i % 32]) + moves[:84] + process + bytes([V_MOVE, 1, 1])
        write("virtio", f"mirror-state-{i}",
              mirrors + struct.pack("<HB", i * 11, 1 << i % 8) + life)
    write("virtio", "many", b"\1" + v_attach(1, 0) + many + many + v_unmap(1, 0, 0x3f))
    raw = b"".join(bytes([V_SEND, 7 | size << 3, kind]) + bytes(max(0, size - 1))
                   for kind in range(8) for size in (0, 3, 4, 19, 20, 28, 31))
    write("virtio", "raw", b"\1" + raw)
    devices = b"".join(v_embedder(10, i) + v_attach(1, i & 3) + v_embedder(9, i) for i in range(16))
    write("virtio", "devices", b"\1" + devices + life)
    window = bytes([V_EMBEDDER, 13, 0, 1])
    for i in range(6):
        gone = v_embedder(12, i) if i & 1 else v_embedder(10, i << 1)
        write("virtio", f"gone-{i}", bytes([i * 5]) + v_attach(1, 0) + v_map(1, 1, 2, 3) + window +
              v_embedder(0) + gone + v_unmap(1, 1, 2) + v_attach(1, 0) + process + v_embedder(1) +
              process + window + process + bytes([V_MOVE, 1, 0]) + life)


def v_far(value):
    """An address of any_address() that is no small page."""
    return b"\xe1" + struct.pack("<Q", value)


def virtio_more_seeds():
    """Narrow limits, cut states, each host's error, allocations that fail."""
    process = v_embedder(14, 15)

    def raw(*fields):
        data = b"".join(value.to_bytes(size, "little") for value, size in fields)
        size = 31 if len(data) > 30 else len(data)
        return bytes([V_SEND, 7 | size << 3]) + data.ljust(40 if size == 31 else size, b"\0")

    def attach(domain=1, endpoint=8, flags=0, reserved=0):
        return raw((1, 4), (domain, 4), (endpoint, 4), (flags, 4), (reserved, 4))

    def mapped(first, last, target, flags=3, domain=1):
        return raw((3, 4), (domain, 4), (first, 8), (last, 8), (target, 8), (flags, 4))

    def unmapped(first, last, reserved=0, domain=1):
        return raw((4, 4), (domain, 4), (first, 8), (last, 8), (reserved, 4))

    top = 2**64 - 1
    odd = (attach(0) + attach(3) + attach(1, 0x10008) + attach(reserved=1) + attach(flags=2) + attach() +
           mapped(0x1000, 0x1fff, 0, 8) + mapped(0, 0xfff, 0) + mapped(0x1000, 0x2000, 0) + mapped(0x3000, 0x1fff, 0) +
           mapped(1 << 40, (1 << 40) + 0xfff, 0) + mapped(0x1000, 0x1fff, 1 << 56) +
           mapped(0x1000, 0x2fff, 0xfffff000) + mapped(0x1000, 0x2fff, top - 0xfff) + mapped(0xfee00000, 0xfee00fff, 0) +
           mapped(0x1000, 0x1fff, 0x1000) + unmapped(0x1000, 0x1fff, 1) + unmapped(0x2000, 0x1fff) +
           unmapped(0, top) + raw((2, 4), (1, 4), (0x10008, 4), (0, 8)) + raw((5, 4), (0x10008, 4)))
    life = (v_attach(1, 0) + v_attach(1, 1) + process + v_map(1, 0x34, 2, 3) + v_map(1, 0x22, 0, 3) + process +
            v_dma(0, 0x34) + v_dma(2, 5) + v_unmap(1, 0x34, 2) + process + v_map(1, 0x34, 1, 0))
    many = b"".join(v_map(1, page, 0, page & 15) for page in range(62))
    full = (v_attach(1, 0) + many + b"".join(bytes([V_SEND, 2 | 1 << 3 | 3 << 5]) + v_far(at) + b"\0\0"
                                             for at in (0x100000, 0x300000, 0x200000, 0x400000, 0x100000)))
    for kind in (0, 1, 2, 4, 128, 129, 133, 144, 145):
        for mirrored in (0, 64):
            write("virtio", f"narrow-{kind | mirrored}", bytes([kind | mirrored]) + odd + life + odd +
                  bytes([V_MOVE, 1, 0]) + life + v_embedder(12, 4) + life)
    write("virtio", "full", b"\1" + full)
    write("virtio", "spaceless-mirror", bytes([64 + 144]) + v_attach(1, 0) + process + v_map(1, 0x22, 0, 3) +
          process + v_attach(1, 1) + process)
    for i in range(4):  # the window moves, or cannot
        window = v_embedder(14, 3)
        write("virtio", f"window-{i}", bytes([1 | i << 6]) + v_attach(1, 0) + v_map(1, 0x10, 1, 1) + process + window +
              v_map(1, 0x11, 0x3f, 1) + process + v_embedder(14, 0) + window + window + v_embedder(14, 2))
    faults = v_dma(0, 9) + v_dma(1, 9, 1) + v_embedder(0)
    busy = (v_attach(1, 0) + v_map(1, 1, 2, 3) + v_attach(2, 1) + v_map(2, 1, 0, 3) + v_dma(0, 1) + faults +
            v_unmap(1, 1, 2) + v_map(1, 4, 0, 3))
    for gone in list(range(1, 60, 3)) + [70, 80, 90, 100, 120, 140, 160, 200, 240]:
        write("virtio", f"cut-{gone}", b"\1" + busy + bytes([V_MOVE, 1, 4, 7]) + struct.pack("<H", gone))
    for error in (2, 8, 9, 11, 12, 14):
        write("virtio", f"error-{error}", bytes([64]) + v_attach(1, 0) + process + v_embedder(4, error) +
              v_map(1, 1, 0, 3) + process + process + v_attach(2, 0) + process + v_embedder(4, 0) + life)
    for fail in range(5):  # the n-th allocation of each request, each turn, each load
        def failing(operation, n=fail):
            return bytes([operation[0] | 128 | n << 3]) + operation[1:]

        for kind in (1, 65):
            requests = (v_attach(1, 0), process, v_map(1, 1, 0, 3), process, v_attach(1, 1), process,
                        v_unmap(1, 1, 0), process, v_attach(2, 0), process, v_detach(1, 1), process, v_embedder(6))
            write("virtio", f"fail-{kind}-{fail}", bytes([kind]) + b"".join(
                failing(step) + step for step in requests) + life)
            write("virtio", f"fail-load-{kind}-{fail}", bytes([kind]) + busy + v_embedder(1) + process +
                  b"".join(bytes([V_MOVE | 128 | n << 3, 1, 0]) for n in range(3 * fail, 3 * fail + 3)) + life)


# Saved MPCs; see models/tzmpc/tzmpc.c

def tzmpc_state_seeds():
    def registers(size=70 * 4096, bits=12, ctrl=0x100, index=0, stat=0, enable=1, info=(0, 0)):
        return struct.pack("<QIIIBBII", size, bits, ctrl, index, stat, enable, *info)

    def state(name, size=70 * 4096, bits=12, ctrl=0x100, index=0, stat=0, enable=1, info=(0, 0),
              table=(0, 0, 0), flags=0, more=()):
        first = registers(size, bits, ctrl, index, stat, enable, info)
        words = struct.pack("<%dI" % len(table), *table)
        write("tzmpc_state", name, bytes([flags]) +
              iova_corpus.stream((1, first), (2, words), *more, application=4))

    state("reset")
    state("used", ctrl=0x80000110, index=2, stat=1, info=(0x10001000, 0x30002), table=(1, 0xffffffff, 0x3f))
    state("gated", ctrl=0x40, stat=1, enable=0, table=(5, 0, 1))
    state("small", size=40 * 32, bits=5, flags=2, table=(7, 0xff))
    state("sizes", size=40 * 32, bits=5, table=(7, 0xff))
    state("index", index=3)
    state("info", info=(1, 0))
    state("behind", table=(0, 0, 0x40))
    state("long", table=(0, 0, 0, 0))
    state("unknown", more=((9, b"x"),))
    state("twice", more=((2, b"\0" * 12),))
    state("raw", flags=1)
    # What no software can bring about; another of the same size; in another order, and too few.
    state("ctrl", ctrl=0x200)
    state("stat", stat=2)
    state("enable", enable=255)
    state("info-2", stat=1, info=(0, 1 << 31))
    state("info-without", info=(0, 1))
    state("blocks", bits=11)
    state("short", table=(0, 0))
    state("first-bits", size=40 * 32, bits=5, flags=2, table=(7, 0x100))
    for name, sections in (("none", ()), ("table-first", ((2, bytes(12)),)), ("other-first", ((9, b"x"),)),
                           ("registers-only", ((1, registers()),)),
                           ("registers-twice", ((1, registers()), (1, registers()))),
                           ("other-second", ((1, registers()), (7, b""))),
                           ("registers-short", ((1, b"\0" * 12),))):
        write("tzmpc_state", name, b"\0" + iova_corpus.stream(*sections, application=4))


# ---- virtio_ring

(VR_WRITE, VR_READ, VR_CONFIG, VR_BEGIN, VR_POKE, VR_DESCRIBE, VR_OFFER, VR_REQUEST, VR_BUFFER, VR_PROCESS,
 VR_DMA, VR_PIN, VR_RELEASE, VR_MEMORY, VR_RESET, VR_MOVE) = range(16)


def vr(what, operand=0, *more):
    return bytes([what | operand << 4, *more])


def vr_write(offset, size, value):
    return vr(VR_WRITE) + struct.pack("<HB", offset, size - 1) + value.to_bytes(size, "little")


def vr_request(kind, slot=0, choice=0, page=7):
    """kind: 1 attach, 2 detach, 3 map, 4 unmap, 5 probe."""
    return vr(VR_REQUEST, kind, slot, choice, page)


def vr_describe(at, offset, length, flags, following, table=0):
    """table: 0 and 2 those of the queues, 1 the indirect one; 4 more: a long length; 8: nowhere."""
    return (vr(VR_DESCRIBE, table, at) + struct.pack("<H", offset) +
            length.to_bytes(4 if table & 4 else 1, "little") + bytes([flags, following]))


def virtio_ring_seeds():
    process = vr(VR_PROCESS)
    write_there, read_there = vr(VR_DMA, 0, 32 | 7), vr(VR_DMA, 0, 7)
    mapped = vr_request(1) + vr_request(3, 1) + write_there
    life = (mapped + vr_request(5, 0x42) + vr_request(4, 3) + read_there + process + vr(VR_BUFFER, 0, 0xff) +
            process + vr_request(2, 0x84) + process)
    pending = (mapped + vr(VR_PIN, 0, 7) + vr_request(4, 2) + process + vr_request(4, 0x83, 8) + process)
    hostile = (vr_describe(0, 0x8000, 4, 1, 0) + vr(VR_OFFER, 0, 0) +       # a loop
               vr_describe(1, 0x8000, 4, 3, 2) + vr_describe(2, 0x8000, 4, 0, 0) + vr(VR_OFFER, 0, 1) +
               vr_describe(3, 0x6000, 32, 4, 0) + vr_describe(0, 0x6000, 16, 4, 0, 1) + vr(VR_OFFER, 0, 3) +
               vr_describe(4, 0x8000, 0xffffffff, 1, 5, 4) + vr_describe(5, 1, 4, 2, 0, 8) + vr(VR_OFFER, 0, 4) +
               vr_describe(6, 0x6000, 0, 4, 0) + vr(VR_OFFER, 0, 6) + vr_describe(7, 0x8000, 4, 1, 200) +
               vr(VR_OFFER, 0, 7) + process)
    for features in range(8):
        begin = vr(VR_BEGIN, features)
        write("virtio_ring", f"life-{features}", begin + life)
        write("virtio_ring", f"pending-{features}", begin + pending + vr(VR_RELEASE) + process + life)
        write("virtio_ring", f"reset-{features}", begin + pending + vr_write(20, 1, 0) + process +
              vr(VR_READ, 0, 20, 0, 0) + vr(VR_RELEASE) + process + begin + life)
        write("virtio_ring", f"moved-{features}", begin + pending + vr(VR_MOVE) + process + life +
              vr(VR_MOVE) + process + life)
        write("virtio_ring", f"moved-in-reset-{features}", begin + pending + vr_write(20, 1, 0) +
              vr(VR_MOVE) + process + begin + life)
        write("virtio_ring", f"hostile-{features}", begin + hostile + life)
        write("virtio_ring", f"ahead-{features}", begin + vr(VR_POKE, 0, 2, 0x10, 2, 0xff, 0x7f) +
              vr_write(0x3000, 2, 0) + begin + life)
        write("virtio_ring", f"head-{features}", begin + vr(VR_OFFER, 2, 0xff, 0xff) + process + begin + life)
        write("virtio_ring", f"memory-{features}", begin + mapped + vr(VR_MEMORY, 1) + vr_write(0x3000, 2, 0) +
              process + vr(VR_MEMORY) + begin + life)
        write("virtio_ring", f"platform-{features}", begin + pending + vr(VR_RESET) + process + begin + life)
    for i in range(32):
        write("virtio_ring", f"changed-{i}", vr(VR_BEGIN, i & 7) + pending + vr(VR_MOVE, 1) +
              struct.pack("<HB", 256 + i * 9, 1 << i % 8) + process + life)
    everywhere = b"".join(vr_write(offset, size, 0x0102030405060708 & (1 << 8 * size) - 1)
                          for offset in range(0, 60, 2) for size in (1, 2, 4, 8))
    write("virtio_ring", "registers", everywhere + b"".join(vr(VR_READ, 0, at & 255, at >> 8, 15)
                                                            for at in (0, 16, 32, 48, 0x1000, 0x2000, 0x3000)))
    write("virtio_ring", "configuration", b"".join(vr(VR_CONFIG, 2, at, 0xff, 0xff, 0, 0) + vr(VR_CONFIG, 6, at)
                                                   for at in range(0, 256, 4)))


def vr_poke(at, data):
    return vr(VR_POKE) + struct.pack("<HB", at, len(data)) + data


def vr_start(features=0x77, version=1, size=32, first=0x100000, enable=3, used=0x2000, available=0x1000):
    """The driver's part of a start, with whatever it may get wrong."""
    out = vr(VR_CONFIG, 1, 4, 6, 0)
    for at, length, value in ((20, 1, 0), (20, 1, 3), (8, 4, 0), (12, 4, features), (8, 4, 1), (12, 4, version),
                              (20, 1, 11)):
        out += vr_write(at, length, value)
    for queue in range(2):
        place = first + queue * 0x3000
        for at, length, value in ((22, 2, queue), (24, 2, size), (16, 2, 0), (26, 2, queue + 1), (32, 8, place),
                                  (40, 8, place + available), (48, 8, place + used), (28, 2, enable >> queue & 1)):
            out += vr_write(at, length, value & (1 << 8 * length) - 1)
    return out + vr_write(20, 1, 15)


def virtio_ring_more_seeds():
    """Starts that are wrong, access by configuration space, interrupts, full queues, odd chains, states."""
    process = vr(VR_PROCESS)
    mapped = vr_request(1) + vr_request(3, 1) + vr(VR_DMA, 0, 32 | 7)
    for name, start in (("features", vr_start(0xffffffff)), ("version", vr_start(version=0)), ("none", vr_start(0)),
                        ("size-0", vr_start(size=0)), ("size-3", vr_start(size=3)), ("far", vr_start(first=2**64 - 32)),
                        ("odd", vr_start(first=0x100001)), ("no-queues", vr_start(enable=0)),
                        ("one-queue", vr_start(enable=1)), ("used-nowhere", vr_start(used=1 << 32)),
                        ("used-nowhere-event", vr_start(0x77 | 1 << 29, used=1 << 32))):
        write("virtio_ring", "start-" + name, start + mapped + process + vr(VR_BUFFER, 0, 0xff) + process)
    # The available ring is at the end of memory: what is behind its index is not there, or its event index.
    for left in (4, 68):
        write("virtio_ring", f"start-cut-{left}", vr_start(0x77 | 1 << 29, enable=1, available=0x10000 - left) +
              vr_describe(0, 0x8000, 4, 2, 0) + vr_poke(0x10000 - left, b"\0\0\1\0\0\0"[:left]) +
              vr_write(0x3000, 2, 0) + process)
    broken = vr_poke(0x1002, b"\xff\x7f") + vr_write(0x3000, 2, 0) + vr_poke(0x4002, b"\xff\x7f")
    broken += vr_write(0x3004, 2, 1) + process
    messages = vr(VR_CONFIG, 1, 0x9a, 0, 0x80)
    write("virtio_ring", "messages", messages + vr_start() + mapped + process + broken)
    write("virtio_ring", "broken", vr_start() + mapped + process + broken + vr(VR_CONFIG, 1, 4, 2, 0))
    window = b""
    for bar, offset, length in ((0, 20, 1), (0, 22, 2), (0, 12, 4), (0, 0x3ffc, 4), (0, 0x4000, 4), (0, 21, 2),
                                (0, 0, 3), (4, 20, 1), (0, 0xffffffff, 1)):
        window += (vr(VR_CONFIG, 0, 0x88, bar) + vr(VR_CONFIG, 2, 0x8c) + struct.pack("<I", offset) +
                   vr(VR_CONFIG, 2, 0x90) + struct.pack("<I", length) + vr(VR_CONFIG, 6, 0x94) +
                   vr(VR_CONFIG, 2, 0x94, 1, 0, 0, 0) + vr(VR_CONFIG, 6, 0x90) + vr(VR_CONFIG, 6, 0x98))
    write("virtio_ring", "window", window + vr(VR_WRITE, 0, 0, 0, 0x80, 1) + vr(VR_READ, 0, 0, 0, 0x83))
    pending = mapped + vr(VR_PIN, 0, 7) + vr_request(4, 2)
    for features in (0, 4):
        begin = vr(VR_BEGIN, features)
        write("virtio_ring", f"full-{features}", begin + pending + vr_request(4, 3) * 270 + process +
              vr_write(20, 1, 0) + process + vr(VR_MOVE) + vr(VR_RELEASE) + process * 9)
        write("virtio_ring", f"late-{features}", begin + vr_request(5, 0x60) * 200 + vr_write(0x3000, 2, 0) + process * 5)
        small = vr_poke(0x3000, struct.pack("<QIHH", 0x108000, 8, 2, 0)) + vr_poke(0x4002, bytes([20, 0]))
        write("virtio_ring", f"small-{features}", begin + small + vr_write(0x3004, 2, 1) + process)
        write("virtio_ring", f"many-small-{features}", vr_start(size=256) + small[:-2] + bytes([200, 0]) +
              vr_write(0x3004, 2, 1) + process * 5)
        write("virtio_ring", f"nowhere-{features}", begin + vr(VR_DMA, 0, 9) + vr_request(1) + vr(VR_DMA, 0, 9) +
              vr_describe(0, 1, 24, 2, 0, 2 | 8) + vr(VR_OFFER, 1, 0) + process)
    indirect = vr(VR_BEGIN, 1)
    odd = b""
    for address, length in ((0x106000, 24), (2**64 - 16, 32), (2**64 - 32, 48), (0x106000, 0), (0x106000, 16 * 300)):
        odd += vr_poke(0, struct.pack("<QIHH", address, length, 4, 0)) + vr(VR_OFFER, 0, 0) + process
    write("virtio_ring", "indirect", indirect + vr_poke(0x6000, struct.pack("<QIHH", 0x108000, 4, 1, 1)) + odd)
    # A table whose second descriptor would be past the end of the address space.
    write("virtio_ring", "indirect-top", indirect + vr(VR_MEMORY, 2) +
          vr_poke(0xfff0, struct.pack("<QIHH", 0x108000, 4, 1, 1)) + odd + vr(VR_MOVE) + vr(VR_MEMORY, 3) + odd)
    for way in range(1, 8):  # the other process lacks something; or it is another
        write("virtio_ring", f"moved-badly-{way}", vr(VR_BEGIN) + pending + vr(VR_MOVE, way << 1) + process +
              vr(VR_RELEASE) + process + mapped)
    # A tail in pieces: of one byte, of nearly all, and of more than there is.
    pieces = mapped + vr(VR_PIN, 0, 7) + vr_request(4, 0)
    for lengths in ((1, 1, 1, 1), (3, 8, 1, 1), (1, 1, 1, 9), (4, 4, 1, 1)):
        chain = b"".join(vr_describe(20 + i, 0x8f00 + 16 * i, length, 2 | (i < 3), 21 + i)
                         for i, length in enumerate(lengths))
        write("virtio_ring", "pieces-%d%d%d%d" % lengths, vr(VR_BEGIN) + pieces + vr_request(4, 2, 8) + process +
              vr_describe(19, 0x8200, 28, 1, 20) + chain + vr(VR_OFFER, 0, 19) + process + vr(VR_MOVE) +
              vr(VR_RELEASE) + process)
    for at, change in ((20, 8), (20, 32), (20, 4), (12, 1), (8, 0x80), (22, 4), (23, 1), (24, 1), (30, 0x20), (30, 1),
                       (32, 2), (32, 1), (33, 1), (63, 1), (98, 0xff), (105, 0x80), (106, 0xff), (114, 1), (114, 2), (116, 0x80),
                       (115, 1), (119, 0xff), (128, 0xff), (129, 2), (131, 4), (131, 1), (140, 4), (140, 8)):
        for name, state in (("", pending), ("reset-", pending + vr_write(20, 1, 0))):
            write("virtio_ring", f"changed-{name}{at}-{change}", vr(VR_BEGIN) + state + vr(VR_MOVE, 1) +
                  struct.pack("<HB", 256 + at, change) + process + mapped)


registers_seeds()
virtio_seeds()
virtio_more_seeds()
virtio_ring_seeds()
virtio_ring_more_seeds()
takeover_seeds()
client_dma_seeds()
trace_seeds()
queue_seeds()
save_seeds()
tables_seeds()
iova_seeds()
tzmpc_state_seeds()
space_seeds()
range_seeds()
shadow_map_seeds()
for seed, content in bus_corpus.seeds().items():
    write("bus", seed, content)
for seed, content in bus_corpus.made_seeds().items():
    write("bus_made", seed, content)
for seed, content in units_corpus.seeds().items():
    write("units", seed, content)
for seed, content in devices_corpus.seeds().items():
    write("devices", seed, content)
for seed, content in handover_corpus.seeds().items():
    write("handover", seed, content)
for seed, content in instance_corpus.seeds().items():
    write("instance", seed, content)
for seed, content in iova_corpus.state_seeds().items():
    write("iova_state", seed, content)
for seed, content in iova_corpus.sources_seeds().items():
    write("sources", seed, content)
for seed, content in nvme_corpus.seeds().items():
    write("nvme", seed, content)
for seed, content in pv_corpus.seeds().items():
    write("pv", seed, content)
for seed, content in net_corpus.seeds().items():
    write("virtio_net", seed, content)
for seed, content in vhost_corpus.seeds().items():
    write("vhost", seed, content)
for seed, content in relay_corpus.seeds().items():
    write("relay", seed, content)
for seed, content in serve_corpus.seeds().items():
    write("serve", seed, content)
for seed, content in vfio_user_corpus.seeds().items():
    write("vfio_user", seed, content)
for seed, content in far_corpus.seeds().items():
    write("vfio_user_client", seed, content)
for seed, content in mirror_corpus.seeds().items():
    write("mirror", seed, content)
for seed, content in window_corpus.seeds().items():
    write("window", seed, content)
