"""The noise W: one law in every form it takes, nothing where it would be absorbed, and no storage where it is drawn again."""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla

import bmsdp
from bmsdp import LowRankPlusSparse, Oblique, Perturbation, Problem, Product, Sphere, StiefelProduct, gallery, perturbation
from bmsdp.operators import DenseOperator, SparseOperator, SumOperator, as_operator
from bmsdp.perturbation import BLOCK, Wigner, absorbed, as_perturbation, check_sigma, pattern_noise, perturb

from .laws.registry import REGISTRY

KINDS = pytest.mark.parametrize("complex_", [False, True])
SIZES = [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 1300]


def factor(rng, n, k, complex_):
    return rng.standard_normal((n, k)) + (1j * rng.standard_normal((n, k)) if complex_ else 0)


# one W, known by its products or as an array


@KINDS
@pytest.mark.parametrize("n", SIZES)
def test_products_are_those_of_the_array(n, complex_, rng):
    """At the boundaries of the blocks as elsewhere; real noise times complex factors too."""
    W = Wigner(n, 0.7, 5, is_complex=complex_)
    A = W.toarray()
    assert A.shape == (n, n) and A.dtype == W.dtype and W.is_complex == complex_
    assert np.array_equal(A, A.conj().T) and not A.diagonal().imag.any()
    for Y in (factor(rng, n, 3, complex_), factor(rng, n, 1, True), rng.standard_normal((n, 2))):
        out = W.mul(np.ascontiguousarray(Y))
        assert out.dtype == np.result_type(W.dtype, Y.dtype) and out.shape == Y.shape
        np.testing.assert_allclose(out, A @ Y, atol=1e-12 * np.sqrt(n))
    np.testing.assert_array_equal(W.diagonal(), A.diagonal().real)
    v = rng.random(n)
    np.testing.assert_allclose(W.abs_mul(v), np.abs(A) @ v, rtol=1e-12)
    assert W.matrix() is None


@KINDS
def test_no_entry_repeats(complex_):
    """Blocks have streams of their own: 1300 x 1300 independent numbers, no two alike, no block a copy of another."""
    A = Wigner(1300, 1.0, 0, is_complex=complex_).toarray()
    upper = A[np.triu_indices(1300, 1)]
    parts = np.concatenate([upper.real, upper.imag]) if complex_ else upper
    assert np.unique(parts).size == parts.size
    blocks = [A[i : i + 276, j : j + 276].real.ravel() for i, j in ((0, 512), (0, 1024), (512, 1024), (0, 0), (512, 512), (1024, 1024))]
    correlation = np.corrcoef(blocks)[np.triu_indices(6, 1)]
    assert np.abs(correlation).max() < 6 / np.sqrt(276**2 / 2)


def test_seeds():
    one, again, other = (Wigner(600, 1.0, seed).toarray() for seed in (3, 3, 4))
    assert np.array_equal(one, again) and not (one == other).any()
    rng = np.random.default_rng(3)
    first, second = Wigner(600, 1.0, rng).toarray(), Wigner(600, 1.0, rng).toarray()
    assert np.array_equal(first, one) and not (first == second).any()
    assert not np.array_equal(Wigner(4, 1.0).toarray(), Wigner(4, 1.0).toarray()), "no seed: fresh entropy"
    Y = np.ones((600, 2))
    W = Wigner(600, 1.0, 3)
    assert np.array_equal(W.mul(Y), W.mul(Y)), "drawn again, and the same"


def test_sigma_is_a_factor():
    one, two = Wigner(700, 1.0, 3), Wigner(700, 2.0**-20, 3)
    assert np.array_equal(two.toarray(), 2.0**-20 * one.toarray())
    np.testing.assert_allclose(Wigner(700, 0.3, 3).toarray(), 0.3 * one.toarray(), rtol=1e-15)


def within(values, moment, error):
    """A mean within five standard errors of what it should be."""
    assert abs(np.mean(values) - moment) <= 5 * error / np.sqrt(values.size), (np.mean(values), moment)


@KINDS
def test_moments(complex_):
    """``E|W_ij|^2 = sigma^2``; real and imaginary part sigma^2 / 2 each and independent; a real diagonal of variance sigma^2."""
    sigma, n = 0.3, 900
    A = Wigner(n, sigma, 1, is_complex=complex_).toarray() / sigma
    w, d = A[np.triu_indices(n, 1)], A.diagonal().real
    share = 0.5 if complex_ else 1.0
    for part in (w.real, w.imag) if complex_ else (w,):
        within(part, 0, np.sqrt(share))
        within(part**2, share, np.sqrt(2) * share)
        within(part**4, 3 * share**2, np.sqrt(96) * share**2)
    if complex_:
        within(w.real * w.imag, 0, 0.5)
    within(np.abs(w) ** 2, 1, 1 if complex_ else np.sqrt(2))
    diagonals = np.concatenate([Wigner(600, 1.0, seed, is_complex=complex_).diagonal() for seed in range(20)])
    within(diagonals, 0, 1)
    within(diagonals**2, 1, np.sqrt(2))
    within(d[:-1] * d[1:], 0, 1)
    rows = A - np.diag(d)
    within((rows[0] * rows[1].conj()).real, 0, share if complex_ else 1)
    if complex_:
        assert abs(np.mean(w**2)) <= 5 / np.sqrt(w.size), "E W_ij^2 = 0: a circular distribution"


@KINDS
def test_norm(complex_):
    """Fact 24: ``|W| <= 3 sigma sqrt(n)``, and about 2 sigma sqrt(n) in truth."""
    for n, seeds in ((20, 40), (100, 20), (600, 3)):
        norms = [np.linalg.norm(Wigner(n, 0.1, seed, is_complex=complex_).toarray(), 2) / (0.1 * np.sqrt(n)) for seed in range(seeds)]
        assert max(norms) <= 3 and 1.5 <= np.median(norms) <= 2.3


# entries left out


@KINDS
def test_omitted_entries(complex_):
    """Zeros where asked for, across blocks too, and every other entry as it was."""
    n = 1100
    rng = np.random.default_rng(0)
    i, j = rng.integers(0, n, (2, 3000))
    omit = sp.coo_array((np.ones(6000), (np.concatenate([i, j]), np.concatenate([j, i]))), shape=(n, n)).tocsr()
    full, W = Wigner(n, 1.0, 2, is_complex=complex_), Wigner(n, 1.0, 2, is_complex=complex_, omit=omit)
    mask = omit.toarray() != 0
    assert np.array_equal(W.toarray(), np.where(mask, 0, full.toarray()))
    assert np.array_equal(W.diagonal() == 0, mask.diagonal())
    Y = factor(rng, n, 2, complex_)
    np.testing.assert_allclose(W.mul(Y), np.where(mask, 0, full.toarray()) @ Y, atol=1e-11)
    none = Wigner(n, 1.0, 2, is_complex=complex_, omit=sp.csr_array((n, n)))
    assert np.array_equal(none.toarray(), full.toarray())


def freedom(manifold, complex_):
    """The subspace ``{A*(nu)}`` as a matrix of columns, and all Hermitian unit matrices with their places."""
    n, dtype = manifold.n, complex if complex_ else float
    columns = [manifold.adjoint_mul(e, np.eye(n, dtype=dtype)).ravel() for e in np.eye(manifold.m)]
    return np.array(columns).T.reshape(n * n, manifold.m)


@pytest.mark.parametrize("name", REGISTRY)
def test_absorbed_entries(name):
    """The matrices on the absorbed pattern are exactly those of the form A*(nu), wherever a pattern can say so; noise is 0 there."""
    manifold, dtype, _ = REGISTRY[name]
    complex_, n = dtype == np.complex128, manifold.n
    pattern = absorbed(manifold, complex_).toarray() != 0
    assert np.array_equal(pattern, pattern.T)
    B = freedom(manifold, complex_)
    for i, j in np.argwhere(np.triu(pattern)):
        for value in (1.0, 1j) if complex_ and i < j else (1.0,):
            E = np.zeros((n, n), dtype)
            E[i, j], E[j, i] = value, np.conj(value)
            real = [np.concatenate([M.real, M.imag]) for M in (B, E.ravel()[:, None])]
            solution = np.linalg.lstsq(real[0], real[1], rcond=None)[0]
            np.testing.assert_allclose(real[0] @ solution, real[1], atol=1e-12)
    # and conversely no unit matrix outside the pattern is of that form
    for i, j in np.argwhere(np.triu(~pattern)):
        E = np.zeros((n, n), dtype)
        E[i, j] = E[j, i] = 1
        real = [np.concatenate([M.real, M.imag]) for M in (B, E.ravel()[:, None])]
        assert not manifold.m or np.linalg.norm(real[0] @ np.linalg.lstsq(real[0], real[1], rcond=None)[0] - real[1]) > 0.1
    C = np.zeros((n, n), dtype)
    for seed in range(3):
        W = perturb(C, 1.0, seed, A=manifold)[1].matrix()
        assert not W[pattern].any() and W[~pattern].all() and np.array_equal(W, W.conj().T)


@pytest.mark.parametrize("name", REGISTRY)
def test_absorbed_noise_changes_nothing(name, rng):
    """Fact 3: ``C + A*(nu)`` has the slack, the gradient and the Hessian of C; the cost moves by <b, nu>."""
    manifold, dtype, k = REGISTRY[name]
    n, nu = manifold.n, rng.standard_normal(manifold.m)
    C = factor(rng, n, n, dtype == np.complex128)
    C = C + C.conj().T
    shifted = C + manifold.adjoint_mul(nu, np.eye(n, dtype=dtype))
    one, two = Problem(C, manifold), Problem((shifted + shifted.conj().T) / 2, manifold)
    Y, U = one.random_point(k, rng), one.random_point(k, rng)
    U = manifold.project(Y, U)
    a, c = one.at(Y), two.at(Y)
    np.testing.assert_allclose(c.slack_mul(np.eye(n, dtype=dtype)), a.slack_mul(np.eye(n, dtype=dtype)), atol=1e-11)
    np.testing.assert_allclose(c.grad, a.grad, atol=1e-10)
    np.testing.assert_allclose(c.hess(U), a.hess(U), atol=1e-9)
    assert c.cost == pytest.approx(a.cost + manifold.b @ nu, abs=1e-10)
    assert c.dual_value == pytest.approx(a.dual_value + manifold.b @ nu, abs=1e-10)


def test_what_overlapping_rows_absorb():
    """A row of one entry absorbs it, also where it comes twice; a single trace absorbs no entry."""
    from bmsdp.linear_maps import as_linear_map

    twice = as_linear_map([np.diag([1.0, 0]), np.diag([1.0, 0]), np.diag([0, 1.0])], 2)
    assert absorbed(twice, False).nnz == 2
    assert not absorbed(Sphere(4, 2.0), False).nnz and absorbed(Sphere(1, 2.0), False).nnz == 1
    assert absorbed(as_linear_map([np.eye(3)[[i]].T @ np.eye(3)[[i]] for i in range(3)], 3), True).nnz == 3


# noise on the pattern


@KINDS
def test_pattern_noise(complex_):
    W = gallery.toroidal_grid(30, 40, 0)
    C = sp.csr_array(W * (1j if complex_ else 1.0)) if not complex_ else sp.csr_array(sp.triu(W) * 1j - sp.tril(W) * 1j)
    C = sp.csr_array(C + sp.eye_array(1200))
    N = pattern_noise(C, 0.2, 3)
    assert abs(N - N.conj().T).nnz == 0 and N.dtype == C.dtype and not N.diagonal().any()
    N.sort_indices()
    off = sp.csr_array(C - sp.diags_array(C.diagonal()))
    off.sort_indices()
    assert np.array_equal(N.indptr, off.indptr) and np.array_equal(N.indices, off.indices) and N.data.all()
    w = sp.triu(N, 1).data / 0.2
    within(np.abs(w) ** 2, 1, 1 if complex_ else np.sqrt(2))
    within(w.real, 0, 1)
    assert np.array_equal(N.toarray(), pattern_noise(C, 0.2, 3).toarray()) and not np.array_equal(N.data, pattern_noise(C, 0.2, 4).data)
    omit = sp.csr_array(([1.0, 1.0], ([0, 1], [1, 0])), shape=C.shape)
    left = pattern_noise(C, 0.2, 3, omit=omit)
    assert left[0, 1] == 0 == left[1, 0] and left.nnz == N.nnz - 2


@KINDS
def test_pattern_noise_stays_sparse(complex_):
    manifold = StiefelProduct(8, 2, complex_)
    C, _ = gallery.orthogonal_synchronization(8, 2, 0.1, 0, p=0.5)
    C = sp.csr_array(C * (1 + 0j)) if complex_ else C
    noisy, W = perturb(C, 0.3, 0, A=manifold, pattern=True)
    assert isinstance(noisy, SparseOperator) and isinstance(W, SparseOperator) and noisy.matrix().nnz == C.nnz
    np.testing.assert_array_equal((noisy.matrix() - W.matrix()).toarray().round(12), C.toarray().round(12))
    blocks = np.kron(np.eye(8), np.ones((2, 2))) > 0
    assert not W.matrix().toarray()[blocks].any()
    for cost in (C.toarray(), LowRankPlusSparse(C, np.ones((16, 1))), spla.aslinearoperator(C)):
        with pytest.raises(ValueError, match=r"pattern of C needs a sparse C; use the full noise \(pattern=False\)"):
            perturb(cost, 0.3, 0, pattern=True)


# the perturbed cost


@KINDS
def test_stored_and_drawn_again_are_one(complex_, monkeypatch, rng):
    """Below and above the limit of storage: the same W, left out where A* absorbs it, the same products."""
    n, manifold = 600, Oblique(np.ones(600))
    C = gallery.gue(n, 0) if complex_ else gallery.goe(n, 0)
    forms = {"dense": C, "sparse": sp.csr_array(C * (np.abs(C) > 1.5)), "operator": spla.aslinearoperator(C),
             "low rank": LowRankPlusSparse(None, C[:, :3])}  # fmt: skip
    Y = factor(rng, n, 2, complex_)
    for name, cost in forms.items():
        stored, W = perturb(cost, 0.4, 9, A=manifold)
        assert isinstance(stored, SumOperator if name in ("operator", "low rank") else DenseOperator) and isinstance(W, DenseOperator)
        monkeypatch.setattr(perturbation, "DENSE_LIMIT", 599)
        implicit, drawn = perturb(cost, 0.4, 9, A=manifold)
        monkeypatch.undo()
        assert isinstance(implicit, SumOperator) and isinstance(drawn, Wigner)
        assert np.array_equal(drawn.toarray(), W.matrix()) and not W.matrix().diagonal().any()
        np.testing.assert_allclose(implicit.mul(Y), stored.mul(Y), atol=1e-10)
        np.testing.assert_allclose(stored.mul(Y) - W.mul(Y), as_operator(cost).mul(Y), atol=1e-10)
        assert implicit.is_complex == stored.is_complex == complex_ and implicit.terms >= n
        if name != "operator":
            np.testing.assert_allclose(implicit.diagonal(), stored.diagonal(), atol=1e-12)
            v = rng.random(n)
            exact = np.abs(as_operator(cost).mul(np.eye(n, dtype=C.dtype)) + W.matrix()) @ v
            assert (implicit.abs_mul(v) >= exact * (1 - 1e-12)).all() and (stored.abs_mul(v) >= exact * (1 - 1e-12)).all()


@KINDS
def test_storage(complex_):
    """n = 5000: no n x n array anywhere (200 MB), neither for W nor for its products."""
    n = 5000
    C, manifold = gallery.gnp(n, 2 / n, 0), Oblique(np.ones(n))
    C = sp.csr_array(C * (1 + 0j)) if complex_ else C
    Y = np.ones((n, 4), C.dtype)
    tracemalloc.start()
    try:
        noisy = Problem(C, manifold, norm_C=4.0).perturbed(0.1, 0)
        out = noisy.C.mul(Y)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(noisy.noise, Wigner) and np.isfinite(out).all() and peak < 40e6
    assert noisy.C.matrix() is None


def test_perturbed_problem():
    """Manifold, blocks, cost_scale and threads are kept; the noise is known; the original is not touched."""
    C, manifold = gallery.goe(12, 0), Product([Oblique(np.ones(8)), Sphere(4, 2.0)])
    problem = Problem(C, manifold, cost_scale=3.5, blocks=[slice(0, 8), slice(8, 12)], threads=2)
    kept = C.copy()
    noisy = problem.perturbed(0.2, 1)
    assert noisy.manifold is manifold and noisy.cost_scale == 3.5 and noisy.blocks == problem.blocks and noisy.C.threads == 2
    assert problem.noise is None and noisy.noise is not None and np.array_equal(C, kept)
    np.testing.assert_allclose(noisy.C.matrix(), C + noisy.noise.matrix(), atol=1e-15)
    assert noisy.norm_C >= np.linalg.norm(noisy.C.matrix(), 2) * 0.99 and np.array_equal(noisy.C.matrix(), noisy.C.matrix().T)
    assert np.array_equal(noisy.noise.matrix(), problem.perturbed(0.2, 1).noise.matrix())
    assert not np.array_equal(noisy.noise.matrix(), problem.perturbed(0.2, 2).noise.matrix())
    sparse = Problem(sp.csr_array(C * (np.abs(C) > 1)), manifold).perturbed(0.2, 1, pattern=True)
    assert sp.issparse(sparse.C.matrix())
    twice = noisy.perturbed(0.2, 5)
    np.testing.assert_allclose(twice.C.matrix() - twice.noise.matrix(), noisy.C.matrix(), atol=1e-14)


def test_perturbed_bounds_are_those_of_the_perturbed_cost():
    problem = Problem(gallery.goe(15, 0), Oblique(np.ones(15)))
    noisy = problem.perturbed(0.5, 0)
    result = bmsdp.solve(noisy, rng=0)
    assert result.status.name == "CERTIFIED" and result.certificate.rigor == "verified"
    C = noisy.C.matrix()
    assert np.linalg.eigvalsh(C - np.diag(result.dual))[0] >= -1e-13 and result.cost == pytest.approx(np.vdot(C @ result.Y, result.Y))


# what is refused

BAD = [0, 0.0, -1, -1e-300, np.nan, np.inf, -np.inf, True, False, None, "small", "AUTO", "", 1j, [1.0], (1.0, 2.0)]


@pytest.mark.parametrize("sigma", BAD, ids=repr)
def test_bad_sigma(sigma):
    for call in (check_sigma, Perturbation, lambda s: Wigner(3, s), lambda s: perturb(np.eye(3), s), as_perturbation):
        with pytest.raises(ValueError, match=r"sigma = .*positive finite standard deviation in the units of C"):
            call(sigma)
    with pytest.raises(ValueError, match="sigma = "):
        bmsdp.solve(gallery.goe(3, 0), perturbation=sigma if sigma is not None else 0)


def test_good_sigma():
    for sigma in (1, 0.5, np.float32(0.25), np.int64(2), 1e-300, 10**6):
        assert isinstance(check_sigma(sigma), float) and check_sigma(sigma) == sigma
        assert as_perturbation(sigma) == Perturbation(sigma) and Perturbation(sigma).sigma == sigma
    assert Perturbation() == Perturbation("auto") == as_perturbation("auto")
    kept = Perturbation(0.1, pattern=True, continuation=False)
    assert as_perturbation(kept) is kept
    with pytest.raises(ValueError, match="sigma"):
        check_sigma("auto")
    with pytest.raises(AttributeError):
        kept.sigma = 0.2


def test_sums_need_equal_sizes():
    with pytest.raises(ValueError, match="operators of 3 and 4 rows; they must agree"):
        SumOperator(as_operator(np.eye(3)), Wigner(4, 1.0, 0))
