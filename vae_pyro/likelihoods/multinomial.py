"""Counts given their total: the share of each element."""

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from vae_pyro.likelihoods.base import LIKELIHOODS
from vae_pyro.likelihoods.counts import Counts
from vae_pyro.likelihoods.exposure import NUM_TOTALS, EventCounts, log_shares, quantiles_of, shares_of, totals_of


class CountsGivenTotal(EventCounts):
    """Multinomial counts of an event of any shape; the density of x is that given its own total.

    ``log p(x | n) = lgamma(n + 1) - sum_j lgamma(x_j + 1) + sum_j x_j log p_j`` with ``n = sum_j x_j``, all sums over
    the observed elements and p renormalised over them, which is the exact conditional of a multinomial. It is computed
    in float64: its terms are as large as ``n log n``, itself a few nats.
    """

    @property
    def log_probs(self) -> Tensor:
        """log p of each element, shape of ``logits``."""
        return self._log_probs().to(self.logits.dtype)

    def _log_probs(self) -> Tensor:
        flat = self.logits.double().flatten(-self.event_dim)
        return flat.log_softmax(-1).reshape(self.logits.shape)

    @property
    def mean(self) -> Tensor:
        """Expected counts of a draw, the mean of the totals times p; shape of ``logits``."""
        return self.totals.mean() * self.log_probs.exp()

    @property
    def variance(self) -> Tensor:
        """Variance of a draw's counts: ``n p (1 - p)`` given the total, and that of the totals times p^2."""
        p, n = self.log_probs.exp(), self.totals.mean()
        return n * p * (1 - p) + self.totals.var(unbiased=False) * p**2

    def log_prob(self, value: Tensor) -> Tensor:
        kind = torch.promote_types(self.logits.dtype, value.dtype)
        value = self.visible(value).double()
        if self._validate_args:
            self._validate_sample(value)
        dims = list(range(-self.event_dim, 0))
        ways = torch.lgamma(value.sum(dims) + 1) - torch.lgamma(value + 1).sum(dims)
        return (ways + (value * self._log_probs()).sum(dims)).to(kind)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            totals = self.draw_totals(sample_shape)
            p = self._log_probs().exp().flatten(-self.event_dim)
            drawn = split_total(totals.round().double(), p)
            return self.visible(drawn.reshape(*totals.shape, *self.event_shape).to(self.logits.dtype))


def split_total(total: Tensor, p: Tensor) -> Tensor:
    """A multinomial draw: totals split in two by a binomial, each half again, down to single elements.

    The memory is that of the result, whatever the totals are.

    Args:
        total: integers, ``(*sample, *batch)``.
        p: probabilities, ``(*batch, element)``.

    Returns:
        Integers as floating-point numbers, ``(*sample, *batch, element)``, of which each row sums to its total.
    """
    elements = p.shape[-1]
    weights = [torch.nn.functional.pad(p, (0, (1 << (elements - 1).bit_length()) - elements))]
    while weights[-1].shape[-1] > 1:
        weights.append(weights[-1].unflatten(-1, (-1, 2)).sum(-1))
    counts = total.unsqueeze(-1)
    for weight in reversed(weights[:-1]):
        left, both = weight[..., ::2], weight[..., ::2] + weight[..., 1::2]
        share = torch.where(both > 0, left / both, torch.zeros_like(both)).clamp(0, 1)
        first = torch.binomial(counts, share.expand(counts.shape))
        counts = torch.stack([first, counts - first], -1).flatten(-2)
    return counts[..., :elements]


@LIKELIHOODS.register("multinomial", order=13)
class Multinomial(Counts):
    """Counts of a datum given their total; the decoder gives logits of the shares.

    Densities are those of x given its total, ``log p(x | z, n)`` with ``n = sum x``: those of Poisson counts with rates
    proportional to the shares, given their total. They are not comparable with densities that also say how
    large the total is. With elements unobserved they are given the total of those that are observed.

    A draw of new data has a total drawn from those of the training data, of which 512 quantiles are kept; an
    expectation is that of such a draw.

    Args:
        total: of draws: ``empirical``, or ``mean``, the mean of the training data rounded, for all of them.

    References:
        Liang et al. 2018, Variational autoencoders for collaborative filtering, eq. 2. arXiv:1802.05814
    """

    given_total = True
    totals: Tensor

    def __init__(self, x_shape: Sequence[int], *, total: Literal["empirical", "mean"] = "empirical") -> None:
        super().__init__(x_shape)
        self.total = total
        self.register_buffer("totals", torch.full((NUM_TOTALS,), float(prod(self.x_shape))))

    def forward(self, output: Tensor) -> TorchDistribution:
        """The distribution of each element alone, given a total of the rounded mean: a binomial."""
        logits = self.parameter(output, 0)
        shares = shares_of(logits, len(self.x_shape))
        return dist.Binomial(self.totals.mean().round(), probs=shares)

    def observed(self, output: Tensor, mask: Tensor | None = None) -> TorchDistribution:
        return CountsGivenTotal(self.parameter(output, 0), len(self.x_shape), self.totals, mask)

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        whole = totals_of(x, observed)
        if whole is not None:
            totals = quantiles_of(whole) if self.total == "empirical" else whole.mean().expand(NUM_TOTALS)
            self.totals.copy_(totals.round())
        return log_shares(x, observed).to(x.dtype).unsqueeze(0)

    def expectation(self, distribution: TorchDistribution) -> Tensor:
        assert isinstance(distribution, dist.Binomial)
        return self.totals.mean() * distribution.probs
