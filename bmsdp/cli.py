"""The command line (floor L8): ``bmsdp demo | solve | info | certify``.

Exit codes: 0 certified; 2 bad input; 3 solved, not certified; 4 infeasible or unbounded; 5 a limit; 130 interrupted
(and 141 when the reader of the output went away).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import secrets
import stat
import sys
import warnings
import zlib
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from . import Oblique, Problem, Result, __version__, certify, gallery, plot, solve
from .applications import maxcut
from .arguments import BAD_INPUT, KNOWN, SOLVERS, parser
from .sdp import logged_to
from .verified import cost_above, lower_bound

EXIT = {"CERTIFIED": 0, "INFEASIBLE": 4, "UNBOUNDED": 4, "MAX_ITER": 5, "MAX_TIME": 5, "INTERRUPTED": 130}  # others 3
NOT_CERTIFIED, INTERRUPTED, PIPE = 3, 130, 141
RUDY, MATRIX_MARKET = ("", ".rud", ".rudy", ".txt", ".mc"), (".mtx", ".mm")
LATER = {".dat-s": "SDPA", ".mat": "SeDuMi", ".g2o": "g2o"}
FEASIBLE = 1e-8  # largest relative error of |y_i|^2 in a result that `certify` takes


class Input(NamedTuple):
    """A file: cost matrix, and what the reader says about it."""

    path: str
    C: Any
    meta: dict[str, Any]

    @property
    def is_graph(self) -> bool:
        return bool(self.meta["kind"] == "maxcut")

    @property
    def maximise(self) -> bool:
        return bool(self.meta["sense"] == "max")

    def own(self, value: float) -> float:
        """A cost in the file's own sense."""
        return float(self.meta["offset"] + (-value if self.maximise else value))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (``sys.argv[1:]`` when None); returns the exit code."""
    try:
        args = parser({"demo": _demo, "solve": _solve, "info": _info, "certify": _certify}).parse_args(argv)
    except SystemExit as stop:  # --help, --version, wrong options
        return int(stop.code or 0)
    with contextlib.suppress(AttributeError):  # a file's name may hold what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _show_warning
        try:
            code = args.run(args)
            sys.stdout.flush()
            return int(code)
        except KeyboardInterrupt:
            _complain("interrupted")
            return INTERRUPTED
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit would fail again
            return PIPE
        except (OSError, ValueError, NotImplementedError, ImportError, MemoryError) as error:
            _complain("error: " + _one_line(error, getattr(args, "file", "")))
            return BAD_INPUT


def _one_line(error: Exception, path: str) -> str:
    """What went wrong, with the file it is about."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror or error}; check the path and its permissions"
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError):
        text = f"not enough memory ({text}); use a smaller instance or a larger machine"
    return text if isinstance(error, (OSError, ImportError)) or path in text else f"{path}: {text}"


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):
        print(f"bmsdp: {text}", file=sys.stderr, flush=True)


def _show_warning(message: Any, category: Any, *where: Any, **more: Any) -> None:
    _complain("warning: " + " ".join(str(message).split()))


def _read(path: str) -> Input:
    """The instance in a file, its format known by its first bytes and its ending."""
    head = _head(path)
    name = Path(path).name.lower().removesuffix(".gz")
    ending = next((known for known in LATER if name.endswith(known)), Path(name).suffix)
    if head.startswith(b"PK\x03\x04"):
        raise ValueError(f"{path}: a saved result; an instance is needed; see bmsdp info and bmsdp certify")
    if ending in MATRIX_MARKET or head.lower().startswith(b"%%matrixmarket"):
        from .io.matrix_market import read_matrix_market as reader
    elif ending in RUDY or re.match(rb"\s*\d+[ \t]+\d+\s*(\n|$)", head):
        from .io.rudy import read_rudy as reader  # type: ignore[assignment]
    elif ending in LATER:
        raise NotImplementedError(f"{path}: {LATER[ending]} files are not available yet; {KNOWN}")
    else:
        raise ValueError(f"{path}: unknown format {ending!r}; {KNOWN}; SDPA, SeDuMi and g2o are not available yet")
    C, _, _, meta = reader(path)
    return Input(path, C, meta)


def _head(path: str) -> bytes:
    """The first bytes, decompressed; none of what is no regular file, because a pipe is read once only."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        return b""
    with open(path, "rb") as file:
        head = file.read(512)
    if head.startswith(b"\x1f\x8b"):
        with contextlib.suppress(zlib.error):
            return zlib.decompressobj(wbits=31).decompress(head)
    return head.removeprefix(b"\xef\xbb\xbf")


def _solve(args: argparse.Namespace) -> int:
    given = _read(args.file)
    seed = secrets.randbits(32) if args.seed is None else args.seed
    with logged_to(sys.stderr if args.json else sys.stdout) if args.verbose else contextlib.nullcontext():
        result = solve(
            given.C, rank=args.rank, tol=args.tol, max_time=args.max_time, solver=SOLVERS[args.solver](), threads=args.threads,
            certify=None if args.certify == "none" else args.certify, perturbation=args.perturbation, rng=seed,
            progress=False if args.verbose else None,
        )  # fmt: skip
    cut = maxcut.recover(result, rng=seed) if given.is_graph and args.cut else None
    if args.json:
        print(json.dumps(_report(given, result, cut, seed), allow_nan=False), flush=True)
    else:
        what = f"max-cut relaxation, {given.meta['edges']} edges" if given.is_graph else "min <C, X>, diag X = 1"
        print(f"{given.path}: {what}, n = {len(result.Y)}")
        _print_outcome(result, given.own(result.cost), given.own(result.bound), given.maximise, seed)
        if result.perturbation is not None:
            gaps = [_rounded(result.perturbation[which]["gap"], True, 2) for which in ("perturbed", "original")]
            print(f"noise   sigma {result.perturbation['sigma']:.3g}; gap then {gaps[0]} (perturbed cost), {gaps[1]} (original cost)")
        if cut is not None:
            print(f"cut     {_cut_line(cut)}")
    if args.out:
        result.save(args.out)
    if args.plot and len(result.history["nit"]):
        plot.convergence(result, args.plot)
    return EXIT.get(result.status.name, NOT_CERTIFIED)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _report(given: Input, result: Result, cut: Any, seed: int) -> dict[str, Any]:
    """What ``--json`` prints."""
    proof = result.certificate if math.isfinite(result.bound) else None
    sides = {"value": cut.value, "bound": _finite(cut.bound), "ratio": _finite(cut.ratio)} if cut is not None else None
    return {
        "file": given.path, "format": given.meta["format"], "sense": given.meta["sense"], "n": len(result.Y),
        "status": result.status.name, "message": result.message, "value": _finite(given.own(result.cost)),
        "bound": _finite(given.own(result.bound)), "gap": _finite(result.gap), "rigor": proof.rigor if proof else None,
        "gap_rigor": proof.gap_rigor if proof else None, "tol": result.options["tol"], "rank": result.rank,
        "seconds": result.time, "products": int(result.products), "cut": sides, "perturbation": _plain(result.perturbation),
        "seed": seed, "version": __version__,
    }  # fmt: skip


def _plain(value: Any) -> Any:
    """Nested figures for JSON, which knows no infinity."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return _finite(value) if isinstance(value, float) else value


def _rounded(value: float, up: bool, digits: int = 12) -> str:
    """A decimal number on the safe side of ``value``: a bound must not be printed as a better one."""
    if not math.isfinite(value):
        return "none"
    number = Context(prec=digits, rounding=ROUND_CEILING if up else ROUND_FLOOR).create_decimal(Decimal(value))
    return f"{number:f}" if value == 0 or 1e-4 <= abs(value) < 1e15 else f"{number:e}"


def _print_outcome(result: Result, value: float, bound: float, maximise: bool, seed: Any) -> None:
    print(f"status  {result.status.name}: {result.message}")
    print(f"value   {value:.12g}")
    _print_proof(result.certificate, bound, maximise)
    print(f"rank    {result.rank}")
    print(f"time    {result.time:.3g} s, {result.products} products, seed {seed}")


def _print_proof(proof: Any, bound: float, maximise: bool) -> None:
    proved = proof is not None and math.isfinite(bound)
    side = "above" if maximise else "below"
    print("bound   " + (f"{_rounded(bound, maximise)} (nothing is {side}; {_known(proof)})" if proved else "none"))
    print("gap     " + (f"{_rounded(proof.gap, True, 2)} ({proof.gap_rigor})" if proved else "none"))


def _known(proof: Any) -> str:
    """How a bound is known, in words."""
    words = {
        "verified": "verified: a factorisation whose rounding errors are bounded",
        "probabilistic": f"probabilistic: fails with probability at most {proof.failure_probability:g}",
        "estimate": "an estimate, no proof",
    }  # fmt: skip
    return words.get(proof.rigor, proof.rigor)


def _cut_line(cut: Any) -> str:
    ratio = f", {_rounded(cut.ratio, False, 5)} of the bound" if math.isfinite(cut.ratio) else ""
    return f"{cut.value:.12g}{ratio}"


def _demo(args: argparse.Namespace) -> int:
    rows, cols = args.size
    n, problem = rows * cols, maxcut.problem(gallery.toroidal_grid(rows, cols, rng=0))
    print(f"bmsdp {__version__}: a certified maximum cut bound for a {rows} x {cols} torus")
    print(f"The graph: {n} vertices on a torus, {2 * n} edges, weights +1 and -1 at random.")
    print("The problem: split the vertices in two so that the edges between the parts weigh as much as possible (NP-hard).")
    print(f"Its relaxation: min <C, X> with C = -L/4, diag X = 1, X >= 0; {n * (n + 1) // 2} unknowns, kept as X = Y Y^T.")
    print("Minus its optimum is above every cut. Costs below are minus the weight that is cut.\n", flush=True)
    with logged_to(sys.stdout):
        result = solve(problem, rng=0, progress=False)
    cut, proof = maxcut.recover(result, rng=0), result.certificate
    assert proof is not None
    print("\nCertificate")
    print(f"  relaxation value     {-result.cost:.12g}, at rank {result.rank}, in {result.time:.3g} s")
    print(f"  upper bound          {_rounded(cut.bound, True)}")
    print(f"  relative gap         {_rounded(proof.gap, True, 2)} ({proof.gap_rigor})")
    print(f"  rigor                {_known(proof)}")
    print(f"  smallest eigenvalue  of the dual slack S: >= {_rounded(proof.eig_min_lower, False, 3)}; met {proof.eig_min:.2e}")
    surely = {"verified": "It is proved", "probabilistic": "It is all but certain", "estimate": "It is likely"}[proof.rigor]
    print(f"{surely} that no cut of this graph weighs more than {_rounded(cut.bound, True)}.")
    print(f"\nThe cut found          {_cut_line(cut)}")
    return EXIT.get(result.status.name, NOT_CERTIFIED)


def _info(args: argparse.Namespace) -> int:
    if Path(args.file).suffix == ".npz" or _head(args.file).startswith(b"PK\x03\x04"):
        saved = Result.load(args.file)
        print(f"{args.file}: a result of bmsdp {saved.versions.get('bmsdp', '?')}, as minimised, n = {len(saved.Y)}")
        _print_outcome(saved, saved.cost, saved.bound, False, saved.options.get("rng"))
        return 0
    given = _read(args.file)
    C, graph = sparse.coo_array(given.C), given.is_graph
    is_complex, n = C.dtype.kind == "c", C.shape[0]
    off = (C.row != C.col) & (C.data != 0)
    pairs = off & (C.row < C.col)
    weights = (abs(C.data[pairs]) if is_complex else C.data[pairs]) * (4 if graph else 1)  # C = -L/4
    links = sparse.csr_array((np.ones(off.sum()), (C.row[off], C.col[off])), shape=C.shape)
    field, kind = "complex Hermitian" if is_complex else "real symmetric", "sparse" if sparse.issparse(given.C) else "dense"
    print(f"{given.path}: {given.meta['format']}, {'max-cut graph' if graph else f'{field} {kind} matrix'}")
    print(f"n           {n}")
    print(f"{'edges' if graph else 'nonzeros':11} {pairs.sum() if graph else np.count_nonzero(C.data)}")
    print(f"{'weights' if graph else 'off-diag.':11} {_range(weights)}{' (moduli)' if is_complex else ''}")
    print(f"{'degrees' if graph else 'diagonal':11} {_range(C.diagonal().real * (-4 if graph else 1) + 0.0)}")
    print(f"isolated    {n - np.unique(C.row[off]).size}")
    print(f"components  {sparse.csgraph.connected_components(links, directed=False)[0]}")
    return 0


def _range(values: Any) -> str:
    return f"{values.min():.12g} to {values.max():.12g}" if values.size else "none"


def _certify(args: argparse.Namespace) -> int:
    given, saved = _read(args.file), Result.load(args.result)
    if args.verified:
        return _verify(args, given, saved)
    proof = certify(_model(given, saved, args.result), args.tol, args.rigor, args.seed, final=True)
    print(f"{args.result} for {given.path}: n = {len(saved.Y)}, rank {saved.rank}")
    _print_proof(proof, given.own(proof.bound), given.maximise)
    print(f"rigor   {proof.rigor}")
    return 0 if abs(proof.gap) <= args.tol else NOT_CERTIFIED


def _verify(args: argparse.Namespace, given: Input, saved: Result) -> int:
    """The bound of the saved dual and the cost of the saved point, both in exact arithmetic; no solver takes part."""
    model = _model(given, saved, args.result)
    found = lower_bound(given.C, dual=saved.dual)
    upper = cost_above(model.problem.C, model.Y, model.problem.manifold.defect(model.Y))
    assert upper is not None  # a file has entries
    gap = (upper - found.bound) / max(abs(upper), abs(found.bound), model.cost_scale)
    print(f"{args.result} for {given.path}: n = {len(saved.Y)}, rank {saved.rank}")
    print(f"value     {_rounded(given.own(upper), not given.maximise)} (verified: an exactly feasible point next to the saved one)")
    print(f"bound     {_rounded(given.own(found.bound), given.maximise)} (verified, from the saved dual)")
    print(f"estimate  {given.own(found.estimate):.15g} (the same bound without rounding errors, which cost {found.rounding:.1e})")
    print(f"gap       {_rounded(gap, True, 2)} (verified)")
    print(f"work      {found.factorisations} error-bounded factorisation{'s' if found.factorisations > 1 else ''}")
    return 0 if gap <= args.tol else NOT_CERTIFIED


def _model(given: Input, saved: Result, path: str) -> Any:
    """The instance at the saved Y, of which nothing but Y is believed."""
    problem, Y = Problem(given.C, Oblique(np.ones(given.C.shape[0]))), saved.Y
    if Y.ndim != 2 or len(Y) != problem.n or not Y.size or Y.dtype.kind not in ("fc" if problem.C.is_complex else "f"):
        needed = f"a {'complex' if problem.C.is_complex else 'real'} one of {problem.n} rows is needed for {given.path}"
        raise ValueError(f"{path}: Y is {Y.dtype} of shape {Y.shape}; {needed}; take the result of that very instance")
    error = np.abs(np.einsum("ij,ij->i", Y, Y.conj()).real - 1)
    worst = int(np.argmax(np.where(np.isfinite(error), error, np.inf)))
    if not error[worst] <= FEASIBLE:
        given_norm = f"row {worst} of Y has squared norm off by {error[worst]:.2g}"
        raise ValueError(f"{path}: {given_norm}; at most {FEASIBLE:g} is allowed; solve {given.path} again")
    return problem.at(np.ascontiguousarray(Y, problem.dtype))
