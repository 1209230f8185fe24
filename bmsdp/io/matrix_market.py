"""A cost matrix C in Matrix Market form, for ``min <C, X>, diag X = 1, X ⪰ 0``."""

import io
import os
import re
import warnings
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse as sp

from .errors import FormatError
from .text import check_size, number, read_bytes, read_table, show, write_bytes

Path = str | os.PathLike[str]

_WIDTH = {"pattern": 0, "complex": 2}  # numbers of a value


def read_matrix_market(path: Path) -> tuple[sp.csr_array | np.ndarray, None, None, dict[str, Any]]:
    """Read a symmetric or Hermitian matrix as the cost of an SDP with unit diagonal.

    Parameters
    ----------
    path : path-like
        The file, plain or gzip; coordinate or array; real, integer, pattern (ones) or complex. Entries given twice are
        summed, with a UserWarning.

    Returns
    -------
    C : csr_array (coordinate) or ndarray (array), n × n
        float64 or complex128, equal to its own conjugate transpose.
    A, b : None
        Unit diagonal.
    meta : dict
        ``format "matrix-market"``, ``sense "min"``, ``offset 0.0``, ``kind "sdp-diag"``, ``n``, ``entries`` (lines of
        the file).

    Raises
    ------
    FormatError
        (a ValueError) naming file, line where there is one, and remedy.
    OSError
        If the file cannot be read.
    """
    data = read_bytes(path)
    n, entries, layout, field, symmetry = _header(path, data)
    values, lines = _entries(path, data, entries, 2 * (layout == "coordinate") + _WIDTH.get(field, 1))
    build = _sparse if layout == "coordinate" else _dense
    C = build(path, n, values, lines, field, symmetry)
    if not np.isfinite(C.data if sp.issparse(C) else C).all():
        raise FormatError(path, None, "a number beyond float64", "finite entries are needed", "scale the matrix")
    wrong = _asymmetry(C)
    if wrong:
        raise FormatError(path, None, *wrong)
    meta = {"format": "matrix-market", "sense": "min", "offset": 0.0, "kind": "sdp-diag"}
    return C, None, None, meta | {"n": n, "entries": entries}


def write_matrix_market(path: Path, W: Any) -> None:
    """Write a symmetric or Hermitian matrix, one triangle of it, so that reading gives the same numbers back.

    Parameters
    ----------
    path : path-like
        The file; compressed if its name ends in ``.gz``.
    W : array or sparse, n × n
        Finite, equal to its own conjugate transpose. Sparse matrices are written in coordinate form.

    Raises
    ------
    ValueError
        If W is not such a matrix.
    """
    W = sp.coo_array(W) if sp.issparse(W) else np.asarray(W)
    if W.ndim != 2 or W.shape[0] != W.shape[1] or W.shape[0] == 0:
        raise ValueError(f"W has shape {W.shape}; a square matrix with n >= 1 is needed; pass the cost matrix C")
    if W.dtype.kind not in "biufc":
        raise ValueError(f"W has dtype {W.dtype}; numbers are needed; pass a float64 or complex128 matrix")
    W = W.astype(np.complex128 if W.dtype.kind == "c" else np.float64)
    if not np.isfinite(W.data if sp.issparse(W) else W).all():
        raise ValueError("W has NaN or infinite entries; finite entries are needed; correct W")
    wrong = _asymmetry(sp.csr_array(W) if sp.issparse(W) else W)
    if wrong:
        raise ValueError("; ".join(("W: " + wrong[0], *wrong[1:])))
    if sp.issparse(W) and W.nnz == 0:  # SciPy calls a matrix without entries real
        W = sp.coo_array((np.zeros(1, W.dtype), ([0], [0])), shape=W.shape)
    out = io.BytesIO()
    field, symmetry = ("complex", "hermitian") if W.dtype.kind == "c" else ("real", "symmetric")
    scipy.io.mmwrite(out, W, field=field, symmetry=symmetry)
    write_bytes(path, out.getvalue())


def _header(path: Path, data: bytes) -> tuple[int, int, str, str, str]:
    """n, the number of entries of the file, layout, field and symmetry."""
    if not data.strip():
        needed = "a first line `%%MatrixMarket matrix ...` is needed"
        raise FormatError(path, 1, "an empty file", needed, "check that this is a Matrix Market file")
    try:
        rows, cols, entries, layout, field, symmetry = scipy.io.mminfo(io.BytesIO(data))
    except (ValueError, OverflowError) as error:
        found = re.match(r"Line (\d+): *(.*)", " ".join(str(error).split()))
        line, given = (int(found[1]), found[2]) if found else (None, "unreadable first lines")
        raise FormatError(path, line, given, "a Matrix Market file is needed", "correct the file") from None
    if rows != cols or rows < 1:
        given = f"a {rows} × {cols} matrix"
        raise FormatError(path, None, given, "a square one with n >= 1 is needed", "correct the size line")
    if symmetry == "skew-symmetric" or (symmetry == "symmetric" and field == "complex"):
        given, remedy = f"a {field} {symmetry} matrix", "declare it hermitian if that is meant"
        raise FormatError(path, 1, given, "a real symmetric or Hermitian one is needed", remedy)
    if layout == "array":
        entries = rows * rows if symmetry == "general" else rows * (rows + 1) // 2
    check_size(path, None, rows, entries)
    return rows, entries, layout, field, symmetry


def _entries(path: Path, data: bytes, entries: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the entries, one row each, and the lines they stand on.

    Read here, not by SciPy, whose reader crashes the process behind a malformed number (scipy issue 19949).
    """
    size = re.compile(rb"^[ \t]*[^%\s].*$", re.M).search(data)
    body = data[size.end() :] if size else b""
    above = data.count(b"\n", 0, size.end()) if size else 0
    table = read_table(body)
    if table is None or (table.tokens != width).any():
        for row, line in enumerate(body.split(b"\n"), above + 1):
            tokens = line.split()
            if tokens and (len(tokens) != width or None in map(number, tokens)):
                needed = f"{width} finite number(s) a line are needed"
                raise FormatError(path, row, show(*tokens), needed, "correct the line")
        raise FormatError(
            path, None, "numbers that cannot be read", "a Matrix Market file is needed", "report this file"
        )
    lines = table.lines + above
    if lines.size != entries:
        row = int(lines[entries]) if lines.size > entries else above + body.rstrip().count(b"\n") + 1
        given = f"{lines.size} entries where {entries} are announced"
        raise FormatError(path, row, given, f"{entries} are needed", "fetch the whole file or correct the size line")
    return table.values.reshape(-1, width), lines


def _numbers(values: np.ndarray, field: str) -> np.ndarray:
    if field == "pattern":
        return np.ones(len(values))
    if field == "complex":
        return np.ascontiguousarray(values[:, -2:], dtype=np.float64).view(np.complex128)[:, 0]
    return values[:, -1].astype(np.float64)


def _sparse(path: Path, n: int, values: np.ndarray, lines: np.ndarray, field: str, symmetry: str) -> sp.csr_array:
    ends = values[:, :2]
    wrong = ((ends < 1) | (ends > n) | (ends % 1 != 0)).any(axis=1)
    if wrong.any():
        k = int(np.argmax(wrong))
        given = f"the indices {ends[k, 0]:g}, {ends[k, 1]:g}"
        raise FormatError(path, int(lines[k]), given, f"integers from 1 to n = {n} are needed", "correct the line")
    i, j = (ends.T - 1).astype(np.int32)
    x = _numbers(values, field)
    if symmetry != "general":
        off = i != j
        i, j, x = np.r_[i, j[off]], np.r_[j, i[off]], np.r_[x, x[off].conj()]
    C = sp.csr_array((x, (i, j)), shape=(n, n))
    C.sum_duplicates()
    if C.nnz < x.size:
        warnings.warn(f"{os.fspath(path)}: {x.size - C.nnz} entries given twice, summed", UserWarning, stacklevel=3)
    return C


def _dense(path: Path, n: int, values: np.ndarray, lines: np.ndarray, field: str, symmetry: str) -> np.ndarray:
    x = _numbers(values, field)
    if symmetry == "general":
        return x.reshape(n, n).T.copy()
    C = np.empty((n, n), x.dtype)
    j, i = np.triu_indices(n)  # the lower triangle, column by column
    C[j, i] = x.conj()
    C[i, j] = x
    return C


def _asymmetry(C: Any) -> tuple[str, str, str] | None:
    """What is given, needed, and to do, if C (csr_array or ndarray) is not its own conjugate transpose."""
    difference = sp.coo_array(abs(C - C.conj().T))
    if difference.nnz == 0 or difference.data.max() == 0:
        return None
    worst = np.argmax(difference.data)
    place = f"({difference.row[worst]}, {difference.col[worst]})"
    name, star = ("Hermitian", "C.conj().T") if C.dtype.kind == "c" else ("symmetric", "C.T")
    given = f"not {name}: max |C - {star}| = {difference.data[worst]:.3g} at {place}, counted from 0"
    return given, f"a {name} matrix is needed", f"pass (C + {star}) / 2 if that is meant"
