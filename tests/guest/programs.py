# SPDX-License-Identifier: BSD-2-Clause
"""programs.py - build the programs that are /init in a test guest.

Each is static and x86-64, whatever this machine is.  mirror_test has the whole library in it; that
is compiled from its sources, because the build beside us may be of another machine or sanitized,
into one object in which only viommu_* is global: its other names may be those of the program.
"""

import concurrent.futures
import glob
import os
import platform
import shutil
import subprocess

from child import CannotRun

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.join(HERE, "..", "..")
SHARED = ["allowed.c", "refused.c", "edu.c", "init.c", "kmsg.c", "memory.c", "report.c", "vfio.c"]
PROGRAMS = {
    "guest_test": ["guest_test.c", "shuffle.c", "hostile.c", "unit_checks.c"] + SHARED,
    "disk_test": ["disk_test.c", "disk.c", "load.c", "disk_checks.c", "disk_failures.c",
                  "disk_takeover.c", "disk_far.c", "disk_bench.c", "unit_checks.c"] + SHARED,
    "mirror_test": ["mirror_test.c", "mirror.c", "mirror_checks.c", "mirror_many.c", "host.c",
                    "sources_checks.c", "../support/guest.c",
                    "../../tools/iova/kernel.c"] + SHARED,
}
WITH_LIBRARY = ["mirror_test"]
LIBRARY_ROOMS = ["lib", "models", "backends"]


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


def is_library_source(path):
    name = os.path.basename(path)
    return not name.endswith("_test.c") and not name.startswith("test_")


def library_sources():
    return [path for room in LIBRARY_ROOMS
            for path in sorted(glob.glob(os.path.join(TOP, room, "**", "*.c"), recursive=True))
            if is_library_source(path)]


def library_options():
    return ['-DVIOMMU_VERSION="guest"'] + \
        ["-I" + os.path.join(TOP, d) for d in ["include"] + LIBRARY_ROOMS]


def run(what, command, **more):
    try:
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, **more)
    except OSError as e:
        raise CannotRun("%s: %s" % (what, e)) from e
    if done.returncode != 0:
        raise CannotRun("%s does not build:\n%s" % (what, done.stdout))
    return done.stdout.strip()


def tool(name):
    """The compiler's own binutils."""
    return run(name, [compiler(), "-print-prog-name=" + name])


def build_library(directory):
    """Returns the path of the object."""
    objects = os.path.join(directory, "library")
    whole = os.path.join(directory, "viommu.o")
    os.makedirs(objects, exist_ok=True)
    sources = [os.path.abspath(source) for source in library_sources()]
    outputs = [os.path.join(objects, "%d.o" % i) for i in range(len(sources))]
    jobs = [[compiler(), "-std=gnu11", "-D_GNU_SOURCE", "-pthread", "-O2", "-c", "-o", output] +
            library_options() + [source] for source, output in zip(sources, outputs)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda job: run("the library", job), jobs))
    run("the library", [tool("ld"), "-r", "-o", whole] + outputs)
    run("the library", [tool("objcopy"), "--wildcard", "--keep-global-symbol=viommu_*", whole])
    return whole


def build(name, directory):
    """Returns the path of the program."""
    program = os.path.join(directory, name)
    command = [compiler(), "-std=gnu11", "-D_GNU_SOURCE", "-pthread", "-O2", "-static", "-Wall",
               "-Wextra", "-o", program]
    sources = [os.path.join(HERE, s) for s in PROGRAMS[name]]
    if name in WITH_LIBRARY:
        command += library_options()
        sources.append(build_library(directory))
    run("the guest program " + name, command + sources)
    return program
