"""Clauses in DIMACS form (`cnf`, and weighted `wcnf`), and the cost of the Max-2-SAT relaxation."""

import math
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from .errors import FormatError
from .text import check_size, number, read_bytes, show, write_bytes

Path = str | os.PathLike[str]

_HEADER = "a line `p cnf VARIABLES CLAUSES` or `p wcnf VARIABLES CLAUSES` is needed"
_CHECK = "check that this is a DIMACS cnf file"
_INTEGER = re.compile(rb"[+-]?\d{1,18}")


def read_cnf(path: Path) -> tuple[sp.csr_array, None, None, dict[str, Any]]:
    """Read a Max-2-SAT instance: clauses of at most two literals, whose relaxation is ``min <C, X>, diag X = 1, X ⪰ 0``.

    Parameters
    ----------
    path : path-like
        The file, plain or gzip. Clauses end with 0 and may span lines; a line `%` ends the file, as in SATLIB. In `wcnf` each
        clause begins with its positive weight; hard clauses (weight `top` or more) are refused.

    Returns
    -------
    C : csr_array, (n + 1) × (n + 1)
        Row 0 stands for "true", row v for variable v; see `two_sat_cost`.
    A, b : None
        Unit diagonal.
    meta : dict
        ``format "cnf"``, ``sense "max"`` (the weight of satisfied clauses is ``offset - <C, X>``), ``offset 0.0``,
        ``kind "max2sat"``, ``n`` (variables), ``clauses`` (list of tuples of signed variables), ``weights`` (float array).

    Raises
    ------
    FormatError
        (a ValueError) naming file, line and remedy; also for a clause of three or more different literals.
    OSError
        If the file cannot be read.
    """
    n, clauses, weights, lines = _parse(path, read_bytes(path))
    for clause, line in zip(clauses, lines, strict=True):
        if len(set(clause)) > 2 and not any(-v in clause for v in clause):
            given, needed = f"a clause of {len(set(clause))} literals", "at most 2 are needed (Max-2-SAT)"
            raise FormatError(path, line, given, needed, "rewrite longer clauses with auxiliary variables")
    if not sum(weights.tolist()) < math.inf:
        raise FormatError(path, None, "weights whose sum overflows", "a finite sum is needed", "scale the weights")
    meta = {"format": "cnf", "sense": "max", "offset": 0.0, "kind": "max2sat", "n": n, "clauses": clauses}
    return two_sat_cost(n, clauses, weights), None, None, meta | {"weights": weights}


def write_cnf(path: Path, clauses: Sequence[Sequence[int]], weights: Any = None, n: int | None = None) -> None:
    """Write clauses (of any length) so that reading gives them back: `cnf`, or `wcnf` with weights.

    Parameters
    ----------
    path : path-like
        The file; compressed if its name ends in ``.gz``.
    clauses : sequence of sequences of int
        Signed variables, counted from 1.
    weights : array_like, optional
        Positive, one per clause.
    n : int, optional
        Number of variables; the largest that occurs by default.

    Raises
    ------
    ValueError
        For literals that are 0 or no integers, variables beyond n, or weights that are not positive and finite.
    """
    largest = max((abs(v) for clause in clauses for v in clause), default=0)
    n = largest if n is None else n
    for j, clause in enumerate(clauses):
        if any(v != int(v) or v == 0 for v in clause) or any(abs(v) > n for v in clause):
            raise ValueError(f"clause {j} is {tuple(clause)}; signed variables from 1 to n = {n} are needed")
    bodies = [" ".join(map(str, (*map(int, clause), 0))) for clause in clauses]
    if weights is None:
        text = f"p cnf {n} {len(bodies)}\n" + "".join(f"{body}\n" for body in bodies)
    else:
        w = np.asarray(weights, float)
        if w.shape != (len(bodies),) or not (np.isfinite(w) & (w > 0)).all():
            raise ValueError(f"weights have shape {w.shape} for {len(bodies)} clauses; one positive finite number each is needed")
        shown = (repr(int(x)) if x.is_integer() and x < 2**53 else repr(x) for x in w.tolist())
        text = f"p wcnf {n} {len(bodies)}\n" + "".join(f"{x} {body}\n" for x, body in zip(shown, bodies, strict=True))
    write_bytes(path, text.encode())


def two_sat_cost(n: int, clauses: Sequence[Sequence[int]], weights: np.ndarray) -> sp.csr_array:
    """C with ``-x^T C x`` the weight of the clauses satisfied by signs x, ``x_0 = 1`` for "true".

    A clause of one literal ``l = s x_v`` is satisfied by the amount ``(1 + s x_0 x_v) / 2``, one of two by
    ``(3 + s x_0 x_u + t x_0 x_v - s t x_u x_v) / 4``; the constants stand in C_00.

    Parameters
    ----------
    n : number of variables
    clauses : signed variables; repeated literals count once, an empty clause is never, one with v and -v always satisfied
    weights : array (m,)

    Returns
    -------
    csr_array, (n + 1) × (n + 1), symmetric, every diagonal entry stored; each entry correctly rounded, exact for integer weights.
    """
    if not sum(weights.tolist()) < math.inf:
        raise ValueError("the sum of the weights overflows; scale them")
    parts: dict[tuple[int, int], list[float]] = {}

    def add(u: int, v: int, amount: float) -> None:
        parts.setdefault((min(u, v), max(u, v)), []).append(amount)

    for clause, w in zip(clauses, weights.tolist(), strict=True):
        literals = sorted(set(clause), key=abs)
        if any(-v in literals for v in literals):
            add(0, 0, -w)
        elif len(literals) == 1:
            v = literals[0]
            add(0, 0, -w / 2)
            add(0, abs(v), -math.copysign(w / 4, v))
        elif len(literals) == 2:
            u, v = literals
            add(0, 0, -w / 4)
            add(0, 0, -w / 2)
            for a in (u, v):
                add(0, abs(a), -math.copysign(w / 8, a))
            add(abs(u), abs(v), math.copysign(w / 8, u) * (1 if v > 0 else -1))
        elif literals:
            raise ValueError(f"clause {tuple(clause)} has {len(literals)} literals; at most 2 are needed (Max-2-SAT)")
    i, j = np.array(list(parts), dtype=np.int64).reshape(-1, 2).T
    values = np.array([math.fsum(part) for part in parts.values()])
    off, diagonal = i != j, np.arange(n + 1)
    rows, cols = np.concatenate([i, j[off], diagonal]), np.concatenate([j, i[off], diagonal])
    C = sp.csr_array((np.concatenate([values, values[off], np.zeros(n + 1)]), (rows, cols)), shape=(n + 1, n + 1))
    C.sum_duplicates()
    return C


def _parse(path: Path, data: bytes) -> tuple[int, list[tuple[int, ...]], np.ndarray, list[int]]:
    """Variables, clauses, weights, and the line on which each clause begins."""
    n = m = 0
    kind, top, first = b"", math.inf, 0
    clauses: list[tuple[int, ...]] = []
    weights: list[float] = []
    lines: list[int] = []
    clause: list[int] | None = None  # being read
    row = 0
    for row, line in enumerate(data.splitlines(), 1):
        tokens = line.split()
        if not tokens or tokens[0].startswith(b"c"):
            continue
        if tokens[0] == b"%":
            break
        if not kind:
            kind, n, m, top = _header(path, row, tokens)
            continue
        for token in tokens:
            if clause is None:
                clause, first = [], row
                if len(clauses) == m:
                    given = f"clause {m + 1} after a header that announces {m}"
                    raise FormatError(path, row, given, f"{m} clauses are needed", "correct the header or remove the rest")
                if kind == b"wcnf":
                    weights.append(_weight(path, row, token, top))
                    continue
                weights.append(1.0)
            literal = _literal(path, row, token, n)
            if literal:
                clause.append(literal)
            else:
                clauses.append(tuple(clause))
                lines.append(first)
                clause = None
    if not kind:
        raise FormatError(path, max(row, 1), "no header", _HEADER, _CHECK)
    if clause is not None:
        raise FormatError(path, row, f"the file ends within clause {len(clauses) + 1}", "a final 0 is needed", "fetch the whole file")
    if len(clauses) < m:
        given = f"the file ends after {len(clauses)} of {m} clauses"
        raise FormatError(path, row, given, f"{m} are needed", "fetch the whole file or correct the header")
    return n, clauses, np.array(weights), lines


def _header(path: Path, row: int, tokens: list[bytes]) -> tuple[bytes, int, int, float]:
    size = [number(token) for token in tokens[2:]]
    kind = tokens[1] if len(tokens) > 1 else b""
    known = tokens[0] == b"p" and (kind == b"cnf" and len(size) == 2 or kind == b"wcnf" and len(size) in (2, 3))
    counts = [x for x in size if x is not None and 0 <= x < math.inf and x % 1 == 0]
    if not known or len(counts) != len(size):
        raise FormatError(path, row, f"header {show(*tokens)}", _HEADER, _CHECK)
    n, m = int(counts[0]), int(counts[1])
    check_size(path, row, n, m)
    return kind, n, m, counts[2] if len(counts) == 3 else math.inf


def _weight(path: Path, row: int, token: bytes, top: float) -> float:
    w = number(token)
    if w is None or not 0 < w < math.inf:
        raise FormatError(path, row, f"weight {show(token)}", "a positive finite number is needed", "correct the line")
    if w >= top:
        given = f"a hard clause (weight {w:g} >= top = {top:g})"
        raise FormatError(path, row, given, "soft clauses are needed", "give it a weight below top, larger than the sum of all others")
    return w


def _literal(path: Path, row: int, token: bytes, n: int) -> int:
    if not _INTEGER.fullmatch(token):
        raise FormatError(path, row, show(token), "an integer, the signed number of a variable, is needed", "correct the line")
    literal = int(token)
    if abs(literal) > n:
        needed = f"variables from 1 to {n} are announced"
        raise FormatError(path, row, f"variable {abs(literal)}", needed, "correct the literal, or the header")
    return literal
