"""Small problems as people write them in CVXPY, with what is unique about their solutions."""

from dataclasses import dataclass, field

import cvxpy as cp
import numpy as np


@dataclass
class Case:
    problem: cp.Problem
    form: str
    """The form the translator takes."""
    unique: list = field(default_factory=list)
    """Variables with one optimal value."""
    duals: list = field(default_factory=list)
    """Constraints with one optimal multiplier."""


NEW = hasattr(cp.reductions.solvers.solver.Solver, "can_solve")  # 1.9


def halved(constraint):
    """CVXPY 1.8 forgets that its embedding of Hermitian matrices counts everything twice; trees have no embedding."""
    return not NEW and isinstance(constraint, cp.constraints.PSD) and constraint.is_complex()


def symmetric(rng, n):
    M = rng.standard_normal((n, n))
    return M + M.T


def hermitian(rng, n):
    M = rng.standard_normal((n, n)) + 1j * rng.standard_normal((n, n))
    return M + M.conj().T


def maxcut(rng):
    L = symmetric(rng, 7)
    X = cp.Variable((7, 7), symmetric=True)
    diagonal, cone = cp.diag(X) == 1, X >> 0
    return Case(cp.Problem(cp.Maximize(cp.trace(L @ X) / 4), [diagonal, cone]), "primal", [X], [diagonal, cone])


def trace(rng):
    C = symmetric(rng, 6)
    X = cp.Variable((6, 6), PSD=True)
    fixed = cp.trace(X) == 2
    return Case(cp.Problem(cp.Minimize(cp.trace(C @ X) + 3), [fixed]), "primal", [X], [fixed])


def pentagon(n=5):
    return [(i, (i + 1) % n) for i in range(n)]


def theta(rng):
    X = cp.Variable((5, 5), symmetric=True)
    edges = [X[i, j] == 0 for i, j in pentagon()]
    fixed, cone = cp.trace(X) == 1, X >> 0
    return Case(cp.Problem(cp.Maximize(cp.sum(X)), [fixed, cone, *edges]), "primal", [X], [fixed, cone, *edges])


def theta_prime(rng):
    X = cp.Variable((6, 6), symmetric=True)
    edges = [X[i, j] == 0 for i, j in [*pentagon(6), (0, 3)]]
    fixed, cone = cp.trace(X) == 1, X >> 0
    return Case(cp.Problem(cp.Maximize(cp.sum(X)), [fixed, cone, X >= 0, *edges]), "primal", [], [fixed])


def correlation(rng):
    """The linear variant of the nearest correlation matrix: smallest sum of absolute changes."""
    B = np.eye(5) + np.triu(rng.uniform(-1, 1, (5, 5)), 1)
    B = np.triu(B) + np.triu(B, 1).T
    X, T = cp.Variable((5, 5), symmetric=True), cp.Variable((5, 5), symmetric=True)
    cone, diagonal = X >> 0, cp.diag(X) == 1
    return Case(cp.Problem(cp.Minimize(cp.sum(T)), [cone, diagonal, X - B <= T, B - X <= T]), "primal", [], [diagonal])


def discrimination(rng):
    """Minimum-error discrimination of three qutrit states: Hermitian blocks that sum to the identity."""
    states = []
    for weight in (0.5, 0.3, 0.2):
        M = rng.standard_normal((3, 2)) + 1j * rng.standard_normal((3, 2))
        rho = M @ M.conj().T
        states.append(weight * rho / np.trace(rho).real)
    P = [cp.Variable((3, 3), hermitian=True) for _ in states]
    cones, whole = [p >> 0 for p in P], sum(P) == np.eye(3)
    value = cp.real(sum(cp.trace(rho @ p) for rho, p in zip(states, P, strict=True)))
    return Case(cp.Problem(cp.Maximize(value), [*cones, whole]), "primal", P, [*cones, whole])


def phases(rng):
    C = hermitian(rng, 5)
    X = cp.Variable((5, 5), hermitian=True)
    diagonal, cone = cp.diag(X) == 1, X >> 0
    return Case(cp.Problem(cp.Minimize(cp.real(cp.trace(C @ X))), [diagonal, cone]), "primal", [X], [diagonal, cone])


def inequalities(rng):
    C, B = symmetric(rng, 5), symmetric(rng, 5)
    X = cp.Variable((5, 5), symmetric=True)
    fixed, cone = cp.trace(X) == 1, X >> 0
    rows = [cp.trace(B @ X) >= 0.3, X[0, 1] <= 0.1, cp.diag(X) <= 0.3]
    return Case(cp.Problem(cp.Minimize(cp.trace(C @ X)), [fixed, cone, *rows]), "primal", [X], [fixed, cone, *rows])


def two_blocks(rng):
    C, D = symmetric(rng, 4), symmetric(rng, 3)
    X, Z = cp.Variable((4, 4), symmetric=True), cp.Variable((3, 3), PSD=True)
    rows = [X >> 0, cp.trace(X) + cp.trace(Z) == 2, X[0, 0] == Z[1, 1], X[0, 1] + Z[0, 2] >= 0.2]
    return Case(cp.Problem(cp.Minimize(cp.trace(C @ X) + cp.trace(D @ Z)), rows), "primal", [X, Z], rows)


def linear(rng):
    X, p = cp.Variable((4, 4), symmetric=True), cp.Variable(3, nonneg=True)
    q = cp.Variable()
    C = symmetric(rng, 4)
    rows = [X >> 0, cp.diag(X) + cp.hstack([p, 0]) == 1, q <= 1.5, cp.sum(p) + q == 2]
    return Case(cp.Problem(cp.Minimize(cp.trace(C @ X) + np.array([3, 1, 2.5]) @ p + 0.3 * q), rows), "primal", [X, p, q], rows)


def free(rng):
    C = symmetric(rng, 5)
    X, t = cp.Variable((5, 5), symmetric=True), cp.Variable(2)
    rows = [X >> 0, cp.diag(X)[:3] == t[0], cp.diag(X)[3:] == t[1], t[0] + 2 * t[1] == 3]
    return Case(cp.Problem(cp.Minimize(cp.trace(C @ X) - t[1]), rows), "primal", [X, t], rows)


def shifted(rng):
    """``X >> I / 4`` and lower bounds: entries that own a variable up to a constant."""
    C = symmetric(rng, 4)
    X, p = cp.Variable((4, 4), symmetric=True), cp.Variable(2)
    rows = [X >> np.eye(4) / 4, 3 * p >= np.array([1, -2]), cp.trace(X) + cp.sum(p) == 3]
    return Case(cp.Problem(cp.Minimize(cp.trace(C @ X) + p[1]), rows), "primal", [X, p], rows)


def schur(rng):
    """A matrix with constant and repeated entries: [[t I, b], [b', t]]."""
    X, b = cp.Variable((4, 4), symmetric=True), cp.Variable(3)
    a = rng.standard_normal(3)
    cone = cp.bmat([[X[:3, :3], cp.reshape(b, (3, 1), order="F")], [cp.reshape(b, (1, 3), order="F"), np.ones((1, 1))]]) >> 0
    whole, fixed = X >> 0, cp.trace(X) == 2
    return Case(cp.Problem(cp.Maximize(a @ b - X[3, 3] + X[0, 1]), [cone, whole, fixed]), "primal", [b], [fixed])


def eigenvalue(rng):
    """min t, with t I - sum x_i F_i >> 0: a linear matrix inequality."""
    F = [symmetric(rng, 6) for _ in range(4)]
    x, t = cp.Variable(3), cp.Variable()
    cone = t * np.eye(6) - F[0] - sum(x[i] * F[i + 1] for i in range(3)) >> 0
    return Case(cp.Problem(cp.Minimize(t), [cone]), "dual", [x, t], [cone])


def eigenvalue_bounded(rng):
    """The same with equality and inequality rows on x."""
    F = [symmetric(rng, 6) for _ in range(4)]
    x, t = cp.Variable(3), cp.Variable()
    cone = t * np.eye(6) - F[0] - sum(x[i] * F[i + 1] for i in range(3)) >> 0
    rows = [cone, cp.sum(x) == 0.3, x <= 0.2, x[0] + 2 * x[1] >= -0.5]
    return Case(cp.Problem(cp.Minimize(t + 0.1 * x[0]), rows), "dual", [x, t], rows)


def hermitian_inequality(rng):
    F = [hermitian(rng, 4) for _ in range(3)]
    x = cp.Variable(3)
    cone = np.eye(4) + sum(x[i] * F[i] for i in range(3)) >> 0
    return Case(cp.Problem(cp.Maximize(np.array([1, -0.5, 0.2]) @ x), [cone]), "dual", [x], [cone])


def lyapunov(rng):
    """The smallest trace of P with A'P + PA + Q << 0, P >> 0."""
    A = rng.standard_normal((3, 3)) - 3 * np.eye(3)
    P = cp.Variable((3, 3), symmetric=True)
    cone, stable = P >> 0, A.T @ P + P @ A + np.eye(3) << 0
    return Case(cp.Problem(cp.Minimize(cp.trace(P)), [cone, stable]), "primal", [P], [stable])


def plain(rng):
    """A square variable that is not declared symmetric, as older code has it."""
    C = symmetric(rng, 4)
    X = cp.Variable((4, 4))
    rows = [X >> 0, X == X.T, cp.diag(X) == 1, X[0, 1] == 0.1]
    return Case(cp.Problem(cp.Minimize(cp.trace(C @ X)), rows), "primal", [X], rows[2:3])


def undeclared(rng):
    """The same, of which CVXPY takes the symmetric part; one row is not symmetric."""
    C = symmetric(rng, 4)
    X, t = cp.Variable((4, 4)), cp.Variable()
    rows = [X >> 0, cp.diag(X) == t, t <= 2, X[0, 1] + X[1, 0] >= 0.1, X[2, 3] - X[3, 2] == 0.5]
    return Case(cp.Problem(cp.Minimize(cp.trace(C @ X) - t), rows), "primal", [t], rows)


def plain_complex(rng):
    C = hermitian(rng, 3)
    X = cp.Variable((3, 3), complex=True)
    rows = [X >> 0, X == X.H, cp.real(cp.diag(X)) == 1]
    return Case(cp.Problem(cp.Minimize(cp.real(cp.trace(C @ X))), rows), "primal", [X], rows[2:])


def is_multiplier(constraint, dual):
    """Whether CVXPY's own dual is one: of the many in the real form of a Hermitian cone it may read off one that is not Hermitian."""
    return not isinstance(constraint, cp.constraints.PSD) or np.allclose(dual, np.conj(dual).T, atol=1e-3)


CASES = [
    maxcut, trace, theta, theta_prime, correlation, discrimination, phases, inequalities, two_blocks, linear, free, shifted, schur,
    eigenvalue, eigenvalue_bounded, hermitian_inequality, lyapunov, plain, undeclared, plain_complex,
]  # fmt: skip


def infeasible_primal():
    X = cp.Variable((3, 3), symmetric=True)
    return cp.Problem(cp.Minimize(cp.trace(X)), [X >> 0, cp.diag(X) == 1, X[0, 1] == 2])


def infeasible_inequality():
    x = cp.Variable(2)
    F = np.diag([1.0, -1.0])
    return cp.Problem(cp.Minimize(x[1]), [x[0] * F - np.eye(2) >> 0, x[1] >= 0])


def unbounded_primal():
    X = cp.Variable((3, 3), symmetric=True)
    return cp.Problem(cp.Minimize(X[0, 0] - 2 * X[1, 1]), [X >> 0, X[2, 2] == 1])


def unbounded_inequality():
    x = cp.Variable(2)
    F = np.array([[1.0, 0], [0, 2]])
    return cp.Problem(cp.Minimize(-x[0] + x[1]), [x[0] * F + np.eye(2) >> 0, x[1] >= 0])


def contradictory():
    X = cp.Variable((3, 3), symmetric=True)
    return cp.Problem(cp.Minimize(cp.trace(X)), [X >> 0, X[0, 1] - X[1, 0] == 1])


HOPELESS = [
    (infeasible_primal, "infeasible"),
    (infeasible_inequality, "infeasible"),
    (unbounded_primal, "unbounded"),
    (unbounded_inequality, "unbounded"),
    (contradictory, "infeasible"),
]
