"""One sweep of over-relaxed mixing as a stage: a chain of coupling layers, one per colour, whose relaxations are learned.

The relaxation of a row is a function of ``g_i = sum_j C_ij y_j``, so of *other* colours only: that keeps the layer invertible.  It sees
norms, ratios to what C and the radii allow, and nothing of n, k, the units of C or the basis of the columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..petra import Checkpointed, Head, Stage, Streams
from ..weights import FEATURES, MixingWeights
from . import blocks, rows
from .instances import Colour, Instance, Product

HIDDEN = 8


class SweepStage(Stage):
    """A sweep in the order of colours, ``w_i = 1 + sigmoid(a + W2 . tanh(W1 f_i + b1))``; ``hidden = 0`` is one relaxation for all rows.

    Row i is turned over ``-g_i`` (`rows`, on spheres; `blocks`, on Stiefel blocks) by w_i; rows with ``g_i = 0`` stay.
    Features: ``|g|/c2``, ``|g|/c1``, ``log(c1^2/c2^2)``, see `Colour`.  Float64, real or complex.

    Attributes
    ----------
    outside : int
        Rows met by inverses that lay outside the image of the step: their reconstruction means nothing.
    """

    invertible = True

    def __init__(self, omega: float = 1.5, hidden: int = HIDDEN, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if not 1 < omega < 2:
            raise ValueError(f"omega = {omega}; a reversible sweep needs 1 < omega < 2")
        self.a = nn.Parameter(torch.tensor(float(np.log((omega - 1) / (2 - omega))), dtype=torch.float64))
        draw = {"generator": generator, "dtype": torch.float64}
        self.W1 = nn.Parameter(torch.randn(hidden, FEATURES, **draw) / FEATURES**0.5) if hidden else None
        self.b1 = nn.Parameter(torch.randn(hidden, **draw) / 2) if hidden else None
        self.W2 = nn.Parameter(torch.zeros(hidden, dtype=torch.float64)) if hidden else None
        self.outside = 0

    def rho(self, G: Tensor, colour: Colour, d: int) -> Tensor:
        """``w - 1`` of the blocks of a colour whose products with C are G: (m, 1), or a number."""
        if self.W1 is None or self.b1 is None or self.W2 is None:
            return torch.sigmoid(self.a)
        g = rows.size(G.reshape(len(G) // d, -1)) / d**0.5
        features = torch.cat([g / colour.c2, g / colour.c1, 2 * torch.log(colour.c1 / colour.c2)], 1)
        return torch.sigmoid(self.a + torch.tanh(features @ self.W1.T + self.b1) @ self.W2[:, None])

    def forward(self, x: Streams, context: Instance) -> Streams:
        (Y,) = x
        recorded = torch.is_grad_enabled()
        Y = Y if recorded else Y.clone()
        for colour in context.colours:
            G = Product.apply(colour.C, colour.adjoint, Y)
            new = _turned(Y[colour.rows], G, self.rho(G, colour, context.d), colour, context.d)
            if recorded:
                Y = torch.cat([Y[: colour.rows.start], new, Y[colour.rows.stop :]])
            else:
                Y[colour.rows] = new
        return (Y,)

    def inverse(self, y: Streams, context: Instance) -> Streams:
        (Y,) = y
        Y = Y.clone()
        with torch.no_grad():
            for colour in reversed(context.colours):
                G = colour.C @ Y
                Y[colour.rows] = self._unturned(Y[colour.rows], G, self.rho(G, colour, context.d), colour, context.d)
        return (Y,)

    def reverse_vjp(self, y: Streams, g: Streams, context: Instance) -> tuple[Streams, Streams, list[Tensor]]:
        """Colour by colour, each product with C once for inverse and derivative; the graph of one colour lives at a time."""
        Y, H, d, params = y[0].clone(), g[0].clone(), context.d, self.params
        sums = [torch.zeros_like(p) for p in params]
        for colour in reversed(context.colours):
            G = (colour.C @ Y).requires_grad_()
            with torch.enable_grad():
                rho = self.rho(G, colour, d)
            x = self._unturned(Y[colour.rows], G.detach(), rho.detach(), colour, d).requires_grad_()
            with torch.enable_grad():
                new = _turned(x, G, rho, colour, d)
            gx, gG, *gparams = torch.autograd.grad(new, [x, G, *params], H[colour.rows])
            Y[colour.rows], H[colour.rows] = x.detach(), gx
            H += colour.adjoint @ gG
            sums = [a + b for a, b in zip(sums, gparams, strict=True)]
        return (Y,), (H,), sums

    def _unturned(self, y: Tensor, G: Tensor, rho: Tensor, colour: Colour, d: int) -> Tensor:
        if d > 1:
            return _turned(y, G, 1 / rho, colour, d)
        x, outside = rows.unturn(y, G, rho, colour.radius)
        self.outside += outside
        return x


def _turned(y: Tensor, G: Tensor, rho: Tensor, colour: Colour, d: int) -> Tensor:
    if d == 1:
        return rows.turn(y, G, rho, colour.radius)
    shape = (-1, d, y.shape[1])
    return blocks.turn(y.reshape(shape), G.reshape(shape), rho[..., None]).reshape(y.shape)


class Objective(Head):
    """The mean of ``<C, YY*> / scale`` over the problems of a batch: needs no optimal value."""

    def forward(self, x: Streams, context: Instance) -> Tensor:
        return (context.costs(x[0]) / context.scale).mean()


class LogGap(Head):
    """The mean of ``log(gap + floor)``, ``gap = (<C, YY*> - f*) / |f*|``: every problem counts alike, however far it has come."""

    def __init__(self, floor: float = 1e-9) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, x: Streams, context: Instance) -> Tensor:
        return torch.log(gaps(x[0], context).clamp(min=0) + self.floor).mean()


def gaps(Y: Tensor, context: Instance) -> Tensor:
    """``(<C, YY*> - f*) / |f*|`` of every problem, (B,), both without the constant of the diagonal blocks."""
    if context.optimum is None:
        raise ValueError("the optimal values of these problems are not known; prepare the instance with optimum=")
    return (context.costs(Y) - context.optimum) / context.optimum.abs()


def network(weights: MixingWeights) -> list[SweepStage]:
    """The stages of given weights, without the head."""
    out = []
    for l in range(weights.L):
        stage = SweepStage(1.5, hidden=weights.W2.shape[1])
        for p, value in zip(stage.params, (weights.a, weights.W1, weights.b1, weights.W2), strict=False):
            p.data = torch.tensor(value[l], dtype=torch.float64)
        out.append(stage)
    return out


def weights_of(stages: Sequence[Stage], meta: dict[str, Any] | None = None) -> MixingWeights:
    """The weights of trained stages; heads are left out, checkpoints seen through."""
    sweeps = [stage.stage if isinstance(stage, Checkpointed) else stage for stage in stages]
    sweeps = [stage for stage in sweeps if isinstance(stage, SweepStage)]
    L = len(sweeps)
    none = torch.zeros(0)

    def stack(name: str, shape: tuple[int, ...]) -> np.ndarray:
        arrays = [getattr(stage, name) for stage in sweeps]
        return np.stack([(none if array is None else array).detach().numpy().reshape(shape) for array in arrays])

    h = 0 if sweeps[0].W2 is None else len(sweeps[0].W2)
    return MixingWeights(stack("a", ()).reshape(L), stack("W1", (h, FEATURES)), stack("b1", (h,)), stack("W2", (h,)), meta or {})


@torch.no_grad()
def checkpointed(
    stages: Sequence[SweepStage], x: Streams, context: Instance, limit: float = 1e-4, noise: float = 1e-13
) -> tuple[list[Stage], list[float]]:
    """The stages, those made `Checkpointed` without which the reconstruction of an input from the end would be off by more than ``limit``.

    The growth of an error is measured, by inverting a disturbed output through the chain: products of the stages' own
    amplifications, let alone of ``1 / (w - 1)``, are far off.  Costs one forward and one inverse.

    Returns
    -------
    stages : list of Stage
    growth : list of float
        Of a rounding error between the input of each stage and the next checkpoint (or the end).
    """
    states = [x]
    for stage in stages:
        states.append(stage(states[-1], context))
    generator = torch.Generator().manual_seed(0)
    out: list[Stage] = []
    growth: list[float] = []
    moved: Streams | None = None
    for stage, before, after in zip(reversed(stages), reversed(states[:-1]), reversed(states[1:]), strict=True):
        if moved is None:
            moved = tuple(a + noise * a.abs().mean() * torch.randn(a.shape, dtype=a.dtype, generator=generator) for a in after)
            size = _distance(moved, after)
        stage.outside = 0
        moved = stage.inverse(moved, context)
        growth.append(_distance(moved, before) / size)
        too_far = not growth[-1] * torch.finfo(torch.float64).eps <= limit or stage.outside > 0
        out.append(Checkpointed(stage) if too_far else stage)
        moved = None if too_far else moved
    for stage in stages:
        stage.outside = 0
    return out[::-1], growth[::-1]


def _distance(x: Streams, y: Streams) -> float:
    return float(sum((a - b).abs().pow(2).sum() for a, b in zip(x, y, strict=True))) ** 0.5
