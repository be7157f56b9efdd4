"""Objectives that treat the KL otherwise: weighted, bounded, taken apart, or with a penalty on the aggregate posterior.

The aggregate is q(z) = E over data of q(z | x); each of these estimates it from the minibatch.
"""

from collections.abc import Iterator
from math import log
from typing import Annotated, Literal

import torch
from pydantic import Field
from pyro.distributions import Independent, TorchDistribution
from torch import Tensor
from torch.distributions import kl_divergence

from vae_pyro.densities.log_densities import Ledger
from vae_pyro.objectives.base import OBJECTIVES, LedgerELBO, Particles

type Weight = Annotated[float, Field(ge=0)]


def _factors(distribution: TorchDistribution) -> TorchDistribution | None:
    """The univariate distributions of a product over one event dimension, else ``None``."""
    if isinstance(distribution, Independent) and distribution.reinterpreted_batch_ndims == 1:
        base = distribution.base_dist
        return None if base.event_shape else base
    return None


def conditional_sites(ledger: Ledger) -> set[str]:
    """Sites whose closed KL, given the draws of the other sites, averages to E_q[log q - log p] of that site.

    Those whose prior depends on nothing that the guide draws later: for layers, all of a guide that goes down (each KL
    is conditional on the layers above), and the topmost alone of one that goes up. KL(q(z | x) || p(z | z2)) at a z2
    drawn for that very z is another quantity: it takes a fresh z, of which z2 knows nothing. (With an exact guide it is
    too large, by Jeffreys' divergence of q(z, z2 | x) from the product of its marginals.)

    Args:
        ledger: its ``latents`` are in the order of the guide, its ``distributions`` in that of the model.
    """
    place = {name: number for number, name in enumerate(ledger.latents)}
    found, latest = set(), -1
    for name in ledger.distributions:
        if place[name] > latest:
            found.add(name)
        latest = max(latest, place[name])
    return found


def _terms(ledger: Ledger) -> Iterator[Tensor]:
    """E_q[log q - log p] of each site: its KL in the closed form where there is one, see `conditional_sites`.

    Yields:
        ``(datum, dimension)`` where both distributions are products, with a closed KL or, for sites that are not
        conditional, the draws' own; ``(datum, 1)`` else.
    """
    conditional = conditional_sites(ledger)
    for name, (prior, guide) in ledger.distributions.items():
        of_prior, of_guide = _factors(prior), _factors(guide)
        try:
            if name not in conditional:
                raise NotImplementedError
            if of_prior is not None and of_guide is not None:
                kl = kl_divergence(of_guide, of_prior)
            else:
                kl = kl_divergence(guide, prior).unsqueeze(-1)
        except NotImplementedError:
            if name not in conditional and of_prior is not None and of_guide is not None:
                draw = ledger.latents[name]
                kl = of_guide.log_prob(draw) - of_prior.log_prob(draw)
            else:
                log_p, log_q = ledger.sites[name]
                kl = (log_q - log_p).unsqueeze(-1)
        yield kl.mean(0)


def _only_site(ledger: Ledger, objective: str) -> tuple[Tensor, TorchDistribution, TorchDistribution]:
    """Draws, prior and guide of the one latent site."""
    if len(ledger.distributions) != 1:
        raise ValueError(f"{objective!r} wants one latent site, got {', '.join(ledger.distributions) or 'none'}")
    ((name, (prior, guide)),) = ledger.distributions.items()
    return ledger.latents[name], prior, guide


@OBJECTIVES.register("beta")
class Beta(LedgerELBO):
    """beta-VAE: ``E_q[log p(x | z)] - beta KL(q(z | x) || p(z))``, the KL from draws.

    Args:
        num_particles: draws of z for each datum.
        beta: weight of the KL, beside ``kl_weight``.

    References:
        Higgins et al. 2017, beta-VAE, eq. 4.
    """

    def __init__(self, *, num_particles: Particles = 1, beta: Weight = 4.0) -> None:
        super().__init__(num_particles=num_particles)
        self.beta = beta

    def bound(self, ledger: Ledger) -> Tensor:
        kl = ledger.log_guide - ledger.log_prior
        return (ledger.log_likelihood - self.beta * ledger.kl_weight * kl).mean(0)


@OBJECTIVES.register("capacity")
class Capacity(LedgerELBO):
    """Controlled capacity: ``E_q[log p(x | z)] - gamma |KL - C|``, with C raised during the fit.

    The absolute value is that of the minibatch mean of the KL, as in disentanglement_lib: so C is the information
    that the code carries about a datum *on average*, and data may share it unevenly. (The equation as printed is that
    of one datum.) The KL is closed where it can be. ``kl_weight`` multiplies the penalty.

    Args:
        num_particles: draws of z for each datum.
        gamma: weight of the penalty.
        capacity: C in nats.

    Attributes:
        capacity: C as a 0-d tensor; a schedule moves it by ``objective.capacity.fill_(...)``.

    References:
        Burgess et al. 2018, Understanding disentangling in beta-VAE, eq. 8. arXiv:1804.03599
        Locatello et al. 2019, Challenging common assumptions in the unsupervised learning of disentangled
        representations (disentanglement_lib). arXiv:1811.12359
    """

    capacity: Tensor

    def __init__(self, *, num_particles: Particles = 1, gamma: Weight = 100.0, capacity: Weight = 25.0) -> None:
        super().__init__(num_particles=num_particles)
        self.gamma = gamma
        self.capacity = torch.tensor(capacity, dtype=torch.float32)

    def bound(self, ledger: Ledger) -> Tensor:
        kl = torch.stack([term.sum(-1).mean(0) for term in _terms(ledger)]).sum()
        penalty = self.gamma * (kl - self.capacity).abs()
        return ledger.log_likelihood.mean(0) - ledger.kl_weight * penalty


@OBJECTIVES.register("free_bits")
class FreeBits(LedgerELBO):
    """Free bits: ``E_q[log p(x | z)] - sum_j max(lambda, KL_j)``, ``KL_j`` the minibatch mean of latent dimension j.

    A dimension below the floor has no gradient from its KL, so that it need not collapse early. Where prior and guide
    are not both products over dimensions (full rank, flow, mixture prior), the KL cannot be split and the floor is one
    for the whole site. ``kl_weight`` multiplies the floored sum.

    In several layers, KL_j is that of the conditional distributions, given the draws of the layers above. A guide that
    goes up (structure ``bottom_up``) has such a KL in the topmost layer alone; below it, what is floored is the draws'
    ``E_q[log q(z_l | z_(l-1)) - log p(z_l | z_(l+1))]``, the layer's part of the rate, which may be negative.

    Args:
        num_particles: draws of z for each datum.
        nats: lambda, the floor of each dimension, or of each layer.
        per: ``dimension``, or ``layer``: one floor for the sum over a site's dimensions.

    References:
        Kingma et al. 2016, Improved variational inference with inverse autoregressive flow, eq. 15. arXiv:1606.04934
    """

    def __init__(
        self,
        *,
        num_particles: Particles = 1,
        nats: Weight = 0.25,
        per: Literal["dimension", "layer"] = "dimension",
    ) -> None:
        super().__init__(num_particles=num_particles)
        self.nats, self.per = nats, per

    def bound(self, ledger: Ledger) -> Tensor:
        terms = [term.sum(-1, keepdim=True) if self.per == "layer" else term for term in _terms(ledger)]
        floored = torch.stack([term.mean(0).clamp(min=self.nats).sum() for term in terms]).sum()
        return ledger.log_likelihood.mean(0) - ledger.kl_weight * floored


@OBJECTIVES.register("beta_tcvae")
class BetaTCVAE(LedgerELBO):
    """beta-TCVAE: the KL as mutual information, total correlation and dimension-wise KL, each with its weight.

    ``E_q[log p(x | z)] - alpha I(x; z) - beta KL(q(z) || prod_j q(z_j)) - gamma (sum_j log q(z_j) - log p(z))``; with
    all weights 1 it is the ELBO, whatever the estimate of q(z), which cancels. q(z) is estimated by minibatch weighted
    sampling, ``log q(z_i) ~ log 1/(N B) sum_j q(z_i | x_j)`` over the batch of B, and likewise for each dimension.

    Both estimates fall short, by log N where the posteriors overlap so much that the own one does not stand out, and
    by log B where it stands alone. So for D dimensions the total correlation comes out too *high* by between
    (D - 1) log B and (D - 1) log N, to O(1 / B), which is itself positive for narrow posteriors, since the own one is
    always in the sum and weighs more in the joint than in the marginals; the mutual information is too high by up to
    log N, and the dimension-wise KL too low by up to D log N. The parts in N are constants without a gradient.

    Args:
        num_particles: draws of z for each datum.
        dataset_size: N, number of training data.
        alpha: weight of the mutual information.
        beta: weight of the total correlation.
        gamma: weight of the dimension-wise KL.

    References:
        Chen et al. 2018, Isolating sources of disentanglement in variational autoencoders, the decomposition and
        minibatch weighted sampling. arXiv:1802.04942
    """

    def __init__(
        self,
        *,
        num_particles: Particles = 1,
        dataset_size: Annotated[int, Field(ge=1)],
        alpha: Weight = 1.0,
        beta: Weight = 6.0,
        gamma: Weight = 1.0,
    ) -> None:
        super().__init__(num_particles=num_particles)
        self.dataset_size = dataset_size
        self.alpha, self.beta, self.gamma = alpha, beta, gamma

    def parts(self, ledger: Ledger) -> tuple[Tensor, Tensor, Tensor]:
        """Mutual information, total correlation and dimension-wise KL of each draw, ``(particle, datum)``, in nats.

        Raises:
            ValueError: several latent sites, or a guide that is not a product over dimensions.
        """
        draw, _, guide = _only_site(ledger, "beta_tcvae")
        factors = _factors(guide)
        if factors is None:
            raise ValueError(
                f"objective 'beta_tcvae' wants a guide that is a product over latent dimensions, got "
                f"{type(guide).__name__}; choose posterior 'mean_field'"
            )
        # (datum i, particle, datum j, dimension): log q(z_i | x_j)
        pairs = factors.log_prob(draw.transpose(0, 1).unsqueeze(2))
        size = log(self.dataset_size * draw.shape[1])
        joint = (torch.logsumexp(pairs.sum(-1), 2) - size).T
        marginal = (torch.logsumexp(pairs, 2) - size).sum(-1).T
        return ledger.log_guide - joint, joint - marginal, marginal - ledger.log_prior

    def bound(self, ledger: Ledger) -> Tensor:
        information, correlation, dimensions = self.parts(ledger)
        penalty = self.alpha * information + self.beta * correlation + self.gamma * dimensions
        return (ledger.log_likelihood - ledger.kl_weight * penalty).mean(0)


@OBJECTIVES.register("dip")
class DIP(LedgerELBO):
    """DIP-VAE: the ELBO less ``lambda_od sum_(i != j) C_ij^2 + lambda_d sum_i (C_ii - 1)^2``.

    C is, for kind ``i``, the covariance over data of the posterior means, and for ``ii`` that of the aggregate,
    ``Cov[mean] + E[covariance]``; both with 1/B over the minibatch of B. The target I is that of a standard normal
    prior, and the penalty has no ``kl_weight``.

    Args:
        num_particles: draws of z for each datum.
        kind: ``i`` or ``ii``.
        lambda_od: weight of the off-diagonal entries.
        lambda_d: weight of the diagonal.

    References:
        Kumar, Sattigeri & Balakrishnan 2018, Variational inference of disentangled latent concepts from unlabeled
        observations, DIP-VAE-I and -II. arXiv:1711.00848
    """

    def __init__(
        self,
        *,
        num_particles: Particles = 1,
        kind: Literal["i", "ii"] = "ii",
        lambda_od: Weight = 10.0,
        lambda_d: Weight = 10.0,
    ) -> None:
        super().__init__(num_particles=num_particles)
        self.kind, self.lambda_od, self.lambda_d = kind, lambda_od, lambda_d

    def penalty(self, ledger: Ledger) -> Tensor:
        """What is taken off the mean ELBO of a datum, 0-d.

        Raises:
            ValueError: several latent sites, or a guide without moments in closed form.
        """
        _, _, guide = _only_site(ledger, "dip")
        try:
            mean, variance = guide.mean[0], guide.variance[0]  # the same for every particle
        except NotImplementedError:
            raise ValueError(
                f"objective 'dip' wants a guide whose mean and variance are closed, got {type(guide).__name__}; choose "
                "posterior 'mean_field' or 'full_rank'"
            ) from None
        mean, variance = mean.reshape(len(mean), -1), variance.reshape(len(mean), -1)
        centred = mean - mean.mean(0)
        covariance = centred.T @ centred / len(mean)
        if self.kind == "ii":
            full = getattr(guide, "covariance_matrix", None)
            covariance = covariance + (torch.diag_embed(variance) if full is None else full[0]).mean(0)
        diagonal = covariance.diagonal()
        off = covariance - torch.diag_embed(diagonal)
        return self.lambda_od * (off**2).sum() + self.lambda_d * ((diagonal - 1) ** 2).sum()

    def bound(self, ledger: Ledger) -> Tensor:
        return ledger.log_weight.mean(0) - self.penalty(ledger)


@OBJECTIVES.register("infovae")
class InfoVAE(LedgerELBO):
    """InfoVAE: ``E_q[log p(x | z)] - (1 - alpha) KL(q(z | x) || p(z)) - (alpha + lambda - 1) MMD^2(q(z), p(z))``.

    The KL is from draws. MMD^2 is the unbiased estimate (it can be negative) between the batch's draws and as many from
    the prior, particle by particle, with the inverse multiquadric kernel ``k(a, b) = c / (c + |a - b|^2)``, c = 2 D. It
    has no ``kl_weight``, and a batch of one datum has none of it. A prior without reparameterised draws (a mixture)
    learns from the KL alone.

    Args:
        num_particles: draws of z for each datum.
        alpha: at most 1; what the mutual information of x and z is favoured by. 1 leaves the MMD alone.
        lambda_: weight of the divergence of the aggregate, at least ``1 - alpha``.

    Raises:
        ValueError: ``alpha + lambda_ < 1``, which would reward a distance from the prior.

    References:
        Zhao, Song & Ermon 2019, InfoVAE, the objective and its MMD form. arXiv:1706.02262
        Gretton et al. 2012, A kernel two-sample test, JMLR 13, eq. 3 (the unbiased estimate).
        Tolstikhin et al. 2018, Wasserstein auto-encoders, sec. 4 (the kernel). arXiv:1711.01558
    """

    def __init__(
        self,
        *,
        num_particles: Particles = 1,
        alpha: Annotated[float, Field(le=1)] = 0.0,
        lambda_: Annotated[float, Field(gt=0)] = 100.0,
    ) -> None:
        if alpha + lambda_ < 1:
            raise ValueError(f"objective 'infovae' wants alpha + lambda_ >= 1, got {alpha:g} + {lambda_:g}")
        super().__init__(num_particles=num_particles)
        self.alpha, self.lambda_ = alpha, lambda_

    def divergence(self, ledger: Ledger) -> Tensor:
        """MMD^2 between aggregate and prior, 0-d."""
        draw, prior, _ = _only_site(ledger, "infovae")
        draw = draw.reshape(*draw.shape[:2], -1)
        sample = (prior.rsample() if prior.has_rsample else prior.sample()).reshape(draw.shape)
        return mmd(draw, sample).mean()

    def bound(self, ledger: Ledger) -> Tensor:
        kl = ledger.log_guide - ledger.log_prior
        bound = (ledger.log_likelihood - (1 - self.alpha) * ledger.kl_weight * kl).mean(0)
        if len(bound) < 2:
            return bound
        return bound - (self.alpha + self.lambda_ - 1) * self.divergence(ledger)


def mmd(a: Tensor, b: Tensor) -> Tensor:
    """Unbiased squared maximum mean discrepancy, inverse multiquadric kernel ``c / (c + |a - b|^2)``, c = 2 dimension.

    Args:
        a: draws, shape ``(*batch, n, dimension)``, n at least 2.
        b: draws from the other distribution, same shape.

    Returns:
        Shape ``(*batch,)``; its expectation is zero where the distributions are equal, and positive elsewhere.

    References:
        Gretton et al. 2012, A kernel two-sample test, JMLR 13, eq. 3.
    """
    count, scale = a.shape[-2], 2 * a.shape[-1]

    def kernel(left: Tensor, right: Tensor) -> Tensor:
        square = ((left.unsqueeze(-2) - right.unsqueeze(-3)) ** 2).sum(-1)
        return scale / (scale + square)

    within = kernel(a, a).sum((-1, -2)) + kernel(b, b).sum((-1, -2)) - 2 * count  # k(a, a) = 1 is not a pair
    return within / (count * (count - 1)) - 2 * kernel(a, b).mean((-1, -2))
