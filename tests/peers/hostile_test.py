#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""hostile_test.py VIOMMU - a hostile device server behind `viommu serve --device vfio-user:SOCKET`: what
it reaches of the guest's memory, and what it does to the server, the guest and other devices.

Behind the unit are the hostile device (05.0) and an edu of the server's own (06.0), which must work
whatever happens.
"""

import os
import sys
import tempfile
import threading
import time

from hostile_far import HostileFar
from vtd_guest import PAGE, RAM, READ, VtdGuest, WRITE
from server_process import Server
from vfio_user_client import EDU_BUFFER, INTERRUPT, MSI, RESET, TO_MEMORY, Refused, signalled

VIOMMU = sys.argv[1]
HOSTILE, EDU = 0x28, 0x30
# Device addresses beyond all memory, so that a guest-physical one is never one of them.
WINDOW, SOURCE, SINK = 0x40000000, 0x40002000, 0x40004000
DATA, SECRET_AT, CANARY_AT = 0x200000, 0x300000, 0x380000
SECRET = b"nobody shall read this. "
# What an answer in time may take, on a machine that has other things to do.
PATIENCE = 20
MEMORY_MORE_KIB = 96 << 10
failures = []


def expect(what, condition, detail=""):
    if not condition:
        failures.append(what)
        print("not ok %s %s" % (what, detail), flush=True)


class World:
    """Hostile server, viommu serve, guest."""

    def __init__(self, folder, isolate, options=(), **far):
        self.folder = folder
        self.far = HostileFar(os.path.join(folder, "far"), **far)
        device = "vfio-user:far,at=05.0,socket=hostile" + (",isolate" if isolate else "")
        self.server = Server(VIOMMU, folder, [*options, "--caching-mode", "--device", device,
                                              "--device", "edu,at=06.0,socket=edu"])

    def __enter__(self):
        self.server.__enter__()
        self.guest = VtdGuest(self.folder, HOSTILE)
        self.put_edu()
        self.client = self.guest.connect(os.path.join(self.folder, "hostile"))
        self.client.bus_master()
        self.edu = self.guest.connect(os.path.join(self.folder, "edu"))
        self.edu.bus_master()
        self.event = os.eventfd(0, os.EFD_NONBLOCK)
        for address in (SECRET_AT, CANARY_AT):
            os.pwrite(self.guest.ram, SECRET * (PAGE // len(SECRET)), address)
        self.far.wait_for_client()
        return self

    def put_edu(self):
        """The edu has the first device's tables."""
        entry = os.pread(self.guest.ram, 16, 0x2000 + 16 * HOSTILE)
        os.pwrite(self.guest.ram, entry, 0x2000 + 16 * EDU)
        self.guest.invalidate()

    def __exit__(self, *error):
        for client in (self.client, self.edu, self.guest):
            client.close()
        os.close(self.event)
        if self.server.process.poll() is not None:
            expect("the server lives", False, self.server.output())
        elif not error[0]:
            expect("and ends well", self.server.stop() == 0, self.server.output())
        self.server.__exit__()
        self.far.close()

    def map(self, iova, address, rights=READ | WRITE):
        """Change it and invalidate."""
        self.guest.map(iova, address, rights)
        return self.guest.invalidate(iova)

    def others_work(self, when):
        """The edu behind the same unit."""
        self.map(SINK + PAGE, DATA + 4 * PAGE)
        value = os.urandom(16)
        os.pwrite(self.guest.ram, value, DATA + 4 * PAGE)
        self.edu.edu_dma(SINK + PAGE, EDU_BUFFER, 16, 0)
        self.edu.edu_dma(EDU_BUFFER, SINK + PAGE + 64, 16, TO_MEMORY)
        self.edu.read32(0, 0)
        expect("%s: the other device works" % when, os.pread(self.guest.ram, 16, DATA + 4 * PAGE + 64) == value)

    def device_works(self, when):
        """The hostile one, which does as it should for once."""
        self.map(WINDOW, DATA)
        value = os.urandom(16)
        os.pwrite(self.guest.ram, value, DATA)
        self.client.edu_dma(WINDOW, EDU_BUFFER, 16, 0)
        self.client.edu_dma(EDU_BUFFER, WINDOW + 64, 16, TO_MEMORY)
        self.client.read32(0, 0)
        expect("%s: the device works" % when, os.pread(self.guest.ram, 16, DATA + 64) == value)

    def comes_back(self, when):
        """It was lost, or not; after a reset it is there again."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.client.command(RESET)
                self.client.bus_master()
                if self.client.read32(0, 0) == 0x010000ed:
                    break
            except Refused:
                pass
            if time.monotonic() > end:
                expect("%s: it is found again" % when, False, self.server.output())
                return
            time.sleep(0.05)
        self.far.wait_for_client()
        self.device_works(when)

    def untouched(self, when):
        """Memory that no table leads to."""
        expect("%s: other memory is as it was" % when,
               all(os.pread(self.guest.ram, PAGE, at).startswith(SECRET * 20) for at in (SECRET_AT, CANARY_AT)))

    def open_files(self):
        return len(os.listdir("/proc/%d/fd" % self.server.process.pid))

    def memory_kib(self):
        with open("/proc/%d/status" % self.server.process.pid, encoding="ascii") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def reaches_nothing(world, when):
    """All guest-physical addresses, and everything odd, while there are three windows."""
    far = world.far
    world.map(WINDOW, DATA)
    world.map(SOURCE, DATA + PAGE, READ)
    world.map(SINK, DATA + 2 * PAGE, WRITE)
    windows = [(WINDOW, WINDOW + PAGE - 1)]
    expect("%s: what is its own it reaches" % when, far.ask(WINDOW, 8, b"8 bytes.") == b""
           and far.ask(WINDOW, 8) == b"8 bytes." and far.ask(SINK, 8, b"8 bytes.") == b""
           and len(far.ask(SOURCE, 8)) == 8)
    expect("%s: not to write what may be read" % when, isinstance(far.ask(SOURCE, 8, bytes(8)), int))
    expect("%s: nor the other way" % when, isinstance(far.ask(SINK, 8), int))
    wrong = far.catalogue(windows)
    expect("%s: nothing odd is carried out" % when, not wrong, wrong)
    reached = far.reach(0, RAM - 1, PAGE)
    expect("%s: no guest-physical address is read" % when, not reached, reached[:10])
    reached = far.reach(0, RAM - 1, PAGE, b"overwritten")
    expect("%s: or written" % when, not reached, reached[:10])
    for iova, size in ((WINDOW, PAGE), (SOURCE, PAGE), (SINK, PAGE)):
        reached = far.reach(iova - PAGE, iova - 1, 512) + far.reach(iova + size, iova + size + PAGE - 1, 512)
        expect("%s: nor what is beside 0x%x" % (when, iova), not reached, reached)
    world.untouched(when)


def test_isolated(folder):
    """It has no file of the guest's, and what it asks for is checked."""
    for isolate, options in (True, ()), (False, ("--isolate",)):
        with tempfile.TemporaryDirectory(dir=folder) as where, World(where, isolate, options) as world:
            world.device_works("isolated")
            reaches_nothing(world, "isolated")
            expect("isolated: no descriptor came along", world.far.fds_seen == 0, options)
            world.others_work("isolated")
            world.device_works("isolated, afterwards")


def test_mapped(folder):
    """It has the file, and can look through all of it: that is what isolation is for. By messages it
    reaches no more than when isolated."""
    with World(folder, False) as world:
        world.device_works("mapped")
        reaches_nothing(world, "mapped")
        world.far.wait_for("three windows", lambda: len(world.far.maps) == 3)
        expect("mapped: it is told of the windows, and of no other", world.far.maps ==
               {WINDOW: (PAGE, 3), SOURCE: (PAGE, 1), SINK: (PAGE, 2)}, world.far.maps)
        expect("mapped: in the file it finds what it should not", world.far.search_files(SECRET) > 0)
        world.others_work("mapped")


def test_without_twin(folder):
    """DMA on the main connection, in the middle of other commands."""
    for isolate in (True, False):
        with tempfile.TemporaryDirectory(prefix="viommu-hostile-") as where:
            with World(where, isolate, twin=False) as world:
                expect("there is none", world.far.twin is None)
                world.device_works("without a twin socket")
                reaches_nothing(world, "without a twin socket")
                world.others_work("without a twin socket")


def test_after_an_invalidation(folder):
    """It reads a page all the time, and the guest takes that away: of what is there afterwards it sees
    nothing, and writes nothing there."""
    with World(folder, True) as world:
        far, guest = world.far, world.guest
        answers = []
        going = threading.Event()

        def hammer():
            while not going.is_set():
                answers.append(far.ask(WINDOW, 64))
                far.ask(SINK, 64, b"w" * 64)

        thread = threading.Thread(target=hammer, daemon=True)
        os.pwrite(guest.ram, bytes(2 * PAGE), DATA)
        world.map(WINDOW, DATA)
        world.map(SINK, DATA + PAGE)
        thread.start()
        late = 0
        for _ in range(150):
            guest.map(WINDOW, 0, 0)
            guest.map(SINK, 0, 0)
            guest.invalidate(WINDOW)
            guest.invalidate(SINK)
            # From here on it is somebody else's.
            os.pwrite(guest.ram, SECRET * 3, DATA)
            os.pwrite(guest.ram, bytes(64), DATA + PAGE)
            time.sleep(0.001)
            late += os.pread(guest.ram, 64, DATA + PAGE) != bytes(64)
            os.pwrite(guest.ram, bytes(PAGE), DATA)
            world.map(WINDOW, DATA)
            world.map(SINK, DATA + PAGE)
            time.sleep(0.001)
        going.set()
        thread.join()
        good = [a for a in answers if isinstance(a, bytes)]
        refused = [a for a in answers if isinstance(a, int)]
        expect("no late write", late == 0, late)
        expect("nothing new is seen", not any(a.strip(b"\0") for a in good))
        expect("both happened", good and refused, (len(good), len(refused)))


def test_interrupts(folder):
    """Four bytes to the interrupt range are an interrupt, as of any device; those of its own it sends by
    its eventfd."""
    for isolate in (False, True):
        with tempfile.TemporaryDirectory(prefix="viommu-hostile-") as where:
            with World(where, isolate) as world:
                world.client.set_eventfds(MSI, [world.event])
                world.client.enable_msi()
                world.map(WINDOW, DATA)
                world.client.edu_dma(WINDOW, EDU_BUFFER, 16, INTERRUPT)
                expect("an interrupt comes, isolated: %s" % isolate, signalled(world.event) == 1)
                for address in range(0xfee00000, 0xfee00000 + 64, 4):
                    world.far.ask(address, 4, b"\x31\0\0\0")
                world.others_work("after interrupts")


def test_strange_commands(folder):
    """What a server may not ask of its client."""
    with World(folder, True) as world:
        wrong = world.far.strange_commands()
        expect("none is carried out", not wrong, wrong)
        world.others_work("after strange commands")
        world.comes_back("after strange commands")


def test_garbage(folder):
    with World(folder, True) as world:
        for kind in ("bytes", "a tiny size", "a huge size", "an answer to nothing", "zeros",
                     "half a message"):
            clients = world.far.clients
            world.far.garbage(kind)
            world.others_work("after " + kind)
            if kind == "half a message":
                world.far.hang_up()
            world.comes_back("after " + kind)
            expect("after %s it was left" % kind, world.far.clients > clients)
        world.untouched("after garbage")


def test_answers(folder):
    """Answers that bring descriptors, that come twice, or to what nobody asked."""
    for isolate in (True, False):
        with tempfile.TemporaryDirectory(prefix="viommu-hostile-") as where:
            with World(where, isolate) as world:
                world.device_works("before odd answers")
                before, clients = world.open_files(), world.far.clients
                world.far.odd_answers = "with descriptors"
                for _ in range(100):
                    expect("an answer is one, whatever it brings", world.client.read32(0, 0) == 0x010000ed)
                world.far.odd_answers = None
                world.client.read32(0, 0)   # those of the last one are kept until the next one comes
                expect("what it brings is closed", world.open_files() <= before, (before, world.open_files()))
                expect("it is no reason to leave", world.far.clients == clients)
                for odd in "twice", "to what nobody asked":
                    clients = world.far.clients
                    world.far.odd_answers = odd
                    world.client.read32(0, 0)
                    world.others_work("after an answer " + odd)
                    world.comes_back("after an answer " + odd)
                    expect("after an answer %s it was left" % odd, world.far.clients > clients)
                world.untouched("after odd answers")


def test_flood(folder):
    """Large reads whose answers nobody takes: memory stays bounded, and others are served meanwhile."""
    with World(folder, True) as world:
        for page in range(256):
            world.guest.map(page * PAGE, DATA)
        world.guest.invalidate()
        before = world.memory_kib()
        sent = world.far.flood()
        world.others_work("in a flood of %d" % sent)
        grown = world.memory_kib() - before
        expect("memory is bounded", grown < MEMORY_MORE_KIB, "%d KiB more" % grown)
        world.far.hang_up()
        world.comes_back("after a flood")


def test_hangs(folder):
    """It answers nothing any more: the guest's commands and invalidations end all the same."""
    for isolate in (True, False):
        with tempfile.TemporaryDirectory(prefix="viommu-hostile-") as where:
            with World(where, isolate) as world:
                world.device_works("before")
                world.far.freeze()
                world.guest.map(WINDOW, 0, 0)
                took = world.guest.invalidate(WINDOW)
                expect("an invalidation ends", took < PATIENCE, took)
                expect("a register reads as all ones", world.client.read32(0, 0) == 0xffffffff)
                world.others_work("while it hangs")
                world.far.hang_up()
                world.comes_back("after it hung")


def test_leaves(folder):
    """It goes in the middle of commands, again and again."""
    with World(folder, False) as world:
        for number in range(5):
            world.map(WINDOW, DATA)
            world.client.send(world.client.frame(9, b"\0" * 8 + b"\0\0\0\0" + b"\4\0\0\0"))
            number_sent = world.client.next_id
            world.far.hang_up()
            try:
                world.client.reply(number_sent)
            except Refused:
                pass
            world.others_work("gone %d times" % (number + 1))
            world.comes_back("gone %d times" % (number + 1))


def main():
    wanted = sys.argv[2:]
    for name, test in sorted(globals().items()):
        if name.startswith("test_") and (not wanted or name in wanted):
            started = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="viommu-hostile-") as folder:
                try:
                    test(folder)
                except (AssertionError, OSError, EOFError, Refused) as error:
                    expect(name, False, repr(error))
            print("# %s %.1f s" % (name, time.monotonic() - started), flush=True)
    print("failed" if failures else "ok")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
