"""Rows of given length: ``X_ii = b_i``, a product of n spheres."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from .base import Manifold, gaussian, row_dot


class Oblique(Manifold):
    """``{Y : |y_i|^2 = b_i}``; unit diagonal for b = 1.

    Parameters
    ----------
    b : array_like, (n,)
        Squared radii, positive and finite.
    """

    def __init__(self, b: Any):
        b = np.array(b, float, ndmin=1)
        if b.ndim != 1 or not (np.isfinite(b).all() and (b > 0).all()):
            raise ValueError(f"squared radii must be finite and positive; got {b if b.size < 5 else f'min {np.min(b)}'}")
        self.n = self.m = len(b)
        self.b = self.row_trace = b
        self.radius = np.sqrt(b)

    def apply(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        return row_dot(Y, U)

    def adjoint_mul(self, mu: np.ndarray, V: np.ndarray) -> np.ndarray:
        return mu[:, None] * V

    def matrix(self, mu: np.ndarray) -> sp.dia_array:
        return sp.diags_array(mu)

    def multipliers(self, Y: np.ndarray, G: np.ndarray, factor: Any = None) -> np.ndarray:
        return row_dot(Y, G) / self.b

    def retract(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        Z = Y + U
        Z *= (self.radius / np.sqrt(row_dot(Z, Z)))[:, None]
        return Z

    def random_point(self, k: int, rng: np.random.Generator, dtype: Any = np.float64) -> np.ndarray:
        Y = gaussian(rng, (self.n, k), dtype)
        return self.retract(Y, np.zeros_like(Y))

    def cover(self, e: np.ndarray) -> np.ndarray:
        return np.asarray(e, float)

    def defect(self, Y: np.ndarray) -> np.ndarray:
        return np.abs(np.sqrt(row_dot(Y, Y)) - self.radius)
