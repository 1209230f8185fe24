"""Feasible sets ``{Y : A(YY*) = b}`` that are smooth manifolds (floor L2): each states constraints, multipliers, a retraction."""

from .base import Manifold
from .oblique import Oblique
from .product import Product
from .sphere import Sphere
from .stiefel import StiefelProduct
from .unconstrained import Unconstrained

__all__ = ["Manifold", "Oblique", "Product", "Sphere", "StiefelProduct", "Unconstrained"]
