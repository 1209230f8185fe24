"""The diagonal of the slack as a preconditioner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..problem import LocalModel, Problem
from .base import Gate, Gated, Map, check_gate, projected

FLOOR = 0.05  # of the median


@dataclass(frozen=True)
class Jacobi:
    """``P U = Proj(D^-1 U)``, ``D = 2 |diag S|`` clipped from below at 5 % of its median; none where C has no diagonal.

    One number per row, on every manifold: within identity blocks and spheres the compression to the tangent space keeps it definite.
    Storage: n numbers, and one array of n k in use.  It pays where rows differ in size by orders of magnitude.

    Attributes
    ----------
    gate : "auto", "always" or "local"
        As for `Multisecant`.
    """

    gate: Gate = "always"

    def __post_init__(self) -> None:
        check_gate(self.gate)

    def start(self, problem: Problem) -> Gated:
        """The state of one run."""
        return Gated(problem, self.gate, jacobi)


def jacobi(model: LocalModel) -> Map | None:
    """The map of `Jacobi` at a point; None where C, A*(mu) or a term shows no diagonal."""
    scale = inverse_diagonal(model)
    return None if scale is None else lambda U: projected(model, scale[:, None] * U)


def inverse_diagonal(model: LocalModel) -> np.ndarray | None:
    """``1 / (2 |diag S|)``, clipped; None where C, A*(mu) or a term shows no diagonal."""
    problem = model.problem
    c, A = problem.C.diagonal(), problem.manifold.matrix(model.mu)
    if c is None or A is None or problem.terms:
        return None
    d = 2 * np.abs(c - A.diagonal().real)
    middle = float(np.median(d))
    if middle == 0:
        return None
    return 1 / np.maximum(d, FLOOR * middle)
