"""Problems of all kinds that a mixing network takes."""

import numpy as np
import pytest
import scipy.sparse as sp

from bmsdp import Oblique, Problem, StiefelProduct, gallery


def phased(W, rng):
    """Hermitian, the moduli of W with random phases."""
    upper = sp.triu(W, 1).tocoo()
    half = sp.coo_array((upper.data * np.exp(2j * np.pi * rng.random(upper.nnz)), upper.coords), shape=W.shape)
    return sp.csr_array(half + half.conj().T)


def make(kind, n, rng):
    ones = np.ones(n)
    if kind == "rows":
        return Problem(gallery.gnp(n, 5 / n, rng), Oblique(ones))
    if kind == "radii":
        C = gallery.gnp(n, 5 / n, rng) * 3.0 + sp.diags_array(rng.standard_normal(n))
        return Problem(C, Oblique(gallery.random_radii(n, 1, rng)))
    if kind == "dense":
        return Problem(gallery.goe(n, rng), Oblique(ones))
    if kind == "complex":
        return Problem(phased(gallery.gnp(n, 5 / n, rng), rng), Oblique(ones))
    if kind == "blocks":
        return Problem(gallery.orthogonal_synchronization(n // 3, 3, 0.5, rng, p=12 / n)[0], StiefelProduct(n // 3, 3))
    assert kind == "complex blocks"
    C = phased(gallery.orthogonal_synchronization(n // 2, 2, 0.5, rng, p=8 / n)[0], rng)
    return Problem(C, StiefelProduct(n // 2, 2, is_complex=True))


KINDS = ["rows", "radii", "dense", "complex", "blocks", "complex blocks"]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def problem():
    """``problem(kind, n, seed)``."""
    return lambda kind, n=60, seed=0: make(kind, n, np.random.default_rng(seed))
