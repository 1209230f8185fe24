r"""Minimum bisection of a weighted graph, with a bound.

Signs x in {-1, 1}^n with ``|1^T x| <= 1`` split the vertices into halves (equal for even n, one vertex apart for odd n) and cut the weight
``<C, x x^T>`` with ``C = L/4``, L the Laplacian. Since ``(1^T x)^2`` is p = 0 for even and p = 1 for odd n, with J the matrix of ones,

    min bisection  >=  min { <C, X> : diag(X) = 1, <J, X> = p, X >= 0 }  >=  bound,

for any lower bound of the minimum. For even n no X is positive definite, since X 1 = 0: `bmsdp.solve` eliminates that direction
(``1^T Y = 0``, facial reduction), or no multiplier of that row would exist. For odd n, ``X = I + (I - J)/n`` is positive definite.
Back to halves: the median of Y g for Gaussian g, then swaps of two vertices while the cut falls.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from ..linear_maps import as_linear_map
from ..manifolds import Oblique
from ..penalty import Penalty
from ..problem import Problem
from ..rounding import cut_value
from .graphs import adjacency, without_loops
from .maxcut import laplacian_cost


@dataclass(frozen=True, eq=False)
class Bisection:
    """A bisection of a graph and how good it must be: ``value >= minimum bisection >= bound``."""

    x: np.ndarray = field(repr=False)
    """Side of each vertex, int8 (n,) of -1 and +1; the sum is 0 for even n, -1 or 1 for odd n."""
    value: float
    """Weight of the edges between the halves, correctly rounded."""
    bound: float
    """Lower bound on every bisection, as rigorous as ``result.certificate``; -inf when the result has none."""

    @property
    def gap(self) -> float:
        """``(value - bound) / value``: at most so much of the value can be saved; 0 when they are equal, nan without a bound."""
        if self.value == self.bound:
            return 0.0
        return (self.value - self.bound) / abs(self.value) if self.value and math.isfinite(self.bound) else math.nan

    @property
    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the vertices with x = +1 and with x = -1."""
        return np.flatnonzero(self.x > 0), np.flatnonzero(self.x < 0)


def problem(graph: Any, *, n: int | None = None) -> Problem:
    """The relaxation ``min <L/4, X>``, ``diag(X) = 1``, ``<J, X> = n mod 2``, of the minimum bisection of a graph.

    Parameters
    ----------
    graph : networkx graph, square array or scipy sparse, or edges
        As for `bmsdp.applications.maxcut.problem`; weights of any sign.
    n : number of vertices, for edges only

    Raises
    ------
    ValueError
        What `maxcut.problem` refuses; a graph of one vertex, which has no halves.
    """
    W = adjacency(graph, n)
    n = W.shape[0]
    if n < 2:
        raise ValueError(f"the graph has {n} vertex; two halves need at least 2")
    ones = sparse.csr_array(np.ones((1, n * n)))
    return Problem(-laplacian_cost(W), Oblique(np.ones(n)), [Penalty(as_linear_map(ones, n), [float(n % 2)])])


def recover(result: Any, *, rng: Any = None, trials: int | None = None, local_search: bool = True) -> Bisection:
    """Best bisection among medians of random directions of ``result.Y``, the best few improved by swaps.

    Parameters
    ----------
    result : Result of ``bmsdp.solve(problem(graph))``, or of any real C with these constraints: W is -4 C off its diagonal
    rng : seed or Generator (SPEC 7); the bisection depends on the result and rng alone
    trials : number of directions; default 100 up to n = 10**4, then fewer, at least 10
    local_search : swap pairs of vertices while the cut falls, in the best few: all up to n = 20, five from n = 400

    Returns
    -------
    Bisection
        Where ``result.bound`` holds, ``value >= bound``; a bound below 0 is raised to 0 where no weight is negative.
    """
    matrix = None if result.data is None else result.data.C.matrix()
    if matrix is None:
        raise ValueError(
            "the result holds no matrix C to cut (loaded from a file, or C is an operator); "
            "solve(problem(graph), warm_start=result) gives one that does"
        )
    C = sparse.csr_array(matrix)
    W = without_loops(-4 * C)
    n = W.shape[0]
    if trials is None:
        trials = min(100, max(10, 10**6 // n))
    if trials < 1:
        raise ValueError(f"trials = {trials}: at least one direction is needed")
    generator = np.random.default_rng(rng)
    signs = (halves(result.Y @ generator.standard_normal(result.Y.shape[1])) for _ in range(trials))
    best = heapq.nsmallest(max(5, 2000 // n) if local_search else 1, signs, key=lambda x: -float(x @ (W @ x.astype(float))))
    if local_search:
        best = [swap(W, x) for x in best]
    value, x = min(((cut_value(W, x), x) for x in best), key=lambda pair: pair[0])
    # relaxed cut = <C, X> - 1^T C 1, and 1^T C 1 is 0 up to the rounding of the diagonal
    residue = math.fsum(C.data)
    bound = float(result.bound) - residue
    bound = math.nextafter(bound, -math.inf) if residue and math.isfinite(bound) else bound
    return Bisection(x, value, max(bound, 0.0) if (W.data >= 0).all() and math.isfinite(bound) else bound)


def halves(z: np.ndarray) -> np.ndarray:
    """Signs, int8 (n,), +1 on the n // 2 largest entries of z (n,), -1 on the others."""
    x = np.full(z.size, -1, dtype=np.int8)
    x[np.argsort(-z, kind="stable")[: z.size // 2]] = 1
    return x


def swap(W: sparse.csr_array, x: np.ndarray) -> np.ndarray:
    """A copy of the halves x, improved by swaps of two vertices, the best one first, until none lowers the cut.

    Each vertex gains ``D_i = -x_i sum_j W_ij x_j`` by changing sides and a pair ``D_i + D_j - 2 W_ij``; a swap is made only where its gain
    exceeds the rounding of these sums, hence termination.
    """
    x = np.array(x, dtype=np.int8)
    size = np.asarray(abs(W).sum(axis=1)).ravel()
    slack = 1e-15 * (np.diff(W.indptr).max(initial=0) + 4) * float(size.max(initial=0.0))
    while True:
        D = -x * (W @ x.astype(float))
        pair = _best_pair(W, x, D, slack)
        if pair is None:
            return x
        x[list(pair)] *= -1


def _best_pair(W: sparse.csr_array, x: np.ndarray, D: np.ndarray, slack: float) -> tuple[int, int] | None:
    """The pair across the cut of the largest gain above ``slack``; None where there is none."""
    best, found = slack, None
    rows = np.repeat(np.arange(x.size), np.diff(W.indptr))
    across = np.flatnonzero((x[rows] > 0) & (x[W.indices] < 0))
    if across.size:  # neighbours, all of them
        gain = D[rows[across]] + D[W.indices[across]] - 2 * W.data[across]
        top = int(np.argmax(gain))
        if gain[top] > best:
            best, found = gain[top], (int(rows[across[top]]), int(W.indices[across[top]]))
    left, right = (side[np.argsort(-D[side], kind="stable")] for side in (np.flatnonzero(x > 0), np.flatnonzero(x < 0)))
    for i in left if right.size else ():  # others: the first of each row that is no neighbour
        if D[i] + D[right[0]] <= best:
            break
        near = set(W.indices[W.indptr[i] : W.indptr[i + 1]].tolist())
        j = next((j for j in right.tolist() if j not in near), None)
        if j is not None and D[i] + D[j] > best:
            best, found = D[i] + D[j], (int(i), j)
    return found
