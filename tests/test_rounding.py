from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from scipy import sparse

from bmsdp import gallery
from bmsdp.rounding import cut_value, hyperplane, local_search, phases


def unit_rows(n, k, rng, complex_=False):
    Y = rng.standard_normal((n, k)) + (1j * rng.standard_normal((n, k)) if complex_ else 0)
    return Y / np.linalg.norm(Y, axis=1, keepdims=True)


def test_hyperplane_is_the_sign_of_a_gaussian_combination():
    Y = unit_rows(20, 3, np.random.default_rng(0))
    G = np.random.default_rng(1).standard_normal((7, 3))
    X = np.array(list(hyperplane(Y, 1, 7)))
    assert X.dtype == np.int8 and np.array_equal(X, np.sign(G @ Y.T))


def test_sign_of_zero_and_phase_of_zero_are_one():
    assert next(hyperplane(np.zeros((3, 2)), 0)).tolist() == [1, 1, 1]
    assert next(phases(np.zeros((3, 2)), 0)).tolist() == [1, 1, 1]


@pytest.mark.parametrize("rounding", [hyperplane, phases])
def test_rounding_depends_on_seed_and_not_on_batch(rounding):
    Y = unit_rows(50, 4, np.random.default_rng(0))
    draw = lambda seed, **options: np.array(list(rounding(Y, seed, 10, **options)))  # noqa: E731
    assert np.array_equal(draw(3), draw(np.random.default_rng(3)))
    assert np.allclose(draw(3, batch=1), draw(3, batch=7), atol=1e-13)
    assert not np.array_equal(draw(3), draw(4))
    assert len(draw(3)) == 10 and not list(rounding(Y, 3, 0))


def test_hyperplane_probability_is_the_angle():
    angle = 0.7
    Y = np.array([[1, 0], [np.cos(angle), np.sin(angle)]])
    apart = np.mean([x[0] != x[1] for x in hyperplane(Y, 0, 20000)])
    assert abs(apart - angle / np.pi) < 0.01


def test_phases_have_modulus_one_and_turn_with_the_rows():
    Y = unit_rows(30, 2, np.random.default_rng(0), complex_=True)
    turn = np.exp(1j * np.arange(30))
    for u, v in zip(phases(Y, 5, 5), phases(turn[:, None] * Y, 5, 5), strict=True):
        assert np.allclose(abs(u), 1, atol=1e-15) and np.allclose(turn * u, v)
    assert np.allclose(next(phases(turn[:, None], 0)) / turn, next(phases(turn[:, None], 0))[0])


def test_complex_rows_have_no_signs():
    with pytest.raises(ValueError, match="phases"):
        next(hyperplane(np.ones((3, 1), dtype=complex)))


@pytest.mark.parametrize("form", [sparse.csr_array, sparse.csc_matrix, sparse.coo_array, lambda W: W.toarray()])
def test_cut_value_is_the_formula(form):
    W = gallery.toroidal_grid(5, 6, 0, weights="gaussian")
    x = next(hyperplane(np.eye(30), 0))
    formula = np.sum(W.toarray() * (1 - np.outer(x, x))) / 4
    assert abs(cut_value(form(W), x) - formula) < 1e-12
    assert cut_value(form(W), -x) == cut_value(form(W), x.astype(float)) == cut_value(form(W), x)


def test_cut_value_is_correctly_rounded():
    W = gallery.wide_weights(80, 0.3, 30, 0)
    x = next(hyperplane(np.eye(80), 0))
    A = sparse.triu(W).tocoo()
    exact = sum(Fraction(w) for i, j, w in zip(A.row, A.col, A.data, strict=True) if x[i] != x[j])
    assert cut_value(W, x) == float(exact)
    big = sparse.csr_array(np.array([[0, 2.0**52, 1], [2.0**52, 0, 1], [1, 1, 0]]))
    assert cut_value(big, np.array([1, -1, 1])) == 2**52 + 1


def test_local_search_leaves_its_input_and_no_improving_flip():
    W = gallery.toroidal_grid(8, 8, 0)
    x = next(hyperplane(np.eye(64), 0))
    before = x.copy()
    y = local_search(W, x)
    assert np.array_equal(x, before) and np.all(y * (W @ y) <= 0)
    assert cut_value(W, y) >= cut_value(W, x)
    assert np.array_equal(y, local_search(W.toarray(), x))


def test_local_search_never_passes_the_maximum():
    W = gallery.wide_weights(10, 0.6, 3, 1)
    maximum = max(cut_value(W, np.array([1, *x])) for x in product([-1, 1], repeat=9))
    found = [cut_value(W, local_search(W, x)) for x in hyperplane(np.eye(10), 0, 50)]
    assert max(found) == maximum
