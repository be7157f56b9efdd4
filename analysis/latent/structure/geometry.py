"""How codes lie in the latent space: projections, clusters, neighbours, and a linear probe of the labels."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from analysis.latent.structure.clustering import Clustering
from analysis.latent.structure.clusters import cluster
from analysis.latent.structure.codes import checked_codes
from analysis.latent.structure.linear_probe import Probe, probe
from analysis.latent.structure.neighbors import Neighbors, nearest
from analysis.latent.structure.projection import Projection, ProjectionMethod, project
from analysis.results.result import Result
from analysis.results.verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Structure(Result):
    """Projections, clusters, neighbours and linear probe of one set of codes.

    Attributes:
        projections: by each method that was asked for.
        clusterings: by each method.
        neighbors: nearest codes.
        probe: linear probe; ``None`` without labels.
    """

    projections: tuple[Projection, ...]
    clusterings: tuple[Clustering, ...]
    neighbors: Neighbors
    probe: Probe | None

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Of all parts."""
        parts = (*self.projections, *self.clusterings, *(() if self.probe is None else (self.probe,)))
        return tuple(verdict for part in parts for verdict in part.verdicts)

    def __str__(self) -> str:
        parts = (*self.projections, *self.clusterings, self.neighbors, self.probe)
        return "\n".join(str(part) for part in parts if part is not None)

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a clustering, by its method."""
        import pandas as pd

        return pd.DataFrame([part.summary() for part in self.clusterings]).set_index("method")

    def plot(self) -> "Figure":
        """The first projection, by the clusters of the first clustering where it has the same data."""
        from analysis.plotting import plot_latent

        if not self.projections:
            return self.neighbors.plot()
        first = self.projections[0]
        same = next((part for part in self.clusterings if np.array_equal(part.index, first.index)), None)
        return plot_latent(first.points[:, :2], clusters=None if same is None else same.labels)

    def summary(self) -> dict[str, Any]:
        """Scalars of all parts, in JSON's types."""
        return {
            "projections": [part.summary() for part in self.projections],
            "clusterings": [part.summary() for part in self.clusterings],
            "neighbors": self.neighbors.summary(),
            "probe": None if self.probe is None else self.probe.summary(),
        }


def structure(
    codes: Any,
    *,
    labels: Any = None,
    raw: Any = None,
    projections: tuple[ProjectionMethod, ...] = ("pca", "tsne"),
    dimension: int = 2,
    clusterings: tuple[Literal["kmeans", "mixture", "hdbscan"], ...] = ("mixture", "hdbscan"),
    num_clusters: int | None = None,
    max_data: int = 3000,
    seed: int = 0,
) -> Structure:
    """Projections, clusters, neighbours and the linear probe of one set of codes.

    Args:
        codes: posterior means, ``(datum, latent)``, see `analysis.draws.codes.posterior_means`.
        labels: of the data, ``(datum,)``; without them there is no probe.
        raw: x itself, for the probe's comparison.
        projections: methods of `project`.
        dimension: of the projections.
        clusterings: methods of `analysis.latent.structure.clusters.cluster`.
        num_clusters: for k-means and mixture; ``None`` lets them choose.
        max_data: data, drawn at random, for each part but the neighbours.
        seed: of all that is drawn.

    Raises:
        ValueError: see the parts.
        ImportError: likewise.
    """
    codes = checked_codes(codes)
    return Structure(
        tuple(project(codes, method=each, dimension=dimension, max_data=max_data, seed=seed) for each in projections),
        tuple(
            cluster(
                codes,
                method=each,
                labels=labels,
                num_clusters=None if each == "hdbscan" else num_clusters,
                max_data=max_data,
                seed=seed,
            )
            for each in clusterings
        ),
        nearest(codes, labels=labels, num_neighbors=min(10, len(codes) - 1)),
        None if labels is None else probe(codes, labels, raw=raw, max_data=max_data, seed=seed),
    )
