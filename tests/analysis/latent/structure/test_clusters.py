"""Clusters: found where there are some and nowhere else, as firm as they are, and compared with labels."""

import json
from typing import Any

import numpy as np
import pytest

from analysis.latent.structure.clustering import Clustering
from analysis.latent.structure.clusters import cluster

type Array = np.ndarray[Any, Any]


def groups(size: int = 300, count: int = 3, distance: float = 12.0, seed: int = 0) -> tuple[Array, Array]:
    """Round Gaussian groups on a circle in the plane, unit variance, and which is whose."""
    random = np.random.default_rng(seed)
    labels = random.integers(count, size=size)
    angle = 2 * np.pi * labels / count
    centre = distance * np.column_stack([np.cos(angle), np.sin(angle)])
    return centre + random.normal(size=(size, 2)), labels


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("kmeans", {}),
        ("mixture", {}),
        ("mixture", {"select": "held_out", "num_clusters": range(1, 6)}),
        ("hdbscan", {"min_cluster_size": 20}),
    ],
)
def test_groups_that_stand_apart_are_found(method: Any, options: dict[str, Any]) -> None:
    """12 standard deviations apart no datum is in doubt; HDBSCAN calls a few outliers noise."""
    codes, labels = groups()
    found = cluster(codes, method=method, labels=labels, **options)
    assert found.num_clusters == 3
    assert found.noise <= (0.1 if method == "hdbscan" else 0)
    kept = found.labels >= 0
    from sklearn.metrics import adjusted_rand_score

    assert adjusted_rand_score(labels[found.index][kept], found.labels[kept]) == 1
    if method != "hdbscan":
        assert found.ari == found.nmi == 1
        assert found.stability_mean == 1
        np.testing.assert_allclose(found.jaccard, 1)
    assert found.silhouette > 0.8
    assert [verdict.outcome for verdict in found.verdicts] == ["pass", "pass"]
    assert f"{method}: 3 clusters" in str(found)
    assert json.loads(json.dumps(found.summary()))["num_clusters"] == 3


@pytest.mark.parametrize("select", ["bic", "held_out"])
def test_a_single_gaussian_is_one_component(select: Any) -> None:
    random = np.random.default_rng(1)
    codes = random.normal(size=(500, 3)) @ random.normal(size=(3, 3))
    found = cluster(codes, num_clusters=range(1, 5), select=select, num_bootstrap=2)
    assert found.num_clusters == 1
    assert found.covariance in ("full", "tied")
    assert len(found.criterion) == 4
    assert np.isnan(found.silhouette)
    assert found.summary()["silhouette"] is None
    if select == "held_out":
        best = int(found.criterion.argmax())
        assert found.criterion_se[best] == 0
        assert (np.delete(found.criterion_se, best) > 0).all()


def test_held_out_density_is_that_of_a_gaussian() -> None:
    """A single component of 2,000 standard normal data: -log(2 pi e) in the plane, error sqrt(1 / 2,000) nats."""
    codes = np.random.default_rng(2).normal(size=(2000, 2))
    found = cluster(codes, num_clusters=[1, 2], select="held_out", num_bootstrap=0)
    assert found.criterion[0] == pytest.approx(-np.log(2 * np.pi * np.e), abs=4 * 2000**-0.5)
    assert len(found.stability) == 0
    assert np.isnan(found.stability_mean)


def test_mixtures_follow_the_shape_of_their_components() -> None:
    """Two parallel cigars, whose halves k-means mixes, are two components."""
    random = np.random.default_rng(3)
    labels = random.integers(2, size=600)
    codes = random.normal(size=(600, 2)) * [1, 12] + labels[:, None] * [8, 0]
    mixture = cluster(codes, num_clusters=range(1, 4), labels=labels, num_bootstrap=2)
    means = cluster(codes, method="kmeans", num_clusters=2, labels=labels, num_bootstrap=2)
    assert mixture.num_clusters == 2
    assert mixture.covariance in ("full", "tied", "diag")
    assert mixture.ari is not None
    assert means.ari is not None
    assert mixture.ari > 0.97
    assert means.ari < 0.1


def test_clusters_that_are_not_there_are_not_firm() -> None:
    """Six means of one round cloud are cut anew in every sample; three of three groups are not."""
    cloud = np.random.default_rng(4).normal(size=(400, 2))
    cut = cluster(cloud, method="kmeans", num_clusters=6)
    assert cut.jaccard.min() < 0.75
    assert cut.verdicts[0].outcome == "warn"
    assert "not all stable" in str(cut)
    assert 0 < cut.stability_mean < 0.9
    assert cut.stability_se > 0


@pytest.mark.slow
def test_labels_at_random_are_not_followed() -> None:
    """ARI is within 3 of its standard errors of 0 for 20 sets of random labels but for at most 2 (1 - 3e-4 each
    side if normal; the bootstrap's error is skewed), and always far above for the groups themselves."""
    codes, labels = groups()
    random = np.random.default_rng(5)
    followed = 0
    for _ in range(20):
        found = cluster(codes, method="kmeans", num_clusters=3, labels=random.permutation(labels), num_bootstrap=0)
        followed += found.verdicts[-1].outcome == "pass"
        assert found.ari is not None
        assert abs(found.ari) < 0.05
    assert followed <= 2


@pytest.mark.slow
def test_agreement_has_its_error() -> None:
    """A tenth of the labels is wrong: over 40 data sets the spread of ARI (relative error 11 %) is the bootstrap's."""
    random = np.random.default_rng(6)
    values, errors = [], []
    for repetition in range(40):
        codes, labels = groups(200, seed=repetition)
        wrong = np.where(random.random(200) < 0.1, random.integers(3, size=200), labels)
        found = cluster(codes, method="kmeans", num_clusters=3, labels=wrong, num_bootstrap=0, seed=repetition)
        values.append(found.ari)
        errors.append(found.ari_se)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values, ddof=1), rel=0.45)


def test_the_same_seed_gives_the_same_clusters() -> None:
    codes, labels = groups(200, count=5, distance=3)

    def found(seed: int) -> Clustering:
        return cluster(codes, labels=labels, max_data=150, num_clusters=5, num_bootstrap=3, seed=seed)

    one, two, other = found(0), found(0), found(1)
    np.testing.assert_array_equal(one.labels, two.labels)
    np.testing.assert_array_equal(one.stability, two.stability)
    assert len(one.index) == 150
    assert not np.array_equal(one.index, other.index)


def test_hdbscan_of_noise_finds_nothing() -> None:
    found = cluster(np.random.default_rng(7).uniform(size=(300, 6)), method="hdbscan", min_cluster_size=40)
    assert found.num_clusters <= 1
    assert found.noise > 0.5
    assert "noise" in str(found)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: cluster(z[0]), r"codes of shape \(datum, latent\) with at least 2 data required, got \(2,\)"),
        (lambda z: cluster(z * np.inf), "600 codes are not finite"),
        (lambda z: cluster(z, labels=[1, 2]), r"labels of shape \(300,\) required, got \(2,\)"),
        (lambda z: cluster(z, method="dbscan"), "unknown method 'dbscan'; choose from kmeans, mixture, hdbscan"),
        (lambda z: cluster(z, select="aic"), "unknown criterion 'aic'; choose from bic, held_out"),
        (lambda z: cluster(z, num_clusters=300), "300 clusters of 300 data are not possible"),
        (lambda z: cluster(z, num_clusters=0), r"from 1, got \[0\]"),
        (lambda z: cluster(z, method="kmeans", num_clusters=[1, 2]), r"kmeans compares .* from 2, got \[1, 2\]"),
        (lambda z: cluster(z, method="hdbscan", num_clusters=3), "hdbscan finds the number of clusters itself"),
        (lambda z: cluster(z[:10], num_clusters=[2, 9], select="held_out"), "9 components of 8 data in a fold"),
    ],
)
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(groups()[0])
