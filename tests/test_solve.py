"""The door: signature, inputs, known values, other solvers' answers, limits, and what bad input is told."""

import contextlib
import inspect
import logging
import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla

import bmsdp
from bmsdp import LowRankPlusSparse, Oblique, Problem, Product, Sphere, Status, StiefelProduct, gallery
from bmsdp.applications import maxcut

from .general import Instance, check_result, clarabel, hermitian, mask_of, semidefinite
from .general import value as values

FAST = {"rng": 0, "tol": 1e-8}
OPTIMA = {
    "G1": 12083.197655, "G11": 629.164783, "G14": 3191.566804, "G22": 14135.945728, "G43": 7032.221842, "G48": 6000.0,
}  # fmt: skip


def unit(n, i, j=None, v=1.0):
    A = np.zeros((n, n), complex if np.iscomplexobj(v) else float)
    A[i, i if j is None else j] = v
    A[i if j is None else j, i] = np.conj(v)
    return A


def diagonal_rows(n):
    return [unit(n, i) for i in range(n)]


def check_dual(C, A, b, result, rtol=1e-6):
    """``<b, dual> = bound``, ``C - A*(dual) >= 0`` and complementary, in the caller's rows; X feasible."""
    A = [np.asarray(a.toarray() if sp.issparse(a) else a) for a in A]
    S = np.asarray(C.toarray() if sp.issparse(C) else C) - sum(d * a for d, a in zip(result.dual, A, strict=True))
    scale = np.linalg.norm(S, 2) + np.linalg.norm(np.asarray(C.toarray() if sp.issparse(C) else C), 2)
    assert np.linalg.eigvalsh(S)[0] >= -1e-12 * scale
    assert result.dual @ np.asarray(b, float) == pytest.approx(result.bound, rel=1e-10, abs=1e-10 * scale)
    X = result.X
    assert abs(np.vdot(S, X).real) <= 10 * rtol * scale * np.trace(X).real
    for a, value in zip(A, b, strict=True):
        assert np.vdot(a, X).real == pytest.approx(value, rel=1e-9, abs=1e-9 * np.abs(a).sum() * np.trace(X).real)


# the signature


def test_signature_is_frozen():
    """The public contract, keyword by keyword."""
    parameters = inspect.signature(bmsdp.solve).parameters
    expected = {
        "C": inspect.Parameter.empty, "A": None, "b": None, "rank": None, "A_geq": None, "b_geq": None, "blocks": None,
        "trace_bound": None, "method": "auto", "solver": None, "warm_start": None, "perturbation": None, "tol": 1e-6,
        "max_time": None, "certify": "auto", "threads": 1, "rng": None, "callback": None, "progress": None, "verbose": 0,
    }  # fmt: skip
    assert list(parameters) == list(expected)
    assert {name: p.default for name, p in parameters.items()} == expected
    for name, p in parameters.items():
        assert p.kind is (p.POSITIONAL_OR_KEYWORD if name in ("C", "A", "b") else p.KEYWORD_ONLY)


def test_method():
    with pytest.raises(ValueError, match="method = 'simplex'.*auto.*manifold"):
        bmsdp.solve(np.eye(3), method="simplex")
    one = Instance(gallery.goe(4, 0), [np.eye(4), np.diag([0.0, 1, 2, 3]) + unit(4, 0, 1)], np.array([1.0, 1.2]), [], np.zeros(0))
    reference = clarabel(one)
    for method in ("manifold", "augmented_lagrangian", "auto", "interior_point"):
        if method == "interior_point":
            pytest.importorskip("cvxpy")
        result = one.solve(method=method, rng=0)
        check_result(one, result, reference.value)
        assert result.options["method"] == ("manifold" if method == "auto" else method) and result.options["why"]
    assert bmsdp.solve(np.eye(3), method="manifold", rng=0).success
    with pytest.raises(ValueError, match=r'method="manifold" cannot be used: .*; leave method="auto"'):  # the rank falls at X = 0
        bmsdp.solve(one.C, [unit(4, 0, 1), unit(4, 2, 3)], [0.0, 0.0], method="manifold", rng=0)


def test_all_keywords_at_once():
    """Equalities, inequalities, blocks of all kinds, a trace bound: beside Clarabel."""
    rng = np.random.default_rng(0)
    blocks = [("psd", 3), ("nonneg", 2), ("free", 1), ("psd", 2)]
    mask = mask_of(blocks)
    X = semidefinite(rng, 8) * mask
    A, G = [hermitian(rng, 8) * mask for _ in range(3)], [hermitian(rng, 8) * mask for _ in range(2)]
    S = semidefinite(rng, 8) * mask
    S[5, 5] = 0
    one = Instance(S + A[0] - 2 * A[1] + 0.5 * G[0], A, values(A, X), G, values(G, X) - [0, 0.3], blocks)
    reference = clarabel(one)
    for given in (blocks, [3, -2, ("free", 1), 2]):
        result = bmsdp.solve(one.C, A, one.b, A_geq=G, b_geq=one.g, blocks=given, trace_bound=50.0, rng=0)
        assert result.success and result.cost == pytest.approx(reference.value, rel=1e-5) and result.bound <= reference.value + 1e-6
        assert not result.X[~mask].any() and result.X[5, 5] == result.free[0] and np.all(np.diag(result.X)[3:5] >= 0)
    assert result.data.blocks == blocks and result.data.A_geq.m == 2


def test_presolve_is_reported(capsys):
    one = Instance(np.eye(3), [np.eye(3), 2 * np.eye(3), unit(3, 0, 1)], np.array([1.0, 2, 0.1]), [], np.zeros(0))
    result = one.solve(rng=0, verbose=1)
    out = capsys.readouterr().out
    assert "presolve: 1 duplicate rows dropped (1)" in out and "bmsdp: method" in out and "CERTIFIED" in out
    assert result.options["presolve"] == ["1 duplicate rows dropped (1)"]


def test_result_fields():
    result = bmsdp.solve(gallery.goe(6, 0), **FAST)
    assert result.status is Status.CERTIFIED and result.success and result.message == Status.CERTIFIED.value
    assert result.Y.shape == (6, result.rank) and result.Y.flags.c_contiguous and result.dual.shape == (6,)
    assert result.dual_geq.shape == (0,) and result.bound <= result.cost and result.certificate.bound == result.bound
    assert result.products > 0 and result.nit > 0 and result.time > 0 and {"numpy", "scipy", "bmsdp"} <= result.versions.keys()
    assert {"manifold", "solver", "method", "tol", "rank", "rng", "threads", "stages", "certify"} <= result.options.keys()
    with pytest.raises(AttributeError):
        result.cost = 0.0


def test_statuses_name_a_remedy():
    assert {s.name for s in Status} == {
        "CERTIFIED", "ESTIMATED", "RANK_TOO_SMALL", "LOCALLY_OPTIMAL", "STALLED", "MAX_ITER", "MAX_TIME", "INTERRUPTED",
        "INFEASIBLE", "UNBOUNDED",
    }  # fmt: skip
    assert [s for s in Status if s.success] == [Status.CERTIFIED, Status.ESTIMATED]
    assert all(len(s.value) > 20 for s in Status)


# every form of C and A


def forms_of_C(C):
    yield "ndarray", C
    yield "fortran", np.asfortranarray(C)
    yield "list", C.tolist()
    for index in (np.int32, np.int64):
        M = sp.csr_array(C)
        M.indptr, M.indices = M.indptr.astype(index), M.indices.astype(index)
        yield f"csr_{index.__name__}", M
    yield "csr_matrix", sp.csr_matrix(C)
    yield "coo", sp.coo_array(C)
    yield "csc", sp.csc_array(C)
    yield "dia", sp.dia_array(C)
    i, j = np.nonzero(C)
    halves = np.concatenate([C[i, j], C[i, j]]) / 2
    yield "duplicates", sp.coo_array((halves, (np.r_[i, i], np.r_[j, j])), shape=C.shape)
    yield "operator", spla.aslinearoperator(C)
    yield "lowrank", LowRankPlusSparse(sp.csr_array(C - np.ones(C.shape)), np.ones((len(C), 1)))
    yield "problem", Problem(C, Oblique(np.ones(len(C))))


@pytest.mark.parametrize("complex_", [False, True])
def test_every_form_of_C(complex_):
    C = gallery.gue(9, 0) if complex_ else gallery.goe(9, 0)
    optimum = bmsdp.solve(C, **FAST).cost
    for name, form in forms_of_C(C):
        result = bmsdp.solve(form, **FAST)
        assert result.success and result.cost == pytest.approx(optimum, rel=1e-7), name
        assert result.Y.dtype == C.dtype, name
        check_dual(C, diagonal_rows(9), np.ones(9), result)
    for dtype in (np.int64, np.int8, np.float32, bool):
        M = (np.abs(C) > 1).astype(dtype)
        for form in (M, sp.csr_array(M)):
            result = bmsdp.solve(form, **FAST)
            assert result.success and result.cost == pytest.approx(bmsdp.solve(M.astype(float), **FAST).cost, rel=1e-7)


def test_the_callers_arrays_are_left_alone():
    C = sp.csr_array(gallery.goe(7, 0))
    C.indices = C.indices.copy()
    A, b = [sp.csr_array(a) for a in diagonal_rows(7)], np.full(7, 2.0)
    Y = np.random.default_rng(0).standard_normal((7, 3))
    before = [v.copy() for v in (C.data, C.indices, C.indptr, b, Y, A[0].data)]
    bmsdp.solve(C, A, b, warm_start=Y, **FAST)
    assert all(np.array_equal(u, v) for u, v in zip(before, (C.data, C.indices, C.indptr, b, Y, A[0].data), strict=True))


def stacked(A):
    return sp.csr_array(np.array([np.asarray(a).ravel() for a in A]))


def forms_of_A(A, b):
    b = np.asarray(b, float)
    yield "list", A, b, lambda d: d
    yield "tuple", tuple(A), list(b), lambda d: d
    yield "array", np.array(A), b, lambda d: d
    yield "sparse", [sp.csr_array(a) for a in A], b, lambda d: d
    yield "coo", [sp.coo_array(a) for a in A], b, lambda d: d
    yield "stacked", stacked(A), b, lambda d: d
    yield "stacked_coo", stacked(A).tocoo(), b, lambda d: d
    rng = np.random.default_rng(3)
    order = rng.permutation(len(A))
    yield "shuffled", [A[j] for j in order], b[order], lambda d: d[np.argsort(order)]
    scale = rng.choice([-4.0, -0.25, 0.1, 1.0, 30.0], len(A))
    yield "scaled", [s * a for s, a in zip(scale, A, strict=True)], scale * b, lambda d: d * scale
    both = scale[order]
    yield "both", stacked([both[p] * A[j] for p, j in enumerate(order)]), both * b[order], lambda d: (d * both)[np.argsort(order)]


KINDS = {
    "unit": (diagonal_rows(6), np.ones(6), False),
    "radii": (diagonal_rows(6), [0.1, 2, 1, 30, 5, 0.7], False),
    "radii_complex": (diagonal_rows(6), [0.1, 2, 1, 30, 5, 0.7], True),
    "trace": ([np.eye(6)], [3.0], False),
    "weighted_trace": ([np.diag([1.0, 2, 3, 4, 0.5, 0.1])], [3.0], False),
    "pairs": ([unit(6, 0) + unit(6, 3), unit(6, 1) + 2 * unit(6, 5), unit(6, 2) + unit(6, 4)], [1.0, 2.0, 3.0], False),
    "stiefel": (
        [a for i, j in ((0, 3), (1, 2), (4, 5)) for a in (unit(6, i), unit(6, j), unit(6, i, j))], [1.0, 1, 0] * 3, False,
    ),
    "stiefel_complex": (
        [a for i, j in ((0, 3), (1, 2), (4, 5)) for a in (unit(6, i), unit(6, j), unit(6, i, j), unit(6, i, j, 1j))],
        [1.0, 1, 0, 0] * 3, True,
    ),
    "product": (
        [unit(6, 5), unit(6, 0) + 3 * unit(6, 4), unit(6, 1), unit(6, 3), unit(6, 1, 3), unit(6, 2)],
        [2.0, 5.0, 1.0, 4.0, 0.0, 0.1], False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_of_A(kind):
    A, b, complex_ = KINDS[kind]
    C = gallery.gue(6, 5) if complex_ else gallery.goe(6, 5) + np.diag(np.arange(6.0))
    reference = bmsdp.solve(C, A, b, **FAST)
    assert reference.success
    check_dual(C, A, b, reference)
    for name, rows, rhs, back in forms_of_A(A, b):
        for cost in (C, sp.csr_array(C), spla.aslinearoperator(C)):
            result = bmsdp.solve(cost, rows, rhs, **FAST)
            assert result.success, (name, result)
            assert result.cost == pytest.approx(reference.cost, rel=1e-7), name
            dual = back(np.asarray(result.dual))
            unscaled = A if name not in ("scaled", "both") else A
            S = C - sum(d * a for d, a in zip(dual, unscaled, strict=True))
            assert np.linalg.eigvalsh(S)[0] >= -1e-10 * np.abs(C).sum(), name
            assert dual @ np.asarray(b, float) == pytest.approx(result.bound, rel=1e-9), name


def test_manifold_as_A_and_problem_as_C():
    C = gallery.goe(6, 1)
    for manifold in (Oblique([1.0, 2, 3, 4, 5, 6]), Sphere(6, 2.0), StiefelProduct(3, 2), Product([Oblique([2.0]), Sphere(5)])):
        one, two = bmsdp.solve(C, manifold, **FAST), bmsdp.solve(Problem(C, manifold), **FAST)
        three = bmsdp.solve(C, manifold, manifold.b, **FAST)
        assert one.success and one.cost == two.cost == three.cost and np.array_equal(one.Y, two.Y)
        S = C - manifold.adjoint_mul(one.dual, np.eye(6))
        assert np.linalg.eigvalsh(S)[0] >= -1e-10 and one.dual @ manifold.b == pytest.approx(one.bound)


def test_A_none_is_the_unit_diagonal():
    C = gallery.goe(6, 2)
    one, two = bmsdp.solve(C, **FAST), bmsdp.solve(C, diagonal_rows(6), np.ones(6), **FAST)
    assert one.cost == two.cost and np.array_equal(one.Y, two.Y)
    np.testing.assert_allclose(one.dual, two.dual, rtol=1e-9)


def test_slack_is_the_callers():
    C = gallery.goe(6, 5)
    A, b, _ = KINDS["product"]
    result = bmsdp.solve(sp.csr_array(C), [-2 * a for a in A], -2 * np.asarray(b), **FAST)
    S = C - sum(d * -2 * a for d, a in zip(result.dual, A, strict=True))
    np.testing.assert_allclose(result.slack() @ np.eye(6), S, atol=1e-12)


# known values


def laplacian(n, edges):
    return maxcut.problem(np.array(edges), n=n)


def cycle(n):
    return [(i, (i + 1) % n) for i in range(n)]


PETERSEN = cycle(5) + [(i, i + 5) for i in range(5)] + [(5 + i, 5 + (i + 2) % 5) for i in range(5)]


@pytest.mark.parametrize(
    "n, edges, value",
    [
        (5, cycle(5), 5 * (1 + np.cos(np.pi / 5)) / 2),
        (7, cycle(7), 7 * (1 + np.cos(np.pi / 7)) / 2),
        (10, PETERSEN, 12.5),
        (7, [(i, j) for i in range(7) for j in range(i)], 12.25),
        (8, cycle(8), 8.0),
    ],
)
def test_known_graphs(n, edges, value):
    """Fact 16: max 1/4 <L, X>, vertex-transitive graphs: n/4 lambda_max(L)."""
    result = bmsdp.solve(laplacian(n, edges), **FAST)
    assert result.success and -result.cost == pytest.approx(value, rel=1e-7) and -result.bound >= value * (1 - 1e-14)
    assert maxcut.recover(result, rng=0).value <= maxcut.recover(result, rng=0).bound


def test_trace_is_the_smallest_eigenvalue(rng):
    """Fact 17: f* = R lambda_min(C), the dual is lambda_min, for every rank."""
    for C in (gallery.goe(12, rng), gallery.gue(12, rng)):
        smallest = np.linalg.eigvalsh(C)[0]
        for rank in (None, 1, 2, 5):
            result = bmsdp.solve(C, [np.eye(12)], [2.5], rank=rank, **FAST)
            assert result.success and result.cost == pytest.approx(2.5 * smallest, rel=1e-7)
            assert result.bound <= 2.5 * smallest * (1 - 1e-15) and result.dual[0] == pytest.approx(smallest, rel=1e-7)


@pytest.mark.parametrize("n, value", [(100, -1.67), (400, -1.82)])
def test_goe(n, value):
    """Fact 18: f* / n^1.5 tends to -2."""
    result = bmsdp.solve(gallery.goe(n, 0), rng=0)
    assert result.success and abs(result.cost / n**1.5 - value) < 0.06


def test_generic_rank_and_deficiency():
    """Fact 14: at the generic rank, Y is numerically rank deficient and the slack positive semidefinite."""
    for C, k in ((gallery.goe(30, 1), 9), (gallery.gue(30, 1), 6)):
        result = bmsdp.solve(C, rank=k, tol=1e-9, rng=0)
        assert result.success and np.linalg.svd(result.Y)[1][-1] <= 1e-2
        assert np.linalg.eigvalsh(C - np.diag(result.dual))[0] >= -1e-8


def test_scaling_and_gauge():
    """Fact 28, and 2^20 C: everything else bit-identical."""
    C = gallery.goe(15, 4)
    one, two = bmsdp.solve(C, rng=0), bmsdp.solve(2.0**20 * C, rng=0)
    assert np.array_equal(one.Y, two.Y) and one.gap == two.gap and one.cost * 2**20 == two.cost
    D = np.where(np.arange(15) % 2, -1.0, 1.0)
    three = bmsdp.solve(D[:, None] * C * D, **FAST)
    assert three.cost == pytest.approx(bmsdp.solve(C, **FAST).cost, rel=1e-7)
    tiny, huge = bmsdp.solve(1e-30 * C, rng=0), bmsdp.solve(1e30 * C, rng=0)
    assert tiny.success and huge.success and tiny.cost * 1e60 == pytest.approx(huge.cost, rel=1e-6)


@pytest.mark.parametrize("name", ["G1", "G11", "G14", "G43", "G48"])
def test_gset(name, shared_data):
    check_gset(name, shared_data, 1e-6)


def check_gset(name, folder, tol):
    from bmsdp.io.rudy import read_rudy

    path = folder / "gset" / f"{name}.rud"
    if not path.exists():
        pytest.skip(f"gset/{name}.rud is absent")
    C, A, b, _ = read_rudy(path)
    result = bmsdp.solve(C, A, b, tol=tol, rng=0)
    assert result.status is Status.CERTIFIED and result.gap <= tol, result
    assert result.certificate.rigor in ("verified", "probabilistic")
    if name in OPTIMA:
        known = OPTIMA[name]
        assert -result.cost <= known + 1e-6 and -result.bound >= known - 1e-6  # the list has six decimals
        assert -result.cost == pytest.approx(known, rel=2 * tol, abs=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["G1", "G11", "G14", "G22", "G32", "G43", "G48", "G55", "G60", "G67"])
def test_gset_to_nine_digits(name, shared_data):
    check_gset(name, shared_data, 1e-9)


# beside other solvers


@pytest.mark.parametrize("solver", ["CLARABEL", "SCS"])
@pytest.mark.parametrize("kind", [*KINDS, "graph", "goe_25"])
def test_beside_cvxpy(kind, solver):
    cp = pytest.importorskip("cvxpy")
    if kind == "graph":
        C = maxcut.laplacian_cost(gallery.gnp(30, 0.2, 0)).toarray()
        A, b, complex_ = diagonal_rows(30), np.ones(30), False
    elif kind == "goe_25":
        C, A, b, complex_ = gallery.goe(25, 0), diagonal_rows(25), np.linspace(0.5, 2, 25), False
    else:
        A, b, complex_ = KINDS[kind]
        C = gallery.gue(6, 8) if complex_ else gallery.goe(6, 8)
    n = len(C)
    # Hermitian X as a real matrix of twice the size: <C^, X^> = 2 <C, X>
    half = 2 if complex_ else 1
    embed = lambda M: np.block([[M.real, -M.imag], [M.imag, M.real]]) if complex_ else M  # noqa: E731
    X = cp.Variable((half * n, half * n), PSD=True)
    rows = [cp.trace(embed(np.asarray(a)) @ X) / half == v for a, v in zip(A, b, strict=True)]
    program = cp.Problem(cp.Minimize(cp.trace(embed(C) @ X) / half), rows)
    program.solve(solver=solver, **({"eps": 1e-8, "max_iters": 100_000} if solver == "SCS" else {}))
    result = bmsdp.solve(C, A, b, **FAST)
    accuracy = 1e-6 if solver == "CLARABEL" else 1e-4
    scale = max(abs(program.value), 1)
    assert result.cost == pytest.approx(program.value, abs=accuracy * scale)
    assert result.bound <= program.value + accuracy * scale
    dual = -np.array([float(np.ravel(row.dual_value)[0]) for row in rows])
    assert result.dual @ np.asarray(b, float) == pytest.approx(dual @ np.asarray(b, float), abs=accuracy * scale)
    if not complex_ and kind != "trace":  # unique duals here
        np.testing.assert_allclose(result.dual, dual, atol=1e-2 * np.abs(dual).max())


# randomness, warm starts


def test_same_seed_same_bits():
    for C in (gallery.goe(20, 0), maxcut.laplacian_cost(gallery.gnp(60, 0.1, 0)), spla.aslinearoperator(gallery.gue(12, 0))):
        one, two, other = (bmsdp.solve(C, rng=seed) for seed in (7, 7, 8))
        assert np.array_equal(one.Y, two.Y) and one.bound == two.bound and np.array_equal(one.dual, two.dual)
        assert one.products == two.products and not np.array_equal(one.Y, other.Y)
        three = bmsdp.solve(C, rng=np.random.default_rng(7))
        assert np.array_equal(one.Y, three.Y)


def test_fresh_entropy_is_kept():
    C = gallery.goe(10, 0)
    one = bmsdp.solve(C)
    seed = one.options["rng"]
    assert isinstance(seed, int) and np.array_equal(bmsdp.solve(C, rng=seed).Y, one.Y)
    assert bmsdp.solve(C).options["rng"] != seed


def test_global_random_state_is_not_touched():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    bmsdp.solve(gallery.goe(10, 0))
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("threads", [1, 2])
def test_threads(threads):
    """The result depends on (input, rng, threads) alone."""
    C = maxcut.laplacian_cost(gallery.gnp(400, 0.03, 0))
    one, two = (bmsdp.solve(C, threads=threads, rng=3) for _ in range(2))
    assert one.success and np.array_equal(one.Y, two.Y) and one.bound == two.bound and one.options["threads"] == threads
    assert one.cost == pytest.approx(bmsdp.solve(C, rng=3).cost, rel=2e-6)


def test_warm_start_from_a_result():
    C = maxcut.laplacian_cost(gallery.gnp(80, 0.1, 0))
    cold = bmsdp.solve(C, tol=1e-9, rng=0)
    warm = bmsdp.solve(C, tol=1e-9, warm_start=cold, rng=1)
    assert warm.success and warm.products < max(20, 0.5 * cold.products) and warm.options["warm_start"] is True
    again = bmsdp.solve(C, tol=1e-9, warm_start=cold.Y, rng=1)
    assert np.array_equal(again.Y, warm.Y)
    loose = bmsdp.solve(C, tol=1e-2, rng=0)
    assert bmsdp.solve(C, tol=1e-9, warm_start=loose, rng=1).success


def test_warm_start_in_the_callers_coordinates():
    """Permuted, scaled constraints: the caller's factor is a start as it is."""
    C = gallery.goe(6, 5)
    A, b, _ = KINDS["product"]
    order = [3, 0, 5, 2, 4, 1]
    A, b = [-3 * A[j] for j in order], [-3 * b[j] for j in order]
    cold = bmsdp.solve(C, A, b, tol=1e-10, rng=0)
    warm = bmsdp.solve(C, A, b, tol=1e-10, warm_start=cold, rng=1)
    assert warm.success and warm.products <= 15 and warm.cost == pytest.approx(cold.cost, rel=1e-9)


def test_warm_start_is_made_feasible():
    C = gallery.goe(8, 0)
    optimum = bmsdp.solve(C, **FAST).cost
    starts = [
        5 * np.ones((8, 3)), np.zeros((8, 2)), np.eye(8), np.ones((8, 1), int), np.ones((8, 12)), np.ones((8, 2), np.float32),
        np.asfortranarray(np.random.default_rng(0).standard_normal((8, 3))), [[1.0, 0.0]] * 8,
    ]  # fmt: skip
    for Y in starts:
        result = bmsdp.solve(C, warm_start=Y, **FAST)
        assert result.success and result.cost == pytest.approx(optimum, rel=1e-7)
    result = bmsdp.solve(C, warm_start=np.ones((8, 2)), rank=5, **FAST)
    assert result.rank == 5
    complex_ = bmsdp.solve(gallery.gue(8, 0), warm_start=np.ones((8, 2)), **FAST)
    assert complex_.success and complex_.Y.dtype == complex
    rows, rhs, _ = KINDS["stiefel"]
    assert bmsdp.solve(gallery.goe(6, 1), rows, rhs, warm_start=np.ones((6, 1)), rng=0).success


@pytest.mark.parametrize(
    "warm, message",
    [
        (np.ones(4), r"warm_start has shape \(4,\).*n = 4"),
        (np.ones((3, 2)), r"warm_start has shape \(3, 2\).*n = 4"),
        (np.ones((4, 0)), r"warm_start has shape \(4, 0\)"),
        (np.ones((4, 2, 2)), r"warm_start has shape \(4, 2, 2\)"),
        (np.full((4, 2), np.nan), "warm_start.*NaN"),
        (np.ones((4, 2), complex), "warm_start is complex but C is real"),
        (np.ones((4, 3)), r"warm_start has 3 columns but rank = 2; raise rank or drop columns"),
    ],
)
def test_bad_warm_starts(warm, message):
    with pytest.raises(ValueError, match=message):
        bmsdp.solve(gallery.goe(4, 0), rank=2, warm_start=warm)


# limits, callback, interruption, output


def slow_problem():
    return maxcut.laplacian_cost(gallery.toroidal_grid(40, 40, 0))


def test_max_time():
    C = slow_problem()
    bmsdp.solve(C, rng=0, max_time=0.01)  # compile
    start = time.perf_counter()
    result = bmsdp.solve(C, rng=0, max_time=0.1, tol=1e-12)
    assert result.status is Status.MAX_TIME and not result.success and time.perf_counter() - start < 5
    assert "max_time" in result.message and result.bound <= result.cost and np.isfinite(result.bound)
    assert result.options["max_time"] == 0.1 and result.time < 5
    np.testing.assert_allclose(np.linalg.norm(result.Y, axis=1), 1, rtol=1e-12)
    more = bmsdp.solve(C, rng=0, warm_start=result, tol=1e-4)
    assert more.success


def test_callback_and_stop():
    seen = []
    result = bmsdp.solve(gallery.goe(30, 0), rng=0, callback=lambda model, info: seen.append((model.Y.shape, info["products"])))
    assert result.success and len(seen) == len(result.history["nit"]) and seen[-1][1] <= result.products

    def stop(model, info):
        if info["products"] >= 3:
            raise StopIteration

    result = bmsdp.solve(slow_problem(), rng=0, callback=stop, tol=1e-9)
    assert result.status is Status.INTERRUPTED and "warm_start" in result.message and not result.success
    assert np.isfinite(result.bound) and result.bound <= result.cost


def test_errors_in_a_callback_are_the_callers():
    def fail(model, info):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        bmsdp.solve(gallery.goe(5, 0), callback=fail)


def test_keyboard_interrupt_returns_the_best_point():
    count = []

    def press(model, info):
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt

    result = bmsdp.solve(slow_problem(), rng=0, callback=press, tol=1e-9)
    assert result.status is Status.INTERRUPTED and len(count) == 3
    np.testing.assert_allclose(np.linalg.norm(result.Y, axis=1), 1, rtol=1e-12)
    assert np.isfinite(result.cost) and result.bound <= result.cost


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
@pytest.mark.parametrize("after", [0.05, 0.3])
def test_a_real_signal(after):
    """Ctrl-C from outside, wherever it lands: kernels, products, certificate."""
    C = gallery.goe(700, 0)
    bmsdp.solve(C, rng=0, max_time=0.01)
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a background job runs the tests
    previous = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        signal.setitimer(signal.ITIMER_REAL, after)
        result = bmsdp.solve(C, rng=0, tol=1e-15, solver=bmsdp.solvers.GradientDescent())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        signal.signal(signal.SIGINT, interrupt)
    assert result.status is Status.INTERRUPTED and result.Y.shape[0] == 700


def test_verbose(capsys, caplog):
    C = gallery.goe(12, 0)
    assert bmsdp.solve(C, rng=0).success and capsys.readouterr().out == ""
    result = bmsdp.solve(C, rng=0, verbose=1)
    lines = capsys.readouterr().out.splitlines()
    assert "n = 12, m = 12, real symmetric dense C, manifold Oblique" in lines[0] and lines[1].split()[0] == "rank"
    assert "CERTIFIED" in lines[-1] and len(lines) == 4 + len(result.options["stages"])
    assert "mixing: rows have a cheap step" in lines[2]
    assert bmsdp.solve(C, rng=0).success and capsys.readouterr().out == ""
    with caplog.at_level(logging.INFO, logger="bmsdp"):
        bmsdp.solve(C, rng=0)
    assert "manifold Oblique" in caplog.text and capsys.readouterr().out == ""


def test_what_was_detected_is_told(capsys):
    for kind, words in (("stiefel", "StiefelProduct"), ("trace", "Sphere"), ("product", "Oblique x StiefelProduct x Sphere")):
        A, b, _ = KINDS[kind]
        result = bmsdp.solve(sp.csr_array(gallery.goe(6, 0)), A, b, rng=0, verbose=1)
        assert words in result.options["manifold"] and words in capsys.readouterr().out


def test_progress(capsys):
    pytest.importorskip("tqdm")
    assert bmsdp.solve(gallery.goe(12, 0), rng=0, progress=True).success
    assert bmsdp.solve(gallery.goe(12, 0), rng=0, progress=False).success
    assert capsys.readouterr().out == ""


# bad input: what was given, what is needed, what to do

A4, B4 = diagonal_rows(4), [1.0, 1, 1, 1]
C4 = gallery.goe(4, 0)
BAD = {
    "rectangle": (lambda: bmsdp.solve(np.ones((2, 3))), r"C has shape \(2, 3\); it must be square"),
    "vector": (lambda: bmsdp.solve(np.ones(3)), r"C has shape \(3,\); it must be square"),
    "empty": (lambda: bmsdp.solve(np.zeros((0, 0))), "C is 0 x 0; at least one row is needed"),
    "empty_sparse": (lambda: bmsdp.solve(sp.csr_array((0, 0))), "C is 0 x 0; at least one row is needed"),
    "empty_graph": (lambda: maxcut.problem([]), "no vertices; at least one is needed"),
    "asymmetric": (
        lambda: bmsdp.solve(np.array([[0, 0.5], [0, 0]])),
        r"C is not symmetric: max \|C - C.T\| = 0.5 at \(0, 1\); pass \(C \+ C.T\) / 2",
    ),
    "asymmetric_sparse": (
        lambda: bmsdp.solve(sp.csr_array(np.array([[0, 0.5], [0, 0]]))),
        r"C is not symmetric: max \|C - C.T\| = 0.5 at \(0, 1\); pass \(C \+ C.T\) / 2",
    ),
    "not_hermitian": (lambda: bmsdp.solve(np.array([[0, 1j], [1j, 0]])), r"C is not Hermitian.*= 2 at \(0, 1\); pass"),
    "imaginary_diagonal": (lambda: bmsdp.solve(np.array([[1j, 0], [0, 0]])), r"C is not Hermitian.*at \(0, 0\)"),
    "operator": (
        lambda: bmsdp.solve(spla.aslinearoperator(np.triu(np.ones((5, 5))))), r"LinearOperator C is not Hermitian.*pass \(C \+ C\*\) / 2",
    ),
    "nan": (lambda: bmsdp.solve(np.diag([1.0, np.nan])), r"C\[1, 1\] = nan; every entry must be finite"),
    "inf_sparse": (lambda: bmsdp.solve(sp.csr_array(np.diag([1.0, np.inf]))), r"C\[1, 1\] = inf; every entry must be finite"),
    "nan_operator": (lambda: bmsdp.solve(spla.aslinearoperator(np.diag([1.0, np.nan]))), "NaN or infinite; check"),
    "words": (lambda: bmsdp.solve(np.array([["a", "b"], ["b", "a"]])), "C has dtype.*numbers are needed"),
    "ragged": (lambda: bmsdp.solve([[1, 2], [3]]), "C cannot be read as a matrix.*pass an ndarray"),
    "A_shape": (lambda: bmsdp.solve(C4, [np.eye(3)], [1]), r"A\[0\] has shape \(3, 3\) but C is 4 x 4; every A_j must be 4 x 4"),
    "A_stacked": (lambda: bmsdp.solve(C4, sp.csr_array((2, 15)), [1, 1]), r"stacked A has shape \(2, 15\).*m x 16"),
    "A_matrix": (lambda: bmsdp.solve(C4, np.eye(4), [1]), "A is a ndarray; pass a sequence of 4 x 4 matrices, or one stacked"),
    "A_none_at_all": (lambda: bmsdp.solve(C4, [], []), "A holds no matrix; pass at least one, A=None for a unit diagonal, or A_geq"),
    "A_word": (lambda: bmsdp.solve(C4, "A", [1]), "A"),
    "A_not_hermitian": (
        lambda: bmsdp.solve(C4, [*A4, np.triu(np.ones((4, 4)))], [*B4, 1]),
        r"A_4 is not Hermitian: its entry at \(0, 1\).*pass \(A_j \+ A_j\*\) / 2",
    ),
    "A_nan": (lambda: bmsdp.solve(C4, [*A4[:3], np.diag([0, 0, 0, np.nan])], B4), "A_3 has an entry that is NaN or infinite"),
    "b_missing": (lambda: bmsdp.solve(C4, A4), "A has 4 rows but b was not given; pass 4 numbers"),
    "b_length": (lambda: bmsdp.solve(C4, A4, [1, 2]), r"b has shape \(2,\) but A has 4 rows; b must have shape \(4,\)"),
    "b_scalar": (lambda: bmsdp.solve(C4, A4, 1.0), r"b has shape \(\) but A has 4 rows"),
    "b_complex": (lambda: bmsdp.solve(C4, A4, [1, 1, 1, 1j]), "b has dtype complex128; real numbers are needed"),
    "b_nan": (lambda: bmsdp.solve(C4, A4, [1, 1, np.nan, 1]), r"b\[2\] is not finite"),
    "b_alone": (lambda: bmsdp.solve(C4, b=[1]), "b was given without A; pass A as well, or neither"),
    "radius": (lambda: bmsdp.solve(C4, Oblique([1, 1, -1, 1])), "squared radii must be finite and positive"),
    "rank_0": (lambda: bmsdp.solve(C4, rank=0), "rank = 0; an integer from 1 to n = 4 is needed"),
    "rank_negative": (lambda: bmsdp.solve(C4, rank=-2), "rank = -2; an integer from 1 to n = 4"),
    "rank_large": (lambda: bmsdp.solve(C4, rank=5), "rank = 5; an integer from 1 to n = 4 is needed"),
    "rank_half": (lambda: bmsdp.solve(C4, rank=2.5), "rank = 2.5; an integer from 1 to n = 4"),
    "rank_block": (lambda: bmsdp.solve(C4, StiefelProduct(2, 2), rank=1), "rank = 1 is below the size 2 of an identity block; raise"),
    "manifold_size": (lambda: bmsdp.solve(C4, Sphere(5)), "A acts on 5 x 5 matrices but C is 4 x 4"),
    "manifold_b": (lambda: bmsdp.solve(C4, Sphere(4, 2.0), [3]), "A is a manifold, which brings its own b"),
    "problem_A": (lambda: bmsdp.solve(Problem(C4, Sphere(4)), A4, B4), "C is a Problem, which brings its own constraints"),
    "problem_size": (lambda: Problem(C4, Sphere(5)), "C is 4 x 4 but the manifold has 5 rows"),
    "complex_blocks": (lambda: bmsdp.solve(C4, StiefelProduct(2, 2, True)), "complex|real"),
    "real_blocks": (lambda: bmsdp.solve(gallery.gue(4, 0), StiefelProduct(2, 2)), "complex|real"),
    "method": (lambda: bmsdp.solve(C4, method="x"), "method = 'x'"),
    "certify": (lambda: bmsdp.solve(C4, certify="proof"), "'proof'.*auto.*verified.*probabilistic.*estimate"),
    "threads": (lambda: bmsdp.solve(C4, threads=0), "threads = 0; a positive integer is needed"),
    "verified_operator": (lambda: bmsdp.solve(spla.aslinearoperator(C4), certify="verified"), "C is an operator.*pass C as an array"),
}  # fmt: skip


CONTRADICTIONS = {
    "copies": ([*A4, 2 * A4[1]], [*B4, 3.0], "rows 1 and 4 contradict each other: X_1,1 = 1.0 and 1.5"),
    "zero_row": ([*A4, np.zeros((4, 4))], [*B4, 2.0], "row 4 of A says 0 = 2.0"),
    "negative": ([np.eye(4)], [-1.0], "row 0 of A is positive semidefinite but <A_j, X> = -1.0"),
    "sign": ([-np.eye(4)], [1.0], "row 0 of A is negative semidefinite but <A_j, X> = 1.0"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictions(name):
    A, b, message = CONTRADICTIONS[name]
    result = bmsdp.solve(C4, A, b)
    assert result.status is Status.INFEASIBLE and message in result.message and not result.success
    M = sum(v * a for v, a in zip(result.ray["dual"], A, strict=True))
    assert np.linalg.eigvalsh(M)[-1] <= 1e-15 and np.dot(b, result.ray["dual"]) == pytest.approx(1)


def test_a_row_that_vanishes():
    """``X_22 = 0`` leaves a smaller problem."""
    result = bmsdp.solve(C4, A4, [1, 1, 0, 1], **FAST)
    left = [0, 1, 3]
    assert result.success and result.cost == pytest.approx(bmsdp.solve(C4[np.ix_(left, left)], **FAST).cost, rel=1e-7)
    assert not result.X[2].any() and np.linalg.eigvalsh(C4 - np.diag(result.dual))[0] >= -1e-6 * np.abs(result.dual).max()


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("tol", [0, 0.0, 1, 1.0, -1e-6, np.nan, np.inf, None, "small", [1e-6]])
def test_bad_tol(tol):
    with pytest.raises(ValueError, match="tol = .*relative gap, 0 < tol < 1"):
        bmsdp.solve(C4, tol=tol)


@pytest.mark.parametrize("keywords", [{"solver": "lbfgs"}, {"max_time": "soon"}, {"max_time": np.nan}, {"max_time": -1}])
def test_bad_keywords_name_themselves(keywords):
    with pytest.raises((ValueError, TypeError), match=next(iter(keywords))):
        bmsdp.solve(C4, **keywords)


def test_truncated_and_odd_files(tmp_path):
    from bmsdp.io.rudy import read_rudy

    path = tmp_path / "graph.rud"
    for text, message in (
        ("3 2\n1 2 1\n", "1 of 2 edges"), ("3 1\n1 4 1\n", "from 1 to n = 3"), ("3 1\n1 b 1\n", "not a number"), ("", "empty file"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(ValueError, match=message) as caught:
            read_rudy(path)
        assert str(path) in str(caught.value)
    path.write_text("3 2\n1 2 1\n2 3 1\n\n\n")
    assert bmsdp.solve(read_rudy(path)[0], rng=0).success
    path.write_text("3 2\n1 2 1\n2 1 1\n")
    with pytest.warns(UserWarning, match="summed|duplicate"):
        C = read_rudy(path)[0]
    assert bmsdp.solve(C, **FAST).cost == pytest.approx(-2, rel=1e-7)


# what just works


def test_disconnected_graph_and_isolated_vertices():
    parts = [gallery.gnp(20, 0.3, 0), sp.csr_array((5, 5)), gallery.gnp(15, 0.3, 1)]
    C = maxcut.laplacian_cost(sp.csr_array(sp.block_diag(parts)))
    result = bmsdp.solve(C, **FAST)
    apart = sum(bmsdp.solve(maxcut.laplacian_cost(W), **FAST).cost for W in (parts[0], parts[2]))
    assert result.success and result.cost == pytest.approx(apart, rel=1e-7)
    np.testing.assert_allclose(np.linalg.norm(result.Y, axis=1), 1, rtol=1e-12)
    assert bmsdp.solve(C.toarray(), rng=0).success


@pytest.mark.parametrize("solver", [None, bmsdp.solvers.TrustRegion(), bmsdp.solvers.LBFGS(), bmsdp.solvers.GradientDescent()])
def test_no_edges_one_vertex(solver):
    for C in (
        np.zeros((4, 4)),
        sp.csr_array((4, 4)),
        np.zeros((1, 1)),
        sp.csr_array((1, 1)),
        spla.aslinearoperator(np.zeros((3, 3))),
    ):
        result = bmsdp.solve(C, rng=0, solver=solver)
        assert result.status is Status.CERTIFIED and result.cost == 0 and result.bound == 0 and result.gap == 0
    for C in (np.array([[2.0]]), [[-3]], np.array([[1.5 + 0j]])):
        result = bmsdp.solve(C, rng=0, solver=solver)
        value = float(np.real(np.asarray(C)[0, 0]))
        assert result.status is Status.CERTIFIED and result.cost == pytest.approx(value) and result.rank == 1
    assert bmsdp.solve(np.diag([3.0, -1, 4]), rng=0, solver=solver).cost == pytest.approx(6)
    assert maxcut.recover(bmsdp.solve(maxcut.problem([], n=3), rng=0), rng=0).value == 0


@pytest.mark.parametrize("n", [2, 5, 30])
def test_optimum_zero(n):
    """min <L, X> = 0 at X = J: neither a 0/0 nor a proof that never comes."""
    L = np.diag(np.r_[1, np.full(n - 2, 2), 1.0]) - np.diag(np.ones(n - 1), 1) - np.diag(np.ones(n - 1), -1)
    for form in (L, sp.csr_array(L)):
        result = bmsdp.solve(form, rng=0)
        assert result.bound <= 0 and abs(result.cost) <= 1e-9
        assert result.status is Status.CERTIFIED, result


def test_hard_scales():
    """Weights over six decades, radii over four, a large diagonal."""
    wide = maxcut.laplacian_cost(gallery.wide_weights(60, 0.2, 6, 0))
    assert bmsdp.solve(wide, rng=0).success
    result = bmsdp.solve(gallery.goe(20, 0), Oblique(gallery.random_radii(20, 4, 0)), rng=0)
    assert result.success
    C = gallery.goe(20, 0)
    plain, shifted = bmsdp.solve(C, **FAST), bmsdp.solve(C + 50 * np.eye(20), rng=0)
    assert shifted.success and shifted.cost == pytest.approx(plain.cost + 1000, rel=1e-6)


# threads, processes


def test_reentrant():
    """Two threads at once get what each would get alone, compiled parallel kernels included."""
    costs = [maxcut.laplacian_cost(gallery.gnp(300, 0.05, seed)) for seed in range(2)]
    for threads in (1, 2):
        alone = [bmsdp.solve(C, rng=0, threads=threads) for C in costs]
        got = [None, None]

        def work(j, threads=threads, got=got):
            got[j] = bmsdp.solve(costs[j], rng=0, threads=threads)

        workers = [threading.Thread(target=work, args=(j,)) for j in range(2)]
        for w in workers:
            w.start()
        for w in workers:
            w.join(60)
        for one, two in zip(alone, got, strict=True):
            assert two is not None and two.success and np.array_equal(one.Y, two.Y) and one.bound == two.bound


def _cost_in_a_process(seed):
    return bmsdp.solve(gallery.goe(20, seed), rng=0, threads=1).cost


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_process_pools(method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this platform")
    alone = [_cost_in_a_process(seed) for seed in range(3)]
    if method == "fork":
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map_async(_cost_in_a_process, range(3)).get(timeout=100) == alone
    else:  # this module has no importable name under importlib mode: send a function of the package
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            results = pool.starmap_async(bmsdp.solve, [(gallery.goe(20, 0), Oblique(np.ones(20)))]).get(timeout=100)
            assert results[0].success and results[0].cost == pytest.approx(alone[0], rel=1e-5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("threads", [1, 2])
def test_after_fork(threads):
    """A child that inherits compiled kernels, and a lock, solves as its parent does."""
    C = maxcut.laplacian_cost(gallery.gnp(200, 0.05, 0))
    expected = bmsdp.solve(C, rng=0, threads=threads).cost
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            code = 0 if bmsdp.solve(C, rng=0, threads=threads).cost == expected else 2
        os._exit(code)
    deadline = time.monotonic() + 60
    done, status = 0, 0
    while not done and time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.02)
    if not done:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the child hung")
    assert os.waitstatus_to_exitcode(status) == 0


def test_imports_are_light():
    import subprocess
    import sys
    from pathlib import Path

    code = "import sys, bmsdp; print([m for m in ('numba', 'cvxpy', 'matplotlib', 'networkx', 'pymanopt') if m in sys.modules])"
    root = str(Path(bmsdp.__file__).resolve().parents[1])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": root})
    assert done.stdout.strip() == "[]", done.stderr
