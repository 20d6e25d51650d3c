# SPDX-License-Identifier: Apache-2.0
"""
Broyden's method: the root of many equations, without their derivatives, one iteration at a time.

And the gradient of an equilibrium, which is such a root as well.
Source: the solver of MDEQ (arXiv:2006.08656) and of DEQ before it (arXiv:1909.01377, appendix B),
Broyden's "good" update of an inverse Jacobian that begins as -I; full steps, no line search.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_GRADIENT_TOLERANCE = 1e-5  # of the implicit gradient's equation, relative to the gradient


class Broyden:
    """
    The state of a solution, which lives for one root.

    Each sample of a batch is solved by itself. No decision depends on a value in Python, so that
    an iteration costs the same for all images and can be counted on the meta device: a sample
    that has converged stays where it is.
    """

    def __init__(
        self,
        equations: Callable[[Tensor], Tensor],
        start: Tensor,
        iterations: int,
        tolerance: float | Tensor = 0.0,
    ) -> None:
        """
        Evaluate the equations once, at the start.

        :param equations: g of g(x) = 0, from (B, N) to (B, N) float.
        :param start: (B, N) float, the first x; memory for twice as many values for each
            iteration but the last is reserved, and taken as they come.
        :param iterations: that can be made.
        :param tolerance: norm of g(x) of a sample, () or (B,), at which it has converged.
        """
        self._equations, self._tolerance = equations, tolerance
        self._x, self._value = start, equations(start)
        self._moved: tuple[Tensor, Tensor] | None = None  # by which x and g(x) changed last
        shape = (start.shape[0], max(0, iterations - 1), start.shape[1])
        self._u, self._v = start.new_empty(shape), start.new_empty(shape)
        self._rank = 0
        self._best = start
        self._lowest = start.new_full((start.shape[0],), math.inf)
        self._finite = torch.ones_like(self._lowest, dtype=torch.bool)
        self.residual = self._judge()

    def step(self) -> None:
        """Make one iteration, which evaluates the equations once."""
        if self._moved is not None:
            self._learn(*self._moved)
        running = (self.residual > self._tolerance).unsqueeze(1)
        moved = torch.where(running, -self._inverse(self._value), 0.0)
        self._x = self._x + moved
        before, self._value = self._value, self._equations(self._x)
        self._moved = moved, self._value - before
        self.residual = self._judge()

    @property
    def best(self) -> Tensor:
        """
        The x of the lowest residual so far, (B, N) float.

        NaN in samples of which any residual was NaN or infinite: what came before is no answer
        to what was asked.
        """
        return torch.where(self._finite.unsqueeze(1), self._best, math.nan)

    @property
    def done(self) -> bool:
        """Whether no further iteration would change anything; waits for the device."""
        return not bool((self.residual > self._tolerance).any())

    def _judge(self) -> Tensor:
        """Give the (B,) norms of g(x), and keep x where they are the lowest."""
        residual: Tensor = torch.linalg.vector_norm(self._value, dim=1)
        better = residual < self._lowest
        self._best = torch.where(better.unsqueeze(1), self._x, self._best)
        self._lowest = torch.where(better, residual, self._lowest)
        self._finite = self._finite & residual.isfinite()
        return residual

    def _learn(self, dx: Tensor, dg: Tensor) -> None:
        """Let the inverse Jacobian map the last change of g(x) onto that of x."""
        v = self._transposed(dx)
        scale = (v * dg).sum(1, keepdim=True)
        # a sample that stays has changes of 0: nothing is learnt from them
        u = torch.where(scale == 0, 0.0, (dx - self._inverse(dg)) / scale)
        self._u[:, self._rank], self._v[:, self._rank] = u, v
        self._rank += 1

    def _inverse(self, y: Tensor) -> Tensor:
        """Multiply the inverse Jacobian, -I + the sum of u v^T, by (B, N)."""
        return _low_rank(self._u[:, : self._rank], self._v[:, : self._rank], y) - y

    def _transposed(self, y: Tensor) -> Tensor:
        return _low_rank(self._v[:, : self._rank], self._u[:, : self._rank], y) - y


def implicit_gradient(after: Tensor, f: Callable[[Tensor], Tensor], iterations: int) -> Tensor:
    """
    Let the gradient at f(z), where z is an equilibrium of f, be that of all evaluations of f.

    With J the Jacobian of f there, the gradient x of f(z) has to satisfy x = J^T x + gradient (the
    implicit function theorem), which Broyden's method solves. As in MDEQ's released code J is that
    at f(z), which is nearer to the equilibrium than z. What f has read beside z gets its gradient
    through ``after``.

    :param after: (B, N) float, f(z), with its graph.
    :param f: is evaluated once more in the backward pass.
    :param iterations: of the solver, at most.
    :return: the values of ``after``.
    """
    result: Tensor = _ImplicitGradient.apply(after, f, iterations)  # type: ignore[no-untyped-call]
    return result


class _ImplicitGradient(torch.autograd.Function):
    """The identity, but for its gradient."""

    @staticmethod
    def forward(ctx: Any, after: Tensor, f: Callable[[Tensor], Tensor], iterations: int) -> Tensor:
        ctx.save_for_backward(after)
        ctx.f, ctx.iterations = f, iterations
        return after.view_as(after)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (after,) = ctx.saved_tensors
        with torch.enable_grad(), torch.autocast(after.device.type, enabled=False):
            z = after.detach().requires_grad_()
            again = ctx.f(z)

        def equations(x: Tensor) -> Tensor:
            back: Tensor = torch.autograd.grad(again, z, x, retain_graph=True)[0]
            return back + gradient - x

        tolerance = _GRADIENT_TOLERANCE * torch.linalg.vector_norm(gradient, dim=1)
        solver = Broyden(equations, torch.zeros_like(gradient), ctx.iterations, tolerance)
        for _ in range(ctx.iterations):
            if solver.done:
                break
            solver.step()
        return solver.best, None, None


def _low_rank(left: Tensor, right: Tensor, y: Tensor) -> Tensor:
    """Give the sum over k of left_k (right_k . y); (B, k, N), (B, k, N), (B, N) to (B, N)."""
    factors = torch.bmm(right, y.unsqueeze(2))
    return torch.bmm(factors.transpose(1, 2), left).squeeze(1)
