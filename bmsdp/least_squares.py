"""Least squares over factors: ``min |b - A(X)|^2 + |max(0, b_geq - A_geq(X))|^2``, X in the cone, and Newton polish (floor L4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from .cone import Cone, Given
from .linear_maps import MatrixMap

DENSE = 4_000_000  # entries of a Jacobian that is formed
KERNEL = 30_000_000  # entries of an array of V* A_j V
WORK = 3e10  # entries of A times columns, over all iterations: a minute or two
POLISHED_ROWS = 600  # rows of a block whose eigenvectors are computed


@dataclass(frozen=True)
class System:
    """Rows of unit Frobenius norm, equalities first.

    Attributes
    ----------
    map : MatrixMap
    rhs : ndarray, (m_all,)
        At most 1 in absolute value.
    norms : ndarray, (m_all,)
        ``|A_j|_F`` of the caller's rows, 1 for empty ones.
    beta : float
        The right-hand sides were divided by ``norms`` and this: the system is one for ``X / beta``.
    m : int
        Equalities.
    cone : Cone
    """

    map: MatrixMap
    rhs: np.ndarray
    norms: np.ndarray
    beta: float
    m: int
    cone: Cone

    @classmethod
    def of(cls, given: Given) -> System:
        """The rows of a problem, whose maps have matrices."""
        return cls._scaled([given.A, given.A_geq], np.concatenate([given.b, given.b_geq]), given.A.m, given.cone)

    @classmethod
    def homogeneous(cls, given: Given, cost: MatrixMap) -> System:
        """``A(X) = 0, <C, X> = -|C|_F, A_geq(X) >= 0``."""
        rhs = np.zeros(given.A.m + 1 + given.A_geq.m)
        rhs[given.A.m] = -1.0
        return cls._scaled([given.A, cost, given.A_geq], rhs, given.A.m + 1, given.cone, given.A.m)

    @classmethod
    def _scaled(cls, maps: list[Any], rhs: np.ndarray, m: int, cone: Cone, keep: int | None = None) -> System:
        n = maps[0].n
        used = [M for M in maps if M.m]
        rows = MatrixMap.stack(used) if used else MatrixMap(sp.csr_array((0, n * n)), n)
        norms = np.sqrt(np.bincount(rows.row_of, np.abs(rows.rows.data) ** 2, rows.m))
        norms[norms == 0] = 1.0
        if keep is not None:
            rhs = rhs * norms  # comes out as given
        beta = float(np.max(np.abs(rhs) / norms, initial=0.0))
        return cls(rows.scaled(1 / norms), rhs / norms / (beta or 1.0), norms, beta, m, cone)

    @property
    def m_all(self) -> int:
        return self.map.m

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(complex if self.map.rows.dtype.kind == "c" else float)

    @cached_property
    def _free_part(self) -> sp.csr_array:
        """m_all x f: coefficients of the free variables."""
        place = np.full(self.map.n, -1)
        place[self.cone.free] = np.arange(len(self.cone.free))
        use = (self.map.i == self.map.j) & (place[self.map.i] >= 0)
        entries = (self.map.rows.data[use].real, (self.map.row_of[use], place[self.map.i[use]]))
        return sp.csr_array(entries, shape=(self.m_all, len(self.cone.free)))

    @cached_property
    def is_psd(self) -> np.ndarray:
        """(n,): rows of X in positive semidefinite blocks."""
        out = np.ones(self.map.n, bool)
        out[self.cone.nonneg] = False
        out[self.cone.free] = False
        return out

    def mask(self, k: int) -> np.ndarray:
        """n x k: places of Y that may move; a nonnegative variable is one square."""
        out = np.zeros((self.map.n, k), bool)
        out[self.is_psd] = True
        out[self.cone.nonneg, 0] = True
        return out

    def values(self, Y: np.ndarray, free: np.ndarray) -> np.ndarray:
        return self.map.apply(Y, Y) + self._free_part @ free

    def residual(self, Y: np.ndarray, free: np.ndarray) -> np.ndarray:
        """``rhs - A(X)``, of inequalities only what is missing."""
        r = self.rhs - self.values(Y, free)
        r[self.m :] = np.maximum(r[self.m :], 0)
        return r

    def jacobian(self, Y: np.ndarray, held: np.ndarray) -> np.ndarray:
        """Derivatives of the rows ``held`` by the real coordinates of Y where it may move, and by the free variables."""
        n, k = Y.shape
        M = self.map.take(held)
        products = sp.csr_array((M.rows.data, (M.row_of * n + M.i, M.j)), shape=(M.m * n, n)) @ Y
        J = 2 * products.reshape(M.m, n, k)[:, self.mask(k)]
        parts = [J.real, J.imag] if np.iscomplexobj(J) else [J]
        return np.concatenate([*parts, self._free_part[held].toarray()], axis=1)


def fit(system: System, max_iter: int = 3000, rng: Any = 0) -> tuple[np.ndarray, np.ndarray]:
    """``(Y, free)`` of least residual, by L-BFGS over a factor wide enough to have no spurious minima (Barvinok-Pataki)."""
    from scipy.optimize import minimize

    n, f = system.map.n, len(system.cone.free)
    largest = max([s.stop - s.start for s in system.cone.psd], default=1)
    k = min(largest, math.isqrt(2 * system.m_all) + 2)
    mask, complex_ = system.mask(k), system.dtype.kind == "c"
    p = int(mask.sum())
    random = np.random.default_rng(rng)
    start = np.concatenate([random.standard_normal(p * (1 + complex_)) * math.sqrt(1 / max(p, 1)), np.zeros(f)])

    def unpack(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        Y = np.zeros((n, k), system.dtype)
        Y[mask] = x[:p] + 1j * x[p : 2 * p] if complex_ else x[:p]
        return Y, x[len(x) - f :]

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        Y, free = unpack(x)
        r = system.residual(Y, free)
        G = -2 * (system.map.matrix(r) @ Y)[mask]
        parts = [G.real, G.imag] if complex_ else [G]
        return 0.5 * float(r @ r), np.concatenate([*parts, -(system._free_part.T @ r)])

    def stop(intermediate_result: Any) -> None:
        if intermediate_result.fun <= 1e-22:
            raise StopIteration

    max_iter = min(max_iter, max(200, int(WORK / (system.map.rows.nnz * k + n * k + 1))))
    options = {"maxiter": max_iter, "maxfun": 2 * max_iter, "maxcor": 20, "ftol": 0.0, "gtol": 1e-13}
    found = minimize(value, start, jac=True, method="L-BFGS-B", callback=stop, options=options)
    return unpack(found.x)


def newton_primal(system: System, Y: np.ndarray, free: np.ndarray, steps: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Shortest Gauss-Newton steps onto ``A(X) = b`` and violated inequalities; the best point met."""
    best, least, held = (Y, free), math.inf, np.arange(system.m_all) < system.m
    for _ in range(steps):
        r = system.residual(Y, free)
        size = float(np.linalg.norm(r))
        if size < least:
            best, least = (Y, free), size
        held = held | (r > 0)
        columns = np.count_nonzero(system.mask(Y.shape[1])) * (1 + np.iscomplexobj(Y)) + len(free)
        if size <= 1e-16 or size > 10 * least or held.sum() * columns > 4 * DENSE:
            break
        target = (system.rhs - system.values(Y, free))[held]
        x = _shortest(system.jacobian(Y, np.flatnonzero(held)), target)
        Y, free = _moved(system, Y, free, x)
    return best


def _shortest(J: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The shortest x of least ``|J x - target|``; from the Gram matrix where J is large."""
    if J.size <= DENSE / 4:
        return np.asarray(np.linalg.lstsq(J, target, rcond=1e-12)[0])
    values, vectors = np.linalg.eigh(J @ J.T)
    keep = values > 1e-14 * values[-1]
    return np.asarray(J.T @ (vectors[:, keep] @ ((vectors[:, keep].T @ target) / values[keep])))


def _moved(system: System, Y: np.ndarray, free: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mask, f = system.mask(Y.shape[1]), len(free)
    p, Y = int(mask.sum()), Y.copy()
    Y[mask] += x[:p] + 1j * x[p : 2 * p] if np.iscomplexobj(Y) else x[:p]
    return Y, free + x[len(x) - f :]


def fits_exactly(system: System, Y: np.ndarray, free: np.ndarray) -> bool:
    """Whether an exact solution is near: ``L |r| <= sigma_min(J)^2 / 8`` on the rows that are held (Newton-Kantorovich).

    ``|A(UU*)|_2 <= |A| |U|^2`` bounds the second derivative by 2 |A|, |A| <= the Frobenius norm of the rows.  Inequalities with room
    are left out if the step to the solution does not reach them.
    """
    if Y.shape[1] == 0 or system.m_all * (Y.size * (1 + np.iscomplexobj(Y)) + len(free)) > DENSE:
        return False
    scale = math.sqrt(max(float(np.linalg.norm(Y)) ** 2, 1e-300))
    off = system.rhs - system.values(Y, free)
    off[system.rhs < 0] = 0.0  # <C, X> = -1 in the caller's units; any negative value will do
    held = (np.arange(system.m_all) < system.m) | (off > -1e-7 * scale**2)
    singular = np.linalg.svd(system.jacobian(Y, np.flatnonzero(held)), compute_uv=False)
    if len(singular) < held.sum() or singular[-1] <= 1e-10 * singular[0]:
        return False
    size, curvature = float(np.linalg.norm(off[held])), 2 * math.sqrt(system.m_all)
    step = 2 * size / singular[-1]
    return bool(curvature * size <= singular[-1] ** 2 / 8 and (-off[~held] > (2 * scale + step) * step).all())


def newton_dual(system: System, v: np.ndarray, kernel: float, steps: int = 8) -> np.ndarray | None:
    """Multipliers near v with ``A*(v) = 0`` on its near-kernel V, ``V* A*(v) V = 0``, 0 on free variables, and ``<rhs, v> = 1``.

    Newton's method for multiple eigenvalues (Overton, Womersley, 1995): quadratic convergence, V being computed anew at every step.
    ``kernel``: eigenvalues up to this, relative to the largest, belong to V.  None where that is too large, or diverges.
    """
    v = v / float(system.rhs @ v)
    fixed = np.zeros(system.m_all, bool)
    fixed[system.m :] = v[system.m :] <= kernel * np.abs(v).max()
    v = np.where(fixed, 0.0, v)
    use, dims, least = np.flatnonzero(~fixed), None, math.inf
    best = None
    for count in range(steps):
        rows, off, now = _kernel_rows(system, v, kernel, dims)
        if rows is None or dims is not None and now != dims:
            break
        dims = now
        size = float(np.abs(off).max(initial=0.0)) / max(np.abs(v).max(), 1e-300)
        if size < least:
            best, least = v, size
        elif count > 2:
            break
        J = np.concatenate([rows[:, use], system.rhs[None, use]])
        target = np.append(-off, 1 - float(system.rhs @ v))
        v = v.copy()
        v[use] += np.linalg.lstsq(J, target, rcond=1e-11)[0]
        v[system.m :] = np.maximum(v[system.m :], 0)
    return best


def _kernel_rows(
    system: System, v: np.ndarray, kernel: float, dims: list[int] | None
) -> tuple[np.ndarray | None, np.ndarray, list[int]]:
    """``(J, J v, dimensions)``: rows of the equations that the kernel of ``A*(v)`` states."""
    S = system.map.matrix(v)
    diagonal, cone = S.diagonal().real, system.cone
    parts, now = [system._free_part.T.toarray()], []
    largest = float(np.abs(S.data).max(initial=0.0))
    near = cone.nonneg[diagonal[cone.nonneg] > -kernel * largest]
    now.append(len(near))
    place = np.full(system.map.n, -1)
    place[near] = np.arange(len(near))
    use = place[system.map.i] >= 0
    entries = (system.map.rows.data[use].real, (place[system.map.i[use]], system.map.row_of[use]))
    parts.append(sp.csr_array(entries, shape=(len(near), system.m_all)).toarray())
    for number, at in enumerate(cone.psd):
        if at.stop - at.start > POLISHED_ROWS:
            return None, np.zeros(0), now
        values, vectors = np.linalg.eigh(S[at, at].toarray())
        d = int(np.sum(values > -kernel * max(np.abs(values).max(), 1e-300))) if dims is None else dims[number + 1]
        now.append(d)
        rows = _compressed(system, at, vectors[:, len(values) - d :])
        if rows is None:
            return None, np.zeros(0), now
        parts.append(rows)
    J = np.concatenate(parts)
    return J, J @ v, now


def _compressed(system: System, at: slice, V: np.ndarray) -> np.ndarray | None:
    """Upper triangle of ``V* A_j V`` for all j, real and imaginary parts one below the other: equations x m_all."""
    M, d = system.map, V.shape[1]
    use = (M.i >= at.start) & (M.i < at.stop)
    i, j, row, value = M.i[use] - at.start, M.j[use] - at.start, M.row_of[use], M.rows.data[use]
    if len(i) * d + system.m_all * d * d > KERNEL:
        return None
    if not d:
        return np.zeros((0, system.m_all))
    # A_j V as an (m_all s) x d array, then V* from the left
    s = at.stop - at.start
    AV = sp.csr_array((value, (row * s + i, j)), shape=(system.m_all * s, s)) @ V
    T = np.einsum("sc,msd->mcd", V.conj(), AV.reshape(system.m_all, s, d), optimize=True)
    upper = np.triu_indices(d)
    T = T[:, upper[0], upper[1]]
    return np.concatenate([T.real, T.imag], axis=1).T if np.iscomplexobj(T) else T.T
