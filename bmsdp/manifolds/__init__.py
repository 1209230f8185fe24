"""Feasible sets ``{Y : A(YY*) = b}`` that are smooth manifolds (floor L2): each states constraints, multipliers, a retraction."""

from .base import Manifold
from .constant_rank import RankReport, rank_report
from .oblique import Oblique
from .oblique_face import ObliqueFace
from .product import Product
from .quadratic import Quadratic
from .sphere import Sphere
from .sphere_product import SphereProduct
from .stiefel import StiefelProduct
from .unconstrained import Unconstrained

__all__ = [
    "Manifold",
    "Oblique",
    "ObliqueFace",
    "Product",
    "Quadratic",
    "RankReport",
    "Sphere",
    "SphereProduct",
    "StiefelProduct",
    "Unconstrained",
    "rank_report",
]
