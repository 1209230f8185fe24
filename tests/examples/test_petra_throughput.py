"""The throughput example runs as a user runs it, and prints a line for each way to train; how fast they are is no test."""

import re

import pytest

pytest.importorskip("torch", reason='learned solvers need torch: pip install "bmsdp[learn]"')


def test_every_way_has_its_line(run_example):
    out = run_example("petra_throughput.py", "--quick")
    rows = re.findall(r"^((?:backprop,|PETRA) .*?) +([\d.]+) +\[ *([\d.]+), +([\d.]+)\] +([\d.]+) +([\d.]+)", out, re.M)
    names = [row[0] for row in rows]
    assert names[:3] == ["backprop, 1 thread", "backprop, 2 threads inside operations", "PETRA 4 + 4, simulator"]
    splits = ("3 + 5", "4 + 4", "4 + 5, nine stages")
    assert names[3:] == [*(f"PETRA {split}, 2 threads" for split in splits), f"PETRA {splits[-1]}, 2 processes"]
    for _, middle, fastest, slowest, _, _ in rows:
        assert float(fastest) <= float(middle) <= float(slowest)
    assert float(rows[0][5]) == 1.0
    assert "load average" in out and "--quick: the layers are too small" in out
