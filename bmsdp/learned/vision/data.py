"""Images for classification, as batches that are functions of the batch's number.

Files are read without running anything that they contain: pickles may hold plain values and numeric NumPy arrays, nothing else.
"""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

Augment = Callable[[Tensor, np.random.Generator], Tensor]
ANIMALS = ("animal_data_version_3.gz", "animal_label_version_3.gz")
SIDE, RECORD = 32, 1 + 3 * 32 * 32  # of CIFAR-10: pixels, bytes in its binary files


@dataclass(frozen=True)
class Images:
    """A training and a test set.

    Attributes
    ----------
    x, x_test : (N, channels, height, width) uint8
    y, y_test : (N,) int64
        Classes from 0.
    """

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor

    @cached_property
    def mean(self) -> Tensor:
        """(channels, 1, 1): of each channel over the training set."""
        return self.x.to(torch.get_default_dtype()).mean((0, 2, 3), keepdim=True)[0]

    @cached_property
    def sd(self) -> Tensor:
        """(channels, 1, 1): standard deviation of each channel over the training set."""
        return self.x.to(torch.get_default_dtype()).std((0, 2, 3), keepdim=True)[0]

    def to(self, device: torch.device | str) -> Images:
        """The same on another device."""
        return Images(self.x.to(device), self.y.to(device), self.x_test.to(device), self.y_test.to(device))

    @property
    def classes(self) -> int:
        return int(self.y.max()) + 1

    def normalise(self, x: Tensor) -> Tensor:
        """Images in torch's default dtype, each channel with mean 0 and standard deviation 1 over the training set."""
        return (x.to(torch.get_default_dtype()) - self.mean) / self.sd


class ImageBatches:
    """The training images in batches: the protocol `Batches` of the engine.

    Batch b belongs to epoch ``b // steps``, whose order is drawn from (seed, epoch); its augmentation is drawn from (seed, b).  So
    workers that ask for the same number get the same batch.  The images that fill no batch are left out of their epoch.

    Attributes
    ----------
    steps : int
        Batches in an epoch.
    """

    def __init__(self, images: Images, batch: int = 64, seed: int = 0, augment: Augment | None = None) -> None:
        if not 1 <= batch <= len(images.x):
            raise ValueError(f"batch = {batch} with {len(images.x)} training images; a batch takes from 1 to all of them")
        self.images, self.batch, self.seed, self.augment = images, batch, seed, augment
        self.steps = len(images.x) // batch
        self._orders: dict[int, np.ndarray] = {}

    def indices(self, batch: int) -> np.ndarray:
        """Which images batch number ``batch`` holds."""
        epoch, step = divmod(batch, self.steps)
        order = self._orders.get(epoch)
        if order is None:
            order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.images.x))
            self._orders = {e: kept for e, kept in self._orders.items() if e >= epoch - 2} | {epoch: order}
        return order[step * self.batch : (step + 1) * self.batch]

    def inputs(self, batch: int) -> tuple[Tensor]:
        """(batch, channels, height, width), normalised."""
        x = self.images.x[self.indices(batch)]
        if self.augment:
            x = self.augment(x, np.random.default_rng([self.seed, 1, batch]))
        return (self.images.normalise(x),)

    def context(self, batch: int) -> Tensor:
        """Labels (batch,)."""
        return self.images.y[self.indices(batch)]


def crop_and_flip(x: Tensor, rng: np.random.Generator, padding: int = 4) -> Tensor:
    """Each image shifted by up to ``padding`` pixels both ways, over black, and mirrored with probability 1/2."""
    n, _, height, width = x.shape
    x = torch.nn.functional.pad(x, (padding,) * 4)
    rows = rng.integers(0, 2 * padding + 1, n)[:, None] + np.arange(height)
    columns = rng.integers(0, 2 * padding + 1, n)[:, None] + np.arange(width)
    columns = np.where(rng.random(n)[:, None] < 0.5, columns[:, ::-1], columns)
    moved = x[torch.arange(n)[:, None, None], :, torch.from_numpy(rows)[:, :, None], torch.from_numpy(columns)[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def digits() -> Images:
    """1797 grey 8 x 8 digits of scikit-learn in 10 classes: 1437 to train on, 360 to test."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError('the digits come with scikit-learn, which is not installed: pip install "bmsdp[sklearn]"') from None
    x, y = load_digits(return_X_y=True)
    return _split(x.reshape(-1, 8, 8).astype(np.uint8), y, 360)


def animals(path: str | Path | None = None) -> Images:
    """10,000 grey 28 x 28 silhouettes of the package animal-mnist (MIT) in 10 classes: 8000 to train on, 2000 to test.

    The package is never imported (it would import TensorFlow): its two data files are read.

    Parameters
    ----------
    path : str or Path, optional
        A wheel of the package, or a folder that holds the two files; by default the installed package.
    """
    x, y = (_unpickle(gzip.decompress(_animal_file(name, path)), name) for name in ANIMALS)
    if not (_is(x, (28, 28)) and _is(y, ()) and len(x) == len(y)):
        raise ValueError(f"{ANIMALS[0]}, {ANIMALS[1]}: {_shape(x)}, {_shape(y)}; needed: images (N, 28, 28) and labels (N,)")
    return _split(x, np.unique(y, return_inverse=True)[1], len(x) // 5)


def cifar10(path: str | Path) -> Images:
    """CIFAR-10 from its files: 50,000 colour images of 32 x 32 to train on, 10,000 to test.

    Parameters
    ----------
    path : str or Path
        ``cifar-10-batches-py`` or ``cifar-10-batches-bin`` as unpacked from https://www.cs.toronto.edu/~kriz/cifar.html, or the folder
        that holds it.
    """
    path = Path(path)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for folder in (path, path / "cifar-10-batches-py", path / "cifar-10-batches-bin"):
        for suffix, read in (("", _read_python), (".bin", _read_binary)):
            files = [folder / (name + suffix) for name in names]
            missing = [file.name for file in files if not file.is_file()]
            if not missing:
                parts = [read(file) for file in files]
                x, y = (np.concatenate(side) for side in zip(*parts[:-1], strict=True))
                return _images(x, y, *parts[-1])
            if len(missing) < len(files):
                raise FileNotFoundError(f"{folder}: no {', '.join(missing)}; CIFAR-10 is six files: unpack the archive again")
    raise FileNotFoundError(f"{path}: no data_batch_1 and no data_batch_1.bin; give the folder that the CIFAR-10 archive unpacks to")


def _read_python(file: Path) -> tuple[np.ndarray, np.ndarray]:
    stored = _unpickle(file.read_bytes(), str(file))
    stored = stored if isinstance(stored, dict) else {}
    x, y = (stored.get(key.encode(), stored.get(key)) for key in ("data", "labels"))
    labels = y if isinstance(y, list) and all(isinstance(label, int) and 0 <= label < 10 for label in y) else None
    if x is None or labels is None or not _is(x, (RECORD - 1,)) or len(x) != len(labels):
        raise ValueError(f"{file}: data {_shape(x)}, labels {_shape(y)}; needed: uint8 (N, {RECORD - 1}) and N numbers from 0 to 9")
    return x.reshape(-1, 3, SIDE, SIDE), np.array(labels)


def _read_binary(file: Path) -> tuple[np.ndarray, np.ndarray]:
    stored = np.fromfile(file, np.uint8)
    if not stored.size or stored.size % RECORD:
        raise ValueError(f"{file}: {stored.size} bytes; needed: records of {RECORD} bytes, so it is cut short or another file")
    records = stored.reshape(-1, RECORD)
    if records[:, 0].max() > 9:
        raise ValueError(f"{file}: label {records[:, 0].max()}; CIFAR-10 has classes 0 to 9: is this CIFAR-100?")
    return records[:, 1:].reshape(-1, 3, SIDE, SIDE), records[:, 0].astype(np.int64)


def _animal_file(name: str, path: str | Path | None) -> bytes:
    """The bytes of a data file in the installed package, in a wheel, or in a folder."""
    if path is None:
        try:
            found = [file for file in metadata.files("animal-mnist") or [] if file.name == name]
        except metadata.PackageNotFoundError:
            raise FileNotFoundError(
                "animal-mnist is not installed: pip install --no-deps animal-mnist, or pip download it and give the wheel as path"
            ) from None
        if not found:
            raise FileNotFoundError(f"the installed animal-mnist has no {name}; version 0.4 has")
        return Path(str(found[0].locate())).read_bytes()
    path = Path(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as wheel:
            inside = [entry for entry in wheel.namelist() if entry.rsplit("/", 1)[-1] == name]
            if inside:
                return wheel.read(inside[0])
    elif (path / name).is_file():
        return (path / name).read_bytes()
    raise FileNotFoundError(f"{path}: no {name}; give a wheel of animal-mnist 0.4, or the folder that holds its data files")


class _Unpickler(pickle.Unpickler):
    """Plain values and numeric arrays."""

    def find_class(self, module: str, name: str) -> Any:
        """The three names that an array needs, by their old and new modules."""
        if (module, name) in (("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")):
            return np.empty(0).__reduce__()[0]
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return _numeric
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _numeric(*spec: Any) -> np.dtype:
    dtype = np.dtype(*spec)
    if dtype.kind not in "biuf":
        raise pickle.UnpicklingError(f"it asks for an array of {dtype}")
    return dtype


def _unpickle(stored: bytes, name: str) -> Any:
    try:
        return _Unpickler(io.BytesIO(stored), encoding="bytes").load()
    except Exception as error:  # a broken pickle can raise nearly anything
        raise ValueError(f"{name}: not a pickle of numbers and numeric arrays: {error}; nothing in it was run") from error


def _is(x: Any, shape: tuple[int, ...]) -> bool:
    """Whether x is an array (N, *shape) of whole numbers, images being uint8."""
    return isinstance(x, np.ndarray) and x.shape[1:] == shape and x.ndim > 0 and (x.dtype == np.uint8 if shape else x.dtype.kind in "iu")


def _shape(x: Any) -> str:
    return f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__


def _split(x: np.ndarray, y: np.ndarray, test: int) -> Images:
    """Grey images (N, height, width); which ones are for testing does not depend on anybody's seed."""
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order, None], y[order]
    return _images(x[test:], y[test:], x[:test], y[:test])


def _images(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> Images:
    as_tensor = [torch.from_numpy(np.ascontiguousarray(part)) for part in (x, y.astype(np.int64), x_test, y_test.astype(np.int64))]
    return Images(*as_tensor)
