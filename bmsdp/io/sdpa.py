"""Semidefinite programs in the sparse SDPA format (.dat-s), as in SDPLIB.

Comment lines that begin with ``"`` or ``*``; then m, the number of blocks, their sizes (negative: diagonal), the m numbers c,
and one line ``matrix block i j value`` for each nonzero entry on or above the diagonal of F_0 ... F_m. It states the pair

    (P)  min c.x,  F_1 x_1 + ... + F_m x_m - F_0 >= 0        (D)  max <F_0, X>,  <F_i, X> = c_i,  X >= 0,

of which (D) is ours: ``C = -F_0``, ``A_i = F_i``, ``b = c``, ``x = -dual``.
"""

import os
import re
import warnings
from typing import Any, NoReturn

import numpy as np
import scipy.sparse as sp

from .blocks import Entries, kinds, mirrored, right_hand_side, square, stacked, upper
from .errors import FormatError
from .text import check_size, number, read_bytes, read_table, show, write_bytes

Path = str | os.PathLike[str]

_BLANKS = bytes.maketrans(b"{}(),", b"     ")
_INTEGER = re.compile(rb"\s*([+-]?\d{1,18})(?![\w.+-])")
_PLAIN = re.compile(rb"\s*\d+(?:\s+\d+){3}\s+[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d{1,2})?\s*")  # nearly all lines, checked at once
_NO_TEXT = re.compile(rb"[^\t-\r -~]")
_ENTRY = "an entry `matrix block i j value` is needed"
_CORRECT = "correct the line"
_CHECK = "check that this is a sparse SDPA file"


def read_sdpa(path: Path) -> tuple[sp.csr_array, sp.csr_array, np.ndarray, dict[str, Any]]:
    """Read ``max <F_0, X>, <F_i, X> = c_i``: ``C = -F_0``, ``A_i = F_i``, ``b = c``.

    Parameters
    ----------
    path : path-like
        The file, plain or gzip. An entry given twice is summed, with a UserWarning that counts them and names the first
        line; an entry below the diagonal is mirrored; both triangles of one matrix entry are refused.

    Returns
    -------
    C : csr_array, n x n
    A : csr_array, m x n^2
        Row i is ``A_i.ravel()``. Explicit zeros of the file are left out, here and in C.
    b : ndarray, (m,)
    meta : dict
        ``format "sdpa"``, ``sense "max"`` (the file's value is ``offset - <C, X>``), ``offset 0.0``, ``kind "sdp"``, ``n``,
        ``m``, ``blocks`` (sizes as in the file: s for a semidefinite block, -l for l nonnegative variables on the diagonal),
        ``entries`` (lines of the file), ``duplicates`` (how many of them).

    Raises
    ------
    FormatError
        (a ValueError) naming file, line and remedy.
    OSError
        If the file cannot be read.

    Notes
    -----
    Linear time but for sorting. Memory: about 200 bytes per entry.
    """
    if os.fspath(path).lower().removesuffix(".gz").endswith(".dat"):
        needed, remedy = "the sparse one (.dat-s) is needed", "convert it; a file that is sparse all the same must be named .dat-s"
        raise FormatError(path, None, "the dense SDPA format (.dat)", needed, remedy)
    data = read_bytes(path)
    m, blocks, start, above, where = _header(path, data)
    b, values, lines = vector_and_entries(path, data[start:], above, m, "c")
    n = sum(map(abs, blocks))
    check_size(path, where, n, lines.size)
    found = entries_on_blocks(path, values, lines, m, blocks)
    duplicates = lines.size - found.value.size
    if not np.isfinite(found.value).all():
        raise FormatError(path, None, "entries whose sum overflows", "finite entries are needed", "correct the duplicates")
    C, A = mirrored(found, n, m)
    C.data *= -1
    meta = {"format": "sdpa", "sense": "max", "offset": 0.0, "kind": "sdp", "n": n, "m": m}
    return C, A, b, meta | {"blocks": blocks, "entries": lines.size, "duplicates": duplicates}


def write_sdpa(path: Path, C: Any, A: Any, b: Any, blocks: Any = None, comment: str = "") -> None:
    """Write ``min <C, X>, A(X) = b`` so that reading gives the same numbers back.

    Parameters
    ----------
    path : path-like
        The file; compressed if its name ends in ``.gz``.
    C : array or sparse, n x n
    A : sequence of n x n matrices, or m x n^2 sparse array
    b : array_like, (m,)
        All real, finite and, matrices, symmetric.
    blocks : list, optional
        ``s > 0`` for a semidefinite block, ``-l`` or ``("nonneg", l)`` for l nonnegative variables; one block of n when None.
        The format has no free variables: write x = u - v with u, v >= 0, or use `bmsdp.io.sedumi.write_sedumi`.
    comment : str
        For the first lines.

    Raises
    ------
    ValueError
        If the data are not of this kind.
    """
    C = square(C)
    n = C.shape[0]
    A = stacked(A, n)
    m = A.shape[0]
    b = right_hand_side(b, m)
    if m == 0:
        raise ValueError("A holds no matrix; the format needs m >= 1; add a constraint, such as a bound on the trace with a slack")
    parts = kinds(blocks, n)
    if any(kind == "free" for kind, _ in parts):
        raise ValueError("blocks holds free variables; the format has none; split each into two nonnegative ones, or use write_sedumi")
    k, i, j, value = upper(C, A, parts)
    sizes = np.array([size for _, size in parts])
    first = np.cumsum(sizes) - sizes
    block = np.repeat(np.arange(len(parts)), sizes)[i]
    rows = zip(k.tolist(), (block + 1).tolist(), (i - first[block] + 1).tolist(), (j - first[block] + 1).tolist(),
               map(shortest, np.where(k == 0, -value, value).tolist()), strict=True)  # fmt: skip
    head = "".join(f'" {line}\n' for line in comment.splitlines())
    head += f"{m}\n{len(parts)}\n{' '.join(str(size if kind == 'psd' else -size) for kind, size in parts)}\n"
    body = "".join(f"{k} {block} {i} {j} {value}\n" for k, block, i, j, value in rows) or "0 1 1 1 0\n"
    write_bytes(path, f"{head}{' '.join(map(shortest, b.tolist()))}\n{body}".encode())


def vector_and_entries(path: Path, text: bytes, above: int, m: int, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """M numbers over any lines, then lines of five: the numbers, the fives, and the lines of the file they stand on."""
    body = text.translate(_BLANKS)
    table = read_table(body)
    if table is None:
        _diagnose(path, body, above, m, name)
    ends = np.cumsum(table.tokens)
    if (not ends.size or ends[-1] < m) and np.isfinite(table.values).all():
        row = max(1, above + body.removesuffix(b"\n").count(b"\n") + bool(body))
        _ends_early(path, row, int(ends[-1]) if ends.size else 0, m, name)
    last = int(np.searchsorted(ends, m))  # of the lines of the vector
    if last >= ends.size or ends[last] != m or (table.tokens[last + 1 :] != 5).any() or not np.isfinite(table.values).all():
        _diagnose(path, body, above, m, name)
    return table.values[:m].astype(float), table.values[m:].reshape(-1, 5), table.lines[last + 1 :] + above


def shortest(value: float) -> str:
    """The shortest decimal number that is read as ``value``."""
    return repr(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


def _header(path: Path, data: bytes) -> tuple[int, list[int], int, int, int]:
    """m, the block sizes, where the rest begins, how many lines are above it, and the line of the sizes."""
    wanted = ["m", "the number of blocks"]
    found: list[int] = []
    sizes: list[int] = []
    start = row = 0
    if not data.strip():
        raise FormatError(path, 1, "an empty file", "m, blocks, c and entries are needed", _CHECK)
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        line, row = data[start:end], row + 1
        start = end
        if line.lstrip()[:1] in (b"", b'"', b"*"):
            continue
        if bad := _NO_TEXT.search(line):
            raise FormatError(path, row, f"byte 0x{bad[0].hex()}", "plain text is needed", _CHECK)
        line, at = line.translate(_BLANKS), 0
        while len(found) < 2 or len(sizes) < found[1]:
            name = wanted[len(found)] if len(found) < 2 else "a block size"
            match = _INTEGER.match(line, at)
            if match is None and line[at:].strip():
                given = f"{show(*line[at:].split())} for {name}"
                raise FormatError(path, row, given, "an integer is needed", _CHECK)
            if match is None:
                break
            value, at = int(match[1]), match.end()
            if len(found) == 2:
                sizes.append(_size(path, row, value))
                continue
            if value < 1:
                raise FormatError(path, row, f"{name} is {value}", "at least 1 is needed", _CHECK)
            found.append(value)
            break
        if line[at:].split() and number(line[at:].split()[0]) is not None:  # beyond the numbers, only text is let through
            what = "a line of its own" if len(found) < 2 or not sizes else f"{found[1]} block sizes, as announced,"
            raise FormatError(path, row, f"{show(*line[at:].split())} after the numbers", f"{what} is needed", _CORRECT)
        if len(found) == 2 and len(sizes) == found[1]:
            return found[0], sizes, start, row, row
    name = wanted[len(found)] if len(found) < 2 else f"block size {len(sizes) + 1} of {found[1]}"
    raise FormatError(path, row, f"the file ends before {name}", "a whole file is needed", "fetch it again")


def _size(path: Path, row: int, value: int) -> int:
    if value == 0:
        raise FormatError(path, row, "block size 0", "s > 0, or -l < 0 for a diagonal block, is needed", _CORRECT)
    return value


def _diagnose(path: Path, body: bytes, above: int, m: int, name: str) -> NoReturn:
    """Read line by line, slowly, up to the first line that is wrong, and say so."""
    seen = entries = 0
    row = above
    for row, line in enumerate(body.removesuffix(b"\n").split(b"\n"), above + 1):
        if seen == m and _PLAIN.fullmatch(line):
            entries += 1
            continue
        if bad := _NO_TEXT.search(line):
            raise FormatError(path, row, f"byte 0x{bad[0].hex()}", "plain text is needed", _CHECK)
        tokens = line.split()
        if not tokens:
            continue
        needed = _ENTRY if seen == m else f"numbers are needed for {name}, {m} in all"
        if seen == m and len(tokens) != 5:
            raise FormatError(path, row, f"{len(tokens)} tokens, {show(*tokens)}", needed, _CORRECT)
        for token in tokens:
            value = number(token)
            if value is None or not np.isfinite(value):
                raise FormatError(path, row, f"{show(token)}, not a finite number", needed, _CORRECT)
        if seen == m:
            entries += 1
            continue
        seen += len(tokens)
        if seen > m:
            given = f"{seen} numbers for {name} up to this line"
            raise FormatError(path, row, given, f"m = {m} are needed, then a new line", f"correct m, or {name}")
    if seen < m:
        _ends_early(path, row, seen, m, name)
    raise FormatError(path, None, "numbers that cannot be read", _ENTRY, "report this file")


def _ends_early(path: Path, row: int, seen: int, m: int, name: str) -> NoReturn:
    given, remedy = f"the file ends after {seen} numbers of {name}", "fetch the whole file, or correct m"
    raise FormatError(path, row, given, f"m = {m} are needed", remedy)


def entries_on_blocks(path: Path, values: np.ndarray, lines: np.ndarray, m: int, blocks: list[int]) -> Entries:
    """The entries, checked, from 0, on or above the diagonal; those given twice are summed."""
    if not lines.size:
        raise FormatError(path, None, "no entries", "at least one is needed", "fetch the whole file")

    def refuse(wrong: np.ndarray, text: str, needed: str) -> None:
        if wrong.any():
            p = int(np.argmax(wrong))
            k, block, i, j, size = (int(v) if v % 1 == 0 else v for v in (*values[p, :4].tolist(), float(sizes[p]) if sizes.size else 0.0))
            shown = {"k": k, "block": block, "i": i, "j": j, "size": abs(size), "m": m, "blocks": len(blocks)}
            raise FormatError(path, int(lines[p]), text.format(**shown), needed.format(**shown), _CORRECT)

    sizes = np.empty(0)
    if values.dtype.kind == "f":
        fractional = (values[:, :4] % 1 != 0).any(axis=1)
        refuse(fractional, "`{k} {block} {i} {j}` as matrix, block, row and column", "integers are needed")
    refuse((values[:, 0] < 0) | (values[:, 0] > m), "matrix {k}", "a number from 0 to m = {m} is needed")
    refuse((values[:, 1] < 1) | (values[:, 1] > len(blocks)), "block {block}", "a number from 1 to {blocks} is needed")
    block = values[:, 1].astype(np.int64) - 1
    sizes = np.array(blocks)[block]
    for column, name in ((2, "row {i}"), (3, "column {j}")):
        wrong = (values[:, column] < 1) | (values[:, column] > abs(sizes))
        refuse(wrong, name + " in block {block}", "a number from 1 to its size {size} is needed")
    refuse((sizes < 0) & (values[:, 2] != values[:, 3]), "({i}, {j}) in the diagonal block {block}", "i = j is needed")
    first = np.cumsum(np.abs(blocks)) - np.abs(blocks)
    k = values[:, 0].astype(np.int64)
    i, j = (first[block] + values[:, column].astype(np.int64) - 1 for column in (2, 3))
    return _merged(path, k, i, j, values[:, 4].astype(float), lines)


def _merged(path: Path, k: np.ndarray, i: np.ndarray, j: np.ndarray, value: np.ndarray, lines: np.ndarray) -> Entries:
    low, high = np.minimum(i, j), np.maximum(i, j)
    order = np.lexsort((high, low, k))  # stable: lines keep their order
    k, low, high, below, value, lines = k[order], low[order], high[order], (i > j)[order], value[order], lines[order]
    new = np.ones(k.size, bool)
    new[1:] = (np.diff(k) != 0) | (np.diff(low) != 0) | (np.diff(high) != 0)
    if new.all():
        return Entries(k, low, high, value)
    again = np.flatnonzero(~new)
    both = again[below[again] != below[again - 1]]
    if both.size:
        p = both[np.argmin(lines[both])]
        given = f"matrix {k[p]}, whose other triangle was given in line {lines[p - 1]}"
        raise FormatError(path, int(lines[p]), given, "one triangle, the upper one, is needed", "leave the other one out")
    text = f"{again.size} entries given twice, summed (first at this line)"
    warnings.warn(f"{os.fspath(path)}:{lines[again].min()}: {text}", UserWarning, stacklevel=5)
    with np.errstate(over="ignore", invalid="ignore"):  # seen by the caller
        return Entries(k[new], low[new], high[new], np.add.reduceat(value, np.flatnonzero(new)))
