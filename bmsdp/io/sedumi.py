"""Semidefinite programs of SeDuMi (A or At, b, c, K) and SDPT3 (blk, At, C, b) in MATLAB files.

Both state ``min <c, x>, A x = b`` over a product of cones, x in K, whose dual slack is ``c - A' y`` with ``y = dual``: our signs.
"""

import io
import os
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse as sp

from .blocks import Entries, kinds, mirrored, right_hand_side, square, stacked, upper
from .errors import FormatError
from .mat import Cell, read_mat
from .text import check_size, write_bytes

Path = str | os.PathLike[str]
Block = int | tuple[str, int]

_NAMES = {"A", "At", "b", "c", "C", "K", "blk"}
_OTHER_CONES = {"q": "second-order", "r": "rotated second-order"}
_COMPLEX = ("scomplex", "ycomplex", "xcomplex")
_SAVE = "save the problem again"


def read_sedumi(path: Path) -> tuple[sp.csr_array, sp.csr_array, np.ndarray, dict[str, Any]]:
    """Read a problem saved by SeDuMi's users (A or At, b, c, K) or by SDPT3's (blk, At, C, b); which one, the variables tell.

    Parameters
    ----------
    path : path-like
        A MATLAB file of level 5 (``save -v6`` or ``-v7``), plain or gzip.

    Returns
    -------
    C : csr_array, n x n
    A : csr_array, m x n^2
        Row j is ``A_j.ravel()``, symmetrised: ``(A_j + A_j.T) / 2``, as SeDuMi does.
    b : ndarray, (m,)
    meta : dict
        ``format "sedumi"`` or ``"sdpt3"``, ``sense "min"``, ``offset 0.0``, ``kind "sdp"``, ``n``, ``m``, ``blocks`` (in the order of
        the file: ``("free", f)``, ``("nonneg", l)``, and the size of each semidefinite block).

    Raises
    ------
    FormatError
        (a ValueError) naming the file; also for second-order cones and complex data.
    OSError
        If the file cannot be read.
    """
    found = read_mat(path, _NAMES)
    sdpt3 = "blk" in found
    for wanted in ("blk", "At", "C", "b") if sdpt3 else ("K", "b"):
        if wanted not in found:
            given = f"variables {', '.join(sorted(found)) or 'of other names'}"
            raise FormatError(path, None, given, "A or At, b, c and K (SeDuMi), or blk, At, C and b (SDPT3), are needed", _SAVE)
    b = _vector(path, "b", found["b"])
    blocks, entries = _sdpt3(path, found, b.size) if sdpt3 else _sedumi(path, found, b.size)
    n = sum(size for _, size in blocks)
    C, A = mirrored(entries, n, b.size)
    if not (np.isfinite(C.data).all() and np.isfinite(A.data).all()):
        raise FormatError(path, None, "entries that are NaN, infinite or overflow", "finite entries are needed", "scale the problem")
    meta = {"format": "sdpt3" if sdpt3 else "sedumi", "sense": "min", "offset": 0.0, "kind": "sdp", "n": n, "m": b.size}
    return C, A, b, meta | {"blocks": [size if kind == "psd" else (kind, size) for kind, size in blocks]}


def write_sedumi(path: Path, C: Any, A: Any, b: Any, blocks: Any = None) -> np.ndarray:
    """Write ``min <C, X>, A(X) = b`` as SeDuMi's At, b, c, K, so that reading gives the same numbers back.

    Parameters
    ----------
    path : path-like
        The file; compressed if its name ends in ``.gz``.
    C : array or sparse, n x n
    A : sequence of n x n matrices, or m x n^2 sparse array
    b : array_like, (m,)
        All real, finite and, matrices, symmetric.
    blocks : list, optional
        ``s > 0`` for a semidefinite block, ``-l`` or ``("nonneg", l)``, ``("free", l)``; one block of n when None.

    Returns
    -------
    rows : ndarray, (n,)
        Row p of the file is row ``rows[p]`` of C: free variables come first, then nonnegative ones, then semidefinite blocks.

    Raises
    ------
    ValueError
        If the data are not of this kind, or a vector of all cones is longer than MATLAB's level 5 can count (2^31).
    """
    C = square(C)
    n = C.shape[0]
    A = stacked(A, n)
    b = right_hand_side(b, A.shape[0])
    parts = kinds(blocks, n)
    entries = upper(C, A, parts)
    starts = np.cumsum([0, *(size for _, size in parts)])
    order = sorted(range(len(parts)), key=lambda p: ("free", "nonneg", "psd").index(parts[p][0]))  # stable
    rows = np.concatenate([np.arange(starts[p], starts[p + 1]) for p in order])
    lengths = {kind: sum(size for other, size in parts if other == kind) for kind in ("free", "nonneg")}
    linear, sizes = lengths["free"] + lengths["nonneg"], [parts[p][1] for p in order if parts[p][0] == "psd"]
    length = linear + sum(size * size for size in sizes)
    if length >= 2**31:
        raise ValueError(f"x would have {length} entries; fewer than 2**31 are needed by the format; use write_sdpa")
    place = np.empty(n, np.int64)
    place[rows] = np.arange(n)
    start, first, size = (np.concatenate((np.arange(linear), np.repeat(values, sizes))) for values in _columns(linear, sizes))
    size[:linear] = 1
    i, j = place[entries.i], place[entries.j]
    off = i != j
    at = [start[p] + (q - first[q]) * size[q] + (p - first[p]) for p, q in ((i, j), (j[off], i[off]))]
    number = np.concatenate((entries.number, entries.number[off]))
    x = sp.csc_array((np.concatenate((entries.value, entries.value[off])), (np.concatenate(at), number)), shape=(length, len(b) + 1))
    K = {"f": float(lengths["free"]), "l": float(lengths["nonneg"]), "s": np.array([sizes], float)}
    out = io.BytesIO()
    scipy.io.savemat(out, {"At": x[:, 1:], "b": b[:, None], "c": x[:, [0]], "K": K})
    # SciPy writes the date there: equal content gives equal files
    write_bytes(path, b"MATLAB 5.0 MAT-file, a semidefinite program for SeDuMi".ljust(116) + out.getvalue()[116:])
    return rows


def _columns(linear: int, sizes: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each semidefinite block: where its entries start in x, its first row, its size."""
    size = np.array(sizes, np.int64)
    return linear + np.cumsum(size * size) - size * size, linear + np.cumsum(size) - size, size


def _vector(path: Path, name: str, value: Any) -> np.ndarray:
    if sp.issparse(value) and 1 in value.shape and max(value.shape) <= max(10**7, 100 * value.nnz):
        value = value.toarray()
    if not isinstance(value, np.ndarray) or 1 not in value.shape or not np.isfinite(value).all():
        given = f"{name} of shape {value.shape}" if hasattr(value, "shape") else f"{name} of another kind"
        raise FormatError(path, None, given, "a vector of finite real numbers is needed", _SAVE)
    return value.ravel().astype(float)


def _matrix(path: Path, name: str, value: Any) -> sp.coo_array:
    if not (sp.issparse(value) or isinstance(value, np.ndarray)):
        raise FormatError(path, None, f"{name} is no matrix", "a matrix of real numbers is needed", _SAVE)
    return sp.coo_array(value)


def _sizes(path: Path, name: str, value: Any) -> list[int]:
    """Positive integers; zeros and empty fields mean nothing there."""
    if sp.issparse(value) and value.shape[0] <= 1:
        value = value.toarray()
    if not isinstance(value, np.ndarray) or not ((value >= 0) & (value % 1 == 0) & (value < 2**31)).all():
        raise FormatError(path, None, f"{name} holds no sizes", "integers >= 0 are needed", _SAVE)
    return [int(size) for size in value.ravel(order="F") if size]


def _sedumi(path: Path, found: dict[str, Any], m: int) -> tuple[list[tuple[str, int]], Entries]:
    blocks = _cones(path, found["K"])
    linear, sizes = sum(size for kind, size in blocks if kind != "psd"), [size for kind, size in blocks if kind == "psd"]
    length, n = linear + sum(size * size for size in sizes), linear + sum(sizes)
    name = "At" if "At" in found else "A"
    c = found.get("c", found.get("C"))
    if name not in found or c is None:
        raise FormatError(path, None, f"no {'c' if c is None else 'A or At'}", "A or At, b, c and K are needed", _SAVE)
    A, c = _matrix(path, name, found[name]), _matrix(path, "c", c)
    if name == "A" and A.shape == (m, length) or A.shape != (length, m):
        A = A.T
    if A.shape != (length, m) or c.shape not in ((length, 1), (1, length)):
        given = f"{name} of shape {found[name].shape} and c of shape {c.shape}"
        raise FormatError(path, None, given, f"{m} constraints, as in b, on {length} entries, as in K, are needed", _SAVE)
    check_size(path, None, n, A.nnz + c.nnz)
    at = np.concatenate((np.maximum(c.row, c.col), A.row)).astype(np.int64)
    number = np.concatenate((np.zeros(c.nnz, np.int64), A.col.astype(np.int64) + 1))
    start, first, size = _columns(linear, sizes)
    i, j = at.copy(), at.copy()
    inside = at >= linear
    block = np.searchsorted(start, at[inside], "right") - 1
    column, row = np.divmod(at[inside] - start[block], size[block])
    i[inside], j[inside] = first[block] + row, first[block] + column
    return blocks, _halves(number, i, j, np.concatenate((c.data, A.data)))


def _cones(path: Path, K: Any) -> list[tuple[str, int]]:
    if not isinstance(K, dict):
        raise FormatError(path, None, "K is no struct", "a struct with K.f, K.l and K.s is needed", _SAVE)
    sizes = {name: _sizes(path, f"K.{name}", value) for name, value in K.items()}
    for name, values in sizes.items():
        if values and name not in ("f", "l", "s"):
            kind = _OTHER_CONES.get(name, "complex" if name in _COMPLEX else "unknown")
            remedy = "write the cone as a semidefinite block" if name in _OTHER_CONES else "write the problem with real blocks"
            raise FormatError(path, None, f"{kind} cones, K.{name} = {values[:5]}", "K.f, K.l and K.s alone are read", remedy)
    f, l = (sum(sizes.get(name, [])) for name in "fl")
    blocks = [("free", f)] * bool(f) + [("nonneg", l)] * bool(l) + [("psd", size) for size in sizes.get("s", [])]
    if not blocks:
        raise FormatError(path, None, "K without a cone", "K.f, K.l or K.s is needed", _SAVE)
    return blocks


def _halves(number: np.ndarray, i: np.ndarray, j: np.ndarray, value: np.ndarray) -> Entries:
    """The upper triangles of ``(M + M.T) / 2``, entries in one place summed."""
    low, high = np.minimum(i, j), np.maximum(i, j)
    value = np.where(i == j, value, value / 2)
    order = np.lexsort((high, low, number))
    number, low, high, value = number[order], low[order], high[order], value[order]
    new = np.ones(number.size, bool)
    new[1:] = (np.diff(number) != 0) | (np.diff(low) != 0) | (np.diff(high) != 0)
    with np.errstate(over="ignore", invalid="ignore"):  # seen by the caller
        total = np.add.reduceat(value, np.flatnonzero(new)) if value.size else value
    return Entries(number[new], low[new], high[new], total)


def _sdpt3(path: Path, found: dict[str, Any], m: int) -> tuple[list[tuple[str, int]], Entries]:
    blk, At, C = (found[name] if isinstance(found[name], Cell) else Cell((1, 1), [found[name]]) for name in ("blk", "At", "C"))
    p = blk.shape[0]
    if not isinstance(found["blk"], Cell) or blk.shape[1] < 2 or len(C.items) != p or At.shape[0] != p or At.shape[1] not in (1, m):
        given = f"cell arrays blk {blk.shape}, At {At.shape} and C {C.shape}"
        raise FormatError(path, None, given, "blk p x 2, At p x 1 (or p x m) and C p x 1 are needed", _SAVE)
    if any(not _empty(item) for item in blk.items[2 * p :]):
        raise FormatError(path, None, "constraints of low rank, blk of 3 columns", "At as matrices is needed", "expand them")
    blocks: list[tuple[str, int]] = []
    pieces, first = [], 0
    for q in range(p):
        kind = {"s": "psd", "l": "nonneg", "u": "free"}.get(blk.items[q]) if isinstance(blk.items[q], str) else None
        sizes = _sizes(path, f"blk{{{q + 1}, 2}}", blk.items[p + q])
        if kind is None or not sizes:
            given = f"blk{{{q + 1}, 1}} = {blk.items[q] if isinstance(blk.items[q], str) else '?'!r} of size {sizes[:5]}"
            raise FormatError(path, None, given, "'s', 'l' or 'u', and sizes, are needed", "write other cones as semidefinite blocks")
        n = sum(sizes)
        blocks += [(kind, size) for size in sizes] if kind == "psd" else [(kind, n)]
        check_size(path, None, first + n, 10**5)
        columns = [At.items[q + p * k] for k in range(At.shape[1])]
        pieces += [_square(path, f"C{{{q + 1}}}", C.items[q], 0, first, kind, n)]
        if At.shape[1] == 1:
            pieces += [_svec(path, f"At{{{q + 1}}}", columns[0], m, first, kind, sizes)]
        else:
            pieces += [_square(path, f"At{{{q + 1}, {k + 1}}}", matrix, k + 1, first, kind, n) for k, matrix in enumerate(columns)]
        first += n
    return blocks, _halves(*(np.concatenate(arrays) for arrays in zip(*pieces, strict=True)))


def _empty(item: Any) -> bool:
    return hasattr(item, "shape") and 0 in item.shape


def _square(path: Path, name: str, value: Any, number: int, first: int, kind: str, n: int) -> Entries:
    """A matrix of a block, n x n, or the vector of a linear one."""
    matrix = _matrix(path, name, value)
    if matrix.shape != (n, n) and not (kind != "psd" and matrix.shape in ((n, 1), (1, n))):
        raise FormatError(path, None, f"{name} of shape {matrix.shape}", f"blk says {n} rows", _SAVE)
    i, j = matrix.row.astype(np.int64), matrix.col.astype(np.int64)
    if kind != "psd":
        if matrix.shape == (n, n) and (i != j).any():
            raise FormatError(path, None, f"{name}, not diagonal", "a vector or a diagonal is needed for 'l' and 'u'", _SAVE)
        i = j = np.maximum(i, j)
    return Entries(np.full(i.size, number), i + first, j + first, matrix.data)


def _svec(path: Path, name: str, value: Any, m: int, first: int, kind: str, sizes: list[int]) -> Entries:
    """Columns ``svec(A_k)``: the upper triangle column by column, off-diagonal entries times sqrt(2)."""
    matrix = _matrix(path, name, value)
    counts = [size * (size + 1) // 2 for size in sizes] if kind == "psd" else sizes
    if matrix.shape != (sum(counts), m):
        needed = f"{sum(counts)} x {m} is needed, from blk and b"
        raise FormatError(path, None, f"{name} of shape {matrix.shape}", needed, _SAVE)
    at, number = matrix.row.astype(np.int64), matrix.col.astype(np.int64) + 1
    if kind != "psd":
        return Entries(number, at + first, at + first, matrix.data)
    lengths = np.array(counts)
    block = np.searchsorted(np.cumsum(lengths), at, "right")
    at = at - (np.cumsum(lengths) - lengths)[block]
    column = ((np.sqrt(8.0 * at + 1) - 1) / 2).astype(np.int64)
    column += (column + 1) * (column + 2) // 2 <= at  # a root rounded down
    column -= column * (column + 1) // 2 > at
    row, corner = at - column * (column + 1) // 2, first + (np.cumsum(sizes) - sizes)[block]
    off = row != column
    value = np.where(off, matrix.data / np.sqrt(2.0), matrix.data)
    twice = (np.concatenate((array, array[off])) for array in (number, row + corner, column + corner, value))  # `_halves` halves them
    return Entries(*twice)
