"""Over-relaxed mixing: one row (or Stiefel block) at a time, Gauss-Seidel with successive over-relaxation.

Wang, Chang, Kolter, "The mixing method" (2017), with the relaxation of SOR; see `bmsdp.kernels.mixing` for the row step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..manifolds import Manifold, Oblique, StiefelProduct
from ..problem import LocalModel, Problem

Sweep = Callable[[float], tuple[float, float]]
Sweeper = Callable[[Manifold, Problem, np.ndarray], Sweep | None]
BLOCK = 32  # rows of a dense C whose products are formed by one BLAS call
HANDOVER = 1.8  # relaxation from which the adaptive rule goes on after a schedule, at most: from above, it would be slow where all is easy
COLOURED_ROWS = 20_000  # below, colours are too small to share between threads


@singledispatch
def sweeper(manifold: Manifold, problem: Problem, Y: np.ndarray) -> Sweep | None:
    """``sweep(omega) -> (decrease of the cost, |grad|^2)`` over Y in place; None where there is no cheap row update."""
    return None


@sweeper.register
def _(manifold: Oblique, problem: Problem, Y: np.ndarray) -> Sweep | None:
    C = problem.C.matrix()
    if C is None:
        return None
    from ..kernels import mixing as kernel

    radius, k = manifold.radius, Y.shape[1]
    if isinstance(C, np.ndarray):
        off, G, before = C.copy(), np.empty((min(BLOCK, problem.n), k), Y.dtype), np.empty(k, Y.dtype)
        np.fill_diagonal(off, 0)
        return lambda omega: kernel.dense_sweep(off, radius, omega, Y, G, before)
    data = C.data.astype(Y.dtype, copy=False)
    if problem.C.threads > 1 and problem.n >= COLOURED_ROWS:
        from ..kernels.threads import limited

        order, pointer = kernel.greedy_colouring(C.indptr, C.indices)
        T = problem.C.threads
        g, decrease, grad2 = np.empty((T, k), Y.dtype), np.zeros(T), np.zeros(T)

        def sweep(omega: float) -> tuple[float, float]:
            with limited(T):
                return kernel.coloured_sweep(C.indptr, C.indices, data, radius, omega, order, pointer, Y, g, decrease, grad2)

        return sweep
    g = np.empty(k, Y.dtype)
    return lambda omega: kernel.sparse_sweep(C.indptr, C.indices, data, radius, omega, Y, g)


@sweeper.register
def _(manifold: StiefelProduct, problem: Problem, Y: np.ndarray) -> Sweep | None:
    C = problem.C.matrix()
    if C is None:
        return None
    from ..kernels.block_mixing import block_sweep

    C = sp.csr_array(C)
    G = np.empty((manifold.d, Y.shape[1]), Y.dtype)
    return lambda omega: block_sweep(C.indptr, C.indices, C.data, manifold.d, omega, Y, G)


@dataclass(frozen=True)
class Mixing:
    """Over-relaxed mixing sweeps, monotone in the cost; limit points are critical.

    On `Oblique` and `StiefelProduct` with a sparse or dense C; for an operator C on `Oblique` the majorised step
    ``y_i <- -normalise(g_i - c y_i)``, extrapolated while the cost falls.  Storage: Y and one row;
    a dense C is copied once, without its diagonal.

    Attributes
    ----------
    omega : float, optional
        Fixed relaxation in (0, 2).  By default ``omega = 2 - 10/(s + 10)``, where s counts the sweeps whose observed rate was
        slower than the ``(omega - 1)^2`` that over-relaxation itself allows: SOR's optimum, approached from below.
    omega_max : float
    sweeps : int
        Sweeps between two iterates.
    schedule : sequence of float
        Relaxations in (0, 2] of the first sweeps (see `bmsdp.learned`, `bmsdp.theory.schedules`); then ``omega``, or the rule above,
        from the largest relaxation of the schedule on, or from 1.8.  The majorised step has no relaxation and ignores it.
    """

    omega: float | None = None
    omega_max: float = 1.995
    sweeps: int = 5
    schedule: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.omega is not None and not 0 < self.omega < 2:
            raise ValueError(f"omega = {self.omega}; over-relaxation needs 0 < omega < 2 (1 is plain mixing)")
        object.__setattr__(self, "schedule", tuple(map(float, self.schedule)))
        for l, omega in enumerate(self.schedule):
            if not 0 < omega <= 2:
                raise ValueError(f"schedule[{l}] = {omega}; over-relaxation needs 0 < omega <= 2")

    def applies(self, problem: Problem) -> bool:
        """Whether there is a step for this problem: Oblique or Stiefel rows, no terms."""
        manifold = problem.manifold
        rows = isinstance(manifold, Oblique) or (isinstance(manifold, StiefelProduct) and problem.C.matrix() is not None)
        return rows and not problem.terms

    def iterates(self, problem: Problem, Y: np.ndarray, sweeper: Sweeper = sweeper) -> Iterator[tuple[LocalModel, dict[str, Any]]]:
        """As for all solvers; another ``sweeper`` brings another row step, whose sweeps are told the relaxation all the same."""
        if not self.applies(problem):
            raise TypeError(
                f"Mixing has no step for {type(problem.manifold).__name__} with this cost; use TrustRegion() or LBFGS()"
            )
        if isinstance(problem.manifold, StiefelProduct) and problem.manifold.d == 1:  # rows of unit length
            kept = {"blocks": problem.blocks, "cost_scale": problem.cost_scale, "norm_C": problem.norm_C, "threads": problem.C.threads}
            problem = Problem(problem.C, Oblique(np.ones(problem.n)), **kept)
        Y = np.array(Y, order="C")
        sweep = sweeper(problem.manifold, problem, Y)
        yield from self._majorised(problem, Y) if sweep is None else self._sweeps(problem, Y, sweep)

    def _sweeps(self, problem: Problem, Y: np.ndarray, sweep: Sweep) -> Iterator[tuple[LocalModel, dict[str, Any]]]:
        model = problem.at(Y)
        merit, scale = model.cost, problem.norm_C * model.trace
        products, rate, last, quiet = 1, 0.0, 0.0, 0
        ahead, reached = iter(self.schedule), min(max(self.schedule, default=1.0), HANDOVER, self.omega_max)
        slow = max(10 / (2 - reached) - 10, 0.0)  # where the rule would be at that relaxation
        yield model, {"products": products, "merit": merit, "omega": self.omega or 1.0}
        while True:
            grad2, omega = 0.0, 1.0
            for _ in range(self.sweeps):
                omega = next(ahead, 0.0) or self.omega or min(self.omega_max, 2 - 10 / (slow + 10))
                decrease, grad2 = sweep(omega)
                merit -= decrease
                products += 1
                if last > 0 and decrease > 0:
                    rate = 0.9 * rate + 0.1 * math.log(decrease / last)
                slow += slow < 10 or rate > 1.4 * math.log(max(omega - 1, 1e-3))
                last = decrease
                quiet = quiet + 1 if decrease <= 1e-17 * scale else 0
            stalled = quiet >= 20 * self.sweeps
            info = {"products": products, "merit": merit, "grad_norm": math.sqrt(max(grad2, 0.0)), "omega": omega}
            yield problem.at(Y), info | ({"stalled": True} if stalled else {})

    def _majorised(self, problem: Problem, Y: np.ndarray) -> Iterator[tuple[LocalModel, dict[str, Any]]]:
        """Rows ``-normalise(g_i - c y_i)`` all at once: a descent for c >= lambda_max(C), here with momentum and restarts."""
        manifold, c, products, t = problem.manifold, 1.125 * problem.norm_C, 1, 0  # c above lambda_max(C)
        model, previous, stuck = problem.at(Y), Y, 0
        while True:
            info = {"products": products, "merit": model.merit, "grad_norm": model.grad_norm}
            yield model, info | ({"stalled": True} if stuck >= 40 else {})
            G = model.grad / 2 + manifold.adjoint_mul(model.mu, model.Y)
            step = manifold.retract(c * model.Y, -G) if c > 0 else model.Y.copy()
            momentum = t / (t + 3)
            Z = manifold.retract(step, momentum * (step - previous)) if t else step
            trial = problem.at(Z)
            products += 1
            noise = 1e-15 * problem.norm_C * model.trace
            if t and trial.merit > model.merit + noise:
                trial, t = problem.at(step), 0
                products += 1
            if trial.merit > model.merit + noise:  # c was below lambda_max(C)
                c *= 2
                stuck += 1
                continue
            stuck = stuck + 1 if trial.merit > model.merit - noise else 0
            model, previous, t = trial, step, t + 1
