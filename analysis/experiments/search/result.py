"""Analysis of a search: optimism of the best validation ELBO, position of the optimum, importance of the settings.

The validation ELBO of the selected trial is the largest of many, partly by chance of the validation data: it is
optimistic as an estimate of the ELBO on fresh data, see `analysis.stats.selection.selection_optimism`.
"""

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.results.estimate import Estimate, plus_minus
from analysis.results.result import Result
from analysis.results.text import screen
from analysis.results.verdict import Verdict
from analysis.stats.selection import Optimism, selection_optimism
from vae_pyro.evaluation.evaluation import Evaluation
from vae_pyro.experiments.tuning.search import Search, TuningTrial, shown
from vae_pyro.experiments.tuning.space import Dimension
from vae_pyro.experiments.tuning.study import quiet

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]

# Fewest complete trials that a forest is fitted to, and the number of forests.
MIN_TRIALS = 6
_FORESTS = 4
# Outer share of a range, on its own scale, that counts as its edge.
_EDGE = 0.05
_OPTIMISM_STREAM = 0x5EA2C4


@dataclass(frozen=True, repr=False)
class SearchAnalysis(Result):
    """A search with what its trials say about the selected one and about the settings.

    Attributes:
        search: with at least one complete trial.
        optimism: of the validation ELBO of the best trial, nats per datum.
        validation: validation results of the best trial.
        edges: settings whose best value lies at an end of their range, with the direction in which to extend it.
        importances: share of the variance of the validation ELBO that each setting explains, see `importances`.
    """

    search: Search
    optimism: Optimism
    validation: Evaluation
    edges: tuple[str, ...]
    importances: dict[str, Estimate]

    @property
    def elbo_se(self) -> float:
        """Monte Carlo standard error of the validation ELBO of the best trial, nats per datum."""
        return float(self.validation.summary()["elbo_se"])

    @property
    def corrected_se(self) -> float:
        """Standard error of the corrected ELBO from draws and bootstrap samples, nats per datum."""
        return float(np.hypot(self.elbo_se, self.optimism.optimism_se))

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Whether the choice is more than chance, lies inside the space, and no trial failed."""
        optimism, failed = self.optimism, self.search.of_state("failed")
        small = optimism.optimism <= optimism.sampling_se
        return (
            Verdict(
                "Is the optimism of the best trial's ELBO small?",
                optimism.optimism,
                optimism.optimism_se,
                "nats per datum",
                f"at most the sampling error, {optimism.sampling_se:.2g}",
                "convention: below it, the selection adds less than the error of the validation data",
                "pass" if small else "warn",
                "" if small else "report the corrected ELBO; more validation data or fewer trials reduce the optimism",
                "optimism",
            ),
            Verdict(
                "Does the best setting lie inside the space?",
                len(self.edges),
                None,
                "ranges at an end",
                "0",
                f"convention: an end is the outer {_EDGE:.0%} of a range on its own scale",
                "warn" if self.edges else "pass",
                f"extend {', '.join(self.edges)}, and search again" if self.edges else "",
                "edges",
            ),
            Verdict(
                "Could every trial be fitted?",
                len(failed),
                None,
                "trials failed",
                "0",
                "convention: a failed trial spends time on settings that are not candidates",
                "warn" if failed else "pass",
                "see the reasons in the table of failures; leave out what cannot be fitted" if failed else "",
                "failures",
            ),
        )

    def summary(self) -> dict[str, Any]:
        """JSON-able; ELBOs in nats per datum."""
        best, states = self.search.best, [trial.state for trial in self.search.trials]
        return {
            "best": {"number": best.number, "params": dict(best.params), "epoch": best.best_epoch},
            **{name: float(value) for name, value in vars(self.optimism).items()},
            "corrected": self.optimism.corrected,
            "elbo_se": self.elbo_se,
            "edges": list(self.edges),
            "importances": {name: vars(share) for name, share in self.importances.items()},
            "trials": {state: states.count(state) for state in dict.fromkeys(states)},
        }

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each trial."""
        return self.search.to_dataframe()

    def plot(self) -> "Figure":
        """Validation ELBO of the trials in order, and the best so far."""
        from analysis.experiments.search.plot import plot_search_history

        return plot_search_history(values_of(self.search), [trial.state for trial in self.search.trials])

    def __str__(self) -> str:
        shares = ", ".join(f"{name} {share.value:.0%}" for name, share in self.importances.items())
        optimism, best = self.optimism, self.search.best
        lines = [
            f"best of {optimism.num_candidates:,} trials: trial {best.number}, {params_text(self.search, best)}",
            f"validation ELBO {plus_minus(optimism.value, self.elbo_se)} nats per datum, "
            f"{plus_minus(optimism.corrected, self.corrected_se)} corrected for the selection",
            f"importance of settings: {shares or 'not estimated, too few different complete trials'}",
        ]
        return screen([*lines, *map(str, self.verdicts)])


def analyse_search(search: Search, *, seed: int = 0) -> SearchAnalysis:
    """Analyse a search.

    Args:
        search: with at least one complete trial.
        seed: seed of bootstrap samples and forests.

    Raises:
        ValueError: no trial is complete.
    """
    best = search.best
    held = {trial.number: kept for trial in search.of_state("complete") if (kept := trial.validation()) is not None}
    scores = np.stack([one.elbo for one in held.values()])
    return SearchAnalysis(
        search=search,
        optimism=selection_optimism(scores, seed=seed ^ _OPTIMISM_STREAM),
        validation=held[best.number],
        edges=tuple(
            text for dimension in search.space if (text := _edge(dimension, best.params[dimension.name])) is not None
        ),
        importances=importances(search, seed=seed),
    )


def importances(search: Search, *, seed: int = 0) -> dict[str, Estimate]:
    """Share of the variance of the validation ELBO over the space that each setting explains, by functional ANOVA.

    A random forest is fitted to the complete trials, and its variance over the space is decomposed. The error is that
    of the forest alone (standard error over four of them). With few trials the forest, and so the shares, are rough.

    Returns:
        Shares that sum to 1 by the names of the settings, largest first; empty where fewer than six trials are complete
        or all have the same ELBO.

    References:
        Hutter, Hoos & Leyton-Brown 2014, An efficient approach for assessing hyperparameter importance, ICML, PMLR 32.
    """
    complete = search.of_state("complete")
    if len(complete) < MIN_TRIALS or len({trial.value for trial in complete}) < 2:
        return {}
    with quiet() as optuna:
        study = optuna.create_study(direction="maximize")
        distributions = {dimension.name: dimension.distribution() for dimension in search.space}
        for trial in complete:
            study.add_trial(
                optuna.trial.create_trial(params=dict(trial.params), distributions=distributions, value=trial.value)
            )
        found = [
            optuna.importance.get_param_importances(
                study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=seed + forest)
            )
            for forest in range(_FORESTS)
        ]
    shares = {name: np.array([forest[name] for forest in found]) for name in distributions}
    ordered = sorted(shares, key=lambda name: -shares[name].mean())
    root = np.sqrt(_FORESTS)
    return {name: Estimate(float(shares[name].mean()), float(shares[name].std(ddof=1) / root)) for name in ordered}


def params_text(search: Search, trial: TuningTrial) -> str:
    """The parameters of a trial: ``latent_dim = 4, optimizer.lr = 0.001``."""
    return ", ".join(f"{dimension.name} = {shown(trial.params.get(dimension.name))}" for dimension in search.space)


def values_of(search: Search) -> Array:
    """Validation ELBO of each trial, ``(trial,)``; NaN where none is known."""
    return np.array([np.nan if trial.value is None else trial.value for trial in search.trials])


def _edge(dimension: Dimension, param: Any) -> str | None:
    """The setting and the direction in which to extend its range, where the parameter lies at an end."""
    if dimension.choices or dimension.low is None or dimension.high is None:
        return None
    low, high, at = (log(end) if dimension.log else end for end in (dimension.low, dimension.high, param))
    place = (at - low) / (high - low)
    if min(place, 1 - place) > _EDGE:
        return None
    return f"{dimension.name} {'down' if place < 0.5 else 'up'}wards"
