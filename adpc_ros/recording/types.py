# SPDX-License-Identifier: Apache-2.0
"""The types of messages: those that are known, and those that a recording defines."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adpc_ros.recording.storage import Channel
from adpc_ros.ros.message_types import LABEL_INFO_TYPE, STATUS_TYPE, URGENCY_TYPE
from adpc_ros.ros.packaged import packaged

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

log = logging.getLogger(__name__)


_VISION_MSGS = {  # what the node publishes of them, which rosbags does not know
    'vision_msgs/msg/VisionClass': 'uint16 class_id\nstring class_name\n',
    LABEL_INFO_TYPE: 'std_msgs/Header header\nvision_msgs/VisionClass[] class_map\n'
    'float32 threshold\n',
}
_IDL = '=' * 80 + '\n'  # between the parts of a ros2idl definition


def typestore() -> Typestore:
    """Give the messages of ROS 2 Jazzy and those that the node publishes, for ``rosbags``."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    for kind in (URGENCY_TYPE, STATUS_TYPE):
        definition = packaged(f'msg/{kind.rpartition("/")[2]}.msg').read_text()
        store.register(get_types_from_msg(definition, kind))
    for kind, definition in _VISION_MSGS.items():
        store.register(get_types_from_msg(definition, kind))
    return store


def typestore_of(channel: Channel, path: Path) -> Typestore:
    """
    Give the types by which a channel's messages are read.

    That is its own definition; the known one if there is none, or with a warning if it is broken
    or lacks fields.

    :param channel: of a type that is known.
    :param path: of the recording, for messages.
    :raises ValueError: if its messages are not encoded as cdr.
    """
    from rosbags.typesys import Stores, TypesysError, get_typestore

    name = f'{path}: topic {channel.topic} ({channel.kind})'
    if channel.encoding != 'cdr':
        raise ValueError(f'{name}: expected messages encoded as cdr, got {channel.encoding!r}')
    known = typestore()
    if not channel.definition.strip():
        return known
    known_hash = known.hash_rihs01(channel.kind)
    try:
        types = _parsed(channel)
        for kind in {channel.kind, *(types.keys() & known.fielddefs.keys())}:
            fields = dict(types[kind][1])
            for field, form in known.fielddefs[kind][1]:
                if fields.get(field) != form:
                    raise ValueError(f'{kind} lacks the field {field} as it is known')
        try:
            known.register(types)
            store = known
        except TypesysError:  # other fields
            store = get_typestore(Stores.EMPTY)
            store.register({**known.fielddefs, **types})
        found_hash = store.hash_rihs01(channel.kind)
    except Exception as error:  # the parsers raise kinds of their own
        reason = str(error).partition('\n')[0] or type(error).__name__
        log.warning('%s: its definition is broken (%s): taking the known one', name, reason)
        return typestore()
    if channel.type_hash not in ('', found_hash):
        if channel.type_hash == known_hash:
            log.warning('%s: its hash is not of its definition but of the known one', name)
            return typestore()
        log.warning('%s: its hash is not of its definition, which is taken', name)
    return store


def _parsed(channel: Channel) -> dict[str, Any]:
    """Parse a definition."""
    from rosbags.typesys import get_types_from_idl, get_types_from_msg

    try:
        text = channel.definition.decode('utf-8-sig')
    except UnicodeDecodeError:
        text = channel.definition.decode('latin-1')  # comments; names are ASCII
    text = text.replace('\r\n', '\n')
    if channel.definition_format == 'ros2msg':
        return get_types_from_msg(text, channel.kind)
    if channel.definition_format not in ('ros2idl', 'omgidl'):
        raise ValueError(f'expected ros2msg or ros2idl, got {channel.definition_format!r}')
    parts = [p.partition('\n')[2] for p in text.split(_IDL)[1:]] if _IDL in text else [text]
    return {name: of for part in parts for name, of in get_types_from_idl(part).items()}
