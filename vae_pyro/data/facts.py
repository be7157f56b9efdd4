"""Facts about data: what a run folder records of them, what a model has to know, what a user is shown."""

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from vae_pyro.core.registry import describe_errors
from vae_pyro.data.observation import Space
from vae_pyro.data.tables.cells import listed
from vae_pyro.data.tables.schema import Schema

# Fields of later versions are passed over, so that their files can be read.
_CONFIG = ConfigDict(extra="ignore")

type Fraction = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=_CONFIG)
class About:
    """What a source says of its rows.

    Attributes:
        columns: names of a table's columns.
        columns_left_out: names of those that are no data.
        classes: names of the classes, in the order of their codes.
        factors: number of levels of each factor that images were made from.
        sparse: whether the source keeps non-zero entries alone.
        entries: number of these.
        schema: of the columns, where they are of all kinds.
    """

    columns: tuple[str, ...] | None = None
    columns_left_out: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    factors: dict[str, int] | None = None
    sparse: bool = False
    entries: int | None = None
    schema: Schema | None = None


@dataclass(frozen=True, config=_CONFIG)
class Replay:
    """Draws of an earlier model that were joined with the data.

    Attributes:
        share: of draws in what is fitted.
        draws: number of them, by split.
        fingerprint: of what is fitted.
    """

    share: float
    draws: dict[str, int]
    fingerprint: str


@dataclass(frozen=True, config=_CONFIG)
class DataFacts(About):
    """What is known of a data set, its splits and how they are observed.

    Of arrays, whose source is not known, there is the fingerprint alone.

    Attributes:
        fingerprint: SHA-256 of the splits, by which a run notices that its data have changed.
        name: of the source.
        kind: ``image`` or ``table``.
        x_shape: event shape of one datum.
        sizes: number of data by split.
        range: smallest and largest training observation.
        integral: whether all training observations are integers.
        space: of the observations, see `vae_pyro.data.observation.Space`.
        evaluation: how random observations of test data are drawn, in words.
        labels: whether the source has labels.
        missing: share of the training elements that are not observed; ``None`` where nothing can be missing.
        given_labels: training data whose label the programs are given; ``None`` where they are given none.
        streamed: whether the data stay where they are.
        top: stored value of full intensity, where there is one.
        replay: draws that stand beside the data, if any.
        path: absolute path of a source that is a file or a folder, so that it is found from any working directory.
    """

    fingerprint: str = ""
    name: str | None = None
    kind: Literal["image", "table"] | None = None
    x_shape: tuple[int, ...] | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    range: tuple[float, float] | None = None
    integral: bool | None = None
    space: Space | None = None
    evaluation: str = ""
    labels: bool | None = None
    missing: Fraction | None = None
    given_labels: int | None = None
    streamed: bool = False
    top: float | None = None
    replay: Replay | None = None
    path: str | None = None

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """What `to_json` gave, of this or an earlier version.

        Raises:
            ValueError: no object with the fields of facts; the message names the field.
        """
        try:
            return cls(**stored)
        except ValidationError as error:
            raise ValueError(f"facts of data: {describe_errors(error)}") from None
        except TypeError:
            raise ValueError(f"facts of data are a JSON object, got {stored!r:.60}") from None

    def to_json(self) -> dict[str, Any]:
        """The facts that are known, in JSON types."""
        written = TypeAdapter(type(self)).dump_python(self, mode="json")
        unknown = type(self)()
        return {name: value for name, value in written.items() if getattr(self, name) != getattr(unknown, name)}

    def rows(self) -> list[tuple[str, str]]:
        """What a user should see of them, as pairs of a title and a text."""
        classes = "" if self.classes is None else f"{len(self.classes)} classes: {listed(self.classes)}"
        given = "" if self.given_labels is None else f"given for {self.given_labels:,} training data"
        shown = {
            "splits": ", ".join(f"{name} {size:,}" for name, size in self.sizes.items()),
            "observed": "; ".join(filter(None, (str(self.space or ""), self.evaluation))),
            "range": "" if self.range is None else f"{self.range[0]:g} to {self.range[1]:g}, training data",
            "columns": listed(self.columns or ()),
            "left out": listed(self.columns_left_out or ()),
            "labels": "; ".join(filter(None, (classes or ("yes" if self.labels else ""), given))),
            "missing": "" if self.missing is None else f"{self.missing:.1%} of the training elements",
            "sparse": f"{self.entries:,} entries" if self.sparse and self.entries is not None else "",
            "streamed": "read block by block" if self.streamed else "",
            "replayed": "" if self.replay is None else f"{self.replay.share:.0%} draws of an earlier model",
        }
        return [(title, text) for title, text in shown.items() if text]

    @property
    def title(self) -> str:
        """Name, kind and shape of the data."""
        shape = "" if self.x_shape is None else f", {' x '.join(map(str, self.x_shape))}"
        return f"{self.name}: {self.kind}{shape}" if self.name else "data given as arrays"

    def __str__(self) -> str:
        width = max((len(title) for title, _ in self.rows()), default=0)
        return "\n".join([self.title, *(f"  {title.ljust(width)}  {text}" for title, text in self.rows())])
