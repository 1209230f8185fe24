"""The examples of smoothed analysis run as a user runs them, and say what the theory says."""

import csv

import pytest

pytest.importorskip("matplotlib", reason="the examples draw with matplotlib, which is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory, run_example):
    """Run a script once with --small: its output and its table."""
    done = {}

    def once(script):
        if script not in done:
            out = tmp_path_factory.mktemp(script) / "new" / "folder"
            stdout = run_example(f"{script}.py", "--small", "--out", out, "--seed", 0)
            assert sorted(path.name for path in out.iterdir()) == [f"{script}.csv", f"{script}.png"]
            picture = (out / f"{script}.png").read_bytes()
            assert picture.startswith(b"\x89PNG") and 10_000 < len(picture) < 300_000
            with open(out / f"{script}.csv", newline="") as file:
                done[script] = stdout, [{key: number(value) for key, value in row.items()} for row in csv.DictReader(file)]
        return done[script]

    return once


def number(text):
    try:
        return float(text)
    except ValueError:
        return text


def rates(rows, **wanted):
    found = [row["rate"] for row in rows if all(row[key] == value for key, value in wanted.items())]
    assert found
    return found


def test_adversarial_prints_where_the_certificate_refuses_the_spurious_point(run):
    out, rows = run("adversarial")
    at_spurious = [line for line in out.splitlines() if line.endswith("RANK_TOO_SMALL")]
    assert len(at_spurious) == 4 == len({row["instance"] for row in rows})
    eig_min = [float(line.split()[-3]) for line in at_spurious]
    assert eig_min == pytest.approx([-0.4, -1, -1, -1], abs=1e-3)


def test_adversarial_staircase_always_succeeds_and_so_does_one_more_column_near_v(run):
    _, rows = run("adversarial")
    assert set(rates(rows, rank="free")) == {1.0}
    more = [row for row in rows if row["start"] == "near" and row["rank"] == row["spurious_rank"] + 1]
    assert len(more) == 16 and {row["rate"] for row in more} == {1.0}


def test_adversarial_noise_frees_the_degenerate_point_and_no_strict_one(run):
    _, rows = run("adversarial")
    assert set(rates(rows, instance="ocarroll(4)", start="at")) == {1.0}
    assert set(rates(rows, instance="ocarroll(4)", start="near", rho=1e-3)) == {1.0}
    for instance in {row["instance"] for row in rows} - {"ocarroll(4)"}:
        assert set(rates(rows, instance=instance, start="at", rho=1e-10)) == {0.0}
        assert set(rates(rows, instance=instance, start="at", rho=1e-3)) == {0.0}
        k = next(row["spurious_rank"] for row in rows if row["instance"] == instance)
        assert max(rates(rows, instance=instance, start="near", solver="trust region", rank=k)) <= 0.5


def test_smoothing_keeps_the_bounds_of_the_theorem(run):
    _, rows = run("smoothing")
    noisy = [row for row in rows if row["sigma"]]
    assert len(noisy) == 11
    for row in noisy:
        rounding = 1e-10 * abs(row["optimum"])
        assert -rounding <= row["gap"] <= row["certified_gap"] + rounding
        assert row["gap"] <= row["perturbed_gap"] + row["norm_bound"] + rounding
        assert 0 < row["norm_bound"] <= row["sigma_bound"]
        assert row["continued_status"] == "CERTIFIED" and row["continued_gap"] <= 1.1e-8 * abs(row["optimum"])
        assert (row["holds"] == "True") == (row["k"] >= row["required_rank"] and row["required_rank"] < row["n"])


def test_smoothing_starts_where_no_noise_is_stuck(run):
    _, rows = run("smoothing")
    plain = {row["instance"]: row for row in rows if not row["sigma"]}
    assert plain["ocarroll(10)"]["gap"] == pytest.approx(abs(plain["ocarroll(10)"]["optimum"]))
    assert plain["ocarroll(10)"]["continued_status"] == "RANK_TOO_SMALL"
    assert plain["goe(200)"]["continued_status"] == "CERTIFIED"
    freed = [row for row in rows if row["instance"] == "ocarroll(10)" and 0 < row["sigma"] <= 1e-3]
    assert len(freed) == 4 and all(row["gap"] <= 1e-9 for row in freed)


def test_smoothing_gap_is_quadratic_and_its_certificate_linear_in_sigma(run):
    out, _ = run("smoothing")
    slopes = [float(line.split("sigma^")[1].split()[0]) for line in out.splitlines() if "sigma^" in line]
    assert slopes == pytest.approx([2, 1], abs=0.2)
