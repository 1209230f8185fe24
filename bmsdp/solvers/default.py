"""What runs when no solver is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..problem import LocalModel, Problem
from .lbfgs import LBFGS
from .mixing import Mixing
from .trust_region import TrustRegion


@dataclass(frozen=True)
class Default:
    """Over-relaxed mixing until its rate says otherwise, then L-BFGS; L-BFGS alone where rows have no cheap update.

    Rule: over ``window`` sweeps the gradient must have halved, with the window doubled every time; else `polish` takes over
    where mixing stands.  L-BFGS rather than Newton-CG, because the Hessian is singular wherever rank Y < k.
    """

    mixing: Mixing = Mixing()
    polish: LBFGS | TrustRegion = LBFGS()
    window: int = 2000

    def iterates(self, problem: Problem, Y: np.ndarray) -> Iterator[tuple[LocalModel, dict[str, Any]]]:
        products = 0
        if self.mixing.applies(problem):
            mark, reference = self.window, np.inf
            for model, info in self.mixing.iterates(problem, Y):
                products, Y = info["products"], model.Y
                yield model, info
                if products >= mark:
                    grad_norm = model.grad_norm
                    if grad_norm > 0.5 * reference or info.get("stalled", False):
                        break
                    mark, reference = 2 * mark, grad_norm
        for model, info in self.polish.iterates(problem, Y):
            yield model, info | {"products": products + info["products"]}
