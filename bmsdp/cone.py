"""A semidefinite program as given: rows, right-hand sides, and what ``blocks`` says of X (floor L1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from .linear_maps import LinearMap, MatrixMap, as_linear_map
from .operators import Operator, as_operator


class Cone(NamedTuple):
    """What ``blocks`` says of the rows: slices of the positive semidefinite blocks, indices of nonnegative and of free variables."""

    psd: list[slice]
    nonneg: np.ndarray
    free: np.ndarray

    @property
    def part(self) -> np.ndarray:
        """(n,): rows with one number share a block; variables on the diagonal are alone."""
        n = len(self.nonneg) + len(self.free) + sum(s.stop - s.start for s in self.psd)
        out = np.arange(n)
        for s in self.psd:
            out[s] = s.start
        return out

    @property
    def blocks(self) -> list[tuple[str, int]] | None:
        """The list that `as_cone` reads; None for one positive semidefinite block."""
        runs = [(s.start, "psd", s.stop - s.start) for s in self.psd]
        for kind, rows in (("nonneg", self.nonneg), ("free", self.free)):
            for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if len(rows) else ():
                runs.append((int(run[0]), kind, len(run)))
        out = [(kind, size) for _, kind, size in sorted(runs)]
        return None if len(self.psd) == len(out) == 1 else out


class Given(NamedTuple):
    """``min <C, X>, A(X) = b, A_geq(X) >= b_geq``, X in the cone: the caller's data, read and checked."""

    C: Operator
    A: LinearMap
    b: np.ndarray
    A_geq: LinearMap
    b_geq: np.ndarray
    cone: Cone

    @classmethod
    def of(cls, C: Any, A: Any = None, b: Any = None, A_geq: Any = None, b_geq: Any = None, blocks: Any = None) -> Given:
        """``A = None`` is no rows, or a unit diagonal where blocks and A_geq are None as well."""
        C = as_operator(C)
        cone = as_cone(blocks, C.n)
        equal, b = as_rows(A, b, C.n, default=blocks is None and A_geq is None)
        geq, b_geq = as_rows(A_geq, b_geq, C.n, "b_geq")
        check_blocks(C, equal, geq, cone)
        return cls(C, equal, b, geq, b_geq, cone)

    @property
    def blocks(self) -> list[tuple[str, int]] | None:
        return self.cone.blocks

    @property
    def arguments(self) -> tuple[Any, ...]:
        """``(C, A, b, A_geq, b_geq, blocks)`` as functions of a whole problem take them: None for no inequalities."""
        above = (self.A_geq, self.b_geq) if self.A_geq.m else (None, None)
        return (self.C, self.A, self.b, *above, self.blocks)

    @property
    def is_complex(self) -> bool:
        return self.C.is_complex or any(isinstance(M, MatrixMap) and M.rows.dtype.kind == "c" for M in (self.A, self.A_geq))


def as_cone(blocks: Iterable[Any] | None, n: int) -> Cone:
    """The cone of ``blocks`` (see `bmsdp.solve`); None is one block of n rows."""
    psd, nonneg, free, at = [], [np.zeros(0, int)], [np.zeros(0, int)], 0
    for entry in [n] if blocks is None else blocks:
        if isinstance(entry, int | np.integer):
            entry = ("nonneg" if entry < 0 else "psd", abs(entry))
        kind, size = entry if isinstance(entry, tuple | list) and len(entry) == 2 else (None, 0)
        if kind not in ("psd", "nonneg", "free") or not isinstance(size, int | np.integer) or size < 1:
            raise ValueError(f'blocks has the entry {entry!r}; pass s > 0 (PSD block), -l (nonnegative) or ("free", l)')
        rows = slice(at, at + int(size))
        if kind == "psd":
            psd.append(rows)
        else:
            (nonneg if kind == "nonneg" else free).append(np.arange(rows.start, rows.stop))
        at = rows.stop
    if at != n:
        raise ValueError(f"blocks has {at} rows in all but C has {n}; the sizes must sum to n")
    return Cone(psd, np.concatenate(nonneg), np.concatenate(free))


def as_rows(A: Any, b: Any, n: int, name: str = "b", default: bool = False) -> tuple[LinearMap, np.ndarray]:
    """A map and its right-hand side; no rows for ``A = None``, or a unit diagonal where that is the ``default``."""
    if A is None and default:
        diagonal = sp.csr_array((np.ones(n), np.arange(n, dtype=np.int64) * (n + 1), np.arange(n + 1)), shape=(n, n * n))
        A, b = MatrixMap(diagonal, n), np.ones(n) if b is None else b
    none = A is None or not isinstance(A, LinearMap) and not (A.shape[0] if hasattr(A, "shape") else len(A))
    linear = MatrixMap(sp.csr_array((0, n * n)), n) if none else as_linear_map(A, n)
    if none and A is not None and default:
        raise ValueError("A holds no matrix; pass at least one, A=None for a unit diagonal, or A_geq")
    b = getattr(linear, "b", None) if b is None else b
    return linear, real_vector(b, name, linear.m)


def real_vector(values: Any, name: str, m: int) -> np.ndarray:
    """``values`` as m finite floats, one a row of A or A_geq."""
    rows = "A_geq" if name.endswith("_geq") else "A"
    if values is None and m:
        raise ValueError(f"{rows} has {m} rows but {name} was not given; pass {m} numbers")
    values = np.zeros(0) if values is None else np.asarray(values)
    if values.shape != (m,):
        raise ValueError(f"{name} has shape {values.shape} but {rows} has {m} rows; {name} must have shape ({m},)")
    if values.dtype.kind not in "biuf" and m:
        raise ValueError(f"{name} has dtype {values.dtype}; real numbers are needed")
    bad = np.flatnonzero(~np.isfinite(values.astype(float)))
    if len(bad):
        raise ValueError(f"{name}[{bad[0]}] is not finite; every entry must be")
    return values.astype(float)


def check_blocks(C: Operator, A: LinearMap, A_geq: LinearMap, cone: Cone) -> None:
    """ValueError for a matrix with an entry outside the blocks."""
    part, matrix = cone.part, C.matrix()
    if (part == part[0]).all():
        return
    places = []
    for M, name in ((A, "A"), (A_geq, "A_geq")):
        if isinstance(M, MatrixMap):
            places.append((M.i, M.j, M.rows.data, lambda p, M=M, name=name: f"{name}_{M.row_of[p]}"))
    if matrix is not None:
        entries = sp.coo_array(matrix)
        places.append((*entries.coords, entries.data, lambda p: "C"))
    for i, j, data, named in places:
        bad = (part[i] != part[j]) & (data != 0)
        if bad.any():
            p = int(np.argmax(bad))
            raise ValueError(f"{named(p)} has an entry at ({i[p]}, {j[p]}), outside the blocks; all matrices must be block-diagonal like X")
