r"""Bounds where rows of X are free: eliminated translations, variables that no constraint sees (floor L4).

A*(w) is 0 on free rows, so that ``S + t A*(w) >= 0`` asks for ``S_ff > 0`` there and, on the other rows, for
``S_bb - S_bf S_ff^{-1} S_fb + t W >= 0``: the pencil of a Schur complement, whose smallest eigenvalue the bound needs.  On free rows
nothing pays for the rounding of a factorisation either: what is factored there is ``S - diag(beta)``, beta above that rounding.

Free rows are those of `Unconstrained` parts, or those that a `SchurOperator` has eliminated already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

from .certificate import Probe, Slack, _certificate, _lanczos_bound, _proved
from .factorization import UNIT, Arrow, BorderedFactor, Elimination, Factor
from .lanczos import lanczos
from .manifolds import Manifold, Product, Unconstrained
from .problem import LocalModel, Problem
from .result import Certificate
from .schur import SchurOperator
from .slack_form import SlackForm

DENSE_LIMIT = 4000  # rows of a dense cost up to which free ones are eliminated
SPARSE_LIMIT = 2e10  # flops of the sparse phase of a factorisation: half a minute
SPARE = 1.25  # beta over the rounding met before
RAISES = 60  # of t, at most, each by a factor of 3 or to what a direction of negative curvature asks for


def free_mask(manifold: Manifold) -> np.ndarray:
    """Which rows belong to `Unconstrained` parts, (n,) of bool."""
    if isinstance(manifold, Product):
        return np.concatenate([free_mask(part) for part in manifold.parts])
    return np.full(manifold.n, isinstance(manifold, Unconstrained))


def eliminated(problem: Problem) -> SchurOperator | None:
    """The cost on the rows that are not free; None where no row is bounded, others than free ones are not, or S_ff is not definite."""
    if "schur" not in problem.cache:
        problem.cache["schur"] = _eliminate(problem)
    found: SchurOperator | None = problem.cache["schur"]
    return found


def _eliminate(problem: Problem) -> SchurOperator | None:
    if isinstance(problem.C, SchurOperator):
        return problem.C
    free, C = free_mask(problem.manifold), problem.C.matrix()
    known = C is not None and not problem.terms and (sp.issparse(C) or problem.n <= DENSE_LIMIT)
    if not known or free.all() or not np.array_equal(free, problem.manifold.row_trace <= 0):
        return None
    order = np.concatenate([np.flatnonzero(~free), np.flatnonzero(free)])
    try:
        return SchurOperator(sp.csr_array(sp.csr_array(C)[order][:, order]), int(np.count_nonzero(~free)))
    except ValueError:
        return None


class FreeSlack(Slack):
    """`Slack` on the rows that are not free; ``form``, ``tree`` and `factor` are those of all rows."""

    def __init__(self, model: LocalModel):
        problem = model.problem
        schur = eliminated(problem)
        assert schur is not None  # `certify` has asked
        self.model, self.manifold, self.schur = model, problem.manifold, schur
        self.apart = isinstance(problem.C, SchurOperator)  # the free rows are no rows of Y
        whole = Product([self.manifold, Unconstrained(schur.whole.n - schur.n)]) if self.apart else self.manifold
        self.open = free_mask(whole)
        self.bounded = np.flatnonzero(~self.open)
        self.weight = 1 / whole.row_trace[self.bounded]
        self._error: tuple[Any, np.ndarray] = (None, np.zeros(0))  # of the last factor, not to be computed twice
        self.form = SlackForm.of(schur.whole if self.apart else problem.C, whole, model.mu)

    @property
    def tree(self) -> Elimination | Arrow | None:
        """The analysis of S's pattern; patient, because Lanczos is no alternative where the spectrum is as wide as here."""
        cache = self.model.problem.cache
        if "elimination" not in cache:
            cache["elimination"] = None if self.form is None else self.form.analyse(SPARSE_LIMIT)
        found: Elimination | Arrow | None = cache["elimination"]
        return found

    @property
    def n(self) -> int:
        return self.schur.n

    @property
    def Y(self) -> np.ndarray:
        return self.model.Y if self.apart else self.model.Y[self.bounded]

    def factor(self, t: float) -> tuple[Factor | BorderedFactor, np.ndarray]:
        """The factorisation of ``S + t W - diag(beta)``, beta made large enough for its own rounding on free rows."""
        assert self.form is not None and self.tree is not None
        cache, weight = self.model.problem.cache, np.zeros(len(self.open))
        weight[self.bounded] = self.weight
        for _ in range(5):
            beta = cache.get("beta", np.zeros(len(self.open)))
            diagonal = self.form.diagonal + t * weight - beta
            factor = self.form.factor(self.tree, diagonal)
            if not factor.definite:
                return factor, diagonal
            error = self._rounding(factor, diagonal) + self.form.rounding + 4 * UNIT * (np.abs(diagonal) + beta)
            if (error <= beta)[self.open].all():
                self._error = (factor, error)
                break
            cache["beta"] = np.where(self.open, np.maximum(SPARE * error, beta), 0.0)
        return factor, diagonal

    def settled(self, factor: Factor | BorderedFactor) -> bool:
        """Whether beta covers the rounding of this factor, the last one."""
        return self._error[0] is factor

    def _rounding(self, factor: Any, diagonal: np.ndarray) -> np.ndarray:
        """The error of a factorisation: a bound, or where that was too large, the residual."""
        assert self.form is not None
        exact = self.form.residual_rows(factor, diagonal) if self.model.problem.cache.get("sharp") else None
        return factor.error_rows() if exact is None else exact

    def error(self, factor: Factor | BorderedFactor, diagonal: np.ndarray) -> np.ndarray:
        assert self.settled(factor)
        return self._error[1][self.bounded]

    def slack_mul(self, V: np.ndarray) -> np.ndarray:
        """The Schur complement of S times V, (n, p)."""
        out, full = self.schur.mul(V), V
        if not self.apart:
            full = np.zeros((len(self.open), V.shape[1]), V.dtype)
            full[self.bounded] = V
        A_V = self.manifold.adjoint_mul(self.model.mu, full)
        out -= A_V if self.apart else A_V[self.bounded]
        return out

    def completed(self, V: np.ndarray) -> np.ndarray:
        """Rows of Y from those that are not free: the others minimise."""
        if self.apart:
            return V
        out = np.empty((len(self.open), *V.shape[1:]), V.dtype)
        out[self.bounded], out[self.open] = V, self.schur.eliminated(V)
        return out

    def solve(self, factor: Factor | BorderedFactor, v: np.ndarray) -> np.ndarray:
        """``(S/S_ff + t W)^{-1} v``: the inverse of a Schur complement is a block of the inverse."""
        full = np.zeros(len(self.open), v.dtype)
        full[self.bounded] = v
        return factor.solve(full)[self.bounded]

    @property
    def product_error(self) -> float:
        A = self.manifold.matrix(self.model.mu)
        multipliers = float(np.asarray(abs(A).sum(axis=1)).max()) if A is not None else float(np.abs(self.model.mu).max())
        cache = self.model.problem.cache
        if "product size" not in cache:
            cache["product size"] = self.schur.product_size(np.random.default_rng(0))
        return 4 * (self.schur.terms + 20) * UNIT * (cache["product size"] + multipliers) / float(self.weight.min())

    def cover(self, e: np.ndarray) -> np.ndarray | None:
        full = e
        if not self.apart:
            full = np.zeros(len(self.open))
            full[self.bounded] = e
        return self.manifold.cover(full)


def certify_free(
    slack: FreeSlack, tol: float, rigor: str, rng: np.random.Generator, final: bool, vectors: int, stop: Callable[[], bool] | None
) -> Certificate:
    """`bmsdp.certify` with free rows: the factorisation is tried first, because the spectrum of S is too wide for Lanczos."""
    model = slack.model
    t = (0.9 * tol * max(abs(model.cost), model.cost_scale) - (model.cost - model.dual_value)) / slack.n
    if rigor in ("auto", "verified") and slack.tree is not None:
        return _raised(slack, t, rng, vectors)
    return _lanczos_bound(Probe(slack, tol, rigor, rng, vectors, stop), final)


def _raised(slack: FreeSlack, wanted: float, rng: np.random.Generator, vectors: int) -> Certificate:
    """The verified bound from the smallest t that goes through, the one wanted if that does."""
    model, cache = slack.model, slack.model.problem.cache
    t, factor, diagonal = _definite(slack, wanted)
    if factor is None:
        return _certificate(model, -np.inf, model.mu, -np.inf, np.zeros(len(model.Y), model.Y.dtype), "estimate", np.nan)
    reached = wanted > 0 and t <= wanted
    eig, V = _lowest(slack, factor, rng, 1 if reached else max(vectors, 4))
    if not reached and wanted > 0 and -eig < 0.5 * wanted and not cache.get("sharp"):
        cache["sharp"] = True  # it is the bound on rounding that costs too much: form the errors themselves from now on
        cache.pop("beta", None)
        return _raised(slack, wanted, rng, vectors)
    sharper = 1.5 * max(-eig, 0.0) + 0.01 * t
    if sharper < 0.5 * t:
        second, second_diagonal = slack.factor(sharper)
        if second.definite and slack.settled(second):
            t, factor, diagonal = sharper, second, second_diagonal
    return _proved(slack, t, factor, diagonal, eig, slack.completed(V[:, 0]), None if reached else slack.completed(V))


def _definite(slack: FreeSlack, wanted: float) -> tuple[float, Any, np.ndarray]:
    """(t, factor, diagonal): the first t from the one wanted upwards that makes S definite; no factor if none does."""
    assert slack.form is not None
    t, failed = max(wanted, 1e-15 * slack.model.problem.norm_C / float(slack.weight.min())), 0.0
    for _ in range(RAISES):
        factor, diagonal = slack.factor(t)
        if factor.definite and slack.settled(factor):
            return t, factor, diagonal
        if not factor.definite:
            v = factor.negative_direction()
            size = float(np.abs(v[slack.bounded]) ** 2 @ slack.weight)
            failed = max(failed, -slack.form.quotient(v) / size if size > 0 else 0.0)
        failed = max(failed, t)
        t = max(1.05 * failed, 3 * t)
    return t, None, diagonal


def _lowest(slack: FreeSlack, factor: Any, rng: np.random.Generator, vectors: int) -> tuple[float, np.ndarray]:
    """The lowest eigenvalue of the pencil and vectors (n x p, ``v* W v = 1``), those of negative curvature if more than one is wanted."""
    problem, root = slack.model.problem, np.sqrt(slack.weight)
    steps = min(12 if vectors == 1 else 30, slack.n)
    inverse = lanczos(lambda v: -root * slack.solve(factor, root * v), slack.n, problem.dtype, rng, steps, vectors=vectors)
    V = np.ascontiguousarray(inverse.vectors / root[:, None])
    values = np.einsum("ij,ij->j", V.conj(), slack.slack_mul(V)).real
    order = np.argsort(values)
    keep = order[:1] if vectors == 1 else order[(values[order] < 0) | (np.arange(len(order)) == 0)]
    return float(values[order[0]]), V[:, keep]
