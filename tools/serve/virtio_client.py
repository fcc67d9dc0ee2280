# SPDX-License-Identifier: BSD-2-Clause
"""virtio_client.py - a driver of the served virtio-iommu, small, for tests of the server.

It drives the function as a guest does: registers of BAR0 over vfio-user, and two split virtqueues in
the memory that the client maps. Requests are waited for in the used ring, as Linux does.
"""

import os
import struct
import time

from vfio_user_client import CONFIG, MSIX, SECONDS, Client

# BAR0.
STATUS, QUEUE_SELECT, QUEUE_SIZE, QUEUE_VECTOR, QUEUE_ENABLE = 20, 22, 24, 26, 28
DRIVER_FEATURE_SELECT, DRIVER_FEATURE, QUEUE_PLACES = 8, 12, 32
ISR, DEVICE, NOTIFY = 0x1000, 0x2000, 0x3000
BYPASS = DEVICE + 36
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET = 1, 2, 4, 8, 0x40
FEATURES = 0x77 | 1 << 32           # all of the device, and VERSION_1
INDIRECT, EVENT_INDEX = 1 << 28, 1 << 29

# Memory: each queue has a page for descriptors, and one for each ring.
RINGS, BUFFERS = 0x80000, 0x90000
SIZE = 16
REQUESTS, FAULTS = 0, 1
ATTACH, DETACH, MAP, UNMAP, PROBE = 1, 2, 3, 4, 5
OK, INVAL, NOENT, NOMEM = 0, 4, 6, 8
NEXT, WRITE, INDIRECT_TABLE = 1, 2, 4


class Unanswered(Exception):
    """Nothing came back in time."""


class Driver:
    """One virtio-iommu. `ram` is the memory at guest address 0."""

    def __init__(self, path, ram, ram_size, features=FEATURES | INDIRECT | EVENT_INDEX):
        self.client = Client(path)
        self.client.map(0, ram_size, ram)
        self.ram = ram
        self.event = os.eventfd(0, os.EFD_NONBLOCK)
        self.start(features)

    def close(self):
        self.client.close()
        os.close(self.event)

    def put(self, offset, size, value):
        self.client.write(0, offset, value.to_bytes(size, "little"))

    def get(self, offset, size):
        return int.from_bytes(self.client.read(0, offset, size), "little")

    def poke(self, address, layout, *values):
        os.pwrite(self.ram, struct.pack(layout, *values), address)

    def peek(self, address, layout):
        return struct.unpack(layout, os.pread(self.ram, struct.calcsize(layout), address))

    def start(self, features):
        """From reset to DRIVER_OK, with an interrupt for faults."""
        self.client.bus_master()
        self.reset()
        self.put(STATUS, 1, ACKNOWLEDGE | DRIVER)
        for half in 0, 1:
            self.put(DRIVER_FEATURE_SELECT, 4, half)
            self.put(DRIVER_FEATURE, 4, features >> 32 * half & 0xffffffff)
        self.put(STATUS, 1, self.get(STATUS, 1) | FEATURES_OK)
        self.client.set_eventfds(MSIX, [self.event], start=1)
        self.enable_msix()
        for queue in REQUESTS, FAULTS:
            place = self.place(queue)
            os.pwrite(self.ram, bytes(0x3000), place)
            self.put(QUEUE_SELECT, 2, queue)
            self.put(QUEUE_SIZE, 2, SIZE)
            self.put(QUEUE_VECTOR, 2, 1 if queue == FAULTS else 0xffff)
            for i in range(3):
                self.put(QUEUE_PLACES + 8 * i, 8, place + 0x1000 * i)
            self.put(QUEUE_ENABLE, 2, 1)
        self.offered, self.seen = [0, 0], [0, 0]
        self.put(STATUS, 1, self.get(STATUS, 1) | DRIVER_OK)
        for i in range(SIZE // 2):
            self.offer_buffer(i)

    def reset(self):
        """Returns when it is complete."""
        self.put(STATUS, 1, 0)
        end = time.monotonic() + SECONDS
        while self.get(STATUS, 1):
            if time.monotonic() > end:
                raise Unanswered("reset")

    def enable_msix(self):
        at = self.client.read(CONFIG, 0x34, 1)[0]
        while self.client.read(CONFIG, at, 1)[0] != 0x11:
            at = self.client.read(CONFIG, at + 1, 1)[0]
        self.client.write(CONFIG, at + 2, struct.pack("<H", 0x8000))

    @staticmethod
    def place(queue):
        return RINGS + 0x3000 * queue

    def describe(self, queue, at, address, length, flags, following=0):
        self.poke(self.place(queue) + 16 * at, "<QIHH", address, length, flags, following)

    def offer(self, queue, head, notify=True):
        available = self.place(queue) + 0x1000
        self.poke(available + 4 + 2 * (self.offered[queue] % SIZE), "<H", head)
        self.offered[queue] += 1
        self.poke(available + 2, "<H", self.offered[queue] & 0xffff)
        if notify:
            self.put(NOTIFY + 4 * queue, 2, queue)

    def used(self, queue):
        """(head, length) of the next chain that came back, or None."""
        ring = self.place(queue) + 0x2000
        if self.peek(ring + 2, "<H")[0] == self.seen[queue] & 0xffff:
            return None
        entry = self.peek(ring + 4 + 8 * (self.seen[queue] % SIZE), "<II")
        self.seen[queue] += 1
        return entry

    def wait_used(self, queue):
        end = time.monotonic() + SECONDS
        while True:
            entry = self.used(queue)
            if entry:
                return entry
            if time.monotonic() > end:
                raise Unanswered("queue %d" % queue)
            time.sleep(0.001)

    # ---- requests

    def offer_request(self, kind, body, notify=True, room=4):
        """Where its answer will be."""
        slot = self.offered[REQUESTS] % (SIZE // 2)
        at = BUFFERS + 0x400 * slot
        data = struct.pack("<I", kind) + body
        os.pwrite(self.ram, data, at)
        os.pwrite(self.ram, b"\xee" * room, at + 128)
        self.describe(REQUESTS, 2 * slot, at, len(data), NEXT, 2 * slot + 1)
        self.describe(REQUESTS, 2 * slot + 1, at + 128, room, WRITE)
        self.offer(REQUESTS, 2 * slot, notify)
        return at + 128

    def request(self, kind, body, room=4):
        """The answer to a request."""
        answer = self.offer_request(kind, body, room=room)
        return os.pread(self.ram, self.wait_used(REQUESTS)[1], answer)

    def attach(self, domain, endpoint):
        return self.request(ATTACH, struct.pack("<III4x", domain, endpoint, 0))[0]

    def map(self, domain, first, last, address, flags=3):
        return self.request(MAP, struct.pack("<IQQQI", domain, first, last, address, flags))[0]

    @staticmethod
    def unmapping(domain, first, last):
        return struct.pack("<IQQ4x", domain, first, last)

    def unmap(self, domain, first, last):
        return self.request(UNMAP, self.unmapping(domain, first, last))[0]

    # ---- faults

    def offer_buffer(self, i):
        self.describe(FAULTS, i, BUFFERS + 0x8000 + 64 * i, 24, WRITE)
        self.offer(FAULTS, i)

    def fault(self):
        """(reason, flags, endpoint, address) of the next; its buffer is offered again."""
        head, length = self.wait_used(FAULTS)
        assert length == 24, length
        fault = self.peek(BUFFERS + 0x8000 + 64 * head, "<B3xII4xQ")
        self.offer_buffer(head)
        return fault
