# SPDX-License-Identifier: Apache-2.0
"""
Play a bag to a node that is there already, and record what it says: what replay.launch.py starts.

``ros2 bag record`` and ``ros2 bag play`` do the work. The player begins paused: nothing is played
until it, the recorder and the node have found each other on all topics that count.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from adpc_ros.ros.interrupts import end_at_once

if __name__ == '__main__':
    end_at_once(130)

from diagnostic_msgs.msg import DiagnosticArray

from adpc_ros.graph.peer import Peer, joined
from adpc_ros.graph.processes import Process
from adpc_ros.recording.reader import Recording
from adpc_ros.replay.launched_arguments import Failure, check, parsed, say
from adpc_ros.ros.connections import CAMERAS, DROPPED, RECEIVED, SEGMENTED, subscribers

INTERRUPTED = 130  # exit status: it did not come to its end
RECORDER, PLAYER = 'rosbag2_recorder', 'rosbag2_player'  # nodes
RESUME = (f'/{PLAYER}/resume', 'rosbag2_interfaces/srv/Resume')
OUTPUTS = ('output/mask', 'output/confidence', 'output/status')
_END_S = 8.0  # for recorder and player; launch kills after ten
_DRAIN_S = 60.0  # for the node to finish what it has received
_CALL_S = 30.0
_LOOK_S = 0.5  # between looks for the node
_QUIET = 2  # diagnostics in a row without a frame in flight or a new one: all is out


class Replay:
    """
    One replay.

    :param peer: through which the graph is seen.
    :param kinds: types of the images in the bag; empty if not known.
    """

    def __init__(self, chosen: argparse.Namespace, peer: Peer, kinds: Sequence[str]) -> None:
        """Listen to the node's diagnostics."""
        self._chosen, self._peer, self._kinds = chosen, peer, kinds
        self._processes: list[Process] = []
        self._counts: dict[str, int] = {}  # of the latest diagnostics
        self._before: dict[str, int] = {}  # those when the player begins
        self._quiet = 0
        self._seen = False
        self._next_look_s = 0.0
        peer.node.create_subscription(DiagnosticArray, '/diagnostics', self._take, 10)

    def run(self) -> None:
        """
        Do all of it.

        :raises Failure: if one of the three fails, or there is no mask.
        :raises KeyboardInterrupt: if interrupted.
        """
        chosen = self._chosen
        with self._ending():
            play = self._start('player', self._play_command())  # its clock lets the other begin
            record = self._start('recorder', self._record_command())
            self._wait(self._missing, chosen.timeout, 'not all is there to begin')
            say('recorder and node have subscribed: the bag is played')
            self._before = dict(self._counts)
            self._resume(play)
            self._wait_for_end(play)
            self._check_ended(play)
            self._processes.remove(play)
            self._quiet = 0
            self._wait(self._in_flight, _DRAIN_S, 'the node does not finish its frames')
            self._processes.remove(record)
            record.interrupt()
            self._check_ended(record)
        self._judge()

    # Processes

    def _start(self, name: str, command: Sequence[str]) -> Process:
        try:
            process = Process(name, command, None, apart=True)
        except OSError as error:
            raise Failure(f'the {name} cannot be started: {command[0]}: {error}') from error
        self._processes.append(process)
        return process

    def _record_command(self) -> list[str]:
        """Give the command; releases differ in what they know."""
        base = ['ros2', 'bag', 'record']
        try:
            asked = [*base, '--help']
            known = subprocess.run(
                asked, capture_output=True, text=True, start_new_session=True
            ).stdout
        except OSError as error:
            raise Failure(f'the recorder cannot be started: ros2: {error}') from error
        chosen = self._chosen
        command = [*base, '--use-sim-time', '--storage', chosen.storage]
        command += ['--output', str(chosen.output)]
        if '--disable-keyboard-controls' in known:
            command.append('--disable-keyboard-controls')
        if '--topics' in known:
            command.append('--topics')
        return [*command, *chosen.outputs, *chosen.record]

    def _play_command(self) -> list[str]:
        chosen = self._chosen
        return [
            *('ros2', 'bag', 'play', str(chosen.bag), '--start-paused', '--clock', '100'),
            *('--rate', str(chosen.rate), '--disable-keyboard-controls'),
            *('--topics', chosen.image, *chosen.play),
        ]

    def _resume(self, play: Process) -> None:
        command = ['ros2', 'service', 'call', *RESUME]
        call = self._start('call of the player', command)

        def missing() -> str:  # a short bag is over before the call has ended
            return '' if call.ended or play.ended else f'the {call.name} still runs'

        try:
            self._wait(missing, _CALL_S, 'no end', call)
            if call.ended:
                self._check_ended(call)
        finally:
            self._processes.remove(call)
            call.kill()  # interrupted, it would say a lot

    def _check_ended(self, process: Process) -> None:
        try:
            status = process.end(_END_S)
        except ChildProcessError as error:
            raise Failure(str(error)) from error
        if status:
            raise Failure(f'the {process.name} failed with status {status}')

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """
        End what still runs, the player first, so that nothing is lost to the recorder.

        By SIGTERM, which rosbag2 takes as SIGINT: what is still importing Python ends by it
        without a word.
        """
        try:
            yield
        finally:
            for process in self._processes:
                process.interrupt(signal.SIGTERM)
                with contextlib.suppress(ChildProcessError):
                    process.end(_END_S)

    # The graph

    def _wait_for_end(self, process: Process) -> None:
        def missing() -> str:
            return '' if process.ended else f'the {process.name} still runs'

        self._wait(missing, sys.maxsize, 'no end', process)

    def _wait(
        self,
        missing: Callable[[], str],
        timeout_s: float,
        what: str,
        may_end: Process | None = None,
    ) -> None:
        """
        Wait until nothing is missing any more.

        :param may_end: the one process that may end meanwhile.
        :raises Failure: if time is over, another process ends before, or the node is gone.
        """
        interrupts = self._peer.interrupts
        assert interrupts is not None
        text = ''

        def over() -> bool:
            nonlocal text
            interrupts.check()
            text = missing()
            if text:
                self._check_all_run(may_end)
            return not text

        if not self._peer.wait(over, timeout_s):
            raise Failure(f'{what} within {timeout_s:g} s: {text}')

    def _check_all_run(self, may_end: Process | None) -> None:
        for process in self._processes:
            if process.ended and process is not may_end:
                self._check_ended(process)
                raise Failure(f'the {process.name} ended too early')
        if time.monotonic() < self._next_look_s:
            return
        self._next_look_s = time.monotonic() + _LOOK_S
        node = self._chosen.node.strip('/')
        present = any(
            f'{space}/{name}'.strip('/') == node
            for name, space in self._peer.node.get_node_names_and_namespaces()
        )
        if self._seen and not present:
            raise Failure(f'the node /{node} is gone')
        self._seen |= present

    def _take(self, array: DiagnosticArray) -> None:
        for status in array.status:
            if status.name == f'{self._peer.of}: segmentation':
                values = {v.key: int(v.value) for v in status.values if v.value.isdigit()}
                done = values.get(SEGMENTED, 0) + values.get(DROPPED, 0)
                same = values.get(RECEIVED) == done == self._received()
                self._counts, self._quiet = values, self._quiet + 1 if same else 0

    def _received(self) -> int | None:
        return self._counts.get(RECEIVED)

    def _missing(self) -> str:
        """Say what is not there yet for the first image and its mask to arrive; else nothing."""
        node, chosen = self._peer.node, self._chosen
        own = chosen.node.strip('/')
        listeners = [
            info
            for info in node.get_subscriptions_info_by_topic(chosen.image)
            if f'{info.node_namespace}/{info.node_name}'.strip('/') == own
        ]
        if not listeners:
            return f'the node /{own} has not subscribed to {chosen.image}'
        kind = listeners[0].topic_type
        if self._kinds and kind not in self._kinds:
            compressed = 'true' if 'Compressed' in self._kinds[0] else 'false'
            raise Failure(
                f'{chosen.image}: the node expects {kind}, the bag has {self._kinds[0]}: '
                f'compressed_input:={compressed}'
            )
        players = node.get_publishers_info_by_topic(chosen.image)
        if not any(info.node_name == PLAYER for info in players):
            return f'the player does not offer {chosen.image}'
        for topic, short in zip(chosen.outputs, OUTPUTS):
            infos = node.get_subscriptions_info_by_topic(topic)
            if not any(info.node_name == RECORDER for info in infos):
                return f'the recorder has not subscribed to {topic}'
            if self._counts.get(subscribers(short), 0) < len(infos):
                return f'the node has not found who has subscribed to {topic}'
        if self._counts.get(CAMERAS, 0) < len(players):
            return f'the node has not found who publishes {chosen.image}'
        return ''

    def _in_flight(self) -> str:
        return '' if self._quiet >= _QUIET else f'{self._received()} frames received'

    # The result

    def _judge(self) -> None:
        received, masks = (
            self._counts.get(name, 0) - self._before.get(name, 0) for name in (RECEIVED, SEGMENTED)
        )
        mask, output = self._chosen.outputs[0], self._chosen.output
        if not masks:
            raise Failure(
                f'no mask: the node received {received} frames of {self._chosen.image}'
                + (', and all were dropped: its log says why' if received else '')
            )
        try:
            recording = Recording(output)
            recorded = recording.count([t for t in recording.topics if t.name == mask])
        except ImportError:
            recorded = masks
        except (OSError, ValueError) as error:
            raise Failure(f'what was recorded cannot be read: {error}') from error
        if not recorded:
            raise Failure(f'{output}: no mask was recorded, though the node gave {masks}')
        if recorded < masks:
            raise Failure(f'{output}: only {recorded} of {masks} masks were recorded')
        say(f'{received} frames received, {masks} masks; recorded in {output}')


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay; gives the exit status: 0, 1 if it failed, 130 if it was interrupted."""
    chosen = parsed(sys.argv[1:] if arguments is None else arguments)
    try:
        kinds = check(chosen)
        with joined('adpc_replay', raises=False, of=chosen.node.strip('/')) as peer:
            Replay(chosen, peer, kinds).run()
    except Failure as failure:
        say(f'the replay failed: {failure}')
        return 1
    except KeyboardInterrupt:
        say('the replay was interrupted')
        return INTERRUPTED
    return 0


if __name__ == '__main__':
    sys.exit(main())
