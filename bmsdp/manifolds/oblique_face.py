"""Rows of given length, orthogonal to given vectors: ``X_ii = b_i`` on the face ``X U = 0`` of the cone."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..facial import Face
from .base import Manifold, gaussian, row_dot

STEPS = 30  # of Gauss-Newton, quadratic near the manifold


class ObliqueFace(Manifold):
    """``{Y : |y_i|^2 = b_i, U* Y = 0}``, with ``P = I - QQ*``, Q an orthonormal basis of U: the matrices are ``A_i = P e_i e_i* P``.

    To go with costs ``P C P``; b > 0, and a face without zero rows.  The Gram matrix is ``diag(b) - [Q_i Q_j* o <y_i, y_j>]``.
    """

    def __init__(self, b: Any, face: Face):
        self.b = self.row_trace = np.array(b, float, ndmin=1)
        self.n = self.m = len(self.b)
        self.face, self.Q = face, np.linalg.qr(face.U.conj().T)[0]

    def complement(self, V: np.ndarray) -> np.ndarray:
        """``P V``."""
        return np.asarray(V - self.Q @ (self.Q.conj().T @ V))

    def apply(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        return row_dot(*(np.ascontiguousarray(self.complement(V)) for V in (Y, U)))

    def adjoint_mul(self, mu: np.ndarray, V: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(self.complement(mu[:, None] * self.complement(V)))

    def factor(self, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row lengths, the low-rank part Z and the inverse of ``I - Z^T D^{-1} Z``, for the Gram matrix ``D - Z Z^T``."""
        d = row_dot(Y, Y)
        Z = (self.Q[:, :, None] * Y.conj()[:, None, :]).reshape(len(Y), -1)
        Z = np.hstack([Z.real, Z.imag]) if np.iscomplexobj(Z) else Z
        inner = -(Z.T @ (Z / d[:, None]))
        inner.flat[:: len(inner) + 1] += 1 + 1e-14  # singular where the constraints depend on each other
        return d, Z, np.linalg.inv(inner)

    def multipliers(self, Y: np.ndarray, G: np.ndarray, factor: Any = None) -> np.ndarray:
        return self._solve(factor or self.factor(Y), row_dot(Y, np.ascontiguousarray(self.complement(G))))  # P Y = Y

    def _solve(self, factor: Any, r: np.ndarray) -> np.ndarray:
        d, Z, inner = factor
        return np.asarray((r + Z @ (inner @ (Z.T @ (r / d)))) / d)

    def retract(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        Z, size = np.ascontiguousarray(self.complement(Y + U)), np.inf
        for _ in range(STEPS):
            r = row_dot(Z, Z) - self.b
            size, before = float(np.abs(r / self.b).max()), size
            if size <= 1e-15 * self.n or size >= before and size <= 1e-12:
                break
            if size > 0.5:  # far away: lengths first
                Z = np.ascontiguousarray(self.complement(Z * np.sqrt(self.b / np.maximum(row_dot(Z, Z), 1e-300))[:, None]))
                continue
            Z = np.ascontiguousarray(Z - self.complement(self._solve(self.factor(Z), r / 2)[:, None] * Z))
        return Z

    def random_point(self, k: int, rng: np.random.Generator, dtype: Any = np.float64) -> np.ndarray:
        Y = gaussian(rng, (self.n, k), dtype)
        return self.retract(Y, np.zeros_like(Y))

    def cover(self, e: np.ndarray) -> np.ndarray | None:
        return None  # nothing bounds the range of U; certificates are formed on its complement

    def defect(self, Y: np.ndarray) -> np.ndarray:
        return np.full(self.n, np.inf)
