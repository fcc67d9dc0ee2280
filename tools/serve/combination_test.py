#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""combination_test.py VIOMMU - what `viommu serve` can do, all at once: a mirrored edu and a disk
behind one unit, in caching mode, with each mode of the cache, traced; a server that is taken over,
and taken over again, each time while an invalidation waits for a transfer of the disk.
"""

import json
import os
import struct
import subprocess
import sys
import time

import nvme_client
from server_process import Server
from takeover_test import (DATA, FSTS, GCMD, IOVA, TABLE, VIOMMU, Guest, expect, main, make_disk,
                           successor)
from vfio_user_client import EDU_BUFFER, TO_MEMORY

IQH, IQT, IQA, GSTS = 0x80, 0x88, 0x90, 0x1c
QUEUE, STATUS, OTHER, ELSEWHERE = 0x50000, 0x60000, 0x11000, 0x31000
GLOBAL, SELECTIVE = 1, 3


def entry_of(iova):
    return TABLE + 0x3000 + 8 * (iova >> 12)


class Driver(Guest):
    """A guest that invalidates by queue."""

    def start_queue(self):
        self.tail = self.value = 0
        self.unit.write64(0, IQT, 0)
        self.unit.write64(0, IQA, QUEUE)
        self.unit.write32(0, GCMD, 1 << 31 | 1 << 26)
        end = time.monotonic() + 20
        while not self.unit.read32(0, GSTS) & 1 << 26:
            assert time.monotonic() < end, "the queue is not on"

    def put(self, low, high):
        os.pwrite(self.ram, struct.pack("<QQ", low, high), QUEUE + self.tail)
        self.tail = (self.tail + 16) % 4096

    def invalidate(self, granularity, iova=0):
        """Begun, and a wait behind it."""
        self.value += 1
        self.put(2 | granularity << 4 | 1 << 16, iova)
        self.put(5 | 1 << 5 | self.value << 32, STATUS)
        self.unit.write64(0, IQT, self.tail)

    def is_over(self):
        return struct.unpack("<I", os.pread(self.ram, 4, STATUS))[0] == self.value

    def wait(self, what):
        end = time.monotonic() + 20
        while not self.is_over():
            if time.monotonic() > end:
                expect(what, False, "IQH %#x" % self.unit.read32(0, IQH))
                return
            time.sleep(0.001)

    def map(self, iova, value):
        self.put64(entry_of(iova), value)
        self.invalidate(SELECTIVE, iova)
        self.wait("an invalidation completes")

    def place(self):
        """Where DMA to IOVA goes: DATA or OTHER."""
        for at in (DATA, OTHER):
            os.pwrite(self.ram, bytes(8), at)
        self.edu.edu_dma(EDU_BUFFER, IOVA, 8, TO_MEMORY)
        self.edu.read32(0, 0)
        return next((at for at in (DATA, OTHER) if os.pread(self.ram, 8, at) != bytes(8)), None)


def check_forgotten(guest, mode, when):
    """A driver forgets an invalidation: each cache shows that in its own way, and after it none."""
    guest.map(IOVA, DATA | 3)
    guest.check(when, b"prepared")
    expect("%s: before" % when, guest.place() == DATA)
    guest.put64(entry_of(IOVA), OTHER | 3)
    seen = {guest.place() for _ in range(60)}
    allowed = {"normal": ({DATA}, {OTHER}, {DATA, OTHER}), "faithful": ({DATA},),
               "hostile": ({DATA, OTHER},)}[mode]
    expect("%s: forgotten, %s" % (when, mode), seen in allowed, seen)
    guest.invalidate(SELECTIVE, IOVA)
    guest.wait("%s: not forgotten any more" % when)
    expect("%s: afterwards" % when, {guest.place() for _ in range(20)} == {OTHER})
    guest.map(IOVA, DATA | 3)


def check_absent(guest, mode, when):
    """In caching mode a cache may keep that something is absent: the faithful one does."""
    page = 0x9000
    guest.map(page, 0)
    guest.edu.edu_dma(EDU_BUFFER, page, 4, TO_MEMORY)
    expect("%s: a fault" % when, guest.unit.read32(0, FSTS) & 2 == 2)
    guest.put64(entry_of(page), OTHER | 3)
    os.pwrite(guest.ram, bytes(4), OTHER)
    guest.edu.edu_dma(EDU_BUFFER, page, 4, TO_MEMORY)
    guest.edu.read32(0, 0)
    reached = os.pread(guest.ram, 4, OTHER) != bytes(4)
    expect("%s: absent, %s" % (when, mode), mode == "hostile" or reached == (mode == "normal"))
    guest.invalidate(SELECTIVE, page)
    guest.wait("%s: it is mapped" % when)
    guest.edu.edu_dma(EDU_BUFFER, page, 4, TO_MEMORY)
    guest.edu.read32(0, 0)
    expect("%s: present" % when, os.pread(guest.ram, 4, OTHER) != bytes(4))
    guest.map(page, 0)


def check_handover(folder, guest, disk, last, number, mode):
    """A transfer is held, an invalidation waits for it, and another server takes over.

    It waits because the page leads elsewhere: for one that leads where it led nobody would wait.
    """
    hold = os.path.join(folder, "hold")
    with open(hold, "w", encoding="ascii"):
        pass
    disk.begin(nvme_client.READ, 7)
    end = time.monotonic() + 20
    place = nvme_client.DATA
    while guest.is_over():                              # the transfer begins after its doorbell is answered
        assert time.monotonic() < end, "%s, server %d: nothing waits for the transfer" % (mode, number)
        place ^= nvme_client.DATA ^ ELSEWHERE
        guest.put64(entry_of(nvme_client.DATA), place | 3)
        guest.invalidate(SELECTIVE, nvme_client.DATA)
        time.sleep(0.02)
    expect("%s, and the registers answer" % mode, guest.unit.read32(0, IQH) != guest.tail)
    threshold = last.output().count("asks to take over") + 1
    following = successor(folder, options=["--handover", "over", "--trace", "trace-%d" % (number + 1)],
                          ready=False)
    last.wait_for("asks to take over", threshold)
    os.unlink(hold)
    expect("server %d ends" % number, last.wait() == 0, last.output())
    following.wait_for("Ctrl-C ends")
    guest.wait("server %d: the wait completes" % (number + 1))
    expect("the transfer, too", disk.completion(disk.io) == (disk.io.cid, 0))
    guest.map(nvme_client.DATA, nvme_client.DATA | 3)
    expect("and nobody was denied", disk.read(7) == b"block 7")
    return following


def check_mirror(path, guest):
    """Lines of all servers together: maps only what is not mapped, unmaps what is; in the end what the
    tables say."""
    held = {}
    with open(path, encoding="ascii") as f:
        for line in map(json.loads, f):
            first, last = (int(line[name], 16) for name in ("first", "last"))
            if line["call"] == "map":
                expect("mapped once", not any(a <= last and b >= first for a, b in held), line)
                held[first, last] = int(line["gpa"], 16)
            elif line["call"] == "unmap":
                expect("unmapped whole", held.pop((first, last), None) is not None, line)
    pages = {a + offset: gpa + offset for (a, b), gpa in held.items() for offset in range(0, b + 1 - a, 4096)}
    wanted = {}
    for page in range(512):
        entry, = struct.unpack("<Q", os.pread(guest.ram, 8, TABLE + 0x3000 + 8 * page))
        if entry & 3:
            wanted[page << 12] = entry & ~0xfff
    expect("the mirror has what the tables say", pages == wanted, (pages, wanted))


def replay(folder, number):
    return subprocess.run([os.path.abspath(VIOMMU), "run", "--quiet", "--replay", "trace-%d" % number],
                          cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)


# And what else the unit may have.
MORE = {"normal": [], "faithful": ["--width", "57", "--domain-bits", "8"],
        "hostile": ["--device-tlb", "--fault-records", "16", "--host-width", "40"]}


def check(folder, mode):
    options = make_disk(folder) + MORE[mode]
    options[1] += ",mirror=mirror"
    options += ["--caching-mode", "--cache-mode", mode + (",seed=3" if mode == "hostile" else ""),
                "--trace", "trace-1", "--handover", "over", "--ack-timeout", "20000"]
    servers = [Server(VIOMMU, folder, options)]
    try:
        guest = Driver(folder)
        guest.start_queue()
        disk = guest.disk(folder)
        for block in range(10):
            disk.write(block, b"block %d" % block)
        for number in range(1, 4):
            when = "%s, server %d" % (mode, number)
            check_forgotten(guest, mode, when)
            check_absent(guest, mode, when)
            disk.write(20 + number, b"by %d" % number)
            if number < 3:
                servers.append(check_handover(folder, guest, disk, servers[-1], number, mode))
        expect("what all wrote is there", [disk.read(20 + i) for i in (1, 2, 3)] == [b"by 1", b"by 2", b"by 3"])
        guest.invalidate(GLOBAL)
        guest.wait("all is dropped")
        check_mirror(os.path.join(folder, "mirror"), guest)
        disk.client.close()
        guest.close()
        expect("the last one ends with a summary", servers[-1].stop() == 0
               and "summary" in servers[-1].output(), servers[-1].output())
    finally:
        for server in servers:
            server.__exit__()
    done = replay(folder, 1)
    expect("%s: the first trace is replayed" % mode, done.returncode == 0, done.stdout)
    for number in (2, 3):
        done = replay(folder, number)
        expect("%s: a trace that began later is refused" % mode, done.returncode == 2, done.stdout)


def test_normal(folder):
    check(folder, "normal")


def test_faithful(folder):
    check(folder, "faithful")


def test_hostile(folder):
    check(folder, "hostile")


main(globals())
