# SPDX-License-Identifier: Apache-2.0
"""Which mask a cloud gets, and when its waiting is over."""

from __future__ import annotations

from adpc_ros.points.pairing import KEPT_FRAMES, WAITING_CLOUDS, Pairing

MS = 10**6


def pairing(wait_s: float = 0.3) -> Pairing[str, str]:
    return Pairing(max_stamp_difference_s=0.05, max_wait_s=wait_s)


def frame(pairs: Pairing[str, str], stamp_ms: int) -> None:
    pairs.add_mask(stamp_ms * MS, f'm{stamp_ms}')
    pairs.add_confidence(stamp_ms * MS, f'c{stamp_ms}')


def settled(pairs: Pairing[str, str], now_s: float) -> list[tuple[str, str | None]]:
    return [(s.cloud, s.pair and s.pair.mask) for s in pairs.settle(now_s)]


def test_the_nearest_stamp_wins_on_either_side() -> None:
    for cloud_ms, expected in ((1000, 'm1000'), (1019, 'm1000'), (1030, 'm1040')):
        pairs = pairing()
        for stamp_ms in (960, 1000, 1040):
            frame(pairs, stamp_ms)
        pairs.add_cloud(cloud_ms * MS, 'cloud', 0.0)
        ((cloud, pair, _),) = pairs.settle(0.0)
        assert pair is not None and pair.mask == expected
        assert pair.confidence == 'c' + expected[1:] and pair.stamp_ns == int(expected[1:]) * MS


def test_a_cloud_waits_for_a_mask_that_may_be_nearer_yet() -> None:
    pairs = pairing()
    frame(pairs, 960)
    pairs.add_cloud(1000 * MS, 'cloud', 0.0)
    assert settled(pairs, 0.29) == []
    frame(pairs, 1010)
    assert settled(pairs, 0.29) == [('cloud', 'm1010')]
    assert pairs.waiting_count == 0


def test_when_the_waiting_ends_the_nearest_there_is_taken() -> None:
    pairs = pairing()
    pairs.add_cloud(1000 * MS, 'cloud', 5.0)
    frame(pairs, 960)
    assert settled(pairs, 5.29) == []
    assert settled(pairs, 5.3) == [('cloud', 'm960')]


def test_without_a_mask_the_waiting_ends_with_a_reason() -> None:
    pairs = pairing()

    def reason() -> str:
        pairs.add_cloud(1000 * MS, 'cloud', 0.0)
        assert pairs.settle(0.29) == []
        ((_, pair, text),) = pairs.settle(0.31)
        assert pair is None
        return text

    assert reason() == 'no mask has come'
    pairs.add_mask(1000 * MS, 'm')
    assert reason() == 'no confidence has come'
    pairs.add_confidence(999 * MS, 'c')
    assert reason() == 'no mask and confidence of one stamp'
    pairs.add_mask(1100 * MS, 'm')
    pairs.add_mask(900 * MS, 'm')
    assert 'no mask within 0.05 s' in reason() and '-0.100 s off' in reason()


def test_a_mask_without_its_confidence_is_not_taken() -> None:
    pairs = pairing()
    frame(pairs, 970)
    pairs.add_mask(1000 * MS, 'm1000')
    pairs.add_cloud(1000 * MS, 'cloud', 0.0)
    assert settled(pairs, 0.1) == []
    pairs.add_confidence(1000 * MS, 'c1000')
    assert settled(pairs, 0.1) == [('cloud', 'm1000')]


def test_clouds_leave_in_the_order_in_which_they_came() -> None:
    pairs = pairing()
    pairs.add_cloud(1000 * MS, 'first', 0.0)
    pairs.add_cloud(1100 * MS, 'second', 0.1)
    frame(pairs, 1100)
    assert settled(pairs, 0.1) == [('first', None), ('second', 'm1100')]


def test_no_waiting_takes_what_is_there() -> None:
    pairs = pairing(wait_s=0.0)
    frame(pairs, 980)
    pairs.add_cloud(1000 * MS, 'a', 7.0)
    pairs.add_cloud(2000 * MS, 'b', 7.0)
    assert settled(pairs, 7.0) == [('a', 'm980'), ('b', None)]


def test_what_else_is_missing_is_waited_for_too() -> None:
    pairs = pairing()
    frame(pairs, 1000)
    pairs.add_cloud(1000 * MS, 'cloud', 0.0)
    assert pairs.settle(0.1, lambda cloud: False) == []
    assert len(pairs.settle(0.1, lambda cloud: True)) == 1
    pairs.add_cloud(1000 * MS, 'cloud', 0.0)
    assert len(pairs.settle(0.3, lambda cloud: False)) == 1


def test_memory_is_bounded() -> None:
    pairs = pairing()
    for i in range(3 * KEPT_FRAMES):
        frame(pairs, 100 * i)
    assert len(pairs._masks) == len(pairs._confidences) == KEPT_FRAMES
    for i in range(WAITING_CLOUDS + 5):
        pairs.add_cloud(10**9 * MS, str(i), 0.0)
    assert [cloud for cloud, _ in settled(pairs, 0.0)] == ['0', '1', '2', '3', '4']
    assert pairs.waiting_count == WAITING_CLOUDS


def test_a_bag_that_begins_again_leaves_no_mask_behind() -> None:
    pairs = pairing()
    for stamp_ms in (5000, 5100, 5200):
        frame(pairs, stamp_ms)
    pairs.add_cloud(1000 * MS, 'cloud', 0.0)
    assert settled(pairs, 0.1) == []  # old masks do not end its waiting
    frame(pairs, 1020)
    assert settled(pairs, 0.1) == [('cloud', 'm1020')]
    assert list(pairs._masks) == [1020 * MS]
