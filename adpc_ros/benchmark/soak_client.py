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
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from builtin_interfaces.msg import Duration
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from tqdm import tqdm

from adpc_ros.benchmark.soak_images import Picture, pictures
from adpc_ros.benchmark.stream import COUNTERS
from adpc_ros.benchmark.stream_planner import change_request, random_parameters
from adpc_ros.graph.camera import Camera
from adpc_ros.graph.peer import Peer, joined
from adpc_ros.graph.processes import Footprint
from adpc_ros.graph.recorder import DEPTH, listen
from adpc_ros.graph.recording import Recording, nanoseconds
from adpc_ros.graph.schedule import Answer, Event, Frame, Urgent
from adpc_ros.msg import Urgency

RATE_HZ = 30.0
_RELIABLE = QoSProfile(depth=DEPTH)
_STRETCHES = 40  # in the whole time, about; each takes half a second at least and 15 at most
_FEWEST = 6  # samples of the active node, however short the time
_PATIENCE_S = 60.0
_SETTLE_S = 0.3
_CONFIGURE, _CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
_ACTIVATE, _DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE
_TRANSITIONS = {
    _CONFIGURE: 'configure',
    _CLEANUP: 'cleanup',
    _ACTIVATE: 'activate',
    _DEACTIVATE: 'deactivate',
}
_DEFAULTS = {
    'min_exit': 0,
    'max_exit': 0,
    'target_confidence': 1.0,
    'deadline_s': 0.0,
    'adaptive': True,
    'output_scale': 1,
    'confidence_encoding': 'mono8',
}
_IMPOSSIBLE: tuple[dict[str, Any], ...] = (
    {'adaptive': False, 'min_exit': 3, 'max_exit': 2},
    {'adaptive': False, 'output_scale': 3},
    {'deadline_s': -1.0},
    {'deadline_s': 1},
    {'target_confidence': float('nan')},
    {'confidence_encoding': 'mono16'},
    {'threads': 7},
    {'class_names': ['none']},
    {'no_such_parameter': 1},
)
# what follows a stretch of frames, and how often
_NEXT = {
    'frames': 4,
    'camera': 3,
    'planner': 3,
    'deactivate': 3,
    'cut': 3,
    'cleanup': 2,
    'gone': 2,
}


class Soak:
    """Sends frames for as long as asked, and writes down what becomes of them."""

    def __init__(
        self, out: Path, size: tuple[int, int], duration_s: float, node_id: int, seed: int
    ) -> None:
        """Draw nothing yet."""
        self._out, self._size, self._node_id = out, size, node_id
        self._draw = random.Random(seed)
        self._stretch_s = min(max(duration_s / _STRETCHES, 0.5), 15.0)
        self._end_s = time.monotonic() + duration_s
        self._active = 0  # samples
        self._settled = False  # everything was there once that takes memory
        self._compressed = False
        self._before = dict.fromkeys(COUNTERS, 0)
        self._pictures: list[Picture] = []
        self._futures: list[tuple[bool, dict[str, Any], Any]] = []
        self._progress = tqdm(total=round(duration_s), desc='soak', unit='s')
        self._begin()

    def _begin(self) -> None:
        """Begin a new line."""
        self._sent: list[tuple[int, Picture]] = []
        self._recording = Recording()
        self._heard: dict[str, list[tuple[int, str, int, int]]] = {'mask': [], 'confidence': []}
        self._samples: list[tuple[str, Footprint]] = []
        self._done: Counter[str] = Counter()
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
            self._see_everything()
            self._settled = True
        while not self.over:
            started_s = time.monotonic()
            what = self._draw.choices(list(_NEXT), list(_NEXT.values()))[0]
            duration_s = self._stretch_s * self._draw.uniform(0.5, 1.5)
            self._play(self._troubled(duration_s), self._tick)
            self._end_stretch(what)
            self._progress.update(round(time.monotonic() - started_s))
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

    def _wait(self, condition: Callable[[], Any], what: str) -> None:
        if not self._peer.wait(condition, _PATIENCE_S):
            raise TimeoutError(f'{what}: nothing within {_PATIENCE_S:.0f} s')

    # Stretches of frames

    def _play(self, events: Iterable[Event], tick: Callable[[float], None] | None = None) -> None:
        """Do what is said."""
        assert self._camera is not None
        self._camera.play(events, tick=tick)

    def _troubled(self, duration_s: float) -> Iterator[Event]:
        """Give frames of a camera, urgency and garbage between them, and a good frame at last."""
        draw, good = self._draw, [i for i, p in enumerate(self._pictures) if p.size]
        garbage = range(len(good), len(self._pictures))
        chosen, frame_s, next_s = 0, 1 / RATE_HZ, 0.0  # the largest first
        self._next_change_s, urgent_s = draw.uniform(0.1, 1.0), draw.uniform(0.1, 1.0)
        while next_s < duration_s:
            if draw.random() < 0.02:
                chosen = draw.choice(good)
            burst = draw.randint(2, 10) if draw.random() < 0.01 else 1
            for _ in range(burst):
                is_garbage = draw.random() < 0.05
                image = draw.choice(garbage) if is_garbage else chosen
                self._done['garbage'] += is_garbage
                yield Frame(next_s, 'soak', image=image)
            if urgent_s <= next_s + frame_s:
                for at_s in self._instants(urgent_s):
                    yield Urgent(at_s, 0, self._urgency())
                urgent_s = max(urgent_s, next_s) + draw.uniform(0.05, 1.0)
            next_s += frame_s
        yield Urgent(next_s, 0, self._urgency(Urgency.ROUTINE))
        yield from self._answered(next_s, chosen)

    def _answered(self, at_s: float, image: int = 0) -> Iterator[Event]:
        yield Frame(at_s, 'soak', image=image)
        yield Answer(_PATIENCE_S)

    def _instants(self, at_s: float) -> list[float]:
        """Give when urgency comes: once, or a storm of it."""
        count = self._draw.randint(5, 30) if self._draw.random() < 0.1 else 1
        return [at_s + i * 1e-3 for i in range(count)]

    def _urgency(self, level: int | None = None) -> Urgency:
        draw = self._draw
        message = Urgency(level=draw.randrange(3) if level is None else level)
        message.header.stamp = self._peer.node.get_clock().now().to_msg()
        if level is None:
            message.deadline = _duration(draw.choice((0.0, 0.02, 0.1, 0.3)))
            message.hold = _duration(draw.choice((0.0, 0.05, 0.5)))
        self._done['urgency'] += 1
        return message

    def _tick(self, now_s: float) -> None:
        """Change live parameters now and then."""
        if now_s >= self._next_change_s:
            self._next_change_s = now_s + self._draw.uniform(0.2, 2.0)
            impossible = self._draw.random() < 0.3
            statuses = self._recording.statuses
            drawn = random_parameters(self._draw, statuses[-1]['exit_count'] if statuses else 1)
            self._set(self._draw.choice(_IMPOSSIBLE) if impossible else drawn, not impossible)

    def _set(self, values: dict[str, Any], possible: bool = True) -> None:
        request = change_request(values)
        self._futures.append((possible, values, self._set_parameters.call_async(request)))

    def _end_changes(self) -> None:
        """Look at the answers to all changes, and go back to the defaults."""
        self._set(_DEFAULTS)
        for possible, values, future in self._futures:
            self._wait(future.done, f'{values} were set')
            result = future.result().result
            self._done['set' if possible else 'refused'] += 1
            if result.successful != possible:
                said = f'refused: {result.reason}' if possible else 'accepted'
                self._wrong.append(f'parameters {values} were {said}')
        self._futures = []

    def _see_everything(self) -> None:
        """Have images of both types computed before memory is judged."""
        for compressed in (True, False):
            self._take_memory()
            self._write('answered')
            self._clean_up(compressed)

    def _take_memory(self) -> None:
        """Let the node take all memory that it will need until it is cleaned up."""
        self._set(_DEFAULTS | {'confidence_encoding': '32FC1'})
        for image, picture in enumerate(self._pictures):
            if picture.size:
                self._play(self._answered(0.0, image))
        self._fill_queue()
        self._end_changes()

    def _fill_queue(self) -> None:
        """Stop the node's process while as many of the largest frames come as its queue holds."""
        os.kill(self._node_id, signal.SIGSTOP)
        try:
            self._play([Frame(0.0, 'soak', image=0)] * DEPTH)
            self._peer.spin(_SETTLE_S)
        finally:
            os.kill(self._node_id, signal.SIGCONT)
        self._peer.spin(_SETTLE_S)
        self._play(self._answered(0.0))

    # Between two stretches

    def _end_stretch(self, what: str) -> None:
        self._end_changes()
        if self._draw.random() < 0.2:
            self._change(_CLEANUP, False)
        if what not in ('cut', 'gone'):
            self._sample('active')
            self._write('answered')
        if what == 'camera':
            self._renew_camera()
        elif what in ('cut', 'gone'):
            self._play([Frame(0.0, 'soak', image=0)] * self._draw.randint(1, 8))
        if what in ('cleanup', 'gone'):
            self._clean_up(self._draw.random() < 0.3, what == 'gone')
        elif what in ('deactivate', 'cut'):
            self._deactivate()
            self._activate()
        if what in ('cleanup', 'gone', 'deactivate', 'cut'):
            self._play(self._answered(0.0))
            self._sample('active')
            self._write('cut' if what == 'cut' else 'answered')

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
            self._write('gone')
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
        self._peer.spin(_SETTLE_S)  # what is published twice comes, too
        if self._settled and not self._compressed:
            self._samples.append((state, Footprint.of(self._node_id)))
            self._active += state == 'active'

    def _write(self, closing: str) -> None:
        """End the line."""
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
            'done': self._done,
            'wrong': self._wrong,
        }
        with self._out.open('a') as file:
            file.write(json.dumps(line) + '\n')
        if statuses:
            self._before = {name: statuses[-1][name] for name in COUNTERS}
        self._begin()


def _duration(value_s: float) -> Duration:
    return Duration(sec=int(value_s), nanosec=round(value_s % 1 * 1e9))


def main() -> int:
    """Soak the node; gives the exit status."""
    out, height, width, duration_s, node_id, seed = sys.argv[1:]
    size = (int(height), int(width))
    soak = Soak(Path(out), size, float(duration_s), int(node_id), int(seed))
    while not soak.over:
        with joined('client') as peer:
            soak.live(peer)
    return 0
