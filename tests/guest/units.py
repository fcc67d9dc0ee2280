# SPDX-License-Identifier: BSD-2-Clause
"""units.py - what guests are tested with: the units, and the processes that stand behind them.

Vocabulary.  "Unit": an IOMMU with the devices behind it, and what it wants of QEMU's command line
and of the kernel's.  "Child": a process started here; all end when this one does.
"""

import ctypes
import os
import signal
import subprocess
import time

import mirror_trace

VTD_SLOT = "04.0"
FIRST_EDU_SLOT = 5
# Where firmware puts a 16 MiB BAR when there is no VGA and RAM is 256 MiB to 6 GiB.
VTD_BASE = "0xfd000000"
SERVER_START_SECONDS = 10
# Each cycle is lines on the console.
MIRRORED_STORM = 50


class CannotRun(Exception):
    """This machine lacks something."""


class Failed(Exception):
    """A boot did not do what it should."""


def die_with_parent():
    """In a child, before exec: end when run.py is killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Child:
    """A process of ours, in a session of its own so that a Ctrl-C does not reach it."""

    def __init__(self, name, command, **more):
        self.name = name
        try:
            self.process = subprocess.Popen(command, start_new_session=True,
                                            preexec_fn=die_with_parent, **more)
        except OSError as e:
            raise CannotRun("cannot start %s: %s" % (command[0], e)) from e

    def stop(self, signals=(signal.SIGTERM, signal.SIGKILL), seconds=5):
        """End it; returns its exit status."""
        for s in signals:
            if self.process.poll() is not None:
                break
            self.process.send_signal(s)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                pass
        return self.process.wait()


def edu_slots(count):
    return ["%02x.0" % (FIRST_EDU_SLOT + i) for i in range(count)]


def requester(slot):
    """The slot as viommu writes requester ids; all are on bus 0."""
    return "00:" + slot


class Unit:
    """What all units have."""

    program = "guest_test"  # /init
    pages = 64
    storm = 300

    def __init__(self, args):
        self.args = args

    def start(self, _log):
        """Before QEMU."""

    def stop(self):
        """After it."""

    def kill(self):
        """Whatever happened: nothing of it stays."""

    def output(self):
        """What the processes behind it said."""
        return ""

    def files(self):
        """What a failure should leave besides."""
        return []

    def words(self):
        """Of the kernel command line."""
        storm = self.storm if self.args.storm is None else self.args.storm
        return ["viommu.edu=%d" % self.args.edu, "viommu.storm=%d" % storm,
                "viommu.pages=%d" % (self.args.pages or self.pages)]

    def judge(self, _console):
        """After stop(): what is wrong besides raises Failed; returns sentences to show."""
        return []


def qemu_edu(slots):
    out = []
    for slot in slots:
        out += ["-device", "edu,addr=%s,dma_mask=0xffffffffffffffff" % slot]
    return out


class QemuUnit(Unit):
    """QEMU's own VT-d unit and edu devices."""

    pages = 8               # this edu starts a DMA 100 ms after the command

    def words(self):
        return super().words() + ["viommu.qemu-unit"]

    def qemu_arguments(self, setup):
        caching = self.args.caching_mode or ("on" if setup.strict else "off")
        return ["-device", "intel-iommu,intremap=off,caching-mode=%s,aw-bits=%d"
                % (caching, self.args.width or 48)] + qemu_edu(edu_slots(self.args.edu))


class BackendUnit(Unit):
    """QEMU's own VT-d unit and one edu, under the library's backends, which run in the guest."""

    program = "mirror_test"

    def __init__(self, args, iommufd):
        super().__init__(args)
        self.iommufd = iommufd

    def words(self):
        return ["viommu.pages=%d" % self.args.many, "viommu.limit=%d" % self.args.limit] + \
            (["viommu.iommufd"] if self.iommufd else [])

    def qemu_arguments(self, _setup):
        return ["-device", "intel-iommu,intremap=on,caching-mode=on,aw-bits=48"] + \
            qemu_edu(edu_slots(1))


class ServedUnit(Unit):
    """Our own unit and edu devices: one server process, one socket a function."""

    def __init__(self, args, directory, mirrored):
        super().__init__(args)
        self.directory = directory
        self.mirrored = mirrored
        if mirrored:
            self.storm = MIRRORED_STORM
        self.child = None
        self.summary = None
        self.dmar = os.path.join(directory, "dmar.bin")
        self.make_table()

    def socket(self, name):
        return os.path.join(self.directory, name + ".sock")

    def trace(self, slot):
        return os.path.join(self.directory, "mirror-%s.jsonl" % slot)

    def files(self):
        traces = [self.trace(slot) for slot in edu_slots(self.args.edu)]
        return [path for path in traces if os.path.exists(path)]

    def words(self):
        return super().words() + (["viommu.record"] if self.mirrored else [])

    def make_table(self):
        command = [self.args.viommu, "acpi", "dmar", "--base", VTD_BASE, "-o", self.dmar]
        for slot in edu_slots(self.args.edu):
            command += ["--device", requester(slot)]
        try:
            done = subprocess.run(command + self.args.dmar_arg, check=False, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        except OSError as e:
            raise CannotRun("cannot start %s: %s" % (self.args.viommu, e)) from e
        if done.returncode != 0:
            raise Failed("viommu acpi dmar: " + done.stdout.strip())

    def start(self, log):
        """Start the server unless it runs; its output goes into the boot's log."""
        if self.child:
            return
        command = self.args.wrap + [self.args.viommu, "serve", "--vtd", self.socket("vtd")]
        sockets = [self.socket("vtd")]
        for slot in edu_slots(self.args.edu):
            sockets.append(self.socket("edu-" + slot))
            device = "edu,at=%s,socket=%s" % (requester(slot), sockets[-1])
            if self.mirrored:
                device += ",mirror=" + self.trace(slot)
            command += ["--device", device]
        if self.args.width:
            command += ["--width", str(self.args.width)]
        if self.args.caching_mode == "on" or self.mirrored:
            command.append("--caching-mode")
        for path in sockets:
            if os.path.exists(path):
                os.unlink(path)
        self.summary = os.path.join(self.directory, "server.log")
        with open(self.summary, "wb") as out:
            self.child = Child("viommu serve", command + self.args.serve_arg, stdout=out,
                               stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        log.write("# %s\n" % " ".join(command))
        end = time.monotonic() + SERVER_START_SECONDS
        while not all(os.path.exists(p) for p in sockets):
            if self.child.process.poll() is not None:
                raise Failed("viommu serve ended with status %d: %s"
                             % (self.child.process.returncode, self.output().strip()))
            if time.monotonic() > end:
                raise Failed("viommu serve does not listen")
            time.sleep(0.01)

    def output(self):
        if not self.summary:
            return ""
        with open(self.summary, encoding="utf-8", errors="replace") as f:
            return f.read()

    def stop(self):
        """End the server as Ctrl-C does.  It must go by itself, with status 0."""
        if not self.child:
            return
        child, self.child = self.child, None
        early = child.process.poll()
        status = child.stop((signal.SIGINT, signal.SIGKILL))
        if early is not None:
            raise Failed("viommu serve ended early, with status %d" % early)
        if status != 0:
            raise Failed("viommu serve ended with status %d after SIGINT" % status)

    def kill(self):
        if self.child:
            self.child.stop()

    def judge(self, console):
        said = []
        for slot in edu_slots(self.args.edu) if self.mirrored else []:
            try:
                with open(self.trace(slot), encoding="ascii") as f:
                    said.append(mirror_trace.compare(console, f.read(), "0000:" + requester(slot)))
            except (OSError, mirror_trace.Mismatch) as e:
                raise Failed(str(e)) from e
        return said

    def qemu_arguments(self, _setup):
        out = ["-acpitable", "file=" + self.dmar]
        for slot, name in [(VTD_SLOT, "vtd")] + [(s, "edu-" + s) for s in edu_slots(self.args.edu)]:
            out += ["-device", '{"driver":"vfio-user-pci","addr":"%s","socket":{"type":"unix",'
                    '"path":"%s"}}' % (slot, self.socket(name))]
        return out
