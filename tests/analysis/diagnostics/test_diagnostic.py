"""The registry of diagnostics: found by itself, in order, and validated against."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
from pydantic import Field

from analysis import DIAGNOSTICS, Context, Diagnostic, ReportConfig, Result, make_report
from analysis.diagnostics.context import FitRecord
from analysis.results.blocks import Section
from tests.truths import example
from vae_pyro import Split
from vae_pyro.core.config import Config
from vae_pyro.core.isolation import derive_seed
from vae_pyro.densities.pair import as_pair

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ORDER = [
    "fit", "density", "predictive", "calibration", "gaps", "latent", "structure", "samples", "leakage", "outliers",
]  # fmt: skip


def test_the_report_is_the_registry_in_order() -> None:
    assert [name for name in DIAGNOSTICS if name in ORDER] == ORDER
    kinds = [DIAGNOSTICS[name] for name in DIAGNOSTICS]
    assert [kind.order for kind in kinds] == sorted({kind.order for kind in kinds})
    for name, kind in zip(DIAGNOSTICS, kinds, strict=True):
        assert kind.name == name
        assert kind.question.endswith("?")
        assert not kind.title.endswith("?"), "titles are noun phrases"
        assert DIAGNOSTICS.summary(name)


def test_the_configuration_knows_the_options_of_every_diagnostic() -> None:
    config = ReportConfig(num_simulations=50, num_gap_data=3)
    options = DIAGNOSTICS["calibration"].Options
    assert config.options(options).model_dump() == {"num_simulations": 50, "num_ranked": 99}
    assert config.replace(num_simulations=60).options(options).model_dump()["num_simulations"] == 60
    assert ReportConfig().options(DIAGNOSTICS["gaps"].Options).model_dump() == {"num_gap_data": 30}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_simulation": 50}, "num_simulation is no option of a report; did you mean 'num_simulations'?"),
        ({"num_simulations": 5}, "num_simulations: Input should be greater than or equal to 20, got 5"),
        ({"num_ranked": 9}, "num_ranked: Input should be greater than or equal to 19, got 9"),
        ({"num_draws": 5, "num_gap_data": 3}, "num_draws: Input should be greater than or equal to 100, got 5$"),
        ({"only": ("densty",)}, "unknown diagnostic 'densty'; did you mean 'density'?"),
    ],
)
def test_a_configuration_is_validated_before_anything_is_drawn(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReportConfig(**values)


@dataclass(frozen=True, eq=False, repr=False)
class Count(Result):
    """A result of one number."""

    number: int

    def summary(self) -> dict[str, Any]:
        return {"number": self.number}

    def to_dataframe(self) -> "pd.DataFrame":
        import pandas as pd

        return pd.DataFrame([self.summary()])

    def plot(self) -> "Figure":
        from analysis.plotting import plot_bars

        return plot_bars(["number"], [self.number])

    def __str__(self) -> str:
        return f"{self.number} data"


class Options(Config):
    """Of the trial."""

    factor: int = Field(default=2, ge=1)


class Trial(Diagnostic[Count]):
    """Counts the data, a few times."""

    name, title, order = "trial", "Number of data", 25
    question = "How many data are there?"
    requires = ("validation",)
    min_data = 3
    Options = Options

    def run(self, context: Context) -> Count:
        if len(context.test) == 13:
            raise ValueError("thirteen data are not counted")
        return Count(context.config.options(Options).factor * len(context.test))

    def section(self, result: Count) -> Section:
        return Section(self.title, [str(result)], metrics=result.summary(), name=self.name)


@pytest.fixture
def trial() -> Any:
    DIAGNOSTICS.add(Trial)
    yield Trial
    DIAGNOSTICS.unregister("trial")


@pytest.mark.usefixtures("trial")
def test_a_diagnostic_needs_nothing_but_its_registration() -> None:
    truth = example(seed=1)

    def report(size: int, **more: Any) -> Any:
        config = ReportConfig(num_draws=100, only=("density", "trial"), factor=3)
        return make_report(truth.programs(), truth.sample(size, seed=0), config=config, **more)

    made = report(30, validation=truth.sample(5, seed=1))
    assert [section.name for section in made.page.sections] == ["density", "trial"]
    assert made.page.metrics()["sections"]["trial"] == {"number": 90}
    assert made.results["trial"].number == 90
    assert list(DIAGNOSTICS)[1:4] == ["density", "trial", "predictive"]
    left_out = report(30)
    assert left_out.skipped == {"Number of data": "validation data"}
    assert [section.name for section in left_out.page.sections] == ["density"]
    few = report(2, validation=truth.sample(5, seed=1))
    assert few.absent == [("Number of data", "Not made: at least 3 held-out data are required, got 2.")]
    raised = report(13, validation=truth.sample(5, seed=1))
    assert raised.absent == [("Number of data", "Not made: thirteen data are not counted.")]
    assert "Not made: thirteen data are not counted." in str(raised)
    assert "trial" not in raised.results
    assert set(raised.seconds) == {"draws", "density", "trial"}
    with pytest.raises(ValueError, match="diagnostic 'trial' is registered already"):
        DIAGNOSTICS.add(Trial)


def counted(guide: Any, seen: list[int]) -> Any:
    def counting(x: Any, **rest: Any) -> Any:
        seen.append(len(x))
        return guide(x, **rest)

    return counting


def test_the_guide_runs_once_on_the_held_out_data_whatever_is_collected() -> None:
    model, guide = example(seed=1).programs()
    seen: list[int] = []
    test = Split(example(seed=1).sample(30, seed=0))
    config = ReportConfig(num_draws=100, num_predictive=10)
    context = Context(as_pair((model, counted(guide, seen))), test, test, config=config, seed=5)
    assert context.drawn is None
    assert len(context.data) == 30
    seen.clear()  # of the few rows that the programs were tried on
    diagnostics = [DIAGNOSTICS[name]() for name in ("density", "predictive", "latent", "structure", "outliers")]
    context.collect({name: make for one in diagnostics for name, make in one.reducers(context).items()})
    assert seen == [30]
    whole, subset = context.collected("tree"), context.collected("predictive_tree")
    assert "posterior_predictive" not in whole.children
    assert "posterior_predictive" in subset.children
    assert context.drawn is whole
    assert set(whole["predictive_subset"].children) == set(subset.children)
    ids = subset["observed_data"]["datum"].values
    assert len(ids) == 10
    assert (np.diff(ids) > 0).all()
    for name in ("log_weight", "log_guide"):  # the subset has the draws of the whole
        of_whole = whole["sample_stats"][name].sel(datum=ids).values
        np.testing.assert_allclose(subset["sample_stats"][name].values, of_whole, rtol=1e-12)
    np.testing.assert_allclose(context.collected("evidence").elbo, whole["sample_stats"]["log_weight"][0].mean("draw"))
    assert context.collected("codes").shape == (30, 2)
    assert context.collected("latent").evaluation.num_draws == 100


def test_a_reducer_that_fails_leaves_the_others_their_draws() -> None:
    class Failing:
        def __init__(self, at: str) -> None:
            self.at = at
            if at == "start":
                raise ValueError("not at the start")

        def add(self, block: Any) -> None:
            if self.at == "block":
                raise ValueError("not at a block")

        def result(self) -> int:
            raise ArithmeticError("not at the end")

    test = Split(example(seed=1).sample(8, seed=0))
    context = Context(as_pair(example(seed=1).programs()), test, test, config=ReportConfig(num_draws=100), seed=5)
    failing: Any = {at: lambda at=at: Failing(at) for at in ("start", "block", "end")}
    context.collect({**failing, "tree": context.tree_reducer})
    assert context.collected("tree")["posterior"].sizes["datum"] == 8
    for at in failing:
        with pytest.raises((ValueError, ArithmeticError), match=f"not at .*{at}"):
            context.collected(at)
    with pytest.raises(KeyError):
        context.collected("nothing")


def test_streams_are_those_of_the_seed_and_names_have_their_own() -> None:
    truth = example(seed=1)
    test = Split(truth.sample(5, seed=0))
    context = Context(as_pair(truth.programs()), test, test, seed=5)
    assert context.stream(4) == derive_seed(5, 4)
    streams = [context.stream("a"), context.stream("b"), context.stream("a", 1), context.stream(1)]
    assert len(set(streams)) == 4
    assert context.stream("a") == streams[0]


def test_what_is_lacking_is_named() -> None:
    truth = example(seed=1)
    test = Split(truth.sample(5, seed=0), labels=torch.arange(5))
    context = Context(as_pair(truth.programs()), test, test, record=FitRecord())
    assert context.lacks(()) == ""
    assert context.lacks(("labels", "record")) == ""
    assert context.lacks(("train", "validation")) == "training data and validation data"
    np.testing.assert_array_equal(cast(Any, context.labels), np.arange(5))
