"""Multisecant quasi-Newton descent for any smooth function, as a method of `scipy.optimize.minimize`.

>>> from scipy.optimize import minimize, rosen, rosen_der
>>> from bmsdp.interfaces.scipy import multisecant
>>> result = minimize(rosen, [-1.2, 1.0], jac=rosen_der, method=multisecant)
>>> result.x.round(4).tolist()
[1.0, 1.0]
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy.sparse.linalg import LinearOperator

from ..qn import GroupedMultisecant, SymmetricMultisecant

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult  # imported where it is used: it takes a fifth of a second

ARMIJO = 1e-4
IDLE = 30  # steps without progress, beyond rounding, of the function or its gradient: precision is exhausted
EPS = float(np.finfo(float).eps)
MESSAGES = {
    0: "Optimization terminated successfully: {reason}.",
    1: "Maximum number of {reason} has been exceeded; raise it, or loosen gtol.",
    2: "No lower point along the search direction: precision is exhausted, or the gradient (max {gradient:.1e}) is not that of fun.",
    3: "The function or its gradient is not finite at x0; start elsewhere.",
    99: "`callback` raised `StopIteration`.",
}


class _Model(Protocol):
    def __len__(self) -> int: ...
    def push(self, s: np.ndarray, y: np.ndarray) -> Any: ...
    def clear(self) -> None: ...
    def mul(self, v: np.ndarray) -> np.ndarray: ...


def multisecant(
    fun: Callable[..., Any],
    x0: Any,
    args: Any = (),
    jac: Callable[..., Any] | bool | None = None,
    hess: Any = None,
    hessp: Any = None,
    bounds: Any = None,
    constraints: Any = (),
    callback: Callable[..., Any] | None = None,
    **options: Any,
) -> OptimizeResult:
    r"""Minimise a smooth function of n variables: ``minimize(fun, x0, jac=..., method=multisecant, options={...})``, or called directly.

    Steps ``-H grad`` with backtracking (Armijo; quadratic interpolation), H from the last secant pairs, all at once where they agree
    (`bmsdp.qn.GroupedMultisecant`).  The function never rises beyond rounding; trial points where it is not finite are backed off from.

    Parameters
    ----------
    fun, x0, args, callback
        As for `scipy.optimize.minimize`; both kinds of callback, StopIteration ends the run.
    jac : callable, True or None
        ``jac(x, *args) -> (n,)``; True: fun returns (value, gradient); None: forward differences, n more evaluations a step.
    hess, hessp
        Not used (RuntimeWarning).
    bounds, constraints
        Refused: the method is unconstrained.
    **options
        ``memory`` (10): secant pairs; 4 memory vectors are stored.  ``gtol`` (tol, or 1e-5): stop at ``max |grad| <= gtol``.  ``ftol`` (0):
        stop where a step lowers the function by at most ``ftol max(|f|, |f before|, 1)``.  ``maxiter`` (15000), ``maxfun`` (None).  ``reg``
        (1e-10): regularisation relative to the secants.  ``eps`` (1.5e-8): step of the differences, times max(1, |x|).  ``disp`` (False).
        ``flavour``: "grouped"; or, to compare with, "weighted" (all pairs in one group) or "frobenius" (the clipped least-squares Hessian).

    Returns
    -------
    scipy.optimize.OptimizeResult
        x, fun, jac, nit, nfev, njev, hess_inv (a LinearOperator), success, message and status: 0 converged, 1 a limit, 2 no lower point
        found, 3 not finite at x0, 99 stopped by the callback.

    Raises
    ------
    ValueError
        For bounds or constraints, an x0 that is not a real vector, and values and gradients of a wrong shape.
    """
    if bounds is not None or np.any(constraints):
        given = "bounds" if bounds is not None else "constraints"
        raise ValueError(f"{given} are given; this method is unconstrained: use method='L-BFGS-B' (bounds) or 'SLSQP' (constraints)")
    if hess is not None or hessp is not None:
        warnings.warn("multisecant does not use Hessian information (hess, hessp)", RuntimeWarning, stacklevel=2)
    return _minimise(fun, x0, args if isinstance(args, tuple) else (args,), jac, _wrapped(callback), **options)


def _minimise(
    fun: Any,
    x0: Any,
    args: tuple[Any, ...],
    jac: Any,
    callback: Any,
    *,
    memory: int = 10,
    flavour: str = "grouped",
    reg: float = 1e-10,
    gtol: float | None = None,
    ftol: float = 0.0,
    maxiter: int = 15000,
    maxfun: int | None = None,
    eps: float = EPS**0.5,
    disp: bool = False,
    tol: float | None = None,
    **unknown: Any,
) -> OptimizeResult:
    if unknown:
        from scipy.optimize import OptimizeWarning

        warnings.warn(f"Unknown solver options: {', '.join(unknown)}", OptimizeWarning, stacklevel=3)
    objective, x = _Objective(fun, jac, args, eps), _start(x0)
    gtol = (1e-5 if tol is None else tol) if gtol is None else gtol
    limit = np.inf if maxfun is None else maxfun
    result = _Run(objective, _model(flavour, len(x), memory, reg), gtol, ftol, maxiter, limit, callback).descend(x)
    if disp:
        print(f"{result.message}\n  fun {result.fun:.6g}, nit {result.nit}, nfev {result.nfev}, njev {result.njev}")
    return result


def noise(f: float) -> float:
    """Changes of the function that rounding may feign."""
    return 10 * EPS * abs(f)


class _Run:
    """The descent, and when it ends."""

    def __init__(self, objective: _Objective, model: _Model, gtol: float, ftol: float, maxiter: float, maxfun: float, callback: Any):
        self.objective, self.model, self.callback = objective, model, callback
        self.gtol, self.ftol, self.maxiter, self.maxfun = gtol, ftol, maxiter, maxfun

    def descend(self, x: np.ndarray) -> OptimizeResult:
        model, nit = self.model, 0
        f = self.objective.value(x)
        g = self.objective.gradient(x) if np.isfinite(f) else np.full(len(x), np.nan)
        if not np.isfinite(g).all():
            return self._result(x, f, g, nit, 3)
        reach = min(
            1.0, 1 / max(float(np.abs(g).sum()), 1e-300)
        )  # step of steepest descent, where there is no pair: at first of length <= 1
        lowest, flattest, idle = f, float(np.linalg.norm(g)), 0
        while True:
            if np.abs(g).max(initial=0) <= self.gtol:
                return self._result(x, f, g, nit, 0, f"max |grad| <= gtol = {self.gtol:g}")
            if nit >= self.maxiter:
                return self._result(x, f, g, nit, 1, "iterations")
            d = -model.mul(g) if len(model) else -reach * g
            slope = float(g @ d)
            if len(model) and not slope < -1e-12 * float(np.linalg.norm(g) * np.linalg.norm(d)):
                model.clear()
                continue
            found = self._search(x, f, lowest, d, slope) if idle < IDLE else None
            if found is None and self.objective.nfev >= self.maxfun:
                return self._result(x, f, g, nit, 1, "function evaluations")
            if found is None and len(model) and idle < IDLE:  # once more, by steepest descent
                model.clear()
                continue
            if found is None:
                return self._result(x, f, g, nit, 2)
            step, trial, value, gradient = found
            model.push(trial - x, gradient - g)
            reach = step * float(np.linalg.norm(d) / np.linalg.norm(g)) if len(model) else 4 * step * reach
            drop, size = f - value, max(abs(f), abs(value), 1.0)
            x, f, g, nit = trial, value, gradient, nit + 1
            progress = f < lowest - noise(lowest) or np.linalg.norm(g) < 0.9 * flattest
            idle = 0 if progress else idle + 1
            lowest, flattest = min(lowest, f), min(flattest, float(np.linalg.norm(g)))
            if self.callback is not None and self.callback(x, f):
                return self._result(x, f, g, nit, 99)
            if self.ftol > 0 and drop <= self.ftol * size:
                return self._result(x, f, g, nit, 0, f"the function fell by less than ftol = {self.ftol:g}")

    def _search(self, x: np.ndarray, f: float, lowest: float, d: np.ndarray, slope: float) -> Any:
        """(step, x + step d, its value, its gradient), backtracking from step 1; or None."""
        step = 1.0
        for _ in range(40):
            trial = x + step * d
            if self.objective.nfev >= self.maxfun or np.array_equal(trial, x):
                return None
            value = self.objective.value(trial) if np.isfinite(trial).all() else np.nan
            change = value - f
            enough = change <= ARMIJO * step * slope
            if np.isfinite(value) and (enough or value <= lowest + noise(lowest)):
                gradient = self.objective.gradient(trial)
                # where the function is flat in floating point, its derivative is the judge (Hager and Zhang, 2005)
                if np.isfinite(gradient).all() and (enough or gradient @ d <= (2 * ARMIJO - 1) * slope):
                    return step, trial, float(value), gradient
            bend = change - step * slope
            step *= min(max(-0.5 * step * slope / bend, 0.1), 0.5) if np.isfinite(bend) and bend > 0 else 0.1
        return None

    def _result(self, x: np.ndarray, f: float, g: np.ndarray, nit: int, status: int, reason: str = "") -> OptimizeResult:
        from scipy.optimize import OptimizeResult

        model, n = self.model, len(x)
        inverse = LinearOperator((n, n), matvec=lambda v: model.mul(np.ravel(v)) if len(model) else np.ravel(v), dtype=float)
        message = MESSAGES[status].format(reason=reason, gradient=np.abs(g).max(initial=0))
        counts = {"nit": nit, "nfev": self.objective.nfev, "njev": self.objective.njev}
        return OptimizeResult(x=x, fun=f, jac=g, hess_inv=inverse, status=status, success=status == 0, message=message, **counts)


class _Objective:
    """fun and its gradient, counted; the gradient is asked for at the point of the last value."""

    def __init__(self, fun: Any, jac: Any, args: tuple[Any, ...], eps: float):
        if not (jac is None or jac is False or jac is True or callable(jac)):
            raise ValueError(f"jac = {jac!r}; a callable, True (fun returns value and gradient) or None (forward differences) is needed")
        self.fun, self.jac, self.args, self.eps = fun, jac, args, eps
        self.nfev = self.njev = 0
        self._last: tuple[Any, float, Any] = (None, 0.0, None)

    def value(self, x: np.ndarray) -> float:
        value, gradient = self._call(x), None
        if self.jac is True:
            value, gradient = value
        self._last = (x, self._number(value), gradient)
        return self._last[1]

    def gradient(self, x: np.ndarray) -> np.ndarray:
        self.njev += 1
        if callable(self.jac):
            g = self.jac(x.copy(), *self.args)
        elif self.jac is True:
            g = self._last[2]
        else:
            at, known, _ = self._last
            near = lambda z: known if np.array_equal(z, at) else self._number(self._call(z))  # noqa: E731
            from scipy.optimize import approx_fprime

            g = approx_fprime(x, near, self.eps * np.maximum(1, np.abs(x)))
        g = np.array(g, float)
        if g.shape != x.shape:
            raise ValueError(f"the gradient has shape {g.shape}; {x.shape} is needed, that of x0")
        return g

    def _call(self, x: np.ndarray) -> Any:
        self.nfev += 1
        return self.fun(x.copy(), *self.args)

    @staticmethod
    def _number(value: Any) -> float:
        value = np.asarray(value)
        if value.size != 1 or np.iscomplexobj(value):
            raise ValueError(f"fun returned an array of shape {value.shape}, {value.dtype}; one real number is needed")
        return float(value.item())


def _start(x0: Any) -> np.ndarray:
    x = np.atleast_1d(np.asarray(x0))
    if x.ndim != 1 or np.iscomplexobj(x) or not np.isfinite(x.astype(float)).all():
        raise ValueError(
            f"x0 has shape {x.shape}, {x.dtype}; a vector of finite real numbers is needed (complex ones: real and imaginary parts)"
        )
    return x.astype(float)


class _Plain:
    """`SymmetricMultisecant` as a model of the inverse Hessian."""

    def __init__(self, pairs: SymmetricMultisecant):
        self.pairs, self.clear, self.push = pairs, pairs.reset, pairs.push

    def __len__(self) -> int:
        return len(self.pairs)

    def mul(self, v: np.ndarray) -> np.ndarray:
        return self.pairs.apply(v) if self.pairs.kind == "inverse" else self.pairs.solve(v)


def _model(flavour: str, n: int, memory: int, reg: float) -> _Model:
    if flavour == "grouped":
        return GroupedMultisecant(n, memory, reg)
    if flavour == "weighted":
        return _Plain(SymmetricMultisecant("inverse", "weighted", memory, reg))
    if flavour == "frobenius":
        return _Plain(SymmetricMultisecant("hessian", "frobenius", memory, reg, pd_bounds=(0.5, 100.0)))
    raise ValueError(f"flavour = {flavour!r}; it is 'grouped', 'weighted' or 'frobenius'")


def _wrapped(callback: Any) -> Any:
    """callback(x, f) -> whether to stop, from either of SciPy's signatures."""
    if callback is None:
        return None
    try:
        whole = set(inspect.signature(callback).parameters) == {"intermediate_result"}
    except ValueError:  # builtins may have no signature
        whole = False

    def call(x: np.ndarray, f: float) -> bool:
        try:
            if whole:
                from scipy.optimize import OptimizeResult

                callback(intermediate_result=OptimizeResult(x=x.copy(), fun=f))
            else:
                callback(x.copy())
        except StopIteration:
            return True
        return False

    return call
