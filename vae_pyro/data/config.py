"""What to load, how it is split, and how it is observed."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from vae_pyro.core.config import Config
from vae_pyro.data.observation import DRAWN, THRESHOLDED, Observation, Space
from vae_pyro.data.tables.schema import Category, Column

if TYPE_CHECKING:
    from vae_pyro.data.dataset import Dataset

type Binarize = Literal["none", "dynamic", "static", "threshold"]
type Scale = Literal["auto", "unit", "none"]


class DataConfig(Config):
    """What to load and how it is observed.

    Attributes:
        source: name of a data set (``vae-pyro datasets`` lists them), or path of a file or folder in a format of
            `vae_pyro.data.readers.READERS`.
        root: folder of downloaded data sets, see `vae_pyro.data.datasets.data_root`.
        scale: ``unit`` divides images by their full intensity, ``none`` leaves the stored values, ``auto`` is ``unit``
            for images that have one and ``none`` for everything else.
        binarize: ``dynamic`` draws every pixel from Bernoulli(intensity) anew at every step, ``static`` draws once,
            ``threshold`` cuts at half intensity. Validation and test are always drawn once, with `seed`.
        dequantize: add uniform noise of one level to quantised values, anew at every step (Theis et al. 2016,
            arXiv:1511.01844, sec. 3.1), so that a density is a bound for probabilities.
        validation_fraction: share taken out of the training data.
        test_fraction: share taken out where the source has no test data of its own.
        seed: of the split and of every fixed draw; not the seed of a fit.
        stream: leave the data where they are, and read them block by block; ``False`` reads them whole. ``None``
            streams what its reader prefers to stream, whatever the machine has: zarr folders, folders of parquet files,
            and ``.npy`` files of 2 GiB and more. The split is another one than that of data in memory, of the same
            sizes (`vae_pyro.data.streams.shares.Share`).
        given_labels: labels that model and guide are given as ``y``: ``all``, or so many of the training data, as many
            of each class, drawn with `seed`; the others are -1, unknown, as are those of validation and test data.
            ``None`` gives none.
        labelled_share: training data whose label is given are repeated until they are this share of an epoch, see
            `vae_pyro.data.labels.repeat_labelled`.
        kinds: take all columns of a table, text as well, for the likelihood ``table``: kind by name where the inferred
            one is not meant, see `vae_pyro.data.tables.inference.infer`. ``auto`` does so where some columns are no
            numbers; ``None`` takes the columns of numbers as they are.
        columns: take these columns of a table, with these kinds and codes (those of another table), and infer nothing.
    """

    source: str
    root: str | None = None
    scale: Scale = "auto"
    binarize: Binarize = "none"
    dequantize: bool = False
    validation_fraction: float = Field(default=0.1, ge=0, lt=1)
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    seed: int = 0
    stream: bool | None = None
    given_labels: Annotated[int, Field(ge=1)] | Literal["all"] | None = None
    labelled_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    kinds: dict[str, str | tuple[Category, ...]] | Literal["auto"] | None = None
    columns: tuple[Column, ...] | None = None

    @model_validator(mode="after")
    def _one_way_to_read(self) -> Self:
        if self.stream and (isinstance(self.kinds, dict) or self.columns is not None):
            raise ValueError("a table with columns of all kinds cannot be streamed; leave stream out")
        return self

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    def load(self, columns: tuple[Column, ...] | None = None) -> "Dataset":
        """Read, split and prepare.

        Args:
            columns: of a table as they were read before, whatever its kinds would be inferred to be now.

        Raises:
            FileNotFoundError: no such file, or a data set that is absent and cannot be downloaded.
            ValueError: an unknown name, contents that are not data, a binarization or scale that the data cannot have,
                or too few data to split.
        """
        from vae_pyro.data.dataset import load

        return load(self, columns)

    def observation(
        self, top: float | None, dtype: np.dtype[Any], reach: Callable[[], tuple[float, float]]
    ) -> Observation:
        """How stored values become observations.

        Args:
            top: full intensity, where the data have one.
            dtype: of the stored values.
            reach: gives the smallest and the largest of them.

        Raises:
            ValueError: the values cannot be observed in that way.
        """
        unit = self.scale == "unit" or (self.scale == "auto" and top is not None) or self.binarize != "none"
        if unit and top is None:
            low, high = reach()
            if low < 0 or high > 1:
                way = "binarize" if self.binarize != "none" else "scale='unit'"
                raise ValueError(
                    f"{way} requires intensities, got [{low:g}, {high:g}] without a known top; scale to [0, 1]"
                )
            top = 1.0
        if self.binarize == "threshold" and not self.dequantize:
            assert top is not None
            return Observation(None, "none", THRESHOLDED, cut=top / 2)
        divisor = top if unit else None
        if self.dequantize:
            if self.binarize != "none":
                raise ValueError("dequantize=True and a binarization exclude each other; choose one")
            if dtype.kind == "f":
                raise ValueError(f"dequantize=True requires integers, {self.source!r} holds {dtype}")
            return Observation(divisor, "dequantize", Space.dequantized(None if divisor is None else divisor + 1))
        if self.binarize != "none":
            return Observation(divisor, "binarize", DRAWN)
        return Observation(divisor, "none", Space.scaled(divisor))

    @property
    def evaluation(self) -> str:
        """What is random in observations of test data, in words."""
        if self.binarize in ("dynamic", "static"):
            return f"binarised once with seed {self.seed}, the same for every run and model"
        if self.dequantize:
            return f"dequantised once with seed {self.seed}, the same for every run and model"
        return "no random element"
