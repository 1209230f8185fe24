"""Rank games: what dropping costs, what polishing at exact rank gains, and extreme points by brute force."""

import numpy as np
import pytest
from scipy.sparse.linalg import aslinearoperator

import bmsdp
from bmsdp import Oblique, Problem, Product, SphereProduct, StiefelProduct, Unconstrained, certify, gallery, rank_reduction
from bmsdp.applications import phase_retrieval
from bmsdp.io.rudy import read_rudy
from bmsdp.manifolds.base import gaussian, inner
from bmsdp.penalty import Penalty
from bmsdp.rank_reduction import drop, numerical_rank, polish, random_rotation, reduce_rank, rotate, shrunk
from bmsdp.solvers import LBFGS, TrustRegion
from bmsdp.theory.rank import barvinok_pataki

from .laws.registry import REGISTRY

LINES = pytest.mark.parametrize("name", REGISTRY)
FIELDS = pytest.mark.parametrize("dtype", [np.float64, np.complex128])
BLOCKS = [slice(0, 4), slice(4, 5), slice(5, 12)]


def positive(rng, n, dtype):
    B = gaussian(rng, (n, n), np.dtype(dtype))
    return B @ B.conj().T / n + 0.1 * np.eye(n)


def unit(C):
    return Problem(C, Oblique(np.ones(C.shape[0])))


def counted(problem):
    """The problem, and a list that grows by the columns of every product with C."""
    widths, mul = [], problem.C.mul
    assert problem.norm_C > 0  # takes products of its own
    problem.C.mul = lambda Y: widths.append(Y.shape[1]) or mul(Y)
    return problem, widths


def noiseless(d, seed, ratio=8):
    rng = np.random.default_rng(seed)
    A, x = gaussian(rng, (ratio * d, d), np.dtype(complex)), gaussian(rng, (d, 1), np.dtype(complex))[:, 0]
    return A, np.abs(A @ x), x


def recovery_error(A, b, x, Y):
    """Of the signal whose measurements have the phases of the leading singular vector."""
    u = np.linalg.svd(Y, full_matrices=False)[0][:, 0]
    return phase_retrieval.relative_error(np.linalg.lstsq(A, b * u / np.abs(u), rcond=None)[0], x)


# rotations


@FIELDS
@pytest.mark.parametrize("blocks", [None, BLOCKS])
def test_rotations_keep_the_blocks_of_X_and_show_or_hide_the_rank(rng, dtype, blocks):
    Y = gaussian(rng, (12, 2), dtype) @ gaussian(rng, (2, 4), dtype)
    Y[5:] *= 1e3
    rows = blocks or [slice(0, 12)]
    Z, sigma = rotate(Y, blocks)
    W = random_rotation(Y, rng, blocks)
    expected = np.zeros(4)
    for r in rows:
        for other in (Z, W):
            np.testing.assert_allclose(
                other[r] @ other[r].conj().T, Y[r] @ Y[r].conj().T, rtol=1e-12, atol=1e-12 * np.linalg.norm(Y[r]) ** 2
            )
        G = Z[r].conj().T @ Z[r]
        s = np.linalg.svd(Y[r], compute_uv=False)
        np.testing.assert_allclose(G, np.diag(np.r_[s, np.zeros(4 - len(s))] ** 2), atol=1e-13 * s[0] ** 2)
        expected[: len(s)] = np.maximum(expected[: len(s)], s / s[0])
        assert np.linalg.norm(W[r], axis=0).min() > 1e-3 * np.linalg.norm(Y[r])
        assert np.linalg.norm(Z[r][:, 2:]) <= 1e-14 * np.linalg.norm(Y[r])
    np.testing.assert_allclose(sigma, expected, atol=1e-13)


@FIELDS
def test_random_rotations_are_uniform(rng, dtype):
    Q = np.array([random_rotation(np.eye(2, dtype=dtype), rng) for _ in range(3000)])
    np.testing.assert_allclose(Q.conj().transpose(0, 2, 1) @ Q, np.broadcast_to(np.eye(2), Q.shape), atol=1e-13)
    assert np.abs(Q.mean(axis=0)).max() < 0.06  # raw QR fixes the signs: means of 0.6
    np.testing.assert_allclose((np.abs(Q) ** 2).mean(axis=0), 0.5, atol=0.03)
    alone = {complex(np.round(random_rotation(np.ones((1, 1), dtype), rng)[0, 0], 6)) for _ in range(20)}
    assert len(alone) == (2 if dtype is np.float64 else 20)


# numerical rank


@pytest.mark.parametrize(
    ("sigma", "rank"),
    [
        ([1, 0.9, 0.5, 1e-3, 1e-4], 3),
        ([1, 0.9, 0.5, 0.06, 1e-5], 4),  # 8.3, then 600
        ([3, 0.25, 0.24, 0.23], 1),  # a ratio of 12, to less than a fifth
        ([1, 0.3, 0.25], 3),  # no gap
        ([1, 0.5, 0.25, 0.1, 0.04, 0.02], 6),
        ([1, 0.5, 2e-3, 1e-12, 1e-13], 2),  # below 1e-4 all are equally small
        ([1, 0.5, 0.19, 0.09, 0.04, 0.02, 8e-3, 3e-3, 1e-3, 4e-4, 1.5e-4, 6e-5], 11),  # no gap: those above 1e-4
        ([1, 0, 0], 1),
        ([0, 0], 1),
        ([2], 1),
    ],
)
def test_numerical_rank(sigma, rank):
    assert numerical_rank(np.array(sigma, float)) == rank
    assert numerical_rank(1e-30 * np.array(sigma, float)) == rank


def test_numerical_rank_by_other_rules():
    assert numerical_rank([1, 0.3, 0.01], rtol=0.5, ratio=3) == 2
    assert numerical_rank([1, 0.3, 0.29], rtol=0.5, ratio=3) == 1
    assert numerical_rank([1, 0.3, 0.29], rtol=0.1, ratio=3) == 3


@pytest.mark.parametrize("sigma", [[], [[1.0]], [1, 2], [1, np.nan], [1, -1]])
def test_numerical_rank_refuses(sigma):
    with pytest.raises(ValueError, match="singular value"):
        numerical_rank(sigma)


# dropping


@LINES
def test_drop_leaves_a_feasible_point_next_to_Y(name, rng):
    manifold, dtype, k = REGISTRY[name]
    problem = Problem(positive(rng, manifold.n, dtype).astype(dtype), manifold)
    Y = problem.random_point(k, rng)
    U = manifold.project(np.hstack([Y, 0 * Y]), gaussian(rng, (manifold.n, 2 * k), dtype))
    wide = random_rotation(manifold.retract(np.hstack([Y, 0 * Y]), 1e-4 * U), rng)
    Z = drop(problem, wide, k)
    assert Z.shape == Y.shape and Z.dtype == problem.dtype and Z.flags.c_contiguous
    np.testing.assert_allclose(manifold.apply(Z, Z), manifold.b, rtol=1e-10, atol=1e-12)
    assert np.linalg.norm(Z @ Z.conj().T - wide @ wide.conj().T) <= 1e-6 * np.linalg.norm(wide) ** 2 * max(1, np.linalg.norm(U) ** 2)
    for rank in (manifold.min_rank - 1, 2 * k + 1):
        with pytest.raises(ValueError, match=rf"rank = {rank}; Y has {2 * k} columns"):
            drop(problem, wide, rank)


@pytest.mark.filterwarnings("error")
def test_drop_says_where_there_is_no_point():
    problem = unit(np.eye(3))
    with pytest.raises(ValueError, match="no feasible point of 1 columns"):
        drop(problem, np.array([[1.0, 0], [1, 0], [0, 1]]), 1)
    stiefel = Problem(np.eye(6), StiefelProduct(3, 2))
    with pytest.raises(ValueError, match="no feasible point of 2 columns"):
        drop(stiefel, np.array([[1.0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]]), 2)


def test_drop_does_not_trust_a_retraction(rng, monkeypatch):
    problem = unit(np.eye(5))
    Y = problem.random_point(3, rng)
    monkeypatch.setattr(Oblique, "retract", lambda self, Y, U: 1.001 * (Y + U))
    with pytest.raises(ValueError, match="no feasible point"):
        drop(problem, Y, 3)


@FIELDS
def test_dropping_costs_the_square_of_what_is_dropped_at_most(rng, dtype):
    """At the optimum ``f(drop) - f = -sigma^2 <v, S v> + O(sigma^4) <= 0``."""
    C, x, _ = gallery.rank_one_optimal(30, 0)
    problem, S = unit(C.astype(dtype)), C - np.diag(C @ x * x)
    v = gaussian(rng, (30, 1), dtype)
    change = []
    for sigma in (1e-2, 1e-3):
        Y = problem.manifold.retract(np.hstack([x[:, None], sigma * v]).astype(dtype), np.zeros((30, 2), dtype))
        change.append(problem.at(drop(problem, random_rotation(Y, rng), 1)).cost - problem.at(Y).cost)
    assert change[1] == pytest.approx(-1e-6 * inner(v, S @ v), rel=1e-4)
    assert change[0] == pytest.approx(100 * change[1], rel=1e-2)


def test_shrunk_takes_the_rank_for_one_product_of_it(rng):
    C, x, optimum = gallery.rank_one_optimal(30, 0)
    problem, widths = counted(unit(C))
    Y = np.hstack([x[:, None], 0.05 * gaussian(rng, (30, 4), np.float64)])
    model = problem.at(random_rotation(problem.manifold.retract(Y, 0 * Y), rng))
    assert model.merit > optimum + 0.1
    widths.clear()
    lower = shrunk(model, model.merit - optimum)
    assert lower.Y.shape == (30, 1) and lower.merit == pytest.approx(optimum, abs=1e-9) and widths == [1]
    assert shrunk(model, -1e9).Y.shape == (30, 1)  # a cost that falls needs no gap


def test_shrunk_declines_for_nothing_where_the_rank_is_not_clear(rng):
    problem, widths = counted(unit(gallery.goe(40, 0)))
    model = problem.at(problem.random_point(6, rng))
    assert np.isfinite(model.merit) and widths
    widths.clear()
    assert shrunk(model, np.inf) is None and widths == []


def test_shrunk_declines_where_the_cost_would_rise(rng):
    """Along negative curvature of S the small columns are what lowers the cost."""
    C, x, optimum = gallery.rank_one_optimal(30, 0)
    problem = unit(-C)
    Y = np.hstack([x[:, None], 0.05 * gaussian(rng, (30, 1), np.float64)])
    model = problem.at(problem.manifold.retract(Y, 0 * Y))
    rise = -optimum - model.merit
    assert rise > 0.1
    assert shrunk(model, 9.9 * rise) is None and shrunk(model, 10.1 * rise).Y.shape[1] == 1
    assert shrunk(model, -1.0) is None


def test_shrunk_keeps_what_an_identity_block_needs(rng):
    C, R = gallery.orthogonal_synchronization(8, 3, 0.1, 0)
    problem = Problem(C, StiefelProduct(8, 3))
    wide = np.hstack([R, np.zeros((24, 3))])
    U = problem.manifold.project(wide, gaussian(rng, (24, 6), np.float64))
    model = problem.at(problem.manifold.retract(wide, 1e-2 * U))
    assert shrunk(model, abs(model.merit)).Y.shape == (24, 3)
    heavy = Problem(np.diag(np.arange(6.0)), Product([Oblique(np.full(4, 1e6)), StiefelProduct(1, 2)]))
    Y = np.vstack([1e3 * np.eye(1, 4).repeat(4, axis=0), np.eye(2, 4)])
    assert numerical_rank(rotate(Y)[1]) == 1
    assert shrunk(heavy.at(Y), np.inf).Y.shape == (6, 2) and polish(heavy, Y, certify=None)[0].Y.shape == (6, 2)


def test_shrunk_counts_infeasibility_of_terms(rng):
    """A penalised row that the small columns serve, though the merit hardly shows it."""
    x = np.ones((10, 1))
    Y = np.hstack([x, np.where(np.arange(10) % 2, 0.1, -0.1)[:, None]])
    Y /= np.linalg.norm(Y, axis=1)[:, None]
    rows = bmsdp.linear_maps.entries(10, [0], [1])
    target = float((Y @ Y.T)[0, 1])
    penalty = Penalty(rows, [target])
    penalty.sigma = 1e-9
    problem = Problem(np.eye(10), Oblique(np.ones(10)), [penalty])
    model = problem.at(Y)
    assert model.infeasibility < 1e-12 and shrunk(model, 1.0) is None
    assert polish(problem, Y, rank=1, certify=None)[0] is None
    assert polish(problem, Y, rank=2, certify=None)[0] is not None


# polishing


@pytest.mark.parametrize("seed", [0, 1])
def test_noiseless_phases_to_the_last_digit_without_a_flat_tail(seed):
    """At k = 16 the tail is flat: an error of 3e-9 after 9000 products; at rank 1 it is gone after some tens."""
    A, b, x = noiseless(100, seed)
    problem = phase_retrieval.problem(A, b)
    loose = bmsdp.solve(problem, tol=1e-3, rng=seed)
    assert loose.rank > 1 and 1e-4 < recovery_error(A, b, x, loose.Y) < 0.1
    errors = []

    class Watched(TrustRegion):
        def iterates(self, problem, Y):
            for model, info in super().iterates(problem, Y):
                errors.append(recovery_error(A, b, x, model.Y))
                yield model, info

    model, certificate, products = polish(problem, loose.Y, solver=Watched(kappa=1e-2, theta=0.0), rng=seed)
    assert model.Y.shape[1] == 1 and products <= 100
    assert recovery_error(A, b, x, model.Y) <= 1e-13 and errors[-1] <= 1e-13
    assert certificate.gap <= 1e-10 and certificate.rigor == "verified"
    tail = [e for e in dict.fromkeys(errors) if 1e-13 < e < 1e-4]  # steps that were rejected, further up, repeat
    assert 2 <= len(tail) <= 6 and all(after < 0.1 * before for before, after in zip(tail[:-1], tail[1:], strict=True))
    again, _, products = polish(problem, loose.Y, products=2000, certify=None)  # the default solver is the one above
    assert recovery_error(A, b, x, again.Y) <= 1e-13 and products <= 100


def test_without_dropping_the_tail_is_flat():
    A, b, x = noiseless(30, 0)
    problem = phase_retrieval.problem(A, b)
    start = bmsdp.minimize(problem, LBFGS(), rank=4, tol=1e-4, rng=0).Y
    tail = bmsdp.minimize(problem, LBFGS(), start, tol=1e-13, max_iter=400)
    assert recovery_error(A, b, x, tail.Y) > 1e-7
    assert recovery_error(A, b, x, polish(problem, start, rng=0)[0].Y) < 1e-13


def exact(name, rng):
    """A problem with a known optimum, its factor of the rank it has, and the optimum."""
    if name == "complex":
        C, x, optimum = gallery.rank_one_optimal(40, 1)
        u = np.exp(2j * np.pi * rng.random(40))
        return unit(u[:, None] * C * u.conj()), (u * x)[:, None], optimum
    if name == "stiefel":
        C, R = gallery.orthogonal_synchronization(12, 3, 0.0, 0)
        return Problem(C, StiefelProduct(12, 3)), R, -2.0 * 3 * 66
    C = positive(rng, 15, np.float64)
    if name == "operator":
        C, x, optimum = gallery.rank_one_optimal(40, 2)
        return unit(aslinearoperator(C)), x[:, None], optimum
    v = rng.standard_normal(15)
    manifold = SphereProduct([5, 10], [v[:5] @ v[:5], v[5:] @ v[5:]])
    P = np.eye(15) - np.outer(v, v) / (v @ v)
    return Problem(P @ C @ P, manifold, cost_scale=1.0), v[:, None], 0.0


@pytest.mark.parametrize("name", ["complex", "stiefel", "operator", "spheres"])
def test_polish_at_exact_rank(name, rng):
    problem, optimal, optimum = exact(name, rng)
    n, r = optimal.shape
    wide = np.hstack([optimal, np.zeros((n, 3), problem.dtype)])
    Y = problem.manifold.retract(wide, 0.02 * problem.manifold.project(wide, gaussian(rng, wide.shape, problem.dtype)))
    Y = random_rotation(Y, rng)
    kept = Y.copy()
    model, certificate, products = polish(problem, Y, rng=0)
    assert model.Y.shape == (n, r) and products < 400
    assert np.array_equal(Y, kept)
    np.testing.assert_allclose(model.Y @ model.Y.conj().T, optimal @ optimal.conj().T, atol=1e-8)
    scale = problem.norm_C * model.trace
    assert abs(model.merit - optimum) <= 1e-13 * scale and model.grad_norm <= 1e-12 * model.grad_scale
    assert certificate.gap <= certify(problem.at(Y), 1e-9, rng=0).gap
    assert polish(problem, Y, certify=None)[1] is None


def test_polish_gives_up_where_the_rank_is_too_small(rng):
    problem = unit(gallery.toroidal_grid(6, 8, 0))
    best = bmsdp.solve(problem, tol=1e-9, rng=0)
    rank = numerical_rank(rotate(best.Y)[1])
    assert 2 <= rank < best.rank
    for low in range(1, rank):
        assert polish(problem, best.Y, rank=low, rng=0)[:2] == (None, None)
        assert polish(problem, best.Y, rank=low, certify=None)[0] is None
    model, certificate, _ = polish(problem, best.Y, rng=0)
    assert model.Y.shape[1] == rank and certificate.gap <= 1e-11 < best.gap
    assert model.merit <= best.cost + 1e-12 * abs(best.cost)


def test_polish_keeps_to_its_budget(rng):
    problem, widths = counted(unit(gallery.toroidal_grid(10, 12, 0)))
    Y = problem.random_point(6, rng)
    widths.clear()
    _, _, products = polish(problem, Y, rank=5, products=120, certify=None, tol=1e-16)
    assert 120 <= products <= 175 and sum(w == 5 for w in widths) <= products + 2 and set(widths) <= {5, 6}


def test_polish_refuses_a_worse_proof(rng):
    """On the way to the 9-gon, a spurious minimum, the merit has nothing to say against it."""
    C, V, optimum = gallery.n_gon(9, 3.0)
    problem = unit(C)
    Y = problem.manifold.retract(np.hstack([V, np.zeros((9, 1))]), 1e-3 * gaussian(rng, (9, 3), np.float64))
    model, certificate, _ = polish(problem, Y, rank=2, certify=None)
    assert model is not None and certificate is None and abs(model.merit) <= 1e-12
    gaps = iter([0.5, 0.4])  # of the polished point, of the first

    class Told:
        bound = -1.0

        def __init__(self):
            self.gap = next(gaps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rank_reduction, "prove", lambda *args: Told())
        assert polish(problem, Y, rank=2)[:2] == (None, None)
        gaps = iter([0.5, 0.4])
        assert polish(problem, Y, rank=2, gap=0.5)[1].gap == 0.5
        gaps = iter([0.4, 0.5])
        assert polish(problem, Y, rank=2)[1].gap == 0.4


def test_polish_on_a_public_torus(shared_data):
    path = shared_data / "gset" / "G11.rud"
    if not path.is_file():
        pytest.skip("G11 is absent")
    problem = unit(read_rudy(path)[0])
    found = bmsdp.solve(problem, tol=1e-8, rng=0)
    model, certificate, _ = polish(problem, found.Y, products=8000, rng=0)
    assert found.rank == 16 and model.Y.shape[1] == 6
    assert certificate.rigor == "verified" and certificate.gap <= 1e-10 < found.gap


# extreme points


def herm_basis(r, dtype):
    for p in range(r):
        for q in range(p + 1):
            for c in (1.0, 1j) if dtype == np.complex128 and p != q else (1.0,):
                E = np.zeros((r, r), dtype)
                E[p, q] += c / 2
                E[q, p] += np.conj(c) / 2
                yield E


def face_dimension(problem, Y):
    """Of the face of X = YY*, by brute force: the null space of ``D -> A(U D U*)``, block by block."""
    columns = []
    for rows in problem.blocks:
        left, s, _ = np.linalg.svd(Y[rows], full_matrices=False)
        U = np.zeros((problem.n, int(np.sum(s > 1e-6 * s[0]))), problem.dtype)
        U[rows] = left[:, : U.shape[1]]
        columns += [problem.manifold.apply(U, np.ascontiguousarray(U @ E)) for E in herm_basis(U.shape[1], problem.dtype)]
    M = np.array(columns).T
    return M.shape[1] - (np.linalg.matrix_rank(M, tol=1e-8 * np.linalg.norm(M)) if M.size else 0)


@LINES
def test_reduce_rank_reaches_an_extreme_point(name, rng):
    manifold, dtype, _ = REGISTRY[name]
    problem = Problem(positive(rng, manifold.n, dtype).astype(dtype), manifold)
    Y = problem.random_point(max(min(manifold.n, 6), manifold.min_rank), rng)
    kept, before = Y.copy(), problem.at(Y).cost
    Z = reduce_rank(problem, Y, rng)
    assert np.array_equal(Y, kept) and Z.dtype == problem.dtype and Z.flags.c_contiguous
    np.testing.assert_allclose(manifold.apply(Z, Z), manifold.b, rtol=1e-10, atol=1e-12)
    assert problem.at(Z).cost <= before * (1 + 1e-10)
    assert manifold.min_rank <= Z.shape[1] <= max(barvinok_pataki(manifold.m, complex=dtype is np.complex128), 1)
    if manifold.m:
        assert face_dimension(problem, Z) == 0
    again = reduce_rank(problem, Z, rng)
    np.testing.assert_allclose(again @ again.conj().T, Z @ Z.conj().T, atol=1e-9 * np.linalg.norm(Z) ** 2)


def edges(c, dtype):
    """c disjoint edges: optimal are all X with ``y_i = -y_{i + c}``, which is a copy of the elliptope of c vertices."""
    C = np.zeros((2 * c, 2 * c), dtype)
    u = np.exp(1j * np.arange(c)) if dtype == np.complex128 else np.ones(c)
    C[np.arange(c), np.arange(c) + c] = u
    return unit(C + C.conj().T), u


@FIELDS
def test_reduce_rank_keeps_an_optimum(rng, dtype):
    c = 10
    problem, u = edges(c, dtype)
    half = Oblique(np.ones(c)).random_point(c, rng, dtype)
    Y = np.vstack([half, -u.conj()[:, None] * half])
    assert problem.at(Y).grad_norm <= 1e-13
    found = [reduce_rank(problem, Y, seed) for seed in range(4)]
    for Z in found:
        assert problem.at(Z).cost == pytest.approx(-2 * c, abs=1e-12) and problem.at(Z).grad_norm <= 1e-7
        assert Z.shape[1] <= barvinok_pataki(c, complex=dtype is np.complex128) == (3 if dtype is np.complex128 else 4)
        assert face_dimension(problem, Z) == 0
    assert np.linalg.norm(found[0] @ found[0].conj().T - found[1] @ found[1].conj().T) > 0.1
    np.testing.assert_array_equal(found[0], reduce_rank(problem, Y, 0))


@pytest.mark.parametrize("sketched", [False, True])
@FIELDS
def test_reduce_rank_of_repeated_rows_with_and_without_sketch(rng, dtype, sketched, monkeypatch):
    """300 rows, 4 different ones: the elliptope of 4 vertices once more."""
    monkeypatch.setattr(rank_reduction, "LARGE", 0 if sketched else 2**24)
    few = Oblique(np.ones(4)).random_point(4, rng, dtype)
    problem = unit(positive(rng, 300, dtype).astype(dtype))
    Y = np.ascontiguousarray(few[rng.integers(0, 4, 300)])
    sizes = []
    null_vector = rank_reduction._null_vector
    monkeypatch.setattr(rank_reduction, "_null_vector", lambda M, *rest: sizes.append(M.shape) or null_vector(M, *rest))
    Z = reduce_rank(problem, Y, rng)
    size = 16 if dtype is np.complex128 else 10
    assert sizes[0] == (2 * size + 64 if sketched else 300, size)
    assert Z.shape[1] <= 2 and face_dimension(problem, Z) == 0
    np.testing.assert_allclose(np.linalg.norm(Z, axis=1), 1, atol=1e-14)
    full = unit(positive(rng, 300, dtype).astype(dtype))
    generic = full.random_point(4, rng)  # no direction at all: X stays
    W = reduce_rank(full, generic, rng)
    np.testing.assert_allclose(W @ W.conj().T, generic @ generic.conj().T, atol=1e-12)


def test_a_sketch_that_misses_an_equation_does_no_harm(rng, monkeypatch):
    monkeypatch.setattr(rank_reduction, "LARGE", 0)
    monkeypatch.setattr(rank_reduction._Sketch, "__call__", lambda self, v: v.sum() * np.eye(self.rows)[0])
    problem = unit(positive(rng, 300, np.float64))
    Y = problem.random_point(3, rng)
    Z = reduce_rank(problem, Y, rng)
    np.testing.assert_allclose(Z @ Z.T, Y @ Y.T, atol=1e-12)


@FIELDS
def test_reduce_rank_acts_on_every_block(rng, dtype):
    blocks = [slice(0, 5), slice(5, 6), slice(6, 11)]
    C = np.zeros((11, 11), dtype)
    for rows in blocks:
        C[rows, rows] = positive(rng, rows.stop - rows.start, dtype)
    problem = Problem(C, Product([SphereProduct([5, 1], [2.0, 1.0]), Oblique(np.ones(5))]), blocks=blocks)
    Y = problem.random_point(4, rng)
    Z = reduce_rank(problem, Y, rng)
    ranks = [int(np.linalg.matrix_rank(Z[rows], tol=1e-8)) for rows in blocks]
    assert ranks[:2] == [1, 1] and 1 <= ranks[2] <= 2 and Z.shape[1] == max(ranks)
    np.testing.assert_allclose(problem.manifold.apply(Z, Z), problem.manifold.b, atol=1e-13)
    assert problem.at(Z).cost <= problem.at(Y).cost and face_dimension(problem, Z) == 0


def test_reduce_rank_of_a_block_that_is_zero(rng):
    blocks = [slice(0, 3), slice(3, 6)]
    problem = Problem(np.eye(6), Product([Oblique(np.ones(3)), Unconstrained(3)]), blocks=blocks)
    Y = np.vstack([Oblique(np.ones(3)).random_point(3, rng), np.zeros((3, 3))])
    Z = reduce_rank(problem, Y, rng)
    assert Z.shape[1] <= 2 and not Z[3:].any() and np.linalg.norm(Z[:3], axis=1) == pytest.approx(1)


def test_reduce_rank_after_solve(rng):
    """Few dense constraints, a wide start: the optimum keeps its cost and its proof at a rank that solve did not look for."""
    manifold, _, _ = REGISTRY["quadratic, dense rows"]
    problem = Problem(positive(rng, manifold.n, np.float64), manifold)
    found = bmsdp.solve(problem, rank=7, tol=1e-9, rng=0)
    Z = reduce_rank(problem, found.Y, rng)
    assert Z.shape[1] <= 2 and problem.at(Z).cost == pytest.approx(found.cost, rel=1e-8)
    assert problem.at(Z).grad_norm <= 1e-4 * problem.at(Z).grad_scale


@pytest.mark.parametrize("seed", range(6))
def test_reduce_rank_takes_the_end_that_there_is_where_the_cost_is_level(seed):
    """Free rows without cost: ``I + t Delta`` stays positive one way, at no gain."""
    problem = Problem(np.zeros((3, 3)), Unconstrained(3))
    Z = reduce_rank(problem, np.ones((3, 1)), seed)
    assert Z.shape == (3, 1) and not Z.any()


def test_reduce_rank_refuses(rng):
    free = Problem(-np.eye(3), Unconstrained(3))
    with pytest.raises(ValueError, match="unbounded"):
        reduce_rank(free, rng.standard_normal((3, 2)), rng)
    rows = bmsdp.linear_maps.entries(4, [0], [1])
    with pytest.raises(ValueError, match=r"terms \(Penalty\)"):
        reduce_rank(Problem(np.eye(4), Oblique(np.ones(4)), [Penalty(rows, [0.0])]), np.ones((4, 1)))


def test_reduce_rank_of_a_matrix_free_cost(rng):
    C = positive(rng, 9, np.float64)
    Y = Oblique(np.ones(9)).random_point(9, rng)
    dense, matrix_free = (reduce_rank(unit(form), Y, 3) for form in (C, aslinearoperator(C)))
    np.testing.assert_allclose(dense, matrix_free, atol=1e-9)
