r"""Simultaneous localisation and mapping: poses from relative poses, certified.

Measurements ``R_ij ~ R_i^T R_j`` and ``t_ij ~ R_i^T (t_j - t_i)`` with precisions kappa, tau ask for poses that minimise

    f(R, t) = sum kappa |R_j - R_i R_ij|_F^2 + tau |t_j - t_i - R_i t_ij|^2,

the maximum-likelihood estimate under Langevin and Gaussian noise (Rosen, Carlone, Bandeira, Leonard, SE-Sync, IJRR 2019; no factor 1/2).
With ``Y = [R_1^T; ...; R_n^T; t_1^T; ...]`` this is ``<C, YY^T>``, C sparse and semidefinite.  Relaxed to k >= d columns with
``Y_i Y_i^T = I_d`` for rotations, translations free, and the translation of one pose 0:

    least f  >=  min { <C, X> : X_ii = I_d on rotations, X >= 0 },

equal when the solution has rank d, which moderate noise allows.  C is sparse with translations; without them its Schur complement
is dense, but its products need only one pair of sparse triangular solves, and trust regions on rotations alone take few of them
(`solve`).  Either way ``S = C - blkdiag(Lambda, 0)`` is what is factored for the bound: ``S + t blkdiag(I, 0) >= 0`` proves
``least f >= tr Lambda - t n d``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ...manifolds import Product, StiefelProduct, Unconstrained
from ...minimize import Solver
from ...problem import Problem
from ...result import Result, Status
from ...solvers import TrustRegion
from ...staircase import staircase
from .answer import Poses, assess, recover
from .cost import centre, cost_scale, matrix, norm, without_translations
from .graph import PoseGraph, precisions, read, sizes
from .initial import chordal, dead_reckoning, first_rotations
from .preconditioner import GaussNewton
from .simulate import grid, manhattan, perturb, sphere, torus

__all__ = [
    "PoseGraph", "Poses", "chordal", "dead_reckoning", "grid", "manhattan", "perturb", "precisions", "problem", "read", "recover", "solve",
    "sphere", "torus",
]  # fmt: skip

LOOK = 1e-2  # relative gradient, in units of tol, at which the first certificate is asked for: Newton steps are cheaper


def problem(graph: PoseGraph, *, eliminate: bool = False) -> Problem:
    """The relaxation: rotations as Stiefel blocks, then n - 1 free rows of translations; a pose in the middle is the origin.

    Parameters
    ----------
    graph : PoseGraph
        Connected.
    eliminate : bool
        Without the translations, by their Schur complement: the same optimum and bounds, fewer and shorter steps.

    Raises
    ------
    ValueError
        If the graph is not connected (by edges with kappa, tau > 0), with the sizes of its components.
    """
    _connected(graph)
    turns, scale, size = StiefelProduct(graph.n, graph.d), cost_scale(graph), norm(graph)
    if eliminate:
        return Problem(without_translations(graph), turns, cost_scale=scale, norm_C=size)
    return Problem(matrix(graph, centre(graph)), Product([turns, Unconstrained(graph.n - 1)]), cost_scale=scale)


def solve(
    graph: PoseGraph, *, start: Any = "chordal", tol: float = 1e-6, rank: int | None = None, certify: str | None = "auto",
    components: str = "refuse", solver: Solver | None = None, max_time: float | None = None, rng: Any = None,
    callback: Callable[..., object] | None = None, progress: bool | None = None, report: Callable[[str], None] | None = None,
) -> Poses:  # fmt: skip
    """The best poses, and a proof of it.

    Chordal initialisation, trust regions on rotations with a Gauss-Newton preconditioner, certificate; more columns where that fails.

    Parameters
    ----------
    graph : PoseGraph
        See `read`.
    start : {"chordal", "given"} or array (n, d, d)
        First rotations; "given" are the poses of the graph.
    tol : float
        Relative gap to certify.
    rank : int, optional
        Columns, at least d, kept; by default d, and more where a certificate asks for them.
    certify : str or None
        As for `bmsdp.solve`.
    components : {"refuse", "split"}
        A graph that is not connected is refused, or its parts are solved one by one, each in a frame of its own.
    solver : Solver, optional
        In place of trust regions with `GaussNewton`.
    max_time : float, optional
        Seconds, for each component.
    callback, progress, report
        As for `bmsdp.staircase.staircase`.

    Returns
    -------
    Poses
    """
    if components not in ("refuse", "split"):
        raise ValueError(f'components = {components!r}; it must be "refuse" or "split"')
    if rank is not None and not graph.d <= rank <= graph.n * graph.d:
        raise ValueError(f"rank = {rank}; a number of columns from d = {graph.d} to n d = {graph.n * graph.d} is needed")
    label = graph.components()
    if components == "refuse":
        _connected(graph, label)
    first = first_rotations(graph, start) if not isinstance(start, str) or start != "chordal" else None
    options: dict[str, Any] = {"max_time": max_time, "rng": rng, "callback": callback, "progress": progress, "report": report}
    R, t, results = np.tile(np.eye(graph.d), (graph.n, 1, 1)), np.zeros((graph.n, graph.d)), []
    for part in range(int(label.max()) + 1):
        keep = label == part
        if keep.sum() == 1:  # a pose that nothing measures
            R[keep], t[keep] = (x[None] for x in _alone(graph, int(np.argmax(keep))))
            continue
        inside = graph if keep.all() else graph.part(keep)
        turns = chordal(inside) if first is None else first[keep]
        result = _solved(inside, turns, solver, rank, tol, certify, options)
        found = recover(result, inside)
        R[keep], t[keep] = found.R, found.t
        results.append(result)
    if not results:
        raise ValueError("no edge has kappa, tau > 0; nothing is measured")
    return assess(graph, R, t, tuple(results), label)


def _solved(
    graph: PoseGraph, turns: np.ndarray, solver: Solver | None, rank: int | None, tol: float, certify: str | None, options: dict[str, Any]
) -> Result:
    """The relaxation of a connected graph from its first rotations."""
    relaxed, d = problem(graph, eliminate=True), graph.d
    k = d if rank is None else rank
    Y = np.zeros((graph.n * d, k))
    Y[:, :d] = turns.transpose(0, 2, 1).reshape(-1, d)
    if solver is None:
        scale = float(np.mean(graph.kappa))
        solver = TrustRegion(kappa=0.1, theta=0.25, preconditioner=GaussNewton(d, scale))
    result = staircase(relaxed, solver, Y, rank=rank, tol=tol, certify=certify, look=LOOK * tol, **options)
    return result if result.bound >= 0 or result.certificate is None else _above_zero(result, tol, cost_scale(graph))


def _above_zero(result: Result, tol: float, scale: float) -> Result:
    """A sum of squares is not below 0, whatever else is known: the bound of exact measurements."""
    gap = result.cost / max(abs(result.cost), scale)
    assert result.certificate is not None
    proof = dataclasses.replace(
        result.certificate, bound=0.0, gap=gap, gap_abs=result.cost, dual=np.zeros_like(result.dual), rigor="verified",
        gap_rigor="estimate", failure_probability=0.0,
    )  # fmt: skip
    done = gap <= tol and result.status in (Status.STALLED, Status.LOCALLY_OPTIMAL, Status.RANK_TOO_SMALL)
    status = Status.CERTIFIED if done else result.status
    message = status.value if done else result.message
    return dataclasses.replace(
        result, bound=0.0, gap=gap, dual=np.zeros_like(result.dual), certificate=proof, status=status, message=message
    )


def _alone(graph: PoseGraph, k: int) -> tuple[np.ndarray, np.ndarray]:
    if graph.poses is None:
        return np.eye(graph.d), np.zeros(graph.d)
    return np.asarray(graph.poses[0][k], float), np.asarray(graph.poses[1][k], float)


def _connected(graph: PoseGraph, label: np.ndarray | None = None) -> None:
    label = graph.components() if label is None else label
    if label.any():
        raise ValueError(
            f"the graph has {label.max() + 1} components, of {sizes(label)} poses, and nothing relates poses of different components; "
            'solve each by itself with solve(graph, components="split"), or add the edges that are missing'
        )
