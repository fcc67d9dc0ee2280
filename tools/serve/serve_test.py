#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""serve_test.py VIOMMU - tests of `viommu serve` as a process: how it starts, serves and ends."""

import os
import signal
import struct
import sys
import tempfile
import time

import nvme_client
from nvme_client import Disk
from server_process import Server
from vfio_user_client import (Client, DMA_UNMAP, EDU_BUFFER, INTERRUPT, MSI, TO_MEMORY, guest_memory,
                              signalled)

VIOMMU = sys.argv[1]
failures = []


def expect(what, condition, detail=""):
    if not condition:
        failures.append(what)
        print("not ok %s %s" % (what, detail))


def test_signals(folder):
    """Whatever ends a terminal's program ends it with a summary."""
    for number in signal.SIGHUP, signal.SIGINT, signal.SIGTERM:
        with Server(VIOMMU, folder, ["--device", "edu,at=05.0,socket=edu"]) as server:
            status = server.stop(number)
            expect("%s ends it with a summary" % number.name, status == 0
                   and "summary" in server.output() and "IOTLB hits" in server.output(), server.output())
        expect("%s: no socket stays" % number.name, not os.path.exists(os.path.join(folder, "edu")))


def test_one_file_two_devices(folder):
    mirror = "edu,at=%s,socket=%s,mirror=one"
    with Server(VIOMMU, folder, ["--caching-mode", "--device", mirror % ("05.0", "a"),
                                 "--device", mirror % ("06.0", "b")], ready=False) as server:
        expect("two devices on one file are refused", server.wait() == 1
               and "edu 00:06.0" in server.output() and "another device or server has it"
               in server.output(), server.output())
    with Server(VIOMMU, folder, ["--caching-mode", "--device", mirror % ("05.0", "a")]):
        with open(os.path.join(folder, "one"), "w", encoding="ascii") as f:
            f.write("kept")
        with Server(VIOMMU, folder, ["--caching-mode", "--device", mirror % ("05.0", "b")],
                    vtd="vtd2", ready=False) as second:
            expect("two servers on one file are refused", second.wait() == 1
                   and "another" in second.output(), second.output())
        with open(os.path.join(folder, "one"), encoding="ascii") as f:
            expect("and the file stays as it was", f.read() == "kept")


def test_one_disk(folder):
    """A disk that is written belongs to one device; one that is read, to many."""
    path = os.path.join(folder, "disk")
    with open(path, "wb") as f:
        f.truncate(1 << 20)
    disk = "nvme,at=%s,socket=%s,file=disk%s"

    def devices(first, second):
        return ["--device", disk % ("05.0", "a", first), "--device", disk % ("06.0", "b", second)]

    for first, second in (("", ""), ("", ",readonly"), (",readonly", "")):
        with Server(VIOMMU, folder, devices(first, second), ready=False) as server:
            expect("a disk twice%s%s is refused" % (first, second), server.wait() == 1
                   and "nvme 00:06.0: cannot open disk: another" in server.output(), server.output())
    with Server(VIOMMU, folder, devices(",readonly", ",readonly")) as server:
        expect("twice for reading is fine", server.stop() == 0 and "disk commands" in server.output())
    with open(path, "wb") as f:
        f.truncate(100)
    with Server(VIOMMU, folder, devices("", ""), ready=False) as server:
        expect("a disk without a block", server.wait() == 1 and "one block" in server.output(),
               server.output())


def test_no_file(folder):
    """What is no file is refused, without waiting for anybody; and nothing is emptied by mistake."""
    os.mkfifo(os.path.join(folder, "fifo"))
    os.mkdir(os.path.join(folder, "dir"))
    disk = "nvme,at=05.0,socket=a,file="
    for options, wanted in [(["--device", disk + "dir,readonly"], "neither a file nor"),
                            (["--device", disk + "fifo,readonly"], "neither a file nor"),
                            (["--trace", "fifo"], "nobody reads"),
                            (["--caching-mode", "--device", "edu,at=05.0,socket=a,mirror=fifo"],
                             "nobody reads")]:
        with Server(VIOMMU, folder, options, ready=False) as server:
            expect("%s: 1 and a message" % options[-1], server.wait() == 1
                   and wanted in server.output(), server.output())
    path = os.path.join(folder, "disk")
    with open(path, "wb") as f:
        f.truncate(1 << 20)
    with Server(VIOMMU, folder, ["--trace", "disk", "--device", disk + "disk"], ready=False) as server:
        expect("a disk is no trace", server.wait() == 1 and "in use" in server.output(),
               server.output())
    expect("and is not emptied", os.path.getsize(path) == 1 << 20)


def test_usage(folder):
    """Wrong usage is named, and ends with 2."""
    for options, wanted in [(["--trace", "a", "--trace", "b"], "--trace is given twice"),
                            (["--vtd", "second"], "--vtd is given twice"),
                            (["--device", "edu,at=20.0,socket=a"], "up to ff:1f.7"),
                            (["--device", "edu:far,at=05.0,socket=a"], "is in no other process"),
                            (["--ack-timeout", "9"], "10 to 60000"),
                            (["--vtd2"], "--vtd2")]:
        with Server(VIOMMU, folder, options, ready=False) as server:
            expect("%s: 2 and a message" % options[-1], server.wait() == 2
                   and wanted in server.output(), server.output())
    with Server(VIOMMU, folder, [], vtd=None, ready=False) as server:
        expect("no socket: 2, and both are named", server.wait() == 2
               and "--vtd SOCKET or --virtio SOCKET is needed" in server.output(), server.output())


def test_nothing_to_open(folder):
    for options, wanted in [(["--device", "edu,at=05.0,socket=no/where"], "no/where"),
                            (["--device", "edu,at=05.0,socket=a", "--device", "edu,at=05.0,socket=b"],
                             "two devices"),
                            (["--caching-mode", "--device", "edu,at=05.0,socket=a,mirror=no/file"], "no/file")]:
        with Server(VIOMMU, folder, options, ready=False) as server:
            expect("%s: 1 and a message" % options[-1], server.wait() == 1
                   and wanted in server.output(), server.output())
        expect("%s: no socket stays" % options[-1], not os.path.exists(os.path.join(folder, "vtd")))


def test_without_unit(folder):
    """Device addresses are guest-physical ones, of the memory that the connection itself brought."""
    ram, event = guest_memory(1 << 20), os.eventfd(0, os.EFD_NONBLOCK)
    with Server(VIOMMU, folder, ["--iommu", "none", "--device", "edu,at=05.0,socket=edu"],
                vtd=None) as server:
        client = Client(os.path.join(folder, "edu"))
        client.map(0x100000, 1 << 20, ram)
        client.set_eventfds(MSI, [event])
        client.bus_master()
        client.enable_msi()
        os.pwrite(ram, b"from the guest", 0x3000)
        client.edu_dma(0x103000, EDU_BUFFER, 14, INTERRUPT)
        expect("an interrupt comes", signalled(event) == 1)
        client.edu_dma(EDU_BUFFER, 0x105000, 14, TO_MEMORY)
        expect("DMA both ways", os.pread(ram, 14, 0x5000) == b"from the guest")
        client.edu_dma(EDU_BUFFER, 0x5000, 14, TO_MEMORY)
        client.unmap(0x100000, 1 << 20)
        client.edu_dma(EDU_BUFFER, 0x106000, 14, TO_MEMORY)
        expect("not where nothing is, or no longer", os.pread(ram, 14, 0x6000) == bytes(14))
        client.close()
        server.stop()
        lines = [line.split() for line in server.output().splitlines()]
        expect("the summary is of devices alone", ["device", "transfers", "refused", "2"] in lines
               and "IOTLB" not in server.output(), server.output())
    os.close(ram)
    os.close(event)


def test_disk_that_was_denied(folder):
    """It keeps memory too long, for its file hangs. A reset of the controller admits it again."""
    ram = guest_memory(1 << 20)
    hold = os.path.join(folder, "hold")
    with open(os.path.join(folder, "image"), "wb") as f:
        f.truncate(1 << 20)
    with Server(VIOMMU, folder, ["--iommu", "none", "--device",
                                 "nvme,at=05.0,socket=disk,file=image,hold=hold"], vtd=None) as server:
        client = Client(os.path.join(folder, "disk"))
        client.map(0, 1 << 20, ram)
        disk = Disk(client, ram, os.eventfd(0, os.EFD_NONBLOCK))
        disk.write(3, b"three")
        with open(hold, "w", encoding="ascii"):
            pass
        disk.begin(nvme_client.READ, 3)
        time.sleep(1)                           # what has not begun is given back at once
        client.send(client.frame(DMA_UNMAP, struct.pack("<IIQQ", 24, 0, 0, 1 << 20)))
        number = client.next_id
        time.sleep(2)
        os.unlink(hold)
        client.reply(number)
        client.map(0, 1 << 20, ram)
        disk.begin(nvme_client.READ, 3)
        expect("the controller has failed", client.read32(0, nvme_client.CSTS) & 2)
        client.write32(0, nvme_client.CC, 0)
        expect("and stopped", client.read32(0, nvme_client.CSTS) == 0)
        disk = Disk(client, ram, os.eventfd(0, os.EFD_NONBLOCK))
        expect("it works again", disk.read(3) == b"three")
        client.close()
        expect("the end", server.stop() == 0, server.output())
    os.close(ram)


for test in [value for name, value in sorted(globals().items()) if name.startswith("test_")]:
    with tempfile.TemporaryDirectory(prefix="viommu-serve-") as where:
        test(where)
print("failed" if failures else "ok")
sys.exit(1 if failures else 0)
