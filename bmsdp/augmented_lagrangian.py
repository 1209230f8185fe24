r"""General constraints: the method of multipliers around a manifold, certified (floor L5).

The merit ``<C, X> + (|z|^2 - |nu|^2) / 2 sigma`` of `Penalty` is minimised a little, then ``nu <- z``: many cheap updates, each as soon
as the gradient is no larger than the residuals, with the solver's memory kept.  Now and then a *look*: the multipliers nu turn
the problem into ``min <C - A*(nu), X>`` on the manifold, of which any certificate bounds the whole:

    optimum  >=  <b, nu> + bound of (C - A*(nu), manifold),    nu >= 0 on inequality rows.

What is missing to feasibility, ``|nu| |r|``, is balanced against what is missing to dual feasibility, ``n max(0, -eig_min)``, by sigma.
At the end Gauss-Newton steps make Y feasible to rounding (`refine`), and the gap is formed from that point.

Burer, Monteiro, "A nonlinear programming algorithm for solving semidefinite programs via low-rank factorization" (2003).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .linear_maps import Stack
from .looks import IDLE, Run
from .manifolds import Sphere
from .minimize import Record, Solver, versions
from .penalty import Penalty
from .problem import LocalModel, Problem
from .refine import refine
from .result import Data, Result, Status
from .solvers import LBFGS, Default, Multisecant
from .staircase import TABLE, escape, free_columns, start_rank
from .theory.rank import barvinok_pataki

LOOK = 20  # multiplier updates between two looks
LONG = 300  # products after which a look comes all the same
DIVERGED = 1e10  # growth of the trace that only an unbounded problem shows


def first_rank(problem: Problem, term: Penalty) -> int:
    """`start_rank`, but Barvinok-Pataki of all rows where one trace is all that bounds X: too low a rank ends infeasible there."""
    k = start_rank(problem)
    parts = getattr(problem.manifold, "parts", [problem.manifold])
    if any(isinstance(part, Sphere) and part.n > 0.5 * problem.n for part in parts):
        k = max(k, barvinok_pataki(problem.manifold.m + len(term.b), complex=problem.C.is_complex) + 1)
    return min(k, problem.n)


def _steps(run: Run, Y: np.ndarray) -> Iterator[tuple[LocalModel, dict[str, Any], Callable[[], None]]]:
    """The solver's iterates; the third member tells it that the multipliers changed."""
    generator: Any = run.solver.iterates(run.merit(), Y)
    spent, changed = 0, False

    def change() -> None:
        nonlocal changed
        changed = True

    model, info = next(generator)
    while True:
        own = info["products"]
        info["products"] += spent
        yield model, info, change
        if not changed:
            model, info = next(generator)
        elif isinstance(run.solver, (LBFGS, Multisecant)):
            model, info = generator.send(run.merit())
        else:
            spent += own
            generator = run.solver.iterates(run.merit(), model.Y)
            model, info = next(generator)
        changed = False


def _stage(run: Run, Y: np.ndarray) -> tuple[LocalModel, Status]:
    """Descend and update multipliers at one number of columns; LOCALLY_OPTIMAL: done, or curved; else a limit or STALLED."""
    before, updates, looked, standstill, first = run.record.products, 0, 0, 0, 0.0
    model: LocalModel | None = None
    for model, info, change in _steps(run, Y):
        limit = run.record.add(model, info, before + info["products"])
        if limit is not None:
            return model.copy(), limit
        if info.get("inner", False):
            continue
        trace = max(model.trace, 1e-300)
        first = first or trace
        if trace > DIVERGED * first:
            return model.copy(), Status.STALLED
        s = run.sigma * trace / run.size
        small = run.inner * min(s / 10, 1.0) * float(np.linalg.norm(run.known(model).lack)) / trace
        slope = model.grad_norm / (2 * run.size * np.sqrt(trace))
        stalled = info.get("stalled", False)
        slow = info["products"] - looked > LONG or not run.term.b.size and slope <= run.next_look
        if slope > small and not stalled and not slow:
            continue
        run.nu = run.known(model).z
        updates += 1
        standstill = standstill + 1 if stalled else 0
        if updates % LOOK == 0 or stalled or slow or slope <= 1e-12:
            looked, run.next_look = info["products"], 0.2 * min(slope, run.next_look)
            if run.rigor is None and model.infeasibility <= run.tol and slope <= run.tol:
                return model.copy(), Status.LOCALLY_OPTIMAL
            if run.rigor is not None and (run.look(model) or run.curved and not run.keep or run.narrows(model)):
                return model.copy(), Status.LOCALLY_OPTIMAL
            if run.face is None and run.problem.manifold.shift is None and run.settled(model, slope):
                return model.copy(), Status.LOCALLY_OPTIMAL
            if standstill >= 5 or run.idle >= IDLE or run.hopeless(model):
                return model.copy(), Status.STALLED
        change()
    raise RuntimeError(f"{type(run.solver).__name__}.iterates ended; a solver has to yield for ever")


def _climb(run: Run, Y: np.ndarray) -> tuple[LocalModel, Status]:
    """Stages of growing rank, until the gap is proved or a limit is reached."""
    model: LocalModel | None = None
    try:
        while True:
            model, status = _stage(run, Y)
            if run.narrow is not None:
                Y, run.narrow = run.narrow, None
                continue
            if status is not Status.LOCALLY_OPTIMAL or run.rigor is None or run.proved or not run.curved:
                break
            if Y.shape[1] >= run.problem.n and not free_columns(model.Y):
                status = Status.STALLED
                break
            assert run.last is not None
            Y = escape(run.merit().at(model.Y), run.last, run.rng)
    except KeyboardInterrupt:
        return run.merit().at(model.Y if model is not None else Y), Status.INTERRUPTED
    return model, status


def augmented_lagrangian(
    problem: Problem,
    solver: Solver | None = None,
    Y: np.ndarray | None = None,
    *,
    rank: int | None = None,
    tol: float = 1e-6,
    certify: str | None = "auto",
    max_iter: int | None = None,
    max_time: float | None = None,
    callback: Callable[[LocalModel, dict[str, Any]], object] | None = None,
    progress: bool | None = None,
    report: Callable[[str], None] | None = None,
    rng: Any = None,
) -> Result:
    """Solve a problem with a `Penalty` to a certified relative gap of ``tol``; parameters as for `staircase`.

    Returns
    -------
    Result
        ``dual`` holds the multipliers of the manifold, then those of the rows ``A`` of the penalty; ``dual_geq`` those of ``A_geq``.
        STALLED where the method fails (``options["hopeless"]`` is True then).
    """
    solver = LBFGS() if solver is None else solver.polish if isinstance(solver, Default) else solver  # no sweeps beside general rows
    generator = np.random.default_rng(rng)
    record = Record(max_iter, max_time, callback, progress, report)
    run = Run(problem, solver, tol, certify, generator, record, rank is not None)
    if Y is None:
        Y = problem.random_point(first_rank(problem, run.term) if rank is None else rank, generator)
    record.report(TABLE)
    try:
        model, status = _climb(run, Y)
        if not run.proved and certify is not None:
            try:
                run.finish(model, final=not record.out_of_time() or run.best is None)
            except KeyboardInterrupt:
                status = Status.INTERRUPTED
        elif certify is None:
            Y, _ = refine(problem, run.term.at(run.nu, run.sigma), model.Y)
            model = run.merit().at(Y)
    finally:
        record.close()
    return _result(run, model, status, rank)


def _result(run: Run, model: LocalModel, status: Status, rank: int | None) -> Result:
    problem, term = run.problem, run.term
    model, found = run.final or model, run.best
    if found is not None and np.isfinite(found.bound):
        gap_abs = model.cost - found.bound
        rigor = "estimate" if found.rigor == "verified" else found.rigor  # Y is feasible up to rounding, not in closed form
        found = dataclasses.replace(found, gap=run._gap(model), gap_abs=gap_abs, gap_rigor=rigor)
    if found is not None and abs(found.gap) <= run.tol and model.infeasibility <= run.tol:
        status = Status.ESTIMATED if found.rigor == "estimate" else Status.CERTIFIED
    elif status in (Status.LOCALLY_OPTIMAL, Status.STALLED):
        unbounded = run.face is None and problem.manifold.shift is None
        status = Status.RANK_TOO_SMALL if run.curved and run.keep else Status.LOCALLY_OPTIMAL if unbounded else Status.STALLED
        status = Status.LOCALLY_OPTIMAL if found is None and model.infeasibility <= run.tol else status
    multipliers = found.dual if found is not None else np.concatenate([model.mu, run.nu * term.scale])
    m, scaled = problem.manifold.m, multipliers[problem.manifold.m :]
    dual = np.concatenate([multipliers[:m], scaled[: term.m]])
    if found is not None:
        found = dataclasses.replace(found, dual=dual)
        if run.record.rows:
            run.record.rows[-1] = (*run.record.rows[-1][:-1], found.gap)
    options = {
        "solver": repr(run.solver), "rank": rank, "tol": run.tol, "certify": run.rigor, "stages": run.stages, "sigma": run.sigma,
        "infeasibility": model.infeasibility, "hopeless": bool(run.hopeless(model)),
    }  # fmt: skip
    equalities = term.given.take(np.arange(term.m))
    rhs = np.concatenate([problem.manifold.b, term.b[: term.m]])
    data = Data(problem.C, Stack([problem.manifold, equalities]), rhs)
    message = status.value if run.rigor is not None else "critical point; no certificate was asked for"
    return Result(
        Y=model.Y, cost=model.cost, bound=found.bound if found else -np.inf, gap=found.gap if found else np.inf, dual=dual,
        dual_geq=scaled[term.m :], status=status, message=message, nit=run.record.nit, products=run.record.products,
        time=run.record.elapsed, history=run.record.history(), certificate=found, options=options, versions=versions(), data=data,
    )  # fmt: skip
