r"""Fewer columns at degenerate optima: drop to the numerical rank, polish there, and walk to a face of low rank (floor L5).

Where ``rank Y < k``, the gradient of surplus columns dies away no faster than the small eigenvalues of S let it, and where S has a larger
null space than range(Y) (no strict complementarity) the cost grows only quartically along them: first-order methods and Newton's alike
become sublinear.  At exact rank these directions are gone, and Newton's method is quadratic up to the gauge ``Y -> YQ``,
whose null space conjugate gradients never enter.  Two ways down:

- `drop`: the leading columns in the singular basis, retracted.  With ``S >= 0`` and ``S Y = 0`` the cost changes by
  ``O(sigma^2 |S u|)`` in the dropped ``sigma u v*``; `shrunk` tries it where the singular values show a gap, `polish` descends there.
- `reduce_rank` (Barvinok, 1995; Pataki, 1998): ``A(Y Delta Y*) = 0`` has a solution as long as dim Herm(r) > m, and often at degenerate
  optima below; ``I + t Delta`` becomes singular at some t, X stays feasible, and optimal because ``S Y = 0``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .certificate import certify as prove
from .manifolds.base import gaussian
from .manifolds.hermitian import pack, unpack
from .minimize import Record, Solver, descend
from .problem import LocalModel, Problem
from .result import Certificate
from .solvers import TrustRegion

FLOOR = 1e-4  # singular values below this part of the largest count as equally small: their ratios are of no interest
CLEAR = 10.0  # ratio of neighbouring singular values that counts as a gap
LARGE = 2**24  # entries above which the equations of `reduce_rank` are sketched
HASHES = 4  # nonzeros a column of the sketch


def rotate(Y: np.ndarray, blocks: list[slice] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Y in its singular basis, block by block: the columns of every block orthogonal, by falling length; X is unchanged.

    Parameters
    ----------
    Y : ndarray, n x k
    blocks : list of slice, optional
        Rows of each PSD block, one by default.

    Returns
    -------
    YQ : ndarray, n x k
    sigma : ndarray, (k,)
        Singular values, relative to the largest of their block; of all blocks the largest.

    Cost: a QR factorisation of Y, ``2 n k^2`` flops.
    """
    out, sigma = np.empty_like(Y), np.zeros(Y.shape[1])
    for rows in blocks if blocks is not None else [slice(0, len(Y))]:
        s, V = _singular_basis(Y[rows])
        out[rows] = Y[rows] @ V
        if s[0] > 0:
            sigma[: len(s)] = np.maximum(sigma[: len(s)], s / s[0])
    return out, sigma


def random_rotation(Y: np.ndarray, rng: Any = None, blocks: list[slice] | None = None) -> np.ndarray:
    """Y times a Haar random orthogonal (unitary) matrix of its own for every block: a generic gauge, no column is small; X is unchanged."""
    generator, k, out = np.random.default_rng(rng), Y.shape[1], np.empty_like(Y)
    for rows in blocks if blocks is not None else [slice(0, len(Y))]:
        Q, R = np.linalg.qr(gaussian(generator, (k, k), Y.dtype))
        phase = np.diag(R) / np.abs(np.diag(R))  # without it QR is not uniform (Mezzadri, 2007)
        out[rows] = Y[rows] @ (Q * phase)
    return out


def numerical_rank(sigma: Any, rtol: float = 0.2, ratio: float = CLEAR) -> int:
    """How many singular values there are before the widest gap; all of them where there is none.

    Parameters
    ----------
    sigma : array_like, (k,), falling
    rtol : float
        Only values below ``rtol sigma_1`` may be left out.
    ratio : float
        ``sigma_r / sigma_{r+1}`` that is a gap; values below ``1e-4 sigma_1`` count as that.
    """
    sigma = np.asarray(sigma, float)
    if sigma.ndim != 1 or not sigma.size or not np.isfinite(sigma).all() or (np.diff(sigma) > 0).any() or sigma[-1] < 0:
        raise ValueError(f"sigma = {sigma}; at least one singular value is needed, finite, not negative, by falling size")
    if not sigma[0] > 0:
        return 1
    s = np.maximum(sigma / sigma[0], FLOOR)
    ratios = np.where(s[1:] <= rtol, s[:-1] / s[1:], 0.0)
    if not ratios.size or ratios.max() < ratio:
        return int(np.sum(sigma > FLOOR * sigma[0]))
    return int(np.argmax(ratios)) + 1


def drop(problem: Problem, Y: np.ndarray, rank: int) -> np.ndarray:
    """The feasible point of ``rank`` columns next to Y: the leading ones of every block in its singular basis, retracted.

    Raises
    ------
    ValueError
        For a rank that is not in ``manifold.min_rank ... k``, or where the leading columns leave rows that no retraction mends.
    """
    least, k = problem.manifold.min_rank, Y.shape[1]
    if not least <= rank <= k:
        raise ValueError(f"rank = {rank}; Y has {k} columns and the manifold needs {least}: pass {least} to {k}")
    Z = np.ascontiguousarray(rotate(Y, problem.blocks)[0][:, :rank])
    out = _retracted(problem, Z)
    if out is None:
        raise ValueError(f"no feasible point of {rank} columns next to Y was found; keep more columns")
    return out


def shrunk(model: LocalModel, gap_abs: float, *, ratio: float = CLEAR) -> LocalModel | None:
    """The point of `drop` at the numerical rank, if that costs next to nothing.

    Parameters
    ----------
    gap_abs : float
        How far the cost may be from the optimum, in units of the cost; the merit may rise by a tenth of this.
    ratio : float
        The gap asked of the singular values (`numerical_rank`).

    Returns
    -------
    LocalModel or None
        A model with fewer columns, which owns its Y; None where the rank is not clear, or dropping costs too much.

    Cost: a QR factorisation of Y, and one product with C of the smaller rank where there is a gap.
    """
    problem, Y = model.problem, model.Y
    rank = max(numerical_rank(rotate(Y, problem.blocks)[1], ratio=ratio), problem.manifold.min_rank)
    if rank >= Y.shape[1]:
        return None
    try:
        trial = problem.at(drop(problem, Y, rank))
    except ValueError:
        return None
    if trial.merit - model.merit > 0.1 * max(gap_abs, 0.0) + _noise(model):
        return None  # a larger gradient is none of its business: where the cost is quartic in what was dropped, it is the better one
    return trial if trial.infeasibility <= 2 * model.infeasibility + 1e-12 else None


def polish(
    problem: Problem, Y: np.ndarray, *, rank: int | None = None, solver: Solver | None = None, tol: float = 1e-13, products: int = 2000,
    certify: str | None = "auto", gap: float = 1e-10, rng: Any = None,
) -> tuple[LocalModel | None, Certificate | None, int]:  # fmt: skip
    """Drop to the exact rank and descend to the last digits; None where that rank is not enough, or the proof gets worse.

    Parameters
    ----------
    Y : ndarray, n x k, feasible
    rank : int, optional
        The numerical rank by default.
    solver : Solver, optional
        By default Newton's method with inner solves to 1e-2: where the cost is flat in floating point, more accurate ones mostly add
        rounding in the null space of the gauge.
    tol : float
        ``grad_norm <= tol grad_scale`` is enough.
    products : int
        With C, of ``rank`` columns, at most (about).
    certify : str or None
        Rigor of the certificates of both points, which decide; None goes by merit alone.
    gap : float
        A relative gap that is small enough whatever the one at Y.

    Returns
    -------
    model : LocalModel or None
        A point of ``rank`` columns with a merit, and a gap unless at most ``gap``, not above those at Y (up to rounding).
    certificate : Certificate or None
        Of that point.
    products : int
        Spent, without the certificates'.

    Cost: one product where the cost at the lower rank is out of reach, ``products`` else, and two certificates.
    """
    before, generator = problem.at(Y), np.random.default_rng(rng)
    rank = max(numerical_rank(rotate(Y, problem.blocks)[1]), problem.manifold.min_rank) if rank is None else rank
    solver = TrustRegion(kappa=1e-2, theta=0.0) if solver is None else solver
    record = Record(progress=False, callback=_Budget(products))
    model, _ = descend(problem, solver, drop(problem, Y, rank), tol, record)
    if model.merit > before.merit + _noise(before) or model.infeasibility > 2 * before.infeasibility + 1e-12:
        return None, None, record.products
    if certify is None:
        return model, None, record.products
    found, known = (prove(at, max(gap, 1e-12), certify, generator) for at in (model, before))
    if found.gap > max(known.gap, gap):
        return None, None, record.products
    return model, found, record.products


class _Budget:
    """A callback that ends a run after so many products."""

    def __init__(self, products: int):
        self.products = products

    def __call__(self, model: LocalModel, info: dict[str, Any]) -> None:
        if info.get("products", 0) >= self.products:
            raise StopIteration


def reduce_rank(problem: Problem, Y: np.ndarray, rng: Any = None, *, rtol: float = 1e-10) -> np.ndarray:
    """A feasible point of no higher cost and of low rank: on one block at most Barvinok-Pataki's, ``dim Herm(r) <= m``.

    Random directions ``Delta`` of the face ``{X' = Y (I + Delta) Y* >= 0 : A(X') = b}`` are followed downhill, until an eigenvalue of
    ``I + t Delta`` vanishes, as long as there are any: the end is an extreme point of the face, and a vertex of the optimal
    set if Y is optimal.

    Parameters
    ----------
    Y : ndarray, n x k, feasible
        Directions with singular values below 1e-8 of the largest are left out at once.
    rng : Generator or seed
        Of the directions: another seed may lead to another extreme point, of another rank.
    rtol : float
        Singular values of the equations, relative to the largest, that count as 0.

    Returns
    -------
    ndarray, n x r
        Y itself, in the singular basis, where it is an extreme point already.

    Raises
    ------
    ValueError
        With terms, which are not linear in X; where the cost falls without bound on the face.

    Notes
    -----
    At an optimum the cost is kept exactly, because S Y = 0; elsewhere it falls with X along each direction.  At approximate optima the
    face is that of the X that was found: `drop` first.

    Cost
    ----
    With ``D = dim Herm(r)``: D applications of A to single columns, and r singular value decompositions of an m x D matrix, of
    about 2 D rows where it is sketched (above 2^24 entries): memory then 16 D^2 bytes and some vectors of n and m numbers.

    References
    ----------
    A. Barvinok, Discrete Comput. Geom. 13 (1995) 189-202; G. Pataki, Math. Oper. Res. 23 (1998) 339-358.
    """
    if problem.terms:
        names = ", ".join(type(term).__name__ for term in problem.terms)
        raise ValueError(f"the problem has terms ({names}), which are not linear in X; reduce_rank needs cost and constraints only")
    generator, face = np.random.default_rng(rng), _Face(problem, Y)
    equations = face.equations(generator)
    while (lower := face.step(equations, generator, rtol)) is not None:
        face.B = lower
    Z = face.point()
    out = _retracted(problem, Z)
    if out is None or np.linalg.norm(out - Z) > 1e-6 * np.linalg.norm(Z):  # the sketch missed an equation, which is next to impossible
        return rotate(Y, problem.blocks)[0]
    return out


class _Face:
    """``X = U B B* U*`` over the blocks: orthonormal bases U of their ranges stay, the small factors B lose columns."""

    def __init__(self, problem: Problem, Y: np.ndarray):
        self.problem = problem
        self.U, self.B = [], []
        for rows in problem.blocks:
            s, V = _singular_basis(Y[rows])
            r = int(np.sum(s > 1e-8 * s[0]))
            self.U.append(Y[rows] @ (V[:, :r] / s[:r]))
            self.B.append(np.diag(s[:r]).astype(Y.dtype))

    def _column(self, block: int, p: int) -> np.ndarray:
        u = np.zeros((self.problem.n, 1), self.problem.dtype)
        u[self.problem.blocks[block], 0] = self.U[block][:, p]
        return u

    def equations(self, rng: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """``D -> A(U D U*)`` (or a sketch of it) on packed D, a matrix a block, and ``U* C U`` packed."""
        A, dtype = self.problem.manifold, self.problem.dtype
        size = sum(_dim(U.shape[1], dtype) for U in self.U)
        compress = _Sketch(A.m, 2 * size + 64, rng) if A.m > 2 * size + 64 and A.m * size > LARGE else None
        maps, costs = [], []
        for block, U in enumerate(self.U):
            u = [self._column(block, p) for p in range(U.shape[1])]
            upper = list(zip(*np.triu_indices(len(u), 1), strict=True))
            pairs = [(u[p], u[p], 1.0) for p in range(len(u))] + [(u[p], u[q], np.sqrt(2)) for p, q in upper]
            if dtype.kind == "c":
                pairs += [(u[p], 1j * u[q], -np.sqrt(2)) for p, q in upper]
            M = np.empty((A.m if compress is None else compress.rows, len(pairs)))
            for j, (left, right, factor) in enumerate(pairs):
                column = factor * A.apply(left, right)
                M[:, j] = column if compress is None else compress(column)
            full = np.zeros((self.problem.n, len(u)), dtype)
            full[self.problem.blocks[block]] = U
            H = full.conj().T @ self.problem.C.mul(full)
            maps.append(M)
            costs.append(pack((H + H.conj().T)[None] / 2)[0])
        return maps, costs

    def step(self, equations: tuple[list[np.ndarray], list[np.ndarray]], rng: np.random.Generator, rtol: float) -> list[np.ndarray] | None:
        """The factors B after one step to the boundary; None at an extreme point."""
        frames = [np.linalg.qr(B)[0] for B in self.B]  # of the ranges of X left: directions are U F E F* U*
        lifts = [_congruence(F) for F in frames]
        M = np.hstack([part @ lift for part, lift in zip(equations[0], lifts, strict=True)])
        e = _null_vector(M, rng, rtol)
        if e is None:
            return None
        cost = np.concatenate([part @ lift for part, lift in zip(equations[1], lifts, strict=True)])
        change = float(cost @ e)
        parts = np.split(e, np.cumsum([lift.shape[1] for lift in lifts])[:-1])
        scaled = []  # Delta in X = U B (I + t Delta) B* U*
        for part, F, B in zip(parts, frames, self.B, strict=True):
            inverse = np.linalg.inv(F.conj().T @ B)
            scaled.append(inverse @ unpack(part[None], F.shape[1])[0] @ inverse.conj().T)
        ends = np.concatenate([np.linalg.eigvalsh(Delta) for Delta in scaled])
        low, high = float(ends.min(initial=0.0)), float(ends.max(initial=0.0))
        downhill = 1.0 if change <= 0 else -1.0
        if abs(change) <= 1e-10 * np.linalg.norm(cost):  # either way is optimal: the nearer end
            downhill = 1.0 if -low >= high else -1.0
        reach = -low if downhill > 0 else high
        if not reach > 1e-12 * max(-low, high):
            raise ValueError("the cost falls without bound along a feasible direction; the problem is unbounded on this face")
        return [B @ _root(Delta * (downhill / reach)) for B, Delta in zip(self.B, scaled, strict=True)]

    def point(self) -> np.ndarray:
        """Y in its singular basis, as many columns as the largest block needs."""
        parts = []
        for U, B in zip(self.U, self.B, strict=True):
            left, s, _ = np.linalg.svd(B, full_matrices=False)
            parts.append(U @ (left * s))
        Y = np.zeros((self.problem.n, max(1, *(part.shape[1] for part in parts))), self.problem.dtype)
        for rows, part in zip(self.problem.blocks, parts, strict=True):
            Y[rows, : part.shape[1]] = part
        return Y


class _Sketch:
    """A sparse sign matrix, 4 entries a column (OSNAP; Nelson & Nguyen, 2013): keeps null spaces of tall matrices."""

    def __init__(self, m: int, rows: int, rng: np.random.Generator):
        self.rows = rows
        self.place = rng.integers(0, rows, (HASHES, m), dtype=np.int32)
        self.sign = rng.choice(np.array([-1, 1], np.int8), (HASHES, m))

    def __call__(self, v: np.ndarray) -> np.ndarray:
        parts = zip(self.place, self.sign, strict=True)
        return np.sum([np.bincount(place, sign * v, self.rows) for place, sign in parts], axis=0)


def _singular_basis(Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Singular values of Y (falling) and the right singular vectors, k x k, from the small factor of QR."""
    _, s, Vh = np.linalg.svd(np.linalg.qr(Y, mode="r"))
    return s, Vh.conj().T


def _retracted(problem: Problem, Z: np.ndarray) -> np.ndarray | None:
    """Z made feasible; None where no retraction reaches it."""
    try:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            out = problem.manifold.retract(Z, np.zeros_like(Z))
    except (ValueError, np.linalg.LinAlgError):
        return None
    A = problem.manifold
    scale = float(np.linalg.norm(A.b)) + float(np.linalg.norm(out)) ** 2
    return out if np.linalg.norm(A.apply(out, out) - A.b) <= 1e-8 * scale < np.inf else None


def _noise(model: LocalModel) -> float:
    """Rounding of the merit."""
    return float(np.finfo(float).eps) * max(1e3 * abs(model.merit), 8 * model.problem.norm_C * model.trace)


def _dim(r: int, dtype: np.dtype) -> int:
    return r * r if dtype.kind == "c" else r * (r + 1) // 2


def _congruence(F: np.ndarray) -> np.ndarray:
    """The matrix of ``E -> F E F*`` on packed Hermitian matrices; an isometry for orthonormal F."""
    s = F.shape[1]
    basis = unpack(np.eye(_dim(s, F.dtype)), s).astype(F.dtype) if s else np.zeros((0, 0, 0), F.dtype)
    return pack(F @ basis @ F.conj().T).T


def _null_vector(M: np.ndarray, rng: np.random.Generator, rtol: float) -> np.ndarray | None:
    """A random unit vector of the null space of M; None where M has full column rank."""
    g = rng.standard_normal((M.shape[1],))
    if M.size:
        _, s, Vh = np.linalg.svd(M, full_matrices=False)
        Vh = Vh[s > rtol * s[0]]
        if len(Vh) >= M.shape[1]:
            return None
        for _ in range(2):  # twice is enough for orthogonality
            g -= Vh.T @ (Vh @ g)
    g /= max(float(np.linalg.norm(g)), 1e-300)
    return g if g.any() else None


def _root(Delta: np.ndarray) -> np.ndarray:
    """R with ``R R* = I + Delta``, without the columns that vanish."""
    values, V = np.linalg.eigh(np.eye(len(Delta)) + Delta)
    kept = values > 1e-11
    return V[:, kept] * np.sqrt(values[kept])
