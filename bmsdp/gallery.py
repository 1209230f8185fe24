"""Named, seeded instances for tests, examples and benchmarks.

Costs C of problems with unit diagonal are arrays or CSR; graphs are symmetric weighted adjacencies W in CSR with zero
diagonal (the cost of their max-cut relaxation is ``bmsdp.applications.maxcut.laplacian_cost(W)``). Every random
instance is a function of its arguments and of ``rng``: a seed, a Generator, or None for fresh entropy (SPEC 7).

Adversarial costs share one form. For rows V on the unit sphere with ``V^T 1 = 0``, P the projector on range(V) and J
the matrix of ones, ``C = t (I - P - J/n) - tau0 J/n`` has the unique optimum X = J of value -n tau0, while V itself is
critical with value 0, multipliers 0 and slack C: the certificate has to say so, and the rank has to grow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
from scipy import sparse


def _csr(n: int, i: np.ndarray, j: np.ndarray, w: np.ndarray) -> sparse.csr_array:
    """Symmetric n x n CSR from entries of one triangle; duplicates are summed."""
    i, j = np.asarray(i, dtype=np.int32), np.asarray(j, dtype=np.int32)
    entries = np.concatenate([w, w]).astype(float)
    W = sparse.csr_array((entries, (np.concatenate([i, j]), np.concatenate([j, i]))), shape=(n, n))
    W.sum_duplicates()
    return W


def _pairs(n: int, p: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Each pair i < j < n with probability p, in O(number) memory; (i, j) has index j (j - 1)/2 + i."""
    total = n * (n - 1) // 2
    e = rng.choice(total, rng.binomial(total, p), replace=False, shuffle=False) if total else np.empty(0, dtype=int)
    j = ((1 + np.sqrt(1 + 8.0 * e)) / 2).astype(np.int64)
    j -= j * (j - 1) // 2 > e
    j += j * (j + 1) // 2 <= e
    return e - j * (j - 1) // 2, j


def goe(n: int, rng: Any = None) -> np.ndarray:
    """Dense real cost (n, n): off-diagonal N(0, 1), zero diagonal.

    The optimum over the unit diagonal, divided by n**1.5, tends to -2 (about -1.67 at n = 100, -1.82 at n = 400);
    Montanari & Sen 2016.
    """
    upper = np.triu(np.random.default_rng(rng).standard_normal((n, n)), 1)
    return upper + upper.T


def gue(n: int, rng: Any = None) -> np.ndarray:
    """Dense complex Hermitian cost (n, n) with E|W_ij|^2 = 1, the diagonal being real N(0, 1).

    The optimum over the unit diagonal is at least n lambda_min, about -2 n**1.5.
    """
    re, im = np.random.default_rng(rng).standard_normal((2, n, n))
    upper = np.triu(re + 1j * im, 1) / np.sqrt(2)
    return upper + upper.conj().T + np.diag(np.diag(re))


def gnp(n: int, p: float, rng: Any = None) -> sparse.csr_array:
    """Erdos-Renyi graph G(n, p), unit weights; memory O(edges), so p = 10/n at n = 10**6 takes seconds."""
    i, j = _pairs(n, p, np.random.default_rng(rng))
    return _csr(n, i, j, np.ones(i.size))


def random_regular(n: int, d: int, rng: Any = None) -> sparse.csr_array:
    """Simple d-regular graph, unit weights: random pairing of half-edges, then switches until simple.

    Close to uniform for fixed d. The optimum of max 1/4 <L, X> is at most n (d/4 + sqrt(d - 1)/2 + o(1)), which is
    n/4 lambda_max(L) (Friedman 2008).
    """
    if not 0 <= d < n or n * d % 2:
        raise ValueError(f"n = {n}, d = {d}: a regular graph needs 0 <= d < n and n d even")
    rng = np.random.default_rng(rng)
    if 2 * d >= n:
        rest = random_regular(n, n - 1 - d, rng)
        i, j = np.nonzero(np.triu(rest.toarray() == 0, 1))
        return _csr(n, i, j, np.ones(i.size))
    keys = None
    while keys is None:
        keys = _switched(n, rng.permutation(np.repeat(np.arange(n), d)).reshape(-1, 2), rng)
    return _csr(n, keys // n, keys % n, np.ones(keys.size))


def _switched(n: int, edges: np.ndarray, rng: np.random.Generator, rounds: int = 200) -> np.ndarray | None:
    """Keys n i + j of a simple graph: loops and parallels uv and random xy become ux, vy where both are new.

    None when that got stuck; ``edges`` is overwritten.
    """
    for _ in range(rounds):
        keys = n * edges.min(axis=1) + edges.max(axis=1)
        present, first = np.unique(keys, return_index=True)
        good = np.zeros(keys.size, dtype=bool)
        good[first] = True
        good &= edges[:, 0] != edges[:, 1]
        if good.all():
            return keys
        bad, partner = rng.permutation(np.flatnonzero(~good)), rng.permutation(np.flatnonzero(good))
        bad, partner = bad[: partner.size], partner[: bad.size]
        ends = np.concatenate([edges[bad], rng.permuted(edges[partner], axis=1)], axis=1)
        new = ends[:, [[0, 2], [1, 3]]]
        fresh = n * new.min(axis=2) + new.max(axis=2)
        _, where, counts = np.unique(fresh, return_inverse=True, return_counts=True)
        once = counts[where].reshape(fresh.shape) == 1
        ok = (once & ~np.isin(fresh, present) & (new[..., 0] != new[..., 1])).all(axis=1)
        edges[bad[ok]], edges[partner[ok]] = new[ok, 0], new[ok, 1]
    return None


def toroidal_grid(rows: int, cols: int, rng: Any = None, weights: str = "pm1") -> sparse.csr_array:
    """Square grid on a torus, vertex (r, c) being r cols + c.

    Weights: "pm1" (random signs), "gaussian", "lognormal" (random signs, logarithms of the sizes N(0, 1.5^2)) or "unit".

    The signed tori of the G-set (G11, G32, G67) have degenerate optima: rank deficient in Y, Hessian singular. With
    unit weights and even sides the graph is bipartite, and the maximum cut is 2 rows cols.
    """
    if min(rows, cols) < 3:
        raise ValueError(f"a {rows} x {cols} torus has loops or parallel edges; take at least 3 x 3")
    rng = np.random.default_rng(rng)
    v = np.arange(rows * cols).reshape(rows, cols)
    i = np.concatenate([v, v]).ravel()
    j = np.concatenate([np.roll(v, -1, axis=1), np.roll(v, -1, axis=0)]).ravel()
    draw = {
        "pm1": lambda m: rng.choice([-1.0, 1.0], m), "gaussian": rng.standard_normal, "unit": np.ones,
        "lognormal": lambda m: rng.lognormal(0, 1.5, m) * rng.choice([-1.0, 1.0], m),
    }  # fmt: skip
    if weights not in draw:
        raise ValueError(f"weights = {weights!r}; take one of {', '.join(draw)}")
    return _csr(v.size, i, j, draw[weights](i.size))


def planted_partition(n: int, k: int, p_in: float, p_out: float, rng: Any = None) -> sparse.csr_array:
    """Communities ``np.arange(n) * k // n``; edges with probability p_in inside, p_out between; unit weights."""
    rng = np.random.default_rng(rng)
    label = np.arange(n) * k // n
    i, j = _pairs(n, p_out, rng)
    between = label[i] != label[j]
    parts = [(i[between], j[between])]
    for start, size in np.transpose(np.unique(label, return_index=True, return_counts=True)[1:]):
        parts.append(start + np.array(_pairs(size, p_in, rng)))
    i, j = np.concatenate(parts, axis=1)
    return _csr(n, i, j, np.ones(i.size))


def hubs(n: int, rng: Any = None, count: int = 3, degree: float = 4.0) -> sparse.csr_array:
    """Graph of mean degree about ``degree`` in which the first ``count`` vertices also see half of all others."""
    rng = np.random.default_rng(rng)
    i, j = _pairs(n, min(1.0, degree / max(n - 1, 1)), rng)
    hub, leaf = np.nonzero(rng.random((min(count, n), n)) < 0.5)
    rest = i >= count
    apart = hub < leaf
    i, j = np.concatenate([i[rest], hub[apart]]), np.concatenate([j[rest], leaf[apart]])
    return _csr(n, i, j, np.ones(i.size))


def wide_weights(n: int, p: float, decades: float = 6, rng: Any = None) -> sparse.csr_array:
    """G(n, p) with weights of random sign and log-uniform size in 10**[-decades/2, decades/2]."""
    rng = np.random.default_rng(rng)
    i, j = _pairs(n, p, rng)
    size = 10.0 ** rng.uniform(-decades / 2, decades / 2, i.size)
    return _csr(n, i, j, size * rng.choice([-1.0, 1.0], i.size))


def random_radii(n: int, decades: float = 3, rng: Any = None) -> np.ndarray:
    """Positive b (n,) for diag(X) = b, log-uniform in 10**[-decades/2, decades/2]."""
    return 10.0 ** np.random.default_rng(rng).uniform(-decades / 2, decades / 2, n)


def rank_one_optimal(n: int, rng: Any = None, cond: float = 10.0) -> tuple[np.ndarray, np.ndarray, float]:
    """Cost with zero diagonal whose optimum over the unit diagonal is ``x x^T``, x random signs.

    ``C = L - diag(L)`` with L x = 0 and the other eigenvalues of L log-spaced in [1, cond], so the slack is L and
    the optimum -tr L, strictly complementary. For ``cond < k`` every second-order point of rank k is optimal, and
    that is sharp (Rakoto Endor & Waldspurger 2024).

    Returns
    -------
    C (n, n), x (n,) of -1 and +1, optimum
    """
    rng = np.random.default_rng(rng)
    x = rng.choice([-1.0, 1.0], n)
    Q = np.linalg.qr(np.column_stack([x, rng.standard_normal((n, n - 1))]))[0][:, 1:]
    eigenvalues = np.geomspace(1, cond, n - 1)
    C = (Q * eigenvalues) @ Q.T
    C = (C + C.T) / 2
    np.fill_diagonal(C, 0)
    return C, x, -float(eigenvalues.sum())


def _spurious(V: np.ndarray, t: float, tau0: float) -> np.ndarray:
    n = len(V)
    Q = np.linalg.qr(V)[0]
    C = t * (np.eye(n) - Q @ Q.conj().T) - (t + tau0) / n
    return (C + C.conj().T) / 2


def n_gon(n: int, t: float, tau0: float = 1.0) -> tuple[np.ndarray, np.ndarray, float]:
    """Cost for which the regular n-gon (k = 2, n >= 5) is a spurious local minimum if and only if t > tau0.

    After Waldspurger & Waters 2020. Optimum -n tau0 at X = J only; at V: cost 0, slack C, lambda_min(C) = -tau0, and
    a Hessian of the cost with smallest eigenvalue min(0, t - tau0), its zero modes being the rotation.

    Returns
    -------
    C (n, n), V (n, 2), optimum
    """
    if n < 5:
        raise ValueError(f"n = {n}: an n-gon can be spurious from n = 5 on")
    angle = 2 * np.pi * np.arange(n) / n
    V = np.column_stack([np.cos(angle), np.sin(angle)])
    return _spurious(V, t, tau0), V, -n * tau0


def waldspurger_waters(
    n: int, k: int, rng: Any = None, tau0: float = 1.0, margin: float = 1.01
) -> tuple[np.ndarray, np.ndarray, float]:
    """Cost with a random spurious local minimum V of rank k, for n >= k (k + 3) / 2; after Waldspurger & Waters 2020.

    V is strict up to its k (k - 1) / 2 rotations, so it survives small perturbations. Here
    ``t = margin n tau0 / s^2``, s the smallest singular value of the part of V orthogonal to the products of its
    columns; margin > 1 suffices. Optimum -n tau0 at X = J only. For almost every cost no such point exists
    once k (k + 1) / 2 > n.

    Returns
    -------
    C (n, n), V (n, k), optimum
    """
    if not 2 <= k <= n or 2 * n < k * (k + 3):
        raise ValueError(f"n = {n}, k = {k}: needs k >= 2 and n >= k (k + 3) / 2 = {k * (k + 3) // 2}")
    rng = np.random.default_rng(rng)
    V = np.ones((n, k))
    while np.abs(V.sum(axis=0)).max() > 1e-14 * n:
        V = rng.standard_normal((n, k))
        for _ in range(1000):
            V -= V.mean(axis=0)
            V /= np.linalg.norm(V, axis=1, keepdims=True)
    a, b = np.triu_indices(k)
    E = np.linalg.qr(V[:, a] * V[:, b])[0]
    s = float(np.linalg.norm(V - E @ (E.T @ V), -2))
    return _spurious(V, margin * n * tau0 / s**2, tau0), V, -n * tau0


def complex_triangle(t: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Hermitian cost (3, 3) for which V = (1, w, w^2), w^3 = 1, is spurious at k = 1 if and only if t > 1.

    The complex analogue of :func:`n_gon` with tau0 = 1: optimum -3 at X = J only, reached from everywhere at k = 2.

    Returns
    -------
    C (3, 3), V (3, 1), optimum
    """
    V = np.exp(2j * np.pi / 3 * np.arange(3))[:, None]
    return _spurious(V, t, 1.0), V, -3.0


def ocarroll(k: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Cost (2k, 2k) with a spurious local minimum at rank k = n/2; O'Carroll, Srinivas & Vijayaraghavan 2022.

    ``A = [[M, M], [M, M]]``, M = 1 on the diagonal and -1/(k - 1.5) off it. The axial point [I; -I] has cost 0, slack
    A with smallest eigenvalue -1/(k - 1.5), a positive semidefinite Hessian with k (k - 1) zeros; any perturbation of
    the cost frees it. Optimum -2k/(k - 1.5), at X = J.

    Returns
    -------
    A (2k, 2k), Y (2k, k), optimum
    """
    if k < 2:
        raise ValueError(f"k = {k}: the axial point exists from k = 2 on")
    M = np.full((k, k), -1 / (k - 1.5))
    np.fill_diagonal(M, 1)
    return np.block([[M, M], [M, M]]), np.vstack([np.eye(k), -np.eye(k)]), -2 * k / (k - 1.5)


def orthogonal_synchronization(
    q: int, d: int, noise: float, rng: Any = None, p: float = 1.0
) -> tuple[np.ndarray | sparse.csr_array, np.ndarray]:
    """Cost for q orthogonal d x d blocks: ``C_[ij] = -(R_i R_j^T + noise N_ij)`` on the edges of G(q, p), 0 elsewhere.

    N_ij is Gaussian, N_ji its transpose. Without noise the optimum over X_[ii] = I is -2 d |edges|, at X = R R^T.

    Returns
    -------
    C (q d, q d): dense for p = 1, else CSR;  R (q d, d): the orthogonal blocks that were planted
    """
    rng = np.random.default_rng(rng)
    R = np.linalg.qr(rng.standard_normal((q, d, d)))[0] * rng.choice([-1.0, 1.0], (q, 1, d))
    i, j = _pairs(q, p, rng)
    blocks = -(R[i] @ R[j].transpose(0, 2, 1) + noise * rng.standard_normal((i.size, d, d)))
    a = np.arange(d)
    rows, cols = np.broadcast_arrays(d * i[:, None, None] + a[:, None], d * j[:, None, None] + a)
    C = _csr(q * d, rows.ravel(), cols.ravel(), blocks.ravel())
    return (C.toarray() if p == 1 else C), R.reshape(q * d, d)


def rotation_graph(
    n: int, d: int = 3, noise: float = 0.1, outliers: float = 0.0, rng: Any = None, p: float = 0.1
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Relative rotations ``M_e = exp(N_e) R_i R_j^T`` on the path 0, 1, ..., n - 1 and other pairs with probability p.

    N_e is skew-symmetric with entries N(0, noise^2), in radians; each edge off the path is an outlier, uniform in SO(d), with probability
    ``outliers``.

    Returns
    -------
    i, j (E,), M (E, d, d), R (n, d, d), outlier (bool, E)
    """
    rng = np.random.default_rng(rng)

    def uniform(count: int) -> np.ndarray:
        Q = np.linalg.qr(rng.standard_normal((count, d, d)))[0] * rng.choice([-1.0, 1.0], (count, 1, d))
        Q[:, 0] *= np.linalg.det(Q)[:, None]
        return Q

    R, (a, b) = uniform(n), _pairs(n, p, rng)
    off = b > a + 1
    i, j = np.concatenate([np.arange(n - 1), a[off]]), np.concatenate([np.arange(1, n), b[off]])
    N = np.triu(noise * rng.standard_normal((i.size, d, d)), 1)
    M = scipy.linalg.expm(N - N.transpose(0, 2, 1)) @ R[i] @ R[j].transpose(0, 2, 1)
    outlier = (rng.random(i.size) < outliers) & (np.arange(i.size) >= n - 1)
    M[outlier] = uniform(int(outlier.sum()))
    return i, j, M, R, outlier
