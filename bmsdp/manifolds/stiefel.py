"""Products of Stiefel manifolds: ``Y_i Y_i* = I_d`` for q blocks of d rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from .base import Manifold, gaussian
from .hermitian import pack, unpack


class StiefelProduct(Manifold):
    """``{Y : Y_i Y_i* = I_d, i = 1..q}``: n = q d rows, k >= d columns, identity diagonal blocks of X.

    A block has d(d+1)/2 constraints, d^2 where ``is_complex``: orthonormal Hermitian matrices in the order of `hermitian.pack`.
    """

    def __init__(self, q: int, d: int, is_complex: bool = False):
        if q < 1 or d < 1:
            raise ValueError(f"at least one block of at least one row is needed; got q = {q}, d = {d}")
        self.q, self.d, self.is_complex, self.n, self.min_rank = int(q), int(d), is_complex, q * d, int(d)
        self.size = d * d if is_complex else d * (d + 1) // 2
        self.m = q * self.size
        self.b = np.tile(np.r_[np.ones(d), np.zeros(self.size - d)], q)
        self.row_trace = np.ones(self.n)

    def apply(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        M = self._split(U) @ self._split(Y).conj().transpose(0, 2, 1)
        return pack((M + M.conj().transpose(0, 2, 1)) / 2).ravel()

    def adjoint_mul(self, mu: np.ndarray, V: np.ndarray) -> np.ndarray:
        return (unpack(mu.reshape(self.q, -1), self.d) @ self._split(V)).reshape(V.shape)

    def matrix(self, mu: np.ndarray) -> sp.bsr_array:
        blocks = unpack(mu.reshape(self.q, -1), self.d)
        return sp.bsr_array((blocks, np.arange(self.q), np.arange(self.q + 1)), shape=(self.n, self.n))

    def multipliers(self, Y: np.ndarray, G: np.ndarray, factor: Any = None) -> np.ndarray:
        return self.apply(Y, G)

    def retract(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        Z = self._split(Y + U)
        lam, Q = np.linalg.eigh(Z @ Z.conj().transpose(0, 2, 1))
        return ((Q / np.sqrt(lam)[:, None, :]) @ (Q.conj().transpose(0, 2, 1) @ Z)).reshape(Y.shape)

    def random_point(self, k: int, rng: np.random.Generator, dtype: Any = np.float64) -> np.ndarray:
        Q = np.linalg.qr(gaussian(rng, (self.q, k, self.d), dtype))[0]
        return np.ascontiguousarray(Q.conj().transpose(0, 2, 1)).reshape(self.n, k)

    def cover(self, e: np.ndarray) -> np.ndarray:
        w = np.zeros((self.q, self.size))
        w[:, : self.d] = np.reshape(e, (self.q, self.d))
        return w.ravel()

    def defect(self, Y: np.ndarray) -> np.ndarray:
        off = np.linalg.norm((self.apply(Y, Y) - self.b).reshape(self.q, -1), axis=1)
        return np.repeat(off + 2.0**-50 * self.d * Y.shape[1], self.d)  # and the rounding of d x d sums of k products

    def _split(self, Y: np.ndarray) -> np.ndarray:
        return Y.reshape(self.q, self.d, -1)
