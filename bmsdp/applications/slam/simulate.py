"""Pose graphs with known truth, seeded: a sphere, a torus, grids, and walks on city blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from .graph import PoseGraph


def perturb(R: Any, t: Any, edges: Any, kappa: float, tau: float, rng: Any = None) -> PoseGraph:
    """Measurements of true poses along edges: Gaussian translations of precision tau, rotations by Gaussian angles.

    Angles per axis have variance ``1 / (2 kappa)``, which gives the misfit ``kappa |R_j - R_i R_ij|^2`` the mean of a Gaussian one with
    precision kappa; ``kappa = inf`` or ``tau = inf`` means exact measurements (of weight 1).

    Parameters
    ----------
    R, t : (n, d, d), (n, d)
    edges : (m, 2) of int
    rng : Generator or seed
    """
    rng, R, t, ij = np.random.default_rng(rng), np.asarray(R, float), np.asarray(t, float), np.asarray(edges)
    (i, j), d, m = ij.T, t.shape[1], len(ij)
    turn = np.einsum("nqp,nqr->npr", R[i], R[j])
    move = np.einsum("nqp,nq->np", R[i], t[j] - t[i])
    angles = rng.standard_normal((m, d * (d - 1) // 2))
    shifts = rng.standard_normal((m, d))
    if np.isfinite(kappa):
        turn = turn @ rotations(angles / np.sqrt(2 * kappa))
    if np.isfinite(tau):
        move = move + shifts / np.sqrt(tau)
    kappas, taus = (np.full(m, w if np.isfinite(w) else 1.0) for w in (kappa, tau))
    return PoseGraph(ij, turn, move, kappas, taus, n=len(t), poses=(R, t))


def rotations(angles: np.ndarray) -> np.ndarray:
    """Rotations by angles (n, 1), or of axes times angles (n, 3) (Rodrigues)."""
    if angles.shape[1] == 1:
        c, s = np.cos(angles[:, 0]), np.sin(angles[:, 0])
        return np.stack([c, -s, s, c], axis=1).reshape(-1, 2, 2)
    size = np.linalg.norm(angles, axis=1)
    x, y, z = angles.T
    o = np.zeros_like(x)
    K = np.stack([o, -z, y, z, o, -x, -y, x, o], axis=1).reshape(-1, 3, 3)
    a, b = np.sinc(size / np.pi), 0.5 * np.sinc(size / (2 * np.pi)) ** 2
    return np.eye(3) + a[:, None, None] * K + b[:, None, None] * (K @ K)


def _frames(forward: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Rotations with columns along ``forward``, and ``up`` made orthogonal to it last."""
    x = forward / np.linalg.norm(forward, axis=1)[:, None]
    z = up - np.sum(up * x, axis=1)[:, None] * x
    z /= np.linalg.norm(z, axis=1)[:, None]
    return np.stack([x, np.cross(z, x), z], axis=2)


def sphere(
    rings: int = 25, around: int = 25, radius: float = 10.0, *, kappa: float = 100.0, tau: float = 10.0, rng: Any = None
) -> PoseGraph:
    """A spiral of ``rings x around`` poses on a sphere, each tied to the next and to the one a turn later."""
    if rings < 2 or around < 3:
        raise ValueError(f"rings = {rings}, around = {around}; at least 2 and 3 are needed")
    n = rings * around
    s = np.arange(n)
    height, angle = -0.95 + 1.9 * s / (n - 1), 2 * np.pi * s / around
    t = radius * np.stack([np.sqrt(1 - height**2) * np.cos(angle), np.sqrt(1 - height**2) * np.sin(angle), height], axis=1)
    return perturb(_frames(np.gradient(t, axis=0), t), t, _chain(n, around), kappa, tau, rng)


def torus(
    rings: int = 25, around: int = 20, radii: tuple[float, float] = (10.0, 3.0), *, kappa: float = 100.0, tau: float = 10.0, rng: Any = None
) -> PoseGraph:
    """A line of ``rings x around`` poses wound around a torus, closed, with ties across its turns."""
    if rings < 3 or around < 3:
        raise ValueError(f"rings = {rings}, around = {around}; at least 3 each are needed")
    n = rings * around
    u, v = 2 * np.pi * np.arange(n) / n, 2 * np.pi * np.arange(n) / around
    big, small = radii
    ring = np.stack([np.cos(u), np.sin(u), 0 * u], axis=1)
    out = np.cos(v)[:, None] * ring + np.sin(v)[:, None] * np.array([0, 0, 1.0])
    t = big * ring + small * out
    forward = np.roll(t, -1, axis=0) - np.roll(t, 1, axis=0)
    s = np.arange(n)
    edges = np.concatenate([np.stack([s, (s + 1) % n], axis=1), np.stack([s, (s + around) % n], axis=1)])
    return perturb(_frames(forward, out), t, edges, kappa, tau, rng)


def grid(shape: tuple[int, ...] = (5, 5, 5), chance: float = 0.5, *, kappa: float = 100.0, tau: float = 10.0, rng: Any = None) -> PoseGraph:
    """A walk through all places of a grid in the plane or in space, random orientations; neighbours are seen with a ``chance``."""
    d, n = len(shape), int(np.prod(shape))
    if d not in (2, 3) or min(shape) < 1 or n < 2:
        raise ValueError(f"shape = {shape}; two or three positive numbers are needed, and two poses at least")
    generator = np.random.default_rng(rng)
    places = np.indices(shape).reshape(d, -1).T
    walk = places.copy()
    for axis in range(d - 1, 0, -1):  # there and back: neighbours in the walk are neighbours in the grid
        back = walk[:, :axis].sum(axis=1) % 2 == 1
        walk[back, axis] = shape[axis] - 1 - walk[back, axis]
    order = np.empty(n, np.int64)
    order[np.ravel_multi_index(tuple(walk.T), shape)] = np.arange(n)
    close = []
    for axis in range(d):
        one = np.take(order.reshape(shape), range(shape[axis] - 1), axis).ravel()
        close.append(np.sort(np.stack([one, np.take(order.reshape(shape), range(1, shape[axis]), axis).ravel()], axis=1), axis=1))
    pairs = np.concatenate(close)
    loops = pairs[(pairs[:, 1] > pairs[:, 0] + 1) & (generator.random(len(pairs)) < chance)]
    edges = np.concatenate([np.stack([np.arange(n - 1), np.arange(1, n)], axis=1), loops])
    R = rotations(generator.uniform(-np.pi, np.pi, (n, d * (d - 1) // 2)))
    return perturb(R, walk.astype(float), edges, kappa, tau, generator)


def manhattan(n: int = 1000, chance: float = 0.3, *, kappa: float = 1000.0, tau: float = 100.0, rng: Any = None) -> PoseGraph:
    """A random walk on city blocks in the plane; places seen before are recognised with probability ``chance``."""
    if n < 2:
        raise ValueError(f"n = {n}; at least two poses are needed")
    generator = np.random.default_rng(rng)
    turns = generator.choice([0, 0, 0, 0, 1, -1], n)
    turns[1::4] = 0
    heading = np.cumsum(turns) % 4
    steps = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])[heading]
    t = np.concatenate([np.zeros((1, 2), int), np.cumsum(steps[:-1], axis=0)])
    place = np.unique(t, axis=0, return_inverse=True)[1].ravel()
    same = sparse.csr_array((np.ones(n), (place, np.arange(n))))
    pairs = sparse.triu(same.T @ same, 2).tocoo()
    seen = generator.random(pairs.nnz) < chance
    loops = np.stack([pairs.row[seen], pairs.col[seen]], axis=1)
    order = np.lexsort((loops[:, 1], loops[:, 0]))
    edges = np.concatenate([np.stack([np.arange(n - 1), np.arange(1, n)], axis=1), loops[order]])
    return perturb(rotations(heading[:, None] * np.pi / 2), t.astype(float), edges, kappa, tau, generator)


def _chain(n: int, turn: int) -> np.ndarray:
    s = np.arange(n)
    return np.concatenate([np.stack([s[:-1], s[1:]], axis=1), np.stack([s[:-turn], s[turn:]], axis=1)])
