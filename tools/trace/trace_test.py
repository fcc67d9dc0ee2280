#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Traces: what every scenario's unit does is written down and replayed with the same outcome; a trace
that was changed is found out; what is no trace is refused; what cannot be written is said, and the
server goes on; the USDT probes are in the command.

    trace_test.py VIOMMU SOURCE_ROOT with-probes|without-probes
"""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

VIOMMU, ROOT, PROBES = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3] == "with-probes"
failures = 0

# Their waits are given up because a device does not answer, which is not replayed.
GIVEN_UP = {"F1-ite-aborts-all-waits", "F3-no-answer-is-fenced-and-denied",
            "F3-window-and-device-tlb"}
# A mirror had a part in the answers of their requests.
WITH_MIRRORS = {"B7-virtio-mirror-holds-the-request", "F3-virtio-mirror-is-reset",
                "F2-mirror-that-cannot-follow"}
KINDS = {
    "reset": set(),
    "write": {"offset", "size", "value"},
    "command": {"offset", "value"},
    "completed": {"offset", "value"},
    "descriptor": {"slot", "type", "low", "high"},
    "refused": {"slot", "type", "low", "high", "reason"},
    "retired": {"slot", "type", "low", "high", "error"},
    "miss": {"requester", "request", "iova", "wanted", "error"},
    "fault": {"requester", "request", "iova", "wanted", "reason", "error"},
    "message": {"offset", "address", "value"},
    "event": {"event", "requester", "error", "first", "last", "text"},
    "accepted": {"value"},
    "request": {"number", "type", "size", "room", "bytes"},
    "restart": {"number"},
    "answered": {"number", "status", "written"},
    "requester": {"requester", "present"},
    "closed": {"requester", "number", "first", "last"},
    "end": set(),
}
MAY = {"command": {"low", "high"}, "miss": {"gpa", "mask", "perm"}, "fault": {"record"},
       "request": {"domain", "requester", "first", "last", "gpa", "flags"}, "end": {"registers", "state"}}

# Another register's messages are another event's; what was refused is what the guest had put there.
NOT_COMPARED = {("message", "offset"), ("refused", "low"), ("refused", "high")}

# A guest that gets far: commands, a queue with an error in it, a fault.
SCENARIO = """ram 0 1m
unit
reg write IEDATA 0x41
reg write IEADDR 0xfee00000
reg write IECTL 0
device disk 00:03.0
tables 0x10000 64k
context disk 1
map 1 0x1000 0x5000 4k rw
set-root
queue 0x2000
command translation on
dma read disk 0x1000 8
dma read disk 0x9000 8
inv iotlb global
inv wait status=7 at=0x9000 interrupt
inv raw 0xf 0x123
"""


# A virtio-iommu whose driver does a bit of everything.
VIRTIO_SCENARIO = """ram 0 1m
virtio unit domains-max=1
iova space
iova owner host
iova reserve r host reserved 0x8000-0x8fff
device disk 00:03.0 space
device nic 00:04.0 space
virtio attach 1 disk
virtio map 1 0x1000 0x5000
dma read disk 0x1000 8
dma read nic 0x1000 8
virtio attach 2 nic
hold h disk 0x1000
virtio unmap 1 0x1000
virtio map 1 0x1000 0x6000
release h
virtio completed
virtio completed
virtio map 1 0x8000 0x6000
virtio probe disk
virtio probe disk room=3
virtio bypass on
device-remove nic
virtio detach 1 0x20
virtio reset
virtio accept
virtio attach 1 disk
virtio map 1 0x3000 0x5000
"""


def expect(what, condition, result=None):
    global failures
    if condition:
        return
    failures += 1
    print(f"FAILED: {what}")
    if result is not None:
        print(f"  exit status {result.returncode}\n  stdout: {result.stdout}\n  stderr: {result.stderr}")


def run(*arguments, text=""):
    return subprocess.run([VIOMMU, "run", *map(str, arguments)], input=text, capture_output=True, text=True,
                          timeout=300)


def record(folder, text):
    """The lines of the trace of a scenario."""
    trace = folder / "recorded.jsonl"
    result = run("-q", "--trace", trace, "-", text=text)
    expect("the scenario runs", result.returncode == 0, result)
    return trace.read_text().splitlines()


def replay(folder, lines, end="\n"):
    path = folder / "replayed.jsonl"
    path.write_text("\n".join(lines) + end)
    return run("--replay", path)


def check_lines(name, lines):
    """As docs/trace.md says."""
    objects = [json.loads(line) for line in lines]
    expect(f"{name}: a first line", objects[0].get("format") == "viommu-trace")
    expect(f"{name}: a last line", objects[-1].get("kind") == "end")
    for number, line in enumerate(objects[1:], 1):
        kind = line.get("kind")
        members = set(line) - {"index", "time", "kind"}
        expect(f"{name}: line {number + 1} has the members of its kind: {line}",
               kind in KINDS and KINDS[kind] <= members <= KINDS[kind] | MAY.get(kind, set()))
        expect(f"{name}: line {number + 1} has its number", line["index"] == number)
    times = [line["time"] for line in objects[1:]]
    expect(f"{name}: time never goes back", times == sorted(times))
    return {line["kind"] for line in objects[1:]}


def test_scenarios(folder):
    """Every scenario that has a unit."""
    kinds, traces = set(), []
    for scenario in sorted((ROOT / "tests/scenarios").glob("*.scn")):
        trace = folder / (scenario.stem + ".jsonl")
        result = run("-q", "--trace", trace, scenario)
        if trace.exists():
            expect(f"{scenario.stem} is traced", result.returncode == 0, result)
            kinds |= check_lines(scenario.stem, trace.read_text().splitlines())
            traces.append(trace)
        else:
            expect(f"{scenario.stem} has no unit", result.returncode == 1 and "no unit" in result.stderr, result)
    result = run("-q", "--replay", *[trace for trace in traces if trace.stem not in GIVEN_UP | WITH_MIRRORS])
    expect("they are replayed", result.returncode == 0 and len(traces) > 100, result)
    for name in GIVEN_UP:
        result = run("-q", "--replay", folder / (name + ".jsonl"))
        expect(f"{name} is not, and the reason is named", result.returncode == 1
               and "did not answer" in result.stderr, result)
    for name in WITH_MIRRORS:
        result = run("-q", "--replay", folder / (name + ".jsonl"))
        expect(f"{name} is not: there are no mirrors",
               result.returncode == 1 and "traced: " in result.stderr, result)
    expect(f"every kind was seen: {kinds}", kinds == set(KINDS))
    documented = set(re.findall(r"^\| `([a-z]+)` \|", (ROOT / "docs/trace.md").read_text(), re.M))
    expect("docs/trace.md has every kind", set(KINDS) <= documented)


def changed(line, name):
    """The line with another value of a member."""
    value = json.loads(line)
    old = value[name]
    value[name] = old + 1 if isinstance(old, int) else hex(int(old, 16) ^ 0x100)
    return json.dumps(value)


def changes(lines):
    """What can be changed: (what, the first line that may differ, the lines)."""
    found = set()
    for at, line in enumerate(lines[1:-1], 1):
        kind = json.loads(line)["kind"]
        if kind in ("miss", "fault", "write", "event"):
            continue
        found.add(kind)
        for name in sorted({"offset", "value", "slot", "low", "high", "reason"} & KINDS[kind]):
            if (kind, name) not in NOT_COMPARED:
                yield f"{kind} with another {name}", at + 1, lines[:at] + [changed(line, name)] + lines[at + 1:]
        yield f"{kind} taken away", at + 1, lines[:at] + lines[at + 1:]
        again = [json.loads(x) for x in lines[:at + 1] + [line] + lines[at + 1:]]
        for index, value in enumerate(again[1:], 1):
            value["index"] = index
        yield f"{kind} twice", at + 1, [json.dumps(x) for x in again]
    expect(f"there was something to change: {found}",
           found == {"command", "completed", "descriptor", "refused", "retired", "message"})
    for name, value in json.loads(lines[-1])["registers"].items():
        other = json.loads(lines[-1])
        other["registers"][name] = hex(int(value, 16) ^ (1 if name == "IQERCD" else 0x80000010))
        yield f"{name} is another in the end", len(lines), lines[:-1] + [json.dumps(other)]


def test_changes_are_found(folder):
    """One change, one line taken away, or one put twice: the line that differs is named."""
    lines = record(folder, SCENARIO)
    expect("the trace itself is replayed", replay(folder, lines).returncode == 0)
    paths = []
    for number, (what, line, variant) in enumerate(changes(lines)):
        path = folder / f"variant-{number}"
        path.write_text("\n".join(variant) + "\n")
        paths.append((path, what, line))
    result = run("-q", "--replay", *[path for path, _, _ in paths])
    expect("all of them differ: 1", result.returncode == 1, result)
    for path, what, line in paths:
        named = re.search(rf"^{path}:(\d+): ", result.stderr, re.M)
        expect(f"{what}: found at line {line} or later", named and int(named.group(1)) >= line, result)


def virtio_changes(lines):
    """What can be changed so that the unit answers otherwise, or stands otherwise in the end."""
    for at, line in enumerate(lines[1:], 1):
        value = json.loads(line)
        kind = value["kind"]
        others = []
        if kind == "answered":
            others = [{**value, "status": "noent" if value["status"] != "noent" else "ok"},
                      {**value, "written": value["written"] + 1}, {**value, "number": value["number"] + 100}]
        elif kind == "request" and value["type"] in ("attach", "map") and value.get("first") != "0x8000":
            others = [{**value, "bytes": "09" + value["bytes"][2:]}, {**value, "size": 8},
                      {**value, "room": 3}, {**value, "number": value["number"] + 100}]
        elif kind == "requester" and at < 4:
            others = [{**value, "present": False}, {**value, "requester": "00:1f.7"}]
        elif kind == "accepted":
            others = [{**value, "value": "0x80"} if at < 4 else {**value, "value": "0x4"}]
        elif kind == "end":
            others = [{**value, "state": {**value["state"], name: "0x10"}} for name in value["state"]]
        for other in others:
            yield f"{line} became {other}", at + 1, lines[:at] + [json.dumps(other)] + lines[at + 1:]
        if kind == "answered":
            rest = [json.dumps({**json.loads(x), "index": json.loads(x)["index"] + 1}) for x in lines[at:]]
            yield f"{line} twice", at + 2, lines[:at + 1] + rest


def test_virtio(folder):
    """Of a virtio-iommu: requests are sent again, and answers compared."""
    lines = record(folder, VIRTIO_SCENARIO)
    kinds = check_lines("virtio", lines)
    expect(f"its kinds: {kinds}", {"accepted", "request", "restart", "answered", "requester", "fault", "miss",
                                   "write", "end"} <= kinds)
    values = [json.loads(line) for line in lines]
    statuses = [value["status"] for value in values if value.get("kind") == "answered"]
    expect(f"answers: {statuses}", {"ok", "nomem", "inval", "noent", "none"} <= set(statuses))
    pending = [value for value in values if value.get("type") == "unmap"][0]
    following = values[values.index(pending) + 1]
    expect("one that is pending is answered later", following.get("kind") == "request", None)
    expect("a map can be read", any(value.get("type") == "map" and value["first"] == "0x1000" and value["domain"] == 1
                                    and value["gpa"] == "0x5000" and value["flags"] == "0x3" for value in values))
    state = {name: int(value, 16) for name, value in values[-1]["state"].items()}
    expect(f"how it stands in the end: {state}", state == {"features": 0x77, "domains": 1, "endpoints": 1,
                                                           "mappings": 1, "bypass": 1})
    good = replay(folder, lines)
    expect("it is replayed", good.returncode == 0 and "requests: as traced" in good.stdout, good)
    verdict = json.loads(run("--json", "--replay", folder / "replayed.jsonl").stdout)
    expect("--json: requests are counted", verdict["passed"] is True and
           verdict["requests"] == sum(value.get("kind") in ("request", "restart") for value in values))
    paths = []
    for number, (what, line, variant) in enumerate(virtio_changes(lines)):
        path = folder / f"virtio-{number}"
        path.write_text("\n".join(variant) + "\n")
        paths.append((path, what, line))
    result = run("-q", "--replay", *[path for path, _, _ in paths])
    expect("all of them differ: 1", len(paths) > 50 and result.returncode == 1, result)
    for path, what, line in paths:
        named = re.search(rf"^{path}:(\d+): ", result.stderr, re.M)
        expect(f"{what}: found at line {line} or later", named and int(named.group(1)) >= line)
    header = json.loads(lines[0])
    bad = [{**header, "state": {**header["state"], "domains": "0x1"}}]
    for name in ("bypass", "features", "domain-last"):
        bad += [{**header, "unit": {key: x for key, x in header["unit"].items() if key != name}}]
        bad += [{**header, "unit": {**header["unit"], name: -1}}]
    bad += [{**header, "unit": {**header["unit"], "features": "0x100"}},
            {**header, "unit": {**header["unit"], "host-width": 256}}]
    for first in bad:
        result = replay(folder, [json.dumps(first)] + lines[1:])
        expect(f"not a unit: {first}", result.returncode == 2 and ":1: " in result.stderr, result)
    at = next(at for at, value in enumerate(values) if value.get("kind") == "request")
    come = next(at for at, value in enumerate(values) if value.get("kind") == "requester")
    end = next(at for at, value in enumerate(values) if value.get("kind") == "answered")
    for place, change in ((at, {"bytes": "0"}), (at, {"bytes": "0x"}), (at, {"bytes": "00" * 37}), (at, {"size": -1}), (at, {"bytes": 1}),
                          (at, {"room": -1}), (at, {"number": "1"}), (come, {"requester": "0:3.0"}),
                          (come, {"requester": "00:03.8"}), (come, {"requester": "00:20.0"}),
                          (come, {"requester": "00:03.00"}), (come, {"present": 1}), (end, {"status": "fine"}),
                          (end, {"written": -1}), (len(lines) - 1, {"state": 1})):
        result = replay(folder, lines[:place] + [json.dumps({**values[place], **change})] + lines[place + 1:])
        expect(f"no line: {change}", result.returncode == 2 and f":{place + 1}: " in result.stderr, result)


def test_output(folder):
    lines = record(folder, SCENARIO)
    good = replay(folder, lines)
    expect("a line for each step, and the verdict", "descriptor 0 iotlb" in good.stdout
           and "as traced" in good.stdout.splitlines()[-1], good)
    path = folder / "replayed.jsonl"
    verdict = json.loads(run("--json", "--replay", path).stdout)
    writes = sum(json.loads(line).get("kind") == "write" for line in lines)
    expect("--json: the verdict alone", verdict["passed"] is True and verdict["writes"] == writes)
    quiet = run("-q", "--replay", path)
    expect("--quiet: nothing", quiet.returncode == 0 and not quiet.stdout, quiet)
    expect("from standard input", run("-q", "--replay", "-", text=path.read_text()).returncode == 0)
    expect("a trace that was cut off in the middle of a line", replay(folder, lines[:-1] + [lines[-1][:9]], end="")
           .returncode == 0)


def test_garbage(folder):
    lines = record(folder, SCENARIO)
    write = next(at for at, line in enumerate(lines) if '"write"' in line)
    descriptor = next(at for at, line in enumerate(lines) if '"kind":"descriptor"' in line)

    def refused(what, number, replaced, words=()):
        result = replay(folder, replaced)
        expect(f"{what}: 2, and line {number}", result.returncode == 2 and f":{number}: " in result.stderr
               and all(word in result.stderr for word in words), result)

    def put(at, old, new):
        expect("there is something to replace", old in lines[at])
        return lines[:at] + [lines[at].replace(old, new)] + lines[at + 1:]

    refused("no JSON", 1, ["hello"] + lines[1:])
    refused("no JSON later", 4, lines[:3] + ["{"] + lines[4:])
    refused("no object", 2, lines[:1] + ["[1]"])
    refused("no first line", 1, lines[1:], ["first line"])
    refused("another version", 1, put(0, '"version":1', '"version":2'), ["version"])
    refused("a unit that cannot be", 1, put(0, '"domain-bits":0', '"domain-bits":5'), ["unit"])
    refused("other capabilities", 1, put(0, '"ecap":"0x', '"ecap":"0x1'), ["capabilities"])
    refused("a unit in the middle of its life", 1, put(0, '"GSTS":"0x0"', '"GSTS":"0x80000000"'), ["middle", "GSTS"])
    refused("no switch", 1, put(0, '"queue":true', '"queue":1'), ["queue"])
    refused("an unknown kind", write + 1, put(write, '"write"', '"writes"'), ["kind"])
    refused("a size out of range", write + 1, put(write, '"size":', '"size":9'), ["size"])
    refused("a number without 0x", write + 1, put(write, '"offset":"0x', '"offset":"'), ["offset"])
    refused("a number that is too long", write + 1, put(write, '"value":"0x', '"value":"0x12345678901234567'),
            ["value"])
    refused("a slot out of range", descriptor + 1, put(descriptor, '"slot":', '"slot":9999'), ["slot"])
    refused("a member twice", write + 1, put(write, '"size":', '"size":1,"size":'))
    refused("an index that does not grow", 3, lines[:2] + lines[1:], ["index"])
    refused("something after the end", len(lines) + 1, lines + [lines[-1].replace('"index":', '"index":9')], ["end"])
    endless = folder / "endless"
    with open(endless, "wb") as file:
        file.truncate(1 << 30)
    result = run("--replay", endless)
    expect("a line without an end: 2", result.returncode == 2 and "too long" in result.stderr, result)
    refused("a long line", 2, lines[:1] + ['{"index":1,"x":"' + "y" * 100000 + '"}'], ["too long"])
    empty = folder / "empty"
    empty.write_text("")
    expect("an empty file: 2", run("--replay", empty).returncode == 2)
    expect("no file: 2", run("--replay", folder / "none").returncode == 2)
    expect("a folder: 2", run("--replay", folder).returncode == 2)
    expect("--trace with two scenarios: 2", run("--trace", folder / "x", "a", "b").returncode == 2)


def test_files(folder):
    trace = folder / "mode.jsonl"
    run("-q", "--trace", trace, "-", text="unit\n")
    expect("only the owner may read it", trace.stat().st_mode & 0o777 == 0o600)
    trace.chmod(0o644)
    run("-q", "--trace", trace, "-", text="unit\n")
    expect("nor an older file of that name", trace.stat().st_mode & 0o777 == 0o600)
    long = record(folder, "unit\n" + "reg write FEDATA 0x41\n" * 1500)
    expect("a trace longer than a buffer is whole", len(check_lines("long", long)) == 2 and len(long) == 1502)
    link = folder / "link"
    link.symlink_to(folder / "elsewhere")
    for path in (link, folder / "none" / "x"):
        result = run("-q", "--trace", path, "-", text="unit\n")
        expect(f"{path.name} cannot be traced into: 2", result.returncode == 2 and "trace" in result.stderr, result)
    scenario = folder / "same.scn"
    scenario.write_text("unit\n")
    result = run("-q", "--trace", scenario, scenario)
    expect("a scenario is not written over", result.returncode == 2 and "in use" in result.stderr
           and scenario.read_text() == "unit\n", result)
    result = run("-q", "--trace", trace, "-", text="ram 0 1m\n")
    expect("no unit, no trace: 1", result.returncode == 1 and "no trace" in result.stderr, result)
    result = run("-q", "--trace", "-", "-", text="unit\n")
    expect("no trace to standard output: 2", result.returncode == 2 and "--trace" in result.stderr, result)
    expect("nothing was made behind the link", not (folder / "elsewhere").exists())
    result = run("-q", "--trace", "/dev/full", "-", text="unit\n")
    expect("a full disk: 2", result.returncode == 2 and "not complete" in result.stderr, result)
    # Who reads too slowly loses the rest; the unit does not wait.
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    many = "unit\n" + "reg write FEDATA 0x41\n" * 5000
    try:
        result = run("-q", "--trace", pipe, "-", text="unit\n")
        expect("nobody reads: 2", result.returncode == 2 and "trace" in result.stderr, result)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        result = run("-q", "--trace", pipe, "-", text=many)
        os.close(reader)
        expect("a slow reader: 2", result.returncode == 2 and "not complete" in result.stderr, result)
    except subprocess.TimeoutExpired:
        expect("a pipe does not stop the unit", False)


def serve(folder, *arguments):
    return subprocess.Popen([VIOMMU, "serve", "--vtd", folder / "vtd.sock", *map(str, arguments)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_serve(folder):
    if "serve" not in subprocess.run([VIOMMU, "--help"], capture_output=True, text=True).stdout:
        return
    for wrong in ("-", ""):
        server = serve(folder, "--trace", wrong)
        expect(f"serve --trace '{wrong}': 2", server.communicate(timeout=300) and server.returncode == 2)
    server = serve(folder, "--trace", folder / "link")
    expect("serve does not follow a link: 1", server.communicate(timeout=300) and server.returncode == 1)
    # The disk is full: said once, and the server goes on.
    server = serve(folder, "--trace", "/dev/full")
    said = ""
    while "trace ends here" not in said:
        line = server.stderr.readline()
        if not line:
            break
        said += line
    time.sleep(2.2)
    expect("the server goes on", server.poll() is None)
    server.send_signal(signal.SIGTERM)
    _, rest = server.communicate(timeout=300)
    expect("it is said once, and no failure", "No space left" in said and "trace" not in rest
           and server.returncode == 0)
    # One file, two servers.
    trace = folder / "one.jsonl"
    server = serve(folder, "--trace", trace)
    server.stderr.readline()
    other = subprocess.Popen([VIOMMU, "serve", "--vtd", folder / "vtd2.sock", "--trace", trace],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        _, said = other.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        other.kill()
        _, said = other.communicate()
    expect(f"a trace is of one server: {said}", other.returncode == 1 and "cannot trace" in said)
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=300)
    check_lines("one of two", trace.read_text().splitlines())
    # A file that can be read while the server lives.
    trace = folder / "serve.jsonl"
    server = serve(folder, "--trace", trace)
    for _ in range(200):
        if trace.exists() and trace.stat().st_size:
            break
        time.sleep(0.05)
    expect("the first line is there within seconds", json.loads(trace.read_text().splitlines()[0])["version"] == 1)
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=300)
    check_lines("serve", trace.read_text().splitlines())
    expect("what serve traced is replayed", run("-q", "--replay", trace).returncode == 0)


def test_probes():
    """The probes are in the command, or none is."""
    notes = subprocess.run(["readelf", "-n", VIOMMU], capture_output=True, text=True).stdout
    found = set(re.findall(r"Provider: viommu\s+Name: (\w+)", notes))
    expect(f"probes: {found}", found == (set(KINDS) - {"end"} if PROBES else set()))


with tempfile.TemporaryDirectory() as name:
    place = pathlib.Path(name)
    test_scenarios(place)
    test_changes_are_found(place)
    test_virtio(place)
    test_output(place)
    test_garbage(place)
    test_files(place)
    test_serve(place)
    test_probes()
print("FAILED" if failures else "ok", failures or "")
sys.exit(1 if failures else 0)
