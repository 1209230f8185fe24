r"""Quasi-Newton updates with many secants at once, as linear algebra on N x m arrays of columns.

`symmetric_multisecant` fits one symmetric H to the secants ``H A = D`` in the sense of least squares, `weighted` one that is also positive
definite, `multisecant` one without symmetry; `SymmetricMultisecant` keeps the pairs.  The idea of a robust symmetric multisecant update is
that of Scieur, Liu, Pumir and Boumal (AISTATS 2021, arXiv:2011.03358); with one secant, exact or in a weighted norm, the updates are those
of Broyden, Powell (PSB), Davidon-Fletcher-Powell and BFGS, with several those of Schnabel (1983) and Anderson (1965).

Complex columns, N x m, are columns of the *real* space ``K^N = R^2N`` with ``<u, v> = Re u* v``: H acts on it, over the reals only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

Map = Callable[[np.ndarray], np.ndarray]

POSITIVE = 1e-8  # eigenvalues of A'D below this part of the largest are no curvature to build on
EPS = float(np.finfo(float).eps)


def _real(V: np.ndarray) -> np.ndarray:
    """(N,) or (N, p) complex as (2N,) or (2N, p) real, real and imaginary parts alternating; real arrays as they are."""
    return np.ascontiguousarray(V.T).view(float).T if np.iscomplexobj(V) else np.asarray(V, float)


def _act(apply: Map, size: int, V: Any) -> np.ndarray:
    """Let a real map on R^size act on the columns of V, complex ones through `_real`."""
    V = np.asarray(V)
    complex_ = np.iscomplexobj(V)
    if V.ndim not in (1, 2) or len(V) * (1 + complex_) != size:
        needed = f"{size} real" + (f" or {size // 2} complex" if size % 2 == 0 else "")
        raise ValueError(f"V has shape {V.shape}, {V.dtype}; a vector, or columns, of {needed} numbers are needed")
    W = apply(_real(V))
    return np.ascontiguousarray(W.T).view(complex).T if complex_ else W


def _pairs(A: Any, D: Any, reg: float, rcond: float) -> tuple[np.ndarray, np.ndarray]:
    """The secants as two real N x m arrays; one vector is one column."""
    A, D = np.asarray(A), np.asarray(D)
    if A.shape != D.shape or A.ndim not in (1, 2):
        raise ValueError(f"A has shape {A.shape} and D {D.shape}; two N x m arrays of equal shape are needed, a column for each secant")
    if A.ndim == 1:
        A, D = A[:, None], D[:, None]
    if np.iscomplexobj(A) != np.iscomplexobj(D):
        A, D = A.astype(complex), D.astype(complex)
    A, D = _real(A), _real(D)
    for name, array in (("A", A), ("D", D)):
        if not np.isfinite(array).all():
            raise ValueError(
                f"{name} has entries that are not finite in column {np.nonzero(~np.isfinite(array))[1][0]}; leave that pair out"
            )
    if not 0 <= reg < np.inf:
        raise ValueError(f"reg = {reg}; a finite number >= 0 is needed (0: the limit of vanishing regularisation)")
    if not 0 <= rcond < 1:
        raise ValueError(f"rcond = {rcond}; a number in [0, 1) is needed (1e-10 is the default)")
    return A, D


def _number(name: str, value: Any, positive: bool = False) -> float:
    if isinstance(value, str) or callable(value) or not np.isfinite(value) or (positive and value <= 0):
        raise ValueError(f"{name} = {value}; a finite number{' > 0' if positive else ''} is needed")
    return float(value)


@dataclass(frozen=True)
class Factored:
    """The symmetric ``H = theta (I - Q Q') + Q T Q'``: eigenvalues are those of T, and theta on the complement of Q.

    Attributes
    ----------
    theta : float
    Q : ndarray, N x q, orthonormal columns
    T : ndarray, q x q, symmetric
    """

    theta: float
    Q: np.ndarray
    T: np.ndarray

    @cached_property
    def _eigh(self) -> tuple[np.ndarray, np.ndarray]:
        lam, E = np.linalg.eigh(self.T)
        return lam, E

    @property
    def eigenvalues(self) -> np.ndarray:
        """(q,) ascending: those of T; the other N - q are theta.  O(q^3), once."""
        return self._eigh[0]

    def mul(self, V: np.ndarray) -> np.ndarray:
        """H V for V of shape (N,) or (N, p); O(N q p)."""
        correction = self.T - self.theta * np.eye(len(self.T))
        return _act(lambda W: self.theta * W + self.Q @ (correction @ (self.Q.T @ W)), len(self.Q), V)

    def solve(self, V: np.ndarray, shift: float = 0.0) -> np.ndarray:
        """``(H + shift I)^-1 V``; O(N q p) and, once, O(q^3).

        Raises
        ------
        numpy.linalg.LinAlgError
            If an eigenvalue of H + shift I is zero up to rounding.
        """
        lam, E = self._eigh
        spectrum = np.append(lam, self.theta) if len(lam) < len(self.Q) else lam
        smallest, largest = np.abs(spectrum + shift).min(initial=np.inf), np.abs(spectrum).max(initial=0)
        if smallest <= len(spectrum) * EPS * max(largest, abs(shift)):
            raise np.linalg.LinAlgError(
                f"H + {shift} I is singular: its smallest eigenvalue is {smallest:.1e}, the largest of H {largest:.1e}; "
                "clip(low, high) the eigenvalues before, or pass another shift"
            )
        outside = 1 / (self.theta + shift) if len(lam) < len(self.Q) else 0.0
        inverse = (E * (1 / (lam + shift) - outside)) @ E.T
        return _act(lambda W: outside * W + self.Q @ (inverse @ (self.Q.T @ W)), len(self.Q), V)

    def clip(self, low: float, high: float = np.inf) -> Factored:
        """The nearest symmetric matrix, in any unitarily invariant norm, with eigenvalues (theta among them) in [low, high]; O(q^3)."""
        if not low <= high:
            raise ValueError(f"low = {low} and high = {high}; low <= high is needed")
        return self._spectral(lambda lam: np.clip(lam, low, high))

    def absolute(self) -> Factored:
        """|H|, eigenvalues replaced by their absolute values; O(q^3)."""
        return self._spectral(np.abs)

    def _spectral(self, function: Map) -> Factored:
        lam, E = self._eigh
        return Factored(float(function(np.asarray(self.theta))), self.Q, (E * function(lam)) @ E.T)

    def dense(self) -> np.ndarray:
        """H as an N x N array (2N x 2N for complex columns, real and imaginary parts alternating)."""
        return self.mul(np.eye(len(self.Q)))


def symmetric_multisecant(A: np.ndarray, D: np.ndarray, theta: float = 1.0, reg: float = 0.0, rcond: float = 1e-10) -> Factored:
    r"""``argmin_{H = H'} |H A - D|_F^2 + reg / 2 |H - theta I|_F^2``, the symmetric multisecant update of theta I.

    The normal equation ``H AA' + AA' H + reg H = DA' + AD' + reg theta I`` in the singular basis of A (Higham, 1988, "The symmetric
    Procrustes problem", BIT 28), as a correction of theta I of rank at most 2 m; H need not be definite.

    Parameters
    ----------
    A, D : ndarray, N x m (or N: one secant), real or complex
        Secants ``H A = D``: (S, Y), steps and gradient differences, for the Hessian (type I); (Y, S) for its inverse (type II).
    theta : float
        Of any sign.
    reg : float
        Absolute, in units of ``|A|^2``; ``1e-10 |A|_2^2`` to ``1e-6 |A|_2^2`` keep nearly dependent secants harmless, since
        ``|H - theta I|_F <= |D - theta A|_F / sqrt(2 reg)``.  0 is the limit, the solution closest to theta I.
    rcond : float
        Singular values of A below this part of the largest count as zero.

    Returns
    -------
    Factored

    Raises
    ------
    ValueError
        For shapes that differ and entries that are not finite.

    Notes
    -----
    O(N m^2 + m^3).
    """
    A, D = _pairs(A, D, reg, rcond)
    theta = _number("theta", theta)
    V, s, Ut, size = singular_basis(A, rcond)
    weight = reg / size / size if size else 0.0
    RU = (D / size if size else D) @ Ut.T - theta * (V * s)  # (D - theta A) U, in units of |A|
    M = V.T @ RU
    N1 = (M * s + (M * s).T) / (s[:, None] ** 2 + s**2 + weight)
    Q2, R2 = _outside(V, RU * (s / (s**2 + weight)))
    r, q = len(s), len(s) + len(R2)
    T = theta * np.eye(q)
    T[:r, :r] += N1
    T[r:, :r], T[:r, r:] = R2, R2.T
    return Factored(theta, np.hstack([V, Q2]), T)


def singular_basis(A: np.ndarray, rcond: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """V, s, U', size with ``A = size V diag(s) U'``, s[0] = 1, the part that counts."""
    peak = float(np.abs(A).max(initial=0))  # so that no square under- or overflows
    if peak == 0:
        return A[:, :0], np.empty(0), np.empty((0, A.shape[1])), 0.0
    V, s, Ut = np.linalg.svd(A / peak, full_matrices=False)
    r = int(np.sum(s > max(rcond, EPS) * s[0]))
    return V[:, :r], s[:r] / s[0], Ut[:r], peak * float(s[0])


def _outside(V: np.ndarray, E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(I - V V') E = Q2 R2``, Q2 orthonormal, orthogonal to V, R2 of full rank; what rounding may have left of E is dropped."""
    lost = 4 * EPS * np.sqrt(E.size) * float(np.abs(E).max(initial=0))
    for _ in range(2):
        E = E - V @ (V.T @ E)
    Q2, e, Wt = np.linalg.svd(E, full_matrices=False)
    q = min(int(np.sum(e > lost)), V.shape[0] - V.shape[1])
    Q2, R = np.linalg.qr(Q2[:, :q] - V @ (V.T @ Q2[:, :q]))  # where E is small, it is not orthogonal to V
    return Q2, R @ (e[:q, None] * Wt[:q])


@dataclass(frozen=True)
class Weighted:
    """Block BFGS: ``H = D D' + (I - D A') H0 (I - A D')`` with ``D'A = I``, symmetric positive definite; H A = D.

    Attributes
    ----------
    A, D : ndarray, N x r
    theta : float
        H0 = theta I, unless there is a base.
    base : callable, optional
        ``V -> H0 V`` for real (N, p), symmetric positive definite.
    discarded : int
        Secants less r: dependent ones, and dimensions without positive curvature.
    """

    A: np.ndarray
    D: np.ndarray
    theta: float = 1.0
    base: Map | None = None
    discarded: int = 0

    def mul(self, V: np.ndarray) -> np.ndarray:
        """H V for V of shape (N,) or (N, p); O(N r p) and one application of H0."""
        return _act(self._mul, len(self.A), V)

    def _mul(self, V: np.ndarray) -> np.ndarray:
        DV = self.D.T @ V
        W = V - self.A @ DV
        W = self.theta * W if self.base is None else self.base(W.reshape(len(W), -1)).reshape(W.shape)
        return W + self.D @ (DV - self.A.T @ W)

    def solve(self, V: np.ndarray, shift: float = 0.0) -> np.ndarray:
        """``(H + shift I)^-1 V``; O(N r p), for H0 = theta I only."""
        if shift:
            return self.factored.solve(V, shift)
        self._scalar("solve")
        Q = self._range
        return _act(lambda W: (W - Q @ (Q.T @ W)) / self.theta + self.A @ (self.A.T @ W), len(self.A), V)

    def _scalar(self, what: str) -> None:
        if self.base is not None:
            raise ValueError(f"{what} needs H0 = theta I, and a callable base is given; pass theta instead of base, or solve H x = v by CG")

    @cached_property
    def _range(self) -> np.ndarray:
        return np.linalg.qr(self.D)[0]

    @cached_property
    def factored(self) -> Factored:
        """H in the form of `symmetric_multisecant`, for H0 = theta I only; O(N r^2)."""
        self._scalar("factored")
        Q = np.hstack([self._range, _outside(self._range, self.A)[0]])
        T = Q.T @ self._mul(Q)
        return Factored(self.theta, Q, (T + T.T) / 2)

    @property
    def eigenvalues(self) -> np.ndarray:
        """Ascending: those that are not theta, at most 2 r; for H0 = theta I only."""
        return self.factored.eigenvalues

    def dense(self) -> np.ndarray:
        """H as an N x N array (2N x 2N for complex columns)."""
        return self.mul(np.eye(len(self.A)))


def weighted(A: np.ndarray, D: np.ndarray, theta: float = 1.0, base: Map | None = None, reg: float = 0.0, rcond: float = 1e-10) -> Weighted:
    r"""Block BFGS of secants made consistent: symmetric positive definite for any A, D.

    With H* the `symmetric_multisecant` of the data, ``D~ = H* A`` has a symmetric ``A'D~``, and on its positive eigenspace there is the
    block BFGS update (Schnabel, 1983) of H0, which maps A to D~.  Consistent data, ``A'D`` symmetric positive definite, are left as they
    are.  (A, D) = (Y, S) is BFGS for the inverse Hessian, (S, Y) DFP for the Hessian.

    Parameters
    ----------
    A, D, theta, reg, rcond
        As for `symmetric_multisecant`; theta > 0.  Scale the pairs so that the columns of A have length 1: long ones count more.
    base : callable, optional
        ``V -> H0 V`` for real (N, p) (complex columns: 2N real numbers), symmetric positive definite; theta I by default.

    Returns
    -------
    Weighted

    Raises
    ------
    ValueError
        As `symmetric_multisecant`, and for theta <= 0.

    Notes
    -----
    O(N m^2 + m^3).
    """
    theta = _number("theta", theta, positive=True)
    H = symmetric_multisecant(A, D, theta, reg, rcond)
    columns = _pairs(A, D, reg, rcond)[0]
    V, s, _, size = singular_basis(columns, rcond)
    r = len(s)
    g, E = np.linalg.eigh(s[:, None] * H.T[:r, :r] * s)  # A'D~ in the basis U, in units of |A|^2
    positive = g > POSITIVE * np.abs(g).max(initial=0)
    E = (s[:, None] * E[:, positive]) / np.sqrt(g[positive])
    return Weighted(V @ E, H.Q @ (H.T[:, :r] @ E), theta, base, columns.shape[1] - int(positive.sum()))


@dataclass(frozen=True)
class LowRank:
    """``H = theta I + L R'``, L and R of shape N x r."""

    theta: float
    L: np.ndarray
    R: np.ndarray

    def mul(self, V: np.ndarray) -> np.ndarray:
        """H V for V of shape (N,) or (N, p); O(N r p)."""
        return _act(lambda W: self.theta * W + self.L @ (self.R.T @ W), len(self.L), V)

    def solve(self, V: np.ndarray) -> np.ndarray:
        """``H^-1 V`` (Sherman, Morrison, Woodbury); theta != 0, else, and if H is singular, numpy.linalg.LinAlgError."""
        if self.theta == 0:
            raise np.linalg.LinAlgError("H has no inverse: theta = 0; pass another theta")
        core = self.theta * np.eye(self.L.shape[1]) + self.R.T @ self.L
        return _act(lambda W: (W - self.L @ np.linalg.solve(core, self.R.T @ W)) / self.theta, len(self.L), V)

    def dense(self) -> np.ndarray:
        """H as an N x N array (2N x 2N for complex columns)."""
        return self.mul(np.eye(len(self.L)))


def multisecant(A: np.ndarray, D: np.ndarray, theta: float = 1.0, reg: float = 0.0, rcond: float = 1e-10) -> LowRank:
    r"""``argmin_H |H A - D|_F^2 + reg / 2 |H - theta I|_F^2`` without symmetry: ``theta I + (D - theta A) (A'A + reg / 2)^-1 A'``.

    One secant: Broyden's updates; several, with (A, D) = (differences of residuals, of iterates): Anderson (1965) with mixing theta
    (Fang and Saad, 2009).  Parameters, errors and cost as for `symmetric_multisecant`.
    """
    A, D = _pairs(A, D, reg, rcond)
    theta = _number("theta", theta)
    V, s, Ut, size = singular_basis(A, rcond)
    weight = reg / 2 / size / size if size else 0.0
    L = ((D / size if size else D) @ Ut.T - theta * (V * s)) * (s / (s**2 + weight))
    return LowRank(theta, L, V)
