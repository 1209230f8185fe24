r"""Smooth nonlinear costs written with ``autograd.numpy``, minimised on our manifolds by our solvers.

>>> import autograd.numpy as anp, bmsdp
>>> from bmsdp.interfaces import autograd
>>> def fun(Y):  # any smooth real function of the n x k factor
...     return anp.sum((Y @ Y.T) ** 4)
>>> problem = autograd.problem(fun, bmsdp.Oblique([1.0] * 6))
>>> result = bmsdp.minimize(problem, bmsdp.solvers.TrustRegion(), rank=3, rng=0)
>>> result.status.name
'LOCALLY_OPTIMAL'

Over C the factor is a real vector space: with ``df = Re <G, dY>``, G is the *conjugate* of what ``autograd.grad`` returns.
A function of Y is no function of the semidefinite X that duality knows: there is no slack, no bound and no certificate.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..manifolds import Manifold
from ..manifolds.base import gaussian
from ..operators import Operator, as_operator
from ..problem import Problem, Term


class AutogradCost(Term):
    """``fun(Y)``, with gradient and Hessian-vector products by reverse accumulation.

    Parameters
    ----------
    fun : callable
        n x k array -> real number, written with ``autograd.numpy``; for complex Y end it with ``np.real``.
    """

    def __init__(self, fun: Any):
        self.fun = fun

    def factor(self, Y: np.ndarray) -> Trace:
        return Trace(self.fun, Y)

    def value(self, Y: np.ndarray, factor: Trace | None = None) -> float:
        return (factor or self.factor(Y)).value

    def half_grad(self, Y: np.ndarray, factor: Trace | None = None) -> np.ndarray:
        return (factor or self.factor(Y)).half_grad

    def half_hess(self, Y: np.ndarray, U: np.ndarray, factor: Trace | None = None) -> np.ndarray:
        return (factor or self.factor(Y)).half_hess(U)


class Trace:
    """``fun`` at one Y: the value now, gradient and second-order products when they are asked for, each tape run once."""

    def __init__(self, fun: Any, Y: np.ndarray):
        from autograd.core import make_vjp

        self.fun, self.Y = fun, Y
        self._pull_back, value = make_vjp(fun, Y)
        if np.ndim(value) or np.iscomplexobj(value):
            kind = f"an array of shape {np.shape(value)}" if np.ndim(value) else "a complex number"
            raise TypeError(f"the cost returned {kind}; a real number is needed (sum it, or end it with np.real)")
        self.value = float(value)

    @cached_property
    def half_grad(self) -> np.ndarray:
        """G / 2 with ``df = Re <G, dY>``."""
        return self._of_type(self._pull_back(1.0))

    @cached_property
    def _second(self) -> Any:
        """The reverse pass through the gradient."""
        from autograd import grad
        from autograd.core import make_vjp

        gradient = grad(self.fun)
        return make_vjp(lambda Y: gradient(Y) + 0.0 * Y, self.Y)[0]  # that of a linear cost does not depend on Y: autograd warns

    def half_hess(self, U: np.ndarray) -> np.ndarray:
        """Half the derivative of G along U: the gradient of ``Re <G, U>``, since the Hessian is symmetric."""
        return self._of_type(self._second(U))

    def _of_type(self, raw: Any) -> np.ndarray:
        """autograd's conjugate convention undone."""
        return np.array(np.conj(raw) / 2, self.Y.dtype, order="C")


def problem(
    fun: Any, manifold: Manifold, C: Any = None, *, is_complex: bool | None = None, norm_C: float | None = None, rank: int | None = None,
    rng: Any = 0,
) -> Problem:  # fmt: skip
    """``min <C, YY*> + fun(Y)`` over Y on a manifold.

    Parameters
    ----------
    fun : callable
        As for `AutogradCost`.
    manifold : Manifold
    C : n x n Hermitian, optional
        A linear part, anything `Problem` takes; none by default.
    is_complex : bool, optional
        Whether Y is complex; by default as C and the manifold are, else real.
    norm_C : float, optional
        About half the norm of the Euclidean Hessian, which sets units only: that at a random point of ``rank`` columns by default.

    Returns
    -------
    Problem
        Minimise it with `bmsdp.minimize`; what that returns has ``history["merit"]`` for the cost, and no bound.
    """
    if is_complex is None:
        fields = [getattr(part, "is_complex", False) for part in getattr(manifold, "parts", [manifold])]
        is_complex = any(fields) or C is not None and bool(as_operator(C).is_complex)
    dtype = np.complex128 if is_complex else np.float64
    operator = as_operator(sp.csr_array((manifold.n, manifold.n), dtype=dtype) if C is None else C)
    operator = operator.as_complex() if is_complex and not operator.is_complex else operator
    if norm_C is None:
        norm_C = _curvature(fun, manifold, operator, rank, np.random.default_rng(rng))
    return Problem(operator, manifold, [AutogradCost(fun)], norm_C=norm_C)


def _curvature(fun: Any, manifold: Manifold, C: Operator, rank: int | None, rng: np.random.Generator) -> float:
    """About half the norm of the Hessian at a random point, by ten power steps, as a power of two; of a linear cost, the gradient's."""
    k = min(manifold.n, max(4, manifold.min_rank)) if rank is None else rank
    Y = manifold.random_point(k, rng, C.dtype)
    try:
        trace = Trace(fun, Y)
        G, U, size = C.mul(Y) + trace.half_grad, gaussian(rng, Y.shape, C.dtype), 0.0
        for _ in range(10):
            U = C.mul(U) + trace.half_hess(U)
            size = float(np.linalg.norm(U))
            if not 0 < size < np.inf:
                break
            U /= size
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"the cost failed at a random point of shape {Y.shape}: {error}; pass rank= where it is written for so many columns"
        ) from error
    if size == 0:
        size = float(np.linalg.norm(G) / np.linalg.norm(Y))
    if not np.isfinite(size):
        raise ValueError("the cost has no finite gradient and Hessian at a random point; pass norm_C, or a cost that is smooth there")
    return 2.0 ** np.ceil(np.log2(size)) if size > 0 else 1.0
