r"""The Gram matrix ``G_ij = <A_i Y, A_j Y>`` of general constraints, and least squares with it (floor L1).

With J the m x (real dimension of K^{n x k}) matrix whose rows are ``A_j Y``, ``G = J J^T``, ``A*(mu) Y = J^T mu``, and the multipliers of V
are ``mu = G^+ J v``.  G squares the condition of J: one step of refinement on the residual ``v - J^T mu`` gives that back
(Bjorck, "Stability analysis of the method of seminormal equations", 1987).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from .factorization import Elimination, Factor
from .linear_maps import MatrixMap

CUT = 1e-12  # eigenvalues and pivots of G below this part of the largest count as zero: 1e-6 for J
SPARSE_ROWS = 200  # constraints from which a sparse factorisation of G is tried
EIGEN_ROWS = 500  # constraints up to which a singular dense G is solved with by its eigenvalues
SHIFT = 1e-9  # relative to the largest entry: what makes other singular G definite
DENSE_ENTRIES = 3e7  # entries up to which dense constraint matrices are kept as such, for BLAS
EIGEN_LIMIT = 4000  # constraints up to which eigenvalues of G are computed


class Gram:
    """What does not depend on Y: the nonempty rows of every A_j, scaled to unit norm, and the pattern of G.

    Attributes
    ----------
    scale : ndarray, (m,)
        ``1 / |A_j|_F`` (1 for zero rows); all else speaks of ``A_j scale_j``.
    """

    def __init__(self, A: MatrixMap):
        self.n, self.m = A.n, A.m
        norm = np.sqrt(np.bincount(A.row_of, np.abs(A.rows.data) ** 2, A.m))
        self.scale = 1 / np.where(norm > 0, norm, 1.0)
        pairs, place = np.unique(A.row_of * A.n + A.i, return_inverse=True)
        row, self.i = np.divmod(pairs, A.n)
        self.pointer = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=A.m))])
        data = A.rows.data * self.scale[A.row_of]
        self.B: Any = sp.csr_array((data, (place.ravel(), A.j)), shape=(len(pairs), A.n))
        if 0.3 * len(pairs) * A.n < self.B.nnz < DENSE_ENTRIES:
            self.B = self.B.toarray()
        self.row, self.is_dense = row, len(pairs) > 0.2 * A.m * A.n
        self.pattern: Any
        self.tree: Elimination | None
        self.pattern, self.tree = self._analyse() if A.m >= SPARSE_ROWS and not self.is_dense else (None, None)

    def _analyse(self) -> tuple[Any, Elimination | None]:
        """The pattern of G and its elimination where that is sparse; (None, None) where dense factors are as good."""
        T = sp.csr_array((np.ones(len(self.i)), (self.row, self.i)), shape=(self.m, self.n))
        if float(np.sum(np.diff(T.tocsc().indptr).astype(float) ** 2)) > 0.2 * self.m**2:
            return None, None
        pattern = sp.csr_array(T @ T.T)
        pattern.sort_indices()
        tree = Elimination.analyse(pattern)
        if tree is None or tree.flops > self.m**3 / 30:
            return None, None
        return pattern, tree

    def jacobian(self, Y: np.ndarray) -> Any:
        """J at Y, ndarray or BSR; complex entries count as pairs of real ones."""
        T = np.ascontiguousarray(self.B @ Y)
        T = T.view(np.float64) if T.dtype.kind == "c" else T
        width = T.shape[1]
        if not self.is_dense:
            return sp.bsr_array((T[:, None, :], self.i, self.pointer), shape=(self.m, self.n * width))
        J = np.zeros((self.m, self.n, width))
        J[self.row, self.i] = T
        return J.reshape(self.m, -1)

    def at(self, Y: np.ndarray) -> GramFactor:
        """G at Y, factored."""
        return GramFactor(self, self.jacobian(Y))


class GramFactor:
    """``G = J J^T`` at one Y, by Cholesky; where it is singular by its eigenvalues, or (where it is large) by iterated shifts.

    Attributes
    ----------
    J : ndarray or BSR
    G : ndarray or CSR, m x m
    """

    def __init__(self, gram: Gram, J: Any):
        self.gram, self.J = gram, J
        self.upper: np.ndarray | None = None
        self.sparse: Factor | None = None
        self.eigen: tuple[np.ndarray, np.ndarray] | None = None
        self.shift = 0.0
        if gram.tree is None:
            G = J @ J.T
            self.G = G if isinstance(G, np.ndarray) else G.toarray()
            self._dense()
        else:
            self.G = self._on_pattern(J)
            self._sparse(gram.tree)

    def _on_pattern(self, J: Any) -> sp.csr_array:
        """G with every entry of the analysed pattern stored, also those that vanish at this Y."""
        full, pattern, m = sp.csr_array(J), self.gram.pattern, self.gram.m
        G = sp.csr_array(full @ full.T)
        G.sort_indices()
        keys, wanted = (np.repeat(np.arange(m), np.diff(M.indptr)) * m + M.indices for M in (G, pattern))
        data = np.zeros(pattern.nnz)
        data[np.searchsorted(wanted, keys)] = G.data
        return sp.csr_array((data, pattern.indices, pattern.indptr), shape=(m, m))

    def _dense(self) -> None:
        from scipy.linalg import get_lapack_funcs

        m, top = len(self.G), float(self.G.diagonal().max(initial=0.0))
        if not m:
            return
        (potrf,) = get_lapack_funcs(("potrf",), (self.G,))
        upper, info = potrf(self.G.T, lower=0, clean=0)  # in the order that LAPACK wants
        if info == 0 and float(upper.diagonal().min()) ** 2 > max(CUT, 4 * m * 2.0**-52) * top:
            self.upper = upper
            return
        if m > EIGEN_ROWS:
            self.shift = SHIFT * top
            self.upper, _ = potrf(self.G + self.shift * np.eye(m), lower=0, clean=0)
            return
        values, Q = np.linalg.eigh(self.G)
        keep = values > CUT * values[-1]
        self.eigen = values[keep], Q[:, keep]

    def _sparse(self, tree: Elimination) -> None:
        diagonal = self.G.diagonal()
        self.sparse = tree.factor(self.G, diagonal)
        top = float(diagonal.max())
        if not (self.sparse.definite and _pivots(self.sparse) > CUT * top):
            self.shift = max(SHIFT * top, 1e-300)
            self.sparse = tree.factor(self.G, diagonal + self.shift)

    def solve(self, r: np.ndarray) -> np.ndarray:
        """``G^+ r``."""
        if not len(r):
            return np.zeros(0)
        if self.eigen is not None:
            values, Q = self.eigen
            return Q @ ((Q.T @ r) / values)
        x = self._shifted(r)
        for _ in range(4 if self.shift else 0):  # r lies in the range of G: the shift's error falls by shift / lambda each time
            x += self._shifted(r - self.G @ x)
        return x

    def _shifted(self, r: np.ndarray) -> np.ndarray:
        """``(G + shift I)^{-1} r``."""
        if self.sparse is not None:
            return self.sparse.solve(r)
        from scipy.linalg import cho_solve

        return np.asarray(cho_solve((self.upper, False), r, check_finite=False))

    def multipliers(self, V: np.ndarray) -> np.ndarray:
        """``argmin |V - A*(mu) Y|``, (m,), in units of the scaled rows."""
        v = V.reshape(-1).view(np.float64)
        mu = self.solve(self.J @ v)
        return mu + self.solve(self.J @ (v - self.J.T @ mu))

    def normal(self, mu: np.ndarray, like: np.ndarray) -> np.ndarray:
        """``A*(mu) Y`` as an array like ``like``."""
        return (self.J.T @ mu).view(like.dtype).reshape(like.shape)

    @property
    def rank(self) -> int:
        """The numerical rank of G."""
        if self.eigen is not None:
            return len(self.eigen[0])
        return self.count(CUT) if self.shift else self.gram.m

    def count(self, cut: float) -> int:
        """How many eigenvalues are above ``cut`` times the largest."""
        values = self.spectrum()[0]
        return int(np.sum(values > cut * values[-1])) if len(values) else 0

    def smallest(self) -> float:
        """A lower bound on ``lambda_min(G)``, rounding of G included; not positive where none was found."""
        m, width = self.J.shape
        top = float(self.G.diagonal().max())
        slip = m * (m + width) * 2.0**-52 * top
        if self.gram.tree is None:
            return float(np.linalg.eigvalsh(self.G)[0]) - slip
        for t in top * 10.0 ** -np.arange(1, 11):
            if self.gram.tree.factor(self.G, self.G.diagonal() - t).definite:
                return float(t) - slip
        return 0.0

    def spectrum(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues of G, ascending, and vectors.

        Raises ValueError beyond `EIGEN_LIMIT` constraints.
        """
        if self.gram.m > EIGEN_LIMIT:
            raise ValueError(f"the rank of G needs its eigenvalues, and m = {self.gram.m} is above {EIGEN_LIMIT}; give fewer rows")
        values, vectors = np.linalg.eigh(self.G if isinstance(self.G, np.ndarray) else self.G.toarray())
        return values, vectors


def _pivots(factor: Factor) -> float:
    """The smallest pivot of a definite factor."""
    return float(min(factor.D.min(initial=np.inf), np.min(factor.U.diagonal() ** 2, initial=np.inf) if factor.tree.core else np.inf))
