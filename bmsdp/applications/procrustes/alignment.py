r"""Least squares over rotations, with proof: ``min sum_i |Y_i - Q_i X|^2`` over X and Q_i in O(d).

For given Q_i the best cloud is ``X = (1/N) sum_i Q_i^T Y_i``; what is left is ``max |sum_i Q_i^T Y_i|^2 = max <F F^T, Q Q^T>`` with
``F = [Y_1; ...; Y_N]`` (N d, k), ``Q = [Q_1; ...; Q_N]``, whose relaxation

    max <F F^T, Z>  over  Z >= 0,  Z_ii = I_d

is a product of Stiefel manifolds for ``Z = R R^T``; ``F F^T`` is never formed, a product costs O(N d k p). The generalised power
method ``Q_i <- polar(Y_i sum_j Y_j^T Q_j)`` ascends, and from a good start ends at the optimum if noise is low (Ling 2021); the staircase
then proves it, or climbs on. Where the optimum has rank d the relaxation is tight and the Q_i are the least-squares optimum.

The optimum is maximum likelihood for Q_i and X, yet X is inconsistent: see `bmsdp.applications.procrustes.risk`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...manifolds import StiefelProduct
from ...operators import LowRankPlusSparse
from ...problem import Problem
from ...result import Result
from ...sdp import solve
from ..synchronization.rounding import nearest
from .geometry import align, as_cloud, as_copies

TIGHT = 1e-6  # relative distance to the bound below which the rotations count as optimal


@dataclass(frozen=True)
class Alignment:
    """Rotations, the cloud that they give, and how good they must be: ``value <= maximum over O(d)^N <= bound``."""

    X: np.ndarray = field(repr=False)
    """``(1/N) sum_i Q_i^T Y_i``, (d, k)."""
    rotations: np.ndarray = field(repr=False)
    """Q_i, (N, d, d)."""
    value: float
    """``|sum_i Q_i^T Y_i|^2``."""
    bound: float
    """On the same, over O(d)^N; inf where none is known."""
    rank: int
    """Of the relaxation's solution: singular values of R above 1e-4 of the largest."""
    result: Result = field(repr=False)
    reflected: int = 0
    """Copies that a reflection would fit better than the rotation that was asked for (group "SO")."""

    @property
    def gap(self) -> float:
        """``(bound - value) / bound``."""
        return (self.bound - self.value) / self.bound if self.bound > 0 else 0.0

    @property
    def is_tight(self) -> bool:
        """Whether the rotations are proved optimal, to 1e-6 of the objective."""
        return self.gap <= TIGHT


def problem(Y: Any) -> Problem:
    """The relaxation ``min <-F F^T, Z>`` over ``Z_ii = I_d``, for `bmsdp.solve`; the cost is an operator of rank k.

    Parameters
    ----------
    Y : array_like, (N, d, k)
    """
    Y = as_copies(Y)
    N, d, k = Y.shape
    F = Y.reshape(N * d, k)
    return Problem(LowRankPlusSparse(None, F, -np.ones(k)), StiefelProduct(N, d), norm_C=_norm(F), cost_scale=float(np.vdot(F, F)))


def recover(result: Result, Y: Any, group: str = "O") -> Alignment:
    """Rotations from the rows of ``result.Y``: its d leading directions, made orthogonal, then ascended from.

    Parameters
    ----------
    result : Result of ``bmsdp.solve(problem(Y))``
    Y : array_like, (N, d, k)
    group : {"O", "SO"}
        "SO" keeps to rotations; the bound is still that over O(d).
    """
    Y = as_copies(Y)
    N, d, _ = Y.shape
    if result.Y.shape[0] != N * d:
        raise ValueError(f"the result has {result.Y.shape[0]} rows but {N} copies in R^{d} need {N * d}; solve(problem(Y)) for these Y")
    square, V = np.linalg.eigh(result.Y.T @ result.Y)
    rank = int(np.sum(square > 1e-8 * square[-1]))
    Q = ascend(Y, nearest((result.Y @ V[:, -d:]).reshape(N, d, d), group == "SO"), group)
    return _found(Y, Q, -result.bound, rank, result)


def least_squares(Y: Any, X: Any = None, *, group: str = "O", tol: float = 1e-8, rng: Any = None, **options: Any) -> Alignment:
    """The least-squares rotations, with a bound.

    Parameters
    ----------
    Y : array_like, (N, d, k)
    X : array_like, (d, k), optional
        A cloud to align to first (the Gram estimate is good); the leading right singular vectors of F by default.
    group : {"O", "SO"}
    tol : float
        Relative gap to which the relaxation is solved.
    rng : Generator or seed
    options : passed to `bmsdp.solve`
    """
    Y = as_copies(Y)
    N, d, k = Y.shape
    if X is None:
        if k < d:
            raise ValueError(f"Y has shape {Y.shape}: k >= d points are needed")
        F = Y.reshape(N * d, k)
        X = np.linalg.svd(F, full_matrices=False)[2][:d] if N > 1 else Y[0]
        X = np.concatenate([X, np.zeros((d - len(X), k))])
    Q = ascend(Y, align(Y, as_cloud(X, "X")).rotations)
    result = solve(problem(Y), warm_start=Q.reshape(N * d, d), tol=tol, rng=rng, **{"progress": False, **options})
    best = recover(result, Y)
    straight = _found(Y, Q, best.bound, best.rank, result)
    best = straight if straight.value >= best.value else best
    return best if group == "O" else _rotations_only(Y, best)


def ascend(Y: np.ndarray, Q: np.ndarray, group: str = "O", sweeps: int = 5000) -> np.ndarray:
    """The generalised power method from Q (N, d, d), until ``|sum_i Q_i^T Y_i|`` grows no more."""
    N, d, k = Y.shape
    F = Y.reshape(N * d, k)
    value, quiet = -1.0, 0
    for _ in range(sweeps):
        Z = Q.reshape(N * d, d).T @ F
        new = float(np.vdot(Z, Z))
        quiet = quiet + 1 if new <= value * (1 + 1e-15) else 0
        if quiet >= 5 or new == 0:
            break
        value, Q = max(new, value), nearest((F @ Z.T).reshape(N, d, d), group == "SO")
    return Q


def _rotations_only(Y: np.ndarray, best: Alignment) -> Alignment:
    """Mirror images turned back: the common reflection first, then the copies that prefer one of their own."""
    sign = np.linalg.det(best.rotations)
    Q = best.rotations.copy()
    if np.sum(sign) < 0:
        Q[:, :, 0] *= -1
        sign = -sign
    if (sign < 0).any():
        X = np.einsum("nij,nik->jk", Q, Y) / len(Y)
        Q = ascend(Y, align(Y, X, "SO").rotations, "SO")
    return replace(_found(Y, Q, best.bound, best.rank, best.result), reflected=int(np.sum(sign < 0)))


def _found(Y: np.ndarray, Q: np.ndarray, bound: float, rank: int, result: Result) -> Alignment:
    total = np.einsum("nij,nik->jk", Q, Y)
    value = float(np.vdot(total, total))
    return Alignment(total / len(Y), Q, value, max(float(bound), value), rank, result)


def _norm(F: np.ndarray) -> float:
    """``|F F^T|`` as a power of two."""
    top = float(np.linalg.eigvalsh(F.T @ F if F.shape[1] <= F.shape[0] else F @ F.T)[-1])
    return float(2.0 ** np.round(np.log2(top))) if top > 0 else 0.0
