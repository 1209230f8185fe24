r"""Synchronization: rotations, reflections, phases or signs from noisy measurements between pairs, with a bound.

Vertices of a graph have unknown orthogonal blocks ``R_i`` (d x d: O(d); SO(d) with determinant 1; U(d); d = 1: signs, and phases of U(1)).
Edges have measurements ``M_e ~ R_i R_j*`` with weights ``w_e``, inverse variances of an entry. The misfit

    sum_e w_e |R_i - M_e R_j|_F^2 = sum_e w_e (d + |M_e|_F^2) - 2 sum_e w_e Re <M_e, R_i R_j*> = <C, R R*>

is that of least squares, and of maximum likelihood for Gaussian noise; C, the connection Laplacian, has the blocks ``-w_e M_e`` off the
diagonal. With ``X = R R*`` relaxed to X >= 0, ``X_ii = I_d``,

    min misfit  >=  min { <C, X> : X_ii = I_d, X >= 0 }  >=  bound,

and where X has rank d the relaxation is tight: X = R R* and R is optimal (Singer 2011; Bandeira, Kennedy & Singer 2016; Eriksson et al.
2018; Rosen et al. 2019). Determinants are relaxed too, which rarely matters; rotations of the plane are solved as phases, without
reflections and with half the rows.

Copies ``Y_i ~ R_i X`` of one cloud (generalized Procrustes) have the misfit ``sum w_i |Y_i - R_i X|_F^2``, minimal over X at
``X = sum w_i R_i* Y_i / sum w``: the same with ``C = c I - F F* / sum w``, F the stack of the ``w_i Y_i``, which is never multiplied out.

Back to blocks: the d leading singular directions of Y and some random ones, the nearest orthogonal blocks, the best of these improved by
descent at rank d. `synchronize` does all of it, from a spectral start; it also rejects outliers, and says why where it is not tight.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...minimize import Solver, minimize
from ...problem import Problem
from ...sdp import solve
from .answer import Synchronization, recover, recovered
from .causes import Cause, noise_level
from .measurements import Clouds, Data, Measurements, clouds, from_matrix, measurements
from .relaxation import as_data, blocks_of, check_connected, default_solver, factor_of, is_special, relaxation, shaped, size, widened
from .robust import LOSSES, bridged, reweighted
from .rounding import align, distance, nearest, round_to_rotations
from .spectral import spectral

__all__ = [
    "Cause", "Clouds", "Measurements", "Synchronization", "align", "clouds", "distance", "from_matrix", "measurements", "nearest",
    "problem", "recover", "round_to_rotations", "spectral_blocks", "synchronize",
]  # fmt: skip

ROUGH = 1e-4  # relative gradient at which blocks serve to reweight


def problem(data: Any, *, group: str | None = None) -> Problem:
    """The relaxation ``min <C, X>``, ``X_ii = I_d``, of the least misfit.

    Parameters
    ----------
    data : Measurements, Clouds, or (i, j, blocks) or (i, j, blocks, weights)
        As `measurements`, `from_matrix` and `clouds` make them.
    group : for tuples, see `measurements`

    Returns
    -------
    Problem
        On a `StiefelProduct`, or a unit diagonal for signs and phases (those of rotations of the plane too: n complex rows). C is
        sparse, dense where more than a fifth of the pairs are measured, an operator for clouds. Its optimum is the bound on the misfit,
        constants included; gaps are relative to at least 1e-3 of the misfit of random blocks.

    Raises
    ------
    ValueError
        What `measurements` refuses; a graph that is not connected, with the sizes of its components.
    """
    data = as_data(data, group)
    check_connected(data)
    return relaxation(data)


def synchronize(
    data: Any, *, group: str | None = None, robust: str | None = None, threshold: Any = None, trusted: Any = None,
    components: str = "refuse", start: Any = "spectral", solver: Solver | None = None, tol: float = 1e-6, certify: str | None = "auto",
    max_time: float | None = None, threads: int = 1, trials: int = 10, rng: Any = None,
) -> Synchronization:  # fmt: skip
    """Blocks that fit the measurements, with a bound; outliers rejected on request.

    Parameters
    ----------
    data, group : as for `problem`
    robust : {None, "tls", "gm"}
        Graduated non-convexity with truncated least squares (weights end at 0 or 1) or Geman-McClure (they decay as ``1/r^4``).
        Bound and `tight` are then for the weights found: whether another choice of inliers is better is not decided.
    threshold : float or array (E,), optional
        Largest residual ``|R_i - M_e R_j|_F`` of an inlier, some 3 to 5 standard deviations; ``2 sqrt(2) sin(angle / 2)`` in SO(2), SO(3).
        ``sqrt(d) / 2`` by default, 29 degrees for phases, 36 in SO(3): choose it yourself where you know the noise.
    trusted : bool array (E,), optional
        Edges that no robust loss may doubt, such as odometry.
    components : {"refuse", "each"}
        What to do with a graph that is not connected: an error, or each component in a frame of its own.
    start : "spectral", "random", or blocks as in `Synchronization.R`
    solver : Solver, optional
        By default L-BFGS for dense blocks of several rows, factorised `TrustRegion` for long sparse graphs, else `Default` (mixing first).
    tol, certify, threads : as for `bmsdp.solve`
    max_time : float, optional
        Seconds, for each descent.
    trials, rng : as for `recover`

    Raises
    ------
    ValueError
        What `problem` refuses; a robust loss for clouds; thresholds that are not positive.
    """
    data = as_data(data, group)
    if robust is not None and (robust not in LOSSES or not isinstance(data, Measurements)):
        raise ValueError(f'robust = {robust!r} for {type(data).__name__}; it must be None, or "tls" or "gm" for measurements on edges')
    if components not in ("refuse", "each"):
        raise ValueError(f'components = {components!r}; it must be "refuse" or "each"')
    doubt = _doubt(data, threshold, trusted)
    first = None if isinstance(start, str) else factor_of(data, start)
    if first is None and start not in ("spectral", "random"):
        raise ValueError(f'start = {start!r}; it must be "spectral", "random" or an array of blocks')
    asked = {"tol": tol, "certify": certify, "max_time": max_time, "threads": threads}
    work = _Work(robust, solver, asked, trials, np.random.default_rng(rng), start == "random" if first is None else False)
    if components == "refuse" or not isinstance(data, Measurements):
        check_connected(data)
        return _one(data, work, doubt, first)
    return _each(data, work, doubt, first)


def spectral_blocks(data: Any, *, group: str | None = None, rng: Any = None) -> np.ndarray:
    """Blocks, as in `Synchronization.R`, from the leading eigenvectors alone: fast, consistent, without bound."""
    data = as_data(data, group)
    C, d = data.cost(), size(data)
    Y, _ = spectral(C, d, rng)
    return shaped(data, blocks_of(data, round_to_rotations(Y, d, is_special(data))))


@dataclass(frozen=True, eq=False)
class _Work:
    """What `synchronize` was asked for."""

    robust: str | None
    solver: Solver | None
    asked: dict[str, Any]
    trials: int
    rng: np.random.Generator
    random: bool


def _doubt(data: Data, threshold: Any, trusted: Any) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds and trust, (E,) each."""
    E = len(data.i) if isinstance(data, Measurements) else data.n
    c = np.asarray(np.sqrt(data.d) / 2 if threshold is None else threshold, dtype=float)
    if c.shape not in ((), (E,)) or not (np.isfinite(c).all() and (c > 0).all()):
        raise ValueError(
            f"threshold has shape {c.shape}, smallest {np.min(c):g}; a positive number, or one for each of {E} edges, is needed"
        )
    t = np.zeros(E, bool) if trusted is None else np.asarray(trusted)
    if t.shape != (E,) or t.dtype != bool:
        raise ValueError(f"trusted has shape {t.shape} ({t.dtype}); a bool for each of {E} edges is needed")
    return np.broadcast_to(c, E), t


def _each(data: Measurements, work: _Work, doubt: tuple[np.ndarray, np.ndarray], first: np.ndarray | None) -> Synchronization:
    """Every component on its own, put together."""
    label = data.components()
    R = np.tile(np.eye(data.d, dtype=data.blocks.dtype), (data.n, 1, 1))
    weights, inliers, parts = data.weights.copy(), np.ones(len(data.i), bool), []
    for c in range(label.max() + 1):
        inside = label == c
        if inside.sum() == 1:
            continue
        part, edges = data.part(inside)
        begin = None if first is None else first.reshape(data.n, -1, first.shape[1])[inside].reshape(-1, first.shape[1])
        found = _one(part, work, (doubt[0][edges], doubt[1][edges]), begin)
        R[inside] = found.R.reshape(part.n, data.d, data.d)
        weights[edges], inliers[edges] = found.weights, found.inliers
        parts.append(found)
    worst = max(parts, key=lambda part: (not part.tight, part.gap))
    total = dataclasses.replace(data, weights=weights)
    return dataclasses.replace(
        worst, R=shaped(data, R), misfit=total.misfit(R), bound=sum(p.bound for p in parts), tight=all(p.tight for p in parts),
        residuals=data.residuals(R), weights=weights, inliers=inliers, rank=max(p.rank for p in parts),
        noise=noise_level(total, data.residuals(R), weights), eigengap=min(p.eigengap for p in parts), component=label,
        rounds=max(p.rounds for p in parts), results=sum((p.results for p in parts), ()),
    )  # fmt: skip


def _one(data: Data, work: _Work, doubt: tuple[np.ndarray, np.ndarray], first: np.ndarray | None) -> Synchronization:
    """A connected graph, or clouds."""
    u, rounds = None, 1
    if work.robust is not None and isinstance(data, Measurements):
        fit = _Fit(data, work, first)
        u, rounds = reweighted(data, work.robust, *doubt, fit)
        held = bridged(data, u)
        data, first = dataclasses.replace(data, weights=data.weights * held), fit.Y
    relaxed = relaxation(data, work.asked["threads"])
    Y, values = spectral(relaxed.C, size(data), work.rng)
    if work.random:
        Y = relaxed.random_point(max(size(data), relaxed.manifold.min_rank), work.rng)
    Y = widened(Y if first is None else first, size(data) + 1, relaxed, work.rng)
    solver = work.solver if work.solver is not None else default_solver(relaxed, float(values[-1]))
    result = solve(relaxed, solver=solver, warm_start=Y, rng=work.rng, **work.asked)
    found = recovered(result, data, work.rng, work.trials, values, solver)
    if u is None or not isinstance(data, Measurements):
        return found
    cut = int(np.sum((u == 0) & (data.weights > 0)))
    why = found.why + (f"; {cut} rejected edges of small weight hold parts together that no inlier joins" if cut else "")
    return dataclasses.replace(found, inliers=u > 0.5, rounds=rounds, why=why)


class _Fit:
    """Blocks for given robust factors: descent from the last ones, without certificate."""

    def __init__(self, data: Measurements, work: _Work, first: np.ndarray | None):
        self.data, self.work, self.Y = data, work, first

    def __call__(self, u: np.ndarray) -> np.ndarray:
        data = dataclasses.replace(self.data, weights=self.data.weights * u)
        relaxed, d, rng = relaxation(data, self.work.asked["threads"]), size(data), self.work.rng
        Y, values = spectral(relaxed.C, d, rng)
        Y = self.Y if self.Y is not None else Y
        solver = self.work.solver if self.work.solver is not None else default_solver(relaxed, float(values[-1]))
        Y = widened(Y, d + 2, relaxed, rng)
        self.Y = minimize(relaxed, solver, Y, tol=ROUGH, max_time=self.work.asked["max_time"]).Y
        return blocks_of(data, round_to_rotations(self.Y, d, is_special(data)))
