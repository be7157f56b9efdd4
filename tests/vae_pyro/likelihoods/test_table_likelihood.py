"""A row of a table has one density: each column is normalised, in its own units, and masked on its own."""

from typing import Any

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from analysis import elpd_of
from vae_pyro import VAE, FitConfig, VAEConfig, evaluate, fit
from vae_pyro.applications.imputation import impute
from vae_pyro.core.isolation import seeded
from vae_pyro.data.tables.inference import infer
from vae_pyro.data.tables.schema import Column, Schema
from vae_pyro.likelihoods import LIKELIHOODS
from vae_pyro.likelihoods.table import Table
from vae_pyro.likelihoods.table_columns import cumulative_logits

ORDER = {"size": ["s", "m", "l", "xl"], "grade": ["low", "mid", "high"]}
# Kinds in no order, and two of those that are padded to the widest.
NAMES = ["city", "height", "income", "visits", "smokes", "size", "weight", "colour", "grade"]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"scale": "predicted"},
    {"real": "student_t", "count": "poisson"},
    {"real": "student_t", "count": "poisson", "scale": "predicted"},
]


def frame(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    """A table of every kind, whose columns hang together."""
    random = np.random.default_rng(seed)
    z = random.normal(size=rows)
    made = {
        "city": random.choice(["Bern", "Graz", "Lyon", "Oslo", "Turin"], rows, p=[0.4, 0.3, 0.15, 0.1, 0.05]),
        "height": 170 + 8 * z + 4 * random.normal(size=rows),
        "income": np.exp(7 + 0.5 * z + 0.7 * random.normal(size=rows)),
        "visits": random.poisson(np.exp(1 + 0.5 * z)),
        "smokes": z + random.logistic(size=rows) > 0.5,
        "weight": 70 + 9 * z + 6 * random.normal(size=rows),
        "colour": np.where(z + random.normal(size=rows) > 0, "red", random.choice(["blue", "green"], rows)),
    }
    for name, levels in ORDER.items():
        cut = np.digitize(z + random.logistic(size=rows), np.linspace(-1, 1.5, len(levels) - 1))
        made[name] = pd.Categorical(np.asarray(levels)[cut], levels, ordered=True)
    return pd.DataFrame({name: made[name] for name in NAMES})


def schema() -> Schema:
    return infer(frame())


def build(chosen: Schema | None = None, **options: Any) -> Table:
    columns = [column.model_dump() for column in (chosen or schema()).columns]
    choice = LIKELIHOODS.resolve({"name": "table", "columns": columns, **options})
    likelihood = LIKELIHOODS.build(choice, (len(columns),)).double()
    assert isinstance(likelihood, Table)
    return likelihood


def rows_of(table: pd.DataFrame, chosen: Schema) -> tuple[Tensor, Tensor]:
    values, mask = chosen.encode(table)
    return torch.from_numpy(values), torch.from_numpy(mask)


def ready(**options: Any) -> tuple[Table, Tensor]:
    """Initialised, with outputs for 5 rows about the start."""
    likelihood = build(**options)
    bias = likelihood.initialize(*rows_of(frame(), likelihood.schema))
    with seeded(1):
        return likelihood, bias + torch.randn(5, *likelihood.output_shape, dtype=torch.float64)


def support(likelihood: Table, column: Column) -> tuple[Tensor, Tensor]:
    """Points of a column's support and their weights."""
    if column.kind == "count":
        points = torch.arange(4_000, dtype=torch.float64)
    elif column.categories:
        points = torch.arange(column.num_classes, dtype=torch.float64)
    else:
        # x = exp(u) or loc + sinh(u) reaches the tails; dx is the weight.
        positive = column.kind == "positive"
        u = torch.linspace(-10, 25, 20_001, dtype=torch.float64) - (0 if positive else 7.5)
        center = 0 if positive else likelihood.fill[likelihood.schema.names.index(column.name)]
        step = u[1] - u[0]
        return (u.exp(), u.exp() * step) if positive else (center + u.sinh(), u.cosh() * step)
    return points, torch.ones_like(points)


@pytest.mark.parametrize("options", OPTIONS)
def test_every_column_integrates_or_sums_to_one(options: dict[str, Any]) -> None:
    likelihood, output = ready(**options)
    row = likelihood.fill.expand(5, -1)
    with torch.no_grad():
        density = likelihood(output)
        for place, column in enumerate(likelihood.schema.columns):
            points, weight = support(likelihood, column)
            x = row.expand(len(points), 5, -1).clone()
            x[..., place] = points.unsqueeze(-1)
            total = (density.log_prob(x)[..., place].exp() * weight.unsqueeze(-1)).sum(0)
            torch.testing.assert_close(total, torch.ones_like(total), atol=2e-5, rtol=0, msg=f"{column.name}: {total}")


@pytest.mark.parametrize("options", OPTIONS)
def test_gradients_reach_every_output_and_parameter(options: dict[str, Any]) -> None:
    likelihood, output = ready(**options)
    x, _ = rows_of(frame(), likelihood.schema)
    outputs = output[:1].expand(len(x), -1).clone().requires_grad_()
    parameters = dict(likelihood.named_parameters())
    gradients = torch.autograd.grad(likelihood(outputs).log_prob(x).sum(), [outputs, *parameters.values()])
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (gradients[0].abs().sum(0) > 0).all()
    for name, gradient in zip(parameters, gradients[1:], strict=True):
        used = gradient != 0
        if name == "raw_gaps":  # the column with three categories has one gap fewer than the widest
            assert used.tolist() == [[True, True], [True, False]]
        else:
            assert used.all(), name


def test_each_column_has_the_density_of_its_kind() -> None:
    """Against distributions of torch, column by column, in the units of the table."""
    likelihood, output = ready()
    x, _ = rows_of(frame()[:5], likelihood.schema)
    log_p = dict(zip(likelihood.schema.names, likelihood(output).log_prob(x).unbind(-1), strict=True))
    cell = dict(zip(likelihood.schema.names, x.unbind(-1), strict=True))
    out = output.split(likelihood.widths, -1)
    table = frame()
    sd = {"height": table["height"].std(ddof=0), "weight": table["weight"].std(ddof=0)}
    for number, name in enumerate(["height", "weight"]):
        loc = table[name].mean() + sd[name] * out[0][:, number]
        torch.testing.assert_close(log_p[name], dist.Normal(loc, sd[name]).log_prob(cell[name]))
    logs = np.log(table["income"])
    loc, scale = logs.mean() + logs.std(ddof=0) * out[1][:, 0], logs.std(ddof=0)
    torch.testing.assert_close(log_p["income"], dist.LogNormal(loc, scale).log_prob(cell["income"]))
    visits = table["visits"]
    mean = visits.mean() * torch.exp(np.log1p(visits).std(ddof=0) * out[2][:, 0])
    total = torch.tensor(visits.mean() ** 2 / (visits.var(ddof=0) - visits.mean()), dtype=torch.float64)
    expected = dist.NegativeBinomial(total, logits=mean.log() - total.log()).log_prob(cell["visits"])
    torch.testing.assert_close(log_p["visits"], expected)
    torch.testing.assert_close(log_p["smokes"], dist.Bernoulli(logits=out[3][:, 0]).log_prob(cell["smokes"]))
    city, colour = out[5].split([5, 3], -1)
    torch.testing.assert_close(log_p["city"], dist.Categorical(logits=city).log_prob(cell["city"]))
    torch.testing.assert_close(log_p["colour"], dist.Categorical(logits=colour).log_prob(cell["colour"]))
    for number, name in enumerate(ORDER):
        cut = likelihood.cutpoints()[number, : len(ORDER[name]) - 1]
        below = torch.sigmoid(cut - out[4][:, number, None])  # P(code <= k)
        shares = torch.diff(below, dim=-1, prepend=torch.zeros(5, 1), append=torch.ones(5, 1))
        torch.testing.assert_close(log_p[name], dist.Categorical(shares).log_prob(cell[name]))


def test_ordered_categories_lose_no_digits_in_the_tails() -> None:
    """Far out the middle category has log probability b - 2 t: logistic tails, where differences of sigmoids are 0."""
    cut = torch.tensor([[-1.0, 1.0]])
    for location in (60.0, -60.0):
        log_p = cumulative_logits(torch.tensor([location]), cut, torch.tensor([3]))[0]
        middle = torch.log(torch.sinh(torch.tensor(1.0)) * 2) - abs(location)  # (e^1 - e^-1) e^-|location|
        assert float(log_p[1]) == pytest.approx(float(middle), rel=1e-6)
        assert float(log_p.exp().sum()) == pytest.approx(1.0)
    narrow = cumulative_logits(torch.tensor([0.3]), torch.tensor([[0.5, 7.0]]), torch.tensor([2]))[0]
    alone = cumulative_logits(torch.tensor([0.3]), torch.tensor([[0.5]]), torch.tensor([2]))[0]
    assert narrow.tolist() == [*alone.tolist(), -np.inf]


def test_large_counts_keep_their_digits_in_float32() -> None:
    column = Column(name="n", kind="count", low=0, high=10_000)
    likelihood = LIKELIHOODS.build(LIKELIHOODS.resolve({"name": "table", "columns": [column]}), (1,))
    x = torch.tensor([[9000.0], [9100.0], [8800.0], [9300.0]])
    bias = likelihood.initialize(x, torch.ones_like(x, dtype=torch.bool))
    ours = likelihood(bias[None]).log_prob(x)
    assert ours.dtype == torch.float32
    total, rate = likelihood.log_dispersion.double().exp(), likelihood.count_loc.double()
    exact = dist.NegativeBinomial(total, logits=rate - total.log()).log_prob(x.double())
    torch.testing.assert_close(ours.double(), exact, atol=1e-5, rtol=0)  # lgamma(9000) in float32 is good to 4e-3


@pytest.mark.parametrize("options", OPTIONS)
def test_it_starts_at_the_marginals_of_the_data(options: dict[str, Any]) -> None:
    likelihood = build(**options)
    table = frame()
    x, mask = rows_of(table, likelihood.schema)
    mask[::5] = False
    seen = table[mask[:, 0].numpy()]
    start = likelihood(likelihood.initialize(x, mask)[None])
    mean = dict(zip(likelihood.schema.names, start.mean[0].tolist(), strict=True))
    variance = dict(zip(likelihood.schema.names, start.variance[0].tolist(), strict=True))
    for name in ("height", "weight", "visits", "smokes"):
        assert mean[name] == pytest.approx(seen[name].mean(), rel=1e-5)
    for name in ("height", "weight"):
        assert variance[name] == pytest.approx(seen[name].var(ddof=0), rel=1e-5)
    if likelihood.count == "negative_binomial":
        assert variance["visits"] == pytest.approx(seen["visits"].var(ddof=0), rel=1e-5)
    logs = np.log(seen["income"])
    assert mean["income"] == pytest.approx(np.exp(logs.mean() + logs.var(ddof=0) / 2), rel=1e-5)
    for place, column in enumerate(likelihood.schema.columns):
        if column.num_classes > 2:
            point = likelihood.fill.expand(column.num_classes, -1).clone()
            point[:, place] = torch.arange(column.num_classes)
            shares = seen[column.name].value_counts().reindex(column.categories).to_numpy()
            wanted = (shares + 1) / (shares.sum() + column.num_classes)
            got = start.log_prob(point)[:, place].exp().detach().numpy()
            np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_draws_lie_in_the_support_and_have_its_moments() -> None:
    """Two-sided error of 5 standard errors over 9 columns and 2 outputs: fails by chance in 1e-5 of seeds."""
    likelihood, output = ready()
    draws = 20_000
    with torch.no_grad(), seeded(3):
        density = likelihood(output[:2])
        x = density.sample((draws,))
    assert x.shape == (draws, 2, 9)
    assert density.support.check(x).all()
    assert density.log_prob(x).isfinite().all()
    for place, column in enumerate(likelihood.schema.columns):
        cells = x[..., place]
        if column.num_classes > 2:
            point = likelihood.fill.expand(column.num_classes, 2, -1).clone()
            point[..., place] = torch.arange(column.num_classes).unsqueeze(-1)
            wanted = density.log_prob(point)[..., place].exp()
            got = torch.stack([(cells == code).double().mean(0) for code in range(column.num_classes)])
            assert ((got - wanted).abs() <= 5 * (wanted * (1 - wanted) / draws).sqrt()).all(), column.name
            assert (density.mean[:, place] == wanted.argmax(0)).all()
        else:
            error = cells.std(0) / draws**0.5
            assert ((cells.mean(0) - density.mean[:, place]).abs() <= 5 * error).all(), column.name
    assert not density.support.check(x + 0.5)[..., [likelihood.schema.names.index("visits")]].any()
    assert not density.support.check(-x)[..., likelihood.schema.names.index("income")].any()


def test_particles_and_data_are_batch_dimensions() -> None:
    likelihood, output = ready()
    many = output[:4].reshape(2, 2, -1)
    density = likelihood(many)
    assert density.batch_shape == (2, 2, 9)
    with seeded(0):
        x = density.sample()
    torch.testing.assert_close(density.log_prob(x)[1, 0], likelihood(many[1, 0]).log_prob(x[1, 0]))
    wide = likelihood(output[0]).expand((3, 4, 9))
    assert wide.log_prob(x[0, 0]).shape == (3, 4, 9)
    torch.testing.assert_close(wide.log_prob(x[0, 0])[2, 3], likelihood(output[0]).log_prob(x[0, 0]))
    with seeded(0):
        assert wide.sample().shape == (3, 4, 9)
    assert wide.mean.shape == wide.variance.shape == (3, 4, 9)
    assert density.to_event(1).log_prob(x).shape == (2, 2)
    with pytest.raises(ValueError, match="9 columns"):
        density.expand((2, 2, 8))


def test_an_unobserved_cell_adds_nothing_whatever_it_holds() -> None:
    likelihood, output = ready()
    x, mask = rows_of(frame()[:5], likelihood.schema)
    mask[0], mask[1, :4] = False, False
    observed = likelihood(output).log_prob(x) * mask
    results = []
    for hidden in (float("nan"), -3.5, 1e30):
        outputs = output.clone().requires_grad_()
        dirty = torch.where(mask, x, torch.full_like(x, hidden)).detach()
        log_p = likelihood.observed(outputs, mask).log_prob(likelihood.filled(dirty, mask))
        torch.testing.assert_close(log_p, observed.sum(-1))
        results.append(torch.autograd.grad(log_p.sum(), outputs)[0])
        features = likelihood.features(dirty.requires_grad_(), mask)
        slope = torch.autograd.grad(features.sum(), dirty)[0]
        assert slope.isfinite().all()  # the logarithm of what stands in for an unobserved cell has one
        torch.testing.assert_close(features[0], torch.zeros_like(features[0]))
        hidden_features = ~likelihood.features.spread(mask)[1]
        assert (features[1, hidden_features] == 0).all()
        assert (features[1, :10] == 0).tolist() == hidden_features[:10].tolist()  # indicators of others are 0 as well
    assert (results[0][0] == 0).all()
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])


def test_features_are_of_order_one_and_tell_categories_apart() -> None:
    likelihood = build()
    table = frame()
    x, mask = rows_of(table, likelihood.schema)
    likelihood.initialize(x, mask)
    features = likelihood.features(x)
    # 2 reals, 1 positive, 1 count, 1 binary, steps of 4 and of 3 categories, 5 and 3 indicators.
    assert likelihood.features.feature_shape == features.shape[1:] == (2 + 1 + 1 + 1 + 3 + 2 + 5 + 3,)
    torch.testing.assert_close(features[:, :4].mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        features[:, :4].std(0, correction=0), torch.ones(4, dtype=torch.float64), rtol=1e-6, atol=0
    )
    assert features[:, 4].tolist() == [2.0 * value - 1 for value in table["smokes"]]
    code = x[:, likelihood.schema.names.index("size")]
    assert ((features[:, 5:8] + 1) / 2).sum(-1).tolist() == code.tolist()
    city = x[:, likelihood.schema.names.index("city")].long()
    assert features[:, 10:15].argmax(-1).tolist() == city.tolist()
    assert (features[:, 10:15].sum(-1) == 1).all()


def test_a_scale_cannot_vanish_on_a_column_that_is_rounded() -> None:
    table = frame()
    rounded = table.assign(height=table["height"].round(), income=table["income"].round(-1).clip(10))
    chosen = infer(rounded, {"height": "real", "income": "positive"})
    steps = {column.name: column.step for column in chosen.columns if column.step}
    assert steps == {"height": 1.0, "income": 10.0}
    likelihood = build(chosen)
    bias = likelihood.initialize(*rows_of(rounded, chosen))
    with torch.no_grad():
        likelihood.raw_scale.fill_(-1e4)
        density = likelihood(bias[None])
    real, weight = density.parts[0].distribution.scale[0].tolist()
    assert real == pytest.approx(1 / 12**0.5)  # the sd of rounding to 1
    assert weight == pytest.approx(1e-3 * table["weight"].std(ddof=0))
    typical = np.exp(np.log(rounded["income"]).mean())
    assert float(density.parts[1].distribution.base_dist.scale[0]) == pytest.approx(10 / typical / 12**0.5)


def small(chosen: Schema, **options: Any) -> VAE:
    columns = [column.model_dump() for column in chosen.columns]
    likelihood = {"name": "table", "columns": columns, **options}
    return VAE(
        VAEConfig(x_shape=(len(columns),), latent_dim=2, likelihood=likelihood, encoder="mlp:hidden=[16]"), seed=0
    )


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


@pytest.mark.parametrize("options", OPTIONS)
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
    with pytest.raises(ValueError, match=r"wants the schema of the table.*infer\(frame\).columns.*\.parquet"):
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
