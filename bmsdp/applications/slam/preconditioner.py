r"""Gauss-Newton steps as a preconditioner for trust regions on rotations (translations eliminated).

At rank d a tangent vector is ``U_i = Omega_i Y_i``, Omega_i skew: d(d-1)/2 numbers a pose.  With translations V as further unknowns,
``<C, [U; V][U; V]^T>`` is a sparse quadratic form in (Omega, V); its Hessian is that of Gauss and Newton, positive semidefinite whatever
the noise.  One sparse factorisation; the solve with right-hand side (Omega, 0) inverts the form on rotations alone, translations being
the best.  Beyond rank d the other part of the tangent space, rows orthogonal to Y_i, gets the inverse of C itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from ...problem import LocalModel
from ...schur import SchurOperator, definite
from ..synchronization.rounding import round_to_rotations

FLOOR = 1e-6  # relative to the mean precision: added to the Gauss-Newton matrix
MOVED = 0.05  # mean squared change of a rotation after which the matrix is formed again


def skew(d: int) -> np.ndarray:
    """Orthonormal skew d x d matrices, (d(d-1)/2, d, d)."""
    p, q = np.triu_indices(d, 1)
    E = np.zeros((len(p), d, d))
    E[np.arange(len(p)), q, p] = np.sqrt(0.5)
    E[np.arange(len(p)), p, q] = -np.sqrt(0.5)
    return E


class GaussNewton:
    """``preconditioner(model)`` for a problem whose C is the `SchurOperator` of a pose graph, d rows a pose."""

    def __init__(self, d: int, scale: float):
        self.d, self.scale = d, scale

    def __repr__(self) -> str:
        return "GaussNewton()"

    def __call__(self, model: LocalModel) -> Callable[[np.ndarray], np.ndarray]:
        cache, Y, d = model.problem.cache, model.Y, self.d
        known = cache.get("gauss-newton")
        if known is None or known.moved(Y) > MOVED:
            known = cache["gauss-newton"] = _Factored(model.problem.C, Y, d, self.scale)
        blocks = Y.reshape(-1, d, Y.shape[1])

        def apply(V: np.ndarray) -> np.ndarray:
            V = V.reshape(blocks.shape)
            M = V @ blocks.transpose(0, 2, 1)
            out = (known.turned((M - M.transpose(0, 2, 1)) / 2)) @ blocks
            if Y.shape[1] > d:
                out += _across(blocks, known.inverse(_across(blocks, V)))
            return out.reshape(Y.shape)

        return apply


def _across(Y: np.ndarray, V: np.ndarray) -> np.ndarray:
    """The part of the rows of V_i that is orthogonal to those of Y_i."""
    return V - (V @ Y.transpose(0, 2, 1)) @ Y


class _Factored:
    """The Gauss-Newton matrix at the rotations nearest to one Y, factored."""

    def __init__(self, C: SchurOperator, Y: np.ndarray, d: int, scale: float):
        self.C, self.Y, self.d, self.scale, self.n = C, Y.copy(), d, scale, len(Y) // d
        self.E = skew(d)
        R = np.ascontiguousarray(round_to_rotations(Y, d))  # blocks Y_i up to a common frame
        self.size = self.n * len(self.E)
        turn, across = self._turns(R), self._across(R)
        extra = np.full(self.size, FLOOR * scale)
        extra[: len(self.E)] += scale  # the common frame is free: hold the first pose
        free = sparse.kron(C.free, sparse.eye_array(d), format="csr")
        for weak in (1.0, 1e3, 1e6):
            top = turn + sparse.diags_array(weak * extra)
            self.factor = definite(sparse.csc_array(sparse.block_array([[top, across], [across.T, free]], format="csc")))
            if self.factor is not None:
                break
        self.right = np.zeros(self.size + free.shape[0])
        self.whole: Any = None

    def moved(self, Y: np.ndarray) -> float:
        """The mean squared change of a row block since then; infinite at another rank."""
        return float(np.linalg.norm(Y - self.Y) ** 2) / self.n if Y.shape == self.Y.shape else np.inf

    def _turns(self, R: np.ndarray) -> sparse.csr_array:
        """``<E_a R_i, C_ij E_b R_j>``."""
        d, g = self.d, len(self.E)
        C = sparse.bsr_array(self.C.kept.C, blocksize=(d, d))
        j, i = C.indices, np.repeat(np.arange(self.n), np.diff(C.indptr))
        cross = R[j] @ R[i].transpose(0, 2, 1)
        H = np.empty((len(j), g, g))
        for b in range(g):
            T = C.data @ (self.E[b] @ cross)
            H[:, :, b] = np.einsum("apq,npq->na", self.E, T)
        return sparse.bsr_array((H, C.indices, C.indptr), shape=(self.size, self.size)).tocsr()

    def _across(self, R: np.ndarray) -> sparse.csr_array:
        """``<E_a R_i, C_ic v_c>`` for the d coordinates of translation c."""
        C, d, g = self.C.back.C.tocoo(), self.d, len(self.E)
        i, p = np.divmod(C.row, d)
        turned = np.einsum("apq,nqk->npak", self.E, R)  # rows of E_a R_i
        value = turned[i, p] * C.data[:, None, None]
        row = (i[:, None] * g + np.arange(g))[:, :, None]
        column = (C.col[:, None] * d + np.arange(d))[:, None, :]
        row, column = np.broadcast_arrays(row, column)
        shape = (self.size, self.C.free.shape[0] * d)
        return sparse.csr_array((value.ravel(), (row.ravel(), column.ravel())), shape=shape)

    def turned(self, W: np.ndarray) -> np.ndarray:
        """Omega (n, d, d) for skew parts W of a gradient."""
        if self.factor is None:
            return W
        self.right[: self.size] = np.einsum("apq,npq->na", self.E, W).ravel()
        omega = self.scale * self.factor.solve(self.right)[: self.size]
        return np.einsum("na,apq->npq", omega.reshape(self.n, -1), self.E)

    def inverse(self, V: np.ndarray) -> np.ndarray:
        """``(C + a little)^{-1} V`` on rotations."""
        C, n = self.C.whole, self.C.n
        if self.whole is None:
            extra = np.zeros(C.n)
            extra[:n] = FLOOR * self.scale
            extra[: self.d] += self.scale
            self.whole = definite(sparse.csc_array(C.C + sparse.diags_array(extra)))
        if self.whole is None:
            return V
        right = np.zeros((C.n, V.shape[2]))
        right[:n] = V.reshape(n, -1)
        return self.scale * self.whole.solve(right)[:n].reshape(V.shape)
