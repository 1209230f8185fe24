"""MATLAB files of level 5 (MATLAB's ``save -v6`` and ``-v7``), real arrays, text, cells and structs.

Not by `scipy.io.loadmat`, which mutated files make crash the process (SciPy 1.17): here every length is checked against what
is left of the file before it is believed.
"""

import math
import os
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from . import text
from .errors import FormatError
from .text import read_bytes

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXT = {1: "utf-8", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _CHAR, _SPARSE, _NUMERIC = 1, 2, 4, 5, range(6, 16)
DEPTH = 4  # of nested cells and structs


class Cell(NamedTuple):
    """A cell array: its elements column by column."""

    shape: tuple[int, ...]
    items: list[Any]


class Part(NamedTuple):
    """An element of a file: its type, and where its bytes are."""

    kind: int
    data: memoryview


class _Damaged(ValueError):
    """What is wrong, for the caller to put into a FormatError."""


def read_mat(path: str | os.PathLike[str], names: set[str]) -> dict[str, Any]:
    """The variables of these names.

    Returns
    -------
    dict
        float64 ndarray (2-d), csc_array, str, `Cell`, or dict (a struct); None for what is none of these, such as objects.

    Raises
    ------
    FormatError
        naming the file.
    OSError
        If it cannot be read.
    """
    data = read_bytes(path)
    needed, remedy = "a MATLAB file of level 5 is needed", "save it with -v7"
    if not data:
        raise FormatError(path, None, "an empty file", needed, remedy)
    if data[:512].lstrip().startswith(b"\x89HDF") or data.startswith(b"MATLAB 7.3"):
        raise FormatError(path, None, "a MATLAB 7.3 (HDF5) file", needed, remedy)
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or data[124:126] not in (b"\x00\x01", b"\x01\x00"):
        raise FormatError(path, None, f"{len(data)} bytes without its header", needed, remedy)
    try:
        return dict(_variables(memoryview(data)[128:], order, names))
    except _Damaged as error:
        raise FormatError(path, None, str(error), "an undamaged MATLAB file is needed", "fetch it, or " + remedy) from None


def _variables(data: memoryview, order: str, names: set[str]) -> Iterator[tuple[str, Any]]:
    budget = max(text.GZIP_LIMIT, 200 * len(data))  # bytes after decompression: real data shrink less
    for part in _parts(data, order):
        if part.kind == _COMPRESSED:
            unpack = zlib.decompressobj()
            try:
                raw = unpack.decompress(part.data, budget)
            except zlib.error as error:
                raise _Damaged(f"damaged compression ({error})") from None
            if unpack.unconsumed_tail:
                raise _Damaged("a variable that decompresses beyond all measure")
            if not unpack.eof:
                raise _Damaged("a compressed variable that ends too early")
            budget -= len(raw)
            part = next(_parts(memoryview(raw), order), part)
        if part.kind == _MATRIX:
            name, value = _matrix(part.data, order, names, 0)
            if name in names:
                yield name, value


def _parts(data: memoryview, order: str) -> Iterator[Part]:
    at = 0
    while at < len(data):
        if len(data) - at < 8:
            raise _Damaged("a file that ends inside a tag")
        kind, size = struct.unpack_from(order + "II", data, at)
        if kind >> 16:  # a small element: type and length in 4 bytes, data in the next 4
            kind, size, start, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
            if size > 4:
                raise _Damaged(f"a small element of {size} bytes")
        else:
            start = at + 8
            after = start + size if kind == _COMPRESSED else start + (size + 7) // 8 * 8
        if start + size > len(data):
            raise _Damaged(f"an element of {size} bytes where {len(data) - start} are left")
        yield Part(kind, data[start : start + size])
        at = after


def _next(parts: Iterator[Part]) -> Part:
    part = next(parts, None)
    if part is None:
        raise _Damaged("a variable that ends too early")
    return part


def _array(part: Part, order: str) -> np.ndarray:
    if part.kind not in _NUMBERS:
        raise _Damaged(f"an element of type {part.kind} where numbers are expected")
    dtype = np.dtype(order + _NUMBERS[part.kind])
    if len(part.data) % dtype.itemsize:
        raise _Damaged(f"{len(part.data)} bytes for numbers of {dtype.itemsize}")
    return np.frombuffer(part.data, dtype)


def _matrix(data: memoryview, order: str, names: set[str] | None, depth: int) -> tuple[str, Any]:
    """Name and value; the value of a variable that is not among ``names`` is not looked at."""
    if not data:
        return "", np.empty((0, 0))
    parts = _parts(data, order)
    flags, shape = _array(_next(parts), order), tuple(_array(_next(parts), order).tolist())
    name = bytes(_next(parts).data).decode("latin-1")
    if names is not None and name not in names:
        return name, None
    if flags.size != 2 or len(shape) != 2 or not all(isinstance(s, int) and 0 <= s < 2**31 for s in shape):
        raise _Damaged(f"variable {name!r} of shape {shape}")
    kind, is_complex, size = int(flags[0]) & 0xFF, bool(int(flags[0]) & 0x800), math.prod(shape)
    if is_complex:
        raise _Damaged(f"complex numbers in {name!r}")
    if kind in _NUMERIC:
        values = _array(_next(parts), order)
        if values.size != size:
            raise _Damaged(f"{values.size} numbers in {name!r} of shape {shape}")
        return name, values.astype(np.float64).reshape(shape, order="F")
    if kind == _SPARSE:
        return name, _sparse(name, shape, *(_array(_next(parts), order) for _ in range(3)))
    if kind == _CHAR:
        part = _next(parts)
        code = _TEXT.get(part.kind, "latin-1")
        code += {"<": "-le", ">": "-be"}[order] if code in ("utf-16", "utf-32") else ""
        return name, bytes(part.data).decode(code, "replace")
    if kind not in (_CELL, _STRUCT):
        return name, None
    if depth == DEPTH:
        raise _Damaged(f"more than {DEPTH} levels of cells and structs")
    if kind == _CELL:
        if 8 * size > len(data):
            raise _Damaged(f"cell array {name!r} of shape {shape} in {len(data)} bytes")
        return name, Cell(shape, [_matrix(_inner(parts), order, None, depth + 1)[1] for _ in range(size)])
    return name, _struct(name, size, parts, order, depth)


def _inner(parts: Iterator[Part]) -> memoryview:
    part = _next(parts)
    if part.kind != _MATRIX:
        raise _Damaged(f"an element of type {part.kind} inside a cell or struct")
    return part.data


def _struct(name: str, size: int, parts: Iterator[Part], order: str, depth: int) -> dict[str, Any] | None:
    length, text = _array(_next(parts), order), bytes(_next(parts).data)
    if length.size != 1 or not 0 < length[0] < 1000 or len(text) % int(length[0]):
        raise _Damaged(f"struct {name!r} without field names")
    width = int(length[0])
    fields = [text[at : at + width].split(b"\0")[0].decode("latin-1") for at in range(0, len(text), width)]
    if size != 1:
        return None  # an array of structs
    return {field: _matrix(_inner(parts), order, None, depth + 1)[1] for field in fields}


def _sparse(name: str, shape: tuple[int, ...], rows: np.ndarray, ends: np.ndarray, values: np.ndarray) -> sp.csc_array:
    ends = ends.astype(np.int64) if ends.dtype.kind in "iu" else np.empty(0, np.int64)
    each = ends[1:] - ends[:-1]
    if ends.size != shape[1] + 1 or ends[0] != 0 or (each < 0).any():
        raise _Damaged(f"sparse array {name!r} with damaged columns")
    count = int(ends[-1])
    if rows.size < count or values.size < count or rows.dtype.kind not in "iu":
        raise _Damaged(f"sparse array {name!r} with {min(rows.size, values.size)} of {count} entries")
    rows = rows[:count].astype(np.int64)
    if count and (rows.min() < 0 or rows.max() >= shape[0]):
        raise _Damaged(f"sparse array {name!r} with a row beyond {shape[0]}")
    columns = np.repeat(np.arange(shape[1]), each)
    return sp.coo_array((values[:count].astype(np.float64), (rows, columns)), shape=shape).tocsc()
