"""Fixed trace: one sphere for all rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from .base import Manifold, gaussian, inner


class Sphere(Manifold):
    """``{Y : |Y|_F^2 = R}``, that is ``tr X = R``.

    Parameters
    ----------
    n : int
    trace : float
        R, positive and finite.
    """

    def __init__(self, n: int, trace: float = 1.0):
        if not (np.isfinite(trace) and trace > 0) or n < 1:
            raise ValueError(f"a sphere needs n >= 1 rows and a finite positive trace; got n = {n}, trace = {trace}")
        self.n, self.m = int(n), 1
        self.b = np.array([float(trace)])
        self.row_trace = np.full(self.n, trace / n)

    def apply(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        return np.array([inner(Y, U)])

    def adjoint_mul(self, mu: np.ndarray, V: np.ndarray) -> np.ndarray:
        return mu[0] * V

    def matrix(self, mu: np.ndarray) -> sp.dia_array:
        return sp.diags_array(np.full(self.n, mu[0]))

    def multipliers(self, Y: np.ndarray, G: np.ndarray, factor: Any = None) -> np.ndarray:
        return self.apply(Y, G) / self.b

    def retract(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        Z = Y + U
        Z *= np.sqrt(self.b[0]) / np.linalg.norm(Z)
        return Z

    def random_point(self, k: int, rng: np.random.Generator, dtype: Any = np.float64) -> np.ndarray:
        Y = gaussian(rng, (self.n, k), dtype)
        return self.retract(Y, np.zeros_like(Y))

    def cover(self, e: np.ndarray) -> np.ndarray:
        return np.array([np.max(e)])

    def defect(self, Y: np.ndarray) -> np.ndarray:
        rounding = 2.0**-52 * Y.size  # of the sum of so many squares
        return (abs(1 - np.sqrt(self.b[0]) / np.linalg.norm(Y)) + rounding) * np.linalg.norm(Y, axis=1)
