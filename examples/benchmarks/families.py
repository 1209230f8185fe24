"""The part "solvers": every solver of ours on families with and without cheap row updates, to the same relative gradient of 1e-8.

Medians over seeds, an instance each; random starts.  The first line, L-BFGS, is what the others are compared with.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse.linalg as spla
from rivals import Run

from bmsdp import LowRankPlusSparse, Oblique, Problem, gallery
from bmsdp.applications import bisection
from bmsdp.preconditioners import Multisecant as Preconditioner
from bmsdp.solvers import LBFGS, Mixing, Multisecant, TrustRegion

TOL, LIMIT = 1e-8, 20.0

SOLVERS = {
    "L-BFGS": LBFGS(), "multisecant": Multisecant(), "trust regions": TrustRegion(),
    "trust regions, multisecant": TrustRegion(preconditioner=Preconditioner()), "mixing": Mixing(),
}  # fmt: skip


def torus(seed: int, side: int) -> Problem:
    return Problem(gallery.toroidal_grid(side, side, seed), Oblique(np.ones(side**2)))


def phase_cut(seed: int, side: int) -> Problem:
    """Noiseless PhaseCut with unit rows, matrix-free: ``diag(b) (I - QQ*) diag(b)``, eight complex Gaussian rows per unknown."""
    rng, d = np.random.default_rng(seed), 2 * side
    A = rng.standard_normal((8 * d, d)) + 1j * rng.standard_normal((8 * d, d))
    b = np.abs(A @ (rng.standard_normal(d) + 1j * rng.standard_normal(d)))[:, None]
    b /= np.sqrt(np.mean(b**2))
    Q = np.linalg.qr(A)[0]
    adjoint = np.ascontiguousarray(Q.conj().T)

    def product(V: np.ndarray) -> np.ndarray:
        W = b * V.reshape(len(b), -1)
        return b * (W - Q @ (adjoint @ W))

    C = spla.LinearOperator((len(b), len(b)), matvec=lambda v: product(v)[:, 0], matmat=product, dtype=complex)
    return Problem(C, Oblique(np.ones(len(b))))


def balanced_cut(seed: int, side: int) -> Problem:
    """A torus and the squared imbalance of the cut, ``C + (4/n) 11'``: sparse and low rank."""
    n = side**2
    return Problem(LowRankPlusSparse(gallery.toroidal_grid(side, side, seed), np.ones((n, 1)), [4 / n]), Oblique(np.ones(n)))


def spread_factor(seed: int, side: int) -> Problem:
    """A torus and ten rank-one terms of both signs whose sizes spread over three decades."""
    rng, n = np.random.default_rng(seed), side**2
    U = rng.standard_normal((n, 10)) / np.sqrt(n)
    d = 4 * rng.choice([-1, 1], 10) * np.geomspace(1, 1e3, 10)
    return Problem(LowRankPlusSparse(gallery.toroidal_grid(side, side, seed), U, d), Oblique(np.ones(n)))


def bisected(seed: int, side: int) -> Problem:
    """Graph bisection with its balance row as a penalty at zero multipliers: what the augmented Lagrangian minimises first."""
    side = side // 2
    problem = bisection.problem(abs(gallery.toroidal_grid(side, side, seed)))
    term: Any = problem.terms[0]
    return Problem(problem.C, problem.manifold, [term.at(term.nu, problem.norm_C)], norm_C=problem.norm_C)


FAMILIES = {
    "torus, signs": (torus, 16), "PhaseCut, k = 2": (phase_cut, 2), "PhaseCut, k = 8": (phase_cut, 8),
    "torus and imbalance": (balanced_cut, 14), "torus and factor": (spread_factor, 14), "bisection, penalty": (bisected, 12),
}  # fmt: skip


def descend(problem: Problem, solver: Any, Y: np.ndarray, limit: float) -> tuple[int, float, float]:
    """(products, CPU seconds, relative gradient norm)."""
    begin = time.process_time()
    for model, info in solver.iterates(problem, Y):
        info["target"] = TOL * model.grad_scale
        done = info.get("grad_norm", 0.0) <= info["target"] and model.grad_norm <= info["target"]
        if done or time.process_time() - begin > limit or info.get("stalled", False):
            break
    return info["products"], time.process_time() - begin, model.grad_norm / model.grad_scale


def rows(settings: Any, row: Callable[..., Any]) -> Iterator[Any]:
    """One line per family and solver; the gap is the worst relative gradient norm."""
    side, seeds = (10, range(1)) if settings.small else (30, range(3))
    for name, (make, columns) in FAMILIES.items():
        if settings.only not in name:
            continue
        problems, first = [make(seed, side) for seed in seeds], 0.0
        for method, solver in SOLVERS.items():
            if isinstance(solver, Mixing) and not solver.applies(problems[0]):
                continue
            starts = [problem.random_point(columns, np.random.default_rng(seed)) for seed, problem in zip(seeds, problems, strict=True)]
            descend(problems[0], solver, starts[0], 0.2)  # compiles, and estimates |C|
            found = [descend(problem, solver, Y, LIMIT) for problem, Y in zip(problems, starts, strict=True)]
            products, seconds = (statistics.median(run[i] for run in found) for i in (0, 1))
            first = first or seconds
            worst = max(run[2] for run in found)
            run = Run(f"bmsdp, {method}", seconds, worst, "gradient norm", columns, worst <= TOL)
            yield row("solvers", name, problems[0].n, TOL, run, f"{products:.0f} products; {seconds / first:.2f} of the time of L-BFGS")
