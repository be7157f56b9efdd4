"""Fits of layers, their combination with priors and objectives, and refusals."""

from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO

from tests.vae_pyro.models.hierarchies import KINDS, data, small
from vae_pyro import FitConfig, fit
from vae_pyro.core.isolation import isolated
from vae_pyro.densities.log_density import log_densities
from vae_pyro.models.structures.bottom_up import BottomUpGuide
from vae_pyro.models.structures.ladder import LadderGuide
from vae_pyro.models.structures.layered import LayeredModel, layer_names
from vae_pyro.runs.folder import RunFolder


@pytest.mark.parametrize("kind", KINDS)
def test_stock_pyro_takes_the_pair_as_it_stands(kind: str, own_store: None) -> None:
    vae, x = small(kind), data(40)
    before = [parameter.detach().clone() for parameter in vae.parameters()]
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    losses = [svi.step(x) for _ in range(60)]
    assert np.mean(losses[-15:]) < np.mean(losses[:15])
    # The two programs share no name in Pyro's store, where the second would silently get the first's values.
    assert len(pyro.get_param_store()) == len(before)
    assert all(not torch.equal(old, new) for old, new in zip(before, vae.parameters(), strict=True))
    drawn = Predictive(vae.model, num_samples=3)(size=4)
    assert set(drawn) == {"x", "z", "z2", "z3"}
    assert poutine.trace(vae.guide).get_trace(x).nodes["z3"]["value"].shape == (40, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_fit_takes_the_stock_steps(kind: str) -> None:
    x, config = data(64).float(), FitConfig(epochs=3, batch_size=16, optimizer="adam:lr=3e-3")
    fits = [
        fit(small(kind).float(), x, config=config.replace(compile=compiled), seed=0, progress=False)
        for compiled in (True, False)
    ]
    for one, two in zip(*(found.history for found in fits), strict=True):
        np.testing.assert_allclose(one["elbo"], two["elbo"], rtol=1e-4)
    assert fits[0].history[-1]["elbo"] > fits[0].history[0]["elbo"]


@pytest.mark.parametrize("objective", ["iwae:num_particles=3", "stl", "dreg:num_particles=3"])
@pytest.mark.parametrize("kind", KINDS)
def test_objectives_of_importance_weights_take_layers(kind: str, objective: str) -> None:
    config = FitConfig(epochs=4, batch_size=32, objective=objective, compile=False)
    history = fit(small(kind).float(), data(256).float(), config=config, seed=0, progress=False).history
    assert history[-1]["bound"] > history[0]["bound"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_layers_is_read_back(kind: str, tmp_path: Path) -> None:
    x, vae = data(32).float(), small(kind).float()
    fit(vae, x, config=FitConfig(epochs=1, compile=False), out=tmp_path / "run")
    again = RunFolder(tmp_path / "run").load_model()
    assert again.config == vae.config
    torch.testing.assert_close(again.reconstruct(x, seed=3), vae.reconstruct(x, seed=3), rtol=0, atol=0)


def test_a_prior_made_of_posteriors_sits_on_top_of_a_ladder() -> None:
    vae, x = small("ladder", prior="vamp:components=5"), data(32)
    vae.initialize(x)
    with isolated(0), torch.no_grad():
        densities = log_densities(vae.model, vae.guide, x, num_particles=2)
        components: Any = vae.guide.encode_features(vae.model.prior.pseudo_inputs)  # type: ignore[arg-type]
        each = components.log_prob(densities.latents["z3"].unsqueeze(-2))
    torch.testing.assert_close(densities.sites["z3"][0], each.logsumexp(-1) - log(5))


@pytest.mark.parametrize("prior", ["mixture:components=3", "flow"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_other_prior_sits_on_top(kind: str, prior: str) -> None:
    vae = small(kind, prior=prior)
    with isolated(0), torch.no_grad():
        densities = log_densities(vae.model, vae.guide, data(), num_particles=2)
        expected = vae.model.prior(vae.guide.encode_features).log_prob(densities.latents["z3"])
    torch.testing.assert_close(densities.sites["z3"][0], expected)
    assert vae.sample(3, seed=0).shape == (3, 6)


def test_what_cannot_be_combined_is_refused() -> None:
    with pytest.raises(ValueError, match="choose structure 'ladder' or prior 'mixture'"):
        small("bottom_up", prior="vamp")
    with pytest.raises(ValueError, match="posterior 'full_rank' is none; choose 'mean_field'"):
        small("ladder", posterior="full_rank")
    with pytest.raises(ValueError, match="prior 'flow' requires latent_dim >= 2, got 1"):
        small("bottom_up", prior="flow", structure="bottom_up:latent_dims=[3,1]")
    with pytest.raises(ValueError, match=r"hidden=\[\[7\], \[6\]\] requires a list of widths for each of the 1 layers"):
        small("ladder", structure="ladder:latent_dims=[2],hidden=[[7],[6]]")
    with pytest.raises(ValueError, match="latent_dims"):
        small("ladder", structure="ladder:latent_dims=[]")
    with pytest.raises(ValueError, match="no q\\(z | x\\) in closed form"):
        small("ladder").encode(data())
    y = torch.zeros(9, dtype=torch.int64)
    with pytest.raises(ValueError, match="not conditional"), isolated(0):
        small("ladder").guide(data(), y=y)
    with pytest.raises(ValueError, match="not conditional"), isolated(0):
        small("bottom_up").model(data(), y=y)


def test_widths_are_for_all_layers_or_for_each_and_are_mirrored() -> None:
    vae = small("bottom_up", structure="bottom_up:latent_dims=[3,2],hidden=[7,5]")
    model, guide = vae.model, vae.guide
    assert isinstance(model, LayeredModel)
    assert isinstance(guide, BottomUpGuide)
    widths = [[m.out_features for m in layer.modules() if isinstance(m, torch.nn.Linear)] for layer in guide.upward]
    assert widths == [[7, 5, 6], [7, 5, 4]]
    down = [[m.out_features for m in layer.modules() if isinstance(m, torch.nn.Linear)] for layer in model.layers]
    assert down == [[5, 7, 8], [5, 7, 6]]
    assert layer_names(3) == ("z", "z2", "z3") == model.names == guide.names
    assert isinstance(small("ladder").guide, LadderGuide)
