"""The part "phase": `phase_retrieval.retrieve` beside the methods that people use, on equal data.

All see the same A, b and (unless "spectral") the same random starts, and none knows the signal; but the rivals' clock stops as soon as
their error is below SUCCESS, which no user of them could see, while ours runs until `retrieve` returns.  Projections onto the range
of A cost all of them but Wirtinger flow the same orthonormalisation, which counts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from rivals import Run

from bmsdp.applications import phase_retrieval as pr

SUCCESS = 1e-5  # relative error of the signal
LIMIT = 3000  # iterations of a rival
Iterates = Iterator[np.ndarray]


def onto_magnitudes(z: np.ndarray, b: np.ndarray) -> np.ndarray:
    size = np.abs(z)
    return b * np.divide(z, size, out=np.ones_like(z), where=size > 0)


def alternating_projections(A: Any, b: np.ndarray, x: np.ndarray) -> Iterates:
    """Gerchberg and Saxton 1972: onto the magnitudes, onto the range of A."""
    m = pr.measurements(A)
    V = m.from_signal(x[:, None])
    while True:
        V = m.adj(onto_magnitudes(m.mul(V), b[:, None]))
        yield m.to_signal(V)[:, 0]


def raar(A: Any, b: np.ndarray, x: np.ndarray, beta: float = 0.9) -> Iterates:
    """Relaxed averaged alternating reflections (Luke 2005); beta = 1 is Douglas-Rachford."""
    m = pr.measurements(A)
    z = m.mul(m.from_signal(x[:, None]))
    while True:
        p = onto_magnitudes(z, b[:, None])
        V = m.adj(2 * p - z)
        z = beta * (z + m.mul(V) - p) + (1 - beta) * p
        yield m.to_signal(V)[:, 0]  # at a solution the shadow of 2 p - z is that of p


def douglas_rachford(A: Any, b: np.ndarray, x: np.ndarray) -> Iterates:
    return raar(A, b, x, 1.0)


def wirtinger_flow(A: Any, b: np.ndarray, x: np.ndarray) -> Iterates:
    """Candes, Li, Soltanolkotabi 2015: gradient steps on intensities, from their spectral start (50 power steps)."""
    n, d = A.shape
    adjoint = A.rmatvec if hasattr(A, "rmatvec") else A.conj().T.__matmul__
    scale = float(np.linalg.norm(A @ x)) / (float(np.linalg.norm(x)) * np.sqrt(n))  # entries of mean square 1
    y = (b / scale) ** 2
    for _ in range(50):
        x = adjoint(y * (A @ x))
        x = x / np.linalg.norm(x)
    x = x * np.sqrt(y.mean())
    step = 1 / y.mean()
    t = 0
    while True:
        t += 1
        z = (A @ x) / scale
        x = x - step * min(1 - np.exp(-t / 330), 0.2) / n * adjoint((np.abs(z) ** 2 - y) * z) / scale
        yield x


METHODS = {
    "alternating proj.": alternating_projections, "RAAR (0.9)": raar, "Douglas-Rachford": douglas_rachford,
    "Wirtinger flow": wirtinger_flow,
}  # fmt: skip


def rival(
    method: Callable[..., Iterates], A: Any, b: np.ndarray, start: np.ndarray, truth: np.ndarray, limit: float
) -> tuple[float, float]:
    """(CPU seconds, error): until SUCCESS, the iteration limit or the time limit; an infinite error where it diverged."""
    begin, paused, error = time.process_time(), 0.0, np.inf
    with np.errstate(over="ignore", invalid="ignore"):
        for count, x in enumerate(method(A, b, start), 1):
            if count % 5 and count < LIMIT:
                continue
            look = time.process_time()
            error = pr.relative_error(x, truth) if np.isfinite(x).all() else np.inf
            paused += time.process_time() - look
            clock = time.process_time() - begin - paused
            if error <= SUCCESS or error == np.inf or count >= LIMIT or clock > limit:
                break
    return clock, float(error)


def gaussian(d: int, ratio: float, noise: float) -> Callable[[int], tuple[Any, np.ndarray, np.ndarray]]:
    def make(seed: int) -> tuple[Any, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        n = round(ratio * d)
        A, x = rng.standard_normal((n, d, 2)).view(complex)[..., 0], rng.standard_normal((d, 2)).view(complex)[:, 0]
        b = np.abs(A @ x)
        return A, np.abs(b + noise * np.sqrt(np.mean(b**2)) * rng.standard_normal(n)), x

    return make


def diffraction(side: int, masks: int) -> Callable[[int], tuple[Any, np.ndarray, np.ndarray]]:
    def make(seed: int) -> tuple[Any, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        A = pr.masked_fft(pr.coded_diffraction((side, side), masks, rng))
        x = rng.standard_normal((side * side, 2)).view(complex)[:, 0]
        return A, np.abs(A @ x), x

    return make


INSTANCES = {
    "Gaussian, d = 100, n = 8 d": (gaussian(100, 8, 0), True),
    "Gaussian, d = 100, n = 4 d": (gaussian(100, 4, 0), True),
    "Gaussian, d = 100, n = 3 d": (gaussian(100, 3, 0), False),
    "Gaussian, d = 100, n = 8 d, 1 % noise": (gaussian(100, 8, 0.01), False),
    "coded diffraction, 64 x 64, 8 masks": (diffraction(64, 8), False),
    "coded diffraction, 64 x 64, 4 masks": (diffraction(64, 4), False),
    "coded diffraction, 64 x 64, 3 masks": (diffraction(64, 3), False),
}


def rows(settings: Any, row: Callable[..., Any]) -> Iterator[Any]:
    """Per instance: ours from random and from spectral starts, then the rivals from the same random starts."""
    seeds = range(1, 3 if settings.small else 11)
    for name, (make, small) in INSTANCES.items():
        if settings.only not in name or settings.small and not small:
            continue
        data = [make(seed) for seed in seeds]
        starts = [np.random.default_rng(100 + seed).standard_normal((len(data[0][2]), 2)).view(complex)[:, 0] for seed in seeds]
        noisy = "noise" in name
        best = [ours(A, b, x, x) for A, b, x in data] if noisy else []
        runs = {
            "bmsdp, random": [ours(A, b, start, x, random=True) for (A, b, x), start in zip(data, starts, strict=True)],
            "bmsdp, spectral": [ours(A, b, "spectral", x) for A, b, x in data],
        }
        for method, function in METHODS.items():
            runs[method] = [rival(function, A, b, start, x, settings.limit) for (A, b, x), start in zip(data, starts, strict=True)]
        for method, found in runs.items():
            goal = [1.05 * error for _, error in best] if noisy else [SUCCESS] * len(data)
            won = sum(error <= limit for (_, error), limit in zip(found, goal, strict=True))
            error = statistics.median(error for _, error in found)
            run = Run(method, statistics.median(seconds for seconds, _ in found), error, "signal error", 1, won == len(found))
            unit = "within 5 % of the fit polished from the truth" if noisy else "recovered"
            yield row("phase", name, len(data[0][1]), SUCCESS, run, f"{won}/{len(found)} {unit}")


def ours(A: Any, b: np.ndarray, start: Any, truth: np.ndarray, random: bool = False) -> tuple[float, float]:
    begin = time.process_time()
    found = pr.retrieve(A, b, start="random" if random else start, rank=1 if start is truth else None, rng=0, progress=False)
    return time.process_time() - begin, pr.relative_error(found.x.ravel(), truth)
