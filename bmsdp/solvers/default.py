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
    """Over-relaxed mixing until its rate says otherwise, then L-BFGS, then trust regions; no mixing without cheap rows.

    Rule: over ``window`` sweeps the gradient must have halved, with the window doubled every time; else `polish` takes over
    where mixing stands, and `last` where that stalls.  L-BFGS before Newton-CG, because the Hessian is singular wherever
    rank Y < k.
    """

    mixing: Mixing = Mixing()
    polish: LBFGS = LBFGS()
    last: TrustRegion = TrustRegion()
    window: int = 2000

    def iterates(self, problem: Problem, Y: np.ndarray) -> Iterator[tuple[LocalModel, dict[str, Any]]]:
        products = 0
        if self.mixing.applies(problem):
            mark, reference = self.window, np.inf
            for model, info in self.mixing.iterates(problem, Y):
                products, Y = info["products"], model.Y
                stalled = info.pop("stalled", False)
                yield model, info
                if stalled:
                    break
                if products >= mark:
                    if model.grad_norm > 0.5 * reference:
                        break
                    mark, reference = 2 * mark, model.grad_norm
        spent = products
        for model, info in self.polish.iterates(problem, Y):
            products, Y = spent + info["products"], model.Y
            stalled = info.pop("stalled", False)
            yield model, info | {"products": products}
            if stalled:
                break
        for model, info in self.last.iterates(problem, Y):
            yield model, info | {"products": products + info["products"]}
