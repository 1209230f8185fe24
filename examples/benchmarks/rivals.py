"""What a user would pick instead, timed to the same certified gap.

Every method runs against a `Watch`: a CPU clock that stands still while the point reached so far is certified by
`bmsdp.certify`.  The first point that is certified ends the run.  The time of that one successful certification is then
added, because bmsdp pays for its certificates too (for all of them, the futile ones included).  So a rival is told for
free when to stop, which no user of it is.  It also gets the rank that bmsdp ended with, and what a certificate needs to
know of the pattern of C is analysed before.

pymanopt's trust regions and SciPy's L-BFGS-B: at every gradient.  CVXPY's solvers: they show no iterates, so they are run
to ever tighter tolerances, and the first run that suffices counts, alone.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pymanopt
import scipy.sparse as sp
from pymanopt.manifolds import Oblique, Stiefel
from pymanopt.optimizers import TrustRegions
from scipy.optimize import minimize

import bmsdp
from bmsdp.problem import LocalModel, Problem

NEAR = 1e-2  # relative gradient above which no point is worth a certificate
LOOKS = 1.05  # the clock advances by this factor between two looks: a rival's time is known to 5 %


@dataclass(frozen=True)
class Run:
    """One method on one instance: CPU seconds until ``gap``, which is certified with ``rigor``, whatever it is."""

    method: str
    seconds: float
    gap: float
    rigor: str
    rank: int
    reached: bool
    note: str = ""
    trace: list[tuple[float, float]] = field(default_factory=list, repr=False)


class Reached(Exception):
    """The gap is certified."""


class Late(Exception):
    """The time limit is over."""


class Watch:
    """A CPU clock that stands still while a point is being certified; with ``trace`` it notes the gap at every look."""

    def __init__(self, problem: Problem, tol: float, limit: float, looks: float = LOOKS, trace: bool = False):
        self.problem, self.tol, self.limit, self.looks, self.traced = problem, tol, limit, looks, trace
        self.trace: list[tuple[float, float]] = []
        self.found: bmsdp.Certificate | None = None
        self.factor: Callable[[], np.ndarray] = lambda: problem.random_point(2, np.random.default_rng(0))
        self.next, self.paused, self.seconds = 0.0, 0.0, np.nan
        self.start = time.process_time()

    @property
    def clock(self) -> float:
        return time.process_time() - self.start - self.paused

    def tick(self) -> None:
        """Between two looks."""
        if self.clock > self.limit:
            raise Late

    def look(self, factor: Callable[[], np.ndarray]) -> None:
        """Certify the feasible n x k array ``factor()`` when it is time to."""
        now, begin = self.clock, time.process_time()
        self.factor = factor
        if now >= self.next:
            self.next = now * self.looks
            model = self._model()
            if model.grad_norm <= NEAR * model.grad_scale or self.traced:
                self._certify(model, now)
        self.paused += time.process_time() - begin
        if now > self.limit:
            raise Late

    def _certify(self, model: LocalModel, now: float) -> None:
        start = time.process_time()
        found = bmsdp.certify(model, self.tol, rng=0, final=self.traced)
        self.trace.append((now, found.gap))
        if found.gap <= self.tol:
            self.found, self.seconds = found, now + time.process_time() - start
            raise Reached

    def result(self, method: str, note: str = "") -> Run:
        """What the run came to; where tol was not reached, the gap of its last point."""
        reached, seconds = self.found is not None, self.seconds if self.found is not None else self.clock
        model = self._model()
        found = self.found or bmsdp.certify(model, self.tol, rng=0)
        return Run(method, seconds, found.gap, found.rigor, model.Y.shape[1], reached or found.gap <= self.tol, note, self.trace)

    def _model(self) -> LocalModel:
        Y = np.ascontiguousarray(self.factor())
        return self.problem.at(self.problem.manifold.retract(Y, np.zeros_like(Y)))


def ours(read: Callable[[], tuple[Any, Any]], tol: float, seed: int, **options: Any) -> tuple[Run, bmsdp.Result]:
    """`bmsdp.solve` on ``C, A = read()``: reading, analysis, descent and all certificates are timed."""
    start = time.process_time()
    C, A = read()
    result = bmsdp.solve(C, A, tol=tol, rng=seed, progress=False, **options)
    seconds = time.process_time() - start
    assert result.certificate is not None
    note = "" if result.status is bmsdp.Status.CERTIFIED else result.status.name
    rigor = result.certificate.rigor
    return Run("bmsdp", seconds, result.gap, rigor, result.rank, result.status is bmsdp.Status.CERTIFIED, note), result


def pymanopt_trust_regions(problem: Problem, rank: int, watch: Watch, seed: int) -> Run:
    """TrustRegions on pymanopt's Oblique (unit columns) or Stiefel, cost and derivatives by hand.

    Given radii are scaled into C.  Complex rows of C^k are real rows of R^2k.  The product with C at the last point is kept,
    which pymanopt itself would repeat for cost, gradient and every Hessian.
    """
    C, radius = _cost(problem)
    k, n, complex_ = rank, problem.n, problem.C.is_complex
    if isinstance(problem.manifold, bmsdp.StiefelProduct):
        q, d = problem.manifold.q, problem.manifold.d
        manifold: Any = Stiefel(k, d, k=q) if q > 1 else Stiefel(k, d)
        into = lambda P: P.transpose(0, 2, 1).reshape(n, k)  # noqa: E731
        back = lambda Y: Y.reshape(q, d, k).transpose(0, 2, 1)  # noqa: E731
    else:
        manifold = Oblique(2 * k if complex_ else k, n)
        into = (lambda P: P[:k].T + 1j * P[k:].T) if complex_ else (lambda P: P.T)
        back = (lambda Y: np.concatenate([Y.real.T, Y.imag.T])) if complex_ else (lambda Y: Y.T)
    kept: list[Any] = [None, None]
    seen: list[Any] = [None]

    def half_gradient(P: np.ndarray) -> np.ndarray:
        if kept[0] is not P:
            kept[:] = P, back(C @ into(P))
        return kept[1]

    @pymanopt.function.numpy(manifold)
    def cost(P: np.ndarray) -> float:
        return float(np.vdot(half_gradient(P), P))

    @pymanopt.function.numpy(manifold)
    def gradient(P: np.ndarray) -> np.ndarray:
        G = 2 * half_gradient(P)
        if seen[0] is not P:
            seen[0] = P
            watch.look(lambda: radius[:, None] * into(P))
        return G

    @pymanopt.function.numpy(manifold)
    def hessian(P: np.ndarray, U: np.ndarray) -> np.ndarray:
        watch.tick()
        return 2 * back(C @ into(U))

    Y0 = problem.random_point(k, np.random.default_rng(seed)) / radius[:, None]
    task = pymanopt.Problem(manifold, cost, euclidean_gradient=gradient, euclidean_hessian=hessian)
    stop = {"max_time": 1e9, "max_iterations": 10**9, "min_gradient_norm": 1e-14 * problem.norm_C, "verbosity": 0}
    try:
        note = TrustRegions(**stop).run(task, initial_point=np.ascontiguousarray(back(Y0))).stopping_criterion
    except Reached:
        note = ""
    except Late:
        note = "time limit"
    return watch.result("pymanopt TR", note)


def scipy_lbfgs(problem: Problem, rank: int, watch: Watch, seed: int) -> Run | None:
    """SciPy's L-BFGS-B over all Z, ``Y = Z`` with its rows normalised; None where rows are tied into Stiefel blocks."""
    if isinstance(problem.manifold, bmsdp.StiefelProduct):
        return None
    C, radius = _cost(problem)
    n, k, complex_ = problem.n, rank, problem.C.is_complex

    def value(z: np.ndarray) -> tuple[float, np.ndarray]:
        Z = z.reshape(n, -1)
        size = np.sqrt(np.einsum("ij,ij->i", Z, Z))[:, None]
        P = Z / size
        Y = P.view(complex) if complex_ else P
        watch.look(lambda: radius[:, None] * Y)
        G = np.ascontiguousarray(C @ Y)
        G = G.view(float) if complex_ else G
        inward = np.einsum("ij,ij->i", G, P)[:, None]
        return float(inward.sum()), (2 * (G - inward * P) / size).ravel()

    Y0 = problem.random_point(k, np.random.default_rng(seed)) / radius[:, None]
    z0 = np.ascontiguousarray(Y0).view(float).ravel()
    options = {"maxiter": 10**9, "maxfun": 10**9, "ftol": 0.0, "gtol": 0.0, "maxcor": 10}
    try:
        note = str(minimize(value, z0, jac=True, method="L-BFGS-B", options=options).message)
    except Reached:
        note = ""
    except Late:
        note = "time limit"
    return watch.result("SciPy L-BFGS-B", note)


def cvxpy_solver(problem: Problem, solver: str, tol: float, limit: float) -> Run:
    """CVXPY with "SCS" or "CLARABEL" on the dual, ``max <b, y>, C - A*(y) >= 0``, which suits Clarabel far better than X does.

    Compiling counts, as its user pays for it at every new C; the tolerances tried before do not.
    """
    method, begin, run = f"CVXPY {'SCS' if solver == 'SCS' else 'Clarabel'}", time.process_time(), None
    for eps in (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8):
        options = {"eps": eps, "max_iters": 10**6, "time_limit_secs": limit}
        if solver == "CLARABEL":
            options = {"tol_gap_rel": eps, "tol_gap_abs": eps, "tol_feas": eps, "time_limit": limit, "max_threads": 1}
        run = _cvxpy_run(problem, method, solver, tol, options)
        if run.reached or time.process_time() - begin > limit:
            break
    assert run is not None
    if run.reached:
        return run
    why = [run.note, "time limit" if time.process_time() - begin > limit else "", f"tolerance {eps:.0e}"]
    return replace(run, note=", ".join(filter(None, why)))


def _cvxpy_run(problem: Problem, method: str, solver: str, tol: float, options: dict[str, Any]) -> Run:
    import cvxpy as cp

    C, manifold, n = problem.C.matrix(), problem.manifold, problem.n
    C = C.toarray() if sp.issparse(C) else C
    start = time.process_time()
    y = cp.Variable(manifold.m)
    columns = [sp.csc_array(manifold.matrix(e)).reshape((n * n, 1), order="C") for e in np.eye(manifold.m)]
    rows = [C - cp.reshape(sp.hstack(columns, format="csc") @ y, (n, n), order="C") >> 0]
    task = cp.Problem(cp.Maximize(manifold.b @ y), rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "the solution may be inaccurate": the certificate says how much
        try:
            task.solve(solver=solver, **options)
        except cp.error.SolverError as error:
            return Run(method, time.process_time() - start, np.inf, "estimate", 0, False, str(error)[:60])
    if y.value is None:
        return Run(method, time.process_time() - start, np.inf, "estimate", 0, False, task.status)
    lam, V = np.linalg.eigh(rows[0].dual_value)
    keep = lam > 1e-12 * lam[-1]
    Y = np.ascontiguousarray(V[:, keep] * np.sqrt(lam[keep]))
    point = problem.at(manifold.retract(Y, np.zeros_like(Y)))
    found = bmsdp.certify(_WithMultipliers(problem, point.Y, y.value), tol, rng=0)
    seconds = time.process_time() - start
    if found.gap > tol:  # perhaps the multipliers of the point prove more
        found = min(found, bmsdp.certify(point, tol, rng=0), key=lambda c: c.gap)
    note = task.status if task.status != "optimal" else ""
    return Run(method, seconds, found.gap, found.rigor, int(keep.sum()), found.gap <= tol, note)


class _WithMultipliers(LocalModel):
    """A point whose bound is to be formed from given multipliers: any are valid."""

    def __init__(self, problem: Problem, Y: np.ndarray, mu: np.ndarray):
        super().__init__(problem, Y)
        self._mu = mu

    @property
    def mu(self) -> np.ndarray:
        return self._mu


def _cost(problem: Problem) -> tuple[Any, np.ndarray]:
    """C with the radii scaled in, and the radii."""
    C: Any = problem.C.matrix()
    if isinstance(problem.manifold, bmsdp.StiefelProduct):
        return C, np.ones(problem.n)
    radius = problem.manifold.radius
    if (radius == 1).all():
        return C, radius
    scaled = sp.csr_array(sp.diags_array(radius) @ C @ sp.diags_array(radius)) if sp.issparse(C) else radius[:, None] * C * radius
    return scaled, radius
