"""From factors to orthogonal blocks: nearest rotations, a common frame, signs and phases."""

from __future__ import annotations

from typing import Any

import numpy as np


def nearest(M: Any, special: bool = False) -> np.ndarray:
    """The orthogonal (unitary) matrix nearest to each block: ``argmin |R - M|_F``, from the singular value decomposition.

    Parameters
    ----------
    M : array (..., d, d), real or complex
    special : bool
        Of determinant 1 (real M only): the direction of the smallest singular value is reflected where need be (Umeyama 1991).

    Returns
    -------
    array (..., d, d), like M; unique where the smallest singular value is positive (special: where the smallest two differ).
    """
    M = np.asarray(M)
    if special and np.iscomplexobj(M):
        raise ValueError("special=True needs real blocks; unitary blocks are rounded with special=False")
    U, _, Vh = np.linalg.svd(M)
    if special:
        U[..., -1] *= np.where(np.linalg.det(U @ Vh) < 0, -1.0, 1.0)[..., None]
    return U @ Vh


def round_to_rotations(Y: Any, d: int, special: bool = True) -> np.ndarray:
    """Orthogonal blocks from a factor of the relaxation: its d leading singular directions, then the nearest block of each.

    Parameters
    ----------
    Y : array (n d, k), k >= d
        Blocks of d rows, ``X = Y Y*``; real or complex.
    d : int
    special : bool
        Rotations, determinant 1 (real Y only). A factor whose blocks have mostly negative determinants is reflected first, which does
        not change X.

    Returns
    -------
    array (n, d, d)
        ``R_i R_j* = X_ij`` where X has rank d (and, if special, all determinants agree); in the frame of the singular vectors.

    Cost
    ----
    O(n d k^2 + k^3).
    """
    Y = np.asarray(Y)
    if isinstance(d, bool) or not isinstance(d, (int, np.integer)) or d < 1:
        raise ValueError(f"d = {d}; a positive integer, the size of a block, is needed")
    if Y.ndim != 2 or Y.shape[0] % d or not Y.shape[0] or Y.shape[1] < d:
        raise ValueError(f"Y has shape {Y.shape}; n d rows and at least d columns are needed for blocks of d = {d}")
    if not np.isfinite(Y).all():
        raise ValueError("Y has entries that are NaN or infinite; finite ones are needed")
    if special and np.iscomplexobj(Y):
        raise ValueError("special=True needs a real Y; unitary blocks are rounded with special=False")
    if Y.shape[1] > d:
        Y = Y @ np.linalg.eigh(Y.conj().T @ Y)[1][:, : -d - 1 : -1]
    Z = Y.reshape(-1, d, d).copy()
    if special and np.sum(np.linalg.slogdet(Z)[0]) < 0:
        Z[..., -1] *= -1
    return nearest(Z, special)


def align(R: Any, reference: Any, special: bool = False) -> np.ndarray:
    """``R_i Q`` with the one orthogonal Q (phase, sign) that brings all blocks closest to the reference.

    Parameters
    ----------
    R, reference : arrays (n, d, d), or (n,) for phases and signs
    special : bool
        Q of determinant 1: rotations are determined up to a rotation.
    """
    R, reference = np.asarray(R), np.asarray(reference)
    if R.shape != reference.shape or R.ndim not in (1, 3):
        raise ValueError(f"R has shape {R.shape} but the reference has {reference.shape}; both must be (n, d, d), or both (n,)")
    blocks = R.reshape(len(R), *(R.shape[1:] or (1, 1)))
    Q = nearest(np.einsum("iab,iac->bc", blocks.conj(), reference.reshape(blocks.shape)), special and R.ndim == 3)
    return (blocks @ Q).reshape(R.shape)


def distance(R: Any, reference: Any, special: bool = False) -> float:
    """Root mean square of ``|R_i Q - reference_i|_F`` over i, for the best Q; see `align`."""
    off = (align(R, reference, special) - np.asarray(reference)).reshape(len(R), -1)
    return float(np.sqrt(np.mean(np.sum(np.abs(off) ** 2, axis=1))))
