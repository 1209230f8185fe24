r"""From the mean Gram matrix to the cloud: noise level, rank, thin factor.

With eigenvalues ``lambda_1 >= lambda_2 >= ...`` of M (k, k),

    sigma_hat^2 = (tr M - sum_{i <= d} lambda_i) / (d (k - d)),     X_hat = diag(lambda_i - d sigma_hat^2)_+^{1/2} V_d^T.

with sigma^2 freed of its bias as `detection` says, which also says how many directions stand out. Let ``gamma = k / (N d)``.

``shrink`` replaces ``(lambda - d sigma^2)^{1/2}`` by what is best for a spike in noise (Frobenius loss): with ``y = lambda / (d sigma^2)``
and ``l = (y + 1 - gamma + sqrt((y + 1 - gamma)^2 - 4 y)) / 2``, the debiased size is ``s^2 = d sigma^2 (l - 1)``, the cosine between true
and estimated direction ``c^2 = (1 - gamma / (l - 1)^2) / (1 + gamma / (l - 1))``, and the singular value s c, or 0 below the edge.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np

from .detection import edge_of_gaps, estimated_noise, known_noise, tail_mean
from .gram import Moments

LARGE = 2000  # size from which a few eigenvalues are found by Lanczos instead of all


@dataclass(frozen=True)
class Spectrum:
    """Leading eigenvalues of M (of ``M - d sigma^2 I`` where the noise was subtracted already), and what is known of the noise."""

    values: np.ndarray
    """Descending: all, or the first d + 1 at least."""
    vectors: np.ndarray
    """V (k', d)."""
    d: int
    k: int
    sigma2: float
    rank: int
    """How many eigenvalues stand out of the noise; may exceed d."""
    edge: float
    """Where the noise ends, for the next of them."""
    level: float
    """What the noise adds to the eigenvalues: ``d sigma^2``, or 0 where it was subtracted."""
    noise2: float
    noise4: float
    """``sigma^2 / N`` and ``sigma^4 / N`` (weighted means)."""

    @property
    def gamma(self) -> float:
        """k / (N d), with the effective N."""
        return self.k * self.noise2**2 / (self.noise4 * self.d) if self.noise4 > 0 else 0.0

    def signal(self) -> np.ndarray:
        """``s_i^2`` without the noise that the first d eigenvalues soak up; 0 where a direction does not stand out, (d,)."""
        return self._spikes()[0]

    def _spikes(self) -> tuple[np.ndarray, np.ndarray]:
        """``(s^2, c^2)`` of the spiked model."""
        lam = self.values[: self.d]
        if self.noise2 == 0:
            return np.maximum(lam - self.level, 0.0), np.ones(self.d)
        unit, gamma = self.d * self.noise4 / self.noise2, self.gamma
        y = (lam - self.level) / unit + 1
        half = y + 1 - gamma
        above = y > (1 + np.sqrt(gamma)) ** 2
        ell = 0.5 * (half + np.sqrt(np.where(above, np.maximum(half**2 - 4 * y, 0), 0)))
        excess = np.where(above, np.maximum(ell - 1, np.sqrt(gamma)), np.inf)
        cosine = (1 - gamma / excess**2) / (1 + gamma / excess)
        return np.where(above, unit * (np.where(above, ell, 1) - 1), 0.0), np.where(above, cosine, 0.0)

    def factor(self, shrink: bool = False) -> np.ndarray:
        """X_hat (d, k'), rows from large to small, the largest entry of each positive."""
        square, cosine = self._spikes() if shrink else (np.maximum(self.values[: self.d] - self.level, 0.0), np.ones(self.d))
        V = self.vectors * np.where(self.vectors[np.argmax(np.abs(self.vectors), axis=0), np.arange(self.d)] < 0, -1.0, 1.0)
        return np.asarray(np.sqrt(square * cosine)[:, None] * V.T)


def spectrum(m: Moments, d: int, sigma: float | None) -> Spectrum:
    """Eigenvalues and noise of M; sigma None: estimated, unless every copy came with its own."""
    k = m.k
    if k < d:
        raise ValueError(f"k' = {k} points (shifts cost one) in R^{d}; at least d are needed")
    if k == d and sigma is None and not m.debiased:
        raise ValueError(f"sigma can be estimated only from k > d points (k - 1 > d with center=True); got {k} for d = {d}: give sigma")
    count = m.inverse_count / m.observed
    if m.debiased or sigma is not None:
        sigma2 = m.noise2 / m.inverse_count if m.debiased else float(sigma or 0.0) ** 2
        level = 0.0 if m.debiased else d * sigma2
        noise2, noise4 = (m.noise2, m.noise4) if m.debiased else (sigma2 * m.inverse_count, sigma2**2 * m.inverse_count)
        noise2, noise4 = noise2 / m.observed, noise4 / m.observed
        values, V = leading(m, d, level)
        gaps = np.sqrt(sigma2) * edge_of_gaps(m.trace - k * level, m.observed, count)
        noise = known_noise(values, d, k, level, noise2, noise4, sigma2, gaps)
        return Spectrum(values, V, d, k, *noise, level, noise2, noise4)
    if m.sketch is None:
        values, V = leading(m, d, 0.0)
    else:
        raw = m.trace / (d * k)
        for _ in range(30):
            values, V = leading(m, d, d * raw)
            raw, before = tail_mean(values, m.trace, d, k), raw
            if abs(raw - before) <= 1e-9 * before:
                break
    gaps = edge_of_gaps(float(np.sum(values[:d])), m.observed, count)
    noise = estimated_noise(values, m.trace, d, k, count, gaps)
    sigma2 = noise.sigma2
    return Spectrum(values, V, d, k, *noise, d * sigma2, sigma2 * count, sigma2**2 * count)


def leading(m: Moments, d: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of M, descending, and the first d vectors; those of a sketch from ``(M - level I) Omega``."""
    if m.matrix is not None:
        return _of_matrix(m.matrix, d)
    if m.stack is not None:
        return _of_stack(m.stack, d, m.level)
    assert m.sketch is not None
    S, omega = m.sketch
    S = S - level * omega
    U = np.linalg.svd(S, full_matrices=False)[0] if S.shape[1] <= 200 else _truncated(S.T, d + 1)[1].T
    V = U[:, : d + 1]
    A, B = V.T @ S, V.T @ omega
    core = np.linalg.solve(B @ B.T, B @ A.T)
    values, W = np.linalg.eigh((core + core.T) / 2)
    return values[::-1] + level, V @ W[:, : -d - 1 : -1]


def _of_matrix(M: np.ndarray, d: int) -> tuple[np.ndarray, np.ndarray]:
    """All eigenvalues where that is cheap, else d + 2 by Lanczos."""
    k = len(M)
    if k > LARGE:
        from scipy.sparse.linalg import ArpackNoConvergence, eigsh

        with contextlib.suppress(ArpackNoConvergence):
            values, V = eigsh(M, d + 2, which="LA", v0=np.ones(k) + 0.1 * np.cos(np.arange(k)))
            order = np.argsort(-values)
            return values[order], V[:, order[:d]]
    values, V = np.linalg.eigh(M)
    return values[::-1], V[:, : -d - 1 : -1]


def _of_stack(F: np.ndarray, d: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """From F itself: its Gram matrix of rows where that is small, else a truncated SVD."""
    rows, k = F.shape
    if rows > LARGE:
        s, Vt = _truncated(F, d + 2)
        return s**2 - level, Vt[:d].T
    values, U = np.linalg.eigh(F @ F.T)
    values, U = values[::-1], U[:, ::-1]
    V, take = np.zeros((k, d)), min(d, rows)
    V[:, :take] = F.T @ U[:, :take]
    V[:, :take] /= np.maximum(np.linalg.norm(V[:, :take], axis=0), 1e-300)
    return np.concatenate([values, np.zeros(max(d + 1 - rows, 0))]) - level, V


def _truncated(F: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` largest singular values and right singular vectors."""
    from scipy.sparse.linalg import svds

    least = min(F.shape)
    _, s, Vt = svds(F, k=count, v0=np.ones(least) + 0.1 * np.cos(np.arange(least)), solver="arpack")
    order = np.argsort(-s)
    return s[order], Vt[order]
