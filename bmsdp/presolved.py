"""A problem between the caller's rows and the solver's: what presolve has done to it, the way back, and rows of slacks (floor L6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp

from .facial import Face
from .linear_maps import MatrixMap
from .operators import DenseOperator, LowRankPlusSparse, Operator, SparseOperator
from .problem import Problem


class Infeasible(Exception):
    """The rows contradict each other: ``A*(y) + A_geq*(z) <= 0`` and ``<b, y> + <b_geq, z> > 0``, on the face that ``forcing`` leaves."""

    def __init__(self, message: str, y: dict[int, float], z: dict[int, float], forcing: tuple[dict[int, float], dict[int, float]]):
        super().__init__(message)
        self.y, self.z, self.forcing = y, z, forcing


@dataclass
class Point:
    """A factor, the free variables, and multipliers of equality and inequality rows."""

    Y: np.ndarray
    free: np.ndarray
    y: np.ndarray
    z: np.ndarray


@dataclass
class Presolved:
    """The problem in internal coordinates, and the way back."""

    C: Operator
    A: MatrixMap
    b: np.ndarray
    G: MatrixMap
    g: np.ndarray
    is_complex: bool
    undo: list[Callable[[Point], Point]] = field(default_factory=list)
    enter: list[Callable[[np.ndarray], np.ndarray]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    eq: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # the caller's number of each row of A
    geq: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    sizes: tuple[int, int] = (0, 0)  # the caller's m and m_geq
    constant: float = 0.0  # of the cost
    shift: tuple[np.ndarray, np.ndarray] | None = None  # (w, w_geq) that bound the trace, on the rows at that step
    trace_bound: float | None = None  # the caller's
    caller_shift: tuple[np.ndarray, np.ndarray] | None = None  # the same w in the caller's rows
    trace_dual: float = 0.0  # what the caller's trace_bound is worth, after `back`
    same: bool = False  # internal and caller's coordinates are the same
    kept: Any = None
    forcing: tuple[dict[int, float], dict[int, float]] = field(default_factory=lambda: ({}, {}))  # rows that force a face, as multipliers
    face: Face | None = None  # kept, for an `ObliqueFace`
    rest: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # rows of A that the penalty holds
    problem: Problem = None  # type: ignore[assignment]
    unbounded: bool = False  # nothing bounds some rows of X

    def back(self, point: Point) -> Point:
        """The caller's point."""
        for step in reversed(self.undo):
            point = step(point)
        return point

    def warm(self, Y: np.ndarray) -> np.ndarray:
        """The caller's factor in internal coordinates."""
        for step in self.enter:
            Y = step(Y)
        return Y

    def multipliers(self, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The caller's multipliers for (y, z) of the present rows: the linear part of the way back."""
        Y, zero = np.zeros((self.A.n, 1), self.C.dtype), (np.zeros(self.A.m), np.zeros(self.G.m))
        one, none = (self.back(Point(Y, np.zeros(0), *pair)) for pair in ((y, z), zero))
        return one.y - none.y, one.z - none.z

    def contradiction(self, message: str, y: dict[int, float], z: dict[int, float]) -> Infeasible:
        """The error for multipliers of present rows that leave no X."""
        full = np.zeros(self.A.m), np.zeros(self.G.m)
        for part, rows in zip(full, (y, z), strict=True):
            part[list(rows)] = list(rows.values())
        y_caller, z_caller = ({j: float(v) for j, v in enumerate(part) if v} for part in self.multipliers(*full))
        return Infeasible(message, y_caller, z_caller, self.forcing)

    def name(self, r: int) -> str:
        """What the caller calls row r of A: one that slacks made an equality is his inequality."""
        own = int(self.eq[r])
        return f"row {own} of A" if own >= 0 else f"row {-1 - own} of A_geq"

    def drop(self, rows: np.ndarray, geq: np.ndarray) -> None:
        """Leave out rows; their multipliers are 0."""
        keep, keep_geq, m, m_geq = ~rows, ~geq, self.A.m, self.G.m
        if rows.any():
            self.A, self.b, self.eq = self.A.take(np.flatnonzero(keep)), self.b[keep], self.eq[keep]
        if geq.any():
            self.G, self.g, self.geq = self.G.take(np.flatnonzero(keep_geq)), self.g[keep_geq], self.geq[keep_geq]
        if rows.any() or geq.any():

            def back(point: Point) -> Point:
                y, z = np.zeros(m), np.zeros(m_geq)
                y[keep], z[keep_geq] = point.y, point.z
                return Point(point.Y, point.free, y, z)

            self.undo.append(back)


def without_zeros(A: MatrixMap) -> MatrixMap:
    """The same rows, no stored entry 0."""
    if A.rows.data.all():
        return A
    rows = A.rows.copy()
    rows.eliminate_zeros()
    out = MatrixMap(rows, A.n)
    out.rounding = A.rounding
    return out


def _grow(state: Presolved, extra: int) -> None:
    """Rows of X appended that no matrix sees yet."""
    n = state.A.n
    state.C = _padded(state.C, extra)
    place = np.arange(n)
    state.A, state.G = state.A.places(place, n + extra), state.G.places(place, n + extra)
    state.undo.append(lambda point: Point(np.ascontiguousarray(point.Y[:n]), point.free, point.y, point.z))
    state.enter.append(lambda Y: np.concatenate([Y, np.zeros((extra, Y.shape[1]), Y.dtype)]))


def _padded(C: Operator, extra: int) -> Operator:
    if isinstance(C, SparseOperator):
        out = sp.csr_array(C.C)
        out.resize((C.n + extra, C.n + extra))
        return SparseOperator(out, C.rounding)
    if isinstance(C, DenseOperator):
        return DenseOperator(np.pad(C.C, (0, extra)), C.rounding)
    if isinstance(C, LowRankPlusSparse):
        return LowRankPlusSparse.of(_padded(C.A, extra), np.pad(C.U, ((0, extra), (0, 0))), C.d)
    return _Padded(C, extra)


class _Padded(Operator):
    """An operator of products with rows and columns of zeros appended."""

    def __init__(self, C: Operator, extra: int):
        self.C, self.n, self.dtype = C, C.n + extra, C.dtype

    def mul(self, Y: np.ndarray) -> np.ndarray:
        out = np.zeros_like(Y)
        out[: self.C.n] = self.C.mul(np.ascontiguousarray(Y[: self.C.n]))
        return out


def as_equalities(state: Presolved, rows: np.ndarray) -> None:
    """``A_geq(X) - s = b_geq`` for some rows, s >= 0 a new row of X each."""
    n, m, p, m_geq = state.A.n, state.A.m, len(rows), state.G.m
    _grow(state, p)
    N = n + p
    slack = sp.csr_array((-np.ones(p), (np.arange(p), (n + np.arange(p, dtype=np.int64)) * (N + 1))), shape=(p, N * N))
    moved = MatrixMap(sp.csr_array(state.G.rows[rows] + slack), N)
    state.A, state.b = MatrixMap.stack([state.A, moved]), np.concatenate([state.b, state.g[rows]])
    state.eq = np.concatenate([state.eq, -1 - state.geq[rows]])
    keep = np.ones(m_geq, bool)
    keep[rows] = False
    state.G, state.g, state.geq = state.G.take(np.flatnonzero(keep)), state.g[keep], state.geq[keep]

    def back(point: Point) -> Point:
        z = np.zeros(m_geq)
        z[keep], z[rows] = point.z, np.maximum(point.y[m : m + p], 0.0)
        return Point(point.Y, point.free, np.concatenate([point.y[:m], point.y[m + p :]]), z)

    state.undo.append(back)


def add_trace_row(state: Presolved, loose: np.ndarray, R: float) -> None:
    """``sum of X_ii over loose + s = R``: not a row of the caller's; its multiplier is paid by w, where there is one."""
    n, m, shift = state.A.n, state.A.m, state.shift
    _grow(state, 1)
    on = np.append(loose, n).astype(np.int64)
    row = sp.csr_array((np.ones(len(on)), (np.zeros(len(on), int), on * (n + 2))), shape=(1, (n + 1) ** 2))
    state.A, state.b = MatrixMap.stack([state.A, MatrixMap(row, n + 1)]), np.append(state.b, R)

    def back(point: Point) -> Point:
        t, y, z = min(float(point.y[m]), 0.0), point.y[:m], point.z
        if shift is not None:
            y, z = y + t * shift[0], z + t * shift[1]
        else:
            state.trace_dual = -t
        return Point(point.Y, point.free, y, z)

    state.undo.append(back)


def all_equalities(state: Presolved) -> None:
    """Every inequality with a slack row, for a manifold of all rows; the recognised one is forgotten (`assemble_again`)."""
    state.kept = (list(state.undo), list(state.enter), state.C, state.A, state.b, state.eq, state.G, state.g, state.geq)
    state.undo.pop()
    state.enter.pop()
    if state.G.m:
        as_equalities(state, np.arange(state.G.m))


def assemble_again(state: Presolved) -> None:
    """Back to the recognised manifold."""
    state.undo, state.enter, state.C, state.A, state.b, state.eq, state.G, state.g, state.geq = state.kept
