"""The cost matrix as an operator: dense, sparse, matrix-free, or low rank + sparse (floor L1).

Every operator is Hermitian and offers ``mul(Y)``; ``matrix()`` (None when there is none to show), ``diagonal()``,
``abs_mul(v)`` (``|C| v``, for error bounds) and ``congruence(scale, perm)`` (``D C D`` with rows in the order ``perm``).
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import scipy.sparse as sp

UNIT = 2.0**-53  # unit roundoff u
SMALL_PRODUCT = 20_000  # entries of C times columns below which SciPy beats the compiled kernel's call


class Operator:
    """A Hermitian n x n matrix known by its products.

    Attributes
    ----------
    n : int
    dtype : numpy.dtype, float64 or complex128
    rounding : float
        Relative error of the stored entries against the caller's own data, in units of u (0: as given).
    """

    n: int
    dtype: np.dtype
    rounding: float = 0.0
    threads: int = 1

    @property
    def terms(self) -> int:
        """Terms in an entry of a product, at most."""
        return self.n

    @property
    def is_complex(self) -> bool:
        return self.dtype.kind == "c"

    def mul(self, Y: np.ndarray) -> np.ndarray:
        """``C Y`` for Y (n x k), C-contiguous."""
        raise NotImplementedError

    def matrix(self) -> Any:
        """C as CSR array or ndarray, or None."""
        return None

    def diagonal(self) -> np.ndarray | None:
        """Real diagonal of C, or None."""
        return None

    def abs_mul(self, v: np.ndarray) -> np.ndarray | None:
        """``|C| v``, entrywise absolute values, for v (n,) >= 0; None without entries."""
        return None

    def as_complex(self) -> Operator:
        """The same matrix, acting on complex factors."""
        out = copy.copy(self)
        out.dtype = np.dtype(np.complex128)
        return out

    def congruence(self, scale: np.ndarray, perm: np.ndarray) -> Operator:
        """``C'`` with ``C'_ij = scale_i scale_j C[perm_i, perm_j]``."""
        return _Congruence(self, scale, perm)


class DenseOperator(Operator):
    """A Hermitian ndarray."""

    def __init__(self, C: np.ndarray, rounding: float = 0.0):
        self.C, self.n, self.dtype, self.rounding = C, C.shape[0], C.dtype, rounding

    def mul(self, Y: np.ndarray) -> np.ndarray:
        return self.C @ Y

    def matrix(self) -> np.ndarray:
        return self.C

    def diagonal(self) -> np.ndarray:
        return self.C.diagonal().real.copy()

    def abs_mul(self, v: np.ndarray) -> np.ndarray:
        return np.abs(self.C) @ v

    def as_complex(self) -> Operator:
        return DenseOperator(self.C.astype(np.complex128), self.rounding)

    def congruence(self, scale: np.ndarray, perm: np.ndarray) -> Operator:
        return DenseOperator(self.C[np.ix_(perm, perm)] * scale[:, None] * scale, self.rounding + 2)


class SparseOperator(Operator):
    """A Hermitian CSR array with sorted indices; products by the row-major kernel."""

    def __init__(self, C: sp.csr_array, rounding: float = 0.0):
        self.C, self.n, self.dtype, self.rounding = C, C.shape[0], C.dtype, rounding

    def mul(self, Y: np.ndarray) -> np.ndarray:
        if Y.ndim == 2 and Y.shape[1] == 1 and self.threads == 1:
            return (self.C @ Y[:, 0])[:, None]  # SciPy's product with a vector, four times faster than with an n x 1 array
        if self.C.nnz * Y[0].size < SMALL_PRODUCT or Y.ndim == 1 or Y.dtype != self.dtype:
            return self.C @ Y
        from .kernels import spmm

        out = np.empty_like(Y)
        if self.threads > 1:
            from .kernels.threads import limited

            with limited(self.threads):
                spmm.csr_mul_parallel(self.C.indptr, self.C.indices, self.C.data, Y, out)
        else:
            spmm.csr_mul(self.C.indptr, self.C.indices, self.C.data, Y, out)
        return out

    @property
    def terms(self) -> int:
        return int(np.diff(self.C.indptr).max(initial=0))

    def matrix(self) -> sp.csr_array:
        return self.C

    def diagonal(self) -> np.ndarray:
        return self.C.diagonal().real.copy()

    def abs_mul(self, v: np.ndarray) -> np.ndarray:
        return abs(self.C) @ v

    def as_complex(self) -> Operator:
        return SparseOperator(self.C.astype(np.complex128), self.rounding)

    def congruence(self, scale: np.ndarray, perm: np.ndarray) -> Operator:
        D = sp.diags_array(scale)
        C = (D @ self.C[perm][:, perm] @ D).tocsr()
        C.sort_indices()
        return SparseOperator(C, self.rounding + 2)


class LowRankPlusSparse(Operator):
    """``C = A + U diag(d) U*`` with sparse (or zero) A, real d and thin U; products cost nnz(A) k + 2 n r k.

    Parameters
    ----------
    A : sparse array, ndarray or None
        Hermitian, n x n; None for zero.
    U : ndarray, n x r
    d : array_like, length r, real; ones by default
    """

    def __init__(self, A: Any, U: np.ndarray, d: np.ndarray | None = None):
        U = np.atleast_2d(np.asarray(U))
        if U.ndim != 2 or not np.isfinite(U).all():
            raise ValueError(f"U must be a finite n x r array, got shape {U.shape}; pass one column per rank-one term")
        d = np.ones(U.shape[1]) if d is None else np.asarray(d, float)
        if d.shape != (U.shape[1],) or not np.isfinite(d).all():
            raise ValueError(f"d must hold {U.shape[1]} finite real weights, one per column of U; got shape {d.shape}")
        self.n = U.shape[0]
        A = sp.csr_array((self.n, self.n)) if A is None else A
        self.A = as_operator(A)
        if self.A.n != self.n:
            raise ValueError(f"A is {self.A.n} x {self.A.n} but U has {self.n} rows; they must agree")
        self.dtype, self.rounding = np.result_type(self.A.dtype, U.dtype, np.float64), self.A.rounding
        self.U, self.d = np.ascontiguousarray(U, self.dtype), d

    @classmethod
    def of(cls, A: Operator, U: np.ndarray, d: np.ndarray) -> LowRankPlusSparse:
        """``A + U diag(d) U*`` of checked parts, not copied."""
        out = cls.__new__(cls)
        out.n, out.dtype, out.rounding = A.n, np.result_type(A.dtype, U.dtype), A.rounding
        out.A, out.U, out.d = A, U, d
        return out

    @property
    def terms(self) -> int:
        return self.A.terms + self.n + self.U.shape[1]

    def mul(self, Y: np.ndarray) -> np.ndarray:
        d = self.d[:, None] if Y.ndim == 2 else self.d
        out = self.A.mul(Y)
        return out + self.U @ (d * (self.U.conj().T @ Y))

    def diagonal(self) -> np.ndarray | None:
        diagonal = self.A.diagonal()
        return None if diagonal is None else diagonal + (np.abs(self.U) ** 2) @ self.d

    def abs_mul(self, v: np.ndarray) -> np.ndarray | None:
        rows, U = self.A.abs_mul(v), np.abs(self.U)
        return None if rows is None else rows + U @ (np.abs(self.d) * (U.T @ v))

    def congruence(self, scale: np.ndarray, perm: np.ndarray) -> Operator:
        out = LowRankPlusSparse.of(self.A.congruence(scale, perm), scale[:, None] * self.U[perm], self.d)
        out.rounding = self.rounding + 2
        return out


class SumOperator(Operator):
    """``C + W`` of two operators."""

    def __init__(self, C: Operator, W: Operator):
        if C.n != W.n:
            raise ValueError(f"a sum of operators of {C.n} and {W.n} rows; they must agree")
        self.C, self.W, self.n, self.dtype = C, W, C.n, np.result_type(C.dtype, W.dtype)

    @property
    def terms(self) -> int:
        return self.C.terms + self.W.terms

    def mul(self, Y: np.ndarray) -> np.ndarray:
        return self.C.mul(Y) + self.W.mul(Y)

    def diagonal(self) -> np.ndarray | None:
        c, w = self.C.diagonal(), self.W.diagonal()
        return None if c is None or w is None else c + w

    def abs_mul(self, v: np.ndarray) -> np.ndarray | None:
        c, w = self.C.abs_mul(v), self.W.abs_mul(v)
        return None if c is None or w is None else c + w


class ProductOperator(Operator):
    """A `scipy.sparse.linalg.LinearOperator`, taken as Hermitian after a random test of <u, Cv> = <Cu, v>."""

    def __init__(self, C: Any):
        self.C, self.n = C, C.shape[0]
        self.dtype = np.result_type(C.dtype if C.dtype is not None else np.float64, np.float64)
        rng = np.random.default_rng(0)
        u, v = (_gaussian(rng, self.n, self.dtype) for _ in range(2))
        Cu, Cv = C.matvec(u), C.matvec(v)
        if not (np.isfinite(Cu).all() and np.isfinite(Cv).all()):
            raise ValueError("C v has entries that are NaN or infinite; check the operator's matvec")
        defect = abs(np.vdot(u, Cv) - np.vdot(Cu, v))
        size = np.linalg.norm(u) * np.linalg.norm(Cv) + np.linalg.norm(Cu) * np.linalg.norm(v)
        if defect > 1e-10 * size:
            raise ValueError(
                f"the LinearOperator C is not Hermitian: |<u, Cv> - <Cu, v>| = {defect:.3g} for random u, v; pass (C + C*) / 2"
            )

    def mul(self, Y: np.ndarray) -> np.ndarray:
        out = self.C.matvec(Y) if Y.ndim == 1 else self.C.matmat(Y)
        return np.ascontiguousarray(out, np.result_type(self.dtype, Y.dtype))


class _Congruence(Operator):
    """``D C D`` with permuted rows, of an operator that has no entries."""

    def __init__(self, C: Operator, scale: np.ndarray, perm: np.ndarray):
        self.C, self.n, self.dtype, self.scale, self.perm = C, C.n, C.dtype, scale, perm
        self.inverse = np.argsort(perm)

    def mul(self, Y: np.ndarray) -> np.ndarray:
        scale = self.scale[:, None] if Y.ndim == 2 else self.scale
        return scale * self.C.mul(np.ascontiguousarray((scale * Y)[self.inverse]))[self.perm]


def _gaussian(rng: np.random.Generator, shape: Any, dtype: np.dtype) -> np.ndarray:
    """Standard Gaussian array, complex entries with independent parts where dtype is complex."""
    out = rng.standard_normal(shape)
    return out + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else out


def _check_square(shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"C has shape {shape}; it must be square, n x n")
    if shape[0] == 0:
        raise ValueError("C is 0 x 0; at least one row is needed")


def _asymmetric(worst: float, i: int, j: int, complex_: bool) -> ValueError:
    word, star = ("Hermitian", "C.conj().T") if complex_ else ("symmetric", "C.T")
    return ValueError(f"C is not {word}: max |C - {star}| = {worst:.6g} at ({i}, {j}); pass (C + {star}) / 2 if that is meant")


def _number_type(dtype: np.dtype) -> np.dtype:
    if dtype.kind not in "biufc":
        raise ValueError(f"C has dtype {dtype}; numbers are needed (float64 or complex128)")
    return np.dtype(np.complex128 if dtype.kind == "c" else np.float64)


def _dense(C: np.ndarray) -> Operator:
    C = np.ascontiguousarray(C, _number_type(C.dtype))
    if not np.isfinite(C).all():
        i, j = np.argwhere(~np.isfinite(C))[0]
        raise ValueError(f"C[{i}, {j}] = {C[i, j]}; every entry must be finite")
    if not np.array_equal(C, C.conj().T):
        defect = np.abs(C - C.conj().T)
        i, j = np.unravel_index(np.argmax(defect), defect.shape)
        if defect[i, j] > 1e-14 * np.abs(C).max():
            raise _asymmetric(float(defect[i, j]), int(i), int(j), C.dtype.kind == "c")
        return DenseOperator((C + C.conj().T) / 2, rounding=1)
    return DenseOperator(C)


def _sparse(C: Any) -> Operator:
    C = sp.csr_array(C, dtype=_number_type(C.dtype))
    if not C.has_canonical_format:
        C = C.copy()
        C.sum_duplicates()
    if not np.isfinite(C.data).all():
        p = int(np.flatnonzero(~np.isfinite(C.data))[0])
        i = int(np.searchsorted(C.indptr, p, side="right")) - 1
        raise ValueError(f"C[{i}, {C.indices[p]}] = {C.data[p]}; every entry must be finite")
    T = C.T.tocsr()
    if C.dtype.kind == "c":
        T.data = T.data.conj()
    if not (np.array_equal(C.indptr, T.indptr) and np.array_equal(C.indices, T.indices) and np.array_equal(C.data, T.data)):
        defect = abs(C - T).tocoo()
        worst = int(np.argmax(defect.data)) if defect.nnz else -1
        if worst >= 0 and defect.data[worst] > 1e-14 * np.abs(C.data).max():
            raise _asymmetric(float(defect.data[worst]), int(defect.row[worst]), int(defect.col[worst]), C.dtype.kind == "c")
        C = sp.csr_array((C + T) / 2)
        C.sum_duplicates()
        return SparseOperator(C, rounding=1)
    return SparseOperator(C)


def as_operator(C: Any) -> Operator:
    """The operator of a cost: ndarray, scipy sparse array or matrix, `LinearOperator`, or an `Operator` itself.

    Raises ValueError for what is not square, finite and Hermitian.  Asymmetry up to 1e-14 max|C| is taken for rounding
    and averaged away.
    """
    if isinstance(C, Operator):
        return C
    if sp.issparse(C):
        _check_square(C.shape)
        return _sparse(C)
    if hasattr(C, "matvec") and hasattr(C, "matmat"):
        _check_square(C.shape)
        return ProductOperator(C)
    try:
        C = np.asarray(C)
    except ValueError as error:
        raise ValueError(f"C cannot be read as a matrix ({error}); pass an ndarray, a sparse array or a LinearOperator") from None
    _check_square(C.shape)
    return _dense(C)


def difference(C: Any, A: Any) -> Any:
    """``C - A`` of a matrix C (CSR or ndarray) and a sparse A; entries that cancel stay in the pattern: it depends on those of C, A."""
    if isinstance(C, np.ndarray):
        return C - A.toarray()
    C, A = C.tocoo(), A.tocoo()
    rows, columns = (np.concatenate(pair) for pair in zip(C.coords, A.coords, strict=True))
    return sp.coo_array((np.concatenate([C.data, -A.data]), (rows, columns)), shape=C.shape).tocsr()


def less_diagonal(C: Operator, d: np.ndarray) -> Operator:
    """``C - diag(d)`` in the form of C."""
    if isinstance(C, LowRankPlusSparse):
        return LowRankPlusSparse.of(less_diagonal(C.A, d), C.U, C.d)
    M, D = C.matrix(), sp.diags_array(d)
    if M is None:
        return SumOperator(C, SparseOperator(sp.csr_array(-D)))
    return as_operator(sp.csr_array(M - D) if sp.issparse(M) else M - np.diag(d))


def spectral_norm(C: Operator, steps: int = 12) -> float:
    """``|C|_2`` estimated by ``steps`` Lanczos steps from a fixed start, rounded up to a power of two (0 for C = 0).

    The power of two makes ``C -> 2^p C`` scale every later number exactly.  It sets units only: no bound rests on it.
    """
    q = _gaussian(np.random.default_rng(0), C.n, C.dtype)
    q /= np.linalg.norm(q)
    alpha: list[float] = []
    beta: list[float] = []
    previous = np.zeros_like(q)
    for _ in range(min(steps, C.n)):
        w = C.mul(q)
        if beta:
            w = w - beta[-1] * previous
        alpha.append(float(np.vdot(q, w).real))
        w = w - alpha[-1] * q
        size = float(np.linalg.norm(w))
        if size <= 1e-12 * max(map(abs, alpha)) or size == 0:
            break
        beta.append(size)
        previous, q = q, w / size
    T = np.diag(alpha) + np.diag(beta[: len(alpha) - 1], 1) + np.diag(beta[: len(alpha) - 1], -1)
    norm = float(np.abs(np.linalg.eigvalsh(T)).max())
    return 2.0 ** np.ceil(np.log2(norm)) if norm > 0 else 0.0
