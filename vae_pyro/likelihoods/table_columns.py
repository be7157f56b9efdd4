"""The distribution of a row whose columns are of different kinds: one batch of each kind, put back in order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from vae_pyro.likelihoods.double_precision import StudentTInDouble

# Gaps between cutpoints stay above this, so that no category becomes impossible.
GAP_FLOOR = 1e-4

# Log dispersions of counts stay within these bounds; at the upper one a negative binomial is a Poisson to rounding.
_LOG_DISPERSION = 15.0


@dataclass(frozen=True)
class Part:
    """The columns of one kind.

    Attributes:
        places: which columns, ``(part,)``.
        distribution: of them, batch shape ``(*batch, part)``.
        double: whether log densities require float64: those of large counts are small differences of large numbers.
    """

    places: Tensor
    distribution: TorchDistribution
    double: bool = False

    def log_prob(self, value: Tensor) -> Tensor:
        """Elementwise, of all columns of a row; shape ``(*batch, part)``."""
        cells = value.index_select(-1, self.places)
        if not self.double:
            return self.distribution.log_prob(cells)
        return self.distribution.log_prob(cells.double()).to(value.dtype)


class Columns(TorchDistribution):
    """Independent columns, each with a distribution of its own kind.

    Batch shape ``(*batch, column)``, no event dimensions: ``log_prob`` is elementwise, so that masks are.

    Args:
        parts: the columns by kind; together they have every column once.
        order: where each column stands among those of the parts, one after the other: ``(column,)``.
        dtype: floating-point type of draws and moments.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = False

    def __init__(
        self, parts: Sequence[Part], order: Tensor, dtype: torch.dtype, validate_args: bool | None = None
    ) -> None:
        self.parts, self.order, self.dtype = tuple(parts), order, dtype
        shapes = [part.distribution.batch_shape[:-1] for part in self.parts]
        super().__init__(torch.broadcast_shapes(*shapes) + order.shape, validate_args=validate_args)

    @constraints.dependent_property(event_dim=0)
    def support(self) -> constraints.Constraint:
        return _Cells(self)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Columns":
        batch_shape = torch.Size(batch_shape)
        if batch_shape[-1:] != self.order.shape:
            raise ValueError(f"the last batch dimension is that of the {len(self.order)} columns, got {batch_shape}")
        new = self._get_checked_instance(Columns, _instance)
        new.order, new.dtype = self.order, self.dtype
        new.parts = tuple(
            replace(part, distribution=part.distribution.expand((*batch_shape[:-1], len(part.places))))
            for part in self.parts
        )
        super(Columns, new).__init__(batch_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self._in_order(lambda part: part.log_prob(value))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size(sample_shape)
        with torch.no_grad():
            return self._in_order(lambda part: part.distribution.expand(self._batch_of(part)).sample(shape))

    @property
    def mean(self) -> Tensor:
        """Expected value of numbers, probability of a binary column's second category, most probable other code."""

        def center(distribution: TorchDistribution) -> Tensor:
            if isinstance(distribution, dist.Categorical):
                return distribution.logits.argmax(-1)
            if isinstance(distribution, dist.StudentT):  # the centre of symmetry, also where no mean exists
                return distribution.loc
            return distribution.mean

        return self._in_order(lambda part: center(part.distribution).expand(self._batch_of(part)))

    @property
    def variance(self) -> Tensor:
        """Of each column; of codes, that of the codes as numbers."""

        def spread(distribution: TorchDistribution) -> Tensor:
            if not isinstance(distribution, dist.Categorical):
                return distribution.variance
            codes = torch.arange(distribution.logits.shape[-1], dtype=self.dtype, device=self.order.device)
            mean = (distribution.probs * codes).sum(-1, keepdim=True)
            return (distribution.probs * (codes - mean) ** 2).sum(-1)

        return self._in_order(lambda part: spread(part.distribution).expand(self._batch_of(part)))

    def _batch_of(self, part: Part) -> torch.Size:
        return self.batch_shape[:-1] + part.places.shape

    def _in_order(self, of: Callable[[Part], Tensor]) -> Tensor:
        """Values computed for each part, cast to the type of the row, in the order of the columns."""
        pieces = [of(part).to(self.dtype) for part in self.parts]
        return torch.cat(pieces, -1).index_select(-1, self.order)


class _Cells(constraints.Constraint):
    """Each cell lies in the support of its column."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.is_discrete = all(part.distribution.support.is_discrete for part in columns.parts)
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        inside = [part.distribution.support.check(value.index_select(-1, part.places)) for part in self.columns.parts]
        return torch.cat(inside, -1).index_select(-1, self.columns.order)


def cumulative_logits(location: Tensor, cutpoints: Tensor, num_classes: Tensor) -> Tensor:
    """Log probabilities of ordered categories: ``P(code <= k) = sigmoid(cutpoint_k - location)``.

    A difference of two cumulative probabilities is computed as ``S(b) S(-a) (1 - exp(a - b))``, which is exact and
    loses no digits in either tail.

    Args:
        location: ``(*batch, column)``; the larger, the higher the code.
        cutpoints: rising along the last dimension, ``(column, most classes - 1)``; those that a column of fewer classes
            does not have are finite, and unused.
        num_classes: ``(column,)``.

    Returns:
        ``(*batch, column, most classes)``, minus infinity beyond a column's classes.

    References:
        McCullagh 1980, Regression models for ordinal data, Journal of the Royal Statistical Society B 42, sec. 2
        (the proportional odds model).
    """
    upper = cutpoints - location.unsqueeze(-1)
    below, above = logsigmoid(upper), logsigmoid(-upper)
    width = torch.log(-torch.expm1(cutpoints[:, :-1] - cutpoints[:, 1:]))
    lowest, highest = below[..., :1], above[..., -1:]
    middle = below[..., 1:] + above[..., :-1] + width
    inner = torch.cat([lowest, middle, highest], -1)
    code = torch.arange(inner.shape[-1], device=location.device)
    last = num_classes.unsqueeze(-1) - 1
    # The highest category of a column with fewer classes than the widest ends at the last cutpoint that it has.
    ends = torch.cat([torch.zeros_like(lowest), above], -1)
    return torch.where(code == last, ends, inner).masked_fill(code > last, -torch.inf)


def real_cells(family: Literal["normal", "student_t"], loc: Tensor, scale: Tensor, df: float) -> TorchDistribution:
    """Cells of real columns, batch shape ``(*batch, column)``, for location and scale that broadcast to it."""
    if family == "normal":
        return dist.Normal(loc, scale)
    return StudentTInDouble(torch.as_tensor(df, dtype=loc.dtype, device=loc.device), loc, scale)


def count_cells(
    family: Literal["negative_binomial", "poisson"], log_rate: Tensor, log_dispersion: Tensor
) -> TorchDistribution:
    """Cells of counts in float64, batch shape ``(*batch, column)``, for log mean and log dispersion."""
    if family == "poisson":
        return dist.Poisson(log_rate.double().exp())
    bounded = log_dispersion.double().clamp(-_LOG_DISPERSION, _LOG_DISPERSION)
    log_rate, bounded = torch.broadcast_tensors(log_rate.double(), bounded)
    return dist.NegativeBinomial(bounded.exp(), logits=log_rate - bounded)


def category_logits(logits: Tensor, places: Tensor, absent: Tensor) -> Tensor:
    """Logits of each category column in a row of its own, ``(*batch, column, most categories)``.

    Args:
        logits: of all columns, one after the other, ``(*batch, logit)``.
        places: see `vae_pyro.likelihoods.table_layout.TableLayout.logit_places`.
        absent: likewise; those logits become minus infinity.
    """
    placed = logits.index_select(-1, places.flatten())
    return placed.reshape(*logits.shape[:-1], *places.shape).masked_fill(absent, -torch.inf)
