# SPDX-License-Identifier: Apache-2.0
"""
Confidence adaptivity: which positions are still computed, and what stands in at the others.

Source: arXiv:2104.00749, section 3.3; where the paper and its released code differ, the code.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

WINDOWS = (3, 5, 7, 9)
_CENTRE_SQUARE_DISTANCE = 1e5  # takes the centre of the window out of its own average
_NORMALISER_EPS = 1e-5


class Criterion(str, enum.Enum):
    """What makes a position confident enough to be skipped by later exits."""

    MAX_PROBABILITY = 'max_probability'
    ENTROPY = 'entropy'
    TOP_K = 'top_k'  # a given share of the positions, the most confident ones
    RANDOM = 'random'  # a given share, drawn once for each size: always the same positions
    PEAK_RESPONSE = 'peak_response'  # of heat maps: the largest one
    PREDICTED = 'predicted'  # by the network, from an exit's features

    @property
    def by_share(self) -> bool:
        """Whether the thresholds are shares of all positions, which are masked."""
        return self in (Criterion.TOP_K, Criterion.RANDOM)

    @property
    def by_class(self) -> bool:
        """Whether each class may have a threshold of its own."""
        return self in (Criterion.MAX_PROBABILITY, Criterion.ENTROPY)


_THRESHOLDS = {  # the paper's
    Criterion.MAX_PROBABILITY: 0.998,
    Criterion.ENTROPY: 0.998,
    Criterion.PEAK_RESPONSE: 0.002,
    Criterion.PREDICTED: 0.5,
}


@dataclass(frozen=True)
class Adaptivity:
    """
    Settings of confidence adaptivity.

    :param criterion: what is compared with the thresholds.
    :param thresholds: one for each exit but the last, or a single one for all of them. Maximum
        probability: in [0, 1], 1.0 skips nothing. Entropy: in nats, at least 0, 0.0 skips nothing.
        Top k and random: the share of all positions, in [0, 1], that is masked after the exit,
        those masked before it included; 0.0 skips nothing. Peak response: any number, one below
        all responses skips nothing. Predicted: the probability that a position is worth computing,
        in [0, 1], 0.0 skips nothing. None for 0.998, peak response 0.002, predicted 0.5; top k and
        random need them.
    :param window: edge of the interpolation window in cells, one of 3, 5, 7, 9.
    :param class_thresholds: for each exit but the last one threshold for each class, in place of
        ``thresholds``: a position is judged by that of its predicted class (arXiv:2210.15621).
        Empty: ``thresholds`` hold for all classes. With maximum probability and entropy alone.
    :raises ValueError: if a value is outside its range, or missing.
    """

    criterion: Criterion = Criterion.MAX_PROBABILITY
    thresholds: tuple[float, ...] = None  # type: ignore[assignment]  # set on construction
    window: int = 7
    class_thresholds: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, 'criterion', Criterion(self.criterion))
        given: tuple[float, ...] | None = self.thresholds
        if given is None:
            if self.criterion.by_share:
                raise ValueError(
                    f'expected thresholds for {self.criterion.value}: the shares that are masked'
                )
            given = (_THRESHOLDS[self.criterion],)
        object.__setattr__(self, 'thresholds', tuple(float(t) for t in given))
        by_class = tuple(tuple(float(t) for t in each) for each in self.class_thresholds)
        object.__setattr__(self, 'class_thresholds', by_class)
        if self.class_thresholds and not self.criterion.by_class:
            raise ValueError(f'class_thresholds have no meaning for {self.criterion.value}')
        lowest = -math.inf if self.criterion is Criterion.PEAK_RESPONSE else 0.0
        unlimited = self.criterion in (Criterion.ENTROPY, Criterion.PEAK_RESPONSE)
        limit = math.inf if unlimited else 1.0
        for values in (self.thresholds, *self.class_thresholds):
            if not all(math.isfinite(t) and lowest <= t <= limit for t in values):
                raise ValueError(
                    f'expected thresholds in [{lowest:g}, {limit}] for {self.criterion.value}, '
                    f'got {values}'
                )
        if self.window not in WINDOWS:
            raise ValueError(f'expected a window of {WINDOWS}, got {self.window}')

    def for_network(self, exit_count: int, class_count: int) -> Adaptivity:
        """
        Give the settings with one threshold for each exit but the last.

        :raises ValueError: if their number does not fit a network of so many exits and classes.
        """
        count = exit_count - 1
        thresholds = self.thresholds * count if len(self.thresholds) == 1 else self.thresholds
        if len(thresholds) != count:
            raise ValueError(
                f'expected {count} thresholds (exits 1 to {count}), got {self.thresholds}'
            )
        shape = [len(each) for each in self.class_thresholds]
        if shape not in ([], [class_count] * count):
            raise ValueError(
                f'expected class_thresholds of {count} exits with {class_count} classes each, '
                f'got {shape}'
            )
        return dataclasses.replace(self, thresholds=thresholds)

    @property
    def described(self) -> str:
        """What rules the masks, for people."""
        values = self.thresholds[:1] if len(set(self.thresholds)) == 1 else self.thresholds
        shown = '/'.join(f'{t:g}' for t in values)
        if self.class_thresholds:
            flat = [t for each in self.class_thresholds for t in each]
            shown = f'{min(flat):g} to {max(flat):g} by class'
        return f'{self.criterion.value} {shown}, window {self.window}'

    def thresholds_of(self, exit_index: int) -> float | tuple[float, ...]:
        """Give what holds at an exit: one threshold, or one for each class."""
        chosen = self.class_thresholds or self.thresholds
        return chosen[exit_index - 1]


def confidence(logits: Tensor) -> Tensor:
    """
    Give the top softmax probability.

    :param logits: (B, K, H, W) float, class scores.
    :return: (B, H, W) float in [0, 1].
    """
    return functional.softmax(logits, dim=1).amax(dim=1)


def entropy(logits: Tensor) -> Tensor:
    """
    Give the entropy of the softmax distribution; a probability that underflows adds nothing.

    :param logits: (B, K, H, W) float, class scores.
    :return: (B, H, W) float in nats, 0 to log(K).
    """
    log_p = functional.log_softmax(logits, dim=1)
    p = log_p.exp()
    return -torch.where(p > 0, p * log_p, torch.zeros_like(p)).sum(dim=1)


def active_positions(
    logits: Tensor,
    criterion: Criterion,
    threshold: float | Sequence[float],
    before: ActiveMap | None = None,
) -> Tensor:
    """
    Mark the positions that the next stage must still compute.

    A position is active while its confidence is at most ``threshold`` (its entropy, or the
    largest of its responses, at least). By top k and at random, ``threshold`` is the share of all
    positions that is masked: first those that were masked before, then the most confident ones,
    or those that come first in an order that is drawn once for each size. It is the same in every
    call, in training and in all plans. Of equal ones the first in the image is masked first. Masks
    are nested: what was masked before stays so.

    :param logits: (B, K, H, W) float, class scores before softmax, or heat maps, after carry-over.
    :param criterion: what is compared with the threshold.
    :param threshold: see :class:`Adaptivity`; one for each class: that of the predicted one holds.
    :param before: what this exit computed; None for everything.
    :return: (B, 1, H, W) bool, True where the next stage computes.
    :raises ValueError: for a criterion that is not of scores.

    Source: arXiv:2104.00749, equation 2 and figure 5; equality is active, as in the released code.
    """
    with torch.no_grad():
        size = (logits.shape[2], logits.shape[3])
        candidates = None if before is None else before.at(size)
        if criterion is Criterion.PREDICTED:
            raise ValueError('class scores do not say what a network predicts from features')
        if criterion.by_share:
            assert isinstance(threshold, float)
            order = _random_order(logits) if criterion is Criterion.RANDOM else confidence(logits)
            positions = _all_but_share(order, threshold, candidates)
        else:
            limit = logits.new_tensor(threshold, dtype=torch.float32)
            if limit.dim():
                limit = limit[logits.argmax(dim=1)]
            if criterion is Criterion.ENTROPY:
                positions = (entropy(logits) >= limit).unsqueeze(1)
            elif criterion is Criterion.PEAK_RESPONSE:
                positions = logits.amax(dim=1, keepdim=True).float() >= limit
            else:
                positions = (confidence(logits) <= limit).unsqueeze(1)
        return positions if candidates is None else positions & candidates


def _random_order(logits: Tensor) -> Tensor:
    """Give a (B, H, W) float order of the positions that depends on their size alone."""
    batch, _, height, width = logits.shape
    order = torch.randperm(height * width, generator=torch.Generator().manual_seed(0))
    return order.to(logits.device, torch.float32).view(1, height, width).expand(batch, -1, -1)


def _all_but_share(order: Tensor, share: float, candidates: Tensor | None) -> Tensor:
    """
    Mark all positions but a share, rounded to whole ones.

    :param order: (B, H, W) float; the highest are left out first, of equal ones the first.
    :param candidates: (B, 1, H, W) bool; the others are left out before any of these.
    :return: (B, 1, H, W) bool.
    """
    if candidates is not None:
        order = order.masked_fill(~candidates.squeeze(1), math.inf)
    flat = order.flatten(1)
    count = round(share * flat.shape[1])
    first = flat.argsort(dim=1, descending=True, stable=True)[:, :count]
    marked = torch.ones_like(flat, dtype=torch.bool).scatter_(1, first, False)
    return marked.view_as(order).unsqueeze(1)


class ActiveMap:
    """
    The active positions of one exit, at the resolution that each layer needs.

    A value that is passed along with the features; it lives for one call.
    """

    def __init__(self, active: Tensor) -> None:
        """
        Hold the map at the resolution of the exit.

        :param active: (B, 1, H, W) bool, True where later stages compute.
        :raises ValueError: if it is not a boolean tensor of four dimensions.
        """
        if active.dtype != torch.bool or active.dim() != 4 or active.shape[1] != 1:
            raise ValueError(
                f'expected a (B, 1, H, W) bool tensor, got {tuple(active.shape)} {active.dtype}'
            )
        self._at = {(active.shape[2], active.shape[3]): active}
        self._shares: dict[tuple[int, int], float] = {}
        self._full = active

    def at(self, size: tuple[int, int]) -> Tensor:
        """
        Give the map at a size, by nearest resize (equal to resizing the logits).

        :param size: (H, W) in cells.
        :return: (B, 1, H, W) bool.
        """
        if size not in self._at:
            self._at[size] = self._resized(size)
        return self._at[size]

    def _resized(self, size: tuple[int, int]) -> Tensor:
        return functional.interpolate(self._full.to(torch.uint8), size, mode='nearest').bool()

    def share(self, size: tuple[int, int]) -> float:
        """Give the share of active positions at a size, 0 to 1."""
        if size not in self._shares:
            self._shares[size] = self.at(size).float().mean().item()
        return self._shares[size]


def square_distances(window: int) -> Tensor:
    """Give the (window, window) float squared distances to the centre, which is set far away."""
    reach = torch.arange(window, dtype=torch.float32) - window // 2
    distances = reach[:, None] ** 2 + reach[None, :] ** 2
    distances[window // 2, window // 2] = _CENTRE_SQUARE_DISTANCE
    return distances


def fill_taps(lam: Tensor, square_dis: Tensor) -> Tensor:
    """
    Give the interpolation weights of inactive positions as one factor of a separable window.

    The weight at offset (dy, dx) is ``taps[dy] * taps[dx]``: a radial basis function, normalised
    over the whole window without its centre. An inactive position adds nothing to its own
    average, so that the centre need not be left out.

    :param lam: () float, the trained inverse length (lambda), in 1/cells.
    :param square_dis: (k, k) float from :func:`square_distances`.
    :return: (k,) float.

    Source: arXiv:2104.00749, equation 4; normalised as in the released code.
    """
    normaliser = torch.exp(-(lam**2) * square_dis).sum() + _NORMALISER_EPS
    middle = square_dis.shape[0] // 2
    along = square_dis[middle].clone()
    along[middle] = 0.0
    return torch.exp(-(lam**2) * along) / normaliser.sqrt()


def interpolate_inactive(y: Tensor, active: Tensor, taps: Tensor) -> Tensor:
    """
    Replace inactive positions by the weighted average of the active ones around them.

    Nothing is renormalised: inactive neighbours and those beyond the border count as zeros.

    :param y: (B, C, H, W) float, what the convolution gave.
    :param active: (B, 1, H, W) bool, True where ``y`` is kept; or float in [0, 1], how much of it.
    :param taps: (k,) float from :func:`fill_taps`.
    :return: (B, C, H, W) float.
    """
    keep = active.to(y.dtype)
    kept = y * keep
    channels, window = y.shape[1], taps.shape[0]
    if active.is_floating_point():  # what is kept in part must not come into its own average
        others = torch.ones_like(torch.outer(taps, taps))
        others[window // 2, window // 2] = 0.0
        weight = (torch.outer(taps, taps) * others).to(y.dtype).expand(channels, 1, -1, -1)
        fill = functional.conv2d(kept, weight, padding=window // 2, groups=channels)
        return kept + fill * (1 - keep)
    column = taps.to(y.dtype).view(1, 1, window, 1).expand(channels, 1, window, 1)
    fill = functional.conv2d(kept, column, padding=(window // 2, 0), groups=channels)
    row = column.transpose(2, 3)
    fill = functional.conv2d(fill, row, padding=(0, window // 2), groups=channels)
    return kept + fill * (1 - keep)


class MaskedConv2d(nn.Conv2d):
    """
    A convolution that can be restricted to active positions.

    With an active map its output is the convolution where active and the interpolated fill
    elsewhere; without one it is a plain convolution.
    """

    Lambda: nn.Parameter  # these two only with a window; names as in the released checkpoints
    square_dis: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        bias: bool = False,
        window: int | None = None,
        groups: int = 1,
    ) -> None:
        """
        Build the layer; the output has ceil(H / stride) x ceil(W / stride) cells.

        :param window: edge of the interpolation window; None for a layer that is never masked
            and has no interpolation parameter.
        :param groups: 1, or the number of channels for a depthwise convolution.
        """
        super().__init__(
            *(in_channels, out_channels, kernel_size, stride),
            padding=(kernel_size - 1) // 2,
            groups=groups,
            bias=bias,
        )
        if window is not None:
            self.Lambda = nn.Parameter(torch.tensor(3.0))
            self.register_buffer('square_dis', square_distances(window))

    @property
    def window_cells(self) -> int:
        """Number of cells of the interpolation window; 0 for a layer that is never masked."""
        return self.square_dis.numel() if 'square_dis' in self._buffers else 0

    def forward(self, x: Tensor, active: ActiveMap | None = None) -> Tensor:
        """
        Convolve, and interpolate where not active.

        :param x: (B, C, H, W) float.
        :param active: what to compute; None computes everything.
        :return: (B, C', H', W') float.
        """
        if self.groups > 1 and x.device.type == 'cpu' and torch.is_autocast_enabled('cpu'):
            # There its gradient takes several times as long in bfloat16 as in float32.
            with torch.autocast(x.device.type, enabled=False):
                y = super().forward(x.to(self.weight.dtype))
        else:
            y = super().forward(x)
        if active is None:
            return y
        here = active.at((y.shape[2], y.shape[3]))
        return interpolate_inactive(y, here, fill_taps(self.Lambda, self.square_dis))


class MaskedSequential(nn.Sequential):
    """A sequence that hands the active map to the layers that take one."""

    def forward(self, x: Tensor, active: ActiveMap | None = None) -> Tensor:
        """Apply the layers in turn; shapes as in the layers."""
        for layer in self:
            masked = isinstance(layer, (MaskedConv2d, MaskedSequential))
            x = layer(x, active) if masked else layer(x)
        return x
