# SPDX-License-Identifier: Apache-2.0
"""
What the paper's tables say that its systems cost, and the same systems as we build them.

The paper calls them GFLOPs: 2^30 multiply-accumulates of convolutions, cumulative over the exits.
Source: arXiv:2104.00749.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from adpc_ros.network import macs
from adpc_ros.network.adaptivity import Adaptivity, Criterion
from adpc_ros.network.exits import Heads
from adpc_ros.network.families import NetworkConfig

SIZE = (1024, 2048)
CLASSES = 19
MASKED = (0.193, 0.384, 0.630)  # mean masked share of pixels at exits 1, 2, 3 of HRNet-W48
_CONTEXT: dict[str, Any] = {'size': (480, 480), 'classes': 59}
_POSE: dict[str, Any] = {'size': (256, 256), 'classes': 16}


class Counting(enum.Enum):
    """How a system's exits are counted."""

    RUN = 'all exits of one run'
    ITERATES = 'a run for each exit'  # of MDEQ, see macs.count_iterates
    TWICE = 'a run for each exit, f twice'  # the same, as the paper's counter did


@dataclass(frozen=True)
class System:
    """
    A row of a table.

    :param table: number of the table; 0 for what only the text says.
    :param name: as the paper has it.
    :param network: architecture.
    :param heads: exit heads.
    :param exits: GiMAC up to each exit, as printed; None where the table has no figure. As many
        as the network has exits.
    :param mean: over the exits, as printed; None if it is not.
    :param size: (H, W) of the image in pixels.
    :param classes: number of classes, or joints, that it was counted with.
    :param settings: further keys of the configuration.
    :param criterion: of the system's masks; None for none.
    :param masked: shares in [0, 1] masked after each exit but the last, if they are known.
    :param counting: how the exits are counted.
    """

    table: int
    name: str
    network: str
    heads: Heads
    exits: tuple[float | None, ...]
    mean: float | None = None
    size: tuple[int, int] = SIZE
    classes: int = CLASSES
    settings: dict[str, Any] = field(default_factory=dict)
    criterion: Criterion | None = None
    masked: tuple[float, ...] | None = None
    counting: Counting = Counting.RUN

    @property
    def config(self) -> NetworkConfig:
        """The system as a network."""
        masks = None if self.criterion is None else Adaptivity(self.criterion)
        return NetworkConfig(
            self.network, self.heads, self.classes, adaptivity=masks, **self.settings
        )

    def of(self, size: tuple[int, int], classes: int) -> System:
        """Give the system for other images and classes, of which the paper says nothing."""
        nothing = (None,) * len(self.exits)
        return replace(self, size=size, classes=classes, exits=nothing, mean=None)

    def gimac(self) -> list[float] | None:
        """Count up to each exit; None where the shares that are masked are not known."""
        if self.criterion is not None and self.masked is None:
            return None
        if self.counting is Counting.RUN:
            multiple = self.config.sizes.size_multiple  # what images are padded to
            height, width = (-(-edge // multiple) * multiple for edge in self.size)
            counts = macs.count_shares(self.config, (height, width), self.masked)
        else:
            twice = self.counting is Counting.TWICE
            counts = macs.count_iterates(self.config, self.size, f_twice=twice)
        return [n / macs.GI for n in counts]


_ADPC: dict[str, Any] = {'criterion': Criterion.MAX_PROBABILITY}
_W18, _W48, _W32 = 'hrnet_w18_small_v2', 'hrnet_w48', 'pose_hrnet_w32'
_NONE, _EE, _RH = Heads.NONE, Heads.PLAIN, Heads.REDESIGNED
_BY_ITERATE: dict[str, Any] = {'counting': Counting.ITERATES}
_AS_PRINTED: dict[str, Any] = {'counting': Counting.TWICE}

SYSTEMS = (
    System(1, 'HRNet-W48', _W48, _NONE, (696.2,)),
    System(1, 'EE', _W48, _EE, (48.4, 113.4, 388.9, 722.2), 318.2),
    System(1, 'EE + RH', _W48, _RH, (41.9, 105.6, 368.0, 701.3), 304.2),
    System(1, 'ADP-C', _W48, _RH, (41.9, 93.9, 259.3, 387.1), 195.6, masked=MASKED, **_ADPC),
    System(2, 'HRNet-W32', _W32, _NONE, (9.49,), **_POSE),
    System(2, 'EE', _W32, _EE, (None, None, None, 9.51), 4.73, **_POSE),
    System(2, 'EE + RH', _W32, _RH, (None, None, None, 9.55), 4.76, **_POSE),
    System(
        2,
        'ADP-C',
        _W32,
        _RH,
        (None, None, None, 3.88),
        2.44,
        criterion=Criterion.PEAK_RESPONSE,
        **_POSE,
    ),  # fmt: skip
    System(3, 'HRNet-W18', _W18, _NONE, (71.58,)),
    System(3, 'EE', _W18, _EE, (31.44, 42.56, 59.53, 82.88)),
    System(3, 'EE + RH', _W18, _RH, (23.69, 34.74, 49.87, 73.23)),
    System(3, 'ADP-C', _W18, _RH, (23.7, 33.1, 44.9, 58.1), **_ADPC),
    System(5, 'HRNet-W48', _W48, _NONE, (76.5,), size=(480, 480)),  # counted with 19 classes
    System(5, 'EE', _W48, _EE, (5.4, 12.6, 43.1, 80.1), **_CONTEXT),
    System(
        5, 'EE + RH', _W48, _RH, (4.5, 11.4, 40.2, 77.2), settings={'head_width': 64}, **_CONTEXT
    ),
    System(
        5,
        'ADP-C',
        _W48,
        _RH,
        (4.5, 11.1, 38.1, 62.7),
        settings={'head_width': 64},
        **_CONTEXT,
        **_ADPC,
    ),  # fmt: skip
    *(
        System(6, name, network, _EE, exits, mean, **counted)
        for name, network, exits, mean in (
            ('MDEQ-Small', 'mdeq_small', (521.6, 717.9, 914.2, 1110.5), 816.0),
            ('MDEQ-XL', 'mdeq_xl', (4617.9, 6374.5, 8131.2, 9887.8), None),
        )
        for counted in (_AS_PRINTED, _BY_ITERATE)
    ),
)
CITYSCAPES = (1, 3)  # tables of HRNet there
TABLES = {
    1: 'Table 1: Cityscapes, 1024x2048, 19 classes',
    2: 'Table 2: MPII, 256x256, 16 joints',
    3: 'Table 3 and ablations: Cityscapes, 1024x2048, HRNet-W18-Small-v2',
    5: 'Table 5: PASCAL-Context, 480x480, 59 classes (HRNet-W48 counted with 19)',
    6: 'Table 6: MDEQ, 1024x2048, 19 classes, exits at iterations 4, 6, 8 and 10',
}


def printed(
    config: NetworkConfig, size: tuple[int, int], masked: Sequence[float] | None
) -> tuple[float | None, ...]:
    """
    Give what the paper says that a network costs, if it has such a system; else nothing.

    :param size: (H, W) of the image in pixels.
    :param masked: shares that are masked after each exit but the last; None for no masks.
    :return: GiMAC up to each exit.
    """
    for system in SYSTEMS:
        same = (system.size, system.masked) == (size, masked) and system.counting is Counting.RUN
        if same and replace(system.config, adaptivity=config.adaptivity) == config:
            return system.exits
    return ()
