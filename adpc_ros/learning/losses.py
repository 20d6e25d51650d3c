# SPDX-License-Identifier: Apache-2.0
"""
The training loss: a cross-entropy at every exit, and beside it what a teacher says.

Source: arXiv:2104.00749 and its released code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from adpc_ros.labels import IGNORE_ID
from adpc_ros.network.layers import resize


def exit_losses(
    logits: Sequence[Tensor],
    label: Tensor,
    class_weights: Sequence[float] | None = None,
    total: Tensor | None = None,
) -> list[Tensor]:
    """
    Give the cross-entropy of each exit against the full-size label.

    :param logits: of each exit, (B, K, h, w) float; upsampled bilinearly to the label's size.
    :param label: (B, H, W) int64 class ids, 255 where unlabelled (ignored).
    :param class_weights: K weights, None for equal ones.
    :param total: () float, what to divide the sum over the pixels by: :func:`label_weight` of a
        larger batch that this is a part of. None for this batch's own.
    :return: one () float for each exit; 0 if nothing is labelled.
    """
    size = (label.shape[1], label.shape[2])
    if total is None:
        total = label_weight(label_counts(label, logits[0].shape[1]), class_weights)
    losses = []
    for scores in logits:
        wide = scores.to(torch.promote_types(scores.dtype, torch.float32))  # autocast gives bf16
        full = functional.interpolate(wide, size, mode='bilinear', align_corners=False)
        weight = None if class_weights is None else wide.new_tensor(class_weights)
        loss = functional.cross_entropy(
            full, label, weight, ignore_index=IGNORE_ID, reduction='sum'
        )
        losses.append(loss / total.to(loss.dtype))
    return losses


def distillation_losses(
    logits: Sequence[Tensor], soft: Tensor, total: Tensor | None = None
) -> list[Tensor]:
    """
    Give each exit's KL divergence from a teacher, at the resolution of the soft labels.

    :param logits: of each exit, (B, K, h, w) float; resized bilinearly to the soft labels' size.
    :param soft: (B, K, H, W) uint8, 0 to 255 for 0 to 1; all 0 where nothing is known (ignored).
    :param total: () positions to divide the sum by: :func:`taught_positions` of a larger batch
        that this is a part of. None for this batch's own.
    :return: one () float for each exit; 0 if no position is known.

    Source: arXiv:1503.02531, without a temperature.
    """
    wide = torch.promote_types(logits[0].dtype, torch.float32)
    target = soft.to(wide)
    target = target / target.sum(1, keepdim=True).clamp(min=1)  # rounded: their sum is near 255
    own = torch.special.xlogy(target, target).sum()
    total = taught_positions(soft) if total is None else total
    losses = []
    for scores in logits:
        log_p = functional.log_softmax(resize(scores.to(wide), (soft.shape[2], soft.shape[3])), 1)
        losses.append((own - (target * log_p).sum()) / total.clamp(min=1).to(wide))
    return losses


def taught_positions(soft: Tensor) -> Tensor:
    """Count the positions at which a teacher says anything: () int64 of (B, K, h, w) uint8."""
    return soft.amax(1).count_nonzero()


def label_counts(label: Tensor, classes: int) -> Tensor:
    """
    Count the pixels of each class.

    :param label: class ids, any shape and integer type, 255 where unlabelled.
    :return: (K,) int64, whose sums over parts of a batch are exact in any order.
    """
    return torch.bincount(label.flatten(), minlength=IGNORE_ID + 1)[:classes]


def label_weight(counts: Tensor, class_weights: Sequence[float] | None = None) -> Tensor:
    """
    Add up the class weights of all labelled pixels.

    :param counts: (K,) int64 from :func:`label_counts`.
    :param class_weights: K weights, None for equal ones.
    :return: () float64; 1 if there are none, so that one can divide by it.
    """
    weights = (1.0,) * len(counts) if class_weights is None else class_weights
    total = (counts * counts.new_tensor(weights, dtype=torch.float64)).sum()
    return torch.where(total > 0, total, torch.ones_like(total))
