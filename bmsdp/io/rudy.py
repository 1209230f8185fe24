"""MaxCut graphs in the rudy format, as in the G-set.

The first line is ``n m``; each of the m following is ``i j w``, an edge between the vertices i and j (from 1 to n) of
weight w, or ``i j`` for w = 1. Blank lines are accepted anywhere, and gzip.
"""

import io
import os
import re
import warnings
from typing import Any, NoReturn

import numpy as np
import scipy.sparse as sp

from .errors import FormatError
from .text import check_size, number, read_bytes, read_table, show, write_bytes

_NO_TEXT = re.compile(rb"[^\t-\r -~]")
_PLAIN = re.compile(rb"(\d{1,10})[ \t]+(\d{1,10})(?:[ \t]+-?\d{1,18})?[\r\n]*")  # nearly all lines, checked at once
_EDGE = "an edge `i j w` or `i j` is needed"
_CHECK = "check that this is a rudy graph file"
Path = str | os.PathLike[str]


def read_rudy(path: Path) -> tuple[sp.csr_array, None, None, dict[str, Any]]:
    """Read a MaxCut graph: ``C = -L/4`` with L its Laplacian.

    Then ``min <C, X>, diag X = 1, X ⪰ 0`` is the negative of the relaxation ``max <L, X>/4``, an upper bound of the
    maximum cut.

    Parameters
    ----------
    path : path-like
        The file, plain or gzip. Duplicate edges, ``j i`` after ``i j`` included, are summed; self-loops, which no cut
        contains, are left out; either with a UserWarning that counts them and names the first line.

    Returns
    -------
    C : csr_array, n × n
        float64, int32 indices, sorted, every diagonal entry stored (0 for isolated vertices).
    A, b : None
        Unit diagonal.
    meta : dict
        ``format "rudy"``, ``sense "max"`` (the file's value is ``offset - <C, X>``), ``offset 0.0``,
        ``kind "maxcut"``, ``n``, ``edges`` (as announced), ``duplicates`` and ``self_loops`` (how many of the edges).

    Raises
    ------
    FormatError
        (a ValueError) naming file, line and remedy.
    OSError
        If the file cannot be read.

    Notes
    -----
    Linear time; numbers that are no integers take longer to read. Memory: at most about 140 bytes per edge.
    """
    n, i, j, w, lines = _parse(path, read_bytes(path))
    edges = w.size
    proper = i != j
    loops = edges - int(np.count_nonzero(proper))
    if loops:
        _warn(path, lines[np.argmin(proper)], f"{loops} self-loop(s), which no cut contains, left out")
        i, j, w, lines = i[proper], j[proper], w[proper], lines[proper]
    C = _minus_quarter_laplacian(n, i, j, w)
    duplicates = (2 * w.size + n - C.nnz) // 2
    if duplicates:
        i, j, w, first = _merged(n, i, j, w)
        _warn(path, lines[first], f"{duplicates} duplicate edge(s), weights summed")
        C = _minus_quarter_laplacian(n, i, j, w)
    if not np.isfinite(C.data).all():
        remedy = "scale the weights"
        raise FormatError(path, 1, "weights whose sum at a vertex overflows", "finite sums are needed", remedy)
    meta = {"format": "rudy", "sense": "max", "offset": 0.0, "kind": "maxcut", "n": n, "edges": edges}
    return C, None, None, meta | {"duplicates": duplicates, "self_loops": loops}


def write_rudy(path: Path, W: Any) -> None:
    """Write the graph of a symmetric weight matrix.

    Parameters
    ----------
    path : path-like
        The file; compressed if its name ends in ``.gz``.
    W : array or sparse, n × n
        Weights: real, symmetric, finite, zero on the diagonal. Entries that are 0 are no edges. Written so that reading
        gives the same float64 back.

    Raises
    ------
    ValueError
        If W is not such a matrix.
    """
    W = sp.coo_array(W)
    if W.ndim != 2 or W.shape[0] != W.shape[1] or W.shape[0] == 0:
        raise ValueError(
            f"W has shape {W.shape}; a square matrix with n >= 1 is needed; pass the weight matrix of a graph"
        )
    if W.dtype.kind not in "biuf" or not np.isfinite(W.data).all():
        raise ValueError(f"W ({W.dtype}) is complex, or NaN, or infinite; finite real weights are needed; correct W")
    W = sp.csr_array(W, dtype=np.float64)
    if W.diagonal().any():
        raise ValueError("W has a nonzero diagonal; a graph without self-loops is needed; set the diagonal to 0")
    if abs(W - W.T).max() > 0:
        raise ValueError("W is not symmetric; an undirected graph is needed; pass (W + W.T) / 2 if that is meant")
    upper = sp.triu(W, 1, format="coo")
    upper.eliminate_zeros()
    weights = (repr(int(w)) if w.is_integer() and abs(w) < 2**53 else repr(w) for w in upper.data.tolist())
    triples = zip((upper.row + 1).tolist(), (upper.col + 1).tolist(), weights, strict=True)
    body = "".join(f"{i} {j} {w}\n" for i, j, w in triples)
    write_bytes(path, f"{W.shape[0]} {upper.nnz}\n{body}".encode())


def _parse(path: Path, data: bytes) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """n, the ends i and j (from 0), weight and line of each edge. Whatever is odd is left to `_diagnose`."""
    table = read_table(data)
    if table is None:
        _diagnose(path, data)
    values, tokens, lines = table
    if tokens.size == 0 or tokens[0] != 2 or tokens[1:].min(initial=2) < 2 or tokens[1:].max(initial=2) > 3:
        _diagnose(path, data)
    first = np.cumsum(tokens)[:-1]
    n, m = values[:2].tolist()
    if not (n >= 1 and n % 1 == 0 and m == first.size):
        _diagnose(path, data)
    n = int(n)
    check_size(path, int(lines[0]), n, first.size)
    ends = values[first], values[first + 1]
    w = np.ones(first.size)
    weighted = tokens[1:] == 3
    w[weighted] = values[first[weighted] + 2]
    if not np.isfinite(w).all():
        _diagnose(path, data)
    for end in ends:
        if end.size and not (end.min() >= 1 and end.max() <= n and (end.dtype.kind == "i" or (end % 1 == 0).all())):
            _diagnose(path, data)
    i, j = ((end - 1).astype(np.int32) for end in ends)
    return n, i, j, w, lines[1:]


def _minus_quarter_laplacian(n: int, i: np.ndarray, j: np.ndarray, w: np.ndarray) -> sp.csr_array:
    # integer weights below 2⁵¹ stay exact: the factor is a power of two
    w = w * 0.25
    degree = np.bincount(i, w, n) + np.bincount(j, w, n)
    diagonal = np.arange(n, dtype=np.int32)
    rows, cols = np.concatenate((i, j, diagonal)), np.concatenate((j, i, diagonal))
    C = sp.csr_array((np.concatenate((w, w, 0.0 - degree)), (rows, cols)), shape=(n, n))
    C.sum_duplicates()
    return C


def _merged(n: int, i: np.ndarray, j: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Distinct edges with summed weights (one sum per edge: C stays symmetric), and where the first duplicate stood."""
    key = np.minimum(i, j).astype(np.int64) * n + np.maximum(i, j)
    distinct, seen, inverse = np.unique(key, return_index=True, return_inverse=True)
    again = np.ones(key.size, dtype=bool)
    again[seen] = False
    low, high = np.divmod(distinct, n)
    return low.astype(np.int32), high.astype(np.int32), np.bincount(inverse, w), int(np.argmax(again))


def _warn(path: Path, line: int, what: str) -> None:
    warnings.warn(f"{os.fspath(path)}:{line}: {what} (first at this line)", UserWarning, stacklevel=3)


def _diagnose(path: Path, data: bytes) -> NoReturn:
    """Read line by line, slowly, up to the first line that is wrong, and say so."""
    n, m = 0, None
    seen = row = 0
    for row, line in enumerate(io.BytesIO(data), 1):
        plain = _PLAIN.fullmatch(line)
        if plain and m is not None and seen < m and 1 <= int(plain[1]) <= n and 1 <= int(plain[2]) <= n:
            seen += 1
            continue
        tokens = line.split()
        if not tokens:
            continue
        if bad := _NO_TEXT.search(line):
            raise FormatError(path, row, f"byte 0x{bad[0].hex()}", "plain text is needed", _CHECK)
        if m is None:
            n, m = _header(path, row, tokens)
            continue
        seen += 1
        if seen > m:
            given = f"edge {seen} after a header that announces {m}"
            raise FormatError(path, row, given, f"{m} edges are needed", "correct the header or remove the rest")
        _check_edge(path, row, tokens, n)
    if m is None:
        raise FormatError(path, 1, "an empty file", "a first line `n m` is needed", _CHECK)
    if seen < m:
        given = f"the file ends after {seen} of {m} edges"
        raise FormatError(path, row, given, f"{m - seen} more are needed", "fetch the whole file or correct the header")
    raise FormatError(path, None, "numbers that cannot be read", _EDGE, "report this file")


def _header(path: Path, row: int, tokens: list[bytes]) -> tuple[int, int]:
    values = [number(token) for token in tokens]
    n, m = values if len(values) == 2 else (None, None)
    if n is None or m is None or not (1 <= n < np.inf and 0 <= m < np.inf and n % 1 == m % 1 == 0):
        needed = "a first line `n m` with integers n >= 1 and m >= 0 is needed"
        raise FormatError(path, row, f"header {show(*tokens)}", needed, "write the numbers of vertices and edges there")
    check_size(path, row, int(n), max(int(m), 0))
    return int(n), int(m)


def _check_edge(path: Path, row: int, tokens: list[bytes], n: int) -> None:
    if len(tokens) not in (2, 3):
        raise FormatError(path, row, f"{len(tokens)} tokens, {show(*tokens)}", _EDGE, "correct the line")
    for token, name in zip(tokens, "ijw", strict=False):
        value = number(token)
        if value is None and token.lower().lstrip(b"+-") not in (b"nan", b"inf", b"infinity"):
            raise FormatError(path, row, f"{name} = {show(token)}, not a number", _EDGE, "correct the line")
        if name == "w":
            if value is None or not np.isfinite(value):
                raise FormatError(path, row, f"weight {show(token)}", "a finite weight is needed", "correct the line")
        elif value is None or value % 1 != 0:
            raise FormatError(path, row, f"{name} = {show(token)}", "an integer index is needed", "correct the line")
        elif not 1 <= value <= n:
            needed = f"an index from 1 to n = {n} is needed"
            raise FormatError(path, row, f"{name} = {show(token)}", needed, "correct the index, or n in the header")
