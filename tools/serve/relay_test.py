#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""relay_test.py VIOMMU - tests of `viommu serve --device vfio-user:SOCKET`: a device that another
`viommu serve` has, without a unit, behind ours; and that other one killed, stopped, and started again."""

import os
import signal
import socket
import struct
import sys
import tempfile
import threading
import time

import nvme_client
from nvme_client import Disk
from server_process import Server
from vfio_user_client import (CONFIG, Client, EDU_BUFFER, INTERRUPT, MSI, RESET, Refused, TO_MEMORY, guest_memory,
                              signalled)

VIOMMU = sys.argv[1]
RAM = 1 << 20
ONES = 0xffffffff
IN_TIME_S = 1.8  # less than a far server may take for an answer by default
LATE_S = 2.5     # more
SOON_S = 10      # however slow the machine is
EDU_ID = 0x010000ed
failures = []


def expect(what, condition, detail=""):
    if not condition:
        failures.append(what)
        print("not ok %s %s" % (what, detail))


def far_server(folder, device="edu"):
    """Without a unit, on the socket `far`."""
    return Server(VIOMMU, folder, ["--iommu", "none", "--device", device + ",at=05.0,socket=far"], vtd=None)


def relay_server(folder, keys="", more=()):
    options = list(more) + ["--device", "vfio-user:far,at=06.0,socket=near" + keys,
                            "--device", "edu,at=07.0,socket=other"]
    return Server(VIOMMU, folder, ([] if "isolate" in keys else ["--caching-mode"]) + options)


def counter(output, name):
    return [int(line.split()[-1]) for line in output.splitlines() if line.strip().startswith(name)][0]


class Machine:
    """The client of the unit and of both devices, and its memory."""

    def __init__(self, folder):
        self.unit = Client(os.path.join(folder, "vtd"))
        self.ram = guest_memory(RAM)
        self.unit.map(0, RAM, self.ram)
        self.device = Client(os.path.join(folder, "near"))
        self.other = Client(os.path.join(folder, "other"))
        self.event = os.eventfd(0, os.EFD_NONBLOCK)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for client in self.unit, self.device, self.other:
            client.close()
        os.close(self.ram)
        os.close(self.event)

    def set_up(self):
        """As a driver of the edu device does after a reset. The eventfd is given once, by the monitor."""
        self.device.enable_msi()
        self.device.bus_master()

    def dma_works(self, text):
        os.pwrite(self.ram, text + b"\0" * 16, 0x3000)
        os.pwrite(self.ram, bytes(64), 0x5000)
        self.device.edu_dma(0x3000, EDU_BUFFER, len(text), INTERRUPT)
        first = signalled(self.event)
        self.device.edu_dma(EDU_BUFFER, 0x5000, len(text), TO_MEMORY | INTERRUPT)
        return first == 1 and signalled(self.event) == 1 and \
            os.pread(self.ram, len(text), 0x5000) == text

    def others_go_on(self):
        """Our own device answers, and at once."""
        begin = time.monotonic()
        right = self.other.read32(0, 0) == EDU_ID
        return right and time.monotonic() - begin < IN_TIME_S


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_edu(folder, keys):
    """Registers, interrupts, DMA, reset; death and return."""
    with far_server(folder) as far, relay_server(folder, keys) as server, Machine(folder) as machine:
        device = machine.device
        expect("registers%s" % keys, device.read32(0, 0) == EDU_ID and device.read32(CONFIG, 0) == 0x11e81234)
        device.set_eventfds(MSI, [machine.event])
        machine.set_up()
        expect("DMA and interrupts%s" % keys, machine.dma_works(b"there and back"), server.output())
        device.write32(0, 4, 5)
        expect("liveness", device.read32(0, 4) == 0xfffffffa)
        device.command(RESET)
        expect("a reset comes through%s" % keys, device.read32(0, 4) != 0xfffffffa)
        machine.unit.unmap(0, RAM)
        machine.set_up()
        expect("no memory, no DMA%s" % keys, not dma_arrives(machine))
        machine.unit.map(0, RAM, machine.ram)
        expect("and again%s" % keys, machine.dma_works(b"mapped again"))

        far.process.kill()
        far.process.wait()
        expect("registers of a dead one%s" % keys, device.read32(0, 0) == ONES)
        device.write32(0, 4, 1)
        expect("a reset of a dead one fails%s" % keys, refused(device, RESET))
        expect("the others go on%s" % keys, machine.others_go_on())
        machine.unit.unmap(0, RAM)
        machine.unit.map(0, RAM, machine.ram)
        with far_server(folder):
            device.command(RESET)
            expect("it is back%s" % keys, device.read32(0, 0) == EDU_ID)
            machine.set_up()
            expect("with its interrupts and memory%s" % keys, machine.dma_works(b"after death"),
                   server.output())
            expect("it ends well%s" % keys, server.stop() == 0 and "commands passed on" in server.output(),
                   server.output())
            asked = counter(server.output(), "reads that it asked for")
            told = counter(server.output(), "mappings told to the far server")
            expect("%s DMA by messages%s" % ("all" if keys else "no", keys),
                   asked > 0 if keys else asked == 0 and told > 1, server.output())


def dma_arrives(machine):
    os.pwrite(machine.ram, bytes(64), 0x5000)
    machine.device.edu_dma(EDU_BUFFER, 0x5000, 16, TO_MEMORY | INTERRUPT)
    signalled(machine.event, 0.3)
    return any(os.pread(machine.ram, 64, 0x5000))


def refused(client, command, payload=b""):
    try:
        client.command(command, payload)
        return False
    except Refused:
        return True


def test_stopped(folder):
    """A far server that hangs: its registers read as ones in time, memory leaves, the others go on; when it
    goes on it is back, reset."""
    with far_server(folder) as far, relay_server(folder) as server, Machine(folder) as machine:
        device = machine.device
        device.set_eventfds(MSI, [machine.event])
        machine.set_up()
        expect("DMA before", machine.dma_works(b"before"))
        device.write32(0, 4, 5)
        far.process.send_signal(signal.SIGSTOP)
        begin = time.monotonic()
        device.send(device.frame(9, struct.pack("<QII", 0, 0, 4)))
        expect("while it hangs the others go on", machine.others_go_on())
        expect("it is given up in time", device.reply(device.next_id)[16:] == b"\xff" * 4
               and time.monotonic() - begin < SOON_S, time.monotonic() - begin)
        begin = time.monotonic()
        machine.unit.unmap(0, RAM)
        expect("memory leaves", time.monotonic() - begin < SOON_S)
        machine.unit.map(0, RAM, machine.ram)
        begin = time.monotonic()
        expect("a reset fails in time", refused(device, RESET) and time.monotonic() - begin < SOON_S)
        far.process.send_signal(signal.SIGCONT)
        expect("it is back", wait_until(lambda: device.read32(0, 0) == EDU_ID), server.output())
        expect("as after power-on", device.read32(0, 4) != 0xfffffffa)
        machine.set_up()
        expect("DMA after", machine.dma_works(b"after"), server.output())

        # Memory leaves while it hangs; it goes on before anything else was asked of it. It is reset, without a
        # reset of the client's.
        device.write32(0, 4, 5)
        far.process.send_signal(signal.SIGSTOP)
        machine.unit.unmap(0, RAM)
        far.process.send_signal(signal.SIGCONT)
        expect("it is back after a fence", wait_until(lambda: device.read32(0, 4) not in (0xfffffffa, ONES)),
               server.output())
        machine.unit.map(0, RAM, machine.ram)
        machine.set_up()
        expect("DMA after a fence", machine.dma_works(b"let in again"), server.output())

        # Memory leaves while it hangs, and it is not known yet that it does.
        far.process.send_signal(signal.SIGSTOP)
        begin = time.monotonic()
        machine.unit.unmap(0, RAM)
        expect("memory leaves one that hangs", time.monotonic() - begin < SOON_S, time.monotonic() - begin)
        expect("and the others go on", machine.others_go_on())
        far.process.send_signal(signal.SIGCONT)
        far.process.kill()
        expect("it ends well", server.stop() == 0, server.output())


def test_patient(folder):
    """Who gives invalidations more time gives it to answers."""
    with far_server(folder) as far, relay_server(folder, more=["--ack-timeout", "30000"]) as server, \
            Machine(folder) as machine:
        device = machine.device
        expect("there", device.read32(0, 0) == EDU_ID)
        far.process.send_signal(signal.SIGSTOP)
        device.send(device.frame(9, struct.pack("<QII", 0, 0, 4)))
        time.sleep(LATE_S)
        far.process.send_signal(signal.SIGCONT)
        expect("a late answer is one", device.reply(device.next_id)[16:] == struct.pack("<I", EDU_ID),
               server.output())
        expect("it ends well", server.stop() == 0, server.output())
        expect("never lost", counter(server.output(), "times that the far server was lost") == 0)


def test_killed_at_any_time(folder):
    """While a client does all sorts of things, the far server is killed and started, again and again."""
    with relay_server_after(folder) as (server, first), Machine(folder) as machine:
        stop = threading.Event()
        deaths = [0]

        def kill_and_start():
            far = first
            while not stop.is_set():
                time.sleep(0.003 * (deaths[0] % 7))
                far.process.kill()
                far.process.wait()
                deaths[0] += 1
                far = far_server(folder)
                wait_until(lambda f=far: stop.is_set() or "connected" in f.output(), 8)
            far.process.kill()
            far.process.wait()

        device = machine.device
        device.read32(0, 0)
        thread = threading.Thread(target=kill_and_start)
        thread.start()
        end, last = time.monotonic() + 6, time.monotonic() + 60
        wrong, seen, resets = [], set(), 0
        while time.monotonic() < end or (time.monotonic() < last and min(deaths[0], resets) <= 3):
            seen.add(device.read32(0, 0))
            device.write32(0, 4, 1)
            try:
                device.command(RESET)
                resets += 1
                device.enable_msi()
                device.bus_master()
                device.set_eventfds(MSI, [machine.event])
                machine.device.edu_dma(0x3000, EDU_BUFFER, 16, INTERRUPT)
            except Refused:
                pass
            except IndexError:
                wrong.append("a short answer")
            machine.unit.unmap(0, RAM)
            machine.unit.map(0, RAM, machine.ram)
            if not machine.others_go_on():
                wrong.append("the others stand still")
        stop.set()
        thread.join()
        expect("killed at any time", not wrong and seen <= {EDU_ID, ONES} and deaths[0] > 3 and resets > 3,
               (wrong, [hex(v) for v in seen], deaths, resets))
        expect("the server goes on", machine.others_go_on() and server.stop() == 0, server.output())


class relay_server_after:
    """A relay whose far server may die: no `with` of its own."""

    def __init__(self, folder):
        self.far = far_server(folder)
        self.server = relay_server(folder)

    def __enter__(self):
        return self.server.__enter__(), self.far

    def __exit__(self, *what):
        self.server.__exit__(*what)
        self.far.__exit__(*what)


def test_garbage(folder):
    """A far server that talks nonsense from the first byte on: the device is not there, all else is."""
    path = os.path.join(folder, "far")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(8)
    listener.settimeout(0.1)
    stop = threading.Event()

    def babble():
        number = 0
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except socket.timeout:
                continue
            number += 1
            try:
                connection.sendall(os.urandom(16 * number) if number % 2 else
                                   struct.pack("<HHIII", number, 1, 20, 1, 0) + b"\0\0\7\0")
                connection.settimeout(0.2)
                while connection.recv(4096) and not stop.is_set():
                    pass
            except OSError:
                pass
            connection.close()

    thread = threading.Thread(target=babble)
    thread.start()
    try:
        with relay_server(folder) as server, Machine(folder) as machine:
            expect("no device", refused(machine.device, 4, struct.pack("<IIII", 16, 0, 0, 0)), server.output())
            expect("the others are there", machine.others_go_on())
            time.sleep(1)
            server.wait_for("makes no sense")
            expect("still", machine.others_go_on(), server.output())
            expect("it ends well", server.stop() == 0, server.output())
    finally:
        stop.set()
        thread.join()
        listener.close()
        os.unlink(path)


def test_clients(folder):
    """One client of the relay is one client there."""
    with far_server(folder) as far, relay_server(folder) as server:
        for _ in range(3):
            with Machine(folder) as machine:
                expect("power-on state", machine.device.read32(0, 4) == 0)
                machine.device.write32(0, 4, 5)
                machine.device.set_eventfds(MSI, [machine.event])
                machine.set_up()
                expect("DMA of this client", machine.dma_works(b"one after the other"), server.output())
        expect("each was one there", wait_until(lambda: far.output().count("client left") == 3), far.output())


def test_disk(folder):
    """An NVMe disk in the far process: data comes through, and a driver that starts again finds it."""
    with open(os.path.join(folder, "disk"), "wb") as f:
        f.truncate(4 << 20)
    far = far_server(folder, "nvme,file=disk")
    try:
        with relay_server(folder) as server, Machine(folder) as machine:
            disk = Disk(machine.device, machine.ram, machine.event)
            disk.write(3, b"written through two servers")
            expect("data", disk.read(3) == b"written through two servers")
            far.process.kill()
            far.process.wait()
            expect("the guest sees a failed controller",
                   machine.device.read32(0, nvme_client.CSTS) == ONES)
            far = far_server(folder, "nvme,file=disk")
            machine.device.command(RESET)
            disk = Disk(machine.device, machine.ram, machine.event)
            expect("data after", disk.read(3) == b"written through two servers", server.output())
    finally:
        far.__exit__()


def test_usage(folder):
    near = "vfio-user:far,at=06.0,socket=near"
    for options, vtd, wanted in [
            (["--device", near], "vtd", "needs --caching-mode"),
            (["--iommu", "none", "--device", near], None, "--iommu none has none"),
            (["--iommu", "none", "--device", near + ",isolate"], None, "--iommu none has none"),
            (["--caching-mode", "--device", "vfio-user,at=06.0,socket=near"], "vtd", "vfio-user:SOCKET is needed"),
            (["--caching-mode", "--device", near + ",isolate=1"], "vtd", "takes no value"),
            (["--caching-mode", "--handover", "h", "--device", near], "vtd", "cannot be handed over")]:
        with Server(VIOMMU, folder, options, vtd=vtd, ready=False) as server:
            expect("%s: 2 and a message" % options, server.wait() == 2 and wanted in server.output(),
                   server.output())
    with open(os.path.join(folder, "file"), "w", encoding="ascii"):
        pass
    datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagrams.bind(os.path.join(folder, "datagrams"))
    for path in "far", "n" * 200, "file", ".", "datagrams":
        with Server(VIOMMU, folder, ["--device", "vfio-user:%s,at=06.0,socket=near,isolate" % path],
                    ready=False) as server:
            expect("no far server: 1 and a message", server.wait() == 1 and "cannot connect to the far server"
                   in server.output(), server.output())
    datagrams.close()


def test_silent(folder):
    """One that takes the connection, or does not even do that, and says nothing: all else is there, and the
    end comes at once."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.join(folder, "far"))
    listener.listen(64)     # on a slow machine it is connected to again and again
    for accepted in False, True:
        with relay_server(folder) as server, Machine(folder) as machine:
            far = listener.accept()[0] if accepted else None
            machine.device.send(machine.device.frame(4, struct.pack("<IIII", 16, 0, 0, 0)))
            expect("the others are there", machine.others_go_on())
            begin = time.monotonic()
            expect("Ctrl-C: 0", server.stop(signal.SIGINT) == 0, server.output())
            expect("at once", time.monotonic() - begin < SOON_S)
            if far:
                far.close()
        if not accepted:
            listener.accept()[0].close()
    with relay_server(folder) as server, Machine(folder) as machine:
        server.wait_for("it does not answer; trying again")
        expect("no device", refused(machine.device, 4, struct.pack("<IIII", 16, 0, 0, 0)), server.output())
        expect("the others are there still", machine.others_go_on())
        expect("it ends well", server.stop() == 0, server.output())
    listener.close()
    os.unlink(os.path.join(folder, "far"))


def main():
    for name, arguments in [(test_usage, ()), (test_edu, ("",)), (test_edu, (",isolate",)), (test_stopped, ()),
                            (test_patient, ()),
                            (test_clients, ()), (test_disk, ()), (test_silent, ()), (test_garbage, ()),
                            (test_killed_at_any_time, ())]:
        with tempfile.TemporaryDirectory(prefix="viommu-relay-") as folder:
            begin = time.monotonic()
            name(folder, *arguments)
            print("%s%s: %.1f s" % (name.__name__, arguments, time.monotonic() - begin))
    return 1 if failures else 0


sys.exit(main())
