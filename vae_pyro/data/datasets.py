"""Named data sets, made or downloaded."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np

from vae_pyro.core.isolation import undisturbed
from vae_pyro.core.registry import Registry
from vae_pyro.data.facts import About
from vae_pyro.data.readers.arrays import ArrayStore
from vae_pyro.data.readers.idx import read_idx
from vae_pyro.data.readers.store import Array
from vae_pyro.data.sprites import SHAPES, SpriteGrid

DATASETS: Registry[ArrayStore] = Registry("data set")
_DOWNLOADS = ContextVar("downloads", default=True)


@contextmanager
def without_downloads() -> Iterator[None]:
    """While inside, data sets that are absent stay so, and no folder is made for them: a run is only read."""
    token = _DOWNLOADS.set(False)
    try:
        yield
    finally:
        _DOWNLOADS.reset(token)


def open_dataset(name: str, root: str | Path | None = None) -> ArrayStore:
    """A data set by its name.

    Args:
        name: of `DATASETS`.
        root: see `data_root`.

    Raises:
        FileNotFoundError: it is not there and cannot be downloaded.
        ValueError: unknown name.
    """
    make: Callable[[Path], ArrayStore] = DATASETS[name]
    with undisturbed():  # the first import of scikit-learn draws a random number and sets variables
        store = make(data_root(root))
    store.name = f"data set {name!r}"
    return store


def data_root(root: str | Path | None) -> Path:
    """Folder of downloaded data: ``root``, else ``VAE_PYRO_DATA``, else a cache folder of the user's."""
    if root is not None:
        return Path(root)
    named = os.environ.get("VAE_PYRO_DATA")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(named) if named else cache / "vae_pyro"


@DATASETS.register("digits")
def digits(root: Path) -> ArrayStore:
    """1,797 handwritten digits of 8 x 8 pixels with 17 grey levels (scikit-learn, after UCI Optdigits)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return ArrayStore("digits", bunch.images.astype(np.uint8)[:, None], bunch.target, top=16)


@DATASETS.register("breast_cancer")
def breast_cancer(root: Path) -> ArrayStore:
    """569 tumours with 30 real measurements, UCI Wisconsin diagnostic (scikit-learn)."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    about = About(columns=tuple(str(name) for name in bunch.feature_names))
    return ArrayStore("breast_cancer", bunch.data.astype(np.float32), bunch.target, about=about)


@DATASETS.register("moons")
def moons(root: Path) -> ArrayStore:
    """4,000 points on two half moons in the plane (scikit-learn), noise 0.08."""
    from sklearn.datasets import make_moons

    values, labels = make_moons(4000, noise=0.08, random_state=0)
    return ArrayStore("moons", values.astype(np.float32), labels)


@DATASETS.register("pinwheel")
def pinwheel(root: Path) -> ArrayStore:
    """4,000 points in the plane on five bent arms (Johnson et al. 2016, arXiv:1603.06277, sec. 5)."""
    arms, count = 5, 4000
    random = np.random.default_rng(0)
    labels = np.arange(count) % arms
    spoke = random.normal(size=(count, 2)) * (0.3, 0.05) + (1.0, 0.0)
    angle = 2 * np.pi * labels / arms + 0.25 * np.exp(spoke[:, 0])
    cosine, sine = np.cos(angle), np.sin(angle)
    values = np.stack([spoke[:, 0] * cosine - spoke[:, 1] * sine, spoke[:, 0] * sine + spoke[:, 1] * cosine], 1)
    return ArrayStore("pinwheel", values.astype(np.float32), labels)


@DATASETS.register("sprites")
def sprites(root: Path) -> ArrayStore:
    """11,520 binary pictures of 32 x 32 drawn from shape, scale, rotation, x and y; the label is the shape.

    The row of a datum is its number in `vae_pyro.data.sprites.SpriteGrid`, whose ``factors_of`` gives its factors.
    """
    grid = SpriteGrid()
    numbers = np.arange(len(grid))
    factors = dict(zip(grid.names, grid.levels, strict=True))
    about = About(classes=SHAPES, factors=factors)
    return ArrayStore("sprites", grid.render(numbers), grid.factors_of(numbers)[:, 0], top=grid.top, about=about)


def _download(name: str, root: Path, make: Callable[[bool], Any]) -> Any:
    # torchvision raises RuntimeError for files that are absent, and whatever its download met otherwise.
    try:
        return make(False)
    except RuntimeError:
        pass
    if not _DOWNLOADS.get():
        raise FileNotFoundError(
            f"data set {name!r} is not under {str(root)!r}, and reading a run downloads nothing; name the folder that "
            f"has it with --data-root or VAE_PYRO_DATA, or download it with vae_pyro.load_data({name!r})"
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        return make(True)
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"data set {name!r} is not under {str(root)!r} and could not be downloaded ({error}); put torchvision's "
            f"files for it there, or name the folder that has them with --data-root or VAE_PYRO_DATA"
        ) from None


def _image_set(name: str, train: tuple[Array, Array], test: tuple[Array, Array]) -> ArrayStore:
    """Bytes with test data of their own."""
    return ArrayStore(name, *train, top=255, test=ArrayStore(name, *test, top=255))


def _torchvision(name: str, root: Path, class_name: str, **options: Any) -> ArrayStore:
    prefix = f"emnist-{options['split']}-" if "split" in options else ""
    train, test = (_stored(root / class_name, f"{prefix}{part}") for part in ("train", "test" if prefix else "t10k"))
    if train is None or test is None:
        train, test = _through_torchvision(name, root, class_name, **options)
    (values, labels), (held_out, held_out_labels) = train, test
    if class_name == "EMNIST":  # stored with rows and columns exchanged
        values, held_out = values.transpose(0, 1, 3, 2).copy(), held_out.transpose(0, 1, 3, 2).copy()
    return _image_set(name, (values, labels), (held_out, held_out_labels))


def _stored(folder: Path, part: str) -> tuple[Array, Array] | None:
    """Images and labels of one part in torchvision's layout, read without torchvision, whose import takes seconds.

    Returns:
        ``None`` where torchvision has to see to it: files that are absent or damaged, or of its earlier layout.
    """
    files = [folder / "raw" / f"{part}-{content}-ubyte" for content in ("images-idx3", "labels-idx1")]
    if (folder / "processed").exists() or not all(file.is_file() for file in files):
        return None
    try:
        images, labels = map(read_idx, files)
    except ValueError:
        return None
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        return None
    return images[:, None], labels.astype(np.int64)


def _through_torchvision(name: str, root: Path, class_name: str, **options: Any) -> list[tuple[Array, Array]]:
    """Images and labels of both parts, downloaded where they are absent."""
    from torchvision import datasets

    dataset = getattr(datasets, class_name)
    train = _download(name, root, lambda download: dataset(str(root), train=True, download=download, **options))
    test = _download(name, root, lambda download: dataset(str(root), train=False, download=download, **options))
    return [(part.data.numpy().astype(np.uint8)[:, None], part.targets.numpy()) for part in (train, test)]


@DATASETS.register("mnist")
def mnist(root: Path) -> ArrayStore:
    """70,000 handwritten digits of 28 x 28 grey pixels (LeCun et al. 1998), through torchvision."""
    return _torchvision("mnist", root, "MNIST")


@DATASETS.register("fashion-mnist")
def fashion_mnist(root: Path) -> ArrayStore:
    """70,000 pictures of clothes, 28 x 28 grey pixels (Xiao et al. 2017, arXiv:1708.07747), through torchvision."""
    return _torchvision("fashion-mnist", root, "FashionMNIST")


@DATASETS.register("kmnist")
def kmnist(root: Path) -> ArrayStore:
    """70,000 cursive Japanese characters, 28 x 28 grey pixels (Clanuwat et al. 2018), through torchvision."""
    return _torchvision("kmnist", root, "KMNIST")


@DATASETS.register("emnist")
def emnist(root: Path) -> ArrayStore:
    """131,600 letters and digits in 47 balanced classes (Cohen et al. 2017, arXiv:1702.05373), through torchvision."""
    return _torchvision("emnist", root, "EMNIST", split="balanced")


@DATASETS.register("omniglot")
def omniglot(root: Path) -> ArrayStore:
    """32,460 characters of 50 alphabets (Lake et al. 2015), reduced to 28 x 28, ink bright, through torchvision.

    The background alphabets train and the evaluation alphabets test; this is not the 24,345 / 8,070 split of
    Burda et al. 2016.
    """
    from PIL import Image
    from torchvision import datasets

    def read(background: bool) -> tuple[Array, Array]:
        dataset = _download(
            "omniglot", root, lambda download: datasets.Omniglot(str(root), background=background, download=download)
        )
        images, labels = [], []
        for image, label in dataset:
            images.append(255 - np.asarray(image.convert("L").resize((28, 28), Image.Resampling.BOX)))
            labels.append(label)
        return np.stack(images)[:, None].astype(np.uint8), np.asarray(labels)

    return _image_set("omniglot", read(True), read(False))
