# SPDX-License-Identifier: Apache-2.0
"""
An MCAP file, with index or without, finished or cut off.

The index at its end is used if it covers all messages. Else the file is read through once, and
an index is made of what is there.
"""

from __future__ import annotations

import io
import logging
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import zstandard
from mcap import records
from mcap.opcode import Opcode

from adpc_ros.recording.mcap_records import (
    DECOMPRESSORS,
    HEAD,
    MAGIC,
    MESSAGE,
    UNREADABLE,
    Record,
    content_of,
    message_head,
    parsed,
    signed,
    walk,
)
from adpc_ros.recording.storage import Channel, Stored, Stream

log = logging.getLogger(__name__)

_FOOTER_LENGTH = 20
_INDEX_HEAD, _INDEX_ENTRY = 9 + 2 + 4, 16  # bytes of a message index record
_EARLIEST_NS = -(2**63)


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
        tail = HEAD.size + _FOOTER_LENGTH + len(MAGIC)
        file.seek(max(0, size - tail))
        content = file.read()
        if len(content) < tail or content[0] != Opcode.FOOTER or content[-len(MAGIC) :] != MAGIC:
            return False
        footer = parsed(records.Footer.read, content[HEAD.size :])
        if not footer.summary_start:
            return False
        statistics, indexed = None, 0
        try:
            for record in walk(file, footer.summary_start, size - tail):
                if record.end > size:
                    return False
                if record.opcode == Opcode.STATISTICS:
                    statistics = parsed(records.Statistics.read, content_of(file, record))
                elif record.opcode == Opcode.CHUNK_INDEX:
                    chunk = parsed(records.ChunkIndex.read, content_of(file, record))
                    places = chunk.message_index_offsets
                    self._chunks.append(_indexed(chunk))
                    indexed += chunk.message_index_length - _INDEX_HEAD * len(places)
                else:
                    self._note(file, record)
        except UNREADABLE:
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
        for record in walk(file, len(MAGIC), size):
            if record.opcode in (Opcode.DATA_END, Opcode.FOOTER):
                is_finished = has_end
                break
            if record.opcode == Opcode.CHUNK:
                self._index_chunk(file, record, size)
            is_short = record.opcode == Opcode.MESSAGE and not record.is_message
            if record.end > size or not record.opcode or is_short:
                break
            if record.is_message:
                number, time_ns = message_head(content_of(file, record, MESSAGE.size))
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

    def _index_chunk(self, file: IO[bytes], record: Record, size: int) -> None:
        whole = record.end <= size
        chunk = _Chunk(record.offset, min(record.length, size - record.offset), 0, None, whole)
        content = io.BytesIO(self._uncompressed(file, chunk))
        times: dict[int, int] = {}  # channel -> first
        for inner in walk(content, 0, len(content.getvalue())):
            if inner.end > len(content.getvalue()):
                break
            if inner.is_message:
                number, time_ns = message_head(content_of(content, inner, MESSAGE.size))
                self._counts[number] += 1
                times[number] = min(time_ns, times.get(number, time_ns))
            else:
                self._note(content, inner)
        if times:
            start_ns = min(times.values())
            self._chunks.append(chunk._replace(start_ns=start_ns, channels=frozenset(times)))

    def _note(self, file: IO[bytes], record: Record) -> None:
        """Keep a channel or a type."""
        if record.opcode not in (Opcode.CHANNEL, Opcode.SCHEMA) or record.length < 2:
            return
        content = content_of(file, record)
        number = int.from_bytes(content[:2], 'little')
        try:
            if record.opcode == Opcode.CHANNEL:
                self._channels[number] = None
                self._channels[number] = parsed(records.Channel.read, content)
            else:
                self._schemas[number] = parsed(records.Schema.read, content)
        except UNREADABLE:
            pass  # of whatever: it matters if it is asked for

    # Messages

    def _of_chunk(self, chunk: _Chunk, numbers: frozenset[int]) -> Iterator[Stored]:
        with self._path.open('rb') as file:
            content = io.BytesIO(self._uncompressed(file, chunk))
        size = len(content.getvalue())
        found = []
        for record in walk(content, 0, size):
            if record.end > size:
                break
            if record.is_message:
                number, time_ns = message_head(content_of(content, record, MESSAGE.size))
                if number in numbers:
                    data = content.read(record.length - MESSAGE.size)
                    found.append(Stored(time_ns, number, data))
        yield from sorted(found, key=lambda stored: stored.time_ns)

    def _of_places(self, places: list[tuple[int, ...]]) -> Iterator[Stored]:
        with self._path.open('rb') as file:
            for time_ns, offset, length, number in places:
                file.seek(offset + MESSAGE.size)
                yield Stored(time_ns, number, file.read(length - MESSAGE.size))

    def _uncompressed(self, file: IO[bytes], place: _Chunk) -> bytes:
        """Give a chunk's records; of one that is cut off, those bytes that can be had."""
        content = content_of(file, Record(Opcode.CHUNK, place.offset, place.length))
        try:
            chunk = parsed(records.Chunk.read, content)
            data = DECOMPRESSORS[chunk.compression](chunk.data)
        except KeyError:
            problem = f'expected compression lz4 or zstd, got {chunk.compression!r}'
        except (*UNREADABLE, zstandard.ZstdError, RuntimeError) as error:
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


def _indexed(index: records.ChunkIndex) -> _Chunk:
    start_ns, end_ns = signed(index.message_start_time), signed(index.message_end_time)
    return _Chunk(
        index.chunk_start_offset + HEAD.size,
        index.chunk_length - HEAD.size,
        start_ns if start_ns <= end_ns else _EARLIEST_NS,  # across zero: they are without sign
        frozenset(index.message_index_offsets) or None,
    )
