"""What was measured between vertices, checked once: relative blocks on edges, or copies of one cloud."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from scipy import sparse

from ...operators import LowRankPlusSparse, Operator, as_operator
from .rounding import nearest

GROUPS = ("SO", "O", "U", "U(1)", "Z2")
DENSE = 0.2  # share of nonzero entries from which a dense array is faster


class Data(Protocol):
    """What `Measurements` and `Clouds` share."""

    @property
    def n(self) -> int: ...
    @property
    def d(self) -> int: ...
    @property
    def group(self) -> str: ...
    @property
    def weights(self) -> np.ndarray: ...
    @property
    def planar(self) -> bool: ...
    @property
    def scalar(self) -> bool: ...
    @property
    def orthogonal(self) -> bool: ...
    def cost(self) -> Operator: ...
    def residuals(self, R: np.ndarray) -> np.ndarray: ...
    def misfit(self, R: np.ndarray) -> float: ...
    def scale(self) -> float: ...


@dataclass(frozen=True, eq=False)
class Measurements:
    """Relative blocks ``M_e`` of edges ``(i_e, j_e)``: ``R_i R_j* ~ M_e``, with weights.  Made by `measurements` or `from_matrix`."""

    i: np.ndarray = field(repr=False)
    j: np.ndarray = field(repr=False)
    blocks: np.ndarray = field(repr=False)
    """(E, d, d), real or complex."""
    weights: np.ndarray = field(repr=False)
    """(E,), not negative: inverse variances of an entry of the block."""
    n: int
    group: str
    """"SO", "O" or "U"; signs are "O" with d = 1, phases "U" with d = 1."""
    orthogonal: bool = True
    """Whether all blocks are orthogonal (unitary)."""
    scalar: bool = False
    """Whether answers are vectors (n,) of signs or phases."""

    @property
    def d(self) -> int:
        return self.blocks.shape[1]

    @property
    def planar(self) -> bool:
        """Rotations of the plane are phases: half the rows, and no reflections."""
        return self.group == "SO" and self.d == 2

    def cost(self) -> Operator:
        """The connection Laplacian, with ``<C, R R*> = misfit(R)``; of n rows and complex for rotations of the plane."""
        constant = self.weights * (self.d + np.sum(np.abs(self.blocks) ** 2, axis=(1, 2)))
        if not self.planar:
            return connection_laplacian(self.n, self.i, self.j, self.weights[:, None, None] * self.blocks, constant)
        return connection_laplacian(self.n, self.i, self.j, 2 * self.weights[:, None, None] * as_phases(self.blocks), constant)

    def residuals(self, R: np.ndarray) -> np.ndarray:
        """``|R_i - M_e R_j|_F`` of each edge, (E,)."""
        R = R.reshape(self.n, self.d, self.d)
        off = R[self.i] - self.blocks @ R[self.j]
        return np.sqrt(np.sum(np.abs(off) ** 2, axis=(1, 2)))

    def misfit(self, R: np.ndarray) -> float:
        """``sum_e w_e |R_i - M_e R_j|_F^2``."""
        return float(self.weights @ self.residuals(R) ** 2)

    def scale(self) -> float:
        """``sum_e w_e (d + |M_e|_F^2)``: the misfit expected of random blocks."""
        return float(self.weights @ (self.d + np.sum(np.abs(self.blocks) ** 2, axis=(1, 2))))

    def components(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Label of the connected component of each vertex, (n,), over edges of positive weight."""
        kept = (self.weights if weights is None else weights) > 0
        graph = sparse.coo_array((np.ones(kept.sum()), (self.i[kept], self.j[kept])), shape=(self.n, self.n))
        return sparse.csgraph.connected_components(graph, directed=False)[1]

    def part(self, inside: np.ndarray) -> tuple[Measurements, np.ndarray]:
        """The measurements among the vertices marked in ``inside`` (n,), renumbered, and which edges these are."""
        edges = np.flatnonzero(inside[self.i] & inside[self.j])
        number = np.cumsum(inside) - 1
        return replace(
            self, i=number[self.i[edges]], j=number[self.j[edges]], blocks=self.blocks[edges], weights=self.weights[edges],
            n=int(inside.sum()),
        ), edges  # fmt: skip


@dataclass(frozen=True, eq=False)
class Clouds:
    """Copies ``Y_i ~ R_i X`` of one cloud of k labelled points (generalized Procrustes).  Made by `clouds`."""

    Y: np.ndarray = field(repr=False)
    """(n, d, k), real or complex."""
    weights: np.ndarray = field(repr=False)
    group: str
    orthogonal: bool = False
    scalar: bool = False
    planar: bool = False

    @property
    def n(self) -> int:
        return len(self.Y)

    @property
    def d(self) -> int:
        return self.Y.shape[1]

    def cost(self) -> Operator:
        """``c I - F F* / sum w`` with the weighted clouds stacked to F (n d, k), as an operator; ``<C, R R*> = misfit(R)``."""
        F = (self.weights[:, None, None] * self.Y).reshape(self.n * self.d, -1)
        shift = sparse.eye_array(self.n * self.d, format="csr", dtype=F.dtype) * (self.scale() / (self.n * self.d))
        return LowRankPlusSparse(shift, F, np.full(F.shape[1], -1 / self.weights.sum()))

    def mean(self, R: np.ndarray) -> np.ndarray:
        """The cloud (d, k) that fits best: ``X = sum w_i R_i* Y_i / sum w``."""
        turned = R.reshape(self.n, self.d, self.d).conj().transpose(0, 2, 1) @ self.Y
        return np.tensordot(self.weights / self.weights.sum(), turned, 1)

    def residuals(self, R: np.ndarray) -> np.ndarray:
        """``|Y_i - R_i X|_F`` of each copy, (n,), for the best X."""
        off = self.Y - R.reshape(self.n, self.d, self.d) @ self.mean(R)
        return np.sqrt(np.sum(np.abs(off) ** 2, axis=(1, 2)))

    def misfit(self, R: np.ndarray) -> float:
        """``min over X of sum_i w_i |Y_i - R_i X|_F^2``."""
        return float(self.weights @ self.residuals(R) ** 2)

    def scale(self) -> float:
        """``sum_i w_i |Y_i|_F^2``."""
        return float(self.weights @ np.sum(np.abs(self.Y) ** 2, axis=(1, 2)))


def connection_laplacian(n: int, i: np.ndarray, j: np.ndarray, blocks: np.ndarray, constant: np.ndarray) -> Operator:
    """``C_ij = -B_e``, ``C_ji = -B_e*``, and ``constant_e / 2d`` on the diagonals of i and j; sparse, or dense where that is faster."""
    E, d, _ = blocks.shape
    diagonal = (np.bincount(i, constant, n) + np.bincount(j, constant, n)) / (2 * d)
    every = np.arange(n)
    rows, columns = np.concatenate([i, j, every]), np.concatenate([j, i, every])
    data = np.concatenate([-blocks, -blocks.conj().transpose(0, 2, 1), diagonal[:, None, None] * np.eye(d)])
    order = np.lexsort((columns, rows))
    pointer = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))])
    C = sparse.bsr_array((data[order], columns[order], pointer), shape=(n * d, n * d))
    return as_operator(C.toarray() if (2 * E + n) > DENSE * n**2 else C.tocsr())


def as_phases(blocks: np.ndarray) -> np.ndarray:
    """The part of real 2 x 2 blocks that commutes with rotations, as complex numbers (..., 1, 1)."""
    z = blocks[..., 0, 0] + blocks[..., 1, 1] + 1j * (blocks[..., 1, 0] - blocks[..., 0, 1])
    return z[..., None, None] / 2


def as_plane(z: np.ndarray) -> np.ndarray:
    """Complex (...,) as real 2 x 2 blocks."""
    return np.stack([np.stack([z.real, -z.imag], -1), np.stack([z.imag, z.real], -1)], -2)


def measurements(
    i: Any, j: Any, blocks: Any, weights: Any = None, *, n: int | None = None, group: str | None = None, general: bool = False
) -> Measurements:
    """Relative measurements ``R_i R_j* ~ M_e`` on the edges of a graph.

    Poses measured as ``R_i* R_j`` (SE-Sync, g2o) are the same with ``R_i*`` for ``R_i``: transpose the answer.

    Parameters
    ----------
    i, j : integer arrays (E,)
        Ends of the edges, from 0; each pair once, in either order.
    blocks : array
        (E, d, d) real orthogonal or complex unitary; (E,) signs, complex phases, or, with ``group="U(1)"``, angles in radians.
    weights : array (E,), optional
        Positive: inverse variances of an entry of the block; 1 by default.
    n : int, optional
        Number of vertices; the largest index + 1 by default.
    group : {"SO", "O", "U", "U(1)", "Z2"}, optional
        By default "SO" for real blocks of positive determinant, else "O"; "U" for complex ones; "Z2" for signs and "U(1)" for phases.
    general : bool
        Any finite blocks (noisy matrices, products of clouds): ``|R_i R_j* - M_e|_F`` is then the residual.

    Raises
    ------
    ValueError
        Indices out of range, self-loops, duplicates (naming them); blocks that are not finite or not orthogonal to 1e-6, reflections
        in "SO"; weights that are not positive.
    """
    ends = [np.asarray(v) for v in (i, j)]
    M, scalar, group = _blocks(blocks, group)
    E, d, _ = M.shape
    for name, v in zip("ij", ends, strict=True):
        if v.shape != (E,) or v.dtype.kind not in "iu":
            raise ValueError(f"{name} has shape {v.shape} ({v.dtype}) for {E} blocks; an integer array ({E},) is needed")
    if not E:
        raise ValueError("there are no measurements; one at least is needed")
    i, j = (v.astype(np.int64) for v in ends)
    n = _check_edges(i, j, n)
    w = _weights(weights, E)
    if not general:
        M = _orthogonal(M, group)
    return Measurements(i, j, M, w, n, group, not general, scalar)


def from_matrix(M: Any, d: int, *, group: str | None = None) -> Measurements:
    """The blocks above the diagonal of a Hermitian matrix (n d, n d), dense or sparse; its diagonal blocks do not matter.

    Blocks that are all multiples ``w R`` of orthogonal ones, w > 0, are measurements R of weight w; else they are general blocks of
    weight 1, and the misfit is ``sum over edges |R_i R_j* - M_ij|_F^2``.
    """
    if isinstance(d, bool) or not isinstance(d, (int, np.integer)) or d < 1:
        raise ValueError(f"d = {d}; a positive integer, the size of a block, is needed")
    M = M if sparse.issparse(M) else np.asarray(M)
    if M.ndim != 2 or M.shape[0] != M.shape[1] or M.shape[0] % d or M.dtype.kind not in "biufc":
        raise ValueError(f"M has shape {M.shape} ({M.dtype}); a square numeric matrix of blocks of d = {d} is needed")
    M = as_operator(M).matrix()  # finite and Hermitian, or refused
    B = sparse.bsr_array(sparse.csr_array(M), blocksize=(d, d))
    i, j, blocks = np.repeat(np.arange(len(B.indptr) - 1), np.diff(B.indptr)), B.indices, B.data
    upper = (i < j) & blocks.any(axis=(1, 2))
    if not upper.any():
        raise ValueError("M has no block other than 0 off the diagonal; one measurement at least is needed")
    i, j, blocks = i[upper], j[upper], blocks[upper]
    size = np.linalg.norm(blocks, axis=(1, 2)) / np.sqrt(d)
    square = blocks @ blocks.conj().transpose(0, 2, 1) / (size**2)[:, None, None]
    proper = bool(np.abs(square - np.eye(d)).max() <= 1e-8)
    if d == 1 and group is None and not np.iscomplexobj(blocks):
        group = "O"
    scaled = blocks / size[:, None, None] if proper else blocks
    return measurements(i, j, scaled, size if proper else None, n=M.shape[0] // d, group=group, general=not proper)


def clouds(Y: Any, weights: Any = None, *, group: str = "O") -> Clouds:
    """Copies ``Y_i ~ R_i X`` of a cloud of k points in d dimensions, as an array (n, d, k).

    Parameters
    ----------
    Y : array (n, d, k), n >= 2
        Real, or complex with ``group="U"``.  Centre the points first if the copies are also translated.
    weights : array (n,), optional
        Positive: inverse variances; 1 by default.
    group : {"SO", "O", "U"}
    """
    Y = np.asarray(Y)
    if Y.ndim != 3 or Y.dtype.kind not in "biufc" or len(Y) < 2 or not Y.size:
        raise ValueError(f"Y has shape {Y.shape} ({Y.dtype}); clouds (n, d, k) with n >= 2 are needed")
    if group not in ("SO", "O", "U") or np.iscomplexobj(Y) and group != "U":
        raise ValueError(f'group = {group!r} for {Y.dtype} clouds; "SO" or "O" for real, "U" for complex ones are needed')
    Y = Y.astype(complex if group == "U" else float)
    if not np.isfinite(Y).all():
        raise ValueError(f"Y[{int(np.argwhere(~np.isfinite(Y))[0][0])}] has entries that are NaN or infinite; leave that copy out")
    if not Y.any():
        raise ValueError("all clouds are 0; points that differ from 0 are needed")
    return Clouds(Y, _weights(weights, len(Y)), group)


def _blocks(blocks: Any, group: str | None) -> tuple[np.ndarray, bool, str]:
    """(E, d, d), whether they were given as (E,), and the group "SO", "O" or "U"."""
    M = np.asarray(blocks)
    if group is not None and group not in GROUPS:
        raise ValueError(f"group = {group!r}; it must be one of {', '.join(GROUPS)}, or None")
    if M.dtype.kind not in "biufc" or M.ndim not in (1, 3) or M.ndim == 3 and M.shape[1] != M.shape[2]:
        raise ValueError(f"blocks has shape {M.shape} ({M.dtype}); (E, d, d), or (E,) for signs and phases, is needed")
    bad = np.flatnonzero(~np.isfinite(M.reshape(len(M), -1)).all(axis=1)) if M.size else np.zeros(0, int)
    if bad.size:
        raise ValueError(f"blocks[{bad[0]}] has entries that are NaN or infinite ({bad.size} such blocks); leave these edges out")
    if group in ("U(1)", "Z2") and M.ndim == 3 and M.shape[1] != 1:
        raise ValueError(f'blocks has shape {M.shape} but group = "{group}"; one number an edge, shape (E,), is needed')
    complex_ = np.iscomplexobj(M)
    if M.ndim == 1:
        if group == "U(1)" and not complex_:
            M, complex_ = np.exp(1j * M), True
        elif group in (None, "O", "Z2") and not complex_ and not np.isin(M, (-1, 1)).all():
            raise ValueError('blocks are real numbers but not signs -1, 1; for angles in radians pass group="U(1)"')
    group = {"U(1)": "U", "Z2": "O"}.get(group, group) if group is not None else "U" if complex_ else None
    if complex_ != (group == "U"):
        if complex_:
            raise ValueError(f'blocks are complex but group = "{group}"; pass group="U", or real blocks')
        complex_ = True
    scalar, M = M.ndim == 1, M.astype(complex if complex_ and group == "U" else float)
    if scalar:
        M = M[:, None, None]
    if group is None:
        group = "SO" if M.shape[1] > 1 and (np.linalg.det(M) > 0).all() else "O"
    if group == "SO" and M.shape[1] == 1:
        raise ValueError('group = "SO" needs blocks of d >= 2; signs are "Z2", phases and angles "U(1)"')
    return np.ascontiguousarray(M), scalar, group


def _check_edges(i: np.ndarray, j: np.ndarray, n: int | None) -> int:
    """The number of vertices of a simple graph."""
    largest = int(max(i.max(), j.max()))
    if n is not None and (isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1):
        raise ValueError(f"n = {n!r}; a positive integer, the number of vertices, is needed")
    n = largest + 1 if n is None else int(n)
    for name, v in (("i", i), ("j", j)):
        bad = np.flatnonzero((v < 0) | (v >= n))
        if bad.size:
            raise ValueError(f"{name}[{bad[0]}] = {v[bad[0]]} is out of range; vertices are 0 .. {n - 1}")
    loops = np.flatnonzero(i == j)
    if loops.size:
        raise ValueError(f"edge {loops[0]} joins vertex {i[loops[0]]} to itself ({loops.size} self-loops); leave them out")
    pair = np.minimum(i, j) * n + np.maximum(i, j)
    order = np.argsort(pair, kind="stable")
    same = np.flatnonzero(np.diff(pair[order]) == 0)
    if same.size:
        a, b = order[same[0]], order[same[0] + 1]
        raise ValueError(
            f"edges {a} and {b} both join {min(i[a], j[a])} and {max(i[a], j[a])} ({same.size} duplicates); merge them first: "
            "the weighted mean of the blocks (transposed where i and j are swapped) and the sum of the weights, with general=True"
        )
    return n


def _weights(weights: Any, count: int) -> np.ndarray:
    w = np.ones(count) if weights is None else np.asarray(weights)
    if w.shape != (count,) or w.dtype.kind not in "biuf":
        raise ValueError(f"weights has shape {w.shape} ({w.dtype}); real numbers of shape ({count},) are needed")
    w = w.astype(float)
    bad = np.flatnonzero(~(np.isfinite(w) & (w > 0)))
    if bad.size:
        raise ValueError(f"weights[{bad[0]}] = {w[bad[0]]:g}; positive finite weights are needed (leave out what is not to count)")
    return w


def _orthogonal(M: np.ndarray, group: str) -> np.ndarray:
    """The blocks made exactly orthogonal, once they are seen to be so but for rounding of the data."""
    off = np.abs(M @ M.conj().transpose(0, 2, 1) - np.eye(M.shape[1])).max(axis=(1, 2))
    bad = np.flatnonzero(off > 1e-6)
    if bad.size:
        e = bad[np.argmax(off[bad])]
        raise ValueError(
            f"blocks[{e}] is not orthogonal: max |M M* - I| = {off[e]:.3g} ({bad.size} such blocks); round them with nearest(blocks), or "
            "pass general=True to fit them as they are"
        )
    if group == "SO":
        bad = np.flatnonzero(np.linalg.det(M) < 0)
        if bad.size:
            raise ValueError(f'blocks[{bad[0]}] is a reflection, determinant -1 ({bad.size} such blocks), in "SO"; pass group="O"')
    return nearest(M)
