# SPDX-License-Identifier: BSD-2-Clause
"""nvme_client.py - a driver of the served NVMe controller, small, for tests: one queue pair, whose
memory is at fixed places of the guest."""

import os
import struct
import time

from vfio_user_client import CONFIG, MSIX, SECONDS, signalled

FIRST, LAST = 0x20000, 0x3ffff      # what it uses of the guest's memory
ADMIN_SQ, ADMIN_CQ, IO_SQ, IO_CQ, DATA = 0x20000, 0x21000, 0x22000, 0x23000, 0x30000
ENTRIES = 16
CC, CSTS, AQA, ASQ, ACQ, DOORBELLS = 0x14, 0x1c, 0x24, 0x28, 0x30, 0x1000
CREATE_SQ, CREATE_CQ = 1, 5
WRITE, READ = 1, 2


class Queue:
    """A submission queue and its completion queue."""

    def __init__(self, number, sq, cq):
        self.number, self.sq, self.cq = number, sq, cq
        self.tail = self.head = self.cid = 0
        self.phase = 1


class Disk:
    """client is connected to the controller, ram is the guest's memory from address 0."""

    def __init__(self, client, ram, event):
        self.client, self.ram, self.event = client, ram, event
        client.bus_master()
        client.set_eventfds(MSIX, [event])
        self.enable_msix()
        client.write32(0, AQA, (ENTRIES - 1) << 16 | (ENTRIES - 1))
        client.write64(0, ASQ, ADMIN_SQ)
        client.write64(0, ACQ, ADMIN_CQ)
        os.pwrite(ram, bytes(LAST - FIRST + 1), FIRST)
        client.write32(0, CC, 0x460001)
        end = time.monotonic() + SECONDS
        while not client.read32(0, CSTS) & 1:
            assert time.monotonic() < end, "the controller is not ready"
        self.admin = Queue(0, ADMIN_SQ, ADMIN_CQ)
        self.io = Queue(1, IO_SQ, IO_CQ)
        self.command(self.admin, CREATE_CQ, IO_CQ, (ENTRIES - 1) << 16 | 1, 3)
        self.command(self.admin, CREATE_SQ, IO_SQ, (ENTRIES - 1) << 16 | 1, 1 << 16 | 1)

    def enable_msix(self):
        at = self.client.read(CONFIG, 0x34, 1)[0]
        while self.client.read(CONFIG, at, 1)[0] != 0x11:
            at = self.client.read(CONFIG, at + 1, 1)[0]
        self.client.write(CONFIG, at + 2, struct.pack("<H", 0x8000))

    def submit(self, queue, opcode, prp, dw10=0, dw11=0, dw12=0):
        queue.cid += 1
        entry = struct.pack("<BBHIQQQQIIIIII", opcode, 0, queue.cid, 1, 0, 0, prp, 0,
                            dw10, dw11, dw12, 0, 0, 0)
        os.pwrite(self.ram, entry, queue.sq + 64 * queue.tail)
        queue.tail = (queue.tail + 1) % ENTRIES
        self.client.write32(0, DOORBELLS + 8 * queue.number, queue.tail)

    def completion(self, queue, seconds=SECONDS):
        """The next one's (cid, status), or None when it does not come in time."""
        end = time.monotonic() + seconds
        while True:
            _, _, _, _, cid, status = struct.unpack("<IIHHHH", os.pread(self.ram, 16, queue.cq + 16 * queue.head))
            if status & 1 == queue.phase:
                break
            if time.monotonic() > end:
                return None
            time.sleep(0.001)
        queue.head += 1
        if queue.head == ENTRIES:
            queue.head, queue.phase = 0, 1 - queue.phase
        self.client.write32(0, DOORBELLS + 8 * queue.number + 4, queue.head)
        return cid, status >> 1

    def command(self, queue, *what):
        self.submit(queue, *what)
        got = self.completion(queue)
        assert got == (queue.cid, 0), "command %s: %s" % (what, got)
        assert signalled(self.event) > 0, "no interrupt"

    def begin(self, opcode, block):
        """4 KiB at this block of 4 KiB."""
        self.submit(self.io, opcode, DATA, block * 8, 0, 7)

    def write(self, block, data):
        os.pwrite(self.ram, data.ljust(4096, b"\0"), DATA)
        self.command(self.io, WRITE, DATA, block * 8, 0, 7)

    def read(self, block):
        os.pwrite(self.ram, b"\xee" * 4096, DATA)
        self.command(self.io, READ, DATA, block * 8, 0, 7)
        return os.pread(self.ram, 4096, DATA).rstrip(b"\0")
