"""Our problems under pymanopt's optimizers.

>>> import numpy as np, bmsdp, pymanopt
>>> from bmsdp.interfaces.pymanopt import to_pymanopt
>>> problem = bmsdp.Problem(np.array([[0.0, 1], [1, 0]]), bmsdp.Oblique([1.0, 1.0]))
>>> result = pymanopt.optimizers.TrustRegions(verbosity=0).run(to_pymanopt(problem, rank=2, rng=0))
>>> round(bmsdp.certify(problem.at(result.point)).bound, 6)
-2.0
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ..manifolds import Manifold, Product
from ..manifolds.base import gaussian, inner
from ..problem import LocalModel, Problem
from ..staircase import start_rank


def to_pymanopt(problem: Problem, rank: int | None = None, rng: Any = None) -> Any:
    """A ``pymanopt.Problem`` whose cost is the merit of ours, with its Riemannian gradient and Hessian (NumPy backend).

    Parameters
    ----------
    problem : Problem
        Real or complex, on any of our manifolds, with or without terms.
    rank : int, optional
        Columns of the points, n x rank arrays; those that `bmsdp.staircase` starts with by default.
    rng : Generator or seed
        Of the random points and tangent vectors that the optimizers ask for.

    Returns
    -------
    pymanopt.Problem
        Its manifold is a pymanopt manifold too; a result's ``point`` is a factor Y for ``problem.at(Y)`` and `bmsdp.certify`.
    """
    import pymanopt

    k = start_rank(problem) if rank is None else rank
    wrapped = wrap_manifold(problem.manifold, k, problem.dtype, rng)
    last: list[LocalModel] = []

    def at(Y: np.ndarray) -> LocalModel:
        # optimizers ask for cost, gradient and Hessian at one point, one by one
        if not (last and last[0].Y.shape == Y.shape and np.array_equal(last[0].Y, Y)):
            last[:] = [problem.at(np.array(Y, problem.dtype, order="C"))]
        return last[0]

    @pymanopt.function.numpy(wrapped)
    def cost(Y: np.ndarray) -> float:
        return at(Y).merit

    @pymanopt.function.numpy(wrapped)
    def gradient(Y: np.ndarray) -> np.ndarray:
        return at(Y).grad.copy()

    @pymanopt.function.numpy(wrapped)
    def hessian(Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        return at(Y).hess(np.ascontiguousarray(U, problem.dtype))

    return pymanopt.Problem(wrapped, cost, riemannian_gradient=gradient, riemannian_hessian=hessian)


def wrap_manifold(manifold: Manifold, k: int, dtype: Any = np.float64, rng: Any = None) -> Any:
    """One of our manifolds, with k columns, as a pymanopt manifold: for costs of your own, and their automatic derivatives.

    Distances are those of the ambient space, ``log(Y, Z) = Proj_Y(Z - Y)`` is minus the gradient of half their square, and vectors
    are transported by projection.
    """
    return _wrapper()(manifold, k, np.dtype(dtype), np.random.default_rng(rng))


class _Methods:
    """What pymanopt asks of a manifold."""

    def __init__(self, manifold: Manifold, k: int, dtype: np.dtype, rng: np.random.Generator):
        self.manifold, self.k, self.dtype, self.rng = manifold, k, dtype, rng
        start = self.random_point()
        self._typical = float(np.linalg.norm(start))
        real_entries = start.size * (2 if dtype.kind == "c" else 1)
        name = f"{type(manifold).__name__} of {manifold.n} x {k} {'complex' if dtype.kind == 'c' else 'real'} matrices (bmsdp)"
        super().__init__(name, real_entries - _normal_dimension(manifold, start))  # type: ignore[call-arg]  # pymanopt's

    @property
    def typical_dist(self) -> float:
        return self._typical

    def inner_product(self, point: np.ndarray, tangent_vector_a: np.ndarray, tangent_vector_b: np.ndarray) -> float:
        return inner(tangent_vector_a, tangent_vector_b)

    def norm(self, point: np.ndarray, tangent_vector: np.ndarray) -> float:
        return float(np.linalg.norm(tangent_vector))

    def projection(self, point: np.ndarray, vector: np.ndarray) -> np.ndarray:
        Y, V = (np.ascontiguousarray(M, self.dtype) for M in (point, vector))
        return self.manifold.project(Y, V, self.manifold.factor(Y))

    to_tangent_space = projection

    def weingarten(self, point: np.ndarray, tangent_vector: np.ndarray, normal_vector: np.ndarray) -> np.ndarray:
        Y, N, U = (np.ascontiguousarray(M, self.dtype) for M in (point, normal_vector, tangent_vector))
        factor = self.manifold.factor(Y)
        curved = self.manifold.adjoint_mul(self.manifold.multipliers(Y, N, factor), U)
        return -self.manifold.project(Y, curved, factor)

    def retraction(self, point: np.ndarray, tangent_vector: np.ndarray) -> np.ndarray:
        return self.manifold.retract(*(np.ascontiguousarray(M, self.dtype) for M in (point, tangent_vector)))

    def transport(self, point_a: np.ndarray, point_b: np.ndarray, tangent_vector_a: np.ndarray) -> np.ndarray:
        return self.projection(point_b, tangent_vector_a)

    def dist(self, point_a: np.ndarray, point_b: np.ndarray) -> float:
        return float(np.linalg.norm(point_a - point_b))

    def log(self, point_a: np.ndarray, point_b: np.ndarray) -> np.ndarray:
        return self.projection(point_a, point_b - point_a)

    def pair_mean(self, point_a: np.ndarray, point_b: np.ndarray) -> np.ndarray:
        return self.retraction(point_a, self.log(point_a, point_b) / 2)

    def random_point(self) -> np.ndarray:
        return self.manifold.random_point(self.k, self.rng, self.dtype)

    def random_tangent_vector(self, point: np.ndarray) -> np.ndarray:
        U = self.projection(point, gaussian(self.rng, point.shape, self.dtype))
        size = float(np.linalg.norm(U))
        return U / size if size > 0 else U

    def zero_vector(self, point: np.ndarray) -> np.ndarray:
        return np.zeros_like(point)


@functools.cache
def _wrapper() -> type:
    """The class, which exists once pymanopt was imported."""
    from pymanopt.manifolds.manifold import RiemannianSubmanifold

    class Wrapped(_Methods, RiemannianSubmanifold):
        pass

    return Wrapped


def _normal_dimension(manifold: Manifold, Y: np.ndarray) -> int:
    """The dimension of the normal space: redundant constraints do not count."""
    if isinstance(manifold, Product):
        return sum(_normal_dimension(part, Y[r]) for part, r in zip(manifold.parts, manifold.rows, strict=True))
    factor = manifold.factor(Y)
    return manifold.m if factor is None else int(factor.rank)
