"""Batch normalisation whose running statistics move in the backward phase only (section 1.7 of the paper's appendix on training)."""

from __future__ import annotations

from torch import Tensor, is_grad_enabled, nn


class BatchNorm2d(nn.BatchNorm2d):
    """As torch's, but running statistics move only while a graph is recorded.

    A pipeline's forward records none and its backward records one, once a batch: so each batch counts once, with the
    reconstructed activations, and the inverse moves nothing.  Plain backprop records in its forward, and agrees with torch.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or is_grad_enabled():
            return super().forward(x)
        return nn.functional.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
