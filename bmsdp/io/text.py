"""What all formats share: reading and writing whole files, and tables of numbers in text, fast."""

import gzip
import io
import os
import re
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .errors import FormatError

MAX_N = 2**31 - 2  # indices, and the n + 1 row pointers, are int32
GZIP_LIMIT = 2**30  # bytes that gzip may always expand to; beyond, 200 per compressed one: text shrinks by less
NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

_BAD, _INTEGER, _FLOAT, _BLANK, _NEWLINE = range(5)


def _byte_classes() -> bytes:
    table = bytearray(256)
    for kind, chars in ((_INTEGER, b"0123456789+-"), (_FLOAT, b".eE"), (_BLANK, b" \t\r\v\f"), (_NEWLINE, b"\n")):
        for char in chars:
            table[char] = kind
    return bytes(table)


_CLASSES = _byte_classes()


class Table(NamedTuple):
    """The numbers of a text: all of them, how many stand on each line that is not blank, and which line that is."""

    values: np.ndarray
    tokens: np.ndarray
    lines: np.ndarray


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file, decompressed if it is gzip (told by its first bytes), without a UTF-8 byte order mark.

    Raises
    ------
    OSError
        Of the kind the system reports (FileNotFoundError, IsADirectoryError, ...), with a one-line message.
    FormatError
        If the file is gzip but damaged.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror or error
        message = f"{os.fspath(path)}: {reason}; a readable file is needed; check the path and its permissions"
        raise type(error)(message) from None
    if data.startswith(b"\x1f\x8b"):
        most = max(GZIP_LIMIT, 200 * len(data))
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
                data = file.read(most + 1)
        except (OSError, EOFError, zlib.error) as error:
            given = f"damaged gzip data ({error})".replace("\n", " ")
            raise FormatError(path, None, given, "a whole gzip file is needed", "fetch or compress it again") from None
        if len(data) > most:
            needed, remedy = f"at most {most} are needed", "decompress it yourself if it is no bomb"
            raise FormatError(path, None, "gzip data of more bytes than any such file", needed, remedy)
    return data.removeprefix(b"\xef\xbb\xbf")


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file, compressed if its name ends in ``.gz``."""
    # mtime=0: equal content gives equal files
    Path(path).write_bytes(gzip.compress(data, mtime=0) if os.fspath(path).endswith(".gz") else data)


def check_size(path: str | os.PathLike[str], line: int | None, n: int, entries: int) -> None:
    """Refuse, before any allocation, a size that a file with so few entries cannot mean.

    Ten million rows are always believed (they cost 0.2 GB); beyond that, a hundred rows per entry.
    """
    if n > MAX_N:
        raise FormatError(path, line, f"n = {n}", f"n <= 2**31 - 2 = {MAX_N} is needed", "correct the size")
    if n > max(10**7, 100 * entries):
        needed = "n <= max(10**7, 100 * entries) is needed"
        remedy = "correct the size, or leave out isolated vertices"
        raise FormatError(path, line, f"n = {n} with only {entries} entries", needed, remedy)


def number(token: bytes) -> float | None:
    """A number as `read_table` accepts it (infinite if beyond float64), else None: nan, inf, 0x10, 1_0, 1e."""
    return float(token) if NUMBER.fullmatch(token) else None


def show(*tokens: bytes) -> str:
    """Tokens as an error message quotes them, on one line and short."""
    text = b" ".join(tokens).decode("ascii", "backslashreplace")
    return f"`{text[:37]}...`" if len(text) > 40 else f"`{text}`"


def read_table(data: bytes) -> Table | None:
    """All numbers of a text, in about 5 bytes of memory per byte; None if it holds anything but numbers."""
    if not data.endswith(b"\n"):
        data += b"\n"
    kind = np.frombuffer(data.translate(_CLASSES), np.uint8)
    if not kind.all():
        return None
    tokens = _tokens_per_line(kind)
    lines = np.flatnonzero(tokens)
    tokens = tokens[lines]
    values = _numbers(data, bool((kind == _FLOAT).any())) if tokens.size else np.empty(0)
    # `1-2` is one token but two numbers
    return None if values is None or values.size != tokens.sum() else Table(values, tokens, lines + 1)


def _tokens_per_line(kind: np.ndarray) -> np.ndarray:
    inside = kind < _BLANK
    start = inside.copy()
    start[1:] &= ~inside[:-1]
    begin = np.concatenate(([0], np.flatnonzero(kind == _NEWLINE)[:-1] + 1))
    return np.add.reduceat(start.view(np.uint8), begin, dtype=np.int32)


def _numbers(data: bytes, fractional: bool) -> np.ndarray | None:
    """All numbers, as int64 (ten times faster to read) where that loses nothing; None if one is malformed."""
    for dtype in (np.float64,) if fractional else (np.int64, np.float64):
        try:
            values = np.fromstring(data, dtype=dtype, sep=" ")
        except (ValueError, DeprecationWarning):  # which of the two depends on NumPy's version and the warning filter
            return None
        if values.size and values.max() < 2**53 and values.min() > -(2**53):
            break
    return values
