"""Coded diffraction: masked Fourier transforms as linear measurements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import fft
from scipy.sparse.linalg import LinearOperator

CHUNK = 2**16  # entries of the masks taken at a time: 1 MB of complex numbers, which stay in the cache


class MaskedFFT(LinearOperator):
    """``x -> (F(m_l o x))_l`` with the unitary FFT F over all axes: coded diffraction, n = L d measurements of d pixels.

    Rows run over the masks, then over the pixels in C order; x and ``A x`` are raveled.

    Attributes
    ----------
    masks : ndarray, (L, *signal_shape)
    signal_shape : tuple of int
    gram : ndarray, (d,)
        ``A* A = diag(gram)``: the sum of ``|m_l|^2``.
    """

    def __init__(self, masks: np.ndarray):
        self.masks, self.signal_shape = masks, masks.shape[1:]
        d = math.prod(self.signal_shape)
        self.gram = (masks.real**2 + masks.imag**2).sum(axis=0).ravel()
        self.axes = tuple(range(-len(self.signal_shape), 0))
        group = max(1, CHUNK // d)
        self.blocks = [slice(i * d, min(i + group, len(masks)) * d) for i in range(0, len(masks), group)]
        super().__init__(np.dtype(np.complex128), (len(masks) * d, d))

    def _masks(self, rows: slice) -> np.ndarray:
        d = self.shape[1]
        return self.masks[rows.start // d : rows.stop // d]

    def forward(self, V: np.ndarray, rows: slice) -> np.ndarray:
        """Rows of ``A V`` for V (d, k)."""
        k = V.shape[1]
        Z = self._masks(rows) * np.ascontiguousarray(V.T).reshape(k, 1, *self.signal_shape)
        Z = fft.fftn(Z, axes=self.axes, norm="ortho", overwrite_x=np.iscomplexobj(Z))
        return Z.reshape(k, -1).T

    def adjoint(self, Z: np.ndarray, rows: slice) -> np.ndarray:
        """``A[rows]* Z`` for Z (rows, k), (d, k)."""
        k, masks = Z.shape[1], self._masks(rows)
        X = fft.ifftn(np.ascontiguousarray(Z.T).reshape(k, len(masks), *self.signal_shape), axes=self.axes, norm="ortho")
        X *= masks.conj()
        return X.sum(axis=1).reshape(k, -1).T if len(masks) > 1 else X.reshape(k, -1).T

    def leverage(self) -> np.ndarray:
        """``|q_i|^2`` of the rows of ``Q = A gram^{-1/2}``, (n,): one number for each mask."""
        L, d = len(self.masks), self.shape[1]
        size = np.abs(self.masks.reshape(L, d)) ** 2
        return np.repeat((size / self.gram).sum(axis=1) / d, d)

    def _matmat(self, X: np.ndarray) -> np.ndarray:
        return np.concatenate([self.forward(X, rows) for rows in self.blocks])

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        return self._matmat(x.reshape(-1, 1))[:, 0]

    def _rmatmat(self, Z: np.ndarray) -> np.ndarray:
        return sum((self.adjoint(Z[rows], rows) for rows in self.blocks), np.zeros((self.shape[1], Z.shape[1])))

    def _rmatvec(self, z: np.ndarray) -> np.ndarray:
        return self._rmatmat(z.reshape(-1, 1))[:, 0]


def masked_fft(masks: Any) -> MaskedFFT:
    """The measurements ``F(m_l o x)`` of an L x shape array of masks, real or complex, for signals of any dimension.

    Raises ValueError for masks that are not finite numbers, have no axis for L, or leave a pixel dark.
    """
    masks = np.asarray(masks)
    if masks.dtype.kind not in "biufc":
        raise ValueError(f"masks have dtype {masks.dtype}; real or complex numbers are needed")
    if masks.ndim < 2 or masks.size == 0:
        raise ValueError(f"masks have shape {masks.shape}; L masks of the signal's shape are needed, (L, *shape); one mask: masks[None]")
    masks = np.ascontiguousarray(masks, np.complex128 if masks.dtype.kind == "c" else float)
    if not np.isfinite(masks).all():
        raise ValueError(f"{np.sum(~np.isfinite(masks))} entries of the masks are NaN or infinite; every entry must be finite")
    dark = ~masks.any(axis=0)
    if dark.any():
        where = ", ".join(map(str, np.argwhere(dark)[0]))
        raise ValueError(f"{dark.sum()} pixels are 0 in every mask, the first at ({where}): nothing is measured of them; add a mask")
    return MaskedFFT(masks)


def coded_diffraction(shape: int | tuple[int, ...], masks: int = 8, rng: Any = None, kind: str = "phase") -> np.ndarray:
    """Random masks for `masked_fft`, (masks, *shape).

    Parameters
    ----------
    shape : of the signal
    masks : how many; about 8 for safe recovery, 3 to 4 at the limit
    rng : seed or Generator (SPEC 7)
    kind : "phase", uniform on the unit circle; or "octanary" (Candes, Li, Soltanolkotabi 2015): a phase out of 1, -1, i, -i times
        ``sqrt(1/2)`` with probability 4/5 or ``sqrt(3)``
    """
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    if not shape or not all(isinstance(s, (int, np.integer)) and s >= 1 for s in shape):
        raise ValueError(f"shape = {shape}; positive integers are needed, one for each dimension of the signal")
    if isinstance(masks, bool) or not isinstance(masks, (int, np.integer)) or masks < 1:
        raise ValueError(f"masks = {masks}; a positive number of masks is needed")
    rng = np.random.default_rng(rng)
    if kind == "phase":
        return np.exp(2j * np.pi * rng.random((masks, *shape)))
    if kind != "octanary":
        raise ValueError(f'kind = {kind!r}; it must be "phase" or "octanary"')
    turns = np.array([1, -1, 1j, -1j])[rng.integers(0, 4, (masks, *shape))]
    return turns * np.where(rng.random((masks, *shape)) < 0.8, np.sqrt(0.5), np.sqrt(3))
