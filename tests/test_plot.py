"""The convergence picture: what it shows is what the history and the certificates say."""

import dataclasses
import io
import sys

import numpy as np
import pytest

import bmsdp
from bmsdp import cli, gallery, plot
from bmsdp.io.rudy import write_rudy

matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def result():
    """A run of several certificates that grows from rank 2."""
    C = gallery.goe(60, rng=0)
    return bmsdp.solve(C, warm_start=bmsdp.solve(C, rank=2, rng=0), rng=1)


def lines(figure):
    return {line.get_label(): line for line in figure.axes[0].get_lines()}


def test_the_curves_are_the_history(result):
    drawn = lines(plot.convergence(result))
    x, y = drawn["cost above the final bound"].get_data()
    scale = max(abs(result.cost), abs(result.bound))
    np.testing.assert_array_equal(x, result.history["products"])
    np.testing.assert_allclose(y, (result.history["merit"] - result.bound) / scale)
    gradient = result.history["grad_norm"]
    np.testing.assert_allclose(drawn["gradient norm / largest"].get_ydata(), gradient / gradient.max())


@pytest.mark.parametrize("against", ["products", "time"])
def test_certificates_and_ranks_are_marked(result, against):
    figure = plot.convergence(result, against=against)
    ax, drawn, stages = figure.axes[0], lines(figure), result.options["stages"]
    proved = [stage for stage in stages if np.isfinite(stage["gap"])]
    assert proved and len(stages) > len(proved)
    x, y = drawn["certified gap"].get_data()
    assert list(x) == [stage[against] for stage in proved] and y[-1] == pytest.approx(result.gap)
    assert list(drawn["looked: not proved yet"].get_xdata()) == [stage[against] for stage in stages if stage not in proved]
    texts = [text.get_text() for text in ax.texts]
    assert any(f"rank {result.rank}" in text for text in texts) and f"{proved[-1]['gap']:.1e}" in texts
    assert ax.get_yscale() == "log" and ax.get_title(loc="left").startswith("Certified: gap") and "rank 2 to" in texts[0]


def test_written_without_pyplot(result, tmp_path):
    for name, magic in {"a.png": b"\x89PNG", "b.svg": b"<?xml", "c.pdf": b"%PDF"}.items():
        plot.convergence(result, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(magic)
    assert not getattr(sys.modules.get("matplotlib.pyplot"), "get_fignums", list)()


def test_axes_of_the_caller(result):
    figure = matplotlib.figure.Figure()
    ax = figure.add_subplot()
    assert plot.convergence(result, ax=ax) is figure and len(figure.axes) == 1 and ax.get_lines()


def test_results_without_bound_history_or_progress(result, tmp_path):
    C = gallery.goe(20, rng=0)
    unproved = bmsdp.solve(C, certify=None, rng=0)
    assert "cost above the lowest met" in lines(plot.convergence(unproved))
    zero = bmsdp.solve(np.zeros((3, 3)), rng=0)
    for odd in (
        unproved,
        zero,
        bmsdp.minimize(bmsdp.Problem(C, bmsdp.Oblique(np.ones(20))), bmsdp.solvers.LBFGS(), rank=4, rng=0),
    ):
        plot.convergence(odd, io.BytesIO())
    unproved.save(tmp_path / "r.npz")
    plot.convergence(bmsdp.Result.load(tmp_path / "r.npz"), io.BytesIO())
    with pytest.raises(ValueError, match="no history"):
        plot.convergence(dataclasses.replace(result, history={name: column[:0] for name, column in result.history.items()}))
    with pytest.raises(ValueError, match="against"):
        plot.convergence(result, against="rank")


def test_long_histories_are_thinned(result):
    long = {name: np.resize(column, 10**5) for name, column in result.history.items()}
    long |= {"products": np.arange(1e5), "rank": np.full(10**5, 2.0)}
    x = lines(plot.convergence(dataclasses.replace(result, history=long)))["cost above the final bound"].get_xdata()
    assert len(x) <= plot.POINTS and x[0] == 0 and x[-1] == 1e5 - 1


@pytest.fixture
def graph(tmp_path):
    write_rudy(tmp_path / "g.rud", gallery.toroidal_grid(5, 5, rng=0))
    return str(tmp_path / "g.rud")


def test_from_the_command_line(graph, tmp_path):
    assert cli.main(["solve", graph, "--plot", str(tmp_path / "p.png")]) == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_one_line_says_what_to_install(graph, tmp_path, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert cli.main(["solve", graph, "--plot", str(tmp_path / "p.png")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and 'pip install "bmsdp[plot]"' in err


@pytest.mark.parametrize("dimension", [2, 3])
def test_trajectories(tmp_path, dimension):
    """Two panels, before and after, of one line a measurement."""
    from bmsdp.applications import slam

    graph = slam.manhattan(40, 0.9, rng=0) if dimension == 2 else slam.sphere(4, 5, rng=0)
    found = slam.solve(graph, rng=0)
    figure = plot.trajectory(graph, found, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5000
    one, two = figure.axes
    assert sum(len(lines.get_segments() if dimension == 2 else lines._segments3d) for lines in two.collections) == graph.m
    assert one.get_title(loc="left") == "before: as given" and two.get_title(loc="left").startswith("after: objective")
    bare = dataclasses.replace(graph, poses=None)
    assert plot.trajectory(bare, found).axes[0].get_title(loc="left") == "before: dead reckoning"
    assert plot.trajectory(bare, found, before=found.t).axes[0].get_title(loc="left") == "before"
