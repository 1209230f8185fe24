"""What the command line says of instances and results: lines of text, and the JSON object (floor L8)."""

from __future__ import annotations

import math
from collections import Counter
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from . import Result, Status, __version__

RAYS = (Status.INFEASIBLE, Status.UNBOUNDED)
MEANS = {
    ("sdpa", Status.INFEASIBLE): "no X >= 0 has <F_i, X> = c_i: (D) of the SDPA format is infeasible (CSDP calls it primal infeasible)",
    ("sdpa", Status.UNBOUNDED): "<F_0, X> grows along a ray of (D), so no x has F_1 x_1 + ... + F_m x_m - F_0 >= 0: (P) of the SDPA "
    "format is infeasible (CSDP calls it dual infeasible)",
    ("mat", Status.INFEASIBLE): "no x in K has A x = b: the primal problem is infeasible",
    ("mat", Status.UNBOUNDED): "c'x falls along a ray of K, so no y has c - A'y in the dual cone: the dual problem is infeasible",
}
DENSE = 0.1  # of the entries of its blocks: what `info` calls a dense row


class Instance(NamedTuple):
    """A file: ``min <C, X>, A(X) = b``, and what the reader says about it."""

    path: str
    C: Any
    A: Any
    b: Any
    meta: dict[str, Any]

    @property
    def is_graph(self) -> bool:
        return bool(self.meta["kind"] == "maxcut")

    @property
    def is_sdp(self) -> bool:
        """A general one; the other kinds have unit diagonal."""
        return bool(self.meta["kind"] == "sdp")

    @property
    def maximise(self) -> bool:
        return bool(self.meta["sense"] == "max")

    @property
    def data(self) -> dict[str, Any]:
        """The constraints as `bmsdp.solve` takes them; none for a unit diagonal."""
        if not self.is_sdp:
            return {}
        blocks = self.meta["blocks"]
        return {"A": self.A, "b": self.b, "blocks": None if blocks == [self.meta["n"]] else blocks}

    @property
    def title(self) -> str:
        n = self.C.shape[0]
        if not self.is_sdp:
            what = f"max-cut relaxation, {self.meta['edges']} edges" if self.is_graph else "min <C, X>, diag X = 1"
            return f"{self.path}: {what}, n = {n}"
        what = "max <F_0, X>, <F_i, X> = c_i" if self.meta["format"] == "sdpa" else "min <c, x>, A x = b"
        return f"{self.path}: {what}, n = {n}, m = {self.meta['m']}, blocks {blocks_line(self.meta['blocks'])}"

    def own(self, value: float) -> float:
        """A cost in the file's own sense."""
        return float(self.meta["offset"] + (-value if self.maximise else value))

    def means(self, status: Status) -> str | None:
        """Which of the two problems of the format has no solution."""
        return MEANS.get(("sdpa" if self.meta["format"] == "sdpa" else "mat", status)) if self.is_sdp else None


def finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def plain(value: Any) -> Any:
    """Nested figures for JSON, which knows no infinity."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return finite(value) if isinstance(value, float) else value


def report(given: Instance, result: Result, cut: Any, seed: int) -> dict[str, Any]:
    """What ``--json`` prints."""
    proof = result.certificate if math.isfinite(result.bound) else None
    sides = {"value": cut.value, "bound": finite(cut.bound), "ratio": finite(cut.ratio)} if cut is not None else None
    none = result.status in RAYS  # of which no value is one of a solution
    return {
        "file": given.path, "format": given.meta["format"], "sense": given.meta["sense"], "n": len(result.Y), "m": len(result.dual),
        "status": result.status.name, "message": result.message, "means": given.means(result.status),
        "value": None if none else finite(given.own(result.cost)), "bound": None if none else finite(given.own(result.bound)),
        "gap": None if none else finite(result.gap), "rigor": proof.rigor if proof else None,
        "gap_rigor": proof.gap_rigor if proof else None, "tol": result.options["tol"], "method": result.options.get("method"),
        "rank": result.rank, "seconds": result.time, "products": int(result.products), "cut": sides,
        "perturbation": plain(result.perturbation), "seed": seed, "version": __version__,
    }  # fmt: skip


def rounded(value: float, up: bool, digits: int = 12) -> str:
    """A decimal number on the safe side of ``value``: a bound must not be printed as a better one."""
    if not math.isfinite(value):
        return "none"
    number = Context(prec=digits, rounding=ROUND_CEILING if up else ROUND_FLOOR).create_decimal(Decimal(value))
    return f"{number:f}" if value == 0 or 1e-4 <= abs(value) < 1e15 else f"{number:e}"


def outcome(result: Result, seed: Any, given: Instance | None = None) -> list[str]:
    """A result in the sense of its file; as minimised where that is not known."""
    own, maximise = (given.own, given.maximise) if given is not None else (float, False)
    means = given.means(result.status) if given is not None else None
    lines = [f"status  {result.status.name}: {result.message}"] + ([f"means   {means}"] if means else [])
    if result.status not in RAYS:
        lines += [f"value   {own(result.cost):.12g}", *proof_lines(result.certificate, own(result.bound), maximise)]
    lines += [f"rank    {result.rank}", f"time    {result.time:.3g} s, {result.products} products, seed {seed}"]
    if result.perturbation is not None:
        gaps = [rounded(result.perturbation[which]["gap"], True, 2) for which in ("perturbed", "original")]
        lines.append(f"noise   sigma {result.perturbation['sigma']:.3g}; gap then {gaps[0]} (perturbed cost), {gaps[1]} (original cost)")
    return lines


def proof_lines(proof: Any, bound: float, maximise: bool) -> list[str]:
    proved = proof is not None and math.isfinite(bound)
    side = "above" if maximise else "below"
    return [
        "bound   " + (f"{rounded(bound, maximise)} (nothing is {side}; {known(proof)})" if proved else "none"),
        "gap     " + (f"{rounded(proof.gap, True, 2)} ({proof.gap_rigor})" if proved else "none"),
    ]


def known(proof: Any) -> str:
    """How a bound is known, in words."""
    words = {
        "verified": "verified: a factorisation whose rounding errors are bounded",
        "probabilistic": f"probabilistic: fails with probability at most {proof.failure_probability:g}",
        "estimate": "an estimate, no proof",
    }  # fmt: skip
    return words.get(proof.rigor, proof.rigor)


def cut_line(cut: Any) -> str:
    ratio = f", {rounded(cut.ratio, False, 5)} of the bound" if math.isfinite(cut.ratio) else ""
    return f"{cut.value:.12g}{ratio}"


def info(given: Instance) -> list[str]:
    """What an instance is."""
    return _info_sdp(given) if given.is_sdp else _info_matrix(given)


def _info_matrix(given: Instance) -> list[str]:
    C, graph = sparse.coo_array(given.C), given.is_graph
    is_complex, n = C.dtype.kind == "c", C.shape[0]
    off = (C.row != C.col) & (C.data != 0)
    pairs = off & (C.row < C.col)
    weights = (abs(C.data[pairs]) if is_complex else C.data[pairs]) * (4 if graph else 1)  # C = -L/4
    links = sparse.csr_array((np.ones(off.sum()), (C.row[off], C.col[off])), shape=C.shape)
    field, kind = "complex Hermitian" if is_complex else "real symmetric", "sparse" if sparse.issparse(given.C) else "dense"
    return [
        f"{given.path}: {given.meta['format']}, {'max-cut graph' if graph else f'{field} {kind} matrix'}",
        f"n           {n}",
        f"{'edges' if graph else 'nonzeros':11} {pairs.sum() if graph else np.count_nonzero(C.data)}",
        f"{'weights' if graph else 'off-diag.':11} {_range(weights)}{' (moduli)' if is_complex else ''}",
        f"{'degrees' if graph else 'diagonal':11} {_range(C.diagonal().real * (-4 if graph else 1) + 0.0)}",
        f"isolated    {n - np.unique(C.row[off]).size}",
        f"components  {sparse.csgraph.connected_components(links, directed=False)[0]}",
    ]


def _info_sdp(given: Instance) -> list[str]:
    C, A, meta = given.C, given.A, given.meta
    n, m = meta["n"], meta["m"]
    row = np.repeat(np.arange(m), np.diff(A.indptr))
    i, j = np.divmod(A.indices.astype(np.int64), n)
    upper, off = np.bincount(row[i <= j], minlength=m), np.bincount(row[i != j], minlength=m)
    places = sum(block * (block + 1) // 2 if isinstance(block, int) and block > 0 else abs(_size(block)) for block in meta["blocks"])
    kinds = {
        "empty": (upper == 0).sum(), "of one entry": (upper == 1).sum(), "diagonal": ((off == 0) & (upper > 0)).sum(),
        "rank one": rank_one(A, n).sum(), f"dense (above {DENSE:.0%})": (upper > DENSE * places).sum(),
    }  # fmt: skip
    what = f"{'maximised' if given.maximise else 'minimised'} in the file's sense"
    return [
        f"{given.path}: {meta['format']}, semidefinite program, {what}",
        f"n           {n}",
        f"m           {m}",
        f"blocks      {blocks_line(meta['blocks'])}",
        f"nonzeros    {sparse.triu(C).nnz} in the cost, {upper.sum()} in the constraints (upper triangles)",
        f"per row     {_range(upper)}",
        f"rows        {', '.join(f'{count} {name}' for name, count in kinds.items() if count) or 'of no special kind'}",
        f"b           {_range(given.b)}",
    ]


def _size(block: Any) -> int:
    return int(block if isinstance(block, int) else block[1])


def blocks_line(blocks: list[Any]) -> str:
    """A list of blocks in a few words: ``2 of 5, 7, 3 nonnegative``."""
    sizes = Counter(block for block in blocks if isinstance(block, int) and block > 0)
    parts = [f"{count} of {size}" if count > 1 else f"{size}" for size, count in list(sizes.items())[:5]]
    parts += [f"{len(sizes) - 5} more sizes"] if len(sizes) > 5 else []
    for name, kind in (("nonnegative", "nonneg"), ("free", "free")):
        rest = [abs(_size(block)) for block in blocks if (block < 0 and kind == "nonneg" if isinstance(block, int) else block[0] == kind)]
        parts += [f"{sum(rest)} {name}"] if rest else []
    return ", ".join(parts)


def rank_one(A: sparse.csr_array, n: int) -> np.ndarray:
    """Which rows of a stacked A are ``+-v v*``, up to rounding."""
    counts = np.diff(A.indptr)
    sizes = np.sqrt(counts).round().astype(np.int64)
    out = np.zeros(A.shape[0], bool)
    for size in np.unique(sizes[(sizes**2 == counts) & (counts > 0)]):
        rows = np.flatnonzero(counts == size**2)
        at = A.indptr[rows].astype(np.int64)[:, None] + np.arange(size**2)
        i, j = (index.reshape(-1, size, size) for index in np.divmod(A.indices[at].astype(np.int64), n))
        values = A.data[at].reshape(-1, size, size)
        grid = ((i == i[:, :, :1]) & (j == j[:, :1, :])).all(axis=(1, 2)) & (i[:, :, 0] == j[:, 0, :]).all(axis=1)
        diagonal = np.abs(np.diagonal(values, axis1=1, axis2=2))
        pivot, each = np.argmax(diagonal, axis=1), np.arange(len(rows))
        products = values[each, :, pivot][:, :, None] * values[each, pivot, :][:, None, :]
        defect = np.abs(values * values[each, pivot, pivot][:, None, None] - products).max(axis=(1, 2))
        out[rows] = grid & (defect <= 1e-12 * diagonal.max(axis=1) ** 2)
    return out


def _range(values: Any) -> str:
    return f"{values.min():.12g} to {values.max():.12g}" if values.size else "none"
