r"""Over-relaxed steps of Stiefel blocks that have an inverse in closed form.

With ``U = polar(-G_i)``, G_i = sum over other blocks C_ij Y_j, every block Y (d x k, ``Y Y* = I``) with ``I + Y U*`` regular is
``Cay(W) U = (I - W)^{-1} (I + W) U`` for exactly one skew W that vanishes off the rows of U: a chart of all blocks but a null set.
The step is ``W -> -rho W``, ``rho = w - 1`` in (0, 1): a bijection, whose inverse has ``1 / rho``.  Near U it is the step
``polar((1 - w) Y + w U)`` of `bmsdp.kernels.block_mixing` to first order.

It descends.  The cost of a block is ``-2 Re<(G G*)^{1/2}, Y U*>``; the Hermitian part of ``Cay(W)`` is ``(1 + W^2)(1 - W^2)^{-1}``, a
decreasing function of ``-W^2``, so that of ``Y U*``, its compression to the rows of U, grows in Loewner's order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SINGULAR = 1e-8  # a relative determinant of I + Y U*, below which a block keeps its place


class Polar(torch.autograd.Function):
    """The polar factor ``P Q*`` of ``P Sigma Q*`` (m x d x k, d <= k); its derivative is self-adjoint and needs no distinct values."""

    @staticmethod
    def forward(ctx: Any, G: Tensor) -> Tensor:
        P, sigma, Qh = torch.linalg.svd(G, full_matrices=False)
        ctx.save_for_backward(P, sigma, Qh)
        return P @ Qh

    @staticmethod
    def backward(ctx: Any, Z: Tensor) -> Tensor:  # type: ignore[override]
        P, sigma, Qh = ctx.saved_tensors
        F = P.mH @ Z
        E = F @ Qh.mH
        sigma = torch.maximum(sigma, 1e-12 * sigma[:, :1])  # where G has lost rank there is no derivative; this one is finite
        inner = (E - E.mH) / (sigma[:, :, None] + sigma[:, None, :])
        return P @ (inner @ Qh + (F - E @ Qh) / sigma[:, :, None])


def turn(Y: Tensor, G: Tensor, rho: Tensor | float) -> Tensor:
    """The blocks Y (m x d x k) moved over ``polar(-G)`` with rho (m, 1, 1); rho -> 1/rho is the inverse."""
    still = (G.abs() == 0).all(-1).all(-1)[:, None, None]
    U = Polar.apply(torch.where(still, Y, -G))
    eye = torch.eye(Y.shape[-2], dtype=Y.dtype)
    M = Y @ U.mH
    keep = still | (torch.linalg.det(eye + M.detach()).abs() < SINGULAR)[:, None, None]
    P = torch.linalg.inv(torch.where(keep, eye, eye + M))
    B2 = P + P.mH - eye  # B* B, where B is the part of W that leaves the rows of U
    new = torch.linalg.inv((eye + rho**2 * B2 + rho * (P.mH - P)) / 2)
    return torch.where(keep, Y, (new - eye) @ U - rho * (new @ P) @ (Y - M @ U))
