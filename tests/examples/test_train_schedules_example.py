"""The training script writes schedules that Mixing takes, and compares modes.  No time is asserted."""

import importlib.util
import runpy

import pytest

from bmsdp.solvers import Mixing


def test_schedules_are_written_as_source(run_example, tmp_path):
    path = tmp_path / "relaxations.py"
    printed = run_example("train_schedules.py", "--small", "--families", "sparse", "rotations", "--out", path)
    found = runpy.run_path(str(path))["SCHEDULES"]
    assert set(found) == {"sparse", "rotations"} and "sparse" in printed
    for schedules in found.values():
        assert {L: len(schedule) for L, schedule in schedules.items()} == {4: 4}
        assert all(1 < w < 2 for w in Mixing(schedule=schedules[4]).schedule)


def test_modes_are_compared(run_example):
    if importlib.util.find_spec("torch") is None:
        pytest.skip('learned solvers need torch: pip install "bmsdp[learn]"')
    lines = run_example("train_schedules.py", "--part", "modes", "--small").splitlines()
    start = float(lines[0].split()[1])
    gap = {tuple(line.split()[:3]): float(line.split()[3]) for line in lines[2:]}
    for mode in ("backprop", "reversible", "revstash", "buffer", "stash"):
        assert gap[mode, "1", "1e-02"] < start
    assert gap["reversible", "1", "1e-02"] == pytest.approx(gap["backprop", "1", "1e-02"], rel=1e-3)
    assert gap["revstash", "1", "1e-02"] == pytest.approx(gap["stash", "1", "1e-02"], rel=1e-3)  # T8: the same gradient
