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

from .detect import Recognised, detect_manifold
from .linear_maps import MatrixMap, as_linear_map
from .manifolds import Manifold, Oblique
from .minimize import Solver, check_rank, check_start
from .operators import as_operator
from .perturbation import Perturbation, as_perturbation
from .problem import LocalModel, Problem
from .result import Data, Result, Status
from .smoothed import smoothed
from .staircase import staircase
from .verified import lower_bound

LOGGER = logging.getLogger("bmsdp")
LOGGER.addHandler(logging.NullHandler())


Callback = Callable[[LocalModel, dict[str, Any]], object]


def solve(
    C: Any, A: Any = None, b: Any = None, *, rank: int | None = None, A_geq: Any = None, b_geq: Any = None, blocks: Any = None,
    trace_bound: float | None = None, method: str = "auto", solver: Solver | None = None, warm_start: Any = None,
    perturbation: Any = None, tol: float = 1e-6, max_time: float | None = None, certify: str | None = "auto", threads: int = 1,
    rng: Any = None, callback: Callback | None = None, progress: bool | None = None, verbose: int = 0,
) -> Result:  # fmt: skip
    """Minimise ``<C, X>`` over ``A(X) = b``, X positive semidefinite, as ``X = YY*`` with a certificate.

    Parameters
    ----------
    C : ndarray, sparse array or matrix, LinearOperator, LowRankPlusSparse, or Problem (with its own constraints)
        n x n, real symmetric or complex Hermitian.
    A : sequence of n x n matrices, m x n^2 sparse array, or LinearMap, optional
        Row j of a stacked A is ``A_j.ravel()`` (C order).  None means unit diagonal.  Rows may be positive diagonals with
        disjoint supports (given diagonal, trace, X_ii + X_jj = 1, ...) and identity blocks, in any order and scaling.
    b : array_like, (m,), optional
        Real right-hand side.
    rank : int, optional
        Columns of Y, kept; the status says whether they sufficed.  None: a staircase from about ``2 ln n`` up.
    A_geq, b_geq, blocks, trace_bound, method
        Not available yet beyond their defaults.
    solver : Solver, optional
        One of `bmsdp.solvers`; `Default` when absent.
    warm_start : Result or ndarray, n x k, optional; made feasible if it is not
    perturbation : float, "auto" or Perturbation, optional
        Gaussian noise of this standard deviation on the entries of C first (smoothed analysis), then the original problem from there.
        What came out in between, for both costs, is in ``result.perturbation``; see `bmsdp.Perturbation`.
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
        Its dual is feasible: ``<b, dual> = bound`` and ``C - A*(dual)`` is positive semidefinite, as surely as
        ``certificate.rigor`` says.

    Raises
    ------
    ValueError, NotImplementedError
        For data that are not finite, Hermitian or consistent; for constraints that are not recognised (naming the row).
    """
    _not_yet(A_geq=A_geq, b_geq=b_geq, blocks=blocks, trace_bound=trace_bound)
    _check(method, tol, threads, max_time, solver, certify)
    noise = None if perturbation is None else as_perturbation(perturbation)
    start = time.perf_counter()
    problem, found, data = _state(C, A, b, int(threads))
    options = {"rank": rank, "tol": float(tol), "certify": certify, "max_time": max_time, "callback": callback, "progress": progress}
    seed = np.random.SeedSequence().entropy if rng is None else rng
    result = _run(problem, found, data, solver, warm_start, noise, seed, verbose, options)
    return dataclasses.replace(result, data=data, time=time.perf_counter() - start)


def _verified_again(result: Result, data: Data) -> Result:
    """A verified bound once more from the caller's own rows: the way back from internal coordinates rounds."""
    proof = result.certificate
    if proof is None or proof.rigor != "verified" or not np.isfinite(proof.bound):
        return result
    sure = lower_bound(data.C, data.A, data.b, result.dual)
    gap_abs = proof.gap_abs + (proof.bound - sure.bound)
    gap = proof.gap * gap_abs / proof.gap_abs if proof.gap_abs > 0 else proof.gap
    proof = dataclasses.replace(proof, bound=sure.bound, gap=gap, gap_abs=gap_abs, dual=sure.dual)
    lost = result.status is Status.CERTIFIED and gap > result.options["tol"]
    status, message = (Status.STALLED, Status.STALLED.value) if lost else (result.status, result.message)
    if len(result.history["gap"]):
        result.history["gap"][-1] = gap
    return dataclasses.replace(
        result, bound=proof.bound, gap=gap, dual=proof.dual, certificate=proof, status=status, message=message
    )


def _run(
    problem: Problem, found: Recognised | None, data: Data, solver: Solver | None, warm_start: Any, noise: Perturbation | None,
    seed: Any, verbose: int, options: dict[str, Any],
) -> Result:  # fmt: skip
    """The staircase, from and to the caller's coordinates."""
    if options["rank"] is not None:
        check_rank(problem, options["rank"])
    generator = np.random.default_rng(seed)
    Y = None if warm_start is None else _start(warm_start, problem, found, options["rank"], generator)
    chosen = _describe(problem)
    with logged_to(sys.stdout) if verbose >= 1 else contextlib.nullcontext():
        LOGGER.info("bmsdp: %s", chosen)
        if noise is None:
            result = staircase(problem, solver, Y, report=LOGGER.info, rng=generator, **options)
        else:
            result = smoothed(problem, solver, Y, noise, report=LOGGER.info, rng=generator, **options)
        LOGGER.info("bmsdp: %s: %s", result.status.name, result.message)
    kept = {
        "manifold": chosen, "method": "manifold", "threads": problem.C.threads, "max_time": options["max_time"],
        "rng": seed if isinstance(seed, int) else repr(seed), "warm_start": warm_start is not None,
    }  # fmt: skip
    result = dataclasses.replace(result, options=result.options | kept)
    if found is None:
        return result
    dual = found.to_caller(result.dual)
    same = found.trivial and np.array_equal(dual[dual != 0], result.dual[result.dual != 0])
    result = dataclasses.replace(result, Y=found.factor_out(result.Y), dual=dual)
    return result if same else _verified_again(result, data)


def _check(method: str, tol: Any, threads: Any, max_time: Any, solver: Any, certify: Any) -> None:
    if method == "augmented_lagrangian":
        raise NotImplementedError('method="augmented_lagrangian" is not available yet; use "auto"')
    if method not in ("auto", "manifold"):
        raise ValueError(f'method = {method!r}; it must be "auto", "manifold" or "augmented_lagrangian"')
    if not (isinstance(tol, (int, float, np.number)) and 0 < tol < 1):
        raise ValueError(f"tol = {tol}; it is a relative gap, 0 < tol < 1")
    if not (isinstance(threads, (int, np.integer)) and threads >= 1):
        raise ValueError(f"threads = {threads}; a positive integer is needed")
    if max_time is not None and not (isinstance(max_time, (int, float, np.number)) and max_time > 0):
        raise ValueError(f"max_time = {max_time!r}; positive seconds are needed, or None")
    if solver is not None and (isinstance(solver, type) or not callable(getattr(solver, "iterates", None))):
        raise ValueError(f"solver = {solver!r}; pass an instance from bmsdp.solvers, such as Mixing() or LBFGS()")
    if certify not in (None, "auto", "verified", "probabilistic", "estimate"):
        raise ValueError(f'certify = {certify!r}; it must be "auto", "verified", "probabilistic", "estimate" or None')


def _not_yet(**keywords: Any) -> None:
    for name, value in keywords.items():
        if value is not None:
            raise NotImplementedError(f"{name} is not available yet; leave it None")


def _state(C: Any, A: Any, b: Any, threads: int) -> tuple[Problem, Recognised | None, Data]:
    """The problem in internal coordinates, how they map to the caller's, and the caller's data."""
    if isinstance(C, Problem):
        if A is not None or b is not None:
            raise ValueError("C is a Problem, which brings its own constraints; leave A and b None")
        problem = C
        if threads != problem.C.threads:
            problem = Problem(C.C, C.manifold, C.terms, blocks=C.blocks, cost_scale=C.cost_scale, threads=threads)
        return problem, None, Data(problem.C, problem.manifold, problem.manifold.b)
    operator = as_operator(C)
    if A is None:
        if b is not None:
            raise ValueError("b was given without A; pass A as well, or neither for a unit diagonal")
        manifold: Manifold = Oblique(np.ones(operator.n))
        return Problem(operator, manifold, threads=threads), None, Data(operator, manifold, manifold.b)
    linear = as_linear_map(A, operator.n)
    if isinstance(linear, Manifold):
        if b is not None and not np.array_equal(np.asarray(b, float), linear.b):
            raise ValueError("A is a manifold, which brings its own b; leave b None")
        return Problem(operator, linear, threads=threads), None, Data(operator, linear, linear.b)
    if not isinstance(linear, MatrixMap):
        raise NotImplementedError("a LinearMap without matrices is not available as A yet; pass matrices, or a Manifold")
    rhs = _right_hand_side(b, linear.m)
    if linear.rows.dtype.kind == "c" and not operator.is_complex and linear.rows.data.imag.any():
        operator = operator.as_complex()  # rows that fix an imaginary part make X complex, whatever C is
    found = detect_manifold(linear, rhs, operator.is_complex)
    problem = Problem(found.operator(operator), found.manifold, threads=threads)
    return problem, found, Data(operator, linear, rhs)


def _right_hand_side(b: Any, m: int) -> np.ndarray:
    if b is None:
        raise ValueError(f"A has {m} rows but b was not given; pass the {m} right-hand sides")
    b = np.asarray(b)
    if b.dtype.kind not in "biuf":
        raise ValueError(f"b has dtype {b.dtype}; real numbers are needed")
    if b.shape != (m,):
        raise ValueError(f"b has shape {b.shape} but A has {m} rows; b must have shape ({m},)")
    if not np.isfinite(b).all():
        raise ValueError(f"b[{int(np.argmin(np.isfinite(b)))}] is not finite; every right-hand side must be")
    return b.astype(float)


def _start(warm: Any, problem: Problem, found: Recognised | None, rank: int | None, rng: np.random.Generator) -> np.ndarray:
    """A feasible start in internal coordinates, with ``rank`` columns if that was given."""
    Y = check_start(problem, warm.Y if isinstance(warm, Result) else warm, "warm_start")
    if rank is not None and Y.shape[1] > rank:
        raise ValueError(f"warm_start has {Y.shape[1]} columns but rank = {rank}; raise rank or drop columns")
    least = max(rank or 0, problem.manifold.min_rank, Y.shape[1])
    Y = found.factor_in(Y) if found is not None else Y
    if least > Y.shape[1]:  # new columns get noise: zero columns would stay zero
        more = rng.standard_normal((problem.n, least - Y.shape[1])) * 1e-2 * np.linalg.norm(Y) / np.sqrt(Y.size)
        Y = np.concatenate([Y, more.astype(problem.dtype)], axis=1)
    empty = np.asarray(~Y.any(axis=1))
    Y = np.where(empty[:, None], problem.random_point(Y.shape[1], rng), Y)
    return problem.manifold.retract(Y, np.zeros_like(Y))


def _describe(problem: Problem) -> str:
    manifold, field = problem.manifold, "complex Hermitian" if problem.C.is_complex else "real symmetric"
    parts = [type(p).__name__ for p in getattr(manifold, "parts", [manifold])]
    kind = type(problem.C).__name__.removesuffix("Operator").lower() or "operator"
    return f"n = {problem.n}, m = {manifold.m}, {field} {kind} C, manifold {' x '.join(parts)}"


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
