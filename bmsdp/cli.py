"""The command line (floor L8): ``bmsdp demo | solve | info | certify | train``.

Exit codes: 0 certified; 2 bad input; 3 solved, not certified; 4 infeasible or unbounded; 5 a limit; 130 interrupted
(and 141 when the reader of the output went away).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import secrets
import stat
import sys
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from . import Oblique, Problem, Result, __version__, certify, gallery, plot, poses, solve
from .applications import maxcut
from .arguments import BAD_INPUT, KNOWN, METHODS, SOLVERS, is_text, parser
from .cone import as_cone
from .dimacs import dimacs
from .linear_maps import as_linear_map
from .minimize import Solver
from .report import RAYS, Instance, cut_line, info, known, outcome, proof_lines, report, rounded
from .sdp import logged_to
from .shift import trace_shift
from .solvers import Default
from .verified import cost_above, lower_bound

EXIT = {"CERTIFIED": 0, "INFEASIBLE": 4, "UNBOUNDED": 4, "MAX_ITER": 5, "MAX_TIME": 5, "INTERRUPTED": 130}  # others 3
NOT_CERTIFIED, INTERRUPTED, PIPE = 3, 130, 141
RUDY, MATRIX_MARKET = ("", ".rud", ".rudy", ".txt", ".mc"), (".mtx", ".mm")
SDPA, MATLAB = (".dat-s", ".dat"), (".mat",)
FEASIBLE = 1e-8  # largest relative error of |y_i|^2 in a result that `certify` takes


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (``sys.argv[1:]`` when None); returns the exit code."""
    try:
        args = parser({"demo": _demo, "solve": _solve, "info": _info, "certify": _certify, "train": _train}).parse_args(argv)
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


def _read(path: str) -> Instance:
    """The instance in a file, its format known by its first bytes and its ending."""
    head = _head(path)
    ending = Path(Path(path).name.lower().removesuffix(".gz")).suffix
    if head.startswith(b"PK\x03\x04"):
        raise ValueError(f"{path}: a saved result; an instance is needed; see bmsdp info and bmsdp certify")
    reader: Any
    if ending in MATRIX_MARKET or head.lower().startswith(b"%%matrixmarket"):
        from .io.matrix_market import read_matrix_market as reader
    elif ending in MATLAB or head.startswith(b"MATLAB 5.0"):
        from .io.sedumi import read_sedumi as reader
    elif ending in SDPA:
        from .io.sdpa import read_sdpa as reader
    elif ending in RUDY or re.match(rb"\s*\d+[ \t]+\d+\s*(\n|$)", head):
        from .io.rudy import read_rudy as reader
    else:
        raise ValueError(f"{path}: unknown format {ending!r}; {KNOWN}")
    return Instance(path, *reader(path))


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


def _pose_graph(path: str) -> bool:
    return poses.is_pose_graph(path, _head(path))


def _solve(args: argparse.Namespace) -> int:
    solver = _solver(args)
    if _pose_graph(args.file):
        return EXIT.get(poses.solve(args)[0], NOT_CERTIFIED)
    given = _read(args.file)
    texts = [path for path in args.out if is_text(path)]
    if texts:
        _check_text(given)
    seed = secrets.randbits(32) if args.seed is None else args.seed
    with logged_to(sys.stderr if args.json else sys.stdout) if args.verbose else contextlib.nullcontext():
        result = solve(
            given.C, **given.data, rank=args.rank, tol=args.tol, max_time=args.max_time, method=METHODS[args.method],
            solver=solver, trace_bound=args.trace_bound, threads=args.threads,
            certify=None if args.certify == "none" else args.certify, perturbation=args.perturbation, rng=seed,
            progress=False if args.verbose else None,
        )  # fmt: skip
    cut = maxcut.recover(result, rng=seed) if given.is_graph and args.cut else None
    if args.json:
        print(json.dumps(report(given, result, cut, seed), allow_nan=False), flush=True)
    else:
        print("\n".join([given.title, *outcome(result, seed, given)]))
        if cut is not None:
            print(f"cut     {cut_line(cut)}")
    for path in sorted(args.out, key=is_text):  # what cannot fail first
        if path not in texts:
            result.save(path)
        elif result.status in RAYS:
            _complain(f"warning: {path}: {result.status.name.lower()}, so there is no solution to write")
        else:
            _write_text(path, given, result)
    if args.plot and len(result.history["nit"]):
        plot.convergence(result, poses.picture(args) if args.plot is True else args.plot)
    return EXIT.get(result.status.name, NOT_CERTIFIED)


def _solver(args: argparse.Namespace) -> Solver:
    if (args.weights is None) == (args.solver == "learned"):
        raise ValueError("--solver learned and --weights PATH go together; bmsdp train writes such a file")
    if args.weights is None:
        return SOLVERS[args.solver]()
    from .learned import LearnedMixing

    return Default(mixing=LearnedMixing.load(args.weights))


def _train(args: argparse.Namespace) -> int:
    from .learned.command import train

    return train(args, _read)


def _check_text(given: Instance) -> None:
    """What a solution file cannot hold is better known before hours of work."""
    from .io.solution import check_solution_size

    if given.C.dtype.kind == "c":
        raise ValueError("a complex instance; solution files (.sol) hold real numbers; save the result as .npz")
    check_solution_size(given.data.get("blocks"), given.C.shape[0])


def _write_text(path: str, given: Instance, result: Result) -> None:
    from .io.solution import write_solution

    n, dual = given.C.shape[0], result.dual
    by = sparse.diags_array(dual) if given.A is None else as_linear_map(given.A, n).matrix(dual)
    sign = -1.0 if given.maximise else 1.0
    write_solution(path, sign * dual, sparse.csr_array(given.C) - by, result.Y, given.data.get("blocks"), result.free)


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
    print(f"  upper bound          {rounded(cut.bound, True)}")
    print(f"  relative gap         {rounded(proof.gap, True, 2)} ({proof.gap_rigor})")
    print(f"  rigor                {known(proof)}")
    print(f"  smallest eigenvalue  of the dual slack S: >= {rounded(proof.eig_min_lower, False, 3)}; met {proof.eig_min:.2e}")
    surely = {"verified": "It is proved", "probabilistic": "It is all but certain", "estimate": "It is likely"}[proof.rigor]
    print(f"{surely} that no cut of this graph weighs more than {rounded(cut.bound, True)}.")
    print(f"\nThe cut found          {cut_line(cut)}")
    return EXIT.get(result.status.name, NOT_CERTIFIED)


def _info(args: argparse.Namespace) -> int:
    if Path(args.file).suffix == ".npz" or _head(args.file).startswith(b"PK\x03\x04"):
        saved = Result.load(args.file)
        print(f"{args.file}: a result of bmsdp {saved.versions.get('bmsdp', '?')}, as minimised, n = {len(saved.Y)}")
        print("\n".join(outcome(saved, saved.options.get("rng"))))
        return 0
    print("\n".join(poses.info(args.file) if _pose_graph(args.file) else info(_read(args.file))))
    return 0


def _certify(args: argparse.Namespace) -> int:
    if _pose_graph(args.file):
        return 0 if abs(poses.certify(args)) <= args.tol else NOT_CERTIFIED
    given = _read(args.file)
    if given.is_sdp:
        return _verify_sdp(args, given)
    saved = Result.load(args.result)
    if args.verified:
        return _verify(args, given, saved)
    proof = certify(_model(given, saved, args.result), args.tol, args.rigor, args.seed, final=True)
    print(f"{args.result} for {given.path}: n = {len(saved.Y)}, rank {saved.rank}")
    print("\n".join(proof_lines(proof, given.own(proof.bound), given.maximise)))
    print(f"rigor   {proof.rigor}")
    return 0 if abs(proof.gap) <= args.tol else NOT_CERTIFIED


def _verify_sdp(args: argparse.Namespace, given: Instance) -> int:
    """The bound of a dual, in exact arithmetic, and the errors of a point beside it, whoever found them."""
    if args.rigor == "probabilistic":
        raise ValueError("--rigor probabilistic; for semidefinite programs bounds are verified, from the saved dual; leave it out")
    dual, point, cost = _pair(args.result, given)
    found = lower_bound(given.C, **given.data, dual=dual, trace_bound=args.trace_bound)
    if not np.isfinite(found.bound) and args.trace_bound is None:  # a trace bound that several rows together state
        shift = trace_shift(**given.data, n=given.meta["n"])
        found = found if shift is None else lower_bound(given.C, **given.data, dual=dual, shift=shift)
    errors = dimacs(given.C, **given.data, dual=dual, **point)
    gap = (cost - found.bound) / max(abs(cost), abs(found.bound), np.finfo(float).tiny)
    side = "above" if given.maximise else "below"
    where = f" where tr X <= {args.trace_bound:g}" if args.trace_bound else ""
    print(f"{args.result} for {given.path}: n = {given.meta['n']}, m = {given.meta['m']}")
    print(f"value     {given.own(cost):.12g} (the saved point, feasible up to the errors below)")
    print(f"bound     {rounded(given.own(found.bound), given.maximise)} (nothing is {side}{where}; verified, from the saved dual)"
          if np.isfinite(found.bound) else f"bound     none ({found.reason})")  # fmt: skip
    print(f"gap       {rounded(gap, True, 2)} (of a point that is feasible up to rounding: an estimate)")
    print(f"DIMACS    {' '.join(f'{error:.1e}' for error in errors)}")
    return 0 if abs(gap) <= args.tol and max(errors.err1, errors.err2) <= args.tol else NOT_CERTIFIED


def _pair(path: str, given: Instance) -> tuple[np.ndarray, dict[str, Any], float]:
    """The dual and the point that a result or a solution file holds for an instance, and its cost."""
    n = given.meta["n"]
    if is_text(path):
        from .io.solution import read_solution

        y, _, X = read_solution(path, given.meta["m"], given.meta["blocks"], n)
        return -y if given.maximise else y, {"X": X}, float((given.C * X).sum())
    saved = Result.load(path)
    Y, where = saved.Y, as_cone(given.meta["blocks"], n).free
    free = saved.free if saved.free is not None and len(saved.free) else np.zeros(len(where))
    if Y.ndim != 2 or len(Y) != n or Y.dtype.kind != "f" or not np.isfinite(Y).all():
        needed = f"a finite real one of {n} rows is needed for {given.path}"
        raise ValueError(f"{path}: Y is {Y.dtype} of shape {Y.shape}; {needed}; take the result of that very instance")
    if free.shape != where.shape:
        raise ValueError(f"{path}: {free.size} free variables; {given.path} has {where.size}; take the result of that very instance")
    return saved.dual, {"Y": Y, "free": free}, float(np.vdot(Y, given.C @ Y) + given.C.diagonal()[where] @ free)


def _verify(args: argparse.Namespace, given: Instance, saved: Result) -> int:
    """The bound of the saved dual and the cost of the saved point, both in exact arithmetic; no solver takes part."""
    model = _model(given, saved, args.result)
    found = lower_bound(given.C, dual=saved.dual)
    upper = cost_above(model.problem.C, model.Y, model.problem.manifold.defect(model.Y))
    assert upper is not None  # a file has entries
    gap = (upper - found.bound) / max(abs(upper), abs(found.bound), model.cost_scale)
    print(f"{args.result} for {given.path}: n = {len(saved.Y)}, rank {saved.rank}")
    print(f"value     {rounded(given.own(upper), not given.maximise)} (verified: an exactly feasible point next to the saved one)")
    print(f"bound     {rounded(given.own(found.bound), given.maximise)} (verified, from the saved dual)")
    print(f"estimate  {given.own(found.estimate):.15g} (the same bound without rounding errors, which cost {found.rounding:.1e})")
    print(f"gap       {rounded(gap, True, 2)} (verified)")
    print(f"work      {found.factorisations} error-bounded factorisation{'s' if found.factorisations > 1 else ''}")
    return 0 if gap <= args.tol else NOT_CERTIFIED


def _model(given: Instance, saved: Result, path: str) -> Any:
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
