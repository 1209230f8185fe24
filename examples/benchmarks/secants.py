"""The part "secants": Hessian products and CPU time of `TrustRegion` with and without preconditioners, at equal gradient norm.

Costs A / 4 with unit diagonal, 12 columns, to an absolute gradient norm of 1e-6, from random starts; means over seeds, of which each has
an instance of its own.  The first line, "none", is what the others are compared with.  tCG stops at 0.3 of the norm that is wanted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from rivals import Run

from bmsdp import Oblique, Problem, gallery
from bmsdp.preconditioners import Cholesky, Jacobi, Multisecant
from bmsdp.solvers import TrustRegion

COLUMNS, NORM, LIMIT = 12, 1e-6, 50_000


def torus(weights: str) -> Callable[[int, int], Any]:
    return lambda seed, rows: gallery.toroidal_grid(rows, 2 * rows, seed, weights=weights)


INSTANCES = {
    "torus, signs": torus("pm1"), "torus, Gaussian": torus("gaussian"), "torus, lognormal": torus("lognormal"),
    "Erdos-Renyi, 6 %": lambda seed, rows: gallery.gnp(2 * rows**2, 0.06, seed),
}  # fmt: skip
METHODS = {
    "none": None, "column, auto": Multisecant(), "column, always": Multisecant(gate="always"),
    "block, always": Multisecant(mode="block", gate="always"), "jacobi": Jacobi(), "cholesky, auto": Cholesky(),
    "cholesky, always": Cholesky(gate="always"),
}  # fmt: skip


def descend(W: Any, preconditioner: Any, seed: int) -> tuple[int, float, float]:
    """(products, CPU seconds, gradient norm)."""
    problem = Problem(W / 4, Oblique(np.ones(W.shape[0])))
    Y = problem.random_point(COLUMNS, np.random.default_rng([seed, 1]))
    begin = time.process_time()
    for model, info in TrustRegion(preconditioner=preconditioner).iterates(problem, Y):
        info["target"] = NORM
        if model.grad_norm <= NORM or info["products"] > LIMIT:
            break
    return info["products"], time.process_time() - begin, model.grad_norm


def rows(settings: Any, row: Callable[..., Any]) -> Iterator[Any]:
    """One line per instance and method; the gap is the worst gradient norm."""
    sides, seeds = (10, range(1, 3)) if settings.small else (20, range(1, 6))
    for name, make in INSTANCES.items():
        if settings.only not in name:
            continue
        data, first = [make(seed, sides) for seed in seeds], None
        for method, preconditioner in METHODS.items():
            descend(data[0], preconditioner, 1)  # compiles
            found = [descend(W, preconditioner, seed) for seed, W in zip(seeds, data, strict=True)]
            products, seconds = (statistics.mean(run[i] for run in found) for i in (0, 1))
            first = (products, seconds) if first is None else first
            norm = max(run[2] for run in found)
            run = Run(f"bmsdp, {method}", seconds, norm, "gradient norm", COLUMNS, norm <= NORM)
            ratios = f"{products:.0f} products; {products / first[0]:.2f} of them, {seconds / first[1]:.2f} of the time of none"
            yield row("secants", name, data[0].shape[0], NORM, run, ratios)
