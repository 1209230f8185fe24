r"""Lovasz' theta: a bound on the independence number of a graph.

If x is the indicator of an independent set of size s > 0, ``X = x x^T / s`` is positive semidefinite with trace 1, ``X_ij = 0`` on
the edges, and ``<J, X> = (1^T x)^2 / s = s`` (J the matrix of ones). Relaxing X,

    alpha(G)  <=  theta(G) = - min { <-J, X> : tr X = 1, X_ij = 0 on edges, X >= 0 }  <=  - bound,

for any lower bound of the minimum (Lovasz 1979). The same X has no negative entry: with ``X_ij >= 0`` on the other pairs as well,
theta'(G) <= theta(G) is a bound too (Schrijver 1979). On the complement of G independent sets are the cliques of G, and
``omega(G) <= theta(complement) <= chi(G)``, the chromatic number.

Back to a set: vertices in the order of the diagonal of X, of its Perron vector or of its column sums, each taken where none of its
neighbours was; then (1, 2)-exchanges.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from ..linear_maps import MatrixMap, entries
from ..manifolds import Sphere
from ..operators import LowRankPlusSparse
from ..penalty import Penalty
from ..problem import Problem
from .graphs import adjacency, edges, non_edges


@dataclass(frozen=True, eq=False)
class IndependentSet:
    """An independent set of a graph and what no such set exceeds: ``size <= alpha <= alpha_upper``.

    Of ``problem(graph, complement=True)``: a clique of ``graph``.
    """

    vertices: np.ndarray = field(repr=False)
    """Indices in increasing order; no two of them are adjacent."""
    size: int
    bound: float
    """Upper bound on theta and alpha, as rigorous as ``rigor``; n when the result has no bound below that."""
    alpha_upper: int
    """Upper bound on alpha: ``floor(bound)`` where that is verified, else the floor of a slightly larger number."""
    rigor: str
    """How ``bound`` is known: "verified", "probabilistic", "estimate", or "trivial" where it is n."""

    @property
    def is_maximum(self) -> bool:
        """Whether no independent set is larger, as surely as ``rigor`` says."""
        return self.size == self.alpha_upper


def problem(graph: Any, *, n: int | None = None, complement: bool = False, nonnegative: bool = False) -> Problem:
    """``min <-J, X>``, ``tr X = 1``, ``X_ij = 0`` on the edges; minus its optimum is theta.

    Parameters
    ----------
    graph : networkx graph, square array or scipy sparse, or edges
        As for `bmsdp.applications.maxcut.problem`; weights other than 0 make an edge, whatever their size.
    n : number of vertices, for edges only
    complement : bool
        Take the graph of all pairs that are no edges instead: bounds cliques of ``graph``.
    nonnegative : bool
        ``X_ij >= 0`` on all other pairs: theta', at most theta, at the price of up to n (n - 1) / 2 inequalities.

    Raises
    ------
    ValueError
        Directed, asymmetric or empty graph; weights NaN or infinite; vertices out of range.
    """
    W = adjacency(graph, n)
    n = W.shape[0]
    zero, free = (non_edges(W), edges(W)) if complement else (edges(W), None)
    if nonnegative and free is None:
        free = non_edges(W)
    A_geq = entries(n, *free) if nonnegative and free is not None and free[0].size else None
    A = entries(n, *zero) if zero[0].size else None
    C = LowRankPlusSparse(None, np.ones((n, 1)), np.array([-1.0]))
    terms = []
    if A is not None or A_geq is not None:
        terms.append(Penalty(A, np.zeros(zero[0].size), A_geq, np.zeros(0 if A_geq is None else A_geq.m)))
    return Problem(C, Sphere(n, 1.0), terms)


def recover(result: Any, *, rng: Any = None, trials: int = 30) -> IndependentSet:
    """The bound on alpha, and the largest independent set that greedy orders from ``result.Y`` and exchanges find.

    Parameters
    ----------
    result : Result of ``bmsdp.solve(problem(graph))``, or of any C, A, b that states theta: an edge is a row whose matrix has one
        off-diagonal pair only and b = 0
    rng : seed or Generator (SPEC 7); the set depends on the result and rng alone
    trials : random orders, ``|Y g|`` for Gaussian g, beside the fixed ones

    Returns
    -------
    IndependentSet
        ``alpha_upper`` never rests on the rounding of a bound that is not verified: that is raised first, by its relative gap, by
        ``tol`` and by 1e-6, whichever is largest.
    """
    W = _graph_of(result)
    n = W.shape[0]
    if trials < 0:
        raise ValueError(f"trials = {trials}; 0 or a positive number is needed")
    best = max((_exchange(W, _greedy(W, order)) for order in _orders(result.Y, rng, trials)), key=np.count_nonzero)
    vertices = np.flatnonzero(best)
    if W[vertices][:, vertices].nnz:
        raise RuntimeError("the greedy set is not independent; please report this graph")
    bound, rigor = -float(result.bound), getattr(result.certificate, "rigor", "estimate")
    if not bound < n:
        return IndependentSet(vertices, vertices.size, float(n), n, "trivial")
    return IndependentSet(vertices, vertices.size, bound, _floor(result, bound, rigor), rigor)


def _floor(result: Any, bound: float, rigor: str) -> int:
    """The integer above which no alpha lies if theta <= bound, known with this rigor."""
    if rigor == "verified":  # alpha is an integer and alpha <= bound exactly
        return math.floor(bound)
    gap, tol = float(result.gap), float(result.options.get("tol", 0.0))
    margin = max(gap if math.isfinite(gap) else 0.0, tol, 1e-6)
    return min(result.Y.shape[0], math.floor(bound + margin * max(bound, 1.0)))


def _graph_of(result: Any) -> sparse.csr_array:
    """Adjacency of the places that the result's rows fix to 0."""
    if result.data is None:
        raise ValueError("the result holds no graph (loaded from a file); solve(problem(graph), warm_start=result) gives one that does")
    n, b, at = result.Y.shape[0], np.asarray(result.data.b, float), 0
    W = sparse.csr_array((n, n))
    for A in getattr(result.data.A, "maps", (result.data.A,)):
        if isinstance(A, MatrixMap):
            used = A.rows.data != 0
            off = np.bincount(A.row_of[used], A.i[used] != A.j[used], A.m)
            edge = (off == 2) & (np.bincount(A.row_of[used], minlength=A.m) == 2) & (b[at : at + A.m] == 0)
            use = used & edge[A.row_of]
            W = W + sparse.csr_array((np.ones(int(use.sum())), (A.i[use], A.j[use])), shape=(n, n))
        at += A.m
    return sparse.csr_array(W)


def _orders(Y: np.ndarray, rng: Any, trials: int) -> Iterator[np.ndarray]:
    """Vertices, the most promising first."""
    Y, generator = np.asarray(Y), np.random.default_rng(rng)
    size = np.linalg.norm(Y, axis=1)
    U = np.linalg.svd(Y, full_matrices=False)[0]
    sums = Y @ Y.sum(axis=0)
    # on an optimal face of one set X_ii and (X 1)_i are large on it; (X 1)_i / sqrt(X_ii) is the handle's cosine
    for score in (size, np.abs(U[:, 0]), sums, sums / np.maximum(size, 1e-300)):
        yield np.argsort(-score, kind="stable")
    for g in generator.standard_normal((trials, Y.shape[1])):
        yield np.argsort(-np.abs(Y @ g), kind="stable")


def _greedy(W: sparse.csr_array, order: np.ndarray) -> np.ndarray:
    """Mask of the maximal independent set that takes each vertex of the order unless a neighbour is taken."""
    taken, blocked = np.zeros(order.size, dtype=bool), np.zeros(order.size, dtype=bool)
    for v in order:
        if not blocked[v]:
            taken[v] = True
            blocked[W.indices[W.indptr[v] : W.indptr[v + 1]]] = True
    return taken


def _exchange(W: sparse.csr_array, taken: np.ndarray) -> np.ndarray:
    """Grow a maximal independent set by giving up one vertex for two, until that is impossible."""
    tight = W @ taken.astype(float)  # how many neighbours of a vertex are in the set
    while True:
        for v in np.flatnonzero(taken):
            near = W.indices[W.indptr[v] : W.indptr[v + 1]]
            single = near[tight[near] == 1]  # v is their only neighbour in the set
            pair = _apart(W, single)
            if pair is not None:
                taken[v] = False
                taken[list(pair)] = True
                taken = _greedy(W, np.argsort(~taken, kind="stable"))
                tight = W @ taken.astype(float)
                break
        else:
            return taken


def _apart(W: sparse.csr_array, vertices: np.ndarray) -> tuple[int, int] | None:
    """Two of the vertices that are not adjacent, or None."""
    for p, u in enumerate(vertices[:-1]):
        rest = vertices[p + 1 :]
        far = rest[~np.isin(rest, W.indices[W.indptr[u] : W.indptr[u + 1]])]
        if far.size:
            return int(u), int(far[0])
    return None
