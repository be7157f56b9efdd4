"""Have the data changed since a model was fitted? New data against held-out data, as the fitted model sees both.

What new data are compared with has to be exchangeable with them where nothing has changed. The training data are not:
the model has seen them, so that they are likelier than new data of the same distribution, and their latents fit better;
a test against them finds drift where there is none. Nor are validation data by which the fit was stopped, to a lesser
degree. The test data of a run are, where they were set apart at random; where a source has test data of its own, the
question is whether new data are like those.

Three statistics look at different things: log p(x), what the model thinks of each datum; the kernel discrepancy of the
latents, a difference of any kind in where data lie; and how well a classifier tells latents apart, which is sharp
where few of many latents move. They share one set of relabellings, by which they are judged one by one and together, so
that the false-alarm rate of all three is the nominal one and no less.
"""

from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.draws.codes import drawn_means
from analysis.monitoring.outliers import evidence
from analysis.results.estimate import plus_minus
from analysis.results.verdict import Outcome, Verdict
from analysis.samples.copying import mann_whitney
from analysis.stats.conformal import conformal_p_values
from analysis.stats.detection_scores import Separation, separation
from analysis.stats.mmd import MMD, mmd
from analysis.stats.two_sample import anderson_darling, discriminant, max_t, min_p, relabellings
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split
from vae_pyro.densities.pair import PairLike

type Array = np.ndarray[Any, Any]

STATISTICS = ("log_px", "mmd", "classifier")
_MIN_ROWS = 20
_MEDIAN_ROWS = 1000
_SHOWN = 5
_GIVEN = "the values as given"
(_ROWS_STREAM, _REFERENCE_STREAM, _NEW_STREAM, _LABEL_STREAM, _FOLD_STREAM, _MEDIAN_STREAM, _FIX_STREAM) = range(7)


@dataclass(frozen=True)
class Drift:
    """New data beside reference data.

    Attributes:
        log_px_reference: log p(x) of the reference data by importance sampling, nats, ``(reference,)``.
        log_px_new: of the new data, ``(new,)``.
        codes_reference: posterior means of all latents, ``(reference, latent)``; likewise ``codes_new``.
        latents: names of the latents, ``z[0]`` and so on.
        ids_reference: of the reference data; likewise ``ids_new``.
        statistics: of the arrangements of the labels, the given one first, ``(1 + permutation, 3)``: Anderson-Darling
            statistic of log p(x), MMD^2 of the latents, area under the ROC curve of the classifier.
        p_values: of each of these, ``(3,)``.
        adjusted: likewise, for being three; the smallest is `p_value`.
        latent_adjusted: p-value of each latent, adjusted for their number, ``(latent,)``.
        discrepancy: the MMD with its error.
        classifier: how well held-out scores of the classifier tell the samples apart; its errors take the scores as
            independent, which they are but for the fits they share.
        level: false-alarm rate that was asked for.
        num_draws: draws of the guide for each datum.
        space: in words, what the data are.
    """

    log_px_reference: Array
    log_px_new: Array
    codes_reference: Array
    codes_new: Array
    latents: tuple[str, ...]
    ids_reference: Array
    ids_new: Array
    statistics: Array
    p_values: Array
    adjusted: Array
    latent_adjusted: Array
    discrepancy: MMD
    classifier: Separation
    level: float
    num_draws: int
    space: str = _GIVEN

    @property
    def p_value(self) -> float:
        """Of one distribution, by all three statistics together."""
        return float(self.adjusted.min())

    @property
    def p_value_mcse(self) -> float:
        """Its Monte Carlo standard error: with other relabellings."""
        count = self.num_permutations
        return max(sqrt(self.p_value * (1 - self.p_value) / count), 0.5 / (count + 1))

    @property
    def num_permutations(self) -> int:
        """Relabellings beside the given labels."""
        return len(self.statistics) - 1

    @property
    def drifted(self) -> bool:
        """Whether equality is rejected at `level`."""
        return self.p_value <= self.level

    @property
    def seen_by(self) -> tuple[str, ...]:
        """Which statistics reject it at `level`, adjusted for being three."""
        return tuple(name for name, p in zip(STATISTICS, self.adjusted, strict=True) if p <= self.level)

    @cached_property
    def less_likely(self) -> tuple[float, float]:
        """P(a new datum has the smaller log p(x) of the two), 1/2 without drift, and its standard error."""
        probability, error, _ = mann_whitney(self.log_px_reference, self.log_px_new)
        return probability, error

    @property
    def log_px_shift(self) -> tuple[float, float]:
        """Mean log p(x) of the new data minus that of the reference, nats per datum, and its standard error."""
        new, reference = self.log_px_new, self.log_px_reference
        with np.errstate(invalid="ignore"):  # data that the model holds for impossible
            error = sqrt(new.var(ddof=1) / len(new) + reference.var(ddof=1) / len(reference))
        return float(new.mean() - reference.mean()), error

    @cached_property
    def strangeness(self) -> Array:
        """Conformal p-value of each new datum: share of reference data as unlikely as it, ``(new,)``."""
        return conformal_p_values(-self.log_px_reference, -self.log_px_new)

    def surprising(self, count: int = 10) -> Array:
        """Rows of `ids_new` of the least likely new data, the least likely first."""
        return np.argsort(self.log_px_new, kind="stable")[:count]

    @property
    def moved(self) -> Array:
        """Latents whose distribution changed, the most certain and largest changes first, as indices."""
        found = np.flatnonzero(self.latent_adjusted <= self.level)
        size = np.abs(self.latent_shift) + np.abs(np.log(self.latent_spread))
        return found[np.lexsort((-size[found], self.latent_adjusted[found]))]

    @property
    def latent_shift(self) -> Array:
        """Mean of each latent's posterior means in the new data minus the reference's, in its standard deviations."""
        scale = np.maximum(self.codes_reference.std(0), np.finfo(np.float64).tiny)
        return np.asarray((self.codes_new.mean(0) - self.codes_reference.mean(0)) / scale)

    @property
    def latent_spread(self) -> Array:
        """Standard deviation of each latent's posterior means in the new data, over the reference's."""
        tiny = np.finfo(np.float64).tiny
        return np.asarray(np.maximum(self.codes_new.std(0), tiny) / np.maximum(self.codes_reference.std(0), tiny))

    def summary(self) -> dict[str, Any]:
        """Figures for a report, JSON-able."""
        shift, shift_se = self.log_px_shift
        less, less_se = self.less_likely
        finite = np.isfinite(shift)
        return {
            "drifted": self.drifted,
            "p_value": self.p_value,
            "p_value_mcse": self.p_value_mcse,
            "level": self.level,
            "seen_by": list(self.seen_by),
            "p_values": dict(zip(STATISTICS, self.p_values.tolist(), strict=True)),
            "p_values_adjusted": dict(zip(STATISTICS, self.adjusted.tolist(), strict=True)),
            "log_px_shift": shift if finite else None,
            "log_px_shift_se": shift_se if finite else None,
            "less_likely": less,
            "less_likely_se": less_se,
            "mmd2": self.discrepancy.value,
            "mmd2_se": self.discrepancy.standard_error,
            "bandwidth": list(self.discrepancy.bandwidth),
            "auroc": self.classifier.auroc,
            "auroc_se": self.classifier.auroc_se,
            "latents": {
                name: {"p_adjusted": float(p), "shift": float(shift), "spread": float(spread)}
                for name, p, shift, spread in zip(
                    self.latents, self.latent_adjusted, self.latent_shift, self.latent_spread, strict=True
                )
            },
            "moved": [self.latents[i] for i in self.moved],
            "surprising": [
                {
                    "id": int(self.ids_new[i]),
                    "log_px": float(self.log_px_new[i]) if np.isfinite(self.log_px_new[i]) else None,
                    "p_value": float(self.strangeness[i]),
                }
                for i in self.surprising()
            ],
            "num_reference": len(self.log_px_reference),
            "num_new": len(self.log_px_new),
            "num_permutations": self.num_permutations,
            "num_draws": self.num_draws,
            "space": self.space,
        }

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """All three statistics together, then each of them, its p-value adjusted for being three."""
        shift, shift_se = self.log_px_shift
        source = "exact permutation test: Phipson & Smyth 2010, arXiv:1603.05766, sec. 3; minP: Westfall & Young 1993"
        found = self._outcome(self.p_value)
        wanted = f"p above {self.level:g}, adjusted for three statistics; here p = "
        rows = [
            Verdict(
                "Do new data come from the distribution of the held-out data?",
                self.p_value,
                self.p_value_mcse,
                "p-value",
                f"above {self.level:g}; fails at {self.level / 10:g} or less",
                source,
                found,
                ""
                if found == "pass"
                else "look at the most surprising data and at the latents that moved; fit anew, or continue the fit "
                "with replay (--init-from RUN --replay 0.5)"
                + ("" if found == "fail" else f"; one test in {1 / self.level:.0f} says so by chance: test more data"),
                "drift",
            )
        ]
        figures = (
            ("Are new data as probable as held-out data?", shift, shift_se, "nats per datum, difference of means"),
            (
                "Do their latents lie where those of held-out data lie?",
                self.discrepancy.value,
                self.discrepancy.standard_error,
                "squared maximum mean discrepancy",
            ),
            (
                "Can a classifier tell their latents from those of held-out data?",
                self.classifier.auroc,
                self.classifier.auroc_se,
                "area under the ROC curve",
            ),
        )
        for (question, figure, error, unit), name, p in zip(figures, STATISTICS, self.adjusted, strict=True):
            known = error if np.isfinite(error) else None
            seen, key = f"{wanted}{p:.3g}", f"drift_{name}"
            rows.append(Verdict(question, figure, known, unit, seen, source, self._outcome(p), "", key))
        return tuple(rows)

    def _outcome(self, p: float) -> Outcome:
        return "pass" if p > self.level else "warn" if p > self.level / 10 else "fail"

    def __str__(self) -> str:
        shift, shift_se = self.log_px_shift
        less, less_se = self.less_likely
        said = (
            f"the data have changed (p = {self.p_value:.3g} ± {self.p_value_mcse:.2g}, at most {self.level:g})"
            if self.drifted
            else f"no change is seen (p = {self.p_value:.3g} ± {self.p_value_mcse:.2g}, above {self.level:g})"
        )
        p = [f"p = {value:.3g}, adjusted {adjusted:.3g}" for value, adjusted in zip(
            self.p_values, self.adjusted, strict=True
        )]  # fmt: skip
        lines = [
            f"{said}: {len(self.log_px_new):,} new against {len(self.log_px_reference):,} held-out data, "
            f"{self.num_permutations:,} relabellings",
            f"  log p(x)    {plus_minus(shift, shift_se)} nats per datum; a new datum is the less likely one with "
            f"probability {plus_minus(less, less_se)} ({p[0]})",
            f"  latents     MMD^2 {plus_minus(self.discrepancy.value, self.discrepancy.standard_error)} ({p[1]})",
            f"  classifier  AUROC {plus_minus(self.classifier.auroc, self.classifier.auroc_se)} ({p[2]})",
        ]
        if self.drifted:
            moved = [
                f"{self.latents[i]} by {self.latent_shift[i]:+.2f} sd, spread times {self.latent_spread[i]:.2f}"
                for i in self.moved[:_SHOWN]
            ]
            more = len(self.moved) - len(moved)
            lines.append(
                f"  {len(self.moved)} of {len(self.latents)} latents moved: {'; '.join(moved)}"
                + (f"; {more} more" if more > 0 else "")
                if moved
                else f"  none of {len(self.latents)} latents is seen to move by itself"
            )
            strange = ", ".join(
                f"{self.ids_new[i]} ({plus_minus(float(self.log_px_new[i]))})" for i in self.surprising(_SHOWN)
            )
            lines.append(f"  least likely new data, id (log p(x)): {strange}")
        return "\n".join(lines)


def drift_test(
    pair: PairLike,
    reference: Split | Tensor | Array,
    new: Split | Tensor | Array,
    *,
    num_permutations: int = 999,
    level: float = 0.05,
    num_draws: int = 100,
    max_rows: int = 2000,
    seed: int = 0,
) -> Drift:
    """Test whether new data come from the distribution that a fitted pair was made for, and say what moved.

    The test is exact: where new and reference data are exchangeable, drift is found with probability ``level``, or
    less by no more than 3 / (1 + num_permutations), whatever the model, the guide, and the sizes. All three statistics
    are computed for the same relabellings, the classifier refitted for each (`analysis.stats.two_sample.discriminant`),
    and joined by `analysis.stats.two_sample.min_p`. Power is that of the model: what it is blind to is not seen.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.densities.log_densities`.
        reference: held-out data of the distribution that the pair was fitted to, ``(datum, *x_shape)``: neither its
            training data, nor data that decided when the fit stopped.
        new: the data in question; copies of training data among them look likelier than new data are.
        num_permutations: relabellings; the smallest p-value is ``1 / (1 + num_permutations)``.
        level: false-alarm rate.
        num_draws: draws of the guide for each datum, for log p(x) and posterior means. Both samples get as many, and
            the test is exact with any number.
        max_rows: more data than these are cut down at random, in both samples.
        seed: of rows, draws, relabellings and folds.

    Returns:
        p-values, effects with their errors, the least likely data and the latents that moved.

    Raises:
        ValueError: fewer than 20 data in a sample, shapes or observation spaces that differ, classes that are known in
            one sample and not in the other, a level that so few permutations cannot reach, data outside the support of
            the likelihood, or a log p(x) that is NaN.

    References:
        Rabanser, Günnemann & Lipton 2019, Failing loudly: an empirical study of methods for detecting dataset shift,
        NeurIPS (two-sample tests on reduced data, one by one and joined). arXiv:1810.11953
        Gretton et al. 2012, A kernel two-sample test, JMLR 13 (MMD).
        Phipson & Smyth 2010, Permutation p-values should never be zero, sec. 3. arXiv:1603.05766
    """
    if not 0 < level < 1 or num_permutations < 1 or 1 / (1 + num_permutations) > level:
        raise ValueError(
            f"level={level:g} with {num_permutations} permutations: the smallest p-value is "
            f"{1 / (1 + max(num_permutations, 0)):.3g}; raise num_permutations, or pass a level between that and 1"
        )
    samples = [
        _rows(as_split(x), max_rows, derive_seed(seed, _ROWS_STREAM, place)).fixed(
            derive_seed(seed, _FIX_STREAM, place)
        )
        for place, x in enumerate((reference, new))
    ]
    _require_alike(samples[0], samples[1], max_rows)
    streams = (derive_seed(seed, _REFERENCE_STREAM), derive_seed(seed, _NEW_STREAM))
    log_px, codes, names = [], [], [""]
    for split, stream in zip(samples, streams, strict=True):
        log_px.append(evidence(pair, split, num_draws=num_draws, seed=stream).log_px)
        names, found = drawn_means(pair, split, num_draws=num_draws, seed=derive_seed(stream, 2))
        codes.append(found)
    m, n = len(samples[0]), len(samples[1])
    label_seed = derive_seed(seed, _LABEL_STREAM)
    first = relabellings(m, n, num_permutations, seed=label_seed)
    pooled = np.concatenate(codes)
    bandwidth = _median_distance(pooled, derive_seed(seed, _MEDIAN_STREAM))
    discrepancy = mmd(*codes, seed=label_seed, bandwidth=bandwidth, num_permutations=num_permutations)
    auroc, scores = discriminant(pooled, first, seed=derive_seed(seed, _FOLD_STREAM))
    statistics = np.column_stack(
        [
            anderson_darling(np.concatenate(log_px), first),
            np.concatenate([[discrepancy.value], discrepancy.null]),
            auroc,
        ]
    )
    p_values, adjusted = min_p(statistics)
    return Drift(
        log_px_reference=log_px[0],
        log_px_new=log_px[1],
        codes_reference=codes[0],
        codes_new=codes[1],
        latents=tuple(names),
        ids_reference=samples[0].ids.cpu().numpy(),
        ids_new=samples[1].ids.cpu().numpy(),
        statistics=statistics,
        p_values=p_values,
        adjusted=adjusted,
        latent_adjusted=max_t(np.column_stack([anderson_darling(column, first) for column in pooled.T])),
        discrepancy=discrepancy,
        classifier=separation(scores[:m], scores[m:]),
        level=level,
        num_draws=num_draws,
        space=str(samples[1].space),
    )


def _rows(split: Split, max_rows: int, seed: int) -> Split:
    if len(split) <= max_rows:
        return split
    chosen = np.sort(np.random.default_rng(seed).choice(len(split), max_rows, replace=False))
    return split.take(torch.from_numpy(chosen).to(split.device))


def _require_alike(reference: Split, new: Split, max_rows: int) -> None:
    if min(len(reference), len(new)) < _MIN_ROWS:
        raise ValueError(
            f"at least {_MIN_ROWS} data of each sample wanted, got {len(reference)} reference and {len(new)} new data "
            f"(max_rows={max_rows})"
        )
    if reference.x_shape != new.x_shape:
        raise ValueError(f"reference data of shape {reference.x_shape} and new data of shape {new.x_shape} differ")
    if not reference.space.compatible(new.space):
        raise ValueError(
            f"the reference data are {reference.space!r} and the new data {new.space!r}; prepare both alike, with the "
            "options that the model was fitted with"
        )
    # Of a datum with a class the density is that of both: log p(x, y) beside log p(x) differs where nothing changed.
    one, other = _known_classes(reference), _known_classes(new)
    if one != other:
        raise ValueError(
            f"classes are known of {one} reference data and of {other} new data, so that densities of data with and "
            "without their class would be compared; give y for both samples, or leave it out of both "
            "(split.replace(y=None))"
        )


def _known_classes(split: Split) -> str:
    """Of how many data the programs are given a class: ``all``, ``some`` or ``no``."""
    if split.y is None:
        return "no"
    known = split.y >= 0
    return "all" if bool(known.all()) else "some" if bool(known.any()) else "no"


def _median_distance(pooled: Array, seed: int) -> float:
    """Median of the distances of pooled rows, of at most 1,000 of them: the usual length of the kernel."""
    from scipy.spatial.distance import pdist

    some = pooled
    if len(pooled) > _MEDIAN_ROWS:
        some = pooled[np.random.default_rng(seed).choice(len(pooled), _MEDIAN_ROWS, replace=False)]
    distances = pdist(some)
    distances = distances[distances > 0]
    return float(np.median(distances)) if len(distances) else 1.0
