# SPDX-License-Identifier: Apache-2.0
"""
The C interface of the native runtime (src/adpc.h), and where its library lies.

To import it raises OSError if the library was not built, or for another machine or version.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_double, c_float, c_int32, c_int64, c_uint8, c_void_p
from pathlib import Path
from typing import TypeVar

import adpc_ros

LIBRARY = 'libadpc_cpu.so'
Library = TypeVar('Library', bound=ctypes.CDLL)
VERSION = 5  # of the interface as it is declared here


def _load() -> ctypes.CDLL:
    # beside this file where it is installed, or in the install space beside a checkout
    for package in adpc_ros.__path__:
        path = Path(package) / 'runtime' / LIBRARY
        if path.exists():
            return ctypes.CDLL(str(path))
    raise OSError(f'{LIBRARY} was not found in {", ".join(adpc_ros.__path__)}: colcon builds it')


_loaded = _load()
try:
    _loaded.adpc_constants.restype = c_char_p
    _constants = dict(pair.split('=') for pair in _loaded.adpc_constants().decode().split())
except AttributeError:
    raise OSError(f'{_loaded._name} is of another version: build it anew') from None

CONV, RESAMPLE, HEAD, INVERTED, FLOAT32, BFLOAT16, IMAGE, SCORES, FINISHED, PAUSED = (
    int(_constants[name])
    for name in (
        *('CONV', 'RESAMPLE', 'HEAD', 'INVERTED', 'FLOAT32', 'BFLOAT16'),
        *('IMAGE', 'SCORES', 'FINISHED', 'PAUSED'),
    )
)
MAX_EDGE, MAX_SOURCES, MAX_EXITS, FINEST, LEVELS = (
    int(_constants[name]) for name in ('MAX_EDGE', 'MAX_SOURCES', 'MAX_EXITS', 'FINEST', 'LEVELS')
)

Floats = POINTER(c_float)


class Op(ctypes.Structure):
    """``adpc_op``."""

    _fields_ = (
        ('kind', c_int32),
        ('step', c_int32),
        ('exit_index', c_int32),
        ('masked', c_int32),
        ('needed', c_int32),
        ('output', c_int32),
        ('relu', c_int32),
        ('gives_exit', c_int32),
        ('input', c_int32),
        ('residual', c_int32),
        ('kernel', c_int32),
        ('stride', c_int32),
        ('depthwise', c_int32),
        ('reach', c_int32),
        ('window_edge', c_int32),
        ('weight', Floats),
        ('bias', Floats),
        ('shift', Floats),
        ('window', Floats),
        ('head_channels', c_int32),
        ('head_weight', Floats),
        ('head_bias', Floats),
        ('expand_weight', Floats),
        ('expand_bias', Floats),
        ('source_count', c_int32),
        ('pooled', c_int32),
        ('concatenate', c_int32),
        ('sources', c_int32 * MAX_SOURCES),
    )


TENSORS = tuple(name for name, kind in Op._fields_ if kind is Floats)


class Frame(ctypes.Structure):
    """``adpc_frame``."""

    _fields_ = (
        ('image', c_void_p),
        ('normalised', c_void_p),
        ('row_bytes', c_int64),
        ('pixel_bytes', c_int64),
        ('red', c_int64),
        ('green', c_int64),
        ('blue', c_int64),
        ('height', c_int32),
        ('width', c_int32),
        ('adaptive', c_int32),
        ('active', c_void_p * (MAX_EXITS - 1)),
    )


class ExitResult(ctypes.Structure):
    """``adpc_exit``."""

    _fields_ = (
        ('confidence_sum', c_double),
        ('confident_pixels', c_int64),
        ('active', c_int64 * LEVELS),
        ('needed', c_int64 * LEVELS),
        ('positions', c_int64 * LEVELS),
    )


def _declare(loaded: Library) -> Library:
    plan = c_void_p
    for name, result, arguments in (
        ('adpc_layout', c_int64, ()),
        ('adpc_constants', c_char_p, ()),
        (
            'adpc_create',
            plan,
            (c_char_p, *(c_int32,) * 7, Floats, Floats, c_float, Floats, c_char_p, c_int32),
        ),
        ('adpc_destroy', None, (plan,)),
        ('adpc_add_slot', c_int32, (plan, c_int32, c_int32, c_int32)),
        ('adpc_add_op', c_int32, (plan, POINTER(Op))),
        ('adpc_start', c_int32, (plan, POINTER(Frame))),
        ('adpc_run', c_int32, (plan, *(c_void_p,) * 4)),
        ('adpc_run_until', None, (plan, c_double)),
        ('adpc_interrupt', None, (plan,)),
        ('adpc_progress', c_int64, (plan,)),
        ('adpc_returned_s', c_double, (plan,)),
        ('adpc_last_exit', None, (plan, POINTER(ExitResult))),
        ('adpc_read_scores', None, (plan, c_void_p)),
        ('adpc_steps', None, (plan, POINTER(c_double), POINTER(c_uint8), c_int32)),
        ('adpc_memory_bytes', c_int64, (plan,)),
        ('adpc_bytes_for', c_int64, (plan, c_int32, c_int32)),
        ('adpc_poison', None, (plan,)),
        ('adpc_instruction_sets', c_char_p, ()),
        ('adpc_instruction_set', c_char_p, (plan,)),
    ):
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    sizes = [ctypes.sizeof(structure) for structure in (Op, Frame, ExitResult)]
    if loaded.adpc_layout() != (sizes[0] << 20 | sizes[1] << 10 | sizes[2]) << 8 | VERSION:
        raise OSError(f'{loaded._name} is of another version: build it anew')
    return loaded


_declare(_loaded)
_quick = _declare(ctypes.PyDLL(_loaded._name))


def library() -> ctypes.CDLL:
    """Give the library; calls into it release the GIL."""
    return _loaded


def quick() -> ctypes.PyDLL:
    """
    Give the library for what takes some nanoseconds: calls into it keep the GIL.

    To give it away and take it back costs milliseconds while another thread computes in Python.
    """
    return _quick


def instruction_sets() -> list[str]:
    """Name the instruction sets that this machine can run, best first."""
    names: bytes = library().adpc_instruction_sets()
    return names.decode().split()
