"""`fit`: which estimator, what it finds, and what is to be thought of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...result import Certificate
from ..synchronization.rounding import nearest
from .alignment import Alignment, least_squares
from .chirality import chirality
from .geometry import as_copies
from .gram import observed
from .intake import Intake, completed, take_in
from .risk import dimension, floor_of, limit_of, mse
from .spectrum import Spectrum, spectrum

METHODS = ("gram", "sync", "auto")
SDP_ROWS = 3000  # N d up to which "auto" tries the relaxation
SURE = 3.0  # z-score from which a mirror image counts as excluded


@dataclass(frozen=True)
class ProcrustesFit:
    """A cloud from its copies, and how good it is to be expected; see `fit`."""

    X: np.ndarray = field(repr=False)
    """(d, k), up to a rotation (a reflection too, unless ``special``); with ``center`` each row has mean 0."""
    method: str
    """"gram" or "sync"."""
    why: str
    N: int
    sigma2: float
    """Noise variance: as given, else estimated without bias (mean over copies where it was given for each)."""
    eigenvalues: np.ndarray = field(repr=False)
    """Of the mean Gram matrix, descending; for large k the first d + 1 or so."""
    noise_edge: float
    """Where eigenvalues of noise end, at a level of 1 %, for the first that is not detected."""
    detected_rank: int
    """Directions of X above it, at most d."""
    expected_mse: float
    """``E rho(X, X_hat)^2`` to leading order in 1/N at the estimate; inf where a direction is lost in the noise.

    A quarter too small for shifts and missing points together.
    """
    alignment_limit: float
    """N*: beyond, alignment would be worse than the Gram matrix."""
    warnings: tuple[str, ...]
    special: bool
    center: bool
    chirality_zscore: float | None
    """How surely X is not its mirror image; None unless ``special``."""
    alignment: Alignment | None = field(repr=False, default=None)
    """What the relaxation found, where it was solved."""

    @property
    def gram(self) -> np.ndarray:
        """``X^T X``, (k, k)."""
        return self.X.T @ self.X

    @property
    def sigma(self) -> float:
        return float(np.sqrt(self.sigma2))

    @property
    def eigengap(self) -> float:
        """``lambda_d / lambda_{d+1}``; inf without noise or for k = d."""
        d = len(self.X)
        below = float(self.eigenvalues[d]) if len(self.eigenvalues) > d else 0.0
        return float(self.eigenvalues[d - 1]) / below if below > 0 else np.inf

    @property
    def certificate(self) -> Certificate | None:
        """Of the relaxation, where it was solved."""
        return None if self.alignment is None else self.alignment.result.certificate

    def rotations(self, Y: Any) -> np.ndarray:
        """The rotations Q_i (N, d, d) that bring X nearest to copies Y (N, d, k), over the points that are not missing (NaN)."""
        return self._turned(Y)[0]

    def transform(self, Y: Any) -> np.ndarray:
        """Copies Y (N, d, k) turned onto X, and shifted where ``center``; NaN stays NaN. Not to be averaged in high noise."""
        return self._turned(Y)[1]

    def _turned(self, Y: Any) -> tuple[np.ndarray, np.ndarray]:
        """``Q_i`` and ``Q_i^T (Y_i - t_i 1^T)``."""
        d, k = self.X.shape
        Y = as_copies(Y, d, k, missing=True)
        seen = observed(Y, None)
        Z = completed(Y, seen, self.center)  # sums to 0 where centred: X need not be
        Q = nearest(Z @ self.X.T, self.special)
        out = Q.transpose(0, 2, 1) @ Z
        if self.center:
            out += ((seen @ self.X.T) / np.maximum(seen.sum(axis=1), 1)[:, None])[:, :, None]
        return Q, np.where(seen[:, None, :], out, np.nan)

    def __str__(self) -> str:
        size = float(np.linalg.norm(self.X))
        lines = [
            f"{self.X.shape[1]} points in R^{len(self.X)} from {self.N} copies by {self.method} ({self.why})",
            f"sigma {self.sigma:.4g}, |X| {size:.4g}, expected distance {np.sqrt(self.expected_mse):.3g}, "
            f"rank {self.detected_rank} detected, lambda_d / lambda_(d+1) = {self.eigengap:.3g}",
        ]
        if self.alignment is not None:
            proof = self.alignment
            lines.append(f"relaxation: rank {proof.rank}, {proof.gap:.1e} below its bound{', tight' if proof.is_tight else ''}")
        if self.chirality_zscore is not None:
            lines.append(f"mirror image excluded with z = {self.chirality_zscore:.2g}")
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])


def fit(
    Y: Any, method: str = "auto", *, d: int | None = None, sigma: Any = None, center: bool = False, mask: Any = None, weights: Any = None,
    special: bool = False, shrink: bool = False, tol: float = 1e-8, rng: Any = None,
) -> ProcrustesFit:  # fmt: skip
    """The cloud X of which ``Y_i = Q_i X + t_i 1^T + sigma E_i`` are noisy copies, after unknown rotations.

    Parameters
    ----------
    Y : array_like (N, d, k) or stacked (N d, k), iterator of batches (n, d, k), or accumulator
        Iterators are read once, in O(k^2) memory; `GramAccumulator` and `GramSketch` hold what was seen elsewhere.
    method : {"auto", "gram", "sync"}
        "gram": eigenvectors of the mean Gram matrix, consistent in any noise. "sync": least-squares rotations by a certified
        semidefinite relaxation, for N up to thousands. "auto": "gram", unless N is below `alignment_limit`, where least squares is
        as good, and the relaxation proves that it has been attained.
    d : int, optional
        Needed where Y is stacked; checked elsewhere.
    sigma : float, or array_like (N,) with method "gram"
        Standard deviation of the noise; estimated when None, which needs k > d. Per copy: weights follow from it unless given.
    center : bool
        Copies are shifted by unknown t_i (0 otherwise); X comes back centred.
    mask : array_like of bool (N, k), or "nan"
        False, or NaN coordinates, where a point is missing, whatever the noise. Method "gram".
    weights : array_like (N,), optional
        Nonnegative; method "gram".
    special : bool
        The Q_i are rotations, without reflections: choose X rather than its mirror image.
    shrink : bool
        Shrink singular values for least error where N is small (spiked covariance model); method "gram".
    tol, rng : float, Generator or seed
        Relative gap of the relaxation, and its random numbers.

    Raises
    ------
    ValueError
        Sizes that do not match, entries that are not finite, sigma not given for k <= d, pairs of points never seen together, and data
        that a method cannot use.

    Notes
    -----
    Noise must be isotropic: N(0, sigma^2) on every coordinate. Where it is not, more eigenvalues than d stand out, which is warned of.

    Cost
    ----
    "gram": N d k^2 multiply-adds and one k x k eigenvalue problem; truncated SVDs above k = 2000, and above
    5000 a sketch for iterators (see `GramSketch` for what it loses). "sync":
    some hundred products of O(N d^2 k), and the certificate.
    """
    if method not in METHODS:
        raise ValueError(f'method = {method!r}; it must be "gram", "sync" or "auto"')
    data = take_in(Y, d, sigma, bool(center), mask, weights, special)
    if method == "sync" and data.not_for_alignment:
        raise ValueError(f'method="sync" needs all copies, complete and of equal noise; given were {data.not_for_alignment}: use "gram"')
    return _fitted(method, data, special, shrink, tol, rng)


def _fitted(method: str, data: Intake, special: bool, shrink: bool, tol: float, rng: Any) -> ProcrustesFit:
    found = spectrum(data.moments, data.d, data.sigma)
    limit = limit_of(found.signal(), found.k)
    choice, why = _choose(method, data, found, limit)
    aligned = None
    if choice == "sync":
        X0 = _embedded(found.factor(), data)
        aligned = least_squares(data.copies, X0, group="SO" if special else "O", tol=tol, rng=rng)
        if method == "auto" and not aligned.is_tight:
            choice, why = "gram", f"{why}, but its rotations are not proved optimal: gap {aligned.gap:.0e}, rank {aligned.rank}"
        elif method == "auto":
            why = f"{why}, and the relaxation is tight"
    return _assembled(data, found, choice, why, aligned, limit, special, shrink)


def _choose(method: str, data: Intake, found: Spectrum, limit: float) -> tuple[str, str]:
    """The method to try, and the reason."""
    N, d = data.N, data.d
    if method != "auto":
        return method, "as asked"
    if data.not_for_alignment:
        return "gram", f"given were {data.not_for_alignment}"
    if found.rank < d:
        return "gram", f"only {found.rank} of {d} directions stand out of the noise, too few to align by"
    if N >= limit:
        return "gram", f"N = {N} >= N* = {limit:.3g}, where alignment is biased"
    if N * d > SDP_ROWS:
        return "gram", f'N d = {N * d} rows are many for the relaxation; method="sync" tries'
    return "sync", f"N = {N} < N* = {limit:.3g}"


def _assembled(
    data: Intake, found: Spectrum, choice: str, why: str, aligned: Alignment | None, limit: float, special: bool, shrink: bool
) -> ProcrustesFit:
    d, k = data.d, data.moments.k
    squares, sigma2 = found.signal(), found.sigma2
    known = data.sigma is not None or data.moments.debiased
    if choice == "sync" and aligned is not None:
        X = aligned.X
        sigma2 = sigma2 if known else _residual_variance(data, aligned, k)
        expected = sigma2 / data.N * dimension(d, k) + floor_of(squares) * sigma2**2
    else:
        X = _embedded(found.factor(shrink), data)
        expected = mse(squares, k, found.noise2, found.noise4, known)
    score = None
    if special:
        X, score = _handed(X, data)
    rank = min(found.rank, d)
    fitted = ProcrustesFit(
        X,
        choice,
        why,
        data.N,
        sigma2,
        found.values,
        float(found.edge),
        rank,
        float(expected),
        limit,
        (),
        special,
        data.center,
        score,
        aligned,
    )
    object.__setattr__(fitted, "warnings", tuple(_warnings(fitted, found, data, known)))
    return fitted


def _embedded(Z: np.ndarray, data: Intake) -> np.ndarray:
    """Z (d, k') in the caller's points."""
    C = data.moments.basis
    return Z if C is None else Z @ C.T


def _residual_variance(data: Intake, aligned: Alignment, k: int) -> float:
    """sigma^2 of low noise: squared residuals over the degrees of freedom that N rotations and one cloud leave."""
    N, d = data.N, data.d
    freedom = N * d * k - N * (d * (d - 1) // 2) - dimension(d, k)
    left = float(np.vdot(data.copies, data.copies)) - aligned.value / N
    return max(left, 0.0) / freedom if freedom > 0 else 0.0


def _handed(X: np.ndarray, data: Intake) -> tuple[np.ndarray, float]:
    """X or its mirror image, whichever the copies speak for, and how surely."""
    Y = data.kept
    if Y is None:
        raise ValueError("special=True needs copies, of which an accumulator keeps none; fit without it, then call chirality(Y, X)")
    weights = data.kept_weights
    mean, z = chirality(Y, X, weights)
    if mean < 0:
        X = X.copy()
        X[-1] *= -1
    return X, abs(z)


def _warnings(fitted: ProcrustesFit, found: Spectrum, data: Intake, known: bool) -> Iterable[str]:
    """What may be wrong, and what to do about it."""
    d, N, size2 = data.d, data.N, float(np.sum(fitted.X**2))
    if N == 1 and not known:
        yield "one copy: its noise cannot be told from the cloud and counts as 0; give sigma, or more copies"
    if found.rank < d:
        yield (
            f"only {found.rank} of {d} directions stand out of the noise (lambda_{found.rank + 1} = {found.values[found.rank]:.3g}, "
            f"noise ends at {found.edge:.3g}): add copies, set shrink=True, or accept a flat cloud"
        )
    if 0.1 * size2 < fitted.expected_mse < np.inf:
        more = f"about {int(np.ceil(N * fitted.expected_mse / (0.01 * size2)))} copies would bring 10 %"
        yield f"expected distance {np.sqrt(fitted.expected_mse / size2):.0%} of |X|: {more}"
    if found.rank > d and data.moments.observed > 0.999:  # gaps alone do that
        yield (
            f"{found.rank} eigenvalues stand out of isotropic noise, d = {d} are explained: the noise is not isotropic, or the shape "
            "itself varies; look at the eigenvalues, and take sigma and expected_mse as rough"
        )
    if fitted.method == "sync" and N > fitted.alignment_limit:
        yield f'N = {N} > N* = {fitted.alignment_limit:.3g}: alignment is biased, more copies do not help; use method="gram" for X'
    proof = fitted.alignment
    if fitted.method == "sync" and proof is not None and not proof.is_tight:
        cause = f"{proof.reflected} of {N} copies fit better by a reflection" if proof.reflected else f"it has rank {proof.rank}"
        yield (
            f"rotations are not proved optimal, {proof.gap:.1e} below the bound of the relaxation ({cause}): they are a local optimum; "
            'use method="gram" for X'
        )
    if data.sigma and data.moments.k > d:
        estimate = max(float(data.moments.trace - np.sum(found.values[:d])), 0.0) / (d * (data.moments.k - d))
        if N > 1 and not 0.8 <= estimate / data.sigma**2 <= 1.2 and found.rank >= d:
            yield f"sigma = {data.sigma:.4g} was given, but the data say {np.sqrt(estimate):.4g}: check units, or leave sigma None"
    z = fitted.chirality_zscore
    if z is not None and not z >= SURE:
        need = f"about {int(np.ceil(N * (SURE / z) ** 2))} copies would tell" if z > 0 else "more copies may tell"
        yield f"X cannot be told from its mirror image (z = {z:.2g}): {need}"
