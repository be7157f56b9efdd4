"""Model and guide of one configuration: what their densities are of, and which data and arguments they take."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from vae_pyro.core.isolation import seeded
from vae_pyro.core.memory import allocations_within_memory
from vae_pyro.data.memory.sparse_rows import SparseRows, is_sparse
from vae_pyro.data.objects import integers_of, mask_of, tensor_of
from vae_pyro.data.split import Split
from vae_pyro.data.summary import DataSummary
from vae_pyro.data.tables.schema import Schema
from vae_pyro.densities.measure import Measure, Target
from vae_pyro.densities.pair import Pair
from vae_pyro.densities.programs.module_state import ModuleState
from vae_pyro.densities.programs.programs import Programs
from vae_pyro.likelihoods.noise import likelihood_of
from vae_pyro.models.config import VAEConfig
from vae_pyro.models.guide import Guide
from vae_pyro.models.model import Model
from vae_pyro.models.structures import STRUCTURES, Parts

# Data whose values are looked at together.
_ROWS = 10_000


class ConfiguredPair(nn.Module, Pair):
    """A model and guide that are built from one configuration, and refuse what does not fit it.

    Args:
        config: what to build.
        seed: of the initial weights.

    Raises:
        ValueError: a network does not fit the shape of the data, or the weights do not fit into memory.
    """

    model: Model
    guide: Guide

    def __init__(self, config: VAEConfig, *, seed: int = 0) -> None:
        nn.Module.__init__(self)  # `Pair.__init__` takes programs that are there already
        self.config = config
        what = f"the weights of the VAE of latent_dim={config.latent_dim} and x_shape={config.x_shape}"
        with seeded(seed), allocations_within_memory(what, "lower the widths, latent_dim or the number of classes"):
            parts = Parts(config, likelihood_of(config.likelihood, config.noise, config.x_shape))
            structure = STRUCTURES.build(config.structure)
            model, guide = structure.build(parts)
            parts.finish()
        self.num_classes = structure.num_classes
        self.guide, self.model = guide, model

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Names of the columns of the table that x is a row of; ``None`` for other data."""
        return None if self.schema is None else tuple(self.schema.names)

    @property
    def schema(self) -> Schema | None:
        """Kinds of the columns of the table that x is a row of, where they have kinds; ``None`` for other data."""
        return self.model.likelihood.schema

    @property
    def measure(self) -> Measure:
        """Whether p(x) is a probability, given the total of x or not, or a density."""
        return self.model.likelihood.measure

    def programs(self, split: Split | None = None) -> Programs:
        """Its programs keep the contract, so that nothing has to be found out."""
        state = ModuleState(self)
        return Programs(self.model, self.guide, state, outputs_ignore_data=True, data_dtype=self.dtype)

    def programs_of_draws(
        self, like: Split | None, y: Tensor | None = None, *, dtype: torch.dtype | None = None
    ) -> Programs:
        """As `programs`: no data are required."""
        return self.programs()

    def place(self, split: Split) -> tuple[torch.device, torch.dtype]:
        """Device and type of the weights."""
        return self.device, self.dtype

    def target(self, split: Split) -> Target:
        """What the log densities of some data are of: x, x given y, x and y, or x and the mask."""
        known = 0 if split.y is None else int((split.y >= 0).sum())
        return STRUCTURES.build(self.config.structure).target(data=len(split), known=known)

    def width(self, split: Split) -> int:
        """Numbers that the widest tensor of a pass holds for each particle and datum."""
        parts = (self.model.likelihood, self.model.decoder, self.model.prior)
        return max(super().width(split), *(part.max_width for part in parts))

    def check_shape(self, values: Tensor) -> None:
        """Refuse data whose shape is not ``config.x_shape``."""
        self.as_input(values)

    def expectation_of(self, elements: TorchDistribution) -> Tensor:
        """E[x | z] of a distribution of x (the most probable class for a categorical likelihood)."""
        return self.model.likelihood.expectation(elements)

    def as_input(self, x: Any) -> Tensor:
        """``x`` as a tensor of this VAE's type and device.

        Raises:
            ValueError: the shape of a datum is not ``config.x_shape``.
        """
        if is_sparse(x):
            x = SparseRows.of(x)[:]
        elif not isinstance(x, Tensor):
            x, observed = tensor_of(x)
            if observed is not None:
                raise ValueError("a masked array hides elements; pass its values, x.filled(0), and mask=~x.mask")
        x = torch.as_tensor(x, dtype=self.dtype, device=self.device)
        shape = self.config.x_shape
        if x.dim() != len(shape) + 1 or x.shape[1:] != shape:
            raise ValueError(f"data of shape (datum, {', '.join(map(str, shape))}) expected, got {tuple(x.shape)}")
        return x

    def check_data(self, split: Split, *, blank: bool = False, y: Tensor | None = None) -> None:
        """Refuse data that the model cannot describe: `check` of a split, and of each value where no range says enough.

        Args:
            split: a `vae_pyro.data.dataset.Split`.
            blank: take data of which nothing is observed, too; only their shape can be wrong.
            y: classes in place of the split's, such as one that stands for all that will be tried.

        Raises:
            ValueError: see `check`.
        """
        unseen = blank and split.mask is not None and not bool(split.mask.any())
        self.check(split.head, None if unseen else split.summary(), split.y if y is None else y)
        if self.model.likelihood.by_value:
            for start in range(0, len(split), _ROWS):
                values, given = split.batch(slice(start, start + _ROWS), torch.float64)
                everything = torch.ones_like(values, dtype=torch.bool)
                self.model.likelihood.refuse(values, given.get("mask", everything))

    def check(self, values: Tensor, summary: DataSummary | None, y: Tensor | None = None) -> None:
        """Refuse data of another shape, or outside the support of the likelihood, and classes that there are not.

        Args:
            values: some of the data, ``(datum, *x_shape)``.
            summary: of all of them, see `vae_pyro.data.dataset.Split.summary`; ``None`` where nothing is observed.
            y: classes of all of them, where they are given to the programs.

        Raises:
            ValueError: the message names the shape, the range and the likelihoods that would fit, or the classes.
        """
        self.as_input(values[:1])
        if summary is not None:
            self.model.likelihood.check(summary, self.config.likelihood.name)
        self.model.require(y)
        if y is not None:
            self._require_classes(y)

    def _given(self, mask: Tensor | None, y: Any) -> tuple[Tensor | None, Tensor | None]:
        """Mask and labels on the device.

        Raises:
            ValueError: labels that are no integers, or no classes of the model.
        """
        mask = None if mask is None else mask_of(mask, self.device)
        if y is None:
            return mask, None
        classes = integers_of(y)
        self._require_classes(classes)
        return mask, classes.to(self.device)

    def _require_classes(self, y: Tensor) -> None:
        if not self.num_classes or y.numel() == 0:
            return  # of a structure without classes y is refused where it is passed on
        lowest, low, high = self.model.lowest_class, int(y.min()), int(y.max())
        if low < lowest or high >= self.num_classes:
            raise ValueError(
                f"structure {self.config.structure.name!r} has classes from {lowest} to {self.num_classes - 1}, got y "
                f"from {low} to {high}; give every datum such a class, or set structure.num_classes"
            )

    def _latent(self, z: Any) -> Tensor:
        z = torch.as_tensor(z, dtype=self.dtype, device=self.device)
        if z.shape[-1:] != (self.config.latent_dim,):
            raise ValueError(f"z of shape (..., {self.config.latent_dim}) expected, got {tuple(z.shape)}")
        return z

    def _class(self, y: Any) -> Tensor | None:
        """Classes for the decoder, which reads a class and cannot infer it."""
        classes = self._given(None, y)[1]
        if classes is not None and classes.numel() and int(classes.min()) < 0:
            raise ValueError(f"the decoder reads a class from 0 to {self.num_classes - 1}, got {int(classes.min())}")
        return classes
