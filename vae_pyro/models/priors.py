"""p(z): priors of the latent, each a module that gives a Pyro distribution with event shape ``(latent_dim,)``."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import pyro.distributions as dist
import torch
from pydantic import Field
from pyro.distributions import TorchDistribution, transforms
from torch import Tensor, nn

from vae_pyro.core.registry import Registry
from vae_pyro.models.posteriors import Posterior
from vae_pyro.nn.layers import Widths

type Encode = Callable[[Tensor], TorchDistribution]


class Prior(nn.Module, ABC):
    """The distribution of z before x is seen.

    Args:
        latent_dim: dimension of z.
        feature_shape: event shape of what the encoder sees.
    """

    def __init__(self, latent_dim: int, feature_shape: Sequence[int]) -> None:
        super().__init__()
        self.latent_dim, self.feature_shape = latent_dim, tuple(feature_shape)

    @classmethod
    def check(cls, latent_dim: int, posterior: type[Posterior]) -> None:
        """Refuse what the prior cannot be combined with, with a ValueError."""

    @property
    def initial_rows(self) -> int:
        """How many training data `initialize` uses."""
        return 0

    def initialize(self, features: Tensor) -> None:
        """Start from training features ``(datum, *feature_shape)``, in random order."""

    @abstractmethod
    def forward(self, encode: Encode) -> TorchDistribution:
        """The prior, with batch shape () and event shape ``(latent_dim,)``.

        Args:
            encode: maps features to q(z | x); only a prior that is made of posteriors calls it.
        """


PRIORS: Registry[Prior] = Registry("prior")


@PRIORS.register("normal")
class StandardNormal(Prior):
    """Standard normal.

    Args:
        latent_dim: dimension of z.
        feature_shape: not used.
    """

    loc: Tensor

    def __init__(self, latent_dim: int, feature_shape: Sequence[int]) -> None:
        super().__init__(latent_dim, feature_shape)
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)

    def forward(self, encode: Encode) -> TorchDistribution:
        return dist.Normal(self.loc, torch.ones_like(self.loc)).to_event(1)


@PRIORS.register("mixture")
class Mixture(Prior):
    """Mixture of diagonal Gaussians with learned weights, locations and scales.

    Args:
        latent_dim: dimension of z.
        feature_shape: not used.
        components: number of components.

    References:
        Dilokthanakul et al. 2016, Deep unsupervised clustering with Gaussian mixture variational autoencoders.
        arXiv:1611.02648
    """

    def __init__(
        self, latent_dim: int, feature_shape: Sequence[int], *, components: Annotated[int, Field(ge=1)] = 10
    ) -> None:
        super().__init__(latent_dim, feature_shape)
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(components, latent_dim))

    def forward(self, encode: Encode) -> TorchDistribution:
        component = dist.Normal(self.loc, self.log_scale.exp()).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), component)


@PRIORS.register("vamp")
class VampPrior(Prior):
    """Uniform mixture of the posteriors of learned pseudo-inputs, which start at training data.

    Args:
        latent_dim: dimension of z.
        feature_shape: event shape of a pseudo-input.
        components: number of pseudo-inputs.

    References:
        Tomczak & Welling 2018, VAE with a VampPrior, eq. 9. arXiv:1705.07120
    """

    def __init__(
        self, latent_dim: int, feature_shape: Sequence[int], *, components: Annotated[int, Field(ge=1)] = 500
    ) -> None:
        super().__init__(latent_dim, feature_shape)
        self.pseudo_inputs = nn.Parameter(0.05 + 0.01 * torch.randn(components, *feature_shape))

    @classmethod
    def check(cls, latent_dim: int, posterior: type[Posterior]) -> None:
        if not posterior.cheap_density:
            raise ValueError(
                f"prior 'vamp' evaluates q(z | u) at every z, which posterior {posterior.__name__!r} can do only one "
                "dimension at a time; choose posterior 'mean_field' or 'full_rank'"
            )

    @property
    def initial_rows(self) -> int:
        return len(self.pseudo_inputs)

    def initialize(self, features: Tensor) -> None:
        with torch.no_grad():
            rows = torch.arange(len(self.pseudo_inputs), device=features.device)
            # Copies of one datum would have equal gradients for ever; the noise that they start with tells them apart.
            repeated = (rows >= len(features)).reshape(-1, *(1,) * len(self.feature_shape))
            noise = torch.where(repeated, self.pseudo_inputs - self.pseudo_inputs.mean(0), 0.0)
            self.pseudo_inputs.copy_(features[rows % len(features)] + noise)

    def forward(self, encode: Encode) -> TorchDistribution:
        component = encode(self.pseudo_inputs)
        weight = torch.zeros(len(self.pseudo_inputs), dtype=self.pseudo_inputs.dtype, device=self.pseudo_inputs.device)
        return dist.MixtureSameFamily(dist.Categorical(logits=weight), component)


@PRIORS.register("flow")
class FlowPrior(Prior):
    """Neural spline flow over a standard normal: coupling layers, so that draws and densities both cost one pass.

    Args:
        latent_dim: dimension of z, at least 2.
        feature_shape: not used.
        steps: number of coupling layers, with the order of z reversed between them.
        hidden: widths of each layer's network.
        bins: number of segments of each spline.
        bound: the splines act on [-bound, bound] and are the identity outside.

    References:
        Durkan et al. 2019, Neural spline flows, sec. 3. arXiv:1906.04032
    """

    loc: Tensor
    order: Tensor

    def __init__(
        self,
        latent_dim: int,
        feature_shape: Sequence[int],
        *,
        steps: Annotated[int, Field(ge=1)] = 4,
        hidden: Widths = (64,),
        bins: Annotated[int, Field(ge=2)] = 8,
        bound: Annotated[float, Field(gt=0)] = 4.0,
    ) -> None:
        super().__init__(latent_dim, feature_shape)
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("order", torch.arange(latent_dim - 1, -1, -1), persistent=False)
        self.steps = nn.ModuleList(
            transforms.spline_coupling(latent_dim, hidden_dims=list(hidden), count_bins=bins, bound=bound)
            for _ in range(steps)
        )

    @classmethod
    def check(cls, latent_dim: int, posterior: type[Posterior]) -> None:
        if latent_dim < 2:
            raise ValueError(f"prior 'flow' wants latent_dim >= 2, got {latent_dim}; choose 'mixture'")

    def forward(self, encode: Encode) -> TorchDistribution:
        base = dist.Normal(self.loc, torch.ones_like(self.loc)).to_event(1)
        chain: list[Any] = []
        for step in self.steps:
            chain += [step, transforms.permute(self.latent_dim, self.order)]
        return dist.TransformedDistribution(base, chain)

    def __getstate__(self) -> dict[str, Any]:
        # Pyro's splines keep their last result with its graph, which can be neither copied nor stored.
        for step in self.steps.modules():
            for name in ("_cached_x_y", "_cache_log_detJ"):
                if hasattr(step, name):
                    setattr(step, name, (None, None) if name == "_cached_x_y" else None)
        return self.__dict__
