"""Does each known factor have a latent of its own? The scores of codes together, beside what a rotation would give.

A score near its best says that the axes of the latent space are those factors. A VAE can be right as a model and have
any score: rotating a standard normal latent changes no log p(x) (Locatello et al. 2019, arXiv:1811.12359, theorem 1).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.latent.factor_scores import DCI, Score, dci, factor_vae_score, mig, modularity, sap
from analysis.results.verdict import Outcome, Verdict
from vae_pyro.core.isolation import derive_seed
from vae_pyro.evaluation.evaluation import ACTIVE_VARIANCE

type Array = np.ndarray[Any, Any]

__all__ = [
    "DCI",
    "Disentanglement",
    "Score",
    "dci",
    "disentanglement",
    "factor_vae_score",
    "mig",
    "modularity",
    "rotated",
    "sap",
    "udr",
]

_ROTATION_SOURCE = (
    "convention: 5 % level against random rotations, which keep all information and forget the axes "
    "(Locatello et al. 2019, theorem 1)"
)
_LEVEL = 0.05
# Latents whose posterior means vary by no more are not scored (Burda et al. 2016, arXiv:1509.00519, sec. 5).


@dataclass(frozen=True)
class Disentanglement:
    """All scores of one model's codes.

    Attributes:
        factor_names: of each factor.
        active: latents that were scored, ``(latent,)``, by their number in the codes; the others are constant.
        mig: see `mig`; its ``parts`` are for each factor.
        dci: see `dci`.
        sap: see `sap`.
        factor_vae: see `factor_vae_score`.
        modularity: see `modularity`; NaN for a single factor, or where no latent tells of any.
        rotations: MIG of randomly rotated codes, ``(rotation,)``; empty where fewer than 2 latents are active.
        unrotated: MIG of the codes themselves on the same data as `rotations`.
        num_data: data that were scored.
    """

    factor_names: tuple[str, ...]
    active: Array
    mig: Score
    dci: DCI
    sap: Score
    factor_vae: Score
    modularity: Score
    rotations: Array
    unrotated: float
    num_data: int

    @property
    def p_value(self) -> float:
        """Share of rotations whose MIG is at least that of the codes, the codes themselves counted in.

        Valid for the hypothesis that the axes are no better than axes at random; NaN without rotations.
        """
        if len(self.rotations) == 0:
            return float("nan")
        return float((1 + (self.rotations >= self.unrotated).sum()) / (1 + len(self.rotations)))

    @property
    def threshold(self) -> float:
        """The MIG that axes at random reach with a probability of 5 %."""
        return float(np.quantile(self.rotations, 1 - _LEVEL)) if len(self.rotations) else float("nan")

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Whether the codes know the factors, and whether their axes are the factors."""
        excess = self.dci.informativeness - self.dci.chance
        known: Outcome = "pass" if excess > 3 * self.dci.informativeness_se else "fail"
        aligned: Outcome = "pass" if self.p_value <= _LEVEL else "warn"
        return (
            Verdict(
                question="Do the codes know the factors?",
                figure=self.dci.informativeness,
                error=self.dci.informativeness_se,
                unit="",
                threshold=f"above {self.dci.chance:.3f} by 3 standard errors",
                source="convention: the share of the commonest level, which needs no code",
                outcome=known,
                advice="" if known == "pass" else "look at the active latents first: the posterior may have collapsed",
                name="informativeness",
            ),
            Verdict(
                question="Are the axes of the latent space the factors?",
                figure=self.mig.value,
                error=self.mig.se,
                unit="",
                threshold=f"above {self.threshold:.3f}, p at most {_LEVEL} (got {self.p_value:.2g})"
                if len(self.rotations)
                else "at least 2 active latents",
                source=_ROTATION_SOURCE,
                outcome=aligned,
                advice=""
                if aligned == "pass"
                else "read nothing into single latents; fit with objective 'beta_tcvae', and compare seeds",
                name="mig",
            ),
        )

    def __str__(self) -> str:
        def said(value: float, error: float | None) -> str:
            return f"{value:.3f}" if error is None else f"{value:.3f} ± {error:.3f}"

        each = ", ".join(f"{name} {part:.2f}" for name, part in zip(self.factor_names, self.mig.parts, strict=True))
        verdict = (
            "the axes are the factors more than axes at random would be"
            if self.p_value <= _LEVEL
            else "the axes are no more the factors than axes at random"
        )
        return (
            f"disentanglement of {len(self.active)} active latents over {self.num_data:,} data\n"
            f"  {self.mig} ({each}); random axes reach {self.threshold:.3f} in 5 %: {verdict}\n"
            f"  DCI: disentanglement {said(self.dci.disentanglement, self.dci.disentanglement_se)}, completeness "
            f"{said(self.dci.completeness, self.dci.completeness_se)}, informativeness "
            f"{said(self.dci.informativeness, self.dci.informativeness_se)} (chance {self.dci.chance:.3f})\n"
            f"  {self.sap}, {self.factor_vae} (chance {1 / len(self.factor_names):.3f}), {self.modularity}"
        )

    def summary(self) -> dict[str, Any]:
        """Figures with their standard errors (``<key>_se``), in JSON's types; ``None`` where there is none."""
        figures: dict[str, Any] = {}
        for key in ("mig", "sap", "factor_vae", "modularity"):
            score: Score = getattr(self, key)
            figures[key], figures[f"{key}_se"] = _number(score.value), score.se
        for key in ("disentanglement", "completeness", "informativeness"):
            figures[f"dci_{key}"], figures[f"dci_{key}_se"] = getattr(self.dci, key), getattr(self.dci, f"{key}_se")
        figures["mig_of_factors"] = dict(zip(self.factor_names, map(float, self.mig.parts), strict=True))
        figures |= {"mig_rotated_95": _number(self.threshold), "mig_p_value": _number(self.p_value)}
        return figures | {"active": [int(j) for j in self.active], "n": self.num_data}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def disentanglement(
    codes: Any,
    factors: Any,
    *,
    factor_names: Sequence[str] | None = None,
    categorical: Sequence[str] = ("shape",),
    num_rotations: int = 99,
    num_resamples: int = 50,
    max_data: int = 5000,
    seed: int = 0,
) -> Disentanglement:
    """All scores of the codes of one model, and the MIG of rotated codes beside its own.

    Latents whose codes vary by at most 0.01 are left out: a collapsed latent still maps data to different numbers, but
    all of them lie within the posterior's noise.

    Args:
        codes: posterior means, ``(datum, latent)``, see `analysis.draws.codes.posterior_means`.
        factors: levels 0, 1, 2, ..., ``(datum, factor)``, see `vae_pyro.data.sprites.SpriteGrid.factors_of`.
        factor_names: for the report; ``None`` numbers them.
        categorical: names of factors whose levels have no order, for SAP; names that there are not are ignored.
        num_rotations: for the comparison.
        num_resamples: random halves of the data for standard errors; 0 for none.
        max_data: data, drawn at random, for the forests of `dci` and the rotations.
        seed: of everything that is drawn.

    Raises:
        ValueError: wrong shapes, as many names as factors are not given, or no latent varies.
    """
    codes, factors = np.asarray(codes, dtype=np.float64), np.asarray(factors)
    if codes.ndim != 2 or factors.ndim != 2:
        raise ValueError(f"codes (datum, latent), factors (datum, factor) wanted, got {codes.shape}, {factors.shape}")
    names = tuple(factor_names) if factor_names is not None else tuple(f"factor {f}" for f in range(factors.shape[1]))
    if len(names) != factors.shape[1]:
        raise ValueError(f"{factors.shape[1]} factors have {len(names)} names ({', '.join(names)})")
    active = np.flatnonzero(codes.var(0) > ACTIVE_VARIANCE)
    if len(active) == 0:
        raise ValueError(
            f"no latent's codes vary by more than {ACTIVE_VARIANCE}; the posterior has collapsed (lower beta), or "
            "they are codes of another kind, to be scaled to unit variance"
        )
    kept = codes[:, active]
    unordered = [names.index(name) for name in categorical if name in names]
    gap = mig(kept, factors, num_resamples=num_resamples, seed=seed)
    single = Score("modularity", float("nan"), None, np.full(len(active), np.nan), gap.matrix)
    rows = np.random.default_rng(derive_seed(seed, 8)).permutation(len(kept))[:max_data]

    def again(z: Array) -> float:
        return mig(z, factors[rows], num_resamples=0).value

    return Disentanglement(
        names,
        active,
        gap,
        dci(kept, factors, max_data=max_data, num_bootstrap=5 if num_resamples else 0, seed=seed),
        sap(kept, factors, categorical=unordered, num_resamples=min(num_resamples, 20), seed=seed),
        factor_vae_score(kept, factors, seed=seed),
        modularity(kept, factors, num_resamples=num_resamples, seed=seed) if len(names) > 1 else single,
        rotated(again, kept[rows], num_rotations=num_rotations, seed=seed) if len(active) > 1 else np.empty(0),
        again(kept[rows]),
        len(codes),
    )


def udr(
    codes: Sequence[Any], *, informative: Sequence[Any] | None = None, num_bootstrap: int = 200, seed: int = 0
) -> Score:
    """Unsupervised disentanglement ranking: do models that differ in their seed find the same latents? No factors.

    Between two models the absolute Spearman correlations of their latents are compared: each informative latent should
    match one latent of the other model and no second one. A model's score is the median over the others.

    Args:
        codes: of each model for the same data in the same order, each ``(datum, latent)``; at least 2 models.
        informative: for each model, which latents count, boolean ``(latent,)``; the paper takes those with a mean KL
            above 0.01 nats. ``None`` takes those whose codes vary by more than 0.01.
        num_bootstrap: bootstrap samples of the partners for the standard error of the mean score.
        seed: of the bootstrap.

    Returns:
        The mean over models as ``value``, the models' scores as ``parts``, pairs as ``matrix`` (NaN on its diagonal).

    Raises:
        ValueError: fewer than 2 models, or codes of different data.

    References:
        Duan et al. 2020, Unsupervised model selection for variational disentangled representation learning, sec. 4,
        eq. 2-3 (UDR_S). arXiv:1905.12614
    """
    from scipy.stats import rankdata

    models = [np.asarray(each, dtype=np.float64) for each in codes]
    if len(models) < 2:
        raise ValueError(f"UDR compares at least 2 models, got {len(models)}")
    if any(each.ndim != 2 or len(each) != len(models[0]) for each in models):
        raise ValueError(f"codes (datum, latent) of the same data wanted, got {[each.shape for each in models]}")
    chosen = [each.var(0) > ACTIVE_VARIANCE for each in models] if informative is None else [
        np.asarray(each, dtype=bool) for each in informative
    ]  # fmt: skip
    ranks = []
    for each in models:
        rank = rankdata(each, axis=0)
        rank = rank - rank.mean(0)
        length = np.sqrt((rank**2).sum(0))
        ranks.append(rank / np.where(length > 0, length, np.inf))
    pairs = np.full((len(models), len(models)), np.nan)
    for i in range(len(models)):
        for j in range(i):
            kept = np.abs(ranks[i][:, chosen[i]].T @ ranks[j][:, chosen[j]])
            pairs[i, j] = pairs[j, i] = _relative_strength(kept)
    scores = np.nanmedian(pairs, axis=1)
    others = [np.delete(row, i) for i, row in enumerate(pairs)]
    random = np.random.default_rng(derive_seed(seed, 6))
    means = [np.mean([np.median(random.choice(row, len(row))) for row in others]) for _ in range(max(num_bootstrap, 0))]
    se = float(np.std(means, ddof=1)) if num_bootstrap > 1 and len(models) > 2 else None
    return Score("UDR", float(scores.mean()), se, scores, pairs)


def _relative_strength(correlation: Array) -> float:
    if correlation.size == 0:
        return 0.0
    total = 0.0
    for axis in (0, 1):
        summed = correlation.sum(axis)
        total += float((correlation.max(axis) ** 2 / np.where(summed > 0, summed, np.inf)).sum())
    return total / sum(correlation.shape)


def rotated(score: Callable[[Array], float], codes: Any, *, num_rotations: int = 50, seed: int = 0) -> Array:
    """A score of randomly rotated codes, ``(rotation,)``: the same information on axes that mean nothing.

    Args:
        score: of codes ``(datum, latent)``.
        codes: ``(datum, latent)``; those latents that vary are standardised and rotated, the others dropped.
        num_rotations: rotations, uniform over the orthogonal group.
        seed: of the rotations.

    Raises:
        ValueError: fewer than 2 latents vary, so that there is nothing to rotate.
    """
    from scipy.stats import ortho_group

    codes = np.asarray(codes, dtype=np.float64)
    variance = codes.var(0)
    active = variance > 0
    if active.sum() < 2:
        raise ValueError(f"a rotation wants at least 2 latents that vary, got {int(active.sum())}")
    scaled = (codes[:, active] - codes[:, active].mean(0)) / np.sqrt(variance[active])
    random = np.random.default_rng(derive_seed(seed, 7))
    matrices = [ortho_group.rvs(int(active.sum()), random_state=random) for _ in range(num_rotations)]
    return np.array([score(scaled @ matrix) for matrix in matrices])
