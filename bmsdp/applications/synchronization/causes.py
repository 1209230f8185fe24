"""Whether the relaxation is tight, and where it is not, why: rank, determinants, outliers, graph, noise."""

from __future__ import annotations

import enum

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import ArpackNoConvergence, eigsh
from scipy.stats import chi2

from .measurements import Clouds, Data, Measurements

COUNTS = 1e-3  # eigenvalues of X below this part of the largest do not count for its rank
FAR = 1e-4  # residuals that Gaussian noise exceeds with at most this probability are outliers
DRIFT = 0.3  # radians that noise of single edges may add up to, a vertex, along the weakest direction of a graph (a ring: 1.9 around it)
LARGE = 0.5  # radians on a single edge at which the noise itself is the cause


class Cause(enum.Enum):
    """Why the answer does not attain the bound; the value is message and remedy."""

    TIGHT = "tight: the blocks attain the bound, so they are optimal"
    UNFINISHED = "the relaxation was not solved to tol, so that its bound is not its value; raise max_time, or choose another solver"
    REFLECTIONS = 'the relaxation is that of "O", and its optimum mixes determinants 1 and -1; the bound may not hold for any rotations'
    OUTLIERS = 'some measurements are far off, more than Gaussian noise explains; reject them with robust="tls"'
    WEAK_GRAPH = "the graph is weakly connected, and the noise of its edges adds up along it; add measurements between its far ends"
    NOISE = "the noise is too large for the relaxation to be exact; the blocks are a local optimum, and bound and misfit bracket the best"


def spectrum(Y: np.ndarray, n: int) -> np.ndarray:
    """Eigenvalues of X/n, descending (k,): they sum to d, and are 1, d times, where X has rank d."""
    return np.maximum(np.linalg.eigvalsh(Y.conj().T @ Y)[::-1], 0.0) / n


def noise_level(data: Data, residuals: np.ndarray, weights: np.ndarray) -> float:
    """Standard deviation of the measurements, from what the fit leaves over; nan without redundant measurements.

    Radians per axis for orthogonal blocks, small angles being assumed; per real entry for general blocks and clouds; for signs the share of
    edges that are violated. Of edges with weight 1 on average.
    """
    n, d = data.n, data.d
    free = {"U": d * d}.get(data.group, d * (d - 1) // 2)
    kept = weights > 0
    if not kept.any():
        return float("nan")
    entry = 2 if data.group == "U" else 1
    if isinstance(data, Clouds):
        k = data.Y.shape[2]
        dof, square = (n - 1) * (entry * d * k - free), 1.0
    elif not isinstance(data, Measurements) or not data.orthogonal:
        dof, square = int(kept.sum()) * entry * d * d - (n - 1) * free, 1.0
    elif free == 0:
        return float(np.mean(residuals[kept] > 1))
    else:
        dof, square = (int(kept.sum()) - n + 1) * free, 1.0 if data.group == "U" else 2.0
    if dof <= 0:
        return float("nan")
    return float(np.sqrt(weights[kept] @ residuals[kept] ** 2 / weights[kept].mean() / square / dof))


def connectivity(data: Measurements, weights: np.ndarray) -> float:
    """The second eigenvalue of the weighted graph's Laplacian, for weights of mean 1; nan where Lanczos does not find it."""
    w = weights / weights.mean()
    v = np.arange(data.n)
    degree = np.bincount(data.i, w, data.n) + np.bincount(data.j, w, data.n)
    rows, columns = np.concatenate([data.i, data.j, v]), np.concatenate([data.j, data.i, v])
    L = sparse.csc_array((np.concatenate([-w, -w, degree]), (rows, columns)), shape=(data.n, data.n))
    if data.n <= 500:
        return float(np.linalg.eigvalsh(L.toarray())[1])
    try:
        v0 = np.random.default_rng(0).standard_normal(data.n)
        return float(np.sort(eigsh(L, 2, sigma=-1e-6 * degree.mean(), which="LM", v0=v0, tol=1e-2, return_eigenvectors=False))[1])
    except (ArpackNoConvergence, RuntimeError):
        return float("nan")


def outlying(data: Data, residuals: np.ndarray, weights: np.ndarray) -> int:
    """How many residuals are larger than Gaussian noise makes them, its size being read off their lower quartile; 0 for signs."""
    free = data.d * data.d if data.group == "U" else data.d * (data.d - 1) // 2
    if not isinstance(data, Measurements) or not free:
        return 0
    if not data.orthogonal:
        free = data.d * data.d * (2 if data.group == "U" else 1)
    r = (np.sqrt(weights) * residuals)[weights > 0]
    if r.size < max(8, 2 * (data.n - 1)):  # with little redundancy the fit shapes the residuals
        return 0
    quartile = float(np.quantile(r, 0.25)) / np.sqrt(chi2.ppf(0.25, free))
    count = int(np.sum(r > max(np.sqrt(chi2.isf(FAR, free)) * quartile, 1e-6 * np.sqrt(weights.max()))))
    return count if count > 3 * FAR * r.size else 0


def explain(
    data: Data, *, rank: int, size: int, eigengap: float, noise: float, residuals: np.ndarray, weights: np.ndarray, tight: bool,
    unfinished: str | None, reflections: int, attained: bool,
) -> tuple[Cause, str]:  # fmt: skip
    """The cause, and a sentence with its figures.

    Parameters
    ----------
    rank, size : rank of X, and d, what it has where the relaxation is tight
    unfinished : why the descent ended early, or None
    reflections : blocks of the lesser determinant in the best orthogonal answer
    attained : whether that answer attains the bound
    """
    unit = "violated edges" if data.d == 1 and data.group == "O" else "rad" if data.orthogonal else "an entry"
    figures = f"rank {rank} of X against {size}; noise {noise:.2g} {unit}; eigenvalue gap {eigengap:.2g}"
    count = outlying(data, residuals, weights)
    if tight and count:
        figures += f'; {count} of {len(residuals)} residuals far above the others: consider robust="tls"'
    if tight:
        return Cause.TIGHT, f"{Cause.TIGHT.value} ({figures})"
    if unfinished is not None:
        return Cause.UNFINISHED, f"{Cause.UNFINISHED.value} ({unfinished}; {figures})"
    if reflections and attained:
        return Cause.REFLECTIONS, f"{Cause.REFLECTIONS.value} ({reflections} of {data.n} blocks; {figures})"
    if count:
        return Cause.OUTLIERS, f"{Cause.OUTLIERS.value} ({count} of {len(residuals)}; {figures})"
    if isinstance(data, Measurements) and unit == "rad" and noise < LARGE:
        second = connectivity(data, weights)
        drift = noise / np.sqrt(data.n * second) if second > 0 else np.nan
        if drift > DRIFT:
            drifts = f"{noise:.2g} rad an edge add up to {drift:.2g} rad, second Laplacian eigenvalue {second:.2g}"
            return Cause.WEAK_GRAPH, f"{Cause.WEAK_GRAPH.value} ({drifts}; {figures})"
    return Cause.NOISE, f"{Cause.NOISE.value} ({figures})"
