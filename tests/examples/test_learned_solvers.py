"""The comparison of learned relaxations, as a user runs it."""

import csv
import math
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
METHODS = ["mixing", "Mixing++", "constant", "constant, oracle", "adaptive", "adaptive from 1.8", "L-BFGS", "schedule"]


@pytest.fixture(scope="module")
def done(run_example, tmp_path_factory):
    """(stdout, rows of gaps, rows of times) of the quick run without networks."""
    out = tmp_path_factory.mktemp("learned")
    stdout = run_example("learned_solvers.py", "--quick", "--train", "--out", out)
    picture = (out / "learned-solvers.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and 40_000 < len(picture) < 400_000
    tables = []
    for name in ("learned-gaps.csv", "learned-times.csv"):
        with open(out / name, newline="") as file:
            tables.append(list(csv.DictReader(file)))
    return stdout, *tables


def gaps(rows, method, L=8):
    return [float(row["gap"]) for row in rows if row["method"] == method and row["L"] == str(L)]


def geometric(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def test_everything_is_run_and_printed(done):
    out, rows, spent = done
    names = list(dict.fromkeys(row["family"] for row in rows))
    assert len(names) == 9 and {row["method"] for row in rows} == set(METHODS)
    assert len(rows) == 9 * 2 * len(METHODS) and len(spent) == 9 * (len(METHODS) - 1)
    for name in names:
        assert f"{name}: fastest to the certificate is " in out
    for method in METHODS:
        assert method in out
    assert "network" not in out.split("relative gap", 1)[1]


def test_a_tuned_constant_is_never_better_than_its_oracle(done):
    _, rows, _ = done
    for L in (4, 8):
        for tuned, oracle in zip(gaps(rows, "constant", L), gaps(rows, "constant, oracle", L), strict=True):
            assert 0 < oracle <= 1.03 * tuned  # the grids of omega differ


def test_classical_facts(done):
    """At equal sweeps over-relaxation beats plain mixing everywhere; more sweeps leave smaller gaps."""
    _, rows, _ = done
    for method in ("Mixing++", "constant", "schedule"):
        assert all(a < b for a, b in zip(gaps(rows, method), gaps(rows, "mixing"), strict=True))
    for method in METHODS:
        assert all(a < b for a, b in zip(gaps(rows, method, 8), gaps(rows, method, 4), strict=True))
    assert geometric(gaps(rows, "schedule")) <= 1.05 * geometric(gaps(rows, "constant"))


def test_all_but_slow_methods_reach_the_certificate(done):
    _, _, spent = done
    for row in spent:
        if row["method"] != "mixing":
            assert int(row["products"]) > 0 and float(row["seconds"]) > 0 and float(row["certificate"]) > 0


def test_optima_are_below_every_point(done):
    """A gap cannot be negative where f* is certified."""
    _, rows, _ = done
    assert all(float(row["gap"]) > 0 for row in rows)


def test_work_is_counted_alike():
    """A method's gap after L sweeps costs L products beyond the first."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        import learned_solvers as script
    finally:
        sys.path.remove(str(EXAMPLES))
    sample = script.FAMILIES["torus, signs"].sample(0, 16)
    for solver in (script.Mixing(omega=1.5, sweeps=1), script.Mixing(omega=1.5, sweeps=6)):
        assert script.after(solver, sample, 6) == pytest.approx(sample.run([1.5] * 6), rel=1e-10)
    assert script.after(script.LBFGS(), sample, 6) > script.after(script.LBFGS(), sample, 20) > 0
    products, _ = script.until_certified(script.Mixing(), sample)
    assert 6 < products < script.FAR and script.seconds(script.Mixing(), sample, products) > 0
