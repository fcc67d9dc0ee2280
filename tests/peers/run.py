#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""run.py - tests and figures of the vhost front-end with DPDK's testpmd at the other end.

    run.py --test PATH      PATH is the built dpdk_test: all checks, behind each kind of IOMMU
    run.py --bench PATH     PATH is the built dpdk_bench: figures

testpmd is fetched into the cache first (fetch.sh). Checks print "ok NAME" or "not ok NAME: WHY";
what testpmd said is kept, and named, where one failed.

Exit status: 0 all passed, 1 something failed, 2 usage, 77 this machine cannot run it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True  # leave no __pycache__ beside the sources
from testpmd import cache_directory, find, path_in_cache  # noqa: E402 (and where child is)
from child import CannotRun, check_memory  # noqa: E402

SECONDS = 300
NEEDED_MIB = 600


def run(program, testpmd, options, wrap):
    """One run; returns its exit status."""
    directory = tempfile.mkdtemp(prefix="viommu-peers-")
    log = os.path.join(directory, "testpmd.log")
    try:
        status = subprocess.run([*wrap, program, testpmd, directory, "--log", log, *options],
                                check=False, timeout=SECONDS, stdin=subprocess.DEVNULL).returncode
    except subprocess.TimeoutExpired:
        print("not ok %s: it did not end within %d s" % (" ".join(options) or "run", SECONDS))
        status = 1
    if status:
        kept = os.path.join(cache_directory(), "logs")
        os.makedirs(kept, exist_ok=True)
        kept = os.path.join(kept, "testpmd-%d.log" % os.getpid())
        if os.path.exists(log):
            shutil.copy(log, kept)
            print("# what testpmd said: %s" % kept)
        if status != 1:
            print("not ok %s: status %d" % (" ".join(options) or "run", status))
    shutil.rmtree(directory, ignore_errors=True)
    sys.stdout.flush()
    return status


def main():
    parser = argparse.ArgumentParser(description="DPDK's testpmd behind our IOMMU")
    parser.add_argument("--test", metavar="PATH", help="the built dpdk_test")
    parser.add_argument("--bench", metavar="PATH", help="the built dpdk_bench")
    parser.add_argument("--model", choices=("vtd", "virtio"), help="only this IOMMU")
    parser.add_argument("--scale", type=int, default=100, metavar="PERCENT",
                        help="how much of each check (100)")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="of figures (20)")
    parser.add_argument("--no-fetch", action="store_true",
                        help="use testpmd if it is in the cache, else exit with 77")
    parser.add_argument("--wrap", default="", metavar="WORDS", help="run the program under this")
    args = parser.parse_args()
    if bool(args.test) == bool(args.bench):
        parser.error("--test or --bench")
    if args.bench and args.model == "virtio":
        parser.error("figures are taken behind VT-d")
    try:
        check_memory(NEEDED_MIB)
        testpmd = path_in_cache() if args.no_fetch else find()
        if not os.access(testpmd, os.X_OK):
            raise CannotRun("DPDK's testpmd is not in the cache (tests/peers/fetch.sh gets it)")
    except CannotRun as e:
        print("run.py: error: %s" % e, flush=True)
        return 77
    failed = False
    models = ("vtd",) if args.bench else ("vtd", "virtio")
    for model in (args.model,) if args.model else models:
        options = ["--scale", str(args.scale)] if args.test else ["--rounds", str(args.rounds)]
        options += ["--virtio"] if model == "virtio" else []
        if run(args.test or args.bench, testpmd, options, args.wrap.split()):
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
