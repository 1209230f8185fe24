"""First poses: chordal initialisation, or what a file gives."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from ...schur import definite
from ..synchronization.rounding import nearest
from .cost import connection
from .graph import PoseGraph

WEAK = 1e-10  # relative: added to a connection Laplacian whose weights do not make it definite


def chordal(graph: PoseGraph) -> np.ndarray:
    """Rotations (n, d, d) from ``min sum kappa |M_j - M_i R_ij|_F^2`` over all matrices with one of them I, then the nearest rotations.

    Martinec and Pajdla (CVPR 2007); Carlone, Tron, Daniilidis, Dellaert (ICRA 2015).  One sparse factorisation.
    """
    n, d = graph.n, graph.d
    L, weight = connection(graph), float(np.mean(graph.kappa))
    held = np.zeros(n * d)
    held[:d] = weight  # pose 0 is held softly: its own matrix, too, is only rounded afterwards
    right = np.zeros((n * d, d))
    right[:d] = weight * np.eye(d)
    for weak in (0.0, WEAK * weight, 1e-6 * weight, weight):
        factor = definite(sparse.csc_array(L + sparse.diags_array(held + weak)))
        if factor is not None:
            M = factor.solve(right).reshape(n, d, d)
            return nearest(M.transpose(0, 2, 1), True)
    raise ArithmeticError("a positive definite matrix has no factorisation")  # weights from 1e-150 to 1e150


def first_rotations(graph: PoseGraph, start: Any) -> np.ndarray:
    """What ``start`` asks for: "chordal", "given", or rotations (n, d, d) themselves."""
    if isinstance(start, str):
        if start == "chordal":
            return chordal(graph)
        if start == "given":
            if graph.poses is None:
                raise ValueError('start="given", but the graph has no poses; use "chordal"')
            return nearest(np.asarray(graph.poses[0], float), True)
        raise ValueError(f'start = {start!r}; it must be "chordal", "given" or rotations (n, d, d)')
    R = np.asarray(start, float)
    if R.shape != (graph.n, graph.d, graph.d) or not np.isfinite(R).all():
        raise ValueError(f"start has shape {R.shape}; finite rotations {(graph.n, graph.d, graph.d)} are needed")
    return nearest(R, True)


def dead_reckoning(graph: PoseGraph) -> tuple[np.ndarray, np.ndarray]:
    """Poses (n, d, d), (n, d) by measurements alone along a tree of shortest paths, in hops, from the first pose of each component."""
    n, d = graph.n, graph.d
    i, j = graph.edges.T
    every = np.concatenate([graph.edges, graph.edges[:, ::-1]])
    turn = np.concatenate([graph.R, graph.R.transpose(0, 2, 1)])
    move = np.concatenate([graph.t, -np.einsum("nqp,nq->np", graph.R, graph.t)])
    links = sparse.csr_array((np.ones(2 * graph.m), (np.r_[i, j], np.r_[j, i])), shape=(n, n))
    R, t = np.tile(np.eye(d), (n, 1, 1)), np.zeros((n, d))
    edge_of = dict(zip(map(tuple, every[::-1].tolist()), range(2 * graph.m - 1, -1, -1), strict=True))
    seen = np.zeros(n, bool)
    for root in range(n):
        if seen[root]:
            continue
        order, before = sparse.csgraph.breadth_first_order(links, root, directed=False)
        seen[order] = True
        for k in order[1:].tolist():
            parent = int(before[k])
            e = edge_of[parent, k]
            R[k], t[k] = R[parent] @ turn[e], t[parent] + R[parent] @ move[e]
    return R, t
