"""One line per manifold instance: (manifold, dtype, columns).  The laws of test_manifolds.py run on every line."""

import numpy as np
import scipy.sparse as sp

from bmsdp.linear_maps import as_linear_map
from bmsdp.manifolds import Oblique, Product, Quadratic, Sphere, SphereProduct, StiefelProduct, Unconstrained

RADII = np.array([0.25, 1.0, 9.0, 2.0, 100.0, 0.01])
R, C = np.float64, np.complex128


def quadratic(n, dtype, dense=0, sparse=0, first="trace", k=4, again=(), shift=None, seed=0):
    """``first`` rows, dense and sparse random ones of unit norm, and rows once more as (row, factor); b from a random X."""
    rng = np.random.default_rng([seed, n, dense, sparse])
    tilted = np.eye(n) + 0.4 * (np.eye(n, k=1) + np.eye(n, k=-1))
    rows = {"trace": [np.eye(n)], "diagonal": [np.diag(e) for e in np.eye(n)], "definite": [tilted], "none": []}[first]
    for nonzero in [1.0] * dense + [0.3] * sparse:
        B = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if dtype is C else 0)
        B = np.where(rng.random((n, n)) < nonzero, B, 0)
        B[0, 1] += B[0, 1] == 0
        B = B + B.conj().T - np.diag(np.diag(B).real * (first == "diagonal"))
        rows.append(B / np.linalg.norm(B))
    rows += [factor * rows[j] for j, factor in again]
    A = as_linear_map(np.array(rows) if dense else [sp.csr_array(B) for B in rows], n)
    Y = (rng.standard_normal((n, k, 2)) @ [1, 1j if dtype is C else 0]).astype(dtype) / np.sqrt(k)
    if first == "diagonal":
        Y /= np.linalg.norm(Y, axis=1)[:, None]
    return Quadratic(A, A.apply(Y, Y), shift)


REGISTRY = {
    "oblique": (Oblique(np.ones(7)), R, 3),
    "oblique, complex": (Oblique(np.ones(7)), C, 2),
    "oblique, one column, complex": (Oblique(np.ones(5)), C, 1),
    "oblique, one row": (Oblique(np.ones(1)), R, 2),
    "oblique, radii": (Oblique(RADII), R, 3),
    "oblique, radii, complex": (Oblique(RADII), C, 2),
    "sphere": (Sphere(6, 3.0), R, 2),
    "sphere, complex": (Sphere(6, 0.5), C, 2),
    "sphere, one column": (Sphere(5), R, 1),
    "spheres": (SphereProduct([2, 1, 3], [2.0, 0.5, 30.0]), R, 3),
    "spheres, complex": (SphereProduct([1, 4], [1.0, 9.0]), C, 2),
    "stiefel d=1": (StiefelProduct(6, 1), R, 3),
    "stiefel d=2": (StiefelProduct(3, 2), R, 4),
    "stiefel d=3": (StiefelProduct(3, 3), R, 5),
    "stiefel d=3, square": (StiefelProduct(2, 3), R, 3),
    "stiefel d=1, complex": (StiefelProduct(6, 1, True), C, 2),
    "stiefel d=2, complex": (StiefelProduct(3, 2, True), C, 3),
    "stiefel d=3, complex": (StiefelProduct(2, 3, True), C, 4),
    "unconstrained": (Unconstrained(5), R, 2),
    "unconstrained, complex": (Unconstrained(5), C, 2),
    "product": (Product([Oblique(RADII[:3]), Sphere(2, 4.0), StiefelProduct(2, 2)]), R, 3),
    "product, complex": (Product([StiefelProduct(1, 3, True), Oblique(RADII[:2]), Sphere(3, 2.0)]), C, 4),
    "product of spheres": (Product([Sphere(4, 2.0), Sphere(1, 1.0)]), R, 2),
    "product with free rows": (Product([Unconstrained(2), Oblique(np.ones(3))]), R, 3),
    "product with free rows, complex": (Product([StiefelProduct(2, 2, True), Unconstrained(2)]), C, 3),
    "product of a product": (Product([Product([Sphere(2), Oblique(np.ones(2))]), StiefelProduct(1, 2)]), R, 3),
    "quadratic, dense rows": (quadratic(7, R, dense=3), R, 3),
    "quadratic, dense rows, complex": (quadratic(6, C, dense=3), C, 2),
    "quadratic, sparse rows": (quadratic(8, R, sparse=4, first="diagonal"), R, 4),
    "quadratic, sparse rows, complex": (quadratic(7, C, sparse=4, first="diagonal"), C, 3),
    "quadratic, real rows of complex factors": (quadratic(6, R, sparse=3), C, 2),
    "quadratic, redundant rows": (quadratic(7, R, dense=2, sparse=1, again=[(1, 1.0), (0, 1.0)]), R, 3),
    "quadratic, redundant rows, complex": (quadratic(6, C, sparse=2, again=[(2, 1.0)]), C, 3),
    "quadratic, unbounded": (quadratic(7, R, sparse=3, first="none"), R, 3),
    "quadratic, given shift": (quadratic(6, R, sparse=2, first="definite", shift=[1.0, 0.1, -0.1]), R, 3),
    "product with quadratic": (Product([quadratic(5, R, sparse=2), Oblique(RADII[:2])]), R, 3),
}
