"""Estimates meet exact values within their own stated error, at the stated rate; bookkeeping is exact."""

from math import log

import numpy as np
import pytest
import torch

from tests.truths import PPCA, example, set_exact
from vae_pyro import VAE, VAEConfig, evaluate
from vae_pyro.core.isolation import seeded
from vae_pyro.densities.walk import block_sizes


def test_an_exact_guide_is_exact_in_every_figure() -> None:
    truth = example()
    x = truth.sample(30, seed=0)
    result = evaluate(truth.programs(), x, num_draws=20)
    np.testing.assert_allclose(result.log_px, truth.log_evidence(x).numpy(), atol=1e-10)
    np.testing.assert_allclose(result.elbo, result.log_px, atol=1e-10)
    np.testing.assert_allclose(result.log_px_se, 0, atol=1e-7)
    np.testing.assert_allclose(result.effective_sample_size, 20, rtol=1e-10)


def test_the_mean_field_gap_is_the_closed_form() -> None:
    truth = example()
    x = truth.sample(400, seed=0)
    result = evaluate(truth.programs(diagonal=True), x, num_draws=500)
    gap = truth.log_evidence(x).numpy() - result.elbo
    # Pooled over data; a z-score beyond 4.5 comes with 7 in 10^6 seeds.
    error = np.sqrt((result.elbo_se**2).sum()) / len(gap)
    assert abs(gap.mean() - truth.mean_field_gap) < 4.5 * error
    assert truth.mean_field_gap > 20 * error  # the gap is there to be seen


def z_scores(stretch: float, repetitions: int = 200) -> np.ndarray:
    truth = example()
    x = truth.sample(1, seed=5)
    exact = truth.log_evidence(x).item()
    results = [evaluate(truth.programs(stretch=stretch), x, num_draws=1000, seed=s) for s in range(repetitions)]
    return np.array([(r.log_px[0] - exact) / r.log_px_se[0] for r in results])


def test_the_stated_error_of_the_evidence_covers_at_the_stated_rate() -> None:
    """A wide guide has bounded weights; |z| < 1.96 in 95 % of 200 repetitions, within 4 binomial errors (6e-5)."""
    inside = (np.abs(z_scores(1.4)) < 1.96).mean()
    assert abs(inside - 0.95) < 4 * (0.95 * 0.05 / 200) ** 0.5


def test_a_wrong_evidence_would_be_seen() -> None:
    """The other side: an estimate off by 0.1 nats, the size of one dropped constant, leaves its interval."""
    truth = example()
    x = truth.sample(1, seed=5)
    result = evaluate(truth.programs(stretch=1.4), x, num_draws=1000)
    assert abs(result.log_px[0] + 0.1 - truth.log_evidence(x).item()) > 1.96 * result.log_px_se[0]


def vae_with(truth: PPCA) -> VAE:
    """The linear VAE whose decoder is ``truth`` and whose guide is the exact posterior."""
    vae = VAE(
        VAEConfig(
            x_shape=(len(truth.mean),),
            latent_dim=truth.weight.shape[1],
            likelihood={"name": "gaussian", "scale": truth.variance**0.5},
            posterior="full_rank",
            encoder="mlp:hidden=[]",
        )
    ).double()
    set_exact(vae, truth)
    return vae


def test_the_vae_with_exact_weights_is_exact() -> None:
    truth = example(d=6, q=3)
    x = truth.sample(40, seed=1)
    result = evaluate(vae_with(truth), x, num_draws=10)
    np.testing.assert_allclose(result.log_px, truth.log_evidence(x).numpy(), atol=1e-9)
    np.testing.assert_allclose(result.elbo, result.log_px, atol=1e-9)


def test_kl_bookkeeping() -> None:
    truth = example()
    result = evaluate(vae_with(truth), truth.sample(50, seed=1), num_draws=300)
    np.testing.assert_allclose(result.elbo, result.reconstruction - result.kl, atol=1e-10)
    loc, covariance = truth.posterior(truth.sample(50, seed=1))
    exact = 0.5 * (covariance.trace() + (loc**2).sum(1) - 2 - torch.logdet(covariance))
    z = (result.kl - exact.numpy()) / result.kl_se
    assert np.abs(z).max() < 5  # 50 z-scores; fails for 3 seeds in 10^5


def test_summary_keys_units_and_averages() -> None:
    truth = example()
    result = evaluate(truth.programs(diagonal=True), truth.sample(80, seed=1), num_draws=50)
    figures = result.summary()
    for key in ("elbo", "log_px", "kl", "reconstruction", "bits_per_dim", "active_units"):
        assert figures[f"{key}_se"] >= 0
    assert figures["n"] == 80
    assert figures["num_draws"] == 50
    assert figures["bits_per_dim"] == pytest.approx(-figures["log_px"] / (5 * log(2)))
    assert figures["elbo"] == pytest.approx(result.elbo.mean())
    assert figures["elbo_se"] == pytest.approx(np.sqrt((result.elbo_se**2).sum()) / 80)
    assert figures["sampling_se"]["elbo"] == pytest.approx(result.elbo.std(ddof=1) / np.sqrt(80))


def test_active_units_count_latents_that_move_with_the_data() -> None:
    truth = example(d=5, q=3)
    weight = truth.weight.clone()
    weight[:, 2] = 0  # this latent is its prior for every x
    silent = PPCA(weight, truth.mean, truth.variance)
    result = evaluate(silent.programs(), silent.sample(300, seed=0), num_draws=200)
    assert result.active_units == 2
    # Cov_x(E[z | x]) of the other two is known: W' C^-1 W, here its diagonal, within 4.5 of its sampling error.
    exact = (weight.T @ torch.linalg.inv(silent.covariance) @ weight).diagonal().numpy()
    error = exact * np.sqrt(2 / 300) + result.activity_se
    assert (np.abs(result.activity - exact)[:2] < 4.5 * error[:2]).all()
    assert result.activity[2] < 5 * result.activity_se[2]


def test_streaming_in_blocks_changes_nothing_but_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = example()
    x = truth.sample(23, seed=0)
    exact = evaluate(truth.programs(), x, num_draws=40)
    monkeypatch.setattr("vae_pyro.densities.walk.ELEMENTS_AT_ONCE", 5 * 4 * 7)
    blocked = evaluate(truth.programs(), x, num_draws=40)
    np.testing.assert_allclose(blocked.log_px, exact.log_px, atol=1e-9)
    data, particles = block_sizes(23, 40, 5)
    assert data * particles * 5 <= 5 * 4 * 7


def test_masked_elements_do_not_matter_and_are_not_counted() -> None:
    truth = example()
    x = truth.sample(20, seed=0)
    with seeded(1):
        mask = torch.rand(20, 5) < 0.7
    vae = vae_with(truth)
    first = evaluate(vae, x, num_draws=20, mask=mask)
    second = evaluate(vae, torch.where(mask, x, torch.tensor(float("nan"), dtype=x.dtype)), num_draws=20, mask=mask)
    np.testing.assert_array_equal(first.log_px, second.log_px)
    assert (first.num_elements == mask.sum(1).numpy()).all()
    bits = first.summary()["bits_per_dim"]
    assert bits == pytest.approx(-first.log_px.sum() / (int(mask.sum()) * log(2)))


def test_evidence_of_incomplete_data_agrees_with_the_marginal() -> None:
    """log p(x_observed) of pPCA is a marginal Gaussian; the guide sees zeros, so importance sampling does the work."""
    truth = example()
    x = truth.sample(6, seed=2)
    mask = torch.ones(6, 5, dtype=torch.bool)
    mask[:, 3:] = False
    marginal = PPCA(truth.weight[:3], truth.mean[:3], truth.variance)
    model, _ = truth.programs()
    _, guide = marginal.programs(stretch=1.5)
    result = evaluate((model, lambda x, mask=None: guide(x[:, :3])), x, num_draws=4000, mask=mask)
    z = (result.log_px - marginal.log_evidence(x[:, :3]).numpy()) / result.log_px_se
    assert np.abs(z).max() < 4.5


def test_the_same_seed_gives_the_same_bits() -> None:
    truth = example()
    x = truth.sample(9, seed=0)
    a, b, c = (evaluate(truth.programs(diagonal=True), x, num_draws=30, seed=seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(a.log_px, b.log_px)
    assert not np.array_equal(a.log_px, c.log_px)


def test_bad_input() -> None:
    truth = example()
    x = truth.sample(4, seed=0)
    with pytest.raises(ValueError, match="num_draws must be at least 2 for a standard error, got 1"):
        evaluate(truth.programs(), x, num_draws=1)
    vae = VAE(VAEConfig(x_shape=(5,), latent_dim=2))
    with pytest.raises(ValueError, match="likelihood 'bernoulli' requires"):
        evaluate(vae, x, num_draws=5)
    with pytest.raises(ValueError, match="none of 4 data has a value that is observed"):
        evaluate(vae_with(truth), torch.full_like(x, float("nan")), num_draws=5)


@pytest.mark.slow
def test_compiled_and_not_the_figures_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vae = VAE(VAEConfig(x_shape=(6,), latent_dim=2, likelihood="gaussian", prior="mixture")).double()
    with seeded(0):
        x = torch.randn(23, 6, dtype=torch.float64)
    monkeypatch.setattr("vae_pyro.densities.walk.ELEMENTS_AT_ONCE", 1000)  # several passes, and a smaller last one
    plain = evaluate(vae, x, num_draws=50, seed=4)
    monkeypatch.setattr("vae_pyro.densities.scorer._WORTH_COMPILING", 0)
    compiled = evaluate(vae, x, num_draws=50, seed=4)
    np.testing.assert_allclose(compiled.log_px, plain.log_px, rtol=1e-9)
    np.testing.assert_allclose(compiled.elbo_se, plain.elbo_se, rtol=1e-9)


def test_the_guide_runs_once_for_a_datum(monkeypatch: pytest.MonkeyPatch) -> None:
    vae = VAE(VAEConfig(x_shape=(6,), latent_dim=2, likelihood="gaussian"))
    rows: list[int] = []
    monkeypatch.setattr("vae_pyro.densities.walk.ELEMENTS_AT_ONCE", 200)
    monkeypatch.setattr("vae_pyro.densities.walk._DRAWS_AT_ONCE", 500)
    encode = vae.guide.encoder.forward
    monkeypatch.setattr(
        vae.guide.encoder, "forward", lambda features: (rows.append(len(features)), encode(features))[1]
    )
    evaluate(vae, torch.zeros(23, 6), num_draws=100)
    assert sum(rows) == 23
    assert max(rows) <= 5


def test_it_prints_in_a_few_lines_and_is_a_table() -> None:
    truth = example()
    result = evaluate(truth.programs(), truth.sample(30, seed=0), num_draws=20)
    lines = str(result).splitlines()
    assert len(lines) == 6
    assert f"{result.log_px.mean():.3f}" in lines[2]
    assert repr(result).count("\n") == 0
    assert "<pre>30 data" in result._repr_html_()
    frame = result.to_dataframe()
    assert len(frame) == 30
    np.testing.assert_array_equal(frame["elbo_se"], result.elbo_se)


def test_the_probability_of_nothing_is_one() -> None:
    vae = VAE(VAEConfig(x_shape=(3,), latent_dim=2, likelihood="gaussian", encoder="mlp:hidden=[4]"), seed=0)
    x = vae.sample(6, seed=0)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[2], mask[4, :2] = False, False
    for pair in (vae, (vae.model, vae.guide)):
        result = evaluate(pair, x, num_draws=10, mask=mask)
        assert result.log_px[2] == result.log_px_se[2] == 0
        assert result.elbo[2] < 0  # the guide is not the prior
        assert (np.delete(result.log_px, 2) != 0).all()


def test_a_mask_that_is_modelled_has_a_probability_where_nothing_else_is_observed() -> None:
    config = VAEConfig(
        x_shape=(3,), latent_dim=2, likelihood="gaussian", encoder="mlp:hidden=[4]", structure="not_at_random"
    )
    vae = VAE(config, seed=0)
    x = torch.zeros(4, 3)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[2] = False
    assert evaluate(vae, x, num_draws=10, mask=mask).log_px[2] != 0
