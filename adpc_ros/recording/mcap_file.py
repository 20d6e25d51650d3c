"""
An MCAP file, with index or without, finished or cut off.

The index at its end is used if it covers all messages. Else the file is read through once, and
an index is made of what is there. Source: https://mcap.dev/spec.
"""

from __future__ import annotations

import io
import logging
import struct
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import zstandard
from lz4.frame import LZ4FrameDecompressor
from mcap import records
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode

from adpc_ros.recording.storage import Channel, Stored, Stream

log = logging.getLogger(__name__)

MAGIC = b'\x89MCAP0\r\n'
_HEAD = struct.Struct('<BQ')  # of a record: kind and length
_MESSAGE = struct.Struct('<HIQQ')  # of a message: channel, sequence, time logged and published
_FOOTER_LENGTH = 20
_INDEX_HEAD, _INDEX_ENTRY = 9 + 2 + 4, 16  # bytes of a message index record
_EARLIEST_NS = -(2**63)
_UNREADABLE = (McapError, struct.error, UnicodeDecodeError)
_T = TypeVar('_T')


class _Record(NamedTuple):
    """Where a record's content is, and how much of it."""

    opcode: int
    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


class _Chunk(NamedTuple):
    """Content of a chunk record; ``channels`` is None if any may be in it."""

    offset: int
    length: int
    start_ns: int
    channels: frozenset[int] | None
    is_whole: bool = True


class McapFile:
    """
    The channels of an MCAP file, and its messages in order of log time.

    :param path: of the file.
    :param shown: its name for messages.
    :raises ValueError: if it is broken other than cut off; that is a warning.
    """

    def __init__(self, path: Path, shown: Path) -> None:
        """Read the index, or make one."""
        self._path, self._shown = path, shown
        self._schemas: dict[int, records.Schema] = {}
        self._channels: dict[int, records.Channel | None] = {}  # None: cannot be read
        self._counts: Counter[int] = Counter()
        self._chunks: list[_Chunk] = []
        self._loose: dict[int, array[int]] = {}  # channel -> time, offset, length of its messages
        with path.open('rb') as file:
            size = file.seek(0, io.SEEK_END)
            if not self._read_index(file, size):
                self._schemas, self._channels, self._chunks = {}, {}, []
                self._make_index(file, size)
        self.channels = [self._channel(number) for number in sorted(self._channels)]

    def streams(self, numbers: frozenset[int]) -> list[Stream]:
        """Give the messages of some channels, one stream for each chunk."""
        streams = [
            Stream(chunk.start_ns, self._of_chunk(chunk, numbers))
            for chunk in self._chunks
            if chunk.channels is None or chunk.channels & numbers
        ]
        loose = sorted(
            (*self._loose[number][i : i + 3], number)
            for number in numbers & self._loose.keys()
            for i in range(0, len(self._loose[number]), 3)
        )
        if loose:
            streams.append(Stream(loose[0][0], self._of_places(loose)))
        return streams

    def _channel(self, number: int) -> Channel:
        channel, count = self._channels[number], self._counts[number]
        if channel is None:
            return Channel(number, f'channel {number}', 'unreadable', '', b'', '', '', count)
        schema = self._schemas.get(channel.schema_id)
        return Channel(
            number,
            channel.topic,
            schema.name if schema else 'no type',
            channel.message_encoding,
            schema.data if schema else b'',
            schema.encoding if schema else '',
            channel.metadata.get('topic_type_hash', ''),
            count,
        )

    # The index

    def _read_index(self, file: IO[bytes], size: int) -> bool:
        """Read the index at the end; False if there is none, or it does not cover everything."""
        tail = _HEAD.size + _FOOTER_LENGTH + len(MAGIC)
        file.seek(max(0, size - tail))
        content = file.read()
        if len(content) < tail or content[0] != Opcode.FOOTER or content[-len(MAGIC) :] != MAGIC:
            return False
        footer = _parsed(records.Footer.read, content[_HEAD.size :])
        if not footer.summary_start:
            return False
        statistics, indexed = None, 0
        try:
            for record in _walk(file, footer.summary_start, size - tail):
                if record.opcode == Opcode.STATISTICS:
                    statistics = _parsed(records.Statistics.read, _content(file, record))
                elif record.opcode == Opcode.CHUNK_INDEX:
                    chunk = _parsed(records.ChunkIndex.read, _content(file, record))
                    places = chunk.message_index_offsets
                    self._chunks.append(_indexed(chunk))
                    indexed += chunk.message_index_length - _INDEX_HEAD * len(places)
                else:
                    self._note(file, record)
        except _UNREADABLE:
            return False
        if statistics is None or not statistics.message_count:
            return False
        self._counts = Counter(statistics.channel_message_counts)
        return (
            statistics.chunk_count == len(self._chunks)
            and statistics.message_count * _INDEX_ENTRY == indexed
            and statistics.message_count == sum(self._counts.values())
            and all(chunk.offset + chunk.length <= size for chunk in self._chunks)
            and all(chunk.channels <= self._channels.keys() for chunk in self._chunks
                    if chunk.channels is not None)
            and all(c is None or c.schema_id in {0, *self._schemas}
                    for c in self._channels.values())
        )  # fmt: skip

    def _make_index(self, file: IO[bytes], size: int) -> None:
        self._counts = Counter()
        file.seek(max(0, size - len(MAGIC)))
        is_finished, read = False, len(MAGIC)
        has_end = file.read() == MAGIC
        for record in _walk(file, len(MAGIC), size):
            if record.opcode in (Opcode.DATA_END, Opcode.FOOTER):
                is_finished = has_end
                break
            if record.opcode == Opcode.CHUNK:
                self._index_chunk(file, record, size)
            if record.end > size or not record.opcode:
                break
            if record.opcode == Opcode.MESSAGE:
                number, time_ns = _message(_content(file, record, _MESSAGE.size))
                self._counts[number] += 1
                places = self._loose.setdefault(number, array('q'))
                places.extend((time_ns, record.offset, record.length))
            else:
                self._note(file, record)
            read = record.end
        if not is_finished:
            log.warning(
                '%s: the recording was not finished, or is cut off: it is read up to byte %d of '
                '%d. To mend it: mcap recover %s -o MENDED.mcap',
                *(self._shown, read, size, self._shown),
            )

    def _index_chunk(self, file: IO[bytes], record: _Record, size: int) -> None:
        whole = record.end <= size
        chunk = _Chunk(record.offset, min(record.length, size - record.offset), 0, None, whole)
        content = io.BytesIO(self._uncompressed(file, chunk))
        times: dict[int, int] = {}  # channel -> first
        for inner in _walk(content, 0, len(content.getvalue())):
            if inner.end > len(content.getvalue()):
                break
            if inner.opcode == Opcode.MESSAGE:
                number, time_ns = _message(_content(content, inner, _MESSAGE.size))
                self._counts[number] += 1
                times[number] = min(time_ns, times.get(number, time_ns))
            else:
                self._note(content, inner)
        if times:
            start_ns = min(times.values())
            self._chunks.append(chunk._replace(start_ns=start_ns, channels=frozenset(times)))

    def _note(self, file: IO[bytes], record: _Record) -> None:
        """Keep a channel or a type."""
        if record.opcode not in (Opcode.CHANNEL, Opcode.SCHEMA) or record.length < 2:
            return
        content = _content(file, record)
        number = int.from_bytes(content[:2], 'little')
        try:
            if record.opcode == Opcode.CHANNEL:
                self._channels[number] = None
                self._channels[number] = _parsed(records.Channel.read, content)
            else:
                self._schemas[number] = _parsed(records.Schema.read, content)
        except _UNREADABLE:
            pass  # of whatever: it matters if it is asked for

    # Messages

    def _of_chunk(self, chunk: _Chunk, numbers: frozenset[int]) -> Iterator[Stored]:
        with self._path.open('rb') as file:
            content = io.BytesIO(self._uncompressed(file, chunk))
        size = len(content.getvalue())
        found = []
        for record in _walk(content, 0, size):
            if record.end > size:
                break
            if record.opcode == Opcode.MESSAGE:
                number, time_ns = _message(_content(content, record, _MESSAGE.size))
                if number in numbers:
                    data = content.read(record.length - _MESSAGE.size)
                    found.append(Stored(time_ns, number, data))
        yield from sorted(found, key=lambda stored: stored.time_ns)

    def _of_places(self, places: list[tuple[int, ...]]) -> Iterator[Stored]:
        with self._path.open('rb') as file:
            for time_ns, offset, length, number in places:
                file.seek(offset + _MESSAGE.size)
                yield Stored(time_ns, number, file.read(length - _MESSAGE.size))

    def _uncompressed(self, file: IO[bytes], place: _Chunk) -> bytes:
        """Give a chunk's records; of one that is cut off, those bytes that can be had."""
        content = _content(file, _Record(Opcode.CHUNK, place.offset, place.length))
        try:
            chunk = _parsed(records.Chunk.read, content)
            data = _DECOMPRESSORS[chunk.compression](chunk.data)
        except KeyError:
            problem = f'expected compression lz4 or zstd, got {chunk.compression!r}'
        except (*_UNREADABLE, zstandard.ZstdError, RuntimeError) as error:
            if not place.is_whole:
                return b''
            problem = f'it cannot be read ({error or "cut off"})'
        else:
            if not place.is_whole:
                return data
            if len(data) != chunk.uncompressed_size:
                problem = f'expected {chunk.uncompressed_size} bytes, got {len(data)}'
            elif chunk.uncompressed_crc not in (0, zlib.crc32(data)):
                problem = 'its checksum is another'
            else:
                return data
        raise ValueError(
            f'{self._shown}: broken recording: chunk at byte {place.offset}: {problem}. '
            f'What can be saved: mcap recover {self._shown} -o MENDED.mcap'
        )


_DECOMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    '': lambda data: data,
    'lz4': lambda data: LZ4FrameDecompressor().decompress(data),
    'zstd': lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


def _walk(file: IO[bytes], offset: int, end: int) -> Iterator[_Record]:
    """Give the records between two places; the last may reach beyond."""
    while offset + _HEAD.size <= end:
        file.seek(offset)
        opcode, length = _HEAD.unpack(file.read(_HEAD.size))
        offset += _HEAD.size
        yield _Record(opcode, offset, length)
        offset += length


def _content(file: IO[bytes], record: _Record, most: int | None = None) -> bytes:
    file.seek(record.offset)
    return file.read(record.length if most is None else min(most, record.length))


def _parsed(read: Callable[[ReadDataStream], _T], content: bytes) -> _T:
    return read(ReadDataStream(io.BytesIO(content)))


def _message(head: bytes) -> tuple[int, int]:
    """Give channel and log time of a message."""
    number, _, logged, _ = _MESSAGE.unpack(head)
    return number, _signed(logged)


def _signed(time: int) -> int:
    """Give nanoseconds as rosbag2 counts them: in 64 bits with a sign."""
    return time - 2**64 if time >= 2**63 else time


def _indexed(index: records.ChunkIndex) -> _Chunk:
    start_ns, end_ns = _signed(index.message_start_time), _signed(index.message_end_time)
    return _Chunk(
        index.chunk_start_offset + _HEAD.size,
        index.chunk_length - _HEAD.size,
        start_ns if start_ns <= end_ns else _EARLIEST_NS,  # across zero: they are without sign
        frozenset(index.message_index_offsets) or None,
    )
