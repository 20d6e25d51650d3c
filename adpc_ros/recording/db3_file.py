# SPDX-License-Identifier: Apache-2.0
"""An SQLite file of rosbag2, of any of its schemas; a write-ahead log beside it is read, too."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from adpc_ros.recording.storage import Channel, Stored, Stream

MAGIC = b'SQLite format 3\0'
_UNREADABLE = (sqlite3.Error, OverflowError, UnicodeDecodeError)  # the last: of its words


class Db3File:
    """
    The channels of an SQLite file, and its messages in order of their times.

    :param path: of the file.
    :param shown: its name for messages.
    :raises ValueError: if it is broken.
    """

    def __init__(self, path: Path, shown: Path) -> None:
        """Read the tables of topics and types."""
        self._path, self._shown = path, shown
        # a file that nobody writes to needs no lock, and so nothing is put beside it
        self._logs = [p for end in ('-wal', '-journal') if (p := Path(f'{path}{end}')).exists()]
        alone = not self._logs
        self._uri = f'file:{quote(str(path))}?' + ('immutable=1' if alone else 'mode=ro')
        try:
            with closing(self._open()) as database:
                (pages,), (page,) = (
                    database.execute(f'PRAGMA {name}').fetchone()
                    for name in ('page_count', 'page_size')
                )
                if alone and pages * page > path.stat().st_size:
                    raise sqlite3.DatabaseError(
                        f'expected {pages * page} bytes, got {path.stat().st_size}'
                    )
                self.channels = _channels(database)
                start = database.execute('SELECT MIN(timestamp) FROM messages').fetchone()
                self._start_ns: int = start[0] or 0
        except _UNREADABLE as error:
            raise self._broken(error) from error

    def streams(self, numbers: frozenset[int]) -> list[Stream]:
        """Give the messages of some channels as one stream."""
        return [Stream(self._start_ns, self._messages(numbers))] if numbers else []

    def _messages(self, numbers: frozenset[int]) -> Iterator[Stored]:
        chosen = ', '.join(map(str, sorted(numbers)))
        query = f'SELECT timestamp, topic_id, data FROM messages WHERE topic_id IN ({chosen}) '
        try:
            with closing(self._open()) as database:
                for time_ns, number, data in database.execute(f'{query}ORDER BY timestamp, id'):
                    if not isinstance(time_ns, int) or not isinstance(data, bytes):
                        raise sqlite3.DatabaseError('expected a time and bytes of each message')
                    yield Stored(time_ns, number, data)
        except _UNREADABLE as error:
            raise self._broken(error) from error

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._uri, uri=True)
        database.text_factory = bytes  # what is no UTF-8 matters if it is asked for
        return database

    def _broken(self, error: Exception) -> ValueError:
        logs = ', '.join(f'{log.name} lies beside it' for log in self._logs)
        return ValueError(
            f'{self._shown}: broken recording: {error}{f" ({logs})" if logs else ""}. '
            f'What can be saved: sqlite3 {self._shown} .recover | sqlite3 MENDED.db3'
        )


def _channels(database: sqlite3.Connection) -> list[Channel]:
    tables = {_text(name) for (name,) in database.execute('SELECT name FROM sqlite_master')}
    if missing := {'topics', 'messages'} - tables:
        raise sqlite3.DatabaseError(f'expected the table {" and ".join(sorted(missing))}')
    columns = {_text(row[1]) for row in database.execute('PRAGMA table_info(topics)')}
    type_hash = 'type_description_hash' if 'type_description_hash' in columns else "''"
    definitions: dict[str, tuple[str, bytes]] = {}
    if 'message_definitions' in tables:
        for kind, form, definition in database.execute(
            'SELECT topic_type, encoding, CAST(encoded_message_definition AS BLOB) '
            'FROM message_definitions'
        ):
            definitions[_text(kind)] = _text(form), definition or b''
    counts = dict(database.execute('SELECT topic_id, COUNT(*) FROM messages GROUP BY topic_id'))
    channels = []
    for number, topic, kind, encoding, digest in database.execute(
        f'SELECT id, name, type, serialization_format, {type_hash} FROM topics ORDER BY id'
    ):
        form, definition = definitions.get(_text(kind), ('', b''))
        channels.append(
            Channel(
                *(number, _text(topic), _text(kind), _text(encoding), definition, form),
                *(_text(digest), counts.get(number, 0)),
            )
        )
    return channels


def _text(value: Any) -> str:
    return value.decode('utf-8', 'replace') if isinstance(value, bytes) else str(value or '')
