r"""Column secants: many exact pairs (v, C v) of one n x n matrix out of each Hessian product.

``Hess[U] = 2 Proj(S U)`` with ``S = C - A*(mu)`` that acts on all columns of U alike, and of which only ``A*(mu)`` changes when Y moves:
pairs ``(V, C V)`` stay exact, ``S V = C V - A*(mu) V``.  Rayleigh-Ritz on them gives the low end of S: orthonormal V with values
``theta_1 <= ... <= theta_m`` up to sigma, raised to ``delta sigma`` at least.  Elsewhere S is taken for s, the geometric mean of sigma
and the largest Ritz value.  That is ``s (I - V E V*)``, ``E = 1 - theta / s``, and what tCG sees is its compression to the tangent
space, ``s (I - Z E Z*)`` with ``Z w = Proj(V w)``, whose inverse is (Woodbury)

    P U = (U + Proj(V w)) / s,     vec w = (E^-1 - Z* Z)^-1 vec(V* U),     Z* Z = I - Q,

Q the Gram matrix of the normal parts of the ``v_i e_j*``.  Without Q this is the compression of the inverse, which is far from the
inverse of the compression where theta is small: the lowest of V keep their Q, in the columns that Y fills in its own basis.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import lapack

from ..manifolds import Oblique
from ..manifolds.base import as_real
from ..problem import LocalModel, Problem
from .base import DENSE, LONG, Gate, Gated, Map, projected

DIRECTIONS = 5  # of each tCG, if it goes on as long as the last, and at most twice as many
MIXED = 4  # columns of each direction: random combinations of its k
KEPT = 1.25  # Ritz vectors that stay, in units of those in use
COUPLED = 100  # order of E^-1 - Z* Z at most
DEPENDENT = 1e-10  # squared singular values below this part of the largest
ACTIVE = 1e-3  # singular values of Y above this part of the largest: the columns that it fills


class Column(Gated):
    """V and C V, and the directions of the last tCG."""

    def __init__(self, problem: Problem, memory: int, base: Any, gate: Gate, delta: float):
        super().__init__(problem, gate, self._map)
        self.memory, self.base, self.delta = memory, base, delta
        self.rng = np.random.default_rng(0)
        self.V = np.empty((problem.n, 0), problem.dtype)
        self.CV = self.V
        self.pairs: list[tuple[np.ndarray, np.ndarray]] = []
        self.seen, self.stride = 0, 1

    def product(self, model: LocalModel, delta: np.ndarray) -> np.ndarray:
        self.seen += 1
        if self.seen % self.stride or self.gate == "auto" and 2 * self.length < LONG:
            return model.hess(delta)
        Cdelta, k = self.problem.C.mul(delta), delta.shape[1]
        mix = self.rng.standard_normal((k, min(MIXED, k))) / max(float(np.linalg.norm(delta)), 1e-300)
        self.pairs.append((delta @ mix, Cdelta @ mix))
        if len(self.pairs) == 2 * DIRECTIONS:
            self.pairs, self.stride = self.pairs[1::2], 2 * self.stride
        return model.hess(delta, Cdelta)

    def closed(self) -> None:
        self.pairs = []
        self.seen, self.stride = 0, max(1, self.iterations // DIRECTIONS)  # at its length

    def costs(self, model: LocalModel) -> tuple[float, float]:
        n, k = model.Y.shape
        m, width = self.memory, self.V.shape[1] + len(self.pairs) * min(MIXED, k)
        field = 4 if self.problem.C.is_complex else 1
        return field * n * k * (4 * m * DENSE + 5), field * width**2 * (7 * n * DENSE + 4 * width)

    def update(self, model: LocalModel) -> np.ndarray:
        """Rayleigh-Ritz on the pairs held and the new ones, of which the lower are kept; all Ritz values."""
        V, CV = self.V, self.CV
        if self.pairs:
            W, CW = (np.concatenate(part, axis=1) for part in zip(*self.pairs, strict=True))
            for _ in range(2):  # twice is enough
                X = V.conj().T @ W
                W, CW = W - V @ X, CW - CV @ X
                g, T = np.linalg.eigh(W.conj().T @ W)
                kept = g > DEPENDENT * max(g[-1], 1e-300)
                T = T[:, kept] / np.sqrt(g[kept])
                W, CW = W @ T, CW @ T
            V, CV = np.concatenate([V, W], axis=1), np.concatenate([CV, CW], axis=1)
        self.closed()
        if not V.shape[1]:
            return np.zeros(0)
        theta, T = np.linalg.eigh(V.conj().T @ model.slack_mul(V, CV))
        T = T[:, : int(KEPT * self.memory)]
        self.V, self.CV = V @ T, CV @ T
        return theta

    def _map(self, model: LocalModel) -> Map | None:
        theta = self.update(model)
        m = min(self.memory, len(theta) - 1)
        if m < 1 or theta[m] <= 0 or theta[0] < -0.05 * theta[m]:
            return None
        V, low = np.ascontiguousarray(self.V[:, :m]), np.clip(theta[:m], self.delta * theta[m], 0.999 * theta[m])
        if self.base is not None:
            return based(model, V, low, self.base(model))
        middle = float(np.sqrt(theta[m] * theta[-1]))
        inner = coupling(model, V, low / (middle - low), self.length * self.step_cost)
        Vh, manifold, scale = np.ascontiguousarray(V.conj().T), model.problem.manifold, 0.5 / middle

        def apply(U: np.ndarray) -> np.ndarray:
            Z = V @ inner(Vh @ U)
            if type(manifold) is Oblique:
                from ..kernels.tangent import oblique_add

                oblique_add(Z, U, model.Y, manifold.b, scale)
                return Z
            Z = projected(model, Z)
            Z += U
            Z *= scale
            return Z

        return apply


def based(model: LocalModel, V: np.ndarray, low: np.ndarray, base: Map) -> Map:
    """``Proj (V low^-1 V* / 2 + (I - V V*) base (I - V V*))``, definite where base is."""
    Vh, inverse = np.ascontiguousarray(V.conj().T), 0.5 / low[:, None]

    def apply(U: np.ndarray) -> np.ndarray:
        w = Vh @ U
        Z = base(U - V @ w)
        return projected(model, Z + V @ (inverse * w - Vh @ Z))

    return apply


def coupling(model: LocalModel, V: np.ndarray, F: np.ndarray, budget: float) -> Map:
    """``vec w -> (diag(F) + Q)^-1 vec w`` for m x k arrays w, ``F = E^-1 - 1``; Q = 0 where its flops exceed the budget."""
    Y, inverse = model.Y, 1 / F[:, None]
    size, R = np.linalg.eigh(Y.conj().T @ Y)
    R = np.ascontiguousarray(R[:, ::-1])  # Y R has orthogonal columns, the long ones first
    r = int(np.sum(size > ACTIVE**2 * size[-1]))
    field = 2 if np.iscomplexobj(V) else 1
    count = min(len(F), COUPLED // (field * r))
    order = field * count * r
    oblique = type(model.problem.manifold) is Oblique
    cost = order**2 * (2 * len(Y) * DENSE + order) if oblique else order * (40.0 * Y.size + model.problem.manifold.m * order)
    if count == 0 or cost > budget:
        return lambda w: inverse * w
    Q = oblique_gram(model, V[:, :count], R[:, :r]) if oblique else normal_gram(model, V[:, :count], R[:, :r])
    Q[np.diag_indices_from(Q)] += np.repeat(F[:count], field * r)
    L, failed = lapack.dpotrf(Q, lower=1)
    if failed:
        return lambda w: inverse * w
    T = np.tril(lapack.dpotri(L, lower=1)[0])
    T, Rh = T + np.tril(T, -1).T, np.ascontiguousarray(R.conj().T)

    def apply(w: np.ndarray) -> np.ndarray:
        w = w @ R
        coupled = w[:count, :r].copy()
        w *= inverse
        w[:count, :r] = (T @ as_real(coupled).ravel()).view(w.dtype).reshape(count, r)
        return w @ Rh

    return apply


def oblique_gram(model: LocalModel, V: np.ndarray, R: np.ndarray) -> np.ndarray:
    """Q on spheres, where the normal part of ``v_i r_j*`` in row l is ``Re(v_li conj((Y R)_lj)) y_l / b_l``; by 1024 rows."""
    YR = (model.Y @ R).conj() / model.problem.manifold.radius[:, None]  # type: ignore[attr-defined]
    order = (2 if np.iscomplexobj(V) else 1) * V.shape[1] * R.shape[1]
    Q = np.zeros((order, order))
    for s in range(0, len(V), 1024):
        M = V[s : s + 1024, :, None] * YR[s : s + 1024, None, :]
        if np.iscomplexobj(M):
            M = np.stack([M.real, -M.imag], axis=-1)
        M = M.reshape(len(M), -1)
        Q += M.T @ M
    return Q


def normal_gram(model: LocalModel, V: np.ndarray, R: np.ndarray) -> np.ndarray:
    """Q on any manifold, ``Q_ab = nu_a . A(Y, z_b)`` for the multipliers nu_a of ``z_a = v_i r_j*`` (and i times it)."""
    manifold, Y = model.problem.manifold, model.Y
    multipliers, images = [], []
    for v in V.T:
        for r in R.T:
            for unit in (1, 1j) if np.iscomplexobj(V) else (1,):
                Z = unit * np.outer(v, r.conj())
                multipliers.append(manifold.multipliers(Y, Z, model.factor))
                images.append(manifold.apply(Y, Z))
    Q = np.array(multipliers) @ np.array(images).T
    return (Q + Q.T) / 2
