"""The result of `analysis.latent.structure.clusters.cluster`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from analysis.results.result import Result, finite_or_none
from analysis.results.text import screen
from analysis.results.verdict import Outcome, Verdict
from vae_pyro.core.means import standard_error

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]
type Method = Literal["kmeans", "mixture", "hdbscan"]
type Select = Literal["bic", "held_out", "silhouette"]

_STABLE, _DOUBTFUL = 0.75, 0.6


@dataclass(frozen=True, eq=False, repr=False)
class Clustering(Result):
    """A partition of codes, its stability, and its agreement with labels.

    Attributes:
        method: ``kmeans``, ``mixture`` or ``hdbscan``.
        index: data that were clustered, ``(datum,)``, as rows of the codes.
        labels: cluster of each of them, ``(datum,)``, from 0; -1 is noise (HDBSCAN alone).
        candidates: numbers of clusters that were compared, ``(candidate,)``; empty for HDBSCAN.
        criterion: of each candidate: BIC (lower is better), mean held-out log density in nats per datum, or silhouette
            (higher is better).
        criterion_se: its standard error over data, paired with the best candidate; NaN for BIC.
        select: which of the three.
        covariance: shape of the components that was chosen, for a mixture; ``None`` for the others.
        silhouette: mean silhouette, -1 to 1, noise left out; NaN for fewer than two clusters.
        silhouette_se: its standard error over data.
        stability: adjusted Rand index between the partition and those of bootstrap samples, ``(bootstrap,)``.
        jaccard: mean over bootstrap samples of each cluster's best Jaccard similarity with a cluster there,
            ``(cluster,)``.
        ari: adjusted Rand index with the labels of the data; ``None`` without labels.
        ari_se: its bootstrap standard error over data.
        nmi: normalised mutual information with them (arithmetic mean of the entropies).
        nmi_se: its bootstrap standard error over data.
    """

    method: Method
    index: Array
    labels: Array
    candidates: Array
    criterion: Array
    criterion_se: Array
    select: Select | None
    covariance: str | None
    silhouette: float
    silhouette_se: float
    stability: Array
    jaccard: Array
    ari: float | None = None
    ari_se: float | None = None
    nmi: float | None = None
    nmi_se: float | None = None

    @property
    def num_clusters(self) -> int:
        """Clusters, noise not counted."""
        return int(self.labels.max(initial=-1)) + 1

    @property
    def noise(self) -> float:
        """Share of data in no cluster."""
        return float((self.labels < 0).mean())

    @property
    def stability_mean(self) -> float:
        """Mean of `stability`; NaN without bootstrap."""
        return float(self.stability.mean()) if len(self.stability) else float("nan")

    @property
    def stability_se(self) -> float:
        """Monte Carlo standard error of `stability_mean`."""
        return standard_error(self.stability)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Whether the clusters are stable and, with labels, whether they agree with them."""
        found = []
        if len(self.jaccard) and len(self.stability):
            weakest = float(self.jaccard.min())
            outcome: Outcome = "pass" if weakest >= _STABLE else "warn"
            below = int((self.jaccard < _DOUBTFUL).sum())
            found.append(
                Verdict(
                    question="Are the clusters stable?",
                    value=weakest,
                    error=None,
                    unit="",
                    threshold=f"at least {_STABLE:g} for the weakest cluster's mean Jaccard similarity",
                    source="Hennig 2007, CSDA 52, and the manual of his R package fpc (clusterboot)",
                    outcome=outcome,
                    remedy=f"{below} of {len(self.jaccard)} clusters are below {_DOUBTFUL:g} and unreliable; ask for "
                    "fewer clusters, or read the plane without them",
                    name="cluster_jaccard",
                )
            )
        if self.ari is not None and self.ari_se is not None:
            follows: Outcome = "pass" if self.ari > 3 * self.ari_se else "warn"
            found.append(
                Verdict(
                    question="Do the clusters agree with the labels?",
                    value=self.ari,
                    error=self.ari_se,
                    unit="",
                    threshold="above 0, its mean for random partitions, by 3 standard errors",
                    source="Hubert & Arabie 1985, J. Classification 2, eq. 5",
                    outcome=follows,
                    remedy="the labels do not form clusters here; the linear probe requires less",
                    name="cluster_ari",
                )
            )
        return tuple(found)

    def __str__(self) -> str:
        noise = f", {100 * self.noise:.1f} % noise" if self.method == "hdbscan" else ""
        chosen = ""
        if len(self.candidates) > 1:
            chosen = f" (of {self.candidates.min()} to {self.candidates.max()}, by {self.select})"
        lines = [f"{self.method}: {self.num_clusters} clusters{chosen} of {len(self.labels):,} data{noise}"]
        lines.append(f"  silhouette {self.silhouette:.3f} ± {self.silhouette_se:.3f} (1 apart, 0 touching)")
        if len(self.stability):
            weakest = self.jaccard.min(initial=1.0)
            verdict = "stable" if weakest >= _STABLE else "not all stable"
            lines.append(
                f"  bootstrap ARI {self.stability_mean:.3f} ± {self.stability_se:.3f}; weakest cluster "
                f"{weakest:.2f} (Jaccard similarity, expected at least {_STABLE:g}): {verdict}"
            )
        if self.ari is not None:
            lines.append(
                f"  against the labels: ARI {self.ari:.3f} ± {self.ari_se:.3f}, NMI {self.nmi:.3f} ± {self.nmi_se:.3f}"
            )
        return screen(lines)

    def summary(self) -> dict[str, Any]:
        """Scalars in JSON's types; ``None`` where there is none."""
        keys = ("silhouette", "silhouette_se", "ari", "ari_se", "nmi", "nmi_se", "noise")
        return {
            "method": self.method,
            "num_clusters": self.num_clusters,
            "select": self.select,
            "covariance": self.covariance,
            **{key: finite_or_none(getattr(self, key)) for key in keys},
            "stability": finite_or_none(self.stability_mean),
            "stability_se": finite_or_none(self.stability_se),
            "weakest_jaccard": finite_or_none(float(self.jaccard.min())) if len(self.jaccard) else None,
            "n": len(self.labels),
        }

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a datum, by its row of the codes: its cluster, -1 for noise."""
        import pandas as pd

        return pd.DataFrame({"cluster": self.labels}, index=pd.Index(self.index, name="row"))

    def plot(self) -> "Figure":
        """Mean Jaccard similarity of each cluster over bootstrap samples; sizes where there are none."""
        from analysis.plotting import plot_bars

        names = [f"cluster {number}" for number in range(self.num_clusters)] or ["noise"]
        if len(self.jaccard):
            return plot_bars(names, self.jaccard, xlabel="mean Jaccard similarity over bootstrap samples")
        sizes = np.bincount(self.labels[self.labels >= 0], minlength=len(names))
        return plot_bars(names, sizes, xlabel="data")
