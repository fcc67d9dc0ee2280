# SPDX-License-Identifier: BSD-2-Clause
"""vfio_user_client.py - the client's side of vfio-user, small, for tests of the server.

A command is sent and its reply awaited; messages that the server sends of its own accord meanwhile
(DMA_WRITE: interrupt messages) are kept in Client.messages. With a twin socket they come there, and a
thread (Twin) answers them from the guest's memory.
"""

import array
import os
import socket
import struct
import threading
import time

VERSION, DMA_MAP, DMA_UNMAP, SET_IRQS, REGION_READ, REGION_WRITE = 1, 2, 3, 8, 9, 10
DMA_READ, DMA_WRITE, RESET = 11, 12, 13
REPLY, NO_REPLY, ERROR = 1, 0x10, 0x20
INTX, MSI, MSIX = 0, 1, 2
CONFIG = 7
SECONDS = 20

# The edu device.
EDU_BUFFER = 0x40000
EDU_SOURCE, EDU_DESTINATION, EDU_COUNT, EDU_COMMAND = 0x80, 0x88, 0x90, 0x98
START, TO_MEMORY, INTERRUPT = 1, 2, 4


class Refused(Exception):
    """The server answered with an error."""


class Twin(threading.Thread):
    """Answers DMA from a file that is the guest's memory from address 0, of this size. It can be told
    to be silent, and which addresses to refuse."""

    def __init__(self, fd, memory, size):
        super().__init__(daemon=True)
        self.socket = socket.socket(fileno=fd)
        self.memory, self.size = memory, size
        self.silent = False
        self.refused = range(0)
        self.reads, self.writes = [], []    # (address, count)
        self.start()

    def receive(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def serve(self):
        number, command, size, flags, _ = struct.unpack("<HHIII", self.receive(16))
        address, count = struct.unpack("<QQ", self.receive(16))
        data = self.receive(size - 32)
        if self.silent or flags & NO_REPLY:
            return
        answer, error = struct.pack("<QQ", address, count), 0
        if address + count > self.size or address in self.refused:
            answer, error = b"", 14
        elif command == DMA_READ:
            self.reads.append((address, count))
            answer += os.pread(self.memory, count, address)
        else:
            self.writes.append((address, count))
            os.pwrite(self.memory, data, address)
        self.socket.sendall(struct.pack("<HHIII", number, command, 16 + len(answer),
                                        REPLY | (ERROR if error else 0), error) + answer)

    def run(self):
        try:
            while True:
                self.serve()
        except (EOFError, OSError):
            pass


class Client:
    """One connection."""

    def __init__(self, path, negotiate=True, twin=None):
        """twin: the guest's memory, and its size, for a twin socket."""
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(SECONDS)
        self.socket.connect(path)
        self.next_id = 1
        self.messages = []
        self.fds = array.array("i")
        self.twin = None
        if negotiate or twin:
            wanted = b',"twin_socket":{"supported":true}' if twin else b""
            self.command(VERSION, struct.pack("<HH", 0, 0) + b'{"capabilities":{"max_msg_fds":8' + wanted + b"}}\0")
        if twin:
            self.twin = Twin(self.fds.pop(), *twin)

    def close(self):
        self.socket.close()
        if self.twin:
            self.twin.socket.shutdown(socket.SHUT_RDWR)
            self.twin.join()
            self.twin.socket.close()

    def frame(self, command, payload, flags=0):
        self.next_id = (self.next_id + 1) & 0xffff
        return struct.pack("<HHIII", self.next_id, command, 16 + len(payload), flags, 0) + payload

    def send(self, data, fds=()):
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self.socket.sendmsg([data], rights)
        self.socket.sendall(data[sent:])

    def receive_bytes(self, count):
        data = b""
        while len(data) < count:
            more, rights, _, _ = self.socket.recvmsg(count - len(data), socket.CMSG_SPACE(8 * 4))
            if not more:
                raise EOFError("the server closed the connection")
            for _, _, fds in rights:
                self.fds.frombytes(fds)
            data += more
        return data

    def receive(self):
        """One message: (id, command, flags, error, payload)."""
        number, command, size, flags, error = struct.unpack("<HHIII", self.receive_bytes(16))
        return number, command, flags, error, self.receive_bytes(size - 16)

    def reply(self, number):
        """Wait for the reply to the command of this number."""
        while True:
            got, command, flags, error, payload = self.receive()
            if flags & 0xf != REPLY:
                self.messages.append((command, payload))
            elif got != number:
                raise AssertionError("reply %d to command %d" % (got, number))
            elif flags & ERROR:
                raise Refused(os.strerror(error))
            else:
                return payload

    def command(self, command, payload=b"", fds=()):
        self.send(self.frame(command, payload), fds)
        return self.reply(self.next_id)

    def read(self, region, offset, size):
        return self.command(REGION_READ, struct.pack("<QII", offset, region, size))[16:]

    def read32(self, region, offset):
        return struct.unpack("<I", self.read(region, offset, 4))[0]

    def write(self, region, offset, data):
        self.command(REGION_WRITE, struct.pack("<QII", offset, region, len(data)) + data)

    def write32(self, region, offset, value):
        self.write(region, offset, struct.pack("<I", value))

    def write64(self, region, offset, value):
        self.write(region, offset, struct.pack("<Q", value))

    def map(self, address, size, fd, offset=0, flags=3):
        """Without a file if fd is None."""
        self.command(DMA_MAP, struct.pack("<IIQQQ", 32, flags, offset, address, size),
                     [] if fd is None else [fd])

    def unmap(self, address, size):
        self.command(DMA_UNMAP, struct.pack("<IIQQ", 24, 0, address, size))

    def set_eventfds(self, index, fds, start=0):
        """As VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER."""
        self.command(SET_IRQS, struct.pack("<IIIII", 20, 4 | 0x20, index, start, len(fds)), fds)

    def bus_master(self):
        self.write(CONFIG, 4, struct.pack("<H", 6))

    def enable_msi(self):
        """The first capability is MSI, on an edu."""
        at = self.read(CONFIG, 0x34, 1)[0]
        self.write(CONFIG, at + 2, struct.pack("<H", 0x81))

    def edu_dma(self, source, destination, count, command):
        self.write64(0, EDU_SOURCE, source)
        self.write64(0, EDU_DESTINATION, destination)
        self.write64(0, EDU_COUNT, count)
        self.write64(0, EDU_COMMAND, command | START)


def signalled(eventfd, seconds=SECONDS):
    """How often an eventfd was signalled; waits for the first time."""
    end = time.monotonic() + seconds
    while True:
        try:
            return os.eventfd_read(eventfd)
        except BlockingIOError:
            if time.monotonic() > end:
                return 0
            time.sleep(0.005)


def guest_memory(size):
    """A descriptor of shared memory of this size."""
    fd = os.memfd_create("guest", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    return fd
