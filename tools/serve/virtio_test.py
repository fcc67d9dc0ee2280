#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""virtio_test.py VIOMMU - tests of `viommu serve --virtio` as a process: a driver of the virtio-iommu, and
an edu and a disk behind it, and a mirror; resets, clients that go, other processes that take over."""

import json
import os
import struct
import subprocess
import sys
import tempfile
import time

import nvme_client
from nvme_client import FIRST, LAST, Disk
from server_process import Server
from vfio_user_client import (Client, EDU_BUFFER, INTERRUPT, MSI, RESET, TO_MEMORY, guest_memory, signalled)
from virtio_client import (ATTACH, BYPASS, DRIVER_OK, FAULTS, FEATURES, INVAL, ISR, NEEDS_RESET, NEXT, NOENT, NOMEM,
                           OK, PROBE, REQUESTS, STATUS, UNMAP, WRITE, Driver)

VIOMMU = sys.argv[1]
failures = []

RAM = 1 << 20
DOMAIN, IOVA, DATA = 5, 0x7000, 0x10000
EDU, DISK = 0x28, 0x30
DEVICES = ["--device", "edu,at=05.0,socket=edu"]


def expect(what, condition, detail=""):
    if not condition:
        failures.append(what)
        print("not ok %s %s" % (what, detail))


def serve(folder, options=(), **more):
    return Server(VIOMMU, folder, ["--virtio", "virtio", *DEVICES, *options], vtd=None, **more)


def successor(folder, options=(), **more):
    return Server(VIOMMU, folder, ["--takeover", "over", *options], vtd=None, **more)


class Guest:
    """Memory, the driver, and the edu that it attaches."""

    def __init__(self, folder, attach=True, features=None):
        self.ram = guest_memory(RAM)
        self.iommu = Driver(os.path.join(folder, "virtio"), self.ram, RAM,
                            **({"features": features} if features else {}))
        self.event = os.eventfd(0, os.EFD_NONBLOCK)
        self.edu = Client(os.path.join(folder, "edu"))
        self.edu.map(0, RAM, self.ram)
        self.edu.set_eventfds(MSI, [self.event])
        self.edu.bus_master()
        self.edu.enable_msi()
        if attach:
            self.attach()

    def attach(self):
        expect("attach", self.iommu.attach(DOMAIN, EDU) == OK)
        expect("map", self.iommu.map(DOMAIN, IOVA, IOVA + 0xfff, DATA) == OK)

    def check(self, when, value, iova=IOVA):
        os.pwrite(self.ram, value, DATA)
        self.edu.edu_dma(iova, EDU_BUFFER, len(value), INTERRUPT)
        expect("%s: an interrupt comes" % when, signalled(self.event) == 1)
        self.edu.edu_dma(EDU_BUFFER, iova + 0x800, len(value), TO_MEMORY)
        self.edu.read32(0, 0)
        expect("%s: DMA both ways" % when, os.pread(self.ram, len(value), DATA + 0x800) == value)

    def write_there(self, iova):
        """Whether DMA reaches DATA by this address."""
        os.pwrite(self.ram, bytes(4), DATA)
        self.edu.write32(0, EDU_BUFFER, 0)
        os.pwrite(self.ram, b"fill", 0x20000)
        self.edu.edu_dma(EDU_BUFFER, iova, 4, TO_MEMORY)
        self.edu.read32(0, 0)
        return os.pread(self.ram, 4, DATA) != bytes(4)

    def close(self):
        self.iommu.close()
        self.edu.close()
        os.close(self.ram)
        os.close(self.event)


def test_life(folder):
    with serve(folder) as server:
        guest = Guest(folder, attach=False)
        guest.check("bypass", b"one to one", iova=DATA)
        guest.attach()
        guest.check("attached", b"through the domain")
        guest.edu.edu_dma(EDU_BUFFER, DATA, 4, TO_MEMORY)
        expect("a fault interrupts", signalled(guest.iommu.event) >= 1)
        expect("and says what", guest.iommu.fault() == (2, 0x102, EDU, DATA))
        expect("no bit in the ISR register", guest.iommu.get(ISR, 1) == 0)
        properties = guest.iommu.request(PROBE, struct.pack("<I64x", EDU), room=516)
        expect("PROBE", len(properties) == 516
               and properties[:24] == struct.pack("<HHB3xQQ", 1, 20, 1, 0xfee00000, 0xfeefffff))
        expect("what is mapped is not mapped twice",
               guest.iommu.map(DOMAIN, IOVA, IOVA + 0xfff, DATA) == INVAL)
        expect("nobody else is attached", guest.iommu.attach(DOMAIN, EDU + 1) == NOENT)
        expect("unmap", guest.iommu.unmap(DOMAIN, 0, 0xffff) == OK)
        guest.edu.edu_dma(EDU_BUFFER, IOVA, 4, TO_MEMORY)
        expect("and it is a fault", guest.iommu.fault() == (2, 0x102, EDU, IOVA))
        expect("an unknown request comes back", guest.iommu.request(77, bytes(16)) == b"")
        guest.close()
        expect("it ends", server.stop() == 0)
        lines = [line.split() for line in server.output().splitlines()]
        for line in (["faults", "told", "to", "the", "guest", "2"], ["of", "them", "not", "carried", "out", "2"],
                     ["endpoints", "attached", "now", "0"], ["device", "transfers", "refused", "2"]):
            expect("the summary says %s" % " ".join(line), line in lines, server.output())


def test_many_requests(folder):
    """More than the ring has entries, without a word in between; and with few features."""
    with serve(folder) as server:
        for features in FEATURES, None:
            guest = Guest(folder, features=features)
            for page in range(200):
                expect("map %d" % page, guest.iommu.map(DOMAIN, 0x100000 + page * 0x1000,
                                                        0x100fff + page * 0x1000, DATA) == OK)
            for _ in range(8):
                guest.iommu.offer_request(UNMAP, guest.iommu.unmapping(DOMAIN, 0x100000, 0x1fffff), False)
            guest.iommu.put(0x3000, 2, 0)
            for i in range(8):
                expect("answer %d" % i, guest.iommu.wait_used(REQUESTS)[1] == 4)
            guest.check("after all", b"it goes on")
            guest.close()
        expect("it ends", server.stop() == 0)


def test_resets(folder):
    with serve(folder) as server:
        guest = Guest(folder)
        guest.iommu.put(BYPASS, 1, 0)
        guest.iommu.reset()
        expect("the driver's reset drops domains", not guest.write_there(IOVA))
        expect("and keeps bypass", guest.iommu.get(BYPASS, 1) == 0 and not guest.write_there(DATA))
        guest.iommu.start(FEATURES)
        guest.attach()
        guest.check("again", b"a new start")
        guest.iommu.client.command(RESET)
        expect("the platform's brings bypass back", guest.iommu.get(BYPASS, 1) == 1)
        expect("and the status is 0", guest.iommu.get(STATUS, 1) == 0)
        guest.check("bypass", b"one to one", iova=DATA)
        guest.iommu.start(FEATURES)
        guest.attach()
        guest.check("after it", b"and a third")
        guest.close()
        guest = Guest(folder, attach=False)     # another client
        guest.check("another client", b"bypass", iova=DATA)
        guest.attach()
        guest.check("it drives, too", b"attached")
        guest.close()
        expect("it ends", server.stop() == 0)


def test_a_hostile_driver(folder):
    """It harms nobody but itself."""
    with serve(folder) as server:
        guest = Guest(folder)
        iommu = guest.iommu
        iommu.describe(REQUESTS, 0, DATA, 4, NEXT, 0)
        iommu.offer(REQUESTS, 0)
        expect("a loop comes back", iommu.wait_used(REQUESTS) == (0, 0))
        iommu.describe(REQUESTS, 0, 1 << 60, 4, NEXT, 1)
        iommu.describe(REQUESTS, 1, DATA, 4, WRITE)
        iommu.offer(REQUESTS, 0)
        expect("what is not in memory, too", iommu.wait_used(REQUESTS) == (0, 0))
        guest.check("the device goes on", b"still mapped")
        iommu.poke(iommu.place(REQUESTS) + 0x1002, "<H", 0x7000)
        iommu.put(0x3000, 2, 0)
        expect("an index that runs ahead breaks the queue", iommu.get(STATUS, 1) & NEEDS_RESET)
        guest.check("what was mapped stays so", b"until the reset")
        iommu.start(FEATURES)
        guest.attach()
        guest.check("after a reset", b"as before")
        iommu.client.unmap(0, RAM)
        iommu.put(0x3000, 2, 0)
        expect("without memory as well", iommu.get(STATUS, 1) & NEEDS_RESET)
        guest.close()
        expect("it ends", server.stop() == 0)
        expect("and says so", server.output().count("is broken") == 2, server.output())


def test_options(folder):
    options = ["--bypass", "off", "--page-sizes", "64k:2m", "--width", "40", "--probe-size", "64",
               "--domains-max", "1", "--mappings-max", "2", "--device", "edu,at=06.0,socket=edu2"]
    with serve(folder, options) as server:
        guest = Guest(folder, attach=False)
        expect("the configuration", guest.iommu.client.read(0, 0x2000, 40) ==
               struct.pack("<QQQIIIB3x", 0x210000, 0, (1 << 40) - 1, 0, 0xffff, 64, 0))
        expect("no bypass", not guest.write_there(DATA))
        expect("one domain", guest.iommu.attach(1, EDU) == OK and guest.iommu.attach(2, EDU + 8) == NOMEM
               and guest.iommu.attach(1, EDU + 8) == OK)
        expect("of 64 KiB", guest.iommu.map(1, 0x1000, 0x1fff, 0x1000) != OK)
        expect("two mappings", [guest.iommu.map(1, at << 16, (at << 16) + 0xffff, 0) for at in (1, 2, 3)] ==
               [OK, OK, NOMEM])
        guest.close()
        expect("it ends", server.stop() == 0)
    for wrong, text in [(["--caching-mode"], "--caching-mode is of VT-d"),
                        (["--vtd", "second"], "--virtio and --vtd: there is one unit"),
                        (["--virtio", "second"], "--virtio is given twice"),
                        (["--page-sizes", "2m:3k"], "--page-sizes"),
                        (["--page-sizes", "512"], "--page-sizes"),
                        (["--width", "65"], "--width"),
                        (["--bypass", "maybe"], "--bypass"),
                        (["--iommu", "none"], "--virtio is of a unit"),
                        (["--iommu", "vtd"], "--virtio is of the virtio-iommu")]:
        with serve(folder, wrong, ready=False) as server:
            expect("%s: 2 and a message" % wrong, server.wait() == 2 and text in server.output(),
                   server.output())
    with Server(VIOMMU, folder, ["--iommu", "virtio"], vtd=None, ready=False) as server:
        expect("--iommu virtio needs a socket", server.wait() == 2 and "--virtio SOCKET" in server.output())
    with Server(VIOMMU, folder, ["--bypass", "off"], ready=False) as server:
        expect("VT-d has no bypass", server.wait() == 2 and "--bypass is of the virtio" in server.output())


def test_takeover(folder):
    """Twice, with work in the rings, and a disk."""
    with open(os.path.join(folder, "image"), "wb") as f:
        f.truncate(1 << 20)
    disk = ["--device", "nvme,at=06.0,socket=disk,file=image", "--page-sizes", "4k:2m"]
    with serve(folder, disk + ["--handover", "over"]) as first:
        guest = Guest(folder)
        expect("the disk is attached", guest.iommu.attach(DOMAIN + 1, DISK) == OK
               and guest.iommu.map(DOMAIN + 1, FIRST, LAST, FIRST) == OK)
        device = Disk(Client(os.path.join(folder, "disk")), guest.ram, os.eventfd(0, os.EFD_NONBLOCK))
        device.write(9, b"nine")
        configuration = guest.iommu.client.read(0, 0x2000, 40)
        guest.iommu.offer_request(UNMAP, guest.iommu.unmapping(DOMAIN, 0, 0xffff), notify=False)
        for _ in range(12):                 # more faults than buffers
            guest.edu.edu_dma(EDU_BUFFER, 0x40000, 4, TO_MEMORY)
        with successor(folder, ["--handover", "over"]) as second:
            expect("the first one ends", first.wait() == 0, first.output())
            expect("what nobody was told of is found", guest.iommu.wait_used(REQUESTS)[1] == 4)
            guest.edu.edu_dma(EDU_BUFFER, IOVA, 4, TO_MEMORY)
            told = [guest.iommu.fault() for _ in range(13)]
            expect("no fault is lost", [fault[3] for fault in told] == 12 * [0x40000] + [IOVA], told)
            expect("they interrupt", signalled(guest.iommu.event) >= 1)
            expect("the status stays", guest.iommu.get(STATUS, 1) & DRIVER_OK)
            expect("the configuration, too", guest.iommu.client.read(0, 0x2000, 40) == configuration)
            expect("map", guest.iommu.map(DOMAIN, IOVA, IOVA + 0xfff, DATA) == OK)
            guest.check("the second one", b"here")
            expect("the disk goes on", device.read(9) == b"nine")
            with successor(folder) as third:
                expect("the second one ends", second.wait() == 0, second.output())
                guest.check("the third one", b"there")
                device.write(10, b"ten")
                expect("the disk, too", device.read(10) == b"ten")
                expect("requests", guest.iommu.request(ATTACH, struct.pack("<III4x", 9, EDU, 0))[0] == OK)
                device.client.close()
                guest.close()
                expect("the end", third.stop() == 0, third.output())


def test_watched(folder):
    """A trace of it is replayed byte by byte, and a mirror hears what the guest has mapped; each cache."""
    for mode in "normal", "faithful", "hostile,seed=5":
        options = ["--device", "edu,at=06.0,socket=edu2,mirror=mirror", "--trace", "trace", "--cache-mode", mode]
        with serve(folder, options) as server:
            guest = Guest(folder)
            expect("the other one", guest.iommu.attach(DOMAIN, EDU + 8) == OK)
            guest.check(mode, b"watched")
            guest.edu.edu_dma(EDU_BUFFER, 0x40000, 4, TO_MEMORY)
            expect("%s: a fault" % mode, guest.iommu.fault()[3] == 0x40000)
            expect("%s: unmap" % mode, guest.iommu.unmap(DOMAIN, 0, 0xffff) == OK)
            expect("%s: and nothing is there" % mode, not guest.write_there(IOVA))
            guest.iommu.reset()
            guest.close()
            expect("%s: it ends" % mode, server.stop() == 0, server.output())
        with open(os.path.join(folder, "mirror"), encoding="ascii") as f:
            calls = [json.loads(line) for line in f]
        expect("%s: the mirror" % mode, [call["call"] for call in calls if "call" in call][:2] == ["map", "unmap"],
               calls)
        done = subprocess.run([VIOMMU, "run", "--replay", os.path.join(folder, "trace")], check=False, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        expect("%s: it is replayed" % mode, done.returncode == 0, done.stdout)


def test_taken_over_under_way(folder):
    """An UNMAP waits for a disk transfer; both come to their end in the other process, or before it."""
    hold = os.path.join(folder, "hold")
    with open(os.path.join(folder, "image"), "wb") as f:
        f.truncate(1 << 20)
    disk = ["--device", "nvme,at=06.0,socket=disk,file=image,hold=hold", "--handover", "over",
            "--ack-timeout", "20000"]
    with serve(folder, disk) as first:
        guest = Guest(folder)
        iommu = guest.iommu
        expect("the disk is attached", iommu.attach(DOMAIN + 1, DISK) == OK
               and iommu.map(DOMAIN + 1, FIRST, nvme_client.DATA - 1, FIRST) == OK
               and iommu.map(DOMAIN + 1, nvme_client.DATA, LAST, nvme_client.DATA) == OK)
        device = Disk(Client(os.path.join(folder, "disk")), guest.ram, os.eventfd(0, os.EFD_NONBLOCK))
        device.write(7, b"block 7")
        with open(hold, "w", encoding="ascii"):
            pass
        device.begin(nvme_client.READ, 7)
        time.sleep(1)                       # what has not begun is given back at once
        iommu.offer_request(UNMAP, iommu.unmapping(DOMAIN + 1, nvme_client.DATA, LAST))
        status = iommu.get(STATUS, 1)
        if iommu.used(REQUESTS):
            print("too slow here to show anything")
            sys.exit(77)
        expect("the device goes on meanwhile", status & DRIVER_OK)
        with successor(folder, ready=False) as second:
            first.wait_for("asks to take over")
            os.unlink(hold)
            expect("the first one ends", first.wait() == 0, first.output())
            expect("the UNMAP is answered", iommu.wait_used(REQUESTS)[1] == 4)
            expect("the transfer, too", device.completion(device.io) == (device.io.cid, 0))
            expect("map again", iommu.map(DOMAIN + 1, nvme_client.DATA, LAST, nvme_client.DATA) == OK)
            expect("and nobody was denied", device.read(7) == b"block 7")
            guest.check("the second one", b"here")
            device.client.close()
            guest.close()
            second.wait_for("Ctrl-C ends")
            expect("the end", second.stop() == 0, second.output())


def told(path):
    """What a mirror was told: calls, and the first address of each."""
    with open(path) as f:
        return [(line["call"], int(line["first"], 16)) for line in map(json.loads, f)]


def test_mirror(folder):
    """It holds what the guest maps, and another process goes on from there."""
    log = os.path.join(folder, "mirror.json")
    device = ["--device", "edu,at=05.0,socket=edu,mirror=" + log, "--handover", "over"]
    with Server(VIOMMU, folder, ["--virtio", "virtio", *device], vtd=None) as first:
        guest = Guest(folder)
        expect("a mapping is told", told(log)[-1] == ("map", IOVA), told(log))
        before = len(told(log))
        with successor(folder) as second:
            expect("the first one ends", first.wait() == 0, first.output())
            expect("map", guest.iommu.map(DOMAIN, 0x100000, 0x1fffff, 0) == OK)
            expect("unmap", guest.iommu.unmap(DOMAIN, IOVA, IOVA + 0xfff) == OK)
            expect("what it holds is not told again",
                   told(log)[before:] == [("map", 0x100000), ("unmap", IOVA)], told(log)[before:])
            guest.close()
            expect("the end", second.stop() == 0, second.output())


for test in [value for name, value in sorted(globals().items()) if name.startswith("test_")]:
    with tempfile.TemporaryDirectory(prefix="viommu-virtio-") as where:
        test(where)
print("failed" if failures else "ok")
sys.exit(1 if failures else 0)
