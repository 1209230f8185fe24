r"""Maximum k-cut of a weighted graph, with a bound.

Give part p the vertex ``a_p`` of a regular simplex of unit vectors, ``<a_p, a_q> = -1/(k-1)`` for p != q. Then an edge is cut by the
amount ``(k-1)/k (1 - <y_i, y_j>)``, which is 0 or 1, and with X the Gram matrix of the y_i and ``C = -L/4`` (see `maxcut`),

    max k-cut  <=  - s min { <C, X> : diag(X) = 1, X_ij >= -1/(k-1), X >= 0 }  <=  - s bound,    s = 2 (k-1)/k,

for any lower bound of the minimum (Frieze & Jerrum 1997). For k = 2 this is the relaxation of the maximum cut. Back to parts: each
row of Y goes to the nearest of k random vectors (at least 0.8 of the relaxation in expectation for k = 3 and nonnegative weights, more
for larger k), then single vertices move while the cut grows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from ..linear_maps import entries
from ..manifolds import Oblique
from ..penalty import Penalty
from ..problem import Problem
from .graphs import adjacency, edges, without_loops
from .maxcut import laplacian_cost


@dataclass(frozen=True, eq=False)
class KCut:
    """A partition into at most k parts and how good it must be: ``value <= maximum k-cut <= bound``."""

    parts: np.ndarray = field(repr=False)
    """Part of each vertex, int (n,) from 0 to k - 1."""
    k: int
    value: float
    """Weight of the edges between parts, correctly rounded."""
    bound: float
    """Upper bound on every k-cut, as rigorous as ``result.certificate``; inf when the result has no bound."""

    @property
    def ratio(self) -> float:
        """``value / bound``; 1 when they are equal, also at 0; nan without a bound."""
        if self.value == self.bound:
            return 1.0
        return self.value / self.bound if 0 < self.bound < math.inf else math.nan


def problem(graph: Any, k: int, *, n: int | None = None, pairs: str = "all") -> Problem:
    """The relaxation ``min <-L/4, X>``, ``diag(X) = 1``, ``X_ij >= -1/(k-1)``, of the maximum k-cut of a graph.

    Parameters
    ----------
    graph : networkx graph, square array or scipy sparse, or edges
        As for `bmsdp.applications.maxcut.problem`; weights of any sign.
    k : number of parts, at least 2; parts may stay empty
    n : number of vertices, for edges only
    pairs : {"all", "edges"}
        Where ``X_ij >= -1/(k-1)`` is asked for: on all n (n - 1) / 2 pairs, or only on the edges, which is cheaper on sparse graphs
        and a valid but weaker bound.

    Raises
    ------
    ValueError
        What `maxcut.problem` refuses; k below 2.
    """
    _check_parts(k)
    if pairs not in ("all", "edges"):
        raise ValueError(f'pairs = {pairs!r}; it must be "all" or "edges"')
    W = adjacency(graph, n)
    i, j = edges(W) if pairs == "edges" else np.triu_indices(W.shape[0], 1)
    terms = []
    if k > 2 and i.size:  # X_ij >= -1 holds for unit vectors
        # rounded down, so that every k-partition satisfies it exactly
        terms.append(Penalty(None, (), entries(W.shape[0], i, j), np.full(i.size, math.nextafter(-1 / (k - 1), -math.inf))))
    return Problem(laplacian_cost(W), Oblique(np.ones(W.shape[0])), terms)


def recover(result: Any, k: int, *, rng: Any = None, trials: int | None = None, local_search: bool = True) -> KCut:
    """Best partition among random ones from the rows of ``result.Y``, the best few improved by moves of single vertices.

    Parameters
    ----------
    result : Result of ``bmsdp.solve(problem(graph, k))``; one for fewer parts, or without inequalities, gives a weaker bound
    k : number of parts
    rng : seed or Generator (SPEC 7); the partition depends on the result and rng alone
    trials : number of random partitions; default 100 up to n = 10**4, then fewer, at least 10
    local_search : move single vertices while the cut grows, in the best few: all up to n = 20, five from n = 400

    Returns
    -------
    KCut
        Never below 0, the cut with one part. Where ``result.bound`` holds, ``value <= bound``.
    """
    matrix = None if result.data is None else result.data.C.matrix()
    if matrix is None:
        raise ValueError(
            "the result holds no matrix C to cut (loaded from a file, or C is an operator); "
            "solve(problem(graph, k), warm_start=result) gives one that does"
        )
    _check_parts(k)
    sides = getattr(result.data, "b_geq", None)
    if sides is not None and np.any(np.asarray(sides) > -1 / (k - 1)):
        raise ValueError(f"the result has X_ij >= {np.max(sides):g}, more than -1/(k-1) for k = {k}; solve(problem(graph, {k})) is needed")
    C = sparse.csr_array(matrix)
    W = without_loops(4 * C)
    n = W.shape[0]
    if trials is None:
        trials = min(100, max(10, 10**6 // n))
    if trials < 1:
        raise ValueError(f"trials = {trials}: at least one partition is needed")
    generator = np.random.default_rng(rng)
    found = [np.argmax(result.Y @ generator.standard_normal((result.Y.shape[1], k)), axis=1) for _ in range(trials)]
    found.sort(key=lambda parts: -k_cut_value(W, parts))
    best = [move_vertices(W, parts, k) for parts in found[: max(5, 2000 // n)]] if local_search else found[:1]
    best.append(np.zeros(n, dtype=np.int64))
    value, parts = max(((k_cut_value(W, parts), parts) for parts in best), key=lambda pair: pair[0])
    residue = math.fsum(C.data)  # 1^T C 1, 0 up to the rounding of the diagonal
    bound = (residue - float(result.bound)) * (2 * (k - 1) / k)
    if math.isfinite(bound) and bound and (residue or k > 2):  # the factor, the product and the difference round
        bound += 4 * math.ulp(bound)
    return KCut(parts, k, value, max(bound, 0.0))


def k_cut_value(W: Any, parts: np.ndarray) -> float:
    """Weight of the edges of W (n, n), symmetric, between different parts, each counted once; correctly rounded."""
    W = sparse.csr_array(W)
    rows = np.repeat(np.arange(W.shape[0]), np.diff(W.indptr))
    return math.fsum(W.data[(rows < W.indices) & (parts[rows] != parts[W.indices])])


def move_vertices(W: sparse.csr_array, parts: np.ndarray, k: int) -> np.ndarray:
    """A copy of the partition, improved until no move of a single vertex to another part increases the cut.

    A vertex moves only where the gain exceeds the rounding of its sums, hence termination.
    """
    parts, n = np.array(parts, dtype=np.int64), W.shape[0]
    inside = W @ (parts[:, None] == np.arange(k)).astype(float)  # weight from every vertex into every part
    slack = 2.3e-16 * (np.diff(W.indptr) + 4) * np.asarray(abs(W).sum(axis=1)).ravel()
    moved = True
    while moved:
        moved = False
        for v in np.flatnonzero(inside.min(axis=1) < inside[np.arange(n), parts] - slack):
            near = slice(W.indptr[v], W.indptr[v + 1])
            weight = np.bincount(parts[W.indices[near]], W.data[near], k)
            to = int(np.argmin(weight))
            if weight[to] < weight[parts[v]] - slack[v]:
                inside[W.indices[near], parts[v]] -= W.data[near]
                inside[W.indices[near], to] += W.data[near]
                parts[v], moved = to, True
            inside[v] = weight
    return parts



def _check_parts(k: Any) -> None:
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 2:
        raise ValueError(f"k = {k}; at least 2 parts are needed, as an integer")
