"""The multipliers of an augmented Lagrangian, and what is found when one looks at them (floor L5)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from .certificate import certify as prove
from .facial import Face
from .lanczos import lanczos
from .manifolds import Oblique
from .minimize import Record, Solver
from .operators import less_diagonal
from .penalty import Penalty
from .problem import LocalModel, Problem
from .refine import refine
from .result import Certificate
from .staircase import is_curved

INNER = 1.0  # part of the relative residual down to which the relative gradient is brought before an update
LEAST = 1e-2  # the same, where dual feasibility is what lacks
FIRST = 0.05  # first sigma, in units of norm_C over the largest X_ii
BALANCE, STRONG = 3.0, 30.0  # imbalances from which sigma is doubled, and multiplied by 4
IDLE = 60  # looks without progress: a standstill
SIGMA_LIMIT = 1e6  # in units of norm_C over the trace: a sign that no multipliers are attained
EXACT = 2000  # rows up to which all of S may be looked at
FEW = 24  # columns up to which narrowing gains nothing
NULL = 1e-3  # columns (in the singular basis) this far below the largest are dropped
SLOW = 10_000  # products by which a relative infeasibility of FAR is to be reached
FAR = 1e-3


def split(problem: Problem) -> tuple[Penalty, tuple[Any, ...]]:
    """The penalty of a problem, and its other terms."""
    found = [term for term in problem.terms if isinstance(term, Penalty)]
    if len(found) != 1:
        raise ValueError(f"the problem has {len(found)} Penalty terms; one that holds all further constraints is needed")
    return found[0], tuple(term for term in problem.terms if term is not found[0])


class Run:
    """Multipliers, penalty parameter and what the looks found."""

    def __init__(
        self, problem: Problem, solver: Solver, tol: float, rigor: str | None, rng: np.random.Generator, record: Record, keep: bool
    ):
        self.problem, self.solver, self.tol, self.rigor, self.rng, self.record, self.keep = problem, solver, tol, rigor, rng, record, keep
        self.term, self.others = split(problem)
        self.face: Face | None = getattr(problem.manifold, "face", None)
        row_trace = problem.manifold.row_trace
        self.size = problem.norm_C or 1.0
        self.spread = float(row_trace.max()) if (row_trace > 0).all() else 1.0
        self.term = self.term.balanced(row_trace)
        self.nu, self.sigma = self.term.nu.copy(), FIRST * self.size / self.spread
        self.first, self.wide = self.sigma, 0
        self.narrow: np.ndarray | None = None  # a factor with fewer columns, to go on from
        self.inner, self.least, self.idle, self.next_look = INNER, np.inf, 0, 1e-4
        if self.term.sigma != 1.0:
            self.sigma = self.term.sigma
        self.cache: dict[str, Any] = {}
        self.best: Certificate | None = None  # of the whole problem, the highest bound met
        self.last: Certificate | None = None
        self.final: LocalModel | None = None  # a feasible point
        self.curved = False
        self.stages: list[dict[str, Any]] = []

    def merit(self) -> Problem:
        """The problem with the present multipliers."""
        return self._with((*self.others, self.term.at(self.nu, self.sigma)))

    def known(self, model: LocalModel) -> Any:
        """What the penalty knows at a model of `merit`."""
        return model._known[-1][0]

    def _with(self, terms: tuple[Any, ...], C: Any = None, cost_scale: float | None = None) -> Problem:
        scale = self.problem.cost_scale if cost_scale is None else cost_scale
        out = Problem(self.problem.C if C is None else C, self.problem.manifold, terms, norm_C=self.size, cost_scale=scale)
        out.C.threads = self.problem.C.threads
        return out

    def fixed(self, model: LocalModel, scale: float) -> tuple[LocalModel, float]:
        """``min <C - A*(nu), X>`` on the manifold at the same Y, its gap measured against ``scale``, and the constant ``<b, nu>``.

        On a face: on its complement, the multipliers of the pivot rows kept as well.
        """
        constant, C = float(self.term.rhs @ self.nu), self.term.slack_cost(self.problem.C, self.nu)
        if self.face is None:
            out, Y = self._with(self.others, C, scale), model.Y
        else:
            face, b = self.face, self.problem.manifold.b
            held = np.zeros(self.problem.n)
            held[face.pivots] = model.mu[face.pivots]
            constant += float(b @ held)
            reduced = face.cost(less_diagonal(C, held))
            out, Y = Problem(reduced, Oblique(b[face.kept]), norm_C=self.size, cost_scale=scale), face.restrict(model.Y)
        out.cache = self.cache
        return out.at(Y), constant

    def prove(self, model: LocalModel, final: bool) -> Certificate:
        """A certificate of the whole problem from Y and nu."""
        assert self.rigor is not None
        if self.face is None and self.problem.manifold.shift is None:
            self.last = self._lowest(model)
            self.best = self.last  # none of them bounds anything: the latest multipliers are the best
            return self.last
        scale = max(abs(model.cost), model.cost_scale)
        inner, constant = self.fixed(model, scale)
        tol = min(0.8 * self.tol * scale / max(abs(inner.cost), scale), 0.5)
        found = prove(inner, tol, self.rigor, self.rng, final=final, vectors=8, stop=self.record.out_of_time)
        if not final and found.bound == -np.inf and inner.problem.n * -found.eig_min <= self.tol * scale and inner.problem.n <= EXACT:
            found = _exact(inner, found)
        bound = found.bound + constant
        gap_abs = model.cost - bound
        gap = gap_abs / max(scale, abs(bound)) if np.isfinite(bound) else np.inf
        dual = found.dual
        if self.face is not None:
            face, dual = self.face, model.mu.copy()
            dual[face.kept] = found.dual
            found = dataclasses.replace(found, vector=face.lift(found.vector), escape=face.lift(found.escape))
        dual = np.concatenate([dual, self.nu * self.term.scale])
        self.last = dataclasses.replace(found, bound=bound, gap=gap, gap_abs=gap_abs, dual=dual)
        if self.best is None or bound > self.best.bound:
            self.best = self.last
        return self.last

    def _lowest(self, model: LocalModel) -> Certificate:
        """Where nothing bounds X there is no bound, but S shows whether the rank suffices."""
        n, dtype = model.problem.n, model.problem.dtype
        ritz = lanczos(lambda v: model.slack_mul(v[:, None])[:, 0], n, dtype, self.rng, min(n, 128), vectors=8)
        low = ritz.values[: ritz.vectors.shape[1]] < -1e-9 * self.size
        return Certificate(
            bound=-np.inf, gap=np.inf, gap_abs=np.inf, eig_min=float(ritz.values[0]), eig_min_lower=-np.inf, vector=ritz.vectors[:, 0],
            rigor="estimate", gap_rigor="estimate", failure_probability=np.nan, escape=ritz.vectors[:, low],
            dual=np.concatenate([model.mu, self.nu * self.term.scale]),
        )  # fmt: skip

    def report(self, model: LocalModel, found: Certificate) -> None:
        record = self.record
        self.stages.append({
            "rank": model.Y.shape[1], "products": record.products, "time": record.elapsed, "cost": model.cost, "bound": found.bound,
            "gap": found.gap, "eig_min": found.eig_min, "rigor": found.rigor, "infeasibility": model.infeasibility, "sigma": self.sigma,
        })  # fmt: skip
        record.report(
            f"{model.Y.shape[1]:5d} {record.products:9d} {record.elapsed:8.2f} {model.cost:18.10g} "
            + (f"{found.bound:18.10g} {found.gap:9.1e}" if np.isfinite(found.bound) else f"{'none yet':>18} {'':>9}")
            + f" {found.eig_min:9.1e}  infeasibility {model.infeasibility:.1e}"
        )

    def look(self, model: LocalModel) -> bool:
        """Certify, balance sigma, and finish where that is possible."""
        found = self.prove(model, final=False)
        self.report(model, found)
        scale = max(abs(model.cost), model.cost_scale)
        primal = float(np.linalg.norm(self.nu)) * float(np.linalg.norm(self.known(model).lack))
        dual = model.problem.n * max(0.0, -found.eig_min)
        self.curved = is_curved(model, found)
        if primal <= 3 * self.tol * scale and (found.gap <= 3 * self.tol or dual <= self.tol * scale) and self.finish(model, final=False):
            return True
        missing = primal + dual
        self.idle = 0 if missing < 0.9 * self.least else self.idle + 1
        self.least = min(self.least, missing)
        ratio = primal / max(dual, 1e-3 * self.tol * scale, 1e-300)
        eased = ratio < 1 / STRONG and self.inner <= LEAST and self.sigma > self.first  # stiff for nothing: the multipliers are right
        self.sigma *= 4 if ratio > STRONG else 2 if ratio > BALANCE else 0.5 if eased else 1
        self.inner = min(2 * self.inner, INNER) if ratio > BALANCE else max(self.inner / 2, LEAST) if ratio < 1 / BALANCE else self.inner
        return False

    def finish(self, model: LocalModel, final: bool) -> bool:
        """Make the point feasible; its gap to the best bound met, and with ``final`` to one from the point itself."""
        Y, products = refine(self.problem, self.term.at(self.nu, self.sigma), model.Y)
        self.record.products += products
        point = self.merit().at(Y)
        if final and self.rigor is not None and not self._gap(point) <= self.tol:
            self.prove(point, final=True)
        if self.final is None or final or self._gap(point) < self._gap(self.final):
            self.final = point
        return abs(self._gap(point)) <= self.tol and point.infeasibility <= self.tol

    def _gap(self, point: LocalModel | None) -> float:
        if point is None or self.best is None or not np.isfinite(self.best.bound):
            return np.inf
        return (point.cost - self.best.bound) / max(abs(point.cost), abs(self.best.bound), point.cost_scale)

    @property
    def proved(self) -> bool:
        return self.final is not None and abs(self._gap(self.final)) <= self.tol

    def settled(self, model: LocalModel, slope: float) -> bool:
        """Whether point and multipliers are as good as they need to be, where no bound says so."""
        value = float(self.problem.manifold.b @ model.mu) + float(self.term.rhs @ self.nu)
        near = abs(model.cost - value) <= 0.1 * self.tol * max(abs(model.cost), abs(value), model.cost_scale)
        return near and model.infeasibility <= 0.1 * self.tol and slope <= 0.01 * self.tol

    def narrows(self, model: LocalModel) -> bool:
        """Whether far fewer columns hold all of Y, look after look: then `narrow` is that factor."""
        square, V = np.linalg.eigh(model.Y.conj().T @ model.Y)
        rank, k = int(np.sum(square > NULL**2 * square[-1])), model.Y.shape[1]
        wanted = max(rank + max(rank // 4, 2), self.problem.manifold.min_rank)
        self.wide = self.wide + 1 if wanted <= 0.75 * k and k > FEW else 0
        if self.keep or self.wide < 3:
            return False
        Y = np.ascontiguousarray(model.Y @ V[:, k - wanted :])
        self.narrow, self.wide = self.problem.manifold.retract(Y, np.zeros_like(Y)), 0
        return True

    def hopeless(self, model: LocalModel) -> bool:
        """The signs by which low-rank multiplier methods measurably fail."""
        far = self.record.products > SLOW and model.infeasibility > FAR
        return far or self.sigma * self.spread > SIGMA_LIMIT * self.size


def _exact(model: LocalModel, found: Certificate) -> Certificate:
    """The lowest eigenpairs of (S, W) from all of S, where a few Lanczos steps see nothing of what defeats the factorisation."""
    from scipy.linalg import eigh

    n, root = model.problem.n, np.sqrt(model.problem.manifold.row_trace)
    S = model.slack_mul(np.diag(root).astype(model.problem.dtype)) * root[:, None]
    values, V = eigh((S + S.conj().T) / 2, subset_by_index=(0, min(7, n - 1)))
    V = root[:, None] * V
    return dataclasses.replace(found, eig_min=float(values[0]), vector=V[:, 0], escape=np.ascontiguousarray(V[:, values < 0]))
