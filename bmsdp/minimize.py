"""One loop around every solver: stopping, limits, history, callback, progress, Ctrl-C (floor L4)."""

from __future__ import annotations

import functools
import platform
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from ._version import __version__
from .curvature import ESCAPES, Curvature, curvature, escape_saddle
from .problem import NO_SLACK, LocalModel, Problem
from .result import Data, Result, Status

Check = Callable[[LocalModel], float | None]


class Solver(Protocol):
    """A frozen dataclass of parameters whose `iterates` never stops, prints, times or logs."""

    def iterates(self, problem: Problem, Y: np.ndarray) -> Iterator[tuple[LocalModel, dict[str, Any]]]:
        """Yield ``(model, info)`` for ever.

        A model owns its Y until the next ``next()``.  ``info`` holds "products" (so far) and, where they are free,
        "merit", "grad_norm" (an estimate), "inner" (True between iterations), "stalled" (True at a standstill) and "solver" (which of
        several runs, and why).
        The caller may write "target" into it, the gradient norm that is wanted: nothing needs to be solved beyond.
        """
        ...


class Record:
    """What one run shares over its stages: clock, limits, history, callback, progress bar."""

    columns = ("nit", "time", "products", "rank", "merit", "grad_norm", "gap")

    def __init__(
        self,
        max_iter: int | None = None,
        max_time: float | None = None,
        callback: Callable[[LocalModel, dict[str, Any]], object] | None = None,
        progress: bool | None = None,
        report: Callable[[str], None] | None = None,
    ):
        self.max_iter, self.max_time, self.callback, self.report = max_iter, max_time, callback, report or (lambda line: None)
        from .kernels import spmm  # noqa: F401  Ctrl-C within Numba's own import would leave it broken, and the run has to go on to its end

        self.start = time.perf_counter()
        self.reserve = 0.0  # part of max_time kept for the last certificate
        self.nit = self.products = 0
        self.solver: str | None = None
        self.rows: list[tuple[float, ...]] = []
        self.bar: Any = None
        if progress or (progress is None and sys.stderr.isatty()):
            try:
                from tqdm import tqdm
            except ImportError:
                if progress:
                    raise ImportError('the progress bar needs tqdm: pip install "bmsdp[plot]"') from None
            else:
                self.bar = tqdm(unit="it", leave=False, delay=0.5)

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.start

    def out_of_time(self, part: float = 1.0) -> bool:
        return self.max_time is not None and self.elapsed >= part * self.max_time

    def add(self, model: LocalModel, info: dict[str, Any], products: int, gap: float = np.nan) -> Status | None:
        """Note one iterate; returns the limit that it reached, if any."""
        self.products = products
        self.nit += not info.get("inner", False)
        if info.get("solver") != self.solver:
            self.solver = info.get("solver")
            self.report(f"      {self.solver}")
        merit = info["merit"] if "merit" in info else model.merit
        grad_norm = info["grad_norm"] if "grad_norm" in info else model.grad_norm
        self.rows.append((self.nit, self.elapsed, products, model.Y.shape[1], merit, grad_norm, gap))
        if self.bar is not None:
            self.bar.update(self.nit - self.bar.n)
            self.bar.set_postfix_str(f"rank {model.Y.shape[1]}  cost {merit:.9g}  |grad| {grad_norm:.2e}", refresh=False)
        if self.callback is not None:
            try:
                self.callback(model, info)
            except StopIteration:
                return Status.INTERRUPTED
        if self.out_of_time(1 - self.reserve):
            return Status.MAX_TIME
        return Status.MAX_ITER if self.max_iter is not None and self.nit >= self.max_iter else None

    def history(self) -> dict[str, np.ndarray]:
        table = np.array(self.rows, float).reshape(-1, len(self.columns))
        return dict(zip(self.columns, table.T.copy(), strict=True))

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


@functools.cache
def _versions() -> dict[str, str]:
    from importlib.metadata import version  # numba is not imported for its number

    return {"bmsdp": __version__, "python": platform.python_version()} | {name: version(name) for name in ("numpy", "scipy", "numba")}


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    return dict(_versions())


def descend(
    problem: Problem, solver: Solver, Y: np.ndarray, tol: float, record: Record, check: Check | None = None, eps_g: float | None = None
) -> tuple[LocalModel, Status]:
    """Run ``solver`` until ``grad_norm <= tol grad_scale`` (``eps_g`` where that is given) and ``check``, asked there, is content.

    ``check(model)`` returns None to stop or a smaller tol to go on with.  Free estimates of the gradient decide when the
    true one is worth a product.  Returns a model that owns its Y, and LOCALLY_OPTIMAL, STALLED, a limit or INTERRUPTED.
    """
    before, model = record.products, None
    try:
        for model, info in solver.iterates(problem, Y):
            limit = record.add(model, info, before + info.get("products", 0))
            if limit is not None:
                return model.copy(), limit
            info["target"] = small = tol * model.grad_scale if eps_g is None else eps_g
            if info.get("inner", False):
                continue
            stalled = info.get("stalled", False)
            free = info.get("grad_norm")
            if (free is None or free <= small or stalled) and (model.grad_norm <= small or stalled):
                tighter = check(model) if check is not None else None
                if tighter is None:
                    critical = model.grad_norm <= small
                    return model.copy(), Status.LOCALLY_OPTIMAL if critical else Status.STALLED
                if stalled:
                    return model.copy(), Status.STALLED
                tol = tighter
                info["target"] = tol * model.grad_scale
    except KeyboardInterrupt:
        return problem.at((model.Y if model is not None else Y).copy()), Status.INTERRUPTED
    raise RuntimeError(f"{type(solver).__name__}.iterates ended; a solver has to yield for ever")


def descend_to_second_order(
    problem: Problem, solver: Solver, Y: np.ndarray, tol: float, eps_g: float | None, eps_H: float | None, record: Record, rng: Any
) -> tuple[LocalModel, Status, dict[str, Any] | None]:
    """`descend`, and unless eps_H is None along negative curvature below ``-eps_H`` as long as there is any.

    Returns model, status (LOCALLY_OPTIMAL: both conditions hold) and `Result.second_order`.
    """
    escapes = 0
    while True:
        model, status = descend(problem, solver, Y, tol, record, eps_g=eps_g)
        if eps_H is None:
            return model, status, None
        found = curvature(model, eps_H, rng, stop=record.out_of_time)
        record.products += found.products
        facts = second_order_report(model, found, eps_g or tol * model.grad_scale, eps_H, escapes)
        if found.value >= -eps_H or status not in (Status.LOCALLY_OPTIMAL, Status.STALLED):
            resolved = found.lower >= -eps_H or status is not Status.LOCALLY_OPTIMAL
            return model, status if resolved else Status.STALLED, facts
        trial, spent = escape_saddle(model, found)
        record.products += spent
        if trial is None or escapes >= ESCAPES:
            return model, Status.STALLED, facts
        Y, escapes = trial.Y, escapes + 1


def second_order_report(model: LocalModel, found: Curvature, eps_g: float, eps_H: float, escapes: int) -> dict[str, Any]:
    """`Result.second_order`."""
    return {
        "grad_norm": model.grad_norm, "eps_g": float(eps_g), "hess_min": found.value, "hess_min_lower": found.lower,
        "eps_H": float(eps_H), "rigor": found.rigor, "escapes": escapes,
    }  # fmt: skip


_UNITS = {"eps_g": "gradient 2 S Y", "eps_H": "Hessian, those of C"}


def check_rank(problem: Problem, rank: Any) -> None:
    """Refuse a number of columns that is no integer from 1 to n, or below the size of a Stiefel block."""
    if isinstance(rank, bool) or not isinstance(rank, (int, np.integer)) or not 1 <= rank <= problem.n:
        raise ValueError(f"rank = {rank}; an integer from 1 to n = {problem.n} is needed (None lets solve choose)")
    if rank < problem.manifold.min_rank:
        raise ValueError(f"rank = {rank} is below the size {problem.manifold.min_rank} of an identity block; raise it to that at least")


def check_start(problem: Problem, Y: Any, name: str = "Y") -> np.ndarray:
    """Y as a C-contiguous array of the problem's field; ValueError for a wrong shape, entries not finite, or the wrong field."""
    Y = np.asarray(Y)
    if Y.ndim != 2 or len(Y) != problem.n or Y.shape[1] < 1:
        raise ValueError(f"{name} has shape {Y.shape}; it must be n x k with n = {problem.n}, k >= 1")
    if Y.dtype.kind not in "biufc" or not np.isfinite(Y).all():
        raise ValueError(f"{name} has entries that are NaN, infinite or no numbers")
    if Y.dtype.kind == "c" and not problem.C.is_complex:
        raise ValueError(f"{name} is complex but C is real; pass a real factor")
    return np.ascontiguousarray(Y, problem.dtype)


def _first_point(problem: Problem, Y: Any, rank: Any, rng: np.random.Generator) -> np.ndarray:
    if Y is not None:
        return check_start(problem, Y)
    if rank is None:
        raise ValueError("neither Y nor rank was given; pass a start or a number of columns")
    check_rank(problem, rank)
    return problem.random_point(rank, rng)


def minimize(
    problem: Problem,
    solver: Solver,
    Y: np.ndarray | None = None,
    *,
    rank: int | None = None,
    tol: float = 1e-6,
    eps_g: float | None = None,
    eps_H: float | None = None,
    max_iter: int | None = 100_000,
    max_time: float | None = None,
    callback: Callable[[LocalModel, dict[str, Any]], object] | None = None,
    progress: bool | None = None,
    rng: Any = None,
) -> Result:
    """Minimise at fixed rank with one solver, without certificate.

    Parameters
    ----------
    Y : ndarray, n x k, optional; a random point of ``rank`` columns otherwise
    tol : float
        Stop at ``grad_norm <= tol * grad_scale`` (dimensionless).
    eps_g : float, optional
        Stop at ``grad_norm <= eps_g`` instead, in the units of the gradient ``2 S Y``.
    eps_H : float, optional
        Stop only where ``lambda_min(Hess) >= -eps_H`` was checked as well (`bmsdp.curvature`), in the units of the Hessian, those of
        C; at points of larger negative curvature, step along it and go on.
    max_iter, max_time
        Limits: iterations, seconds.
    callback : callable, optional
        ``callback(model, info)`` at every iterate; raise StopIteration to stop.
    progress : bool, optional; by default when stderr is a terminal and tqdm is there

    Returns
    -------
    Result
        Status LOCALLY_OPTIMAL where the gradient is small enough (and, with eps_H, the curvature checked: both figures are in
        ``result.second_order``); bound -inf.
    """
    generator = np.random.default_rng(rng)
    Y = _first_point(problem, Y, rank, generator)
    for name, eps in (("eps_g", eps_g), ("eps_H", eps_H)):
        if eps is not None and not (np.isfinite(eps) and eps > 0):
            raise ValueError(f"{name} = {eps}; a positive finite number is needed, in the units of the {_UNITS[name]}")
    record = Record(max_iter, max_time, callback, progress)
    try:
        model, status, facts = descend_to_second_order(problem, solver, Y, tol, eps_g, eps_H, record, generator)
    finally:
        record.close()
    critical = NO_SLACK.format(problem.opaque) if problem.opaque is not None else "critical point; no certificate was asked for"
    message = status.value if status is not Status.LOCALLY_OPTIMAL else critical
    if facts is not None and status is Status.LOCALLY_OPTIMAL:
        message = "second-order point: |grad| = {grad_norm:.2e}, Hessian >= {hess_min_lower:.2e} ({rigor})".format_map(facts)
    return Result(
        Y=model.Y, cost=model.cost, bound=-np.inf, gap=np.inf, dual=model.mu, dual_geq=np.zeros(0), status=status,
        message=message, nit=record.nit, products=record.products, time=record.elapsed, history=record.history(),
        certificate=None, versions=versions(),
        options={"solver": repr(solver), "tol": tol, "eps_g": eps_g, "eps_H": eps_H, "rank": Y.shape[1]},
        data=Data(problem.C, problem.manifold, problem.manifold.b), second_order=facts,
    )  # fmt: skip
