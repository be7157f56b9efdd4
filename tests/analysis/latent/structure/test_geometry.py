"""Projections, neighbours, probes, traversals and interpolations: exact where they can be, and on both sides of right.

Also covers `analysis.latent.structure.traversals`.
"""

import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm

from analysis.draws.codes import posterior_means
from analysis.latent.structure.geometry import structure
from analysis.latent.structure.linear_probe import probe
from analysis.latent.structure.neighbors import nearest
from analysis.latent.structure.paths import linear, spherical
from analysis.latent.structure.projection import faithfulness, project
from analysis.latent.structure.traversals import interpolate, traverse
from tests.truths import example
from vae_pyro import VAE, Split, VAEConfig
from vae_pyro.core.isolation import seeded

type Array = np.ndarray[Any, Any]


def groups(size: int = 300, count: int = 3, seed: int = 0) -> tuple[Array, Array]:
    """Gaussian groups in five dimensions that stand apart, and which is whose."""
    random = np.random.default_rng(seed)
    labels = random.integers(count, size=size)
    return 10 * np.eye(count, 5)[labels] + random.normal(size=(size, 5)), labels


@pytest.fixture(scope="module")
def vae() -> VAE:
    made = VAE(VAEConfig(x_shape=(1, 4, 4), latent_dim=3, encoder="mlp:hidden=[8]", likelihood="gaussian"), seed=1)
    with torch.no_grad():
        first = next(module for module in made.model.decoder.modules() if isinstance(module, torch.nn.Linear))
        first.weight[:, 2] = 0  # the decoder does not see the last latent
        first.weight.mul_(3)
    return made


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    with seeded(0):
        return torch.rand(30, 1, 4, 4)


# Projections


def test_principal_components_are_exact() -> None:
    from sklearn.decomposition import PCA

    codes, _ = groups()
    ours = project(codes, dimension=3)
    theirs = PCA(3).fit(codes)
    assert ours.explained is not None
    np.testing.assert_allclose(ours.explained, theirs.explained_variance_ratio_)
    np.testing.assert_allclose(np.abs(ours.points), np.abs(theirs.transform(codes)), atol=1e-9)
    np.testing.assert_allclose(project(codes + 7).points, project(codes).points, atol=1e-9)
    assert "of the variance" in str(ours)


def test_a_turned_picture_is_faithful_and_a_random_one_is_not() -> None:
    """Turned codes keep every neighbour: exactly 1. Points at random: 1/2, within 0.03 for 400 data."""
    random = np.random.default_rng(1)
    codes = random.normal(size=(400, 3))
    turned = codes @ np.linalg.qr(random.normal(size=(3, 3)))[0] * 5
    trusted, continuous, group = faithfulness(codes, turned)
    assert trusted.tolist() == continuous.tolist() == [1.0]
    assert group == 400
    trusted, continuous, _ = faithfulness(codes, random.normal(size=(400, 2)))
    np.testing.assert_allclose([trusted[0], continuous[0]], 0.5, atol=0.03)


def test_squashing_is_not_trusted_and_tearing_not_continuous() -> None:
    """A square squashed to a line brings together what is apart; a circle cut to a line parts what is together."""
    random = np.random.default_rng(2)
    square = random.uniform(size=(500, 2))
    trusted, continuous, _ = faithfulness(square, square[:, :1])
    assert trusted[0] < 0.9 < continuous[0]
    angle = random.uniform(0, 2 * np.pi, size=500)
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    trusted, continuous, _ = faithfulness(circle, angle[:, None])
    assert trusted[0] > 0.999 > continuous[0]


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_pictures_say_whether_they_can_be_believed(method: Any) -> None:
    codes, _ = groups(200)
    good = project(codes[:, :2], method=method)
    assert good.verdicts[0].outcome == "pass"
    assert "neighbourhoods are preserved" in str(good)
    # White noise in thirty dimensions has no neighbourhoods that a plane can keep.
    noise = project(np.random.default_rng(3).normal(size=(200, 30)), method=method)
    assert noise.verdicts[0].outcome == "warn"
    assert noise.verdicts[0].error is None
    assert json.loads(json.dumps(noise.summary()))["trustworthiness_se"] is None


def test_neighbour_embedding_parts_groups_and_repeats_itself() -> None:
    codes, labels = groups(150)
    found = project(codes, method="tsne", seed=3)
    assert nearest(found.points, labels=labels).agreement == 1
    np.testing.assert_array_equal(found.points, project(codes, method="tsne", seed=3).points)
    space = project(codes, method="tsne", dimension=3, max_data=100, perplexity=10)
    assert space.points.shape == (100, 3)
    assert (np.diff(space.index) > 0).all()
    assert not np.array_equal(space.index, project(codes, max_data=100, seed=1).index)


def test_large_data_have_an_error_over_groups() -> None:
    found = project(np.random.default_rng(4).normal(size=(3500, 4)))
    assert found.group == 1000
    assert 0 < found.trustworthiness_se < 0.02
    assert found.verdicts[0].error is not None


@pytest.mark.parametrize("method", ["pca", "tsne", "umap"])
def test_a_single_latent_is_a_line(method: Any) -> None:
    found = project(np.random.default_rng(5).normal(size=(60, 1)), method=method)
    assert (found.points[:, 1] == 0).all()
    assert found.trustworthiness == 1


def test_umap_where_it_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ImportError, match=r"pip install 'vae_pyro\[latent\]', or choose 'tsne'"):
        project(groups(50)[0], method="umap")


def test_umap_is_asked_for_one_thread_and_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class UMAP:
        def __init__(self, **options: Any) -> None:
            asked.update(options)

        def fit_transform(self, z: Array) -> Array:
            return z[:, : asked["n_components"]].astype(np.float32)

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=UMAP))
    found = project(groups(50)[0], method="umap", dimension=3, min_dist=0.3)
    assert found.points.dtype == np.float64
    assert asked["n_jobs"] == 1
    assert asked["n_neighbors"] == 15
    assert asked["min_dist"] == 0.3
    assert isinstance(asked["random_state"], int)


def test_umap_itself() -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("umap")
        codes, labels = groups(150)
        found = project(codes, method="umap")
    assert nearest(found.points, labels=labels).agreement == pytest.approx(1, abs=0.01)


# Neighbours


def test_neighbours_are_the_nearest_and_never_oneself() -> None:
    codes = np.random.default_rng(6).normal(size=(80, 3))
    codes[40:44] = codes[0]  # copies
    distance = np.linalg.norm(codes[:, None] - codes, axis=2)
    np.fill_diagonal(distance, np.inf)
    found = nearest(codes, num_neighbors=2)
    np.testing.assert_allclose(found.distance, np.sort(distance, axis=1)[:, :2], atol=1e-7)
    assert not (found.index == np.arange(80)[:, None]).any()
    some = nearest(codes, queries=[5, 9], num_neighbors=2)
    np.testing.assert_array_equal(some.index, found.index[[5, 9]])


def test_neighbours_share_labels_or_are_at_chance() -> None:
    """With random labels the agreement is within 5 of its standard errors of chance."""
    codes, labels = groups()
    near = nearest(codes, labels=labels)
    assert near.agreement == 1
    assert near.chance == pytest.approx(1 / 3, abs=0.02)
    shuffled = nearest(codes, labels=np.random.default_rng(7).permutation(labels))
    assert shuffled.agreement is not None
    assert shuffled.chance is not None
    assert shuffled.agreement_se is not None
    assert abs(shuffled.agreement - shuffled.chance) < 5 * shuffled.agreement_se
    assert "at random" in str(near)
    assert json.loads(json.dumps(near.summary()))["num_neighbors"] == 10


# Probe


def test_a_probe_reaches_the_best_possible_accuracy() -> None:
    """Two unit Gaussians 2 apart: Phi(1) = 0.841; 2,000 data give an error of 0.008, a training fold less than that."""
    random = np.random.default_rng(8)
    labels = random.integers(2, size=2000)
    codes = np.column_stack([2.0 * labels, np.zeros(2000)]) + random.normal(size=(2000, 2))
    found = probe(codes, labels)
    assert abs(found.accuracy - norm.cdf(1)) < 4 * found.accuracy_se
    assert found.accuracy_se == pytest.approx(np.sqrt(0.841 * 0.159 / 2000), rel=0.1)
    assert found.majority == pytest.approx(np.bincount(labels).max() / 2000)
    assert found.verdicts[0].outcome == "pass"
    assert found.converged
    assert len(found.verdicts) == 1


def test_codes_without_labels_in_them_fail() -> None:
    """Above the commonest label by 3 standard errors: of 30 random labellings at most one (1e-3 each at the most)."""
    random = np.random.default_rng(9)
    known = 0
    for repetition in range(30):
        found = probe(random.normal(size=(200, 4)), random.integers(3, size=200), seed=repetition)
        known += found.verdicts[0].outcome == "pass"
    assert known <= 1
    assert found.verdicts[0].outcome == "fail"
    assert "not informative of the labels" in str(found)


def test_a_probe_beside_the_data_themselves() -> None:
    codes, labels = groups(400)
    same = probe(codes, labels, raw=codes.reshape(400, 1, 5))
    assert same.accuracy == same.raw_accuracy == 1
    assert [verdict.outcome for verdict in same.verdicts] == ["pass", "pass"]
    lossy = probe(codes[:, :1], labels, raw=codes)
    assert lossy.raw_accuracy == 1
    assert lossy.verdicts[1].outcome == "warn"
    difference, error = lossy.difference(np.ones(400))
    assert difference == pytest.approx(lossy.accuracy - 1)
    assert error == pytest.approx(lossy.accuracy_se)
    assert "codes less x" in str(lossy)
    assert json.loads(json.dumps(lossy.summary()))["codes_less_raw"] == difference


def test_rare_classes_are_left_out() -> None:
    codes, labels = groups(200)
    labels[:2] = 9
    found = probe(codes, labels, max_data=200)
    assert found.classes.tolist() == [0, 1, 2]
    assert len(found.right) == 198
    with pytest.raises(ValueError, match="2 classes with at least 5 data each, got 1"):
        probe(codes[:20], np.r_[np.zeros(18), 1, 2])


# All of it


def test_structure_of_groups_and_of_noise() -> None:
    codes, labels = groups(250)
    good = structure(codes, labels=labels, raw=codes, clusterings=("kmeans", "mixture", "hdbscan"), num_clusters=3)
    assert [part.method for part in good.projections] == ["pca", "tsne"]
    outcomes = {verdict.name: verdict.outcome for verdict in good.verdicts}
    assert outcomes["tsne_faithful"] == outcomes["probe"] == outcomes["cluster_ari"] == "pass"
    assert "linear probe" in str(good)
    assert json.loads(json.dumps(good.summary()))["probe"]["accuracy"] == 1
    bare = structure(codes, projections=("pca",), clusterings=())
    assert bare.probe is None
    assert bare.neighbors.agreement is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: project(z[0]), r"codes of shape \(datum, latent\) required, got \(5,\)"),
        (lambda z: project(z * np.nan), "1500 codes are not finite"),
        (lambda z: project(z, method="isomap"), "unknown projection 'isomap'; choose from pca, tsne, umap"),
        (lambda z: project(z, dimension=4), "2 or 3 dimensions, got 4"),
        (lambda z: project(z[:3]), "at least 5 data, got 3"),
        (lambda z: project(z, perplexity=3), "pca has no option 'perplexity'"),
        (lambda z: faithfulness(z, z[:9]), "of the same data required, got 300 and 9"),
        (lambda z: faithfulness(z, z, num_neighbors=150), "between 1 and half of 300 data, got 150"),
        (lambda z: nearest(z, num_neighbors=300), "between 1 and 299, got 300"),
        (lambda z: nearest(z, queries=[300]), "rows from 0 to 299, got \\[300\\]"),
        (lambda z: nearest(z, labels=[1]), r"labels of shape \(300,\) required"),
        (lambda z: probe(z, [1]), r"labels of shape \(300,\) required"),
        (lambda z: probe(z, np.zeros(300), num_folds=1), "num_folds is at least 2, got 1"),
        (lambda z: probe(z, np.arange(300) % 3, raw=z[:5]), "raw data of the same 300 data required, got 5"),
    ],
)
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(groups()[0])


# Codes


def test_posterior_means_of_a_hand_written_pair() -> None:
    """Against the exact means of pPCA: 60 z-scores of means of 4,000 draws, none beyond 5 (4e-5)."""
    truth = example()
    x = truth.sample(30, seed=0)
    exact, covariance = truth.posterior(x)
    estimate = posterior_means(truth.programs(), x, num_draws=4000)
    assert estimate.shape == (30, 2)
    z = (estimate - exact.numpy()) / (covariance.diagonal().numpy() / 4000) ** 0.5
    assert np.abs(z).max() < 5
    assert 0.5 < z.std() < 1.5
    np.testing.assert_array_equal(estimate, posterior_means(truth.programs(), x, num_draws=4000))
    assert not np.array_equal(estimate, posterior_means(truth.programs(), x, num_draws=4000, seed=1))


def test_posterior_means_of_a_vae(vae: VAE, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.no_grad():
        exact = vae.encode(x).mean.numpy()
    whole = posterior_means(vae, x)
    np.testing.assert_allclose(whole, exact, atol=1e-6)
    assert whole.dtype == np.float64
    monkeypatch.setattr("analysis.draws.codes.block_sizes", lambda *sizes: (7, 1))
    np.testing.assert_allclose(posterior_means(vae, x), whole, atol=1e-6)
    # What is hidden does not reach a code.
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, :, 2:] = False
    hidden = [posterior_means(vae, Split(torch.where(mask, x, value), mask=mask)) for value in (0.0, 1e6)]
    np.testing.assert_array_equal(*hidden)


def test_posterior_means_of_a_flow_repeat_themselves() -> None:
    flow = VAE(VAEConfig(x_shape=(5,), latent_dim=2, encoder="mlp:hidden=[8]", posterior="flow", likelihood="gaussian"))
    with seeded(0):
        x = torch.randn(6, 5)
    np.testing.assert_array_equal(posterior_means(flow, x), posterior_means(flow, x))
    assert not np.array_equal(posterior_means(flow, x), posterior_means(flow, x, seed=1))


# Traversals and interpolations


def test_a_traversal_moves_one_latent_over_prior_quantiles(vae: VAE, x: torch.Tensor) -> None:
    found = traverse(vae, x[0], probabilities=(0.1, 0.5, 0.9))
    start = posterior_means(vae, x[:1])[0]
    np.testing.assert_allclose(found.start, start)
    np.testing.assert_allclose(found.values, np.tile(norm.ppf([0.1, 0.5, 0.9]), (3, 1)))
    assert found.images.shape == (3, 3, 1, 4, 4)
    z = start.copy()
    z[1] = norm.ppf(0.9)
    with torch.no_grad():
        expected = vae.expectation(torch.as_tensor(z, dtype=vae.dtype)).numpy()
    np.testing.assert_allclose(found.images[1, 2], expected, atol=1e-6)
    assert found.effect[2] == pytest.approx(0, abs=1e-7)
    assert (found.effect[:2] > 0.01).all()
    by_hand = found.images[0].reshape(3, -1)
    assert found.effect[0] == pytest.approx(np.sqrt(by_hand.var(0).mean()), rel=1e-5)
    assert "1 of them change it by less" in str(found)
    assert json.loads(json.dumps(found.summary()))["latents"] == [0, 1, 2]
    some = traverse(vae, latents=[1])
    assert some.start.tolist() == [0, 0, 0]
    assert some.images.shape == (1, 9, 1, 4, 4)


def test_other_priors_have_their_own_quantiles() -> None:
    """A mixture of one component is a Gaussian; the median of 10,000 draws has an error of 1.25 scale / 100."""
    config = VAEConfig(x_shape=(5,), latent_dim=2, encoder="mlp:hidden=[8]", prior="mixture:components=1")
    mixture = VAE(config)
    with torch.no_grad():
        mixture.model.prior.loc.copy_(torch.tensor([[3.0, -1.0]]))
        mixture.model.prior.log_scale.fill_(float(np.log(0.5)))
    found = traverse(mixture, probabilities=(0.5, 0.841344746))
    np.testing.assert_allclose(found.start, [3, -1], atol=5 * 0.5 / 100)
    np.testing.assert_allclose(found.values, [[3, 3.5], [-1, -0.5]], atol=5 * 1.6 * 0.5 / 100)
    np.testing.assert_array_equal(found.values, traverse(mixture, probabilities=(0.5, 0.841344746)).values)


def test_paths_are_straight_or_round() -> None:
    """Half way between two axes: the middle of the chord, or the point at 45 degrees on the circle."""
    a, b = np.array([[2.0, 0.0]]), np.array([[0.0, 2.0]])
    np.testing.assert_allclose(linear(a, b, np.array([0.5]))[0, 0], [1, 1])
    np.testing.assert_allclose(spherical(a, b, np.array([0.5]))[0, 0], [2**0.5, 2**0.5])
    random = np.random.default_rng(10)
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in random.normal(size=(2, 20, 6)))
    path = spherical(a, b, np.linspace(0, 1, 7))
    np.testing.assert_allclose(np.linalg.norm(path, axis=2), 1)
    steps = np.arccos((path[:, 1:] * path[:, :-1]).sum(2))
    np.testing.assert_allclose(steps, steps[:, :1] * np.ones(6))  # equal angles
    np.testing.assert_allclose(path[:, [0, -1]], np.stack([a, b], 1), atol=1e-12)
    # The same direction, or the origin, leaves the straight path.
    half = np.array([0.5])
    np.testing.assert_allclose(spherical(a, 3 * a, half), 2 * a[:, None])
    np.testing.assert_allclose(spherical(0 * a, b, half), b[:, None] / 2)
    with pytest.raises(ValueError, match="pair 1 has codes in opposite directions"):
        spherical(a[:2], np.stack([b[0], -2 * a[1]]), half)


@pytest.mark.parametrize("kind", ["linear", "spherical"])
def test_interpolations_begin_and_end_at_the_data(vae: VAE, x: torch.Tensor, kind: Any) -> None:
    found = interpolate(vae, x[:4], x[4:8], steps=5, kind=kind)
    assert found.images.shape == (4, 5, 1, 4, 4)
    assert found.z.shape == (4, 5, 3)
    for column, data in ((0, x[:4]), (-1, x[4:8])):
        with torch.no_grad():
            expected = vae.expectation(vae.encode(data).mean).numpy()
        np.testing.assert_allclose(found.images[:, column], expected, atol=1e-6)


@pytest.mark.parametrize(("structure", "prior"), [("conditional", "mixture:components=2"), ("m2", "normal")])
def test_places_of_structures_with_classes_have_a_class(structure: str, prior: str) -> None:
    config = VAEConfig(
        x_shape=(5,), latent_dim=2, encoder="mlp:hidden=[8]", likelihood="gaussian", prior=prior,
        structure=f"{structure}:num_classes=3",
    )  # fmt: skip
    vae = VAE(config, seed=1)
    with seeded(0):
        x = torch.randn(4, 5)
    found = traverse(vae, x[0], latents=[1], probabilities=(0.5,), y=2)
    np.testing.assert_allclose(found.start, posterior_means(vae, x[:1], y=[2])[0])
    z = torch.tensor([[found.start[0], found.values[0, 0]]], dtype=vae.dtype)
    expected = vae.expectation(z, y=torch.tensor([2])).detach().numpy()
    np.testing.assert_allclose(found.images[0, 0], expected[0], atol=1e-6)
    assert not np.allclose(traverse(vae, x[0], latents=[1], probabilities=(0.5,), y=1).images, found.images)
    between = interpolate(vae, x[:2], x[2:], steps=3, y=1)
    ends = torch.as_tensor(posterior_means(vae, x[:2], y=[1, 1]), dtype=vae.dtype)
    expected = vae.expectation(ends, y=torch.tensor([1, 1])).detach().numpy()
    np.testing.assert_allclose(between.images[:, 0], expected, atol=1e-6)
    for y, words in ((None, "reads a class: give y, from 0 to 2"), (3, "from 0 to 2; got 3"), (1.5, "got 1.5")):
        with pytest.raises(ValueError, match=words):
            traverse(vae, x[0], y=y)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=words):
            interpolate(vae, x[:2], x[2:], y=y)  # type: ignore[arg-type]


def test_bad_places(vae: VAE, x: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"increasing numbers between 0 and 1, got \[0, 0.5\]"):
        traverse(vae, probabilities=(0, 0.5))
    with pytest.raises(ValueError, match=r"numbers from 0 to 2, got \[3\]"):
        traverse(vae, latents=[3])
    with pytest.raises(ValueError, match=r"numbers from 0 to 2, got \[1.7\]"):
        traverse(vae, latents=[1.7])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="structure has none; leave y out; got 0"):
        traverse(vae, y=0)
    with pytest.raises(ValueError, match="starts at one datum, got 2; pass x"):
        traverse(vae, x[:2])
    with pytest.raises(ValueError, match="its two ends, got steps=1"):
        interpolate(vae, x[:1], x[1:2], steps=1)
    with pytest.raises(ValueError, match="unknown kind 'cubic' of interpolation; choose from linear, spherical"):
        interpolate(vae, x[:1], x[1:2], kind="cubic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pairs of data are required, got 1 and 2"):
        interpolate(vae, x[:1], x[1:3])
