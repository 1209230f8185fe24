r"""What error to expect, and when alignment works: formulas in the singular values s_1 >= ... >= s_d of X (d, k).

To leading order in 1/N, for the Gram estimator with sigma known,

    E rho^2  =  (sigma^2 / N) D  +  (d sigma^4 / N) B,       D = d k - d (d - 1) / 2,
    B = (k - d) sum_i 1/s_i^2 + sum_{i <= j} 1 / (s_i^2 + s_j^2),

and ``d sigma^4 / (2 N (k - d)) sum_i 1/s_i^2`` more where sigma is estimated. The first term is the risk of one who knows the rotations,
the second the Cramer-Rao bound for sigma -> infinity: both rates, and their constants, are the best possible. They cross at
``sigma^2 = D / (d B)``. Least-squares alignment has no second term but a floor that no N removes,

    rho^2  ->  (sigma^4 / 4) sum_i s_i^2 (sum_{j != i} 1 / (s_i^2 + s_j^2))^2,

so it is worse beyond ``N* = d B / (floor / sigma^4)`` copies (d = 1 has no floor).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .geometry import as_cloud


def dimension(d: int, k: int) -> int:
    """D, the dimension of clouds (d, k) up to O(d)."""
    return d * k - d * (d - 1) // 2


def _squares(X: np.ndarray) -> np.ndarray:
    return np.linalg.svd(X, compute_uv=False) ** 2


def curvature(squares: np.ndarray, k: int) -> float:
    """B, from ``s_i^2``; inf where one is 0."""
    s = np.asarray(squares, float)
    if not (s > 0).all():
        return np.inf
    pairs = s[:, None] + s
    return float((k - len(s)) * np.sum(1 / s) + np.sum(np.triu(1 / pairs)))


def expected_mse(X: Any, sigma: float, N: int, sigma_known: bool = True) -> float:
    """``E rho(X, X_hat)^2`` of the Gram estimator from N copies, to leading order in 1/N.

    Parameters
    ----------
    X : array_like, (d, k)
        Of rank d; inf comes back where it is not and sigma > 0.
    sigma : float
    N : int
    sigma_known : bool
        False adds what estimating sigma costs; needs k > d.

    Notes
    -----
    Within 7 % for sigma up to 4 s_d / sqrt(d) and N large enough for the answer to be below |X|^2; beyond, X is lost in the noise. For
    centred clouds pass ``X C``, (d, k - 1), C an orthonormal basis of the complement of the ones.
    """
    X = as_cloud(X, "X")
    if not (np.isfinite(sigma) and sigma >= 0 and N >= 1):
        raise ValueError(f"sigma = {sigma}, N = {N}; sigma >= 0 and N >= 1 are needed")
    if not sigma_known and X.shape[1] <= X.shape[0]:
        raise ValueError(f"X has shape {X.shape}: sigma can be estimated for k > d points only")
    return mse(_squares(X), X.shape[1], sigma**2 / N, sigma**4 / N, sigma_known)


def mse(squares: np.ndarray, k: int, noise2: float, noise4: float, sigma_known: bool) -> float:
    """The formula, from ``s_i^2`` and mean ``sigma^2 / N``, ``sigma^4 / N``."""
    d = len(squares)
    if noise2 == 0:
        return 0.0
    more = 0.0 if sigma_known else float(np.sum(1 / np.where(squares > 0, squares, np.nan))) / (2 * (k - d))
    return noise2 * dimension(d, k) + d * noise4 * (curvature(squares, k) + np.nan_to_num(more, nan=np.inf))


def guaranteed_mse(X: Any, sigma: float, N: int) -> float:
    """A bound on ``E rho^2`` for every N and sigma, sigma known: ``4.83 / (N s_d^2) (2 sigma^2 (k+1) |X|^2 + d sigma^4 k (k+1))``.

    From ``rho^2 <= |G_hat - G|^2 / (2 (sqrt 2 - 1) s_d^2)`` (Tu et al. 2016) and ``|G_hat - G| <= 2 |M - E M|``; 25 to 250 times too large.
    """
    X = as_cloud(X, "X")
    (d, k), s = X.shape, _squares(X)
    variance = (2 * sigma**2 * (k + 1) * float(np.sum(s)) + d * sigma**4 * k * (k + 1)) / N
    return 2 / (np.sqrt(2) - 1) * variance / float(s[-1]) if s[-1] > 0 else np.inf


def alignment_floor(X: Any) -> float:
    """What ``rho^2 / sigma^4`` of least-squares alignment tends to for N -> infinity, to leading order in sigma; 0 for d = 1."""
    return floor_of(_squares(as_cloud(X, "X")))


def floor_of(squares: np.ndarray) -> float:
    pairs = squares[:, None] + squares
    inverse = np.divide(1.0, pairs, out=np.zeros_like(pairs), where=pairs > 0)
    np.fill_diagonal(inverse, 0)
    return float(np.sum(squares * inverse.sum(axis=1) ** 2)) / 4


def alignment_limit(X: Any) -> float:
    """``N*``: with more copies than this, alignment is worse than the Gram matrix, however small sigma; inf for d = 1."""
    X = as_cloud(X, "X")
    return limit_of(_squares(X), X.shape[1])


def limit_of(squares: np.ndarray, k: int) -> float:
    floor = floor_of(squares)
    return len(squares) * curvature(squares, k) / floor if floor > 0 else np.inf


def crossover(X: Any) -> float:
    """The sigma at which both terms of the risk are equal, about ``s_d / sqrt(d)``: from there on rotations cannot be estimated."""
    X = as_cloud(X, "X")
    d, k = X.shape
    return float(np.sqrt(dimension(d, k) / (d * curvature(_squares(X), k))))


def copies_needed(X: Any, sigma: float, error: float) -> int:
    """The N at which `expected_mse` is ``error^2``, ``error`` in the units of X."""
    if not error > 0:
        raise ValueError(f"error = {error}; a positive distance is needed")
    return max(1, int(np.ceil(expected_mse(X, sigma, 1) / error**2)))
