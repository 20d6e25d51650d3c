# SPDX-License-Identifier: Apache-2.0
"""BatchNorm over the batches of all processes, and averages of its statistics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from adpc_ros.network.anytime import AnytimeNetwork


class _Normalise(torch.autograd.Function):
    """BatchNorm over all processes: statistics and both sums of the gradient are shared."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(wide, (0, 2, 3), correction=0)
        count = mean.new_full((1,), x.numel() // x.shape[1], dtype=torch.float64)
        own = torch.cat([count, mean.double(), variance.double()])
        gathered = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, own)
        # In the same order everywhere, so that all processes get the same bits. Not E[x^2]-E[x]^2,
        # which loses what is left where the mean is large.
        table = torch.stack(gathered)
        counts, (means, variances) = table[:, :1], table[:, 1:].chunk(2, dim=1)
        total = counts.sum()
        shared_mean = (counts * means).sum(0) / total
        shared_variance = (counts * (variances + (means - shared_mean) ** 2)).sum(0) / total
        mean, variance = shared_mean.to(mean.dtype), shared_variance.to(mean.dtype)
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), total)
        ctx.mark_non_differentiable(mean, variance, total)
        y = functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)
        return y, mean, variance, total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, scale, total = ctx.saved_tensors
        gradient = gradients[0].to(mean.dtype)
        normal = (x.to(mean.dtype) - mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1)
        own = torch.cat([gradient.sum((0, 2, 3)), (gradient * normal).sum((0, 2, 3))])
        shared = own.clone()
        dist.all_reduce(shared)
        along_bias, along_weight = (shared / total.to(shared.dtype)).view(2, 1, -1, 1, 1)
        inner = gradient - along_bias - normal * along_weight
        own_bias, own_weight = own.view(2, -1)  # DistributedDataParallel adds these up
        return (
            (inner * (weight * scale).view(1, -1, 1, 1)).to(x.dtype),
            own_weight.to(weight.dtype),
            own_bias.to(weight.dtype),
            None,
        )


class SyncBatchNorm2d(nn.BatchNorm2d):
    """
    BatchNorm whose statistics, in training, are those of the batches of all processes together.

    On the CPU, too, other than PyTorch's SyncBatchNorm. Its gradients of weight and bias are this
    process's share; their sum over the processes is that of the whole batch.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) float to the same shape; B may differ between processes."""
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(x)
        arguments = (x, self.weight, self.bias, self.eps)
        y, mean, variance, total = _Normalise.apply(*arguments)  # type: ignore[no-untyped-call]
        self._keep(mean, variance, total)
        return cast(Tensor, y)

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor, total: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        average = 1 / self.num_batches_tracked.double()  # over all batches
        factor: float | Tensor = average if self.momentum is None else self.momentum
        unbiased = variance * (total / (total - 1)).to(variance.dtype)
        for running, value in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.mul_(1 - factor).add_(factor * value)


def synchronise_norms(network: nn.Module) -> None:
    """
    Replace every BatchNorm in a network by one over all processes, with the same parameters.

    Names and the parameters themselves stay as they are.

    :raises ValueError: for one without parameters or running statistics.
    """
    for parent in list(network.modules()):
        for name, norm in list(parent.named_children()):
            if type(norm) is not nn.BatchNorm2d:
                continue
            if not (norm.affine and norm.track_running_stats):
                raise ValueError(f'{name}: expected BatchNorm with parameters and statistics')
            shared = SyncBatchNorm2d(norm.num_features, norm.eps, norm.momentum, device='meta')
            shared.weight, shared.bias = norm.weight, norm.bias
            shared.running_mean, shared.running_var = norm.running_mean, norm.running_var
            shared.num_batches_tracked = norm.num_batches_tracked
            shared.training = norm.training
            setattr(parent, name, shared)


@torch.no_grad()
def average_norms(network: AnytimeNetwork, images: Iterable[Tensor], adaptive: bool) -> None:
    """
    Replace BatchNorm's running statistics by averages over some batches.

    With several processes all of them must call it, each with its share of the batches.

    :param images: each (B, 3, H, W) float, normalised.
    :param adaptive: as the network is trained.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    network.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # an average over all batches
    for image in images:
        network(image, adaptive)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
