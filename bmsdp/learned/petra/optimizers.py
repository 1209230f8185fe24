"""Optimizers of one stage, and schedules of their rates (arXiv:2406.02052, section 5 and appendix on training)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from .stage import Stage
from .worker import Optimize

Schedule = Callable[[int], float]  # factor on the rates, for update number u of a stage, from 0


def decayed(stage: Stage, weight_decay: float) -> list[dict[str, object]]:
    """Parameter groups with weight decay on matrices and kernels, and none on biases, batch normalisation and other vectors or numbers."""
    params = stage.params
    groups = [([p for p in params if p.dim() > 1], weight_decay), ([p for p in params if p.dim() <= 1], 0.0)]
    return [{"params": group, "weight_decay": decay} for group, decay in groups if group]


def sgd(lr: float, momentum: float = 0.9, nesterov: bool = True, weight_decay: float = 0.0) -> Optimize:
    """Stochastic gradient descent, by default with Nesterov's momentum, as in the paper.

    Parameters
    ----------
    lr : float
        See `scaled_rate`.
    weight_decay : float
        5e-4 (CIFAR) and 1e-4 (ImageNet) in the paper; see `decayed` for what it acts on.

    Returns
    -------
    optimize : callable
        ``optimize(stage)`` is the torch optimizer of a stage.
    """
    return lambda stage: torch.optim.SGD(decayed(stage, weight_decay), lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0)


def adam(lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0) -> Optimize:
    """Adam; weight decay, if any, apart from the gradient (AdamW), on what `decayed` says.  Returns ``optimize(stage)``."""
    return lambda stage: torch.optim.AdamW(decayed(stage, weight_decay), lr=lr, betas=betas, eps=eps)


def scaled_rate(batch: int, k: int = 1, rate: float = 0.1, reference: int = 256) -> float:
    """The paper's rate for batches of ``batch`` instances averaged over k: ``rate`` for 256 instances an update, and in proportion."""
    return rate * batch * k / reference


def warmup_steps(warmup: int, drops: Sequence[int], factor: float = 0.1) -> Schedule:
    """Linear warm-up over ``warmup`` updates, to 1, then times ``factor`` from each update in ``drops`` on.

    Updates are a stage's own: with averaging over k, an epoch of B batches has B / k of them.
    """
    _check(warmup)
    drops = tuple(drops)
    return lambda u: _rise(u, warmup) * factor ** sum(u >= drop for drop in drops)


def warmup_cosine(warmup: int, updates: int, floor: float = 0.0) -> Schedule:
    """Linear warm-up over ``warmup`` updates, to 1, then half a cosine to ``floor`` at update ``updates``, and ``floor`` from there on."""
    _check(warmup)
    if updates <= warmup:
        raise ValueError(f"updates = {updates}; the cosine needs more updates than the warm-up's {warmup}")

    def factor(u: int) -> float:
        if u < warmup:
            return _rise(u, warmup)
        past = min((u - warmup) / (updates - warmup), 1.0)
        return floor + (1 - floor) * (1 + math.cos(math.pi * past)) / 2

    return factor


def _rise(u: int, warmup: int) -> float:
    return min((u + 1) / warmup, 1.0) if warmup else 1.0


def _check(warmup: int) -> None:
    if warmup < 0:
        raise ValueError(f"warmup = {warmup}; needs a number of updates, 0 for none")
