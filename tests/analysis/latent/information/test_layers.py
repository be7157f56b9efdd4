"""What each layer carries meets closed forms of linear-Gaussian models; a collapsed layer is told from a used one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from analysis.density.elpd import elpd
from analysis.diagnostics.config import ReportConfig
from analysis.diagnostics.context import Context
from analysis.draws.datatree import to_datatree
from analysis.latent.information.layer_result import LayersSummary
from analysis.latent.information.layers import describe_layers
from analysis.latent.information.plot import plot_layers
from analysis.latent.information.section import Information
from analysis.latent.information.summary import describe_latent
from analysis.posterior.calibration.sbc import calibrate
from tests.truths import example, normal_kl
from tests.vae_pyro.models.hierarchies import Hierarchy, exact, hierarchy, small
from vae_pyro import VAE, Split, VAEConfig

# Guide, truth that it can be exact for, and family of q(z | x).
PAIRS = (
    ("bottom_up", "both", "mean_field"),
    ("bottom_up", "bottom_up", "full_rank"),
    ("ladder", "both", "mean_field"),
    ("ladder", "ladder", "mean_field"),
)


def described(pair: tuple[str, str, str], size: int = 300, **options: Any) -> tuple[LayersSummary, Hierarchy, Any]:
    kind, of, posterior = pair
    truth = hierarchy(of, variance=4.0 if of == "both" else 0.25)
    x = truth.sample(size, seed=1)
    return describe_layers(exact(kind, truth, posterior), x, **options), truth, x


@pytest.mark.parametrize("pair", PAIRS)
def test_every_layer_meets_its_closed_form(pair: tuple[str, str, str]) -> None:
    """Within 4.5 Monte Carlo errors (7e-6 each), and exactly where no draw enters; two layers, means over the data."""
    summary, truth, x = described(pair)
    kind = pair[0]
    for layer, expected in zip(summary.layers, truth.layer_kls(kind, x), strict=True):
        assert abs(layer.rate - float(expected.mean())) < 4.5 * layer.rate_mcse + 1e-9
        error = np.sqrt((layer.kl_draws_mcse**2).sum()) / len(x)
        assert abs(layer.kl_draws.mean() - float(expected.mean())) < 4.5 * error
    lower, top = summary.layers
    assert (lower.name, top.name) == ("z", "z2")
    assert (lower.size, top.size) == (3, 2)
    assert top.conditional
    assert top.closed
    assert summary.guide_order == (("z", "z2") if kind == "bottom_up" else ("z2", "z"))
    if kind == "bottom_up":
        assert not lower.conditional
        assert not lower.closed
        assert lower.rate_mcse > top.rate_mcse > 0
    else:
        assert lower.closed
        assert top.rate_mcse == 0  # KL(q(z2 | x) || p(z2)) depends on no draw
        np.testing.assert_allclose(top.kl, truth.layer_kls(kind, x)[1].numpy(), rtol=1e-9)
        assert (lower.kl_mcse < lower.kl_draws_mcse).all()  # the closed KL leaves out the noise of its own draw


@pytest.mark.parametrize("pair", PAIRS)
def test_the_layers_add_up_to_the_kl_of_the_ledger(pair: tuple[str, str, str]) -> None:
    """Draw by draw where draws stand for the KLs, and within 4.5 errors where closed forms do (7e-6)."""
    summary, _, _ = described(pair)
    np.testing.assert_allclose(sum(layer.kl_draws for layer in summary.layers), summary.kl, atol=1e-10)
    error = np.sqrt((summary.kl_mcse**2).sum()) / len(summary.kl)
    rates = np.sqrt(error**2 + sum(layer.rate_mcse**2 for layer in summary.layers))
    assert abs(summary.rate - summary.kl.mean()) < 4.5 * rates


@pytest.mark.parametrize("pair", [PAIRS[1], PAIRS[3]])
def test_monte_carlo_errors_are_those_of_repetitions(pair: tuple[str, str, str]) -> None:
    """90 repetitions with new draws: the sum of squared z-scores of each figure is chi-squared with 90 degrees of
    freedom (two-sided 2e-5; four figures at most). Errors half as large again, or two thirds, do not pass."""
    low, high = chi2.ppf([1e-5, 1 - 1e-5], 90)
    scores: dict[str, list[float]] = {}
    for seed in range(90):
        summary, truth, x = described(pair, 19, num_draws=100, seed=seed)
        for layer, expected in zip(summary.layers, truth.layer_kls(pair[0], x).mean(1), strict=True):
            if layer.rate_mcse > 0:
                scores.setdefault(layer.name, []).append((layer.rate - float(expected)) / layer.rate_mcse)
            drawn = np.sqrt((layer.kl_draws_mcse**2).sum()) / len(x)
            scores.setdefault(f"{layer.name} drawn", []).append((layer.kl_draws.mean() - float(expected)) / drawn)
    for name, values in scores.items():
        assert low < (np.array(values) ** 2).sum() < high, name


def test_the_part_of_a_layer_below_the_top_may_be_negative_and_is_said_to_be_no_kl() -> None:
    summary, truth, x = described(PAIRS[0])
    lower = summary["z"]
    assert float(truth.layer_kls("bottom_up", x)[0].mean()) < 0
    assert lower.rate + 3 * lower.rate_mcse < 0
    assert "a part, not a KL" in str(summary)
    assert "not a KL" not in str(described(PAIRS[2])[0])


@pytest.mark.parametrize("kind", ["bottom_up", "ladder"])
def test_a_collapsed_layer_is_told_from_a_used_one(kind: str) -> None:
    """Where z does not depend on z2, the exact posterior of z2 is its prior."""
    truth = hierarchy("both")
    idle = replace(truth, lifts=tuple(torch.zeros_like(lift) for lift in truth.lifts))
    found = {}
    for name, of in (("used", truth), ("idle", idle)):
        summary = describe_layers(exact(kind, of, "mean_field"), of.sample(300, seed=0))
        found[name] = {verdict.name: verdict for verdict in summary.verdicts}
        assert summary["z"].unused.sum() == 0
        assert summary["z2"].unused.sum() == (2 if name == "idle" else 0)
        assert summary["z2"].collapsed.sum() == (2 if name == "idle" else 0)
        assert summary["z2"].active.sum() == (0 if name == "idle" else 2)
    assert [verdict.outcome for verdict in found["used"].values()] == ["pass", "pass"]
    assert [verdict.outcome for verdict in found["idle"].values()] == ["pass", "fail"]
    assert "the model is one of fewer layers" in found["idle"]["layer_collapse_z2"].advice


@pytest.mark.parametrize("pair", [PAIRS[0], *PAIRS[2:]])
def test_the_information_of_the_layer_that_is_drawn_first_meets_its_closed_form(pair: tuple[str, str, str]) -> None:
    """Within 4 errors of the bracket (6e-5)."""
    summary, truth, _ = described(pair)
    first = summary[summary.guide_order[0]]
    number = 1 if first.name == "z" else 2
    at = truth.columns(number)
    _, given = truth.given((number,), (0,))
    information = 0.5 * float(torch.logdet(truth.covariance[at][:, at]) - torch.logdet(given))
    assert first.information is not None
    assert abs(first.information.estimate - information) < 4 * first.information.error
    assert [layer.information for layer in summary.layers if layer is not first] == [None]


def test_a_pair_of_one_layer_has_its_closed_kl() -> None:
    truth = example()
    x = truth.sample(100, seed=0)
    summary = describe_layers(truth.programs(diagonal=True), x)
    (layer,) = summary.layers
    loc, _ = truth.posterior(x)
    exactly = normal_kl(loc, truth.mean_field_scale.expand_as(loc))
    assert layer.closed
    np.testing.assert_allclose(layer.kl, exactly.numpy(), rtol=1e-9)
    assert layer.dimension_kl is not None
    np.testing.assert_allclose(layer.dimension_kl.sum(1), exactly.numpy(), rtol=1e-9)
    assert summary.verdicts[0].outcome == "pass"


def test_a_kl_without_a_closed_form_comes_from_draws() -> None:
    x = torch.zeros(5, 6, dtype=torch.float64)
    flow = describe_layers(small("ladder", prior="flow"), x)
    assert [(layer.name, layer.conditional, layer.closed) for layer in flow.layers] == [
        ("z", True, True),
        ("z2", True, True),
        ("z3", True, False),
    ]
    np.testing.assert_array_equal(flow["z3"].kl, flow["z3"].kl_draws)
    assert flow["z3"].dimension_kl is None
    full = describe_layers(small("bottom_up", posterior="full_rank"), x)
    assert full["z"].dimension_kl is None
    assert full["z3"].closed


def test_masked_elements_and_wrong_requests() -> None:
    vae = small("ladder")
    x = torch.zeros(5, 6, dtype=torch.float64)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, 0] = False
    with_nan = torch.where(mask, x, torch.nan)
    first, second = (describe_layers(vae, values, mask=mask, num_draws=3) for values in (x, with_nan))
    np.testing.assert_array_equal(first.kl, second.kl)
    with pytest.raises(ValueError, match="num_draws must be at least 2 for a standard error, got 1"):
        describe_layers(vae, x, num_draws=1)
    with pytest.raises(ValueError, match="at least 2 data are required, got 1"):
        describe_layers(vae, x[:1])
    with pytest.raises(KeyError, match="no layer 'z4'; there are z, z2, z3"):
        first["z4"]
    figures = first.summary()
    assert list(figures["layers"]) == ["z", "z2", "z3"]
    assert figures["layers"]["z"]["latents"] == 4


@pytest.mark.parametrize("pair", PAIRS)
def test_the_description_of_latents_takes_layers_and_names_them(pair: tuple[str, str, str]) -> None:
    """I(x; z, z2) of the exact posterior lies in the bracket, within 3.5 errors (5e-4)."""
    kind, of, posterior = pair
    truth = hierarchy(of, variance=4.0)
    x = truth.sample(250, seed=3)
    summary = describe_latent(exact(kind, truth, posterior), x, num_draws=5, num_data=150)
    lower, upper = ["z[0]", "z[1]", "z[2]"], ["z2[0]", "z2[1]"]
    assert list(summary.names) == (lower + upper if kind == "bottom_up" else upper + lower)
    at = truth.columns(1, 2)
    _, given = truth.given((1, 2), (0,))
    information = 0.5 * float(torch.logdet(truth.covariance[at][:, at]) - torch.logdet(given))
    assert abs(summary.mutual_information.estimate - information) < 3.5 * summary.mutual_information.error
    assert summary.active.all()


@pytest.mark.parametrize("kind", ["bottom_up", "ladder"])
def test_checks_of_the_posterior_take_layers(kind: str) -> None:
    """Calibration accepts an exact guide of layers and rejects one that is too narrow in its upper layer; the held-out
    log p(x) is the evidence. (Family-wise p below 1e-3 for the exact guide: 1e-3.)"""
    truth = hierarchy(kind)
    vae, x = exact(kind, truth), truth.sample(30, seed=4)
    good = calibrate(vae, num_simulations=150, seed=0)
    assert {name for name in good.names if name.startswith("z")} == {"z[0]", "z[1]", "z[2]", "z2[0]", "z2[1]"}
    assert good.adjusted_p_values.min() > 1e-3
    narrow = exact(kind, truth)
    guide: Any = narrow.guide
    output = guide.upward[0].normal if kind == "bottom_up" else guide.rungs[0].normal
    with torch.no_grad():
        output.linear.bias[2:] -= 0.7
    assert calibrate(narrow, num_simulations=150, seed=0).adjusted_p_values.min() < 1e-3
    tree = to_datatree(vae, x, num_draws=40, seed=1)
    assert set(tree["posterior"].data_vars) == {"z", "z2"}
    np.testing.assert_allclose(elpd(tree).pointwise, truth.log_evidence(x).numpy(), atol=1e-6)


def test_the_figure_shows_each_layer_and_each_dimension() -> None:
    summary, _, _ = described(PAIRS[2], 40)
    each = [layer.dimension_kl.mean(0) for layer in summary.layers if layer.dimension_kl is not None]
    names, rates = [layer.name for layer in summary.layers], np.array([layer.rate for layer in summary.layers])
    figure = plot_layers(names, rates, np.array([layer.rate_se for layer in summary.layers]), dimension_kl=each)
    bars, curves = figure.axes
    lines: list[Any] = [line for line in curves.get_lines() if line.get_label() in names]
    patches: list[Any] = list(bars.patches)
    np.testing.assert_allclose([bar.get_width() for bar in patches], rates)
    assert [text.get_text() for text in bars.get_yticklabels()] == ["z", "z2"]
    np.testing.assert_allclose(lines[0].get_ydata(), np.sort(each[0])[::-1])
    assert len(plot_layers(names, rates).axes) == 1
    with pytest.raises(ValueError, match="1 names for 2 layers"):
        plot_layers(["z"], rates)
    with pytest.raises(ValueError, match="dimension_kl has 1 entries for 2 layers"):
        plot_layers(names, rates, dimension_kl=[None])


def test_a_fitted_vae_of_layers_is_described() -> None:
    config = VAEConfig(x_shape=(6,), latent_dim=3, likelihood="gaussian", structure="ladder:latent_dims=[2],hidden=[8]")
    summary = describe_layers(VAE(config, seed=0), np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32))
    assert np.isfinite(summary.rate)
    assert len(summary) == 2


def test_a_report_describes_layers_where_there_are_several() -> None:
    """From the draws that all its sections share, the first 30 of each datum."""
    x = hierarchy("both").sample(25, seed=0).to(torch.float32)
    for structure, layers in (("ladder:latent_dims=[2]", ["z", "z2"]), ("single", None)):
        config = VAEConfig(x_shape=(x.shape[1],), latent_dim=3, likelihood="gaussian", structure=structure)
        context = Context(VAE(config), Split(x), Split(x), config=ReportConfig(num_draws=100))
        diagnostic = Information()
        context.collect(diagnostic.reducers(context))
        found = diagnostic.run(context)
        assert (found.layers and [layer.name for layer in found.layers.layers]) == layers
        assert (found.layers and found.layers.num_draws) == (layers and 30)
        names = [getattr(block, "name", None) for block in diagnostic.section(found).blocks]
        assert ("layers" in names) == (layers is not None)
