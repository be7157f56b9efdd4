"""The sections of the page of a search: what was searched, what is best, how it went, what settings do."""

from collections.abc import Mapping
from math import log
from shlex import quote
from typing import Any

import numpy as np

from analysis.experiments.setting_importance import FEWEST_TRIALS, importances
from analysis.plotting.tuning import (
    Axis,
    plot_importance,
    plot_learning_curves,
    plot_search_history,
    plot_slices,
    plot_two_settings,
)
from analysis.results.estimate import Estimate
from analysis.results.page import Block, Heading, Listing, Picture, Section, Table
from analysis.results.verdict import Verdict
from analysis.stats.selection import selection_optimism
from vae_pyro.core.registry import Choice
from vae_pyro.experiments.tuning.search import Search, TuningTrial, shown
from vae_pyro.experiments.tuning.space import Dimension
from vae_pyro.training.resume import FREE

type Array = np.ndarray[Any, Any]

_EDGE = 0.05
_STREAM = 0x5EA2C4


def params_of(search: Search, trial: TuningTrial) -> str:
    """What was tried, in words."""
    return ", ".join(f"{dimension.name} = {shown(trial.params.get(dimension.name))}" for dimension in search.space)


def space_section(search: Search) -> Section:
    """The space, and what all trials share."""
    rows: list[list[Any]] = []
    for dimension in search.space:
        if dimension.choices:
            rows.append([dimension.name, ", ".join(dimension.choices), "choices"])
        else:
            kind = "integers" if dimension.integer else "real numbers"
            spread = ", evenly in the logarithm" if dimension.log else ""
            rows.append([dimension.name, f"{dimension.low:g} to {dimension.high:g}", f"{kind}{spread}"])
    searched = {dimension.path[:2] for dimension in search.space}
    shared = [
        [key, f"{_value(key, value)}{', with what is searched in it' if (section, key) in searched else ''}"]
        for section in ("model", "fit")
        for key, value in search.plan[section].items()
        if (section, key) not in {dimension.path for dimension in search.space} and key not in ("x_shape", *FREE["fit"])
    ]
    return Section(
        "What was searched?",
        [
            Table("The space", ["setting", "values", "kind"], rows, name="space"),
            Table("What all trials share", ["setting", "value"], shared, name="shared"),
        ],
        methods="Trials are proposed by the tree-structured Parzen estimator, which models where good trials lie, "
        f"after {search.plan['num_random']:,} drawn at random. All trials share seed, split and validation draws, so "
        "that differences between them are not differences of these. One seed each: a trial also is what its seed "
        "made it.",
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


def best_section(search: Search, seed: int) -> Section:
    """The best settings, their ELBO, and how much of it is the luck of being chosen."""
    best = search.best
    complete = search.of_state("complete")
    held = {trial.number: kept for trial in complete if (kept := trial.validation()) is not None}
    own = held[best.number]
    summary = own.summary()
    luck = selection_optimism(np.stack([one.elbo for one in held.values()]), seed=seed ^ _STREAM)
    edges = [text for dimension in search.space if (text := _edge(dimension, best.params[dimension.name]))]
    failed = search.of_state("failed")
    rows: list[list[Any]] = [
        ["on the data that chose it", Estimate(luck.value, summary["elbo_se"]), luck.sampling_se],
        ["optimism of the choice", Estimate(luck.optimism, luck.optimism_se), None],
        ["expected on fresh data", Estimate(luck.corrected, float(np.hypot(summary["elbo_se"], luck.optimism_se))),
         luck.sampling_se],
    ]  # fmt: skip
    enough = luck.optimism <= luck.sampling_se
    verdicts = [
        Verdict(
            "Is the figure of the best trial more than the luck of being chosen?",
            luck.optimism, luck.optimism_se, "nats per datum", f"at most the sampling error, {luck.sampling_se:.2g}",
            "convention: below it, the choice adds less than the validation data's own error",
            "pass" if enough else "warn",
            "" if enough else "quote the corrected figure; more validation data or fewer trials make it smaller",
            "optimism",
        ),
        Verdict(
            "Does the best setting lie inside the space?",
            len(edges), None, "ranges at an end", "0",
            f"convention: an end is the outer {_EDGE:.0%} of a range on its own scale",
            "warn" if edges else "pass",
            f"widen {', '.join(edges)}, and search again" if edges else "",
            "edges",
        ),
        Verdict(
            "Could every trial be fitted?",
            len(failed), None, "trials failed", "0",
            "convention: a failed trial is time spent on settings that are no candidates",
            "warn" if failed else "pass",
            "see the reasons under `How did the search go?`; leave out what cannot be fitted" if failed else "",
            "failures",
        ),
    ]  # fmt: skip
    source = search.plan["data"]["source"]
    blocks: list[Block] = [
        Table("The best settings", ["setting", "value"],
              [[dimension.name, shown(best.params[dimension.name])] for dimension in search.space], name="best"),
        Table(
            "ELBO of the best trial, nats per datum",
            ["validation ELBO", "estimate ± Monte Carlo", "± other validation data"], rows,
            note=f"Trial {best.number} at epoch {best.best_epoch}; {luck.num_data:,} validation data, "
            f"{own.num_draws} draws for each, the best of {luck.num_candidates:,} complete trials.", name="elbo",
        ),
        f"The validation ELBO of the best trial is optimistic: it is the largest of {luck.num_candidates:,}, and the "
        "largest is so partly by the luck of the validation data. Repeating the choice on bootstrap samples and "
        f"looking at what was chosen on the data left out puts this at {Estimate(luck.optimism, luck.optimism_se)} "
        f"nats per datum; {luck.agreement:.0%} of the samples choose the same trial. Not in this figure: the epoch was "
        "chosen on the same data, and so was what the sampler tried and the pruner stopped; and every trial has one "
        "seed, so that the best may have had a good one. Fits with other seeds, and one evaluation on the test data, "
        "are the answer:",
        Listing(
            f"vae-pyro fit {quote(source)} --config {quote(f'{search.path}/best.json')} --seed "
            f"{search.plan['seed'] + 1} --out RUN\n"
            "vae-pyro evaluate RUN --split test",
            "The best settings again, with another seed.",
        ),
    ]  # fmt: skip
    return Section(
        "Which settings are best?",
        blocks,
        verdicts=verdicts,
        methods="The figure is the plain ELBO, reconstruction minus KL, on the validation data at the best epoch, "
        "whatever objective a trial was trained with, so that objectives and weights of the KL can be compared. It is "
        "a lower bound of log p(x): it prefers models whose guide is close to the posterior, and is not the criterion "
        "for who weights the KL for another purpose, such as disentanglement. Epochs of the KL warm-up do not count. "
        "The optimism of the choice is estimated by the bootstrap of Tsamardinos et al.; the candidates are the "
        "complete trials.",
        references=[
            "Tsamardinos, Greasidou & Borboudakis 2018, Bootstrapping the out-of-sample predictions for efficient and "
            "accurate cross-validation, Machine Learning 107. doi:10.1007/s10994-018-5714-4"
        ],
        metrics={"value": luck.value, "optimism": luck.optimism, "corrected": luck.corrected,
                 "agreement": luck.agreement},
        name="choice",
    )  # fmt: skip


def _edge(dimension: Dimension, param: Any) -> str:
    if dimension.choices or dimension.low is None or dimension.high is None:
        return ""
    low, high, at = (log(end) if dimension.log else end for end in (dimension.low, dimension.high, param))
    place = (at - low) / (high - low)
    if min(place, 1 - place) > _EDGE:
        return ""
    return f"{dimension.name} {'down' if place < 0.5 else 'up'}wards"


def course_section(search: Search) -> Section:
    """Trials in order, their learning curves, and why some ended early."""
    best, number = search.trials.index(search.best), search.best.number
    states = [trial.state for trial in search.trials]
    value = _values(search)
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
            plot_search_history(value, states),
            alt=f"Validation ELBO of {len(states)} trials in order, with the best so far; it ends at "
            f"{search.best.value:.4g} nats per datum, reached by trial {number}.",
            caption="Validation ELBO of each trial, and the best complete one so far. Triangles are lower than drawn.",
            name="history",
        ),
        Picture.of(
            plot_learning_curves([trial.curve for trial in search.trials], states, best=best),
            alt=f"Learning curves of {len(states)} trials, {len(pruned)} of them pruned; the best is trial {number}.",
            caption="Validation ELBO by epoch. A cross is where a trial was pruned. Epochs of the KL warm-up are left "
            "out.",
            metrics={str(trial.number): {str(epoch): elbo for epoch, elbo in trial.curve.items()}
                     for trial in search.trials},
            name="curves",
        ),
        Table(
            "All trials",
            ["trial", "state", "validation ELBO", "best epoch", "last epoch", "seconds",
             *(dimension.name for dimension in search.space)],
            rows,
            note="In nats per datum, at the best epoch; of a pruned trial, the best until it was pruned, which takes "
            "no part in the choice.",
            name="trials",
        ),
    ]  # fmt: skip
    if failed:
        reasons = [[str(trial.number), trial.failure or ""] for trial in failed]
        blocks += [Heading("Failures"), Table("Why trials failed", ["trial", "reason"], reasons, name="failures")]
    rule = (
        "A trial is stopped after an epoch if its best validation ELBO so far is below the median of what complete "
        "trials had after that epoch, once a tenth of its epochs are over and so many complete ones have come as far: "
        f"{search.plan['num_unpruned']}. This takes for granted that learning curves do not cross much: settings that "
        "start slowly, such as low learning rates, are at a disadvantage. Where the best setting lies at such an end, "
        "search it again without pruning."
        if search.plan["prune"]
        else "No trial was stopped early."
    )
    return Section(
        "How did the search go?",
        blocks,
        methods=rule,
        references=[
            "Golovin et al. 2017, Google Vizier: a service for black-box optimization, KDD. "
            "doi:10.1145/3097983.3098043",
            "Li et al. 2018, Hyperband: a novel bandit-based approach to hyperparameter optimization, JMLR 18. "
            "arXiv:1603.06560",
        ]
        if search.plan["prune"]
        else [],
        name="course",
    )


def _values(search: Search) -> Array:
    return np.array([np.nan if trial.value is None else trial.value for trial in search.trials])


def _axes(search: Search) -> list[Axis]:
    axes = []
    for dimension in search.space:
        params = [trial.params.get(dimension.name) for trial in search.trials]
        place = [dimension.choices.index(param) if dimension.choices and param is not None else param
                 for param in params]  # fmt: skip
        values = np.array([np.nan if one is None else float(one) for one in place])
        axes.append(Axis(dimension.name, values, dimension.log, dimension.choices))
    return axes


def settings_section(search: Search, seed: int) -> Section:
    """The ELBO against each setting, and the share of it that each explains."""
    value, axes = _values(search), _axes(search)
    states, best = [trial.state for trial in search.trials], search.trials.index(search.best)
    blocks: list[Block] = [
        Picture.of(
            plot_slices(axes[start : start + 12], value, states, best=best),
            alt=f"Validation ELBO against {', '.join(axis.name for axis in axes[start : start + 12])}, one panel each; "
            f"the best trial has {params_of(search, search.best)}.",
            caption="Validation ELBO against one setting at a time. The others vary along with it, and the sampler "
            "looks where it found good trials before, so that points lie closer there. Crosses on the lower edge "
            "failed.",
            name="slices" if start == 0 else f"slices-{start // 12 + 1}",
        )
        for start in range(0, len(axes), 12)
    ]
    shares = importances(search, seed=seed)
    if not shares:
        blocks.append(
            f"The importance of settings was not estimated: {len(search.of_state('complete'))} complete trials are too "
            f"few or all alike; it wants {FEWEST_TRIALS} at least."
        )
    elif len(axes) > 1:
        ordered = [next(axis for axis in axes if axis.name == name) for name in shares]
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
                "the error of the forest, not that of having so few trials.",
                metrics=shares,
                name="importance",
            ),
            Picture.of(
                plot_two_settings(ordered[0], ordered[1], value, states, best=best),
                alt=f"Trials by {ordered[0].name} and {ordered[1].name}, coloured by their validation ELBO.",
                caption="The two settings of most importance.",
                name="two-settings",
            ),
        ]
    return Section(
        "What do the settings do?",
        blocks,
        methods="Importance is that of functional ANOVA: a random forest is fitted to the complete trials, and its "
        "variance over the whole space is split between settings. It speaks of the space as a whole, bad regions "
        "included, and depends on how wide the ranges are; pruned and failed trials take no part. It is no statement "
        "about settings outside the space.",
        references=[
            "Hutter, Hoos & Leyton-Brown 2014, An efficient approach for assessing hyperparameter importance, ICML, "
            "PMLR 32."
        ],
        name="settings",
    )
