"""Folders of images."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vae_pyro.core.regular import require_regular
from vae_pyro.data.facts import About
from vae_pyro.data.readers import READERS
from vae_pyro.data.readers.reader import Reader
from vae_pyro.data.readers.store import Array, Store, native_type, one_by_one

# What is opened, whatever an ending says: Pillow's other formats start programs (PostScript), or are no pictures.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


@READERS.register("images")
class ImageReader(Reader):
    """Images of one size, whose sub-folders, if any, are classes."""

    expects = "a folder of images"
    streams = True
    general = True  # any folder that nothing else takes

    def recognises(self, source: Any) -> bool:
        """Whether it is a folder."""
        return isinstance(source, Path) and source.is_dir()

    def open(self, source: Path) -> Store:
        return ImageFolder(source)


class ImageFolder(Store):
    """A folder of images of one size, whose sub-folders, if any, are classes.

    The names of the files are held, the pictures are read when they are asked for.

    Args:
        path: of the folder.

    Raises:
        ValueError: no image, or a first one that cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self.name = f"folder {str(path)!r}"
        self._files = [str(file.relative_to(self.path)) for file in image_files(self.path)]
        self._first = read_image(self.path / self._files[0])
        self.x_shape, self.dtype = self._first.shape, native_type(self._first.dtype)
        classes = sorted({self._class(file) for file in self._files})
        self._codes = {name: number for number, name in enumerate(classes)}
        self.labelled = len(classes) > 1
        if self.labelled:
            self.about = About(classes=tuple(classes))

    def _class(self, file: str) -> str:
        return Path(file).parent.name or self.path.name

    def __len__(self) -> int:
        return len(self._files)

    @property
    def kind(self) -> str:
        """``image``."""
        return "image"

    @cached_property
    def top(self) -> float | None:
        """Full intensity of the depth of the images."""
        return float(np.iinfo(self._first.dtype).max)

    def read(self, start: int, stop: int) -> Array:
        found = np.empty((stop - start, *self.x_shape), self.dtype)
        for place, file in enumerate(self._files[start:stop]):
            image = read_image(self.path / file)
            self._require_same(file, image)
            found[place] = image
        return found

    def _require_same(self, file: str, image: Array) -> None:
        """Refuse an image that cannot stand in one array with the first."""
        first, path = str(self.path / self._files[0]), str(self.path / file)
        if image.shape != self._first.shape:
            raise ValueError(
                f"images differ: {first!r} is {self._first.shape}, {path!r} is {image.shape} (channels, height, "
                "width); bring them to one size"
            )
        if image.dtype != self._first.dtype:
            raise ValueError(
                f"{first!r} has {8 * self._first.itemsize} bits and {path!r} {8 * image.itemsize}: the folder mixes "
                "images of 8 and 16 bits; bring them to one depth"
            )

    def rows(self, index: Array) -> Array:
        """See `Store.rows`; each is a file of its own."""
        return one_by_one(self, index)

    def labels(self, index: Array) -> Array | None:
        """Number of the class of each."""
        if not self.labelled:
            return None
        return np.asarray([self._codes[self._class(self._files[int(i)])] for i in index], np.int64)


def image_files(path: Path) -> list[Path]:
    """Images in a folder and in those below it, by name.

    Raises:
        ValueError: there is none.
    """
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f"folder {str(path)!r} has no image ({', '.join(SUFFIXES)})")
    return files


def read_image(file: Path) -> Array:
    """Pixels ``(channels, height, width)`` of 8 or 16 bits, grey or RGB, upright; over black where transparent.

    The orientation that a camera notes (EXIF) is applied, and an opacity (alpha) multiplies the intensities.

    Raises:
        ValueError: not an image, one of several frames, of unknown full intensity, or of more pixels than Pillow's
            ``Image.MAX_IMAGE_PIXELS`` allows.
    """
    from PIL import Image, ImageOps

    name = repr(str(file))
    require_regular(file)
    try:
        with Image.open(file, formats=_FORMATS) as image:
            frames, mode = getattr(image, "n_frames", 1), image.mode
            refused = None
            if frames > 1 and image.format != "MPO":  # a photograph whose further frames are views of the same
                refused = f"{name} has {frames} frames; save the one that is meant, or each as a file of its own"
            elif mode in ("I", "F"):
                refused = f"{name} has mode {mode!r}, whose full intensity is not known; save bytes"
            deep = mode.startswith("I;16")
            grey = deep or mode in ("1", "L", "LA")
            if refused:
                pixels = None
            else:
                upright: Any = ImageOps.exif_transpose(image)
                if upright.has_transparency_data:
                    upright = upright.convert("RGBA")
                    upright = Image.alpha_composite(Image.new("RGBA", upright.size, (0, 0, 0, 255)), upright)
                pixels = np.asarray(upright if deep else upright.convert("L" if grey else "RGB"))
    except Image.DecompressionBombError as error:
        raise ValueError(f"cannot read the image {name}: {error}; bring it to a smaller size") from None
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:  # Pillow's for broken files
        raise ValueError(f"cannot read the image {name}: {error}") from None
    if pixels is None:
        raise ValueError(refused)
    return pixels[None] if grey else pixels.transpose(2, 0, 1)
