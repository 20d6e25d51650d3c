# SPDX-License-Identifier: Apache-2.0
"""
The records of an MCAP file: where they are, and what is in them.

Source: https://mcap.dev/spec.
"""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple, TypeVar

import zstandard
from lz4.frame import LZ4FrameDecompressor
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode

MAGIC = b'\x89MCAP0\r\n'
HEAD = struct.Struct('<BQ')  # of a record: kind and length
MESSAGE = struct.Struct('<HIQQ')  # of a message: channel, sequence, time logged and published
UNREADABLE = (McapError, struct.error, OverflowError, UnicodeDecodeError)  # what parsed() raises
_T = TypeVar('_T')


class Record(NamedTuple):
    """Kind of a record, place of its content and bytes of it."""

    opcode: int
    offset: int
    length: int

    @property
    def end(self) -> int:
        """Where the next record begins."""
        return self.offset + self.length

    @property
    def is_message(self) -> bool:
        """Whether it is a message, and long enough for one."""
        return self.opcode == Opcode.MESSAGE and self.length >= MESSAGE.size


#: Compression of a chunk -> what decompresses it; of one that is cut off, those bytes that it can.
DECOMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    '': lambda data: data,
    'lz4': lambda data: LZ4FrameDecompressor().decompress(data),
    'zstd': lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


def walk(file: IO[bytes], offset: int, end: int) -> Iterator[Record]:
    """Give the records between two places; the last may reach beyond."""
    while offset + HEAD.size <= end:
        file.seek(offset)
        opcode, length = HEAD.unpack(file.read(HEAD.size))
        offset += HEAD.size
        yield Record(opcode, offset, length)
        offset += length


def content_of(file: IO[bytes], record: Record, size: int | None = None) -> bytes:
    """
    Read a record's content, as far as it is there.

    :param size: number of bytes to read at most; None for all.
    """
    file.seek(record.offset)
    return file.read(min(record.length, sys.maxsize if size is None else size))


def parsed(read: Callable[[ReadDataStream], _T], content: bytes) -> _T:
    """
    Make a record of the package ``mcap`` of its content.

    :param read: of the record's class.
    :raises McapError, struct.error, OverflowError, UnicodeDecodeError: if it is none.
    """
    return read(ReadDataStream(io.BytesIO(content)))


def message_head(head: bytes) -> tuple[int, int]:
    """
    Give channel and log time (nanoseconds) of a message.

    :param head: the first bytes of its content, as many as :data:`MESSAGE` has.
    """
    number, _, logged, _ = MESSAGE.unpack(head)
    return number, signed(logged)


def signed(time: int) -> int:
    """Give nanoseconds as rosbag2 counts them: in 64 bits with a sign."""
    return time - 2**64 if time >= 2**63 else time
