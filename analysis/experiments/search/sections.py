"""The sections of the page of a search: its space, the best settings, its course, and the effect of the settings."""

from collections.abc import Mapping
from shlex import quote
from typing import Any

import numpy as np

from analysis.experiments.search.plot import (
    Axis,
    plot_importance,
    plot_learning_curves,
    plot_search_history,
    plot_slices,
    plot_two_settings,
)
from analysis.experiments.search.result import MIN_TRIALS, SearchAnalysis, params_text, values_of
from analysis.results.estimate import Estimate
from analysis.results.page import Block, Heading, Listing, Picture, Section, Table
from vae_pyro.core.registry import Choice
from vae_pyro.experiments.tuning.search import Search, shown
from vae_pyro.training.resume import FREE

_PANELS = 12


def space_section(search: Search) -> Section:
    """The space, and the settings that all trials share."""
    rows: list[list[Any]] = []
    for dimension in search.space:
        if dimension.choices:
            rows.append([dimension.name, ", ".join(dimension.choices), "choices"])
        else:
            kind = "integers" if dimension.integer else "real numbers"
            spread = ", uniform in the logarithm" if dimension.log else ""
            rows.append([dimension.name, f"{dimension.low:g} to {dimension.high:g}", f"{kind}{spread}"])
    searched = {dimension.path[:2] for dimension in search.space}
    whole = {dimension.path for dimension in search.space}
    shared = [
        [key, f"{_value(key, value)}{', except for the options searched' if (section, key) in searched else ''}"]
        for section in ("model", "fit")
        for key, value in search.plan[section].items()
        if (section, key) not in whole and key not in ("x_shape", *FREE["fit"])
    ]
    return Section(
        "Search space",
        [
            Table("The space", ["setting", "values", "kind"], rows, name="space"),
            Table("Settings that all trials share", ["setting", "value"], shared, name="shared"),
        ],
        methods="Trials are proposed by the tree-structured Parzen estimator, which models the densities of good and "
        f"bad trials, after {search.plan['num_random']:,} drawn at random. All trials share the seed, the split and "
        "the validation draws, so that their differences do not come from these. Each trial has one seed, and its ELBO "
        "depends on it.",
        references=[
            "Akiba et al. 2019, Optuna: a next-generation hyperparameter optimization framework, KDD. arXiv:1907.10902",
            "Bergstra, Bardenet, Bengio & Kégl 2011, Algorithms for hyper-parameter optimization, NeurIPS 24.",
        ],
        name="searched",
    )


def _value(key: str, value: Any) -> str:
    if isinstance(value, Mapping) and "name" in value:
        return str(Choice(**value))
    if value is None:
        return "as the encoder" if key == "decoder" else "none"
    return str(value)


def best_section(analysis: SearchAnalysis) -> Section:
    """The best settings, their ELBO, and the optimism of the selection."""
    search, optimism = analysis.search, analysis.optimism
    best = search.best
    rows: list[list[Any]] = [
        ["on the data that selected it", Estimate(optimism.value, analysis.elbo_se), optimism.sampling_se],
        ["optimism of the selection", Estimate(optimism.optimism, optimism.optimism_se), None],
        ["expected on fresh data", Estimate(optimism.corrected, analysis.corrected_se), optimism.sampling_se],
    ]
    settings = [[dimension.name, shown(best.params[dimension.name])] for dimension in search.space]
    blocks: list[Block] = [
        Table("The best settings", ["setting", "value"], settings, name="best"),
        Table(
            "ELBO of the best trial, nats per datum",
            ["validation ELBO", "estimate ± Monte Carlo", "± other validation data"],
            rows,
            note=f"Trial {best.number} at epoch {best.best_epoch}; {optimism.num_data:,} validation data, "
            f"{analysis.validation.num_draws} draws each, the best of {optimism.num_candidates:,} complete trials.",
            name="elbo",
        ),
        f"The validation ELBO of the best trial is optimistic: it is the largest of {optimism.num_candidates:,}, "
        "partly by chance of the validation data. Repeating the selection on bootstrap samples and evaluating the "
        "selected trials on the data left out estimates the optimism as "
        f"{Estimate(optimism.optimism, optimism.optimism_se)} nats per datum; {optimism.agreement:.0%} of the samples "
        "select the same trial. Not included: the epoch was chosen on the same data, as were the proposals of the "
        "sampler and the trials that were pruned; and every trial has one seed, so that the best may have had a "
        "favourable one. Fits with other seeds and one evaluation on the test data settle this:",
        Listing(
            f"vae-pyro fit {quote(search.plan['data']['source'])} --config {quote(f'{search.path}/best.json')} --seed "
            f"{search.plan['seed'] + 1} --out RUN\n"
            "vae-pyro evaluate RUN --split test",
            "The best settings again, with another seed.",
        ),
    ]
    return Section(
        "Best settings",
        blocks,
        verdicts=analysis.verdicts,
        methods="The criterion is the plain ELBO, reconstruction minus KL, of the validation data at the best epoch, "
        "whichever objective a trial was trained with, so that objectives and weights of the KL can be compared. It is "
        "a lower bound of log p(x): it prefers models whose guide is close to the posterior, and is not the criterion "
        "where the KL is weighted for another purpose, such as disentanglement. Epochs of the KL warm-up do not count. "
        "The optimism of the selection is estimated by the bootstrap of Tsamardinos et al.; the candidates are the "
        "complete trials.",
        references=[
            "Tsamardinos, Greasidou & Borboudakis 2018, Bootstrapping the out-of-sample predictions for efficient and "
            "accurate cross-validation, Machine Learning 107. doi:10.1007/s10994-018-5714-4"
        ],
        metrics={
            "value": optimism.value,
            "optimism": optimism.optimism,
            "corrected": optimism.corrected,
            "agreement": optimism.agreement,
        },
        name="choice",
    )


def course_section(search: Search) -> Section:
    """Trials in order, their learning curves, and why some ended early."""
    best, number = search.trials.index(search.best), search.best.number
    states = [trial.state for trial in search.trials]
    rows: list[list[Any]] = [
        [
            str(trial.number), trial.state, trial.value, trial.best_epoch, max(trial.curve, default=None),
            trial.seconds,
            *(shown(trial.params.get(dimension.name, "")) for dimension in search.space),
        ]
        for trial in search.trials
    ]  # fmt: skip
    pruned, failed = search.of_state("pruned"), search.of_state("failed")
    blocks: list[Block] = [
        Picture.of(
            plot_search_history(values_of(search), states),
            alt=f"Validation ELBO of {len(states)} trials in order, with the best so far; it ends at "
            f"{search.best.value:.4g} nats per datum, reached by trial {number}.",
            caption="Validation ELBO of each trial, and the best complete one so far. Triangles are lower than drawn.",
            name="history",
        ),
        Picture.of(
            plot_learning_curves([trial.curve for trial in search.trials], states, best=best),
            alt=f"Learning curves of {len(states)} trials, {len(pruned)} of them pruned; the best is trial {number}.",
            caption="Validation ELBO by epoch, without the epochs of the KL warm-up. A cross marks where a trial was "
            "pruned.",
            metrics={str(trial.number): {str(epoch): elbo for epoch, elbo in trial.curve.items()}
                     for trial in search.trials},
            name="curves",
        ),
        Table(
            "All trials",
            ["trial", "state", "validation ELBO", "best epoch", "last epoch", "seconds",
             *(dimension.name for dimension in search.space)],
            rows,
            note="In nats per datum, at the best epoch; for a pruned trial, which is not a candidate, the best until "
            "it was pruned.",
            name="trials",
        ),
    ]  # fmt: skip
    if failed:
        reasons = [[str(trial.number), trial.failure or ""] for trial in failed]
        blocks += [Heading("Failures"), Table("Why trials failed", ["trial", "reason"], reasons, name="failures")]
    return Section(
        "Course of the search",
        blocks,
        methods=_PRUNING.format(search.plan["num_unpruned"]) if search.plan["prune"] else "No trial was stopped early.",
        references=list(_PRUNING_REFERENCES) if search.plan["prune"] else [],
        name="course",
    )


_PRUNING = (
    "A trial is stopped after an epoch if its best validation ELBO so far is below the median of the complete trials "
    "after that epoch, once a tenth of its epochs are over and at least {} complete trials have reached that epoch. "
    "This assumes that learning curves seldom cross: settings that start slowly, such as low learning rates, are at a "
    "disadvantage. Where the best setting lies at such an end, search again without pruning."
)
_PRUNING_REFERENCES = (
    "Golovin et al. 2017, Google Vizier: a service for black-box optimization, KDD. doi:10.1145/3097983.3098043",
    "Li et al. 2018, Hyperband: a novel bandit-based approach to hyperparameter optimization, JMLR 18. "
    "arXiv:1603.06560",
)


def settings_section(analysis: SearchAnalysis) -> Section:
    """The ELBO against each setting, and the share of its variance that each explains."""
    search, axes = analysis.search, _axes(analysis.search)
    value = values_of(search)
    states, best = [trial.state for trial in search.trials], search.trials.index(search.best)
    blocks: list[Block] = [
        Picture.of(
            plot_slices(axes[start : start + _PANELS], value, states, best=best),
            alt=f"Validation ELBO against {', '.join(axis.name for axis in axes[start : start + _PANELS])}, one panel "
            f"each; the best trial has {params_text(search, search.best)}.",
            caption="Validation ELBO against one setting at a time. The other settings vary as well, and the sampler "
            "concentrates where it found good trials. Crosses on the lower edge failed.",
            name="slices" if start == 0 else f"slices-{start // _PANELS + 1}",
        )
        for start in range(0, len(axes), _PANELS)
    ]
    shares = analysis.importances
    if not shares:
        blocks.append(
            f"The importance of settings was not estimated: {len(search.of_state('complete'))} complete trials are too "
            f"few or all alike; at least {MIN_TRIALS} are required."
        )
    elif len(axes) > 1:
        first, second = (next(axis for axis in axes if axis.name == name) for name in list(shares)[:2])
        blocks += [
            Heading("Importance"),
            Picture.of(
                plot_importance(
                    list(shares),
                    np.array([share.value for share in shares.values()]),
                    np.array([share.error for share in shares.values()]),
                ),
                alt="Importance of settings: "
                + ", ".join(f"{name} {share.value:.0%}" for name, share in shares.items())
                + ".",
                caption="Share of the variance of the validation ELBO over the space that each setting explains. ± is "
                "the error of the forest, not that of the small number of trials.",
                metrics=shares,
                name="importance",
            ),
            Picture.of(
                plot_two_settings(first, second, value, states, best=best),
                alt=f"Trials by {first.name} and {second.name}, coloured by their validation ELBO.",
                caption="The two most important settings.",
                name="two-settings",
            ),
        ]
    return Section(
        "Effect of the settings",
        blocks,
        methods="Importance is that of functional ANOVA: a random forest is fitted to the complete trials, and its "
        "variance over the whole space is decomposed by setting. It refers to the space as a whole, poor regions "
        "included, and depends on the widths of the ranges; pruned and failed trials are left out. It says nothing "
        "about settings outside the space.",
        references=[
            "Hutter, Hoos & Leyton-Brown 2014, An efficient approach for assessing hyperparameter importance, ICML, "
            "PMLR 32."
        ],
        name="settings",
    )


def _axes(search: Search) -> list[Axis]:
    axes = []
    for dimension in search.space:
        params = [trial.params.get(dimension.name) for trial in search.trials]
        places = [dimension.choices.index(param) if dimension.choices and param is not None else param
                  for param in params]  # fmt: skip
        values = np.array([np.nan if place is None else float(place) for place in places])
        axes.append(Axis(dimension.name, values, dimension.log, dimension.choices))
    return axes
