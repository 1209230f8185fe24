r"""Phase retrieval: a signal x from magnitudes ``b = |A x|``, by rank-k fits, with bounds.

The problem is ``f* = min_x sum_i (|a_i* x| - b_i)^2`` (rows a_i* of the n x d matrix A). With ``A = Q R``, Q* Q = I, and ``V = R x``,

    f* = min over phases u of |b o u - Q V|^2, V = Q*(b o u)  =  min { z* C z : |z_i| = b_i },   C = I - Q Q*,  z = b o u,

PhaseCut (Waldspurger, d'Aspremont, Mallat 2015) in scaled form. Its relaxation is ``min <C, X>``, ``X_ii = b_i^2``, ``X >= 0``; rows with
b_i = 0 have z_i = 0, so they leave the variable but stay in Q. With ``X = Z Z*``, Z of k columns, and V eliminated the other way
round, the rank-k problem is unconstrained and n/d times smaller,

    min over V in K^{d x k} of  F(V) = sum_i (|(QV)_i| - b_i)^2,      half gradient  V - Q*(b o (QV)_i / |(QV)_i|),

with signals at k = 1 and the relaxation from about k = sqrt(n) on. Recovery goes *lift - round - polish*: L-BFGS at k = 2 or 3,
loosely (converging there is slow without noise and biased with it), the leading singular vector, L-BFGS at k = 1. The lift is
what bad starts need; for good data other methods (RAAR, Douglas-Rachford) recover as much, or more from the fewest measurements.

What can be proved is a *bracket*: any h > 0 gives ``relaxation >= sum_i b_i^2 (1 - lambda h_i)`` for every
``lambda >= lambda_max(Q* diag(1/h) Q)`` (derived in `bmsdp.applications.phase_retrieval.bound`), and ``relaxation <= f* <= f(x)``.
With noise the relaxation is about half of f*: a rank-1 fit is then not proved optimal by it, however good it is. Without noise
both ends are 0.

*Fields.* Complex A: x complex, up to a global phase. Real A: x real, up to its sign ("sign retrieval"); pass ``A.astype(complex)``
if x is complex all the same. ``real=True``: x real although A is complex, such as an image behind its Fourier magnitudes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from ...manifolds import Oblique
from ...operators import LowRankPlusSparse, Operator
from ...problem import Problem
from ...result import Status
from .bound import FLOOR, Relaxation, check_rigor, relax
from .diffraction import MaskedFFT, coded_diffraction, masked_fft
from .fit import AmplitudeFit
from .orthonormal import Measurements, measurements
from .search import Callback, Search

__all__ = [
    "Bracket", "MaskedFFT", "Measurements", "Recovery", "align", "bracket", "coded_diffraction", "masked_fft", "measurements",
    "problem", "recover", "relative_error", "retrieve",
]  # fmt: skip

EXPAND = 2**24  # entries up to which a sparse A gets a stored Q in `problem`


@dataclass(frozen=True, eq=False)
class Recovery:
    """A signal that fits the magnitudes: a local minimum of f, or as far as the limits allowed."""

    x: np.ndarray = field(repr=False)
    """The signal, in its own shape; determined up to a global phase (sign, if real) at best."""
    u: np.ndarray = field(repr=False)
    """Phases (signs) of ``A x``, (n,); 1 where ``A x`` is 0."""
    value: float
    """``f(x) = sum (|A x| - b)^2``, in the units of b^2, evaluated from A itself in floating point."""
    misfit: float
    """``sqrt(value) / |b|``; 0 when b is 0."""
    bound: float | None = None
    """Lower bound on f(x) for all x, when it was asked for."""
    rigor: str | None = None
    """"verified" or "probabilistic": how the bound is known."""
    status: Status = field(default=Status.LOCALLY_OPTIMAL, repr=False)
    """LOCALLY_OPTIMAL: the gradient meets tol; STALLED, MAX_ITER, MAX_TIME, INTERRUPTED otherwise. Of `recover`: the result's."""
    attempts: int = 1
    """Starts that were lifted and rounded."""
    products: int = 0
    """Pairs of products with A and its adjoint, k columns counting as one."""
    nit: int = 0
    """Iterations of L-BFGS."""
    time: float = 0.0
    """Seconds."""

    @property
    def message(self) -> str:
        """The status in words."""
        return "converged to a local minimum of f" if self.status is Status.LOCALLY_OPTIMAL else self.status.value

    def error(self, x_true: Any) -> float:
        """``min over phases c of |c x - x_true| / |x_true|``."""
        return relative_error(self.x, x_true)


@dataclass(frozen=True, eq=False)
class Bracket:
    """``lower <= min f <= upper``: the relaxation's bound and the best rank-1 fit found."""

    lower: float
    """Lower bound on the relaxation, hence on f(x) for all x; as sure as ``rigor`` says. Never below 0."""
    upper: float
    """``f(x)`` of the recovered signal (floating point)."""
    relaxation: float
    """Cost of a feasible point of the relaxation: its optimum is between ``lower`` and this."""
    gap: float
    """``(relaxation - lower) / max(relaxation, 1e-10 |b|^2)``: how well the relaxation itself was solved."""
    rigor: str
    """"verified": holds for A and b as given, in exact arithmetic. "probabilistic": by Lanczos."""
    failure_probability: float
    rank: int
    """Columns of the relaxation's point that count."""
    recovery: Recovery = field(repr=False)
    products: int = 0
    time: float = 0.0

    @property
    def x(self) -> np.ndarray:
        """The signal with ``f(x) = upper``."""
        return self.recovery.x


def align(x: Any, reference: Any) -> np.ndarray:
    """``c x`` with the phase c (sign, if both are real) that brings it closest to the reference, of the same shape."""
    x, reference = np.asarray(x), np.asarray(reference)
    if x.shape != reference.shape:
        raise ValueError(f"x has shape {x.shape} but the reference has shape {reference.shape}; they must agree")
    c = np.vdot(x, reference)
    return x * (c / abs(c)) if c != 0 else x.copy()


def relative_error(x: Any, reference: Any) -> float:
    """``min over phases c of |c x - reference| / |reference|``; inf for a wrong x where the reference is 0."""
    distance, size = np.linalg.norm(align(x, reference) - reference), np.linalg.norm(reference)
    return float(distance / size) if size else (np.inf if distance else 0.0)


def problem(A: Any, b: Any) -> Problem:
    """PhaseCut in scaled form, ``min <I - Q Q*, X>`` over ``X_ii = b_i^2``, for ``bmsdp.solve``; rows with b_i = 0 are left out.

    Parameters
    ----------
    A : n x d ndarray, sparse array or LinearOperator (see `measurements`)
    b : array_like, (n,), magnitudes

    Returns
    -------
    Problem
        Complex for complex A, else real. Products cost 4 n d k flops, or one product with A and one with its adjoint;
        ``cost_scale = |b|^2``. `bracket` bounds the same optimum in d dimensions.
    """
    measured = measurements(A)
    if not measured.orthonormal:
        raise ValueError(NO_FACTOR.format(what="the relaxation", d=measured.d))
    b = check_magnitudes(b, measured.n)
    kept = np.flatnonzero(b**2 > 0)
    if not kept.size:
        raise ValueError("all magnitudes b are 0: x = 0 fits them, and no variable is left; check b")
    Q = measured.Q
    if Q is None and sp.issparse(measured.A) and measured.n * measured.d <= EXPAND:
        Q = measured.mul(np.eye(measured.d, dtype=measured.dtype))
    if Q is None:
        C: Operator = Complement(measured, kept)
    else:
        C = LowRankPlusSparse(sp.eye_array(kept.size, format="csr", dtype=measured.dtype), Q[kept], -np.ones(measured.d))
    return Problem(C, Oblique(b[kept] ** 2), cost_scale=float(b @ b), norm_C=1.0)


class Complement(Operator):
    """The rows and columns ``kept`` of ``I - Q Q*``, matrix-free."""

    def __init__(self, measured: Measurements, kept: np.ndarray):
        self.measured, self.kept, self.n, self.dtype = measured, kept, len(kept), measured.dtype

    def mul(self, Y: np.ndarray) -> np.ndarray:
        V = Y.reshape(self.n, -1)
        full = np.zeros((self.measured.n, V.shape[1]), np.result_type(self.dtype, V.dtype))
        full[self.kept] = V
        return np.ascontiguousarray(V - self.measured.mul(self.measured.adj(full))[self.kept]).reshape(Y.shape)

    def diagonal(self) -> np.ndarray | None:
        leverage = self.measured.leverage()
        return None if leverage is None else 1 - leverage[self.kept]


def recover(result: Any, A: Any, b: Any) -> Recovery:
    """The signal in a solution of ``problem(A, b)``: phases of the leading singular vector of Y, then least squares.

    Not polished: ``retrieve(A, b, start=recovery.x, rank=1)`` descends from it. Its bound is that of the result.
    """
    measured = measurements(A)
    b = check_magnitudes(b, measured.n)
    kept = np.flatnonzero(b**2 > 0)
    if len(result.Y) != kept.size:
        raise ValueError(f"the result has {len(result.Y)} rows but b has {kept.size} positive entries; pass the A and b it was made from")
    left = np.linalg.svd(result.Y, full_matrices=False)[0][:, 0]
    z, size = np.zeros((measured.n, 1), measured.dtype), np.abs(left)
    z[kept, 0] = b[kept] * np.divide(left, size, out=np.ones_like(left), where=size > 0)
    found = _recovery(measured, b, measured.to_signal(measured.adj(z))[:, 0])
    known = result.certificate is not None and np.isfinite(result.bound)
    return replace(
        found, status=result.status, bound=float(result.bound) if known else None, rigor=result.certificate.rigor if known else None,
        products=result.products, nit=result.nit, time=result.time,
    )  # fmt: skip


def retrieve(
    A: Any, b: Any, *, rank: int | None = None, start: Any = "spectral", tol: float = 1e-12, attempts: int | None = None,
    real: bool = False, certify: bool = False, max_iter: int = 2000, max_time: float | None = None, rng: Any = None,
    callback: Callback | None = None, progress: bool | None = None,
) -> Recovery:  # fmt: skip
    """A signal x with ``|A x|`` close to b: the best local minimum of ``f(x) = sum (|A x| - b)^2`` out of some attempts.

    Parameters
    ----------
    A : n x d ndarray, sparse array, LinearOperator with matvec and rmatvec, or `masked_fft`; full column rank
        Complex, or real for sign retrieval of a real x; see `measurements` for what is done with which.
    b : array_like, (n,), magnitudes, not negative
        All 0 is answered by x = 0.
    rank : int, optional
        Columns of the first lift; each further attempt has one more. Default 2 for complex, 3 for real signals; 1 never lifts.
    start : "spectral", "random", or an array
        A signal, in its shape or (d,), or d x p columns; attempts after a given start are random.
    tol : float
        Relative gradient ``|grad| / 2|R x|`` at which the rank-1 fit has converged; at least ``1.5e-8 sqrt(misfit)``, below which
        rounding hides what f still falls.
    attempts : int, optional
        At most so many starts; default 4, or 1 from a given start. The first whose misfit is at most 1.5 times that of its lift, or
        1e-5, is taken at once.
    real : bool
        x is real although A is complex.
    certify : bool
        Bound f from below as well, as `bracket` does.
    max_iter, max_time : iterations of each descent; seconds of the whole
    rng : Generator or seed
    callback : callable, optional
        ``callback(model, info)`` at every iterate, with ``model.Y = R x`` (d x k); StopIteration ends the search with what it has.
    progress : bool, optional; bars by default when stderr is a terminal

    Cost
    ----
    QR of an array A (once, 2 n d^2 flops or less), then some 50 to 150 products with A and its adjoint in easy cases. Memory: A,
    its Q if it is an array, and about 20 arrays of d k numbers.
    """
    began = time.perf_counter()
    measured = measurements(A, real=real)
    b = check_magnitudes(b, measured.n)
    rank, first = _check_search(measured, rank, start, tol)
    attempts = _check_limits(attempts if attempts is not None else 4 if isinstance(first, str) else 1, max_iter, max_time)
    if certify and not measured.orthonormal:
        raise ValueError(NO_FACTOR.format(what="certify=True", d=measured.d))
    if not b.any():
        return replace(_recovery(measured, b, np.zeros(measured.d, measured.dtype)), attempts=0, bound=0.0 if certify else None,
                       rigor="verified" if certify else None, time=time.perf_counter() - began)  # fmt: skip
    generator, unit = np.random.default_rng(rng), _unit(b)
    limits: dict[str, Any] = {"max_iter": max_iter, "max_time": max_time, "callback": callback, "progress": progress}
    search = Search(AmplitudeFit(measured, b / unit), generator, **limits)
    V = search.run(first, rank, attempts, tol)
    status, bound, rigor = search.status, None, None
    if certify:
        found = relax(search, V, 1e-2, "auto")
        bound, rigor = found.bound * unit**2, found.rigor
    return replace(
        _recovery(measured, b, measured.to_signal(V)[:, 0] * unit), bound=bound, rigor=rigor, status=status, attempts=search.attempts,
        products=search.fit.products, nit=search.nit, time=time.perf_counter() - began,
    )  # fmt: skip


def bracket(
    A: Any, b: Any, *, x: Any = None, tol: float = 1e-2, rigor: str = "auto", real: bool = False, max_iter: int = 5000,
    max_time: float | None = None, rng: Any = None, callback: Callback | None = None, progress: bool | None = None,
) -> Bracket:  # fmt: skip
    """``lower <= min f <= upper``: the bound that the relaxation proves, and f at the best signal found.

    Parameters
    ----------
    A, b, real, max_time, rng, callback, progress : as for `retrieve`; A*A diagonal, or at most 2048 columns
    x : array, optional
        A signal to descend from, instead of a search.
    tol : float
        Relative gap at which the relaxation is solved well enough, in (0, 1).
    rigor : {"auto", "verified", "probabilistic"}
        "verified" bounds hold for A and b as given in exact arithmetic, by one error-bounded d x d Cholesky factorisation; A must be an
        array or sparse array. "probabilistic" ones are wrong with probability 1e-6 (Lanczos). "auto" takes the first it can.

    Notes
    -----
    For Gaussian measurements with noise the relaxation's optimum is 0.4 to 0.6 of min f, at rank about ``0.8 sqrt(d)``.

    Cost
    ----
    Some hundred to thousand products with k = sqrt(d) to 2 sqrt(d) columns, more for less noise, and an eigenvalue problem of size d
    (Lanczos above d = 600) each time the rank grows.
    """
    began = time.perf_counter()
    measured = measurements(A, real=real)
    b = check_magnitudes(b, measured.n)
    if not measured.orthonormal:
        raise ValueError(NO_FACTOR.format(what="a bound", d=measured.d))
    check_rigor(measured, rigor)
    rank, first = _check_search(measured, 1 if x is not None else None, "spectral" if x is None else x, tol)
    attempts = _check_limits(4 if x is None else 1, max_iter, max_time)
    unit, floor = _unit(b), 0.0
    search = Search(
        AmplitudeFit(measured, b / unit), np.random.default_rng(rng), max_iter=max_iter, max_time=max_time, callback=callback,
        progress=progress,
    )  # fmt: skip
    if b.any():
        V = search.run(first, rank, attempts, 1e-12)
        status, found = search.status, relax(search, V, tol, rigor)
        floor = FLOOR * float(b @ b)
    else:
        V = np.zeros((measured.d, 1), measured.dtype)
        status, found = Status.LOCALLY_OPTIMAL, Relaxation(0.0, 0.0, "verified", 0.0, 0)
    signal = _recovery(measured, b, measured.to_signal(V)[:, 0] * unit)
    lower, value = found.bound * unit**2, found.value * unit**2
    seconds = time.perf_counter() - began
    signal = replace(
        signal, bound=lower, rigor=found.rigor, status=status, attempts=search.attempts, products=search.fit.products, nit=search.nit,
        time=seconds,
    )  # fmt: skip
    return Bracket(
        lower, signal.value, value, (value - lower) / max(value, floor) if value > lower else 0.0, found.rigor,
        found.failure_probability, found.rank, signal, search.fit.products, seconds,
    )  # fmt: skip


def _recovery(measured: Measurements, b: np.ndarray, x: np.ndarray) -> Recovery:
    """x (d,) with its value, from A itself."""
    Ax = np.asarray(measured.A @ x).ravel()
    size = np.abs(Ax)
    u = np.divide(Ax, size, out=np.ones_like(Ax), where=size > 0)
    r = size - b
    unit = _unit(b)
    misfit = float(np.linalg.norm(r / unit) / np.linalg.norm(b / unit)) if b.any() else 0.0
    return Recovery(x.reshape(measured.signal_shape), u, float(r @ r), misfit)


NO_FACTOR = (
    "{what} needs A = Q R with orthonormal Q, and A has {d} columns, more than 2048, without A*A being diagonal; "
    "retrieve(A, b) works, or pass A as an array"
)


def check_magnitudes(b: Any, n: int) -> np.ndarray:
    """B as float array (n,); ValueError with the reason where it is no vector of n finite magnitudes."""
    b = np.asarray(b)
    if b.dtype.kind == "c":
        raise ValueError("b is complex; magnitudes |A x| are needed: pass np.abs(b)")
    if b.dtype.kind not in "biuf":
        raise ValueError(f"b has dtype {b.dtype}; real numbers are needed")
    if b.shape != (n,):
        raise ValueError(f"b has shape {b.shape} but A has {n} rows; b must have shape ({n},), one magnitude a row")
    b = b.astype(float)
    if not np.isfinite(b).all():
        raise ValueError(f"b[{int(np.argmin(np.isfinite(b)))}] is NaN or infinite; every magnitude must be finite")
    if (b < 0).any():
        i = int(np.argmin(b))
        raise ValueError(f"b[{i}] = {b[i]:g} is negative; magnitudes |A x| are needed (clip noise at 0; from intensities: np.sqrt)")
    return b


def _unit(b: np.ndarray) -> float:
    """A power of two near the largest magnitude: b / unit is exact."""
    largest = float(b.max())
    return float(2.0 ** np.round(np.log2(largest))) if largest > 0 else 1.0


def _check_limits(attempts: int, max_iter: Any, max_time: Any) -> int:
    for name, count in (("attempts", attempts), ("max_iter", max_iter)):
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
            raise ValueError(f"{name} = {count}; a positive integer is needed")
    if max_time is not None and not (isinstance(max_time, (int, float, np.number)) and max_time > 0):
        raise ValueError(f"max_time = {max_time!r}; positive seconds are needed, or None")
    return int(attempts)


def _check_search(measured: Measurements, rank: int | None, start: Any, tol: float) -> tuple[int, Any]:
    """The rank, and "spectral", "random" or the start in coordinates V (d, p)."""
    d, is_complex = measured.d, measured.dtype.kind == "c"
    if rank is None:
        rank = min(2 if is_complex else 3, d)
    if isinstance(rank, bool) or not isinstance(rank, (int, np.integer)) or not 1 <= rank <= d:
        raise ValueError(f"rank = {rank}; an integer from 1 to d = {d} is needed (None: 2 for complex, 3 for real signals)")
    if not (isinstance(tol, (int, float, np.number)) and 0 < tol < 1):
        raise ValueError(f"tol = {tol}; a relative size is needed, 0 < tol < 1")
    if isinstance(start, str):
        if start not in ("spectral", "random"):
            raise ValueError(f'start = {start!r}; it must be "spectral", "random" or an array')
        return int(rank), start
    X = np.asarray(start)
    shape = measured.signal_shape
    if X.shape == shape:
        X = X.reshape(d, 1)
    elif X.shape == (d,) or (X.ndim == 2 and len(X) == d and 1 <= X.shape[1] <= d):
        X = X.reshape(d, -1)
    else:
        raise ValueError(f"the start has shape {X.shape}; the signal's shape {shape}, ({d},), or {d} x p columns are needed")
    if X.dtype.kind not in "biufc" or not np.isfinite(X).all() or not X.any():
        raise ValueError("the start has entries that are NaN, infinite or no numbers, or is 0; pass a finite signal other than 0")
    if X.dtype.kind == "c" and not is_complex:
        raise ValueError("the start is complex but signals are real here; pass a real start, or A.astype(complex)")
    return int(rank), measured.from_signal(X.astype(measured.dtype))
