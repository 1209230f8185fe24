"""Outliers by graduated non-convexity (Yang, Antonante, Tzoumas & Carlone 2020; Black & Rangarajan 1996).

A robust loss ``rho(r_e)`` is the minimum over weights ``0 <= u_e <= 1`` of ``u_e r_e^2`` and a penalty on u. Its convexity is released by
mu: the blocks are found for given u, u in closed form for given blocks, and mu moves on, until the loss is the one asked for. With c the
largest residual of an inlier:

    truncated least squares   rho = min(r^2, c^2),            u = 1 below, 0 above, c/r sqrt(mu (mu + 1)) - mu between
                                                              r^2 = c^2 mu/(mu + 1) and c^2 (mu + 1)/mu;  mu grows
    Geman-McClure             rho = c^2 r^2 / (c^2 + r^2),    u = (mu c^2 / (r^2 + mu c^2))^2;             mu falls to 1

It is a heuristic: no bound holds for the choice of u, only for the blocks given u.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .measurements import Measurements

FACTOR = 1.4  # of mu, from one round to the next, as in the paper
ROUNDS = 100
BRIDGE = 1e-3  # weight left to rejected edges that alone hold two parts together
LOSSES = ("tls", "gm")


def reweighted(
    data: Measurements, loss: str, c: np.ndarray, trusted: np.ndarray, fit: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, int]:
    """The factors u (E,) of the weights, and the number of rounds; ``fit(u)`` returns blocks (n, d, d).

    Parameters
    ----------
    c : array (E,), the largest residual ``|R_i - M_e R_j|_F`` of an inlier
    trusted : bool array (E,), edges whose factor stays 1
    """
    u = np.ones(len(c))
    r2 = data.residuals(fit(u)) ** 2
    worst = float(np.max(np.where(trusted, 0.0, r2 / c**2), initial=0.0))
    if worst <= (1.0 if loss == "tls" else 1e-12):
        return u, 1
    mu = 1 / (2 * worst - 1) if loss == "tls" else 2 * worst
    rounds = 1
    while rounds < ROUNDS:
        rounds += 1
        before, u = u, np.where(trusted, 1.0, _tls(r2, c, mu) if loss == "tls" else _gm(r2, c, mu))
        ended = np.isin(u, (0.0, 1.0)).all() if loss == "tls" else mu == 1 and np.abs(u - before).max() <= 1e-3
        if ended and np.array_equal(u > 0, before > 0):
            break
        r2 = data.residuals(fit(bridged(data, u))) ** 2
        mu = mu * FACTOR if loss == "tls" else max(mu / FACTOR, 1.0)
    return u, rounds


def _tls(r2: np.ndarray, c: np.ndarray, mu: float) -> np.ndarray:
    ratio = r2 / c**2
    between = np.sqrt(mu * (mu + 1) / np.maximum(ratio, 1e-300)) - mu
    return np.where(ratio <= mu / (mu + 1), 1.0, np.where(ratio >= (mu + 1) / mu, 0.0, np.clip(between, 0.0, 1.0)))


def _gm(r2: np.ndarray, c: np.ndarray, mu: float) -> np.ndarray:
    return (mu / (r2 / c**2 + mu)) ** 2


def bridged(data: Measurements, u: np.ndarray) -> np.ndarray:
    """A copy of u in which edges between parts that the edges of ``u > 1e-6`` leave apart have a small weight."""
    kept = u > 1e-6
    graph = coo_array((np.ones(kept.sum()), (data.i[kept], data.j[kept])), shape=(data.n, data.n))
    count, label = connected_components(graph, directed=False)
    out = np.where(kept, u, 0.0)
    if count > 1:
        out[~kept & (label[data.i] != label[data.j])] = BRIDGE
    return out
