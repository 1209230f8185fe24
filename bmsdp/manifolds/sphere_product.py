"""Products of spheres: consecutive groups of rows, each of given trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from .base import Manifold, gaussian, row_dot


class SphereProduct(Manifold):
    """``{Y : |Y_g|_F^2 = b_g}`` for consecutive groups g of rows: `Oblique` for groups of one row, `Sphere` for one group.

    Parameters
    ----------
    sizes : array_like of int, (m,)
        Rows of each group, at least one.
    b : array_like, (m,)
        Traces of the diagonal blocks of X, positive and finite.
    """

    def __init__(self, sizes: Any, b: Any):
        sizes, b = np.array(sizes, np.int64, ndmin=1), np.array(b, float, ndmin=1)
        if sizes.shape != b.shape or not (sizes > 0).all() or not (np.isfinite(b) & (b > 0)).all():
            raise ValueError(f"{sizes.size} sizes and {b.size} traces were given; a size > 0 and a finite trace > 0 a group are needed")
        self.sizes, self.b, self.n, self.m = sizes, b, int(sizes.sum()), len(b)
        self.first = np.cumsum(sizes) - sizes
        self.group = np.repeat(np.arange(self.m), sizes)
        self.row_trace = (b / sizes)[self.group]

    def apply(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        return np.add.reduceat(row_dot(Y, U), self.first)

    def adjoint_mul(self, mu: np.ndarray, V: np.ndarray) -> np.ndarray:
        return mu[self.group, None] * V

    def matrix(self, mu: np.ndarray) -> sp.dia_array:
        return sp.diags_array(np.asarray(mu)[self.group])

    def multipliers(self, Y: np.ndarray, G: np.ndarray, factor: Any = None) -> np.ndarray:
        return self.apply(Y, G) / self.b

    def retract(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        Z = Y + U
        Z *= np.sqrt(self.b / self.apply(Z, Z))[self.group, None]
        return Z

    def random_point(self, k: int, rng: np.random.Generator, dtype: Any = np.float64) -> np.ndarray:
        Y = gaussian(rng, (self.n, k), dtype)
        return self.retract(Y, np.zeros_like(Y))

    def cover(self, e: np.ndarray) -> np.ndarray:
        return np.maximum.reduceat(np.asarray(e, float), self.first)

    def defect(self, Y: np.ndarray) -> np.ndarray:
        rounding = 2.0**-52 * self.sizes * Y.shape[1]  # of the sum of so many squares
        off = np.abs(1 - np.sqrt(self.b / self.apply(Y, Y))) + rounding
        return off[self.group] * np.linalg.norm(Y, axis=1)
