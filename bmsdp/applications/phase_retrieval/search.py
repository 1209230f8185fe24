"""Lift, round, polish: how `bmsdp.applications.phase_retrieval` looks for a signal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ...manifolds.base import gaussian
from ...minimize import minimize
from ...problem import LocalModel
from ...result import Status
from ...solvers import LBFGS
from .fit import AmplitudeFit, flip_signs, spectral_start

LIFT = 1e-3  # relative gradient at which a lift is rounded: tighter is slow without noise and biased with it
GLANCE = 1e-4  # relative gradient at which a rank-1 fit is judged
EXPLAINED = 1.5  # a rank-1 misfit below this many times the lift's owes little to its rank
EXACT = 1e-5  # a misfit that no wrong fit comes near: more attempts would be wasted
NOISE = 0.3  # length of the random columns of a lift beside its spectral one
HALTS = (Status.MAX_TIME, Status.INTERRUPTED)

Callback = Callable[[LocalModel, dict[str, Any]], object]


class Search:
    """One run of descents on a fit, with its limits.

    Attributes
    ----------
    nit, attempts : int
    status : Status
        Of the last descent, or the limit that ended the search.
    """

    def __init__(
        self, fit: AmplitudeFit, rng: np.random.Generator, *, max_iter: int = 2000, max_time: float | None = None,
        callback: Callback | None = None, progress: bool | None = None,
    ):  # fmt: skip
        self.fit, self.rng, self.max_iter, self.callback, self.progress = fit, rng, max_iter, callback, progress
        self.problem = fit.problem()
        self.deadline = None if max_time is None else time.perf_counter() + max_time
        self.nit, self.attempts, self.status = 0, 0, Status.LOCALLY_OPTIMAL

    def out_of_time(self) -> bool:
        """Whether the time limit has passed."""
        return self.deadline is not None and time.perf_counter() >= self.deadline

    @property
    def halted(self) -> bool:
        """Whether a limit, Ctrl-C or the callback ends the search."""
        if self.status not in HALTS and self.out_of_time():
            self.status = Status.MAX_TIME
        return self.status in HALTS

    def descend(self, V: np.ndarray, tol: float) -> np.ndarray:
        """L-BFGS from V to a relative gradient ``|grad| / 2|V|`` of tol; V itself where the search has halted."""
        if self.halted:
            return V
        left = None if self.deadline is None else max(self.deadline - time.perf_counter(), 1e-3)
        result = minimize(
            self.problem, LBFGS(), V, tol=tol, max_iter=self.max_iter, max_time=left, callback=self.callback, progress=self.progress
        )
        self.nit += result.nit
        self.status = result.status
        return result.Y

    def lifted(self, first: np.ndarray | None, k: int, noise: float = NOISE) -> np.ndarray:
        """A start of k columns: ``first`` (d, p) and random ones beside it, all random where it is None."""
        d, dtype = self.fit.measured.d, self.fit.measured.dtype
        V = gaussian(self.rng, (d, k), dtype)
        V /= np.linalg.norm(V)
        if first is not None:
            V *= noise
            p = first.shape[1]
            V[:, :p] = first / np.linalg.norm(first) + (V[:, :p] if k > p else 0)
        return self.fit.scaled(V)

    def attempt(self, V: np.ndarray) -> tuple[float, np.ndarray, bool]:
        """``(F, V', explained)``: lift from V (d, k), round, glance at rank 1, and whether the lift explains what is left."""
        self.attempts += 1
        lift = np.inf
        if V.shape[1] > 1:
            V = self.descend(V, LIFT)
            lift = self.fit.value(V)
            U, s, _ = np.linalg.svd(V, full_matrices=False)
            V = self.fit.scaled(np.ascontiguousarray(U[:, :1] * s[0]))
        V = self.descend(V, GLANCE)
        value = self.fit.value(V)
        exact = value <= EXACT**2 * float(self.fit.b @ self.fit.b)
        return value, V, exact or (np.isfinite(lift) and value <= EXPLAINED**2 * lift)

    def run(self, start: np.ndarray | str, k: int, attempts: int, tol: float) -> np.ndarray:
        """The best rank-1 fit (d, 1) of some starts, each lifted to one column more (k = 1: none); a fit that its lift explains ends it.

        ``start`` is "spectral", "random", or an array (d, p) for the first attempt, with random ones after it.
        """
        d, value, best = self.fit.measured.d, np.inf, np.zeros((0, 1))
        for i in range(attempts):
            width, first = min(k + i, d) if k > 1 else 1, None
            if isinstance(start, np.ndarray) and i == 0:
                width, first = max(width, start.shape[1]), start
            elif isinstance(start, str) and start == "spectral":
                first = spectral_start(self.fit, self.rng)[:, None]
            found, V, explained = self.attempt(self.lifted(first, width))
            if found < value or not best.size:
                value, best = found, V
            if explained or self.halted:
                break
        return self.polish(best, tol)

    def polish(self, V: np.ndarray, tol: float) -> np.ndarray:
        """To convergence at rank 1; real fits until no turn of a sign improves them."""
        V = self.converge(V, tol)
        if not self.fit.measured.complex_rows and not self.halted:
            V = flip_signs(self.fit, V, lambda W: self.converge(W, tol))
        return V

    def converge(self, V: np.ndarray, tol: float) -> np.ndarray:
        """Descend to tol, or to what F resolves if that is more: |b - |QV|| carries errors ``u b``, so F those of ``u |b| sqrt(F)``."""
        size, before = float(np.linalg.norm(self.fit.b)), np.inf
        while not self.halted:
            resolved = max(tol, float(np.sqrt(2.0**-52 * np.sqrt(self.fit.value(V)) / size)))
            if resolved > 0.5 * before:
                break
            V, before = self.descend(V, resolved), resolved
            if self.status is not Status.LOCALLY_OPTIMAL:
                break
        return V
