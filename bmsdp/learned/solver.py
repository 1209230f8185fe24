"""Mixing that starts with learned sweeps, of a network or of a plain schedule."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..manifolds import Manifold, StiefelProduct
from ..problem import LocalModel, Problem
from ..solvers.mixing import BLOCK, Mixing, Sweep, sweeper
from .weights import MixingWeights


@dataclass(frozen=True)
class LearnedMixing:
    """L learned sweeps, then adaptive over-relaxation, so that any tolerance is reached; monotone in the cost throughout.

    The perceptron of ``weights`` relaxes every row (`Oblique`) or block (`StiefelProduct`) of every sweep, in the order of the colours that
    it was trained in (rows of a dense C: in natural order).  Weights that are a schedule run as ``Mixing(schedule=weights.omega)``,
    at the cost of plain sweeps; any network gives its schedule to ``Mixing(schedule=...)`` too.  It needs the entries of C.
    A network runs in one thread.  Storage: Y, and 3 n numbers for the network; a dense C is copied twice.

    Attributes
    ----------
    weights : MixingWeights
    after : Mixing
        What runs after the learned sweeps, and how many sweeps lie between two iterates; its own schedule is replaced.
    """

    weights: MixingWeights
    after: Mixing = Mixing()

    def __post_init__(self) -> None:
        given: object = self.weights  # a path is a likely slip
        if not isinstance(given, MixingWeights):
            raise TypeError(f"weights is a {type(given).__name__}; MixingWeights are needed; LearnedMixing.load(path) reads a file")

    @classmethod
    def load(cls, path: str | os.PathLike[str], after: Mixing = Mixing()) -> LearnedMixing:  # noqa: B008  frozen
        """With the weights in a file of `MixingWeights.save`, `bmsdp.learned.save` or ``bmsdp train``."""
        return cls(MixingWeights.load(path), after)

    def applies(self, problem: Problem) -> bool:
        """Whether there is a step for this problem: Oblique or Stiefel rows, entries of C, no terms."""
        return self.after.applies(problem) and problem.C.matrix() is not None

    def iterates(self, problem: Problem, Y: np.ndarray) -> Iterator[tuple[LocalModel, dict[str, Any]]]:
        """As for all solvers."""
        if not self.applies(problem):
            given = f"{type(problem.manifold).__name__} with this cost"
            raise TypeError(f"LearnedMixing has no step for {given}: it needs rows or blocks and the entries of C; use LBFGS()")
        yield from replace(self.after, schedule=tuple(self.weights.omega)).iterates(problem, Y, self._sweeper)

    def _sweeper(self, manifold: Manifold, problem: Problem, Y: np.ndarray) -> Sweep | None:
        plain = sweeper(manifold, problem, Y)
        if self.weights.is_schedule or plain is None:
            return plain
        learned = network_sweeps(self.weights, manifold, problem, Y)

        def sweep(omega: float) -> tuple[float, float]:
            found = next(learned, None)
            return plain(omega) if found is None else found

        return sweep


def network_sweeps(weights: MixingWeights, manifold: Manifold, problem: Problem, Y: np.ndarray) -> Iterator[tuple[float, float]]:
    """Run the L sweeps of a network over Y in place, one for each ``next()``; yields (decrease of the cost, |grad|^2)."""
    from ..kernels import mixing, network_mixing

    C, k = problem.C.matrix(), Y.shape[1]
    layers = list(zip(weights.a, weights.W1.copy(), weights.b1.copy(), weights.W2.copy(), strict=True))  # read-only ones would compile anew
    if isinstance(manifold, StiefelProduct):
        C, d, G = sp.csr_array(C), manifold.d, np.empty((manifold.d, k), Y.dtype)
        order, f = _blocks(C, d)
        for layer in layers:
            yield network_mixing.block_network_sweep(C.indptr, C.indices, C.data, d, order, f, *layer, Y, G)
        return
    radius = manifold.radius  # type: ignore[attr-defined]
    if isinstance(C, np.ndarray):
        off, G, before = C.copy(), np.empty((min(BLOCK, len(Y)), k), Y.dtype), np.empty(k, Y.dtype)
        np.fill_diagonal(off, 0)
        f = network_mixing.dense_invariants(off, radius)
        for layer in layers:
            yield network_mixing.dense_network_sweep(off, radius, f, *layer, Y, G, before)
        return
    assert C is not None
    data, g = C.data.astype(Y.dtype, copy=False), np.empty(k, Y.dtype)
    order, _ = mixing.greedy_colouring(C.indptr, C.indices)
    f = network_mixing.invariants(C.indptr, C.indices, data, radius)
    for layer in layers:
        yield network_mixing.network_sweep(C.indptr, C.indices, data, radius, order, f, *layer, Y, g)


def _blocks(C: sp.csr_array, d: int) -> tuple[np.ndarray, np.ndarray]:
    """The blocks of d rows by colour, and their invariants (n / d x 3)."""
    from ..kernels import mixing, network_mixing

    q, entries = C.shape[0] // d, C.tocoo()
    i, j = entries.coords
    sizes = sp.coo_array((np.abs(entries.data) ** 2, (i // d, j // d)), shape=(q, q)).tocsr()
    sizes.data = np.sqrt(sizes.data / d)
    order, _ = mixing.greedy_colouring(sizes.indptr, sizes.indices)
    return order, network_mixing.invariants(sizes.indptr, sizes.indices, sizes.data, np.ones(q))
