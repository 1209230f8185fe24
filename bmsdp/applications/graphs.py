"""Graphs as users have them (networkx, adjacency, edges) and as applications want them: a symmetric CSR array."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy import sparse


def adjacency(graph: Any, n: int | None = None) -> sparse.csr_array:
    """The symmetric weighted adjacency (n, n) of a graph, without its self-loops, of which a warning tells.

    Parameters
    ----------
    graph : networkx graph, square array or scipy sparse, or edges
        As `bmsdp.applications.maxcut.problem` takes it.
    n : number of vertices, for edges only; default the largest index + 1. Given n, a square array too is edges.

    Raises
    ------
    ValueError
        Directed, asymmetric or empty graph; weights NaN or infinite; vertices out of range.
    """
    W = _adjacency(graph, n)
    loops = np.count_nonzero(W.diagonal())
    if loops:
        warnings.warn(f"{loops} self-loops are ignored: only edges between two vertices count", stacklevel=3)
    W = without_loops(W)
    if W.shape[0] == 0:
        raise ValueError("the graph has no vertices; at least one is needed (edges without vertices: pass n=)")
    if not np.isfinite(W.data).all():
        raise ValueError(f"{np.sum(~np.isfinite(W.data))} entries of the weights are NaN or infinite; remove the edges")
    return _symmetric(W)


def edges(W: Any) -> tuple[np.ndarray, np.ndarray]:
    """Ends i < j of the edges of an adjacency: its nonzero entries above the diagonal, row by row."""
    upper = sparse.triu(sparse.csr_array(W), 1, format="csr")
    upper.eliminate_zeros()
    upper.sort_indices()
    i, j = upper.tocoo().coords
    return i.astype(np.int64), j.astype(np.int64)


def non_edges(W: Any) -> tuple[np.ndarray, np.ndarray]:
    """Pairs i < j that are no edges of an adjacency, in O(n^2) memory: the edges of the complement."""
    free = np.triu(np.ones(W.shape, dtype=bool), 1)
    free[edges(W)] = False
    i, j = np.nonzero(free)
    return i, j


def without_loops(W: Any) -> sparse.csr_array:
    """W without its diagonal, in CSR."""
    W = sparse.coo_array(W)
    off = W.row != W.col
    return sparse.csr_array((W.data[off], (W.row[off], W.col[off])), shape=W.shape)


def _symmetric(W: sparse.csr_array) -> sparse.csr_array:
    difference = abs(W - W.T).tocoo()
    defect = difference.max() if difference.nnz else 0.0
    if defect > 1e-14 * abs(W).max():
        worst = difference.data.argmax()
        raise ValueError(
            f"the adjacency W is not symmetric: max |W - W.T| = {defect:g} at "
            f"({difference.row[worst]}, {difference.col[worst]}); pass (W + W.T) / 2 if that is meant, "
            "or W + W.T if each edge is stored once"
        )
    return sparse.csr_array((W + W.T) / 2) if defect else W


def _adjacency(graph: Any, n: int | None) -> sparse.csr_array:
    if hasattr(graph, "is_directed"):
        return _from_networkx(graph)
    if sparse.issparse(graph):
        if n is not None:
            raise ValueError(f"n = {n} is for edges; a sparse adjacency has its size in its shape {graph.shape}")
    elif n is not None or not isinstance(graph, np.ndarray) or graph.ndim != 2 or graph.shape[0] != graph.shape[1]:
        return _from_edges(graph, n)
    if graph.ndim != 2 or graph.shape[0] != graph.shape[1]:
        raise ValueError(f"the adjacency has shape {graph.shape}; it must be square")
    if np.iscomplexobj(graph):
        raise ValueError("the adjacency is complex; weights must be real")
    return sparse.csr_array(graph).astype(float)


def _from_networkx(graph: Any) -> sparse.csr_array:
    if graph.is_directed():
        raise ValueError("the graph is directed; edges without a direction are needed: pass graph.to_undirected()")
    index = {v: i for i, v in enumerate(graph)}
    return _assemble(len(index), _rows((index[u], index[v], w) for u, v, w in graph.edges(data="weight", default=1)))


def _rows(edges: Iterable[Any]) -> np.ndarray:
    try:
        rows = np.array([(i, j, *(w or (1,))) for i, j, *w in edges], dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the graph is neither a networkx graph, an adjacency nor edges (i, j) or (i, j, w) of numbers ({error}); "
            "vertices with names need a networkx graph"
        ) from None
    return rows if rows.size else np.empty((0, 3))


def _from_edges(graph: Any, n: int | None) -> sparse.csr_array:
    edges = graph if isinstance(graph, np.ndarray) else _rows(graph)
    if edges.ndim != 2 or edges.shape[1] not in (2, 3):
        raise ValueError(f"an array of shape {edges.shape} is neither a square adjacency nor rows (i, j) or (i, j, w)")
    if edges.shape[1] == 2:
        edges = np.column_stack([edges, np.ones(len(edges))])
    ends = edges[:, :2]
    n = int(ends.max(initial=-1)) + 1 if n is None else n
    wrong = np.flatnonzero(((ends < 0) | (ends >= n) | (ends != np.floor(ends))).any(axis=1))
    if wrong.size:
        raise ValueError(f"edge {wrong[0]} is {tuple(edges[wrong[0]])}; vertices must be integers from 0 to {n - 1}")
    repeated = len(ends) - np.unique(n * ends.min(axis=1) + ends.max(axis=1)).size
    if repeated:
        warnings.warn(f"{repeated} edges are repeated, as (i, j) or (j, i); weights are summed", stacklevel=5)
    return _assemble(n, edges)


def _assemble(n: int, edges: np.ndarray) -> sparse.csr_array:
    ends = np.sort(edges[:, :2].astype(np.int64), axis=1)
    upper = sparse.csr_array((edges[:, 2], (ends[:, 0], ends[:, 1])), shape=(n, n))
    return sparse.csr_array(upper + sparse.triu(upper, 1).T)
