r"""Proofs of near-optimality at any point (floor L4).

For any multipliers mu and t with ``S + t A*(w) >= 0``, ``S = C - A*(mu)`` and ``A*(w) = W = diag(1 / row_trace)``, weak duality gives
``optimum >= <b, mu> - t <b, w>``.  So a bound needs a lower bound on the smallest eigenvalue of the pencil (S, W):

- *verified*: an error-bounded factorisation of ``S + t W`` (`bmsdp.verified`), its error absorbed by multipliers of its own;
- *probabilistic*: Lanczos from a fresh random start on the complement of the near-kernel Q of S, which is as large as
  rank Y and would stall it.  With ``a = lambda_min(Q* S Q)``, theta a lower bound on Q's complement and ``e = |(I - QQ*) S Q|``:
  ``lambda_min(S) >= (a + theta)/2 - sqrt((a - theta)^2/4 + e^2)``;
- *estimate*: a Ritz value minus its residual.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from .factorization import UNIT, Arrow, BorderedFactor, Elimination, Factor
from .lanczos import LOOKS, Ritz, lanczos, relative_error, start_rng
from .problem import LocalModel, Problem
from .result import Certificate
from .schur import SchurOperator
from .sharpen import sharpened
from .verified import NO_MATRIX, TOO_DENSE, SlackForm, cost_above, sum_down

FAILURE = 1e-6  # default failure probability of a probabilistic bound
CHEAP = 1e7  # flops below which a factorisation is tried before any Lanczos step
GAIN = 1 / 300  # what sharper multipliers may leave of the loss by negative eigenvalues
QUICK = 3e7  # flops below which a second factorisation that only sharpens the bound is worth it


class Slack:
    """S at one model, and what its factorisations need; the analysis of its pattern is kept in ``problem.cache``."""

    def __init__(self, model: LocalModel):
        problem, manifold = model.problem, model.problem.manifold
        self.model, self.manifold = model, manifold
        self.weight = 1 / np.where(manifold.row_trace > 0, manifold.row_trace, np.inf)  # W
        self.form = None if problem.terms else SlackForm.of(problem.C, manifold, model.mu)

    @property
    def tree(self) -> Elimination | Arrow | None:
        """The analysis of S's pattern, done once per problem."""
        cache = self.model.problem.cache
        if "elimination" not in cache:
            cache["elimination"] = None if self.form is None else self.form.analyse()
        found: Elimination | Arrow | None = cache["elimination"]
        return found

    @property
    def n(self) -> int:
        """Rows of S, and ``<b, w>``."""
        return self.model.problem.n

    @property
    def Y(self) -> np.ndarray:
        return self.model.Y

    def factor(self, t: float) -> tuple[Factor | BorderedFactor, np.ndarray]:
        """The factorisation of ``S + t W`` and its diagonal."""
        assert self.form is not None and self.tree is not None
        diagonal = self.form.diagonal + t * self.weight
        return self.form.factor(self.tree, diagonal), diagonal

    def error(self, factor: Factor | BorderedFactor, diagonal: np.ndarray) -> np.ndarray:
        """e (n,) with ``S + t W >= -diag(e)``, for a definite factor."""
        assert self.form is not None
        return factor.error_rows() + self.form.rounding + 4 * UNIT * np.abs(diagonal)

    def slack_mul(self, V: np.ndarray) -> np.ndarray:
        """``S V``, (n, p)."""
        return self.model.slack_mul(V)

    def completed(self, V: np.ndarray) -> np.ndarray:
        """Directions of Y from those of the rows of S."""
        return V

    def scaled_mul(self, v: np.ndarray) -> np.ndarray:
        """``W^{-1/2} S W^{-1/2} v``."""
        root = 1 / np.sqrt(self.weight)
        if v.ndim == 2:
            root = root[:, None]
        V = np.ascontiguousarray(root * v)
        out = self.slack_mul(V.reshape(len(V), -1))
        return root * out.reshape(V.shape)

    @cached_property
    def product_error(self) -> float:
        """A bound on the rounding of products with ``W^{-1/2} S W^{-1/2}``, relative to unit vectors."""
        problem = self.model.problem
        n, longest = problem.n, problem.C.terms
        reach = problem.C.abs_mul(np.ones(n))
        size = problem.norm_C * np.ones(n) if reach is None else reach
        A = self.manifold.matrix(self.model.mu)
        multipliers = np.asarray(abs(A).sum(axis=1)).ravel() if A is not None else np.abs(self.model.mu).max()
        return 4 * (longest + 20) * UNIT * float(np.max((size + multipliers) / self.weight))

    def feasible_dual(self, t: float, extra: np.ndarray) -> tuple[float, np.ndarray]:
        """``(bound, dual)`` for ``mu - w`` with ``A*(w) >= t W + diag(extra)``, the bound rounded down."""
        model, b = self.model, self.manifold.b
        w = self.cover(np.maximum(t * self.weight * (1 + 4 * UNIT) + extra * (1 + 4 * UNIT), 0))
        assert w is not None
        dual = model.mu - w
        terms = b * dual
        slip = 8 * UNIT * float(np.abs(b) @ (np.abs(model.mu) + np.abs(w)))
        return sum_down(np.append(terms, -slip)), dual

    def cover(self, e: np.ndarray) -> np.ndarray | None:
        """Multipliers w with ``A*(w) >= diag(e)``."""
        return self.manifold.cover(e)


def provable(problem: Problem) -> bool:
    """Whether bounds exist: rows of bounded trace, or free ones that can be eliminated, and no term that is no function of X."""
    from .free_rows import eliminated

    return problem.opaque is None and (problem.manifold.shift is not None or eliminated(problem) is not None)


def certify(
    model: LocalModel, tol: float = 1e-6, rigor: str = "auto", rng: Any = None, *, final: bool = True, vectors: int = 1,
    stop: Callable[[], bool] | None = None,
) -> Certificate:  # fmt: skip
    """Bound the optimum from the multipliers at one point; a bound at every point, feasible, optimal or not.

    Parameters
    ----------
    model : LocalModel
    tol : float
        The relative gap to prove, if it can be.
    rigor : {"auto", "verified", "probabilistic", "estimate"}
        "auto" takes the first that is affordable; "verified" raises ValueError where no factorisation is.
    rng : Generator or seed
        Of the Lanczos start, which never depends on Y.
    final : bool
        False: where tol cannot be proved, spend nothing on a verified bound of lesser quality.
    vectors : int
        Directions of negative curvature wanted in ``escape`` (n x p).
    stop : callable, optional
        Asked now and then during Lanczos; True ends it early, with a weaker bound.

    Cost
    ----
    One factorisation (two where cheap) of a matrix with the pattern of C, or 64 to 2048 products with C.
    """
    if rigor not in ("auto", "verified", "probabilistic", "estimate"):
        raise ValueError(f'rigor = {rigor!r}; it must be "auto", "verified", "probabilistic" or "estimate"')
    problem, n = model.problem, model.problem.n
    if problem.norm_C == 0 and not problem.terms:  # C = 0
        entries = problem.C.abs_mul(np.ones(n))
        known = ("verified", 0.0) if entries is not None and not entries.any() else ("probabilistic", FAILURE)
        return _certificate(model, 0.0, np.zeros(problem.manifold.m), 0.0, np.zeros(n, problem.dtype), *known, 0.0)
    if not provable(problem):
        return _certificate(model, -np.inf, model.mu, -np.inf, np.zeros(n), "estimate", np.nan)
    slack = _slack(model)
    if rigor == "verified" and slack.tree is None:
        raise ValueError(NO_MATRIX if slack.form is None else TOO_DENSE)
    if type(slack) is not Slack:
        from .free_rows import certify_free

        return certify_free(slack, tol, rigor, start_rng(rng), final, vectors, stop)  # type: ignore[arg-type]
    probe = Probe(slack, tol, rigor, start_rng(rng), vectors, stop)
    t = (0.9 * tol * max(abs(model.cost), model.cost_scale) - (model.cost - model.dual_value)) / n
    fragile = slack.form is not None and slack.form.is_fragile
    if (rigor == "verified" or rigor == "auto" and not fragile) and slack.tree is not None:
        if t > 0 and (slack.tree.flops <= CHEAP or probe.eig_min(64) > -t):
            found = _factored(slack, t, probe)
            if found is not None:
                return found
        return _sharpened(slack, probe) or _refuted(probe, final, t)
    return _lanczos_bound(probe, final)


def _slack(model: LocalModel) -> Slack:
    from .free_rows import FreeSlack

    problem = model.problem
    return FreeSlack(model) if problem.manifold.shift is None or isinstance(problem.C, SchurOperator) else Slack(model)


def _sharpened(slack: Slack, probe: Probe) -> Certificate | None:
    """The certificate from better multipliers than the point's own, where they are likely to prove ``tol``."""
    model = slack.model
    allowed = probe.tol * max(abs(model.cost), model.cost_scale)
    hopeless = model.cost - model.dual_value - GAIN * model.problem.n * min(probe.eig_min(64), 0.0) > allowed
    other = None if hopeless else sharpened(model, slack.weight)
    if other is None:
        return None
    t = (0.9 * allowed - (model.cost - other.dual_value)) / model.problem.n
    return _factored(Slack(other), t, probe) if t > 0 else None


def _factored(slack: Slack, t: float, probe: Probe) -> Certificate | None:
    """The certificate from a factorisation of ``S + t W``, sharpened where that is cheap; None where it breaks down."""
    factor, diagonal = slack.factor(t)
    if not factor.definite:
        return None
    assert slack.tree is not None
    if slack.tree.flops <= QUICK:
        eig, vector = _smallest(slack, factor, probe.rng)
        sharper = 1.5 * max(-eig, 0.0) + 0.01 * t
        if sharper < 0.5 * t:
            second, second_diagonal = slack.factor(sharper)
            if second.definite:
                t, factor, diagonal = sharper, second, second_diagonal
    else:
        eig, vector = probe.eig_min(64), probe.lowest_vector()
    return _proved(slack, t, factor, diagonal, eig, vector)


def _proved(
    slack: Slack, t: float, factor: Factor | BorderedFactor, diagonal: np.ndarray, eig: float, vector: np.ndarray,
    escape: np.ndarray | None = None,
) -> Certificate:  # fmt: skip
    """The verified certificate of a definite factor of ``S + t W``."""
    assert slack.form is not None
    error = slack.error(factor, diagonal)
    bound, dual = slack.feasible_dual(t, error)
    lower = -float(np.max(t + error / slack.weight))
    return _certificate(slack.model, bound, dual, eig, vector, "verified", 0.0, lower, escape)


def _smallest(slack: Slack, factor: Factor | BorderedFactor, rng: np.random.Generator) -> tuple[float, np.ndarray]:
    """The smallest eigenpair of (S, W), from Lanczos on ``-W^{1/2} (S + t W)^{-1} W^{1/2}``."""
    model, root = slack.model, np.sqrt(slack.weight)
    n, dtype = model.problem.n, model.problem.dtype
    inverse = lanczos(lambda v: -root * factor.solve(root * v), n, dtype, rng, min(12, n))
    vector = inverse.vectors[:, 0] / root
    S_vector = model.slack_mul(np.ascontiguousarray(vector[:, None]))[:, 0]
    return float(np.vdot(vector, S_vector).real), vector


class Probe:
    """Rayleigh quotients of (S, W): the near-kernel Q of S, spanned by Y, and Lanczos on its complement."""

    def __init__(
        self, slack: Slack, tol: float, rigor: str, rng: np.random.Generator, vectors: int, stop: Callable[[], bool] | None = None
    ):
        self.slack, self.tol, self.rigor, self.rng, self.vectors, self.stop = slack, tol, rigor, rng, vectors, stop
        self.root = 1 / np.sqrt(slack.weight)
        self.ritz: Ritz | None = None
        self._deflate(*self._near_kernel())

    def _deflate(self, Q: np.ndarray, SQ: np.ndarray) -> None:
        """Work on the complement of Q from now on."""
        self.Q, self.SQ = Q, SQ
        self.a, self.e, self.inside = np.inf, 0.0, np.zeros(len(Q), Q.dtype)
        if self.Q.shape[1]:
            QSQ = self.Q.conj().T @ self.SQ
            values, V = np.linalg.eigh((QSQ + QSQ.conj().T) / 2)
            self.a, self.inside = float(values[0]), self.Q @ V[:, 0]
            self.e = float(np.linalg.norm(self.SQ - self.Q @ QSQ, 2))

    def _near_kernel(self) -> tuple[np.ndarray, np.ndarray]:
        """Orthonormal Q and ``S Q`` (scaled by W), for the directions of Y with a small residual ``|S q|``."""
        slack, model, problem = self.slack, self.slack.model, self.slack.model.problem
        allowed = self.tol * abs(model.cost) / slack.n
        if relative_error(LOOKS[6], 2 * slack.n, FAILURE) * 4 * problem.norm_C * float(np.max(1 / slack.weight)) < allowed:
            return slack.Y[:, :0], slack.Y[:, :0]  # so loose a tolerance needs no deflation
        Q = np.linalg.qr(np.sqrt(slack.weight)[:, None] * slack.Y)[0]
        SQ = slack.scaled_mul(Q)
        residual, V = np.linalg.eigh(SQ.conj().T @ SQ)
        # a direction costs the bound about residual^2 / theta: keep what fits into ``allowed`` for theta = 1e-3 |S|
        size = problem.norm_C * float(np.max(1 / slack.weight))
        keep = residual <= max(1e-3 * size * allowed, (1e-9 * size) ** 2)
        keep[slack.n - 1 :] = False  # leave Lanczos a dimension
        return Q @ V[:, keep], SQ @ V[:, keep]

    def run(self, steps: int, enough: Callable[[Ritz], bool] | None = None) -> Ritz:
        """Lanczos on the complement of Q, from a fresh random start."""
        problem = self.slack.model.problem
        arguments = (self.slack.scaled_mul, self.slack.n, problem.dtype, self.rng, steps)
        self.ritz = lanczos(*arguments, deflate=self.Q, vectors=self.vectors, enough=enough, stop=self.stop)
        return self.ritz

    def eig_min(self, steps: int) -> float:
        """The lowest Rayleigh quotient met: an upper bound on the smallest eigenvalue."""
        ritz = self.ritz if self.ritz is not None else self.run(steps)
        return min(self.a, float(ritz.values[0]))

    def below(self, ritz: Ritz) -> float:
        """A lower bound on the smallest eigenvalue: certain, probable, or (rigor "estimate") a Ritz value minus its residual."""
        if self.rigor == "estimate":
            theta = float(ritz.values[0] - ritz.residuals[0])
        else:
            theta = ritz.lower_bound(FAILURE / (2 * len(LOOKS)))
        if self.Q.shape[1] and np.isfinite(theta):
            theta = 0.5 * (self.a + theta) - float(np.hypot(0.5 * (self.a - theta), self.e))
        return theta - self.slack.product_error

    def extend(self) -> None:
        """Deflate the converged Ritz vectors as well: what remains has a larger smallest eigenvalue, seen in fewer steps."""
        assert self.ritz is not None
        done = self.ritz.residuals <= 1e-8 * float(np.abs(self.ritz.values).max())
        free = self.slack.n - 1 - self.Q.shape[1]
        V = self.ritz.vectors[:, done[: self.ritz.vectors.shape[1]]][:, :free] if self.ritz.vectors.size else self.Q[:, :0]
        if V.shape[1]:
            Q = np.linalg.qr(np.concatenate([self.Q, V], axis=1))[0]
            self._deflate(Q, self.slack.scaled_mul(Q))

    def lowest_vector(self) -> np.ndarray:
        """The vector of `eig_min`, scaled to ``v* W v = 1``."""
        assert self.ritz is not None
        if self.a < self.ritz.values[0] or not self.ritz.vectors.size:
            return self.slack.completed(self.root * self.inside)
        return self.slack.completed(self.root * self.ritz.vectors[:, 0])

    def escape(self) -> np.ndarray:
        """Directions of negative curvature outside the near-kernel, n x p."""
        assert self.ritz is not None
        V = self.ritz.vectors
        empty = np.zeros((len(self.slack.model.Y), 0))
        return self.slack.completed(self.root[:, None] * V[:, self.ritz.values[: V.shape[1]] < 0]) if V.size else empty


def _refuted(probe: Probe, final: bool, t: float = 0.0) -> Certificate:
    """tol cannot be proved by factorisation of ``S + t W``: how far it is off, and with ``final`` a verified bound all the same."""
    slack, model = probe.slack, probe.slack.model
    eig = probe.eig_min(64)
    vector, escape = probe.lowest_vector(), probe.escape()
    if eig > -t:  # 64 Lanczos steps do not see what broke the factorisation, but a negative pivot does
        value, direction = _pivot_direction(slack, t)
        if value < min(eig, 0.0):
            eig, vector, escape = value, direction, direction[:, None]
    if not final:
        return _certificate(model, -np.inf, model.mu, eig, vector, "estimate", np.nan, -np.inf, escape)
    assert slack.tree is not None
    first = 1e-3 if slack.tree.flops <= QUICK else 0.1
    least = 1e-13 * model.problem.norm_C * float(np.max(1 / slack.weight))
    for margin in first * 4.0 ** np.arange(40):  # Ritz values err on the unsafe side: raise t until the factorisation goes through
        t = max(-eig, 0.0) * (1 + margin) + margin / first * least
        factor, diagonal = slack.factor(t)
        if factor.definite:
            return _proved(slack, t, factor, diagonal, eig, vector, escape)
    return _certificate(model, -np.inf, model.mu, eig, vector, "estimate", np.nan, -np.inf, escape)


def _pivot_direction(slack: Slack, t: float) -> tuple[float, np.ndarray]:
    """(v* S v, v) with ``v* W v = 1`` from a negative pivot of ``S + t W``: about -t or less; infinity where there is none."""
    factor, _ = slack.factor(t)
    v = np.zeros(slack.n) if factor.definite or not isinstance(factor, Factor) else factor.negative_direction()
    size = float(np.abs(v) ** 2 @ slack.weight)
    if not (size > 0 and np.isfinite(v).all()):
        return np.inf, v
    v = v / np.sqrt(size)
    return float(np.vdot(v, slack.slack_mul(np.ascontiguousarray(v[:, None]))[:, 0]).real), v


def _lanczos_bound(probe: Probe, final: bool) -> Certificate:
    """The certificate from Lanczos alone."""
    model, n = probe.slack.model, probe.slack.n

    def gap(eig: float) -> float:
        return (model.cost - model.dual_value - n * eig) / max(abs(model.cost), model.cost_scale)

    def enough(ritz: Ritz) -> bool:
        lowest, lower = min(float(ritz.values[0]), probe.a), probe.below(ritz)
        settled = lower > lowest - 0.5 * abs(lowest)  # more steps would change little
        return gap(lower) <= probe.tol or settled or not final and gap(lowest) > probe.tol

    probe.vectors, wanted = max(32, probe.vectors), probe.vectors
    ritz = probe.run(512, enough)
    lower = probe.below(ritz)
    eig, vector, escape = probe.eig_min(64), probe.lowest_vector(), probe.escape()[:, :wanted]
    if not (enough(ritz) or probe.stop is not None and probe.stop()):
        probe.extend()
        lower = max(lower, probe.below(probe.run(LOOKS[-1] if final else 1024, enough)))
    if not np.isfinite(lower):
        return _certificate(model, -np.inf, model.mu, eig, vector, "estimate", np.nan, -np.inf, escape)
    bound, dual = probe.slack.feasible_dual(max(-lower, 0.0), np.zeros(n))
    known = ("estimate", np.nan) if probe.rigor == "estimate" else ("probabilistic", FAILURE)
    return _certificate(model, bound, dual, eig, vector, *known, lower, escape)


def _certificate(
    model: LocalModel, bound: float, dual: np.ndarray, eig: float, vector: np.ndarray, rigor: str, failure: float,
    lower: float = -np.inf, escape: np.ndarray | None = None,
) -> Certificate:  # fmt: skip
    upper, known = _cost_above(model) if rigor == "verified" else (model.cost, rigor)
    gap_abs = upper - bound
    scale = max(abs(upper), abs(bound), model.cost_scale)
    gap = gap_abs / scale if scale > 0 and np.isfinite(bound) else (0.0 if gap_abs == 0 else np.inf)
    return Certificate(
        bound=bound, gap=gap, gap_abs=gap_abs, eig_min=eig, eig_min_lower=lower, vector=vector, rigor=rigor, gap_rigor=known,
        failure_probability=failure, dual=dual, escape=escape if escape is not None else np.zeros((len(vector), 0)),
        mu=model.mu,
    )  # fmt: skip


def _cost_above(model: LocalModel) -> tuple[float, str]:
    """The cost of an exactly feasible point next to Y, rounded up."""
    distance = model.problem.manifold.defect(model.Y)
    upper = cost_above(model.problem.C, model.Y, distance) if np.isfinite(distance).all() else None
    return (model.cost, "estimate") if upper is None else (upper, "verified")
