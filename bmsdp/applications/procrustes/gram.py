r"""One pass over copies: their mean Gram matrix in O(k^2) memory, or its sketch in O(k p); both merge by ``+``.

``M = (1/N) sum_i Y_i^T Y_i`` has ``E M = X^T X + d sigma^2 I`` whatever the law of the Q_i. Weighted, missing and shifted copies change
what is summed, never this form:

- weights: ``sum_i w_i Y_i^T Y_i / sum_i w_i``, less ``d sigma_i^2`` on the diagonal where the noise of each copy is given;
- missing points, observed where ``m_ia = 1``: each entry is the mean over the copies that hold both of its points;
- shifts t_i: Y_i less its mean over points, then ``C^T M C`` for an orthonormal basis C (k, k - 1) of the complement of the ones, where
  the model holds with k - 1 points;
- both: ``D_ab``, the mean of ``|y_a - y_b|^2`` over copies that hold both, is ``|x_a - x_b|^2 + 2 d sigma^2`` off the diagonal, so that
  ``-1/2 C^T D C`` has the mean ``C^T X^T X C + d sigma^2 I``.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from .geometry import as_copies


@dataclass(frozen=True)
class Moments:
    """What the estimator needs: a matrix (k', k') of mean ``G + level I``, or its action on a sketch."""

    matrix: np.ndarray | None
    """M; None for a sketch."""
    trace: float
    basis: np.ndarray | None
    """C (k, k'), or None for k' = k without a change of basis."""
    inverse_count: float
    """1/N; ``sum w^2 / (sum w)^2`` of weights."""
    debiased: bool
    """Whether ``d sigma_i^2`` is subtracted already."""
    noise2: float
    noise4: float
    """``sum w^2 sigma_i^2 / (sum w)^2`` and with sigma_i^4; 0 where the noise is not given."""
    observed: float = 1.0
    """Harmonic mean over entries of the share of copies that hold both points."""
    sketch: tuple[np.ndarray, np.ndarray] | None = None
    """``(M Omega, Omega)``, both (k, p)."""
    stack: np.ndarray | None = None
    """F with ``F^T F = M + level I`` for the ``level`` below, (rows, k)."""
    level: float = 0.0
    k: int = 0
    """k', the dimension that M acts on."""


def complement_of_ones(k: int) -> np.ndarray:
    """C (k, k - 1): ``C^T C = I``, ``C^T 1 = 0``, Helmert's basis."""
    j = np.arange(1, k)
    C = np.triu(np.ones((k, k - 1)))
    C[j, j - 1] = -j
    return C / np.sqrt(j * (j + 1.0))


class _Sums:
    """Counts and weights, common to both accumulators."""

    d: int
    k: int
    center: bool

    def __init__(self, d: int, k: int, center: bool):
        if d < 1 or k < 1 + center:
            raise ValueError(f"d = {d}, k = {k}; at least one dimension and {1 + center} points are needed")
        self.d, self.k, self.center = int(d), int(k), bool(center)
        self.N = 0
        self.squares = 0.0  # |Y|^2
        self.weights = np.zeros(4)  # sums of w, w^2, w^2 sigma^2, w^2 sigma^4
        self.known: bool | None = None  # whether copies came with their noise
        self.parts: tuple[np.ndarray, ...] = ()

    def _state(self) -> tuple[Any, ...]:
        return (type(self), self.d, self.k, self.center)

    def merge(self, other: Any) -> Any:
        """Add what another has seen, in place; ValueError where it is of another kind. The other is left as it is."""
        if not isinstance(other, _Sums) or self._state() != other._state():
            raise ValueError(f"only accumulators with equal settings merge; got {self!r} and {other!r}")
        self._agree(other.known)
        self.N += other.N
        self.squares += other.squares
        self.weights = self.weights + other.weights
        for mine, theirs in zip(self.parts, other.parts, strict=True):
            mine += theirs
        return self

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, _Sums):
            return NotImplemented
        out = copy.copy(self)
        out.weights, out.parts = self.weights.copy(), tuple(part.copy() for part in self.parts)
        return out.merge(other)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(d={self.d}, k={self.k}, center={self.center}; {self.N} copies)"

    def _agree(self, known: bool | None) -> None:
        if known is not None and self.known is not None and known != self.known:
            raise ValueError("some copies came with their noise sigma and some without; pass it for all, or for none")
        self.known = self.known if known is None else known

    def _weigh(self, n: int, weights: Any, sigma: Any) -> tuple[np.ndarray, np.ndarray]:
        """Checked weights and noise levels, (n,) each; adds them up."""
        w = _levels(weights, n, "weights", 1.0)
        if not (w > 0).any():
            raise ValueError("all weights are 0; leave such a batch out")
        s = _levels(sigma, n, "sigma", 0.0)
        self._agree(sigma is not None)
        self.N += n
        self.weights = self.weights + [np.sum(w), np.sum(w**2), np.sum(w**2 * s**2), np.sum(w**2 * s**4)]
        return w, s

    def _moments(self, **parts: Any) -> Moments:
        if not self.N:
            raise ValueError("no copies were seen; update(Y) first")
        total, *others = self.weights
        inverse, noise2, noise4 = (float(value / total**2) for value in others)
        k = self.k - self.center
        return Moments(inverse_count=inverse, debiased=bool(self.known), noise2=noise2, noise4=noise4, k=k, **parts)


class GramAccumulator(_Sums):
    """The mean Gram matrix of copies that come in batches, in O(k^2) memory.

    Parameters
    ----------
    d, k : int
        Copies are (d, k).
    center : bool
        Copies are shifted by unknown translations.
    missing : bool
        Points may be missing: `update` takes ``mask``, and NaN counts as missing. Twice the memory, three times with ``center``.

    Examples
    --------
    >>> import numpy as np
    >>> from bmsdp.applications import procrustes
    >>> X, rng = np.eye(2, 5), np.random.default_rng(0)
    >>> first, second = (procrustes.GramAccumulator(2, 5).update(procrustes.simulate(X, 0.1, 500, rng)) for _ in range(2))
    >>> procrustes.fit(first + second).N
    1000
    """

    def __init__(self, d: int, k: int, *, center: bool = False, missing: bool = False):
        super().__init__(d, k, center)
        self.missing = bool(missing)
        self.parts = tuple(np.zeros((k, k)) for _ in range(1 + missing + (missing and center)))
        self.parts += (np.zeros((k, k) if missing else ()),)  # of d sigma_i^2

    def _state(self) -> tuple[Any, ...]:
        return (*super()._state(), self.missing)

    def update(self, Y: Any, *, mask: Any = None, weights: Any = None, sigma: Any = None) -> GramAccumulator:
        """Take in copies (n, d, k); returns itself.

        Parameters
        ----------
        Y : array_like, (n, d, k)
        mask : array_like of bool, (n, k), optional
            False where a point is missing; its coordinates are not read.
        weights : float or array_like, (n,), optional
        sigma : float or array_like, (n,), optional
            Standard deviation of the noise of each copy, if it is known and unequal.

        Cost
        ----
        ``n d k^2`` multiply-adds (one triangle).
        """
        if not self.missing:
            if mask is not None:
                raise ValueError("mask was given, but this accumulator expects none; make it with missing=True")
            Y = as_copies(Y, self.d, self.k)
            w, s = self._weigh(len(Y), weights, sigma)
            self._add(Y, w, s, plain=weights is None)
            return self
        Y = as_copies(Y, self.d, self.k, missing=True)
        seen = observed(Y, mask)
        w, s = self._weigh(len(Y), weights, sigma)
        self._add_observed(np.where(seen[:, None, :], Y, 0.0), seen, w, s)
        return self

    def _add(self, Y: np.ndarray, w: np.ndarray, s: np.ndarray, plain: bool) -> None:
        if self.center:
            Y = Y - Y.mean(axis=2, keepdims=True)
        if not plain:
            Y = Y * np.sqrt(w)[:, None, None]
        total, noise = self.parts
        total += syrk(Y.reshape(-1, self.k))
        noise += self.d * np.sum(w * s**2)

    def _add_observed(self, Y: np.ndarray, seen: np.ndarray, w: np.ndarray, s: np.ndarray) -> None:
        """One gemm each for products, counts, squared lengths and noise, over the copies that hold both points of an entry."""
        cross, count, *lengths, noise = self.parts
        m = seen.astype(float)
        wm = w[:, None] * m
        if self.center:  # any point will do as origin; the mean of those at hand keeps digits
            mean = Y.sum(axis=2) / np.maximum(m.sum(axis=1), 1)[:, None]
            Y = (Y - mean[:, :, None]) * m[:, None, :]
            lengths[0] += (w[:, None] * np.sum(Y**2, axis=1)).T @ m
        cross += (Y * w[:, None, None]).reshape(-1, self.k).T @ Y.reshape(-1, self.k)
        count += wm.T @ m
        noise += (wm * (self.d * s**2)[:, None]).T @ m

    def moments(self) -> Moments:
        """The mean, its change of basis, and effective counts; ValueError where a pair of points was never seen together."""
        C = complement_of_ones(self.k) if self.center else None
        if not self.missing:
            total, noise = self.parts
            M = (total + total.T) / (2 * self.weights[0]) if self.N else total
            share, level = 1.0, np.eye(self.k) * (noise / max(self.weights[0], 1e-300))
        else:
            M, level, share = self._pairwise()
        M = M - level
        if C is not None:
            M = C.T @ M @ C
        return self._moments(matrix=(M + M.T) / 2, trace=float(np.trace(M)), basis=C, observed=share)

    def _pairwise(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Entry by entry: M (or ``-D/2``), what the given noise adds to it, and the share of entries seen."""
        cross, count, *lengths, noise = self.parts
        blind, never = np.flatnonzero(np.diag(count) <= 0), np.argwhere(np.triu(count <= 0))
        if len(never) and self.N:
            a, b = (int(i) for i in never[0])
            what = f"point {blind[0]} was never seen" if len(blind) else f"points {a} and {b} were never seen together"
            more = f" (nor were {len(never) - 1} other pairs)" if len(never) > 1 and not len(blind) else ""
            raise ValueError(f"{what}{more}: that entry of the Gram matrix is unknown; drop points, or add copies that hold both")
        count = np.where(count > 0, count, 1.0)
        share = 1 / float(np.mean(max(self.weights[0], 1e-300) / count))
        if not self.center:
            return cross / count, np.diag(np.diag(noise / count)), share
        D = (lengths[0] + lengths[0].T - cross - cross.T) / count
        np.fill_diagonal(D, 0)
        level = -noise / count
        np.fill_diagonal(level, 0)
        return -D / 2, level, share


class StackedCopies(_Sums):
    """Copies at hand, kept as they are: for a truncated SVD instead of a k x k matrix. No missing points."""

    def __init__(self, d: int, k: int, *, center: bool = False):
        super().__init__(d, k, center)
        self.rows: list[np.ndarray] = []
        self.noise = 0.0

    def update(self, Y: Any, *, weights: Any = None, sigma: Any = None) -> StackedCopies:
        """Take in copies (n, d, k); returns itself."""
        Y = as_copies(Y, self.d, self.k)
        w, s = self._weigh(len(Y), weights, sigma)
        Y = Y - Y.mean(axis=2, keepdims=True) if self.center else Y
        self.rows.append((Y if weights is None else Y * np.sqrt(w)[:, None, None]).reshape(-1, self.k))
        self.noise += self.d * float(np.sum(w * s**2))
        return self

    def moments(self) -> Moments:
        F = (self.rows[0] if len(self.rows) == 1 else np.concatenate(self.rows)) / np.sqrt(self.weights[0])
        level = self.noise / self.weights[0]
        trace = float(np.vdot(F, F)) - level * (self.k - self.center)
        return self._moments(matrix=None, trace=trace, basis=None, stack=F, level=level)


class GramSketch(_Sums):
    """``M Omega`` for a Gaussian Omega (k, p), in O(k p) memory: for clouds whose k x k Gram matrix is too large.

    M is a spike of rank d above a flat floor, so ``(M - d sigma^2 I) Omega`` spans the row space of X as well, with the sigma^4 part of the
    error ``1 + k / p`` times as large: exact without noise, as good in low noise, dearer in high. Linear in the data: batches merge. No
    missing points.

    Parameters
    ----------
    d, k : int
    center : bool
    size : int, optional
        p; by default ``2^23 / k``, 10 d + 20 at least, and k at most.
    rng : Generator or seed
        Of Omega: only sketches with the same one merge.
    """

    def __init__(self, d: int, k: int, *, center: bool = False, size: int | None = None, rng: Any = 0):
        super().__init__(d, k, center)
        p = min(max(10 * d + 20, 2**23 // k) if size is None else int(size), k)
        if p <= d:
            raise ValueError(f"size = {size}; more than d = {d} columns are needed")
        self.omega = np.random.default_rng(rng).standard_normal((k, p))
        if center:
            self.omega -= self.omega.mean(axis=0)
        self.parts = (np.zeros((k, p)), np.zeros(()))

    def _state(self) -> tuple[Any, ...]:
        return (*super()._state(), self.omega.shape, self.omega.tobytes())

    def update(self, Y: Any, *, weights: Any = None, sigma: Any = None) -> GramSketch:
        """Take in copies (n, d, k); returns itself. ``2 n d k p`` multiply-adds."""
        Y = as_copies(Y, self.d, self.k)
        w, s = self._weigh(len(Y), weights, sigma)
        if self.center:
            Y = Y - Y.mean(axis=2, keepdims=True)
        F = (Y if weights is None else Y * np.sqrt(w)[:, None, None]).reshape(-1, self.k)
        self.squares += float(np.vdot(F, F))
        total, noise = self.parts
        total += F.T @ (F @ self.omega)
        noise += self.d * np.sum(w * s**2)
        return self

    def moments(self) -> Moments:
        total, noise = self.parts
        weight = max(self.weights[0], 1e-300)
        level = float(noise) / weight
        S = total / weight - level * self.omega  # C^T omega stands for Omega where there are shifts
        trace = self.squares / weight - level * (self.k - self.center)
        return self._moments(matrix=None, trace=trace, basis=None, sketch=(S, self.omega))


def syrk(F: np.ndarray) -> np.ndarray:
    """``F^T F`` of a C-contiguous F (n, k), by the BLAS routine that forms one triangle."""
    from scipy.linalg.blas import dsyrk

    upper = np.asarray(dsyrk(1.0, np.ascontiguousarray(F).T))
    out = np.triu(upper) + np.triu(upper, 1).T
    return np.ascontiguousarray(out)


def observed(Y: np.ndarray, mask: Any) -> np.ndarray:
    """Which points of which copies are there, bool (n, k): where mask says so, and no coordinate is NaN."""
    n, _, k = Y.shape
    there = ~np.isnan(Y).any(axis=1)
    if mask is None:
        seen = there
    else:
        mask = np.asarray(mask)
        if mask.shape != (n, k) or not np.isin(mask, (0, 1)).all():
            raise ValueError(f"mask has shape {mask.shape}; booleans of shape ({n}, {k}) are needed, False where a point is missing")
        seen = mask.astype(bool)
        if (seen & ~there).any():
            i, a = (int(v) for v in np.argwhere(seen & ~there)[0])
            raise ValueError(f'point {a} of copy {i} is NaN, but mask says it was seen; correct the mask, or pass mask="nan"')
    if np.isinf(np.where(seen[:, None, :], Y, 0.0)).any():
        raise ValueError("Y has infinite entries; every coordinate must be finite, or missing (NaN)")
    return np.asarray(seen)


def _levels(values: Any, n: int, name: str, default: float) -> np.ndarray:
    if values is None:
        return np.full(n, default)
    out = np.asarray(values, float)
    if out.shape not in ((), (n,)) or not (np.isfinite(out) & (out >= 0)).all():
        raise ValueError(f"{name} has shape {out.shape}; one number or {n}, finite and >= 0, are needed")
    return np.broadcast_to(out, (n,)).astype(float)
