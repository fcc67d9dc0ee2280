#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""fuzz_coverage.py FOLDER [TARGET...] - which branches the corpora of fuzz targets take.

FOLDER is a build with -fprofile-instr-generate -fcoverage-mapping. Prints a line a file: branches
that were taken, all there are, and the part; then those that were not, with the outcome that lacks.
Assertions do not count. What only a failed allocation of the host's, or an embedder's misuse,
takes does count.
"""
import glob
import json
import os
import re
import shutil
import subprocess
import sys


def tool(name):
    """llvm's tools are named after their version where no package gives the plain name."""
    found = [name] + sorted(glob.glob(f"/usr/bin/{name}-[0-9]*"), reverse=True)
    return next((one for one in found if shutil.which(one)), name)


def play(folder, target):
    """Has a target play its corpus; returns the program and its profile."""
    program = f"{folder}/fuzz/fuzz-{target}"
    profile = f"{folder}/{target}.profraw"
    subprocess.run([program, f"fuzz/corpus/{target}"], check=True, stdout=subprocess.DEVNULL,
                   env={**os.environ, "LLVM_PROFILE_FILE": profile})
    return program, profile


def branches_of(entry, lines):
    """Both outcomes of each branch of a file, over all its expansions: {place: [taken, not taken]}."""
    outcomes = {}
    for first, column, last, end, taken, skipped, *_ in entry["branches"]:
        if re.match(r"\s*assert\(", lines[first - 1]):
            continue
        counts = outcomes.setdefault((first, column, last, end), [0, 0])
        counts[0] += taken
        counts[1] += skipped
    return outcomes


def report(name, outcomes, lines):
    missing = [(place, way) for place, counts in sorted(outcomes.items())
               for way, count in zip(("true", "false"), counts) if not count]
    total = 2 * len(outcomes)
    print(f"{name:40} {total - len(missing):5} of {total:5} {100 * (total - len(missing)) / total:6.1f} %")
    for (first, column, last, end), way in missing:
        text = lines[first - 1][column - 1:end - 1 if last == first else None]
        print(f"    {name}:{first}: never {way}: {text}")


def main():
    folder, *targets = sys.argv[1:]
    chosen = re.compile(os.environ.get("FUZZ_FILES", "^(lib|models|server|tools|backends)/"))
    targets = targets or sorted(os.path.basename(path)[:-len("_fuzz.c")] for path in glob.glob("fuzz/*_fuzz.c"))
    programs, profiles = zip(*(play(folder, target) for target in targets))
    merged = f"{folder}/all.profdata"
    subprocess.run([tool("llvm-profdata"), "merge", "-sparse", "-o", merged, *profiles], check=True)
    objects = [argument for program in programs for argument in ("-object", program)]
    text = subprocess.run([tool("llvm-cov"), "export", "-instr-profile", merged, *objects[1:]],
                          check=True, stdout=subprocess.PIPE).stdout
    for entry in json.loads(text)["data"][0]["files"]:
        name = os.path.relpath(entry["filename"])
        if not chosen.search(name) or not entry["branches"]:
            continue
        with open(entry["filename"], encoding="utf-8") as file:
            lines = file.read().split("\n")
        outcomes = branches_of(entry, lines)
        if outcomes:
            report(name, outcomes, lines)


main()
