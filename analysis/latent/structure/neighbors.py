"""The nearest codes of each code, and how many share its label."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.latent.structure.codes import checked_codes
from analysis.results.result import Result
from vae_pyro.core.means import standard_error

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False, repr=False)
class Neighbors(Result):
    """The nearest codes of each code.

    Attributes:
        index: rows of the codes, nearest first, ``(query, neighbor)``; a datum is not its own neighbour.
        distance: Euclidean, ``(query, neighbor)``.
        agreement: share of the neighbours that have the datum's label; ``None`` without labels.
        agreement_se: its standard error over data.
        chance: the same for neighbours drawn at random.
    """

    index: Array
    distance: Array
    agreement: float | None = None
    agreement_se: float | None = None
    chance: float | None = None

    def __str__(self) -> str:
        count = self.index.shape[1]
        text = f"{count} nearest codes of {len(self.index):,} data, median distance {np.median(self.distance):.3g}"
        if self.agreement is not None:
            text += (
                f"\n  {100 * self.agreement:.1f} ± {100 * (self.agreement_se or 0):.1f} % of them have the datum's "
                f"label (at random {100 * (self.chance or 0):.1f} %)"
            )
        return text

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a query and neighbour, nearest first: row of the neighbour and distance."""
        import pandas as pd

        query, rank = np.indices(self.index.shape)
        index = pd.MultiIndex.from_arrays([query.ravel(), rank.ravel()], names=["query", "rank"])
        return pd.DataFrame({"row": self.index.ravel(), "distance": self.distance.ravel()}, index=index)

    def plot(self) -> "Figure":
        """Distances to the nearest and to the furthest of the neighbours."""
        from analysis.plotting import plot_scores

        names = ("nearest", f"neighbour {self.index.shape[1]}")
        return plot_scores(self.distance[:, 0], self.distance[:, -1], names=names, xlabel="distance of codes")

    def summary(self) -> dict[str, Any]:
        """Scalars in JSON's types."""
        return {
            "num_neighbors": self.index.shape[1],
            "agreement": self.agreement,
            "agreement_se": self.agreement_se,
            "chance": self.chance,
            "n": len(self.index),
        }


def nearest(codes: Any, *, queries: Any = None, num_neighbors: int = 10, labels: Any = None) -> Neighbors:
    """The nearest codes of some data or of all, and how many share their label.

    Args:
        codes: ``(datum, latent)``.
        queries: rows whose neighbours are sought; ``None`` is all.
        num_neighbors: how many, fewer than the data.
        labels: of the data, ``(datum,)``.

    Raises:
        ValueError: wrong shapes, rows that there are not, or too many neighbours.
    """
    from sklearn.neighbors import NearestNeighbors

    codes = checked_codes(codes)
    if not 1 <= num_neighbors < len(codes):
        raise ValueError(f"num_neighbors is between 1 and {len(codes) - 1}, got {num_neighbors}")
    rows = np.arange(len(codes)) if queries is None else np.atleast_1d(np.asarray(queries))
    if rows.dtype.kind not in "ui" or len(rows) == 0 or rows.min() < 0 or rows.max() >= len(codes):
        raise ValueError(f"queries are rows from 0 to {len(codes) - 1}, got {np.asarray(queries).tolist()}")
    # One more than asked for, since a datum is nearest to itself; where copies precede it, the last one is dropped.
    distance, index = NearestNeighbors(n_neighbors=num_neighbors + 1).fit(codes).kneighbors(codes[rows])
    own = index == rows[:, None]
    own[~own.any(1), -1] = True
    index, distance = (part[~own].reshape(len(rows), num_neighbors) for part in (index, distance))
    if labels is None:
        return Neighbors(index, distance)
    classes = np.asarray(labels)
    if classes.shape != (len(codes),):
        raise ValueError(f"labels of shape ({len(codes)},) required, got {classes.shape}")
    same = (classes[index] == classes[rows][:, None]).mean(1)
    _, inverse, counts = np.unique(classes, return_inverse=True, return_counts=True)
    chance = ((counts - 1) / (len(codes) - 1))[inverse[rows]].mean()
    return Neighbors(index, distance, float(same.mean()), standard_error(same), float(chance))
