"""What formats with blocks share: lists of blocks, and matrices as entries on and above the diagonal."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp


class Entries(NamedTuple):
    """Entries of symmetric matrices: number of the matrix, row <= column (from 0), value."""

    number: np.ndarray
    i: np.ndarray
    j: np.ndarray
    value: np.ndarray


def kinds(blocks: Any, n: int) -> list[tuple[str, int]]:
    """``("psd" | "nonneg" | "free", size)`` of each entry of a list of blocks; None is one block of n rows.

    Raises ValueError for what is no such list.
    """
    out: list[tuple[str, int]] = []
    for block in [n] if blocks is None else blocks:
        kind, size = block if isinstance(block, (tuple, list)) and len(block) == 2 else ("psd", block)
        if not isinstance(size, (int, np.integer)) or kind not in ("psd", "nonneg", "free") or not size or (kind != "psd" and size < 0):
            needed = 's > 0 for a semidefinite block, -l, ("nonneg", l) or ("free", l) is needed'
            raise ValueError(f"blocks holds {block!r}; {needed}; correct blocks")
        out.append(("nonneg", -int(size)) if size < 0 else (kind, int(size)))
    if sum(size for _, size in out) != n:
        raise ValueError(f"blocks have {sum(size for _, size in out)} rows together; C has {n}; their sizes must sum to n")
    return out


def stacked(A: Any, n: int) -> sp.csr_array:
    """The m x n^2 form of a sequence of n x n matrices, or of itself, in float64."""
    if sp.issparse(A):
        if A.ndim != 2 or A.shape[1] != n * n:
            raise ValueError(f"stacked A has shape {A.shape}; m x n^2 = m x {n * n} is needed; row j is A_j.ravel()")
        return sp.csr_array(_real("A", sp.csr_array(A)))
    if not isinstance(A, (Sequence, np.ndarray)) or isinstance(A, str):
        raise ValueError(f"A is a {type(A).__name__}; n x n matrices, or one stacked sparse array, are needed; pass those")
    rows = []
    for k, matrix in enumerate(A):
        matrix = sp.coo_array(matrix)
        if matrix.shape != (n, n):
            raise ValueError(f"A[{k}] has shape {matrix.shape}; {n} x {n} is needed, as C; correct A")
        rows.append(matrix.reshape(1, n * n))
    return sp.csr_array(_real("A", sp.vstack(rows, format="csr"))) if rows else sp.csr_array((0, n * n))


def square(C: Any) -> sp.csr_array:
    """C as a float64 CSR array."""
    C = sp.csr_array(C)
    if C.ndim != 2 or C.shape[0] != C.shape[1] or not C.shape[0]:
        raise ValueError(f"C has shape {C.shape}; a square matrix with n >= 1 is needed; pass the cost matrix")
    return sp.csr_array(_real("C", C))


def right_hand_side(b: Any, m: int) -> np.ndarray:
    """B as m finite numbers."""
    b = np.asarray(b)
    if b.dtype.kind not in "biuf" or b.shape != (m,) or not np.isfinite(b).all():
        raise ValueError(f"b has shape {b.shape} and dtype {b.dtype}; {m} finite real numbers are needed, one per matrix; correct b")
    return b.astype(float)


def upper(C: sp.csr_array, A: sp.csr_array, blocks: list[tuple[str, int]]) -> Entries:
    """The nonzero entries of C (number 0) and of A_1 ... A_m, sorted; ValueError if one is asymmetric or leaves the blocks."""
    n = C.shape[0]
    C, rows = C.tocoo(), A.tocoo()
    i, j = np.divmod(rows.col.astype(np.int64), n)
    number = np.concatenate((np.zeros(C.nnz, np.int64), rows.row.astype(np.int64) + 1))
    i, j = np.concatenate((C.row.astype(np.int64), i)), np.concatenate((C.col.astype(np.int64), j))
    value = np.concatenate((C.data, rows.data))
    keep = value != 0
    number, i, j, value = number[keep], i[keep], j[keep], value[keep]
    order, mirror = np.lexsort((j, i, number)), np.lexsort((i, j, number))
    equal = (i[order] == j[mirror]) & (j[order] == i[mirror]) & (number[order] == number[mirror]) & (value[order] == value[mirror])
    sizes = [size for _, size in blocks]
    block = np.repeat(np.arange(len(sizes)), sizes)
    linear = np.array([kind != "psd" for kind, _ in blocks])
    inside = (block[i] == block[j]) & ((i == j) | ~linear[block[i]])
    for good, what in ((equal, "is not symmetric: see"), (inside[order], "leaves the blocks with")):
        if not good.all():
            p = order[np.argmin(good)]
            name = "C" if number[p] == 0 else f"A[{number[p] - 1}]"
            raise ValueError(f"{name} {what} its entry ({i[p]}, {j[p]}); symmetric block-diagonal matrices are needed; correct {name}")
    order = order[i[order] <= j[order]]
    return Entries(number[order], i[order], j[order], value[order])


def mirrored(entries: Entries, n: int, m: int) -> tuple[sp.csr_array, sp.csr_array]:
    """Matrix 0, n x n, and the others stacked, m x n^2, from entries without duplicates; zeros are dropped."""
    keep = entries.value != 0
    number, i, j, value = (array[keep] for array in entries)
    off = i != j
    number, i, j = np.concatenate((number, number[off])), np.concatenate((i, j[off])), np.concatenate((j, i[off]))
    value = np.concatenate((value, value[off]))
    zero = number == 0
    index = np.int32 if max(n * n, m + 1, number.size) < 2**31 else np.int64
    i, j, columns, number = i.astype(index), j.astype(index), (i * n + j).astype(index), number.astype(index)
    C = sp.csr_array((value[zero], (i[zero], j[zero])), shape=(n, n))
    A = sp.csr_array((value[~zero], (number[~zero] - 1, columns[~zero])), shape=(m, n * n))
    C.sum_duplicates(), A.sum_duplicates()  # sorts
    return C, A


def _real(name: str, matrix: Any) -> Any:
    if matrix.dtype.kind not in "biuf" or not np.isfinite(matrix.data).all():
        raise ValueError(f"{name} ({matrix.dtype}) is complex, or NaN, or infinite; finite real entries are needed; correct {name}")
    matrix = matrix.astype(np.float64)
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix
