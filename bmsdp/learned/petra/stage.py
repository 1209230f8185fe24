"""Stages of a network, x_j = F_j(x_{j-1}), and what PETRA asks of them (arXiv:2406.02052, sections 3 and 4.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

Streams = tuple[Tensor, ...]  # what travels between stages: one tensor or several
Pulled = tuple[Streams, list[Tensor]]  # cotangents of the input, and of the parameters


def pullback(y: Streams, g: Streams, x: Streams, params: list[nn.Parameter]) -> Pulled:
    """Cotangents of ``x`` and ``params`` for cotangents ``g`` of ``y`` on the graph that made y; zeros where there is no path."""
    leaves = [*x, *params]
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    pairs = [(a, b) for a, b in zip(y, g, strict=True) if a.requires_grad]
    if not wanted or not pairs:
        return tuple(torch.zeros_like(leaf) for leaf in x), [torch.zeros_like(leaf) for leaf in params]
    outputs, cotangents = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(outputs, wanted, cotangents, allow_unused=True))
    grads = [next(found) if leaf.requires_grad else None for leaf in leaves]
    grads = [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, grads, strict=True)]
    return tuple(grads[: len(x)]), grads[len(x) :]


def leaves(x: Streams) -> Streams:
    """The same tensors, detached, recording what is done with them; those of integers record nothing."""
    return tuple(a.detach().requires_grad_(a.is_floating_point() or a.is_complex()) for a in x)


class Stage(nn.Module):
    """One stage of a network; a subclass gives `forward`, and `inverse` where ``invertible`` is True.

    ``x`` and ``y`` are tuples of tensors; ``context`` is what a batch carries for all stages (labels, problem data): every worker
    looks it up by the number of the batch, so it never travels.

    The backward computes `forward` again, so it has to be a function of parameters, x and context, without randomness of its
    own (dropout takes its mask from the context), and it changes none of them in place.  No parameter belongs to two stages.
    """

    invertible = False

    def forward(self, x: Streams, context: Any) -> Streams:
        """``y = F(x)``."""
        raise NotImplementedError(f"{type(self).__name__} has to define forward(x, context)")

    def inverse(self, y: Streams, context: Any) -> Streams:
        """The x with ``F(x) = y``."""
        raise TypeError(f"{type(self).__name__} has no inverse: its input is kept in a FIFO")

    @property
    def params(self) -> list[nn.Parameter]:
        """What is trained."""
        return [p for p in self.parameters() if p.requires_grad]

    def gradients(self, x: Streams, g: Streams, context: Any) -> list[Tensor]:
        """Cotangents of the parameters alone, at the input x: all that the first stage needs."""
        with torch.enable_grad():
            y = self(x, context)
        return pullback(y, g, (), self.params)[1]

    def vjp(self, x: Streams, g: Streams, context: Any) -> Pulled:
        """Cotangents of x and of the parameters at the input x: one forward, one backward."""
        x = leaves(x)
        with torch.enable_grad():
            y = self(x, context)
        return pullback(y, g, x, self.params)

    def reverse_vjp(self, y: Streams, g: Streams, context: Any) -> tuple[Streams, Streams, list[Tensor]]:
        """``(x, gx, gparams)`` from the output y alone; subclasses that can share work between inverse and vjp do (see `Coupling`)."""
        with torch.no_grad():
            x = self.inverse(y, context)
        return (x, *self.vjp(x, g, context))

    @torch.no_grad()
    def amplification(self, x: Streams, context: Any, eps: float = 1e-6, generator: torch.Generator | None = None) -> float:
        """How much a small random error of ``F(x)`` has grown when it is inverted; measured, at the relative size ``eps``."""
        y = self(x, context)
        noise = [eps * a.abs().mean() * torch.randn(a.shape, dtype=a.dtype, generator=generator) for a in y]
        moved = self.inverse(tuple(a + d for a, d in zip(y, noise, strict=True)), context)
        base = self.inverse(y, context)
        out = sum(float((a - b).abs().pow(2).sum()) for a, b in zip(moved, base, strict=True))
        return (out / sum(float(d.abs().pow(2).sum()) for d in noise)) ** 0.5


class Coupling(Stage):
    """``(y1, y2) = (c x2 + F(x1), x1)``: additive for c = 1, heavy ball for ``c = -beta``; its inverse divides by c.

    Parameters
    ----------
    F : nn.Module
        Acts on x1 alone; a subclass whose F needs the context overrides `residual`.
    c : float, complex or nn.Parameter
        The carry.  Errors grow by about ``(1 + Lip F) / |c|`` when the stage is inverted, so ``|c| < 1`` is for short chains.
    """

    invertible = True

    def __init__(self, F: nn.Module, c: complex | nn.Parameter = 1.0) -> None:
        super().__init__()
        if not isinstance(c, nn.Parameter) and c == 0:
            raise ValueError("c = 0 forgets x2: such a stage has no inverse; take c = 1, or a stage that is not invertible")
        self.F, self.c = F, c

    def residual(self, x1: Tensor, context: Any) -> Tensor:
        """``F(x1)``."""
        return self.F(x1)

    def forward(self, x: Streams, context: Any) -> Streams:
        x1, x2 = x
        return self.c * x2 + self.residual(x1, context), x1

    def inverse(self, y: Streams, context: Any) -> Streams:
        y1, y2 = y
        return y2, (y1 - self.residual(y2, context)) / self.c

    def reverse_vjp(self, y: Streams, g: Streams, context: Any) -> tuple[Streams, Streams, list[Tensor]]:
        """One forward and one backward: F(x1) is computed once, for the inverse and for its graph (section 4.2)."""
        (y1, y2), (g1, g2) = y, g
        (x1,) = leaves((y2,))
        with torch.enable_grad():
            f = self.residual(x1, context)
        c = self.c.detach() if isinstance(self.c, nn.Parameter) else self.c
        x2 = (y1.detach() - f.detach()) / c
        with torch.enable_grad():
            y1 = self.c * x2 + f if isinstance(self.c, nn.Parameter) else f
        (gx1,), params = pullback((y1,), (g1,), (x1,), self.params)
        return (x1.detach(), x2), (g2 + gx1, (c.conj() if isinstance(c, Tensor) else c.conjugate()) * g1), params


class Checkpointed(Stage):
    """Another stage, treated as one without an inverse: its input is kept, where inverting would amplify errors too much."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, x: Streams, context: Any) -> Streams:
        return self.stage(x, context)


class Head(Stage):
    """The last stage, which ends in the loss: a subclass gives ``forward(x, context)``, a scalar."""

    def value_and_grad(self, x: Streams, context: Any) -> tuple[float, Streams, list[Tensor]]:
        """``(loss, gx, gparams)`` at x."""
        x = leaves(x)
        with torch.enable_grad():
            loss = self(x, context)
        if loss.dim():
            raise ValueError(f"{type(self).__name__} returned a loss of shape {tuple(loss.shape)}; a head returns one number for a batch")
        gx, params = pullback((loss,), (torch.ones_like(loss),), x, self.params)
        return float(loss.detach()), gx, params
