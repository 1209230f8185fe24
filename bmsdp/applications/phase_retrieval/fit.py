r"""The rank-k least-squares fit of magnitudes, with x eliminated: ``F(V) = sum_i (|(QV)_i| - b_i)^2`` over V in K^{d x k}.

Over phases, ``|z - QV|^2`` with ``|z_i| = b_i`` is least at ``z_i = b_i (QV)_i / |(QV)_i|``; so half the gradient is
``Q*(QV - z)``, and ``V - Q* z`` where Q is orthonormal. The step ``-half gradient`` is then alternating projections, and it
descends: F is ``|V|^2 + |b|^2`` minus the convex ``2 sum b_i |(QV)_i|``, whence ``F(V + D) <= F(V) + 2 <half gradient, D> + |D|^2``.
Where ``(QV)_i = 0`` F has a concave kink, never met at a minimum; 0 is one of its supergradients there, and is used.

At k = 1 this is phase retrieval. With ``h_i = |(QV)_i| / b_i``, a phase i turned by 180 degrees changes ``min_V |z - QV|^2`` by
``4 b_i^2 (h_i - |q_i|^2)`` at a fixed point of alternating projections: real fits, where no continuous path connects the signs, are
mended by turning signs of rows with ``h_i < |q_i|^2`` (`flip_signs`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from ...lanczos import lanczos
from ...manifolds import Unconstrained
from ...problem import Problem, Term
from .orthonormal import Measurements

LANCZOS_STEPS = 16  # of the spectral start, which has to be good to a few digits only


def row_norms(Z: np.ndarray) -> np.ndarray:
    """``|z_i|`` of the rows of Z in any memory order, (n,)."""
    square = Z.real**2 + Z.imag**2 if np.iscomplexobj(Z) else Z**2
    return np.sqrt(square[:, 0] if Z.shape[1] == 1 else square.sum(axis=1))


class AmplitudeFit(Term):
    """F for the measurements Q and magnitudes b (n,); value and gradient at one V cost one product with Q and one with Q*.

    Attributes
    ----------
    products : int
        Pairs of products so far.
    """

    def __init__(self, measured: Measurements, b: np.ndarray):
        self.measured, self.b, self.products = measured, b, 0
        self._V: np.ndarray | None = None
        self._value, self._half_grad = np.inf, np.zeros(0)

    def _evaluate(self, V: np.ndarray) -> None:
        """Fill the cache for V; it is compared by entries, because solvers may write to their V."""
        if self._V is not None and self._V.shape == V.shape and np.array_equal(self._V, V):
            return
        value = 0.0

        def residual(rows: slice, Z: np.ndarray) -> np.ndarray:
            nonlocal value
            size = row_norms(Z)
            r = size - self.b[rows]
            value += float(r @ r)
            r /= np.where(size > 0, size, 1)
            Z *= r[:, None]
            return Z

        self._half_grad = self.measured.fold(V, residual)
        self._V, self._value = V.copy(), value
        self.products += 1

    def value(self, V: np.ndarray) -> float:
        """``F(V)``."""
        self._evaluate(V)
        return self._value

    def half_grad(self, V: np.ndarray) -> np.ndarray:
        """``Q* (QV - z)``."""
        self._evaluate(V)
        return self._half_grad

    def half_hess(self, V: np.ndarray, U: np.ndarray) -> np.ndarray:
        """``Q* ((1 - b/|z|) (QU)_i + b/|z|^3 Re<z_i, (QU)_i> z_i)`` with ``z = QV``; two products with Q and one with Q*."""
        self.products += 2
        Z, W = self.measured.mul(V), self.measured.mul(U)
        size = row_norms(Z)
        ratio = np.divide(self.b, size, out=np.zeros_like(size), where=size > 0)
        turn = ratio * np.einsum("ij,ij->i", Z.conj(), W).real / np.where(size > 0, size, 1) ** 2
        return self.measured.adj((1 - ratio)[:, None] * W + turn[:, None] * Z)

    def problem(self) -> Problem:
        """``min F`` over K^{d x k}: no cost C, no constraints, this one term; gradients are measured in units of ``2 |V|``."""
        d, dtype = self.measured.d, self.measured.dtype
        zero = sp.csr_array((d, d), dtype=dtype)
        return Problem(zero, Unconstrained(d), terms=(self,), norm_C=1.0, cost_scale=float(self.b @ self.b))

    def scaled(self, V: np.ndarray) -> np.ndarray:
        """The multiple of V that fits best for its directions."""
        size = row_norms(self.measured.mul(V))
        return V * (float(size @ self.b) / max(float(size @ size), 1e-300))


def spectral_start(fit: AmplitudeFit, rng: np.random.Generator) -> np.ndarray:
    """The leading eigenvector of ``sum_i T(y_i) q_i q_i* / |q_i|^2``, (d,), with ``y_i = b_i^2 / |q_i|^2`` in units of its mean.

    ``T(y) = (y - 1) / (y + sqrt(n/d) - 1)``: Mondelli & Montanari 2019, best among such functions for Gaussian measurements.
    """
    measured, b = fit.measured, fit.b
    n, d = measured.n, measured.d
    leverage = measured.leverage()
    size = np.ones(n) if leverage is None else np.maximum(leverage * (n / d), 0.01)
    y = (b / np.linalg.norm(b)) ** 2 * n / size
    weight = (y - 1) / (y + np.sqrt(max(n / d, 1.5)) - 1) / size

    def minus(v: np.ndarray) -> np.ndarray:
        return -measured.fold(v[:, None], lambda rows, Z: weight[rows, None] * Z)[:, 0]

    steps = min(LANCZOS_STEPS, d)
    fit.products += steps
    return lanczos(minus, d, measured.dtype, rng, steps).vectors[:, 0]


def flip_signs(fit: AmplitudeFit, V: np.ndarray, polish: Callable[[np.ndarray], np.ndarray], rounds: int = 100) -> np.ndarray:
    """A real rank-1 fit V (d, 1) that no turn of a single sign improves, or as far as ``rounds`` rounds lead there.

    Turns all signs that would pay alone, or the half of them that would most, and so on down to one, which does pay.
    """
    measured, b = fit.measured, fit.b
    leverage = measured.leverage()
    if leverage is None:
        return V
    for _ in range(rounds):
        z, value = measured.mul(V)[:, 0], fit.value(V)
        gain = b * (b * leverage - np.abs(z))
        order = np.argsort(-gain)
        turned = order[: int(np.sum(gain > 1e-10 * b**2))]
        z = np.where(z < 0, -b, b)
        while turned.size:
            trial = z.copy()
            trial[turned] *= -1
            new = measured.adj(trial[:, None])
            if fit.value(new) < value:
                break
            turned = turned[: turned.size // 2]
        if not turned.size:
            break
        V = polish(new)
    return V
