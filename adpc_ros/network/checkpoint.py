# SPDX-License-Identifier: Apache-2.0
"""
Weights on disk: safetensors files that carry their own configuration.

Nothing is ever unpickled from a weights file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from adpc_ros.files import replacing
from adpc_ros.labels import CLASS_SETS, ClassSet, by_name
from adpc_ros.network.anytime import AnytimeNetwork
from adpc_ros.network.families import NetworkConfig, build_network
from adpc_ros.network.task import Task
from adpc_ros.network.tensors import COUNTER, CheckpointError, checked, read_safetensors
from adpc_ros.network.worth import ExitTimes, Worth, exit_times_from, worth_from
from adpc_ros.yaml_file import typed

__all__ = [
    *('Checkpoint', 'CheckpointError', 'config_from_dict', 'config_to_dict'),
    *('is_own', 'load', 'save'),
]

_FORMAT = 'adpc_ros 1'
_ANY = dict[str, Any]


class Checkpoint(NamedTuple):
    """
    A network as read from a file.

    ``classes`` names its outputs (of a network for poses the joints), ``identity`` is the file's
    stem and the first digits of the content's SHA-256, ``info`` says where the weights come from
    (data, result, licence); ``worth`` and ``exit_s`` are what is known of the exits, None if the
    file does not say.
    """

    network: AnytimeNetwork
    classes: ClassSet
    identity: str
    info: dict[str, str]
    worth: Worth | None = None
    exit_s: ExitTimes | None = None

    @property
    def advised_exit(self) -> int:
        """The first exit that sees vulnerable road users; 1 if the file does not say."""
        return 1 if self.worth is None else self.worth.advised_exit(self.classes)

    def said_of_exits(self) -> list[str]:
        """Say what the exits are worth, for people, in some lines."""
        if self.worth is None:
            return ['what the exits are worth is not known: the weights do not say it']
        return self.worth.described(self.classes)


def config_to_dict(config: NetworkConfig) -> dict[str, Any]:
    """Give a configuration as plain values for JSON; without head_depths that are the family's."""
    values = dataclasses.asdict(config)
    if config.head_depths is None:  # so that files are what they were before there was a choice
        del values['head_depths']
    return values


def config_from_dict(values: Mapping[str, Any]) -> NetworkConfig:
    """
    Build a configuration from plain values.

    :raises ValueError: for unknown or missing keys, and values of another type or out of range.
    """
    config: NetworkConfig = typed(values, NetworkConfig, 'network')
    return config


def save(
    path: str | Path,
    network: AnytimeNetwork,
    classes: ClassSet,
    info: Mapping[str, str],
    worth: Worth | None = None,
    exit_s: ExitTimes | None = None,
) -> None:
    """
    Write a network's parameters, statistics and configuration.

    :param path: of the file; it is replaced only once the new one is complete.
    :param classes: what the outputs stand for.
    :param info: where the weights come from: ``data``, ``result``, ``licence`` and so on.
    :param worth: of the network's exits, if it is known.
    :param exit_s: how long they take, likewise.
    :raises ValueError: if one of these is of another number of exits or classes.
    """
    _check(network.config, worth, exit_s)
    tensors = {
        name: value.detach().cpu().contiguous()
        for name, value in network.state_dict().items()
        if not name.endswith(COUNTER)
    }
    metadata = {
        'format': _FORMAT,
        'network': json.dumps(config_to_dict(network.config)),
        'classes': _described(classes),
        'info': json.dumps(dict(info)),
    }
    for key, value in (('worth', worth), ('exit_s', exit_s)):
        if value is not None:
            metadata[key] = json.dumps(dataclasses.asdict(value))
    with replacing(path) as partial:
        save_file(tensors, str(partial), metadata)


def is_own(path: str | Path) -> bool:
    """Tell whether a file is one that :func:`save` wrote, and not of tensors alone or another."""
    path = Path(path)
    if path.suffix != '.safetensors' or not path.is_file():
        return False
    try:
        with safe_open(str(path), framework='pt') as file:
            return 'format' in (file.metadata() or {}) and 'network' in file.metadata()
    except (SafetensorError, OSError):
        return False


def load(path: str | Path, task: Task | None = Task.SEGMENTATION) -> Checkpoint:
    """
    Read a network, in evaluation mode, on the CPU.

    :param task: what it must be for, None for anything.
    :raises CheckpointError: if the file is missing, broken, lacks its configuration, is of a
        network for something else, or its tensors are not exactly those of the network it
        describes, or no weights (:func:`~adpc_ros.network.tensors.checked`).
    """
    path = Path(path)
    metadata, tensors = read_safetensors(path)
    if (found := metadata.get('format')) != _FORMAT:
        other = (
            ''
            if 'network' in metadata
            else (
                f': a safetensors file of another program, with {len(tensors)} tensors'
                f'{f" as {min(tensors)}" if tensors else ""}, which the command convert may read'
            )
        )
        raise CheckpointError(
            f'{path}: expected format {_FORMAT!r} in the metadata, got {found!r}{other}'
        )
    try:
        if missing := {'network', 'classes', 'info'} - metadata.keys():
            raise ValueError(
                f'missing keys {sorted(missing)}: expected network, classes and info, '
                f'got {sorted(metadata)}'
            )
        config = config_from_dict(_value(metadata, 'network'))
        classes = _classes(metadata)
        info = {k: str(v) for k, v in typed(_value(metadata, 'info'), _ANY, 'info').items()}
        worth = worth_from(_value(metadata, 'worth')) if 'worth' in metadata else None
        exit_s = exit_times_from(_value(metadata, 'exit_s')) if 'exit_s' in metadata else None
        _check(config, worth, exit_s)
    except ValueError as error:
        raise CheckpointError(f'{path}: broken configuration in the metadata ({error})') from error
    if task is not None:
        try:
            config.check_task(task)
        except ValueError as error:
            raise CheckpointError(f'{path}: {error}') from error
    if classes.count != config.class_count:
        raise CheckpointError(
            f'{path}: the network has {config.class_count} classes, '
            f'{classes.name} has {classes.count}'
        )
    network = build_network(config)
    tensors = _load_exactly(network, tensors, path)
    # those of a class set of ours are no content of the file
    vulnerable = () if classes.name == metadata['classes'] else classes.vulnerable
    identity = f'{path.stem}@{_digest(metadata, vulnerable, tensors)}'
    return Checkpoint(network.eval(), classes, identity, info, worth, exit_s)


def _check(config: NetworkConfig, worth: Worth | None, exit_s: ExitTimes | None) -> None:
    if worth is not None:
        worth.check(config.exit_count, config.class_count)
    if exit_s is not None:
        exit_s.check(config.exit_count)


def _described(classes: ClassSet) -> str:
    """Give the name of a class set, or a description where it is none of ours."""
    known = any(vars(classes) == vars(ours) for ours in CLASS_SETS)
    return classes.name if known else json.dumps(vars(classes))


def _classes(metadata: Mapping[str, str]) -> ClassSet:
    """Give the class set that was described."""
    if not metadata['classes'].startswith('{'):
        return by_name(metadata['classes'])
    classes: ClassSet = typed(_value(metadata, 'classes'), ClassSet, 'classes')
    return classes


def _value(metadata: Mapping[str, str], key: str) -> Any:
    try:
        return json.loads(metadata[key])
    except (RecursionError, ValueError) as error:
        raise ValueError(f'{key}: expected JSON, got {metadata[key]!r:.80} ({error})') from error


def _digest(
    metadata: Mapping[str, str], vulnerable: Sequence[str], tensors: Mapping[str, torch.Tensor]
) -> str:
    # of the content: safetensors writes the same metadata in varying order
    digest = hashlib.sha256(metadata['network'].encode())
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    for said in (metadata.get('worth', ''), metadata.get('exit_s', ''), *vulnerable):
        digest.update(said.encode())
    return digest.hexdigest()[:12]


def _load_exactly(
    network: AnytimeNetwork, tensors: Mapping[str, torch.Tensor], path: Path
) -> dict[str, torch.Tensor]:
    """Give a network its weights; returns them as it takes them."""
    own = {k: v for k, v in network.state_dict().items() if not k.endswith(COUNTER)}
    if missing := own.keys() - tensors.keys():
        raise CheckpointError(f'{path}: {len(missing)} tensors missing, as {min(missing)}')
    if extra := tensors.keys() - own.keys():
        raise CheckpointError(f'{path}: {len(extra)} unknown tensors, as {min(extra)}')
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise CheckpointError(
                f'{path}: {name} is {tuple(tensor.shape)}, expected {tuple(own[name].shape)}'
            )
    weights, *problems = checked(tensors)
    if wrong := sorted(sum(problems, [])):
        more = f' (and {len(wrong) - 1} more)' if len(wrong) > 1 else ''
        raise CheckpointError(f'{path}: {wrong[0]}{more}')
    network.load_state_dict(weights, strict=False)
    return weights
