# SPDX-License-Identifier: Apache-2.0
"""Masks that are predicted from features are learnt softly and used as ones and zeros."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import random_image, random_network
from shared import ROOT

from adpc_ros.labels import CAMVID
from adpc_ros.learning.config import TrainConfig, read_config
from adpc_ros.network import checkpoint
from adpc_ros.network.adaptivity import Adaptivity, Criterion, MaskedConv2d, active_positions
from adpc_ros.network.anytime import TrainingStep
from adpc_ros.network.exits import Heads
from adpc_ros.network.families import NetworkConfig, build_network, with_adaptivity
from adpc_ros.network.layers import resize
from adpc_ros.network.macs import count_frame, count_shares
from adpc_ros.network.sampling import PredictedMap, SampledHRNet, SoftMap, logistic_noise
from adpc_ros.runtime.images import render, to_input
from adpc_ros.runtime.make_plan import make_plan
from adpc_ros.runtime.network_plan import NetworkPlan

MASKS = Adaptivity(Criterion.PREDICTED)
NAME = 'hrnet_tiny_sampled'


def sampled(seed: int = 0) -> SampledHRNet:
    network = random_network(seed, adaptivity=MASKS, architecture=NAME)
    assert isinstance(network, SampledHRNet)
    with torch.no_grad():  # half of the positions after each exit
        for index in (1, 2, 3):
            features = list(network.exits(random_image(64, 96)))[index - 1].features
            middle = network.predict(index, features).median()
            network.get_parameter(f'mask{index}.bias').sub_(middle)
    return network


def test_a_soft_map_mixes_what_is_computed_with_the_interpolation() -> None:
    generator = torch.Generator().manual_seed(0)
    x, logits = (torch.randn(1, c, 6, 8, generator=generator).double() for c in (3, 1))
    conv = MaskedConv2d(3, 4, 3, bias=True, window=5).double()
    soft = SoftMap(logits, torch.zeros_like(logits), 0.5)
    m = 1 / (1 + (-2 * logits).exp())
    f = m * conv(x)
    row = torch.exp(-9.0 * torch.arange(-2, 3).double() ** 2)
    window = torch.outer(row, row)
    window[2, 2] = 0
    total = float(window.sum()) + 1e-5
    fill = torch.nn.functional.conv2d(f.transpose(0, 1), window[None, None] / total, padding=2)
    expected = f + (1 - m) * fill.transpose(0, 1)
    torch.testing.assert_close(conv(x, soft), expected, rtol=1e-6, atol=1e-9)
    half = soft.at((3, 4))
    torch.testing.assert_close(half, torch.sigmoid(2 * resize(logits, (3, 4))))
    assert soft.share((3, 4)) == pytest.approx(half.mean().item())


def test_at_the_last_temperature_soft_masks_are_nearly_those_of_inference() -> None:
    logits = 4 * torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    hard, soft = PredictedMap(logits, 0.5), SoftMap(logits, torch.zeros_like(logits), 0.03)
    for size in ((16, 16), (8, 8), (4, 4)):
        clear = resize(logits, size).abs() > 0.3
        assert clear.float().mean() > 0.7
        difference = (soft.at(size) - hard.at(size).float()).abs()
        assert difference[clear].max() < 1e-4


def test_the_noise_of_an_image_depends_on_its_seed_alone_and_is_logistic() -> None:
    def draw(*seeds: int) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return logistic_noise(torch.empty(len(seeds), 1, 64, 64), generators)

    assert torch.equal(draw(3, 5)[1], draw(5)[0])
    assert not torch.equal(draw(3), draw(5))
    noise = draw(*range(8))
    assert noise.mean() == pytest.approx(0.0, abs=0.05)
    assert noise.var().item() == pytest.approx(math.pi**2 / 3, rel=0.05)


def test_masks_are_logits_at_least_0_and_nothing_is_carried_over() -> None:
    network = sampled()
    with torch.inference_mode():
        exits = list(network.exits(random_image(64, 96)))
        for before, out in zip(exits, exits[1:]):
            logits = network.predict(before.exit_index, before.features)
            assert logits.shape == (1, 1, 16, 24)
            assert out.active is before.next_active is not None
            for size in ((16, 24), (8, 12), (4, 6)):
                assert torch.equal(out.active.at(size), resize(logits, size) >= 0)
            assert 0.05 < out.active.share((16, 24)) < 0.95
            assert out.logits is out.raw_logits
        dense = list(network.exits(random_image(64, 96), adaptive=False))
    assert all(out.active is None for out in dense)
    assert not torch.equal(dense[-1].logits, exits[-1].logits)


def test_predictions_that_overflow_give_no_mask() -> None:
    network = sampled()
    weight = network.get_parameter('mask2.weight').data
    weight.fill_(3e38)[:, ::2] *= -1
    segmentation = make_plan(network).segment(np.full((64, 96, 3), 99, np.uint8))
    exits = (done for done in segmentation if done is not None)
    assert next(exits).exit_index == 1
    with pytest.raises(ValueError, match='exit 2: expected finite class scores'):
        next(exits)


def test_the_threshold_is_the_probability_from_which_on_a_position_is_computed() -> None:
    logits = torch.tensor([-2.0, 0.0, 2.0]).view(1, 1, 1, 3)
    for threshold, active in ((0.0, 3), (0.1, 3), (0.5, 2), (0.8, 1), (0.9, 0), (1.0, 0)):
        assert int(PredictedMap(logits, threshold).at((1, 3)).sum()) == active


@pytest.mark.parametrize('done', [0.0, 0.5, 1.0])
def test_the_penalty_is_the_share_that_is_computed_late_exits_more(
    done: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        'adpc_ros.network.sampling.logistic_noise', lambda like, _: torch.zeros_like(like)
    )
    network = build_network(NetworkConfig(NAME, class_count=11, adaptivity=MASKS))
    learnt = network.learn(random_image(64, 96), True, TrainingStep(0, (1,), done=done))
    share = 1 / (1 + math.exp(-3.0 / 0.03**done))  # of a weight of 0 and a bias of 3
    expected = (1 / 3 + 2 / 3 + 1) * share
    assert learnt.penalty.item() == pytest.approx(expected, rel=1e-5)
    assert [tuple(o.shape) for o in learnt.outputs] == [(1, 11, 16, 24)] * 4
    for without in (
        network.learn(random_image(64, 96), False),
        network.learn(random_image(64, 96)),
    ):
        assert without.penalty == 0.0


def test_gradients_of_the_penalty_and_of_the_losses_reach_the_predictors() -> None:
    network = sampled().train()
    learnt = network.learn(
        random_image(64, 96).expand(2, -1, -1, -1), True, TrainingStep(0, (1, 2))
    )
    for what in (learnt.penalty, learnt.outputs[-1].square().mean()):
        network.zero_grad()
        torch.autograd.backward(what, retain_graph=True)
        for index in (1, 2, 3):
            predictor = network.get_submodule(f'mask{index}')
            assert isinstance(predictor, MaskedConv2d) and predictor.bias is not None
            for parameter in (predictor.weight, predictor.bias):
                assert parameter.grad is not None and parameter.grad.abs().max() > 0


@pytest.mark.parametrize('adaptive', [True, False], ids=['masks_on', 'masks_off'])
def test_the_plan_gives_what_the_network_gives(adaptive: bool) -> None:
    network = sampled()
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    plan = make_plan(network)
    assert isinstance(plan, NetworkPlan)
    image = to_input(picture, network.config, torch.device('cpu'))
    with torch.inference_mode():
        expected = list(network.exits(image, adaptive))
    macs, shares = count_frame(network, image, adaptive)
    exits = [done for done in plan.segment(picture, adaptive) if done is not None]
    assert torch.equal(plan.logits(), expected[-1].logits)
    assert [done.macs for done in exits] == macs
    assert [done.active_share for done in exits[:-1]] == pytest.approx(shares[1:])
    assert (min(shares) < 0.95) == adaptive


def test_published_confidence_is_calibrated_by_the_exit_that_predicts_anew() -> None:
    temperatures = (2.0, 1.5, 1.2, 0.5)
    network = sampled()
    network.config = dataclasses.replace(network.config, temperatures=temperatures)
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    plan = make_plan(network)
    exits = 0
    for done in plan.segment(picture):
        if done is not None:
            exits += 1
            scores = plan.logits() / temperatures[exits - 1]
            _, mean = render(scores, (64, 96), 4)
            assert done.mean_confidence == pytest.approx(mean, abs=1e-4)
    assert exits == 4


def test_what_is_masked_counts_as_elsewhere_and_the_predictors_in_full() -> None:
    masked = (0.2, 0.4, 0.6)
    plain = NetworkConfig('hrnet_tiny', class_count=11, adaptivity=Adaptivity())
    config = NetworkConfig(NAME, class_count=11, adaptivity=MASKS)
    widths = np.cumsum([32, 4 + 8, 4 + 8 + 16, 0]).tolist()
    expected = count_shares(plain, (64, 96), masked)
    expected = [n + 9 * width * 16 * 24 for n, width in zip(expected, widths)]
    assert count_shares(config, (64, 96), masked) == expected
    assert count_shares(config, (64, 96)) == count_shares(plain, (64, 96)), 'none is needed'


def test_other_masks_are_refused_here_and_these_elsewhere() -> None:
    with pytest.raises(ValueError, match=r'tiny_sampled: expected criterion predicted, got ent'):
        NetworkConfig(NAME, adaptivity=Adaptivity(Criterion.ENTROPY))
    with pytest.raises(ValueError, match='expected criterion max_probability.*got predicted'):
        NetworkConfig('hrnet_tiny', adaptivity=MASKS)
    with pytest.raises(ValueError, match=r'in \[0, 1.0\] for predicted'):
        Adaptivity(Criterion.PREDICTED, (1.5,))
    with pytest.raises(ValueError, match='class scores do not say'):
        active_positions(torch.zeros(1, 2, 1, 1), Criterion.PREDICTED, 0.5)


def test_weights_are_kept_with_their_predictors(tmp_path: Path) -> None:
    network = sampled(3)
    checkpoint.save(tmp_path / 'w.safetensors', network, CAMVID, {})
    loaded = checkpoint.load(tmp_path / 'w.safetensors').network
    image = random_image(64, 96)
    with torch.inference_mode():
        for a, b in zip(loaded(image), network(image)):
            assert torch.equal(a, b)
    wide = with_adaptivity(network, Adaptivity(Criterion.PREDICTED, (0.5,), 9))
    assert torch.equal(wide.get_parameter('mask2.weight'), network.get_parameter('mask2.weight'))


@pytest.mark.parametrize('heads', [Heads.REDESIGNED, Heads.NONE])
def test_without_masks_it_is_hrnet(heads: Heads) -> None:
    network, plain = (
        build_network(NetworkConfig(name, heads, 11)).eval() for name in (NAME, 'hrnet_tiny')
    )
    network.load_state_dict(plain.state_dict())
    image = random_image(64, 96)
    with torch.inference_mode():
        for a, b in zip(network(image), plain(image), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'sparsity_weight': -1.0}, 'expected sparsity_weight of at least 0'),
        ({'network': {'architecture': 'hrnet_tiny'}}, 'expected null for hrnet_tiny, got 0.5'),
        ({'network': {'architecture': NAME}}, 'with adaptivity: expected null for hrnet_tiny_s'),
    ],
)
def test_a_weight_of_sparsity_is_for_these_networks(changes: dict[str, Any], message: str) -> None:
    network = {'architecture': NAME, 'adaptivity': {'criterion': 'predicted'}}
    values = {'network': network, 'sparsity_weight': 0.5, 'epochs': 1}
    values |= {'data': 'camvid:D', 'validation': 'camvid:D', 'output': 'O'}
    assert TrainConfig(**values).sparsity_weight == 0.5
    with pytest.raises(ValueError, match=message):
        TrainConfig(**values | changes)


@pytest.mark.parametrize('name', ['cityscapes_w48_sampled', 'camvid_sampled'])
def test_the_recipes_are_the_papers(name: str) -> None:
    config = read_config(ROOT / 'config' / 'train' / f'{name}.yaml')
    assert config.exit_weights == (0.5, 0.5, 0.5, 1.0) and config.adaptive_from == 0
    network = checkpoint.config_from_dict(config.network)
    assert network.architecture.endswith('_sampled')
    assert network.adaptivity == Adaptivity(Criterion.PREDICTED, (0.5,) * 3)
