#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""test.py - all tests, in stages; what `make test` runs.

    test.py                     everything
    test.py plain checks        only these stages
    test.py --list              the stages

Vocabulary.  "Stage": a function below that builds something and counts tests.  "Test": what is
counted: a test of meson, a fuzz target, a benchmark, a check, a boot.  Each test of each build
counts by itself.

What each program says goes to a log under build/test/; a failure prints the end of it and its name.
A test is skipped only where a program of others (QEMU, a kernel, DPDK) cannot run on this machine:
exit status 77.

The last line is "N passed, N failed, N skipped".  Exit status: 0 none failed, 1 some failed, 2
usage, 130 Ctrl-C.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOGS = os.path.join(TOP, "build", "test")
VIOMMU = os.path.join("build", "plain", "tools", "viommu")
SKIP_STATUS = 77
LOG_LINES_SHOWN = 40
FUZZ_SECONDS = 5
NOT_UNDER_QEMU_USER = (
    # They send more descriptors than the receiver has room for: qemu-user keeps those open, and does
    # not say that the message was cut short.
    "backend_socket",
    "vfio_user_connection",
    # It maps huge pages, which qemu-user refuses.
    "client_memory",
    # It counts pieces of memory, which qemu-user maps side by side: they are one.
    "direct_memory",
    # It maps 16 GiB of address space some 150 times; qemu-user keeps books of each page, for good.
    "shadow-follow",
)
NOT_UNDER_TSAN = (
    # Their client is a thread that answers on a descriptor which came over a socket: what that
    # orders the sanitizer does not see. What is tested has one thread.
    "direct_messages",
    "vfio_user_client_dma",
)
HALT_ON_ERROR = {
    "ASAN_OPTIONS": "detect_leaks=1:halt_on_error=1:abort_on_error=0",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


class Results:
    """What happened, one entry a test."""

    def __init__(self):
        self.passed = 0
        self.failed = []
        self.skipped = []
        self.built = {}  # name -> whether it stands

    def ok(self, count=1):
        self.passed += count

    def fail(self, name, log=None):
        self.failed.append(name)
        print("      FAILED: %s" % name)
        if log:
            print_end(log)
        sys.stdout.flush()

    def skip(self, name, reason):
        self.skipped.append((name, reason))
        print("      skipped: %s: %s" % (name, reason), flush=True)

    def print_end(self):
        for name in self.failed:
            print("failed: %s" % name)
        for name, reason in self.skipped:
            print("skipped: %s: %s" % (name, reason))
        print("%d passed, %d failed, %d skipped"
              % (self.passed, len(self.failed), len(self.skipped)), flush=True)


def print_end(log):
    with open(log, errors="replace") as f:
        lines = f.read().splitlines()
    for line in lines[-LOG_LINES_SHOWN:]:
        print("        | %s" % line)
    print("        all of it: %s" % os.path.relpath(log, TOP))


def step(text, start):
    print("      %-44s %6.1f s" % (text, time.monotonic() - start), flush=True)


def run(log_name, command, env=None, timeout=None):
    """Runs a command in the top folder; returns (exit status, log file)."""
    log = os.path.join(LOGS, log_name + ".log")
    environment = dict(os.environ, **(env or {}))
    with open(log, "w") as f:
        f.write("$ %s\n" % " ".join(command))
        f.flush()
        try:
            done = subprocess.run(command, cwd=TOP, env=environment, stdin=subprocess.DEVNULL,
                                  stdout=f, stderr=subprocess.STDOUT, timeout=timeout)
            return done.returncode, log
        except subprocess.TimeoutExpired:
            f.write("\nended after %d s\n" % timeout)
            return 124, log
        except OSError as e:
            f.write("%s\n" % e)
            return 127, log


def build(results, name, *options, env=None):
    """Builds build/NAME, warnings being errors; a failure counts as one failed test."""
    start = time.monotonic()
    status, log = run(name + "-build", ["scripts/build.sh", name, "--werror", *options], env)
    step("build" if status == 0 else "build failed", start)
    if status:
        results.fail(name + ": build", log)
    results.built[name] = status == 0
    return status == 0


def meson_test(results, name, *options, env=None):
    """Runs the tests of build/NAME and counts each."""
    start = time.monotonic()
    folder = os.path.join(TOP, "build", name)
    log_base = name + "-test" + ("-bench" if "--suite bench" in " ".join(options) else "")
    status, log = run(log_base, ["meson", "test", "-C", folder, "--no-rebuild", "--print-errorlogs",
                                 "--logbase", log_base, *options], env)
    passed = failed = 0
    try:
        with open(os.path.join(folder, "meson-logs", log_base + ".json")) as f:
            entries = [json.loads(line) for line in f]
    except OSError:
        entries = []
    for entry in entries:
        test = "%s: %s" % (name, entry["name"])
        if entry["result"] in ("OK", "EXPECTEDFAIL"):
            passed += 1
            results.ok()
        elif entry["result"] == "SKIP":
            results.skip(test, skip_reason(entry.get("stdout", "") + entry.get("stderr", "")))
        else:
            failed += 1
            own_log = os.path.join(LOGS, "%s-%s.log" % (name, entry["name"].split()[-1]))
            with open(own_log, "w") as f:
                f.write("$ %s\n%s\n%s\n%s\n" % (" ".join(entry.get("command", [])), entry["result"],
                                              entry.get("stdout", ""), entry.get("stderr", "")))
            results.fail(test, own_log)
    if not entries or (status and not failed):
        results.fail("%s: meson test" % name, log)
    step("%d tests passed, %d failed" % (passed, failed), start)


def skip_reason(output):
    """The last error that a program told of, and its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error: " in line]
    return "; ".join(dict.fromkeys(errors[-1:] + lines[-1:])) or "no reason given"


# ---- the stages

def build_plain(results):
    return build(results, "plain", "-Dtests=enabled", "-Dtools=enabled", "-Dbench=enabled",
                 "-Dunicorn=enabled", env={"CC": "gcc"})


def stage_plain(results):
    """gcc build; unit tests, scenarios, the rest of meson's tests"""
    if build_plain(results):
        meson_test(results, "plain", "--no-suite", "bench")


def needs_plain(results):
    """For a stage that uses the plain build: makes it when that stage was not asked for."""
    return results.built["plain"] if "plain" in results.built else build_plain(results)


def stage_asan(results):
    """the same under the address and undefined-behaviour sanitizers, with clang"""
    if build(results, "asan", "-Db_sanitize=address,undefined", "-Db_lundef=false",
             "-Dtests=enabled", "-Dtools=enabled", "-Dbench=disabled", "-Dunicorn=enabled",
             env={"CC": "clang"}):
        meson_test(results, "asan", "--timeout-multiplier", "4", env=HALT_ON_ERROR)


def stage_tsan(results):
    """unit tests, thread tests and servers under the thread sanitizer"""
    if not build(results, "tsan", "-Db_sanitize=thread", "-Db_lundef=false", "-Dtests=enabled",
                 "-Dtools=enabled", "-Dbench=disabled", "-Dunicorn=enabled", env={"CC": "clang"}):
        return
    meson_test(results, "tsan", "--timeout-multiplier", "10", *tsan_wrapper(),
               *tests_of("tsan", ("unit", "threads", "processes"), but=NOT_UNDER_TSAN),
               env=HALT_ON_ERROR)


def tsan_wrapper():
    """Debian 12's TSan cannot live with as much address randomisation as newer kernels have."""
    try:
        with open("/proc/sys/vm/mmap_rnd_bits") as f:
            much = int(f.read()) > 28
    except (OSError, ValueError):
        much = False
    if not much or run("setarch", ["setarch", "-R", "true"])[0]:
        return []
    return ["--wrapper", "setarch -R"]


def stage_arm64(results):
    """unit tests and scenarios as arm64 programs"""
    if platform.machine() in ("aarch64", "arm64"):
        print("      this machine is arm64: the plain stage was it", flush=True)
        return
    start = time.monotonic()
    status, log = run("arm64-root", ["scripts/arm64-root.sh"])
    step("arm64 libraries", start)
    if status:
        results.fail("arm64: libraries", log)
        return
    if build(results, "arm64", "--cross-file", "build/arm64-root.ini",
             "--cross-file", "scripts/aarch64.ini", "-Dtests=enabled", "-Dtools=enabled",
             "-Dbench=disabled"):
        meson_test(results, "arm64", "--timeout-multiplier", "10",
                   *tests_of("arm64", ("unit", "scenario"), but=NOT_UNDER_QEMU_USER))


def tests_of(build_name, suites, but):
    """The names of the tests of these suites but for some; meson has no option for that."""
    folder = os.path.join(TOP, "build", build_name)
    listed = subprocess.run(["meson", "introspect", "--tests", folder], capture_output=True,
                            text=True)
    tests = json.loads(listed.stdout) if listed.returncode == 0 else []
    return [t["name"] for t in tests if t["name"] not in but
            and any(s.split(":")[-1] in suites for s in t["suite"])]


def stage_fuzz(results):
    """each fuzz target: its corpus, then a few seconds of new inputs"""
    if not build(results, "fuzz", "-Dfuzz=true", "-Db_sanitize=address,undefined",
                 "-Db_lundef=false", "-Dtests=disabled", "-Dbench=disabled", env={"CC": "clang"}):
        return
    folder = os.path.join(TOP, "build", "fuzz", "fuzz")
    targets = sorted(f for f in os.listdir(folder) if f.startswith("fuzz-") and "." not in f) \
        if os.path.isdir(folder) else []
    if not targets:
        results.fail("fuzz: no targets")
    for target in targets:
        start = time.monotonic()
        name = target[len("fuzz-"):]
        scratch = os.path.join(LOGS, "fuzz-corpus-" + name)
        shutil.rmtree(scratch, ignore_errors=True)
        os.makedirs(scratch)
        # libFuzzer reads all folders first, so the whole corpus is played before something new is
        # tried.
        command = [os.path.join(folder, target), "-max_total_time=%d" % FUZZ_SECONDS, "-seed=1",
                   "-timeout=60", "-rss_limit_mb=2048", "-print_final_stats=1",
                   "-artifact_prefix=%s/%s-" % (LOGS, target), scratch,
                   os.path.join(TOP, "fuzz", "corpus", name)]
        status, log = run(target, command, HALT_ON_ERROR, timeout=300)
        step(target, start)
        if status:
            results.fail("fuzz: %s" % name, log)
        else:
            results.ok()


def stage_bench(results):
    """the benchmarks run; no figure is judged"""
    if needs_plain(results):
        meson_test(results, "plain", "--suite", "bench")
        boot_guest(results, "6.12", ["--viommu", VIOMMU, "--bench", "--bench-ms", "100"],
                   "bench: guest")
        run_alone(results, "bench-peers", [sys.executable, "-B", "tests/peers/run.py", "--bench",
                                           "build/plain/tests/peers/dpdk_bench", "--rounds", "1"])


def run_checks(results, name, command, env=None):
    """A program that prints 'ok NAME' or 'not ok NAME: WHY' for each check that it made."""
    start = time.monotonic()
    status, log = run(name, command, env)
    good = bad = 0
    with open(log, errors="replace") as f:
        for line in f:
            if line.startswith("ok "):
                good += 1
            elif line.startswith("not ok "):
                bad += 1
                results.fail("%s: %s" % (name, line[len("not ok "):].strip()))
    results.ok(good)
    if status == SKIP_STATUS and not good and not bad:
        with open(log, errors="replace") as f:
            results.skip(name, skip_reason(f.read()))
    elif not good and not bad or status and not bad:
        results.fail(name, log)
    step("%d passed, %d failed" % (good, bad), start)


def stage_install(results):
    """install into a scratch prefix, and build the README's program against it"""
    run_checks(results, "install", ["sh", "scripts/test-install.sh"])


def stage_checks(results):
    """the repository: licences, lengths, exported symbols, documents"""
    if not needs_plain(results):
        return
    run_checks(results, "checks", [sys.executable, "-B", "scripts/checks.py"])


def stage_guest(results):
    """a Linux guest on QEMU drives the unit (short form; `make test-guest` is the long one)"""
    if not needs_plain(results):
        return
    served = ["--viommu", VIOMMU]
    virtio = [*served, "--model", "virtio"]
    boots = (("6.12", served, ["--strict", "--smp", "4"]),
             ("6.1", served, ["--lazy", "--smp", "1"]),
             ("6.12", served, ["--mirror", "--smp", "4"]),
             ("6.12", [], ["--backend", "vfio"]),
             ("6.12", served, ["--disk", "--strict", "--smp", "4"]),
             ("6.1", served, ["--disk", "--lazy", "--smp", "4"]),
             ("6.12", served, ["--disk", "--iommu", "none", "--smp", "4"]),
             ("6.12", served, ["--failures", "--smp", "4"]),
             ("6.12", served, ["--takeover", "--smp", "4"]),
             ("6.12", served, ["--far", "--strict", "--smp", "4"]),
             ("6.1", served, ["--disk", "--process", "isolated", "--lazy", "--smp", "1"]),
             ("6.12", served, ["--hostile", "--smp", "4"]),
             ("6.12", served, ["--net", "--strict", "--smp", "2"]),
             ("6.1", served, ["--net", "--lazy", "--smp", "2"]),
             ("6.12", served, ["--crashes", "--smp", "2", "--frames", "2000"]),
             ("6.12", virtio, ["--net", "--smp", "2"]),
             ("6.12", virtio, ["--strict", "--smp", "4"]),
             ("6.12", virtio, ["--disk", "--lazy", "--smp", "4"]),
             ("6.12", virtio, ["--disk", "--process", "mapped", "--lazy", "--smp", "4"]),
             ("7.2", virtio, ["--strict", "--smp", "1"]))
    for kernel, unit, options in boots:
        words = [o.lstrip("-") for o in unit[len(served):] + options]
        boot_guest(results, kernel, [*unit, *options], "guest: %s %s" % (kernel, " ".join(words)))


def boot_guest(results, kernel, options, name):
    """Runs the guest test once and counts it as one test."""
    run_alone(results, name, [sys.executable, "-B", "tests/guest/run.py", "--kernel", kernel,
                              *options])


def run_alone(results, name, command):
    """Runs a program and counts it as one test."""
    start = time.monotonic()
    log_name = re.sub(r"[^a-z0-9.]+", "-", name)
    status, log = run(log_name, command, timeout=900)
    step(name, start)
    if status == SKIP_STATUS:
        with open(log, errors="replace") as f:
            results.skip(name, skip_reason(f.read()))
    elif status:
        results.fail(name, log)
    else:
        results.ok()


def stage_peers(results):
    """DPDK's testpmd behind our IOMMU, by our vhost front-end"""
    if not needs_plain(results):
        return
    command = [sys.executable, "-B", "tests/peers/run.py", "--test"]
    run_checks(results, "peers", [*command, "build/plain/tests/peers/dpdk_test"])
    if results.built.get("asan"):
        run_checks(results, "peers-asan", [*command, "build/asan/tests/peers/dpdk_test",
                                           "--scale", "20"], HALT_ON_ERROR)


STAGES = {
    "plain": stage_plain,
    "checks": stage_checks,
    "install": stage_install,
    "asan": stage_asan,
    "tsan": stage_tsan,
    "arm64": stage_arm64,
    "fuzz": stage_fuzz,
    "bench": stage_bench,
    "guest": stage_guest,
    "peers": stage_peers,
}


def main():
    parser = argparse.ArgumentParser(description="all tests, in stages")
    parser.add_argument("stages", nargs="*", metavar="STAGE",
                        help="only these: " + ", ".join(STAGES))
    parser.add_argument("--list", action="store_true", help="print the stages")
    args = parser.parse_args()
    if args.list:
        for name, stage in STAGES.items():
            print("%-8s %s" % (name, stage.__doc__))
        return 0
    unknown = [s for s in args.stages if s not in STAGES]
    if unknown:
        parser.error("no stage '%s'" % unknown[0])
    wanted = [s for s in STAGES if not args.stages or s in args.stages]
    os.makedirs(LOGS, exist_ok=True)
    results = Results()
    begin = time.monotonic()
    for number, name in enumerate(wanted, 1):
        print("[%d/%d] %s: %s" % (number, len(wanted), name, STAGES[name].__doc__), flush=True)
        STAGES[name](results)
    print("all stages: %.0f s" % (time.monotonic() - begin))
    results.print_end()
    return 1 if results.failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
