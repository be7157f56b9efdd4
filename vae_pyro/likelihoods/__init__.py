"""Likelihoods p(x | z) by name; importing this folder registers all of them."""

from vae_pyro.likelihoods.base import LIKELIHOODS, Likelihood, fits
from vae_pyro.likelihoods.binary import Bernoulli, ContinuousBernoulliLikelihood
from vae_pyro.likelihoods.classes import Categorical, DiscretizedLogisticLikelihood
from vae_pyro.likelihoods.counts import Counts, NegativeBinomial, Poisson
from vae_pyro.likelihoods.location_scale import Gaussian, Laplace, LocationScale, StudentT
from vae_pyro.likelihoods.multinomial import Multinomial
from vae_pyro.likelihoods.table import Table
from vae_pyro.likelihoods.zero_inflated import ZeroInflatedNegativeBinomial, ZeroInflatedPoisson

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulliLikelihood",
    "Counts",
    "DiscretizedLogisticLikelihood",
    "Gaussian",
    "Laplace",
    "Likelihood",
    "LocationScale",
    "Multinomial",
    "NegativeBinomial",
    "Poisson",
    "StudentT",
    "Table",
    "ZeroInflatedNegativeBinomial",
    "ZeroInflatedPoisson",
    "fits",
]
