"""One line per manifold instance: (manifold, dtype, columns).  The laws of test_manifolds.py run on every line."""

import numpy as np

from bmsdp.manifolds import Oblique, Product, Sphere, StiefelProduct, Unconstrained

RADII = np.array([0.25, 1.0, 9.0, 2.0, 100.0, 0.01])
R, C = np.float64, np.complex128

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
}
