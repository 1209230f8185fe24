"""From data to the relaxation, and from its factors to blocks in the caller's shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from ...manifolds import Manifold, Oblique, StiefelProduct
from ...minimize import Solver
from ...problem import LocalModel, Problem
from ...solvers import Default, TrustRegion
from .measurements import Clouds, Data, Measurements, as_plane, measurements
from .rounding import nearest

FLOOR = 1e-3  # misfits below this part of that of random blocks are judged against it
LONG = 0.9  # eigenvalue d + 1 of the normalised measurements above which first-order methods are slow
SPARSE = 7  # blocks in a row, on average, up to which factors of the cost stay sparse


def as_data(data: Any, group: str | None = None) -> Data:
    """Measurements and Clouds as they are; tuples (i, j, blocks[, weights]) checked."""
    if isinstance(data, Measurements | Clouds):
        if group is not None and {"U(1)": "U", "Z2": "O"}.get(group, group) != data.group:
            raise ValueError(f'group = "{group}" but the data are in "{data.group}"; leave group None')
        return data
    if isinstance(data, tuple | list) and len(data) in (3, 4):
        return measurements(*data, group=group)
    raise ValueError(
        f"data is a {type(data).__name__}; (i, j, blocks), (i, j, blocks, weights), or what measurements, from_matrix or clouds return "
        "is needed"
    )


def check_connected(data: Data) -> None:
    """Refuse a graph of several components, with their sizes."""
    if not isinstance(data, Measurements):
        return
    sizes = np.bincount(data.components())
    if sizes.size > 1:
        shown = ", ".join(map(str, np.sort(sizes)[::-1][:8])) + (", ..." if sizes.size > 8 else "")
        raise ValueError(
            f"the graph of the measurements has {sizes.size} components, of {shown} vertices: blocks are determined within one only; "
            'add measurements between them, or solve each in a frame of its own: synchronize(data, components="each")'
        )


def size(data: Data) -> int:
    """Rows of the relaxation for each vertex."""
    return 1 if data.planar else data.d


def is_special(data: Data) -> bool:
    """Whether determinants have to be seen to."""
    return data.group == "SO" and not data.planar


def relaxation(data: Data, threads: int = 1) -> Problem:
    """``min <C, X>``, ``X_ii = I_d``, of data that were checked."""
    d = size(data)
    manifold: Manifold = Oblique(np.ones(data.n)) if d == 1 else StiefelProduct(data.n, d, data.group == "U")
    return Problem(data.cost(), manifold, cost_scale=FLOOR * data.scale(), threads=threads)


def default_solver(relaxed: Problem, second: float = 0.0) -> Solver:
    """What is fastest, by the data.

    Mixing has no fast step for dense blocks of several rows: L-BFGS takes over at once. Where eigenvalue d + 1 of `spectral` is close to
    1 as well, the graph is long and the noise small (rings, trajectories): first-order methods are slow, but where it has few edges
    the cost has a sparse factorisation that preconditions Newton steps.
    """
    C = relaxed.C.matrix()
    if isinstance(C, np.ndarray):
        return Default(window=1) if isinstance(relaxed.manifold, StiefelProduct) else Default()
    if C is not None and second > LONG and C.nnz <= SPARSE * C.shape[0] * getattr(relaxed.manifold, "d", 1):
        return TrustRegion(preconditioner=Factorised(C, relaxed))
    return Default()


class Factorised:
    """``V -> Proj((C/|C| + 1e-6)^-1 V)``, a preconditioner for `TrustRegion` where C has a cheap sparse factorisation (SE-Sync's)."""

    def __init__(self, C: Any, relaxed: Problem):
        scaled = sparse.csc_array(C) / relaxed.norm_C + 1e-6 * sparse.eye_array(C.shape[0], format="csc")
        self.manifold = relaxed.manifold
        self.lu = splu(sparse.csc_array(scaled), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})

    def __call__(self, model: LocalModel) -> Callable[[np.ndarray], np.ndarray]:
        return lambda V: self.manifold.project(model.Y, np.ascontiguousarray(self.lu.solve(V)), model.factor)


def widened(Y: np.ndarray, k: int, relaxed: Problem, rng: np.random.Generator) -> np.ndarray:
    """Y with more, small, columns, up to k (n at most), feasible: through them signs and determinants can change."""
    new = min(k, relaxed.n) - Y.shape[1]
    if new > 0:
        more = rng.standard_normal((relaxed.n, new)) * 1e-2
        Y = np.concatenate([Y, more.astype(relaxed.dtype)], axis=1)
    Y = np.ascontiguousarray(Y, relaxed.dtype)
    return relaxed.manifold.retract(Y, np.zeros_like(Y))


def blocks_of(data: Data, R: np.ndarray) -> np.ndarray:
    """The relaxation's orthogonal factor (n size, size) as blocks (n, d, d) of the data."""
    return as_plane(R.ravel()) if data.planar else R.reshape(data.n, data.d, data.d)


def factor_of(data: Data, start: Any) -> np.ndarray:
    """Blocks in the caller's shape as a factor (n size, size)."""
    R = np.asarray(start)
    shape = (data.n,) if data.scalar else (data.n, data.d, data.d)
    if R.shape != shape or R.dtype.kind not in "biufc" or not np.isfinite(R).all():
        raise ValueError(
            f"start has shape {R.shape} ({R.dtype}), or entries that are not finite; finite blocks of shape {shape} are needed"
        )
    if np.iscomplexobj(R) and data.group != "U":
        raise ValueError(f'start is complex but the data are in "{data.group}"; real blocks are needed')
    blocks = nearest(R.reshape(data.n, data.d, data.d), data.group == "SO")
    return blocks[:, :1, 0] + 1j * blocks[:, 1:, 0] if data.planar else blocks.reshape(-1, data.d)


def shaped(data: Data, blocks: np.ndarray) -> np.ndarray:
    """Blocks (n, d, d) as the caller gave measurements: signs int8 (n,), phases complex (n,), or as they are."""
    if not data.scalar:
        return blocks
    return blocks.ravel() if data.group == "U" else np.sign(blocks.ravel()).astype(np.int8)
