r"""Verified bounds: what holds in exact arithmetic, for the data as given, by floating-point factorisation (floor L1).

`lower_bound` is the whole of it: the caller's C, A, b and any dual in, a number not above the optimum out.  It knows nothing of
solvers, manifolds or results.  With ``S = C - A*(y)`` and trace bounds ``X_ii <= r_i`` that rows of A state,

    S + t diag(1/r) >= -diag(e)  proved by `bmsdp.factorization`   ==>   optimum >= <b, y> - <b, w>,   A*(w) >= t diag(1/r) + diag(e),

every error of forming S, of its factorisation and of the final sum included; sums are directed.  Rows that nothing bounds are paid for
by multipliers with ``A*(w) >= theta I`` (`shift`, proved as well), by `trace_bound`, or not at all where S is definite with room to spare.
On the face that ``A_j >= 0, b_j = 0`` leaves of the cone (`bmsdp.facial`) all of this is said of ``V* S V``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .constraints import Constraints
from .factorization import UNIT
from .operators import Operator, as_operator
from .proof import NO_MATRIX, TOO_DENSE, Proof, VerifiedBound, facial_rows, sum_down, sum_up
from .slack_form import SlackForm

__all__ = ["NO_MATRIX", "TOO_DENSE", "SlackForm", "VerifiedBound", "cost_above", "lower_bound", "sum_down", "sum_up"]


def lower_bound(
    C: Any, A: Any = None, b: Any = None, dual: Any = None, *, A_geq: Any = None, b_geq: Any = None, dual_geq: Any = None,
    blocks: Any = None, trace_bound: float | None = None, shift: Any = None,
) -> VerifiedBound:  # fmt: skip
    """A number not above ``min <C, X>, A(X) = b, A_geq(X) >= b_geq, X >= 0``, proved from any multipliers.

    Parameters
    ----------
    C : ndarray, sparse array or LowRankPlusSparse
        n x n, real symmetric or complex Hermitian; the caller's original data.
    A : sequence of n x n matrices, m x n^2 sparse array, or a manifold, optional
        None means unit diagonal, or no rows where ``A_geq`` or ``blocks`` is given.
    b : array_like, (m,), optional
    dual : array_like, (m,)
        Any real multipliers y: good ones give a good bound, bad ones a bad one.  0 by default.
    A_geq, b_geq, dual_geq : optional
        The same for inequalities; negative multipliers count as 0.
    blocks : list, optional
        As for `bmsdp.solve`.
    trace_bound : float, optional
        ``tr X <= trace_bound`` for all feasible X (without its free variables), and ``|x_f| <= trace_bound`` for each of these,
        where rows of A do not say so.
    shift : pair of array_like, (m,) and (m_geq,), optional
        Multipliers (w, w_geq), ``w_geq <= 0``, with ``A*(w) + A_geq*(w_geq) >= I``, so that ``tr X <= <b, w> + <b_geq, w_geq>``; the
        claim is proved, or not believed.  `bmsdp.shift.trace_shift` finds some.

    Raises
    ------
    ValueError
        For a C without entries (a LinearOperator), whose factorisation is not affordable, or entries outside of the blocks.

    Cost
    ----
    One factorisation when ``C - A*(y)`` is positive definite or almost; a few when it is not.
    """
    if trace_bound is not None and not (np.isfinite(trace_bound) and trace_bound > 0):
        raise ValueError(f"trace_bound = {trace_bound}; a positive finite number is needed")
    rows = Constraints(as_operator(C), A, b, A_geq, b_geq, blocks, shift is not None)
    y, w = rows.multipliers(dual, dual_geq), rows.shift(shift)
    facial = facial_rows(rows)
    proof = Proof(rows, facial, trace_bound, w)
    found, tried = proof.run(y), 0
    inexact = [row for row in facial[1] if not row.exact]
    if inexact:  # uu* up to rounding only: X u = 0 is not implied, but a finite multiplier of this row may do
        y, tried = proof.finite, found.factorisations
        facial = facial[0], [row for row in facial[1] if row.exact]
        found = Proof(rows, facial, trace_bound, w).run(y, tried)
    return found


def cost_above(C: Operator, Y: np.ndarray, distance: np.ndarray) -> float | None:
    """The cost of any factor Z with rows ``|y_i - z_i| <= distance_i``, rounded up; None for a C without entries.

    ``|<y_i, y_j> - <z_i, z_j>| <= |y_i| d_j + |y_j| d_i + d_i d_j``, summed against |C|; and the rounding of ``sum_i <g_i, y_i>``, which
    is added exactly.
    """
    size = np.linalg.norm(Y, axis=1)
    reach = C.abs_mul(size)
    if reach is None:
        return None
    field = 3 if np.iscomplexobj(Y) else 1
    k = Y.shape[1] * field
    d = distance + (k + 6) * UNIT * size
    spread = 2 * float(d @ reach) + float(d @ C.abs_mul(d))
    rounding = (field * C.terms + k + 6 + C.rounding) * UNIT * float(size @ reach)
    rows = np.einsum("ij,ij->i", C.mul(Y).conj(), Y).real
    return sum_up(rows) + 1.001 * (spread + rounding)
