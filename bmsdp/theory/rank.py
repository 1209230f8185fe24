"""Ranks that suffice for an SDP with m independent constraints, and their one ingredient, the dimension of Sym(k)."""

from math import isqrt
from operator import index


def dim_sym(k: int, complex: bool = False) -> int:
    """Real dimension of the k × k symmetric (complex: Hermitian) matrices, k(k + 1)/2 (complex: k²).

    Raises
    ------
    ValueError
        If k < 0.
    """
    k = _count(k, "k")
    return k * k if complex else k * (k + 1) // 2


def barvinok_pataki(m: int, complex: bool = False) -> int:
    """Largest r with ``dim_sym(r) <= m``: if the feasible set is compact, some optimum has at most this rank.

    Parameters
    ----------
    m : int
        Number of linearly independent equality constraints, m >= 0.
    complex : bool
        Hermitian instead of real symmetric X.

    Returns
    -------
    int
        The rank r; 0 for m = 0.

    Raises
    ------
    ValueError
        If m < 0.

    References
    ----------
    A. Barvinok, Discrete Comput. Geom. 13 (1995) 189-202; G. Pataki, Math. Oper. Res. 23 (1998) 339-358.
    """
    m = _count(m, "m")
    return isqrt(m) if complex else (isqrt(8 * m + 1) - 1) // 2


def generic_rank(m: int, complex: bool = False) -> int:
    """Smallest k with ``dim_sym(k) > m``: for almost all C, second-order points of width k are optimal.

    This needs a compact feasible set on which the constraints form a manifold. It is one more than `barvinok_pataki`.

    Parameters
    ----------
    m : int
        Number of linearly independent equality constraints, m >= 0.
    complex : bool
        Hermitian instead of real symmetric X.

    Raises
    ------
    ValueError
        If m < 0.

    References
    ----------
    N. Boumal, V. Voroninski, A. S. Bandeira, Comm. Pure Appl. Math. 73 (2020) 581-608.
    """
    return barvinok_pataki(m, complex) + 1


def _count(value: int, name: str) -> int:
    value = index(value)
    if value < 0:
        raise ValueError(f"{name} = {value}; a number >= 0 is needed; pass the number of constraints or columns")
    return value
