"""Bounds with free rows: Schur complements, certificates, verified bounds, and residuals in twice the precision."""

from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp

from bmsdp import Oblique, Problem, Product, Sphere, Status, StiefelProduct, Unconstrained, certify
from bmsdp.certificate import provable
from bmsdp.factorization import Elimination
from bmsdp.free_rows import eliminated, free_mask
from bmsdp.schur import SchurOperator, definite
from bmsdp.solvers import TrustRegion
from bmsdp.staircase import staircase
from bmsdp.verified import lower_bound


def cost(rng, n, f, complex_=False, shift=1.0):
    """A sparse Hermitian matrix on n + f rows, indefinite, its last f rows definite; and the order that mixes the rows."""
    N = n + f
    A = rng.standard_normal((N, N)) * (rng.random((N, N)) < 0.5)
    if complex_:
        A = A + 1j * rng.standard_normal((N, N)) * (A != 0)
    A = A + A.conj().T
    A[n:, n:] = A[n:, n:] @ A[n:, n:].conj().T + shift * np.eye(f)
    return sp.csr_array((A + A.conj().T) / 2)


def dense_schur(C, n):
    C = C.toarray()
    S = C[:n, :n] - C[:n, n:] @ np.linalg.solve(C[n:, n:], C[n:, :n])
    return (S + S.conj().T) / 2


@pytest.mark.parametrize("complex_", [False, True])
def test_schur_operator_is_the_schur_complement(rng, complex_):
    C = cost(rng, 7, 5, complex_)
    S = SchurOperator(C, 7)
    want = dense_schur(C, 7)
    Y = rng.standard_normal((7, 3)) + (1j * rng.standard_normal((7, 3)) if complex_ else 0)
    np.testing.assert_allclose(S.mul(Y), want @ Y, atol=1e-12)
    full = S.complete(Y)
    np.testing.assert_allclose((C @ full)[7:], 0, atol=1e-12)  # stationary in what was eliminated
    assert np.vdot(full, C @ full).real == pytest.approx(np.vdot(Y, want @ Y).real)
    np.testing.assert_allclose(S.eliminated(Y), full[7:])


def test_large_products_go_through_the_kernel(rng):
    C = sp.csr_array(sp.random_array((900, 900), density=0.06, rng=rng))
    C = C + C.T + 200 * sp.eye_array(900)
    S = SchurOperator(C, 500)
    Y = rng.standard_normal((500, 4))
    np.testing.assert_allclose(S.mul(Y), dense_schur(S.whole.C, 500) @ Y, rtol=1e-10, atol=1e-9)


def test_product_size_is_above_the_rounding_of_a_product(rng):
    C = cost(rng, 20, 15)
    S, want = SchurOperator(C, 20), dense_schur(C, 20)
    V = rng.standard_normal((20, 200))
    V /= np.linalg.norm(V, axis=0)
    assert np.linalg.norm(S.mul(V) - want @ V, axis=0).max() <= 20 * 2.0**-53 * S.product_size(rng)


@pytest.mark.parametrize(
    "D", [np.diag([1.0, -1e-3]), np.array([[1.0, 1.0], [1.0, 1.0]]), np.zeros((2, 2)), np.array([[0.0, 1.0], [1.0, 0.0]])]
)
def test_what_is_not_definite_is_not_eliminated(D):
    assert definite(sp.csc_array(D)) is None
    with pytest.raises(ValueError, match="not positive definite; keep them"):
        SchurOperator(sp.csr_array(sp.block_diag([np.eye(2), D])), 2)


@pytest.mark.parametrize("given", [(np.eye(3), 2), (sp.eye_array(3), 0), (sp.eye_array(3), 3)])
def test_what_schur_operator_refuses(given):
    with pytest.raises(ValueError, match="rows are eliminated from a sparse C"):
        SchurOperator(*given)


def test_free_mask_and_what_can_be_eliminated(rng):
    manifold = Product([Oblique(np.ones(2)), Unconstrained(2), Product([Sphere(2, 1.0), Unconstrained(1)])])
    assert free_mask(manifold).tolist() == [False, False, True, True, False, False, True]
    C = np.diag([1.0, 2, 3, 4, 5, 6, 7])
    assert eliminated(Problem(C, manifold)).n == 4
    assert eliminated(Problem(C, Unconstrained(7))) is None
    assert not provable(Problem(-C, manifold)) and provable(Problem(-C, Oblique(np.ones(7))))


def optimum(C, n, blocks):
    """``min <S, X>`` with blocks of identity, S the Schur complement, by many starts at a rank above Barvinok-Pataki's."""
    problem = Problem(dense_schur(C, n), blocks)
    return staircase(problem, tol=1e-9, rng=0)


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("interleaved", [False, True])
def test_bounds_never_exceed_the_optimum(complex_, interleaved):
    """At good points, bad points and with any multipliers: three forms of one problem, two ways to the bound."""
    for seed in range(6):
        rng = np.random.default_rng([seed, complex_])
        n, f = 6, 4
        C = cost(rng, n, f, complex_, shift=[1.0, 0.1, 0.01][seed % 3])
        blocks = StiefelProduct(3, 2, complex_) if seed % 2 else Oblique(rng.random(n) + 0.5)
        best = optimum(C, n, blocks)
        ceiling = best.cost + 1e-8 * abs(best.cost)
        if interleaved:
            order = np.r_[np.arange(n, n + 2), np.arange(n), np.arange(n + 2, n + f)]
            joint = Problem(C[order][:, order], Product([Unconstrained(2), blocks, Unconstrained(f - 2)]))
        else:
            joint = Problem(C, Product([blocks, Unconstrained(f)]))
        short = Problem(SchurOperator(C, n), blocks)
        for problem in (joint, short):
            for Y in (problem.random_point(4, rng), 10 * problem.random_point(4, rng)):
                model = problem.at(problem.manifold.retract(Y, 0 * Y))
                for rigor in ("auto", "verified", "probabilistic", "estimate"):
                    found = certify(model, rigor=rigor, rng=seed)
                    assert found.bound <= ceiling and np.isfinite(found.bound), (seed, rigor)
                    assert found.rigor == ("verified" if rigor == "auto" else rigor)
                    v = np.ascontiguousarray(found.vector[:, None])
                    assert np.vdot(v, model.slack_mul(v)).real == pytest.approx(found.eig_min, abs=1e-6 * problem.norm_C)
                whole = (joint.C, joint.manifold) if problem is joint else (C, Product([blocks, Unconstrained(f)]))
                exact = lower_bound(*whole, dual=model.mu)
                assert exact.bound <= ceiling and np.isfinite(exact.bound)
        result = staircase(joint, TrustRegion(), tol=1e-6, rng=seed)
        assert result.status is Status.CERTIFIED and result.cost == pytest.approx(best.cost, rel=2e-6)
        assert result.bound <= ceiling and result.certificate.rigor == "verified"
        again = lower_bound(joint.C, joint.manifold, dual=result.dual)
        assert again.bound >= result.bound - 1e-5 * abs(result.bound) and again.bound <= ceiling


def test_the_dual_is_feasible_to_the_last_row(rng):
    """``C - A*(dual)`` is positive semidefinite on all rows, free ones included, and worth the bound."""
    C = cost(rng, 6, 4)
    joint = Problem(C, Product([StiefelProduct(3, 2), Unconstrained(4)]))
    found = certify(joint.at(joint.random_point(3, rng)), rng=0)
    S = C.toarray() - joint.manifold.matrix(found.dual).toarray()
    assert np.linalg.eigvalsh(S)[0] >= -1e-12 * joint.norm_C
    assert joint.manifold.b @ found.dual == pytest.approx(found.bound)
    outside = lower_bound(C, joint.manifold, dual=found.dual)
    assert outside.bound == pytest.approx(found.bound, rel=1e-9)


def test_free_rows_of_negative_curvature_have_no_bound(rng):
    C = cost(rng, 6, 4).toarray()
    C[-1, -1] = -1
    for form in (C, sp.csr_array(C)):
        joint = Problem(form, Product([Oblique(np.ones(6)), Unconstrained(4)]))
        assert certify(joint.at(joint.random_point(3, rng)), rng=0).bound == -np.inf
        assert lower_bound(form, joint.manifold).bound == -np.inf


def test_terms_leave_free_rows_without_bound(rng):
    from bmsdp.linear_maps import entries
    from bmsdp.penalty import Penalty

    joint = Problem(np.eye(4), Product([Oblique(np.ones(2)), Unconstrained(2)]), [Penalty(entries(4, [2], [3]), [1.0])])
    assert eliminated(joint) is None


def test_units_of_the_gap_are_those_of_bounded_rows(rng):
    """Free rows may be of any size: their trace says nothing of the cost."""
    joint = Problem(np.eye(5), Product([Oblique(np.ones(3)), Unconstrained(2)]))
    Y = joint.random_point(2, rng)
    far = Y.copy()
    far[3:] *= 1e6
    assert joint.at(far).cost_scale == pytest.approx(joint.at(Y).cost_scale) == pytest.approx(3 * 1.5e-8 * joint.norm_C)
    assert Problem(np.eye(2), Unconstrained(2)).at(Y[:2]).cost_scale > 0


# residuals in twice the precision


def exact_residual(S, diagonal, G, perm):
    """Row sums of ``|P (offdiag(S) + diag) P^T - G G^T|``, exactly, rounded up a little."""
    n = len(perm)
    A = [[Fraction(float(diagonal[perm[i]])) if i == j else Fraction(float(S[perm[i], perm[j]])) for j in range(n)] for i in range(n)]
    F = [[Fraction(float(g)) for g in row] for row in G]
    E = [[abs(A[i][j] - sum(F[i][k] * F[j][k] for k in range(min(i, j) + 1))) for j in range(n)] for i in range(n)]
    return np.array([float(sum(row)) for row in E])


@pytest.mark.parametrize("density", [0.1, 0.3, 1.0])
def test_residual_rows_are_the_residual(rng, density):
    n = 18
    A = rng.standard_normal((n, n)) * (rng.random((n, n)) < density) * 10.0 ** rng.integers(-3, 4, n)[:, None]
    S = sp.csr_array(A @ A.T + 1e-3 * np.eye(n))
    S.sort_indices()
    tree = Elimination.analyse(S)
    diagonal = S.diagonal() * (1 + 0.1 * rng.random(n))
    factor = tree.factor(S, diagonal)
    assert factor.definite
    found = factor.residual_rows(S, diagonal)
    G = np.zeros((n, n))
    root, s = np.sqrt(factor.D), tree.sparse
    for j in range(s):
        G[j, j] = root[j]
        span = slice(tree.pointer[j], tree.pointer[j + 1])
        G[factor.rows[span], j] = factor.values[span] * root[j]
    G[s:, s:] = np.triu(factor.U).T
    want = np.empty(n)
    want[tree.perm] = exact_residual(S, diagonal, G, tree.perm)
    assert (found >= want).all() and (found <= want * (1 + 1e-6) + 1e-26 * diagonal.max()).all()
    assert (found <= factor.error_rows()).all() and want.max() > 0


def test_no_residual_of_what_is_complex_dense_or_large(rng, monkeypatch):
    from bmsdp import factorization

    C = cost(rng, 6, 4, True)
    tree = Elimination.analyse(C)
    assert tree.factor(C, np.full(10, 100.0)).residual_rows(C, np.full(10, 100.0)) is None
    dense = C.real.toarray()
    assert Elimination.analyse(dense).factor(dense, np.full(10, 100.0)).residual_rows(dense, np.full(10, 100.0)) is None
    real = sp.csr_array(dense)
    factor = Elimination.analyse(real).factor(real, np.full(10, 100.0))
    assert factor.residual_rows(real, np.full(10, 100.0)) is not None
    monkeypatch.setattr(factorization, "RESIDUAL_LIMIT", 1.0)
    assert factor.residual_rows(real, np.full(10, 100.0)) is None
