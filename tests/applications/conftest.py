"""The relaxations as CVXPY with Clarabel solves them: an oracle for formulations, independent of the solver."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse

from bmsdp.linear_maps import MatrixMap


def rows_of(problem):
    """(A, b, A_geq, b_geq) of a Problem: the rows of its manifold and of its penalty, as stacked CSR arrays and vectors."""
    n, manifold = problem.n, problem.manifold
    unit = np.eye(manifold.m)
    own = [sparse.csr_array(sparse.csr_array(manifold.matrix(e)).reshape(1, n * n)) for e in unit]
    A, b, A_geq, b_geq = own, [manifold.b], [], []
    for term in problem.terms:
        A.append(term.given.rows[: term.m])
        b.append(term.b[: term.m])
        A_geq.append(term.given.rows[term.m :])
        b_geq.append(term.b[term.m :])
    empty = sparse.csr_array((0, n * n))
    return sparse.vstack([empty, *A], "csr"), np.concatenate([[], *b]), sparse.vstack([empty, *A_geq], "csr"), np.concatenate([[], *b_geq])


@pytest.fixture(scope="session")
def clarabel():
    """Solve a linear Problem; returns what ``recover`` reads of a result, its bound the optimum less 1e-6."""
    cp = pytest.importorskip("cvxpy", reason="formulations are compared with CVXPY, which is not installed")

    def solve(problem):
        n = problem.n
        A, b, A_geq, b_geq = rows_of(problem)
        X = cp.Variable((n, n), PSD=True)
        x = cp.vec(X, order="C")
        constraints = [A @ x == b] if len(b) else []
        constraints += [A_geq @ x >= b_geq] if len(b_geq) else []
        C = problem.C.mul(np.eye(n))
        optimum = cp.Problem(cp.Minimize(cp.sum(cp.multiply(C, X))), constraints).solve(solver=cp.CLARABEL)
        values, V = np.linalg.eigh(X.value)
        data = SimpleNamespace(
            C=problem.C, A=MatrixMap(sparse.csr_array(A), n), b=b, A_geq=MatrixMap(sparse.csr_array(A_geq), n), b_geq=b_geq
        )
        dual = -constraints[0].dual_value if len(b) else np.zeros(0)
        return SimpleNamespace(
            Y=V * np.sqrt(np.maximum(values, 0)), cost=optimum, bound=optimum - 1e-6 * max(abs(optimum), 1), gap=1e-6, data=data,
            dual=dual, certificate=SimpleNamespace(rigor="estimate"), options={"tol": 1e-6}, X=X.value,
        )

    return solve
