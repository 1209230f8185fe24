r"""Which of two mirror images: the Gram matrix cannot tell, third moments (of d = 3) can.

For rotations Q_i in SO(d), ``E det(Y_i X^T) = det(X X^T)``, because the determinant is linear in each row and E has mean 0; the mirror
image of X has the other sign. With ``S = X X^T`` and elementary symmetric functions e_m of its eigenvalues,

    E det(Y X^T)^2 = det(S) sum_{j=0}^d sigma^{2j} j! e_{d-j}(S),

so in high noise a z-score of z takes ``z^2 sigma^{2d} d! / det(S)`` copies: sigma^6 for d = 3, where the cloud itself takes sigma^4.
"""

from __future__ import annotations

from math import factorial
from typing import Any

import numpy as np

from .geometry import as_cloud, as_copies


def chirality(Y: Any, X: Any, weights: Any = None) -> tuple[float, float]:
    """The mean of ``det(Y_i X^T)`` and its z-score: positive if Y are rotated copies of X, negative if of its mirror image.

    Parameters
    ----------
    Y : array_like, (N, d, k)
        Copies that X was not fitted to; those that it was give a slightly biased score.
    X : array_like, (d, k)
    weights : array_like, (N,), optional

    Returns
    -------
    mean, z : float
        z is nan for a single copy, or where all determinants are 0.
    """
    X = as_cloud(X, "X")
    determinants = np.linalg.det(as_copies(Y, *X.shape) @ X.T)
    w = np.ones(len(determinants)) if weights is None else np.asarray(weights, float)
    total = float(np.sum(w))
    mean = float(w @ determinants) / total
    error = np.sqrt(float(np.sum((w * (determinants - mean)) ** 2))) / total
    if len(determinants) > 1:
        error *= np.sqrt(len(determinants) / (len(determinants) - 1))
    if len(determinants) == 1 or not np.any(determinants):
        return mean, np.nan
    return mean, mean / error if error > 0 else float(np.copysign(np.inf, mean))


def chirality_second_moment(X: Any, sigma: float) -> float:
    """``E det(Y X^T)^2`` of one copy."""
    X = as_cloud(X, "X")
    d = len(X)
    S = X @ X.T
    elementary = np.abs(np.poly(np.linalg.eigvalsh(S)))  # e_0, ..., e_d
    return float(np.linalg.det(S) * sum(sigma ** (2 * j) * factorial(j) * elementary[d - j] for j in range(d + 1)))
