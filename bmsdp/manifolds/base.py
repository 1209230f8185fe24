"""What every manifold offers; the calculus is derived once in `bmsdp.problem`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..linear_maps import LinearMap


def as_real(Y: np.ndarray) -> np.ndarray:
    """The rows of a C-contiguous factor as real vectors: K^{n x k} is a real inner-product space."""
    return Y.view(np.float64) if Y.dtype.kind == "c" else Y


def row_dot(U: np.ndarray, V: np.ndarray) -> np.ndarray:
    """``Re<u_i, v_i>`` for every row, (n,)."""
    return np.einsum("ij,ij->i", as_real(U), as_real(V))


def inner(U: np.ndarray, V: np.ndarray) -> float:
    """``Re tr(U* V)``, the inner product of factors."""
    return float(np.vdot(U, V).real)


def gaussian(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Standard Gaussian factor; complex entries have independent parts."""
    if np.dtype(dtype).kind == "c":
        return rng.standard_normal((*shape, 2)).view(np.complex128)[..., 0]
    return rng.standard_normal(shape)


class Manifold(LinearMap):
    """``{Y in K^{n x k} : A(YY*) = b}``, stated by its constraints and its least-squares multipliers.

    The normal space at Y is ``{A*(mu) Y}``, so `multipliers` is all that gradient, Hessian and certificate need.

    Attributes
    ----------
    b : ndarray, (m,)
    row_trace : ndarray, (n,)
        A typical ``X_ii``; 0 on rows that no constraint bounds.  Sets the shift w, ``A*(w) = diag(1 / row_trace)``.
    min_rank : int
        Fewer columns than this admit no point.
    """

    b: np.ndarray
    row_trace: np.ndarray
    min_rank: int = 1

    def multipliers(self, Y: np.ndarray, G: np.ndarray, factor: Any = None) -> np.ndarray:
        """``argmin_mu |G - A*(mu) Y|``, (m,)."""
        raise NotImplementedError

    def retract(self, Y: np.ndarray, U: np.ndarray) -> np.ndarray:
        """A feasible point near ``Y + U``, of second order for tangent U; a new array."""
        raise NotImplementedError

    def random_point(self, k: int, rng: np.random.Generator, dtype: Any = np.float64) -> np.ndarray:
        """A random feasible n x k factor."""
        raise NotImplementedError

    def cover(self, e: np.ndarray) -> np.ndarray | None:
        """Multipliers w with ``A*(w) >= diag(e)`` for e >= 0 (n,), cheap in <b, w>; None where there are none."""
        raise NotImplementedError

    def defect(self, Y: np.ndarray) -> np.ndarray:
        """A bound on the distance from every row y_i to that of an exactly feasible point in closed form, (n,)."""
        raise NotImplementedError

    def factor(self, Y: np.ndarray) -> Any:
        """What `multipliers` reuses at one Y; None where they are in closed form."""
        return None

    @property
    def shift(self) -> np.ndarray | None:
        """The w with ``A*(w) = diag(1 / row_trace)``, so that ``<b, w> = n``; None where rows are unbounded."""
        return self.cover(1 / self.row_trace) if (self.row_trace > 0).all() else None

    @property
    def kappa(self) -> float:
        """A bound on ``|A*(mu)|_2 / |A*(mu) Y|_F`` over all mu and feasible Y: traces and identity blocks have ``1 / sqrt(min b)``."""
        positive = self.b[self.b > 0]
        return float(1 / np.sqrt(positive.min())) if positive.size else 0.0

    def project(self, Y: np.ndarray, V: np.ndarray, factor: Any = None) -> np.ndarray:
        """``V - A*(mu(V)) Y``, the tangent part of V."""
        return V - self.adjoint_mul(self.multipliers(Y, V, factor), Y)
