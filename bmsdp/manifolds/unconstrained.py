"""Free rows: no constraint, no multiplier, and no shift either."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from .base import Manifold, gaussian


class Unconstrained(Manifold):
    """``K^{n x k}`` itself.  Nothing bounds X there, so S has to be positive semidefinite as it is: there is no shift."""

    def __init__(self, n: int):
        if n < 1:
            raise ValueError(f"at least one row is needed; got n = {n}")
        self.n, self.m = int(n), 0
        self.b, self.row_trace = np.zeros(0), np.zeros(self.n)

    def apply(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        return np.zeros(0)

    def adjoint_mul(self, mu: np.ndarray, V: np.ndarray) -> np.ndarray:
        return np.zeros_like(V)

    def matrix(self, mu: np.ndarray) -> sp.csr_array:
        return sp.csr_array((self.n, self.n))

    def multipliers(self, Y: np.ndarray, G: np.ndarray, factor: Any = None) -> np.ndarray:
        return np.zeros(0)

    def retract(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        return Y + U

    def random_point(self, k: int, rng: np.random.Generator, dtype: Any = np.float64) -> np.ndarray:
        return gaussian(rng, (self.n, k), dtype)

    def cover(self, e: np.ndarray) -> np.ndarray | None:
        return None if np.any(e) else np.zeros(0)

    def defect(self, Y: np.ndarray) -> np.ndarray:
        return np.zeros(self.n)
