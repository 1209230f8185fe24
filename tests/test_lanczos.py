import numpy as np
import pytest

from bmsdp import lanczos as module
from bmsdp.lanczos import lanczos

FAILURE = 0.05
KINDS = pytest.mark.parametrize("dtype", [np.float64, np.complex128])


def diagonal(d):
    return lambda v: d * v


def hermitian(rng, n, dtype):
    A = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if dtype == np.complex128 else 0)
    return (A + A.conj().T) / np.sqrt(8 * n)


def orthonormal(rng, n, r, dtype):
    A = rng.standard_normal((n, r)) + (1j * rng.standard_normal((n, r)) if dtype == np.complex128 else 0)
    return np.linalg.qr(A)[0]


def chebyshev(n):
    """Nodes of [-1, 1] with an isolated bottom eigenvalue: hard for Lanczos."""
    return np.append(np.cos(np.pi * (np.arange(n - 1) + 0.5) / (n - 1)), -1.05)


SPECTRA = {
    "chebyshev, isolated bottom": chebyshev(200),
    "uniform": np.linspace(0, 1, 200),
    "clustered bottom": np.linspace(0, 1, 200) ** 3,
    "both ends": np.concatenate([[-3.0], np.linspace(-1, 1, 198), [5.0]]),
    "nearly singular": np.append(np.zeros(180), [1e-9, 1, 2]) + 0.0,
}


@KINDS
@pytest.mark.parametrize("steps", [16, 32])
@pytest.mark.parametrize("name", SPECTRA)
def test_bound_fails_as_rarely_as_promised(name, steps, dtype):
    """Theory, fact 22: violations at most ``failure`` over 200 seeds."""
    d = SPECTRA[name]
    bounds = [
        lanczos(diagonal(d), len(d), np.dtype(dtype), np.random.default_rng(seed), steps).lower_bound(FAILURE)
        for seed in range(200)
    ]
    assert np.mean(np.array(bounds) > d.min()) <= FAILURE
    assert steps < 32 or np.isfinite(bounds).all()


def test_bound_tightens_with_the_steps():
    d = chebyshev(400)
    errors = []
    for steps in (16, 32, 64, 128, 256):
        bounds = [
            lanczos(diagonal(d), 400, np.dtype(float), np.random.default_rng(s), steps).lower_bound(FAILURE) for s in range(5)
        ]
        errors.append(d.min() - np.median(bounds))
    assert np.all(np.diff(errors[1:]) < 0) and 0 <= errors[-1] < 1e-2 * np.ptp(d)


def test_bound_respects_the_failure_probability():
    ritz = lanczos(diagonal(chebyshev(400)), 400, np.dtype(float), np.random.default_rng(0), 60)
    bounds = [ritz.lower_bound(failure) for failure in (0.1, 1e-3, 1e-9)]
    assert bounds[0] > bounds[1] > bounds[2]
    few = lanczos(diagonal(chebyshev(400)), 400, np.dtype(float), np.random.default_rng(0), 3)
    assert few.lower_bound(1e-9) == -np.inf


@KINDS
def test_all_steps_give_the_spectrum(dtype, rng):
    A = hermitian(rng, 30, dtype)
    ritz = lanczos(lambda v: A @ v, 30, np.dtype(dtype), rng, 100, vectors=4)
    exact, V = np.linalg.eigh(A)
    assert ritz.exhausted and ritz.steps == 30 and ritz.dimension == (60 if dtype == np.complex128 else 30)
    np.testing.assert_allclose(ritz.values, exact, atol=1e-12)
    np.testing.assert_allclose(np.abs(np.sum(ritz.vectors.conj() * V[:, :4], axis=0)), 1, atol=1e-10)
    bound = ritz.lower_bound(FAILURE)
    assert bound <= exact[0] + 1e-15 and bound >= exact[0] - 1e-12


@KINDS
def test_ritz_pairs(dtype, rng):
    """Rayleigh quotients of unit vectors, with the residuals that are said."""
    A = hermitian(rng, 120, dtype)
    ritz = lanczos(lambda v: A @ v, 120, np.dtype(dtype), rng, 40, vectors=3)
    V = ritz.vectors
    assert V.shape == (120, 3) and not ritz.exhausted and np.all(np.diff(ritz.values) >= 0)
    np.testing.assert_allclose(V.conj().T @ V, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.sum(V.conj() * (A @ V), axis=0).real, ritz.values[:3], atol=1e-12)
    residuals = np.linalg.norm(A @ V - V * ritz.values[:3], axis=0)
    np.testing.assert_allclose(ritz.residuals, residuals, atol=1e-11)
    assert ritz.values[0] >= np.linalg.eigvalsh(A)[0] - 1e-12


@KINDS
def test_deflation(dtype, rng):
    """Values and vectors belong to the complement; the deflated part is never seen."""
    A, Q = hermitian(rng, 50, dtype), orthonormal(rng, 50, 7, dtype)
    P = np.eye(50) - Q @ Q.conj().T
    ritz = lanczos(lambda v: A @ v, 50, np.dtype(dtype), rng, 100, deflate=Q, vectors=2)
    W = np.linalg.svd(P)[0][:, :43]
    np.testing.assert_allclose(ritz.values, np.linalg.eigvalsh(W.conj().T @ A @ W), atol=1e-11)
    np.testing.assert_allclose(Q.conj().T @ ritz.vectors, 0, atol=1e-12)
    assert ritz.exhausted and ritz.dimension == (86 if dtype == np.complex128 else 43)


@KINDS
def test_deflation_of_a_null_space(dtype, rng):
    """The use it is made for: S with a null space as large as rank Y, and a small gap above it."""
    d = np.concatenate([np.zeros(6), np.linspace(1e-2, 1, 194)])
    B = orthonormal(rng, 200, 200, dtype)
    A = B * d @ B.conj().T
    for seed in range(50):
        ritz = lanczos(lambda v: A @ v, 200, np.dtype(dtype), np.random.default_rng(seed), 60, deflate=B[:, :6])
        assert ritz.values[0] >= 1e-2 - 1e-12
        assert ritz.lower_bound(1e-6) <= 1e-2 + 1e-14


@KINDS
def test_deflated_bound_fails_as_rarely_as_promised(dtype):
    d = chebyshev(203)
    Q = np.eye(203, dtype=dtype)[:, [0, 100, 150]]
    bounds = [
        lanczos(diagonal(d), 203, np.dtype(dtype), np.random.default_rng(s), 24, deflate=Q).lower_bound(FAILURE)
        for s in range(200)
    ]
    assert np.mean(np.array(bounds) > -1.05) <= FAILURE


@KINDS
@pytest.mark.parametrize("n", [1, 2])
def test_tiny(n, dtype, rng):
    A = hermitian(rng, n, dtype)
    ritz = lanczos(lambda v: A @ v, n, np.dtype(dtype), rng, 10, vectors=3)
    np.testing.assert_allclose(ritz.values, np.linalg.eigvalsh(A), atol=1e-14)
    assert ritz.exhausted and ritz.vectors.shape == (n, n)
    assert -1e-12 <= ritz.lower_bound(FAILURE) - ritz.values[0] <= 0


@KINDS
def test_one_free_dimension(dtype, rng):
    A, B = hermitian(rng, 5, dtype), orthonormal(rng, 5, 5, dtype)
    ritz = lanczos(lambda v: A @ v, 5, np.dtype(dtype), rng, 10, deflate=B[:, :4])
    np.testing.assert_allclose(ritz.values, [np.vdot(B[:, 4], A @ B[:, 4]).real], atol=1e-13)
    assert ritz.exhausted


@pytest.mark.parametrize(
    "Q", [np.eye(3), np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]], ids=["eye", "rotation"]
)
def test_nothing_left(Q, rng):
    with pytest.raises(ValueError, match="whole space"):
        lanczos(lambda v: v, len(Q), np.dtype(float), rng, 10, deflate=Q)


@pytest.mark.parametrize("c", [0.0, 1.0, -3.0])
def test_multiples_of_the_identity_are_exhausted_at_once(c, rng):
    ritz = lanczos(lambda v: c * v, 40, np.dtype(float), rng, 20)
    assert ritz.exhausted and ritz.steps <= 2
    assert abs(ritz.lower_bound(FAILURE) - c) <= 5e-12 and ritz.lower_bound(FAILURE) <= c


def test_repeated_eigenvalues(rng):
    """Three distinct eigenvalues: the Krylov space is invariant after three steps."""
    d = np.repeat([0.0, 1.0, 2.0], 20)
    ritz = lanczos(diagonal(d), 60, np.dtype(float), rng, 40)
    assert ritz.exhausted and ritz.steps <= 5
    np.testing.assert_allclose(ritz.lower_bound(FAILURE), 0, atol=5e-12)


def test_enough_ends_it_early(rng):
    seen = []

    def enough(ritz):
        seen.append(ritz.steps)
        return ritz.steps >= 128

    d = chebyshev(1000)
    ritz = lanczos(diagonal(d), 1000, np.dtype(float), rng, 900, enough=enough)
    assert ritz.steps == 128 == seen[-1] and seen[0] == 64 and seen == sorted(seen)


def test_without_storage(rng, monkeypatch):
    """No reorthogonalisation, no vectors; the values stay inside the spectrum and the bound stays a bound."""
    monkeypatch.setattr(module, "BASIS_LIMIT", 0)
    d = chebyshev(300)
    bounds = []
    for seed in range(50):
        ritz = lanczos(diagonal(d), 300, np.dtype(float), np.random.default_rng(seed), 200)
        assert ritz.vectors.size == 0 and ritz.values[0] >= -1.05 - 1e-12 and ritz.values[-1] <= 1 + 1e-12
        bounds.append(ritz.lower_bound(FAILURE))
    assert np.mean(np.array(bounds) > -1.05) <= FAILURE


@KINDS
@pytest.mark.parametrize("steps", [1, 2, 40, 200])
def test_vectors_without_storage(steps, dtype, monkeypatch):
    """``again=True`` runs the recurrence twice: the vectors of the stored run, up to what a lost orthogonality costs."""
    A = hermitian(np.random.default_rng(0), 300, dtype)
    A = A - 3 * np.outer(A[0], A[0].conj()) / np.linalg.norm(A[0]) ** 2  # one isolated eigenvalue
    A, seen = (A + A.conj().T) / 2, []

    def mul(v):
        seen.append(1)
        return A @ v

    def run(**keywords):
        seen.clear()
        return lanczos(mul, 300, np.dtype(dtype), np.random.default_rng(1), steps, vectors=3, **keywords), len(seen)

    (stored, once), (same, as_often) = run(), run(again=True)
    assert once == as_often == steps and np.array_equal(stored.vectors, same.vectors)
    monkeypatch.setattr(module, "BASIS_LIMIT", 0)
    (bare, again), (none, single) = run(again=True), run()
    assert again == 2 * steps and single == steps and none.vectors.size == 0 and bare.steps == steps
    assert bare.vectors.shape == stored.vectors.shape == (300, min(3, steps))
    np.testing.assert_allclose(np.linalg.norm(bare.vectors, axis=0), 1, rtol=1e-12)
    v = bare.vectors[:, 0]
    assert np.vdot(v, A @ v).real == pytest.approx(bare.values[0], abs=1e-8)
    assert np.linalg.norm(A @ v - bare.values[0] * v) <= bare.residuals[0] + 1e-5  # 1e-7 to 1e-6, by processor and BLAS
    assert bare.values[0] == pytest.approx(stored.values[0], abs=1e-10)
    assert abs(np.vdot(v, stored.vectors[:, 0])) == pytest.approx(1, abs=1e-8)


@KINDS
def test_deflated_vectors_without_storage(dtype, rng, monkeypatch):
    monkeypatch.setattr(module, "BASIS_LIMIT", 0)
    A, Q = hermitian(rng, 80, dtype), orthonormal(rng, 80, 5, dtype)
    ritz = lanczos(lambda v: A @ v, 80, np.dtype(dtype), rng, 75, deflate=Q, again=True)
    W = np.linalg.svd(np.eye(80) - Q @ Q.conj().T)[0][:, :75]
    lowest, V = np.linalg.eigh(W.conj().T @ A @ W)
    v = ritz.vectors[:, 0]
    np.testing.assert_allclose(Q.conj().T @ v, 0, atol=1e-8)
    assert ritz.values[0] == pytest.approx(lowest[0], abs=1e-6) and abs(np.vdot(v, W @ V[:, 0])) == pytest.approx(1, abs=1e-4)


def test_vectors_of_an_invariant_space_without_storage(rng, monkeypatch):
    """Ended by invariance, with a multiple of the identity and three eigenvalues."""
    monkeypatch.setattr(module, "BASIS_LIMIT", 0)
    for d in (np.full(40, 2.0), np.repeat([0.0, 1.0, 2.0], 20)):
        ritz = lanczos(diagonal(d), len(d), np.dtype(float), rng, 30, again=True)
        v = ritz.vectors[:, 0]
        assert np.linalg.norm(v) == pytest.approx(1) and v @ (d * v) == pytest.approx(d[0], abs=1e-8)


def test_start_streams():
    """A seed's start is not the factor that the same seed draws; a Generator goes on where it is."""
    for seed in (0, 5, 2**70):
        n = 50
        Y, q = np.random.default_rng(seed).standard_normal(n), module.start_rng(seed).standard_normal(n)
        assert not np.isin(q, Y).any() and np.array_equal(q, module.start_rng(seed).standard_normal(n))
    rng = np.random.default_rng(0)
    assert module.start_rng(rng) is rng
    assert not np.array_equal(module.start_rng(None).standard_normal(3), module.start_rng(None).standard_normal(3))


def test_same_seed_same_result():
    runs = [lanczos(diagonal(chebyshev(100)), 100, np.dtype(float), np.random.default_rng(3), 30) for _ in range(2)]
    assert np.array_equal(runs[0].values, runs[1].values)
    assert runs[0].lower_bound(0.01) == runs[1].lower_bound(0.01)


def test_scaling_is_exact():
    d = chebyshev(100)
    one, two = (lanczos(diagonal(s * d), 100, np.dtype(float), np.random.default_rng(3), 30).values for s in (1.0, 2.0**20))
    np.testing.assert_allclose(2.0**20 * one, two, rtol=1e-12)
