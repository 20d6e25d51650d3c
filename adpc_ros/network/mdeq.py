# SPDX-License-Identifier: Apache-2.0
"""
The multiscale deep equilibrium network: one layer applied until nothing changes any more.

A state of four branches, at 1/4 to 1/32, is the root of g(z) = f(z, image) - z, which Broyden's
method approaches; an exit decodes what the iterations have found so far. Names of modules and
parameters are those of the released checkpoints.
Sources: arXiv:2006.08656 and https://github.com/locuslab/mdeq (the solver as of March 2021, when
the sign of its first step was mended); arXiv:2104.00749, table 6, for the exits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from adpc_ros.network.adaptivity import ActiveMap
from adpc_ros.network.anytime import AnytimeNetwork, Exit, TrainingStep
from adpc_ros.network.broyden import implicit_gradient
from adpc_ros.network.exits import Heads
from adpc_ros.network.layers import batch_norm
from adpc_ros.network.mdeq_layer import Layer, NormalisedConv2d, Problem

if TYPE_CHECKING:
    from adpc_ros.network.families import NetworkConfig

_UNROLLED = 3  # evaluations of f, before training takes the equilibrium
_INITIAL_STD = 0.01


@dataclass(frozen=True)
class Sizes:
    """
    Sizes of one network.

    :param name: as on the command line.
    :param widths: channels of the branches at 1/4, 1/8, 1/16 and 1/32.
    :param expansion: inner channels of a branch's block for each of its own.
    :param dropout: share of channels that are 0 in training.
    :param forward_iterations: of the solver in training.
    :param backward_iterations: of the solver for the gradient.
    """

    name: str
    widths: tuple[int, ...]
    expansion: int
    dropout: float
    forward_iterations: int
    backward_iterations: int
    exit_iterations: ClassVar[tuple[int, ...]] = (4, 6, 8, 10)
    exit_levels: ClassVar[tuple[int, ...]] = (2, 2, 2, 2)
    size_multiple: ClassVar[int] = 32  # so that branches are exact multiples of each other
    heads: ClassVar[tuple[Heads, ...]] = (Heads.PLAIN, Heads.NONE)
    unrolls: ClassVar[bool] = True


SIZES = {
    a.name: a
    for a in (
        Sizes('mdeq_small', (32, 64, 128, 256), 5, 0.05, 27, 30),
        Sizes('mdeq_xl', (88, 176, 352, 704), 6, 0.04, 26, 26),
        Sizes('mdeq_xs', (16, 32, 64, 128), 4, 0.05, 10, 10),
        Sizes('mdeq_tiny', (8, 16, 24, 32), 3, 0.05, 10, 10),
    )
}


class MDEQ(AnytimeNetwork):
    """
    The equilibrium of one layer, and an exit after some of the iterations towards it.

    No position is ever masked: there is no confidence adaptivity.
    """

    ARCHITECTURES = SIZES
    CRITERIA = ()
    HEADS = ('last_layer',)
    PRETRAINED = 'MDEQ for ImageNet of github.com/locuslab/mdeq (.pkl)'

    def __init__(self, config: NetworkConfig) -> None:
        """
        Build the network with MDEQ's initialisation.

        :param config: the configuration; kept as ``self.config``.
        """
        super().__init__(config)
        self.sizes = sizes = SIZES[config.architecture]
        width, joined = sizes.widths[0], sum(sizes.widths)
        self.downsample = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False),
            batch_norm(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False),
            batch_norm(width),
            nn.ReLU(inplace=True),
        )
        self.stage0 = nn.Sequential(
            nn.Conv2d(width, width, 1, bias=False), batch_norm(width), nn.ReLU(inplace=True)
        )
        self.fullstage = Layer(sizes.widths, sizes.expansion)
        self.last_layer = Head(joined, config.class_count)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not isinstance(module, NormalisedConv2d):
                for parameter in module.parameters():
                    if not parameter.is_meta:
                        nn.init.normal_(parameter, std=_INITIAL_STD)

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError unless each branch is half as large as the one before, exactly."""
        multiple = Sizes.size_multiple
        if height % multiple or width % multiple:
            raise ValueError(
                f'expected height and width to be multiples of {multiple}, '
                f'got {height}x{width}: pad the image'
            )

    def by_own_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Leave out the copies of f that released files have beside ``fullstage``."""
        copies = ('fullstage_copy.', 'deq.')
        return {name: value for name, value in tensors.items() if not name.startswith(copies)}

    def steps(
        self,
        image: Tensor,
        adaptive: bool = True,
        active_maps: list[ActiveMap] | None = None,
    ) -> Iterator[Exit | None]:
        """
        Yield the exits in turn, and None after the stem and each iteration of the solver.

        An exit's features are the branches of the iterate of lowest residual so far; they, and
        its class scores, are NaN from an iteration on whose residual is not finite.

        :raises ValueError: for active maps.
        """
        if active_maps is not None:
            raise ValueError(f'{self.sizes.name} masks nothing: expected no active maps')
        problem = Problem(self.fullstage, self.stage0(self.downsample(image)))
        yield None
        iterations = self.sizes.exit_iterations
        solver = problem.solver(iterations[-1])
        yield None
        for iteration in range(1, iterations[-1] + 1):
            solver.step()
            yield None
            if iteration not in iterations:
                continue
            index = iterations.index(iteration) + 1
            if self.config.has_exit(index):
                features = problem.branches(solver.best)
                logits = self.scores(features)
                yield Exit(index, logits, logits, features, None, None)

    def forward(
        self, image: Tensor, adaptive: bool = True, now: TrainingStep | None = None
    ) -> list[Tensor]:
        """
        Compute every exit, for training.

        The last exit is that of the equilibrium, as in the released code: the solver runs without
        gradient, f is applied once more with it, and what the gradient is at the equilibrium is
        solved for (:func:`~adpc_ros.network.broyden.implicit_gradient`). The earlier exits decode
        the solver's iterates as constants, with BatchNorm's running statistics: their losses
        train the head alone, and a weight of 0 leaves exactly the released training. While
        ``now.unrolled``, f is applied three times to a state of zeros, and all exits show what
        comes of that; only the last one trains.

        :param adaptive: changes nothing.
        :param now: None, or in evaluation mode, for no dropout.
        :return: the logits of each exit, (B, K, h, w) float.
        """
        self.check_image(image)
        injection = self.stage0(self.downsample(image))
        earlier = self.config.exit_count - 1
        # The solver takes differences of nearly equal numbers: it needs float32.
        with torch.autocast(image.device.type, enabled=False):
            injection = injection.to(next(self.parameters()).dtype)
            keeps = self._dropout(now, injection) if self.training and now else None
            problem = Problem(self.fullstage, injection, keeps)
            iterates: list[Tensor] = []
            if now is not None and now.unrolled:
                state = problem.start
                for _ in range(_UNROLLED):
                    state = problem.f(state)
            else:
                state, iterates = self._equilibrium(problem, earlier)
        scores = self.scores(problem.branches(state))
        if not iterates:
            return [scores.detach()] * earlier + [scores]
        # after the last exit, which changes the running statistics
        return [*(self.scores(problem.branches(z), settled=True) for z in iterates), scores]

    def _equilibrium(self, problem: Problem, earlier: int) -> tuple[Tensor, list[Tensor]]:
        """Give the equilibrium with its gradient, and the iterates of the exits before it."""
        iterations = self.sizes.forward_iterations
        with torch.no_grad():
            solver = problem.solver(iterations)
            iterates = []
            wanted = self.sizes.exit_iterations[:earlier]
            for iteration in range(1, iterations + 1):
                if solver.done:
                    break
                solver.step()
                if iteration in wanted:
                    iterates.append(solver.best)
            found = solver.best
        iterates += [found] * (earlier - len(iterates))
        after = implicit_gradient(problem.f(found), problem.f, self.sizes.backward_iterations)
        return after, iterates

    def _dropout(self, now: TrainingStep, like: Tensor) -> list[Tensor]:
        """Draw what each branch is multiplied by, (B, C, 1, 1): 0, or more than 1."""
        kept = 1 - self.sizes.dropout
        drawn = []
        for seed in now.seeds:
            generator = torch.Generator().manual_seed(seed)
            drawn.append(torch.rand(sum(self.sizes.widths), generator=generator) < kept)
        factors = (torch.stack(drawn) / kept).to(like)
        parts = torch.split(factors, list(self.sizes.widths), dim=1)
        return [part[:, :, None, None] for part in parts]

    def scores(self, branches: Sequence[Tensor], settled: bool = False) -> Tensor:
        """
        Decode branches to class scores.

        :param branches: each (B, C_i, h_i, w_i).
        :param settled: use BatchNorm's running statistics also in training.
        :return: (B, K, h_0, w_0) float.
        """
        size = (branches[0].shape[2], branches[0].shape[3])
        resized = (
            functional.interpolate(branch, size, mode='bilinear', align_corners=True)
            for branch in branches[1:]
        )
        scores: Tensor = self.last_layer(torch.cat([branches[0], *resized], dim=1), settled)
        return scores


class Head(nn.Sequential):
    """The layers that decode the joined branches."""

    def __init__(self, channels: int, classes: int) -> None:
        """Build them."""
        super().__init__(
            nn.Conv2d(channels, channels, 1),
            batch_norm(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, classes, 1),
        )

    def forward(self, x: Tensor, settled: bool = False) -> Tensor:
        """Map (B, C, h, w) to (B, K, h, w); ``settled`` as of :meth:`MDEQ.scores`."""
        for layer in self:
            if settled and isinstance(layer, nn.BatchNorm2d):
                statistics = (layer.running_mean, layer.running_var)
                x = functional.batch_norm(x, *statistics, layer.weight, layer.bias, eps=layer.eps)
            else:
                x = layer(x)
        return x
