"""Generated against real data: does the model draw what the world draws?"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.results.verdict import Outcome, Verdict
from analysis.samples.copying import DataCopying, data_copying
from analysis.stats.classifier_test import ClassifierTest, classifier_test
from analysis.stats.fidelity import Frechet, Neighbourhoods, as_rows, frechet_distance, neighbourhoods
from analysis.stats.mmd import MMD, mmd
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Given, Split, visible
from vae_pyro.densities.pair import PairLike, as_pair
from vae_pyro.densities.walk import ELEMENTS_AT_ONCE

type Array = np.ndarray[Any, Any]
type Features = Callable[[Array], Array]

# Dimension that distances are taken in where no features are given.
_MAX_DIM = 50
# Rows that a feature extractor sees at once.
_BLOCK = 1024
# What warns and what fails: a classifier's accuracy above, a share of the coverage of equal distributions below.
_ACCURACY = (0.9, 0.975)
_COVERAGE = (0.5, 0.25)
_MIN_ROWS = 20
_NEIGHBOUR_ROWS = 2000
# Elements up to which principal components come from the whole covariance.
_MAX_EXACT = 1000
_TINY = 1e-12


@dataclass(frozen=True)
class SampleComparison:
    """Generated beside real data, by several measures on the same features.

    Attributes:
        classifier: how well a classifier tells them apart.
        discrepancy: kernel maximum mean discrepancy with its permutation test.
        neighbourhoods: precision, recall, density, coverage, of equally many rows of both samples, the first of each.
        frechet: distance of Gaussians with the same moments; the FID only where the features are Inception's.
        copying: whether the model copies its training data; ``None`` where these were not given.
        features: in words, what was compared.
        real_rows: which of the real data were compared, in this order; ``neighbourhoods.covered`` is of the first.
        generated: the generated data that were compared, ``(generated, *x_shape)``, in the order of
            ``copying.generated_distance``; ``neighbourhoods.realistic`` is of the first.
        plane_real: real data on the first two principal components of the features of both, ``(real, 2)``.
        plane_generated: generated data likewise, ``(generated, 2)``.
    """

    classifier: ClassifierTest
    discrepancy: MMD
    neighbourhoods: Neighbourhoods
    frechet: Frechet
    copying: DataCopying | None
    features: str
    real_rows: Array
    generated: Array
    plane_real: Array
    plane_generated: Array

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Told apart, covered, copied: two rows, or three where the training data were given.

        No model is the world, and enough data tell any model from it: the thresholds are sizes of a difference, beyond
        its error, and the p-values stand in `summary`.
        """
        accuracy, error = self.classifier.accuracy, self.classifier.standard_error
        apart = _beyond(accuracy - 2 * error, *_ACCURACY)
        around = self.neighbourhoods
        known = (
            "no difference is seen at these sizes"
            if self.classifier.p_value > 0.05
            else f"they differ all the same (p = {self.classifier.p_value:.2g}), by a total variation of "
            f"{self.classifier.total_variation:.2f} or more"
        )
        relative = (around.coverage + 2 * float(around.errors[3])) / around.expected_coverage
        covered = _beyond(-relative, *(-share for share in _COVERAGE))
        rows = (
            Verdict(
                "Can a classifier tell generated from real data?",
                accuracy,
                error,
                "share told right",
                f"at most {_ACCURACY[0]:.1%} beyond its error; fails above {_ACCURACY[1]:.1%}",
                "Lopez-Paz & Oquab 2017, arXiv:1610.06545; by convention: accuracy a means a total variation of 2a - 1 "
                f"or more, here {2 * _ACCURACY[0] - 1:.2g} and {2 * _ACCURACY[1] - 1:.2g}",
                apart,
                known
                if apart == "pass"
                else "look at samples beside data, then at the likelihood (its noise and scale) and at the aggregate "
                "posterior against the prior",
                "classifier_test",
            ),
            Verdict(
                "Do generated data reach all kinds of real data?",
                around.coverage,
                float(around.errors[3]),
                "share of real data covered",
                f"at least {_COVERAGE[0] * around.expected_coverage:.2f} within its error, half of the "
                f"{around.expected_coverage:.3f} of equal distributions; fails below a quarter",
                "Naeem et al. 2020, sec. 3.3, arXiv:2002.09797 (expectation); half and a quarter by convention, at "
                f"{_NEIGHBOUR_ROWS:,} rows or fewer",
                covered,
                ""
                if covered == "pass"
                else "look at the real data that are not covered: if they are of one kind, enlarge the latent space or "
                "the prior; if nearly none is covered, the likelihood's noise is too large",
                "coverage",
            ),
        )
        return rows if self.copying is None else rows + self.copying.verdicts

    def summary(self) -> dict[str, Any]:
        """Scalars for a report, by measure."""
        return {
            "features": self.features,
            "num_real": len(self.real_rows),
            "num_generated": len(self.generated),
            "classifier": self.classifier.summary(),
            "mmd": self.discrepancy.summary(),
            "neighbourhoods": self.neighbourhoods.summary(),
            "frechet": self.frechet.summary(),
            "copying": None if self.copying is None else self.copying.summary(),
        }

    def __str__(self) -> str:
        d = self.discrepancy
        lines = [
            f"{len(self.generated):,} generated against {len(self.real_rows):,} real data on {self.features}",
            str(self.classifier),
            f"MMD^2 {d.value:.3g} ± {d.standard_error:.2g}, p = {d.p_value:.3f} ± {d.p_value_mcse:.3f}; {self.frechet}",
            str(self.neighbourhoods),
        ]
        if self.copying is not None:
            lines.append(str(self.copying).replace("\n ", ";"))
        return "\n  ".join(lines)


def _beyond(value: float, warn: float, fail: float) -> Outcome:
    return "fail" if value > fail else "warn" if value > warn else "pass"


def compare_samples(
    real: Array,
    generated: Array,
    *,
    seed: int,
    train: Array | None = None,
    features: Features | None = None,
    classifier: str | Any = "boosting",
    num_neighbours: int = 5,
    num_permutations: int = 199,
    max_rows: int = 2000,
) -> SampleComparison:
    """Compare draws of a model with data that it was not trained on.

    Args:
        real: held-out data, shape ``(real, *x_shape)``.
        generated: draws of the prior predictive, ``(generated, *x_shape)``.
        seed: of subsamples, folds, permutations and half-samples.
        train: what the model was trained on, for the test of copying, ``(train, *x_shape)``.
        features: from data ``(n, *x_shape)`` to what is compared, ``(n, feature)``; it sees 1,024 data at a time.
            ``None`` takes the numbers as they are where a datum has at most 50, else the first 50 principal components
            of both samples together; the columns of a table are divided by their standard deviation first.
        classifier: see `analysis.stats.classifier_test.classifier_test`.
        num_neighbours: see `analysis.stats.fidelity.neighbourhoods`, which gets at most 2,000 rows of each sample.
        num_permutations: see `analysis.stats.mmd.mmd`.
        max_rows: more rows than these are cut down at random, in both samples; the training data stay whole.

    Raises:
        ValueError: shapes that differ, values that are not finite, or fewer than 20 rows.

    References:
        Those of `analysis.stats.classifier_test`, `analysis.stats.mmd`, `analysis.stats.fidelity` and
        `analysis.samples.copying`.
    """
    if train is not None and train.shape[1:] != real.shape[1:]:
        raise ValueError(f"training data of shape {train.shape[1:]} and real data of shape {real.shape[1:]} differ")
    blocks = None if train is None else (train[start : start + _BLOCK] for start in range(0, len(train), _BLOCK))
    return _compare(
        real, generated, blocks, features, classifier, num_neighbours, num_permutations, max_rows=max_rows, seed=seed
    )


def _compare(
    real: Array,
    generated: Array,
    train: Iterable[Array] | None,
    features: Features | None = None,
    classifier: str | Any = "boosting",
    num_neighbours: int = 5,
    num_permutations: int = 199,
    *,
    max_rows: int,
    seed: int,
) -> SampleComparison:
    if min(len(real), len(generated), max_rows) < _MIN_ROWS:
        raise ValueError(
            f"at least {_MIN_ROWS} rows of each sample wanted, got {len(real)} real and {len(generated)} generated "
            f"(max_rows={max_rows})"
        )
    random = np.random.default_rng(derive_seed(seed, 0))
    real_rows = random.permutation(len(real))[:max_rows]
    real, generated = real[real_rows], generated[random.permutation(len(generated))[:max_rows]]
    embed, named = _embedding(real, generated, features, derive_seed(seed, 1))
    x, y = as_rows(_in_blocks(embed, real), _in_blocks(embed, generated))
    copying = None
    if train is not None:
        known = np.concatenate([_checked(embed(block), len(block)) for block in train])
        copying = data_copying(y, x, known, seed=derive_seed(seed, 6))
    equal = min(len(x), len(y), _NEIGHBOUR_ROWS)
    plane = _plane(x, y)
    return SampleComparison(
        classifier=classifier_test(x, y, classifier=classifier, seed=derive_seed(seed, 2)),
        discrepancy=mmd(x, y, num_permutations=num_permutations, seed=derive_seed(seed, 3)),
        # Coverage nears 1 with more generated than real data, whatever the model, and falls with more of both.
        neighbourhoods=neighbourhoods(x[:equal], y[:equal], num_neighbours=num_neighbours, seed=derive_seed(seed, 4)),
        frechet=frechet_distance(x, y, seed=derive_seed(seed, 5)),
        copying=copying,
        features=named,
        real_rows=real_rows,
        generated=generated,
        plane_real=plane[: len(x)],
        plane_generated=plane[len(x) :],
    )


def check_samples(
    pair: PairLike,
    x: Split | Tensor | Array,
    *,
    num_samples: int = 2000,
    seed: int = 0,
    train: Split | Tensor | Array | None = None,
    mask: Tensor | None = None,
    y: Any = None,
    **options: Any,
) -> SampleComparison:
    """Draw from the prior predictive of a fitted pair, and compare with data.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.densities.log_densities`.
        x: held-out data, ``(datum, *x_shape)``, of which ``num_samples`` at most are used, chosen at random. A split
            whose observations are random is fixed with ``seed`` first. Where elements are hidden, as many are hidden in
            each generated datum, in the pattern of some real one, and both count as the mean of what is observed.
        num_samples: data to draw, at least 20; they are drawn a block at a time.
        seed: of everything that is drawn.
        train: what the model was trained on, for the test of copying.
        mask: boolean, shape of ``x``, true where observed; NaN is not observed.
        y: classes ``(datum,)`` that the programs are given.
        options: see `compare_samples`.

    Raises:
        ValueError: see `compare_samples`; or a VAE of another shape.
    """
    random = np.random.default_rng(derive_seed(seed, 3))
    whole = as_split(x, mask, y)
    rows = np.sort(random.permutation(len(whole))[:num_samples])
    split = whole.take(torch.from_numpy(rows)).fixed(derive_seed(seed, 0))
    pair = as_pair(pair)
    pair.check_shape(split.head)
    known = None if train is None else as_split(train).fixed(derive_seed(seed, 2))
    if known is not None and known.x_shape != split.x_shape:
        raise ValueError(f"training data of shape {known.x_shape} and data of shape {split.x_shape} differ")
    generated = draw_samples(pair, num_samples, split, seed=derive_seed(seed, 1))
    real = _observed(split, slice(None))
    mean: Array | float = 0.0
    if split.mask is not None:
        pattern = split.mask.cpu().numpy()[random.integers(len(split), size=num_samples)]
        generated = np.where(pattern, generated, np.nan)
        count = np.isfinite(real).sum(0) + np.isfinite(generated).sum(0)
        mean = (np.nansum(real, 0) + np.nansum(generated, 0)) / np.maximum(count, 1)
        real, generated = (np.where(np.isnan(part), mean, part) for part in (real, generated))
    blocks = (
        None
        if known is None
        else (
            np.where(np.isnan(part), mean, part)
            for start in range(0, len(known), _BLOCK)
            for part in [_observed(known, slice(start, start + _BLOCK))]
        )
    )
    max_rows = options.pop("max_rows", num_samples)
    result = _compare(real, generated, blocks, max_rows=max_rows, seed=derive_seed(seed, 4), **options)
    return replace(result, real_rows=rows[result.real_rows])


@torch.no_grad()
def draw_samples(pair: PairLike, size: int, like: Split, *, seed: int) -> Array:
    """Data from the prior predictive, ``(size, *x_shape)``, drawn a block at a time.

    Args:
        pair: a `VAE`, or a Pyro ``(model, guide)`` whose ``model(size=n)`` draws the site ``x``.
        size: number of data.
        like: some data, by which the width of a pass is known; where the programs are given classes, those of some of
            these, chosen at random.
        seed: of the draws.

    Raises:
        ValueError: fewer than one datum, or draws of another shape than the data's.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    pair = as_pair(pair)
    block = max(ELEMENTS_AT_ONCE // pair.width(like), 1)
    drawn: list[Array] = []
    for start in range(0, size, block):
        here, block_seed = min(block, size - start), derive_seed(seed, start)
        given: Given = {}
        if like.y is not None:
            chosen = np.random.default_rng(derive_seed(block_seed, 0)).integers(len(like), size=here)
            given = {"y": like.y[torch.from_numpy(chosen)].to(pair.place(like)[0])}
        drawn.append(pair.sample(here, **given, seed=block_seed).cpu().numpy())
    generated = np.concatenate(drawn)
    if generated.shape[1:] != like.x_shape:
        raise ValueError(f"the model draws data of shape {generated.shape[1:]}, the data have {like.x_shape}")
    return generated


def _observed(split: Split, rows: slice) -> Array:
    """Observations, NaN where hidden."""
    array: Array = visible(*split.batch(rows)).cpu().numpy()
    return array


def _embedding(real: Array, generated: Array, features: Features | None, seed: int) -> tuple[Features, str]:
    """What is compared, as a function of data, and its name. It treats both samples alike, as the tests want it."""
    if features is not None:
        return features, f"the features {getattr(features, '__name__', type(features).__name__)!r}"
    both = np.concatenate(as_rows(real, generated))
    elements = both.shape[1]
    name, scale = f"{elements} elements as they are", np.ones(elements)
    if real.ndim == 2:
        name, scale = f"{elements} columns divided by their standard deviation", both.std(0)
        scale = np.where(scale > _TINY * np.maximum(np.abs(both).max(0), 1), scale, 1.0)

    def scaled(x: Array) -> Array:
        flat: Array = x.reshape(len(x), elements) / scale
        return flat

    if elements <= _MAX_DIM or len(both) <= _MAX_DIM:
        return scaled, name
    from sklearn.decomposition import PCA

    solver = "covariance_eigh" if elements <= _MAX_EXACT else "randomized"
    state = int(np.random.default_rng(seed).integers(2**31))
    components = PCA(_MAX_DIM, svd_solver=solver, random_state=state).fit(both / scale)
    kept = float(components.explained_variance_ratio_.sum())
    name = f"{_MAX_DIM} principal components of both samples together ({kept:.0%} of the variance of {name})"
    return lambda x: components.transform(scaled(x)), name


def _in_blocks(function: Features, x: Array) -> Array:
    blocks = (x[start : start + _BLOCK] for start in range(0, len(x), _BLOCK))
    return np.concatenate([_checked(function(block), len(block)) for block in blocks])


def _checked(features: Array, size: int) -> Array:
    array = np.asarray(features)
    if array.ndim != 2 or len(array) != size:
        raise ValueError(f"features of {size} data want the shape ({size}, feature), got {array.shape}")
    return array


def _plane(x: Array, y: Array) -> Array:
    both = np.concatenate([x, y])
    both = both - both.mean(0)
    _, vectors = np.linalg.eigh(both.T @ both)
    plane = both @ vectors[:, ::-1][:, :2]
    return np.pad(plane, ((0, 0), (0, 2 - plane.shape[1])))
