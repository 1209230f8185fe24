"""The objective as a matrix, with and without translations."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ...schur import SchurOperator
from .graph import PoseGraph


def centre(graph: PoseGraph) -> int:
    """A pose in the middle of the graph, from which none is far: rounding errors grow with the distance from the origin."""
    i, j = graph.edges.T
    used = (graph.kappa > 0) & (graph.tau > 0)
    length = 1e-6 + np.linalg.norm(graph.t, axis=1)
    links = sparse.csr_array((length[used], (i[used], j[used])), shape=(graph.n, graph.n))

    def distances(start: int) -> np.ndarray:
        return np.asarray(sparse.csgraph.dijkstra(links, directed=False, indices=start))

    one = int(np.argmax(distances(0)))
    from_one = distances(one)
    return int(np.argmin(np.maximum(from_one, distances(int(np.argmax(from_one))))))


def matrix(graph: PoseGraph, anchor: int) -> sparse.csr_array:
    """C with ``<C, YY^T>`` the objective, ``Y = [R_1^T; ...; R_n^T; t_1^T; ...]`` without the row of the anchor, which is 0.

    n d + n - 1 rows; exactly symmetric.  ``|R_j - R_i R_ij|^2`` and ``|t_j - t_i - R_i t_ij|^2`` expanded, edge by edge.
    """
    (i, j), d, n = graph.edges.T, graph.d, graph.n
    R, t, kappa, tau = graph.R, graph.t, graph.kappa, graph.tau
    rows, columns, data = [], [], []

    def add(row: np.ndarray, column: np.ndarray, value: np.ndarray) -> None:
        row, column, value = np.broadcast_arrays(row, column, value)
        rows.append(np.minimum(row, column).ravel())
        columns.append(np.maximum(row, column).ravel())
        data.append(value.ravel())

    axis = np.arange(d)
    row_of = (np.arange(n)[:, None] * d + axis)[:, :, None]  # (n, d, 1)
    column_of = row_of.transpose(0, 2, 1)
    inner = np.zeros((n, d, d))
    for a in range(d):
        for b in range(a, d):
            inner[:, a, b] = np.bincount(i, tau * t[:, a] * t[:, b], n) + (a == b) * np.bincount(np.r_[i, j], np.r_[kappa, kappa], n)
    p, q = np.triu_indices(d)
    add(row_of[:, p, 0], column_of[:, 0, q], inner[:, p, q])
    add(row_of[i], column_of[j], -kappa[:, None, None] * R)
    place = n * d + np.arange(n) - (np.arange(n) > anchor)  # of each translation
    for end, sign in ((i, 1.0), (j, -1.0)):
        use = end != anchor
        add(row_of[i[use], :, 0], place[end[use]][:, None], (sign * tau[:, None] * t)[use])
    use = np.arange(n) != anchor
    add(place[use], place[use], np.bincount(np.r_[i, j], np.r_[tau, tau], n)[use])
    use = (i != anchor) & (j != anchor)
    add(place[i[use]], place[j[use]], -tau[use])
    size = n * d + n - 1
    where = np.concatenate(rows).astype(np.int32), np.concatenate(columns).astype(np.int32)
    upper = sparse.coo_array((np.concatenate(data), where), shape=(size, size)).tocsr()
    strict = sparse.triu(upper, 1, format="csr")
    C = sparse.csr_array(upper + strict.T)
    C.sort_indices()
    return C


def connection(graph: PoseGraph) -> sparse.csr_array:
    """The matrix of ``sum kappa |R_j - R_i R_ij|^2`` alone, n d x n d."""
    (i, j), d, n = graph.edges.T, graph.d, graph.n
    axis = np.arange(d)
    row, column = np.broadcast_arrays((i[:, None] * d + axis)[:, :, None], (j[:, None] * d + axis)[:, None, :])
    block = -graph.kappa[:, None, None] * graph.R
    weight = np.repeat(np.bincount(np.r_[i, j], np.r_[graph.kappa, graph.kappa], n), d)
    diagonal = np.arange(n * d)
    where = np.r_[row.ravel(), column.ravel(), diagonal], np.r_[column.ravel(), row.ravel(), diagonal]
    return sparse.csr_array((np.r_[block.ravel(), block.ravel(), weight], where), shape=(n * d, n * d))


def norm(graph: PoseGraph) -> float:
    """About the norm of C on rotations, a power of two: twice the largest sum of kappa at a pose."""
    i, j = graph.edges.T
    most = float(np.bincount(np.r_[i, j], np.r_[graph.kappa, graph.kappa], graph.n).max())
    return 2.0 ** np.ceil(np.log2(2 * most)) if most > 0 else 1.0


def cost_scale(graph: PoseGraph) -> float:
    """The smallest objective that counts as one in its relative gap: ``1e-7 |C| n d``, above what rounding makes of 0."""
    return 1e-7 * norm(graph) * graph.n * graph.d


def without_translations(graph: PoseGraph, anchor: int | None = None) -> SchurOperator:
    """The cost on rotations alone, translations being the best for them; of a connected graph."""
    return SchurOperator(matrix(graph, centre(graph) if anchor is None else anchor), graph.n * graph.d)
