r"""Is the rank of the Gram matrix constant?  A search for points of a `Quadratic` set where Assumption 1(b) of the paper fails.

The set is a manifold where ``dim span{A_i Y}`` is constant near all its points.  Random points have the generic rank r; the rank may
drop at some points only.  They are looked for among points of few columns, by descent of the r-th eigenvalue of G over the set, and
a rank that is lower on the set than beside it (rows like ``<u u*, X> = 0``) is seen by stepping off it.  Nothing found is no proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..gram import GramFactor
from .base import gaussian, inner
from .quadratic import Quadratic, from_gaussian, gauss_newton

CUT = 1e-8  # eigenvalues of G, relative to the largest, that count as zero here: 1e-4 for the normal vectors
LOOSE = 1e-9  # relative residual of a point: where the rank drops, Gauss-Newton gets no further
DESCENT_LIMIT = 300  # constraints up to which eigenvalues are descended: each step takes all of them


@dataclass(frozen=True)
class RankReport:
    """What `rank_report` found.

    Attributes
    ----------
    m, rank : int
        Constraints, and the generic dimension m' of the normal space.
    ranks, columns : tuple of int
        The rank at each feasible point met, and how many columns that has.
    margin : float
        The smallest r-th eigenvalue of G met, relative to the largest: Gauss-Newton and multipliers are well-posed as far as this is not 0.
    offender : int or None
        The row of A most involved where the rank changes; None where it was constant.
    where : str
        At which kind of point it changes.
    """

    m: int
    rank: int
    ranks: tuple[int, ...]
    columns: tuple[int, ...]
    margin: float
    offender: int | None
    where: str = ""

    @property
    def constant(self) -> bool:
        return self.offender is None

    @property
    def message(self) -> str:
        """One line for a user."""
        if self.constant:
            redundant = f", {self.m - self.rank} of them redundant" if self.rank < self.m else ""
            return f"{self.m} constraints{redundant}: rank {self.rank} at all {len(self.ranks)} points met, margin {self.margin:.1e}"
        return (
            f"row {self.offender} of A: A_{self.offender} Y depends on the others {self.where}, so the constraints form no manifold there"
        )


def rank_report(manifold: Quadratic, start: Any, rng: Any = None, *, points: int = 3, steps: int = 40) -> RankReport:
    """Compare the rank of G at random feasible points, at points of fewer columns, beside the set, and where descent finds it smallest.

    Parameters
    ----------
    manifold : Quadratic
    start : int or ndarray, n x k
        Columns, or a feasible point, also for the field.
    rng : Generator or seed
    points : int
        Random points of k columns; one of k/2, k/4, ... each where there is one.
    steps : int
        Of the descent, taken up to 300 constraints.

    Raises
    ------
    ValueError
        Where no feasible point of k columns was found, or m is above 4000.

    Cost
    ----
    All eigenvalues of an m x m matrix a point.
    """
    rng, M = np.random.default_rng(rng), manifold
    found = _points(M, start, rng, points)
    spectra = [M.factor(Y).spectrum() for Y in found]
    ranks = [int(np.sum(values > CUT * values[-1])) if M.m else 0 for values, _ in spectra]
    r = max(ranks)
    low = int(np.argmin(ranks))
    margin = min((_margin(values, r) for values, _ in spectra), default=1.0)
    offender, where = None, ""
    if ranks[low] < r:
        offender, where = _offender(spectra[low], r), f"at a point of {found[low].shape[1]} columns"
    beside = M.factor(_beside(found[0], rng)).count(CUT)
    if beside > ranks[0]:
        r, offender, where = beside, _offender(spectra[0], beside), "at feasible points, not beside them"
    elif offender is None and 0 < M.m <= DESCENT_LIMIT:
        Y, spectrum = _descend(M, found[0], r, steps)
        margin = min(margin, _margin(spectrum[0], r))
        ranks, found = [*ranks, int(np.sum(spectrum[0] > CUT * spectrum[0][-1]))], [*found, Y]
        if ranks[-1] < r:
            offender, where = _offender(spectrum, r), "at a point that descent found"
    return RankReport(M.m, r, tuple(ranks), tuple(Y.shape[1] for Y in found), margin, offender, where)


def _points(M: Quadratic, start: Any, rng: np.random.Generator, points: int) -> list[np.ndarray]:
    """Feasible points: of k columns, then of half as many until there are none."""
    if isinstance(start, (int, np.integer)):
        k, dtype, found = int(start), np.dtype(np.complex128 if getattr(M, "is_complex", False) else np.float64), []
    else:
        Y = gauss_newton(M, start, LOOSE)[0]
        if Y is None:
            raise ValueError("start is not feasible, and Gauss-Newton does not make it so; pass a feasible point or a number of columns")
        k, dtype, found = start.shape[1], start.dtype, [Y]
    while len(found) < points:
        found.append(from_gaussian(M, k, rng, dtype, LOOSE))
    while k > 1:
        k //= 2
        try:
            found.append(from_gaussian(M, k, rng, dtype, LOOSE, starts=3))
        except ValueError:  # none of so few columns
            break
    return found


def _beside(Y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A point a hundredth of the length of Y away."""
    U = gaussian(rng, Y.shape, Y.dtype)
    return Y + 1e-2 * np.linalg.norm(Y) / np.linalg.norm(U) * U


def _margin(values: np.ndarray, r: int) -> float:
    return float(max(values[len(values) - r], 0.0) / values[-1]) if r else 1.0


def _offender(spectrum: tuple[np.ndarray, np.ndarray], r: int) -> int:
    """The row most involved in the r-th eigenvector from above."""
    values, vectors = spectrum
    return int(np.argmax(np.abs(vectors[:, len(values) - r])))


def _descend(M: Quadratic, Y: np.ndarray, r: int, steps: int) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Lower the r-th eigenvalue from above, ``|A*(v) Y|^2``, along its gradient ``2 A*(v)^2 Y`` at fixed v, over the set."""
    factor = M.factor(Y)
    values, vectors = factor.spectrum()
    for _ in range(steps):
        v = M.gram.scale * vectors[:, M.m - r]
        N = M.adjoint_mul(v, Y)
        U = M.project(Y, M.adjoint_mul(v, N), factor)
        AU = M.adjoint_mul(v, U)
        if values[M.m - r] <= CUT * values[-1] or not AU.any():
            break
        found = _lower(M, Y, inner(N, AU) / inner(AU, AU) * U, M.m - r, values[M.m - r])
        if found is None:
            break
        Y, factor, (values, vectors) = found
    return Y, (values, vectors)


def _lower(M: Quadratic, Y: np.ndarray, U: np.ndarray, index: int, value: float) -> tuple[np.ndarray, GramFactor, Any] | None:
    """A feasible point near ``Y - U``, or a part of the way, whose eigenvalue is below ``value``."""
    for part in (1.0, 0.25, 0.0625, 0.015625):
        Z = gauss_newton(M, Y - part * U, LOOSE)[0]
        if Z is not None:
            factor = M.factor(Z)
            spectrum = factor.spectrum()
            if spectrum[0][index] < value:
                return Z, factor, spectrum
    return None
