"""Imputation against the exact conditional of probabilistic PCA, by closed forms and quadrature."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

import vae_pyro.models.structures.not_at_random  # noqa: F401 (registers itself)
from tests.truths import PPCA, Program, example
from vae_pyro import VAE, Split, VAEConfig, evaluate
from vae_pyro.applications.imputation import impute
from vae_pyro.applications.imputation_result import Imputation
from vae_pyro.core.isolation import derive_seed, isolated, seeded
from vae_pyro.data.dataset import as_split
from vae_pyro.densities.sites import draw_latents, score_latents

TRUTH = example(d=5, q=2, variance=0.5)


def hidden(size: int, seed: int, share: float = 0.4) -> Tensor:
    """A mask that is false for this share of elements; the first datum is complete, the second has nothing."""
    with seeded(seed):
        mask = torch.rand(size, len(TRUTH.mean)) >= share
    mask[0], mask[1] = True, False
    return mask


def pair(truth: PPCA, stretch: float = 1.3) -> tuple[Program, Program]:
    """The model, and the exact posterior given the observed elements, its standard deviations stretched."""
    model, _ = truth.programs()

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> Tensor:
        seen = torch.ones_like(x) if mask is None else mask.to(x.dtype)
        residual = seen * (x - truth.mean)
        gram = torch.einsum("dq,nd,dr->nqr", truth.weight, seen, truth.weight)
        precision = gram / truth.variance + torch.eye(truth.weight.shape[1], dtype=x.dtype)
        covariance = torch.linalg.inv(precision)
        loc = torch.einsum("nqr,nr->nq", covariance, residual @ truth.weight / truth.variance)
        with pyro.plate("data", len(x)):
            tril = stretch * torch.linalg.cholesky(covariance)
            return pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=tril))

    return model, guide


def conditional(truth: PPCA, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Exact E[x_mis | x_obs], sd of x_mis | x_obs, and log p(x_obs), of the Gaussian N(mu, C)."""
    mean, sd, evidence = x.clone(), torch.zeros_like(x), torch.zeros(len(x), dtype=x.dtype)
    for i, seen in enumerate(mask):
        o, m = seen.nonzero().flatten(), (~seen).nonzero().flatten()
        c = truth.covariance
        gain = torch.linalg.solve(c[o][:, o], c[o][:, m]).T
        mean[i, m] = truth.mean[m] + gain @ (x[i, o] - truth.mean[o])
        sd[i, m] = (c[m][:, m] - gain @ c[o][:, m]).diagonal().sqrt()
        if len(o):
            evidence[i] = torch.distributions.MultivariateNormal(truth.mean[o], c[o][:, o]).log_prob(x[i, o])
    return mean, sd, evidence


@pytest.fixture(scope="module")
def problem() -> tuple[Tensor, Tensor, Imputation]:
    x, mask = TRUTH.sample(60, seed=1), hidden(60, seed=2)
    return x, mask, impute(pair(TRUTH), x, mask=mask, num_draws=4000, num_imputations=3, seed=3)


def test_moments_of_ppca_are_those_of_the_exact_conditional(problem: tuple[Tensor, Tensor, Imputation]) -> None:
    x, mask, made = problem
    mean, sd, _ = conditional(TRUTH, x, mask)
    missing = ~mask.numpy()
    assert made.mean.dtype == np.float64
    z = (made.mean - mean.numpy())[missing] / made.mean_se[missing]
    # About 130 errors, correlated within a datum: the largest of 130 normal ones exceeds 4.5 in 1 of 1,100 runs.
    assert np.abs(z).max() < 4.5
    # And they are of the size that they are said to be: a mean square within 5 standard errors of 1, at the fewest
    # independent numbers that there can be (2 latents for each of 59 data).
    assert abs((z**2).mean() - 1) < 5 * (2 / (2 * 59)) ** 0.5
    # A standard deviation from K draws of ESS above 2000 has a relative error of 1 / sqrt(2 ESS) = 1.6 %, or less.
    assert np.nanmin(made.effective_sample_size) > 2000
    np.testing.assert_allclose(made.sd[missing], sd.numpy()[missing], rtol=5 * 0.016)


def test_intervals_are_quantiles_of_the_exact_conditional(problem: tuple[Tensor, Tensor, Imputation]) -> None:
    x, mask, made = problem
    missing = ~mask.numpy()
    mean, sd = (moment.numpy()[missing] for moment in conditional(TRUTH, x, mask)[:2])
    assert made.lower is not None
    assert made.upper is not None
    below, above = norm.cdf(made.lower[missing], mean, sd), norm.sf(made.upper[missing], mean, sd)
    # Probability beyond an end: 0.05, from 1,000 draws, and latents of an effective size of 2,000 and more, whose
    # error adds: at most sqrt(0.05 * 0.95 * (1 / 1000 + 1 / 2000)) = 0.0084.
    for beyond in (below, above):
        assert np.abs(beyond - 0.05).max() < 4.5 * 0.0084
        assert abs(beyond.mean() - 0.05) < 0.005


def test_estimates_are_the_formulas_of_their_draws() -> None:
    """The same draws, weighed by hand, of a guide that is off centre."""
    x, mask = TRUTH.sample(8, seed=1), hidden(8, seed=2, share=0.7)
    mask[0] = mask[1]
    model, _ = pair(TRUTH)

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> Tensor:
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Normal(torch.full((len(x), 2), 0.8, dtype=x.dtype), 1.5).to_event(1))

    made = impute((model, guide), x, mask=mask, num_draws=300, level=None, seed=7)
    with isolated(derive_seed(7, 1)):
        latents, log_guide = draw_latents(guide, x, num_particles=300, mask=mask)
        log_likelihood, log_prior = score_latents(model, x, latents, mask=mask)
    weight = torch.softmax(log_likelihood + log_prior - log_guide, 0).unsqueeze(-1)
    loc = latents["z"] @ TRUTH.weight.T + TRUTH.mean
    mean = (weight * loc).sum(0)
    sd = ((weight * (loc - mean) ** 2).sum(0) + TRUTH.variance).sqrt()
    error = (weight**2 * (loc - mean) ** 2).sum(0).sqrt()
    for found, reference in ((made.mean, mean), (made.sd, sd), (made.mean_se, error)):
        np.testing.assert_allclose(found[made.missing], reference.numpy()[made.missing], rtol=1e-9)
    np.testing.assert_allclose(made.effective_sample_size, 1 / (weight**2).sum(0).squeeze(-1))


def test_imputations_are_draws_of_the_exact_conditional() -> None:
    x, mask = TRUTH.sample(2, seed=1), torch.tensor([[True, True, False, False, True]] * 2)
    made = impute(pair(TRUTH), x, mask=mask, num_draws=4000, num_imputations=2000, level=None, seed=3)
    assert made.lower is None
    assert made.imputations.shape == (2000, 2, 5)
    c, o, m = TRUTH.covariance.numpy(), [0, 1, 4], [2, 3]
    gain = np.linalg.solve(c[np.ix_(o, o)], c[np.ix_(o, m)]).T
    exact = c[np.ix_(m, m)] - gain @ c[np.ix_(o, m)]
    for i in range(2):
        draws = made.imputations[:, i, m]
        mean = TRUTH.mean.numpy()[m] + gain @ (x.numpy()[i, o] - TRUTH.mean.numpy()[o])
        error = np.sqrt(np.diag(exact) / 2000 * 1.5)  # draws of z come twice: 1 / 2000 + 1 / ESS, ESS above 4000 / 2
        assert (np.abs(draws.mean(0) - mean) < 4.5 * error * 1.2).all()
        # Correlation as well: elements of one imputation belong to one z.
        np.testing.assert_allclose(np.cov(draws.T), exact, atol=6 * exact.max() * (2 / 1300) ** 0.5)
    np.testing.assert_array_equal(made.imputations[:, :, o], np.broadcast_to(x.numpy()[:, o], (2000, 2, 3)))


def test_log_evidence_of_observed_elements_is_the_exact_marginal() -> None:
    x, mask = TRUTH.sample(50, seed=4), hidden(50, seed=5)
    evaluation = evaluate(pair(TRUTH), x, mask=mask, num_draws=4000, seed=1)
    exact = conditional(TRUTH, x, mask)[2].numpy()
    # 50 independent errors: beyond 4.2 in 1 of 750 runs. Without anything observed log p is 0 and the weights vary.
    assert (np.abs(evaluation.log_px - exact) < 4.2 * evaluation.log_px_se + 1e-9).all()
    full = TRUTH.log_evidence(x).numpy()
    assert np.abs(evaluation.log_px - full)[2:].mean() > 0.5  # and not that of the whole data


def test_nothing_depends_on_masked_values() -> None:
    x, mask = TRUTH.sample(20, seed=1), hidden(20, seed=2)
    vae = VAE(VAEConfig(x_shape=(5,), latent_dim=2, likelihood="gaussian", encoder="mlp:hidden=[8]", encode_mask=True))
    for programs in (pair(TRUTH), vae):
        made = [
            impute(programs, torch.where(mask, x, torch.tensor(value, dtype=x.dtype)), mask=mask, num_draws=50,
                   num_imputations=2, seed=3)
            for value in (0.0, float("nan"), 1e30, -float("inf"))
        ]  # fmt: skip
        made.append(impute(programs, torch.where(mask, x, torch.nan), num_draws=50, num_imputations=2, seed=3))
        for other in made[1:]:
            for name in ("mean", "sd", "mean_se", "lower", "upper", "imputations", "mask", "effective_sample_size"):
                np.testing.assert_array_equal(getattr(made[0], name), getattr(other, name), err_msg=name)
        assert np.isfinite(made[1].mean).all()


def test_seeds_blocks_and_options_that_leave_the_mean_alone(problem: tuple[Tensor, Tensor, Imputation]) -> None:
    x, mask, made = problem
    again = impute(pair(TRUTH), x, mask=mask, num_draws=4000, num_imputations=3, seed=3)
    np.testing.assert_array_equal(again.imputations, made.imputations)
    np.testing.assert_array_equal(again.lower, made.lower)
    bare = impute(pair(TRUTH), x, mask=mask, num_draws=4000, level=None, seed=3)
    np.testing.assert_array_equal(bare.mean, made.mean)
    np.testing.assert_array_equal(bare.effective_sample_size, made.effective_sample_size)
    assert bare.imputations.shape == (0, 60, 5)
    other = impute(pair(TRUTH), x, mask=mask, num_draws=4000, level=None, seed=4)
    assert (other.mean != made.mean).any()


def test_small_blocks_give_the_same_estimates_within_their_error(
    problem: tuple[Tensor, Tensor, Imputation], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, mask, made = problem
    monkeypatch.setattr("vae_pyro.densities.walk._DRAWS_AT_ONCE", 4000 * 7)
    monkeypatch.setattr("vae_pyro.densities.walk.ELEMENTS_AT_ONCE", 5 * 7 * 300)
    monkeypatch.setattr("vae_pyro.applications.imputation.ELEMENTS_AT_ONCE", 5 * 1000)
    small = impute(pair(TRUTH), x, mask=mask, num_draws=4000, num_imputations=3, seed=9)
    z = (small.mean - made.mean)[~mask.numpy()] / np.hypot(small.mean_se, made.mean_se)[~mask.numpy()]
    assert np.abs(z).max() < 4.5
    assert abs((z**2).mean() - 1) < 5 * (2 / (2 * 59)) ** 0.5
    np.testing.assert_array_equal(small.mean[mask], x[mask])


def test_observed_elements_are_themselves(problem: tuple[Tensor, Tensor, Imputation]) -> None:
    x, mask, made = problem
    for array in (made.mean, made.lower, made.upper, *made.imputations):
        assert array is not None
        np.testing.assert_array_equal(array[mask], x[mask])
    assert (made.sd[mask] == 0).all()
    assert (made.mean_se[mask] == 0).all()
    assert (made.sd[~mask.numpy()] > 0).all()
    complete = mask.numpy().all(1)
    assert complete[0]
    np.testing.assert_array_equal(np.isnan(made.effective_sample_size), complete)
    assert f"{(~complete).sum()} of 60" in str(made)
    assert made.summary()["missing"] == pytest.approx(float((~mask).double().mean()))


def test_binary_elements_have_a_probability() -> None:
    """One latent that two bits share: P(x_2 = 1 | x_1) is a one-dimensional integral."""

    def model(x: Any = None, *, size: Any = None, mask: Any = None, y: Any = None) -> Tensor:
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1, dtype=torch.float64), 1.0).to_event(1))
            element = dist.Bernoulli(logits=3 * z.expand(*z.shape[:-1], 2))
            return pyro.sample("x", (element if mask is None else element.mask(mask)).to_event(1), obs=x)

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> Tensor:
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Normal(torch.zeros(len(x), 1, dtype=x.dtype), 1.2).to_event(1))

    x = torch.tensor([[1.0, torch.nan], [0.0, torch.nan]], dtype=torch.float64)
    made = impute((model, guide), x, num_draws=20_000, num_imputations=4000, seed=0)
    z = np.linspace(-9, 9, 4001)
    bit = 1 / (1 + np.exp(-3 * z))
    exact = (norm.pdf(z) * bit**2).sum() / (norm.pdf(z) * bit).sum()
    assert abs(made.mean[0, 1] - exact) < 4.5 * made.mean_se[0, 1]
    assert abs(made.mean[1, 1] - (1 - exact)) < 4.5 * made.mean_se[1, 1]
    np.testing.assert_allclose(made.sd[:, 1], np.sqrt(exact * (1 - exact)), rtol=0.02)
    drawn = made.imputations[:, 0, 1]
    assert set(np.unique(drawn)) == {0.0, 1.0}
    assert abs(drawn.mean() - exact) < 4.5 * np.sqrt(exact * (1 - exact) / 4000 * 1.4)


def test_classes_are_voted_for_and_not_averaged() -> None:
    """Three classes of which z takes the first or the last: their average would be the middle one, which never is."""

    def model(x: Any = None, *, size: Any = None, mask: Any = None, y: Any = None) -> Tensor:
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1, dtype=torch.float64), 1.0).to_event(1))
            first = (z < 0.3).double()
            logits = torch.stack([20 * first, torch.zeros_like(first), 20 * (1 - first)], -1)
            element = dist.Categorical(logits=logits)
            return pyro.sample("x", (element if mask is None else element.mask(mask)).to_event(1), obs=x)

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> Tensor:
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Normal(torch.zeros(len(x), 1, dtype=x.dtype), 1.2).to_event(1))

    made = impute((model, guide), torch.full((3, 1), torch.nan, dtype=torch.float64), num_draws=2000, seed=0)
    assert (made.mean == 0).all()
    assert np.isnan(made.sd).all()
    assert made.lower is not None
    assert made.upper is not None
    assert (made.lower == 0).all()
    assert (made.upper == 2).all()


def test_columns_of_a_table_each_in_its_kind() -> None:
    pandas = pytest.importorskip("pandas")
    from vae_pyro.data.tables.inference import infer

    random = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {"real": random.normal(size=60), "kind": random.choice(["a", "b", "c"], 60), "yes": random.random(60) < 0.5}
    )
    schema = infer(frame)
    x = torch.as_tensor(schema.encode(frame)[0]).float()
    vae = VAE(VAEConfig(x_shape=(3,), latent_dim=2, encode_mask=True,
                        likelihood={"name": "table", "columns": [c.model_dump() for c in schema.columns]}))  # fmt: skip
    vae.initialize(x)
    mask = torch.rand(60, 3, generator=torch.Generator().manual_seed(0)) < 0.6
    made = impute(vae, x, mask=mask, num_draws=200, num_imputations=2, seed=0)
    kinds = [column.kind for column in schema.columns]
    for place, kind in enumerate(kinds):
        missing = ~mask.numpy()[:, place]
        if kind == "category":
            assert set(made.mean[missing, place]) <= {0.0, 1.0, 2.0}
            assert np.isnan(made.sd[missing, place]).all()
        else:
            assert np.isfinite(made.sd[missing, place]).all()
    assert {"real", "category", "binary"} == set(kinds)


def test_a_latent_site_of_missing_elements_is_weighed() -> None:
    """Values above 1 are hidden with probability 0.9, others never: x given that it is hidden is the upper tail."""

    def model(x: Any = None, *, size: Any = None, mask: Any = None, y: Any = None) -> Tensor:
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1, dtype=torch.float64), 1.0).to_event(1))
            element = dist.Normal(z, 0.5)
            if mask is None:
                return pyro.sample("x", element.to_event(1), obs=x)
            drawn = pyro.sample("x_missing", element.mask(~mask).to_event(1))
            whole = torch.where(mask, x, drawn)
            pyro.sample("x", element.mask(mask).to_event(1), obs=x)
            seen = dist.Bernoulli(torch.where(whole > 1, 0.1, 1 - 1e-9)).to_event(1)
            pyro.sample("mask", seen, obs=mask.double())
            return whole

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> Tensor:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1, dtype=x.dtype), 1.2).to_event(1))
            pyro.sample("x_missing", dist.Normal(z, 0.5).mask(~mask).to_event(1))
            return z

    x = torch.tensor([[torch.nan], [0.5]], dtype=torch.float64)
    made = impute((model, guide), x, num_draws=40_000, num_imputations=2000, seed=0)
    scale = np.sqrt(1.25)
    ratio = norm.pdf(1 / scale) / norm.sf(1 / scale)
    exact = scale * ratio
    assert abs(made.mean[0, 0] - exact) < 4.5 * made.mean_se[0, 0]
    assert made.mean[0, 0] > 1
    assert (made.imputations[:, 0, 0] > 1).all()
    np.testing.assert_allclose(
        made.sd[0, 0], scale * np.sqrt(1 + ratio / scale - ratio**2), rtol=5 / np.sqrt(made.effective_sample_size[0])
    )


def test_structures_with_other_latents() -> None:
    """Unfitted networks: what is hidden because it is high is imputed higher, whatever stands there in the array."""
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    hidden_there = torch.where(torch.rand(20, 4, generator=torch.Generator().manual_seed(1)) < 0.4, torch.nan, x)
    means = {}
    for name in ("single", "not_at_random:known_sign=high", "m2:num_classes=3", "ladder:latent_dims=[2],hidden=[4]"):
        vae = VAE(VAEConfig(x_shape=(4,), latent_dim=2, likelihood="gaussian:scale=1.0", structure=name))
        vae.initialize(x)
        y = torch.tensor([0, -1] * 10) if name.startswith("m2") else None
        if name.startswith("not"):
            with torch.no_grad():
                vae.model.mechanism.raw_weight.fill_(3.0)
        made = impute(vae, hidden_there, y=y, num_draws=500, num_imputations=2, seed=0)
        assert np.isfinite(made.mean).all()
        assert np.isfinite(made.upper).all()
        means[name] = made.mean[made.missing].mean()
    # P(missing) rises by 3 in the logit for each unit: the mean of N(0, 1) weighted so is above 0.5.
    assert means["not_at_random:known_sign=high"] > means["single"] + 0.3


def test_wide_latents_are_drawn_for_fewer_data_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_pyro.densities.walk._LATENTS_AT_ONCE", 2 * 100 * 3)
    monkeypatch.setattr("vae_pyro.densities.programs.discovery._ROWS", 2)  # on which the programs are tried first
    sizes = []

    def model(x: Any = None, *, size: Any = None, mask: Any = None, y: Any = None) -> Tensor:
        return pair(TRUTH)[0](x, size=size, mask=mask, y=y)

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> Tensor:
        sizes.append(len(x))
        return pair(TRUTH)[1](x, mask=mask, y=y)

    impute((model, guide), TRUTH.sample(10, seed=1), mask=hidden(10, seed=2), num_draws=100)
    assert max(sizes) == 3


def test_an_infinite_variance_is_said() -> None:
    vae = VAE(VAEConfig(x_shape=(3,), latent_dim=2, likelihood={"name": "student_t", "df": 1.5, "scale": 1.0}))
    x = torch.tensor([[0.3, torch.nan, 1.0]])
    vae.initialize(x.nan_to_num())
    made = impute(vae, x, num_draws=100)
    assert np.isinf(made.sd[0, 1])
    assert np.isfinite(made.mean).all()


def test_a_draw_without_weight_spoils_no_moment() -> None:
    """E[x | z] = exp(30 z) overflows in float32 where the weight has underflowed to 0; what remains is z = 0."""

    def model(x=None, *, size=None, mask=None):  # type: ignore[no-untyped-def]
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            masked = dist.LogNormal(30 * z.expand(*z.shape[:-1], 2), 0.1).mask(True if mask is None else mask)
            return pyro.sample("x", masked.to_event(1), obs=x)

    def guide(x, *, mask=None):  # type: ignore[no-untyped-def]
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))

    made = impute((model, guide), torch.tensor([[1.0, torch.nan]]), num_draws=20_000, seed=0)
    # About 50 draws lie within a standard deviation of the posterior, 0.1 / 30: x is 1 with an sd of about 0.14.
    assert made.effective_sample_size[0] > 15
    assert abs(made.mean[0, 1] - np.exp(0.01)) < 6 * made.mean_se[0, 1] < 0.3
    assert 0.1 < made.sd[0, 1] < 0.2


def test_a_mask_beside_a_split_hides_as_well() -> None:
    x = TRUTH.sample(4, seed=0)
    one, other = torch.ones_like(x, dtype=torch.bool), torch.ones_like(x, dtype=torch.bool)
    one[:, 0], other[:, 1] = False, False
    split = Split(torch.where(one, x, 999.0), mask=one)
    made = impute(pair(TRUTH), split, mask=other, num_draws=20)
    np.testing.assert_array_equal(made.mask, (one & other).numpy())
    assert np.abs(made.mean).max() < 100


def test_a_row_of_which_nothing_is_observed_is_the_model() -> None:
    vae = VAE(VAEConfig(x_shape=(3,), latent_dim=2, likelihood="gaussian", encode_mask=True))
    blank = torch.full((1, 3), torch.nan)
    np.testing.assert_array_equal(impute(vae, blank, num_draws=50).mask, False)
    with pytest.raises(ValueError, match="shape"):
        impute(vae, torch.full((1, 4), torch.nan))


def test_images_bytes_and_random_observations() -> None:
    random = np.random.default_rng(0)
    grey = random.integers(0, 256, (6, 8, 8), dtype=np.uint8)
    split = replace(as_split(grey, random.random((6, 8, 8)) < 0.7), top=255.0, draw="binarize")
    vae = VAE(VAEConfig(x_shape=(8, 8), latent_dim=2, encode_mask=True))
    made = impute(vae, split, num_draws=50, num_imputations=1, seed=5)
    assert made.mean.dtype == np.float32
    assert made.imputations.shape == (1, 6, 8, 8)
    assert set(np.unique(made.mean[made.mask])) <= {0.0, 1.0}
    assert ((made.mean >= 0) & (made.mean <= 1)).all()


def test_complete_data_come_back() -> None:
    x = TRUTH.sample(4, seed=0)
    made = impute(pair(TRUTH), x, num_imputations=2)
    np.testing.assert_array_equal(made.mean, x)
    np.testing.assert_array_equal(made.imputations, np.stack([x, x]))
    assert np.isnan(made.effective_sample_size).all()
    assert str(made) == "4 data, nothing missing"
    assert made.summary()["n_incomplete"] == 0


def test_conditional_programs_get_their_labels() -> None:
    vae = VAE(VAEConfig(x_shape=(4,), latent_dim=2, likelihood="gaussian", structure="conditional:num_classes=3"))
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    x[:, 1] = torch.nan
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    vae.initialize(x.nan_to_num())
    made = impute(vae, x, y=y, num_draws=50, seed=0)
    other = impute(vae, x, y=y.flip(0), num_draws=50, seed=0)
    assert (made.mean[:, 1] != other.mean[:, 1]).any()
    with pytest.raises(ValueError, match="conditional"):
        impute(vae, x, num_draws=50)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_draws": 1}, "num_draws must be at least 2, got 1"),
        ({"num_imputations": -1}, "num_imputations must be at least 0, got -1"),
        ({"level": 1.0}, "level must lie between 0 and 1, got 1.0"),
        ({"mask": torch.ones(3, 5, dtype=torch.bool)}, "mask has shape"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        impute(pair(TRUTH), TRUTH.sample(4, seed=0), **options)


def test_dependent_elements_and_impossible_data_are_refused() -> None:
    x = TRUTH.sample(3, seed=0)
    x[2, 1] = torch.nan

    def dependent(x: Any = None, *, size: Any = None, mask: Any = None, y: Any = None) -> Tensor:
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1))
            joint = dist.MultivariateNormal(z @ TRUTH.weight.T, torch.eye(5, dtype=torch.float64))
            if x is not None:
                x = x.nan_to_num()
            return pyro.sample("x", joint if mask is None else joint.mask(mask.all(-1)), obs=x)

    with pytest.raises(ValueError, match="MultivariateNormal over .* depend on each other given z"):
        impute((dependent, pair(TRUTH)[1]), x)

    def impossible(x: Any = None, *, size: Any = None, mask: Any = None, y: Any = None) -> Tensor:
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1))
            loc = z @ TRUTH.weight.T
            element = dist.Uniform(0 * loc, 0 * loc + 1e-3)
            return pyro.sample("x", (element if mask is None else element.mask(mask)).to_event(1), obs=x)

    with pytest.raises(ValueError, match="1 data have importance weights that are all zero .* the first is 2"):
        impute((impossible, pair(TRUTH)[1]), x)
