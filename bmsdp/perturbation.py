r"""Random cost perturbations: the noise of smoothed analysis (floor L1).

W is Hermitian with independent Gaussian entries on and above the diagonal, mean 0 and ``E|W_ij|^2 = sigma^2`` (complex: real and
imaginary part ``sigma^2 / 2`` each; the diagonal is real).  For such W every approximate second-order point of ``C + W`` is
approximately optimal once k is of order sqrt(m) (Pumir, Jelassi, Boumal, 2018; `bmsdp.theory.smoothed_guarantee`).

Entries that A* can produce smooth nothing: adding ``A*(nu)`` to C shifts the cost by a constant and leaves gradient, Hessian and slack
as they are.  They are left out (the diagonal on rows of given length, the diagonal blocks on Stiefel blocks).
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from .linear_maps import LinearMap, MatrixMap, as_matrix_map
from .operators import DenseOperator, Operator, SparseOperator, SumOperator, as_operator

BLOCK = 512  # rows of the square blocks that W is drawn in
DENSE_LIMIT = 4096  # rows up to which W is stored: 128 MB


@dataclass(frozen=True)
class Perturbation:
    """How `bmsdp.solve` is to perturb the cost; a plain number or "auto" stands for ``Perturbation(number)``.

    Attributes
    ----------
    sigma : float or "auto"
        Standard deviation of the entries, in the units of C.  "auto": what the wanted accuracy allows, ``accuracy / (12 sqrt(n) trace)``
        with ``accuracy = tol norm_C trace`` (theory, trade-off of the main theorem).
    pattern : bool
        Noise on the nonzero entries of C only: C stays sparse, but the theorem does not hold.
    continuation : bool
        Warm-start the original problem at the perturbed one's solution, and certify what comes out of it.  False: return the
        perturbed problem's point, certified for the original cost as it is.
    """

    sigma: float | str = "auto"
    pattern: bool = False
    continuation: bool = True

    def __post_init__(self) -> None:
        if self.sigma != "auto":
            check_sigma(self.sigma)


def as_perturbation(value: Any) -> Perturbation:
    """A `Perturbation` as it is; a number or "auto" as its sigma."""
    return value if isinstance(value, Perturbation) else Perturbation(value)


def check_sigma(sigma: Any) -> float:
    """Sigma as a float; ValueError unless it is a positive finite number."""
    if isinstance(sigma, bool) or not isinstance(sigma, numbers.Real) or not (np.isfinite(float(sigma)) and float(sigma) > 0):
        raise ValueError(f'sigma = {sigma!r}; the noise needs a positive finite standard deviation in the units of C, or "auto" in solve')
    return float(sigma)


class Wigner(Operator):
    """The noise W, known by its products and never stored: blocks are drawn again, each from its own counter (Philox).

    Parameters
    ----------
    n : int
    sigma : float
    rng : Generator or seed
        Gives the 128-bit key; equal keys give equal W, also as `toarray`.
    is_complex : bool
    omit : sparse array, n x n, optional
        Entries to leave out, Hermitian pattern.

    Cost
    ----
    A product draws ``n^2 / 2`` Gaussians (complex: ``n^2``) and spends ``2 n^2 k`` flops; storage 2 (4) MB.
    """

    def __init__(self, n: int, sigma: float, rng: Any = None, *, is_complex: bool = False, omit: Any = None):
        self.n, self.sigma = int(n), check_sigma(sigma)
        self.dtype = np.dtype(np.complex128 if is_complex else np.float64)
        self.key = np.random.default_rng(rng).integers(0, 2**64, 2, dtype=np.uint64)
        self._omitted = _by_block(omit)

    def block(self, I: int, J: int) -> np.ndarray:
        """The entries of block (I, J), I <= J; the Hermitian ones for I = J."""
        rows, columns = (min(BLOCK, self.n - BLOCK * K) for K in (I, J))
        rng = np.random.Generator(np.random.Philox(key=self.key, counter=[0, 0, I, J]))
        B: np.ndarray = rng.standard_normal((rows, columns, 2 if self.is_complex else 1))
        B = (B.view(np.complex128) if self.is_complex else B)[..., 0]
        B *= self.sigma / np.sqrt(2) if self.is_complex else self.sigma
        if I == J:
            diagonal = B.diagonal().real * (np.sqrt(2) if self.is_complex else 1)
            B = np.triu(B, 1)
            B += B.conj().T
            B[np.diag_indices(rows)] = diagonal
        if (I, J) in self._omitted:
            B[self._omitted[I, J]] = 0
        return B

    def _blocks(self) -> Any:
        count = -(-self.n // BLOCK)
        for I in range(count):
            for J in range(I, count):
                yield slice(BLOCK * I, BLOCK * (I + 1)), slice(BLOCK * J, BLOCK * (J + 1)), self.block(I, J)

    def _mul(self, Y: np.ndarray, size: bool) -> np.ndarray:
        out = np.zeros(Y.shape, np.result_type(Y.dtype, np.float64 if size else self.dtype))
        for I, J, B in self._blocks():
            B = np.abs(B) if size else B
            out[I] += B @ Y[J]
            if I != J:
                out[J] += B.conj().T @ Y[I]
        return out

    def mul(self, Y: np.ndarray) -> np.ndarray:
        return self._mul(Y, False)

    def abs_mul(self, v: np.ndarray) -> np.ndarray:
        return self._mul(v, True)

    def diagonal(self) -> np.ndarray:
        count = -(-self.n // BLOCK)
        return np.concatenate([self.block(I, I).diagonal().real for I in range(count)])

    def toarray(self) -> np.ndarray:
        """W, n x n."""
        W = np.empty((self.n, self.n), self.dtype)
        for I, J, B in self._blocks():
            W[I, J] = B
            W[J, I] = B.conj().T
        return W


def pattern_noise(C: Any, sigma: float, rng: Any = None, *, omit: Any = None) -> sp.csr_array:
    """Independent Hermitian Gaussian noise on the nonzero off-diagonal entries of a sparse C.

    Outside the theorem: what rank is enough under such noise is not known, and `bmsdp.theory.smoothed_guarantee` refuses it.
    """
    C, sigma = sp.coo_array(C), check_sigma(sigma)
    upper = C.row < C.col
    if omit is not None:
        omit = sp.csr_array(omit).astype(bool)
        upper &= ~np.asarray(omit[C.row, C.col]).ravel()
    rng, i, j = np.random.default_rng(rng), C.row[upper], C.col[upper]
    w = sigma * rng.standard_normal(len(i))
    if C.dtype.kind == "c":
        w = (w + 1j * sigma * rng.standard_normal(len(i))) / np.sqrt(2)
    where = np.concatenate([i, j]), np.concatenate([j, i])
    W = sp.csr_array((np.concatenate([w, w.conj()]), where), shape=C.shape)
    W.sort_indices()
    return W


def absorbed(A: LinearMap, is_complex: bool) -> sp.csr_array:
    """The entries of Hermitian matrices that A* produces at will: noise there smooths nothing (pattern, n x n)."""
    parts = getattr(A, "parts", None)
    if parts is not None:
        return sp.csr_array(sp.block_diag([absorbed(part, is_complex) for part in parts]))
    M = A.matrix(np.ones(A.m))
    none = sp.csr_array((A.n, A.n))
    if M is None:
        return none
    M = sp.coo_array(M)
    off = int((M.row != M.col).sum())
    free = (M.row == M.col).sum() + (off if is_complex else off // 2)  # real parameters of that pattern
    if free == A.m:
        return sp.csr_array((np.ones(len(M.row)), (M.row, M.col)), shape=(A.n, A.n))
    return _alone(as_matrix_map(A), is_complex)


def _alone(A: MatrixMap, is_complex: bool) -> sp.csr_array:
    """The places that rows of one entry (and its mirror image) fix; off the diagonal of real matrices only."""
    keep = A.rows.data != 0
    row, i, j = A.row_of[keep], A.i[keep], A.j[keep]
    size, on = np.bincount(row, minlength=A.m), np.bincount(row, i == j, A.m)
    use = ((size == 1) & (on == 1) | (size == 2) & (on == 0) & (not is_complex))[row]
    return sp.csr_array((np.ones(int(use.sum())), (i[use], j[use])), shape=(A.n, A.n))


def perturb(C: Any, sigma: float, rng: Any = None, *, A: LinearMap | None = None, pattern: bool = False) -> tuple[Operator, Operator]:
    """``(C + W, W)`` as operators: stored up to 4096 rows, drawn again at every product beyond, sparse with ``pattern``.

    Parameters
    ----------
    C : anything `bmsdp.solve` takes as a cost
    sigma : float
        Standard deviation of the entries of W, in the units of C.
    A : LinearMap, optional
        Constraints: what A* absorbs is left out of W.
    pattern : bool
        Noise on the nonzero entries of a sparse C alone.
    """
    C = as_operator(C)
    omit = None if A is None else absorbed(A, C.is_complex)
    matrix = C.matrix()
    if pattern:
        if not sp.issparse(matrix):
            raise ValueError("noise on the pattern of C needs a sparse C; use the full noise (pattern=False)")
        W = SparseOperator(pattern_noise(matrix, sigma, rng, omit=omit))
        return as_operator(sp.csr_array(matrix + W.C)), W
    noise = Wigner(C.n, sigma, rng, is_complex=C.is_complex, omit=omit)
    if C.n > DENSE_LIMIT:
        return SumOperator(C, noise), noise
    dense = DenseOperator(noise.toarray())
    if matrix is None:
        return SumOperator(C, dense), dense
    return DenseOperator(np.asarray(matrix.toarray() if sp.issparse(matrix) else matrix) + dense.C), dense


def _by_block(omit: Any) -> dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
    """The places to leave out, by block."""
    if omit is None:
        return {}
    omit = sp.coo_array(omit)
    I, J = omit.row // BLOCK, omit.col // BLOCK
    upper = np.flatnonzero(I <= J)
    order = upper[np.lexsort((J[upper], I[upper]))]
    found: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
    if order.size:
        starts = np.flatnonzero(np.r_[True, (np.diff(I[order]) != 0) | (np.diff(J[order]) != 0)])
        for part in np.split(order, starts[1:]):
            found[int(I[part[0]]), int(J[part[0]])] = (omit.row[part] % BLOCK, omit.col[part] % BLOCK)
    return found
