"""Products: consecutive rows, each group on a manifold of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from .base import Manifold


class Product(Manifold):
    """The rows of Y in consecutive groups, group j on ``parts[j]``; its multipliers are concatenated in the same order."""

    def __init__(self, parts: Any):
        self.parts = tuple(parts)
        if not self.parts:
            raise ValueError("a product needs at least one manifold; got none")
        rows = np.cumsum([0] + [p.n for p in self.parts])
        duals = np.cumsum([0] + [p.m for p in self.parts])
        self.rows = [slice(*r) for r in zip(rows[:-1], rows[1:], strict=True)]
        self.duals = [slice(*r) for r in zip(duals[:-1], duals[1:], strict=True)]
        self.n, self.m = int(rows[-1]), int(duals[-1])
        self.b = np.concatenate([p.b for p in self.parts])
        self.row_trace = np.concatenate([p.row_trace for p in self.parts])
        self.min_rank = max(p.min_rank for p in self.parts)

    def apply(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        return np.concatenate([p.apply(Y[r], U[r]) for p, r in zip(self.parts, self.rows, strict=True)])

    def adjoint_mul(self, mu: np.ndarray, V: np.ndarray) -> np.ndarray:
        groups = zip(self.parts, self.duals, self.rows, strict=True)
        return np.concatenate([p.adjoint_mul(mu[s], V[r]) for p, s, r in groups])

    def matrix(self, mu: np.ndarray) -> Any:
        return sp.block_diag([p.matrix(mu[s]) for p, s in zip(self.parts, self.duals, strict=True)], format="csr")

    def multipliers(self, Y: np.ndarray, G: np.ndarray, factor: Any = None) -> np.ndarray:
        return np.concatenate([p.multipliers(Y[r], G[r]) for p, r in zip(self.parts, self.rows, strict=True)])

    def retract(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        return np.concatenate([p.retract(Y[r], U[r]) for p, r in zip(self.parts, self.rows, strict=True)])

    def random_point(self, k: int, rng: np.random.Generator, dtype: Any = np.float64) -> np.ndarray:
        return np.concatenate([p.random_point(k, rng, dtype) for p in self.parts])

    def cover(self, e: np.ndarray) -> np.ndarray | None:
        w = [p.cover(e[r]) for p, r in zip(self.parts, self.rows, strict=True)]
        return None if any(v is None for v in w) else np.concatenate([v for v in w if v is not None])

    def defect(self, Y: np.ndarray) -> np.ndarray:
        return np.concatenate([p.defect(Y[r]) for p, r in zip(self.parts, self.rows, strict=True)])
