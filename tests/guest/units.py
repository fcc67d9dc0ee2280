# SPDX-License-Identifier: BSD-2-Clause
"""units.py - what guests are tested with: the units, and the processes that stand behind them.

Vocabulary.  "Unit": an IOMMU with the devices behind it, and what it wants of QEMU's command line
and of the kernel's.
"""

import json
import os
import re
import signal
import socket
import struct
import subprocess
import time

import mirror_trace
from child import CannotRun, Child, Failed
from far import FarProcess, GuestMemory, HostileDevice
from qmp import Qmp

IOMMU_SLOT = "04.0"
FIRST_EDU_SLOT = 5
DISK_SLOT = "10.0"
DISK_QUEUES = 4
NET_SLOT = "11.0"
NET_MAC = "02:00:00:00:00:11"
# Where firmware puts a 16 MiB BAR when there is no VGA and RAM is 256 MiB to 6 GiB.
VTD_BASE = "0xfd000000"
SERVER_START_SECONDS = 10
# One byte in so many: queue entries, lists of pages.
COPIED_AT_MOST = 20
TAKEOVER_SECONDS = 10
# A process more has to run before an invalidation ends, on a machine that may be busy.
FAR_ACK_MS = "10000"
# How long those stay connected that do not take over.
STRANGER_SECONDS = 0.05
# What a successor says first: server/handover/channel.h.
HANDOVER_HELLO = struct.pack("<8sIIQII", b"viommuHO", 2, 1, 0, 0, 0)
# The server's words for what a virtio-iommu's guest may get wrong.
BAD_REQUESTS = ["of them not carried out", "that made no sense to the queue",
                "fault buffers refused", "fault buffers not in memory", "queues broken"]
# Each cycle is lines on the console.
MIRRORED_STORM = 50


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
    hostile = False

    def __init__(self, args, disk=None, echo=None):
        self.args = args
        self.disk, self.echo = disk, echo
        if disk:
            self.program = "disk_test"
        if echo:
            self.program = "net_test"

    def start(self, _log):
        """Before QEMU."""
        if self.disk:
            self.disk.create()
        if self.echo:
            self.echo.start()

    def stop(self):
        """After it."""
        if self.echo:
            self.echo.stop()

    def kill(self):
        """Whatever happened: nothing of it stays."""
        if self.echo:
            self.echo.kill()

    def output(self):
        """What the processes behind it said."""
        return ""

    def files(self):
        """What a failure should leave besides."""
        return self.echo.files() if self.echo else []

    def slots(self):
        """Of the edu devices: one is enough beside another."""
        return edu_slots(1 if self.disk or self.echo or self.hostile else self.args.edu)

    def ask(self, what, _log):
        """What the guest asks for; raises Failed when it cannot be done."""
        if self.echo and what.startswith("echo: "):
            self.echo.ask(what[len("echo: "):])
        elif not self.disk or not self.disk.ask(what):
            raise Failed("the guest asks for \"%s\"" % what)

    def words(self):
        """Of the kernel command line."""
        if self.disk:
            return ["viommu.edu=1", "viommu.threads=%d" % self.args.threads]
        if self.echo:
            return ["viommu.edu=1"]
        storm = self.storm if self.args.storm is None else self.args.storm
        return ["viommu.edu=%d" % len(self.slots()), "viommu.storm=%d" % storm,
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
    """QEMU's own VT-d unit, or virtio-iommu, and edu devices."""

    pages = 8               # this edu starts a DMA 100 ms after the command

    def __init__(self, args, model="vtd", disk=None, iommu=True, echo=None):
        super().__init__(args, disk, echo)
        self.model, self.iommu = model, iommu

    def words(self):
        return super().words() + ["viommu.qemu-unit"]

    def qemu_arguments(self, setup):
        caching = self.args.caching_mode or ("on" if setup.strict else "off")
        devices = qemu_edu(self.slots()) + self.qemu_disk() + self.qemu_net()
        if not self.iommu:
            return devices
        if self.model == "virtio":
            return ["-device", "virtio-iommu-pci,addr=" + IOMMU_SLOT] + devices
        return ["-device", "intel-iommu,intremap=off,caching-mode=%s,aw-bits=%d"
                % (caching, self.args.width or 48)] + devices

    def qemu_disk(self):
        if not self.disk:
            return []
        return ["-drive", "file=%s,if=none,id=disk,format=raw,discard=unmap" % self.disk.path,
                "-device", "nvme,drive=disk,serial=viommu,addr=%s,max_ioqpairs=%d"
                % (DISK_SLOT, DISK_QUEUES)]

    def qemu_net(self):
        """QEMU's own virtio-net, and its own vhost-user in front of the far process."""
        if not self.echo:
            return []
        return ["-chardev", "socket,id=echo,path=%s,reconnect-ms=100" % self.echo.socket,
                "-netdev", "vhost-user,id=net,chardev=echo", "-device",
                "virtio-net-pci,netdev=net,addr=%s,mac=%s,disable-legacy=on,iommu_platform=on,"
                "romfile=" % (NET_SLOT, NET_MAC)]

    def judge(self, console):
        if self.echo:
            return ["QEMU's own vhost-user" + self.echo.judge()]
        return [self.disk.judge(console)] if self.disk else []


# Bridges for sources_checks.c: windows of a known size, and a switch.
BRIDGES = [
    "-device", "pcie-root-port,id=wide,addr=08.0,chassis=1,mem-reserve=32M,pref64-reserve=1G",
    "-device", "virtio-rng-pci,bus=wide",
    "-device", "pcie-root-port,id=root,addr=09.0,chassis=2",
    "-device", "x3130-upstream,id=up,bus=root",
    "-device", "xio3130-downstream,id=down,bus=up,chassis=3",
    "-device", "virtio-rng-pci,bus=down",
]


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
            qemu_edu(edu_slots(1)) + BRIDGES


class ServedUnit(Unit):
    """Our own unit and devices: one server process, one socket a function.  Without `iommu` it is
    the devices alone.  far: the disk is in another process, "mapped" or "isolated"; or "hostile": the
    first edu is."""

    def __init__(self, args, directory, model="vtd", mirrored=False, disk=None, iommu=True, far=None,
                 echo=None):
        super().__init__(args, disk, echo)
        self.directory = directory
        self.model = model
        self.mirrored = mirrored
        self.iommu = iommu
        self.translates = iommu
        self.refuses = self.cuts_off = self.hands_over = self.dies = False
        self.patience_ms = None
        self.reads_all = True
        if mirrored:
            self.storm = MIRRORED_STORM
        self.child = None
        self.hostile = far == "hostile"
        self.far = HostileDevice(directory) if self.hostile else \
            FarProcess(args, directory, self.disk_device("SOCKET"), far == "isolated") if far else None
        self.summary = None
        self.qmp = os.path.join(directory, "qmp.sock")
        self.handover = os.path.join(directory, "handover.sock")
        self.table = os.path.join(directory, model + ".acpi")
        if iommu:
            self.make_table()

    def path(self, name):
        return os.path.join(self.directory, name + ".sock")

    def trace(self, slot):
        return os.path.join(self.directory, "mirror-%s.jsonl" % slot)

    def asked(self):
        """A trace of what the guest asks for, where that has to be judged."""
        return os.path.join(self.directory, "asked.jsonl") \
            if self.dies and self.model == "virtio" else None

    def files(self):
        traces = [self.trace(slot) for slot in self.slots()] + [self.asked() or ""]
        return super().files() + [path for path in traces if os.path.exists(path)]

    def words(self):
        return super().words() + (["viommu.record"] if self.mirrored else []) + \
            (["viommu.hostile"] if self.hostile else [])

    def functions(self):
        """Slot and socket of everything that is served."""
        out = [(IOMMU_SLOT, self.path(self.model))] if self.iommu else []
        out += [(slot, self.path("edu-" + slot)) for slot in self.slots()]
        out += [(NET_SLOT, self.path("net"))] if self.echo else []
        return out + ([(DISK_SLOT, self.path("disk"))] if self.disk else [])

    def make_table(self):
        command = [self.args.viommu, "acpi", "-o", self.table]
        command += ["viot", "--iommu", requester(IOMMU_SLOT)] if self.model == "virtio" else \
            ["dmar", "--base", VTD_BASE]
        for slot, _ in self.functions()[1:]:
            command += ["--device", requester(slot)]
        try:
            done = subprocess.run(command + self.args.dmar_arg, check=False, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        except OSError as e:
            raise CannotRun("cannot start %s: %s" % (self.args.viommu, e)) from e
        if done.returncode != 0:
            raise Failed("viommu acpi: " + done.stdout.strip())

    def disk_device(self, socket_path):
        """As the process that has it is told."""
        return "nvme,at=%s,socket=%s,file=%s,queues=%d,hold=%s,fail=%s" \
            % (requester(DISK_SLOT), socket_path, self.disk.path, DISK_QUEUES, self.disk.hold,
               self.disk.fail)

    def device_arguments(self):
        out = []
        for slot in self.slots():
            device = "vfio-user:%s,isolate" % self.far.path if self.hostile else "edu"
            device += ",at=%s,socket=%s" % (requester(slot), self.path("edu-" + slot))
            if self.mirrored:
                device += ",mirror=" + self.trace(slot)
            out += ["--device", device]
        if self.far and self.disk:
            out += ["--device", "vfio-user:%s,at=%s,socket=%s%s"
                    % (self.far.path, requester(DISK_SLOT), self.path("disk"),
                       ",isolate" if self.far.isolated else "")]
        elif self.disk:
            out += ["--device", self.disk_device(self.path("disk"))]
        if self.echo:
            device = "vhost-user-net:%s,at=%s,socket=%s,mac=%s" \
                % (self.echo.socket, requester(NET_SLOT), self.path("net"), NET_MAC)
            out += ["--device", device + ",timeout=%d" % self.patience_ms]
            out += ["--ack-timeout", str(self.patience_ms)]
        return out

    def command(self):
        command = self.args.wrap + [self.args.viommu, "serve"]
        command += ["--" + self.model, self.path(self.model)] if self.iommu else ["--iommu", "none"]
        command += self.device_arguments()
        if self.args.width:
            command += ["--width", str(self.args.width)]
        # A guest of a virtio-iommu tells of every mapping.
        mirrored = self.mirrored or (self.far and not self.far.isolated)
        if self.args.caching_mode == "on" or (mirrored and self.model == "vtd"):
            command.append("--caching-mode")
        if self.far:
            command += ["--ack-timeout", FAR_ACK_MS]
        if self.asked():
            command += ["--trace", self.asked()]
        return command + self.args.serve_arg

    def launch(self, command, log, mode):
        with open(self.summary, mode) as out:
            child = Child("viommu serve", command, stdout=out, stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL)
        log.write("# %s\n" % " ".join(command))
        return child

    def start(self, log):
        """Start the server unless it runs; its output goes into the boot's log."""
        if self.child:
            return
        sockets = [path for _, path in self.functions()]
        for path in sockets + [self.handover]:
            if os.path.exists(path):
                os.unlink(path)
        if self.disk:
            self.disk.create()
        if self.echo:
            self.echo.start()
        self.summary = os.path.join(self.directory, "server.log")
        if self.far:
            self.far.start(log)
        command = self.command()
        if self.hands_over:
            command += ["--handover", self.handover]
        self.child = self.launch(command, log, "wb")
        end = time.monotonic() + SERVER_START_SECONDS
        while not all(os.path.exists(p) for p in sockets):
            if self.child.process.poll() is not None:
                raise Failed("viommu serve ended with status %d: %s"
                             % (self.child.process.returncode, self.output().strip()))
            if time.monotonic() > end:
                raise Failed("viommu serve does not listen")
            time.sleep(0.01)

    def ask(self, what, log):
        if what == "takeover":
            self.take_over(log)
        elif what == "a takeover that fails":
            self.fail_to_take_over(log)
        elif what == "attack":
            self.far.attack()
        elif what == "compare what is mapped":
            self.compare_mapped()
        elif what == "kill the far process":
            self.far.kill()
        elif what == "start the far process":
            self.far.start(log, "ab")
        else:
            super().ask(what, log)

    def compare_mapped(self):
        """With the guest stopped.  Transfers that are under way are held: the guest has seen that they
        are."""
        qmp = Qmp(self.qmp)
        self.disk.ask("hold")
        qmp.command("stop")
        try:
            memory = GuestMemory(qmp)
            bus_slot, function = DISK_SLOT.split(".")
            wanted = memory.reachable(int(VTD_BASE, 16), int(bus_slot, 16) << 3 | int(function)) \
                if self.model == "vtd" else None
            memory.close()
            self.far.compare(wanted)
        finally:
            self.disk.ask("release")
            qmp.command("cont")
            qmp.close()

    def successor(self, log):
        command = self.args.wrap + [self.args.viommu, "serve", "--takeover", self.handover]
        return self.launch(command + ["--handover", self.handover], log, "ab")

    def take_over(self, log):
        """With the guest stopped, another server takes this one's place."""
        qmp = Qmp(self.qmp)
        qmp.command("stop")
        new = self.successor(log)
        old, self.child = self.child, new
        try:
            status = old.process.wait(TAKEOVER_SECONDS)
        except subprocess.TimeoutExpired as e:
            old.stop()
            raise Failed("the old viommu serve does not end") from e
        if status != 0:
            raise Failed("the old viommu serve ended with status %d" % status)
        qmp.command("cont")
        qmp.close()

    def try_while_held(self, log):
        """Another server wants to take over while transfers do not end: it is refused."""
        refused = self.successor(log)
        try:
            if refused.process.wait(TAKEOVER_SECONDS) == 0:
                raise Failed("viommu serve took over while transfers did not end")
        except subprocess.TimeoutExpired as e:
            raise Failed("viommu serve waits for transfers that do not end") from e
        finally:
            refused.stop()

    def fail_to_take_over(self, log):
        """With the guest stopped, others try, and give up or die; nothing has changed. Transfers are
        held already, for long enough that the guest has seen it."""
        # Lazily the kernel invalidates all at once, also the pages of transfers that are under way:
        # the unit sees that they are as they were.
        qmp = Qmp(self.qmp)
        qmp.command("stop")
        self.try_while_held(log)
        self.disk.ask("release")
        # The last one is a successor that dies when it has been told everything.
        for words in (b"", b"not what it expects", HANDOVER_HELLO):
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.connect(self.handover)
                stranger.sendall(words)
                time.sleep(STRANGER_SECONDS)
        early = self.child.process.poll()
        if early is not None:
            raise Failed("viommu serve ended with status %d: nobody had taken over" % early)
        qmp.command("cont")
        qmp.close()

    def output(self):
        if not self.summary:
            return ""
        with open(self.summary, encoding="utf-8", errors="replace") as f:
            return f.read() + (self.far.output() if self.far else "")

    def counter(self, name):
        """The summary's number of this name, or 0."""
        found = re.findall(r"^\s+%s\s+(\d+)$" % re.escape(name), self.output(), re.M)
        return sum(int(n) for n in found)

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
        if self.echo:
            self.echo.stop()
        if self.far:
            self.far.stop()

    def kill(self):
        if self.child:
            self.child.stop()
        if self.far:
            self.far.end()
        if self.echo:
            self.echo.kill()

    def judge(self, console):
        if self.disk:
            said = [self.disk.judge(console), self.judge_counters()]
        elif self.echo:
            said = [self.judge_echo()]
        else:
            said = [] if self.hostile else self.judge_refused(console)
        said += [self.far.judge()] if self.far else []
        self.judge_requests()
        for slot in self.slots() if self.mirrored else []:
            try:
                with open(self.trace(slot), encoding="ascii") as f:
                    said.append(mirror_trace.compare(console, f.read(), "0000:" + requester(slot)))
            except (OSError, mirror_trace.Mismatch) as e:
                raise Failed(str(e)) from e
        return said

    def judge_refused(self, console):
        """Did the server refuse as many requests as the guest provoked?"""
        wanted = sum(int(n) for n in re.findall(r"^# guest: refused (\d+)", console, re.M))
        if "summary" not in self.output():
            return []       # it goes on
        refused = self.counter("requests refused")
        if refused != wanted:
            raise Failed("the guest let %d requests be refused, the server refused %d"
                         % (wanted, refused))
        return ["%d requests refused, as many as the guest provoked" % refused]

    def judge_requests(self):
        """A stock kernel asks a virtio-iommu for nothing that is refused.  But a mapping that is on
        its way to the far process when that dies is made nowhere, and the guest is told so."""
        for name in BAD_REQUESTS if self.model == "virtio" else []:
            allowed = self.maps_that_died() if name == BAD_REQUESTS[0] and self.dies else 0
            if self.counter(name) != allowed:
                raise Failed("viommu serve: %s: %d, %d allowed" % (name, self.counter(name), allowed))

    def maps_that_died(self):
        """MAPs that were answered with DEVERR after the far process was killed, and before there was
        another."""
        asked, died = {}, 0
        with open(self.asked(), encoding="ascii") as f:
            for line in map(json.loads, f):
                if line.get("kind") == "request":
                    asked[line["number"]] = line["type"]
                elif line.get("kind") == "answered" and line["status"] == "deverr":
                    died += asked[line["number"]] == "map" and \
                        self.far.killed_at < line["time"] < self.far.next_at
        return died

    def judge_echo(self):
        """Did the far process use translations, and acknowledge what was taken back?"""
        given, back, acknowledged = (self.counter(name) for name in
                                     ("translations given", "translations taken back",
                                      "of them acknowledged"))
        if not given or not back:
            raise Failed("%d translations given, %d taken back: the unit was not used"
                         % (given, back))
        if acknowledged < back and self.counter("far process left") == 0:
            raise Failed("%d of %d acknowledged" % (acknowledged, back))
        return "%d translations given, %d taken back; the far process came %d times%s" \
            % (given, back, self.counter("far process came"), self.echo.judge())

    def judge_counters(self):
        """Was it the unit that translated, and did data go without copies?"""
        moved = [self.counter("disk bytes %s without a copy" % way) for way in ("read", "written")]
        copied, walks = self.counter("disk bytes copied"), self.counter("page walks")
        if moved[1] < self.disk.size or (self.reads_all and moved[0] < self.disk.size):
            raise Failed("the disk has %d bytes, %d were read and %d written without a copy"
                         % (self.disk.size, *moved))
        if copied > sum(moved) // COPIED_AT_MOST:
            raise Failed("of %d bytes %d were copied" % (sum(moved), copied))
        dropped = sum(self.counter("IOTLB invalidations, " + what)
                      for what in ("global", "domain", "page"))
        if self.iommu and self.translates and (not walks or not dropped):
            raise Failed("%d page walks, %d invalidations: the unit was not used"
                         % (walks, dropped))
        if self.cuts_off and self.iommu and not self.counter("windows overdue"):
            raise Failed("no window was overdue: the unit did not have to cut the disk off")
        refused = self.counter("requests refused")
        if refused and not self.refuses:
            raise Failed("%d requests were refused" % refused)
        return "%d MiB moved without a copy, %d KiB copied; %d page walks, %d invalidations" \
            % (sum(moved) >> 20, copied >> 10, walks, dropped)

    def qemu_arguments(self, _setup):
        out = ["-acpitable", "file=" + self.table] if self.iommu else []
        for slot, path in self.functions():
            out += ["-device", '{"driver":"vfio-user-pci","addr":"%s","socket":{"type":"unix",'
                    '"path":"%s"}}' % (slot, path)]
        if self.disk:
            out += ["-qmp", "unix:%s,server=on,wait=off" % self.qmp]
        return out
