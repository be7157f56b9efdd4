"""log p(x) of counts given their total as exposure is compared with its like alone."""

import pytest

from analysis.density.comparability import require_comparable
from analysis.density.elpd import elpd_of
from tests.vae_pyro.likelihoods.counts import topics
from vae_pyro import VAE, VAEConfig


def test_estimates_with_an_exposure_are_compared_with_their_like_alone() -> None:
    x = topics(40)
    found = {}
    for text in ("poisson", "poisson:exposure=total", "negative_binomial:exposure=total", "multinomial"):
        vae = VAE(VAEConfig(x_shape=(12,), latent_dim=2, likelihood=text, encoder="mlp:hidden=[8]"), seed=0)
        vae.initialize(x)
        found[text] = elpd_of(vae, x, num_draws=30)
    ours = found["poisson:exposure=total"]
    assert ours.measure == "probability given the total as exposure"
    require_comparable("a", ours, "b", found["negative_binomial:exposure=total"])
    for other in ("poisson", "multinomial"):
        with pytest.raises(ValueError, match="given the total as exposure.*counts given their total or an exposure"):
            require_comparable("a", ours, "b", found[other])
