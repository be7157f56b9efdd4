"""Results made without fitting: variants, held-out data of a run, fits over beta, a search."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from analysis.experiments.comparison.compare import compare_variants
from analysis.experiments.comparison.result import ExperimentComparison
from analysis.experiments.comparison.runs import Gaps, MeasuredRun
from analysis.experiments.held_out import HeldOut
from analysis.experiments.rate_distortion.points import RatePoint
from analysis.experiments.rate_distortion.result import RateDistortion
from analysis.experiments.search.result import SearchAnalysis, importances
from analysis.stats.selection import selection_optimism
from vae_pyro.evaluation.evaluation import Evaluation
from vae_pyro.experiments.tuning.search import Search, TuningTrial
from vae_pyro.experiments.tuning.space import parse_space
from vae_pyro.runs.folder import RunFolder

ODD = "<script>alert(1)</script> & `x` $y$_z^ β"


def held_out(log_px: np.ndarray, *, latent: int = 3, code_seed: int = 0, **changes: Any) -> HeldOut:
    """Figures of a run with these log p(x); the rest is plausible and the same for all."""
    n = len(log_px)
    own = np.random.default_rng(code_seed)
    codes = np.random.default_rng(1).normal(size=(n, latent)) + 0.3 * own.normal(size=(n, latent))
    figures: dict[str, Any] = {
        "log_px": log_px,
        "log_px_mcse": np.full(n, 0.01),
        "elbo": log_px - 1.5,
        "elbo_mcse": np.full(n, 0.01),
        "kl": np.full(n, 5.0),
        "kl_mcse": np.full(n, 0.01),
        "reconstruction": log_px + 3.5,
        "pareto_k": np.full(n, 0.2),
        "rise": np.full(n, 1e-4),
        "smoothed": log_px,
        "upper": log_px + 0.1,
        "activity": codes.var(0),
        "activity_se": np.zeros(latent),
        "codes": codes,
        "code_kl": np.ones(latent),
        "ids": np.arange(n),
        "num_draws": 500,
        "space": "0/1",
        "measure": "probability",
        "fingerprint": "f" * 64,
        "epochs": 30,
        "seconds": 12.5,
    }
    return HeldOut(**{**figures, **changes})


def variant(
    label: str,
    level: float,
    seeds: Sequence[int] = (0, 1, 2),
    *,
    number: int = 0,
    n: int = 200,
    of_seed: float = 0.05,
    of_both: float = 0.2,
    objective: str = "",
    grid: dict[str, Any] | None = None,
    **changes: Any,
) -> list[MeasuredRun]:
    """Runs whose log p(x) is a level, plus what a datum does in all, what a seed does, and what both do together."""
    datum = np.random.default_rng([number, 0]).normal(size=n)
    runs = []
    for seed in seeds:
        own = np.random.default_rng([number, 1 + seed, abs(hash_of(label))])
        log_px = level + 5 * datum + of_seed * own.normal() + of_both * own.normal(size=n)
        made = held_out(log_px, code_seed=seed, **changes)
        runs.append(MeasuredRun(label, objective or label, grid or {}, seed, made))
    return runs


def hash_of(text: str) -> int:
    """A number for a label that is the same in every process."""
    return int.from_bytes(text.encode()[:8], "big") % 2**31


@cache
def three() -> ExperimentComparison:
    return compare_variants([*variant("elbo", -90), *variant("iwae", -88), *variant("dreg", -87.9)])


def odd() -> ExperimentComparison:
    names = (ODD, 'two\nlines, "quoted"; ' + "long " * 30, "=1+1")
    gaps = Gaps(1.2, 0.1, 3.4, 0.2)
    runs = [run for level, name in enumerate(names) for run in variant(name, -90 + level, latent=2 + level)]
    return compare_variants([replace(run, gaps=gaps, grid={"hidden": [8, "ü"]}) for run in runs])


def histories(comparison: ExperimentComparison) -> dict[tuple[str, int], list[dict[str, float]]]:
    return {
        (label, int(seed)): [
            {"epoch": float(e), "elbo": -90.0 - 50 / e, "validation_elbo": -91.0 - 50 / e}
            for e in range(1, 20 + int(seed))
        ]
        for label, row in zip(comparison.labels, comparison.estimates.seeds, strict=True)
        for seed in row
    }


def by_hand(value: Callable[..., float | None], space: list[str], number: int = 40) -> Search:
    """A search whose trials were drawn at random and whose values are a function of the parameters."""
    dimensions = tuple(parse_space(text) for text in space)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = []
    for index in range(number):
        asked = study.ask({dimension.name: dimension.distribution() for dimension in dimensions})
        found = value(**{name.rpartition(".")[2]: param for name, param in asked.params.items()})
        state = "failed" if found is None else "complete"
        curve = {} if found is None else {1: found - 1, 2: found}
        trials.append(
            TuningTrial(index, state, asked.params, found, curve, 1.0, "why" if found is None else None, (),
                        RunFolder("nowhere"))
        )  # fmt: skip
    return Search(Path("nowhere"), dimensions, tuple(trials), {})


SPACE_BY_HAND = ["latent_dim=2..6", "optimizer.lr=0.0..1.0", "objective=beta:beta=0.0..1.0"]


def experiment_comparison() -> ExperimentComparison:
    """Of three variants with three seeds."""
    return three()


def held_out_run() -> HeldOut:
    """Of 80 data."""
    return held_out(np.random.default_rng(0).normal(-90, 5, size=80))


def rate_distortion_curve() -> RateDistortion:
    """Of four fits, one of which another one dominates; their labels are not valid HTML."""
    random, none = np.random.default_rng(0), np.zeros(50)
    points = [
        RatePoint(
            f"beta={beta:g} <{number}>", beta, rate + random.normal(size=50), none, d + random.normal(size=50), none
        )
        for number, (beta, rate, d) in enumerate(
            [(1.0, 5.0, 10.0), (1.0, 9.0, 30.0), (2.0, 3.0, 13.0), (4.0, 1.0, 20.0)]
        )
    ]
    return RateDistortion.of(points, 30, entropy=2.0)


def search_analysis() -> SearchAnalysis:
    """Of a search of 40 trials over three settings."""
    search = by_hand(lambda latent_dim, lr, beta: None if lr > 0.9 else 4 * lr + beta, SPACE_BY_HAND)
    per_datum = np.random.default_rng(1).normal(size=(20, 60))
    ones = {name: np.ones(60) for name in Evaluation.__dataclass_fields__ if name not in ("num_draws", "discrete")}
    validation = Evaluation(**ones, num_draws=10)
    optimism = selection_optimism(per_datum, num_bootstrap=100)
    return SearchAnalysis(search, optimism, validation, ("optimizer.lr upwards",), importances(search))
