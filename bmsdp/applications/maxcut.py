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
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from ..manifolds import Oblique
from ..problem import Problem
from ..rounding import cut_value, hyperplane
from ..rounding import local_search as improve
from .graphs import adjacency, without_loops


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
    W = adjacency(graph, n)
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
    W = without_loops(4 * C)
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
