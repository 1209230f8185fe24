"""Lovasz' theta: a bound on the independence number of a graph, and an independent set: graph, relaxation, certificate, set, picture.

python examples/theta.py                     the Kneser graph K(7, 2): alpha = theta = 6
python examples/theta.py G1.rud              a file in rudy format, as those of the G-set (weights are ignored)
python examples/theta.py --nonnegative       theta', with X >= 0 as well
python examples/theta.py --complement        cliques instead: the graph of all pairs that are no edges
"""

import argparse
import tempfile
from itertools import combinations
from pathlib import Path

import matplotlib.figure
import numpy as np
from scipy import sparse

import bmsdp
from bmsdp.applications import theta
from bmsdp.io.rudy import read_rudy


def main() -> None:
    parser = argparse.ArgumentParser(description="A bound on the independence number of a graph.")
    parser.add_argument("file", nargs="?", type=Path, help="a graph in rudy format; the Kneser graph K(7, 2) when absent")
    parser.add_argument("--nonnegative", action="store_true", help="bound by theta' instead of theta")
    parser.add_argument("--complement", action="store_true", help="bound cliques of the graph instead of independent sets")
    parser.add_argument("--out", type=Path, help="folder for the picture; a temporary one when absent")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    # 1. The graph.
    if options.file is not None:
        W, name = without_diagonal(read_rudy(options.file)[0]), options.file.stem
    else:
        W, name = kneser(7, 2), "kneser-7-2"
    print(f"{W.shape[0]} vertices, {W.nnz // 2} edges")

    # 2. max <J, X> over tr X = 1, X_ij = 0 on edges, solved to a certified relative gap of 1e-6.
    problem = theta.problem(W, nonnegative=options.nonnegative, complement=options.complement)
    result = bmsdp.solve(problem, tol=1e-6, rng=options.seed, verbose=1)

    # 3. What it proves, and a set that the solution suggests.
    found = theta.recover(result, rng=options.seed)
    kind = "clique" if options.complement else "independent set"
    print(f"\ntheta is at most  {found.bound:.6f}   ({found.rigor}; relative gap {result.gap:.1e}, rank {result.rank})")
    end = ": it is maximum" if found.is_maximum else ""
    print(f"no {kind} has more than {found.alpha_upper} vertices; this one has {found.size}{end}")
    print("vertices         ", *found.vertices[:20], "..." if found.size > 20 else "")

    # 4. A picture: vertices ordered by X_ii, the set first, and X between them.
    folder = options.out if options.out is not None else Path(tempfile.mkdtemp(prefix="bmsdp-"))
    folder.mkdir(parents=True, exist_ok=True)
    print("picture          ", picture(W, result, found, folder / f"theta-{name}.png"))


def kneser(n: int, k: int) -> sparse.csr_array:
    """The k-subsets of n, adjacent where they are disjoint; alpha = theta = C(n-1, k-1) for n >= 2k (Lovasz 1979)."""
    subsets = np.array([[i in subset for i in range(n)] for subset in combinations(range(n), k)], dtype=int)
    return sparse.csr_array((subsets @ subsets.T == 0).astype(float))


def without_diagonal(C: sparse.csr_array) -> sparse.csr_array:
    return sparse.csr_array(C - sparse.diags_array(C.diagonal()))


def picture(W: sparse.csr_array, result: bmsdp.Result, found: theta.IndependentSet, path: Path) -> Path:
    size = np.linalg.norm(result.Y, axis=1)
    inside = np.zeros(size.size, dtype=bool)
    inside[found.vertices] = True
    order = np.lexsort((-size, ~inside))[:400]  # the first vertices of large graphs
    figure = matplotlib.figure.Figure(figsize=(11, 4.6), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.spy(W[order][:, order], markersize=200 / order.size, color="0.3")
    edge = min(found.size, order.size) - 0.5
    left.plot([-0.5, edge, edge], [edge, edge, -0.5], color="#c77c11")
    left.set(title=f"edges; the first {found.size} vertices are the set", xlabel="vertex", ylabel="vertex")
    X = result.Y[order] @ result.Y[order].T
    limit = np.abs(X).max()
    image = right.imshow(X, cmap="RdBu_r", vmin=-limit, vmax=limit)
    figure.colorbar(image, ax=right, label="$X_{ij}$")
    right.set(title=f"X: trace 1, sum {-result.cost:.6g}; bound {found.bound:.6g}", xlabel="vertex")
    figure.savefig(path)
    return path


if __name__ == "__main__":
    main()
