# SPDX-License-Identifier: Apache-2.0
"""What an evaluation on held-out images says of the exits, to go with the weights."""

from __future__ import annotations

from adpc_ros.learning.evaluate import Evaluation
from adpc_ros.network.worth import ExitTimes, Worth


def worth_of(evaluation: Evaluation, data: str) -> Worth:
    """
    Give what the exits are worth.

    :param data: describes the images that were judged.
    :return: IoU rounded to 0.0001; None for classes that no image is labelled with.
    """
    labelled = evaluation.per_image[0].sum((0, 2)) > 0
    return Worth(
        data,
        tuple(
            tuple(
                round(float(iou), 4) if occurs else None
                for iou, occurs in zip(confusion.iou(), labelled)
            )
            for confusion in evaluation.confusions
        ),
    )


def exit_times_of(evaluation: Evaluation, size: tuple[int, int], threads: int) -> ExitTimes:
    """
    Give how long the exits took, in the median.

    :param size: (H, W) of the images in pixels.
    :param threads: that computed.
    """
    until = evaluation.seconds
    return ExitTimes(
        tuple(round(late - early, 6) for early, late in zip((0.0, *until), until)),
        f'{size[0]}x{size[1]}, {evaluation.computed_by}, {threads} threads',
    )
