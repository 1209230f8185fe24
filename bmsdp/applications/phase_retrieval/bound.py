r"""How far below a phase-retrieval fit its relaxation can be: lower bounds by d x d matrices.

Weak duality of ``min <I - QQ*, X>``, ``X_ii = b_i^2``, ``X >= 0`` (rows with b_i = 0 left out): for multipliers ``mu_i = 1 - lambda h_i``,
h > 0, the slack ``diag(lambda h) - QQ*`` is positive semidefinite exactly where ``Q* diag(1/h) Q <= lambda I``. So any h > 0 gives

    relaxation  >=  sum_i b_i^2 (1 - lambda h_i)      for all  lambda >= lambda_max(Q* diag(1/h) Q),

and so does 0, since ``I - QQ* >= 0``. With ``h_i = |(QV)_i| / b_i`` the gradient of the rank-k fit is ``2 (I - Q* diag(1/h) Q) V``:
at its minimum lambda = 1 is an eigenvalue with eigenvectors V, and the bound equals F(V) if no eigenvalue is larger. Those
that are larger are directions in which F falls when they are added to V as columns: F changes by ``s^2 (1 - lambda)``.
Every feasible dual has ``h_i >= |q_i|^2``, so smaller h_i are raised to that. For real signals behind complex rows Q* becomes ``Re Q*``
throughout: the bound is on f over real x, by ``|Re Q* z|^2 <= lambda sum h_i |z_i|^2``, and ``h_i >= |q_i|^2 / 2`` is what is certain.

*Verified*, for A itself: with any invertible T near R^{-1} and ``B = A T``, ``A* diag(1/h) A <= lambda A* A`` is the same as
``B* diag(1/h) B <= lambda B* B``. Take ``Q' = fl(A T)``, ``|W^{1/2} (Q' - B)|_F <= eps(W)`` (a priori, column by column),
``|Q'* Q' - I| <= delta``, and ``Q'* diag(1/h) Q' <= rho I``, proved by an error-bounded Cholesky factorisation of the Gram matrix as
formed and a bound on the rounding of that. Then ``lambda = ((sqrt(rho) + eps(1/h)) / (sqrt(1 - delta) - eps(1)))^2`` will do.

*Probabilistic*: Lanczos on ``Q* diag(1/h) Q`` off the range of V (see `bmsdp.certificate`), rounding estimated, not bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.linalg import eigh, solve_triangular

from ...factorization import UNIT, Elimination
from ...lanczos import LOOKS, Ritz, lanczos
from ...verified import sum_down
from .fit import AmplitudeFit, row_norms
from .orthonormal import GRAM_LIMIT, Measurements
from .search import Search

DENSE = 600  # columns up to which eigenvalues come from a dense d x d matrix
FAILURE = 1e-6  # of a probabilistic bound
LEAST = 1e-8  # h is not taken smaller than this
BASIS = 2**24  # entries of a Lanczos basis: 268 MB
FLOOR = 1e-10  # |b|^2 times this is what gaps are relative to where the relaxation's cost is smaller: rounding is not far below


class Pencil:
    """``Q* diag(1/h) Q`` for h from a fit V (d x k), and what it proves.

    Attributes
    ----------
    weight : ndarray, (n,)
        ``1/h``; 0 where b is.
    price : ndarray, (n,)
        ``b^2 h``: the bound is ``sum (b^2 - lambda price)``.
    """

    def __init__(self, measured: Measurements, b: np.ndarray, V: np.ndarray, leverage: np.ndarray):
        self.measured, self.b, self.V = measured, b, V
        self.n, self.d = measured.n, measured.d
        size = np.maximum(row_norms(measured.mul(V)), b * np.maximum(leverage, LEAST))
        self.weight = np.divide(b, size, out=np.zeros(self.n), where=b > 0)
        self.price = b * np.where(b > 0, size, 0.0)
        self.scale = float(self.price.sum())  # an error of lambda costs that much

    def mul(self, W: np.ndarray) -> np.ndarray:
        """``Q* diag(1/h) Q W``, d x p."""
        return self.measured.fold(W, lambda rows, Z: self.weight[rows, None] * Z)

    def bound(self, lam: float) -> float:
        """The bound that lambda gives, rounded down."""
        square, paid = self.b**2, lam * self.b**2 / np.where(self.weight > 0, self.weight, 1) * (self.b > 0)
        slip = 8 * UNIT * float(square.sum() + paid.sum())
        return sum_down(np.concatenate([square, -paid, [-slip]]))

    def top(self, count: int, rng: np.random.Generator, stop: Callable[[], bool], steps: int = 128) -> tuple[float, np.ndarray]:
        """About the largest eigenvalue, and up to ``count`` eigenvectors with eigenvalues above 1 (d x p), the largest first."""
        if self.d > DENSE:
            inside, U, _ = self._inside(np.inf)
            ritz = self._outside(U, rng, min(steps, self.d - U.shape[1]), count, stop=stop)
            lowest = max(inside, -float(ritz.values[0]))
            return lowest, ritz.vectors[:, ritz.values[: ritz.vectors.shape[1]] < -1 - 1e-13]
        if self.measured.Q is not None:
            rows = self.measured.Q * np.sqrt(self.weight)[:, None]
            G = rows.conj().T @ rows
            G = G.real if self.measured.real else G
        else:
            G = self.mul(np.eye(self.d, dtype=self.measured.dtype))
        values, W = eigh(G, subset_by_index=[max(0, self.d - count), self.d - 1], check_finite=False)
        return float(values[-1]), W[:, values > 1 + 1e-13][:, ::-1]

    def _inside(self, allowed: float) -> tuple[float, np.ndarray, float]:
        """Largest Rayleigh quotient in the range U of V, and U (d x r) with ``e = |(I - UU*) G U|``.

        Directions whose residual would cost more than ``allowed`` are left to Lanczos.
        """
        U = np.linalg.qr(self.V)[0][:, : self.d - 1]
        GU = self.mul(np.ascontiguousarray(U))
        residual = GU - U @ (U.conj().T @ GU)
        square, W = np.linalg.eigh(residual.conj().T @ residual)
        keep = square <= max(1e-3 * allowed, 1e-18)
        U, GU = U @ W[:, keep], GU @ W[:, keep]
        if not U.shape[1]:
            return -np.inf, U, 0.0
        H = U.conj().T @ GU
        return float(np.linalg.eigvalsh((H + H.conj().T) / 2)[-1]), U, float(np.linalg.norm(GU - U @ H, 2))

    def _outside(
        self, U: np.ndarray, rng: np.random.Generator, steps: int, vectors: int, *, stop: Callable[[], bool],
        enough: Callable[[Ritz], bool] | None = None,
    ) -> Ritz:  # fmt: skip
        """Lanczos for minus the matrix on the complement of U."""

        def minus(v: np.ndarray) -> np.ndarray:
            return -self.mul(np.ascontiguousarray(v[:, None]))[:, 0]

        return lanczos(minus, self.d, self.measured.dtype, rng, steps, deflate=U, vectors=vectors, enough=enough, stop=stop)

    def probable(self, allowed: float, rng: np.random.Generator, stop: Callable[[], bool]) -> float:
        """The bound by Lanczos, wrong with probability at most `FAILURE`; it aims at an error of lambda well below ``allowed``."""
        inside, U, e = self._inside(allowed)
        slack = 1e-13 + 4 * self.measured.defect()

        def above(ritz: Ritz) -> float:
            theta = -ritz.lower_bound(FAILURE / (2 * len(LOOKS)))
            return theta if not U.shape[1] else 0.5 * (inside + theta) + float(np.hypot(0.5 * (inside - theta), e))

        def enough(ritz: Ritz) -> bool:
            found = max(inside, -float(ritz.values[0]))
            return above(ritz) - found <= 0.1 * allowed

        steps = min(LOOKS[-1], max(LOOKS[2], BASIS // self.d), self.d - U.shape[1])
        lam = above(self._outside(U, rng, steps, 1, enough=enough, stop=stop))
        return self.bound(lam * (1 + slack)) if np.isfinite(lam) else -np.inf


class Exact:
    """``B = A T`` with T near R^{-1}: what is known of it in exact arithmetic, for a dense or sparse A."""

    def __init__(self, measured: Measurements):
        self.measured, self.A = measured, measured.A
        self.n, self.d = measured.n, measured.d
        self.field = 3 if measured.complex_rows else 1
        self.T = solve_triangular(measured.right, np.eye(self.d), check_finite=False)
        step = max(1, 2**20 // self.d)
        self.blocks = [slice(i, min(i + step, self.n)) for i in range(0, self.n, step)]

    def rows(self, block: slice) -> np.ndarray:
        """``Q'[block] = fl(A T)[block]``."""
        return np.asarray(self.A[block] @ self.T)

    def eps(self, weight: np.ndarray) -> float:
        """``|W^{1/2} (Q' - B)|_F <= gamma |W^{1/2} |A| |T||_F``, whose column j is at most ``sum_l |W^{1/2} a_l| |T_lj|`` long."""
        square = abs(self.A).power(2) if sparse.issparse(self.A) else np.abs(self.A) ** 2
        lengths = np.sqrt(np.asarray(square.T @ weight).ravel()) + 1e-140  # more than underflow can hide
        return _gamma(self.field * (self.d + 5)) * float(np.linalg.norm(lengths @ np.abs(self.T))) * (1 + 1e-8) + 1e-300

    def gram(self, weight: np.ndarray) -> tuple[np.ndarray, float]:
        """``Q'* diag(weight) Q'`` as formed, and a bound on the 2-norm of its rounding."""
        G = np.zeros((self.d, self.d), self.measured.dtype)
        reach = np.zeros(self.d)
        for block in self.blocks:
            Q, w = self.rows(block), weight[block, None]
            part = Q.conj().T @ (w * Q)
            G += part.real if self.measured.real else part
            size = np.abs(Q)
            reach += size.T @ (w[:, 0] * size.sum(axis=1))
        terms = self.field * (self.n + len(self.blocks) + 8)
        return G, _gamma(terms) * float(reach.max()) * (1 + 1e-8)

    @cached_property
    def smallest(self) -> float:
        """A lower bound on the smallest singular value of B; not positive where nothing is proved."""
        G, error = self.gram(np.ones(self.n))
        delta = (float(np.linalg.norm(G - np.eye(self.d))) + error) * (1 + 1e-8) + 4 * UNIT * self.d
        return (np.sqrt(1 - delta) - self.eps(np.ones(self.n))) * (1 - 4 * UNIT) if delta < 1 else 0.0

    def largest(self, pencil: Pencil, guess: float, margin: float) -> float:
        """lambda with ``A* diag(1/h) A <= lambda A* A`` proved, from about ``guess + margin``; inf where nothing is proved."""
        if not self.smallest > 0:
            return np.inf
        G, error = self.gram(pencil.weight)
        tree = Elimination.analyse(G)
        if tree is None:
            return np.inf
        for _ in range(40):
            t = guess + margin
            diagonal = t - G.diagonal().real
            factor = tree.factor(-G, diagonal)
            if factor.definite:
                lost = float(np.max(factor.error_rows() + 2 * UNIT * np.abs(diagonal)))
                root = np.sqrt(t + lost + error) + self.eps(pencil.weight)
                return float((root / self.smallest) ** 2 * (1 + 32 * UNIT))
            margin *= 4
        return np.inf


def _gamma(terms: float) -> float:
    return terms * UNIT / (1 - terms * UNIT)


@dataclass(frozen=True)
class Relaxation:
    """Cost of a rank-k fit, and the bound that it proves."""

    value: float
    bound: float
    rigor: str
    failure_probability: float
    rank: int


def check_rigor(measured: Measurements, rigor: str) -> None:
    """ValueError for a rigor that is unknown, or "verified" without entries of A."""
    if rigor not in ("auto", "verified", "probabilistic"):
        raise ValueError(f'rigor = {rigor!r}; it must be "auto", "verified" or "probabilistic"')
    if rigor == "verified" and not _has_entries(measured):
        raise ValueError(
            "a verified bound needs the entries of A, and A is an operator that only multiplies: pass it as an array "
            "(A @ np.eye(A.shape[1])) or sparse array, or ask for rigor='probabilistic'"
        )


def _has_entries(measured: Measurements) -> bool:
    return isinstance(measured.A, np.ndarray) or sparse.issparse(measured.A)


class Prover:
    """The best bound met so far on the relaxation of one fit; 0 holds without proof."""

    def __init__(self, search: Search, rigor: str):
        self.search, self.measured = search, search.fit.measured
        verify = rigor == "verified" or (rigor == "auto" and _has_entries(self.measured) and self.measured.d <= GRAM_LIMIT)
        self.exact = Exact(self.measured) if verify else None
        self.estimate, self.lam = -np.inf, 0.0
        self.pencil: Pencil | None = None
        self.bound, self.known, self.guesses = 0.0, "verified", 0

    def note(self, pencil: Pencil, lam: float) -> None:
        """Remember the pencil with the highest bound, proof apart."""
        estimate = pencil.bound(lam)
        if estimate > self.estimate:
            self.estimate, self.lam, self.pencil = estimate, lam, pencil

    def prove(self, room: float) -> None:
        """Prove the best estimate, at a cost to the bound well below ``room`` where rounding allows that."""
        pencil = self.pencil
        if pencil is None or self.estimate <= self.bound:
            return
        allowed = max(room / pencil.scale, 1e-13)
        if self.exact is not None:
            lam = self.exact.largest(pencil, self.lam, 0.1 * allowed)
            found, known = pencil.bound(lam) if np.isfinite(lam) else -np.inf, "verified"
        else:
            self.guesses += 1
            found, known = pencil.probable(allowed, self.search.rng, self.search.out_of_time), "probabilistic"
        if found > self.bound:
            self.bound, self.known = found, known


def relax(search: Search, V: np.ndarray, tol: float, rigor: str) -> Relaxation:
    """Solve the relaxation to a relative gap of ``tol`` from a rank-1 fit V (d, 1): descend, bound, grow along eigenvectors."""
    fit, measured = search.fit, search.fit.measured
    floor = FLOOR * float(fit.b @ fit.b)
    leverage = measured.leverage()
    leverage = np.zeros(measured.n) if leverage is None else leverage / (2 if measured.real and measured.complex_rows else 1)
    prover, value, rank, gradient = Prover(search, rigor), np.inf, 1, 3e-4
    for round_ in range(60):
        V = search.descend(V, gradient)
        if fit.value(V) < value:
            value, rank = fit.value(V), _counting(V, fit.value(V))
        room = tol * max(value, floor)
        if value <= room:
            break
        pencil = Pencil(measured, fit.b, V, leverage)
        grown = int(np.sqrt(measured.d)) + 1 if round_ == 0 else max(2, V.shape[1] // 2 + 1)
        lam, E = pencil.top(grown, search.rng, search.out_of_time)
        prover.note(pencil, lam)
        if value - prover.estimate <= 0.7 * room:
            prover.prove(room)
            if value - prover.bound <= room:
                break
        if search.halted or gradient < 1e-12:
            break
        V, gradient = _escaped(fit, V, E), 0.3 * gradient
    if value - prover.bound > room:
        prover.prove(room)
    failure = 0.0 if prover.known == "verified" else FAILURE * prover.guesses
    return Relaxation(value, prover.bound, prover.known, failure, rank)


def _counting(V: np.ndarray, value: float) -> int:
    """How many singular values of V are not lost in the cost."""
    return max(1, int(np.sum(np.linalg.svd(V, compute_uv=False) ** 2 > 1e-3 * value)))


def _escaped(fit: AmplitudeFit, V: np.ndarray, E: np.ndarray) -> np.ndarray:
    """V without columns that do not count, and the directions E (d x p) of negative curvature beside it."""
    value = fit.value(V)
    U, s, _ = np.linalg.svd(V, full_matrices=False)
    kept = _counting(V, value)
    V, E = U[:, :kept] * s[:kept], E[:, : len(V) - kept]
    step = np.sqrt(value / max(1, E.shape[1]))
    for _ in range(40):
        wide = np.ascontiguousarray(np.concatenate([V, step * E], axis=1))
        if not E.shape[1] or fit.value(wide) < value:
            break
        step /= 2
    return wide
