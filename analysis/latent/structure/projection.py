"""Projections of codes to a plane or to space, and how well they preserve neighbourhoods."""

import importlib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from analysis.latent.structure.codes import checked_codes, some_rows
from analysis.results.result import Result, finite_or_none
from analysis.results.text import screen
from analysis.results.verdict import Outcome, Verdict
from vae_pyro.core.isolation import derive_seed
from vae_pyro.core.means import standard_error

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]
type ProjectionMethod = Literal["pca", "tsne", "umap"]

# Data among which all distances are taken at once for trustworthiness and continuity, and the most such groups.
_GROUP, _GROUPS = 1000, 5
_FAITHFUL = 0.9


@dataclass(frozen=True, eq=False, repr=False)
class Projection(Result):
    """Codes in two or three dimensions, and how well their neighbourhoods are preserved.

    Attributes:
        method: ``pca``, ``tsne`` or ``umap``.
        index: data that were projected, ``(datum,)``, as rows of the codes.
        points: ``(datum, dimension)``, float64.
        explained: share of the variance on each axis, for PCA; ``None`` for the others, whose axes mean nothing.
        trustworthiness: 1 where all neighbours in the picture are neighbours in the latent space.
        trustworthiness_se: its standard error over groups of data; NaN for a single group.
        continuity: 1 where all neighbours in the latent space are neighbours in the picture.
        continuity_se: likewise.
        num_neighbors: how many nearest data are neighbours.
        group: data in a group, among which neighbours are sought.
    """

    method: ProjectionMethod
    index: Array
    points: Array
    explained: Array | None
    trustworthiness: float
    trustworthiness_se: float
    continuity: float
    continuity_se: float
    num_neighbors: int
    group: int

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Whether the picture preserves neighbourhoods."""
        lower = min(self.trustworthiness, self.continuity)
        trusted = self.trustworthiness <= self.continuity
        error = self.trustworthiness_se if trusted else self.continuity_se
        outcome: Outcome = "pass" if lower >= _FAITHFUL else "warn"
        return (
            Verdict(
                question=f"Does the {self.method} projection preserve neighbourhoods?",
                value=lower,
                error=error if np.isfinite(error) else None,
                unit="",
                threshold=f"trustworthiness and continuity at least {_FAITHFUL:g}",
                source="convention: at most a tenth of the greatest possible error in ranks (Venna & Kaski 2001)",
                outcome=outcome,
                remedy=(
                    "points that are close in it may be far apart" if trusted else "points far apart in it may be close"
                )
                + "; look at three dimensions, or at the neighbours themselves",
                name=f"{self.method}_faithful",
            ),
        )

    def __str__(self) -> str:
        dimension = self.points.shape[1]
        share = "" if self.explained is None else f", {100 * self.explained.sum():.1f} % of the variance"
        faithful = min(self.trustworthiness, self.continuity) >= _FAITHFUL
        said = "neighbourhoods are preserved" if faithful else "neighbourhoods are not preserved"
        return screen(
            [
                f"{self.method} of {len(self.points):,} codes in {dimension} dimensions{share}",
                f"  trustworthiness {self.trustworthiness:.3f}{plus_error(self.trustworthiness_se)}, continuity "
                f"{self.continuity:.3f}{plus_error(self.continuity_se)} ({self.num_neighbors} neighbours among "
                f"{self.group:,}; expected at least {_FAITHFUL:g}): {said}",
            ]
        )

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a datum, by its row of the codes: its place on each axis."""
        import pandas as pd

        axes = [f"axis_{number}" for number in range(self.points.shape[1])]
        return pd.DataFrame(self.points, columns=axes, index=pd.Index(self.index, name="row"))

    def plot(self) -> "Figure":
        """The points on the first two axes."""
        from analysis.plotting import plot_latent

        return plot_latent(self.points[:, :2])

    def summary(self) -> dict[str, Any]:
        """Scalars in JSON's types; ``None`` where there is none."""
        keys = ("trustworthiness", "trustworthiness_se", "continuity", "continuity_se")
        explained = None if self.explained is None else [float(share) for share in self.explained]
        return {
            "method": self.method,
            "dimension": self.points.shape[1],
            **{key: finite_or_none(getattr(self, key)) for key in keys},
            "num_neighbors": self.num_neighbors,
            "explained": explained,
            "n": len(self.points),
        }


def plus_error(se: float) -> str:
    return f" ± {se:.3f}" if np.isfinite(se) else ""


def faithfulness(codes: Any, points: Any, *, num_neighbors: int = 10, seed: int = 0) -> tuple[Array, Array, int]:
    """Trustworthiness and continuity of a projection, for disjoint random groups of at most 1,000 data.

    Trustworthiness is one less the scaled sum, over data that are neighbours in the picture and not in the latent
    space, of how far their rank in the latent space exceeds the number of neighbours; continuity is the same with the
    spaces exchanged. Both are near one half for points placed at random, and depend on the size of a group.

    Args:
        codes: ``(datum, latent)``.
        points: ``(datum, dimension)``.
        num_neighbors: fewer than half a group.
        seed: of the groups.

    Returns:
        Two arrays ``(group,)``, and the number of data in a group.

    Raises:
        ValueError: wrong shapes, or too few data for so many neighbours.

    References:
        Venna & Kaski 2001, Neighborhood preservation in nonlinear projection methods, ICANN, eqs. 1-2.
        doi:10.1007/3-540-44668-0_68
        Venna & Kaski 2006, Local multidimensional scaling, Neural Networks 19, sec. 2. doi:10.1016/j.neunet.2006.05.014
    """
    from sklearn.manifold import trustworthiness

    codes, points = checked_codes(codes), checked_codes(points)
    if len(codes) != len(points):
        raise ValueError(f"codes and points of the same data required, got {len(codes)} and {len(points)}")
    group = min(len(codes), _GROUP)
    if not 1 <= num_neighbors < group / 2:
        raise ValueError(f"num_neighbors is between 1 and half of {group} data, got {num_neighbors}")
    order = np.random.default_rng(derive_seed(seed, 0)).permutation(len(codes))
    found = []
    for number in range(min(len(codes) // group, _GROUPS)):
        rows = order[number * group : (number + 1) * group]
        a, b = codes[rows], points[rows]
        found.append(
            (trustworthiness(a, b, n_neighbors=num_neighbors), trustworthiness(b, a, n_neighbors=num_neighbors))
        )
    trusted, continuous = np.array(found).T
    return trusted, continuous, group


def project(
    codes: Any,
    *,
    method: ProjectionMethod = "pca",
    dimension: int = 2,
    num_neighbors: int = 10,
    max_data: int = 5000,
    seed: int = 0,
    **options: Any,
) -> Projection:
    """Project codes to a plane or to space.

    Args:
        codes: ``(datum, latent)``; those of a single latent stand on a line whatever the method, with zeros beside.
        method: ``pca``; ``tsne``; or ``umap``, which needs the extra ``latent``.
        dimension: 2 or 3.
        num_neighbors: for trustworthiness and continuity; fewer where there are too few data.
        max_data: data, drawn at random, where there are more.
        seed: of the draws and of the start.
        options: of scikit-learn's ``TSNE`` (``perplexity``) or umap-learn's ``UMAP`` (``n_neighbors``, ``min_dist``).

    Raises:
        ValueError: an unknown method, another dimension, fewer than 5 data, or codes that are not finite.
        ImportError: umap-learn is not installed.

    References:
        van der Maaten & Hinton 2008, Visualizing data using t-SNE, JMLR 9.
        McInnes, Healy & Melville 2018, UMAP. arXiv:1802.03426
    """
    codes = checked_codes(codes)
    if method not in ("pca", "tsne", "umap"):
        raise ValueError(f"unknown projection {method!r}; choose from pca, tsne, umap")
    if dimension not in (2, 3):
        raise ValueError(f"a projection has 2 or 3 dimensions, got {dimension}")
    if len(codes) < 5:
        raise ValueError(f"a projection requires at least 5 data, got {len(codes)}")
    if method == "pca" and options:
        raise ValueError(f"pca has no option {next(iter(options))!r}")
    index = some_rows(len(codes), max_data, seed, 1)
    z = codes[index]
    explained = None
    if method == "pca" or z.shape[1] < 2:
        points, explained = _principal(z, dimension)
    elif method == "tsne":
        points = _tsne(z, dimension, derive_seed(seed, 2) % 2**32, options)
    else:
        points = _umap(z, dimension, derive_seed(seed, 2) % 2**32, options)
    neighbors = min(num_neighbors, (min(len(z), _GROUP) - 1) // 2)
    trusted, continuous, group = faithfulness(z, points, num_neighbors=neighbors, seed=derive_seed(seed, 3))
    return Projection(
        method=method,
        index=index,
        points=points,
        explained=explained,
        trustworthiness=float(trusted.mean()),
        trustworthiness_se=standard_error(trusted),
        continuity=float(continuous.mean()),
        continuity_se=standard_error(continuous),
        num_neighbors=neighbors,
        group=group,
    )


def _principal(z: Array, dimension: int) -> tuple[Array, Array]:
    # The covariance is small and its eigenvectors exact and without a seed; signs make the largest weight positive.
    centred = z - z.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(z))
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    vectors = vectors * np.where(vectors[np.abs(vectors).argmax(0), np.arange(len(values))] < 0, -1.0, 1.0)
    points = np.zeros((len(z), dimension))
    kept = min(dimension, z.shape[1])
    points[:, :kept] = centred @ vectors[:, :kept]
    explained = np.zeros(dimension)
    explained[:kept] = values[:kept] / max(values.sum(), 1e-300)
    return points, explained


def _tsne(z: Array, dimension: int, state: int, options: dict[str, Any]) -> Array:
    from sklearn.manifold import TSNE

    # The start is the principal plane, as in scikit-learn, which asks for as many latents as dimensions.
    start, _ = _principal(z, dimension)
    start = (1e-4 * start / max(start[:, 0].std(), 1e-300)).astype(np.float32)
    settings = {"perplexity": min(30.0, (len(z) - 1) / 3), "init": start, **options}
    return np.asarray(TSNE(dimension, random_state=state, **settings).fit_transform(z), dtype=np.float64)


def _umap(z: Array, dimension: int, state: int, options: dict[str, Any]) -> Array:
    with warnings.catch_warnings():
        # umap-learn warns of TensorFlow's absence when it is imported, and of how small data sets are handled.
        warnings.simplefilter("ignore")
        try:
            umap = importlib.import_module("umap")
        except ImportError as error:
            raise ImportError(
                f"projection 'umap' needs umap-learn ({error}); pip install 'vae_pyro[latent]', or choose 'tsne'"
            ) from error
        settings = {"n_neighbors": min(15, len(z) - 1), **options}
        made = umap.UMAP(n_components=dimension, random_state=state, n_jobs=1, **settings)
        return np.asarray(made.fit_transform(z), dtype=np.float64)
