"""``problem.solve(method="bmsdp")``: semidefinite variables straight from the expression tree.

A variable that is declared or constrained positive semidefinite *is* a block of X, so its n^2 entries need no names, and C and
the rows hold what the problem says and no more. Problems with anything else in them go through the plugin, and the result says
why (``result.options["cvxpy"]["compiled"]``).
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp

from ...linear_maps import MatrixMap
from .conic import Rows, contradiction, distinct_rows
from .plugin import BMSDP
from .run import Outcome, check_options, refused, solve_form
from .standard import Layout
from .tree import Functionals, Unreadable, bare, functionals


def register(name: str = "bmsdp") -> None:
    """Make ``problem.solve(method=name, rank=..., tol=..., ...)`` solve by `bmsdp.solve`, without CVXPY's compiler.

    It reads linear objectives and linear equalities and inequalities in real symmetric and Hermitian semidefinite variables, each
    declared ``PSD=True`` or with a constraint ``X >> 0`` of its own, and in scalars, vectors and matrices, free or ``nonneg=True``.
    All else is handed to ``problem.solve(solver=BMSDP(), ...)``. Options and statuses are those of `BMSDP`.
    """
    import cvxpy as cp

    cp.Problem.register_solve(name, solve_problem)


def solve_problem(problem: Any, *, verbose: bool = False, warm_start: bool = True, **options: Any) -> float:
    """Solve a CVXPY problem and fill in its values, multipliers, status and statistics."""
    start = time.perf_counter()
    try:
        read = _read(problem) if "form" not in options else None
        reason = "form was given"
    except Unreadable as missing:
        read, reason = None, str(missing)
    if read is None:
        value = problem.solve(solver=BMSDP(), verbose=verbose, warm_start=warm_start, **options)
        result = problem.solver_stats.extra_stats
        if not isinstance(result, dict):
            result.options["cvxpy"]["compiled"] = reason
        return value
    options = check_options(options)
    word = contradiction(read.equal, read.less)
    if word:
        outcome = refused(word, start)
    else:
        cache = problem._solver_cache.setdefault("BMSDP tree", {}) if warm_start else None
        outcome = solve_form(read, read.value, options, verbose=verbose, cache=cache, start=start)
        outcome.result.options["cvxpy"]["compiled"] = ""
    return _tell(problem, read, outcome)


@dataclass(frozen=True, eq=False)
class Read:
    """A problem in standard form, and whose its rows and blocks are."""

    layout: Layout
    C: sp.csr_array
    equal: Rows
    less: Rows
    """Rows of ``A_geq(X) >= b_geq`` as ``-A_geq(X) <= -b_geq``."""
    offset: float
    sign: float
    variables: list[tuple[Any, slice]]
    """Each with its rows of X, in the order of ``layout``."""
    cones: list[tuple[Any, Any]]
    """PSD constraints and their variables."""
    constraints: list[tuple[Any, str, slice, slice]]
    """Each with its kind and its rows among those of ``equal`` or ``less``: real and imaginary part."""
    form: str = "primal"
    maps: dict[str, sp.csr_array] = field(default_factory=dict)

    @property
    def blocks(self) -> list[Any] | None:
        return self.layout.blocks

    @property
    def A(self) -> sp.csr_array:
        return self.maps["A"]

    @property
    def b(self) -> np.ndarray:
        return self.equal.rhs

    @property
    def A_geq(self) -> sp.csr_array | None:
        return self.maps.get("A_geq")

    @property
    def b_geq(self) -> np.ndarray | None:
        return -self.less.rhs if "A_geq" in self.maps else None

    def value(self, solution: dict[str, Any]) -> float:
        return solution["cost"] + self.offset

    def recover(self, result: Any) -> dict[str, Any]:
        """Values of variables and multipliers of constraints, by id."""
        layout, n = self.layout, self.layout.n
        S = self.C - MatrixMap(self.A, n).matrix(result.dual)
        y, z = self.equal.spread(-result.dual), np.zeros(len(self.less.home))
        if self.A_geq is not None:
            S = S - MatrixMap(self.A_geq, n).matrix(result.dual_geq)
            z = self.less.spread(result.dual_geq)
        values, rows = {}, {variable.id: own for variable, own in self.variables}
        semidefinite, first_free = sum(layout.sizes), n - layout.free
        for variable, own in self.variables:
            Y = result.Y[own]
            if own.start < semidefinite:
                value = Y @ Y.conj().T
            else:
                flat = (np.abs(Y) ** 2).sum(axis=1)
                if own.start >= first_free:
                    flat = result.free[own.start - first_free : own.stop - first_free]
                value = flat.reshape(variable.shape, order="F")
            values[variable.id] = value if variable.is_complex() else value.real
        duals, taken = {}, set()
        S = sp.csr_array(S)
        for constraint, variable in self.cones:
            Z = S[rows[variable.id]][:, rows[variable.id]].toarray() * (variable.id not in taken)
            duals[constraint.id] = Z if variable.is_complex() else Z.real
            taken.add(variable.id)  # a second X >> 0 has nothing left to bear
        for constraint, kind, real, imag in self.constraints:
            d = y[real] if kind == "=" else z[real]
            d = d + 1j * y[imag] if imag.stop > imag.start else d
            duals[constraint.id] = d.reshape(constraint.shape, order="F") if constraint.shape else d.item()
        return {"cost": float(result.cost), "values": values, "duals": duals}


def _read(problem: Any) -> Read:
    import cvxpy as cp

    if not problem.objective.expr.is_affine():
        raise Unreadable("the objective is not affine")
    cones, linear = [], []
    for constraint in problem.constraints:
        if isinstance(constraint, cp.constraints.PSD):
            variable = bare(constraint.args[0])
            if variable is None:
                raise Unreadable("a semidefinite constraint on an expression, not on a variable, is not read here")
            cones.append((constraint, variable))
        else:
            linear.append((constraint, *_kind(constraint)))
    layout, variables = _places(problem.variables(), {variable.id for _, variable in cones})
    where = {variable.id: (own, variable) for variable, own in variables}
    sign = -1.0 if isinstance(problem.objective, cp.Maximize) else 1.0
    cost = functionals(problem.objective.expr)
    C = _matrices(_upper(cost, 1, layout, where), layout.n)
    C = sp.csr_array(C.reshape((layout.n, layout.n))) * sign
    parts: dict[str, list[Any]] = {"=": [], "<=": []}
    rhs: dict[str, list[np.ndarray]] = {"=": [np.zeros(0)], "<=": [np.zeros(0)]}
    constraints = []
    for constraint, expression, kind, side in linear:
        found, at = functionals(expression), sum(map(len, rhs[kind]))
        spans = [slice(at, at + expression.size), slice(at, at)]
        rotations: list[complex] = [1.0]
        if kind == "=" and expression.is_complex():
            rotations.append(-1j)  # Im z = Re(-i z)
            spans[1] = slice(spans[0].stop, spans[0].stop + expression.size)
            if expression.is_imag():
                spans = [slice(at, at), slice(at, at + expression.size)]
                rotations = [-1j]
        for rotation in rotations:
            parts[kind].append(_upper(found, expression.size, layout, where, side * rotation))
            rhs[kind].append(-(found.constant * side * rotation).real)
        constraints.append((constraint, kind, *spans))
    empty = sp.csr_array((0, layout.n**2))
    equal, less = (distinct_rows(sp.csr_array(sp.vstack([empty, *parts[k]])), np.concatenate(rhs[k]), k == "=") for k in ("=", "<="))
    maps = {"A": _matrices(equal.matrix, layout.n)}
    if len(less.rhs):
        maps["A_geq"] = _matrices(-less.matrix, layout.n)
    offset = float(cost.constant[0].real) * sign
    return Read(layout, C, equal, less, offset, sign, variables, cones, constraints, maps=maps)


def _kind(constraint: Any) -> tuple[Any, str, float]:
    """Expression, kind and sign: ``side * expression`` is ``= 0`` or ``<= 0``."""
    name = type(constraint).__name__
    kinds = {"Equality": ("=", 1.0), "Zero": ("=", 1.0), "Inequality": ("<=", 1.0), "NonPos": ("<=", 1.0), "NonNeg": ("<=", -1.0)}
    if name not in kinds:
        raise Unreadable(f"a constraint {name} is not read here")
    if not constraint.expr.is_affine():
        raise Unreadable(f"the constraint {constraint} is not affine")
    return constraint.expr, *kinds[name]


def _places(variables: list[Any], semidefinite: set[int]) -> tuple[Layout, list[tuple[Any, slice]]]:
    """Blocks of the semidefinite variables, then the nonnegative ones, then the free ones."""
    groups: dict[str, list[Any]] = {"psd": [], "nonneg": [], "free": []}
    for variable in variables:
        said = {name for name, value in variable.attributes.items() if value is not None and value is not False}
        if variable.id in semidefinite or "PSD" in said:
            if len(variable.shape) != 2 or not variable.is_hermitian() or said - {"PSD", "symmetric", "hermitian"}:
                raise Unreadable(f"the semidefinite variable {variable} is not declared symmetric or hermitian, or is more than that")
            groups["psd"].append(variable)
        elif said - {"nonneg"} or variable.is_complex():
            raise Unreadable(f"the variable {variable} is neither semidefinite nor plain: {', '.join(sorted(said))}")
        else:
            groups["nonneg" if said else "free"].append(variable)
    placed, start = [], 0
    for kind, group in groups.items():
        for variable in group:
            length = variable.shape[0] if kind == "psd" else variable.size
            placed.append((variable, slice(start, start + length)))
            start += length
    sizes = [variable.shape[0] for variable in groups["psd"]]
    nonneg, free = (sum(variable.size for variable in groups[kind]) for kind in ("nonneg", "free"))
    none = np.zeros(0, np.int64)  # no coordinates are listed
    imag = np.array([variable.is_complex() for variable in groups["psd"]])
    return Layout(sizes, nonneg, free, none, none, imag, none), placed


def _upper(found: Functionals, m: int, layout: Layout, where: dict[int, tuple[slice, Any]], factor: complex = 1.0) -> sp.csr_array:
    """``Re (factor * functionals)`` by their weights w of ``Re w X_ij`` on the upper triangle, m x n^2."""
    rows, columns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    data: list[np.ndarray] = [np.zeros(0)]
    for key, weights in found.variables.items():
        own, variable = where[key]
        n = own.stop - own.start
        for w in weights:
            val: np.ndarray = w.val * factor
            if own.start < sum(layout.sizes):
                i, j = (w.col // n, w.col % n) if w.conj else (w.col % n, w.col // n)  # X_ij* = X_ji
                if not variable.is_complex():
                    val = val.real
                val = np.where(i > j, val.conj(), val)  # Re w X_ij = Re w* X_ji
                i, j = np.minimum(i, j), np.maximum(i, j)
                val = np.where(i == j, val.real, val)
            else:
                i, j, val = w.col, w.col, val.real
            rows.append(w.row)
            columns.append((i + own.start) * layout.n + j + own.start)
            data.append(val)
    out = sp.coo_array((np.concatenate(data), (np.concatenate(rows), np.concatenate(columns))), shape=(m, layout.n**2)).tocsr()
    return out if layout.imag.any() else sp.csr_array(out.real)


def _matrices(upper: sp.csr_array, n: int) -> sp.csr_array:
    """The Hermitian matrices A with ``<A, X> = sum Re w_ij X_ij``, stacked."""
    upper = sp.csr_array(upper)
    row = np.repeat(np.arange(upper.shape[0]), np.diff(upper.indptr))
    i, j = np.divmod(upper.indices.astype(np.int64), n)
    off = i < j
    half = np.where(off, upper.data / 2, upper.data)
    place = np.concatenate([row, row[off]]), np.concatenate([i * n + j, j[off] * n + i[off]])
    out = sp.coo_array((np.concatenate([half.conj(), half[off]]), place), shape=upper.shape).tocsr()
    out.eliminate_zeros()
    return out


def _tell(problem: Any, read: Read, outcome: Outcome) -> float:
    """What CVXPY's own ``unpack`` does, with the value of the result rather than of the expression."""
    import cvxpy.settings as s
    from cvxpy.problems.problem import SolverStats
    from cvxpy.reductions.solution import Solution

    attr = {s.SOLVE_TIME: outcome.solve_time, s.SETUP_TIME: outcome.setup_time, s.NUM_ITERS: outcome.iterations}
    attr[s.EXTRA_STATS] = outcome.result
    solution = outcome.solution or {"values": {}, "duals": {}}
    value = read.sign * outcome.value
    problem._clear_solution()
    for variable in problem.variables():
        variable.save_value(solution["values"].get(variable.id))
    for constraint in problem.constraints:
        if constraint.id in solution["duals"]:
            constraint.save_dual_value(solution["duals"][constraint.id])
    problem._value, problem._status = value, outcome.status
    problem._solution = Solution(outcome.status, value, solution["values"], solution["duals"], attr)
    problem._solver_stats = SolverStats.from_dict(attr, "BMSDP")
    if outcome.status in s.INACCURATE:
        warnings.warn(f"the solution may be inaccurate: {outcome.result.message}", stacklevel=4)
    return value
