r"""Which eigenvalues stand out of the noise, and the noise level that the others give.

With j - 1 directions above, the j-th eigenvalue of M in pure noise is that of a (k - j + 1)-dimensional Wishart matrix of ``n = N d`` rows:
about ``d sigma^2 (1 + sqrt(p/n))^2``, ``p = k - j + 1``, give or take Tracy-Widom fluctuations (Johnstone 2001). Directions are tested one
after the other, up to d (as Kritchman & Nadler 2009 do), each at a level of 1 %; a direction of X passes if
``N > d k sigma^4 / s_j^4`` (Baik, Ben Arous, Peche 2005) with something to spare. Where sigma is unknown it is taken from the last k - d
eigenvalues alone, so that directions of X do not pass for noise and hide each other; in pure noise these are the smallest of p, and have
q sigma^2 for their mean, q from the Marchenko-Pastur law, which is divided out.

The noise level, then, is that of the ``k - r`` eigenvalues behind the r detected ones, divided by ``1 - c / N``: the others have soaked up
``c = sum_i (1/d + sigma^2 / s_i^2)``, to leading order in 1/N.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

TRACY_WIDOM = 2.02  # 99 % quantile of the largest eigenvalue of real noise, in its own units
NORMAL = 2.33  # and of a Gaussian
ROUNDING = 64 * 2.0**-52  # relative to the largest eigenvalue: below, an eigenvalue is 0


class Noise(NamedTuple):
    """sigma^2, how many eigenvalues stand out, and where the noise ends for the first that does not."""

    sigma2: float
    rank: int
    edge: float


def known_noise(
    values: np.ndarray, d: int, k: int, level: float, noise2: float, noise4: float, sigma2: float, gaps: float = 0.0
) -> Noise:  # fmt: skip
    """For given noise: its level among eigenvalues, and ``sigma^2 / N``, ``sigma^4 / N``. The rank may exceed d.

    ``gaps`` is sigma times what missing points add to the edge, see `edge_of_gaps`.
    """
    least = ROUNDING * max(float(values[0]), 0.0)
    edge = np.inf
    for j, value in enumerate(values):
        edge = level + gaps
        if noise2 > 0:
            n = d * noise4 / noise2**2
            edge += noise2 * (_largest(n, max(k - j, 1)) - n)
        if not value > max(edge, least):
            return Noise(sigma2, j, edge)
    return Noise(sigma2, len(values), edge)


def estimated_noise(values: np.ndarray, trace: float, d: int, k: int, count: float, gaps: float = 0.0) -> Noise:
    """For unknown noise and k > d; ``count`` is 1/N, ``gaps`` as `edge_of_gaps` gives it."""
    raw = tail_mean(values, trace, d, k)
    if raw <= ROUNDING * max(float(values[0]), 0.0):
        return known_noise(values, d, k, 0.0, 0.0, 0.0, 0.0)
    n, rank, edge = d / count, 0, np.inf
    for j in range(d):
        p = k - j
        spread = NORMAL * np.sqrt(2 / (n * (k - d))) * (np.sqrt(n) + np.sqrt(p)) ** 2  # of the mean that the level is taken from
        level = raw / lower_mean(p / n, (k - d) / p)
        edge = level * count * _largest(n, p, spread) + np.sqrt(level) * gaps
        if not values[j] > edge:
            break
        rank += 1
    sigma2 = unbiased(raw, values[:rank], trace, d, k, count)
    if rank == d:
        behind = known_noise(values[d:], d, k - d, d * sigma2, sigma2 * count, sigma2**2 * count, sigma2, np.sqrt(sigma2) * gaps)
        rank, edge = d + behind.rank, behind.edge
    return Noise(sigma2, rank, float(edge))


def edge_of_gaps(signal: float, observed: float, count: float) -> float:
    """By what, over sigma, missing points push the edge up: entries of M average different copies, so that errors ``sigma <x_a, e_b>`` of
    variance ``2 sigma^2 |X|^2 / k`` do not fit together; ``signal`` is |X|^2.
    """
    return 2 * np.sqrt(2 * max(signal, 0.0) * (1 - observed) * count)


def tail_mean(values: np.ndarray, trace: float, d: int, k: int) -> float:
    """The mean of the last k - d eigenvalues over d; not below 0."""
    return max(float(trace - np.sum(values[:d])), 0.0) / (d * (k - d))


def unbiased(raw: float, above: np.ndarray, trace: float, d: int, k: int, count: float) -> float:
    """sigma^2 from the eigenvalues behind those ``above``, without what these soaked up."""
    if count > 0.5:
        return raw  # one copy has no noise that could be told from its cloud
    left = max(float(trace - np.sum(above)), 0.0) / (d * (k - len(above)))
    out = raw
    for _ in range(5):
        lost = count * float(np.sum(1 / d + out / np.maximum(above - d * out, d * out * count)))
        out = left / max(1 - lost, 0.5)
    return out


def lower_mean(gamma: float, share: float) -> float:
    """The mean of the smallest ``share`` of eigenvalues of noise of mean 1 (Marchenko-Pastur law); positive.

    With ``x = 1 + gamma + 2 sqrt(gamma) cos t`` its density is ``(2/pi) sin(t)^2 / x dt`` on [0, pi], the largest at t = 0.
    """
    t = np.linspace(0, np.pi, 513)
    middle = (t[1:] + t[:-1]) / 2
    mass = np.cumsum(2 / np.pi * np.sin(middle) ** 2 / (1 + gamma + 2 * np.sqrt(gamma) * np.cos(middle))) * (t[1] - t[0])
    cut = float(np.interp(1 - share, np.concatenate([[0.0], mass]), t))
    return max(1 - (cut - np.sin(cut) * np.cos(cut)) / np.pi, 1e-3) / share


def _largest(n: float, p: int, spread: float = 0.0) -> float:
    """99 % quantile of the largest eigenvalue of ``E^T E``, E (n, p); ``spread`` is an independent margin."""
    a, b = np.sqrt(n), np.sqrt(p)
    return float((a + b) ** 2 + np.hypot(TRACY_WIDOM * (a + b) * (1 / a + 1 / b) ** (1 / 3), spread))
