"""Rows of ``A(X) = b`` to manifolds and back: any order, scaling and mixture, duals in the caller's rows."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import bmsdp
from bmsdp import Oblique, Product, Sphere, Status, StiefelProduct, gallery
from bmsdp.detect import detect_manifold
from bmsdp.linear_maps import as_linear_map
from bmsdp.manifolds import SphereProduct, Unconstrained
from bmsdp.operators import as_operator

from .general import Instance, check_result, clarabel


def entry(n, i, j, v=1.0):
    A = np.zeros((n, n), complex if isinstance(v, complex) else float)
    A[i, j] = v
    A[j, i] = np.conj(v)
    return A


def detect(A, b, n, is_complex=False):
    return detect_manifold(as_linear_map(A, n), np.asarray(b, float), is_complex)


def parts_of(manifold):
    return list(manifold.parts) if isinstance(manifold, Product) else [manifold]


def random_rows(rng, complex_):
    """Rows of a random product in random order and scaling: ``(n, A, b, kinds)``."""
    kinds, rows, n = [], [], 0
    shapes = [(str(rng.choice(["radius", "sphere", "stiefel"])), int(rng.integers(1, 4))) for _ in range(int(rng.integers(1, 5)))]
    total = sum(max(size, 2) if kind != "radius" else size for kind, size in shapes)
    where = rng.permutation(total)  # blocks sit on scattered, unsorted rows
    for kind, size in shapes:
        size = max(size, 2) if kind != "radius" else size
        I = where[n : n + size]
        n += size
        kinds.append((kind, size))
        if kind == "radius":
            rows += [(entry(total, i, i, rng.uniform(0.5, 2)), 10.0 ** rng.uniform(-2, 2)) for i in I]
        elif kind == "sphere":
            weights = rng.uniform(0.2, 5, size) if rng.random() < 0.6 else np.full(size, rng.uniform(0.5, 2))
            rows.append((sum(entry(total, i, i, w) for i, w in zip(I, weights, strict=True)), 10.0 ** rng.uniform(-1, 1)))
        else:
            rows += [(entry(total, i, i), 10.0 ** rng.uniform(-1, 1)) for i in I]  # unequal diagonal: scaled away
            for a in range(size):
                for c in range(a):
                    rows.append((entry(total, I[a], I[c]), 0.0))
                    if complex_:
                        rows.append((entry(total, I[a], I[c], complex(rng.uniform(-1, 1), 1)), 0.0))
    scale = rng.choice([-7.0, -1.0, -0.3, 0.01, 1.0, 2.5], len(rows))
    order = rng.permutation(len(rows))
    return total, [scale[p] * rows[p][0] for p in order], np.array([scale[p] * rows[p][1] for p in order]), kinds


def check(n, A, b, found, rng, complex_):
    """The manifold means the caller's rows, and its multipliers come back as the caller's."""
    dtype = complex if complex_ else float
    assert sorted(found.perm) == list(range(n)) and (found.scale > 0).all()
    Z = found.manifold.random_point(max(3, found.manifold.min_rank), rng, dtype)
    Y = found.factor_out(Z)
    X = Y @ Y.conj().T
    for a, value in zip(A, b, strict=True):
        assert np.vdot(a, X).real == pytest.approx(value, rel=1e-9, abs=1e-9 * np.abs(a).sum() * np.trace(X).real)
    np.testing.assert_allclose(found.factor_in(Y), Z, rtol=1e-12, atol=1e-14)
    # <C, X> is the same number in both coordinates, and so is <A*(mu) V, V>
    C = gallery.gue(n, rng) if complex_ else gallery.goe(n, rng)
    inner = found.operator(as_operator(C)).mul(Z)
    assert np.vdot(inner, Z).real == pytest.approx(np.vdot(C @ Y, Y).real, rel=1e-9, abs=1e-9)
    mu = rng.standard_normal(found.manifold.m)
    dual = found.to_caller(mu)
    assert dual.shape == (len(A),) and dual @ b == pytest.approx(mu @ found.manifold.b, rel=1e-9, abs=1e-9 * np.abs(mu).sum())
    V = rng.standard_normal((n, 2)) + (1j * rng.standard_normal((n, 2)) if complex_ else 0)
    outside = sum(d * a for d, a in zip(dual, A, strict=True)) @ found.factor_out(V.astype(dtype))
    inside = found.manifold.adjoint_mul(mu, V.astype(dtype))
    # y_caller = D P y_internal, so <A*(dual) DPv, DPv> = <A*(mu) v, v>
    assert np.vdot(found.factor_out(V.astype(dtype)), outside) == pytest.approx(np.vdot(V, inside), rel=1e-9, abs=1e-9)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_round_trip(seed, complex_):
    rng = np.random.default_rng(seed)
    n, A, b, kinds = random_rows(rng, complex_)
    found = detect(A, b, n, complex_)
    assert found.m == len(A)
    check(n, A, b, found, rng, complex_)
    seen = parts_of(found.manifold)
    radii = sum(p.n for p in seen if isinstance(p, Oblique))
    assert radii == sum(size for kind, size in kinds if kind == "radius")
    spheres = [size for p in seen for size in ([p.n] if isinstance(p, Sphere) else p.sizes if isinstance(p, SphereProduct) else [])]
    assert sorted(spheres) == sorted(size for kind, size in kinds if kind == "sphere")
    blocks = sorted(d for p in seen if isinstance(p, StiefelProduct) for d in [p.d] * p.q)
    assert blocks == sorted(size for kind, size in kinds if kind == "stiefel")


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_solving_round_trip(seed, complex_):
    """The optimum does not depend on order, scaling or repetition of rows, and the dual proves it on the caller's data."""
    rng = np.random.default_rng(seed)
    n, A, b, _ = random_rows(rng, complex_)
    C = gallery.gue(n, rng) if complex_ else gallery.goe(n, rng)
    C = C + 2 * np.eye(n)
    one = bmsdp.solve(C, A, b, tol=1e-8, rng=0)
    single = [j for j, a in enumerate(A) if np.count_nonzero(a) == 1 or not a.diagonal().any()]
    order = np.r_[rng.permutation(len(A)), single[:1]].astype(int)  # one row twice
    s = rng.choice([-3.0, 0.5], len(order))
    rows = sp.csr_array(np.array([(s[p] * A[j]).ravel() for p, j in enumerate(order)]))
    two = bmsdp.solve(sp.csr_array(C), rows, s * b[order], tol=1e-8, rng=1)
    assert one.success and two.success and one.cost == pytest.approx(two.cost, rel=1e-6, abs=1e-7)
    for result, matrices, rhs in ((one, A, b), (two, [s[p] * A[j] for p, j in enumerate(order)], s * b[order])):
        S = C - sum(d * a for d, a in zip(result.dual, matrices, strict=True))
        assert np.linalg.eigvalsh(S)[0] >= -1e-11 * (np.abs(C).sum() + np.linalg.norm(S))
        assert result.dual @ rhs == pytest.approx(result.bound, rel=1e-9, abs=1e-9)


def test_names_and_order():
    found = detect([entry(4, i, i) for i in range(4)], np.ones(4), 4)
    assert type(found.manifold) is Oblique and found.trivial and np.array_equal(found.manifold.b, np.ones(4))
    found = detect([2 * entry(3, i, i) for i in (2, 0, 1)], [2.0, 4, 6], 3)
    assert type(found.manifold) is Oblique and np.allclose(found.manifold.b, [2, 3, 1])
    found = detect([3 * np.eye(5)], [6.0], 5)
    assert type(found.manifold) is Sphere and found.manifold.b[0] == 2 and found.trivial
    found = detect([-np.diag([1.0, 4.0])], [-6.0], 2)
    assert type(found.manifold) is Sphere and not found.trivial and np.allclose(found.scale, [1, 0.5])
    found = detect([entry(2, 0, 0), entry(2, 1, 1), entry(2, 0, 1)], [1.0, 1, 0], 2)
    assert type(found.manifold) is StiefelProduct and (found.manifold.q, found.manifold.d) == (1, 2)
    found = detect([entry(2, 0, 0, 0.5), entry(2, 1, 1)], [1, 1], 2)
    assert np.allclose(found.manifold.b, [2, 1])


def test_one_entry_rows_are_spheres_too():
    """n = 1: a trace row is a diagonal row."""
    found = detect([np.array([[2.0]])], [6.0], 1)
    assert found.manifold.n == 1 and found.manifold.b[0] == 3
    assert bmsdp.solve([[5.0]], [np.array([[2.0]])], [6.0], rng=0).cost == pytest.approx(15)


def test_unequal_sphere_coefficients():
    """min <C, X> with sum a_i X_ii = b is b lambda_min(D C D), D = diag(a)^(-1/2)."""
    C, a = gallery.goe(7, 0), np.array([1.0, 4, 9, 0.1, 2, 3, 100])
    D = np.diag(1 / np.sqrt(a))
    for sign in (1, -2.5):
        result = bmsdp.solve(C, [sign * np.diag(a)], [sign * 3.0], tol=1e-8, rng=0)
        smallest = np.linalg.eigvalsh(D @ C @ D)[0]
        assert result.success and result.cost == pytest.approx(3 * smallest, rel=1e-7)
        assert sign * result.dual[0] == pytest.approx(smallest, rel=1e-6)


def test_stiefel_blocks_on_scattered_rows():
    n, blocks = 9, ([7, 0, 4], [1, 8, 3], [2, 6, 5])
    A = [entry(n, i, j) for block in blocks for i in block for j in block if i <= j]
    b = [1.0 if np.trace(a) else 0.0 for a in A]
    found = detect(A, b, n)
    assert (found.manifold.q, found.manifold.d) == (3, 3)
    assert sorted(sorted(found.perm[3 * q : 3 * q + 3].tolist()) for q in range(3)) == [[0, 4, 7], [1, 3, 8], [2, 5, 6]]
    C = gallery.goe(n, 1)
    order = np.concatenate(blocks)
    plain = bmsdp.solve(C[np.ix_(order, order)], StiefelProduct(3, 3), tol=1e-8, rng=0)
    result = bmsdp.solve(C, A, b, tol=1e-8, rng=0)
    assert result.success and result.cost == pytest.approx(plain.cost, rel=1e-6)
    for block in blocks:
        np.testing.assert_allclose(result.X[np.ix_(block, block)], np.eye(3), atol=1e-12)


def test_unequal_diagonals_of_a_block():
    """X_[ii] = diag(b) is an identity block after scaling."""
    A = [entry(4, 0, 0, 2.0), entry(4, 2, 2, -1.0), entry(4, 0, 2, 5.0), entry(4, 1, 1), entry(4, 3, 3)]
    b = [6.0, -0.2, 0.0, 2.0, 7.0]
    result = bmsdp.solve(gallery.goe(4, 0), A, b, tol=1e-8, rng=0)
    X = result.X
    assert result.success
    np.testing.assert_allclose([X[0, 0], X[2, 2], X[1, 1], X[3, 3]], [3, 0.2, 2, 7], rtol=1e-12)
    assert abs(X[0, 2]) <= 1e-12


def test_blocks_of_different_sizes():
    A = [entry(6, i, i) for i in range(6)] + [entry(6, 0, 1), entry(6, 2, 3), entry(6, 2, 4), entry(6, 3, 4)]
    found = detect(A, [1.0] * 6 + [0.0] * 4, 6)
    assert [type(p).__name__ for p in parts_of(found.manifold)] == ["Oblique", "StiefelProduct", "StiefelProduct"]
    assert [getattr(p, "d", 1) for p in parts_of(found.manifold)] == [1, 2, 3] and found.manifold.min_rank == 3


def test_complex_blocks_need_real_and_imaginary_rows():
    D, b = [entry(2, 0, 0), entry(2, 1, 1)], [1.0, 1.0]
    C = gallery.gue(2, 0)
    real = detect([*D, entry(2, 0, 1)], [*b, 0], 2, True)
    assert type(real.manifold) is Oblique and list(real.rest) == [2]
    result = bmsdp.solve(C, [*D, entry(2, 0, 1)], [*b, 0], tol=1e-8, rng=0)  # Re X_01 = 0, and Im X_01 is free in [-1, 1]
    assert result.success and result.cost == pytest.approx(np.trace(C).real - 2 * abs(C[0, 1].imag), rel=1e-7, abs=1e-7)
    for first, second in ((1.0, 1j), (1 + 1j, 1 + 1j), (2j, 1 + 0.1j)):
        A = [*D, entry(2, 0, 1, complex(first)), entry(2, 1, 0, complex(second))]
        result = bmsdp.solve(C, A, [*b, 0, 0], tol=1e-8, rng=0)
        assert result.success and result.cost == pytest.approx(np.trace(C).real, rel=1e-7, abs=1e-7)
        S = C - sum(d * a for d, a in zip(result.dual, A, strict=True))
        assert np.linalg.eigvalsh(S)[0] >= -1e-12 and np.abs(S).max() < 1e-5
    dependent = [*D, entry(2, 0, 1, 1 + 1j), entry(2, 0, 1, 2 + 2j)]
    assert list(detect(dependent, [*b, 0, 0], 2, True).rest) == [2, 3]
    result = bmsdp.solve(C, dependent, [*b, 0, 0], tol=1e-8, rng=0)  # X_01 is a real multiple of 1 - i
    free = abs((C[0, 1] * np.conj(1 - 1j)).real) / np.sqrt(2)
    assert result.success and result.cost == pytest.approx(np.trace(C).real - 2 * free, rel=1e-7, abs=1e-7)
    over = [*D, entry(2, 0, 1, 1 + 1j), entry(2, 0, 1, 2 + 2j), entry(2, 0, 1, 1j)]  # the second row adds nothing
    result = bmsdp.solve(C, over, [*b, 0, 0, 0], tol=1e-8, rng=0)
    S = C - sum(d * a for d, a in zip(result.dual, over, strict=True))
    assert result.success and np.linalg.eigvalsh(S)[0] >= -1e-10


def test_imaginary_rows_with_a_real_cost():
    """Complex rows make X complex: an imaginary one leaves the real part of X_01 to the cost, with a real one it fixes X_01."""
    C = gallery.goe(2, 0) + np.diag([1.0, 2.0])
    D, b = [entry(2, 0, 0), entry(2, 1, 1)], [1.0, 1.0]
    free = bmsdp.solve(C, D, b, tol=1e-8, rng=0).cost
    result = bmsdp.solve(C, [*D, entry(2, 0, 1, 1j)], [*b, 0.0], tol=1e-8, rng=0)
    assert result.success and result.Y.dtype == complex and result.cost == pytest.approx(free, rel=1e-6)
    A = [*D, entry(2, 0, 1, 1j), entry(2, 0, 1, 1 + 0j)]
    result = bmsdp.solve(C, A, [*b, 0.0, 0.0], tol=1e-8, rng=0)
    S = C - sum(d * a for d, a in zip(result.dual, A, strict=True))
    assert result.cost == pytest.approx(np.trace(C), rel=1e-6) and np.linalg.eigvalsh(S)[0] >= -1e-10


def test_real_rows_with_a_complex_cost():
    C = gallery.gue(5, 0)
    result = bmsdp.solve(C, [entry(5, i, i) for i in range(5)], np.ones(5), tol=1e-8, rng=0)
    assert result.success and result.Y.dtype == complex
    same = bmsdp.solve(C, [entry(5, i, i, 1 + 0j) for i in range(5)], np.ones(5), tol=1e-8, rng=0)
    assert same.cost == pytest.approx(result.cost, rel=1e-9)


@pytest.mark.parametrize("copies", [lambda a: a, lambda a: -2 * a, lambda a: a / 3])
def test_duplicate_rows_get_dual_zero(copies):
    C = gallery.goe(4, 0)
    A, b = [entry(4, i, i) for i in range(4)], np.array([1.0, 2, 3, 4])
    rows = [*A, copies(A[2])]
    rhs = [*b, np.vdot(copies(A[2]), 3 * A[2])]
    plain, result = bmsdp.solve(C, A, b, rng=0), bmsdp.solve(C, rows, rhs, rng=0)
    assert result.success and result.dual.shape == (5,) and result.dual[4] == 0
    assert result.cost == plain.cost
    np.testing.assert_allclose(result.dual[:4], plain.dual, rtol=1e-9)  # the bound is proved from other rows, and rounds otherwise


def test_duplicate_rows_inside_a_block():
    A = [entry(3, 0, 0), entry(3, 1, 1), entry(3, 2, 2), entry(3, 0, 1), entry(3, 1, 0, -4.0), entry(3, 0, 0, 2.0)]
    result = bmsdp.solve(gallery.goe(3, 0), A, [1.0, 1, 1, 0, 0, 2], tol=1e-8, rng=0)
    assert result.success and result.dual[4] == 0 and result.dual[5] == 0
    S = gallery.goe(3, 0) - sum(d * a for d, a in zip(result.dual, A, strict=True))
    assert np.linalg.eigvalsh(S)[0] >= -1e-12


def test_duplicate_spheres():
    """A sphere's row given twice is consistent: solved with dual 0."""
    C = gallery.goe(3, 0)
    result = bmsdp.solve(C, [np.eye(3), 2 * np.eye(3)], [1.0, 2.0], tol=1e-8, rng=0)
    assert result.success and result.cost == pytest.approx(np.linalg.eigvalsh(C)[0], rel=1e-7) and result.dual[1] == 0


def refused(C, A, b, message, dual):
    """INFEASIBLE for this reason, with this ray."""
    result = bmsdp.solve(C, A, b, rng=0)
    assert result.status is Status.INFEASIBLE and not result.success and message in result.message, result.message
    expected = np.zeros(len(b))
    expected[list(dual)] = list(dual.values())
    np.testing.assert_allclose(result.ray["dual"], expected, rtol=1e-6)


def test_zero_rows():
    C = gallery.goe(3, 0)
    A, b = [entry(3, i, i) for i in range(3)], [1.0, 1, 1]
    plain = bmsdp.solve(C, A, b, rng=0)
    result = bmsdp.solve(C, [np.zeros((3, 3)), *A, np.zeros((3, 3))], [0.0, *b, 0.0], rng=0)
    assert result.success and result.cost == plain.cost and result.dual[0] == result.dual[-1] == 0
    refused(C, [A[0], np.zeros((3, 3)), *A[1:]], [1.0, 3.0, 1, 1], "row 1 of A says 0 = 3.0, which has no solution", {1: 1 / 3})
    stored = sp.csr_array(np.array([a.ravel() for a in A]))
    stored.data[0] = 0.0  # an explicit zero
    refused(C, stored, b, "row 0 of A says 0 = 1.0", {0: 1.0})


def test_contradictory_rows():
    A = [entry(3, i, i) for i in range(3)]
    message = "rows 1 and 3 contradict each other: X_1,1 = 1.0 and 2.0"
    refused(np.eye(3), [*A, 2 * A[1]], [1.0, 1, 1, 4.0], message, {1: -1.0, 3: 0.5})
    # equal up to rounding is no contradiction
    assert bmsdp.solve(np.eye(3), [*A, 3 * A[1]], [1.0, 0.1, 1, 0.1 * 3], rng=0).success


def test_nearly_contradictory_rows_are_told_apart():
    A = [entry(2, i, i) for i in range(2)]
    result = bmsdp.solve(np.eye(2), [*A, A[0]], [1.0, 1, 1 + 1e-9])
    assert result.status is Status.INFEASIBLE and "contradict" in result.message
    shown = result.message.split(" = ")[1]
    assert len(set(shown.split(" and "))) == 2, f"the two values look alike: {shown}"


GENERAL = {
    "dense": ([np.eye(3), np.ones((3, 3))], [1.0, 0.5], [1]),
    "signs": ([np.diag([1.0, -1, 1]), np.eye(3)], [0.2, 1.0], [0]),
    "after_good_rows": ([*(entry(3, i, i) for i in range(3)), np.ones((3, 3))], [1.0, 1, 1, 2], [3]),
    "off_diagonal_value": ([*(entry(3, i, i) for i in range(3)), entry(3, 0, 1)], [1.0, 1, 1, 0.5], [3]),
    "two_entries": ([*(entry(3, i, i) for i in range(3)), entry(3, 0, 1) + entry(3, 1, 2)], [1.0, 1, 1, 0], [3]),
    "off_diagonal_without_diagonal": ([np.eye(3), entry(3, 0, 1)], [1.0, 0.0], [1]),
    "incomplete_block": ([*(entry(3, i, i) for i in range(3)), entry(3, 0, 1), entry(3, 1, 2)], [1.0, 1, 1, 0, 0], [3, 4]),
    "overlap": ([np.eye(3), entry(3, 1, 1)], [3.0, 1.0], [1]),
    "overlapping_spheres": ([np.diag([1.0, 1, 0]), np.diag([0, 1.0, 1])], [1.0, 1.0], [1]),
}  # fmt: skip


@pytest.mark.parametrize("name", GENERAL)
def test_other_rows_are_general_ones(name):
    """Rows that fit no manifold are left to the caller of `detect_manifold`; `solve` holds them, as Clarabel does."""
    A, b, rest = GENERAL[name]
    found = detect(A, b, 3)
    assert list(found.rest) == rest
    one = Instance(gallery.goe(3, 0), A, np.array(b), [], np.zeros(0))
    reference = clarabel(one)
    for form in (A, sp.csr_array(np.array([a.ravel() for a in A]))):
        result = bmsdp.solve(one.C, form, b, rng=0)
        check_result(one, result, reference.value)


def test_a_row_of_X_that_nothing_bounds():
    """X_11 is free to grow where that pays: unbounded; where it does not, there is an optimum."""
    A, b = [entry(3, 0, 0), entry(3, 2, 2)], [1.0, 1.0]
    found = detect(A, b, 3)
    assert [type(p) for p in parts_of(found.manifold)] == [Oblique, Unconstrained] and list(found.loose) == [1]
    C = np.diag([1.0, -1, 1])
    result = bmsdp.solve(C, A, b, rng=0)
    assert result.status is Status.UNBOUNDED
    Z = result.ray["Y"]
    assert np.vdot(C @ Z, Z) == pytest.approx(-1) and np.abs(Z[[0, 2]]).max() <= 1e-6
    C = np.array([[1.0, 1, 0], [1, 2, 0], [0, 0, 1]])  # min over X_01, X_11: 1 + 1 - 1/2
    result = bmsdp.solve(C, A, b, rng=0)
    assert result.success and result.cost == pytest.approx(1.5, rel=1e-6) and result.bound <= 1.5 + 1e-9


def test_disjoint_spheres_are_one_part():
    found = detect([np.diag([1.0, 0, 1, 0, 0]), 2 * np.diag([0, 1.0, 0, 0, 1]), entry(5, 3, 3)], [1.0, 4, 9], 5)
    assert [type(p) for p in parts_of(found.manifold)] == [Oblique, SphereProduct]
    assert list(parts_of(found.manifold)[1].b) == [1.0, 2.0] and not len(found.rest)


def test_a_large_diagonal_is_recognised_quickly():
    import time

    n = 20_000
    index = np.arange(n, dtype=np.int64)
    rows = sp.coo_array((np.full(n, 2.0), (index, index * n + index)), shape=(n, n * n))
    rows = sp.csr_array(rows)
    start = time.perf_counter()
    found = detect(rows, np.full(n, 4.0), n)
    assert type(found.manifold) is Oblique and np.all(found.manifold.b == 2) and time.perf_counter() - start < 5
