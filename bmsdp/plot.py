"""Pictures of a run (floor L8); needs matplotlib, ``pip install "bmsdp[plot]"``."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from .result import Result

INK, MERIT, GRADIENT, PROOF = "#3b3b3b", "#0b5394", "#c77c11", "#1b7f4d"
POINTS = 4000  # of a curve; more would not show


def require() -> Any:
    """The matplotlib package, or an ImportError that says how to get it."""
    try:
        import matplotlib.backend_bases
        import matplotlib.figure
    except ImportError:
        raise ImportError('pictures need matplotlib: pip install "bmsdp[plot]"') from None
    return matplotlib


def check(path: str | os.PathLike[str]) -> None:
    """Refuse a path whose ending is no picture format: ImportError without matplotlib, else ValueError."""
    known = sorted(require().backend_bases.FigureCanvasBase.get_supported_filetypes())
    ending = os.path.splitext(os.fspath(path))[1][1:].lower()
    if ending not in known:
        raise ValueError(f"{os.fspath(path)}: .{ending} is no picture format; known are {', '.join(known)}; use .png")


def convergence(result: Result, path: str | os.PathLike[str] | None = None, ax: Any = None, *, against: str = "products") -> Any:
    """Draw how a run converged: distance to the final bound, gradient norm, certificates, ranks.

    Parameters
    ----------
    result : Result
        Of `bmsdp.solve` or `bmsdp.minimize`, loaded ones included.  Without a finite bound the distance is to the lowest merit.
    path : path-like, optional
        File to write; its ending tells the format (.png, .pdf, .svg, ...).
    ax : matplotlib Axes, optional
        Where to draw; a figure of its own otherwise, independent of pyplot and of any screen.
    against : {"products", "time"}
        The abscissa: products with C (a mixing sweep counts as one), or seconds.

    Returns
    -------
    matplotlib Figure
        Its vertical axis is logarithmic and dimensionless: ``(merit - bound) / max(|cost|, |bound|)``, and the gradient norm
        divided by its largest value.

    Raises
    ------
    ImportError
        Without matplotlib.
    ValueError
        If the result has no history, or ``against`` is none of its choices.
    """
    if against not in ("products", "time"):
        raise ValueError(f'against = {against!r}; it must be "products" or "time"')
    if not len(result.history.get("merit", ())):
        raise ValueError("the result has no history to draw: it stopped before its first iterate; allow it more time")
    matplotlib = require()
    figure = matplotlib.figure.Figure(figsize=(7.6, 4.4), dpi=150, layout="constrained") if ax is None else ax.figure
    ax = figure.add_subplot() if ax is None else ax
    _frame(ax, result, against)
    _curves(ax, result, against)
    _certificates(ax, result, against)
    _ranks(ax, result, against)
    _legend(ax)
    if path is not None:
        figure.savefig(path)
    return figure


def _frame(ax: Any, result: Result, against: str) -> None:
    known = f" ({result.certificate.gap_rigor})" if result.certificate is not None and np.isfinite(result.gap) else ""
    gap = f"gap {result.gap:.1e}{known}" if np.isfinite(result.gap) else "no bound"
    headline = f"{result.status.name.replace('_', ' ').capitalize()}: {gap}"
    ax.set_title(headline, loc="left", fontsize=11, fontweight="bold", color=INK, pad=20)
    first = int(result.history["rank"][0])
    rank = f"rank {result.rank}" if first == result.rank else f"rank {first} to {result.rank}"
    facts = f"n = {len(result.Y):,}, {rank}, {result.products:,} products, {result.time:.3g} s"
    ax.text(0, 1.018, facts, transform=ax.transAxes, fontsize=9, color="#6b6b6b", va="bottom")
    ax.set_yscale("log")
    ax.set_xlabel("products with C" if against == "products" else "seconds", color=INK)
    ax.set_ylabel("relative, log scale", color=INK)
    ax.grid(True, which="major", color="#e6e6e6", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#9a9a9a")
    ax.tick_params(which="both", color="#9a9a9a", labelcolor=INK, labelsize=9)
    ax.margins(y=0.09)
    if against == "products":
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _distance(result: Result) -> tuple[np.ndarray, str]:
    """How far every iterate is above the final bound, relatively, and what to call it; nan where it is not above."""
    merit = result.history["merit"]
    proved = np.isfinite(result.bound)
    reference = result.bound if proved else float(np.nanmin(merit))
    scale = max(abs(result.cost), abs(reference)) or 1.0
    distance = (merit - reference) / scale
    return np.where(distance > 0, distance, np.nan), "cost above the final bound" if proved else "cost above the lowest met"


def _curves(ax: Any, result: Result, against: str) -> None:
    x = result.history[against]
    distance, name = _distance(result)
    gradient = np.where(result.history["grad_norm"] > 0, result.history["grad_norm"], np.nan)
    gradient = gradient / np.nanmax(gradient) if np.isfinite(gradient).any() else gradient
    shown = np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS)).astype(int))
    dots = {"marker": "o", "markersize": 3} if len(x) < 3 else {}  # a line needs two points to show
    ax.plot(x[shown], gradient[shown], color=GRADIENT, linewidth=1.3, label="gradient norm / largest", **dots)
    ax.plot(x[shown], distance[shown], color=MERIT, linewidth=2.0, label=name, **dots)


def _certificates(ax: Any, result: Result, against: str) -> None:
    """Where a certificate was asked for: a dot at its gap, or a tick at the foot where nothing was proved."""
    stages = result.options.get("stages", [])
    proved = [stage for stage in stages if 0 < stage["gap"] < np.inf]
    failed = [stage[against] for stage in stages if not np.isfinite(stage["gap"])]
    if failed:
        foot = np.full(len(failed), 0.02)
        style = {"marker": "|", "markersize": 9, "markeredgewidth": 1.4, "linestyle": "none", "color": "#8a8a8a"}
        ax.plot(failed, foot, transform=ax.get_xaxis_transform(), label="looked: not proved yet", **style)
    if proved:
        style = {"marker": "D", "markersize": 6.5, "linestyle": "none", "color": PROOF, "markeredgecolor": "white", "zorder": 5}
        ax.plot([stage[against] for stage in proved], [stage["gap"] for stage in proved], label="certified gap", **style)
    for stage in proved[-1:]:
        place = {"xytext": (-9, -3), "textcoords": "offset points", "ha": "right", "va": "top"}
        ax.annotate(f"{stage['gap']:.1e}", (stage[against], stage["gap"]), color=PROOF, fontsize=9, fontweight="bold", **place)
    tol = result.options.get("tol")
    if proved and tol:
        ax.axhline(tol, color=PROOF, linewidth=0.9, linestyle=(0, (5, 3)), zorder=1, label=f"tol = {tol:g}")


def _ranks(ax: Any, result: Result, against: str) -> None:
    """A thin vertical line wherever the number of columns changed, with the new one."""
    x, rank = result.history[against], result.history["rank"].astype(int)
    changes = np.flatnonzero(np.diff(rank)) + 1
    span, last = (x[-1] - x[0]) or 1.0, -np.inf
    for i in changes:
        ax.axvline(x[i], color="#b9b9b9", linewidth=0.9, linestyle=":", zorder=0)
        if x[i] - last > 0.05 * span:  # labels closer than that would overlap
            place = {"transform": ax.get_xaxis_transform(), "fontsize": 8, "color": "#6b6b6b", "va": "top"}
            ax.text(x[i], 0.99, f" rank {rank[i]}", **place)
            last = x[i]


def _legend(ax: Any) -> None:
    handles, names = ax.get_legend_handles_labels()
    ax.legend(handles, names, fontsize=8.5, frameon=True, framealpha=0.9, edgecolor="none", labelcolor=INK, loc="best")


def trajectory(graph: Any, poses: Any, path: str | os.PathLike[str] | None = None, *, before: Any = None, figure: Any = None) -> Any:
    """Draw a pose graph before and after `bmsdp.applications.slam.solve`, in the plane or in space.

    Parameters
    ----------
    graph : PoseGraph
    poses : Poses
    path : path-like, optional
        File to write; its ending tells the format.
    before : (n, d) array, optional
        Positions to compare with; those given with the graph by default, or what measurements along a tree add up to.
    figure : matplotlib Figure, optional
        Where to draw; one of its own otherwise, independent of pyplot and of any screen.

    Returns
    -------
    matplotlib Figure
        Two panels: measurements between successive poses dark, others (loop closures) light.

    Raises
    ------
    ImportError
        Without matplotlib.
    """
    matplotlib = require()
    name = "before"
    if before is None and graph.poses is not None:
        before, name = graph.poses[1], "before: as given"
    elif before is None:
        from .applications.slam import dead_reckoning

        before, name = dead_reckoning(graph)[1], "before: dead reckoning"
    figure = matplotlib.figure.Figure(figsize=(9.6, 4.8), dpi=150, layout="constrained") if figure is None else figure
    after = f"after: objective {poses.objective:.6g}, gap {poses.gap:.1e} ({poses.rigor})"
    for place, (t, title) in enumerate(((np.asarray(before, float), name), (poses.t, after)), 1):
        ax = figure.add_subplot(1, 2, place, **({"projection": "3d"} if graph.d == 3 else {}))
        _poses(ax, graph, t)
        ax.set_title(title, loc="left", fontsize=10, color=INK)
    figure.suptitle(f"{graph.n:,} poses, {graph.m:,} measurements", x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
    if path is not None:
        figure.savefig(path)
    return figure


def _poses(ax: Any, graph: Any, t: np.ndarray) -> None:
    """The edges of a graph as lines, all of one scale."""
    i, j = graph.edges.T
    near = np.abs(i - j) == 1
    lines = np.stack([t[i], t[j]], axis=1)
    low, high = t.min(axis=0), t.max(axis=0)
    if graph.d == 3:
        from mpl_toolkits.mplot3d.art3d import Line3DCollection as Lines  # type: ignore[import-untyped]
    else:
        from matplotlib.collections import LineCollection as Lines
    for which, color, width in ((~near, GRADIENT, 0.4), (near, MERIT, 0.9)):
        if which.any():
            ax.add_collection(Lines(lines[which], colors=color, linewidths=width, alpha=0.6 if color == GRADIENT else 1.0))
    spans = np.maximum(high - low, 1e-3 * max(float((high - low).max()), 1e-12))
    for axis, a, span in zip("xyz", low, spans, strict=False):
        getattr(ax, f"set_{axis}lim")(a - 0.03 * span, a + 1.03 * span)
    if graph.d == 3:
        ax.set_box_aspect(np.maximum(spans, 0.15 * spans.max()))
        ax.tick_params(labelsize=7, pad=-2)
    else:
        ax.set_aspect("equal")
        ax.grid(True, color="#e6e6e6", linewidth=0.7)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(color="#9a9a9a", labelcolor=INK, labelsize=8)
