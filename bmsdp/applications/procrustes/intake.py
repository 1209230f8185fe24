"""What `fit` was given, checked and summed up in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .geometry import as_copies
from .gram import GramAccumulator, GramSketch, Moments, StackedCopies, observed

LARGE, HUGE = 2000, 5000  # points above which copies at hand, or streamed ones, are not summed up as a k x k matrix
CHUNK = 2**22  # numbers of Y that are summed at a time
RESERVE = 5_000_000  # numbers of an iterator's copies kept to tell mirror images apart


@dataclass(frozen=True)
class Intake:
    """The moments, and the copies themselves where they are at hand."""

    moments: Moments
    d: int
    N: int
    center: bool
    sigma: float | None
    """One for all; None where unknown, or subtracted copy by copy."""
    not_for_alignment: str
    """What keeps least squares from being used, in words; empty where nothing does."""
    full: np.ndarray | None
    """All copies, centred where asked for."""
    kept: np.ndarray | None
    """Some of them, for chirality; missing points 0."""
    kept_weights: np.ndarray | None

    @property
    def copies(self) -> np.ndarray:
        assert self.full is not None
        return self.full


def take_in(Y: Any, d: int | None, sigma: Any, center: bool, mask: Any, weights: Any, special: bool) -> Intake:
    """One pass over Y, of any of the forms that `fit` takes."""
    if d is not None and (isinstance(d, bool) or not isinstance(d, (int, np.integer)) or d < 1):
        raise ValueError(f"d = {d!r}; a positive integer is needed")
    if isinstance(mask, str) and mask != "nan":
        raise ValueError(f'mask = {mask!r}; it must be an array of booleans (N, k), or "nan"')
    if isinstance(Y, (GramAccumulator, GramSketch, StackedCopies)):
        if mask is not None or weights is not None or np.ndim(sigma):
            raise ValueError("an accumulator takes mask, weights and sigma of single copies in its update(); leave them None here")
        if center and not Y.center:
            raise ValueError(f"center=True, but {Y!r} was made without it")
        if d not in (None, Y.d):
            raise ValueError(f"d = {d}, but {Y!r} was made for d = {Y.d}")
        return Intake(Y.moments(), Y.d, Y.N, Y.center, _one(sigma, Y.known), "accumulated moments", None, None, None)
    if isinstance(Y, Iterator):
        if np.ndim(sigma) or weights is not None or (mask is not None and not isinstance(mask, str)):
            raise ValueError(
                'an iterator of batches takes no mask, weights or sigma of single copies: mark missing points as NaN and pass mask="nan", '
                "or call update(Y, mask=, weights=, sigma=) of a GramAccumulator"
            )
        return _streamed(Y, d, _one(sigma, None), center, isinstance(mask, str), special)
    return _array(Y, d, sigma, center, mask, weights)


def _one(sigma: Any, known: bool | None) -> float | None:
    """One noise level for all copies, or None."""
    if sigma is None:
        return None
    if known:
        raise ValueError("sigma was given here and for the copies; leave one of them out")
    value = float(sigma)
    if not (np.isfinite(value) and value >= 0):
        raise ValueError(f"sigma = {value}; a standard deviation, finite and >= 0, is needed")
    return value


def accumulator(d: int, k: int, center: bool, missing: bool, at_hand: bool) -> Any:
    """What sums such copies up."""
    if missing or k <= (LARGE if at_hand else HUGE):
        return GramAccumulator(d, k, center=center, missing=missing)
    return StackedCopies(d, k, center=center) if at_hand else GramSketch(d, k, center=center)


def _streamed(batches: Iterable[Any], d: int | None, sigma: float | None, center: bool, missing: bool, special: bool) -> Intake:
    sums, kept, room = None, [], RESERVE if special else 0
    for batch in batches:
        Y = as_copies(batch, d if sums is None else sums.d, None if sums is None else sums.k, missing)
        if sums is None:
            sums = accumulator(Y.shape[1], Y.shape[2], center, missing, at_hand=False)
        sums.update(Y)
        if room > 0:
            few = Y[: max(room // (sums.d * sums.k), 1)]
            kept.append(completed(few, observed(few, None), center) if missing else _centred(few.copy(), center))
            room -= few.size
    if sums is None:
        raise ValueError("the iterator gave no batch; at least one copy is needed")
    reserve = np.concatenate(kept) if kept else None
    return Intake(sums.moments(), sums.d, sums.N, center, sigma, "an iterator of batches", None, reserve, None)


def _array(Y: Any, d: int | None, sigma: Any, center: bool, mask: Any, weights: Any) -> Intake:
    missing = mask is not None
    Y = as_copies(Y, d, None, missing)
    N, d, k = Y.shape
    seen = observed(Y, None if isinstance(mask, str) else mask) if missing else None
    noise = None if np.ndim(sigma) == 0 else np.asarray(sigma, float)
    if noise is not None and noise.shape != (N,):
        raise ValueError(f"sigma has shape {noise.shape}; one number, or one for each of {N} copies, is needed")
    w = weights
    if w is not None and np.shape(w) != (N,):
        raise ValueError(f"weights have shape {np.shape(w)}; one for each of {N} copies is needed")
    if noise is not None and w is None:
        w = optimal_weights(Y if seen is None else completed(Y, seen, False), noise, center)
    sums, step = accumulator(d, k, center, missing, at_hand=True), max(CHUNK // (d * k), 1)
    for start in range(0, N, step):
        rows = slice(start, start + step)
        chosen = {"weights": None if w is None else np.asarray(w)[rows], "sigma": None if noise is None else noise[rows]}
        if seen is not None:
            chosen["mask"] = seen[rows]
        if chosen["weights"] is None or np.any(chosen["weights"]):
            sums.update(Y[rows], **chosen)
    parts = [("missing points", missing), ("weights", w is not None and noise is None), ("unequal noise", noise is not None)]
    full = _centred(Y, center) if seen is None else completed(Y, seen, center)
    bars = ", ".join(name for name, there in parts if there)
    one = _one(sigma, None) if noise is None else None
    return Intake(sums.moments(), d, N, center, one, bars, full, full, None if w is None else np.asarray(w, float))


def optimal_weights(Y: np.ndarray, sigma: np.ndarray, center: bool = False) -> np.ndarray:
    """``1 / (c sigma_i^2 + d sigma_i^4)`` with c the mean of s_j^2: the least variance along the directions between X and its complement.

    Largest weight 1. Copies without noise get as much as those with 1e-8 of the mean of s_j.
    """
    d, k = Y.shape[1], Y.shape[2] - center
    if not (np.isfinite(sigma) & (sigma >= 0)).all():
        raise ValueError("sigma has entries that are negative or not finite; standard deviations are needed")
    square = np.sum(_centred(Y, center) ** 2, axis=(1, 2)) - d * k * sigma**2
    trust = 1 / (sigma**4 + 1e-8 * np.mean(sigma**4) + 1e-300)
    c = max(float(trust @ square) / float(np.sum(trust)), 0.0) / d
    s2 = np.maximum(sigma**2, 1e-16 * c + 1e-300)
    weights = 1 / (c * s2 + d * s2**2)
    return np.asarray(weights / np.max(weights))


def _centred(Y: np.ndarray, center: bool) -> np.ndarray:
    return Y - Y.mean(axis=2, keepdims=True) if center else Y


def completed(Y: np.ndarray, seen: np.ndarray, center: bool) -> np.ndarray:
    """Y with missing points 0, after the mean of those that are there where ``center``."""
    m = seen[:, None, :]
    Y = np.where(m, Y, 0.0)
    if center:
        Y = np.where(m, Y - Y.sum(axis=2, keepdims=True) / np.maximum(m.sum(axis=2, keepdims=True), 1), 0.0)
    return Y
