"""The examples run as a user runs them."""

import pytest

pytest.importorskip("matplotlib", reason="the examples draw with matplotlib, which is not installed")


def test_maxcut_of_a_random_graph(tmp_path, run_example):
    out = run_example("maxcut.py", "--out", tmp_path / "new" / "folder")
    assert "CERTIFIED" in out and "(verified)" in out and "of the best" in out
    assert (tmp_path / "new" / "folder" / "maxcut-planted.png").read_bytes().startswith(b"\x89PNG")


def test_maxcut_of_a_file(tmp_path, run_example):
    path = tmp_path / "triangle.rud"
    path.write_text("3 3\n1 2 1\n2 3 1\n1 3 1\n")
    out = run_example("maxcut.py", path, "--out", tmp_path)
    assert "no cut exceeds    2.25" in out and "this cut          2 " in out
    assert (tmp_path / "maxcut-triangle.png").exists()


@pytest.mark.filterwarnings("default")
def test_readme_picture(tmp_path, run_example):
    pytest.importorskip("pymanopt", reason="the picture compares with pymanopt, which is not installed")
    out = run_example("readme_picture.py", "--side", 8, "--limit", 2, "--out", tmp_path / "picture.png")
    ours = next(line for line in out.splitlines() if line.startswith("bmsdp"))
    assert float(ours.split()[-1]) <= 1e-6
    assert (tmp_path / "picture.png").stat().st_size < 150_000
