r"""From the caller's rows to a `Problem`, and back (floor L6).

Each step rewrites ``(C, A, b, A_geq, b_geq)`` exactly and knows its way back for points and multipliers: zero, duplicate and
sign-definite rows; free variables (solved for in pivot rows: ``x_f = (b_p - <A_p, X>) / a_pf``); faces of the cone
(`bmsdp.facial`); diagonal inequalities as spheres with a slack row; and, where rows of X have no bound, one bound on the trace as a
sphere with a slack row.  A contradiction met on the way is a proof: an `Infeasible` that names its rows and holds the ray.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from .cone import Given
from .detect import Recognised, detect_manifold
from .facial import Face, rank_one, zero_rows
from .linear_maps import MatrixMap
from .manifolds import Manifold, Oblique, ObliqueFace
from .operators import DenseOperator, LowRankPlusSparse, Operator, SparseOperator
from .pattern_map import LONG
from .penalty import Penalty
from .presolved import Infeasible, Point, Presolved, add_trace_row, as_equalities, without_zeros
from .problem import Problem, Term
from .shift import trace_shift

SAME = 1e-12  # relative difference of right-hand sides up to which proportional rows say the same
SMALL_PSD = 60  # rows of X that a row may touch to be tested for semidefiniteness by its eigenvalues
ONLY_ZERO = "the constraints force X = 0; remove the rows and columns that vanish"
DENSE_COST = 0.25  # part of the entries of C from which it is kept as a dense matrix


def presolve(given: Given, trace_bound: float | None = None, linear: bool = True) -> Presolved:
    """The problem that solvers see.  Raises `Infeasible` for rows that contradict each other.

    ``linear``: rows ``<u u*, X> = 0`` beside a given diagonal alone may become an `ObliqueFace`.
    """
    assert isinstance(given.A, MatrixMap) and isinstance(given.A_geq, MatrixMap)
    C = _compact(given.C)
    C = C.as_complex() if given.is_complex and not C.is_complex else C
    state = Presolved(C, without_zeros(given.A), given.b, without_zeros(given.A_geq), given.b_geq, C.is_complex)
    state.eq, state.geq = np.arange(given.A.m), np.arange(given.A_geq.m)
    state.sizes, state.trace_bound = (given.A.m, given.A_geq.m), trace_bound
    _drop_zero_rows(state)
    if len(given.cone.free):
        from .free import eliminate_free

        eliminate_free(state, given.cone.free)
        _drop_zero_rows(state)
    _drop_copies(state)
    _reduce_to_face(state)
    _bound_by_slacks(state, trace_bound)
    found = detect_manifold(state.A, state.b, state.is_complex)
    alone = isinstance(found.manifold, Oblique) and found.trivial and not len(found.rest) and not state.G.m
    if state.face is not None and not (linear and alone):
        _apply_face(state, state.face)
        state.face = None
        found = detect_manifold(state.A, state.b, state.is_complex)
    _assemble(state, found)
    return state


def _compact(C: Operator) -> Operator:
    """A stored C in the form with the cheapest products: a block of rank one as its vector, a dense matrix as such."""
    M = C.matrix()
    if not isinstance(C, SparseOperator | DenseOperator) or M is None:
        return C
    dense = not sp.issparse(M)
    if C.n**2 < LONG:
        return C
    M = sp.coo_array(M)
    side = int(np.rint(np.sqrt(np.count_nonzero(M.data))))
    if side**2 == np.count_nonzero(M.data):
        keep = M.data != 0
        row = sp.csr_array((M.data[keep], (np.zeros(side**2, int), M.row[keep].astype(np.int64) * C.n + M.col[keep])), shape=(1, C.n**2))
        for one in rank_one(MatrixMap(row, C.n)):
            U = np.zeros((C.n, 1), one.values.dtype)
            U[one.support, 0] = one.values
            out = LowRankPlusSparse(None, U, np.array([1 / one.divisor]))
            out.rounding = C.rounding + (0 if one.exact else 16)
            return out
    return C if dense or M.nnz < DENSE_COST * C.n**2 else DenseOperator(M.toarray(), C.rounding)


def _largest(A: MatrixMap) -> np.ndarray:
    out = np.zeros(A.m)
    np.maximum.at(out, A.row_of, np.abs(A.rows.data))
    return out


def _drop_zero_rows(state: Presolved) -> None:
    empty, empty_geq = _largest(state.A) == 0, _largest(state.G) == 0
    for j in np.flatnonzero(empty & (state.b != 0))[:1]:
        message = f"{state.name(j)} says 0 = {float(state.b[j])!r}, which has no solution"
        raise state.contradiction(message, {int(j): float(np.sign(state.b[j]))}, {})
    for j in np.flatnonzero(empty_geq & (state.g > 0))[:1]:
        message = f"row {int(state.geq[j])} of A_geq says 0 >= {float(state.g[j])!r}, which has no solution"
        raise state.contradiction(message, {}, {int(j): 1.0})
    if empty.any() or empty_geq.any():
        state.notes.append(f"{int(empty.sum() + empty_geq.sum())} rows 0 = 0 dropped")
    state.drop(empty, empty_geq)


def _alike(A: MatrixMap) -> np.ndarray:
    """The rows whose places are those of another row, as far as a hash tells."""
    filled = np.flatnonzero(np.diff(A.rows.indptr))
    if not len(filled):
        return filled
    mixed = A.rows.indices.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    hashed = np.add.reduceat(mixed, A.rows.indptr[filled])
    _, group, count = np.unique(hashed, return_inverse=True, return_counts=True)
    return filled[count[group.ravel()] > 1]


def _proportional(A: MatrixMap) -> tuple[np.ndarray, np.ndarray]:
    """(first row proportional to each row, factor): ``A_r = factor_r A_first``; a few ulps apart count as proportional."""
    first, factor = np.arange(A.m), np.ones(A.m)
    size = np.diff(A.rows.indptr)
    seen: dict[tuple[bytes, bytes], tuple[int, Any]] = {}
    for r in map(int, _alike(A)):
        s = slice(A.rows.indptr[r], A.rows.indptr[r + 1])
        places, data = A.rows.indices[s], A.rows.data[s]
        if size[r] > 1 and (np.diff(places) < 0).any():
            order = np.argsort(places)
            places, data = places[order], data[order]
        lead = data[0]
        key = places.tobytes(), (np.round(data / lead, 12) + 0.0).tobytes()
        q, first_lead = seen.setdefault(key, (r, lead))
        ratio = lead / first_lead
        if q != r and abs(np.imag(ratio)) <= SAME * abs(ratio):
            first[r], factor[r] = q, float(np.real(ratio))
    return first, factor


def _drop_copies(state: Presolved) -> None:
    """Proportional rows: once, the tightest inequality of several; contradictions are found."""
    first, factor = _proportional(state.A)
    copies = first != np.arange(state.A.m)
    for r in map(int, np.flatnonzero(copies)):
        q, x, y = int(first[r]), state.b[r] / factor[r], state.b[first[r]]
        if abs(x - y) > SAME * max(abs(x), abs(y)):
            sign = float(np.sign(y - x))
            raise state.contradiction(
                f"rows {int(state.eq[q])} and {int(state.eq[r])} contradict each other: {_place(state.A, q)} = {float(y)} and {float(x)}",
                {q: sign, r: -sign / float(factor[r])}, {},
            )  # fmt: skip
    loose = np.zeros(state.G.m, bool)
    if state.G.m:
        first, factor = _proportional(state.G)
        best: dict[tuple[int, bool], int] = {}
        for r in range(state.G.m):
            key = int(first[r]), bool(factor[r] > 0)
            kept = best.setdefault(key, r)
            if kept != r:
                looser = r if state.g[r] / abs(factor[r]) <= state.g[kept] / abs(factor[kept]) else kept
                best[key] = kept if looser == r else r
                loose[looser] = True
        for (q, positive), low in best.items():
            high = best.get((q, False))
            if positive and high is not None:
                x, y = state.g[low] / abs(factor[low]), -state.g[high] / abs(factor[high])
                if x > y + SAME * max(abs(x), abs(y)):
                    names, rays = (int(state.geq[low]), int(state.geq[high])), {r: 1 / abs(float(factor[r])) for r in (low, high)}
                    message = f"rows {names[0]} and {names[1]} of A_geq contradict each other: >= {float(x)!r} and <= {float(y)!r}"
                    raise state.contradiction(message, {}, rays)
    if copies.any() or loose.any():
        listed = ", ".join(str(int(state.eq[r])) for r in np.flatnonzero(copies)[:8])
        state.notes.append(f"{int(copies.sum() + loose.sum())} duplicate rows dropped" + (f" ({listed})" if listed else ""))
    state.drop(copies, loose)


def _place(A: MatrixMap, r: int) -> str:
    p = A.rows.indptr[r]
    return f"X_{A.i[p]},{A.j[p]}" if A.rows.indptr[r + 1] - p == 1 else "<A_j, X>"


def _sign_definite(A: MatrixMap, b: np.ndarray) -> dict[int, tuple[int, list[Any], Any]]:
    """``{row: (sign, vectors, zeros)}`` for rows with ``sign A_r >= 0 >= sign b_r``; vectors u and indices that span their range."""
    out: dict[int, tuple[int, list[Any], Any]] = {}
    diagonal = np.bincount(A.row_of, (A.i == A.j) * A.rows.data.real, A.m)
    rows = np.flatnonzero((diagonal != 0) & (np.sign(diagonal) * b <= 0))
    for one in zero_rows(A, rows):
        out[one.row] = (1 if one.a[0] > 0 else -1, [], one.support)
    for found in rank_one(A, rows):
        out[found.row] = (1 if found.divisor > 0 else -1, [found], np.zeros(0, np.int64))
    size = np.diff(A.rows.indptr)
    for r in map(int, rows[(size[rows] > 1) & (size[rows] <= SMALL_PSD**2)]):
        if r in out:
            continue
        s = slice(A.rows.indptr[r], A.rows.indptr[r + 1])
        i, j, data = A.i[s], A.j[s], A.rows.data[s]
        support = np.unique(i)
        d = data[i == j].real
        if len(support) > SMALL_PSD or len(d) < len(support) or not ((d > 0).all() or (d < 0).all()):
            continue
        M = np.zeros((len(support), len(support)), A.rows.dtype)
        M[np.searchsorted(support, i), np.searchsorted(support, j)] = data
        values, V = np.linalg.eigh(M)
        top = np.abs(values).max()
        if values[0] < -1e-12 * top and values[-1] > 1e-12 * top:
            continue
        us = []
        for q in np.flatnonzero(np.abs(values) > 1e-12 * top):
            u = np.zeros(A.n, M.dtype)
            u[support] = V[:, q]
            us.append(u)
        out[r] = (1 if values[-1] > -values[0] else -1, us, np.zeros(0, np.int64))
    return out


def _reduce_to_face(state: Presolved) -> None:
    """Semidefinite rows: with the wrong sign of b a contradiction, with b = 0 a face, redundant inequalities dropped."""
    us: list[Any] = []
    zeros: list[np.ndarray] = []
    hold, hold_geq = np.zeros(state.A.m, bool), np.zeros(state.G.m, bool)
    for r, (sign, vectors, support) in _sign_definite(state.A, state.b).items():
        if sign * state.b[r] < 0:
            word = "positive" if sign > 0 else "negative"
            raise state.contradiction(f"{state.name(r)} is {word} semidefinite but <A_j, X> = {float(state.b[r])!r}", {r: float(-sign)}, {})
        if state.b[r] == 0:
            hold[r] = True
            if state.eq[r] >= 0:
                state.forcing[0][int(state.eq[r])] = -float(sign)
            us += vectors
            zeros.append(support)
    for r, (sign, vectors, support) in _sign_definite(state.G, state.g).items():
        if sign < 0 < state.g[r]:
            message = f"row {int(state.geq[r])} of A_geq is negative semidefinite but <A_j, X> >= {float(state.g[r])!r}"
            raise state.contradiction(message, {}, {r: 1.0})
        if sign > 0 and state.g[r] <= 0:
            hold_geq[r] = True  # says nothing
        elif sign < 0 and state.g[r] == 0:
            hold_geq[r] = True
            state.forcing[1][int(state.geq[r])] = 1.0
            us += vectors
            zeros.append(support)
    names = ", ".join(str(int(state.eq[r])) for r in np.flatnonzero(hold)[:8])
    state.drop(hold, hold_geq)
    if not us and not any(len(z) for z in zeros):
        return
    face = Face(state.A.n, us, np.concatenate([np.zeros(0, np.int64), *zeros]))
    state.notes.append(f"rows {names} of A force X u = 0 (no attained multiplier): X has {len(face.zeros) + len(face.pivots)} rows less")
    if not len(face.kept):
        raise ValueError(ONLY_ZERO)
    fixed = np.zeros(state.A.n, bool)
    for row in zero_rows(state.A):
        if len(row.support) == 1 and row.a[0] * state.b[row.row] > 0:
            fixed[row.support] = True
    if fixed.all() and not len(face.zeros) and len(face.pivots):
        state.face = face
    else:
        _apply_face(state, face)


def _apply_face(state: Presolved, face: Face) -> None:
    """``Y = V Z``, in all that follows."""
    state.C, state.A, state.G = face.cost(state.C), _on_face(face, state.A), _on_face(face, state.G)
    state.undo.append(lambda point: Point(face.lift(point.Y), point.free, point.y, point.z))
    state.enter.append(face.restrict)
    _drop_zero_rows(state)


def _on_face(face: Face, A: MatrixMap) -> MatrixMap:
    """``V* A_j V``, rows of which rounding alone is left being zero."""
    out = face.rows(A)
    rounding = 1e-13 * _largest(A) * (1 + float(np.abs(face.W).max() if face.W.size else 0.0)) ** 2
    out.rows.data[(_largest(out) <= rounding)[out.row_of]] = 0
    return without_zeros(out)


def _bound_by_slacks(state: Presolved, trace_bound: float | None) -> None:
    """Spheres with a slack row: diagonal inequalities, and one trace bound for rows that nothing else bounds."""
    covered = np.zeros(state.A.n, bool)
    for row in zero_rows(state.A):
        if row.a[0] * state.b[row.row] > 0:
            covered[row.support] = True
    upper = []
    for row in sorted(zero_rows(state.G), key=lambda row: len(row.support)):
        if row.a[0] < 0 and state.g[row.row] < 0 and not covered[row.support].any():
            covered[row.support] = True
            upper.append(row.row)
    if upper:
        as_equalities(state, np.array(upper))
        state.notes.append(f"{len(upper)} diagonal inequalities became spheres with a slack row")
    loose = detect_manifold(state.A, state.b, state.is_complex).loose
    if not len(loose):
        return
    R = trace_bound
    if R is None:
        state.shift = trace_shift(state.A, state.b, state.G, state.g, n=state.A.n)
        if state.shift is None:
            state.unbounded = True
            state.notes.append("nothing bounds the trace of X: no bound on the optimum unless trace_bound is given")
            return
        R = float(state.b @ state.shift[0] + state.g @ state.shift[1])
        state.notes.append(f"A*(w) >= I was found: tr X <= {R:.6g}")
    w = None if state.shift is None else state.multipliers(-state.shift[0], -state.shift[1])  # signs of a ray: z >= 0
    if not R > 0:
        assert w is not None
        if not state.b.any() and not (state.g > 0).any():
            raise ValueError(ONLY_ZERO)
        y, z = ({j: float(v) for j, v in enumerate(part) if v} for part in w)
        raise Infeasible(f"a combination of the rows bounds the trace of X by {R:.6g}, not above 0", y, z, state.forcing)
    state.caller_shift = None if w is None else (-w[0], -w[1])
    add_trace_row(state, loose, R)


def _assemble(state: Presolved, found: Recognised) -> None:
    """The Problem of the recognised manifold, all other rows held by a Penalty."""
    m, rest = state.A.m, found.rest
    state.rest = rest
    eq = np.full(m, -1)
    eq[: len(state.eq)] = state.eq
    state.eq = eq  # a trace row has no number
    A, G, C = found.rows(state.A.take(rest)), found.rows(state.G), found.operator(state.C)
    terms: list[Term] = []
    manifold: Manifold = found.manifold
    if state.face is not None:
        manifold = ObliqueFace(manifold.b, state.face)
        C = _projected(C, manifold.Q)
    if len(rest) or state.G.m or state.face is not None:
        rows = {"A": A, "b": state.b[rest]} if len(rest) or not state.G.m else {}
        above = {"A_geq": G, "b_geq": state.g} if state.G.m else {}
        terms.append(Penalty(**rows, **above, n=C.n, is_complex=state.is_complex))
    state.problem = Problem(C, manifold, terms)
    stated = found.manifold.m

    def back(point: Point) -> Point:
        y = found.to_caller(point.y[:stated])
        y[rest] = point.y[stated:]
        assert len(y) == m
        return Point(found.factor_out(point.Y), point.free, y, point.z)

    state.same = found.trivial and not state.undo and not terms
    state.undo.append(back)
    state.enter.append(found.factor_in)


def _projected(C: Operator, Q: np.ndarray) -> Operator:
    """``P C P``, ``P = I - QQ*``: C with a low-rank part, or an operator of products."""
    CQ = C.mul(np.ascontiguousarray(Q, np.result_type(Q, C.dtype)))
    F = CQ - Q @ (Q.conj().T @ CQ) / 2  # P C P = C - Q F* - F Q*
    a = np.sqrt(np.linalg.norm(F) / np.linalg.norm(Q)) or 1.0
    low, d = np.hstack([a * Q + F / a, a * Q - F / a]), np.repeat([-0.5, 0.5], Q.shape[1])
    if isinstance(C, LowRankPlusSparse):
        return LowRankPlusSparse(C.A, np.hstack([C.U, low]), np.concatenate([C.d, d]))
    return LowRankPlusSparse(C, low, d)
