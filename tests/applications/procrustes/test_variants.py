"""Shifts, missing points, unequal noise, mirror images, batches, many points."""

import numpy as np
import pytest

from bmsdp.applications import procrustes as pc
from bmsdp.applications.procrustes import intake
from bmsdp.applications.procrustes.gram import StackedCopies, complement_of_ones, syrk
from bmsdp.applications.procrustes.spectrum import spectrum


@pytest.fixture
def X():
    return np.random.default_rng(3).standard_normal((3, 8)) / 2


def centred(X):
    return X - X.mean(axis=1, keepdims=True)


def matrix(sums):
    return sums.moments().matrix


def test_sums_are_what_they_say(X, rng):
    Y, w = pc.simulate(X, 0.5, 30, rng), rng.uniform(0, 2, 30)
    assert matrix(pc.GramAccumulator(3, 8).update(Y)) == pytest.approx(np.einsum("nia,nib->ab", Y, Y) / 30, abs=1e-14)
    weighted = np.einsum("n,nia,nib->ab", w, Y, Y) / w.sum()
    assert matrix(pc.GramAccumulator(3, 8).update(Y, weights=w)) == pytest.approx(weighted, abs=1e-14)
    s = rng.uniform(0, 1, 30)
    level = 3 * np.sum(w * s**2) / w.sum()
    known = pc.GramAccumulator(3, 8).update(Y, weights=w, sigma=s).moments()
    assert known.matrix == pytest.approx(weighted - level * np.eye(8), abs=1e-14) and known.debiased
    assert known.inverse_count == pytest.approx(np.sum(w**2) / w.sum() ** 2)
    assert known.noise4 == pytest.approx(np.sum(w**2 * s**4) / w.sum() ** 2)
    F = rng.standard_normal((7, 4))
    assert syrk(F) == pytest.approx(F.T @ F, abs=1e-14)
    C = complement_of_ones(6)
    assert C.T @ C == pytest.approx(np.eye(5), abs=1e-14) and C.sum(axis=0) == pytest.approx(np.zeros(5), abs=1e-14)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("missing", [False, True])
def test_batches_merge_to_the_whole(X, center, missing, rng):
    Y, w = pc.simulate(X, 0.5, 60, rng, shift=3.0), rng.uniform(0.5, 2, 60)
    mask = rng.random((60, 8)) < 0.7 if missing else None

    def part(rows):
        chosen = {} if mask is None else {"mask": mask[rows]}
        return pc.GramAccumulator(3, 8, center=center, missing=missing).update(Y[rows], weights=w[rows], **chosen)

    first, second, whole = part(slice(0, 20)), part(slice(20, 60)), part(slice(0, 60))
    before = matrix(first).copy()
    for total in (first + second, second + first):
        assert matrix(total) == pytest.approx(matrix(whole), rel=1e-12, abs=1e-13)
        assert total.N == 60 and total.moments().inverse_count == pytest.approx(whole.moments().inverse_count)
    assert np.array_equal(matrix(first), before), "a sum leaves its parts alone"
    first.merge(second)
    assert matrix(first) == pytest.approx(matrix(whole), rel=1e-12, abs=1e-13)


def test_iterators_accumulators_and_arrays_agree(X, rng):
    Y = pc.simulate(X, 0.5, 100, rng)
    whole = pc.fit(Y, "gram")
    for other in (pc.fit(iter(np.array_split(Y, 7))), pc.fit(pc.GramAccumulator(3, 8).update(Y)), pc.fit(Y.reshape(300, 8), "gram", d=3)):
        assert other.X == pytest.approx(whole.X, abs=1e-10) and other.N == 100 and other.method == "gram"
        assert other.sigma2 == pytest.approx(whole.sigma2) and other.expected_mse == pytest.approx(whole.expected_mse)
    assert np.array_equal(np.concatenate(list(pc.simulate(X, 0.5, 10, 1, batch=10))), pc.simulate(X, 0.5, 10, 1))
    assert [len(batch) for batch in pc.simulate(X, 0.5, 10, 1, batch=4)] == [4, 4, 2]


def test_shifts_do_not_matter(X, rng):
    Y = pc.simulate(X, 0.5, 400, rng)
    t = 10 * rng.standard_normal((400, 3, 1))
    still, moved = pc.fit(Y, "gram", center=True), pc.fit(Y + t, "gram", center=True)
    assert moved.X == pytest.approx(still.X, abs=1e-11) and moved.X.sum(axis=1) == pytest.approx(np.zeros(3), abs=1e-12)
    runs = [pc.fit(pc.simulate(X, 0.5, 400, rng, shift=10.0), "gram", center=True) for _ in range(60)]
    assert np.mean([one.sigma2 for one in runs]) == pytest.approx(0.25, rel=0.01)
    risk = np.mean([pc.distance(centred(X), one.X) ** 2 for one in runs])
    assert risk == pytest.approx(pc.expected_mse(X @ complement_of_ones(8), 0.5, 400, False), rel=0.15)


@pytest.mark.parametrize("center", [False, True])
def test_nothing_missing_changes_nothing(X, center, rng):
    Y, w = pc.simulate(X, 0.5, 50, rng, shift=2.0 * center), rng.uniform(0.5, 1, 50)
    plain, masked = (pc.fit(Y, "gram", center=center, weights=w, mask=mask) for mask in (None, np.ones((50, 8))))
    assert masked.X == pytest.approx(plain.X, abs=1e-10) and masked.eigenvalues == pytest.approx(plain.eigenvalues, abs=1e-10)
    assert masked.expected_mse == pytest.approx(plain.expected_mse)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_missing_points_leave_the_matrix_unbiased(X, center, known, rng):
    N = 40_000
    s = rng.uniform(0.2, 0.6, N) if known else np.full(N, 0.4)
    Y, mask = pc.simulate(X, s, N, rng, shift=5.0 * center), rng.random((N, 8)) < 0.7
    Y = np.where(mask[:, None, :], Y, np.nan)
    m = pc.GramAccumulator(3, 8, center=center, missing=True).update(Y, sigma=s if known else None).moments()
    B = X if m.basis is None else X @ m.basis
    assert m.matrix == pytest.approx(B.T @ B + (0 if known else 3 * 0.16) * np.eye(m.k), abs=0.04)
    found = pc.fit(Y, mask="nan", center=center, sigma=s if known else None)
    assert pc.distance(centred(X) if center else X, found.X) < 0.06
    assert known or found.sigma == pytest.approx(0.4, rel=0.02)


def test_missing_points_cost_what_is_expected(X, rng):
    square, expected = [], []
    for _ in range(80):
        Y, mask = pc.simulate(X, 0.3, 300, rng), rng.random((300, 8)) < 0.7
        found = pc.fit(Y, "gram", mask=mask)
        square.append(pc.distance(X, found.X) ** 2)
        expected.append(found.expected_mse)
    assert np.mean(square) == pytest.approx(np.mean(expected), rel=0.15)
    same = pc.fit(np.where(mask[:, None, :], Y, np.nan), "gram", mask="nan")
    assert np.array_equal(same.X, found.X)
    batches = iter(np.array_split(np.where(mask[:, None, :], Y, np.nan), 5))
    assert pc.fit(batches, mask="nan").X == pytest.approx(found.X, abs=1e-11)


def test_unequal_noise_is_weighed(X, rng):
    s = np.where(np.arange(1000) % 2, 2.0, 0.3)
    best, even, expected = [], [], []
    for _ in range(40):
        Y = pc.simulate(X, s, 1000, rng)
        found = pc.fit(Y, sigma=s)
        best.append(pc.distance(X, found.X) ** 2)
        expected.append(found.expected_mse)
        even.append(pc.distance(X, pc.fit(Y, sigma=s, weights=np.ones(1000)).X) ** 2)
    assert np.mean(best) == pytest.approx(np.mean(expected), rel=0.15) and np.mean(best) < np.mean(even) / 10
    w = pc.optimal_weights(Y, s)
    c = np.sum(X**2) / 3
    assert w.max() == 1 and w[1] / w[0] == pytest.approx((c * 0.09 + 3 * 0.3**4) / (c * 4 + 48), rel=0.1)
    exact = pc.fit(np.concatenate([Y, pc.simulate(X, 0.0, 1, rng)]), sigma=np.append(s, 0.0))
    assert pc.distance(X, exact.X) < 1e-6, "one copy without noise decides"


def test_zero_weights_leave_copies_out(X, rng):
    Y = pc.simulate(X, 0.3, 50, rng)
    w = (np.arange(50) < 30).astype(float)
    found, fewer = pc.fit(Y, "gram", weights=w), pc.fit(Y[:30], "gram")
    assert found.X == pytest.approx(fewer.X, abs=1e-12) and found.expected_mse == pytest.approx(fewer.expected_mse)


def test_chirality_of_rotations(X, rng):
    Y = pc.simulate(X, 0.6, 4000, rng, group="SO")
    mirror = X * [[1], [1], [-1]]
    mean, z = pc.chirality(Y, X)
    assert mean == pytest.approx(np.linalg.det(X @ X.T), rel=0.3) and z > 5
    assert pc.chirality(Y, mirror) == pytest.approx((-mean, -z))
    for method in ("gram", "sync"):
        found = pc.fit(pc.simulate(X, 0.3, 300, rng, group="SO") if method == "sync" else Y, method, special=True)
        assert pc.distance(X, found.X, "SO") < 0.2 < pc.distance(mirror, found.X, "SO") and found.chirality_zscore > 3
        assert np.linalg.det(found.rotations(Y[:20])) == pytest.approx(np.ones(20))
    reflected = pc.fit(Y * np.array([1, 1, -1.0])[:, None], special=True)
    assert pc.distance(mirror, reflected.X, "SO") < 0.2
    streamed = pc.fit(iter(np.array_split(Y, 9)), special=True)
    assert streamed.X == pytest.approx(pc.fit(Y, "gram", special=True).X, abs=1e-10)
    gaps = np.where(rng.random((4000, 1, 8)) < 0.8, Y + 7 * rng.standard_normal((4000, 3, 1)), np.nan)
    assert pc.distance(centred(X), pc.fit(gaps, mask="nan", center=True, special=True).X, "SO") < 0.2


def test_second_moment_of_the_determinant(X, rng):
    for sigma in (0.2, 1.0):
        Y = pc.simulate(X, sigma, 400_000, rng, group="SO")
        assert np.mean(np.linalg.det(Y @ X.T) ** 2) == pytest.approx(pc.chirality_second_moment(X, sigma), rel=0.02)
    assert np.isnan(pc.chirality(Y[:1], X)[1])
    assert pc.chirality(np.repeat(X[None], 3, axis=0), X)[1] == np.inf


def test_an_unsure_mirror_image_is_warned_of(rng):
    X = np.eye(3, 8)
    found = pc.fit(pc.simulate(X, 2.0, 3000, rng, group="SO"), special=True)
    assert any("mirror image" in text for text in found.warnings) == (found.chirality_zscore < 3)
    wild = pc.fit(pc.simulate(X, 3.0, 3000, rng), special=True)
    assert wild.chirality_zscore < 4


def test_shrinkage_helps_where_copies_are_few_and_vanishes_where_they_are_many(rng):
    X = rng.standard_normal((3, 60))
    X /= np.linalg.norm(X)
    for sigma, N, better in ((0.5, 400, 0.9), (0.1, 4000, 1.01)):
        risk = {False: 0.0, True: 0.0}
        for _ in range(10):
            Y = pc.simulate(X, sigma, N, rng)
            for shrink in risk:
                risk[shrink] += pc.distance(X, pc.fit(Y, "gram", shrink=shrink).X) ** 2
        assert risk[True] < better * risk[False] and risk[True] > 0.5 * risk[False]
    assert pc.fit(pc.simulate(0 * X, 1.0, 50, rng), shrink=True, sigma=1.0).X == pytest.approx(np.zeros((3, 60)), abs=0.5)


@pytest.mark.parametrize("N", [40, 300])
def test_many_points_without_their_gram_matrix(N, monkeypatch, rng):
    """Truncated SVDs and sketches against the k x k matrix."""
    X = rng.standard_normal((3, 400))
    Y = pc.simulate(X, 0.7, N, rng)
    exact = pc.fit(Y, "gram")
    monkeypatch.setattr(intake, "LARGE", 100)
    stacked = pc.fit(Y, "gram")
    assert isinstance(intake.accumulator(3, 400, False, False, True), StackedCopies)
    assert pc.distance(exact.X, stacked.X) < 1e-9 and stacked.sigma2 == pytest.approx(exact.sigma2)
    monkeypatch.setattr(intake, "HUGE", 100)
    sketched = pc.fit(iter(np.array_split(Y, 4)))
    assert sketched.sigma2 == pytest.approx(exact.sigma2, rel=0.01)
    assert pc.distance(X, sketched.X) < 1.1 * pc.distance(X, exact.X)
    shifted = pc.fit(iter(np.array_split(Y + 5, 4)), center=True)
    assert pc.distance(centred(X), shifted.X) < 1.1 * pc.distance(X, exact.X)


def test_sketches_merge_and_are_exact_without_noise(rng):
    X = rng.standard_normal((2, 50))
    Y = pc.simulate(X, 0.0, 30, rng)
    first, second = (pc.GramSketch(2, 50, size=12).update(part) for part in (Y[:10], Y[10:]))
    assert pc.distance(X, pc.fit(first + second).X) < 1e-10
    with pytest.raises(ValueError, match="equal settings"):
        first.merge(pc.GramSketch(2, 50, size=12, rng=1))
    small = pc.simulate(X, 0.3, 300, rng)
    w = rng.uniform(0.5, 1.5, 300)
    for sigma in (None, np.full(300, 0.3)):
        m = pc.GramSketch(2, 50, size=50).update(small, weights=w, sigma=sigma).moments()
        dense = pc.GramAccumulator(2, 50).update(small, weights=w, sigma=sigma).moments()
        stack = StackedCopies(2, 50).update(small, weights=w, sigma=sigma).moments()
        reference = spectrum(dense, 2, None)
        for other in (m, stack):
            assert other.trace == pytest.approx(dense.trace)
            assert spectrum(other, 2, None).values[:2] == pytest.approx(reference.values[:2], rel=1e-3)
            assert spectrum(other, 2, None).noise4 == pytest.approx(reference.noise4, rel=1e-3)


def test_lanczos_finds_the_leading_eigenvalues_of_a_large_matrix(monkeypatch, rng):
    from bmsdp.applications.procrustes import spectrum as module

    Y = pc.simulate(rng.standard_normal((3, 60)), 0.5, 100, rng)
    exact = pc.fit(Y, "gram")
    monkeypatch.setattr(module, "LARGE", 30)
    few = pc.fit(Y, "gram")
    assert pc.distance(exact.X, few.X) < 1e-9 and few.sigma2 == pytest.approx(exact.sigma2)
    stack = StackedCopies(3, 60).update(Y).moments()
    assert spectrum(stack, 3, None).values[:4] == pytest.approx(exact.eigenvalues[:4])
