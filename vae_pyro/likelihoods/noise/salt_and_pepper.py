"""Salt and pepper: elements that are replaced by the lowest or the highest level."""

from typing import Annotated, Any

import pyro.distributions as dist
import torch
from pydantic import Field
from pyro.distributions import TorchDistribution
from torch import Tensor

from vae_pyro.data.summary import DataSummary
from vae_pyro.likelihoods.base import Likelihood
from vae_pyro.likelihoods.bernoulli import Bernoulli
from vae_pyro.likelihoods.categorical import Categorical
from vae_pyro.likelihoods.discretized_logistic import DiscretizedLogisticLikelihood
from vae_pyro.likelihoods.noise.base import NOISES, Noise
from vae_pyro.likelihoods.noise.mixtures import AtomMixture, OrderedCategorical

# The share of a class in clean data is kept above this when it starts the output bias.
_LEAST_SHARE = 1e-4


@NOISES.register("salt_and_pepper", order=3)
class SaltAndPepper(Noise):
    """An element is replaced with a probability, by the lowest level or the highest, each in half of the cases.

    A value between the ends was kept for certain. At an end it was kept with probability
    ``(1 - p) s(x) / ((1 - p) s(x) + p / 2)``, where s is the signal's; one that was replaced says nothing of the clean
    one, which has the signal's distribution.

    Args:
        signal: p(x_clean | z) of levels or classes, of which the first and the last are the ends.
        probability: of being replaced.
    """

    support = "levels of the clean signal"
    signals = (Bernoulli, DiscretizedLogisticLikelihood, Categorical)

    def __init__(self, signal: Likelihood, *, probability: Annotated[float, Field(gt=0, lt=1)]) -> None:
        super().__init__(signal)
        self.discrete = True
        self.probability = probability
        assert signal.num_values is not None
        self.high = signal.num_values - 1
        self.support = f"integers from 0 to {self.high}"

    @staticmethod
    def accepts(summary: DataSummary) -> bool:
        return summary.integral and summary.low >= 0

    def holds(self, summary: DataSummary) -> bool:
        return self.accepts(summary) and summary.high <= self.high

    @classmethod
    def given(cls, x_clean: Tensor, low: float, high: float, **options: Any) -> TorchDistribution:
        if x_clean.min() < low or x_clean.max() > high or low >= high:
            raise ValueError(
                f"salt and pepper requires a clean signal between two levels, low = {low:g} and high = {high:g}, got "
                f"[{float(x_clean.min()):g}, {float(x_clean.max()):g}]"
            )
        return _replaced(dist.Delta(x_clean), low, high, options["probability"], x_clean)

    def forward(self, output: Tensor) -> TorchDistribution:
        signal, p = self.signal(output), self.probability
        if isinstance(signal, dist.Bernoulli):
            return dist.Bernoulli(probs=(1 - p) * signal.probs + p / 2)
        if isinstance(signal, dist.Categorical):
            classes = torch.arange(self.high + 1, device=output.device)
            ends = ((classes == 0) | (classes == self.high)).to(output.dtype)
            return OrderedCategorical(probs=(1 - p) * signal.probs + p / 2 * ends)
        return _replaced(signal, 0, self.high, p, output)

    def clean(self, output: Tensor, x: Tensor, mask: Tensor | None = None) -> TorchDistribution:
        signal, p = self.signal(output), self.probability
        x = x if mask is None else self.filled(x, mask)
        log_signal = signal.log_prob(x)
        end = (x == 0) | (x == self.high)
        kept = torch.sigmoid(log_signal + torch.log(torch.as_tensor((1 - p) / (p / 2), dtype=x.dtype)))
        kept = torch.where(end, kept, torch.ones_like(kept))
        if mask is not None:
            kept = torch.where(mask, kept, torch.zeros_like(kept))
        if isinstance(signal, dist.Bernoulli):
            return dist.Bernoulli(probs=kept * x + (1 - kept) * signal.probs)
        if isinstance(signal, dist.Categorical):
            classes = torch.arange(self.high + 1, dtype=x.dtype, device=x.device)
            at = (x.unsqueeze(-1) == classes).to(kept.dtype)
            return OrderedCategorical(probs=kept.unsqueeze(-1) * at + (1 - kept).unsqueeze(-1) * signal.probs)
        return AtomMixture(signal, x.unsqueeze(-1), kept.unsqueeze(-1))

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        p = self.probability
        if not isinstance(self.signal, Categorical):
            # These signals start from the mean alone, and this has the mean of the clean data.
            return self.signal.initialize((x - p * self.high / 2) / (1 - p), observed, step)
        share = self.signal.initialize(x, observed, step).double().softmax(0)
        share[0], share[-1] = share[0] - p / 2, share[-1] - p / 2
        return (share / (1 - p)).clamp(min=_LEAST_SHARE).log().to(x.dtype)

    def expectation(self, distribution: TorchDistribution) -> Tensor:
        if isinstance(distribution, dist.Categorical):
            return self.signal.expectation(distribution)
        return distribution.mean


def _replaced(base: TorchDistribution, low: float, high: float, p: float, like: Tensor) -> TorchDistribution:
    place: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
    return AtomMixture(base, torch.tensor([low, high], **place), torch.tensor([p / 2, p / 2], **place))
