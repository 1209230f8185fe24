"""Preconditioners out of the Hessian products that tCG makes anyway."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..problem import LocalModel, Problem
from .base import Gate, Gated, Map, check_gate
from .block import Block
from .column import Column
from .diagonal import inverse_diagonal


@dataclass(frozen=True)
class Multisecant:
    """Many exact secant pairs at once, free with the products of earlier tCG runs.

    Attributes
    ----------
    memory : int
        Pairs in use.
    mode : "column" or "block"
        "column": the ``memory`` lowest Ritz pairs of the n x n slack, exact as Y moves (`bmsdp.preconditioners.column`); needs terms that
        act on X.  Storage: 5 memory + 80 vectors of n; an application is two products of an n x memory matrix with k columns.
        "block": block BFGS of n k-dimensional pairs of the last tCG (Schnabel, 1983), projected to the new tangent space; storage
        4 memory arrays of n k; for problems without a slack.
    base : "identity", "jacobi" or a callable
        What the pairs correct; ``base(model)`` returns a symmetric positive definite map of n x k arrays, close to the inverse Hessian.
    gate : "auto", "always" or "local"
        "auto": where the last tCG was so long that it pays, by flops; "local": where it ended by its residual; "always": wherever the
        pairs allow (the Ritz values have to be nonnegative, almost).
    delta : float
        Ritz values are raised to this part of the largest in use.
    """

    memory: int = 30
    mode: Literal["column", "block"] = "column"
    base: Literal["identity", "jacobi"] | Callable[[LocalModel], Map] = "identity"
    gate: Gate = "auto"
    delta: float = 0.03

    def __post_init__(self) -> None:
        if isinstance(self.memory, bool) or not isinstance(self.memory, (int, np.integer)) or self.memory < 1:
            raise ValueError(f"memory = {self.memory}; a positive number of pairs is needed")
        if self.mode not in ("column", "block"):
            raise ValueError(f'mode = {self.mode!r}; it must be "column" (n-dimensional pairs) or "block" (n k-dimensional ones)')
        if self.base not in ("identity", "jacobi") and not callable(self.base):
            raise ValueError(f'base = {self.base!r}; it must be "identity", "jacobi" or a callable that takes a model and returns a map')
        if not 0 < self.delta < 1:
            raise ValueError(f"delta = {self.delta}; a number in (0, 1) is needed")
        check_gate(self.gate)

    def start(self, problem: Problem) -> Gated:
        """The state of one run."""
        base: Any = {"identity": None, "jacobi": _rows}.get(self.base, self.base) if isinstance(self.base, str) else self.base
        if self.mode == "block":
            return Block(problem, self.memory, base, self.gate)
        if problem.opaque is not None:
            raise TypeError(f'{problem.opaque} does not act on X, so there is no slack to take columns of; use mode="block"')
        return Column(problem, self.memory, base, self.gate, self.delta)


def _rows(model: LocalModel) -> Map:
    scale = inverse_diagonal(model)
    if scale is None:
        raise TypeError('base = "jacobi" needs a C and an A*(mu) with a diagonal, and no terms; use base="identity"')
    return lambda U: scale[:, None] * U
