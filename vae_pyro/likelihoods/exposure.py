"""Counts whose exposure is their own total: rates are shares of it."""

from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from vae_pyro.likelihoods.count_distributions import CountDistribution
from vae_pyro.nn.features import masked_moments

# Totals of the training data that are kept: as many of their quantiles.
NUM_TOTALS = 512


class EventCounts(TorchDistribution):
    """Counts of an event of any shape, by the shares of its elements and a total; draws take theirs from ``totals``.

    Args:
        logits: log shares up to a constant, ``(*batch, *event)``.
        event_dim: number of dimensions of the event.
        totals: ``(number,)``, of which draws take theirs, at random.
        mask: boolean, broadcasts to ``logits``; elements where it is false add nothing, and are drawn as 0.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = False

    def __init__(
        self,
        logits: Tensor,
        event_dim: int,
        totals: Tensor,
        mask: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.logits, self.totals, self.mask_of = masked_logits(logits, mask), totals, mask
        batch, event = logits.shape[: logits.dim() - event_dim], logits.shape[logits.dim() - event_dim :]
        super().__init__(batch, event, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.nonnegative_integer, self.event_dim)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new = self._get_checked_instance(type(self), _instance)
        new.totals, new.mask_of = self.totals, self.mask_of
        new.logits = self.logits.expand(*batch_shape, *self.event_shape)
        TorchDistribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def visible(self, value: Tensor) -> Tensor:
        """Values, 0 where an element is not observed."""
        return value if self.mask_of is None else torch.where(self.mask_of, value, torch.zeros_like(value))

    def draw_totals(self, sample_shape: Any) -> Tensor:
        """A total for each draw, ``(*sample, *batch)``."""
        shape = torch.Size(sample_shape) + self.batch_shape
        return self.totals[torch.randint(len(self.totals), shape, device=self.totals.device)]


class CountsOfTotal(EventCounts):
    """Counts of an event of any shape whose rates are shares of an exposure, which for data is their observed total.

    ``log p(x | n) = sum_j log p(x_j; n s_j)`` over the observed elements, with ``n = sum_j x_j`` and the shares s
    renormalised over them. The exposure is a covariate: the families give positive probability to counts of any other
    sum, so that over the rows of one total these probabilities sum to less than one, unlike those of a multinomial. The
    sum of a draw varies around its exposure.

    Args:
        elements: rates ``(*batch, *event)`` -> the distribution of each element.
        arguments: see `EventCounts`.
    """

    def __init__(self, elements: Callable[[Tensor], CountDistribution], *arguments: Any, **options: Any) -> None:
        self.elements = elements
        super().__init__(*arguments, **options)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new = super().expand(batch_shape, _instance)
        new.elements = self.elements
        return new

    @property
    def shares(self) -> Tensor:
        """s of each element, shape of ``logits``."""
        return shares_of(self.logits, self.event_dim)

    @property
    def mean(self) -> Tensor:
        """Expected counts of a draw, shape of ``logits``."""
        return self._moments()[0]

    @property
    def variance(self) -> Tensor:
        """Variance of a draw's counts, that of the totals included; shape of ``logits``."""
        return self._moments()[1]

    def _moments(self) -> tuple[Tensor, Tensor]:
        shares = self.shares
        rate = self.totals.mean() * shares
        return self.elements(rate).moments(rate, self.totals.square().mean() * shares.square())

    def log_prob(self, value: Tensor) -> Tensor:
        value = self.visible(value)
        if self._validate_args:
            self._validate_sample(value)
        dims = list(range(-self.event_dim, 0))
        elements = self.elements(rate_of(value.sum(dims, keepdim=True), self.shares)).log_prob(value)
        return self.visible(elements).sum(dims)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            totals = self.draw_totals(sample_shape)
            totals = totals.reshape(*totals.shape, *(1,) * self.event_dim)
            return self.visible(self.elements(rate_of(totals, self.shares)).sample())


# Keeps a rate positive where a datum has no counts, or an element no share to speak of.
_LEAST_RATE = 1e-8


def rate_of(total: Tensor, shares: Tensor) -> Tensor:
    """Rates of an exposure, which broadcasts to ``shares``."""
    return total * shares + _LEAST_RATE


def masked_logits(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Logits whose softmax is 0 where ``mask`` is false."""
    if mask is None:
        return logits
    # Not minus infinity: a datum with nothing observed would have the gradient of inf - inf.
    return torch.where(mask, logits, torch.full_like(logits, torch.finfo(logits.dtype).min / 4))


def shares_of(logits: Tensor, event_dim: int) -> Tensor:
    """Softmax over the elements of an event.

    Args:
        logits: ``(*batch, *event)``.
        event_dim: number of dimensions of the event.
    """
    return logits.flatten(-event_dim).softmax(-1).reshape(logits.shape)


def totals_of(x: Tensor, observed: Tensor) -> Tensor | None:
    """Totals of whole data, float64, ``(number,)``; ``None`` where nothing was counted.

    A row that is observed in part has a larger total than it shows: the shares of the elements say how much.

    Args:
        x: counts, ``(datum, *x_shape)``.
        observed: boolean, shape of ``x``.
    """
    mean, _ = masked_moments(x, observed, [0])
    count = torch.where(observed, x, torch.zeros_like(x)).flatten(1).sum(1, dtype=torch.float64)
    share = mean / mean.sum().clamp(min=1e-12)
    seen = torch.where(observed, share, torch.zeros_like(share)).flatten(1).sum(1)
    whole = count[seen > 0] / seen[seen > 0]
    return whole if len(whole) else None


def quantiles_of(totals: Tensor) -> Tensor:
    """`NUM_TOTALS` quantiles of totals, of which a draw takes one."""
    levels = (torch.arange(NUM_TOTALS, dtype=totals.dtype, device=totals.device) + 0.5) / NUM_TOTALS
    return torch.quantile(totals, levels)


def log_shares(x: Tensor, observed: Tensor) -> Tensor:
    """Log of the mean share of each element, ``x_shape``, float64.

    As if every element had been counted once more in all data: elements that never occurred stay possible.
    """
    mean, _ = masked_moments(x, observed, [0])
    share = mean * len(x) + 1
    return (share / share.sum()).log()
