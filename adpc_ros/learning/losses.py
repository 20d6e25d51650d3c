"""
The training loss: a cross-entropy at every exit.

Source: arXiv:2104.00749 and its released code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from adpc_ros.labels import IGNORE_ID

# fmt: off
CITYSCAPES_CLASS_WEIGHTS = (
    0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023,
    0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507,
)
# fmt: on


def exit_losses(
    logits: Sequence[Tensor], label: Tensor, class_weights: Sequence[float] | None = None
) -> list[Tensor]:
    """
    Give the cross-entropy of each exit against the full-size label.

    :param logits: of each exit, (B, K, h, w) float; upsampled bilinearly to the label's size.
    :param label: (B, H, W) int64 class ids, 255 where unlabelled (ignored).
    :param class_weights: K weights, None for equal ones.
    :return: one () float for each exit.
    """
    size = (label.shape[1], label.shape[2])
    losses = []
    for scores in logits:
        wide = scores.to(torch.promote_types(scores.dtype, torch.float32))  # autocast gives bf16
        full = functional.interpolate(wide, size, mode='bilinear', align_corners=False)
        weight = None if class_weights is None else wide.new_tensor(class_weights)
        losses.append(functional.cross_entropy(full, label, weight, ignore_index=IGNORE_ID))
    return losses
