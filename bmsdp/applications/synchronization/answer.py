"""The answer: blocks, what they miss, the bound, and the cause where they do not attain it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from ...minimize import minimize
from ...problem import Problem
from ...result import Result
from ...rounding import hyperplane, local_search
from ...solvers import TrustRegion
from .causes import COUNTS, Cause, explain, noise_level, spectrum
from .measurements import Data, Measurements
from .relaxation import as_data, blocks_of, is_special, relaxation, shaped, size
from .rounding import nearest, round_to_rotations
from .spectral import spectral

POLISH = 1e-12  # relative gradient at which the descent at rank d stops


@dataclass(frozen=True, eq=False)
class Synchronization:
    """Blocks, and how good they must be: ``misfit >= minimum over all blocks >= bound``, for these weights."""

    R: np.ndarray = field(repr=False)
    """Blocks (n, d, d); signs int8 (n,) or phases complex (n,) where measurements were given as such.  Up to one common right factor."""
    misfit: float
    bound: float
    """Lower bound on the misfit of every choice of blocks, as rigorous as ``results[0].certificate``; at least 0."""
    tight: bool
    """``misfit - bound <= tol max(misfit, 1e-3 misfit of random blocks)``: R is optimal."""
    cause: Cause
    why: str = field(repr=False)
    """The cause in words, with its figures."""
    residuals: np.ndarray = field(repr=False)
    """``|R_i - M_e R_j|_F`` of each edge, (E,); of each copy, for clouds."""
    weights: np.ndarray = field(repr=False)
    """Those given times those of the robust loss, (E,)."""
    inliers: np.ndarray = field(repr=False)
    """Bool (E,): robust factor above 1/2."""
    rank: int
    """Of the relaxation's X, eigenvalues above 1e-3 of the largest; d where it is tight."""
    spectrum: np.ndarray = field(repr=False)
    """Eigenvalues of X/n, descending; d ones where it is tight."""
    noise: float
    """Standard deviation that the residuals suggest: rad an axis; violated edges (signs); an entry (general blocks, clouds)."""
    eigengap: float
    """Of the normalised measurements, between eigenvalues d and d + 1: in [0, 1] for orthogonal blocks, falling with the noise."""
    component: np.ndarray = field(repr=False)
    """Label (n,) of the connected component; R is determined up to a common factor in each."""
    rounds: int = 1
    """Reweightings, 1 without a robust loss."""
    results: tuple[Result, ...] = field(repr=False, default=())
    """Of `bmsdp.solve`, one for each component of more than one vertex."""

    @property
    def gap(self) -> float:
        """``misfit - bound``."""
        return self.misfit - self.bound


def recover(result: Any, data: Any, *, group: str | None = None, rng: Any = None, trials: int = 10) -> Synchronization:
    """Blocks from a solution of ``problem(data)``, what they miss, and why they miss the bound.

    Parameters
    ----------
    result : Result of ``bmsdp.solve(problem(data))``
    data, group : as for `problem`
    rng : seed or Generator (SPEC 7); used where X has more than rank d
    trials : random directions that are rounded beside the leading ones

    Raises
    ------
    ValueError
        Where the result's Y does not fit the data.
    """
    return recovered(result, as_data(data, group), np.random.default_rng(rng), trials, None)


def recovered(
    result: Any, data: Data, rng: np.random.Generator, trials: int, values: np.ndarray | None, solver: Any = None
) -> Synchronization:
    """`recover`, with the eigenvalues of `spectral` where they are known."""
    if isinstance(trials, bool) or not isinstance(trials, (int, np.integer)) or trials < 0:
        raise ValueError(f"trials = {trials}; a number of random roundings, at least 0, is needed")
    relaxed, d, Y = relaxation(data), size(data), np.asarray(result.Y)
    if Y.ndim != 2 or len(Y) != relaxed.n or np.iscomplexobj(Y) != relaxed.C.is_complex:
        raise ValueError(f"the result's Y has shape {Y.shape} ({Y.dtype}) but the data need {relaxed.n} rows; pass those it was made from")
    eigenvalues = spectrum(Y, data.n)
    rank = int(np.sum(eigenvalues > COUNTS * eigenvalues[0]))
    tries = trials if rank > d else 0
    blocks = blocks_of(data, _rounded(relaxed, Y, d, is_special(data), rng, tries, solver))
    residuals, misfit = data.residuals(blocks), data.misfit(blocks)
    tol = float(result.options.get("tol", 1e-6))
    # <C, X> is a sum of terms as large as the scale: what their rounding may amount to
    bound = min(max(float(result.bound) - 2.0**-50 * data.scale(), 0.0), misfit)
    tight = misfit - bound <= tol * max(misfit, relaxed.cost_scale or 0.0)
    reflections, attained = 0, False
    if is_special(data) and not tight:
        free = _rounded(relaxed, Y, d, False, rng, 0, solver).reshape(-1, d, d)
        turned = int(np.sum(np.linalg.det(free) < 0))
        reflections = min(turned, data.n - turned)
        attained = data.misfit(free) - bound <= tol * max(misfit, relaxed.cost_scale or 0.0)
    values = spectral(relaxed.C, d, 0)[1] if values is None else values
    eigengap = float(values[d - 1] - values[d])
    noise = noise_level(data, residuals, data.weights)
    cause, why = explain(
        data, rank=rank, size=d, eigengap=eigengap, noise=noise, residuals=residuals, weights=data.weights, tight=tight,
        unfinished=None if result.gap <= tol else result.message, reflections=reflections, attained=attained,
    )  # fmt: skip
    component = data.components() if isinstance(data, Measurements) else np.zeros(data.n, dtype=np.int32)
    return Synchronization(
        shaped(data, blocks), misfit, bound, tight, cause, why, residuals, data.weights, np.ones(len(residuals), bool), rank, eigenvalues,
        noise, eigengap, component, 1, (result,),
    )  # fmt: skip


def _rounded(relaxed: Problem, Y: np.ndarray, d: int, special: bool, rng: np.random.Generator, trials: int, solver: Any) -> np.ndarray:
    """The best orthogonal factor (n d, d) among roundings of Y, improved by descent at rank d (signs: by single flips)."""
    C, k = relaxed.C, Y.shape[1]

    def value(R: np.ndarray) -> float:
        return float(np.vdot(R, C.mul(R)).real)

    found = [round_to_rotations(Y, d, special).reshape(-1, d)]
    if d == 1 and not relaxed.C.is_complex:
        found += [x[:, None].astype(float) for x in hyperplane(Y, rng, 10 * trials)]
        return _flipped(relaxed, sorted(found, key=value)[:5])
    for _ in range(trials):
        G = rng.standard_normal((k, d)) + (1j * rng.standard_normal((k, d)) if C.is_complex else 0)
        found.append(round_to_rotations(Y @ np.linalg.qr(G)[0], d, special).reshape(-1, d))
    best: np.ndarray = np.ascontiguousarray(min(found, key=value))
    solver = solver if isinstance(solver, TrustRegion) else TrustRegion()
    polished = minimize(relaxed, solver, best, tol=POLISH, max_iter=200, progress=False).Y
    polished = nearest(polished.reshape(-1, d, d)).reshape(-1, d)
    if special and (np.linalg.det(polished.reshape(-1, d, d)) < 0).any():  # a long step left the component
        return best
    rounding = 2.0**-44 * float(np.vdot(best, relaxed.C.diagonal()[:, None] * best).real)  # type: ignore[index]
    return polished if value(polished) <= value(best) + rounding else best


def _flipped(relaxed: Problem, found: list[np.ndarray]) -> np.ndarray:
    """The best of some sign vectors, each improved by single flips: x^T C x falls where the cut of C grows."""
    M = relaxed.C.matrix()
    if M is None:
        M = relaxed.C.mul(np.eye(relaxed.n))
    W = sparse.csr_array(M)
    W = sparse.csr_array(W - sparse.diags_array(W.diagonal()))
    better = [local_search(W, x.ravel()).astype(float) for x in found]
    return min(better, key=lambda x: float(x @ (W @ x)))[:, None]
