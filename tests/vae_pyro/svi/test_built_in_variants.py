"""A step of every built-in variant is traced and agrees with the stock step, but for those of a documented table."""

from typing import Any

import pyro
import pytest
import torch
from torch import Tensor

from tests.vae_pyro.likelihoods.test_attributes import OPTIONS
from vae_pyro import VAE, VAEConfig
from vae_pyro.core.isolation import seeded
from vae_pyro.likelihoods import LIKELIHOODS
from vae_pyro.models.posteriors import POSTERIORS
from vae_pyro.models.priors import PRIORS
from vae_pyro.nn import DECODERS, ENCODERS
from vae_pyro.objectives import OBJECTIVES
from vae_pyro.svi.compiled_svi import CompiledSVI

# Variants whose steps are stock steps, with the reason.
STOCK: dict[str, str] = {}
# What an objective requires of the model, and its own options.
STRUCTURES = {"m2": "m2:num_classes=3"}
OF_OBJECTIVES = {"beta_tcvae": {"dataset_size": 100}}
CASES = [
    *(("prior", name) for name in PRIORS),
    *(("posterior", name) for name in POSTERIORS),
    *(("likelihood", name) for name in LIKELIHOODS),
    *(("encoder", name) for name in ENCODERS),
    *(("decoder", name) for name in DECODERS),
    *(("objective", name) for name in OBJECTIVES),
]


def data_of(vae: VAE, shape: tuple[int, ...]) -> Tensor:
    with seeded(3), torch.no_grad():
        likelihood = vae.model.likelihood
        return likelihood.observed(0.3 * torch.randn(6, *likelihood.output_shape)).sample().float()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_the_step_of_a_built_in_variant_is_traced(kind: str, name: str) -> None:
    image = kind in ("encoder", "decoder") and name != "mlp"
    shape = (1, 8, 8) if image else (2,)
    options: dict[str, Any] = {"likelihood": "gaussian", "encoder": "mlp:hidden=[4]", "decoder": "mlp:hidden=[4]"}
    if kind == "objective":
        options["structure"] = STRUCTURES.get(name, "single")
    else:
        options[kind] = {"name": name, **OPTIONS.get(name, {})} if kind == "likelihood" else name
    vae = VAE(VAEConfig(x_shape=shape, latent_dim=2, **options), seed=0)
    x = data_of(vae, shape)
    vae.initialize(x)
    chosen = name if kind == "objective" else "elbo"
    objective: Any = OBJECTIVES.build(OBJECTIVES.resolve({"name": chosen, **OF_OBJECTIVES.get(chosen, {})}))
    given = {"y": torch.tensor([0, 1, 2, -1, -1, 0])} if vae.num_classes else {}
    optimizer = torch.optim.SGD(vae.parameters(), lr=1e-4)
    svi = CompiledSVI(vae.model, vae.guide, optimizer, objective, compile=False)
    # A step that cannot be traced warns, and a warning is an error here.
    with seeded(5), pyro.get_param_store().scope():
        for _ in range(2):
            svi.step(x, **given)
    status = svi.status()
    assert (status.stock_steps > 1) == (f"{kind} {name}" in STOCK), str(status)
