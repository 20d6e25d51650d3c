# SPDX-License-Identifier: Apache-2.0
"""
What is published of a result: topics, arrays and fields. Node and replays write what this gives.

There is no ROS here, neither rclpy's messages nor those of ``rosbags``. A topic's value is an
array, which becomes an image message, or :class:`Fields`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adpc_ros.labels import ClassSet
from adpc_ros.ros.camera_info import mask_calibration
from adpc_ros.ros.message_types import CAMERA_INFO_TYPE, LABEL_INFO_TYPE, RAW_TYPE, STATUS_TYPE
from adpc_ros.runtime.scheduler import Publish

if TYPE_CHECKING:  # cameras and recorders do without torch
    from adpc_ros.ros.parameters import Parameters
    from adpc_ros.runtime.images import Rendered
    from adpc_ros.runtime.ledger import Frame, Result

RUNNING = 7  # stop reason of a frame that goes on

_ENCODINGS = {np.dtype(np.uint8): 'mono8', np.dtype(np.float32): '32FC1'}
_PROBABILITY = (np.arange(256) / 255).astype(np.float32)  # of a confidence of 8 bits
_LONGEST_S = 2**31 - 1  # what a message can say


class Topic(NamedTuple):
    """
    A topic below the node's name.

    ``kind`` is the message's type, ``depth`` that of the queue. ``loose`` ones are best effort;
    ``kept`` ones also reach those who subscribe later.
    """

    kind: str
    depth: int
    loose: bool = False
    kept: bool = False


#: All that the node publishes of frames, but for what is there to be looked at.
TOPICS = {
    'output/mask': Topic(RAW_TYPE, 5),
    'output/confidence': Topic(RAW_TYPE, 5),
    'output/status': Topic(STATUS_TYPE, 10),
    'output/camera_info': Topic(CAMERA_INFO_TYPE, 5),
    'output/label_info': Topic(LABEL_INFO_TYPE, 1, kept=True),
    'progress/mask': Topic(RAW_TYPE, 5, loose=True),
    'progress/confidence': Topic(RAW_TYPE, 5, loose=True),
    'progress/status': Topic(STATUS_TYPE, 10, loose=True),
}
PROGRESS = tuple(topic for topic in TOPICS if topic.startswith('progress/'))


class OtherCamera(ValueError):
    """The calibration is not of the image."""


class Network(NamedTuple):
    """
    What is said of the network.

    ``identity`` names the weights; ``threshold`` (0 to 1) is from where a pixel is confident;
    ``advised_exit`` is the first that sees vulnerable road users.
    """

    identity: str
    classes: ClassSet
    exit_count: int
    threshold: float
    advised_exit: int


class Stamp(NamedTuple):
    """A point in time, which becomes a Time message."""

    nanoseconds: int


class Span(NamedTuple):
    """A length of time, which becomes a Duration message."""

    nanoseconds: int


class Fields(NamedTuple):
    """
    The fields of a message but its header.

    Times are :class:`Stamp` and :class:`Span`; parts that are messages are Fields.
    """

    kind: str
    values: dict[str, Any]


#: Of a calibration that describes the mask's own pixels.
_WHOLE = {
    'binning_x': 0,
    'binning_y': 0,
    'roi': Fields(
        'sensor_msgs/msg/RegionOfInterest',
        {'x_offset': 0, 'y_offset': 0, 'height': 0, 'width': 0, 'do_rectify': False},
    ),
}


def results(
    result: Result,
    now_s: Callable[[], float],
    network: Network,
    parameters: Parameters,
    camera_info: Any = None,
    age_s: Callable[[Frame], float | None] = lambda _: None,
) -> Iterator[tuple[str, NDArray[Any] | Fields]]:
    """
    Give what belongs to a frame's result, in the order in which it is published.

    :param now_s: the time on the clock of the result; asked when the status is due.
    :param camera_info: the camera's latest sensor_msgs/CameraInfo, by its fields; None if there
        is none.
    :param age_s: the time since a frame's stamp on the clock that stamps are of, in seconds, asked
        when the status is due; None for that on the clock of the result.
    :return: topics of :data:`TOPICS`, and their values; without mask, confidence and camera_info
        if the frame failed.
    :raises OtherCamera: after all else, if the calibration is not of that image.
    """
    scale = parameters.output_scale
    if result.exit is not None:
        yield from _images('output', result.exit.computed.rendered, parameters)
    yield 'output/status', status_fields(result, now_s(), network, age_s(result.frame))
    if result.exit is not None and camera_info is not None:
        height, width = result.exit.computed.rendered.class_ids.shape
        try:
            calibration = mask_calibration(camera_info, (height, width), scale)
        except ValueError as error:
            raise OtherCamera(str(error)) from error
        yield 'output/camera_info', Fields(CAMERA_INFO_TYPE, {**calibration, **_WHOLE})


def progress(
    done: Result,
    now_s: Callable[[], float],
    network: Network,
    parameters: Parameters,
    age_s: Callable[[Frame], float | None] = lambda _: None,
) -> Iterator[tuple[str, NDArray[Any] | Fields]]:
    """
    Give what belongs to an exit of a frame that goes on.

    :param done: without decision; the rest as for :func:`results`.
    :return: as :func:`results` does.
    """
    assert done.exit is not None
    yield from _images('progress', done.exit.computed.rendered, parameters)
    yield 'progress/status', status_fields(done, now_s(), network, age_s(done.frame))


def status_fields(
    result: Result, now_s: float, network: Network, age_s: float | None = None
) -> Fields:
    """
    Fill a SegmentationStatus.

    :param now_s: time of publication on the clock of the result.
    :param age_s: time since the stamp then, in seconds; None for that on the clock of the result.
    """
    latency_s = now_s - result.frame.captured_s if age_s is None else age_s
    decision, done = result.decision, result.exit
    computed = done.computed if done else None
    urgency_stamp_ns, event_s, deadline_missed = 0, None, False
    if isinstance(decision, Publish):
        urgency_stamp_ns = decision.urgency_stamp or 0
        event_s, deadline_missed = decision.event_s, now_s > decision.deadline_s
    return Fields(
        STATUS_TYPE,
        {
            'exit_index': computed.exit_index if computed else 0,
            'exit_count': network.exit_count,
            'stop_reason': RUNNING if result.reason is None else int(result.reason),
            'urgency': int(result.level),
            'urgency_stamp': Stamp(urgency_stamp_ns),
            'deadline_missed': deadline_missed,
            'mean_confidence': computed.mean_confidence if computed else 0.0,
            'confident_share': computed.confident_share if computed else 0.0,
            'gimac': done.gimac if done else 0.0,
            'latency': _span(latency_s),
            'compute_time': _span(done.time_s - result.started_s if done else 0.0),
            'preempt_time': _span(now_s - event_s if event_s is not None else 0.0),
            'frames_received': result.counters.received,
            'frames_segmented': result.counters.segmented,
            'frames_dropped': result.counters.dropped,
            'network': network.identity,
        },
    )


def label_info_fields(network: Network) -> Fields:
    """Fill a LabelInfo: the names of the class ids, and from where a pixel is confident."""
    classes = [
        Fields('vision_msgs/msg/VisionClass', {'class_id': class_id, 'class_name': name})
        for class_id, name in enumerate(network.classes.names)
    ]
    return Fields(LABEL_INFO_TYPE, {'class_map': classes, 'threshold': network.threshold})


def encoding_of(values: NDArray[Any]) -> str:
    """Name the encoding of (H, W) uint8 or float32, or of (H, W, 3) uint8 RGB."""
    return _ENCODINGS[values.dtype] if values.ndim == 2 else 'rgb8'


def scaled(values: NDArray[Any], scale: int) -> NDArray[Any]:
    """Give every n-th pixel of every n-th row, from the first on."""
    return values[::scale, ::scale]


def _images(
    place: str, rendered: Rendered, parameters: Parameters
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Give mask and confidence of the same pixels."""
    scale = parameters.output_scale
    yield f'{place}/mask', scaled(rendered.class_ids, scale)
    confidence = scaled(rendered.confidence, scale)
    if parameters.confidence_encoding == '32FC1':
        confidence = _PROBABILITY[confidence]
    yield f'{place}/confidence', confidence


def _span(seconds: float) -> Span:
    bounded_s = min(max(seconds, -_LONGEST_S), _LONGEST_S)  # a stamp of another clock's
    return Span(round(bounded_s * 1e9))
