r"""Max-2-SAT: an assignment that satisfies clauses of much weight, with a bound.

Give "true" the sign ``x_0`` and variable v the sign ``x_v``, true where ``x_v = x_0``. A clause with literals ``s x_u`` and ``t x_v`` is
satisfied by the amount

    1 - (1 - s x_0 x_u)(1 - t x_0 x_v) / 4  =  ((1 + s x_0 x_u) + (1 + t x_0 x_v) + (1 - s t x_u x_v)) / 4,

which is 0 or 1; so the weight satisfied is ``-<C, x x^T>`` for a C with its constants in C_00, and with X = x x^T relaxed

    max weight  <=  - min { <C, X> : diag(X) = 1, X >= 0 }  <=  - bound,

for any lower bound of the minimum. Back to truth values: the sides of a random hyperplane, "true" being that of row 0; in expectation it
satisfies at least 0.87856 of the relaxation (Goemans & Williamson 1995), as each ``1 +- x_i x_j`` above does. Then single flips.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from ..io.cnf import two_sat_cost
from ..manifolds import Oblique
from ..problem import Problem
from ..rounding import hyperplane
from ..rounding import local_search as improve
from .graphs import without_loops


@dataclass(frozen=True, eq=False)
class Assignment:
    """Truth values and how good they must be: ``value <= maximum weight <= bound``."""

    values: np.ndarray = field(repr=False)
    """Truth value of each variable, bool (n,); entry 0 is variable 1."""
    value: float
    """Weight of the clauses it satisfies; exact for integer weights."""
    bound: float
    """Upper bound on the weight that any assignment satisfies, as rigorous as ``result.certificate``; inf without one."""

    @property
    def ratio(self) -> float:
        """``value / bound``; 1 when they are equal, also at 0; nan without a bound."""
        if self.value == self.bound:
            return 1.0
        return self.value / self.bound if 0 < self.bound < math.inf else math.nan


def problem(clauses: Iterable[Sequence[int]], *, weights: Any = None, n: int | None = None) -> Problem:
    """The relaxation of Max-2-SAT; minus its optimum bounds the weight that can be satisfied.

    Parameters
    ----------
    clauses : iterable of sequences of int
        Signed variables counted from 1, as in DIMACS files (``meta["clauses"]`` of `bmsdp.io.cnf.read_cnf`): -3 is "not x_3". At most
        two different literals; a clause with v and -v is always, an empty one never satisfied.
    weights : array_like, optional
        Positive, one per clause; 1 by default.
    n : number of variables; the largest that occurs by default

    Raises
    ------
    ValueError
        No variables; a literal that is 0, no integer or beyond n; three or more literals; weights that are not positive and finite.
    """
    listed = [_clause(j, clause) for j, clause in enumerate(clauses)]
    largest = max((abs(v) for clause in listed for v in clause), default=0)
    n = largest if n is None else n
    if n < 1:
        raise ValueError("there are no variables; at least one is needed (variables without clauses: pass n=)")
    if largest > n:
        raise ValueError(f"variable {largest} occurs, but n = {n}; raise n")
    w = np.ones(len(listed)) if weights is None else np.asarray(weights)
    if w.dtype.kind not in "biuf" or w.shape != (len(listed),) or not (np.isfinite(w) & (w > 0)).all():
        raise ValueError(f"weights have shape {w.shape} ({w.dtype}) for {len(listed)} clauses; one positive finite number each is needed")
    return Problem(two_sat_cost(n, listed, w.astype(float)), Oblique(np.ones(n + 1)))


def recover(result: Any, *, rng: Any = None, trials: int | None = None, local_search: bool = True) -> Assignment:
    """Best assignment among random hyperplanes through the rows of ``result.Y``, the best few improved by single flips.

    Parameters
    ----------
    result : Result of ``bmsdp.solve(problem(clauses))``, or of the C that `bmsdp.io.cnf.read_cnf` returns
    rng : seed or Generator (SPEC 7); the assignment depends on the result and rng alone
    trials : number of hyperplanes; default 100 up to n = 10**4, then fewer, at least 10
    local_search : flip single variables while the weight grows, in the best five

    Returns
    -------
    Assignment
        Where ``result.bound`` holds, ``value <= bound``: the rounding of weights that are no integers is added to it.
    """
    matrix = None if result.data is None else result.data.C.matrix()
    if matrix is None:
        raise ValueError(
            "the result holds no matrix C (loaded from a file, or C is an operator); "
            "solve(problem(clauses), warm_start=result) gives one that does"
        )
    C = sparse.csr_array(matrix)
    n = C.shape[0]
    if trials is None:
        trials = min(100, max(10, 10**6 // n))
    if trials < 1:
        raise ValueError(f"trials = {trials}: at least one hyperplane is needed")
    signs = hyperplane(result.Y, rng, trials)
    best = heapq.nsmallest(5 if local_search else 1, signs, key=lambda x: x @ (C @ x.astype(float)))
    if local_search:
        W = without_loops(4 * C)  # cuts of W gain what -x^T C x gains
        best = [improve(W, x) for x in best]
    value, x = max(((_weight(C, x), x) for x in best), key=lambda pair: pair[0])
    bound = -float(result.bound)
    eighths = 8 * C.data
    if math.isfinite(bound) and not ((eighths == np.floor(eighths)) & (np.abs(eighths) < 2.0**50)).all():
        bound += 2.0**-52 * math.fsum(np.abs(C.data))  # entries of C, and the value, are sums that were rounded
    return Assignment(x[1:] == x[0], value, bound)


def _weight(C: sparse.csr_array, x: np.ndarray) -> float:
    """``-x^T C x``, correctly rounded."""
    rows = np.repeat(x.astype(float), np.diff(C.indptr))
    return -math.fsum(C.data * rows * x[C.indices]) + 0.0


def _clause(j: int, clause: Any) -> tuple[int, ...]:
    try:
        literals = tuple(int(v) for v in clause)
        whole = all(v == w for v, w in zip(clause, literals, strict=True))
    except (TypeError, ValueError):
        literals, whole = (), False
    if not whole or 0 in literals:
        raise ValueError(f"clause {j} is {clause!r}; a sequence of signed variables is needed, integers other than 0 counted from 1")
    if len(set(literals)) > 2 and not any(-v in literals for v in literals):
        raise ValueError(f"clause {j} has {len(set(literals))} literals; at most 2 are needed (Max-2-SAT)")
    return literals
