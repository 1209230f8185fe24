r"""Verified bounds: what holds in exact arithmetic, for the data as given, by floating-point factorisation (floor L1).

`lower_bound` is the whole of it: the caller's C, A, b and any dual in, a number not above the optimum out.  It knows nothing of
solvers, manifolds or results.  With ``S = C - A*(y)`` and trace bounds ``X_ii <= r_i`` that rows of A state,

    S + t diag(1/r) >= -diag(e)  proved by `bmsdp.factorization`   ==>   optimum >= <b, y> - <b, w>,   A*(w) >= t diag(1/r) + diag(e),

every error of forming S, of its factorisation and of the final sum included; sums are directed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from .factorization import TINY, UNIT, Arrow, ArrowFactor, BorderedFactor, Elimination, Factor, absolute_gram_rows
from .linear_maps import LinearMap, MatrixMap, as_linear_map
from .operators import LowRankPlusSparse, Operator, as_operator, difference

DENSE_LIMIT = 4000  # rows up to which a low-rank cost is expanded where its structure is no help


class SlackForm:
    """``S = C - A*(mu)`` in the form that factorisations want: S = M, or ``S = M - V V* + W W*``.

    Attributes
    ----------
    matrix : CSR or ndarray
        M off its diagonal; diagonal entries are not read.
    diagonal : ndarray, (n,)
        Of M.
    rounding : ndarray, (n,)
        The exact S differs from the stored one by at most ``diag(rounding)``, in the Loewner order.
    border : pair of ndarray, n x r and n x s, or None
        V and W.
    is_diagonal, is_fragile : bool
        M is diagonal beside a border; and W is not empty: factorisations then want M definite, though S is without.
    """

    def __init__(self, matrix: Any, diagonal: np.ndarray, rounding: np.ndarray, border: tuple[np.ndarray, np.ndarray] | None = None):
        self.matrix, self.diagonal, self.rounding, self.border = matrix, diagonal, rounding, border
        self.is_diagonal = border is not None and _is_diagonal(matrix)
        self.is_fragile = border is not None and self.is_diagonal and bool(border[1].size)

    @classmethod
    def of(cls, C: Operator, A: LinearMap, mu: np.ndarray) -> SlackForm | None:
        """The form of ``C - A*(mu)``; None where C or A*(mu) has no matrix."""
        (matrix, border, expanded), A_mu = _split(C), A.matrix(mu)
        if matrix is None or A_mu is None:
            return None
        sizes, repeated, diagonal_only = _absolute_rows(A, A_mu, mu), _multiplicity(A), _is_diagonal(A_mu)
        c, a = matrix.diagonal().real, A_mu.diagonal().real
        rounding = (repeated + 3) * UNIT * (np.abs(c) + sizes) + getattr(A, "rounding", 0.0) * UNIT * sizes
        entries = C.rounding + expanded + (0 if diagonal_only else repeated + 1)
        if entries:
            reach = C.abs_mul(np.ones(C.n))
            assert reach is not None  # C has entries
            rounding = rounding + entries * UNIT * reach
        for V in border or ():
            rounding += 6 * UNIT * absolute_gram_rows(V)
        return cls(matrix if diagonal_only else difference(matrix, A_mu), c - a, rounding, border)

    def analyse(self) -> Elimination | Arrow | None:
        """The analysis of the pattern; None where a factorisation is not affordable."""
        if self.border is None:
            return Elimination.analyse(self.matrix)
        V, W = self.border
        if self.is_diagonal and not W.shape[1]:
            return Arrow(V) if V.shape[1] <= DENSE_LIMIT else None
        return Elimination.analyse(self._bordered, W.shape[1])

    def factor(self, tree: Elimination | Arrow, diagonal: np.ndarray) -> Factor | BorderedFactor:
        """The factorisation of S with this diagonal of M in place of its own."""
        if self.border is None:
            assert isinstance(tree, Elimination)
            return tree.factor(self.matrix, diagonal)
        V, W = self.border
        if isinstance(tree, Arrow):
            return BorderedFactor(ArrowFactor(V, diagonal), V, W, np.abs(diagonal))
        inner = tree.factor(self._bordered, np.concatenate([diagonal, np.ones(V.shape[1]), -np.ones(W.shape[1])]))
        size = np.abs(diagonal) + np.asarray(abs(self.matrix).sum(axis=1)).ravel()
        return BorderedFactor(inner, V, W, size * (1 + 1e-8))

    def quotient(self, v: np.ndarray) -> float:
        """``v* S v``."""
        off = self.matrix @ v - self.matrix.diagonal() * v + self.diagonal * v
        inside = float(np.vdot(v, off).real)
        for V, sign in zip(self.border or (), (-1, 1), strict=False):
            inside += sign * float(np.linalg.norm(V.conj().T @ v)) ** 2
        return inside

    @cached_property
    def _bordered(self) -> sp.csr_array:
        """``[[M, V, W], [V*, I, 0], [W*, 0, -I]]``, the same for all shifts."""
        assert self.border is not None
        V, W = (sp.csr_array(part) for part in self.border)
        I, J = sp.eye_array(V.shape[1]), sp.eye_array(W.shape[1])
        rows = [[self.matrix, V, W], [V.conj().T, I, None], [W.conj().T, None, -J]]
        out = sp.csr_array(sp.block_array(rows, format="csr"))
        out.sort_indices()
        return out


def _split(C: Operator) -> tuple[Any, tuple[np.ndarray, np.ndarray] | None, int]:
    """``(M, (V, W), p)`` with ``C = M - V V* + W W*`` where that helps; else C in full, a low rank expanded with p u relative error."""
    if not isinstance(C, LowRankPlusSparse):
        return C.matrix(), None, 0
    base, r = C.A.matrix(), C.U.shape[1]
    if base is None:
        return None, None, 0
    arrow = _is_diagonal(base) and 2 * r < C.n and (C.d <= 0).all()
    if arrow or C.n > DENSE_LIMIT and sp.issparse(base):
        V, W = (C.U[:, part] * np.sqrt(np.abs(C.d[part])) for part in (C.d < 0, C.d > 0))
        return base, (V, W), 0
    if C.n > DENSE_LIMIT:
        return None, None, 0
    full = (C.U * C.d) @ C.U.conj().T
    full += base
    full = (full + full.conj().T) / 2
    return full, None, (3 if C.is_complex else 1) * (r + 5)


def _is_diagonal(M: Any) -> bool:
    """Whether the pattern of M is diagonal: its values may differ at the next point."""
    if not sp.issparse(M) or isinstance(M, sp.dia_array):
        return isinstance(M, sp.dia_array)
    M = M.tocoo()
    return bool((M.row == M.col).all())


def _absolute_rows(A: LinearMap, A_mu: Any, mu: np.ndarray) -> np.ndarray:
    """Row sums of ``sum_j |mu_j| |A_j|``."""
    if isinstance(A, MatrixMap):
        return np.bincount(A.i, np.abs(mu)[A.row_of] * np.abs(A.rows.data), A.n)
    return np.asarray(abs(A_mu).sum(axis=1)).ravel()


def _multiplicity(A: LinearMap) -> int:
    """How many A_j have an entry in one place, at most."""
    if not isinstance(A, MatrixMap):
        return 1
    return int(np.unique(A.i * A.n + A.j, return_counts=True)[1].max(initial=1))


@dataclass(frozen=True)
class VerifiedBound:
    """What `lower_bound` proved.

    Attributes
    ----------
    bound : float
        Not above the optimum, in exact arithmetic, for the data as given; -inf where nothing bounds the trace.
    dual : ndarray, (m,)
        ``<b, dual> >= bound`` and ``C - A*(dual)`` is positive semidefinite, exactly (up to ``excess`` where a trace bound paid).
    estimate : float
        The bound without what rounding cost.
    shift : float
        t: the smallest eigenvalue of S, relative to ``diag(1/r)``, was found to be at least about -t.
    rounding : float
        ``estimate - bound``, what the errors cost.
    excess : float
        ``C - A*(dual) >= -excess I``: 0 unless only ``trace_bound`` limits X.
    factorisations : int
    """

    bound: float
    dual: np.ndarray = field(repr=False)
    estimate: float
    shift: float
    rounding: float
    excess: float
    factorisations: int


class _Traces:
    """``X_ii <= r_i`` as the caller's own rows state it, and multipliers ``A*(w) >= diag(e)``.

    A row of A with a nonnegative diagonal alone, ``sum_i a_i X_ii = b``, bounds every X_ii it sees by ``b / a_i``.
    """

    def __init__(self, A: MatrixMap, b: np.ndarray):
        self.m, n = A.m, A.n
        diagonal = np.bincount(A.row_of, (A.i != A.j) & (A.rows.data != 0), A.m) == 0
        value, sign = A.rows.data.real, np.where(b < 0, -1.0, 1.0)
        negative = np.bincount(A.row_of, value * sign[A.row_of] < 0, A.m) > 0
        use = (diagonal & ~negative)[A.row_of] & (value != 0)
        row, i, a = A.row_of[use], A.i[use], np.abs(value[use])
        r = np.abs(b[row]) / a
        least = np.full(n, np.inf)
        np.minimum.at(least, i, r)
        near = np.flatnonzero(r <= least[i] * (1 + 1e-9))  # of rows that say the same the first one counts
        first = near[np.unique(i[near], return_index=True)[1]]
        self.row_trace, self.row, self.a, self.sign = np.full(n, np.inf), np.full(n, -1), np.ones(n), sign
        self.row_trace[i[first]], self.row[i[first]], self.a[i[first]] = r[first], row[first], a[first]

    def cover(self, e: np.ndarray) -> np.ndarray | None:
        """w with ``A*(w) >= diag(e)``; None where a row with e > 0 has no bound."""
        w, seen = np.zeros(self.m), self.row >= 0
        if (e[~seen] > 0).any():
            return None
        np.maximum.at(w, self.row[seen], e[seen] / self.a[seen] * (1 + 4 * UNIT))
        return w * self.sign


def lower_bound(C: Any, A: Any = None, b: Any = None, dual: Any = None, *, trace_bound: float | None = None) -> VerifiedBound:
    """A number not above ``min <C, X>, A(X) = b, X >= 0``, proved from any multipliers.

    Parameters
    ----------
    C : ndarray, sparse array or LowRankPlusSparse
        n x n, real symmetric or complex Hermitian; the caller's original data.
    A : sequence of n x n matrices, m x n^2 sparse array, or a manifold, optional
        None means unit diagonal.
    b : array_like, (m,), optional
    dual : array_like, (m,)
        Any real multipliers y: good ones give a good bound, bad ones a bad one.  0 by default.
    trace_bound : float, optional
        ``tr X <= trace_bound`` for all feasible X, where rows of A do not say so.

    Raises
    ------
    ValueError
        For a C without entries (a LinearOperator), or whose factorisation is not affordable.

    Cost
    ----
    One factorisation when ``C - A*(y)`` is positive definite or almost; a few when it is not.
    """
    operator = as_operator(C)
    A, b = _constraints(operator.n, A, b)
    traces = _Traces(A, b) if isinstance(A, MatrixMap) else A
    y = np.zeros(A.m) if dual is None else _real(dual, "dual", A.m)
    if trace_bound is not None and not (np.isfinite(trace_bound) and trace_bound > 0):
        raise ValueError(f"trace_bound = {trace_bound}; a positive finite number is needed")
    if isinstance(A, MatrixMap) and A.rows.dtype.kind == "c" and not operator.is_complex:
        operator = operator.as_complex()
    form = SlackForm.of(operator, A, y)
    if form is None:
        raise ValueError(NO_MATRIX)
    tree = form.analyse()
    if tree is None:
        raise ValueError(TOO_DENSE)
    r = np.array(traces.row_trace, float)
    if not isinstance(traces, _Traces):
        r[r <= 0] = np.inf  # rows of a manifold that nothing bounds
    free = ~np.isfinite(r)
    if trace_bound is not None:  # where it has to pay, one unit for all rows: the bounded ones cost less than it
        r = np.full(operator.n, float(trace_bound)) if free.any() else np.minimum(r, trace_bound)
    weight = 1 / np.where(r > 0, r, np.inf)
    weight[r == 0] = 1e8 * weight.max(initial=0.0)  # X_ii = 0: shifts there cost nothing
    t, error, count = _definite_shift(form, tree, weight)
    needed = (t * weight + error) * (1 + 4 * UNIT) if np.isfinite(t) else np.full(operator.n, np.inf)
    excess = float(needed[free].max(initial=0.0))
    if not np.isfinite(needed).all() or excess > 0 and trace_bound is None:
        return VerifiedBound(-math.inf, y, -math.inf, t, 0.0, math.inf, count)
    w, cheap = (traces.cover(np.where(free, 0.0, e)) for e in (needed, t * weight))
    final, R = y - w, trace_bound or 0.0
    slip = 4 * UNIT * float(np.abs(b) @ np.abs(final))
    bound = sum_down(np.concatenate([b * final, [-slip, -excess * R * (1 + 4 * UNIT)]]))
    estimate = math.fsum(b * (y - cheap)) - float((t * weight)[free].max(initial=0.0)) * R
    return VerifiedBound(bound, final, estimate, t, estimate - bound, excess, count)


def cost_above(C: Operator, Y: np.ndarray, distance: np.ndarray) -> float | None:
    """The cost of any factor Z with rows ``|y_i - z_i| <= distance_i``, rounded up; None for a C without entries.

    ``|<y_i, y_j> - <z_i, z_j>| <= |y_i| d_j + |y_j| d_i + d_i d_j``, summed against |C|; and the rounding of ``sum_i <g_i, y_i>``, which
    is added exactly.
    """
    size = np.linalg.norm(Y, axis=1)
    reach = C.abs_mul(size)
    if reach is None:
        return None
    field = 3 if np.iscomplexobj(Y) else 1
    k = Y.shape[1] * field
    d = distance + (k + 6) * UNIT * size
    spread = 2 * float(d @ reach) + float(d @ C.abs_mul(d))
    rounding = (field * C.terms + k + 6 + C.rounding) * UNIT * float(size @ reach)
    rows = np.einsum("ij,ij->i", C.mul(Y).conj(), Y).real
    return sum_up(rows) + 1.001 * (spread + rounding)


NO_MATRIX = (
    "a verified bound needs the entries of C, and C is an operator that only multiplies: pass C as an array, a sparse array or "
    "LowRankPlusSparse(A, U, d), or ask for certify='probabilistic'"
)
TOO_DENSE = "a verified bound needs a factorisation of C - A*(mu), and there is too much fill-in for one; ask for certify='probabilistic'"


def _constraints(n: int, A: Any, b: Any) -> tuple[Any, np.ndarray]:
    """The caller's A as a map, and b."""
    if A is None:
        if b is not None and np.shape(b) != (n,):
            raise ValueError(f"b has shape {np.shape(b)} but without A it is the diagonal of X; it must have shape ({n},)")
        rows = sp.csr_array((np.ones(n), np.arange(n, dtype=np.int64) * (n + 1), np.arange(n + 1)), shape=(n, n * n))
        return MatrixMap(rows, n), np.ones(n) if b is None else _real(b, "b", n)
    A = as_linear_map(A, n)
    if not isinstance(A, MatrixMap) and not hasattr(A, "cover"):
        raise ValueError(f"A is a {type(A).__name__} that shows no rows; pass its matrices, or a manifold")
    if b is None and not hasattr(A, "b"):
        raise ValueError(f"A has {A.m} rows but b was not given; pass the {A.m} right-hand sides")
    return A, _real(A.b if b is None else b, "b", A.m)


def _real(values: Any, name: str, m: int) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype.kind == "c" or values.shape != (m,) or not np.isfinite(values.astype(float)).all():
        raise ValueError(f"{name} has shape {values.shape} and must hold {m} finite numbers, real and one per row of A")
    return values.astype(float)


def _definite_shift(form: SlackForm, tree: Any, weight: np.ndarray) -> tuple[float, np.ndarray, int]:
    """``(t, e, factorisations)``: ``S + t diag(weight) >= -diag(e)``; t = inf where no t was found.

    A factorisation that breaks down shows a direction of nonpositive curvature, so the next t is above its quotient.
    """
    rows = np.asarray(abs(form.matrix).sum(axis=1)).ravel() + np.abs(form.diagonal) + form.rounding / UNIT
    size = float(np.max(rows / np.where(weight > 0, weight, np.inf), initial=0.0))
    t, failed, found, growth, refined = 0.0, 0.0, None, 3.0, 0
    for count in range(1, 61):  # noqa: B007 (returned)
        diagonal = form.diagonal + t * weight
        factor = form.factor(tree, diagonal)
        if factor.definite:
            found = t, factor.error_rows() + form.rounding + 4 * UNIT * np.abs(diagonal)
            if t <= 1e-14 * size:
                break
        else:
            v = factor.negative_direction()
            failed = max(failed, t, -form.quotient(v) / max(float(np.abs(v) ** 2 @ weight), 1e-300))
        if found is not None:  # between what failed and what held
            if found[0] <= 1.02 * failed or refined >= 8:
                break
            t, refined = math.sqrt(failed * found[0]) if failed > 0 else found[0] / 10, refined + 1
        elif not failed < 1e250 or not weight.any() or not t <= 1e6 * size:
            break
        else:
            t, growth = max(1.02 * failed, growth * t, 1e-15 * size, TINY / float(weight.max())), min(growth**2, 1e4)
    return (*found, count) if found is not None else (math.inf, form.rounding, count)


def sum_down(terms: np.ndarray) -> float:
    """A number not above the exact sum of the floats ``terms``."""
    total = math.fsum(terms)  # correctly rounded; exactly 0 for no terms at all
    return math.nextafter(total, -math.inf) if np.any(terms) else total


def sum_up(terms: np.ndarray) -> float:
    """A number not below the exact sum of the floats ``terms``."""
    return -sum_down(-np.asarray(terms))
