"""What the theory says at one point: gap bounds (G1)-(G5), the sigma_k lemma, faces, conditioning.

Everything here is a floating-point diagnostic, no proof: spectra come from LAPACK, beyond `DENSE` unknowns from Lanczos, as a Ritz value
minus its residual, which is an estimate.  For a bound with a proof, or with a failure probability, use `bmsdp.certify`.

A ``model`` is a `bmsdp.LocalModel` or whatever has its members: ``S = C - A*(mu)``, ``grad f = 2 S Y``, ``Hess f[U] = 2 Proj(S U)`` for
``f(Y) = <C, YY*>`` without 1/2.  K^{n x k} is a real inner-product space, over C as well: there the Hessian is R-linear only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import numpy as np

from .rank import dim_sym
from .smoothed import g1, g2, g3, g4, g5

EPS = float(np.finfo(float).eps)
DENSE = 1500  # unknowns up to which a spectrum is computed in full
Map = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class GapBounds:
    """Upper bounds on ``f(Y) - f*`` at one feasible Y, and what they are made of.

    Attributes
    ----------
    grad_norm, hess_min, eig_min, eig_max : float
        ``eps_g = |grad f|_F``; smallest eigenvalue of the Hessian on the tangent space (infinite where that is {0}), of which only
        ``eps_H = max(0, -hess_min)`` counts, as positive curvature lowers no bound; extreme eigenvalues of S.
    sigma_k, nu2, kappa, trace : float
        Smallest singular value of Y; ``|Proj_N(x z*)|^2`` of (G3) or its bound ``(kappa sigma_k)^2``; the constant of the constraints; R.
    slackness : float
        ``<S, YY*>``, at most ``eps_g sqrt(R) / 2`` in size; rounding where the trace is fixed.
    tau : float
        S has fewer than k eigenvalues in ``(-tau, tau)``: their k-th smallest absolute value, 0 where unknown.
    g1, g2, g3, g4, g5 : float
        Infinite unless: rank Y < k to rounding (g2), ``nu2 < 1/2`` (g3), ``kappa eps_g <= tau`` (g4), unit diagonal, k >= 3 or 2 (g5).
    """

    grad_norm: float
    hess_min: float
    eig_min: float
    eig_max: float
    sigma_k: float
    nu2: float
    kappa: float
    trace: float
    slackness: float
    tau: float
    g1: float
    g2: float
    g3: float
    g4: float
    g5: float

    @property
    def eps_H(self) -> float:
        return max(-self.hess_min, 0.0)

    @property
    def best(self) -> float:
        """The smallest of the five; but for rounding (G1) is never above (G2), (G3), (G4), which know S by the Hessian only."""
        return min(self.g1, self.g2, self.g3, self.g4, self.g5)


def gap_bound(
    model: Any, *, hess_min: float | None = None, eig_min: float | None = None, eig_max: float | None = None,
    cost_max: float | None = None, trace: float | None = None,
) -> GapBounds:  # fmt: skip
    """All gap bounds at one point, critical or not.

    Parameters
    ----------
    model : LocalModel
        At a feasible Y, without terms.
    hess_min, eig_min, eig_max : float, optional
        Extreme eigenvalues of the Hessian on the tangent space and of S, or safe bounds on them; computed when absent.  With both of S
        given no spectrum of S is computed: tau is 0, g4 infinite.
    cost_max : float, optional
        ``f^max = max <C, X>`` or a bound on it, for (G5); by default ``f(Y) + R lambda_max(S)``, which is one for every Y.
    trace : float, optional
        R >= tr X on the feasible set; by default what the constraints imply, infinite where they bound no trace.

    Raises
    ------
    ValueError, RuntimeError
        Models with terms, or numbers that contradict the model; Lanczos that does not converge.

    Notes
    -----
    Cost: O(n^3) for S and O((nk)^3) for the Hessian up to `DENSE` (real) unknowns, Lanczos beyond.  Estimates, no proofs: for those
    `bmsdp.certify`.  Source: `bmsdp.theory.smoothed`, (G1)-(G5).
    """
    problem = model.problem
    if getattr(problem, "terms", ()):
        raise ValueError("the problem has terms besides <C, X>, but the gap lemma is about <C, X> alone; pass a model of the SDP itself")
    for name, value in [("hess_min", hess_min), ("eig_min", eig_min), ("eig_max", eig_max), ("cost_max", cost_max)]:
        if value is not None and not isfinite(value):
            raise ValueError(f"{name} = {value}; a finite number is needed; leave it None to have it computed")
    if cost_max is not None and cost_max < model.cost - 1e-9 * abs(model.cost):
        raise ValueError(f"cost_max = {cost_max} is below the cost {model.cost} of a feasible point; pass a bound on max <C, X> or None")
    Y, kappa = model.Y, float(problem.manifold.kappa)
    (n, k), R = Y.shape, _trace(model, trace)
    s, z = _last_singular(Y)
    tau, nu_squared = 0.0, (kappa * s) ** 2
    if eig_min is None or eig_max is None:
        low, high, x, tau = _slack_spectrum(model)
        nu_squared = nu2(model, x, z)
        eig_min, eig_max = low if eig_min is None else eig_min, high if eig_max is None else eig_max
    hess_min = _hess_min(model) if hess_min is None else hess_min
    eps_g, eps_H = float(model.grad_norm), max(-hess_min, 0.0)
    slackness = float(np.vdot(Y, model.grad).real) / 2
    deficient = s <= max(n, k) * EPS * np.linalg.norm(Y)
    ceiling = model.cost + R * max(eig_max, 0.0) if cost_max is None else cost_max
    return GapBounds(
        grad_norm=eps_g, hess_min=hess_min, eig_min=eig_min, eig_max=eig_max, sigma_k=s, nu2=nu_squared, kappa=kappa, trace=R,
        slackness=slackness, tau=tau,
        g1=g1(eig_min, R, slackness),
        g2=g2(eps_H, R, slackness) if deficient else inf,
        g3=g3(eps_H, nu_squared, eig_max, R, slackness),
        g4=g4(eps_g, eps_H, max(abs(eig_min), abs(eig_max)), tau, kappa, R, slackness),
        g5=g5(model.cost, ceiling, eps_H, n, k, complex=_is_complex(Y)) if _unit_diagonal(model) else inf,
    )  # fmt: skip


def nu2(model: Any, x: np.ndarray, z: np.ndarray) -> float:
    """``|Proj_N(x z*)|_F^2``, at most ``kappa^2 |Yz|^2``, for unit x (n,) and z (k,): how far ``x z*`` is from tangent, (G3).

    Over C it depends on the phase of x, the projector being R-linear: the smallest over phases is returned.
    """
    Y, manifold = model.Y, model.problem.manifold
    U = np.ascontiguousarray(np.outer(x, np.conj(z)), Y.dtype)
    N = np.array([V - manifold.project(Y, V) for V in ([U, 1j * U] if _is_complex(Y) else [U])])
    gram = np.einsum("aij,bij->ab", N.conj(), N).real
    return max(float(np.linalg.eigvalsh(gram)[0]), 0.0)


@dataclass(frozen=True)
class SigmaK:
    """The sigma_k lemma, ``value tau <= residual <= eps_g / 2``.

    Attributes
    ----------
    value, tau, residual : float
        ``sigma_k(Y)``, 0 for k > n; ``sigma_{n-k+1}(S)`` as in `GapBounds`, a lower bound on it beyond `DENSE` rows; ``|SY|_2``.
    """

    value: float
    tau: float
    residual: float

    @property
    def bound(self) -> float:
        """``residual / tau``, what the lemma allows for ``value``."""
        return self.residual / self.tau if self.tau > 0 else inf


def sigma_k(model: Any) -> SigmaK:
    """The smallest singular value of Y beside its bound: small at every approximate critical point where S has few small eigenvalues.

    Cost: O(n^3) up to `DENSE` rows, Lanczos beyond.  Source: `bmsdp.theory.smoothed`.
    """
    return SigmaK(_last_singular(model.Y)[0], _slack_spectrum(model)[3], float(np.linalg.norm(model.grad, 2)) / 2)


@dataclass(frozen=True)
class FaceRank:
    """``r_Y = rank{Y* A_i Y}`` and what follows.

    Attributes
    ----------
    rank, columns : int
        r_Y; the numerical rank r of Y.
    dimension : int
        Dimension of the face of the feasible set that holds X in its relative interior, ``dim Sym(r) - r_Y``; 0 at an extreme point.
    optimal : bool
        If this point is an *exact second-order* point it is optimal, for any C: r < k, or ``r_Y > m - k`` (complex: ``m - 2k``).
    kept, dropped : float
        Smallest singular value counted in r_Y and largest one not counted, relative to the largest: trust r_Y if they are far apart.
    """

    rank: int
    columns: int
    dimension: int
    optimal: bool
    kept: float
    dropped: float


def face_rank(model: Any, tol: float = 1e-4) -> FaceRank:
    """The rank of ``B -> A(Y B Y*)`` on Hermitian k x k matrices, by which full-rank second-order points can be optimal.

    If x is an eigenvector of S for a negative eigenvalue, tangency of ``x z* + Y B`` leaves some z nonzero as soon as
    ``m - r_Y < k`` (complex: 2k), and then the Hessian is negative there, SY being 0.  Rank-deficient points need no count.

    Parameters
    ----------
    tol : float
        Singular values below tol times the largest one count as zero, of Y and of the map (on an orthonormal basis of range Y).

    Notes
    -----
    Whether the point *is* second order is not tested.  Cost: an SVD of an m x dim Sym(r) array.  Source: for r < k, N. Boumal,
    V. Voroninski, A. S. Bandeira, Comm. Pure Appl. Math. 73 (2020) 581-608; the count is this derivation's.
    """
    if not 0 < tol < 1:
        raise ValueError(f"tol = {tol}; a relative tolerance between 0 and 1 is needed")
    Y, manifold = model.Y, model.problem.manifold
    complex_, k = _is_complex(Y), Y.shape[1]
    Q, s, _ = np.linalg.svd(Y, full_matrices=False)
    r = int((s > tol * s[0]).sum())
    Q = np.ascontiguousarray(Q[:, :r])
    images = [manifold.apply(Q, np.ascontiguousarray(Q @ B)) for B in _hermitian_basis(r, complex_)]
    values = np.linalg.svd(np.array(images).reshape(len(images), manifold.m), compute_uv=False)
    values = values / (values.max(initial=0.0) or 1.0)
    rank = int((values > tol).sum())
    return FaceRank(
        rank, r, dim_sym(r, complex_) - rank, r < k or rank > manifold.m - k * (2 if complex_ else 1),
        float(values[:rank].min(initial=1.0)), float(values[rank:].max(initial=0.0)),
    )  # fmt: skip


@dataclass(frozen=True)
class Conditioning:
    """Of a rank-one solution ``x x^T``: ``cond = lambda_max(S) / lambda_2(S)``, and the smallest k above it by a margin of 1e-9."""

    cond: float
    benign_rank: int | None

    def benign(self, k: int) -> bool:
        """Whether every second-order point with k columns is known to be optimal."""
        return self.benign_rank is not None and k >= self.benign_rank


def conditioning(model: Any, tol: float = 1e-3) -> Conditioning:
    """Was the rank benign?  For real C, unit diagonal and a solution ``x x^T``, ``cond < k`` makes all second-order points optimal.

    S is taken at ``x = sign`` of the one column of Y, on the complement of x; ``cond`` is infinite (``benign_rank`` None) unless S is
    positive definite there, that is unless x x^T is the unique optimum, strictly complementary.  The bound is sharp.

    Parameters
    ----------
    tol : float
        Y has rank one if ``sigma_2 <= tol sigma_1``; loose, as all is computed at x itself.

    Raises
    ------
    ValueError
        If C is complex, the constraints are not the unit diagonal, or Y has not rank one.

    Notes
    -----
    Cost: O(n^3) up to `DENSE` rows, Lanczos beyond.  Source: F. Rakoto Endor, I. Waldspurger, *Benign landscape for Burer-Monteiro
    factorizations of MaxCut-type semidefinite programs* (2024).
    """
    Y, C = model.Y, model.problem.C
    if _is_complex(Y) or not _unit_diagonal(model) or len(getattr(model.problem, "terms", ())):
        raise ValueError("the condition number is known for real C and unit diagonal only, without terms; pass such a model")
    u, s, _ = np.linalg.svd(Y, full_matrices=False)
    if s.size > 1 and s[1] > tol * s[0]:
        raise ValueError(f"Y has rank above one, sigma_2 / sigma_1 = {s[1] / s[0]:.3g} > tol = {tol:g}; solve further, or raise tol")
    x = np.where(u[:, 0] < 0, -1.0, 1.0)
    mu, n = x * C.mul(x[:, None])[:, 0], len(x)
    complement = _complement(x[:, None] / np.sqrt(n))
    low = _lowest(lambda v: C.mul(v[:, None])[:, 0] - mu * v, n, Y.dtype, complement)[0]
    high = -_lowest(lambda v: mu * v - C.mul(v[:, None])[:, 0], n, Y.dtype, complement)[0]
    if n == 1 or low <= n * EPS * max(high, float(np.abs(mu).max())):
        return Conditioning(1.0, 2) if n == 1 else Conditioning(inf, None)
    return Conditioning(high / low, int(high / low * (1 + 1e-9)) + 1)


def _is_complex(Y: np.ndarray) -> bool:
    return bool(Y.dtype.kind == "c")


def _trace(model: Any, trace: float | None) -> float:
    """R: <b, w> with A*(w) = I."""
    if trace is not None:
        if not trace >= model.trace * (1 - 1e-9):
            raise ValueError(f"trace = {trace} is below tr X = {model.trace} here; pass a bound on tr X over the feasible set")
        return float(trace)
    manifold = model.problem.manifold
    w = manifold.cover(np.ones(manifold.n))
    return inf if w is None else float(manifold.b @ w)


def _unit_diagonal(model: Any) -> bool:
    """Whether A*(mu) = diag(mu) and b = 1: bilinear maps that agree at a random pair agree."""
    manifold = model.problem.manifold
    if manifold.m != manifold.n or not (manifold.b == 1).all():
        return False
    rng = np.random.default_rng(0)
    mu, V = rng.standard_normal(manifold.m), rng.standard_normal((manifold.n, 1)).astype(model.Y.dtype)
    return bool(np.allclose(manifold.adjoint_mul(mu, V), mu[:, None] * V, rtol=1e-12, atol=0))


def _hermitian_basis(r: int, complex_: bool) -> Iterator[np.ndarray]:
    """dim_sym(r) orthonormal r x r matrices."""
    for i, j in zip(*np.tril_indices(r), strict=True):
        for unit in (1.0, 1j) if complex_ and i != j else (1.0,):
            B = np.zeros((r, r), np.complex128 if complex_ else float)
            B[i, j], B[j, i] = unit, np.conj(unit)
            yield B / np.linalg.norm(B)


def _last_singular(Y: np.ndarray) -> tuple[float, np.ndarray]:
    """sigma_k(Y) and its unit right singular vector; 0 and a null vector for k > n."""
    n, k = Y.shape
    _, s, Vh = np.linalg.svd(Y, full_matrices=k > n)
    return (0.0 if k > n else float(s[-1])), Vh[-1].conj()


def _slack_spectrum(model: Any) -> tuple[float, float, np.ndarray, float]:
    """lambda_min and lambda_max of S, an eigenvector of the first, tau."""
    (n, k), dtype = model.Y.shape, model.Y.dtype
    if n <= DENSE:
        S = model.slack_mul(np.eye(n, dtype=dtype))
        values, vectors = np.linalg.eigh((S + S.conj().T) / 2)
        low, high, x = float(values[0]), float(values[-1]), vectors[:, 0]
        tau = float(np.sort(np.abs(values))[k - 1]) if k <= n else inf
        return low, high, x, _above_rounding(tau, model, low, high)

    def mul(v: np.ndarray) -> np.ndarray:
        return np.asarray(model.slack_mul(v[:, None])[:, 0])

    low, x = _lowest(mul, n, dtype)
    high = -_lowest(lambda v: -mul(v), n, dtype)[0]
    # off any k - 1 vectors the smallest eigenvalue of S has at most k - 1 of S below it (Cauchy); those of Y are nearly null
    Q = np.linalg.svd(model.Y, full_matrices=False)[0][:, : k - 1]
    return low, high, x, _above_rounding(_lowest(mul, n, dtype, _complement(Q))[0], model, low, high)


def _above_rounding(tau: float, model: Any, low: float, high: float) -> float:
    """tau less the rounding of S and its spectrum: at an exact critical point of full rank it is 0, and 0/0 in (G4) otherwise."""
    size = max(abs(low), abs(high)) + float(np.abs(model.mu).max(initial=0.0))
    return max(tau - len(model.Y) * EPS * size, 0.0)


def _hess_min(model: Any) -> float:
    """Smallest eigenvalue of the Hessian on the tangent space, a space over R."""
    Y, manifold = model.Y, model.problem.manifold

    def factor(v: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(v).view(Y.dtype).reshape(Y.shape)

    def flat(U: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(U).reshape(-1).view(float)

    hess, project = (lambda v: flat(model.hess(factor(v)))), (lambda v: flat(manifold.project(Y, factor(v))))
    return _lowest(hess, Y.size * (2 if _is_complex(Y) else 1), np.dtype(float), project)[0]


def _complement(Q: np.ndarray) -> Map:
    return lambda v: v - Q @ (Q.conj().T @ v)


def _lowest(mul: Map, size: int, dtype: np.dtype, project: Map = lambda v: v) -> tuple[float, np.ndarray]:
    """Smallest eigenvalue of a Hermitian map on the range of a projector, and its vector; infinite where the range is {0}.

    The map is moved below 0, so that the rest of the space cannot answer and ARPACK's tolerance, relative to the eigenvalue, is one
    relative to the norm.
    """
    start = np.random.default_rng(180603763).uniform(-1, 1, size).astype(dtype)  # no seed or law that a caller's Y may come from
    v, norm = project(start), 0.0
    if np.linalg.norm(v) <= 1e-10 * np.linalg.norm(start):
        return inf, start
    for _ in range(10):  # sets the shift only, which has to be above the eigenvalue, as |A v| is
        v = v / np.linalg.norm(v)
        v = project(mul(v))
        norm = float(np.linalg.norm(v))
        if norm == 0:
            return 0.0, start / np.linalg.norm(start)
    shift = 4 * norm

    def shifted(v: np.ndarray) -> np.ndarray:
        v = project(v)
        return project(mul(v)) - shift * v

    if size <= DENSE:
        M = np.array([shifted(e) for e in np.eye(size, dtype=dtype)]).T
        values, vectors = np.linalg.eigh((M + M.conj().T) / 2)
        return float(values[0]) + shift, vectors[:, 0]
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    operator = LinearOperator((size, size), matvec=lambda v: shifted(v.ravel()), dtype=dtype)
    for tol in (1e-9, 1e-7, 1e-5):  # the residual is paid for below; large near-kernels (rank-deficient Y) admit no small one
        try:
            values, vectors = eigsh(operator, 1, which="SA", v0=start, ncv=min(size, 80), tol=tol, maxiter=100)
        except ArpackNoConvergence:
            continue
        x = vectors[:, 0]
        return float(values[0]) + shift - float(np.linalg.norm(shifted(x) - values[0] * x)), x
    raise RuntimeError(f"Lanczos found no eigenvalue among {size}; pass eig_min, eig_max and hess_min, or use bmsdp.certify")
