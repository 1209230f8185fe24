"""Hermitian d x d blocks as real vectors, isometrically: diagonal, sqrt 2 Re of the upper half, sqrt 2 Im of it over C."""

import numpy as np


def pack(H: np.ndarray) -> np.ndarray:
    """(q, d, d) Hermitian -> (q, d(d+1)/2) for real, (q, d^2) for complex blocks."""
    d = H.shape[-1]
    off = np.sqrt(2) * H[(slice(None), *np.triu_indices(d, 1))]
    parts = [H[:, range(d), range(d)].real, off.real]
    return np.concatenate([*parts, off.imag] if H.dtype.kind == "c" else parts, axis=1)


def unpack(h: np.ndarray, d: int) -> np.ndarray:
    """The inverse of `pack`; complex when h has d^2 > d(d+1)/2 columns."""
    upper = (slice(None), *np.triu_indices(d, 1))
    p = d * (d - 1) // 2
    is_complex = p > 0 and h.shape[1] == d * d
    H = np.zeros((len(h), d, d), np.complex128 if is_complex else float)
    H[upper] = (h[:, d : d + p] + (1j * h[:, d + p :] if is_complex else 0)) / np.sqrt(2)
    H += H.conj().transpose(0, 2, 1)
    H[:, range(d), range(d)] = h[:, :d]
    return H
