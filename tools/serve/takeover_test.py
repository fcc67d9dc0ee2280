#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""takeover_test.py VIOMMU - one `viommu serve` takes over from another while a client goes on.

The client is a small virtual machine monitor: memory, page tables of a VT-d unit in it, and an edu
device that does DMA through them and interrupts by eventfd.
"""

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
from vfio_user_client import (Client, Refused, EDU_BUFFER, INTERRUPT, MSI, REGION_READ,
                              REGION_WRITE, TO_MEMORY, guest_memory, signalled)

VIOMMU = sys.argv[1]
failures = []

RAM = 1 << 20
ROOT, CONTEXT, TABLE, DATA = 0x1000, 0x2000, 0x3000, 0x10000
IOVA = 0x7000
GCMD, GSTS, RTADDR, FSTS, IOTLB = 0x18, 0x1c, 0x20, 0x34, 0xf8
HELLO, STATE, REFUSAL, READY, GO = 1, 2, 3, 4, 5
MAGIC, FORMAT = b"viommuHO", 2


def expect(what, condition, detail=""):
    if not condition:
        failures.append(what)
        print("not ok %s %s" % (what, detail))


class Guest:
    """What stands behind one server: memory, and a connection to each of its functions."""

    def __init__(self, folder, unit=True, suffix=""):
        self.ram = guest_memory(RAM)
        self.event = os.eventfd(0, os.EFD_NONBLOCK)
        self.unit = Client(os.path.join(folder, "vtd" + suffix)) if unit else None
        self.edu = Client(os.path.join(folder, "edu" + suffix))
        for client in filter(None, (self.unit, self.edu)):
            client.map(0, RAM, self.ram)
        self.edu.set_eventfds(MSI, [self.event])
        self.edu.bus_master()
        self.edu.enable_msi()
        if unit:
            self.translate()

    def put64(self, address, value):
        os.pwrite(self.ram, struct.pack("<Q", value), address)

    def translate(self):
        """Tables of four levels, in which IOVA is DATA; and translation on."""
        self.put64(ROOT, CONTEXT | 1)
        self.put64(CONTEXT + 16 * 0x28, TABLE | 1)
        self.put64(CONTEXT + 16 * 0x28 + 8, 0x102)
        for level in range(3):
            self.put64(TABLE + 0x1000 * level, TABLE + 0x1000 * (level + 1) | 3)
        self.put64(TABLE + 0x3000 + 8 * (IOVA >> 12), DATA | 3)
        os.pwrite(self.ram, os.pread(self.ram, 16, CONTEXT + 16 * 0x28), CONTEXT + 16 * 0x30)
        for page in range(nvme_client.FIRST, nvme_client.LAST, 0x1000):
            self.put64(TABLE + 0x3000 + 8 * (page >> 12), page | 3)
        self.unit.write64(0, RTADDR, ROOT)
        self.unit.write32(0, GCMD, 1 << 30)
        self.unit.write32(0, GCMD, 1 << 31)
        self.wait_for_bit("translation is on", GSTS, 1)

    def wait_for_bit(self, what, register, value):
        """Until the highest bit of a register is this."""
        end = time.monotonic() + 20
        while self.unit.read32(0, register) >> 31 != value:
            if time.monotonic() > end:
                expect(what, False)
                return

    def disk(self, folder):
        """Its second device, whose memory is mapped one to one."""
        client = Client(os.path.join(folder, "disk"))
        if not self.unit:
            client.map(0, RAM, self.ram)
        return Disk(client, self.ram, os.eventfd(0, os.EFD_NONBLOCK))

    def address(self, iova):
        return iova if self.unit else DATA + (iova - IOVA)

    def check(self, when, value):
        """DMA both ways, with its interrupt, in which `value` comes back."""
        os.pwrite(self.ram, value, DATA)
        self.edu.edu_dma(self.address(IOVA), EDU_BUFFER, len(value), INTERRUPT)
        expect("%s: an interrupt comes" % when, signalled(self.event) == 1)
        self.edu.edu_dma(EDU_BUFFER, self.address(IOVA) + 0x800, len(value), TO_MEMORY)
        self.edu.read32(0, 0)
        expect("%s: DMA both ways" % when, os.pread(self.ram, len(value), DATA + 0x800) == value)

    def close(self):
        for client in filter(None, (self.unit, self.edu)):
            client.close()
        os.close(self.ram)
        os.close(self.event)


DEVICE = ["--device", "edu,at=05.0,socket=edu"]


def successor(folder, socket_name="over", options=(), **more):
    return Server(VIOMMU, folder, ["--takeover", socket_name, *options], vtd=None, **more)


def descriptors(server):
    return len(os.listdir("/proc/%d/fd" % server.process.pid))


def test_goes_on(folder):
    """And again, and again: each successor offers the next handover, the last in the same place."""
    with Server(VIOMMU, folder, DEVICE + ["--handover", "over"]) as first:
        guest = Guest(folder)
        guest.check("before", b"first")
        guest.edu.write32(0, 4, 0x12345678)
        mode = os.stat(os.path.join(folder, "over")).st_mode & 0o777
        expect("only the same user may ask", mode == 0o600, oct(mode))
        with successor(folder, options=["--handover", "over2"]) as second:
            expect("the first one ends well", first.wait() == 0 and "has taken over" in first.output(),
                   first.output())
            expect("its socket is gone", not os.path.exists(os.path.join(folder, "over")))
            guest.check("after", b"second")
            expect("registers stay", guest.edu.read32(0, 4) == 0xffffffff ^ 0x12345678)
            expect("the unit's too", guest.unit.read32(0, GSTS) >> 31 == 1)
            guest.edu.edu_dma(EDU_BUFFER, 0x9000, 4, TO_MEMORY)
            expect("what is not mapped is a fault", guest.unit.read32(0, FSTS) & 2 == 2)
            with successor(folder, "over2", ["--handover", "over2"]) as third:
                expect("the second one ends well", second.wait() == 0)
                guest.check("after two", b"third")
                count = descriptors(third)
                with successor(folder, "over2", ["--handover", "over2"]) as fourth:
                    expect("the third one ends well", third.wait() == 0)
                    guest.check("after three", b"more")
                    expect("descriptors do not become more", descriptors(fourth) == count,
                           (count, descriptors(fourth)))
                    guest.check("after three", b"fourth")
                    guest.edu.unmap(0, RAM)
                    guest.close()
                    next_guest = Guest(folder)
                    next_guest.check("the next client", b"fifth")
                    next_guest.close()
                    expect("the last one ends with a summary", fourth.stop() == 0
                           and "summary" in fourth.output(), fourth.output())
                    expect("and nothing stays", not [n for n in os.listdir(folder)
                                                     if not n.endswith(".log")], os.listdir(folder))


def test_another_folder(folder):
    """Names are relative to the folder of the first server; the new one's own to its own."""
    there = os.path.join(folder, "there")
    os.mkdir(there)
    with Server(VIOMMU, folder, DEVICE + ["--handover", "over"]) as first:
        with successor(there, "../over", ["--handover", "next"]) as second:
            expect("the first one ends", first.wait() == 0)
            second.wait_for("Ctrl-C")
            expect("its own name", os.path.exists(os.path.join(there, "next")))
            guest = Guest(folder)
            guest.check("a client that comes later", b"later")
            guest.close()
            second.stop()
            expect("nothing stays", not os.path.exists(os.path.join(folder, "edu"))
                   and not os.path.exists(os.path.join(there, "next")))


def test_without_unit(folder):
    with Server(VIOMMU, folder, ["--iommu", "none", "--handover", "over"] + DEVICE, vtd=None) as first:
        guest = Guest(folder, unit=False)
        guest.check("before", b"first")
        with successor(folder, options=["--trace", "trace"]) as second:
            expect("the first one ends", first.wait() == 0)
            guest.check("after", b"second")
            expect("there is nothing to trace", "no unit" in second.output(), second.output())
            guest.close()
            second.stop()


def test_mirror(folder):
    """What a mirror holds is taken over, not told again, and its file is written on."""
    mirror = DEVICE[:1] + [DEVICE[1] + ",mirror=trace"]
    path = os.path.join(folder, "trace")
    with Server(VIOMMU, folder, ["--caching-mode", "--handover", "over"] + mirror) as first:
        guest = Guest(folder)
        guest.check("before", b"first")
        with open(path, encoding="ascii") as f:
            before = f.read()
        expect("the page is mapped", '"map"' in before, before)
        with successor(folder) as second:
            expect("the first one ends", first.wait() == 0)
            guest.check("after", b"second")
            with open(path, encoding="ascii") as f:
                expect("nothing is told again", f.read() == before)
            guest.put64(TABLE + 0x3000 + 8 * (IOVA >> 12), 0)
            guest.unit.write64(0, IOTLB, 1 << 63 | 1 << 60)
            guest.wait_for_bit("the invalidation completes", IOTLB + 4, 0)
            with open(path, encoding="ascii") as f:
                after = f.read()
            expect("what changes is told", after.startswith(before) and '"unmap"' in after[len(before):],
                   after)
            guest.close()
            second.stop()


def make_disk(folder):
    with open(os.path.join(folder, "image"), "wb") as f:
        f.truncate(1 << 20)
    return DEVICE + ["--device", "nvme,at=06.0,socket=disk,file=image,hold=hold"]


def check_disk(folder, unit):
    """Queues go on where they were, and the file stays locked for others."""
    options = make_disk(folder) + ["--handover", "over"]
    if not unit:
        options += ["--iommu", "none"]
    with Server(VIOMMU, folder, options, vtd="vtd" if unit else None) as first:
        guest = Guest(folder, unit)
        disk = guest.disk(folder)
        for block in range(20):
            disk.write(block, b"block %d" % block)
        with successor(folder, options=["--handover", "over"]) as second:
            expect("the first one ends", first.wait() == 0, first.output())
            expect("what was written is read", disk.read(7) == b"block 7")
            for block in range(20):
                disk.write(100 + block, b"block %d" % (100 + block))
            guest.check("and the edu", b"edu")
            thief = ["--device", "nvme,at=06.0,socket=other,file=image"]
            with Server(VIOMMU, folder, thief, vtd="other-vtd", ready=False) as other:
                expect("the file is still locked", other.wait() == 1 and "another" in other.output(),
                       other.output())
            with successor(folder) as third:
                expect("the second one ends", second.wait() == 0)
                expect("twice", disk.read(107) == b"block 107" and disk.read(8) == b"block 8")
                disk.client.close()
                guest.close()
                expect("the last one ends", third.stop() == 0)
    with open(os.path.join(folder, "image"), "rb") as f:
        image = f.read()
    expect("the file has it all", all(image[4096 * b:4096 * b + 16].rstrip(b"\0") == b"block %d" % b
                                      for b in [*range(20), *range(100, 120)]))


def test_disk(folder):
    check_disk(folder, True)


def test_disk_without_unit(folder):
    check_disk(folder, False)


def test_disk_at_work(folder):
    """Work that ends soon is waited for; one that does not makes the server stay."""
    hold = os.path.join(folder, "hold")
    with Server(VIOMMU, folder, make_disk(folder) + ["--handover", "over"]) as first:
        guest = Guest(folder)
        disk = guest.disk(folder)
        disk.write(3, b"three")
        with open(hold, "w", encoding="ascii"):
            pass
        disk.begin(nvme_client.READ, 3)
        with successor(folder, ready=False) as second:
            expect("refused", second.wait() == 1 and "work does not end" in second.output(),
                   second.output())
        guest.check("the first one goes on", b"on")
        os.unlink(hold)
        expect("and the disk", disk.completion(disk.io) == (disk.io.cid, 0))
        expect("and again", disk.read(3) == b"three")
        with open(hold, "w", encoding="ascii"):
            pass
        disk.begin(nvme_client.READ, 3)
        with successor(folder, ready=False) as second:
            first.wait_for("asks to take over", 2)
            time.sleep(0.3)
            late = threading.Thread(target=disk.begin, args=(nvme_client.READ, 3))
            late.start()                                # is for the next one
            time.sleep(0.1)
            os.unlink(hold)
            late.join()
            expect("the first one ends", first.wait() == 0, first.output())
            done = sorted([disk.completion(disk.io), disk.completion(disk.io)])
            expect("its work is done, and what came later, too",
                   done == [(disk.io.cid - 1, 0), (disk.io.cid, 0)], done)
            expect("and all goes on", disk.read(3) == b"three")
            disk.client.close()
            guest.close()
            second.stop()


def test_half_a_message(folder):
    """What a client has sent in part, and what it has not read, goes over."""
    with Server(VIOMMU, folder, DEVICE + ["--handover", "over"]) as first:
        guest = Guest(folder)
        whole = guest.edu.frame(REGION_WRITE, struct.pack("<QII", 4, 0, 4) + struct.pack("<I", 0x1234))
        guest.edu.send(whole[:21])
        time.sleep(0.1)
        with successor(folder) as second:
            expect("the first one ends", first.wait() == 0)
            guest.edu.send(whole[21:])
            guest.edu.reply(guest.edu.next_id)
            expect("the message counts", guest.edu.read32(0, 4) == 0xffffffff ^ 0x1234)
            guest.close()
            second.stop()


def test_under_way(folder):
    """Commands that are sent while the server changes are answered, each once and in order."""
    with Server(VIOMMU, folder, DEVICE + ["--handover", "over"]) as first:
        guest = Guest(folder)
        stop = threading.Event()
        wrong = []

        def talk():
            number = 0
            while not stop.is_set():
                number += 1
                guest.edu.write32(0, 4, number)
                if guest.edu.read32(0, 4) != 0xffffffff ^ number:
                    wrong.append(number)

        thread = threading.Thread(target=talk)
        thread.start()
        last = first
        try:
            for i in range(5):
                name = "over" if i % 2 == 0 else "other"
                following = successor(folder, name, ["--handover", "other" if i % 2 == 0 else "over"])
                expect("server %d ends" % i, last.wait() == 0)
                last = following
        finally:
            stop.set()
            thread.join()
        expect("all commands were answered", not wrong, wrong)
        guest.close()
        expect("the last one ends", last.stop() == 0)


class FakeSuccessor:
    """Speaks the handover by hand."""

    def __init__(self, folder):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(os.path.join(folder, "over"))

    def send(self, what, data=b"", version=FORMAT, fds=0):
        self.socket.sendall(MAGIC + struct.pack("<IIQII", version, what, len(data), fds, 0) + data)

    def receive(self):
        """(what, data); descriptors are closed."""
        head = self.exactly(32)
        if not head:
            return None, b""
        _, what, size, fds, _ = struct.unpack("<IIQII", head[8:])
        data = self.exactly(size)
        while fds > 0:
            _, got, _, _ = socket.recv_fds(self.socket, 1, 253)
            for fd in got:
                os.close(fd)
            fds -= len(got)
        return what, data

    def exactly(self, size):
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                return b""
            data += more
        return data

    def close(self):
        self.socket.close()


def test_no_successor(folder):
    """Whatever a would-be successor does before the last word, the server goes on."""
    with Server(VIOMMU, folder, DEVICE + ["--handover", "over"]) as first:
        guest = Guest(folder)

        def attempt(what, wanted, play):
            fake = FakeSuccessor(folder)
            play(fake)
            fake.close()
            first.wait_for(wanted)
            guest.check(what, what.encode())

        def says(*words):
            def play(fake):
                for word in words:
                    if word is None:
                        fake.receive()
                    else:
                        fake.send(*word[:1], **word[1])
            return play

        attempt("silence", "it went away", lambda fake: None)
        attempt("noise", "does not speak", lambda fake: fake.socket.sendall(b"x" * 32))
        attempt("another version", "another version", says((HELLO, {"version": FORMAT + 1})))
        attempt("half a hello", "it went away", lambda fake: fake.socket.sendall(MAGIC))
        attempt("the wrong word", "does not speak", says((GO, {})))
        attempt("a refusal", "no room here", says((HELLO, {}), None, (REFUSAL, {"data": b"no room here"})))
        attempt("it dies when it has everything", "it went away", says((HELLO, {}), None))
        attempt("a state of its own", "does not speak", says((HELLO, {}), None, (STATE, {})))
        attempt("a hello twice", "does not speak", says((HELLO, {}), None, (HELLO, {})))
        with successor(folder) as second:
            expect("then one that is right", first.wait() == 0, first.output())
            guest.check("after", b"after")
            guest.close()
            second.stop()


def test_no_server(folder):
    """A successor says what is wrong and ends, and touches nothing."""
    with successor(folder, "nowhere", ready=False) as server:
        expect("nobody there", server.wait() == 1 and "nowhere" in server.output(), server.output())
    with successor(folder, options=["--device", "edu,at=05.0,socket=x"], ready=False) as server:
        expect("the other one's options", server.wait() == 2 and "--device" in server.output(),
               server.output())


def relay(folder, change, back=True):
    """A server at "relay" that hands on what the one at "over" sends, changed, and an answer back."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.join(folder, "relay"))
    listener.listen(1)
    listener.settimeout(20)

    def run():
        peer, _ = listener.accept()
        listener.close()
        fake = FakeSuccessor(folder)
        fake.send(HELLO)
        peer.recv(32)
        head = fake.exactly(32)
        _, what, size, fds, _ = struct.unpack("<IIQII", head[8:])
        data = bytearray(fake.exactly(size))
        got = []
        while len(got) < fds:
            _, more, _, _ = socket.recv_fds(fake.socket, 1, 253)
            got += more
        change(peer, head, data, got)
        peer.settimeout(20)
        try:
            answer = peer.recv(32)
            if len(answer) == 32:
                size, = struct.unpack_from("<Q", answer, 16)
                if size:
                    answer += peer.recv(size, socket.MSG_WAITALL)  # the text comes by itself
        except ConnectionResetError:
            answer = b""
        if answer and back:
            fake.socket.sendall(answer)
        peer.close()
        fake.close()
        for fd in got:
            os.close(fd)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_state_is_damaged(folder):
    """A state that was cut short, changed, or lacks descriptors is refused whole."""

    def flip(peer, head, data, got):
        data[len(data) // 2] ^= 0x10
        peer.sendall(head + data)
        socket.send_fds(peer, [b"+"], got)

    def cut(peer, head, data, _got):
        peer.sendall(head + data[:len(data) // 2])
        peer.shutdown(socket.SHUT_WR)

    def no_fds(peer, head, data, _got):
        peer.sendall(head[:24] + struct.pack("<II", 0, 0) + data)

    def wrong_fds(peer, head, data, got):
        peer.sendall(head + data)
        socket.send_fds(peer, [b"+"], got[1:] + got[:1])

    def newer(peer, head, data, _got):
        peer.sendall(head[:8] + struct.pack("<I", FORMAT + 1) + head[12:] + data)

    with Server(VIOMMU, folder, DEVICE + ["--handover", "over"]) as first:
        guest = Guest(folder)
        for change, wanted in ((flip, "makes no sense"), (cut, "hung up"), (no_fds, "makes no sense"),
                               (wrong_fds, "cannot load"), (newer, "another version")):
            thread = relay(folder, change)
            with successor(folder, "relay", ready=False) as second:
                expect("%s: 1, and why" % change.__name__, second.wait() == 1
                       and wanted in second.output(), second.output())
            thread.join()
            os.unlink(os.path.join(folder, "relay"))
            guest.check(change.__name__, change.__name__.encode())
        guest.close()
        expect("the first one ends by itself only", first.stop() == 0)


def test_no_word(folder):
    """The first one is gone when the other is ready: that one ends, and touches nothing."""

    def all_of_it(peer, head, data, got):
        peer.sendall(head + data)
        socket.send_fds(peer, [b"+"], got)

    mirror = DEVICE[:1] + [DEVICE[1] + ",mirror=trace"]
    with Server(VIOMMU, folder, ["--caching-mode", "--handover", "over"] + mirror) as first:
        guest = Guest(folder)
        guest.check("before", b"before")
        with open(os.path.join(folder, "trace"), encoding="ascii") as f:
            before = f.read()
        thread = relay(folder, all_of_it, back=False)
        with successor(folder, "relay", ready=False) as second:
            expect("it ends, and says why", second.wait() == 1 and "hung up" in second.output(),
                   second.output())
        thread.join()
        first.wait_for("it went away")
        guest.check("after", b"after")
        with open(os.path.join(folder, "trace"), encoding="ascii") as f:
            expect("the mirror's file is as it was", f.read() == before)
        guest.close()
        again = Guest(folder)
        again.check("the next client", b"next")
        again.close()
        expect("the first one ends by itself only", first.stop() == 0)


def test_two_at_once(folder):
    """Of two successors one takes over, and the other ends."""
    with Server(VIOMMU, folder, DEVICE + ["--handover", "over"]) as first:
        guest = Guest(folder)
        with successor(folder, ready=False) as one, successor(folder, ready=False) as other:
            expect("the first one ends", first.wait() == 0, first.output())
            end = time.monotonic() + 20
            while one.process.poll() is None and other.process.poll() is None and time.monotonic() < end:
                time.sleep(0.01)
            lost, won = (one, other) if one.process.poll() is not None else (other, one)
            expect("one loses", lost.process.poll() == 1 and "cannot take over" in lost.output(), lost.output())
            won.wait_for("Ctrl-C")
            guest.check("after", b"after")
            guest.close()
            expect("the other serves", won.stop() == 0, won.output())


def test_memory_cut_short(folder):
    """A client has cut its memory's file: nobody can map it anew, so the first one goes on."""
    with Server(VIOMMU, folder, DEVICE + ["--handover", "over"]) as first:
        guest = Guest(folder)
        os.ftruncate(guest.ram, RAM // 2)
        with successor(folder, ready=False) as second:
            expect("refused", second.wait() == 1 and "cannot load" in second.output(), second.output())
        guest.check("the first one goes on", b"on")
        os.ftruncate(guest.ram, RAM)
        with successor(folder) as second:
            expect("then it can", first.wait() == 0, first.output())
            guest.check("and that, too", b"too")
            guest.close()
            second.stop()


def test_killed(folder):
    """A successor that is stopped before it is ready, and killed: the first one goes on."""
    with Server(VIOMMU, folder, DEVICE + ["--handover", "over"]) as first:
        guest = Guest(folder)
        fake = FakeSuccessor(folder)
        fake.send(HELLO)
        started = time.monotonic()
        first.wait_for("asks to take over")
        time.sleep(0.2)
        fake.close()
        guest.check("after a kill", b"killed")
        expect("it did not take long", time.monotonic() - started < 10)
        expect("signals are as ever", first.stop(signal.SIGINT) == 0)
        guest.close()


def test_a_client_that_is_refused(folder):
    """Refused commands, too, are as before."""
    with Server(VIOMMU, folder, DEVICE + ["--handover", "over"]) as first:
        guest = Guest(folder)
        with successor(folder) as second:
            first.wait()
            try:
                guest.edu.map(0x1000, 0x1000, guest.ram)
                expect("a region over another is refused", False)
            except Refused:
                pass
            guest.edu.unmap(0, RAM)
            guest.edu.map(0x1000, 0x1000, guest.ram)
            guest.close()
            second.stop()


def test_output_that_waits(folder):
    """What a client has not read goes over, and comes when it reads, without a word from it."""
    with Server(VIOMMU, folder, ["--iommu", "none", "--handover", "over"] + DEVICE, vtd=None) as first:
        guest = Guest(folder, unit=False)
        guest.edu.send(guest.edu.frame(REGION_READ, struct.pack("<QII", 0, 0, RAM)))
        time.sleep(0.3)
        with successor(folder) as second:
            expect("the first one ends", first.wait() == 0, first.output())
            try:
                got = guest.edu.reply(guest.edu.next_id)
                expect("all of it comes", len(got) == 16 + RAM, len(got))
            except OSError as error:
                expect("all of it comes", False, repr(error))
            guest.close()
            second.stop()


def test_dead_when_it_gets_the_word(folder):
    """It says that it is ready, and is gone: the first one goes on, and can be asked again."""
    with Server(VIOMMU, folder, DEVICE + ["--handover", "over"]) as first:
        guest = Guest(folder)
        before = descriptors(first)
        for time_number in range(1, 4):
            fake = FakeSuccessor(folder)
            fake.send(HELLO)
            fake.receive()
            first.process.send_signal(signal.SIGSTOP)
            fake.send(READY)
            fake.close()
            first.process.send_signal(signal.SIGCONT)
            first.wait_for("does not take over", time_number)
            guest.check("after %d" % time_number, b"word")
        expect("no descriptor is lost", descriptors(first) == before,
               (before, descriptors(first)))
        expect("nothing else is wrong", "cannot" not in first.output(), first.output())
        with successor(folder) as second:
            expect("then one that lives", first.wait() == 0, first.output())
            guest.check("after", b"lives")
            guest.close()
            second.stop()


def test_a_silent_successor(folder):
    """It connects and says nothing, for as long as it likes: others are served."""
    with Server(VIOMMU, folder, DEVICE + ["--handover", "over"]) as first:
        guest = Guest(folder)
        fake = FakeSuccessor(folder)
        with successor(folder) as second:
            expect("the first one ends", first.wait() == 0, first.output())
            guest.check("after", b"after")
            guest.close()
            second.stop()
        fake.close()


def test_another_in_its_place(folder):
    """A server that ends does not remove the socket that another has put in place of its own."""
    with Server(VIOMMU, folder, DEVICE + ["--handover", "over"]) as first:
        os.unlink(os.path.join(folder, "over"))
        options = ["--device", "edu,at=05.0,socket=edu2", "--handover", "over"]
        with Server(VIOMMU, folder, options, vtd="vtd2") as other:
            expect("the first one ends", first.stop() == 0)
            expect("the socket is still there", os.path.exists(os.path.join(folder, "over")))
            other.stop()
            expect("and gone with its server", not os.path.exists(os.path.join(folder, "over")))


def wait_until_settled(first, second):
    """The second one is gone: until the first one knows whether it goes on itself."""
    name = "process %d " % second.process.pid
    end = time.monotonic() + 20
    while name + "asks" in first.output() and name + "does not take over" not in first.output() \
            and first.process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)


def test_killed_anywhere(folder):
    """A successor is killed after ever longer times, until it has taken over before that."""
    delay, others = 0.0, 0
    with Server(VIOMMU, folder, make_disk(folder) + ["--handover", "over"]) as first:
        guest = Guest(folder)
        disk = guest.disk(folder)
        disk.write(5, b"%d" % others)
        before = descriptors(first)
        while True:
            with successor(folder, ready=False) as second:
                time.sleep(delay)
                if "Ctrl-C" in second.output():
                    expect("the first one ends", first.wait() == 0, first.output())
                    expect("its disk goes on", disk.read(5) == b"%d" % others)
                    guest.check("after all", b"all")
                    disk.client.close()
                    guest.close()
                    second.stop()
                    break
                second.process.kill()
                second.wait()
                wait_until_settled(first, second)
                if first.process.poll() is not None or "has taken over" in first.output():
                    break                           # it was killed after the word
            others += 1
            disk.write(5, b"%d" % others)
            guest.check("killed after %d ms" % (delay * 1000), b"%d" % others)
            expect("no descriptor is lost", descriptors(first) <= before + 1,
                   (before, descriptors(first)))
            delay += 0.002


def test_ended_meanwhile(folder):
    """The first one is told to end while a successor waits: it ends, and takes all along."""
    with Server(VIOMMU, folder, make_disk(folder) + ["--handover", "over"]) as first:
        guest = Guest(folder)
        disk = guest.disk(folder)
        hold = os.path.join(folder, "hold")
        disk.write(3, b"three")
        with open(hold, "w", encoding="ascii"):
            pass
        disk.begin(nvme_client.READ, 3)
        with successor(folder, ready=False) as second:
            first.wait_for("asks to take over")
            expect("the first one ends", first.stop() == 0, first.output())
            expect("the other one, too", second.wait() == 1 and "hung up" in second.output(),
                   second.output())
        os.unlink(hold)
        disk.client.close()
        guest.close()
        expect("no socket stays", [n for n in os.listdir(folder) if not n.endswith(".log")] == ["image"],
               os.listdir(folder))


def test_a_client_goes_meanwhile(folder):
    """Clients hang up while all is being handed over: the next ones are served."""
    with Server(VIOMMU, folder, make_disk(folder) + ["--handover", "over"]) as first:
        guest = Guest(folder)
        disk = guest.disk(folder)
        hold = os.path.join(folder, "hold")
        disk.write(3, b"three")
        with open(hold, "w", encoding="ascii"):
            pass
        disk.begin(nvme_client.READ, 3)
        with successor(folder, ready=False) as second:
            first.wait_for("asks to take over")
            disk.client.close()
            guest.close()
            os.unlink(hold)
            second.wait_for("Ctrl-C")
            expect("the first one ends", first.wait() == 0, first.output())
            again = Guest(folder)
            expect("the next one's disk", again.disk(folder).read(3) == b"three")
            again.check("the next one", b"next")
            again.close()
            second.stop()


def test_options_go_along(folder):
    """The unit that takes over is as the first one was made."""
    options = ["--width", "57", "--cache-mode", "hostile,quota=100,seed=7", "--domain-bits", "8",
               "--isolate", "--handover", "over"]
    with Server(VIOMMU, folder, make_disk(folder) + options + ["--trace", "first"]) as first:
        guest = Guest(folder)
        disk = guest.disk(folder)
        disk.write(9, b"nine")
        capabilities = guest.unit.read(0, 8, 16)
        with successor(folder, options=["--handover", "over", "--trace", "trace"]) as second:
            expect("the first one ends", first.wait() == 0, first.output())
            expect("capabilities stay", guest.unit.read(0, 8, 16) == capabilities)
            guest.check("after", b"after")
            expect("the disk goes on", disk.read(9) == b"nine")
            for block in range(40):
                disk.write(block, b"%d" % block)
            with successor(folder) as third:
                expect("the second one ends", second.wait() == 0, second.output())
                guest.check("after that", b"again")
                expect("the disk, too", disk.read(39) == b"39" and disk.read(1) == b"1")
                disk.client.close()
                guest.close()
                third.stop()
        for name in "first", "trace":
            with open(os.path.join(folder, name), encoding="ascii") as f:
                lines = f.read().splitlines()
            expect("its trace is of it, and whole: %s" % name,
                   '"width":57' in lines[0] and '"end"' in lines[-1], lines)


def main(names):
    """Each of these whose name begins with test_, in a folder of its own; then ends the program."""
    for test in [value for name, value in sorted(names.items()) if name.startswith("test_")]:
        with tempfile.TemporaryDirectory(prefix="viommu-takeover-") as where:
            test(where)
    print("failed" if failures else "ok")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main(globals())
