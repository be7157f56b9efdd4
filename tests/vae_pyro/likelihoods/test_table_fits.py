"""Fits of tables, their log densities and refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from analysis import elpd_of
from tests.vae_pyro.likelihoods.tables import (
    MARGINS,
    NAMES,
    OPTIONS,
    build,
    frame,
    ready,
    rows_of,
    schema,
    small,
)
from vae_pyro import VAE, FitConfig, VAEConfig, evaluate, fit
from vae_pyro.applications.imputation import impute
from vae_pyro.data.tables.inference import infer
from vae_pyro.likelihoods import LIKELIHOODS
from vae_pyro.training.settings import assemble


def test_log_densities_are_in_the_units_of_the_table() -> None:
    """The same fit on centimetres and metres: the ELBO differs by log 100 for each column of a length, and no more."""
    centimetres = frame()[["height", "city", "income"]]
    metres = centimetres.assign(height=centimetres["height"] / 100, income=centimetres["income"] / 100)
    elbos = []
    for table in (centimetres, metres):
        chosen = infer(table)
        assert [column.kind for column in chosen.columns] == ["real", "category", "positive"]
        vae = small(chosen).double()
        x, _ = rows_of(table, chosen)
        fit(vae, x, config=FitConfig(epochs=3, batch_size=100, compile=False, device="cpu"), seed=0, progress=False)
        elbos.append(evaluate(vae, x, num_draws=50, seed=1).elbo)
    shift = np.asarray(elbos[1]) - np.asarray(elbos[0])
    np.testing.assert_allclose(shift, 2 * np.log(100), rtol=1e-6)
    assert np.ptp(np.asarray(elbos[0])) > 1


def test_it_compiles_and_agrees_with_the_stock_steps() -> None:
    table = frame(200)
    table.loc[::4, "height"] = np.nan
    table.loc[1::5, "city"] = None
    chosen = infer(table)
    x, mask = rows_of(table, chosen)
    ends = []
    for compiled in (False, True):
        vae = small(chosen).double()
        config = FitConfig(epochs=3, batch_size=100, compile=compiled, device="cpu")
        result = fit(vae, x, mask=mask, config=config, seed=0, progress=False)
        ends.append((result.history, [parameter.detach().clone() for parameter in vae.parameters()]))
    (stock, wanted), (ours, got) = ends
    for before, after in zip(stock, ours, strict=True):
        assert after["elbo"] == pytest.approx(before["elbo"], rel=1e-9)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("options", [*OPTIONS, *MARGINS])
def test_fits_learn_and_every_option_is_traced(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from vae_pyro.compilation import inductor

    # Inductor is the identity here: its compiler takes a minute for each option, and the graph is what is tested.
    monkeypatch.setattr(inductor, "inductor", lambda module: lambda inputs: module(*inputs))
    table = frame()
    chosen = infer(table)
    vae = small(chosen, **options)
    x, _ = rows_of(table, chosen)
    config = FitConfig(epochs=15, batch_size=100, device="cpu", optimizer="adam:lr=1e-2")
    history = fit(vae, x, config=config, seed=0, progress=False).history
    assert history[-1]["elbo"] > history[0]["elbo"] + 1
    drawn = chosen.decode(vae.sample(50, seed=0))
    assert drawn.dtypes.to_dict() == table.dtypes.to_dict()
    assert (drawn["income"] > 0).all()
    assert vae.reconstruct(x[:3]).shape == (3, 9)


def test_a_fit_beats_the_marginals_where_columns_hang_together() -> None:
    table, held_out = frame(2000, seed=1), frame(1000, seed=2)
    chosen = infer(table)
    vae = small(chosen)
    x, mask = rows_of(table, chosen)
    new, _ = rows_of(held_out, chosen)
    start = build(chosen)
    marginal = start(start.initialize(x, mask)[None]).to_event(1).log_prob(new).mean().detach()
    config = FitConfig(epochs=15, batch_size=100, compile=False, device="cpu", optimizer="adam:lr=5e-3")
    fit(vae, x, config=config, seed=0, progress=False)
    assert evaluate(vae, new, num_draws=50, seed=0).elbo.mean() > float(marginal) + 0.3


def test_what_is_discrete_and_what_a_log_density_is_of() -> None:
    mixed, codes = build(), build(infer(frame()[["city", "visits", "size"]]))
    assert (mixed.discrete, codes.discrete) == (False, True)
    assert mixed.space == (
        "columns of a table: density of 2 real, 1 positive in their own units times probability of 1 count, 1 binary, "
        "2 ordinal, 2 category"
    )
    assert codes.space == "columns of a table: probability of 1 count, 1 ordinal, 1 category"


def test_a_configuration_is_json_and_back() -> None:
    import json

    vae = small(schema(), scale="predicted")
    again = VAEConfig(**json.loads(json.dumps(vae.config.model_dump(mode="json"))))
    assert again == vae.config
    assert VAE(again, seed=0).model.likelihood.schema == vae.model.likelihood.schema


def test_values_outside_the_support_are_refused_by_whatever_reads_them() -> None:
    likelihood, _ = ready()
    vae, x = small(likelihood.schema), rows_of(frame(60), likelihood.schema)[0].float()
    vae.initialize(x)
    for name, value in (("income", -5.0), ("visits", 1.5), ("smokes", 0.5), ("city", 7.0)):
        wrong = x.clone()
        wrong[33, NAMES.index(name)] = value
        for use in (evaluate, impute, elpd_of):
            with pytest.raises(ValueError, match=f"column '{name}' .* cannot hold {value:g} in row 33"):
                use(vae, wrong)
        hidden = torch.ones_like(wrong, dtype=torch.bool)
        hidden[33, NAMES.index(name)] = False
        assert np.isfinite(evaluate(vae, wrong, mask=hidden, num_draws=5).log_px).all()


def test_refusals_name_what_is_wrong_and_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"requires the schema of the table.*infer\(frame\).columns.*\.parquet"):
        VAE(VAEConfig(x_shape=(3,), latent_dim=1, likelihood="table"))
    columns = [column.model_dump() for column in schema().columns]
    with pytest.raises(ValueError, match=r"schema of 9 columns, the data have x_shape \(8,\); encode them"):
        VAE(VAEConfig(x_shape=(8,), latent_dim=1, likelihood={"name": "table", "columns": columns}))
    with pytest.raises(ValueError, match="'city' is real and has no categories, got 1"):
        LIKELIHOODS.resolve({"name": "table", "columns": [{"name": "city", "kind": "real", "categories": ["a"]}]})
    with pytest.raises(ValueError, match="kind: Input should be 'real', .*got 'reel'"):
        LIKELIHOODS.resolve({"name": "table", "columns": [{"name": "city", "kind": "reel"}]})
    likelihood = build()
    x, mask = rows_of(frame(), likelihood.schema)
    for name, value, message in (
        ("income", 0.0, "column 'income' is positive .* cannot hold 0 in row 7"),
        ("visits", 1.5, "column 'visits' is count .* cannot hold 1.5 in row 7"),
        ("city", 5.0, r"column 'city' is category \(Bern, Graz, Lyon, Oslo, Turin\), and cannot hold 5"),
        ("smokes", -1.0, "column 'smokes' is binary"),
        ("height", float("inf"), "column 'height' is real .* cannot hold inf"),
    ):
        wrong = x.clone()
        wrong[7, likelihood.schema.names.index(name)] = value
        with pytest.raises(ValueError, match=message):
            likelihood.initialize(wrong, mask)
    density = likelihood(ready()[1])
    wrong = x[:5].clone()
    wrong[0, likelihood.schema.names.index("visits")] = 0.5
    with pytest.raises(ValueError, match="within the support"):
        density.log_prob(wrong)


@pytest.mark.slow
def test_columns_that_determine_each_other_are_drawn_together(tmp_path: Path) -> None:
    """Numbers 1, 2, 3 beside names: log p(x) is -log 3 = -1.099, and -2.197 of independent columns, which match in 1/3.
    As a count, the numbers lose 1.3 nats, and match in 28 %."""
    pd.DataFrame({"one": [1.0, 2.0, 3.0] * 150, "two": ["a", "b", "c"] * 150}).to_csv(tmp_path / "t.csv", index=False)
    chosen = {("fit", "kl_warmup"): 50, ("fit", "epochs"): 300, ("fit", "optimizer", "lr"): 3e-3}
    settings = assemble(str(tmp_path / "t.csv"), assignments=list(chosen.items()))
    vae = VAE(settings.model, seed=0)
    fit(vae, settings.data.train, config=settings.fit, seed=0, progress=False)
    assert settings.data.facts.schema is not None
    assert evaluate(vae, settings.data.test, num_draws=500, seed=0).log_px.mean() > -1.15
    drawn = settings.data.facts.schema.decode(vae.sample(1000, seed=0))
    assert set(drawn["one"]) == {1.0, 2.0, 3.0}
    assert (drawn["one"] == drawn["two"].map({"a": 1.0, "b": 2.0, "c": 3.0})).mean() > 0.95
