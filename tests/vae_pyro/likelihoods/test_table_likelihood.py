"""The likelihood of a table: densities, draws, starts and features of its columns."""

from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import ks_2samp

from tests.vae_pyro.likelihoods.tables import (
    MARGINS,
    OPTIONS,
    ORDER,
    build,
    frame,
    ready,
    rows_of,
    support,
)
from vae_pyro.core.isolation import seeded
from vae_pyro.data.tables.inference import infer
from vae_pyro.data.tables.schema import Column
from vae_pyro.likelihoods import LIKELIHOODS
from vae_pyro.likelihoods.table_columns import cumulative_logits


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


@pytest.mark.parametrize("options", [*OPTIONS, *MARGINS])
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


@pytest.mark.parametrize("options", MARGINS)
def test_margins_start_at_the_distributions_of_the_columns(options: dict[str, Any]) -> None:
    """Draws have the quantiles of 320 observed data within 0.11, a Kolmogorov distance of probability 2e-3 a column."""
    likelihood = build(**options)
    table = frame()
    x, mask = rows_of(table, likelihood.schema)
    mask[::5] = False
    x = torch.where(mask, x, torch.nan)
    start = likelihood(likelihood.initialize(x, mask)[None])
    with seeded(0):
        draws = start.sample((2000,))[:, 0]
    for name in ("height", "weight", "income"):
        place = likelihood.schema.names.index(name)
        assert ks_2samp(draws[:, place], x[mask[:, place], place]).statistic < 0.11
    assert start.log_prob(torch.where(mask, x, likelihood.fill)).isfinite().all()
    assert likelihood.features(x, mask).isfinite().all()
    with pytest.raises(
        ValueError, match=r"margins='fitted' describes scores that are normal; leave out real='student_t'"
    ):
        build(real="student_t", margins="fitted")


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
