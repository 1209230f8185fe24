"""The comparison of quasi-Newton methods runs as a user runs it, and its numbers are those of an optimum found otherwise."""

import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

pytest.importorskip("matplotlib", reason="the example draws with matplotlib, which is not installed")
pytest.importorskip("sklearn", reason="the data come with scikit-learn, which is not installed")

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "multisecant.py"
BUDGET = 400


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("multisecant_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:  # dataclasses look their module up
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def done(tmp_path_factory, run_example):
    """What it prints, its table and its curves."""
    out = tmp_path_factory.mktemp("multisecant") / "new" / "folder"
    stdout = run_example("multisecant.py", "--quick", "--out", out)
    assert sorted(path.name for path in out.iterdir()) == ["multisecant-curves.csv", "multisecant.csv", "multisecant.png"]
    picture = (out / "multisecant.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and 50_000 < len(picture) < 400_000
    tables = []
    for name in ("multisecant.csv", "multisecant-curves.csv"):
        with open(out / name, newline="") as file:
            tables.append(list(csv.DictReader(file)))
    return stdout, *tables


def solved(rows, method, reg=None):
    return sum(int(row["tight"]) > 0 for row in rows if row["method"] == method and (reg is None or row["reg"] == reg))


def test_all_methods_are_run_and_printed(done, script):
    out, rows, curves = done
    names = {row["problem"] for row in rows}
    assert len(names) == 6
    for method in script.METHODS:
        assert out.count(f"\n{method} ") == 1 + (method in script.REGULARISED) + (method not in list(script.METHODS)[:2])
        mine = [row for row in rows if row["method"] == method]
        assert len(mine) == 6 * (2 if method in script.REGULARISED else 1)
        assert {row["problem"] for row in mine} == names == {row["problem"] for row in curves if row["method"] == method}


def test_values_fall_and_never_below_the_optimum(done):
    _, rows, curves = done
    for row in rows:
        assert 0 < float(row["gap"]) < 1 and int(row["evaluations"]) <= BUDGET and float(row["f0"]) > float(row["optimum"])
        loose, tight = int(row["loose"]), int(row["tight"])
        assert (tight > 0) == (float(row["gap"]) <= 1e-8) and (loose > 0) == (float(row["gap"]) <= 1e-4)
        assert tight == 0 or 0 < loose < tight <= int(row["evaluations"])
    for problem in {row["problem"] for row in curves}:
        for method in {row["method"] for row in curves}:
            mine = [row for row in curves if row["problem"] == problem and row["method"] == method]
            gaps, evaluations = np.array([float(row["gap"]) for row in mine]), np.array([int(row["evaluation"]) for row in mine])
            assert gaps[0] == pytest.approx(1) and evaluations[0] == 1  # all start at the same point
            assert (np.diff(gaps) <= 0).all() and (np.diff(evaluations) >= 0).all()


def test_the_symmetric_weighted_flavours_reach_what_raw_steps_do_not(done):
    _, rows, _ = done
    for method in ("weighted", "grouped"):
        assert solved(rows, method, "1e-10") == 6
    for method in ("gradient descent, 1 / L", "Frobenius II, unit steps", "Frobenius II, clipped"):
        assert solved(rows, method) <= 2
    tight = {
        method: [int(row["tight"]) or BUDGET for row in rows if row["method"] == method and row["reg"] in ("", "1e-10")]
        for method in ("grouped", "L-BFGS, SciPy", "L-BFGS, bmsdp")
    }
    means = {method: np.exp(np.mean(np.log(counts))) for method, counts in tight.items()}
    assert means["grouped"] <= 0.95 * min(means["L-BFGS, SciPy"], means["L-BFGS, bmsdp"])


def test_functions_have_the_gradient_and_the_optimum_they_say(done, script):
    _, rows, _ = done
    rng = np.random.default_rng(0)
    for problem in script.problems(quick=True):
        x, v = rng.standard_normal((2, problem.size)) / problem.size
        slope = (problem.fun(x + 1e-5 * v)[0] - problem.fun(x - 1e-5 * v)[0]) / 2e-5
        assert slope == pytest.approx(problem.fun(x)[1] @ v, rel=1e-6)
        found = minimize(problem.fun, problem.x0, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 5000})
        assert found.fun == pytest.approx(problem.optimum, rel=1e-9)
        (said,) = {float(row["optimum"]) for row in rows if row["problem"] == problem.name}
        assert said == pytest.approx(problem.optimum, rel=1e-12)
        ends = problem.fun(found.x)[1], problem.fun(found.x + 1e-3 * v)[1]  # L is a curvature bound
        assert np.linalg.norm(ends[1] - ends[0]) <= 1.0001 * problem.L * np.linalg.norm(1e-3 * v)


def test_evaluations_are_counted_alike(script):
    """A method is stopped after its budget exactly, wherever it spends it."""
    problem = script.problems(quick=True)[0]
    for name, method in script.METHODS.items():
        assert len(script.run(problem, method, 1e-10, 37)) == 37, name
