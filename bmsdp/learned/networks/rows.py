"""Over-relaxed steps of rows on spheres along great circles, and their exact inverse.

With ``a = y / r``, ``u = -g / |g|`` and theta the angle between them, the step takes a to the other side of u, at the angle
``rho theta``, ``rho = w - 1``: ``Slerp(a, u; w)``.  For 0 < rho < 1 it is a bijection from the sphere without the antipode of u onto
the cap of radius ``rho pi`` around u; the inverse divides the angle by rho.  Near u it is the chord step of `bmsdp.kernels.mixing`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

TINY = 1e-8  # a sine below it: u and a are parallel


def dot(u: Tensor, v: Tensor) -> Tensor:
    """``Re<u_i, v_i>`` of the rows, (m, 1)."""
    return (u.conj() * v).real.sum(-1, keepdim=True)


def size(g: Tensor) -> Tensor:
    """``|g_i|`` of the rows, (m, 1); rows of zeros have size 0 and derivative 0."""
    square = dot(g, g)
    return torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0)


def turn(y: Tensor, g: Tensor, rho: Tensor | float, radius: Tensor) -> Tensor:
    """The rows y (m x k) of lengths ``radius`` (m, 1) moved over ``-g`` to rho (m, 1) times their angle."""
    q, sine, rest, u = _angle(y, g)
    straight = sine <= TINY
    sine = torch.where(straight, 1.0, sine)
    angle = rho * torch.atan2(sine, q)
    cosine = torch.where(straight, 1.0, torch.cos(angle))
    along = torch.where(straight, rho, torch.sin(angle) / sine)
    return torch.where(_fixed(q, straight, g), y, radius * (cosine * u - along * rest))


def unturn(y: Tensor, g: Tensor, rho: Tensor | float, radius: Tensor) -> tuple[Tensor, int]:
    """The rows that `turn` takes to y, and how many of them lay outside its image; those go to the antipode of u, or near it."""
    q, sine, rest, u = _angle(y, g)
    straight = sine <= TINY
    sine = torch.where(straight, 1.0, sine)
    angle = torch.atan2(sine, q) / rho
    fixed = _fixed(q, straight, g)
    outside = (angle > math.pi) & ~straight & ~fixed
    angle = angle.clamp(max=math.pi)
    cosine = torch.where(straight, 1.0, torch.cos(angle))
    along = torch.where(straight, 1 / rho, torch.sin(angle) / sine)
    return torch.where(fixed, y, radius * (cosine * u - along * rest)), int(outside.sum())


def _angle(y: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(cosine, sine, a - cosine u, u) of the angle from u = -g/|g| to a = y/|y|."""
    norm = size(g)
    u = -g / torch.where(norm > 0, norm, 1.0)
    a = y / size(y)
    q = dot(a, u)
    rest = a - q * u
    return q, size(rest), rest, u


def _fixed(q: Tensor, straight: Tensor, g: Tensor) -> Tensor:
    """Rows that stay: no direction (g = 0), or every great circle is as good as another (the antipode)."""
    return (straight & (q < 0)) | (dot(g, g) == 0)
