# SPDX-License-Identifier: Apache-2.0
"""What the kinds of storage have in common: channels, and messages in order of their times."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol


class Channel(NamedTuple):
    """
    A topic's messages of one type in one file.

    ``kind`` is the type's name, as 'sensor_msgs/msg/Image', ``encoding`` that of the messages, as
    'cdr'. ``definition`` is the type's, in the form ``definition_format`` ('ros2msg', 'ros2idl'),
    and empty if there is none; ``type_hash`` is empty likewise.
    """

    number: int
    topic: str
    kind: str
    encoding: str
    definition: bytes
    definition_format: str
    type_hash: str
    message_count: int


class Stored(NamedTuple):
    """A message as it is stored; ``time_ns`` is when it was received."""

    time_ns: int
    channel: int
    data: bytes


class Stream(NamedTuple):
    """Messages in order of their times, none before ``start_ns``; nothing is read before that."""

    start_ns: int
    messages: Iterator[Stored]


class Storage(Protocol):
    """A file of a recording."""

    @property
    def channels(self) -> Sequence[Channel]:
        """What is in it."""

    def streams(self, numbers: frozenset[int]) -> list[Stream]:
        """
        Give the messages of some channels.

        :param numbers: of the channels.
        :raises ValueError: while they are read, if the file is broken.
        """


def merged(streams: Sequence[Stream]) -> Iterator[tuple[int, Stored]]:
    """
    Merge streams in order of the messages' times; equal times stay in the order of the streams.

    :return: number of the stream, and the message.
    """
    waiting = sorted(range(len(streams)), key=lambda i: streams[i].start_ns, reverse=True)
    begun: list[tuple[int, int, Stored]] = []  # time, number of the stream, its next message

    def advance(number: int) -> None:
        if (stored := next(streams[number].messages, None)) is not None:
            heapq.heappush(begun, (stored.time_ns, number, stored))

    while waiting or begun:
        while waiting and (not begun or streams[waiting[-1]].start_ns <= begun[0][0]):
            advance(waiting.pop())
        if begun:
            _, number, stored = heapq.heappop(begun)
            yield number, stored
            advance(number)
