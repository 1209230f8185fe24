"""Least squares over rotations, its relaxation and certificate; what "auto" decides."""

import itertools

import numpy as np
import pytest

import bmsdp
from bmsdp.applications import procrustes as pc


@pytest.fixture(scope="module")
def X():
    """Equal singular values sqrt(3), as in the theory's numbers: d = 3, k = 15, |X| = 3."""
    return np.sqrt(3) * np.linalg.qr(np.random.default_rng(0).standard_normal((15, 3)))[0].T


def value(Y, Q):
    return float(np.linalg.norm(np.einsum("nij,nik->jk", Q, Y)) ** 2)


def test_the_cost_is_the_gram_matrix_of_all_rows(X, rng):
    Y = pc.simulate(X, 0.5, 6, rng)
    problem, F = pc.problem(Y), Y.reshape(18, 15)
    assert problem.C.mul(np.eye(18)) == pytest.approx(-F @ F.T, abs=1e-12)
    Q = pc.haar(6, 3, rng)
    assert problem.at(Q.reshape(18, 3)).cost == pytest.approx(-value(Y, Q))
    total = np.einsum("nij,nik->jk", Q, Y) / 6
    left = sum(np.linalg.norm(Y[i] - Q[i] @ total) ** 2 for i in range(6))
    assert left == pytest.approx(np.sum(Y**2) - value(Y, Q) / 6)


@pytest.mark.parametrize("sigma", [0.1, 0.3])
def test_low_noise_is_solved_with_proof(X, sigma, rng):
    for _ in range(3):
        Y = pc.simulate(X, sigma, 20, rng)
        found = pc.least_squares(Y, rng=0)
        result = found.result
        assert found.rank == 3 and found.is_tight and result.status is bmsdp.Status.CERTIFIED
        assert result.certificate.rigor == "verified"
        assert np.linalg.eigvalsh(result.slack() @ np.eye(60))[0] >= -1e-8 * np.linalg.norm(Y.reshape(60, 15), 2) ** 2
        assert found.value == pytest.approx(value(Y, found.rotations)) and found.value <= found.bound
        assert found.value == pytest.approx(-result.cost, rel=1e-9)
        assert found.X == pytest.approx(np.einsum("nij,nik->jk", found.rotations, Y) / 20)
        scratch = pc.recover(bmsdp.solve(pc.problem(Y), tol=1e-10, rng=1, rank=9), Y)
        assert scratch.value == pytest.approx(found.value, rel=1e-9) and scratch.rank == 3, "from a random start, at rank 9"


def test_high_noise_is_a_bracket(X, rng):
    for _ in range(3):
        Y = pc.simulate(X, 1.2, 20, rng)
        found = pc.least_squares(Y, rng=0)
        assert found.result.success and found.rank > 3 and not found.is_tight
        assert 1e-4 < found.gap < 0.2 and found.value <= found.bound
        Q = pc.ascend(Y, pc.haar(20, 3, rng))
        assert value(Y, Q) <= found.bound
        text = " ".join(pc.fit(Y, "sync").warnings)
        assert "not proved optimal" in text and f"rank {found.rank}" in text


def test_signs_by_brute_force(rng):
    """d = 1: Q_i is a sign."""
    for trial in range(5):
        Y = rng.standard_normal((9, 1, 4))
        best = max(value(Y, np.array(signs).reshape(9, 1, 1)) for signs in itertools.product([1.0, -1.0], repeat=9))
        found = pc.least_squares(Y, rng=trial)
        assert found.value <= best * (1 + 1e-12) and best <= found.bound * (1 + 1e-12)
        if found.is_tight:
            assert found.value == pytest.approx(best)


def test_ascent_never_descends_and_keeps_rotations(X, rng):
    Y = pc.simulate(X, 0.8, 15, rng, group="SO")
    for group in ("O", "SO"):
        Q = pc.haar(15, 3, rng, group)
        values = [value(Y, Q)]
        for _ in range(5):
            Q = pc.ascend(Y, Q, group, sweeps=1)
            values.append(value(Y, Q))
            assert Q @ Q.transpose(0, 2, 1) == pytest.approx(np.tile(np.eye(3), (15, 1, 1)), abs=1e-12)
            assert group == "O" or np.linalg.det(Q) == pytest.approx(np.ones(15))
        assert values[-1] > values[0] and (np.diff(values) >= -1e-9 * values[0]).all()


def test_rotations_only(X, rng):
    Y = pc.simulate(X, 0.2, 20, rng, group="SO")
    free, kept = pc.least_squares(Y, rng=0), pc.least_squares(Y, rng=0, group="SO")
    assert np.linalg.det(kept.rotations) == pytest.approx(np.ones(20)) and kept.value == pytest.approx(free.value)
    assert kept.reflected == 0 and kept.is_tight
    Y[0] = Y[0] * np.array([1, 1, -1.0])[:, None]
    mixed = pc.least_squares(Y, rng=0, group="SO")
    assert mixed.reflected == 1 and np.linalg.det(mixed.rotations) == pytest.approx(np.ones(20))
    assert not mixed.is_tight and mixed.bound >= pc.least_squares(Y, rng=0).value > mixed.value
    assert any("1 of 20 copies fit better by a reflection" in text for text in pc.fit(Y, "sync", special=True).warnings)


def test_residuals_give_the_noise_and_the_error(X, rng):
    square, sigma2, expected = [], [], []
    for _ in range(40):
        found = pc.fit(pc.simulate(X, 0.1, 10, rng), "sync", rng=0)
        square.append(pc.distance(X, found.X) ** 2)
        sigma2.append(found.sigma2)
        expected.append(found.expected_mse)
    assert np.mean(sigma2) == pytest.approx(0.01, rel=0.03)
    assert np.mean(square) == pytest.approx(np.mean(expected), rel=0.1)
    assert np.mean(expected) == pytest.approx(0.001 * 42 + pc.alignment_floor(X) * 1e-4, rel=0.05)


def test_auto_decides_by_the_number_of_copies_and_the_proof(X, rng):
    few, many = pc.fit(pc.simulate(X, 0.1, 20, rng), rng=0), pc.fit(pc.simulate(X, 0.1, 1000, rng))
    assert few.method == "sync" and few.alignment.is_tight and few.certificate is not None and "tight" in few.why
    assert many.method == "gram" and "biased" in many.why and many.alignment is None and many.certificate is None
    assert many.alignment_limit == pytest.approx(pc.alignment_limit(X), rel=0.05)
    loose = pc.fit(pc.simulate(X, 0.8, 60, rng), rng=0)
    assert loose.method == "gram" and "not proved optimal" in loose.why and not loose.alignment.is_tight
    hopeless = pc.fit(pc.simulate(X, 4.0, 20, rng))
    assert hopeless.method == "gram" and "too few to align by" in hopeless.why and hopeless.expected_mse == np.inf
    line = pc.fit(pc.simulate(X[:1] * 9, 0.1, 5000, rng))
    assert line.method == "gram" and "N d = 5000" in line.why, "d = 1 has no bias, but an SDP has its price"


def test_auto_does_not_align_what_it_cannot(X, rng):
    Y = pc.simulate(X, 0.1, 20, rng)
    for options, word in (
        ({"mask": np.ones((20, 15))}, "missing"), ({"weights": np.ones(20)}, "weights"), ({"sigma": np.full(20, 0.1)}, "unequal"),
    ):  # fmt: skip
        found = pc.fit(Y, **options)
        assert found.method == "gram" and word in found.why
        with pytest.raises(ValueError, match="sync.*" + word):
            pc.fit(Y, "sync", **options)
    assert pc.fit(iter([Y])).method == "gram"
    with pytest.raises(ValueError, match="iterator"):
        pc.fit(iter([Y]), "sync")


def test_alignment_with_shifts(X, rng):
    Y = pc.simulate(X, 0.1, 20, rng, shift=10.0)
    found = pc.fit(Y, center=True, rng=0)
    centred = X - X.mean(axis=1, keepdims=True)
    assert found.method == "sync" and pc.distance(centred, found.X) ** 2 < 4 * found.expected_mse
    assert found.X.sum(axis=1) == pytest.approx(np.zeros(3), abs=1e-12)
    assert found.sigma == pytest.approx(0.1, rel=0.15)


def test_too_many_copies_are_warned_of(X, rng):
    found = pc.fit(pc.simulate(X, 0.1, 400, rng), "sync", rng=0)
    assert found.method == "sync" and any("alignment is biased" in text for text in found.warnings)


def test_recover_refuses_results_of_other_data(X, rng):
    Y = pc.simulate(X, 0.1, 4, rng)
    result = bmsdp.solve(pc.problem(Y), rng=0)
    with pytest.raises(ValueError, match="12 rows but 5 copies"):
        pc.recover(result, pc.simulate(X, 0.1, 5, rng))
