#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""hostile_far.py - a vfio-user device server that its client should not trust.

It offers an edu device and works as one; and when told it tries to reach what it was not given: it
maps each file that came with a DMA_MAP whole and looks through it, asks for memory at addresses of
every kind, and sends what makes no sense.

    far = HostileFar("far.sock")        serves, one client after the other, on threads of its own
    far.wait_for_client()
    far.ask(address, count)             one DMA_READ: its data, or what was answered instead
    far.catalogue(windows)              every kind of request; a list of those that wrongly succeeded
    far.search_files(pattern)           how often a pattern is in the files that came along

A test uses it as a module; as a program it serves until it is ended (hostile_far.py SOCKET).

Vocabulary.  "Window": [first, last] of device addresses that the far server may reach by the guest's
own tables.  "Main", "twin": the two connections of a client; ours go over the twin if it has one.
"""

import array
import mmap
import os
import queue
import socket
import struct
import sys
import threading
import time

VERSION, DMA_MAP, DMA_UNMAP, DEVICE_INFO, REGION_INFO, IRQ_INFO = 1, 2, 3, 4, 5, 7
SET_IRQS, REGION_READ, REGION_WRITE, DMA_READ, DMA_WRITE, RESET = 8, 9, 10, 11, 12, 13
COMMAND, REPLY, NO_REPLY, ERROR = 0, 1, 0x10, 0x20
EPERM, EIO, EFAULT, EINVAL, ENOTSUP = 1, 5, 14, 22, 95
BAR0_SIZE = 1 << 20
CONFIG = 7
MSI = 1
MOST = 1 << 20
SECONDS = 20
TOP = 1 << 64
FIRST_INTERRUPT, LAST_INTERRUPT = 0xfee00000, 0xfeefffff

GONE = "gone"           # the client left
SILENT = "silent"       # it did not answer


class Edu:
    """The device: registers, configuration space, one MSI."""

    def __init__(self, far):
        self.far = far
        self.reset()

    def reset(self):
        self.registers = bytearray(0xa0)
        self.registers[0:4] = struct.pack("<I", 0x010000ed)
        self.buffer = bytearray(4096)
        self.interrupts = 0
        self.config = bytearray(256)
        struct.pack_into("<HHHHII", self.config, 0, 0x1234, 0x11e8, 0, 0x10, 0x00ff0010, 0)
        struct.pack_into("<HH", self.config, 0x2c, 0x1af4, 0x1100)
        self.config[0x34] = 0x40
        struct.pack_into("<BBH", self.config, 0x40, 5, 0, 0x80)
        self.writable = bytearray(256)
        self.writable[4:6] = b"\x06\x05"
        self.writable[0x0c] = self.writable[0x3c] = 0xff
        struct.pack_into("<I", self.writable, 0x10, ~(BAR0_SIZE - 1) & 0xffffffff)
        struct.pack_into("<H", self.writable, 0x42, 1)
        self.writable[0x44:0x4e] = b"\xfc" + b"\xff" * 9

    def config_write(self, offset, data):
        for i, byte in enumerate(data):
            mask = self.writable[offset + i]
            self.config[offset + i] = self.config[offset + i] & ~mask | byte & mask

    def number(self, offset, size=8):
        return int.from_bytes(self.registers[offset:offset + size], "little")

    def read(self, offset, count):
        if offset == 0x24 and count == 4:
            return struct.pack("<I", self.interrupts)
        if offset + count <= len(self.registers):
            return bytes(self.registers[offset:offset + count])
        return b"\xff" * count

    def write(self, offset, data):
        value = int.from_bytes(data, "little")
        if offset == 4:
            self.registers[4:8] = struct.pack("<I", ~value & 0xffffffff)
        elif offset == 0x60:
            self.interrupt(value)
        elif offset == 0x64:
            self.interrupts &= ~value
        elif 0x80 <= offset and offset + len(data) <= len(self.registers):
            self.registers[offset:offset + len(data)] = data
            if offset == 0x98 and value & 1:
                self.transfer(value)

    def interrupt(self, bits):
        self.interrupts |= bits
        if self.config[0x42] & 1:
            self.far.trigger()

    def transfer(self, command):
        source, destination, count = (self.number(offset) for offset in (0x80, 0x88, 0x90))
        place = (source if command & 2 else destination) - 0x40000
        if self.config[4] & 4 and 0 <= place <= 4096 - count:   # a bus master
            if command & 2:
                self.far.ask(destination, count, bytes(self.buffer[place:place + count]))
            else:
                data = self.far.ask(source, count)
                if isinstance(data, bytes):
                    self.buffer[place:place + count] = data
        self.registers[0x98] &= 0xfe
        if command & 4:
            self.interrupt(0x100)


class Connection:
    """A socket whose messages are read by a thread; what they do is `handle`'s."""

    def __init__(self, link, handle):
        self.link = link
        self.handle = handle
        self.lock = threading.Lock()
        self.open = True
        self.stopped = threading.Event()    # set: nothing is read
        self.thread = threading.Thread(target=self.run, daemon=True)

    def receive(self, count, fds):
        data = b""
        while len(data) < count:
            while self.stopped.is_set():
                time.sleep(0.01)
            more, rights, _, _ = self.link.recvmsg(count - len(data), socket.CMSG_SPACE(8 * 4))
            if not more:
                raise EOFError
            for _, _, got in rights:
                fds.frombytes(got)
            data += more
        return data

    def run(self):
        try:
            while True:
                fds = array.array("i")
                header = struct.unpack("<HHIII", self.receive(16, fds))
                self.handle(self, header, self.receive(header[2] - 16, fds), fds)
        except (EOFError, OSError):
            pass
        self.open = False
        self.handle(self, None, b"", ())

    def send(self, data, fds=()):
        """Returns whether it went."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            with self.lock:
                sent = self.link.sendmsg([data], rights)
                self.link.sendall(data[sent:])
        except OSError:
            return False
        return True

    def close(self):
        try:
            self.link.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class HostileFar:
    """Listens on a path. `files`: fds of guest memory by (address, size), with their offset; `maps`: all
    that the client says is mapped, {address: (size, flags)}."""

    def __init__(self, path, twin=True, maps_max=None):
        self.path, self.wants_twin, self.maps_max = path, twin, maps_max
        self.device = Edu(self)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.main = self.twin = None
        self.clients = self.maps_seen = self.fds_seen = 0
        self.condition = threading.Condition()
        self.forget()
        self.number = 0
        self.odd_answers = None     # or one of those that reply() knows
        self.ended = False
        threading.Thread(target=self.run, daemon=True).start()

    def forget(self):
        self.maps, self.files, self.answers = {}, {}, {}
        self.eventfd = None
        self.history = []       # of (command, address, size)

    # ---- serving

    def run(self):
        while not self.ended:
            try:
                link, _ = self.listener.accept()
            except OSError:
                return
            with self.condition:
                self.forget()
                self.commands = queue.Queue()
                self.main = Connection(link, self.arrived)
                self.clients += 1
            self.main.thread.start()
            self.serve()
            self.hang_up()

    def arrived(self, connection, header, payload, fds):
        """On a connection's thread: a message, or its end."""
        with self.condition:
            if header and header[3] & 0xf == REPLY:
                self.answers[header[0]] = (header[3], header[4], payload)
            elif connection is self.main:
                self.commands.put((header, payload, fds))
            self.condition.notify_all()

    def serve(self):
        """The commands of one client."""
        while True:
            header, payload, fds = self.commands.get()
            if not header:
                return
            number, command, _, flags, _ = header
            error, answer, with_fds = 0, b"", []
            try:
                answer, with_fds = self.carry_out(command, payload, fds)
            except (ValueError, struct.error):
                error = EINVAL
            if not flags & NO_REPLY:
                self.reply(number, command, error, answer, with_fds)
            for fd in with_fds:
                os.close(fd)

    def reply(self, number, command, error, answer, with_fds):
        """The answer to a command, in the way that a test wants."""
        odd = self.odd_answers
        if odd == "with descriptors":
            with_fds += [os.memfd_create("hostile") for _ in range(8 - len(with_fds))]
        elif odd:
            self.odd_answers = None     # once is enough
        number ^= odd == "to what nobody asked"
        data = struct.pack("<HHIII", number, command, 16 + len(answer), REPLY | (ERROR if error else 0),
                           error) + answer
        self.main.send(data, with_fds)
        if odd == "twice":
            self.main.send(data)

    def carry_out(self, command, payload, fds):
        if command == VERSION:
            return self.agree(payload)
        if command == DMA_MAP:
            return self.map(payload, fds), []
        if command == DMA_UNMAP:
            return self.unmap(payload), []
        if command == DEVICE_INFO:
            return struct.pack("<IIII", 16, 3, 9, 5), []
        if command == REGION_INFO:
            index = struct.unpack_from("<I", payload, 8)[0]
            size = {0: BAR0_SIZE, CONFIG: 256}.get(index, 0)
            return struct.pack("<IIIIQQ", 32, 3 if size else 0, index, 0, size, 0), []
        if command == IRQ_INFO:
            index = struct.unpack_from("<I", payload, 8)[0]
            return struct.pack("<IIII", 16, 9 if index == MSI else 0, index, int(index == MSI)), []
        if command == SET_IRQS:
            return self.set_irqs(payload, fds), []
        if command == REGION_READ:
            offset, region, count = struct.unpack("<QII", payload)
            data = bytes(self.device.config[offset:offset + count]) if region == CONFIG else \
                self.device.read(offset, count)
            return payload + data.ljust(count, b"\0"), []
        if command == REGION_WRITE:
            offset, region, _ = struct.unpack_from("<QII", payload)
            if region == CONFIG:
                self.device.config_write(offset, payload[16:])
            else:
                self.device.write(offset, payload[16:])
            return payload[:16], []
        if command == RESET:
            self.device.reset()
            return b"", []
        raise ValueError(command)

    def agree(self, payload):
        limit = ',"max_dma_maps":%d' % self.maps_max if self.maps_max else ""
        if b'"twin_socket"' not in payload or not self.wants_twin:
            return payload[:4] + ('{"capabilities":{"max_msg_fds":8%s}}' % limit).encode() + b"\0", []
        ours, theirs = socket.socketpair()
        self.twin = Connection(ours, self.arrived)
        self.twin.thread.start()
        return payload[:4] + ('{"capabilities":{"max_msg_fds":8%s,"twin_socket":{"supported":true,'
                              '"fd_index":0}}}' % limit).encode() + b"\0", [theirs.detach()]

    def map(self, payload, fds):
        _, flags, offset, address, size = struct.unpack("<IIQQQ", payload)
        with self.condition:
            self.maps[address] = (size, flags)
            self.maps_seen += 1
            self.history.append(("map", address, size))
            if fds:
                self.fds_seen += 1
                self.files[address] = (fds[0], offset, size)
            self.condition.notify_all()
        return b""

    def unmap(self, payload):
        """A hostile one keeps the files, of course."""
        _, flags, address, size = struct.unpack("<IIQQ", payload)
        with self.condition:
            if flags & 2:
                self.maps.clear()
            else:
                self.maps.pop(address, None)
            self.history.append(("unmap", address, size))
            self.condition.notify_all()
        return payload

    def set_irqs(self, payload, fds):
        _, flags, index, _, _ = struct.unpack_from("<IIIII", payload)
        if index == MSI and flags & 4:
            self.eventfd = fds[0] if fds else None
        elif index == MSI and flags & 1:
            self.eventfd = None
        return b""

    def trigger(self):
        if self.eventfd is not None:
            os.eventfd_write(self.eventfd, 1)

    # ---- what a test asks

    def wait_for(self, what, condition, seconds=SECONDS):
        end = time.monotonic() + seconds
        with self.condition:
            while not condition():
                if not self.condition.wait(end - time.monotonic()) and not condition():
                    raise AssertionError("the far server waits in vain: %s" % what)

    def wait_for_client(self, clients=1):
        """Until so many have come, in all, and agreed on a version."""
        self.wait_for("a client", lambda: self.clients >= clients and self.main and self.main.open)

    def ours(self):
        """Where our commands go."""
        return self.twin or self.main

    def next_number(self):
        with self.condition:
            self.number = (self.number + 1) & 0xffff
            self.answers.pop(self.number, None)
            return self.number

    def ask_raw(self, command, payload, flags=COMMAND, seconds=SECONDS, fds=(), size=None):
        """A message and (flags, error, payload) of its answer, or GONE, or SILENT."""
        number, connection = self.next_number(), self.ours()
        size = 16 + len(payload) if size is None else size
        if not connection.send(struct.pack("<HHIII", number, command, size, flags, 0) + payload, fds):
            return GONE
        end = time.monotonic() + seconds
        with self.condition:
            while number not in self.answers and connection.open and time.monotonic() < end:
                self.condition.wait(max(0, end - time.monotonic()))
            return self.answers.pop(number, SILENT if connection.open else GONE)

    def ask(self, address, count, data=None, seconds=SECONDS):
        """DMA_READ, or DMA_WRITE of data: returns bytes (of a write: empty), or the errno, or GONE, or
        SILENT."""
        access = struct.pack("<QQ", address, count)
        answer = self.ask_raw(DMA_READ if data is None else DMA_WRITE, access + (data or b""),
                              seconds=seconds)
        if answer in (GONE, SILENT):
            return answer
        flags, error, payload = answer
        if flags & ERROR:
            return error or EIO
        wanted = 16 + (count if data is None else 0)
        if len(payload) != wanted or payload[:16] != access:
            raise AssertionError("a wrong answer of %d bytes" % len(payload))
        return payload[16:]

    def search_files(self, pattern):
        """Map each file that came along whole: how often it has the pattern."""
        found, seen = 0, set()
        for fd, _, _ in list(self.files.values()):
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as whole:
                at = whole.find(pattern)
                while at >= 0:
                    found += 1
                    at = whole.find(pattern, at + 1)
        return found

    def reach(self, first, last, step, write=None):
        """Ask for something at each step: the addresses where it succeeded. Stops where nobody answers."""
        reached = []
        for address in range(first, last + 1, step):
            got = self.ask(address, len(write) if write else 8, write)
            if got in (GONE, SILENT):
                raise AssertionError("at 0x%x: %s" % (address, got))
            if isinstance(got, bytes):
                reached.append(address)
        return reached

    def odd_accesses(self, windows):
        """(what, address, count) of accesses that nothing allows."""
        out = [("the last address", TOP - 1, 2), ("around the end", TOP - 8, 16),
               ("all of it", 0, TOP - 1), ("half of it", 0, 1 << 63), ("a huge count", 0, (1 << 32) + 8),
               ("more than fits a message", 0, MOST + 1), ("beyond 48 bits", 1 << 48, 8),
               ("beyond 57 bits", 1 << 57, 8), ("the sign bit", 1 << 63, 8),
               ("the interrupt range, read", FIRST_INTERRUPT, 4),
               ("its end, read", LAST_INTERRUPT - 3, 4)]
        for first, last in windows:
            out += [("before 0x%x" % first, first - 1, 2)] if first > 0 else []
            out += [("after 0x%x" % last, last, 2), ("a page after 0x%x" % last, last + 1, 4096),
                    ("across 0x%x" % last, max(first, last - 4095), 8192)]
        return [(what, address, count) for what, address, count in out
                if not any(first <= address and address + count - 1 <= last for first, last in windows)]

    def catalogue(self, windows=()):
        """Every kind of access that is not within the windows; those that were not refused. The client
        must be there at the end."""
        wrong = []
        for what, address, count in self.odd_accesses(windows):
            got = self.ask(address, count)
            if not isinstance(got, int):
                wrong.append("%s, read: %s" % (what, got if got in (GONE, SILENT) else "%d bytes" % len(got)))
            data = bytes(min(count, 4096))
            got = self.ask_raw(DMA_WRITE, struct.pack("<QQ", address, count) + data)
            interrupt = FIRST_INTERRUPT <= address <= LAST_INTERRUPT
            if (got in (GONE, SILENT) or not got[0] & ERROR) and not interrupt:
                wrong.append("%s, written: %s" % (what, got))
        for size in (1, 2, 8, 16):
            if not isinstance(self.ask(FIRST_INTERRUPT, size, bytes(size)), int):
                wrong.append("%d bytes to the interrupt range" % size)
        for what, count, data in (("less data than count", 16, bytes(8)), ("more", 8, bytes(16)),
                                  ("none", 8, b"")):
            got = self.ask_raw(DMA_WRITE, struct.pack("<QQ", windows[0][0] if windows else 0, count) + data)
            if got in (GONE, SILENT) or not got[0] & ERROR:
                wrong.append("%s: %s" % (what, got))
        got = self.ask_raw(DMA_READ, struct.pack("<QQ", windows[0][0] if windows else 0, 8) + bytes(8))
        if got in (GONE, SILENT) or not got[0] & ERROR:
            wrong.append("a read with data: %s" % (got,))
        return wrong

    def strange_commands(self):
        """Commands that a client does not take from a server, with and without descriptors: returns
        those that it carried out."""
        wrong = []
        for command in [0, VERSION, DMA_MAP, DMA_UNMAP, DEVICE_INFO, REGION_INFO, 6, IRQ_INFO, SET_IRQS,
                        REGION_READ, REGION_WRITE, RESET, 14, 255, 65535]:
            for payload in (b"", bytes(16), struct.pack("<IIQQQ", 32, 3, 0, 0, 4096)):
                got = self.ask_raw(command, payload, fds=[0, 0] if command == DMA_MAP else ())
                if got == GONE:
                    return wrong    # it may take that amiss
                if got == SILENT or not got[0] & ERROR:
                    wrong.append("command %d: %s" % (command, got))
        return wrong

    # What ends a connection, or may; each returns when it is over or has been sent.

    def garbage(self, kind):
        """Send what makes no sense, on the twin or main connection."""
        connection = self.ours()
        noise = {
            "bytes": bytes(range(256)) * 16,
            "a tiny size": struct.pack("<HHIII", 1, DMA_READ, 3, 0, 0),
            "a huge size": struct.pack("<HHIII", 1, DMA_READ, 0xffffffff, 0, 0),
            "half a message": struct.pack("<HHIII", 1, DMA_READ, 32, 0, 0) + bytes(3),
            "an answer to nothing": struct.pack("<HHIII", 0x1234, DMA_MAP, 16, REPLY, 0),
            "zeros": bytes(4096),
        }[kind]
        return connection.send(noise)

    def flood(self, count=20000):
        """Ask for large pieces, and read no answer. Returns how many requests went."""
        connection = self.ours()
        connection.stopped.set()
        connection.link.settimeout(1)
        sent = 0
        while sent < count:
            access = struct.pack("<QQ", 0, MOST)
            if not connection.send(struct.pack("<HHIII", sent & 0xffff, DMA_READ, 32, 0, 0) + access):
                break
            sent += 1
        return sent

    def freeze(self):
        """Read nothing more, as a process that hangs; and go on."""
        self.main.stopped.set()

    def go_on(self):
        for connection in (self.main, self.twin):
            if connection:
                connection.stopped.clear()

    def hang_up(self):
        for connection in (self.main, self.twin):
            if connection:
                connection.stopped.clear()
                connection.close()
        with self.condition:
            self.twin = None
            for fd, _, _ in self.files.values():
                os.close(fd)
            self.files = {}
            self.condition.notify_all()

    def close(self):
        self.ended = True
        self.listener.close()
        if self.main:
            self.hang_up()
        os.unlink(self.path)


def main():
    if len(sys.argv) != 2:
        print("usage: hostile_far.py SOCKET", file=sys.stderr)
        sys.exit(2)
    HostileFar(sys.argv[1])
    threading.Event().wait()


if __name__ == "__main__":
    main()
