"""Smoothed analysis of Burer-Monteiro as functions of numbers: gap bounds (G1)-(G5), Lemma W, Theorem S.

The idea is of T. Pumir, S. Jelassi, N. Boumal, *Smoothed analysis of the low-rank approach for smooth semidefinite programs*,
NeurIPS 2018: add a Gaussian Wigner matrix W to C, and with high probability every approximate second-order point of width about
sqrt(m) is approximately optimal.  **The constants are not that paper's**: they are those of the derivation outlined here, and
none of them should be quoted as a theorem of the paper.  Numbers outside their range raise ValueError.

Cost ``f(Y) = <C, YY*>``, gradient ``2 S Y``, Hessian ``2 Proj(S U)``, ``beta = 1`` (real) or 2 (complex), R a bound on tr X over
the feasible set, ``kappa = sup |A*(mu)|_2 / |A*(mu) Y|_F``, m the dimension of the normal spaces.  W has independent entries on and
above the diagonal, ``E|W_ij|^2 = sigma^2`` (complex: parts of variance ``sigma^2 / 2``), on the diagonal at most ``2 sigma^2 / beta``.

*Lemma W.*  For fixed M and 1 <= l < k, ``P(sigma_{n-k+1}(M + W) <= eps sigma (k-l) / (2 sqrt n)) <= C(n,l) (sqrt(e) eps)^(beta l (k-l))``.
By volume sampling k eigenvectors in the band have l rows with a small pseudo-inverse; these rows of W are independent of the rest,
which has k - l eigenvalues in the band, by interlacing; a chi-square tail and a union over C(n, l) row sets end the proof.

*Theorem S.*  A net of mesh ``tau = t / 2`` of the matrices ``A*(mu)`` in the ball of radius ``B = kappa sqrt(R) Lambda``,
``Lambda = |C| + 3 sigma sqrt(n)``, Lemma W at each of its at most ``(1 + 4B/t)^m`` points, and ``|W| <= 3 sigma sqrt(n)`` (but for
probability ``2 exp(-beta n / 4)``) give (K) of `required_rank`, and with (G4) the gap of `smoothed_guarantee`.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, fields
from math import exp, inf, isfinite, lgamma, log, log1p, sqrt
from operator import index
from typing import NamedTuple


def g1(eig_min: float, trace: float, slackness: float = 0.0) -> float:
    """(G1) at any feasible Y: ``f(Y) - f* <= <S, YY*> + R max(0, -lambda_min(S))``, in the units of the cost.

    Parameters
    ----------
    eig_min : float
        ``lambda_min(S)``, in the units of C.
    trace : float
        R; infinite where the feasible set has no known bound.
    slackness : float
        ``<S, YY*>`` or a bound on it: 0 where I is in the range of A* (unit or given diagonal, identity blocks, traces),
        at most ``eps_g sqrt(R) / 2`` in general.
    """
    return slackness + _times(trace, max(-eig_min, 0.0))


def g2(eps_H: float, trace: float, slackness: float = 0.0) -> float:
    """(G2), Y of rank below k: ``f(Y) - f* <= <S, YY*> + R eps_H / 2`` where ``Hess f(Y) >= -eps_H`` on the tangent space.

    ``U = x z*`` with Yz = 0 is tangent for every x, hence ``lambda_min(S) >= -eps_H / 2``.  Arguments as in `g1`.
    """
    return slackness + _times(trace, eps_H / 2)


def g3(eps_H: float, nu2: float, eig_max: float, trace: float, slackness: float = 0.0) -> float:
    """(G3), Y nearly of rank below k: ``-lambda_min(S) <= [(eps_H / 2)(1 - nu2) + max(0, lambda_max(S)) nu2] / (1 - 2 nu2)``.

    ``nu2 = |Proj_N(x z*)|_F^2`` with a lowest unit eigenvector x of S and a last right singular vector z of Y, or any bound on it
    such as ``kappa^2 sigma_k(Y)^2``; infinite unless ``nu2 < 1/2``.  Test the Hessian with the tangent part of ``x z*``.
    """
    if not nu2 < 0.5:
        return inf
    return slackness + _times(trace, (eps_H / 2 * (1 - nu2) + max(eig_max, 0.0) * nu2) / (1 - 2 * nu2))


def g4(eps_g: float, eps_H: float, norm_S: float, tau: float, kappa: float, trace: float, slackness: float = 0.0) -> float:
    """(G4): ``f(Y) - f* <= <S, YY*> + R (eps_H + eta eps_g^2)``, ``eta = |S|_2 kappa^2 / (2 tau^2)``.

    S has fewer than k eigenvalues in ``(-tau, tau)``, so that ``sigma_k(Y) <= eps_g / (2 tau)``, and (G3) holds with ``nu2 <= 1/4``
    if ``kappa eps_g <= tau``; infinite otherwise.
    """
    if not (tau > 0 and kappa * eps_g <= tau):
        return inf
    ratio = kappa * eps_g / tau
    return slackness + _times(trace, eps_H + norm_S * ratio * ratio / 2)


def g5(cost: float, cost_max: float, eps_H: float, n: int, k: int, *, complex: bool = False) -> float:
    """(G5), unit diagonal, any rank and gradient: ``f - f* <= (f^max - f*) / p + n eps_H / 2``, p = k - 1 (complex: 2k - 1).

    Solved for the gap, ``f - f* <= (f^max - f + p n eps_H / 2) / (p - 1)``; infinite for p <= 1, where it says nothing without f*.
    ``cost_max`` is ``f^max = max <C, X>`` or a bound on it.  Proof: mean of the Hessian over the tangent parts of ``z_i G``, G Gaussian,
    ``X* = ZZ*``; after S. Mei, T. Misiakiewicz, A. Montanari, R. I. Oliveira, COLT 2017.
    """
    p = 2 * k - 1 if complex else k - 1
    return (cost_max - cost + p * n * eps_H / 2) / (p - 1) if p > 1 else inf


class SmallEigenvalues(NamedTuple):
    """Lemma W: ``P(sigma_{n-k+1}(M + W) <= t) <= probability = exp(log_probability)``, t in the units of sigma."""

    t: float
    log_probability: float

    @property
    def probability(self) -> float:
        """The bound, at most 1."""
        return exp(min(self.log_probability, 0.0))


def small_eigenvalue_probability(
    n: int, k: int, *, complex: bool = False, l: int | None = None, eps: float = exp(-1.5), sigma: float = 1.0
) -> SmallEigenvalues:
    """Lemma W: a Wigner matrix leaves at least k eigenvalues of M + W in ``[-t, t]`` with at most this probability, for every fixed M.

    ``t = eps sigma (k - l) / (2 sqrt n)`` and ``probability = C(n, l) (sqrt(e) eps)^(beta l (k - l))``; by default ``l = k // 2`` and
    ``eps = e^(-3/2)``, where the second factor is ``exp(-beta floor(k^2 / 4))``.  The idea is the seed paper's (after H. H. Nguyen's
    overcrowding estimate), statement and constants are this derivation's.

    Parameters
    ----------
    l : int, optional
        Rows sampled, ``1 <= l < k``.
    eps : float
        Positive; above ``e^(-1/2)`` the bound is trivial.
    sigma : float
        Size of W.

    """
    n, k = _width(n, k)
    if l is None:
        l = k // 2  # 0 for k = 1, where the bound is the trivial one
    elif not 1 <= index(l) < k:
        raise ValueError(f"l = {l}; an integer from 1 to k - 1 = {k - 1} is needed; leave it None for k // 2")
    beta = 2 if complex else 1
    t = _checked(eps, "eps") * _checked(sigma, "sigma") * (k - l) / (2 * sqrt(n))
    return SmallEigenvalues(t, _log_binomial(n, l) + beta * l * (k - l) * (0.5 + log(eps)))


@dataclass(frozen=True)
class _Setting:
    """The instance and the noise of Theorem S, checked."""

    n: int
    m: int
    sigma: float
    norm_C: float
    trace: float
    kappa: float
    delta: float
    beta: int

    @classmethod
    def of(cls, n: int, m: int, sigma: float, norm_C: float, trace: float | None, kappa: float, delta: float, complex: bool) -> _Setting:
        n, _ = _width(n, 1)
        if index(m) < 0:
            raise ValueError(f"m = {m}; a number of constraints >= 0 is needed")
        if not 0 < delta < 1:
            raise ValueError(f"delta = {delta}; a failure probability strictly between 0 and 1 is needed, for instance 0.01")
        trace = float(n) if trace is None else _checked(trace, "trace")
        sigma, norm_C, kappa = _checked(sigma, "sigma"), _checked(norm_C, "norm_C", zero=True), _checked(kappa, "kappa", zero=True)
        return cls(n, index(m), sigma, norm_C, trace, kappa, float(delta), 2 if complex else 1)

    @property
    def Lambda(self) -> float:
        return self.norm_C + 3 * self.sigma * sqrt(self.n)

    @property
    def B(self) -> float:
        return self.kappa * sqrt(self.trace) * self.Lambda

    @property
    def norm_S(self) -> float:
        return self.Lambda + self.B

    def t(self, k: int) -> float:
        return small_eigenvalue_probability(self.n, k, sigma=self.sigma).t

    def condition(self, k: int) -> tuple[float, float]:
        """Both sides of (K)."""
        t = self.t(k)
        net = self.m * log1p(4 * self.B / t if t > 0 else inf) if self.m else 0.0
        return float(self.beta * (k * k // 4)), net + _log_binomial(self.n, k // 2) - log(self.delta)

    def required_rank(self) -> int:
        def holds(k: int) -> bool:
            lhs, rhs = self.condition(k)
            return lhs >= rhs

        return bisect_left(range(1, self.n), True, key=holds) + 1


def required_rank(
    n: int, m: int, *, sigma: float, norm_C: float, trace: float | None = None, kappa: float = 1.0, delta: float = 0.01,
    complex: bool = False,
) -> int:  # fmt: skip
    """Smallest k for which Theorem S holds with noise of size sigma, or n if there is none below n.

    The condition, with t of Lemma W and B of the module's docstring:

        (K)    beta floor(k^2 / 4) >= m log(1 + 4B/t) + log C(n, floor(k/2)) + log(1/delta)

    From one k on, (K) holds for all larger ones, which the bisection rests on: from 2j to 2j + 1 columns the left side grows and the
    right one does not; from 2j - 1 to 2j their difference grows by ``beta j - log((n-j+1)/j)``, and where (K) holds at 2j - 1,
    ``beta j (j-1) >= log C(n, j-1) >= (j-1) log(n/(j-1))`` makes that positive.  A width of n needs no theorem: there a
    second-order point is rank deficient or has S = 0, so it is optimal.

    This is about five times the generic rank (`bmsdp.theory.generic_rank`), which holds for almost all C but without a rate:
    a worst-case guarantee, no recommendation.

    Parameters
    ----------
    n, m : int
        Size of X; dimension of the normal spaces (the number of independent constraints).
    sigma, norm_C : float
        Size of the noise and ``|C|_2``, in the same units.
    trace : float, optional
        R >= tr X on the feasible set; n by default.
    kappa : float
        ``sup |A*(mu)|_2 / |A*(mu) Y|_F``: ``manifold.kappa``, 1 for the unit diagonal.
    delta : float
        Failure probability, to which ``2 exp(-beta n / 4)`` is added.
    complex : bool
        Hermitian X and W.

    Notes
    -----
    Idea: Pumir, Jelassi, Boumal (2018); constants: this derivation.  Cost: O(log n) evaluations of (K).
    """
    return _Setting.of(n, m, sigma, norm_C, trace, kappa, delta, complex).required_rank()


@dataclass(frozen=True)
class Guarantee:
    """What Theorem S says of one instance, width and noise; printed one line per constant.

    Attributes
    ----------
    beta, Lambda, B, t, tau, eta
        1 or 2; bounds on ``|C + W|`` and ``|A*(mu)|``; the band of Lemma W and its half; the factor of eps_g^2 in (G4),
        ``(1 + kappa sqrt R) Lambda kappa^2 / (2 tau^2)``.
    lhs, rhs, holds
        Condition (K): ``lhs >= rhs``.
    probability : float
        ``1 - delta - 2 exp(-beta n / 4)``, at least 0, for all the points at once; 0 where (K) fails.
    required_rank : int
        See `required_rank`.
    sigma_k_bound : float
        (i) ``sigma_k(Y) <= eps_g / t`` for every Y with ``|grad f_{C+W}(Y)| <= eps_g``.
    small_sigma_k : bool
        Whether ``kappa sigma_k_bound <= 1/2``, as (ii) needs.
    gap_perturbed, noise_bias, gap_original
        (ii) the bound of (G4) on ``f_{C+W}(Y) - f*_{C+W}``; ``6 sigma sqrt(n) R``; (iii) their sum, which bounds ``<C, YY*> - f*_C``.
        Infinite (except for the bias) where the theorem says nothing.
    """

    beta: int
    Lambda: float
    B: float
    t: float
    tau: float
    eta: float
    lhs: float
    rhs: float
    holds: bool
    probability: float
    required_rank: int
    sigma_k_bound: float
    small_sigma_k: bool
    gap_perturbed: float
    noise_bias: float
    gap_original: float

    def __str__(self) -> str:
        values = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return "\n".join(f"{name:<14} {value:.6g}" if isinstance(value, float) else f"{name:<14} {value}" for name, value in values)


def smoothed_guarantee(
    n: int, m: int, k: int, sigma: float, norm_C: float, *, trace: float | None = None, kappa: float = 1.0, delta: float = 0.01,
    complex: bool = False, eps_g: float = 0.0, eps_H: float = 0.0, fixed_trace: bool = True, pattern: bool = False,
) -> Guarantee:  # fmt: skip
    """Theorem S: what an (eps_g, eps_H)-second-order point of the problem with cost C + W is worth.

    Parameters
    ----------
    n, m, sigma, norm_C, trace, kappa, delta, complex
        As in `required_rank`.
    k : int
        Columns of Y, ``1 <= k <= n``.
    eps_g, eps_H : float
        ``|grad f_{C+W}(Y)|_F <= eps_g`` and ``Hess f_{C+W}(Y) >= -eps_H`` on the tangent space, for f without 1/2.
    fixed_trace : bool
        I is in the range of A* (unit or given diagonal, identity blocks, traces): the term ``eps_g sqrt(R) / 2`` vanishes.
    pattern : bool
        The noise is restricted to a sparsity pattern: ValueError, as no theorem covers it.

    Notes
    -----
    Needs the A_i Y linearly independent on ``{Y : A(YY*) = b}``, which holds for diagonals, identity blocks and traces.
    Idea: Pumir, Jelassi, Boumal (2018), with ``1 - delta - exp(-n/2)`` there; statement and constants: this derivation.

    Examples
    --------
    >>> print(smoothed_guarantee(1000, 1000, 256, 1e-3 / 1000**0.5, 1.0).holds)
    True
    """
    if pattern:
        raise ValueError(
            "pattern = True: the noise is restricted to a sparsity pattern, but the theorem needs full Wigner noise, independent "
            "in every entry; perturb with a dense W, or rely on the certificate alone"
        )
    at = _Setting.of(n, m, sigma, norm_C, trace, kappa, delta, complex)
    n, k = _width(n, k)
    eps_g, eps_H = _checked(eps_g, "eps_g", zero=True), _checked(eps_H, "eps_H", zero=True)
    t, R = at.t(k), at.trace
    tau = t / 2
    lhs, rhs = at.condition(k)
    holds = lhs >= rhs
    ratio = at.kappa / tau if tau > 0 else inf
    slackness = 0.0 if fixed_trace else eps_g * sqrt(R) / 2
    gap = g4(eps_g, eps_H, at.norm_S, tau, at.kappa, R, slackness) if holds else inf
    bias = 6 * at.sigma * sqrt(n) * R
    return Guarantee(
        beta=at.beta, Lambda=at.Lambda, B=at.B, t=t, tau=tau, eta=at.norm_S * ratio * ratio / 2, lhs=lhs, rhs=rhs, holds=holds,
        probability=max(0.0, 1 - at.delta - 2 * exp(-at.beta * n / 4)) if holds else 0.0, required_rank=at.required_rank(),
        sigma_k_bound=eps_g / t if holds else inf, small_sigma_k=holds and at.kappa * eps_g <= tau,
        gap_perturbed=gap, noise_bias=bias, gap_original=gap + bias,
    )  # fmt: skip


@dataclass(frozen=True)
class Tradeoff:
    """Noise and tolerances for one accuracy, in the units of the cost (sigma, eps_H: per unit of trace; eps_g: per its root)."""

    sigma: float
    eps_g: float
    eps_H: float


def tradeoff(
    accuracy: float, n: int, k: int, *, norm_C: float, trace: float | None = None, kappa: float = 1.0, complex: bool = False,
    fixed_trace: bool = True,
) -> Tradeoff:  # fmt: skip
    """Noise and tolerances with which Theorem S gives ``<C, YY*> - f*_C <= accuracy`` at width k, if (K) holds there.

    Half of the accuracy pays for the noise, ``6 sigma sqrt(n) R``, a quarter for ``R eps_H``, a quarter for what eps_g adds,
    ``R eta eps_g^2`` and, unless the trace is fixed, ``eps_g sqrt(R) / 2``; moreover ``kappa eps_g <= tau``.  Smaller noise costs
    little width (k grows like the root of log 1/sigma), but eps_g has to shrink with it.  sigma does not depend on k, so
    ``required_rank(n, m, sigma=tradeoff(accuracy, n, n, norm_C=norm_C).sigma, norm_C=norm_C)`` is the width to ask for.

    Parameters
    ----------
    accuracy : float
        Absolute, in the units of the cost, positive.
    n, k, norm_C, trace, kappa, complex, fixed_trace
        As in `smoothed_guarantee`; the field changes none of the three numbers, only (K).
    """
    n, k = _width(n, k)
    R = float(n) if trace is None else _checked(trace, "trace")
    budget = _checked(accuracy, "accuracy") * (1 - 2.0**-40)  # the sum of the parts may round up
    sigma = budget / (12 * sqrt(n) * R)
    at = _Setting.of(n, 0, sigma, norm_C, R, kappa, 0.5, complex)
    tau = at.t(k) / 2
    linear = 0.0 if fixed_trace else sqrt(R) / 2
    ratio = at.kappa / tau if tau > 0 else inf
    quadratic = R * at.norm_S * ratio * ratio / 2
    # the positive root of quadratic e^2 + linear e = budget / 4, without cancellation
    root = linear + sqrt(linear * linear + quadratic * budget)
    eps_g = min(budget / 2 / root if root > 0 else inf, (1 - 2.0**-40) / ratio if ratio > 0 else inf)
    return Tradeoff(sigma, eps_g, budget / (4 * R))


def _times(trace: float, x: float) -> float:
    """R x, and 0 for x = 0 whatever R."""
    return trace * x if x else 0.0


def _log_binomial(n: int, l: int) -> float:
    return lgamma(n + 1) - lgamma(l + 1) - lgamma(n - l + 1)


def _width(n: int, k: int) -> tuple[int, int]:
    n, k = index(n), index(k)
    if n < 1:
        raise ValueError(f"n = {n}; X needs at least one row")
    if not 1 <= k <= n:
        raise ValueError(f"k = {k}; a number of columns from 1 to n = {n} is needed; at k = n every second-order point is optimal")
    return n, k


def _checked(value: float, name: str, zero: bool = False) -> float:
    if not (isfinite(value) and (value > 0 or (zero and value == 0))):
        raise ValueError(f"{name} = {value}; a finite number {'>=' if zero else '>'} 0 is needed; {_REMEDY[name]}")
    return float(value)


_REMEDY = {
    "sigma": "without noise the theorem says nothing: use bmsdp.theory.generic_rank and a certificate",
    "trace": "pass a bound on tr X over the feasible set, or None for n",
    "kappa": "pass the kappa of the manifold",
    "norm_C": "pass the spectral norm of the cost",
    "accuracy": "pass the gap to allow, in the units of the cost",
    "eps": "the default e^(-3/2) suits",
    "eps_g": "pass the norm of the gradient", "eps_H": "pass max(0, -lambda_min) of the Hessian",
}  # fmt: skip
