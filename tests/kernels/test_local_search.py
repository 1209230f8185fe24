import numpy as np
import pytest
from scipy import sparse

from bmsdp import gallery
from bmsdp.kernels.local_search import flip_gain, one_flip

GRAPHS = {
    "torus": gallery.toroidal_grid(10, 12, 0),
    "gaussian": gallery.toroidal_grid(10, 12, 0, weights="gaussian"),
    "hubs": gallery.hubs(300, 0),
    "wide": gallery.wide_weights(150, 0.1, 12, 0),
    "dense": sparse.csr_array(gallery.goe(60, 0)),
    "empty": sparse.csr_array((5, 5)),
}


def run(W, x):
    return one_flip(W.indptr, W.indices, W.data, x, np.empty(x.size), np.empty(x.size))


def twin(W, x):
    """Sweep, flip what gains, until nothing does."""
    W, flips, before = W.toarray(), 0, -1
    while flips != before:
        before = flips
        for i in range(x.size):
            if x[i] * (W[i] @ x) > 1e-12 * abs(W[i]).sum():
                x[i], flips = -x[i], flips + 1
    return flips


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("dtype", [np.int8, np.float64])
def test_same_as_twin_and_one_opt(name, dtype):
    W = GRAPHS[name]
    for seed in range(5):
        x = np.random.default_rng(seed).choice([-1, 1], W.shape[0]).astype(dtype)
        y, z = x.copy(), x.copy()
        assert run(W, y) == twin(W, z)
        assert np.array_equal(y, z) and set(y) <= {-1, 1}
        assert np.all(y * (W @ y) <= 1e-12 * abs(W).sum(axis=1))
        assert run(W, y) == 0


def test_gain_and_its_error():
    W = GRAPHS["wide"]
    x = np.random.default_rng(0).choice([-1.0, 1.0], W.shape[0])
    for i in range(W.shape[0]):
        gain, error = flip_gain(W.indptr, W.indices, W.data, x, i)
        exact = x[i] * np.sum(W.toarray()[i].astype(np.longdouble) * x)
        assert abs(gain - exact) <= error <= 1e-13 * abs(W.data).max()


def test_diagonal_is_ignored():
    W = GRAPHS["gaussian"]
    x = np.random.default_rng(0).choice([-1.0, 1.0], W.shape[0])
    y = x.copy()
    assert run(W, x) == run(sparse.csr_array(W + 100 * sparse.eye_array(W.shape[0])), y)
    assert np.array_equal(x, y)


def test_bipartite_path_is_cut_in_full():
    n = 1001
    W = sparse.csr_array(sparse.diags_array([np.ones(n - 1), np.ones(n - 1)], offsets=[-1, 1]))
    x = np.ones(n, dtype=np.int8)
    run(W, x)
    assert abs(np.diff(x)).sum() / 2 >= (n - 1) / 2
