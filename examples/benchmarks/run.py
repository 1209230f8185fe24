"""The benchmark: bmsdp beside what a user would pick instead, at equal certified accuracy, in one run.

    python examples/benchmarks/run.py [--small] [--part PART] [--data DIR] [--repeat 3] [--csv OUT]

with PART one of gset, gallery, million, start, verified, phase, sdplib, secants, solvers, slam, learned; all by default.

Times are CPU seconds of one core, medians over seeds, Numba's cache warm; the parts million and start give wall time.
Ours holds everything from the matrix (the file, for the G-set) to the certificate.  Every gap is certified by
`bmsdp.certify`, the rivals' too; their clock stands still for it but for the one certificate that ends the run, so they
are told for free when to stop.  They also get the rank that ours ended with, which ours had to find.  A rival that does
not reach the gap says so.  "verified": from a factorisation with an error bound; "probabilistic": from Lanczos.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import sys
from pathlib import Path

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before NumPy is imported
    os.environ.setdefault(variable, "1")
sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

from parts import PARTS, Row, Settings  # noqa: E402

COLUMNS = ("part", "instance", "n", "tol", "method", "rank", "seconds", "gap", "rigor", "reached", "note", "remark")


def values(row: Row) -> tuple:
    run = row.run
    return (
        row.part, row.instance, row.n, row.tol, run.method, run.rank, run.seconds, run.gap, run.rigor, run.reached, run.note,
        row.remark,
    )  # fmt: skip


def line(row: Row) -> str:
    run = row.run
    state = "" if run.reached else "NOT REACHED" + (f" ({run.note})" if run.note else "")
    ours = run.method.startswith("bmsdp") or row.part == "phase"
    return (
        f"   {run.method:<20} {row.tol:7.0e} {run.rank:5d} {run.seconds:10.3f} {run.gap:9.1e}  {run.rigor:<13}  "
        + "  ".join(filter(None, [state, row.remark if ours else ""]))
    ).rstrip()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="less than a minute")
    parser.add_argument("--part", choices=list(PARTS), action="append", help="may be given several times; default: all")
    parser.add_argument("--data", type=Path, default=Settings.data, metavar="DIR", help="folder of G1.rud, G11.rud, ...")
    parser.add_argument("--repeat", type=int, help="runs that a median is over; default 3, or 1 with --small")
    parser.add_argument("--csv", type=Path, metavar="OUT", help="also write the rows to this file")
    parser.add_argument("--only", default="", metavar="TEXT", help="only instances whose name contains it")
    options = parser.parse_args(arguments)
    settings = Settings(options.small, options.data, options.repeat or (1 if options.small else 3), options.only)
    versions()
    rows: list[Row] = []
    for part in options.part or list(PARTS):
        print(f"\n{part}: {PARTS[part].__doc__}\n")
        print(f"   {'method':<20} {'tol':>7} {'rank':>5} {'seconds':>10} {'gap':>9}  {'bound is':<13}")
        name = None
        for row in PARTS[part](settings):
            if row.instance != name:
                name = row.instance
                print(f" {name}" + (f"  (n = {row.n})" if part != "million" else ""))
            print(line(row), flush=True)
            rows.append(row)
    if options.csv:
        with open(options.csv, "w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *map(values, rows)])
    return 0


def versions() -> None:
    from importlib.metadata import PackageNotFoundError, version

    names = []
    for name in ("numpy", "scipy", "numba", "pymanopt", "cvxpy", "scs", "clarabel"):
        try:
            names.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            names.append(f"{name} missing")
    print(__doc__.split("\n\n", 3)[3].rstrip() + f"\n\nPython {platform.python_version()}, {', '.join(names)}")


if __name__ == "__main__":
    sys.exit(main())
