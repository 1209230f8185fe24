"""A cone program as CVXPY hands it over, brought into one shape: `Program`, `Block`, `read_conic`.

CVXPY gives ``min c'x  s.t.  A x + s = b,  s in {0} x R+ x PSD x ...``, multipliers y of ``A x - b``. PSD rows come in three
layouts (all n^2 entries in F order; the upper triangle by columns, off-diagonal entries times sqrt 2; or no rows at all but
indices into x, "direct cones"), complex Hermitian ones as the real matrix [[Re, -Im], [Im, Re]] of twice the size.
Here every cone is a `Block`: its entries in the upper triangle, complex again where they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True, eq=False)
class Block:
    """A positive semidefinite cone: entry r of the matrix is ``(f - F x)_r``."""

    size: int
    i: np.ndarray
    """Rows and columns of the entries, ``i <= j``."""
    j: np.ndarray
    imag: np.ndarray
    """True where the entry is the imaginary part of ``X_ij``."""
    F: sp.csr_array
    f: np.ndarray
    embedded: bool = False
    """Whether CVXPY knows it as a real matrix of twice the size."""
    svec: bool = False
    """Whether CVXPY wants duals as a scaled upper triangle, rather than all entries."""

    def dual_rows(self, Z: np.ndarray) -> np.ndarray:
        """The multiplier Z (Hermitian) in CVXPY's rows; of an embedding halved, for <Z^, X^> = 2 <Z, X>."""
        if self.embedded:
            re, im = Z.real / 2, Z.imag / 2
            Z = np.block([[re, -im], [im, re]])
        Z = Z.real
        if not self.svec:
            return Z.ravel(order="F")
        j, i = np.tril_indices(len(Z))
        return Z[i, j] * np.where(i == j, 1.0, np.sqrt(2.0))


class Rows(NamedTuple):
    """Rows without repetitions and zeros: ``matrix x`` against ``rhs``, and where the caller's rows went."""

    matrix: sp.csr_array
    rhs: np.ndarray
    home: np.ndarray
    """Row of ``matrix`` for each row of the caller, -1 where it was dropped."""
    sign: np.ndarray
    """The caller's row is ``sign`` times its home; 1 for inequalities."""

    def spread(self, y: np.ndarray) -> np.ndarray:
        """Multipliers of the caller's rows: repetitions share theirs, dropped rows have 0."""
        share = np.bincount(self.home[self.home >= 0], minlength=len(y))
        padded = np.append(y / np.maximum(share, 1), 0.0)  # home = -1 reads the last one
        return padded[self.home] * self.sign

    def gathered(self, y: np.ndarray) -> np.ndarray:
        """What the caller's multipliers sum up to: the inverse of `spread`."""
        on = self.home >= 0
        return np.bincount(self.home[on], (y * self.sign)[on], len(self.rhs))

    def times(self, M: sp.csr_array, signed: bool) -> Rows:
        """The same rows in z, for ``x = M z``."""
        new = distinct_rows(self.matrix @ M, self.rhs, signed)
        home, sign = np.append(new.home, -1)[self.home], np.append(new.sign, 1.0)[self.home]
        return Rows(new.matrix, new.rhs, home, self.sign * sign)


@dataclass(frozen=True, eq=False)
class Program:
    """``min c'x`` subject to ``E x = e``, ``G x <= h`` and ``f - F x`` positive semidefinite for every block."""

    c: np.ndarray
    equal: Rows
    less: Rows
    blocks: tuple[Block, ...]
    contradiction: str = ""
    """A row without variables that cannot hold, in words; empty when there is none."""

    @property
    def is_complex(self) -> bool:
        return any(block.imag.any() for block in self.blocks)


def read_conic(A: Any, b: np.ndarray, c: np.ndarray, dims: Any, *, svec: bool = False, direct: Sequence[Any] = ()) -> Program:
    """The program of CVXPY's ``data``.

    Parameters
    ----------
    A, b, c : sparse array (rows, d), ndarray, ndarray (d,)
    dims : ConeDims; ``zero``, ``nonneg`` and ``psd`` are read
    svec : whether PSD rows are scaled upper triangles
    direct : sequence of DirectCone, on entries of x; they come after the others, in their order
    """
    A = sp.csr_array(A)
    A.eliminate_zeros()
    d, start = A.shape[1], dims.zero + dims.nonneg
    G, h = [A[dims.zero : start]], [b[dims.zero : start]]
    blocks = []
    for n in dims.psd:
        stop = start + (n * (n + 1) // 2 if svec else n * n)
        read = _scaled_triangle if svec else _all_entries
        blocks.append(_complex_again(read(n, A[start:stop], b[start:stop])))
        start = stop
    for cone in direct:
        chosen = _selection(np.asarray(cone.indices, np.int64), d)
        if cone.kind == "nonneg":
            G.append(chosen)
            h.append(np.zeros(chosen.shape[0]))
        else:
            j, i = np.tril_indices(cone.extras["psd_k"])  # unscaled entries, unlike the rows of SvecPSD
            blocks.append(Block(cone.extras["psd_k"], i, j, np.zeros(len(i), bool), chosen, np.zeros(len(i)), svec=True))
    equal = distinct_rows(A[: dims.zero], b[: dims.zero], True)
    less = distinct_rows(sp.csr_array(sp.vstack(G)), np.concatenate(h), False)
    return Program(c, equal, less, tuple(blocks), contradiction(equal, less))


def contradiction(equal: Rows, less: Rows) -> str:
    """The first row ``0 = rhs`` or ``0 <= rhs`` that cannot hold, in words."""
    for rows, sign in ((equal, "="), (less, "<=")):
        empty = np.diff(rows.matrix.indptr) == 0
        wrong = empty & ((rows.rhs != 0) if sign == "=" else (rows.rhs < 0))
        if wrong.any():
            r = int(np.argmax(wrong))
            first = int(np.argmax(rows.home == r))
            kind = "equality" if sign == "=" else "inequality"
            return f"{kind} row {first} reads 0 {sign} {rows.rhs[r]:g}, which no X satisfies"
    return ""


def distinct_rows(matrix: sp.csr_array, rhs: np.ndarray, signed: bool) -> Rows:
    """Rows without repetitions (both triangles of ``X >= 0``) and without ``0 = 0`` (``Im diag X = 0``).

    ``signed``: they are equalities, which their negatives repeat (both triangles of ``Im X = B``).
    """
    matrix = sp.csr_array(matrix)
    matrix.eliminate_zeros()
    matrix.sort_indices()
    m, d = matrix.shape
    sign = np.ones(m)
    if signed:
        long = np.flatnonzero(np.diff(matrix.indptr))
        lead = matrix.data[matrix.indptr[long]]
        sign[long] = np.where(lead.real != 0, np.sign(lead.real), np.sign(lead.imag))
        matrix = sp.csr_array((matrix.data * np.repeat(sign, np.diff(matrix.indptr)), matrix.indices, matrix.indptr), shape=(m, d))
        rhs = rhs * sign
    filled = np.diff(matrix.indptr) > 0
    noise = 1e-13 * np.abs(rhs).max(initial=0.0)  # constants cancel up to rounding
    rhs = np.where(filled | (np.abs(rhs) > noise), rhs, 0.0)
    kept = np.flatnonzero(filled | (rhs != 0))
    # equal rows have equal products with anything, bit for bit; those with unequal entries are told apart below
    product = matrix @ np.random.default_rng(0).standard_normal(d)
    key = np.stack([product.real, product.imag, rhs, np.diff(matrix.indptr)])[:, kept]
    order = np.lexsort(key)
    new = np.ones(len(kept), bool)
    new[1:] = (key[:, order[1:]] != key[:, order[:-1]]).any(axis=0)
    first = np.minimum.reduceat(kept[order], np.flatnonzero(new)) if len(kept) else kept
    leader = np.full(m, -1)
    leader[kept[order]] = first[np.cumsum(new) - 1] if len(kept) else kept
    followers = np.flatnonzero((leader >= 0) & (leader != np.arange(m)))
    if len(followers):
        difference = sp.csr_array(matrix[followers] - matrix[leader[followers]])
        difference.eliminate_zeros()
        apart = followers[np.diff(difference.indptr) > 0]
        leader[apart] = apart
    chosen = np.flatnonzero(leader == np.arange(m))
    number = np.full(m + 1, -1)
    number[chosen] = np.arange(len(chosen))
    return Rows(matrix[chosen], rhs[chosen], number[leader], sign)


def _selection(indices: np.ndarray, d: int) -> sp.csr_array:
    """``-x[indices]`` as rows, for cones ``0 - F x``."""
    m = len(indices)
    return sp.csr_array((np.full(m, -1.0), indices, np.arange(m + 1)), shape=(m, d))


def _all_entries(n: int, rows: sp.csr_array, rhs: np.ndarray) -> Block:
    """A block from its n^2 entries in F order; of a matrix that is not symmetric, the symmetric part is meant."""
    i, j = np.triu_indices(n)
    upper, lower = j * n + i, i * n + j
    F = sp.csr_array((rows[upper] + rows[lower]) * 0.5)
    F.eliminate_zeros()
    return Block(n, i, j, np.zeros(len(i), bool), F, (rhs[upper] + rhs[lower]) / 2)


def _scaled_triangle(n: int, rows: sp.csr_array, rhs: np.ndarray) -> Block:
    """A block from its upper triangle by columns, off-diagonal entries times sqrt 2."""
    i, j = np.triu_indices(n)
    where = j * (j + 1) // 2 + i
    scale = np.where(i == j, 1.0, np.sqrt(2.0))
    F = rows[where]
    F = sp.csr_array((F.data / np.repeat(scale, np.diff(F.indptr)), F.indices, F.indptr), shape=F.shape)
    return Block(n, i, j, np.zeros(len(i), bool), F, rhs[where] / scale, svec=True)


def _complex_again(block: Block) -> Block:
    """The Hermitian block of half the size, where ``f - F x`` is [[Re, -Im], [Im, Re]] for every x.

    Averaging over the rotation [[0, -1], [1, 0]] shows that nothing is lost, wherever the structure comes from.
    """
    n, k = block.size, block.size // 2
    if n % 2:
        return block
    i, j = np.triu_indices(k)

    def at(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return p * n - p * (p - 1) // 2 + q - p  # row of entry p <= q in the order of triu_indices

    re, re2, im, im2 = at(i, j), at(i + k, j + k), at(i, j + k), at(j, i + k)
    F, f = block.F, block.f
    length = np.diff(F.indptr)
    if not (np.array_equal(length[re], length[re2]) and np.array_equal(length[im], length[im2])):
        return block
    if (f[re] != f[re2]).any() or (f[im] != -f[im2]).any() or (F[re] - F[re2]).data.any() or (F[im] + F[im2]).data.any():
        return block
    off = i < j
    lone = (np.zeros(len(i), bool), F[re], f[re])
    if not (F[im].data.any() or f[im].any()):  # [[R, 0], [0, R]]
        return Block(k, i, j, *lone, embedded=True, svec=block.svec)
    entries = sp.csr_array(sp.vstack([lone[1], -F[im[off]]]))
    imag = np.repeat([False, True], [len(i), int(off.sum())])
    both = np.concatenate([f[re], -f[im[off]]])
    return Block(k, np.append(i, i[off]), np.append(j, j[off]), imag, entries, both, embedded=True, svec=block.svec)
