"""Where numbers come from: named data sets, arrays, tables and folders of images, read as they are stored."""

import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vae_pyro.core.registry import Registry
from vae_pyro.data.sprites import SHAPES, SpriteGrid
from vae_pyro.data.tables.cells import listed
from vae_pyro.data.tables.inference import Kinds
from vae_pyro.data.tables.reading import TABLE_SUFFIXES, read_table
from vae_pyro.data.tables.schema import Column, Schema

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
ARRAY_SUFFIXES = (".npy", ".npz", ".csv", ".parquet")


@dataclass(frozen=True)
class Source:
    """Data as stored, before any split, scale or binarization.

    Attributes:
        kind: ``image`` or ``table``.
        values: ``(datum, *x_shape)``.
        labels: ``(datum,)``, or ``None``.
        test: the source's own test data and labels, where it has them.
        top: the value that full intensity has, for images that can be scaled to [0, 1]; ``None`` for others.
        mask: shape of ``values``, true where observed; ``None`` where everything is, but for elements that are NaN.
        about: facts a user should see (columns, classes, citation).
    """

    kind: str
    values: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any] | None = None
    test: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None] | None = None
    top: float | None = None
    mask: np.ndarray[Any, Any] | None = None
    about: dict[str, Any] = field(default_factory=dict)


type Reader = Callable[[Path], Source]

DATASETS: Registry[Source] = Registry("data set")


def data_root(root: str | Path | None) -> Path:
    """Folder of downloaded data: ``root``, else ``VAE_PYRO_DATA``, else a cache folder of the user's."""
    if root is not None:
        return Path(root)
    named = os.environ.get("VAE_PYRO_DATA")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(named) if named else cache / "vae_pyro"


@DATASETS.register("digits")
def digits(root: Path) -> Source:
    """1,797 handwritten digits of 8 x 8 pixels with 17 grey levels (scikit-learn, after UCI Optdigits)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Source("image", bunch.images.astype(np.uint8)[:, None], bunch.target, top=16)


@DATASETS.register("breast_cancer")
def breast_cancer(root: Path) -> Source:
    """569 tumours with 30 real measurements, UCI Wisconsin diagnostic (scikit-learn)."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    columns = [str(name) for name in bunch.feature_names]
    return Source("table", bunch.data.astype(np.float32), bunch.target, about={"columns": columns})


@DATASETS.register("moons")
def moons(root: Path) -> Source:
    """4,000 points on two half moons in the plane (scikit-learn), noise 0.08."""
    from sklearn.datasets import make_moons

    values, labels = make_moons(4000, noise=0.08, random_state=0)
    return Source("table", values.astype(np.float32), labels)


@DATASETS.register("pinwheel")
def pinwheel(root: Path) -> Source:
    """4,000 points in the plane on five bent arms (Johnson et al. 2016, arXiv:1603.06277, sec. 5)."""
    arms, count = 5, 4000
    random = np.random.default_rng(0)
    labels = np.arange(count) % arms
    spoke = random.normal(size=(count, 2)) * (0.3, 0.05) + (1.0, 0.0)
    angle = 2 * np.pi * labels / arms + 0.25 * np.exp(spoke[:, 0])
    cosine, sine = np.cos(angle), np.sin(angle)
    values = np.stack([spoke[:, 0] * cosine - spoke[:, 1] * sine, spoke[:, 0] * sine + spoke[:, 1] * cosine], 1)
    return Source("table", values.astype(np.float32), labels)


@DATASETS.register("sprites")
def sprites(root: Path) -> Source:
    """11,520 binary pictures of 32 x 32 drawn from shape, scale, rotation, x and y; the label is the shape.

    The row of a datum is its number in `vae_pyro.data.sprites.SpriteGrid`, whose ``factors_of`` gives its factors.
    """
    grid = SpriteGrid()
    numbers = np.arange(len(grid))
    factors = dict(zip(grid.names, grid.levels, strict=True))
    about = {"classes": list(SHAPES), "factors": factors}
    return Source("image", grid.render(numbers), grid.factors_of(numbers)[:, 0], top=grid.top, about=about)


def _download(name: str, root: Path, make: Callable[[bool], Any]) -> Any:
    # torchvision raises RuntimeError for files that are absent, and whatever its download met otherwise.
    try:
        return make(False)
    except RuntimeError:
        pass
    try:
        root.mkdir(parents=True, exist_ok=True)
        return make(True)
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"data set {name!r} is not under {str(root)!r} and could not be downloaded ({error}); put torchvision's "
            f"files for it there, or name the folder that has them with --data-root or VAE_PYRO_DATA"
        ) from None


def _torchvision(name: str, root: Path, class_name: str, **options: Any) -> Source:
    from torchvision import datasets

    dataset = getattr(datasets, class_name)
    train = _download(name, root, lambda download: dataset(str(root), train=True, download=download, **options))
    test = _download(name, root, lambda download: dataset(str(root), train=False, download=download, **options))
    values, held_out = (part.data.numpy().astype(np.uint8)[:, None] for part in (train, test))
    if class_name == "EMNIST":  # stored with rows and columns exchanged
        values, held_out = values.transpose(0, 1, 3, 2).copy(), held_out.transpose(0, 1, 3, 2).copy()
    return Source("image", values, train.targets.numpy(), (held_out, test.targets.numpy()), top=255)


@DATASETS.register("mnist")
def mnist(root: Path) -> Source:
    """70,000 handwritten digits of 28 x 28 grey pixels (LeCun et al. 1998), through torchvision."""
    return _torchvision("mnist", root, "MNIST")


@DATASETS.register("fashion-mnist")
def fashion_mnist(root: Path) -> Source:
    """70,000 pictures of clothes, 28 x 28 grey pixels (Xiao et al. 2017, arXiv:1708.07747), through torchvision."""
    return _torchvision("fashion-mnist", root, "FashionMNIST")


@DATASETS.register("kmnist")
def kmnist(root: Path) -> Source:
    """70,000 cursive Japanese characters, 28 x 28 grey pixels (Clanuwat et al. 2018), through torchvision."""
    return _torchvision("kmnist", root, "KMNIST")


@DATASETS.register("emnist")
def emnist(root: Path) -> Source:
    """131,600 letters and digits in 47 balanced classes (Cohen et al. 2017, arXiv:1702.05373), through torchvision."""
    return _torchvision("emnist", root, "EMNIST", split="balanced")


@DATASETS.register("omniglot")
def omniglot(root: Path) -> Source:
    """32,460 characters of 50 alphabets (Lake et al. 2015), reduced to 28 x 28, ink bright, through torchvision.

    The background alphabets train and the evaluation alphabets test; this is not the 24,345 / 8,070 split of
    Burda et al. 2016.
    """
    from PIL import Image
    from torchvision import datasets

    def read(background: bool) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        dataset = _download(
            "omniglot",
            root,
            lambda download: datasets.Omniglot(str(root), background=background, download=download),
        )
        images, labels = [], []
        for image, label in dataset:
            images.append(255 - np.asarray(image.convert("L").resize((28, 28), Image.Resampling.BOX)))
            labels.append(label)
        return np.stack(images)[:, None].astype(np.uint8), np.asarray(labels)

    values, labels = read(True)
    return Source("image", values, labels, read(False), top=255)


def read_source(
    name_or_path: str | Path,
    root: str | Path | None = None,
    *,
    kinds: Kinds | None = None,
    columns: tuple[Column, ...] | None = None,
) -> Source:
    """Read a named data set, an array, a table or a folder of images.

    Args:
        name_or_path: a name of `DATASETS`; a ``.npy`` array ``(datum, *x_shape)``; a ``.npz`` with ``x`` and perhaps
            ``y`` and a boolean ``mask`` that is true where x is observed; a ``.csv`` or ``.parquet`` table, whose
            numeric columns are taken; a folder of images of one size, whose sub-folders, if any, are classes.
        root: see `data_root`.
        kinds: take all columns of a table, with these kinds and inferred ones (`vae_pyro.data.tables.infer`).
        columns: take these columns of a table (`vae_pyro.data.tables.read_table`).

    Raises:
        FileNotFoundError: no such file, or a data set that is not there and cannot be downloaded.
        ValueError: unknown name or ending, contents that are not data, or columns of what is not a table.
    """
    if kinds is not None or columns is not None:
        return _mixed_table(name_or_path, kinds, columns)
    if str(name_or_path) in DATASETS:
        reader: Any = DATASETS[str(name_or_path)]
        source: Source = reader(data_root(root))
        return source
    path = Path(name_or_path)
    if path.is_dir():
        return _image_folder(path)
    if path.suffix not in ARRAY_SUFFIXES:
        if os.sep in str(name_or_path) or path.suffix:
            raise ValueError(f"cannot read {str(path)!r}: expected a folder of images or {', '.join(ARRAY_SUFFIXES)}")
        DATASETS[str(name_or_path)]  # raises, with the names that there are
    if not path.exists():
        raise FileNotFoundError(f"no file {str(path)!r}")
    try:
        if path.suffix in (".csv", ".parquet"):
            return _table(path)
        return _array(path)
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"cannot read {str(path)!r}: {error}") from None


def _array(path: Path) -> Source:
    # Pickled objects in an array file could execute; numpy refuses them with allow_pickle off.
    with path.open("rb") as file:
        try:
            loaded = np.load(file, allow_pickle=False)
            arrays = (
                {name: loaded[name] for name in loaded} if isinstance(loaded, np.lib.npyio.NpzFile) else {"x": loaded}
            )
        except ValueError as error:
            raise ValueError(f"cannot read {str(path)!r}: {error}") from None
    key = "x" if "x" in arrays else next(iter(arrays)) if len(arrays) == 1 else None
    if key is None:
        raise ValueError(f"{str(path)!r} holds the arrays {', '.join(arrays) or 'none'}; name the data 'x'")
    values, labels, mask = arrays[key], arrays.get("y"), arrays.get("mask")
    if values.dtype.kind not in "buif" or not 2 <= values.ndim <= 4:
        raise ValueError(
            f"{str(path)!r} holds an array of type {values.dtype} and shape {values.shape}; wanted are numbers of "
            "shape (datum, *x_shape) with one to three dimensions for a datum"
        )
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    if 0 in values.shape:
        raise ValueError(f"{str(path)!r} holds no data: its shape is {values.shape}")
    labels, about = coded(labels)
    if labels is not None and labels.shape != (len(values),):
        raise ValueError(f"{str(path)!r}: y has shape {labels.shape}, x has {len(values)} rows")
    if mask is not None and (mask.shape != values.shape or mask.dtype != np.bool_):
        raise ValueError(
            f"{str(path)!r}: mask is {mask.dtype} {mask.shape}; wanted: a boolean for each element of x, {values.shape}"
        )
    kind = "image" if values.ndim > 2 else "table"
    top = None
    if kind == "image" and values.dtype in (np.uint8, np.bool_):  # bytes of 0 and 1 are binary already
        top = 255 if values.max() > 1 else 1
    return Source(kind, values, labels, top=top, mask=mask, about=about)


def _table(path: Path) -> Source:
    import pandas as pd

    frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    if len(frame.columns) and all(_is_number(str(name)) for name in frame.columns):
        raise ValueError(
            f"{str(path)!r} begins with numbers where names of columns belong; add a header, or save a .npy"
        )
    numeric = frame.select_dtypes("number")
    if numeric.shape[1] == 0 or len(numeric) == 0:
        raise ValueError(f"{str(path)!r} has {len(frame)} rows and no numeric column")
    left_out = [str(name) for name in frame.columns if name not in numeric.columns]
    about = {"columns": [str(name) for name in numeric.columns], "columns_left_out": left_out}
    return Source("table", numeric.to_numpy(np.float64), about=about)


def _mixed_table(name_or_path: str | Path, kinds: Kinds | None, columns: tuple[Column, ...] | None) -> Source:
    if Path(name_or_path).suffix not in TABLE_SUFFIXES or Path(name_or_path).is_dir():
        raise ValueError(
            f"likelihood 'table' and kinds of columns want a table ({', '.join(TABLE_SUFFIXES)}), got "
            f"{str(name_or_path)!r}; save it as one, or choose another likelihood"
        )
    table = read_table(Path(name_or_path), kinds, schema=None if columns is None else Schema(columns=columns))
    schema = table.schema
    about = {
        "columns": schema.names,
        "columns_left_out": list(schema.left_out),
        "schema": schema.model_dump(mode="json"),
    }
    return Source("table", table.values, mask=None if table.mask.all() else table.mask, about=about)


def with_columns(names: list[str], wanted: Sequence[str]) -> list[int] | None:
    """Where the wanted columns stand among those of a table, in the wanted order; ``None`` where they are the same.

    Raises:
        ValueError: one is not there.
    """
    absent = [name for name in wanted if name not in names]
    if absent:
        raise ValueError(
            f"the table lacks the column{'s' if len(absent) > 1 else ''} {listed(absent)} of the model's data; it has "
            f"{listed(names)}"
        )
    return None if list(wanted) == names else [names.index(name) for name in wanted]


def coded(labels: "np.ndarray[Any, Any] | None") -> "tuple[np.ndarray[Any, Any] | None, dict[str, Any]]":
    """Labels as integers, and what a user should know of them: the names of their codes, where they are names."""
    if labels is None or labels.dtype.kind in "bui":
        return labels, {}
    names, codes = np.unique(labels, return_inverse=True)
    return codes, {"classes": [str(name) for name in names]}


def like(source: "Source", facts: Mapping[str, Any]) -> "Source":
    """Other data as those of a run are: columns and classes by their names, and intensities on the same scale.

    Columns that the run does not have are passed over; data whose columns have no names are taken as they are. Classes
    that are numbers, or names of numbers, are codes; where only one of the two has names, labels are not known.

    Args:
        source: in memory.
        facts: of the run's data.

    Raises:
        ValueError: a column that is not there, a class that the run does not know, or intensities beyond its scale.
    """
    changed: dict[str, Any] = {}
    wanted, named = facts.get("columns"), source.about.get("columns")
    if wanted and named and "schema" not in facts and (order := with_columns(named, wanted)):
        mask = None if source.mask is None else source.mask[:, order]
        changed |= {"values": source.values[:, order], "mask": mask}
    top = facts.get("top")
    if top is not None and source.top is not None and source.top != top:
        tests = [] if source.test is None else [source.test[0]]
        highest = max(float(values.max()) for values in (source.values, *tests))
        if highest > top:
            raise ValueError(
                f"these data reach {highest:g}, and the model's are at most {top:g}; bring them to the same scale"
            )
        changed["top"] = top
    own = source.about.get("classes")
    if source.labels is not None and (own or facts.get("classes")):
        codes = _codes(own, facts.get("classes"))
        changed["labels"] = None if codes is None else codes[source.labels]
    return replace(source, **changed)


def _codes(own: list[str] | None, known: list[str] | None) -> "np.ndarray[Any, Any] | None":
    """The run's code of each of the classes of other data; ``None`` where nothing says it."""
    if own is None:
        return None
    if known is None:
        return np.asarray([int(name) for name in own]) if all(name.isdecimal() for name in own) else None
    absent = [name for name in own if name not in known]
    if absent:
        raise ValueError(f"the model knows no class {listed(absent)}; it knows {listed(known)}")
    return np.asarray([known.index(name) for name in own])


def numeric_columns(schema: Any) -> tuple[list[str], list[str]]:
    """Numeric columns of an Arrow schema, and the others, which are left out."""
    from pyarrow import types

    is_number = (types.is_integer, types.is_floating, types.is_decimal)
    numeric = [entry.name for entry in schema if any(test(entry.type) for test in is_number)]
    return numeric, [name for name in schema.names if name not in numeric]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def image_files(path: Path) -> list[Path]:
    """Images in a folder and in those below it, by name.

    Raises:
        ValueError: there is none.
    """
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise ValueError(f"folder {str(path)!r} has no image ({', '.join(IMAGE_SUFFIXES)})")
    return files


def read_image(file: Path) -> np.ndarray[Any, Any]:
    """Pixels ``(channels, height, width)`` of 8 or 16 bits, grey or RGB.

    Raises:
        ValueError: not an image, or one of unknown full intensity.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            if image.mode in ("I", "F"):
                raise ValueError(
                    f"{str(file)!r} has mode {image.mode!r}, whose full intensity is not known; save bytes"
                )
            deep = image.mode.startswith("I;16")
            grey = deep or image.mode in ("1", "L", "LA")
            pixels = np.asarray(image if deep else image.convert("L" if grey else "RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"cannot read the image {str(file)!r}: {error}") from None
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def same_image(first: Path, one: np.ndarray[Any, Any], file: Path, other: np.ndarray[Any, Any]) -> None:
    """Refuse images that cannot stand in one array.

    Raises:
        ValueError: shapes or depths differ.
    """
    if other.shape != one.shape:
        raise ValueError(
            f"images differ: {str(first)!r} is {one.shape}, {str(file)!r} is {other.shape} "
            "(channels, height, width); bring them to one size"
        )
    if other.dtype != one.dtype:
        raise ValueError(
            f"{str(first)!r} has {8 * one.itemsize} bits and {str(file)!r} {8 * other.itemsize}: the folder mixes "
            "images of 8 and 16 bits; bring them to one depth"
        )


def _image_folder(path: Path) -> Source:
    files = image_files(path)
    images: list[np.ndarray[Any, Any]] = []
    for file in files:
        images.append(read_image(file))
        same_image(files[0], images[0], file, images[-1])
    classes = sorted({file.parent.name for file in files})
    labels = np.asarray([classes.index(file.parent.name) for file in files]) if len(classes) > 1 else None
    top = float(np.iinfo(images[0].dtype).max)
    return Source("image", np.stack(images), labels, top=top, about={"classes": classes} if len(classes) > 1 else {})
