#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""message_test.py VIOMMU - tests of `viommu serve --iommu none` as the far server of a client that
gives it no file of the guest's memory: all DMA is messages, over a twin socket."""

import os
import sys
import tempfile
import time

import nvme_client
from nvme_client import Disk
from server_process import Server
from vfio_user_client import Client, EDU_BUFFER, TO_MEMORY, guest_memory

VIOMMU = sys.argv[1]
RAM = 1 << 20
failures = []


def expect(what, condition, detail=""):
    if not condition:
        failures.append(what)
        print("not ok %s %s" % (what, detail))


def maps(server, name):
    """How many of the server's mappings are of a file of this name."""
    with open("/proc/%d/maps" % server.process.pid, encoding="ascii") as f:
        return sum(name in line for line in f)


def serve(folder, *more):
    with open(os.path.join(folder, "image"), "wb") as f:
        f.truncate(RAM)
    return Server(VIOMMU, folder, ["--iommu", "none", "--device", "nvme,at=05.0,socket=disk,file=image",
                                   "--device", "edu,at=06.0,socket=edu"] + list(more), vtd=None)


def open_disk(folder, ram, mapped=True):
    client = Client(os.path.join(folder, "disk"), twin=(ram, RAM))
    if mapped:
        client.map(0, RAM, None)
    return client, Disk(client, ram, os.eventfd(0, os.EFD_NONBLOCK))


def test_disk(folder):
    """Queues and data of a disk, where nothing of the guest's memory is mapped in the server."""
    ram = guest_memory(RAM)
    with serve(folder) as server:
        client, disk = open_disk(folder, ram)
        for block in range(20):
            disk.write(block, b"block %d" % block)
        expect("what was written is read", all(disk.read(block) == b"block %d" % block
                                               for block in range(20)))
        expect("by messages", (nvme_client.DATA, 4096) in client.twin.reads
               and (nvme_client.DATA, 4096) in client.twin.writes)
        expect("and nothing is mapped", maps(server, "memfd:guest") == 0)
        client.close()
        expect("the end", server.stop() == 0, server.output())
    os.close(ram)


def test_mixed(folder):
    """Queues in a file that came along, data without one."""
    ram = guest_memory(RAM)
    with serve(folder) as server:
        client = Client(os.path.join(folder, "disk"), twin=(ram, RAM))
        client.map(0, nvme_client.DATA, ram)
        client.map(nvme_client.DATA, RAM - nvme_client.DATA, None)
        disk = Disk(client, ram, os.eventfd(0, os.EFD_NONBLOCK))
        disk.write(7, b"seven")
        expect("what was written is read", disk.read(7) == b"seven")
        expect("only data is messages", {a for a, _ in client.twin.reads + client.twin.writes}
               == {nvme_client.DATA}, client.twin.reads)
        expect("the rest is mapped", maps(server, "memfd:guest") == 1)
        client.close()
        expect("the end", server.stop() == 0, server.output())
    os.close(ram)


def test_refused(folder):
    """A client that refuses an address fails the command that has it, and nothing else."""
    ram = guest_memory(RAM)
    with serve(folder):
        client, disk = open_disk(folder, ram)
        disk.write(1, b"one")
        client.twin.refused = range(nvme_client.DATA, nvme_client.DATA + 1)
        for command in nvme_client.READ, nvme_client.WRITE:
            disk.begin(command, 1)
            got = disk.completion(disk.io)
            expect("a transfer error", got and got[1] & 0x7ff == 4, got)
        client.twin.refused = range(0)
        expect("the disk goes on", disk.read(1) == b"one")
        client.close()
    os.close(ram)


def test_no_twin(folder):
    """Who offers no twin socket cannot be asked: said, refused, and the device goes on."""
    ram = guest_memory(RAM)
    with serve(folder) as server:
        client = Client(os.path.join(folder, "edu"))
        client.map(0, RAM, None)
        client.bus_master()
        client.edu_dma(0x1000, EDU_BUFFER, 8, 0)
        client.edu_dma(EDU_BUFFER, 0x1000, 8, TO_MEMORY)
        expect("people are told, once", server.output().count("no twin socket") == 1, server.output())
        client.map(RAM, RAM, ram)
        os.pwrite(ram, b"twelve bytes", 0x1000)
        client.edu_dma(RAM + 0x1000, EDU_BUFFER, 12, 0)
        client.edu_dma(EDU_BUFFER, RAM + 0x2000, 12, TO_MEMORY)
        expect("memory with a file is reached", os.pread(ram, 12, 0x2000) == b"twelve bytes")
        client.close()
    os.close(ram)


def test_silent(folder):
    """A client that does not answer is given up, the others are served, and the next one comes."""
    ram = guest_memory(RAM)
    with serve(folder) as server:
        client, disk = open_disk(folder, ram)
        edu = Client(os.path.join(folder, "edu"))
        disk.write(2, b"two")
        client.twin.silent = True
        started = time.monotonic()
        try:
            disk.begin(nvme_client.READ, 2)
        except (EOFError, OSError):
            pass
        server.wait_for("nvme 00:05.0: client left: Connection timed out")
        expect("after a second", 0.9 < time.monotonic() - started < 15)
        expect("others are served", edu.read32(0, 0) == 0x010000ed)
        client.close()
        client, disk = open_disk(folder, ram)
        expect("and the next one", disk.read(2) == b"two")
        client.close()
        edu.close()
        expect("the end", server.stop() == 0, server.output())
    os.close(ram)


def test_takeover(folder):
    """The twin socket goes along to another process."""
    ram = guest_memory(RAM)
    with serve(folder, "--handover", "over") as first:
        client, disk = open_disk(folder, ram)
        disk.write(5, b"five")
        with Server(VIOMMU, folder, ["--takeover", "over"], vtd=None) as second:
            expect("the first one ends", first.wait() == 0, first.output())
            expect("the disk goes on", disk.read(5) == b"five")
            disk.write(6, b"six")
            expect("both ways", disk.read(6) == b"six")
            client.close()
            second.stop()
    os.close(ram)


for test in [value for name, value in sorted(globals().items()) if name.startswith("test_")]:
    with tempfile.TemporaryDirectory(prefix="viommu-messages-") as where:
        test(where)
print("failed" if failures else "ok")
sys.exit(1 if failures else 0)
