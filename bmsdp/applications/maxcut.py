r"""Maximum cut of a weighted graph, with a bound.

Signs x in {-1, 1}^n cut the weight ``1/4 sum_ij W_ij (1 - x_i x_j) = -<C, x x^T>`` with ``C = -L/4``, where
``L = diag(W 1) - W`` is the Laplacian of the symmetric adjacency W. With X = x x^T relaxed to X >= 0, diag(X) = 1:

    max cut  <=  - min { <C, X> : diag(X) = 1, X >= 0 }  <=  - bound,

for any lower bound of the minimum. Back to a cut: the sides of a random hyperplane among the rows of Y (Goemans &
Williamson 1995: at least 0.87856 of the relaxation in expectation, for nonnegative weights), then single flips.
"""

from __future__ import annotations

import heapq
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from ..manifolds import Oblique
from ..problem import Problem
from ..rounding import cut_value, hyperplane
from ..rounding import local_search as improve


@dataclass(frozen=True, eq=False)
class Cut:
    """A cut of a graph and how good it must be: ``value <= maximum cut <= bound``."""

    x: np.ndarray = field(repr=False)
    """Side of each vertex, int8 (n,) of -1 and +1, in the order of the problem."""
    value: float
    """Weight of the edges between the sides, correctly rounded."""
    bound: float
    """Upper bound on every cut, as rigorous as ``result.certificate``; inf when the result has no bound."""

    @property
    def ratio(self) -> float:
        """``value / bound``; 1 when they are equal, also at 0; nan without a bound."""
        if self.value == self.bound:
            return 1.0
        return self.value / self.bound if 0 < self.bound < math.inf else math.nan

    @property
    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the vertices with x = +1 and with x = -1."""
        return np.flatnonzero(self.x > 0), np.flatnonzero(self.x < 0)


def problem(graph: Any, *, n: int | None = None) -> Problem:
    """The relaxation ``min <-L/4, X>``, ``diag(X) = 1``, of the maximum cut of a graph; minus its optimum bounds it.

    Parameters
    ----------
    graph : networkx graph, square array or scipy sparse, or edges
        A networkx Graph or MultiGraph (attribute "weight", default 1; order of its nodes; parallel edges summed), a
        symmetric adjacency, or edges ``(i, j)`` or ``(i, j, w)`` between 0-based vertices: an iterable or an array
        of 2 or 3 columns. Self-loops are ignored with a warning; weights of any sign.
    n : number of vertices, for edges only; default the largest index + 1. Given n, a square array too is edges.

    Raises
    ------
    ValueError
        Directed, asymmetric or empty graph; weights NaN or infinite; vertices out of range.
    """
    W = _without_loops(_adjacency(graph, n))
    if W.shape[0] == 0:
        raise ValueError("the graph has no vertices; a cut needs at least one (edges without vertices: pass n=)")
    if not np.isfinite(W.data).all():
        raise ValueError(f"{np.sum(~np.isfinite(W.data))} entries of the weights are NaN or infinite; remove the edges")
    W = _symmetric(W)
    return Problem(laplacian_cost(W), Oblique(np.ones(W.shape[0])))


def laplacian_cost(W: Any) -> sparse.csr_array:
    """``C = -L/4`` of a symmetric adjacency (n, n), in CSR with sorted indices and the whole diagonal stored.

    Self-loops of W cancel in the Laplacian L.
    """
    W = sparse.coo_array(W)
    off, v = W.row != W.col, np.arange(W.shape[0])
    rows, cols, w = W.row[off], W.col[off], W.data[off].astype(float) / 4
    degrees = np.bincount(rows, weights=w, minlength=v.size)
    index = np.int32 if w.size + v.size < 2**31 else np.int64
    where = np.concatenate([rows, v]).astype(index), np.concatenate([cols, v]).astype(index)
    C = sparse.csr_array((np.concatenate([w, -degrees]), where), shape=W.shape)
    C.sum_duplicates()
    return C


def recover(result: Any, *, rng: Any = None, trials: int | None = None, local_search: bool = True) -> Cut:
    """Best cut among random hyperplanes through the rows of ``result.Y``, the best few improved by single flips.

    Parameters
    ----------
    result : Result of ``bmsdp.solve(problem(graph))``, or of any real C with unit diagonal: W is 4 C off its diagonal
    rng : seed or Generator (SPEC 7); the cut depends on the result and rng alone
    trials : number of hyperplanes; default 100 up to n = 10**4, then fewer, at least 10
    local_search : flip single vertices while the cut grows, in the best few: all up to n = 1000, five from n = 20000

    Returns
    -------
    Cut
        Never below 0, the cut with one empty side. Where ``result.bound`` holds, ``value <= bound``: the rounding
        of the degrees in the diagonal of C is added to it.
    """
    matrix = None if result.data is None else result.data.C.matrix()
    if matrix is None:
        raise ValueError(
            "the result holds no matrix C to cut (loaded from a file, or C is an operator); "
            "solve(problem(graph), warm_start=result) gives one that does"
        )
    C = sparse.csr_array(matrix)
    W = _without_loops(4 * C, warn=False)
    if trials is None:
        trials = min(100, max(10, 10**6 // W.shape[0]))
    if trials < 1:
        raise ValueError(f"trials = {trials}: at least one hyperplane is needed")
    signs = hyperplane(result.Y, rng, trials)
    best = heapq.nsmallest(max(5, 10**5 // W.shape[0]) if local_search else 1, signs, key=lambda x: x @ (W @ x))
    if local_search:
        best = [improve(W, x) for x in best]
    best.append(np.ones(W.shape[0], dtype=np.int8))
    value, x = max(((cut_value(W, x), x) for x in best), key=lambda pair: pair[0])
    # relaxed cut = 1^T C 1 - <C, X>, and 1^T C 1 is 0 up to the rounding of the diagonal
    residue = math.fsum(C.data)
    bound = residue - float(result.bound)
    return Cut(x, value, max(math.nextafter(bound, math.inf) if residue else bound, 0.0))


def _without_loops(W: sparse.csr_array, warn: bool = True) -> sparse.csr_array:
    W = W.tocoo()
    off = W.row != W.col
    if warn and W.data[~off].any():
        warnings.warn(f"{np.count_nonzero(W.data[~off])} self-loops are ignored: no cut contains them", stacklevel=3)
    return sparse.csr_array((W.data[off], (W.row[off], W.col[off])), shape=W.shape)


def _symmetric(W: sparse.csr_array) -> sparse.csr_array:
    difference = abs(W - W.T).tocoo()
    defect = difference.max() if difference.nnz else 0.0
    if defect > 1e-14 * abs(W).max():
        worst = difference.data.argmax()
        raise ValueError(
            f"the adjacency W is not symmetric: max |W - W.T| = {defect:g} at "
            f"({difference.row[worst]}, {difference.col[worst]}); pass (W + W.T) / 2 if that is meant, "
            "or W + W.T if each edge is stored once"
        )
    return sparse.csr_array((W + W.T) / 2) if defect else W


def _adjacency(graph: Any, n: int | None) -> sparse.csr_array:
    if hasattr(graph, "is_directed"):
        return _from_networkx(graph)
    if sparse.issparse(graph):
        if n is not None:
            raise ValueError(f"n = {n} is for edges; a sparse adjacency has its size in its shape {graph.shape}")
    elif n is not None or not isinstance(graph, np.ndarray) or graph.ndim != 2 or graph.shape[0] != graph.shape[1]:
        return _from_edges(graph, n)
    if graph.ndim != 2 or graph.shape[0] != graph.shape[1]:
        raise ValueError(f"the adjacency has shape {graph.shape}; it must be square")
    if np.iscomplexobj(graph):
        raise ValueError("the adjacency is complex; weights must be real")
    return sparse.csr_array(graph).astype(float)


def _from_networkx(graph: Any) -> sparse.csr_array:
    if graph.is_directed():
        raise ValueError("the graph is directed, a cut has no direction; pass graph.to_undirected()")
    index = {v: i for i, v in enumerate(graph)}
    return _assemble(len(index), _rows((index[u], index[v], w) for u, v, w in graph.edges(data="weight", default=1)))


def _rows(edges: Iterable[Any]) -> np.ndarray:
    try:
        rows = np.array([(i, j, *(w or (1,))) for i, j, *w in edges], dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the graph is neither a networkx graph, an adjacency nor edges (i, j) or (i, j, w) of numbers ({error}); "
            "vertices with names need a networkx graph"
        ) from None
    return rows if rows.size else np.empty((0, 3))


def _from_edges(graph: Any, n: int | None) -> sparse.csr_array:
    edges = graph if isinstance(graph, np.ndarray) else _rows(graph)
    if edges.ndim != 2 or edges.shape[1] not in (2, 3):
        raise ValueError(f"an array of shape {edges.shape} is neither a square adjacency nor rows (i, j) or (i, j, w)")
    if edges.shape[1] == 2:
        edges = np.column_stack([edges, np.ones(len(edges))])
    ends = edges[:, :2]
    n = int(ends.max(initial=-1)) + 1 if n is None else n
    wrong = np.flatnonzero(((ends < 0) | (ends >= n) | (ends != np.floor(ends))).any(axis=1))
    if wrong.size:
        raise ValueError(f"edge {wrong[0]} is {tuple(edges[wrong[0]])}; vertices must be integers from 0 to {n - 1}")
    repeated = len(ends) - np.unique(n * ends.min(axis=1) + ends.max(axis=1)).size
    if repeated:
        warnings.warn(f"{repeated} edges are repeated, as (i, j) or (j, i); weights are summed", stacklevel=4)
    return _assemble(n, edges)


def _assemble(n: int, edges: np.ndarray) -> sparse.csr_array:
    ends = np.sort(edges[:, :2].astype(np.int64), axis=1)
    upper = sparse.csr_array((edges[:, 2], (ends[:, 0], ends[:, 1])), shape=(n, n))
    return sparse.csr_array(upper + sparse.triu(upper, 1).T)
