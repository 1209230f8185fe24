"""Clouds up to rotation: the distance, alignment, and data of the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..synchronization.rounding import nearest

GROUPS = ("O", "SO")


class Aligned(NamedTuple):
    """Copies turned onto a cloud, and the rotations that were undone."""

    copies: np.ndarray
    """``Q_i^T Y_i``, (N, d, k)."""
    rotations: np.ndarray
    """Q_i, (N, d, d)."""


def distance(X: Any, Z: Any, group: str = "O", return_Q: bool = False) -> Any:
    """``rho(X, Z) = min_Q |X - Q Z|_F`` over O(d), or over the rotations SO(d).

    Parameters
    ----------
    X, Z : array_like, (d, k)
        The same points in the same order.
    group : {"O", "SO"}
    return_Q : bool

    Returns
    -------
    float, or (float, ndarray (d, d))
        And the Q that attains it. ``|X - QZ|`` is formed: the closed form ``|X|^2 + |Z|^2 - 2 |X Z^T|_*`` loses half of the digits.
    """
    X, Z = as_cloud(X, "X"), as_cloud(Z, "Z")
    if X.shape != Z.shape:
        raise ValueError(f"X has shape {X.shape} and Z {Z.shape}; both must hold the same k points in R^d, as (d, k)")
    check_group(group)
    Q = nearest(X @ Z.T, group == "SO")
    rho = float(np.linalg.norm(X - Q @ Z))
    return (rho, Q) if return_Q else rho


def align(Y: Any, X: Any, group: str = "O") -> Aligned:
    """Turn every copy onto X: ``Q_i = argmin |Y_i - Q X|`` over the group.

    Means nothing where the noise is much larger than X: copies of pure noise come out looking like X ("Einstein from noise").

    Parameters
    ----------
    Y : array_like, (N, d, k)
    X : array_like, (d, k)
    group : {"O", "SO"}

    Cost
    ----
    O(N d^2 (k + d)).
    """
    X = as_cloud(X, "X")
    Y = as_copies(Y, *X.shape)
    check_group(group)
    Q = nearest(Y @ X.T, group == "SO")
    return Aligned(Q.transpose(0, 2, 1) @ Y, Q)


def haar(N: int, d: int, rng: Any = None, group: str = "O") -> np.ndarray:
    """N uniform (Haar) elements of O(d) or SO(d), (N, d, d)."""
    rng = np.random.default_rng(rng)
    check_group(group)
    Q, R = np.linalg.qr(rng.standard_normal((N, d, d)))
    Q *= np.where(np.diagonal(R, axis1=1, axis2=2) < 0, -1.0, 1.0)[:, None, :]  # otherwise QR's own signs, not Haar
    if group == "SO":
        Q[:, :, 0] *= np.where(np.linalg.det(Q) < 0, -1.0, 1.0)[:, None]
    return np.asarray(Q)


def simulate(
    X: Any, sigma: float | np.ndarray, N: int, rng: Any = None, *, group: str = "O", shift: float = 0.0, batch: int | None = None
) -> Any:
    """``Y_i = Q_i X + t_i 1^T + sigma E_i`` with Haar Q_i, Gaussian ``t_i ~ N(0, shift^2 I)`` and E_i of independent N(0, 1) entries.

    Parameters
    ----------
    X : array_like, (d, k)
    sigma : float, or (N,)
    N : int
    rng : Generator or seed
    group : {"O", "SO"}
    shift : float
    batch : int, optional
        Yield batches of at most so many copies, instead of one array.

    Returns
    -------
    ndarray (N, d, k), or an iterator of such
    """
    X = as_cloud(X, "X")
    check_group(group)
    if isinstance(N, bool) or not isinstance(N, (int, np.integer)) or N < 1 or (batch is not None and batch < 1):
        raise ValueError(f"N = {N}, batch = {batch}; positive integers are needed")
    noise = np.asarray(sigma, float)
    if noise.shape not in ((), (N,)) or not (np.isfinite(noise) & (noise >= 0)).all():
        raise ValueError(f"sigma must be one standard deviation or {N}, finite and >= 0; got shape {noise.shape}")
    rng = np.random.default_rng(rng)
    batches = _batches(X, np.broadcast_to(noise, (N,)), rng, group, float(shift), N if batch is None else int(batch))
    return next(batches) if batch is None else batches


def _batches(X: np.ndarray, sigma: np.ndarray, rng: np.random.Generator, group: str, shift: float, batch: int) -> Iterator[np.ndarray]:
    d, k = X.shape
    for start in range(0, len(sigma), batch):
        s = sigma[start : start + batch]
        Y = rng.standard_normal((len(s), d, k))
        Y *= s[:, None, None]
        Y += (haar(len(s), d, rng, group).reshape(-1, d) @ X).reshape(Y.shape)
        if shift:
            Y += shift * rng.standard_normal((len(s), d, 1))
        yield Y


def as_cloud(X: Any, name: str) -> np.ndarray:
    """X as float array (d, k); ValueError with the reason where it is none."""
    X = np.asarray(X)
    if X.ndim != 2 or not X.size:
        raise ValueError(f"{name} has shape {X.shape}; a cloud of k points in R^d is needed, as (d, k)")
    return _real(X, name)


def as_copies(Y: Any, d: int | None = None, k: int | None = None, missing: bool = False) -> np.ndarray:
    """Y as float array (N, d, k) of these d and k where given; ``missing`` allows NaN."""
    Y = np.asarray(Y)
    if Y.ndim == 2 and d and len(Y) % d == 0:
        Y = Y.reshape(-1, d, Y.shape[1])
    if Y.ndim != 3 or not Y.size or d not in (None, Y.shape[1]) or k not in (None, Y.shape[2]):
        wanted = f"(N, {'d' if d is None else d}, {'k' if k is None else k})"
        raise ValueError(f"Y has shape {Y.shape}; N copies of k points in R^d are needed, as {wanted}, or stacked (N d, k) with d given")
    return _real(Y, "Y", missing)


def check_group(group: str) -> None:
    if group not in GROUPS:
        raise ValueError(f'group = {group!r}; it must be "O" (rotations and reflections) or "SO" (rotations)')


def _real(A: np.ndarray, name: str, missing: bool = False) -> np.ndarray:
    if A.dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {A.dtype}; real numbers are needed")
    A = np.asarray(A, float)
    if not missing and not np.isfinite(A).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(A))[0])
        raise ValueError(f'{name}{list(place)} = {A[place]}; every entry must be finite (points missing as NaN: fit(..., mask="nan"))')
    return A
