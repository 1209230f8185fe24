"""Which of the shipped schedules suits a problem, by numbers alone; the schedules themselves are in `bmsdp.theory.relaxations`."""

from __future__ import annotations

from .relaxations import SCHEDULES

MANY = 30.0  # entries a row from which sparse and dense costs are alike
FEW = 4.5  # entries a row below which information travels slowly: tori, 3-regular graphs


def schedule(n: int, entries: float, *, complex: bool = False, L: int = 16) -> tuple[float, ...]:
    """Relaxations of the first sweeps of `bmsdp.solvers.Mixing` from random rows, ``Mixing(schedule=schedule(n, entries))``.

    Fitted to the gap after exactly that many sweeps: the last ones relax less, because nothing comes after them.

    Parameters
    ----------
    n : int
        Rows.
    entries : float
        Mean number of entries off the diagonal in a row of C.
    complex : bool
        C is complex.
    L : int
        Sweeps wanted; the longest shipped schedule with at most so many is taken, or the shortest there is.

    Returns
    -------
    tuple of float
        In (1, 2).

    Raises
    ------
    ValueError
        For numbers of no problem.
    """
    if n < 1 or not 0 <= entries <= n or L < 1:
        raise ValueError(f"n = {n}, entries = {entries}, L = {L}; needs n, L >= 1 and 0 <= entries <= n")
    dense = entries >= min(MANY, max(n - 1, 1))
    if complex:
        kind = "dense phases" if dense else "phases"
    else:
        kind = "dense" if dense else "regular" if entries < FEW else "sparse"
    lengths = sorted(SCHEDULES[kind])
    return SCHEDULES[kind][max((length for length in lengths if length <= L), default=lengths[0])]
