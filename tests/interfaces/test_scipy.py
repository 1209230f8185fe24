"""`scipy.optimize.minimize(method=multisecant)`."""

import warnings

import numpy as np
import pytest
from scipy.optimize import OptimizeResult, OptimizeWarning, minimize, rosen, rosen_der

from bmsdp.interfaces.scipy import multisecant

FLAVOURS = ["grouped", "weighted", "frobenius"]


def quadratic(n, cond, seed):
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    C, b = (Q * np.geomspace(1, cond, n)) @ Q.T, rng.standard_normal(n)
    return lambda x: 0.5 * x @ C @ x - b @ x, lambda x: C @ x - b, np.zeros(n), np.linalg.solve(C, b)


def logistic(n, d, reg, seed):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, d)) * np.geomspace(1, 0.01, d)
    A *= np.sign(A @ rng.standard_normal(d) + 0.1 * rng.standard_normal(n))[:, None]

    def fun(x):
        return np.logaddexp(0, -A @ x).mean() + reg / 2 * x @ x

    def jac(x):
        return -A.T @ np.exp(-np.logaddexp(0, A @ x)) / n + reg * x

    return fun, jac, np.zeros(d)


def start(n):
    return np.tile([-1.2, 1.0], n // 2)


PROBLEMS = {
    "rosen2": (rosen, rosen_der, start(2)),
    "rosen10": (rosen, rosen_der, np.linspace(-1, 2, 10)),
    "rosen100": (rosen, rosen_der, start(100)),
    "quadratic": quadratic(50, 1e2, 0)[:3],
    "quadratic, ill-conditioned": quadratic(100, 1e4, 1)[:3],
    "logistic": logistic(300, 60, 1e-2, 0),
    "logistic, ill-conditioned": logistic(300, 60, 1e-5, 1),
}


def test_no_more_evaluations_than_lbfgsb():
    ratios = []
    for name, (fun, jac, x0) in PROBLEMS.items():
        ours = minimize(fun, x0, jac=jac, method=multisecant)
        theirs = minimize(fun, x0, jac=jac, method="L-BFGS-B", options={"gtol": 1e-5, "ftol": 0, "maxfun": 10**5})
        assert ours.success, name
        assert np.abs(jac(ours.x)).max() <= 1e-5
        assert ours.fun <= theirs.fun + 1e-5, name
        ratios.append(ours.nfev / theirs.nfev)
        assert ratios[-1] <= 1.25, name
    assert np.exp(np.mean(np.log(ratios))) <= 1.0


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_flavours_and_both_ways_to_call(flavour):
    fun, jac, x0, solution = quadratic(20, 30, 2)
    through = minimize(fun, x0, jac=jac, method=multisecant, options={"flavour": flavour, "gtol": 1e-8})
    direct = multisecant(fun, x0, jac=jac, flavour=flavour, gtol=1e-8)
    both = multisecant(lambda x: (fun(x), jac(x)), x0, jac=True, flavour=flavour, gtol=1e-8)
    memoized = minimize(lambda x: (fun(x), jac(x)), x0, jac=True, method=multisecant, options={"flavour": flavour, "gtol": 1e-8})
    for result in (through, direct, both, memoized):
        assert isinstance(result, OptimizeResult)
        np.testing.assert_array_equal(result.x, through.x)
        assert (result.nfev, result.njev, result.nit) == (through.nfev, through.njev, through.nit)
    np.testing.assert_allclose(through.x, solution, atol=1e-7)
    np.testing.assert_array_equal(through.jac, jac(through.x))
    assert through.fun == fun(through.x)
    assert (through.status, through.success) == (0, True)


def test_the_inverse_hessian_is_that_of_the_last_pairs():
    fun, jac, x0, _ = quadratic(6, 10, 3)
    result = minimize(fun, x0, jac=jac, method=multisecant, options={"gtol": 1e-10, "reg": 0.0})
    C = np.stack([jac(e) - jac(np.zeros(6)) for e in np.eye(6)])
    np.testing.assert_allclose(result.hess_inv @ np.eye(6), np.linalg.inv(C), atol=1e-3)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_it_never_rises_and_counts_honestly(flavour):
    calls, slopes, values = [], [], []

    def fun(x):
        calls.append(1)
        return rosen(x)

    def jac(x):
        slopes.append(1)
        return rosen_der(x)

    result = minimize(fun, start(6), jac=jac, method=multisecant, callback=lambda x: values.append(rosen(x)), options={"flavour": flavour})
    assert result.success
    assert (result.nfev, result.njev, result.nit) == (len(calls), len(slopes), len(values))
    values = np.array([rosen(start(6)), *values])
    assert np.all(np.diff(values) <= 2.3e-15 * values[:-1])


def test_differences_in_place_of_a_gradient():
    calls = []

    def fun(x):
        calls.append(1)
        return rosen(x)

    result = minimize(fun, start(4), method=multisecant)
    assert result.success
    np.testing.assert_allclose(result.x, 1, atol=1e-3)
    assert result.nfev == len(calls)
    assert minimize(rosen, start(4), method=multisecant, options={"maxiter": 0}).nfev == 5
    exact = minimize(rosen, start(4), jac=rosen_der, method=multisecant)
    assert result.nfev <= 1.5 * (exact.nfev + 4 * exact.njev)
    direct = multisecant(lambda x, a: float(np.sum((x - a) ** 2)), [1000.0, 0], 3.0)
    np.testing.assert_allclose(direct.x, 3, atol=1e-4)


def test_trial_points_outside_the_domain_are_backed_off_from():
    seen = []

    def fun(x):  # log barrier, nan outside
        seen.append(x.min())
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(np.sum(100 * x - np.log(x)))

    result = minimize(fun, np.array([1.0, 2.0, 3.0]), jac=lambda x: 100 - 1 / x, method=multisecant)
    assert result.success
    assert min(seen) < 0, "a step outside was tried"
    np.testing.assert_allclose(result.x, 0.01, rtol=1e-4)
    for wrong in (np.inf, -np.inf):
        result = minimize(
            lambda x, wrong=wrong: wrong if x[0] < 0 else fun(x), np.array([1.0]), jac=lambda x: 100 - 1 / x, method=multisecant
        )
        assert result.success
    infinite = minimize(
        lambda x: float(x[0] ** 2), np.array([3.0]), jac=lambda x: np.where(np.abs(x) < 1, np.nan, 2 * x), method=multisecant
    )
    assert not infinite.success
    assert np.isfinite(infinite.jac).all()


def test_statuses():
    fun, jac, x0 = rosen, rosen_der, start(10)
    few = minimize(fun, x0, jac=jac, method=multisecant, options={"maxiter": 5})
    assert (few.status, few.success, few.nit) == (1, False, 5)
    assert "iterations" in few.message
    few = minimize(fun, x0, jac=jac, method=multisecant, options={"maxfun": 7})
    assert (few.status, few.success, few.nfev) == (1, False, 7)
    assert "function evaluations" in few.message
    wrong = minimize(fun, x0, jac=lambda x: -rosen_der(x), method=multisecant)
    assert (wrong.status, wrong.success) == (2, False)
    assert wrong.fun == pytest.approx(rosen(x0), rel=1e-14)
    assert "not that of fun" in wrong.message
    undefined = minimize(lambda x: np.nan, x0, jac=jac, method=multisecant)
    assert (undefined.status, undefined.success, undefined.nfev) == (3, False, 1)
    exact = minimize(fun, np.ones(4), jac=jac, method=multisecant)
    assert (exact.status, exact.nit, exact.nfev) == (0, 0, 1)
    flat = minimize(fun, x0, jac=jac, method=multisecant, options={"ftol": 1e-2, "gtol": 0.0})
    assert flat.success
    assert "ftol" in flat.message
    full = minimize(fun, x0, jac=jac, method=multisecant, options={"gtol": 0.0, "maxiter": 2000})
    assert full.success or full.status == 2
    assert full.nit < 500
    assert np.abs(full.jac).max() < 1e-6


def test_tolerance_of_minimize_is_that_of_the_gradient():
    fun, jac, x0, _ = quadratic(30, 100, 4)
    loose = minimize(fun, x0, jac=jac, method=multisecant, tol=1e-2)
    tight = minimize(fun, x0, jac=jac, method=multisecant, tol=1e-2, options={"gtol": 1e-9})
    assert 1e-5 < np.abs(loose.jac).max() <= 1e-2
    assert np.abs(tight.jac).max() <= 1e-9
    assert loose.nit < tight.nit


def test_callbacks_of_both_kinds():
    xs, results = [], []

    def whole(*, intermediate_result):
        results.append((intermediate_result.x.copy(), intermediate_result.fun))
        intermediate_result.x[:] = np.nan

    def plain(xk):
        xs.append(xk.copy())
        xk[:] = np.nan
        if len(xs) == 4:
            raise StopIteration

    full = minimize(rosen, start(4), jac=rosen_der, method=multisecant, callback=whole)
    assert full.success
    assert len(results) == full.nit
    assert all(f == rosen(x) for x, f in results)
    stopped = minimize(rosen, start(4), jac=rosen_der, method=multisecant, callback=plain)
    assert (stopped.status, stopped.success, stopped.nit) == (99, False, 4)
    np.testing.assert_array_equal(stopped.x, xs[-1] if np.isfinite(xs[-1]).all() else results[3][0])
    assert "StopIteration" in stopped.message


def test_concave_regions_do_not_trap_it():
    """Steps grow while there is no curvature to learn from."""
    result = minimize(
        lambda x: float(-np.exp(-((x[0] - 60) ** 2) / 800)),
        [0.0],
        jac=lambda x: (x - 60) / 400 * np.exp(-((x - 60) ** 2) / 800),
        method=multisecant,
    )
    assert result.success
    assert result.x[0] == pytest.approx(60, abs=1)
    assert result.nfev < 60


def test_scales_of_function_and_variables():
    """fun -> c fun, gtol -> c gtol, from the second step on."""
    fun, jac, x0, _ = quadratic(20, 50, 5)

    def count(c):
        options = {"gtol": c * 1e-6}
        return minimize(lambda x: c * fun(x), x0, jac=lambda x: c * jac(x), method=multisecant, options=options).nfev

    counts = [count(c) for c in (1e-8, 1.0, 1e8)]
    assert max(counts) <= min(counts) + 12


def test_mutable_arguments_are_copies():
    def fun(x):
        value = float(x @ x)
        x[:] = 7
        return value

    buffer = np.empty(3)

    def jac(x):
        buffer[:] = 2 * x  # one array for all gradients
        x[:] = 7
        return buffer

    x0 = np.array([1.0, 2, 3])
    result = multisecant(fun, x0, jac=jac)
    assert result.success
    assert result.nfev <= 4
    np.testing.assert_allclose(result.x, 0, atol=1e-5)
    np.testing.assert_array_equal(x0, [1, 2, 3])
    assert multisecant(lambda x: np.array([x @ x]), [1, 2], jac=lambda x: list(2 * x)).success


def test_what_it_does_not_do_is_refused_or_told():
    fun, jac = rosen, rosen_der
    with pytest.raises(ValueError, match="bounds.*L-BFGS-B"):
        minimize(fun, start(2), jac=jac, method=multisecant, bounds=[(0, 1), (0, 1)])
    with pytest.raises(ValueError, match="constraints.*SLSQP"):
        minimize(fun, start(2), jac=jac, method=multisecant, constraints={"type": "eq", "fun": lambda x: x[0]})
    with pytest.warns(RuntimeWarning, match="hess"):
        minimize(fun, start(2), jac=jac, method=multisecant, hess=lambda x: np.eye(2))
    with pytest.warns(OptimizeWarning, match="colour"):
        minimize(fun, start(2), jac=jac, method=multisecant, options={"colour": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        minimize(fun, start(2), jac=jac, method=multisecant, options={"memory": 3, "reg": 0.0, "disp": False})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: multisecant(rosen, np.ones((2, 2)), jac=rosen_der), "x0"),
        (lambda: multisecant(rosen, [1j, 2], jac=rosen_der), "real numbers"),
        (lambda: multisecant(rosen, [np.nan, 2], jac=rosen_der), "finite"),
        (lambda: multisecant(lambda x: x, np.ones(2), jac=rosen_der), "one real number"),
        (lambda: multisecant(rosen, start(2), jac=lambda x: x[:1]), r"gradient has shape \(1,\)"),
        (lambda: multisecant(rosen, start(2), jac="3-point"), "jac = '3-point'"),
        (lambda: multisecant(rosen, start(2), jac=rosen_der, flavour="plain"), "flavour"),
        (lambda: multisecant(rosen, start(2), jac=rosen_der, memory=0), "memory"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_disp(capsys):
    multisecant(rosen, start(2), jac=rosen_der)
    assert capsys.readouterr().out == ""
    result = multisecant(rosen, start(2), jac=rosen_der, disp=True)
    assert f"nfev {result.nfev}" in capsys.readouterr().out
