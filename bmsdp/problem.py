"""The algebra of Burer-Monteiro, once for all manifolds (floor L3).

``f(Y) = <C, YY*>``, ``S = C - A*(mu)``, ``grad f = 2 S Y``, ``Hess f[U] = 2 Proj(S U)`` with the least-squares multipliers mu
of ``G = C Y`` (Boumal, Voroninski, Bandeira, 2016; Pumir, Jelassi, Boumal, 2018).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np

from .manifolds import Manifold, Oblique
from .manifolds.base import inner
from .operators import Operator, SparseOperator, as_operator, difference, spectral_norm
from .perturbation import perturb


class Term:
    """Something added to the cost: a smooth function of Y, or of X when it also knows its slack.

    Subclasses give ``value(Y)``, ``half_grad(Y)`` and ``half_hess(Y, U)`` (half the Euclidean derivatives); those that act
    on X also ``slack_mul(Y, V)`` and ``dual_value(Y)``, without which no certificate exists.  A term whose ``factor(Y)`` is not
    None gets it, computed once at each Y, as the last argument of all others.
    """

    def factor(self, Y: np.ndarray) -> Any:
        """What the other methods reuse at one Y; None where there is nothing to reuse."""
        return None

    def value(self, Y: np.ndarray) -> float:
        raise NotImplementedError

    def half_grad(self, Y: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def half_hess(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def slack_mul(self, Y: np.ndarray, V: np.ndarray) -> np.ndarray:
        raise TypeError(f"{type(self).__name__} does not act on X, so there is no slack and no certificate")

    def dual_value(self, Y: np.ndarray) -> float:
        raise TypeError(f"{type(self).__name__} does not act on X, so there is no dual value and no certificate")


NO_SLACK = "critical point; {} is no function of X, so that there is no slack, no bound and no certificate"


class Problem:
    """``min <C, X> + terms`` over ``X = YY*``, Y on a manifold.

    Parameters
    ----------
    C : array, sparse array, LinearOperator or Operator, n x n Hermitian
    manifold : Manifold
        With ``manifold.n == n``.
    terms : iterable of Term
    blocks : list of slice, optional
        Rows of each PSD block; one block by default.
    cost_scale : float, optional
        Smallest denominator of the relative gap, in units of the cost; 1.5e-8 norm_C trace by default.
    norm_C : float, optional
        About ``|C|_2``; sets units only.  Estimated by Lanczos when absent.
    threads : int
        Threads of the products with C.
    """

    def __init__(
        self,
        C: Any,
        manifold: Manifold,
        terms: Iterable[Term] = (),
        *,
        blocks: list[slice] | None = None,
        cost_scale: float | None = None,
        norm_C: float | None = None,
        threads: int = 1,
    ):
        C = as_operator(C)
        if C.n != manifold.n:
            raise ValueError(f"C is {C.n} x {C.n} but the manifold has {manifold.n} rows; they must agree")
        for part in getattr(manifold, "parts", [manifold]):
            if getattr(part, "is_complex", C.is_complex) != C.is_complex:
                field = ("real", "complex") if part.is_complex else ("complex", "real")
                raise ValueError(f"C is {field[0]} but {type(part).__name__} has {field[1]} blocks; set is_complex={C.is_complex}")
        if threads != C.threads:
            C = copy.copy(C)
            C.threads = threads
        self.C, self.manifold, self.terms = C, manifold, tuple(terms)
        self.blocks = blocks if blocks is not None else [slice(0, C.n)]
        self.cost_scale = cost_scale
        self.noise: Operator | None = None  # W, of a perturbed problem
        self.cache: dict[str, Any] = {}  # what certificates keep from one point to the next
        if norm_C is not None:
            self.norm_C = float(norm_C)

    @property
    def n(self) -> int:
        return self.C.n

    @property
    def dtype(self) -> np.dtype:
        return self.C.dtype

    @property
    def opaque(self) -> str | None:
        """The name of a term that does not act on X, with which there is neither slack nor bound; None without such a term."""
        return next((type(term).__name__ for term in self.terms if type(term).slack_mul is Term.slack_mul), None)

    @property
    def is_fused(self) -> bool:
        """Whether products with C and the calculus on spheres go in one pass over a sparse C."""
        return isinstance(self.C, SparseOperator) and type(self.manifold) is Oblique and not self.terms

    @cached_property
    def norm_C(self) -> float:
        """About ``|C|_2``, a power of two."""
        return spectral_norm(self.C)

    def at(self, Y: np.ndarray) -> LocalModel:
        """Everything known at Y (n x k, C-contiguous, of the problem's dtype)."""
        return LocalModel(self, Y)

    def random_point(self, k: int, rng: np.random.Generator) -> np.ndarray:
        """A random feasible factor with k columns."""
        return self.manifold.random_point(k, rng, self.dtype)

    def perturbed(self, sigma: float, rng: Any = None, *, pattern: bool = False) -> Problem:
        """The problem with Gaussian noise W on C, ``E|W_ij|^2 = sigma^2`` (smoothed analysis); its ``noise`` is W.

        Parameters
        ----------
        sigma : float
            In the units of C.
        rng : Generator or seed
        pattern : bool
            On the nonzero entries of a sparse C only: outside the theorem.
        """
        C, noise = perturb(self.C, sigma, rng, A=self.manifold, pattern=pattern)
        out = Problem(C, self.manifold, self.terms, blocks=self.blocks, cost_scale=self.cost_scale, threads=self.C.threads)
        out.noise = noise
        return out


class LocalModel:
    """Cost, gradient, Hessian, multipliers and slack at one Y, computed on first use.

    The model borrows Y: a solver may overwrite it after the next step; `copy` keeps it.  Storage: Y and the gradient.
    """

    def __init__(self, problem: Problem, Y: np.ndarray):
        self.problem, self.Y = problem, Y

    @cached_property
    def _known(self) -> list[tuple[Any, ...]]:
        """What each term reuses at this Y."""
        factors = [term.factor(self.Y) for term in self.problem.terms]
        return [() if factor is None else (factor,) for factor in factors]

    @cached_property
    def _first_order(self) -> tuple[float, np.ndarray, np.ndarray, Any]:
        """(cost, mu, grad, factor) from one product with C."""
        problem, Y = self.problem, self.Y
        if problem.is_fused and problem.C.threads == 1 and Y.dtype == problem.dtype:
            return _fused_grad(problem.C, problem.manifold.b, Y)
        G = problem.C.mul(Y)
        cost = inner(G, Y)
        for term, known in zip(problem.terms, self._known, strict=True):
            G += term.half_grad(Y, *known)
        factor = problem.manifold.factor(Y)
        mu = problem.manifold.multipliers(Y, G, factor)
        G -= problem.manifold.adjoint_mul(mu, Y)
        G *= 2
        return cost, mu, G, factor

    @property
    def cost(self) -> float:
        """``<C, X>``."""
        return self._first_order[0]

    @property
    def mu(self) -> np.ndarray:
        """Least-squares multipliers, (m,)."""
        return self._first_order[1]

    @property
    def grad(self) -> np.ndarray:
        """Riemannian gradient ``2 S Y``; not to be written to."""
        return self._first_order[2]

    @property
    def factor(self) -> Any:
        """What the manifold reuses at Y."""
        return self._first_order[3]

    @cached_property
    def merit(self) -> float:
        """What solvers minimise: cost and terms."""
        terms = zip(self.problem.terms, self._known, strict=True)
        return self.cost + sum(term.value(self.Y, *known) for term, known in terms)

    @cached_property
    def grad_norm(self) -> float:
        return float(np.linalg.norm(self.grad))

    @cached_property
    def trace(self) -> float:
        """``tr X = |Y|^2``."""
        return inner(self.Y, self.Y)

    @property
    def grad_scale(self) -> float:
        """``2 norm_C sqrt(trace)``: what a gradient is compared with."""
        return 2 * self.problem.norm_C * np.sqrt(self.trace)

    @property
    def cost_scale(self) -> float:
        """Smallest denominator of the relative gap."""
        scale, bounded = self.problem.cost_scale, self.problem.manifold.row_trace > 0
        if scale is not None:
            return scale
        # free rows have units of their own: translations may be as large as their origin is far away
        trace = self.trace if bounded.all() or not bounded.any() else float(np.linalg.norm(self.Y[bounded]) ** 2)
        return 1.5e-8 * self.problem.norm_C * trace

    @property
    def infeasibility(self) -> float:
        """Largest relative residual of constraints kept by terms; 0 on a manifold."""
        kept = [(term, known) for term, known in zip(self.problem.terms, self._known, strict=True) if hasattr(term, "infeasibility")]
        return max((term.infeasibility(self.Y, *known) for term, known in kept), default=0.0)

    def hess(self, U: np.ndarray, CU: np.ndarray | None = None) -> np.ndarray:
        """``Hess f(Y)[U] = 2 Proj(S U)`` for tangent U; one product with C, none where ``CU = C U`` is given."""
        problem, manifold = self.problem, self.problem.manifold
        if problem.is_fused and U.dtype == problem.dtype and CU is None:
            return _fused_hess(problem.C, manifold.b, self.mu, self.Y, U)
        H = self.slack_mul(U, CU, derivative=True)
        H -= manifold.adjoint_mul(manifold.multipliers(self.Y, H, self.factor), self.Y)
        H *= 2
        return H

    def slack_mul(self, V: np.ndarray, CV: np.ndarray | None = None, *, derivative: bool = False) -> np.ndarray:
        """``S V`` with ``S = C - A*(mu)`` and the terms' part (``derivative=True``: their half Hessian instead).

        ``CV = C V``, where it is known, saves the product.
        """
        out = self.problem.C.mul(V) if CV is None else CV.copy()
        out -= self.problem.manifold.adjoint_mul(self.mu, V)
        for term, known in zip(self.problem.terms, self._known, strict=True):
            out += term.half_hess(self.Y, V, *known) if derivative else term.slack_mul(self.Y, V, *known)
        return out

    def slack_matrix(self) -> Any:
        """S as CSR array or ndarray; None where C, A*(mu) or a term has no matrix."""
        C, A = self.problem.C.matrix(), self.problem.manifold.matrix(self.mu)
        if C is None or A is None or self.problem.terms:
            return None
        return difference(C, A)

    @property
    def dual_value(self) -> float:
        """``<b, mu>`` plus the terms' part; a bound only together with a positive semidefinite slack."""
        terms = sum(term.dual_value(self.Y, *known) for term, known in zip(self.problem.terms, self._known, strict=True))
        return float(self.problem.manifold.b @ self.mu) + terms

    def with_multipliers(self, mu: np.ndarray) -> LocalModel:
        """The model with other multipliers in its slack; cost and gradient stay those of Y."""
        out = LocalModel(self.problem, self.Y)
        out.__dict__ |= self.__dict__
        cost, _, grad, factor = self._first_order
        out.__dict__["_first_order"] = cost, mu, grad, factor
        return out

    def copy(self) -> LocalModel:
        """The same model on a Y of its own."""
        return LocalModel(self.problem, self.Y.copy())


def _fused_grad(C: SparseOperator, b: np.ndarray, Y: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, None]:
    from .kernels import spmm

    mu, grad = np.empty(len(Y)), np.empty_like(Y)
    return spmm.oblique_grad(C.C.indptr, C.C.indices, C.C.data, b, Y, mu, grad), mu, grad, None


def _fused_hess(C: SparseOperator, b: np.ndarray, mu: np.ndarray, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
    from .kernels import spmm

    out = np.empty_like(U)
    arguments = (C.C.indptr, C.C.indices, C.C.data, mu, b, Y, U, out)
    if C.threads > 1:
        from .kernels.threads import limited

        with limited(C.threads):
            spmm.oblique_hess_parallel(*arguments)
    else:
        spmm.oblique_hess(*arguments)
    return out
