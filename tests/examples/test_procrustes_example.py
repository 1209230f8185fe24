"""The example on Procrustes runs as a user runs it, and finds what the theory says."""

import csv

import pytest

pytest.importorskip("matplotlib", reason="the examples draw with matplotlib, which is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory, run_example):
    """Output and table of one small run."""
    out = tmp_path_factory.mktemp("procrustes") / "new" / "folder"
    stdout = run_example("procrustes.py", "--small", "--out", out)
    assert sorted(path.name for path in out.iterdir()) == ["procrustes.csv", "procrustes.png"]
    picture = (out / "procrustes.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and 30_000 < len(picture) < 400_000
    with open(out / "procrustes.csv", newline="") as file:
        return stdout, list(csv.DictReader(file))


def values(rows, part, quantity, column="value"):
    found = [float(row[column]) for row in rows if row["part"] == part and row["quantity"] == quantity]
    assert found
    return found


def test_noise_borne_goes_from_slope_one_half_to_one_quarter(run):
    line = next(line for line in run[0].splitlines() if "grows like" in line)
    slopes = [float(item.split()[0]) for item in line.split(":")[1].split(",")]
    assert 0.38 < slopes[0] < 0.53 and 0.22 < slopes[-1] < 0.32


def test_risk_is_the_formula_and_alignment_has_a_floor(run):
    gram, formula = (values(run[1], "risk", "gram", column) for column in ("value", "formula"))
    assert gram == pytest.approx(formula, rel=0.25)
    alignment, floor = (values(run[1], "risk", "alignment", column) for column in ("value", "formula"))
    assert alignment[:4] == pytest.approx(floor[:4], rel=0.3) and alignment[-1] > 5 * gram[-1]


def test_noise_estimate(run):
    raw, formula = (values(run[1], "sigma", "bias, raw", column) for column in ("value", "formula"))
    assert raw == pytest.approx(formula, abs=0.12)
    assert values(run[1], "sigma", "bias, corrected")[6] == pytest.approx(0, abs=0.03)


def test_relaxation_is_tight_in_low_noise_only_and_always_certified(run):
    tight, rank = values(run[1], "tightness", "tight"), values(run[1], "tightness", "rank")
    assert tight[:3] == [1, 1, 1] and tight[-1] == 0 and rank[:3] == [3, 3, 3] and rank[-1] > 4
    assert set(values(run[1], "tightness", "certified")) == {1.0}


def test_einstein_is_in_the_alignment_not_in_the_gram_matrix(run):
    assert values(run[1], "einstein", "correlation with the template")[0] > 0.95
    assert values(run[1], "einstein", "detected rank") == [0]


def test_real_copies_have_a_scree(run):
    scree = [float(row["value"]) for row in run[1] if row["part"] == "scree"]
    assert scree == sorted(scree, reverse=True) and len(scree) > 10
    assert "rank 3 detected" in run[0]


def test_streamed_copies(run_example):
    out = run_example("procrustes.py", "--stream", "--small")
    assert "20000 copies:" in out and "by gram (given were an iterator of batches)" in out
    assert float(out.split("true distance ")[1].split()[0]) < 0.1
