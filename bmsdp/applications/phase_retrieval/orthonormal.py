r"""Linear measurements ``A x`` for phase retrieval, in coordinates where their columns are orthonormal.

Every A of full column rank is ``A = Q R`` with ``Q* Q = I``. In ``V = R x`` the least-squares problems of phase retrieval are as
well conditioned as they can be, and their relaxations know A through the range of Q alone. R is, by what A is:

- *an array*: Cholesky factor of ``A* A`` (CholeskyQR; once more where A is ill conditioned; Householder QR where that breaks
  down), columns scaled to one size first. Q is stored.
- *masked Fourier transforms*, and every operator whose ``A* A`` is found to be diagonal: ``R = diag(g)^{1/2}``, nothing is stored.
- *sparse arrays and operators with d up to 2048*: the Cholesky factor of the d x d Gram matrix, ``Q V = A (R^{-1} V)``.
- *what is left*: ``Q = A R^{-1}`` with R a multiple of the identity, or the column norms of a sparse A; ``orthonormal`` is False.

Real signals behind complex measurements (``real=True``) are the same story over R: ``R^T R = Re A* A`` and adjoint ``Re Q* Z``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse
from scipy.linalg import LinAlgError, blas, cholesky, get_lapack_funcs, solve_triangular

from .diffraction import MaskedFFT

GRAM_LIMIT = 2048  # columns up to which a d x d Gram matrix is formed
CHUNK = 2**16  # entries of a block of rows: 1 MB of complex numbers, which stay in the cache from product to adjoint
Weight = Callable[[slice, np.ndarray], np.ndarray]


class _Matrix:
    """Blocks of rows of an array or sparse array."""

    def __init__(self, M: Any):
        n, d = M.shape
        self.M, self.sparse = M, sparse.issparse(M)
        step = n if self.sparse else max(16, CHUNK // d)
        self.blocks = [slice(i, min(i + step, n)) for i in range(0, n, step)]
        self.adjoint_matrix = M.conj().T.tocsr() if self.sparse else None

    def forward(self, V: np.ndarray, rows: slice) -> np.ndarray:
        return self.M @ V if self.sparse else self.M[rows] @ V

    def adjoint(self, Z: np.ndarray, rows: slice) -> np.ndarray:
        return self.adjoint_matrix @ Z if self.sparse else (Z.conj().T @ self.M[rows]).conj().T


class _Products:
    """A LinearOperator, taken as one block of rows."""

    def __init__(self, A: Any):
        self.A, self.blocks = A, [slice(0, A.shape[0])]

    def forward(self, V: np.ndarray, rows: slice) -> np.ndarray:
        out = self.A.matmat(V)  # perhaps V itself, or integers: `fold` writes to it
        return np.array(out, np.result_type(out, np.float64))

    def adjoint(self, Z: np.ndarray, rows: slice) -> np.ndarray:
        return np.asarray(self.A.rmatmat(Z))


class Measurements:
    """``A = Q R``: products with Q, and the way between signals x and ``V = R x``.

    Made by `measurements`. Products cost one pass over Q, or one with A and one with ``R^{-1}``.

    Attributes
    ----------
    n, d : int
        Measurements and unknowns.
    signal_shape : tuple of int
    dtype : numpy.dtype
        Of signals and V: float64 for real ones, complex128 otherwise.
    complex_rows : bool
        Whether ``Q V`` is complex.
    right : ndarray
        R: its diagonal (d,), or upper triangular (d, d).
    orthonormal : bool
        Whether ``Q* Q = I`` (up to rounding; ``Re Q* Q = I`` for real signals).
    A : ndarray, sparse array or LinearOperator
        As given.
    Q : ndarray (n, d) or None
        Where it is stored.
    blocks : list of slice
        The blocks of rows that `fold` runs over.
    """

    def __init__(self, A: Any, rows: Any, right: np.ndarray, *, real: bool, orthonormal: bool = True, Q: np.ndarray | None = None):
        self.A, self.right, self.orthonormal, self.Q, self.real = A, right, orthonormal, Q, real
        self.rows = _Matrix(Q) if Q is not None else rows
        self.n, self.d = A.shape
        self.signal_shape: tuple[int, ...] = A.signal_shape if isinstance(A, MaskedFFT) else (self.d,)
        self.complex_rows = np.dtype(A.dtype if A.dtype is not None else float).kind == "c"
        self.dtype = np.dtype(np.complex128 if self.complex_rows and not real else np.float64)
        self.blocks: list[slice] = self.rows.blocks

    def _solve(self, V: np.ndarray, adjoint: bool = False) -> np.ndarray:
        """``R^{-1} V`` or ``R^{-*} V``."""
        if self.right.ndim == 1:
            return V / self.right[:, None]
        return solve_triangular(self.right, V, trans="C" if adjoint else "N", check_finite=False)

    def fold(self, V: np.ndarray, weight: Weight) -> np.ndarray:
        """``Q* F(Q V)``, d x k, for F that acts on blocks of rows: ``weight(rows, Z)`` gives ``F(Z)[rows]``, Z its own to write to.

        With one block of rows at a time in memory; cost one product with Q and one with its adjoint.
        """
        W = V if self.Q is not None else self._solve(V)
        parts = (self.rows.adjoint(weight(rows, self.rows.forward(W, rows)), rows) for rows in self.blocks)
        return self._back(sum(parts, np.zeros(W.shape)))

    def _back(self, out: np.ndarray) -> np.ndarray:
        if self.real and out.dtype.kind == "c":
            out = out.real
        out = out if self.Q is not None else self._solve(out, adjoint=True)
        return np.ascontiguousarray(out, self.dtype)

    def mul(self, V: np.ndarray) -> np.ndarray:
        """``Q V``, n x k."""
        W = V if self.Q is not None else self._solve(V)
        return np.ascontiguousarray(np.concatenate([self.rows.forward(W, rows) for rows in self.blocks]))

    def adj(self, Z: np.ndarray) -> np.ndarray:
        """``Q* Z``, d x k (its real part for real signals)."""
        return self._back(sum((self.rows.adjoint(Z[rows], rows) for rows in self.blocks), np.zeros((self.d, Z.shape[1]))))

    def to_signal(self, V: np.ndarray) -> np.ndarray:
        """``R^{-1} V``: signals, d x k."""
        return self._solve(V)

    def from_signal(self, X: np.ndarray) -> np.ndarray:
        """``R X`` for signals X, d x k."""
        return np.ascontiguousarray(self.right[:, None] * X if self.right.ndim == 1 else np.triu(self.right) @ X, self.dtype)

    def leverage(self) -> np.ndarray | None:
        """``|q_i|^2``, (n,), where that costs no more than a product; None elsewhere."""
        if self.Q is not None:
            return np.einsum("ij,ij->i", self.Q, self.Q.conj()).real
        return self.A.leverage() if isinstance(self.A, MaskedFFT) else None

    def defect(self) -> float:
        """About ``|Q* Q - I|_F``, from one random vector."""
        v = np.random.default_rng(0).standard_normal((self.d, 1)).astype(self.dtype)
        return float(np.linalg.norm(self.adj(self.mul(v)) - v))


def measurements(A: Any, *, real: bool = False) -> Measurements:
    """A in orthonormal coordinates; see the module for what is done with which A.

    Parameters
    ----------
    A : n x d ndarray, sparse array or matrix, or LinearOperator with matvec and rmatvec; real or complex, n >= d
        Or `Measurements` made before, returned as they are: several calls with one A then share its factorisation.
    real : signals are real although A is complex

    Raises
    ------
    ValueError
        For an A that is not 2-D, not finite, wider than tall or of deficient rank; for an operator without rmatvec, or whose
        rmatvec is not the adjoint of its matvec.
    """
    if isinstance(A, Measurements):
        if real and not A.real:
            raise ValueError("real=True, but these measurements were made for complex signals; make them with measurements(A, real=True)")
        return A
    if isinstance(A, MaskedFFT):
        return Measurements(A, A, np.sqrt(A.gram), real=real)
    if not sparse.issparse(A) and hasattr(A, "matvec"):
        _check_shape(A.shape, "the operator A")
        _check_adjoint(A)
        return _from_operator(A, real)
    if not sparse.issparse(A):
        try:
            A = np.asarray(A)
        except ValueError as error:
            raise ValueError(f"A cannot be read as a matrix ({error}); pass an n x d array, a sparse array or a LinearOperator") from None
    _check_shape(A.shape, "A")
    if A.dtype.kind not in "biufc":
        raise ValueError(f"A has dtype {A.dtype}; real or complex numbers are needed")
    dtype = np.dtype(np.complex128 if A.dtype.kind == "c" else np.float64)
    A = sparse.csr_array(A, dtype=dtype) if sparse.issparse(A) else np.ascontiguousarray(A, dtype)
    bad = ~np.isfinite(A.data if sparse.issparse(A) else A)
    if bad.any():
        raise ValueError(f"{bad.sum()} entries of A are NaN or infinite; every entry must be finite")
    if sparse.issparse(A):
        A.sum_duplicates()
        return _from_sparse(A, real)
    Q, R = _orthonormalise(A, real)
    return Measurements(A, None, R, real=real, Q=Q)


def _check_shape(shape: tuple[int, ...], what: str) -> None:
    if len(shape) != 2:
        raise ValueError(f"{what} has shape {shape}; n x d is needed, one row for each measurement")
    if min(shape) < 1 or shape[0] < shape[1]:
        raise ValueError(f"{what} has {shape[0]} rows and {shape[1]} columns; at least as many measurements as unknowns are needed")


def _check_adjoint(A: Any) -> None:
    """<Az, y> = <z, A* y> for one random pair."""
    (n, d), dtype = A.shape, np.dtype(A.dtype if A.dtype is not None else float)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((d, 2)) @ [1, 1j], rng.standard_normal((n, 2)) @ [1, 1j]
    if dtype.kind != "c":
        x, y = x.real.copy(), y.real.copy()
    try:
        Ax, Ay = np.asarray(A.matvec(x)), np.asarray(A.rmatvec(y))
    except (NotImplementedError, AttributeError, TypeError) as error:
        raise ValueError(f"the operator A has no working rmatvec ({error}); give it one, y -> A* y, or pass A as an array") from None
    if dtype.kind != "c" and (np.iscomplexobj(Ax) or np.iscomplexobj(Ay)):
        raise ValueError(f"the operator A has dtype {dtype} but its products are complex; give it dtype complex")
    if not (np.isfinite(Ax).all() and np.isfinite(Ay).all()):
        raise ValueError("A x or A* y has entries that are NaN or infinite for random x and y; check matvec and rmatvec")
    defect = abs(np.vdot(Ax, y) - np.vdot(x, Ay))
    allowed = 1e-4 if dtype in (np.float32, np.complex64) else 1e-8
    if defect > allowed * (np.linalg.norm(Ax) * np.linalg.norm(y) + np.linalg.norm(x) * np.linalg.norm(Ay)):
        raise ValueError(
            f"rmatvec is not the adjoint of matvec: |<A x, y> - <x, A* y>| = {defect:.3g} for random x and y; "
            "check conjugation and the normalisation of transforms (the adjoint of a unitary FFT is its inverse)"
        )


def _deficient(rank: int, d: int, note: str = "") -> ValueError:
    return ValueError(f"A has numerical rank {rank} but {d} columns{note}; drop dependent columns, or measure more")


def _orthonormalise(A: np.ndarray, real: bool) -> tuple[np.ndarray, np.ndarray]:
    """(Q, R) with ``A = Q R``."""
    scale = _power_of_two(np.abs(A).max(axis=0))
    A = A / scale
    Q, R = A, np.diag(np.ones(len(scale)))
    for _ in range(2):
        try:
            U = cholesky(_gram(Q, real), overwrite_a=True, check_finite=False)
        except LinAlgError:
            break
        Q = blas.get_blas_funcs("trsm", (Q,))(1.0, U.astype(Q.dtype), Q.T, trans_a=1).T
        R = U @ R
        if _reciprocal_condition(R) < 1e-7:
            break  # A* A has lost too much of A
        if _defect(Q, real) < 1e-13:
            return Q, R * scale
    tall = np.concatenate([A.real, A.imag]) if real and np.iscomplexobj(A) else A
    Q, R = np.linalg.qr(tall)
    size = np.linalg.svd(R, compute_uv=False)
    rank = int(np.sum(size > max(tall.shape) * 2.0**-52 * size[0]))
    if rank < len(scale):
        raise _deficient(rank, len(scale))
    return np.ascontiguousarray(Q[: len(A)] + 1j * Q[len(A) :] if tall is not A else Q), R * scale


def _gram(Q: np.ndarray, real: bool) -> np.ndarray:
    """``Q* Q`` (its real part for real signals), in the upper half."""
    if np.iscomplexobj(Q):
        return (Q.conj().T @ Q).real if real else blas.zherk(1.0, Q.T).conj()
    return blas.dsyrk(1.0, Q.T)


def _defect(Q: np.ndarray, real: bool) -> float:
    """``|(Q* Q - I) v| / |v|`` for one random v."""
    v = np.random.default_rng(0).standard_normal(Q.shape[1])
    w = ((Q @ v).conj() @ Q).conj()
    return float(np.linalg.norm((w.real if real else w) - v) / np.linalg.norm(v))


def _reciprocal_condition(R: np.ndarray) -> float:
    """About ``1 / (|R|_1 |R^{-1}|_1)`` for an upper triangle."""
    (trcon,) = get_lapack_funcs(("trcon",), (R,))
    return float(trcon(R)[0])


def _power_of_two(size: np.ndarray) -> np.ndarray:
    """Powers of two next to sizes; ValueError where a column is 0."""
    if not size.all():
        zero = np.flatnonzero(size == 0)
        raise ValueError(f"{zero.size} columns of A are 0, the first is column {zero[0]}: A has deficient rank; drop them")
    return 2.0 ** np.round(np.log2(size))


def _from_sparse(A: sparse.csr_array, real: bool) -> Measurements:
    size = np.sqrt(np.asarray(abs(A).power(2).sum(axis=0)).ravel())
    _power_of_two(size)
    if A.shape[1] > GRAM_LIMIT:
        out = Measurements(A, _Matrix(A), size, real=real)
        out.orthonormal = out.defect() < 1e-13 * np.sqrt(out.d)
        return out
    return _small(A, _Matrix(A), real)


def _from_operator(A: Any, real: bool) -> Measurements:
    """By what ``A* A`` is: diagonal, small enough to be formed, or only bounded."""
    d, rows = A.shape[1], _Products(A)
    unit = Measurements(A, rows, np.ones(d), real=real, orthonormal=False)
    probe = np.ones((d, 2), unit.dtype)
    probe[:, 1] = np.random.default_rng(1).standard_normal(d)
    g, image = unit.adj(unit.mul(probe)).T
    if (g.real > 0).all() and np.linalg.norm(image - g * probe[:, 1]) <= 1e-12 * np.linalg.norm(image):
        return Measurements(A, rows, np.sqrt(g.real), real=real)
    if d <= GRAM_LIMIT:
        return _small(A, rows, real)
    x = probe[:, 1:]
    for _ in range(20):
        x = unit.adj(unit.mul(x / np.linalg.norm(x)))
    return Measurements(A, rows, np.full(d, np.sqrt(np.linalg.norm(x))), real=real, orthonormal=False)


def _small(A: Any, rows: Any, real: bool) -> Measurements:
    """R from the Gram matrix, by d products; once more where ``A* A`` is ill conditioned (CholeskyQR2)."""
    n, d = A.shape
    step = max(1, 64 * CHUNK // n)
    out = Measurements(A, rows, np.ones(d), real=real)
    for _ in range(2):
        G = np.concatenate([out.adj(out.mul(np.eye(d, min(step, d - j), -j, out.dtype))) for j in range(0, d, step)], axis=1)
        R = _cholesky(G) @ (np.diag(out.right) if out.right.ndim == 1 else out.right)
        if _reciprocal_condition(R / np.abs(R).max(axis=0)) < 1e-8:
            raise _singular(G)
        out = Measurements(A, rows, R, real=real)
        if out.defect() < 1e-13 * np.sqrt(d):
            break
    return out


def _cholesky(G: np.ndarray) -> np.ndarray:
    """R with ``R* R = G``; ValueError where G is numerically singular."""
    size = _power_of_two(np.sqrt(np.abs(G.diagonal())))
    try:
        return cholesky(G / size[:, None] / size, overwrite_a=True, check_finite=False) * size
    except LinAlgError:
        raise _singular(G) from None


def _singular(G: np.ndarray) -> ValueError:
    size = np.sqrt(np.abs(G.diagonal()))
    rank = int(np.sum(np.linalg.eigvalsh(G / size[:, None] / size) > 1e-14 * len(G)))
    note = " as far as A* A shows, which loses singular values below 1e-7 of the largest"
    return _deficient(min(rank, len(G) - 1), len(G), note)
