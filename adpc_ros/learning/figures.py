# SPDX-License-Identifier: Apache-2.0
"""Figures of an evaluation: accuracy against cost, and confidence against accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adpc_ros.learning.metrics import Reliability

_EDGE_IN = 4.0  # of one plot, in inches


class Curve(NamedTuple):
    """A point for each exit: ``cost`` in the unit of the axis, ``miou`` 0 to 1."""

    cost: Sequence[float]
    miou: Sequence[float]


def save_accuracy(path: Path, curves: Mapping[str, Curve], cost: str) -> None:
    """
    Plot mean IoU over what it costs, in the form of the paper's figure 3.

    :param curves: by the name of the network.
    :param cost: names the horizontal axis, with its unit.
    """
    figure = Figure(figsize=(1.5 * _EDGE_IN, _EDGE_IN), layout='constrained')
    axes = figure.add_subplot()
    _plot(axes, curves, cost)
    axes.set_xlim(left=0)
    figure.savefig(path)


def save_panels(path: Path, panels: Mapping[str, Mapping[str, Curve]], cost: str) -> None:
    """
    Plot mean IoU over what it costs in several panels, in the form of the paper's figure 5.

    :param panels: by title, the curves by their names.
    :param cost: names the horizontal axes, with the unit.
    """
    figure = Figure(figsize=(1.5 * _EDGE_IN * len(panels), _EDGE_IN), layout='constrained')
    for i, (title, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), i + 1)
        _plot(axes, curves, cost)
        axes.set_title(title)
    figure.savefig(path)


def _plot(axes: Axes, curves: Mapping[str, Curve], cost: str) -> None:
    for name, curve in curves.items():
        axes.plot(curve.cost, [100 * m for m in curve.miou], 'o-', label=name)
    axes.set_xlabel(cost)
    axes.set_ylabel('mean IoU, %')
    axes.grid(alpha=0.3)
    axes.legend()


def save_reliability(path: Path, reliability: Sequence[Reliability]) -> None:
    """Plot each exit's accuracy over its confidence, in 15 bins; the shares of pixels in grey."""
    figure = Figure(figsize=(_EDGE_IN * len(reliability), _EDGE_IN), layout='constrained')
    for i, counts in enumerate(reliability):
        axes = figure.add_subplot(1, len(reliability), i + 1)
        bins = [b for b in counts.bins() if b.share]
        axes.plot([0, 1], [0, 1], ':', color='black')
        axes.bar(
            [b.confidence for b in bins], [b.share for b in bins], 0.05, color='0.85', zorder=0
        )
        axes.plot([b.confidence for b in bins], [b.accuracy for b in bins], 'o-')
        axes.set_title(f'exit {i + 1}: ECE {100 * counts.ece():.1f} %')
        axes.set_xlabel('confidence')
        axes.set_ylabel('share of right pixels')
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
    figure.savefig(path)
