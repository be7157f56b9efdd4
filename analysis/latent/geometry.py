"""How codes lie in the latent space: projections to a plane or to space, neighbours, and what a linear probe reads."""

import importlib
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from analysis.latent.clusters import Clustering, cluster
from analysis.results.verdict import Outcome, Verdict
from vae_pyro.core.isolation import derive_seed

type Array = np.ndarray[Any, Any]
type ProjectionMethod = Literal["pca", "tsne", "umap"]

# Data among which all distances are taken at once for trustworthiness and continuity, and the most such groups.
_GROUP, _GROUPS = 1000, 5
_FAITHFUL = 0.9


@dataclass(frozen=True)
class Projection:
    """Codes in two or three dimensions, and how far their neighbourhoods can be believed.

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
        """Whether the picture's neighbourhoods can be believed."""
        lower = min(self.trustworthiness, self.continuity)
        trusted = self.trustworthiness <= self.continuity
        error = self.trustworthiness_se if trusted else self.continuity_se
        outcome: Outcome = "pass" if lower >= _FAITHFUL else "warn"
        return (
            Verdict(
                question=f"Can neighbourhoods in the {self.method} picture be believed?",
                figure=lower,
                error=error if np.isfinite(error) else None,
                unit="",
                threshold=f"trustworthiness and continuity at least {_FAITHFUL:g}",
                source="convention: at most a tenth of the greatest possible error in ranks (Venna & Kaski 2001)",
                outcome=outcome,
                advice=""
                if outcome == "pass"
                else ("what lies together in it may be apart" if trusted else "what lies apart in it may be together")
                + "; look at three dimensions, or at the neighbours themselves",
                name=f"{self.method}_faithful",
            ),
        )

    def __str__(self) -> str:
        dimension = self.points.shape[1]
        share = "" if self.explained is None else f", {100 * self.explained.sum():.1f} % of the variance"
        believed = min(self.trustworthiness, self.continuity) >= _FAITHFUL
        said = "its neighbourhoods can be believed" if believed else "its neighbourhoods are not those of the codes"
        return (
            f"{self.method} of {len(self.points):,} codes in {dimension} dimensions{share}\n"
            f"  trustworthiness {self.trustworthiness:.3f}{_error(self.trustworthiness_se)}, continuity "
            f"{self.continuity:.3f}{_error(self.continuity_se)} ({self.num_neighbors} neighbours among "
            f"{self.group:,}; wanted {_FAITHFUL:g}): {said}"
        )

    def summary(self) -> dict[str, Any]:
        """Figures in JSON's types; ``None`` where there is none."""
        keys = ("trustworthiness", "trustworthiness_se", "continuity", "continuity_se")
        explained = None if self.explained is None else [float(share) for share in self.explained]
        return {
            "method": self.method,
            "dimension": self.points.shape[1],
            **{key: _number(getattr(self, key)) for key in keys},
            "num_neighbors": self.num_neighbors,
            "explained": explained,
            "n": len(self.points),
        }


@dataclass(frozen=True)
class Neighbors:
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

    def summary(self) -> dict[str, Any]:
        """Figures in JSON's types."""
        return {
            "num_neighbors": self.index.shape[1],
            "agreement": self.agreement,
            "agreement_se": self.agreement_se,
            "chance": self.chance,
            "n": len(self.index),
        }


@dataclass(frozen=True)
class Probe:
    """How well a linear classifier reads the labels from the codes, by cross-validation.

    Attributes:
        right: whether each datum was classified rightly by the folds that it was held out of, ``(datum,)``.
        baseline: the same for the commonest label of those folds.
        raw: the same for a probe of x itself; ``None`` where x was not given.
        classes: labels that there are.
        converged: whether the fits reached their optimum.
    """

    right: Array
    baseline: Array
    raw: Array | None
    classes: Array
    converged: bool

    @property
    def accuracy(self) -> float:
        """Share of data classified rightly."""
        return float(self.right.mean())

    @property
    def accuracy_se(self) -> float:
        """Standard error of `accuracy` over data; that of other training folds is not in it."""
        return float(self.right.std(ddof=1) / np.sqrt(len(self.right)))

    @property
    def majority(self) -> float:
        """Accuracy of the commonest label."""
        return float(self.baseline.mean())

    @property
    def raw_accuracy(self) -> float | None:
        """Accuracy of the probe of x."""
        return None if self.raw is None else float(self.raw.mean())

    def difference(self, other: Array) -> tuple[float, float]:
        """`accuracy` less that of ``other``, and its standard error over the same data."""
        paired = self.right.astype(np.float64) - other
        return float(paired.mean()), float(paired.std(ddof=1) / np.sqrt(len(paired)))

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Whether the codes know the labels, and whether they lost what x knows of them."""
        gain, gain_se = self.difference(self.baseline)
        known: Outcome = "pass" if gain > 3 * gain_se else "fail"
        found = [
            Verdict(
                question="Do the codes know the labels?",
                figure=self.accuracy,
                error=self.accuracy_se,
                unit="",
                threshold=f"above {self.majority:.3f} by 3 standard errors of the difference",
                source="convention: the commonest label, which needs no code",
                outcome=known,
                advice="" if known == "pass" else "look at the active latents: the posterior may have collapsed",
                name="probe",
            )
        ]
        if self.raw is not None:
            lost, lost_se = self.difference(self.raw)
            kept: Outcome = "pass" if lost > -3 * lost_se or lost >= 0 else "warn"
            found.append(
                Verdict(
                    question="Do the codes keep what a linear probe reads from x?",
                    figure=lost,
                    error=lost_se,
                    unit="accuracy",
                    threshold="not below 0 by more than 3 standard errors",
                    source="convention: the same probe of x on the same folds",
                    outcome=kept,
                    advice="" if kept == "pass" else "more latents, or a smaller weight of the KL, would keep more",
                    name="probe_raw",
                )
            )
        return tuple(found)

    def __str__(self) -> str:
        gain, gain_se = self.difference(self.baseline)
        said = "the codes know the labels" if gain > 3 * gain_se else "the codes do not tell the labels"
        text = (
            f"linear probe of {len(self.classes)} labels over {len(self.right):,} data\n"
            f"  accuracy {self.accuracy:.3f} ± {self.accuracy_se:.3f}, commonest label {self.majority:.3f}: {said}"
        )
        if self.raw is not None:
            lost, lost_se = self.difference(self.raw)
            text += f"\n  x itself {self.raw_accuracy:.3f}; codes less x {lost:+.3f} ± {lost_se:.3f}"
        return text if self.converged else f"{text}\n  some fits stopped before their optimum"

    def summary(self) -> dict[str, Any]:
        """Figures in JSON's types; ``None`` where there is none."""
        lost, lost_se = (None, None) if self.raw is None else self.difference(self.raw)
        return {
            "accuracy": self.accuracy,
            "accuracy_se": self.accuracy_se,
            "majority": self.majority,
            "raw_accuracy": self.raw_accuracy,
            "codes_less_raw": lost,
            "codes_less_raw_se": lost_se,
            "classes": len(self.classes),
            "converged": self.converged,
            "n": len(self.right),
        }


@dataclass(frozen=True)
class Structure:
    """Everything about how codes lie.

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

    def summary(self) -> dict[str, Any]:
        """Figures of all parts, in JSON's types."""
        return {
            "projections": [part.summary() for part in self.projections],
            "clusterings": [part.summary() for part in self.clusterings],
            "neighbors": self.neighbors.summary(),
            "probe": None if self.probe is None else self.probe.summary(),
        }


def _error(se: float) -> str:
    return f" ± {se:.3f}" if np.isfinite(se) else ""


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _checked(codes: Any) -> Array:
    codes = np.asarray(codes, dtype=np.float64)
    if codes.ndim != 2 or 0 in codes.shape:
        raise ValueError(f"codes of shape (datum, latent) wanted, got {codes.shape}")
    if not np.isfinite(codes).all():
        raise ValueError(f"{int((~np.isfinite(codes)).sum())} codes are not finite; look for data the encoder fails on")
    return codes


def _some(size: int, most: int, seed: int, stream: int) -> Array:
    return np.sort(np.random.default_rng(derive_seed(seed, stream)).permutation(size)[:most])


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

    codes, points = _checked(codes), _checked(points)
    if len(codes) != len(points):
        raise ValueError(f"codes and points of the same data wanted, got {len(codes)} and {len(points)}")
    group = min(len(codes), _GROUP)
    if not 1 <= num_neighbors < group / 2:
        raise ValueError(f"num_neighbors is between 1 and half of {group} data, got {num_neighbors}")
    order = np.random.default_rng(derive_seed(seed, 0)).permutation(len(codes))
    figures = []
    for number in range(min(len(codes) // group, _GROUPS)):
        rows = order[number * group : (number + 1) * group]
        a, b = codes[rows], points[rows]
        figures.append(
            (trustworthiness(a, b, n_neighbors=num_neighbors), trustworthiness(b, a, n_neighbors=num_neighbors))
        )
    trusted, continuous = np.array(figures).T
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
    codes = _checked(codes)
    if method not in ("pca", "tsne", "umap"):
        raise ValueError(f"unknown projection {method!r}; choose from pca, tsne, umap")
    if dimension not in (2, 3):
        raise ValueError(f"a projection has 2 or 3 dimensions, got {dimension}")
    if len(codes) < 5:
        raise ValueError(f"a projection wants at least 5 data, got {len(codes)}")
    if method == "pca" and options:
        raise ValueError(f"pca has no option {next(iter(options))!r}")
    index = _some(len(codes), max_data, seed, 1)
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
        trustworthiness_se=_spread(trusted),
        continuity=float(continuous.mean()),
        continuity_se=_spread(continuous),
        num_neighbors=neighbors,
        group=group,
    )


def _spread(figures: Array) -> float:
    """Standard error of the mean; NaN for a single figure."""
    return float(figures.std(ddof=1) / np.sqrt(len(figures))) if len(figures) > 1 else float("nan")


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


def nearest(codes: Any, *, queries: Any = None, num_neighbors: int = 10, labels: Any = None) -> Neighbors:
    """The nearest codes of some data or of all, and how many share their label.

    Args:
        codes: ``(datum, latent)``.
        queries: rows whose neighbours are wanted; ``None`` is all.
        num_neighbors: how many, fewer than the data.
        labels: of the data, ``(datum,)``.

    Raises:
        ValueError: wrong shapes, rows that there are not, or too many neighbours.
    """
    from sklearn.neighbors import NearestNeighbors

    codes = _checked(codes)
    if not 1 <= num_neighbors < len(codes):
        raise ValueError(f"num_neighbors is between 1 and {len(codes) - 1}, got {num_neighbors}")
    rows = np.arange(len(codes)) if queries is None else np.atleast_1d(np.asarray(queries))
    if rows.dtype.kind not in "ui" or len(rows) == 0 or rows.min() < 0 or rows.max() >= len(codes):
        raise ValueError(f"queries are rows from 0 to {len(codes) - 1}, got {np.asarray(queries).tolist()}")
    # One more than wanted, since a datum is nearest to itself; where copies stand before it, the last one is dropped.
    distance, index = NearestNeighbors(n_neighbors=num_neighbors + 1).fit(codes).kneighbors(codes[rows])
    own = index == rows[:, None]
    own[~own.any(1), -1] = True
    index, distance = (part[~own].reshape(len(rows), num_neighbors) for part in (index, distance))
    if labels is None:
        return Neighbors(index, distance)
    classes = np.asarray(labels)
    if classes.shape != (len(codes),):
        raise ValueError(f"labels of shape ({len(codes)},) wanted, got {classes.shape}")
    same = (classes[index] == classes[rows][:, None]).mean(1)
    _, inverse, counts = np.unique(classes, return_inverse=True, return_counts=True)
    chance = ((counts - 1) / (len(codes) - 1))[inverse[rows]].mean()
    return Neighbors(index, distance, float(same.mean()), _spread(same), float(chance))


def probe(
    codes: Any, labels: Any, *, raw: Any = None, num_folds: int = 5, max_data: int = 3000, seed: int = 0
) -> Probe:
    """Logistic regression from codes to labels, by stratified cross-validation, beside baselines on the same folds.

    Codes are standardised, and the weights have scikit-learn's default L2 penalty.

    Args:
        codes: ``(datum, latent)``.
        labels: ``(datum,)``; classes with fewer data than folds are left out.
        raw: x itself, ``(datum, *x_shape)``, for a probe of the same kind.
        num_folds: at least 2.
        max_data: data, drawn at random, where there are more.
        seed: of the draws and the folds.

    Raises:
        ValueError: wrong shapes, values that are not finite, or fewer than 2 classes with enough data.

    References:
        Alain & Bengio 2017, Understanding intermediate layers using linear classifier probes. arXiv:1610.01644
    """
    from sklearn.model_selection import StratifiedKFold

    codes, labels = _checked(codes), np.asarray(labels)
    if labels.shape != (len(codes),):
        raise ValueError(f"labels of shape ({len(codes)},) wanted, got {labels.shape}")
    if num_folds < 2:
        raise ValueError(f"num_folds is at least 2, got {num_folds}")
    index = _some(len(codes), max_data, seed, 4)
    values, counts = np.unique(labels[index], return_counts=True)
    classes = values[counts >= num_folds]
    if len(classes) < 2:
        raise ValueError(f"a probe wants 2 classes with at least {num_folds} data each, got {len(classes)}")
    index = index[np.isin(labels[index], classes)]
    y = labels[index]
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=derive_seed(seed, 5) % 2**32)
    splits = list(folds.split(codes[index], y))
    right, converged = _classify(codes[index], y, splits)
    baseline = np.zeros(len(y))
    for kept, held_out in splits:
        present, number = np.unique(y[kept], return_counts=True)
        baseline[held_out] = y[held_out] == present[number.argmax()]
    of_raw = None
    if raw is not None:
        x = np.asarray(raw)
        if len(x) != len(codes):
            raise ValueError(f"raw data of the same {len(codes)} data wanted, got {len(x)}")
        of_raw, also = _classify(_checked(x[index].reshape(len(index), -1)), y, splits)
        converged = converged and also
    return Probe(right, baseline, of_raw, classes, converged)


def _classify(x: Array, y: Array, splits: list[tuple[Array, Array]]) -> tuple[Array, bool]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    right, converged = np.zeros(len(y)), True
    for kept, held_out in splits:
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            classifier.fit(x[kept], y[kept])
        converged = converged and not any(issubclass(item.category, ConvergenceWarning) for item in caught)
        right[held_out] = classifier.predict(x[held_out]) == y[held_out]
    return right, converged


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
        clusterings: methods of `analysis.latent.clusters.cluster`.
        num_clusters: for k-means and mixture; ``None`` lets them choose.
        max_data: data, drawn at random, for each part but the neighbours.
        seed: of all that is drawn.

    Raises:
        ValueError: see the parts.
        ImportError: likewise.
    """
    codes = _checked(codes)
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
