"""Predictive checks of columns of different units: a wrong column is seen whatever the scale of the others."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from analysis import predictive_check, to_datatree
from analysis.draws.columns import columns_of
from analysis.predictive.checking import predictive_checks
from analysis.predictive.checks import PredictiveChecks
from analysis.predictive.section import Predictive, PredictiveFindings
from vae_pyro import VAE, VAEConfig
from vae_pyro.data.tables.inference import infer

ROWS = 300


def frame(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Independent columns: small beside large units, a spread far below the mean, categories, missing values."""
    random = np.random.default_rng(seed)
    length = 43 + 5 * random.normal(size=rows)
    return pd.DataFrame(
        {
            "mass": 4200 + 800 * random.normal(size=rows),
            "year": random.choice([2007, 2008, 2009], rows),
            "length": np.where(random.random(rows) < 0.2, np.nan, length),
            "island": random.choice(["a", "b", "c"], rows),
        }
    )


def checked(year: str) -> dict[str, PredictiveChecks]:
    """Checks of a VAE that has the marginals of its training data, and whose latents do nothing, on other data."""
    schema = infer(frame(), {"year": year})
    columns = [column.model_dump() for column in schema.columns]
    config = VAEConfig(x_shape=(4,), latent_dim=2, likelihood={"name": "table", "columns": columns}, encode_mask=True)
    vae = VAE(config, seed=0)
    for module in vae.model.decoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)
    values, mask = schema.encode(frame(20_000))
    vae.initialize(torch.from_numpy(np.nan_to_num(values, nan=1.0)), torch.from_numpy(mask))
    values, mask = schema.encode(frame(seed=2))
    tree = to_datatree(vae, np.nan_to_num(values, nan=1.0), mask=torch.from_numpy(mask), num_draws=200, seed=0)
    assert tree["posterior_predictive"]["x"].coords["x_dim_0"].values.tolist() == ["mass", "year", "length", "island"]
    return {kind: predictive_checks(tree, kind=kind) for kind in ("posterior", "held_out")}


def test_a_count_of_years_fails_and_its_categories_pass() -> None:
    """A negative binomial of mean 2008 has 95 times the spread of three years; the seeds are those of the test."""
    for checks in checked("count").values():
        assert checks.verdicts[0].outcome == "fail"
        assert "sd over data of year" in checks.verdicts[0].advice
        assert all(
            p > 0.05 for check, p in zip(checks.checks, checks.adjusted, strict=True) if "year" not in check.name
        )
        assert len(checks.checks) == 8
    (wrong,) = [check for check in checks.checks if check.name == "year"]
    assert checks.verdicts[1].outcome == "fail"
    assert checks.verdicts[1].advice == "look at the PIT of year"
    assert wrong.pit_distance > 0.4
    for checks in checked("category").values():
        assert [verdict.outcome for verdict in checks.verdicts] == ["pass"] * len(checks.verdicts)


def independent(scale: list[float]) -> tuple[object, object]:
    """Normal columns, of which the latent knows nothing."""
    spread = torch.tensor(scale, dtype=torch.float64)

    def model(x: torch.Tensor | None = None, *, size: int | None = None) -> torch.Tensor:
        count = size if x is None else len(x)
        assert count is not None
        with pyro.plate("data", count):
            pyro.sample("z", dist.Normal(torch.zeros(1, dtype=torch.float64), 1).to_event(1))
            return pyro.sample("x", dist.Normal(torch.zeros_like(spread), spread).to_event(1), obs=x)

    def guide(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(1, dtype=torch.float64), 1).to_event(1))

    return model, guide


def test_columns_without_names_are_compared_where_their_units_differ() -> None:
    """The smallest column drawn with three times its spread is seen, and the true pair fails at its level only: the
    family-wise p is exact, and fails at 0.001 in one seed of 1,000."""
    x = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x * torch.tensor([0.01, 1.0, 500.0])
    right, wrong = (
        predictive_checks(to_datatree(independent(scale), x, num_draws=199, seed=0), kind="held_out")
        for scale in ([0.01, 1.0, 500.0], [0.03, 1.0, 500.0])
    )
    assert [check.name for check in right.checks][:2] == ["x[0]", "sd over data of x[0]"]
    assert right.p_family > 0.001
    assert all(verdict.outcome == "pass" for verdict in right.verdicts)
    assert [verdict.outcome for verdict in wrong.verdicts] == ["fail", "fail"]
    assert wrong["sd over data of x[0]"].effect == pytest.approx(-1.0, abs=0.1)
    assert len(str(wrong).splitlines()) < 40


def test_the_section_shows_each_column() -> None:
    x = torch.randn(60, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 10.0 ** torch.arange(12)
    x[:20, 3] = torch.nan
    scale = [10.0**power for power in range(12)]
    pair = independent(scale)

    def model(x: torch.Tensor | None = None, *, size: int | None = None, mask: torch.Tensor | None = None) -> object:
        seen = torch.ones(12, dtype=torch.bool) if mask is None else mask
        count = size if x is None else len(x)
        with pyro.plate("data", count):
            pyro.sample("z", dist.Normal(torch.zeros(1, dtype=torch.float64), 1).to_event(1))
            elements = dist.Normal(torch.zeros(12, dtype=torch.float64), torch.tensor(scale, dtype=torch.float64))
            if x is not None:
                elements = elements.expand(x.shape).mask(seen)
            return pyro.sample("x", elements.to_event(1), obs=x)

    tree = to_datatree((model, pair[1]), x, num_draws=99, seed=0)
    both = [predictive_checks(tree, kind=kind) for kind in ("posterior", "held_out")]
    assert len(both[1]["x[3]"].pit) == 40
    section = Predictive().section(PredictiveFindings(both[0], both[1], 60))
    assert "x[11]" in str(section.blocks)


def test_statistics_that_are_asked_for_are_those_that_are_compared() -> None:
    x = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 99.0])
    tree = to_datatree(independent([1.0, 99.0]), x, num_draws=99, seed=0, statistics=["max"])
    assert [check.name for check in predictive_checks(tree).checks] == ["max"]
    assert predictive_check(tree, "min").name == "min"


def test_which_data_have_columns_of_different_units() -> None:
    values = np.random.default_rng(0).normal(size=(40, 3))
    assert columns_of(None, values) is None
    assert columns_of(None, values * [1, 1, 0]) is None  # a constant has no scale
    assert columns_of(None, values * [1, 1, 50]) == ["x[0]", "x[1]", "x[2]"]
    assert columns_of(("a", "b", "c"), values) == ["a", "b", "c"]
    assert columns_of(None, values.reshape(40, 1, 3) * [1, 1, 50]) is None
    assert columns_of(None, np.tile(values * [1, 1, 50], 100)) is None
