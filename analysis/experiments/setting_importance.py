"""How much each setting of a search matters, by functional ANOVA."""

from typing import Any

import numpy as np

from analysis.results.estimate import Estimate
from vae_pyro.experiments.tuning.search import Search
from vae_pyro.experiments.tuning.study import quiet

FEWEST_TRIALS = 6

_FORESTS = 4


def importances(search: Search, *, seed: int = 0) -> dict[str, Estimate]:
    """Share of the variance of the validation ELBO over the space that each setting explains, by functional ANOVA.

    A random forest is fitted to the complete trials, and its variance over the space is split. The error is that of the
    forest alone (standard error over four of them). With few trials the forest, and so the shares, are rough.

    Returns:
        Shares that sum to 1 by the names of the settings, largest first; empty where fewer than six trials are complete
        or all are alike.

    References:
        Hutter, Hoos & Leyton-Brown 2014, An efficient approach for assessing hyperparameter importance, ICML, PMLR 32.
    """
    complete = search.of_state("complete")
    if len(complete) < FEWEST_TRIALS or len({trial.value for trial in complete}) < 2:
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
    return {name: Estimate(float(shares[name].mean()), _standard_error(shares[name])) for name in ordered}


def _standard_error(values: np.ndarray[Any, Any]) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))
