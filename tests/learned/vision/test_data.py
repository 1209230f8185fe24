"""Images come as files say, or not at all; batches are functions of their numbers."""

import gzip
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

pytest.importorskip("torch", reason='learned solvers need torch: pip install "bmsdp[learn]"')

import torch

from bmsdp.learned.vision import ImageBatches, Images, animals, cifar10, crop_and_flip, digits
from bmsdp.learned.vision.data import ANIMALS

NAMES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    x, x_test = (torch.from_numpy(rng.integers(0, 256, (n, 3, 6, 5), dtype=np.uint8)) for n in (50, 10))
    return Images(x, torch.arange(50) % 4, x_test, torch.arange(10) % 4)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("it-was-run",)


def cifar_part(rng, n=20):
    return rng.integers(0, 256, (n, 3072), dtype=np.uint8), rng.integers(0, 10, n)


class Python2(pickle._Pickler):
    """Writes strings of bytes as Python 2 did, which wrote the real files."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_bytes(self, text):
        text = text if isinstance(text, bytes) else text.encode()
        self.write(pickle.BINSTRING + struct.pack("<i", len(text)) + text)
        self.memoize(text)

    dispatch[bytes] = dispatch[str] = save_bytes


def python2(stored):
    out = io.BytesIO()
    Python2(out, 2).dump(stored)
    return out.getvalue().replace(b"numpy._core", b"numpy.core")


def python3(stored):
    return pickle.dumps(stored, 4)


def write_python(folder, parts, dumps=python3, keys=bytes):
    folder.mkdir()
    for name, (x, y) in zip(NAMES, parts, strict=True):
        named = {"data": x, "labels": [int(label) for label in y], "batch_label": b"training", "filenames": [b"a.png"] * len(x)}
        stored = {key.encode() if keys is bytes else key: value for key, value in named.items()}
        (folder / name).write_bytes(dumps(stored))
    return folder


def write_binary(folder, parts):
    folder.mkdir()
    for name, (x, y) in zip(NAMES, parts, strict=True):
        np.hstack([y[:, None].astype(np.uint8), x]).tofile(folder / f"{name}.bin")
    return folder


def test_a_batch_is_a_function_of_its_number(images):
    one, two = (ImageBatches(images, 8, seed=3, augment=crop_and_flip) for _ in range(2))
    assert one.steps == 6
    there = {b: one.inputs(b)[0] for b in range(40)}
    for b in (39, 0, 17, 6, 30):  # epochs forth and back
        assert torch.equal(two.inputs(b)[0], there[b]) and torch.equal(two.context(b), images.y[two.indices(b)])
    assert len(one._orders) <= 4
    other = ImageBatches(images, 8, seed=4, augment=crop_and_flip)
    assert not torch.equal(other.inputs(0)[0], there[0])


def test_an_epoch_takes_every_image_at_most_once_and_epochs_differ(images):
    batches = ImageBatches(images, 8)
    epochs = [np.concatenate([batches.indices(e * 6 + step) for step in range(6)]) for e in range(3)]
    assert all(len(set(epoch)) == 48 for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])


def test_batches_are_normalised_by_channel(images):
    whole = images.normalise(images.x)
    assert torch.allclose(whole.mean((0, 2, 3)), torch.zeros(3), atol=1e-5) and torch.allclose(whole.std((0, 2, 3)), torch.ones(3))
    batches = ImageBatches(images, 50)
    assert torch.equal(batches.inputs(0)[0], whole[batches.indices(0)])


def test_images_move_together(images):
    there = images.to("meta")
    assert all(getattr(there, name).device.type == "meta" for name in ("x", "y", "x_test", "y_test", "mean"))


@pytest.mark.parametrize("batch", [0, 51])
def test_a_batch_that_the_images_cannot_fill_is_refused(images, batch):
    with pytest.raises(ValueError, match=f"batch = {batch} with 50 training images"):
        ImageBatches(images, batch)


def test_a_crop_is_a_window_of_the_padded_image_maybe_mirrored():
    x = torch.arange(1, 6 * 2 * 4 * 5 + 1, dtype=torch.uint8).reshape(6, 2, 4, 5)
    seen = set()
    for seed in range(20):
        moved = crop_and_flip(x, np.random.default_rng(seed), padding=1)
        assert moved.shape == x.shape and moved.dtype == x.dtype
        padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
        for i in range(len(x)):
            windows = {(a, b, flip): padded[i, :, a : a + 4, b : b + 5] for a in range(3) for b in range(3) for flip in (False, True)}
            found = [key for key, window in windows.items() if torch.equal(window.flip(2) if key[2] else window, moved[i])]
            assert len(found) == 1
            seen.update(found)
    assert len(seen) == 18


def test_digits():
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")
    images = digits()
    assert images.x.shape == (1437, 1, 8, 8) and images.x_test.shape == (360, 1, 8, 8) and images.classes == 10
    assert images.x.dtype == torch.uint8 and int(images.x.max()) == 16
    assert torch.equal(digits().x_test, images.x_test)


@pytest.mark.parametrize(("dumps", "keys"), [(python3, bytes), (python3, str), (python2, bytes)])
def test_cifar_as_pickles_and_as_binary_files(tmp_path, dumps, keys):
    rng = np.random.default_rng(1)
    parts = [cifar_part(rng) for _ in NAMES]
    python = cifar10(write_python(tmp_path / "cifar-10-batches-py", parts, dumps, keys))
    binary = cifar10(write_binary(tmp_path / "cifar-10-batches-bin", parts))
    assert python.x.shape == (100, 3, 32, 32) and python.x_test.shape == (20, 3, 32, 32)
    for name in ("x", "y", "x_test", "y_test"):
        assert torch.equal(getattr(python, name), getattr(binary, name))
    assert torch.equal(cifar10(tmp_path).x, python.x)  # from the folder above
    x, y = parts[1]
    assert np.array_equal(python.x[20].numpy().ravel(), x[0]) and python.y[20] == y[0]  # red plane first, row by row


def test_a_pickle_that_wants_to_run_something_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_python(tmp_path / "cifar-10-batches-py", [cifar_part(np.random.default_rng(1)) for _ in NAMES])
    (folder / NAMES[0]).write_bytes(pickle.dumps({b"data": Evil(), b"labels": []}))
    with pytest.raises(ValueError, match="mkdir; nothing in it was run"):
        cifar10(folder)
    assert not (tmp_path / "it-was-run").exists()


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (pickle.dumps({b"data": np.array([{}], dtype=object), b"labels": []}), "array of object"),
        (pickle.dumps({b"data": np.zeros((2, 3072)), b"labels": [0, 1]}), r"data float64 \(2, 3072\)"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 10]}), "numbers from 0 to 9"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}), "and N numbers"),
        (pickle.dumps([1, 2]), "data NoneType"),
        (b"\x80", "not a pickle"),
    ],
)
def test_a_pickle_with_something_else_is_refused(tmp_path, stored, said):
    folder = write_python(tmp_path / "cifar-10-batches-py", [cifar_part(np.random.default_rng(1)) for _ in NAMES])
    (folder / NAMES[2]).write_bytes(stored)
    with pytest.raises(ValueError, match=rf"data_batch_3: .*{said}"):
        cifar10(folder)


def test_binary_files_that_are_cut_or_of_another_kind_are_refused(tmp_path):
    folder = write_binary(tmp_path / "new", [cifar_part(np.random.default_rng(1)) for _ in NAMES])
    whole = (folder / "test_batch.bin").read_bytes()
    (folder / "test_batch.bin").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"61459 bytes; needed: records of 3073 bytes"):
        cifar10(folder)
    (folder / "test_batch.bin").write_bytes(b"\x63" + whole[1:])
    with pytest.raises(ValueError, match="label 99.*CIFAR-100"):
        cifar10(folder)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no data_batch_1 and no data_batch_1.bin"):
        cifar10(tmp_path)
    folder = write_python(tmp_path / "cifar-10-batches-py", [cifar_part(np.random.default_rng(1)) for _ in NAMES])
    (folder / "data_batch_4").unlink()
    with pytest.raises(FileNotFoundError, match="no data_batch_4"):
        cifar10(tmp_path)


@pytest.fixture
def silhouettes():
    rng = np.random.default_rng(2)
    return rng.integers(0, 2, (40, 28, 28), dtype=np.uint8) * 255, np.repeat(np.arange(10), 4)


def test_animals_from_a_wheel_and_from_a_folder(tmp_path, silhouettes):
    wheel = tmp_path / "animal_mnist-0.4-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, part in zip(ANIMALS, silhouettes, strict=True):
            stored = gzip.compress(pickle.dumps(part))
            archive.writestr(f"animal_mnist/data/Animal_MNIST/{name}", stored)
            (tmp_path / name).write_bytes(stored)
    one, two = animals(wheel), animals(tmp_path)
    assert one.x.shape == (32, 1, 28, 28) and one.x_test.shape == (8, 1, 28, 28)
    assert torch.equal(one.x, two.x) and torch.equal(one.y, two.y)
    x = torch.cat([one.x_test, one.x])[:, 0].numpy()
    y = torch.cat([one.y_test, one.y]).numpy()
    order = np.random.default_rng(0).permutation(40)
    assert np.array_equal(x, silhouettes[0][order]) and np.array_equal(y, silhouettes[1][order])


def test_animals_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="give a wheel of animal-mnist 0.4"):
        animals(tmp_path)


def test_animals_of_another_shape_are_refused(tmp_path, silhouettes):
    x, y = silhouettes
    for name, part in zip(ANIMALS, (x[:, :20], y), strict=True):
        (tmp_path / name).write_bytes(gzip.compress(pickle.dumps(part)))
    with pytest.raises(ValueError, match=r"needed: images \(N, 28, 28\)"):
        animals(tmp_path)
