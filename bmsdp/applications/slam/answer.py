"""Poses from a solution of the relaxation, and what is known of them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...io.g2o import write_g2o
from ...result import Result
from ...schur import SchurOperator
from ..synchronization.rounding import round_to_rotations
from .cost import centre, cost_scale, without_translations
from .graph import PoseGraph


@dataclass(frozen=True, eq=False)
class Poses:
    """Estimated poses, and how good they must be: ``bound <= least objective <= objective``."""

    R: np.ndarray = field(repr=False)
    """(n, d, d): rotations; the pose ``graph.fixed`` (in other components the first) is where it was given, or the identity."""
    t: np.ndarray = field(repr=False)
    """(n, d): positions."""
    objective: float
    """``sum kappa |R_j - R_i R_ij|_F^2 + tau |t_j - t_i - R_i t_ij|^2``."""
    bound: float
    """Below the objective of all poses, as rigorous as ``rigor`` says; -inf where nothing is known."""
    gap: float
    """``(objective - bound) / max(|objective|, |bound|, scale)``, the scale `cost.cost_scale`."""
    rigor: str
    """"verified", "probabilistic" or "estimate", of the bound."""
    rank: int
    """Of the relaxation's solution: its numerical rank, d where the relaxation is tight."""
    results: tuple[Result, ...] = field(repr=False)
    """Of the relaxation, one a component."""
    component: np.ndarray = field(repr=False)
    """(n,): the component of each pose."""

    @property
    def success(self) -> bool:
        return all(result.success for result in self.results)

    @property
    def status(self) -> Any:
        """Of the first component that is not certified, or certified."""
        return next((result.status for result in self.results if not result.success), self.results[0].status)

    def write(self, path: str | os.PathLike[str], graph: PoseGraph | None = None) -> None:
        """Write the poses as a g2o file, under the ids of the graph where that is given."""
        write_g2o(path, self.R, self.t, None if graph is None else graph.ids)


def rigor_of(results: tuple[Result, ...]) -> str:
    """The weakest of the bounds."""
    known = [result.certificate.rigor if result.certificate is not None else "estimate" for result in results]
    return max(known, key=("verified", "probabilistic", "estimate").index)


def numerical_rank(Y: np.ndarray) -> int:
    """Eigenvalues of X above 1e-6 of the largest."""
    eig = np.linalg.eigvalsh(Y.T @ Y)
    return int(np.sum(eig > 1e-6 * eig[-1]))


def recover(result: Result, graph: PoseGraph) -> Poses:
    """Poses from ``result.Y`` of ``problem(graph)``, with or without translations: nearest rotations, then the best translations.

    Raises
    ------
    ValueError
        If the result is not one of this graph.
    """
    n, d = graph.n, graph.d
    if len(result.Y) not in (n * d, n * d + n - 1):
        raise ValueError(f"Y has {len(result.Y)} rows; {n * d} or {n * d + n - 1} fit this graph of {n} poses; pass its own result")
    C = result.data.C if result.data is not None else None
    schur = C if isinstance(C, SchurOperator) else without_translations(graph)
    blocks = round_to_rotations(np.ascontiguousarray(result.Y[: n * d]), d)
    t = np.insert(schur.eliminated(np.ascontiguousarray(blocks.reshape(n * d, d))), centre(graph), 0.0, axis=0)
    R, t = placed(graph, blocks.transpose(0, 2, 1), t)
    return assess(graph, R, t, (result,), np.zeros(n, np.int64))


def placed(graph: PoseGraph, R: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The poses moved together so that the fixed one is where it was given, or at the identity."""
    k = graph.fixed
    Q, x = R[k].T, -R[k].T @ t[k]
    if graph.poses is not None:
        given = np.asarray(graph.poses[0][k], float)
        Q, x = given @ Q, given @ x + graph.poses[1][k]
    return np.ascontiguousarray(Q @ R), t @ Q.T + x


def assess(graph: PoseGraph, R: np.ndarray, t: np.ndarray, results: tuple[Result, ...], component: np.ndarray) -> Poses:
    """The answer, with its objective and gap."""
    misfit = graph.misfit(R, t)
    objective, bound = math.fsum(misfit), math.fsum(result.bound for result in results)
    size = max(abs(objective), abs(bound) if np.isfinite(bound) else 0.0, cost_scale(graph))
    gap = (objective - bound) / size if np.isfinite(bound) else np.inf
    rank = max(numerical_rank(result.Y[: graph.n * graph.d]) for result in results)
    return Poses(R, t, objective, bound, gap, rigor_of(results), rank, results, component)
