"""Which manifold do the rows of ``A(X) = b`` state, and which rows are left?  (floor L6)

Recognised: rows with entries on the diagonal only, positive up to a common sign, on disjoint supports (spheres: unit diagonal and
radii, trace, X_ii + X_jj = 1), and groups of rows that together fix a diagonal block of X (Stiefel).  Rows may come in any order
and scaling; the factor is permuted and scaled to fit, ``y_caller = D y_internal``, and the duals are carried back.  All other rows
are `Recognised.rest`; rows of X that no recognised row sees are `Unconstrained`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from .linear_maps import MatrixMap
from .manifolds import Manifold, Oblique, Product, Sphere, SphereProduct, StiefelProduct, Unconstrained
from .manifolds.hermitian import unpack
from .operators import Operator


@dataclass(frozen=True)
class Recognised:
    """A manifold, and how the caller's rows and factor map to it.

    ``perm`` lists the caller's rows of X in internal order; ``scale`` (caller order) has ``y_caller = scale * y_internal``.
    ``rest``: the rows that the manifold does not state.
    """

    manifold: Manifold
    perm: np.ndarray
    scale: np.ndarray
    to_caller: Callable[[np.ndarray], np.ndarray]
    m: int
    rest: np.ndarray

    @property
    def trivial(self) -> bool:
        return bool((self.scale == 1).all() and (self.perm == np.arange(len(self.perm))).all())

    @property
    def loose(self) -> np.ndarray:
        """The caller's rows of X that no recognised row sees."""
        parts = getattr(self.manifold, "parts", [self.manifold])
        return np.sort(self.perm[np.repeat([isinstance(part, Unconstrained) for part in parts], [part.n for part in parts])])

    def operator(self, C: Operator) -> Operator:
        """C in internal coordinates."""
        return C if self.trivial else C.congruence(self.scale[self.perm], self.perm)

    def rows(self, A: MatrixMap) -> MatrixMap:
        """Rows in internal coordinates."""
        return A if self.trivial else A.places(np.argsort(self.perm), A.n, self.scale)

    def factor_in(self, Y: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray((Y / self.scale[:, None])[self.perm])

    def factor_out(self, Y: np.ndarray) -> np.ndarray:
        out = np.empty_like(Y)
        out[self.perm] = Y
        return out if (self.scale == 1).all() else out * self.scale[:, None]


def detect_manifold(A: MatrixMap, b: np.ndarray, is_complex: bool) -> Recognised:
    """The manifold that some of the rows state, chosen to bound as many rows of X as they can."""
    rows = _Rows(A, b)
    owner = np.full(A.n, -1)  # the row that fixes X_ii
    for j in map(int, np.flatnonzero(rows.diagonal & (rows.support == 1))):
        i = rows.first[j]
        if owner[i] < 0:
            owner[i] = j
        elif rows.same(j, int(owner[i])):
            rows.is_used[j] = True  # says nothing new
    blocks = _stiefel_blocks(rows, owner, is_complex)
    spheres = _spheres(rows, owner, blocks)
    return _assemble(rows, owner, spheres, blocks, is_complex)


class _Rows:
    """The rows of A by kind, normalised to positive diagonals."""

    def __init__(self, A: MatrixMap, b: np.ndarray):
        self.A, self.n, self.m = A, A.n, A.m
        keep = A.rows.data != 0
        row, i, j, data = A.row_of[keep], A.i[keep], A.j[keep], A.rows.data[keep]
        self.pointer = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=A.m))])
        self.i, self.j, self.data = i, j, data
        self.support = np.diff(self.pointer)
        on = np.bincount(row, i == j, minlength=A.m)
        self.diagonal = (on == self.support) & (self.support > 0)
        self.off = (on == 0) & (self.support > 0)
        self.first = np.zeros(A.m, int)
        filled = self.support > 0
        self.first[filled] = i[self.pointer[:-1][filled]]
        low, high = np.full(A.m, np.inf), np.full(A.m, -np.inf)
        np.minimum.at(low, row, data.real)
        np.maximum.at(high, row, data.real)
        self.sign = np.where(high < 0, -1.0, 1.0)
        self.b = b * self.sign
        self.diagonal &= ((low > 0) | (high < 0)) & (self.b > 0)
        self.is_copy = np.zeros(A.m, bool)
        self.is_used = ~filled & (b == 0)  # stated by the manifold, or copies of such rows

    def entries(self, r: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(i, j, coefficient) of row r, sign included."""
        s = slice(self.pointer[r], self.pointer[r + 1])
        return self.i[s], self.j[s], self.sign[r] * self.data[s]

    def coefficient(self, r: int) -> float:
        return float(self.entries(r)[2][0].real)

    def same(self, r: int, first: int) -> bool:
        """Whether two rows with one entry fix X_ii to the same value, up to rounding."""
        x, y = self.b[r] / self.coefficient(r), self.b[first] / self.coefficient(first)
        return bool(abs(x - y) <= 1e-12 * abs(y))


def _spheres(rows: _Rows, owner: np.ndarray, blocks: list) -> list[int]:
    """Rows with more than one diagonal entry, on disjoint supports, the largest first.

    A row that sees more rows of X than are fixed one by one takes their place: those become general constraints.
    """
    taken, chosen = np.zeros(rows.n, bool), []
    for members, _ in blocks:
        taken[members] = True
    candidates = np.flatnonzero(rows.diagonal & (rows.support > 1))
    for r in map(int, candidates[np.argsort(-rows.support[candidates], kind="stable")]):
        i = rows.entries(r)[0]
        if taken[i].any() or 2 * np.sum(owner[i] >= 0) >= len(i):
            continue
        taken[i], owner[i] = True, -1
        chosen.append(r)
    return sorted(chosen)


def _stiefel_blocks(rows: _Rows, owner: np.ndarray, is_complex: bool) -> list[tuple[np.ndarray, dict[tuple[int, int], list[int]]]]:
    """``(members, {(i, j): rows that fix X_ij})`` for every group of rows that fixes a whole diagonal block."""
    pairs: dict[tuple[int, int], list[int]] = {}
    for r in map(int, np.flatnonzero(rows.off & (rows.support == 2) & (rows.b == 0))):
        i, j, _ = rows.entries(r)
        if owner[i[0]] >= 0 and owner[j[0]] >= 0:
            pairs.setdefault((int(min(i[0], j[0])), int(max(i[0], j[0]))), []).append(r)
    if not pairs:
        return []
    from scipy.sparse.csgraph import connected_components

    i, j = np.array(list(pairs)).T
    _, label = connected_components(sp.csr_array((np.ones(len(i)), (i, j)), shape=(rows.n, rows.n)), directed=False)
    groups: dict[int, list[int]] = {}
    for v in np.unique(np.concatenate([i, j])):
        groups.setdefault(int(label[v]), []).append(int(v))
    blocks = []
    needed = 2 if is_complex else 1
    for members in groups.values():
        if len(members) * (len(members) - 1) // 2 > len(pairs):
            continue  # more places than rows: part of the block is free
        inside = {(a, c): pairs.get((a, c), []) for a in members for c in members if a < c}
        used: list[int] = []
        for fixing in inside.values():
            chosen: list[int] = []
            for r in fixing:  # a basis of the field over R, the other rows being copies
                values = np.array([rows.entries(q)[2][0] for q in [*chosen, r]])
                if len(chosen) < needed and np.linalg.matrix_rank(np.stack([values.real, values.imag])) > len(chosen):
                    chosen.append(r)
            used += chosen
            if len(chosen) < needed:
                break
        else:
            every = [r for fixing in inside.values() for r in fixing]
            rows.is_used[every], rows.is_copy[every], rows.is_copy[used] = True, True, False
            blocks.append((np.array(members), inside))
    return blocks


def _assemble(rows: _Rows, owner: np.ndarray, spheres: list[int], blocks: list, is_complex: bool) -> Recognised:
    n, scale = rows.n, np.ones(rows.n)
    in_block = np.zeros(n, bool)
    for members, _ in blocks:
        in_block[members] = True
    free = np.flatnonzero((owner >= 0) & ~in_block)
    coefficient = np.ones(n)
    has = np.flatnonzero(owner >= 0)
    coefficient[has] = (rows.sign[owner[has]] * rows.data[rows.pointer[owner[has]]]).real
    parts: list[Manifold] = []
    order: list[np.ndarray] = []
    back: list[Callable[[np.ndarray, np.ndarray], None]] = []
    if len(free):
        parts.append(Oblique(rows.b[owner[free]] / coefficient[free]))
        order.append(free)

        def oblique_back(mu: np.ndarray, dual: np.ndarray) -> None:
            dual[owner[free]] = mu / coefficient[free]

        back.append(oblique_back)
    for d in sorted({len(members) for members, _ in blocks}):
        group = [block for block in blocks if len(block[0]) == d]
        for members, _ in group:
            scale[members] = np.sqrt(rows.b[owner[members]] / coefficient[members])
        parts.append(StiefelProduct(len(group), d, is_complex))
        order.extend(members for members, _ in group)
        back.append(_stiefel_back(rows, owner, coefficient, scale, group, d))
    if spheres:
        seen = [rows.entries(r) for r in spheres]
        factors = [float(a[0].real) if np.ptp(a.real) == 0 else 1.0 for _, _, a in seen]
        for (i, _, a), factor in zip(seen, factors, strict=True):
            scale[i] = 1.0 if factor != 1.0 else 1 / np.sqrt(a.real)
        sizes, traces = [len(i) for i, _, _ in seen], rows.b[spheres] / factors
        parts.append(Sphere(sizes[0], float(traces[0])) if len(spheres) == 1 else SphereProduct(sizes, traces))
        order.extend(i for i, _, _ in seen)

        def sphere_back(mu: np.ndarray, dual: np.ndarray) -> None:
            dual[spheres] = mu / np.array(factors)

        back.append(sphere_back)
    covered = np.concatenate([*order, np.zeros(0, np.int64)]).astype(np.int64)
    loose = np.setdiff1d(np.arange(n), covered)
    if len(loose):
        parts.append(Unconstrained(len(loose)))
        order.append(loose)
        back.append(lambda mu, dual: None)
    rows.is_used[[*owner[owner >= 0], *spheres]] = True
    manifold = parts[0] if len(parts) == 1 else Product(parts)
    splits = np.cumsum([part.m for part in parts])[:-1]

    def to_caller(mu: np.ndarray) -> np.ndarray:
        dual = np.zeros(rows.m)
        for carry, piece in zip(back, np.split(mu, splits), strict=True):
            carry(piece, dual)
        return dual * rows.sign

    return Recognised(manifold, np.concatenate(order), scale, to_caller, rows.m, np.flatnonzero(~rows.is_used))


def _stiefel_back(
    rows: _Rows, owner: np.ndarray, coefficient: np.ndarray, scale: np.ndarray, group: list, d: int
) -> Callable[[np.ndarray, np.ndarray], None]:
    def back(mu: np.ndarray, dual: np.ndarray) -> None:
        for (members, inside), Lambda in zip(group, unpack(mu.reshape(len(group), -1), d), strict=True):
            Lambda = Lambda / np.outer(scale[members], scale[members])
            dual[owner[members]] = np.diag(Lambda).real / coefficient[members]
            place = {v: p for p, v in enumerate(members)}
            for (a, c), fixing in inside.items():
                used = [r for r in fixing if not rows.is_copy[r]]
                target = Lambda[place[a], place[c]]
                values = []
                for r in used:  # the coefficient at (a, c), whichever triangle comes first
                    i, _, v = rows.entries(r)
                    values.append(v[0] if i[0] == a else v[1])
                M = np.array([[v.real for v in values], [v.imag for v in values]])
                dual[used] = np.linalg.lstsq(M, np.array([target.real, target.imag]), rcond=None)[0]

    return back
