"""Free variables, solved for in equality rows: points, duals and bounds in the caller's variables."""

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla

import bmsdp
from bmsdp import Status

from .general import Instance, check_result, clarabel, hermitian, mask_of, semidefinite, value


def unit(n, i):
    return np.diag(np.eye(n)[i])


def instance(kinds, seed, m=3, m_geq=0, is_complex=False, sees=None, above=None):
    """A strictly feasible pair with a trace row; ``sees`` (m x f) and ``above`` are the coefficients of the free variables."""
    rng = np.random.default_rng(seed)
    mask = mask_of(kinds)
    n, free = len(mask), np.repeat([kind == "free" for kind, _ in kinds], [size for _, size in kinds])
    X = semidefinite(rng, n, is_complex) * mask
    X[free, free] = rng.standard_normal(free.sum())
    A = [hermitian(rng, n, is_complex) * mask for _ in range(m)]
    G = [hermitian(rng, n, is_complex) * mask for _ in range(m_geq)]
    for rows, given in ((A, sees), (G, above)):
        for row, coefficients in zip(rows, given if given is not None else (), strict=given is not None):
            row[free, free] = coefficients
    A.append(np.diag((~free).astype(float)))
    S = semidefinite(rng, n, is_complex) * mask
    S[free, free] = 0
    C = S + sum(v * a for v, a in zip(rng.standard_normal(m + 1), A, strict=True))
    C = C + sum(v * a for v, a in zip(np.abs(rng.standard_normal(m_geq)), G, strict=True))
    return Instance(C, A, value(A, X), G, value(G, X) - 0.1 if m_geq else np.zeros(0), kinds)


CASES = {
    "one": ([("free", 1), ("psd", 4)], {}),
    "two, last": ([("psd", 4), ("free", 2)], {}),
    "in the middle": ([("psd", 3), ("free", 2), ("nonneg", 2), ("free", 1), ("psd", 2)], {"m": 4}),
    "complex": ([("psd", 4), ("free", 2)], {"is_complex": True}),
    "one row sees both": ([("free", 2), ("psd", 4)], {"sees": [[1, -1], [0, 0], [0, 0]]}),
    "dependent columns": ([("free", 3), ("psd", 4)], {"sees": [[1, 2, 1], [0.5, 1, 0.5], [-3, -6, 0]]}),
    "no row sees it": ([("free", 1), ("psd", 4)], {"sees": [[0], [0], [0]]}),
    "inequalities beside": ([("free", 2), ("psd", 4)], {"m_geq": 3}),
    "only inequalities": ([("psd", 4), ("free", 2)], {"m_geq": 3, "sees": np.zeros((3, 2))}),
    "one inequality": ([("psd", 4), ("free", 1)], {"m_geq": 1, "sees": np.zeros((3, 1)), "above": [[-2.0]]}),
    "inequalities see one of two": ([("free", 2), ("psd", 4)], {"m_geq": 2, "sees": [[1, 1], [2, 2], [0, 0]], "above": [[1, 0], [-1, 0]]}),
    "both see the same": ([("free", 2), ("psd", 4)], {"m_geq": 1, "sees": [[1, 1], [2, 2], [0, 0]], "above": [[1, 1]]}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(2))
def test_against_clarabel(name, seed):
    kinds, options = CASES[name]
    one = instance(kinds, seed, **options)
    result, reference = one.solve(rng=seed), clarabel(one)
    assert reference.status in ("optimal", "optimal_inaccurate") and result.success, (result, result.options["presolve"])
    check_result(one, result, reference.value)
    assert not result.Y[one.is_free].any() and result.free.shape == (one.is_free.sum(),)
    assert "free variables" in " ".join(result.options["presolve"])


def test_an_epigraph_by_hand():
    """min t, t - X_01 - X_01 = 0, tr X = 1: t = -1, X = [[1, -1], [-1, 1]] / 2, S = [[1, 1], [1, 1]] with duals (1, -1)."""
    A = [np.pad(-np.eye(2)[::-1], ((0, 1), (0, 1))), np.diag([1.0, 1, 0])]
    A[0][2, 2] = 1
    result = bmsdp.solve(unit(3, 2), A, [0.0, 1.0], blocks=[2, ("free", 1)], tol=1e-8, rng=0)
    assert result.success and result.cost == pytest.approx(-1, abs=1e-7) and result.free[0] == pytest.approx(-1, abs=1e-7)
    np.testing.assert_allclose(result.dual, [1, -1], atol=1e-6)
    np.testing.assert_allclose(result.X, [[0.5, -0.5, 0], [-0.5, 0.5, 0], [0, 0, -1]], atol=1e-3)
    np.testing.assert_allclose(result.slack() @ np.eye(3), [[1, 1, 0], [1, 1, 0], [0, 0, 0]], atol=1e-6)


def test_free_variables_are_as_two_nonnegative_ones():
    """``x = x+ - x-``, written out by hand."""
    one = instance([("psd", 4), ("free", 1)], 5)
    wide = lambda M: np.block([[M, np.zeros((5, 1))], [np.zeros((1, 5)), -M[4:, 4:]]])  # noqa: E731
    bound = [-np.diag([0.0] * 4 + [1, 1])]  # keeps the difference from drifting
    other = Instance(wide(one.C), [wide(a) for a in one.A], one.b, bound, np.array([-50.0]), [("psd", 4), ("nonneg", 2)])
    result, reference = one.solve(rng=0), other.solve(rng=0)
    assert result.success and reference.success and result.cost == pytest.approx(reference.cost, rel=1e-5)


def test_unbounded():
    """A free variable with a cost and no row; and two of which a difference costs."""
    C, trace = np.diag([1.0, 2, 3, -1.0]), np.diag([1.0, 1, 1, 0])
    result = bmsdp.solve(C, [trace], [1.0], blocks=[3, ("free", 1)], rng=0)
    assert result.status is Status.UNBOUNDED and result.cost == -np.inf
    Z, x = result.ray["Y"], result.ray["free"]
    cost = np.vdot(C[:3, :3], Z[:3] @ Z[:3].T) + C[3, 3] * x[0]
    assert cost == pytest.approx(-1) and np.abs(Z).max() <= 1e-6
    A = [np.diag([1.0, 1, 0, 0]), np.diag([0, 1.0, 1, 1])]
    result = bmsdp.solve(np.diag([1.0, 1, 2, 1]), A, [1.0, 1.0], blocks=[2, ("free", 2)], rng=0)
    assert result.status is Status.UNBOUNDED
    x = result.ray["free"]
    assert x[0] + x[1] == pytest.approx(0, abs=1e-9) and 2 * x[0] + x[1] == pytest.approx(-1)


def test_without_effect():
    """No cost, no row: any value will do, and 0 is given."""
    one = instance([("psd", 4), ("free", 1)], 3, sees=[[0], [0], [0]])
    result = one.solve(rng=0)
    assert result.success and result.free[0] == 0 and any("1 without effect" in note for note in result.options["presolve"])


def test_forms_of_C():
    one = instance([("psd", 4), ("free", 2)], 7)
    best = one.solve(rng=0)
    u = np.array([[1.0, 1, 1, 1, 0, 0]]).T
    low = bmsdp.LowRankPlusSparse(sp.csr_array(one.C - u @ u.T), u)
    for C in (sp.csr_array(one.C), low):
        result = bmsdp.solve(C, one.A, one.b, blocks=one.blocks, rng=0)
        assert result.success and result.cost == pytest.approx(best.cost, rel=1e-5)
    with pytest.raises(ValueError, match="free variables need the diagonal of C"):
        bmsdp.solve(spla.aslinearoperator(one.C), one.A, one.b, blocks=one.blocks, rng=0)


def test_nothing_but_free_variables():
    with pytest.raises(ValueError, match="all variables are free"):
        bmsdp.solve(np.eye(2), [np.eye(2)], [1.0], blocks=[("free", 2)])


def test_dependent_rows_of_free_variables():
    """Rows that are the same but for a factor once X is left out: what remains is a row of X alone."""
    one = instance([("psd", 4), ("free", 2)], 11, m=4, sees=[[1, 2], [2, 4], [-1, -2], [0, 0]])
    check_result(one, one.solve(rng=0), clarabel(one).value)
    double = Instance(one.C, [*one.A, one.A[0] - 2 * one.A[1]], np.r_[one.b, one.b[0] - 2 * one.b[1]], [], np.zeros(0), one.blocks)
    result = double.solve(rng=0)
    check_result(double, result, clarabel(one).value)
