#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""checks.py [CHECK...] - what the repository promises about itself.

Each check prints "ok NAME" or "not ok NAME: WHY". Exit status: 0 all ok, 1 not, 2 usage.
The checks of symbols and of manual pages look at build/plain, which must be built.
"""

import glob
import os
import re
import shutil
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MAX_LINES = 800
MAX_COLUMNS = 100
ROOMS = ("lib", "models", "backends", "server", "tools", "include")
FOLDERS = ROOMS + ("tests", "fuzz", "bench", "docs", "examples", "scripts")
# No place for a comment in them, or no text of ours.
NO_LICENCE_LINE = re.compile(r"^(LICENSE$|fuzz/corpus/|.*\.(bin|png|json|dat)$)")
HEADERS = os.path.join(TOP, "include", "viommu", "*.h")


def repository_files():
    """Files of the repository: what git knows or would add, else what lies there."""
    try:
        names = command("git", "ls-files", "-co", "--exclude-standard").splitlines()
    except (OSError, subprocess.CalledProcessError):
        names = [os.path.relpath(os.path.join(folder, name), TOP)
                 for folder, _, files in os.walk(TOP) for name in files]
        names = [n for n in names
                 if not n.startswith((".git/", "build/")) and "__pycache__" not in n]
    return sorted(n for n in names if is_text(os.path.join(TOP, n)))


def is_text(path):
    """Not a program or data that somebody left here."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as f:
        return b"\0" not in f.read(4096)


def text_of(name):
    with open(os.path.join(TOP, name), errors="replace") as f:
        return f.read()


def some(problems):
    more = len(problems) - 8
    return ", ".join(problems[:8]) + (" and %d more" % more if more > 0 else "")


def command(*words):
    return subprocess.run(words, cwd=TOP, capture_output=True, text=True, check=True).stdout


# ---- checks: each returns a list of problems

def check_licence_lines():
    """Each file names its licence in its first two lines (three where the first is a shebang)."""
    wanted = "SPDX-License-Identifier: BSD-2-Clause"
    return [n for n in repository_files() if not NO_LICENCE_LINE.match(n)
            and not any(wanted in line for line in text_of(n).splitlines()[:3])]


def check_lengths():
    """No file of the rooms is longer than MAX_LINES."""
    long = []
    for name in repository_files():
        if name.split("/")[0] in ROOMS:
            lines = text_of(name).count("\n")
            if lines > MAX_LINES:
                long.append("%s has %d lines" % (name, lines))
    return long


def check_columns():
    """No line of C goes past MAX_COLUMNS."""
    return ["%s:%d has %d columns" % (name, number, len(line))
            for name in repository_files() if name.endswith((".c", ".h"))
            for number, line in enumerate(text_of(name).splitlines(), 1)
            if len(line) > MAX_COLUMNS]


def declared_functions():
    """{name: documented?} of the functions that the public headers declare."""
    declared = {}
    for path in sorted(glob.glob(HEADERS)):
        with open(path) as f:
            lines = f.read().splitlines()
        for number, line in enumerate(lines):
            # "static inline" ones and function types are no symbols.
            match = re.match(r"^(?!static|typedef|#|\s|/\*| \*)[\w\s]+[\s*](\w+)\(", line)
            if match:
                declared[match.group(1)] = is_documented(lines, number)
    return declared


def is_documented(lines, number):
    """A comment stands right above, or above the declarations right before it."""
    for line in reversed(lines[:number]):
        if line.rstrip().endswith("*/"):
            return True
        if not line.strip():
            return False
    return False


def check_documented_functions():
    """Each public function has a comment, and its name starts with viommu_."""
    return [n for n, documented in declared_functions().items()
            if not documented or not n.startswith("viommu_")]


def exported():
    listed = command("nm", "-D", "--defined-only", "build/plain/libviommu.so.0")
    symbols = [line.split()[-1].split("@")[0] for line in listed.splitlines()]
    return {s for s in symbols if not s.startswith("VIOMMU_")}


def check_exported_symbols():
    """The shared library exports what the headers declare, and nothing else."""
    declared = set(declared_functions())
    return ["%s is exported but not declared" % s for s in sorted(exported() - declared)] + \
           ["%s is declared but not exported" % s for s in sorted(declared - exported())]


def check_static_symbols():
    """The static library's global symbols are the public ones."""
    listed = command("nm", "-g", "--defined-only", "build/plain/libviommu.a")
    symbols = {line.split()[-1] for line in listed.splitlines() if len(line.split()) == 3}
    return sorted(symbols - set(declared_functions()))


def check_libc_only():
    """The library needs no other library than libc."""
    dynamic = command("readelf", "-d", "build/plain/libviommu.so.0")
    needed = re.findall(r"NEEDED.*\[(.*)\]", dynamic)
    return [n for n in needed if not re.match(r"(libc\.so|ld-linux)", n)]


def check_headers_alone():
    """Each public header compiles by itself as C11 without extensions."""
    problems = []
    for path in sorted(glob.glob(HEADERS)):
        done = subprocess.run(["cc", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror",
                               "-fsyntax-only", "-Iinclude", "-x", "c", path],
                              cwd=TOP, capture_output=True, text=True)
        if done.returncode:
            problems.append(done.stderr.strip().splitlines()[0])
    return problems


def manual(section):
    """{name: text} of the manual pages that the build made, but for those that lead to another."""
    pages = {}
    for path in sorted(glob.glob(os.path.join(TOP, "build/plain/man%d/*.%d" % (section, section)))):
        with open(path) as f:
            pages[os.path.basename(path)[:-2]] = f.read()
    return pages


def check_manual_of_functions():
    """Each public function has a manual page, which names it."""
    pages = manual(3)
    problems = []
    for name in declared_functions():
        text = pages.get(name, "")
        leads_to = re.match(r"\.so man3/(\w+)\.3\n$", text)
        text = pages.get(leads_to.group(1), "") if leads_to else text
        if not re.search(r"\b%s\(" % name, text):
            problems.append(name)
    return problems


def check_manual_of_command():
    """Each sub-command has a manual page, with the options of its --help and no others."""
    pages = manual(1)
    tool = "build/plain/tools/viommu"
    commands = re.findall(r"^  (\w+) {2,}", command(tool, "--help"), re.M)
    problems = ["no page for viommu %s" % c for c in commands if "viommu-" + c not in pages]
    for name, text in pages.items():
        said = command(tool, *name.split("-")[1:], "--help")
        said = " ".join(re.findall(r"^(?: {2}| {6})(-\S.*?)(?: {2}|$)", said, re.M))
        said = set(re.findall(r"(--[a-z][a-z-]*)", said))
        options = re.findall(r"^\.B (.*)$", text.replace("\\-", "-"), re.M)
        told = set(re.findall(r"(--[a-z][a-z-]*)", " ".join(options)))
        problems += ["%s(1) and --help differ about %s" % (name, o) for o in sorted(said ^ told)]
    return problems


def check_manual_format():
    """mandoc, where it is there, finds nothing wrong with the manual pages."""
    problems = []
    for section in (1, 3) if shutil.which("mandoc") else ():
        for name, text in manual(section).items():
            if not text.startswith(".so "):
                done = subprocess.run(["mandoc", "-Tlint", "-W", "warning"], input=text,
                                      capture_output=True, text=True)
                problems += ["%s: %s" % (name, line) for line in done.stdout.splitlines()[:1]]
    return problems


def check_scripts():
    """Shell and Python scripts parse; those with a shebang can be executed."""
    problems = []
    for name in repository_files():
        path = os.path.join(TOP, name)
        if name.startswith("fuzz/corpus/"):
            continue
        first = text_of(name).split("\n", 1)[0]
        if first.startswith("#!") and not os.access(path, os.X_OK):
            problems.append("%s is not executable" % name)
        if first.startswith("#!/bin/sh") or name.endswith(".sh"):
            done = subprocess.run(["sh", "-n", path], capture_output=True, text=True)
            if done.returncode:
                problems.append("%s: %s" % (name, done.stderr.strip()))
        elif name.endswith(".py"):
            try:
                compile(text_of(name), name, "exec")
            except SyntaxError as e:
                problems.append("%s: %s" % (name, e))
    return problems


def check_package_lists():
    """README names exactly the packages that scripts/install-deps.sh installs."""
    script = text_of("scripts/install-deps.sh")
    installed = set()
    for words in re.findall(r"echo ([a-z0-9][^\n]*?)(?: ;;)?\n", script.split("is_installed()")[0]):
        installed |= {w for w in words.split() if re.match(r"^[a-z0-9][a-z0-9+.-]+$", w)}
    table = re.search(r"<!-- packages -->\n(.*?)\n\n", text_of("README.md") + "\n\n", re.S)
    if not table:
        return ["README.md has no table after <!-- packages -->"]
    named = set()
    for row in table.group(1).splitlines():
        named |= set(re.findall(r"`([^`]+)`", row.split("|")[1]))
    return ["%s is not in the README" % p for p in sorted(installed - named)] + \
           ["%s is in the README only" % p for p in sorted(named - installed)]


def check_readme_program():
    """The README's program is examples/toy_device.c."""
    block = re.search(r"<!-- examples/toy_device\.c -->\n```c\n(.*?)```\n",
                      text_of("README.md"), re.S)
    if not block:
        return ["README.md has no program after <!-- examples/toy_device.c -->"]
    return [] if block.group(1) == text_of("examples/toy_device.c") else ["they differ"]


# ---- documents

def without_code(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)


def anchors(text):
    """The anchors that a renderer makes of the headings."""
    found = set()
    for heading in re.findall(r"^#+\s+(.*?)\s*$", without_code(text), re.M):
        plain = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


def link_problem(document, target):
    """Why a link of a document leads nowhere, or None."""
    if re.match(r"[a-z]+:", target):
        return None
    path, _, anchor = target.partition("#")
    name = os.path.normpath(os.path.join(os.path.dirname(document), path)) if path else document
    full = os.path.join(TOP, name)
    if not os.path.exists(full):
        return "%s: link to %s" % (document, target)
    if anchor and os.path.isfile(full) and anchor not in anchors(text_of(name)):
        return "%s: no heading for %s" % (document, target)
    return None


def check_documents():
    """Links and anchors lead somewhere; paths of the repository in backquotes exist."""
    problems = []
    for document in [n for n in repository_files() if n.endswith(".md")]:
        text = without_code(text_of(document))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            problem = link_problem(document, target)
            if problem:
                problems.append(problem)
        for quoted in re.findall(r"`([\w./*-]+)`", text):
            if "NAME" in quoted:  # stands for a name
                continue
            path = os.path.join(TOP, quoted)
            # A name may leave its suffix out: `lib/iotlb/iotlb_test`.
            there = glob.glob(path) + glob.glob(path + ".*")
            if quoted.split("/")[0] in FOLDERS and "/" in quoted and not there:
                problems.append("%s: no %s" % (document, quoted))
    return problems


CHECKS = {name[len("check_"):]: function for name, function in sorted(globals().items())
          if name.startswith("check_")}


def main():
    wanted = sys.argv[1:] or list(CHECKS)
    unknown = [w for w in wanted if w not in CHECKS]
    if unknown:
        print("no check '%s'; there are: %s" % (unknown[0], " ".join(CHECKS)), file=sys.stderr)
        return 2
    failed = False
    for name in wanted:
        try:
            problems = CHECKS[name]()
        except (OSError, subprocess.CalledProcessError) as e:
            problems = [str(e)]
        print("not ok %s: %s" % (name, some(problems)) if problems else "ok %s" % name, flush=True)
        failed = failed or bool(problems)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
