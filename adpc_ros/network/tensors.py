# SPDX-License-Identifier: Apache-2.0
"""Tensors from files: read without running code, and checked before a network takes them."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from adpc_ros.network.adaptivity import square_distances

_EXACT = (  # every value is a float32, too
    *(torch.float32, torch.bfloat16, torch.float16),
    *(torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz),
)
_PYTORCH = (b'PK\x03\x04', b'\x80')  # a zip archive of today, a pickle of old
_BEGINNINGS = (
    (b'version https://git-lfs', 'a Git LFS pointer: git lfs pull fetches the file itself'),
    (b'\x89HDF', 'an HDF5 file'),
    (b'\x93NUMPY', 'a NumPy file'),
    (b'\x1f\x8b', 'a gzip archive'),
)
_NUMPY = (  # what a pickled NumPy scalar or array needs, by the names of NumPy 1 and 2
    *('numpy.core.multiarray.scalar', 'numpy._core.multiarray.scalar', 'numpy.dtype'),
    *('numpy.core.multiarray._reconstruct', 'numpy._core.multiarray._reconstruct'),
    'numpy.ndarray',
)
DISTANCES = '.square_dis'  # of a window of interpolation: constants
COUNTER = '.num_batches_tracked'  # how many batches a BatchNorm has seen


class CheckpointError(ValueError):
    """A weights file that is missing, broken, or not what was asked for."""


class NumPyValue:
    """
    Stands for a NumPy scalar or array of a pickled file, as best_mIoU.

    Nothing is made of it: NumPy's own code for unpickling never sees the file.
    """

    def __init__(self, *_: object) -> None:
        """Forget what came."""

    def __setstate__(self, _: object) -> None:
        """Forget what came."""


class Stored(NamedTuple):
    """A safetensors file: the text in its head, and its tensors on the CPU."""

    metadata: dict[str, str]
    tensors: dict[str, Tensor]


class Checked(NamedTuple):
    """
    Weights as networks take them.

    ``tensors`` are finite float32; zeros stand for what is not. ``wrong_type`` and
    ``wrong_value`` say of those by name what was expected and what came.
    """

    tensors: dict[str, Tensor]
    wrong_type: list[str]
    wrong_value: list[str]


def read_safetensors(path: Path) -> Stored:
    """
    Read a safetensors file.

    :raises CheckpointError: if the file is missing or broken.
    """
    _check_file(path)
    try:
        with safe_open(str(path), framework='pt') as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return Stored(dict(file.metadata() or {}), tensors)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f'{path}: expected a safetensors file ({_first_sentence(error)}){_but(path)}'
        ) from error


def read_pytorch(path: Path, device: torch.device | str = 'cpu') -> object:
    """
    Read a file that ``torch.save`` wrote; no code of the file is run.

    :param path: of the file.
    :param device: where the tensors go.
    :return: tensors, plain containers, numbers and text; a :class:`NumPyValue` for what NumPy
        would have to unpickle.
    :raises CheckpointError: if the file is missing or broken, or needs anything else.
    """
    _check_file(path)
    allowed: list[Any] = [(NumPyValue, name) for name in _NUMPY]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
            warnings.simplefilter('ignore')  # of what is an error right after
            return torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        if needed := re.search(r'GLOBAL ([\w.]+)', str(error)):
            raise CheckpointError(
                f'{path}: expected tensors alone, but the file needs {needed[1]}: '
                'more than torch.load(weights_only=True) reads could run code, and is never read'
            ) from error
        raise CheckpointError(
            f'{path}: expected a PyTorch file of tensors alone{_but(path, pytorch=True)}'
        ) from error
    except Exception as error:  # whatever a broken file makes of the reader
        raise CheckpointError(
            f'{path}: expected a PyTorch file ({_first_sentence(error)}){_but(path, pytorch=True)}'
        ) from error


def begins_as_safetensors(path: Path) -> bool:
    """Tell whether a file has the head of safetensors, whatever its name."""
    with open(path, 'rb') as file:
        return file.read(9)[8:] == b'{'


def checked(tensors: Mapping[str, Tensor]) -> Checked:
    """
    Give weights as float32, if that changes no value, and say what cannot be weights.

    float16, bfloat16 and float8 become float32, which holds all their values; float64 does if
    each value is one of float32. Integers are no weights, however exact they would be: they need
    a scale, which is not there. Weights must be finite, and variances not negative. Counts of
    batches, which nothing uses, stay as they are; squared distances of the interpolation window
    that are ours but for rounding become ours.

    :param tensors: from a file, by any names.
    """
    result = Checked({}, [], [])
    for name, tensor in tensors.items():
        if name.endswith(COUNTER):
            result.tensors[name] = tensor
            continue
        values = None
        if kind := _wrong_type(tensor):
            result.wrong_type.append(f'{name} is {kind}, expected {torch.float32}')
        else:
            values = tensor.detach().float()
            if name.endswith(DISTANCES):
                values = _distances(tensor, values)
            if problem := _wrong_value(name, values):
                result.wrong_value.append(problem)
                values = None
        result.tensors[name] = torch.zeros(tensor.shape) if values is None else values
    return result


def _wrong_type(tensor: Tensor) -> str | None:
    """Say what a tensor is, if not one whose every value is a float32."""
    if tensor.layout != torch.strided:
        return str(tensor.layout)
    if tensor.is_meta:
        return 'without values'
    if tensor.dtype == torch.float64:
        single = tensor.float().double()
        if not torch.equal(single.nan_to_num(), tensor.nan_to_num()):
            return f'{tensor.dtype} with values that float32 does not have'
    elif tensor.dtype not in _EXACT:
        return str(tensor.dtype)
    return None


def _distances(tensor: Tensor, values: Tensor) -> Tensor:
    """Give a window's distances, whose largest is 1e5, as they were before they were rounded."""
    if tensor.dim() != 2 or tensor.shape[0] != tensor.shape[1] or not tensor.shape[0] % 2:
        return values
    ours = square_distances(tensor.shape[0])
    rounded = ours.to(tensor.dtype).float()
    return ours if torch.equal(rounded.nan_to_num(), values.nan_to_num()) else values


def _wrong_value(name: str, values: Tensor) -> str | None:
    strange = values.numel() - int(values.isfinite().sum())
    if strange:
        found = f'{strange} of {values.numel()} values NaN or infinite'
        return f'{name} has {found}, expected finite ones'
    if name.endswith('running_var') and (values < 0).any():
        return f'{name} has {float(values.min()):g}, expected variances of 0 or more'
    return None


def _check_file(path: Path) -> None:
    if not path.is_file():
        what = ' (a folder; expected a file)' if path.is_dir() else ''
        raise CheckpointError(f'weights not found: {path}{what}')


def _first_sentence(error: Exception) -> str:
    return re.split(r'\.\s|\n', str(error) or type(error).__name__)[0]


def _but(path: Path, pytorch: bool = False) -> str:
    """Say what a file looks like that could not be read, as safetensors or as PyTorch's."""
    try:
        with open(path, 'rb') as file:
            head = file.read(4096)
        if head.startswith(_PYTORCH):
            if pytorch:
                return '; it begins like one and may have been cut'
            return '; it looks like a PyTorch file, which the command convert reads'
        kind = _looks_like(path, head)
    except OSError:
        return ''
    return f'; it looks like {kind}' if kind else ''


def _looks_like(path: Path, head: bytes) -> str | None:
    if not head:
        return 'an empty file'
    for beginning, kind in _BEGINNINGS:
        if head.startswith(beginning):
            return kind
    if begins_as_safetensors(path):
        return _cut_safetensors(path)
    line = head.decode(errors='replace').lstrip().partition('\n')[0][:40]
    readable = line.isprintable() and '\ufffd' not in line
    return f'text, which begins {line!r}' if readable else None


def _cut_safetensors(path: Path) -> str:
    """Say how many bytes of a safetensors file are there."""
    size = path.stat().st_size
    with open(path, 'rb') as file:
        length = int.from_bytes(file.read(8), 'little')
        needed = 8 + length
        if needed <= size:
            try:
                entries = json.loads(file.read(length))
                ends = [v['data_offsets'][1] for k, v in entries.items() if k != '__metadata__']
                needed += max(ends, default=0)
            except (ValueError, LookupError, TypeError, AttributeError):
                needed = size
    if needed > size:
        return f'a safetensors file that was cut: it has {size} of {needed} bytes'
    if needed < size:
        return f'a safetensors file of {needed} bytes with {size - needed} more behind it'
    return 'a safetensors file with a broken head'
