"""What runs when no solver is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..manifolds import StiefelProduct
from ..problem import LocalModel, Problem
from .lbfgs import LBFGS
from .mixing import Mixing
from .trust_region import TrustRegion


class RowSolver(Protocol):
    """A solver by rows: `Mixing`, or `bmsdp.learned.LearnedMixing`."""

    def applies(self, problem: Problem) -> bool:
        """Whether it has a step for this problem."""
        ...

    def iterates(self, problem: Problem, Y: np.ndarray) -> Iterator[tuple[LocalModel, dict[str, Any]]]:
        """As for all solvers."""
        ...


@dataclass(frozen=True)
class Default:
    """Over-relaxed mixing until its rate says otherwise, then L-BFGS, then trust regions; no mixing without cheap rows.

    Rules: mixing runs on `Oblique` rows without terms.  Over ``window`` sweeps its gradient must have halved, with the window doubled every
    time; else `polish` takes over where mixing stands, and `last` where that stalls.  L-BFGS before Newton-CG, because the Hessian
    is singular wherever rank Y < k.  Identity blocks go to `last` at once: a block step needs a polar factor, and noise takes many sweeps.
    Mixing starts without a schedule: one saves sweeps, but certificates take most of the time, and on some instances it then takes more
    of them (the benchmark's part "learned").
    """

    mixing: RowSolver = Mixing()
    polish: LBFGS = LBFGS()
    last: TrustRegion = TrustRegion()
    window: int = 2000

    def iterates(self, problem: Problem, Y: np.ndarray) -> Iterator[tuple[LocalModel, dict[str, Any]]]:
        """As for all solvers; ``info["solver"]`` says which one runs, and why."""
        blocks = isinstance(problem.manifold, StiefelProduct) and problem.manifold.d > 1 and not problem.terms
        spent, why = 0, "identity blocks" if blocks else "rows have no cheap step here"
        if self.mixing.applies(problem) and not blocks:
            mark, reference, why = self.window, np.inf, ""
            for model, info in self.mixing.iterates(problem, Y):
                spent, Y = info["products"], model.Y
                if info.pop("stalled", False):
                    why = "mixing is at a standstill"
                elif spent >= mark:
                    if model.grad_norm > 0.5 * reference:
                        why = f"mixing did not halve the gradient over the last {mark // 2} sweeps"
                    mark, reference = 2 * mark, model.grad_norm
                info["solver"] = "mixing: rows have a cheap step"
                yield model, info
                if why:
                    break
        for solver, name in ((self.polish, "L-BFGS"), (self.last, "trust regions"))[blocks:]:
            before = spent
            for model, info in solver.iterates(problem, Y):
                info["products"] += before
                info["solver"] = f"{name}: {why}"
                spent, Y = info["products"], model.Y
                stalled = solver is self.polish and info.pop("stalled", False)
                yield model, info
                if stalled:
                    break
            why = f"{name} is at a standstill"
