r"""A `Program` as the standard form of `bmsdp.solve`, and its solution back: `as_primal`, `as_dual`, `translate`.

Primal form. The matrices of the standard form are the cones' own: ``X_k = f_k - F_k x``. Where an entry of X_k is one variable
(or a slack of ``G x <= h`` is), it *owns* that variable, which is replaced by it everywhere; entries that own nothing become
equality rows ``X_k,r + F_r x = f_r``. With ``X = cvxpy.Variable((n, n), symmetric=True)`` every entry owns one, and no row is added.

Dual form. For ``F0 + x_1 F_1 + ... >> 0`` nearly nothing is owned, and n (n + 1) / 2 rows would be added. But the dual program

    min  <f, Z> + h'y_h + e'y_e   s.t.   F_p'Z + G_p'y_h + E_p'y_e = -c_p  for every variable x_p,   Z >> 0, y_h >= 0, y_e free

is in standard form with one row for each x_p, and *its* multipliers are x, its slack ``f - F x``.

The form with fewer equality rows is taken (`form="auto"`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from .conic import Block, Program

Array = np.ndarray


class Solution(NamedTuple):
    """Values of x and the multipliers y of ``L = c'x + y'(A x - b)``: the caller's rows, and a matrix for each block."""

    x: Array
    equal: Array
    less: Array
    Z: list[Array]


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the standard form keeps its coordinates: entry r is the real or imaginary part of ``X[i_r, j_r]``, ``i <= j``.

    PSD blocks come first, then nonnegative variables, then free ones, all on the diagonal.
    """

    sizes: list[int]
    nonneg: int
    free: int
    i: Array
    j: Array
    imag: Array
    starts: Array
    """First coordinate of every PSD block, of the nonnegative and of the free variables, and their number."""

    @classmethod
    def of(cls, blocks: Iterable[Block], nonneg: int, free: int) -> Layout:
        blocks = list(blocks)
        sizes = [block.size for block in blocks]
        offsets = np.cumsum([0, *sizes])
        single = offsets[-1] + np.arange(nonneg + free)
        i = [block.i + o for block, o in zip(blocks, offsets[:-1], strict=True)]
        j = [block.j + o for block, o in zip(blocks, offsets[:-1], strict=True)]
        imag = np.concatenate([*(block.imag for block in blocks), np.zeros(nonneg + free, bool)])
        starts = np.cumsum([0, *map(len, i), nonneg, free])
        return cls(sizes, nonneg, free, np.concatenate([*i, single]), np.concatenate([*j, single]), imag, starts)

    @property
    def n(self) -> int:
        return sum(self.sizes) + self.nonneg + self.free

    @property
    def blocks(self) -> list[Any] | None:
        """As `bmsdp.solve` takes them; None for a single semidefinite block."""
        if len(self.sizes) == 1 and not self.nonneg + self.free:
            return None
        return [*self.sizes, *[("nonneg", self.nonneg)] * (self.nonneg > 0), *[("free", self.free)] * (self.free > 0)]

    def matrices(self, R: sp.csr_array, weights: Array | None = None) -> sp.csr_array:
        """Rows ``r'(coordinates)`` as matrices A_r with ``<A_r, X> = r'(coordinates)``, stacked, m x n^2."""
        R, n = sp.csr_array(R), self.n
        row = np.repeat(np.arange(R.shape[0]), np.diff(R.indptr))
        i, j, imag = self.i[R.indices].astype(np.int64), self.j[R.indices].astype(np.int64), self.imag[R.indices]
        data = R.data if weights is None else R.data * weights[R.indices]
        off = i < j
        upper = np.where(off, data / 2, data)
        lower = upper[off]
        if self.imag.any():  # Im X_ij = Re conj(i/2) X_ij + its mirror image
            upper = np.where(imag, 1j * upper, upper)
            lower = upper[off].conj()
        place = np.concatenate([row, row[off]]), np.concatenate([i * n + j, j[off] * n + i[off]])
        return sp.coo_array((np.concatenate([upper, lower]), place), shape=(R.shape[0], n * n)).tocsr()

    def coordinates(self, result: Any) -> Array:
        """The coordinates of ``result.X``, from its factor."""
        Y, out, stop = result.Y, np.empty(self.starts[-1]), 0
        for k, size in enumerate(self.sizes):
            start, stop = stop, stop + size
            own = slice(self.starts[k], self.starts[k + 1])
            X = Y[start:stop] @ Y[start:stop].conj().T
            values = X[self.i[own] - start, self.j[own] - start]
            out[own] = np.where(self.imag[own], values.imag, values.real)
        rest = self.starts[len(self.sizes)]
        out[rest : rest + self.nonneg] = (np.abs(Y[stop : stop + self.nonneg]) ** 2).sum(axis=1)
        if self.free:
            out[rest + self.nonneg :] = result.free
        return out

    def as_matrices(self, u: Array, weighted: bool) -> list[Array]:
        """Hermitian matrices of the PSD blocks from coordinates; ``weighted``: from the coefficients of a functional of them."""
        out, stop = [], 0
        for k, size in enumerate(self.sizes):
            start, stop = stop, stop + size
            own = slice(self.starts[k], self.starts[k + 1])
            i, j, imag, values = self.i[own] - start, self.j[own] - start, self.imag[own], u[own]
            if weighted:
                values = np.where(i < j, values / 2, values)
            Z = np.zeros((size, size), complex if imag.any() else float)
            Z[i[~imag], j[~imag]] = values[~imag]
            if imag.any():
                Z[i[imag], j[imag]] += 1j * values[imag]
            out.append(Z + np.triu(Z, 1).conj().T)
        return out

    @property
    def weights(self) -> Array:
        """2 off the diagonal, so that ``matrices`` of entries are those entries."""
        return np.where(self.i < self.j, 2.0, 1.0)


@dataclass(frozen=True, eq=False)
class Standard:
    """``min <C, X>``, ``A(X) = b``, ``A_geq(X) >= b_geq``, as `bmsdp.solve` takes it, and the way back."""

    form: str
    """ "primal" or "dual"."""
    program: Program
    layout: Layout
    C: sp.csr_array
    A: sp.csr_array
    b: Array
    A_geq: sp.csr_array | None
    b_geq: Array | None
    way: Any = field(repr=False, default=None)
    """What `as_primal` has to remember."""

    @property
    def blocks(self) -> list[Any] | None:
        return self.layout.blocks

    def recover(self, result: Any) -> Solution:
        """The program's variables and multipliers from a result's ``Y``, ``free``, ``dual`` and ``dual_geq``."""
        return (_from_primal if self.form == "primal" else _from_dual)(self, result)


def translate(program: Program, form: str = "auto") -> Standard:
    """The standard form with fewer equality rows, or the one asked for: "primal" or "dual"."""
    if form not in ("auto", "primal", "dual"):
        raise ValueError(f'form = {form!r}; it must be "auto", "primal" or "dual"')
    if form == "dual":
        return as_dual(program)
    own = owners(program)
    if form == "auto" and len(program.equal.rhs) + len(own.unowned) > len(program.c):
        return as_dual(program)
    return as_primal(program, own)


class Owners(NamedTuple):
    """Which coordinate is which variable; rows are those of the blocks, stacked, and then those of ``G x <= h``."""

    variable: Array
    """Variables that are owned."""
    row: Array
    """The row each is owned by."""
    unowned: Array
    """Rows of the blocks that own nothing, empty ones included."""


def owners(program: Program) -> Owners:
    """Give every variable to the first row that has no other: of the blocks, fullest first, then of the inequalities."""
    d = len(program.c)
    parts = [block.F for block in program.blocks] + [program.less.matrix]
    start = np.cumsum([0, *(part.shape[0] for part in parts)])
    owned_by = np.full(d, -1)
    lone = [np.flatnonzero(np.diff(part.indptr) == 1) for part in parts]
    share = [len(rows) / max(part.shape[0], 1) for rows, part in zip(lone, parts, strict=True)]
    order = [*sorted(range(len(parts) - 1), key=lambda k: -share[k]), len(parts) - 1]
    for k in order:
        rows = lone[k]
        columns, first = np.unique(parts[k].indices[parts[k].indptr[rows]], return_index=True)
        new = owned_by[columns] < 0
        owned_by[columns[new]] = start[k] + rows[first[new]]
    variable = np.flatnonzero(owned_by >= 0)
    idle = np.ones(start[-2], bool)
    idle[owned_by[variable][owned_by[variable] < start[-2]]] = False
    return Owners(variable, owned_by[variable], np.flatnonzero(idle))


class PrimalWay(NamedTuple):
    """``x = x0 + T u`` for the coordinates u, and the rows of the standard form in terms of u."""

    x0: Array
    T: sp.csr_array
    slacks: Array
    """Rows of ``G x <= h`` whose slack is a coordinate."""
    others: Array
    """The rest of them, rows of A_geq."""
    cost: Array
    equal: sp.csr_array
    geq: sp.csr_array


def as_primal(program: Program, own: Owners | None = None) -> Standard:
    """The standard form whose X are the cones' matrices."""
    own = owners(program) if own is None else own
    E, G, d = program.equal.matrix, program.less.matrix, len(program.c)
    F = sp.csr_array(sp.vstack([*(block.F for block in program.blocks), G]))
    f = np.concatenate([*(block.f for block in program.blocks), program.less.rhs])
    entries = F.shape[0] - G.shape[0]
    slacks = np.sort(own.row[own.row >= entries]) - entries  # a row owns one variable
    others, loose = _without(G.shape[0], slacks), _without(d, own.variable)
    layout = Layout.of(program.blocks, len(slacks), len(loose))
    # u_r = f_r - F_rp x_p, so x_p = (f_r - u_r) / F_rp
    pivot = F.data[F.indptr[own.row]]
    coordinate = np.where(own.row < entries, own.row, entries + np.searchsorted(slacks, own.row - entries))
    place = np.append(own.variable, loose), np.append(coordinate, layout.starts[-2] + np.arange(len(loose)))
    T = sp.csr_array((np.append(-1 / pivot, np.ones(len(loose))), place), shape=(d, layout.starts[-1]))
    x0 = np.zeros(d)
    x0[own.variable] = f[own.row] / pivot
    rest = F[own.unowned]
    pick = sp.csr_array((np.ones(len(own.unowned)), (np.arange(len(own.unowned)), own.unowned)), shape=(len(own.unowned), T.shape[1]))
    equal = _clean(sp.vstack([E @ T, pick + rest @ T]))
    geq = _clean(-(G[others] @ T))
    b = np.concatenate([program.equal.rhs - E @ x0, f[own.unowned] - rest @ x0])
    way = PrimalWay(x0, T, slacks, others, T.T @ program.c, equal, geq)
    C = layout.matrices(way.cost[None, :]).reshape(layout.n, layout.n).tocsr()
    A_geq, b_geq = (layout.matrices(geq), G[others] @ x0 - program.less.rhs[others]) if len(others) else (None, None)
    return Standard("primal", program, layout, C, layout.matrices(equal), b, A_geq, b_geq, way)


def _from_primal(form: Standard, result: Any) -> Solution:
    program, layout, way = form.program, form.layout, form.way
    u = layout.coordinates(result)
    # the slack C - A*(dual) - A_geq*(dual_geq), as a functional of the coordinates
    slack = way.cost - way.equal.T @ result.dual
    less = np.zeros(len(program.less.rhs))
    if len(way.others):
        slack -= way.geq.T @ result.dual_geq
        less[way.others] = result.dual_geq
    rest = layout.starts[len(layout.sizes)]
    less[way.slacks] = slack[rest : rest + layout.nonneg]
    equal = -result.dual[: len(program.equal.rhs)]
    Z = layout.as_matrices(slack, weighted=True)
    return Solution(way.x0 + way.T @ u, program.equal.spread(equal), program.less.spread(less), Z)


def as_dual(program: Program) -> Standard:
    """The standard form whose X are the multipliers of the cones, and whose multipliers are x."""
    equal, less = program.equal, program.less
    layout = Layout.of(program.blocks, len(less.rhs), len(equal.rhs))
    rows = sp.csr_array(sp.vstack([*(block.F for block in program.blocks), less.matrix, equal.matrix]).T)
    cost = np.concatenate([*(block.f for block in program.blocks), less.rhs, equal.rhs])
    C = layout.matrices(_clean(cost[None, :]), layout.weights).reshape(layout.n, layout.n).tocsr()
    A = layout.matrices(rows, layout.weights)
    return Standard("dual", program, layout, C, A, -program.c, None, None)


def _from_dual(form: Standard, result: Any) -> Solution:
    program, layout = form.program, form.layout
    u = layout.coordinates(result)
    rest = layout.starts[len(layout.sizes)]
    less, equal = np.split(u[rest:], [layout.nonneg])
    Z = layout.as_matrices(u, weighted=False)
    return Solution(np.asarray(result.dual, float), program.equal.spread(equal), program.less.spread(less), Z)


def _without(m: int, some: Array) -> Array:
    rest = np.ones(m, bool)
    rest[some] = False
    return np.flatnonzero(rest)


def _clean(R: Any) -> sp.csr_array:
    R = sp.csr_array(R)
    R.eliminate_zeros()
    return R
