# SPDX-License-Identifier: Apache-2.0
"""
The soak's process beside the node: cameras and planners that come and go, and a manager.

``python -m adpc_ros.graph adpc_ros.benchmark.soak_client OUT.jsonl HEIGHT WIDTH SECONDS NODE_PID
SEED`` writes a line for each stretch of frames: what was sent, heard, and done in between.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image

from adpc_ros.benchmark.soak import IMAGE_DEPTH
from adpc_ros.benchmark.soak_images import Picture, pictures
from adpc_ros.benchmark.soak_trouble import ACT, DEFAULTS, PATIENCE_S, Trouble, answered
from adpc_ros.benchmark.stream import COUNTERS
from adpc_ros.benchmark.stream_planner import change_request
from adpc_ros.graph.camera import Camera
from adpc_ros.graph.peer import Peer, joined
from adpc_ros.graph.processes import Footprint
from adpc_ros.graph.recorder import listen
from adpc_ros.graph.recording import Recording, nanoseconds
from adpc_ros.graph.schedule import Event, Frame
from adpc_ros.progress import ProgressBar

_RELIABLE = QoSProfile(depth=IMAGE_DEPTH)
_FILLING = 40  # frames: more than come while a busy machine lets the node wait
_STRETCHES = 40  # in the whole time, about; each takes half a second at least and 15 at most
_LONGEST_SETTLING_S = 300.0  # it takes a third of the time: memory is not judged yet
_FEWEST = 6  # samples of the active node, however short the time
_SETTLE_S = 0.3
_LATE_S = 5.0  # outputs may come after the status
_CONFIGURE, _CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
_ACTIVATE, _DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE
_TRANSITIONS = {
    _CONFIGURE: 'configure',
    _CLEANUP: 'cleanup',
    _ACTIVATE: 'activate',
    _DEACTIVATE: 'deactivate',
}
# what follows a stretch of frames, and how often
_NEXT = dict(frames=4, camera=3, planner=3, deactivate=3, cut=3, cleanup=2, gone=2)


class Soak:
    """Sends frames for as long as asked, and writes down what becomes of them."""

    def __init__(
        self, out: Path, size: tuple[int, int], duration_s: float, node_id: int, seed: int
    ) -> None:
        """Draw nothing yet."""
        self._out, self._size, self._node_id = out, size, node_id
        self._draw = random.Random(seed)
        self._trouble = Trouble(self._draw)
        self._stretch_s = min(max(duration_s / _STRETCHES, 0.5), 15.0)
        self._end_s = time.monotonic() + duration_s
        self._settle_end_s = time.monotonic() + min(duration_s / 3, _LONGEST_SETTLING_S)
        self._active = 0  # samples
        self._settled = False  # everything was there once that takes memory
        self._compressed = False
        self._before = dict.fromkeys(COUNTERS, 0)
        self._pictures: list[Picture] = []
        self._futures: list[tuple[bool, dict[str, Any], Any]] = []
        self._progress = ProgressBar(total=round(duration_s), desc='soak', unit='s')
        self._begin()

    def _begin(self) -> None:
        """Begin a new line."""
        self._sent: list[tuple[int, Picture]] = []
        self._recording = Recording()
        self._heard: dict[str, list[tuple[int, str, int, int]]] = {'mask': [], 'confidence': []}
        self._samples: list[tuple[str, Footprint]] = []
        self._done: Counter[str] = Counter()
        self._trouble.done.clear()
        self._wrong: list[str] = []

    @property
    def over(self) -> bool:
        """Whether it was long enough."""
        return self._active >= _FEWEST and time.monotonic() >= self._end_s

    # Lives of a camera and a planner

    def live(self, peer: Peer) -> None:
        """Play until the planner ends."""
        self._peer = peer
        self._camera: Camera | None = None
        self._change_state = peer.node.create_client(ChangeState, '/adpc/change_state')
        self._set_parameters = peer.node.create_client(
            SetParametersAtomically, '/adpc/set_parameters_atomically'
        )
        self._done['planner'] += 1
        listen(peer, self._take)
        self._renew_camera()
        self._wait(self._change_state.service_is_ready, 'lifecycle service')
        self._wait(self._set_parameters.service_is_ready, 'service for parameters')
        if not self._settled:
            self._settle()
            self._settled = True
        while not self.over:
            what = self._draw.choices(list(_NEXT), list(_NEXT.values()))[0]
            self._stretch(self._stretch_s * self._draw.uniform(0.5, 1.5), what)
            if what == 'planner':
                return

    def _renew_camera(self) -> None:
        if self._camera is not None:
            self._keep_sent()
            self._camera.close()
        self._done['camera'] += 1
        self._pictures = pictures(self._size, self._compressed)
        self._camera = Camera(
            self._peer,
            [picture.message for picture in self._pictures],
            CompressedImage if self._compressed else Image,
            quality=_RELIABLE,
        )
        self._camera.find_node(recorder=False)

    def _keep_sent(self) -> None:
        assert self._camera is not None
        for frame in self._camera.frames:
            self._sent.append((frame['stamp_ns'], self._pictures[frame['image']]))
        self._camera.frames.clear()

    # What comes

    def _take(self, topic: str, message: Any, received_ns: int) -> None:
        self._recording.take(topic, message, received_ns)
        kind, header = topic.removeprefix('output/'), message.header
        if kind in self._heard:
            size = (message.height, message.width)
            self._heard[kind].append((nanoseconds(header.stamp), header.frame_id, *size))

    def _paired(self) -> bool:
        count = sum(bool(status['exit_index']) for status in self._recording.statuses)
        return all(len(images) == count for images in self._heard.values())

    def _wait(self, condition: Callable[[], Any], what: str) -> None:
        if not self._peer.wait(condition, PATIENCE_S):
            raise TimeoutError(f'{what}: nothing within {PATIENCE_S:.0f} s')

    # Stretches of frames

    def _play(self, events: Iterable[Event], tick: Callable[[float], None] | None = None) -> None:
        """Do what is said."""
        assert self._camera is not None
        self._camera.play(events, tick=tick)

    def _tick(self, now_s: float) -> None:
        """Change live parameters now and then."""
        statuses = self._recording.statuses
        exit_count = statuses[-1]['exit_count'] if statuses else 1
        if change := self._trouble.change(now_s, exit_count):
            self._set(*change)

    def _set(self, values: dict[str, Any], possible: bool = True) -> None:
        request = change_request(values)
        self._futures.append((possible, values, self._set_parameters.call_async(request)))

    def _end_changes(self) -> None:
        """Look at the answers to all changes, and go back to the defaults."""
        self._set(DEFAULTS)
        for possible, values, future in self._futures:
            self._wait(future.done, f'{values} were set')
            result = future.result().result
            self._done['set' if possible else 'refused'] += 1
            if result.successful != possible:
                said = f'refused: {result.reason}' if possible else 'accepted'
                self._wrong.append(f'parameters {values} were {said}')
        self._futures = []

    def _settle(self) -> None:
        """Have the node configured anew until the allocator has got what it will keep."""
        self._take_memory()
        self._close('active')
        while True:
            for compressed in (True, False):
                self._clean_up(compressed)
                self._close('active')
            if time.monotonic() >= self._settle_end_s:
                return
            self._stretch(1.0, 'gone')

    def _take_memory(self) -> None:
        """Let the node take all memory that it will need until it is cleaned up."""
        self._set(DEFAULTS | {'confidence_encoding': '32FC1'})
        for image, picture in enumerate(self._pictures):
            if picture.size:
                self._play(answered(image))
        self._fill_queue()
        self._end_changes()

    def _fill_queue(self) -> None:
        """Stop the node's process while many of the largest frames come."""
        os.kill(self._node_id, signal.SIGSTOP)
        try:
            self._play([Frame(0.0, ACT, image=0)] * _FILLING)
            self._peer.spin(_SETTLE_S)
        finally:
            os.kill(self._node_id, signal.SIGCONT)
        self._peer.spin(_SETTLE_S)
        self._play(answered())

    # Between two stretches

    def _stretch(self, duration_s: float, what: str) -> None:
        """Send frames amid trouble, account for them, and do what comes between two stretches."""
        started_s, now = time.monotonic(), self._peer.node.get_clock().now
        self._play(self._trouble.events(self._pictures, duration_s, now), self._tick)
        self._end_changes()
        if self._draw.random() < 0.2:
            self._change(_CLEANUP, False)
        if what not in ('cut', 'gone'):
            self._close('active')
        if what == 'camera':
            self._renew_camera()
        elif what in ('cut', 'gone'):
            self._play([Frame(0.0, ACT, image=0)] * self._draw.randint(1, 8))
        if what in ('cleanup', 'gone'):
            self._clean_up(self._draw.random() < 0.3, what == 'gone')
        elif what in ('deactivate', 'cut'):
            self._deactivate()
            self._activate()
        if what in ('cleanup', 'gone', 'deactivate', 'cut'):
            self._play(answered())
            self._close('active', 'cut' if what == 'cut' else 'answered')
        self._progress.update(round(time.monotonic() - started_s))

    def _deactivate(self) -> None:
        assert self._camera is not None
        heard_by = self._camera.image.get_subscription_count
        self._change(_DEACTIVATE)
        self._wait(lambda: not heard_by(), 'unsubscribed')
        self._sample('inactive')

    def _activate(self) -> None:
        assert self._camera is not None
        self._change(_ACTIVATE)
        self._wait(self._camera.image.get_subscription_count, 'subscribed')

    def _clean_up(self, compressed: bool, cut: bool = False) -> None:
        """Go back to unconfigured and come again, with images of one type or the other."""
        self._deactivate()
        if cut:
            self._close('inactive', 'gone')
        self._change(_CLEANUP)
        self._sample('unconfigured')
        self._before = dict.fromkeys(COUNTERS, 0)
        self._compressed = compressed
        self._set({'compressed_input': compressed})
        self._end_changes()
        self._change(_CONFIGURE)
        self._change(_ACTIVATE)
        self._renew_camera()
        self._take_memory()

    def _change(self, transition: int, possible: bool = True) -> None:
        request = ChangeState.Request(transition=Transition(id=transition))
        future: Any = self._change_state.call_async(request)
        self._wait(future.done, f'transition {transition}')
        name = _TRANSITIONS[transition]
        self._done[name if possible else f'{name} refused'] += 1
        if future.result().success != possible:
            self._wrong.append(f'{name} {"failed" if possible else "succeeded while active"}')

    def _sample(self, state: str) -> None:
        self._peer.spin(_SETTLE_S)
        if self._settled and not self._compressed:
            self._samples.append((state, Footprint.of(self._node_id)))
            self._active += state == 'active'

    def _close(self, state: str, closing: str = 'answered') -> None:
        """End the line, once all outputs have come."""
        self._peer.wait(self._paired, _LATE_S)
        self._sample(state)  # what is published twice comes meanwhile
        self._keep_sent()
        statuses = self._recording.statuses
        line = {
            'closing': closing,
            'before': self._before,
            'sent': [
                (stamp_ns, picture.message.header.frame_id, picture.size)
                for stamp_ns, picture in self._sent
            ],
            **self._recording.values(),
            **self._heard,
            'samples': self._samples,
            'done': self._done + self._trouble.done,
            'wrong': self._wrong,
        }
        with self._out.open('a') as file:
            file.write(json.dumps(line) + '\n')
        if statuses:
            self._before = {name: statuses[-1][name] for name in COUNTERS}
        self._begin()


def main() -> int:
    """Soak the node; gives the exit status."""
    out, height, width, duration_s, node_id, seed = sys.argv[1:]
    size = (int(height), int(width))
    soak = Soak(Path(out), size, float(duration_s), int(node_id), int(seed))
    while not soak.over:
        with joined('client') as peer:
            soak.live(peer)
    return 0
