"""p(x | z): what the decoder's output means as a normalised distribution of x, and which data it can be asked about.

A likelihood turns decoder output ``(*batch, num_params, *x_shape)`` into a Pyro distribution with batch shape
``(*batch, *x_shape)``: elements are independent given z, so that an unobserved element can be masked out.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import pyro.distributions as dist
import torch
from pydantic import Field
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.nn.functional import softplus

from vae_pyro.distributions import ContinuousBernoulli, DiscretizedLogistic
from vae_pyro.features import Features, Levels, Log1p, OneHot, Standardize, masked_moments
from vae_pyro.registry import Registry

type Positive = Annotated[float, Field(gt=0)]
type ScaleOption = Positive | Literal["learned", "per_dimension", "predicted"]
type DispersionOption = Literal["learned", "per_dimension", "predicted"]

# Probabilities of the data's mean are kept this far from 0 and 1 when they start the output bias.
_BIAS_MARGIN = 1e-3
# Keeps rates and dispersions away from zero, where a count distribution has no density for a positive count.
_RATE_FLOOR = 1e-6


@dataclass(frozen=True)
class DataSummary:
    """What a likelihood is told about data before the first step.

    Attributes:
        low: smallest observed value.
        high: largest observed value.
        integral: whether every observed value is an integer.
        step: spacing of the lattice that the values lie on, where they are quantised (1/255 for scaled bytes).
    """

    low: float
    high: float
    integral: bool
    step: float | None = None

    @property
    def range(self) -> str:
        """``[low, high]`` for a message."""
        return f"[{self.low:g}, {self.high:g}]"


class Likelihood(nn.Module, ABC):
    """Decoder output -> normalised Pyro distribution of x.

    Attributes:
        discrete: whether log densities are of probabilities; if not they are of densities in the units of x.
        num_params: numbers that the decoder gives for each element of x.
        features: what the encoder sees of x; the guide shares it.
        fill: a value inside the support, which stands in for elements that are not observed.
    """

    discrete: ClassVar[bool]
    wants: ClassVar[str]
    num_params: int = 1
    fill: float = 0.0

    def __init__(self, x_shape: Sequence[int]) -> None:
        super().__init__()
        self.x_shape = tuple(x_shape)
        self.features = Features(x_shape)

    @abstractmethod
    def forward(self, output: Tensor) -> TorchDistribution:
        """Decoder output ``(*batch, num_params, *x_shape)`` -> distribution with batch shape ``(*batch, *x_shape)``."""

    @staticmethod
    @abstractmethod
    def accepts(summary: DataSummary) -> bool:
        """Whether such data lie in the support (for some value of the options)."""

    def holds(self, summary: DataSummary) -> bool:
        """Whether such data lie in the support with these options."""
        return self.accepts(summary)

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        """Set buffers and scales from training data, and say where the decoder's output bias should start.

        Args:
            x: ``(datum, *x_shape)``.
            observed: boolean, shape of ``x``.
            step: see `DataSummary`.

        Returns:
            Output bias of shape ``(num_params, *x_shape)``.
        """
        return torch.zeros(self.num_params, *self.x_shape, dtype=x.dtype)

    def expectation(self, distribution: TorchDistribution) -> Tensor:
        """E[x | z], shape ``(*batch, *x_shape)``; a likelihood of classes gives the most probable one."""
        return distribution.mean

    def parameter(self, output: Tensor, index: int) -> Tensor:
        """Parameter number ``index`` of the decoder's output, shape ``(*batch, *x_shape)``."""
        return output.select(-len(self.x_shape) - 1, index)

    def check(self, summary: DataSummary, name: str) -> None:
        """Refuse data outside the support.

        Raises:
            ValueError: the message names the range and the likelihoods that would fit.
        """
        if self.holds(summary):
            return
        fitting = ", ".join(repr(other) for other in LIKELIHOODS if fits(other, summary))
        binarize = "pass binarize='dynamic', " if summary.low >= 0 and name == "bernoulli" else ""
        raise ValueError(
            f"likelihood {name!r} wants {self.wants_with_options()}, got {summary.range}"
            f"{'' if summary.integral else ' with fractions'}; {binarize}scale the data, or choose "
            f"{fitting or 'another likelihood'}"
        )

    def wants_with_options(self) -> str:
        """The support in words."""
        return self.wants


LIKELIHOODS: Registry[Likelihood] = Registry("likelihood")


def fits(name: str, summary: DataSummary) -> bool:
    """Whether the likelihood registered as ``name`` can describe such data."""
    variant = LIKELIHOODS[name]
    return isinstance(variant, type) and issubclass(variant, Likelihood) and variant.accepts(summary)


def _inverse_softplus(y: Tensor) -> Tensor:
    return y + torch.log(-torch.expm1(-y))


@LIKELIHOODS.register("bernoulli")
class Bernoulli(Likelihood):
    """Independent Bernoulli elements; the decoder gives logits.

    Args:
        x_shape: event shape of x.

    References:
        Kingma & Welling 2014, Auto-encoding variational Bayes, appendix C.1. arXiv:1312.6114
    """

    discrete = True
    wants = "values in {0, 1}"

    def forward(self, output: Tensor) -> TorchDistribution:
        return dist.Bernoulli(logits=self.parameter(output, 0))

    @staticmethod
    def accepts(summary: DataSummary) -> bool:
        return summary.integral and summary.low >= 0 and summary.high <= 1

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        mean, _ = masked_moments(x, observed, [0])
        # Burda et al. 2016 start the output bias at the logit of the training mean.
        return torch.logit(mean, eps=_BIAS_MARGIN).to(x.dtype).unsqueeze(0)


@LIKELIHOODS.register("continuous_bernoulli")
class ContinuousBernoulliLikelihood(Likelihood):
    """Independent continuous Bernoulli elements on [0, 1]; the decoder gives logits.

    Args:
        x_shape: event shape of x.

    References:
        Loaiza-Ganem & Cunningham 2019, The continuous Bernoulli, NeurIPS. arXiv:1907.06845
    """

    discrete = False
    wants = "values in [0, 1]"

    def forward(self, output: Tensor) -> TorchDistribution:
        return ContinuousBernoulli(self.parameter(output, 0))

    @staticmethod
    def accepts(summary: DataSummary) -> bool:
        return summary.low >= 0 and summary.high <= 1

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        mean, _ = masked_moments(x, observed, [0])
        low, high = torch.full_like(mean, -1 / _BIAS_MARGIN), torch.full_like(mean, 1 / _BIAS_MARGIN)
        for _ in range(60):  # the mean rises with the logit and has no closed inverse: bisection
            middle = (low + high) / 2
            below = ContinuousBernoulli(middle).mean < mean
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return low.to(x.dtype).unsqueeze(0)


class LocationScale(Likelihood):
    """Families with a location from the decoder and a scale in the units of x.

    The decoder works in standardised units (`Standardize`) and the density in the user's. A learned scale is
    ``reference * (floor + softplus(parameter))``, where the reference is the training data's standard deviation, and
    never falls below ``step / sqrt(12)``, the standard deviation of rounding, on quantised data: a density on a
    lattice has no upper bound otherwise.

    Args:
        x_shape: event shape of x.
        scale: a number fixes it, in units of x; ``learned`` is one for all elements, ``per_dimension`` one for each,
            ``predicted`` one for each from the decoder.
        min_scale: lower bound of a scale that is not fixed, as a fraction of the data's standard deviation.
    """

    discrete = False
    wants = "finite real values"
    reference: Tensor
    floor: Tensor

    def __init__(self, x_shape: Sequence[int], *, scale: ScaleOption = "learned", min_scale: Positive = 1e-3) -> None:
        super().__init__(x_shape)
        self.scale, self.min_scale = scale, min_scale
        self.features = Standardize(x_shape)
        self.num_params = 2 if scale == "predicted" else 1
        shape = self.x_shape if scale in ("per_dimension", "predicted") else ()
        self.register_buffer("reference", torch.ones(shape))
        self.register_buffer("floor", torch.full(shape, min_scale))
        start = _inverse_softplus(torch.ones(shape))
        self.raw_scale = nn.Parameter(start) if scale in ("learned", "per_dimension") else None

    @staticmethod
    def accepts(summary: DataSummary) -> bool:
        return True

    def loc_scale(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Location ``(*batch, *x_shape)`` and a scale that broadcasts to it, both in units of x."""
        standardize = self.features
        assert isinstance(standardize, Standardize)
        loc = standardize.loc + standardize.scale * self.parameter(output, 0)
        if self.scale == "predicted":
            return loc, self.reference * (self.floor + softplus(self.parameter(output, 1)))
        if self.raw_scale is None:
            return loc, torch.as_tensor(self.scale, dtype=loc.dtype, device=loc.device)
        return loc, self.reference * (self.floor + softplus(self.raw_scale))

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        standardize = self.features
        assert isinstance(standardize, Standardize)
        standardize.fit(x, observed)
        mean, variance = masked_moments(x, observed, [0])
        overall = float((variance * observed.sum(0)).sum() / observed.sum().clamp(min=1)) ** 0.5 or 1.0
        # Elements of one image share units, so a constant pixel takes the image's scale; a constant column keeps one.
        sd = variance.sqrt() if len(self.x_shape) == 1 else torch.full_like(variance, overall)
        sd = torch.where(sd > 0, sd, torch.ones_like(sd))
        reference = sd if self.reference.dim() else torch.tensor(overall)
        self.reference.copy_(reference)
        rounding = (step or 0.0) / 12**0.5
        self.floor.copy_((rounding / reference).clamp(min=self.min_scale))
        bias = torch.zeros(self.num_params, *self.x_shape, dtype=torch.float64)
        bias[0] = (mean - standardize.loc.double()) / standardize.scale.double()
        if self.num_params == 2:
            bias[1] = _inverse_softplus(torch.ones(()))
        return bias.to(x.dtype)


@LIKELIHOODS.register("gaussian")
class Gaussian(LocationScale):
    """Independent Gaussian elements, with a scale that is fixed and stated, or learned.

    Args:
        x_shape: event shape of x.
        scale: see `LocationScale`.
        min_scale: see `LocationScale`.

    References:
        Kingma & Welling 2014, Auto-encoding variational Bayes, appendix C.2. arXiv:1312.6114
    """

    def forward(self, output: Tensor) -> TorchDistribution:
        return dist.Normal(*self.loc_scale(output))


@LIKELIHOODS.register("laplace")
class Laplace(LocationScale):
    """Independent Laplace elements: absolute error with its normaliser.

    Args:
        x_shape: event shape of x.
        scale: see `LocationScale`.
        min_scale: see `LocationScale`.
    """

    def forward(self, output: Tensor) -> TorchDistribution:
        return dist.Laplace(*self.loc_scale(output))


@LIKELIHOODS.register("student_t")
class StudentT(LocationScale):
    """Independent Student t elements, which forgive outliers.

    Args:
        x_shape: event shape of x.
        scale: see `LocationScale`.
        min_scale: see `LocationScale`.
        df: degrees of freedom; ``learned`` fits one number above 1 for all elements.
    """

    def __init__(
        self,
        x_shape: Sequence[int],
        *,
        scale: ScaleOption = "learned",
        min_scale: Positive = 1e-3,
        df: Positive | Literal["learned"] = 5.0,
    ) -> None:
        super().__init__(x_shape, scale=scale, min_scale=min_scale)
        self.df = df
        self.raw_df = nn.Parameter(_inverse_softplus(torch.tensor(4.0))) if df == "learned" else None

    def forward(self, output: Tensor) -> TorchDistribution:
        loc, scale = self.loc_scale(output)
        df = 1 + softplus(self.raw_df) if self.raw_df is not None else self.df
        return dist.StudentT(torch.as_tensor(df, dtype=loc.dtype, device=loc.device), loc, scale)

    def expectation(self, distribution: TorchDistribution) -> Tensor:
        # The mean does not exist for df <= 1; the location is the centre of symmetry at every df.
        assert isinstance(distribution, dist.StudentT)
        return distribution.loc


@LIKELIHOODS.register("categorical")
class Categorical(Likelihood):
    """Independent categorical elements with classes ``0 .. num_classes - 1``; the encoder sees indicators.

    Args:
        x_shape: event shape of x.
        num_classes: number of classes of every element.
    """

    discrete = True
    wants = "integer classes"

    def __init__(self, x_shape: Sequence[int], *, num_classes: Annotated[int, Field(ge=2)]) -> None:
        super().__init__(x_shape)
        self.num_params = self.num_classes = num_classes
        self.features = OneHot(x_shape, num_classes)

    def forward(self, output: Tensor) -> TorchDistribution:
        return dist.Categorical(logits=output.movedim(-len(self.x_shape) - 1, -1))

    @staticmethod
    def accepts(summary: DataSummary) -> bool:
        return summary.integral and summary.low >= 0

    def holds(self, summary: DataSummary) -> bool:
        return self.accepts(summary) and summary.high <= self.num_classes - 1

    def wants_with_options(self) -> str:
        return f"integers from 0 to {self.num_classes - 1}"

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        count = torch.stack([((x == c) & observed).sum(0) for c in range(self.num_classes)]).to(torch.float64)
        share = (count + 1) / (count.sum(0) + self.num_classes)  # Laplace's rule keeps unseen classes possible.
        return share.log().to(x.dtype)

    def expectation(self, distribution: TorchDistribution) -> Tensor:
        assert isinstance(distribution, dist.Categorical)
        return distribution.logits.argmax(-1).to(distribution.logits.dtype)


class Counts(Likelihood):
    """Families of counts with a rate from the decoder through a softplus; the encoder sees ``log(1 + x)``."""

    discrete = True
    wants = "integer counts from 0 up"

    def __init__(self, x_shape: Sequence[int]) -> None:
        super().__init__(x_shape)
        self.features = Log1p(x_shape)

    @staticmethod
    def accepts(summary: DataSummary) -> bool:
        return summary.integral and summary.low >= 0

    def rate(self, output: Tensor) -> Tensor:
        """Mean count, positive, shape ``(*batch, *x_shape)``."""
        return softplus(self.parameter(output, 0)) + _RATE_FLOOR

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        mean, _ = masked_moments(x, observed, [0])
        bias = torch.zeros(self.num_params, *self.x_shape, dtype=torch.float64)
        bias[0] = _inverse_softplus(mean.clamp(min=_BIAS_MARGIN))
        return bias.to(x.dtype)


@LIKELIHOODS.register("poisson")
class Poisson(Counts):
    """Independent Poisson counts.

    Args:
        x_shape: event shape of x.
    """

    def forward(self, output: Tensor) -> TorchDistribution:
        return dist.Poisson(self.rate(output))


@LIKELIHOODS.register("negative_binomial")
class NegativeBinomial(Counts):
    """Independent negative binomial counts with mean m and variance ``m + m^2 / r``.

    Args:
        x_shape: event shape of x.
        dispersion: r is ``learned`` as one number, ``per_dimension``, or ``predicted`` by the decoder.

    References:
        Lopez et al. 2018, Deep generative modeling for single-cell transcriptomics, Nature Methods 15.
        doi:10.1038/s41592-018-0229-2
    """

    def __init__(self, x_shape: Sequence[int], *, dispersion: DispersionOption = "per_dimension") -> None:
        super().__init__(x_shape)
        self.dispersion = dispersion
        self.num_params = 2 if dispersion == "predicted" else 1
        shape = self.x_shape if dispersion == "per_dimension" else ()
        start = _inverse_softplus(torch.ones(shape))
        self.raw_dispersion = nn.Parameter(start) if dispersion != "predicted" else None

    def forward(self, output: Tensor) -> TorchDistribution:
        raw = self.parameter(output, 1) if self.raw_dispersion is None else self.raw_dispersion
        rate, total_count = torch.broadcast_tensors(self.rate(output), softplus(raw) + _RATE_FLOOR)
        return dist.NegativeBinomial(total_count, logits=rate.log() - total_count.log())


@LIKELIHOODS.register("discretized_logistic")
class DiscretizedLogisticLikelihood(Likelihood):
    """Independent logistic elements rounded to the integers ``0 .. levels - 1``: a probability of raw bytes.

    Args:
        x_shape: event shape of x.
        levels: number of levels.
        scale: ``per_dimension``, ``learned`` as one number, or ``predicted`` by the decoder.

    References:
        Kingma et al. 2016, Improved variational inference with inverse autoregressive flow. arXiv:1606.04934
    """

    discrete = True
    wants = "integer levels"

    def __init__(
        self,
        x_shape: Sequence[int],
        *,
        levels: Annotated[int, Field(ge=2)] = 256,
        scale: Literal["learned", "per_dimension", "predicted"] = "per_dimension",
    ) -> None:
        super().__init__(x_shape)
        self.levels, self.scale = levels, scale
        self.features = Levels(x_shape, levels)
        self.num_params = 2 if scale == "predicted" else 1
        shape = self.x_shape if scale == "per_dimension" else ()
        self.start = _inverse_softplus(torch.tensor(levels / 16))
        self.raw_scale = nn.Parameter(self.start.expand(shape).clone()) if scale != "predicted" else None

    def forward(self, output: Tensor) -> TorchDistribution:
        half = (self.levels - 1) / 2
        loc = half * (1 + self.parameter(output, 0))
        raw = self.parameter(output, 1) if self.raw_scale is None else self.raw_scale
        return DiscretizedLogistic(loc, softplus(raw) + _BIAS_MARGIN, self.levels)

    @staticmethod
    def accepts(summary: DataSummary) -> bool:
        return summary.integral and summary.low >= 0 and summary.high <= 255

    def holds(self, summary: DataSummary) -> bool:
        return summary.integral and summary.low >= 0 and summary.high <= self.levels - 1

    def wants_with_options(self) -> str:
        return f"integers from 0 to {self.levels - 1}"

    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        mean, _ = masked_moments(x, observed, [0])
        bias = torch.zeros(self.num_params, *self.x_shape, dtype=torch.float64)
        bias[0] = mean * (2 / (self.levels - 1)) - 1
        if self.num_params == 2:
            bias[1] = self.start
        return bias.to(x.dtype)
