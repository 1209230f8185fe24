"""The outcome of a run: `Result`, `Status`, `Certificate`, and their file (floor L4)."""

from __future__ import annotations

import enum
import json
import os
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

FORMAT = 1  # version of the .npz layout
X_LIMIT = 2e9  # bytes


class Status(enum.Enum):
    """Why a run ended; the value is message and remedy."""

    CERTIFIED = "optimal: the certified relative gap is at most tol"
    ESTIMATED = "all optimality errors are at most tol, but the bound is only estimated; ask for certify='verified' or 'probabilistic'"
    RANK_TOO_SMALL = "critical at the kept rank, but the slack has negative curvature; raise rank, or leave rank=None"
    LOCALLY_OPTIMAL = "critical point, but no usable bound: no constraint fixes the trace; give trace_bound"
    STALLED = "no further progress in floating point before tol was certified; loosen tol, rescale C, or try another solver"
    MAX_ITER = "iteration limit reached; raise max_iter or loosen tol"
    MAX_TIME = "time limit reached; raise max_time or loosen tol"
    INTERRUPTED = "interrupted; the best point so far is returned, warm_start=result continues from it"
    INFEASIBLE = "infeasible: the constraints admit no X; see message for the rows, result.ray for the proof"
    UNBOUNDED = "unbounded: the cost has no lower bound on the feasible set; result.ray is a direction"

    @property
    def success(self) -> bool:
        return self in (Status.CERTIFIED, Status.ESTIMATED)


@dataclass(frozen=True)
class Certificate:
    """A proof of near-optimality, or where it fails.

    Attributes
    ----------
    bound : float
        Lower bound on the optimal cost; -inf where none is known.
    gap, gap_abs : float
        ``(cost - bound) / max(|cost|, |bound|, cost_scale)`` and ``cost - bound``.
    eig_min : float
        Rayleigh quotient ``v* S v / v* W v`` at ``vector``, ``S = C - A*(mu)``, ``W = diag(1 / row_trace)`` (identity for a unit diagonal).
    eig_min_lower : float
        The lower bound on the smallest eigenvalue of (S, W) that ``bound`` uses.
    vector : ndarray, (n,)
    rigor : str
        "verified", "probabilistic" or "estimate": how `bound` is known.
    gap_rigor : str
        The same for `gap`: "verified" only where the cost of an exactly feasible point in closed form was bounded as well.
    failure_probability : float
        0 when verified, nan for an estimate.
    dual : ndarray, (m,)
        Multipliers that attain `bound`: ``<b, dual> = bound`` and ``C - A*(dual)`` is positive semidefinite.
    dual_geq : ndarray, (m_geq,)
        The same for inequalities.
    mu : ndarray
        The multipliers that were judged, before any shift: the point's own, or sharper ones; in the rows of the manifold.
    """

    bound: float
    gap: float
    gap_abs: float
    eig_min: float
    eig_min_lower: float
    vector: np.ndarray = field(repr=False)
    rigor: str
    gap_rigor: str
    failure_probability: float
    dual: np.ndarray = field(repr=False)
    escape: np.ndarray = field(repr=False, default_factory=lambda: np.zeros((0, 0)))
    dual_geq: np.ndarray = field(repr=False, default_factory=lambda: np.zeros(0))
    mu: np.ndarray = field(repr=False, default_factory=lambda: np.zeros(0))


class Data(NamedTuple):
    """The caller's problem: operator C, map A, right-hand side b; inequalities and blocks (see `bmsdp.solve`), where there are any."""

    C: Any
    A: Any
    b: np.ndarray
    A_geq: Any = None
    b_geq: np.ndarray = np.zeros(0)
    blocks: list[tuple[str, int]] | None = None


@dataclass(frozen=True, repr=False)
class Result:
    """The outcome of `bmsdp.solve` or `bmsdp.minimize`.

    Attributes
    ----------
    Y : ndarray, n x rank
        ``X = YY*``.
    cost, bound, gap : float
        ``<C, X>``, the certified lower bound and the relative gap between them (see `Certificate`).
    dual, dual_geq : ndarray
        Multipliers in the caller's rows, order and scaling: ``C - A*(dual) - A_geq*(dual_geq)`` is the slack.
    status : Status
    message : str
    nit, products : int
        Iterations and products with C (a mixing sweep counts as one).
    time : float
        Seconds.
    history : dict of ndarray
        Columns "nit", "time", "products", "rank", "merit", "grad_norm", "gap".
    certificate : Certificate or None
    options, versions : dict
        What was asked, detected and chosen; library versions.
    second_order : dict or None
        Where curvature was checked: "grad_norm" and "eps_g", "hess_min" (the lowest value met), "hess_min_lower" (the bound),
        "eps_H", "rigor" of that bound, and "escapes", the steps taken along negative curvature.
    perturbation : dict or None
        Where ``solve(perturbation=...)`` was asked for: "sigma", "seed" (``problem.perturbed(sigma, seed)`` has the same noise),
        "pattern", "continuation", "norm_W" (of the noise); "eps_g" and "eps_H" that were aimed at, "grad_norm" that was reached (a
        certified gap ends the run earlier), "second_order" as above; "guarantee", what the theorem says of (eps_g, eps_H)-second-order
        points at this rank; and cost, bound, gap and rigor of one point, before any continuation, for the "perturbed" and the
        "original" problem.
    free : ndarray
        Values of the free variables; their rows of Y are 0.
    ray : dict or None
        Of an INFEASIBLE problem: "dual" y and "dual_geq" z >= 0 with ``A*(y) + A_geq*(z)`` negative semidefinite (0 on free variables)
        and ``<b, y> + <b_geq, z> = 1``.  Of an UNBOUNDED one: "Y" Z and "free" with ``A(ZZ*) = 0``, ``A_geq(ZZ*) >= 0``, cost -1.
    """

    Y: np.ndarray = field(repr=False)
    cost: float
    bound: float
    gap: float
    dual: np.ndarray = field(repr=False)
    dual_geq: np.ndarray = field(repr=False)
    status: Status
    message: str
    nit: int
    products: int
    time: float
    history: dict[str, np.ndarray] = field(repr=False)
    certificate: Certificate | None = field(repr=False)
    options: dict[str, Any] = field(repr=False)
    versions: dict[str, str] = field(repr=False)
    data: Data | None = field(repr=False, compare=False, default=None)
    second_order: dict[str, Any] | None = field(repr=False, default=None)
    perturbation: dict[str, Any] | None = field(repr=False, default=None)
    free: np.ndarray = field(repr=False, default_factory=lambda: np.zeros(0))
    ray: dict[str, Any] | None = field(repr=False, default=None)

    @property
    def success(self) -> bool:
        return self.status.success

    def __repr__(self) -> str:
        known = f" ({self.certificate.rigor})" if self.certificate is not None else ""
        return (
            f"Result({self.status.name}: cost {self.cost:.10g}, bound {self.bound:.10g}{known}, gap {self.gap:.1e}, "
            f"n {len(self.Y)}, rank {self.rank}, {self.products} products, {self.time:.3g} s)"
        )

    @property
    def rank(self) -> int:
        """Columns of Y."""
        return self.Y.shape[1]

    @property
    def X(self) -> np.ndarray:
        """``YY*``, n x n, 0 outside of the blocks, the free variables on its diagonal; refused above 2 GB."""
        n = len(self.Y)
        if n * n * self.Y.itemsize > X_LIMIT:
            raise MemoryError(f"X would take {n * n * self.Y.itemsize / 1e9:.1f} GB; use Y, or entries(i, j)")
        X = self.Y @ self.Y.conj().T
        blocks = None if self.data is None else self.data.blocks
        if blocks is not None:
            part = np.repeat(np.arange(len(blocks)), [size for _, size in blocks])
            linear = np.repeat([kind != "psd" for kind, _ in blocks], [size for _, size in blocks])
            X *= (part[:, None] == part) & ((~linear)[:, None] | np.eye(n, dtype=bool))
            free = np.repeat([kind == "free" for kind, _ in blocks], [size for _, size in blocks])
            X[free, free] = self.free
        return X

    def entries(self, i: Any, j: Any) -> np.ndarray:
        """``X[i, j]`` for index arrays of one shape."""
        return np.einsum("...k,...k->...", self.Y[np.asarray(i)], self.Y[np.asarray(j)].conj())

    def slack(self, C: Any = None, A: Any = None) -> Any:
        """``S = C - A*(dual) - A_geq*(dual_geq)`` as a LinearOperator, from the caller's data.

        A loaded result does not hold its data: pass C and A (None for a unit diagonal) again.
        """
        from scipy.sparse.linalg import LinearOperator

        from .linear_maps import as_linear_map
        from .manifolds import Oblique
        from .operators import as_operator

        if C is None and self.data is None:
            raise ValueError("this result was loaded from a file and holds no C; call slack(C, A)")
        n = len(self.Y)
        if C is None and self.data is not None:
            C, A = self.data.C, self.data.A
        C = as_operator(C)
        if C.n != n:
            raise ValueError(f"C is {C.n} x {C.n} but Y has {n} rows; pass the C of this result")
        A = Oblique(np.ones(n)) if A is None else as_linear_map(A, n)

        def mul(V: np.ndarray) -> np.ndarray:
            V = np.ascontiguousarray(V.reshape(n, -1), np.result_type(C.dtype, V.dtype))
            out = C.mul(V) - A.adjoint_mul(self.dual, V)
            above = None if self.data is None else self.data.A_geq
            return out - above.adjoint_mul(self.dual_geq, V) if above is not None and above.m else out

        return LinearOperator((n, n), matvec=lambda v: mul(v).ravel(), matmat=mul, rmatvec=lambda v: mul(v).ravel(), dtype=C.dtype)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz file without pickle: everything but the caller's data."""
        names = ("cost", "bound", "gap", "message", "nit", "products", "time", "options", "versions", "second_order", "perturbation")
        plain = {k: getattr(self, k) for k in names}
        arrays: dict[str, Any] = {"Y": self.Y, "dual": self.dual, "dual_geq": self.dual_geq, "free": self.free}
        arrays |= {f"ray_{k}": v for k, v in (self.ray or {}).items()}
        arrays |= {f"history_{k}": v for k, v in self.history.items()}
        if self.certificate is not None:
            figures = ("bound", "gap", "gap_abs", "eig_min", "eig_min_lower", "rigor", "gap_rigor", "failure_probability")
            plain["certificate"] = {k: getattr(self.certificate, k) for k in figures}
            arrays |= {f"certificate_{k}": getattr(self.certificate, k) for k in ("vector", "dual", "dual_geq", "mu")}
        plain |= {"format": FORMAT, "status": self.status.name}
        with open(path, "wb") as file:  # a file object keeps NumPy from appending ".npz" to the caller's name
            meta = json.dumps(plain, default=lambda v: v.item() if hasattr(v, "item") else str(v))
            np.savez_compressed(file, meta=np.array(meta), **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Result:
        """Read what `save` wrote; ValueError names the file where it is something else."""
        try:
            with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = {k: file[k] for k in file.files}
            plain = json.loads(str(arrays.pop("meta")))
            if plain.pop("format") > FORMAT:
                raise ValueError("it was written by a newer bmsdp; upgrade with pip install -U bmsdp")
            status = Status[plain.pop("status")]
            history = {k[len("history_") :]: arrays.pop(k) for k in list(arrays) if k.startswith("history_")}
            ray = {k[len("ray_") :]: arrays.pop(k) for k in list(arrays) if k.startswith("ray_")} or None
            certificate = plain.pop("certificate", None)
            if certificate is not None:
                proof = {k[len("certificate_") :]: arrays.pop(k) for k in list(arrays) if k.startswith("certificate_")}
                certificate = Certificate(**certificate, **proof)
            return cls(**arrays, **plain, status=status, history=history, certificate=certificate, ray=ray)
        except Exception as error:  # damaged bytes raise anything: zlib.error, BadZipFile, tokenize errors, ...
            if isinstance(error, OSError) and error.filename is not None:
                raise
            raise ValueError(f"{path}: not a bmsdp result ({error}); write one with Result.save or --out") from None
