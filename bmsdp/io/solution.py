"""Solutions of semidefinite programs as text, as CSDP writes them.

Line 1 holds y, the x_1 ... x_m of (P) in `bmsdp.io.sdpa`; the others are ``1 block i j value`` for an entry of the dual slack Z and
``2 block i j value`` for one of X, on or above the diagonal of a block, counted from 1. For a problem that is a maximum in its
file (SDPA) ``y = -dual``, and ``Z = sum_i y_i F_i - F_0``; for a minimum (SeDuMi) ``y = dual`` and ``Z = c - A' y``.
"""

import gzip
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import scipy.sparse as sp

from .blocks import kinds, mirrored
from .errors import FormatError
from .sdpa import entries_on_blocks, shortest, vector_and_entries
from .text import check_size, read_bytes

Path = str | os.PathLike[str]

LIMIT = 2e9  # bytes
_PER_ENTRY = 30  # bytes of a line
_STRIP = 2**20  # entries of X in memory at a time


def check_solution_size(blocks: Any, n: int) -> None:
    """ValueError if X as text would take more than 2 GB: one block of about 11 500 rows."""
    size = sum(s * (s + 1) // 2 if kind == "psd" else s for kind, s in kinds(blocks, n)) * _PER_ENTRY
    if size > LIMIT:
        raise ValueError(f"X would take about {size / 1e9:.1f} GB as text; at most {LIMIT / 1e9:g} are written; save the factor Y (.npz)")


def write_solution(path: Path, y: Any, Z: Any, Y: Any, blocks: Any = None, free: Any = ()) -> None:
    """Write y, Z and ``X = YY^T``; entries that are exactly 0 are left out.

    Parameters
    ----------
    path : path-like
        The file; compressed if its name ends in ``.gz``. About 30 bytes per entry of the upper triangles.
    y : array_like, (m,)
        In the file's convention, see above.
    Z : array or sparse, n x n
    Y : array_like, n x k
        The blocks share the columns; X is 0 outside of them.
    blocks : list, optional
        As for `bmsdp.io.sdpa.write_sdpa`; also ``("free", l)``.
    free : array_like
        Values of the free variables, in order.

    Raises
    ------
    ValueError
        If the shapes do not agree, numbers are complex or not finite, or the file would be larger than 2 GB.
    """
    y, Y, free = (np.asarray(array) for array in (y, Y, free))
    Z = sp.csr_array(Z)
    if Y.ndim != 2 or Z.shape != (len(Y), len(Y)) or y.ndim != 1:
        raise ValueError(f"y {y.shape}, Z {Z.shape} and Y {Y.shape}; (m,), n x n and n x k are needed; pass the parts of one solution")
    for name, array in (("y", y), ("Z", Z.data), ("Y", Y), ("free", free)):
        if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
            raise ValueError(f"{name} is complex, or NaN, or infinite; finite real numbers are needed; save the result as .npz")
    parts = kinds(blocks, len(Y))
    count = sum(size for kind, size in parts if kind == "free")
    if free.shape not in ((count,), (0,) if not count else (count,)):
        raise ValueError(f"free has shape {free.shape}; blocks have {count} free variables; pass their values")
    check_solution_size(blocks, len(Y))
    with _open(path) as file:
        file.write((" ".join(map(shortest, y.astype(float).tolist())) + "\n").encode())
        for matrix, pieces in ((1, _slack(Z, parts)), (2, _factor(Y.astype(float), free.astype(float), parts))):
            for block, i, j, value in pieces:
                keep = value != 0
                rows = zip(i[keep].tolist(), j[keep].tolist(), map(shortest, value[keep].tolist()), strict=True)
                file.write("".join(f"{matrix} {block} {i + 1} {j + 1} {text}\n" for i, j, text in rows).encode())


def read_solution(path: Path, m: int, blocks: Any, n: int) -> tuple[np.ndarray, sp.csr_array, sp.csr_array]:
    """Y, Z and X of a solution of a problem with m constraints on these blocks of n rows.

    Raises
    ------
    FormatError
        (a ValueError) naming file, line and remedy.
    OSError
        If the file cannot be read.
    """
    sizes = [size if kind == "psd" else -size for kind, size in kinds(blocks, n)]
    y, values, lines = vector_and_entries(path, read_bytes(path), 0, m, "y")
    check_size(path, None, n, lines.size)
    zero = values[:, 0] == 0
    if zero.any():
        needed = "1 (for Z) or 2 (for X) is needed"
        raise FormatError(path, int(lines[np.argmax(zero)]), "matrix 0", needed, "check that this is a solution file")
    entries = entries_on_blocks(path, values, lines, 2, sizes)
    if not np.isfinite(entries.value).all():
        raise FormatError(path, None, "entries whose sum overflows", "finite entries are needed", "correct the duplicates")
    Z, X = mirrored(entries._replace(number=entries.number - 1), n, 1)
    return y, Z, sp.csr_array(X.reshape(n, n))


def _open(path: Path) -> BinaryIO:
    # mtime=0: equal content gives equal files
    return gzip.GzipFile(path, "wb", mtime=0) if os.fspath(path).endswith(".gz") else open(path, "wb")  # type: ignore[return-value]


Piece = tuple[int, np.ndarray, np.ndarray, np.ndarray]


def _slack(Z: sp.csr_array, parts: list[tuple[str, int]]) -> Iterator[Piece]:
    first = 0
    for block, (kind, size) in enumerate(parts, 1):
        inside = sp.triu(Z[first : first + size, first : first + size]).tocsr().tocoo()  # row by row
        keep = (inside.row == inside.col) | (kind == "psd")
        yield block, inside.row[keep], inside.col[keep], inside.data[keep].astype(float)
        first += size


def _factor(Y: np.ndarray, free: np.ndarray, parts: list[tuple[str, int]]) -> Iterator[Piece]:
    first = seen = 0
    for block, (kind, size) in enumerate(parts, 1):
        V = Y[first : first + size]
        first += size
        if kind != "psd":
            value = np.einsum("ij,ij->i", V, V) if kind == "nonneg" else free[seen : seen + size]
            seen += size * (kind == "free")
            yield block, np.arange(size), np.arange(size), value
            continue
        step = max(1, _STRIP // size)
        for top in range(0, size, step):
            strip = V[top : top + step] @ V[top:].T
            i, j = np.triu_indices(strip.shape[0], 0, strip.shape[1])
            yield block, i + top, j + top, strip[i, j]
