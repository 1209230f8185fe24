"""What users meet: distances, turned copies, warnings, refusals, the estimator."""

import subprocess
import sys

import numpy as np
import pytest

from bmsdp.applications import procrustes as pc


@pytest.fixture
def X():
    return np.random.default_rng(3).standard_normal((3, 8))


def test_distance_is_one_up_to_rotations(X, rng):
    Q = pc.haar(5, 3, rng)
    for q in Q:
        assert pc.distance(X, q @ X) < 1e-13
        rho, R = pc.distance(X, q @ X, return_Q=True)
        assert R @ q == pytest.approx(np.eye(3), abs=1e-12)
    Z = rng.standard_normal((3, 8))
    assert pc.distance(X, Z) == pytest.approx(pc.distance(Z, X)) == pytest.approx(pc.distance(Q[0] @ X, Q[1] @ Z))
    closed = np.sum(X**2) + np.sum(Z**2) - 2 * np.linalg.svd(X @ Z.T, compute_uv=False).sum()
    assert pc.distance(X, Z) ** 2 == pytest.approx(closed)
    mirror = X * [[1], [1], [-1]]
    assert pc.distance(X, mirror) < 1e-13 < 0.1 < pc.distance(X, mirror, "SO")
    rho, R = pc.distance(X, mirror, "SO", return_Q=True)
    assert np.linalg.det(R) == pytest.approx(1) and np.linalg.norm(X - R @ mirror) == pytest.approx(rho)
    best = min(np.linalg.norm(X - R @ mirror) for R in pc.haar(20_000, 3, rng, "SO"))
    assert rho <= best <= rho + 0.5


@pytest.mark.parametrize("group", ["O", "SO"])
def test_haar_is_uniform(group, rng):
    Q = pc.haar(20_000, 3, rng, group)
    assert Q @ Q.transpose(0, 2, 1) == pytest.approx(np.tile(np.eye(3), (20_000, 1, 1)), abs=1e-12)
    assert Q.mean(axis=0) == pytest.approx(np.zeros((3, 3)), abs=0.02)
    assert (Q**2).mean(axis=0) == pytest.approx(np.full((3, 3), 1 / 3), abs=0.02)
    assert np.linalg.det(Q).mean() == pytest.approx(1 if group == "SO" else 0, abs=0.03)
    assert np.trace(Q, axis1=1, axis2=2).mean() == pytest.approx(0, abs=0.03), "QR alone, its signs unmended, fails this"


def test_align_turns_copies_back(X, rng):
    Q = pc.haar(6, 3, rng)
    aligned = pc.align(Q @ X, X)
    assert aligned.rotations == pytest.approx(Q, abs=1e-12) and aligned.copies == pytest.approx(np.tile(X, (6, 1, 1)), abs=1e-12)


@pytest.mark.parametrize("center", [False, True])
def test_turned_copies_of_a_fit(X, center, rng):
    Y = pc.simulate(X, 0.01, 30, rng, shift=4.0 * center)
    found = pc.fit(Y, center=center, rng=0)
    out = found.transform(Y)
    assert out == pytest.approx(np.tile(found.X, (30, 1, 1)), abs=0.08)
    assert found.rotations(Y) @ out == pytest.approx(Y - (Y.mean(axis=2, keepdims=True) if center else 0), abs=1e-9)
    Y[:, :, 5][::2] = np.nan
    gaps = found.transform(Y)
    assert np.isnan(gaps[::2, :, 5]).all() and not np.isnan(gaps[1::2]).any()
    there = np.arange(8) != 5
    assert gaps[:, :, there] == pytest.approx(np.tile(found.X[:, there], (30, 1, 1)), abs=0.08)


def test_a_fit_says_what_it_found(X, rng):
    found = pc.fit(pc.simulate(X, 0.3, 200, rng, group="SO"), "gram", special=True)
    assert found.gram == pytest.approx(found.X.T @ found.X) and found.detected_rank == 3
    assert found.eigengap == pytest.approx(found.eigenvalues[2] / found.eigenvalues[3]) and found.eigengap > 5
    assert found.sigma == pytest.approx(0.3, rel=0.1) and found.warnings == ()
    text = str(found)
    assert "8 points in R^3 from 200 copies by gram (as asked)" in text and "mirror image excluded" in text
    assert "warning: only" in str(pc.fit(pc.simulate(X, 20.0, 50, rng)))
    assert "relaxation: rank 3" in str(pc.fit(pc.simulate(X, 0.1, 10, rng), rng=0))


def test_warnings_say_what_to_do(X, rng):
    def text(*arguments, **options):
        return " ".join(pc.fit(*arguments, **options).warnings)

    assert "give sigma" in text(X[None]) and text(X[None], sigma=0.0) == ""
    wide = pc.fit(pc.simulate(np.eye(1, 100), 1.0, 400, rng))
    needed = int(next(w for w in wide.warnings if "would bring 10 %" in w).split("about ")[1].split()[0])
    assert needed == pytest.approx(400 * wide.expected_mse / (0.01 * np.sum(wide.X**2)), abs=1)
    assert "check units" in text(pc.simulate(X, 0.3, 200, rng), "gram", sigma=3.0e-2)
    shape = pc.simulate(X, 0.1, 500, rng) + np.einsum("n,ij->nij", rng.standard_normal(500), rng.standard_normal((3, 8)))
    assert "shape itself varies" in text(shape)
    flat = X * [[1], [1], [0]]
    found = pc.fit(pc.simulate(flat, 0.3, 300, rng))
    assert found.detected_rank == 2 and "only 2 of 3" in found.warnings[0] and pc.distance(flat, found.X) < 0.5


def refusals(X, rng):
    Y = pc.simulate(X, 0.1, 5, rng)
    hole = Y.copy()
    hole[1, 2, 3] = np.nan
    never = np.ones((5, 8), bool)
    never[:3, 0] = never[3:, 1] = False
    sums = pc.GramAccumulator(3, 8).update(Y)
    yield (Y, "svd"), {}, 'method = .svd.; it must be "gram"'
    yield (Y[0],), {}, r"Y has shape \(3, 8\); N copies"
    yield (Y,), {"d": 2}, "as \\(N, 2, k\\)"
    yield (Y.reshape(15, 8),), {"d": 4}, "stacked"
    yield (Y,), {"d": 0}, "positive integer"
    yield (hole,), {}, r"Y\[1, 2, 3\] = nan.*mask"
    yield (Y * 1j,), {}, "real numbers"
    yield (hole,), {"mask": np.ones((5, 8))}, "point 3 of copy 1 is NaN"
    yield (Y,), {"mask": np.ones((5, 7))}, r"shape \(5, 8\)"
    yield (Y,), {"mask": "none"}, '"nan"'
    yield (Y,), {"mask": never}, "points 0 and 1 were never seen together"
    yield (np.where(np.arange(8) == 2, np.nan, Y),), {"mask": "nan"}, "point 2 was never seen"
    yield (Y,), {"sigma": -1.0}, "finite and >= 0"
    yield (Y,), {"sigma": np.ones(4)}, "one for each of 5 copies"
    yield (Y,), {"sigma": -np.ones(5)}, "negative or not finite"
    yield (Y,), {"weights": np.ones(4)}, "one for each of 5"
    yield (Y,), {"weights": -np.ones(5)}, "finite and >= 0"
    yield (Y[:, :, :3],), {}, "give sigma"
    yield (Y[:, :, :4],), {"center": True}, "give sigma"
    yield (Y[:, :, :2],), {"sigma": 1.0}, "at least d"
    yield (iter([]),), {}, "no batch"
    yield (iter([Y, Y[:, :, :5]]),), {}, r"as \(N, 3, 8\)"
    yield (iter([Y]),), {"weights": np.ones(5)}, "GramAccumulator"
    yield (sums,), {"weights": np.ones(5)}, "update"
    yield (sums,), {"center": True}, "made without it"
    yield (sums,), {"d": 2}, "d = 3"
    yield (sums,), {"special": True}, "an accumulator keeps none"
    yield (pc.GramAccumulator(3, 8),), {}, "no copies were seen"


def test_bad_input_is_refused_with_a_reason(X, rng):
    for arguments, options, reason in refusals(X, rng):
        with pytest.raises(ValueError, match=reason):
            pc.fit(*arguments, **options)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda X: pc.distance(X, X[:, :4]), "same k points"),
        (lambda X: pc.distance(X, X, "U"), 'must be "O"'),
        (lambda X: pc.distance(X[0], X[0]), "a cloud of k points"),
        (lambda X: pc.simulate(X, 0.1, 0), "positive integers"),
        (lambda X: pc.simulate(X, [0.1, 0.2], 3), "one standard deviation or 3"),
        (lambda X: pc.expected_mse(X, -1, 3), "sigma >= 0"),
        (lambda X: pc.expected_mse(X[:, :3], 1, 3, sigma_known=False), "k > d"),
        (lambda X: pc.copies_needed(X, 1.0, 0.0), "positive distance"),
        (lambda X: pc.GramAccumulator(3, 8).update(X[None], mask=np.ones((1, 8))), "missing=True"),
        (lambda X: pc.GramAccumulator(3, 8).update(X[None], weights=0.0), "all weights are 0"),
        (lambda X: pc.GramAccumulator(3, 8).update(X[None], sigma=1.0).update(X[None]), "some copies came with their noise"),
        (lambda X: pc.GramAccumulator(3, 8).merge(pc.GramAccumulator(3, 8, center=True)), "equal settings"),
        (lambda X: pc.GramAccumulator(3, 1, center=True), "2 points are needed"),
        (lambda X: pc.GramSketch(3, 8, size=3), "more than d"),
        (lambda X: pc.least_squares(X[None, :, :2]), "k >= d"),
        (lambda X: pc.fit(pc.GramAccumulator(3, 8).update(X[None], sigma=1.0), sigma=1.0), "leave one of them out"),
        (lambda X: pc.Procrustes().set_params(rank=3), "no parameter"),
        (lambda X: pc.Procrustes().transform(X[None]), "not fitted"),
        (lambda X: pc.GramAccumulator(3, 8, missing=True).update(np.where(X > 1e9, 0, np.inf)[None]), "infinite"),
    ],
)
def test_other_refusals(X, call, reason):
    with pytest.raises(ValueError, match=reason):
        call(X)


def test_estimator(X, rng):
    Y, fresh = pc.simulate(X, 0.5, 800, rng), pc.simulate(X, 0.5, 800, rng)
    model = pc.Procrustes("gram").fit(Y)
    assert model.cloud_ == pytest.approx(pc.fit(Y, "gram").X) and model.sigma_ == model.result_.sigma
    assert model.gram_ == pytest.approx(model.cloud_.T @ model.cloud_)
    assert model.transform(fresh) == pytest.approx(model.result_.transform(fresh))
    assert pc.Procrustes("gram").fit_transform(Y) == pytest.approx(model.transform(Y))
    assert repr(model).startswith("Procrustes(method='gram', sigma=None")
    assert 0.9 < model.score(fresh) < 1
    model.result_ = pc.fit(Y * 1.1, "gram")
    assert model.score(fresh) < 0.97, "a cloud of the wrong size scores less"
    shifted = pc.Procrustes("gram", center=True).fit(Y + 3)
    assert 0.9 < shifted.score(fresh - 5) < 1


def test_estimator_among_those_of_scikit_learn(X, rng):
    pytest.importorskip("sklearn")
    from sklearn.base import clone
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline

    Y = pc.simulate(X, 0.3, 300, rng)
    copy = clone(pc.Procrustes("gram", center=True, sigma=0.3))
    assert copy.get_params() == pc.Procrustes("gram", center=True, sigma=0.3).get_params()
    scores = cross_val_score(pc.Procrustes("gram"), Y, cv=3)
    assert len(scores) == 3 and (scores > 0.9).all()
    assert make_pipeline(pc.Procrustes("gram")).fit(Y).transform(Y[:4]).shape == (4, 3, 8)


def test_import_needs_no_scikit_learn():
    code = "import sys; from bmsdp.applications.procrustes import Procrustes; print('sklearn' in sys.modules, 'numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == ["False", "False"]
