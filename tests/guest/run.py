#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""run.py - boot a stock Linux kernel on a stock QEMU and let it test an IOMMU.

    run.py --viommu PATH        the IOMMU and its edu devices are served by "PATH serve" (vfio-user)
    run.py --qemu-intel-iommu   the same guest on QEMU's own unit and edu: to develop the guest side

What runs in the guest is guest_test.c; its "ok"/"not ok" lines come over the serial console.  QEMU
and the kernel come from the cache that fetch.sh fills (and is asked to fill first).

Vocabulary.  "Setup": one way to run: kernel, strict or lazy, number of CPUs.  "Boot": one QEMU
process (with --reboot the guest starts in it more than once).  "Child": a process started here; all
end when this one does.

Exit status: 0 all passed, 1 something failed, 2 usage, 77 this machine cannot run it, 130 Ctrl-C.
"""

import argparse
import ctypes
import os
import platform
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True  # leave no __pycache__ beside the sources
import initramfs  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCES = ["guest_test.c", "allowed.c", "refused.c", "edu.c", "kmsg.c", "memory.c", "report.c",
           "vfio.c"]
VTD_SLOT = "04.0"
FIRST_EDU_SLOT = 5
# Where firmware puts a 16 MiB BAR when there is no VGA and RAM is 256 MiB to 6 GiB.
VTD_BASE = "0xfd000000"
SERVER_START_SECONDS = 10
# A guest has done most of its checks by then.
KILL_SECONDS = 3.5
NEEDED_MIB = 700
ESCAPES = re.compile(r"\x1b\[[0-9;?=]*[A-Za-z]|\x1bc")


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


# ---- what a boot needs --------------------------------------------------------------------------

def cache_directory():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("VIOMMU_CACHE") or os.path.join(base, "viommu")


def fetch(kernels):
    command = [os.path.join(HERE, "fetch.sh"), "--kernel"] + kernels
    if subprocess.run(command, check=False).returncode != 0:
        raise CannotRun("no QEMU or no kernel (see above)")


def compiler():
    if os.environ.get("CC_GUEST"):
        return os.environ["CC_GUEST"]
    if platform.machine() == "x86_64":
        names = ["cc", "gcc", "x86_64-linux-gnu-gcc"]
    else:
        names = ["x86_64-linux-gnu-gcc"]
    for n in names:
        if shutil.which(n):
            return n
    raise CannotRun("no C compiler for x86-64 (%s)" % ", ".join(names))


def build_guest(directory):
    program = os.path.join(directory, "guest_test")
    command = [compiler(), "-std=gnu11", "-O2", "-static", "-Wall", "-Wextra", "-o", program]
    done = subprocess.run(command + [os.path.join(HERE, s) for s in SOURCES], check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise CannotRun("the guest program does not build:\n" + done.stdout)
    return program


def build_initramfs(program, kernel, directory):
    path = os.path.join(directory, "initramfs-%s.cpio" % os.path.basename(kernel))
    modules = initramfs.load_order(os.path.join(kernel, "modules"), initramfs.DEFAULT_MODULES)
    with open(path, "wb") as f:
        f.write(initramfs.build(program, modules))
    return path


def check_memory():
    try:
        with open("/proc/meminfo", encoding="ascii") as f:
            mib = [int(line.split()[1]) // 1024 for line in f if line.startswith("MemAvailable")]
    except OSError:
        return
    if mib and mib[0] < NEEDED_MIB:
        raise CannotRun("%d MiB of memory are free, %d are needed" % (mib[0], NEEDED_MIB))


# ---- the units ----------------------------------------------------------------------------------

def edu_slots(count):
    return ["%02x.0" % (FIRST_EDU_SLOT + i) for i in range(count)]


def requester(slot):
    """The slot as viommu writes requester ids; all are on bus 0."""
    return "00:" + slot


class QemuUnit:
    """QEMU's own VT-d unit and edu devices."""

    pages = 8               # this edu starts a DMA 100 ms after the command
    words = ["viommu.qemu-unit"]

    def __init__(self, args):
        self.args = args

    def start(self, _log):
        pass

    def stop(self):
        pass

    def qemu_arguments(self, setup):
        caching = self.args.caching_mode or ("on" if setup.strict else "off")
        out = ["-device", "intel-iommu,intremap=off,caching-mode=%s,aw-bits=%d"
               % (caching, self.args.width or 48)]
        for slot in edu_slots(self.args.edu):
            out += ["-device", "edu,addr=%s,dma_mask=0xffffffffffffffff" % slot]
        return out


class ServedUnit:
    """Our own unit and edu devices: one server process, one socket a function."""

    pages = 64
    words = []

    def __init__(self, args, directory):
        self.args = args
        self.directory = directory
        self.child = None
        self.summary = None
        self.dmar = os.path.join(directory, "dmar.bin")
        self.make_table()

    def socket(self, name):
        return os.path.join(self.directory, name + ".sock")

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
            command += ["--edu", "%s=%s" % (requester(slot), sockets[-1])]
        if self.args.width:
            command += ["--width", str(self.args.width)]
        if self.args.caching_mode == "on":
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

    def qemu_arguments(self, _setup):
        out = ["-acpitable", "file=" + self.dmar]
        for slot, name in [(VTD_SLOT, "vtd")] + [(s, "edu-" + s) for s in edu_slots(self.args.edu)]:
            out += ["-device", '{"driver":"vfio-user-pci","addr":"%s","socket":{"type":"unix",'
                    '"path":"%s"}}' % (slot, self.socket(name))]
        return out


# ---- one boot -----------------------------------------------------------------------------------

class Setup:
    """One way to run."""

    def __init__(self, kernel, strict, smp):
        self.kernel, self.strict, self.smp = kernel, strict, smp

    def __str__(self):
        return "kernel %s, %s, %d CPU%s" % (self.kernel, "strict" if self.strict else "lazy",
                                            self.smp, "s" if self.smp > 1 else "")


class Console:
    """The guest's serial console: keeps every line, reacts to some."""

    def __init__(self, args, log, to_guest, answers):
        self.args, self.log, self.to_guest, self.answers = args, log, to_guest, list(answers)
        self.part = ""
        self.passed = self.starts = self.checks = 0
        self.failures = []
        self.facts = []

    def feed(self, data):
        self.part += data.decode("utf-8", "replace")
        *lines, self.part = self.part.split("\n")
        for line in lines:
            self.line(ESCAPES.sub("", line).rstrip("\r"))

    def line(self, text):
        self.log.write(text + "\n")
        self.log.flush()
        if self.args.verbose:
            print("    " + text, flush=True)
        elif self.args.checks and re.match(r"ok \d|not ok \d|# |guest: ", text):
            print("  " + text, flush=True)
        if re.match(r"ok \d", text):
            self.checks += 1
        elif re.match(r"not ok \d", text):
            self.failures.append(text)
        elif text.startswith("# guest: kernel"):
            self.starts += 1
        elif text == "guest: ok":
            self.passed += 1
        elif text == "guest: reboot, reset or off?":
            answer = self.answers.pop(0) if self.answers else "off"
            self.to_guest.write(answer.encode() + b"\n")
            self.to_guest.flush()
        elif "Kernel panic" in text:
            raise Failed(text.strip())
        if text.startswith("# guest: "):
            self.facts.append(text[2:])


def qemu_command(args, setup, unit, initrd):
    cache = cache_directory()
    words = ["console=ttyS0", "panic=-1", "quiet", "loglevel=1", "intel_iommu=on",
             "viommu.edu=%d" % args.edu, "viommu.pages=%d" % (args.pages or unit.pages)]
    words += unit.words
    if setup.strict:
        words.append("iommu.strict=1")
    if args.storm is not None:
        words.append("viommu.storm=%d" % args.storm)
    if args.log_all:
        words.append("viommu.log-all")
    if args.reboot:
        words.append("viommu.reboot")
    command = [args.qemu or os.path.join(cache, "qemu", "qemu-system-x86_64"),
               "-accel", "tcg,thread=multi", "-machine", "q35,memory-backend=mem",
               "-object", "memory-backend-memfd,id=mem,size=512M,share=on", "-m", "512",
               "-smp", str(setup.smp), "-display", "none", "-serial", "stdio", "-monitor", "none",
               "-net", "none", "-vga", "none",
               "-kernel", os.path.join(cache, "kernel-" + setup.kernel, "vmlinux"),
               "-initrd", initrd, "-append", " ".join(words + args.append)]
    if not args.reboot:
        command.append("-no-reboot")
    return command + unit.qemu_arguments(setup) + args.qemu_arg


def watch(child, console, seconds):
    """Feed the console until QEMU ends."""
    end = time.monotonic() + seconds
    out = child.process.stdout.fileno()
    while True:
        left = end - time.monotonic()
        if left <= 0:
            raise Failed("no end after %d s" % seconds)
        if select.select([out], [], [], left)[0]:
            data = os.read(out, 65536)
            if not data:
                break
            console.feed(data)
    status = child.process.wait()
    if status != 0:
        raise Failed("QEMU ended with status %d" % status)


def judge(console, starts):
    if console.failures:
        raise Failed("%d failed: %s" % (len(console.failures), console.failures[0]))
    if console.passed != starts:
        raise Failed("the guest said \"guest: ok\" %d times, %d wanted" % (console.passed, starts))


def kill_some(args, command):
    """Start QEMU and kill it without warning, each time a little later in the boot."""
    for i in range(args.kills):
        child = Child("QEMU", command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                      stderr=subprocess.DEVNULL)
        try:
            time.sleep(KILL_SECONDS * (i + 1) / args.kills)
        finally:
            child.stop((signal.SIGKILL,))


def boot(args, setup, unit, initrd, log):
    """One QEMU process from start to end; returns what the console showed."""
    answers = {None: [], "orderly": ["reboot"], "reset": ["reset"],
               "both": ["reboot", "reset"]}[args.reboot]
    child = None
    try:
        unit.start(log)
        command = qemu_command(args, setup, unit, initrd)
        log.write("# %s\n" % " ".join("'%s'" % c if re.search(r"[ {;]", c) else c for c in command))
        log.flush()
        kill_some(args, command)
        child = Child("QEMU", command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                      stderr=subprocess.STDOUT)
        console = Console(args, log, child.process.stdin, answers)
        watch(child, console, args.timeout * (1 + len(answers)))
        judge(console, 1 + len(answers))
        if not args.keep_server:
            unit.stop()
        return console
    finally:
        if child:
            child.stop()


def one_boot(args, setup, unit, initrd, title, directory):
    """Boot, tell, keep the log of a failure; returns whether all was well."""
    path = os.path.join(directory, "console.log")
    began = time.monotonic()
    try:
        with open(path, "w", encoding="utf-8") as log:
            console = boot(args, setup, unit, initrd, log)
    except Failed as e:
        kept = keep_log(args, path, unit)
        print("%s: FAILED %.1f s: %s\n  console: %s" % (title, time.monotonic() - began, e, kept),
              flush=True)
        return False
    seconds = time.monotonic() - began
    print("%s: ok %.1f s, %d checks" % (title, seconds, console.checks), flush=True)
    if args.summary and isinstance(unit, ServedUnit) and unit.child is None:
        for line in unit.output().splitlines():
            print("  " + line, flush=True)
    return True


def keep_log(args, path, unit):
    """Append what the server said, and move the log where it stays."""
    try:
        unit.stop()
    except Failed as e:
        print("  %s" % e, flush=True)
    if isinstance(unit, ServedUnit) and unit.summary:
        with open(path, "a", encoding="utf-8") as log:
            log.write("# ---- viommu serve\n" + unit.output())
    os.makedirs(args.log_dir, exist_ok=True)
    fd, kept = tempfile.mkstemp(prefix="guest-", suffix=".log", dir=args.log_dir)
    os.close(fd)
    shutil.move(path, kept)
    return kept


# ---- all boots ----------------------------------------------------------------------------------

def setups_of(args):
    if not args.matrix:
        return [Setup(k, args.strict, args.smp) for k in args.kernel]
    return [Setup(k, strict, smp) for k in ["6.1", "6.12"] for strict in (True, False)
            for smp in (1, 4)]


def run(args, directory):
    setups = setups_of(args)
    check_memory()
    program = build_guest(directory)
    if not args.no_fetch:
        fetch(sorted({s.kernel for s in setups}))
    kernels = {s.kernel: os.path.join(cache_directory(), "kernel-" + s.kernel) for s in setups}
    for directory_of_kernel in kernels.values():
        if not os.path.isdir(directory_of_kernel):
            raise CannotRun("no %s (run fetch.sh)" % directory_of_kernel)
    images = {v: build_initramfs(program, k, directory) for v, k in kernels.items()}
    unit = ServedUnit(args, directory) if args.viommu else QemuUnit(args)
    total = args.count * len(setups)
    failed = number = 0
    try:
        for setup in setups:
            for _ in range(args.count):
                number += 1
                title = "boot %d/%d (%s)" % (number, total, setup)
                if not one_boot(args, setup, unit, images[setup.kernel], title, directory):
                    failed += 1
        unit.stop()
    finally:
        if isinstance(unit, ServedUnit) and unit.child:
            unit.child.stop()
    print("guest test: %d of %d boots passed" % (total - failed, total), flush=True)
    return 1 if failed else 0


def parse():
    p = argparse.ArgumentParser(description="boot a stock Linux guest and let it test an IOMMU")
    which = p.add_mutually_exclusive_group(required=True)
    which.add_argument("--viommu", metavar="PATH", help="our unit, served by PATH serve")
    which.add_argument("--qemu-intel-iommu", action="store_true", help="QEMU's own unit")
    p.add_argument("--kernel", action="append", choices=["6.1", "6.12"],
                   help="kernel (default 6.12; may be repeated)")
    mode = p.add_mutually_exclusive_group()
    mode.add_argument("--strict", dest="strict", action="store_true", default=True,
                      help="iommu.strict=1 (default)")
    mode.add_argument("--lazy", dest="strict", action="store_false", help="the kernel's default")
    p.add_argument("--smp", type=int, default=1, metavar="N", help="CPUs of the guest (1)")
    p.add_argument("--matrix", action="store_true",
                   help="both kernels, strict and lazy, 1 and 4 CPUs")
    p.add_argument("--count", type=int, default=1, metavar="N", help="boots of each (1)")
    p.add_argument("--edu", type=int, default=2, metavar="N", help="edu devices (2)")
    p.add_argument("--reboot", nargs="?", const="orderly", choices=["orderly", "reset", "both"],
                   help="let the guest start again: in order, by an abrupt reset, or both in turn")
    p.add_argument("--keep-server", action="store_true",
                   help="one server for all boots: each QEMU connects to it anew")
    p.add_argument("--kills", type=int, default=0, metavar="N",
                   help="before each boot, start and kill N QEMUs on the same server (0)")
    p.add_argument("--caching-mode", choices=["on", "off"], help="the unit's caching mode")
    p.add_argument("--width", type=int, choices=[39, 48], help="the unit's address width")
    p.add_argument("--pages", type=int, metavar="N", help="pages of the scattered test")
    p.add_argument("--storm", type=int, metavar="N", help="map and unmap cycles")
    p.add_argument("--log-all", action="store_true",
                   help="wait so that each fault is seen in the guest's log (slower)")
    p.add_argument("--timeout", type=int, default=120, metavar="SEC", help="of one start (120)")
    p.add_argument("--verbose", action="store_true", help="show the console live")
    p.add_argument("--checks", action="store_true", help="show the guest's own lines live")
    p.add_argument("--summary", action="store_true", help="show the server's summary")
    p.add_argument("--log-dir", metavar="DIR", default=os.path.join(cache_directory(), "logs"),
                   help="where consoles of failed boots are kept (%(default)s)")
    p.add_argument("--qemu", metavar="PATH", help="another QEMU than the cache's")
    p.add_argument("--no-fetch", action="store_true", help="use the cache as it is")
    p.add_argument("--append", action="append", default=[], metavar="WORD",
                   help="one more word for the kernel")
    p.add_argument("--qemu-arg", action="append", default=[], metavar="ARG")
    p.add_argument("--serve-arg", action="append", default=[], metavar="ARG")
    p.add_argument("--dmar-arg", action="append", default=[], metavar="ARG")
    p.add_argument("--wrap", type=str.split, default=[], metavar="COMMAND",
                   help="run the server under this, such as valgrind")
    args = p.parse_args()
    args.kernel = args.kernel or ["6.12"]
    return args


def terminated(_signal, _frame):
    raise KeyboardInterrupt


def main():
    args = parse()
    # A shell script's background job ignores SIGINT unless told otherwise.
    signal.signal(signal.SIGINT, terminated)
    signal.signal(signal.SIGTERM, terminated)
    try:
        with tempfile.TemporaryDirectory(prefix="viommu-guest-") as directory:
            return run(args, directory)
    except CannotRun as e:
        print("guest test: cannot run here: %s" % e, file=sys.stderr)
        return 77
    except Failed as e:
        print("guest test: %s" % e, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("guest test: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
