"""One result of each kind, made without fitting: variants, held-out data of a run, fits over beta, a search."""

import numpy as np

from analysis.experiments.comparison.result import ExperimentComparison
from analysis.experiments.held_out import HeldOut
from analysis.experiments.rate_distortion.points import RatePoint
from analysis.experiments.rate_distortion.result import RateDistortion
from analysis.experiments.search.result import SearchAnalysis, importances
from analysis.stats.selection import selection_optimism
from tests.analysis.experiments.test_comparison import held_out, three
from tests.analysis.experiments.test_search_page import SPACE_BY_HAND, by_hand
from vae_pyro.evaluation.evaluation import Evaluation


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
