#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""extract_vmlinux.py - take the ELF kernel out of an x86 bzImage.

    extract_vmlinux.py BZIMAGE VMLINUX

QEMU boots an ELF kernel (by its PVH note) 1 to 2 seconds faster than a bzImage, which an emulated
CPU has to decompress.

The layout is the Linux/x86 boot protocol, version 2.08 or later:
  0x1f1  u8   setup_sects: the protected-mode part starts after 1 + setup_sects sectors of 512
  0x202  u32  "HdrS"
  0x206  u16  protocol version
  0x248  u32  payload_offset, from the start of the protected-mode part
  0x24c  u32  payload_length; its last four bytes are the size of the kernel in the clear
"""

import lzma
import os
import struct
import subprocess
import sys
import zlib


def payload_of(image):
    """The compressed kernel and the size it has in the clear."""
    if len(image) < 0x250 or image[0x202:0x206] != b"HdrS":
        raise ValueError("not a Linux/x86 boot image")
    if struct.unpack_from("<H", image, 0x206)[0] < 0x208:
        raise ValueError("boot protocol older than 2.08")
    sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    first = (sectors + 1) * 512 + offset
    if length < 8 or first + length > len(image):
        raise ValueError("truncated image")
    payload = image[first:first + length]
    return payload[:-4], struct.unpack("<I", payload[-4:])[0]


def filtered(command, data):
    """What a command-line decompressor makes of data; trailing bytes are its own business."""
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=False).stdout


def decompress(data):
    if data[:6] == b"\xfd7zXZ\0":
        return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(data)
    if data[:2] == b"\x1f\x8b":
        return zlib.decompressobj(31).decompress(data)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return filtered(["zstd", "-q", "-d", "-c"], data)
    if data[:4] == b"\x02\x21\x4c\x18":
        return filtered(["lz4", "-d", "-c"], data)
    raise ValueError("unknown compression " + data[:6].hex())


def main(argv):
    if len(argv) != 3:
        sys.exit("usage: extract_vmlinux.py BZIMAGE VMLINUX")
    try:
        with open(argv[1], "rb") as f:
            data, size = payload_of(f.read())
        kernel = decompress(data)
        if kernel[:4] != b"\x7fELF" or len(kernel) != size:
            raise ValueError("the payload is not an ELF kernel of %d bytes" % size)
        with open(argv[2] + ".part", "wb") as f:
            f.write(kernel)
        os.rename(argv[2] + ".part", argv[2])
    except (OSError, ValueError, lzma.LZMAError, zlib.error) as e:
        sys.exit("extract_vmlinux.py: %s: %s" % (argv[1], e))


if __name__ == "__main__":
    main(sys.argv)
