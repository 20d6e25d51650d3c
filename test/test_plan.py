"""A plan gives what its network gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import random_image, random_network

from adpc_ros.network.adaptivity import ActiveMap, Adaptivity, Criterion
from adpc_ros.network.exits import Heads
from adpc_ros.network.macs import count_frame
from adpc_ros.runtime.plan import Plan

CASES = {
    'redesigned': dict(heads=Heads.REDESIGNED, adaptivity=Adaptivity(thresholds=(0.6,) * 3)),
    'entropy': dict(adaptivity=Adaptivity(Criterion.ENTROPY, (0.5,) * 3, window=9)),
    'plain': dict(heads=Heads.PLAIN, adaptivity=Adaptivity(thresholds=(0.6,) * 3, window=3)),
    'without_masks': dict(adaptivity=None),
    'base': dict(heads=Heads.NONE, adaptivity=None),
}
DEVICES = [
    'cpu',
    pytest.param(
        'cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
    ),
]


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('adaptive', [True, False], ids=['masks_on', 'masks_off'])
@pytest.mark.parametrize('case', CASES)
def test_every_exit_equals_the_networks(case: str, adaptive: bool, device: str) -> None:
    network = random_network(seed=0, **CASES[case]).to(device)
    image = random_image(64, 96).to(device)
    with torch.inference_mode():
        expected = list(network.exits(image, adaptive))
        got = [d for d in Plan(network, device).execute(image, adaptive) if d.logits is not None]
    assert len(got) == len(expected) == network.config.exit_count
    for done, out in zip(got, expected):
        limit = 1e-4 * out.logits.abs().max().item()
        assert (done.logits - out.logits).abs().max().item() <= limit
        if out.next_active is not None:
            share = out.next_active.share((16, 24))
            assert done.active_share == pytest.approx(share)
    if adaptive and network.config.adaptivity is not None:
        shares = [done.active_share for done in got[:-1]]
        assert all(0.05 < share < 0.95 for share in shares), 'the case must mask some positions'


def test_counted_multiplications_equal_the_networks() -> None:
    network = random_network(seed=0, **CASES['redesigned'])
    image = random_image(64, 96)
    with torch.inference_mode():
        done = [d.macs for d in Plan(network).execute(image) if d.logits is not None]
    assert done == count_frame(network, image).macs


@pytest.mark.parametrize('share', [0.0, 0.3, 1.0])
def test_injected_active_maps_rule_the_stages(share: float) -> None:
    network = random_network(seed=1, **CASES['redesigned'])
    image = random_image(64, 64)
    rng = np.random.default_rng(0)
    maps = [ActiveMap(torch.from_numpy(rng.random((1, 1, 16, 16)) < share)) for _ in range(3)]
    with torch.inference_mode():
        expected = [out.logits for out in network.exits(image, active_maps=maps)]
        got = [
            d.logits
            for d in Plan(network).execute(image, active_maps=maps)
            if d.logits is not None
        ]
    for a, b in zip(got, expected):
        assert (a - b).abs().max().item() <= 1e-4 * b.abs().max().item()


def test_nothing_is_computed_before_it_is_asked_for() -> None:
    network = random_network(seed=0, **CASES['redesigned'])
    ran: list[int] = []
    for stage in (2, 3, 4):
        module = getattr(network, f'stage{stage}')[0]
        module.register_forward_hook(lambda *_, stage=stage: ran.append(stage))
    exits = network.exits(random_image(32, 32))
    for index in (1, 2, 3, 4):
        assert next(exits).exit_index == index
        assert ran == list(range(2, index + 1))


def test_no_state_survives_between_calls() -> None:
    network = random_network(seed=0, **CASES['redesigned'])
    plan = Plan(network)
    first, second = random_image(64, 64, seed=1), random_image(64, 64, seed=2)
    with torch.inference_mode():
        alone = [d.logits for d in plan.execute(first) if d.logits is not None]
        cut = plan.execute(second)
        for _ in range(len(plan.steps) // 2):
            next(cut)
        cut.close()
        again = [d.logits for d in plan.execute(first) if d.logits is not None]
    assert all(torch.equal(a, b) for a, b in zip(alone, again))
