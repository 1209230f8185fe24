"""The door: `solve` (floor L6)."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .augmented_lagrangian import augmented_lagrangian
from .cone import Given
from .cuts import Cuts, cutting
from .linear_maps import MatrixMap, as_linear_map, as_matrix_map
from .manifolds import Manifold, Oblique
from .methods import METHODS, Asked, described, run, solved, started
from .minimize import Solver, check_rank
from .operators import as_operator
from .outcome import contradiction
from .penalty import Penalty
from .perturbation import as_perturbation
from .presolve import presolve
from .presolved import Infeasible
from .problem import LocalModel, Problem
from .result import Data, Result
from .staircase import staircase

LOGGER = logging.getLogger("bmsdp")
LOGGER.addHandler(logging.NullHandler())


Callback = Callable[[LocalModel, dict[str, Any]], object]


def solve(
    C: Any, A: Any = None, b: Any = None, *, rank: int | None = None, A_geq: Any = None, b_geq: Any = None, blocks: Any = None,
    trace_bound: float | None = None, method: str = "auto", solver: Solver | None = None, warm_start: Any = None,
    perturbation: Any = None, tol: float = 1e-6, max_time: float | None = None, certify: str | None = "auto", threads: int = 1,
    rng: Any = None, callback: Callback | None = None, progress: bool | None = None, verbose: int = 0,
) -> Result:  # fmt: skip
    """Minimise ``<C, X>`` over ``A(X) = b``, ``A_geq(X) >= b_geq``, X positive semidefinite, as ``X = YY*`` with a certificate.

    Parameters
    ----------
    C : ndarray, sparse array or matrix, LinearOperator, LowRankPlusSparse, or Problem (with its own constraints)
        n x n, real symmetric or complex Hermitian.
    A : sequence of n x n matrices, m x n^2 sparse array, or LinearMap, optional
        Any Hermitian matrices.  Row j of a stacked A is ``A_j.ravel()`` (C order).  None means unit diagonal, or no rows where ``A_geq``
        or ``blocks`` is given.  Rows that fix a diagonal, traces on disjoint sets of rows, or identity blocks are recognised, in any
        order and scaling, and become a manifold; all others are held by an augmented Lagrangian around it.
    b : array_like, (m,), optional
        Real right-hand side.
    rank : int, optional
        Columns of Y, kept; the status says whether they sufficed.  None: a staircase from about ``2 ln n`` up.
    A_geq, b_geq : optional
        Inequalities ``A_geq(X) >= b_geq``, as A and b (``<=``: the negative of both).  A_geq may be a family of cuts from `bmsdp.cuts`,
        whose rows are added as they are violated.
    blocks : list, optional
        Of the diagonal of X: ``s > 0``, a positive semidefinite block of s rows; ``-l`` or ``("nonneg", l)``, ``("free", l)``: l variables.
    trace_bound : float, optional
        ``tr X <= trace_bound`` (without free variables), where the rows do not say so.
    method : {"auto", "manifold", "augmented_lagrangian", "interior_point"}
        "manifold": general rows as a `Quadratic`; "interior_point": Clarabel (``bmsdp[cvxpy]``).  ``options["why"]`` explains the choice.
    solver : Solver, optional
        One of `bmsdp.solvers`; `Default`, or `LBFGS` inside the augmented Lagrangian, when absent.
    warm_start : Result or ndarray, n x k, optional; made feasible if it is not
    perturbation : float, "auto" or Perturbation, optional
        Gaussian noise of this standard deviation on C first (smoothed analysis), then the original; see `bmsdp.Perturbation`.
    tol : float
        Relative gap to certify, in (0, 1).
    max_time : float, optional; seconds
    certify : {"auto", "verified", "probabilistic", "estimate", None}
        How the bound is to be known; "auto" takes the first that is affordable, None forgoes it.
    threads : int
    rng : Generator or seed, optional; fresh entropy when None, the seed being kept in ``options``
    callback : callable, optional
        ``callback(model, info)`` at every iterate; StopIteration ends the run.
    progress : bool, optional; by default where stderr is a terminal
    verbose : int
        1: what was detected and chosen, and a table of certificates, through the logger "bmsdp" to stdout.

    Returns
    -------
    Result
        Its duals are feasible: ``<b, dual> + <b_geq, dual_geq> = bound`` and ``C - A*(dual) - A_geq*(dual_geq)`` is positive
        semidefinite, as surely as ``certificate.rigor`` says (a row that forces X onto a face has no attained multiplier: a large one).
        Raises ValueError for data that are not finite, Hermitian, block-diagonal or of matching sizes.
    """
    _check(method, tol, threads, max_time, solver, certify, trace_bound)
    seed = np.random.SeedSequence().entropy if rng is None else rng
    options = {"rank": rank, "tol": float(tol), "certify": certify, "max_time": max_time, "callback": callback, "progress": progress}
    stream = np.random.default_rng(seed)
    asked = Asked(method, solver, warm_start, perturbation, seed, stream, int(threads), trace_bound, options, LOGGER.info)
    return _answer(C, A, b, A_geq, b_geq, blocks, asked, verbose)


def _answer(C: Any, A: Any, b: Any, A_geq: Any, b_geq: Any, blocks: Any, asked: Asked, verbose: int) -> Result:
    """`solve`, its keywords checked."""
    start, seed = time.perf_counter(), asked.seed
    with logged_to(sys.stdout) if verbose >= 1 else contextlib.nullcontext():
        if isinstance(C, Problem):
            if any(value is not None for value in (A, b, A_geq, b_geq, blocks)):
                raise ValueError("C is a Problem, which brings its own constraints; leave A, b, A_geq, b_geq and blocks None")
            result = _own(C, asked)
        elif isinstance(A_geq, Cuts):
            result = _cut(C, A, b, A_geq, b_geq, blocks, asked)
        else:
            result = _general(C, A, b, A_geq, b_geq, blocks, asked)
        LOGGER.info("bmsdp: %s: %s", result.status.name, result.message)
    kept = {
        "threads": asked.threads, "max_time": asked.options["max_time"], "rng": seed if isinstance(seed, int) else repr(seed),
        "warm_start": asked.warm_start is not None,
    }  # fmt: skip
    return dataclasses.replace(result, options=result.options | kept, time=time.perf_counter() - start)


def _own(problem: Problem, asked: Asked) -> Result:
    """A Problem as it is; one whose further constraints are held by a Penalty as the rows that it states."""
    if problem.terms and all(isinstance(term, Penalty) for term in problem.terms):
        return _of_rows(problem, asked)
    if asked.method == "interior_point":
        raise ValueError('method="interior_point" takes matrices C, A, b; a Problem shows none')
    if asked.threads != problem.C.threads:
        problem = Problem(
            problem.C, problem.manifold, problem.terms, blocks=problem.blocks, cost_scale=problem.cost_scale, norm_C=problem.norm_C,
            threads=asked.threads,
        )
    if asked.options["rank"] is not None:
        check_rank(problem, asked.options["rank"])
    Y = None if asked.warm_start is None else started(asked.warm_start, problem, lambda Y: Y, asked)
    chosen = described(problem)
    LOGGER.info("bmsdp: %s", chosen)
    general = any(isinstance(term, Penalty) for term in problem.terms)
    result = solved(augmented_lagrangian if general else staircase, problem, Y, asked)
    data = result.data if general else Data(problem.C, problem.manifold, problem.manifold.b)
    kept = {"manifold": chosen, "method": "augmented_lagrangian" if general else "manifold"}
    return dataclasses.replace(result, data=data, options=result.options | kept)


def _of_rows(problem: Problem, asked: Asked) -> Result:
    """The manifold's rows, then those of the penalties."""
    terms = [term for term in problem.terms if isinstance(term, Penalty)]
    A = MatrixMap.stack([as_matrix_map(problem.manifold), *(term.given.take(np.arange(term.m)) for term in terms)])
    G = MatrixMap.stack([term.given.take(np.arange(term.m, len(term.b))) for term in terms])
    b = np.concatenate([problem.manifold.b, *(term.b[: term.m] for term in terms)])
    g = np.concatenate([term.b[term.m :] for term in terms])
    return _general(problem.C, A, b, G if G.m else None, g if G.m else None, None, asked)


def _cut(C: Any, A: Any, b: Any, family: Cuts, b_geq: Any, blocks: Any, asked: Asked) -> Result:
    """Rounds of cuts; the rows of the last one are ``result.data.A_geq``."""
    if b_geq is not None:
        raise ValueError("b_geq was given, but A_geq is a family of cuts, which brings its own; leave b_geq None")
    if A is None and blocks is None:
        A = Oblique(np.ones(as_operator(C).n))

    def solve_with(rows: Any, b_cuts: Any, warm: Result | None, left: float | None) -> Result:
        return _general(C, A, b, rows, b_cuts, blocks, asked._replace(options=asked.options | {"max_time": left}), warm)

    return cutting(solve_with, family, asked.options, asked.report)


def _general(
    C: Any, A: Any, b: Any, A_geq: Any, b_geq: Any, blocks: Any, asked: Asked, warm: Result | None = None
) -> Result:  # fmt: skip
    """The caller's rows: presolve, the method, and back."""
    as_perturbation(asked.perturbation) if asked.perturbation is not None else None
    operator = as_operator(C)
    if A is None and A_geq is None and blocks is None:
        if b is not None:
            raise ValueError("b was given without A; pass A as well, or neither for a unit diagonal")
        return _own(Problem(operator, Oblique(np.ones(operator.n)), threads=asked.threads), asked)
    if isinstance(A, Manifold) and not isinstance(A, MatrixMap) and A_geq is None and blocks is None:
        as_linear_map(A, operator.n)
        if b is not None and not np.array_equal(np.asarray(b, float), A.b):
            raise ValueError("A is a manifold, which brings its own b; leave b None")
        return _own(Problem(operator, A, threads=asked.threads), asked)
    given = Given.of(operator, A, b, A_geq, b_geq, blocks)
    given = given._replace(A=as_matrix_map(given.A), A_geq=as_matrix_map(given.A_geq))
    try:
        state = presolve(given, asked.trace_bound, linear=asked.method != "manifold")
    except Infeasible as error:
        return contradiction(given, error, asked.options)
    if asked.options["rank"] is not None:
        check_rank(state.problem, asked.options["rank"])
    state.problem.C.threads = asked.threads
    chosen = described(state.problem)
    LOGGER.info("bmsdp: %s", chosen)
    start = warm if warm is not None else asked.warm_start
    result = run(state, given, start, asked)
    return dataclasses.replace(result, options=result.options | {"manifold": chosen})


def _check(method: str, tol: Any, threads: Any, max_time: Any, solver: Any, certify: Any, trace_bound: Any) -> None:
    if method not in METHODS:
        raise ValueError(f"method = {method!r}; it must be one of {', '.join(METHODS)}")
    if not (isinstance(tol, (int, float, np.number)) and 0 < tol < 1):
        raise ValueError(f"tol = {tol}; it is a relative gap, 0 < tol < 1")
    if not (isinstance(threads, (int, np.integer)) and threads >= 1):
        raise ValueError(f"threads = {threads}; a positive integer is needed")
    if max_time is not None and not (isinstance(max_time, (int, float, np.number)) and max_time > 0):
        raise ValueError(f"max_time = {max_time!r}; positive seconds are needed, or None")
    if trace_bound is not None and not (isinstance(trace_bound, (int, float, np.number)) and 0 < trace_bound < np.inf):
        raise ValueError(f"trace_bound = {trace_bound!r}; a positive finite number is needed, or None")
    if solver is not None and (isinstance(solver, type) or not callable(getattr(solver, "iterates", None))):
        raise ValueError(f"solver = {solver!r}; pass an instance from bmsdp.solvers, such as Mixing() or LBFGS()")
    if certify not in (None, "auto", "verified", "probabilistic", "estimate"):
        raise ValueError(f'certify = {certify!r}; it must be "auto", "verified", "probabilistic", "estimate" or None')


@contextlib.contextmanager
def logged_to(stream: Any) -> Iterator[None]:
    """Send what `solve` logs to a stream for a while; unlike a StreamHandler this lets BrokenPipeError through."""
    handler, level = logging.Handler(), LOGGER.level

    def emit(record: logging.LogRecord) -> None:
        stream.write(record.getMessage() + "\n")
        stream.flush()

    handler.emit = emit  # type: ignore[method-assign]
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
