"""Which manifold do the rows of ``A(X) = b`` state?  (floor L6)

Recognised: rows with entries on the diagonal only, positive up to a common sign, on disjoint supports (spheres: unit diagonal and
radii, trace, X_ii + X_jj = 1), and groups of rows that together fix a diagonal block of X (Stiefel).  Rows may come in any order
and scaling; the factor is permuted and scaled to fit, ``y_caller = D y_internal``, and the duals are carried back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from .linear_maps import MatrixMap
from .manifolds import Manifold, Oblique, Product, Sphere, StiefelProduct
from .manifolds.hermitian import unpack
from .operators import Operator

LATER = "general constraints (Quadratic manifold, augmented Lagrangian) are not available yet"


@dataclass(frozen=True)
class Recognised:
    """A manifold, and how the caller's rows and factor map to it.

    ``perm`` lists the caller's rows of X in internal order; ``scale`` (caller order) has ``y_caller = scale * y_internal``.
    """

    manifold: Manifold
    perm: np.ndarray
    scale: np.ndarray
    to_caller: Callable[[np.ndarray], np.ndarray]
    m: int

    @property
    def trivial(self) -> bool:
        return bool((self.scale == 1).all() and (self.perm == np.arange(len(self.perm))).all())

    def operator(self, C: Operator) -> Operator:
        """C in internal coordinates."""
        return C if self.trivial else C.congruence(self.scale[self.perm], self.perm)

    def factor_in(self, Y: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray((Y / self.scale[:, None])[self.perm])

    def factor_out(self, Y: np.ndarray) -> np.ndarray:
        out = np.empty_like(Y)
        out[self.perm] = Y
        return out if (self.scale == 1).all() else out * self.scale[:, None]


def detect_manifold(A: MatrixMap, b: np.ndarray, is_complex: bool) -> Recognised:
    """The manifold of all rows.

    Raises ValueError for contradictory rows or b <= 0 on a diagonal, NotImplementedError (naming a row) for any other row.
    """
    rows = _Rows(A, b)
    single = rows.support == 1
    owner = np.full(A.n, -1)  # the row that fixes X_ii
    for j in map(int, np.flatnonzero(rows.diagonal & single)):
        i = rows.first[j]
        if owner[i] >= 0:
            rows.duplicate(j, int(owner[i]))
        else:
            owner[i] = j
    spheres = _spheres(rows, np.flatnonzero(rows.diagonal & ~single))
    blocks = _stiefel_blocks(rows, owner, is_complex)
    covered = np.zeros(A.n, int)
    covered[owner >= 0] += 1
    for j in spheres:
        covered[rows.entries(j)[0]] += 1
    if (covered > 1).any():
        i = int(np.argmax(covered > 1))
        raise NotImplementedError(f"X_{i},{i} stands in more than one constraint (one is row {rows.naming(i)}); {LATER}")
    if (covered == 0).any():
        i = int(np.argmin(covered))
        raise NotImplementedError(f"no constraint bounds row {i} of X (X_{i},{i}); {LATER}")
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
        self.is_copy = np.zeros(A.m, bool)
        for r in map(int, np.flatnonzero(~filled)):
            if b[r] != 0:
                raise ValueError(f"row {r} of A is zero but b[{r}] = {b[r]}: 0 = {b[r]} has no solution; remove the row or fix b")
        mixed = filled & ~self.diagonal & ~self.off | self.diagonal & (low < 0) & (high > 0)
        if mixed.any():
            r = int(np.argmax(mixed))
            raise NotImplementedError(f"row {r} of A is neither a positive diagonal nor part of an identity block; {LATER}")
        bad = self.diagonal & ~(self.b > 0)
        if bad.any():
            r = int(np.argmax(bad))
            raise ValueError(
                f"b[{r}] = {b[r]} with a {'positive' if self.sign[r] > 0 else 'negative'} diagonal row: X_ii > 0 is needed on a "
                f"manifold; drop the rows and columns of X that this makes zero, or fix b"
            )

    def entries(self, r: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(i, j, coefficient) of row r, sign included."""
        s = slice(self.pointer[r], self.pointer[r + 1])
        return self.i[s], self.j[s], self.sign[r] * self.data[s]

    def coefficient(self, r: int) -> float:
        return float(self.entries(r)[2][0].real)

    def duplicate(self, r: int, first: int) -> None:
        """Row r fixes what row ``first`` fixes: drop it, or say that they contradict each other."""
        x, y = self.b[r] / self.coefficient(r), self.b[first] / self.coefficient(first)
        if abs(x - y) > 1e-12 * abs(y):
            i = self.first[r]
            raise ValueError(f"rows {first} and {r} contradict each other: X_{i},{i} = {y:.17g} and {x:.17g}; remove one")
        self.is_copy[r] = True

    def naming(self, i: int) -> int:
        return int(np.searchsorted(self.pointer, np.flatnonzero((self.i == i) & (self.j == i))[-1], side="right")) - 1


def _spheres(rows: _Rows, candidates: np.ndarray) -> list[int]:
    """The rows with more than one diagonal entry, proportional ones kept once."""
    first: dict[tuple[bytes, bytes], int] = {}
    for r in map(int, candidates):
        i, _, a = rows.entries(r)
        order = np.argsort(i)
        same = first.setdefault((i[order].tobytes(), np.round((a / a[order[0]]).real[order], 12).tobytes()), r)
        if same != r:
            x, y = rows.b[r] / a[order[0]].real, rows.b[same] / rows.coefficient(same)
            if abs(x - y) > 1e-12 * abs(y):
                raise ValueError(f"rows {same} and {r} contradict each other: they fix one trace to {y:.17g} and {x:.17g}; remove one")
            rows.is_copy[r] = True
    return list(first.values())


def _stiefel_blocks(rows: _Rows, owner: np.ndarray, is_complex: bool) -> list[tuple[np.ndarray, dict[tuple[int, int], list[int]]]]:
    """``(members, {(i, j): rows that fix X_ij})`` for every group of rows that fixes a whole diagonal block."""
    pairs: dict[tuple[int, int], list[int]] = {}
    for r in map(int, np.flatnonzero(rows.off)):
        i, j, _ = rows.entries(r)
        if len(i) != 2 or rows.b[r] != 0 or owner[i[0]] < 0 or owner[j[0]] < 0:
            raise NotImplementedError(f"row {r} of A is no part of an identity block; {LATER}")
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
        inside = {(a, c): pairs.get((a, c), []) for a in members for c in members if a < c}
        for (a, c), fixing in inside.items():
            chosen: list[int] = []
            for r in fixing:  # a basis of the field over R, the other rows being copies
                values = np.array([rows.entries(q)[2][0] for q in [*chosen, r]])
                if len(chosen) < needed and np.linalg.matrix_rank(np.stack([values.real, values.imag])) > len(chosen):
                    chosen.append(r)
                else:
                    rows.is_copy[r] = True
            if len(chosen) < needed:
                some = fixing or next(found for found in inside.values() if found)
                raise NotImplementedError(
                    f"row {some[0]} of A fixes part of the block {members} of X but leaves {'part of ' if fixing else ''}"
                    f"X_{a},{c} free; {LATER}"
                )
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
    for r in spheres:
        i, _, a = rows.entries(r)
        equal = bool(np.ptp(a.real) == 0)
        if not equal:
            scale[i] = 1 / np.sqrt(a.real)
        parts.append(Sphere(len(i), float(rows.b[r] / (a[0].real if equal else 1))))
        order.append(i)
        back.append(_sphere_back(r, float(a[0].real) if equal else 1.0))
    manifold = parts[0] if len(parts) == 1 else Product(parts)
    splits = np.cumsum([part.m for part in parts])[:-1]

    def to_caller(mu: np.ndarray) -> np.ndarray:
        dual = np.zeros(rows.m)
        for carry, piece in zip(back, np.split(mu, splits), strict=True):
            carry(piece, dual)
        return dual * rows.sign

    return Recognised(manifold, np.concatenate(order), scale, to_caller, rows.m)


def _sphere_back(r: int, a: float) -> Callable[[np.ndarray, np.ndarray], None]:
    def back(mu: np.ndarray, dual: np.ndarray) -> None:
        dual[r] = mu[0] / a

    return back


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
