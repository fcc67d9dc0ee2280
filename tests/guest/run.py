#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""run.py - boot a stock Linux kernel on a stock QEMU and let it test an IOMMU.

    run.py --viommu PATH        the IOMMU and its edu devices are served by "PATH serve" (vfio-user)
    run.py --qemu-intel-iommu   the same guest on QEMU's own unit and edu: to develop the guest side
    run.py --viommu PATH --disk the same with an NVMe disk, which the kernel's own driver uses
    run.py --viommu PATH --net  the same with a virtio-net interface, whose rings another process has
    run.py --viommu PATH --model virtio         a virtio-iommu in place of the VT-d unit
    run.py --backend vfio       the library's backends in a guest on QEMU's own unit

What runs in the guest is guest_test.c, mirror_test.c with --backend, or disk_test.c with a disk;
net_test.c with an interface; its "ok"/"not ok" lines come over the serial console.  QEMU and the
kernel come from the cache that fetch.sh fills (and is asked to fill first).

Vocabulary.  "Boot": one QEMU process (with --reboot the guest starts in it more than once).
"Setup": see setups.py.  "Unit": see units.py.  "Child": see child.py.

Exit status: 0 all passed, 1 something failed, 2 usage, 77 this machine cannot run it, 130 Ctrl-C.
"""

import argparse
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True  # leave no __pycache__ beside the sources
import figures  # noqa: E402
import initramfs  # noqa: E402
import programs  # noqa: E402
from child import CannotRun, Child, Failed, check_memory  # noqa: E402
from echo import ECHOES  # noqa: E402
from setups import (DISK_KINDS, FRAMES, FRAMES_FULL, IOMMUS, KERNELS,  # noqa: E402
                     KIND_OPTIONS, VIRTIO_KERNELS, setups_of)

HERE = os.path.dirname(os.path.abspath(__file__))
# A guest has done most of its checks by then.
KILL_SECONDS = 3.5
KILLS_IN_THE_MIDDLE = 2
NEEDED_MIB = 700
# An emulated CPU that waits for one of the machine's gets its timer late: the kernel takes the timer
# for broken, and panics, or the clock, and then reads a slow one.  It trusts other hypervisors' ones.
CLOCKS = ["no_timer_check", "tsc=reliable"]
# Not every mirror has them.
SPARE_KERNELS = ["7.2"]
ESCAPES = re.compile(r"\x1b\[[0-9;?=]*[A-Za-z]|\x1bc")


# ---- what a boot needs --------------------------------------------------------------------------

def cache_directory():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("VIOMMU_CACHE") or os.path.join(base, "viommu")


def fetch_for(setups):
    """Fills the cache. Without a kernel of a newer suite the others are run all the same."""
    kernels = sorted({s.kernel for s in setups})
    spare = [k for k in kernels if k in SPARE_KERNELS and len(kernels) > 1]
    fetch([k for k in kernels if k not in spare])
    for kernel in spare:
        try:
            fetch([kernel])
        except CannotRun as e:
            print("left out: all with kernel %s: %s" % (kernel, e), flush=True)
            setups = [s for s in setups if s.kernel != kernel]
    return setups


def fetch(kernels):
    command = [os.path.join(HERE, "fetch.sh"), "--kernel"] + kernels
    if subprocess.run(command, check=False).returncode != 0:
        raise CannotRun("no QEMU or no kernel (see above)")


def build_initramfs(program, kernel, model, net, directory):
    path = os.path.join(directory, "%s-%s-%s.cpio" % (os.path.basename(program),
                                                      os.path.basename(kernel), model))
    wanted = initramfs.VIRTIO_MODULES if model == "virtio" else initramfs.DEFAULT_MODULES
    wanted = [] if kernel.endswith("-iommufd") else wanted
    wanted = wanted + (initramfs.NET_MODULES if net else [])
    modules = initramfs.load_order(os.path.join(kernel, "modules"), wanted)
    with open(path, "wb") as f:
        f.write(initramfs.build(program, modules))
    return path


# ---- one boot -----------------------------------------------------------------------------------

class Killed(Exception):
    """The guest asked for its end without warning."""


class Console:
    """The guest's serial console: keeps every line, reacts to some."""

    def __init__(self, args, log, to_guest, answers, ask):
        self.args, self.log, self.to_guest, self.answers = args, log, to_guest, list(answers)
        self.ask = ask
        self.part = ""
        self.passed = self.starts = self.checks = 0
        self.failures = []
        self.facts = []
        self.figures = {}
        self.judged = []

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
            self.answer(answer)
        elif text == "guest: ask: kill":
            raise Killed
        elif text.startswith("guest: ask: "):
            self.ask(text[len("guest: ask: "):], self.log)
            self.answer("done")
        elif text.startswith("# figure: "):
            name, value = text.split()[2:4]
            self.figures[name] = float(value)
        elif "Kernel panic" in text:
            raise Failed(text.strip())
        if text.startswith("# guest: "):
            self.facts.append(text[2:])

    def answer(self, text):
        self.to_guest.write(text.encode() + b"\n")
        self.to_guest.flush()


def qemu_command(args, setup, unit, initrd, part):
    cache = cache_directory()
    words = ["console=ttyS0", "panic=-1", "quiet", "loglevel=1", *CLOCKS]
    words += setup.words(args, part) + unit.words()
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


def start_qemu(command, log):
    log.write("# %s\n" % " ".join("'%s'" % c if re.search(r"[ {;]", c) else c for c in command))
    log.flush()
    return Child("QEMU", command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                 stderr=subprocess.STDOUT)


def kill_in_the_middle(args, setup, unit, initrd, log):
    """QEMUs that are killed when the guest asks for it: while it uses its disk."""
    for _ in range(KILLS_IN_THE_MIDDLE):
        child = start_qemu(qemu_command(args, setup, unit, initrd, "killed"), log)
        try:
            console = Console(args, log, child.process.stdin, [], unit.ask)
            watch(child, console, args.timeout)
            judge(console, 1)
            raise Failed("the guest did not ask for its end")
        except Killed:
            pass
        finally:
            child.stop((signal.SIGKILL,))


def boot(args, setup, unit, initrd, log):
    """One QEMU process from start to end; returns what the console showed."""
    answers = {None: [], "orderly": ["reboot"], "reset": ["reset"],
               "both": ["reboot", "reset"]}[args.reboot]
    child = None
    try:
        unit.start(log)
        part = "disk" if setup.kind == "killed" else setup.kind
        command = qemu_command(args, setup, unit, initrd, part)
        kill_some(args, command)
        if setup.kind == "killed":
            kill_in_the_middle(args, setup, unit, initrd, log)
        child = start_qemu(command, log)
        console = Console(args, log, child.process.stdin, answers, unit.ask)
        watch(child, console, args.timeout * (1 + len(answers)) * setup.patience(args))
        judge(console, 1 + len(answers))
        if not args.keep_server:
            unit.stop()
        with open(log.name, encoding="utf-8") as f:
            console.judged = unit.judge(f.read())
        return console
    finally:
        if child:
            child.stop()


def one_boot(args, setup, unit, initrd, title, directory):
    """Boot, tell, keep the log of a failure; returns what the console showed, None if not all was
    well."""
    path = os.path.join(directory, "console.log")
    began = time.monotonic()
    try:
        with open(path, "w", encoding="utf-8") as log:
            console = boot(args, setup, unit, initrd, log)
    except Failed as e:
        kept = keep_log(args, path, unit)
        print("%s: FAILED %.1f s: %s\n  console: %s" % (title, time.monotonic() - began, e, kept),
              flush=True)
        return None
    seconds = time.monotonic() - began
    print("%s: ok %.1f s, %d checks" % (title, seconds, console.checks), flush=True)
    for sentence in console.judged:
        print("  " + sentence, flush=True)
    for line in unit.output().splitlines() if args.summary else []:
        print("  " + line, flush=True)
    return console


def keep_log(args, path, unit):
    """Append what the server said, and move the log where it stays."""
    try:
        unit.stop()
    except Failed as e:
        print("  %s" % e, flush=True)
    if unit.output():
        with open(path, "a", encoding="utf-8") as log:
            log.write("# ---- viommu serve\n" + unit.output())
    os.makedirs(args.log_dir, exist_ok=True)
    fd, kept = tempfile.mkstemp(prefix="guest-", suffix=".log", dir=args.log_dir)
    os.close(fd)
    shutil.move(path, kept)
    for other in unit.files():
        shutil.copy(other, "%s.%s" % (kept, os.path.basename(other)))
    return kept


# ---- all boots ----------------------------------------------------------------------------------

class Ready:
    """What setups share: kernels, units (one a kind and mode), and RAM disks, made when first asked for."""

    def __init__(self, args, directory, setups):
        self.args, self.directory = args, directory
        self.units, self.programs, self.images = {}, {}, {}
        for kernel in {s.kernel for s in setups}:
            if not os.path.isdir(self.kernel(kernel)):
                raise CannotRun("no %s (run fetch.sh)" % self.kernel(kernel))

    @staticmethod
    def kernel(name):
        return os.path.join(cache_directory(), "kernel-" + name)

    def unit(self, setup):
        key = setup.kind, setup.iommu, setup.strict, setup.model, setup.far, setup.echo
        if key not in self.units:
            self.units[key] = setup.unit(self.args, self.directory)
        return self.units[key]

    def image(self, setup):
        name = self.unit(setup).program
        if name not in self.programs:
            self.programs[name] = programs.build(name, self.directory)
        key = name, setup.kernel, setup.model
        if key not in self.images:
            self.images[key] = build_initramfs(self.programs[name], self.kernel(setup.kernel),
                                               setup.model, setup.echo, self.directory)
        return self.images[key]

    def stop(self):
        for unit in self.units.values():
            unit.stop()

    def kill(self):
        for unit in self.units.values():
            unit.kill()


def print_figures(setups, shown):
    """A table a kernel: for a guest of another is another machine."""
    for kernel in dict.fromkeys(s.kernel for s in setups):
        mine = [i for i, s in enumerate(setups) if s.kernel == kernel]
        rounds = [[shown[first + i].figures for i in mine]
                  for first in range(0, len(shown), len(setups))]
        titles = [setups[i].mode() for i in mine]
        print("kernel %s, %d CPUs, emulated; the median of %d boots each, and its ratio to \"%s\":"
              % (kernel, setups[0].smp, len(rounds), titles[0]))
        print("\n".join(figures.table(titles, rounds)), flush=True)


def run(args, directory):
    setups = setups_of(args)
    check_memory(NEEDED_MIB)
    if not args.no_fetch:
        setups = fetch_for(setups)
    ready = Ready(args, directory, setups)
    boots = setups * args.count
    total = len(boots)
    shown = []
    try:
        for number, setup in enumerate(boots, 1):
            title = "boot %d/%d (%s)" % (number, total, setup)
            shown.append(one_boot(args, setup, ready.unit(setup), ready.image(setup), title,
                                  directory))
        ready.stop()
    finally:
        ready.kill()
    failed = shown.count(None)
    if args.kind == "bench" and not failed:
        print_figures(setups, shown)
    print("guest test: %d of %d boots passed" % (total - failed, total), flush=True)
    return 1 if failed else 0


def parse():
    p = argparse.ArgumentParser(description="boot a stock Linux guest and let it test an IOMMU")
    which = p.add_mutually_exclusive_group(required=True)
    which.add_argument("--viommu", metavar="PATH", help="our unit, served by PATH serve")
    which.add_argument("--qemu-intel-iommu", action="store_true", help="QEMU's own VT-d unit")
    which.add_argument("--qemu-virtio-iommu", action="store_true", help="QEMU's own virtio-iommu")
    which.add_argument("--backend", choices=["vfio", "iommufd"],
                       help="the library's backends in a guest on QEMU's own unit; iommufd builds "
                       "a kernel first (minutes, once)")
    what = p.add_mutually_exclusive_group()
    for option, meaning in KIND_OPTIONS.items():
        what.add_argument("--" + option, dest="kind", action="store_const", const=option,
                          help=meaning)
    p.add_argument("--model", choices=["vtd", "virtio"], default="vtd",
                   help="which IOMMU the guest has (vtd)")
    p.add_argument("--iommu", choices=list(IOMMUS), default="on",
                   help="with a disk: off, the kernel leaves the unit alone; none, there is none")
    p.add_argument("--process", choices=["mapped", "isolated"],
                   help="the disk is in another process: that maps guest memory, or is given none "
                   "and asks for each piece of it (isolated)")
    p.add_argument("--disk-mib", type=int, default=64, metavar="N", help="the disk's size (64)")
    p.add_argument("--threads", type=int, default=8, metavar="N",
                   help="that use the disk at once (8)")
    p.add_argument("--takeovers", type=int, default=3, metavar="N", help="in a row (3)")
    p.add_argument("--echo", choices=list(ECHOES), default="ours",
                   help="who has an interface's rings: a program of ours, or DPDK's testpmd (ours)")
    p.add_argument("--frames", type=int, metavar="N",
                   help="that an interface echoes (%d; %d with --full)" % (FRAMES, FRAMES_FULL))
    p.add_argument("--bench-ms", type=int, default=2000, metavar="MS", help="a figure (2000)")
    p.add_argument("--full", action="store_true",
                   help="--matrix, --mirror with both kernels, all backends, all with a disk, all "
                   "with an interface, all with a virtio-iommu")
    p.add_argument("--kernel", action="append", choices=KERNELS,
                   help="kernel (default 6.12; may be repeated)")
    mode = p.add_mutually_exclusive_group()
    mode.add_argument("--strict", dest="strict", action="store_true", default=True,
                      help="iommu.strict=1 (default)")
    mode.add_argument("--lazy", dest="strict", action="store_false", help="the kernel's default")
    p.add_argument("--smp", type=int, default=1, metavar="N", help="CPUs of the guest (1)")
    p.add_argument("--matrix", action="store_true",
                   help="two kernels, strict and lazy, 1 and 4 CPUs")
    p.add_argument("--count", type=int, default=1, metavar="N", help="boots of each (1)")
    p.add_argument("--edu", type=int, default=2, metavar="N", help="edu devices (2)")
    p.add_argument("--reboot", nargs="?", const="orderly", choices=["orderly", "reset", "both"],
                   help="let the guest start again: in order, by an abrupt reset, or both in turn")
    p.add_argument("--keep-server", action="store_true",
                   help="one server for all boots: each QEMU connects to it anew")
    p.add_argument("--kills", type=int, default=0, metavar="N",
                   help="before each boot, start and kill N QEMUs on the same server (0)")
    p.add_argument("--caching-mode", choices=["on", "off"], help="the unit's caching mode")
    p.add_argument("--width", type=int, choices=[39, 48, 57], help="the unit's address width")
    p.add_argument("--pages", type=int, metavar="N", help="pages of the scattered test")
    p.add_argument("--storm", type=int, metavar="N", help="map and unmap cycles")
    p.add_argument("--many", type=int, default=100000, metavar="N",
                   help="scattered pages of a backend's test (%(default)s)")
    p.add_argument("--limit", type=int, default=65535, metavar="N",
                   help="mappings that the kernel shall take in it (%(default)s)")
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
    p.add_argument("--dmar-arg", action="append", default=[], metavar="ARG",
                   help="of viommu acpi dmar, or viot")
    p.add_argument("--wrap", type=str.split, default=[], metavar="COMMAND",
                   help="run the server under this, such as valgrind")
    args = p.parse_args()
    args.kernel = args.kernel or ["6.12"]
    args.frames = args.frames or (FRAMES_FULL if args.full else FRAMES)
    if args.qemu_virtio_iommu:
        args.model = "virtio"
    if args.model == "virtio" and (args.qemu_intel_iommu or args.backend):
        p.error("--model virtio needs --viommu")
    if args.model == "virtio" and not set(args.kernel) <= set(VIRTIO_KERNELS):
        p.error("kernel 6.1 of Debian has no driver of virtio-iommu")
    if args.model == "virtio" and (args.caching_mode or args.iommu == "off"):
        p.error("--caching-mode and --iommu off are of VT-d")
    if (args.kind in ("mirror", "crashes") or args.full) and not args.viommu:
        p.error("--mirror, --crashes and --full need --viommu")
    if (args.kind or args.full) and (args.reboot or args.keep_server or args.kills):
        p.error("--reboot, --keep-server and --kills go with none of the other tests")
    if args.iommu != "on" and (args.kind not in DISK_KINDS or not args.viommu):
        p.error("--iommu goes with a disk and --viommu")
    if args.process and (args.kind not in ("disk", "failures", "far", "bench") or not args.viommu
                         or args.iommu != "on"):
        p.error("--process goes with --disk, --failures, --far and --bench, --viommu, and a unit")
    if args.kind in ("far", "hostile") and not args.viommu:
        p.error("--far and --hostile need --viommu")
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
