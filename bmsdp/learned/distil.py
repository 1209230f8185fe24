"""Plain schedules omega_1, ..., omega_L fitted to what the compiled sweep of `bmsdp.solvers.Mixing` does with them; no torch.

The objective is the mean of log((f - f*) / |f*|) after L sweeps: a smooth function of L numbers, which costs L sweeps a sample (a sweep
returns its decrease of the cost), so that differences and L-BFGS take seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.optimize

from ..problem import Problem
from ..sdp import solve
from ..solvers.mixing import Mixing, sweeper

FLOOR = 1e-9  # of relative gaps, where the optimal value is known to no more
BOUNDS = (1.001, 1.995)  # weights hold relaxations in (1, 2)
STEP = 1e-4  # of differences
ROUNDING = 1e-12
TOL = 1e-9  # certified gap of the optimal values


def optimum(problem: Problem, max_time: float = 60.0) -> float:
    """The optimal value to a certified relative gap of 1e-9, or as far as ``max_time`` seconds go."""
    return solve(problem, tol=TOL, max_time=max_time, rng=0).cost


class Sample:
    """A problem, a start and the optimal value: what a schedule is tried on.

    Parameters
    ----------
    problem : Problem
        `Mixing` has a compiled step for it; TypeError otherwise.
    Y : ndarray, n x k
        Kept, never written to.
    value : float, optional
        The optimal value; by default that of `optimum`.

    Raises
    ------
    ValueError
        Where every point is optimal, so that there is no relative gap.
    """

    def __init__(self, problem: Problem, Y: np.ndarray, value: float | None = None) -> None:
        self.problem, self.start, self.Y = problem, Y, np.array(Y, order="C")
        sweep = sweeper(problem.manifold, problem, self.Y)
        if sweep is None or problem.terms:
            raise TypeError(f"no compiled sweep for {type(problem.manifold).__name__} with this cost; see bmsdp.solvers.Mixing")
        self.sweep = sweep
        self.optimum = optimum(problem) if value is None else value
        self.cost = problem.at(self.start).cost
        constant = float(problem.C.matrix().diagonal().real @ problem.manifold.row_trace)  # the same at every point
        self.unit = abs(self.optimum - constant)
        if not self.unit > ROUNDING * (abs(self.optimum) + abs(constant)):
            given = f"C of a problem with n = {problem.n} has no entries off its diagonal blocks"
            raise ValueError(f"{given}: every point is optimal, and there is nothing to learn; leave it out")

    def gap(self, cost: float) -> float:
        """``(cost - f*) / |f*|``, where |f*| leaves out what the diagonal of C adds."""
        return (cost - self.optimum) / self.unit

    def run(self, omega: Sequence[float] | np.ndarray) -> float:
        """Relative gap after one sweep for each omega."""
        self.Y[:] = self.start
        return self.gap(self.cost - sum(self.sweep(w)[0] for w in omega))

    def adaptive(self, L: int) -> float:
        """Relative gap after L sweeps of ``Mixing()``, which finds its omega on the way."""
        iterates = Mixing(sweeps=L).iterates(self.problem, self.start)
        next(iterates)
        return self.gap(next(iterates)[1]["merit"])


def samples(problems: Sequence[Problem], k: int, rng: Any = None) -> list[Sample]:
    """One random start for each problem."""
    rng = np.random.default_rng(rng)
    return [Sample(problem, problem.random_point(k, rng)) for problem in problems]


def mean_log(values: Sequence[float] | np.ndarray) -> float:
    """The mean of log(gap + floor): the logarithm of a geometric mean."""
    return float(np.mean(np.log(np.maximum(values, 0) + FLOOR)))


def log_gap(omega: Sequence[float] | np.ndarray, trials: Sequence[Sample]) -> float:
    """`mean_log` of what a schedule reaches."""
    return mean_log([trial.run(omega) for trial in trials])


def best_constant(trials: Sequence[Sample], L: int) -> float:
    """The constant omega in [1, 1.99] with the smallest `log_gap` after L sweeps, to 0.01."""
    grid = np.arange(1.0, 1.99, 0.05)
    centre = grid[np.argmin([log_gap([w] * L, trials) for w in grid])]
    grid = np.arange(max(1.0, centre - 0.04), min(1.99, centre + 0.045), 0.01)
    return float(grid[np.argmin([log_gap([w] * L, trials) for w in grid])])


def polish(omega: Sequence[float] | np.ndarray, trials: Sequence[Sample], iterations: int = 60) -> np.ndarray:
    """The schedule near ``omega`` with the smallest `log_gap`: L-BFGS on forward differences, within (1, 2).

    Costs about ``L`` runs an iteration; never worse on ``trials`` than where it began, up to the bounds.
    """

    def value_and_grad(w: np.ndarray) -> tuple[float, np.ndarray]:
        f = log_gap(w, trials)
        return f, np.array([(log_gap(w + STEP * e, trials) - f) / STEP for e in np.eye(len(w))])

    start = np.clip(np.asarray(omega, float), *BOUNDS)
    found = scipy.optimize.minimize(
        value_and_grad, start, jac=True, method="L-BFGS-B", bounds=[BOUNDS] * len(start), options={"maxiter": iterations}
    )
    return found.x if found.fun <= log_gap(start, trials) else start
