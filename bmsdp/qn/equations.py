"""Systems of equations and fixed points by multisecant steps: Anderson's method, and its symmetric relative."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .updates import multisecant, singular_basis, symmetric_multisecant

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult  # imported where it is used: it takes a fifth of a second

WINDOW = 10  # a residual may rise, but not above the largest of so many (Grippo, Lampariello and Lucidi, 1986)
DECREASE = 1e-4  # of the residual, asked of a step
SLACK = 1e-3  # allowed above it at first, of the first residual: steps too short to lower it tell the scale (La Cruz et al., 2006)
MESSAGES = {
    0: "The residual, {residual:.2e}, is below the tolerance.",
    1: "Maximum number of {reason} has been exceeded; the smallest residual is {residual:.2e}.",
    2: "No step lowers the residual, {residual:.2e}: a stationary point of its norm, or precision is exhausted.",
    3: "The residual is not finite at x0; start elsewhere.",
    99: "`callback` raised `StopIteration`.",
}


def root(
    fun: Callable[..., Any],
    x0: Any,
    args: Any = (),
    *,
    symmetric: bool = False,
    memory: int = 10,
    reg: float = 1e-10,
    tol: float = 1e-8,
    atol: float = 0.0,
    maxiter: int = 1000,
    maxfun: int | None = None,
    callback: Callable[[np.ndarray, np.ndarray], Any] | None = None,
) -> OptimizeResult:
    r"""Solve F(x) = 0 without derivatives, by quasi-Newton steps from the last secant pairs.

    Not symmetric: Anderson's method (1965; type II of Fang and Saad, 2009), ``x - H F(x)`` with the H of least change that maps the
    differences of F to those of x.  Symmetric: ``x - B^-1 F(x)`` with the symmetric B of least squares that maps differences of x to those
    of F (`symmetric_multisecant`): for Jacobians that are symmetric, definite or not; it fails where they are far from it.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args)``, of the shape of x.
    x0 : array_like
        Of any shape; real or complex (a real space: fun need not be holomorphic).
    args : tuple
    symmetric : bool
    memory : int
        Secant pairs.
    reg : float
        Regularisation relative to the squared length of the (normalised) secants.
    tol, atol : float
        Stop at ``|F(x)|_2 <= max(atol, tol |F(x0)|_2)``.
    maxiter, maxfun : int
    callback : callable
        ``callback(x, F)`` after each step; StopIteration ends the run.

    Returns
    -------
    scipy.optimize.OptimizeResult
        x (of the smallest residual met), fun, nit, nfev, restarts, success, message and status: 0 converged, 1 a limit, 2 no step lowers
        the residual, 3 not finite at x0, 99 stopped by the callback.

    Notes
    -----
    A step is shortened until the norm of F falls below the largest of the last ten; after four attempts the pairs are forgotten and a step
    along -F or F is tried (spectral residual method; La Cruz, Martinez and Raydan, 2006).  O(N m^2) flops an iteration.
    """
    args = args if isinstance(args, tuple) else (args,)
    equations = _Equations(lambda x: fun(x, *args), x0)
    return _Steps(equations, symmetric, memory, reg, None, atol, maxiter, maxfun, callback).run(lambda x, F, first: tol * first)


def fixed_point(
    g: Callable[..., Any],
    x0: Any,
    args: Any = (),
    *,
    symmetric: bool = False,
    mixing: float = 1.0,
    memory: int = 5,
    reg: float = 1e-10,
    tol: float = 1e-8,
    atol: float = 0.0,
    maxiter: int = 1000,
    maxfun: int | None = None,
    callback: Callable[[np.ndarray, np.ndarray], Any] | None = None,
) -> OptimizeResult:
    r"""Solve x = g(x) by Anderson acceleration of ``x + mixing (g(x) - x)``, or its symmetric relative, safeguarded.

    Steps that do not lower the residual enough give way to plain ones: where g is a contraction they always do.

    Parameters
    ----------
    g : callable
        ``g(x, *args)``, of the shape of x.
    mixing : float
        theta of the inverse Jacobian of ``x - g(x)``; not 0.
    tol, atol : float
        Stop at ``|g(x) - x|_2 <= max(atol, tol max(|x|_2, |g(x)|_2, |g(x0) - x0|_2))``.
    x0, args, symmetric, memory, reg, maxiter, maxfun, callback
        As for `root`, of ``F(x) = x - g(x)``.

    Returns
    -------
    scipy.optimize.OptimizeResult
        As of `root`; fun is x - g(x).

    Examples
    --------
    >>> import numpy as np
    >>> from bmsdp.qn import fixed_point
    >>> float(fixed_point(np.cos, 1.0).x.round(8))
    0.73908513
    """
    if not (np.isfinite(mixing) and mixing != 0):
        raise ValueError(f"mixing = {mixing}; a finite number other than 0 is needed (1: the plain iteration)")
    args = args if isinstance(args, tuple) else (args,)
    equations = _Equations(lambda x: x - np.asarray(g(x, *args)), x0)

    def enough(x: np.ndarray, F: np.ndarray, first: float) -> float:
        return tol * max(float(np.linalg.norm(x)), float(np.linalg.norm(x - F)), first)

    return _Steps(equations, symmetric, memory, reg, float(mixing), atol, maxiter, maxfun, callback).run(enough)


class _Equations:
    """F on flat real vectors, counted."""

    def __init__(self, function: Callable[[np.ndarray], Any], x0: Any):
        x0 = np.asarray(x0)
        self.dtype = np.dtype(complex if np.iscomplexobj(x0) else float)
        self.shape, self.function, self.nfev = x0.shape, function, 0
        self.start = np.array(x0, self.dtype).reshape(-1).view(float)
        if not np.isfinite(self.start).all():
            raise ValueError("x0 has entries that are not finite; finite numbers are needed")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.nfev += 1
        F = np.asarray(self.function(self.shaped(x).copy()))
        if F.shape != self.shape or (np.iscomplexobj(F) and self.dtype != complex):
            raise ValueError(f"the function returned shape {F.shape}, {F.dtype}; {self.shape}, {self.dtype} is needed, as x0")
        return np.array(F, self.dtype).reshape(-1).view(float)

    def shaped(self, x: np.ndarray) -> np.ndarray:
        return x.view(self.dtype).reshape(self.shape)


class _Steps:
    """The iteration of `root` and `fixed_point`."""

    def __init__(
        self,
        F: _Equations,
        symmetric: bool,
        memory: int,
        reg: float,
        theta: float | None,
        atol: float,
        maxiter: int,
        maxfun: Any,
        callback: Any,
    ):
        if isinstance(memory, bool) or not isinstance(memory, (int, np.integer)) or memory < 1:
            raise ValueError(f"memory = {memory}; a positive number of pairs is needed")
        if not 0 <= reg < np.inf:
            raise ValueError(f"reg = {reg}; a finite number >= 0 is needed (1e-10 is the default)")
        self.F, self.symmetric, self.reg, self.atol, self.callback = F, symmetric, reg, atol, callback
        self.maxiter, self.maxfun = maxiter, np.inf if maxfun is None else maxfun
        self.adaptive, self.theta = theta is None, 1.0 if theta is None else theta
        self.pairs: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=int(memory))
        self.restarts = 0

    def run(self, enough: Callable[[np.ndarray, np.ndarray, float], float]) -> OptimizeResult:
        x = self.F.start
        F = self.F(x)
        size = first = float(np.linalg.norm(F))
        best, sizes, nit = (size, x, F), deque([size], maxlen=WINDOW), 0
        if not np.isfinite(size):
            return self._result(best, nit, 3)
        if self.adaptive:  # a first step no longer than x, or 1
            self.theta = min(1.0, max(1.0, float(np.linalg.norm(x))) / max(first, 1e-300))
        while True:
            if size <= max(self.atol, enough(x, F, first)):
                return self._result((size, x, F), nit, 0)
            if nit >= self.maxiter:
                return self._result(best, nit, 1, "iterations")
            trial = self._search(x, F, max(sizes), SLACK * first / (1 + nit) ** 2)
            if trial is None:
                full = self.F.nfev >= self.maxfun
                return self._result(best, nit, 1 if full else 2, "function evaluations")
            self._push(trial[0] - x, trial[1] - F)
            (x, F), nit = trial, nit + 1
            size = float(np.linalg.norm(F))
            sizes.append(size)
            best = min(best, (size, x, F), key=lambda entry: entry[0])
            if self._halted(x, F):
                return self._result(best, nit, 99)

    def _search(self, x: np.ndarray, F: np.ndarray, bound: float, slack: float) -> tuple[np.ndarray, np.ndarray] | None:
        """x and F after a step that brings the norm below the bound, but for some slack; or None."""
        attempts = [(True, t) for t in (1.0, 0.5, 0.125, 0.03125)] if self.pairs else []
        attempts += [(False, (-1.0) ** j * 0.5**i) for i in range(25) for j in ((0, 1) if i else (0,))]
        d = self._direction(F)
        for secant, t in attempts:
            if self.F.nfev >= self.maxfun:
                return None
            if not secant and self.pairs:
                self.pairs.clear()
                self.restarts += 1
                d = -self.theta * F
            trial = x + t * d
            if not np.isfinite(trial).all():
                continue
            value = self.F(trial)
            if np.linalg.norm(value) <= (1 - DECREASE * abs(t)) * bound + slack:
                return trial, value
        return None

    def _direction(self, F: np.ndarray) -> np.ndarray:
        if not self.pairs:
            return -self.theta * F
        S, Y = (np.array([pair[i] for pair in self.pairs]).T for i in (0, 1))
        unit = 1 / np.linalg.norm(S if self.symmetric else Y, axis=0)
        S, Y = S * unit, Y * unit
        if not self.symmetric:
            return -multisecant(Y, S, self.theta, self.reg * float(np.linalg.norm(Y, 2)) ** 2).mul(F)
        scale = 1 / self.theta
        if self.adaptive:  # what B does not know is taken for stiff: |Y S^+|, a lower estimate of the Jacobian's norm
            _, singular, Ut, length = singular_basis(S, 1e-6)
            scale = np.sign(self.theta) * float(np.linalg.norm(Y @ Ut.T / singular, 2)) / length
        B = symmetric_multisecant(S, Y, scale, self.reg * float(np.linalg.norm(S, 2)) ** 2)
        try:
            return -B.solve(F)
        except np.linalg.LinAlgError:
            return -self.theta * F

    def _push(self, s: np.ndarray, y: np.ndarray) -> None:
        sy, ss, yy = float(s @ y), float(s @ s), float(y @ y)
        if not min(ss, yy) > 1e-250:  # inner products underflow, or F is constant
            return
        self.pairs.append((s, y))
        if self.adaptive and abs(sy) > 1e-3 * np.sqrt(ss * yy):
            self.theta = sy / yy

    def _halted(self, x: np.ndarray, F: np.ndarray) -> bool:
        if self.callback is None:
            return False
        try:
            self.callback(self.F.shaped(x).copy(), self.F.shaped(F).copy())
        except StopIteration:
            return True
        return False

    def _result(self, best: tuple[float, np.ndarray, np.ndarray], nit: int, status: int, reason: str = "") -> OptimizeResult:
        size, x, F = best
        from scipy.optimize import OptimizeResult

        return OptimizeResult(
            x=self.F.shaped(x).copy(),
            fun=self.F.shaped(F),
            status=status,
            success=status == 0,
            message=MESSAGES[status].format(residual=size, reason=reason),
            nit=nit,
            nfev=self.F.nfev,
            restarts=self.restarts,
        )
