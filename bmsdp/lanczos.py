"""Lanczos from a fresh random start, with a failure probability (floor L4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .manifolds.base import gaussian

LOOKS = (64, 90, 128, 181, 256, 362, 512, 724, 1024, 1448, 2048)  # steps at which a run may find that it has enough
BASIS_LIMIT = 1.5e8  # stored basis entries; beyond, no reorthogonalisation (Ritz values stay inside the spectrum)


@dataclass(frozen=True)
class Ritz:
    """Ritz values of a Hermitian operator on the orthogonal complement of ``deflate``.

    Attributes
    ----------
    values : ndarray
        Ascending.
    vectors : ndarray, n x p
        Unit Ritz vectors of the p lowest values.
    steps : int
    dimension : int
        Real dimension of the space the random start was drawn from.
    exhausted : bool
        The Krylov space became invariant: the values are eigenvalues.
    residuals : ndarray, (p,)
        Residual norms of these pairs.
    """

    values: np.ndarray
    vectors: np.ndarray
    steps: int
    dimension: int
    exhausted: bool
    residuals: np.ndarray

    def lower_bound(self, failure: float) -> float:
        """A lower bound on the smallest eigenvalue, wrong with probability at most ``failure``.

        Kuczynski and Wozniakowski, SIAM J. Matrix Anal. Appl. 13 (1992), Theorem 4.1(b), whose error is relative to the spread of
        the spectrum: applied to both ends it bounds the spread as well.  -inf where the steps do not suffice for that.
        """
        span = float(self.values[-1] - self.values[0])
        eps = relative_error(self.steps, self.dimension, failure)
        rounding = 1e-14 * float(np.abs(self.values).max())
        if self.exhausted:  # invariant up to 1e-13 of the norm (`lanczos`): eigenvalues of a matrix as near as that
            return float(self.values[0] - self.residuals[0]) - 50 * rounding
        return float(self.values[0]) - eps / (1 - 2 * eps) * span - rounding if eps < 0.49 else -np.inf


def start_rng(rng: Any) -> np.random.Generator:
    """A Generator as it is; for a seed a stream of its own, lest the start be the very numbers that a random Y was drawn from."""
    seed = rng is None or isinstance(rng, (int, np.integer))
    return np.random.default_rng(np.random.SeedSequence(None if rng is None else int(rng), spawn_key=(1,)) if seed else rng)


def relative_error(steps: int, dimension: int, failure: float) -> float:
    """The error of Lanczos at one end of the spectrum, as a part of its spread, but for probability ``failure / 2``."""
    return float((np.log(1.648 * np.sqrt(dimension) * 2 / failure) / (2 * steps - 1)) ** 2)


def lanczos(
    mul: Callable[[np.ndarray], np.ndarray],
    n: int,
    dtype: np.dtype,
    rng: np.random.Generator,
    steps: int,
    *,
    deflate: np.ndarray | None = None,
    vectors: int = 1,
    enough: Callable[[Ritz], bool] | None = None,
    stop: Callable[[], bool] | None = None,
    again: bool = False,
) -> Ritz:
    """Run Lanczos with ``mul`` on the complement of the orthonormal columns ``deflate`` (n x r).

    At the steps `LOOKS` ``enough(ritz)`` may end it, from 64 steps on ``stop()`` may as well.  Cost: ``steps`` products,
    ``2 n steps^2`` flops and ``n steps`` numbers for the reorthogonalisation (left out where that storage is too large; Ritz
    vectors then only with ``again``, from as many products again).
    """
    Q = np.zeros((n, 0), dtype) if deflate is None else deflate
    free = n - Q.shape[1]
    if free < 1 or steps < 1:
        raise ValueError(f"no step to take: the deflated space is the whole space, or steps = {steps} < 1")
    steps = min(steps, free)
    store = n * steps <= BASIS_LIMIT
    basis = np.empty((steps if store else 1, n), dtype)

    def complement(w: np.ndarray) -> np.ndarray:
        return w - Q @ (Q.conj().T @ w) if Q.shape[1] else w

    q = complement(gaussian(rng, (n,), dtype))
    q = complement(q / np.linalg.norm(q))
    q /= np.linalg.norm(q)
    start = q
    alpha, beta, previous = np.zeros(steps), np.zeros(steps), np.zeros_like(q)
    exhausted, scale = free <= 1, 0.0
    for j in range(steps):
        basis[j if store else 0] = q
        w = complement(mul(q))
        alpha[j] = np.vdot(q, w).real
        w = w - alpha[j] * q - (beta[j - 1] if j else 0.0) * previous
        beta[j] = np.linalg.norm(w)
        for _ in range(3 if store else 0):  # twice is enough (Daniel, Gragg, Kaufman, Stewart, 1976), once unless much cancels
            V = basis[: j + 1]
            w = complement(w - V.T @ (V.conj() @ w))
            before, beta[j] = beta[j], np.linalg.norm(w)
            if beta[j] > 0.7 * before:
                break
        scale = max(scale, abs(alpha[j]), beta[j])
        exhausted = exhausted or j + 1 == free or beta[j] <= 1e-13 * scale
        last = exhausted or j + 1 == steps or (stop is not None and j + 1 >= LOOKS[0] and j % 8 == 7 and stop())
        if last or (enough is not None and j + 1 in LOOKS):
            ritz = _ritz(alpha[: j + 1], beta[: j + 1], basis if store else None, vectors, free, exhausted, dtype)
            if last or (enough is not None and enough(ritz)):
                if store or not again:
                    return ritz
                V = _vectors_again(lambda v: complement(mul(v)), start, alpha[: j + 1], beta[: j + 1], min(vectors, j + 1))
                return replace(ritz, vectors=V)
        previous, q = q, w / beta[j]
    raise AssertionError("the last step returns")


def _vectors_again(
    mul: Callable[[np.ndarray], np.ndarray], q: np.ndarray, alpha: np.ndarray, beta: np.ndarray, vectors: int
) -> np.ndarray:
    """The lowest Ritz vectors (n x vectors) of a run whose basis was not stored: the same recurrence once more."""
    from scipy.linalg import eigh_tridiagonal

    s = eigh_tridiagonal(alpha, beta[:-1])[1] if len(alpha) > 1 else np.ones((1, 1))
    V, previous = np.zeros((len(q), vectors), q.dtype), np.zeros_like(q)
    for j in range(len(alpha)):
        V += q[:, None] * s[j, :vectors]
        w = mul(q) - alpha[j] * q - (beta[j - 1] if j else 0.0) * previous
        previous, q = q, w / beta[j] if beta[j] > 0 else w
    return V / np.linalg.norm(V, axis=0)


def _ritz(
    alpha: np.ndarray, beta: np.ndarray, basis: np.ndarray | None, vectors: int, free: int, exhausted: bool, dtype: np.dtype
) -> Ritz:
    from scipy.linalg import eigh_tridiagonal

    values, s = eigh_tridiagonal(alpha, beta[:-1]) if len(alpha) > 1 else (alpha.copy(), np.ones((1, 1)))
    p = min(vectors, len(alpha))
    V = np.zeros((0, 0), dtype) if basis is None else basis[: len(alpha)].T @ s[:, :p]
    complex_ = np.dtype(dtype).kind == "c"
    return Ritz(values, V, len(alpha), 2 * free if complex_ else free, exhausted, beta[-1] * np.abs(s[-1, :p]))
