# SPDX-License-Identifier: Apache-2.0
"""
The operations of a program in PyTorch, on tensors in channels_last order.

On the CPU the convolutions are oneDNN's, with weights that are arranged once for a size and with
the sum in the same pass: as fast as PyTorch gets.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from adpc_ros.network.exits import join_branches
from adpc_ros.network.layers import resize
from adpc_ros.runtime.fill import RingMap, fill_, ring_weights
from adpc_ros.runtime.program import AveragePool, Conv, Join, Operation, SumRelu, Upsample

Layer = Callable[..., Tensor]


def layer_of(operation: Operation, device: torch.device, dtype: torch.dtype) -> Layer:
    """
    Give what computes an operation.

    :param device: where its inputs are.
    :param dtype: of its inputs and of its output.
    :return: a function of the active map (or None) and the inputs, each (1, C, H, W) in
        channels_last order.
    """
    if isinstance(operation, Conv):
        kind = OneDnnConv if _has_onednn(device, dtype) else TorchConv
        return kind(operation, device, dtype)
    return _OTHERS[type(operation)]


def _has_onednn(device: torch.device, dtype: torch.dtype) -> bool:
    if device.type != 'cpu' or not torch._C._has_mkldnn:
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


class TorchConv:
    """A convolution by PyTorch's own choice of algorithm."""

    def __init__(self, conv: Conv, device: torch.device, dtype: torch.dtype) -> None:
        """Take over the parameters; BatchNorm's shift goes into the bias."""
        weight = conv.weight.to(device, dtype)
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.bias = (conv.bias + conv.shift).to(device, dtype)
        self.shift = conv.shift.to(device)
        self.stride, self.relu = conv.stride, conv.relu
        self.padding = (conv.weight.shape[2] - 1) // 2
        self.groups = len(conv.weight) if conv.depthwise else 1
        self.reach = 0
        if conv.taps is not None:
            self.reach = len(conv.taps) // 2
            self.fill_weights = ring_weights(conv.taps).to(device)

    def __call__(
        self, active: RingMap | None, x: Tensor, residual: Tensor | None = None
    ) -> Tensor:
        """Map (1, C, H, W) to (1, C', H', W') as convolution, BatchNorm, sum and ReLU do."""
        size = ((x.shape[2] - 1) // self.stride + 1, (x.shape[3] - 1) // self.stride + 1)
        if active is None or active.share(size) == 1.0:
            return self.convolve(x, residual, self.relu)
        y = self.convolve(x, None, False).contiguous(memory_format=torch.channels_last)
        y = fill_(y, self.shift, active.ring(size, self.reach), self.fill_weights)
        if residual is not None:
            y = y.add_(residual)
        return y.relu_() if self.relu else y

    def convolve(self, x: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
        """Convolve all positions; on request add the residual and apply ReLU."""
        y = functional.conv2d(x, self.weight, self.bias, self.stride, self.padding, 1, self.groups)
        if residual is not None:
            y = y.add_(residual)
        return y.relu_() if relu else y


class OneDnnConv(TorchConv):
    """
    A convolution by oneDNN in one pass, with weights in the order that it wants.

    These operators are PyTorch's own for compiled models. They are faster than conv2d with its
    sum, most of all in one thread, where PyTorch gives float32 1x1 convolutions to its BLAS. ReLU
    comes after them: oneDNN's makes 0 of NaN, so that an overflow would show nowhere.
    """

    def __init__(self, conv: Conv, device: torch.device, dtype: torch.dtype) -> None:
        """Take over the parameters; the weights are arranged when the input's size is known."""
        super().__init__(conv, device, dtype)
        self.edges = [self.padding] * 2, [self.stride] * 2, [1, 1], self.groups  # dilation: 1
        self.arranged: Tensor | None = None
        self.arranged_for: torch.Size | None = None

    def convolve(self, x: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
        """Convolve all positions; on request add the residual and apply ReLU."""
        if self.arranged_for != x.shape:  # arranged for another size, it is slower than conv2d
            reorder = torch.ops.aten.mkldnn_reorder_conv2d_weight
            self.arranged = reorder(self.weight.to_mkldnn(), *self.edges, x.shape)
            self.arranged_for = x.shape
        y: Tensor
        if residual is None:
            y = torch.ops.mkldnn._convolution_pointwise(
                x, self.arranged, self.bias, *self.edges, 'none', [], ''
            )
        else:
            y = torch.ops.mkldnn._convolution_pointwise.binary(
                *(x, residual, self.arranged, self.bias, *self.edges, 'add', 1.0),
                *(None, [], ''),
            )
        return y.relu_() if relu else y


def _average_pool(_active: RingMap | None, x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 2)


def _upsample(_active: RingMap | None, x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)


def _join(_active: RingMap | None, *branches: Tensor) -> Tensor:
    return join_branches(list(branches))


def _sum_relu(_active: RingMap | None, own: Tensor, *others: Tensor) -> Tensor:
    size = (own.shape[2], own.shape[3])
    total = own
    for i, other in enumerate(others):
        term = resize(other, size)
        total = total + term if i == 0 else total.add_(term)
    return total.relu_()


_OTHERS: dict[type[Operation], Layer] = {
    AveragePool: _average_pool,
    Upsample: _upsample,
    Join: _join,
    SumRelu: _sum_relu,
}
