"""Smoothed analysis as an algorithm: perturb the cost, reach a second-order point, judge it, continue (floor L5).

Almost every small perturbation destroys spurious second-order points (Pumir, Jelassi, Boumal, 2018).  So: solve the problem with
``C + W`` to an (eps_g, eps_H)-second-order point, bound the gap there for ``C + W`` and for C, and let the original problem
descend from it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from .certificate import certify as prove
from .lanczos import lanczos
from .minimize import Solver
from .perturbation import Perturbation
from .problem import Problem
from .result import Certificate, Result, Status
from .staircase import staircase, start_rank
from .theory.smoothed import smoothed_guarantee, tradeoff

FLOOR = 1e-13  # relative: what double precision can tell from zero


def noise_level(problem: Problem, wanted: Perturbation, tol: float, k: int) -> tuple[float, float, float]:
    """``(sigma, eps_g, eps_H)``, absolute.

    The theorem's trade-off for an accuracy of ``tol norm_C trace`` where sigma is "auto", of ``12 sigma sqrt(n) trace``, to which a given
    sigma corresponds, else; raised to what floating point resolves.
    """
    n, trace, norm_C, manifold = problem.n, _trace(problem), problem.norm_C, problem.manifold
    if wanted.sigma == "auto":
        if norm_C == 0:
            raise ValueError('perturbation = "auto" takes its size from that of C, and C = 0; pass a number')
        accuracy = tol * norm_C * trace
    else:
        accuracy = 12 * float(wanted.sigma) * np.sqrt(n) * trace
    choice = tradeoff(accuracy, n, k, norm_C=norm_C, trace=trace, kappa=manifold.kappa, complex=problem.C.is_complex)
    sigma = choice.sigma if wanted.sigma == "auto" else float(wanted.sigma)
    size = norm_C + 3 * sigma * np.sqrt(n)
    return sigma, float(max(choice.eps_g, FLOOR * 2 * size * np.sqrt(trace))), float(max(choice.eps_H, FLOOR * size))


def smoothed(
    problem: Problem, solver: Solver | None, Y: np.ndarray | None, wanted: Perturbation, *, rank: int | None, tol: float,
    certify: str | None, max_time: float | None = None, report: Any = None, rng: Any = None, **options: Any,
) -> Result:  # fmt: skip
    """The staircase on ``C + W``, then on C; `Result.perturbation` tells what came out in between.

    Parameters
    ----------
    wanted : Perturbation
    max_time : float, optional
        Half of it is for the perturbed problem.
    others
        Those of `staircase`.
    """
    generator, say = np.random.default_rng(rng), report or (lambda line: None)
    k = Y.shape[1] if Y is not None else (start_rank(problem) if rank is None else rank)
    sigma, eps_g, eps_H = noise_level(problem, wanted, tol, k)
    seed = int(generator.integers(2**63))
    noisy = problem.perturbed(sigma, seed, pattern=wanted.pattern)
    limit = None if max_time is None else (0.5 if wanted.continuation else 1.0) * max_time
    shared = {"rank": rank, "tol": tol, "certify": certify, "report": report, "rng": generator, **options}
    say(f"perturbed: sigma = {sigma:.3g}" + (" on the pattern of C" if wanted.pattern else ""))
    first = staircase(noisy, solver, Y, max_time=limit, second_order=(eps_g, eps_H), **shared)
    model, there = problem.at(first.Y), noisy.at(first.Y)
    proof = None
    try:
        if certify is not None:
            proof = prove(model, tol, certify, generator, final=True)
    except KeyboardInterrupt:  # the point stands, without the certificate
        first = dataclasses.replace(first, status=Status.INTERRUPTED, message=Status.INTERRUPTED.value)
    perturbed, original = _figures(first.cost, first.certificate), _figures(model.cost, proof)
    facts = {
        "sigma": sigma, "seed": seed, "pattern": wanted.pattern, "continuation": wanted.continuation,
        "norm_W": _norm(noisy, generator), "eps_g": eps_g, "eps_H": eps_H, "grad_norm": there.grad_norm,
        "second_order": first.second_order, "status": first.status.name,
        "rank": first.rank, "perturbed": perturbed, "original": original,
        "guarantee": _guarantee(problem, wanted, sigma, eps_g, eps_H, first.rank),
    }  # fmt: skip
    say(f"perturbed: gap {first.gap:.1e}; the same point in the original problem: gap {original['gap']:.1e}")
    if not wanted.continuation or first.status is Status.INTERRUPTED:
        return dataclasses.replace(_original(first, model.cost, proof, tol), perturbation=facts, data=None)
    left = None if max_time is None else max(max_time - first.time, 1e-3)
    second = staircase(problem, solver, first.Y.copy(), max_time=left, **shared)
    return _joined(first, dataclasses.replace(second, perturbation=facts))


def _original(first: Result, cost: float, proof: Certificate | None, tol: float) -> Result:
    """The perturbed problem's point as an answer to the original one."""
    if proof is None:
        return dataclasses.replace(first, cost=cost, bound=-np.inf, gap=np.inf, certificate=None)
    status, message = first.status, first.message
    if proof.gap <= tol:
        status = Status.ESTIMATED if proof.rigor == "estimate" else Status.CERTIFIED
        message = status.value
    elif status.success:
        status = Status.STALLED
        message = "optimal for the perturbed cost, but its gap in the original problem is above tol; lower sigma, or use continuation"
    return dataclasses.replace(
        first, cost=cost, bound=proof.bound, gap=proof.gap, dual=proof.dual, certificate=proof, status=status, message=message
    )


def _joined(first: Result, second: Result) -> Result:
    """One result of both runs: what they spent adds up."""
    spent = {"nit": first.nit, "time": first.time, "products": first.products}
    history = {
        name: np.concatenate([first.history[name], column + spent.get(name, 0)]) for name, column in second.history.items()
    }
    totals: dict[str, Any] = {name: getattr(second, name) + value for name, value in spent.items()}
    later = [stage | {name: stage[name] + spent[name] for name in ("time", "products")} for stage in second.options["stages"]]
    options = second.options | {"stages": first.options["stages"] + later}
    return dataclasses.replace(second, **totals, history=history, options=options)


def _figures(cost: float, proof: Certificate | None) -> dict[str, Any]:
    if proof is None:
        return {"cost": cost, "bound": -np.inf, "gap": np.inf, "rigor": None}
    return {"cost": cost, "bound": proof.bound, "gap": proof.gap, "rigor": proof.rigor}


def _guarantee(problem: Problem, wanted: Perturbation, sigma: float, eps_g: float, eps_H: float, k: int) -> dict[str, Any] | None:
    """What the theorem says of every (eps_g, eps_H)-second-order point of this rank, with ``2 norm_C`` for |C|.

    Rarely anything: it needs some five times the generic rank.  A run that was certified before its gradient fell to eps_g
    ended elsewhere, and needs no promise.
    """
    if wanted.pattern:
        return None
    manifold, trace = problem.manifold, _trace(problem)
    promise = smoothed_guarantee(
        problem.n, manifold.m, k, sigma, 2 * problem.norm_C, trace=trace, kappa=manifold.kappa, complex=problem.C.is_complex,
        eps_g=eps_g, eps_H=eps_H,
    )  # fmt: skip
    return {
        "holds": bool(promise.holds), "required_rank": int(promise.required_rank), "probability": float(promise.probability),
        "gap_abs": float(promise.gap_original),
    }  # fmt: skip


def _trace(problem: Problem) -> float:
    trace = float(problem.manifold.row_trace.sum())
    if problem.manifold.shift is None or problem.terms:
        raise ValueError("a perturbation needs a compact feasible set: rows that fix the trace of X, and no further terms")
    return trace


def _norm(noisy: Problem, rng: np.random.Generator) -> float:
    """``|W|_2`` by 64 Lanczos steps; 12, good for two digits, where every product draws W again."""
    W = noisy.noise
    assert W is not None
    steps = 12 if W.matrix() is None else 64
    ritz = lanczos(lambda v: W.mul(v[:, None])[:, 0], W.n, W.dtype, rng, min(steps, W.n))
    return float(np.abs(ritz.values).max())
