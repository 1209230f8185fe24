"""A sparse Cholesky factor of the shifted slack as a preconditioner (SE-Sync's choice; Rosen, Carlone, Bandeira, Leonard, 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..factorization import Elimination, Factor
from ..problem import LocalModel, Problem
from ..slack_form import SlackForm
from .base import DENSE, Gate, Gated, Map, check_gate, projected

LARGEST = 0.1  # shift relative to |S|
CALLS = 1e6  # flops that the calls around a factorisation are worth


@dataclass(frozen=True)
class Cholesky:
    """``P U = Proj((2 (S + t I))^-1 U)`` from a factorisation of S + t I, t the least of ``shift |S|`` times 1, 10, ... that makes it
    definite; no preconditioner where S has no matrix, its factor is too large, or t would exceed ``|S| / 10``.

    One factorisation per step or more; an application costs ``4 k`` flops per entry of the factor.  ``|S|`` is the largest row sum.
    S may be ill-conditioned, and rows may be free: the better its lower end is known, the fewer products.

    Attributes
    ----------
    shift : float
        The smallest shift, relative to ``|S|``: about the inverse condition number of P.
    gate : "auto", "always" or "local"
        As for `Multisecant`.
    """

    shift: float = 1e-5
    gate: Gate = "auto"

    def __post_init__(self) -> None:
        check_gate(self.gate)
        if not 0 < self.shift <= LARGEST:
            raise ValueError(f"shift = {self.shift}; a number in (0, {LARGEST}] is needed (1e-5 is the default)")

    def start(self, problem: Problem) -> Gated:
        """The state of one run."""
        return _Factored(problem, self.gate, self.shift)


class _Factored(Gated):
    shorter = 0.2

    def __init__(self, problem: Problem, gate: Gate, shift: float):
        super().__init__(problem, gate, self._map)
        self.least, self.shift = shift, shift
        self.tree: Any = None
        self.analysed = self.refused = False

    def at(self, model: LocalModel) -> Map | None:
        if not self.analysed:
            self.analysed, form = True, self._form(model)
            self.tree = None if form is None else form.analyse()
            self.refused = self.tree is None
        if self.refused:
            return None
        return super().at(model)

    def costs(self, model: LocalModel) -> tuple[float, float]:
        n, k = model.Y.shape
        field = 4 if self.problem.C.is_complex else 1
        entries = self.tree.pointer[-1] + 2 * DENSE * self.tree.core**2 if isinstance(self.tree, Elimination) else float(n * n)
        return field * 7.0 * entries * k, 3 * (6.0 * field * self.tree.flops + CALLS)  # by memory; serves one step, not three

    @staticmethod
    def _form(model: LocalModel) -> SlackForm | None:
        problem = model.problem
        return None if problem.terms else SlackForm.of(problem.C, problem.manifold, model.mu)

    def _map(self, model: LocalModel) -> Map | None:
        form = self._form(model)
        assert form is not None
        size = model.problem.norm_C + float(np.abs(form.diagonal).max())
        while self.shift <= LARGEST:
            factor = form.factor(self.tree, form.diagonal + self.shift * size)
            if factor.definite:
                self.shift = max(self.least, self.shift / 10)  # less may do next time
                return lambda U: projected(model, solve(factor, U))
            self.shift *= 10
        self.shift = LARGEST
        return None


def solve(factor: Any, U: np.ndarray) -> np.ndarray:
    """``(2 M)^-1 U`` for the factor of M and U (n x k)."""
    if not isinstance(factor, Factor) or factor.tree.negative:
        return np.ascontiguousarray(np.column_stack([factor.solve(u) for u in 0.5 * U.T]))
    from scipy.linalg import cho_solve

    from ..kernels.triangular import solve_forward, solve_transposed

    tree, sparse = factor.tree, factor.tree.sparse
    X = U[tree.perm]
    solve_forward(tree.pointer, factor.rows, factor.values, X)
    X[:sparse] *= (0.5 / factor.D)[:, None]
    if tree.core:
        X[sparse:] = cho_solve((factor.U, False), 0.5 * X[sparse:].conj(), check_finite=False).conj()
    solve_transposed(tree.pointer, factor.rows, factor.values, X)
    out = np.empty_like(X)
    out[tree.perm] = X
    return out
