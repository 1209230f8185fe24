r"""Better multipliers than the point's own, for its certificate (floor L4).

The least-squares multipliers make ``S Y`` small, but eigenvalues of the small matrix ``V* S V``, V the directions that carry Y, may be
negative by as much as ``S Y / sigma``, and ``n`` times the lowest is what the bound loses: an error of the first order in the distance to
the optimum, where that of the cost is of second order.  At the optimum ``V* S V = 0``.  So take the smallest correction that makes it zero,

    delta = argmin |delta|  s.t.  V* A*(delta) V = V* S V,    delta = A(V Lambda V*),

a linear system in the Hermitian r x r matrix Lambda; what is left is of second order, ``|(I - VV*) S V|^2`` over the gap of the spectrum.
Any multipliers give a valid bound, so that nothing here has to be exact.  (The same equations are Newton's for multiple eigenvalues:
Overton, "Large-scale optimization of eigenvalues", 1992.)
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from .manifolds.base import inner
from .problem import LocalModel

JUMP = 3.0  # ratio of residuals |S u| between directions that carry Y and those that vanish
TRIED = 3  # largest jumps that are tried
FLOPS = 3e9  # of the largest normal matrix


def sharpened(model: LocalModel, weight: np.ndarray) -> LocalModel | None:
    """The model with other multipliers, where Rayleigh quotients promise a higher bound; None where nothing better was found.

    Parameters
    ----------
    model : LocalModel
    weight : ndarray, (n,)
        The diagonal of W, by whose multiples S is shifted.

    Cost
    ----
    Three products with C and ``m r^4 / 4`` flops, r the rank of Y (``m r^4`` for complex data).
    """
    root = np.sqrt(weight)[:, None]
    square, R = np.linalg.eigh((root * model.Y).conj().T @ (root * model.Y))
    U = model.Y @ R[:, ::-1] / np.sqrt(np.maximum(square[::-1], 1e-30 * square[-1]))  # W-orthonormal, by falling singular value
    SU = model.slack_mul(np.ascontiguousarray(U))
    residual = np.linalg.norm(SU / root, axis=0)
    jumps = residual[1:] / np.maximum(residual[:-1], 1e-300)
    basis = np.linalg.qr(np.concatenate([root * U, SU / root], axis=1))[0] / root
    best, highest = None, predicted(model, basis)
    for r in sorted(1 + np.argsort(-jumps)[:TRIED]):
        if jumps[r - 1] < JUMP or model.problem.manifold.m * float(r) ** 4 > 4 * FLOPS:
            continue
        delta = correction(model, np.ascontiguousarray(U[:, :r]), SU[:, :r])
        if delta is None:
            continue
        other = model.with_multipliers(model.mu + delta)
        bound = predicted(other, basis)
        if bound > highest:
            best, highest = other, bound
    return best


def correction(model: LocalModel, V: np.ndarray, SV: np.ndarray) -> np.ndarray | None:
    """The smallest delta with ``V* A*(delta) V = V* S V``, (m,); None where there is none."""
    manifold, r = model.problem.manifold, V.shape[1]
    column = [np.ascontiguousarray(V[:, [a]]) for a in range(r)]
    units: list[tuple[complex, int, int]] = [(1.0, a, b) for a in range(r) for b in range(a, r)]
    if V.dtype.kind == "c":
        units += [(1j, a, b) for a in range(r) for b in range(a + 1, r)]
    if len(units) > manifold.m:
        return None
    K = np.empty((len(units), manifold.m))
    B = np.empty(len(units))
    for row, (unit, a, b) in enumerate(units):
        K[row] = manifold.apply(column[a], unit * column[b])
        B[row] = inner(unit * column[b], SV[:, [a]])
    try:
        Lambda = scipy.linalg.solve(K @ K.T + 1e-13 * float(np.max(np.sum(K * K, axis=1))) * np.eye(len(B)), B, assume_a="pos")
    except np.linalg.LinAlgError:
        return None
    delta: np.ndarray = K.T @ Lambda
    return delta if np.isfinite(delta).all() else None


def predicted(model: LocalModel, basis: np.ndarray) -> float:
    """The bound that the lowest Rayleigh quotient in the span of a W-orthonormal basis allows."""
    S = basis.conj().T @ model.slack_mul(np.ascontiguousarray(basis))
    return model.dual_value + model.problem.n * min(float(np.linalg.eigvalsh((S + S.conj().T) / 2)[0]), 0.0)
