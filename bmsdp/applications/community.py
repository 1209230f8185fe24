r"""Communities of a graph by modularity, with a bound.

For a graph of nonnegative weights A, degrees d = A 1 and total weight ``2m = 1^T d``, a partition c has the modularity

    Q(c) = 1/2m sum_ij B_ij [c_i = c_j],     B = A - gamma d d^T / 2m

(Newman & Girvan 2004; gamma is the resolution). Give community p the vertex a_p of a regular simplex of k unit vectors; then
``[c_i = c_j] = ((k-1) X_ij + 1)/k`` for the Gram matrix X of the rows a_{c_i}. With ``C = -2m B`` and ``1^T B 1 = 2m (1 - gamma)``,

    max Q  over at most k communities  <=  (k-1)/k (- min { <C, X> : diag(X) = 1, X >= 0 }) / (2m)^2 + (1 - gamma)/k,

which any lower bound of the minimum bounds in turn; ``X_ij >= -1/(k-1)`` may be asked for as well, and for any number of communities
the factor is 1, the last term 0. On the stochastic block model such relaxations find the communities exactly, from an
information-theoretic threshold on (Abbe, Bandeira & Hall 2016; Hajek, Wu & Xu 2016). C is sparse plus rank one, never formed.

Back to communities: k-means on the k - 1 largest directions of the rows of Y, or into 4k clusters that are merged, those first that
gain most; then single vertices move while Q grows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from ..linear_maps import entries
from ..manifolds import Oblique
from ..operators import LowRankPlusSparse
from ..penalty import Penalty
from ..problem import Problem
from .graphs import adjacency


@dataclass(frozen=True, eq=False)
class Communities:
    """A partition and how good it must be: ``modularity <= maximum over partitions into at most k parts <= bound``."""

    labels: np.ndarray = field(repr=False)
    """Community of each vertex, int (n,), from 0, in the order of their first vertices; none is empty."""
    modularity: float
    bound: float
    """Upper bound on the modularity, as rigorous as ``result.certificate``; 1 where the result has no bound below that."""

    @property
    def count(self) -> int:
        """Number of communities found, at most k."""
        return int(self.labels.max()) + 1


def problem(
    graph: Any, n_communities: int | None = None, *, n: int | None = None, resolution: float = 1.0, pairs: str | None = None
) -> Problem:
    """The relaxation ``min <-2m B, X>``, ``diag(X) = 1``, of the maximum modularity.

    Parameters
    ----------
    graph : networkx graph, square array or scipy sparse, or edges
        As for `bmsdp.applications.maxcut.problem`, with weights that are not negative.
    n_communities : int, optional
        k; needed for ``pairs`` only.
    n : number of vertices, for edges only
    resolution : float
        gamma, positive: larger values favour smaller communities.
    pairs : {None, "all"}
        "all" adds ``X_ij >= -1/(k-1)`` on all pairs (for k >= 3): a better bound, and exact recovery of more than two blocks, at the
        price of n (n - 1) / 2 inequalities.

    Raises
    ------
    ValueError
        What `maxcut.problem` refuses; negative weights; a graph without edges.
    """
    if not (isinstance(resolution, (int, float, np.number)) and 0 < resolution < math.inf):
        raise ValueError(f"resolution = {resolution!r}; a positive finite number is needed")
    if pairs not in (None, "all"):
        raise ValueError(f'pairs = {pairs!r}; it must be None or "all"')
    if n_communities is not None or pairs is not None:
        _check_count(n_communities)
    W = adjacency(graph, n)
    if (W.data < 0).any():
        raise ValueError(f"{np.sum(W.data < 0)} entries of the weights are negative; modularity needs weights that are not")
    d = np.asarray(W.sum(axis=1)).ravel()
    total = math.fsum(d)
    if not total > 0:
        raise ValueError("the graph has no edges; modularity needs one at least")
    terms = []
    if pairs == "all" and n_communities is not None and n_communities > 2:
        i, j = np.triu_indices(W.shape[0], 1)
        least = math.nextafter(-1 / (n_communities - 1), -math.inf)
        terms.append(Penalty(None, (), entries(W.shape[0], i, j), np.full(i.size, least)))
    C = LowRankPlusSparse(-total * W, d[:, None], np.array([float(resolution)]))
    return Problem(C, Oblique(np.ones(W.shape[0])), terms)


def recover(
    result: Any, n_communities: int | None = None, *, rng: Any = None, trials: int | None = None, local_search: bool = True
) -> Communities:
    """Best partition into at most k communities among several that the rows of ``result.Y`` suggest.

    Parameters
    ----------
    result : Result of ``bmsdp.solve(problem(graph))``
    n_communities : int, optional
        k, at least 1; the best of 2 to 10 when absent, the bound then being that for any number of communities.
    rng : seed or Generator (SPEC 7); the partition depends on the result and rng alone
    trials : runs of k-means of either kind, for every k; by default 10, or 3 where k is not given
    local_search : move single vertices while the modularity grows

    Returns
    -------
    Communities
        ``modularity <= bound`` where ``result.bound`` holds: the rounding of the degrees is added to it.
    """
    A, d, total, gamma = _graph_of(result)
    if n_communities is not None:
        _check_count(n_communities)
    if trials is None:
        trials = 10 if n_communities is not None else 3
    if trials < 1:
        raise ValueError(f"trials = {trials}: at least one is needed")
    n, generator = len(d), np.random.default_rng(rng)
    counts = [int(n_communities)] if n_communities is not None else list(range(2, min(n, 10) + 1))
    found = [np.zeros(n, dtype=np.int64)]
    for k in counts:
        points = _directions(result.Y, max(k - 1, 1))
        for _ in range(trials if k > 1 else 0):
            fine = k_means(result.Y, min(4 * k, n), generator)
            for labels in (k_means(points, k, generator), merge(A, d, total, gamma, fine, k)):
                found.append(_move(A, d, total, gamma, labels, k) if local_search else labels)
    labels = max(found, key=lambda c: modularity(A, c, gamma))
    relaxed = -float(result.bound) / float(total**2)
    k_bound = relaxed if n_communities is None else relaxed * (n_communities - 1) / n_communities + (1 - gamma) / n_communities
    k_bound += 2.0**-52 * (1 + gamma) * (np.diff(A.indptr).max(initial=0) + 16)
    return Communities(_in_order(labels), modularity(A, labels, gamma), min(float(k_bound), 1.0))


def modularity(graph: Any, labels: np.ndarray, resolution: float = 1.0) -> float:
    """Q of a partition of a graph of nonnegative weights, symmetric (n, n)."""
    A = sparse.csr_array(graph)
    d = np.asarray(A.sum(axis=1)).ravel()
    rows, total = np.repeat(np.arange(A.shape[0]), np.diff(A.indptr)), math.fsum(d)
    labels = np.asarray(labels)
    inside = math.fsum(A.data[labels[rows] == labels[A.indices]]) / total
    shares = np.bincount(labels, d) / total
    return inside - resolution * math.fsum(shares**2)


def k_means(points: np.ndarray, k: int, rng: np.random.Generator, sweeps: int = 100) -> np.ndarray:
    """Labels, int (n,), of Lloyd's algorithm from centres drawn far apart (Arthur & Vassilvitskii 2007)."""
    n = len(points)
    centres = points[rng.integers(n)][None, :]
    nearest = np.sum((points - centres[0]) ** 2, axis=1)
    while len(centres) < k:
        total = float(nearest.sum())
        new = rng.choice(n, p=nearest / total) if total > 0 else rng.integers(n)
        centres = np.concatenate([centres, points[new][None, :]])
        nearest = np.minimum(nearest, np.sum((points - points[new]) ** 2, axis=1))
    labels = np.full(n, -1)
    for _ in range(sweeps):
        distance = np.sum(centres**2, axis=1) - 2 * points @ centres.T
        new_labels = np.argmin(distance, axis=1)
        if np.array_equal(labels, new_labels):
            break
        labels = new_labels
        sizes = np.bincount(labels, minlength=k)
        sums = np.stack([np.bincount(labels, column, k) for column in points.T], axis=1)
        centres = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres)
    return labels


def merge(A: sparse.csr_array, d: np.ndarray, total: float, gamma: float, labels: np.ndarray, k: int) -> np.ndarray:
    """Merge communities, the pair of largest gain in Q first, to at most k, and on while Q grows; labels from 0."""
    labels = _in_order(labels)
    count = int(labels.max()) + 1
    P = (labels[:, None] == np.arange(count)).astype(float)
    D = P.T @ d
    B = P.T @ (A @ P) - gamma * np.outer(D, D) / total  # Q is its trace, and a merger gains B_pq + B_qp
    place = np.arange(count)
    while len(B) > 1:
        gain = B.copy()
        np.fill_diagonal(gain, -np.inf)
        p, q = sorted(np.unravel_index(np.argmax(gain), gain.shape))
        if len(B) <= k and gain[p, q] <= 0:
            break
        B[p] += B[q]
        B[:, p] += B[:, q]
        B = np.delete(np.delete(B, q, axis=0), q, axis=1)
        place[place == q] = p
        place[place > q] -= 1
    return place[labels]


def _check_count(k: Any) -> None:
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"n_communities = {k}; a positive integer is needed")


def _graph_of(result: Any) -> tuple[sparse.csr_array, np.ndarray, float, float]:
    """A, d, 2m and gamma, from ``C = -2m A + gamma d d^T``."""
    C = None if result.data is None else result.data.C
    if not isinstance(C, LowRankPlusSparse) or C.U.shape[1] != 1 or C.A.matrix() is None:
        raise ValueError(
            "the result holds no graph (loaded from a file, or not of this module's problem); "
            "solve(problem(graph), warm_start=result) gives one that does"
        )
    d = C.U[:, 0].copy()
    total = math.fsum(d)
    return sparse.csr_array(C.A.matrix()) * (-1 / total), d, total, float(C.d[0])


def _directions(Y: np.ndarray, r: int) -> np.ndarray:
    """The rows of Y in their r largest singular directions, scaled to unit length."""
    U, size, _ = np.linalg.svd(Y, full_matrices=False)
    points = U[:, :r] * size[:r]
    length = np.linalg.norm(points, axis=1, keepdims=True)
    return np.divide(points, length, out=np.zeros_like(points), where=length > 0)


def _move(A: sparse.csr_array, d: np.ndarray, total: float, gamma: float, labels: np.ndarray, k: int) -> np.ndarray:
    """A copy of the partition, improved by moves of single vertices until a sweep finds none."""
    labels, weight = labels.copy(), np.bincount(labels, d, k)
    slack = 1e-13 * (1 + gamma) * d
    for _ in range(100):
        moved = False
        for v in range(len(d)):
            near = slice(A.indptr[v], A.indptr[v + 1])
            weight[labels[v]] -= d[v]
            gain = np.bincount(labels[A.indices[near]], A.data[near], k) - gamma * d[v] * weight / total
            to = int(np.argmax(gain))
            if gain[to] > gain[labels[v]] + slack[v]:
                labels[v], moved = to, True
            weight[labels[v]] += d[v]
        if not moved:
            break
    return labels


def _in_order(labels: np.ndarray) -> np.ndarray:
    """The same partition, labelled from 0 in the order of first members."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(first.size, dtype=np.int64)
    rank[np.argsort(first)] = np.arange(first.size)
    return rank[inverse]
