"""Weights of a mixing network: one relaxation per sweep, moved row by row by a small perceptron; NumPy only."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

FORMAT = 1
FEATURES = 3  # |g|/c2, |g|/c1, log(c1^2/c2^2): see `bmsdp.kernels.network_mixing`
SHAPES = {"a": "(L,)", "W1": f"(L, h, {FEATURES})", "b1": "(L, h)", "W2": "(L, h)"}


@dataclass(frozen=True, eq=False, repr=False)
class MixingWeights:
    r"""Weights of L sweeps; sweep l relaxes row i by ``w = 1 + sigmoid(a_l + W2_l . tanh(W1_l f_i + b1_l))``, in (1, 2).

    Attributes
    ----------
    a : ndarray, (L,)
    W1 : ndarray, (L, h, 3)
    b1, W2 : ndarray, (L, h)
        ``W2 = 0``, or h = 0, is a plain schedule: every row of sweep l has ``omega[l]``.
    meta : dict
        How the weights came about: anything that JSON can hold.

    Raises
    ------
    ValueError
        For shapes that do not fit together, and entries that are not finite.
    """

    a: np.ndarray
    W1: np.ndarray
    b1: np.ndarray
    W2: np.ndarray
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in SHAPES:
            try:
                if np.iscomplexobj(getattr(self, name)):  # whose imaginary parts NumPy would only warn about
                    raise ValueError
                array = np.array(getattr(self, name), float, order="C")
            except (TypeError, ValueError):
                raise ValueError(f"{name} holds no real numbers; an array of shape {SHAPES[name]} is needed") from None
            if not np.isfinite(array).all():
                raise ValueError(f"{name} has entries that are not finite; was the training stable?")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        L, h = self.a.size, self.b1.shape[-1] if self.b1.ndim else -1
        for name, shape in {"a": (L,), "W1": (L, h, FEATURES), "b1": (L, h), "W2": (L, h)}.items():
            if getattr(self, name).shape != shape or not L:
                raise ValueError(
                    f"{name} has shape {getattr(self, name).shape}; {SHAPES[name]} is needed, with one L >= 1 and one h for all arrays"
                )

    @classmethod
    def from_schedule(cls, omega: Any, meta: dict[str, Any] | None = None) -> MixingWeights:
        """Weights without a perceptron, from L relaxations in (1, 2)."""
        w = np.array(omega, float).reshape(-1) - 1
        if not w.size or not ((w > 0) & (w < 1)).all():
            raise ValueError(f"omega = {omega}; one number or more is needed, all of them in (1, 2)")
        L = w.size
        return cls(np.log(w / (1 - w)), np.zeros((L, 0, FEATURES)), np.zeros((L, 0)), np.zeros((L, 0)), meta or {})

    @property
    def L(self) -> int:
        """Number of sweeps."""
        return len(self.a)

    @property
    def omega(self) -> np.ndarray:
        """Its plain schedule ``1 + sigmoid(a)``, (L,): what is left where the perceptron is silent."""
        return 1 + np.exp(-np.logaddexp(0, -self.a))  # sigmoid without overflow

    @property
    def is_schedule(self) -> bool:
        """Whether every row of a sweep has the same relaxation."""
        return not self.W2.any()

    def __repr__(self) -> str:
        kind = "schedule" if self.is_schedule else f"h={self.W2.shape[1]}"
        omega = self.omega
        return f"MixingWeights(L={self.L}, {kind}, omega in [{omega.min():.3f}, {omega.max():.3f}])"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz file without pickle."""
        meta = json.dumps({"format": FORMAT, "kind": "MixingWeights", "meta": self.meta}, default=_number)
        with open(path, "wb") as file:  # a file object keeps NumPy from appending ".npz" to the caller's name
            np.savez(file, header=np.array(meta), **{name: getattr(self, name) for name in SHAPES})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> MixingWeights:
        """Read what `save` wrote; ValueError names the file, and what is wrong with it."""
        try:
            with open(path, "rb") as raw:
                if raw.read(4) != b"PK\x03\x04":
                    raise ValueError("it is no .npz file")
                raw.seek(0)
                with np.load(raw, allow_pickle=False) as file:
                    arrays = {name: file[name] for name in file.files}
            header = json.loads(str(arrays.pop("header")))
            if header["kind"] != "MixingWeights":
                raise ValueError(f"it holds {header['kind']}")
            if header["format"] > FORMAT:
                raise ValueError("it was written by a newer bmsdp; upgrade with pip install -U bmsdp")
            return cls(**{name: arrays[name] for name in SHAPES}, meta=header["meta"])
        except Exception as error:  # damaged bytes raise anything: zlib.error, BadZipFile, tokenize errors, ...
            if isinstance(error, OSError) and error.filename is not None:
                raise
            why = f"{error.args[0]} is missing" if isinstance(error, KeyError) else error
            raise ValueError(f"{path}: no weights of a mixing network ({why}); write them with MixingWeights.save or bmsdp train") from None


def _number(value: Any) -> Any:
    """For JSON: numbers and arrays of NumPy."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"meta holds a {type(value).__name__}, which JSON cannot; numbers, texts, lists and dicts are needed")


def save(weights: MixingWeights, path: str | os.PathLike[str]) -> None:
    """`MixingWeights.save`."""
    weights.save(path)


def load(path: str | os.PathLike[str]) -> MixingWeights:
    """`MixingWeights.load`."""
    return MixingWeights.load(path)
