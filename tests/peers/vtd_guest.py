# SPDX-License-Identifier: BSD-2-Clause
"""vtd_guest.py - a guest in small, for tests of served devices behind a VT-d unit: memory, tables of
four levels for one device, and a queue of invalidations.

It stands in QEMU's place: a connection to the unit, and one to each function.
"""

import os
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools", "serve"))
from vfio_user_client import Client, guest_memory  # noqa: E402

RAM = 4 << 20
PAGE = 4096
ROOT, CONTEXT, QUEUE, DONE, TABLES = 0x1000, 0x2000, 0x3000, 0x4000, 0x10000
GCMD, GSTS, RTADDR, IQH, IQT, IQA = 0x18, 0x1c, 0x20, 0x80, 0x88, 0x90
QIE, SRTP, TE = 1 << 26, 1 << 30, 1 << 31
READ, WRITE = 1, 2
DOMAIN = 1
SECONDS = 20


class VtdGuest:
    """devfn: the device whose tables these are."""

    def __init__(self, folder, devfn):
        self.ram = guest_memory(RAM)
        self.devfn = devfn
        self.tables = TABLES + PAGE     # the next free one
        self.unit = Client(os.path.join(folder, "vtd"))
        self.unit.map(0, RAM, self.ram)
        self.put64(ROOT, CONTEXT | 1)
        self.put64(CONTEXT + 16 * devfn, TABLES | 1)
        self.put64(CONTEXT + 16 * devfn + 8, DOMAIN << 8 | 2)
        self.tail = 0
        self.status = 0
        self.unit.write64(0, RTADDR, ROOT)
        self.command(SRTP)
        self.unit.write64(0, IQA, QUEUE)
        self.command(QIE)
        self.command(TE)
        self.invalidate()

    def close(self):
        self.unit.close()
        os.close(self.ram)

    def connect(self, path):
        """To a function; it is told of the memory, as QEMU does."""
        client = Client(path)
        client.map(0, RAM, self.ram)
        return client

    def put64(self, address, value):
        os.pwrite(self.ram, struct.pack("<Q", value), address)

    def get64(self, address):
        return struct.unpack("<Q", os.pread(self.ram, 8, address))[0]

    def command(self, bit):
        """Of the one-shot kind or the lasting one: until the status says so."""
        self.unit.write32(0, GCMD, self.status | bit)
        if bit != SRTP:
            self.status |= bit
        self.wait(lambda: self.unit.read32(0, GSTS) & bit, "GSTS")

    @staticmethod
    def wait(condition, what, seconds=SECONDS):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError("%s: no end after %d s" % (what, seconds))
            time.sleep(0.0005)

    def entry(self, iova):
        """Where the entry of a page is; tables on the way are made."""
        table = TABLES
        for level in (3, 2, 1):
            at = table + 8 * (iova >> (12 + 9 * level) & 511)
            if not self.get64(at):
                self.put64(at, self.tables | READ | WRITE)
                self.tables += PAGE
            table = self.get64(at) & ~(PAGE - 1)
        return table + 8 * (iova >> 12 & 511)

    def map(self, iova, address, rights=READ | WRITE):
        """Change a page's entry; rights 0: none. The unit is not told."""
        self.put64(self.entry(iova), address | rights if rights else 0)

    def submit(self, *descriptors):
        for low, high in descriptors:
            self.put64(QUEUE + self.tail, low)
            self.put64(QUEUE + self.tail + 8, high)
            self.tail = (self.tail + 16) % PAGE
        self.unit.write64(0, IQT, self.tail)

    def invalidate(self, iova=None, seconds=SECONDS):
        """All, or a page; returns when the unit says that it is done: how long that took."""
        started = time.monotonic()
        self.put64(DONE, 0)
        wait = (5 | 1 << 5 | 1 << 32, DONE)     # status write
        if iova is None:
            self.submit((1 | 1 << 4, 0), (2 | 1 << 4, 0), wait)
        else:
            self.submit((2 | 3 << 4 | DOMAIN << 16, iova), wait)
        self.wait(lambda: self.get64(DONE) & 0xffffffff == 1, "an invalidation", seconds)
        return time.monotonic() - started
