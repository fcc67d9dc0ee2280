#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What `viommu` promises on the outside: exit statuses, messages, output that is input again, JSON,
and that docs/scenario.md documents every operation.

    run_test.py VIOMMU SOURCE_ROOT
"""
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

VIOMMU, ROOT = sys.argv[1], pathlib.Path(sys.argv[2])
failures = 0

SETUP = """ram 0 1m
unit
device disk 00:03.0
tables 0x10000 64k
context disk 1
map 1 0x1000 0x5000 4k rw
set-root
command translation on
"""


def call(*arguments, text=""):
    return subprocess.run([VIOMMU, *arguments], input=text, capture_output=True, text=True, timeout=60)


def expect(what, condition, result=None):
    global failures
    if condition:
        return
    failures += 1
    print(f"FAILED: {what}")
    if result is not None:
        print(f"  exit status {result.returncode}\n  stdout: {result.stdout}\n  stderr: {result.stderr}")


def expect_error(what, scenario, *words):
    """Exit status 2, and a message that holds all the words."""
    result = call("run", "-", text=scenario)
    expect(what, result.returncode == 2 and all(word in result.stderr for word in words), result)


def test_exit_statuses():
    good = call("run", "-", text="ram 0 1m => ok\n")
    expect("all as expected: 0", good.returncode == 0 and not good.stderr, good)
    bad = call("run", "-", text="# one\nram 0 1m\nread 0 4 => u32=7\nread 4 4 => ok u32=0\n")
    expect("a mismatch: 1, with line, expected and actual value",
           bad.returncode == 1 and "standard input:3:" in bad.stderr and "u32=7" in bad.stderr
           and "u32=0x0" in bad.stderr, bad)
    expect("the rest is played after a mismatch", "read 4 4" in bad.stdout, bad)
    expect("a file that is not there: 2", call("run", "/nonexistent").returncode == 2)
    expect("a folder: 2", call("run", "/").returncode == 2)
    expect("no file: 2", call("run").returncode == 2)
    expect("no subcommand: 2", call().returncode == 2)
    expect("an unknown subcommand: 2", call("frobnicate").returncode == 2)
    expect("--help: 0", call("--help").returncode == 0)
    expect("--version: 0", call("--version").stdout.startswith("viommu "))
    expect("run --version: 0", call("run", "--version").stdout == call("-V").stdout)
    expect("--usage: 0", call("--usage").stdout.startswith("Usage: viommu "))
    expect("--nonsense: 2", "no option '--nonsense'" in call("--nonsense").stderr)
    expect("run --help: 0", "dma read" in call("run", "--help").stdout)


def test_lost_output():
    """What cannot be written makes the command fail."""
    for arguments in (["--help"], ["run", "--help"], ["run", "-"], ["acpi", "dmar", "--include-all", "-o", "-"]):
        with open("/dev/full", "w") as full:
            status = subprocess.run([VIOMMU, *arguments], input=b"ram 0 1m\n", stdout=full,
                                    stderr=subprocess.DEVNULL, timeout=60).returncode
        expect("%s > /dev/full: 1" % " ".join(arguments), status == 1)
        closed = subprocess.run(["sh", "-c", '"$@" >&-', "sh", VIOMMU, *arguments], input=b"ram 0 1m\n",
                                stderr=subprocess.DEVNULL, timeout=60)
        expect("%s with a closed output: 1" % " ".join(arguments), closed.returncode == 1)


def test_serve_usage():
    if "serve" not in call("--help").stdout:
        return
    wrong = ["", "--vtd=", "--vtd x --width 40", "--vtd x --width 304", "--vtd x --host-width 35",
             "--vtd x --domain-bits 5", "--vtd x --fault-records 0", "--vtd x --fault-records 257",
             "--vtd x --iotlb-entries 255", "--vtd x y", "--vtd x --edu 05.0=y", "--vtd x --mirror 05.0=y", "--iommu amd --vtd x",
             "--iommu none", "--iommu none --vtd x --device edu,at=05.0,socket=y",
             "--iommu none --width 39 --device edu,at=05.0,socket=y"]
    for arguments in wrong:
        result = call("serve", *arguments.split())
        expect(f"serve {arguments}: 2 and a message", result.returncode == 2 and result.stderr, result)
    devices = [("edu,at=05.0,socket=", "socket"), ("edu,at=20.0,socket=y", "20.0"), ("edu,at=5,socket=y", "'5'"),
               ("edu,at=05.0", "socket is needed"), ("edu,socket=y", "at is needed"), ("edu", "needed"),
               ("ide,at=05.0,socket=y", "'ide' is no kind"), ("", "no kind"), ("edu,at=05.0,socket=y,", "no key ''"),
               ("edu,at=05.0,socket=y,colour=red", "'colour'"), ("edu,at=05.0,at=06.0,socket=y", "at is given twice"),
               ("edu,at=05.0,socket=y,mirror", "mirror"), ("edu,at=05.0,socket=y,mirror=z", "--caching-mode")]
    nvme = "nvme,at=05.0,socket=y"
    devices += [(nvme, "file is needed"), (nvme + ",file=", "file"), (nvme + ",file=x,lba=513", "'513'"),
                (nvme + ",file=x,readonly=1", "readonly"), (nvme + ",file=x,queues=0", "queues"),
                (nvme + ",file=x,queues=64", "'64'"), (nvme + ",file=x,workers=65", "workers"),
                (nvme + ",file=x,serial=123456789012345678901", "serial"), (nvme + ",file=x,mirror=y", "'mirror'")]
    for device, wanted in devices:
        result = call("serve", "--vtd", "x", "--device", device)
        expect(f"serve --device '{device}': 2 and a message that tells",
               result.returncode == 2 and "--device" in result.stderr and wanted in result.stderr, result)
    expect("the unit's option is named", "--iotlb-entries" in
           call("serve", "--iommu", "none", "--iotlb-entries", "256", "--device", "edu,at=05.0,socket=y").stderr)
    expect("the option is named", "--fault-records" in call("serve", "--vtd", "x", "--fault-records", "0").stderr)
    result = call("serve", "--vtd", "/nonexistent/x")
    expect("a socket that cannot be: 1", result.returncode == 1 and "/nonexistent/x" in result.stderr, result)


def test_errors():
    expect_error("an unknown operation", "dma rea x\n", "1:", "dma", "dma read")
    expect_error("an operation that is like no other", "xyzzyplugh 1\n", "xyzzyplugh")
    expect_error("a missing argument", "\nram 0\n", "2:", "size", "missing")
    expect_error("an argument too many", "ram 0 1m 2m\n", "2m", "too many")
    expect_error("a mistyped argument", "unit wdth=48\n", "wdth", "width")
    expect_error("an argument twice", "ram at=0 size=1m at=0\n", "at", "twice")
    expect_error("not a number", "ram 0 12q\n", "12q")
    expect_error("a number that is too large", "ram 0 0x10000000000000000\n", "0x10000000000000000")
    expect_error("an unknown register", "unit\nreg read GSTX\n", "2:", "GSTX", "GSTS")
    expect_error("an unknown field", "unit\nreg write FECTL IQ=1\n", "IQ", "FECTL")
    expect_error("a field that does not fit", "unit\nreg write FECTL IM=2\n", "IM")
    expect_error("an unknown symbol", "read $nowhere 4\n", "$nowhere")
    expect_error("an unknown device", SETUP + "dma read dosk 0 4\n", "dosk", "disk")
    expect_error("an unknown counter", "unit\nstats wlks\n", "wlks", "walks")
    expect_error("no unit", "reg read VER\n", "unit")
    expect_error("no queue", "unit\ninv iec\n", "queue")
    expect_error("no region for tables", "unit\ncontext 00:03.0 1\n", "tables")
    expect_error("an open quote", 'write 0 text="abc\n', "closing")
    expect_error("an empty expectation", "ram 0 1m =>\n", "=>")
    expect_error("two expectations", "ram 0 1m => ok => ok\n", "=>")
    expect_error("two kinds of data", "ram 0 1m\nwrite 0 u8=1 text=x\n", "both")
    expect_error("no data", "ram 0 1m\nwrite 0\n", "what to write")
    expect_error("odd hexadecimal", "ram 0 1m\nwrite 0 data=123\n", "123")
    expect_error("data without length", "ram 0 1m\nwrite 0 fill=1\n", "len")
    expect_error("a byte that is none", "ram 0 1m\nwrite 0 fill=256 len=1\n", "256", "255")
    expect_error("part of a millisecond", "unit ack-timeout=500us\n", "milliseconds")
    expect_error("a time that is too long", "time 99999999999999999999ns\n", "99999999999999999999ns")
    expect_error("time that wraps", "time 18446744073709551615ns\ntime 1ns\n", "2:", "time")
    expect_error("nothing held", "unit\nrelease x\n", "held")
    expect_error("a map past the tables", SETUP + "map 1 0x1000000000000 0 4k\n", "48 bits")
    expect_error("a map that is not aligned", SETUP + "map 1 0x800 0 4k\n", "multiples")
    expect_error("a level of 0", SETUP + "entry 1 0 0 0\n", "levels")
    subscribe = SETUP + "subscribe m disk mirror "
    expect_error("allowed ranges that are none", subscribe + "allowed=0x1000\n", "0x1000", "FIRST-LAST")
    expect_error("a policy that is none", "unit rewrite-policy=ignore\n", "ignore", "continue")
    cache = SETUP + "subscribe c disk cache\n"
    expect_error("the mapping of a cache", cache + "mapped c 0x1000\n", "c", "no mirror")
    expect_error("the 0th call", cache + "fail c nth=0\n", "count from 1")
    expect_error("kinds that are none", cache + "fail c kinds=map|umap\n", "umap", "device-tlb")
    expect_error("a NUL character", "ram 0 1m\0\n", "NUL")
    expect_error("a line that does not end", "#" * (1 << 20), "1:", "too long")
    expect_error("a definition without value", "$x =\n", "$x")
    many = "stats " + " ".join(["walks"] * 100)
    expect_error("too many words", "unit\n" + many + "\n", "words")


def test_output_is_input():
    first = call("run", "-", text="$a = 0x40\n" + SETUP + 'write $a text="say \\"hi\\" # now"\n'
                 "read $a 14\nread 0 128\ntranslate disk 0x1000\nfault\nreg read CAP\nread 0 0\n"
                 'write 0x80 text="a => b" =>\tok\nread $a 8 => u64=?b text=?c\nwrite 0x80 u64=$b+1\n')
    second = call("run", "-", text=first.stdout)
    expect("what a run prints can be run", first.returncode == 0 and second.returncode == 0
           and second.stdout == first.stdout, second)


def test_json():
    result = call("run", "--json", "-", text=SETUP + "translate disk 0x1000 => gpa=0x5000\n"
                  "translate disk 0x1000 => gpa=0x6000\n")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    expect("one object a line", len(lines) == 10 and result.returncode == 1, result)
    expect("fields", lines[8] == {"line": 9, "operation": "translate", "status": "ok", "passed": True,
                                  "fields": {"gpa": "0x5000", "page": "4k", "perm": "rw"}}, result)
    expect("a failed check", lines[9]["passed"] is False, result)


def test_expectations():
    result = call("run", "-q", "-", text="ram 0 1m => ok|exists\nread 0 4 => u32=?x u32!=1 u32=5|0\n"
                  "write 4 u32=$x+7\nread 4 4 => u32=7 data=07000000 u32!=$x\n")
    expect("choices, captures, inequality", result.returncode == 0 and not result.stdout, result)
    result = call("run", "-", text="ram 0 1m\nread 0 4 => nothing=1\n")
    expect("a field that is not there", result.returncode == 1 and "nothing" in result.stderr, result)


def test_mirrors():
    setup = SETUP.replace("unit\n", "unit caching-mode=on\n")
    result = call("run", "-", text=setup + "subscribe m disk mirror range trace=-\n"
                  'calls m => count=1 list="map:0x1000-0x1fff>0x5000/rw"\n')
    traced = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    expect("a mirror, traced", result.returncode == 0 and len(traced) == 1 and traced[0]["call"] == "map"
           and traced[0]["first"] == "0x1000" and traced[0]["gpa"] == "0x5000", result)
    result = call("run", "-", text=setup + "ram 0x100000 1m\nmap 1 0x2000 0x100000 4k rw\n"
                  "subscribe m disk mirror range\nanswer m io-error fence=io-error\n"
                  "ram-remove 0x100000 1m\nram 0x100000 1m => ok\n")
    expect("memory that a mirror still maps is given up: 1", result.returncode == 1
           and "mirror m was told wrongly: memory" in result.stderr, result)
    expect_error("a trace that cannot be written", setup + "subscribe m disk mirror trace=/nonexistent/x\n",
                 "/nonexistent/x")


def test_documentation():
    text = (ROOT / "docs" / "scenario.md").read_text()
    names = call("run", "--list-operations").stdout.splitlines()
    expect("there are operations", len(names) > 60)
    for name in names:
        expect(f"docs/scenario.md documents `{name}`", f"| `{name}`" in text)
    registers = (ROOT / "tools" / "run" / "register.c").read_text()
    for line in registers.splitlines():
        name = line.strip().removeprefix('{"').partition('"')[0]
        if line.startswith('    {"') and name.isupper() and not name.startswith("FRCD"):
            expect(f"docs/scenario.md names the register {name}", name in text)


def test_acpi():
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "dmar.bin"
        result = call("acpi", "dmar", "--device", "00:05.0", "--rmrr", "0x1000-0x1fff", "--ats", "-o", str(path))
        table = path.read_bytes()
    expect("a table", result.returncode == 0 and table[:4] == b"DMAR" and sum(table) % 256 == 0
           and int.from_bytes(table[4:8], "little") == len(table), result)
    wrong = ["--base 0x123", "--width 0", "--width 65", "--device 5", "--device 00:20.0", "--rmrr 1-2",
             "--rmrr 0x2000-0x1fff", "--size 12k", "--segment 65536", "--base zz", "", "--device 0:1.0 more",
             "--include-all --device 0:1.0", "--include-all --rmrr 0-0xfff"]
    for arguments in wrong:
        result = call("acpi", "dmar", *arguments.split(), "-o", "/dev/null")
        expect(f"acpi dmar {arguments}: 2 and a message", result.returncode == 2 and result.stderr, result)
    expect("an option of another table: 2",
           call("acpi", "dmar", "--include-all", "--iommu", "4.0", "-o", "/dev/null").returncode == 2)
    expect("no output: 2", call("acpi", "dmar", "--include-all").returncode == 2)
    expect("no such table: 2", call("acpi", "srat", "--include-all", "-o", "-").returncode == 2)
    expect("a file that cannot be written: 1",
           call("acpi", "dmar", "--include-all", "-o", "/nonexistent/x").returncode == 1)


def viot(*arguments):
    """The ranges that the table of these arguments has, and where its virtio-iommu is."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "viot.bin"
        result = call("acpi", "viot", *arguments, "-o", str(path))
        expect(f"acpi viot {arguments}: a table", result.returncode == 0, result)
        table = path.read_bytes()
    expect("VIOT: length and checksum", table[:4] == b"VIOT" and sum(table) % 256 == 0
           and int.from_bytes(table[4:8], "little") == len(table))
    count, at = struct.unpack_from("<HH", table, 36)
    iommu, ranges = None, []
    for _ in range(count):
        kind, length = struct.unpack_from("<BxH", table, at)
        if kind == 3:
            iommu = at, struct.unpack_from("<HH", table, at + 4)
        else:
            expect("VIOT: the other nodes are ranges", kind == 1)
            endpoint, segment, last_segment, first, last, output = struct.unpack_from("<IHHHHH", table, at + 4)
            expect("VIOT: endpoint ids are requester ids, in one segment", endpoint == first and segment == last_segment)
            ranges.append((segment, first, last, output))
        at += length
    expect("VIOT: nothing follows the nodes", at == len(table))
    expect("VIOT: the ranges name the virtio-iommu", all(r[3] == iommu[0] for r in ranges))
    return iommu[1], [r[:3] for r in ranges]


def test_acpi_viot():
    expect("VIOT: one device", viot("--iommu", "04.0", "--device", "05.0") == ((0, 0x20), [(0, 0x28, 0x28)]))
    expect("VIOT: devices beside one another are one range, others are not, and none is between",
           viot("--device", "10.0", "--device=5.1", "-i0:4.0", "--device=5.0", "-d", "1:0.0", "--device=05.2",
                "--device=5.1", "-d3.7")
           == ((0, 0x20), [(0, 0x1f, 0x1f), (0, 0x28, 0x2a), (0, 0x80, 0x80), (0, 0x100, 0x100)]))
    expect("VIOT: another segment, the highest function",
           viot("--iommu=0.0", "--device=ff:1f.7", "--segment=65535") == ((0xffff, 0), [(0xffff, 0xffff, 0xffff)]))
    wrong = ["--device 5.0", "--iommu 4.0", "--iommu 4 --device 5.0", "--iommu 4.0 --device 4.0",
             "--iommu 4.0 --device 5.8", "--iommu 4.0 --device 0:5.0/0.0", "--iommu 4.0 --iommu 3.0 --device 5.0",
             "--iommu 4.0 --device 5.0 --base 0xfd000000", "--iommu 4.0 --device 5.0 --include-all",
             "--iommu 4.0 --device 5.0 dmar", "--iommu 4.0 --device 5.0 --segment 65536"]
    for arguments in wrong:
        result = call("acpi", "viot", *arguments.split(), "-o", "/dev/null")
        expect(f"acpi viot {arguments}: 2 and a message", result.returncode == 2 and result.stderr, result)


for test in [value for name, value in sorted(globals().items()) if name.startswith("test_")]:
    test()
print("failed" if failures else "ok")
sys.exit(1 if failures else 0)
