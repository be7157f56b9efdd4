"""Programs written elsewhere: log p(x) is that of quadrature or a closed form, or a sentence says why there is none."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn

from tests.foreign import PAIRS, bernoulli
from tests.odd import CASES, data, evidence, guide_in, plain
from vae_pyro import Pair, Split, evaluate, impute, log_densities
from vae_pyro.core.isolation import isolated
from vae_pyro.densities.pair import as_pair
from vae_pyro.densities.programs.running import Way
from vae_pyro.densities.programs.simulation import replicate, simulate
from vae_pyro.densities.walk import bind


def close(estimate: Any, exact: Tensor) -> None:
    """Within 4.5 standard errors of the average, beside the bias of the logarithm, half the squared error of each."""
    error = np.sqrt((estimate.log_px_se**2).sum()) / len(estimate)
    bias = (estimate.log_px_se**2).mean() / 2
    assert abs(estimate.log_px.mean() - float(exact.double().mean())) < 4.5 * error + bias + 1e-5
    assert estimate.elbo.mean() <= estimate.log_px.mean() + 1e-5


@pytest.mark.parametrize("name", PAIRS)
def test_log_px_of_foreign_pairs_is_that_of_quadrature(name: str) -> None:
    case = PAIRS[name]()
    close(evaluate(case.pair, case.x, y=case.y, num_draws=3000, seed=1), case.log_evidence)


@pytest.mark.filterwarnings("ignore:the programs run one particle after the other")
@pytest.mark.parametrize("name", CASES)
def test_odd_programs_are_right_or_refused(name: str) -> None:
    case = CASES[name]()
    if case.refused:
        with pytest.raises(ValueError, match=case.refused):
            evaluate(case.pair, case.x, mask=case.mask, num_draws=2)
    else:
        assert case.log_evidence is not None
        close(evaluate(case.pair, case.x, mask=case.mask, num_draws=2000, seed=2), case.log_evidence)


@pytest.mark.parametrize(
    ("name", "model_way", "guide_way"),
    [
        ("tutorial", Way.VECTORIZED, Way.VECTORIZED),
        ("semi_supervised", Way.VECTORIZED, Way.FOLDED),
        ("prodlda", Way.FOLDED, Way.VECTORIZED),
        ("recurrent", Way.FOLDED, Way.VECTORIZED),
        ("convolutional", Way.FOLDED, Way.VECTORIZED),
    ],
)
def test_particles_are_folded_only_where_programs_do_not_broadcast(name: str, model_way: Way, guide_way: Way) -> None:
    case = PAIRS[name]()
    found = as_pair(case.pair).programs(Split(case.x))
    assert (found.model_way, found.guide_way) == (model_way, guide_way)


def test_a_wrong_value_without_an_error_is_seen() -> None:
    """``sum(0)`` runs under a dimension of particles, over which it sums; data as further rows are right."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            loc = z.unsqueeze(0).expand(1, *z.shape).sum(0) if z.dim() == 1 else z.sum(0).expand_as(z)
            pyro.sample("x", dist.Normal(loc[..., None], 1.0).expand([*z.shape, 3]).to_event(1), obs=x)

    x = data()
    pair = Pair(model, guide_in())
    assert pair.programs(Split(x)).model_way is Way.FOLDED
    close(evaluate(pair, x, num_draws=2000), evidence(x))


def test_one_particle_after_the_other_is_said_once() -> None:
    case = CASES["at_most_seven_rows"]()
    pair = as_pair(case.pair)
    with pytest.warns(UserWarning, match="one particle after the other"):
        evaluate(pair, case.x, num_draws=10)
    evaluate(pair, case.x, num_draws=10)  # a second warning would be an error


# --- sites ------------------------------------------------------------------------------------------------------------


def test_several_observed_sites_are_summed_and_named() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("u", dist.Normal(z, 1.0), obs=x[:, 0])
            pyro.sample("v", dist.Normal(z[..., None], 1.0).expand([*z.shape, 2]).to_event(1), obs=x[:, 1:])

    x = data()
    bound = bind((model, guide_in()), x, seed=0)
    assert bound.programs.observed_names == bound.programs.data_sites == ("u", "v")
    close(evaluate((model, guide_in()), x, num_draws=2000), evidence(x))
    with isolated(0):
        drawn = simulate(bound.programs, 20_000).x
    # Each element has variance 2, each pair covariance 1; the errors are below 0.03.
    torch.testing.assert_close(drawn.T.cov(), torch.eye(3) + 1, atol=0.12, rtol=0)


def test_a_site_that_is_equal_to_x_on_a_few_rows_is_no_part_of_it() -> None:
    """Pixels that are all on, and a mask beside them; and parts of x that are observed as a copy of one another."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("mask", dist.Bernoulli(0.9).expand([*z.shape, 3]).to_event(1), obs=torch.ones(len(x), 3))
            pyro.sample("x", dist.Bernoulli(logits=z[..., None]).expand([*z.shape, 3]).to_event(1), obs=x)

    programs = as_pair((model, guide_in())).programs(Split(torch.ones(20, 3)))
    assert programs.data_sites == ("x",)
    assert set(programs.observed_names) == {"mask", "x"}


def test_a_plate_is_asked_for_where_two_follow_the_rows() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("first", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., None], 1.0).expand([*z.shape, 3]).to_event(1), obs=x)
        with pyro.plate("second", len(x), dim=-1):
            pyro.factor("nothing", torch.zeros(len(x)))

    x = data()
    with pytest.raises(ValueError, match=r"the plate over data may be 'first', 'second'; choose with .*plate='first'"):
        evaluate((model, guide_in("first")), x)
    with pytest.raises(ValueError, match="site 'nothing' of the model is under the plates 'second' and not in 'first'"):
        evaluate(Pair(model, guide_in("first"), plate="first"), x)


def test_a_model_that_observes_nothing_is_refused() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="the model observes nothing: its sites are z, none of them with obs="):
        evaluate((model, guide_in()), data())


def test_without_latents_log_px_is_exact() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        """No latent."""

    x = data()
    found = evaluate((model, guide), x, num_draws=3)
    exact = dist.Normal(torch.zeros(3), 1.0).to_event(1).log_prob(x)
    np.testing.assert_allclose(found.log_px, exact, rtol=1e-6)
    np.testing.assert_allclose(found.kl, 0)
    assert found.activity.shape == (0,)


def test_a_latent_whose_values_cannot_be_listed_is_refused() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Poisson(2.0))
            z = pyro.sample("z", dist.Normal(k, 1.0))
            pyro.sample("x", dist.Normal(z[..., None], 1.0).expand([*z.shape, 3]).to_event(1), obs=x)

    with pytest.raises(ValueError, match="latent site 'k' of the model is not in the guide.*cannot be listed"):
        evaluate((model, guide_in()), data())


def classes_of_z(x: Tensor) -> None:
    """z is drawn around one of two centres, -2 and 2, and x around z + 3 times the class."""
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Categorical(torch.tensor([0.3, 0.7])))
        z = pyro.sample("z", dist.Normal(4.0 * c - 2.0, 1.0))
        loc = (z + 3.0 * c)[..., None]
        pyro.sample("x", dist.Normal(loc, 1.0).expand([*z.shape, 3]).to_event(1), obs=x)


def test_a_class_that_latents_depend_on_is_summed_out_term_by_term() -> None:
    x, z = data(), torch.linspace(-3, 3, 7)[:, None].expand(7, 20)
    programs = as_pair((classes_of_z, guide_in())).programs(Split(x))
    scores = programs.score(x, {"z": z})
    share, centre, shift = torch.tensor([0.3, 0.7]), torch.tensor([-2.0, 2.0]), torch.tensor([0.0, 3.0])
    log_pz = torch.stack([dist.Normal(centre[c], 1.0).log_prob(z) + share[c].log() for c in (0, 1)])
    log_px = [dist.Normal((z + shift[c])[..., None], 1.0).log_prob(x).sum(-1) for c in (0, 1)]
    joint = (log_pz + torch.stack(log_px)).logsumexp(0)
    torch.testing.assert_close(scores.log_prior["z"], log_pz.logsumexp(0), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(scores.log_likelihood + scores.total_prior, joint, atol=1e-4, rtol=1e-5)


def test_replications_given_latents_draw_the_class_that_was_summed_out_from_its_posterior() -> None:
    x = data()
    programs = as_pair((classes_of_z, guide_in())).programs(Split(x))
    z = torch.full((4000, 20), 0.5)
    with isolated(0):
        drawn = replicate(programs, x, {"z": z}, 4000)
    weight = torch.tensor([0.3, 0.7]).log() + dist.Normal(torch.tensor([-2.0, 2.0]), 1.0).log_prob(torch.tensor(0.5))
    expected = 0.5 + 3.0 * float(weight.softmax(0)[1])
    assert abs(float(drawn.mean()) - expected) < 0.02  # 80,000 classes: an error of 0.004


def test_objectives_take_other_plates_and_count_auxiliary_sites_once() -> None:
    """`log_densities` takes any name of the plate, and counts an auxiliary site once."""

    def guide(x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            raw = pyro.sample("raw", dist.Normal(x.sum(-1) / 8, 0.3), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Delta(2 * raw, log_density=torch.full_like(raw, -np.log(2.0))))

    def model(x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., None], 1.0).expand([*z.shape, 3]).to_event(1), obs=x)

    x = data()
    with isolated(0):
        found = log_densities(model, guide, x, num_particles=4)
    expected = dist.Normal(x.sum(-1) / 4, 0.6).log_prob(found.latents["z"])
    torch.testing.assert_close(found.log_guide, expected, atol=1e-4, rtol=1e-4)
    assert list(found.latents) == ["z"]
    close(evaluate((model, guide), x, num_draws=2000), evidence(x))


# --- guides that are not amortized ------------------------------------------------------------------------------------


def test_an_autoguide_knows_its_own_rows_alone() -> None:
    case = PAIRS["automatic"]()
    with pytest.raises(ValueError, match="AutoNormal is not amortized: .* knows nothing of these 10 rows"):
        evaluate(case.pair, case.x[:10])
    fresh = AutoNormal(plain)
    with pytest.raises(ValueError, match="AutoNormal has not been set up"):
        evaluate((plain, fresh), case.x)
    assert fresh.prototype_trace is None


# --- data -------------------------------------------------------------------------------------------------------------


def test_missing_data_require_a_model_that_masks_them() -> None:
    x = data()
    x[4:9, 1] = torch.nan
    with pytest.raises(ValueError, match=r"5 elements of x are not observed .* the model takes no argument mask"):
        evaluate((plain, guide_in()), x)

    def masking(x: Tensor, mask: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            elements = dist.Normal(z[..., None], 1.0).expand([*z.shape, 3])
            pyro.sample("x", (elements if mask is None else elements.mask(mask)).to_event(1), obs=x)

    partly = dist.MultivariateNormal(torch.zeros(2), torch.eye(2) + 1).log_prob(x[:, [0, 2]])
    exact = torch.where(x[:, 1].isnan(), partly, evidence(x.nan_to_num()))
    close(evaluate((masking, guide_in()), x, num_draws=3000), exact)
    made = impute((masking, guide_in()), x, num_draws=20_000)
    np.testing.assert_allclose(made.mean[4:9, 1], x[4:9, [0, 2]].sum(1) / 3, atol=0.05)
    np.testing.assert_allclose(made.sd[4:9, 1], np.sqrt(4 / 3), rtol=0.03)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_one_datum_and_other_types(dtype: torch.dtype) -> None:
    x = data().to(dtype)[:1]
    close(evaluate((plain, guide_in()), x, num_draws=4000), evidence(x.float()))


def test_data_outside_the_support_are_refused_where_the_program_validates() -> None:
    def model(x: Tensor, validate: bool | None = None) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pixels = dist.Bernoulli(logits=z[..., None].expand(*z.shape, 3), validate_args=validate)
            pyro.sample("obs", pixels.to_event(1), obs=x)

    with isolated(0):
        grey = torch.rand(20, 3)
    with pytest.raises(ValueError, match="data are outside the support of the distribution at site 'obs': .*Boolean"):
        evaluate((model, guide_in()), 255 * grey)
    lenient = partial(model, validate=False)
    found = evaluate((lenient, guide_in()), grey, num_draws=2000)
    grid = torch.linspace(-8, 8, 4001)[:, None, None]
    log_joint = dist.Normal(0.0, 1.0).log_prob(grid[..., 0]) + bernoulli(grey, grid).sum(-1)
    close(found, log_joint.logsumexp(0) + np.log(16 / 4000))


def test_a_narrow_guide_is_no_guide_of_another_kind() -> None:
    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.sum(-1) / 4, 1e-4))

    found = as_pair((plain, guide)).programs(Split(data()))
    assert found.guide_way is Way.VECTORIZED


def test_no_data_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data of shape \(datum, \*x_shape\) expected, got \(0, 3\)"):
        evaluate((plain, guide_in()), data()[:0])


def test_classes_that_no_program_takes_or_one_requires_are_refused() -> None:
    with pytest.raises(ValueError, match="y is given, and neither program takes classes"):
        evaluate((plain, guide_in()), data(), y=torch.zeros(20, dtype=torch.int64))
    case = PAIRS["conditional"]()
    with pytest.raises(ValueError, match="the model requires labels beside the data; give it as y="):
        evaluate(case.pair, case.x)


# --- draws ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tutorial", "mixture", "conditional", "discrete", "recurrent"])
def test_data_are_drawn_by_leaving_a_batch_unobserved(name: str) -> None:
    """Data drawn at once, and as replications of the prior, which are run at particles, have the same means."""
    case = PAIRS[name]()
    programs = as_pair(case.pair).programs(Split(case.x, y=case.y))
    y = None if case.y is None else case.y.repeat(200)
    with isolated(3):
        first = simulate(programs, 4800, y=y).x.flatten(1)
    with isolated(4):
        second = replicate(programs, case.x, {}, 200, y=case.y).flatten(0, 1).flatten(1)
    error = ((first.var(0) + second.var(0)) / 4800).sqrt()
    assert first.shape == second.shape == (4800, case.x[0].numel())
    assert (((first.mean(0) - second.mean(0)).abs() / error) < 4.5).all()


def test_simulated_data_have_the_moments_of_the_model() -> None:
    case = PAIRS["mixture"]()
    programs = as_pair(case.pair).programs(Split(case.x))
    with isolated(0):
        drawn = simulate(programs, 40_000)
    assert list(drawn.latents) == ["z"]
    means, share = torch.tensor([[-2.0, 0.0], [1.0, 1.0], [2.0, -2.0]]), torch.tensor([0.5, 0.3, 0.2])
    torch.testing.assert_close(drawn.x.mean(0), share @ means, atol=0.05, rtol=0)
    between = (means.T * share) @ means - torch.outer(share @ means, share @ means)
    torch.testing.assert_close(drawn.x.T.cov(), between + 0.49 * torch.eye(2) + 1, atol=0.1, rtol=0)


def test_a_model_that_reads_x_is_evaluated_and_draws_no_data() -> None:
    """Each element is drawn around the one before it, of the x that was given."""

    def model(x: Tensor) -> None:
        before = torch.cat([torch.zeros(len(x), 1), x[:, :-1]], 1)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., None] + 0.5 * before, 1.0).to_event(1), obs=x)

    x = data()
    innovations = x - 0.5 * torch.cat([torch.zeros(20, 1), x[:, :-1]], 1)
    close(evaluate((model, guide_in()), x, num_draws=3000), evidence(innovations))
    with pytest.raises(ValueError, match=r"p\(x \| z\) at site 'x' depends on x itself"):
        simulate(as_pair((model, guide_in())).programs(Split(x)), 10)


# --- modes and state --------------------------------------------------------------------------------------------------


class Normalised(nn.Module):
    """Encoder with batch normalisation and dropout, decoder with a counter that moves in any mode."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.register_buffer("calls", torch.zeros(()))

    def model(self, x: Tensor) -> None:
        assert isinstance(self.calls, Tensor)
        self.calls += 1
        plain(x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.sum(-1) / 4 + 0.2 * self.encoder(x).squeeze(-1), 0.6))


def wrapped(kind: str, programs: Normalised) -> tuple[Callable[..., Any], Callable[..., Any]]:
    held = {"deep": [programs]}
    if kind == "methods":
        return programs.model, programs.guide
    if kind == "closures":

        def model(x: Tensor) -> None:
            programs.model(x)

        def guide(x: Tensor) -> None:
            held["deep"][0].guide(x)

        return model, guide
    return poutine.scale(programs.model, scale=0.5), poutine.scale(programs.guide, scale=0.5)


@pytest.mark.parametrize("kind", ["methods", "closures", "handlers"])
def test_estimates_run_in_evaluation_mode_and_leave_modules_as_they_were(kind: str) -> None:
    with isolated(0):
        programs = Normalised()
    programs.encoder[3].eval()
    before = {name: value.clone() for name, value in programs.state_dict().items()}
    modes = [module.training for module in programs.modules()]
    x = data()
    among = evaluate(wrapped(kind, programs), x, num_draws=4000, seed=1)
    alone = evaluate(wrapped(kind, programs), x[:5], num_draws=4000, seed=1)
    close(among, evidence(x))
    difference = among.elbo[:5] - alone.elbo
    assert (np.abs(difference) < 4.5 * np.hypot(among.elbo_se[:5], alone.elbo_se)).all()
    assert modes == [module.training for module in programs.modules()]
    for name, value in programs.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_modes_come_back_after_an_exception() -> None:
    with isolated(0):
        programs = Normalised()

    def guide(x: Tensor) -> None:
        programs.guide(x)
        raise RuntimeError("no more")

    with pytest.raises(ValueError, match="the guide cannot be run on 5 rows of the data, .*RuntimeError: no more"):
        evaluate((programs.model, guide), data())
    assert all(module.training for module in programs.modules())
    assert float(programs.calls) == 0  # type: ignore[arg-type]
    assert int(programs.encoder[1].num_batches_tracked) == 0  # type: ignore[arg-type]
