"""From the rows of Y to signs and phases, and the weight of a cut."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import sparse


def hyperplane(Y: np.ndarray, rng: Any = None, trials: int = 100, *, batch: int = 16) -> Iterator[np.ndarray]:
    """Signs of ``Y g`` for Gaussian g: which side of a random hyperplane each row lies on.

    On the Laplacian of a graph with nonnegative weights the expected cut is at least 0.87856 times the value of the
    relaxation at Y (Goemans & Williamson 1995).

    Parameters
    ----------
    Y : real array (n, k)
    rng : seed or Generator (SPEC 7)
    trials : how many vectors to yield
    batch : vectors formed at a time, so memory is n * batch; the result does not depend on it

    Yields
    ------
    int8 array (n,) of -1 and +1; the sign of 0 is +1.
    """
    Y = np.asarray(Y)
    if np.iscomplexobj(Y):
        raise ValueError("Y is complex, signs need a real Y; use phases(Y, rng), or pass the real embedding of Y")
    rng = np.random.default_rng(rng)
    for start in range(0, trials, batch):
        G = rng.standard_normal((min(batch, trials - start), Y.shape[1]))
        for z in G @ Y.T:
            yield np.where(z >= 0, 1, -1).astype(np.int8)


def phases(Y: np.ndarray, rng: Any = None, trials: int = 100, *, batch: int = 16) -> Iterator[np.ndarray]:
    """Phases of ``Y g`` for complex Gaussian g; as :func:`hyperplane`, for the unit circle.

    Maximising a positive semidefinite form, the expected value is at least pi/4 times that of the relaxation at Y.

    Yields
    ------
    complex128 array (n,) of modulus 1; the phase of 0 is 1.
    """
    Y = np.asarray(Y)
    rng = np.random.default_rng(rng)
    for start in range(0, trials, batch):
        G = rng.standard_normal((min(batch, trials - start), Y.shape[1], 2)) @ [1, 1j]
        for z in G @ Y.T:
            size = np.abs(z)
            yield np.divide(z, size, out=np.ones_like(z), where=size > 0)


def cut_value(W: Any, x: np.ndarray) -> float:
    """Weight ``1/4 sum_ij W_ij (1 - x_i x_j)`` of the edges between the two sides of x, each counted once.

    W is the symmetric adjacency (n, n), sparse or dense; only its upper triangle is read. The sum is correctly
    rounded: exact for integer weights below 2**53.
    """
    W = sparse.csr_array(W)
    rows = np.repeat(np.arange(W.shape[0]), np.diff(W.indptr))
    x = np.asarray(x)
    return math.fsum(W.data[(rows < W.indices) & (x[rows] != x[W.indices])])


def local_search(W: Any, x: np.ndarray) -> np.ndarray:
    """A copy of the cut x (n,) of the graph W (n, n), improved until no single flip increases it."""
    from .kernels.local_search import one_flip

    W = sparse.csr_array(W)
    x = np.array(x, dtype=np.int8)
    one_flip(W.indptr, W.indices, np.asarray(W.data, dtype=float), x, np.empty(x.size), np.empty(x.size))
    return x
